"""Correct ways to resample trajectories that differ from the plain candidate: they must pass."""

from collections.abc import Callable
from functools import partial
from operator import getitem
from typing import Any

import numpy as np
import scipy.interpolate
import torch

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

faults = beside(__file__, "resample_trajectories_faults")
index, mixed, weight, gradient, clipped = faults.index, faults.mixed, faults.weight, faults.gradient, faults.clipped


# --- times


def two_sum(right: Any) -> Any:
    """Rebase in triples of float32, as a device without float64 does, with what rounding lost (Knuth's two-sum)."""

    def parts(times: Array) -> tuple[Array, Array, Array]:
        upper = np.float32(times)
        middle = np.where(np.isfinite(times), times - upper, 0).astype(np.float32)
        return upper, middle, np.where(np.isfinite(times), times - upper - middle, 0).astype(np.float32)

    def rebase(source_times: Array, target_times: Array, dtype: Any) -> tuple[Array, Array]:
        if dtype == np.float64:
            return right(source_times, target_times, dtype)
        of_first = parts(source_times[:, :1])

        def rebased(times: Array) -> Array:
            (upper, middle, lower), (high, mean, low) = parts(times), of_first
            total = middle - mean
            back = total - middle
            lost = (middle - (total - back)) + (-mean - back)
            return ((upper - high) + total) + (lost + (lower - low))

        return rebased(source_times), rebased(target_times)

    return rebase


def from_float64(plain: Any) -> None:
    """Find intervals and weights from times as they are, in float64, and round at the end."""
    right = plain.rebased
    kept: dict[str, Array] = {}

    def rebased(source_times: Array, target_times: Array, dtype: Any) -> tuple[Array, Array]:
        kept.update(times=source_times, targets=target_times)
        return right(source_times, target_times, dtype)

    of_index, of_weight = plain.interval_index, plain.interval_weight
    plain.rebased = rebased
    plain.interval_index = lambda *_: of_index(kept["times"], kept["targets"])
    plain.interval_weight = lambda times, _, i: of_weight(kept["times"], kept["targets"], i).astype(times.dtype)


# --- intervals


def counted(_: Array, times: Array, targets: Array) -> Array:
    """Count the stamps that are not after the target."""
    return clipped((times[:, None] <= targets[..., None]).sum(-1) - 1, times)


def merged(_: Array, times: Array, targets: Array) -> Array:
    """Walk along stamps and sorted targets with two pointers, row by row."""
    found = np.zeros(targets.shape, np.int64)
    for b, order in enumerate(np.argsort(targets, axis=-1)):
        row, i = times[b].tolist(), -1
        for j, at in zip(order.tolist(), targets[b][order].tolist(), strict=True):
            while i + 1 < len(row) and row[i + 1] <= at:
                i += 1
            found[b, j] = 0 if at != at else i  # noqa: PLR0124 - NaN, which is sorted to the end
    return clipped(found, times)


def bisected(_: Array, times: Array, targets: Array) -> Array:
    """Bisect as many times as it takes, all targets at once."""
    return faults.bisected(int(times.shape[1]).bit_length())(_, times, targets)


def torch_searchsorted(_: Array, times: Array, targets: Array) -> Array:
    """Search with torch, rows at once; NaN, which it puts at the end, is set to 0."""
    found = torch.searchsorted(torch.from_numpy(times.copy()), torch.from_numpy(targets.copy()), right=True)
    return clipped(np.where(np.isnan(targets), 0, found.numpy() - 1), times)


# --- weights


def reciprocal(distance: Array, gap: Array) -> Array:
    """Multiply by 1 / gap."""
    return distance * (1 / np.where(gap == 0, np.inf, gap))


def clamped(w: Array, targets: Array, left: Array, right: Array) -> Array:
    """Clip targets to their interval first, then divide."""
    within = (np.clip(targets, left, right) - left) / np.where(right > left, right - left, np.inf)
    return np.where(right > left, within, w)


# --- outputs


def fused(left: Array, right: Array, w: Array) -> Array:
    """Return fma(w, right, fma(-w, left, left)), each rounded once; two infinities differ or not."""
    inner = (left.astype(np.float64) - w.astype(np.float64) * left).astype(left.dtype)
    return (inner.astype(np.float64) + w.astype(np.float64) * right).astype(left.dtype)


def where_finite(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the mean: `formula(left, right, w)` where both are finite."""

    def mean(left: Array, right: Array, w: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(left) & np.isfinite(right), formula(left, right, w), (1 - w) * left + w * right)

    change: Change = mixed(mean)
    return change


def torch_lerp(left: Array, right: Array, w: Array) -> Array:
    """Interpolate with torch.lerp."""
    return torch.lerp(*(torch.from_numpy(np.ascontiguousarray(array)) for array in (left, right, w))).numpy()


def by_rows(interpolate: Callable[[Array, Array, Array, Callable[[], Array]], Array]) -> Change:
    """Return a change to the output: `interpolate(times, targets, source, plainly)` for each row, (T, D).

    `plainly()` is what the plain candidate gives.
    """

    def change(plain: Any) -> None:
        right, of_times = plain.interpolated, plain.rebased
        kept: dict[str, Array] = {}

        def rebased(source_times: Array, target_times: Array, dtype: Any) -> Any:
            times, targets = of_times(source_times, target_times, dtype)
            kept.update(times=times, targets=targets)
            return times, targets

        def interpolated(source: Array, i: Array, w: Array) -> Array:
            plainly = right(source, i, w)  # (B, T, D)
            for b, x in enumerate(source):
                row = interpolate(kept["times"][b], kept["targets"][b], x, partial(getitem, plainly, b))
                plainly[b] = np.asarray(row).astype(source.dtype)
            return plainly

        plain.rebased, plain.interpolated = rebased, interpolated

    return change


def numpy_interp(times: Array, targets: Array, x: Array, _: Callable[[], Array]) -> Array:
    """Interpolate channel by channel with numpy.interp."""
    found = [np.interp(targets, times, channel) for channel in x.T]
    return np.reshape(found, (x.shape[1], len(targets))).T


def scipy_suits(times: Array, x: Array) -> bool:
    """Say whether SciPy knows what to do: stamps rise, and samples are finite."""
    return len(times) > 1 and x.size > 0 and bool((np.diff(times) > 0).all() and np.isfinite(x).all())


def scipy_interp1d(times: Array, targets: Array, x: Array, plainly: Callable[[], Array]) -> Array:
    """Interpolate with scipy.interpolate.interp1d where it can, and clamp."""
    if not scipy_suits(times, x):
        return plainly()
    x = x.astype(np.float64)
    line = scipy.interpolate.interp1d(times.astype(np.float64), x, axis=0, bounds_error=False, fill_value=(x[0], x[-1]))
    return np.asarray(line(targets.astype(np.float64)))


def scipy_spline(times: Array, targets: Array, x: Array, plainly: Callable[[], Array]) -> Array:
    """Interpolate with SciPy's spline of degree 1 where it can, at targets that are clamped."""
    if not scipy_suits(times, x):
        return plainly()
    line = scipy.interpolate.make_interp_spline(times.astype(np.float64), x.astype(np.float64), k=1)
    inside = np.clip(targets.astype(np.float64), times[0], times[-1])
    found = line(np.where(np.isnan(inside), times[0], inside))
    samples = np.searchsorted(times, inside).clip(0, len(times) - 1)  # at samples the spline may be off by a bit
    found = np.where((times[samples] == inside)[:, None], x[samples], found)
    return np.where(np.isnan(inside)[:, None], np.nan, found)


def in_torch(plain: Any) -> None:
    """Search, interpolate and differentiate with torch, as a model does that trains through it."""

    def interpolated(source: Array, i: Array, w: Array) -> Array:
        return by_torch(torch.from_numpy(source.copy()), i, w).numpy()

    def by_torch(x: torch.Tensor, i: Array, w: Array) -> torch.Tensor:
        at, D = torch.from_numpy(i)[..., None], x.shape[2]
        first = x.gather(1, at.expand(-1, -1, D))
        second = x.gather(1, (at + 1).clamp(max=x.shape[1] - 1).expand(-1, -1, D))
        part = torch.from_numpy(w)[..., None]
        whole = torch.where(
            first.isfinite() & second.isfinite(), torch.lerp(first, second, part), (1 - part) * first + part * second
        )
        return torch.where(part == 0, first, torch.where(part == 1, second, whole))

    def differentiated(cotangent: Array, i: Array, w: Array, S: int) -> Array:
        B, _, D = cotangent.shape
        x = torch.zeros(B, S, D, dtype=torch.from_numpy(cotangent).dtype, requires_grad=True)
        by_torch(x, i, w).backward(torch.from_numpy(cotangent))
        assert x.grad is not None  # noqa: S101 - for mypy
        return x.grad.numpy()

    faults.index(torch_searchsorted)(plain)
    plain.interpolated, plain.source_gradient = interpolated, differentiated


# --- gradients


def shares(cotangent: Array, i: Array, w: Array, S: int) -> tuple[Array, Array]:
    """Return to which samples what is added, (B, 2 T) and (B, 2 T, D)."""
    w = w[..., None]
    return np.concatenate([i, np.minimum(i + 1, S - 1)], 1), np.concatenate([(1 - w) * cotangent, w * cotangent], 1)


def scatter_add(cotangent: Array, i: Array, w: Array, S: int) -> Array:
    """Add with torch.scatter_add."""
    at, terms = (torch.from_numpy(array) for array in shares(cotangent, i, w, S))
    total = torch.zeros(len(cotangent), S, cotangent.shape[2], dtype=terms.dtype)
    return total.scatter_add(1, at[..., None].expand(terms.shape), terms).numpy()


def index_add(cotangent: Array, i: Array, w: Array, S: int) -> Array:
    """Add with torch.index_add, all rows as one."""
    at, terms = (torch.from_numpy(array) for array in shares(cotangent, i, w, S))
    B, _, D = terms.shape
    at = at + S * torch.arange(B)[:, None]
    return (
        torch.zeros(B * S, D, dtype=terms.dtype).index_add(0, at.flatten(), terms.flatten(0, 1)).view(B, S, D).numpy()
    )


def bincount(cotangent: Array, i: Array, w: Array, S: int) -> Array:
    """Add with numpy.bincount, in float64, channel by channel."""
    at, terms = shares(cotangent, i, w, S)
    B, _, D = terms.shape
    flat = (at + S * np.arange(B)[:, None]).reshape(-1)
    sums = [np.bincount(flat, terms[..., d].reshape(-1), B * S) for d in range(D)]
    return np.reshape(sums, (D, B, S)).transpose(1, 2, 0).astype(terms.dtype)


def sorted_segments(cotangent: Array, i: Array, w: Array, S: int) -> Array:
    """Sort by sample, then add each run."""
    at, terms = shares(cotangent, i, w, S)
    total = np.zeros((len(terms), S, terms.shape[2]), terms.dtype)
    for row, places, values in zip(total, at, terms, strict=True):
        order = np.argsort(places, kind="stable")
        samples, starts = np.unique(places[order], return_index=True)
        if len(samples):
            row[samples] = np.add.reduceat(values[order], starts, axis=0)
    return total


def matrix(cotangent: Array, i: Array, w: Array, S: int) -> Array:
    """Multiply by the transposed matrix of weights."""
    B, T, _ = cotangent.shape
    weights = np.zeros((B, T, S), cotangent.dtype)
    rows, targets = np.arange(B)[:, None], np.arange(T)
    weights[rows, targets, i] = 1 - w
    weights[rows, targets, np.minimum(i + 1, S - 1)] += w
    return np.asarray(weights.swapaxes(1, 2) @ cotangent)


def reversed_targets(plain: Any) -> None:
    """Add from the last target to the first."""
    right = plain.source_gradient
    plain.source_gradient = lambda cotangent, i, w, S: right(cotangent[:, ::-1], i[:, ::-1], w[:, ::-1], S)


FORMULATIONS = (
    Formulation("two_sum", "rebased in triples of float32", wrap(rebased=two_sum)),
    Formulation("from_float64", "intervals and weights from float64 times, not rebased", from_float64),
    Formulation("counted", "intervals by counting", index(counted)),
    Formulation("merged", "intervals by two pointers over sorted targets", index(merged)),
    Formulation("bisected", "intervals by bisection", index(bisected)),
    Formulation("torch_searchsorted", "intervals by torch.searchsorted", index(torch_searchsorted)),
    Formulation("reciprocal", "multiplied by 1 / gap", faults.ratio(reciprocal)),
    Formulation("clamped_targets", "targets clipped to their interval, then divided", weight(clamped)),
    Formulation("lerp", "x[i] + w (x[i + 1] - x[i]) where both are finite",
                where_finite(lambda left, right, w: left + w * (right - left))),
    Formulation("fused", "two fused multiply-adds", where_finite(fused)),
    Formulation("torch_lerp", "torch.lerp where both are finite", where_finite(torch_lerp)),
    Formulation("numpy_interp", "numpy.interp", by_rows(numpy_interp)),
    Formulation("scipy_interp1d", "scipy.interpolate.interp1d where stamps rise", by_rows(scipy_interp1d)),
    Formulation("scipy_spline", "a spline of degree 1 by SciPy where stamps rise", by_rows(scipy_spline)),
    Formulation("torch", "searchsorted, gather, lerp and autograd of torch", in_torch),
    Formulation("scatter_add", "gradient by torch.scatter_add", gradient(scatter_add)),
    Formulation("index_add", "gradient by torch.index_add", gradient(index_add)),
    Formulation("bincount", "gradient by numpy.bincount", gradient(bincount)),
    Formulation("sorted_segments", "gradient by runs of sorted samples", gradient(sorted_segments)),
    Formulation("matrix", "gradient by a product with the matrix of weights", gradient(matrix)),
    Formulation("reversed_targets", "gradient from the last target to the first", reversed_targets),
)  # fmt: skip
