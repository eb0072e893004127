"""The geometric Jacobian of a serial arm in plain NumPy: the definition, to read and to copy.

Whitney, "Resolved motion rate control of manipulators and human prostheses" (1969); frames by the standard convention
of Denavit and Hartenberg (1955). Computed in float32 (float64 where the input is), and rounded once to the format of
`q`. B poses, n joints.
"""

import numpy as np


def geometric_jacobian(q, dh):
    """Return the position and the Jacobian of arms of joint angles `q` (B, n); `dh` (n, 4) is a, alpha, d, offset."""
    check(q, dh)
    a, alpha, d, offset = columns(wide(dh, q.dtype))  # (n,) each
    theta = angles(wide(q, q.dtype), offset)  # (B, n)
    origins, axes = frames(*links(theta, a, alpha, d))  # (B, n + 1, 3), (B, n + 1, 3)
    found = {"position": origins[:, -1], "jacobian": stacked(linear(origins, axes), angular(axes))}
    return {name: rounded(array, q.dtype) for name, array in found.items()}


def check(q, dh):
    """Raise ValueError for what must be refused."""
    if q.ndim != 2:
        raise ValueError(f"q must be of shape (B, n), got rank {q.ndim}")
    if dh.ndim != 2 or dh.shape[1] != 4:
        raise ValueError(f"dh must be of shape (n, 4), got {dh.shape}")
    if q.shape[1] != dh.shape[0]:
        raise ValueError(f"q has {q.shape[1]} joints, dh {dh.shape[0]}")
    if q.shape[1] == 0:
        raise ValueError("an arm must have at least one joint")
    if not (np.isfinite(q.astype(np.float64)).all() and np.isfinite(dh).all()):
        raise ValueError("q and dh must be finite")


def wide(x, storage):
    """Return `x` in the format in which it is computed: float64 for float64 storage, float32 for all narrower."""
    return x.astype(np.float64 if storage == np.float64 else np.float32)


def rounded(x, storage):
    """Round to the format of the joint angles."""
    return x.astype(storage)


def columns(dh):
    """Return a, alpha, d and theta offset, (n,) each."""
    return tuple(dh.T)


def angles(q, offset):
    """Return the joint angles theta, (B, n)."""
    return q + offset


def links(theta, a, alpha, d):
    """Return each joint's frame in that before it: rotations (B, n, 3, 3), shifts (B, n, 3)."""
    ct, st = np.cos(theta), np.sin(theta)  # (B, n)
    ca, sa = np.broadcast_to(np.cos(alpha), ct.shape), np.broadcast_to(np.sin(alpha), ct.shape)  # (B, n)
    zero = np.zeros_like(ct)  # (B, n)
    rows = [[ct, -st * ca, st * sa], [st, ct * ca, -ct * sa], [zero, sa, ca]]
    rotations = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)  # (B, n, 3, 3)
    shifts = np.stack([a * ct, a * st, zero + d], axis=-1)  # (B, n, 3)
    return rotations, shifts


def frames(rotations, shifts):
    """Return origin and z axis of the base and of each joint's frame, in the base frame, (B, n + 1, 3) each."""
    B, n = shifts.shape[:2]
    position = np.zeros((B, 3), shifts.dtype)  # (B, 3)
    rotation = np.tile(np.eye(3, dtype=shifts.dtype), (B, 1, 1))  # (B, 3, 3)
    origins, axes = [position], [rotation[:, :, 2]]
    for j in range(n):
        position = position + (rotation @ shifts[:, j, :, None])[:, :, 0]  # (B, 3)
        rotation = rotation @ rotations[:, j]  # (B, 3, 3)
        origins.append(position)
        axes.append(rotation[:, :, 2])
    return np.stack(origins, axis=1), np.stack(axes, axis=1)


def linear(origins, axes):
    """Return the velocity of the last origin by unit speed of each joint about the axis before it, (B, 3, n)."""
    levers = origins[:, -1:] - origins[:, :-1]  # (B, n, 3)
    return np.cross(axes[:, :-1], levers).swapaxes(1, 2)


def angular(axes):
    """Return the angular velocity by unit speed of each joint, (B, 3, n)."""
    return axes[:, :-1].swapaxes(1, 2)


def stacked(v, w):
    """Return the rows of the linear velocity above those of the angular one, (B, 6, n)."""
    return np.concatenate([v, w], axis=1)
