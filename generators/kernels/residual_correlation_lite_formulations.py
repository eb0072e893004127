"""Correct ways to compute the correlation distance that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]
FLOOR = 1e-6


def whole(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the whole but for what must be refused: `formula(x, y)` gives the correlation."""

    def change(plain: Any) -> None:
        def residual_correlation_lite(x: Array, y: Array) -> dict[str, Array]:
            plain.refuse(x, y)
            correlation = formula(x, y)  # (n, m)
            distance = np.maximum(0, 1 - correlation)  # (n, m)
            return {"correlation": correlation.astype(x.dtype), "distance": distance.astype(x.dtype)}

        plain.residual_correlation_lite = residual_correlation_lite

    return change


def unit(x: Array) -> Array:
    """Return vectors less their means, of the norm 1 or less, (n, L)."""
    u = x - x.mean(-1, keepdims=True)
    return u / np.maximum(np.linalg.norm(u, axis=-1, keepdims=True), FLOOR)


def in_blocks(x: Array, y: Array) -> Array:
    """Return it in blocks of 4 x 5 vectors, (n, m)."""
    u, v = unit(x), unit(y)
    found = np.empty((x.shape[0], y.shape[0]), x.dtype)
    for i in range(0, x.shape[0], 4):
        for j in range(0, y.shape[0], 5):
            found[i : i + 4, j : j + 5] = u[i : i + 4] @ v[j : j + 5].T
    return found


def in_torch(x: Array, y: Array) -> Array:
    """Return it from torch's operations, (n, m)."""
    u, v = (w - w.mean(-1, keepdim=True) for w in (torch.tensor(x), torch.tensor(y)))
    lengths = [torch.linalg.vector_norm(w, dim=-1).clamp_min(FLOOR) for w in (u, v)]
    return (torch.einsum("il,jl->ij", u, v) / lengths[0][:, None] / lengths[1]).numpy()


def entry_by_entry(u: Array, v: Array) -> Array:
    """Return inner products added up entry by entry, from the last, (n, m)."""
    total = np.zeros((u.shape[0], v.shape[0]), u.dtype)
    for i in reversed(range(u.shape[1])):
        total += u[:, i, None] * v[:, i]
    return total


def in_two_halves(x: Array) -> Array:
    """Return vectors less their means, of sums over even and odd entries, (n, L)."""
    mean = (x[:, ::2].sum(-1, keepdims=True) + x[:, 1::2].sum(-1, keepdims=True)) / x.shape[1]  # (n, 1)
    return x - mean


def by_inverse_norms(x: Array, y: Array) -> Array:
    """Return inner products times inverse norms, (n, m)."""
    u, v = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    inverse = [1 / np.maximum(np.linalg.norm(w, axis=-1), FLOOR) for w in (u, v)]  # (n,), (m,)
    return (u @ v.T) * inverse[0][:, None] * inverse[1]


FORMULATIONS = (
    Formulation("unit_vectors", "divided by the norms before the product", whole(lambda x, y: unit(x) @ unit(y).T)),
    Formulation("gemm_transposed", "(y x^T)^T", wrap(products=lambda _: lambda u, v: (v @ u.T).T)),
    Formulation("blocks", "in blocks of 4 x 5 vectors", whole(in_blocks)),
    Formulation("torch", "torch's mean, norm and einsum", whole(in_torch)),
    Formulation("entry_by_entry", "inner products added up entry by entry", wrap(products=lambda _: entry_by_entry)),
    Formulation("sums_in_two_halves", "means of sums over even and odd entries", wrap(centred=lambda _: in_two_halves)),
    Formulation("inverse_norms", "multiplied by inverse norms", whole(by_inverse_norms)),
)
