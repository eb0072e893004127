"""The reference of the suite `forward_kinematics`: standard Denavit-Hartenberg frames, multiplied in float64.

Source: Denavit and Hartenberg, Journal of Applied Mechanics 22 (1955); quaternion by its largest component (Shepperd,
Journal of Guidance and Control 1, 1978). B poses, n joints.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from karat.freeze import beside

operation = beside(__file__, "_operation")
rigid = beside(__file__, "_rigid")

Array = NDArray[Any]
Arrays = Mapping[str, Any]


def forward_kinematics(q: torch.Tensor, dh: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the checkpoints."""
    positions, rotation = rigid.frames(q, dh)  # (B, n, 3), (B, n, 3, 3)
    # Which component is the largest is decided without noise, which would turn it.
    largest = torch.from_numpy(np.abs(by_scipy(q.numpy(), dh.numpy())[1].as_quat().reshape(-1, 4)).argmax(-1))  # (B,)
    return {
        "positions": positions,
        "position": positions[:, -1],
        "quaternion": quaternion(rotation[:, -1], largest),
    }


def quaternion(r: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Return the quaternions x, y, z, w of `r` (B, 3, 3) from 4 q_k q, k the `largest` component (B,), (B, 4)."""
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]  # (B,)
    xy, xz, yz = r[:, 0, 1] + r[:, 1, 0], r[:, 0, 2] + r[:, 2, 0], r[:, 1, 2] + r[:, 2, 1]
    xw, yw, zw = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    products = [
        [1 + xx - yy - zz, xy, xz, xw],
        [xy, 1 - xx + yy - zz, yz, yw],
        [xz, yz, 1 - xx - yy + zz, zw],
        [xw, yw, zw, 1 + xx + yy + zz],
    ]
    table = torch.stack([torch.stack(row, -1) for row in products], -2)  # (B, 4, 4)
    row = table[torch.arange(len(r)), largest]  # (B, 4)
    return row / (2 * torch.sqrt(row.gather(1, largest[:, None])))


# --- what must hold of the frozen numbers ----------------------------------------------------------------------------


def by_scipy(q: Array, dh: Array) -> tuple[Array, Rotation]:
    """Return each joint's origin (B, n, 3) and the last one's rotation, composed by SciPy from turns about axes."""
    a, alpha, d, offset = dh.T  # (n,) each
    turned, position, positions = Rotation.identity(len(q)), np.zeros((len(q), 3)), []
    for j in range(q.shape[1]):
        turned = turned * Rotation.from_rotvec((q[:, j, None] + offset[j]) * np.array([0.0, 0, 1]))  # (B,)
        position = position + turned.apply(np.array([a[j], 0, d[j]]))  # (B, 3)
        turned = turned * Rotation.from_rotvec(np.tile([alpha[j], 0, 0], (len(q), 1)))  # (B,)
        positions.append(position)
    return np.stack(positions, 1), turned


def origins(given: Arrays, golden: Arrays) -> tuple[Any, ...]:
    """Compare all origins with SciPy's."""
    return golden["positions"], by_scipy(given["q"], given["dh"])[0], 1e-13


def orientation(given: Arrays, golden: Arrays) -> tuple[Any, ...]:
    """Compare the quaternions with SciPy's, which SciPy multiplies as quaternions, with the sign of the golden's."""
    found = by_scipy(given["q"], given["dh"])[1].as_quat().reshape(-1, 4)  # (B, 4)
    return golden["quaternion"], found * np.sign((found * golden["quaternion"]).sum(-1, keepdims=True)), 1e-13


def unit_length(given: Arrays, golden: Arrays) -> tuple[Any, ...]:  # noqa: ARG001
    """Compare the squared length of the quaternions with 1."""
    return np.square(golden["quaternion"]).sum(-1), 1, 1e-13


def link_lengths(given: Arrays, golden: Arrays) -> tuple[Any, ...]:
    """Compare the squared distance of neighbouring origins with a^2 + d^2."""
    a, _, d, _ = given["dh"].T  # (n,) each
    steps = np.diff(golden["positions"], axis=1, prepend=np.zeros((1, 1, 3)).repeat(len(given["q"]), 0))  # (B, n, 3)
    return np.square(steps).sum(-1), a**2 + d**2, 1e-13


def in_a_plane(given: Arrays, golden: Arrays) -> tuple[Any, ...] | None:
    """Compare an arm without twists with the sums of its links' cosines and sines."""
    a, alpha, d, offset = given["dh"].T  # (n,) each
    if alpha.any() or len(a) == 1:
        return None
    turned = np.cumsum(given["q"] + offset, axis=1)  # (B, n)
    planar = [np.cumsum(a * np.cos(turned), 1), np.cumsum(a * np.sin(turned), 1), np.cumsum(d + 0 * turned, 1)]
    return golden["positions"], np.stack(planar, -1), 1e-13


def zero_pose(given: Arrays, golden: Arrays) -> tuple[Any, ...] | None:  # noqa: ARG001
    """Compare the zero pose of the Puma 560 with what Corke's Robotics Toolbox prints for `p560.fkine(qz)`."""
    dh = torch.from_numpy(given["dh"])  # (n, 4)
    if dh.shape != (6, 4) or dh[:, 3].any():
        return None
    return forward_kinematics(torch.zeros(1, 6), dh)["position"][0].numpy(), [0.4521, -0.15005, 0.4318], 1e-7


RELATIONS = {
    "SciPy's rotations give the origins, to 1e-13": origins,
    "SciPy's quaternions give the orientation, to 1e-13": orientation,
    "quaternions have the length 1, to 1e-13": unit_length,
    "neighbouring origins are sqrt(a^2 + d^2) apart, to 1e-13 of squares": link_lengths,
    "without twists links add up in a plane, to 1e-13": in_a_plane,
    "the zero pose of the Puma 560 is at (0.4521, -0.15005, 0.4318), to 1e-7": zero_pose,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, forward_kinematics, RELATIONS, versions=("torch", "scipy")
)
