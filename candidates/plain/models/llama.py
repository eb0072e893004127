"""Llama in plain NumPy: the definition, to read and to copy.

Touvron et al., "Llama 2" (2023); rotary embedding after Su et al., "RoFormer" (2021), in the half-split layout of
`transformers/models/llama/modeling_llama.py`; SwiGLU after Shazeer (2020); grouped heads after Ainslie et al. (2023).
Sums, norms, rotary tables and the softmax are computed in float32 (float64 where the weights are) and each result is
rounded to the format of the weights.

B batch, T tokens, S tokens seen so far, D width, H heads, G key and value heads, d head size, F FFN width,
V vocabulary.
"""

import math
from typing import NamedTuple

import numpy as np


class Model(NamedTuple):
    """What a forward pass needs beside the weights."""

    layers: int
    heads: int
    key_value_heads: int
    epsilon: float
    inverse_frequencies: np.ndarray  # (d/2,)


def llama(
    input_ids,
    attention_mask,
    position_ids,
    inverse_frequencies,
    weights,
    decode_ids=None,
    *,
    num_attention_heads,
    num_key_value_heads,
    rms_norm_eps,
    rope_parameters,
    temperatures,
    max_new_tokens,
):
    """Return every checkpoint: of the prefill, of the decode steps in `decode_ids`, and of a greedy continuation."""
    weights = {name.removeprefix("model."): value for name, value in weights.items()}
    n_layer = sum(name.endswith(".input_layernorm.weight") for name in weights)
    frequencies = frequencies_of(inverse_frequencies, rope_parameters)  # (d/2,)
    model = Model(n_layer, num_attention_heads, num_key_value_heads, rms_norm_eps, frequencies)
    batch, tokens = input_ids.shape
    steps = 0 if decode_ids is None else decode_ids.shape[1]
    capacity = tokens + max(steps, max_new_tokens)
    size, dtype = 2 * len(frequencies), weights["embed_tokens.weight"].dtype
    cache = new_cache(n_layer, batch, num_key_value_heads, capacity, size, dtype)
    outputs = {}

    def run(ids, positions, mask, start, record):
        return forward(ids, positions, mask, start, cache, weights, model, record)

    logits = run(input_ids, position_ids, attention_mask, 0, outputs.__setitem__)  # (B, T, V)
    last = last_position(logits)  # (B, V)
    outputs["last_logits"] = last
    outputs["greedy_token"] = greedy(last)  # (B,)
    for temperature in temperatures:
        outputs[f"probabilities.t{temperature}"] = softmax(last, temperature)  # (B, V)
    outputs["top5_indices"] = np.argsort(-wide(last), axis=-1, kind="stable")[:, :5]  # (B, 5)

    prefilled = [{part: layer[part].copy() for part in layer} for layer in cache]
    mask = attention_mask
    for step in range(steps):
        mask = np.concatenate([mask, np.ones((batch, 1), mask.dtype)], axis=1)  # (B, S)
        ids, positions = decode_ids[:, step : step + 1], position_ids[:, -1:] + step + 1  # (B, 1)
        prefix = f"step.{step + 1}."
        run(
            ids,
            positions,
            mask,
            tokens + step,
            lambda name, value, prefix=prefix: outputs.update({prefix + name: value}),
        )

    cache[:] = prefilled
    chosen, seen, mask = [], [], attention_mask
    for step in range(max_new_tokens):
        seen.append(last)
        chosen.append(greedy(last))
        mask = np.concatenate([mask, np.ones((batch, 1), mask.dtype)], axis=1)
        if step + 1 < max_new_tokens:
            positions = position_ids[:, -1:] + step + 1
            last = last_position(run(chosen[-1][:, None], positions, mask, tokens + step, ignore))
    if max_new_tokens:
        outputs["greedy_logits"] = np.stack(seen, axis=1)  # (B, max_new_tokens, V)
        outputs["greedy_tokens"] = np.stack(chosen, axis=1)  # (B, max_new_tokens)
    return outputs


def forward(ids, positions, mask, start, cache, weights, model, record):
    """Run the tokens `ids` (B, T), which stand at `start` in the cache; return their logits (B, T, V)."""
    hidden = embed(ids, weights)  # (B, T, D)
    record("embeddings", hidden)
    cos, sin = rotary_tables(positions, model.inverse_frequencies, hidden.dtype)  # (B, T, d/2) each
    record("rotary_cos", cos)
    record("rotary_sin", sin)
    for index in range(model.layers):
        prefix = f"layers.{index}."
        layer = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

        def record_in_layer(name, value, prefix=prefix):
            record(prefix + name, value)

        hidden = block(hidden, cos, sin, layer, cache[index], mask, start, model, record_in_layer)  # (B, T, D)
    hidden = final_norm(hidden, weights, model.epsilon)  # (B, T, D)
    record("norm", hidden)
    logits = head(hidden, weights)  # (B, T, V)
    record("logits", logits)
    return logits


def block(hidden, cos, sin, layer, cache, mask, start, model, record):
    """Run one pre-norm block on `hidden` (B, T, D)."""
    normed = rms_norm(hidden, layer["input_layernorm.weight"], model.epsilon)  # (B, T, D)
    record("input_norm", normed)
    attended = attention(normed, cos, sin, layer, cache, mask, start, model, record)  # (B, T, D)
    record("attention_output", attended)
    residual = hidden + attended  # (B, T, D)
    record("residual", residual)
    normed = rms_norm(residual, layer["post_attention_layernorm.weight"], model.epsilon)  # (B, T, D)
    record("post_attention_norm", normed)
    output = ffn(normed, layer, record)  # (B, T, D)
    record("ffn_output", output)
    block_output = residual + output  # (B, T, D)
    record("block_output", block_output)
    return block_output


def attention(x, cos, sin, layer, cache, mask, start, model, record):
    """Causal self-attention of the tokens `x` (B, T, D) over all that are in the cache, with grouped heads."""
    q = split_heads(linear(x, layer["self_attn.q_proj.weight"]), model.heads)  # (B, H, T, d)
    k = split_heads(linear(x, layer["self_attn.k_proj.weight"]), model.key_value_heads)  # (B, G, T, d)
    v = split_heads(linear(x, layer["self_attn.v_proj.weight"]), model.key_value_heads)  # (B, G, T, d)
    record("q", q)
    record("k", k)
    record("v", v)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    record("q_rotated", q)
    record("k_rotated", k)
    end = start + x.shape[1]  # S
    write_cache(cache, k, v, start, end)
    k, v = read_cache(cache, end)  # (B, G, S, d)
    record("key_cache", k)
    record("value_cache", v)
    scores = attention_scores(q, repeat_keys(k, model.heads))  # (B, H, T, S)
    record("attention_scores", scores)
    allowed = attention_allowed(mask, start, end)  # (B, 1, T, S)
    probabilities = softmax(apply_mask(scores, allowed))  # (B, H, T, S)
    record("attention_probabilities", probabilities)
    context = attention_context(probabilities, repeat_values(v, model.heads))  # (B, H, T, d)
    record("attention_context", context)
    return linear(merge_heads(context), layer["self_attn.o_proj.weight"])


def ffn(x, layer, record):
    """SwiGLU: down(silu(gate x) * (up x)), (B, T, D)."""
    gate = linear(x, layer["mlp.gate_proj.weight"])  # (B, T, F)
    record("gate", gate)
    up = linear(x, layer["mlp.up_proj.weight"])  # (B, T, F)
    record("up", up)
    activation = silu(gate)  # (B, T, F)
    record("activation", activation)
    gated = activation * up  # (B, T, F)
    record("gated", gated)
    return linear(gated, layer["mlp.down_proj.weight"])


def embed(ids, weights):
    """Token embedding, (B, T, D)."""
    return weights["embed_tokens.weight"][ids]


def frequencies_of(inverse_frequencies, rope_parameters):  # noqa: ARG001 - what they come from is not needed
    """Return the frequencies of the angles, (d/2,): those that are given."""
    return inverse_frequencies


def rotary_tables(positions, inverse_frequencies, dtype):
    """Return cos and sin of the angles position * frequency, (B, T, d/2) each, computed wide whatever `dtype` is."""
    inner = np.float64 if dtype == np.float64 else np.float32
    angles = positions[..., None].astype(inner) * inverse_frequencies.astype(inner)  # (B, T, d/2)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def rotate(x, cos, sin):
    """Turn channel i and channel i + d/2 of each head, x (B, heads, T, d), by the angle of their position."""
    cos, sin = (np.concatenate([table, table], axis=-1)[:, None] for table in (cos, sin))  # (B, 1, T, d)
    first, second = np.split(x, 2, axis=-1)  # (B, heads, T, d/2) each
    return x * cos + np.concatenate([-second, first], axis=-1) * sin


def rms_norm(x, weight, epsilon):
    """Divide by the root of the mean square of the last axis (Zhang and Sennrich 2019)."""
    wide_x = wide(x)
    mean_square = np.square(wide_x).mean(-1, keepdims=True)
    return weight * (wide_x / np.sqrt(mean_square + epsilon)).astype(x.dtype)


def linear(x, weight):
    """Multiply by `weight`, stored [out, in]; there are no biases."""
    return matmul(x, weight.T)


def matmul(x, y):
    """Multiply matrices, accumulating in the wide format."""
    return (wide(x) @ wide(y)).astype(x.dtype)


def split_heads(x, heads):
    """(B, T, heads d) -> (B, heads, T, d): head h is the h-th contiguous run of d channels."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x):
    """(B, H, T, d) -> (B, T, H d)."""
    batch, heads, tokens, size = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * size)


def repeat_keys(k, heads):
    """(B, G, S, d) -> (B, H, S, d): the keys that query head h looks at are those of head h // (H / G)."""
    return np.repeat(k, heads // k.shape[1], axis=1)


def repeat_values(v, heads):
    """(B, G, S, d) -> (B, H, S, d), as the keys."""
    return np.repeat(v, heads // v.shape[1], axis=1)


def attention_scores(q, k):
    """Q k^T / sqrt(d), before the mask, (B, H, T, S)."""
    return (wide(q) @ wide(k).swapaxes(-1, -2) / math.sqrt(q.shape[-1])).astype(q.dtype)


def attention_allowed(mask, start, end):
    """Say which of the S cached tokens each of the T queries may see, (B, 1, T, S): neither later ones nor padding.

    A token always sees itself, so that a row of padding, which nobody looks at, stays finite.
    """
    query, key = np.arange(start, end)[:, None], np.arange(end)[None, :]
    return (key <= query) & ((mask[:, None, None, :end] != 0) | (key == query))


def apply_mask(scores, allowed):
    """Replace the scores of what may not be seen by minus infinity."""
    return np.where(allowed, scores, scores.dtype.type(-np.inf))


def softmax(x, temperature=1.0):
    """Softmax of x / temperature over the last axis, its maximum subtracted first."""
    scaled = wide(x) / wide(x).dtype.type(temperature)
    exponentials = np.exp(scaled - scaled.max(-1, keepdims=True))
    return (exponentials / exponentials.sum(-1, keepdims=True)).astype(x.dtype)


def attention_context(probabilities, v):
    """Probabilities times values, (B, H, T, d)."""
    return matmul(probabilities, v)


def silu(x):
    """Return x sigmoid(x)."""
    wide_x = wide(x)
    return (wide_x / (1 + np.exp(-wide_x))).astype(x.dtype)


def final_norm(hidden, weights, epsilon):
    """Normalise what the last block leaves, (B, T, D)."""
    return rms_norm(hidden, weights["norm.weight"], epsilon)


def head(hidden, weights):
    """Multiply by the head, which is not tied to the embedding, (B, T, V)."""
    return linear(hidden, weights["lm_head.weight"])


def last_position(logits):
    """(B, T, V) -> (B, V)."""
    return logits[:, -1]


def greedy(logits):
    """Return the index of the largest logit of each row, the first of equal ones, (B,)."""
    return wide(logits).argmax(-1)


def new_cache(n_layer, batch, heads, capacity, size, dtype):
    """Allocate keys and values for `capacity` tokens, a (B, G, capacity, d) pair for each layer."""
    shape = (batch, heads, capacity, size)
    return [{"k": np.zeros(shape, dtype), "v": np.zeros(shape, dtype)} for _ in range(n_layer)]


def write_cache(cache, k, v, start, end):
    """Store the rotated keys and the values of tokens `start` to `end`."""
    cache["k"][:, :, start:end] = k
    cache["v"][:, :, start:end] = v


def read_cache(cache, end):
    """Return copies of the keys and values of the first `end` tokens, (B, G, S, d) each."""
    return cache["k"][:, :, :end].copy(), cache["v"][:, :, :end].copy()


def wide(x):
    """Return `x` in the format in which sums are computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def ignore(name, value):
    """Record nothing."""
