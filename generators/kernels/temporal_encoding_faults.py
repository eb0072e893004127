"""Mistakes that people make when they encode time or look up a late sample, planted in the plain candidate. NumPy only.

M.. are the numbers of the catalogue of mistakes that robot data kernels were found with.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
FREQUENCY, ENCODING, SAMPLE, OUTPUT, REFUSED = (("frequency",), ("encoding",), ("sample",), ("output",), ("refused",))

truncated = beside(__file__, "_rounding").truncated

# --- sinusoidal ------------------------------------------------------------------------------------------------------


def frequency(formula: Callable[[Array, int, float], Array]) -> Change:
    """Return a change to the frequencies: `formula(i, D, base)`, i = 0 … ceil(D/2) - 1."""

    def frequencies(width: int, base: float, dtype: Any) -> Array:
        return formula(np.arange((width + 1) // 2).astype(dtype), width, base).astype(dtype)

    return wrap(frequencies=lambda _: frequencies)


def positions(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the positions, (B, T), once they are checked."""
    return wrap(angles=lambda right: lambda positions, frequency: right(formula(positions), frequency))


def angle(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the angles, (B, T, ceil(D/2))."""
    return wrap(angles=lambda right: lambda positions, frequency: formula(right(positions, frequency)))


def pairs(formula: Callable[[Array, Array, int], Array]) -> Change:
    """Return a change to how sines and cosines, (B, T, ceil(D/2)), make the encoding, (B, T, D)."""
    return wrap(encoded=lambda _: lambda angle, width: formula(np.sin(angle), np.cos(angle), width))


def interleaved(first: Array, second: Array, width: int) -> Array:
    """Return both in turn, (B, T, D)."""
    return np.stack([first, second], -1).reshape(*first.shape[:-1], 2 * first.shape[-1])[..., :width]


def output(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the sum: `formula(x, encoding)` in the format in which it is computed, rounded once."""

    def change(plain: Any) -> None:
        plain.added = lambda x, encoding: plain.to_storage(formula(plain.wide(x), encoding), x)

    return change


def own_frequencies(plain: Any) -> None:
    """Give each column its own frequency, base^(-c/D) for column c."""
    right = plain.sinusoidal

    def sinusoidal(x: Array, positions: Array, base: float) -> Any:
        found = right(x, positions, base)
        columns = np.arange(x.shape[-1]).astype(found["encoding"].dtype)
        angle = positions[..., None].astype(columns.dtype) * base ** (-columns / x.shape[-1])  # (B, T, D)
        encoding = np.where(columns % 2 == 0, np.sin(angle), np.cos(angle)).astype(columns.dtype)
        return found | {"encoding": encoding, "output": plain.added(x, encoding)}

    plain.sinusoidal = sinusoidal


def odd_column_missing(first: Array, second: Array, width: int) -> Array:
    """Return the encoding of whole pairs only; the last column of an odd width stays 0."""
    encoding = interleaved(first, second, width)
    encoding[..., width // 2 * 2 :] = 0
    return encoding


def coarse(values: Array, dtype: str) -> Array:
    """Return values rounded to `dtype`, in their own format."""
    return values.astype(dtype).astype(values.dtype)


def shortened_turn(angle: Array) -> Array:
    """Return angles less whole turns of 2 × 3.14159."""
    turn = angle.dtype.type(2 * 3.14159)
    return angle - np.floor(angle / turn) * turn


# --- delayed ---------------------------------------------------------------------------------------------------------


def wanted(formula: Callable[[Array, float, Array], Array]) -> Change:
    """Return a change to the time that is seen: `formula(now, latency, jitter)`, (B, T)."""
    return wrap(seen=lambda _: formula)


def sample(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the choice: `formula(stamps, wanted)`, (B, T), limited to indices that exist."""

    def nearest(stamps: Array, wanted: Array) -> Array:
        return np.clip(formula(stamps, wanted), 0, stamps.shape[1] - 1).astype(np.int64)

    return wrap(nearest=lambda _: nearest)


def away(stamps: Array, wanted: Array) -> Array:
    """Return how far each stamp is from each time, (B, T, S)."""
    return np.abs(stamps[:, None, :] - wanted[:, :, None])


def first_nearest(stamps: Array, wanted: Array) -> Array:
    """Return the right choice."""
    return away(stamps, wanted).argmin(-1)


def last_nearest(stamps: Array, wanted: Array) -> Array:
    """Return the last of the nearest."""
    return stamps.shape[1] - 1 - away(stamps[:, ::-1], wanted).argmin(-1)


def last_duplicate(stamps: Array, wanted: Array) -> Array:
    """Return the nearest, the last of equal stamps, and of two that are equally far the earlier."""
    return before(stamps, np.take_along_axis(stamps, first_nearest(stamps, wanted), 1))


def before(stamps: Array, wanted: Array) -> Array:
    """Return the last stamp that is not after the time, or -1."""
    return (stamps[:, None, :] <= wanted[:, :, None]).sum(-1) - 1


def from_insertion(stamps: Array, wanted: Array) -> Array:
    """Return the first stamp that is not before the time, or S."""
    return (stamps[:, None, :] < wanted[:, :, None]).sum(-1)


def bisected(steps: int) -> Callable[[Array, Array], Array]:
    """Return the choice by `steps` steps of bisection, and then the nearer of two neighbours, the first of equal ones."""

    def formula(stamps: Array, wanted: Array) -> Array:
        low, high = (np.zeros(wanted.shape, np.int64), np.full(wanted.shape, stamps.shape[1]))  # (B, T)
        for _ in range(steps):
            middle = (low + high) // 2
            earlier = np.take_along_axis(stamps, np.minimum(middle, stamps.shape[1] - 1), 1) < wanted
            searching = low < high
            low, high = (np.where(searching & earlier, middle + 1, low), np.where(searching & ~earlier, middle, high))
        near = np.clip(low[..., None] + np.arange(-1, 1), 0, stamps.shape[1] - 1)  # (B, T, 2)
        apart = np.abs(np.take_along_axis(stamps[:, None, :], near, 2) - wanted[..., None])
        found = np.take_along_axis(near, apart.argmin(-1)[..., None], 2)[..., 0]
        return from_insertion(stamps, np.take_along_axis(stamps, found, 1))

    return formula


def by_rate(stamps: Array, wanted: Array) -> Array:
    """Return the nearest if the samples came at an even rate from the first stamp to the last."""
    span = stamps[:, -1:] - stamps[:, :1]
    return np.ceil((wanted - stamps[:, :1]) * (stamps.shape[1] - 1) / np.where(span > 0, span, 1) - 0.5)


def interpolated(plain: Any) -> None:
    """Return the line between the two samples around the time instead of one of them."""
    right = plain.delayed

    def delayed(x: Array, stamps: Array, now: Array, jitter: Array, latency: float) -> dict[str, Array]:
        found = right(x, stamps, now, jitter, latency)
        output, seen = (plain.wide(found["output"]).copy(), plain.seen(now, latency, jitter))
        for b, c in np.ndindex(x.shape[0], x.shape[2]):
            output[b, :, c] = np.interp(seen[b], stamps[b], plain.wide(x)[b, :, c])
        return {"sample": found["sample"], "output": plain.to_storage(output, x)}

    plain.delayed = delayed


def first_row(rows: Array) -> Array:
    """Return the first row for every row."""
    return np.broadcast_to(rows[:1], rows.shape)


# --- both ------------------------------------------------------------------------------------------------------------


def misread(x: Array) -> Array:
    """Return what the bits of the float16 numbers `x` mean as bfloat16, in the format of `x`."""
    bits = x.astype(np.float16).view(np.uint16).astype(np.uint32) << np.uint32(16)
    return bits.view(np.float32).astype(x.dtype)


def on_input(formula: Callable[[Array], Array]) -> Change:
    """Return a change to x wherever it is read."""
    return wrap(
        added=lambda right: lambda x, encoding: right(formula(x), encoding),
        taken=lambda right: lambda x, sample: right(formula(x), sample),
    )


def truncated_sum(plain: Any) -> None:
    """Cut the sum to bfloat16 before it is rounded to the format of x."""
    plain.added = lambda x, encoding: plain.to_storage(truncated(plain.wide(x) + encoding), x)


def accepts(*names: str, **others: Callable[[Any], Any]) -> Change:
    """Return a change that leaves out the named checks, and replaces what `others` names so that an answer comes."""
    return wrap(**{name: lambda _: lambda *_: None for name in names}, **others)


def filled(stamps: Array) -> Array:
    """Return stamps with the one before in place of what is not finite."""
    kept = np.where(np.isfinite(stamps), np.arange(stamps.shape[1]), 0)
    return np.take_along_axis(stamps, np.maximum.accumulate(kept, axis=-1), 1)


def as_if(x: Array, stamps: Array) -> Array:
    """Return the stamps that a kernel reads which trusts that there are as many as samples: from the first on again."""
    return np.sort(np.resize(stamps, x.shape[:2])) if stamps.size else stamps


FAULTS = (
    # --- frequencies
    Fault("frequency_of_index", FREQUENCY, "base^(-i/D): the factor 2 is missing", frequency(lambda i, D, base: base ** (-i / D))),
    Fault("frequency_last_included", FREQUENCY, "base^(-i/(D/2 - 1)), as tensor2tensor has it",
          frequency(lambda i, D, base: base ** (-i / max(D / 2 - 1, 1)))),
    Fault("frequency_inverted", FREQUENCY, "multiplied by base^(2i/D) instead of divided", frequency(lambda i, D, base: base ** (2 * i / D))),
    Fault("base_tenth", FREQUENCY, "base 1000 instead of 10000", frequency(lambda i, D, base: (base / 10) ** (-2 * i / D))),
    Fault("base_10000_always", FREQUENCY, "base 10000 whatever the parameter says", frequency(lambda i, D, base: 1e4 ** (-2 * i / D))),
    Fault("logarithm_decimal", FREQUENCY, "exp of the decimal logarithm of the base", frequency(lambda i, D, base: np.exp(-2 * i / D * np.log10(base)))),
    Fault("width_rounded_up", FREQUENCY, "an odd width rounded up to whole pairs in the exponent",
          frequency(lambda i, D, base: base ** (-2 * i / (D + D % 2)))),
    Fault("frequency_halves", FREQUENCY, "frequencies halve from pair to pair", frequency(lambda i, D, base: 0.5**i)),
    Fault("frequency_in_float16", FREQUENCY, "frequencies rounded to float16", frequency(lambda i, D, base: coarse(base ** (-2 * i / D), "float16"))),
    Fault("frequency_in_bfloat16", FREQUENCY, "frequencies rounded to bfloat16", frequency(lambda i, D, base: coarse(base ** (-2 * i / D), "bfloat16"))),
    # --- positions
    Fault("positions_from_1", ENCODING, "positions count from 1", positions(lambda p: p + 1)),
    Fault("positions_one_early", ENCODING, "each position is taken for the one before", positions(lambda p: np.maximum(p - 1, 0))),
    Fault("positions_ignored", ENCODING, "the place in the row instead of the position", positions(lambda p: np.broadcast_to(np.arange(p.shape[1]), p.shape))),
    Fault("positions_of_first_row", ENCODING, "the first row's positions for every row", positions(first_row)),  # M14
    Fault("positions_from_row_start", ENCODING, "positions counted from the first of their row", positions(lambda p: np.abs(p - p[:, :1]))),
    Fault("positions_in_float16", ENCODING, "positions rounded to float16", positions(lambda p: np.minimum(p, 65504).astype(np.float16).astype(np.float64))),
    Fault("positions_in_bfloat16", ENCODING, "positions rounded to bfloat16", positions(lambda p: coarse(p.astype(np.float64), "bfloat16"))),
    Fault("positions_in_uint8", ENCODING, "positions modulo 256", positions(lambda p: p % 256)),
    Fault("table_of_512", ENCODING, "positions beyond a table of 512 take its last row", positions(lambda p: np.minimum(p, 511))),  # M5
    Fault("table_of_1000", ENCODING, "positions beyond a table of 1000 take its last row", positions(lambda p: np.minimum(p, 999))),
    Fault("table_of_5000", ENCODING, "positions beyond a table of 5000 take its last row", positions(lambda p: np.minimum(p, 4999))),
    Fault("table_wraps", ENCODING, "positions beyond a table of 5000 begin again", positions(lambda p: p % 5000)),
    # --- angles, sines and cosines
    Fault("angle_in_float16", ENCODING, "angles computed in float16", angle(lambda a: coarse(np.minimum(a, 65504), "float16"))),
    Fault("angle_in_bfloat16", ENCODING, "angles computed in bfloat16", angle(lambda a: coarse(a, "bfloat16"))),
    Fault("angle_degrees", ENCODING, "sine and cosine of degrees", angle(np.deg2rad)),
    Fault("turn_of_six_digits", ENCODING, "whole turns taken off with pi = 3.14159", angle(shortened_turn)),  # fast-math
    Fault("frequency_of_column", ENCODING, "each column has its own frequency: sine and cosine do not share it", own_frequencies),
    Fault("sine_cosine_swapped", ENCODING, "cosine first", pairs(lambda s, c, D: interleaved(c, s, D))),
    Fault("halves", ENCODING, "all sines, then all cosines", pairs(lambda s, c, D: np.concatenate([s, c], -1)[..., :D])),
    Fault("sine_alone", ENCODING, "a sine where the cosine belongs", pairs(lambda s, c, D: interleaved(s, s, D))),
    Fault("cosine_negated", ENCODING, "the cosine has the wrong sign", pairs(lambda s, c, D: interleaved(s, -c, D))),
    Fault("odd_column_missing", ENCODING, "the last column of an odd width is 0", pairs(odd_column_missing)),
    # --- the sum
    Fault("encoding_not_added", OUTPUT, "x without the encoding", output(lambda x, e: x)),
    Fault("encoding_alone", OUTPUT, "the encoding without x", output(lambda x, e: e)),
    Fault("encoding_subtracted", OUTPUT, "the encoding is subtracted", output(lambda x, e: x - e)),
    Fault("encoding_twice", OUTPUT, "the encoding is added twice", output(lambda x, e: x + 2 * e)),
    Fault("encoding_of_first_row", OUTPUT, "the first row's encoding for every row", output(lambda x, e: x + first_row(e))),
    Fault("x_scaled", OUTPUT, "x times the root of its width, as embeddings are", output(lambda x, e: x * x.dtype.type(x.shape[-1] ** 0.5) + e)),
    Fault("encoding_scaled", OUTPUT, "the encoding over the root of its width", output(lambda x, e: x + e / e.dtype.type(e.shape[-1] ** 0.5))),
    Fault("encoding_in_bfloat16", OUTPUT, "the encoding rounded to bfloat16 before it is added", output(lambda x, e: x + coarse(e, "bfloat16"))),  # M28
    Fault("sum_truncated", OUTPUT, "the sum cut to bfloat16 instead of rounded", truncated_sum),  # M29
    # --- both modes
    Fault("read_as_bfloat16", OUTPUT, "the bits of float16 numbers read as bfloat16", on_input(misread)),  # M27
    # --- the time that is seen
    Fault("latency_ignored", SAMPLE, "the sample at now, without latency", wanted(lambda now, latency, jitter: now - jitter)),
    Fault("latency_added", SAMPLE, "the latency looks into the future", wanted(lambda now, latency, jitter: now + latency + jitter)),
    Fault("latency_twice", SAMPLE, "there and back: twice the latency", wanted(lambda now, latency, jitter: now - 2 * latency - jitter)),
    Fault("latency_in_milliseconds", SAMPLE, "the delay taken for milliseconds", wanted(lambda now, latency, jitter: now - (latency + jitter) / 1000)),
    Fault("jitter_ignored", SAMPLE, "without jitter", wanted(lambda now, latency, jitter: now - latency)),
    Fault("jitter_sign", SAMPLE, "the jitter has the wrong sign", wanted(lambda now, latency, jitter: now - latency + jitter)),
    Fault("jitter_of_first_query", SAMPLE, "one jitter for all queries of a row", wanted(lambda now, latency, jitter: now - latency - jitter[:, :1])),
    Fault("times_in_float32", SAMPLE, "times rounded to float32 before they are subtracted",  # M13
          wrap(nearest=lambda right: lambda stamps, wanted: right(stamps.astype(np.float32), wanted.astype(np.float32)))),
    # --- the choice of the sample
    Fault("tie_to_last", SAMPLE, "the last of equally far stamps", sample(last_nearest)),  # M9
    Fault("duplicate_last", SAMPLE, "the last of equal stamps", sample(last_duplicate)),  # M9
    Fault("sample_before", SAMPLE, "the last stamp not after the time, instead of the nearest", sample(before)),
    Fault("sample_after", SAMPLE, "the first stamp not before the time, instead of the nearest", sample(from_insertion)),
    Fault("sample_newest", SAMPLE, "the newest sample, whatever the time", sample(lambda stamps, wanted: np.full(wanted.shape, stamps.shape[1]))),
    Fault("sample_off_by_one", SAMPLE, "the sample after the nearest", sample(lambda stamps, wanted: first_nearest(stamps, wanted) + 1)),
    Fault("sample_wraps", SAMPLE, "before the first stamp the last", sample(
        lambda stamps, wanted: np.where(before(stamps, wanted) < 0, stamps.shape[1] - 1, first_nearest(stamps, wanted)))),
    Fault("samples_of_512", SAMPLE, "only the first 512 stamps are looked at", sample(lambda stamps, wanted: first_nearest(stamps[:, :512], wanted))),  # M5
    Fault("bisection_of_10", SAMPLE, "ten steps of bisection, whatever the number of samples", sample(bisected(10))),  # M6
    Fault("index_by_rate", SAMPLE, "as if samples came at an even rate", sample(by_rate)),  # M7
    Fault("stamps_of_first_row", SAMPLE, "the first row's stamps for every row",  # M14
          sample(lambda stamps, wanted: first_nearest(first_row(stamps), wanted))),
    Fault("interpolated", OUTPUT, "the line between two samples instead of one of them", interpolated),
    Fault("samples_of_first_row", OUTPUT, "the first row's samples for every row", wrap(taken=lambda right: lambda x, sample: right(first_row(x), sample))),
    # --- what must be refused
    Fault("negative_accepted", REFUSED, "negative positions are encoded", accepts("check_positions")),
    Fault("base_accepted", REFUSED, "a base that is not above 0 is used", accepts("check_base")),
    Fault("mode_accepted", REFUSED, "an unknown mode is taken for one of the two", accepts(
        "check_mode", temporal_encoding=lambda right: lambda x, **given: right(
            x, **given | {"mode": "sinusoidal" if "positions" in given else "delayed"}))),
    Fault("rank_accepted", REFUSED, "an axis is added to x of two axes", accepts(
        temporal_encoding=lambda right: lambda x, **given: right(
            x if x.ndim == 3 else x[None] if "positions" in given else x[..., None], **given))),
    Fault("positions_broadcast", REFUSED, "positions of other rows or tokens are read as if they were of these", accepts(
        sinusoidal=lambda right: lambda x, positions, base: right(x, np.resize(positions, x.shape[:2]), base))),
    Fault("unsorted_accepted", REFUSED, "stamps that decrease are searched", accepts(
        check_stamps=lambda right: lambda stamps: right(np.sort(stamps, axis=-1)))),
    Fault("stamp_nan_accepted", REFUSED, "stamps that are not finite are searched", accepts(
        check_stamps=lambda right: lambda stamps: right(filled(stamps)))),
    Fault("query_nan_accepted", REFUSED, "a sample for a query that is not finite", accepts(
        "check_times", check_delay=lambda right: lambda delay: right(np.nan_to_num(delay)))),
    Fault("future_accepted", REFUSED, "a negative delay is looked up", accepts(
        check_delay=lambda right: lambda delay: right(np.abs(delay)))),
    Fault("no_samples_accepted", REFUSED, "zeros where there is no sample", accepts(
        delayed=lambda right: lambda x, stamps, now, jitter, latency: right(x, stamps, now, jitter, latency) if stamps.shape[1] else {
            "sample": np.zeros(now.shape, np.int64), "output": np.zeros((*now.shape, x.shape[2]), x.dtype)})),
    Fault("stamps_broadcast", REFUSED, "stamps of other rows or samples are read as if they were of these", accepts(
        delayed=lambda right: lambda x, stamps, *times: right(
            x, stamps if stamps.shape == x.shape[:2] else as_if(x, stamps), *times))),
    Fault("queries_cut", REFUSED, "queries and jitter are cut to what all have, as zip does", accepts(
        delayed=lambda right: lambda x, stamps, now, jitter, latency: right(x, stamps, *(
            times[: x.shape[0], : min(now.shape[1], jitter.shape[1])] for times in (now, jitter)), latency))),
)  # fmt: skip
