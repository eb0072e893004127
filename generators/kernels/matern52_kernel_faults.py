"""Mistakes that people make when they write the Matérn 5/2 kernel, each a small change to the plain candidate. NumPy only.

R numbers are those of the catalogue of mistakes in the covering-tree code that the suite is drawn from.
"""

import math
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


def decay(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to what follows the distances: `formula(a, variance)`, a = sqrt(5) distance."""
    return wrap(decay=lambda _: lambda squared, variance: formula(math.sqrt(5) * np.sqrt(squared), variance))


def lengthscales(formula: Callable[[Array], Array]) -> Change:
    """Return a change to lengthscales: `formula(lengthscale)` takes their place."""
    return wrap(squared_distance=lambda right: lambda x, y, lengthscale: right(x, y, formula(lengthscale)))


def matern(a: Array) -> Array:
    """Return the kernel of the variance 1."""
    return (1 + a + np.square(a) / 3) * np.exp(-a)


FAULTS = (
    # --- lengthscales
    Fault("lengthscale_ignored", KERNEL, "lengthscale 1 whatever the argument says", lengthscales(np.ones_like)),  # R1
    Fault("lengthscale_not_squared", KERNEL, "r^2 divided by the lengthscale, not by its square", lengthscales(np.sqrt)),
    Fault("lengthscale_is_inverse", KERNEL, "multiplied by the lengthscale instead of divided", lengthscales(lambda s: 1 / s)),
    Fault("lengthscale_is_gamma", KERNEL, "taken for gamma = 1 / (2 lengthscale^2)", lengthscales(lambda s: np.sqrt(0.5 / s))),  # R8
    Fault("first_lengthscale_for_all", KERNEL, "the first lengthscale for every dimension", lengthscales(lambda s: s[:1])),
    Fault("mean_lengthscale_for_all", KERNEL, "the mean of the lengthscales for every dimension", lengthscales(lambda s: s.mean(keepdims=True))),
    Fault("lengthscales_reversed", KERNEL, "lengthscales in the reverse order of the dimensions", lengthscales(lambda s: s[::-1])),
    Fault("lengthscales_twice", KERNEL, "divided by each lengthscale and then by their geometric mean",
          lengthscales(lambda s: s * np.exp(np.log(s).mean()) if s.size > 1 else s)),
    # --- variance
    Fault("variance_ignored", KERNEL, "variance 1 whatever the argument says", decay(lambda a, variance: matern(a))),  # R1
    Fault("variance_squared", KERNEL, "the variance is squared, as a standard deviation would be", decay(lambda a, variance: variance**2 * matern(a))),
    # --- distances
    Fault("distance_squared", KERNEL, "a = sqrt(5) r^2: the root of the squared distance is missing",
          wrap(decay=lambda right: lambda squared, variance: right(np.square(squared), variance))),
    Fault("distance_manhattan", KERNEL, "the sum of absolute differences instead of the root of the sum of squares", stationary.of_differences(lambda d: np.square(np.abs(d).sum(-1)))),
    Fault("last_dimension_missing", KERNEL, "the last dimension is not summed", stationary.of_differences(lambda d: np.square(d[..., :-1]).sum(-1))),
    Fault("cross_term_once", KERNEL, "|x|^2 + |y|^2 - x.y: the cross term without its factor 2",
          stationary.squared(lambda x, y: np.maximum(np.square(x).sum(-1)[:, None] + np.square(y).sum(-1) - x @ y.T, 0))),
    Fault("expanded_in_float32", KERNEL, "|x|^2 + |y|^2 - 2 x.y in float32 without centring", stationary.far_off(stationary.expanded)),  # R9
    Fault("divided_before_subtracted", KERNEL, "float32 points divided by the lengthscale before they are subtracted",
          stationary.far_off(lambda x, y: np.square(x[:, None] - y).sum(-1))),
    Fault("differences_in_float16", KERNEL, "differences of points rounded to float16",
          stationary.of_differences(lambda d: np.square(d.astype(np.float16).astype(d.dtype)).sum(-1))),
    Fault("epsilon_under_root", KERNEL, "1e-6 under the root of the distance, as a guard of its gradient",
          wrap(decay=lambda right: lambda squared, variance: right(squared + squared.dtype.type(1e-6), variance))),
    # --- the formula
    Fault("rbf_instead", KERNEL, "the RBF kernel instead of the Matérn", decay(lambda a, variance: variance * np.exp(-np.square(a) / 10))),  # R2
    Fault("matern_12", KERNEL, "exp(-r), smoothness 1/2", decay(lambda a, variance: variance * np.exp(-a / math.sqrt(5)))),
    Fault("matern_32", KERNEL, "(1 + sqrt(3) r) exp(-sqrt(3) r), smoothness 3/2",
          decay(lambda a, variance: variance * (1 + math.sqrt(0.6) * a) * np.exp(-math.sqrt(0.6) * a))),
    Fault("square_term_missing", KERNEL, "(1 + a) exp(-a)", decay(lambda a, variance: variance * (1 + a) * np.exp(-a))),
    Fault("square_term_not_divided", KERNEL, "a^2 instead of a^2 / 3", decay(lambda a, variance: variance * (1 + a + a * a) * np.exp(-a))),
    Fault("square_term_halved", KERNEL, "a^2 / 2 instead of a^2 / 3, as in the series of exp", decay(lambda a, variance: variance * (1 + a + a * a / 2) * np.exp(-a))),
    Fault("square_term_of_r", KERNEL, "r^2 / 3 instead of 5 r^2 / 3", decay(lambda a, variance: variance * (1 + a + a * a / 15) * np.exp(-a))),
    Fault("linear_term_missing", KERNEL, "(1 + a^2 / 3) exp(-a)", decay(lambda a, variance: variance * (1 + a * a / 3) * np.exp(-a))),
    Fault("root_of_5_missing", KERNEL, "a = r without sqrt(5)", decay(lambda a, variance: variance * matern(a / math.sqrt(5)))),
    Fault("root_of_5_not_in_exp", KERNEL, "exp(-r) instead of exp(-sqrt(5) r)", decay(lambda a, variance: variance * (1 + a + a * a / 3) * np.exp(-a / math.sqrt(5)))),
    Fault("root_of_5_is_5", KERNEL, "a = 5 r", decay(lambda a, variance: variance * matern(a * math.sqrt(5)))),
    Fault("root_of_5_of_10_digits", KERNEL, "sqrt(5) as 2.2360679775", decay(lambda a, variance: variance * matern(a * (2.2360679775 / math.sqrt(5))))),  # R10
    Fault("third_in_float32", KERNEL, "1/3 as the float32 0.33333334", decay(lambda a, variance: variance * (1 + a + a * a * float(np.float32(1 / 3))) * np.exp(-a))),  # R10
    Fault("far_pairs_cut", KERNEL, "0 where a is above 20", decay(lambda a, variance: np.where(a > 20, 0, variance * matern(a)))),
    Fault("kernel_in_float32", KERNEL, "a float32 kernel widened to float64", stationary.result(in_float32)),  # R15
    # --- layout
    Fault("x_and_y_swapped", KERNEL, "the transposed kernel", stationary.result(lambda kernel: np.ascontiguousarray(kernel.T).reshape(kernel.shape))),
    Fault("diagonal_jittered", KERNEL, "1e-6 on the diagonal", stationary.result(lambda kernel: kernel + kernel.dtype.type(1e-6) * np.eye(*kernel.shape, dtype=kernel.dtype))),
    # --- what must be refused
    Fault("accepts_dimensions", REFUSED, "points of different rank or dimension are compared", stationary.lenient),
    Fault("accepts_lengthscales", REFUSED, "any number of lengthscales is taken, and repeated", stationary.any_lengthscale),
    Fault("accepts_lengthscale_zero", REFUSED, "a lengthscale that is not above 0 is taken", accepts("lengthscale must")),
    Fault("accepts_variance_zero", REFUSED, "a variance that is not above 0 is taken", accepts("variance")),
)  # fmt: skip
