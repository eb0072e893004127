"""Attention under a mask in plain NumPy: the definition, to read and to copy.

Vaswani et al., "Attention Is All You Need" (2017), equation 1. Everything is computed in float32 (float64 where q is),
and what is returned is rounded once to the format of q. B batch, H heads, S queries, T keys, D width of a head.
"""

import math

import numpy as np

AXES = ("ST", "BT", "BST", "BHST")
ENTRIES = {
    "bool_keep": "b",
    "bool_drop": "b",
    "int_keep": "iu",
    "float_keep": "f",
    "additive": "f",
}
"""By mask kind, what NumPy calls the kind of its entries."""

DROPS = -1000.0
"""An additive mask drops a key with this entry or less."""


def attention_mask(q, k, v, mask=None, *, mask_kind, mask_axes=None):
    """Return the checkpoints of attention of q (B, H, S, D) over k and v (B, H, T, D) under a mask."""
    check(q, k, mask, mask_kind, mask_axes)
    scores = attention_scores(wide(q), wide(k))  # (B, H, S, T)
    if mask is not None:
        placed = four_axes(mask, mask_axes)  # (B or 1, H or 1, S or 1, T)
        scores = apply_mask(scores, kept_keys(placed, mask_kind), bias(placed, mask_kind))  # (B, H, S, T)
    probabilities = softmax(scores)  # (B, H, S, T)
    output = context(probabilities, wide(v))  # (B, H, S, D)
    found = {"masked_scores": scores, "probabilities": probabilities, "output": output}
    return {name: value.astype(q.dtype) for name, value in found.items()}


def attention_scores(q, k):
    """Q k^T / sqrt(D), (B, H, S, T)."""
    return q @ k.swapaxes(-1, -2) / q.dtype.type(math.sqrt(q.shape[-1]))


def four_axes(mask, axes):
    """Put a mask's axes where scores have them; those that it has not get length 1."""
    missing = tuple(place for place, letter in enumerate("BHST") if letter not in axes)
    return np.expand_dims(mask, missing)


def kept_keys(mask, kind):
    """Say which keys a query keeps, boolean, the shape of `mask`."""
    if kind == "additive":
        return mask > DROPS
    return mask == 0 if kind == "bool_drop" else mask != 0


def bias(mask, kind):
    """Return what an additive mask adds to the scores of keys that are kept, 0 for the other kinds, as `mask`."""
    if kind != "additive":
        return np.zeros(mask.shape, np.float32)
    return np.where(kept_keys(mask, kind), wide(mask), 0)


def apply_mask(scores, kept, added):
    """Add biases, and replace the scores of dropped keys by minus infinity, (B, H, S, T)."""
    return np.where(kept, scores + added.astype(scores.dtype), scores.dtype.type(-np.inf))


def softmax(scores):
    """Softmax over the keys; 0 for a query all of whose keys are dropped, (B, H, S, T)."""
    largest = scores.max(-1, keepdims=True)  # (B, H, S, 1)
    exponentials = np.exp(scores - np.where(np.isfinite(largest), largest, 0))  # (B, H, S, T)
    total = exponentials.sum(-1, keepdims=True)  # (B, H, S, 1)
    return exponentials / np.where(total > 0, total, 1)


def context(probabilities, v):
    """Weighted sums of the values, (B, H, S, D)."""
    return probabilities @ v


def wide(x):
    """Return `x` in the format in which sums are computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


# --- what is refused -------------------------------------------------------------------------------------------------


def require(condition, text):
    """Raise `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(text)


def check(q, k, mask, kind, axes):
    """Refuse masks that do not say, or do not say rightly, what they mean."""
    require(kind in ("none", *ENTRIES), f"no mask kind {kind!r}")
    require(
        (mask is None) == (kind == "none"), f"a mask of the kind {kind!r} {'is missing' if mask is None else 'given'}"
    )
    if mask is not None:
        require(axes in AXES, f"no mask axes {axes!r}")
        require(mask.ndim == len(axes), f"a mask of rank {mask.ndim} for the axes {axes}")
        check_lengths(mask, axes, dict(zip("BHST", (*q.shape[:3], k.shape[2]), strict=True)))
        check_entries(mask, kind)


def check_lengths(mask, axes, sizes):
    """Refuse a mask of other lengths than its axes have."""
    for letter, length in zip(axes, mask.shape, strict=True):
        fits = length == sizes[letter] or (length == 1 and letter != "T")
        require(fits, f"a mask of length {length} along {letter}, which has {sizes[letter]}")


def check_entries(mask, kind):
    """Refuse entries that the kind does not know."""
    of_kind = "f" if mask.dtype.name == "bfloat16" else mask.dtype.kind
    require(of_kind in ENTRIES[kind], f"a mask of {mask.dtype.name} entries cannot be {kind}")
    if kind == "float_keep":
        require(((mask == 0) | (mask == 1)).all(), "entries of float_keep must be 0 or 1")
    if kind == "additive":
        require((wide(mask) < np.inf).all(), "an additive mask must not hold NaN or +inf")
