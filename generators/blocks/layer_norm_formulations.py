"""Correct ways to compute LayerNorm that differ from the plain candidate's: they must pass under what they honour."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

faults = beside(__file__, "layer_norm_faults")
computed, normed, deviations, mean = faults.computed, faults.normed, faults.deviations, faults.mean

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")
IN_TORCH = (*EACH_OPERATION, "bfloat16-once", "float16-once")


def torch_in_storage(plain: Any) -> None:
    """Compute with torch's own operator on tensors of the storage format."""

    def layer_norm(x: Array, weight: Array, bias: Array, *, epsilon: float) -> dict[str, Any]:
        output = torch.nn.functional.layer_norm(tensor(x), weight.shape, tensor(weight), tensor(bias), epsilon)
        return {"output": output.double().numpy().astype(x.dtype)}  # exact, there and back

    plain.layer_norm = layer_norm


def tensor(x: Array) -> Any:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))


def with_sums(total: Callable[[Array], Array]) -> Change:
    """Return a change to how sums are added: `total` of (..., D) gives (..., 1)."""

    def formula(x: Array, epsilon: float) -> Array:
        width = x.shape[-1]
        deviation = x - total(x) / width  # (..., D)
        return deviation / np.sqrt(total(np.square(deviation)) / width + epsilon)

    change: Change = normed(formula)
    return change


def in_order(x: Array) -> Array:
    """Add one after the other, as a loop does."""
    return np.add.accumulate(x, axis=-1)[..., -1:]


def pairwise(x: Array) -> Array:
    """Add neighbours, then neighbours of these, and so on, as a tree of threads does."""
    while x.shape[-1] > 1:
        if x.shape[-1] % 2:
            x = np.concatenate([x, np.zeros_like(x[..., :1])], axis=-1)
        x = x[..., 0::2] + x[..., 1::2]
    return x


def welford(x: Array) -> tuple[Array, Array]:
    """Return mean and variance, (..., 1), updated channel by channel (Welford 1962)."""
    running, squares = np.zeros_like(x[..., :1]), np.zeros_like(x[..., :1])
    for i in range(x.shape[-1]):
        step = x[..., i : i + 1] - running
        running = running + step / x.dtype.type(i + 1)
        squares = squares + step * (x[..., i : i + 1] - running)
    return running, squares / x.dtype.type(x.shape[-1])


def by_welford(x: Array, epsilon: float) -> Array:
    """Normalise by Welford's mean and variance."""
    running, variance = welford(x)
    return (x - running) / np.sqrt(variance + epsilon)


def one_pass(x: Array) -> Array:
    """Return the variance as E[x^2] - mean^2, as fused kernels compute it, (..., 1)."""
    return np.maximum(mean(np.square(x)) - np.square(mean(x)), 0)


def folded(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Multiply and add once: x * scale + shift."""
    scale = weight / np.sqrt(x.var(-1, keepdims=True) + epsilon)  # (..., D)
    return x * scale + (bias - mean(x) * scale)


def rounded_elementwise(plain: Any) -> None:
    """Round what has the shape of x to storage after every operation; mean and variance stay wide."""

    def layer_norm(x: Array, weight: Array, bias: Array, *, epsilon: float) -> dict[str, Array]:
        wide = plain.wide(x)
        deviation = (wide - mean(wide)).astype(x.dtype)  # (..., D)
        inverse = 1 / np.sqrt(wide.var(-1, keepdims=True) + epsilon)  # (..., 1)
        normed = (plain.wide(deviation) * inverse).astype(x.dtype)  # (..., D)
        return {"output": normed * weight + bias}

    plain.layer_norm = layer_norm


def rounded_before_affine(plain: Any) -> None:
    """Round the normalised values to storage before weight and bias, as a model without fused kernels does."""
    right = plain.layer_norm

    def layer_norm(x: Array, weight: Array, bias: Array, *, epsilon: float) -> dict[str, Array]:
        normed = right(x, np.ones_like(weight), np.zeros_like(bias), epsilon=epsilon)["output"]  # (..., D)
        return {"output": normed * weight + bias}

    plain.layer_norm = layer_norm


def inverse_root(x: Array, epsilon: float) -> Array:
    """Multiply by 1 / sqrt, as rsqrt does, instead of dividing."""
    return deviations(x) * (1 / np.sqrt(x.var(-1, keepdims=True) + epsilon))


FORMULATIONS = (
    Formulation("torch", "torch.nn.functional.layer_norm in storage", torch_in_storage, IN_TORCH),
    Formulation("inverse_root", "multiplied by 1 / sqrt(variance + epsilon)", normed(inverse_root)),
    Formulation("folded", "one multiplication and one addition, x * scale + shift", computed(folded)),
    Formulation("welford", "mean and variance updated channel by channel", normed(by_welford)),
    Formulation("one_pass_variance", "variance as E[x^2] - mean^2", faults.variance(one_pass)),
    Formulation("sums_in_order", "sums added from the first to the last", with_sums(in_order)),
    Formulation("sums_reversed", "sums added from the last to the first", with_sums(lambda x: in_order(x[..., ::-1]))),
    Formulation("sums_pairwise", "sums added as a binary tree", with_sums(pairwise)),
    Formulation("norm_rounded", "norm rounded before weight and bias", rounded_before_affine, EACH_OPERATION),
    Formulation("rounded_elementwise", "each elementwise operation rounded", rounded_elementwise, EACH_OPERATION),
)
