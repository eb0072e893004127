"""The reference of the suite `select_topk_by_level`: one sort of all pairs in torch, on the CPU. P rows, K selected."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]


def select_topk_by_level(
    owners: torch.Tensor,
    members: torch.Tensor,
    parents: torch.Tensor,
    levels: torch.Tensor | None = None,
    *,
    limit: int,
) -> dict[str, torch.Tensor]:
    """Return the checkpoints of a case."""
    P = len(parents)
    has_parent = parents >= 0  # (P,)
    pairs = torch.stack([torch.cat([owners, torch.arange(P)[has_parent]]), torch.cat([members, parents[has_parent]])])
    owner, node = torch.unique(pairs, dim=1)  # sorted by owner, then by node
    if levels is not None:
        order = torch.argsort(levels[node], descending=True, stable=True)
        order = order[torch.argsort(owner[order], stable=True)]
        owner, node = owner[order], node[order]
    counts = torch.bincount(owner, minlength=P)  # (P,)
    rank = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    if limit > 0:
        is_parent = node == parents[owner]
        # A parent beyond the cut takes the last place within it.
        beyond = torch.bincount(owner[is_parent & (rank >= limit)], minlength=P)  # (P,): 1 or 0
        stays = (rank < limit - beyond[owner]) | (is_parent & (beyond[owner] > 0))
        owner, node = owner[stays], node[stays]
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(owner, minlength=P).cumsum(0)])
    return {"indptr": indptr, "indices": node}


# --- what must hold of the goldens -----------------------------------------------------------------------------------

PUBLISHED = {
    (10, 2, 5, 4, 7): ((0, 2), (2, 4)),
    (5, 1, 9): ((0, 3), (9, 1, 5)),
    (3, 5, 4, 2, 0): ((0, 2, 4), (3, 5, 2, 0)),
    (5, 4, 3): ((0, 2), (3, 4)),
    (2, 4, 3): ((0, 3), (4, 2, 3)),
    (79, 44, 31): ((0, 2), (44, 31)),
}
"""What covertreex documents and tests: members, and the boundaries and indices."""


def published(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """Return the checkpoints one after the other, and those that were published."""
    wanted = PUBLISHED.get(tuple(given["members"].tolist()))
    return None if wanted is None else (np.concatenate([golden["indptr"], golden["indices"]]), np.concatenate(wanted))


def row_keys(given: Mapping[str, Any], p: int) -> dict[int, tuple[int, int]]:
    """Return the nodes of a row and the keys by which they are ordered, as Python integers."""
    members = zip(given["owners"].tolist(), given["members"].tolist(), strict=True)
    nodes = {member for owner, member in members if owner == p} | ({int(given["parents"][p])} - {-1})
    return {node: (-int(given["levels"][node]) if "levels" in given else 0, node) for node in nodes}


def found_rows(golden: Mapping[str, Array]) -> list[list[int]]:
    """Return the nodes that each row keeps."""
    return [golden["indices"][a:b].tolist() for a, b in zip(golden["indptr"], golden["indptr"][1:], strict=False)]


def out_of_order(given: Mapping[str, Any], golden: Mapping[str, Array]) -> int:
    """Return how many rows are not strictly ascending by their keys."""
    keys = [[row_keys(given, p)[node] for node in row] for p, row in enumerate(found_rows(golden))]
    return sum(row != sorted(set(row)) for row in keys)


def lengths(given: Mapping[str, Any]) -> list[int]:
    """Return how many nodes each row must keep."""
    sizes = [len(row_keys(given, p)) for p in range(len(given["parents"]))]
    return [min(size, given["limit"]) if given["limit"] > 0 else size for size in sizes]


def overlooked(given: Mapping[str, Any], golden: Mapping[str, Array]) -> int:
    """Return how many nodes are left out though a node after them, no parent, is kept; or are a row's own parent."""
    count = 0
    for p, row in enumerate(found_rows(golden)):
        keys, parent = row_keys(given, p), int(given["parents"][p])
        last = max((keys[node] for node in row if node != parent), default=(-(2**80), 0))
        count += sum(node not in row and (key < last or node == parent) for node, key in keys.items())
    return count


RELATIONS = {
    "each row is ascending by -level and index": lambda given, golden: (out_of_order(given, golden), 0),
    "each row keeps as many nodes as it may": lambda given, golden: (np.diff(golden["indptr"]), lengths(given)),
    "no node is left out before one that is kept, and no parent": lambda given, golden: (overlooked(given, golden), 0),
    "the examples are what covertreex documents and tests": published,
}

VERSIONS, WITNESS, NOISE_STEP, reference, _, witness, checks, known_values = operation.generator(
    __file__, select_topk_by_level, RELATIONS
)


def perturbed(*_: Any) -> dict[str, Array]:
    """Return nothing: integers have no noise, and what computes them is not replayed."""
    return {}
