"""LayerNorm in plain NumPy: the definition, to read and to copy.

Ba, Kiros and Hinton, "Layer Normalization" (2016), equations 3 and 4, over the last axis. Sums are computed in float32
(float64 where the input is), and the output is rounded once to the format of the input. D width.
"""

import numpy as np


def layer_norm(x, weight, bias, *, epsilon):
    """Normalise the last axis of `x` (..., D) by its mean and biased variance, scale by `weight`, shift by `bias`."""
    wide_x = wide(x)  # (..., D)
    mean = wide_x.mean(-1, keepdims=True)  # (..., 1)
    deviations = wide_x - mean  # (..., D)
    variance = np.square(deviations).mean(-1, keepdims=True)  # (..., 1)
    normed = deviations / np.sqrt(variance + epsilon)  # (..., D)
    output = normed * wide(weight) + wide(bias)  # (..., D)
    return {"output": output.astype(x.dtype)}


def wide(x):
    """Return `x` in the format in which sums are computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)
