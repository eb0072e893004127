"""The k nearest points of each query in plain NumPy: the definition, to read and to copy.

Fix and Hodges, "Discriminatory analysis" (1951), by brute force. n points, q queries, d dimensions.
"""

import numpy as np


def k_nearest(points, queries, *, k):
    """Return of each query (q, d) the k nearest points (n, d), those of smaller index first among equals."""
    check(points, queries, k)
    distances = all_distances(points, queries)  # (q, n)
    indices = nearest(distances, k)  # (q, k)
    return {"all_distances": distances, "indices": indices, "distances": found(distances, indices)}


def all_distances(points, queries):
    """Return the Euclidean distances of all queries and points, (q, n)."""
    return np.sqrt(np.square(queries[:, None, :] - points[None, :, :]).sum(-1))


def nearest(distances, k):
    """Return the points of the k smallest distances, ascending, the smaller indices first among equals, (q, k)."""
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def found(distances, indices):
    """Return the distances of the points found, (q, k)."""
    return np.take_along_axis(distances, indices, axis=1)


def check(points, queries, k):
    """Raise `ValueError` for what has no k nearest points."""
    if points.ndim != 2 or queries.ndim != 2:
        raise ValueError(f"points {points.shape} and queries {queries.shape} must be of rank 2")
    if points.shape[1] != queries.shape[1]:
        raise ValueError(f"points of {points.shape[1]} dimensions, queries of {queries.shape[1]}")
    if k < 1:
        raise ValueError(f"k must be positive, got {k}")
    if k > len(points):
        raise ValueError(f"k cannot exceed the number of points: {k} of {len(points)}")
    if not (np.isfinite(points).all() and np.isfinite(queries).all()):
        raise ValueError("a coordinate is not finite")
