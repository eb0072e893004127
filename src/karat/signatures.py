"""Signatures: where each catalogued fault points, how visible it is, and which of them an error is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from karat.compare import Floats
from karat.hypotheses import Diagnosis
from karat.tolerances import SignatureRule

_RELATIVE = 0.05
"""Relative error of a direction, of a wrong value's own noise: what a fault leaves unexplained at its elements."""
_NEAR_ONE = 0.15


@dataclass(frozen=True)
class Signature:
    """What a fault does to one checkpoint.

    Attributes:
        fault: its name.
        text: what the mistake is.
        direction: faulty - golden, shape (n,): the judged elements of the checkpoint.
        errors: by contract, the standard deviation that noise gives to the strength of the direction.
    """

    fault: str
    text: str
    direction: Floats
    errors: Mapping[str, float]

    def visible(self, contract: str, rule: SignatureRule) -> bool:
        """Say whether the fault stands out of the noise of `contract`."""
        return contract in self.errors and self.errors[contract] * rule.visible <= 1


def clear_of_zero(variances: Floats) -> Floats:
    """Return variances with a smallest one, so that no weight overflows: where nothing may be, anything decides."""
    lowest = 1e-60 * float(variances.max(initial=0.0))
    return np.maximum(variances, lowest or 1.0)


def strength(error: Floats, direction: Floats, variances: Floats) -> float:
    """Return the least-squares alpha of error = alpha * direction, weighted by 1 / sigma^2; 0 without a direction."""
    weighted = direction / variances
    norm = float(weighted @ direction)
    return float(weighted @ error) / norm if norm > 0 else 0.0


def found_in_noise(
    error: Floats, variances: Floats, signatures: Iterable[Signature], contract: str, rule: SignatureRule
) -> tuple[float, list[Diagnosis]]:
    """Look for visible faults in an error within tolerance.

    Returns the largest strength of any of them, and those that are found, the likeliest first.
    """
    variances = clear_of_zero(variances)
    known = [signature for signature in signatures if signature.visible(contract, rule)]
    strengths = [strength(error, signature.direction, variances) for signature in known]
    fired = [signature for signature, alpha in zip(known, strengths, strict=True) if not alpha <= rule.strength]
    return max(strengths, default=0.0), _named(error, variances, fired, contract)


def found_in_mismatch(
    error: Floats, variances: Floats, signatures: Iterable[Signature], contract: str, rule: SignatureRule
) -> list[Diagnosis]:
    """Return the faults that an error beyond tolerance may be, the likeliest first.

    Either a fault explains most of the error, or it stands out of the noise with just the strength that it has.
    """
    variances = clear_of_zero(variances)
    explaining = []
    for signature in signatures:
        alpha, unexplained = _fit(error, signature, variances)
        if rule.strength < alpha < 1 / rule.strength and unexplained <= 1 - rule.explained:
            explaining.append(signature)
        elif signature.visible(contract, rule):
            alpha = strength(error, signature.direction, variances)
            if abs(alpha - 1) <= max(_NEAR_ONE, 4 * signature.errors[contract]):
                explaining.append(signature)
    return _named(error, variances, explaining, contract)


def _fit(error: Floats, signature: Signature, variances: Floats) -> tuple[float, float]:
    """Return the strength of a direction in an error, and what the direction leaves of the error, as a part of it.

    A wrong value is off by a part of the mistake too, and a direction is known no better than its coarsest step.
    """
    sizes = np.abs(signature.direction)
    step = float(sizes.min(initial=math.inf, where=sizes > 0))
    weighted = variances + np.square(_RELATIVE * error) + (step**2 if math.isfinite(step) else 0)
    whole = float(np.square(error) @ (1 / weighted))
    left = float(np.square(error - signature.direction) @ (1 / weighted))
    return strength(error, signature.direction, weighted), left / whole if whole > 0 else 1.0


def _named(error: Floats, variances: Floats, signatures: list[Signature], contract: str) -> list[Diagnosis]:
    fits = [(_fit(error, signature, variances), signature) for signature in signatures]
    found = []
    for (alpha, _), signature in sorted(fits, key=lambda fit: fit[0][1]):
        sd = signature.errors.get(contract, 0.0)
        text = f"{signature.text} (strength {alpha:.2f} ± {sd:.2g} of what that does; 1 is all of it)"
        found.append(Diagnosis(signature.fault, alpha, sd, text))
    return found
