"""The Matérn 5/2 kernel in plain NumPy: the definition, to read and to copy.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), equation 4.17, with a lengthscale for each
dimension as in 5.1. n points x, m points y, D dimensions.
"""

import math

import numpy as np


def matern52_kernel(x, y, lengthscale, *, variance):
    """Return variance (1 + a + a^2 / 3) exp(-a) of the points `x` (n, D) and `y` (m, D), a = sqrt(5) distance."""
    refuse(x, y, lengthscale, variance)
    squared = squared_distance(x, y, lengthscale)  # (n, m)
    return {"kernel": decay(squared, variance).astype(x.dtype)}


def refuse(x, y, lengthscale, variance):
    """Raise `ValueError` where the arguments contradict the contract."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x {x.shape} and y {y.shape} must be (n, D) and (m, D)")
    if lengthscale.shape not in ((1,), (x.shape[1],)):
        raise ValueError(f"lengthscale is {lengthscale.shape}, must be (1,) or ({x.shape[1]},)")
    if not (lengthscale > 0).all():
        raise ValueError(f"lengthscale must be above 0, is {lengthscale}")
    if not variance > 0:
        raise ValueError(f"variance must be above 0, is {variance}")


def squared_distance(x, y, lengthscale):
    """Return sum_d ((x_d - y_d) / lengthscale_d)^2 of all pairs, (n, m); what is subtracted first loses no digits."""
    return np.square(differences(x, y) / lengthscale).sum(-1)


def differences(x, y):
    """Return x - y of all pairs, (n, m, D)."""
    return x[:, None, :] - y[None, :, :]


def decay(squared, variance):
    """Return variance (1 + a + a^2 / 3) exp(-a), (n, m)."""
    a = math.sqrt(5) * np.sqrt(squared)  # (n, m)
    return variance * ((1 + a + np.square(a) / 3) * np.exp(-a))
