"""The reference of the suite `residual_correlation_lite`: torch operations in float64 on the CPU.

Source: Pearson's correlation, as `scipy.spatial.distance.correlation` and `numpy.corrcoef` define it, with a floor.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from karat.freeze import beside

operation = beside(__file__, "_operation")

FLOOR = 1e-6

Array = NDArray[Any]


def residual_correlation_lite(x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the checkpoints of the vectors `x` (n, L) and `y` (m, L)."""
    u, v = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)  # (n, L), (m, L)
    norm_u, norm_v = (torch.sqrt((w * w).sum(-1)).clamp_min(FLOOR) for w in (u, v))  # (n,), (m,)
    correlation = (u @ v.T) / (norm_u[:, None] * norm_v)  # (n, m)
    return {"correlation": correlation, "distance": (1 - correlation).clamp_min(0)}


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def norms(x: Array) -> Array:
    """Return the norms of vectors less their means, 0 for constant ones, (n,)."""
    return np.where(np.ptp(x, axis=-1) == 0, 0, x.std(-1) * np.sqrt(x.shape[-1]))


def of_scipy(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, Array, float] | None:
    """Return the correlation, and SciPy's times the ratios of the norms to the floored ones, which it lacks, (n, m)."""
    x, y = given["x"], given["y"]
    if 0 in golden["correlation"].shape:
        return None
    lacks = [np.minimum(1, norms(w) / FLOOR) for w in (x, y)]  # (n,), (m,)
    with np.errstate(invalid="ignore"):
        pearson = np.nan_to_num(1 - cdist(x, y, "correlation"))  # (n, m); NaN without variance
    return golden["correlation"], pearson * lacks[0][:, None] * lacks[1], 1e-13


def of_floored(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, Array, float] | None:
    """Return the correlations of vectors of norms below the floor, and how large they can be at most, (k, m)."""
    below = norms(given["x"]) / FLOOR
    chosen = (below > 0) & (below < 1)
    largest = np.broadcast_to(below[chosen][:, None], golden["correlation"][chosen].shape)
    return np.maximum(np.abs(golden["correlation"][chosen]), largest), largest, 1e-13


def of_constant(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, float, float]:
    """Return the distances of vectors without variance, and 1, (k, m)."""
    return golden["distance"][norms(given["x"]) == 0], 1, 1e-15


RELATIONS = {
    "the correlation is that of scipy.spatial.distance, times what the floor takes from it, to 1e-13": of_scipy,
    "there are norms below the floor, and their correlations are as small as they must be": of_floored,
    "the distance is 1 - correlation, to 1e-15": lambda given, golden: (  # noqa: ARG005
        golden["distance"],
        1 - golden["correlation"],
        1e-15,
    ),
    "vectors without variance are at the distance 1, to 1e-15": of_constant,
    "symmetric where x is y, to 1e-15": lambda given, golden: (
        (golden["distance"], golden["distance"].T, 1e-15) if np.array_equal(given["x"], given["y"]) else None
    ),
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, residual_correlation_lite, RELATIONS, versions=("torch", "scipy")
)
