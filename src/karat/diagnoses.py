"""Says what a wrong output is: a catalogued fault, a simple change of the right one, or a lower precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from karat import formats, noise
from karat.candidates import Request
from karat.compare import Floats, Predicted
from karat.exchange import Outputs
from karat.hypotheses import coarser_format, diagnose
from karat.patterns import explain_pattern
from karat.precisions import Errors, lost_precision, other_formula
from karat.questions import Diagnosis, Question
from karat.signatures import clear_of_zero, found_in_mismatch, found_in_noise, strength
from karat.suites import Checkpoint
from karat.tolerances import Contract, Limits, Tolerance, Tolerances
from karat.verdicts import Test, Verdict

_CERTAIN = 0.99
"""Part of the error from which on a catalogued fault is the whole story: where it shows is no news then."""
_NEAR_ONE = 0.15
_MOST = 0.75
"""Part of an axis from which on it is no place that a mistake is confined to: a softmax of one term is right."""
_MOST_NAMES = 3
_LEAST_FINITE = 16
"""Fewest elements, finite on both sides, that are looked at where others are not."""
_OF_PLACES = ("zeros", "part")
_OF_ALL = ("scale", "offset")
DESCRIBED = ("factors", "formula")
"""What says how a wrong array differs from the right one, and leaves open what the mistake is."""
_LEAVES_ROOM = (*_OF_PLACES, "grid", "leak", "factors")
"""Simple changes beside which a catalogued fault is told, too: what many factors explain, it may explain better."""


def find_fault(
    request: Request, checkpoint: Checkpoint, outcome: Outputs, tolerances: Tolerances, verdict: Verdict
) -> Verdict:
    """Return the verdict on an output within tolerance after the test for the signatures of faults."""
    rule, limits = tolerances.signatures, verdict.tolerance
    if rule is None or not isinstance(limits, Limits) or not checkpoint.floating:
        return verdict
    signatures = request.goldens.signatures(request.case.name, checkpoint.name)
    if not signatures:
        return verdict
    error, variances = _error_and_variances(request, checkpoint, outcome, limits)
    largest, found = found_in_noise(error, variances, signatures, request.contract.name, rule)
    tests = (*verdict.tests, Test("signature", largest, rule.strength))
    return replace(verdict, tests=tests, status="fault" if found else verdict.status, diagnosis=tuple(found))


def absent_faults(request: Request, verdict: Verdict, outcome: Outputs, tolerances: Tolerances) -> set[str]:
    """Return the catalogued faults that a checkpoint would show, and that, having passed, it does not."""
    rule, limits = tolerances.signatures, verdict.tolerance
    checkpoint = request.case.checkpoint(verdict.checkpoint)
    if verdict.status != "pass" or rule is None or not isinstance(limits, Limits) or not checkpoint.floating:
        return set()
    signatures = request.goldens.signatures(request.case.name, checkpoint.name)
    seen = [signature for signature in signatures if signature.visible(request.contract.name, rule)]
    if not seen:
        return set()
    error, variances = _error_and_variances(request, checkpoint, outcome, limits)
    variances = clear_of_zero(variances)
    return {signature.fault for signature in seen if strength(error, signature.direction, variances) <= rule.strength}


def doubted(found: Sequence[Diagnosis], spared: Mapping[str, str]) -> tuple[Diagnosis, ...]:
    """Return what was found with those faults last that would have changed what passed too, which is said of them.

    A candidate may have made such a mistake in one place of several; what speaks for it alone is likelier.

    Args:
        found: the likeliest first.
        spared: by fault, a checkpoint that passed and does not show it.
    """
    told = [
        replace(diagnosis, spared=place, text=f"{diagnosis.text}, though {place}, which it changes too, passed")
        if (place := spared.get(diagnosis.fault, ""))
        else diagnosis
        for diagnosis in found
    ]
    return tuple(sorted(told, key=lambda diagnosis: bool(diagnosis.spared)))


def explain(request: Request, verdict: Verdict, outcome: Outputs, tolerances: Tolerances) -> tuple[Diagnosis, ...]:
    """Return what a wrong output turns out to be, the likeliest first, and nothing if nobody knows."""
    if verdict.statistics is None:
        return ()
    if verdict.status == "mismatch":
        return explain_mismatch(request, verdict, outcome, tolerances)
    if verdict.status != "nonfinite":
        return ()
    checkpoint = request.case.checkpoint(verdict.checkpoint)
    golden = request.goldens.golden(request.case.name, checkpoint.name).astype(np.float64)
    candidate = outcome.tensors[checkpoint.name].load()[checkpoint.kept_index].astype(np.float64)
    judged = request.case.judged_elements(checkpoint, request.arrays)
    everywhere = np.broadcast_to(True if judged is None else judged, golden.shape)
    pattern = explain_pattern(candidate, golden, everywhere, checkpoint.axes)
    return (*pattern, *_of_finite(request, verdict, outcome))


def _of_finite(request: Request, verdict: Verdict, outcome: Outputs) -> list[Diagnosis]:
    """Return what the elements are that are finite on both sides, where they are wrong too, and alike."""
    statistics, limits = verdict.statistics, verdict.tolerance
    if statistics is None or limits is None or statistics.mismatched == statistics.nonfinite:
        return []
    question = _question(request, verdict, limits, outcome)
    both = question.judged & np.isfinite(question.candidate) & np.isfinite(question.golden)
    if np.count_nonzero(both) < _LEAST_FINITE:
        return []
    candidate, golden = (np.where(both, array, 0) for array in (question.candidate, question.golden))
    found = diagnose(replace(question, candidate=candidate, golden=golden, judged=both, others={}))
    return [
        replace(diagnosis, text=f"what is finite on both sides {diagnosis.text}")
        for diagnosis in found
        if diagnosis.fault in _OF_ALL
    ]


def explain_later(request: Request, verdict: Verdict, outcome: Outputs, tolerances: Tolerances) -> list[Diagnosis]:
    """Return the catalogued faults that an output after the first divergence is: each explains all of its error."""
    checkpoint, rule = request.case.checkpoint(verdict.checkpoint), tolerances.signatures
    if verdict.status != "mismatch" or verdict.statistics is None or rule is None:
        return []
    if not checkpoint.floating:
        found = list(_integer_faults(request, checkpoint, outcome))
    elif verdict.tolerance is None:
        return []
    else:
        catalogued = _catalogued(request, checkpoint, outcome, verdict.tolerance, tolerances)
        found = [fault for fault in catalogued if fault.explained >= rule.explained]
    said = f", by what it does to {checkpoint.name}"
    return [replace(fault, text=fault.text + said, at=checkpoint.name) for fault in found]


def most_telling(found: Sequence[Diagnosis], outputs: Sequence[str]) -> list[Diagnosis]:
    """Return each fault that was found at some checkpoint once, the likeliest first.

    At the checkpoints `outputs` every fault that shows there is known, elsewhere only those that show there first.
    """
    best: dict[str, Diagnosis] = {}
    for diagnosis in sorted(found, key=lambda entry: (entry.at not in outputs, -entry.explained)):
        best.setdefault(diagnosis.fault, diagnosis)
    return list(best.values())[:_MOST_NAMES]


def explain_mismatch(
    request: Request, verdict: Verdict, outcome: Outputs, tolerances: Tolerances
) -> tuple[Diagnosis, ...]:
    """Return what an output beyond tolerance turns out to be, the likeliest first, and nothing if nobody knows."""
    checkpoint = request.case.checkpoint(verdict.checkpoint)
    limits = verdict.tolerance
    if not checkpoint.floating:
        return _integer_faults(request, checkpoint, outcome)
    if limits is None:
        return ()
    found = _catalogued(request, checkpoint, outcome, limits, tolerances)
    certain = bool(found) and found[0].explained >= _CERTAIN
    question = _question(request, verdict, limits, outcome)
    simple = diagnose(question)
    if certain:
        simple = [other for other in simple if other.fault not in _OF_PLACES]
    elif tolerances.signatures is not None and any(_of_all(other) for other in simple):  # all is explained
        found = [fault for fault in found if fault.explained >= tolerances.signatures.explained and _is_whole(fault)]
    found += _gain(verdict) + simple
    if isinstance(limits, Limits) and all(other.fault == "grid" or _is_most(other) for other in found):
        errors, grid = _errors(request, checkpoint, outcome, limits), coarser_format(question) or ""
        places = [other for other in found if _is_most(other)]
        known = [other for other in found if not _is_most(other)]
        with np.errstate(over="ignore"):
            lost = lost_precision(errors, request.contract, limits, grid)
            found = [*known, *([] if grid else other_formula(errors)), *lost, *places]
    return tuple(found)


def _of_all(simple: Diagnosis) -> bool:
    """Say whether a simple change tells of every element what it is, by a number or two."""
    return simple.fault not in _LEAVES_ROOM or (simple.fault == "zeros" and simple.strength == 1)


def _is_most(simple: Diagnosis) -> bool:
    """Say whether all that is known is that most of an axis is wrong."""
    return simple.fault == "part" and simple.strength > _MOST


def _is_whole(fault: Diagnosis) -> bool:
    """Say whether a candidate has all of a fault, no more and no less: else its direction only resembles the error."""
    return abs(fault.strength - 1) <= max(_NEAR_ONE, 4 * fault.uncertainty)


def _catalogued(
    request: Request, checkpoint: Checkpoint, outcome: Outputs, limits: Tolerance | Limits, tolerances: Tolerances
) -> list[Diagnosis]:
    """Return the catalogued faults that an output beyond tolerance may have."""
    rule = tolerances.signatures
    if not isinstance(limits, Limits) or rule is None:
        return []
    error, variances = _error_and_variances(request, checkpoint, outcome, limits)
    signatures = request.goldens.signatures(request.case.name, checkpoint.name)
    return found_in_mismatch(error, variances, signatures, request.contract.name, rule)


def _question(request: Request, verdict: Verdict, limits: Tolerance | Limits, outcome: Outputs) -> Question:
    checkpoint = request.case.checkpoint(verdict.checkpoint)
    golden, judged = _golden(request, checkpoint), _judged(request, checkpoint)
    rtol, atol = _flat(request, verdict, limits, golden, judged)
    question = Question(
        candidate=_candidate(request, checkpoint, outcome),
        golden=golden,
        judged=judged,
        rtol=rtol,
        atol=atol,
        axes=checkpoint.axes,
        others={
            other.name: _golden(request, other)
            for other in request.case.checkpoints
            if other.kept_shape == checkpoint.kept_shape and other.name != checkpoint.name
        },
        storage=request.contract.storage,
        exact_zeros=checkpoint.exact_zeros,
    )
    if isinstance(limits, Tolerance):
        return question
    sigma = np.sqrt(noise.variance(_predicted(request, checkpoint, request.contract, limits), golden))
    return replace(question, sigma=sigma, rms_sigma=limits.rms_sigma, max_sigma=limits.max_sigma)


def _integer_faults(request: Request, checkpoint: Checkpoint, outcome: Outputs) -> tuple[Diagnosis, ...]:
    """Return the faults that give just these wrong integers."""
    golden = request.goldens.golden(request.case.name, checkpoint.name)
    candidate = outcome.tensors[checkpoint.name].load()[checkpoint.kept_index]
    difference = (candidate.astype(np.float64) - golden)[_judged(request, checkpoint)]
    return tuple(
        Diagnosis(signature.fault, 1.0, 0.0, f"{signature.text} (the integers are just those)", explained=1.0)
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


def _golden(request: Request, checkpoint: Checkpoint) -> Floats:
    """Return the golden, 0 where it is not finite, which is judged by its place."""
    golden = request.goldens.golden(request.case.name, checkpoint.name).astype(np.float64)
    return np.where(np.isfinite(golden), golden, 0) if checkpoint.nonfinite else golden


def _candidate(request: Request, checkpoint: Checkpoint, outcome: Outputs) -> Floats:
    """Return what the candidate left of what is kept, 0 where the golden is not finite."""
    found = outcome.tensors[checkpoint.name].load()[checkpoint.kept_index].astype(np.float64)
    if not checkpoint.nonfinite:
        return found
    return np.where(np.isfinite(request.goldens.golden(request.case.name, checkpoint.name)), found, 0)


def _judged(request: Request, checkpoint: Checkpoint) -> NDArray[np.bool_]:
    """Return where the golden is judged by its value, boolean, of its shape."""
    judged = request.case.judged_elements(checkpoint, request.arrays)
    everywhere = np.broadcast_to(True if judged is None else judged, checkpoint.kept_shape)
    if not checkpoint.nonfinite:
        return everywhere
    finite: NDArray[np.bool_] = np.isfinite(request.goldens.golden(request.case.name, checkpoint.name))
    return everywhere & finite


def _predicted(request: Request, checkpoint: Checkpoint, contract: Contract, limits: Limits) -> Predicted:
    return noise.prediction(request.goldens.scales(request.case.name, checkpoint.name), contract, limits.max_sigma)


def _error_and_variances(
    request: Request, checkpoint: Checkpoint, outcome: Outputs, limits: Limits
) -> tuple[Floats, Floats]:
    """Return candidate - golden and sigma^2 of the judged elements, shape (n,) each."""
    golden, judged = _golden(request, checkpoint), _judged(request, checkpoint)
    candidate = _candidate(request, checkpoint, outcome)
    predicted = _predicted(request, checkpoint, request.contract, limits)
    return (candidate - golden)[judged], noise.variance(predicted, golden)[judged]


def _errors(request: Request, checkpoint: Checkpoint, outcome: Outputs, limits: Limits) -> Errors:
    """Return the errors of the judged elements with all that is known of them; a right 0 tells nothing of precision."""
    judged, scales = _judged(request, checkpoint), request.goldens.scales(request.case.name, checkpoint.name)
    error, variances = _error_and_variances(request, checkpoint, outcome, limits)
    golden = _golden(request, checkpoint)[judged]
    kept = (error != 0) | (golden != 0)
    known = {kind: scale.values()[judged][kept] for kind, scale in scales.items()}
    return Errors(error[kept], variances[kept], golden[kept], known)


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
