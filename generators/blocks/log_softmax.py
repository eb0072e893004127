"""The reference of the suite `log_softmax`: torch's own, in float64 on the CPU.

Source: `torch.log_softmax` and `torch.logsumexp`. The noise comes from the same written out: torch's own rounds the
logarithm of the sum to storage.
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
softmax = beside(__file__, "softmax")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def log_softmax(x: torch.Tensor, *, axis: int, temperature: float) -> dict[str, torch.Tensor]:
    """Return the logarithm of the sum of exponentials, without the axis, and of the softmax, the shape of `x`."""
    scores = x if temperature == 1 else x / temperature  # (...)
    return {"logsumexp": torch.logsumexp(scores, axis), "output": torch.log_softmax(scores, axis)}


def written_out(x: torch.Tensor, *, axis: int, temperature: float) -> dict[str, torch.Tensor]:
    """Return both from what is left of x without its maximum."""
    scores = x if temperature == 1 else x / temperature  # (...)
    shifted = scores - scores.amax(axis, keepdim=True) if x.numel() else scores  # (...)
    total = torch.exp(shifted).sum(axis, keepdim=True)  # (...) with 1 for the axis
    return {"logsumexp": torch.logsumexp(scores, axis), "output": shifted - torch.log(total)}


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output of slices, and the definition computed in decimal arithmetic of 60 digits."""
    if not golden or given["x"].shape[given["axis"]] > 100:
        return None
    x, found = softmax.slices(given, "output", golden)
    wanted = []
    with localcontext(prec=60, Emin=-10000, Emax=10000):
        for row in x.tolist():
            scores = [Decimal(v) / Decimal(given["temperature"]) if v > -np.inf else None for v in row]
            total = sum((score.exp() for score in scores if score is not None), Decimal(0)).ln()
            wanted.append([-np.inf if score is None else float(score - total) for score in scores])
    wanted_output = np.array(wanted).reshape(x.shape)
    scale = np.where(np.isfinite(x), np.abs(x), 0).max(-1, keepdims=True, initial=1) / given["temperature"]
    return found, wanted_output, np.broadcast_to(1e-14 * scale + 1e-14, x.shape)


def of_scipy(given: Given, golden: Goldens) -> tuple[Array, Array, float] | None:
    """Return the exponential of the output, and SciPy's softmax, of slices that are not hidden."""
    if not golden or not given["x"].size:
        return None
    x, found = softmax.slices(given, "output", golden)
    return np.exp(found), scipy.special.softmax(x / given["temperature"], axis=-1), 1e-12


def of_logsumexp(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output, and x / temperature less the other checkpoint."""
    if not golden:
        return None
    scores = given["x"] / given["temperature"]
    with np.errstate(invalid="ignore"):
        wanted = scores - np.expand_dims(golden["logsumexp"], given["axis"])
    return golden["output"], wanted, 1e-13 + 1e-15 * np.where(np.isfinite(scores), np.abs(scores), 0)


RELATIONS = {
    "is the definition in 60 decimal digits, to 1e-14 of the largest entry": in_decimal,
    "its exponential is scipy.special.softmax, to 1e-12": of_scipy,
    "is x / temperature - logsumexp, to 1e-13": of_logsumexp,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, log_softmax, RELATIONS, versions=("torch", "scipy")
)
perturbed = operation.generator(__file__, written_out, RELATIONS).perturbed
