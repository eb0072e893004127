"""The reference of the suite `rms_norm`: torch operations in float64 on the CPU.

Source: transformers, LlamaRMSNorm ("inside_root", "factor") and GemmaRMSNorm ("factor_less_one"); Zhang and Sennrich
2019, equation 4, and its published code ("outside_root"). D width.
"""

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, *, epsilon: float, epsilon_is: str, weight_is: str
) -> dict[str, torch.Tensor]:
    """Return the inverse RMS of each row (...), and the output, (..., D)."""
    mean_square = x.square().mean(-1, keepdim=True)  # (..., 1)
    inside = epsilon_is == "inside_root"
    inverse = torch.rsqrt(mean_square + epsilon) if inside else 1 / (mean_square.sqrt() + epsilon)  # (..., 1)
    factor = weight if weight_is == "factor" else 1 + weight  # (D,)
    return {"inverse_rms": inverse.squeeze(-1), "output": x * inverse * factor}


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output, and the definition computed in decimal arithmetic of 40 digits."""
    x, epsilon = given["x"], Decimal(given["epsilon"])
    if not golden or x.shape[-1] > 100:
        return None
    outputs = []
    with localcontext(prec=40):
        plus = Decimal(1 if given["weight_is"] == "factor_less_one" else 0)
        factors = [plus + Decimal(float(value)) for value in given["weight"]]  # (D,)
        for row in x.reshape(-1, x.shape[-1]).tolist():
            mean_square = sum((Decimal(value) ** 2 for value in row), Decimal(0)) / len(row)
            inside = given["epsilon_is"] == "inside_root"
            rms = (mean_square + epsilon).sqrt() if inside else mean_square.sqrt() + epsilon
            outputs.append([float(Decimal(value) / rms * f) for value, f in zip(row, factors, strict=True)])
    return relative(golden["output"], np.array(outputs).reshape(x.shape))


def of_torch(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output, and that of torch.nn.functional.rms_norm."""
    if not golden or given["epsilon_is"] != "inside_root":
        return None
    weight = torch.from_numpy(given["weight"] + (given["weight_is"] == "factor_less_one"))
    x = torch.from_numpy(given["x"])
    return relative(
        golden["output"], np.asarray(torch.nn.functional.rms_norm(x, weight.shape, weight, given["epsilon"]))
    )


def of_norm(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return sqrt(D) over the Euclidean norm, and the inverse RMS, where epsilon is 0."""
    if not golden or given["epsilon"]:
        return None
    x = given["x"]
    return relative(x.shape[-1] ** 0.5 / np.linalg.norm(x, axis=-1), golden["inverse_rms"])


def of_zeros(given: Given, golden: Goldens) -> tuple[Array, int] | None:
    """Return the output of rows of zeros."""
    return (golden["output"][(given["x"] == 0).all(-1)], 0) if golden else None


def relative(found: Array, wanted: Array) -> tuple[Array, Array, Array]:
    """Return that both agree to 1e-14."""
    return found, wanted, 1e-14 * np.abs(wanted)


RELATIONS = {
    "is the definition in 40 decimal digits, to 1e-14": in_decimal,
    "is torch.nn.functional.rms_norm, to 1e-14": of_torch,
    "without epsilon, inverse_rms is sqrt(D) over the Euclidean norm, to 1e-14": of_norm,
    "zeros give zeros": of_zeros,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, rms_norm, RELATIONS
)
