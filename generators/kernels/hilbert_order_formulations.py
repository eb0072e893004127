"""Correct ways to order points along a Hilbert curve that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]


def in_input_format(x: Array, bits: int) -> Array:
    """Return the cells computed in the format of the points, by one multiplication with a scale, (N, D)."""
    if len(x) == 0:
        return np.zeros(x.shape, np.int64)
    low = x.min(0)  # (D,)
    scale = x.dtype.type(2**bits - 1) / np.maximum(x.max(0) - low, x.dtype.type(1e-9))  # (D,)
    return np.round((x - low) * scale).astype(np.int32)


def signed_axes(plain: Any) -> None:
    """Exchange axes instead of bits, and decode the Gray code at the end."""

    def interleaved(cells: Array, bits: int) -> Array:
        N, D = cells.shape
        rows = np.arange(N)
        axes = np.tile(np.arange(D), (N, 1))  # (N, D)
        flips = np.zeros((N, D), np.int64)
        gray = np.zeros(N, np.uint64)
        for bit in range(bits - 1, -1, -1):
            digits = cells[rows[:, None], axes] >> bit & 1 ^ flips  # (N, D)
            for i in range(D):
                gray = gray << np.uint64(1) | digits[:, i].astype(np.uint64)
                zero = digits[:, i] == 0  # (N,)
                flips[:, 0] ^= ~zero
                for state in (axes, flips):
                    first, other = state[:, 0].copy(), state[:, i].copy()
                    state[:, 0] = np.where(zero, other, first)
                    state[:, i] = np.where(zero, first, other) if i else state[:, 0]
        return prefix_parity(gray)

    plain.transposed = lambda cells, _: cells
    plain.interleaved = interleaved


def prefix_parity(keys: Array) -> Array:
    """Decode 64 bits of a Gray code by six shifts, (N,)."""
    for shift in (1, 2, 4, 8, 16, 32):
        keys = keys ^ keys >> np.uint64(shift)
    return keys


def decoded_at_end(plain: Any) -> None:
    """Interleave the Gray code first and decode it as one number."""
    right = plain.interleaved
    plain.decoded = lambda x, _: x
    plain.interleaved = lambda x, bits: prefix_parity(right(x, bits))


def by_words(keys: Array) -> Array:
    """Sort by the lower word, then by the upper, (N,)."""
    return np.lexsort((keys & np.uint64(2**32 - 1), keys >> np.uint64(32)))


def by_python(keys: Array) -> Array:
    """Sort pairs of key and index, (N,)."""
    return np.array([i for _, i in sorted(zip(keys.tolist(), range(len(keys)), strict=True))], np.int32)


def by_torch(keys: Array) -> Array:
    """Sort signed integers with the highest bit inverted, as torch has no unsigned sort, (N,)."""
    signed = torch.from_numpy((keys ^ np.uint64(2**63)).view(np.int64))
    return torch.sort(signed, stable=True).indices.numpy()


def in_torch(plain: Any) -> None:
    """Turn axes on int64 tensors, (N, D)."""

    def transposed(cells: Array, bits: int) -> Array:
        x = list(torch.from_numpy(cells.astype(np.int64)).unbind(1))  # D of (N,)
        for bit in range(bits - 1, 0, -1):
            lower = (1 << bit) - 1
            for i in range(len(x)):
                is_set = (x[i] >> bit & 1) == 1  # (N,)
                exchanged = torch.where(is_set, 0, (x[0] ^ x[i]) & lower)  # (N,)
                if i:
                    x[i] = x[i] ^ exchanged
                x[0] = torch.where(is_set, x[0] ^ lower, x[0] ^ exchanged)
        wide = np.stack([column.numpy() for column in x]).astype(np.uint64)  # (D, N)
        return plain.decoded(wide, bits).T

    plain.transposed = transposed


def small_words(plain: Any) -> None:
    """Return cells in 16 bits and words in 32, unsigned, without loss."""
    right = plain.hilbert_order

    def hilbert_order(points: Array) -> dict[str, Array]:
        found = right(points)
        return found | {"cells": found["cells"].astype(np.uint16), "keys": found["keys"].astype(np.uint32)}

    plain.hilbert_order = hilbert_order


FORMULATIONS = (
    Formulation("as_given", "quantised in the format given, by a scale", wrap(quantised=lambda _: in_input_format)),
    Formulation("signed_axes", "axes change places instead of bits; Gray code decoded at the end", signed_axes),
    Formulation("decoded_at_end", "interleaved as a Gray code, decoded by shifts", decoded_at_end),
    Formulation("torch_bits", "the curve on int64 tensors", in_torch),
    Formulation("sorted_by_words", "numpy.lexsort of the two words", wrap(sorted_by=lambda _: by_words)),
    Formulation("sorted_in_python", "sorted pairs of key and index", wrap(sorted_by=lambda _: by_python)),
    Formulation("sorted_in_torch", "stable torch.sort of signed keys", wrap(sorted_by=lambda _: by_torch)),
    Formulation("small_integers", "unsigned integers of 16 and 32 bits", small_words),
)  # fmt: skip
