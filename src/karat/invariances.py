"""Properties that many suites have: what comes later, other rows, what nobody may look at, and a second run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat.suites import Property

Arrays = Mapping[str, NDArray[Any]]


def causality(cases: Sequence[str], checkpoint: str, inputs: Sequence[str], *, axis: int, at: int) -> Property:
    """Return the property that what the `inputs` hold from `at` on, along `axis`, changes nothing before it.

    From there on the second run has them in reverse order, so that every contract holds them; two or more are left.
    """

    def changed(given: Arrays) -> dict[str, NDArray[Any]]:
        return {name: _later_reversed(array, axis, at) if name in inputs else array for name, array in given.items()}

    def compared(first: Arrays, second: Arrays, _: Arrays) -> tuple[Any, Any]:
        before = (slice(None),) * axis + (slice(0, at),)
        return second[checkpoint][before], first[checkpoint][before]

    about = "what comes later changes nothing before"
    return Property("causality", about, tuple(cases), checkpoint, changed, compared)


def _later_reversed(array: NDArray[Any], axis: int, at: int) -> NDArray[Any]:
    order = np.arange(array.shape[axis])
    order[at:] = order[at:][::-1]
    return array.take(order, axis)


def rows_apart(cases: Sequence[str], checkpoint: str, inputs: Sequence[str]) -> Property:
    """Return the property that a row, along the first axis of the `inputs`, depends on itself alone.

    The second run has the rows in reverse order, and must give its outputs so.
    """
    return Property(
        "rows-apart",
        "a row of the batch depends on itself alone",
        tuple(cases),
        checkpoint,
        lambda given: {name: array[::-1].copy() if name in inputs else array for name, array in given.items()},
        lambda first, second, _: (second[checkpoint], first[checkpoint][::-1]),
    )


def repeatable(cases: Sequence[str], checkpoint: str) -> Property:
    """Return the property that two runs on the same inputs give the same bits, at every checkpoint."""
    return Property("repeatable", "two runs on the same inputs give the same bits", tuple(cases), checkpoint)


def padding(cases: Sequence[str], checkpoint: str, ids: str, mask: str, *, other: int) -> Property:
    """Return the property that it does not matter which tokens `ids` has where `mask`, of the same shape, is 0.

    The second run has the token `other` there.
    """
    return Property(
        "padding",
        "which tokens stand in the padding changes nothing",
        tuple(cases),
        checkpoint,
        lambda given: {**given, ids: np.where(given[mask] == 0, given[ids].dtype.type(other), given[ids])},
        lambda first, second, _: (second[checkpoint], first[checkpoint]),
    )
