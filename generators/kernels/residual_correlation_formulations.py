"""Correct ways to compute the residual-correlation metric that differ from the plain candidate's: they must pass."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import torch

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
WIDE = np.float64

factors = beside(__file__, "_cholesky_formulations")
stationary = beside(__file__, "_stationary_formulations")


def squared(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to squared distances: `formula(x, y)` of points about the mean of all, in lengthscales."""

    def change(plain: Any) -> None:
        right, mean = plain.residual_correlation, dict[str, Array]()

        def residual_correlation(**given: Any) -> Any:
            if given["points"].ndim == 2:
                mean["of points"] = given["points"].mean(0)  # (D,)
            return right(**given)

        plain.residual_correlation = residual_correlation
        plain.squared_distance = lambda x, y, lengthscale: formula(
            (x - mean["of points"]) / lengthscale, (y - mean["of points"]) / lengthscale
        )

    return change


def chunked(size: int) -> Change:
    """Return a change that computes rows in chunks of `size`."""

    def change(plain: Any) -> None:
        right = plain.residual_correlation
        names = ("kernel_block", "residual_covariance", "correlation", "distance", "within_radius")

        def residual_correlation(**given: Any) -> Any:
            rows = given["rows"]
            parts = [right(**(given | {"rows": rows[i : i + size]})) for i in range(0, max(len(rows), 1), size)]
            return parts[0] | {name: np.concatenate([part[name] for part in parts]) for name in names}

        plain.residual_correlation = residual_correlation

    return change


def in_blocks(matrix: Array) -> Array:
    """Return the factor in blocks of 3 columns, (m, m)."""
    rest, factor = matrix.copy(), np.zeros_like(matrix)
    for j in range(0, len(rest), 3):
        k = min(j + 3, len(rest))
        factor[j:k, j:k] = np.linalg.cholesky(rest[j:k, j:k])
        if k < len(rest):
            below = scipy.linalg.solve_triangular(factor[j:k, j:k], rest[k:, j:k].T, lower=True).T
            factor[k:, j:k] = below
            rest[k:, k:] -= below @ below.T
    return factor


def of_torch(cross: Array, factor: Array) -> Array:
    """Return torch's triangular solve, (n, m)."""
    return torch.linalg.solve_triangular(torch.tensor(factor), torch.tensor(cross.T.copy()), upper=False).numpy().T


def transposed(block: Array, V: Array, rows: Array, columns: Array) -> Array:
    """Return the residual covariance from the product transposed, (r, c)."""
    return block - (V[columns] @ V[rows].T).T


def factor_by_factor(block: Array, V: Array, rows: Array, columns: Array) -> Array:
    """Return the residual covariance by subtracting column after column of V, (r, c)."""
    left = block.copy()
    for j in range(V.shape[1]):
        left -= V[rows, j, None] * V[columns, j]
    return left


def in_float64(plain: Any) -> None:
    """Compute the factor, V and p in float64 and round them, as the original's accuracy policy says."""
    inducing, covariance = plain.inducing_kernel, plain.covariance
    plain.inducing_kernel = lambda u, s, kernel, v, j: inducing(u.astype(WIDE), s.astype(WIDE), kernel, v, j)
    plain.covariance = lambda x, y, s, kernel, v: covariance(x.astype(WIDE), y.astype(WIDE), s.astype(WIDE), kernel, v)


def five_thirds(squared: Array, variance: float) -> Array:
    """Return the Matérn kernel with 5 s^2 / 3 from the squared distance, (p, q)."""
    a = np.sqrt(5 * squared)  # (p, q)
    return variance * (1 + a + 5 / 3 * squared) * np.exp(-a)


def base_two(squared: Array, variance: float) -> Array:
    """Return the RBF kernel by exp2, (p, q)."""
    return variance * np.exp2(squared.dtype.type(-0.5 * math.log2(math.e)) * squared)


def inverse_roots(left: Array, p: Array, q: Array) -> Array:
    """Return the correlation by inverse roots of residual variances, as fused kernels do, (r, c)."""
    floor = 1e-9  # of each instead of the product: the same but where a residual variance is below it
    inverse = [1 / np.sqrt(np.maximum(x, floor)) for x in (p, q)]  # (r,), (c,)
    return np.clip(left * inverse[0][:, None] * inverse[1], -1, 1)


def by_inverse_roots(plain: Any) -> None:
    """Divide by roots one after the other where no residual variance is below the floor."""
    right = plain.correlation

    def correlation(left: Array, p: Array, q: Array) -> Array:
        if min(p.min(initial=1), q.min(initial=1)) < 1e-9:
            return right(left, p, q)
        return inverse_roots(left, p, q)

    plain.correlation = correlation


FORMULATIONS = (
    Formulation("expanded_centred", "distances expanded about the mean", squared(stationary.expanded)),
    Formulation("scipy_cdist", "scipy.spatial.distance.cdist", squared(stationary.of_scipy)),
    Formulation("torch_cdist", "torch.cdist, squared", squared(stationary.of_torch)),
    Formulation("chunks_of_1", "rows one by one", chunked(1)),
    Formulation("chunks_of_5", "rows in chunks of 5", chunked(5)),
    Formulation("scipy_cholesky", "scipy.linalg.cholesky",
                wrap(cholesky=lambda _: lambda matrix: scipy.linalg.cholesky(matrix, lower=True))),
    Formulation("cholesky_outer", "the factor by subtracting outer products", wrap(cholesky=lambda _: factors.outer)),
    Formulation("cholesky_blocks", "the factor in blocks of 3 columns", wrap(cholesky=lambda _: in_blocks)),
    Formulation("general_solve", "numpy.linalg.solve, which does not know that L is triangular",
                wrap(project=lambda _: lambda cross, factor: np.linalg.solve(factor, cross.T).T)),
    Formulation("scipy_triangular", "scipy.linalg.solve_triangular", wrap(project=lambda _: factors.triangular)),
    Formulation("torch_triangular", "torch.linalg.solve_triangular", wrap(project=lambda _: of_torch)),
    Formulation("substitution_by_columns", "forward substitution by columns of L",
                wrap(project=lambda _: factors.by_columns)),
    Formulation("gemm_transposed", "the product of projections transposed",
                wrap(residual_covariance=lambda _: transposed)),
    Formulation("factor_by_factor", "projections subtracted column by column",
                wrap(residual_covariance=lambda _: factor_by_factor)),
    Formulation("factor_in_float64", "factor, V and p in float64, then rounded", in_float64),
    Formulation("inverse_roots", "multiplied by inverse roots of p", by_inverse_roots),
    Formulation("kernels_otherwise", "exp2 in the RBF, 5 s^2 / 3 in the Matérn",
                wrap(rbf=lambda _: base_two, matern52=lambda _: five_thirds)),
)  # fmt: skip
