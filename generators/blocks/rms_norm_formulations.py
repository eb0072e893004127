"""Correct ways to compute RMSNorm that differ from the plain candidate's: they must pass under what they honour."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def in_torch(formula: Callable[..., Any]) -> Change:
    """Return a change to the whole: `formula(x, weight, **params)` of tensors in storage gives the output alone."""

    def change(plain: Any) -> None:
        def rms_norm(x: Array, weight: Array, **params: Any) -> dict[str, Array]:
            output = formula(tensor(x), tensor(weight), **params)  # (..., D)
            return {"output": output.double().numpy().astype(x.dtype)}  # exact, there and back

        plain.rms_norm = rms_norm

    return change


def tensor(x: Array) -> Any:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))


def wide(x: Any) -> Any:
    """Return a tensor in the format of sums."""
    return x if x.dtype == torch.float64 else x.float()


def torch_function(x: Any, weight: Any, *, epsilon: float, epsilon_is: str, weight_is: str) -> Any:
    """Return torch.nn.functional.rms_norm where it has the convention, else the plain composition."""
    if epsilon_is != "inside_root":
        return gemma(x, weight, epsilon=epsilon, epsilon_is=epsilon_is, weight_is=weight_is)
    factor = weight if weight_is == "factor" else 1 + weight
    return torch.nn.functional.rms_norm(x, weight.shape, factor, epsilon)


def normed(x: Any, epsilon: float, epsilon_is: str) -> Any:
    """Return x over its RMS in the format of sums, as transformers' classes compose it."""
    x = wide(x)
    mean_square = x.pow(2).mean(-1, keepdim=True)
    if epsilon_is == "inside_root":
        return x * torch.rsqrt(mean_square + epsilon)
    return x / (mean_square.sqrt() + epsilon)


def llama(x: Any, weight: Any, *, epsilon: float, epsilon_is: str, weight_is: str) -> Any:
    """Return LlamaRMSNorm: rounded to storage before the weight multiplies."""
    return normed(x, epsilon, epsilon_is).to(x.dtype) * (weight if weight_is == "factor" else 1 + weight)


def gemma(x: Any, weight: Any, *, epsilon: float, epsilon_is: str, weight_is: str) -> Any:
    """Return GemmaRMSNorm: rounded to storage after the weight has multiplied."""
    factor = wide(weight) if weight_is == "factor" else 1.0 + wide(weight)
    return (normed(x, epsilon, epsilon_is) * factor).to(x.dtype)


def all_in_storage(x: Any, weight: Any, *, epsilon: float, epsilon_is: str, weight_is: str) -> Any:
    """Return it with every operation rounded to storage; bfloat16 holds the squares, float16 does not."""
    mean_square = x.pow(2).mean(-1, keepdim=True)
    inverse = torch.rsqrt(mean_square + epsilon) if epsilon_is == "inside_root" else 1 / (mean_square.sqrt() + epsilon)
    return x * inverse * (weight if weight_is == "factor" else 1 + weight)


def sums(total: Callable[[Array], Array]) -> Change:
    """Return a change to how squares are added: `total` of (..., D) gives (..., 1)."""
    return wrap(mean_square=lambda _: lambda x: total(np.square(x)) / x.dtype.type(x.shape[-1]))


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


def in_lanes(x: Array) -> Array:
    """Add with a stride of eight, as eight lanes do, then the lanes."""
    lanes = np.zeros((*x.shape[:-1], 8), x.dtype)
    for start in range(0, x.shape[-1], 8):
        part = x[..., start : start + 8]
        lanes[..., : part.shape[-1]] += part
    return in_order(lanes)


def by_norm(plain: Any) -> None:
    """Compute the mean square from the Euclidean norm over sqrt(D)."""
    plain.mean_square = lambda x: np.square(
        np.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(x.dtype.type(x.shape[-1]))
    )


def scaled_by_largest(x: Array) -> Array:
    """Return the mean square of a row divided by its largest element, so that no square overflows or vanishes."""
    largest = np.abs(x).max(-1, keepdims=True)
    largest = np.where(largest > 0, largest, 1).astype(x.dtype)
    return np.square(x / largest).mean(-1, keepdims=True) * np.square(largest)


def by_inverse_width(x: Array) -> Array:
    """Return the sum of squares times 1 / D."""
    return np.square(x).sum(-1, keepdims=True) * x.dtype.type(1 / x.shape[-1])


def in_float64(plain: Any) -> None:
    """Compute all in float64 and round at the end."""
    right = plain.rms_norm

    def rms_norm(x: Array, weight: Array, **params: Any) -> dict[str, Array]:
        found = right(x.astype(np.float64), weight.astype(np.float64), **params)
        return {
            "inverse_rms": found["inverse_rms"].astype(plain.wide(x).dtype),
            "output": found["output"].astype(x.dtype),
        }

    plain.rms_norm = rms_norm


def folded(plain: Any) -> None:
    """Multiply x by inverse RMS times weight; the output alone."""

    def rms_norm(x: Array, weight: Array, *, epsilon: float, epsilon_is: str, weight_is: str) -> dict[str, Array]:
        inverse = plain.inverse_rms(plain.mean_square(plain.wide(x)), epsilon, epsilon_is)  # (..., 1)
        factor = plain.scaled(inverse, plain.wide(weight), weight_is)  # (..., D)
        return {"output": (plain.wide(x) * factor).astype(x.dtype)}

    plain.rms_norm = rms_norm


def divided(plain: Any) -> None:
    """Divide by the RMS instead of multiplying by its inverse; the output alone."""

    def rms_norm(x: Array, weight: Array, *, epsilon: float, epsilon_is: str, weight_is: str) -> dict[str, Array]:
        inside = epsilon_is == "inside_root"
        mean_square = plain.mean_square(plain.wide(x))  # (..., 1)
        rms = np.sqrt(mean_square + epsilon) if inside else np.sqrt(mean_square) + epsilon  # (..., 1)
        output = plain.scaled(plain.wide(x) / rms, plain.wide(weight), weight_is)
        return {"output": output.astype(x.dtype)}

    plain.rms_norm = rms_norm


def by_newton(ms: Array, epsilon: float, epsilon_is: str) -> Array:
    """Return the inverse root by Newton's iteration from a guess good to 3 %, as GPUs' approximations are refined."""
    y = ms + ms.dtype.type(epsilon) if epsilon_is == "inside_root" else ms
    with np.errstate(divide="ignore", invalid="ignore"):
        guess = (1.03 / np.sqrt(y.astype(np.float64))).astype(ms.dtype)
        for _ in range(4):
            guess = guess * (ms.dtype.type(1.5) - ms.dtype.type(0.5) * y * guess * guess)
    if epsilon_is == "inside_root":
        return guess
    return np.where(ms > 0, guess / (1 + ms.dtype.type(epsilon) * guess), ms.dtype.type(1 / epsilon)).astype(ms.dtype)


FORMULATIONS = (
    Formulation("torch", "torch.nn.functional.rms_norm in storage", in_torch(torch_function), EACH_OPERATION),
    Formulation("llama", "rounded to storage before the weight multiplies", in_torch(llama), EACH_OPERATION),
    Formulation("gemma", "the weight multiplies before anything is rounded", in_torch(gemma)),
    Formulation("all_in_storage", "every operation rounded to storage", in_torch(all_in_storage),
                ("float64", "float32", "bfloat16")),
    Formulation("sums_in_order", "squares added from the first to the last", sums(in_order)),
    Formulation("sums_reversed", "squares added from the last to the first", sums(lambda x: in_order(x[..., ::-1]))),
    Formulation("sums_pairwise", "squares added as a binary tree", sums(pairwise)),
    Formulation("sums_in_lanes", "squares added in eight lanes", sums(in_lanes)),
    Formulation("dot_product", "the sum of squares as a product of x with itself",
                sums(lambda squares: np.einsum("...i,...i->...", np.sqrt(squares), np.sqrt(squares))[..., None])),
    Formulation("euclidean_norm", "from the Euclidean norm over sqrt(D)", by_norm),
    Formulation("scaled_by_largest", "squares of x over its largest element",
                wrap(mean_square=lambda _: scaled_by_largest)),
    Formulation("times_inverse_width", "the sum of squares times 1 / D", wrap(mean_square=lambda _: by_inverse_width)),
    Formulation("divided", "divided by the RMS instead of multiplied by its inverse", divided),
    Formulation("folded", "x times (inverse RMS times weight)", folded),
    Formulation("newton", "the inverse root by Newton's iteration", wrap(inverse_rms=lambda _: by_newton)),
    Formulation("in_float64", "all in float64, rounded at the end", in_float64),
)  # fmt: skip
