"""Correct ways to whiten vectors and compare them that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import torch

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

factors = beside(__file__, "_cholesky_formulations")


def squared(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to squared distances: `formula(w, v)` of whitened rows (r, k) and columns (c, k), (r, c)."""

    def change(plain: Any) -> None:
        plain.squared_distance = lambda whitened, rows, columns: np.where(
            plain.same(rows, columns), 0, np.maximum(formula(whitened[rows], whitened[columns]), 0)
        )

    return change


def of_differences(w: Array, v: Array) -> Array:
    """Return sums of squared differences, (r, c)."""
    return np.square(w[:, None] - v).sum(-1)


def transposed(w: Array, v: Array) -> Array:
    """Return the expanded form from the product v w^T, transposed, (r, c)."""
    return (np.square(v).sum(-1)[:, None] - 2 * (v @ w.T)).T + np.square(w).sum(-1)[:, None]


def augmented(w: Array, v: Array) -> Array:
    """Return it as one product of [w, |w|^2, 1] and [-2 v, 1, |v|^2], (r, c)."""
    ones = [np.ones((len(x), 1), x.dtype) for x in (w, v)]
    norms = [np.square(x).sum(-1, keepdims=True) for x in (w, v)]
    return np.concatenate([w, norms[0], ones[0]], 1) @ np.concatenate([-2 * v, ones[1], norms[1]], 1).T


def in_blocks(w: Array, v: Array) -> Array:
    """Return the expanded form in blocks of 4 x 3, (r, c)."""
    found = np.empty((len(w), len(v)), w.dtype)
    for i in range(0, len(w), 4):
        for j in range(0, len(v), 3):
            a, b = w[i : i + 4], v[j : j + 3]
            found[i : i + 4, j : j + 3] = np.square(a).sum(-1)[:, None] + np.square(b).sum(-1) - 2 * (a @ b.T)
    return found


def in_torch(w: Array, v: Array) -> Array:
    """Return torch's distances by matrix product, squared, (r, c)."""
    if not w.size:
        return np.zeros((len(w), len(v)), w.dtype)
    apart = torch.cdist(torch.tensor(w), torch.tensor(v), compute_mode="use_mm_for_euclid_dist")
    return apart.square().numpy()


def by_inverse(deviations: Array, factor: Array) -> Array:
    """Return the product with the inverse of L, (n, k)."""
    inverse = scipy.linalg.solve_triangular(factor, np.eye(len(factor), dtype=factor.dtype), lower=True)
    return deviations @ inverse.T


def of_numpy(deviations: Array, jitter: float) -> Array:
    """Return NumPy's covariance of vectors and the jitter, (k, k)."""
    k = deviations.shape[1]
    found = np.cov(deviations, rowvar=False, dtype=deviations.dtype).reshape(k, k)
    return found + jitter * np.eye(k, dtype=deviations.dtype)


def of_outer_products(deviations: Array, jitter: float) -> Array:
    """Return the sum of outer products, vector by vector, each divided, (k, k)."""
    found = jitter * np.eye(deviations.shape[1], dtype=deviations.dtype)
    for row in deviations:
        found += np.outer(row, row / (len(deviations) - 1))
    return found


FORMULATIONS = (
    Formulation("differences", "squares of differences", squared(of_differences)),
    Formulation("gemm_transposed", "the product of the expanded form transposed", squared(transposed)),
    Formulation("gemm_augmented", "norms and products in one matrix product", squared(augmented)),
    Formulation("blocks", "the expanded form in blocks of 4 x 3", squared(in_blocks)),
    Formulation("torch_cdist", "torch.cdist by matrix products", squared(in_torch)),
    Formulation("general_solve", "numpy.linalg.solve, which does not know that L is triangular",
                wrap(whiten=lambda _: lambda deviations, factor: np.linalg.solve(factor, deviations.T).T)),
    Formulation("scipy_triangular", "scipy.linalg.solve_triangular", wrap(whiten=lambda _: factors.triangular)),
    Formulation("inverse", "multiplied by the inverse of L", wrap(whiten=lambda _: by_inverse)),
    Formulation("substitution_by_columns", "forward substitution by columns of L",
                wrap(whiten=lambda _: factors.by_columns)),
    Formulation("scipy_cholesky", "scipy.linalg.cholesky",
                wrap(cholesky=lambda _: lambda covariance: scipy.linalg.cholesky(covariance, lower=True))),
    Formulation("cholesky_outer", "the factor by subtracting outer products", wrap(cholesky=lambda _: factors.outer)),
    Formulation("numpy_cov", "numpy.cov", wrap(covariance_of=lambda _: of_numpy)),
    Formulation("covariance_in_order", "summed vector by vector", wrap(covariance_of=lambda _: of_outer_products)),
)  # fmt: skip
