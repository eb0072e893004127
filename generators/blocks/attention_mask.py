"""The reference of the suite `attention_mask`: torch operations in float64 on the CPU.

Source: Vaswani et al. 2017, equation 1. B batch, H heads, S queries, T keys, D width of a head.
"""

import math
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax as softmax_of_scipy

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]


def attention_mask(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    mask_kind: str,
    mask_axes: str = "BHST",
) -> dict[str, torch.Tensor]:
    """Return the checkpoints of a case; the scale multiplies q, as it may, so that its rounding is expected."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, H, S, T)
    kept = torch.ones_like(scores, dtype=torch.bool)  # (B, H, S, T)
    if mask is not None:
        for place, letter in enumerate("BHST"):
            mask = mask if letter in mask_axes else mask.unsqueeze(place)
        mask = mask.expand_as(scores)  # (B, H, S, T)
        if mask_kind == "additive":
            kept = mask > -1000
            scores = scores + mask.where(kept, 0.0)
        else:
            kept = (mask == 0) if mask_kind == "bool_drop" else (mask != 0)
        scores = scores.where(kept, -torch.inf)  # (B, H, S, T)
    probabilities = torch.softmax(scores, -1).where(kept, 0.0)  # (B, H, S, T): NaN where no key is kept
    return {"masked_scores": scores, "probabilities": probabilities, "output": probabilities @ v}


# --- what must hold of the goldens -----------------------------------------------------------------------------------

MISSING = {"ST": (0, 1), "BT": (1, 2), "BST": (1,), "BHST": ()}
"""By the axes of a mask, those of (B, H, S, T) that it has not."""


def meaning(given: Given, golden: Given) -> tuple[Array, Array]:
    """Return entry by entry which keys are kept and what is added, (B, H, S, T) each."""
    shape = golden["probabilities"].shape
    if given["mask_kind"] == "none":
        return np.ones(shape, bool), np.zeros(shape)
    entries = np.asarray(given["mask"])
    added = np.array([weight(entry, given["mask_kind"]) for entry in entries.reshape(-1).tolist()])
    added = np.broadcast_to(np.expand_dims(added.reshape(entries.shape), MISSING[given["mask_axes"]]), shape)
    return np.isfinite(added), np.where(np.isfinite(added), added, 0)


def weight(entry: float, kind: str) -> float:
    """Return what an entry adds to a score, -inf where it drops the key."""
    if kind == "additive":
        return entry if entry > -1000 else -np.inf
    if kind == "bool_drop":
        return -np.inf if entry else 0.0
    return 0.0 if entry else -np.inf


def kept_alone(given: Given, golden: Given) -> tuple[Array, Array, float]:
    """Return the outputs, and those of attention over the keys that are kept, alone, by SciPy's softmax."""
    kept, added = meaning(given, golden)
    wanted = np.zeros_like(golden["output"])  # (B, H, S, D)
    for b, h, s in np.ndindex(wanted.shape[:3]):
        keys = np.flatnonzero(kept[b, h, s])
        if len(keys):
            scores = given["k"][b, h, keys] @ given["q"][b, h, s] / math.sqrt(wanted.shape[-1]) + added[b, h, s, keys]
            wanted[b, h, s] = softmax_of_scipy(scores) @ given["v"][b, h, keys]
    return golden["output"], wanted, 1e-13 * np.abs(given["v"]).max()


def in_decimal(given: Given, golden: Given) -> tuple[Array, Array, float] | None:
    """Return the outputs of the first head, and those of 40 decimal digits, of small cases."""
    if golden["probabilities"].size > 400:
        return None
    kept, added = meaning(given, golden)
    wanted = np.zeros_like(golden["output"][:, 0])  # (B, S, D)
    with localcontext(prec=40):
        for b, s in np.ndindex(wanted.shape[:2]):
            keys = np.flatnonzero(kept[b, 0, s])
            scores = [dot(given["q"][b, 0, s], given["k"][b, 0, t]) + Decimal(added[b, 0, s, t].item()) for t in keys]
            weights = [score.exp() for score in scores]
            for d in range(wanted.shape[2]):
                values = [Decimal(given["v"][b, 0, t, d].item()) for t in keys]
                total = sum((w * value for w, value in zip(weights, values, strict=True)), Decimal(0))
                wanted[b, s, d] = float(total / (sum(weights) or 1))
    return golden["output"][:, 0], wanted, 1e-13 * np.abs(given["v"]).max()


def dot(query: Array, key: Array) -> Decimal:
    """Return the scaled score of a query and a key, (D,) each."""
    products = (Decimal(x) * Decimal(y) for x, y in zip(query.tolist(), key.tolist(), strict=True))
    return sum(products, Decimal(0)) / Decimal(len(key)).sqrt()


def fused(given: Given, golden: Given) -> tuple[Array, Array, float]:
    """Return the outputs, and those of torch's fused attention under booleans."""
    kept, added = (torch.from_numpy(array.copy()) for array in meaning(given, golden))
    q, k, v = (torch.from_numpy(np.array(given[name])) for name in "qkv")
    bias = added.masked_fill(~kept, -torch.inf)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return golden["output"], wanted.numpy(), 1e-13 * np.abs(given["v"]).max()


def totals(given: Given, golden: Given) -> tuple[Array, Array, float]:
    """Return the sums of the probabilities of each query, and 1, or 0 where no key is kept."""
    kept, _ = meaning(given, golden)
    return golden["probabilities"].sum(-1), kept.any(-1).astype(float), 1e-14


RELATIONS = {
    "outputs are those of the kept keys alone, by SciPy's softmax, to 1e-13": kept_alone,
    "outputs agree with 40 decimal digits to 1e-13": in_decimal,
    "outputs are those of torch's scaled_dot_product_attention, to 1e-13": fused,
    "probabilities of a query add up to 1, or to 0 where no key is kept": totals,
    "scores are -inf where a key is dropped, and nowhere else": lambda given, golden: (
        np.isneginf(golden["masked_scores"]),
        ~meaning(given, golden)[0],
    ),
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, attention_mask, RELATIONS, versions=("torch", "scipy")
)
