"""The reference of the suite `rbf_kernel`: torch operations in float64 on the CPU.

Source: Rasmussen and Williams 2006, equations 4.9 and 5.1; gamma as in scikit-learn's `rbf_kernel`. The golden comes
from differences of points; the noise from the expanded form about the mean of y, which kernels are allowed to use.
"""

import math
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from karat.freeze import beside

operation = beside(__file__, "_operation")
stationary = beside(__file__, "_stationary")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def rbf_kernel(
    x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor, *, scale_is: str, variance: float, form: Any = None
) -> torch.Tensor:
    """Return the kernel, (n, m), of squared distances as `form` computes them, from differences unless it is given."""
    squared_distance = form or stationary.of_differences
    if scale_is == "lengthscale":
        exponent = 0.5 * squared_distance(x, y, scale)  # (n, m)
    else:
        exponent = (scale if scale_is == "gamma" else 0.5 * scale) * squared_distance(x, y, torch.ones_like(scale))
    return variance * torch.exp(-exponent)


def expanded(*arguments: torch.Tensor, **params: Any) -> torch.Tensor:
    """Return the kernel of expanded distances, (n, m)."""
    return rbf_kernel(*arguments, **params, form=stationary.of_expansion)


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the kernel, and the definition computed in decimal arithmetic of 30 digits, (n, m)."""
    if 0 in golden["kernel"].shape:
        return None
    variance = Decimal(given["variance"])
    with localcontext(prec=30):
        x, y = ([[Decimal(v) for v in row] for row in given[name].tolist()] for name in ("x", "y"))
        scale = [Decimal(v) for v in given["scale"].tolist()]
        weights = {
            "lengthscale": [1 / (2 * s * s) for s in scale],
            "gamma": scale,
            "half_gamma": [s / 2 for s in scale],
        }[given["scale_is"]]
        weights = weights * (len(x[0]) // len(weights))
        wanted = [[float(variance * (-exponent(a, b, weights)).exp()) for b in y] for a in x]
    return golden["kernel"], np.array(wanted), stationary.relative(golden)


def exponent(x: list[Decimal], y: list[Decimal], weights: list[Decimal]) -> Decimal:
    """Return the weighted squared distance of two points."""
    return sum((w * (a - b) ** 2 for a, b, w in zip(x, y, weights, strict=True)), Decimal(0))


def of_scipy(given: Given, golden: Goldens) -> tuple[Array, Array, Array]:
    """Return the kernel, and that of SciPy's weighted distances, (n, m)."""
    x, y, scale = given["x"], given["y"], given["scale"]
    weights = {"lengthscale": 0.5 / scale**2, "gamma": scale, "half_gamma": scale / 2}[given["scale_is"]]
    squared = cdist(x, y, "sqeuclidean", w=np.broadcast_to(weights, x.shape[1:]).copy())  # (n, m)
    exponential = np.vectorize(lambda value: math.exp(-value), otypes=[float])
    return golden["kernel"], given["variance"] * exponential(squared), stationary.relative(golden)


RELATIONS = {
    "is the definition in 30 decimal digits, to 1e-12": in_decimal,
    "is the exponential of scipy.spatial.distance.cdist, to 1e-12": of_scipy,
    **stationary.RELATIONS,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, rbf_kernel, RELATIONS, versions=("torch", "scipy")
)
perturbed = operation.generator(__file__, expanded, RELATIONS).perturbed
