"""The reference of the suite `whitened_distance`: torch operations in float64 on the CPU.

Source: whitening by the Cholesky factor (Kessy, Lewin and Strimmer 2018, section 2.2). The factorisation and the
triangular solve are written out, so that replaying them under noise shows where rounding comes in. n vectors of k
entries.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from karat.freeze import beside

operation = beside(__file__, "_operation")
factors = beside(__file__, "_cholesky")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def whitened_distance(
    vectors: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, *, jitter: float
) -> dict[str, torch.Tensor]:
    """Return the checkpoints of `vectors` (n, k) at `rows` (r,) and `columns` (c,)."""
    deviations = vectors - vectors.mean(0)  # (n, k)
    n, k = deviations.shape
    covariance = (deviations.T @ deviations) / (n - 1) + jitter * torch.eye(k)  # (k, k)
    factor = factors.cholesky(covariance)  # (k, k)
    whitened = factors.solved(factor, deviations)  # (n, k)
    norms = (whitened * whitened).sum(-1)  # (n,)
    squared = norms[rows][:, None] + norms[columns] - 2 * (whitened[rows] @ whitened[columns].T)  # (r, c)
    squared = torch.where(rows[:, None] == columns, 0.0, squared.clamp_min(0))  # (r, c)
    return {
        "covariance": covariance,
        "cholesky": factor,
        "whitened": whitened,
        "squared_distance": squared,
        "distance": torch.sqrt(squared),
    }


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def of_fractions(given: Given, golden: Goldens) -> tuple[Array, Array, float] | None:
    """Return the covariance, and the same in exact fractions, (k, k)."""
    if "covariance" not in golden:
        return None
    x = [[Fraction(v) for v in row] for row in given["vectors"].tolist()]
    n, k = given["vectors"].shape
    means = [sum(column, Fraction(0)) / n for column in zip(*x, strict=True)]
    deviations = [[v - m for v, m in zip(row, means, strict=True)] for row in x]
    wanted = [
        [float(sum((d[i] * d[j] for d in deviations), Fraction(0)) / (n - 1)) for j in range(k)] for i in range(k)
    ]
    scale = float(np.abs(wanted).max())
    return golden["covariance"], wanted + given["jitter"] * np.eye(k), 1e-14 * scale


def of_factor(given: Given, golden: Goldens) -> tuple[Array, Array, float]:  # noqa: ARG001
    """Return L L^T and the covariance, (k, k)."""
    factor, covariance = golden["cholesky"], golden["covariance"]
    return factor @ factor.T, covariance, 1e-14 * float(np.abs(covariance).max())


def of_triangle(given: Given, golden: Goldens) -> tuple[Array, Array]:  # noqa: ARG001
    """Return the sign of the factor's diagonal and upper triangle, and 1 and 0, (k, k)."""
    factor = golden["cholesky"]
    return np.sign(np.triu(factor)), np.eye(len(factor))


def of_white(given: Given, golden: Goldens) -> tuple[Array, Array, float]:
    """Return the covariance of whitened vectors, and I less what the jitter takes, (k, k)."""
    w, factor = golden["whitened"], golden["cholesky"]
    inverse = np.linalg.inv(factor)  # (k, k)
    wanted = np.eye(len(factor)) - given["jitter"] * inverse @ inverse.T
    return w.T @ w / (len(w) - 1), wanted, 1e-15 * np.linalg.cond(factor) ** 2


def of_scipy(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the distances, and SciPy's Mahalanobis distances, (r, c)."""
    if "distance" not in golden or 0 in golden["distance"].shape:
        return None
    x, inverse = given["vectors"], np.linalg.inv(golden["covariance"])
    wanted = cdist(x[given["rows"]], x[given["columns"]], "mahalanobis", VI=inverse)  # (r, c)
    return golden["distance"], wanted, 1e-14 * np.linalg.cond(golden["covariance"]) * (1 + wanted)


def of_itself(given: Given, golden: Goldens) -> tuple[Array, int]:
    """Return the distances of vectors from themselves, and 0."""
    return golden["squared_distance"][given["rows"][:, None] == given["columns"]], 0


def smallest(given: Given, golden: Goldens) -> tuple[Array, Array] | None:
    """Return the distances that are judged and not 0, 1/64 at least: those that float32 can hold in expanded form."""
    if "distance" not in golden:
        return None
    apart = golden["distance"][given["rows"][:, None] != given["columns"]]
    return apart, np.maximum(apart, 1 / 64)


RELATIONS = {
    "the covariance is that of exact fractions, to 1e-14 of the scale": of_fractions,
    "L L^T is the covariance, to 1e-14 of the scale": of_factor,
    "L is lower triangular with a positive diagonal": of_triangle,
    "whitened vectors have the covariance I less the jitter's part, to 1e-15 of the condition": of_white,
    "the distance is Mahalanobis's by scipy.spatial.distance, to 1e-14 of the condition": of_scipy,
    "a vector is at the distance 0 from itself": of_itself,
    "no distance is under 1/64 but 0": smallest,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, whitened_distance, RELATIONS, versions=("torch", "scipy")
)
