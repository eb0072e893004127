"""The correlation distance of payload vectors, which stands in for the residual correlation without a kernel."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    residual_correlation_lite(x, y) -> {"correlation": correlation, "distance": distance}
  x  (n, L), vectors; n may be 0
  y  (m, L), vectors; m may be 0
With u = x_i - mean(x_i) and v = y_j - mean(y_j), sums in the accumulation format:
  correlation  (n, m), Pearson's, u.v / (max(|u|, 1e-6) max(|v|, 1e-6)): a vector without variance correlates with none
  distance     (n, m), max(0, 1 - correlation), from 0 to 2: no absolute value, no root, unlike `residual_correlation`
both in the format of x. The floor is under each norm, not under their product: it is what the original has
(sqrt(1e-12)), and vectors of norms below it are among the cases.

To be refused: x and y of different L or not of rank 2.
"""

CONTRACTS = ("float64", "float32")
AXES = ("x", "y")


def vectors(name: str, shape: tuple[int, ...], **of_dyadic: Any) -> Dyadic:
    """Return random vectors of the standard deviation 36.9 * 2^-6, unless `of_dyadic` says otherwise."""
    return Dyadic(shape, f"residual_correlation_lite/{name}", **({"exponent": -6} | of_dyadic))


def case(name: str, about: str, x: Recipe, y: Recipe, *, refuses: str = "") -> Case:
    """Return the case of the vectors `x` and `y`."""
    shape = (x.shape[0], y.shape[0])
    points = () if refuses else (Checkpoint("correlation", shape, AXES), Checkpoint("distance", shape, AXES))
    return Case(name, {"x": x, "y": y}, {}, points, about=about, refuses=refuses)


def literal(values: NDArray[Any]) -> Literal:
    """Return vectors written out."""
    return Literal(tuple(map(tuple, values.tolist())), "float32")


def alike() -> tuple[Literal, Literal]:
    """Return vectors, and the same scaled, negated and shifted, each off a little in one place: (13, 24), (19, 24)."""
    x = vectors("alike/x", (13, 24)).draw().astype(np.float64)  # (13, 24)
    y = np.concatenate([x, x[:6]])  # (19, 24)
    y *= np.array([1, -1, 0.5, -4])[np.arange(19) % 4, None]
    y += np.array([0, 0, 1, -2, 0.5])[np.arange(19) % 5, None]
    y[np.arange(19), np.arange(19) % 24] += 2.0 ** -(np.arange(19) % 7)
    return literal(x), literal(y)


def constant(name: str, n: int, every: int) -> Literal:
    """Return n vectors of which each `every`-th is constant; of a length that is a power of two: means are exact."""
    x = vectors(f"constant/{name}", (n, 32)).draw().astype(np.float64)  # (n, 32)
    x[::every] = np.array([0, 0.125, -3.5, 0, 96, 1])[np.arange(-(-n // every)) % 6, None]
    return literal(x)


SAME = vectors("same", (18, 27))
CASES = (
    case("random", "32 entries", vectors("random/x", (21, 32)), vectors("random/y", (17, 32))),
    case("short", "five entries: N - 1 shows", vectors("short/x", (22, 5)), vectors("short/y", (19, 5))),
    case("long", "300 entries", vectors("long/x", (16, 300)), vectors("long/y", (18, 300))),
    case("means", "means of 3 standard deviations, which are subtracted", vectors("means/x", (18, 37), offset=111),
         vectors("means/y", (20, 37), offset=-111)),
    case("magnitudes", "vectors of the norms 1e-7 to 1e3: the floor shows",
         vectors("magnitudes/x", (20, 29), row_exponents=(0, -22, 4, -25, -18)),
         vectors("magnitudes/y", (17, 29), row_exponents=(-24, 0, -20))),
    case("alike", "correlations near 1 and -1: distances near 0 and 2", *alike()),
    case("constant", "vectors without variance: the distance is 1, to each other too", constant("x", 12, 2),
         constant("y", 19, 5)),
    case("same", "x is y: symmetric", SAME, SAME),
    case("one-pair", "one vector each", vectors("one/x", (1, 7)), vectors("one/y", (1, 7))),
    case("empty-x", "no vector in x", vectors("empty/x", (0, 7)), vectors("empty/y", (3, 7))),
    case("empty-y", "no vector in y", vectors("empty/x", (4, 7)), vectors("empty/y", (0, 7))),
    case("refuse-lengths", "", vectors("refused/x", (4, 7)), vectors("refused/y", (3, 8)),
         refuses="vectors of 7 and 8 entries"),
    case("refuse-rank", "", vectors("refused/x", (7,)), vectors("refused/y", (7,)), refuses="vectors of rank 1"),
)  # fmt: skip

SUITE = Suite("residual_correlation_lite", ABOUT, CONTRACTS, CASES, outputs=("distance",), packed=True)
