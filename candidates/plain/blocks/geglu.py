"""The feed-forward block with GEGLU in plain NumPy: the definition, to read and to copy.

Shazeer, "GLU Variants Improve Transformer" (2020), equation 6. Computed in float32 (float64 where x is), and each
checkpoint rounded once to the format of x. D width of x, F hidden width, O of the output.
"""

import math

import numpy as np


def geglu(x, gate_up, down, *, layout, approximate):
    """Return gate, up, hidden, each (..., F), and output, (..., O), of `x` (..., D)."""
    refuse(x, gate_up, down, layout, approximate)
    gate_rows, up_rows = split(wide(gate_up), layout)  # (F, D) each
    gate, up = product(wide(x), gate_rows), product(wide(x), up_rows)  # (..., F) each
    hidden = combined(gate, up, approximate)  # (..., F)
    output = product(hidden, wide(down))  # (..., O)
    found = {"gate": gate, "up": up, "hidden": hidden, "output": output}
    return {point: array.astype(x.dtype) for point, array in found.items()}


def split(gate_up, layout):
    """Return the rows of the gate and those of the up projection, (F, D) each."""
    if layout == "interleaved":
        return gate_up[0::2], gate_up[1::2]
    first, second = np.split(gate_up, 2)
    return (first, second) if layout == "gate_up" else (second, first)


def product(x, weight):
    """Return x (..., in) times weight (out, in), (..., out)."""
    return x @ weight.T


def combined(gate, up, approximate):
    """Return gelu(gate) * up, (..., F)."""
    return gelu(gate, approximate) * up


def gelu(z, approximate):
    """Return z times the distribution function of the normal distribution, shape of `z`."""
    if approximate == "tanh":
        return 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    return 0.5 * z * (1 + np.vectorize(math.erf, otypes=[z.dtype])(z / math.sqrt(2)))


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def refuse(x, gate_up, down, layout, approximate):
    """Raise `ValueError` where the arguments contradict the contract."""
    if layout not in ("gate_up", "up_gate", "interleaved"):
        raise ValueError(f"layout is {layout!r}, not 'gate_up', 'up_gate' or 'interleaved'")
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate is {approximate!r}, not 'none' or 'tanh'")
    if gate_up.ndim != 2 or len(gate_up) % 2:
        raise ValueError(f"gate_up {gate_up.shape} must be (2F, D)")
    if x.ndim == 0 or x.shape[-1] != gate_up.shape[1]:
        raise ValueError(f"x {x.shape} must be (..., D), where gate_up is {gate_up.shape}")
    if down.ndim != 2 or down.shape[1] != len(gate_up) // 2:
        raise ValueError(f"down {down.shape} must be (O, F), where gate_up is {gate_up.shape}")
