"""Resampling of trajectories in plain NumPy: the definition, to read and to copy.

Linear interpolation between the samples around each target, which beyond the samples stays at the first or the last.
Stamps are rebased in float64; then all is computed in float32 (float64 where the source is), and output and gradient
are rounded once to the format of the source. B batch, S samples, T targets, D channels.
"""

import numpy as np


def resample_trajectories(source, source_times, target_times, cotangent):
    """Interpolate `source` (B, S, D), sampled at `source_times` (B, S) or (S,), at `target_times` (B, T) or (T,).

    `cotangent` (B, T, D) is what the gradient with respect to the source is taken along.
    """
    require_shapes(source, source_times, target_times, cotangent)
    require_rising(source_times)
    B, S, _ = source.shape
    times, targets = rebased(per_row(source_times, B), per_row(target_times, B), inside(source))  # (B, S), (B, T)
    index = interval_index(times, targets)  # (B, T)
    weight = interval_weight(times, targets, index)  # (B, T)
    output = interpolated(source.astype(times.dtype), index, weight)  # (B, T, D)
    gradient = source_gradient(cotangent.astype(times.dtype), index, weight, S)  # (B, S, D)
    return {
        "rebased_source_times": times,
        "rebased_target_times": targets,
        "interval_index": index,
        "weight": weight,
        "output": output.astype(source.dtype),
        "source_gradient": gradient.astype(source.dtype),
    }


def require_shapes(source, source_times, target_times, cotangent):
    """Raise `ValueError` unless the shapes fit together."""
    if source.ndim != 3 or cotangent.ndim != 3 or source_times.ndim not in (1, 2) or target_times.ndim not in (1, 2):
        raise ValueError("source must be (B, S, D), cotangent (B, T, D), times (B, S) and (B, T), or (S,) and (T,)")
    B, S, D = source.shape
    if S == 0:
        raise ValueError("source has no samples: S is 0")
    if source_times.shape not in ((B, S), (S,)):
        raise ValueError(f"source_times {source_times.shape} do not fit a source of batch {B} and length {S}")
    if target_times.ndim == 2 and target_times.shape[0] != B:
        raise ValueError(f"target_times of batch {target_times.shape[0]} do not fit a source of batch {B}")
    if cotangent.shape != (B, target_times.shape[-1], D):
        raise ValueError(f"cotangent {cotangent.shape} must be {(B, target_times.shape[-1], D)}, as the output")


def require_rising(source_times):
    """Raise `ValueError` unless all stamps are finite and no row falls; equal neighbours are right."""
    if not np.isfinite(source_times).all():
        raise ValueError("source_times hold NaN or an infinity")
    if not (source_times[..., 1:] >= source_times[..., :-1]).all():
        raise ValueError("source_times fall: they must be sorted in every row")


def inside(source):
    """Return the format that all is computed in: float64 for float64, float32 for all narrower formats."""
    return np.float64 if source.dtype == np.float64 else np.float32


def per_row(times, B):
    """Return times (B, n), those of all rows where they are shared."""
    return np.broadcast_to(times, (B, times.shape[-1])).astype(np.float64)


def rebased(source_times, target_times, dtype):
    """Return both less the first stamp of their row: differences in float64, then in `dtype`."""
    first = source_times[:, :1]  # (B, 1)
    return (source_times - first).astype(dtype), (target_times - first).astype(dtype)


def interval_index(times, targets):
    """Return the largest i with times[i] <= target, at least 0 and at most S - 2, (B, T)."""
    last = [np.searchsorted(row, at, side="right") - 1 for row, at in zip(times, targets, strict=True)]  # B of (T,)
    index = np.array(last, np.int64).reshape(targets.shape)  # (B, T)
    index = np.where(np.isnan(targets), 0, index)  # which searchsorted puts at the end
    return np.clip(index, 0, max(times.shape[1] - 2, 0))


def interval_weight(times, targets, index):
    """Return how far each target lies between its samples, from 0 to 1, (B, T)."""
    left, right = taken(times, index), taken(times, right_of(index, times.shape[1]))  # (B, T)
    after = (targets >= right) & (times.shape[1] > 1)  # (B, T)
    between = ratio(np.where(np.isinf(targets), left, targets) - left, right - left)  # (B, T)
    return np.where(after, 1, np.where(targets <= left, 0, between)).astype(times.dtype)


def ratio(distance, gap):
    """Return distance / gap, 0 where the gap is 0, (B, T)."""
    return distance / np.where(gap == 0, np.inf, gap)


def interpolated(source, index, weight):
    """Return the samples at `index` and after it, mixed by `weight` or selected, (B, T, D)."""
    left, right = taken(source, index), taken(source, right_of(index, source.shape[1]))  # (B, T, D)
    w = weight[..., None]  # (B, T, 1)
    return np.where(w == 0, left, np.where(w == 1, right, mixed(left, right, w)))


def mixed(left, right, w):
    """Return the weighted mean of two samples, (B, T, D)."""
    with np.errstate(invalid="ignore"):  # 0 times infinity is not selected
        return (1 - w) * left + w * right


def source_gradient(cotangent, index, weight, S):
    """Return the gradient of sum(output * cotangent) with respect to the source, (B, S, D)."""
    B, _, D = cotangent.shape
    gradient = np.zeros((B, S, D), cotangent.dtype)
    rows = np.arange(B)[:, None]  # (B, 1)
    w = weight[..., None]  # (B, T, 1)
    np.add.at(gradient, (rows, index), (1 - w) * cotangent)
    np.add.at(gradient, (rows, right_of(index, S)), w * cotangent)
    return gradient


def taken(values, index):
    """Return `values` (B, S) or (B, S, D) at the samples `index` (B, T) of each row."""
    return values[np.arange(len(values))[:, None], index]


def right_of(index, S):
    """Return the samples after those at `index`, (B, T); where there is one sample, itself."""
    return np.minimum(index + 1, S - 1)
