"""RMSNorm in plain NumPy: the definition, to read and to copy.

Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4, over the last axis; the weight as in
transformers' LlamaRMSNorm or GemmaRMSNorm. Computed in float32 (float64 where the input is), and rounded once to the
format of the input. D width.
"""

import numpy as np


def rms_norm(x, weight, *, epsilon, epsilon_is, weight_is):
    """Divide each row of `x` (..., D) by its root mean square, and multiply by the factors that `weight` (D,) means."""
    refuse(x, weight, epsilon, epsilon_is, weight_is)
    wide_x = wide(x)  # (..., D)
    inverse = inverse_rms(mean_square(wide_x), epsilon, epsilon_is)  # (..., 1)
    output = scaled(wide_x * inverse, wide(weight), weight_is)  # (..., D)
    return {"inverse_rms": inverse[..., 0], "output": output.astype(x.dtype)}


def mean_square(x):
    """Return the mean of the squares of each row, (..., 1)."""
    return np.square(x).mean(-1, keepdims=True)


def inverse_rms(mean_square, epsilon, epsilon_is):
    """Return what a row is multiplied by, (..., 1)."""
    if epsilon_is == "inside_root":
        return 1 / np.sqrt(mean_square + epsilon)
    return 1 / (np.sqrt(mean_square) + epsilon)


def scaled(normed, weight, weight_is):
    """Return normalised rows (..., D) times their factors."""
    return normed * (weight if weight_is == "factor" else 1 + weight)


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def refuse(x, weight, epsilon, epsilon_is, weight_is):
    """Raise `ValueError` where the arguments contradict the contract."""
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x {x.shape} has no channels")
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight {weight.shape} must be {x.shape[-1:]}, one for each channel")
    if not epsilon >= 0:
        raise ValueError(f"epsilon {epsilon} must not be negative")
    if epsilon_is not in ("inside_root", "outside_root"):
        raise ValueError(f"epsilon_is is {epsilon_is!r}, not 'inside_root' or 'outside_root'")
    if weight_is not in ("factor", "factor_less_one"):
        raise ValueError(f"weight_is is {weight_is!r}, not 'factor' or 'factor_less_one'")
