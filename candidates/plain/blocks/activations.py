"""Activation functions in plain NumPy: the definitions, to read and to copy.

As torch.nn.functional documents them; relu_squared of So et al., "Primer" (2021), laplace of Ma et al., "Mega" (2022),
the kinds of gelu of Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016). Computed in float32 (float64 where x
is), and rounded once to the format of x.
"""

import math

import numpy as np

ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # of SELU: Klambauer et al. 2017, equation 2


def activations(x, *, kind, alpha=None, beta=None, threshold=None):
    """Return the activation called `kind` of `x` (...), its shape."""
    given = {"alpha": alpha, "beta": beta, "threshold": threshold}
    refuse(kind, given)
    params = {name: given[name] for name in PARAMS.get(kind, ())}
    with np.errstate(over="ignore"):
        return {"output": KINDS[kind](wide(x), **params).astype(x.dtype)}


def relu(x):
    """Return x where it is above 0, else 0."""
    return np.maximum(x, 0)


def relu_squared(x):
    """Return its square."""
    return np.square(relu(x))


def relu6(x):
    """Return x between 0 and 6."""
    return np.clip(x, 0, 6)


def leaky_relu(x, alpha):
    """Return x, with the slope alpha below 0."""
    return np.where(x > 0, x, alpha * x)


def elu(x, alpha):
    """Return x, which below 0 goes to -alpha."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def celu(x, alpha):
    """Return x, which below 0 goes to -alpha, with the slope 1 at 0."""
    return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha))


def selu(x):
    """Return x times a scale, which below 0 goes to -alpha times the scale."""
    return SCALE * elu(x, ALPHA)


def sigmoid(x):
    """Return the logistic function."""
    return 1 / (1 + np.exp(-x))


def logsigmoid(x):
    """Return its logarithm, which does not underflow."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def silu(x):
    """Return x times its sigmoid."""
    return x * sigmoid(x)


def swish(x, beta):
    """Return x times the sigmoid of beta x."""
    return x * sigmoid(beta * x)


def gelu(x):
    """Return x times the distribution function of the normal distribution."""
    return x * normal(x)


def gelu_tanh(x):
    """Return an approximation of it by tanh."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_10(x):
    """Return gelu, at most 10."""
    return np.clip(gelu(x), -10, 10)


def laplace(x):
    """Return the distribution function of a normal distribution about 0.707107."""
    return normal((x - 0.707107) / 0.282095)


def normal(x):
    """Return the distribution function of the normal distribution, P(X <= x)."""
    return 0.5 * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2)))


def quick_gelu(x):
    """Return an approximation of GELU by a sigmoid."""
    return swish(x, 1.702)


def softplus(x, beta, threshold):
    """Return the logarithm of 1 + exp(beta x) over beta, x itself beyond the threshold."""
    return np.where(beta * x > threshold, x, log_of_1_plus_exp(beta * x) / beta)


def log_of_1_plus_exp(x):
    """Return log(1 + exp(x)), which does not overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def mish(x):
    """Return x times the tanh of its softplus."""
    return x * np.tanh(log_of_1_plus_exp(x))


def hardsigmoid(x):
    """Return a sigmoid of three straight lines."""
    return np.clip(x + 3, 0, 6) / 6


def hardswish(x):
    """Return x times that."""
    return x * hardsigmoid(x)


def hardtanh(x):
    """Return x between -1 and 1."""
    return np.clip(x, -1, 1)


def softsign(x):
    """Return x over 1 + |x|."""
    return x / (1 + np.abs(x))


def softshrink(x, threshold):
    """Return x, nearer to 0 by the threshold."""
    return np.where(x > threshold, x - threshold, np.where(x < -threshold, x + threshold, 0))


def hardshrink(x, threshold):
    """Return x, 0 within the threshold."""
    return np.where(np.abs(x) > threshold, x, 0)


KINDS = {
    "relu": relu, "relu_squared": relu_squared, "relu6": relu6, "leaky_relu": leaky_relu, "elu": elu, "celu": celu,
    "selu": selu, "sigmoid": sigmoid, "logsigmoid": logsigmoid, "silu": silu, "swish": swish, "gelu": gelu,
    "gelu_tanh": gelu_tanh, "gelu_10": gelu_10, "quick_gelu": quick_gelu, "laplace": laplace,
    "softplus": softplus, "mish": mish, "hardsigmoid": hardsigmoid, "hardswish": hardswish, "hardtanh": hardtanh,
    "tanh": np.tanh, "softsign": softsign, "softshrink": softshrink, "hardshrink": hardshrink,
}  # fmt: skip

PARAMS = {
    "leaky_relu": ("alpha",), "elu": ("alpha",), "celu": ("alpha",), "swish": ("beta",),
    "softplus": ("beta", "threshold"), "softshrink": ("threshold",), "hardshrink": ("threshold",),
}  # fmt: skip


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def refuse(kind, given):
    """Raise `ValueError` where the arguments contradict the contract."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    missing = [name for name in PARAMS.get(kind, ()) if given[name] is None]
    if missing:
        raise ValueError(f"{kind} needs {missing[0]}")
    if (kind == "celu" and given["alpha"] == 0) or (kind == "softplus" and given["beta"] == 0):
        raise ValueError(f"{kind} divides by 0")
    if kind in ("softshrink", "hardshrink") and given["threshold"] < 0:
        raise ValueError(f"{kind} has the negative threshold {given['threshold']}")
