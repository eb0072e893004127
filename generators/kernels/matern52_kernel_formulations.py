"""Correct ways to compute the Matérn 5/2 kernel that differ from the plain candidate's: they must pass."""

import math
from typing import Any

import numpy as np

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any

stationary = beside(__file__, "_stationary_formulations")


def in_horner_form(squared: Array, variance: float) -> Array:
    """Return it with the polynomial in Horner's form, (n, m)."""
    a = np.sqrt(5 * squared)  # (n, m)
    return variance * (1 + a * (1 + a * (1 / 3))) * np.exp(-a)


def of_squares(squared: Array, variance: float) -> Array:
    """Return it with 5 r^2 / 3 from the squared distance, as scikit-learn and GPyTorch have it, (n, m)."""
    a = np.sqrt(squared * 5)  # (n, m)
    return variance * (1 + a + 5 / 3 * squared) * np.exp(-a)


def of_base_two(squared: Array, variance: float) -> Array:
    """Return it with 2^(-log2(e) a), as kernels with exp2 do, (n, m)."""
    a = math.sqrt(5) * np.sqrt(squared)  # (n, m)
    return variance * (1 + a + a * a / 3) * np.exp2(-a.dtype.type(math.log2(math.e)) * a)


FORMULATIONS = (
    *stationary.FORMULATIONS,
    stationary.SCALED_BY_INVERSE,
    Formulation("horner", "the polynomial in Horner's form", wrap(decay=lambda _: in_horner_form)),
    Formulation("five_thirds", "5 r^2 / 3 from the squared distance", wrap(decay=lambda _: of_squares)),
    Formulation("exp2", "2 to the power of a multiple of log2(e)", wrap(decay=lambda _: of_base_two)),
)
