"""Mistakes that people make when they write a geometric Jacobian, planted in the plain candidate. NumPy only."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
POSITION, JACOBIAN, REFUSED = ("position",), ("jacobian",), ("refused",)

accepts = beside(__file__, "_refusals").accepts
rigid = beside(__file__, "_rigid_faults")
angles, linked, parameters = rigid.angles, rigid.linked, rigid.parameters
given = partial(rigid.given, "geometric_jacobian")
given_angles = partial(rigid.given_angles, "geometric_jacobian")
rounding = beside(__file__, "_rounding")
through, truncated = rounding.through, rounding.truncated


def linear(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the linear rows: `formula(p, z)` of origins and axes (B, n + 1, 3) gives (B, n, 3)."""
    return wrap(linear=lambda _: lambda origins, axes: formula(origins, axes).swapaxes(1, 2))


def angular(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the angular rows: `formula(z)` of axes (B, n + 1, 3) gives (B, n, 3)."""
    return wrap(angular=lambda _: lambda axes: formula(axes).swapaxes(1, 2))


def both(*changes: Change) -> Change:
    """Return a change that is several."""

    def change(plain: Any) -> None:
        for one in changes:
            one(plain)

    return change


def stacked(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the finished Jacobian (B, 6, n)."""
    return wrap(stacked=lambda right: lambda v, w: formula(right(v, w)))


def differences(step: float, dtype: Any, *, central: bool = False) -> Change:
    """Return a change that takes linear rows from differences of positions in `dtype`."""

    def change(plain: Any) -> None:
        right = plain.geometric_jacobian

        def geometric_jacobian(q: Array, dh: Array) -> dict[str, Array]:
            found = right(q, dh)
            table = plain.columns(dh.astype(dtype))

            def position(angles: Array) -> Array:
                theta = plain.angles(angles, table[3])
                return plain.frames(*plain.links(theta, *table[:3]))[0][:, -1]

            columns = []
            for j in range(q.shape[1]):
                ahead, behind = q.astype(dtype), q.astype(dtype)
                ahead[:, j] += dtype(step)
                behind[:, j] -= dtype(step if central else 0)
                columns.append((position(ahead) - position(behind)) / dtype(2 * step if central else step))
            jacobian = np.concatenate([np.stack(columns, -1), found["jacobian"][:, 3:]], 1, dtype=dtype)
            return found | {"jacobian": plain.rounded(jacobian, q.dtype)}

        plain.geometric_jacobian = geometric_jacobian

    return change


def in_last_frame(plain: Any) -> None:
    """Give velocities in the frame of the last joint, as a body Jacobian has them."""
    right, last = plain.frames, {}

    def frames(rotations: Array, shifts: Array) -> Any:
        total = rotations[:, 0]  # (B, 3, 3)
        for j in range(1, rotations.shape[1]):
            total = total @ rotations[:, j]
        last["rotation"] = total
        return right(rotations, shifts)

    def stacked(v: Array, w: Array) -> Array:
        back = np.swapaxes(last["rotation"], 1, 2)  # (B, 3, 3)
        return np.concatenate([back @ v, back @ w], 1)

    plain.frames, plain.stacked = frames, stacked


def column_zero(index: int) -> Change:
    """Return a change that leaves a column at 0."""

    def formula(jacobian: Array) -> Array:
        jacobian[:, :, index] = 0
        return jacobian

    return stacked(formula)


def short_frames(plain: Any) -> None:
    """Hold origin and rotation in bfloat16 after every joint (M28)."""
    short = through(ml_dtypes.bfloat16)

    def frames(rotations: Array, shifts: Array) -> tuple[Array, Array]:
        position, rotation = 0 * shifts[:, 0], 0 * rotations[:, 0] + np.eye(3, dtype=shifts.dtype)
        origins, axes = [position], [rotation[:, :, 2]]
        for j in range(shifts.shape[1]):
            position = short(position + (rotation @ shifts[:, j, :, None])[:, :, 0])  # (B, 3)
            rotation = short(rotation @ rotations[:, j])  # (B, 3, 3)
            origins.append(position)
            axes.append(rotation[:, :, 2])
        return np.stack(origins, 1), np.stack(axes, 1)

    plain.frames = frames


FAULTS = (
    # --- differences
    Fault("differences_and_no_rotation", JACOBIAN, "differences in float32 with a step of 1e-5, angular rows 0 (M25)",
          both(angular(lambda z: 0 * z[:, :-1]), differences(1e-5, np.float32))),
    Fault("differences_in_float32", JACOBIAN, "linear rows from differences in float32 with a step of 1e-5 (M25)", differences(1e-5, np.float32)),
    Fault("differences_of_1e-3", JACOBIAN, "linear rows from forward differences with a step of 1e-3", differences(1e-3, np.float64)),
    Fault("differences_central_float32", JACOBIAN, "linear rows from central differences in float32 with a step of 1e-3", differences(1e-3, np.float32, central=True)),
    Fault("angular_rows_zero", JACOBIAN, "angular rows left at 0 (M25)", angular(lambda z: 0 * z[:, :-1])),
    # --- which joint
    Fault("axis_of_own_frame", JACOBIAN, "z_j instead of z_(j-1), in all rows",
          both(linear(lambda p, z: np.cross(z[:, 1:], p[:, -1:] - p[:, :-1])), angular(lambda z: z[:, 1:]))),
    Fault("axis_of_own_frame_linear", JACOBIAN, "z_j instead of z_(j-1), in the linear rows",
          linear(lambda p, z: np.cross(z[:, 1:], p[:, -1:] - p[:, :-1]))),
    Fault("axis_of_own_frame_angular", JACOBIAN, "z_j instead of z_(j-1), in the angular rows", angular(lambda z: z[:, 1:])),
    Fault("origin_of_own_frame", JACOBIAN, "p_j instead of p_(j-1)", linear(lambda p, z: np.cross(z[:, :-1], p[:, -1:] - p[:, 1:]))),
    Fault("one_frame_too_late", JACOBIAN, "z_j and p_j instead of z_(j-1) and p_(j-1), as in Craig's convention",
          both(linear(lambda p, z: np.cross(z[:, 1:], p[:, -1:] - p[:, 1:])), angular(lambda z: z[:, 1:]))),
    Fault("lever_from_base", JACOBIAN, "p_n instead of p_n - p_(j-1)", linear(lambda p, z: np.cross(z[:, :-1], p[:, -1:] + 0 * p[:, 1:]))),
    Fault("lever_added", JACOBIAN, "p_n + p_(j-1) instead of p_n - p_(j-1)", linear(lambda p, z: np.cross(z[:, :-1], p[:, -1:] + p[:, :-1]))),
    Fault("lever_to_joint_before_last", JACOBIAN, "p_(n-1) instead of p_n", linear(lambda p, z: np.cross(z[:, :-1], p[:, -2:-1] - p[:, :-1]))),
    Fault("lever_of_own_link", JACOBIAN, "p_j - p_(j-1): the joint's own link alone", linear(lambda p, z: np.cross(z[:, :-1], p[:, 1:] - p[:, :-1]))),
    Fault("cross_reversed", JACOBIAN, "the lever times the axis: linear rows of the wrong sign",
          linear(lambda p, z: np.cross(p[:, -1:] - p[:, :-1], z[:, :-1]))),
    Fault("axes_of_base", JACOBIAN, "(0, 0, 1) for every axis",
          wrap(frames=lambda right: lambda r, s: ((found := right(r, s))[0], 0 * found[1] + np.array([0, 0, 1], s.dtype)))),
    Fault("axes_x", JACOBIAN, "the x axes instead of the z axes: a transposed rotation's last row mixed up",
          wrap(frames=lambda right: lambda r, s: ((found := right(r, s))[0], np.roll(found[1], 1, -1)))),
    Fault("angular_negated", JACOBIAN, "angular rows of the wrong sign", angular(lambda z: -z[:, :-1])),
    # --- layout
    Fault("rows_exchanged", JACOBIAN, "angular rows above the linear ones", stacked(lambda J: np.roll(J, 3, 1))),
    Fault("jacobian_transposed", JACOBIAN, "rows and columns exchanged in memory (M15)", stacked(lambda J: J.swapaxes(1, 2).reshape(J.shape))),
    Fault("joints_reversed", JACOBIAN, "the last joint in the first column", stacked(lambda J: J[:, :, ::-1])),
    Fault("last_column_zero", JACOBIAN, "the last joint's column left at 0", column_zero(-1)),
    Fault("first_column_zero", JACOBIAN, "the first joint's column left at 0", column_zero(0)),
    Fault("in_last_frame", JACOBIAN, "velocities in the frame of the last joint instead of the base's", in_last_frame),
    Fault("per_degree", JACOBIAN, "velocities by degrees instead of radians", stacked(lambda J: J * (math.pi / 180))),
    # --- kinematics
    Fault("dh_modified", POSITION, "Craig's modified convention instead of the standard one",
          linked(lambda r, s, *given: rigid.modified(*given))),
    Fault("dh_a_d_exchanged", POSITION, "a and d exchanged", rigid.columns(2, 1, 0, 3)),
    Fault("offset_missing", POSITION, "theta = q, without the offset", angles(lambda q, offset: q + 0 * offset)),
    Fault("alpha_negated", POSITION, "twists of the wrong sign", parameters(lambda theta, a, alpha, d: (theta, a, -alpha, d))),
    Fault("theta_negated", POSITION, "joints turn the other way", parameters(lambda theta, a, alpha, d: (-theta, a, alpha, d))),
    Fault("angles_in_degrees", POSITION, "q taken for degrees", angles(lambda q, offset: q * (math.pi / 180) + offset)),
    Fault("first_pose_for_all", POSITION, "the first pose for the whole batch: a stride of 0 (M14)", given_angles(lambda q: 0 * q + q[:1])),
    Fault("batch_and_joints_exchanged", POSITION, "q read as (n, B) (M15)", given_angles(lambda q: q.reshape(q.shape[::-1]).T)),
    # --- formats
    Fault("frames_in_bfloat16", POSITION, "origin and rotation held in bfloat16 after every joint (M28)", short_frames),
    Fault("angles_in_bfloat16", POSITION, "theta rounded to bfloat16", angles(lambda q, offset: through(ml_dtypes.bfloat16)(q + offset))),
    Fault("sine_in_float16", POSITION, "sine and cosine rounded to float16",
          rigid.functions(lambda x: through(np.float16)(np.sin(x)), lambda x: through(np.float16)(np.cos(x)))),
    Fault("sine_of_9_powers", POSITION, "sine and cosine by a power series, without reducing the angle",
          rigid.functions(lambda x: rigid.series(x, 1), lambda x: rigid.series(x, 0))),
    Fault("output_truncated", POSITION, "cut to bfloat16 instead of rounded (M29)", wrap(rounded=lambda right: lambda x, storage: right(truncated(x), storage))),
    # --- what must be refused
    Fault("nonfinite_accepted", REFUSED, "a Jacobian for NaN or infinite angles or parameters", accepts("finite", check="check")),
    Fault("joints_zipped", REFUSED, "as many joints as q and dh both have, the others left out", given(rigid.zipped)),
    Fault("rank_not_checked", REFUSED, "q of another rank reshaped", given_angles(lambda q: q.reshape(-1, q.shape[-1]))),
    Fault("offset_column_optional", REFUSED, "dh of three columns taken with offsets of 0", given(rigid.with_offsets)),
    Fault("no_joint_accepted", REFUSED, "an empty Jacobian for an arm without joints", accepts("at least one joint", check="check")),
)  # fmt: skip
