"""Correct ways to compute GPT-2 that differ from the plain candidate's: they must pass under what they honour.

Each is a change to the plain candidate, as the faults are; those in torch stand in `gpt2_torch_formulations.py`.
B batch, T tokens, S tokens seen so far, D width, H heads, d = D / H.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
Record = Callable[[str, Array], None]
State = dict[str, Array]

gelus = beside(__file__, "blocks/gelu_formulations")
norms = beside(__file__, "blocks/layer_norm_formulations")
in_torch = beside(__file__, "gpt2_torch_formulations")

SIXTEEN_BITS = in_torch.SIXTEEN_BITS


def wide(x: Array) -> Array:
    """Return `x` in the format in which sums are computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def wider(x: Array) -> Array:
    """Return `x` in a format with twice the digits of its sums, or as many more as there are."""
    return x.astype(np.longdouble if x.dtype == np.float64 else np.float64)


def rounded(formula: Callable[..., Array]) -> Callable[[Any], Any]:
    """Replace a function by `formula`, which is given wide arrays; its result is rounded to storage."""

    def formulation(x: Array, *rest: Any) -> Array:
        return formula(wide(x), *(wide(y) if isinstance(y, np.ndarray) else y for y in rest)).astype(x.dtype)

    return lambda _: formulation


# --- the whole


def throughout(dtype: Any) -> Change:
    """Compute everything in `dtype`, and round what is returned to storage."""

    def cast(x: Array, floating: Any) -> Array:
        return x if x.dtype.kind in "biu" else x.astype(floating)

    def replacement(run: Any) -> Any:
        def gpt2(*args: Any, weights: State, **rest: Any) -> State:
            storage = weights["transformer.wte.weight"].dtype
            found = run(*args, weights={name: w.astype(dtype) for name, w in weights.items()}, **rest)
            return {name: cast(value, storage) for name, value in found.items()}

        return gpt2

    return wrap(gpt2=replacement)


def row_by_row(first_token: Callable[[Array], int]) -> Callable[[Any], Any]:
    """Run the rows of a batch alone, each from the token that `first_token` of its mask says."""

    def replacement(run: Any) -> Any:
        def gpt2(
            input_ids: Array, attention_mask: Array, position_ids: Array, decode_ids: Array = None, **rest: Any
        ) -> State:
            alone = []
            for b, row in enumerate(attention_mask):
                prompt = [x[b : b + 1, first_token(row) :] for x in (input_ids, attention_mask, position_ids)]
                alone.append(run(*prompt, decode_ids=None if decode_ids is None else decode_ids[b : b + 1], **rest))
            return {name: np.concatenate(filled_up([found[name] for found in alone])) for name in alone[0]}

        return gpt2

    return replacement


def filled_up(arrays: list[Array]) -> list[Array]:
    """Return the arrays in the shape of the largest, zeros in front."""
    largest = np.max([x.shape for x in arrays], axis=0)
    return [np.pad(x, [(int(n), 0) for n in largest - x.shape]) for x in arrays]


def token_by_token(right: Any) -> Any:
    """Prefill as a decode loop does: one token at a time through the cache. Scores of later tokens never exist."""

    def forward(ids: Array, positions: Array, mask: Array, start: int, *rest: Any) -> Array:
        *model, record = rest
        found = defaultdict(list)

        def keep(name: str, value: Array) -> None:
            found[name].append(value)

        logits = [
            right(ids[:, t : t + 1], positions[:, t : t + 1], mask, start + t, *model, keep)
            for t in range(ids.shape[1])
        ]
        for name, parts in found.items():
            if name.endswith("_cache"):
                record(name, parts[-1])
            elif name.endswith("attention_probabilities"):
                seen = parts[-1].shape[-1]  # S
                later = [[(0, 0)] * 3 + [(0, seen - x.shape[-1])] for x in parts]
                record(name, np.concatenate([np.pad(x, pad) for x, pad in zip(parts, later, strict=True)], axis=-2))
            elif not name.endswith("attention_scores") or len(parts) == 1:
                record(name, np.concatenate(parts, axis=-2))
        return np.concatenate(logits, axis=1)

    return forward


def uncached(right: Any) -> Any:
    """Run the whole sequence again for each new token."""
    seen: dict[str, Array] = {}

    def forward(ids: Array, positions: Array, mask: Array, start: int, *rest: Any) -> Array:
        *model, record = rest
        for name, new in (("ids", ids), ("positions", positions)):
            seen[name] = np.concatenate([seen[name][:, :start], new], axis=1) if start else new

        def record_new(name: str, value: Array) -> None:
            record(name, value if name.endswith("_cache") else value[..., start:, :])

        return right(seen["ids"], seen["positions"], mask, 0, *model, record_new)[:, start:]

    return forward


# --- sums


def products(multiply: Callable[[Array, Array], Array]) -> Change:
    """Compute every matrix product of wide arrays by `multiply`."""
    return wrap(
        linear=rounded(lambda x, weight, bias: multiply(x, weight) + bias),
        matmul=rounded(multiply),
        attention_scores=rounded(lambda q, k: multiply(q, k.mT) / math.sqrt(q.shape[-1])),
    )


def in_order(x: Array, y: Array, *, step: int = 1, total: Array = 0) -> Array:
    """Add the products to `total` one after the other, from the first to the last, or with step -1 back."""
    for k in range(x.shape[-1])[::step]:
        total = total + x[..., :, k, None] * y[..., k, None, :]
    return total


def pairwise(x: Array, y: Array) -> Array:
    """Add the products as a binary tree."""
    if x.shape[-1] == 1:
        return x * y
    half = x.shape[-1] // 2
    return pairwise(x[..., :half], y[..., :half, :]) + pairwise(x[..., half:], y[..., half:, :])


def blocked(size: int) -> Callable[[Array, Array], Array]:
    """Add up the products of `size` terms at a time."""
    return lambda x, y: sum(x[..., k : k + size] @ y[..., k : k + size, :] for k in range(0, x.shape[-1], size))


def split_k(x: Array, y: Array) -> Array:
    """Add up each third of the terms by itself, for c_proj each of three heads, then the three sums."""
    thirds = zip(np.array_split(x, 3, axis=-1), np.array_split(y, 3, axis=-2), strict=True)
    return sum(part @ other for part, other in thirds)


def unfused(right: Any) -> Any:
    """Multiply with each third of a weight's columns by itself, those of c_attn being q, k and v."""

    def linear(x: Array, weight: Array, bias: Array) -> Array:
        columns = zip(np.array_split(weight, 3, axis=-1), np.array_split(bias, 3), strict=True)
        return np.concatenate([right(x, np.ascontiguousarray(w), b) for w, b in columns], axis=-1)

    return linear


# --- attention


def scores(formula: Callable[[Array, Array, float, Any], Array]) -> Change:
    """Return a change to the scores: `formula(q, k, scale, store)` of wide arrays; `store` rounds one to storage."""

    def attention_scores(q: Array, k: Array) -> Array:
        def store(x: Array) -> Array:
            return wide(x.astype(q.dtype))

        return formula(wide(q), wide(k), 1 / math.sqrt(q.shape[-1]), store).astype(q.dtype)

    return wrap(attention_scores=lambda _: attention_scores)


def unrounded(*, scores: bool) -> Change:
    """Keep probabilities, and `scores` too, in float32 until the context is rounded; record them rounded."""

    def attention(right: Any) -> Any:
        def replacement(x: Array, *rest: Any) -> Array:
            *given, record = rest
            return right(x, *given, lambda name, value: record(name, value.astype(x.dtype)))

        return replacement

    def change(plain: Any) -> None:
        wrap(
            attention=attention,
            apply_mask=lambda right: lambda scores, allowed: right(wide(scores), allowed),
            matmul=lambda _: lambda x, y: (wide(x) @ wide(y)).astype(y.dtype),
        )(plain)
        if scores:
            wrap(attention_scores=lambda right: lambda q, k: right(wide(q), wide(k)))(plain)

    return change


def attention_of(context: Callable[..., Array]) -> Change:
    """Return a change to attention: `context(q, k, v, allowed)` of arrays in storage, without scores to record."""

    def change(plain: Any) -> None:
        def attention(
            x: Array, layer: State, store: Any, mask: Array, start: int, n_head: int, record: Record
        ) -> Array:
            end = start + x.shape[1]  # S
            qkv = plain.linear(x, layer["attn.c_attn.weight"], layer["attn.c_attn.bias"])  # (B, T, 3D)
            q, k, v = (plain.split_heads(part, n_head) for part in plain.split_qkv(qkv))  # (B, H, T, d) each
            plain.write_cache(store, k, v, start, end)
            keys, values = plain.read_cache(store, end)  # (B, H, S, d)
            found = context(q, keys, values, plain.attention_allowed(mask, start, end))  # (B, H, T, d)
            named = {"q": q, "k": k, "v": v, "key_cache": keys, "value_cache": values, "attention_context": found}
            for name, value in named.items():
                record(name, value)
            merged = plain.merge_heads(found)  # (B, T, D)
            output: Array = plain.linear(merged, layer["attn.c_proj.weight"], layer["attn.c_proj.bias"])
            return output

        plain.attention = attention

    return change


def flash(q: Array, k: Array, v: Array, allowed: Array) -> Array:
    """Attention over blocks of seven keys; the probabilities, not yet divided, are rounded (Dao et al. 2022)."""
    largest = np.full((*q.shape[:-1], 1), -np.inf, wide(q).dtype)  # (B, H, T, 1)
    total, context = np.zeros_like(largest), np.zeros_like(wide(q))
    for start in range(0, k.shape[-2], 7):
        block = slice(start, start + 7)
        products = wide(q) @ wide(k[..., block, :]).mT / math.sqrt(q.shape[-1])  # (B, H, T, 7)
        masked = np.where(allowed[..., block], products, -np.inf)
        grown = np.maximum(largest, masked.max(-1, keepdims=True))
        known = np.where(np.isfinite(grown), grown, 0)
        exponentials, shrunk = np.exp(masked - known), np.exp(largest - known)
        total = total * shrunk + exponentials.sum(-1, keepdims=True)
        context = context * shrunk + wide(exponentials.astype(q.dtype)) @ wide(v[..., block, :])
        largest = grown
    return (context / total).astype(q.dtype)


def head_by_head(right: Any) -> Any:
    """Run a function of attention's (B, H, ., .) arrays on one row's head at a time; one of other arrays as it is."""

    def function(*arrays: Array) -> Array:
        if arrays[0].ndim != 4:
            return right(*arrays)
        shape = arrays[0].shape[:2]  # (B, H)
        heads = [right(*(np.ascontiguousarray(x[index]) for x in arrays)) for index in np.ndindex(shape)]
        return np.stack(heads).reshape(*shape, *heads[0].shape)

    return function


# --- softmax


def softmax(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the softmax: `formula` of wide values, divided by the temperature, over the last axis."""
    return wrap(softmax=rounded(lambda x, temperature=1.0: formula(x / x.dtype.type(temperature))))


def chunked(size: int) -> Change:
    """Return the softmax over chunks, each with a maximum of its own (Milakov and Gimelshein 2018)."""

    def formula(x: Array) -> Array:
        largest = np.full((*x.shape[:-1], 1), -np.inf, x.dtype)
        total = np.zeros_like(largest)
        for start in range(0, x.shape[-1], size):
            chunk = x[..., start : start + size]
            grown = np.maximum(largest, chunk.max(-1, keepdims=True))
            known = np.where(np.isfinite(grown), grown, 0)
            total = total * np.exp(largest - known) + np.exp(chunk - known).sum(-1, keepdims=True)
            largest = grown
        return np.exp(x - largest) / total

    return softmax(formula)


def by_exp2(x: Array) -> Array:
    """Return the softmax with log2(e) folded into the scale, as fast kernels do."""
    folded = x * x.dtype.type(math.log2(math.e))
    exponentials = np.exp2(folded - folded.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def by_reciprocal(x: Array) -> Array:
    """Return the softmax, multiplied by 1 / sum."""
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials * (1 / exponentials.sum(-1, keepdims=True))


def by_logarithm(x: Array) -> Array:
    """Return the softmax as the exponential of the log softmax."""
    shifted = x - x.max(-1, keepdims=True)
    return np.exp(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


# --- norms, activation, residuals


def norm(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to LayerNorm: `formula(x, epsilon)` of wide values is what weight and bias are applied to."""
    return wrap(layer_norm=rounded(lambda x, weight, bias, epsilon: formula(x, epsilon) * weight + bias))


def one_pass(x: Array, epsilon: float) -> Array:
    """Normalise by the variance as E[x^2] - mean^2, as fused kernels compute it."""
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(np.square(x).mean(-1, keepdims=True) - np.square(mean) + epsilon)


def rounded_before_affine(right: Any) -> Any:
    """LayerNorm whose normalised values are rounded to storage before weight and bias."""
    return lambda x, weight, bias, epsilon: right(x, np.ones_like(weight), np.zeros_like(bias), epsilon) * weight + bias


def gelu(phi: Callable[[Array], Array]) -> Change:
    """Return a change to the activation: x phi(z), phi(z) = (1 + tanh z) / 2."""
    return wrap(gelu=rounded(lambda x: x * phi(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))))


def gelu_factored(x: Array) -> Array:
    """Tanh GELU with x taken out of the polynomial (FastGELUActivation of transformers)."""
    return 0.5 * x * (1 + np.tanh(x * 0.7978845608028654 * (1 + 0.044715 * x * x)))


def residuals(keep: Callable[[Array], Array], total: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to a block's sums: `keep` puts what is added into a format, `total` adds three, rounded after."""

    def change(plain: Any) -> None:
        def block(
            hidden: Array, w: State, store: Any, mask: Array, start: int, n_head: int, epsilon: float, record: Record
        ) -> Array:
            dtype = hidden.dtype
            normed = plain.layer_norm(hidden, w["ln_1.weight"], w["ln_1.bias"], epsilon)  # (B, T, D)
            attended = plain.attention(normed, w, store, mask, start, n_head, record)  # (B, T, D)
            residual = keep(attended) + keep(hidden)  # (B, T, D)
            normed_2 = plain.layer_norm(residual, w["ln_2.weight"], w["ln_2.bias"], epsilon).astype(dtype)
            inner = plain.linear(normed_2, w["mlp.c_fc.weight"], w["mlp.c_fc.bias"])  # (B, T, F)
            activation = plain.gelu(inner)  # (B, T, F)
            output = plain.linear(activation, w["mlp.c_proj.weight"], w["mlp.c_proj.bias"])  # (B, T, D)
            block_output = total(keep(hidden), keep(attended), keep(output)).astype(dtype)  # (B, T, D)
            found = {"ln_1": normed, "attention_output": attended, "residual": residual.astype(dtype), "ln_2": normed_2}
            found |= {"c_fc": inner, "activation": activation, "ffn_output": output, "block_output": block_output}
            for name, value in found.items():
                record(name, value)
            return block_output

        plain.block = block

    return change


def eleven_bits(x: Array) -> Array:
    """Round float32 numbers to the 11 bits of TF32, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


ORDINARY = ("float64", "float32", "bfloat16", "float16")
"""The contracts of what says nothing of TF32: what is within float32 is within tfloat32."""
LARGE = (
    "sums_reversed", "softmax_chunks_7", "norm_one_pass", "gelu_exp", "hugging_face_eager", "hugging_face_sdpa",
    "torch_two_threads",
)  # fmt: skip

_CATALOGUE = (
    # --- the whole
    Formulation("float64_operations", "each operation in float64", wrap(wide=lambda _: lambda x: x.astype(np.float64))),
    Formulation("float64_throughout", "everything in float64, rounded at its end", throughout(np.float64)),
    Formulation("float32_throughout", "everything in float32, rounded at its end",
                throughout(np.float32), SIXTEEN_BITS),
    Formulation("rows_alone", "one row of a batch at a time", wrap(gpt2=row_by_row(lambda _: 0))),
    Formulation("rows_without_padding", "one row of a batch at a time, without its padding",
                wrap(gpt2=row_by_row(lambda mask: int(mask.argmax())))),
    Formulation("prefill_as_decode", "the prompt token by token through the cache", wrap(forward=token_by_token)),
    Formulation("uncached", "the whole sequence again for each new token", wrap(forward=uncached)),
    # --- sums
    Formulation("sums_in_order", "products added from the first to the last", products(in_order)),
    Formulation("sums_reversed", "products added from the last to the first", products(partial(in_order, step=-1))),
    Formulation("sums_pairwise", "products added as a binary tree", products(pairwise)),
    Formulation("sums_blocked", "products added in blocks of sixteen", products(blocked(16))),
    Formulation("sums_einsum", "products by einsum", products(lambda x, y: np.einsum("...ik,...kj->...ij", x, y))),
    Formulation("sums_exact", "products added with twice the digits", products(lambda x, y: wider(x) @ wider(y))),
    Formulation("products_transposed", "(y^T x^T)^T instead of x y", products(lambda x, y: (y.mT @ x.mT).mT)),
    Formulation("split_k", "thirds of each sum added at its end", products(split_k)),
    Formulation("bias_first", "sums that start from the bias",
                wrap(linear=rounded(lambda x, weight, bias: in_order(x, weight, total=bias)))),
    Formulation("bias_unfused", "linear layers rounded before their bias",
                wrap(linear=lambda right: lambda x, weight, bias: right(x, weight, np.zeros_like(bias)) + bias)),
    Formulation("qkv_unfused", "q, k and v by a product each", wrap(linear=unfused)),
    # --- attention
    Formulation("scale_on_q", "q scaled and rounded before the product",
                scores(lambda q, k, scale, store: store(q * scale) @ k.mT)),
    Formulation("scale_on_k", "k scaled and rounded before the product",
                scores(lambda q, k, scale, store: q @ store(k * scale).mT)),
    Formulation("scale_split", "the scale split between q and k",
                scores(lambda q, k, scale, store: store(q * math.sqrt(scale)) @ store(k * math.sqrt(scale)).mT)),
    Formulation("scale_multiplied", "multiplied by 1 / sqrt(d)",
                wrap(attention_scores=rounded(lambda q, k: q @ k.mT * (1 / math.sqrt(q.shape[-1]))))),
    Formulation("scale_after_rounding", "the product rounded before it is scaled",
                scores(lambda q, k, scale, store: store(q @ k.mT) * scale)),
    Formulation("mask_finite", "the most negative number instead of minus infinity", wrap(apply_mask=lambda _: (
        lambda scores, allowed: np.where(allowed, scores, ml_dtypes.finfo(scores.dtype).min.astype(scores.dtype))))),
    Formulation("heads_alone", "one head at a time",
                wrap(attention_scores=head_by_head, matmul=head_by_head)),
    Formulation("probabilities_unrounded", "probabilities stay float32 until they meet v",
                unrounded(scores=False), SIXTEEN_BITS),
    Formulation("attention_unrounded", "attention in float32, rounded at its end",
                unrounded(scores=True), SIXTEEN_BITS),
    Formulation("attention_flash", "blocks of seven keys, divided at the end", attention_of(flash)),
    # --- softmax
    Formulation("softmax_chunks_1", "online softmax, one value after the other", chunked(1)),
    Formulation("softmax_chunks_7", "online softmax over chunks of seven", chunked(7)),
    Formulation("softmax_chunks_64", "online softmax over chunks of sixty-four", chunked(64)),
    Formulation("softmax_exp2", "exp2 with log2(e) folded into the scale", softmax(by_exp2)),
    Formulation("softmax_reciprocal", "multiplied by 1 / sum", softmax(by_reciprocal)),
    Formulation("softmax_logarithm", "the exponential of the log softmax", softmax(by_logarithm)),
    # --- norms
    Formulation("norm_inverse_root", "multiplied by 1 / sqrt(variance + epsilon)", norm(norms.inverse_root)),
    Formulation("norm_welford", "mean and variance updated channel by channel", norm(norms.by_welford)),
    Formulation("norm_one_pass", "variance as E[x^2] - mean^2", norm(one_pass)),
    Formulation("norm_folded", "one multiplication and one addition, x * scale + shift",
                wrap(layer_norm=rounded(norms.folded))),
    Formulation("norm_rounded", "norm rounded before weight and bias", wrap(layer_norm=rounded_before_affine)),
    # --- activation
    Formulation("gelu_cube", "x * x * x instead of x^3", gelu(lambda z: 0.5 * (1 + np.tanh(z)))),
    Formulation("gelu_factored", "x times the rest of the polynomial", wrap(gelu=rounded(gelu_factored))),
    Formulation("gelu_sigmoid", "tanh GELU as x sigmoid(2 z)", gelu(gelus.by_sigmoid)),
    Formulation("gelu_exp", "tanh z as 1 - 2 / (exp(2 z) + 1)", gelu(gelus.by_exp)),
    Formulation("gelu_expm1", "tanh z as expm1(2 z) / (expm1(2 z) + 2)", gelu(gelus.by_expm1)),
    # --- residuals
    Formulation("residual_last", "hidden + (attention_output + ffn_output)", residuals(
        lambda x: x, lambda hidden, attended, output: (output + attended) + hidden)),
    Formulation("residual_unrounded", "a block's sums stay float32", residuals(
        wide, lambda hidden, attended, output: (hidden + attended) + output), SIXTEEN_BITS),
    # --- less than float32
    Formulation("products_in_tfloat32", "operands of products rounded to 11 bits",
                products(lambda x, y: eleven_bits(x) @ eleven_bits(y)), ("tfloat32",)),
    *in_torch.FORMULATIONS,
)  # fmt: skip

FORMULATIONS = tuple(
    replace(entry, contracts=entry.contracts or ORDINARY, large=entry.name in LARGE) for entry in _CATALOGUE
)
