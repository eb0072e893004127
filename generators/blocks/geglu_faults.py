"""Mistakes that people make when they write a feed-forward block with GEGLU, planted in the plain candidate. NumPy only."""

from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap
from karat.freeze import beside

Array = Any

swiglu = beside(__file__, "swiglu_faults")
HIDDEN, REFUSED = swiglu.HIDDEN, swiglu.REFUSED


def always(form: str) -> Any:
    """Return a change that has one form of GELU, whatever the parameter says."""
    return wrap(gelu=lambda right: lambda z, approximate: right(z, form))


def tanh(formula: Any) -> Any:
    """Return a change to the tanh formula: `formula(z)` is what tanh is taken of."""
    return wrap(
        gelu=lambda right: (
            lambda z, approximate: (
                0.5 * z * (1 + np.tanh(formula(z))) if approximate == "tanh" else right(z, approximate)
            )
        )
    )


def erf(factor: float) -> Any:
    """Return a change to the argument of erf: x times `factor`."""
    return wrap(
        gelu=lambda right: (
            lambda z, approximate: (
                right(z, approximate)
                if approximate == "tanh"
                else right(z * z.dtype.type(factor), "none") / z.dtype.type(factor)
            )
        )
    )


FAULTS = (
    *swiglu.shared("gelu"),
    Fault("gelu_erf", HIDDEN, "erf GELU instead of the tanh formula", always("none")),
    Fault("gelu_tanh", HIDDEN, "the tanh formula instead of erf GELU", always("tanh")),
    Fault("silu", HIDDEN, "silu(gate) * up: SwiGLU", swiglu.activation(lambda z: z * swiglu.sigmoid(z))),
    Fault("half_missing", HIDDEN, "GELU without the factor 1/2", wrap(gelu=lambda right: lambda z, form: 2 * right(z, form))),
    Fault("one_missing", HIDDEN, "tanh or erf without 1 +", wrap(gelu=lambda right: lambda z, form: right(z, form) - 0.5 * z)),
    Fault("cubic_missing", HIDDEN, "no cubic term in the tanh formula", tanh(lambda z: 0.7978845608028654 * z)),
    Fault("scale_missing", HIDDEN, "no factor sqrt(2/pi) in the tanh formula", tanh(lambda z: z + 0.044715 * z**3)),
    Fault("cubic_0.4715", HIDDEN, "0.4715 instead of 0.044715", tanh(lambda z: 0.7978845608028654 * (z + 0.4715 * z**3))),
    Fault("erf_of_gate", HIDDEN, "erf(z) instead of erf(z / sqrt 2)", erf(2**0.5)),
    Fault("accepts_unknown_approximate", REFUSED, "an unknown `approximate` is taken for 'none'", swiglu.accepts("approximate")),
    # --- what comes in
    *rounded_inputs("geglu", ("gate",)),
)  # fmt: skip
