"""The geometric Jacobian of a serial arm by Denavit-Hartenberg parameters. Symbols: B poses, n joints."""

import math
from typing import Any

import numpy as np

from karat import Case, Checkpoint, Dyadic, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    geometric_jacobian(q, dh) -> {"position": position, "jacobian": jacobian}
  q   (B, n), joint angles in radians, of any size, in the contract's storage format; B >= 0, n >= 1
  dh  (n, 4), float32 under every contract: a, alpha, d, theta offset of each joint, lengths in metres
Frames by the standard (distal) Denavit-Hartenberg convention: with theta = q + offset, the frame of joint j in that of
joint j - 1 is Rot_z(theta) Trans_z(d) Trans_x(a) Rot_x(alpha); frame 0 is the base. All joints are revolute: joint j
turns about z_(j-1), the z axis of the frame before its own, through p_(j-1), that frame's origin.
position  (B, 3), p_n, the origin of the last frame in the base frame
jacobian  (B, 6, n), in the base frame, for unit speed of each joint: column j, counted from 1, is
          z_(j-1) x (p_n - p_(j-1))  in rows 0 to 2, the linear velocity of p_n, and
          z_(j-1)                    in rows 3 to 5, the angular velocity.
Both are in the format of q, computed in float32 and rounded once. The derivative is exact, not a difference: forward
differences in float32 with a step of 1e-5 are wrong in the second or third digit. B = 0 is answered by empty arrays.
To be refused: q of another rank than 2, dh of another shape than (n, 4), another number of joints in q than in dh,
n = 0, and any NaN or infinity.
"""

CONTRACTS = ("float32", "bfloat16-once", "float16-once")


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


def written(values: Any) -> Literal:
    """Return the recipe of values written out, rounded to float32."""
    return Literal(nested(np.asarray(values, np.float32).tolist()), "float32")


def case(name: str, about: str, q: Recipe, dh: Recipe) -> Case:
    """Return the case of joint angles `q` (B, n) and parameters `dh` (n, 4)."""
    B, n = q.shape
    checkpoints = (
        Checkpoint("position", (B, 3), ("pose", "axis")),
        Checkpoint("jacobian", (B, 6, n), ("pose", "velocity", "joint")),
    )
    return Case(name, {"q": q, "dh": dh}, {}, checkpoints, about=about, fixed={"dh": "float32"})


def refused(name: str, reason: str, q: Recipe, dh: Recipe) -> Case:
    """Return the case of inputs that must be refused."""
    return Case(f"refuse-{name}", {"q": q, "dh": dh}, {}, (), about=reason, fixed={"dh": "float32"}, refuses=reason)


def drawn(name: str, B: int, n: int, exponent: int = -5) -> Dyadic:
    """Return joint angles (B, n) of standard deviation 36.9 * 2^exponent: 1.15, so that they reach past a half turn."""
    return Dyadic((B, n), f"geometric_jacobian/{name}/q", exponent)


def arm(name: str, n: int, size: float = 1.0) -> Literal:
    """Return parameters (n, 4): lengths of about `size` / 4 of both signs, twists and offsets of about a radian."""
    parameters = Dyadic((n, 4), f"geometric_jacobian/{name}/dh", -6).draw()  # (n, 4)
    return written(parameters * np.array([size / 2, 2, size / 2, 2]))


def bad(values: Recipe, value: float) -> Literal:
    """Return the values with one replaced by `value`."""
    array = values.draw()
    array[-1, 1] = value
    return written(array)


# Corke's table of the Puma 560: a, alpha, d, offset.
PUMA = written([
    [0, math.pi / 2, 0, 0],
    [0.4318, 0, 0, 0],
    [0.0203, -math.pi / 2, 0.15005, 0],
    [0, math.pi / 2, 0.4318, 0],
    [0, -math.pi / 2, 0, 0],
    [0, 0, 0.0625, 0],
])  # fmt: skip
PLANAR = written([[0.5, 0, 0, 0], [0.375, 0, 0, 0.75], [0.25, 0, 0, -0.5], [0.125, 0, 0, 0.25]])

CASES = (
    case("puma", "the Puma 560 with a tool of 1/16 m", drawn("puma", 11, 6), PUMA),
    case("seven-joints", "every parameter random", drawn("seven-joints", 17, 7), arm("seven-joints", 7)),
    case("six-joints", "six joints: the Jacobian is square", drawn("six-joints", 9, 6), arm("six-joints", 6)),
    case("two-joints", "two joints", drawn("two-joints", 31, 2), arm("two-joints", 2)),
    case("one-joint", "one joint", drawn("one-joint", 13, 1), arm("one-joint", 1)),
    case("long-chain", "29 joints", drawn("long-chain", 3, 29), arm("long-chain", 29, 0.25)),
    case("planar", "all twists 0: the arm moves in a plane", drawn("planar", 11, 4), PLANAR),
    case("many-turns", "angles up to 500 radians", drawn("many-turns", 13, 5, 2), arm("many-turns", 5)),
    case("one-pose", "a batch of one", drawn("one-pose", 1, 3), arm("one-pose", 3)),
    case("no-pose", "an empty batch", drawn("no-pose", 0, 3), arm("no-pose", 3)),
    refused("rank-3", "q of rank 3", Dyadic((2, 4, 6), "geometric_jacobian/rank-3", -5), arm("rank-3", 6)),
    refused("fewer-joints-in-q", "q has 5 joints, dh 6", drawn("fewer", 4, 5), arm("fewer", 6)),
    refused("more-joints-in-q", "q has 6 joints, dh 5", drawn("more", 4, 6), arm("more", 5)),
    refused(
        "three-columns",
        "dh has no offsets",
        drawn("three-columns", 4, 6),
        Dyadic((6, 3), "geometric_jacobian/columns", -6),
    ),
    refused("no-joint", "no joint", drawn("no-joint", 4, 0), Dyadic((0, 4), "geometric_jacobian/no-joint", -6)),
    refused("nan-angle", "an angle is NaN", bad(drawn("nan-angle", 4, 6), math.nan), arm("nan-angle", 6)),
    refused("infinite-angle", "an angle is infinite", bad(drawn("infinite", 4, 6), -math.inf), arm("infinite", 6)),
    refused("nan-parameter", "a parameter is NaN", drawn("nan-parameter", 4, 6), bad(arm("nan", 6), math.nan)),
)

SUITE = Suite("geometric_jacobian", ABOUT, CONTRACTS, CASES, outputs=("jacobian",), packed=True)
