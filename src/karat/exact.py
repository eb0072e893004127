"""Compares integers and booleans: equal, or an index that points at a value which ties with the golden's choice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat.compare import Statistics


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
    worst = tuple(int(i) for i in np.unravel_index(indices[0], golden.shape)) if indices.size else None
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
    allowed: NDArray[np.float64],
    *,
    sequential: bool = False,
) -> NDArray[np.bool_]:
    """Say where indices that differ from the golden's point at values that tie with the golden's choice.

    Args:
        candidate: indices into the last axis of `values`, integer.
        golden: the right indices, the same shape: that of `values` without its last axis, or with another length there
            (k choices from each row).
        values: the golden's values, shape (…, n).
        allowed: how far each value may be off, of the shape of `values`; two tie if they differ by at most the root of
            the sum of the squares of both times the root of 2: for equal ones, by twice that.
        sequential: entries along the last axis depend on the earlier ones: after an accepted tie all is accepted.

    An index outside 0…n-1, or twice among the k of a row, ties with nothing; equal infinities tie. Returns
    booleans of the shape of `golden`.
    """
    one_row_each = golden.ndim == values.ndim  # several choices from one row, as in a top k
    rows = np.broadcast_to(values[..., None, :] if one_row_each else values, (*golden.shape, values.shape[-1]))
    inside = (candidate >= 0) & (candidate < values.shape[-1])
    may_err = np.broadcast_to(allowed[..., None, :] if one_row_each else allowed, rows.shape)
    first, second = np.where(inside, candidate, 0).astype(np.int64)[..., None], golden.astype(np.int64)[..., None]
    found, wanted = np.take_along_axis(rows, first, -1)[..., 0], np.take_along_axis(rows, second, -1)[..., 0]
    apart = np.hypot(np.take_along_axis(may_err, first, -1), np.take_along_axis(may_err, second, -1))[..., 0]
    with np.errstate(invalid="ignore"):
        near = np.isfinite(found) & np.isfinite(wanted) & (np.abs(found - wanted) <= math.sqrt(2) * apart)
    tied = inside & (near | (found == wanted))
    if sequential:
        differs = candidate != golden
        first = differs & (np.cumsum(differs, axis=-1) == 1)
        after_first = np.logical_or.accumulate(first, axis=-1)
        return np.asarray(after_first & np.any(first & tied, axis=-1, keepdims=True))
    if one_row_each:
        tied &= (candidate[..., :, None] == candidate[..., None, :]).sum(-1) == 1
    return np.asarray(tied)
