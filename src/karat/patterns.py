"""Says what is wrong with where an array is infinite or NaN: a mask that is misread shows there first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat.compare import Floats
from karat.hypotheses import Diagnosis

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


def explain_pattern(candidate: Floats, golden: Floats, judged: Bools, axes: tuple[str, ...]) -> list[Diagnosis]:
    """Return what makes the golden's pattern of infinities the candidate's, the most telling first, if anything does.

    The arrays have one shape; `axes` labels it, or is empty. A number far below all of the golden's stands for an
    infinity: masks are often filled with one. Nothing is said of an array with NaN.
    """
    wanted = np.isinf(golden)
    finite = golden[judged & ~wanted]
    if not (wanted & judged).any() or np.isnan(candidate[judged]).any() or np.isnan(finite).any():
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
    labels = axes or tuple(f"axis {axis}" for axis in range(golden.ndim))
    for name, text, prediction in _moved(wanted, labels):
        if np.array_equal(found[judged], prediction[judged]):
            return [Diagnosis(name, 1.0, 0.0, f"infinite where the golden would be with {text}{filled}")]
    return []


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
