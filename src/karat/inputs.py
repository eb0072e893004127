"""Reproducible inputs: recipes that any language can follow to the last bit, because they need no libm.

A recipe's random bits are the Philox 4x64-10 stream (Salmon et al., SC'11) whose 128-bit key is the first 16 bytes
of the SHA-256 of the recipe's text key, read as two little-endian 64-bit words, with the counter starting at 1 as in
`numpy.random.Philox`. The stream's 64-bit words, written little-endian one after the other, are cut into 32-bit
words; each element takes one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 20


def random_words(key: str, count: int) -> NDArray[np.uint32]:
    """Return the first `count` 32-bit words of the Philox stream of `key`, shape (count,)."""
    digest = hashlib.sha256(key.encode()).digest()[:16]
    philox = np.random.Philox(key=np.frombuffer(digest, dtype="<u8").astype(np.uint64))
    words = np.asarray(philox.random_raw((count + 1) // 2), dtype="<u8")
    return words.view("<u4")[:count].astype(np.uint32, copy=False)


@dataclass(frozen=True)
class Dyadic:
    """Bell-shaped exact numbers: (offset + k) * 2^exponent with |k| <= 126, k of mean 0 and standard deviation 36.9.

    k is the sum of the low six bits of the word's four bytes, less 126. With |offset + k| <= 256 every value is
    exact in bfloat16, and in float16 as long as exponent - quiet_shift >= -24. With `narrow`, k is halved (towards
    minus infinity), so that an offset of 128 leaves the values inside (0.5, 1.5) * 128 * 2^exponent.

    Every `quiet_period`-th row (first axis), counted from row `quiet_period - 1`, is multiplied by 2^-quiet_shift: rows
    of tiny variance, which show the epsilon of a normalisation. With `row_exponents`, row i is multiplied by
    2^row_exponents[i % len(row_exponents)]: magnitudes over decades.

    `dtype` is float32, which holds every value exactly; the exchange converts, exactly, to the contract's storage.
    """

    shape: tuple[int, ...]
    key: str
    exponent: int
    offset: int = 0
    narrow: bool = False
    quiet_period: int = 0
    quiet_shift: int = 0
    row_exponents: tuple[int, ...] = ()
    dtype: str = "float32"

    def draw(self) -> NDArray[Any]:
        """Return the values, float32, of shape `shape`."""
        return self._scaled(self._steps())

    def _steps(self) -> NDArray[np.float32]:
        """Return offset + k of each value, shape (count,)."""
        count = math.prod(self.shape)
        words = random_words(self.key, count)
        values = np.empty(count, dtype=np.float32)
        for start in range(0, count, _BLOCK):  # in blocks that stay in the cache: 124 million values are drawn here
            block = words[start : start + _BLOCK]
            k = (block & 63).astype(np.int32)
            for shift in (8, 16, 24):
                k += ((block >> np.uint32(shift)) & np.uint32(63)).astype(np.int32)
            k -= 126
            if self.narrow:
                k >>= 1
            values[start : start + _BLOCK] = k + self.offset
        return values

    def _scaled(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Multiply steps by what one is worth, in place; return them in the shape `shape`."""
        values *= np.float32(2.0**self.exponent)
        array = values.reshape(self.shape)
        if self.quiet_period:
            array[self.quiet_period - 1 :: self.quiet_period] *= np.float32(2.0**-self.quiet_shift)
        for i, row_exponent in enumerate(self.row_exponents):
            array[i :: len(self.row_exponents)] *= np.float32(2.0**row_exponent)
        return array


@dataclass(frozen=True)
class Fine:
    """The numbers of a `Dyadic` recipe with 15 bits more, so that float32 is needed to hold them, and holds them.

    To each (offset + k) is added f / 2^15, where f is the word's upper 15 bits less 2^14, of the stream of the key
    `<key>/fraction`. A candidate that rounds its inputs on the way in, to TF32, bfloat16 or float16, shows here only:
    what `Dyadic` draws, all of them hold.
    """

    coarse: Dyadic

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the values."""
        return self.coarse.shape

    @property
    def dtype(self) -> str:
        """Return the dtype of the values."""
        return self.coarse.dtype

    def draw(self) -> NDArray[Any]:
        """Return the values, float32, of shape `shape`."""
        words = random_words(f"{self.coarse.key}/fraction", math.prod(self.shape))
        fractions = ((words >> np.uint32(17)).astype(np.int32) - (1 << 14)).astype(np.float32) * np.float32(2.0**-15)
        return self.coarse._scaled(self.coarse._steps() + fractions)  # noqa: SLF001 - two recipes of one arithmetic


@dataclass(frozen=True)
class Integers:
    """Integers uniform in [low, high), from floor(word * (high - low) / 2^32) in exact integer arithmetic."""

    shape: tuple[int, ...]
    key: str
    low: int
    high: int
    dtype: str = "int64"

    def __post_init__(self) -> None:
        """Raise `ValueError` for a range that the arithmetic does not cover."""
        if not 0 < self.high - self.low <= 1 << 32:
            raise ValueError(f"{self.key}: the range [{self.low}, {self.high}) does not hold 1 to 2^32 integers")

    def draw(self) -> NDArray[Any]:
        """Return the integers, of shape `shape` and dtype `dtype`."""
        words = random_words(self.key, math.prod(self.shape)).astype(np.uint64)
        span = np.uint64(self.high - self.low)
        drawn = ((words * span) >> np.uint64(32)).astype(np.int64).reshape(self.shape) + self.low
        return drawn.astype(self.dtype)


@dataclass(frozen=True)
class Literal:
    """Values written out in the contract, as nested tuples."""

    values: Any
    dtype: str = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the values."""
        return np.shape(self.values)

    def draw(self) -> NDArray[Any]:
        """Return the values in the dtype `dtype`."""
        return np.array(self.values, dtype=self.dtype)


@dataclass(frozen=True)
class Stored:
    """Values that no recipe can make, such as trained weights: their bytes are frozen beside the goldens."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def draw(self) -> NDArray[Any]:
        """Raise `ValueError`: there is nothing to draw them from."""
        raise ValueError(f"values of the shape {self.shape} are stored, not drawn")


Recipe = Dyadic | Fine | Integers | Literal | Stored


def describe(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as JSON values, its kind first: what a manifest records of an input."""
    return {"recipe": type(recipe).__name__.lower(), **{name: _named(value) for name, value in asdict(recipe).items()}}


def _named(value: Any) -> Any:
    """Return a value with NaN and infinities as text: JSON has no numbers for them."""
    if isinstance(value, tuple):
        return tuple(_named(item) for item in value)
    if isinstance(value, dict):
        return {name: _named(item) for name, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn names like `weights/h.0.bias` into mappings, one level deep: `{"weights": {"h.0.bias": …}}`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        head, slash, rest = name.partition("/")
        if slash:
            nested.setdefault(head, {})[rest] = value
        else:
            nested[name] = value
    return nested
