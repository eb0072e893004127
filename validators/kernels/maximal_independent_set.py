"""A maximal independent set of a graph, by index or by Luby's rounds. Symbols: n nodes, E directed edges."""

from collections.abc import Iterable

from karat import Case, Checkpoint, Integers, Literal, Suite

ABOUT = """\
A py: candidate is a function
    maximal_independent_set(indptr, indices, *, seed)
        -> {"priorities": …, "selected_in": …, "selected": …, "rounds": …}
  indptr   (n + 1,) int64 and
  indices  (E,) int64: the neighbours of node i are indices[indptr[i] : indptr[i + 1]], ascending; each edge stands at
           both its ends, none at one node twice
  seed     0 … 2^32 - 1
If no node has more than 8 neighbours: from node 0 to the last, a node is selected if no neighbour is: one round, r = 0.
Else rounds r = 0, 1, … until every node is decided. In round r an undecided node has the priority
    x = node ^ seed ^ (r * 0x9E3779B9);  x ^= x << 13;  x ^= x >> 17;  x ^= x << 5      all modulo 2^32, unsigned,
a bijection, so that no two priorities are equal. A node whose priority is above those of all its undecided neighbours
is selected; then it and its neighbours are decided. All of a round is decided by the state before it.
priorities   (2, n) integers: x of rounds 0 and 1, decided or not; only where a node has more than 8 neighbours
selected_in  (n,) integers: r + 1 for a node that is selected in round r, 0 for one that is not selected
selected     (n,) integers: 1 for the nodes of the set, else 0
rounds       (1,) integer: the number of rounds; 0 if there is no node
A candidate that does not keep the rounds says so: UNSUPPORTED = ["selected_in"].
Must be refused: boundaries that do not begin at 0, decrease, or do not end at E; neighbours that are no nodes; an edge
from a node to itself or without its other direction; a seed outside 0 … 2^32 - 1.
Why integers: they order as (x + 1) / 2^32 in float64 does, which covertreex compares, and cannot be rounded to a tie.
"""

CONTRACTS = ("float32",)
Edges = Iterable[tuple[int, int]]
GREEDY = 8


def rows(n: int, edges: Edges) -> list[list[int]]:
    """Return the neighbours of each node, ascending."""
    neighbours: list[set[int]] = [set() for _ in range(n)]
    for i, j in edges:
        if i != j:
            neighbours[i].add(j)
            neighbours[j].add(i)
    return [sorted(row) for row in neighbours]


def compressed(found: list[list[int]]) -> dict[str, Literal]:
    """Return boundaries and indices."""
    boundaries = [0]
    for row in found:
        boundaries.append(boundaries[-1] + len(row))
    return {"indptr": Literal(tuple(boundaries)), "indices": Literal(tuple(j for row in found for j in row))}


def case(name: str, about: str, n: int, edges: Edges, seed: int = 0) -> Case:
    """Return the case of a graph."""
    found = rows(n, edges)
    selected = (
        Checkpoint("selected_in", (n,), ("node",), dtype="integer"),
        Checkpoint("selected", (n,), ("node",), dtype="integer"),
        Checkpoint("rounds", (1,), ("one",), dtype="integer"),
    )
    priorities = (Checkpoint("priorities", (2, n), ("round", "node"), dtype="integer"),)
    by_rounds = max(map(len, found), default=0) > GREEDY
    return Case(
        name,
        compressed(found),
        {"seed": seed},
        (priorities if by_rounds else ()) + selected,
        about=about,
    )


def drawn(name: str, n: int, edges: int) -> list[tuple[int, int]]:
    """Return random pairs of nodes."""
    pairs = Integers((edges, 2), f"maximal_independent_set/{name}", 0, n).draw().tolist()
    return [(i, j) for i, j in pairs]


def sparse(name: str, n: int, edges: int, most: int) -> list[tuple[int, int]]:
    """Return those random pairs that leave no node with more than `most` neighbours."""
    kept: list[tuple[int, int]] = []
    degrees = [0] * n
    for i, j in dict.fromkeys((min(pair), max(pair)) for pair in drawn(name, n, edges)):
        if i != j and max(degrees[i], degrees[j]) < most:
            kept.append((i, j))
            degrees[i] += 1
            degrees[j] += 1
    return kept


def complete(nodes: Iterable[int]) -> list[tuple[int, int]]:
    """Return an edge between any two."""
    listed = list(nodes)
    return [(i, j) for i in listed for j in listed if i < j]


def star(centre: int, leaves: Iterable[int]) -> list[tuple[int, int]]:
    """Return an edge from a centre to each leaf."""
    return [(centre, leaf) for leaf in leaves]


def refusal(name: str, refuses: str, indptr: tuple[int, ...], indices: tuple[int, ...], seed: int = 1) -> Case:
    """Return a case that must be refused."""
    inputs = {"indptr": Literal(indptr), "indices": Literal(indices)}
    return Case(name, inputs, {"seed": seed}, (), refuses=refuses, about=refuses)


def by_index() -> tuple[Case, ...]:
    """Return the graphs of at most 8 neighbours."""
    return (
        case("path", "a path", 7, ((i, i + 1) for i in range(6)), 5),
        case("sparse", "at most 5 neighbours", 97, sparse("sparse", 97, 300, 5), 7),
        case("eight-neighbours", "8 neighbours at most: by index", 83, sparse("eight", 83, 900, 8), 9),
        case("no-edges", "nodes alone", 11, (), 3),
        case("one-node", "one node", 1, ()),
        case("no-nodes", "no node: no round", 0, ()),
    )


def by_rounds() -> tuple[Case, ...]:
    """Return the graphs of more than 8 neighbours."""
    tree = [*star(0, range(1, 10)), *((i, i + 1) for i in range(10, 29))]
    sides = [(i, j) for i in range(9) for j in range(9, 22)]
    rounds = [*star(0, range(1, 11)), *((i, i + 1) for i in range(11, 180))]
    return (
        case("nine-neighbours", "one node of 9 neighbours: by rounds; a path besides", 31, tree, 12345),
        case("random", "14 neighbours on average", 151, drawn("random", 151, 1057), 42),
        case("marsaglia", "the seed of Marsaglia's example", 67, drawn("marsaglia", 67, 600), 2463534242),
        case("dense", "half of all edges", 47, drawn("dense", 47, 740), 2**32 - 1),
        case("complete", "any two are neighbours: the highest priority alone", 13, complete(range(13)), 99),
        case("bipartite", "two sides, every edge between them", 22, sides, 2**31),
        case("long-path", "a star, and a path of many rounds", 181, rounds, 6),
        case(
            "alone-and-star",
            "73 neighbours of a node that is selected, nodes alone between",
            149,
            star(13, range(0, 145, 2)),
            245,
        ),
    )


def refusals() -> tuple[Case, ...]:
    """Return what must be refused."""
    return (
        refusal("refuses-begin", "boundaries that do not begin at 0", (1, 2, 3), (1, 1, 0)),
        refusal("refuses-decrease", "boundaries that decrease", (0, 2, 1, 2), (1, 0)),
        refusal("refuses-end", "boundaries that do not end at E", (0, 1, 2), (1, 0, 1)),
        refusal("refuses-neighbour", "a neighbour that is no node", (0, 1, 2), (1, 2)),
        refusal("refuses-negative", "a negative neighbour", (0, 1, 2), (1, -2)),
        refusal("refuses-loop", "an edge from a node to itself", (0, 2, 3), (0, 1, 0)),
        refusal("refuses-one-way", "an edge without its other direction", (0, 1, 1, 1), (1,)),
        refusal("refuses-seed", "a seed of more than 32 bits", (0, 1, 2), (1, 0), 2**32),
        refusal("refuses-negative-seed", "a negative seed", (0, 1, 2), (1, 0), -1),
    )


SUITE = Suite("maximal_independent_set", ABOUT, CONTRACTS, (*by_index(), *by_rounds(), *refusals()), packed=True)
