"""Fusion of streams of different rates in plain NumPy: the definition, to read and to copy.

Each stream is interpolated linearly at the target times, which beyond its samples stays at the first or the last, and
their channels stand side by side: vision, proprioception, force. Times are rebased in float64; then all is computed in
float32 (float64 where the streams are), and rounded once to the format of the streams. B batch, S samples, T targets,
D channels.
"""

import numpy as np


def fuse_multimodal(
    vision, vision_times, proprioception, proprioception_times, target_times, force=None, force_times=None
):
    """Interpolate streams (B, S, D), sampled at (B, S) or (S,), at `target_times` (B, T) or (T,), and join them."""
    if (force is None) != (force_times is None):
        raise ValueError("force and force_times: one is given without the other")
    streams = {"vision": (vision, vision_times), "proprioception": (proprioception, proprioception_times)}
    if force is not None:
        streams["force"] = (force, force_times)
    require_alike(streams, target_times)
    for name, (values, times) in streams.items():
        require_shapes(name, values, times)
        require_rising(name, times)
    found = {f"{name}_aligned": aligned(values, times, target_times) for name, (values, times) in streams.items()}
    fused = joined(list(found.values()))  # (B, T, D1 + D2 + D3)
    return {"channel_offsets": channel_offsets([values.shape[2] for values, _ in streams.values()]), **found} | {
        "fused": fused
    }


def require_alike(streams, target_times):
    """Raise `ValueError` unless all streams have one batch and one format, and targets fit them."""
    if target_times.ndim not in (1, 2):
        raise ValueError("target_times must be (B, T) or (T,)")
    batches = {values.shape[0] for values, _ in streams.values()} | {*target_times.shape[:-1]}
    if len(batches) > 1:
        raise ValueError(f"streams and targets are of several batches: {sorted(batches)}")
    formats = {values.dtype.name for values, _ in streams.values()}
    if len(formats) > 1:
        raise ValueError(f"streams are of several formats: {sorted(formats)}")


def require_shapes(name, values, times):
    """Raise `ValueError` unless a stream's samples and times fit together."""
    if values.ndim != 3 or times.ndim not in (1, 2):
        raise ValueError(f"{name} must be (B, S, D), its times (B, S) or (S,)")
    B, S, _ = values.shape
    if S == 0:
        raise ValueError(f"{name} has no samples")
    if times.shape not in ((B, S), (S,)):
        raise ValueError(f"times {times.shape} of {name} do not fit its batch {B} and length {S}")


def require_rising(name, times):
    """Raise `ValueError` unless all times are finite and no row falls; equal neighbours are right."""
    if not np.isfinite(times).all():
        raise ValueError(f"times of {name} hold NaN or an infinity")
    if not (times[..., 1:] >= times[..., :-1]).all():
        raise ValueError(f"times of {name} fall: they must be sorted in every row")


def channel_offsets(widths):
    """Return where the channels of each stream begin, and where the last end, (number of streams + 1,)."""
    return np.cumsum([0, *widths])


def joined(streams):
    """Return the channels of all streams (B, T, D) side by side, (B, T, D1 + D2 + D3)."""
    return np.concatenate(streams, -1)


def aligned(values, times, target_times):
    """Return a stream (B, S, D) interpolated at `target_times`, (B, T, D), in its own format."""
    B = values.shape[0]
    inside = np.float64 if values.dtype == np.float64 else np.float32
    times, targets = rebased(per_row(times, B), per_row(target_times, B), inside)  # (B, S), (B, T)
    index = interval_index(times, targets)  # (B, T)
    weight = interval_weight(times, targets, index)  # (B, T)
    return interpolated(values.astype(inside), index, weight).astype(values.dtype)


# --- as in resample_trajectories.py -----------------------------------------------------------------------------------


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


def taken(values, index):
    """Return `values` (B, S) or (B, S, D) at the samples `index` (B, T) of each row."""
    return values[np.arange(len(values))[:, None], index]


def right_of(index, S):
    """Return the samples after those at `index`, (B, T); where there is one sample, itself."""
    return np.minimum(index + 1, S - 1)
