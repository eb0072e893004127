"""Correct ways to compute a softmax that differ from the plain candidate's: they must pass under what they honour.

Those of the suite `log_softmax` are made by the same changes.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
import torch

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

faults = beside(__file__, "softmax_faults")
summed, function = faults.summed, faults.function

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def in_torch(formula: Callable[[Any, int], Any], *, upcast: bool) -> Change:
    """Return a change to the output alone: `formula(scores, axis)` of tensors, in storage or in the format of sums."""

    def run(plain: Any, right: Any, x: Array, *, axis: int, temperature: float, **params: Any) -> dict[str, Array]:
        tensor = torch.from_numpy(np.array(plain.wide(x) if upcast else x, np.float64))
        tensor = tensor.to(getattr(torch, (plain.wide(x) if upcast else x).dtype.name))
        output = formula(tensor / temperature, axis).double().numpy()
        if params.get("empty") == "zero":
            output = np.where((x == -np.inf).all(axis, keepdims=True), 0, output)
        lse = right(x, axis=axis, temperature=temperature, **params)["logsumexp"]
        return {"logsumexp": lse, "output": output.astype(x.dtype)}

    return function(run)


def with_torch_logsumexp(plain: Any, right: Any, x: Array, *, axis: int, temperature: float, **params: Any) -> Any:
    """Take the logarithm of the sum of exponentials from torch."""
    found = right(x, axis=axis, temperature=temperature, **params)
    scores = torch.from_numpy(np.array(plain.wide(x))) / temperature
    return found | {"logsumexp": torch.logsumexp(scores, axis).numpy()}


def in_order(powers: Array, axis: int) -> Array:
    """Add one after the other, as a loop does."""
    return np.take(np.add.accumulate(powers, axis=axis), [-1], axis)


def pairwise(powers: Array, axis: int) -> Array:
    """Add neighbours, then neighbours of these, and so on, as a tree of threads does."""
    row = np.moveaxis(powers, axis, -1)
    while row.shape[-1] > 1:
        if row.shape[-1] % 2:
            row = np.concatenate([row, np.zeros_like(row[..., :1])], axis=-1)
        row = row[..., 0::2] + row[..., 1::2]
    return np.moveaxis(row, -1, axis)


def online(plain: Any) -> None:
    """Keep a running maximum and a running sum (Milakov and Gimelshein 2018), in blocks of 16."""
    right = plain.largest
    sums: list[Array] = []

    def largest(scores: Array, axis: int) -> Array:
        rows = np.moveaxis(scores, axis, 0)
        top, total = np.full(rows.shape[1:], -np.inf, scores.dtype), np.zeros(rows.shape[1:], scores.dtype)
        for start in range(0, len(rows), 16):
            block = rows[start : start + 16]
            higher = np.maximum(top, block.max(0))
            shift = np.where(np.isinf(higher), 0, higher).astype(scores.dtype)
            total = total * np.exp(top - shift) + np.exp(block - shift).sum(0)
            top = higher
        sums[:] = [np.expand_dims(total, axis)]
        return right(scores, axis)

    plain.largest = largest
    plain.summed = lambda powers, axis: sums[0]  # noqa: ARG005


def shifted_up(right: Any) -> Any:
    """Subtract the maximum rounded up to an integer: any number near it will do."""
    return lambda scores, axis: np.ceil(right(scores, axis))


def in_float64(plain: Any, right: Any, x: Array, **params: Any) -> dict[str, Array]:
    """Compute all in float64 and round at the end."""
    found = right(x.astype(np.float64), **params)
    return {
        "logsumexp": found["logsumexp"].astype(plain.wide(x).dtype),
        "output": found["output"].astype(x.dtype),
    }


def along_last(plain: Any, right: Any, x: Array, *, axis: int, **params: Any) -> dict[str, Array]:  # noqa: ARG001
    """Move the axis to the end, and back."""
    found = right(np.ascontiguousarray(np.moveaxis(x, axis, -1)), axis=-1, **params)
    return found | {"output": np.moveaxis(found["output"], -1, axis)}


def lowest_number(plain: Any, right: Any, x: Array, *, axis: int, **params: Any) -> dict[str, Array]:
    """Hide entries by -1e30 and put hidden slices right afterwards."""
    wide = plain.wide(x)
    found = right(np.where(wide == -np.inf, wide.dtype.type(-1e30), wide), axis=axis, **params)
    hidden = (x == -np.inf).all(axis)
    value = 0 if params.get("empty") == "zero" else np.nan
    output = np.where(x == -np.inf, 0 if "empty" in params else -np.inf, found["output"])
    output = np.where(np.expand_dims(hidden, axis), value, output)
    return {
        "logsumexp": np.where(hidden, wide.dtype.type(-np.inf), found["logsumexp"]),
        "output": output.astype(x.dtype),
    }


def of_base_two(z: Array) -> Array:
    """Return exp as kernels with exp2 do, by a multiplication with log2(e)."""
    return np.exp2(z * z.dtype.type(math.log2(math.e)))


def shared() -> tuple[Formulation, ...]:
    """Return the formulations that both suites have."""
    return (
        Formulation("torch_logsumexp", "torch.logsumexp", function(with_torch_logsumexp)),
        Formulation("exp2", "2 to the power of a multiple of log2(e)", faults.power(of_base_two)),
        Formulation("online", "running maximum and sum, in blocks of 16", online),
        Formulation("sums_in_order", "exponentials added from the first to the last", summed(in_order)),
        Formulation("sums_reversed", "exponentials added from the last to the first",
                    summed(lambda powers, axis: in_order(np.flip(powers, axis), axis))),
        Formulation("sums_pairwise", "exponentials added as a binary tree", summed(pairwise)),
        Formulation("shifted_up", "the maximum rounded up is subtracted", wrap(largest=shifted_up)),
        Formulation("inverse_temperature", "times 1 / temperature",
                    faults.scores(lambda x, t: x * x.dtype.type(1 / t))),
        Formulation("along_last", "the axis moved to the end, and back", function(along_last)),
        Formulation("lowest_number", "hidden by -1e30, hidden slices put right afterwards", function(lowest_number)),
        Formulation("in_float64", "all in float64, rounded at the end", function(in_float64)),
    )  # fmt: skip


def scipy_softmax(s: Array, axis: int) -> Array:
    """Return scipy.special.softmax."""
    with np.errstate(invalid="ignore"):
        return scipy.special.softmax(s, axis=axis)


def by_scipy(plain: Any, right: Any, x: Array, *, axis: int, temperature: float, empty: str) -> dict[str, Array]:
    """Take the output from SciPy, in the format of sums."""
    found = right(x, axis=axis, temperature=temperature, empty=empty)
    output = scipy_softmax(plain.wide(x) / temperature, axis) if x.size else x
    if empty == "zero":
        output = np.where((x == -np.inf).all(axis, keepdims=True), 0, output)
    return found | {"output": output.astype(x.dtype)}


def inverse_of_sum(powers: Array, total: Array) -> Array:
    """Return the exponentials times the inverse of their sum."""
    return powers * (1 / total)


def exp_of_difference(plain: Any, right: Any, x: Array, *, axis: int, temperature: float, empty: str) -> Any:
    """Exponentiate what is left without the maximum and the logarithm of the sum."""
    found = right(x, axis=axis, temperature=temperature, empty=empty)
    if not x.size:
        return found
    scores = plain.wide(x) / temperature
    shifted = scores - plain.largest(scores, axis)
    total = np.exp(shifted).sum(axis, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        output = np.exp(shifted - np.log(total))
    if empty == "zero":
        output = np.where(total == 0, 0, output)
    return found | {"output": output.astype(x.dtype)}


FORMULATIONS = (
    *shared(),
    Formulation("torch", "torch.softmax in storage", in_torch(torch.softmax, upcast=False), EACH_OPERATION),
    Formulation("torch_upcast", "torch.softmax in float32, rounded at the end", in_torch(torch.softmax, upcast=True)),
    Formulation("scipy", "scipy.special.softmax", function(by_scipy)),
    Formulation("inverse_of_sum", "exponentials times 1 / sum", faults.of_powers(inverse_of_sum)),
    Formulation("exp_of_difference", "exp(x - max - log(sum))", function(exp_of_difference)),
)
