"""What the references of kernels of distances share: distances, the Matérn 5/2 formula, and what holds of all kernels.

Goldens come from differences of points; the noise from the expanded form about the mean of y, which kernels are allowed
to use. n points x, m points y, D dimensions.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def of_differences(x: torch.Tensor, y: torch.Tensor, lengthscale: torch.Tensor) -> torch.Tensor:
    """Return squared distances in lengthscales, (n, m)."""
    return (((x[:, None] - y[None]) / lengthscale) ** 2).sum(-1)


def of_expansion(x: torch.Tensor, y: torch.Tensor, lengthscale: torch.Tensor) -> torch.Tensor:
    """Return them from |x|^2 + |y|^2 - 2 x.y about the mean of y, (n, m)."""
    centre = torch.from_numpy(y.numpy().mean(0))  # (D,), not perturbed: where it stands does not matter
    x, y = (x - centre) / lengthscale, (y - centre) / lengthscale
    squared = (x * x).sum(-1)[:, None] + (y * y).sum(-1)[None] - 2 * (x @ y.T)  # (n, m)
    return squared.clamp_min(0)


def matern52(squared: torch.Tensor, variance: float) -> torch.Tensor:
    """Return variance (1 + a + a^2 / 3) exp(-a), a = sqrt(5 squared), (n, m)."""
    a = math.sqrt(5) * torch.sqrt(squared)  # (n, m)
    return variance * ((1 + a + a * a / 3) * torch.exp(-a))


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def of_same_points(given: Given, golden: Goldens) -> tuple[Array, Array] | None:
    """Return the kernel of points with themselves, its mirror image above and the variance on the diagonal, (n, n)."""
    kernel = golden["kernel"]
    if not np.array_equal(given["x"], given["y"]):
        return None
    return kernel, np.where(np.eye(len(kernel)) > 0, given["variance"], kernel.T)


def of_subnormals(given: Given, golden: Goldens) -> tuple[Array, float]:  # noqa: ARG001
    """Return the kernels that are subnormal in float32, and so may be flushed to 0, as none may be."""
    kernel = golden["kernel"]
    return np.where((kernel > 2.0**-151) & (kernel < 2.0**-126), kernel, 0), 0


def relative(golden: Goldens) -> Array:
    """Return 1e-12 of each kernel, (n, m)."""
    return 1e-12 * golden["kernel"] + 1e-300


RELATIONS = {
    "symmetric, with the variance on the diagonal, where x is y": of_same_points,
    "no kernel is subnormal in float32": of_subnormals,
}
