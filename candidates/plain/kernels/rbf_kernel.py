"""The RBF kernel in plain NumPy: the definition, to read and to copy.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), equation 4.9 (with a lengthscale for each
dimension: 5.1); with gamma as scikit-learn has it (`sklearn.metrics.pairwise.rbf_kernel`). n points x, m points y, D
dimensions.
"""

import numpy as np


def rbf_kernel(x, y, scale, *, scale_is, variance):
    """Return variance exp(-exponent) of the points `x` (n, D) and `y` (m, D); `scale_is` says what `scale` is."""
    refuse(x, y, scale, scale_is, variance)
    divisor, factor = scaling(scale, scale_is)
    squared = squared_distance(x, y, divisor)  # (n, m)
    return {"kernel": decay(factor, squared, variance).astype(x.dtype)}


def refuse(x, y, scale, scale_is, variance):
    """Raise `ValueError` where the arguments contradict the contract."""
    if scale_is not in ("lengthscale", "gamma", "half_gamma"):
        raise ValueError(f"scale_is is {scale_is!r}, not 'lengthscale', 'gamma' or 'half_gamma'")
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x {x.shape} and y {y.shape} must be (n, D) and (m, D)")
    allowed = {(1,), (x.shape[1],)} if scale_is == "lengthscale" else {(1,)}
    if scale.shape not in allowed:
        raise ValueError(f"scale is {scale.shape}; a {scale_is} must be one of {sorted(allowed)}")
    if not (scale > 0).all():
        raise ValueError(f"scale must be above 0, is {scale}")
    if not variance > 0:
        raise ValueError(f"variance must be above 0, is {variance}")


def scaling(scale, scale_is):
    """Return by what points are divided, (1,) or (D,), and the factor of squared distances, (1,)."""
    if scale_is == "lengthscale":
        return scale, np.array([0.5], scale.dtype)
    return np.ones(1, scale.dtype), scale if scale_is == "gamma" else scale / 2


def squared_distance(x, y, divisor):
    """Return sum_d ((x_d - y_d) / divisor_d)^2 of all pairs, (n, m); what is subtracted first loses no digits."""
    return np.square(differences(x, y) / divisor).sum(-1)


def differences(x, y):
    """Return x - y of all pairs, (n, m, D)."""
    return x[:, None, :] - y[None, :, :]


def decay(factor, squared, variance):
    """Return variance exp(-factor squared), (n, m)."""
    return variance * np.exp(-factor * squared)
