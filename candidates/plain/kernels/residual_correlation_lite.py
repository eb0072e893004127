"""The correlation distance in plain NumPy: the definition, to read and to copy.

Pearson's correlation of vectors (`scipy.spatial.distance.correlation`), with a floor under their norms. n vectors x, m
vectors y, of L entries.
"""

import numpy as np


def residual_correlation_lite(x, y):
    """Return correlation and distance of the vectors `x` (n, L) and `y` (m, L)."""
    refuse(x, y)
    u, v = centred(x), centred(y)  # (n, L), (m, L)
    correlation = products(u, v) / (floored(norms(u))[:, None] * floored(norms(v)))  # (n, m)
    return {"correlation": correlation.astype(x.dtype), "distance": distance(correlation).astype(x.dtype)}


def refuse(x, y):
    """Raise `ValueError` where the arguments contradict the contract."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x {x.shape} and y {y.shape} must be (n, L) and (m, L)")


def centred(x):
    """Return vectors (n, L) less their means."""
    return x - x.mean(-1, keepdims=True)


def norms(u):
    """Return the norms of vectors (n, L), (n,)."""
    return np.sqrt(np.square(u).sum(-1))


def floored(norm):
    """Return norms (n,) that are 1e-6 at least."""
    return np.maximum(norm, 1e-6)


def products(u, v):
    """Return the inner products of vectors (n, L) and (m, L), (n, m)."""
    return u @ v.T


def distance(correlation):
    """Return the distance of a correlation, (n, m)."""
    return np.maximum(0, 1 - correlation)
