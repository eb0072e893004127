"""The reference of the suite `softmax`: torch's own, in float64 on the CPU.

Source: `torch.softmax` and `torch.logsumexp`. "zero" is what torch's scaled_dot_product_attention makes of a row of
which all is masked.
"""

from collections.abc import Mapping
from decimal import Decimal, localcontext
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


def softmax(x: torch.Tensor, *, axis: int, temperature: float, empty: str) -> dict[str, torch.Tensor]:
    """Return the logarithm of the sum of exponentials, without the axis, and the softmax, the shape of `x`."""
    scores = x if temperature == 1 else x / temperature  # (...)
    output = torch.softmax(scores, axis)  # (...)
    if empty == "zero":
        output = torch.where((x == -torch.inf).all(axis, keepdim=True), 0.0, output)
    return {"logsumexp": torch.logsumexp(scores, axis), "output": output}


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def slices(given: Given, name: str, golden: Goldens) -> tuple[Array, Array]:
    """Return the slices of x over the temperature, (n, K), and of a golden, likewise, finite ones only."""
    x, found = (np.moveaxis(array, given["axis"], -1) for array in (given["x"], golden[name]))
    x, found = x.reshape(-1, x.shape[-1]), found.reshape(-1, x.shape[-1])
    right = ~np.isnan(x).any(-1) & (x > -np.inf).any(-1)
    return x[right], found[right]


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output of slices, and the definition computed in decimal arithmetic of 40 digits."""
    if not golden or given["x"].shape[given["axis"]] > 100:
        return None
    x, found = slices(given, "output", golden)
    wanted = []
    with localcontext(prec=40, Emin=-10000, Emax=10000):
        for row in x.tolist():
            powers = [(Decimal(v) / Decimal(given["temperature"])).exp() if v > -np.inf else Decimal(0) for v in row]
            wanted.append([float(power / sum(powers, Decimal(0))) for power in powers])
    wanted_output = np.array(wanted).reshape(x.shape)
    return found, wanted_output, 1e-13 * wanted_output + 1e-300


def of_scipy(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the logarithm of the sum of exponentials, and SciPy's."""
    if not golden or not given["x"].size:
        return None
    scores = given["x"] / given["temperature"]
    with np.errstate(divide="ignore"):
        wanted = np.asarray(scipy.special.logsumexp(scores, axis=given["axis"]))
    return golden["logsumexp"], wanted, 1e-13 * np.where(np.isfinite(wanted), np.abs(wanted) + 1, 1)


def sums(given: Given, golden: Goldens) -> tuple[Array, int, float] | None:
    """Return what the slices add up to."""
    if not golden or 1 < given["x"].shape[given["axis"]] > 100:
        return None
    return slices(given, "output", golden)[1].sum(-1), 1, 1e-14


def hidden(given: Given, golden: Goldens) -> tuple[Array, float] | None:
    """Return the output of slices that are hidden altogether."""
    if not golden:
        return None
    all_hidden = (given["x"] == -np.inf).all(given["axis"], keepdims=True)
    value = 0.0 if given["empty"] == "zero" else np.nan
    return golden["output"][np.broadcast_to(all_hidden, given["x"].shape)], value


RELATIONS = {
    "is the definition in 40 decimal digits, to 1e-13": in_decimal,
    "logsumexp is scipy.special.logsumexp, to 1e-13": of_scipy,
    "adds up to 1, to 1e-14": sums,
    "is NaN or 0, as asked for, where all is hidden": hidden,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, softmax, RELATIONS, versions=("torch", "scipy")
)
