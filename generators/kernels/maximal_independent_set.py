"""The reference of the suite `maximal_independent_set`: torch's maxima over edges, on the CPU. n nodes, E edges."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]


def maximal_independent_set(indptr: torch.Tensor, indices: torch.Tensor, *, seed: int) -> dict[str, torch.Tensor]:
    """Return the checkpoints of a case."""
    n = len(indptr) - 1
    nodes, degrees = torch.arange(n), indptr.diff()  # (n,), (n,)
    start, to = torch.repeat_interleave(nodes, degrees), indices  # (E,), (E,)
    by_rounds = bool((degrees > 8).any())
    undecided, selected_in = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
    sweeps = 0
    while undecided.any():
        # By index, the first of a row of undecided neighbours wins; all sweeps are one round there.
        priority = priorities(nodes, seed, sweeps) if by_rounds else n - nodes  # (n,)
        live = undecided[start] & undecided[to]
        rival = torch.full((n,), -1).scatter_reduce(0, start[live], priority[to[live]], "amax")  # (n,)
        winners = undecided & (priority > rival)
        selected_in[winners] = sweeps + 1 if by_rounds else 1
        undecided &= ~winners
        undecided[to[winners[start]]] = False
        sweeps += 1
    first_two = torch.stack([priorities(nodes, seed, r) for r in (0, 1)])  # (2, n)
    return ({"priorities": first_two} if by_rounds else {}) | {
        "selected_in": selected_in,
        "selected": (selected_in > 0).long(),
        "rounds": torch.tensor([sweeps if by_rounds else min(sweeps, 1)]),
    }


def priorities(nodes: torch.Tensor, seed: int, r: int) -> torch.Tensor:
    """Return the priorities of a round, (n,), in integers of 64 bits that are cut to 32 after each shift."""
    x = (nodes ^ seed ^ (r * 0x9E3779B9)) % 2**32
    x = (x ^ (x << 13)) % 2**32
    x = x ^ (x >> 17)
    return (x ^ (x << 5)) % 2**32


# --- what must hold of the goldens -----------------------------------------------------------------------------------

MARSAGLIA = {2463534242: 723471715}
"""Seed and first number of the 32-bit generator in section 3 of Marsaglia's "Xorshift RNGs" (2003)."""


def selected_neighbours(given: Mapping[str, Any], golden: Mapping[str, Array]) -> Array:
    """Return of each node how many of its neighbours are selected, (n,), from a dense matrix."""
    n = len(given["indptr"]) - 1
    adjacent = np.zeros((n, n), np.int64)
    adjacent[np.repeat(np.arange(n), np.diff(given["indptr"])), given["indices"]] = 1
    return adjacent @ golden["selected"]


def by_index(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Any, Any] | None:
    """Return the set, and the one that a Python set collects from node 0 on."""
    if "priorities" in golden:
        return None
    taken: set[int] = set()
    for node, bounds in enumerate(zip(given["indptr"], given["indptr"][1:], strict=False)):
        if taken.isdisjoint(given["indices"][slice(*bounds)].tolist()):
            taken.add(node)
    return np.flatnonzero(golden["selected"]), sorted(taken)


def by_rounds(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Any, Any] | None:  # noqa: ARG001
    """Return the rounds in which the highest priority, and any node at all, was selected, and what they should be."""
    if "priorities" not in golden:
        return None
    highest = golden["selected_in"][golden["priorities"][0].argmax()]
    occurring = np.unique(golden["selected_in"][golden["selected_in"] > 0])
    return np.append(highest, occurring), [1, *range(1, int(golden["rounds"][0]) + 1)]


def marsaglia(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Any, Any] | None:
    """Return the priority of node 0, and the number that was published for the seed."""
    known = "priorities" in golden and given["seed"] in MARSAGLIA
    return (golden["priorities"][0, 0], MARSAGLIA[given["seed"]]) if known else None


RELATIONS = {
    "no two selected nodes are neighbours, and each other node has a selected neighbour": lambda given, golden: (
        selected_neighbours(given, golden) == 0,
        golden["selected"] == 1,
    ),
    "by index, the set is the one that a loop collects": by_index,
    "by rounds, the highest priority is selected first, and each round selects": by_rounds,
    "the first priority is the first number of Marsaglia's generator, 723471715": marsaglia,
}

VERSIONS, WITNESS, NOISE_STEP, reference, _, witness, checks, known_values = operation.generator(
    __file__, maximal_independent_set, RELATIONS
)


def perturbed(*_: Any) -> dict[str, Array]:
    """Return nothing: integers have no noise, and what computes them is not replayed."""
    return {}
