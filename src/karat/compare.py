"""Two arrays in, statistics out: one streaming pass in blocks, so that memory does not grow with the arrays."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from karat import parts

_BLOCK = 1 << 18  # elements: long enough to pay for the calls of NumPy, short enough for the cache
_DOT = 1 << 9  # elements: a call of so many short dot products lets other threads run, one of 500 or fewer does not
_COPIED = 1 << 23  # bytes: arrays in another order than C are copied whole up to so many, larger ones by the block
_SAMPLED = 64  # of so many elements one tells how large relative errors may get
_FEW = 1 << 12  # elements: for more, memory is mapped and unmapped for each temporary array
_PART = 1 << 20  # elements that a thread or a process takes at a time
_FORKED = 1 << 25  # elements: from so many on processes pay, which cost milliseconds for each GB of memory in use
_JOINT = 1 << 20  # elements: for fewer a table of two scales does not pay
_MOST_ROWS = 1 << 20
_SHORTEST_ROW = 16
_FRACTION = np.uint64((1 << 52) - 1)
_ONE = np.uint64(1023 << 52)  # the bits of 1.0
_EXPONENT = np.int32(255 << 23)  # of float32
_ONE_IN_BITS = 127 << 23  # 1.0 in float32
_LARGEST_INT = np.int32(2**31 - 1)
_EIGHT = np.arange(8)
_BELOW_ONE = np.float32(1 - 2.0**-24)
_ROUNDED = 2.0**-20  # relative: far more than a few operations in float32 are off by
_LARGEST_CODE = 7 * 2.0**-66  # what the float32 bits 255 << 21 stand for
_CANCELLED = 2.0**-6  # what is so much less than the terms it is a sum of has lost digits
_TINY = 2.0**-140  # a variance, so that none is 0
_NEAR_ONE = 56  # a largest sigma of 2^-56 to 2^56 leaves float32 room for sigmas 2^70 times smaller

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Flat:
    """An allowance that is guessed: rtol * |golden| + atol at every element.

    Attributes:
        rtol: relative part.
        atol: absolute part, in the golden's units.
    """

    rtol: float
    atol: float


@dataclass(frozen=True)
class Scale:
    """A positive scale for every element of an array, in one byte each.

    Attributes:
        codes: uint8, a floating-point number of six exponent and two fraction bits, without sign: code c stands for
            s(c) / s(255) * top, with s(c) = c below 4 and (4 + c % 4) * 2^(c // 4 - 1) from 4 on.
        top: what code 255 stands for.
    """

    codes: NDArray[np.uint8]
    top: float

    def values(self) -> Floats:
        """Return the scale of each element, float64, of the codes' shape."""
        return _decoded(self.codes) * (self.top / _LARGEST_CODE)


@dataclass(frozen=True)
class Predicted:
    """An allowance that is predicted: `max_sigma` times the standard deviation sigma of each element's error.

    Attributes:
        scales: sigma^2 is the sum of their squares and of that of `floor`.
        max_sigma: how many sigma are allowed.
        floor: the part of sigma that is the same everywhere, in the golden's units.
        interval: None; or, where the candidate was rounded once, from values as exact as the scales say: the smallest
            and the largest number that rounds to each of the format's 2^8 or 2^16 bit patterns. The error in sigma is
            then the distance from the golden to the interval of the candidate's value.
        last_relative: with `interval`, the relative standard deviation of that rounding, which counts in gain and bias.
        last_floor: with `interval`, its absolute standard deviation among the subnormals.
    """

    scales: tuple[Scale, ...]
    max_sigma: float
    floor: float = 0.0
    interval: tuple[Floats, Floats] | None = None
    last_relative: float = 0.0
    last_floor: float = 0.0


@dataclass(frozen=True)
class Statistics:
    """What one pass over candidate and golden finds; everything but the counts is of the elements finite on both sides.

    Counts and maxima but `max_sigma` are exact to float64; what is a sum or in sigma, to about a millionth; beyond 1e19
    sigma it is infinite. What is not 0 where nothing else will do counts as mismatched and in `max_abs`, in no sum.

    Attributes:
        elements: number of elements judged.
        mismatched: how many are beyond their allowance, or not finite where the golden is (or the other way round).
        max_abs: largest |candidate - golden|.
        max_rel: largest |candidate - golden| / |golden| where the golden is not 0.
        max_ulp: largest |candidate - golden| in units in the last place of the candidate's format at the golden.
        rms_abs: root mean square of candidate - golden.
        used: largest |error| / allowance; more than 1 is beyond it.
        nonfinite: elements where one side is NaN or infinite and the other is not the same.
        worst: index of the first element that is not finite, else of the largest share of its allowance.
        candidate: the candidate's value there.
        golden: the golden's value there.
        cosine: cosine of the angle between candidate and golden; reported, never deciding.
        nmse: sum of squared errors over the golden's sum of squares; reported, never deciding.
        rms_sigma: root mean square of error / sigma; None for a flat allowance, as all below.
        max_sigma: largest |error| / sigma.
        row_sigma: root mean square of the worst row. A row is the last axis, or as many of the last axes as have 16
            elements; the worst has the largest mean square, less what one element at its limit makes of it.
        row: index of that row along the axes before.
        row_elements: how many of its elements are judged.
        slices: for each axis before the rows: its number, the index whose slice has the largest root mean square, and
            that: the worst batch, head, query.
        gain: g of the least-squares fit of g * golden to the error, weighted by 1 / sigma^2; 0 is right.
        gain_error: its standard error if the elements' errors are independent.
        bias: the mean of error / sigma; 0 is right.
        bias_error: its standard error if the elements' errors are independent.
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
    max_ulp: float = 0.0
    cosine: float = 1.0
    nmse: float = 0.0
    rms_sigma: float | None = None
    max_sigma: float | None = None
    row_sigma: float | None = None
    row: tuple[int, ...] | None = None
    row_elements: int = 0
    slices: tuple[tuple[int, int, float], ...] = ()
    gain: float | None = None
    gain_error: float | None = None
    bias: float | None = None
    bias_error: float | None = None


def root_mean_square(array: NDArray[Any], judged: NDArray[np.bool_] | None = None) -> float:
    """Return the RMS of the finite elements that are judged, 0 if there are none."""
    counted = array if judged is None else array[np.broadcast_to(judged, array.shape)]
    values = counted.astype(np.float64)
    values = values[np.isfinite(values)]
    return math.sqrt(float(np.mean(np.square(values)))) if values.size else 0.0


def compare(
    candidate: NDArray[Any],
    golden: NDArray[Any],
    allowance: Flat | Predicted,
    *,
    judged: NDArray[np.bool_] | None = None,
    exact_zeros: bool = False,
    significand_bits: int = 53,
    smallest: float = 5e-324,
) -> Statistics:
    """Compare `candidate` with `golden` in float64.

    Args:
        candidate: floats of any format, the golden's shape; may be memory-mapped.
        golden: floats; may be memory-mapped.
        allowance: what each element's error is measured by.
        judged: True where an element counts, broadcastable to the shape; None: everywhere.
        exact_zeros: allow nothing where the golden is 0.
        significand_bits: of the candidate's format, the hidden one included, for units in the last place.
        smallest: the smallest positive number of that format.

    Non-finite values are compared before any arithmetic: NaN matches NaN, an infinity itself. Beside the arrays, and a
    byte an element where `judged` has to be broadcast, it needs less than 64 MB, whatever their size. The number of
    threads, or of the processes that large arrays are shared among, changes no bit of the result. Raises `ValueError`
    if the shapes differ; shapes are never broadcast.
    """
    if candidate.shape != golden.shape:
        raise ValueError(f"candidate {candidate.shape} and golden {golden.shape} differ in shape")
    arguments = candidate, golden, allowance, judged, exact_zeros, significand_bits, smallest
    plan = totals = None
    if golden.size >= _FORKED and parts.can_fork():
        with contextlib.suppress(OSError):  # there is no memory to share
            plan = _Plan(*arguments, zeros=parts.shared_zeros)
        if plan is not None:
            totals = parts.in_processes(plan.total, plan.starts)
    if plan is None or totals is None:
        plan = _Plan(*arguments, zeros=np.zeros)
        totals = parts.in_threads(plan.total, plan.starts)
    plan.spare.clear()
    total = _Totals()
    with np.errstate(all="ignore"):  # a candidate may be wrong by more than float32 holds, to either side
        for part in totals:
            total.merge(part)
    return plan.statistics(total)


@dataclass
class _Totals:
    """Sums and maxima over the blocks seen so far."""

    elements: int = 0
    finite: int = 0
    mismatched: int = 0
    nonfinite: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    max_ulp: float = 0.0
    peak: float = 0.0  # largest share of a flat allowance; largest error in sigma
    worst: int = -1
    first_nonfinite: int = -1
    sums: Floats = field(default_factory=lambda: np.zeros(6))
    """Of e e, e y, y y, w e y, w y y, z: error e, golden y, z = e / sigma, weight w = 1 / sigma^2."""

    def merge(self, later: _Totals) -> None:
        """Take in the totals of elements that come after those seen so far."""
        self.elements += later.elements
        self.finite += later.finite
        self.mismatched += later.mismatched
        self.nonfinite += later.nonfinite
        self.max_abs = max(self.max_abs, later.max_abs)
        self.max_rel = max(self.max_rel, later.max_rel)
        self.max_ulp = max(self.max_ulp, later.max_ulp)
        if later.peak > self.peak:
            self.peak, self.worst = later.peak, later.worst
        if self.first_nonfinite < 0:
            self.first_nonfinite = later.first_nonfinite
        self.sums += later.sums


class _Known:
    """The largest errors that any thread has found: they decide what need not be looked at, never a result.

    Threads share one without a lock: at worst one of them knows less than another, and looks at more.

    Attributes:
        max_abs: largest |error|.
        max_rel: largest relative error.
        max_ulp: largest error in units in the last place.
        bound: of an error and the power of two at its golden, the difference of their bits in float32 up to which the
            error is no larger than either of the two.
        ulp_bound: the same of the second alone; below 0, as a golden too small for an exponent gives 0 or more.
    """

    def __init__(self, ulp_scale: float) -> None:
        self.max_abs = self.max_rel = self.max_ulp = 0.0
        self._ulp_scale = ulp_scale
        self.bound = self.ulp_bound = _difference(0)

    def raise_to(self, totals: _Totals) -> None:
        """Take in the largest errors of some elements."""
        self.max_abs = max(self.max_abs, totals.max_abs)
        if totals.max_rel > self.max_rel or totals.max_ulp > self.max_ulp:
            self.max_rel, self.max_ulp = max(self.max_rel, totals.max_rel), max(self.max_ulp, totals.max_ulp)
            ulp = _difference(self.max_ulp / self._ulp_scale * (1 - _ROUNDED))
            self.bound, self.ulp_bound = min(_difference(self.max_rel * (1 - _ROUNDED)), ulp), min(ulp, -1)


class _Work:
    """Working arrays of one thread, for a block: allocating them anew costs more than a pass over them.

    Attributes:
        error: candidate - golden, float64.
        index: the memory of `error`, which is done with when codes are looked up: all must fit into the cache.
        pair: float32, of shape (2, size): error and golden.
        e: the first of them.
        y: the second of them.
        first: float32, for anything; so are `second` and `third`.
        flags: the memory of `third`, bool.
    """

    def __init__(self, error: Floats, pair: Singles, spare: Singles) -> None:
        self.error, self.index = error, error.view(np.intp)
        self.pair = pair
        self.e, self.y = pair
        self._spare = spare
        self.first, self.second, self.third = spare
        self.flags = self.third.view(np.bool_)[: error.size]
        whole = error.size // _DOT * _DOT
        self._pieces = pair[:, :whole].reshape(2, -1, _DOT)
        self._rest = pair[:, whole:]
        self._ones = np.ones(_DOT, np.float32)
        self._sums = np.zeros((6, whole // _DOT + 1), np.float32)
        """Of each piece, and of what is left; 0 where nothing is, or where there is no allowance in sigma."""

    @classmethod
    def of(cls, size: int) -> _Work:
        """Allocate them."""
        memory = np.empty((7, size), np.float32)  # at once: in pages as large as there are
        return cls(memory[:2].reshape(-1).view(np.float64), memory[2:4], memory[4:])

    def cut(self, size: int) -> _Work:
        """Return the first `size` elements of each."""
        if size == self.error.size:
            return self
        return _Work(self.error[:size], self.pair[:, :size], self._spare[:, :size])

    def sum_squares(self) -> bool:
        """Sum e e, e y and y y; return whether all e are finite."""
        pieces, (e, y) = self._pieces, self._rest
        np.vecdot(pieces, pieces[0], out=self._sums[:2, :-1])
        np.vecdot(pieces[1], pieces[1], out=self._sums[2, :-1])
        if e.size:
            self._sums[:3, -1] = e @ e, e @ y, y @ y
        return math.isfinite(np.maximum.reduce(self._sums[0]))

    def sum_products(self) -> None:
        """Sum e y, y y and e."""
        pieces, (e, y) = self._pieces, self._rest
        np.vecdot(pieces[1], pieces[0], out=self._sums[3, :-1])
        np.vecdot(pieces[1], pieces[1], out=self._sums[4, :-1])
        np.vecdot(pieces[0], self._ones, out=self._sums[5, :-1])
        if e.size:
            self._sums[3:, -1] = e @ y, y @ y, e.sum()

    def sums(self) -> Floats:
        """Return the three sums of `sum_squares` and the three of `sum_products`, float64."""
        return np.asarray(np.add.reduce(self._sums, axis=1, dtype=np.float64))


class _InOrder:
    """The elements of an array in C order, by number, without a copy of all of them where it is large."""

    def __init__(self, array: NDArray[Any]) -> None:
        small = array.flags.c_contiguous or array.nbytes <= _COPIED
        self._array = array.reshape(-1) if small else array
        self._small = small

    def __getitem__(self, key: Any) -> Any:
        return self._array[key] if self._small else self._array.flat[key]


class _Weights:
    """1 / sigma of each element, looked up by its codes.

    Attributes:
        factor: a power of two by which errors are to be multiplied; the weights are 1 / (factor * sigma).
    """

    def __init__(self, allowance: Predicted, size: int) -> None:
        unit = max(allowance.floor, *(scale.top for scale in allowance.scales), 0.0) or 1.0
        exponent = math.frexp(unit)[1]
        self.factor = 1.0 if abs(exponent) <= _NEAR_ONE else 2.0 ** min(-exponent, 1023)
        self._largest = np.float32(1 / (unit * self.factor))
        self._floor = np.float32((allowance.floor / unit) ** 2 + _TINY)
        self._codes: list[tuple[NDArray[np.uint8], ...]] = [(scale.codes.reshape(-1),) for scale in allowance.scales]
        every = np.arange(256, dtype=np.uint8)
        self._variances = [np.square(Scale(every, scale.top / unit).values()) for scale in allowance.scales]
        if size >= _JOINT and len(self._codes) > 1:
            self._codes[:2] = [self._codes[0] + self._codes[1]]
            self._variances[:2] = [np.add.outer(*self._variances[:2]).reshape(-1)]
        self._variances = [table.astype(np.float32) for table in self._variances]
        self._only = self._inverted(self._variances[0] + self._floor) if len(self._variances) == 1 else None

    def of(self, cut: slice, work: _Work) -> Singles:
        """Return the weights of some elements, in a working array."""
        weights, variances = work.first, work.third
        if self._only is not None:
            return self._only.take(_index(self._codes[0], cut, work), out=weights, mode="clip")
        variances.fill(self._floor)
        for codes, table in zip(self._codes, self._variances, strict=True):
            variances += table.take(_index(codes, cut, work), out=weights, mode="clip")
        return self._inverted(variances, weights)

    def _inverted(self, variances: Singles, out: Singles | None = None) -> Singles:
        return np.divide(self._largest, np.sqrt(variances, out=variances), out=out)


class _Plan:
    """What all blocks of one comparison share."""

    def __init__(
        self,
        candidate: NDArray[Any],
        golden: NDArray[Any],
        allowance: Flat | Predicted,
        judged: NDArray[np.bool_] | None,
        exact_zeros: bool,
        significand_bits: int,
        smallest: float,
        zeros: Callable[[int, DTypeLike], NDArray[Any]],
    ) -> None:
        self.shape = golden.shape
        self.found, self.wanted = _InOrder(candidate), _InOrder(golden)
        self.allowance, self.exact_zeros = allowance, exact_zeros
        self.judged = None if judged is None else np.broadcast_to(judged, golden.shape).reshape(-1)
        self.ulp_scale, self.smallest_normal = 2.0 ** (significand_bits - 1), smallest * 2.0 ** (significand_bits - 1)
        self.size = golden.size
        self.row_axes, self.row_length = _rows(golden.shape)
        once = isinstance(allowance, Predicted) and allowance.interval is not None
        block = _BLOCK // 4 if once else _BLOCK  # intervals need several more arrays
        self.block = max(block // self.row_length, 1) * self.row_length if self.row_length <= block else block
        self.part = max(_PART // self.row_length, 1) * self.row_length
        self.starts = range(0, golden.size, self.part)
        rows = golden.size // self.row_length if golden.size else 0
        self.row_sums, self.row_counts = zeros(rows, np.float64), zeros(rows, np.intp)
        self.weights = _Weights(allowance, golden.size) if isinstance(allowance, Predicted) else None
        self.factor = self.weights.factor if self.weights else 1.0
        self.spare: list[_Work] = []
        self.known = _Known(self.ulp_scale)

    # --- one block

    def total(self, start: int) -> _Totals:
        """Return the totals of the part that begins at `start`."""
        totals, stop = _Totals(), min(start + self.part, self.size)
        work = self.spare.pop() if self.spare else _Work.of(min(self.block, self.size))
        with np.errstate(all="ignore"):  # a signalling NaN is a NaN; a candidate may be wrong by more than 1e308
            while start < stop:
                end = min(start + self.block, stop)
                if self.row_length > self.block:  # several blocks a row, none of two rows
                    end = min(end, (start // self.row_length + 1) * self.row_length)
                self._add(totals, start, end, work.cut(end - start))
                start = end
        self.spare.append(work)
        return totals

    def _add(self, totals: _Totals, start: int, end: int, work: _Work) -> None:
        found, y = self.found[start:end], self.wanted[start:end].astype(np.float64, copy=False)
        counted = None if self.judged is None else self.judged[start:end]
        if counted is not None and counted.all():
            counted = None
        totals.elements += y.size if counted is None else int(np.count_nonzero(counted))
        error = work.error
        np.copyto(error, found, casting="unsafe")
        np.subtract(error, y, out=error)
        held, exact, finite = False, None, False
        if counted is None and not self.exact_zeros:
            held, exact, finite = self._narrowed(error, y, work)
        if not finite:
            y, counted = self._set_aside(totals, error, y, counted, start)
            held, exact, _ = self._narrowed(error, y, work)
        totals.finite += y.size if counted is None else int(np.count_nonzero(counted))
        self._magnitudes(totals, error, y, work if held else None)
        if isinstance(self.allowance, Predicted) and self.weights is not None:
            self._in_sigma(totals, self.weights, self.allowance, y, counted, start, work)
        elif isinstance(self.allowance, Flat):
            allowed = np.abs(y) * self.allowance.rtol + self.allowance.atol
            self._peak(totals, np.where(error == 0, 0, np.abs(error) / allowed), 1.0, start)
        sums = work.sums()
        if self.factor != 1:
            sums[:3] = sums[:3] / self.factor / self.factor
        if exact is not None:
            sums[:3] = exact
        totals.sums += sums

    def _narrowed(self, error: Floats, y: Floats, work: _Work) -> tuple[bool, list[float] | None, bool]:
        """Write error and golden in float32, and sum e e, e y and y y.

        Return whether it holds them, the sums in float64 where it does not hold those, and whether errors are finite.
        """
        held = False
        try:
            with np.errstate(over="raise", under="raise"):
                _narrow(error, self.factor, work.e)
                _narrow(y, self.factor, work.y)
                held = True
                return held, None, work.sum_squares()
        except FloatingPointError:
            if not held:
                _narrow(error, self.factor, work.e)
                _narrow(y, self.factor, work.y)
        exact = [*_dots(np.stack([error, y]), error), *_dots(y[None], y)]
        return held, exact, math.isfinite(exact[0])

    def _set_aside(
        self, totals: _Totals, error: Floats, y: Floats, counted: NDArray[np.bool_] | None, start: int
    ) -> tuple[Floats, NDArray[np.bool_] | None]:
        """Judge what is not judged by its size, and make its error 0; return the golden and which elements remain."""
        if not math.isfinite(*_dots(error[None], error)):
            counted = self._set_nonfinite_aside(totals, y, counted, start)
        if counted is not None:
            y = np.where(counted, y, 0)
            error[~counted] = 0  # and so changes no sum
        if self.exact_zeros:
            self._set_leaks_aside(totals, error, y, start)
        return y, counted

    def _set_nonfinite_aside(
        self, totals: _Totals, y: Floats, counted: NDArray[np.bool_] | None, start: int
    ) -> NDArray[np.bool_]:
        """Judge what is not finite by place and kind; return which elements remain."""
        x: Floats = self.found[start : start + y.size].astype(np.float64)
        counted = np.ones(y.size, bool) if counted is None else counted
        both = np.isfinite(x) & np.isfinite(y)
        wrong = ~(both | (x == y) | (np.isnan(x) & np.isnan(y))) & counted
        number = int(np.count_nonzero(wrong))
        totals.nonfinite += number
        totals.mismatched += number
        if number and totals.first_nonfinite < 0:
            totals.first_nonfinite = start + int(wrong.argmax())
        return both & counted

    def _set_leaks_aside(self, totals: _Totals, error: Floats, y: Floats, start: int) -> None:
        """Count what is not 0 where nothing else will do, and take it out of the error."""
        leaks = np.flatnonzero((y == 0) & (error != 0))
        if leaks.size:
            largest = leaks[int(np.abs(error[leaks]).argmax())]
            totals.mismatched += leaks.size
            totals.max_abs = max(totals.max_abs, abs(float(error[largest])))
            if totals.peak < math.inf:
                totals.peak, totals.worst = math.inf, start + int(largest)
            error[leaks] = 0

    def _magnitudes(self, totals: _Totals, error: Floats, y: Floats, work: _Work | None) -> None:
        """Find the largest errors: in float64, of the elements that by their values in float32 may have them.

        Those that are smaller than what another part of the arrays is known to have need not be found.
        """
        if work is None:
            totals.max_abs = max(totals.max_abs, float(np.abs(error).max()))
            self._quotients(totals, error, y, np.arange(y.size))
            return
        magnitude = np.abs(work.e, out=work.first)
        largest = float(np.maximum.reduce(magnitude))
        if largest == 0:
            return
        if largest * (1 + _ROUNDED) > self.known.max_abs * self.factor:
            larger = np.greater_equal(magnitude, largest * (1 - _ROUNDED), out=work.flags)
            largest_errors = error[_places(larger)]
            totals.max_abs = max(totals.max_abs, float(np.abs(largest_errors).max()))
        if self.known.max_rel == 0:  # some elements first, so that most of the others need not be looked at
            self._quotients(totals, error, y, np.arange(0, magnitude.size, _SAMPLED))
            self.known.raise_to(totals)
        # The power of two at the golden or, where rounding may have gone up to it, the one below.
        power = np.multiply(work.y, _BELOW_ONE, out=work.second).view(np.int32)
        power &= _EXPONENT
        # The error in such powers, which is no less than the relative error, nor than that in units in the last place:
        # bits of floating-point numbers are in the order of the numbers, and exponents subtract.
        bound = self.known.bound
        # Where a golden is too small for an exponent, it or the power may be far below what 0 stands for: then all is
        # larger than a bound below 0, and must be than any other.
        tiny = power == 0 if bound >= 0 and power.min() == 0 else None
        quotient = np.subtract(magnitude.view(np.int32), power, out=power)
        if tiny is not None:
            quotient[tiny] = _LARGEST_INT
        most = np.maximum.reduce(quotient)
        if most > bound:
            larger = np.greater(quotient, bound, out=work.flags)
            places = _places(larger)
            if places.size > magnitude.size // 8:  # also where both error and golden are 0
                places = _places(np.logical_and(larger, magnitude, out=larger))
            self._quotients(totals, error, y, places, ulps=bool(most > self.known.ulp_bound))
        self.known.raise_to(totals)

    def _quotients(
        self, totals: _Totals, error: Floats, y: Floats, places: NDArray[np.intp], *, ulps: bool = True
    ) -> None:
        """Find the largest relative error at some places and, with `ulps`, that in units in the last place."""
        for start in range(0, places.size, _FEW):
            few = places[start : start + _FEW]
            self._quotients_of_few(totals, np.abs(error[few]), np.abs(y[few]), ulps=ulps)

    def _quotients_of_few(self, totals: _Totals, error: Floats, y: Floats, *, ulps: bool) -> None:
        largest = float((error / y).max())
        if not math.isfinite(largest):  # the golden is 0 somewhere
            largest = float(np.divide(error, y, out=np.zeros_like(y), where=y != 0).max())
        totals.max_rel = max(totals.max_rel, largest)
        if not ulps:
            return
        # An error of r |y| is r f 2^(p-1) units in the last place, where y = f 2^k and 1 <= f < 2.
        normal = np.maximum(y, self.smallest_normal)
        fraction = ((normal.view(np.uint64) & _FRACTION) | _ONE).view(np.float64)
        totals.max_ulp = max(totals.max_ulp, float((error / normal * fraction).max()) * self.ulp_scale)

    def _peak(self, totals: _Totals, share: NDArray[Any], limit: float, start: int) -> None:
        place = int(share.argmax())
        peak = share[place]  # NaN, if there is one
        if not peak <= limit:
            totals.mismatched += share.size - int(np.count_nonzero(share <= limit))
        if peak > totals.peak:
            totals.peak, totals.worst = float(peak), start + place

    def _in_sigma(
        self,
        totals: _Totals,
        weights: _Weights,
        allowance: Predicted,
        y: Floats,
        counted: NDArray[np.bool_] | None,
        start: int,
        work: _Work,
    ) -> None:
        """Judge by sigma, in float32; sum w e y, w y y and z of the block, and z z of its rows."""
        cut, share = slice(start, start + y.size), work.e
        if allowance.interval is not None:
            share = work.second
            _narrow(self._outside(allowance.interval, y, cut, work.error), self.factor, share)
        weight = weights.of(cut, work)  # and the error in float64 is no more
        if allowance.interval is not None:
            share *= weight
            rounding = (np.square(allowance.last_relative * y) + allowance.last_floor**2) * self.factor * self.factor
            weight /= np.sqrt(1 + rounding * np.square(weight, dtype=np.float64)).astype(np.float32)
        np.multiply(work.pair, weight, out=work.pair)  # error / sigma and golden / sigma
        self._peak(totals, np.abs(share, out=weight), allowance.max_sigma, start)
        rows = share.reshape(-1, self.row_length) if self.row_length <= self.block else share.reshape(1, -1)
        place = slice(start // self.row_length, start // self.row_length + rows.shape[0])
        self.row_sums[place] += _row_squares(rows)
        self.row_counts[place] += rows.shape[1] if counted is None else counted.reshape(rows.shape).sum(1)
        work.sum_products()

    def _outside(self, interval: tuple[Floats, Floats], y: Floats, cut: slice, error: Floats) -> Floats:
        """Return the distance from the golden to what rounds to the candidate's value, signed as the error."""
        found = np.ascontiguousarray(self.found[cut])
        bits = found.view(f"u{found.dtype.itemsize}")
        above, below = interval[0].take(bits) - y, interval[1].take(bits) - y
        outside = np.maximum(above, 0) + np.minimum(below, 0)
        return np.where(error == 0, 0, outside)  # also what is not judged, and what was set aside

    # --- the whole

    def statistics(self, total: _Totals) -> Statistics:
        """Return the statistics of all elements."""
        worst = total.first_nonfinite if total.first_nonfinite >= 0 else total.worst
        square_e, product, square_y = (float(value) for value in total.sums[:3])
        square_x = square_e + 2 * product + square_y
        cosine = product + square_y, square_x, square_y
        if square_x < _CANCELLED * square_y:
            cosine = self._of_candidate()
        return Statistics(
            elements=total.elements,
            mismatched=total.mismatched,
            max_abs=total.max_abs,
            max_rel=total.max_rel,
            max_ulp=total.max_ulp,
            rms_abs=math.sqrt(square_e / total.finite) if total.finite else 0.0,
            used=self._used(total.peak),
            nonfinite=total.nonfinite,
            worst=_unravel(worst, self.shape) if worst >= 0 else None,
            candidate=float(self.found[worst]) if worst >= 0 else None,
            golden=float(self.wanted[worst]) if worst >= 0 else None,
            cosine=_cosine(*cosine),
            nmse=square_e / square_y if square_y > 0 else 0.0 if square_e == 0 else math.inf,
            **(self._sigma_statistics(total) if isinstance(self.allowance, Predicted) else {}),
        )

    def _of_candidate(self) -> tuple[float, float, float]:
        """Return the sums of x y, x x and y y, candidate x, golden y: of the errors they would have few digits."""
        sums = np.zeros(3)
        with np.errstate(all="ignore"):
            for start in range(0, self.size, self.block):
                cut = slice(start, min(start + self.block, self.size))
                x, y = self.found[cut].astype(np.float64), self.wanted[cut].astype(np.float64)
                counted = np.isfinite(x) & np.isfinite(y)
                if self.judged is not None:
                    counted &= self.judged[cut]
                if self.exact_zeros:
                    counted &= y != 0
                x[~counted] = y[~counted] = 0
                sums += (*_dots(np.stack([y, x]), x), *_dots(y[None], y))
        return float(sums[0]), float(sums[1]), float(sums[2])

    def _used(self, peak: float) -> float:
        """Return the largest share of what is allowed, infinite where nothing is."""
        if isinstance(self.allowance, Flat):
            return peak
        most = self.allowance.max_sigma
        return peak / most if most > 0 else math.inf if peak > 0 else 0.0

    def _sigma_statistics(self, total: _Totals) -> dict[str, Any]:
        gain, gain_weight, bias = (float(value) for value in total.sums[3:])
        leading = self.shape[: len(self.shape) - self.row_axes]
        row = self._worst_row()
        return {
            "rms_sigma": math.sqrt(self.row_sums.sum() / total.finite) if total.finite else 0.0,
            "max_sigma": total.peak,
            "row_sigma": math.sqrt(self.row_sums[row] / max(self.row_counts[row], 1)) if row >= 0 else 0.0,
            "row": _unravel(row, leading) if row >= 0 else None,
            "row_elements": int(self.row_counts[row]) if row >= 0 else 0,
            "slices": tuple(self._worst_slice(axis, leading) for axis in range(len(leading)) if row >= 0),
            "gain": gain / gain_weight if gain_weight > 0 else 0.0,
            "gain_error": gain_weight**-0.5 if gain_weight > 0 else math.inf,
            "bias": bias / total.finite if total.finite else 0.0,
            "bias_error": total.finite**-0.5 if total.finite else math.inf,
        }

    def _worst_row(self) -> int:
        """Return the number of the row of the largest mean square less one element at its limit, -1 of none."""
        one_at_its_limit = self.allowance.max_sigma**2 if isinstance(self.allowance, Predicted) else 0.0
        excess = self.row_sums - one_at_its_limit
        excess /= np.maximum(self.row_counts, 1)
        excess[np.isnan(excess)] = math.inf
        return int(excess.argmax()) if excess.size else -1

    def _worst_slice(self, axis: int, leading: tuple[int, ...]) -> tuple[int, int, float]:
        others = tuple(other for other in range(len(leading)) if other != axis)
        means = self.row_sums.reshape(leading).sum(others)
        means /= np.maximum(self.row_counts.reshape(leading).sum(others), 1)
        np.sqrt(means, out=means)
        index = int(np.nan_to_num(means, nan=math.inf).argmax())
        return axis, index, float(means[index])


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many of the last axes make a row, and its length."""
    size = math.prod(shape)
    axes, length = 0, 1
    while axes < len(shape) and (axes == 0 or length < _SHORTEST_ROW or size > length * _MOST_ROWS):
        axes += 1
        length *= shape[-axes]
    return axes, max(length, 1)


def _decoded(codes: NDArray[np.uint8]) -> Floats:
    """Return s(c) * 2^-128 for codes c: shifted to their place, they are the bits of that float32 number."""
    return np.left_shift(codes, np.uint32(21)).view(np.float32).astype(np.float64)


def _index(codes: tuple[NDArray[np.uint8], ...], cut: slice, work: _Work) -> NDArray[np.intp]:
    """Return where in a table the codes of some elements stand: those of one scale, or of two jointly."""
    if len(codes) == 1:
        np.copyto(work.index, codes[0][cut])
    else:
        joint = work.first.view(np.uint16)[: work.index.size]
        np.multiply(codes[0][cut], 256, out=joint, dtype=np.uint16)
        np.add(joint, codes[1][cut], out=work.index, dtype=np.uint16)
    return work.index


def _difference(multiple: float) -> int:
    """Return the difference of the bits of two float32 numbers: so many times a power of two, and that power."""
    return int(np.float32(multiple).view(np.int32)) - _ONE_IN_BITS


def _places(flags: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return where flags are True, which is rare: looking at eight at a time is several times as fast."""
    if flags.size % 8:
        return flags.nonzero()[0]
    eights = (flags.view(np.uint64) != 0).nonzero()[0]
    places: NDArray[np.intp] = (8 * eights[:, None] + _EIGHT).reshape(-1)
    return places[flags[places]]


def _narrow(values: Floats, factor: float, out: Singles) -> None:
    np.copyto(out, values if factor == 1 else values * factor, casting="same_kind")


def _dots(several: NDArray[Any], one: NDArray[Any]) -> list[float]:
    """Return the sums of products of each of several arrays with one: of shapes (k, n) and (n,)."""
    whole = one.size // _DOT * _DOT
    pieces = np.vecdot(several[:, :whole].reshape(len(several), -1, _DOT), one[:whole].reshape(-1, _DOT))
    sums = np.add.reduce(pieces, axis=1, dtype=np.float64)
    if whole < one.size:
        sums += several[:, whole:] @ one[whole:]
    found: list[float] = sums.tolist()
    return found


def _row_squares(rows: Singles) -> NDArray[Any]:
    """Return the sum of squares of each row."""
    number, length = rows.shape
    if length <= _DOT:
        return np.asarray(np.vecdot(rows, rows))
    whole = length // _DOT * _DOT
    pieces = rows[:, :whole].reshape(number, -1, _DOT)
    sums = np.add.reduce(np.vecdot(pieces, pieces), axis=1, dtype=np.float64)
    if whole < length:
        sums += np.vecdot(rows[:, whole:], rows[:, whole:])
    return np.asarray(sums)


def _cosine(product: float, first: float, second: float) -> float:
    if first == second == 0:
        return 1.0
    cosine = product / (math.sqrt(first) * math.sqrt(second)) if first > 0 and second > 0 else 0.0
    return min(max(cosine, -1.0), 1.0)


def _unravel(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(index, shape))
