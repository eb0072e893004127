"""Forward kinematics of a serial arm by Denavit-Hartenberg parameters. Symbols: B poses, n joints."""

import math
from typing import Any

import numpy as np

from karat import Case, Checkpoint, Dyadic, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    forward_kinematics(q, dh) -> {"positions": positions, "position": position, "quaternion": quaternion}
  q   (B, n), joint angles in radians, of any size, in the contract's storage format; B >= 0, n >= 1
  dh  (n, 4), float32 under every contract: a, alpha, d, theta offset of each joint, lengths in metres
Standard (distal) Denavit-Hartenberg convention, all joints revolute: with theta = q + offset, the frame of joint j in
that of joint j - 1 is Rot_z(theta) Trans_z(d) Trans_x(a) Rot_x(alpha), that is, with c and s for cosine and sine,
    [c_theta, -s_theta c_alpha,  s_theta s_alpha, a c_theta]
    [s_theta,  c_theta c_alpha, -c_theta s_alpha, a s_theta]
    [0,        s_alpha,          c_alpha,         d        ]
    [0,        0,                0,               1        ]
and T_j = T_(j-1) times it, T_0 the identity. It is the convention of most tables; Craig's modified one differs.
positions   (B, n, 3), the origin of each joint's frame in the base frame, the last column of T_j
position    (B, 3), that of the last joint
quaternion  (B, 4), the rotation of T_n as the unit quaternion x, y, z, w (w last), v' = q v q*; judged up to its sign,
            since q and -q are one rotation, also at half turns and where the trace is 0
All three are in the format of q, computed in float32 and rounded once. B = 0 is answered by empty arrays.
To be refused: q of another rank than 2, dh of another shape than (n, 4), another number of joints in q than in dh,
n = 0, and any NaN or infinity: an arm must not be sent where a broken sensor says.
"""

CONTRACTS = ("float32", "bfloat16-once", "float16-once")
PI = float(np.float32(math.pi))


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
        Checkpoint("positions", (B, n, 3), ("pose", "joint", "axis")),
        Checkpoint("position", (B, 3), ("pose", "axis")),
        Checkpoint("quaternion", (B, 4), ("pose", "component"), sign_free="component"),
    )
    return Case(name, {"q": q, "dh": dh}, {}, checkpoints, about=about, fixed={"dh": "float32"})


def refused(name: str, reason: str, q: Recipe, dh: Recipe) -> Case:
    """Return the case of inputs that must be refused."""
    inputs = {"q": q, "dh": dh}
    return Case(f"refuse-{name}", inputs, {}, (), about=reason, fixed={"dh": "float32"}, refuses=reason)


def drawn(name: str, B: int, n: int, exponent: int = -5) -> Dyadic:
    """Return joint angles (B, n) of standard deviation 36.9 * 2^exponent: 1.15, so that they reach past a half turn."""
    return Dyadic((B, n), f"forward_kinematics/{name}/q", exponent)


def arm(name: str, n: int, size: float = 1.0) -> Literal:
    """Return parameters (n, 4): lengths of about `size` / 4 of both signs, twists and offsets of about a radian."""
    parameters = Dyadic((n, 4), f"forward_kinematics/{name}/dh", -6).draw()  # (n, 4)
    return written(parameters * np.array([size / 2, 2, size / 2, 2]))


def one_joint(alpha: float, offset: float) -> Literal:
    """Return the parameters of one joint of the lengths 3/8 and 1/4."""
    return written([[0.375, alpha, 0.25, offset]])


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
    [0, 0, 0, 0],
])  # fmt: skip
PLANAR = written([[0.5, 0, 0, 0], [0.375, 0, 0, 0.75], [0.25, 0, 0, -0.5], [0.125, 0, 0, 0.25]])
DECADES = np.array([0, *(sign * 2.0**-k for k in (24, 17, 13, 10, 7, 2) for sign in (1, -1))])[:, None]  # (13, 1)
QUARTERS = np.arange(-13, 14)[:, None] * 0.25  # (27, 1): from -3.25 to 3.25

CASES = (
    case("puma", "the Puma 560", drawn("puma", 13, 6), PUMA),
    case("seven-joints", "every parameter random", drawn("seven-joints", 19, 7), arm("seven-joints", 7)),
    case("three-joints", "many orientations: each component the largest", drawn("three", 47, 3), arm("three", 3)),
    case("one-joint", "one joint", drawn("one-joint", 11, 1), arm("one-joint", 1)),
    case("long-chain", "41 joints", drawn("long-chain", 3, 41), arm("long-chain", 41, 0.25)),
    case("planar", "all twists 0: angles and lengths add up in a plane", drawn("planar", 9, 4), PLANAR),
    case("many-turns", "angles up to 500 radians", drawn("many-turns", 17, 5, 2), arm("many-turns", 5)),
    case("tiny-angles", "rotations by 2^-24 up to 1/4", written(DECADES), one_joint(0, 0)),
    case("half-turns-z", "half turns about z and close to them: w is nearly 0", written(DECADES), one_joint(0, PI)),
    case(
        "half-turns-xy",
        "half turns about axes in the xy plane: z and w are nearly 0",
        written(QUARTERS),
        one_joint(PI, 0),
    ),
    case("half-turns-y", "half turns about y and close to them", written(DECADES), one_joint(PI, PI)),
    case("thirds", "trace 0 and all of the diagonal nearly 0", written(DECADES), one_joint(PI / 2, PI / 2)),
    case("one-pose", "a batch of one", drawn("one-pose", 1, 4), arm("one-pose", 4)),
    case("no-pose", "an empty batch", drawn("no-pose", 0, 3), arm("no-pose", 3)),
    refused("rank-1", "q of rank 1", Dyadic((6,), "forward_kinematics/rank-1", -5), arm("rank-1", 6)),
    refused("rank-3", "q of rank 3", Dyadic((2, 4, 6), "forward_kinematics/rank-3", -5), arm("rank-3", 6)),
    refused("fewer-joints-in-q", "q has 5 joints, dh 6", drawn("fewer", 4, 5), arm("fewer", 6)),
    refused("more-joints-in-q", "q has 6 joints, dh 5", drawn("more", 4, 6), arm("more", 5)),
    refused("one-joint-in-q", "q has 1 joint, dh 6", drawn("broadcast", 4, 1), arm("broadcast", 6)),
    refused(
        "three-columns",
        "dh has no offsets",
        drawn("three-columns", 4, 6),
        Dyadic((6, 3), "forward_kinematics/columns", -6),
    ),
    refused("no-joint", "no joint", drawn("no-joint", 4, 0), Dyadic((0, 4), "forward_kinematics/no-joint", -6)),
    refused("nan-angle", "an angle is NaN", bad(drawn("nan-angle", 4, 6), math.nan), arm("nan-angle", 6)),
    refused("infinite-angle", "an angle is infinite", bad(drawn("infinite", 4, 6), math.inf), arm("infinite", 6)),
    refused(
        "nan-parameter", "a parameter is NaN", drawn("nan-parameter", 4, 6), bad(arm("nan-parameter", 6), math.nan)
    ),
)

SUITE = Suite("forward_kinematics", ABOUT, CONTRACTS, CASES, outputs=("position", "quaternion"), packed=True)
