"""Signatures: where each catalogued fault points, how visible it is, and which of them an error is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from karat.compare import Floats
from karat.questions import Diagnosis
from karat.tolerances import SignatureRule

_RELATIVE = 0.05
"""Relative error of a direction, of a wrong value's own noise: what a fault leaves unexplained at its elements."""
_NEAR_ONE = 0.15
"""How far from 1 the strength of a fault that is all there may be: its direction is known to 6 % at each element, and a
mistake moves the rounding of everything after it."""
_SPREAD = 0.2
"""Largest standard error, by what else is wrong, that the strength of a fault may have beside a larger error: where it
is larger, unrelated directions have a strength of 1 by chance."""
_AS_GOOD = 2.0
"""A second name is told where it leaves over at most this many times what the first one does."""
_LEAST_LEFT = 1e-6
"""Part of an error that is as good as nothing: of two faults that do the same, neither is better."""
_MOST_NAMES = 3


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
    unit, size = _largest(direction) or 1.0, _largest(error) or 1.0  # lest squares of more than 1e154 overflow
    weighted = direction / unit / variances
    norm = float(weighted @ (direction / unit))
    return float(weighted @ (error / size)) / norm * (size / unit) if norm > 0 else 0.0


def _largest(values: Floats) -> float:
    return float(np.abs(values).max(initial=0.0))


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
        fit = _fit(error, signature, variances)
        explains = rule.strength < fit.strength < 1 / rule.strength and fit.left <= 1 - rule.explained
        if explains or (
            signature.visible(contract, rule)
            and fit.strength > rule.strength
            and _stands_out(error, signature, variances, contract)
        ):
            explaining.append(signature)
    return _named(error, variances, explaining, contract)


@dataclass(frozen=True)
class _Fit:
    """How well a direction fits an error.

    Attributes:
        strength: its least-squares strength.
        spread: the standard error of that, as the error's other parts make it.
        left: what all of the direction leaves of the error, as a part of its sum of squares.
    """

    strength: float
    spread: float
    left: float


def _fit(error: Floats, signature: Signature, variances: Floats) -> _Fit:
    """Fit a direction to an error.

    A wrong value is off by a part of the mistake too, and a direction is known no better than its coarsest step.
    """
    sizes = np.abs(signature.direction)
    unit = max(_largest(sizes), _largest(error), _largest(variances) ** 0.5) or 1.0
    error, direction = error / unit, signature.direction / unit
    step = float(sizes.min(initial=math.inf, where=sizes > 0)) / unit
    weighted = variances / unit / unit + np.square(_RELATIVE * error) + (step**2 if math.isfinite(step) else 0)
    weighted = clear_of_zero(weighted)
    whole = float(np.square(error) @ (1 / weighted))
    left = float(np.square(error - direction) @ (1 / weighted))
    alpha = strength(error, direction, weighted)
    spread = _spread(error, direction, weighted, alpha)
    return _Fit(alpha, spread, left / whole if whole > 0 else 1.0)


def _spread(error: Floats, direction: Floats, variances: Floats, alpha: float) -> float:
    """Return the standard error of a strength, from what it leaves over at each element.

    Each residual counts as if the fit had been made without its element (HC3, MacKinnon and White 1985), so that a few
    elements that decide all are no certainty.
    """
    weighted = direction / variances
    norm = float(weighted @ direction)
    if norm <= 0:
        return math.inf
    leverage = weighted * direction / norm
    residual = (error - alpha * direction) / np.maximum(1 - leverage, 1e-12)
    return float(np.sqrt(np.square(weighted * residual).sum())) / norm


def _stands_out(error: Floats, signature: Signature, variances: Floats, contract: str) -> bool:
    """Say whether all of a fault is in an error beside something larger."""
    alpha = strength(error, signature.direction, variances)
    near = abs(alpha - 1) <= max(_NEAR_ONE, 4 * signature.errors[contract])
    return near and _spread(error, signature.direction, variances, alpha) <= _SPREAD


def _named(error: Floats, variances: Floats, signatures: list[Signature], contract: str) -> list[Diagnosis]:
    """Return what fits best, and what fits as well."""
    fits = sorted(((_fit(error, s, variances), s) for s in signatures), key=lambda fit: fit[0].left)
    certain = [(fit, s) for fit, s in fits if abs(fit.strength - 1) <= max(_NEAR_ONE, 4 * s.errors.get(contract, 0.0))]
    told = certain or fits
    limit = _AS_GOOD * max(told[0][0].left, _LEAST_LEFT) if certain else math.inf
    found = []
    for fit, signature in told[:_MOST_NAMES]:
        if fit.left <= limit:
            sd = max(signature.errors.get(contract, 0.0), fit.spread)
            text = f"{signature.text} (strength {fit.strength:.2f} ± {max(sd, 0.005):.1g}, where 1 is all of it)"
            found.append(Diagnosis(signature.fault, fit.strength, sd, text, explained=1 - fit.left))
    return found
