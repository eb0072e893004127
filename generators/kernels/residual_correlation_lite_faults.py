"""Mistakes that people make when they write the correlation distance, each a small change to the plain candidate.

NumPy only. R numbers are those of the catalogue of mistakes in the covering-tree code that the suite is drawn from.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
BOTH = ("correlation", "distance")
DISTANCE = ("distance",)
REFUSED = ("refused",)

in_float32 = beside(__file__, "_rounding").through(np.float32)


def centred(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to centring: `formula(x)`, (n, L)."""
    return wrap(centred=lambda _: formula)


def norms(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to norms: `formula(u)`, (n,)."""
    return wrap(norms=lambda _: formula)


def floored(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the floor: `formula(norm)`, (n,)."""
    return wrap(floored=lambda _: formula)


def distance(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the distance: `formula(correlation)`, (n, m)."""
    return wrap(distance=lambda _: formula)


def returned(formula: Callable[[dict[str, Array]], dict[str, Array]]) -> Callable[[Any], None]:
    """Return a change to what is returned."""
    return wrap(residual_correlation_lite=lambda right: lambda x, y: formula(right(x, y)))


def transposed(array: Array) -> Array:
    """Return the transposed values in the shape of the array."""
    return np.ascontiguousarray(array.T).reshape(array.shape)


def cosine(plain: Any) -> None:
    """Subtract no mean."""
    plain.centred = lambda x: x


def lenient(plain: Any) -> None:
    """Accept vectors of any lengths and ranks, and compare the entries that both have."""
    plain.refuse = lambda x, y: None
    right = plain.residual_correlation_lite

    def residual_correlation_lite(x: Array, y: Array) -> dict[str, Array]:
        L = min(x.shape[-1], y.shape[-1])
        found: dict[str, Array] = right(np.atleast_2d(x)[:, :L], np.atleast_2d(y)[:, :L])
        return found

    plain.residual_correlation_lite = residual_correlation_lite


FAULTS = (
    # --- correlation
    Fault("mean_not_subtracted", BOTH, "the cosine: no mean is subtracted", cosine),
    Fault("mean_over_vectors", BOTH, "the mean of all vectors is subtracted, not of each", centred(lambda x: x - x.mean(0, keepdims=True) if x.shape[0] else x)),
    Fault("mean_over_all", BOTH, "one mean over all entries of all vectors", centred(lambda x: x - (x.mean() if x.size else 0))),
    Fault("norm_not_rooted", BOTH, "divided by the sum of squares instead of its root", norms(lambda u: np.square(u).sum(-1))),
    Fault("norm_is_deviation", BOTH, "divided by standard deviations: the sum is not divided by L", norms(lambda u: np.sqrt(np.square(u).mean(-1)))),
    Fault("norm_unbiased", BOTH, "the covariance over L, deviations over L - 1", norms(lambda u: np.sqrt(np.square(u).sum(-1) * (u.shape[-1] / (u.shape[-1] - 1))))),
    Fault("norm_is_largest", BOTH, "divided by the largest entry", norms(lambda u: np.abs(u).max(-1, initial=0))),
    Fault("norm_missing", BOTH, "inner products that are not divided", floored(np.ones_like)),
    Fault("last_entry_missing", BOTH, "the last entry is not in the inner products", wrap(products=lambda right: lambda u, v: right(u[:, :-1], v[:, :-1]))),
    Fault("entries_beyond_four_missing", BOTH, "entries beyond the last whole vector of four are not in the inner products",
          wrap(products=lambda right: lambda u, v: right(u[:, : u.shape[1] // 4 * 4], v[:, : v.shape[1] // 4 * 4]))),
    Fault("products_in_float16", BOTH, "entries rounded to float16 before the inner products",
          wrap(products=lambda right: lambda u, v: right(u.astype(np.float16).astype(u.dtype), v.astype(np.float16).astype(v.dtype)))),
    Fault("ranks_instead", BOTH, "Spearman's correlation of ranks", centred(lambda x: (x.argsort(-1).argsort(-1) - (x.shape[-1] - 1) / 2).astype(x.dtype))),
    # --- the floor
    Fault("floor_missing", BOTH, "no floor under the norms: vectors without variance give NaN", floored(lambda norm: norm)),
    Fault("floor_1e-12", BOTH, "1e-12 under the norms, the square of the floor", floored(lambda norm: np.maximum(norm, 1e-12))),
    Fault("floor_1e-8", BOTH, "1e-8 under the norms", floored(lambda norm: np.maximum(norm, 1e-8))),
    Fault("floor_added", BOTH, "1e-6 added to the norms", floored(lambda norm: norm + norm.dtype.type(1e-6))),
    Fault("floor_under_square", BOTH, "1e-6 under the sum of squares, 1e-3 under the norm", floored(lambda norm: np.maximum(norm, 1e-3))),
    # --- distance
    Fault("distance_of_absolute", DISTANCE, "1 - |correlation|, as in the residual metric", distance(lambda c: np.maximum(0, 1 - np.abs(c)))),  # R17
    Fault("distance_rooted", DISTANCE, "the root of 1 - correlation", distance(lambda c: np.sqrt(np.maximum(0, 1 - c)))),  # R17
    Fault("distance_of_residual_metric", DISTANCE, "sqrt(1 - |correlation|): the distance of the other metric", distance(lambda c: np.sqrt(np.maximum(0, 1 - np.abs(c))))),  # R17
    Fault("distance_halved", DISTANCE, "(1 - correlation) / 2", distance(lambda c: (1 - c) / 2)),
    Fault("distance_sign", DISTANCE, "1 + correlation", distance(lambda c: 1 + c)),
    Fault("distance_is_correlation", DISTANCE, "the correlation in place of the distance", distance(lambda c: c)),
    Fault("distance_clipped_at_1", DISTANCE, "clipped to 1: correlations below 0 are lost", distance(lambda c: np.clip(1 - c, 0, 1))),
    Fault("distance_of_squared", DISTANCE, "1 - correlation^2", distance(lambda c: 1 - c * c)),
    # --- layout and format
    Fault("x_and_y_swapped", BOTH, "the transposed matrix", returned(lambda found: {name: transposed(array) for name, array in found.items()})),
    Fault("kept_in_float32", BOTH, "float32 results widened to float64", returned(lambda found: {name: in_float32(array) for name, array in found.items()})),  # R15
    # --- what must be refused
    Fault("accepts_lengths", REFUSED, "vectors of different lengths or of rank 1 are compared", lenient),
)  # fmt: skip
