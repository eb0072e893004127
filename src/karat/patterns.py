"""Says what is wrong with where an array is infinite or NaN: a mask that is misread shows there first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat.compare import Floats
from karat.questions import Diagnosis

Bools = NDArray[np.bool_]

_FAR = 30.0
"""How many times the range of the golden's finite numbers a number must lie below them to stand for -inf."""


def kinds_text(candidate: Floats, golden: Floats, judged: Bools) -> str:
    """Return how many judged elements are finite, infinite or NaN where the golden, of the same shape, is otherwise."""
    kinds: tuple[tuple[str, Any], ...] = (
        ("finite", np.isfinite),
        ("+inf", np.isposinf),
        ("-inf", np.isneginf),
        ("NaN", np.isnan),
    )
    found: list[tuple[int, str]] = []
    for (name, is_kind), (was, was_kind) in itertools.permutations(kinds, 2):
        number = int(np.count_nonzero(is_kind(candidate) & was_kind(golden) & judged))
        if number:
            found.append((number, f"{number} {name} where the golden is {was}"))
    return "; ".join(text for _, text in sorted(found, reverse=True))


def explain_pattern(  # noqa: PLR0911 - one return for each pattern
    candidate: Floats, golden: Floats, judged: Bools, axes: tuple[str, ...]
) -> list[Diagnosis]:
    """Return what makes the golden's pattern of infinities the candidate's, the most telling first, if anything does.

    The arrays have one shape; `axes` labels it, or is empty. A number far below all of the golden's stands for an
    infinity: masks are often filled with one. Of an array with NaN only is said where they stand.
    """
    labels = axes or tuple(f"axis {axis}" for axis in range(golden.ndim))
    if np.isnan(candidate[judged]).any():
        return _of_nan(np.isnan(candidate) & ~np.isnan(golden) & judged, golden, judged, labels)
    wanted = np.isinf(golden)
    finite = golden[judged & ~wanted]
    if not (wanted & judged).any() or np.isnan(finite).any():
        return []
    low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
    found = np.isinf(candidate) | (candidate < low - _FAR * (1 + high - low))
    fill = candidate[found & judged & np.isfinite(candidate)]
    filled = f", filled with {_numbers(fill)} instead of {golden[wanted & judged][0]}" if fill.size else ""
    if not found[judged].any():
        return [_not_there(candidate[wanted & judged], float(golden[wanted & judged][0]))]
    if np.array_equal(found[judged], wanted[judged]):
        return [Diagnosis("fill", float(fill.min()), 0.0, f"the right places{filled}")] if fill.size else []
    if np.array_equal(found[judged], ~wanted[judged]):
        text = f"dropped just where the golden keeps: what drops is taken for what keeps{filled}"
        return [Diagnosis("polarity", 1.0, 0.0, text)]
    for name, text, prediction in _moved(wanted, labels):
        if np.array_equal(found[judged], prediction[judged]):
            return [Diagnosis(name, 1.0, 0.0, f"infinite where the golden would be with {text}{filled}")]
    return []


def _of_nan(wrong: Bools, golden: Floats, judged: Bools, labels: tuple[str, ...]) -> list[Diagnosis]:
    """Return what is said of NaN that stand where the golden has none: those whose places have something in common."""
    text = _places_of_nan(wrong, golden, judged, labels) if wrong.any() else ""
    share = np.count_nonzero(wrong) / np.count_nonzero(judged)
    return [Diagnosis("nan", share, 0.0, text)] if text else []


def _places_of_nan(wrong: Bools, golden: Floats, judged: Bools, labels: tuple[str, ...]) -> str:
    if np.array_equal(wrong, judged):
        return "NaN everywhere"
    if np.array_equal(wrong, np.isinf(golden) & judged):
        return "NaN just where the golden is infinite: as of ∞ - ∞, or of a mask that multiplies it by 0"
    if np.array_equal(wrong, (golden == 0) & judged):
        return "NaN just where the golden is 0: as of 0 / 0, where what is divided by has nothing to sum"
    return _whole_slices(wrong, judged, labels) or _from_one_on(wrong, judged, labels)


def _whole_slices(wrong: Bools, judged: Bools, labels: tuple[str, ...]) -> str:
    """Return along which axes all is NaN where one is, and at which places of the others; "" if along none."""
    whole = tuple(
        axis
        for axis in range(wrong.ndim)
        if wrong.shape[axis] > 1 and np.array_equal(wrong, wrong.any(axis, keepdims=True) & judged)
    )
    others = [axis for axis in range(wrong.ndim) if axis not in whole and wrong.shape[axis] > 1]
    if not whole or not others:
        return ""
    places = np.argwhere(wrong.any(whole))
    kept = [axis for axis in range(wrong.ndim) if axis not in whole]
    first = ", ".join(f"{labels[axis]} {place}" for axis, place in zip(kept, places[0], strict=True) if axis in others)
    seen = int(np.count_nonzero(judged.any(whole)))
    along = " and ".join(labels[axis] for axis in whole)
    where = " and ".join(labels[axis] for axis in others)
    return f"NaN along all of {along} at {len(places)} of {seen} places of {where}, first {first}; no other"


def _from_one_on(wrong: Bools, judged: Bools, labels: tuple[str, ...]) -> str:
    """Return the axis along which all is NaN from the first NaN on, as what is carried along it is; "" if none is."""
    for axis in range(wrong.ndim):
        if wrong.shape[axis] > 1 and np.array_equal(wrong, np.logical_or.accumulate(wrong, axis) & judged):
            start = int(np.flatnonzero(wrong.any(tuple(other for other in range(wrong.ndim) if other != axis)))[0])
            return f"once NaN, NaN for all that comes after along {labels[axis]}, first at {labels[axis]} {start}"
    return ""


def _not_there(values: Floats, golden: float) -> Diagnosis:
    """Return what to say where nothing is dropped, from what stands in the places of the golden's infinities."""
    if values.min() == values.max():
        return Diagnosis("fill", float(values[0]), 0.0, f"filled with {_numbers(values)} instead of {golden}")
    return Diagnosis("unmasked", 1.0, 0.0, f"nothing is {golden}: in its places stand {_numbers(values)}")


def _numbers(values: Floats) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.6g}" if low == high else f"numbers from {low:.6g} to {high:.6g}"


def _moved(wanted: Bools, labels: tuple[str, ...]) -> Iterator[tuple[str, str, Bools]]:
    """Yield names, texts and patterns of the same places elsewhere: axes exchanged, in reverse order, shifted."""
    for first, second in itertools.combinations(range(wanted.ndim), 2):
        if wanted.shape[first] == wanted.shape[second]:
            yield "axes", f"{labels[first]} and {labels[second]} exchanged", wanted.swapaxes(first, second)
    for axis in range(wanted.ndim):
        yield "order", f"{labels[axis]} in reverse order", np.flip(wanted, axis)
    for axis in range(wanted.ndim):
        length = wanted.shape[axis]
        for step in (1, -1):
            index = np.clip(np.arange(length) - step, 0, length - 1)
            yield "shift", f"{labels[axis]} shifted by {step}", wanted.take(index, axis)
