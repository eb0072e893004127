"""Correct ways to compute GPT-2 that differ from the plain candidate's: they must pass under every contract they honour."""

from typing import Any

import numpy as np

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any

scores = beside(__file__, "gpt2_faults").scores


def gelu_by_sigmoid(x: Array) -> Array:
    """Tanh GELU by the identity (1 + tanh z) / 2 = sigmoid(2 z)."""
    wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32)
    z = np.sqrt(2 / np.pi).astype(wide.dtype) * (wide + wide.dtype.type(0.044715) * wide**3)
    return (wide / (1 + np.exp(-2 * z))).astype(x.dtype)


def one_pass_norm(_: Any) -> Any:
    """LayerNorm with the variance as E[x^2] - mean^2, as fused kernels compute it."""

    def formulation(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
        wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32)
        mean = wide.mean(-1, keepdims=True)
        variance = np.square(wide).mean(-1, keepdims=True) - np.square(mean)
        normed = (wide - mean) / np.sqrt(variance + epsilon)
        return (normed * weight.astype(wide.dtype) + bias.astype(wide.dtype)).astype(x.dtype)

    return formulation


def norm_rounded_before_affine(right: Any) -> Any:
    """LayerNorm whose normalised values are rounded to storage before weight and bias."""
    return lambda x, weight, bias, epsilon: right(x, np.ones_like(weight), np.zeros_like(bias), epsilon) * weight + bias


def chunked_softmax(_: Any) -> Any:
    """Softmax over chunks of seven, each with a maximum of its own (Milakov and Gimelshein 2018)."""

    def formulation(x: Array, temperature: float = 1.0) -> Array:
        wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32) / x.dtype.type(temperature)
        largest = np.full((*x.shape[:-1], 1), -np.inf, wide.dtype)
        total = np.zeros_like(largest)
        for start in range(0, x.shape[-1], 7):
            chunk = wide[..., start : start + 7]
            grown = np.maximum(largest, chunk.max(-1, keepdims=True))
            known = np.where(np.isfinite(grown), grown, 0)
            total = total * np.exp(largest - known) + np.exp(chunk - known).sum(-1, keepdims=True)
            largest = grown
        return (np.exp(wide - largest) / total).astype(x.dtype)

    return formulation


def sequential_matmul(x: Array, y: Array) -> Array:
    """Multiply matrices, adding the products in order, from the last to the first."""
    total = np.zeros((*x.shape[:-1], y.shape[-1]), x.dtype)
    for k in range(x.shape[-1] - 1, -1, -1):
        total += x[..., :, k, None] * y[..., k, None, :]
    return total


def sequential_linear(_: Any) -> Any:
    """X @ W + b with the products added in order, from the last to the first."""

    def formulation(x: Array, weight: Array, bias: Array) -> Array:
        dtype = np.float64 if x.dtype == np.float64 else np.float32
        return (sequential_matmul(x.astype(dtype), weight.astype(dtype)) + bias.astype(dtype)).astype(x.dtype)

    return formulation


def unfused_linear(right: Any) -> Any:
    """X @ W rounded to storage before the bias is added."""
    return lambda x, weight, bias: right(x, weight, np.zeros_like(bias)) + bias


# Correct ways to compute the same, each a change to the plain candidate as the faults are. They must pass.
FORMULATIONS = (
    Formulation("one_pass_variance", "variance as E[x^2] - mean^2", wrap(layer_norm=one_pass_norm)),
    Formulation("norm_rounded", "norm rounded before weight and bias", wrap(layer_norm=norm_rounded_before_affine)),
    Formulation("scale_on_q", "q scaled before the product",
          scores(lambda q, k: (q / np.sqrt(q.shape[-1]).astype(q.dtype)).astype(q.dtype) @ k.swapaxes(-1, -2))),
    Formulation("scale_split", "the scale split between q and k",
          scores(lambda q, k: (q / q.shape[-1] ** 0.25) @ (k / k.shape[-1] ** 0.25).swapaxes(-1, -2))),
    Formulation("softmax_chunked", "online softmax over chunks of seven", wrap(softmax=chunked_softmax)),
    Formulation("sums_reversed", "products added from the last to the first", wrap(linear=sequential_linear)),
    Formulation("bias_unfused", "linear layers rounded before their bias", wrap(linear=unfused_linear)),
    Formulation("gelu_by_sigmoid", "tanh GELU as x sigmoid(2 z)", wrap(gelu=lambda _: gelu_by_sigmoid)),
)  # fmt: skip
