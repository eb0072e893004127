"""Correct ways to look for nearest points that differ from the plain candidate's: they must pass."""

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]


def distance(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the distances: `formula(points, queries)`, (q, n)."""
    return wrap(all_distances=lambda _: formula)


def nearest(formula: Callable[[Array, int], Any]) -> Change:
    """Return a change to the choice: `formula(distances, k)` for one query, (k,)."""
    return wrap(
        nearest=lambda _: lambda distances, k: np.array([formula(row, k) for row in distances], np.int64).reshape(-1, k)
    )


def searched(formula: Callable[[Array, Array, int], Any]) -> Change:
    """Return a change to the search: `formula(points, query, k)` gives the indices for one query, in any order of ties.

    Distances of what is found are measured afterwards, and decide.
    """

    def change(plain: Any) -> None:
        check, all_distances = plain.check, plain.all_distances

        def k_nearest(points: Array, queries: Array, *, k: int) -> dict[str, Array]:
            check(points, queries, k)
            whole, indices = all_distances(points, queries), np.zeros((len(queries), k), np.int64)
            for row, query in enumerate(queries):
                found = np.array(formula(points, query, k), np.int64)
                measured = all_distances(points[found], query[None])[0]
                indices[row] = found[np.lexsort((found, measured))][:k]
            return {"all_distances": whole, "indices": indices, "distances": np.take_along_axis(whole, indices, 1)}

        plain.k_nearest = k_nearest

    return change


def by_coordinate(points: Array, queries: Array) -> Array:
    """Add up squares coordinate by coordinate, the last first."""
    total = np.zeros((len(queries), len(points)), points.dtype)
    for axis in range(points.shape[1] - 1, -1, -1):
        total += np.square(queries[:, None, axis] - points[None, :, axis])
    return np.sqrt(total)


def in_torch(points: Array, queries: Array) -> Array:
    """Return torch's distances, by differences."""
    x, y = torch.from_numpy(points.copy()), torch.from_numpy(queries.copy())
    return torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def wider(points: Array, queries: Array) -> Array:
    """Compute in float64 and round once."""
    differences = queries.astype(np.float64)[:, None] - points
    return np.sqrt(np.square(differences).sum(-1)).astype(points.dtype)


def one_by_one(points: Array, queries: Array) -> Array:
    """Compute each distance by itself, as a dot product of the difference with itself."""
    rows = [[np.sqrt((query - point) @ (query - point)) for point in points] for query in queries]
    return np.array(rows, points.dtype).reshape(len(queries), len(points))


def partitioned(distances: Array, k: int) -> Array:
    """Find the k-th distance with numpy.partition; take what is below it, then the first of what equals it."""
    cut = np.partition(distances, k - 1)[k - 1]
    below, equal = np.flatnonzero(distances < cut), np.flatnonzero(distances == cut)
    return np.concatenate([below[np.lexsort((below, distances[below]))], equal[: k - len(below)]])


def chunked(distances: Array, k: int) -> Array:
    """Merge the best of chunks of 13 points, the last chunk first."""
    best = np.zeros(0, np.int64)
    for start in range(len(distances) // 13 * 13, -1, -13):
        best = np.concatenate([best, np.arange(start, min(start + 13, len(distances)))])
        best = best[np.lexsort((best, distances[best]))][:k]
    return best


def kept_on_heap(distances: Array, k: int) -> list[int]:
    """Keep the k best on a heap of distance and index, from the last point to the first."""
    heap: list[tuple[float, int]] = []
    for i in range(len(distances) - 1, -1, -1):
        key = (-float(distances[i]), -i)
        if len(heap) < k:
            heapq.heappush(heap, key)
        elif key > heap[0]:
            heapq.heapreplace(heap, key)
    return [-i for _, i in sorted(heap, reverse=True)]


def in_torch_sorted(distances: Array, k: int) -> Array:
    """Sort in torch, stably."""
    return torch.sort(torch.from_numpy(distances.copy()), stable=True).indices[:k].numpy()


def by_tree(points: Array, query: Array, k: int) -> list[int]:
    """Ask SciPy's k-d tree for the k-th distance, then for all points that are no farther, a little more."""
    tree = cKDTree(points.astype(np.float64))
    farthest = tree.query(query.astype(np.float64), k=[k])[0][0]
    return tree.query_ball_point(query.astype(np.float64), farthest * (1 + 1e-6))


def by_product(points: Array, query: Array, k: int) -> Array:
    """Rank by |x|^2 - 2 x.y about the query in float64 and take all that rounding may have ranked wrongly."""
    x = points.astype(np.float64) - points[0].astype(np.float64)
    y = query.astype(np.float64) - points[0].astype(np.float64)
    scores = np.square(x).sum(-1) - 2 * (x @ y)
    slack = 1e-6 * (np.square(x).sum(-1).max() + y @ y)
    return np.flatnonzero(scores <= np.partition(scores, k - 1)[k - 1] + slack)


FORMULATIONS = (
    Formulation("cdist", "scipy.spatial.distance.cdist", distance(lambda x, y: cdist(y, x).astype(x.dtype))),
    Formulation("torch_cdist", "torch.cdist by differences", distance(in_torch)),
    Formulation("by_coordinate", "coordinate by coordinate, the last first", distance(by_coordinate)),
    Formulation("one_by_one", "each distance by a dot product", distance(one_by_one)),
    Formulation("norm", "numpy.linalg.norm", distance(lambda x, y: np.linalg.norm(y[:, None] - x, axis=-1))),
    Formulation("wider", "computed in float64 throughout", distance(wider)),
    Formulation("torch_sort", "torch.sort, stable", nearest(in_torch_sorted)),
    Formulation("partition_then_ties", "numpy.partition, ties by index", nearest(partitioned)),
    Formulation("heap", "a heap of distance and index, the points last first", nearest(kept_on_heap)),
    Formulation("chunks", "chunks of 13 points merged", nearest(chunked)),
    Formulation("tree", "SciPy's k-d tree, measured again", searched(by_tree)),
    Formulation("product_then_measured", "ranked by a matrix product, measured again", searched(by_product)),
)  # fmt: skip
