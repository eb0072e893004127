"""Mistakes that people make when they write rotary embeddings, planted in the plain candidate. NumPy only."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
INV_FREQ, FACTOR, COS, SIN, Q, K, REFUSED = (
    (name,) for name in ("inv_freq", "attention_factor", "cos", "sin", "q_rotated", "k_rotated", "refused")
)


def frequency(formula: Callable[[Array, int, float], Array]) -> Change:
    """Return a change to frequencies before they are scaled: `formula(i, r, base)`, i = 0 … r/2 - 1."""

    def unscaled(r: int, base: float, dtype: Any) -> Array:
        return np.asarray(formula(np.arange(r // 2).astype(dtype), r, base)).astype(dtype)

    return wrap(unscaled=lambda _: unscaled)


def scaled(kind: str, formula: Callable[[Callable[[dict[str, Any]], Array], dict[str, Any]], Array]) -> Change:
    """Return a change to one scaling: `formula(right, scaling)`, where `right(scaling)` is what another one gives."""

    def wrong(right: Any) -> Any:
        def frequencies(r: int, base: float, scaling: dict[str, Any], positions: Array, dtype: Any) -> Array:
            def as_if(other: dict[str, Any]) -> Array:
                return right(r, base, other, positions, dtype)

            return formula(as_if, scaling) if scaling["rope_type"] == kind else as_if(scaling)

        return frequencies

    return wrap(frequencies=wrong)


def stretch(formula: Callable[[float, int, int, int], float]) -> Change:
    """Return a change to the base of `dynamic`: `formula(factor, length, trained, r)` is what multiplies it."""

    def dynamic_base(r: int, base: float, scaling: dict[str, Any], length: int) -> float:
        return base * formula(scaling["factor"], length, scaling["max_position_embeddings"], r)

    return wrap(dynamic_base=lambda _: dynamic_base)


def ramp(formula: Callable[[float, float, Array, int], Array]) -> Change:
    """Return a change to YaRN's ramp: `formula(fast, slow, i, r)` of the two pairs, as fractions, and i = 0 … r/2 - 1."""

    def change(plain: Any) -> None:
        def wrong(r: int, base: float, scaling: dict[str, Any]) -> Array:
            fast, slow = (plain.pair_of(scaling[beta], r, base, scaling) for beta in ("beta_fast", "beta_slow"))
            return formula(fast, slow, np.arange(r // 2), r)

        plain.ramp = wrong

    return change


def clipped(low: float, high: float, i: Array) -> Array:
    """Return a ramp from 0 at `low` to 1 at `high`."""
    return np.clip((i - low) / (high - low), 0, 1)


def yarn_factor(formula: Callable[[float, float | None], float]) -> Change:
    """Return a change to YaRN's attention factor: `formula(factor, given)`."""

    def wrong(right: Any) -> Any:
        def attention_factor(scaling: dict[str, Any]) -> float:
            yarn = scaling["rope_type"] == "yarn"
            return formula(scaling["factor"], scaling["attention_factor"]) if yarn else right(scaling)

        return attention_factor

    return wrap(attention_factor=wrong)


def wrong_scaling(**changes: Callable[[dict[str, Any]], Any]) -> Callable[[Any, dict[str, Any]], Array]:
    """Return the formula of `scaled` that gives other parameters to the right one."""
    return lambda right, scaling: right(scaling | {key: change(scaling) for key, change in changes.items()})


def positions(formula: Callable[[Array], Array]) -> Change:
    """Return a change to positions, (B, T), where angles are computed."""
    return wrap(angles=lambda right: lambda positions, inv_freq: right(formula(positions), inv_freq))


def angle(formula: Callable[[Array], Array]) -> Change:
    """Return a change to angles, (B, T, r/2)."""
    return wrap(angles=lambda right: lambda positions, inv_freq: formula(right(positions, inv_freq)))


def rotation(formula: Callable[[Any, Array, Array, Array, str], Array]) -> Change:
    """Return a change to the rotation: `formula(right, x, cos, sin, pairing)`, of q and of k."""
    return wrap(rotated=lambda right: lambda *given: formula(right, *given))


def pairwise(formula: Callable[[Array, Array, Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to what becomes of a pair: `formula(a, b, cos, sin)`, (B, heads, T, r/2) each."""

    def change(plain: Any) -> None:
        def rotated(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
            r = 2 * cos.shape[-1]
            a, b = plain.pairs(plain.wide(x[..., :r]), pairing)
            turned = plain.joined(*formula(a, b, cos[:, None], sin[:, None]), pairing)
            return np.concatenate([turned.astype(x.dtype), x[..., r:]], -1)

        plain.rotated = rotated

    return change


def only(which: str, formula: Callable[[Any, Array, Array, Array, str], Array]) -> Change:
    """Return a change to the rotation of q or k alone: `formula(right, x, cos, sin, pairing)`."""

    def change(plain: Any) -> None:
        right, both = plain.rotated, plain.both_rotated

        def both_rotated(q: Array, k: Array, cos: Array, sin: Array, pairing: str) -> dict[str, Array]:
            x = q if which == "q" else k
            return both(q, k, cos, sin, pairing) | {f"{which}_rotated": formula(right, x, cos, sin, pairing)}

        plain.both_rotated = both_rotated

    return change


def other_pairing(pairing: str) -> str:
    """Return the pairing that is not meant."""
    return "interleaved" if pairing == "half_split" else "half_split"


def as_if_whole(right: Any, x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Rotate all dimensions, as far as the tables go once more from their beginning."""
    order = np.arange(x.shape[-1] // 2) % cos.shape[-1]
    return right(x, cos[..., order], sin[..., order], pairing)


def last_dimensions(right: Any, x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Rotate the last r dimensions instead of the first."""
    rest = x.shape[-1] - 2 * cos.shape[-1]
    return np.concatenate([x[..., :rest], right(x[..., rest:], cos, sin, pairing)], -1)


def rest_dropped(right: Any, x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Leave zeros where dimensions are not rotated."""
    found = right(x, cos, sin, pairing).copy()
    found[..., 2 * cos.shape[-1] :] = 0
    return found


def rest_first(right: Any, x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Put the dimensions that are not rotated before the others."""
    found = right(x, cos, sin, pairing)
    r = 2 * cos.shape[-1]
    return np.concatenate([found[..., r:], found[..., :r]], -1)


def tables_of_other_layout(right: Any, x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Turn the right pairs, with tables that are spread over the dimensions as the other pairing wants them."""
    r = 2 * cos.shape[-1]
    cos_spread, sin_spread = (
        np.repeat(t, 2, -1) if pairing == "half_split" else np.concatenate([t, t], -1) for t in (cos, sin)
    )
    one, zero = np.ones_like(cos), np.zeros_like(cos)
    quarter = right(x[..., :r], zero, one, pairing).astype(cos.dtype)  # (B, heads, T, r)
    turned = x[..., :r].astype(cos.dtype) * cos_spread[:, None] + quarter * sin_spread[:, None]
    return np.concatenate([turned.astype(x.dtype), x[..., r:]], -1)


def written_in_other_layout(right: Any, x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Rotate the right pairs, and write first and second members where the other pairing has them."""
    r = 2 * cos.shape[-1]
    found = right(x, cos, sin, pairing)
    order = np.arange(r).reshape(2, -1).T.ravel() if pairing == "half_split" else np.arange(r).reshape(-1, 2).T.ravel()
    return np.concatenate([found[..., order], found[..., r:]], -1)


def along_heads(right: Any, x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Rotate each head by the table of the token of that number, as a layout (B, T, H, D) would have it."""
    heads = np.arange(x.shape[1]) % max(x.shape[2], 1)
    if not x.size:
        return right(x, cos, sin, pairing)
    found = [right(x[:, h : h + 1], *(np.repeat(t[:, i : i + 1], x.shape[2], 1) for t in (cos, sin)), pairing)
             for h, i in enumerate(heads)]  # fmt: skip
    return np.concatenate(found, 1)


def twice(right: Any, x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Rotate what was rotated."""
    return right(right(x, cos, sin, pairing), cos, sin, pairing)


def of_first_token(table: Array) -> Array:
    """Return the first token's table for every token."""
    return np.broadcast_to(table[:, :1], table.shape)


def coarse(values: Array, dtype: str) -> Array:
    """Return values rounded to `dtype`, in their own format."""
    wide = values.astype(np.float64)
    return (np.clip(wide, -65504, 65504) if dtype == "float16" else wide).astype(dtype).astype(values.dtype)


def table(formula: Callable[[Array], Array]) -> Change:
    """Return a change to both tables, once they are computed."""
    return wrap(tables=lambda right: lambda angle, factor: tuple(formula(found) for found in right(angle, factor)))


def before_rotation(formula: Callable[[Array], Array]) -> Change:
    """Return a change to both tables where they are used, computed or given."""
    return rotation(lambda right, x, cos, sin, pairing: right(x, formula(cos), formula(sin), pairing))


def shortened_turn(angle: Array) -> Array:
    """Return angles less whole turns of 2 × 3.14159."""
    turn = angle.dtype.type(2 * 3.14159)
    return angle - np.floor(angle / turn) * turn


def first_row(values: Array) -> Array:
    """Return the first row for every row."""
    return np.broadcast_to(values[:1], values.shape)


def arange(values: Array) -> Array:
    """Return the place in the row."""
    return np.broadcast_to(np.arange(values.shape[1]), values.shape)


def in_integers(scaling: dict[str, Any], positions: Array) -> Array:
    """Return positions less the remainder of a division by the factor of `linear`."""
    return positions // scaling["factor"] * scaling["factor"] if scaling["rope_type"] == "linear" else positions


def positions_divided(plain: Any) -> None:
    """Divide positions by the factor of `linear` and drop the remainder."""
    right, angles, seen = plain.frequencies, plain.angles, {}

    def frequencies(r: int, base: float, scaling: dict[str, Any], positions: Array, dtype: Any) -> Array:
        seen["scaling"] = scaling
        return right(r, base, scaling, positions, dtype)

    plain.frequencies = frequencies
    plain.angles = lambda positions, inv_freq: angles(in_integers(seen["scaling"], positions), inv_freq)


def accepts(*names: str, **others: Callable[[Any], Any]) -> Change:
    """Return a change that leaves out the named checks, and replaces what `others` names so that an answer comes."""
    return wrap(**{name: lambda _: lambda *_: None for name in names}, **others)


def fitted(plain: Any) -> None:
    """Accept vectors that do not fit, and return what comes of the part that all have."""
    plain.check_vectors = lambda q, k: None
    right = plain.rotary_embedding

    def rotary_embedding(q: Array, k: Array, **given: Any) -> Any:
        q, k = (x if x.ndim == 4 else x[None] for x in (q, k))
        B, T, D = (min(q.shape[axis], k.shape[axis]) for axis in (0, 2, 3))
        q, k = (x[:B, :, :T, :D] for x in (q, k))
        r = min(given["rotary_dim"], D)
        given |= {"positions": given["positions"][:B, :T]} if "positions" in given else {}
        return right(q, k, **given | {"rotary_dim": r})

    plain.rotary_embedding = rotary_embedding


def even(r: int, width: int) -> int:
    """Return a number of dimensions that can be rotated."""
    return min(max(r // 2 * 2, 2), width)


FAULTS = (
    # --- frequencies
    Fault("exponent_of_index", INV_FREQ, "base^(-i/r): the factor 2 is missing", frequency(lambda i, r, base: base ** (-i / r))),
    Fault("last_pair_included", INV_FREQ, "base^(-i/(r/2 - 1)): the last frequency is 1/base", frequency(lambda i, r, base: base ** (-i / max(r / 2 - 1, 1)))),
    Fault("frequency_inverted", INV_FREQ, "base^(+2i/r)", frequency(lambda i, r, base: base ** (2 * i / r))),
    Fault("base_10000_always", INV_FREQ, "base 10000 whatever the parameter says", frequency(lambda i, r, base: 1e4 ** (-2 * i / r))),
    Fault("base_tenth", INV_FREQ, "a tenth of the base", frequency(lambda i, r, base: (base / 10) ** (-2 * i / r))),
    Fault("inv_freq_in_bfloat16", INV_FREQ, "frequencies rounded to bfloat16, as by a cast of the whole model", frequency(lambda i, r, base: coarse(base ** (-2 * i / r), "bfloat16"))),
    Fault("inv_freq_in_float16", INV_FREQ, "frequencies rounded to float16", frequency(lambda i, r, base: coarse(base ** (-2 * i / r), "float16"))),
    # --- scalings
    Fault("linear_ignored", INV_FREQ, "linear scaling is ignored", scaled("linear", wrong_scaling(factor=lambda s: 1.0))),
    Fault("linear_inverted", INV_FREQ, "frequencies multiplied by the factor instead of divided", scaled("linear", wrong_scaling(factor=lambda s: 1 / s["factor"]))),
    Fault("linear_in_integers", COS, "positions divided by the factor without a remainder", positions_divided),
    Fault("linear_scales_base", INV_FREQ, "the base is multiplied by the factor instead of the frequencies divided",
          wrap(frequencies=lambda right: lambda r, base, scaling, *rest: right(
              r, base * scaling["factor"], {"rope_type": "default"}, *rest) if scaling["rope_type"] == "linear" else right(r, base, scaling, *rest))),
    Fault("dynamic_ignored", INV_FREQ, "dynamic scaling is ignored", stretch(lambda f, length, M, r: 1.0)),
    Fault("dynamic_as_linear", INV_FREQ, "frequencies over the factor where dynamic scaling is meant",
          scaled("dynamic", lambda right, s: right({"rope_type": "linear", "factor": s["factor"]}))),
    Fault("dynamic_below_length", INV_FREQ, "dynamic scaling within the length that was trained",
          stretch(lambda f, length, M, r: abs(f * length / M - (f - 1)) ** (r / (r - 2)))),
    Fault("dynamic_not_by_length", INV_FREQ, "the base times factor^(r/(r-2)), whatever the length", stretch(lambda f, length, M, r: f ** (r / (r - 2)))),
    Fault("dynamic_exponent_missing", INV_FREQ, "the base is not raised to r/(r-2)", stretch(lambda f, length, M, r: f * max(length, M) / M - (f - 1))),
    Fault("dynamic_offset_missing", INV_FREQ, "factor L / M without - (factor - 1)", stretch(lambda f, length, M, r: (f * max(length, M) / M) ** (r / (r - 2)))),
    Fault("dynamic_length_short", INV_FREQ, "the largest position taken for the length: one too few",
          stretch(lambda f, length, M, r: (f * max(length - 1, M) / M - (f - 1)) ** (r / (r - 2)))),
    Fault("dynamic_length_of_first_row", INV_FREQ, "the length of the first row of the batch", wrap(length=lambda right: lambda positions: right(positions[:1]))),
    Fault("yarn_as_linear", INV_FREQ, "every frequency over YaRN's factor", ramp(lambda fast, slow, i, r: np.ones(i.shape))),
    Fault("yarn_ignored", INV_FREQ, "no frequency over YaRN's factor", ramp(lambda fast, slow, i, r: np.zeros(i.shape))),
    Fault("yarn_ramp_reversed", INV_FREQ, "interpolated where it should be extrapolated, and the reverse",
          ramp(lambda fast, slow, i, r: 1 - clipped(max(math.floor(fast), 0), min(math.ceil(slow), r - 1), i))),
    Fault("yarn_ramp_not_rounded", INV_FREQ, "the ends of the ramp are not rounded to whole pairs", ramp(lambda fast, slow, i, r: clipped(fast, slow, i))),
    Fault("yarn_ramp_over_dimensions", INV_FREQ, "the ramp runs over the r dimensions, not the r/2 pairs",
          ramp(lambda fast, slow, i, r: clipped(max(math.floor(fast), 0), min(math.ceil(slow), r - 1), 2 * i))),
    Fault("yarn_ramp_is_step", INV_FREQ, "a step in the middle instead of a ramp", ramp(lambda fast, slow, i, r: (i > (fast + slow) / 2) * 1.0)),
    Fault("yarn_betas_ignored", INV_FREQ, "beta_fast 32 and beta_slow 1, whatever the parameters say", scaled("yarn", wrong_scaling(beta_fast=lambda s: 32.0, beta_slow=lambda s: 1.0))),
    Fault("yarn_extended_length", INV_FREQ, "the extended length in place of the original one",
          scaled("yarn", wrong_scaling(original_max_position_embeddings=lambda s: s["factor"] * s["original_max_position_embeddings"]))),
    Fault("yarn_inverted", INV_FREQ, "frequencies multiplied by YaRN's factor", scaled("yarn", wrong_scaling(factor=lambda s: 1 / s["factor"]))),
    Fault("mscale_missing", FACTOR, "YaRN's attention factor is missing", yarn_factor(lambda factor, given: 1.0)),
    Fault("mscale_given_ignored", FACTOR, "an attention factor that is given is not used", yarn_factor(lambda factor, given: 0.1 * math.log(factor) + 1)),
    Fault("mscale_without_1", FACTOR, "0.1 ln(factor) without + 1", yarn_factor(lambda factor, given: 0.1 * math.log(factor) if given is None else given)),
    Fault("mscale_squared", FACTOR, "the square of YaRN's attention factor, as scores have it",
          wrap(attention_factor=lambda right: lambda scaling: right(scaling) ** 2)),
    Fault("mscale_not_on_sine", SIN, "YaRN's attention factor multiplies the cosine alone", wrap(tables=lambda right: lambda angle, factor: (right(angle, factor)[0], np.sin(angle)))),
    Fault("mscale_in_angle", COS, "YaRN's attention factor multiplies the angle", wrap(tables=lambda right: lambda angle, factor: right(angle * factor, factor / factor))),
    Fault("llama3_ignored", INV_FREQ, "the scaling of Llama 3 is ignored", scaled("llama3", lambda right, s: right({"rope_type": "default"}))),
    Fault("llama3_as_linear", INV_FREQ, "every frequency over the factor", scaled("llama3", lambda right, s: right({"rope_type": "linear", "factor": s["factor"]}))),
    Fault("llama3_factors_swapped", INV_FREQ, "low_freq_factor and high_freq_factor are exchanged",
          scaled("llama3", wrong_scaling(low_freq_factor=lambda s: s["high_freq_factor"], high_freq_factor=lambda s: s["low_freq_factor"]))),
    Fault("llama3_band_missing", INV_FREQ, "no mixture between short and long waves: those between are left as they are",
          wrap(llama3=lambda right: lambda f, s: np.where(s["original_max_position_embeddings"] * f / (2 * math.pi) < s["low_freq_factor"], f / s["factor"], f).astype(f.dtype))),
    Fault("llama3_smooth_reversed", INV_FREQ, "the mixture between short and long waves is reversed", wrap(llama3=lambda right: lambda f, s: np.where(
        np.isclose(right(f, s), f, rtol=1e-6) | np.isclose(right(f, s) * s["factor"], f, rtol=1e-6), right(f, s), f + f / f.dtype.type(s["factor"]) - right(f, s)))),
    Fault("llama3_wave_without_2_pi", INV_FREQ, "wavelengths without 2 pi", wrap(rotations=lambda right: lambda f, length: length * f)),
    Fault("llama3_extended_length", INV_FREQ, "the extended length in place of the original one",
          scaled("llama3", wrong_scaling(original_max_position_embeddings=lambda s: s["factor"] * s["original_max_position_embeddings"]))),
    Fault("llama3_parameters_fixed", INV_FREQ, "low_freq_factor 1 and high_freq_factor 4, whatever the parameters say",
          scaled("llama3", wrong_scaling(low_freq_factor=lambda s: 1.0, high_freq_factor=lambda s: 4.0))),
    # --- positions and angles
    Fault("positions_in_bfloat16", COS, "positions rounded to bfloat16: wrong from 257 on", positions(lambda p: coarse(p.astype(np.float64), "bfloat16"))),
    Fault("positions_in_float16", COS, "positions rounded to float16: wrong from 2049 on", positions(lambda p: coarse(p.astype(np.float64), "float16"))),
    Fault("positions_from_1", COS, "positions count from 1", positions(lambda p: p + 1)),
    Fault("positions_one_early", COS, "the position of the token before", positions(lambda p: np.maximum(p - 1, 0))),
    Fault("positions_ignored", COS, "the place in the call instead of the position: wrong when decoding and behind padding", positions(arange)),
    Fault("offset_and_arange", COS, "the first position of each row, counted on: padding is counted", positions(lambda p: p[:, :1] + arange(p))),
    Fault("positions_of_first_row", COS, "the first row's positions for every row", positions(first_row)),
    Fault("position_of_longest_row", COS, "the largest position of the batch for every row, counted back",
          positions(lambda p: np.maximum(p.max(initial=0) - arange(p)[:, ::-1], 0))),
    Fault("positions_modulo_4096", COS, "positions beyond a table of 4096 begin again", positions(lambda p: p % 4096)),
    Fault("angle_in_bfloat16", COS, "angles computed in bfloat16", angle(lambda a: coarse(a, "bfloat16"))),
    Fault("angle_in_float16", COS, "angles computed in float16", angle(lambda a: coarse(a, "float16"))),
    Fault("angle_degrees", COS, "sine and cosine of degrees", angle(np.deg2rad)),
    Fault("turn_of_six_digits", COS, "whole turns taken off with pi = 3.14159", angle(shortened_turn)),
    # --- tables
    Fault("tables_in_bfloat16", COS, "cosines and sines kept in bfloat16 and returned as wider numbers", table(lambda t: coarse(t, "bfloat16"))),
    Fault("tables_in_float16", COS, "cosines and sines kept in float16 and returned as wider numbers", table(lambda t: coarse(t, "float16"))),
    # --- rotation
    Fault("rotated_backwards", Q, "the sign of the sine: (a cos + b sin, b cos - a sin)", pairwise(lambda a, b, c, s: (a * c + b * s, b * c - a * s))),
    Fault("minus_missing", Q, "a cos + b sin without the minus", pairwise(lambda a, b, c, s: (a * c + b * s, b * c + a * s))),
    Fault("second_not_rotated", Q, "the second of each pair is left as it is", pairwise(lambda a, b, c, s: (a * c - b * s, b))),
    Fault("first_overwritten", Q, "the second of each pair is computed from the first one's new value",
          pairwise(lambda a, b, c, s: (a * c - b * s, b * c + (a * c - b * s) * s))),
    Fault("given_tables_swapped", Q, "cosine and sine are exchanged in the rotation", rotation(lambda right, x, cos, sin, pairing: right(x, sin, cos, pairing))),
    Fault("pairing_swapped", Q, "interleaved pairs for half_split and the reverse",
          rotation(lambda right, x, cos, sin, pairing: right(x, cos, sin, other_pairing(pairing)))),
    Fault("tables_of_other_layout", Q, "the right pairs, with tables spread as the other pairing wants them", rotation(tables_of_other_layout)),
    Fault("written_in_other_layout", Q, "the right pairs, written where the other pairing has them", rotation(written_in_other_layout)),
    Fault("tables_reversed", Q, "frequencies in the reverse order of the pairs", before_rotation(lambda t: t[..., ::-1])),
    Fault("tables_of_first_token", Q, "the first token's tables for every token", before_rotation(of_first_token)),
    Fault("tables_along_heads", Q, "tables broadcast along heads instead of tokens", rotation(along_heads)),
    Fault("rotated_twice", Q, "rotated twice", rotation(twice)),
    Fault("all_dimensions_rotated", Q, "all dimensions are rotated, not the first r", rotation(as_if_whole)),
    Fault("last_dimensions_rotated", Q, "the last r dimensions are rotated, not the first", rotation(last_dimensions)),
    Fault("rest_dropped", Q, "dimensions that are not rotated are 0", rotation(rest_dropped)),
    Fault("rest_first", Q, "dimensions that are not rotated stand before the others", rotation(rest_first)),
    Fault("q_not_rotated", Q, "only k is rotated", only("q", lambda right, x, cos, sin, pairing: x.copy())),
    Fault("q_scaled", Q, "the scale of the scores, 1/sqrt(D), in q", only("q", lambda right, x, cos, sin, pairing: (
        right(x, cos, sin, pairing) * np.asarray(x.shape[-1] ** -0.5, x.dtype)).astype(x.dtype))),
    Fault("k_not_rotated", K, "only q is rotated", only("k", lambda right, x, cos, sin, pairing: x.copy())),
    Fault("k_rotated_backwards", K, "k is rotated against q", only("k", lambda right, x, cos, sin, pairing: right(x, cos, -sin, pairing))),
    Fault("k_rotated_twice", K, "k is rotated twice, as keys are that come out of a cache", only("k", twice)),
    # --- what must be refused
    Fault("vectors_cut", REFUSED, "q and k are cut to what both have", fitted),
    Fault("positions_broadcast", REFUSED, "one row of positions for all rows is taken", wrap(check_positions=lambda right: lambda positions, q: right(
        np.broadcast_to(positions, (len(q), *positions.shape[1:])), q))),
    Fault("position_negative_accepted", REFUSED, "negative positions are rotated backwards", wrap(check_positions=lambda right: lambda positions, q: right(
        np.abs(positions), q))),
    Fault("rotary_dim_accepted", REFUSED, "a number of rotated dimensions that cannot be is made to fit", accepts(
        "check_rotary_dim", rotary_embedding=lambda right: lambda q, k, **given: right(q, k, **given | {
            "rotary_dim": even(given["rotary_dim"], q.shape[-1])} if q.ndim == 4 else given))),
    Fault("base_accepted", REFUSED, "a base that is not above 0 is used", accepts("check_base")),
    Fault("pairing_accepted", REFUSED, "an unknown pairing is taken for interleaved", accepts("check_pairing")),
    Fault("scaling_accepted", REFUSED, "an unknown rope_type is no scaling, and factors below 1 are used", accepts("check_scaling")),
    Fault("tables_cut", REFUSED, "tables of any number of columns are cut to the pairs", accepts(
        "check_tables", both_rotated=lambda right: lambda q, k, cos, sin, pairing: right(
            q, k, cos[..., : q.shape[-1] // 2], sin[..., : q.shape[-1] // 2], pairing))),
    # --- what comes in
    *rounded_inputs("rotary_embedding", ("q_rotated", "k_rotated")),
)  # fmt: skip
