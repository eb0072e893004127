"""Correct ways to compute GELU that differ from the plain candidate's: they must pass under what they honour.

None loses the tail: where x is far below 0, each errs no more than 1 + tanh or 1 + erf does.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation
from karat.freeze import beside

Array = Any

faults = beside(__file__, "gelu_faults")

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")
IN_TORCH = (*EACH_OPERATION, "bfloat16-once", "float16-once")


def in_torch(formula: Callable[[Any, str], Any]) -> Callable[[Any], None]:
    """Return a change to the whole: `formula(x, approximate)` of a tensor in the storage format."""

    def change(plain: Any) -> None:
        def gelu(x: Array, *, approximate: str) -> dict[str, Array]:
            tensor = torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))
            output = formula(tensor, approximate)  # (...)
            return {"output": output.double().numpy().astype(x.dtype)}  # exact, there and back

        plain.gelu = gelu

    return change


def composed(x: Any, approximate: str) -> Any:
    """Return GELU as transformers composes it (NewGELUActivation), every operation rounded to storage."""
    if approximate == "none":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


def phi(*, tanh: Callable[[Array], Array], erf: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to both distribution functions: `tanh(z)`, z what tanh is taken of, and `erf(x)`."""

    def change(plain: Any) -> None:
        plain.tanh_formula = lambda x: tanh(faults.SCALE * (x + 0.044715 * x * x * x))
        plain.normal_distribution = erf

    return change


def half_erfc(x: Array) -> Array:
    """Return erfc(-x / sqrt 2) / 2, which does not cancel."""
    return np.vectorize(lambda value: 0.5 * math.erfc(-value / math.sqrt(2)), otypes=[x.dtype])(x)


def ndtr(x: Array) -> Array:
    """Return the distribution function as torch has it."""
    return torch.special.ndtr(torch.from_numpy(x)).numpy()


def torch_erf(x: Array) -> Array:
    """Return it from torch's erf, in the format of x."""
    return 0.5 * (1 + torch.erf(torch.from_numpy(x) / math.sqrt(2))).numpy()


def half_plus(x: Array) -> Array:
    """Return 1/2 + erf(x / sqrt 2) / 2."""
    return 0.5 + 0.5 * torch.erf(torch.from_numpy(x) * math.sqrt(0.5)).numpy()


def by_exp(z: Array) -> Array:
    """Return (1 + tanh z) / 2 with tanh z = 1 - 2 / (exp(2 z) + 1)."""
    return 0.5 * (1 + (1 - 2 / (np.exp(2 * z) + 1)))


def by_expm1(z: Array) -> Array:
    """Return (1 + tanh z) / 2 with tanh z = expm1(2 z) / (expm1(2 z) + 2)."""
    grown = np.expm1(2 * np.minimum(z, 20))
    return 0.5 * (1 + grown / (grown + 2))


def by_sigmoid(z: Array) -> Array:
    """Return (1 + tanh z) / 2 = sigmoid(2 z), which does not cancel."""
    return 1 / (1 + np.exp(-2 * z))


FORMULATIONS = (
    Formulation("torch", "torch.nn.functional.gelu in storage",
                in_torch(lambda x, approximate: torch.nn.functional.gelu(x, approximate=approximate)), IN_TORCH),
    Formulation("composed", "every operation rounded to storage", in_torch(composed), EACH_OPERATION),
    Formulation("sigmoid_erfc", "x sigmoid(2 z); x erfc(-x / sqrt 2) / 2", phi(tanh=by_sigmoid, erf=half_erfc)),
    Formulation("exp_ndtr", "tanh z as 1 - 2 / (exp(2 z) + 1); torch's ndtr", phi(tanh=by_exp, erf=ndtr)),
    Formulation("expm1_erf", "tanh z by expm1; torch's erf", phi(tanh=by_expm1, erf=torch_erf)),
    Formulation("halves_inside", "x (1/2 + tanh z / 2)", phi(tanh=lambda z: 0.5 + 0.5 * np.tanh(z), erf=half_plus)),
)  # fmt: skip
