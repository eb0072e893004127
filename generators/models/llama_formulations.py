"""Correct ways to compute Llama that differ from the plain candidate's: they must pass under what they honour.

Each is a change to the plain candidate, as the faults are; those in torch stand in `llama_torch_formulations.py`, and
what does not depend on the model is GPT-2's. B batch, T tokens, S tokens seen, D width, H heads, G key and value heads.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
State = dict[str, Array]

faults = beside(__file__, "llama_faults")
gpt2 = beside(__file__, "gpt2_formulations")
norms = beside(__file__, "blocks/layer_norm_formulations")
in_torch = beside(__file__, "llama_torch_formulations")

SIXTEEN_BITS = in_torch.SIXTEEN_BITS

wide, rounded = gpt2.wide, gpt2.rounded


# --- the whole


def throughout(dtype: Any) -> Change:
    """Compute everything in `dtype`, and round what is returned to storage."""

    def replacement(run: Any) -> Any:
        def llama(*, weights: State, **rest: Any) -> State:
            storage = weights["lm_head.weight"].dtype
            found = run(weights={name: w.astype(dtype) for name, w in weights.items()}, **rest)
            return {name: x if x.dtype.kind in "biu" else x.astype(storage) for name, x in found.items()}

        return llama

    return wrap(llama=replacement)


def without(*endings: str) -> Callable[[Any], Any]:
    """Return a change to the whole that leaves out checkpoints."""

    def replacement(run: Any) -> Any:
        def llama(**given: Any) -> State:
            return {name: x for name, x in run(**given).items() if not name.endswith(endings)}

        return llama

    return replacement


# --- sums


def products(multiply: Callable[[Array, Array], Array]) -> Change:
    """Compute every matrix product of wide arrays by `multiply`."""
    return wrap(
        matmul=rounded(multiply),
        attention_scores=rounded(lambda q, k: multiply(q, k.mT) / math.sqrt(q.shape[-1])),
    )


def fused(*names: str) -> Change:
    """Multiply once by the weights `names` of a layer, stacked, and cut the result."""

    def change(plain: Any) -> None:
        right, cut = plain.linear, dict[int, Array]()

        def within(function: Any) -> Any:
            def wrapped(x: Array, *rest: Any) -> Array:
                layer = next(part for part in rest if isinstance(part, dict) and names[0] in part)
                stacked = np.concatenate([layer[name] for name in names])  # (sum of outs, D)
                places = np.cumsum([len(layer[name]) for name in names])[:-1]
                parts = np.split(right(x, stacked), places, axis=-1)
                cut.update({id(layer[name]): part for name, part in zip(names, parts, strict=True)})
                found = function(x, *rest)
                cut.clear()
                return found

            return wrapped

        plain.linear = lambda x, weight: cut[id(weight)] if id(weight) in cut else right(x, weight)
        function = "ffn" if names[0].startswith("mlp.") else "attention"
        setattr(plain, function, within(getattr(plain, function)))

    return change


# --- rotation


def tables(inner: Any, angles: Callable[[Array, Array], Array] = lambda where, f: where * f) -> Change:
    """Return a change to the tables: `angles` of positions and frequencies, cos and sin in `inner`."""

    def rotary_tables(where: Array, f: Array, dtype: Any) -> tuple[Array, Array]:
        found = angles(where[..., None].astype(inner), f.astype(inner))  # (B, T, d/2)
        return np.cos(found).astype(dtype), np.sin(found).astype(dtype)

    return wrap(rotary_tables=lambda _: rotary_tables)


def own_frequencies(inner: Any) -> Change:
    """Compute the frequencies from `rope_parameters`, in `inner`."""

    def frequencies_of(given: Array, parameters: Any) -> Array:
        exponents = (2 * np.arange(len(given))).astype(inner) / inner(2 * len(given))
        found = 1 / inner(parameters["rope_theta"]) ** exponents
        scaled = parameters["rope_type"] == "llama3"
        return (faults.scaled(found, *faults.bands(parameters)) if scaled else found).astype(inner)

    return wrap(frequencies_of=lambda _: frequencies_of)


def by_complex(x: Array, cos: Array, sin: Array) -> Array:
    """Turn pairs as complex numbers."""
    first, second = np.split(x, 2, axis=-1)  # (B, heads, T, d/2)
    turned = (first + 1j * second) * (cos + 1j * sin)[:, None]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def by_halves(x: Array, cos: Array, sin: Array) -> Array:
    """Turn halves by one line each, in storage."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, d/2)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def tables_unrounded(plain: Any) -> None:
    """Keep the tables in float32, and round once after the rotation; record them rounded."""
    forward, made, rotate = plain.forward, plain.rotary_tables, plain.rotate

    def recording(ids: Array, where: Array, mask: Array, start: int, cache: Any, weights: State, *rest: Any) -> Array:
        *model, record = rest
        dtype = weights["lm_head.weight"].dtype
        return forward(
            ids, where, mask, start, cache, weights, *model, lambda name, value: record(name, value.astype(dtype))
        )

    plain.forward = recording
    plain.rotary_tables = lambda where, f, _: made(where, f, np.dtype(np.float32))
    plain.rotate = lambda x, cos, sin: rotate(wide(x), cos, sin).astype(x.dtype)


REORDERED = (".q", ".k", ".q_rotated", ".k_rotated", ".key_cache")


def interleaved(plain: Any) -> None:
    """Pair neighbouring channels, with the rows of q_proj and k_proj in that order; what is reordered is left out."""

    def rows(state: State) -> State:
        ordered = ("q_proj.weight", "k_proj.weight")
        return {name: faults.interleaved_rows(w) if name.endswith(ordered) else w for name, w in state.items()}

    faults.weights(rows)(plain)
    wrap(rotate=faults.interleaved, llama=without(*REORDERED))(plain)


# --- attention


def broadcast(plain: Any) -> None:
    """Let the heads of a group share their keys and values by broadcasting."""

    def repeat(x: Array, _: int) -> Array:
        return x

    def grouped(x: Array, other: Array) -> Array:
        """(B, H, T, .) -> (B, G, H / G, T, .)."""
        return x.reshape(x.shape[0], other.shape[1], -1, *x.shape[2:])

    def attention_scores(q: Array, k: Array) -> Array:
        products = grouped(q, k) @ k[:, :, None].mT / math.sqrt(q.shape[-1])  # (B, G, H / G, T, S)
        return products.reshape(*q.shape[:3], k.shape[2])

    def attention_context(probabilities: Array, v: Array) -> Array:
        return (grouped(probabilities, v) @ v[:, :, None]).reshape(*probabilities.shape[:3], v.shape[3])

    plain.repeat_keys = plain.repeat_values = repeat
    wrap(attention_scores=rounded(attention_scores), attention_context=rounded(attention_context))(plain)


def attention_of(context: Callable[..., Array]) -> Change:
    """Return a change to attention: `context(q, k, v, allowed)` of arrays in storage, without scores to record."""

    def change(plain: Any) -> None:
        right = plain.attention

        def attention(*given: Any) -> Array:
            *rest, record = given
            parts: dict[str, Array] = {}

            def attention_context(_: Array, v: Array) -> Array:
                return context(parts["q"], parts["k"], v, parts["allowed"])

            def attention_scores(q: Array, k: Array) -> Array:
                parts.update(q=q, k=k)
                return scores(q, k)

            def apply_mask(x: Array, allowed: Array) -> Array:
                parts["allowed"] = allowed
                return mask(x, allowed)

            scores, mask, kept = plain.attention_scores, plain.apply_mask, plain.attention_context
            plain.attention_scores, plain.apply_mask = attention_scores, apply_mask
            plain.attention_context = attention_context
            unmade = ("attention_scores", "attention_probabilities")
            output: Array = right(*rest, lambda name, value: None if name in unmade else record(name, value))
            plain.attention_scores, plain.apply_mask, plain.attention_context = scores, mask, kept
            return output

        plain.attention = attention

    return change


# --- norms, FFN, residuals


def norm(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to RMSNorm: `formula(x, epsilon)` of wide values is rounded, and multiplied by the weight."""
    return wrap(rms_norm=lambda _: lambda x, weight, epsilon: weight * formula(wide(x), epsilon).astype(x.dtype))


def with_sum(total: Callable[[Array], Array]) -> Change:
    """Return a change to the sum of squares: `total` of (..., D) gives (..., 1)."""
    return norm(lambda x, epsilon: x / np.sqrt(total(np.square(x)) / x.shape[-1] + epsilon))


def by_largest(x: Array, epsilon: float) -> Array:
    """Divide by the largest magnitude first, so that no square overflows."""
    largest = np.maximum(np.abs(x).max(-1, keepdims=True), np.finfo(x.dtype).tiny)
    small = x / largest
    return small / np.sqrt(np.square(small).mean(-1, keepdims=True) + epsilon / np.square(largest))


def norm_and_weight(x: Array, weight: Array, epsilon: float) -> Array:
    """Normalise and multiply by the weight, without a rounding between."""
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon) * weight


def by_norm(x: Array, epsilon: float) -> Array:
    """Multiply by sqrt(D) and divide by the Euclidean norm, sqrt(sum + D epsilon)."""
    width = x.shape[-1]
    return x * (math.sqrt(width) / np.sqrt(np.square(x).sum(-1, keepdims=True) + width * epsilon))


def silu(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the activation, of wide values."""
    return wrap(silu=rounded(formula))


def gated_unrounded(plain: Any) -> None:
    """Multiply silu(gate) in float32 by up, and round once."""

    def formula(function: Any, gate: Array, up: Array) -> tuple[Array, Array]:
        return function(gate), (function(wide(gate)) * wide(up)).astype(gate.dtype)

    faults.ffn(formula)(plain)


def residuals(keep: Callable[[Array], Array], total: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to a block's sums: `keep` puts what is added into a format, `total` adds three, rounded after."""

    def change(plain: Any) -> None:
        def block(hidden: Array, cos: Array, sin: Array, layer: State, *rest: Any) -> Array:
            *context, model, record = rest
            dtype = hidden.dtype
            normed = plain.rms_norm(hidden, layer["input_layernorm.weight"], model.epsilon)  # (B, T, D)
            record("input_norm", normed)
            attended = plain.attention(normed, cos, sin, layer, *context, model, record)  # (B, T, D)
            residual = keep(attended) + keep(hidden)  # (B, T, D)
            weight = layer["post_attention_layernorm.weight"]
            normed = plain.rms_norm(residual, weight, model.epsilon).astype(dtype)  # (B, T, D)
            output = plain.ffn(normed, layer, record)  # (B, T, D)
            block_output = total(keep(hidden), keep(attended), keep(output)).astype(dtype)  # (B, T, D)
            found = {"attention_output": attended, "residual": residual.astype(dtype), "post_attention_norm": normed}
            for name, value in (found | {"ffn_output": output, "block_output": block_output}).items():
                record(name, value)
            return block_output

        plain.block = block

    return change


ORDINARY = ("float64", "float32", "bfloat16", "float16")
"""The contracts of what says nothing of TF32: what is within float32 is within tfloat32."""

_CATALOGUE = (
    # --- the whole
    Formulation("float64_operations", "each operation in float64", wrap(wide=lambda _: lambda x: x.astype(np.float64))),
    Formulation("float64_throughout", "everything in float64, rounded at its end", throughout(np.float64)),
    Formulation("float32_throughout", "everything in float32, rounded at its end",
                throughout(np.float32), SIXTEEN_BITS),
    Formulation("rows_alone", "one row of a batch at a time", wrap(llama=gpt2.row_by_row(lambda _: 0))),
    Formulation("rows_without_padding", "one row of a batch at a time, without its padding",
                wrap(llama=gpt2.row_by_row(lambda mask: int(mask.argmax())))),
    Formulation("prefill_as_decode", "the prompt token by token through the cache", wrap(forward=gpt2.token_by_token)),
    Formulation("uncached", "the whole sequence again for each new token", wrap(forward=gpt2.uncached)),
    # --- sums
    Formulation("sums_in_order", "products added from the first to the last", products(gpt2.in_order)),
    Formulation("sums_reversed", "products added from the last to the first",
                products(partial(gpt2.in_order, step=-1))),
    Formulation("sums_pairwise", "products added as a binary tree", products(gpt2.pairwise)),
    Formulation("sums_blocked", "products added in blocks of sixteen", products(gpt2.blocked(16))),
    Formulation("sums_einsum", "products by einsum", products(lambda x, y: np.einsum("...ik,...kj->...ij", x, y))),
    Formulation("sums_exact", "products added with twice the digits",
                products(lambda x, y: gpt2.wider(x) @ gpt2.wider(y))),
    Formulation("split_k", "thirds of each sum added at its end", products(gpt2.split_k)),
    Formulation("qkv_fused", "q, k and v by one product",
                fused("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")),
    Formulation("gate_and_up_fused", "gate and up by one product", fused("mlp.gate_proj.weight", "mlp.up_proj.weight")),
    # --- rotation
    Formulation("frequencies_own_float64", "frequencies from rope_theta in float64",
                own_frequencies(np.float64), SIXTEEN_BITS),
    Formulation("frequencies_own_float32", "frequencies from rope_theta in float32",
                own_frequencies(np.float32), SIXTEEN_BITS),
    Formulation("tables_in_float64", "angles, cos and sin in float64", tables(np.float64)),
    Formulation("tables_unrounded", "tables and rotation in float32, rounded at its end",
                tables_unrounded, SIXTEEN_BITS),
    Formulation("rotary_complex", "pairs turned as complex numbers", wrap(rotate=rounded(by_complex))),
    Formulation("rotary_by_halves", "each half by a line of its own", wrap(rotate=lambda _: by_halves)),
    Formulation("rotary_interleaved", "neighbouring channels, with weights in that order", interleaved),
    # --- attention
    Formulation("groups_broadcast", "keys and values broadcast over their group", broadcast),
    Formulation("heads_alone", "one head at a time",
                wrap(attention_scores=gpt2.head_by_head, attention_context=gpt2.head_by_head)),
    Formulation("scale_on_q", "q scaled and rounded before the product",
                gpt2.scores(lambda q, k, scale, store: store(q * scale) @ k.mT)),
    Formulation("scale_multiplied", "multiplied by 1 / sqrt(d)",
                wrap(attention_scores=rounded(lambda q, k: q @ k.mT * (1 / math.sqrt(q.shape[-1]))))),
    Formulation("scale_after_rounding", "the product rounded before it is scaled",
                gpt2.scores(lambda q, k, scale, store: store(q @ k.mT) * scale)),
    Formulation("probabilities_unrounded", "probabilities stay float32 until they meet v",
                gpt2.unrounded(scores=False), SIXTEEN_BITS),
    Formulation("attention_unrounded", "attention in float32, rounded at its end",
                gpt2.unrounded(scores=True), SIXTEEN_BITS),
    Formulation("attention_flash", "blocks of seven keys, divided at the end", attention_of(gpt2.flash)),
    Formulation("softmax_chunks_7", "online softmax over chunks of seven", gpt2.chunked(7)),
    Formulation("softmax_exp2", "exp2 with log2(e) folded into the scale", gpt2.softmax(gpt2.by_exp2)),
    Formulation("softmax_reciprocal", "multiplied by 1 / sum", gpt2.softmax(gpt2.by_reciprocal)),
    # --- norms
    Formulation("norm_unrounded", "the weight applied before the normalised values are rounded",
                wrap(rms_norm=rounded(norm_and_weight)), SIXTEEN_BITS),
    Formulation("norm_inverse_root", "multiplied by 1 / sqrt(mean square + epsilon)",
                norm(lambda x, epsilon: x * (1 / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon)))),
    Formulation("norm_in_order", "squares added one after the other", with_sum(norms.in_order)),
    Formulation("norm_pairwise", "squares added as a binary tree", with_sum(norms.pairwise)),
    Formulation("norm_by_norm", "sqrt(D) over the Euclidean norm", norm(by_norm)),
    Formulation("norm_by_largest", "divided by the largest magnitude first", norm(by_largest)),
    # --- FFN
    Formulation("silu_sigmoid", "x times 1 / (1 + exp(-x))", silu(lambda x: x * (1 / (1 + np.exp(-x))))),
    Formulation("silu_tanh", "x (1 + tanh(x / 2)) / 2", silu(lambda x: 0.5 * x * (1 + np.tanh(0.5 * x)))),
    Formulation("gated_unrounded", "silu(gate) * up in float32, rounded at its end", gated_unrounded, SIXTEEN_BITS),
    # --- residuals
    Formulation("residual_last", "hidden + (attention_output + ffn_output)", residuals(
        lambda x: x, lambda hidden, attended, output: (output + attended) + hidden)),
    Formulation("residual_unrounded", "a block's sums stay float32", residuals(
        wide, lambda hidden, attended, output: (hidden + attended) + output), SIXTEEN_BITS),
    # --- less than float32
    Formulation("products_in_tfloat32", "operands of products rounded to 11 bits",
                products(lambda x, y: gpt2.eleven_bits(x) @ gpt2.eleven_bits(y)), ("tfloat32",)),
    *in_torch.FORMULATIONS,
)  # fmt: skip

FORMULATIONS = tuple(replace(entry, contracts=entry.contracts or ORDINARY) for entry in _CATALOGUE)
