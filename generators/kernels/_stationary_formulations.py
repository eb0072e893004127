"""Correct ways to compute the distances of stationary kernels, other than the plain candidates': they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]


def distances(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to squared distances: `formula(x, y, lengthscale)`."""
    return wrap(squared_distance=lambda _: formula)


def squared(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to squared distances: `formula(x, y)` of points about the mean of y, in lengthscales."""

    def squared_distance(x: Array, y: Array, lengthscale: Array) -> Array:
        mean = y.mean(0)  # (D,)
        return formula((x - mean) / lengthscale, (y - mean) / lengthscale)

    return distances(squared_distance)


def expanded(x: Array, y: Array) -> Array:
    """Return |x|^2 + |y|^2 - 2 x.y, (n, m)."""
    return np.maximum(np.square(x).sum(-1)[:, None] + np.square(y).sum(-1) - 2 * (x @ y.T), 0)


def about_x(x: Array, y: Array, lengthscale: Array) -> Array:
    """Return the expanded form about the mean of x, (n, m)."""
    mean = x.mean(0) if x.shape[0] else y[0]  # (D,)
    return expanded((x - mean) / lengthscale, (y - mean) / lengthscale)


def by_columns(x: Array, y: Array) -> Array:
    """Return it column by column, the product transposed, (n, m)."""
    xT = np.ascontiguousarray(x.T)  # (D, n)
    columns = [np.square(xT).sum(0) - 2 * (row @ xT) + row @ row for row in y]
    return np.maximum(np.stack(columns, axis=1), 0).astype(x.dtype)


def in_blocks(x: Array, y: Array) -> Array:
    """Return it in blocks of 4 x 7 points, (n, m)."""
    found = np.empty((x.shape[0], y.shape[0]), x.dtype)
    for i in range(0, x.shape[0], 4):
        for j in range(0, y.shape[0], 7):
            found[i : i + 4, j : j + 7] = np.square(x[i : i + 4, None] - y[None, j : j + 7]).sum(-1)
    return found


def by_dimension(x: Array, y: Array) -> Array:
    """Return it dimension by dimension, from the last to the first, (n, m)."""
    found = np.zeros((x.shape[0], y.shape[0]), x.dtype)
    for d in reversed(range(x.shape[1])):
        found += (x[:, d, None] - y[None, :, d]) ** 2
    return found


def of_scipy(x: Array, y: Array) -> Array:
    """Return SciPy's, (n, m), which computes in float64."""
    return cdist(x, y, "sqeuclidean").astype(x.dtype)


def of_torch(x: Array, y: Array) -> Array:
    """Return torch's distances, squared, (n, m)."""
    apart = torch.cdist(torch.tensor(x), torch.tensor(y), compute_mode="donot_use_mm_for_euclid_dist")
    return apart.square().numpy()


def by_inverse(x: Array, y: Array, lengthscale: Array) -> Array:
    """Return it from differences multiplied by 1 / lengthscale, (n, m)."""
    return np.square((x[:, None] - y) * (1 / lengthscale)).sum(-1)


FORMULATIONS = (
    Formulation("expanded_centred", "|x|^2 + |y|^2 - 2 x.y about the mean of y", squared(expanded)),
    Formulation("expanded_about_x", "|x|^2 + |y|^2 - 2 x.y about the mean of x", distances(about_x)),
    Formulation("gemm_transposed", "the product of the expanded form transposed, by columns", squared(by_columns)),
    Formulation("blocks", "in blocks of 4 x 7 points", squared(in_blocks)),
    Formulation("by_dimension", "dimension by dimension, from the last", squared(by_dimension)),
    Formulation("scipy_cdist", "scipy.spatial.distance.cdist", squared(of_scipy)),
    Formulation("torch_cdist", "torch.cdist, squared", squared(of_torch)),
)
SCALED_BY_INVERSE = Formulation("scaled_by_inverse", "differences multiplied by 1 / lengthscale", distances(by_inverse))
