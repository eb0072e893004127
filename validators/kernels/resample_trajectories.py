"""Resampling of trajectories by linear interpolation. Symbols: B batch, S samples, T targets, D channels.

Stamps are multiples of powers of 2: all that is said of them, such as which samples a target lies between, is exact.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    resample_trajectories(source, source_times, target_times, cotangent) -> {checkpoint: array}
  source        (B, S, D), in storage; NaN and infinities are values like others
  source_times  (B, S), or (S,) for all rows; float64, in some cases float32, under every contract; in no row falling
  target_times  (B, T), or (T,) for all rows; of the dtype of source_times; in any order, NaN, infinities among them
  cotangent     (B, T, D), in storage
and returns, for s the stamps and x the samples of a row, and t one of its targets:
  rebased_source_times  (B, S) s - s[0], as if in float64, then float32, in which all that follows may be computed:
                        stamps since 1970 themselves float32 knows to two minutes
  rebased_target_times  (B, T) t - s[0], likewise
  interval_index        (B, T) i, the largest with s[i] <= t, but at least 0 and at most S - 2; 0 where S is 1 and where
                        t is NaN: t lies between s[i] and s[i + 1]. Where stamps are equal the last of them counts
  weight                (B, T) w, float32: NaN where t is NaN, else 0 where S is 1, else 1 where t >= s[i + 1], else 0
                        where t <= s[i], else (t - s[i]) / (s[i + 1] - s[i]), with nothing added to the gap
  output                (B, T, D), storage: x[i] where w is 0, x[i + 1] where w is 1, to the last bit and whatever the
                        other is; else (1 - w) x[i] + w x[i + 1], which is infinite where one of the two is, NaN where
                        one is or two infinities differ in sign. So nothing is extrapolated: beyond the samples stands
                        the first or the last of them. NaN in all channels where t is NaN
  source_gradient       (B, S, D), storage: the derivative of sum(output * cotangent) with respect to source:
                        (1 - w) cotangent at i and w cotangent at i + 1, summed over the targets; 0 where no target is
Data is computed in float32 and rounded to storage once. B, T and D may be 0; S may be 1.
It must refuse, by raising: a row of stamps that falls, or holds NaN or an infinity; no samples (S of 0); arrays of
another rank; another B, S, T or D in one array than in another, also where broadcasting could hide it.
No target lies so near a sample that rounding its rebased stamp to float32 could change its interval.
Where implementations disagree this follows numpy.interp: the last of equal stamps, clamped ends, NaN for NaN. It
selects where a weight is 0 or 1, lest 0 * NaN leak out of a neighbour that has no weight.
"""

CONTRACTS = ("float32", "bfloat16-once", "float16-once")
SUITE_NAME = "resample_trajectories"
REBASED = ("rebased_source_times", "rebased_target_times")
Floats = NDArray[np.float64]


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


def irregular(key: str, shape: tuple[int, ...], step: float = 0.5) -> Floats:
    """Return stamps that rise from 0 by 1 to 7 steps each, along the last axis."""
    gaps = integers(key, shape, 1, 8)
    gaps[..., 0] = 0
    return np.cumsum(gaps, axis=-1) * step


def jittered(key: str, shape: tuple[int, ...], step: float = 1.0) -> Floats:
    """Return stamps at every step, each off by up to 3/8 of it."""
    return (np.arange(shape[-1]) + integers(key, shape, -3, 4) / 8) * step


def scattered(key: str, shape: tuple[int, ...], stamps: Floats, step: float = 0.125) -> Floats:
    """Return targets in no order, multiples of `step`, from 16 steps before all stamps to 16 after."""
    low, high = math.floor(stamps.min() / step) - 16, math.ceil(stamps.max() / step) + 17
    return integers(key, shape, low, high) * step


def case(
    name: str,
    about: str,
    source: Recipe | tuple[int, int, int],
    stamps: Floats,
    targets: Floats,
    *,
    times: str = "float64",
    keep: dict[str, tuple[int, int]] | None = None,
    nonfinite: Sequence[str] = (),
) -> Case:
    """Return a case of `source`, random if it is a shape.

    With `keep`, as in `Checkpoint`, rebased times are not asked for; nor is the gradient where weights are NaN.
    """
    without = (*(REBASED if keep else ()), *(("source_gradient",) if "weight" in nonfinite else ()))
    recipe = Dyadic(source, f"{SUITE_NAME}/{name}/source", exponent=-5) if isinstance(source, tuple) else source
    (B, S, D), T = recipe.shape, targets.shape[-1]
    inputs = {
        "source": recipe,
        "source_times": literal(stamps, times),
        "target_times": literal(targets, times),
        "cotangent": Dyadic((B, T, D), f"{SUITE_NAME}/{name}/cotangent", exponent=-6),
    }
    of_samples, of_targets = ("batch", "sample"), ("batch", "target")
    known = {
        "rebased_source_times": ((B, S), of_samples, "accumulation"),
        "rebased_target_times": ((B, T), of_targets, "accumulation"),
        "interval_index": ((B, T), of_targets, "integer"),
        "weight": ((B, T), of_targets, "accumulation"),
        "output": ((B, T, D), (*of_targets, "channel"), "storage"),
        "source_gradient": ((B, S, D), (*of_samples, "channel"), "storage"),
    }
    points = tuple(
        Checkpoint(
            point,
            shape,
            axes,
            dtype=dtype,
            keep={axis: part for axis, part in (keep or {}).items() if axis in axes},
            exact_zeros=point in ("rebased_source_times", "weight", "source_gradient"),
            nonfinite=point in nonfinite,
        )
        for point, (shape, axes, dtype) in known.items()
        if point not in without
    )
    return Case(name, inputs, {}, points, about=about, fixed=dict.fromkeys(("source_times", "target_times"), times))


def refused(name: str, why: str, **shapes: Any) -> Case:
    """Return a case of arrays, of right shapes and stamps but for those given, that must be refused."""
    right: dict[str, Any] = {
        "source": (3, 5, 2),
        "source_times": (3, 5),
        "target_times": (3, 4),
        "cotangent": (3, 4, 2),
    }
    inputs: dict[str, Recipe] = {}
    for argument, given in (right | shapes).items():
        if not argument.endswith("times"):
            inputs[argument] = Dyadic(given, f"{SUITE_NAME}/{name}/{argument}", exponent=-5)
        elif isinstance(given, tuple):
            rising = np.broadcast_to(np.arange(math.prod(given[-1:])), given) if given else np.zeros(())
            inputs[argument] = literal(rising)
        else:
            inputs[argument] = literal(given)
    return Case(name, inputs, {}, (), refuses=why, fixed=dict.fromkeys(("source_times", "target_times"), "float64"))


# --- the grid: 81 combinations, of which the last rows and channels are kept -----------------------------------


def grid_case(B: int, S: int, T: int, D: int) -> Case:
    """Return one combination; small ones have stamps and targets for each row, others share them."""
    name = f"grid-{B}-{S}-{T}-{D}"
    stamps = irregular(f"{name}/stamps", (B, S) if B * S <= 100 else (S,))
    targets = scattered(f"{name}/at", (B, T) if B * T <= 100 else (T,), stamps)
    about = f"B {B}, S {S}, T {T}, D {D}"
    rows, channels, samples = (4, 4, 20) if T == 5 else (1, 1, 50)  # of few targets more, lest their noise be uncertain
    lengths = {"batch": (B, rows), "channel": (D, channels), "sample": (S, samples), "target": (T, 50)}
    keep = {axis: (max(length - most, 0), length) for axis, (length, most) in lengths.items()}
    return case(name, about, (B, S, D), stamps, targets, keep=keep)


GRID = tuple(
    grid_case(B, S, T, D) for B in (1, 8, 32) for S in (10, 100, 500) for T in (5, 50, 250) for D in (7, 14, 32)
)

# --- times ------------------------------------------------------------------------------------------------------------


def times_cases() -> tuple[Case, ...]:
    """Return cases that differ in how stamps and targets lie."""
    rows, shared = irregular("rows", (3, 13)), irregular("shared", (11,))
    jitter, dropouts = jittered("jitter", (2, 19)), np.cumsum(integers("dropouts", (3, 17), 0, 2) * 98 + 1, -1) / 32
    negative = irregular("negative", (2, 15)) - 1000
    tiny = np.cumsum(integers("tiny", (6, 9), 1, 6), -1) * 2.0 ** -np.array([[16], [19], [21], [24], [27], [30]])
    within = integers("within", (6, 23), 0, 4096) / 4096  # as parts of the whole row
    order = integers("order", (3, 29), 0, 13).astype(int)
    doubled = np.array(
        [[0, 0, 0, 2, 5, 5, 8, 9, 9, 9], [0, 1, 2, 2, 2, 2, 3, 7, 8, 8], [1, 1, 4, 6, 6, 7, 7, 9, 12, 12]]
    )
    first, last = rows[:, :1], rows[:, -1:]
    beyond = 2.0 ** np.arange(-9, 9)  # (18,)
    return (
        case("rows", "stamps and targets for each row", (3, 13, 5), rows, scattered("rows/t", (3, 17), rows)),
        case(
            "shared-both",
            "the same stamps and targets for all rows",
            (4, 11, 3),
            shared,
            scattered("shared/t", (7,), shared),
        ),
        case(
            "shared-stamps",
            "the same stamps, targets for each row",
            (3, 11, 4),
            shared,
            scattered("shared-s/t", (3, 9), shared),
        ),
        case(
            "shared-targets",
            "stamps for each row, the same targets",
            (3, 13, 6),
            rows,
            scattered("shared-t/t", (8,), rows),
        ),
        case("jittered", "stamps at a rate, off by 3/8", (2, 19, 3), jitter, scattered("jitter/t", (2, 31), jitter)),
        case(
            "dropouts",
            "gaps of 1/32 and of 3",
            (3, 17, 2),
            dropouts,
            scattered("dropouts/t", (3, 37), dropouts, 1 / 64),
        ),
        case(
            "float32-times",
            "stamps in float32",
            (3, 13, 5),
            rows,
            scattered("float32/t", (3, 19), rows),
            times="float32",
        ),
        case("negative-times", "stamps before 0", (2, 15, 3), negative, scattered("negative/t", (2, 21), negative)),
        case(
            "tiny-gaps",
            "gaps from 2^-16 to 2^-30: what is added to them shows",
            (6, 9, 4),
            tiny,
            tiny[:, :1] + within * (tiny[:, -1:] - tiny[:, :1]),
        ),
        case("on-samples", "targets on samples, in no order", (3, 13, 7), rows, np.take_along_axis(rows, order, -1)),
        case(
            "outside",
            "targets before and after all samples, near and far",
            (3, 13, 5),
            rows,
            np.concatenate([first - beyond, last + beyond, first, last], -1),
        ),
        case(
            "duplicates",
            "equal stamps at both ends and between",
            (3, 10, 4),
            doubled,
            scattered("doubled/t", (3, 41), doubled, 0.25),
        ),
        case(
            "all-equal",
            "all stamps are equal",
            (2, 7, 3),
            np.full((2, 7), [[1.0], [-4.0]]),
            np.array([[0.5, 1, 2, -8, 1], [-4, -4.5, -3, 0, -4]]),
        ),
        case(
            "known-values",
            "what numpy.interp gives",
            literal([[[0], [10], [20], [30]], [[5], [6], [7], [8]], [[1], [2], [3], [3]]], "float32"),
            np.array([[0, 1, 1, 2], [1, 1, 1, 1], [0, 0.5, 1, 2]]),
            np.array([[0.5, 1, 1.5], [0.5, 1, 2], [0.25, 0.75, 1]]),
        ),
        case(
            "target-order", "targets that fall", (2, 19, 3), jitter, -np.sort(-scattered("falling/t", (2, 23), jitter))
        ),
    )


def epoch_cases() -> tuple[Case, ...]:
    """Return cases whose stamps are far from 0 for their distances."""
    rate = jittered("rate", (2, 21), 2.0**-7)  # 128 Hz
    offsets = np.array([[10.0], [100], [1000], [10000], [100000], [1700000000]])
    ladder = jittered("ladder", (6, 12), 2.0**-7)
    fine = np.cumsum(integers("fine", (3, 15), 2**20, 2**23), -1) * 2.0**-22 + 1.7e9  # as float64 holds them: 2^-22 s
    between = np.stack([row[:-1] + np.floor((row[1:] - row[:-1]) * 2.0**22 / 3) * 2.0**-22 for row in fine])
    return (
        case(
            "epoch-seconds",
            "seconds since 1970, 128 Hz",
            (2, 21, 3),
            rate + 1.7e9,
            scattered("rate/t", (2, 27), rate, 2.0**-10) + 1.7e9,
        ),
        case(
            "epoch-microseconds",
            "microseconds since 1970",
            (2, 13, 3),
            irregular("micro", (2, 13), 512) + 1.7e15,
            scattered("micro/t", (2, 19), irregular("micro", (2, 13), 512), 64) + 1.7e15,
        ),
        case(
            "offsets",
            "offsets from 10 to 1.7e9",
            (6, 12, 2),
            ladder + offsets,
            scattered("ladder/t", (6, 14), ladder, 2.0**-11) + offsets,
        ),
        case(
            "epoch-fine",
            "rebased stamps of 27 bits, which float32 rounds",
            (3, 15, 2),
            fine,
            np.concatenate([between, fine[:, 3:7]], -1),
        ),
    )


# --- sizes ------------------------------------------------------------------------------------------------------------


def size_cases() -> tuple[Case, ...]:
    """Return cases of lengths that kernels forget."""
    one = np.concatenate([scattered("one/t", (3, 7), np.zeros(1)), np.full((3, 1), [[np.inf], [-np.inf], [2.0]])], -1)
    many, three, two = irregular("many", (29, 9)), irregular("three", (3, 9)), np.array([[0.0, 1], [2, 5]])

    def long(S: int) -> Case:
        stamps = irregular(f"long-{S}", (S,))
        ends = np.array([stamps[-1] - 0.25, stamps[-2], stamps[-1], stamps[-1] + 1])
        targets = np.concatenate([scattered(f"long-{S}/t", (23,), stamps), ends])
        keep = {"sample": (S - 40, S), "batch": (1, 2)}
        return case(f"long-{S}", f"{S} samples, few targets", (2, S, 3), stamps, targets, keep=keep)

    return (
        case(
            "one-sample",
            "a constant",
            (3, 1, 5),
            np.array([[0.0], [2], [-1]]),
            one,
            nonfinite=("rebased_target_times",),
        ),
        case("two-samples", "one interval", (2, 2, 3), two, scattered("two/t", (2, 11), two)),
        case("one-target", "one target", (29, 9, 5), many, scattered("one-t/t", (29, 1), many)),
        case("one-channel", "one channel", (3, 9, 1), three, scattered("one-c/t", (3, 7), three)),
        case("wide", "35 channels", (2, 9, 35), three[:2], scattered("wide/t", (2, 5), three)),
        case("empty-batch", "B is 0", (0, 5, 3), np.zeros((0, 5)), np.zeros((0, 4))),
        case("empty-targets", "T is 0", (2, 9, 3), three[:2], np.zeros((2, 0))),
        case("empty-channels", "D is 0", (2, 9, 0), three[:2], scattered("no-channels/t", (2, 5), three)),
        long(513),
        long(1000),
        long(4097),
        long(5003),
    )


# --- values -----------------------------------------------------------------------------------------------------------


def value_cases() -> tuple[Case, ...]:
    """Return cases of values that are not finite, or far apart."""
    stamps = np.arange(6.0)
    targets = np.arange(-4, 25) / 4
    column = Dyadic((2, 6, 3), f"{SUITE_NAME}/values", exponent=-5).draw().astype(np.float64)
    nan, infinite = column.copy(), column.copy()
    nan[0, 1, 0] = nan[0, 3:5, 1] = nan[1, 0, 2] = nan[1, 5, 0] = np.nan
    infinite[0, 1, 0] = infinite[1, 0, 2] = infinite[1, 5, 0] = infinite[0, 2:4, 1] = np.inf
    infinite[0, 4, 0] = infinite[0, 4, 1] = infinite[1, 2, 1] = -np.inf
    signs = 1 - 2 * integers("signs", (3, 12, 4), 0, 2)
    steps = signs * 2.0 ** integers("exponents", (3, 12, 4), -12, 13)  # (3, 12, 4)
    three = irregular("magnitudes", (3, 12))
    rows = irregular("bad-targets", (2, 6))
    bad = np.array([[np.nan, 1, np.inf, -np.inf, 2.25, np.nan, 0], [-np.inf, 0.25, np.nan, 1, np.inf, 3, 100]])
    return (
        case("nan-values", "NaN among the samples", literal(nan, "float32"), stamps, targets, nonfinite=("output",)),
        case(
            "infinite-values",
            "infinities among the samples",
            literal(infinite, "float32"),
            stamps,
            targets,
            nonfinite=("output",),
        ),
        case(
            "magnitudes",
            "samples from 2^-12 to 2^12 side by side",
            literal(steps, "float32"),
            three,
            scattered("magnitudes/t", (3, 43), three),
        ),
        case(
            "bad-targets",
            "targets that are NaN or infinite; the gradient is not asked for",
            (2, 6, 3),
            rows,
            bad,
            nonfinite=("rebased_target_times", "weight", "output"),
        ),
    )


# --- what must be refused ---------------------------------------------------------------------------------------------

FALLING: list[list[float]] = [[0.0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 3, 2, 4]]
NAN_STAMP = [[0.0, 1, 2, 3, 4], [0, 1, math.nan, 3, 4], [0, 1, 2, 3, 4]]
INFINITE_STAMP = [[0.0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, math.inf]]

REFUSED = (
    refused("refused-falling", "stamps that fall", source_times=[row[::-1] for row in FALLING]),
    refused("refused-falling-once", "stamps that fall once, in the last row", source_times=FALLING),
    refused("refused-falling-shared", "shared stamps that fall", source_times=FALLING[2]),
    refused("refused-nan-stamp", "a stamp that is NaN", source_times=NAN_STAMP),
    refused("refused-infinite-stamp", "a stamp that is infinite", source_times=INFINITE_STAMP),
    refused("refused-batch-of-stamps", "stamps for 2 rows of 3", source_times=(2, 5)),
    refused("refused-batch-of-one", "stamps for 1 row of 3, which broadcasting would hide", source_times=(1, 5)),
    refused("refused-batch-of-targets", "targets for 1 row of 3", target_times=(1, 4)),
    refused("refused-length", "4 stamps for 5 samples", source_times=(3, 4)),
    refused("refused-shared-length", "6 shared stamps for 5 samples", source_times=(6,)),
    refused("refused-cotangent", "a cotangent for 3 targets of 4", cotangent=(3, 3, 2)),
    refused(
        "refused-rank-of-source", "no batch", source=(5, 2), source_times=(5,), target_times=(4,), cotangent=(4, 2)
    ),
    refused("refused-rank-of-stamps", "stamps of rank 3", source_times=(3, 5, 1)),
    refused("refused-rank-of-targets", "a number for targets", target_times=(), cotangent=(3, 1, 2)),
    refused("refused-no-samples", "no samples", source=(3, 0, 2), source_times=(3, 0)),
)

CASES = (*GRID, *times_cases(), *epoch_cases(), *size_cases(), *value_cases(), *REFUSED)

SUITE = Suite(SUITE_NAME, ABOUT, CONTRACTS, CASES, packed=True)
