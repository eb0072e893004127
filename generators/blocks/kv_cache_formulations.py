"""Correct ways to run a sequence with a cache that differ from the plain candidate's: they must pass."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from karat.faults import Formulation

Array = Any
Change = Callable[[Any], None]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def tensor(x: Array) -> Any:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))


def attended(formula: Callable[[Array, Array, Array, Array], Array]) -> Change:
    """Return a change to attention: `formula(q, k, v, seen)` of wide arrays, key heads already repeated."""

    def change(plain: Any) -> None:
        repeated = plain.repeated
        plain.attention = lambda q, k, v, seen: formula(
            q,
            repeated(k, q.shape[1]),
            repeated(v, q.shape[1]),
            np.broadcast_to(seen[:, None], (*q.shape[:3], k.shape[2])),
        )

    return change


def blind(seen: Array) -> Array:
    """Return what is seen, with all of it where nothing is: what padding returns is not judged."""
    return seen | ~seen.any(-1, keepdims=True)


def sdpa(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Attend with torch's fused attention and a boolean mask."""
    q, k, v, seen = (torch.from_numpy(np.ascontiguousarray(x)) for x in (q, k, v, blind(seen)))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, seen).numpy()


def smallest_added(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Add the smallest number of the format to scores that are not seen, as eager models do."""
    scores = q @ k.mT / np.sqrt(q.dtype.type(q.shape[-1]))
    scores = scores + np.where(blind(seen), 0, np.finfo(q.dtype).min).astype(q.dtype)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True) @ v


def query_scaled(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Scale queries before they meet keys, and divide by the sum after the values, with powers of 2."""
    scores = (q * q.dtype.type(math.log2(math.e) / math.sqrt(q.shape[-1]))) @ k.mT
    scores = np.where(blind(seen), scores, -np.inf)
    powers = np.exp2(scores - scores.max(-1, keepdims=True))
    return powers @ v / powers.sum(-1, keepdims=True)


def online(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Go through the keys in blocks of 3 with a running maximum and sum (Milakov and Gimelshein 2018)."""
    seen = blind(seen)
    largest = np.full((*q.shape[:-1], 1), -np.inf, q.dtype)
    total, output = np.zeros_like(largest), np.zeros((*q.shape[:-1], v.shape[-1]), q.dtype)
    for start in range(0, k.shape[2], 3):
        part = slice(start, start + 3)
        scores = np.where(seen[..., part], q @ k[:, :, part].mT / np.sqrt(q.dtype.type(q.shape[-1])), -np.inf)
        new = np.maximum(largest, scores.max(-1, keepdims=True))
        safe = np.where(np.isfinite(new), new, 0).astype(q.dtype)
        shrink, powers = np.exp(largest - safe), np.exp(scores - safe)
        total = total * shrink + powers.sum(-1, keepdims=True)
        output = output * shrink + powers @ v[:, :, part]
        largest = new
    return output / total


def split_keys(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Attend to two halves of the keys apart, and weigh the outputs by their sums, as flash decoding does."""
    seen, half = blind(seen), max(k.shape[2] // 2, 1)
    parts = []
    for part in (slice(0, half), slice(half, None)):
        scores = np.where(seen[..., part], q @ k[:, :, part].mT / np.sqrt(q.dtype.type(q.shape[-1])), -np.inf)
        largest = scores.max(-1, keepdims=True, initial=-1e30)
        powers = np.exp(scores - largest.astype(q.dtype))
        total = powers.sum(-1, keepdims=True)
        output = powers @ v[:, :, part] / np.maximum(total, np.finfo(q.dtype).tiny)
        parts.append((output, largest + np.log(np.maximum(total, np.finfo(q.dtype).tiny))))
    (first, one), (second, two) = parts
    weight = 1 / (1 + np.exp(np.clip(two - one, -80, 80)))
    return (weight * first + (1 - weight) * second).astype(q.dtype)


def keys_reversed(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Attend to the keys from the newest to the oldest."""
    scores = np.where(blind(seen)[..., ::-1], q @ k[:, :, ::-1].mT / np.sqrt(q.dtype.type(q.shape[-1])), -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / np.add.accumulate(powers, -1)[..., -1:] @ v[:, :, ::-1]


def tf32(x: Array) -> Array:
    """Return float32 numbers rounded to the 11 bits that a tensor core multiplies."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)).view(
        np.float32
    )


def in_tf32(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Attend with products of operands of 11 bits."""
    scores = np.where(blind(seen), tf32(q) @ tf32(k).mT / np.sqrt(q.dtype.type(q.shape[-1])), -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return tf32(powers / powers.sum(-1, keepdims=True)) @ tf32(v)


def by_group(plain: Any) -> None:
    """Attend with key heads that are not repeated, by einsum over groups of query heads."""
    softmax = plain.softmax

    def attention(q: Array, k: Array, v: Array, seen: Array) -> Array:
        B, H, n, D = q.shape
        grouped = q.reshape(B, k.shape[1], -1, n, D)  # (B, G, H/G, n, D)
        scores = np.einsum("bgrnd,bgkd->bgrnk", grouped, k) / np.sqrt(q.dtype.type(D))
        return np.einsum("bgrnk,bgke->bgrne", softmax(scores, seen[:, None, None]), v).reshape(B, H, n, -1)

    plain.attention = attention


def in_storage(plain: Any) -> None:
    """Compute rotation, scores, probabilities and outputs with torch, each operation in the format of q."""

    def rotated(x: Array, cos: Array, sin: Array, at: Array) -> Array:
        tables = (torch.cat([tensor(table)[torch.from_numpy(at)]] * 2, -1) for table in (cos, sin))
        found = apply_rotary_pos_emb(*[tensor(x).to(tensor(cos).dtype)] * 2, *tables)[0]
        return found.double().numpy().astype(x.dtype)

    def attention(q: Array, k: Array, v: Array, seen: Array) -> Array:
        dtype = getattr(torch, plain.storage)
        q, k, v = (torch.from_numpy(np.ascontiguousarray(x)).to(dtype) for x in (q, k, v))
        k, v = (torch.repeat_interleave(x, q.shape[1] // x.shape[1], 1) for x in (k, v))
        scores = (q @ k.mT) * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~torch.from_numpy(blind(seen)[:, None]), torch.finfo(dtype).min)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return (torch.softmax(scores, -1, dtype=wide).to(dtype) @ v).double().numpy()

    right = plain.kv_cache

    def kv_cache(q: Array, *given: Any, **others: Any) -> Any:
        plain.storage = q.dtype.name
        return right(q, *given, **others)

    plain.rotated, plain.attention, plain.kv_cache = rotated, attention, kv_cache


def complex_rotation(plain: Any) -> None:
    """Rotate with products of complex numbers."""

    def rotated(x: Array, cos: Array, sin: Array, at: Array) -> Array:
        table = (plain.wide(cos) + 1j * plain.wide(sin))[at][:, None]  # (B, 1, n, D/2)
        a, b = np.split(x, 2, -1)
        z = (a + 1j * b) * table
        return np.concatenate([z.real, z.imag], -1)

    plain.rotated = rotated


def grown(plain: Any) -> None:
    """Keep all keys and values in a cache that grows (transformers' DynamicCache), and lay the slots out in the end."""

    def step(cache: dict[str, Any], q: Array, k: Array, v: Array, *given: Any) -> Array:
        cos, sin, tokens, positions, real, window = given
        at = positions[:, tokens]
        queries = plain.query_rotated(plain.wide(q[:, :, tokens]), cos, sin, at)
        keys = plain.key_rotated(plain.wide(k[:, :, tokens]), cos, sin, at)
        grows = cache.setdefault("grows", DynamicCache())
        keys, values = grows.update(torch.from_numpy(keys), torch.from_numpy(plain.wide(v[:, :, tokens]).copy()), 0)
        slots, held = len(cache["tokens"]), np.arange(tokens[-1] + 1)
        seen = plain.visible(tokens, held, real, window) & (held >= tokens[0] - slots)
        for token in tokens:
            slot = token % slots
            cache["keys"][:, :, slot] = keys.numpy()[:, :, token].astype(k.dtype)
            cache["values"][:, :, slot] = v[:, :, token]
            cache["tokens"][slot] = token
        return plain.attention(queries, keys.numpy(), values.numpy(), seen).astype(q.dtype)

    plain.step = step


def in_order(plain: Any) -> None:
    """Gather the slots in the order of their tokens before they are read, without those that are empty."""
    right = plain.step

    def step(cache: dict[str, Array], *given: Any) -> Array:
        order = np.argsort(cache["tokens"], kind="stable")
        order = order[cache["tokens"][order] >= 0]
        gathered = {name: cache[name][:, :, order] for name in ("keys", "values")} | {"tokens": cache["tokens"][order]}
        write = plain.write
        plain.write = lambda _, *new: write(cache, *new)
        output = right(gathered, *given)
        plain.write = write
        return output

    plain.step = step


def paged(plain: Any) -> None:
    """Read the slots in pages of 2, from the last page to the first."""
    right = plain.attention

    def attention(q: Array, k: Array, v: Array, seen: Array) -> Array:
        pages = [np.arange(start, min(start + 2, k.shape[2])) for start in range(0, k.shape[2], 2)]
        order = np.concatenate(pages[::-1])
        return right(q, k[:, :, order], v[:, :, order], seen[..., order])

    plain.attention = attention


def values_transposed(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Attend with keys and values laid out the other way round, as some caches keep them."""
    keys, values = (np.ascontiguousarray(x.mT) for x in (k, v))  # (B, H, D, K), (B, H, E, K)
    scores = np.where(blind(seen), q @ keys / np.sqrt(q.dtype.type(q.shape[-1])), -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return (values @ (powers / powers.sum(-1, keepdims=True)).mT).mT


def prompt_by_token(plain: Any) -> None:
    """Run the prompt one token at a time, where the cache has room for all of it."""
    right = plain.kv_cache

    def kv_cache(key_memory: Array, *, steps: list[int], **given: Any) -> Any:
        prompt = steps[0]
        if sum(steps) > key_memory.shape[2] or prompt > 64:
            return right(key_memory=key_memory, steps=steps, **given)
        plain.check_mask = plain.check_tables = lambda *_: None
        found = right(key_memory=key_memory, steps=[1] * prompt + steps[1:], **given)
        output = np.concatenate([found["prefill_output"], found["decode_output"]], 2)
        return found | {"prefill_output": output[:, :, :prompt], "decode_output": output[:, :, prompt:]}

    plain.kv_cache = kv_cache


FORMULATIONS = (
    Formulation("sdpa", "torch's fused attention with a boolean mask", attended(sdpa)),
    Formulation("smallest_added", "the smallest number added to what is not seen", attended(smallest_added)),
    Formulation("query_scaled", "queries scaled, powers of 2, divided after the values", attended(query_scaled)),
    Formulation("online_softmax", "keys in blocks of 3, a running maximum", attended(online)),
    Formulation("split_keys", "two halves of the keys, weighed by their sums", attended(split_keys)),
    Formulation("keys_reversed", "keys from the newest to the oldest", attended(keys_reversed)),
    Formulation("values_transposed", "keys and values laid out the other way round", attended(values_transposed)),
    Formulation("tf32", "products of operands of 11 bits", attended(in_tf32), ("tfloat32",)),
    Formulation("by_group", "key heads not repeated, by einsum", by_group),
    Formulation("storage", "torch's eager attention, every operation in storage", in_storage, EACH_OPERATION),
    Formulation("complex_rotation", "rotary embedding by complex numbers", complex_rotation),
    Formulation("dynamic_cache", "transformers' DynamicCache, which grows", grown),
    Formulation("in_order", "slots gathered in the order of their tokens", in_order),
    Formulation("paged", "pages of 2 slots, the last page first", paged),
    Formulation("prompt_by_token", "the prompt one token at a time", prompt_by_token),
)
