"""The logarithm of the softmax in plain NumPy: the definition, to read and to copy.

Blanchard, Higham and Higham, "Accurately computing the log-sum-exp and softmax functions" (2021), algorithm 3.1, with
the logarithm subtracted from what is left without the maximum. Computed in float32 (float64 where the input is), and
rounded once to the format of the input.
"""

import numpy as np


def log_softmax(x, *, axis, temperature):
    """Return the logarithm of the softmax of `x` / `temperature` along `axis`."""
    refuse(x, axis, temperature)
    scores = divided(wide(x), temperature)  # (...)
    top = largest(scores, axis)  # (...) with 1 for the axis
    total = summed(exponentials(scores, top), axis)  # (...) with 1 for the axis
    output = log_probabilities(scores, top, total)  # (...)
    return {"logsumexp": logsumexp(top, total).squeeze(axis), "output": output.astype(x.dtype)}


def divided(x, temperature):
    """Return x over the temperature, shape of `x`."""
    return x / temperature


def largest(scores, axis):
    """Return the largest entry of each slice, 0 where that is -inf."""
    top = scores.max(axis, keepdims=True)
    return np.where(top == -np.inf, np.zeros_like(top), top)


def exponentials(scores, top):
    """Return exp(scores - top), at most 1."""
    return np.exp(scores - top)


def summed(powers, axis):
    """Return the sum along the axis, which stays."""
    return powers.sum(axis, keepdims=True)


def log_probabilities(scores, top, total):
    """Return scores less the logarithm of the sum of their exponentials, NaN where all are -inf."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (scores - top) - np.log(total)


def logsumexp(top, total):
    """Return the logarithm of the sum of the exponentials before `top` was subtracted."""
    with np.errstate(divide="ignore"):
        return top + np.log(total)


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def refuse(x, axis, temperature):
    """Raise `ValueError` where the arguments contradict the contract."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis {axis} is none of x {x.shape}")
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} must be above 0")
