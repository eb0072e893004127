"""Replays a torch reference in float64 under random perturbation: how rounding reaches each checkpoint.

Three kinds of noise, each per unit roundoff u of the format that causes it:
- `rounding`: every operation's result is rounded to storage: times 1 + u t, t uniform in (-1, 1).
- `accumulation`: what happens inside an operation, in the format in which it accumulates. A sum of n terms p with the
  result s, added one after the other, rounds every partial sum. The squares of the partial sums, a random walk that
  ends at s, add up to n s^2 / 3 + n (sum of p^2) / 6 on average; the error's variance is u^2 / 3 times that. For terms
  without a mean it is u^2 n (sum of p^2) / 6. The stages of a softmax or a norm are rounded too.
- `products`: the operands of matrix products are rounded. What comes in from outside is not: inputs are exact in every
  format.

The reference's code is untouched: a dispatch mode sees every operation below the Python API.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

STEP = 2.0**-30
"""The unit roundoff of a replay: small enough for first order, large enough to drown the replay's own rounding."""

# Operations that move numbers or choose among them: their results are exact.
EXACT = frozenset((
    "_local_scalar_dense", "_to_copy", "_unsafe_view", "abs", "alias", "amax", "amin", "arange", "argmax", "argmin",
    "argsort", "as_strided", "broadcast_to", "cat", "chunk", "clamp", "clamp_max", "clamp_min", "clone", "contiguous",
    "copy", "copy_", "detach", "diagonal", "embedding", "empty", "empty_like", "eq", "expand", "eye", "fill", "fill_",
    "flip", "full", "full_like", "gather", "ge", "gt", "index", "index_put", "index_put_", "index_select", "isfinite",
    "isinf", "isnan", "le", "lift_fresh", "lift_fresh_copy", "logical_and", "logical_not", "lt", "masked_fill",
    "masked_fill_", "max", "maximum", "min", "minimum", "narrow", "ne", "neg", "new_empty", "new_full", "new_ones",
    "new_zeros", "ones", "ones_like", "permute", "relu", "repeat", "repeat_interleave", "reshape", "resize_", "roll",
    "round", "scalar_tensor", "scatter", "scatter_", "select", "set_", "sign", "slice", "slice_scatter", "sort",
    "split", "split_with_sizes", "squeeze", "stack", "t", "tile", "to", "topk", "transpose", "tril", "triu", "unbind",
    "unfold", "unsqueeze", "view", "where", "zero_", "zeros", "zeros_like",
))  # fmt: skip
PRODUCTS = frozenset(("mm", "bmm", "addmm", "baddbmm", "mv", "dot", "addmv"))
INACCURATE = frozenset((
    "cos", "cosh", "digamma", "erf", "erfc", "exp", "exp2", "expm1", "gelu", "lgamma", "log", "log10", "log1p", "log2",
    "mish", "pow", "rsqrt", "sigmoid", "silu", "sin", "sinh", "softplus", "tan", "tanh",
))  # fmt: skip
"""Functions that no implementation rounds correctly: under `accumulation` they err by two units more."""


class _Perturbing(TorchDispatchMode):  # type: ignore[misc]  # torch is not installed where types are checked
    """Perturbs the floating results of all operations inside, as `kind` says."""

    def __init__(self, kind: str, seed: int) -> None:
        super().__init__()
        self.kind = kind
        self.random = torch.Generator().manual_seed(seed)
        self.computed: set[int] = set()  # storages that hold results; all others came in from outside

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        kwargs = kwargs or {}
        if name in EXACT:
            result = func(*args, **kwargs)
        elif name in PRODUCTS:
            result = self._product(name, func, args, kwargs)
        elif (stages := getattr(self, f"_{name.lstrip('_')}", None)) is not None:
            result = stages(func, *args, **kwargs)
        else:
            result = self._elementwise(name, func, args, kwargs)
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.computed.add(tensor.untyped_storage().data_ptr())
        return result

    # --- perturbations

    def _jitter(self, x: torch.Tensor, kind: str, units: int = 1) -> torch.Tensor:
        """Round `x`, off by `units` at most, if rounding at this place is of the kind that is replayed."""
        if kind != self.kind or not x.is_floating_point():
            return x
        noise = torch.rand(x.shape, generator=self.random, dtype=x.dtype).mul_(2 * units * STEP).sub_(units * STEP)
        return torch.where(x.isfinite() & (x.abs() < 1e300), x * (1 + noise), x)  # not the -max of a mask

    def _summed(self, total: torch.Tensor, squares: Callable[[], torch.Tensor], terms: int) -> torch.Tensor:
        """Add to sums of `terms` terms the error of adding one after the other; `squares` gives the sum of squares."""
        if self.kind != "accumulation" or terms < 2:
            return total
        variance = terms / 9 * total.square() + terms / 18 * squares()
        noise = torch.randn(total.shape, generator=self.random, dtype=total.dtype)
        return torch.where(total.isfinite(), total + STEP * variance.sqrt() * noise, total)

    def _operand(self, x: torch.Tensor) -> torch.Tensor:
        return self._jitter(x, "products") if x.untyped_storage().data_ptr() in self.computed else x

    # --- operations

    def _elementwise(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if not isinstance(result, torch.Tensor):
            return result
        base = name.removesuffix("_")
        noisy = self._jitter(result, "rounding")
        if base in INACCURATE:
            noisy = self._jitter(noisy, "accumulation", 2)
        if name.endswith("_") and noisy is not result:  # in place
            return result.copy_(noisy)
        return noisy

    def _product(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> torch.Tensor:
        if name in ("addmm", "baddbmm", "addmv"):
            bias, first, second = args
            if kwargs.get("alpha", 1) != 1 or kwargs.get("beta", 1) != 1:
                raise NotImplementedError(f"{name} with alpha or beta")
            product = torch.matmul(self._operand(first), self._operand(second))
        else:
            first, second = args
            bias, product = None, func(self._operand(first), self._operand(second), **kwargs)
        product = self._summed(product, lambda: torch.matmul(first.square(), second.square()), first.shape[-1])
        product = self._jitter(product, "rounding")
        return product if bias is None else self._jitter(product + bias, "rounding")

    def _reduced(self, result: torch.Tensor, x: torch.Tensor, dim: Any, *, keepdim: bool, mean: bool) -> torch.Tensor:
        dims = tuple(range(x.ndim)) if dim is None or dim == [] else (dim,) if isinstance(dim, int) else tuple(dim)
        terms = 1
        for axis in dims:
            terms *= x.shape[axis]
        scale = terms if mean else 1
        noisy = self._summed(result * scale, lambda: x.square().sum(dims, keepdim=keepdim), terms) / scale
        return self._jitter(noisy, "rounding")

    def _sum(self, func: Any, x: torch.Tensor, dim: Any = None, keepdim: Any = None, **kwargs: Any) -> torch.Tensor:
        result = func(x, **kwargs) if dim is None else func(x, dim, bool(keepdim), **kwargs)
        return (
            self._reduced(result, x, dim, keepdim=bool(keepdim), mean=False) if result.is_floating_point() else result
        )

    def _mean(self, func: Any, x: torch.Tensor, dim: Any = None, keepdim: Any = None, **kwargs: Any) -> torch.Tensor:
        result = func(x, **kwargs) if dim is None else func(x, dim, bool(keepdim), **kwargs)
        return self._reduced(result, x, dim, keepdim=bool(keepdim), mean=True)

    def _softmax(self, func: Any, x: torch.Tensor, dim: int, half: bool) -> torch.Tensor:
        if self.kind != "accumulation":
            return self._jitter(func(x, dim, half), "rounding")
        shifted = self._jitter(x - x.amax(dim, keepdim=True), "accumulation")
        shifted = torch.where(x.isneginf(), x, shifted)
        exponentials = self._jitter(shifted.exp(), "accumulation", 2)
        total = exponentials.sum(dim, keepdim=True)
        total = self._summed(total, lambda: exponentials.square().sum(dim, keepdim=True), x.shape[dim])
        return self._jitter(exponentials / total, "accumulation")

    def _native_layer_norm(
        self, _: Any, x: torch.Tensor, shape: Any, weight: Any, bias: Any, epsilon: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        dims = tuple(range(-len(shape), 0))
        terms = 1
        for length in shape:
            terms *= length
        mean = self._summed(x.sum(dims, keepdim=True), lambda: x.square().sum(dims, keepdim=True), terms) / terms
        deviation = self._jitter(x - mean, "accumulation")
        square = deviation.square()
        total = self._summed(square.sum(dims, keepdim=True), lambda: square.square().sum(dims, keepdim=True), terms)
        inverse = self._jitter(self._jitter(total / terms + epsilon, "accumulation").rsqrt(), "accumulation", 2)
        result = self._jitter(self._jitter(deviation * inverse, "accumulation"), "rounding")
        if weight is not None:
            result = self._jitter(self._jitter(result * weight, "accumulation"), "rounding")
        if bias is not None:
            result = self._jitter(self._jitter(result + bias, "accumulation"), "rounding")
        return result, mean, inverse


@contextmanager
def perturbed(kind: str, seed: int) -> Iterator[None]:
    """Run the torch code inside with its operations perturbed; `kind` is rounding, accumulation or products.

    The errors of its results, divided by `STEP`, are a draw of the noise per unit roundoff.
    """
    with _Perturbing(kind, seed):
        yield
