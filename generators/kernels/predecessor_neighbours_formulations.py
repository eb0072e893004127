"""Correct ways to look for nearest predecessors that differ from the plain candidate's: they must pass."""

import bisect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist, squareform

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]


def distance(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the distances: `formula(points)`, (n, n)."""
    return wrap(all_distances=lambda _: formula)


def whole(formula: Callable[[Array, int], tuple[Array, Array]]) -> Change:
    """Return a change to the whole: `formula(points, k)` of points by dataset index gives indices and distances."""

    def change(plain: Any) -> None:
        check, in_dataset_order = plain.check, plain.in_dataset_order

        def predecessor_neighbours(points: Array, node_to_dataset: Array, *, k: int) -> dict[str, Array]:
            check(points, node_to_dataset, k)
            indices, distances = formula(in_dataset_order(points, node_to_dataset), k)
            return {"indices": indices, "distances": distances.astype(points.dtype)}

        plain.predecessor_neighbours = predecessor_neighbours

    return change


def empty(n: int, k: int) -> tuple[Array, Array]:
    """Return rows of padding."""
    return np.full((n, k), -1), np.full((n, k), np.inf)


def masked(points: Array, k: int) -> tuple[Array, Array]:
    """Sort all rows at once, what is not before at an infinite distance."""
    n = len(points)
    distances = np.where(np.tri(n, k=-1, dtype=bool), cdist(points, points), np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(distances, order, 1)
    return np.where(np.isinf(found), -1, order), found


def in_torch(points: Array, k: int) -> tuple[Array, Array]:
    """Mask and sort in torch, stably."""
    x = torch.from_numpy(points.copy())
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances.masked_fill(torch.ones_like(distances).triu().bool(), torch.inf)
    found, order = torch.sort(distances, dim=1, stable=True)
    return order.masked_fill(found.isinf(), -1)[:, :k].numpy(), found[:, :k].numpy()


def growing_trees(points: Array, k: int) -> tuple[Array, Array]:
    """Ask SciPy's k-d tree of the points before each for its k-th distance, then for all that are no farther."""
    wide = points.astype(np.float64)
    indices, distances = empty(len(points), k)
    for i in range(1, len(points)):
        tree = cKDTree(wide[:i])
        farthest = tree.query(wide[i], k=[min(k, i)])[0][0]
        near = np.array(tree.query_ball_point(wide[i], farthest * (1 + 1e-9)))
        measured = np.sqrt(np.square(wide[near] - wide[i]).sum(-1))
        order = np.lexsort((near, measured))[:k]
        indices[i, : len(order)], distances[i, : len(order)] = near[order], measured[order]
    return indices, distances


def one_by_one(points: Array, k: int) -> tuple[Array, Array]:
    """Insert each point, as it comes, into the sorted lists of all later ones."""
    indices, distances = empty(len(points), k)
    for i in range(len(points)):
        best: list[tuple[float, int]] = []
        for j in range(i - 1, -1, -1):
            bisect.insort(best, (float(np.sqrt(((points[i] - points[j]) ** 2).sum())), j))
            del best[k:]
        for rank, (value, j) in enumerate(best):
            indices[i, rank], distances[i, rank] = j, value
    return indices, distances


def in_blocks(points: Array, k: int) -> tuple[Array, Array]:
    """Merge blocks of 16 points before each block of 16 rows."""
    n = len(points)
    indices, distances = empty(n, k)
    for start in range(0, n, 16):
        rows = np.arange(start, min(start + 16, n))
        for other in range(0, start + 16, 16):
            columns = np.arange(other, min(other + 16, n))
            tile = np.sqrt(np.square(points[rows, None] - points[columns]).sum(-1)).astype(np.float64)
            tile[columns[None] >= rows[:, None]] = np.inf
            numbers = np.where(np.isinf(tile), -1, columns)
            both, which = np.hstack([distances[rows], tile]), np.hstack([indices[rows], numbers])
            order = np.argsort(both, axis=1, kind="stable")[:, :k]
            distances[rows], indices[rows] = np.take_along_axis(both, order, 1), np.take_along_axis(which, order, 1)
    return indices, distances


def partitioned(distances: Array, before: Array, k: int) -> Array:
    """Find the k-th distance with numpy.partition; take what is below it, then the first of what equals it."""
    if len(before) <= k:
        return before[np.lexsort((before, distances[before]))]
    cut = np.partition(distances[before], k - 1)[k - 1]
    below, equal = before[distances[before] < cut], before[distances[before] == cut]
    return np.concatenate([below[np.lexsort((below, distances[below]))], equal[: k - len(below)]])


def mirrored(points: Array) -> Array:
    """Return the distances of each pair once, mirrored by SciPy, which asks for two points at least."""
    return squareform(pdist(points)).astype(points.dtype) if len(points) > 1 else np.zeros((1, 1), points.dtype)


FORMULATIONS = (
    Formulation("masked_matrix", "all rows sorted at once, later points at an infinite distance", whole(masked)),
    Formulation("torch", "torch.cdist by differences, masked and sorted", whole(in_torch)),
    Formulation("growing_trees", "SciPy's k-d trees of the points before", whole(growing_trees)),
    Formulation("inserted", "sorted lists, points inserted from the last", whole(one_by_one)),
    Formulation("blocks", "blocks of 16 by 16 merged", whole(in_blocks)),
    Formulation("partition", "numpy.partition, ties by index", wrap(nearest=lambda _: partitioned)),
    Formulation("pdist", "scipy.spatial.distance.pdist, one half", distance(mirrored)),
    Formulation("norm", "numpy.linalg.norm", distance(lambda x: np.linalg.norm(x[:, None] - x, axis=-1))),
)
