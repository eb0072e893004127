"""GELU in plain NumPy: the definition, to read and to copy.

Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), section 2: x Phi(x), and the formula with tanh that
approximates it. Computed in float32 (float64 where the input is), and rounded once to the format of the input.
"""

import math

import numpy as np


def gelu(x, *, approximate):
    """Return GELU of `x` (...): by the tanh formula where `approximate` is "tanh", by erf where it is "none"."""
    wide_x = wide(x)  # (...)
    phi = {"tanh": tanh_formula, "none": normal_distribution}[approximate](wide_x)  # (...)
    return {"output": (wide_x * phi).astype(x.dtype)}


def tanh_formula(x):
    """Return what the tanh formula takes for the distribution function of the normal distribution, shape of `x`."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)  # (...)
    return 0.5 * (1 + np.tanh(inner))


def normal_distribution(x):
    """Return the distribution function of the normal distribution, P(X <= x), shape of `x`."""
    return 0.5 * (1 + erf(x / math.sqrt(2)))


def erf(x):
    """Return the error function, shape of `x`; NumPy has none, so element by element."""
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)
