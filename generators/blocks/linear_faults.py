"""Mistakes that people make when they write a linear layer, each a small change to the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
PRODUCT, OUTPUT, REFUSED = ("product",), ("output",), ("refused",)


def layout(formula: Callable[[Array, str], Array]) -> Change:
    """Return a change to what is taken for (O, I): `formula(weight, layout)`."""
    return wrap(out_in=lambda _: formula)


def squares(formula: Callable[[Any, Array, str], Array]) -> Change:
    """Return a change to that of square weights: `formula(right, weight, layout)`."""
    return wrap(
        out_in=lambda right: (
            lambda w, layout: formula(right, w, layout) if w.shape[0] == w.shape[1] else right(w, layout)
        )
    )


def product(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the products: `formula(x, weight)` of (..., I) and (O, I), (..., O)."""
    return wrap(product=lambda _: formula)


def after(formula: Callable[[Array], Array]) -> Change:
    """Return a change to what has been multiplied: `formula(products)`, (..., O)."""
    return wrap(product=lambda right: lambda x, weight: formula(right(x, weight)))


def bias(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the bias: `formula(products, bias)`, (..., O)."""
    return wrap(with_bias=lambda _: formula)


def output(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the output, with a bias or without: `formula(output)`, rounded once."""

    def change(plain: Any) -> None:
        right = plain.linear

        def linear(x: Array, weight: Array, bias: Array = None, **params: Any) -> dict[str, Array]:
            found = right(plain.wide(x), weight, bias, **params)
            return {"product": found["product"].astype(x.dtype), "output": formula(found["output"]).astype(x.dtype)}

        plain.linear = linear

    return change


def added_in(dtype: str, block: int = 1) -> Callable[[Array, Array], Array]:
    """Return a product whose terms, in blocks, are added to a running sum that is kept in the format `dtype`."""
    number = np.dtype(dtype)

    def add(x: Array, weight: Array) -> Array:
        total = np.zeros((*x.shape[:-1], len(weight)), x.dtype)
        for k in range(0, x.shape[-1], block):
            total = total.astype(number) + x[..., k : k + block] @ weight[:, k : k + block].T
        return total.astype(x.dtype)

    return add


def kept(x: Array, axis: int, count: int) -> Array:
    """Return an array with what stands along the axis from `count` on left unwritten, 0."""
    found = x.copy()
    np.moveaxis(found, axis, 0)[count:] = 0
    return found


def both_with_bias(found: dict[str, Array]) -> dict[str, Array]:
    """Return the output as product too."""
    return {**found, "product": found["output"]}


def bits(values: Array, count: int) -> Array:
    """Return values rounded to so many bits of significand."""
    significand, exponent = np.frexp(values)
    return np.ldexp(np.round(significand * 2.0**count) / 2.0**count, exponent).astype(values.dtype)


def multiples(values: Array, count: int) -> Array:
    """Return a matrix rounded to multiples of its largest magnitude over `count`."""
    step = np.abs(values).max(initial=0) / count
    return (np.round(values / step) * step).astype(values.dtype) if step else values


def accepts(*words: str, then: Callable[[Any], None] = lambda plain: None) -> Change:
    """Return a change that does not refuse what is refused with a text that begins with one of `words`."""

    def change(plain: Any) -> None:
        right = plain.refuse

        def refuse(*arguments: Any) -> None:
            try:
                right(*arguments)
            except ValueError as error:
                if not str(error).startswith(words):
                    raise

        plain.refuse = refuse
        then(plain)

    return change


def cut_to_fit(plain: Any) -> None:
    """Multiply as many channels as both have."""

    def fitting(x: Array, weight: Array) -> Array:
        x, weight = np.atleast_1d(x), weight if weight.ndim == 2 else weight.reshape(-1, weight.shape[-1])
        count = min(x.shape[-1], weight.shape[-1])
        return x[..., :count] @ weight[:, :count].T

    plain.product = fitting
    plain.with_bias = lambda products, bias: products + np.resize(bias, products.shape[-1])


def any_bias(plain: Any) -> None:
    """Repeat biases or leave some out."""
    plain.with_bias = lambda products, bias: products + np.resize(bias, products.shape[-1])


FAULTS = (
    # --- the weight's layout
    Fault("layout_out_in", PRODUCT, "a square weight is taken for (O, I), whatever `layout` says", squares(lambda right, w, layout: w)),
    Fault("layout_in_out", PRODUCT, "a square weight is taken for (I, O), whatever `layout` says", squares(lambda right, w, layout: w.T)),
    Fault("weight_transposed", PRODUCT, "a square weight is transposed", squares(lambda right, w, layout: right(w, layout).T)),
    Fault("weight_reshaped", PRODUCT, "(I, O) is reshaped to (O, I) instead of transposed",
          layout(lambda w, layout: w if layout == "out_in" else w.reshape(w.shape[::-1]))),
    Fault("weight_reshaped_as_in_out", PRODUCT, "(O, I) is reshaped to (I, O) and multiplied",
          layout(lambda w, layout: w.reshape(w.shape[::-1]).T if layout == "out_in" else w.T)),
    Fault("weight_rows_shifted", PRODUCT, "channels out are one late", product(lambda x, w: x @ np.roll(w, 1, 0).T)),
    Fault("weight_columns_shifted", PRODUCT, "channels in are one late", product(lambda x, w: x @ np.roll(w, 1, 1).T)),
    Fault("weight_columns_reversed", PRODUCT, "channels in in the reverse order", product(lambda x, w: x @ w[:, ::-1].T)),
    Fault("channels_out_exchanged", PRODUCT, "neighbouring channels out are exchanged", after(lambda p: p[..., [i ^ 1 if i ^ 1 < p.shape[-1] else i for i in range(p.shape[-1])]])),
    # --- the sum
    Fault("tail_not_summed", PRODUCT, "terms beyond the last whole vector of four are not summed",
          product(lambda x, w: x[..., : x.shape[-1] // 4 * 4] @ w[:, : x.shape[-1] // 4 * 4].T)),
    Fault("last_term_missing", PRODUCT, "the last term is not summed", product(lambda x, w: x[..., :-1] @ w[:, :-1].T)),
    Fault("last_term_twice", PRODUCT, "the last term counts twice", product(lambda x, w: x @ w.T + x[..., -1:] @ w[:, -1:].T)),
    Fault("first_term_missing", PRODUCT, "the first term is not summed", product(lambda x, w: x[..., 1:] @ w[:, 1:].T)),
    Fault("block_missing", PRODUCT, "terms 8 to 15 are not summed", product(lambda x, w: x @ w.T - x[..., 8:16] @ w[:, 8:16].T)),
    Fault("sums_in_float16", PRODUCT, "terms added in float16", product(added_in("float16"))),
    Fault("sums_in_bfloat16", PRODUCT, "terms added in bfloat16", product(added_in("bfloat16"))),
    Fault("partial_sums_in_bfloat16", PRODUCT, "sums of 16 terms added in bfloat16", product(added_in("bfloat16", 16))),
    Fault("mean_instead_of_sum", PRODUCT, "divided by the number of terms", product(lambda x, w: x @ w.T / x.dtype.type(max(x.shape[-1], 1)))),
    Fault("scaled_by_root", PRODUCT, "divided by the root of the number of terms", product(lambda x, w: x @ w.T / x.dtype.type(max(x.shape[-1], 1) ** 0.5))),
    Fault("product_times_1.01", PRODUCT, "products 1 % too large", product(lambda x, w: x @ w.T * x.dtype.type(1.01))),
    Fault("product_negated", PRODUCT, "products have the wrong sign", product(lambda x, w: -(x @ w.T))),
    Fault("magnitudes", PRODUCT, "|x| instead of x", product(lambda x, w: np.abs(x) @ w.T)),
    # --- coarse operands
    Fault("x_of_4_bits", PRODUCT, "x rounded to 4 bits of significand, as in float8_e4m3", product(lambda x, w: bits(x, 4) @ w.T)),
    Fault("weight_of_4_bits", PRODUCT, "the weight rounded to 4 bits of significand, as in float8_e4m3", product(lambda x, w: x @ bits(w, 4).T)),
    Fault("weight_in_bfloat16", PRODUCT, "the weight alone rounded to 8 bits of significand, as by casting it to bfloat16",
          product(lambda x, w: x @ bits(w, 8).T), ("float64", "float32")),
    Fault("weight_in_int4", PRODUCT, "the weight as multiples of its largest over 7", product(lambda x, w: x @ multiples(w, 7).T)),
    Fault("weight_in_int8", PRODUCT, "the weight as multiples of its largest over 127", product(lambda x, w: x @ multiples(w, 127).T)),
    # --- what is written
    Fault("rows_beyond_fours_unwritten", PRODUCT, "rows beyond the last whole block of four stay 0, of more than four",
          after(lambda p: kept(p, -2, p.shape[-2] // 4 * 4) if p.ndim > 1 and p.shape[-2] > 4 else p)),
    Fault("channels_beyond_fours_unwritten", PRODUCT, "channels out beyond the last whole block of four stay 0",
          after(lambda p: kept(p, -1, p.shape[-1] // 4 * 4))),
    Fault("first_row_for_all", PRODUCT, "the first row's products in every row", after(lambda p: np.broadcast_to(p[..., :1, :], p.shape) if p.ndim > 1 and p.size else p)),
    Fault("relu_fused", OUTPUT, "ReLU of the output", output(lambda y: np.maximum(y, 0))),
    Fault("output_saturates", OUTPUT, "the output clipped at 448, the largest number of float8_e4m3", output(lambda y: np.clip(y, -448, 448))),
    # --- the bias
    Fault("bias_in_product", PRODUCT, "product has the bias already", wrap(
        linear=lambda right: lambda x, weight, bias=None, *, layout: both_with_bias(right(x, weight, bias, layout=layout)))),
    Fault("bias_missing", OUTPUT, "no bias", bias(lambda p, b: p)),
    Fault("bias_twice", OUTPUT, "the bias is added twice", bias(lambda p, b: p + 2 * b)),
    Fault("bias_subtracted", OUTPUT, "the bias is subtracted", bias(lambda p, b: p - b)),
    Fault("bias_multiplies", OUTPUT, "multiplied by the bias", bias(lambda p, b: p * b)),
    Fault("bias_of_first_channel", OUTPUT, "the first bias for every channel", bias(lambda p, b: p + b[:1])),
    Fault("bias_reversed", OUTPUT, "biases in the reverse order", bias(lambda p, b: p + b[::-1])),
    Fault("bias_shifted", OUTPUT, "biases are one late", bias(lambda p, b: p + np.roll(b, 1))),
    Fault("bias_along_rows", OUTPUT, "the bias along the rows, where there are as many", bias(lambda p, b: p + (b[:, None] if p.ndim == 2 and len(p) == len(b) else b))),
    Fault("bias_of_4_bits", OUTPUT, "the bias rounded to 4 bits of significand", bias(lambda p, b: p + bits(b, 4))),
    Fault("bias_in_first_row_alone", OUTPUT, "the bias is added to the first row alone", bias(lambda p, b: p + (b * (np.arange(p.shape[-2]) == 0).astype(b.dtype)[:, None] if p.ndim > 1 else b))),
    Fault("bias_divided_by_terms", OUTPUT, "the bias over the root of the number of channels out", bias(lambda p, b: p + b / b.dtype.type(len(b) ** 0.5))),
    # --- what must be refused
    Fault("accepts_shapes", REFUSED, "as many channels as x and weight both have are multiplied", accepts("x ", "weight ", then=cut_to_fit)),
    Fault("accepts_biases", REFUSED, "any number of biases is taken, repeated or cut off", accepts("bias ", then=any_bias)),
    Fault("accepts_unknown_layout", REFUSED, "an unknown layout is taken for 'out_in'", wrap(
          linear=lambda right: lambda x, weight, bias=None, *, layout: right(x, weight, bias, layout=layout if layout == "in_out" else "out_in"))),
    # --- what comes in
    *rounded_inputs("linear", PRODUCT),
)  # fmt: skip
