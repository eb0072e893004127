"""Correct ways to compute forward kinematics that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]


def homogeneous(plain: Any) -> None:
    """Multiply matrices of 4 by 4."""

    def chain(rotations: Array, shifts: Array) -> tuple[Array, Array]:
        T = np.zeros((*shifts.shape[:2], 4, 4), shifts.dtype)  # (B, n, 4, 4)
        T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = rotations, shifts, 1
        total = np.broadcast_to(np.eye(4, dtype=T.dtype), T[:, 0].shape)  # (B, 4, 4)
        frames = []
        for j in range(T.shape[1]):
            total = total @ T[:, j]
            frames.append(total)
        return np.stack([frame[:, :3, 3] for frame in frames], 1), total[:, :3, :3]

    plain.chain = chain


def scanned(plain: Any) -> None:
    """Multiply neighbours, then neighbours of these, and so on: an inclusive scan as a GPU makes it."""

    def chain(rotations: Array, shifts: Array) -> tuple[Array, Array]:
        R, p, reach = rotations, shifts, 1  # (B, n, 3, 3), (B, n, 3)
        while reach < R.shape[1]:
            before, after = slice(None, -reach), slice(reach, None)
            moved = p[:, before] + (R[:, before] @ p[:, after, :, None])[..., 0]
            p = np.concatenate([p[:, :reach], moved], 1)
            R = np.concatenate([R[:, :reach], R[:, before] @ R[:, after]], 1)
            reach *= 2
        return p, R[:, -1]

    plain.chain = chain


def in_torch(plain: Any) -> None:
    """Multiply tensors in batches."""

    def chain(rotations: Array, shifts: Array) -> tuple[Array, Array]:
        R, p = torch.from_numpy(rotations), torch.from_numpy(shifts)
        total, position, positions = R[:, 0], p[:, 0], [p[:, 0]]
        for j in range(1, R.shape[1]):
            position = torch.baddbmm(position[:, :, None], total, p[:, j, :, None])[:, :, 0]
            total = torch.bmm(total, R[:, j])
            positions.append(position)
        return torch.stack(positions, 1).numpy(), total.numpy()

    plain.chain = chain


def product(p: Array, q: Array) -> Array:
    """Return the product of quaternions x, y, z, w, (B, 4)."""
    v, w, u, s = p[..., :3], p[..., 3:], q[..., :3], q[..., 3:]
    return np.concatenate([w * u + s * v + np.cross(v, u), w * s - (v * u).sum(-1, keepdims=True)], -1)


def quaternions(plain: Any) -> None:
    """Multiply quaternions of half angles, and turn shifts by them."""

    def forward_kinematics(q: Array, dh: Array) -> dict[str, Array]:
        plain.check(q, dh)
        a, alpha, d, offset = plain.columns(plain.wide(dh, q.dtype))  # (n,) each
        theta = plain.angles(plain.wide(q, q.dtype), offset)  # (B, n)
        zero = np.zeros_like(theta)  # (B, n)
        about_z = np.stack([zero, zero, np.sin(theta / 2), np.cos(theta / 2)], -1)  # (B, n, 4)
        about_x = np.stack([np.sin(alpha / 2) + zero, zero, zero, np.cos(alpha / 2) + zero], -1)  # (B, n, 4)
        total = zero[:, :1] * 0 + np.array([0, 0, 0, 1], theta.dtype)  # (B, 4)
        position, positions = np.zeros((len(q), 3), theta.dtype), []
        shifts = np.stack([a * np.cos(theta), a * np.sin(theta), d + zero], -1)  # (B, n, 3)
        for j in range(theta.shape[1]):
            v, w, shift = total[:, :3], total[:, 3:], shifts[:, j]
            twice = 2 * np.cross(v, shift)
            position = position + shift + w * twice + np.cross(v, twice)  # (B, 3)
            total = product(product(total, about_z[:, j]), about_x[:, j])
            positions.append(position)
        found = {"positions": np.stack(positions, 1), "position": position, "quaternion": total}
        return {name: plain.rounded(array, q.dtype) for name, array in found.items()}

    plain.forward_kinematics = forward_kinematics


def by_scipy(r: Array) -> Array:
    """Return what SciPy makes of the matrices in float64."""
    return Rotation.from_matrix(r.astype(np.float64)).as_quat().reshape(-1, 4).astype(r.dtype)


def by_eigenvector(r: Array) -> Array:
    """Return the eigenvector of the largest eigenvalue (Bar-Itzhack 2000), in float64."""
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]  # (B,)
    xy, xz, yz = r[:, 0, 1] + r[:, 1, 0], r[:, 0, 2] + r[:, 2, 0], r[:, 1, 2] + r[:, 2, 1]
    xw, yw, zw = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    rows = [
        [xx - yy - zz, xy, xz, xw],
        [xy, yy - xx - zz, yz, yw],
        [xz, yz, zz - xx - yy, zw],
        [xw, yw, zw, xx + yy + zz],
    ]
    table = np.stack([np.stack(row, -1) for row in rows], -2).astype(np.float64)  # (B, 4, 4)
    return np.linalg.eigh(table)[1][:, :, -1].astype(r.dtype)


def by_trace_first(products: Array) -> Array:
    """Take w where the trace is positive, else the largest of x, y and z, as most libraries do."""
    return np.where(products[:, 3, 3] > 1, 3, np.diagonal(products, axis1=1, axis2=2)[:, :3].argmax(-1))


def with_positive_w(right: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Choose the quaternion with w of at least 0."""
    return lambda r: (q := right(r)) * np.where(q[:, 3:] < 0, -1, 1).astype(q.dtype)


def normalised(right: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Divide by the length once more."""
    return lambda r: (q := right(r)) / np.sqrt(np.square(q).sum(-1, keepdims=True))


def double_angles(plain: Any) -> None:
    """Add and reduce angles in float64, and take sine and cosine of the remainder."""
    plain.angles = lambda q, offset: np.remainder(q.astype(np.float64) + offset + np.pi, 2 * np.pi) - np.pi
    right = plain.links
    plain.links = lambda theta, a, alpha, d: tuple(x.astype(a.dtype) for x in right(theta, a, alpha, d))


FORMULATIONS = (
    Formulation("homogeneous", "matrices of 4 by 4, from the identity on", homogeneous),
    Formulation("scanned", "an inclusive scan instead of a loop", scanned),
    Formulation("torch", "torch.baddbmm and torch.bmm", in_torch),
    Formulation("quaternions", "quaternions of half angles, no matrices", quaternions),
    Formulation("scipy_rotation", "scipy.spatial.transform.Rotation", wrap(quaternion=lambda _: by_scipy)),
    Formulation("eigenvector", "the quaternion as an eigenvector", wrap(quaternion=lambda _: by_eigenvector)),
    Formulation("trace_first", "the trace where it is positive", wrap(largest_component=lambda _: by_trace_first)),
    Formulation("w_not_negative", "the sign that makes w positive", wrap(quaternion=with_positive_w)),
    Formulation("normalised", "the quaternion divided by its length", wrap(quaternion=normalised)),
    Formulation("angles_in_float64", "angles added and reduced in float64", double_angles),
    Formulation("all_in_float64", "float64 inside", wrap(wide=lambda _: lambda x, _: x.astype(np.float64))),
)  # fmt: skip
