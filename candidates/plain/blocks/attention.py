"""Scaled dot-product attention in plain NumPy: the definition, to read and to copy.

Vaswani et al., "Attention Is All You Need" (2017), equation 1; grouped heads of Ainslie et al. (2023), windows and
global tokens of Beltagy et al. (2020), ALiBi of Press et al. (2021), the soft cap of Gemma 2 (2024), the sinks of
gpt-oss (2025), gradients as in Dao et al. (2022), appendix B. Everything is computed in float32 (float64 where q is),
and what is returned is rounded once to the format of q.

B batch, H query heads, G key and value heads, S queries, T keys, D width of queries and keys, E of values.
"""

import math

import numpy as np

ALIGNMENTS = ("bottom_right", "top_left")


def attention(
    q,
    k,
    v,
    sinks=None,
    slopes=None,
    cotangent=None,
    *,
    causal,
    scale=None,
    align="bottom_right",
    window=None,
    global_tokens=0,
    soft_cap=None,
):
    """Return the checkpoints of attention of q (B, H, S, D) over k (B, G, T, D) and v (B, G, T, E)."""
    check(q, k, v)
    check_optional(q, v, sinks, slopes, cotangent)
    check_options(align, window, global_tokens, soft_cap)
    heads, width, kept = q.shape[1], q.shape[3], q.dtype
    q, k, v, sinks, slopes, cotangent = (wide(x) for x in (q, k, v, sinks, slopes, cotangent))
    scale = q.dtype.type(default_scale(width) if scale is None else scale)

    keys, values = repeat_heads(k, heads), repeat_heads(v, heads)  # (B, H, T, D), (B, H, T, E)
    scores = attention_scores(q, keys, scale)  # (B, H, S, T)
    capped = cap_scores(scores, soft_cap)  # (B, H, S, T)
    position = query_positions(q.shape[2], k.shape[2], align)  # (S,)
    biased = capped if slopes is None else capped - alibi(slopes, position, k.shape[2])  # (B, H, S, T)
    allowed = visible(position, k.shape[2], causal, window, global_tokens)  # (S, T)
    masked = apply_mask(biased, allowed)  # (B, H, S, T)
    probabilities, log_sum_exp = softmax(masked, sinks)  # (B, H, S, T), (B, H, S)
    output = context(probabilities, values)  # (B, H, S, E)

    found = {"scores": scores, "masked_scores": masked, "probabilities": probabilities}
    found |= {"log_sum_exp": log_sum_exp, "output": output}
    if cotangent is not None:
        slope = cap_slope(scores, soft_cap)  # (B, H, S, T)
        found |= gradients(q, keys, values, probabilities, output, cotangent, scale, slope, k.shape[1])
    return {name: value.astype(kept) for name, value in found.items()}


def default_scale(width):
    """1 / sqrt(D)."""
    return 1 / math.sqrt(width)


def repeat_heads(x, heads):
    """(B, G, T, D) -> (B, H, T, D): each key head for H / G query heads in a row."""
    return np.repeat(x, heads // x.shape[1], axis=1)


def attention_scores(q, keys, scale):
    """Scale q k^T, (B, H, S, T)."""
    return q @ keys.swapaxes(-1, -2) * scale


def cap_scores(scores, cap):
    """C tanh(scores / c), (B, H, S, T)."""
    return scores if cap is None else scores.dtype.type(cap) * np.tanh(scores / scores.dtype.type(cap))


def query_positions(queries, keys, align):
    """Return where each query stands among the keys, (S,)."""
    return np.arange(queries) + (keys - queries if align == "bottom_right" else 0)


def alibi(slopes, position, keys):
    """Slope times distance, (H, S, T)."""
    distance = np.abs(position[:, None] - np.arange(keys))  # (S, T)
    return slopes[:, None, None] * distance.astype(slopes.dtype)


def visible(position, keys, causal, window, global_tokens):
    """Say which keys each query sees, boolean, (S, T)."""
    query, key = position[:, None], np.arange(keys)[None, :]
    seen = np.ones((len(position), keys), bool)
    if window is not None:
        seen = query - window < key if causal else 2 * np.abs(query - key) <= window
        seen = seen | (key < global_tokens) | (query < global_tokens)
    return seen & (key <= query) if causal else seen


def apply_mask(scores, allowed):
    """Replace the scores of what is not visible by minus infinity, (B, H, S, T)."""
    return np.where(allowed, scores, scores.dtype.type(-np.inf))


def softmax(scores, sinks):
    """Return the softmax over the keys and the sink, (B, H, S, T), and the logarithm of its denominator, (B, H, S)."""
    largest = scores.max(-1, keepdims=True, initial=-np.inf)  # (B, H, S, 1)
    if sinks is not None:
        largest = np.maximum(largest, sinks[:, None, None])
    largest = np.where(np.isfinite(largest), largest, 0)
    exponentials = np.exp(scores - largest)  # (B, H, S, T)
    total = exponentials.sum(-1, keepdims=True)  # (B, H, S, 1)
    if sinks is not None:
        total = total + np.exp(sinks[:, None, None] - largest)
    some = np.where(total > 0, total, 1)
    log_sum_exp = np.where(total > 0, np.log(some) + largest, -np.inf)
    return exponentials / some, log_sum_exp[..., 0]


def context(probabilities, values):
    """Weighted sums of the values, (B, H, S, E)."""
    return probabilities @ values


# --- gradients -------------------------------------------------------------------------------------------------------


def gradients(q, keys, values, probabilities, output, cotangent, scale, slope, key_heads):
    """Return the gradients of q, k and v, those of k and v summed over the query heads of a key head."""
    of_scores = score_gradient(probabilities, values, output, cotangent) * slope  # (B, H, S, T)
    return {
        "dq": of_scores @ keys * scale,  # (B, H, S, D)
        "dk": sum_heads(of_scores.swapaxes(-1, -2) @ q, key_heads) * scale,  # (B, G, T, D)
        "dv": sum_heads(probabilities.swapaxes(-1, -2) @ cotangent, key_heads),  # (B, G, T, E)
    }


def score_gradient(probabilities, values, output, cotangent):
    """Return the gradient of the masked scores, (B, H, S, T)."""
    of_probabilities = cotangent @ values.swapaxes(-1, -2)  # (B, H, S, T)
    of_row = (cotangent * output).sum(-1, keepdims=True)  # (B, H, S, 1)
    return probabilities * (of_probabilities - of_row)


def cap_slope(scores, cap):
    """Return the derivative of `cap_scores`, (B, H, S, T)."""
    return np.ones_like(scores) if cap is None else 1 - np.square(np.tanh(scores / scores.dtype.type(cap)))


def sum_heads(x, key_heads):
    """(B, H, T, D) -> (B, G, T, D)."""
    batch, heads, keys, width = x.shape
    return x.reshape(batch, key_heads, heads // key_heads, keys, width).sum(2)


def wide(x):
    """Return `x` in the format in which sums are computed: float64 for float64, float32 for all narrower formats."""
    if x is None:
        return None
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


# --- what is refused -------------------------------------------------------------------------------------------------


def require(condition, text):
    """Raise `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(text)


def check(q, k, v):
    """Refuse queries, keys and values that do not fit."""
    require(q.ndim == k.ndim == v.ndim == 4, "q, k and v must be of rank 4")
    require(q.shape[0] == k.shape[0] == v.shape[0], "q, k and v have different batches")
    require(q.shape[3] == k.shape[3], f"queries of width {q.shape[3]}, keys of width {k.shape[3]}")
    require(k.shape[1:3] == v.shape[1:3], f"keys {k.shape} and values {v.shape} do not fit")
    require(q.shape[1] % k.shape[1] == 0, f"{q.shape[1]} query heads are no multiple of {k.shape[1]}")


def check_optional(q, v, sinks, slopes, cotangent):
    """Refuse sinks, slopes and a cotangent that do not fit."""
    heads, shape = q.shape[1:2], (*q.shape[:3], v.shape[3])
    require(sinks is None or sinks.shape == heads, "there must be a sink for each query head")
    require(slopes is None or slopes.shape == heads, "there must be a slope for each query head")
    require(cotangent is None or cotangent.shape == shape, f"the cotangent must be {shape}")


def check_options(align, window, global_tokens, soft_cap):
    """Refuse parameters that mean nothing."""
    require(align in ALIGNMENTS, f"no align {align!r}")
    require(window is None or window >= 1, f"a window of {window}")
    require(global_tokens >= 0, f"{global_tokens} global tokens")
    require(soft_cap is None or soft_cap > 0, f"a soft cap of {soft_cap}")
