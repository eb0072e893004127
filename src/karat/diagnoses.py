"""Says what a wrong output is: a catalogued fault, a simple change of the right one, or a lower precision."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import formats, noise
from karat.candidates import Request
from karat.compare import Floats, Predicted, compare
from karat.exchange import Outputs
from karat.hypotheses import Diagnosis, Question, diagnose
from karat.signatures import found_in_mismatch, found_in_noise
from karat.suites import Checkpoint
from karat.tolerances import Contract, Limits, Tolerance, Tolerances
from karat.verdicts import Test, Verdict

_LEAST_SIZE = 0.25
"""Least root mean square in sigma of errors that are of a precision, not of a mistake."""


def find_fault(
    request: Request, checkpoint: Checkpoint, outcome: Outputs, tolerances: Tolerances, verdict: Verdict
) -> Verdict:
    """Return the verdict on an output within tolerance after the test for the signatures of faults."""
    rule, limits = tolerances.signatures, verdict.tolerance
    if rule is None or not isinstance(limits, Limits) or checkpoint.dtype != "storage":
        return verdict
    signatures = request.goldens.signatures(request.case.name, checkpoint.name)
    if not signatures:
        return verdict
    error, variances = _error_and_variances(request, checkpoint, outcome, limits)
    largest, found = found_in_noise(error, variances, signatures, request.contract.name, rule)
    tests = (*verdict.tests, Test("signature", largest, rule.strength))
    return replace(verdict, tests=tests, status="fault" if found else verdict.status, diagnosis=tuple(found))


def explain_mismatch(
    request: Request, verdict: Verdict, outcome: Outputs, tolerances: Tolerances
) -> tuple[Diagnosis, ...]:
    """Return what an output beyond tolerance turns out to be, the likeliest first, and nothing if nobody knows."""
    checkpoint = request.case.checkpoint(verdict.checkpoint)
    limits, rule = verdict.tolerance, tolerances.signatures
    if checkpoint.dtype != "storage":
        return _integer_faults(request, checkpoint, outcome)
    if limits is None:
        return ()
    golden = request.goldens.golden(request.case.name, checkpoint.name).astype(np.float64)
    candidate = outcome.tensors[checkpoint.name].load()[checkpoint.kept_index].astype(np.float64)
    judged = _judged(request, checkpoint)
    found: list[Diagnosis] = []
    if isinstance(limits, Limits) and rule is not None:
        error, variances = _error_and_variances(request, checkpoint, outcome, limits)
        signatures = request.goldens.signatures(request.case.name, checkpoint.name)
        found += found_in_mismatch(error, variances, signatures, request.contract.name, rule)
    found += _gain(verdict)
    rtol, atol = _flat(request, verdict, limits, golden, judged)
    others = {
        other.name: request.goldens.golden(request.case.name, other.name)
        for other in request.case.checkpoints
        if other.kept_shape == checkpoint.kept_shape and other.name != checkpoint.name
    }
    question = Question(
        candidate=candidate,
        golden=golden,
        judged=judged,
        rtol=rtol,
        atol=atol,
        axes=checkpoint.axes,
        others=others,
        storage=request.contract.storage,
        exact_zeros=checkpoint.exact_zeros,
    )
    found += diagnose(question)
    if isinstance(limits, Limits) and not any(other.fault not in ("part", "grid") for other in found):
        found += _downgrade(request, checkpoint, candidate, golden, judged, limits, tolerances)
    return tuple(found)


def _integer_faults(request: Request, checkpoint: Checkpoint, outcome: Outputs) -> tuple[Diagnosis, ...]:
    """Return the faults that give just these wrong integers."""
    golden = request.goldens.golden(request.case.name, checkpoint.name)
    candidate = outcome.tensors[checkpoint.name].load()[checkpoint.kept_index]
    difference = (candidate.astype(np.float64) - golden)[_judged(request, checkpoint)]
    return tuple(
        Diagnosis(signature.fault, 1.0, 0.0, f"{signature.text} (the integers are just those)")
        for signature in request.goldens.signatures(request.case.name, checkpoint.name)
        if np.array_equal(signature.direction, difference)
    )


def _gain(verdict: Verdict) -> list[Diagnosis]:
    """Find a factor so near to 1 that no element is beyond its limit."""
    tests, statistics = {test.name: test for test in verdict.tests}, verdict.statistics
    if statistics is None or statistics.gain is None or "gain" not in tests:
        return []
    if tests["gain"].passed or not (tests["max"].passed and tests["rms"].passed):
        return []
    error = abs(statistics.gain) / tests["gain"].value
    text = f"equals the golden × {1 + statistics.gain:.6g} ± {error:.1g}, within the noise of each element"
    return [Diagnosis("scale", 1 + statistics.gain, error, text)]


def _judged(request: Request, checkpoint: Checkpoint) -> NDArray[np.bool_]:
    judged = request.case.judged_elements(checkpoint, request.arrays)
    return np.broadcast_to(True if judged is None else judged, checkpoint.kept_shape)


def _predicted(request: Request, checkpoint: Checkpoint, contract: Contract, limits: Limits) -> Predicted:
    return noise.prediction(request.goldens.scales(request.case.name, checkpoint.name), contract, limits.max_sigma)


def _error_and_variances(
    request: Request, checkpoint: Checkpoint, outcome: Outputs, limits: Limits
) -> tuple[Floats, Floats]:
    """Return candidate - golden and sigma^2 of the judged elements, shape (n,) each."""
    golden = request.goldens.golden(request.case.name, checkpoint.name)
    judged = _judged(request, checkpoint)
    candidate = outcome.tensors[checkpoint.name].load()[checkpoint.kept_index].astype(np.float64)
    predicted = _predicted(request, checkpoint, request.contract, limits)
    return (candidate - golden)[judged], noise.variance(predicted, golden)[judged]


def _flat(
    request: Request, verdict: Verdict, row: Tolerance | Limits, golden: Floats, judged: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return a relative and an absolute tolerance for values that need not stand where the golden has them."""
    if isinstance(row, Tolerance):
        return row.rtol, row.atol_rms * verdict.rms
    checkpoint = request.case.checkpoint(verdict.checkpoint)
    variances = noise.variance(_predicted(request, checkpoint, request.contract, row), golden)[judged]
    unit = formats.lookup(request.contract.storage).unit_roundoff
    return row.max_sigma * unit, row.max_sigma * math.sqrt(float(variances.mean())) if variances.size else 0.0


# --- less than was promised ------------------------------------------------------------------------------------------


def _downgrade(
    request: Request,
    checkpoint: Checkpoint,
    candidate: NDArray[Any],
    golden: Floats,
    judged: NDArray[np.bool_],
    limits: Limits,
    tolerances: Tolerances,
) -> list[Diagnosis]:
    """Find the nearest lower precision that would allow these errors: the candidate promises more than it delivers."""
    promised = request.contract
    scales = request.goldens.scales(request.case.name, checkpoint.name)
    once = replace(noise.prediction(scales, promised, limits.max_sigma), interval=None)
    own = compare(candidate, golden, once, judged=judged)
    if not own.rms_sigma or not math.isfinite(own.rms_sigma):
        return []
    bits = formats.lookup(promised.storage).significand_bits
    effective = bits - math.log2(own.rms_sigma)
    for contract, text in lower_precisions(promised, tolerances):
        try:
            predicted = replace(noise.prediction(scales, contract, limits.max_sigma), interval=None)
        except KeyError:
            continue
        found = compare(candidate, golden, predicted, judged=judged)
        size = found.rms_sigma or 0.0
        if found.mismatched == 0 and _LEAST_SIZE <= size <= limits.rms_sigma:
            said = f"errors as of {text}"
            if not promised.once:
                said += f": about {max(effective, 0):.1f} effective bits where {bits} are promised"
            return [Diagnosis("precision", effective, 0.0, said)]
    return []


def lower_precisions(promised: Contract, tolerances: Tolerances) -> list[tuple[Contract, str]]:
    """Return contracts that allow more than `promised`, with what they are called, the nearest first."""
    unit = noise.unit_roundoffs(promised)
    found: list[tuple[float, Contract, str]] = []
    if promised.once:
        text = f"{promised.storage}, each operation rounded, where one rounding at the end is promised"
        found.append((0.0, replace(promised, name="", rounding="each operation"), text))
    for name, entry in formats.FORMATS.items():
        if unit["accumulation"] < entry.unit_roundoff:
            text = f"sums accumulated in {name}"
            found.append((entry.unit_roundoff, replace(promised, name="", accumulation=name), text))
    for contract in tolerances.contracts.values():
        other = noise.unit_roundoffs(contract)
        if not contract.once and max(other.values()) > max(unit.values()):
            found.append((max(other.values()), contract, contract.name))
    return [(contract, text) for _, contract, text in sorted(found, key=lambda item: item[0])]
