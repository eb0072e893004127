"""Mistakes that people make when they write LayerNorm, each a small change to the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
OUTPUT = ("output",)


def computed(formula: Callable[[Array, Array, Array, float], Array]) -> Callable[[Any], None]:
    """Return a change to the whole: `formula(x, weight, bias, epsilon)` of wide arrays, rounded once to storage."""

    def change(plain: Any) -> None:
        def layer_norm(x: Array, weight: Array, bias: Array, *, epsilon: float) -> dict[str, Array]:
            output = formula(plain.wide(x), plain.wide(weight), plain.wide(bias), epsilon)  # (..., D)
            return {"output": output.astype(x.dtype)}

        plain.layer_norm = layer_norm

    return change


def normed(formula: Callable[[Array, float], Array]) -> Callable[[Any], None]:
    """Return a change to the norm: `formula(x, epsilon)` gives the normalised values, (..., D)."""
    return computed(lambda x, weight, bias, epsilon: formula(x, epsilon) * weight + bias)


def variance(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the variance: `formula(x)`, (..., 1)."""
    return normed(lambda x, epsilon: deviations(x) / np.sqrt(formula(x) + epsilon))


def affine(formula: Callable[[Array, Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to what follows the norm: `formula(normed, weight, bias)`, (..., D)."""
    return computed(lambda x, weight, bias, epsilon: formula(normalised(x, -1, epsilon), weight, bias))


def epsilon(value: float) -> Callable[[Any], None]:
    """Return a change to epsilon, whatever the parameter says."""
    return wrap(layer_norm=lambda right: lambda x, weight, bias, epsilon: right(x, weight, bias, epsilon=value))


def sums_in(dtype: str) -> Callable[[Any], None]:
    """Return a change that adds up mean and variance one term after the other in the format `dtype`."""

    def coarse_mean(x: Array) -> Array:
        total = np.zeros((*x.shape[:-1], 1), dtype)  # (..., 1)
        for i in range(x.shape[-1]):
            total = (total + x[..., i : i + 1]).astype(dtype)
        return total.astype(x.dtype) / x.shape[-1]

    def formula(x: Array, epsilon: float) -> Array:
        deviation = x - coarse_mean(x)  # (..., D)
        return deviation / np.sqrt(coarse_mean(np.square(deviation)) + epsilon)

    return normed(formula)


def mean(x: Array, axis: Any = -1) -> Array:
    """Return the mean, (..., 1)."""
    return x.mean(axis, keepdims=True)


def deviations(x: Array, axis: Any = -1) -> Array:
    """Return x less its mean, (..., D)."""
    return x - mean(x, axis)


def normalised(x: Array, axis: Any, epsilon: float) -> Array:
    """Return x normalised over `axis`, (..., D)."""
    return deviations(x, axis) / np.sqrt(x.var(axis, keepdims=True) + epsilon)


def padded(x: Array) -> Array:
    """Return the variance with the masked lanes of a block of a power of two, zeros less the mean, in its sum."""
    lanes = 1 << (x.shape[-1] - 1).bit_length()
    return x.var(-1, keepdims=True) + (lanes - x.shape[-1]) / x.shape[-1] * np.square(mean(x))


def tail_not_summed(x: Array, epsilon: float) -> Array:
    """Normalise by mean and variance of whole vectors of four, without the channels left over."""
    whole = x[..., : x.shape[-1] // 4 * 4]  # (..., D - D % 4)
    return (x - mean(whole)) / np.sqrt(whole.var(-1, keepdims=True) + epsilon)


FAULTS = (
    # --- epsilon
    Fault("epsilon_1e-3", OUTPUT, "epsilon 1e-3 instead of 1e-5", epsilon(1e-3)),
    Fault("epsilon_1e-5", OUTPUT, "epsilon 1e-5 whatever the parameter says", epsilon(1e-5)),
    Fault("epsilon_1e-6", OUTPUT, "epsilon 1e-6 instead of 1e-5", epsilon(1e-6)),
    Fault("epsilon_1e-12", OUTPUT, "epsilon 1e-12 instead of 1e-5", epsilon(1e-12)),
    Fault("epsilon_outside_root", OUTPUT, "sqrt(variance) + epsilon instead of sqrt(variance + epsilon)",
          normed(lambda x, eps: deviations(x) / (x.std(-1, keepdims=True) + eps))),
    Fault("epsilon_inside_mean", OUTPUT, "epsilon added to the sum of squares before it is divided by N",
          normed(lambda x, eps: normalised(x, -1, eps / x.shape[-1]))),
    # --- mean and variance
    Fault("variance_unbiased", OUTPUT, "variance over N - 1 instead of N", variance(lambda x: x.var(-1, keepdims=True, ddof=1))),
    Fault("variance_about_zero", OUTPUT, "variance as E[x^2], without - mean^2", variance(lambda x: mean(np.square(x)))),
    Fault("variance_of_padding", OUTPUT, "masked lanes of a block of a power of two count in the variance", variance(padded)),
    Fault("root_missing", OUTPUT, "divided by the variance instead of its root",
          normed(lambda x, eps: deviations(x) / (x.var(-1, keepdims=True) + eps))),
    Fault("mean_not_subtracted", OUTPUT, "RMSNorm: the mean is not subtracted",
          normed(lambda x, eps: x / np.sqrt(mean(np.square(x)) + eps))),
    Fault("mean_in_variance_only", OUTPUT, "the mean is subtracted in the variance, not from x",
          normed(lambda x, eps: x / np.sqrt(x.var(-1, keepdims=True) + eps))),
    Fault("variance_missing", OUTPUT, "the mean is subtracted, nothing is divided", normed(lambda x, eps: deviations(x))),
    Fault("norm_over_all", OUTPUT, "mean and variance over tokens and channels", normed(lambda x, eps: normalised(x, (-1, -2), eps))),
    Fault("norm_over_tokens", OUTPUT, "the axis before the last is normalised", normed(lambda x, eps: normalised(x, -2, eps))),
    Fault("tail_not_summed", OUTPUT, "channels beyond the last whole vector of four are not summed", normed(tail_not_summed)),
    Fault("sums_in_float16", OUTPUT, "sums accumulated in float16", sums_in("float16")),
    Fault("sums_in_bfloat16", OUTPUT, "sums accumulated in bfloat16", sums_in("bfloat16")),
    # --- weight and bias
    Fault("gamma_beta_swapped", OUTPUT, "weight and bias of the norm exchanged", affine(lambda normed, w, b: normed * b + w)),
    Fault("gamma_times_1.01", OUTPUT, "norm weights 1 % too large", affine(lambda normed, w, b: normed * (w * 1.01) + b)),
    Fault("gamma_missing", OUTPUT, "norm weights left at 1", affine(lambda normed, w, b: normed + b)),
    Fault("gamma_plus_1", OUTPUT, "1 + weight, as Gemma stores it", affine(lambda normed, w, b: normed * (1 + w) + b)),
    Fault("gamma_before_norm", OUTPUT, "x is multiplied by the weight before it is normalised",
          computed(lambda x, w, b, eps: normalised(x * w, -1, eps) + b)),
    Fault("gamma_of_first_channel", OUTPUT, "the first weight for every channel", affine(lambda normed, w, b: normed * w[0] + b)),
    Fault("beta_missing", OUTPUT, "norm biases left at 0", affine(lambda normed, w, b: normed * w)),
    Fault("beta_before_gamma", OUTPUT, "the bias is added before the weight multiplies", affine(lambda normed, w, b: (normed + b) * w)),
    Fault("beta_subtracted", OUTPUT, "the bias is subtracted", affine(lambda normed, w, b: normed * w - b)),
    # --- what comes in
    *rounded_inputs("layer_norm", OUTPUT),
)  # fmt: skip
