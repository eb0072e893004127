"""Mistakes that people make when they write the RBF kernel, each a small change to the plain candidate. NumPy only.

R numbers are those of the catalogue of mistakes in the covering-tree code that the suite is drawn from.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
KERNEL = ("kernel",)
REFUSED = ("refused",)

accepts = beside(__file__, "_refusals").accepts
stationary = beside(__file__, "_stationary_faults")
in_float32 = beside(__file__, "_rounding").through(np.float32)


def decay(formula: Callable[[Array, Array, float], Array]) -> Change:
    """Return a change to what follows the distances: `formula(factor, squared, variance)`."""
    return wrap(decay=lambda _: formula)


def scaling(formula: Callable[[Any, Array, str], tuple[Array, Array]]) -> Change:
    """Return a change to what scale means: `formula(right, scale, scale_is)`."""
    return wrap(scaling=lambda right: lambda scale, scale_is: formula(right, scale, scale_is))


def factor_times(number: float, *meanings: str) -> Change:
    """Return a change that multiplies the factor of squared distances where `scale_is` is one of `meanings`."""

    def formula(right: Any, scale: Array, scale_is: str) -> tuple[Array, Array]:
        divisor, factor = right(scale, scale_is)
        return divisor, factor * number if scale_is in meanings else factor

    return scaling(formula)


def only_in_lengthscales(formula: Callable[[Array], Array]) -> Change:
    """Return a change to lengthscales: `formula(scale)` takes their place."""
    return scaling(lambda right, scale, kind: right(formula(scale) if kind == "lengthscale" else scale, kind))


def any_scale(plain: Any) -> None:
    """Accept any number of scales, repeat them or take the first."""
    stationary.any_lengthscale(plain)
    right = plain.decay
    plain.decay = lambda factor, squared, variance: right(factor[:1], squared, variance)


def any_meaning(plain: Any) -> None:
    """Take an unknown `scale_is` for a lengthscale."""
    accepts("scale_is")(plain)
    right = plain.scaling
    plain.scaling = lambda scale, kind: right(scale, kind if kind in ("gamma", "half_gamma") else "lengthscale")


FAULTS = (
    # --- what scale means
    Fault("lengthscale_ignored", KERNEL, "lengthscale 1 whatever the argument says", only_in_lengthscales(np.ones_like)),  # R1
    Fault("gamma_as_half_gamma", KERNEL, "exp(-gamma d^2 / 2) where gamma means exp(-gamma d^2)", factor_times(0.5, "gamma")),  # R8
    Fault("half_gamma_as_gamma", KERNEL, "exp(-gamma d^2) where gamma stands beside a factor 1/2", factor_times(2, "half_gamma")),  # R8
    Fault("half_missing", KERNEL, "exp(-d^2 / lengthscale^2) without the factor 1/2", factor_times(2, "lengthscale")),  # R8
    Fault("half_twice", KERNEL, "the factor 1/2 twice with a lengthscale", factor_times(0.5, "lengthscale")),  # R8
    Fault("lengthscale_not_squared", KERNEL, "d^2 divided by the lengthscale, not by its square", only_in_lengthscales(np.sqrt)),
    Fault("lengthscale_is_inverse", KERNEL, "multiplied by the lengthscale instead of divided", only_in_lengthscales(lambda s: 1 / s)),
    Fault("lengthscale_taken_for_gamma", KERNEL, "exp(-lengthscale d^2): taken for a gamma", only_in_lengthscales(lambda s: np.sqrt(0.5 / s))),
    Fault("gamma_squared", KERNEL, "gamma squared, as if it were a lengthscale",
          scaling(lambda right, s, kind: right(s if kind == "lengthscale" else s * s, kind))),
    Fault("gamma_taken_for_lengthscale", KERNEL, "gamma taken for a lengthscale", scaling(lambda right, s, kind: right(s, "lengthscale"))),
    Fault("first_lengthscale_for_all", KERNEL, "the first lengthscale for every dimension", only_in_lengthscales(lambda s: s[:1])),
    Fault("mean_lengthscale_for_all", KERNEL, "the mean of the lengthscales for every dimension", only_in_lengthscales(lambda s: s.mean(keepdims=True))),
    Fault("lengthscales_reversed", KERNEL, "lengthscales in the reverse order of the dimensions", only_in_lengthscales(lambda s: s[::-1])),
    Fault("lengthscales_twice", KERNEL, "divided by each lengthscale and then by their geometric mean",
          only_in_lengthscales(lambda s: s * np.exp(np.log(s).mean()) if s.size > 1 else s)),
    # --- variance
    Fault("variance_ignored", KERNEL, "variance 1 whatever the argument says", decay(lambda factor, d2, variance: np.exp(-factor * d2))),  # R1
    Fault("variance_squared", KERNEL, "the variance is squared, as a standard deviation would be", decay(lambda factor, d2, variance: variance**2 * np.exp(-factor * d2))),
    Fault("variance_in_exponent", KERNEL, "exp(-variance d^2 ...): the variance stands in the exponent", decay(lambda factor, d2, variance: np.exp(-factor * d2 * variance))),
    # --- distances
    Fault("distance_not_squared", KERNEL, "exp(-d / 2) instead of exp(-d^2 / 2)", decay(lambda factor, d2, variance: variance * np.exp(-factor * np.sqrt(d2)))),
    Fault("distance_manhattan", KERNEL, "the sum of absolute differences, squared, instead of the sum of squares",
          stationary.of_differences(lambda d: np.square(np.abs(d).sum(-1)))),
    Fault("distance_is_mean", KERNEL, "the mean of the squared differences instead of their sum", stationary.of_differences(lambda d: np.square(d).mean(-1))),
    Fault("last_dimension_missing", KERNEL, "the last dimension is not summed", stationary.of_differences(lambda d: np.square(d[..., :-1]).sum(-1))),
    Fault("dimensions_beyond_four_missing", KERNEL, "dimensions beyond the last whole vector of four are not summed",
          stationary.of_differences(lambda d: np.square(d[..., : d.shape[-1] // 4 * 4 or None]).sum(-1))),
    Fault("dot_product_instead", KERNEL, "x.y instead of the squared distance", stationary.squared(lambda x, y: x @ y.T)),
    Fault("cross_term_once", KERNEL, "|x|^2 + |y|^2 - x.y: the cross term without its factor 2",
          stationary.squared(lambda x, y: np.maximum(np.square(x).sum(-1)[:, None] + np.square(y).sum(-1) - x @ y.T, 0))),
    Fault("norm_of_y_missing", KERNEL, "|x|^2 - 2 x.y without |y|^2", stationary.squared(lambda x, y: np.maximum(np.square(x).sum(-1)[:, None] - 2 * x @ y.T, 0))),
    Fault("expanded_in_float32", KERNEL, "|x|^2 + |y|^2 - 2 x.y in float32 without centring", stationary.far_off(stationary.expanded)),  # R9
    Fault("expanded_not_clamped", KERNEL, "|x|^2 + |y|^2 - 2 x.y in float32 without centring, below 0 too", stationary.far_off(lambda x, y: stationary.expanded(x, y, None))),  # R9
    Fault("differences_in_float16", KERNEL, "differences of points rounded to float16",
          stationary.of_differences(lambda d: np.square(d.astype(np.float16).astype(d.dtype)).sum(-1))),
    Fault("divided_before_subtracted", KERNEL, "float32 points divided by the lengthscale before they are subtracted",
          stationary.far_off(lambda x, y: np.square(x[:, None] - y).sum(-1))),
    # --- the exponential
    Fault("sign_of_exponent", KERNEL, "exp(+d^2 / 2)", decay(lambda factor, d2, variance: variance * np.exp(np.minimum(factor * d2, 80)))),
    Fault("exp_of_3_terms", KERNEL, "exp as 1 / (1 + z + z^2 / 2)", decay(lambda factor, d2, variance: variance / (1 + factor * d2 + np.square(factor * d2) / 2))),
    Fault("far_pairs_cut", KERNEL, "0 where the exponent is below -20", decay(lambda factor, d2, variance: np.where(factor * d2 > 20, 0, variance * np.exp(-factor * d2)))),
    Fault("kernel_in_float32", KERNEL, "a float32 kernel widened to float64", stationary.result(in_float32)),  # R15
    Fault("matern_instead", KERNEL, "the Matérn 5/2 kernel instead of the RBF",
          decay(lambda factor, d2, variance: variance * (1 + np.sqrt(10 * factor * d2) + 10 * factor * d2 / 3) * np.exp(-np.sqrt(10 * factor * d2)))),  # R2
    # --- layout
    Fault("x_and_y_swapped", KERNEL, "the transposed kernel", stationary.result(lambda kernel: np.ascontiguousarray(kernel.T).reshape(kernel.shape))),
    Fault("diagonal_jittered", KERNEL, "1e-6 of the variance on the diagonal", stationary.result(lambda kernel: kernel + 1e-6 * kernel.dtype.type(1.25) * np.eye(*kernel.shape, dtype=kernel.dtype))),
    # --- what must be refused
    Fault("accepts_dimensions", REFUSED, "points of different rank or dimension are compared", stationary.lenient),
    Fault("accepts_lengthscales", REFUSED, "any number of scales is taken, and the first used", any_scale),
    Fault("accepts_scale_zero", REFUSED, "a scale that is not above 0 is taken", accepts("scale must be above")),
    Fault("accepts_variance_zero", REFUSED, "a variance that is not above 0 is taken", accepts("variance")),
    Fault("accepts_unknown_meaning", REFUSED, "an unknown scale_is is taken for a lengthscale", any_meaning),
)  # fmt: skip
