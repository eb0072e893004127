"""Mistakes that people make with maximal independent sets, planted in the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
PRIORITIES, SELECTED_IN, SELECTED, ROUNDS, REFUSED = (
    ("priorities",),
    ("selected_in",),
    ("selected",),
    ("rounds",),
    ("refused",),
)
GOLDEN_RATIO = 0x9E3779B9
MASK = 0xFFFFFFFF

accepts = beside(__file__, "_refusals").accepts


def hashed(formula: Callable[[Array, int, int], Array]) -> Callable[[Any], None]:
    """Return a change to the priorities: `formula(nodes, seed, r)`."""
    return wrap(priorities=lambda _: formula)


def mixed(formula: Callable[[Array, int, int], Array]) -> Callable[[Any], None]:
    """Return a change to what is hashed: `formula(nodes, seed, r)` instead of node ^ seed ^ r * 0x9E3779B9."""
    return wrap(priorities=lambda right: lambda nodes, seed, r: right(formula(nodes, seed, r) & MASK, 0, 0))


def shifts(first: int, second: int, third: int) -> Callable[[Any], None]:
    """Return a change to the shifts: left, right, left."""

    def priorities(nodes: Array, seed: int, r: int) -> Array:
        x = nodes ^ seed ^ ((r * GOLDEN_RATIO) & MASK)
        x = x ^ ((x << first) & MASK)
        x = x ^ (x >> second)
        return x ^ ((x << third) & MASK)

    return hashed(priorities)


def signed(nodes: Array, seed: int, r: int) -> Array:
    """Shift signed integers, whose sign the right shift draws in."""
    x = (nodes ^ seed ^ ((r * GOLDEN_RATIO) & MASK)).astype(np.uint32).view(np.int32)
    x = x ^ (x << 13)
    x = x ^ (x >> 17)
    return (x ^ (x << 5)).astype(np.int64) & MASK


def compared(key: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to how priorities are compared: by `key`; of equal ones, the smaller node wins."""

    def highest(neighbours: list[Array], priority: Array, undecided: Array) -> list[int]:
        value = key(priority)

        def wins(node: int, other: int) -> bool:
            return bool(value[node] > value[other] or (value[node] == value[other] and node < other))

        live = np.flatnonzero(undecided).tolist()
        return [node for node in live if all(wins(node, other) for other in neighbours[node] if undecided[other])]

    return wrap(highest=lambda _: highest)


def of_all(right: Callable[[Any, Array, Array], list[int]]) -> Callable[[Any, Array, Array], list[int]]:
    """Compare with decided neighbours too, unless that leaves nobody."""
    return lambda neighbours, priority, undecided: (
        [node for node in np.flatnonzero(undecided).tolist() if (priority[neighbours[node]] < priority[node]).all()]
        or right(neighbours, priority, undecided)
    )


def of_first(count: int) -> Callable[[Any], Any]:
    """Compare with the first `count` neighbours only."""
    return lambda right: (
        lambda neighbours, priority, undecided: right([row[:count] for row in neighbours], priority, undecided)
    )


def racing(neighbours: list[Array], priority: Array, undecided: Array) -> list[int]:
    """Remove a winner's neighbours at once, so that the nodes after them see the new state."""
    left, winners = undecided.copy(), []
    for node in np.flatnonzero(undecided).tolist():
        rivals = neighbours[node][left[neighbours[node]]]
        if left[node] and (priority[rivals] < priority[node]).all():
            winners.append(node)
            left[neighbours[node]] = False
    return winners


def changed(name: str, formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the output `name`: `formula(output, indptr)`."""

    def wrong(right: Any) -> Any:
        def maximal_independent_set(indptr: Array, indices: Array, *, seed: int) -> dict[str, Array]:
            found = right(indptr, indices, seed=seed)
            return found | {name: np.asarray(formula(found[name], indptr), np.int64)}

        return maximal_independent_set

    return wrap(maximal_independent_set=wrong)


def counted(formula: Callable[[int], int]) -> Callable[[Any], None]:
    """Return a change to the number of rounds: `formula(rounds)`."""
    return changed("rounds", lambda rounds, indptr: [formula(int(rounds[0]))])


def returned(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to which nodes are said to be selected: `formula(selected, indptr)`."""
    return changed("selected", formula)


def seen(formula: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a change to the neighbours that are seen: `formula(neighbours)`."""
    return wrap(
        greedy=lambda right: lambda neighbours: right(formula(neighbours)),
        luby=lambda right: lambda neighbours, seed: right(formula(neighbours), seed),
    )


def first_rounds(most: int) -> Callable[[Any], None]:
    """Return a change that stops after so many rounds, whether all is decided or not."""

    def change(plain: Any) -> None:
        right = plain.still_undecided
        left = {"n": 0}
        whole = plain.luby

        def still_undecided(neighbours: Any, undecided: Array, winners: Any) -> Array:
            left["n"] -= 1
            return right(neighbours, undecided, winners) & (left["n"] > 0)

        def luby(neighbours: Any, seed: int) -> Any:
            left["n"] = most
            return whole(neighbours, seed)

        plain.still_undecided, plain.luby = still_undecided, luby

    return change


def decided(formula: Callable[[Any, Array, Any], Array]) -> Callable[[Any], None]:
    """Return a change to what is decided after a round: `formula(neighbours, undecided, winners)`."""
    return wrap(still_undecided=lambda _: formula)


def winners_alone(_: Any, undecided: Array, winners: Any) -> Array:
    """Leave the neighbours of winners undecided."""
    left = undecided.copy()
    left[winners] = False
    return left


def accepting(part: str) -> Callable[[Any], None]:
    """Return a change that answers what the right candidate refuses with a text that has `part` in it."""

    def change(plain: Any) -> None:
        accepts(part, check="check")(plain)
        right_rows = plain.rows

        def rows(indptr: Array, indices: Array) -> list[Array]:
            n = len(indptr) - 1
            return [
                np.unique(row[(row != node) & (row < n) & (row >= -n)])
                for node, row in enumerate(right_rows(indptr, indices))
            ]

        plain.rows = rows

    return change


FAULTS = (
    # --- the hash
    Fault("seed_ignored", PRIORITIES, "the seed is left out of the priorities", mixed(lambda nodes, seed, r: nodes ^ (r * GOLDEN_RATIO))),
    Fault("seed_added", PRIORITIES, "the seed is added instead of xor-ed", mixed(lambda nodes, seed, r: (nodes + seed) ^ (r * GOLDEN_RATIO))),
    Fault("nodes_from_one", PRIORITIES, "nodes counted from one", mixed(lambda nodes, seed, r: (nodes + 1) ^ seed ^ (r * GOLDEN_RATIO))),
    Fault("rounds_counted_from_one", PRIORITIES, "the first round is round 1", mixed(lambda nodes, seed, r: nodes ^ seed ^ ((r + 1) * GOLDEN_RATIO))),
    Fault("priority_is_node", PRIORITIES, "the node itself for its priority: not hashed", hashed(lambda nodes, seed, r: nodes ^ seed ^ ((r * GOLDEN_RATIO) & MASK))),
    Fault("shifts_exchanged", PRIORITIES, "shifts 5, 17, 13 instead of 13, 17, 5", shifts(5, 17, 13)),
    Fault("shifts_13_7_17", PRIORITIES, "the shifts of the 64-bit generator, 13, 7, 17", shifts(13, 7, 17)),
    Fault("shifts_signed", PRIORITIES, "shifts of signed integers, which draw the sign in", hashed(signed)),
    Fault("shifts_not_wrapped", PRIORITIES, "shifts in 64 bits, cut to 32 at the end", wrap(wrapped=lambda _: lambda x: x, priorities=lambda right: lambda nodes, seed, r: right(nodes, seed, r) & MASK)),
    Fault("last_shift_missing", PRIORITIES, "without the last shift", shifts(13, 17, 32)),
    # --- rounds
    Fault("round_not_mixed_in", PRIORITIES, "the same priorities in every round", mixed(lambda nodes, seed, r: nodes ^ seed)),
    Fault("round_added_plainly", PRIORITIES, "the round itself, not times 0x9E3779B9", mixed(lambda nodes, seed, r: nodes ^ seed ^ r)),
    Fault("round_constant_of_64_bits", PRIORITIES, "the low half of the 64-bit golden ratio, 0x7F4A7C15", mixed(lambda nodes, seed, r: nodes ^ seed ^ (r * 0x7F4A7C15))),
    Fault("lowest_wins", SELECTED_IN, "the lowest priority is selected", compared(lambda x: -x)),
    Fault("priority_in_float16", SELECTED_IN, "priorities compared in float16, the smaller node of equal ones", compared(lambda x: ((x + 1) / 2**32).astype(np.float16))),
    Fault("priority_in_bfloat16", SELECTED_IN, "priorities compared in bfloat16, the smaller node of equal ones",
          compared(lambda x: (((x + 1) / 2**32).astype(np.float32).view(np.uint32) + 0x8000) >> 16)),
    Fault("decided_neighbours_compete", SELECTED_IN, "priorities compared with decided neighbours too", wrap(highest=of_all)),
    Fault("first_8_neighbours", SELECTED_IN, "priorities compared with the first 8 neighbours only", wrap(highest=of_first(8))),
    Fault("whole_vectors_of_neighbours", SELECTED_IN, "neighbours beyond the last whole vector of four are not compared",
          wrap(highest=lambda right: lambda neighbours, priority, undecided: right([row[: len(row) // 4 * 4] for row in neighbours], priority, undecided))),
    Fault("state_of_the_same_round", SELECTED_IN, "nodes see what was decided in their own round: a race", wrap(highest=lambda _: racing)),
    Fault("neighbours_stay_undecided", SELECTED_IN, "neighbours of selected nodes are not removed", decided(winners_alone)),
    Fault("one_round", SELECTED_IN, "one round: nodes can be added to the set", first_rounds(1)),
    Fault("two_rounds", SELECTED_IN, "two rounds: nodes can be added to the set", first_rounds(2)),
    # --- by index
    Fault("greedy_from_the_last", SELECTED_IN, "by index from the last node to the first", wrap(visiting_order=lambda _: lambda neighbours: range(len(neighbours) - 1, -1, -1))),
    Fault("greedy_by_degree", SELECTED_IN, "by the number of neighbours instead of by index",
          wrap(visiting_order=lambda _: lambda neighbours: sorted(range(len(neighbours)), key=lambda node: (len(neighbours[node]), node)))),
    Fault("greedy_odd_after_even", SELECTED_IN, "even nodes first, then odd ones, as two threads take them",
          wrap(visiting_order=lambda _: lambda neighbours: [*range(0, len(neighbours), 2), *range(1, len(neighbours), 2)])),
    # --- the graph
    Fault("edges_one_way", SELECTED_IN, "edges are seen from the smaller node only", seen(lambda neighbours: [row[row > node] for node, row in enumerate(neighbours)])),
    Fault("first_64_neighbours", SELECTED_IN, "neighbours beyond the first 64 are not seen", seen(lambda neighbours: [row[:64] for row in neighbours])),
    # --- what is said of the set
    Fault("nodes_alone_left_out", SELECTED, "nodes without neighbours are not in the set", returned(lambda selected, indptr: selected * (np.diff(indptr) > 0))),
    Fault("complement", SELECTED, "the nodes that are not selected", returned(lambda selected, indptr: 1 - selected)),
    Fault("last_node_left_out", SELECTED, "the last node is never in the set", returned(lambda selected, indptr: np.append(selected[:-1], selected[-1:] * 0))),
    # --- the number of rounds
    Fault("rounds_minus_1", ROUNDS, "the number of the last round instead of how many there were", counted(lambda rounds: rounds - 1)),
    Fault("rounds_of_no_node", ROUNDS, "one round where there is no node", counted(lambda rounds: max(rounds, 1))),
    Fault("rounds_with_the_empty", ROUNDS, "a last round that finds nothing undecided counts",
          counted(lambda rounds: rounds + (rounds > 1))),
    # --- what is accepted
    Fault("boundaries_accepted", REFUSED, "boundaries that are none are taken as they are", accepting("boundaries")),
    Fault("neighbours_accepted", REFUSED, "neighbours that are no nodes are passed over, negative ones count from the end", accepting("no node")),
    Fault("loops_accepted", REFUSED, "an edge from a node to itself is passed over", accepting("loop")),
    Fault("one_way_accepted", REFUSED, "an edge without its other direction is taken as it is", accepting("direction")),
    Fault("seeds_accepted", REFUSED, "a seed of more than 32 bits is taken modulo 2^32", accepting("seed")),
)  # fmt: skip
