"""Mistakes that people make when they write activation functions, planted in the plain candidate. NumPy only."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault

Array = Any
Change = Callable[[Any], None]
OUTPUT, REFUSED = ("output",), ("refused",)


def of(kind: str, formula: Callable[..., Array]) -> Change:
    """Return a change to one kind: `formula(x, **params)`."""

    def change(plain: Any) -> None:
        plain.KINDS = plain.KINDS | {kind: formula}

    return change


def from_right(kind: str, formula: Callable[..., Array]) -> Change:
    """Return a change to one kind: `formula(right, x, **params)`, given the right function."""

    def change(plain: Any) -> None:
        right = plain.KINDS[kind]
        plain.KINDS = plain.KINDS | {kind: lambda x, **params: formula(right, x, **params)}

    return change


def every(formula: Callable[[Callable[[Array], Array], Array], Array]) -> Change:
    """Return a change to every kind: `formula(right, x)`."""

    def wrong(right: Callable[..., Array]) -> Callable[..., Array]:
        return lambda x, **params: formula(lambda z: right(z, **params), x)

    def change(plain: Any) -> None:
        plain.KINDS = {kind: wrong(right) for kind, right in plain.KINDS.items()}

    return change


def sigmoid(x: Array) -> Array:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-x))


def soft(x: Array) -> Array:
    """Return log(1 + exp(x))."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def tanh_formula(x: Array) -> Array:
    """Return GELU by its tanh formula."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def erf(x: Array) -> Array:
    """Return the error function."""
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


def exchanged(kind: str, other: str) -> Change:
    """Return a change that computes another kind."""

    def change(plain: Any) -> None:
        plain.KINDS = plain.KINDS | {kind: plain.KINDS[other]}

    return change


def bits(values: Array, count: int) -> Array:
    """Return values rounded to so many bits of significand."""
    significand, exponent = np.frexp(values)
    return np.ldexp(np.round(significand * 2.0**count) / 2.0**count, exponent).astype(values.dtype)


def quotient_of_exponentials(x: Array) -> Array:
    """Return exp(x) / (1 + exp(x)), in numbers up to 65504, infinite beyond, as in float16."""
    power = np.where(x > math.log(65504), np.inf, np.exp(np.minimum(x, 12)))
    return (power / (1 + power)).astype(x.dtype)


def accepts(text: str, **then: Any) -> Change:
    """Return a change that answers what is refused with a text that has `text`, with the parameters `then`."""

    def change(plain: Any) -> None:
        right = plain.activations

        def activations(x: Array, **params: Any) -> Any:
            try:
                return right(x, **params)
            except ValueError as error:
                if text not in str(error):
                    raise
                return right(x, **({"beta": 1.0} | params | then))

        plain.activations = activations

    return change


FAULTS = (
    # --- ReLU and its kin
    Fault("relu_is_leaky", OUTPUT, "relu with a slope of 0.01 below 0", of("relu", lambda x: np.where(x > 0, x, 0.01 * x))),
    Fault("relu_of_magnitude", OUTPUT, "relu is |x|", of("relu", np.abs)),
    Fault("relu_is_relu6", OUTPUT, "relu ends at 6", of("relu", lambda x: np.clip(x, 0, 6))),
    Fault("relu_squared_not_squared", OUTPUT, "relu_squared without the square", of("relu_squared", lambda x: np.maximum(x, 0))),
    Fault("relu_squared_of_all", OUTPUT, "relu_squared is x^2", of("relu_squared", np.square)),
    Fault("relu_squared_signed", OUTPUT, "relu_squared is x |x|", of("relu_squared", lambda x: x * np.abs(x))),
    Fault("relu6_without_6", OUTPUT, "relu6 has no upper end", of("relu6", lambda x: np.maximum(x, 0))),
    Fault("relu6_to_1", OUTPUT, "relu6 ends at 1", of("relu6", lambda x: np.clip(x, 0, 1))),
    Fault("relu6_over_6", OUTPUT, "relu6 divided by 6", of("relu6", lambda x: np.clip(x, 0, 6) / 6)),
    Fault("leaky_slope_0.01", OUTPUT, "leaky_relu with the slope 0.01 whatever alpha says", of("leaky_relu", lambda x, alpha: np.where(x > 0, x, 0.01 * x))),
    Fault("leaky_slope_above_0", OUTPUT, "leaky_relu with the slope on the wrong side", of("leaky_relu", lambda x, alpha: np.where(x > 0, alpha * x, x))),
    Fault("leaky_slope_divides", OUTPUT, "leaky_relu with x / alpha", of("leaky_relu", lambda x, alpha: np.where(x > 0, x, x / alpha))),
    Fault("leaky_slope_negative", OUTPUT, "leaky_relu with -alpha x", of("leaky_relu", lambda x, alpha: np.where(x > 0, x, -alpha * x))),
    Fault("leaky_as_maximum", OUTPUT, "leaky_relu as max(x, alpha x), wrong where alpha is above 1", of("leaky_relu", lambda x, alpha: np.maximum(x, alpha * x))),
    # --- ELU and its kin
    Fault("elu_alpha_1", OUTPUT, "elu with alpha 1 whatever the parameter says", of("elu", lambda x, alpha: np.where(x > 0, x, np.expm1(np.minimum(x, 0))))),
    Fault("elu_without_1", OUTPUT, "elu with exp(x) instead of exp(x) - 1", of("elu", lambda x, alpha: np.where(x > 0, x, alpha * np.exp(np.minimum(x, 0))))),
    Fault("elu_1_outside", OUTPUT, "elu with alpha exp(x) - 1", of("elu", lambda x, alpha: np.where(x > 0, x, alpha * np.exp(np.minimum(x, 0)) - 1))),
    Fault("elu_alpha_inside", OUTPUT, "elu with exp(alpha x) - 1", of("elu", lambda x, alpha: np.where(x > 0, x, np.expm1(alpha * np.minimum(x, 0))))),
    Fault("elu_is_celu", OUTPUT, "celu instead of elu", of("elu", lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)))),
    Fault("elu_scaled_above_0", OUTPUT, "elu times alpha above 0 too", of("elu", lambda x, alpha: alpha * np.where(x > 0, x, np.expm1(np.minimum(x, 0))))),
    Fault("celu_is_elu", OUTPUT, "elu instead of celu", of("celu", lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))),
    Fault("celu_alpha_multiplies", OUTPUT, "celu with exp(alpha x)", of("celu", lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(alpha * np.minimum(x, 0))))),
    Fault("celu_alpha_inside_alone", OUTPUT, "celu without the factor alpha", of("celu", lambda x, alpha: np.where(x > 0, x, np.expm1(np.minimum(x, 0) / alpha)))),
    Fault("selu_without_scale", OUTPUT, "selu without its scale", from_right("selu", lambda right, x: right(x) / 1.0507009873554805)),
    Fault("selu_scale_above_0_alone", OUTPUT, "selu's scale above 0 alone", from_right("selu", lambda right, x: np.where(x > 0, right(x), right(x) / 1.0507009873554805))),
    Fault("selu_without_alpha", OUTPUT, "selu with alpha 1", from_right("selu", lambda right, x: np.where(x > 0, right(x), right(x) / 1.6732632423543772))),
    Fault("selu_exchanged", OUTPUT, "selu's alpha and scale exchanged", of("selu", lambda x: 1.6732632423543772 * np.where(x > 0, x, 1.0507009873554805 * np.expm1(np.minimum(x, 0))))),
    Fault("selu_of_3_digits", OUTPUT, "selu with 1.05 and 1.67", of("selu", lambda x: 1.05 * np.where(x > 0, x, 1.67 * np.expm1(np.minimum(x, 0))))),
    # --- sigmoids
    Fault("sigmoid_negated", OUTPUT, "sigmoid of -x", of("sigmoid", lambda x: sigmoid(-x))),
    Fault("sigmoid_is_tanh", OUTPUT, "tanh instead of sigmoid", of("sigmoid", np.tanh)),
    Fault("sigmoid_of_2x", OUTPUT, "sigmoid of 2 x: (1 + tanh x) / 2", of("sigmoid", lambda x: sigmoid(2 * x))),
    Fault("sigmoid_is_hard", OUTPUT, "hardsigmoid instead of sigmoid", of("sigmoid", lambda x: np.clip(x + 3, 0, 6) / 6)),
    Fault("sigmoid_overflows", OUTPUT, "sigmoid as exp(x) / (1 + exp(x)), which overflows", of("sigmoid", quotient_of_exponentials)),
    Fault("sigmoid_base_2", OUTPUT, "sigmoid with 2^-x", of("sigmoid", lambda x: 1 / (1 + np.exp2(-x)))),
    Fault("logsigmoid_positive", OUTPUT, "logsigmoid without its minus sign", from_right("logsigmoid", lambda right, x: -right(x))),
    Fault("logsigmoid_negated", OUTPUT, "logsigmoid of -x", from_right("logsigmoid", lambda right, x: right(-x))),
    Fault("logsigmoid_underflows", OUTPUT, "logsigmoid as log(max(sigmoid, 1e-7))", of("logsigmoid", lambda x: np.log(np.maximum(sigmoid(x), 1e-7)))),
    Fault("silu_is_sigmoid", OUTPUT, "sigmoid instead of silu", of("silu", sigmoid)),
    Fault("silu_is_quick_gelu", OUTPUT, "quick_gelu instead of silu", of("silu", lambda x: x * sigmoid(1.702 * x))),
    Fault("silu_is_hardswish", OUTPUT, "hardswish instead of silu", of("silu", lambda x: x * np.clip(x + 3, 0, 6) / 6)),
    Fault("silu_negated", OUTPUT, "silu as x sigmoid(-x)", of("silu", lambda x: x * sigmoid(-x))),
    Fault("swish_beta_ignored", OUTPUT, "swish with beta 1", of("swish", lambda x, beta: x * sigmoid(x))),
    Fault("swish_beta_outside", OUTPUT, "swish as beta x sigmoid(x)", of("swish", lambda x, beta: beta * x * sigmoid(x))),
    Fault("swish_beta_divides", OUTPUT, "swish as x sigmoid(x / beta)", of("swish", lambda x, beta: x * sigmoid(x / beta))),
    Fault("quick_gelu_is_silu", OUTPUT, "silu instead of quick_gelu", of("quick_gelu", lambda x: x * sigmoid(x))),
    Fault("quick_gelu_is_gelu", OUTPUT, "the tanh formula of GELU instead of quick_gelu", of("quick_gelu", tanh_formula)),
    Fault("quick_gelu_1.072", OUTPUT, "1.072 instead of 1.702", of("quick_gelu", lambda x: x * sigmoid(1.072 * x))),
    Fault("sigmoid_by_tanh", OUTPUT, "silu from (1 + tanh(x / 2)) / 2, which in float32 is a multiple of 2^-24", of("silu", lambda x: x * np.round(sigmoid(x) * 2.0**24) / 2**24)),
    # --- the normal distribution
    Fault("gelu_tanh", OUTPUT, "the tanh formula instead of erf GELU", of("gelu", tanh_formula)),
    Fault("gelu_is_quick", OUTPUT, "quick_gelu instead of gelu", of("gelu", lambda x: x * sigmoid(1.702 * x))),
    Fault("gelu_is_silu", OUTPUT, "silu instead of gelu", of("gelu", lambda x: x * sigmoid(x))),
    Fault("gelu_of_erf_x", OUTPUT, "gelu with erf(x) instead of erf(x / sqrt 2)", from_right("gelu", lambda right, x: right(x * math.sqrt(2)) / math.sqrt(2))),
    Fault("gelu_erf", OUTPUT, "erf GELU instead of the tanh formula", exchanged("gelu_tanh", "gelu")),
    Fault("gelu_tanh_without_cube", OUTPUT, "gelu_tanh without x^3", of("gelu_tanh", lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * x)))),
    Fault("gelu_10_not_clipped", OUTPUT, "gelu_10 has no upper end", exchanged("gelu_10", "gelu")),
    Fault("gelu_10_is_6", OUTPUT, "gelu_10 ends at 6", from_right("gelu_10", lambda right, x: np.minimum(right(x), 6))),
    Fault("laplace_of_x", OUTPUT, "laplace is the distribution function about 0", of("laplace", lambda x: 0.5 * (1 + erf(x / (0.282095 * math.sqrt(2)))))),
    Fault("laplace_without_sqrt_2", OUTPUT, "laplace without sqrt 2", of("laplace", lambda x: 0.5 * (1 + erf((x - 0.707107) / 0.282095)))),
    Fault("laplace_without_half", OUTPUT, "laplace without 1/2", from_right("laplace", lambda right, x: 2 * right(x))),
    Fault("laplace_times_x", OUTPUT, "laplace times x, as gelu is", from_right("laplace", lambda right, x: x * right(x))),
    # --- softplus and mish
    Fault("softplus_beta_ignored", OUTPUT, "softplus with beta 1", of("softplus", lambda x, beta, threshold: np.where(x > threshold, x, soft(x)))),
    Fault("softplus_not_divided", OUTPUT, "softplus without 1 / beta", of("softplus", lambda x, beta, threshold: np.where(beta * x > threshold, x, soft(beta * x)))),
    Fault("softplus_beta_outside", OUTPUT, "softplus as log(1 + exp(x)) / beta", of("softplus", lambda x, beta, threshold: np.where(beta * x > threshold, x, soft(x) / beta))),
    Fault("softplus_threshold_ignored", OUTPUT, "softplus without its threshold", of("softplus", lambda x, beta, threshold: soft(beta * x) / beta)),
    Fault("softplus_threshold_of_x", OUTPUT, "softplus compares x, not beta x, with the threshold", of("softplus", lambda x, beta, threshold: np.where(x > threshold, x, soft(beta * x) / beta))),
    Fault("softplus_threshold_inclusive", OUTPUT, "softplus is x where beta x is the threshold", of("softplus", lambda x, beta, threshold: np.where(beta * x >= threshold, x, soft(beta * x) / beta))),
    Fault("softplus_is_threshold", OUTPUT, "softplus is the threshold beyond it", of("softplus", lambda x, beta, threshold: np.where(beta * x > threshold, threshold, soft(beta * x) / beta))),
    Fault("softplus_base_2", OUTPUT, "softplus with the logarithm to base 2", of("softplus", lambda x, beta, threshold: np.where(beta * x > threshold, x, soft(beta * x) / beta / math.log(2)))),
    Fault("softplus_is_relu", OUTPUT, "relu instead of softplus", of("softplus", lambda x, beta, threshold: np.maximum(x, 0))),
    Fault("mish_without_logarithm", OUTPUT, "mish as x tanh(exp(x))", of("mish", lambda x: x * np.tanh(np.exp(x)))),
    Fault("mish_base_2", OUTPUT, "mish with the logarithm to base 2", of("mish", lambda x: x * np.tanh(soft(x) / math.log(2)))),
    Fault("mish_without_tanh", OUTPUT, "mish as x log(1 + exp(x)), at most 6 x", of("mish", lambda x: x * np.minimum(soft(x), 6))),
    Fault("mish_is_silu", OUTPUT, "silu instead of mish", of("mish", lambda x: x * sigmoid(x))),
    Fault("mish_with_sigmoid", OUTPUT, "mish as x sigmoid(log(1 + exp(x)))", of("mish", lambda x: x * sigmoid(soft(x)))),
    Fault("mish_without_x", OUTPUT, "mish as tanh(log(1 + exp(x)))", of("mish", lambda x: np.tanh(soft(x)))),
    Fault("mish_overflows", OUTPUT, "mish with log(1 + exp(x)) that overflows above 11, as in float16", of("mish", lambda x: x * np.where(x > 11.09, np.nan, np.tanh(soft(x))))),
    # --- straight lines
    Fault("hardsigmoid_keras", OUTPUT, "hardsigmoid with the slope 1/5, as Keras had it", of("hardsigmoid", lambda x: np.clip(0.2 * x + 0.5, 0, 1))),
    Fault("hardsigmoid_of_1", OUTPUT, "hardsigmoid as (x + 1) / 2", of("hardsigmoid", lambda x: np.clip((x + 1) / 2, 0, 1))),
    Fault("hardswish_without_x", OUTPUT, "hardsigmoid instead of hardswish", of("hardswish", lambda x: np.clip(x + 3, 0, 6) / 6)),
    Fault("hardswish_over_3", OUTPUT, "hardswish with 3 instead of 6", of("hardswish", lambda x: x * np.clip(x + 3, 0, 3) / 3)),
    Fault("hardswish_not_divided", OUTPUT, "hardswish without 1/6", of("hardswish", lambda x: x * np.clip(x + 3, 0, 6))),
    Fault("hardswish_is_silu", OUTPUT, "silu instead of hardswish", of("hardswish", lambda x: x * sigmoid(x))),
    Fault("hardswish_without_3", OUTPUT, "hardswish as x relu6(x) / 6", of("hardswish", lambda x: x * np.clip(x, 0, 6) / 6)),
    Fault("hardtanh_from_0", OUTPUT, "hardtanh from 0 to 1", of("hardtanh", lambda x: np.clip(x, 0, 1))),
    Fault("hardtanh_is_tanh", OUTPUT, "tanh instead of hardtanh", of("hardtanh", np.tanh)),
    Fault("tanh_is_hard", OUTPUT, "hardtanh instead of tanh", of("tanh", lambda x: np.clip(x, -1, 1))),
    Fault("tanh_of_half", OUTPUT, "tanh of x / 2: 2 sigmoid(x) - 1", of("tanh", lambda x: np.tanh(x / 2))),
    Fault("tanh_pade", OUTPUT, "tanh as x (27 + x^2) / (27 + 9 x^2), clipped", of("tanh", lambda x: np.clip(x * (27 + x**2) / (27 + 9 * x**2), -1, 1))),
    Fault("tanh_overflows", OUTPUT, "tanh as (exp(2 x) - 1) / (exp(2 x) + 1), which overflows",
          of("tanh", lambda x: np.where(x > 5.54, np.nan, np.tanh(x)))),
    Fault("softsign_without_magnitude", OUTPUT, "softsign as x / (1 + x), -1 at the pole", of("softsign", lambda x: np.where(x == -1, -1, x / np.where(x == -1, 1, 1 + x)))),
    Fault("softsign_of_squares", OUTPUT, "softsign as x / sqrt(1 + x^2)", of("softsign", lambda x: x / np.sqrt(1 + np.square(x)))),
    Fault("softsign_is_tanh", OUTPUT, "tanh instead of softsign", of("softsign", np.tanh)),
    Fault("softshrink_is_hard", OUTPUT, "hardshrink instead of softshrink", of("softshrink", lambda x, threshold: np.where(np.abs(x) > threshold, x, 0))),
    Fault("softshrink_positive_alone", OUTPUT, "softshrink subtracts on both sides", of("softshrink", lambda x, threshold: np.where(np.abs(x) > threshold, x - threshold, 0))),
    Fault("softshrink_half", OUTPUT, "softshrink with 1/2 whatever the threshold says", of("softshrink", lambda x, threshold: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0))),
    Fault("hardshrink_is_soft", OUTPUT, "softshrink instead of hardshrink", of("hardshrink", lambda x, threshold: np.sign(x) * np.maximum(np.abs(x) - threshold, 0))),
    Fault("hardshrink_inclusive", OUTPUT, "hardshrink keeps |x| that is the threshold", of("hardshrink", lambda x, threshold: np.where(np.abs(x) >= threshold, x, 0))),
    Fault("hardshrink_half", OUTPUT, "hardshrink with 1/2 whatever the threshold says", of("hardshrink", lambda x, threshold: np.where(np.abs(x) > 0.5, x, 0))),
    # --- any of them
    Fault("identity", OUTPUT, "no activation", every(lambda right, x: x)),
    Fault("of_negated", OUTPUT, "the activation of -x", every(lambda right, x: right(-x))),
    Fault("of_magnitude", OUTPUT, "the activation of |x|", every(lambda right, x: right(np.abs(x)))),
    Fault("twice", OUTPUT, "applied twice", every(lambda right, x: right(right(x)))),
    Fault("argument_of_4_bits", OUTPUT, "x rounded to 4 bits of significand", every(lambda right, x: right(bits(x, 4)))),
    Fault("output_of_4_bits", OUTPUT, "the output rounded to 4 bits of significand", every(lambda right, x: bits(right(x), 4))),
    # --- what must be refused
    Fault("accepts_unknown_kind", REFUSED, "an unknown kind is taken for silu", accepts("is none of", kind="silu")),
    Fault("accepts_missing_parameter", REFUSED, "a parameter that is missing is 1, a threshold 20", accepts("needs", alpha=1.0, threshold=20.0)),
    Fault("accepts_division_by_0", REFUSED, "alpha or beta 0 is taken for 1", accepts("divides by 0", alpha=1.0, beta=1.0)),
    Fault("accepts_negative_threshold", REFUSED, "a negative threshold is taken for 0", accepts("negative threshold", threshold=0.0)),
)  # fmt: skip
