"""Correct ways to encode time and to look up a late sample that differ from the plain candidate's: they must pass."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.interpolate import interp1d
from scipy.spatial import KDTree

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]


def frequency(formula: Callable[[Array, int, float], Array]) -> Change:
    """Return a change to the frequencies: `formula(c, D, base)`, c = 0, 2, … in the format wanted, (ceil(D/2),)."""

    def frequencies(width: int, base: float, dtype: Any) -> Array:
        return formula(np.arange(0, width, 2, dtype=dtype), width, base).astype(dtype)

    return wrap(frequencies=lambda _: frequencies)


def sample(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the choice for one row: `formula(stamps, wanted)` of (S,) and (T,) gives (T,)."""

    def nearest(stamps: Array, wanted: Array) -> Array:
        rows = [formula(row, times) for row, times in zip(stamps, wanted, strict=True)]
        return np.array(rows).reshape(wanted.shape).astype(np.int64)

    return wrap(nearest=lambda _: nearest)


def in_torch(plain: Any) -> None:
    """Compute as torch code does: exp of a multiple of the logarithm, even and odd columns filled apart, float32."""

    def with_encoding(x: Array, positions: Array, base: float) -> dict[str, Array]:
        width, dtype = (x.shape[-1], torch.float64 if x.dtype == np.float64 else torch.float32)
        angle_per_step = torch.exp(torch.arange(0, width, 2, dtype=dtype) * (-math.log(base) / width))  # (ceil(D/2),)
        angle = (
            torch.from_numpy(positions.astype(np.float64)).to(dtype)[..., None] * angle_per_step
        )  # (B, T, ceil(D/2))
        encoding = torch.zeros(x.shape, dtype=dtype)  # (B, T, D)
        encoding[..., 0::2] = torch.sin(angle)
        encoding[..., 1::2] = torch.cos(angle)[..., : width // 2]
        output = torch.from_numpy(x.astype(np.float64)).to(dtype) + encoding
        return {
            "frequency": angle_per_step.numpy(),
            "encoding": encoding.numpy(),
            "output": output.numpy().astype(x.dtype),
        }

    plain.with_encoding = with_encoding


def by_division(plain: Any) -> None:
    """Divide positions by base^(2i/D), as the paper writes it."""
    plain.angles = lambda positions, frequency: positions[..., None].astype(frequency.dtype) / (1 / frequency)


def table_in_float64(plain: Any) -> None:
    """Look positions up in a table that was computed in float64 and rounded once."""
    right = plain.with_encoding

    def with_encoding(x: Array, positions: Array, base: float) -> dict[str, Array]:
        length = int(positions.max(initial=0)) + 1
        rows = np.zeros((1, length, x.shape[-1]))
        table = right(rows, np.arange(length)[None], base)  # float64
        frequency, encoding = (table[name].astype(plain.wide(x).dtype) for name in ("frequency", "encoding"))
        encoding = encoding[0][positions]  # (B, T, D)
        return {"frequency": frequency, "encoding": encoding, "output": plain.added(x, encoding)}

    plain.with_encoding = with_encoding


def by_phase(plain: Any) -> None:
    """Take the cosine as a sine a quarter of a turn later, in float64, and turn complex numbers in float64."""

    def encoded(angle: Array, width: int) -> Array:
        turned = np.exp(1j * angle.astype(np.float64))  # (B, T, ceil(D/2)), complex
        pairs = np.stack([turned.imag, turned.real], -1)
        return pairs.reshape(*angle.shape[:-1], 2 * angle.shape[-1])[..., :width].astype(angle.dtype)

    plain.encoded = encoded


def by_logarithm(columns: Array, width: int, base: float) -> Array:
    """Return exp of a multiple of the logarithm."""
    return np.exp(columns * columns.dtype.type(-math.log(base) / width))


def by_powers(columns: Array, width: int, base: float) -> Array:
    """Return the powers of base^(-2/D), multiplied one after the other in float64."""
    return np.multiply.accumulate(np.where(columns > 0, float(base) ** (-2 / width), 1.0))


def by_bisection(stamps: Array, wanted: Array) -> Array:
    """Return the nearer of the two neighbours of the place where the time belongs, and the first stamp equal to it."""
    after = np.searchsorted(stamps, wanted).clip(1, max(stamps.size - 1, 1))
    right = after.clip(max=stamps.size - 1)
    chosen = np.where(wanted - stamps[after - 1] <= stamps[right] - wanted, after - 1, right)
    return np.searchsorted(stamps, stamps[chosen])


def by_torch(stamps: Array, wanted: Array) -> Array:
    """Return the same by torch.bucketize at the middles between different stamps, where a tie goes to the earlier."""
    different, first = np.unique(stamps, return_index=True)
    doubled = torch.from_numpy(different[1:] + different[:-1])
    return first[torch.bucketize(torch.from_numpy(2 * wanted), doubled).numpy()]


def by_two_pointers(stamps: Array, wanted: Array) -> Array:
    """Walk along the different stamps once, queries in rising order."""
    different, first = np.unique(stamps, return_index=True)
    found, best = np.zeros(wanted.shape, np.int64), 0
    for query in np.argsort(wanted):
        while best + 1 < different.size and different[best + 1] - wanted[query] < wanted[query] - different[best]:
            best += 1
        found[query] = first[best]
    return found


def by_interpolation(stamps: Array, wanted: Array) -> Array:
    """Return SciPy's nearest neighbour in one dimension, which rounds halves down, among the different stamps."""
    different, first = np.unique(stamps, return_index=True)
    if different.size == 1:
        return np.zeros(wanted.shape)
    ends = (0, different.size - 1)
    line = interp1d(different, np.arange(different.size), "nearest", bounds_error=False, fill_value=ends)
    return first[line(wanted).astype(int)]


def by_tree(stamps: Array, wanted: Array) -> Array:
    """Return the first of all the stamps that SciPy's k-d tree finds at the smallest distance."""
    tree = KDTree(stamps[:, None])
    nearest, _ = tree.query(wanted[:, None])
    return np.array([min(tree.query_ball_point([w], d)) for w, d in zip(wanted, nearest, strict=True)])


FORMULATIONS = (
    Formulation("torch", "as torch code has it: exp(2i (-ln(base) / D)), columns filled apart", in_torch),
    Formulation("table_in_float64", "a table computed in float64 and rounded once", table_in_float64),
    Formulation("complex", "real and imaginary part of a complex exponential", by_phase),
    Formulation("bisection", "numpy.searchsorted, then the nearer neighbour", sample(by_bisection)),
    Formulation("bucketize", "torch.bucketize at the middles between stamps", sample(by_torch)),
    Formulation("two_pointers", "one walk along sorted queries and stamps", sample(by_two_pointers)),
    Formulation("interp1d_nearest", "scipy.interpolate.interp1d of kind nearest", sample(by_interpolation)),
    Formulation("tree", "scipy.spatial.KDTree", sample(by_tree)),
    Formulation("division", "positions divided by base^(2i/D)", by_division),
    Formulation("exponential", "exp of a multiple of the logarithm", frequency(by_logarithm)),
    Formulation("powers", "powers of one factor, multiplied in float64", frequency(by_powers)),
)  # fmt: skip
