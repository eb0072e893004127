"""Mistakes that people make when they write RMSNorm, each a small change to the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
INVERSE, OUTPUT, REFUSED = ("inverse_rms",), ("output",), ("refused",)


def inverse(formula: Callable[[Array, float, str], Array]) -> Change:
    """Return a change to what rows are multiplied by: `formula(mean_square, epsilon, epsilon_is)`, (..., 1)."""
    return wrap(inverse_rms=lambda _: formula)


def inside(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to that where epsilon is inside the root: `formula(mean_square, epsilon)`, (..., 1)."""
    return wrap(
        inverse_rms=lambda right: (
            lambda ms, eps, where: formula(ms, eps) if where == "inside_root" else right(ms, eps, where)
        )
    )


def outside(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to that where epsilon is outside the root: `formula(mean_square, epsilon)`, (..., 1)."""
    return wrap(
        inverse_rms=lambda right: (
            lambda ms, eps, where: formula(ms, eps) if where == "outside_root" else right(ms, eps, where)
        )
    )


def epsilon(value: float) -> Change:
    """Return a change to epsilon, whatever the parameter says."""
    return wrap(inverse_rms=lambda right: lambda ms, eps, where: right(ms, value, where))


def mean_square(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the mean square: `formula(x)`, (..., 1)."""
    return wrap(mean_square=lambda _: formula)


def scaled(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the weight: `formula(normed, factor)`, the factor being 1 + weight where Gemma has it so."""

    def change(normed: Array, weight: Array, weight_is: str) -> Array:
        return formula(normed, weight if weight_is == "factor" else 1 + weight)

    return wrap(scaled=lambda _: change)


def weight(formula: Callable[[Array, Array, str], Array]) -> Change:
    """Return a change to the weight: `formula(normed, weight, weight_is)`, (..., D)."""
    return wrap(scaled=lambda _: formula)


def of_input(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the rows before they are multiplied: `formula(x)`; their RMS stays that of x."""

    def change(plain: Any) -> None:
        right, wide = plain.rms_norm, plain.wide

        def rms_norm(x: Array, weight: Array, **params: Any) -> dict[str, Array]:
            found = right(x, weight, **params)
            output = plain.scaled(formula(wide(x)) * found["inverse_rms"][..., None], wide(weight), params["weight_is"])
            return found | {"output": output.astype(x.dtype)}

        plain.rms_norm = rms_norm

    return change


def weight_before_norm(plain: Any) -> None:
    """Multiply x by the factors before it is normalised."""
    right = plain.rms_norm

    def rms_norm(x: Array, weight: Array, **params: Any) -> dict[str, Array]:
        factors = weight if params["weight_is"] == "factor" else (1 + plain.wide(weight))
        wide = plain.wide(x) * plain.wide(factors)
        found = right(wide, np.zeros_like(plain.wide(weight)), **(params | {"weight_is": "factor_less_one"}))
        return {name: array.astype(x.dtype if name == "output" else array.dtype) for name, array in found.items()}

    plain.rms_norm = rms_norm


def mean(x: Array, axis: Any = -1) -> Array:
    """Return the mean, (..., 1)."""
    return x.mean(axis, keepdims=True)


def over_tokens(x: Array) -> Array:
    """Return the mean square over the axis before the last, where there is one, for the channel with the row's number."""
    if x.ndim == 1 or not x.size:
        return mean(np.square(x))
    return np.resize(np.square(x).mean(-2), (*x.shape[:-1], 1)).astype(x.dtype)


def summed_in(dtype: str, *, squares_too: bool = False) -> Change:
    """Return a change that adds squares up one after the other in the format `dtype`."""
    number = np.dtype(dtype)

    def formula(x: Array) -> Array:
        squares = np.square(x.astype(number)) if squares_too else np.square(x)
        if squares_too:
            return squares.astype(x.dtype).mean(-1, keepdims=True)
        total = np.zeros((*x.shape[:-1], 1), number)  # (..., 1)
        for i in range(x.shape[-1]):
            total = (total + squares[..., i : i + 1]).astype(number)
        return total.astype(x.dtype) / x.dtype.type(x.shape[-1])

    return mean_square(formula)


def whole_vectors(x: Array) -> Array:
    """Return the mean square without the squares beyond the last whole vector of four, where there is one."""
    whole = x.shape[-1] // 4 * 4
    return np.square(x[..., : whole or None]).sum(-1, keepdims=True) / x.dtype.type(x.shape[-1])


def padded_width(x: Array) -> Array:
    """Return the sum of squares over the width rounded up to a power of two."""
    return np.square(x).sum(-1, keepdims=True) / x.dtype.type(1 << (x.shape[-1] - 1).bit_length())


def one_for_all(x: Array) -> Array:
    """Return the mean square of all rows for each."""
    if not x.size:
        return mean(np.square(x))
    return np.broadcast_to(np.square(x).mean(dtype=x.dtype), (*x.shape[:-1], 1))


def row_before(x: Array) -> Array:
    """Return the mean square of the row before, that of the last row for the first."""
    found = mean(np.square(x))
    return np.roll(found.ravel(), 1).reshape(found.shape)


def fast_inverse_root(ms: Array, eps: float) -> Array:
    """Return the inverse root from the bits of float32 and one step of Newton's."""
    number = (ms + eps).astype(np.float32)
    guess = (np.int32(0x5F3759DF) - (np.ascontiguousarray(number).view(np.int32) >> 1)).view(np.float32)
    return (guess * (1.5 - 0.5 * number * guess * guess)).astype(ms.dtype)


def accepts(*words: str) -> Change:
    """Return a change that does not refuse what is refused with a text that begins with one of `words`."""

    def wrong(right: Any) -> Any:
        def refuse(*arguments: Any) -> None:
            try:
                right(*arguments)
            except ValueError as error:
                if not str(error).startswith(words):
                    raise

        return refuse

    return wrap(refuse=wrong)


def any_weight(plain: Any) -> None:
    """Accept any number of weights, repeat them or leave some out."""
    accepts("weight (")(plain)
    right = plain.scaled
    plain.scaled = lambda normed, weight, weight_is: right(normed, np.resize(weight, normed.shape[-1]), weight_is)


def no_channels(plain: Any) -> None:
    """Return what has no channels as it is."""
    right = plain.rms_norm

    def rms_norm(x: Array, weight: Array, **params: Any) -> dict[str, Array]:
        if x.size and x.ndim:
            return right(x, weight, **params)
        return {"inverse_rms": np.zeros(x.shape[:-1], plain.wide(x).dtype), "output": x}

    plain.rms_norm = rms_norm


FAULTS = (
    # --- epsilon
    Fault("epsilon_missing", INVERSE, "no epsilon", epsilon(0.0)),
    Fault("epsilon_1e-5", INVERSE, "epsilon 1e-5 whatever the parameter says", epsilon(1e-5)),
    Fault("epsilon_1e-6", INVERSE, "epsilon 1e-6 whatever the parameter says", epsilon(1e-6)),
    Fault("epsilon_1e-8", INVERSE, "epsilon 1e-8 whatever the parameter says", epsilon(1e-8)),
    Fault("epsilon_outside_root", INVERSE, "sqrt(mean square) + epsilon instead of sqrt(mean square + epsilon)",
          inside(lambda ms, eps: 1 / (np.sqrt(ms) + eps))),
    Fault("epsilon_inside_root", INVERSE, "sqrt(mean square + epsilon) instead of sqrt(mean square) + epsilon",
          outside(lambda ms, eps: 1 / np.sqrt(ms + eps))),
    Fault("epsilon_squared_inside_root", INVERSE, "sqrt(mean square + epsilon^2) instead of sqrt(mean square) + epsilon",
          outside(lambda ms, eps: 1 / np.sqrt(ms + eps * eps))),
    Fault("epsilon_as_floor", INVERSE, "the larger of mean square, or RMS, and epsilon, instead of their sum",
          inverse(lambda ms, eps, where: 1 / np.sqrt(np.maximum(ms, eps)) if where == "inside_root" else 1 / np.maximum(np.sqrt(ms), eps))),
    Fault("epsilon_inside_mean", INVERSE, "epsilon added to the sum of squares before it is divided by D, or to the Euclidean norm",
          wrap(rms_norm=lambda right: lambda x, weight, *, epsilon, **params: right(x, weight, **params,
               epsilon=epsilon / (x.shape[-1] if params["epsilon_is"] == "inside_root" else x.shape[-1] ** 0.5)))),
    Fault("epsilon_twice", INVERSE, "epsilon added twice", inverse(lambda ms, eps, where: 1 / np.sqrt(ms + 2 * eps) if where == "inside_root" else 1 / (np.sqrt(ms) + 2 * eps))),
    Fault("epsilon_subtracted", INVERSE, "epsilon subtracted where the mean square is larger",
          inverse(lambda ms, eps, where: 1 / np.sqrt(np.where(ms > 2 * eps, ms - eps, ms + eps)) if where == "inside_root" else 1 / np.where(ms > 4 * eps * eps, np.sqrt(ms) - eps, np.sqrt(ms) + eps))),
    # --- the mean square
    Fault("layer_norm", OUTPUT, "LayerNorm: the mean is subtracted, and the variance taken",
          lambda plain: (mean_square(lambda x: x.var(-1, keepdims=True))(plain), of_input(lambda x: x - mean(x))(plain), None)[-1]),
    Fault("variance_instead", INVERSE, "divided by the standard deviation: the mean is subtracted in the squares, not from x",
          mean_square(lambda x: x.var(-1, keepdims=True))),
    Fault("mean_subtracted", OUTPUT, "the mean is subtracted from x, not in the squares", of_input(lambda x: x - mean(x))),
    Fault("mean_not_squared", INVERSE, "the mean of |x|, squared, instead of the mean of the squares", mean_square(lambda x: np.square(mean(np.abs(x))))),
    Fault("square_of_mean", INVERSE, "the square of the mean instead of the mean of the squares", mean_square(lambda x: np.square(mean(x)))),
    Fault("sum_instead_of_mean", INVERSE, "the sum of the squares: divided by the Euclidean norm", mean_square(lambda x: np.square(x).sum(-1, keepdims=True))),
    Fault("mean_over_n_minus_1", INVERSE, "the sum of squares over D - 1 instead of D",
          mean_square(lambda x: np.square(x).sum(-1, keepdims=True) / x.dtype.type(max(x.shape[-1] - 1, 1)))),
    Fault("mean_over_padded_width", INVERSE, "the sum of squares over D rounded up to a power of two", mean_square(padded_width)),
    Fault("tail_not_summed", INVERSE, "channels beyond the last whole vector of four are not summed", mean_square(whole_vectors)),
    Fault("first_channel_missing", INVERSE, "the first channel is not summed, where there are more",
          mean_square(lambda x: np.square(x[..., min(1, x.shape[-1] - 1) :]).sum(-1, keepdims=True) / x.dtype.type(x.shape[-1]))),
    Fault("first_quarter_only", INVERSE, "the RMS of the first quarter of the channels, as partial RMSNorm has it",
          mean_square(lambda x: mean(np.square(x[..., : max(x.shape[-1] // 4, 1)])))),
    Fault("norm_over_tokens", INVERSE, "the mean square over the axis before the last", mean_square(over_tokens)),
    Fault("norm_over_all", INVERSE, "one mean square over all rows", mean_square(one_for_all)),
    Fault("norm_of_row_before", INVERSE, "the mean square of the row before", mean_square(row_before)),
    Fault("squares_in_float16", INVERSE, "squares rounded to float16, where they overflow and vanish", summed_in("float16", squares_too=True)),
    Fault("sums_in_float16", INVERSE, "squares summed in float16", summed_in("float16")),
    Fault("sums_in_bfloat16", INVERSE, "squares summed in bfloat16", summed_in("bfloat16")),
    # --- the root
    Fault("root_missing", INVERSE, "divided by the mean square instead of its root", inverse(lambda ms, eps, where: 1 / (ms + eps))),
    Fault("root_twice", INVERSE, "divided by the fourth root of the mean square", inverse(lambda ms, eps, where: 1 / np.sqrt(np.sqrt(ms + eps)))),
    Fault("multiplied_by_rms", INVERSE, "multiplied by the RMS instead of divided", inverse(lambda ms, eps, where: np.sqrt(ms + eps))),
    Fault("root_of_float_bits", INVERSE, "the inverse root from the bits of float32 and one step of Newton's, good to 2e-3",
          inverse(lambda ms, eps, where: fast_inverse_root(ms, eps) if where == "inside_root" else fast_inverse_root(np.square(np.sqrt(ms) + eps), 0.0))),
    Fault("not_divided", OUTPUT, "x is not divided at all",
          lambda plain: wrap(rms_norm=lambda right: lambda x, weight, **params: right(x, weight, **params) | {"output": plain.scaled(plain.wide(x), plain.wide(weight), params["weight_is"]).astype(x.dtype)})(plain)),
    Fault("magnitude_lost", OUTPUT, "|x| is normalised: the signs are lost", of_input(np.abs)),
    # --- the weight
    Fault("weight_missing", OUTPUT, "norm weights left at 1", scaled(lambda normed, factor: normed)),
    Fault("plus_one_missing", OUTPUT, "weight instead of 1 + weight, where Gemma's is stored", weight(lambda normed, w, kind: normed * w)),
    Fault("plus_one_always", OUTPUT, "1 + weight whatever weight_is says", weight(lambda normed, w, kind: normed * (1 + w))),
    Fault("plus_one_twice", OUTPUT, "2 + weight instead of 1 + weight: added when loaded, and again", weight(lambda normed, w, kind: normed * (w if kind == "factor" else 2 + w))),
    Fault("plus_one_outside", OUTPUT, "1 + x weight instead of x (1 + weight)", weight(lambda normed, w, kind: normed * w + (kind != "factor"))),
    Fault("weight_before_norm", INVERSE, "x is multiplied by the weight before it is normalised", weight_before_norm),
    Fault("weight_twice", OUTPUT, "multiplied by the weight twice", scaled(lambda normed, factor: normed * factor * factor)),
    Fault("weight_divides", OUTPUT, "divided by the weight", scaled(lambda normed, factor: normed / factor)),
    Fault("weight_added", OUTPUT, "the weight is added, like a bias", scaled(lambda normed, factor: normed + factor)),
    Fault("weight_of_first_channel", OUTPUT, "the first weight for every channel", scaled(lambda normed, factor: normed * factor[:1])),
    Fault("weight_reversed", OUTPUT, "weights in the reverse order of the channels", scaled(lambda normed, factor: normed * factor[::-1])),
    Fault("weight_shifted", OUTPUT, "the weight of the channel before", scaled(lambda normed, factor: normed * np.roll(factor, 1))),
    Fault("weight_times_1.01", OUTPUT, "norm weights 1 % too large", scaled(lambda normed, factor: normed * (factor * 1.01))),
    # --- what must be refused
    Fault("accepts_weights", REFUSED, "any number of weights is taken, repeated or cut off", any_weight),
    Fault("accepts_no_channels", REFUSED, "x without channels is returned", no_channels),
    Fault("accepts_epsilon_negative", REFUSED, "a negative epsilon is taken", accepts("epsilon -")),
    Fault("accepts_unknown_epsilon_is", REFUSED, "an unknown epsilon_is is taken for 'outside_root'", accepts("epsilon_is")),
    Fault("accepts_unknown_weight_is", REFUSED, "an unknown weight_is is taken for 'factor_less_one'", accepts("weight_is")),
    # --- what comes in
    *rounded_inputs("rms_norm", INVERSE),
)  # fmt: skip
