"""Fusion of two or three streams of different rates. Symbols: B batch, S samples, T targets, D channels.

Times are multiples of powers of 2: all that is said of them, such as which samples a target lies between, is exact.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    fuse_multimodal(vision, vision_times, proprioception, proprioception_times, target_times,
                    force=None, force_times=None) -> {checkpoint: array}
  vision, proprioception, force  (B, S, D), S and D of its own each, in storage; NaN and infinities are values too
  …_times                        (B, S) of that stream, or (S,) for all rows; float64, in one case float32, under every
                                 contract; in no row falling
  target_times                   (B, T), or (T,) for all rows; of the same dtype; in any order, NaN among them
  force and its times are left out where there are two streams.
and returns:
  channel_offsets         (streams + 1,) integers: where in `fused` the channels of each stream begin, and their number
  vision_aligned, proprioception_aligned, force_aligned (where it is given)
                          (B, T, D) of that stream, storage: the stream at the target times
  fused                   (B, T, D1 + D2 + D3), storage: their channels in this order, vision first
Each stream is aligned as resample_trajectories defines: for s the stamps and x the samples of a row, and t one of its
targets, i is the largest with s[i] <= t, but at least 0 and at most S - 2 (0 where S is 1): of equal stamps the last;
x[0] where t < s[0] or S is 1 and x[S - 1] where t >= s[S - 1], so that nothing is extrapolated; x[i] to the last bit
where t is s[i], whatever the other sample is; else (1 - w) x[i] + w x[i + 1] with w = (t - s[i]) / (s[i + 1] - s[i]),
which is infinite where one of the two is, NaN where one is or two infinities differ in sign; NaN in all channels where
t is NaN. Times differ as if in float64; after that float32 is enough, with one rounding to storage. All streams are
interpolated, one at the targets' own rate too. B, T and D may be 0; S may be 1.
It must refuse, by raising: a row of stamps that falls, or holds NaN or an infinity, in any stream; a stream without
samples; another rank; another S in a stream than in its times; another B in one array than in another, also where
broadcasting could hide it; streams of several formats; force without its times, or these without it.
"""

CONTRACTS = ("float32", "bfloat16-once", "float16-once")
SUITE_NAME = "fuse_multimodal"
STREAMS = ("vision", "proprioception", "force")
Floats = NDArray[np.float64]
Stream = tuple[Recipe | int, Floats]
"""The samples, or the number of channels of random ones, and the stamps."""


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples; what JSON cannot hold, NaN and infinities, into words."""
    if isinstance(values, list):
        return tuple(map(nested, values))
    return values if math.isfinite(values) else str(values)


def literal(values: Any, dtype: str = "float64") -> Recipe:
    """Return the recipe of values written out; where there are none, one that says how many there are not."""
    array = np.asarray(values, np.float64)
    return Literal(nested(array.tolist()), dtype) if array.size else Dyadic(array.shape, SUITE_NAME, exponent=0)


def integers(key: str, shape: tuple[int, ...], low: int, high: int) -> Floats:
    """Return integers in [low, high)."""
    return Integers(shape, f"{SUITE_NAME}/{key}", low, high).draw().astype(np.float64)


def irregular(key: str, shape: tuple[int, ...], step: float, first: float = 0.0) -> Floats:
    """Return stamps that rise from `first` by 1 to 7 steps each, along the last axis."""
    gaps = integers(key, shape, 1, 8)
    gaps[..., 0] = 0
    return first + np.cumsum(gaps, axis=-1) * step


def scattered(key: str, shape: tuple[int, ...], low: float, high: float, step: float = 2.0**-6) -> Floats:
    """Return targets in no order, multiples of `step`, from `low` to `high`."""
    return integers(key, shape, round(low / step), round(high / step)) * step


def case(
    name: str,
    about: str,
    B: int,
    streams: Sequence[Stream],
    targets: Floats,
    *,
    times: str = "float64",
    nonfinite: Sequence[str] = (),
) -> Case:
    """Return a case of two or three streams; those in `nonfinite` are not finite when aligned."""
    T = targets.shape[-1]
    inputs: dict[str, Recipe] = {}
    widths: list[int] = []
    for stream, (values, stamps) in zip(STREAMS, streams, strict=False):
        recipe = (
            Dyadic((B, stamps.shape[-1], values), f"{SUITE_NAME}/{name}/{stream}", exponent=-5)
            if isinstance(values, int)
            else values
        )
        inputs |= {stream: recipe, f"{stream}_times": literal(stamps, times)}
        widths.append(recipe.shape[2])
    inputs["target_times"] = literal(targets, times)
    axes = ("batch", "target", "channel")
    points = [Checkpoint("channel_offsets", (len(streams) + 1,), ("stream",), dtype="integer")]
    points += [
        Checkpoint(f"{stream}_aligned", (B, T, width), axes, nonfinite=stream in nonfinite)
        for stream, width in zip(STREAMS, widths, strict=False)
    ]
    points.append(Checkpoint("fused", (B, T, sum(widths)), axes, nonfinite=bool(nonfinite)))
    return Case(name, inputs, {}, tuple(points), about=about, fixed=fixed(inputs, times))


def fixed(inputs: Mapping[str, Recipe], dtype: str) -> dict[str, str]:
    """Return that all times are given in `dtype`."""
    return {name: dtype for name in inputs if name.endswith("times")}


def refused(name: str, why: str, **given: Any) -> Case:
    """Return a case of three streams, right but for what is given, that must be refused; None leaves an input out.

    A tuple of lengths stands for a random array or for rising stamps, a name for a format that is kept.
    """
    right: dict[str, Any] = {
        "vision": (3, 5, 4),
        "vision_times": (3, 5),
        "proprioception": (3, 7, 2),
        "proprioception_times": (3, 7),
        "force": (3, 6, 3),
        "force_times": (3, 6),
        "target_times": (3, 4),
    }
    kept = {name: value for name, value in given.items() if isinstance(value, str)}
    inputs: dict[str, Recipe] = {}
    for argument, value in (right | {name: value for name, value in given.items() if name not in kept}).items():
        if value is None:
            continue
        if isinstance(value, list):
            inputs[argument] = literal(value)
        elif argument.endswith("times"):
            inputs[argument] = literal(np.broadcast_to(np.arange(math.prod(value[-1:])), value) if value else 1.0)
        else:
            inputs[argument] = Dyadic(value, f"{SUITE_NAME}/{name}/{argument}", exponent=-5)
    narrow = CONTRACTS[1:] if kept else ()  # float32 is what is kept
    return Case(name, inputs, {}, (), refuses=why, fixed=fixed(inputs, "float64") | kept, contracts=narrow)


def rates() -> tuple[Case, ...]:
    """Return cases that differ in how the streams' times lie; none has the width, length or first stamp of another."""
    slow, middle, fast = (
        irregular("slow", (3, 7), 1 / 8),
        irregular("middle", (3, 23), 1 / 32, -0.25),
        irregular("fast", (3, 41), 1 / 64, 0.125),
    )
    shared = (
        irregular("shared", (9,), 1 / 8),
        irregular("shared-2", (19,), 1 / 16),
        irregular("shared-3", (31,), 1 / 32),
    )
    regular = np.arange(6) / 8, np.arange(45) / 64, np.arange(65) / 128  # as 10, 100 and 500 Hz, nearly
    jitter = [
        stamps + integers(f"jitter-{i}", (2, len(stamps)), -3, 4) * step / 8
        for i, (stamps, step) in enumerate(zip(regular, (1 / 8, 1 / 64, 1 / 128), strict=True))
    ]
    early, late = irregular("early", (2, 8), 1 / 16), irregular("late", (2, 11), 1 / 16, 50)
    equal = irregular("equal", (2, 9), 1 / 16)
    doubled = np.array([[0, 0, 1, 3, 3, 3, 5, 5], [1, 2, 2, 2, 4, 6, 6, 6]], np.float64)
    tiny = [
        np.cumsum(integers(f"tiny-{i}", (3, 8 + i), 1, 6), -1) * 2.0 ** -np.array([[19], [24], [28]]) for i in (0, 1, 2)
    ]
    inside = integers("inside", (3, 13), 0, 4096) / 4096
    epoch = 1.7e9
    return (
        case(
            "three-rates",
            "three streams, stamps for each row",
            3,
            ((11, slow), (5, middle), (3, fast)),
            scattered("three", (3, 17), -0.5, 4),
        ),
        case("two-rates", "no force", 3, ((9, slow), (4, middle)), scattered("two", (3, 13), -0.5, 4)),
        case(
            "shared-times",
            "the same times for all rows",
            4,
            ((5, shared[0]), (7, shared[1]), (2, shared[2])),
            scattered("shared-t", (11,), -0.5, 5),
        ),
        case(
            "shared-in-part",
            "times for all rows, of rows, and for all rows",
            3,
            ((3, shared[0]), (6, middle), (4, shared[2])),
            scattered("part", (3, 9), -0.5, 4),
        ),
        case(
            "skewed-rates",
            "1 to 8 to 16, targets at another rate",
            2,
            ((6, regular[0]), (3, regular[1]), (2, regular[2])),
            np.arange(-2, 33) / 48 // (1 / 512) / 512,
        ),
        case(
            "jittered",
            "stamps off by 3/8",
            2,
            ((7, jitter[0]), (3, jitter[1]), (2, jitter[2])),
            scattered("jitter", (2, 19), -0.25, 1),
        ),
        case(
            "phase-shifted",
            "streams that begin and end at other times",
            2,
            ((5, early), (4, early[:, 2:] + 0.3125), (3, early[:, :5] - 0.1875)),
            scattered("phase", (2, 15), -0.5, 3.5),
        ),
        case(
            "apart",
            "streams that do not overlap",
            2,
            ((5, early), (3, late)),
            scattered("apart", (2, 14), -1, 60, 0.25),
        ),
        case(
            "own-rate",
            "targets are the stamps of the first stream, which stays as it is",
            2,
            ((5, equal), (3, jitter[0])),
            equal,
        ),
        case(
            "equal-widths",
            "streams of the same width and stamps: only their order tells them apart",
            2,
            ((3, equal), (3, equal), (3, equal)),
            scattered("widths", (2, 10), -0.5, 4),
        ),
        case(
            "equal-stamps",
            "equal stamps at both ends and between",
            2,
            ((3, doubled), (2, doubled[::-1]), (4, 0 * doubled + 3)),
            scattered("doubled", (2, 31), -1, 7, 0.25),
        ),
        case(
            "tiny-gaps",
            "gaps from 2^-19 to 2^-28: what is added to them shows",
            3,
            ((5, tiny[0]), (3, tiny[1]), (4, tiny[2])),
            tiny[0][:, :1] + inside * (tiny[0][:, -1:] - tiny[0][:, :1]),
        ),
        case(
            "epoch-seconds",
            "seconds since 1970",
            3,
            ((4, slow + epoch), (3, middle + epoch), (2, fast + epoch)),
            scattered("epoch", (3, 12), -0.5, 4) + epoch,
        ),
        case(
            "float32-times",
            "times in float32",
            3,
            ((4, slow), (3, middle), (2, fast)),
            scattered("float32", (3, 9), -0.5, 4),
            times="float32",
        ),
    )


def lengths() -> tuple[Case, ...]:
    """Return cases of lengths and widths that kernels forget."""
    stamps = irregular("lengths", (3, 6), 1 / 8)
    one = np.array([[0.0], [1], [2]])
    many = irregular("long", (600,), 1 / 16)
    targets = scattered("lengths/t", (3, 9), -0.5, 4)
    return (
        case("one-sample-first", "a single sample of vision", 3, ((4, one), (5, stamps), (2, stamps[:, 1:])), targets),
        case(
            "one-sample-second",
            "a single sample of proprioception",
            3,
            ((5, stamps), (3, one), (2, stamps[:, 2:])),
            targets,
        ),
        case("one-sample-third", "a single sample of force", 3, ((3, stamps[:, 3:]), (4, stamps), (5, one)), targets),
        case("one-sample-each", "a single sample of each", 3, ((4, one), (3, one + 1), (2, one - 1)), targets),
        case(
            "one-target",
            "one target",
            3,
            ((3, stamps), (4, stamps[:, 1:]), (2, stamps[:, 2:])),
            np.array([[0.3125], [9], [-1]]),
        ),
        case(
            "one-channel-each", "one channel of each", 3, ((1, stamps), (1, stamps[:, 1:]), (1, stamps[:, 2:])), targets
        ),
        case(
            "wide",
            "37, 19 and 9 channels",
            2,
            ((37, stamps[:2]), (19, stamps[:2, 1:]), (9, stamps[:2, 2:])),
            targets[:2, :5],
        ),
        case(
            "long", "600 samples", 2, ((2, stamps[:2]), (3, many)), scattered("long/t", (13,), 0, float(many[-1]) + 2)
        ),
        case("empty-batch", "B is 0", 0, ((3, stamps[0]), (2, stamps[1]), (4, stamps[2])), targets[0]),
        case("empty-targets", "T is 0", 3, ((3, stamps), (2, stamps[:, 1:])), np.zeros((3, 0))),
        case(
            "empty-width",
            "a stream of no channels between others",
            3,
            ((3, stamps), (0, stamps[:, 1:]), (2, stamps[:, 2:])),
            targets,
        ),
    )


def values() -> tuple[Case, ...]:
    """Return cases of values that are not finite: they stay in their stream."""
    stamps, targets = np.arange(5.0), np.arange(-2, 20) / 4
    samples = Dyadic((2, 5, 3), f"{SUITE_NAME}/values", exponent=-5).draw().astype(np.float64)
    nan, infinite = samples.copy(), -samples
    nan[0, 1, 0] = nan[0, 2:4, 1] = nan[1, 0, 2] = nan[1, 4, 0] = np.nan
    infinite[0, 1, 0] = infinite[1, 0, 2] = infinite[1, 4, 0] = np.inf
    infinite[0, 3, 1] = infinite[1, 2, 1] = -np.inf
    bad = np.concatenate([targets[::4], [np.nan, np.inf, -np.inf, 1.25]])
    return (
        case(
            "nan-values",
            "NaN in the second stream",
            2,
            ((4, stamps), (literal(nan, "float32"), stamps), (2, stamps)),
            targets,
            nonfinite=("proprioception",),
        ),
        case(
            "infinite-values",
            "infinities in the third stream",
            2,
            ((4, stamps), (2, stamps), (literal(infinite, "float32"), stamps)),
            targets,
            nonfinite=("force",),
        ),
        case(
            "bad-targets",
            "targets that are NaN or infinite",
            2,
            ((4, stamps), (3, stamps + 0.5), (2, stamps - 0.25)),
            bad,
            nonfinite=STREAMS,
        ),
    )


FALLING: list[list[float]] = [[0.0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 3, 2, 4, 5]]
NAN_STAMP = [[0.0, 1, 2, 3, 4, 5], [0, 1, math.nan, 3, 4, 5], [0, 1, 2, 3, 4, 5]]

REFUSED = (
    refused("refused-falling-vision", "times of vision that fall", vision_times=[row[:5] for row in FALLING]),
    refused("refused-falling-force", "times of force that fall, in the last row", force_times=FALLING),
    refused("refused-nan-stamp", "a time of force that is NaN", force_times=NAN_STAMP),
    refused("refused-batch-of-targets", "targets for 2 rows of 3", target_times=(2, 4)),
    refused("refused-batch-of-one", "targets for 1 row of 3, which broadcasting would hide", target_times=(1, 4)),
    refused("refused-batch-of-stream", "force of 2 rows, others of 3", force=(2, 6, 3), force_times=(2, 6)),
    refused("refused-batch-of-times", "times of force for 1 row of 3", force_times=(1, 6)),
    refused("refused-length", "6 times for 7 samples of proprioception", proprioception_times=(3, 6)),
    refused("refused-rank", "force without an axis of channels", force=(3, 6)),
    refused("refused-rank-of-targets", "a number for targets", target_times=()),
    refused("refused-no-samples", "no samples of force", force=(3, 0, 3), force_times=(3, 0)),
    refused("refused-times-missing", "force without its times", force_times=None),
    refused("refused-force-missing", "times of force without force", force=None),
    refused("refused-formats", "force in float32, the others in 16 bits", force="float32"),
)

CASES = (*rates(), *lengths(), *values(), *REFUSED)

SUITE = Suite(SUITE_NAME, ABOUT, CONTRACTS, CASES, packed=True)
