"""The k nearest predecessors of each point in plain NumPy: the definition, to read and to copy.

Vecchia, "Estimation and model identification for continuous spatial processes" (1988): each point is conditioned on its
nearest neighbours among those before it. n points, d dimensions.
"""

import numpy as np


def predecessor_neighbours(points, node_to_dataset, *, k):
    """Return of each point the k nearest of smaller dataset index, padded; `points` (n, d) in the order of nodes."""
    check(points, node_to_dataset, k)
    n = len(points)
    distances = all_distances(in_dataset_order(points, node_to_dataset))  # (n, n)
    indices = np.full((n, k), -1)  # (n, k)
    found = np.full((n, k), np.inf, points.dtype)  # (n, k)
    for i in range(n):
        chosen = nearest(distances[i], predecessors(i, node_to_dataset), k)
        indices[i, : len(chosen)] = chosen
        found[i, : len(chosen)] = distances[i, chosen]
    return padded(indices, found)


def in_dataset_order(points, node_to_dataset):
    """Return the points by dataset index, (n, d)."""
    ordered = np.empty_like(points)
    ordered[node_to_dataset] = points
    return ordered


def all_distances(points):
    """Return the Euclidean distances of all pairs, (n, n)."""
    return np.sqrt(np.square(points[:, None, :] - points[None, :, :]).sum(-1))


def predecessors(i, node_to_dataset):
    """Return the dataset indices among which point i finds its neighbours, ascending."""
    return np.arange(len(node_to_dataset))[:i]


def nearest(distances, allowed, k):
    """Return those of `allowed` with the k smallest distances (n,), the smaller indices first among equals."""
    return allowed[np.argsort(distances[allowed], kind="stable")][:k]


def padded(indices, distances):
    """Return the outputs; what is not filled is -1 and +inf."""
    return {"indices": indices, "distances": distances}


def check(points, node_to_dataset, k):
    """Raise `ValueError` for what has no predecessors."""
    if points.ndim != 2:
        raise ValueError(f"points {points.shape} must be of rank 2")
    n = len(points)
    if node_to_dataset.shape != (n,):
        raise ValueError(f"different numbers: {n} points, node_to_dataset {node_to_dataset.shape}")
    if not np.array_equal(np.sort(node_to_dataset), np.arange(n)):
        raise ValueError(f"node_to_dataset is no permutation of 0 … {n - 1}")
    if k < 1:
        raise ValueError(f"k must be positive, got {k}")
    if k > n:
        raise ValueError(f"k cannot exceed the number of points: {k} of {n}")
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is not finite")
