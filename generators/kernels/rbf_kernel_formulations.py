"""Correct ways to compute the RBF kernel that differ from the plain candidate's: they must pass."""

import math
from typing import Any

import numpy as np

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any

stationary = beside(__file__, "_stationary_formulations")


def scikit_learn(x: Array, y: Array, scale: Array, *, scale_is: str, variance: float) -> dict[str, Array]:
    """Compute as scikit-learn does: exp(-gamma euclidean_distances(x, y, squared=True)), the latter in float64.

    Its expanded form has no centring, which in float64 costs digits that float32 does not have.
    """
    wide_x, wide_y, wide_scale = (array.astype(np.float64) for array in (x, y, scale))
    gamma = {"lengthscale": 0.5, "gamma": wide_scale, "half_gamma": wide_scale / 2}[scale_is]
    if scale_is == "lengthscale":
        wide_x, wide_y = wide_x / wide_scale, wide_y / wide_scale
    apart = stationary.expanded(wide_x, wide_y).astype(x.dtype)  # (n, m)
    return {"kernel": (variance * np.exp((-gamma * apart).astype(x.dtype))).astype(x.dtype)}


def with_scikit_learn(plain: Any) -> None:
    """Replace the whole but for what must be refused."""
    refuse = plain.refuse

    def rbf_kernel(x: Array, y: Array, scale: Array, *, scale_is: str, variance: float) -> dict[str, Array]:
        refuse(x, y, scale, scale_is, variance)
        return scikit_learn(x, y, scale, scale_is=scale_is, variance=variance)

    plain.rbf_kernel = rbf_kernel


def of_base_two(factor: Array, apart: Array, variance: float) -> Array:
    """Return variance 2^(-factor log2(e) distance^2), as kernels with exp2 do, (n, m)."""
    return variance * np.exp2(-(factor * apart.dtype.type(math.log2(math.e))) * apart)


FORMULATIONS = (
    *stationary.FORMULATIONS,
    Formulation("scikit_learn", "expanded in float64, not centred", with_scikit_learn, ("float32",)),
    stationary.SCALED_BY_INVERSE,
    Formulation("exp2", "2 to the power of a multiple of log2(e)", wrap(decay=lambda _: of_base_two)),
)
