"""GPT-2 in plain NumPy: the definition, to read and to copy.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019); the layout of the weights and the tanh
GELU are those of the released model (`transformers/models/gpt2/modeling_gpt2.py`). Sums, norms and the softmax are
computed in float32 (float64 where the weights are) and each result is rounded to the format of the weights.

B batch, T tokens, S tokens seen so far, D width, H heads, d = D / H, F FFN width, V vocabulary.
"""

import math

import numpy as np


def gpt2(
    input_ids,
    attention_mask,
    position_ids,
    weights,
    decode_ids=None,
    *,
    n_head,
    layer_norm_epsilon,
    temperatures,
    max_new_tokens,
):
    """Return every checkpoint: of the prefill, of the decode steps in `decode_ids`, and of a greedy continuation."""
    weights = {name.removeprefix("transformer."): value for name, value in weights.items()}
    n_layer = sum(name.endswith(".ln_1.weight") for name in weights)
    batch, tokens = input_ids.shape
    capacity = weights["wpe.weight"].shape[0]
    steps = 0 if decode_ids is None else decode_ids.shape[1]
    cache = new_cache(n_layer, batch, n_head, capacity, weights)
    outputs = {}

    def run(ids, positions, mask, start, record):
        return forward(ids, positions, mask, start, cache, weights, n_layer, n_head, layer_norm_epsilon, record)

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


def forward(ids, positions, mask, start, cache, weights, n_layer, n_head, epsilon, record):
    """Run the tokens `ids` (B, T), which stand at `start` in the cache; return their logits (B, T, V)."""
    hidden = embed(ids, positions, weights)  # (B, T, D)
    record("embeddings", hidden)
    for index in range(n_layer):
        prefix = f"h.{index}."
        layer = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

        def record_in_layer(name, value, prefix=prefix):
            record(prefix + name, value)

        hidden = block(hidden, layer, cache[index], mask, start, n_head, epsilon, record_in_layer)  # (B, T, D)
    hidden = final_norm(hidden, weights, epsilon)  # (B, T, D)
    record("ln_f", hidden)
    logits = head(hidden, weights)  # (B, T, V)
    record("logits", logits)
    return logits


def block(hidden, layer, cache, mask, start, n_head, epsilon, record):
    """Run one pre-norm block on `hidden` (B, T, D)."""
    normed = layer_norm(hidden, layer["ln_1.weight"], layer["ln_1.bias"], epsilon)  # (B, T, D)
    record("ln_1", normed)
    attended = attention(normed, layer, cache, mask, start, n_head, record)  # (B, T, D)
    record("attention_output", attended)
    residual = hidden + attended  # (B, T, D)
    record("residual", residual)
    normed = layer_norm(residual, layer["ln_2.weight"], layer["ln_2.bias"], epsilon)  # (B, T, D)
    record("ln_2", normed)
    inner = linear(normed, layer["mlp.c_fc.weight"], layer["mlp.c_fc.bias"])  # (B, T, F)
    record("c_fc", inner)
    activation = gelu(inner)  # (B, T, F)
    record("activation", activation)
    output = linear(activation, layer["mlp.c_proj.weight"], layer["mlp.c_proj.bias"])  # (B, T, D)
    record("ffn_output", output)
    block_output = residual + output  # (B, T, D)
    record("block_output", block_output)
    return block_output


def attention(x, layer, cache, mask, start, n_head, record):
    """Causal multi-head self-attention of the tokens `x` (B, T, D) over all that are in the cache."""
    qkv = linear(x, layer["attn.c_attn.weight"], layer["attn.c_attn.bias"])  # (B, T, 3D)
    q, k, v = (split_heads(part, n_head) for part in split_qkv(qkv))  # (B, H, T, d) each
    record("q", q)
    record("k", k)
    record("v", v)
    end = start + x.shape[1]  # S
    write_cache(cache, k, v, start, end)
    k, v = read_cache(cache, end)  # (B, H, S, d)
    record("key_cache", k)
    record("value_cache", v)
    scores = attention_scores(q, k)  # (B, H, T, S)
    record("attention_scores", scores)
    allowed = attention_allowed(mask, start, end)  # (B, 1, T, S)
    probabilities = softmax(apply_mask(scores, allowed))  # (B, H, T, S)
    record("attention_probabilities", probabilities)
    context = matmul(probabilities, v)  # (B, H, T, d)
    record("attention_context", context)
    merged = merge_heads(context)  # (B, T, D)
    return linear(merged, layer["attn.c_proj.weight"], layer["attn.c_proj.bias"])


def embed(ids, positions, weights):
    """Token embedding plus learned position embedding, (B, T, D)."""
    return weights["wte.weight"][ids] + weights["wpe.weight"][positions]


def layer_norm(x, weight, bias, epsilon):
    """Normalise the last axis by its mean and biased variance (Ba et al. 2016)."""
    wide_x = wide(x)
    mean = wide_x.mean(-1, keepdims=True)
    variance = np.square(wide_x - mean).mean(-1, keepdims=True)
    return ((wide_x - mean) / np.sqrt(variance + epsilon) * wide(weight) + wide(bias)).astype(x.dtype)


def linear(x, weight, bias):
    """Multiply by `weight`, stored [in, out] as the released model does, and add `bias`."""
    return (wide(x) @ wide(weight) + wide(bias)).astype(x.dtype)


def matmul(x, y):
    """Multiply matrices, accumulating in the wide format."""
    return (wide(x) @ wide(y)).astype(x.dtype)


def split_qkv(qkv):
    """Cut (B, T, 3D) into queries, keys and values, (B, T, D) each."""
    return np.split(qkv, 3, axis=-1)


def split_heads(x, n_head):
    """(B, T, D) -> (B, H, T, d): head h is the h-th contiguous run of d channels."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, n_head, width // n_head).transpose(0, 2, 1, 3)


def merge_heads(x):
    """(B, H, T, d) -> (B, T, D)."""
    batch, heads, tokens, size = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * size)


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


def gelu(x):
    """GELU by the tanh formula of GPT-2 (Hendrycks and Gimpel 2016, section 2)."""
    wide_x = wide(x)
    inner = math.sqrt(2 / math.pi) * (wide_x + 0.044715 * wide_x**3)
    return (0.5 * wide_x * (1 + np.tanh(inner))).astype(x.dtype)


def final_norm(hidden, weights, epsilon):
    """Normalise what the last block leaves, (B, T, D)."""
    return layer_norm(hidden, weights["ln_f.weight"], weights["ln_f.bias"], epsilon)


def head(hidden, weights):
    """Multiply by the token embedding, to which the head is tied; no bias, (B, T, V)."""
    return matmul(hidden, weights["wte.weight"].T)


def last_position(logits):
    """(B, T, V) -> (B, V)."""
    return logits[:, -1]


def greedy(logits):
    """Return the index of the largest logit of each row, the first of equal ones, (B,)."""
    return wide(logits).argmax(-1)


def new_cache(n_layer, batch, n_head, capacity, weights):
    """Allocate keys and values for `capacity` tokens, a (B, H, capacity, d) pair for each layer."""
    table = weights["wte.weight"]
    shape = (batch, n_head, capacity, table.shape[1] // n_head)
    return [{"k": np.zeros(shape, table.dtype), "v": np.zeros(shape, table.dtype)} for _ in range(n_layer)]


def write_cache(cache, k, v, start, end):
    """Store the keys and values of tokens `start` to `end`."""
    cache["k"][:, :, start:end] = k
    cache["v"][:, :, start:end] = v


def read_cache(cache, end):
    """Return copies of the keys and values of the first `end` tokens, (B, H, S, d) each."""
    return cache["k"][:, :, :end].copy(), cache["v"][:, :, :end].copy()


def wide(x):
    """Return `x` in the format in which sums are computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def ignore(name, value):
    """Record nothing."""
