"""Noise scales: how far each element of a golden may be off, by a contract's number formats and the computation.

A replay of the float64 reference in which every rounding is random gives, per unit roundoff, the standard deviation of
each element: R of rounding each operation's result to storage, A of what happens inside operations in the accumulation
format, P of rounding the operands of matrix products. A contract with the unit roundoffs u, a and p predicts

    sigma^2 = (u R)^2 + (a A)^2 + (p P)^2 + (spacing of its subnormals)^2 / 3,

where R^2 holds |golden|^2 / 3 for the last rounding, uniform over a unit in the last place at worst.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import formats
from karat.compare import Floats, Predicted, Scale
from karat.tolerances import Contract

KINDS = ("rounding", "accumulation", "products")
DRAWS = 24
"""A standard deviation from n normal draws is known to 1 / sqrt(2 n): 14 %."""

_ENOUGH = 16

# s(c) of karat.compare.Scale, and of a signed code
_STEPS = np.array([c if c < 4 else (4 + c % 4) * 2.0 ** (c // 4 - 1) for c in range(256)])
_SIGNED_STEPS = np.array([c if c < 8 else (8 + c % 8) * 2.0 ** (c // 8 - 1) for c in range(128)])


def encode(values: Floats) -> Scale:
    """Return non-negative values as a `Scale`: within 12 % of each, 5 % on average, and never 0 for what is not 0.

    The largest 18 decades are resolved; what is smaller becomes the smallest number above 0 that there is.
    """
    top = float(values.max(initial=0.0))
    if top == 0:
        return Scale(np.zeros(values.shape, np.uint8), 0.0)
    codes = _nearest(values / top, _STEPS)
    return Scale(np.where(values > 0, np.maximum(codes, 1), 0).astype(np.uint8), top)


def encode_signed(values: Floats) -> tuple[NDArray[np.int8], float]:
    """Return values as signed codes of one byte and what code 127 stands for: within 6 % over 4.5 decades, else 0."""
    top = float(np.abs(values).max(initial=0.0))
    if top == 0:
        return np.zeros(values.shape, np.int8), 0.0
    codes = _nearest(np.abs(values) / top, _SIGNED_STEPS)
    return (np.sign(values) * codes).astype(np.int8), top


def decode_signed(codes: NDArray[np.int8], top: float) -> Floats:
    """Return what `encode_signed` was given, float64."""
    steps = _SIGNED_STEPS * (top / _SIGNED_STEPS[-1])
    return np.asarray(np.sign(codes) * steps[np.abs(codes.astype(np.int16))])


def _nearest(parts: Floats, steps: Floats) -> NDArray[np.intp]:
    """Return the codes whose steps, as parts of the last one, are nearest to `parts`."""
    middles = (steps[1:] + steps[:-1]) / 2
    return np.asarray(np.searchsorted(middles, parts * steps[-1]))


def unit_roundoffs(contract: Contract) -> dict[str, float]:
    """Return by kind the unit roundoff with which a contract scales its noise, 0 where it adds none."""
    accumulation = formats.lookup(contract.accumulation).unit_roundoff
    inner = accumulation if contract.once else formats.lookup(contract.storage).unit_roundoff
    products = formats.PRODUCT_FORMATS[contract.products]
    return {"rounding": inner, "accumulation": accumulation, "products": products if products > inner else 0.0}


def kinds_needed(contracts: Sequence[Contract]) -> list[str]:
    """Return the kinds of noise that these contracts have."""
    return [kind for kind in KINDS if any(unit_roundoffs(contract)[kind] for contract in contracts)]


def last_rounding(contract: Contract) -> tuple[float, float]:
    """Return relative and absolute standard deviation of rounding to storage, per golden and among its subnormals."""
    storage = formats.lookup(contract.storage)
    return storage.unit_roundoff / math.sqrt(3), max(storage.smallest, 1e-150) / math.sqrt(3)


def prediction(scales: Mapping[str, Scale], contract: Contract, max_sigma: float) -> Predicted:
    """Return what `contract` allows a golden with these noise scales; raise `KeyError` where a kind is missing."""
    units = unit_roundoffs(contract)
    scaled = tuple(Scale(scales[kind].codes, units[kind] * scales[kind].top) for kind in KINDS if units[kind])
    relative, floor = last_rounding(contract)
    if not contract.once:
        return Predicted(scaled, max_sigma, floor=floor)
    inner = max(formats.lookup(contract.accumulation).smallest, 1e-150) / math.sqrt(3)
    interval = formats.rounding_intervals(contract.storage)
    return Predicted(scaled, max_sigma, floor=inner, interval=interval, last_relative=relative, last_floor=floor)


def variance(predicted: Predicted, golden: Floats) -> Floats:
    """Return sigma^2 of each element of a candidate's value, the last rounding included."""
    total = np.full(golden.shape, predicted.floor**2 + predicted.last_floor**2)
    for scale in predicted.scales:
        total += np.square(scale.values())
    return total + np.square(predicted.last_relative * golden)


def error_along(
    direction: Floats, variances: Floats, golden: Floats, draws: Mapping[str, Floats], contract: Contract
) -> float:
    """Return the standard deviation that noise gives to the strength of a direction.

    The strength of d in an error e is its matched filter, the least-squares alpha of e = alpha d:
    alpha = sum(e d / sigma^2) / sum(d d / sigma^2).

    Args:
        direction: d, shape (n,).
        variances: sigma^2, shape (n,).
        golden: shape (n,).
        draws: by kind, draws of the error per unit roundoff, shape (draws, n).
        contract: says how much of each kind there is.
    """
    largest = float(np.abs(direction).max(initial=0.0)) or 1.0  # lest squares of more than 1e154 overflow
    direction = direction / largest
    weighted = direction / variances
    norm = float(weighted @ direction)
    if norm == 0:
        return math.inf
    relative, floor = last_rounding(contract)
    total = float(np.square(weighted) @ (np.square(relative * golden) + floor**2))
    for kind, unit in unit_roundoffs(contract).items():
        if unit:
            total += unit**2 * float(np.mean(np.square(draws[kind] @ weighted)))
    return math.sqrt(total) / norm / largest


def precision(draws: NDArray[Any]) -> float:
    """Return how well the RMS of `draws` (draws, n) is known, relative: from the two halves of the draws.

    The logarithms of two independent halves' RMS differ with twice the standard deviation of the whole's. Of less than
    16 elements, too few to tell, 0.
    """
    halves = [np.sqrt(np.mean(np.square(half), axis=0)) for half in np.array_split(draws, 2)]
    known = (halves[0] > 0) & (halves[1] > 0)
    if np.count_nonzero(known) < _ENOUGH:
        return 0.0
    difference = np.log(halves[0][known] / halves[1][known])
    return float(np.sqrt(np.mean(np.square(difference)))) / 2
