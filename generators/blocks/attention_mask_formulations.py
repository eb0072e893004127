"""Correct ways to mask attention that differ from the plain candidate's: they must pass under what they honour.

B batch, H heads, S queries, T keys, D width of a head.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from karat.faults import Formulation, wrap

Array = Any
Tensor = Any
Change = Callable[[Any], None]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")
"""Those that round each operation; what is within float32 is within tfloat32."""


def tensor(x: Array) -> Tensor:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    known = x.dtype.name in ("bool", "uint8", "int64")
    return (
        torch.from_numpy(x.copy()) if known else torch.from_numpy(x.astype(np.float64)).to(getattr(torch, x.dtype.name))
    )


def array(x: Tensor, like: Array) -> Array:
    """Return a tensor as an array of the format of `like`."""
    return x.double().numpy().astype(like.dtype)


def whole(formula: Callable[..., dict[str, Array]]) -> Change:
    """Return a change to the whole: `formula(plain, q, k, v, kept, bias)` of arrays in storage.

    `kept` and `bias`, float32 or float64, have four axes, some of length 1. What it returns is rounded to storage.
    """

    def change(plain: Any) -> None:
        def attention_mask(
            q: Array, k: Array, v: Array, mask: Array = None, *, mask_kind: str, mask_axes: str = ""
        ) -> dict[str, Array]:
            kept, bias = np.ones((1, 1, 1, k.shape[2]), bool), np.zeros((1, 1, 1, k.shape[2]), np.float32)
            if mask is not None:
                placed = plain.four_axes(mask, mask_axes)
                kept, bias = plain.kept_keys(placed, mask_kind), plain.bias(placed, mask_kind)
            found = formula(plain, q, k, v, kept, bias)
            return {name: value.astype(q.dtype) for name, value in found.items()}

        plain.attention_mask = attention_mask

    return change


# --- in torch --------------------------------------------------------------------------------------------------------


def eager(*, upcast: bool) -> Change:
    """Return all checkpoints as transformers' eager attention computes them, each operation in storage.

    With `upcast` the softmax is in float32.
    """

    def formula(_: Any, q: Array, k: Array, v: Array, kept: Array, bias: Array) -> dict[str, Array]:
        scores = tensor(q) @ tensor(k).mT * q.shape[-1] ** -0.5  # (B, H, S, T)
        added = tensor(bias).to(scores.dtype).masked_fill(~tensor(kept), -torch.inf)
        scores = scores + added
        wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
        probabilities = torch.softmax(scores, -1, dtype=wide if upcast else None).to(scores.dtype)
        probabilities = probabilities.nan_to_num(0)
        found = {"masked_scores": scores, "probabilities": probabilities, "output": probabilities @ tensor(v)}
        return {name: array(x, q) for name, x in found.items()}

    return whole(formula)


def fused(backend: Any, *, booleans: bool) -> Change:
    """Return the output of torch's scaled_dot_product_attention in storage.

    Its mask is additive, or of booleans where there is no bias.
    """

    def formula(_: Any, q: Array, k: Array, v: Array, kept: Array, bias: Array) -> dict[str, Array]:
        shape = (*q.shape[:3], k.shape[2])
        mask = tensor(np.broadcast_to(kept, shape))
        if not booleans or bias.any():
            mask = tensor(np.broadcast_to(bias, shape)).to(tensor(q).dtype).masked_fill(~mask, -torch.inf)
        with sdpa_kernel(backend):
            output = scaled_dot_product_attention(tensor(q), tensor(k), tensor(v), attn_mask=mask)
        return {"output": array(output, q)}

    return whole(formula)


def by_nested_rows(_: Any, q: Array, k: Array, v: Array, kept: Array, bias: Array) -> dict[str, Array]:
    """Gather the keys that each query keeps and attend to them alone, in torch."""
    shape = (*q.shape[:3], k.shape[2])
    kept, bias = np.broadcast_to(kept, shape), np.broadcast_to(bias, shape)
    output = np.zeros(q.shape, q.dtype)
    for b, h, s in np.ndindex(shape[:3]):
        keys = np.flatnonzero(kept[b, h, s])
        if len(keys):
            query, added = tensor(q[b, h, s][None]), tensor(bias[b, h, s, keys][None])  # (1, D), (1, kept keys)
            key, value = tensor(k[b, h, keys]), tensor(v[b, h, keys])  # (kept keys, D)
            found = scaled_dot_product_attention(query, key, value, attn_mask=added.to(query.dtype))
            output[b, h, s] = array(found, q)[0]
    return {"output": output}


# --- in NumPy --------------------------------------------------------------------------------------------------------


def online(size: int, *, skipping: bool) -> Change:
    """Return the output over blocks of `size` keys, the running largest score and sum rescaled (Milakov 2018).

    With `skipping`, blocks of which nothing is kept are not looked at.
    """

    def formula(plain: Any, q: Array, k: Array, v: Array, kept: Array, bias: Array) -> dict[str, Array]:
        scores = plain.apply_mask(plain.attention_scores(plain.wide(q), plain.wide(k)), kept, bias)  # (B, H, S, T)
        largest = np.full((*q.shape[:3], 1), -np.inf, scores.dtype)  # (B, H, S, 1)
        total, output = np.zeros_like(largest), np.zeros_like(plain.wide(q))
        for start in range(0, k.shape[2], size):
            block = slice(start, start + size)
            if skipping and np.isneginf(scores[..., block]).all():
                continue
            grown = np.maximum(largest, scores[..., block].max(-1, keepdims=True))
            known = np.where(np.isfinite(grown), grown, 0)
            weights, shrunk = np.exp(scores[..., block] - known), np.exp(largest - known)
            total = total * shrunk + weights.sum(-1, keepdims=True)
            output = output * shrunk + weights @ plain.wide(v[..., block, :])
            largest = grown
        return {"output": output / np.where(total > 0, total, 1)}

    return whole(formula)


def by_multiplication(plain: Any, q: Array, k: Array, v: Array, kept: Array, bias: Array) -> dict[str, Array]:
    """Multiply exponentials by the mask instead of filling scores; the largest score is of kept keys."""
    scores = plain.attention_scores(plain.wide(q), plain.wide(k)) + bias.astype(plain.wide(q).dtype)
    kept = np.broadcast_to(kept, scores.shape)
    largest = np.where(kept, scores, -np.inf).max(-1, keepdims=True)
    weights = np.where(kept, np.exp(np.minimum(scores - np.where(np.isfinite(largest), largest, 0), 0)), 0)
    total = weights.sum(-1, keepdims=True)
    probabilities = weights / np.maximum(total, np.finfo(total.dtype).tiny)
    return {"probabilities": probabilities, "output": probabilities @ plain.wide(v)}


def finite_fill(fill: float) -> Change:
    """Fill with a finite number, and set queries that keep no key to 0 afterwards."""

    def formula(plain: Any, q: Array, k: Array, v: Array, kept: Array, bias: Array) -> dict[str, Array]:
        scores = plain.attention_scores(plain.wide(q), plain.wide(k)) + bias.astype(plain.wide(q).dtype)
        weights = plain.softmax(np.where(kept, scores, scores.dtype.type(fill)))
        probabilities = weights * kept.any(-1, keepdims=True)
        return {"probabilities": probabilities, "output": probabilities @ plain.wide(v)}

    return whole(formula)


def finite_fill_added(plain: Any, q: Array, k: Array, v: Array, kept: Array, bias: Array) -> dict[str, Array]:
    """Add (1 - mask) * -1e4 in the format of the sums, and set queries that keep no key to 0 afterwards."""
    scores = plain.attention_scores(plain.wide(q), plain.wide(k)) + bias.astype(plain.wide(q).dtype)
    weights = plain.softmax(scores + (1 - kept.astype(scores.dtype)) * scores.dtype.type(-1e4))
    probabilities = weights * kept.any(-1, keepdims=True)
    return {"probabilities": probabilities, "output": probabilities @ plain.wide(v)}


def logarithm_of_mask(scores: Array, kept: Array, added: Array) -> Array:
    """Add the logarithm of the mask, 0 and -inf."""
    with np.errstate(divide="ignore"):
        return scores + (added.astype(scores.dtype) + np.log(kept.astype(scores.dtype)))


def by_exp2(scores: Array) -> Array:
    """Return the softmax with log2(e) folded into the scores, as fast kernels do."""
    folded = scores * scores.dtype.type(math.log2(math.e))
    largest = folded.max(-1, keepdims=True)
    weights = np.exp2(folded - np.where(np.isneginf(largest), 0, largest))
    total = weights.sum(-1, keepdims=True)
    return weights * np.where(total == 0, 0, 1 / np.where(total == 0, 1, total))


def rounded_each(plain: Any, q: Array, k: Array, v: Array, kept: Array, bias: Array) -> dict[str, Array]:
    """Round to storage after each operation: q / sqrt(D), scores, biased scores, probabilities."""

    def store(x: Array) -> Array:
        return plain.wide(x.astype(q.dtype))

    scaled = store(plain.wide(q) * plain.wide(q).dtype.type(q.shape[-1] ** -0.5))
    scores = store(store(scaled @ plain.wide(k).mT) + store(bias))
    scores = np.where(kept, scores, -np.inf).astype(scores.dtype)
    probabilities = store(plain.softmax(scores))
    return {"masked_scores": scores, "probabilities": probabilities, "output": probabilities @ plain.wide(v)}


def eleven_bits(x: Array) -> Array:
    """Round float32 numbers to the 11 bits of TF32, ties to even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def in_tfloat32(plain: Any) -> None:
    """Round the operands of every product to 11 bits, as tensor cores do."""
    plain.attention_scores = lambda q, k: eleven_bits(q * q.dtype.type(q.shape[-1] ** -0.5)) @ eleven_bits(k).mT
    plain.context = lambda probabilities, v: eleven_bits(probabilities) @ eleven_bits(v)


def head_by_head(right: Any) -> Any:
    """Compute each head of each row of the batch by itself, with the mask broadcast to it."""

    def attention_mask(q: Array, k: Array, v: Array, mask: Array = None, *, mask_kind: str, mask_axes: str = "") -> Any:
        B, H, S, _ = q.shape
        if mask is not None:
            missing = tuple(place for place, letter in enumerate("BHST") if letter not in mask_axes)
            mask = np.broadcast_to(np.expand_dims(mask, missing), (B, H, S, k.shape[2]))
        parts = [
            right(
                *(x[b : b + 1, h : h + 1] for x in (q, k, v)),
                None if mask is None else mask[b, h],
                mask_kind=mask_kind,
                **({} if mask is None else {"mask_axes": "ST"}),
            )
            for b, h in np.ndindex(B, H)
        ]
        return {name: np.concatenate([p[name] for p in parts]).reshape(B, H, S, -1) for name in parts[0]}

    return attention_mask


def key_by_key(probabilities: Array, v: Array) -> Array:
    """Add up the values key by key, the last first."""
    total = np.zeros((*probabilities.shape[:-1], v.shape[-1]), v.dtype)
    for t in reversed(range(v.shape[-2])):
        total = total + probabilities[..., t, None] * v[..., None, t, :]
    return total


def wider(right: Any) -> Any:
    """Compute in float64 throughout."""

    def attention_mask(q: Array, k: Array, v: Array, mask: Array = None, **given: Any) -> Any:
        found = right(*(x.astype(np.float64) for x in (q, k, v)), mask, **given)
        return {name: value.astype(q.dtype) for name, value in found.items()}

    return attention_mask


MATH, FLASH = SDPBackend.MATH, SDPBackend.FLASH_ATTENTION

FORMULATIONS = (
    Formulation("eager", "transformers' eager attention in storage", eager(upcast=False), EACH_OPERATION),
    Formulation("eager_upcast", "the same with the softmax in float32", eager(upcast=True), EACH_OPERATION),
    Formulation("rounded_each", "each operation rounded, the scale on q", whole(rounded_each), EACH_OPERATION),
    Formulation("sdpa_math", "scaled_dot_product_attention, math", fused(MATH, booleans=False), EACH_OPERATION),
    Formulation("sdpa_math_booleans", "the same under booleans", fused(MATH, booleans=True), EACH_OPERATION),
    Formulation("sdpa_flash", "scaled_dot_product_attention, flash", fused(FLASH, booleans=False), EACH_OPERATION),
    Formulation("sdpa_flash_booleans", "the same under booleans", fused(FLASH, booleans=True), EACH_OPERATION),
    Formulation("kept_keys_alone", "the keys that a query keeps gathered", whole(by_nested_rows), EACH_OPERATION),
    Formulation("online_1", "online softmax, key by key", online(1, skipping=False)),
    Formulation("online_3_skipping", "online softmax over three keys, empty blocks skipped", online(3, skipping=True)),
    Formulation("multiplied", "exponentials multiplied by the mask", whole(by_multiplication)),
    Formulation("filled_with_-1e30", "-1e30 as fill, then empty queries set to 0", finite_fill(-1e30)),
    Formulation("filled_with_-1e4", "-1e4 as fill, then empty queries set to 0", finite_fill(-1e4)),
    Formulation("added_-1e4", "-1e4 added, then empty queries set to 0", whole(finite_fill_added)),
    Formulation("logarithm_of_mask", "the logarithm of the mask added",
                wrap(apply_mask=lambda _: logarithm_of_mask)),
    Formulation("exp2", "log2(e) folded into the scores", wrap(softmax=lambda _: by_exp2)),
    Formulation("head_by_head", "each head by itself under an (S, T) mask", wrap(attention_mask=head_by_head)),
    Formulation("key_by_key", "values added key by key, the last first", wrap(context=lambda _: key_by_key)),
    Formulation("products_in_tfloat32", "operands of products rounded to 11 bits", in_tfloat32, ("tfloat32",)),
    Formulation("wider", "computed in float64 throughout", wrap(attention_mask=wider)),
)  # fmt: skip
