"""The reference of the suite `resample_trajectories`: torch operations on the CPU in float64.

Which samples a target lies between is decided by NumPy on the stamps as given, exactly; only numbers are replayed under
noise. B batch, S samples, T targets, D channels.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import scipy.interpolate
import torch
from numpy.typing import NDArray

from karat import Case
from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Arrays = dict[str, Array]


def resample_trajectories(
    source: torch.Tensor, source_times: torch.Tensor, target_times: torch.Tensor, cotangent: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the checkpoints."""
    (B, S, D), T = source.shape, cotangent.shape[1]
    place = Place(source_times.expand(B, S).numpy(), target_times.expand(B, T).numpy())
    w, i, j = place.weight[..., None], *(at[..., None].expand(B, T, D) for at in (place.index, place.following))
    shares = torch.cat([(1 - w) * cotangent, w * cotangent], 1)  # (B, 2 T, D)
    return {
        "rebased_source_times": place.times,
        "rebased_target_times": place.targets,
        "interval_index": place.index,
        "weight": place.weight,
        "output": interpolated(source, place),
        "source_gradient": torch.zeros_like(source).scatter_add(1, torch.cat([i, j], 1), shares),
    }


def interpolated(source: torch.Tensor, place: "Place") -> torch.Tensor:
    """Return the samples on both sides, mixed or selected, (B, T, D)."""
    B, _, D = source.shape
    x, y = (source.gather(1, at[..., None].expand(B, at.shape[1], D)) for at in (place.index, place.following))
    w, before, after = place.weight[..., None], place.before[..., None], place.after[..., None]  # (B, T, 1)
    return torch.where(after, y, torch.where(before, x, (1 - w) * x + w * y))


class Place:
    """Where targets (B, T) lie among stamps (B, S)."""

    def __init__(self, stamps: Array, targets: Array) -> None:
        """Rebase, locate, and weigh."""
        self.index, self.following, self.before, self.after = intervals(stamps, targets)  # (B, T)
        self.times, self.targets = (rebased(times, stamps[:, :1]) for times in (stamps, targets))  # (B, S), (B, T)
        start, end = (self.times.gather(1, at) for at in (self.index, self.following))  # (B, T)
        gap = torch.where(self.before | self.after, 1.0, end - start)  # (B, T)
        ratio = (self.targets - start) / gap  # (B, T)
        self.weight = torch.where(self.after, 1.0, torch.where(self.before, 0.0, ratio))  # (B, T)


def intervals(stamps: Array, targets: Array) -> tuple[torch.Tensor, ...]:
    """Return the samples before and after each target, and whether it is clamped to the one or to the other, (B, T)."""
    S = stamps.shape[1]
    last = [np.searchsorted(row, at, "right") - 1 for row, at in zip(stamps, targets, strict=True)]  # B of (T,)
    index = np.where(np.isnan(targets), 0, np.reshape(last, targets.shape)).clip(0, max(S - 2, 0)).astype(np.int64)
    following = np.minimum(index + 1, S - 1)
    start, end = (np.take_along_axis(stamps, at, 1) for at in (index, following))
    after = (targets >= end) & (S > 1)
    before = ~after & ((targets <= start) | ((S == 1) & ~np.isnan(targets)))
    return tuple(map(torch.from_numpy, (index, following, before, after)))


def rebased(times: Array, first: Array) -> torch.Tensor:
    """Return times less the first stamp of their row; what float32 holds is exact there, and under noise too."""
    difference = times - first
    exact = torch.from_numpy(np.float32(difference) == difference)
    return torch.where(exact, torch.from_numpy(difference), torch.from_numpy(times) - torch.from_numpy(first))


# --- what must hold of the goldens, row by row -----------------------------------------------------------------------


class Row(NamedTuple):
    """One row of a case: stamps s, targets t, samples x, cotangents c, and its goldens."""

    s: Array
    t: Array
    x: Array
    c: Array
    golden: Arrays


Relation = Callable[[Row], tuple[Any, ...] | None]


def by_rows(relation: Relation) -> Callable[[Mapping[str, Any], Arrays], tuple[Any, ...] | None]:
    """Return a relation between inputs and goldens from one between those of a row, the first or the last."""

    def both(given: Mapping[str, Any], golden: Arrays) -> tuple[Any, ...] | None:
        parts = []
        B = len(given["source"])
        for b in sorted({0, B - 1} if B else ()):
            s, t = (times[b] if times.ndim == 2 else times for times in (given["source_times"], given["target_times"]))
            row = Row(s, t, given["source"][b], given["cotangent"][b], {name: of[b] for name, of in golden.items()})
            part = relation(row)
            parts += [] if part is None else [[np.ravel(np.broadcast_to(array, np.shape(part[0]))) for array in part]]
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True)) if parts else None

    return both


def exact_times(row: Row) -> tuple[Any, ...] | None:
    """Rebase in rational arithmetic."""
    if "rebased_source_times" not in row.golden:
        return None
    first = Fraction(row.s[0])
    times = [float(Fraction(at) - first) if np.isfinite(at) else at for at in (*row.s, *row.t)]
    return np.concatenate([row.golden["rebased_source_times"], row.golden["rebased_target_times"]]), times


def located(s: Array, t: Array) -> list[tuple[int, float]]:
    """Return index and weight of each target by bisection and in rational arithmetic."""
    found = []
    for at in t:
        i = 0 if np.isnan(at) else min(max(bisect_right(s.tolist(), at) - 1, 0), max(len(s) - 2, 0))
        if np.isnan(at) or len(s) == 1:
            weight = at * 0 if np.isnan(at) else 0.0
        elif at >= s[i + 1] or at <= s[i]:
            weight = float(at >= s[i + 1])
        else:
            weight = float((Fraction(at) - Fraction(s[i])) / (Fraction(s[i + 1]) - Fraction(s[i])))
        found.append((i, weight))
    return found


def index_by_bisection(row: Row) -> tuple[Any, ...]:
    """Find the intervals by bisection."""
    return row.golden["interval_index"], [i for i, _ in located(row.s, row.t)]


def rational_weight(row: Row) -> tuple[Any, ...]:
    """Compute the weights in rational arithmetic."""
    return row.golden["weight"], [weight for _, weight in located(row.s, row.t)], 2e-16


def index_in_float32(row: Row) -> tuple[Any, ...]:
    """Find the intervals after rounding."""
    s, t = ((times - row.s[0]).astype(np.float32) for times in (row.s, row.t))
    index = np.where(np.isnan(t), 0, np.searchsorted(s, t, "right") - 1).clip(0, max(len(s) - 2, 0))
    return row.golden["interval_index"], index


def numpy_output(row: Row) -> tuple[Any, ...]:
    """Interpolate with NumPy."""
    return row.golden["output"], by_numpy(row.s, row.t, row.x), 1e-15 * largest(row.x)


def by_numpy(s: Array, t: Array, x: Array) -> Array:
    """Interpolate channel by channel with numpy.interp, (T, D)."""
    with np.errstate(invalid="ignore"):
        found = [np.interp(t, s, channel) for channel in x.T]
    return np.reshape(found, (x.shape[1], len(t))).T


def scipy_output(row: Row) -> tuple[Any, ...] | None:
    """Interpolate with SciPy, which knows neither equal stamps nor ends."""
    s, t, x = row.s, row.t, row.x
    if not (len(s) > 1 and (np.diff(s) > 0).all() and np.isfinite(x).all() and x.size):
        return None
    finite = np.isfinite(t)
    found = scipy.interpolate.interp1d(s, x, axis=0)(np.clip(t[finite], s[0], s[-1]))
    return row.golden["output"][finite], found, 1e-14 * largest(x)


def adjoint(row: Row) -> tuple[Any, ...] | None:
    """Sum source * gradient over the samples, and output * cotangent over the targets."""
    if "source_gradient" not in row.golden or not np.isfinite(row.x).all():
        return None
    along, back = (row.golden["output"] * row.c).sum(0), (row.x * row.golden["source_gradient"]).sum(0)
    return back, along, 1e-13 * (largest(row.x) * np.abs(row.c).sum(0) + 1)


def impulses(row: Row) -> tuple[Any, ...] | None:
    """Interpolate an impulse at each sample."""
    if "source_gradient" not in row.golden or len(row.s) > 100:
        return None
    matrix = by_numpy(row.s, row.t, np.eye(len(row.s)))  # (T, S)
    return row.golden["source_gradient"], matrix.T @ row.c, 1e-13 * (largest(row.c) + 1)


def largest(array: Array) -> float:
    """Return the largest finite magnitude."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


RELATIONS = {
    "rebased stamps are exact in rational arithmetic": by_rows(exact_times),
    "intervals are those of bisection": by_rows(index_by_bisection),
    "weights are those of rational arithmetic, to 2e-16": by_rows(rational_weight),
    "rebased stamps rounded to float32 have the same intervals": by_rows(index_in_float32),
    "the output is numpy.interp's, NaN and infinities too, to 1e-15 of the largest sample": by_rows(numpy_output),
    "the output is that of scipy.interpolate.interp1d, to 1e-14 of the largest sample": by_rows(scipy_output),
    "source * gradient sums to output * cotangent, to 1e-13 of the terms": by_rows(adjoint),
    "the gradient is what numpy.interp makes of impulses, to 1e-13 of the largest cotangent": by_rows(impulses),
}

VERSIONS, WITNESS, NOISE_STEP, reference, _, witness, checks, known_values = operation.generator(
    __file__, resample_trajectories, RELATIONS, versions=("scipy", "torch")
)


def perturbed(case: Case, inputs: Mapping[str, Array], kind: str, seed: int) -> Arrays:
    """Return the checkpoints of `case` with its operations perturbed by NOISE_STEP, as `_noise` says of `kind`.

    Rows and channels that are not kept, which no other touches, are left 0.
    """
    if case.refuses:
        return {}
    rows, _, channels = case.checkpoint("output").kept_index
    cut = {name: operation.doubled(array[rows] if array.ndim > 1 else array) for name, array in inputs.items()}
    cut |= {name: cut[name][..., channels] for name in ("source", "cotangent")}
    with operation.noise.perturbed(kind, seed):
        found = resample_trajectories(**{name: torch.from_numpy(array) for name, array in cut.items()})
    whole = {point.name: np.zeros(point.shape) for point in case.checkpoints}
    for name, array in whole.items():
        array[(rows, slice(None), channels)[: array.ndim]] = found[name].numpy()
    return whole
