"""What the faults of several suites share that hold values in a coarser format. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any


def through(dtype: Any) -> Callable[[Array], Array]:
    """Return the function that holds an array in `dtype` for a moment."""
    return lambda x: x.astype(dtype).astype(x.dtype)


def truncated(x: Array) -> Array:
    """Return values cut to the 8 bits of bfloat16 instead of rounded, in their own format."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(x.dtype)
