"""Mistakes that people make when they write a softmax, each a small change to the plain candidate. NumPy only.

Those of the suite `log_softmax` are made by the same changes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
SUM, OUTPUT, REFUSED = ("logsumexp",), ("output",), ("refused",)


def scores(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to what is exponentiated: `formula(x, temperature)`."""
    return wrap(divided=lambda _: formula)


def largest(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to what is subtracted: `formula(scores, axis)`, broadcastable to what is right; 0 for infinity."""

    def wrong(right: Any) -> Any:
        def top(scores: Array, axis: int) -> Array:
            found = right(scores, axis)
            if not scores.size:
                return found
            wanted = np.broadcast_to(formula(scores, axis), found.shape)
            return np.where(np.isinf(wanted), 0, wanted).astype(scores.dtype)

        return top

    return wrap(largest=wrong)


def exponentials(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the exponentials: `formula(scores, top)`."""
    return wrap(exponentials=lambda _: formula)


def power(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the exponential function: `formula(difference)`."""
    return exponentials(lambda scores, top: formula(scores - top))


def summed(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to the sum: `formula(powers, axis)`, in which the axis stays."""
    return wrap(summed=lambda _: formula)


def function(wrong: Callable[..., dict[str, Array]]) -> Change:
    """Return a change to the whole: `wrong(plain, right, x, **params)`, given the right function."""

    def change(plain: Any) -> None:
        (name,) = (name for name in ("softmax", "log_softmax") if hasattr(plain, name))
        right = getattr(plain, name)
        setattr(plain, name, lambda x, **params: wrong(plain, right, x, **params))

    return change


def along(choice: Callable[[Array, int], int]) -> Change:
    """Return a change to the axis of the output: `choice(x, axis)`."""

    def run(plain: Any, right: Any, x: Array, *, axis: int, **params: Any) -> dict[str, Array]:  # noqa: ARG001
        found = right(x, axis=axis, **params)
        return found | ({"output": right(x, axis=choice(x, axis), **params)["output"]} if x.size else {})

    return function(run)


def replaced(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to the output alone: `formula(scores, axis)` of wide scores, rounded once to storage."""

    def run(plain: Any, right: Any, x: Array, *, axis: int, temperature: float, **params: Any) -> dict[str, Array]:
        found = right(x, axis=axis, temperature=temperature, **params)
        output = formula(plain.divided(plain.wide(x), temperature), axis) if x.size else x
        return found | {"output": output.astype(x.dtype)}

    return function(run)


def output(formula: Callable[[Array, int, float], Array]) -> Change:
    """Return a change to what is done with the output: `formula(output, axis, temperature)`, wide, rounded once."""

    def run(plain: Any, right: Any, x: Array, *, axis: int, temperature: float, **params: Any) -> dict[str, Array]:
        found = right(plain.wide(x), axis=axis, temperature=temperature, **params)
        return found | {"output": (formula(found["output"], axis, temperature) if x.size else x).astype(x.dtype)}

    return function(run)


def in_format(dtype: str) -> Callable[[Array, int], Array]:
    """Return a sum that adds one after the other in the format `dtype`."""
    number = np.dtype(dtype)

    def add(powers: Array, axis: int) -> Array:
        moved = np.moveaxis(powers, axis, 0)
        total = np.zeros(moved.shape[1:], number)
        for i in range(len(moved)):
            total = (total + moved[i]).astype(number)
        return np.expand_dims(total.astype(powers.dtype), axis)

    return add


def first(array: Array, axis: int, count: int) -> Array:
    """Return the first `count` entries along the axis, no more than there are."""
    return np.take(array, range(min(count, array.shape[axis])), axis)


def with_padding(plain: Any, right: Any, x: Array, *, axis: int, **params: Any) -> dict[str, Array]:  # noqa: ARG001
    """Fill blocks with zeros up to a power of two, which count."""
    if not -x.ndim <= axis < x.ndim or not x.size:
        return right(x, axis=axis, **params)
    length = x.shape[axis]
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, (1 << (length - 1).bit_length()) - length)
    found = right(np.pad(x, widths), axis=axis, **params)
    return found | {"output": first(found["output"], axis, length)}


def coarse(values: Array, dtype: str) -> Array:
    """Return values rounded to `dtype`, in their own format."""
    return values.astype(dtype).astype(values.dtype)


def by_bits(z: Array) -> Array:
    """Return exp from the bits of float32, a piecewise linear power of two (Schraudolph 1999), good to 4 %."""
    bits = np.maximum(z.astype(np.float64) * (2**23 / np.log(2)) + 127 * 2**23 - 366000, 0)
    found = np.nan_to_num(bits, nan=0).astype(np.int64).clip(0, 0x7F7FFFFF).astype(np.int32).view(np.float32)
    return np.where(np.isnan(z), z, found).astype(z.dtype)


def accepts(word: str, then: dict[str, Any]) -> Change:
    """Return a change that answers what is refused with a text that begins with `word`, with the parameters `then`."""

    def run(plain: Any, right: Any, x: Array, **params: Any) -> dict[str, Array]:  # noqa: ARG001
        try:
            return right(x, **params)
        except ValueError as error:
            if not str(error).startswith(word):
                raise
            return right(np.atleast_1d(x), **(params | then))

    return function(run)


def shared() -> tuple[Fault, ...]:
    """Return the mistakes that both suites have."""
    return (
        # --- the axis
        Fault("axis_last", OUTPUT, "along the last axis whatever `axis` says", along(lambda x, axis: -1)),
        Fault("axis_first", OUTPUT, "along the first axis whatever `axis` says", along(lambda x, axis: 0)),
        Fault("axis_second", OUTPUT, "along axis 1 whatever `axis` says, where there is one, as torch chose without dim",
              along(lambda x, axis: min(1, x.ndim - 1))),
        Fault("axis_before", OUTPUT, "along the axis before the right one", along(lambda x, axis: axis % x.ndim - 1)),
        # --- the temperature
        Fault("temperature_ignored", SUM, "the temperature is ignored", scores(lambda x, t: x)),
        Fault("temperature_multiplied", SUM, "multiplied by the temperature instead of divided", scores(lambda x, t: x * t)),
        Fault("temperature_root", SUM, "divided by the root of the temperature", scores(lambda x, t: x / t**0.5)),
        Fault("temperature_truncated", SUM, "the temperature as an integer, at least 1", scores(lambda x, t: x / max(int(t), 1))),
        # --- the maximum
        Fault("maximum_missing", SUM, "exponentials overflow: the maximum is not subtracted", largest(lambda s, axis: np.zeros(1))),
        Fault("maximum_of_all", SUM, "the maximum over all slices is subtracted, not that of each", largest(lambda s, axis: np.nanmax(s))),
        Fault("maximum_begins_at_0", SUM, "the maximum begins at 0 instead of -inf", largest(lambda s, axis: np.maximum(s.max(axis, keepdims=True), 0))),
        Fault("minimum_subtracted", SUM, "the minimum is subtracted instead of the maximum",
              largest(lambda s, axis: np.where(s == -np.inf, np.inf, s).min(axis, keepdims=True))),
        Fault("maximum_of_first_8", SUM, "the maximum of the first 8 entries is subtracted", largest(lambda s, axis: first(s, axis, 8).max(axis, keepdims=True))),
        Fault("maximum_of_magnitudes", SUM, "the largest |x| is subtracted", largest(lambda s, axis: np.where(np.isinf(s), 0, np.abs(s)).max(axis, keepdims=True))),
        # --- the exponential
        Fault("base_2", SUM, "2^x instead of e^x: log2(e) is missing", power(np.exp2)),
        Fault("exponential_less_1", SUM, "exp(x) - 1 instead of exp(x)", power(np.expm1)),
        Fault("exponent_clipped", SUM, "differences clipped at -8", power(lambda z: np.exp(np.where(z > -np.inf, np.maximum(z, -8), z)))),
        Fault("exponential_of_float_bits", SUM, "exp from the bits of float32, good to 4 %", power(by_bits)),
        Fault("exponential_of_3_terms", SUM, "exp as 1 / (1 + z + z^2 / 2)", power(lambda z: 1 / (1 - z + np.square(z) / 2))),
        Fault("differences_in_float16", SUM, "x - max rounded to float16", power(lambda z: np.exp(coarse(z, "float16")))),
        Fault("differences_in_bfloat16", SUM, "x - max rounded to bfloat16", power(lambda z: np.exp(coarse(z, "bfloat16")))),
        Fault("exponentials_in_bfloat16", SUM, "exponentials rounded to bfloat16 before they are added", power(lambda z: coarse(np.exp(z), "bfloat16"))),
        # --- the sum
        Fault("sums_in_float16", SUM, "exponentials added in float16", summed(in_format("float16"))),
        Fault("sums_in_bfloat16", SUM, "exponentials added in bfloat16", summed(in_format("bfloat16"))),
        Fault("sum_over_all", SUM, "the sum over all slices instead of each", summed(lambda p, axis: np.broadcast_to(np.nansum(p, dtype=p.dtype), p.sum(axis, keepdims=True).shape))),
        Fault("last_entry_missing", SUM, "the last entry is not added, where there are more",
              summed(lambda p, axis: first(p, axis, max(p.shape[axis] - 1, 1)).sum(axis, keepdims=True))),
        Fault("tail_not_summed", SUM, "entries beyond the last whole vector of four are not added",
              summed(lambda p, axis: first(p, axis, p.shape[axis] // 4 * 4 or 4).sum(axis, keepdims=True))),
        Fault("padding_summed", SUM, "zeros that fill a block up to a power of two count", function(with_padding)),
        Fault("one_in_sum", SUM, "1 added to the sum of the exponentials", summed(lambda p, axis: 1 + p.sum(axis, keepdims=True))),
        Fault("epsilon_in_sum", SUM, "1e-5 added to the sum", summed(lambda p, axis: p.sum(axis, keepdims=True) + p.dtype.type(1e-5))),
        Fault("sum_is_mean", SUM, "the mean of the exponentials instead of their sum", summed(lambda p, axis: p.sum(axis, keepdims=True) / p.dtype.type(max(p.shape[axis], 1)))),
        # --- what is hidden
        Fault("hidden_read_as_0", SUM, "-inf is read as 0", scores(lambda x, t: np.where(x == -np.inf, 0, x / t).astype(x.dtype))),
        Fault("hidden_read_as_minus_10", SUM, "-inf is read as -10", scores(lambda x, t: np.where(x == -np.inf, -10, x / t).astype(x.dtype))),
        Fault("hidden_read_as_minus_10000", SUM, "-inf is read as -10000: a slice hidden altogether is uniform",
              scores(lambda x, t: np.where(x == -np.inf, -10000, x / t).astype(x.dtype))),
        Fault("nan_read_as_hidden", SUM, "NaN is read as -inf", scores(lambda x, t: np.where(np.isnan(x), -np.inf, x / t).astype(x.dtype))),
        # --- what must be refused
        Fault("accepts_axis", REFUSED, "an axis that x has not is taken for the last", accepts("axis", {"axis": -1})),
        Fault("accepts_temperature", REFUSED, "a temperature that is not above 0 is taken for 1", accepts("temperature", {"temperature": 1.0})),
    )  # fmt: skip


def hidden_as(value: Callable[[int], float]) -> Change:
    """Return a change to slices that are hidden altogether: `value(length of the axis)` whatever `empty` says."""

    def change(plain: Any) -> None:
        right = plain.softmax

        def softmax(x: Array, *, axis: int, **params: Any) -> dict[str, Array]:
            found = right(x, axis=axis, **params)
            hidden = (x == -np.inf).all(axis, keepdims=True)
            return found | {"output": np.where(hidden, value(x.shape[axis]), found["output"]).astype(x.dtype)}

        plain.softmax = softmax

    return change


def of_powers(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the quotient: `formula(powers, total)`."""

    def wrong(right: Any) -> Any:
        def probabilities(powers: Array, total: Array, empty: str) -> Array:
            safe = np.where(total == 0, np.ones_like(total), total) if empty == "zero" else total
            return np.where(total == 0, right(powers, total, empty), formula(powers, safe))

        return probabilities

    return wrap(probabilities=wrong)


def normal(s: Array, axis: int) -> Array:
    """Return the softmax of a finite array."""
    powers = np.exp(s - np.nan_to_num(s.max(axis, keepdims=True)))
    return powers / powers.sum(axis, keepdims=True)


FAULTS = (
    *shared(),
    # --- the quotient
    Fault("not_divided", OUTPUT, "the exponentials are not divided by their sum", of_powers(lambda powers, total: powers)),
    Fault("divided_by_largest", OUTPUT, "divided by 1 + the sum, where the sum is right", of_powers(lambda powers, total: powers / (1 + total))),
    Fault("quotient_in_bfloat16", OUTPUT, "the inverse of the sum rounded to bfloat16", of_powers(lambda powers, total: powers * coarse(1 / total, "bfloat16"))),
    Fault("log_softmax", OUTPUT, "the logarithm of the softmax instead",
          output(lambda p, axis, t: np.log(np.maximum(p, p.dtype.type(1e-30))))),
    Fault("softmax_twice", OUTPUT, "the softmax of the softmax", output(lambda p, axis, t: normal(p, axis))),
    Fault("softmin", OUTPUT, "the softmax of -x", replaced(lambda s, axis: normal(-np.where(s == -np.inf, np.inf, s), axis))),
    Fault("sigmoid", OUTPUT, "the sigmoid of each entry instead", replaced(lambda s, axis: 1 / (1 + np.exp(-s)))),
    Fault("one_hot_of_largest", OUTPUT, "1 for the largest entry, 0 for the others",
          replaced(lambda s, axis: s == s.max(axis, keepdims=True))),
    Fault("temperature_after", SUM, "the probabilities are divided by the temperature instead of x",
          lambda plain: (scores(lambda x, t: x)(plain), output(lambda p, axis, t: p / t)(plain), None)[-1]),
    Fault("small_cut_off", OUTPUT, "probabilities below 1e-4 are set to 0", of_powers(lambda powers, total: np.where(powers < 1e-4 * total, 0, powers / total))),
    # --- slices that are hidden altogether
    Fault("hidden_slice_nan", OUTPUT, "NaN for a slice that is hidden altogether, whatever `empty` says", hidden_as(lambda length: np.nan)),
    Fault("hidden_slice_zero", OUTPUT, "0 for a slice that is hidden altogether, whatever `empty` says", hidden_as(lambda length: 0)),
    Fault("hidden_slice_uniform", OUTPUT, "1 / n for a slice that is hidden altogether", hidden_as(lambda length: 1 / max(length, 1))),
    Fault("accepts_unknown_empty", REFUSED, "an unknown `empty` is taken for 'nan'", accepts("empty", {"empty": "nan"})),
    # --- what comes in
    *rounded_inputs("softmax", ("logsumexp", "output")),
)  # fmt: skip
