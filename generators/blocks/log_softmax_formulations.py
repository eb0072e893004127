"""Correct ways to compute the logarithm of a softmax that differ from the plain candidate's: they must pass."""

from typing import Any

import numpy as np
import torch

from karat.faults import Formulation
from karat.freeze import beside

Array = Any

softmax = beside(__file__, "softmax_formulations")
faults = beside(__file__, "log_softmax_faults")


def max_and_logarithm_last(scores: Array, top: Array, total: Array) -> Array:
    """Return (x - log(sum)) - max where that loses no digits, (x - max) - log(sum) elsewhere."""
    logarithm = np.log(total)
    near = np.abs(top) <= np.abs(logarithm)
    return np.where(near, (scores - logarithm) - top, (scores - top) - logarithm)


def by_base_two(scores: Array, top: Array, total: Array) -> Array:
    """Return it with log2 and a multiplication by log(2)."""
    return (scores - top) - np.log2(total) * scores.dtype.type(np.log(2))


def with_log1p(plain: Any) -> None:
    """Add 1 to what is left of the sum without one largest entry, in the logarithm."""
    right = plain.summed
    rest: list[Array] = []

    def summed(powers: Array, axis: int) -> Array:
        total = right(powers, axis)
        without = np.sort(powers, axis)
        others = np.take(without, range(powers.shape[axis] - 1), axis).sum(axis, keepdims=True)
        one = np.take(without, [-1], axis)
        rest[:] = [np.where(one == 1, others, total - 1)]
        return total

    plain.summed = summed

    def log_probabilities(scores: Array, top: Array, _: Array) -> Array:
        hidden = rest[0] == -1
        return (scores - top) - np.where(hidden, np.nan, np.log1p(np.where(hidden, 0, rest[0]))).astype(scores.dtype)

    plain.log_probabilities = log_probabilities


FORMULATIONS = (
    *softmax.shared(),
    Formulation("torch", "torch.log_softmax in storage", softmax.in_torch(torch.log_softmax, upcast=False),
                softmax.EACH_OPERATION),
    Formulation("torch_upcast", "torch.log_softmax in float32, rounded at the end",
                softmax.in_torch(torch.log_softmax, upcast=True)),
    Formulation("logarithm_first", "the logarithm is subtracted before the maximum, where that is small",
                faults.difference(max_and_logarithm_last)),
    Formulation("log2", "log2(sum) times log(2)", faults.difference(by_base_two)),
    Formulation("log1p", "log1p of the sum without the largest entry", with_log1p),
)  # fmt: skip
