"""Correct ways to compute a Cholesky factor and its triangular solve that differ from the plain candidates'.

n rows of k entries.
"""

from typing import Any

import numpy as np
import scipy.linalg

Array = Any


def outer(matrix: Array) -> Array:
    """Return the factor by subtracting outer products, (k, k)."""
    rest, factor = matrix.copy(), np.zeros_like(matrix)
    for j in range(len(rest)):
        factor[j:, j] = rest[j:, j] / np.sqrt(rest[j, j])
        rest[j:, j:] -= np.outer(factor[j:, j], factor[j:, j])
    return factor


def triangular(rows: Array, factor: Array) -> Array:
    """Return SciPy's triangular solve, L^-1 of each row, (n, k)."""
    return scipy.linalg.solve_triangular(factor, rows.T, lower=True).T


def by_columns(rows: Array, factor: Array) -> Array:
    """Return forward substitution by columns of the factor, (n, k)."""
    rest, found = rows.copy(), np.empty_like(rows)
    for j in range(factor.shape[0]):
        found[:, j] = rest[:, j] / factor[j, j]
        rest -= found[:, j, None] * factor[:, j]
    return found
