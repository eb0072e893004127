"""The reference of the suite `favor_attention`: positive random features, torch operations in float64 on the CPU.

Source: Choromanski et al. 2021, lemma 1; the stabilisers are those of the authors' code (fast_attention.py,
nonnegative_softmax_kernel_feature_creator), without its epsilon. B batch, H heads, S queries, T keys, M features.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]


def favor_attention(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor, mask: Tensor | None = None, *, causal: bool
) -> dict[str, Tensor]:
    """Return the checkpoints."""
    queries, keys = exponents(q, projection), exponents(k, projection)  # (B, H, S, M), (B, H, T, M)
    shown = keys if mask is None else keys.masked_fill((mask == 0)[:, None, :, None], -torch.inf)
    largest = shown.amax((-2, -1), keepdim=True)  # (B, H, 1, 1)
    key_features = torch.exp(shown - torch.where(largest.isfinite(), largest, 0))  # (B, H, T, M)
    query_features = torch.exp(queries - queries.amax(-1, keepdim=True))  # (B, H, S, M)
    weights = query_features @ key_features.mT  # (B, H, S, T)
    if causal:
        weights = weights.tril()
    total = weights.sum(-1, keepdim=True)  # (B, H, S, 1)
    output = (weights @ v) / torch.where(total > 0, total, 1)
    return {"q_exponents": queries, "k_exponents": keys, "output": output}


def exponents(x: Tensor, projection: Tensor) -> Tensor:
    """Return w . x - |x|^2 / 2 with x over D^(1/4), (B, H, n, M)."""
    x = x * torch.tensor(x.shape[-1], dtype=torch.float64) ** -0.25  # a tensor: one rounding for all
    return x @ projection.mT - (x * x).sum(-1, keepdim=True) / 2


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def by_squares(given: Given, golden: Given) -> tuple[Any, ...]:
    """Compare exponents with |w|^2 / 2 - |w - x|^2 / 2."""
    w, found, wanted = given["projection"], [], []
    for name in ("q", "k"):
        x = given[name] / math.sqrt(math.sqrt(given[name].shape[-1]))
        apart = np.square(w - x[..., None, :]).sum(-1)  # (B, H, n, M)
        found.append(golden[f"{name}_exponents"].ravel())
        wanted.append(((np.square(w).sum(-1) - apart) / 2).ravel())
    return np.concatenate(found), np.concatenate(wanted), 1e-12


def by_logarithms(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare outputs with weights computed as logarithms all the way."""
    queries, keys = golden["q_exponents"], golden["k_exponents"]
    if not queries.size:
        return None
    logarithms = logsumexp(queries[:, :, :, None] + keys[:, :, None], axis=-1)  # (B, H, S, T)
    counts = np.ones(logarithms.shape, bool)
    if "mask" in given:
        counts &= (given["mask"] != 0)[:, None, None]
    if given["causal"]:
        counts = np.tril(counts)
    logarithms = np.where(counts, logarithms, -np.inf)
    seen = counts.any(-1, keepdims=True)
    weights = np.exp(logarithms - np.where(seen, logsumexp(np.where(seen, logarithms, 0), axis=-1, keepdims=True), 0))
    return golden["output"], weights @ given["v"], 1e-12


def near_softmax(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare exponentials of products with their estimates, the means of the features' products, in order of size."""
    if golden["q_exponents"].shape[-1] < 50:
        return None
    queries, keys = np.exp(golden["q_exponents"]), np.exp(golden["k_exponents"])
    estimates = (queries @ keys.swapaxes(-1, -2)).mean()
    exact = np.exp(given["q"] @ given["k"].swapaxes(-1, -2) / math.sqrt(given["q"].shape[-1])).mean()
    return np.array(queries.shape[-1] ** -1 * estimates), exact, 0.6 * exact


RELATIONS = {
    "exponents are |w|^2 / 2 - |w - x|^2 / 2, to 1e-12": by_squares,
    "outputs are averages whose weights are logarithms all the way, to 1e-12": by_logarithms,
    "with 64 features the mean weight is that of the softmax, to 60 %": near_softmax,
}
VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, favor_attention, RELATIONS, versions=("torch", "scipy")
)
