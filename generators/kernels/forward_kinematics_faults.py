"""Mistakes that people make when they write forward kinematics, planted in the plain candidate. NumPy only."""

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
POSITIONS, POSITION, QUATERNION, REFUSED = ("positions",), ("position",), ("quaternion",), ("refused",)

accepts = beside(__file__, "_refusals").accepts
rigid = beside(__file__, "_rigid_faults")
angles, columns, functions = rigid.angles, rigid.columns, rigid.functions
linked, parameters, series = rigid.linked, rigid.parameters, rigid.series
given = partial(rigid.given, "forward_kinematics")
given_angles = partial(rigid.given_angles, "forward_kinematics")
rounding = beside(__file__, "_rounding")
through, truncated = rounding.through, rounding.truncated


def chained(formula: Callable[[Callable[..., Any], Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to the chain: `formula(right, rotations, shifts)` gives positions and the last rotation."""
    return wrap(chain=lambda right: lambda rotations, shifts: formula(right, rotations, shifts))


def turned(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the quaternions: `formula` of the right ones, (B, 4)."""
    return wrap(quaternion=lambda right: lambda r: formula(right(r)))


def rounded_chain(dtype: Any) -> Change:
    """Return a change that holds origin and rotation in `dtype` after every joint."""

    def chain(_: Any, rotations: Array, shifts: Array) -> tuple[Array, Array]:
        short = through(dtype)
        position, rotation = short(shifts[:, 0]), short(rotations[:, 0])  # (B, 3), (B, 3, 3)
        positions = [position]
        for j in range(1, rotations.shape[1]):
            position = short(position + (rotation @ shifts[:, j, :, None])[:, :, 0])  # (B, 3)
            rotation = short(rotation @ rotations[:, j])  # (B, 3, 3)
            positions.append(position)
        return np.stack(positions, 1), rotation

    return chained(chain)


def multiplied(step: Callable[[Array, Array, Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to one step of the chain: `step(position, rotation, shift, link)`."""

    def chain(_: Any, rotations: Array, shifts: Array) -> tuple[Array, Array]:
        position, rotation = shifts[:, 0], rotations[:, 0]  # (B, 3), (B, 3, 3)
        positions = [position]
        for j in range(1, rotations.shape[1]):
            position, rotation = step(position, rotation, shifts[:, j], rotations[:, j])
            positions.append(position)
        return np.stack(positions, 1), rotation

    return chained(chain)


def applied(r: Array, v: Array) -> Array:
    """Return `r` (B, 3, 3) times `v` (B, 3)."""
    return (r @ v[:, :, None])[:, :, 0]


def transposed(r: Array) -> Array:
    """Return the transposes of `r` (..., 3, 3)."""
    return np.swapaxes(r, -1, -2)


def last_missing(right: Callable[..., Any], rotations: Array, shifts: Array) -> tuple[Array, Array]:
    """Leave the last joint at the place of the one before."""
    count = rotations.shape[1]
    positions, rotation = right(rotations[:, : max(count - 1, 1)], shifts[:, : max(count - 1, 1)])
    return np.concatenate([positions, positions[:, -1:]], 1)[:, :count], rotation


def first_missing(right: Callable[..., Any], rotations: Array, shifts: Array) -> tuple[Array, Array]:
    """Start at the frame of the first joint."""
    start = np.broadcast_to(np.eye(3, dtype=shifts.dtype), rotations[:, :1].shape)
    return right(np.concatenate([start, rotations[:, 1:]], 1), np.concatenate([0 * shifts[:, :1], shifts[:, 1:]], 1))


def pose_in_last_frame(right: Callable[..., Any], rotations: Array, shifts: Array) -> tuple[Array, Array]:
    """Give the base in the frame of the last joint: the inverse."""
    positions, rotation = right(rotations, shifts)
    return -np.einsum("bji,bnj->bni", rotation, positions), transposed(rotation)


def by_trace_only(products: Array) -> Array:
    """Take w for the largest component always."""
    return np.full(len(products), 3)


def x_or_trace(products: Array) -> Array:
    """Take w where the trace is positive, else x."""
    return np.where(products[:, 3, 3] > 1, 3, 0)


def by_smallest(products: Array) -> Array:
    """Take the smallest component for the largest."""
    return np.diagonal(products, axis1=1, axis2=2).argmin(-1)


def by_roots(plain: Any) -> None:
    """Take each component as a root of its own, with the sign of what is antisymmetric, without branches."""

    def quaternion(r: Array) -> Array:
        products = plain.fourfold_products(r)  # (B, 4, 4)
        sizes = np.sqrt(np.maximum(np.diagonal(products, axis1=1, axis2=2), 0)) / 2  # (B, 4)
        return np.copysign(sizes, np.concatenate([products[:, 3, :3], 0 * products[:, 3, 3:] + 1], -1))

    plain.quaternion = quaternion


def branch_negated(component: int) -> Change:
    """Return a change with the wrong sign of w where `component` is the largest."""

    def wrong(right: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def fourfold_products(r: Array) -> Array:
            products = right(r)  # (B, 4, 4)
            products[:, component, 3] *= -1
            return products

        return fourfold_products

    return wrap(fourfold_products=wrong)


def half_size(products: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Take the trace without 1 +."""
    return lambda r: products(r) - np.eye(4, dtype=r.dtype)[3] * np.eye(4, dtype=r.dtype)[3][:, None]


def identity_pose(plain: Any) -> None:
    """Answer the origin and no rotation, whatever the angles."""
    plain.chain = lambda rotations, shifts: (0 * shifts, 0 * rotations[:, 0] + np.eye(3, dtype=shifts.dtype))


def one_for_all(q: Array, dh: Array) -> tuple[Array, Array]:
    """Return one angle for every joint where there is only one."""
    return np.repeat(q, len(dh), 1) if q.ndim == 2 and q.shape[1] == 1 else q, dh


def no_joint(plain: Any) -> None:
    """Answer the base where there is no joint."""
    accepts("at least one joint", check="check")(plain)
    right = plain.chain

    def chain(rotations: Array, shifts: Array) -> Any:
        start = np.broadcast_to(np.eye(3, dtype=shifts.dtype), (len(shifts), 1, 3, 3))
        return right(rotations, shifts) if shifts.shape[1] else (np.zeros((len(shifts), 1, 3)), start[:, 0])

    plain.chain = chain


FAULTS = (
    # --- parameters
    Fault("dh_modified", POSITIONS, "Craig's modified convention instead of the standard one", linked(lambda r, s, *given: rigid.modified(*given))),
    Fault("dh_columns_theta_first", POSITIONS, "dh read as offset, d, a, alpha", columns(2, 3, 1, 0)),
    Fault("dh_columns_alpha_first", POSITIONS, "dh read as alpha, a, d, offset", columns(1, 0, 2, 3)),
    Fault("dh_a_d_exchanged", POSITIONS, "a and d exchanged", columns(2, 1, 0, 3)),
    Fault("offset_missing", POSITIONS, "theta = q, without the offset", angles(lambda q, offset: q + 0 * offset)),
    Fault("offset_subtracted", POSITIONS, "theta = q - offset", angles(lambda q, offset: q - offset)),
    Fault("theta_negated", POSITIONS, "joints turn the other way", parameters(lambda theta, a, alpha, d: (-theta, a, alpha, d))),
    Fault("angles_in_degrees", POSITIONS, "q taken for degrees", angles(lambda q, offset: q * (math.pi / 180) + offset)),
    Fault("angles_clipped", POSITIONS, "q clipped to pi and -pi", angles(lambda q, offset: np.clip(q, -math.pi, math.pi) + offset)),
    Fault("alpha_negated", POSITIONS, "twists of the wrong sign", parameters(lambda theta, a, alpha, d: (theta, a, -alpha, d))),
    Fault("alpha_missing", POSITIONS, "twists taken for 0", parameters(lambda theta, a, alpha, d: (theta, a, 0 * alpha, d))),
    Fault("a_missing", POSITIONS, "link lengths taken for 0", parameters(lambda theta, a, alpha, d: (theta, 0 * a, alpha, d))),
    Fault("d_missing", POSITIONS, "link offsets taken for 0", parameters(lambda theta, a, alpha, d: (theta, a, alpha, 0 * d))),
    Fault("a_not_turned", POSITIONS, "a along x before the joint turns",
          linked(lambda r, s, theta, a, alpha, d: (r, np.stack([a + 0 * theta, 0 * theta, d + 0 * theta], -1)))),
    Fault("sine_cosine_exchanged", POSITIONS, "sine and cosine exchanged", functions(np.cos, np.sin)),
    # --- chain
    Fault("order_reversed", POSITIONS, "frames multiplied from the last to the first",
          chained(lambda right, r, s: right(r[:, ::-1], s[:, ::-1]))),
    Fault("multiplied_from_left", POSITIONS, "each rotation multiplied from the left",
          multiplied(lambda p, R, s, r: (p + applied(R, s), r @ R))),
    Fault("turned_before_shift", POSITIONS, "a joint's own rotation applied to its own shift",
          multiplied(lambda p, R, s, r: (p + applied(R @ r, s), R @ r))),
    Fault("shift_not_turned", POSITIONS, "shifts added without the rotation before them",
          multiplied(lambda p, R, s, r: (p + s, R @ r))),
    Fault("rotation_transposed", POSITIONS, "shifts turned by the transposed rotation",
          multiplied(lambda p, R, s, r: (p + applied(transposed(R), s), R @ r))),
    Fault("links_transposed", POSITIONS, "rotation matrices written by columns: transposed",
          linked(lambda r, s, *given: (transposed(r), s))),
    Fault("last_joint_missing", POSITIONS, "the last joint is left out", chained(last_missing)),
    Fault("first_joint_missing", POSITIONS, "the first joint is left out", chained(first_missing)),
    Fault("pose_inverted", POSITIONS, "the base in the frame of the last joint", chained(pose_in_last_frame)),
    Fault("pose_identity", POSITIONS, "the origin and no rotation, whatever the angles: a timing stub", identity_pose),
    Fault("position_of_second_last", POSITION, "the origin of the joint before the last as that of the arm",
          wrap(forward_kinematics=lambda right: lambda q, dh: (found := right(q, dh)) | {"position": found["positions"][:, -2:][:, 0]})),
    Fault("first_pose_for_all", POSITIONS, "the first pose for the whole batch: a stride of 0 (M14)", given_angles(lambda q: 0 * q + q[:1])),
    Fault("batch_and_joints_exchanged", POSITIONS, "q read as (n, B) (M15)", given_angles(lambda q: q.reshape(q.shape[::-1]).T)),
    # --- quaternion
    Fault("quaternion_w_first", QUATERNION, "w, x, y, z instead of x, y, z, w", turned(lambda q: np.roll(q, 1, -1))),
    Fault("quaternion_conjugated", QUATERNION, "the inverse rotation", turned(lambda q: q * np.array([-1, -1, -1, 1], q.dtype))),
    Fault("quaternion_twice", QUATERNION, "2 q, not of unit length", turned(lambda q: 2 * q)),
    Fault("quaternion_by_trace_only", QUATERNION, "divided by w, also where it is nearly 0", wrap(largest_component=lambda _: by_trace_only)),
    Fault("quaternion_by_trace_or_x", QUATERNION, "divided by x wherever the trace is not positive", wrap(largest_component=lambda _: x_or_trace)),
    Fault("quaternion_by_smallest", QUATERNION, "divided by the smallest component", wrap(largest_component=lambda _: by_smallest)),
    Fault("quaternion_by_roots", QUATERNION, "each component a root of its own, which loses half the digits near 0", by_roots),
    Fault("quaternion_x_branch", QUATERNION, "w of the wrong sign where x is the largest", branch_negated(0)),
    Fault("quaternion_y_branch", QUATERNION, "w of the wrong sign where y is the largest", branch_negated(1)),
    Fault("quaternion_z_branch", QUATERNION, "w of the wrong sign where z is the largest", branch_negated(2)),
    Fault("quaternion_one_missing", QUATERNION, "the trace without 1 +", wrap(fourfold_products=half_size)),
    Fault("quaternion_of_last_joint", QUATERNION, "the rotation of the last joint alone",
          chained(lambda right, r, s: (right(r, s)[0], r[:, -1]))),
    # --- formats
    Fault("chain_in_bfloat16", POSITIONS, "origin and rotation held in bfloat16 after every joint (M28)", rounded_chain(ml_dtypes.bfloat16)),
    Fault("angles_in_bfloat16", POSITIONS, "theta rounded to bfloat16", angles(lambda q, offset: through(ml_dtypes.bfloat16)(q + offset))),
    Fault("sine_in_float16", POSITIONS, "sine and cosine rounded to float16", functions(lambda x: through(np.float16)(np.sin(x)), lambda x: through(np.float16)(np.cos(x)))),
    Fault("sine_of_9_powers", POSITIONS, "sine and cosine by a power series, without reducing the angle",
          functions(lambda x: series(x, 1), lambda x: series(x, 0))),
    Fault("dh_in_bfloat16", POSITIONS, "dh rounded to bfloat16", wrap(columns=lambda right: lambda dh: right(through(ml_dtypes.bfloat16)(dh)))),
    Fault("output_truncated", POSITIONS, "cut to bfloat16 instead of rounded (M29)", wrap(rounded=lambda right: lambda x, storage: right(truncated(x), storage))),
    # --- what must be refused
    Fault("nonfinite_accepted", REFUSED, "a pose for NaN or infinite angles or parameters", accepts("finite", check="check")),
    Fault("joints_zipped", REFUSED, "as many joints as q and dh both have, the others left out", given(rigid.zipped)),
    Fault("angle_broadcast", REFUSED, "one angle taken for every joint", given(one_for_all)),
    Fault("rank_not_checked", REFUSED, "q of another rank reshaped", given_angles(lambda q: q.reshape(-1, q.shape[-1]))),
    Fault("offset_column_optional", REFUSED, "dh of three columns taken with offsets of 0", given(rigid.with_offsets)),
    Fault("no_joint_accepted", REFUSED, "the base for an arm without joints", no_joint),
)  # fmt: skip
