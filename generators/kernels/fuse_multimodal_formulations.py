"""Correct ways to fuse streams that differ from the plain candidate: they must pass."""

from typing import Any

import numpy as np
import torch

from karat.faults import Formulation
from karat.freeze import beside

Array = Any


resampling = beside(__file__, "resample_trajectories_formulations")

# Of these, the ways to rebase, search, divide and mix.
OF_RESAMPLING = (
    "two_sum", "from_float64", "counted", "merged", "torch_searchsorted", "reciprocal", "lerp", "fused", "torch_lerp",
    "numpy_interp", "scipy_interp1d", "scipy_spline",
)  # fmt: skip


def written_in_place(plain: Any) -> None:
    """Write each stream where its channels begin, into one array, as a kernel does."""

    def joined(streams: list[Array]) -> Array:
        widths = [stream.shape[2] for stream in streams]
        fused = np.empty((*streams[0].shape[:2], sum(widths)), streams[0].dtype)
        for stream, begin in zip(streams, np.cumsum([0, *widths]), strict=False):
            fused[..., begin : begin + stream.shape[2]] = stream
        return fused

    plain.joined = joined


def own_origin(plain: Any) -> None:
    """Rebase all streams by the same time, the first target of the row, where there is one that is finite."""

    def rebased(source_times: Array, target_times: Array, dtype: Any) -> tuple[Array, Array]:
        first = target_times[:, :1] if target_times.shape[1] else source_times[:, :1]
        first = np.where(np.isfinite(first), first, source_times[:, :1])
        return (source_times - first).astype(dtype), (target_times - first).astype(dtype)

    plain.rebased = rebased


def by_rows(plain: Any) -> None:
    """Align a row at a time."""
    right = plain.aligned

    def aligned(values: Array, times: Array, target_times: Array) -> Array:
        B = len(values)
        times, targets = plain.per_row(times, B), plain.per_row(target_times, B)
        rows = [right(values[b : b + 1], times[b : b + 1], targets[b : b + 1]) for b in range(B)]
        return np.concatenate(rows) if rows else right(values, times, targets)

    plain.aligned = aligned


def by_matrix(left: Array, right: Array, w: Array) -> Array:
    """Sum the samples times their weights, a product with a matrix of two columns."""
    parts = np.stack([left, right], -2) * np.stack([1 - w, w], -2)  # (B, T, 2, D)
    return parts.sum(-2)


def in_torch(plain: Any) -> None:
    """Join with torch.cat."""
    plain.joined = lambda streams: (
        torch.cat([torch.from_numpy(np.asarray(stream, np.float64)) for stream in streams], 2)
        .numpy()
        .astype(streams[0].dtype)
    )


FORMULATIONS = (
    *(formulation for formulation in resampling.FORMULATIONS if formulation.name in OF_RESAMPLING),
    Formulation("written_in_place", "streams written into one array", written_in_place),
    Formulation("common_origin", "times rebased by the first target", own_origin),
    Formulation("by_rows", "a row at a time", by_rows),
    Formulation("by_matrix", "two products summed", resampling.mixed(by_matrix)),
    Formulation("torch_cat", "joined by torch.cat", in_torch),
)
