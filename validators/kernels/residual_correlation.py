"""The residual-correlation distance of points under a Gaussian process with inducing points, stage by stage."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    residual_correlation(points, lengthscale, rows, columns, inducing=None, projections=None, residual_variance=None, *,
                         kernel, variance, jitter, radius) -> the checkpoints by name
  points             (n, D)
  lengthscale        (1,), or (D,): one for each dimension
  rows, columns      (r,) and (c,) integers, indices of points; r and c may be 0
  inducing           (m,) integers, indices of points; or, in its place, what was made of them before:
  projections        (n, m), V, taken as it is
  residual_variance  (n,), p, taken as it is: it need not fit V, and may be 0
  kernel             "rbf": k(x, y) = variance exp(-s^2 / 2), s^2 = sum_d ((x_d - y_d) / lengthscale_d)^2
                     "matern52": k(x, y) = variance (1 + a + a^2 / 3) exp(-a), a = sqrt(5) s
  jitter             what is added to the diagonal of the kernel of the inducing points, in units of the variance
  radius             of the mask, 0 or more
In order, u the inducing points; the first four where they are given, not V and p:
  inducing_kernel      (m, m), k(u, u) + jitter variance I
  cholesky             (m, m), L, lower triangular with a positive diagonal: inducing_kernel = L L^T
  projections          (n, m), V, row i is L^-1 k(u, x_i)
  residual_variance    (n,), p_i = max(variance - |V_i|^2, 1e-9)
  kernel_block         (r, c), k(x_i, x_j), i of rows and j of columns
  residual_covariance  (r, c), k(x_i, x_j) - V_i.V_j
  correlation          (r, c), rho = clip(residual_covariance / sqrt(max(p_i p_j, 1e-18)), -1, 1), but 0 where p_i or
                       p_j is 0: a point without residual variance correlates with none. (Others divide by 1e-9 there:
                       what comes out is the sign of a rounding error.)
  distance             (r, c), sqrt(1 - |rho|), but 0 where i = j, whatever rho is
  within_radius        (r, c), integers, 1 where distance <= radius + 1e-9, else 0
floats in the format of `points`, computed in the accumulation format. All distances are given, those beyond the radius
too: none may be cut off or replaced by a bound.

How exact V, p, rho and the distance can be depends on the condition of the inducing kernel and on p_i p_j, and so does
the tolerance, element by element: |rho| may be off by some units of rounding of variance / sqrt(p_i p_j). Squared
distances of points may be expanded if the mean of the points is subtracted first, and only then.

To be refused: an index below 0 or of n and more; neither or both of inducing and (projections, residual_variance), or
one of the two; projections or residual_variance not of n rows; a residual variance below 0 or NaN; a lengthscale
neither (1,) nor (D,) or not above 0; a variance not above 0; a jitter below 0; a radius below 0 or NaN; an unknown
kernel.
"""

CONTRACTS = ("float64", "float32")
FLOAT64 = ("float64",)


def points(name: str, shape: tuple[int, int], *, exponent: int = -6, offset: float = 0) -> NDArray[Any]:
    """Return random points of the standard deviation 36.9 * 2^exponent about `offset`, (n, D)."""
    recipe = Dyadic(shape, f"residual_correlation/{name}", exponent=exponent, offset=round(offset / 2.0**exponent))
    return recipe.draw().astype(np.float64)


def literal(values: Any) -> Literal:
    """Return values, exact in float32, written out."""
    return Literal(nested(np.asarray(values, np.float64).tolist()), "float32")


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


def indices(*values: int) -> Literal:
    """Return indices written out."""
    return Literal(values)


def case(
    name: str, about: str, x: NDArray[Any], lengthscale: list[float], pairs: tuple[Recipe, Recipe], **more: Any
) -> Case:
    """Return the case of `x` (n, D); `more` are other inputs, parameters, and `without`, checkpoints not judged."""
    rows, columns = pairs
    inputs: dict[str, Recipe] = {"points": literal(x), "lengthscale": literal(lengthscale)}
    inputs |= {"rows": rows, "columns": columns}
    inputs |= {key: more[key] for key in ("inducing", "projections", "residual_variance") if key in more}
    params = {"kernel": "rbf", "variance": 1.25, "jitter": 1e-6, "radius": 0.75}
    params |= {key: more[key] for key in params if key in more}
    kept = more.get("keep", {})
    m = inputs["inducing"].shape[0] if "inducing" in inputs else 0
    found = () if "refuses" in more else checkpoints(len(x), m, (*rows.shape, *columns.shape), kept)
    return Case(
        name,
        inputs,
        params,
        tuple(point for point in found if point.name not in more.get("without", ())),
        contracts=more.get("contracts", ()),
        about=about,
        refuses=more.get("refuses", ""),
    )


def checkpoints(n: int, m: int, block: tuple[int, ...], keep: dict[str, tuple[int, int]]) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of `n` points and `m` inducing points, 0 where V and p are given; `keep` as they say."""
    axes = ("row", "column")
    factors = (
        Checkpoint("inducing_kernel", (m, m), ("inducing", "other inducing"), keep=only(keep, "inducing")),
        Checkpoint("cholesky", (m, m), ("inducing", "factor"), keep=only(keep, "inducing")),
        Checkpoint("projections", (n, m), ("point", "factor"), keep=only(keep, "point")),
        Checkpoint("residual_variance", (n,), ("point",)),
    )
    return (
        *(factors if m else ()),
        Checkpoint("kernel_block", block, axes),
        Checkpoint("residual_covariance", block, axes),
        Checkpoint("correlation", block, axes),
        Checkpoint("distance", block, axes),
        Checkpoint("within_radius", block, axes, dtype="integer"),
    )


def only(keep: dict[str, tuple[int, int]], axis: str) -> dict[str, tuple[int, int]]:
    """Return what is kept of one axis."""
    return {axis: keep[axis]} if axis in keep else {}


def some(name: str, rows: int, columns: int, n: int) -> tuple[Recipe, Recipe]:
    """Return random indices below `n`, some of them twice."""
    key = f"residual_correlation/{name}"
    return Integers((rows,), f"{key}/rows", 0, n), Integers((columns,), f"{key}/columns", 0, n)


def first(count: int, start: int = 0) -> Literal:
    """Return the indices from `start` on."""
    return Literal(tuple(range(start, start + count)))


def clusters() -> NDArray[Any]:
    """Return points in two clusters 64 apart: kernels between them underflow, (36, 2)."""
    return points("clusters", (36, 2)) + 64 * (np.arange(36) >= 18)[:, None]


def with_duplicates() -> NDArray[Any]:
    """Return points of which the last twelve repeat the first twelve, six of them moved a little, (34, 3)."""
    found = points("duplicates", (34, 3))
    found[22:] = found[:12]
    found[28:, 1] += 2.0**-7
    return found


def given(name: str, n: int, m: int) -> dict[str, Any]:
    """Return V and p that do not fit each other: zeros and small values in p, correlations to be clipped."""
    V = Dyadic((n, m), f"residual_correlation/{name}/V", exponent=-8).draw().astype(np.float64)  # (n, m)
    p = Integers((n,), f"residual_correlation/{name}/p", 8, 80).draw().astype(np.float64) / 64  # (n,): 1/8 … 5/4
    p[::7], p[5::13] = 0, 2.0**-5
    return {"projections": literal(V), "residual_variance": literal(p)}


def floored() -> dict[str, Any]:
    """Return V and p of 8 points whose kernel is 0: V_i.V_j is all, and as small as the floor under p_i p_j."""
    V = Dyadic((8, 3), "residual_correlation/floored/V", exponent=-22).draw().astype(np.float64)  # (8, 3)
    return {"projections": literal(V), "residual_variance": literal(2.0 ** -np.array([40, 33, 36, 20, 38, 31, 34, 28]))}


def on_the_radius() -> Case:
    """Return the case of equal points whose correlation is 3/4 in every format and expanded too, and of others."""
    x = points("radius", (3, 2))
    x = np.repeat(np.concatenate([x, -x]), 3, axis=0)  # (18, 2), of the mean 0
    V = np.tile([[0.5, 0.0], [0.5, 0.0], [0.25, 0.5]], (6, 1))  # (18, 2)
    found = {"projections": literal(V), "residual_variance": literal(np.ones(18))}
    about = "distances that are the radius exactly, in every format, and within it"
    return case("on-the-radius", about, x, [1], (first(11), first(18)), variance=1, radius=0.5, **found)


def refused(name: str, refuses: str, **changes: Any) -> Case:
    """Return a case that is right but for `changes`."""
    x = points("refused", (9, 2))
    right: dict[str, Any] = {
        "x": x, "lengthscale": [0.6875], "pairs": (first(3), first(4, 2)), "inducing": indices(1, 4, 6)
    }  # fmt: skip
    more = {name: value for name, value in (right | changes).items() if value is not None}
    return case(f"refuse-{name}", "", refuses=refuses, **more)


V_OF_REFUSED = literal(points("refused/V", (9, 3), exponent=-8))
NINE = literal(np.ones(9))
SPREAD = Literal((1, 4, 9, 11, 16, 20, 25, 31, 38))
NO_MASK = ("within_radius",)
NO_DISTANCE = ("distance", "within_radius")
CASES = (
    case("rbf", "9 inducing points of 40, in 3 dimensions", points("rbf", (40, 3)), [0.6875], some("rbf", 12, 17, 40),
         inducing=SPREAD, radius=0.625, keep={"point": (20, 40)}),
    case("matern", "the Matérn kernel, a lengthscale for each of 5 dimensions", points("matern", (43, 5)),
         [0.75, 1.5, 1, 3, 0.8125], some("matern", 13, 16, 43), inducing=SPREAD, kernel="matern52", variance=0.75,
         radius=0.6875, keep={"point": (20, 40)}),
    case("offset", "100 from the origin", points("offset", (39, 3), offset=100), [0.6875], some("offset", 11, 18, 39),
         inducing=SPREAD, radius=0.625, keep={"point": (20, 39)}),
    case("all-pairs", "rows and columns are all points; only points themselves are within the radius 0",
         points("all-pairs", (15, 3)), [0.5], (first(15), first(15)), inducing=indices(2, 5, 11), radius=0),
    case("inducing-queries", "distances of inducing points, whose residual variance is the jitter",
         points("inducing", (40, 3)), [0.34375], (SPREAD, first(20)), inducing=SPREAD, without=NO_MASK,
         keep={"point": (0, 20)}),
    case("large-jitter", "the same with a jitter of 1/64", points("inducing", (40, 3)), [0.34375], (SPREAD, first(20)),
         inducing=SPREAD, jitter=2.0**-6, radius=0.93, keep={"point": (0, 20)}),
    # Not more pairs: of a fault that changes nothing, the errors of the plain candidate itself would make a signature.
    case("ill-conditioned", "every point inducing, lengthscale 3: the condition is 1e7", points("ill", (24, 3)), [3],
         (first(5), first(16, 3)), inducing=first(24), contracts=FLOAT64, without=NO_MASK,
         keep={"inducing": (18, 24), "point": (20, 24)}),
    case("floor", "a jitter of 1e-12: residual variances under 1e-9", points("floor", (33, 2)), [0.34375],
         (indices(0, 3, 7, 9, 12, 20), first(18)), inducing=indices(0, 7, 12, 20), jitter=1e-12, contracts=FLOAT64,
         without=NO_DISTANCE),
    case("duplicates", "equal and nearly equal points: correlations near 1", with_duplicates(), [0.6875],
         (first(12), first(17, 17)), inducing=indices(3, 9, 14, 19, 25), without=NO_DISTANCE),
    case("far", "two clusters 64 apart, one inducing point: kernels of 0, distances of 1, which is the radius",
         clusters(), [0.6875], (first(11, 12), first(18, 8)), inducing=indices(6), variance=1.5, radius=1),
    case("given", "V and p given: zeros in p, correlations clipped, every point twice",
         np.tile(points("given", (18, 3)), (2, 1)), [0.6875], (first(15), first(21, 10)), without=NO_MASK,
         **given("given", 36, 5)),
    case("given-floor", "V and p given, points 64 apart: p_i p_j under the floor", 64 * np.eye(8), [0.6875],
         (first(5), first(8)), without=NO_MASK, **floored()),
    on_the_radius(),
    case("empty", "no columns", points("empty", (8, 2)), [0.5], (first(3), first(0)), inducing=indices(1, 5)),
    refused("row", "a row of n", pairs=(indices(0, 9), first(4))),
    refused("column", "a column of -1", pairs=(first(3), indices(2, -1))),
    refused("inducing-index", "an inducing point of n", inducing=indices(1, 4, 9)),
    refused("nothing-given", "neither inducing points nor V and p", inducing=None),
    refused("half-given", "V without p", inducing=None, projections=V_OF_REFUSED),
    refused("both-given", "inducing points beside V and p", projections=V_OF_REFUSED, residual_variance=NINE),
    refused("rows-of-projections", "V of 8 rows for 9 points", inducing=None, residual_variance=NINE,
            projections=literal(points("refused/V", (8, 3), exponent=-8))),
    refused("residual-variance", "a residual variance below 0", inducing=None, projections=V_OF_REFUSED,
            residual_variance=literal(np.where(np.arange(9) == 4, -0.5, 1))),
    refused("lengthscales", "3 lengthscales for 2 dimensions", lengthscale=[0.5, 1, 2]),
    refused("lengthscale-zero", "a lengthscale of 0", lengthscale=[0.5, 0]),
    refused("variance", "a variance of 0", variance=0),
    refused("jitter", "a jitter below 0", jitter=-1e-6),
    refused("radius", "a radius below 0", radius=-0.5),
    refused("kernel", "the kernel 'RBF'", kernel="RBF"),
)  # fmt: skip

SUITE = Suite("residual_correlation", ABOUT, CONTRACTS, CASES, outputs=("distance",), packed=True)
