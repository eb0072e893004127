"""Attention with a key and value cache: a prompt at once, then a few tokens at a time, equal to one run over all.

Symbols: B batch, H query heads, G key heads, S tokens, D head width, E value width, C slots of the cache, P positions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from karat import (
    Case,
    Checkpoint,
    Dyadic,
    Integers,
    Literal,
    Property,
    Recipe,
    Suite,
    causality,
    repeatable,
    rows_apart,
)

ABOUT = """\
A py: candidate is a function that runs a whole sequence, step by step, all inputs by name
    kv_cache(q, k, v, cos, sin, mask, key_memory, value_memory, *, steps, window)
        -> {"positions": …, "prefill_output": …, "decode_output": …, "cached_tokens": …, "cached_keys": …,
            "cached_values": …}
  q             (B, H, S, D) in storage, what the projections gave for all S tokens, before rotary embedding
  k             (B, G, S, D) in storage, the same; query head h attends to key head h // (H / G)
  v             (B, G, S, E) in storage
  cos, sin      (P, D/2) in storage, the rotary tables by position: the pair (x_i, x_{i+D/2}) becomes
                (x_i cos_i - x_{i+D/2} sin_i, x_{i+D/2} cos_i + x_i sin_i)
  mask          (B, steps[0]) integers, 0 where the prompt is padded, always on the left; later tokens are never padding
  key_memory    (B, G, C, D) in storage, the cache's memory with what some other sequence left there
  value_memory  (B, G, C, E) in storage
  steps         how many tokens each step runs: the prompt first, then one or two at a time; S together
  window        W, or None for none

A step is given its own tokens, and what the cache holds. Tokens count from 0 over all steps, padding included. Token t:
  positions     its position: how many tokens before it in its row are no padding. Queries and keys are rotated by it.
  what it sees  token s where s <= t, s is no padding, t - s < W where there is a window, and s is of the same step or
                was in the cache when the step began. So a step reads before it writes.
  its output    the softmax over these s of q_t . k_s / sqrt(D), times v_s
  its slot      t mod C: after the step, its rotated key and its value are written there. Where there are more tokens
                than slots the oldest are overwritten, even while a window would still show them.

  positions       (B, S) integers; not judged for padding
  prefill_output  (B, H, steps[0], E) in storage: outputs of the first step; not judged for padding
  decode_output   (B, H, S - steps[0], E) in storage: outputs of the other steps, where there are any
  cached_tokens   (C,) integers: the token that each slot holds in the end, -1 where the memory is as it was
  cached_keys     (B, G, C, D) in storage, in the end, the memory as it was where nothing was written; not judged for
                  padding
  cached_values   (B, G, C, E) in storage
The cache is in storage. Keys are small integers and tables multiples of 1/8, so that rotated keys are exact in every
format: a cache rounds nothing.

Must be refused (raise, or exit with another code than 0): steps that are not S together, or have no token; H that is no
multiple of G; an odd D; a mask that is not (B, steps[0]), has padding after a token, or a row of padding alone; a
window below 1; tables of fewer positions than there are; a memory of other rows, heads or widths, or without slots.
"""

CONTRACTS = ("float64", "float32", "tfloat32", "bfloat16", "float16", "bfloat16-once", "float16-once")
PREFILL = ("batch", "head", "query", "channel")
CACHED = ("batch", "key_head", "slot", "channel")


def tables(positions: int, width: int) -> dict[str, Recipe]:
    """Return cosines and sines of positions times 64^(-2i/D), rounded to multiples of 1/8, (P, D/2) each."""
    angle = np.arange(positions)[:, None] * 64.0 ** (-2 * np.arange(width // 2) / width)  # (P, D/2)
    rounded = {"cos": np.rint(8 * np.cos(angle)) / 8, "sin": np.rint(8 * np.sin(angle)) / 8}
    return {name: Literal(tuple(map(tuple, table.tolist())), "float32") for name, table in rounded.items()}


def drawn(
    name: str, rows: int, heads: tuple[int, int], tokens: int, widths: tuple[int, int], slots: int
) -> dict[str, Recipe]:
    """Return the inputs that are random; `heads` is (H, G), `widths` (D, E)."""
    (H, G), (D, E) = heads, widths
    return {
        "q": Dyadic((rows, H, tokens, D), f"kv_cache/{name}/q", exponent=-7),
        "k": Integers((rows, G, tokens, D), f"kv_cache/{name}/k", -7, 8, dtype="float32"),
        "v": Dyadic((rows, G, tokens, E), f"kv_cache/{name}/v", exponent=-5),
        "key_memory": Integers((rows, G, slots, D), f"kv_cache/{name}/key_memory", -7, 8, dtype="float32"),
        "value_memory": Dyadic((rows, G, slots, E), f"kv_cache/{name}/value_memory", exponent=-5),
    }


def mask_of(padding: Sequence[int], prompt: int) -> Literal:
    """Return the mask of rows with so many tokens of padding on the left, (B, prompt)."""
    return Literal(tuple((0,) * pad + (1,) * (prompt - pad) for pad in padding), "int64")


def case(
    name: str,
    about: str,
    steps: Sequence[int],
    slots: int,
    *,
    padding: Sequence[int] = (0, 0),
    window: int | None = None,
    heads: tuple[int, int] = (4, 2),
    widths: tuple[int, int] = (8, 6),
) -> Case:
    """Return the case of these steps; `padding` is, for each row, how many tokens of the prompt are padding."""
    B, S, prompt = len(padding), sum(steps), steps[0]
    inputs = drawn(name, B, heads, S, widths, slots)
    inputs |= tables(S, widths[0]) | {"mask": mask_of(padding, prompt)}
    last = {"query": (prompt - 12, prompt)} if prompt > 64 else {}
    kept = {"slot": (prompt - 6, slots)} if prompt > 64 else {}
    decoded = Checkpoint("decode_output", (B, heads[0], S - prompt, widths[1]), ("batch", "head", "token", "channel"))
    return Case(
        name,
        inputs,
        {"steps": list(steps), "window": window},
        (
            Checkpoint("positions", (B, S), ("batch", "query"), dtype="integer"),
            Checkpoint("prefill_output", (B, heads[0], prompt, widths[1]), PREFILL, keep=last),
            *((decoded,) if len(steps) > 1 else ()),
            Checkpoint("cached_tokens", (slots,), ("slot_number",), dtype="integer"),
            Checkpoint("cached_keys", (B, heads[1], slots, widths[0]), CACHED, keep=kept),
            Checkpoint("cached_values", (B, heads[1], slots, widths[1]), CACHED, keep=kept),
        ),
        padding={"query": "mask"} | ({"slot": "mask"} if any(padding) and slots >= S else {}),
        about=about,
    )


def refused(name: str, refuses: str, *, given: Mapping[str, Recipe] | None = None, **params: Any) -> Case:
    """Return a case with something wrong in otherwise right inputs."""
    right = drawn("refused", 2, (4, 2), 7, (8, 6), 9) | tables(7, 8) | {"mask": mask_of((0, 2), 4)}
    return Case(
        f"refused-{name}", right | dict(given or {}), {"steps": [4, 1, 2], "window": 3} | params, (), refuses=refuses
    )


def one(name: str, shape: tuple[int, ...]) -> Dyadic:
    """Return a random input of another shape for a refusal."""
    return Dyadic(shape, f"kv_cache/refused/{name}/{math.prod(shape)}", exponent=-5)


def odd() -> dict[str, Recipe]:
    """Return inputs of a width that makes no pairs."""
    inputs = drawn("refused-odd", 2, (4, 2), 7, (7, 6), 9)
    return {name: inputs[name] for name in ("q", "k", "key_memory")}


CASES = (
    case("prefill-one", "a prompt of one token", (1, 1, 1, 2, 1), 9),
    case("prefill-seven", "a prompt of seven tokens, then one at a time", (7, 1, 1, 1), 13, heads=(6, 2), padding=(0,)),
    case("by-two", "two tokens at a time: the second sees the first, the first not the second", (5, 2, 2, 2), 14),
    case("prefill-128", "a prompt of 128 tokens", (128, 1, 2, 1), 134, heads=(2, 1), padding=(0,), widths=(10, 4)),
    case("left-padded", "rows of 7, 5 and 2 tokens", (7, 1, 2, 1), 12, padding=(0, 2, 5), heads=(2, 1)),
    case("window", "a window shorter than the cache", (9, 1, 2, 1), 15, window=4, padding=(0,), heads=(6, 3)),
    case("window-left-padded", "a window, and rows padded on the left", (6, 1, 1, 2), 11, window=3, padding=(1, 4)),
    case("ring", "a window as long as the cache, which begins again", (5, 1, 1, 2, 1, 1, 2), 6, window=6, padding=(0,)),
    case("ring-window", "a window shorter than a cache that begins again", (4, 2, 1, 2, 1, 2, 1, 1), 7, window=4,
         padding=(0,), heads=(4, 1)),
    case("ring-long-prompt", "a prompt longer than the cache", (11, 1, 2, 1, 1), 5, window=5, padding=(0,),
         heads=(6, 2)),
    case("ring-evicted", "a window longer than the cache: what was overwritten is not seen", (4, 1, 2, 1, 1, 2), 5,
         window=8, heads=(2, 1)),
    case("ring-no-window", "no window: what was overwritten is not seen", (3, 1, 1, 2, 1, 2), 4, padding=(0,)),
    case("ring-left-padded", "rows padded on the left, until the padding is overwritten", (6, 1, 2, 1, 2), 8, window=8,
         padding=(3, 0, 1), heads=(2, 1)),
    case("every-key-head", "as many key heads as heads; every slot is written", (5, 1, 1), 7, heads=(3, 3)),
    case("prompt-only", "no decoding", (6,), 8, padding=(0, 1)),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows",
         (6, 1, 2, 1), 12).fine("float64", "float32"),
    refused("steps-short", "steps of 6 tokens for 7", steps=[4, 1, 1]),
    refused("steps-zero", "a step without tokens", steps=[4, 0, 3]),
    refused("heads", "3 key heads for 4 heads", given={
        "k": one("k", (2, 3, 7, 8)), "v": one("v", (2, 3, 7, 6)), "key_memory": one("key_memory", (2, 3, 9, 8)),
        "value_memory": one("value_memory", (2, 3, 9, 6))}),
    refused("odd", "a head width of 7", given=odd()),
    refused("mask-length", "a mask of 5 tokens for a prompt of 4", given={"mask": mask_of((0, 2), 5)}),
    refused("mask-right", "padding on the right", given={"mask": Literal(((1, 1, 1, 1), (1, 1, 0, 0)), "int64")}),
    refused("mask-all", "a row of padding alone", given={"mask": mask_of((0, 4), 4)}),
    refused("window", "a window of 0", window=0),
    refused("tables", "tables of 6 positions for 7", given=tables(6, 8)),
    refused("memory", "a memory of one row for two", given={"key_memory": one("key_memory", (1, 2, 9, 8))}),
    refused("no-slots", "a memory without slots", given={
        "key_memory": one("key_memory", (2, 2, 0, 8)), "value_memory": one("value_memory", (2, 2, 0, 6))}),
)  # fmt: skip


def memory_reversed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with the slots of the memory in reverse order."""
    memories = ("key_memory", "value_memory")
    return {name: array[:, :, ::-1].copy() if name in memories else array for name, array in given.items()}


def padding_changed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with other queries, keys and values where the prompt is padded."""
    padded = np.zeros(given["q"].shape[::2], bool)  # (B, S)
    padded[:, : given["mask"].shape[1]] = given["mask"] == 0
    seen = ~padded[:, None, :, None]  # (B, 1, S, 1)
    others = {"q": 2.0, "k": 5.0, "v": 40.0}
    return {**given, **{name: np.where(seen, given[name], other) for name, other in others.items()}}


def values_constant(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with values of 0.75."""
    return {**given, "v": np.full_like(given["v"], 0.75)}


VECTORS = ("q", "k", "v")
PROPERTIES = (
    causality(("prefill-seven", "by-two", "prefill-128"), "prefill_output", VECTORS, axis=2, at=4),
    replace(
        causality(("by-two", "ring-evicted"), "decode_output", VECTORS, axis=2, at=8),
        compared=lambda first, second, _: (second["decode_output"][:, :, :3], first["decode_output"][:, :, :3]),
    ),
    Property(
        "padding",
        "what stands in the padding changes nothing",
        ("left-padded", "window-left-padded", "ring-left-padded"),
        "decode_output",
        padding_changed,
        lambda first, second, _: (second["decode_output"], first["decode_output"]),
    ),
    Property(
        "constant-values",
        "the average of equal values is that value",
        ("by-two", "left-padded", "window", "ring", "ring-evicted"),
        "decode_output",
        values_constant,
        lambda _, second, inputs: (second["decode_output"], inputs["v"].flat[0]),
    ),
    Property(
        "chunks",
        "two tokens in one step are as good as one after the other",
        ("by-two",),
        "decode_output",
        compared=lambda first, second, _: (second["decode_output"], first["decode_output"]),
        params={"steps": [5, 1, 1, 1, 1, 1, 1]},
    ),
    Property(
        "memory-forgotten",
        "what another sequence left in the cache changes no output",
        ("left-padded", "ring", "every-key-head"),
        "decode_output",
        memory_reversed,
        lambda first, second, _: (second["decode_output"], first["decode_output"]),
    ),
    rows_apart(
        ("left-padded", "ring-left-padded"), "decode_output", ("q", "k", "v", "mask", "key_memory", "value_memory")
    ),
    repeatable(("prefill-128",), "decode_output"),
)
SUITE = Suite("kv_cache", ABOUT, CONTRACTS, CASES, outputs=("decode_output",), packed=True, properties=PROPERTIES)
