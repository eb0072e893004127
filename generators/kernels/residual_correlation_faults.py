"""Mistakes that people make when they write the residual-correlation metric, each a small change to the plain candidate.

NumPy only. R numbers are those of the catalogue of mistakes in the covering-tree code that the suite is drawn from.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
KERNEL = ("inducing_kernel", "kernel_block")
INDUCING = ("inducing_kernel",)
CHOLESKY = ("cholesky",)
PROJECTIONS = ("projections",)
VARIANCE = ("residual_variance",)
BLOCK = ("kernel_block",)
COVARIANCE = ("residual_covariance",)
CORRELATION = ("correlation",)
DISTANCE = ("distance",)
MASK = ("within_radius",)
REFUSED = ("refused",)

accepts = beside(__file__, "_refusals").accepts
stationary = beside(__file__, "_stationary_faults")
in_float32 = beside(__file__, "_rounding").through(np.float32)


# --- kernels


def kernel(**changed: Callable[[Any], Any]) -> Change:
    """Return a change to arguments of every kernel: each value makes the wrong one from the right one."""

    def wrong(right: Any) -> Any:
        def covariance(x: Array, y: Array, lengthscale: Array, kernel: str, variance: float) -> Array:
            given = {"lengthscale": lengthscale, "kernel": kernel, "variance": variance}
            return right(x, y, **(given | {name: change(given[name]) for name, change in changed.items()}))

        return covariance

    return wrap(covariance=wrong)


def block(**changed: Callable[[Any], Any]) -> Change:
    """Return a change to arguments of the kernel of rows and columns only."""

    def wrong(right: Any) -> Any:
        def kernel_block(
            points: Array, rows: Array, columns: Array, lengthscale: Array, kernel: str, variance: float
        ) -> Array:
            given = {"lengthscale": lengthscale, "kernel": kernel, "variance": variance}
            given |= {name: change(given[name]) for name, change in changed.items()}
            return right(points, rows, columns, **given)

        return kernel_block

    return wrap(kernel_block=wrong)


def of_block(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the kernel of rows and columns that is returned: `formula(block)`."""
    return wrap(kernel_block=lambda right: lambda *arguments: formula(right(*arguments)))


def far_off(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to squared distances of float32 points far from the origin: `formula(x, y)`, in lengthscales.

    Near it, what `formula` does is rounding like any other.
    """

    def wrong(right: Any) -> Any:
        def squared_distance(x: Array, y: Array, lengthscale: Array) -> Array:
            if not x.size or not np.abs(x.mean()) > 32:
                return right(x, y, lengthscale)
            return formula((x / lengthscale).astype(np.float32), (y / lengthscale).astype(np.float32)).astype(x.dtype)

        return squared_distance

    return wrap(squared_distance=wrong)


def of_indices(plain: Any) -> None:
    """Take the indices for coordinates in one dimension."""

    def kernel_block(points: Array, rows: Array, columns: Array, lengthscale: Array, *params: Any) -> Array:
        x, y = (indices[:, None].astype(points.dtype) for indices in (rows, columns))  # (r, 1), (c, 1)
        return plain.covariance(x, y, lengthscale[:1], *params)

    plain.kernel_block = kernel_block


def diagonal(amount: Callable[[float, float], float], *, everywhere: bool = False) -> Change:
    """Return a change to what is added to the kernel of inducing points: `amount(jitter, variance)`."""

    def change(plain: Any) -> None:
        def inducing_kernel(u: Array, lengthscale: Array, kernel: str, variance: float, jitter: float) -> Array:
            right = plain.covariance(u, u, lengthscale, kernel, variance)
            where = np.ones_like(right) if everywhere else np.eye(len(u), dtype=right.dtype)
            return right + amount(jitter, variance) * where

        plain.inducing_kernel = inducing_kernel

    return change


# --- factor, projections, residual variance


def factor(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the factor: `formula(factor)`, (m, m)."""
    return wrap(cholesky=lambda right: lambda matrix: formula(right(matrix)))


def project(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to projections: `formula(cross, factor)` of (n, m) and (m, m), (n, m)."""
    return wrap(project=lambda _: formula)


def residual(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to the residual variance: `formula(projections, variance)`, (n,)."""
    return wrap(residual=lambda _: formula)


def explained(projections: Array) -> Array:
    """Return |V_i|^2, (n,)."""
    return np.square(projections).sum(-1)


def covariance(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the residual covariance: `formula(block, V, W)` of the projections of rows and columns."""
    return wrap(residual_covariance=lambda _: lambda block, V, rows, columns: formula(block, V[rows], V[columns]))


def aliased(plain: Any) -> None:
    """Take the projections and residual variances of the first point with the same coordinates."""
    right = plain.residual_correlation

    def residual_correlation(
        points: Array, lengthscale: Array, rows: Array, columns: Array, *rest: Any, **more: Any
    ) -> Any:
        if points.ndim == 2 and "projections" in more and "residual_variance" in more:
            owner = (points[:, None] == points).all(-1).argmax(1)  # (n,)
            V, p = more["projections"], more["residual_variance"]
            if len(V) == len(p) == len(points):
                more |= {"projections": V[owner], "residual_variance": p[owner]}
        return right(points, lengthscale, rows, columns, *rest, **more)

    plain.residual_correlation = residual_correlation


def by_position(plain: Any) -> None:
    """Take projections by position in rows and columns, not by the index that stands there."""
    right = plain.residual_covariance
    plain.residual_covariance = lambda block, V, rows, columns: right(
        block, V, np.arange(len(rows)) % len(V), np.arange(len(columns)) % len(V)
    )


# --- correlation, distance, mask


def correlation(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the correlation: `formula(left, p, q)`, (r, c), before the rule for residual variances of 0."""

    def change(plain: Any) -> None:
        plain.correlation = lambda left, p, q: np.where(plain.without_residual(p, q), 0, formula(left, p, q))

    return change


def denominator(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the denominator of the correlation: `formula(p, q)`, (r, c)."""
    return wrap(denominator=lambda _: formula)


def distance(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the distance: `formula(rho)`, (r, c), where a point does not meet itself."""
    return wrap(distance=lambda _: lambda rho, itself: np.where(itself, 0, formula(rho)))


def self_left(plain: Any) -> None:
    """Leave the distance of a point from itself as float32 rounding makes it."""
    right = plain.distance

    def wrong(rho: Array, itself: Array) -> Array:
        rounded = np.where(rho == 0, 0, 1 - np.maximum(1 - np.abs(rho), 2.0**-22))
        return np.where(itself, np.sqrt(1 - np.abs(rounded)), right(rho, itself)).astype(rho.dtype)

    plain.distance = wrong


def of_prior(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to the distance: `formula(block, variance)` of the kernel alone."""

    def change(plain: Any) -> None:
        seen: dict[str, Any] = {}
        right_block = plain.kernel_block

        def kernel_block(*arguments: Any) -> Array:
            seen.update(block=right_block(*arguments), variance=arguments[-1])
            return seen["block"]

        def distance(rho: Array, itself: Array) -> Array:
            del rho
            return np.where(itself, 0, formula(seen["block"], seen["variance"]))

        plain.kernel_block, plain.distance = kernel_block, distance

    return change


def result(formula: Callable[[dict[str, Array], dict[str, Any]], dict[str, Array]]) -> Change:
    """Return a change to what is returned: `formula(found, given)` of the checkpoints and all arguments by name."""

    def change(plain: Any) -> None:
        right = plain.residual_correlation
        plain.residual_correlation = lambda **given: formula(right(**given), given)

    return change


def beyond(found: dict[str, Array], given: dict[str, Any]) -> dict[str, Array]:
    """Return the bound where a distance is beyond the radius."""
    apart = found["distance"]
    bound = (given["radius"] + 1e-9) * np.ones_like(apart)
    return found | {"distance": np.where(found["within_radius"] > 0, apart, bound)}


def index_distance(found: dict[str, Array], given: dict[str, Any]) -> dict[str, Array]:
    """Return the distance |i - j| of indices."""
    apart = np.abs(given["rows"][:, None] - given["columns"]).astype(given["points"].dtype)
    return found | {"distance": apart, "within_radius": (apart <= given["radius"] + 1e-9).astype(np.int64)}


def euclidean_mask(found: dict[str, Array], given: dict[str, Any]) -> dict[str, Array]:
    """Return the mask of Euclidean distances."""
    x, y = given["points"][given["rows"]], given["points"][given["columns"]]
    apart = np.sqrt(np.square(x[:, None] - y).sum(-1))
    return found | {"within_radius": (apart <= given["radius"] + 1e-9).astype(np.int64)}


def within(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to the mask: `formula(distance, radius)`, boolean."""
    return wrap(within=lambda _: lambda apart, radius: formula(apart, radius).astype(np.int64))


# --- what must be refused


def wrapping(plain: Any) -> None:
    """Count indices of n and more from the start again, and negative ones from the end."""
    accepts("rows", "columns", "inducing", check="refuse_indices")(plain)
    right = plain.residual_correlation

    def residual_correlation(**given: Any) -> Any:
        n = len(given["points"])
        wrapped = {name: given[name] % n for name in ("rows", "columns", "inducing") if given.get(name) is not None}
        return right(**(given | wrapped))

    plain.residual_correlation = residual_correlation


def anything_given(plain: Any) -> None:
    """Take V and p as they come, and ones for p where it is missing; without any, nothing is explained."""
    accepts("either", "projections", check="refuse_given")(plain)
    right = plain.residual_correlation

    def residual_correlation(**given: Any) -> Any:
        points = given["points"]
        if given.get("inducing") is None:
            V = given.get("projections")
            V = np.zeros((len(points), 1), points.dtype) if V is None else np.resize(V, (len(points), V.shape[1]))
            p = given.get("residual_variance")
            p = np.ones(len(points), points.dtype) if p is None else p
            given |= {"projections": V, "residual_variance": p}
        return right(**given)

    plain.residual_correlation = residual_correlation


def any_variance(plain: Any) -> None:
    """Take a variance of 0 for 1."""
    right = plain.residual_correlation
    plain.residual_correlation = lambda **given: right(**(given | {"variance": given["variance"] or 1.0}))


def any_kernel(plain: Any) -> None:
    """Take an unknown kernel for the RBF."""
    accepts("kernel")(plain)
    right = plain.covariance
    plain.covariance = lambda x, y, s, kernel, v: right(x, y, s, kernel if kernel == "matern52" else "rbf", v)


def clip(rho: Array) -> Array:
    """Return correlations between -1 and 1."""
    return np.clip(rho, -1, 1)


FAULTS = (
    # --- kernel
    Fault("lengthscale_ignored", KERNEL, "lengthscale 1 in every kernel", kernel(lengthscale=np.ones_like)),  # R1
    Fault("first_lengthscale_for_all", KERNEL, "the first lengthscale for every dimension", kernel(lengthscale=lambda s: s[:1])),
    Fault("lengthscale_taken_for_gamma", KERNEL, "exp(-s^2 / lengthscale^2): gamma = 1 / lengthscale^2 without the factor 1/2", kernel(lengthscale=lambda s: s / np.sqrt(s.dtype.type(2)))),  # R8
    Fault("variance_ignored", KERNEL, "variance 1 in every kernel", kernel(variance=lambda v: 1.0)),  # R1
    Fault("matern_as_rbf", KERNEL, "the RBF kernel where Matérn is asked for", kernel(kernel=lambda name: "rbf")),  # R2
    Fault("rbf_as_matern", KERNEL, "the Matérn kernel where RBF is asked for", kernel(kernel=lambda name: "matern52")),
    Fault("distances_expanded_in_float32", KERNEL, "|x|^2 + |y|^2 - 2 x.y in float32 without centring", far_off(stationary.expanded)),  # R9
    # --- kernel of the inducing points
    Fault("jitter_missing", INDUCING, "no jitter", diagonal(lambda jitter, variance: 0.0)),
    Fault("jitter_absolute", INDUCING, "the jitter is not multiplied by the variance", diagonal(lambda jitter, variance: jitter)),
    Fault("jitter_ten_times", INDUCING, "ten times the jitter, as after a failed factorisation", diagonal(lambda jitter, variance: 10 * jitter * variance)),
    Fault("jitter_1e-6", INDUCING, "a jitter of 1e-6 whatever the parameter says", diagonal(lambda jitter, variance: 1e-6 * variance)),
    Fault("jitter_everywhere", INDUCING, "the jitter is added to every entry", diagonal(lambda jitter, variance: jitter * variance, everywhere=True)),
    # --- factor
    Fault("factor_upper", CHOLESKY, "the upper triangular factor", factor(lambda L: L.T)),
    Fault("factor_unit", CHOLESKY, "L of the factorisation L D L^T, with ones on the diagonal", factor(lambda L: L / np.diag(L))),
    Fault("factor_in_float32", CHOLESKY, "a float32 factor widened to float64", factor(in_float32)),  # R15
    # --- projections
    Fault("projected_by_transpose", PROJECTIONS, "solved with L^T instead of L", project(lambda cross, L: np.linalg.solve(L.T, cross.T).T)),
    Fault("projected_by_product", PROJECTIONS, "multiplied by L instead of its inverse", project(lambda cross, L: cross @ L)),
    Fault("projected_twice", PROJECTIONS, "L^-T L^-1: the weights of the inducing points instead of V", project(lambda cross, L: np.linalg.solve(L @ L.T, cross.T).T)),
    Fault("projected_by_inducing_kernel_diagonal", PROJECTIONS, "divided by the diagonal of L only", project(lambda cross, L: cross / np.diag(L))),
    Fault("projections_in_float32", PROJECTIONS, "a float32 copy of V widened to float64", wrap(project=lambda right: lambda cross, L: in_float32(right(cross, L)))),  # R15
    # --- residual variance
    Fault("variance_1_in_residual", VARIANCE, "1 - |V|^2 instead of the variance less |V|^2", residual(lambda V, v: np.maximum(1 - explained(V), 1e-9))),  # R1
    Fault("explained_not_subtracted", VARIANCE, "p is the variance", residual(lambda V, v: np.full_like(V[:, 0], v))),
    Fault("explained_norm", VARIANCE, "the variance less |V|, not its square", residual(lambda V, v: np.maximum(v - np.sqrt(explained(V)), 1e-9))),
    Fault("residual_rooted", VARIANCE, "p as a standard deviation", residual(lambda V, v: np.sqrt(np.maximum(v - explained(V), 1e-9)))),
    Fault("residual_floor_missing", VARIANCE, "no floor of 1e-9", residual(lambda V, v: np.maximum(v - explained(V), 1e-30))),  # R7
    Fault("residual_floor_1e-6", VARIANCE, "a floor of 1e-6", residual(lambda V, v: np.maximum(v - explained(V), v * 1e-6 / 0.4))),
    Fault("residual_with_jitter", VARIANCE, "1e-6 added to p", residual(lambda V, v: np.maximum(v - explained(V), 1e-9) + V.dtype.type(1e-6))),
    # --- kernel of rows and columns
    Fault("block_lengthscale_ignored", BLOCK, "V with the lengthscale, the kernel of pairs with 1", block(lengthscale=np.ones_like)),  # R1
    Fault("block_variance_ignored", BLOCK, "V with the variance, the kernel of pairs with 1", block(variance=lambda v: 1.0)),  # R1
    Fault("block_matern_as_rbf", BLOCK, "V of the Matérn kernel, the RBF kernel of pairs", block(kernel=lambda name: "rbf")),  # R2
    Fault("block_of_zeros", BLOCK, "a kernel of zeros from a stand-in for its provider", of_block(np.zeros_like)),  # R3
    Fault("block_of_indices", BLOCK, "indices taken for coordinates in one dimension", of_indices),  # R21
    Fault("block_in_float32", BLOCK, "a float32 kernel widened to float64", of_block(in_float32)),  # R15
    # --- residual covariance
    Fault("prior_covariance", COVARIANCE, "V_i.V_j is not subtracted", covariance(lambda block, V, W: block)),
    Fault("explained_added", COVARIANCE, "V_i.V_j is added", covariance(lambda block, V, W: block + V @ W.T)),
    Fault("last_factor_missing", COVARIANCE, "the last column of V is not in the products", covariance(lambda block, V, W: block - V[:, :-1] @ W[:, :-1].T)),
    Fault("projections_by_position", COVARIANCE, "V by position in rows and columns, not by index", by_position),  # R20
    Fault("duplicates_aliased", COVARIANCE, "V and p of the first point with the same coordinates", aliased),  # R13
    # --- correlation
    Fault("clip_missing", CORRELATION, "correlations beyond 1 and -1 are left: the root of the distance is NaN", correlation(lambda left, p, q: left / np.sqrt(np.maximum(p[:, None] * q, 1e-18)))),  # R18
    Fault("denominator_not_rooted", CORRELATION, "divided by p_i p_j", denominator(lambda p, q: np.maximum(p[:, None] * q, 1e-18))),
    Fault("denominator_of_rows", CORRELATION, "divided by p_i only", denominator(lambda p, q: np.maximum(p[:, None] + 0 * q, 1e-9))),
    Fault("denominator_is_mean", CORRELATION, "divided by the mean of p_i and p_j", denominator(lambda p, q: np.maximum((p[:, None] + q) / 2, 1e-9))),
    Fault("denominator_floor_1e-6", CORRELATION, "1e-6 at least under the fraction", denominator(lambda p, q: np.maximum(np.sqrt(p[:, None] * q), 2e-6))),
    Fault("denominator_floor_missing", CORRELATION, "no floor under the fraction", denominator(lambda p, q: np.sqrt(np.maximum(p[:, None] * q, 1e-30)))),
    Fault("zero_residual_saturates", CORRELATION, "rho is 1 or -1, not 0, where a residual variance is 0", wrap(without_residual=lambda _: lambda p, q: np.zeros((len(p), len(q)), bool))),  # R7
    Fault("correlation_absolute", CORRELATION, "|rho| in place of rho", correlation(lambda left, p, q: clip(np.abs(left) / np.sqrt(np.maximum(p[:, None] * q, 1e-18))))),
    Fault("negative_clipped", CORRELATION, "rho clipped between 0 and 1", correlation(lambda left, p, q: np.clip(left / np.sqrt(np.maximum(p[:, None] * q, 1e-18)), 0, 1))),
    # --- distance
    Fault("absolute_dropped", DISTANCE, "sqrt(1 - rho), without the absolute value", distance(lambda rho: np.sqrt(1 - rho))),  # R17
    Fault("root_missing", DISTANCE, "1 - |rho|: the squared distance", distance(lambda rho: 1 - np.abs(rho))),  # R17
    Fault("distance_lite", DISTANCE, "1 - rho: the distance of the other metric", distance(lambda rho: 1 - rho)),  # R17
    Fault("distance_of_squared", DISTANCE, "sqrt(1 - rho^2)", distance(lambda rho: np.sqrt(1 - rho * rho))),
    Fault("distance_times_root_2", DISTANCE, "sqrt(2 (1 - |rho|)), as on a sphere", distance(lambda rho: np.sqrt(2 * (1 - np.abs(rho))))),
    Fault("self_distance_left", DISTANCE, "the distance of a point from itself is left to rounding", self_left),  # R6
    Fault("prior_bound", DISTANCE, "sqrt(1 - k / variance), called a lower bound", of_prior(lambda block, v: np.sqrt(np.maximum(0, 1 - clip(block / v))))),  # R4
    Fault("beyond_radius_is_bound", DISTANCE, "radius + 1e-9 in place of distances beyond the radius", result(beyond)),  # R14
    Fault("distance_of_indices", DISTANCE, "|i - j|: indices taken for points", result(index_distance)),  # R21
    # --- mask
    Fault("radius_excluded", MASK, "a distance that is the radius is not within", within(lambda d, radius: d < radius)),
    Fault("radius_squared", MASK, "compared with the square of the radius", within(lambda d, radius: d <= radius * radius + 1e-9)),
    Fault("radius_of_squared_distance", MASK, "the squared distance compared with the radius", within(lambda d, radius: d * d <= radius + 1e-9)),
    Fault("mask_inverted", MASK, "true where beyond the radius", within(lambda d, radius: d > radius + 1e-9)),
    Fault("mask_of_euclidean_distance", MASK, "the Euclidean distance compared with the radius", result(euclidean_mask)),  # R11
    # --- what must be refused
    Fault("accepts_indices", REFUSED, "indices out of range are counted from the other end", wrapping),
    Fault("accepts_anything_given", REFUSED, "inducing points, V and p are taken as they come", anything_given),
    Fault("accepts_residual_variance", REFUSED, "a residual variance below 0 or NaN is taken", accepts("residual_variance must be 0", check="refuse_given")),
    Fault("accepts_lengthscales", REFUSED, "any number of lengthscales is taken, and repeated", stationary.any_lengthscale),
    Fault("accepts_lengthscale_zero", REFUSED, "a lengthscale of 0 is taken", accepts("lengthscale must")),
    Fault("accepts_variance_zero", REFUSED, "a variance of 0 is taken for 1", any_variance),
    Fault("accepts_negative_jitter", REFUSED, "a jitter below 0 is taken", accepts("jitter")),
    Fault("accepts_negative_radius", REFUSED, "a radius below 0 is taken", accepts("radius")),
    Fault("accepts_unknown_kernel", REFUSED, "an unknown kernel is taken for the RBF", any_kernel),
)  # fmt: skip
