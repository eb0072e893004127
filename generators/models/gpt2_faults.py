"""Mistakes that people make when they port GPT-2, each a small change to the plain candidate.

A fault is caught in float32 with its first divergence at the checkpoint where it belongs, in every case that can see it;
`goldens/models/gpt2/visibility.md` is the table. NumPy only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap

Array = Any
State = dict[str, Array]


def weights(change: Callable[[State], State]) -> Callable[[Any], None]:
    """Return a change to the state dict that the candidate loads."""
    return wrap(gpt2=lambda run: lambda *args, weights, **rest: run(*args, weights=change(weights), **rest))


def each(ending: str, change: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to every weight whose name ends with `ending`."""
    return weights(lambda state: {name: change(w) if name.endswith(ending) else w for name, w in state.items()})


def zero_part(ending: str, part: int) -> Callable[[Any], None]:
    """Return a change that zeroes one third (0 q, 1 k, 2 v) of the last axis of a weight."""

    def zeroed(w: Array) -> Array:
        thirds = np.split(w, 3, axis=-1)
        thirds[part] = np.zeros_like(thirds[part])
        return np.concatenate(thirds, axis=-1)

    return each(ending, zeroed)


def read_as_out_in(w: Array) -> Array:
    """Take a Conv1D weight, stored [in, out], for a Linear weight, stored [out, in], and transpose it into place."""
    return np.ascontiguousarray(w.reshape(w.shape[::-1]).T)


def swapped_norms(state: State) -> State:
    """Exchange weight and bias of every LayerNorm."""
    other = {".weight": ".bias", ".bias": ".weight"}
    return {
        name: state[stem + other[dot + end]] if stem.split(".")[-1].startswith("ln_") else state[name]
        for name in state
        for stem, dot, end in [name.rpartition(".")]
    }


def layers(*order: int) -> Callable[[Any], None]:
    """Return a change that runs the layers in another order."""

    def reordered(state: State) -> State:
        kept = {name: w for name, w in state.items() if ".h." not in name}
        for position, index in enumerate(order):
            old, new = f"transformer.h.{index}.", f"transformer.h.{position}."
            kept |= {new + name.removeprefix(old): w for name, w in state.items() if name.startswith(old)}
        return kept

    return weights(reordered)


def norm(formula: Callable[..., Array]) -> Callable[[Any], None]:
    """Return a change to LayerNorm: `formula(x, epsilon)` in float64 gives the normalised values."""

    def replacement(_: Any) -> Any:
        def wrong(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
            return (formula(x.astype(np.float64), epsilon) * weight + bias).astype(x.dtype)

        return wrong

    return wrap(layer_norm=replacement)


def epsilon(value: float) -> Callable[[Any], None]:
    """Return a change to the epsilon of every LayerNorm."""
    return wrap(layer_norm=lambda right: lambda x, weight, bias, epsilon: right(x, weight, bias, value))


def activation(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the activation, computed in float64."""
    return wrap(gelu=lambda _: lambda x: formula(x.astype(np.float64)).astype(x.dtype))


def erf(x: Array) -> Array:
    """Return the error function (math.erf, element by element)."""
    import math

    return np.vectorize(math.erf)(x)


def scores(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the attention scores, `formula(q, k)` of (B, H, T, d) and (B, H, S, d) in float64."""
    return wrap(
        attention_scores=lambda _: lambda q, k: formula(q.astype(np.float64), k.astype(np.float64)).astype(q.dtype)
    )


def qkv(change: Callable[[list[Array]], Any]) -> Callable[[Any], None]:
    """Return a change to the queries, keys and values, (B, T, D) each, before the heads are split."""
    return wrap(split_qkv=lambda right: lambda x: change(right(x)))


def allowed(change: Callable[..., Array]) -> Callable[[Any], None]:
    """Return a change to the mask: `change(query, key, mask)` says who may see whom."""

    def replacement(_: Any) -> Any:
        def wrong(mask: Array, start: int, end: int) -> Array:
            query, key = np.arange(start, end)[:, None], np.arange(end)[None, :]
            return np.broadcast_to(
                change(query, key, mask[:, None, None, :end] != 0), (mask.shape[0], 1, end - start, end)
            )

        return wrong

    return wrap(attention_allowed=replacement)


def others_only(query: Array, key: Array, valid: Array) -> Array:
    """Return the causal mask without its diagonal; a token that has nobody else sees itself."""
    others = (key < query) & valid
    return others | ((key == query) & ~others.any(-1, keepdims=True))


def outputs(change: Callable[[State], State]) -> Callable[[Any], None]:
    """Return a change to the outputs; `change` returns those that are wrong."""

    def replacement(run: Any) -> Any:
        def wrong(*args: Any, **rest: Any) -> State:
            found: State = run(*args, **rest)
            return found | change(found)

        return wrong

    return wrap(gpt2=replacement)


def cache_read(length: Callable[[int], int]) -> Callable[[Any], None]:
    """Return a change that reads back `length(end)` tokens of the cache, and masks no more than that."""
    return wrap(
        read_cache=lambda right: lambda store, end: right(store, length(end)),
        attention_allowed=lambda right: lambda mask, start, end: right(mask, start, end)[..., : length(end)],
    )


def written_at(offset: int) -> Callable[[Any], Any]:
    """Return a cache write that lands `offset` positions off."""
    return lambda right: lambda store, k, v, start, end: right(store, k, v, start + offset, end + offset)


def garbage_cache(right: Any) -> Any:
    """Allocate a cache without clearing it, and forget to write its last slot."""

    def wrong(*args: Any) -> Any:
        return [{part: np.full_like(array, 7.5) for part, array in layer.items()} for layer in right(*args)]

    return wrong


def stale_cache(right: Any) -> Any:
    """Keep two tokens of a warm-up at the front of the cache."""

    def wrong(store: Any, k: Array, v: Array, start: int, end: int) -> None:
        right(store, k, v, start, end)
        store["k"][:, :, :2], store["v"][:, :, :2] = 0.5, -0.25

    return wrong


def block(wiring: str) -> Callable[[Any], None]:
    """Return a change to how a block is wired; `wiring` says which wire is wrong."""

    def change(plain: Any) -> None:
        def wrong(
            hidden: Array, layer: State, store: Any, mask: Array, start: int, n_head: int, epsilon: float, record: Any
        ) -> Array:
            def norm_with(name: str) -> Callable[[Array], Array]:
                return lambda x: plain.layer_norm(x, layer[f"{name}.weight"], layer[f"{name}.bias"], epsilon)

            ln_1, ln_2 = norm_with("ln_1"), norm_with("ln_2")
            if wiring == "norms_swapped":
                ln_1, ln_2 = ln_2, ln_1
            given = hidden if wiring == "post_norm" else ln_1(hidden)
            attended = plain.attention(given, layer, store, mask, start, n_head, record)
            residual = {
                "attention_residual_missing": attended,
                "attention_residual_twice": hidden + hidden + attended,
                "residual_from_norm": given + attended,
            }.get(wiring, hidden + attended)
            if wiring == "post_norm":
                residual = given = ln_1(residual)
            normed = ln_2(residual)
            ffn_input = {"ffn_of_attention_output": attended, "ffn_without_norm": residual}.get(wiring, normed)
            inner = plain.linear(ffn_input, layer["mlp.c_fc.weight"], layer["mlp.c_fc.bias"])
            activation = plain.gelu(inner)
            output = plain.linear(activation, layer["mlp.c_proj.weight"], layer["mlp.c_proj.bias"])
            block_output = {
                "ffn_residual_missing": output,
                "ffn_residual_twice": residual + residual + output,
                "ffn_residual_from_input": hidden + output,
            }.get(wiring, residual + output)
            names = ("ln_1", "attention_output", "residual", "ln_2", "c_fc", "activation", "ffn_output", "block_output")
            values = (given, attended, residual, normed, inner, activation, output, block_output)
            for name, value in zip(names, values, strict=True):
                record(name, value)
            return block_output

        plain.block = wrong

    return change


class _Masked:
    """Scores on their way to a softmax that masks too late."""

    def __init__(self, scores: Array, allowed: Array) -> None:
        """Keep both until the softmax."""
        self.scores, self.allowed = scores, allowed


LN, Q, K, V = ("h.0.ln_1",), ("h.0.q",), ("h.0.k",), ("h.0.v",)
SCORES, PROBABILITIES = ("h.0.attention_scores",), ("h.0.attention_probabilities",)
CACHE = ("h.0.key_cache", "h.0.attention_scores")


def deviations(x: Array) -> Array:
    """Return x less the mean of its last axis."""
    return x - x.mean(-1, keepdims=True)


def normalised(x: Array, variance: Array, epsilon: float) -> Array:
    """Return the deviations of x over sqrt(variance + epsilon)."""
    return deviations(x) / np.sqrt(variance + epsilon)


FAULTS = (
    # --- embeddings
    Fault("positions_off_by_one", ("embeddings",), "positions start at 1",
          wrap(embed=lambda right: lambda ids, positions, w: right(ids, positions + 1, w))),
    Fault("positions_missing", ("embeddings",), "no position embedding",
          wrap(embed=lambda _: lambda ids, positions, w: w["wte.weight"][ids])),
    Fault("positions_ignore_padding", ("embeddings",), "positions count the padding",
          wrap(gpt2=lambda run: lambda input_ids, attention_mask, position_ids, **rest: run(
              input_ids, attention_mask, np.broadcast_to(np.arange(input_ids.shape[1]), input_ids.shape), **rest))),
    Fault("positions_restart_in_decode", ("step.1.embeddings",), "every decode step is at position 0",
          wrap(forward=lambda right: lambda ids, positions, mask, start, *rest: right(
              ids, positions * (start == 0), mask, start, *rest))),
    # --- layer norm
    Fault("epsilon_1e-3", LN, "epsilon 1e-3 instead of 1e-5", epsilon(1e-3)),
    Fault("epsilon_1e-6", LN, "epsilon 1e-6 instead of 1e-5", epsilon(1e-6)),
    Fault("epsilon_1e-12", LN, "epsilon 1e-12 instead of 1e-5", epsilon(1e-12)),
    Fault("epsilon_outside_root", LN, "sqrt(variance) + epsilon instead of sqrt(variance + epsilon)",
          norm(lambda x, eps: deviations(x) / (np.sqrt(x.var(-1, keepdims=True)) + eps))),
    Fault("variance_unbiased", LN, "variance over N - 1 instead of N",
          norm(lambda x, eps: normalised(x, x.var(-1, keepdims=True, ddof=1), eps))),
    Fault("mean_not_subtracted", LN, "RMSNorm: the mean is not subtracted",
          norm(lambda x, eps: x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps))),
    Fault("norm_over_all", LN, "mean and variance over tokens and channels",
          norm(lambda x, eps: (x - x.mean((-1, -2), keepdims=True)) / np.sqrt(x.var((-1, -2), keepdims=True) + eps))),
    Fault("gamma_beta_swapped", LN, "weight and bias of the norms exchanged", weights(swapped_norms)),
    Fault("gamma_times_1.01", LN, "norm weights 1 % too large", each("ln_1.weight", lambda w: w * w.dtype.type(1.01))),
    Fault("gamma_missing", LN, "norm weights left at 1", each("ln_1.weight", np.ones_like)),
    Fault("beta_missing", LN, "norm biases left at 0", each("ln_1.bias", np.zeros_like)),
    Fault("norms_swapped", LN, "ln_1 and ln_2 exchanged", block("norms_swapped")),
    # --- queries, keys, values
    Fault("q_bias_missing", Q, "no bias on the queries", zero_part("c_attn.bias", 0)),
    Fault("k_bias_missing", K, "no bias on the keys", zero_part("c_attn.bias", 1)),
    Fault("v_bias_missing", V, "no bias on the values", zero_part("c_attn.bias", 2)),
    Fault("qkv_bias_missing", Q, "no bias on c_attn", each("c_attn.bias", np.zeros_like)),
    Fault("c_attn_read_as_out_in", Q, "c_attn taken for a Linear weight, [out, in]", each("c_attn.weight", read_as_out_in)),
    Fault("c_attn_transposed", (), "c_attn transposed: the shapes do not fit", each("c_attn.weight", np.transpose)),
    Fault("qkv_order_kqv", Q, "c_attn split as k, q, v", qkv(lambda p: [p[1], p[0], p[2]])),
    Fault("qkv_order_qvk", K, "c_attn split as q, v, k", qkv(lambda p: [p[0], p[2], p[1]])),
    Fault("qkv_order_vkq", Q, "c_attn split as v, k, q", qkv(lambda p: [p[2], p[1], p[0]])),
    Fault("heads_interleaved", Q, "channels dealt out to the heads in turn",
          wrap(split_heads=lambda _: lambda x, n: x.reshape(*x.shape[:2], -1, n).transpose(0, 3, 1, 2))),
    Fault("heads_without_transpose", Q, "(B, T, D) reshaped to (B, H, T, d) without a transpose",
          wrap(split_heads=lambda _: lambda x, n: x.reshape(x.shape[0], n, x.shape[1], -1))),
    Fault("head_count_wrong", Q, "twice as many heads",
          wrap(gpt2=lambda run: lambda *args, n_head, **rest: run(*args, n_head=2 * n_head, **rest))),
    Fault("head_counts_differ", (), "keys with other heads than queries",
          wrap(read_cache=lambda right: lambda store, end: tuple(
              x.reshape(x.shape[0], 2 * x.shape[1], x.shape[2], -1) for x in right(store, end)))),
    # --- scores
    Fault("scale_by_head_dim", SCORES, "divided by d instead of sqrt(d)",
          scores(lambda q, k: q @ k.swapaxes(-1, -2) / q.shape[-1])),
    Fault("scale_by_width", SCORES, "divided by sqrt(D) instead of sqrt(d)",
          scores(lambda q, k: q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[1] * q.shape[3]))),
    Fault("scale_missing", SCORES, "the 1/sqrt(d) scale is missing", scores(lambda q, k: q @ k.swapaxes(-1, -2))),
    Fault("scale_twice", SCORES, "divided by sqrt(d) twice",
          wrap(attention_scores=lambda right: lambda q, k: (right(q, k) / np.float64(np.sqrt(q.shape[-1]))).astype(q.dtype))),
    Fault("k_not_transposed", SCORES, "k reshaped to (d, S) instead of transposed",
          scores(lambda q, k: q @ k.reshape(*k.shape[:2], k.shape[3], k.shape[2]) / np.sqrt(q.shape[-1]))),
    Fault("k_times_q", SCORES, "k q^T instead of q k^T",
          wrap(attention_scores=lambda right: lambda q, k: right(k, q) if q.shape == k.shape else right(q, k))),
    Fault("first_head_only", SCORES, "the loop over heads stops after the first",
          wrap(attention_scores=lambda right: lambda q, k: right(q, k) * (np.arange(q.shape[1])[:, None, None] == 0).astype(q.dtype))),
    # --- mask and softmax
    Fault("mask_missing", PROBABILITIES, "no causal mask", allowed(lambda query, key, valid: valid | (key == query))),
    Fault("mask_one_too_far", PROBABILITIES, "a token sees the next one",
          allowed(lambda query, key, valid: (key <= query + 1) & (valid | (key == query)))),
    Fault("mask_one_too_near", PROBABILITIES, "a token does not see itself",
          allowed(others_only)),
    Fault("mask_minus_10", PROBABILITIES, "masked scores are lowered by 10 instead of excluded",
          wrap(apply_mask=lambda _: lambda x, allowed: np.where(allowed, x, x - x.dtype.type(10)))),
    Fault("mask_minus_20", PROBABILITIES, "masked scores are lowered by 20 instead of excluded",
          wrap(apply_mask=lambda _: lambda x, allowed: np.where(allowed, x, x - x.dtype.type(20)))),
    Fault("mask_set_to_minus_10", PROBABILITIES, "masked scores are set to -10",
          wrap(apply_mask=lambda _: lambda x, allowed: np.where(allowed, x, x.dtype.type(-10)))),
    Fault("mask_set_to_minus_50", PROBABILITIES, "masked scores are set to -50",
          wrap(apply_mask=lambda _: lambda x, allowed: np.where(allowed, x, x.dtype.type(-50)))),
    Fault("mask_after_softmax", PROBABILITIES, "the mask zeroes probabilities that are not normalised again",
          wrap(apply_mask=lambda _: lambda x, allowed: _Masked(x, allowed),
               softmax=lambda right: lambda x, *t: right(x.scores) * x.allowed if isinstance(x, _Masked) else right(x, *t))),
    Fault("mask_aligned_to_start", ("step.1.h.0.attention_probabilities",), "in decode the causal mask starts at query 0",
          wrap(attention_allowed=lambda right: lambda mask, start, end: np.broadcast_to(
              right(mask, 0, end)[:, :, : end - start], (mask.shape[0], 1, end - start, end)))),
    Fault("padding_not_masked", PROBABILITIES, "the attention mask is ignored",
          allowed(lambda query, key, valid: (key <= query) & np.ones_like(valid))),
    Fault("padding_mask_inverted", PROBABILITIES, "the attention mask is read with the wrong polarity",
          allowed(lambda query, key, valid: (key <= query) & (~valid | (key == query)))),
    Fault("softmax_over_queries", PROBABILITIES, "softmax over the queries instead of the keys",
          wrap(softmax=lambda right: lambda x, *t: right(x.swapaxes(-1, -2), *t).swapaxes(-1, -2) if x.ndim == 4 else right(x, *t))),
    # --- context and projection
    Fault("context_not_transposed", ("h.0.attention_output",), "heads merged without a transpose",
          wrap(merge_heads=lambda _: lambda x: x.reshape(x.shape[0], x.shape[2], -1))),
    Fault("c_proj_transposed", ("h.0.attention_output",), "the square c_proj transposed: no shape error", each("attn.c_proj.weight", np.transpose)),
    Fault("c_proj_bias_missing", ("h.0.attention_output",), "no bias on the attention's c_proj", each("attn.c_proj.bias", np.zeros_like)),
    Fault("c_proj_missing", ("h.0.attention_output",), "c_proj not loaded: zeros", each("attn.c_proj.weight", np.zeros_like)),
    # --- residuals and norms of the block
    Fault("post_norm", LN, "norm after the residual instead of before the attention", block("post_norm")),
    Fault("attention_residual_missing", ("h.0.residual",), "the input is not added to the attention output", block("attention_residual_missing")),
    Fault("attention_residual_twice", ("h.0.residual",), "the input is added twice", block("attention_residual_twice")),
    Fault("residual_from_norm", ("h.0.residual",), "ln_1's output is added instead of the input", block("residual_from_norm")),
    # --- FFN
    Fault("ffn_of_attention_output", ("h.0.c_fc",), "the FFN is fed the attention output instead of ln_2", block("ffn_of_attention_output")),
    Fault("ffn_without_norm", ("h.0.c_fc",), "the FFN is fed the residual instead of ln_2", block("ffn_without_norm")),
    Fault("c_fc_read_as_out_in", ("h.0.c_fc",), "c_fc taken for a Linear weight, [out, in]", each("c_fc.weight", read_as_out_in)),
    Fault("c_fc_bias_missing", ("h.0.c_fc",), "no bias on c_fc", each("c_fc.bias", np.zeros_like)),
    Fault("gelu_erf", ("h.0.activation",), "erf GELU instead of the tanh formula", activation(lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))))),
    Fault("gelu_quick", ("h.0.activation",), "x sigmoid(1.702 x) instead of the tanh formula", activation(lambda x: x / (1 + np.exp(-1.702 * x)))),
    Fault("relu", ("h.0.activation",), "ReLU instead of GELU", activation(lambda x: np.maximum(x, 0))),
    Fault("activation_missing", ("h.0.activation",), "no activation", activation(lambda x: x)),
    Fault("ffn_half_width", (), "an FFN of half the width: the shapes do not fit", each("c_fc.weight", lambda w: w[:, : w.shape[1] // 2])),
    Fault("ffn_c_proj_read_as_out_in", ("h.0.ffn_output",), "the FFN's c_proj taken for a Linear weight, [out, in]", each("mlp.c_proj.weight", read_as_out_in)),
    Fault("ffn_bias_missing", ("h.0.ffn_output",), "no bias on the FFN's c_proj", each("mlp.c_proj.bias", np.zeros_like)),
    Fault("ffn_residual_missing", ("h.0.block_output",), "the residual is not added to the FFN output", block("ffn_residual_missing")),
    Fault("ffn_residual_twice", ("h.0.block_output",), "the residual is added twice", block("ffn_residual_twice")),
    Fault("ffn_residual_from_input", ("h.0.block_output",), "the block's input is added instead of the residual", block("ffn_residual_from_input")),
    # --- layers and head
    Fault("layer_skipped", ("h.1.ln_1",), "the second layer is skipped", layers(0, 2, 3)),
    Fault("layers_swapped", ("h.1.ln_1",), "the second and third layer exchanged", layers(0, 2, 1, 3)),
    Fault("first_layer_repeated", ("h.1.ln_1",), "every layer has the weights of the first", layers(0, 0, 0, 0)),
    Fault("ln_f_skipped", ("ln_f",), "no final norm", wrap(final_norm=lambda _: lambda hidden, w, eps: hidden)),
    Fault("ln_f_with_ln_1", ("ln_f",), "the final norm has the weights of ln_1",
          wrap(final_norm=lambda right: lambda hidden, w, eps: right(hidden, w | {
              "ln_f.weight": w["h.0.ln_1.weight"], "ln_f.bias": w["h.0.ln_1.bias"]}, eps))),
    Fault("head_untied", ("logits",), "the head has weights of its own",
          wrap(head=lambda right: lambda hidden, w: right(hidden, w | {"wte.weight": w["wte.weight"][::-1]}))),
    Fault("head_bias", ("logits",), "the head has a bias",
          wrap(head=lambda right: lambda hidden, w: right(hidden, w) + w["wte.weight"][:, 0])),
    # --- what is read off the logits
    Fault("first_position", ("last_logits",), "the first position instead of the last", wrap(last_position=lambda _: lambda logits: logits[:, 0])),
    Fault("argmax_over_batch", ("greedy_token",), "argmax over the wrong axis", outputs(lambda found: {"greedy_token": found["last_logits"].argmax(0)})),
    Fault("argmin", ("greedy_token",), "argmin instead of argmax", wrap(greedy=lambda _: lambda logits: logits.argmin(-1))),
    Fault("token_as_float", ("greedy_token",), "token ids as floating numbers", outputs(lambda found: {"greedy_token": found["greedy_token"].astype(np.float32)})),
    Fault("temperature_ignored", ("probabilities.t0.5",), "logits not divided by the temperature",
          wrap(softmax=lambda right: lambda x, temperature=1.0: right(x))),
    Fault("temperature_multiplied", ("probabilities.t0.5",), "logits multiplied by the temperature",
          wrap(softmax=lambda right: lambda x, temperature=1.0: right(x, 1 / temperature))),
    # --- cache
    Fault("cache_written_one_late", CACHE, "keys and values written one position too late", wrap(write_cache=written_at(1))),
    Fault("cache_read_short", CACHE, "the last token is not read back", cache_read(lambda end: max(end - 1, 1))),
    Fault("cache_read_one", CACHE, "only the first token is read back", cache_read(lambda end: 1)),
    Fault("cache_uninitialised", CACHE, "memory that was never written is read back",
          wrap(new_cache=garbage_cache, write_cache=lambda right: lambda store, k, v, start, end: right(
              store, k[:, :, : end - start - 1], v[:, :, : end - start - 1], start, end - 1))),
    Fault("cache_stale", CACHE, "two tokens of a warm-up are left in the cache", wrap(write_cache=stale_cache)),
    Fault("cache_keys_as_values", ("h.0.value_cache", "h.0.attention_context"), "keys stored in the place of values",
          wrap(write_cache=lambda right: lambda store, k, v, start, end: right(store, k, k, start, end))),
    Fault("cache_overwritten", ("step.1.h.0.key_cache",), "every decode step writes to the same slot",
          wrap(write_cache=lambda right: lambda store, k, v, start, end: right(
              store, k, v, start * 0 + (start and 1), (start and 1) + end - start))),
)  # fmt: skip
