"""Correct ways to keep the highest nodes of a row that differ from the plain candidate's: they must pass."""

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation, wrap

Array = Any


def order(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the order of a row: `formula(nodes, levels)`."""
    return wrap(in_order=lambda _: formula)


def two_stable_sorts(nodes: Array, levels: Array) -> Array:
    """Sort by index, then stably by level."""
    by_index = np.argsort(nodes)
    return nodes[by_index][np.argsort(-levels[by_index], kind="stable")]


def one_long_key(nodes: Array, levels: Array) -> Array:
    """Sort by one key of level and index, of as many bits as it needs."""
    keys = [
        ((int(levels.max()) - level) << 32) | node for node, level in zip(nodes.tolist(), levels.tolist(), strict=True)
    ]
    return np.array([key & 0xFFFFFFFF for key in sorted(keys)], np.int64)


def by_torch(nodes: Array, levels: Array) -> Array:
    """Sort in torch, twice stably."""
    first, by_index = torch.sort(torch.from_numpy(nodes), stable=True)
    return first[torch.sort(torch.from_numpy(levels)[by_index], descending=True, stable=True).indices].numpy()


def selecting(choose: Callable[[list[tuple[int, int]], int], list[tuple[int, int]]]) -> Callable[[Any], None]:
    """Return a change to the cut: `choose(keys, limit)` gives the least keys, (-level, node), in their order."""

    def change(plain: Any) -> None:
        known: dict[int, int] = {}

        def in_order(nodes: Array, levels: Array) -> Array:
            known.clear()
            known.update(zip(nodes.tolist(), levels.tolist(), strict=True))
            return nodes

        def kept(nodes: Array, parent: int, limit: int) -> Array:
            keys = [(-known[node], node) for node in nodes.tolist()]
            limit = limit if 0 < limit < len(keys) else len(keys)
            first = [node for _, node in choose(keys, limit)]
            if parent in known and parent not in first:
                first[-1] = parent
            return np.array(first, np.int64)

        plain.in_order, plain.kept = in_order, kept

    return change


def quickselect(keys: list[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Part the keys by a pivot until `limit` of them are the least, then sort those."""
    chosen: list[tuple[int, int]] = []
    while limit > 0:
        pivot = keys[len(keys) // 2]
        below, above = [key for key in keys if key <= pivot], [key for key in keys if key > pivot]
        if len(below) > limit:
            keys = below if above else [key for key in below if key < pivot]
            continue
        chosen, keys, limit = chosen + below, above, limit - len(below)
    return sorted(chosen)


def argpartition_then_ties(keys: list[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Find the level of the cut with numpy.partition; of its nodes take the smallest that are wanted."""
    if not keys:
        return []
    negated = np.array([level for level, _ in keys])
    cut = np.partition(negated, limit - 1)[limit - 1]
    above = [key for key in keys if key[0] < cut]
    return sorted(above) + sorted(key for key in keys if key[0] == cut)[: limit - len(above)]


def one_sort(plain: Any) -> None:
    """Sort all pairs at once by owner, level and index, and cut by rank."""
    check, with_parent = plain.check, plain.with_parent

    def select_topk_by_level(owners: Array, members: Array, parents: Array, levels: Array = None, *, limit: int) -> Any:
        check(owners, members, parents, levels)
        pairs = [
            (p, node) for p, parent in enumerate(parents.tolist()) for node in with_parent(members[owners == p], parent)
        ]
        owner, node = np.unique(np.array(pairs, np.int64).reshape(-1, 2), axis=0).T
        order = np.lexsort((node, -levels[node] if levels is not None else node * 0, owner))
        owner, node = owner[order], node[order]
        counts = np.bincount(owner, minlength=len(parents))
        rank = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
        if limit > 0:
            pushed = np.zeros(len(parents), bool)
            pushed[owner[(node == parents[owner]) & (rank >= limit)]] = True
            stays = (rank < limit - pushed[owner]) | (pushed[owner] & (node == parents[owner]))
            owner, node = owner[stays], node[stays]
        return {"indptr": np.searchsorted(owner, np.arange(len(parents) + 1)), "indices": node}

    plain.select_topk_by_level = select_topk_by_level


FORMULATIONS = (
    Formulation("two_stable_sorts", "sorted by index, then stably by level", order(two_stable_sorts)),
    Formulation("one_long_key", "one key of level and index, in integers of any length", order(one_long_key)),
    Formulation("torch_sort", "torch.sort, twice, stable", order(by_torch)),
    Formulation("heap", "a heap of the least keys", selecting(lambda keys, limit: heapq.nsmallest(limit, keys))),
    Formulation("quickselect", "parted by pivots of level and index", selecting(quickselect)),
    Formulation("argpartition_then_ties", "numpy.partition for the level of the cut, its nodes by index",
                selecting(argpartition_then_ties)),
    Formulation("one_sort", "all rows in one sort, cut by rank", one_sort),
)  # fmt: skip
