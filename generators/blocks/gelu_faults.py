"""Mistakes that people make when they write GELU, each a small change to the plain candidate. NumPy only."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap

Array = Any
OUTPUT = ("output",)
SCALE = math.sqrt(2 / math.pi)


def computed(formula: Callable[[Callable[[Array], Array], Array], Array]) -> Callable[[Any], None]:
    """Return a change to the whole: `formula(gelu, x)` of the right function and a wide x, rounded once to storage."""

    def change(plain: Any) -> None:
        right = plain.gelu

        def gelu(x: Array, *, approximate: str) -> dict[str, Array]:
            output = formula(lambda x: right(x, approximate=approximate)["output"], plain.wide(x))  # (...)
            return {"output": output.astype(x.dtype)}

        plain.gelu = gelu

    return change


def inner(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the tanh formula: `formula(x)` is what tanh is taken of."""
    return wrap(tanh_formula=lambda _: lambda x: 0.5 * (1 + np.tanh(formula(x))))


def tanh(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the tanh formula: `formula(z)` is what takes the place of the hyperbolic tangent."""
    return wrap(tanh_formula=lambda _: lambda x: 0.5 * (1 + formula(SCALE * (x + 0.044715 * x**3))))


def erf(formula: Callable[[Callable[[Array], Array], Array], Array]) -> Callable[[Any], None]:
    """Return a change to the other formula: `formula(erf, x)`, given the right erf, is what is added to 1."""

    def change(plain: Any) -> None:
        plain.normal_distribution = lambda x: 0.5 * (1 + formula(plain.erf, x))

    return change


def one_for_both(right: str) -> Callable[[Any], None]:
    """Return a change that computes the formula `right` whatever the parameter says."""
    return wrap(gelu=lambda run: lambda x, *, approximate: run(x, approximate=right))


def sigmoid(x: Array) -> Array:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-x))


def erf_of_3_digits(x: Array) -> Array:
    """Return erf by formula 7.1.27 of Abramowitz and Stegun, whose error is 5e-4."""
    z = np.abs(x)
    return np.sign(x) * (1 - (1 + 0.278393 * z + 0.230389 * z**2 + 0.000972 * z**3 + 0.078108 * z**4) ** -4)


FAULTS = (
    # --- another function
    Fault("gelu_erf", OUTPUT, "erf GELU instead of the tanh formula", one_for_both("none")),
    Fault("gelu_tanh", OUTPUT, "the tanh formula instead of erf GELU", one_for_both("tanh")),
    Fault("gelu_quick", OUTPUT, "x sigmoid(1.702 x) instead of GELU", computed(lambda gelu, x: x * sigmoid(1.702 * x))),
    Fault("silu", OUTPUT, "x sigmoid(x), SiLU, instead of GELU", computed(lambda gelu, x: x * sigmoid(x))),
    Fault("relu", OUTPUT, "ReLU instead of GELU", computed(lambda gelu, x: np.maximum(x, 0))),
    Fault("hard_swish", OUTPUT, "x clip(x + 3, 0, 6) / 6 instead of GELU", computed(lambda gelu, x: x * np.clip(x + 3, 0, 6) / 6)),
    Fault("activation_missing", OUTPUT, "no activation", computed(lambda gelu, x: x)),
    # --- an approximation too coarse
    Fault("tail_clipped", OUTPUT, "0 below -3", computed(lambda gelu, x: np.where(x < -3, 0, gelu(x)))),
    Fault("argument_clipped", OUTPUT, "x clipped to 10 and -10", computed(lambda gelu, x: gelu(np.clip(x, -10, 10)))),
    Fault("table_of_eighths", OUTPUT, "looked up at the nearest multiple of 1/8", computed(lambda gelu, x: gelu(np.round(8 * x) / 8))),
    # --- what stands around tanh or erf
    Fault("half_missing", OUTPUT, "without the factor 1/2", computed(lambda gelu, x: 2 * gelu(x))),
    Fault("one_missing", OUTPUT, "tanh or erf without 1 +", computed(lambda gelu, x: gelu(x) - 0.5 * x)),
    Fault("argument_negated", OUTPUT, "x Phi(-x): the argument has the wrong sign", computed(lambda gelu, x: x - gelu(x))),
    # --- the argument of tanh
    Fault("cubic_0.04715", OUTPUT, "0.04715 instead of 0.044715", inner(lambda x: SCALE * (x + 0.04715 * x**3))),
    Fault("cubic_0.4715", OUTPUT, "0.4715 instead of 0.044715", inner(lambda x: SCALE * (x + 0.4715 * x**3))),
    Fault("cubic_missing", OUTPUT, "no cubic term", inner(lambda x: SCALE * x)),
    Fault("cubic_is_square", OUTPUT, "x^2 instead of x^3", inner(lambda x: SCALE * (x + 0.044715 * x**2))),
    Fault("cubic_not_scaled", OUTPUT, "the cubic term outside the factor sqrt(2/pi)", inner(lambda x: SCALE * x + 0.044715 * x**3)),
    Fault("scale_missing", OUTPUT, "no factor sqrt(2/pi)", inner(lambda x: x + 0.044715 * x**3)),
    Fault("scale_2_over_pi", OUTPUT, "2/pi instead of sqrt(2/pi)", inner(lambda x: 2 / math.pi * (x + 0.044715 * x**3))),
    Fault("scale_sqrt_pi_over_2", OUTPUT, "sqrt(pi/2) instead of sqrt(2/pi)", inner(lambda x: (x + 0.044715 * x**3) / SCALE)),
    Fault("tanh_hard", OUTPUT, "tanh by clipping to 1 and -1", tanh(lambda z: np.clip(z, -1, 1))),
    Fault("tanh_pade", OUTPUT, "tanh z as z (27 + z^2) / (27 + 9 z^2), clipped to 1 and -1",
          tanh(lambda z: np.clip(z * (27 + z**2) / (27 + 9 * z**2), -1, 1))),
    # --- the argument of erf
    Fault("erf_of_x", OUTPUT, "erf(x) instead of erf(x / sqrt 2)", erf(lambda erf, x: erf(x))),
    Fault("erf_of_half", OUTPUT, "erf(x / 2) instead of erf(x / sqrt 2)", erf(lambda erf, x: erf(x / 2))),
    Fault("erf_is_tanh", OUTPUT, "tanh(x / sqrt 2) instead of erf(x / sqrt 2)", erf(lambda erf, x: np.tanh(x / math.sqrt(2)))),
    Fault("erf_of_3_digits", OUTPUT, "erf by formula 7.1.27 of Abramowitz and Stegun", erf(lambda erf, x: erf_of_3_digits(x / math.sqrt(2)))),
)  # fmt: skip
