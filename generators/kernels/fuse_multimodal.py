"""The reference of the suite `fuse_multimodal`: the streams one by one as in `resample_trajectories`, then joined.

B batch, S samples, T targets, D channels.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import scipy.interpolate
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")
resampling = beside(__file__, "resample_trajectories")

Array = NDArray[Any]
Arrays = dict[str, Array]

STREAMS = ("vision", "proprioception", "force")


def fuse_multimodal(*, target_times: torch.Tensor, **streams: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the checkpoints."""
    aligned = {}
    for name in STREAMS:
        if name in streams:
            B, S, _ = streams[name].shape
            stamps = streams[f"{name}_times"].expand(B, S).numpy()
            place = resampling.Place(stamps, target_times.expand(B, target_times.shape[-1]).numpy())
            aligned[f"{name}_aligned"] = resampling.interpolated(streams[name], place)  # (B, T, D)
    ends = accumulate((stream.shape[2] for stream in aligned.values()), initial=0)
    return {"channel_offsets": torch.tensor(list(ends)), **aligned, "fused": torch.cat(list(aligned.values()), 2)}


# --- what must hold of the goldens, stream by stream and row by row ---------------------------------------------------

Interpolation = Callable[[Array, Array, Array], Array | None]


def rows(given: Mapping[str, Any], golden: Arrays) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield stamps, targets, samples and their part of the golden `fused`, (T, D), of each stream's rows."""
    begin = 0
    for name in STREAMS:
        for b, samples in enumerate(given.get(name, ())):
            s, t = (times[b] if times.ndim == 2 else times for times in (given[f"{name}_times"], given["target_times"]))
            yield s, t, samples, golden["fused"][b, :, begin : begin + samples.shape[1]]
        begin += given[name].shape[2] if name in given else 0


def by(interpolate: Interpolation, allowed: float) -> Callable[[Mapping[str, Any], Arrays], tuple[Any, ...] | None]:
    """Return the relation that `fused` is what `interpolate(stamps, targets, samples)` gives, where it gives any."""

    def relation(given: Mapping[str, Any], golden: Arrays) -> tuple[Any, ...] | None:
        parts = []
        for s, t, samples, fused in rows(given, golden):
            found = interpolate(s, t, samples)
            if found is not None:
                scale = allowed * resampling.largest(samples)
                parts.append([np.ravel(array) for array in (fused, found, np.full(fused.shape, scale))])
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True)) if parts else None

    return relation


def by_scipy(s: Array, t: Array, x: Array) -> Array | None:
    """Interpolate with SciPy, which knows neither equal stamps nor ends."""
    if not (len(s) > 1 and (np.diff(s) > 0).all() and np.isfinite(x).all() and np.isfinite(t).all() and x.size):
        return None
    return np.asarray(scipy.interpolate.interp1d(s, x, axis=0)(np.clip(t, s[0], s[-1])))


def joined(given: Mapping[str, Any], golden: Arrays) -> tuple[Any, ...]:
    """Cut `fused` at the offsets."""
    parts = np.split(golden["fused"], golden["channel_offsets"][1:-1], 2)
    found = [part.ravel() for part in parts]
    wanted = [golden[f"{name}_aligned"].ravel() for name in STREAMS if name in given]
    return np.concatenate(found), np.concatenate(wanted)


RELATIONS = {
    "fused is numpy.interp's, NaN and infinities too, to 1e-15 of the largest sample": by(resampling.by_numpy, 1e-15),
    "fused is that of scipy.interpolate.interp1d, to 1e-14 of the largest sample": by(by_scipy, 1e-14),
    "fused, cut at the offsets, is the aligned streams": joined,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, fuse_multimodal, RELATIONS, versions=("scipy", "torch")
)
