"""Mistakes in the toy."""

import numpy as np

from karat.faults import Fault, wrap

FAULTS = (
    Fault("anything_goes", ("refused",), "does not look at the stamps", wrap(require_sorted=lambda right: lambda s: None)),
    Fault("stamps_in_float32", ("rebased",), "stamps rounded to float32",
          wrap(rebase=lambda right: lambda s: right(s.astype(np.float32).astype(np.float64)))),
    Fault("not_normalised", ("unit",), "not divided by the norm", wrap(unit=lambda right: lambda x: x)),
    Fault("raises", (), "raises", wrap(unit=lambda right: lambda x: 1 / 0)),
)  # fmt: skip
