"""The reference of the suite `layer_norm`: torch's own, in float64 on the CPU.

Source: Ba, Kiros and Hinton 2016, equations 3 and 4; `torch.nn.functional.layer_norm`. D width.
"""

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
    x, weight, bias = (torch.from_numpy(inputs[name]).to(dtype) for name in ("x", "weight", "bias"))  # (..., D), (D,)
    output = torch.nn.functional.layer_norm(x, weight.shape, weight, bias, case.params["epsilon"])  # (..., D)
    return {"output": output.double().numpy()}


def perturbed(case: Case, inputs: Mapping[str, NDArray[Any]], kind: str, seed: int) -> Arrays:
    """Return the checkpoint of `case` with its operations perturbed by NOISE_STEP, as `_noise` says of `kind`."""
    with noise.perturbed(kind, seed):
        return reference(case, inputs)


def witness(case: Case, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the checkpoint of `case` as the plain NumPy definition computes it in float64."""
    return plain_candidate(__file__, "layer_norm", case, inputs)


# --- what must hold of the frozen numbers ----------------------------------------------------------------------------


def checks(suite: Suite, goldens: Mapping[str, Arrays], draw: Callable[[Case], Arrays]) -> list[str]:
    """Return a line for each relation that was found to hold; raise `FreezeError` where one does not."""
    worst = 0.0
    for case in suite.cases:
        inputs, golden = draw(case), goldens[case.name]["output"]
        exact = in_decimal(inputs["x"], inputs["weight"], inputs["bias"], case.params["epsilon"])
        apart = float(np.abs(exact - golden).max() / np.abs(golden).max())
        if not apart <= 1e-12:
            raise FreezeError(f"{case.name}: {apart:.1e} of the scale from 40 decimal digits, allowed 1e-12")
        worst = max(worst, apart)
        constant = np.ptp(inputs["x"], axis=-1) == 0  # (...)
        beyond_bias = float(np.abs(golden[constant] - inputs["bias"]).max(initial=0))
        if not beyond_bias <= 1e-10:
            raise FreezeError(f"{case.name}: a constant row gives {beyond_bias:.1e} other than the bias")
    return [f"40 decimal digits agree to {worst:.1e} of the scale", "constant rows give the bias"]


def in_decimal(x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any], epsilon: float) -> NDArray[Any]:
    """Return the definition computed in decimal arithmetic of 40 digits, shape of `x`."""
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


def known_values(source: str | None, config: Mapping[str, Any], goldens: Mapping[str, Arrays]) -> list[str]:  # noqa: ARG001
    """Return a line for each published value, of which there are none."""
    return []
