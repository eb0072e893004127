"""The reference of the suite `layer_norm`: torch's own, in float64 on the CPU.

Source: Ba, Kiros and Hinton 2016, equations 3 and 4; `torch.nn.functional.layer_norm`. D width.
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


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, epsilon: float) -> torch.Tensor:
    """Return LayerNorm over the last axis of `x` (..., D), its shape."""
    return torch.nn.functional.layer_norm(x, weight.shape, weight, bias, epsilon)  # (..., D)


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def in_decimal(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Return the definition computed in decimal arithmetic of 40 digits, the shape of `x`."""
    with localcontext(prec=40):
        w, b = ([Decimal(float(value)) for value in parameter] for parameter in (weight, bias))  # (D,)
        outputs = []
        for row in x.reshape(-1, x.shape[-1]).tolist():
            values = [Decimal(value) for value in row]  # (D,)
            mean = sum(values, Decimal(0)) / len(values)
            variance = sum(((value - mean) ** 2 for value in values), Decimal(0)) / len(values)
            root = (variance + Decimal(epsilon)).sqrt()
            outputs.append([float((value - mean) / root * w[i] + b[i]) for i, value in enumerate(values)])
    return np.array(outputs).reshape(x.shape)


def of_constant_rows(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, Array, float]:
    """Return the output of constant rows, (n, D), and the bias."""
    return golden["output"][np.ptp(given["x"], axis=-1) == 0], given["bias"], 1e-10


RELATIONS = {
    "is the definition in 40 decimal digits, to 1e-12 of the scale": lambda given, golden: (
        golden["output"],
        in_decimal(**given),
        1e-12 * np.abs(golden["output"]).max(),
    ),
    "constant rows give the bias, to 1e-10": of_constant_rows,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, layer_norm, RELATIONS
)
