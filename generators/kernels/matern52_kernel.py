"""The reference of the suite `matern52_kernel`: torch operations in float64 on the CPU.

Source: Rasmussen and Williams 2006, equations 4.17 and 5.1. The golden comes from differences of points; the noise from
the expanded form about the mean of y, which kernels are allowed to use.
"""

import math
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import gamma, kv

from karat.freeze import beside

operation = beside(__file__, "_operation")
stationary = beside(__file__, "_stationary")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def matern52_kernel(
    x: torch.Tensor, y: torch.Tensor, lengthscale: torch.Tensor, *, variance: float, form: Any = None
) -> torch.Tensor:
    """Return the kernel, (n, m), of squared distances as `form` computes them, from differences unless it is given."""
    return stationary.matern52((form or stationary.of_differences)(x, y, lengthscale), variance)


def expanded(*arguments: torch.Tensor, **params: Any) -> torch.Tensor:
    """Return the kernel of expanded distances, (n, m)."""
    return matern52_kernel(*arguments, **params, form=stationary.of_expansion)


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the kernel, and the definition computed in decimal arithmetic of 30 digits, (n, m)."""
    if 0 in golden["kernel"].shape:
        return None
    with localcontext(prec=30):
        x, y = ([[Decimal(v) for v in row] for row in given[name].tolist()] for name in ("x", "y"))
        scale = [Decimal(v) for v in given["lengthscale"].tolist()]
        scale = scale * (len(x[0]) // len(scale))
        wanted = [[given["variance"] * float(of_pair(a, b, scale)) for b in y] for a in x]
    return golden["kernel"], np.array(wanted), stationary.relative(golden)


def of_pair(x: list[Decimal], y: list[Decimal], lengthscale: list[Decimal]) -> Decimal:
    """Return the kernel of two points, of the variance 1."""
    squared = sum((((a - b) / s) ** 2 for a, b, s in zip(x, y, lengthscale, strict=True)), Decimal(0))
    a = (5 * squared).sqrt()
    return (1 + a + a * a / 3) * (-a).exp()


def of_bessel(given: Given, golden: Goldens) -> tuple[Array, Array, Array]:
    """Return the kernel, and the formula for any smoothness, 2^(1 - nu) / Gamma(nu) a^nu K_nu(a), at 5/2, (n, m)."""
    x, y = given["x"], given["y"]
    weights = np.broadcast_to(1 / given["lengthscale"] ** 2, x.shape[1:]).copy()  # (D,)
    a = math.sqrt(5) * cdist(x, y, "euclidean", w=weights)  # (n, m)
    nonzero = np.where(a > 0, a, 1)
    general = 2**-1.5 / gamma(2.5) * nonzero**2.5 * kv(2.5, nonzero)  # (n, m)
    return golden["kernel"], given["variance"] * np.where(a > 0, general, 1), stationary.relative(golden)


RELATIONS = {
    "is the definition in 30 decimal digits, to 1e-12": in_decimal,
    "is the formula for any smoothness with SciPy's Bessel function, to 1e-12": of_bessel,
    **stationary.RELATIONS,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, matern52_kernel, RELATIONS, versions=("torch", "scipy")
)
perturbed = operation.generator(__file__, expanded, RELATIONS).perturbed
