"""Forward kinematics of a serial arm in plain NumPy: the definition, to read and to copy.

Denavit and Hartenberg, "A kinematic notation for lower-pair mechanisms" (1955), the standard (distal) convention;
quaternion by the largest component (Shepperd 1978). Computed in float32 (float64 where the input is), and rounded once
to the format of `q`. B poses, n joints.
"""

import numpy as np


def forward_kinematics(q, dh):
    """Return where the arms of joint angles `q` (B, n) stand; `dh` (n, 4) is a, alpha, d and theta offset of each."""
    check(q, dh)
    a, alpha, d, offset = columns(wide(dh, q.dtype))  # (n,) each
    theta = angles(wide(q, q.dtype), offset)  # (B, n)
    positions, rotation = chain(*links(theta, a, alpha, d))  # (B, n, 3), (B, 3, 3)
    found = {"positions": positions, "position": positions[:, -1], "quaternion": quaternion(rotation)}
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


def chain(rotations, shifts):
    """Return each joint's origin in the base frame, (B, n, 3), and the last one's rotation, (B, 3, 3)."""
    position, rotation = shifts[:, 0], rotations[:, 0]  # (B, 3), (B, 3, 3)
    positions = [position]
    for j in range(1, rotations.shape[1]):
        position = position + (rotation @ shifts[:, j, :, None])[:, :, 0]  # (B, 3)
        rotation = rotation @ rotations[:, j]  # (B, 3, 3)
        positions.append(position)
    return np.stack(positions, axis=1), rotation


def quaternion(r):
    """Return the unit quaternions x, y, z, w of the rotations `r` (B, 3, 3), (B, 4)."""
    products = fourfold_products(r)  # (B, 4, 4)
    largest = largest_component(products)  # (B,)
    row = products[np.arange(len(r)), largest]  # (B, 4): 4 q_k q
    return row / (2 * np.sqrt(np.take_along_axis(row, largest[:, None], axis=1)))


def largest_component(products):
    """Return which component is the largest, (B,)."""
    return np.diagonal(products, axis1=1, axis2=2).argmax(-1)


def fourfold_products(r):
    """Return 4 q_k q_l for all components k, l of the quaternions of `r` (B, 3, 3), (B, 4, 4)."""
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]  # (B,)
    xy, xz, yz = r[:, 0, 1] + r[:, 1, 0], r[:, 0, 2] + r[:, 2, 0], r[:, 1, 2] + r[:, 2, 1]
    xw, yw, zw = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    rows = [
        [1 + xx - yy - zz, xy, xz, xw],
        [xy, 1 - xx + yy - zz, yz, yw],
        [xz, yz, 1 - xx - yy + zz, zw],
        [xw, yw, zw, 1 + xx + yy + zz],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)  # (B, 4, 4)
