"""The reference of the suite `kv_cache`: one run over all tokens without a cache, in float64 on the CPU.

Source: transformers, models/llama/modeling_llama.py (eager attention, rotary embedding) with the mask of what each
token may see; what the cache holds in the end is chosen from all keys and values. B batch, S tokens, C slots.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from karat.freeze import beside

operation = beside(__file__, "_operation")
inner = beside(__file__, "_inner")

Array = NDArray[Any]
Given = Mapping[str, Any]


def kv_cache(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor, steps: Sequence[int], window: int | None, **given: Tensor
) -> dict[str, Tensor]:
    """Return the checkpoints."""
    S, slots = q.shape[2], given["key_memory"].shape[2]
    real = torch.cat([mask != 0, torch.ones(len(mask), S - steps[0], dtype=torch.bool)], 1)  # (B, S)
    positions = torch.cumsum(real, 1) - real.long()  # (B, S)
    cos, sin = (torch.cat([given[name][positions]] * 2, -1) for name in ("cos", "sin"))  # (B, S, D) each
    queries, _ = apply_rotary_pos_emb(q, q, cos, sin)  # (B, H, S, D)
    with inner.exactly():  # small integers times multiples of 1/8
        _, keys = apply_rotary_pos_emb(k, k, cos, sin)  # (B, G, S, D)
    seen = visible(real, steps, window, slots)  # (B, S, S)
    output = attention(queries, keys, v, seen)  # (B, H, S, E)
    tokens = held(S, slots)  # (C,)
    empty = (tokens < 0)[:, None]  # (C, 1)
    return {
        "positions": positions,
        "prefill_output": output[:, :, : steps[0]],
        "decode_output": output[:, :, steps[0] :],
        "cached_tokens": tokens,
        "cached_keys": torch.where(empty, given["key_memory"], keys[:, :, tokens.clamp(min=0)]),
        "cached_values": torch.where(empty, given["value_memory"], v[:, :, tokens.clamp(min=0)]),
    }


def visible(real: Tensor, steps: Sequence[int], window: int | None, slots: int) -> Tensor:
    """Return whether each token sees each other, (B, S, S)."""
    token = torch.arange(real.shape[1])  # (S,)
    began = torch.repeat_interleave(torch.cumsum(torch.tensor([0, *steps[:-1]]), 0), torch.tensor(steps))  # (S,)
    apart = token[:, None] - token  # (S, S)
    seen = (apart >= 0) & (token >= began[:, None] - slots)
    if window is not None:
        seen &= apart < window
    return seen & real[:, None, :]


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Return eager attention where `seen` (B, S, S), zeros for queries that see nothing, (B, H, S, E)."""
    groups = q.shape[1] // k.shape[1]
    k, v = repeat_kv(k, groups), repeat_kv(v, groups)  # (B, H, S, D), (B, H, S, E)
    scores = (q @ k.mT) * q.shape[-1] ** -0.5  # (B, H, S, S)
    blind = ~seen.any(-1)[:, None, :, None]  # (B, 1, S, 1)
    scores = scores.masked_fill(~seen[:, None], -torch.inf).masked_fill(blind, 0)
    return (torch.softmax(scores, -1) @ v).masked_fill(blind, 0)


def held(tokens: int, slots: int) -> Tensor:
    """Return the last token of each slot, (C,), -1 where there is none."""
    last = torch.full((slots,), -1)
    for token in range(tokens):
        last[token % slots] = token
    return last


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def turned(given: Given, name: str) -> Array:
    """Return queries or keys, each pair a complex number that is multiplied by another, (B, heads, S, D)."""
    x, mask = given[name], given["mask"] != 0
    D, S = x.shape[-1], x.shape[2]
    real = np.concatenate([mask, np.ones((len(mask), S - mask.shape[1]), bool)], 1)  # (B, S)
    positions = np.maximum(np.cumsum(real, 1) - 1, 0)  # (B, S)
    table = (given["cos"] + 1j * given["sin"])[positions][:, None]  # (B, 1, S, D/2)
    z = (x[..., : D // 2] + 1j * x[..., D // 2 :]) * table
    return np.concatenate([z.real, z.imag], -1)


def together(golden: Given) -> Array:
    """Return the outputs of all steps, (B, H, S, E)."""
    return np.concatenate([golden[name] for name in ("prefill_output", "decode_output") if name in golden], 2)


def step_by_step(given: Given, golden: Given) -> tuple[Any, ...]:
    """Compare with exponentials summed exactly, token by token, over lists that a cache would hold."""
    q, k, v = turned(given, "q"), turned(given, "k"), given["v"]
    B, H, S, D = q.shape
    slots, window, group = given["key_memory"].shape[2], given["window"] or S, H // k.shape[1]
    found, wanted = [], []
    outputs, start = together(golden), 0
    for count in given["steps"]:
        for t in range(start, start + count):
            for b in range(B):
                pads = int((given["mask"][b] == 0).sum())
                near = range(max(pads, t - window + 1, start - slots, 0), t + 1)
                for h in range(H if t >= pads and (S < 64 or t > 120) else 0):
                    scores = [math.fsum(q[b, h, t] * k[b, h // group, s]) / math.sqrt(D) for s in near]
                    powers = [math.exp(score - max(scores)) for score in scores]
                    columns = v[b, h // group, near.start : t + 1].T  # (E, keys)
                    wanted.append([math.fsum(powers * column) / math.fsum(powers) for column in columns])
                    found.append(outputs[b, h, t])
        start += count
    return np.array(found), np.array(wanted), 1e-13


def in_torch(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare sequences without window, padding or overwriting with torch's causal attention over all of it."""
    S = given["q"].shape[2]
    if given["window"] is not None or (given["mask"] == 0).any() or given["key_memory"].shape[2] < S:
        return None
    tensors = [torch.from_numpy(x) for x in (turned(given, "q"), turned(given, "k"), given["v"])]
    wanted = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True, enable_gqa=True)
    return together(golden), wanted.numpy(), 1e-13


def exact_keys(given: Given, golden: Given) -> tuple[Any, ...]:
    """Compare cached keys, where there is a token, with fractions, and with what 8 bits hold."""
    tokens = golden["cached_tokens"]
    keys = turned(given, "k")[:, :, tokens[tokens >= 0]]
    held_keys = golden["cached_keys"][:, :, tokens >= 0]
    eighths = [int(Fraction(key) * 8) if Fraction(key) * 8 % 1 == 0 else 999 for key in held_keys.ravel().tolist()]
    return np.stack([held_keys.ravel(), np.abs(eighths) > 256]), np.stack([keys.ravel(), np.zeros(keys.size)])


RELATIONS = {
    "outputs are those of exponentials summed exactly over what the cache holds, to 1e-13": step_by_step,
    "without window, padding and overwriting, outputs are torch's over the whole sequence, to 1e-13": in_torch,
    "cached keys are products of complex numbers, and whole eighths of 8 bits": exact_keys,
}
VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, kv_cache, RELATIONS, versions=("torch", "transformers")
)
