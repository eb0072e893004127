"""Mistakes that people make when they resample trajectories, each a small change to the plain candidate. NumPy only.

M1 to M29 are mistakes of one code base, whose tests passed.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

SOURCE_TIMES, TARGET_TIMES = ("rebased_source_times",), ("rebased_target_times",)
TIMES = (*SOURCE_TIMES, *TARGET_TIMES)
INDEX, WEIGHT, OUTPUT, GRADIENT = ("interval_index",), ("weight",), ("output",), ("source_gradient",)
REFUSED = ("refused",)

truncated = beside(__file__, "_rounding").truncated


def given(**arguments: Callable[[Array, Any], Array]) -> Change:
    """Return a change to arguments before anything is done with them: `argument(array, of all by name)`."""

    def wrong(right: Any) -> Any:
        def resample_trajectories(source: Array, source_times: Array, target_times: Array, cotangent: Array) -> Any:
            arrays = {
                "source": source,
                "source_times": source_times,
                "target_times": target_times,
                "cotangent": cotangent,
            }
            return right(**arrays | {name: change(arrays[name], arrays) for name, change in arguments.items()})

        return resample_trajectories

    change: Change = wrap(resample_trajectories=wrong)
    return change


# --- times


def rebased(formula: Callable[[Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to rebasing: `formula(source_times, target_times)` gives what is subtracted from each."""

    def wrong(_: Any) -> Any:
        def rebase(source_times: Array, target_times: Array, dtype: Any) -> tuple[Array, Array]:
            of_source, of_target = formula(source_times, target_times)
            return (source_times - of_source).astype(dtype), (target_times - of_target).astype(dtype)

        return rebase

    change: Change = wrap(rebased=wrong)
    return change


def cast_first(right: Any) -> Any:
    """Round times to float32, then rebase."""
    return lambda source_times, target_times, dtype: right(np.float32(source_times), np.float32(target_times), dtype)


def as_dense(name: str) -> Change:
    """Return a change that reads shared times as if each row had its own, and zeros lay behind them."""

    def dense(times: Array, arrays: Any) -> Array:
        B = arrays["source"].shape[0]
        if times.ndim == 2 or B == 0:
            return times
        return np.concatenate([times, np.zeros((B - 1) * len(times))]).reshape(B, -1)

    return given(**{name: dense})


def first_row(times: Array, _: Any) -> Array:
    """Return the times of the first row for all."""
    return np.broadcast_to(times[:1], times.shape) if times.ndim == 2 else times


# --- intervals


def index(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the intervals: `formula(index, times, targets)`, given the right ones, (B, T)."""
    change: Change = wrap(
        interval_index=lambda right: lambda times, targets: formula(right(times, targets), times, targets)
    )
    return change


def clipped(i: Array, times: Array) -> Array:
    """Return intervals within 0 … S - 2."""
    return np.clip(i, 0, max(times.shape[1] - 2, 0))


def searched(times: Array, targets: Array, side: Any) -> Array:
    """Return numpy.searchsorted row by row, (B, T)."""
    found = [np.searchsorted(row, at, side) for row, at in zip(times, targets, strict=True)]
    return np.array(found, np.int64).reshape(targets.shape)


def first_of_equal(i: Array, times: Array, targets: Array) -> Array:
    """Return the first of the stamps that are equal to the target, where there is one."""
    first = np.minimum(searched(times, targets, "left"), times.shape[1] - 1)  # (B, T)
    equal = np.take_along_axis(times, first, 1) == targets
    return np.where(equal, clipped(first, times), i)


def bisected(steps: int) -> Callable[[Array, Array, Array], Array]:
    """Return a bisection that ends after so many steps."""

    def formula(_: Array, times: Array, targets: Array) -> Array:
        low = np.zeros(targets.shape, np.int64)  # (B, T)
        high = np.full(targets.shape, times.shape[1])
        for _step in range(steps):
            open_ = high - low > 1
            middle = (low + high) // 2
            below = np.take_along_axis(times, middle, 1) <= targets
            low, high = np.where(open_ & below, middle, low), np.where(open_ & ~below, middle, high)
        return clipped(low, times)

    return formula


def by_position(plain: Any) -> None:
    """Interpolate by positions, as if targets and samples were spread evenly over the same time."""

    def place(times: Array, targets: Array) -> Array:
        S, T = times.shape[1], targets.shape[1]
        return np.broadcast_to(np.arange(T) * ((S - 1) / max(T - 1, 1)), targets.shape)  # (B, T)

    plain.interval_index = lambda times, targets: clipped(np.floor(place(times, targets)).astype(np.int64), times)
    plain.interval_weight = lambda times, targets, i: np.clip(place(times, targets) - i, 0, 1).astype(times.dtype)


# --- weights


def weight(formula: Callable[[Array, Array, Array, Array], Array]) -> Change:
    """Return a change to the weights: `formula(weight, targets, left, right)`, given the right ones, (B, T)."""

    def change(plain: Any) -> None:
        right = plain.interval_weight

        def interval_weight(times: Array, targets: Array, i: Array) -> Array:
            ends = plain.taken(times, i), plain.taken(times, plain.right_of(i, times.shape[1]))
            return formula(right(times, targets, i), targets, *ends).astype(times.dtype)

        plain.interval_weight = interval_weight

    return change


def ratio(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the division: `formula(distance, gap)` where stamps are not equal."""
    change: Change = wrap(ratio=lambda _: lambda distance, gap: np.where(gap == 0, 0, formula(distance, gap)))
    return change


def line(targets: Array, left: Array, right: Array) -> Array:
    """Return where targets lie on the line through both samples, (B, T)."""
    return (targets - left) / np.where(right > left, right - left, np.inf)


def beyond(where: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change that extrapolates `where(targets, left, right)` says."""
    return weight(lambda w, t, left, right: np.where(where(t, left, right) & np.isfinite(t), line(t, left, right), w))


def where_equal(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the weight between equal stamps: `formula(targets, left)`."""
    return weight(lambda w, t, left, right: np.where((left == right) & ~np.isnan(t), formula(t, left), w))


def rounded(array: Array, dtype: Any) -> Array:
    """Return an array rounded to `dtype`, in the format that it has."""
    return array.astype(dtype).astype(array.dtype)


# --- outputs


def output(formula: Callable[[Array, Array, Array, Array], Array]) -> Change:
    """Return a change to the output: `formula(output, source, index, weight)`, given the right one, (B, T, D)."""
    change: Change = wrap(
        interpolated=lambda right: lambda source, i, w: formula(right(source, i, w), source, i, w[..., None])
    )
    return change


def from_source(formula: Callable[[Array], Array]) -> Change:
    """Return a change to what is read: `formula(source)`, (B, S, D)."""
    change: Change = wrap(interpolated=lambda right: lambda source, i, w: right(formula(source), i, w))
    return change


def neighbours(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the output: `formula(left, right, w)` of both samples, whatever w is."""

    def change(plain: Any) -> None:
        plain.interpolated = lambda source, i, w: formula(
            plain.taken(source, i), plain.taken(source, plain.right_of(i, source.shape[1])), w[..., None]
        )

    return change


def mixed(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the mean: `formula(left, right, w)` where w is neither 0 nor 1."""
    change: Change = wrap(mixed=lambda _: formula)
    return change


def mixed_in(dtype: Any) -> Change:
    """Return a change that mixes in the format `dtype`, every operation rounded."""

    def formula(left: Array, right: Array, w: Array) -> Array:
        w, first, second = w.astype(dtype), left.astype(dtype), right.astype(dtype)
        one = np.ones((), dtype)
        return ((one - w) * first + w * second).astype(left.dtype)

    return mixed(formula)


def halves_as_singles(source: Array) -> Array:
    """Return what is read where float16 is stored and float32 is expected, and zeros lie behind it."""
    stored = source.astype(np.float16).tobytes() + bytes(2 * source.size)
    return np.frombuffer(stored, np.float32).reshape(source.shape).astype(source.dtype)


def from_ninth(array: Array) -> Array:
    """Return 0 in the channels after the last whole group of 8."""
    whole = array.shape[-1] - array.shape[-1] % 8
    return np.where(np.arange(array.shape[-1]) < whole, array, 0)


# --- gradients


def gradient(formula: Callable[[Array, Array, Array, int], Array]) -> Change:
    """Return a change to the gradient: `formula(cotangent, index, weight, S)`, (B, S, D)."""
    change: Change = wrap(source_gradient=lambda _: formula)
    return change


def of_gradient(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to the right gradient: `formula(gradient, T)`."""
    change: Change = wrap(
        source_gradient=lambda right: lambda c, i, w, S: formula(right(c, i, w, S), c.shape[1]).astype(c.dtype)
    )
    return change


def scattered(terms: Callable[[Array, Array], tuple[Array, ...]], rows: Callable[[int], Array] | None = None) -> Change:
    """Return a change to what is added: `terms(cotangent, w)` at both samples; in the rows `rows(B)`."""

    def formula(cotangent: Array, i: Array, w: Array, S: int) -> Array:
        B, _, D = cotangent.shape
        total = np.zeros((B, S, D), cotangent.dtype)
        at = (np.arange(B) if rows is None else rows(B))[:, None]
        for place, term in zip((i, np.minimum(i + 1, S - 1)), terms(cotangent, w[..., None]), strict=True):
            np.add.at(total, (at, place), term)
        return total

    return gradient(formula)


def assigned(cotangent: Array, i: Array, w: Array, S: int) -> Array:
    """Write what should be added: of several targets at a sample the last remains."""
    B, _, D = cotangent.shape
    total, rows, w = np.zeros((B, S, D), cotangent.dtype), np.arange(B)[:, None], w[..., None]
    total[rows, i] = (1 - w) * cotangent
    total[rows, np.minimum(i + 1, S - 1)] += w * cotangent
    return total


def summed_in(dtype: Any) -> Change:
    """Return a change that adds in the format `dtype`, target by target."""

    def formula(cotangent: Array, i: Array, w: Array, S: int) -> Array:
        B, T, D = cotangent.shape
        total, rows = np.zeros((B, S, D), cotangent.dtype), np.arange(B)
        for t in range(T):
            for place, share in ((i[:, t], 1 - w[:, t]), (np.minimum(i[:, t] + 1, S - 1), w[:, t])):
                total[rows, place] = rounded(total[rows, place] + share[:, None] * cotangent[:, t], dtype)
        return total

    return gradient(formula)


# --- what must be refused, and is not


def rising(formula: Callable[[Array], Any]) -> Change:
    """Return a change to the check of stamps: they are refused where `formula(source_times)` is false."""

    def require_rising(source_times: Array) -> None:
        if not formula(source_times):
            raise ValueError("source_times fall")

    change: Change = wrap(require_rising=lambda _: require_rising)
    return change


def shortened(plain: Any) -> None:
    """Go as far as the shorter of samples and stamps reaches."""
    right = plain.resample_trajectories

    def resample_trajectories(source: Array, source_times: Array, target_times: Array, cotangent: Array) -> Any:
        S = min(source.shape[-2], source_times.shape[-1]) if source_times.ndim else 0
        if S == 0 or source.ndim != 3:
            return right(source, source_times, target_times, cotangent)
        return right(source[:, :S], source_times[..., :S], target_times, cotangent)

    plain.resample_trajectories = resample_trajectories


def unbatched(plain: Any) -> None:
    """Give a source without a batch one."""
    right = plain.resample_trajectories
    plain.resample_trajectories = lambda source, source_times, target_times, cotangent: right(
        *((source[None], source_times, target_times, cotangent[None]) if source.ndim == 2 else (source, source_times, target_times, cotangent))
    )  # fmt: skip


def answered_without_samples(plain: Any) -> None:
    """Answer with zeros where there is no sample."""
    right = plain.resample_trajectories

    def resample_trajectories(source: Array, source_times: Array, target_times: Array, cotangent: Array) -> Any:
        if source.ndim == 3 and source.shape[1] == 0:
            return {"output": np.zeros_like(cotangent)}
        return right(source, source_times, target_times, cotangent)

    plain.resample_trajectories = resample_trajectories


def raising(where: Callable[[Array, Array], Any], text: str) -> Change:
    """Return a change that refuses what is right, where `where(source, source_times)` says."""

    def refuse(array: Array, arrays: Any) -> Array:
        if arrays["source"].ndim == 3 and where(array, arrays["source_times"]):
            raise ValueError(text)
        return array

    return given(source=refuse)


def of_rows(times: Array, B: int) -> Array:
    """Return times of one row for B."""
    return np.broadcast_to(times, (B, times.shape[1])) if times.ndim == 2 and times.shape[0] == 1 else times


FAULTS = (
    # --- times
    Fault("times_cast_before_rebasing", TIMES, "times rounded to float32 before they are rebased", wrap(rebased=cast_first)),  # M13
    Fault("times_not_rebased", TIMES, "times not rebased", rebased(lambda s, t: (0, 0))),
    Fault("targets_not_rebased", TARGET_TIMES, "only the stamps are rebased", rebased(lambda s, t: (s[:, :1], 0))),
    Fault("rebased_by_first_row", TIMES, "rebased by the first stamp of the first row", rebased(lambda s, t: (s[:1, :1], s[:1, :1]))),
    Fault("rebased_by_last_stamp", TIMES, "rebased by the last stamp", rebased(lambda s, t: (s[:, -1:], s[:, -1:]))),
    Fault("shared_stamps_read_as_rows", (*SOURCE_TIMES, *INDEX), "stamps shared by all rows, stride 0, read as (B, S)", as_dense("source_times")),  # M14
    Fault("shared_targets_read_as_rows", (*TARGET_TIMES, *INDEX), "targets shared by all rows, stride 0, read as (B, T)", as_dense("target_times")),  # M14
    Fault("stamps_of_first_row", (*TIMES, *INDEX, *REFUSED), "the stamps of the first row for all", given(source_times=first_row)),
    Fault("targets_of_first_row", (*TARGET_TIMES, *INDEX), "the targets of the first row for all", given(target_times=first_row)),
    # --- intervals
    Fault("first_512_stamps", INDEX, "only the first 512 stamps are looked at", wrap(interval_index=lambda right: lambda times, t: right(times[:, :512], t))),  # M5
    Fault("bisect_10_steps", INDEX, "a bisection of 10 steps", index(bisected(10))),  # M6
    Fault("bisect_12_steps", INDEX, "a bisection of 12 steps", index(bisected(12))),  # M6
    Fault("by_position", (*INDEX, *WEIGHT), "interpolated by position, whatever the times", by_position),  # M7
    Fault("before_equal_stamps", (*INDEX, *GRADIENT), "the last stamp before the target, not at it", index(lambda i, s, t: np.where(np.isnan(t), i, clipped(searched(s, t, "left") - 1, s)))),  # M9
    Fault("first_of_equal_stamps", INDEX, "the first of equal stamps instead of the last", index(first_of_equal)),  # M9
    Fault("index_early", INDEX, "the interval before the right one", index(lambda i, s, t: clipped(i - 1, s))),
    Fault("index_up_to_last", INDEX, "the last sample begins an interval", index(lambda i, s, t: np.clip(searched(s, t, "right") - 1, 0, s.shape[1] - 1))),
    Fault("targets_taken_for_sorted", INDEX, "a scan that never goes back: targets taken for sorted", index(lambda i, s, t: np.maximum.accumulate(i, 1))),
    Fault("nan_target_at_end", INDEX, "a NaN target in the last interval", index(lambda i, s, t: np.where(np.isnan(t), clipped(s.shape[1], s), i))),
    Fault("one_sample_before", INDEX, "the interval of a single sample begins at -1", index(lambda i, s, t: i - (s.shape[1] == 1))),  # M3
    Fault("one_sample_raises", (), "a single sample raises", raising(lambda x, _: x.shape[1] == 1, "index 1 is out of bounds")),  # M3
    # --- weights
    Fault("extrapolated_right", (*WEIGHT, *GRADIENT), "extrapolated after the last sample", beyond(lambda t, left, right: t > right)),  # M1
    Fault("extrapolated_left", WEIGHT, "extrapolated before the first sample", beyond(lambda t, left, right: t < left)),
    Fault("extrapolated_both", (*WEIGHT, *GRADIENT), "extrapolated at both ends", beyond(lambda t, left, right: (t < left) | (t > right))),  # M2
    Fault("gap_plus_1e-8", WEIGHT, "1e-8 added to the gap", ratio(lambda d, gap: d / (gap + 1e-8))),  # M4
    Fault("gap_at_least_1e-8", WEIGHT, "gaps of at least 1e-8", ratio(lambda d, gap: d / np.maximum(gap, 1e-8))),  # M4
    Fault("gap_at_least_1e-6", WEIGHT, "gaps of at least 1e-6", ratio(lambda d, gap: d / np.maximum(gap, 1e-6))),  # M4
    Fault("gap_below_1e-6_is_0", WEIGHT, "gaps below 1e-6 taken for 0", ratio(lambda d, gap: np.where(gap < 1e-6, 0, d / np.maximum(gap, 1e-30)))),  # M4
    Fault("nearest_sample", WEIGHT, "the nearest sample, not interpolated", weight(lambda w, t, left, right: np.round(w))),  # M8
    Fault("equal_stamps_earlier", WEIGHT, "of equal stamps at the end the earlier", where_equal(lambda t, left: 0 * left)),  # M9
    Fault("equal_stamps_halfway", WEIGHT, "halfway between equal stamps", where_equal(lambda t, left: 0 * left + 0.5)),  # M9
    Fault("equal_stamps_gap_1", WEIGHT, "a gap of 1 between equal stamps", where_equal(lambda t, left: np.clip(t - left, 0, 1))),  # M9
    Fault("nan_target_first_sample", WEIGHT, "a NaN target gives the first sample", weight(lambda w, t, left, right: np.nan_to_num(w))),  # M10
    Fault("infinite_target_nan", WEIGHT, "an infinite target gives NaN", weight(lambda w, t, left, right: np.where(np.isinf(t), np.nan, w))),
    Fault("weight_in_bfloat16", WEIGHT, "the weight rounded to bfloat16", weight(lambda w, t, left, right: rounded(w, ml_dtypes.bfloat16))),  # M28
    Fault("weight_in_float16", WEIGHT, "the weight rounded to float16", weight(lambda w, t, left, right: rounded(w, np.float16))),  # M28
    # --- outputs
    Fault("mixed_the_wrong_way", OUTPUT, "w x[i] + (1 - w) x[i + 1]", mixed(lambda left, right, w: w * left + (1 - w) * right)),
    Fault("previous_sample", OUTPUT, "the sample before, not interpolated", neighbours(lambda left, right, w: left)),
    Fault("unweighted_neighbour_leaks", OUTPUT, "NaN and infinities leak out of a neighbour of weight 0", neighbours(lambda left, right, w: (1 - w) * left + w * right)),
    Fault("sample_not_selected", OUTPUT, "x[i] + w (x[i + 1] - x[i]) at w = 1 too", neighbours(lambda left, right, w: left + w * (right - left))),
    Fault("infinite_difference", OUTPUT, "x[i] + w (x[i + 1] - x[i]), NaN where one is infinite", mixed(lambda left, right, w: left + w * (right - left))),
    Fault("nan_sample_as_0", OUTPUT, "NaN samples taken for 0", from_source(lambda x: np.where(np.isnan(x), 0, x).astype(x.dtype))),
    Fault("nan_target_as_0", OUTPUT, "0 where the target is NaN", output(lambda y, x, i, w: np.where(np.isnan(w), 0, y))),
    Fault("tail_unwritten", OUTPUT, "targets after the last sample are never written", output(lambda y, x, i, w: np.where((w == 1) & (i[..., None] == x.shape[1] - 2), 0, y))),  # M11
    Fault("channels_after_8_dropped", OUTPUT, "channels after the last group of 8 are never written", output(lambda y, x, i, w: from_ninth(y))),  # M12
    Fault("last_target_dropped", OUTPUT, "the last target is never written", output(lambda y, x, i, w: np.where(np.arange(y.shape[1])[:, None] < y.shape[1] - 1, y, 0))),
    Fault("source_transposed", OUTPUT, "the source read as (B, D, S)", from_source(lambda x: x.reshape(len(x), x.shape[2], x.shape[1]).swapaxes(1, 2))),  # M15
    Fault("source_of_first_row", OUTPUT, "the source of the first row for all", from_source(lambda x: np.broadcast_to(x[:1], x.shape))),
    Fault("float16_read_as_float32", OUTPUT, "float16 in memory read as float32", from_source(halves_as_singles)),  # M27
    Fault("mixed_in_bfloat16", OUTPUT, "mixed in bfloat16, every operation rounded", mixed_in(ml_dtypes.bfloat16)),  # M28
    Fault("mixed_in_float16", OUTPUT, "mixed in float16, every operation rounded", mixed_in(np.float16)),  # M28
    Fault("truncated_to_bfloat16", OUTPUT, "cut off to bfloat16 instead of rounded", output(lambda y, x, i, w: truncated(y))),  # M29
    # --- gradients
    Fault("gradient_overwritten", GRADIENT, "of several targets at a sample one counts", gradient(assigned)),
    Fault("gradient_left_only", GRADIENT, "nothing at i + 1", scattered(lambda c, w: ((1 - w) * c, 0 * c))),
    Fault("gradient_weights_swapped", GRADIENT, "w at i and 1 - w at i + 1", scattered(lambda c, w: (w * c, (1 - w) * c))),
    Fault("gradient_of_sum", GRADIENT, "the cotangent taken for 1", scattered(lambda c, w: ((1 - w) + 0 * c, w + 0 * c))),
    Fault("gradient_without_clamped", GRADIENT, "targets beyond the samples and on them left out", scattered(lambda c, w: tuple(np.where((w == 0) | (w == 1), 0, part * c) for part in (1 - w, w)))),
    Fault("gradient_of_first_row", GRADIENT, "all rows added to the first", scattered(lambda c, w: ((1 - w) * c, w * c), lambda B: np.zeros(B, np.int64))),
    Fault("gradient_summed_in_bfloat16", GRADIENT, "summed in bfloat16", summed_in(ml_dtypes.bfloat16)),  # M28
    Fault("gradient_summed_in_float16", GRADIENT, "summed in float16", summed_in(np.float16)),  # M28
    # --- what must be refused
    Fault("falling_stamps_accepted", REFUSED, "falling stamps are accepted", rising(lambda s: np.isfinite(s).all())),
    Fault("stamps_sorted_silently", REFUSED, "falling stamps are sorted", given(source_times=lambda s, _: np.sort(s, -1) if s.ndim else s)),
    Fault("only_first_row_checked", REFUSED, "only the stamps of the first row are checked",
          rising(lambda s: np.isfinite(s).all() and (np.diff(np.atleast_2d(s)[:1]) >= 0).all())),
    Fault("only_ends_checked", REFUSED, "only the first and the last stamp are compared", rising(lambda s: np.isfinite(s).all() and (s[..., -1:] >= s[..., :1]).all())),
    Fault("nan_stamp_accepted", REFUSED, "a NaN stamp is accepted: no comparison with it is true", rising(lambda s: not np.isinf(s).any() and not (s[..., 1:] < s[..., :-1]).any())),
    Fault("infinite_stamp_accepted", REFUSED, "an infinite stamp is accepted", rising(lambda s: not np.isnan(s).any() and (s[..., 1:] >= s[..., :-1]).all())),
    Fault("stamps_broadcast", REFUSED, "stamps of one row broadcast to the batch", given(source_times=lambda s, of: of_rows(s, len(of["source"])))),
    Fault("targets_broadcast", REFUSED, "targets of one row broadcast to the batch", given(target_times=lambda t, of: of_rows(t, len(of["source"])))),
    Fault("batch_repeated", REFUSED, "stamps of fewer rows repeated over the batch",
          given(source_times=lambda s, of: np.resize(s, (len(of["source"]), s.shape[1])) if s.ndim == 2 and len(s) else s)),
    Fault("length_truncated", REFUSED, "as far as the shorter of samples and stamps reaches", shortened),
    Fault("cotangent_repeated", REFUSED, "a cotangent of fewer targets repeated",
          given(cotangent=lambda c, of: np.resize(c, (len(c), of["target_times"].shape[-1], c.shape[2])) if c.ndim == 3 and c.size and of["target_times"].ndim else c)),
    Fault("unbatched_accepted", REFUSED, "a source without a batch is given one", unbatched),
    Fault("rank_3_stamps_squeezed", REFUSED, "an axis of length 1 is dropped", given(source_times=lambda s, _: s[..., 0] if s.ndim == 3 else s)),
    Fault("target_number_accepted", REFUSED, "a number is taken for one target", given(target_times=lambda t, _: np.atleast_1d(t))),
    Fault("no_samples_accepted", REFUSED, "zeros where there are no samples", answered_without_samples),
    Fault("equal_stamps_refused", (), "equal stamps are refused",
          raising(lambda x, s: s.ndim in (1, 2) and (np.diff(s) == 0).any(), "stamps must increase")),
    Fault("empty_batch_refused", (), "an empty batch is refused", raising(lambda x, _: len(x) == 0, "empty batch")),
)  # fmt: skip
