"""The reference of the suite `geglu`: torch operations in float64 on the CPU.

Source: transformers, GemmaMLP and T5DenseGatedActDense with gelu_new ("tanh"); diffusers, GEGLU ("none"). Gate and up
projection are in one matrix.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")
swiglu = beside(__file__, "swiglu")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def geglu(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, *, layout: str, approximate: str
) -> dict[str, torch.Tensor]:
    """Return the checkpoints."""
    found: dict[str, torch.Tensor] = swiglu.gated(x, gate_up, down, layout, lambda gate: gelu(gate, approximate))
    return found


def gelu(z: torch.Tensor, approximate: str) -> torch.Tensor:
    """Return GELU, composed as transformers has it."""
    if approximate == "tanh":
        return 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * torch.pow(z, 3))))
    return 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def by_scipy(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the hidden channels, and those of a form that cancels nothing, by SciPy."""
    if not golden:
        return None
    z = golden["gate"]
    inner = 2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)
    phi = scipy.special.ndtr(z) if given["approximate"] == "none" else scipy.special.expit(inner)
    return golden["hidden"], z * phi * golden["up"], 1e-14 * np.abs(z * golden["up"])


def by_torch(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the hidden channels, and those of torch.nn.functional.gelu."""
    if not golden:
        return None
    gelu = torch.nn.functional.gelu(torch.from_numpy(golden["gate"]), approximate=given["approximate"]).numpy()
    return golden["hidden"], gelu * golden["up"], 1e-14 * np.abs(golden["gate"] * golden["up"])


RELATIONS = swiglu.PRODUCTS | {
    "hidden is gate Phi(gate) up by SciPy's ndtr or expit, to 1e-14 |gate up|": by_scipy,
    "hidden is torch.nn.functional.gelu(gate) up, to 1e-14 |gate up|": by_torch,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, geglu, RELATIONS, versions=("torch", "scipy")
)
