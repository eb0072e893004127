"""The k nearest points of each query, ties by index. Symbols: n points, q queries, d dimensions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Integers, Literal, Suite

ABOUT = """\
A py: candidate is a function
    k_nearest(points, queries, *, k) -> {"all_distances": …, "indices": …, "distances": …}
  points   (n, d), in storage
  queries  (q, d), in storage
  k        1 … n
all_distances  (q, n), in storage: Euclidean, sqrt(sum of squared differences). A candidate that does not hold them says
               so: UNSUPPORTED = ["all_distances"]
indices        (q, k) integers: the points of the k smallest distances, ascending; of points at the same distance, the
               smaller indices first, and across the cut the smaller indices only. A query that is a point finds it
distances      (q, k), in storage: theirs
One query and k = 1 give shape (1, 1), no query gives (0, k): nothing is squeezed.
Must be refused: k below 1 or above n, no points (n = 0), points and queries of different dimensions or of another rank
than 2, coordinates that are not finite.
Ties: most cases have integer coordinates times a power of two, so that squares and their sums are exact in float32:
what is equal is found equal by every form that subtracts coordinates, and indices are judged by the rule alone. In the
cases whose `about` says so, distances are rounded; there an index that ties within tolerance passes. Only equal
distances tie: a slack such as 1e-12, or 1e-9 relative, makes ties of what is none, and depends on the unit of length.
"""

CONTRACTS = ("float64", "float32")


def case(
    name: str,
    about: str,
    points: NDArray[Any],
    queries: NDArray[Any],
    k: int,
    *,
    exact: bool = True,
    contracts: tuple[str, ...] = (),
) -> Case:
    """Return one case; `exact` if no distance is rounded before its root is taken."""
    q, n = len(queries), len(points)
    judged_by = None if exact else "all_distances"
    return Case(
        name,
        {"points": floats(points, contracts), "queries": floats(queries, contracts)},
        {"k": k},
        (
            Checkpoint("all_distances", (q, n), ("query", "point")),
            Checkpoint("indices", (q, k), ("query", "rank"), dtype="integer", judged_by=judged_by),
            Checkpoint("distances", (q, k), ("query", "rank")),
        ),
        contracts=contracts,
        about=about,
    )


def floats(values: NDArray[Any], contracts: Sequence[str] = ()) -> Literal | Integers:
    """Return the recipe of floats written out, float64 where float32 is not among the contracts.

    NaN and infinities are words, as JSON has no numbers for them.
    """
    dtype = "float64" if contracts and "float32" not in contracts else "float32"
    if not len(values):
        return Integers(values.shape, "k_nearest/nothing", 0, 1, dtype)
    rows = np.asarray(values, float).tolist()
    return Literal(tuple(tuple(x if np.isfinite(x) else str(x) for x in row) for row in rows), dtype)


def integers(name: str, shape: tuple[int, ...], low: int, high: int) -> NDArray[Any]:
    """Return random integers."""
    return Integers(shape, f"k_nearest/{name}", low, high).draw()


def lattice(
    name: str, about: str, shape: tuple[int, int, int], k: int, span: int, *, unit: float = 1.0, offset: int = 0
) -> Case:
    """Return a case of n points and q queries of d dimensions, random ones of a lattice: many distances are equal."""
    n, q, d = shape
    points = integers(f"{name}/points", (n, d), -span, span + 1) + offset
    queries = integers(f"{name}/queries", (q, d), -span, span + 1) + offset
    return case(name, about, points * unit, queries * unit, k)


def hand_made() -> tuple[Case, ...]:
    """Return the cases of integers written out."""
    column, spots = np.arange(301)[::-1, None], integers("thrice/spots", (17, 2), -6, 7)
    own = integers("own-points/points", (41, 3), -9, 10)
    between = np.array([[0.5], [0.25], [0.75], [2], [-1.5], [6], [-0.125], [1.125], [12]])
    same, three = np.full((29, 2), 3.0), integers("three/points", (19, 3), -9, 10)
    return (
        case("between", "a query halfway between two points, and others", np.array([[0], [1]]), between, 2),
        case("line", "both sides of each query tie", np.arange(31)[:, None], np.array([[10], [15], [20.5]]), 6),
        case("last-are-nearest", "the nearest points stand last", column, np.array([[0], [7], [2.5]]), 9),
        case("thrice", "every point three times", np.tile(spots, (3, 1)), spots[:5] + 1, 8),
        case("one-place", "all points in one place", same, np.array([[3, 3], [0, -1]]), 11),
        case("own-points", "the queries are the points", own, own, 4),
        case("all-points", "k = n: the whole order", three, three[:4] - 2, 19),
        case("one-query", "one query, k = 1", three, three[7:8] + 1, 1),
        case("one-point", "one point, k = 1", three[:1], three[2:], 1),
        case("no-queries", "no query", three, three[:0], 3),
    )


def rounded() -> tuple[Case, ...]:
    """Return the cases in which distances are rounded: coordinates of 24 bits."""
    unit, ties = 2.0**-20, "; ties within tolerance pass"
    points, queries = (integers(f"rounded/{name}", (n, 3), -(2**23), 2**23) * unit for name, n in (("p", 83), ("q", 7)))
    own = integers("rounded-own/points", (37, 3), -(2**22), 2**22) * unit
    steps = integers("near-ties/steps", (47, 3), -(2**22), 2**22)
    turned = np.concatenate([steps, -steps[:, [2, 0, 1]], steps[:, [1, 2, 0]] + [[0, 0, 1]]])
    middle = np.array([[3, -1, 2]]) * 2**20
    near = (turned + middle) * unit  # about the middle, in threes: two at one distance, one a unit of 2^-20 farther
    narrow = np.array([[1 + 2.0**-33], [1], [-1 - 2.0**-34], [-1], [3]])
    return (
        case("rounded", "coordinates of 24 bits" + ties, points, queries, 6, exact=False),
        case("rounded-own", "queries are points of 24 bits: at distance 0" + ties, own, own[3:20:4], 5, exact=False),
        case("near-ties", "distances that float32 rounds to one" + ties, near, middle * unit, 35, exact=False),
        case("near-ties-1e-10", "1e-10 apart, exact in float64", narrow, np.zeros((1, 1)), 3, contracts=("float64",)),
    )


def refusal(name: str, refuses: str, points: NDArray[Any], queries: NDArray[Any], k: int) -> Case:
    """Return a case that must be refused."""
    return Case(
        name, {"points": floats(points), "queries": floats(queries)}, {"k": k}, (), refuses=refuses, about=refuses
    )


def refusals() -> tuple[Case, ...]:
    """Return what must be refused."""
    points, queries = integers("refused/points", (5, 3), -9, 10), integers("refused/queries", (2, 3), -9, 10)
    nan = np.where(np.arange(15).reshape(5, 3) == 7, np.nan, points)
    line = {"points": floats(points), "queries": Literal((1.0, 2.0, 3.0), "float32")}
    return (
        refusal("refuses-k-0", "k of 0", points, queries, 0),
        refusal("refuses-negative-k", "a negative k", points, queries, -1),
        refusal("refuses-k-beyond-n", "k above n", points, queries, 6),
        refusal("refuses-no-points", "no points", points[:0], queries, 1),
        refusal("refuses-dimensions", "points and queries of different dimensions", points, queries[:, :1], 2),
        Case("refuses-rank", line, {"k": 2}, (), refuses="queries of rank 1", about="queries of rank 1"),
        refusal("refuses-nan", "a coordinate that is NaN", nan, queries, 2),
        refusal("refuses-infinity", "a query that is infinite", points, queries * np.inf, 2),
    )


CASES = (
    *hand_made(),
    lattice("plane", "a lattice in the plane: every cut goes through ties", (97, 13, 2), 7, 5),
    lattice("space", "a lattice in space", (151, 11, 3), 10, 4),
    lattice("seven-dimensions", "seven coordinates", (61, 9, 7), 5, 3),
    lattice("many", "more points than a block of 1024", (1301, 3, 3), 23, 9),
    lattice(
        "tiny", "in units of 2^-50, about 1e-15: no distance is as large as 1e-12", (53, 5, 3), 6, 7, unit=2.0**-50
    ),
    lattice("far", "about 3 * 2^20 from the origin: |x|^2 + |y|^2 - 2 x.y cancels", (59, 7, 3), 8, 7, offset=3 * 2**20),
    *rounded(),
)

SUITE = Suite("k_nearest", ABOUT, CONTRACTS, (*CASES, *refusals()), outputs=("distances",), packed=True)
