"""Correct ways to compute a feed-forward block with GEGLU that differ from the plain candidate's: they must pass."""

import math
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any

swiglu = beside(__file__, "swiglu_formulations")
SCALE = math.sqrt(2 / math.pi)


def composed(z: Any, approximate: str) -> Any:
    """Return GELU as transformers composes it, every operation rounded to storage."""
    if approximate == "none":
        return z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    return 0.5 * z * (1 + torch.tanh(SCALE * (z + 0.044715 * torch.pow(z, 3))))


def without_cancellation(z: Array, approximate: str) -> Array:
    """Return it by a sigmoid or by erfc, which lose nothing in the tail."""
    if approximate == "tanh":
        return z / (1 + np.exp(-2 * SCALE * (z + 0.044715 * z * z * z)))
    return z * np.vectorize(lambda value: 0.5 * math.erfc(-value / math.sqrt(2)), otypes=[z.dtype])(z)


def halves_inside(z: Array, approximate: str) -> Array:
    """Return z (1/2 + tanh / 2), or z (1/2 + erf / 2) by torch's erf."""
    if approximate == "tanh":
        return z * (0.5 + 0.5 * np.tanh(SCALE * z * (1 + 0.044715 * z * z)))
    return z * (0.5 + 0.5 * torch.erf(torch.from_numpy(z) * math.sqrt(0.5)).numpy())


def whole(formula: Any) -> Any:
    """Return a change to GELU: `formula(z, approximate)`."""
    return wrap(gelu=lambda _: formula)


FORMULATIONS = (
    Formulation("torch", "torch's linear and gelu, in storage", swiglu.in_torch(torch.nn.functional.gelu),
                swiglu.EACH_OPERATION),
    Formulation("torch_composed", "GELU composed, every operation rounded to storage", swiglu.in_torch(composed),
                swiglu.EACH_OPERATION),
    *swiglu.shared(),
    Formulation("without_cancellation", "x sigmoid(2 z); x erfc(-x / sqrt 2) / 2", whole(without_cancellation)),
    Formulation("halves_inside", "x (1/2 + tanh z / 2); torch's erf", whole(halves_inside)),
)  # fmt: skip
