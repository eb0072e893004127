"""Attention in JAX, compiled by XLA, its gradients by `jax.vjp`: an independent library as a candidate.

Written from `karat list attention` alone. Sums are accumulated in float32 (float64 for float64), and each checkpoint is
rounded once.
"""

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", val=True)  # float64 is a contract too


def attention(
    q, k, v, sinks=None, slopes=None, cotangent=None, *, scale=None, causal=False, align="bottom_right", window=None,
    global_tokens=0, soft_cap=None,
):  # fmt: skip
    """Return the checkpoints of attention of q (B, H, S, D) over k (B, G, T, D) and v (B, G, T, E)."""
    check(q, k, v, sinks, slopes, cotangent, align, window, global_tokens, soft_cap)
    inside = jnp.float64 if q.dtype == "float64" else jnp.float32
    given = {"q": q, "k": k, "v": v, "sinks": sinks, "slopes": slopes}
    arrays = {name: jnp.asarray(array).astype(inside) for name, array in given.items() if array is not None}
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    seen, distance = geometry(q.shape[2], k.shape[2], causal, align, window, global_tokens)  # (S, T) each

    @jax.jit
    def forward(q, k, v, others):
        return checkpoints(q, k, v, seen, distance, scale, soft_cap, **others)

    others = {name: arrays[name] for name in ("sinks", "slopes") if name in arrays}
    found = forward(arrays["q"], arrays["k"], arrays["v"], others)
    if cotangent is not None:
        _, back = jax.vjp(lambda *qkv: forward(*qkv, others)["output"], arrays["q"], arrays["k"], arrays["v"])
        found |= dict(zip(("dq", "dk", "dv"), back(jnp.asarray(cotangent).astype(inside)), strict=True))
    return {name: array.astype(q.dtype) for name, array in found.items()}


def geometry(queries, keys, causal, align, window, global_tokens):
    """Return which keys each query sees, and how far each is away, (S, T)."""
    query = jnp.arange(queries)[:, None] + (keys - queries if align == "bottom_right" else 0)  # (S, 1)
    key = jnp.arange(keys)[None]  # (1, T)
    seen = key <= query if causal else jnp.ones((queries, keys), bool)
    if window is not None:
        near = query - window < key if causal else 2 * abs(query - key) <= window
        seen &= near | (key < global_tokens) | (query < global_tokens)
    return seen, abs(query - key)


def checkpoints(q, k, v, seen, distance, scale, soft_cap, sinks=None, slopes=None):
    """Return the checkpoints up to the output; query heads stand in groups, one for each key head."""
    B, H, S, D = q.shape
    G, T, E = *k.shape[1:3], v.shape[3]
    scores = jnp.einsum("bgrsd,bgtd->bgrst", q.reshape(B, G, H // G, S, D), k, precision="highest") * scale
    scores = scores.reshape(B, H, S, T)
    biased = scores if soft_cap is None else soft_cap * jnp.tanh(scores / soft_cap)  # (B, H, S, T)
    if slopes is not None:
        biased = biased - slopes[:, None, None] * distance
    masked = jnp.where(seen, biased, -jnp.inf)  # (B, H, S, T)
    logits = masked
    if sinks is not None:
        column = jnp.broadcast_to(sinks[:, None, None], (B, H, S, 1))
        logits = jnp.concatenate([masked, column.astype(masked.dtype)], axis=-1)  # (B, H, S, T + 1)
    if logits.shape[-1]:
        largest = jnp.max(logits, axis=-1, keepdims=True)  # (B, H, S, 1)
        largest = jnp.where(jnp.isfinite(largest), largest, 0)
        # Not exp(masked - log_sum_exp): of scores of 1000 that keeps four digits in float32.
        total = jnp.exp(logits - largest).sum(-1, keepdims=True)  # (B, H, S, 1)
        probabilities = jnp.exp(masked - largest) / jnp.where(total > 0, total, 1)  # (B, H, S, T)
        log_sum_exp = (jnp.log(total) + largest)[..., 0]  # (B, H, S)
    else:
        probabilities, log_sum_exp = masked, jnp.full((B, H, S), -jnp.inf, q.dtype)
    grouped = probabilities.reshape(B, G, H // G, S, T)
    output = jnp.einsum("bgrst,bgte->bgrse", grouped, v, precision="highest").reshape(B, H, S, E)
    return {
        "scores": scores,
        "masked_scores": masked,
        "probabilities": probabilities,
        "log_sum_exp": log_sum_exp,
        "output": output,
    }


def check(q, k, v, sinks, slopes, cotangent, align, window, global_tokens, soft_cap):
    """Raise `ValueError` for what must be refused."""
    wrong = {
        "q, k and v need four axes": not q.ndim == k.ndim == v.ndim == 4,
        "align": align not in ("bottom_right", "top_left"),
        "window": window is not None and window < 1,
        "global_tokens": global_tokens < 0,
        "soft_cap": soft_cap is not None and not soft_cap > 0,
    }
    if not any(wrong.values()):
        (B, H, S, D), (G, T) = q.shape, k.shape[1:3]
        wrong = {
            "k": k.shape != (B, G, T, D) or H % G != 0,
            "v": v.shape[:3] != (B, G, T),
            "sinks": sinks is not None and sinks.shape != (H,),
            "slopes": slopes is not None and slopes.shape != (H,),
            "cotangent": cotangent is not None and cotangent.shape != (B, H, S, v.shape[3]),
        }
    if any(wrong.values()):
        raise ValueError(f"not understood: {', '.join(name for name, is_wrong in wrong.items() if is_wrong)}")
