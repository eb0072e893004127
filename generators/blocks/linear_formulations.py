"""Correct ways to compute a linear layer that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def in_torch(formula: Callable[[Any, Any, Any, str], Any]) -> Change:
    """Return a change to the whole: `formula(x, weight, bias, layout)` of tensors in storage gives the output alone."""

    def change(plain: Any) -> None:
        def linear(x: Array, weight: Array, bias: Array = None, *, layout: str) -> dict[str, Array]:
            output = formula(tensor(x), tensor(weight), None if bias is None else tensor(bias), layout)
            return {"output": output.double().numpy().astype(x.dtype)}  # exact, there and back

        plain.linear = linear

    return change


def tensor(x: Array) -> Any:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))


def torch_linear(x: Any, weight: Any, bias: Any, layout: str) -> Any:
    """Return torch.nn.functional.linear."""
    return torch.nn.functional.linear(x, weight if layout == "out_in" else weight.T, bias)


def conv1d(x: Any, weight: Any, bias: Any, layout: str) -> Any:
    """Return it as transformers' Conv1D does, by addmm."""
    rows = x.reshape(-1, x.shape[-1]) if x.numel() else x.new_zeros(int(np.prod(x.shape[:-1])), x.shape[-1])
    weight = weight.T if layout == "out_in" else weight
    output = rows @ weight if bias is None else torch.addmm(bias, rows, weight)
    return output.reshape(*x.shape[:-1], weight.shape[1])


def product_then_bias(x: Any, weight: Any, bias: Any, layout: str) -> Any:
    """Return the product, rounded to storage, plus the bias."""
    product = x @ (weight.T if layout == "out_in" else weight)
    return product if bias is None else product + bias


def with_product(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the products: `formula(x, weight)` of (..., I) and (O, I), (..., O)."""
    return wrap(product=lambda _: formula)


def empty(x: Array, weight: Array) -> Array:
    """Return sums of no terms, (..., O)."""
    return np.zeros((*x.shape[:-1], len(weight)), x.dtype)


def in_order(x: Array, weight: Array) -> Array:
    """Add the terms one after the other, as a loop does."""
    total = empty(x, weight)
    for k in range(x.shape[-1]):
        total += x[..., k : k + 1] * weight[:, k]
    return total


def in_blocks(size: int) -> Callable[[Array, Array], Array]:
    """Return a product that adds blocks of `size` terms, the last block first, as split-K kernels may."""

    def add(x: Array, weight: Array) -> Array:
        total = empty(x, weight)
        for start in reversed(range(0, x.shape[-1], size)):
            total += x[..., start : start + size] @ weight[:, start : start + size].T
        return total

    return add


def pairwise(x: Array, weight: Array) -> Array:
    """Add the terms as a binary tree."""
    terms = x[..., None, :] * weight  # (..., O, I)
    while terms.shape[-1] > 1:
        if terms.shape[-1] % 2:
            terms = np.concatenate([terms, np.zeros_like(terms[..., :1])], axis=-1)
        terms = terms[..., 0::2] + terms[..., 1::2]
    return terms.sum(-1)


def compensated(x: Array, weight: Array) -> Array:
    """Add the terms as Kahan does, with what each addition lost."""
    total, lost = empty(x, weight), empty(x, weight)
    for k in range(x.shape[-1]):
        term = x[..., k : k + 1] * weight[:, k] - lost
        larger = total + term
        lost = (larger - total) - term
        total = larger
    return total


def transposed(x: Array, weight: Array) -> Array:
    """Multiply the weight with the transposed rows."""
    rows = x.reshape(-1, x.shape[-1]) if x.size else np.zeros((int(np.prod(x.shape[:-1])), x.shape[-1]), x.dtype)
    return np.ascontiguousarray((np.ascontiguousarray(weight) @ np.asfortranarray(rows).T).T).reshape(
        *x.shape[:-1], len(weight)
    )


def row_by_row(x: Array, weight: Array) -> Array:
    """Multiply each row by itself."""
    rows = np.array([weight @ row for row in x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])], x.dtype)
    return rows.reshape(*x.shape[:-1], len(weight))


def in_float64(x: Array, weight: Array) -> Array:
    """Add in float64."""
    return (x.astype(np.float64) @ weight.astype(np.float64).T).astype(x.dtype)


def bias_first(plain: Any) -> None:
    """Begin the sums with the bias, as an accumulator that is loaded with it does; the output alone."""
    right, product = plain.linear, plain.product

    def linear(x: Array, weight: Array, bias: Array = None, *, layout: str) -> dict[str, Array]:
        def from_bias(rows: Array, matrix: Array) -> Array:
            total = empty(rows, matrix) + (0 if bias is None else plain.wide(bias))
            for start in range(0, rows.shape[-1], 32):
                total = total + product(rows[..., start : start + 32], matrix[:, start : start + 32])
            return total

        plain.product = from_bias
        return {"output": right(x, weight, layout=layout)["output"]}

    plain.linear = linear


def bias_as_channel(plain: Any) -> None:
    """Take the bias for the weight of one more channel, which is 1; the output alone."""
    right = plain.linear

    def linear(x: Array, weight: Array, bias: Array = None, *, layout: str) -> dict[str, Array]:
        if bias is None:
            return {"output": right(x, weight, layout=layout)["output"]}
        ones = np.ones((*x.shape[:-1], 1), x.dtype)
        rows = np.concatenate([plain.out_in(weight, layout), bias[:, None]], 1)
        return {"output": right(np.concatenate([x, ones], -1), rows, layout="out_in")["output"]}

    plain.linear = linear


def product_rounded(plain: Any) -> None:
    """Round the product to storage before the bias is added."""
    right, with_bias = plain.linear, plain.with_bias

    def linear(x: Array, weight: Array, bias: Array = None, *, layout: str) -> dict[str, Array]:
        plain.with_bias = lambda products, added: with_bias(products.astype(x.dtype).astype(products.dtype), added)
        return right(x, weight, bias, layout=layout)

    plain.linear = linear


FORMULATIONS = (
    Formulation("torch", "torch.nn.functional.linear in storage", in_torch(torch_linear), EACH_OPERATION),
    Formulation("conv1d", "torch.addmm in storage, as transformers' Conv1D", in_torch(conv1d), EACH_OPERATION),
    Formulation("product_then_bias", "torch's product in storage, then the bias", in_torch(product_then_bias),
                EACH_OPERATION),
    Formulation("product_rounded", "products rounded to storage before the bias", product_rounded, EACH_OPERATION),
    Formulation("sums_in_order", "terms added from the first to the last", with_product(in_order)),
    Formulation("sums_pairwise", "terms added as a binary tree", with_product(pairwise)),
    Formulation("blocks_of_32", "blocks of 32 terms, the last first", with_product(in_blocks(32))),
    Formulation("blocks_of_5", "blocks of 5 terms, the last first", with_product(in_blocks(5))),
    Formulation("compensated", "terms added as Kahan does", with_product(compensated)),
    Formulation("transposed", "the weight times the transposed rows", with_product(transposed)),
    Formulation("row_by_row", "a product for each row", with_product(row_by_row)),
    Formulation("einsum", "numpy.einsum", with_product(lambda x, weight: np.einsum("...i,oi->...o", x, weight))),
    Formulation("sums_in_float64", "terms added in float64", with_product(in_float64)),
    Formulation("bias_first", "sums that begin with the bias", bias_first),
    Formulation("bias_as_channel", "the bias as the weight of one more channel", bias_as_channel),
)  # fmt: skip
