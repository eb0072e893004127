"""The k highest nodes of each row by level, the ties by index. Symbols: M pairs, P rows, n nodes, K selected."""

from typing import Any

from numpy.typing import NDArray

from karat import Case, Checkpoint, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    select_topk_by_level(owners, members, parents, levels=None, *, limit) -> {"indptr": …, "indices": …}
  owners   (M,) int64, in any order: members[i], a node, stands in the row owners[i], of 0 … P - 1
  members  (M,) int64, in any order; a row is a set: a node that stands in it twice counts once
  parents  (P,) int64: a node that is in its row whether it is among the members or not; -1: none
  levels   (n,) int64, of any sign: levels[node]; not given: all nodes are of one level
  limit    the most nodes of a row; 0 or less: no limit
Order of the nodes of a row: level descending, then index ascending. A row longer than `limit` keeps the first `limit`
of that order; if its parent is not among them, the parent takes the place of the last of them.
indptr   (P + 1,) integers: row p is indices[indptr[p] : indptr[p + 1]]; indptr[0] is 0
indices  (K,) integers: the nodes that each row keeps, in that order
Must be refused: owners and members of different lengths, an owner outside 0 … P - 1, a member or parent that has no
level, a negative member.
Why: of several nodes of the level at which a row is cut, the smaller indices stay: selecting by level alone
(argpartition) keeps whichever of them the hardware moved there. The parent stays because a row is forced to have it for
a reason; to append it and cut again, as covertreex does, drops it again.
"""

CONTRACTS = ("float32",)


def kept(owners: NDArray[Any], members: NDArray[Any], parents: tuple[int, ...], limit: int) -> int:
    """Return how many nodes all rows keep."""
    rows = [set(members[owners == p].tolist()) | ({parent} - {-1}) for p, parent in enumerate(parents)]
    return sum(min(len(row), limit) if limit > 0 else len(row) for row in rows)


def case(
    name: str,
    about: str,
    pairs: tuple[Recipe, Recipe],
    parents: tuple[int, ...],
    levels: Recipe | None,
    limit: int,
) -> Case:
    """Return the case of owners and members `pairs`."""
    owners, members = pairs
    inputs = {"owners": owners, "members": members, "parents": Literal(parents)}
    K = kept(owners.draw(), members.draw(), parents, limit)
    return Case(
        name,
        inputs if levels is None else inputs | {"levels": levels},
        {"limit": limit},
        (
            Checkpoint("indptr", (len(parents) + 1,), ("boundary",), dtype="integer"),
            Checkpoint("indices", (K,), ("position",), dtype="integer"),
        ),
        about=about,
    )


def row(*nodes: int) -> tuple[Literal, Literal]:
    """Return owners and members of one row."""
    return Literal((0,) * len(nodes)), Literal(nodes)


def random(name: str, M: int, P: int, n: int, *, in_order: bool = False) -> tuple[Literal, Literal]:
    """Return owners and members of at most M pairs, each once and in no order; the last two rows have no members.

    With `in_order`, the owners are in theirs, and some pairs are given twice.
    """
    key = f"select_topk_by_level/{name}"
    owners, members = Integers((M,), f"{key}/owners", 0, P - 2).draw(), Integers((M,), f"{key}/members", 0, n).draw()
    pairs = zip(sorted(owners.tolist()) if in_order else owners.tolist(), members.tolist(), strict=True)
    kept_owners, kept_members = zip(*(pairs if in_order else dict.fromkeys(pairs)), strict=True)
    return Literal(kept_owners), Literal(kept_members)


def levels(name: str, n: int, low: int, high: int) -> Integers:
    """Return n levels uniform in [low, high)."""
    return Integers((n,), f"select_topk_by_level/{name}/levels", low, high)


def chosen(name: str, P: int, n: int) -> tuple[int, ...]:
    """Return a parent for each of P rows: every third row has none, and the last but one."""
    drawn = Integers((P,), f"select_topk_by_level/{name}/parents", 0, n).draw().tolist()
    return tuple(-1 if p == P - 2 or (p % 3 == 2 and p < P - 1) else node for p, node in enumerate(drawn))


def at_nodes(**level_of: int) -> Literal:
    """Return levels by node, `node_7=3`, all others being 0."""
    known = {int(name.removeprefix("node_")): level for name, level in level_of.items()}
    return Literal(tuple(known.get(node, 0) for node in range(max(known) + 1)))


def refusal(name: str, refuses: str, pairs: tuple[Recipe, Recipe], parents: tuple[int, ...] = (1, 0)) -> Case:
    """Return a case that must be refused, of two rows and five nodes."""
    inputs = {"owners": pairs[0], "members": pairs[1], "parents": Literal(parents), "levels": Literal((2, 0, 1, 0, 2))}
    return Case(name, inputs, {"limit": 2}, (), refuses=refuses, about=refuses)


def published() -> tuple[Case, ...]:
    """Return the examples that covertreex documents and tests; a parent that is kept anyway changes nothing."""
    of_10 = at_nodes(node_10=1, node_2=3, node_5=2, node_4=3, node_7=3)
    two_rows, of_two = (Literal((0, 0, 0, 1, 1)), Literal((3, 5, 4, 2, 0))), Literal((0, 4, 6, 7, 1, 3))
    of_79 = at_nodes(node_44=2, node_79=0)
    return (
        case("cut-in-level", "three nodes of the highest level, two places", row(10, 2, 5, 4, 7), (2,), of_10, 2),
        case("no-limit", "limit 0: the whole row, in order", row(5, 1, 9), (9,), at_nodes(node_9=2), 0),
        case("two-rows", "compressed rows with parents", two_rows, (5, 0), of_two, 2),
        case("no-levels", "without levels: the smallest indices", row(5, 4, 3), (3,), None, 2),
        case("order-of-three", "as many nodes as places", row(2, 4, 3), (4,), Literal((0, 0, 5, 3, 7)), 3),
        case("argpartition", "the least example that argpartition gets wrong", row(79, 44, 31), (44,), of_79, 2),
    )


def drawn(name: str, about: str, M: int, P: int, n: int, low: int, high: int, limit: int) -> Case:
    """Return a case of random pairs, levels in [low, high) and parents; no limit below M leaves no pair given twice."""
    pairs = random(name, M, P, n, in_order=not 0 < limit < M // P)
    return case(name, about, pairs, chosen(name, P, n), levels(name, n, low, high), limit)


def hand_made() -> tuple[Case, ...]:
    """Return the cases written out: rows of nothing, parents that are last, absent or alone, nodes given twice."""
    nothing, three = (Literal(()), Literal(())), Literal((1, 0, 2))
    gaps = (Literal((5, 1, 5, 1, 5)), Literal((0, 2, 4, 3, 1)))
    low = (Literal((0,) * 5 + (1,) * 4), Literal((6, 2, 0, 5, 3, 1, 4, 6, 2)))
    absent = (Literal((0, 0, 0, 1, 1, 1, 2, 2, 2)), Literal((5, 1, 4, 5, 1, 4, 5, 2, 4)))
    twice = (Literal((0, 0, 0, 0, 1, 1, 1)), Literal((4, 2, 4, 1, 3, 3, 3)))
    absent_about = "the parent is no member: of the highest level, of the lowest, of the level of the cut, alone"
    return (
        case("parents-alone", "no pair: rows of a parent, and of nothing", nothing, (2, -1, 0), three, 2),
        case("no-rows", "no row", nothing, (), three, 2),
        case("empty-rows", "rows of nothing between others", gaps, (-1,) * 7, levels("empty-rows", 5, 0, 2), 2),
        case("low-parents", "the parent is the last of its row", low, (0, 1), Literal((-9, -8, 1, 1, 1, 1, 1)), 3),
        case("absent-parents", absent_about, absent, (3, 0, 1, 2), Literal((-1, 1, 1, 2, 1, 1)), 2),
        case("twice", "nodes given twice count once", twice, (2, -1), Literal((0, 1, 1, 0, 1)), 3),
    )


def wide_levels() -> Case:
    """Return a case of levels apart by 2^33 and ties among the lowest: a key of level and index needs 66 bits."""
    spread = Integers((31,), "select_topk_by_level/wide-levels/levels", -(2**31), 2**31).draw().tolist()
    ties = Literal(tuple(5 - 2**33 if node % 3 else level for node, level in enumerate(spread)))
    about = "levels apart by 2^33, and ties: a key of level and index needs 66 bits"
    return case("wide-levels", about, random("wide-levels", 149, 7, 31), (-1,) * 7, ties, 9)


def cases() -> tuple[Case, ...]:
    """Return the cases."""
    one_level = random("one-level", 83, 5, 37), chosen("one-level", 5, 37), Literal((-3,) * 37)
    return (
        *published(),
        drawn("few-levels", "three levels: every cut goes through ties", 419, 13, 67, -1, 2, 7),
        drawn("many-levels", "hardly a tie", 211, 8, 89, -40, 40, 11),
        case("one-level", "levels are given and all are one", *one_level, 5),
        drawn("limit-1", "one place: it is the parent's", 101, 10, 29, 0, 3, 1),
        drawn("limit-beyond", "a limit that no row reaches", 127, 7, 53, 0, 4, 60),
        drawn("negative-limit", "limit -1: no limit", 71, 5, 41, 0, 4, -1),
        *hand_made(),
        wide_levels(),
        drawn("large-indices", "indices past 65535", 41, 5, 70001, -1, 2, 6),
        refusal("refuses-lengths", "owners and members of different lengths", (Literal((0, 1)), Literal((2, 3, 4)))),
        refusal("refuses-owner", "an owner that has no row", (Literal((0, 2)), Literal((2, 3)))),
        refusal("refuses-member", "a member that has no level", (Literal((0, 1)), Literal((2, 5)))),
        refusal("refuses-negative", "a negative member", (Literal((0, 1)), Literal((2, -1)))),
        refusal("refuses-parent", "a parent that has no level", (Literal((0, 1)), Literal((2, 3))), (1, 5)),
    )


SUITE = Suite("select_topk_by_level", ABOUT, CONTRACTS, cases(), packed=True)
