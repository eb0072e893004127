"""The k nearest predecessors of each point, as Vecchia's approximation wants them. Symbols: n points, d dimensions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    predecessor_neighbours(points, node_to_dataset, *, k) -> {"indices": …, "distances": …}
  points           (n, d), in storage, in the order of the nodes of a tree
  node_to_dataset  (n,) int64, a permutation of 0 … n - 1: node a is the point of the dataset with the index
                   node_to_dataset[a]
  k                1 … n
Row i is of the point with the dataset index i, and so are all indices: nodes do not show outside.
indices    (n, k) integers: the min(k, i) points nearest to point i among those of smaller index, j < i, by Euclidean
           distance ascending, of points at the same distance the smaller indices first; then -1
distances  (n, k), in storage: theirs; then +inf
Row 0 has no neighbour. A point of smaller index in the same place is one, at distance 0.
Must be refused: k below 1 or above n, no points, node_to_dataset of another length than points or no permutation,
points of another rank than 2, coordinates that are not finite.
Coordinates are integers times a power of two, so that squares and their sums are exact in float32: what is equal is
found equal by every form that subtracts coordinates, and indices are judged by the rule alone.
Why padded: each row has the same length, and a kernel needs no second pass; 0 for padding would be a neighbour.
"""

CONTRACTS = ("float64", "float32")


def case(name: str, about: str, points: NDArray[Any], k: int, nodes: NDArray[Any] | None = None) -> Case:
    """Return the case of points in the order of the dataset, given in that of `nodes`, their dataset indices."""
    n = len(points)
    nodes = np.arange(n) if nodes is None else nodes
    return Case(
        name,
        {"points": floats(points[nodes]), "node_to_dataset": Literal(tuple(nodes.tolist()))},
        {"k": k},
        (
            Checkpoint("indices", (n, k), ("point", "rank"), dtype="integer"),
            Checkpoint("distances", (n, k), ("point", "rank"), nonfinite=True),
        ),
        about=about,
    )


def floats(values: NDArray[Any]) -> Recipe:
    """Return the recipe of floats written out; NaN is a word, as JSON has no number for it."""
    if not len(values):
        return Integers(values.shape, "predecessor_neighbours/nothing", 0, 1, "float32")
    rows = np.asarray(values, float).tolist()
    return Literal(tuple(tuple(x if np.isfinite(x) else str(x) for x in row) for row in rows), "float32")


def drawn(name: str, n: int, d: int, span: int) -> NDArray[Any]:
    """Return random points of a lattice, (n, d)."""
    return Integers((n, d), f"predecessor_neighbours/{name}/points", -span, span + 1).draw()


def shuffled(name: str, n: int) -> NDArray[Any]:
    """Return a permutation of 0 … n - 1: random words in their order."""
    words = Integers((n,), f"predecessor_neighbours/{name}/nodes", 0, 1 << 32).draw()
    return np.argsort(words, kind="stable")


def random(name: str, about: str, n: int, d: int, k: int, span: int) -> Case:
    """Return a case of a random lattice in a random order of nodes."""
    return case(name, about, drawn(name, n, d, span), k, shuffled(name, n))


def cases() -> tuple[Case, ...]:
    """Return the cases."""
    line, clusters = np.arange(31)[:, None], drawn("clusters", 60, 2, 4) + 1000 * (np.arange(60) % 4)[:, None]
    tiny, far = drawn("tiny", 37, 3, 7) * 2.0**-50, drawn("far", 47, 3, 5) + 3 * 2**20
    return (
        case("natural-order", "nodes in the order of the dataset", drawn("natural-order", 50, 2, 9), 5),
        case("reversed-order", "nodes in the reverse order", drawn("reversed-order", 20, 2, 6), 8, np.arange(20)[::-1]),
        random("plane", "a lattice in the plane: every cut goes through ties", 53, 2, 7, 4),
        random("space", "a lattice in space", 79, 3, 8, 4),
        random("seven-dimensions", "seven coordinates", 41, 7, 5, 3),
        random("many", "more points than blocks of 64 and 128", 137, 3, 6, 20),
        case("line", "both sides tie, one of them later", line[::-1] // 2 + line % 2, 6, shuffled("line", 31)),
        case("clusters", "four clusters far apart, as below several roots", clusters, 8, shuffled("clusters", 60)),
        case("one-place", "all points in one place", np.full((23, 2), 5), 4, shuffled("one-place", 23)),
        case("all-predecessors", "k = n: every predecessor, in order", drawn("all", 13, 3, 5), 13, shuffled("all", 13)),
        case("one-neighbour", "k = 1", drawn("one-neighbour", 29, 2, 5), 1, shuffled("one-neighbour", 29)),
        case("one-point", "one point: no neighbour", drawn("one-point", 1, 3, 5), 1),
        case("tiny", "in units of 2^-50, about 1e-15", tiny, 6, shuffled("tiny", 37)),
        case("far", "about 3 * 2^20 from the origin: |x|^2 + |y|^2 - 2 x.y cancels", far, 6, shuffled("far", 47)),
        *refusals(),
    )  # fmt: skip


def refusal(
    name: str, refuses: str, *, k: int = 2, points: NDArray[Any] | None = None, nodes: tuple[int, ...] = (2, 0, 3, 1)
) -> Case:
    """Return a case that must be refused: of four points but for what is given."""
    recipe = floats(drawn("refused", 4, 2, 5) if points is None else points)
    inputs = {"points": recipe, "node_to_dataset": Literal(nodes)}
    return Case(name, inputs, {"k": k}, (), refuses=refuses, about=refuses)


def refusals() -> tuple[Case, ...]:
    """Return what must be refused."""
    points = drawn("refused", 4, 2, 5)
    flat = {"points": Literal((1.0, 2.0, 4.0, 8.0), "float32"), "node_to_dataset": Literal((2, 0, 3, 1))}
    return (
        refusal("refuses-k-0", "k of 0", k=0),
        refusal("refuses-k-beyond-n", "k above n", k=5),
        refusal("refuses-no-points", "no points", k=1, points=points[:0], nodes=()),
        refusal("refuses-length", "node_to_dataset of another length than points", nodes=(2, 0, 1)),
        refusal("refuses-twice", "a dataset index that stands twice", nodes=(2, 0, 2, 1)),
        refusal("refuses-outside", "a dataset index of n", nodes=(2, 0, 4, 1)),
        Case("refuses-rank", flat, {"k": 2}, (), refuses="points of rank 1", about="points of rank 1"),
        refusal("refuses-nan", "a coordinate that is NaN", points=np.where(points == points[2, 1], np.nan, points)),
    )


SUITE = Suite("predecessor_neighbours", ABOUT, CONTRACTS, cases(), outputs=("distances",), packed=True)
