"""The reference of the suite `gelu`: its two formulas as torch operations, in float64 on the CPU.

Source: transformers, activations.py, NewGELUActivation ("tanh") and GELUActivation._gelu_python ("none"). They are
compositions, not `torch.nn.functional.gelu`, so that replaying them under noise shows where rounding comes in.
"""

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]


def gelu(x: torch.Tensor, *, approximate: str) -> torch.Tensor:
    """Return GELU, the shape of `x`."""
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))  # (...)
        return 0.5 * x * (1 + torch.tanh(inner))  # (...)
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))  # (...)


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def in_torch(x: Array, approximate: str) -> Array:
    """Return GELU as torch itself has it."""
    return np.asarray(torch.nn.functional.gelu(torch.from_numpy(x), approximate=approximate))


def without_cancellation(x: Array, approximate: str) -> Array:
    """Return GELU by a form that cancels nothing."""
    return np.asarray(np.vectorize({"tanh": by_sigmoid, "none": by_erfc}[approximate])(x))


def mirrored(x: Array, approximate: str) -> Array:
    """Return x + gelu(-x)."""
    return x + np.asarray(gelu(torch.from_numpy(-x), approximate=approximate))


def by_sigmoid(x: float) -> float:
    """Return the tanh formula as x sigmoid(2 z), in decimal arithmetic of 40 digits."""
    with localcontext(prec=40):
        d = Decimal(x)
        z = Decimal(math.sqrt(2 / math.pi)) * (d + Decimal("0.044715") * d**3)
        return float(d / (1 + (-2 * z).exp()))


def by_erfc(x: float) -> float:
    """Return x Phi(x) as x erfc(-x / sqrt 2) / 2."""
    return x * math.erfc(-x / math.sqrt(2)) / 2


def equal(formula: Any) -> Any:
    """Return the relation that the output is `formula(x, approximate)`, to 1e-15 |x|: 1 + tanh ends at 1's last bit."""
    return lambda given, golden: (golden["output"], formula(**given), 1e-15 * np.abs(given["x"]))


RELATIONS = {
    "is torch.nn.functional.gelu, to 1e-15 |x|": equal(in_torch),
    "is a form without cancellation, to 1e-15 |x|": equal(without_cancellation),
    "gelu(x) is x + gelu(-x), to 1e-15 |x|": equal(mirrored),
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, gelu, RELATIONS
)
