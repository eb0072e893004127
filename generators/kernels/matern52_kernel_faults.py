"""Mistakes that people make when they write the Matérn 5/2 kernel, each a small change to the plain candidate. NumPy only.

R numbers are those of the catalogue of mistakes in the covering-tree code that the suite is drawn from.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap

Array = Any
KERNEL = ("kernel",)
REFUSED = ("refused",)


def result(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the kernel that is returned: `formula(kernel)`."""
    return wrap(decay=lambda right: lambda squared, variance: formula(right(squared, variance)))


def squared(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to squared distances: `formula(x, y)` of points that were divided by the lengthscales."""
    return wrap(squared_distance=lambda _: lambda x, y, lengthscale: formula(x / lengthscale, y / lengthscale))


def far_off(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to squared distances of float32 points, divided by the lengthscales, far from the origin.

    Near it, what `formula` does is rounding like any other.
    """

    def wrong(right: Any) -> Any:
        def squared_distance(x: Array, y: Array, lengthscale: Array) -> Array:
            if not x.size or not np.abs(x.mean()) > 16 * x.std():
                return right(x, y, lengthscale)
            return formula((x / lengthscale).astype(np.float32), (y / lengthscale).astype(np.float32))

        return squared_distance

    return wrap(squared_distance=wrong)


def of_differences(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to squared distances: `formula(differences)` of (n, m, D), in lengthscales."""
    return wrap(squared_distance=lambda _: lambda x, y, lengthscale: formula((x[:, None] - y) / lengthscale))


def decay(formula: Callable[[Array, float], Array]) -> Callable[[Any], None]:
    """Return a change to what follows the distances: `formula(a, variance)`, a = sqrt(5) distance."""
    return wrap(decay=lambda _: lambda squared, variance: formula(math.sqrt(5) * np.sqrt(squared), variance))


def lengthscales(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to lengthscales: `formula(lengthscale)` takes their place."""
    return wrap(squared_distance=lambda right: lambda x, y, lengthscale: right(x, y, formula(lengthscale)))


def expanded(x: Array, y: Array) -> Array:
    """Return |x|^2 + |y|^2 - 2 x.y without centring."""
    return np.maximum(np.square(x).sum(-1)[:, None] + np.square(y).sum(-1) - 2 * (x @ y.T), 0)


def accepts(*words: str) -> Callable[[Any], None]:
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


def lenient(plain: Any) -> None:
    """Accept points of different ranks and dimensions and compare the dimensions that both have."""
    accepts("x ")(plain)
    right = plain.differences

    def differences(x: Array, y: Array) -> Array:
        D = min(x.shape[-1], y.shape[-1])
        return right(np.atleast_2d(x)[:, :D], np.atleast_2d(y)[:, :D])

    plain.differences = differences


def any_lengthscale(plain: Any) -> None:
    """Accept any number of lengthscales and repeat them."""
    accepts("lengthscale is (")(plain)
    right = plain.squared_distance
    plain.squared_distance = lambda x, y, lengthscale: right(x, y, np.resize(lengthscale, x.shape[1]))


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
    Fault("distance_manhattan", KERNEL, "the sum of absolute differences instead of the root of the sum of squares", of_differences(lambda d: np.square(np.abs(d).sum(-1)))),
    Fault("last_dimension_missing", KERNEL, "the last dimension is not summed", of_differences(lambda d: np.square(d[..., :-1]).sum(-1))),
    Fault("cross_term_once", KERNEL, "|x|^2 + |y|^2 - x.y: the cross term without its factor 2",
          squared(lambda x, y: np.maximum(np.square(x).sum(-1)[:, None] + np.square(y).sum(-1) - x @ y.T, 0))),
    Fault("expanded_in_float32", KERNEL, "|x|^2 + |y|^2 - 2 x.y in float32 without centring", far_off(expanded)),  # R9
    Fault("divided_before_subtracted", KERNEL, "float32 points divided by the lengthscale before they are subtracted",
          far_off(lambda x, y: np.square(x[:, None] - y).sum(-1))),
    Fault("differences_in_float16", KERNEL, "differences of points rounded to float16",
          of_differences(lambda d: np.square(d.astype(np.float16).astype(d.dtype)).sum(-1))),
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
    Fault("kernel_in_float32", KERNEL, "a float32 kernel widened to float64", result(lambda kernel: kernel.astype(np.float32).astype(kernel.dtype))),  # R15
    # --- layout
    Fault("x_and_y_swapped", KERNEL, "the transposed kernel", result(lambda kernel: np.ascontiguousarray(kernel.T).reshape(kernel.shape))),
    Fault("diagonal_jittered", KERNEL, "1e-6 on the diagonal", result(lambda kernel: kernel + kernel.dtype.type(1e-6) * np.eye(*kernel.shape, dtype=kernel.dtype))),
    # --- what must be refused
    Fault("accepts_dimensions", REFUSED, "points of different rank or dimension are compared", lenient),
    Fault("accepts_lengthscales", REFUSED, "any number of lengthscales is taken, and repeated", any_lengthscale),
    Fault("accepts_lengthscale_zero", REFUSED, "a lengthscale that is not above 0 is taken", accepts("lengthscale must")),
    Fault("accepts_variance_zero", REFUSED, "a variance that is not above 0 is taken", accepts("variance")),
)  # fmt: skip
