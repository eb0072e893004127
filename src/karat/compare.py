"""Two arrays in, statistics out: streams over blocks, so that memory does not grow with the arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 13  # elements: its few temporary arrays stay in the cache and below malloc's threshold for mapping pages


@dataclass(frozen=True)
class Statistics:
    """What one pass over candidate and golden finds.

    Attributes:
        elements: number of elements judged.
        mismatched: how many are beyond tolerance, or not finite where the golden is (or the other way round).
        max_abs: largest |candidate - golden| over the elements that are finite on both sides.
        max_rel: largest |candidate - golden| / |golden| over those of them where the golden is not 0.
        rms_abs: root mean square of candidate - golden over the same elements.
        used: largest |candidate - golden| / allowed; at most 1 passes.
        nonfinite: elements where one side is NaN or infinite and the other is not the same.
        worst: index of the first element that is not finite, else of the largest share of its tolerance.
        candidate: the candidate's value there.
        golden: the golden's value there.
    """

    elements: int
    mismatched: int
    max_abs: float
    max_rel: float
    rms_abs: float
    used: float
    nonfinite: int
    worst: tuple[int, ...] | None
    candidate: float | int | None
    golden: float | int | None


def root_mean_square(array: NDArray[Any], judged: NDArray[np.bool_] | None = None) -> float:
    """Return the RMS of the finite elements that are judged, 0 if there are none."""
    counted = array if judged is None else array[np.broadcast_to(judged, array.shape)]
    values = counted.astype(np.float64)
    values = values[np.isfinite(values)]
    return math.sqrt(float(np.mean(np.square(values)))) if values.size else 0.0


def compare(
    candidate: NDArray[Any],
    golden: NDArray[Any],
    *,
    rtol: float,
    atol: float,
    judged: NDArray[np.bool_] | None = None,
    exact_zeros: bool = False,
) -> Statistics:
    """Compare `candidate` with `golden` in float64: |candidate - golden| <= atol + rtol * |golden|.

    Args:
        candidate: floats of any format, the golden's shape.
        golden: floats.
        rtol: relative tolerance.
        atol: absolute tolerance, in the golden's units.
        judged: True where an element counts, broadcastable to the shape; None: everywhere.
        exact_zeros: allow nothing where the golden is 0.

    Non-finite values are compared before any arithmetic: NaN matches NaN, an infinity itself. Raises `ValueError` if
    the shapes differ; shapes are never broadcast.
    """
    if candidate.shape != golden.shape:
        raise ValueError(f"candidate {candidate.shape} and golden {golden.shape} differ in shape")
    found, wanted = candidate.reshape(-1), golden.reshape(-1)
    counted = None if judged is None else np.broadcast_to(judged, golden.shape).reshape(-1)
    total = _Totals(exact_zeros=exact_zeros)
    for start in range(0, golden.size, _BLOCK):
        cut = slice(start, start + _BLOCK)
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
            x, y = found[cut].astype(np.float64), wanted[cut].astype(np.float64)
        places = None
        if counted is not None and not counted[cut].all():
            places = np.flatnonzero(counted[cut])
            x, y = x[places], y[places]
        with np.errstate(all="ignore"):  # a candidate may be wrong by more than float64 holds
            total.add(x, y, rtol, atol, start, places)
    worst = total.first_nonfinite if total.first_nonfinite >= 0 else total.worst
    return Statistics(
        elements=total.elements,
        mismatched=total.mismatched,
        max_abs=total.max_abs,
        max_rel=total.max_rel,
        rms_abs=math.sqrt(total.sum_of_squares / total.finite) if total.finite else 0.0,
        used=total.used,
        nonfinite=total.nonfinite,
        worst=_unravel(worst, golden.shape) if worst >= 0 else None,
        candidate=float(found[worst]) if worst >= 0 else None,
        golden=float(wanted[worst]) if worst >= 0 else None,
    )


class _Totals:
    """The sums and maxima of the blocks seen so far."""

    def __init__(self, *, exact_zeros: bool) -> None:
        self.exact_zeros = exact_zeros
        self.elements = self.mismatched = self.nonfinite = self.finite = 0
        self.max_abs = self.max_rel = self.used = self.sum_of_squares = 0.0
        self.worst = self.first_nonfinite = -1

    def add(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        rtol: float,
        atol: float,
        start: int,
        places: NDArray[np.intp] | None,
    ) -> None:
        """Take in a block, candidate `x` and golden `y`; `places` are its elements' places after `start`, None: all."""
        self.elements += x.size
        error = x - y
        np.abs(error, out=error)
        if not np.isfinite(error).all():
            x, y, error, places = self._set_nonfinite_aside(x, y, error, start, places)
        if not error.size:
            return
        magnitude = np.abs(y)
        allowed = magnitude * rtol
        allowed += atol
        if self.exact_zeros:
            allowed[magnitude == 0] = 0
        self.finite += error.size
        self.mismatched += error.size - int(np.count_nonzero(error <= allowed))
        self.sum_of_squares += float(error @ error)
        largest = float(error.max())
        if largest == 0:
            return
        self.max_abs = max(self.max_abs, largest)
        self.max_rel = max(self.max_rel, float(np.where(y != 0, error / magnitude, 0).max()))
        share = np.where(error > 0, error / allowed, 0)  # infinite where nothing is allowed
        peak = int(share.argmax())
        if share[peak] > self.used:
            self.used = float(share[peak])
            self.worst = start + (peak if places is None else int(places[peak]))

    def _set_nonfinite_aside(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        error: NDArray[np.float64],
        start: int,
        places: NDArray[np.intp] | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
        """Judge what is not finite by place and kind; return the elements that are finite on both sides."""
        places = np.arange(x.size) if places is None else places
        both = np.isfinite(x) & np.isfinite(y)
        wrong = ~(both | (x == y) | (np.isnan(x) & np.isnan(y)))
        number = int(np.count_nonzero(wrong))
        self.nonfinite += number
        self.mismatched += number
        if number and self.first_nonfinite < 0:
            self.first_nonfinite = start + int(places[int(wrong.argmax())])
        return x[both], y[both], error[both], places[both]


def compare_exactly(
    candidate: NDArray[Any],
    golden: NDArray[Any],
    *,
    accepted: NDArray[np.bool_] | None = None,
    judged: NDArray[np.bool_] | None = None,
) -> Statistics:
    """Compare integers or booleans: equal, or `accepted` (of their shape) though not; `judged` as in `compare`."""
    if candidate.shape != golden.shape:
        raise ValueError(f"candidate {candidate.shape} and golden {golden.shape} differ in shape")
    counted = np.ones(golden.shape, bool) if judged is None else np.broadcast_to(judged, golden.shape)
    differing = np.asarray(candidate != golden) & counted
    if accepted is not None:
        differing = differing & ~accepted
    indices = np.flatnonzero(differing)
    worst = _unravel(int(indices[0]), golden.shape) if indices.size else None
    apart = np.abs(candidate[differing].astype(np.float64) - golden[differing].astype(np.float64))
    return Statistics(
        elements=int(np.count_nonzero(counted)),
        mismatched=indices.size,
        max_abs=float(apart.max(initial=0.0)),
        max_rel=0.0,
        rms_abs=0.0,
        used=math.inf if indices.size else 0.0,
        nonfinite=0,
        worst=worst,
        candidate=int(candidate[worst]) if worst is not None else None,
        golden=int(golden[worst]) if worst is not None else None,
    )


def tied_indices(
    candidate: NDArray[Any],
    golden: NDArray[Any],
    values: NDArray[Any],
    *,
    rtol: float,
    atol: float,
    sequential: bool = False,
) -> NDArray[np.bool_]:
    """Say where indices that differ from the golden's point at values that tie with the golden's choice.

    Args:
        candidate: indices into the last axis of `values`, integer.
        golden: the right indices, the same shape: that of `values` without its last axis, or with another length there
            (k choices from each row).
        values: the golden's values, shape (…, n).
        rtol: two values tie if they differ by at most 2 * (atol + rtol * |value|): each may be off by one tolerance.
        atol: see `rtol`.
        sequential: entries along the last axis depend on the earlier ones: after an accepted tie all is accepted.

    An index outside 0…n-1, or twice among the k of a row, ties with nothing; equal infinities tie. Returns
    booleans of the shape of `golden`.
    """
    one_row_each = golden.ndim == values.ndim  # several choices from one row, as in a top k
    rows = np.broadcast_to(values[..., None, :] if one_row_each else values, (*golden.shape, values.shape[-1]))
    inside = (candidate >= 0) & (candidate < values.shape[-1])
    found = np.take_along_axis(rows, np.where(inside, candidate, 0).astype(np.int64)[..., None], -1)[..., 0]
    wanted = np.take_along_axis(rows, golden.astype(np.int64)[..., None], -1)[..., 0]
    with np.errstate(invalid="ignore"):
        near = np.isfinite(wanted) & (np.abs(found - wanted) <= 2 * (atol + rtol * np.abs(wanted)))
    tied = inside & (near | (found == wanted))
    if sequential:
        differs = candidate != golden
        first = differs & (np.cumsum(differs, axis=-1) == 1)
        after_first = np.logical_or.accumulate(first, axis=-1)
        return np.asarray(after_first & np.any(first & tied, axis=-1, keepdims=True))
    if one_row_each:
        tied &= (candidate[..., :, None] == candidate[..., None, :]).sum(-1) == 1
    return np.asarray(tied)


def _unravel(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(index, shape))
