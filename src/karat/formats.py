"""Number formats: names, unit roundoffs, and exact conversion between their grids."""

from __future__ import annotations

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
