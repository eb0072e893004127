"""The reference of the suite `hilbert_order`: exact, in Python's integers and fractions.

Source: Skilling, "Programming the Hilbert curve" (AIP Conf. Proc. 707, 2004). Its loops move bits about; here the axes
change places instead, and the Gray code is decoded at the end. N points, D axes, b bits.
"""

import itertools
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat import Case
from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Arrays = Mapping[str, Any]


def hilbert_order(points: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the checkpoints."""
    N, D = points.shape
    cells = exact_cells(points.tolist(), D)  # N of D
    keys = [key_of(cell, bits_of(D)) for cell in cells]  # N
    return {
        "cells": torch.tensor(cells, dtype=torch.int64).reshape(N, D),
        "keys": torch.tensor([divmod(key, 2**32) for key in keys], dtype=torch.int64).reshape(N, 2),
        "order": torch.tensor(sorted(range(N), key=keys.__getitem__), dtype=torch.int64),
    }


def bits_of(D: int) -> int:
    """Return the number of bits of a cell on each of `D` axes."""
    return min(16, 64 // D)


def exact_cells(points: list[list[float]], D: int) -> list[list[int]]:
    """Return the cells of `points` (N of D) in exact arithmetic; `round` takes halves to even."""
    columns = []
    for axis in range(D):
        x = [Fraction(point[axis]) for point in points]  # N
        low = min(x, default=Fraction(0))
        span = max(max(x, default=low) - low, Fraction(1e-9))
        columns.append([round((value - low) / span * (2 ** bits_of(D) - 1)) for value in x])
    return [list(cell) for cell in zip(*columns, strict=True)]


def key_of(cell: list[int], bits: int) -> int:
    """Return the position of `cell` (D) on the curve: signed axes, level by level, then the Gray code decoded."""
    axes = [(axis, 0) for axis in range(len(cell))]  # which axis, and whether it runs backwards
    gray = 0
    for bit in range(bits - 1, -1, -1):
        digits = [cell[axis] >> bit & 1 ^ flip for axis, flip in axes]  # D
        for i, digit in enumerate(digits):
            gray = gray << 1 | digit
            if digit:
                axes[0] = (axes[0][0], axes[0][1] ^ 1)
            else:
                axes[0], axes[i] = axes[i], axes[0]
    key = 0
    while gray:  # key = gray ^ gray >> 1 ^ gray >> 2 …
        key, gray = key ^ gray, gray >> 1
    return key


# --- what must hold of the frozen numbers ----------------------------------------------------------------------------


def given_back(given: Arrays, golden: Arrays) -> tuple[Any, ...]:
    """Compare the cells that Skilling's inverse, TransposetoAxes, gives for the keys."""
    N, D = given["points"].shape
    cells = [cell_at(high * 2**32 + low, D, bits_of(D)) for high, low in golden["keys"].tolist()]
    return np.array(cells).reshape(N, D), golden["cells"]


def cell_at(key: int, D: int, bits: int) -> list[int]:
    """Return the cell (D) at `key` by Skilling's inverse."""
    x = [0] * D
    for place in range(D * bits):  # deal the key out to the axes
        x[place % D] = x[place % D] << 1 | key >> (D * bits - 1 - place) & 1
    last = x[-1] >> 1
    for i in range(D - 1, 0, -1):
        x[i] ^= x[i - 1]
    x[0] ^= last
    for bit in range(1, bits):
        lower = (1 << bit) - 1
        for i in range(D - 1, -1, -1):
            if x[i] >> bit & 1:
                x[0] ^= lower
            else:
                exchanged = (x[0] ^ x[i]) & lower
                x[0] ^= exchanged
                x[i] ^= exchanged
    return x


def sorted_by_numpy(given: Arrays, golden: Arrays) -> tuple[Any, ...]:  # noqa: ARG001
    """Compare the order of the upper and the lower words as NumPy sorts them."""
    return np.lexsort((golden["keys"][:, 1], golden["keys"][:, 0])), golden["order"]


def in_floats(given: Arrays, golden: Arrays) -> tuple[Any, ...]:
    """Compare the cells in floating arithmetic, in float64 and, where it holds the points, in float32."""
    double = given["points"]  # (N, D)
    formats = [double.astype(dtype) for dtype in ("float64", "float32")]
    found = [cells for points in formats if np.array_equal(points, double) for cells in rounded_cells(points)]
    return np.stack(found), golden["cells"]


def rounded_cells(points: Array) -> list[Array]:
    """Return the cells of `points` (N, D) in three orders of operations, each operation rounded."""
    one = points.dtype.type
    low, high = points.min(0, initial=np.inf), points.max(0, initial=-np.inf)  # (D,), (D,)
    span, top = np.maximum(high - low, one(1e-9)), one(2 ** bits_of(points.shape[1]) - 1)  # (D,), ()
    x = points - low  # (N, D)
    return [np.rint(cells) for cells in (x / span * top, x * (top / span), x * top / span)]


GRIDS = {1: 5, 2: 4, 3: 3, 4: 2, 5: 2}  # axes: bits


@cache
def walk(D: int, bits: int) -> Array:
    """Return the cells of a whole grid along the curve, (2^(D bits), D)."""
    grid = itertools.product(range(2**bits), repeat=D)
    return np.array(sorted(grid, key=lambda cell: key_of(list(cell), bits)))


def steps(given: Arrays, golden: Arrays) -> tuple[Any, ...] | None:  # noqa: ARG001
    """Compare the length of each step through a whole grid of as many axes with 1."""
    D = given["points"].shape[1]
    return (np.abs(np.diff(walk(D, GRIDS[D]), axis=0)).sum(1), 1) if D in GRIDS else None


def on_two_axes(given: Arrays, golden: Arrays) -> tuple[Any, ...] | None:  # noqa: ARG001
    """Compare the curve on two axes with Hilbert's recursion."""
    return (walk(2, 4), np.array(hilbert(4))) if given["points"].shape[1] == 2 else None


def hilbert(bits: int) -> list[tuple[int, int]]:
    """Return the cells of Hilbert's curve from (0, 0) to (2^bits - 1, 0), by its recursion."""
    if bits == 0:
        return [(0, 0)]
    half, quarter = 2 ** (bits - 1), hilbert(bits - 1)
    return [
        *((y, x) for x, y in quarter),
        *((x, y + half) for x, y in quarter),
        *((x + half, y + half) for x, y in quarter),
        *((2 * half - 1 - y, half - 1 - x) for x, y in quarter),
    ]


RELATIONS = {
    "Skilling's inverse gives the cells back": given_back,
    "numpy.lexsort of the words gives the order": sorted_by_numpy,
    "float32 and float64 round to the same cells in three orders of operations": in_floats,
    "through whole grids of 1 to 5 axes the curve makes steps of 1": steps,
    "on two axes it is Hilbert's own, of 1891": on_two_axes,
}

VERSIONS, WITNESS, NOISE_STEP, reference, _, witness, checks, known_values = operation.generator(
    __file__, hilbert_order, RELATIONS
)


def perturbed(case: Case, inputs: Mapping[str, Array], kind: str, seed: int) -> dict[str, Array]:  # noqa: ARG001
    """Return nothing: no checkpoint holds floats."""
    return {}
