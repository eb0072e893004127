"""Says whether errors are of a precision lower than the one promised, or follow the golden as those of a formula do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from karat import formats, noise
from karat.compare import Floats
from karat.questions import Diagnosis
from karat.signatures import clear_of_zero
from karat.tolerances import Contract, Limits

_LEAST_SIZE = {"products": 0.35, "accumulation": 0.13, "rounding": 0.2}
"""Least root mean square, in sigma of a lower precision, of errors that are called that.

Rounding the operands of products makes 0.7 to 1.1; sums make 0.14 to 3.3, by their order and the numbers at hand, so
that two formats 8 times apart may both be told; rounding results 0.3 to 1.3.
"""
_LEAST_MEDIAN = 0.2
"""Least median of |error| in sigma, of their root mean square: it is 0.67 of normal errors, 0 where few are wrong."""
_COARSEST = 2.0**-8
"""Unit roundoff of the coarsest format that is used unawares: float8 is named where every value is a number of it, or
in products where 16 bits are promised and nothing finer fits as well. Otherwise errors as large as that are a mistake.
"""
_LEAST_ELEMENTS = 16
"""Fewest errors of which one can say that they are random."""
_LEAST_CHANGES = 0.25
"""Least part of neighbouring errors that differ in sign; half of random ones do."""
_IN_ORDER = 1 << 9
"""Errors that are looked at in the order of their goldens, evenly spaced: within one number of a coarse format the
error of rounding follows the golden too, so not too many."""
_MOST_CHANGES = 0.35
_STANDARD_ERRORS = 5.0
"""Largest part of neighbours in that order that differ in sign where errors follow the golden, and by how many standard
errors, 1 / (2 sqrt(n)), it must be less than a half: of another GELU, or another eps of a layer norm, 0 to 0.3 do.
"""
_FEWEST_CHANGES = 0.15
"""The least part of them that differs in sign where the errors may be of rounding that is shared, or goes one way."""
_LEAST_CORRELATION = 0.8
"""Least correlation of a candidate with its golden: the error of what has nothing to do with it follows it, too."""
_AS_LIKELY = 0.02
"""Precisions whose patterns fit the errors as well as this, in log likelihood an element, are told together: it is 0.05
or more between products and sums, and nearly 0 between sums and results."""


@dataclass(frozen=True)
class Errors:
    """The errors of the elements of a wrong array that are judged, n of them.

    Attributes:
        values: candidate - golden, shape (n,).
        variances: sigma^2 of each as promised, shape (n,).
        golden: shape (n,).
        scales: by kind of rounding the noise scales, shape (n,) each; of those kinds that are known.
    """

    values: Floats
    variances: Floats
    golden: Floats
    scales: Mapping[str, Floats]

    @cached_property
    def alike(self) -> float:
        """How many of the errors whose goldens are neighbours in value have one sign, 0 where it may be chance.

        Of equal goldens, whose errors may be equal too, one counts.
        """
        wrong = np.flatnonzero(self.values)
        _, first = np.unique(self.golden[wrong].astype(np.float32), return_index=True)
        if first.size < _LEAST_ELEMENTS:
            return 0.0
        spaced = np.linspace(0, first.size - 1, min(first.size, _IN_ORDER)).astype(np.intp)
        alike = 1 - _changes(np.sign(self.values[wrong[first[spaced]]]))
        by_chance = 0.5 + _STANDARD_ERRORS * 0.5 * spaced.size**-0.5
        return alike if alike >= max(1 - _MOST_CHANGES, by_chance) else 0.0


@dataclass(frozen=True)
class Lower:
    """A precision lower than the one promised.

    Attributes:
        text: what it is called.
        kind: `products`, `accumulation` or `rounding`: what is rounded more coarsely.
        storage: the format of which every value is a number where results are rounded to it.
        unit: its unit roundoff.
    """

    text: str
    kind: str
    storage: str
    unit: float

    def used_unawares(self, promised: Contract) -> bool:
        """Say whether a candidate may compute in it without its values showing it."""
        few_bits = formats.lookup(promised.storage).dtype.itemsize <= 2  # so products may well be in fewer
        return self.unit <= _COARSEST or (self.kind == "products" and few_bits)


def lower_precisions(promised: Contract) -> list[Lower]:
    """Return the precisions that allow more than `promised`, by kind the likelier kind first, the nearest first."""
    unit = noise.unit_roundoffs(promised)
    factors = {"tfloat32": "tfloat32 or float16"} | {name: name for name in formats.FORMATS if name != "float16"}
    found = [
        Lower(f"matrix products in {text}", "products", "", formats.PRODUCT_FORMATS[name])
        for name, text in factors.items()
        if formats.PRODUCT_FORMATS[name] > max(unit["rounding"], unit["products"])
    ]
    found += [
        Lower(f"sums accumulated in {name}", "accumulation", "", entry.unit_roundoff)
        for name, entry in formats.FORMATS.items()
        if entry.unit_roundoff > unit["accumulation"] and not name.startswith("float8")  # in which nobody adds
    ]
    once = ", where one rounding at the end is promised"  # and the format may be the one promised
    found += [
        Lower(f"rounding to {name} after each operation{once * promised.once}", "rounding", name, entry.unit_roundoff)
        for name, entry in formats.FORMATS.items()
        if entry.unit_roundoff > unit["rounding"]
    ]
    return found


def lost_precision(errors: Errors, promised: Contract, limits: Limits, grid: str) -> list[Diagnosis]:
    """Find the lower precisions that make errors of this size and pattern, named in one line.

    A loss of precision is everywhere, and its errors are as often of one sign as of the other, wherever they stand.

    Args:
        errors: what is wrong.
        promised: the contract.
        limits: what it allows, in sigma.
        grid: the format of which every value turned out to be a number, else empty.
    """
    if errors.alike > 1 - _FEWEST_CHANGES:
        return []
    fits = []
    for lower in lower_precisions(promised):
        wanted = lower.storage == grid if grid else lower.used_unawares(promised)
        if not wanted or lower.kind not in errors.scales:
            continue
        predicted = errors.variances + np.square(lower.unit * errors.scales[lower.kind])
        z = errors.values / np.sqrt(clear_of_zero(predicted))
        size = _rms(z)
        fitting = _LEAST_SIZE[lower.kind] <= size <= limits.rms_sigma and float(np.abs(z).max()) <= limits.max_sigma
        if fitting and _is_everywhere(z) and _is_random(z):
            fits.append((_misfit(predicted, size), lower))
    if not fits:
        return []
    best = min(misfit for misfit, _ in fits)
    likely = [lower for misfit, lower in fits if misfit <= best + _AS_LIKELY]
    likely = [lower for lower in likely if lower.unit <= _COARSEST] or likely
    inside = [lower for lower in likely if lower.kind != "rounding"]  # whose values are numbers of no coarse format
    texts = [lower.text for lower in (inside if inside and not grid else likely)]
    said = f"errors as of {', or of '.join(texts)}"
    bits = formats.lookup(promised.storage).significand_bits
    effective = bits - 0.5 * math.log2(float(np.mean(np.square(errors.values) / clear_of_zero(errors.variances))))
    if not promised.once:
        said += f": about {max(effective, 0):.1f} effective bits where {bits} are promised"
    return [Diagnosis("precision", effective, 0.0, said)]


def other_formula(errors: Errors) -> list[Diagnosis]:
    """Find errors that are everywhere and follow the golden's values.

    Those of another formula or constant do. Those of rounding do not, but where many elements share what was rounded,
    or where it goes one way: then a lower precision may fit them, too.
    """
    if not errors.alike or np.count_nonzero(errors.values) < errors.values.size / 2 or not _is_related(errors):
        return []
    said = f"errors follow the golden's values: {errors.alike:.0%} of neighbours in value err to the same side, of"
    said += " random ones half; as of another formula or constant, or of rounding what many share"
    return [Diagnosis("formula", errors.alike, 0.0, said)]


def _rms(z: Floats) -> float:
    return float(np.sqrt(np.square(z).mean())) if z.size else 0.0


def _is_everywhere(z: Floats) -> bool:
    """Say whether errors in sigma are of one size, not a few large ones: half of them near their root mean square."""
    return z.size > 0 and float(np.median(np.abs(z))) >= _LEAST_MEDIAN * _rms(z)


def _is_random(z: Floats) -> bool:
    """Say whether neighbours' errors have signs of their own: those of another formula change slowly."""
    signs = np.sign(z[z != 0])
    return signs.size >= _LEAST_ELEMENTS and _changes(signs) >= _LEAST_CHANGES


def _changes(signs: Floats) -> float:
    """Return the part of neighbours that differ."""
    return float(np.mean(signs[1:] != signs[:-1]))


def _is_related(errors: Errors) -> bool:
    """Say whether the candidate has to do with its golden."""
    golden = errors.golden - errors.golden.mean()
    candidate = golden + errors.values - errors.values.mean()
    size = _rms(candidate) * _rms(golden)
    return bool(size > 0 and float(np.mean(candidate * golden)) >= _LEAST_CORRELATION * size)


def _misfit(variances: Floats, size: float) -> float:
    """Return how badly the pattern of the errors fits: -log likelihood an element of normal errors of `size` sigma."""
    return math.log(size) + 0.5 * float(np.log(clear_of_zero(variances)).mean())
