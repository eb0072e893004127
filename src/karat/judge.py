"""Judges what a candidate left at the checkpoints of a case."""

from __future__ import annotations

import contextlib
import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import formats, noise
from karat.candidates import Failure, Request
from karat.compare import Flat, Predicted, Statistics, compare
from karat.diagnoses import DESCRIBED, absent_faults, doubted, explain, explain_later, find_fault, most_telling
from karat.errors import CandidateError, GoldenError
from karat.exact import compare_exactly, tied_indices
from karat.exchange import Outputs, wanted_dtype
from karat.finer import finer_text
from karat.goldens import freeze_command
from karat.patterns import kinds_text
from karat.questions import Diagnosis
from karat.suites import Checkpoint
from karat.tensors import Tensor, of_array
from karat.tolerances import Limits, Tolerance, Tolerances
from karat.verdicts import DIVERGED, STATUS_OF_KIND, Test, Verdict, blank


def judge(
    request: Request,
    outcome: Outputs | Failure,
    tolerances: Tolerances,
    blocked: Mapping[str, Verdict] | None = None,
    *,
    to_first_divergence: bool = False,
) -> list[Verdict]:
    """Return a verdict for each checkpoint of the request's case, in execution order, or up to the first divergence.

    `blocked` holds the verdicts of checkpoints whose goldens cannot be trusted: they are not judged. Faults within
    tolerance are looked for as long as nothing has diverged. What the first divergence turns out to be is told by its
    own values or, where they do not tell, by those of the later checkpoints.
    """
    blocked = blocked or {}
    verdicts: list[Verdict] = []
    first: int | None = None  # the place of the first divergence
    later: list[Diagnosis] = []
    outcome = _aligned(request, outcome)
    for checkpoint in request.case.checkpoints:
        verdict = blocked.get(checkpoint.name) or _judge_one(request, checkpoint, outcome, tolerances)
        verdicts.append(verdict)
        if not isinstance(outcome, Outputs):
            continue
        here = _request_at(request, checkpoint)
        if first is None:
            if verdict.status == "pass":
                verdicts[-1] = verdict = find_fault(here, checkpoint, outcome, tolerances, verdict)
            if verdict.status in DIVERGED:
                first = len(verdicts) - 1
                diagnosis = verdict.diagnosis or explain(here, verdict, outcome, tolerances)
                verdicts[-1] = replace(verdict, first_divergence=True, diagnosis=diagnosis)
        elif _may_lend(verdicts[first], checkpoint.name, request.suite.outputs):
            later += explain_later(here, verdict, outcome, tolerances)
        if to_first_divergence and first is not None and _tells(verdicts[first]):
            break
    if first is not None and isinstance(outcome, Outputs):
        found = (*most_telling(later, request.suite.outputs), *verdicts[first].diagnosis)
        spared = _spared(request, found, verdicts, outcome, tolerances)
        verdicts[first] = replace(verdicts[first], diagnosis=doubted(found, spared))
    return verdicts[: first + 1] if to_first_divergence and first is not None else verdicts


def _spared(
    request: Request,
    found: Sequence[Diagnosis],
    verdicts: Sequence[Verdict],
    outcome: Outputs,
    tolerances: Tolerances,
) -> dict[str, str]:
    """Return of the catalogued faults that were found which would show at a checkpoint that passed, and do not."""
    names = {diagnosis.fault for diagnosis in found if diagnosis.explained > 0}
    spared: dict[str, str] = {}
    for verdict in verdicts if names else ():
        for fault in names & absent_faults(_request_at(request, verdict), verdict, outcome, tolerances):
            spared.setdefault(fault, verdict.checkpoint)
    return spared


def _tells(first: Verdict) -> bool:
    """Say whether nothing further on can tell more of a first divergence than its own place does."""
    told = any(diagnosis.fault not in DESCRIBED for diagnosis in first.diagnosis)
    return first.status != "nonfinite" and (first.statistics is None or told)


def _may_lend(first: Verdict, later: str, outputs: Sequence[str]) -> bool:
    """Say whether a name that the checkpoint `later` gives may be that of the first divergence, which has none.

    A fault that is known to show first at a later checkpoint, or not to show at this one, has not done what is wrong in
    the values here: only where there are none may it be the answer.
    """
    if _tells(first):
        return False
    return first.status == "nonfinite" or (first.checkpoint not in outputs and later in outputs)


def _request_at(request: Request, place: Checkpoint | Verdict) -> Request:
    """Return the request with the contract that holds at a checkpoint: that of the inside for what is kept there."""
    checkpoint = request.case.checkpoint(place.checkpoint) if isinstance(place, Verdict) else place
    return replace(request, contract=request.contract.inner) if checkpoint.dtype == "accumulation" else request


def _aligned(request: Request, outcome: Outputs | Failure) -> Outputs | Failure:
    """Return the outputs with those that are right up to a sign in the sign of the golden."""
    free = [checkpoint for checkpoint in request.case.checkpoints if checkpoint.sign_free]
    if isinstance(outcome, Failure) or not free:
        return outcome
    aligned = dict(outcome.tensors)
    for checkpoint in free:
        tensor = aligned.get(checkpoint.name)
        if tensor is None or tensor.shape != checkpoint.shape:
            continue
        with contextlib.suppress(CandidateError, GoldenError, OSError, ValueError, MemoryError):  # told when judged
            array, golden = np.array(tensor.load()), request.goldens.golden(request.case.name, checkpoint.name)
            array[checkpoint.kept_index] = checkpoint.aligned(array[checkpoint.kept_index], golden)
            aligned[checkpoint.name] = of_array(array)
    return replace(outcome, tensors=aligned)


def _refusal(request: Request, checkpoint: Checkpoint, outcome: Outputs | Failure) -> Verdict:
    """Judge a case that a candidate must refuse; what it says is told."""
    if isinstance(outcome, Outputs):
        return blank(request, checkpoint, "mismatch", f"it answered, and must refuse: {request.case.refuses}")
    return blank(request, checkpoint, "pass" if outcome.refuses else outcome.status, outcome.text)


def _judge_one(  # noqa: PLR0911 - one return for each status that ends the judging
    request: Request, checkpoint: Checkpoint, outcome: Outputs | Failure, tolerances: Tolerances
) -> Verdict:
    if checkpoint.dtype == "refusal":
        return _refusal(request, checkpoint, outcome)
    if isinstance(outcome, Failure):
        return blank(request, checkpoint, outcome.status, outcome.text)
    tensor = outcome.tensors.get(checkpoint.name)
    if tensor is None:
        if any(fnmatch.fnmatchcase(checkpoint.name, pattern) for pattern in outcome.unsupported):
            return blank(request, checkpoint, "unsupported", "the candidate says that it does not provide it")
        return blank(request, checkpoint, "missing-output", _missing_text(request, checkpoint, outcome))
    if tensor.shape != checkpoint.shape:
        return blank(request, checkpoint, "shape", f"shape {tensor.shape}, wanted {checkpoint.shape}")
    if text := _wrong_dtype(request, checkpoint, tensor):
        return blank(request, checkpoint, "dtype", text)
    try:
        candidate = tensor.load()
    except (CandidateError, OSError, ValueError, MemoryError) as error:
        return blank(request, checkpoint, "crashed", f"broke the protocol: the tensor cannot be read: {error}")
    try:
        return _judge_values(request, checkpoint, candidate[checkpoint.kept_index], outcome, tolerances)
    except GoldenError as error:
        return blank(request, checkpoint, STATUS_OF_KIND.get(error.kind, "golden-stale"), str(error))


def _missing_text(request: Request, checkpoint: Checkpoint, outcome: Outputs) -> str:
    import difflib

    known = {checkpoint.name for checkpoint in request.case.checkpoints}
    spare = [name for name in outcome.tensors if name not in known]
    close = difflib.get_close_matches(checkpoint.name, spare, n=1, cutoff=0.75)
    if close:
        return f"the candidate did not produce it; it produced {close[0]!r}, which is no checkpoint"
    return f"the candidate did not produce it; it produced {len(outcome.tensors)} other tensors"


def _wrong_dtype(request: Request, checkpoint: Checkpoint, tensor: Tensor) -> str:
    found = tensor.dtype
    if checkpoint.dtype == "integer":
        return "" if found.kind in "iu" else f"dtype {found.name}, wanted integers"
    if checkpoint.dtype == "bool":
        return "" if found.kind == "b" else f"dtype {found.name}, wanted bool"
    wanted = wanted_dtype(checkpoint, request.contract)
    if found == formats.lookup(wanted).dtype:
        return ""
    if checkpoint.dtype == "accumulation":
        return f"dtype {found.name}; under the contract {request.contract.name} it is computed inside, in {wanted}"
    return f"dtype {found.name}; the contract {request.contract.name} stores in {wanted}"


def _judge_values(
    request: Request, checkpoint: Checkpoint, candidate: NDArray[Any], outcome: Outputs, tolerances: Tolerances
) -> Verdict:
    outer, request = request, _request_at(request, checkpoint)
    golden = request.goldens.golden(request.case.name, checkpoint.name)
    judged = request.case.judged_elements(checkpoint, request.arrays)
    row: Tolerance | Limits | None = None
    tests: tuple[Test, ...] = ()
    rms = float(request.goldens.goldens[request.case.name, checkpoint.judged_by or checkpoint.name]["rms"])
    note = ""
    if checkpoint.floating:
        everywhere = judged
        judged = _still_following(request, checkpoint, golden.shape, outcome, judged, tolerances)
        row, allowance = allowed(request, checkpoint.name, checkpoint.tolerance, tolerances)
        storage = formats.lookup(request.contract.storage)
        statistics = compare(
            candidate,
            golden,
            allowance,
            judged=judged,
            exact_zeros=checkpoint.exact_zeros,
            significand_bits=storage.significand_bits,
            smallest=storage.smallest,
        )
        if isinstance(row, Limits):
            tests = _tests(request, checkpoint, statistics, row)
            if judged is not everywhere:  # the noise of gain and bias was measured over all elements
                tests = tuple(test for test in tests if test.name not in ("gain", "bias"))
        if isinstance(allowance, Predicted) and statistics.max_ulp <= 1 and not statistics.mismatched:
            note = finer_text(candidate.astype(np.float64), golden, judged, allowance, request.contract)
    else:
        row, accepted = _ties(request, checkpoint, candidate, golden, tolerances)
        statistics = compare_exactly(candidate, golden, accepted=accepted, judged=judged)
    if statistics.worst is not None:
        statistics = replace(statistics, worst=_whole_index(checkpoint, statistics.worst))
    wrong = statistics.mismatched > 0 or not all(test.passed for test in tests)
    status = "nonfinite" if statistics.nonfinite else "mismatch" if wrong else "pass"
    if status == "nonfinite":
        everywhere = np.broadcast_to(True if judged is None else judged, golden.shape)
        note = kinds_text(candidate.astype(np.float64), golden, everywhere)
    elif status != "pass":
        note = ""
    return replace(blank(outer, checkpoint, status, note), statistics=statistics, tolerance=row, tests=tests, rms=rms)


def _ties(
    request: Request, checkpoint: Checkpoint, candidate: NDArray[Any], golden: NDArray[Any], tolerances: Tolerances
) -> tuple[Tolerance | Limits | None, NDArray[np.bool_] | None]:
    """Return where integers that differ from the golden's are as right, and the row of tolerances.toml that says so."""
    if checkpoint.judged_by is None:
        return None, None
    judge_of = request.case.checkpoint(checkpoint.judged_by)
    row, allowance = allowed(_request_at(request, judge_of), judge_of.name, checkpoint.tolerance, tolerances)
    values = request.goldens.golden(request.case.name, judge_of.name)
    may_err = _elementwise(allowance, values)
    return row, tied_indices(candidate, golden, values, may_err, sequential=checkpoint.sequential)


def allowed(
    request: Request, checkpoint: str, kind: str, tolerances: Tolerances
) -> tuple[Tolerance | Limits, Flat | Predicted]:
    """Return the row of tolerances.toml for a checkpoint of class `kind`, and what it allows each element there.

    Raise `GoldenError` (stale) where the row counts in sigma and the golden has no noise scales.
    """
    suite, case = request.suite.name, request.case.name
    row = tolerances.find(request.contract.name, suite, case, checkpoint, kind=kind)
    if isinstance(row, Tolerance):
        rms = float(request.goldens.goldens[case, checkpoint]["rms"])
        return row, Flat(row.rtol, row.atol_rms * rms)
    try:
        scales = request.goldens.scales(case, checkpoint)
        return row, noise.prediction(scales, request.contract, row.max_sigma)
    except KeyError as error:
        raise GoldenError(
            "stale",
            f"{suite}/{case}/{checkpoint} was frozen without the noise scale {error}, which {row.source} counts in;"
            f" write a row with rtol and atol_rms for it, or run: {freeze_command(suite)}",
        ) from None


def _elementwise(allowance: Flat | Predicted, golden: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far each element may be off, of the golden's shape."""
    if isinstance(allowance, Flat):
        return np.asarray(allowance.atol + allowance.rtol * np.abs(golden))
    return np.asarray(allowance.max_sigma * np.sqrt(noise.variance(allowance, golden)))


def _tests(request: Request, checkpoint: Checkpoint, statistics: Statistics, limits: Limits) -> tuple[Test, ...]:
    """Return the tests of one checkpoint.

    A mean over n elements may hold one that is as large as is allowed: its square is allowed max_sigma^2 / n more.
    """

    def mean_limit(limit: float, number: int) -> float:
        return math.sqrt(limit**2 + limits.max_sigma**2 / max(number, 1))

    found = [
        Test("max", statistics.max_sigma or 0.0, limits.max_sigma),
        Test("rms", _number(statistics.rms_sigma), mean_limit(limits.rms_sigma, statistics.elements)),
        Test("row", _number(statistics.row_sigma), mean_limit(limits.row_sigma, statistics.row_elements)),
    ]
    frozen = request.goldens.goldens[request.case.name, checkpoint.name]
    for name, value, limit in (
        ("gain", statistics.gain, limits.gain_sigma),
        ("bias", statistics.bias, limits.bias_sigma),
    ):
        error = frozen.get(name, {}).get(request.contract.name)
        if error:
            found.append(Test(name, abs(_number(value)) / error, limit))
    return tuple(found)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _whole_index(checkpoint: Checkpoint, index: tuple[int, ...]) -> tuple[int, ...]:
    """Turn an index of the frozen part into one of the whole checkpoint."""
    cuts = zip(index, checkpoint.kept_index, checkpoint.shape, strict=True)
    return tuple(i + range(*cut.indices(size)).start for i, cut, size in cuts)


def _still_following(
    request: Request,
    checkpoint: Checkpoint,
    shape: tuple[int, ...],
    outcome: Outputs,
    judged: NDArray[np.bool_] | None,
    tolerances: Tolerances,
) -> NDArray[np.bool_] | None:
    """Leave out what a candidate computed after it had chosen otherwise than the golden, and as well."""
    if checkpoint.follows is None:
        return judged
    leader = request.case.checkpoint(checkpoint.follows)
    tensor = outcome.tensors.get(leader.name)
    if tensor is None or tensor.shape != leader.shape or tensor.dtype.kind not in "iu":
        return judged
    try:
        chosen = tensor.load()[leader.kept_index]
    except (CandidateError, OSError, ValueError, MemoryError):
        return judged  # it has a verdict of its own
    golden = request.goldens.golden(request.case.name, leader.name)
    _, tied = _ties(request, leader, chosen, golden, tolerances)
    left = (chosen != golden) & (False if tied is None else tied)
    if not left.any():
        return judged
    before: NDArray[np.bool_] = np.ones(left.shape, bool)
    before[..., 1:] = np.logical_and.accumulate(~left, axis=-1)[..., :-1]
    before = before.reshape(before.shape + (1,) * (len(shape) - before.ndim))
    return before if judged is None else before & judged
