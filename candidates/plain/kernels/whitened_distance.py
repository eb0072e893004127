"""The distance of whitened vectors in plain NumPy: the definition, to read and to copy.

Whitening by the Cholesky factor of the covariance (Kessy, Lewin and Strimmer 2018, section 2.2); the distances are
Mahalanobis's (`scipy.spatial.distance.mahalanobis`). n vectors of k entries, r rows, c columns.
"""

import numpy as np


def whitened_distance(vectors, rows, columns, *, jitter):
    """Return the distances of `vectors` (n, k) at `rows` (r,) from those at `columns` (c,), and what they come from."""
    refuse(vectors, rows, columns, jitter)
    deviations = centred(vectors)  # (n, k)
    covariance = covariance_of(deviations, jitter)  # (k, k)
    factor = cholesky(covariance)  # (k, k)
    whitened = whiten(deviations, factor)  # (n, k)
    squared = squared_distance(whitened, rows, columns)  # (r, c)
    found = {
        "covariance": covariance,
        "cholesky": factor,
        "whitened": whitened,
        "squared_distance": squared,
        "distance": distance(squared),
    }
    return {name: array.astype(vectors.dtype) for name, array in found.items()}


def refuse(vectors, rows, columns, jitter):
    """Raise `ValueError` where the arguments contradict the contract."""
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(f"vectors are {vectors.shape}, must be (n, k) with n of 2 or more")
    for name, indices in (("rows", rows), ("columns", columns)):
        if not ((indices >= 0) & (indices < len(vectors))).all():
            raise ValueError(f"{name} must be indices from 0 to {len(vectors) - 1}, are {indices}")
    if not jitter >= 0:
        raise ValueError(f"jitter must be 0 or more, is {jitter}")


def centred(vectors):
    """Return vectors less their mean, (n, k)."""
    return vectors - vectors.mean(0)


def covariance_of(deviations, jitter):
    """Return the covariance with the jitter on its diagonal, (k, k)."""
    n, k = deviations.shape
    return deviations.T @ deviations / (n - 1) + jitter * np.eye(k, dtype=deviations.dtype)


def cholesky(covariance):
    """Return the lower triangular factor, (k, k)."""
    return np.linalg.cholesky(covariance)


def whiten(deviations, factor):
    """Return L^-1 of each row by forward substitution, (n, k)."""
    whitened = np.zeros_like(deviations)
    for j in range(len(factor)):
        whitened[:, j] = (deviations[:, j] - whitened[:, :j] @ factor[j, :j]) / factor[j, j]
    return whitened


def squared_distance(whitened, rows, columns):
    """Return |w_i|^2 + |w_j|^2 - 2 w_i.w_j, 0 at least and where i = j, (r, c)."""
    w, v = whitened[rows], whitened[columns]  # (r, k), (c, k)
    squared = np.square(w).sum(-1)[:, None] + np.square(v).sum(-1) - 2 * (w @ v.T)  # (r, c)
    return np.where(same(rows, columns), 0, np.maximum(squared, 0))


def same(rows, columns):
    """Return where a vector meets itself, boolean, (r, c)."""
    return rows[:, None] == columns


def distance(squared):
    """Return the root, (r, c)."""
    return np.sqrt(squared)
