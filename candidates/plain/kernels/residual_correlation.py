"""The residual-correlation distance in plain NumPy: the definition, to read and to copy.

The residual process of a Gaussian process given inducing points (Sang and Huang 2012), and the distance of
correlations by which Vecchia neighbours are found (Kang and Katzfuss 2023; GPBoost's `residual_correlation_FSA`). n
points of D dimensions, m inducing points, r rows, c columns.
"""

import math

import numpy as np

FLOOR = 1e-9


def residual_correlation(
    points, lengthscale, rows, columns, inducing=None, projections=None, residual_variance=None,
    *, kernel, variance, jitter, radius,
):  # fmt: skip
    """Return the distances of `points` (n, D) at `rows` (r,) from those at `columns` (c,), and what they come from."""
    refuse(points, lengthscale, kernel, variance, jitter, radius)
    refuse_indices(points, {"rows": rows, "columns": columns, "inducing": inducing})
    refuse_given(points, inducing, projections, residual_variance)
    found = {}
    if inducing is not None:
        of_inducing = inducing_kernel(points[inducing], lengthscale, kernel, variance, jitter)  # (m, m)
        factor = cholesky(of_inducing)  # (m, m)
        projections = project(covariance(points, points[inducing], lengthscale, kernel, variance), factor)  # (n, m)
        residual_variance = residual(projections, variance)  # (n,)
        found = {"inducing_kernel": of_inducing, "cholesky": factor}
        found |= {"projections": projections, "residual_variance": residual_variance}
    block = kernel_block(points, rows, columns, lengthscale, kernel, variance)  # (r, c)
    left = residual_covariance(block, projections, rows, columns)  # (r, c)
    rho = correlation(left, residual_variance[rows], residual_variance[columns])  # (r, c)
    apart = distance(rho, same(rows, columns))  # (r, c)
    found |= {"kernel_block": block, "residual_covariance": left, "correlation": rho, "distance": apart}
    found = {name: array.astype(points.dtype) for name, array in found.items()}
    return found | {"within_radius": within(apart, radius)}


def refuse(points, lengthscale, kernel, variance, jitter, radius):
    """Raise `ValueError` where points and parameters contradict the contract."""
    if kernel not in ("rbf", "matern52"):
        raise ValueError(f"kernel is {kernel!r}, not 'rbf' or 'matern52'")
    if points.ndim != 2 or lengthscale.shape not in ((1,), (points.shape[1],)):
        raise ValueError(f"lengthscale is {lengthscale.shape}, must be (1,) or (D,) for points of {points.shape}")
    if not (lengthscale > 0).all():
        raise ValueError(f"lengthscale must be above 0, is {lengthscale}")
    if not variance > 0:
        raise ValueError(f"variance must be above 0, is {variance}")
    if not jitter >= 0:
        raise ValueError(f"jitter must be 0 or more, is {jitter}")
    if not radius >= 0:
        raise ValueError(f"radius must be 0 or more, is {radius}")


def refuse_indices(points, named):
    """Raise `ValueError` where an index is not one of a point."""
    for name, indices in named.items():
        if indices is not None and not ((indices >= 0) & (indices < len(points))).all():
            raise ValueError(f"{name} must be indices from 0 to {len(points) - 1}, are {indices}")


def refuse_given(points, inducing, projections, residual_variance):
    """Raise `ValueError` unless either inducing points or fitting projections and residual variances are given."""
    given = [projections is not None, residual_variance is not None]
    if any(given) != all(given) or (inducing is None) != all(given):
        raise ValueError("either inducing, or both projections and residual_variance must be given")
    if all(given) and (len(projections) != len(points) or residual_variance.shape != (len(points),)):
        raise ValueError(f"projections {projections.shape} and residual_variance {residual_variance.shape} do not fit")
    if all(given) and not (residual_variance >= 0).all():
        raise ValueError(f"residual_variance must be 0 or more, is {residual_variance}")


def covariance(x, y, lengthscale, kernel, variance):
    """Return the kernel of the points `x` (p, D) and `y` (q, D), (p, q)."""
    squared = squared_distance(x, y, lengthscale)  # (p, q)
    return {"rbf": rbf, "matern52": matern52}[kernel](squared, variance)


def squared_distance(x, y, lengthscale):
    """Return squared distances in lengthscales, (p, q); what is subtracted first loses no digits."""
    return np.square((x[:, None, :] - y[None, :, :]) / lengthscale).sum(-1)


def rbf(squared, variance):
    """Return variance exp(-squared / 2), (p, q)."""
    return variance * np.exp(-0.5 * squared)


def matern52(squared, variance):
    """Return variance (1 + a + a^2 / 3) exp(-a), (p, q)."""
    a = math.sqrt(5) * np.sqrt(squared)  # (p, q)
    return variance * ((1 + a + np.square(a) / 3) * np.exp(-a))


def inducing_kernel(u, lengthscale, kernel, variance, jitter):
    """Return the kernel of the inducing points `u` (m, D) with the jitter on its diagonal, (m, m)."""
    return covariance(u, u, lengthscale, kernel, variance) + jittered(jitter, variance) * np.eye(len(u), dtype=u.dtype)


def jittered(jitter, variance):
    """Return what is added to the diagonal."""
    return jitter * variance


def cholesky(matrix):
    """Return the lower triangular factor, (m, m)."""
    return np.linalg.cholesky(matrix)


def project(cross, factor):
    """Return L^-1 of each row of the kernel of points and inducing points by forward substitution, (n, m)."""
    projections = np.zeros_like(cross)
    for j in range(len(factor)):
        projections[:, j] = (cross[:, j] - projections[:, :j] @ factor[j, :j]) / factor[j, j]
    return projections


def residual(projections, variance):
    """Return what the projections leave of the variance, (n,)."""
    return np.maximum(variance - np.square(projections).sum(-1), FLOOR)


def kernel_block(points, rows, columns, lengthscale, kernel, variance):
    """Return the kernel of rows and columns, (r, c)."""
    return covariance(points[rows], points[columns], lengthscale, kernel, variance)


def residual_covariance(block, projections, rows, columns):
    """Return what the projections leave of the kernel, (r, c)."""
    return block - projections[rows] @ projections[columns].T


def correlation(left, p, q):
    """Return the correlation of residual covariances (r, c) of residual variances (r,) and (c,), 0 where one is 0."""
    rho = np.clip(left / denominator(p, q), -1, 1)  # (r, c)
    return np.where(without_residual(p, q), 0, rho)


def denominator(p, q):
    """Return the root of products of residual variances, (r, c)."""
    return np.sqrt(np.maximum(p[:, None] * q, FLOOR**2))


def without_residual(p, q):
    """Return where a residual variance is 0, boolean, (r, c)."""
    return (p[:, None] == 0) | (q == 0)


def same(rows, columns):
    """Return where a point meets itself, boolean, (r, c)."""
    return rows[:, None] == columns


def distance(rho, itself):
    """Return the distance of correlations, (r, c), 0 where a point meets itself."""
    return np.where(itself, 0, np.sqrt(1 - np.abs(rho)))


def within(apart, radius):
    """Return 1 where a distance is the radius or less, else 0, (r, c)."""
    return (apart <= radius + 1e-9).astype(np.int64)
