"""Says to which part of an axis a mistake is confined: a head, the first query, one expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from karat.questions import Diagnosis, Question

_MOST_RANGES = 3
_LEAST_RIGHT = 0.25
"""Least part of an axis that is not right by chance wherever it is."""
_LEAST_OF_A_PART = 4
"""Fewest elements of a part of which it is told what they are there: one may equal another golden by chance."""
_LEAST_CHANCE = 0.05
"""Expected number of slices without a wrong element from which on it is chance that there is one."""

Hypothesis = Callable[[Question], Iterator[Diagnosis]]
"""What a wrong array may be: where it is, it yields what it turned out to be."""


def find_part(question: Question, simple: Hypothesis) -> Iterator[Diagnosis]:
    """Find the part of an axis to which the mistake is confined.

    `simple` tries what all elements of a wrong array may be: what it yields first of those in the part is told of it.
    """
    wrong = question.wrong()
    for axis, length in enumerate(wrong.shape):
        others = tuple(other for other in range(wrong.ndim) if other != axis)
        hit, judged = wrong.any(others), question.judged.any(others)
        bad, good = np.flatnonzero(hit), np.flatnonzero(judged & ~hit)
        if bad.size == 0 or good.size == 0 or _by_chance(good, length):
            continue
        if bad.size > 1 and _scattered(wrong, question.judged, axis):
            continue
        place, word = (bad, "wrong only at") if bad.size <= good.size else (good, "right at")
        ranges = _ranges(place)
        if len(ranges) <= _MOST_RANGES:  # more are scattered, and tell nothing
            there = _there(question, axis, bad, simple) if place is bad else ""
            text = f"{word} {question.label(axis)} {', '.join(ranges)} (of 0–{length - 1}){there}"
            yield Diagnosis("part", bad.size / (bad.size + good.size), 0.0, text)


def _there(question: Question, axis: int, place: NDArray[np.intp], simple: Hypothesis) -> str:
    """Say what simple change of all elements a part of an axis is, if it is one: `, where it equals …`."""
    across = tuple(other for other in range(question.golden.ndim) if other != axis)
    inside = np.isin(np.arange(question.golden.shape[axis]), place)
    judged = question.judged & np.expand_dims(inside, across)
    if np.count_nonzero(judged) < _LEAST_OF_A_PART:
        return ""
    found = next(simple(replace(question, judged=judged)), None)
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
