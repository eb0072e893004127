"""Number formats: names, unit roundoffs, and exact conversion between their grids."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Format:
    """A floating-point format.

    Attributes:
        name: NumPy's name of the dtype, ml_dtypes' for those that NumPy lacks.
        dtype: the dtype itself.
        significand_bits: bits of the significand, the hidden one included.
        smallest: the smallest positive number, a subnormal.
        largest: the largest finite number.
    """

    name: str
    dtype: np.dtype[Any]
    significand_bits: int
    smallest: float
    largest: float

    @property
    def unit_roundoff(self) -> float:
        """Return u = 2^-p, the largest relative error of rounding to nearest (Higham 2002, section 2.1)."""
        return 2.0**-self.significand_bits


def _format(scalar_type: Any) -> Format:
    dtype = np.dtype(scalar_type)
    info = ml_dtypes.finfo(dtype)
    return Format(dtype.name, dtype, int(info.nmant) + 1, float(info.smallest_subnormal), float(info.max))


FORMATS = {
    entry.name: entry
    for entry in map(
        _format,
        (
            np.float64,
            np.float32,
            np.float16,
            ml_dtypes.bfloat16,
            ml_dtypes.float8_e4m3fn,
            ml_dtypes.float8_e5m2,
        ),
    )
}


def lookup(name: str) -> Format:
    """Return the format called `name`; raise `KeyError` with the known names if there is none."""
    if name not in FORMATS:
        raise KeyError(f"no number format {name!r}; known: {', '.join(FORMATS)}")
    return FORMATS[name]


PRODUCT_FORMATS = {**{name: entry.unit_roundoff for name, entry in FORMATS.items()}, "tfloat32": 2.0**-11}
"""Unit roundoffs of the formats to which operands of matrix products may be rounded; no array is stored in tfloat32."""


@functools.cache
def rounding_intervals(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each bit pattern of a format of 8 or 16 bits the smallest and the largest number that rounds to it.

    Both are float64, of shape (2^bits,), NaN for the patterns of NaN. Ends belong to both neighbours; beyond the
    largest finite number all rounds to infinity, where the format has one. They are shared, and cannot be written to.
    """
    entry = lookup(name)
    if entry.dtype.itemsize > 2:
        raise ValueError(f"{name} has more than 16 bits")
    patterns = np.arange(1 << 8 * entry.dtype.itemsize, dtype=f"u{entry.dtype.itemsize}")
    with np.errstate(invalid="ignore"):
        values = patterns.view(entry.dtype).astype(np.float64)
    finite = np.unique(values[np.isfinite(values)])  # sorted; both zeros are one
    half_last = (finite[-1] - finite[-2]) / 2
    edges = np.concatenate([[finite[0] - half_last], (finite[1:] + finite[:-1]) / 2, [finite[-1] + half_last]])
    place = np.searchsorted(finite, np.where(np.isfinite(values), values, 0))
    low, high = edges[place], edges[place + 1]
    infinite = np.isinf(values)
    low[infinite] = np.where(values[infinite] > 0, edges[-1], -np.inf)
    high[infinite] = np.where(values[infinite] > 0, np.inf, edges[0])
    low[np.isnan(values)] = high[np.isnan(values)] = np.nan
    low.flags.writeable = high.flags.writeable = False
    return low, high


def off_grid(array: NDArray[Any], name: str) -> tuple[int, ...] | None:
    """Return the index of the first value that the format `name` cannot hold exactly, or None if it holds all."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = array.astype(lookup(name).dtype).astype(array.dtype)
    differing = np.flatnonzero((rounded != array) & ~(np.isnan(rounded) & np.isnan(array)))
    if differing.size == 0:
        return None
    return tuple(int(i) for i in np.unravel_index(differing[0], array.shape))


def convert_exactly(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return `array` in the format `name`; raise `ValueError` naming the first value that would be rounded."""
    dtype = lookup(name).dtype
    if array.dtype == dtype:
        return array
    index = off_grid(array, name)
    if index is not None:
        raise ValueError(f"{array[index]!r} at {index} is not a {name} number")
    return array.astype(dtype)
