"""The reference of the suite `geometric_jacobian`: z axes times levers, in float64.

Source: Whitney, IEEE Transactions on Man-Machine Systems 10 (1969); frames by Denavit and Hartenberg (1955). B poses, n
joints.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")
rigid = beside(__file__, "_rigid")

Array = NDArray[Any]
Arrays = Mapping[str, Any]


def geometric_jacobian(q: torch.Tensor, dh: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the checkpoints."""
    positions, rotations = rigid.frames(q, dh)  # (B, n, 3), (B, n, 3, 3)
    position = positions[:, -1]  # (B, 3)
    columns = []
    for j in range(q.shape[1]):
        axis = rotations[:, j - 1, :, 2] if j else torch.tensor([0, 0, 1.0]).expand_as(position)  # (B, 3)
        lever = position - positions[:, j - 1] if j else position  # (B, 3)
        columns.append(torch.cat([crossed(axis, lever), axis], 1))  # (B, 6)
    return {"position": position, "jacobian": torch.stack(columns, 2)}


def crossed(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the vector product of `u` and `v` (B, 3), each product and each difference an operation."""
    after, before = [1, 2, 0], [2, 0, 1]
    return u[:, after] * v[:, before] - u[:, before] * v[:, after]


# --- what must hold of the frozen numbers ----------------------------------------------------------------------------


def poses(q: Array, dh: Array) -> tuple[Array, Array]:
    """Return position (B, 3) and rotation (B, 3, 3), for complex angles `q` too, by matrices of elementary motions."""
    position, rotation = np.zeros((len(q), 3), q.dtype), np.tile(np.eye(3, dtype=q.dtype), (len(q), 1, 1))
    for j, (a, alpha, d, offset) in enumerate(dh):
        c, s = np.cos(q[:, j] + offset), np.sin(q[:, j] + offset)  # (B,)
        turn = np.zeros((len(q), 3, 3), q.dtype)
        turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1], turn[:, 2, 2] = c, -s, s, c, 1
        rotation = rotation @ turn  # (B, 3, 3)
        position = position + rotation @ np.array([a, 0, d])  # (B, 3)
        twist = np.array([[1, 0, 0], [0, np.cos(alpha), -np.sin(alpha)], [0, np.sin(alpha), np.cos(alpha)]])
        rotation = rotation @ twist
    return position, rotation


def stepped(given: Arrays) -> list[tuple[Array, Array]]:
    """Return the derivatives of position and rotation by each joint, by a complex step, which does not cancel."""
    step = 1e-40
    found = []
    for j in range(given["q"].shape[1]):
        moved = given["q"].astype(complex)  # (B, n)
        moved[:, j] += 1j * step
        position, rotation = poses(moved, given["dh"])
        found.append((position.imag / step, rotation.imag / step))
    return found


def linear_rows(given: Arrays, golden: Arrays) -> tuple[Any, ...]:
    """Compare the linear rows with the derivatives of the position."""
    return golden["jacobian"][:, :3], np.stack([position for position, _ in stepped(given)], -1), 1e-13


def angular_rows(given: Arrays, golden: Arrays) -> tuple[Any, ...]:
    """Compare the angular rows with the derivatives of the rotation, times its transpose: an antisymmetric matrix."""
    rotation = poses(given["q"], given["dh"])[1]  # (B, 3, 3)
    spins = [derivative @ rotation.swapaxes(1, 2) for _, derivative in stepped(given)]  # n of (B, 3, 3)
    return golden["jacobian"][:, 3:], np.stack([spin[:, [2, 0, 1], [1, 2, 0]] for spin in spins], -1), 1e-13


def in_a_plane(given: Arrays, golden: Arrays) -> tuple[Any, ...] | None:
    """Compare an arm without twists with the sums of its links' sines and cosines."""
    a, alpha, _, offset = given["dh"].T  # (n,) each
    if alpha.any() or len(a) == 1:
        return None
    turned = np.cumsum(given["q"] + offset, axis=1)  # (B, n)
    beyond = [np.cumsum((a * f(turned))[:, ::-1], 1)[:, ::-1] for f in (np.sin, np.cos)]  # the links from j on
    zero = 0 * turned
    return golden["jacobian"], np.stack([-beyond[0], beyond[1], zero, zero, zero, zero + 1], 1), 1e-13


def first_axis(given: Arrays, golden: Arrays) -> tuple[Any, ...]:  # noqa: ARG001
    """Compare the first column: the first joint turns about the base's z axis."""
    x, y, _ = golden["position"].T  # (B,) each
    zero = 0 * x
    return golden["jacobian"][:, :, 0], np.stack([-y, x, zero, zero, zero, zero + 1], -1)


RELATIONS = {
    "complex steps of the position give the linear rows, to 1e-13": linear_rows,
    "complex steps of the rotation give the angular rows, to 1e-13": angular_rows,
    "without twists the columns are sums of sines and cosines, to 1e-13": in_a_plane,
    "the first column is (-y, x, 0, 0, 0, 1)": first_axis,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, geometric_jacobian, RELATIONS
)
