"""The conflict graph of points that are inserted at once. Symbols: m points, d dimensions, S scope nodes, E edges."""

from typing import Any

import numpy as np

from karat import Case, Checkpoint, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    conflict_graph(points, levels, separations, scope_indptr, scope_nodes)
        -> {"radii": …, "indptr": …, "indices": …}
  points        (m, d), in storage
  levels        (m,) int64, of any sign: the level at which each point is inserted
  separations   (m,), in storage, 0 or more: the separation of each point's parent
  scope_indptr  (m + 1,) int64 and
  scope_nodes   (S,) int64: the nodes in the scope of point i are scope_nodes[scope_indptr[i] : scope_indptr[i + 1]], of
                any size, in no order, none twice
radii    (m,), in storage: max(2^(level + 1), separation)
Points i and j, not the same, conflict if they share a scope node and their Euclidean distance is at most the smaller of
their radii: <=, without slack.
indptr   (m + 1,) integers: the neighbours of point i are indices[indptr[i] : indptr[i + 1]]; indptr[0] is 0
indices  (E,) integers, ascending in each row; each edge stands at both its ends, once however many nodes are shared
Coordinates and radii are multiples of one power of two, so that their squares and sums are exact in float64, and
differences of coordinates, their squares and sums exact in float32 too: a distance equal to a radius is found equal by
every form that subtracts coordinates. |x|^2 + |y|^2 - 2 x.y is not such a form in float32.
Must be refused: points, levels, separations or scopes of different numbers; boundaries of scopes that do not begin at
0, decrease, or do not end at S; coordinates that are not finite; a negative separation.
Why no slack: covertreex adds 1e-9 to the radius of residual distances, which lie in [0, 1]; here it would depend on the
unit of length.
"""

CONTRACTS = ("float64", "float32")


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples, and what is not finite into words."""
    if isinstance(values, list):
        return tuple(map(nested, values))
    return values if np.isfinite(values) else str(values)


def floats(values: Any) -> Literal:
    """Return the recipe of floats written out; NaN and infinities are words, as JSON has no numbers for them."""
    return Literal(nested(np.asarray(values, float).tolist()), "float32")


def edges(points: Recipe, levels: Recipe, separations: Recipe, scopes: list[list[int]]) -> int:
    """Return how many edges there are, each counted at both its ends: the length of `indices`."""
    x = points.draw().astype(float)
    radius = np.maximum(np.ldexp(1.0, levels.draw() + 1), separations.draw())
    near = np.square(x[:, None] - x).sum(-1) <= np.square(np.minimum(radius[:, None], radius))
    sets = [set(scope) for scope in scopes]
    joined = (near[i, j] and not sets[i].isdisjoint(sets[j]) for i in range(len(x)) for j in range(len(x)) if i != j)
    return int(sum(joined))


def scope_inputs(scopes: list[list[int]]) -> dict[str, Recipe]:
    """Return scopes as compressed rows."""
    bounds = np.cumsum([0, *map(len, scopes)]).tolist()
    return {
        "scope_indptr": Literal(tuple(bounds)),
        "scope_nodes": Literal(tuple(node for scope in scopes for node in scope)),
    }


def case(name: str, about: str, points: Recipe, levels: Recipe, separations: Recipe, scopes: list[list[int]]) -> Case:
    """Return one case."""
    m = points.shape[0]
    E = edges(points, levels, separations, scopes)
    return Case(
        name,
        {"points": points, "levels": levels, "separations": separations} | scope_inputs(scopes),
        {},
        (
            Checkpoint("radii", (m,), ("point",)),
            Checkpoint("indptr", (m + 1,), ("boundary",), dtype="integer"),
            Checkpoint("indices", (E,), ("edge",), dtype="integer"),
        ),
        about=about,
    )


def integers(name: str, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Return random integers."""
    return Integers(shape, f"conflict_graph/{name}", low, high).draw()


def random_scopes(name: str, m: int, nodes: int, most: int) -> list[list[int]]:
    """Return m scopes of 0 to `most` of so many nodes, in no order."""
    sizes = integers(f"{name}/sizes", (m,), 0, most + 1).tolist()
    drawn = integers(f"{name}/scopes", (m, most), 0, nodes).tolist()
    return [list(dict.fromkeys(row[:size])) for row, size in zip(drawn, sizes, strict=True)]


def lattice(
    name: str, about: str, shape: tuple[int, int], span: int, *, unit: int = 0, offset: int = 0, most: int = 4
) -> Case:
    """Return a case of random points of a lattice of 2^unit: in integers of so many units, many distances are radii."""
    m = shape[0]
    points = np.ldexp(integers(f"{name}/points", shape, -span, span + 1) + offset, unit)
    levels = integers(f"{name}/levels", (m,), -1, 3) + unit
    separations = np.ldexp(integers(f"{name}/separations", (m,), 0, 2 * span), unit)
    scopes = random_scopes(name, m, 2 * most + 1, most)
    return case(name, about, floats(points), Literal(tuple(levels.tolist())), floats(separations), scopes)


def hand_made() -> tuple[Case, ...]:
    """Return the cases written out."""
    line = floats([[0], [1], [3], [7], [15], [23]]), Literal((0, 1, 1, 2, 2, 3)), floats([0, 5, 0, 9, 8, 1])
    on_radius = floats([[0, 0], [3, 4], [-4, 3], [0, 5], [6, 8], [5, 12], [-8, 6]])
    thirteen = floats([5, 5, 5, 4, 10, 13, 10])
    same_place = floats([[1, 2], [1, 2], [1, 2], [1, 3]]), Literal((-41,) * 4), floats([0] * 4)
    no_points = Integers((0, 3), "conflict_graph/no-points", 0, 1, "float32"), Literal(()), Literal((), "float32")
    shared = [[9, 7, 8], [7, 8, 1], [8, 9], [9, 7], [7, 5, 9], [5, 1]]
    large = [[2**40 + 3, 3], [2**41 + 3, 5], [2**40 + 3], [3 - 2**32, 5], [2**32 + 5], [5, 2**41 + 3]]
    wide = [list(range(70 * i, 70 * i + 70)) for i in range(6)]
    for i, j in ((0, 1), (2, 1), (4, 3), (5, 3)):
        wide[i][-1] = wide[j][-1]  # what is shared stands last
    return (
        case("line", "distances of 1 to 23 and radii of 2 to 16", *line, [[4, 2]] * 6),
        case("on-the-radius", "distances of 5, 10, 13", on_radius, Literal((0,) * 7), thirteen, [[1]] * 7),
        case("twice-shared", "scopes that share two or three nodes", *line, shared),
        case("nothing-shared", "every scope a node of its own", *line, [[i] for i in range(6)]),
        case("no-scopes", "empty scopes", *line, [[]] * 6),
        case("long-scopes", "scopes of 70 nodes, the last of which is shared", *line, wide),
        case("large-nodes", "nodes that 32 bits cannot tell apart", *line, large),
        case("same-place", "three points in one place, and radii of 2^-40 about them", *same_place, [[0]] * 4),
        case("one-point", "one point: no edge", floats([[1, 2, 3]]), Literal((0,)), floats([1]), [[0, 1]]),
        case("no-points", "no point", *no_points, []),
    )


def refusal(name: str, refuses: str, **changed: Recipe) -> Case:
    """Return a case that must be refused: of two points but for what is changed."""
    inputs = {
        "points": floats([[0, 0], [1, 0]]),
        "levels": Literal((0, 0)),
        "separations": floats([1, 1]),
    } | scope_inputs([[1], [1]])
    return Case(name, inputs | changed, {}, (), refuses=refuses, about=refuses)


def refusals() -> tuple[Case, ...]:
    """Return what must be refused."""
    return (
        refusal("refuses-levels", "levels of another number than points", levels=Literal((0, 0, 0))),
        refusal("refuses-separations", "separations of another number than points", separations=floats([1])),
        refusal("refuses-scopes", "scopes of another number than points", scope_indptr=Literal((0, 1, 2, 2))),
        refusal("refuses-begin", "boundaries that do not begin at 0", scope_indptr=Literal((1, 1, 2))),
        refusal("refuses-decrease", "boundaries that decrease", scope_indptr=Literal((0, 3, 2))),
        refusal("refuses-end", "boundaries that do not end at S", scope_indptr=Literal((0, 1, 1))),
        refusal("refuses-nan", "a coordinate that is NaN", points=floats([[0, np.nan], [1, 0]])),
        refusal("refuses-infinity", "a coordinate that is infinite", points=floats([[0, 0], [np.inf, 0]])),
        refusal("refuses-negative", "a negative separation", separations=floats([1, -1])),
    )


CASES = (
    *hand_made(),
    lattice("plane", "a lattice in the plane: many distances are radii", (61, 2), 8),
    lattice("space", "a lattice in space, points in one place", (73, 3), 4),
    lattice("seven-dimensions", "seven coordinates", (47, 7), 3),
    lattice("tiles", "more points than a block of 64 or 128", (137, 2), 14, most=6),
    lattice("tiny", "in units of 2^-31, about 5e-10: nothing may be added to a radius", (53, 3), 5, unit=-31),
    lattice("huge", "in units of 2^50", (43, 2), 5, unit=50),
    lattice("far", "about 3 * 2^20 from the origin: |x|^2 + |y|^2 - 2 x.y cancels", (59, 3), 5, offset=3 * 2**20),
)

SUITE = Suite("conflict_graph", ABOUT, CONTRACTS, (*CASES, *refusals()), packed=True)
