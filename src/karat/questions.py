"""A wrong array and what is known of it, and what it may turn out to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat.compare import Flat, compare

_LEFT_OVER = 0.05
"""Largest part of the error, in RMS, that a hypothesis may leave over where that is more than noise.

What is the same everywhere up to 13 % is not the same: a tolerance that is wide beside the error would let it pass.
"""
_LEFT_OVER_AS_NOISE = 0.5
"""The same where what is left over is noise: the mean of two random errors leaves 0.7 of them, and explains nothing."""
_LEFT_OVER_ANYWHERE = 0.25
"""Largest residual at one element, of the error's RMS: a hypothesis about all elements may not fail at a few."""


@dataclass(frozen=True)
class Diagnosis:
    """What a wrong array turned out to be.

    Attributes:
        fault: a catalogued one, or `scale`, `offset`, `stale`, `axes`, `order`, `shift`, `bias`, `factors`, `leak`,
            `rounded`, `zeros`, `part` or `grid`; `precision` or `formula`; of infinities and NaN, `fill`, `polarity`,
            `unmasked` or `nan`.
        strength: how much of it: the factor, the offset, the share of elements.
        uncertainty: standard error of the strength.
        text: what it is, in words.
        explained: the part of the error's sum of squares that a catalogued fault explains.
        at: the checkpoint that told, where it is another than the one that is wrong first.
        spared: a checkpoint that a catalogued fault would change, and that passed.
    """

    fault: str
    strength: float
    uncertainty: float
    text: str
    explained: float = 0.0
    at: str = ""
    spared: str = ""


@dataclass(frozen=True)
class Question:
    """A wrong array and what is known of it.

    Attributes:
        candidate: float64, the golden's shape.
        golden: float64.
        judged: True where an element counts, the golden's shape.
        rtol: the tolerance that failed, relative part.
        atol: its absolute part, in the golden's units.
        axes: a label for each axis, or none.
        others: other goldens of the case, by checkpoint.
        storage: the format that the contract promises.
        exact_zeros: nothing is allowed where a prediction is 0, as in the comparison that failed.
        sigma: the predicted standard deviation of each element's error, the golden's shape; None: not known.
        rms_sigma: largest root mean square of errors in sigma that is noise.
        max_sigma: largest error in sigma that is noise.
    """

    candidate: NDArray[np.float64]
    golden: NDArray[np.float64]
    judged: NDArray[np.bool_]
    rtol: float
    atol: float
    axes: tuple[str, ...]
    others: Mapping[str, NDArray[Any]]
    storage: str
    exact_zeros: bool = False
    sigma: NDArray[np.float64] | None = None
    rms_sigma: float = 0.0
    max_sigma: float = 0.0

    def explained_by(self, prediction: NDArray[np.float64], factor: float = 1.0, *, in_place: bool = False) -> bool:
        """Say whether the candidate is `prediction`, whose errors are `factor` times those of the golden.

        With `in_place` each element stands where the golden has it, and so has its own noise.
        """
        size = max(1.0, abs(factor))
        fits = self.leaves_little(prediction, self.judged) or (in_place and self._leaves_noise(prediction, size))
        return fits and self.mismatched(prediction, self.judged, self.atol * size) == 0

    def leaves_little(self, prediction: NDArray[np.float64], judged: NDArray[np.bool_]) -> bool:
        """Say whether a prediction leaves over little of the error, on the whole and at each element."""
        error, left = _rms((self.candidate - self.golden)[judged]), np.abs(self.candidate - prediction)[judged]
        return _rms(left) <= _LEFT_OVER * error and float(left.max()) <= _LEFT_OVER_ANYWHERE * error

    def _leaves_noise(self, prediction: NDArray[np.float64], size: float) -> bool:
        """Say whether a prediction leaves over no more than noise, and less than it explains."""
        if self.sigma is None:
            return False
        error, left = (self.candidate - self.golden)[self.judged], np.abs(self.candidate - prediction)[self.judged]
        z = left / (size * np.maximum(self.sigma[self.judged], 1e-300))
        noise = _rms(z) <= self.rms_sigma and float(z.max()) <= self.max_sigma
        return noise and _rms(left) <= _LEFT_OVER_AS_NOISE * _rms(error)

    def mismatched(self, prediction: NDArray[np.float64], judged: NDArray[np.bool_], atol: float) -> int:
        """Return how many of the `judged` elements are not what `prediction` says."""
        return compare(
            self.candidate, prediction, Flat(self.rtol, atol), judged=judged, exact_zeros=self.exact_zeros
        ).mismatched

    def wrong(self) -> NDArray[np.bool_]:
        """Return where the candidate is beyond tolerance."""
        allowed = self.atol + self.rtol * np.abs(self.golden)
        if self.sigma is not None:
            allowed = self.max_sigma * self.sigma
        if self.exact_zeros:
            allowed = np.where(self.golden == 0, 0, allowed)
        return (np.abs(self.candidate - self.golden) > allowed) & self.judged

    def label(self, axis: int) -> str:
        """Return the name of an axis."""
        return self.axes[axis] if self.axes else f"axis {axis}"


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))
