"""Points sorted into the voxels of a grid: counts, means, maxima, truncated signed distance, bounds.

Symbols: B batch, N points, F features, X × Y × Z the grid.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    voxelize(points, *, mode, origin, voxel_size, grid) for the modes "count" and "occupancy"
    voxelize(points, features, *, mode, origin, voxel_size, grid) for the modes "mean" and "max"
    voxelize(points, [normals,] *, mode, origin, voxel_size, grid, truncation) for the mode "tsdf"
    voxelize(points, *, mode) for the mode "bounds"
that returns a mapping of checkpoints. All inputs are given by name.
  points      (B, N, 3) in storage: x, y, z in metres; N may be 0
  features    (B, N, F) in storage
  normals     (B, N, 3) in storage, of any length above 0: where the surface faces
  origin      [x, y, z], the lowest corner of voxel (0, 0, 0); numbers that float32 holds
  voxel_size  the edge of a voxel, a number that float32 holds (0.1 comes as 0.10000000149011612)
  grid        [X, Y, Z], voxels along each axis
  truncation  the distance at which the mode "tsdf" cuts, a number that float32 holds
Each row of the batch has a grid of its own. A point of which a coordinate is NaN or infinite is no point, in any mode.

modes "count", "occupancy", "mean", "max"
  voxel       (B, N) integers: the number (x * Y + y) * Z + z of the point's voxel, -1 for a point outside the grid or
              not finite. Along each axis the index is floor((p - origin) / voxel_size) in float32, the difference and
              the quotient each rounded to nearest, under every contract (p is exact in float32). A point is inside if
              0 <= index < size on all three axes: the lower faces belong to the grid, the upper ones do not.
  count       (B, X, Y, Z) integers, in the modes "count" and "mean": how many points each voxel has
  occupancy   (B, X, Y, Z) integers: 1 where there is at least one, else 0
  mean        (B, X, Y, Z, F): the sum of the features over their number, the sum in the accumulation format and in any
              order, rounded once to storage; 0 where there is no point
  max         (B, X, Y, Z, F): the largest feature, which may be negative; 0 where there is no point. NaN wins.

mode "tsdf" (Curless and Levoy 1996), by the nearest point, so that it depends on no order
  weight      (B, X, Y, Z) integers: how many points are nearer than `truncation` to the centre of the voxel, which is
              origin + (index + 1/2) * voxel_size; points outside the grid count as well
  tsdf        (B, X, Y, Z): the distance from the centre to the nearest of these over `truncation`, negative behind the
              surface, where (centre - point) · normal < 0, positive else and wherever there are no normals. Where one
              is as near on either side: positive. Where there is none: 1, as far in front as can be told.

mode "bounds"
  bounds      (B, 2, 3): the smallest coordinates and the largest. Of no point: +infinity and -infinity, so that the
              bounds of two clouds are the smaller and the larger of theirs.

Must be refused (raise, or exit with another code than 0): an unknown mode; points that are not (B, N, 3); features or
normals of other batches or points than `points` has, or no features in the modes "mean" and "max"; a voxel_size or a
truncation that is not above 0, or no truncation in the mode "tsdf"; a grid that is not three sizes above 0.
"""
# Conventions that implementations disagree on, and why these. Division and not the product with 1 / voxel_size: one
# rounding less, and what IEEE arithmetic gives everywhere. Outside is dropped: clamping piles points up at the border.
# Floor and not truncation, which counts points of (-1, 0) as 0. Empty is 0, as sums are, and for max too, which then
# needs no infinity; a count tells them from values. NaN points are dropped: no voxel is theirs. An empty cloud is a
# cloud. Positive in front of the surface is Curless and Levoy's sign; 0 is a distance, and so not the word for empty.

CONTRACTS = ("float32", "bfloat16-once", "float16-once")
WIDE_RANGE = ("float32", "bfloat16-once")
VOXELS = ("batch", "x", "y", "z")
Points = Sequence[Sequence[float]]


def single(value: float) -> float:
    """Return the float32 number nearest to `value`."""
    return float(np.float32(value))


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


def literal(values: Any) -> Literal:
    """Return the recipe of numbers written out."""
    return Literal(nested(np.asarray(values, np.float64).tolist()), "float32")


def cloud(name: str, shape: tuple[int, ...], exponent: int = -5, **options: Any) -> Dyadic:
    """Return random multiples of 2^exponent, of standard deviation 36.9 of them."""
    return Dyadic(shape, f"voxelize/{name}", exponent=exponent, **options)


def integers(name: str, shape: tuple[int, ...], low: int, high: int) -> Any:
    """Return random integers in [low, high)."""
    return Integers(shape, f"voxelize/{name}", low, high).draw()


def space(origin: Sequence[float], voxel_size: float, grid: Sequence[int]) -> dict[str, Any]:
    """Return the parameters that say where voxels are."""
    return {"origin": [single(value) for value in origin], "voxel_size": single(voxel_size), "grid": list(grid)}


SMALL = space((-1.25, -1.0, -1.75), 0.75, (3, 4, 5))
"""A grid about 0 beyond which some of a cloud of exponent -5 lie; faces stand at multiples of 1/4."""


def case(
    mode: str,
    name: str,
    about: str,
    points: Recipe,
    where: dict[str, Any],
    *,
    contracts: tuple[str, ...] = (),
    nonfinite: bool = False,
    truncation: float | None = None,
    **arrays: Recipe,
) -> Case:
    """Return a case of any mode."""
    B, N, _ = points.shape
    grid = (B, *where.get("grid", (1, 1, 1)))
    features = arrays["features"].shape[2:] if "features" in arrays else ()
    channels = (*VOXELS, "feature")
    known = {
        "voxel": Checkpoint("voxel", (B, N), ("batch", "point"), dtype="integer"),
        "count": Checkpoint("count", grid, VOXELS, dtype="integer"),
        "occupancy": Checkpoint("occupancy", grid, VOXELS, dtype="integer"),
        "mean": Checkpoint("mean", (*grid, *features), channels[: 4 + len(features)], nonfinite=nonfinite),
        "max": Checkpoint("max", (*grid, *features), channels[: 4 + len(features)], nonfinite=nonfinite),
        "weight": Checkpoint("weight", grid, VOXELS, dtype="integer"),
        "tsdf": Checkpoint("tsdf", grid, VOXELS),
        "bounds": Checkpoint("bounds", (B, 2, 3), ("batch", "end", "axis"), nonfinite=nonfinite),
    }  # fmt: skip
    return Case(
        f"{mode}-{name}",
        {"points": points, **arrays},
        {"mode": mode, **where} | ({} if truncation is None else {"truncation": single(truncation)}),
        tuple(known[checkpoint] for checkpoint in CHECKPOINTS[mode]),
        contracts=contracts,
        about=about,
    )


CHECKPOINTS = {
    "count": ("voxel", "count"),
    "occupancy": ("voxel", "occupancy"),
    "mean": ("voxel", "count", "mean"),
    "max": ("voxel", "max"),
    "tsdf": ("weight", "tsdf"),
    "bounds": ("bounds",),
}
NAN, INFINITE = float("nan"), float("inf")
ODD = [
    [NAN, 0, 0], [0, NAN, 0], [0, 0, NAN], [NAN, NAN, NAN], [INFINITE, 0, 0], [0, -INFINITE, 0], [0, 0, INFINITE],
    [0.5, 0.5, 0.5], [32768, 0, 0], [-32768, 0, 0], [0, 0, -32768], [-1, -1, -1], [-1, NAN, -INFINITE], [0, 0, 0],
]  # fmt: skip
"""Points that are none, points far away, and some that are inside `SMALL`."""
CROWD = [[0.125] * 3] * 300 + [[0.5] * 3] * 5 + [[-1, 0.5, 1]]
"""More points in one voxel than eight bits count."""


# --- which voxel, and how many ---------------------------------------------------------------------------------------


def on_faces(where: dict[str, Any], count: int) -> Literal:
    """Return points of which each coordinate is on a face, just below it, or between two; from outside to outside."""
    halves = np.stack([integers(f"faces/{a}", (1, count), -2, 2 * n + 3) for a, n in enumerate(where["grid"])], -1)
    points = np.array(where["origin"]) + halves * (where["voxel_size"] / 2)
    below = integers("faces/below", points.shape, 0, 2) * (np.abs(points) < 1)  # further out bfloat16 cannot say it
    return literal(points - below / 256)


def along_axes(coordinates: Sequence[float], fixed: Sequence[float]) -> Literal:
    """Return a point for each coordinate and each axis along which it is laid, the other two fixed."""
    rows = [[c if a == axis else fixed[a] for a in range(3)] for axis in range(3) for c in coordinates]
    return literal([rows])


def index_cases() -> tuple[Case, ...]:
    """Return the cases of the modes `count` and `occupancy`."""
    quarter = space((-0.5, -1.0, 0.25), 0.25, (5, 7, 4))
    tenths = [single(k / 10) for k in range(-3, 24)]
    cubic = space((-1.75, -1.5, -1.25), 0.75, (5, 5, 5))
    return (
        case("count", "scattered", "two clouds in a grid of three sizes", cloud("scattered", (2, 47, 3)), SMALL),
        case("count", "cubic", "equal sizes: axes exchanged show in places only", cloud("cubic", (2, 37, 3)), cubic),
        case("count", "faces", "on faces, just below, and between", on_faces(quarter, 71), quarter),
        case("count", "decimal", "0.2 and -0.1 as float32 has them: a division decides",
             along_axes([k / 4 for k in range(-2, 12)], (0.25, 0.75, 0.5)), space((-0.1,) * 3, 0.2, (13, 8, 11))),
        case("count", "tenths", "multiples of 0.1 as float32 has them",
             along_axes(tenths, (tenths[5], tenths[11], tenths[7])), space((-0.3, -0.1, 0), 0.1, (22, 15, 18)),
             contracts=("float32",)),
        case("count", "crowd", "300 points in one voxel", literal([CROWD]), SMALL),
        case("count", "not-finite", "NaN, infinite and far points", literal([ODD]), SMALL),
        case("count", "one-side", "a cloud in a corner, most of it outside",
             cloud("one-side", (2, 41, 3), offset=-64, narrow=True), SMALL),
        case("count", "no-points", "an empty cloud is a cloud", cloud("none", (2, 0, 3)), SMALL),
        case("occupancy", "scattered", "two clouds", cloud("occupancy", (2, 51, 3)), SMALL),
        case("occupancy", "one-point", "one point in each of three clouds", cloud("one-point", (3, 1, 3), -6), SMALL),
    )  # fmt: skip


# --- features --------------------------------------------------------------------------------------------------------


def decades(count: int) -> Literal:
    """Return two features for each of `count` points, of 8 bits and magnitudes from 2^-9 to 2^9."""
    significands = integers("decades/significands", (1, count, 2), -255, 256) / 256
    return literal(significands * 2.0 ** integers("decades/exponents", (1, count, 2), -9, 10))


def feature_cases() -> tuple[Case, ...]:
    """Return the cases of the modes `mean` and `max`."""
    few = space((-1.0, -1.0, -1.0), 1.0, (2, 3, 2))
    alone = [[0.5, 0.5, 0.5], [0.25, 0.5, 0.75], [-0.5, 1.5, 0.5], [-0.5, 1.25, 0.5], [0.5, -0.5, -0.5]]
    strange = [[NAN, 1], [2, -3], [INFINITE, -INFINITE], [-INFINITE, -INFINITE], [0.5, NAN]]
    points = integers("odd/points", (42, 3), -36, 49) / 32
    features = integers("odd/values", (len(ODD) + 42, 2), -99, 100) / 64
    places, values = literal([[*alone, *ODD, *points]]), literal([[*strange, *features]])
    found = []
    for mode in ("mean", "max"):
        found += [
            case(mode, "scattered", "two clouds, three features", cloud(f"{mode}/points", (2, 43, 3)), SMALL,
                 features=cloud(f"{mode}/features", (2, 43, 3))),
            case(mode, "odd-features", "NaN and infinities among points and features", places, SMALL,
                 features=values, nonfinite=True),
        ]  # fmt: skip
    return (
        *found,
        case("max", "negative", "every feature is negative", cloud("max/negative", (2, 31, 3)), SMALL,
             features=cloud("negative/features", (2, 31, 2), -7, offset=-128, narrow=True)),
        case("mean", "decades", "magnitudes from 2^-9 to 2^9 in few voxels", cloud("mean/few", (1, 157, 3)), few,
             features=decades(157)),
        case("mean", "crowd", "300 points in one voxel", literal([CROWD]), few,
             features=cloud("crowd/features", (1, 306, 2), -7, offset=128, narrow=True)),
    )  # fmt: skip


# --- distances -------------------------------------------------------------------------------------------------------


def sheet(name: str, count: int) -> tuple[Literal, Literal]:
    """Return points about a slanted plane, (1, N, 3), and normals that face its upper side, more or less."""
    across = integers(f"{name}/across", (count, 2), -56, 57) / 32
    height = across @ [0.25, -0.5] + integers(f"{name}/height", (count,), -4, 5) / 32
    normals = np.array([-0.25, 0.5, 1]) + integers(f"{name}/normals", (count, 3), -5, 6) / 16
    points = np.round(np.column_stack([across, height]) * 32) / 32
    return literal([points]), literal([normals])


def distance_cases() -> tuple[Case, ...]:
    """Return the cases of the mode `tsdf`."""
    where = space((-1.5, -1.25, -1.0), 0.5, (5, 6, 4))
    decimal = space((-1.3, -1.1, -0.7), 0.3, (7, 6, 5))
    points, normals = sheet("sheet", 31)
    loose, faces = sheet("decimal-1", 37)
    across = integers("walls", (18, 2), -40, 41) / 32
    walls = [[0.25 if i % 2 else -0.5, y, z] for i, (y, z) in enumerate(across.tolist())]
    facing = [[1 if x < 0 else -1, 0.125, -0.0625] for x, _, _ in walls]
    ends = [[-0.5, 0, 0], [0, 0, 0], [1.75, 0.5, 0], [0, 4, 0], [NAN, 0, 0], [0, 0, INFINITE]]
    ahead = [[-1, 0, 0], [-1, 0, 0], [1, 0.25, 0.25], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    middle = space((-1.0, -0.75, -0.25), 0.5, (4, 3, 1))
    return (
        case("tsdf", "sheet", "a sheet with normals", points, where, truncation=0.875, normals=normals),
        case("tsdf", "no-normals", "two clouds without normals: a distance", cloud("unsigned", (2, 17, 3)), where,
             truncation=0.625),
        case("tsdf", "decimal", "sizes that only round", loose, decimal, truncation=0.7, normals=faces),
        case("tsdf", "walls", "two walls that face each other: the nearer one tells", literal([walls]), where,
             truncation=0.9375, normals=literal([facing])),
        case("tsdf", "ends", "a tie of both sides, points outside and none at all, a distance equal to the truncation",
             literal([ends]), middle, truncation=1.0, normals=literal([ahead])),
    )  # fmt: skip


def bounds_cases() -> tuple[Case, ...]:
    """Return the cases of the mode `bounds`."""
    far = [[2.0**40, -1, 0.5], [1, -(2.0**41), 0.25], [-3, 5, 2.0**42], [2.0**35, 7, -(2.0**36)]]
    some = [[NAN, 2, 3], [1, -2, 0.5], [INFINITE, -9, 0.25], [4, 8, 0.125], [-7, -INFINITE, 64]]
    none = [[NAN, 0, 1], [0, INFINITE, 2], [-INFINITE, 3, NAN], [NAN, NAN, NAN], [4, 5, -INFINITE]]
    return (
        case("bounds", "scattered", "three clouds", cloud("bounds", (3, 19, 3)), {}),
        case("bounds", "one-side", "all below 0, then all above", literal(
            np.array([[[-3, -2.5, -9], [-1, -0.5, -4]], [[3, 2.5, 9], [1, 0.5, 4]]])), {}),
        case("bounds", "far", "beyond 10^10", literal([far]), {}, contracts=WIDE_RANGE),
        case("bounds", "not-finite", "points that are none; the second cloud has no other", literal([some, none]), {},
             nonfinite=True),
        case("bounds", "no-points", "bounds of nothing", cloud("nothing", (2, 0, 3)), {}, nonfinite=True),
    )  # fmt: skip


# --- what must be refused --------------------------------------------------------------------------------------------


def refused(name: str, refuses: str, mode: str = "count", **wrong: Any) -> Case:
    """Return a case with something wrong: recipes are inputs, all else parameters; None leaves it out."""
    right: dict[str, Any] = {"points": cloud("refused", (2, 5, 3))} | SMALL
    if mode in ("mean", "max"):
        right["features"] = cloud("refused/features", (2, 5, 2))
    if mode == "tsdf":
        right |= {"normals": cloud("refused/normals", (2, 5, 3)), "truncation": 1.0}
    given = {key: value for key, value in (right | {"mode": mode} | wrong).items() if value is not None}
    arrays = {key: value for key, value in given.items() if isinstance(value, Dyadic)}
    params = {key: value for key, value in given.items() if key not in arrays}
    return Case(f"refused-{name}", arrays, params, (), refuses=refuses)


def refusals() -> tuple[Case, ...]:
    """Return what must be refused."""
    return (
        refused("mode", "a mode that does not exist", mode="median"),
        refused("rank", "points without a batch", points=cloud("refused", (5, 3))),
        refused("coordinates", "points of two coordinates", points=cloud("refused", (2, 5, 2))),
        refused("coordinates-bounds", "points of four coordinates", "bounds", points=cloud("refused", (2, 5, 4))),
        refused("features-missing", "no features to average", "mean", features=None),
        refused("features-missing-max", "no features to compare", "max", features=None),
        refused("features-length", "features of four points for five", "mean", features=cloud("refused/f", (2, 4, 2))),
        refused("features-batch", "features of one cloud for two", "max", features=cloud("refused/f", (1, 5, 2))),
        refused("normals-length", "normals of three points for five", "tsdf", normals=cloud("refused/n", (2, 3, 3))),
        refused("voxel-size-0", "a voxel size of 0", voxel_size=0.0),
        refused("voxel-size-negative", "a negative voxel size", "mean", voxel_size=-0.5),
        refused("truncation-0", "a truncation of 0", "tsdf", truncation=0.0),
        refused("truncation-missing", "no truncation", "tsdf", truncation=None),
        refused("grid-0", "a grid without voxels", grid=[3, 0, 5]),
        refused("grid-negative", "a negative size", "occupancy", grid=[3, 4, -5]),
        refused("grid-flat", "a grid of two sizes", grid=[3, 4]),
    )


SUITE = Suite(
    "voxelize",
    ABOUT,
    CONTRACTS,
    index_cases() + feature_cases() + distance_cases() + bounds_cases() + refusals(),
    outputs=("mean", "max", "tsdf"),
    packed=True,
)
