"""A maximal independent set in plain Python and NumPy: the definition, to read and to copy.

Luby, "A simple parallel algorithm for the maximal independent set problem" (1986), with the priorities of covertreex:
one step of Marsaglia's 32-bit xorshift (2003). By index where no node has more than 8 neighbours. n nodes, E edges.
"""

import itertools

import numpy as np

GREEDY = 8
GOLDEN_RATIO = 0x9E3779B9  # 2^32 divided by it


def maximal_independent_set(indptr, indices, *, seed):
    """Select nodes of the graph (n + 1,), (E,) of which no two are neighbours, and to which none can be added."""
    check(indptr, indices, seed)
    neighbours = rows(indptr, indices)
    if not by_rounds(neighbours):
        selected_in = greedy(neighbours)  # (n,)
        return outputs(selected_in, min(len(neighbours), 1))
    nodes = np.arange(len(neighbours))
    first_two = np.stack([priorities(nodes, seed, r) for r in (0, 1)])  # (2, n)
    return {"priorities": first_two} | outputs(*luby(neighbours, seed))


def outputs(selected_in, rounds):
    """Return the outputs of either way: rounds of selection (n,), and how many there were."""
    return {"selected_in": selected_in, "selected": np.minimum(selected_in, 1), "rounds": np.array([rounds])}


def rows(indptr, indices):
    """Return the neighbours of each node."""
    return [indices[start:stop] for start, stop in itertools.pairwise(indptr)]


def by_rounds(neighbours):
    """Say whether some node has more than 8 neighbours."""
    return max(map(len, neighbours), default=0) > GREEDY


def greedy(neighbours):
    """Select each node, from 0 on, of which no neighbour is selected, (n,)."""
    selected = np.zeros(len(neighbours), np.int64)
    for node in visiting_order(neighbours):
        selected[node] = not selected[neighbours[node]].any()
    return selected


def visiting_order(neighbours):
    """Return the nodes in the order in which they are decided."""
    return range(len(neighbours))


def luby(neighbours, seed):
    """Return the rounds of selection, from 1, (n,), 0 for what is not selected, and the number of rounds."""
    n = len(neighbours)
    selected_in, undecided = np.zeros(n, np.int64), np.ones(n, bool)
    r = 0
    while undecided.any():
        winners = highest(neighbours, priorities(np.arange(n), seed, r), undecided)
        selected_in[winners] = r + 1
        undecided = still_undecided(neighbours, undecided, winners)
        r += 1
    return selected_in, r


def priorities(nodes, seed, r):
    """Return the priorities of `nodes` in round `r`, integers below 2^32."""
    x = nodes ^ seed ^ wrapped(r * GOLDEN_RATIO)
    x = x ^ wrapped(x << 13)
    x = x ^ (x >> 17)
    return x ^ wrapped(x << 5)


def wrapped(x):
    """Return integers modulo 2^32."""
    return x & 0xFFFFFFFF


def highest(neighbours, priority, undecided):
    """Return the undecided nodes whose priority is above those of all undecided neighbours."""
    return [
        node
        for node in np.flatnonzero(undecided)
        if (priority[neighbours[node]][undecided[neighbours[node]]] < priority[node]).all()
    ]


def still_undecided(neighbours, undecided, winners):
    """Return which nodes are undecided after `winners` were selected, (n,)."""
    left = undecided.copy()
    for node in winners:
        left[node] = False
        left[neighbours[node]] = False
    return left


def check(indptr, indices, seed):
    """Raise `ValueError` for what is no graph, or no seed."""
    n = len(indptr) - 1
    if not 0 <= seed < 2**32:
        raise ValueError(f"the seed {seed} is not of 32 bits")
    if n < 0 or indptr[0] != 0 or (np.diff(indptr) < 0).any() or indptr[-1] != len(indices):
        raise ValueError(f"boundaries must begin at 0, not decrease, and end at {len(indices)}")
    if ((indices < 0) | (indices >= n)).any():
        raise ValueError(f"a neighbour is no node: there are {n}")
    edges = set(zip(np.repeat(np.arange(n), np.diff(indptr)).tolist(), indices.tolist(), strict=True))
    if any(i == j for i, j in edges):
        raise ValueError("an edge goes from a node to itself: a loop")
    if any((j, i) not in edges for i, j in edges):
        raise ValueError("an edge has no other direction")
