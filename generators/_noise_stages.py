"""The stages of operations that sum, as the replay of `_noise` perturbs them.

Each function takes the noise, the operation's first argument, and the others by the names that torch gives them.
`noise.stored` rounds what an operation returns, `noise.inner` a stage inside it, `noise.summed` a sum.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

# --- sums


def axes_of(x: Tensor, dim: Any) -> tuple[int, ...]:
    """Return the axes that `dim` stands for, all for None and for none."""
    if isinstance(dim, int):
        return (dim,)
    return tuple(dim) if dim else tuple(range(x.ndim))


def length(x: Tensor, axes: tuple[int, ...]) -> int:
    """Return the number of terms along `axes`."""
    return prod(x.shape[axis] for axis in axes)


def total(noise: Any, terms: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the sum over `axes`, which stay, as it comes out one term after the other."""
    return noise.summed(
        terms.sum(axes, keepdim=True), lambda: terms.square().sum(axes, keepdim=True), length(terms, axes)
    )


def shaped(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """Return a sum without the axes that were summed, unless they are to stay."""
    return x if keepdim else x.squeeze(axes)


def sum_(noise: Any, x: Tensor, *, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Sum."""
    axes = axes_of(x, dim)
    return shaped(noise.stored(total(noise, x, axes)), axes, keepdim)


def mean(noise: Any, x: Tensor, *, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Return the mean."""
    axes = axes_of(x, dim)
    return shaped(noise.stored(total(noise, x, axes) / length(x, axes)), axes, keepdim)


def norm(noise: Any, x: Tensor, *, ord: Any, dim: Any, keepdim: bool) -> Tensor:  # noqa: A002 - torch's name
    """Return the Euclidean norm."""
    if ord != 2:
        raise NotImplementedError(f"linalg_vector_norm of order {ord}: only 2 is known: write it out in the reference")
    axes = axes_of(x, dim)
    return shaped(noise.stored(total(noise, x.square(), axes).sqrt()), axes, keepdim)


# --- running sums and products: every step rounds what the steps before left


def running(noise: Any, x: Tensor, dim: int) -> Tensor:
    """Return the relative errors of the steps along `dim`, of which the first does not round."""
    errors = noise.inner(torch.ones_like(x)) - 1
    errors.narrow(dim, 0, 1).zero_()
    return errors


def cumsum(noise: Any, x: Tensor, *, dim: int) -> Tensor:
    """Sum up to each element."""
    sums = x.cumsum(dim)
    return noise.stored(sums + (sums * running(noise, sums, dim)).cumsum(dim))


def cumprod(noise: Any, x: Tensor, *, dim: int) -> Tensor:
    """Multiply up to each element."""
    products = x.cumprod(dim)
    return noise.stored(products * (1 + running(noise, products, dim).cumsum(dim)))


def product(noise: Any, x: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Multiply all."""
    x, dim = (x.flatten(), 0) if dim is None else (x, dim)
    errors = running(noise, x, dim).sum(dim, keepdim=keepdim)
    return noise.stored(x.prod(dim, keepdim=keepdim) * (1 + errors))


# --- variances


def moments(noise: Any, x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, deviations, and the sum of their squares; axes stay."""
    average = total(noise, x, axes) / length(x, axes)
    deviations = noise.inner(x - average)
    return average, deviations, total(noise, deviations.square(), axes)


def var_mean(
    noise: Any, x: Tensor, *, dim: Any, correction: Any, keepdim: bool, root: bool = False
) -> tuple[Tensor, Tensor]:
    """Return variance, or its root, and mean."""
    axes = axes_of(x, dim)
    average, _, squares = moments(noise, x, axes)
    variance = squares / max(length(x, axes) - (1 if correction is None else correction), 0)
    spread = noise.inner(variance).sqrt() if root else variance
    return shaped(noise.stored(spread), axes, keepdim), shaped(noise.stored(average), axes, keepdim)


def std_mean(noise: Any, x: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
    """Return standard deviation and mean."""
    return var_mean(noise, x, root=True, **how)


def layer_norm(
    noise: Any, x: Tensor, *, normalized_shape: Any, weight: Any, bias: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return LayerNorm over the last axes, mean, and inverse root."""
    axes = tuple(range(-len(normalized_shape), 0))
    average, deviations, squares = moments(noise, x, axes)
    inverse = noise.inner(noise.inner(squares / length(x, axes) + eps).rsqrt(), 2)
    result = noise.stored(noise.inner(deviations * inverse))
    if weight is not None:
        result = noise.stored(noise.inner(result * weight))
    if bias is not None:
        result = noise.stored(noise.inner(result + bias))
    return result, average, inverse


# --- sums of exponentials


def exponentials(noise: Any, x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the largest, what is left without it, its exponentials, and their sum; axes stay."""
    largest = x.amax(axes, keepdim=True)
    largest = torch.where(largest.isfinite(), largest, 0)
    shifted = noise.inner(x - largest)
    powers = noise.inner(shifted.exp(), 2)
    return largest, shifted, powers, total(noise, powers, axes)


def softmax(noise: Any, x: Tensor, *, dim: int, half_to_float: bool) -> Tensor:  # noqa: ARG001 - never from float64
    """Return the exponentials over their sum."""
    _, _, powers, whole = exponentials(noise, x, (dim,))
    return noise.stored(noise.inner(powers / whole))


def log_softmax(noise: Any, x: Tensor, *, dim: int, half_to_float: bool) -> Tensor:  # noqa: ARG001 - see above
    """Return the logarithm of the softmax."""
    _, shifted, _, whole = exponentials(noise, x, (dim,))
    return noise.stored(noise.inner(shifted - noise.inner(whole.log(), 2)))


def logsumexp(noise: Any, x: Tensor, *, dim: Any, keepdim: bool) -> Tensor:
    """Return the logarithm of the sum of exponentials."""
    axes = axes_of(x, dim)
    largest, _, _, whole = exponentials(noise, x, axes)
    return shaped(noise.stored(noise.inner(largest + noise.inner(whole.log(), 2))), axes, keepdim)


# --- sums at places that are given


def added(noise: Any, x: Tensor, terms: Tensor, add: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return `add(x, terms)`, which adds terms to the elements of x at its places; 0 is no term."""
    counts = add((x != 0).to(x.dtype), torch.ones_like(terms))
    return noise.stored(noise.summed(add(x, terms), lambda: add(x.square(), terms.square()), counts))


def scatter_add(noise: Any, x: Tensor, *, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Add the elements of `src` along `dim`."""
    return added(noise, x, src, lambda y, terms: y.scatter_add(dim, index, terms))


def index_add(noise: Any, x: Tensor, *, dim: int, index: Tensor, source: Tensor, alpha: Any) -> Tensor:
    """Add slices of `source` along `dim`."""
    scaled = source if alpha == 1 else noise.inner(source * alpha)
    return added(noise, x, scaled, lambda y, terms: y.index_add(dim, index, terms))


def index_put(noise: Any, x: Tensor, *, indices: Any, values: Tensor, accumulate: bool) -> Tensor:
    """Add `values` at indices."""
    return added(noise, x, values, lambda y, terms: torch.ops.aten.index_put(y, indices, terms, accumulate))


# --- several roundings


def addcmul(noise: Any, x: Tensor, *, tensor1: Tensor, tensor2: Tensor, value: Any) -> Tensor:
    """Add a product."""
    return noise.stored(x + noise.inner(value * tensor1 * tensor2))


def addcdiv(noise: Any, x: Tensor, *, tensor1: Tensor, tensor2: Tensor, value: Any) -> Tensor:
    """Add a quotient."""
    return noise.stored(x + noise.inner(value * tensor1 / tensor2))


def lerp(noise: Any, x: Tensor, *, end: Tensor, weight: Any) -> Tensor:
    """Interpolate."""
    return noise.stored(x + noise.inner(weight * noise.inner(end - x)))


STAGES: dict[str, Callable[..., Any]] = {
    "_log_softmax": log_softmax,
    "_softmax": softmax,
    "addcdiv": addcdiv,
    "addcmul": addcmul,
    "cumprod": cumprod,
    "cumsum": cumsum,
    "index_add": index_add,
    "index_put with accumulate": index_put,
    "lerp": lerp,
    "linalg_vector_norm": norm,
    "logsumexp": logsumexp,
    "mean": mean,
    "native_layer_norm": layer_norm,
    "prod": product,
    "scatter_add": scatter_add,
    "std": lambda noise, x, **how: std_mean(noise, x, **how)[0],
    "std_mean": std_mean,
    "sum": sum_,
    "var": lambda noise, x, **how: var_mean(noise, x, **how)[0],
    "var_mean": var_mean,
}
"""By torch's name of the operation."""
