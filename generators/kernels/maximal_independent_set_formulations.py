"""Correct ways to find the same maximal independent set that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import torch

from karat.faults import Formulation, wrap

Array = Any


def by_matrix(neighbours: Any, priority: Array, undecided: Array) -> list[int]:
    """Take the maximum of each row of a dense matrix of priorities, 0 being no neighbour and 1 the lowest priority."""
    rivals = np.zeros((len(neighbours), len(neighbours)), np.int64)
    for node, row in enumerate(neighbours):
        rivals[node, row] = (priority[row] + 1) * undecided[row]
    return np.flatnonzero(undecided & (priority + 1 > rivals.max(axis=1))).tolist()


def by_maximum_at(neighbours: Any, priority: Array, undecided: Array) -> list[int]:
    """Send each undecided node's priority to its neighbours with numpy.maximum.at, edge by edge from the last."""
    start = np.repeat(np.arange(len(neighbours)), [len(row) for row in neighbours])[::-1]
    to = np.concatenate(neighbours)[::-1]
    rival = np.full(len(neighbours), -1)
    live = undecided[start]
    np.maximum.at(rival, to[live], priority[start[live]])
    return np.flatnonzero(undecided & (priority > rival)).tolist()


def by_torch(neighbours: Any, priority: Array, undecided: Array) -> list[int]:
    """Take the maximum over padded rows of neighbours in torch."""
    widest = max(map(len, neighbours))
    padded = np.stack([np.pad(row, (0, widest - len(row)), constant_values=-1) for row in neighbours])
    index = torch.from_numpy(padded)
    values = torch.from_numpy(np.append(np.where(undecided, priority, -1), -1))
    rival = values[index].amax(dim=1)
    return torch.nonzero(torch.from_numpy(undecided) & (values[:-1] > rival)).flatten().tolist()


def by_sorting(neighbours: Any, priority: Array, undecided: Array) -> list[int]:
    """Go through undecided nodes from the highest priority; who has seen no neighbour before wins."""
    seen: set[int] = set()
    winners = []
    for node in sorted(np.flatnonzero(undecided).tolist(), key=lambda node: -int(priority[node])):
        if seen.isdisjoint(neighbours[node].tolist()):
            winners.append(node)
        seen.add(node)
    return winners


def as_floats(neighbours: Any, priority: Array, undecided: Array) -> list[int]:
    """Compare (x + 1) / 2^32 in float64, ties to the smaller node, as covertreex does."""
    value = (priority + 1) / 2**32
    live = [[other for other in row if undecided[other]] for row in neighbours]
    return [
        node
        for node in np.flatnonzero(undecided).tolist()
        if all((-value[node], node) < (-value[other], other) for other in live[node])
    ]


def in_32_bits(nodes: Array, seed: int, r: int) -> Array:
    """Hash in unsigned integers of 32 bits, which wrap by themselves."""
    x = nodes.astype(np.uint32) ^ np.uint32(seed) ^ np.uint32((r * 0x9E3779B9) & 0xFFFFFFFF)
    x ^= x << np.uint32(13)
    x ^= x >> np.uint32(17)
    x ^= x << np.uint32(5)
    return x.astype(np.int64)


def by_bits(nodes: Array, seed: int, r: int) -> Array:
    """Hash by the matrix over two elements that one step of the generator is: a priority for each bit, xor-ed."""
    of_bit = [int(in_32_bits(np.array([1 << bit]), 0, 0)[0]) for bit in range(32)]
    mixed = nodes ^ seed ^ ((r * 0x9E3779B9) & 0xFFFFFFFF)
    found = np.zeros_like(nodes)
    for bit, column in enumerate(of_bit):
        found ^= ((mixed >> bit) & 1) * column
    return found


def blocked(neighbours: Any) -> Array:
    """Decide by index with a list of blocked nodes, pushed from the selected ones."""
    blocked_by = np.zeros(len(neighbours), bool)
    for node, row in enumerate(neighbours):
        if not blocked_by[node]:
            blocked_by[row] = True
    # A selected node is never blocked: its neighbours before it would have been selected else.
    return np.where(blocked_by, 0, 1)


def sweeps(neighbours: Any) -> Array:
    """Decide by index in parallel sweeps: a node without undecided neighbour before it is selected."""
    n = len(neighbours)
    state = np.full(n, -1)
    while (state < 0).any():
        for node in [
            node
            for node in np.flatnonzero(state < 0)
            if not (state[neighbours[node][neighbours[node] < node]] < 0).any()
        ]:
            state[node] = not (state[neighbours[node][neighbours[node] < node]] == 1).any()
    return state


def by_sparse_product(neighbours: Any, undecided: Array, winners: Any) -> Array:
    """Find the neighbours of winners by a product with SciPy's sparse adjacency matrix."""
    n = len(neighbours)
    indptr = np.cumsum([0, *map(len, neighbours)])
    adjacency = scipy.sparse.csr_matrix((np.ones(indptr[-1]), np.concatenate(neighbours), indptr), shape=(n, n))
    won = np.zeros(n)
    won[winners] = 1
    return undecided & (won + adjacency @ won == 0)


def replaced(**functions: Callable[..., Any]) -> Callable[[Any], None]:
    """Return a change that puts functions in the place of the plain candidate's."""
    return wrap(**{name: lambda _, function=function: function for name, function in functions.items()})


FORMULATIONS = (
    Formulation("dense_matrix", "a dense matrix of priorities", replaced(highest=by_matrix)),
    Formulation("maximum_at", "numpy.maximum.at over edges", replaced(highest=by_maximum_at)),
    Formulation("torch_padded", "torch's maxima over padded rows", replaced(highest=by_torch)),
    Formulation("sorted_priorities", "from the highest priority to the lowest", replaced(highest=by_sorting)),
    Formulation("floats", "(x + 1) / 2^32 in float64, ties to the smaller node", replaced(highest=as_floats)),
    Formulation("uint32", "priorities in integers of 32 bits", replaced(priorities=in_32_bits)),
    Formulation("bit_matrix", "priorities as a linear map of bits", replaced(priorities=by_bits)),
    Formulation("blocked", "by index, selected nodes block their neighbours", replaced(greedy=blocked)),
    Formulation("sweeps", "by index, in parallel sweeps", replaced(greedy=sweeps)),
    Formulation("sparse_product", "neighbours by a sparse product", replaced(still_undecided=by_sparse_product)),
)
