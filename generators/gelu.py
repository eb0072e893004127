"""The reference of the suite `gelu`: its two formulas as torch operations, in float64 on the CPU.

Source: transformers, activations.py, NewGELUActivation ("tanh") and GELUActivation._gelu_python ("none"). They are
compositions, not `torch.nn.functional.gelu`, so that replaying them under noise shows where rounding comes in.
"""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat import Case, Suite
from karat.freeze import FreezeError, beside, plain_candidate

VERSIONS = ("torch",)
WITNESS = "the plain NumPy candidate in float64"

noise = beside(__file__, "_noise")
NOISE_STEP = noise.STEP

Arrays = dict[str, NDArray[Any]]


def reference(case: Case, inputs: Mapping[str, NDArray[Any]], dtype: torch.dtype = torch.float64) -> Arrays:
    """Return the checkpoint of `case`, computed in `dtype`."""
    x = torch.from_numpy(inputs["x"]).to(dtype)  # (...)
    if case.params["approximate"] == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))  # (...)
        output = 0.5 * x * (1 + torch.tanh(inner))  # (...)
    else:
        output = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))  # (...)
    return {"output": output.double().numpy()}


def perturbed(case: Case, inputs: Mapping[str, NDArray[Any]], kind: str, seed: int) -> Arrays:
    """Return the checkpoint of `case` with its operations perturbed by NOISE_STEP, as `_noise` says of `kind`."""
    with noise.perturbed(kind, seed):
        return reference(case, inputs)


def witness(case: Case, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the checkpoint of `case` as the plain NumPy definition computes it in float64."""
    return plain_candidate(__file__, "gelu", case, inputs)


# --- what must hold of the frozen numbers ----------------------------------------------------------------------------


def checks(suite: Suite, goldens: Mapping[str, Arrays], draw: Callable[[Case], Arrays]) -> list[str]:
    """Return a line for each relation that was found to hold; raise `FreezeError` where one does not."""
    for case in suite.cases:
        x, golden, formula = (
            draw(case)["x"].astype(np.float64),
            goldens[case.name]["output"],
            case.params["approximate"],
        )
        relations = {
            "torch.nn.functional.gelu": torch.nn.functional.gelu(torch.from_numpy(x), approximate=formula).numpy(),
            "a form without cancellation": np.vectorize({"tanh": by_sigmoid, "none": by_erfc}[formula])(x),
            "gelu(x) = x + gelu(-x)": x + reference(case, {"x": -x})["output"],
        }
        for relation, other in relations.items():
            excess = np.abs(golden - other) - 1e-15 * np.abs(x)  # 1 + tanh and 1 + erf end at the last bit of 1
            if not excess.max() <= 0:
                where = x.flat[excess.argmax()]
                raise FreezeError(f"{case.name}: at x = {where} more than 1e-15 |x| from {relation}")
    return [f"agrees to 1e-15 |x|: {relation}" for relation in relations]


def by_sigmoid(x: float) -> float:
    """Return the tanh formula as x sigmoid(2 z), in decimal arithmetic of 40 digits."""
    with localcontext(prec=40):
        d = Decimal(x)
        z = Decimal(math.sqrt(2 / math.pi)) * (d + Decimal("0.044715") * d**3)
        return float(d / (1 + (-2 * z).exp()))


def by_erfc(x: float) -> float:
    """Return x Phi(x) as x erfc(-x / sqrt 2) / 2."""
    return x * math.erfc(-x / math.sqrt(2)) / 2


def known_values(source: str | None, config: Mapping[str, Any], goldens: Mapping[str, Arrays]) -> list[str]:  # noqa: ARG001
    """Return a line for each published value, of which there are none."""
    return []
