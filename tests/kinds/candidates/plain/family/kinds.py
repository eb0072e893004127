"""The toy in plain NumPy."""

import numpy as np


def kinds(stamps, x):
    """Return every checkpoint."""
    require_sorted(stamps)
    wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32)  # (N, 3)
    rebased = rebase(stamps).astype(wide.dtype)  # (N,)
    with np.errstate(all="ignore"):
        quotient = wide / rebased[:, None]
    return {
        "rebased": rebased,
        "late": rebased > 1,
        "product": (wide * rebased[:, None]).astype(x.dtype),
        "quotient": quotient.astype(x.dtype),
        "unit": unit(wide).astype(x.dtype),
    }


def require_sorted(stamps):
    """Refuse stamps that are not sorted."""
    if (np.diff(stamps) < 0).any():
        raise ValueError("stamps must be sorted")


def rebase(stamps):
    """Return the stamps after the first."""
    return stamps - stamps[:1]


def unit(x):
    """Return x / |x|."""
    return x / np.sqrt((x * x).sum(-1, keepdims=True))
