"""Correct ways to compute a geometric Jacobian that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

faults = beside(__file__, "geometric_jacobian_faults")
central = faults.differences(2.0**-17, np.float64, central=True)


def from_tip(plain: Any) -> None:
    """Add up levers from the last joint back to the first, without a difference of origins."""

    def levers(origins: Array) -> Array:
        steps = np.diff(origins, axis=1)  # (B, n, 3)
        return np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]

    plain.linear = lambda origins, axes: np.cross(axes[:, :-1], levers(origins)).swapaxes(1, 2)


def by_skew_matrices(origins: Array, axes: Array) -> Array:
    """Multiply antisymmetric matrices of the axes with the levers, (B, 3, n)."""
    x, y, z = np.moveaxis(axes[:, :-1], -1, 0)  # (B, n)
    zero = np.zeros_like(x)  # (B, n)
    rows = ([zero, -z, y], [z, zero, -x], [-y, x, zero])
    skew = np.stack([np.stack(row, -1) for row in rows], -2)  # (B, n, 3, 3)
    return (skew @ (origins[:, -1:] - origins[:, :-1])[..., None])[..., 0].swapaxes(1, 2)


def in_torch(origins: Array, axes: Array) -> Array:
    """Return torch's vector product, (B, 3, n)."""
    p, z = torch.from_numpy(origins), torch.from_numpy(axes)
    return torch.linalg.cross(z[:, :-1], p[:, -1:] - p[:, :-1]).mT.numpy()


def homogeneous(plain: Any) -> None:
    """Multiply matrices of 4 by 4 and take origins and axes out of them."""

    def frames(rotations: Array, shifts: Array) -> tuple[Array, Array]:
        T = np.zeros((*shifts.shape[:2], 4, 4), shifts.dtype)  # (B, n, 4, 4)
        T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = rotations, shifts, 1
        total = np.tile(np.eye(4, dtype=T.dtype), (len(T), 1, 1))  # (B, 4, 4)
        found = [total]
        for j in range(T.shape[1]):
            total = total @ T[:, j]
            found.append(total)
        return np.stack([t[:, :3, 3] for t in found], 1), np.stack([t[:, :3, 2] for t in found], 1)

    plain.frames = frames


def by_autograd(plain: Any) -> None:
    """Differentiate the position with torch's reverse mode, and take angular rows from the axes."""
    right = plain.geometric_jacobian

    def geometric_jacobian(q: Array, dh: Array) -> dict[str, Array]:
        found = right(q, dh)
        a, alpha, d, offset = torch.from_numpy(plain.wide(dh, q.dtype)).unbind(1)  # (n,) each
        angles = torch.from_numpy(plain.wide(q, q.dtype)).requires_grad_()  # (B, n)
        ct, st = torch.cos(angles + offset), torch.sin(angles + offset)  # (B, n)
        ca, sa = torch.cos(alpha).expand_as(ct), torch.sin(alpha).expand_as(ct)  # (B, n)
        rows = [[ct, -st * ca, st * sa], [st, ct * ca, -ct * sa], [0 * sa, sa, ca]]
        local = torch.stack([torch.stack(row, -1) for row in rows], -2)  # (B, n, 3, 3)
        shift = torch.stack([a * ct, a * st, d.expand_as(ct)], -1)  # (B, n, 3)
        tip = shift[:, -1]  # (B, 3)
        for j in range(q.shape[1] - 2, -1, -1):
            tip = shift[:, j] + (local[:, j] @ tip[:, :, None])[:, :, 0]
        rows = [torch.autograd.grad(tip[:, i].sum(), angles, retain_graph=True)[0] for i in range(3)]
        linear = plain.rounded(torch.stack(rows, 1).numpy(), q.dtype)  # (B, 3, n)
        return found | {"jacobian": np.concatenate([linear, found["jacobian"][:, 3:]], 1)}

    plain.geometric_jacobian = geometric_jacobian


FORMULATIONS = (
    Formulation("levers_from_tip", "levers added up from the last joint", from_tip),
    Formulation("skew_matrices", "antisymmetric matrices times levers", wrap(linear=lambda _: by_skew_matrices)),
    Formulation("torch_cross", "torch.linalg.cross", wrap(linear=lambda _: in_torch)),
    Formulation("homogeneous", "matrices of 4 by 4", homogeneous),
    Formulation("autograd", "the position differentiated by torch.autograd", by_autograd),
    Formulation("differences_in_float64", "central differences in float64", central),
    Formulation("all_in_float64", "float64 inside", wrap(wide=lambda _: lambda x, _: x.astype(np.float64))),
)  # fmt: skip
