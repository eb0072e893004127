"""The reference of the suite `linear`: torch operations in float64 on the CPU.

Source: `torch.nn.functional.linear`; transformers, Conv1D ("in_out").
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, layout: str
) -> dict[str, torch.Tensor]:
    """Return the product and the output, (..., O)."""
    rows = x.reshape(-1, x.shape[-1]) if x.numel() else x  # (n, I)
    product = rows @ (weight.mT if layout == "out_in" else weight)  # (n, O)
    product = product.reshape(*x.shape[:-1], product.shape[-1])  # (..., O)
    return {"product": product, "output": product.clone() if bias is None else product + bias}


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def exactly(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output, and the sums in rational arithmetic, rounded once."""
    if not golden or not golden["output"].size:
        return None
    weight = given["weight"] if given["layout"] == "out_in" else given["weight"].T
    bias = given.get("bias", np.zeros(len(weight)))
    columns = [[Fraction(value) for value in row] for row in weight[:9].tolist()]  # of the first channels out
    x = given["x"].reshape(golden["output"].size // len(weight), weight.shape[1])  # (n, I)
    rows = [[Fraction(value) for value in row] for row in x.tolist()]
    sums = [
        [
            float(sum((p * q for p, q in zip(row, column, strict=True)), Fraction(float(b))))
            for column, b in zip(columns, bias, strict=False)
        ]
        for row in rows
    ]
    found = golden["output"].reshape(-1, len(weight))[:, :9]
    sizes = np.abs(x) @ np.abs(weight[:9]).T
    return found, np.array(sums), 1e-15 * (sizes + np.abs(bias[:9]))


def of_einsum(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the product, and numpy.einsum's."""
    if not golden:
        return None
    way = "...i,oi->...o" if given["layout"] == "out_in" else "...i,io->...o"
    sizes = np.einsum(way, np.abs(given["x"]), np.abs(given["weight"]))
    return golden["product"], np.einsum(way, given["x"], given["weight"]), 1e-14 * sizes


RELATIONS = {
    "the output is the sums in rational arithmetic, to 1e-15 of the sum of magnitudes": exactly,
    "the product is numpy.einsum's, to 1e-14 of the sum of magnitudes": of_einsum,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, linear, RELATIONS
)
