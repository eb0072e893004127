"""Softmax in plain NumPy: the definition, to read and to copy.

Bridle, "Probabilistic interpretation of feedforward classification network outputs" (1990), with the maximum subtracted
first (Blanchard, Higham and Higham 2021, algorithm 3.2). Computed in float32 (float64 where the input is), and rounded
once to the format of the input.
"""

import numpy as np


def softmax(x, *, axis, temperature, empty):
    """Return the softmax of `x` / `temperature` along `axis`; `empty` says what -inf throughout gives."""
    refuse(x, axis, temperature, empty)
    scores = divided(wide(x), temperature)  # (...)
    top = largest(scores, axis)  # (...) with 1 for the axis
    powers = exponentials(scores, top)  # (...)
    total = summed(powers, axis)  # (...) with 1 for the axis
    output = probabilities(powers, total, empty)  # (...)
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


def probabilities(powers, total, empty):
    """Return what adds up to 1, and what `empty` says where the total is 0."""
    if empty == "zero":
        total = np.where(total == 0, np.ones_like(total), total)
    with np.errstate(invalid="ignore"):
        return powers / total


def logsumexp(top, total):
    """Return the logarithm of the sum of the exponentials before `top` was subtracted."""
    with np.errstate(divide="ignore"):
        return top + np.log(total)


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def refuse(x, axis, temperature, empty):
    """Raise `ValueError` where the arguments contradict the contract."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis {axis} is none of x {x.shape}")
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} must be above 0")
    if empty not in ("nan", "zero"):
        raise ValueError(f"empty is {empty!r}, not 'nan' or 'zero'")
