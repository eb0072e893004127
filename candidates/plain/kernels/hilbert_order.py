"""Order along a Hilbert curve in plain NumPy: the definition, to read and to copy.

Skilling, "Programming the Hilbert curve" (2004), in its own form: cells to the transposed key, bit by bit, in place. It
is quantised in float64. N points, D axes, b bits.
"""

import numpy as np


def hilbert_order(points):
    """Return cells (N, D), keys (N, 2) and order (N,) of `points` (N, D)."""
    check(points)
    bits = bits_of(points.shape[1])
    cells = quantised(points, bits)  # (N, D)
    keys = interleaved(transposed(cells, bits), bits)  # (N,)
    return {"cells": cells, "keys": words(keys), "order": sorted_by(keys)}


def check(points):
    """Raise ValueError for points that must be refused."""
    if points.ndim != 2:
        raise ValueError(f"points must be of shape (N, D), got rank {points.ndim}")
    if not 1 <= points.shape[1] <= 64:
        raise ValueError(f"points must have 1 to 64 axes, got {points.shape[1]}")
    if not np.isfinite(points).all():
        raise ValueError("points must be finite")


def bits_of(D):
    """Return the number of bits of a cell on each of `D` axes."""
    return min(16, 64 // D)


def quantised(points, bits):
    """Return the cells, integers from 0 to 2^bits - 1, (N, D)."""
    if len(points) == 0:
        return np.zeros(points.shape, np.int64)
    x = points.astype(np.float64)  # (N, D)
    low, span = bounds(x)  # (D,), (D,)
    return rounded((x - low) / span * levels(bits)).astype(np.int64)  # (N, D)


def bounds(x):
    """Return the smallest coordinate and the span of each axis, (D,) and (D,)."""
    return x.min(0), np.maximum(x.max(0) - x.min(0), 1e-9)


def levels(bits):
    """Return the number of the last cell."""
    return 2**bits - 1


def rounded(x):
    """Round to the nearest integer, halves to even."""
    return np.rint(x)


def transposed(cells, bits):
    """Return the key with its bits dealt out to the axes, (N, D), uint64: every D-th bit of it on each."""
    x = cells.astype(np.uint64).T.copy()  # (D, N)
    D = len(x)
    for bit in range(bits - 1, 0, -1):
        lower = np.uint64(2**bit - 1)
        for i in range(D):
            is_set = (x[i] >> np.uint64(bit) & np.uint64(1)).astype(bool)  # (N,)
            exchanged = np.where(is_set, 0, (x[0] ^ x[i]) & lower)  # (N,)
            x[0] ^= np.where(is_set, lower, exchanged)
            if i:
                x[i] ^= exchanged
    return decoded(x, bits).T


def decoded(x, bits):
    """Return the binary number of the Gray code dealt out to `x`, (D, N), dealt out likewise."""
    for i in range(1, len(x)):
        x[i] ^= x[i - 1]
    carry = np.zeros_like(x[0])  # (N,): what the last axis hands on to the lower bits of all
    for bit in range(bits - 1, 0, -1):
        carry ^= np.where(x[-1] >> np.uint64(bit) & np.uint64(1), np.uint64(2**bit - 1), np.uint64(0))
    return x ^ carry


def interleaved(x, bits):
    """Return the number whose bits are dealt out to the axes of `x` (N, D), the first the most significant, (N,)."""
    keys = np.zeros(len(x), np.uint64)
    for bit in range(bits - 1, -1, -1):
        for i in range(x.shape[1]):
            keys = keys << np.uint64(1) | (x[:, i] >> np.uint64(bit) & np.uint64(1))
    return keys


def words(keys):
    """Return the upper and the lower 32 bits of each key, (N, 2)."""
    return np.stack([keys >> np.uint64(32), keys & np.uint64(2**32 - 1)], axis=1).astype(np.int64)


def sorted_by(keys):
    """Return the indices of the points by ascending key, equal keys by ascending index, (N,)."""
    return np.argsort(keys, kind="stable")
