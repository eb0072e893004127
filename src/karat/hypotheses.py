"""Says what a wrong array is, where it is a simple change of the right one: scaled, shifted, permuted, stale, coarse.

Each hypothesis predicts the candidate from the golden and is believed only if the prediction holds within the
contract's own tolerance at every element that is judged, and leaves over no more than noise or a small part of the
error. None knows a suite; a candidate that passes is never asked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from karat import formats
from karat.compare import Flat, compare
from karat.places import find_part
from karat.questions import Diagnosis, Question

_LARGEST = 1 << 22  # elements; above, only the cheap hypotheses
_MOST_SLICES = 64  # along an axis, for which every order is tried
_LEAST_VALUES = 16
"""Fewest different values that say something of their format: 0 and 1 are numbers of every format."""
_ENOUGH_VALUES = 1 << 12
"""Values that are looked at for that."""
_LEAST_PLACES = 3
"""Fewest places at which a bias is added: what is the same at two, such as x and -x, may be symmetry."""
_LEAST_OF_A_FACTOR = 2.0
"""Fewest elements that share a factor, on average and by their weight: each single one is its golden times a factor."""
_AS_OF_ROUNDING = 2.0**-7
"""Factors as near to 1 as this may be of a sum or norm that was rounded to bfloat16."""


def diagnose(question: Question) -> list[Diagnosis]:
    """Return the hypotheses that hold, the most telling first."""
    with np.errstate(over="ignore", invalid="ignore"):  # a candidate may be wrong by more than float64 holds
        return _diagnose(question)


def _diagnose(question: Question) -> list[Diagnosis]:
    if not np.isfinite(question.candidate[question.judged]).all() or not question.judged.any():
        return []
    if question.mismatched(question.golden, question.judged, question.atol) == 0:
        return []
    if not question.candidate[question.judged].any():
        return list(_zeros(question))
    found = list(_leak(question))
    if found:
        return [*found, *find_part(question, _simple)]
    for hypothesis in (_scale, _offset, _stale, _axes, _order, _shift, _bias, _factors, _rounded):
        if question.golden.size <= _LARGEST or hypothesis in (_scale, _offset, _rounded):
            found += itertools.islice(hypothesis(question), 1)
        if found:
            return found
    return [*_zeros(question), *find_part(question, _simple), *_grid(question)]


def _simple(question: Question) -> Iterator[Diagnosis]:
    """Find the changes that a part of an array may be: those of all elements, without their order."""
    yield from _scale(question)
    if question.golden.size <= _LARGEST:
        yield from _stale(question)


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
        if other.shape != question.golden.shape or not other[question.judged].any():  # zeros are told as such
            continue
        if question.explained_by(other.astype(np.float64)):
            yield Diagnosis("stale", 1.0, 0.0, f"equals the golden of {name}")


def _bias(question: Question) -> Iterator[Diagnosis]:
    """Find a difference that is the same all along some axes: something that was added, or left out."""
    difference = np.where(question.judged, question.candidate - question.golden, 0)
    number = question.judged.astype(np.float64)
    missing, constant = _same_along_axes(question, difference, number, question.golden.__add__)
    if 1 < missing.size <= float(number.sum()) / _LEAST_PLACES:
        names = ", ".join(question.label(axis) for axis in constant)
        size = float(np.sqrt(np.square(missing).mean()))
        text = f"its difference from the golden (RMS {size:.3g}) is the same at every {names}: as of a bias"
        yield Diagnosis("bias", size, 0.0, text)


def _factors(question: Question) -> Iterator[Diagnosis]:
    """Find factors that are the same all along some axes: another sum or norm of each row, another scale of a head."""
    x, y = (np.where(question.judged, array, 0) for array in (question.candidate, question.golden))
    factors, same = _same_along_axes(question, x * y, y * y, question.golden.__mul__)
    if factors.size < 2:
        return
    seen = y.any(same, keepdims=True)
    wrong = question.wrong().any(same, keepdims=True) & seen
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
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Return the sum of `above` over that of `below` along all axes where such quotients explain the candidate.

    Args:
        question: what is wrong.
        above: the golden's shape.
        below: the golden's shape; where its sum is 0, that of `above` must be, and the quotient is.
        predict: the candidate by such a quotient, whose axes that are summed over have length 1.

    Returns:
        The quotients, and the axes along which they are the same; none of both if they explain nothing.
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
    found = quotient(same) if same else np.zeros(0)
    if len(same) > 1 and not question.explained_by(predict(found), in_place=True):
        return np.zeros(0), ()
    return found, same


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
    unwritten = (question.candidate == 0) & (question.golden != 0) & question.wrong()
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
