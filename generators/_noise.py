"""Replays a torch reference in float64 under random perturbation: how rounding reaches each checkpoint.

Three kinds of noise, each per unit roundoff u of the format that causes it:
- `rounding`: every operation's result is rounded to storage: times 1 + u t, t uniform in (-1, 1).
- `accumulation`: what happens inside an operation, in the format in which it accumulates. A sum of n terms p with the
  result s, added one after the other, rounds every partial sum. The squares of the partial sums, a random walk that
  ends at s, add up to n s^2 / 3 + n (sum of p^2) / 6 on average; the error's variance is u^2 / 3 times that. For terms
  without a mean it is u^2 n (sum of p^2) / 6. The stages of a softmax or a norm are rounded too.
- `products`: the operands of matrix products are rounded. What comes in from outside is not, nor what only moves it:
  inputs are exact in every format.

The reference's code is untouched: a dispatch mode sees every operation below the Python API. An operation that stands
in none of the tables is refused: without its stages its noise would be too small, and correct candidates wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from karat.freeze import beside

stages = beside(__file__, "_noise_stages")

STEP = 2.0**-30
"""The unit roundoff of a replay: small enough for first order, large enough to drown the replay's own rounding."""

# Names without the underscore at the end, which says "in place".
EXACT = frozenset((
    "_local_scalar_dense", "_reshape_alias", "_to_copy", "_unsafe_view", "abs", "alias", "all", "amax", "amin",
    "aminmax", "any", "arange", "argmax", "argmin", "argsort", "as_strided", "bitwise_and", "bitwise_not",
    "bitwise_or", "bitwise_xor", "broadcast_to", "bucketize", "cat", "ceil", "chunk", "clamp", "clamp_max",
    "clamp_min", "clone", "constant_pad_nd", "contiguous", "copy", "copysign", "cummax", "cummin", "detach",
    "diag_embed", "diagonal", "embedding", "empty", "empty_like", "eq", "equal", "expand", "eye", "fill", "flip",
    "floor", "floor_divide", "fmax", "fmin", "fmod", "full", "full_like", "gather", "ge", "gt", "heaviside", "index",
    "index_fill", "index_put", "index_select", "isfinite", "isin", "isinf", "isnan", "kthvalue", "le", "lift_fresh",
    "lift_fresh_copy", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "masked_fill",
    "masked_scatter", "masked_select", "max", "maximum", "median", "min", "minimum", "nan_to_num", "narrow", "ne",
    "neg", "new_empty", "new_full", "new_ones", "new_zeros", "nonzero", "ones", "ones_like", "permute", "relu",
    "repeat", "repeat_interleave", "reshape", "resize", "roll", "round", "scalar_tensor", "scatter", "searchsorted",
    "select", "select_scatter", "set", "sgn", "sign", "signbit", "slice", "slice_scatter", "sort", "split",
    "split_with_sizes", "squeeze", "stack", "t", "take", "tile", "to", "topk", "transpose", "tril", "triu", "trunc",
    "unbind", "unfold", "unsqueeze", "view", "where", "zero", "zeros", "zeros_like",
))  # fmt: skip
"""Operations that move numbers or choose among them, or whose results need no more digits: their results are exact."""

ELEMENTWISE = frozenset((
    "add", "div", "frac", "leaky_relu", "linspace", "mul", "reciprocal", "remainder", "rsub", "sqrt", "square", "sub",
))  # fmt: skip
"""Functions that every implementation rounds correctly."""

INACCURATE = frozenset((
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "digamma", "elu", "erf", "erfc",
    "erfinv", "exp", "exp2", "expm1", "gelu", "hardsigmoid", "hardswish", "hypot", "lgamma", "log", "log10", "log1p",
    "log2", "logaddexp", "logaddexp2", "logit", "mish", "pow", "rsqrt", "sigmoid", "silu", "sin", "sinc", "sinh",
    "softplus", "tan", "tanh", "xlogy",
))  # fmt: skip
"""Functions that no implementation rounds correctly: under `accumulation` they err by two units more."""

PRODUCTS = frozenset(("addmm", "addmv", "baddbmm", "bmm", "dot", "mm", "mv", "vdot"))
"""Products of vectors and matrices, the last two operands, to which some add their first."""

HINTS = {"_scaled_dot_product": "the eager implementation of attention is known"}
"""What to say of operations that are not known, by the beginning of their names."""


ADVICE = (
    "write it out in known operations in the reference, or add it to EXACT, ELEMENTWISE, INACCURATE or PRODUCTS of"
    " generators/_noise.py, or its stages to generators/_noise_stages.py"
)


class _Perturbing(TorchDispatchMode):  # type: ignore[misc]  # torch is not installed where types are checked
    """Perturbs the floating results of all operations inside, as `kind` says."""

    def __init__(self, kind: str, seed: int) -> None:
        super().__init__()
        self.kind = kind
        self.random = torch.Generator().manual_seed(seed)
        # Storages of rounded numbers; all others came in from outside. A weak reference keeps the identity of a
        # storage from being given to another one, not its memory.
        self.computed: set[StorageWeakRef] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _arguments(func, args, kwargs)
        known = _known_as(func, given)
        if known in EXACT:
            result = func(*args, **kwargs)
        elif func._schema.is_mutable:  # noqa: SLF001 - torch has no other name for it
            result = args[0].copy_(self._noisy(known, _out_of_place(func), given))
        else:
            result = self._noisy(known, func, given)
        if known not in EXACT or any(self.is_computed(argument) for argument in tree_leaves((args, kwargs))):
            self.computed |= {StorageWeakRef(x.untyped_storage()) for x in tree_leaves(result) if _is_real(x)}
        return result

    def _noisy(self, known: str, func: Any, given: dict[str, Any]) -> Any:
        """Return the perturbed result of an operation that leaves its arguments alone."""
        given = dict(given)
        if known in PRODUCTS:
            return self._product(known, given)
        if known in stages.STAGES:
            x, dtype = given.pop(next(iter(given))), given.pop("dtype", None)
            return stages.STAGES[known](self, x if dtype is None else x.to(dtype), **given)
        if given.get("alpha", 1) != 1:
            if known == "rsub":
                raise NotImplementedError(f"rsub with alpha: {ADVICE}")
            given |= {"other": self.inner(given["other"] * given["alpha"]), "alpha": 1}
        result = self.stored(func(**given))
        return self.inner(result, 2) if known in INACCURATE else result

    def _product(self, name: str, given: dict[str, Any]) -> torch.Tensor:
        if given.pop("alpha", 1) != 1 or given.pop("beta", 1) != 1:
            raise NotImplementedError(f"{name} with alpha or beta: {ADVICE}")
        *bias, first, second = given.values()
        product = torch.matmul(self.operand(first), self.operand(second))
        squares = partial(torch.matmul, first.square(), second.square())
        product = self.stored(self.summed(product, squares, first.shape[-1]))
        return self.stored(product + bias[0]) if bias else product

    # --- perturbations

    def stored(self, x: torch.Tensor) -> torch.Tensor:
        """Round the result of an operation."""
        return self._jitter(x, "rounding")

    def inner(self, x: torch.Tensor, units: int = 1) -> torch.Tensor:
        """Round a stage of an operation, off by `units` at most."""
        return self._jitter(x, "accumulation", units)

    def operand(self, x: torch.Tensor) -> torch.Tensor:
        """Round an operand of a product, unless it came in from outside."""
        return self._jitter(x, "products") if self.is_computed(x) else x

    def summed(self, total: torch.Tensor, squares: Callable[[], torch.Tensor], terms: Any) -> torch.Tensor:
        """Add to sums of `terms` terms the error of adding one after the other; `squares` gives the sum of squares."""
        if self.kind != "accumulation" or not total.is_floating_point():
            return total
        variance = terms / 9 * total.square() + terms / 18 * squares()
        noise = torch.randn(total.shape, generator=self.random, dtype=total.dtype)
        noisy = total + STEP * variance.sqrt() * noise
        return torch.where(total.isfinite() & (torch.as_tensor(terms) > 1), noisy, total)

    def is_computed(self, x: Any) -> bool:
        """Say whether rounded numbers are in the storage of `x`."""
        return _is_real(x) and StorageWeakRef(x.untyped_storage()) in self.computed

    def _jitter(self, x: torch.Tensor, kind: str, units: int = 1) -> torch.Tensor:
        if x.is_complex():
            raise NotImplementedError("complex numbers: write it out in real ones in the reference")
        if kind != self.kind or not x.is_floating_point():
            return x
        noise = torch.rand(x.shape, generator=self.random, dtype=x.dtype).mul_(2 * units * STEP).sub_(units * STEP)
        return torch.where(x.isfinite() & (x.abs() < 1e300), x * (1 + noise), x)  # not the -max of a mask


def _is_real(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def _arguments(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of an operation by name, in their order, with those that are not given."""
    schema = func._schema.arguments  # noqa: SLF001 - see above
    defaults = {argument.name: argument.default_value for argument in schema}
    given: dict[str, Any] = defaults | dict(zip(defaults, args, strict=False)) | kwargs
    return given


def _known_as(func: Any, given: dict[str, Any]) -> str:
    """Return the name under which the tables have what an operation does; raise `NotImplementedError` if none has."""
    name: str = func.overloadpacket.__name__
    if func._schema.is_mutable:  # noqa: SLF001 - see above
        name = name.removesuffix("_")
    known = name
    if name == "pow" and isinstance(given["exponent"], (int, float)) and given["exponent"] == 2:
        known = "square"
    elif given.get("rounding_mode"):
        known = "floor_divide"
    elif given.get("accumulate"):
        known = "index_put with accumulate"
    if known not in EXACT and "out" in given:
        raise NotImplementedError(f"{name} with out=: {ADVICE}")
    if given.get("reduce") or not any(
        known in table for table in (EXACT, ELEMENTWISE, INACCURATE, PRODUCTS, stages.STAGES)
    ):
        hints = [hint for beginning, hint in HINTS.items() if name.startswith(beginning)]
        raise NotImplementedError("; ".join([f"{name}: how it rounds is not known: {ADVICE}", *hints]))
    return known


def _out_of_place(func: Any) -> Any:
    """Return the operation that computes what `func` computes in place."""
    name = func.overloadpacket.__name__.removesuffix("_")
    return getattr(getattr(torch.ops.aten, name), func._overloadname)  # noqa: SLF001 - see above


@contextmanager
def perturbed(kind: str, seed: int) -> Iterator[None]:
    """Run the torch code inside with its operations perturbed; `kind` is rounding, accumulation or products.

    The errors of its results, divided by `STEP`, are a draw of the noise per unit roundoff. Raise `NotImplementedError`
    for an operation of which it is not known how it rounds.
    """
    with _Perturbing(kind, seed):
        yield
