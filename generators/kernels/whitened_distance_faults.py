"""Mistakes that people make when they whiten vectors and compare them, each a small change to the plain candidate.

NumPy only. R numbers are those of the catalogue of mistakes in the covering-tree code that the suite is drawn from.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
COVARIANCE = ("covariance",)
CHOLESKY = ("cholesky",)
WHITENED = ("whitened",)
SQUARED = ("squared_distance",)
DISTANCE = ("distance",)
REFUSED = ("refused",)

accepts = beside(__file__, "_refusals").accepts
in_float32 = beside(__file__, "_rounding").through(np.float32)


def centred(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to centring: `formula(vectors)`, (n, k)."""
    return wrap(centred=lambda _: formula)


def covariance(formula: Callable[[Array, float], Array]) -> Callable[[Any], None]:
    """Return a change to the covariance: `formula(deviations, jitter)`, (k, k)."""
    return wrap(covariance_of=lambda _: formula)


def jitter(formula: Callable[[float, Array], Any]) -> Callable[[Any], None]:
    """Return a change to what is added to the diagonal: `formula(jitter, deviations)`, a number or (k, k)."""

    def wrong(right: Any) -> Any:
        return lambda deviations, amount: (right(deviations, 0) + formula(amount, deviations)).astype(deviations.dtype)

    return wrap(covariance_of=wrong)


def identity(deviations: Array) -> Array:
    """Return I, (k, k)."""
    return np.eye(deviations.shape[1])


def whiten(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to whitening: `formula(deviations, factor)`, (n, k)."""
    return wrap(whiten=lambda _: formula)


def squared(formula: Callable[[Array, Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to squared distances: `formula(w, v, same)` of whitened rows and columns, (r, c)."""

    def change(plain: Any) -> None:
        plain.squared_distance = lambda whitened, rows, columns: formula(
            whitened[rows], whitened[columns], plain.same(rows, columns)
        )

    return change


def expanded(w: Array, v: Array, cross: float = 2) -> Array:
    """Return |w|^2 + |v|^2 - 2 w.v, (r, c)."""
    return np.square(w).sum(-1)[:, None] + np.square(v).sum(-1) - cross * (w @ v.T)


def clamped(w: Array, v: Array, same: Array, cross: float = 2) -> Array:
    """Return it 0 at least, and 0 where a vector meets itself, (r, c)."""
    return np.where(same, 0, np.maximum(expanded(w, v, cross), 0))


def distance(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the distance: `formula(squared)`, (r, c)."""
    return wrap(distance=lambda _: formula)


def transposed(array: Array) -> Array:
    """Return the transposed values in the shape of the array."""
    return np.ascontiguousarray(array.T).reshape(array.shape)


def root(matrix: Array) -> Array:
    """Return the symmetric root of a positive matrix, (k, k)."""
    values, at = np.linalg.eigh(matrix)
    return (at * np.sqrt(np.maximum(values, 0))) @ at.T


def unit(w: Array) -> Array:
    """Return vectors divided by their norms, (n, k)."""
    return w / np.sqrt(np.square(w).sum(-1, keepdims=True))


def self_left(plain: Any) -> None:
    """Leave two units of float32 rounding of its norm as the distance of a vector from itself."""
    right = plain.squared_distance

    def squared_distance(whitened: Array, rows: Array, columns: Array) -> Array:
        rounded = 2.0**-22 * np.square(whitened[rows]).sum(-1)[:, None]  # (r, 1)
        return np.where(plain.same(rows, columns), rounded, right(whitened, rows, columns)).astype(whitened.dtype)

    plain.squared_distance = squared_distance


def wrapping(plain: Any) -> None:
    """Count indices of n and more from the start again, and negative ones from the end."""
    accepts("rows", "columns")(plain)
    right = plain.squared_distance
    plain.squared_distance = lambda w, rows, columns: right(w, rows % len(w), columns % len(w))


def of_one_vector(plain: Any) -> None:
    """Take one vector, or one entry each, for vectors of the covariance 0."""
    accepts("vectors")(plain)
    right = plain.whitened_distance

    def whitened_distance(vectors: Array, rows: Array, columns: Array, *, jitter: float) -> Any:
        vectors = np.atleast_2d(vectors)
        vectors = np.concatenate([vectors, vectors]) if len(vectors) == 1 else vectors
        return right(vectors, rows, columns, jitter=jitter)

    plain.whitened_distance = whitened_distance


FAULTS = (
    # --- covariance
    Fault("mean_not_subtracted", COVARIANCE, "no mean is subtracted", centred(lambda x: x)),
    Fault("mean_of_each_vector", COVARIANCE, "the mean of each vector is subtracted, not of each entry", centred(lambda x: x - x.mean(1, keepdims=True))),
    Fault("covariance_over_n", COVARIANCE, "divided by n instead of n - 1", covariance(lambda d, j: d.T @ d / len(d) + (j * identity(d)).astype(d.dtype))),
    Fault("covariance_not_divided", COVARIANCE, "sums of products that are not divided", covariance(lambda d, j: d.T @ d + (j * identity(d)).astype(d.dtype))),
    Fault("correlation_instead", COVARIANCE, "the correlation instead of the covariance",
          covariance(lambda d, j: d.T @ d / np.sqrt(np.outer(np.square(d).sum(0), np.square(d).sum(0))) + (j * identity(d)).astype(d.dtype))),
    Fault("covariance_diagonal", COVARIANCE, "variances only, without covariances", covariance(lambda d, j: np.diag(np.square(d).sum(0) / (len(d) - 1) + j).astype(d.dtype))),
    Fault("jitter_missing", COVARIANCE, "no jitter", jitter(lambda j, d: 0)),
    Fault("jitter_everywhere", COVARIANCE, "the jitter is added to every entry", jitter(lambda j, d: j)),
    Fault("jitter_ten_times", COVARIANCE, "ten times the jitter, as after a failed factorisation", jitter(lambda j, d: 10 * j * identity(d))),
    Fault("jitter_of_variance", COVARIANCE, "the jitter times the mean variance", jitter(lambda j, d: j * np.square(d).mean() * identity(d))),
    Fault("jitter_squared", COVARIANCE, "the square of the jitter", jitter(lambda j, d: j * j * identity(d))),
    Fault("jitter_before_division", COVARIANCE, "the jitter is added before the division by n - 1", jitter(lambda j, d: j / (len(d) - 1) * identity(d))),
    # --- factor
    Fault("factor_upper", CHOLESKY, "the upper triangular factor", wrap(cholesky=lambda right: lambda c: right(c).T)),
    Fault("factor_not_rooted", CHOLESKY, "L D of the factorisation L D L^T", wrap(cholesky=lambda right: lambda c: right(c) * np.diag(right(c)))),
    Fault("factor_unit", CHOLESKY, "L of the factorisation L D L^T, with ones on the diagonal", wrap(cholesky=lambda right: lambda c: right(c) / np.diag(right(c)))),
    Fault("factor_symmetric", CHOLESKY, "the symmetric root of the covariance", wrap(cholesky=lambda right: lambda c: root(c))),
    Fault("factor_not_masked", CHOLESKY, "the covariance is left in the upper triangle", wrap(cholesky=lambda right: lambda c: np.tril(right(c)) + np.triu(c, 1))),
    # --- whitening
    Fault("whitened_by_transpose", WHITENED, "solved with L^T instead of L", whiten(lambda d, L: np.linalg.solve(L.T, d.T).T)),
    Fault("whitened_by_product", WHITENED, "multiplied by L instead of its inverse", whiten(lambda d, L: d @ L)),
    Fault("whitened_by_covariance", WHITENED, "the inverse of the covariance instead of its root", whiten(lambda d, L: np.linalg.solve(L @ L.T, d.T).T)),
    Fault("whitened_by_diagonal", WHITENED, "divided by the diagonal of L only", whiten(lambda d, L: d / np.diag(L))),
    Fault("not_whitened", WHITENED, "deviations that are not whitened", whiten(lambda d, L: d)),
    Fault("whitened_in_float32", WHITENED, "a float32 copy widened to float64", wrap(whiten=lambda right: lambda d, L: in_float32(right(d, L)))),  # R15
    # --- distances
    Fault("cross_term_once", SQUARED, "|w|^2 + |v|^2 - w.v: the cross term without its factor 2", squared(lambda w, v, same: clamped(w, v, same, 1))),
    Fault("cross_term_sign", SQUARED, "|w|^2 + |v|^2 + 2 w.v", squared(lambda w, v, same: clamped(w, v, same, -2))),
    Fault("norm_of_columns_missing", SQUARED, "|w|^2 - 2 w.v without |v|^2",
          squared(lambda w, v, same: np.where(same, 0, np.maximum(np.square(w).sum(-1)[:, None] - 2 * w @ v.T, 0)))),
    Fault("last_factor_missing", SQUARED, "the last entry is not summed", squared(lambda w, v, same: clamped(w[:, :-1], v[:, :-1], same))),
    Fault("self_distance_left", SQUARED, "float32 rounding is left as the distance of a vector from itself", self_left),  # R6
    Fault("products_in_float16", SQUARED, "entries rounded to float16 before the products",
          squared(lambda w, v, same: clamped(w.astype(np.float16).astype(w.dtype), v.astype(np.float16).astype(v.dtype), same))),
    Fault("rows_and_columns_swapped", SQUARED, "the transposed matrix", wrap(squared_distance=lambda right: lambda w, rows, columns: transposed(right(w, rows, columns)))),
    Fault("indices_ignored", SQUARED, "the first vectors whatever the indices say",
          wrap(squared_distance=lambda right: lambda w, rows, columns: right(w, np.arange(len(rows)), np.arange(len(columns))))),
    Fault("cosine_instead", SQUARED, "2 - 2 cos of the angle", squared(lambda w, v, same: clamped(unit(w), unit(v), same))),
    Fault("root_missing", DISTANCE, "the squared distance", distance(lambda d2: d2)),  # R17
    Fault("root_twice", DISTANCE, "the root of the distance", distance(lambda d2: d2**0.25)),
    Fault("distance_divided_by_k", DISTANCE, "the root of a fifth of the squared distance: a mean over entries", distance(lambda d2: np.sqrt(d2 / 5))),
    # --- what must be refused
    Fault("accepts_indices", REFUSED, "indices out of range are counted from the other end", wrapping),
    Fault("accepts_one_vector", REFUSED, "one vector, or rank 1, is taken for the covariance 0", of_one_vector),
    Fault("accepts_negative_jitter", REFUSED, "a jitter below 0 is taken", accepts("jitter")),
)  # fmt: skip
