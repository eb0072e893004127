"""Attention with a key and value cache in plain NumPy: the definition, to read and to copy.

The cache is a ring: token t is written to slot t mod C, after its step has read. Rotary embedding as in transformers,
models/llama/modeling_llama.py. Computed in float32 (float64 where q is), and rounded once to the format of q. B batch,
H query heads, G key heads, S tokens, n tokens of a step, D head width, E value width, C slots, K keys that are read.
"""

import numpy as np


def kv_cache(q, k, v, cos, sin, mask, key_memory, value_memory, *, steps, window):
    """Run all `steps` of a sequence; q (B, H, S, D), k (B, G, S, D), v (B, G, S, E), memories (B, G, C, D or E)."""
    check_steps(steps, q)
    check_heads(q, k)
    check_mask(mask, q, steps)
    check_window(window)
    check_tables(cos, mask, steps)
    check_memory(key_memory, value_memory, k, v)
    real = not_padding(mask, q.shape[2])  # (B, S)
    positions = positions_of(real)  # (B, S)
    cache = new_cache(key_memory, value_memory)
    outputs, start = [], 0
    for count in steps:
        tokens = np.arange(start, start + count)  # (n,)
        outputs.append(step(cache, q, k, v, cos, sin, tokens, positions, real, window))
        start += count
    return {
        "positions": positions,
        "prefill_output": outputs[0],
        "decode_output": np.concatenate([outputs[0][:, :, :0], *outputs[1:]], 2),
        "cached_tokens": cache["tokens"],
        "cached_keys": cache["keys"],
        "cached_values": cache["values"],
    }


def step(cache, q, k, v, cos, sin, tokens, positions, real, window):
    """Return the outputs of `tokens` (n,), (B, H, n, E), and write their keys and values into the cache."""
    at = positions[:, tokens]  # (B, n)
    queries = query_rotated(wide(q[:, :, tokens]), cos, sin, at)  # (B, H, n, D)
    new_keys = stored(key_rotated(wide(k[:, :, tokens]), cos, sin, at).astype(k.dtype))  # (B, G, n, D)
    new_values = stored(v[:, :, tokens])  # (B, G, n, E)
    keys = np.concatenate([cache["keys"], new_keys], 2)  # (B, G, K, D)
    values = np.concatenate([cache["values"], new_values], 2)  # (B, G, K, E)
    held = np.concatenate([cache["tokens"], tokens])  # (K,)
    seen = visible(tokens, held, real, window)  # (B, n, K)
    output = attention(queries, wide(keys), wide(values), seen)  # (B, H, n, E)
    write(cache, tokens, new_keys, new_values)
    return output.astype(q.dtype)


def not_padding(mask, total):
    """Return where tokens are no padding, (B, S): those after the prompt never are."""
    return np.pad(mask != 0, ((0, 0), (0, total - mask.shape[1])), constant_values=True)


def positions_of(real):
    """Return how many tokens before each are no padding, (B, S)."""
    return np.cumsum(real, 1) - real


def query_rotated(x, cos, sin, positions):
    """Return rotated queries, (B, H, n, D)."""
    return rotated(x, cos, sin, positions)


def key_rotated(x, cos, sin, positions):
    """Return rotated keys, (B, G, n, D)."""
    return rotated(x, cos, sin, positions)


def rotated(x, cos, sin, positions):
    """Rotate `x` (B, heads, n, D) by tables (P, D/2) at `positions` (B, n)."""
    cos, sin = wide(cos)[positions][:, None], wide(sin)[positions][:, None]  # (B, 1, n, D/2)
    a, b = np.split(x, 2, -1)  # (B, heads, n, D/2)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


# --- the cache -------------------------------------------------------------------------------------------------------


def new_cache(key_memory, value_memory):
    """Return a cache that holds no token, in memory as it was."""
    empty = np.full(key_memory.shape[2], -1)  # (C,)
    return {"keys": key_memory.copy(), "values": value_memory.copy(), "tokens": empty}


def write(cache, tokens, keys, values):
    """Write `keys` and `values` (B, G, n, …) of `tokens` (n,) into their slots; of a long prompt the last stay."""
    for i, token in enumerate(tokens):
        slot = slot_of(token, len(cache["tokens"]))
        cache["keys"][:, :, slot] = keys[:, :, i]
        cache["values"][:, :, slot] = values[:, :, i]
        cache["tokens"][slot] = token


def slot_of(token, slots):
    """Return the slot of a token."""
    return token % slots


def stored(x):
    """Return keys or values as the cache holds them: in storage."""
    return x


# --- attention -------------------------------------------------------------------------------------------------------


def visible(tokens, held, real, window):
    """Return whether each of `tokens` (n,) sees each of the tokens `held` (K,), of which -1 is none, (B, n, K)."""
    written = held >= 0  # (K,)
    seen = (causal(tokens, held) & in_window(tokens, held, window) & written)[None]  # (1, n, K)
    return seen & real[:, None, held]  # (B, n, K)


def causal(tokens, held):
    """Return what does not come after each token, (n, K)."""
    return held[None] <= tokens[:, None]


def in_window(tokens, held, window):
    """Return what is near enough to each token, (n, K)."""
    return tokens[:, None] - held[None] < (np.inf if window is None else window)


def attention(q, k, v, seen):
    """Return the attention of `q` (B, H, n, D) to `k` (B, G, K, D) and `v` (B, G, K, E) where `seen` (B, n, K)."""
    k, v = repeated(k, q.shape[1]), repeated(v, q.shape[1])  # (B, H, K, D), (B, H, K, E)
    scores = scaled(q @ k.mT, q.shape[-1])  # (B, H, n, K)
    return softmax(scores, seen[:, None]) @ v


def scaled(products, width):
    """Return products of queries and keys over sqrt(D)."""
    return products / products.dtype.type(np.sqrt(width))


def repeated(x, heads):
    """Return key heads `x` (B, G, K, …), each as often as it has query heads, (B, H, K, …)."""
    return np.repeat(x, heads // x.shape[1], axis=1)


def softmax(scores, seen):
    """Return the softmax of scores (B, H, n, K) over what is seen; 0 where nothing is, as in padding."""
    shifted = np.where(seen, scores, -np.inf)
    largest = shifted.max(-1, keepdims=True, initial=np.finfo(scores.dtype).min)  # (B, H, n, 1)
    powers = np.exp(shifted - largest)
    return powers / np.maximum(powers.sum(-1, keepdims=True), np.finfo(scores.dtype).tiny)


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


# --- what is refused -------------------------------------------------------------------------------------------------


def require(condition, text):
    """Raise `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(text)


def check_steps(steps, q):
    """Refuse steps that are not all tokens, or have none."""
    require(min(steps) > 0, f"a step must have tokens: {steps}")
    require(sum(steps) == q.shape[2], f"steps {steps} for {q.shape[2]} tokens")


def check_heads(q, k):
    """Refuse heads that share no key head evenly, and widths that make no pairs."""
    require(q.shape[1] % k.shape[1] == 0, f"{k.shape[1]} key heads for {q.shape[1]} heads")
    require(q.shape[-1] % 2 == 0, f"the head width must be even, found {q.shape[-1]}")


def check_mask(mask, q, steps):
    """Refuse masks of other rows or tokens than the prompt has, and padding that is not on the left."""
    wanted = (q.shape[0], steps[0])
    require(mask.shape == wanted, f"mask {mask.shape}, wanted {wanted}")
    require((mask[:, -1] != 0).all(), "a prompt ends with a token, not with padding")
    require(
        (np.diff((mask != 0).astype(int), axis=1) >= 0).all(),
        "padding stands on the left",
    )


def check_window(window):
    """Refuse windows that show nothing."""
    require(window is None or window >= 1, f"window must be at least 1, found {window}")


def check_tables(cos, mask, steps):
    """Refuse tables that end before the last position."""
    last = int((mask != 0).sum(1).max()) + sum(steps[1:]) - 1
    require(last < len(cos), f"position {last} beyond tables of {len(cos)}")


def check_memory(key_memory, value_memory, k, v):
    """Refuse memories that do not fit keys and values, and those without slots."""
    for memory, x in ((key_memory, k), (value_memory, v)):
        wanted = (*x.shape[:2], key_memory.shape[2], x.shape[3])
        require(memory.shape == wanted, f"memory {memory.shape}, wanted {wanted}")
    require(key_memory.shape[2] > 0, "the memory has no slots")
