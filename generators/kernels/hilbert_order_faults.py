"""Mistakes that people make in ordering points along a Hilbert curve, planted in the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
CELLS, KEYS, ORDER, REFUSED = ("cells",), ("keys",), ("order",), ("refused",)
ONE = np.uint64(1)

accepts = beside(__file__, "_refusals").accepts


def bits(formula: Callable[[int], int]) -> Change:
    """Return a change to the number of bits on each of D axes."""
    return wrap(bits_of=lambda _: formula)


def bounded(formula: Callable[[Array], tuple[Array, Array]]) -> Change:
    """Return a change to `bounds`: `formula(x)` gives low and span of `x` (N, D)."""
    return wrap(bounds=lambda _: formula)


def spans(x: Array) -> Array:
    """Return the largest less the smallest coordinate of each axis, (D,)."""
    return x.max(0) - x.min(0)


def quantised(formula: Callable[[Callable[[Array, int], Array], Array, int], Array]) -> Change:
    """Return a change to the cells: `formula(right, points, bits)`."""
    return wrap(quantised=lambda right: lambda points, bits: formula(right, points, bits))


def through(dtype: str) -> Change:
    """Return a change that holds the points in `dtype` before they are quantised."""
    return quantised(lambda right, points, bits: right(points.astype(dtype), bits))


def cells_to_keys(formula: Callable[[Callable[[Array, int], Array], Array, int], Array]) -> Change:
    """Return a change to the curve: `formula(right, cells, bits)` gives the dealt-out keys, (N, D)."""
    return wrap(transposed=lambda right: lambda cells, bits: formula(right, cells, bits).astype(np.uint64))


def keys(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the finished keys (N,)."""
    return wrap(interleaved=lambda right: lambda x, bits: formula(right(x, bits)).astype(np.uint64))


def order(formula: Callable[[Callable[[Array], Array], Array], Array]) -> Change:
    """Return a change to the order: `formula(right, keys)`."""
    return wrap(sorted_by=lambda right: lambda keys: formula(right, keys))


def skilling(
    *, lower: int = 0, top: int = 1, inverts: bool = True, exchanges: bool = True, opposite: bool = False, step: int = 1
) -> Change:
    """Return a change to Skilling's loops: each argument takes one of their parts away or turns it round."""

    def change(plain: Any) -> None:
        def transposed(cells: Array, bits: int) -> Array:
            x = cells.astype(np.uint64).T.copy()  # (D, N)
            for bit in range(bits - top, 0, -1):
                mask = np.uint64(2 ** (bit + lower) - 1)
                for i in range(len(x))[::step]:
                    is_set = (x[i] >> np.uint64(bit) & ONE).astype(bool) ^ opposite  # (N,)
                    exchanged = np.where(is_set | (not exchanges), 0, (x[0] ^ x[i]) & mask)  # (N,)
                    x[0] ^= exchanged ^ np.where(is_set & inverts, mask, 0).astype(np.uint64)
                    x[i] ^= exchanged if i else np.uint64(0)
            return plain.decoded(x, bits).T

        plain.transposed = transposed

    return change


def without_carry(x: Array, bits: int) -> Array:  # noqa: ARG001
    """Decode the Gray code within each level only."""
    return np.bitwise_xor.accumulate(x, axis=0)


def gray_of_morton(plain: Any) -> None:
    """Decode the interleaved cells as a Gray code, without turning the axes."""
    plain.transposed = lambda cells, bits: plain.decoded(cells.astype(np.uint64).T.copy(), bits).T


def inverse_curve(cells: Array, bits: int) -> Array:
    """Take the cells for a dealt-out key and return the cell there, (N, D)."""
    x = cells.astype(np.uint64).T.copy()  # (D, N)
    first = x[-1] >> ONE  # (N,)
    for i in range(len(x) - 1, 0, -1):
        x[i] ^= x[i - 1]
    x[0] ^= first
    for bit in range(1, bits):
        lower = np.uint64(2**bit - 1)
        for i in range(len(x) - 1, -1, -1):
            is_set = (x[i] >> np.uint64(bit) & ONE).astype(bool)  # (N,)
            exchanged = np.where(is_set, 0, (x[0] ^ x[i]) & lower)  # (N,)
            x[0] ^= np.where(is_set, lower, exchanged)
            x[i] ^= exchanged if i else np.uint64(0)
    return x.T


def of_16_bits(right: Callable[[Array, int], Array], cells: Array, bits: int) -> Array:
    """Walk down 16 levels whatever the cells' bits, and keep the lowest."""
    return right(cells, 16) & np.uint64(2**bits - 1)


def hamilton(plain: Any) -> None:
    """Order along the curve of Hamilton and Rau-Chaplin (2008), in which entry and direction turn."""

    def key_of(cell: list[int], bits: int) -> int:
        D, entry, direction, key = len(cell), 0, 0, 0
        ones = (1 << D) - 1

        def turned(value: int, by: int) -> int:
            by %= D
            return (value >> by | value << (D - by)) & ones

        for bit in range(bits - 1, -1, -1):
            corner = turned(sum((c >> bit & 1) << i for i, c in enumerate(cell)) ^ entry, direction + 1)
            place = 0
            while corner:
                place, corner = place ^ corner, corner >> 1
            key = key << D | place
            gray = 2 * ((place - 1) // 2) if place else 0
            entry ^= turned(gray ^ gray >> 1, -direction - 1)
            ones_at_end = place if place % 2 else max(place - 1, 0)  # whose trailing ones say where the curve leaves
            direction = (
                direction + 1 + ((ones_at_end + 1 & -ones_at_end - 1).bit_length() - 1 if place else 0) % D
            ) % D
        return key

    plain.transposed = lambda cells, bits: cells
    plain.interleaved = lambda cells, bits: np.array([key_of(cell, bits) for cell in cells.tolist()], np.uint64)


def concatenated(x: Array, bits: int) -> Array:
    """Write the bits of one axis after those of another, (N,)."""
    found = np.zeros(len(x), np.uint64)
    for column in x.T:
        found = found << np.uint64(bits) | column
    return found


def from_last(keys: Array) -> Array:
    """Sort with equal keys in descending index, (N,)."""
    return np.lexsort((-np.arange(len(keys)), keys))


def any_rank(plain: Any) -> None:
    """Take points of another rank for (N, the rest)."""
    right = plain.hilbert_order
    plain.hilbert_order = lambda points: right(points if points.ndim == 2 else points.reshape(len(points), -1))


def axes_not_counted(plain: Any) -> None:
    """Give at least one bit to each axis, however many there are."""
    accepts("1 to 64 axes", check="check")(plain)
    plain.bits_of = lambda D: max(1, min(16, 64 // max(D, 1)))


FAULTS = (
    # --- cells
    Fault("bits_always_16", CELLS, "16 bits an axis whatever the number of axes", bits(lambda D: 16)),
    Fault("bits_always_10", CELLS, "10 bits an axis whatever the number of axes", bits(lambda D: 10)),
    Fault("bits_not_limited_to_16", CELLS, "up to 32 bits an axis", bits(lambda D: max(1, min(32, 64 // D)))),
    Fault("bits_of_63", CELLS, "63 // D bits instead of 64 // D: a signed key", bits(lambda D: max(1, min(16, 63 // D)))),
    Fault("bits_of_32", CELLS, "32 // D bits instead of 64 // D: a key of 32 bits", bits(lambda D: max(1, min(16, 32 // D)))),
    Fault("levels_2^b", CELLS, "2^b instead of 2^b - 1, the last clipped",
          quantised(lambda right, x, b: right(x, b) if not len(x) else
                    np.minimum(np.rint((x - x.min(0)) / np.maximum(spans(x.astype(float)), 1e-9) * 2.0**b), 2**b - 1).astype(int))),
    Fault("cells_truncated", CELLS, "rounded down instead of to the nearest", wrap(rounded=lambda _: np.floor)),
    Fault("cells_rounded_up", CELLS, "rounded up instead of to the nearest", wrap(rounded=lambda _: np.ceil)),
    Fault("cells_half_up", CELLS, "halves rounded up instead of to even", wrap(rounded=lambda _: lambda x: np.floor(x + 0.5))),
    Fault("cells_half_down", CELLS, "halves rounded down instead of to even", wrap(rounded=lambda _: lambda x: np.ceil(x - 0.5))),
    Fault("span_of_all_axes", CELLS, "the largest span for every axis", bounded(lambda x: (x.min(0), np.maximum(spans(x).max(), 1e-9)))),
    Fault("bounds_of_all_axes", CELLS, "one smallest and one largest coordinate for all axes",
          bounded(lambda x: (x.min(), np.maximum(np.ptp(x), 1e-9)))),
    Fault("bounds_along_points", CELLS, "smallest and largest coordinate of each point instead of each axis",
          bounded(lambda x: (x.min(1, keepdims=True), np.maximum(np.ptp(x, axis=1, keepdims=True), 1e-9)))),
    Fault("bounds_with_origin", CELLS, "smallest and largest coordinate looked for from 0 on",
          bounded(lambda x: (np.minimum(x.min(0), 0), np.maximum(np.maximum(x.max(0), 0) - np.minimum(x.min(0), 0), 1e-9)))),
    Fault("low_not_subtracted", CELLS, "x / span without the smallest coordinate", bounded(lambda x: (0 * x[0], np.maximum(spans(x), 1e-9)))),
    Fault("span_floor_missing", CELLS, "an axis of one value is divided by 0", bounded(lambda x: (x.min(0), spans(x)))),
    Fault("span_floor_added", CELLS, "1e-9 added to the span instead of a lower limit to it", bounded(lambda x: (x.min(0), spans(x) + 1e-9))),
    Fault("span_floor_1e-6", CELLS, "1e-6 instead of 1e-9 as the least span", bounded(lambda x: (x.min(0), np.maximum(spans(x), 1e-6)))),
    Fault("span_floor_only_at_0", CELLS, "1 for a span of 0, and no lower limit to others",
          bounded(lambda x: (x.min(0), np.where(spans(x) == 0, 1, spans(x))))),
    Fault("quantised_in_float32", CELLS, "float64 points held in float32", through("float32")),
    Fault("quantised_in_float16", CELLS, "points held in float16", through("float16")),
    # --- keys
    Fault("morton", KEYS, "bits interleaved without a curve: Z order", cells_to_keys(lambda right, cells, b: cells)),
    Fault("gray_of_morton", KEYS, "Gray code of the interleaved bits without turning the axes", gray_of_morton),
    Fault("hamilton_curve", KEYS, "Hamilton's curve, another from three axes on", hamilton),
    Fault("inverse_curve", KEYS, "the curve's inverse: from key to cell", cells_to_keys(lambda right, cells, b: inverse_curve(cells, b))),
    Fault("curve_of_16_bits", KEYS, "a curve of 16 levels for cells of fewer bits", cells_to_keys(of_16_bits)),
    Fault("axes_reversed", KEYS, "the last axis the most significant", cells_to_keys(lambda right, cells, b: right(cells[:, ::-1], b))),
    Fault("axes_reversed_in_key", KEYS, "bits of the last axis written first",
          wrap(interleaved=lambda right: lambda x, b: right(x[:, ::-1], b))),
    Fault("bits_concatenated", KEYS, "all bits of one axis after all of another instead of interleaved", wrap(interleaved=lambda _: concatenated)),
    Fault("gray_not_decoded", KEYS, "the Gray code taken for the key", wrap(decoded=lambda _: lambda x, b: x)),
    Fault("gray_carry_missing", KEYS, "the Gray code decoded within each level only", wrap(decoded=lambda _: without_carry)),
    Fault("inversion_missing", KEYS, "axes exchanged, never inverted", skilling(inverts=False)),
    Fault("exchange_missing", KEYS, "axes inverted, never exchanged", skilling(exchanges=False)),
    Fault("inversion_and_exchange_swapped", KEYS, "inverted where the bit is 0, exchanged where it is 1", skilling(opposite=True)),
    Fault("axes_turned_backwards", KEYS, "axes taken from the last to the first", skilling(step=-1)),
    Fault("top_bit_not_turned", KEYS, "the highest level turns nothing", skilling(top=2)),
    Fault("mask_one_bit_too_wide", KEYS, "the bit itself is inverted with the lower ones", skilling(lower=1)),
    Fault("keys_of_32_bits", KEYS, "keys cut to 32 bits", keys(lambda key: key & np.uint64(2**32 - 1))),
    Fault("keys_in_doubles", KEYS, "keys held in a double of 53 bits", keys(lambda key: np.minimum(key.astype(np.float64), 2.0**64 - 2048))),
    Fault("words_exchanged", KEYS, "the lower 32 bits before the upper", wrap(words=lambda right: lambda key: right(key)[:, ::-1])),
    # --- order
    Fault("order_is_rank", ORDER, "the place of each point instead of the point at each place (R20)",
          order(lambda right, key: np.argsort(right(key), kind="stable"))),
    Fault("order_in_node_numbers", ORDER, "places taken for points once more: node and dataset indices mixed up (R20)",
          order(lambda right, key: right(key)[right(key)])),
    Fault("order_natural", ORDER, "the points as they came", order(lambda right, key: np.arange(len(key)))),
    Fault("order_descending", ORDER, "descending keys", order(lambda right, key: right(~key))),
    Fault("order_from_last", ORDER, "ascending keys, read backwards", order(lambda right, key: right(key)[::-1])),
    Fault("ties_from_last", ORDER, "equal keys in descending index", order(lambda right, key: from_last(key))),
    Fault("ties_dropped", ORDER, "one point for each key, the others left out", order(lambda right, key: np.unique(key, return_index=True)[1])),
    Fault("order_of_signed_keys", ORDER, "keys of 64 bits compared as signed integers", order(lambda right, key: right(key.astype(np.int64)))),
    Fault("order_of_doubles", ORDER, "keys compared as doubles of 53 bits", order(lambda right, key: right(key.astype(np.float64)))),
    Fault("order_of_upper_words", ORDER, "the upper 32 bits compared only", order(lambda right, key: right(key >> np.uint64(32)))),
    Fault("order_of_lower_words", ORDER, "the lower 32 bits compared only", order(lambda right, key: right(key & np.uint64(2**32 - 1)))),
    # --- what must be refused
    Fault("nonfinite_accepted", REFUSED, "NaN and infinite points are given a place", accepts("finite", check="check")),
    Fault("rank_not_checked", REFUSED, "points of another rank reshaped to two axes", any_rank),
    Fault("axes_not_counted", REFUSED, "more axes than a key has bits", axes_not_counted),
)  # fmt: skip
