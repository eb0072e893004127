"""Mistakes that people make when they keep the highest nodes of a row, planted in the plain candidate. NumPy only.

R5 and the rest of section B4 of what is known of covertreex are marked.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
INDPTR, INDICES, REFUSED = ("indptr",), ("indices",), ("refused",)

accepts = beside(__file__, "_refusals").accepts


def order(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the order of a row: `formula(nodes, levels)`, the nodes as they came."""
    return wrap(in_order=lambda _: formula)


def cut(formula: Callable[[Array, int, int], Array]) -> Callable[[Any], None]:
    """Return a change to the cut: `formula(nodes, parent, limit)` of ordered nodes."""
    return wrap(kept=lambda _: formula)


def limited(formula: Callable[[int], int]) -> Callable[[Any], None]:
    """Return a change to the limit."""
    return wrap(kept=lambda right: lambda nodes, parent, limit: right(nodes, parent, formula(limit)))


def selected(ties: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the selection: the cut takes the nodes in the order `ties`, what is kept is in the right one.

    The parent is kept as it should be.
    """

    def change(plain: Any) -> None:
        in_order, kept, levels_of = plain.in_order, plain.kept, plain.levels_of
        known: dict[str, Any] = {}

        def noted(nodes: Array, levels: Array) -> Array:
            known["levels"] = levels
            return levels_of(nodes, levels)

        def reordered(nodes: Array, parent: int, limit: int) -> Array:
            first = kept(nodes, parent, limit)
            return in_order(first, levels_of(first, known["levels"]))

        plain.levels_of, plain.in_order, plain.kept = noted, ties, reordered

    return change


def by_key(key: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the order: one key a node, `key(nodes, depth)`, depth being the highest level less the node's."""
    return order(lambda nodes, levels: nodes[np.argsort(key(nodes, levels.max(initial=0) - levels), kind="stable")])


def first_place(nodes: Array, parent: int, limit: int) -> Array:
    """Put the parent first, as a forced node is pushed before the others."""
    others = nodes[nodes != parent]
    whole = np.append([parent][: int(parent in nodes)], others).astype(np.int64)
    return whole[:limit] if limit > 0 else whole


def beyond(right: Callable[[Array, int, int], Array]) -> Callable[[Array, int, int], Array]:
    """Append the parent after the cut, one more than the limit."""

    def kept(nodes: Array, parent: int, limit: int) -> Array:
        first = right(nodes, -2, limit)
        return np.append(first, parent) if parent in nodes and parent not in first else first

    return kept


def heap(nodes: Array, parent: int, limit: int) -> Array:
    """Leave what is kept in the order of a heap: the last of each cut row first."""
    first = nodes[:limit] if limit > 0 else nodes
    if parent in nodes and parent not in first:
        first = np.append(first[:-1], parent)
    return np.roll(first, 1) if 0 < limit < len(nodes) else first


def sorted_owners(right: Callable[[Array, Array, int], Array]) -> Callable[[Array, Array, int], Array]:
    """Take a row from the first to the last of its owner, as if owners were sorted."""

    def members_of(owners: Array, members: Array, p: int) -> Array:
        counts = np.bincount(owners, minlength=p + 1)
        start = counts[:p].sum()
        return right(np.zeros(counts[p], np.int64), members[start : start + counts[p]], 0)

    return members_of


def accepting(part: str) -> Callable[[Any], None]:
    """Return a change that answers what the right candidate refuses with a text that has `part` in it."""

    def change(plain: Any) -> None:
        accepts(part, check="check")(plain)
        whole = plain.select_topk_by_level

        def lenient(owners: Array, members: Array, *others: Array, **named: Any) -> Any:
            M = min(len(owners), len(members)) if part == "length" else None
            return whole(owners[:M], members[:M], *others, **named)

        plain.select_topk_by_level = lenient
        plain.levels_of = lambda nodes, levels: nodes * 0 if levels is None else np.take(levels, nodes, mode="wrap")

    return change


FAULTS = (
    # --- which of a level stay
    Fault("argpartition_on_level", INDICES, "the cut looks at levels alone: of one level, whichever came first stays",  # R5
          selected(lambda nodes, levels: nodes[np.argsort(-levels, kind="stable")])),
    Fault("ties_to_the_last", INDICES, "the cut looks at levels alone: of one level, whichever came last stays",  # R5
          selected(lambda nodes, levels: nodes[::-1][np.argsort(-levels[::-1], kind="stable")])),
    Fault("ties_to_larger_index", INDICES, "of one level, larger indices first", order(lambda nodes, levels: nodes[np.lexsort((-nodes, -levels))])),
    Fault("ties_in_order_of_arrival", INDICES, "of one level, in the order in which they came", order(lambda nodes, levels: nodes[np.argsort(-levels, kind="stable")])),
    # --- order
    Fault("levels_ascending", INDICES, "the lowest levels first", order(lambda nodes, levels: nodes[np.lexsort((nodes, levels))])),
    Fault("index_before_level", INDICES, "ordered by index, then by level", order(lambda nodes, levels: np.sort(nodes))),
    Fault("levels_by_magnitude", INDICES, "ordered by |level|", order(lambda nodes, levels: nodes[np.lexsort((nodes, -np.abs(levels)))])),
    Fault("kept_sorted_by_index", INDICES, "what is kept is sorted by index", wrap(kept=lambda right: lambda *row: np.sort(right(*row)))),
    Fault("kept_as_heap", INDICES, "what is kept is left in the order of a heap, the last first", cut(heap)),
    Fault("levels_by_place", INDICES, "the level of the place in the row instead of the node's",
          wrap(levels_of=lambda right: lambda nodes, levels: right(np.arange(len(nodes)) % len(levels) if levels is not None else nodes, levels))),
    Fault("levels_unsigned", INDICES, "levels compared as unsigned: negative ones are the highest",
          order(lambda nodes, levels: nodes[np.lexsort((nodes, ~levels.view(np.uint64)))])),
    # --- one key of level and index
    Fault("key_of_16_bits", INDICES, "16 bits for the index in the key of level and index", by_key(lambda nodes, depth: (depth << 16) | (nodes & 0xFFFF))),
    Fault("key_of_64_bits", INDICES, "the key of level and index overflows 64 bits", by_key(lambda nodes, depth: (depth << 32) | nodes)),
    Fault("key_in_float64", INDICES, "the key of level and index in float64, whose last bits are lost", by_key(lambda nodes, depth: depth * 2.0**32 + nodes)),
    Fault("key_in_float32", INDICES, "the key of level and index in float32, whose last bits are lost",
          by_key(lambda nodes, depth: depth.astype(np.float32) * np.float32(2**17) + nodes.astype(np.float32))),
    # --- the parent
    Fault("parent_cut_again", INDICES, "the parent is appended and the row cut again, which drops it",  # both builders
          wrap(kept=lambda right: lambda nodes, parent, limit: right(nodes, -2, limit))),
    Fault("parent_first", INDICES, "the parent stands first, before higher levels", cut(first_place)),
    Fault("parent_beyond_limit", INDPTR, "the parent comes on top of the limit", wrap(kept=beyond)),
    Fault("parent_only_if_member", INDPTR, "a parent that is no member is left out",  # as in the NumPy builder
          wrap(with_parent=lambda _: lambda nodes, parent: nodes)),
    Fault("parent_missing_is_a_node", INDPTR, "-1 for no parent is taken for a node", wrap(with_parent=lambda right: lambda nodes, parent: right(nodes, max(parent, 0)))),
    # --- the limit
    Fault("limit_ignored", INDPTR, "rows are not cut", limited(lambda limit: 0)),
    Fault("limit_plus_1", INDPTR, "one node more than the limit", limited(lambda limit: limit + 1 if limit > 0 else limit)),
    Fault("limit_0_is_nothing", INDPTR, "a limit of 0 or less keeps nothing", wrap(kept=lambda right: lambda nodes, parent, limit: right(nodes, parent, limit)[: len(nodes) * (limit > 0)])),
    # --- rows
    Fault("owners_taken_as_sorted", INDICES, "rows are taken as if the owners were sorted", wrap(members_of=sorted_owners)),
    Fault("twice_is_two", INDPTR, "a node given twice counts twice", wrap(members_of=lambda _: lambda owners, members, p: members[owners == p])),
    Fault("empty_rows_dropped", INDPTR, "rows of nothing have no boundary", wrap(boundaries=lambda right: lambda rows: right([row for row in rows if len(row)]))),
    Fault("boundaries_without_end", INDPTR, "the end of the last row is missing", wrap(boundaries=lambda right: lambda rows: right(rows)[:-1])),
    Fault("boundaries_are_counts", INDPTR, "counts, not summed up, after the 0", wrap(boundaries=lambda _: lambda rows: np.array([0, *map(len, rows)]))),
    Fault("positions_for_nodes", INDICES, "places in the row instead of nodes", wrap(kept=lambda right: lambda *row: np.arange(len(right(*row))))),
    # --- what is accepted
    Fault("lengths_accepted", REFUSED, "owners and members of different lengths are taken as far as they go", accepting("length")),
    Fault("owner_accepted", REFUSED, "pairs of an owner without row are dropped", accepting("outside")),
    Fault("negative_accepted", REFUSED, "a negative member counts from the end", accepting("negative")),
    Fault("node_accepted", REFUSED, "a node without level gets that of another", accepting("no level")),
)  # fmt: skip
