"""Says what a wrong array is, where it is a simple change of the right one: scaled, shifted, permuted, stale, coarse.

Each hypothesis predicts the candidate from the golden and is believed only if the prediction holds within the
contract's own tolerance at every element that is judged, and leaves over no more than noise or a small part of the
error. None knows a suite; a candidate that passes is never asked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import formats
from karat.compare import Flat, compare

_LARGEST = 1 << 22  # elements; above, only the cheap hypotheses
_MOST_RANGES = 3
_MOST_SLICES = 64  # along an axis, for which every order is tried
_LEAST_VALUES = 16
"""Fewest different values that say something of their format: 0 and 1 are numbers of every format."""
_ENOUGH_VALUES = 1 << 12
"""Values that are looked at for that."""
_LEAST_RIGHT = 0.25
"""Least part of an axis that is not right by chance wherever it is."""
_LEAST_PLACES = 3
"""Fewest places at which a bias is added: what is the same at two, such as x and -x, may be symmetry."""
_LEAST_OF_A_FACTOR = 2.0
"""Fewest elements that share a factor, on average and by their weight: each single one is its golden times a factor."""
_LEAST_OF_A_PART = 4
"""Fewest elements of a part of which it is told what they are there: one may equal another golden by chance."""
_AS_OF_ROUNDING = 2.0**-7
"""Factors as near to 1 as this may be of a sum or norm that was rounded to bfloat16."""
_LEAST_CHANCE = 0.05
"""Expected number of slices without a wrong element from which on it is chance that there is one."""
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

    def label(self, axis: int) -> str:
        """Return the name of an axis."""
        return self.axes[axis] if self.axes else f"axis {axis}"


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def diagnose(question: Question) -> list[Diagnosis]:
    """Return the hypotheses that hold, the most telling first."""
    with np.errstate(over="ignore", invalid="ignore"):  # a candidate may be wrong by more than float64 holds
        return _diagnose(question)


def _diagnose(question: Question) -> list[Diagnosis]:
    if not np.isfinite(question.candidate[question.judged]).all() or not question.judged.any():
        return []
    if question.mismatched(question.golden, question.judged, question.atol) == 0:
        return []
    found = list(_leak(question))
    if found:
        return [*found, *_part(question)]
    for hypothesis in (_scale, _offset, _stale, _axes, _order, _shift, _bias, _factors, _rounded):
        if question.golden.size <= _LARGEST or hypothesis in (_scale, _offset, _rounded):
            found += itertools.islice(hypothesis(question), 1)
        if found:
            return found
    return [*_zeros(question), *_part(question), *_grid(question)]


def _leak(question: Question) -> Iterator[Diagnosis]:
    """Find values that are within tolerance everywhere, but not 0 where nothing else will do."""
    if not question.exact_zeros:
        return
    tolerated = compare(question.candidate, question.golden, Flat(question.rtol, question.atol), judged=question.judged)
    if tolerated.mismatched == 0 and question.mismatched(question.golden, question.judged, question.atol):
        leaked = np.abs(question.candidate[question.judged & (question.golden == 0)])
        number, largest = int(np.count_nonzero(leaked)), float(leaked.max())
        text = f"right but for {number} elements that must be exactly 0 and are up to {largest:.3g}"
        yield Diagnosis("leak", largest, 0.0, text)


def _scale(question: Question) -> Iterator[Diagnosis]:
    x, y = question.candidate[question.judged], question.golden[question.judged]
    square = float(y @ y)
    if square == 0 or x.size < 2:
        return
    factor = float(x @ y) / square
    residual = x - factor * y
    error = math.sqrt(float(residual @ residual) / (x.size - 1) / square)
    if factor != 0 and question.explained_by(factor * question.golden, factor, in_place=True):
        known = _closed_form(factor)
        yield Diagnosis("scale", factor, error, f"equals the golden × {factor:.6g} ± {error:.1g}{known}")


def _closed_form(factor: float) -> str:
    """Return the closed form that a factor has, ` (= 1/√14)`, if it is one of the usual ones."""
    size, sign = abs(factor), "-" if factor < 0 else ""
    for n in range(2, 129):
        for value, name in ((n**0.5, f"√{n}"), (n**-0.5, f"1/√{n}"), (float(n), f"{n}"), (1 / n, f"1/{n}")):
            if abs(size / value - 1) < 1e-5:
                root = math.isqrt(n)
                exact = name.replace(f"√{n}", str(root)) if root * root == n else name
                return f" (= {sign}{exact})"
    return " (= -1: the sign)" if abs(factor + 1) < 1e-5 else ""


def _offset(question: Question) -> Iterator[Diagnosis]:
    difference = (question.candidate - question.golden)[question.judged]
    offset = float(difference.mean())
    if difference.size > 1 and question.explained_by(question.golden + offset, in_place=True):
        error = float(difference.std()) / math.sqrt(difference.size)
        yield Diagnosis("offset", offset, error, f"equals the golden + {offset:.6g} ± {error:.1g} everywhere")


def _axes(question: Question) -> Iterator[Diagnosis]:
    """Find another layout of the same elements: axes exchanged, or read in another order than they were written."""
    golden = question.golden
    names = [question.label(axis) for axis in range(golden.ndim)]
    for order in itertools.permutations(range(golden.ndim)):
        if order == tuple(range(golden.ndim)) or golden.ndim > 5:
            continue
        written = golden.transpose(order)
        if question.explained_by(written.reshape(golden.shape)):
            text = f"has the golden's elements laid out as ({', '.join(names[axis] for axis in order)})"
            yield Diagnosis("axes", 1.0, 0.0, text)
    for first, second in itertools.combinations(range(golden.ndim), 2):
        n, m = golden.shape[first], golden.shape[second]
        if min(n, m) < 2:
            continue
        moved = np.moveaxis(golden, (first, second), (-2, -1))
        dealt = moved.reshape(*moved.shape[:-2], m, n).swapaxes(-1, -2)
        if question.explained_by(np.moveaxis(dealt, (-2, -1), (first, second))):
            yield Diagnosis("axes", 1.0, 0.0, f"{names[second]} and {names[first]} are interleaved")


def _order(question: Question) -> Iterator[Diagnosis]:
    """Find slices of one axis in another order, or one slice in the place of several."""
    for axis, length in enumerate(question.golden.shape):
        if not 2 <= length <= _MOST_SLICES:
            continue
        rows = np.moveaxis(question.golden, axis, 0).reshape(length, -1)
        found = np.moveaxis(question.candidate, axis, 0).reshape(length, -1)
        distances = np.stack([np.square(found - row).sum(1) for row in rows], axis=1)  # (candidate, golden)
        order = distances.argmin(1)
        if (order == np.arange(length)).all():
            continue
        if question.explained_by(np.take(question.golden, order, axis)):
            shown = ", ".join(str(i) for i in order[:12]) + (", …" if length > 12 else "")
            yield Diagnosis("order", 1.0, 0.0, f"along {question.label(axis)} it holds the golden's {shown}")


def _shift(question: Question) -> Iterator[Diagnosis]:
    """Find everything one position further along an axis; what is shifted in is not judged."""
    for axis, length in enumerate(question.golden.shape):
        for step in (1, -1):
            if length < 3:
                continue
            shifted = np.roll(question.golden, step, axis)
            judged = question.judged.copy()
            np.moveaxis(judged, axis, 0)[0 if step == 1 else -1] = False
            judged &= np.roll(question.judged, step, axis)
            if not judged.any() or not question.leaves_little(shifted, judged):
                continue
            if question.mismatched(shifted, judged, question.atol) == 0:
                way = "late" if step == 1 else "early"
                yield Diagnosis("shift", float(step), 0.0, f"is the golden one {question.label(axis)} too {way}")


def _stale(question: Question) -> Iterator[Diagnosis]:
    for name, other in question.others.items():
        if other.shape == question.golden.shape and question.explained_by(other.astype(np.float64)):
            yield Diagnosis("stale", 1.0, 0.0, f"equals the golden of {name}")


def _bias(question: Question) -> Iterator[Diagnosis]:
    """Find a difference that is the same all along some axes: something that was added, or left out."""
    difference = np.where(question.judged, question.candidate - question.golden, 0)
    number = question.judged.astype(np.float64)
    missing, constant = _same_along_axes(question, difference, number, question.golden.__add__)
    if missing is not None and 1 < missing.size <= float(number.sum()) / _LEAST_PLACES:
        names = ", ".join(question.label(axis) for axis in constant)
        size = float(np.sqrt(np.square(missing).mean()))
        text = f"its difference from the golden (RMS {size:.3g}) is the same at every {names}: as of a bias"
        yield Diagnosis("bias", size, 0.0, text)


def _factors(question: Question) -> Iterator[Diagnosis]:
    """Find factors that are the same all along some axes: another sum or norm of each row, another scale of a head."""
    x, y = (np.where(question.judged, array, 0) for array in (question.candidate, question.golden))
    factors, same = _same_along_axes(question, x * y, y * y, question.golden.__mul__)
    if factors is None or factors.size < 2:
        return
    seen = y.any(same, keepdims=True)
    wrong = _wrong(question).any(same, keepdims=True) & seen
    known = factors[seen]
    enough = _effective_numbers(y, same)[seen].mean() >= _LEAST_OF_A_FACTOR
    if enough and known.all() and np.count_nonzero(wrong) > np.count_nonzero(seen) / 2:  # of fewer it is told which
        names = ", ".join(question.label(axis) for axis, length in enumerate(factors.shape) if length > 1)
        low, middle, high = np.quantile(known, (0, 0.5, 1))
        text = f"equals the golden × a factor of its own at every {names} ({low:.6g} to {high:.6g})"
        less = ", or of one in a lower precision" if max(abs(low - 1), abs(high - 1)) <= _AS_OF_ROUNDING else ""
        yield Diagnosis("factors", float(middle), 0.0, f"{text}: as of another sum, norm or weight{less}")


def _effective_numbers(y: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """Return of how many elements along `axes` a sum of squares is made: n of n equal ones, 1 beside a far larger one.

    That is (sum y^2)^2 / sum y^4 (Kish, "Survey Sampling", 1965), 0 where all are 0.
    """
    largest = np.abs(y).max(axes, keepdims=True, initial=0)
    squares = np.square(np.divide(y, largest, out=np.zeros_like(y), where=largest > 0))
    total, fourth = squares.sum(axes, keepdims=True), np.square(squares).sum(axes, keepdims=True)
    numbers: NDArray[np.float64] = np.divide(np.square(total), fourth, out=np.zeros_like(total), where=fourth > 0)
    return numbers


def _same_along_axes(
    question: Question,
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    predict: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> tuple[NDArray[np.float64] | None, tuple[int, ...]]:
    """Return the sum of `above` over that of `below` along all axes where such quotients explain the candidate.

    Args:
        question: what is wrong.
        above: the golden's shape.
        below: the golden's shape; where its sum is 0, that of `above` must be, and the quotient is.
        predict: the candidate by such a quotient, whose axes that are summed over have length 1.

    Returns:
        The quotients, None if they explain nothing, and the axes along which they are the same.
    """

    def quotient(axes: tuple[int, ...]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = above.sum(axes, keepdims=True)
        total = below.sum(axes, keepdims=True)
        np.divide(sums, total, out=sums, where=total > 0)
        return sums

    same = tuple(
        axis
        for axis, length in enumerate(above.shape)
        if length > 1 and question.explained_by(predict(quotient((axis,))), in_place=True)
    )
    found = quotient(same) if same else None
    explained = found is not None and (len(same) == 1 or question.explained_by(predict(found), in_place=True))
    return (found if explained else None), same


def _wrong(question: Question) -> NDArray[np.bool_]:
    """Return where the candidate is beyond tolerance."""
    allowed = question.atol + question.rtol * np.abs(question.golden)
    if question.sigma is not None:
        allowed = question.max_sigma * question.sigma
    if question.exact_zeros:
        allowed = np.where(question.golden == 0, 0, allowed)
    return (np.abs(question.candidate - question.golden) > allowed) & question.judged


def _rounded(question: Question) -> Iterator[Diagnosis]:
    """Find the golden's own values in a coarser number format than the contract promises."""
    name = coarser_format(question)
    if name is None:
        return
    unit = formats.lookup(name).unit_roundoff
    rounding = Flat(question.rtol + unit, question.atol + formats.lookup(name).smallest)
    if compare(question.candidate, question.golden, rounding, judged=question.judged).mismatched == 0:
        bits = formats.lookup(name).significand_bits
        text = f"is the golden rounded to {name}: {bits} bits where {_promised_bits(question)} are promised"
        yield Diagnosis("rounded", float(bits), 0.0, text)


def _zeros(question: Question) -> Iterator[Diagnosis]:
    unwritten = (question.candidate == 0) & (question.golden != 0) & _wrong(question)
    number, judged = int(unwritten.sum()), int(question.judged.sum())
    if not question.candidate[question.judged].any():
        yield Diagnosis("zeros", 1.0, 0.0, f"all {judged} elements are 0: perhaps nothing was written")
    elif number > judged / 20:
        yield Diagnosis("zeros", number / judged, 0.0, f"{number} of {judged} elements are 0 where the golden is not")


def _grid(question: Question) -> Iterator[Diagnosis]:
    """Find a coarser number format than the contract promises."""
    name = coarser_format(question)
    if name is not None:
        bits = formats.lookup(name).significand_bits
        text = f"every value is a {name} number: {bits} bits where {_promised_bits(question)} are promised"
        yield Diagnosis("grid", float(bits), 0.0, text)


def coarser_format(question: Question) -> str | None:
    """Return the coarsest format that holds every value and is coarser than the one promised, None if there is none."""
    values = question.candidate[question.judged]
    if np.unique(values[:_ENOUGH_VALUES]).size < _LEAST_VALUES:
        return None
    for name, known in sorted(formats.FORMATS.items(), key=lambda item: item[1].significand_bits):
        if known.significand_bits < _promised_bits(question) and formats.off_grid(values, name) is None:
            return name
    return None


def _promised_bits(question: Question) -> int:
    return formats.lookup(question.storage).significand_bits


def _part(question: Question) -> Iterator[Diagnosis]:
    """Find the part of an axis to which the mistake is confined."""
    wrong = _wrong(question)
    for axis, length in enumerate(wrong.shape):
        others = tuple(other for other in range(wrong.ndim) if other != axis)
        hit, judged = wrong.any(others), question.judged.any(others)
        bad, good = np.flatnonzero(hit), np.flatnonzero(judged & ~hit)
        if bad.size == 0 or good.size == 0 or _by_chance(good, length):
            continue
        if bad.size > 1 and _scattered(wrong, question.judged, axis):
            continue
        part, word = (bad, "wrong only at") if bad.size <= good.size else (good, "right at")
        ranges = _ranges(part)
        if len(ranges) <= _MOST_RANGES:  # more are scattered, and tell nothing
            there = _there(question, axis, bad) if part is bad else ""
            text = f"{word} {question.label(axis)} {', '.join(ranges)} (of 0–{length - 1}){there}"
            yield Diagnosis("part", bad.size / (bad.size + good.size), 0.0, text)


def _there(question: Question, axis: int, part: NDArray[np.intp]) -> str:
    """Say what simple change of all elements a part of an axis is, if it is one: `, where it equals …`."""
    across = tuple(other for other in range(question.golden.ndim) if other != axis)
    inside = np.isin(np.arange(question.golden.shape[axis]), part)
    judged = question.judged & np.expand_dims(inside, across)
    if np.count_nonzero(judged) < _LEAST_OF_A_PART:
        return ""
    others = question.others if question.golden.size <= _LARGEST else {}
    written = {name: other for name, other in others.items() if other.shape == judged.shape and other[judged].any()}
    inner = replace(question, judged=judged, others=written)
    found = next(itertools.chain(_scale(inner), _stale(inner)), None)
    return f", where it {found.text}" if found else ""


def _by_chance(good: NDArray[np.intp], length: int) -> bool:
    """Say whether slices may be right by chance: some few, and not one run at an end of their axis."""
    first, last = int(good[0]), int(good[-1])
    at_an_end = last - first + 1 == good.size and (first == 0 or last == length - 1)
    return not at_an_end and good.size < max(2, length * _LEAST_RIGHT)


def _scattered(wrong: NDArray[np.bool_], judged: NDArray[np.bool_], axis: int) -> bool:
    """Say whether as many wrong elements, thrown at random, would leave a slice of the axis without any."""
    others = tuple(other for other in range(wrong.ndim) if other != axis)
    numbers, sizes = wrong.sum(others), judged.sum(others)
    share = float(numbers.sum()) / float(sizes[numbers > 0].sum())
    expected = float(((1 - share) ** sizes[numbers == 0]).mean()) * wrong.shape[axis]
    return bool(expected > _LEAST_CHANCE)


def _ranges(indices: NDArray[np.intp]) -> list[str]:
    """Write indices as ranges: 0–3, 7."""
    groups = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return [f"{group[0]}–{group[-1]}" if group.size > 1 else f"{group[0]}" for group in groups]
