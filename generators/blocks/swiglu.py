"""The reference of the suite `swiglu`: torch operations in float64 on the CPU.

Source: transformers, LlamaMLP, with gate and up projection in one matrix. D width of x, F hidden width, O of the
output.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def swiglu(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, *, layout: str) -> dict[str, torch.Tensor]:
    """Return the checkpoints."""
    return gated(x, gate_up, down, layout, lambda gate: gate * torch.sigmoid(gate))


def gated(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    layout: str,
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Return gate, up and hidden (..., F), and output (..., O)."""
    if layout == "interleaved":
        gate_rows, up_rows = gate_up[0::2], gate_up[1::2]  # (F, D) each
    else:
        halves = gate_up.chunk(2)
        gate_rows, up_rows = halves if layout == "gate_up" else halves[::-1]  # (F, D) each
    rows = x.reshape(-1, x.shape[-1])  # (n, D)
    gate, up = rows @ gate_rows.mT, rows @ up_rows.mT  # (n, F) each
    hidden = activation(gate) * up  # (n, F)
    found = {"gate": gate, "up": up, "hidden": hidden, "output": hidden @ down.mT}
    return {name: array.reshape(*x.shape[:-1], array.shape[-1]) for name, array in found.items()}


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def exact_product(x: Array, weight: Array) -> Array:
    """Return x (..., in) times weight (out, in) in rational arithmetic, rounded once."""
    rows = [[Fraction(value) for value in row] for row in x.reshape(-1, x.shape[-1]).tolist()]
    columns = [[Fraction(value) for value in row] for row in weight.tolist()]
    sums = [[float(sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))) for b in columns] for a in rows]
    return np.array(sums).reshape(*x.shape[:-1], len(weight))


def first_products(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return gate and up in turn, and x times the rows of gate_up in that order, exactly."""
    if not golden or not given["x"].size or given["gate_up"].size > 1000:
        return None
    F = len(given["gate_up"]) // 2
    order = {
        "gate_up": np.arange(2 * F),
        "up_gate": np.roll(np.arange(2 * F), F),
        "interleaved": np.arange(2 * F).reshape(F, 2).T.ravel(),
    }[given["layout"]]
    wanted = exact_product(given["x"], given["gate_up"][order])
    found = np.concatenate([golden["gate"], golden["up"]], -1)
    return found, wanted, np.full(wanted.shape, 1e-14 * np.abs(wanted).max())


def last_product(given: Given, golden: Goldens) -> tuple[Array, Array, float] | None:
    """Return the output, and the hidden channels times down, exactly."""
    if not golden or not given["x"].size or given["down"].size > 1000:
        return None
    wanted = exact_product(golden["hidden"], given["down"])
    return golden["output"], wanted, 1e-14 * float(np.abs(wanted).max())


def by_scipy(_: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the hidden channels, and those from SciPy's sigmoid."""
    if not golden:
        return None
    wanted = golden["gate"] * scipy.special.expit(golden["gate"]) * golden["up"]
    return golden["hidden"], wanted, 1e-14 * np.abs(wanted) + 1e-300


def by_torch(_: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the hidden channels, and those of torch.nn.functional.silu."""
    if not golden:
        return None
    wanted = torch.nn.functional.silu(torch.from_numpy(golden["gate"])).numpy() * golden["up"]
    return golden["hidden"], wanted, 1e-14 * np.abs(wanted) + 1e-300


PRODUCTS = {
    "gate and up are x times the rows that the layout names, in rational arithmetic, to 1e-14": first_products,
    "the output is hidden times down, in rational arithmetic, to 1e-14": last_product,
}
RELATIONS = PRODUCTS | {
    "hidden is gate scipy.special.expit(gate) up, to 1e-14": by_scipy,
    "hidden is torch.nn.functional.silu(gate) up, to 1e-14": by_torch,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, swiglu, RELATIONS, versions=("torch", "scipy")
)
