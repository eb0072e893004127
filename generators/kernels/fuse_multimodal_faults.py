"""Mistakes that people make when they fuse streams, each a small change to the plain candidate. NumPy only.

M1 to M29 are mistakes of one code base, whose tests passed. Those of interpolation are the same as in
`resample_trajectories`; here they show in the aligned streams.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

resampling = beside(__file__, "resample_trajectories_faults")

STREAMS = ("vision", "proprioception", "force")
OFFSETS, FUSED, REFUSED = ("channel_offsets",), ("fused",), ("refused",)
ALIGNED = tuple(f"{name}_aligned" for name in STREAMS)

# Their numbers M stand beside them in the other file.
OF_RESAMPLING = (
    "extrapolated_right", "extrapolated_left", "extrapolated_both", "gap_plus_1e-8", "gap_at_least_1e-6",
    "gap_below_1e-6_is_0", "times_cast_before_rebasing", "first_512_stamps", "by_position", "nearest_sample",
    "first_of_equal_stamps", "equal_stamps_earlier", "equal_stamps_halfway",
    "targets_taken_for_sorted", "nan_target_first_sample", "previous_sample", "unweighted_neighbour_leaks",
    "sample_not_selected", "infinite_difference", "nan_sample_as_0", "tail_unwritten", "channels_after_8_dropped",
    "source_transposed", "source_of_first_row", "float16_read_as_float32", "mixed_in_bfloat16", "mixed_in_float16",
    "truncated_to_bfloat16",
)  # fmt: skip


def called(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Return a change to the arguments, by name, before anything is done with them; None where there is no force."""

    def wrong(right: Any) -> Any:
        def fuse_multimodal(**given: Any) -> Any:
            return right(**change(dict.fromkeys(("force", "force_times")) | given))

        return fuse_multimodal

    planted: Change = wrap(fuse_multimodal=wrong)
    return planted


def outputs(formula: Callable[[dict[str, Array], dict[str, Any]], dict[str, Array]]) -> Change:
    """Return a change to what is returned: `formula(found, given)`."""

    def wrong(right: Any) -> Any:
        def fuse_multimodal(**given: Any) -> Any:
            found = right(**given)
            return found | formula(found, given)

        return fuse_multimodal

    planted: Change = wrap(fuse_multimodal=wrong)
    return planted


def joined(formula: Callable[[list[Array]], Array]) -> Change:
    """Return a change to how streams are joined: `formula(streams)`, (B, T, D1 + D2 + D3)."""
    change: Change = wrap(joined=lambda _: formula)
    return change


def in_order(*places: int) -> Change:
    """Return a change to the order of three streams; of two it is reversed."""
    return joined(lambda streams: np.concatenate([streams[i] for i in (places if len(streams) == 3 else (1, 0))], -1))


def overlapping(streams: list[Array]) -> Array:
    """Put every stream after the first where the first ends."""
    fused = np.zeros((*streams[0].shape[:2], sum(stream.shape[2] for stream in streams)), streams[0].dtype)
    fused[..., : streams[0].shape[2]] = streams[0]
    for stream in streams[1:]:
        begin = streams[0].shape[2]
        fused[..., begin : begin + stream.shape[2]] = stream
    return fused


def interleaved(streams: list[Array]) -> Array:
    """Take a channel of each in turn."""
    places = sorted((d, k) for k, stream in enumerate(streams) for d in range(stream.shape[2]))
    parts = [streams[k][..., d : d + 1] for d, k in places]
    return np.concatenate([streams[0][..., :0], *parts], -1)


def same_times(given: dict[str, Any]) -> dict[str, Any]:
    """Take for the stamps of every stream those of vision, as many as there are, and the last again."""

    def stamps(name: str) -> Array:
        times, S = given["vision_times"], given[name].shape[1]
        return times[..., np.minimum(np.arange(S), times.shape[-1] - 1)]

    others = [name for name in STREAMS[1:] if given[name] is not None]
    right = all(given[name].ndim == 3 and given[name].shape[1] == given[f"{name}_times"].shape[-1] for name in others if given[f"{name}_times"] is not None)  # fmt: skip
    return given | ({f"{name}_times": stamps(name) for name in others} if right and given["force"] is not None else {})


def first_as_it_is(plain: Any) -> None:
    """Take the first stream for one at the rate of the targets where it has as many samples, or repeat its last."""
    right, calls = plain.aligned, []

    def aligned(values: Array, times: Array, target_times: Array) -> Array:
        calls.append(values)
        T = target_times.shape[-1]
        if len(calls) % 2 == 1 and plain.streams == 2:
            return values[:, np.minimum(np.arange(T), values.shape[1] - 1)]
        return right(values, times, target_times)

    of_all = plain.fuse_multimodal

    def fuse_multimodal(**given: Any) -> Any:
        plain.streams = 2 if given.get("force") is None else 3
        calls.clear()
        return of_all(**given)

    plain.aligned, plain.fuse_multimodal = aligned, fuse_multimodal


def last_stream_at_common_time(plain: Any) -> None:
    """Clamp targets to the time that all streams share."""
    right = plain.fuse_multimodal

    def fuse_multimodal(**given: Any) -> Any:
        B = given["vision"].shape[0]
        times = [
            plain.per_row(of, B) for name, of in given.items() if name.endswith("_times") and name != "target_times"
        ]
        targets = given["target_times"]
        if targets.ndim and all(of.shape[0] and of.shape[1] for of in times):
            low, high = max(of[:, 0].max() for of in times), min(of[:, -1].min() for of in times)
            targets = np.clip(targets, min(low, high), max(low, high))
        return right(**given | {"target_times": targets})

    plain.fuse_multimodal = fuse_multimodal


def nan_everywhere(found: dict[str, Array], _: dict[str, Any]) -> dict[str, Array]:
    """Return NaN in all channels where one is NaN."""
    bad = np.isnan(found["fused"]).any(-1, keepdims=True)
    return {"fused": np.where(bad, found["fused"].dtype.type(np.nan), found["fused"])}


def zeros_for_force(found: dict[str, Array], given: dict[str, Any]) -> dict[str, Array]:
    """Append a channel of zeros where there is no force."""
    if given.get("force") is not None:
        return {}
    return {"fused": np.concatenate([found["fused"], np.zeros_like(found["fused"][..., :1])], -1)}


def without_force(given: dict[str, Any]) -> dict[str, Any]:
    """Leave force out."""
    return given | dict.fromkeys(("force", "force_times"))


def unless_both(given: dict[str, Any]) -> dict[str, Any]:
    """Leave force out where it or its times are missing."""
    return without_force(given) if given["force"] is None or given["force_times"] is None else given


def broadcast(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Broadcast what has one row to the batch of vision."""
    B = given["vision"].shape[0]
    rows = {name: given[name] for name in names if given[name] is not None and given[name].ndim == 2}
    return given | {
        name: np.broadcast_to(times, (B, times.shape[1])) for name, times in rows.items() if len(times) == 1
    }


def repeated(given: dict[str, Any]) -> dict[str, Any]:
    """Repeat the rows of what has fewer than vision."""
    B = given["vision"].shape[0]
    short = {name: of for name, of in given.items() if of is not None and of.ndim > 1 and 1 < len(of) < B}
    return given | {name: np.resize(of, (B, *of.shape[1:])) for name, of in short.items()}


def shortened(given: dict[str, Any]) -> dict[str, Any]:
    """Go in each stream as far as the shorter of samples and times reaches."""
    changed = dict(given)
    for name in STREAMS:
        values, times = given[name], given[f"{name}_times"]
        if values is not None and times is not None and values.ndim == 3 and min(values.shape[1], times.shape[-1]) > 0:
            S = min(values.shape[1], times.shape[-1])
            changed |= {name: values[:, :S], f"{name}_times": times[..., :S]}
    return changed


def converted(given: dict[str, Any]) -> dict[str, Any]:
    """Convert all streams to the format of vision."""
    streams = {name: given[name] for name in STREAMS if given[name] is not None}
    return given | {name: of.astype(given["vision"].dtype) for name, of in streams.items()}


def only_vision(right: Any) -> Any:
    """Check the times of vision alone."""
    return lambda name, times: right(name, times) if name == "vision" else None


def no_falling(_: Any) -> Any:
    """Refuse NaN and infinities alone."""

    def require_rising(name: str, times: Array) -> None:
        if not np.isfinite(times).all():
            raise ValueError(f"times of {name} are not finite")

    return require_rising


def no_nan(_: Any) -> Any:
    """Refuse falling times by a comparison that NaN passes."""

    def require_rising(name: str, times: Array) -> None:
        if (times[..., 1:] < times[..., :-1]).any():
            raise ValueError(f"times of {name} fall")

    return require_rising


def channel_added(given: dict[str, Any]) -> dict[str, Any]:
    """Take a stream without channels for one of one."""
    streams = {name: given[name] for name in STREAMS if given[name] is not None and given[name].ndim == 2}
    return given | {name: of[..., None] for name, of in streams.items()}


def empty_left_out(given: dict[str, Any]) -> dict[str, Any]:
    """Leave force out where it has no samples."""
    empty = given["force"] is not None and given["force"].ndim == 3 and given["force"].shape[1] == 0
    return without_force(given) if empty else given


def raising(where: Callable[[Array, Array], Any], text: str) -> Change:
    """Return a change that refuses what is right, where `where(samples, times)` says of a stream."""

    def refuse(given: dict[str, Any]) -> dict[str, Any]:
        for name in STREAMS:
            values, times = given[name], given[f"{name}_times"]
            if values is not None and times is not None and values.ndim == 3 and where(values, times):
                raise ValueError(text)
        return given

    return called(refuse)


FAULTS = (
    # --- interpolation: M1, M2, M4 to M13, M15, M27 to M29, as in resample_trajectories
    *(replace(fault, at=ALIGNED) for fault in resampling.FAULTS if fault.name in OF_RESAMPLING),
    Fault("one_sample_raises", (), "a single sample raises: index 1 is out of bounds", raising(lambda x, _: x.shape[1] == 1, "out of bounds")),  # M3
    Fault("one_sample_zeros", ALIGNED, "zeros where a stream has a single sample",
          wrap(aligned=lambda right: lambda values, *times: right(values * (values.shape[1] > 1), *times))),  # M3
    # --- which stream, and where
    Fault("times_of_vision", (*ALIGNED, *REFUSED), "the times of vision for all three streams", called(same_times)),
    Fault("first_stream_as_it_is", ALIGNED, "of two streams the first kept as it is, as if targets were its times", first_as_it_is),
    Fault("clamped_to_common_time", ALIGNED, "targets clamped to the time that all streams share", last_stream_at_common_time),
    Fault("order_of_rates", FUSED, "proprioception, vision, force", in_order(1, 0, 2)),  # M26
    Fault("order_reversed", FUSED, "force, proprioception, vision", in_order(2, 1, 0)),  # M26
    Fault("order_rotated", FUSED, "force, vision, proprioception", in_order(2, 0, 1)),  # M26
    Fault("third_stream_over_second", FUSED, "the third stream written where the second begins", joined(overlapping)),  # M26
    Fault("channels_interleaved", FUSED, "a channel of each stream in turn", joined(interleaved)),  # M26
    Fault("last_stream_unwritten", FUSED, "zeros for the last stream", joined(lambda s: np.concatenate([*s[:-1], 0 * s[-1]], -1).astype(s[0].dtype))),
    Fault("first_stream_twice", FUSED, "as many channels of the first stream as the second has, for it",
          joined(lambda s: np.concatenate([s[0], np.resize(s[0], s[1].shape) if s[0].size else s[1], *s[2:]], -1))),
    Fault("offsets_without_end", OFFSETS, "offsets that end where the last stream begins", wrap(channel_offsets=lambda _: lambda widths: np.cumsum([0, *widths[:-1], 0]))),
    Fault("offsets_of_widths", OFFSETS, "widths for offsets", wrap(channel_offsets=lambda _: lambda widths: np.array([0, *widths]))),
    Fault("offsets_in_multiples_of_8", OFFSETS, "widths rounded up to multiples of 8",
          wrap(channel_offsets=lambda right: lambda widths: right([-(-width // 8) * 8 for width in widths]))),
    Fault("force_of_zeros", FUSED, "a channel of zeros where there is no force", outputs(zeros_for_force)),
    Fault("force_ignored", (*OFFSETS, *REFUSED), "force is ignored", called(without_force)),
    Fault("nan_in_all_streams", FUSED, "NaN in one stream is NaN in all", outputs(nan_everywhere)),
    # --- what must be refused
    Fault("falling_times_accepted", REFUSED, "falling times are accepted", wrap(require_rising=no_falling)),
    Fault("only_vision_checked", REFUSED, "only the times of vision are checked", wrap(require_rising=only_vision)),
    Fault("nan_time_accepted", REFUSED, "a NaN time is accepted: no comparison with it is true", wrap(require_rising=no_nan)),
    Fault("targets_broadcast", REFUSED, "targets of one row broadcast to the batch", called(lambda given: broadcast(given, ("target_times",)))),
    Fault("times_broadcast", REFUSED, "times of one row broadcast to the batch",
          called(lambda given: broadcast(given, ("vision_times", "proprioception_times", "force_times")))),
    Fault("rows_repeated", REFUSED, "rows repeated where there are too few", called(repeated)),
    Fault("length_truncated", REFUSED, "as far as the shorter of samples and times reaches", called(shortened)),
    Fault("formats_mixed", REFUSED, "streams of several formats are converted", called(converted)),
    Fault("force_without_times_dropped", REFUSED, "force without times, or times without it, is left out", called(unless_both)),
    Fault("force_without_samples_dropped", REFUSED, "force without samples is left out", called(empty_left_out)),
    Fault("rank_2_accepted", REFUSED, "a stream without an axis of channels is given one", called(channel_added)),
    Fault("target_number_accepted", REFUSED, "a number is taken for one target",
          called(lambda given: given | {"target_times": np.atleast_1d(given["target_times"])})),
    Fault("equal_times_refused", (), "equal times are refused", raising(lambda _, s: s.ndim in (1, 2) and (np.diff(s) == 0).any(), "times must increase")),
    Fault("empty_batch_refused", (), "an empty batch is refused", raising(lambda x, _: len(x) == 0, "empty batch")),
)  # fmt: skip
