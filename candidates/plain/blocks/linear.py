"""The linear layer in plain NumPy: the definition, to read and to copy.

As `torch.nn.functional.linear` documents it; with "in_out" transformers' Conv1D. Computed in float32 (float64 where x
is), and each checkpoint rounded once to the format of x. I channels in, O channels out.
"""

import numpy as np


def linear(x, weight, bias=None, *, layout):
    """Return `x` (..., I) times `weight`, and that plus `bias` (O,)."""
    refuse(x, weight, bias, layout)
    rows = out_in(wide(weight), layout)  # (O, I)
    products = product(wide(x), rows)  # (..., O)
    output = products if bias is None else with_bias(products, wide(bias))  # (..., O)
    return {"product": products.astype(x.dtype), "output": output.astype(x.dtype)}


def out_in(weight, layout):
    """Return the weight as (O, I)."""
    return weight if layout == "out_in" else weight.T


def product(x, weight):
    """Return the products of x (..., I) with each row of weight (O, I), (..., O)."""
    return x @ weight.T


def with_bias(products, bias):
    """Return products (..., O) plus the bias (O,)."""
    return products + bias


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def refuse(x, weight, bias, layout):
    """Raise `ValueError` where the arguments contradict the contract."""
    if layout not in ("out_in", "in_out"):
        raise ValueError(f"layout is {layout!r}, not 'out_in' or 'in_out'")
    if weight.ndim != 2:
        raise ValueError(f"weight {weight.shape} must have two axes")
    outs, ins = weight.shape if layout == "out_in" else weight.shape[::-1]
    if x.ndim == 0 or x.shape[-1] != ins:
        raise ValueError(f"x {x.shape} must be (..., {ins}), as weight {weight.shape} is {layout}")
    if bias is not None and bias.shape != (outs,):
        raise ValueError(f"bias {bias.shape} must be ({outs},)")
