"""Mistakes that people make when they port Llama, each a small change to the plain candidate.

A fault is caught in float32 with its first divergence at the checkpoint where it belongs, in every case that can see it;
`goldens/llama/visibility.md` is the table. Those of mask, softmax and cache are GPT-2's. NumPy only.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
State = dict[str, Array]
Change = Callable[[Any], None]

gpt2 = beside(__file__, "gpt2_faults")
KNOWN = {fault.name: fault for fault in gpt2.FAULTS}

QUERY_HEADS = 6  # of the tiny model, whose keys have 2


def as_gpt2(name: str, *at: str) -> Fault:
    """Return a mistake that is the same in GPT-2, at the checkpoints where it belongs here."""
    return replace(KNOWN[name], at=at)


def given(change: Callable[[State], State]) -> Change:
    """Return a change to what the candidate is called with; `change` returns the arguments that are wrong."""
    return wrap(llama=lambda run: lambda **arguments: run(**arguments | change(arguments)))


def weights(change: Callable[[State], State]) -> Change:
    """Return a change to the state dict that the candidate loads."""
    return given(lambda arguments: {"weights": change(arguments["weights"])})


def each(ending: str, change: Callable[[Array], Array]) -> Change:
    """Return a change to every weight whose name ends with `ending`."""
    return weights(lambda state: {name: change(w) if name.endswith(ending) else w for name, w in state.items()})


def exchanged(first: str, second: str) -> Change:
    """Return a change that exchanges weights: `first` in a name and `second` in its place."""

    def other(name: str) -> str:
        return name.replace(first, second) if first in name else name.replace(second, first)

    return weights(lambda state: {name: state[other(name)] for name in state})


def read_as_in_out(w: Array) -> Array:
    """Take a Linear weight, stored [out, in], for one stored [in, out], and transpose it into place."""
    return np.ascontiguousarray(w.reshape(w.shape[::-1]).T)


def interleaved_rows(w: Array, size: int = 14) -> Array:
    """Order the rows of each head as the original release does: pairs of channels side by side."""
    rows = w.reshape(-1, 2, size // 2, w.shape[1])  # (heads, 2, d/2, D)
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(w.shape))


def fused_and_dealt(state: State) -> State:
    """Stack gate and up, and read them from every other row."""
    found = dict(state)
    for name in state:
        if name.endswith("gate_proj.weight"):
            both = np.concatenate([state[name], state[name.replace("gate", "up")]])  # (2F, D)
            found |= {name: both[0::2].copy(), name.replace("gate", "up"): both[1::2].copy()}
    return found


def layers(*order: int) -> Change:
    """Return a change that runs the layers in another order."""

    def reordered(state: State) -> State:
        kept = {name: w for name, w in state.items() if ".layers." not in name}
        for position, index in enumerate(order):
            old, new = f"model.layers.{index}.", f"model.layers.{position}."
            kept |= {new + name.removeprefix(old): w for name, w in state.items() if name.startswith(old)}
        return kept

    return weights(reordered)


# --- positions and frequencies


def positions(change: Callable[[Array, int], Array]) -> Change:
    """Return a change to positions: `change(positions, start)`, start 0 in the prefill, of tables and nothing else."""
    return wrap(
        forward=lambda right: (
            lambda ids, where, mask, start, *rest: right(ids, change(where, start), mask, start, *rest)
        )
    )


def frequencies(change: Callable[[Array, Any, Array], Array]) -> Change:
    """Return a change to the frequencies: `change(frequencies, rope_parameters, exponents)`, all (d/2,), in float64."""

    def wrong(given: Array, parameters: Any) -> Array:
        exponents = np.arange(len(given)) / len(given)  # 2i/d
        return change(given.astype(np.float64), parameters, exponents)

    return wrap(frequencies_of=lambda _: wrong)


def llama3(change: Callable[[Array, Any], Array]) -> Change:
    """Return a change to how Llama 3.1 scales: `change(unscaled, rope_parameters)`; other models stay right."""

    def wrong(given: Array, parameters: Any, exponents: Array) -> Array:
        if parameters["rope_type"] != "llama3":
            return given
        return change(parameters["rope_theta"] ** -exponents, parameters)

    return frequencies(wrong)


def scaled(unscaled: Array, factor: float, low: float, high: float, length: int, *, smooth: bool = True) -> Array:
    """Scale frequencies as Llama 3.1 does, in bands; without `smooth`, the band between them is left as it is."""
    wavelength = 2 * math.pi / unscaled
    part = (length / wavelength - low) / (high - low)
    found = np.where(wavelength > length / low, unscaled / factor, unscaled)
    between = (wavelength >= length / high) & (wavelength <= length / low) & smooth
    return np.where(between, (1 - part) * unscaled / factor + part * unscaled, found)


def bands(parameters: Any, *, exchanged: bool = False) -> tuple[float, float, float, int]:
    """Return the arguments of `scaled` from `rope_parameters`."""
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    band = (high, low) if exchanged else (low, high)
    return parameters["factor"], *band, parameters["original_max_position_embeddings"]


def of_width_over_heads(arguments: State) -> State:
    """Take D / H for the head size in the exponents of the frequencies."""
    f, theta = arguments["inverse_frequencies"].astype(np.float64), arguments["rope_parameters"]["rope_theta"]
    size = arguments["weights"]["model.embed_tokens.weight"].shape[1] // arguments["num_attention_heads"]
    twice = 2 * np.arange(len(f))
    return {"inverse_frequencies": f * theta ** (twice / (2 * len(f)) - twice / size)}


def in_bfloat16(x: Array) -> Array:
    """Round to bfloat16."""
    return x.astype(ml_dtypes.bfloat16).astype(x.dtype)


def tables(angles: Callable[[Array, Array], Array], table: Callable[[Array], Array] = lambda x: x) -> Change:
    """Return a change to the tables: `angles(positions, frequencies)` of wide arrays, and what is made of cos and sin."""

    def wrong(where: Array, given: Array, dtype: Any) -> tuple[Array, Array]:
        inner = np.float64 if dtype == np.float64 else np.float32
        found = angles(where[..., None].astype(inner), given.astype(inner))  # (B, T, d/2)
        return table(np.cos(found)).astype(dtype), table(np.sin(found)).astype(dtype)

    return wrap(rotary_tables=lambda _: wrong)


# --- rotation


def rotate(formula: Callable[..., tuple[Array, Array]], *, q: bool = True, k: bool = True) -> Change:
    """Return a change to the rotation of q, k or both: `formula(first, second, cos, sin)` of halves (B, ., T, d/2)."""

    def replacement(right: Any) -> Any:
        def wrong(x: Array, cos: Array, sin: Array) -> Array:
            if not (q if x.shape[1] == QUERY_HEADS else k):
                return right(x, cos, sin)
            halves = np.split(x, 2, axis=-1)
            return np.concatenate(formula(*halves, cos[:, None], sin[:, None]), axis=-1)

        return wrong

    return wrap(rotate=replacement)


def unturned(a: Array, b: Array, *_: Array) -> tuple[Array, Array]:
    """Leave a pair as it is."""
    return a, b


def overwritten(a: Array, b: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    """Turn a pair in place: the second line reads what the first has written."""
    a = a * cos - b * sin
    return a, b * cos + a * sin


def interleaved(right: Any) -> Any:
    """Turn channels 2i and 2i + 1, the layout of the original release."""

    def wrong(x: Array, cos: Array, sin: Array) -> Array:
        pairs = np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)
        turned = np.split(right(pairs, cos, sin), 2, axis=-1)
        return np.stack(turned, axis=-1).reshape(x.shape)

    return wrong


def tables_dealt(_: Any) -> Any:
    """Repeat each entry of the tables for the next channel, as the interleaved layout has it, and turn halves."""

    def wrong(x: Array, cos: Array, sin: Array) -> Array:
        cos, sin = (np.repeat(table, 2, axis=-1)[:, None] for table in (cos, sin))  # (B, 1, T, d)
        first, second = np.split(x, 2, axis=-1)
        return x * cos + np.concatenate([-second, first], axis=-1) * sin

    return wrong


def tables_along_heads(right: Any) -> Any:
    """Broadcast the tables along the heads instead of the tokens: head h is turned by the h-th position."""

    def wrong(x: Array, cos: Array, sin: Array) -> Array:
        heads = np.arange(x.shape[1]) % cos.shape[1]
        moved = right(x.swapaxes(1, 2), cos[:, heads], sin[:, heads])  # (B, T, heads, d)
        return np.asarray(moved).swapaxes(1, 2)

    return wrong


def remembered(use: Callable[[Any, Any, tuple[Array, ...]], Any]) -> Change:
    """Return a change to what is written to the cache: `use(k, v, last)`, last: the k, cos, sin that were turned last."""
    last: list[Array] = []

    def keep(right: Any) -> Any:
        def rotated(x: Array, cos: Array, sin: Array) -> Array:
            last[:] = x, cos, sin
            return right(x, cos, sin)

        return rotated

    def change(plain: Any) -> None:
        rotation, write = plain.rotate, plain.write_cache

        def wrong(cache: Any, k: Array, v: Array, start: int, end: int) -> None:
            write(cache, *use(rotation, (k, v), tuple(last)), start, end)

        plain.rotate, plain.write_cache = keep(rotation), wrong

    return change


def turned_again(plain: Any) -> None:
    """Turn the keys in the cache once more at every decode step."""
    right = plain.attention

    def wrong(x: Array, cos: Array, sin: Array, layer: State, cache: Any, mask: Array, start: int, *rest: Any) -> Array:
        if start:
            cache["k"][:, :, :start] = plain.rotate(cache["k"][:, :, :start], cos, sin)
        return right(x, cos, sin, layer, cache, mask, start, *rest)

    plain.attention = wrong


# --- heads, scores, norms, FFN, blocks


def grouped(head: Callable[[int, int, int], int], *, keys: bool = True, values: bool = True) -> Change:
    """Return a change to the groups: query head h looks at head `head(h, H, G)`."""

    def wrong(x: Array, heads: int) -> Array:
        return x[:, [head(h, heads, x.shape[1]) for h in range(heads)]]

    found = {"repeat_keys": keys, "repeat_values": values}
    return wrap(**{name: lambda _: wrong for name, is_wrong in found.items() if is_wrong})


def norm(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to RMSNorm: `formula(x, epsilon)` in float64 gives the normalised values."""
    return wrap(
        rms_norm=lambda _: lambda x, weight, epsilon: (formula(x.astype(np.float64), epsilon) * weight).astype(x.dtype)
    )


def epsilon(value: float) -> Change:
    """Return a change to the epsilon of every norm."""
    return wrap(rms_norm=lambda right: lambda x, weight, _: right(x, weight, value))


def mean_square(x: Array) -> Array:
    """Return the mean square of the last axis, which stays."""
    return np.square(x).mean(-1, keepdims=True)


def activation(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the activation, computed in float64."""
    return wrap(silu=lambda _: lambda x: formula(x.astype(np.float64)).astype(x.dtype))


def ffn(formula: Callable[[Any, Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to the FFN: `formula(silu, gate, up)` gives activation and gated."""

    def change(plain: Any) -> None:
        def wrong(x: Array, layer: State, record: Any) -> Array:
            gate, up = (plain.linear(x, layer[f"mlp.{name}_proj.weight"]) for name in ("gate", "up"))
            activation, gated = formula(plain.silu, gate, up)
            for name, value in {"gate": gate, "up": up, "activation": activation, "gated": gated}.items():
                record(name, value)
            return plain.linear(gated, layer["mlp.down_proj.weight"])

        plain.ffn = wrong

    return change


def block(wiring: str) -> Change:
    """Return a change to how a block is wired; `wiring` says which wire is wrong."""

    def change(plain: Any) -> None:
        def wrong(hidden: Array, cos: Array, sin: Array, layer: State, *rest: Any) -> Array:
            *context, model, record = rest

            def norm_with(name: str) -> Callable[[Array], Array]:
                return lambda x: plain.rms_norm(x, layer[f"{name}_layernorm.weight"], model.epsilon)

            first, second = norm_with("input"), norm_with("post_attention")
            given = hidden if wiring == "post_norm" else first(hidden)
            record("input_norm", given)
            attended = plain.attention(given, cos, sin, layer, *context, model, record)
            record("attention_output", attended)
            residual = {
                "attention_residual_missing": attended,
                "attention_residual_twice": hidden + hidden + attended,
                "residual_from_norm": given + attended,
            }.get(wiring, hidden + attended)
            if wiring == "post_norm":
                residual = first(residual)
            record("residual", residual)
            parts = {"ffn_without_norm": residual, "ffn_parallel": first(hidden), "ffn_norm_of_input": second(hidden)}
            normed = parts.get(wiring, second(residual))
            record("post_attention_norm", normed)
            output = plain.ffn(normed, layer, record)
            record("ffn_output", output)
            block_output = {
                "ffn_residual_missing": output,
                "ffn_residual_twice": residual + residual + output,
                "ffn_residual_from_input": hidden + output,
                "ffn_residual_from_norm": normed + output,
            }.get(wiring, residual + output)
            record("block_output", block_output)
            return block_output

        plain.block = wrong

    return change


def outputs(change: Callable[[State], State]) -> Change:
    """Return a change to the outputs; `change` returns those that are wrong."""

    def replacement(run: Any) -> Any:
        def wrong(**arguments: Any) -> State:
            found: State = run(**arguments)
            return found | change(found)

        return wrong

    return wrap(llama=replacement)


COS, FIRST = ("rotary_cos",), "layers.0."
NORM, Q, K = (FIRST + "input_norm",), (FIRST + "q",), (FIRST + "k",)
TURNED, TURNED_KEYS = (FIRST + "q_rotated",), (FIRST + "k_rotated",)
SCORES, PROBABILITIES = (FIRST + "attention_scores",), (FIRST + "attention_probabilities",)
CONTEXT = (FIRST + "attention_context",)
OUTPUT, RESIDUAL, SECOND_NORM = (FIRST + "attention_output",), (FIRST + "residual",), (FIRST + "post_attention_norm",)
GATE, ACTIVATION, GATED = (FIRST + "gate",), (FIRST + "activation",), (FIRST + "gated",)
FFN, BLOCK = (FIRST + "ffn_output",), (FIRST + "block_output",)
CACHE, VALUES = (FIRST + "key_cache", *SCORES), (FIRST + "value_cache", *CONTEXT)
STEP = "step.1."

FAULTS = (
    # --- embeddings
    Fault("embeddings_scaled", ("embeddings",), "embeddings multiplied by sqrt(D), as Gemma's are",
          wrap(embed=lambda right: lambda ids, w: (right(ids, w) * np.float64(w["embed_tokens.weight"].shape[1]) ** 0.5).astype(w["embed_tokens.weight"].dtype))),
    Fault("ids_from_one", ("embeddings",), "the row before: token ids taken to count from 1",
          wrap(embed=lambda right: lambda ids, w: right(ids - 1, w))),
    # --- positions
    Fault("positions_from_one", COS, "positions start at 1", positions(lambda where, start: where + 1)),
    Fault("positions_ignore_padding", COS, "positions count the padding",
          given(lambda a: {"position_ids": np.broadcast_to(np.arange(a["input_ids"].shape[1]), a["input_ids"].shape) + a["position_ids"].min()})),
    Fault("positions_wrap_at_256", COS, "positions modulo 256", positions(lambda where, start: where % 256)),
    Fault("positions_clipped_at_255", COS, "positions above 255 taken for 255: the table is too short", positions(lambda where, start: np.minimum(where, 255))),
    Fault("positions_in_bfloat16", COS, "positions rounded to bfloat16, wrong from 257 on", tables(lambda where, f: in_bfloat16(where) * f)),
    Fault("decode_positions_restart", (STEP + "rotary_cos",), "every decode step is at position 0", positions(lambda where, start: where * (start == 0))),
    Fault("decode_positions_count_padding", (STEP + "rotary_cos",), "in decode the position is the slot in the cache, padding counted",
          positions(lambda where, start: np.full_like(where, start) if start else where)),
    Fault("decode_positions_one_late", (STEP + "rotary_cos",), "decode leaves out a position", positions(lambda where, start: where + (start > 0))),
    Fault("decode_positions_one_early", (STEP + "rotary_cos",), "the first decode step repeats the last position of the prompt", positions(lambda where, start: where - (start > 0))),
    # --- frequencies and tables
    Fault("base_of_another_model", COS, "rope_theta 500000 for 10000, or the other way round",
          frequencies(lambda f, p, e: f * (50.0 if p["rope_theta"] == 10000 else 0.02) ** -e)),
    Fault("frequency_exponent_halved", COS, "frequencies theta^(-i/d) instead of theta^(-2i/d)", frequencies(lambda f, p, e: f * p["rope_theta"] ** (e / 2))),
    Fault("frequencies_of_width_over_heads", COS, "frequencies with D / H for the head size, which it is not", given(of_width_over_heads)),
    Fault("frequencies_in_bfloat16", COS, "frequencies rounded to bfloat16, as .to(bfloat16) does to a buffer", frequencies(lambda f, p, e: in_bfloat16(f))),
    Fault("llama3_scaling_missing", COS, "rope_type llama3 ignored", llama3(lambda f, p: f)),
    Fault("llama3_scaling_linear", COS, "every frequency divided by the factor, not only the low ones", llama3(lambda f, p: f / p["factor"])),
    Fault("llama3_not_smoothed", COS, "frequencies between the bands left as they are", llama3(lambda f, p: scaled(f, *bands(p), smooth=False))),
    Fault("llama3_bands_exchanged", COS, "low_freq_factor and high_freq_factor exchanged", llama3(lambda f, p: scaled(f, *bands(p, exchanged=True), smooth=False))),
    Fault("angles_in_bfloat16", COS, "angles rounded to bfloat16", tables(lambda where, f: in_bfloat16(where * f))),
    Fault("tables_in_bfloat16", COS, "cos and sin rounded to bfloat16", tables(lambda where, f: where * f, in_bfloat16)),
    Fault("tables_scaled", COS, "cos and sin times 0.1 ln 8 + 1, the attention factor of YaRN", tables(lambda where, f: where * f, lambda x: x * x.dtype.type(0.1 * math.log(8) + 1))),
    Fault("cos_and_sin_exchanged", COS, "cos and sin exchanged", tables(lambda where, f: math.pi / 2 - where * f)),
    # --- RMSNorm
    Fault("epsilon_1e-6", NORM, "epsilon 1e-6 instead of 1e-5", epsilon(1e-6)),
    Fault("epsilon_1e-3", NORM, "epsilon 1e-3 instead of 1e-5", epsilon(1e-3)),
    Fault("epsilon_missing", NORM, "no epsilon", epsilon(0.0)),
    Fault("epsilon_outside_root", NORM, "sqrt(mean square) + epsilon instead of sqrt(mean square + epsilon)",
          norm(lambda x, eps: x / (np.sqrt(mean_square(x)) + eps))),
    Fault("epsilon_as_floor", NORM, "max(mean square, epsilon) instead of mean square + epsilon", norm(lambda x, eps: x / np.sqrt(np.maximum(mean_square(x), eps)))),
    Fault("mean_subtracted", NORM, "LayerNorm: the mean is subtracted",
          norm(lambda x, eps: gpt2.normalised(x, x.var(-1, keepdims=True), eps))),
    Fault("variance_for_mean_square", NORM, "divided by the standard deviation instead of the root mean square", norm(lambda x, eps: x / np.sqrt(x.var(-1, keepdims=True) + eps))),
    Fault("mean_square_unbiased", NORM, "squares over D - 1 instead of D", norm(lambda x, eps: x / np.sqrt(np.square(x).sum(-1, keepdims=True) / (x.shape[-1] - 1) + eps))),
    Fault("sum_for_mean", NORM, "divided by the Euclidean norm: the mean is a sum", norm(lambda x, eps: x / np.sqrt(np.square(x).sum(-1, keepdims=True) + eps))),
    Fault("root_missing", NORM, "divided by the mean square instead of its root", norm(lambda x, eps: x / (mean_square(x) + eps))),
    Fault("norm_over_all", NORM, "mean square over tokens and channels", norm(lambda x, eps: x / np.sqrt(np.square(x).mean((-1, -2), keepdims=True) + eps))),
    Fault("norm_weight_missing", NORM, "norm weights left at 1", each("layernorm.weight", np.ones_like)),
    Fault("norm_weight_plus_one", NORM, "1 + weight, as Gemma's", wrap(rms_norm=lambda right: lambda x, weight, eps: right(x, weight + weight.dtype.type(1), eps))),
    Fault("norm_weight_inside", NORM, "the mean square of x times weight instead of x",
          wrap(rms_norm=lambda right: lambda x, weight, eps: right(x * weight, np.ones_like(weight), eps))),
    Fault("norms_exchanged", NORM, "input_layernorm and post_attention_layernorm exchanged", exchanged("input_layernorm", "post_attention_layernorm")),
    Fault("post_norm", NORM, "norm after the residual instead of before the attention", block("post_norm")),
    # --- queries, keys, values
    Fault("q_read_as_in_out", Q, "q_proj taken for a weight stored [in, out]", each("q_proj.weight", read_as_in_out)),
    Fault("q_transposed", (), "q_proj transposed: the shapes do not fit", each("q_proj.weight", np.transpose)),
    Fault("qk_rows_interleaved", Q, "q_proj and k_proj in the order of the original release, which pairs neighbours",
          weights(lambda state: {name: interleaved_rows(w) if name.endswith(("q_proj.weight", "k_proj.weight")) else w for name, w in state.items()})),
    Fault("k_rows_interleaved", K, "k_proj alone in the order of the original release", each("k_proj.weight", interleaved_rows)),
    Fault("k_and_v_exchanged", K, "k_proj and v_proj exchanged", exchanged("k_proj", "v_proj")),
    as_gpt2("heads_interleaved", *Q),
    replace(as_gpt2("heads_without_transpose", *Q), text="(B, T, H d) reshaped to (B, H, T, d) without a transpose"),
    # --- rotation
    Fault("rotary_missing", TURNED, "no rotary embedding", rotate(unturned)),
    Fault("rotary_on_q_missing", TURNED, "queries are not rotated", rotate(unturned, k=False)),
    Fault("rotary_on_k_missing", TURNED_KEYS, "keys are not rotated", rotate(unturned, q=False)),
    Fault("rotary_interleaved", TURNED, "channels 2i and 2i + 1 rotated instead of i and i + d/2", wrap(rotate=interleaved)),
    Fault("rotary_backwards", TURNED, "rotated by minus the angle", wrap(rotate=lambda right: lambda x, cos, sin: right(x, cos, -sin))),
    Fault("rotary_sign_missing", TURNED, "the second half is not negated", rotate(lambda a, b, cos, sin: (a * cos + b * sin, b * cos + a * sin))),
    Fault("rotary_first_half_only", TURNED, "the second half of the channels is left as it is", rotate(lambda a, b, cos, sin: (a * cos - b * sin, b))),
    Fault("rotary_overwritten", TURNED, "the first half is overwritten before the second one reads it", rotate(overwritten)),
    Fault("rotary_k_backwards", TURNED_KEYS, "keys rotated by minus the angle", rotate(lambda a, b, cos, sin: (a * cos + b * sin, b * cos - a * sin), q=False)),
    Fault("rotary_twice_on_k", TURNED_KEYS, "keys rotated twice",
          wrap(rotate=lambda right: lambda x, cos, sin: right(x, cos, sin) if x.shape[1] == QUERY_HEADS else right(right(x, cos, sin), cos, sin))),
    Fault("rotary_tables_dealt", TURNED, "tables laid out for neighbouring channels, rotation of halves", wrap(rotate=tables_dealt)),
    Fault("rotary_along_heads", TURNED, "tables broadcast along the heads instead of the tokens", wrap(rotate=tables_along_heads)),
    Fault("rotary_on_values", VALUES, "values are rotated too", remembered(lambda turn, kv, last: (kv[0], turn(kv[1], *last[1:])))),
    # --- cache
    Fault("cache_unrotated", CACHE, "keys stored before they are rotated", remembered(lambda turn, kv, last: (last[0], kv[1]))),
    Fault("cache_rotated_again", (STEP + FIRST + "key_cache",), "every decode step rotates the keys in the cache again", turned_again),
    Fault("cache_written_one_late", CACHE, "keys and values written one position too late",
          wrap(write_cache=gpt2.written_at(1),
               new_cache=lambda right: lambda n, b, heads, capacity, *rest: right(n, b, heads, capacity + 1, *rest))),
    as_gpt2("cache_read_short", *CACHE),
    as_gpt2("cache_read_one", *CACHE),
    as_gpt2("cache_uninitialised", *CACHE),
    as_gpt2("cache_stale", *CACHE),
    as_gpt2("cache_keys_as_values", *VALUES),
    as_gpt2("cache_overwritten", STEP + FIRST + "key_cache"),
    # --- groups and scores
    Fault("groups_tiled", SCORES, "key and value heads tiled: query head h looks at head h mod G", grouped(lambda h, H, G: h % G)),
    Fault("groups_of_wrong_size", SCORES, "query head h looks at head h // G instead of h // (H / G)", grouped(lambda h, H, G: min(h // G, G - 1))),
    Fault("groups_exchanged", SCORES, "every query head looks at the next group", grouped(lambda h, H, G: (h // (H // G) + 1) % G)),
    Fault("first_group_only", SCORES, "every query head looks at the first key and value head", grouped(lambda h, H, G: 0)),
    Fault("values_tiled", CONTEXT, "value heads tiled, key heads repeated", grouped(lambda h, H, G: h % G, keys=False)),
    Fault("groups_missing", (), "key and value heads not repeated: the shapes do not fit", grouped(lambda h, H, G: h)),
    as_gpt2("scale_missing", *SCORES),
    as_gpt2("scale_twice", *SCORES),
    as_gpt2("scale_by_head_dim", *SCORES),
    Fault("scale_by_width", SCORES, "divided by sqrt(H d) instead of sqrt(d)", KNOWN["scale_by_width"].change),
    Fault("scale_by_width_over_heads", SCORES, "divided by sqrt(D / H) instead of sqrt(d)", gpt2.scores(lambda q, k: q @ k.swapaxes(-1, -2) / np.sqrt(48 // q.shape[1]))),
    as_gpt2("k_times_q", *SCORES),
    # --- mask and softmax
    as_gpt2("mask_missing", *PROBABILITIES),
    as_gpt2("mask_one_too_far", *PROBABILITIES),
    as_gpt2("mask_one_too_near", *PROBABILITIES),
    as_gpt2("mask_minus_10", *PROBABILITIES),
    as_gpt2("mask_set_to_minus_10", *PROBABILITIES),
    as_gpt2("mask_after_softmax", *PROBABILITIES),
    as_gpt2("mask_aligned_to_start", STEP + PROBABILITIES[0]),
    Fault("mask_window_of_3", PROBABILITIES, "a sliding window, as Mistral's", gpt2.allowed(lambda query, key, valid: (key <= query) & (key > query - 3) & (valid | (key == query)))),
    as_gpt2("padding_not_masked", *PROBABILITIES),
    as_gpt2("padding_mask_inverted", *PROBABILITIES),
    Fault("padding_seen_in_decode", (STEP + PROBABILITIES[0],), "decode ignores the attention mask",
          wrap(attention_allowed=lambda right: lambda mask, start, end: right(np.ones_like(mask) if start else mask, start, end))),
    as_gpt2("softmax_over_queries", *PROBABILITIES),
    Fault("softmax_plus_one", PROBABILITIES + CONTEXT, "1 added to the softmax's sum, as with an attention sink",
          wrap(softmax=lambda right: lambda x, *t: right(np.concatenate([x, np.zeros_like(x[..., :1])], -1))[..., :-1] if x.ndim == 4 else right(x, *t))),
    # --- context and projection
    as_gpt2("context_not_transposed", *OUTPUT),
    Fault("o_read_as_in_out", OUTPUT, "o_proj taken for a weight stored [in, out]", each("o_proj.weight", read_as_in_out)),
    Fault("o_missing", OUTPUT, "o_proj not loaded: zeros", each("o_proj.weight", np.zeros_like)),
    # --- residuals and norms of the block
    Fault("attention_residual_missing", RESIDUAL, "the input is not added to the attention output", block("attention_residual_missing")),
    Fault("attention_residual_twice", RESIDUAL, "the input is added twice", block("attention_residual_twice")),
    Fault("residual_from_norm", RESIDUAL, "input_norm is added instead of the input", block("residual_from_norm")),
    Fault("ffn_without_norm", SECOND_NORM, "the FFN is fed the residual without a norm", block("ffn_without_norm")),
    Fault("ffn_norm_of_input", SECOND_NORM, "the FFN's norm is that of the block's input: the attention is passed by", block("ffn_norm_of_input")),
    Fault("ffn_parallel", SECOND_NORM, "attention and FFN are fed the same input_norm, as GPT-J's", block("ffn_parallel")),
    # --- FFN
    Fault("gate_and_up_exchanged", GATE, "gate_proj and up_proj exchanged", exchanged("gate_proj", "up_proj")),
    Fault("gate_and_up_dealt", GATE, "gate and up read from every other row of the fused weight", weights(fused_and_dealt)),
    Fault("gate_read_as_in_out", GATE, "gate_proj taken for a weight stored [in, out]", each("gate_proj.weight", read_as_in_out)),
    Fault("silu_on_up", ACTIVATION, "gate * silu(up) instead of silu(gate) * up", ffn(lambda silu, gate, up: (silu(up), gate * silu(up)))),
    Fault("silu_of_product", ACTIVATION, "silu(gate * up) instead of silu(gate) * up", ffn(lambda silu, gate, up: (silu(gate * up), silu(gate * up)))),
    Fault("gelu_for_silu", ACTIVATION, "GELU instead of SiLU", activation(lambda x: 0.5 * x * (1 + gpt2.erf(x / np.sqrt(2))))),
    Fault("quick_gelu_for_silu", ACTIVATION, "x sigmoid(1.702 x) instead of x sigmoid(x)", activation(lambda x: x / (1 + np.exp(-1.702 * x)))),
    Fault("relu_for_silu", ACTIVATION, "ReLU instead of SiLU", activation(lambda x: np.maximum(x, 0))),
    Fault("sigmoid_for_silu", ACTIVATION, "sigmoid(x) instead of x sigmoid(x)", activation(lambda x: 1 / (1 + np.exp(-x)))),
    Fault("activation_missing", ACTIVATION, "no activation", activation(lambda x: x)),
    Fault("up_missing", GATED, "silu(gate) without up", ffn(lambda silu, gate, up: (silu(gate), silu(gate)))),
    Fault("up_added", GATED, "silu(gate) + up instead of their product", ffn(lambda silu, gate, up: (silu(gate), silu(gate) + up))),
    Fault("ffn_half_width", (), "an FFN of half the width: the shapes do not fit", each("gate_proj.weight", lambda w: w[: w.shape[0] // 2])),
    Fault("down_read_as_in_out", FFN, "down_proj taken for a weight stored [in, out]", each("down_proj.weight", read_as_in_out)),
    Fault("ffn_residual_missing", BLOCK, "the residual is not added to the FFN output", block("ffn_residual_missing")),
    Fault("ffn_residual_twice", BLOCK, "the residual is added twice", block("ffn_residual_twice")),
    Fault("ffn_residual_from_input", BLOCK, "the block's input is added instead of the residual", block("ffn_residual_from_input")),
    Fault("ffn_residual_from_norm", BLOCK, "post_attention_norm is added instead of the residual", block("ffn_residual_from_norm")),
    # --- layers and head
    Fault("layers_exchanged", NORM, "the two layers exchanged", layers(1, 0)),
    Fault("first_layer_repeated", ("layers.1.input_norm",), "every layer has the weights of the first", layers(0, 0)),
    Fault("final_norm_missing", ("norm",), "no final norm", wrap(final_norm=lambda _: lambda hidden, w, eps: hidden)),
    Fault("final_norm_of_first_layer", ("norm",), "the final norm has the weight of the first layer's input_layernorm",
          wrap(final_norm=lambda right: lambda hidden, w, eps: right(hidden, w | {"norm.weight": w["layers.0.input_layernorm.weight"]}, eps))),
    Fault("head_tied", ("logits",), "the head is the embedding",
          wrap(head=lambda right: lambda hidden, w: right(hidden, w | {"lm_head.weight": w["embed_tokens.weight"]}))),
    # --- what is read off the logits
    as_gpt2("first_position", "last_logits"),
    as_gpt2("argmin", "greedy_token"),
    Fault("argmax_over_batch", ("greedy_token",), "argmax over the wrong axis", outputs(lambda found: {"greedy_token": found["last_logits"].argmax(0)})),
    as_gpt2("temperature_ignored", "probabilities.t0.5"),
    as_gpt2("temperature_multiplied", "probabilities.t0.5"),
)  # fmt: skip
