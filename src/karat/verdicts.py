"""Turns what a candidate left at a checkpoint into a verdict: its status, its statistics, what was allowed."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import formats
from karat.candidates import Failure, Request
from karat.compare import Statistics, compare, compare_exactly, tied_indices
from karat.errors import CandidateError, GoldenError
from karat.exchange import Outputs
from karat.hypotheses import Diagnosis, Question, diagnose
from karat.suites import Checkpoint
from karat.tensors import Tensor
from karat.tolerances import Tolerance, Tolerances

STATUSES = (
    "pass",
    "mismatch",
    "fault",
    "shape",
    "dtype",
    "nonfinite",
    "missing-output",
    "raised",
    "crashed",
    "timeout",
    "unsupported",
    "golden-missing",
    "golden-damaged",
    "golden-stale",
)
STATUS_OF_KIND = {"missing": "golden-missing", "damaged": "golden-damaged"}
"""The status that a kind of finding leads to; all other kinds: golden-stale."""
DIVERGED = ("mismatch", "fault", "shape", "dtype", "nonfinite")
"""The statuses of an output that is there and wrong; `missing-output` is wrong too, but nothing diverges."""


@dataclass(frozen=True)
class Verdict:
    """What karat says of one checkpoint.

    Attributes:
        status: one of `STATUSES`.
        shape: that of the golden.
        statistics: None unless values were compared.
        tolerance: None unless a tolerance was applied.
        rms: RMS of the golden's judged elements, the unit of `tolerance.atol_rms`.
        text: what was found and what was wanted, for the statuses without statistics.
        first_divergence: the first checkpoint of its case, in execution order, whose values are wrong.
        diagnosis: what the wrong values turned out to be; of the first divergence only, and often nothing.
    """

    suite: str
    case: str
    contract: str
    checkpoint: str
    status: str
    shape: tuple[int, ...]
    statistics: Statistics | None = None
    tolerance: Tolerance | None = None
    rms: float = 0.0
    text: str = ""
    first_divergence: bool = False
    diagnosis: tuple[Diagnosis, ...] = ()

    @property
    def name(self) -> str:
        """Return `suite/case/contract/checkpoint`."""
        return f"{self.suite}/{self.case}/{self.contract}/{self.checkpoint}"


def judge(
    request: Request,
    outcome: Outputs | Failure,
    tolerances: Tolerances,
    blocked: Mapping[str, Verdict] | None = None,
) -> list[Verdict]:
    """Return a verdict for each checkpoint of the request's case, in execution order.

    `blocked` holds the verdicts of checkpoints whose goldens cannot be trusted: they are not judged.
    """
    blocked = blocked or {}
    verdicts = [
        blocked.get(checkpoint.name) or _judge_one(request, checkpoint, outcome, tolerances)
        for checkpoint in request.case.checkpoints
    ]
    return [
        replace(verdict, diagnosis=_diagnose(request, verdict, outcome)) if verdict.first_divergence else verdict
        for verdict in mark_first_divergence(verdicts)
    ]


def _diagnose(request: Request, verdict: Verdict, outcome: Outputs | Failure) -> tuple[Diagnosis, ...]:
    """Try the hypotheses on a mismatch."""
    checkpoint = request.case.checkpoint(verdict.checkpoint)
    if verdict.status != "mismatch" or verdict.tolerance is None or checkpoint.dtype != "storage":
        return ()
    if isinstance(outcome, Failure):
        return ()
    golden = request.goldens.golden(request.case.name, checkpoint.name).astype(np.float64)
    judged = request.case.judged_elements(checkpoint, request.arrays)
    others = {
        other.name: request.goldens.golden(request.case.name, other.name)
        for other in request.case.checkpoints
        if other.kept_shape == checkpoint.kept_shape and other.name != checkpoint.name
    }
    question = Question(
        candidate=outcome.tensors[checkpoint.name].load()[checkpoint.kept_index].astype(np.float64),
        golden=golden,
        judged=np.broadcast_to(True if judged is None else judged, golden.shape),
        rtol=verdict.tolerance.rtol,
        atol=verdict.tolerance.atol_rms * verdict.rms,
        axes=checkpoint.axes,
        others=others,
        storage=request.contract.storage,
        exact_zeros=checkpoint.exact_zeros,
    )
    return tuple(diagnose(question))


def mark_first_divergence(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts of one case with the first of the diverged ones marked."""
    first = next((verdict.checkpoint for verdict in verdicts if verdict.status in DIVERGED), None)
    return [replace(verdict, first_divergence=verdict.checkpoint == first) for verdict in verdicts]


def blank(request: Request, checkpoint: Checkpoint, status: str, text: str = "") -> Verdict:
    """Return a verdict without statistics."""
    return Verdict(
        suite=request.suite.name,
        case=request.case.name,
        contract=request.contract.name,
        checkpoint=checkpoint.name,
        status=status,
        shape=checkpoint.kept_shape,
        text=text,
    )


def _judge_one(  # noqa: PLR0911 - one return for each status that ends the judging
    request: Request, checkpoint: Checkpoint, outcome: Outputs | Failure, tolerances: Tolerances
) -> Verdict:
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
    storage = request.contract.storage
    return (
        ""
        if found == formats.lookup(storage).dtype
        else f"dtype {found.name}, but {request.contract.name} promises {storage}"
    )


def _judge_values(
    request: Request, checkpoint: Checkpoint, candidate: NDArray[Any], outcome: Outputs, tolerances: Tolerances
) -> Verdict:
    golden = request.goldens.golden(request.case.name, checkpoint.name)
    judged = request.case.judged_elements(checkpoint, request.arrays)
    tolerance, rms = None, 0.0
    if checkpoint.dtype == "storage":
        judged = _still_following(request, checkpoint, golden.shape, outcome, judged)
        tolerance, rms = _allowed(request, checkpoint, tolerances)
        statistics = compare(
            candidate,
            golden,
            rtol=tolerance.rtol,
            atol=tolerance.atol_rms * rms,
            judged=judged,
            exact_zeros=checkpoint.exact_zeros,
        )
    else:
        accepted = None
        if checkpoint.judged_by is not None:
            values = request.goldens.golden(request.case.name, checkpoint.judged_by)
            tolerance, rms = _allowed(request, checkpoint, tolerances, unit=checkpoint.judged_by)
            accepted = tied_indices(
                candidate,
                golden,
                values,
                rtol=tolerance.rtol,
                atol=tolerance.atol_rms * rms,
                sequential=checkpoint.sequential,
            )
        statistics = compare_exactly(candidate, golden, accepted=accepted, judged=judged)
    if statistics.worst is not None:
        statistics = replace(statistics, worst=_whole_index(checkpoint, statistics.worst))
    status = "nonfinite" if statistics.nonfinite else "mismatch" if statistics.mismatched else "pass"
    return replace(blank(request, checkpoint, status), statistics=statistics, tolerance=tolerance, rms=rms)


def _whole_index(checkpoint: Checkpoint, index: tuple[int, ...]) -> tuple[int, ...]:
    """Turn an index of the frozen part into one of the whole checkpoint."""
    cuts = zip(index, checkpoint.kept_index, checkpoint.shape, strict=True)
    return tuple(i + range(*cut.indices(size)).start for i, cut, size in cuts)


def _allowed(
    request: Request, checkpoint: Checkpoint, tolerances: Tolerances, unit: str | None = None
) -> tuple[Tolerance, float]:
    """Return the tolerance of a checkpoint and the RMS that is its unit: its own, or that of the checkpoint `unit`."""
    suite, case = request.suite.name, request.case.name
    tolerance = tolerances.find(request.contract.name, suite, case, checkpoint.name, kind=checkpoint.tolerance)
    return tolerance, float(request.goldens.goldens[case, unit or checkpoint.name]["rms"])


def _still_following(
    request: Request,
    checkpoint: Checkpoint,
    shape: tuple[int, ...],
    outcome: Outputs,
    judged: NDArray[np.bool_] | None,
) -> NDArray[np.bool_] | None:
    """Leave out what a candidate computed after it had chosen otherwise than the golden."""
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
    same = chosen == request.goldens.golden(request.case.name, leader.name)
    before: NDArray[np.bool_] = np.ones(same.shape, bool)
    before[..., 1:] = np.logical_and.accumulate(same, axis=-1)[..., :-1]
    before = before.reshape(before.shape + (1,) * (len(shape) - before.ndim))
    return before if judged is None else before & judged
