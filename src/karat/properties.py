"""What must hold of a candidate's own outputs, whatever the goldens say: runs it again on other inputs and compares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import formats, noise
from karat.candidates import Candidate, Failure, FolderCandidate, Request
from karat.errors import CandidateError, UsageError
from karat.exchange import Outputs
from karat.goldens import GoldenSet
from karat.inputs import Stored
from karat.suites import Case, Property, Repository, Selection, Suite
from karat.tolerances import Contract, Tolerance, Tolerances, read_tolerances

Arrays = dict[str, NDArray[Any]]

_LEFT = "outputs/"
"""Before the names of what the first run left, among the inputs that `Property.changed` is given."""


@dataclass(frozen=True)
class Outcome:
    """What one property came to in one case under one contract.

    Attributes:
        place: `suite/case/contract`.
        name: of the property.
        status: `holds`, `violated`, `unsupported` (the candidate has not the checkpoint), or the status of a run that
            gave no outputs.
        text: what was found and what was allowed.
    """

    place: str
    name: str
    status: str
    text: str

    @property
    def line(self) -> str:
        """Return the outcome for people."""
        return f"{self.place}: {self.name}: {self.status}{f': {self.text}' if self.text else ''}"


def check_properties(
    repository: Repository, candidate: Candidate, selection: Selection, contracts: Sequence[str] = ()
) -> list[Outcome]:
    """Try the properties of the selected suites, each in its cases, under `contracts` (default: float32).

    Raise `UsageError` for a candidate that cannot be run again, and where the selection has no property.
    """
    if isinstance(candidate, FolderCandidate):
        raise UsageError("a dump cannot be run again: properties need a py: or a cmd: candidate")
    tolerances = read_tolerances(repository.root / "tolerances.toml")
    selected = [suite for suite in repository.suites.values() if suite.properties and selection.has(suite.name)]
    opened = {suite.name: GoldenSet.open(repository, suite.name) for suite in selected}
    found = [
        _tried(opened[suite.name], candidate, suite, suite.case(name), entry, tolerances.contract(contract), tolerances)
        for suite in selected
        for entry in suite.properties
        for name in entry.cases
        if selection.has(suite.name, name)
        for contract in dict.fromkeys(contracts or ("float32",))
        if contract in suite.contracts_of(suite.case(name))
    ]
    if not found:
        with_some = [suite.name for suite in repository.suites.values() if suite.properties]
        raise UsageError(f"no property is selected; suites that have some: {', '.join(with_some) or 'none'}")
    return found


def _tried(
    goldens: GoldenSet,
    candidate: Candidate,
    suite: Suite,
    case: Case,
    entry: Property,
    contract: Contract,
    tolerances: Tolerances,
) -> Outcome:
    request = Request(suite, case, contract, goldens.draw_inputs(case), goldens)
    place = f"{suite.name}/{case.name}/{contract.name}"
    first = _run(candidate, request, entry)
    if isinstance(first, Failure):
        return Outcome(place, entry.name, first.status, first.text)
    try:
        again = _again(request, entry, first)
        second = _run(candidate, again, entry)
        if isinstance(second, Failure):
            return Outcome(place, entry.name, second.status, second.text)
        if entry.compared is None:
            return Outcome(place, entry.name, *_bits(entry, first, second))
        found, wanted = entry.compared(first, second, again.arrays)
    except KeyError as error:
        absent = error.args[0].removeprefix(_LEFT)
        return Outcome(place, entry.name, "unsupported", f"it does not produce {absent}")
    return Outcome(place, entry.name, *_within(entry, found, wanted, _allowed(request, entry, tolerances)))


def _run(candidate: Candidate, request: Request, entry: Property) -> Arrays | Failure:
    """Return the checkpoints that a run left, or why there are none."""
    outcome = candidate.run(request)
    if isinstance(outcome, Failure):
        return outcome
    if entry.checkpoint not in outcome.tensors:
        return Failure("unsupported", f"it does not produce {entry.checkpoint}")
    try:
        return _loaded(request.case, outcome)
    except (CandidateError, OSError, ValueError, MemoryError) as error:
        return Failure("crashed", f"broke the protocol: {error}")


def _again(request: Request, entry: Property, first: Arrays) -> Request:
    """Return the second run.

    `changed` finds what the first run left beside the inputs, as `outputs/CHECKPOINT`, so that a state can be carried
    over: floats in storage, as a candidate is given them.
    """
    case, storage = request.case, formats.lookup(request.contract.storage).dtype
    arrays = dict(request.arrays)
    if entry.changed is not None:
        left = {
            _LEFT + name: array.astype(storage) if case.checkpoint(name).floating else array
            for name, array in first.items()
        }
        changed = entry.changed(arrays | left)
        arrays = {name: array for name, array in changed.items() if name not in left}
    added = {name: Stored(arrays[name].shape) for name in arrays.keys() - case.inputs.keys()}
    params = {**case.params, **entry.params}
    return replace(request, case=replace(case, inputs={**case.inputs, **added}, params=params), arrays=arrays)


def _loaded(case: Case, outcome: Outputs) -> Arrays:
    """Return the checkpoints that a run left; raise `ValueError` for another shape before it is read."""
    found: Arrays = {}
    for point in case.checkpoints:
        tensor = outcome.tensors.get(point.name)
        if tensor is not None:
            if tensor.shape != point.shape:
                raise ValueError(f"{point.name} has the shape {tensor.shape}, wanted {point.shape}")
            found[point.name] = np.array(tensor.load())
    return found


def _bits(entry: Property, first: Arrays, second: Arrays) -> tuple[str, str]:
    """Compare two runs bit by bit."""
    for name in first:
        if name not in second or first[name].dtype != second[name].dtype:
            return "violated", f"{entry.about}: {name} has another format, or is missing"
        if first[name].tobytes() != second[name].tobytes():
            differing = first[name].reshape(-1).view(np.uint8) != second[name].reshape(-1).view(np.uint8)
            element = int(differing.argmax()) // first[name].dtype.itemsize
            index = tuple(int(i) for i in np.unravel_index(element, first[name].shape))
            values = first[name][index], second[name][index]
            return "violated", f"{entry.about}: {name} at {index} is {values[0]}, then {values[1]}"
    return "holds", ""


def _allowed(request: Request, entry: Property, tolerances: Tolerances) -> float:
    """Return how far two correct values of a checkpoint may be apart: each by as much as the largest is allowed.

    Integers and booleans may not be apart at all.
    """
    suite, case, contract = request.suite.name, request.case.name, request.contract
    checkpoint = request.case.checkpoint(entry.checkpoint)
    if not checkpoint.floating:
        return 0.0
    row = tolerances.find(contract.name, suite, case, entry.checkpoint, kind=checkpoint.tolerance)
    golden = request.goldens.golden(case, entry.checkpoint)
    golden = np.where(np.isfinite(golden), golden, 0)
    if isinstance(row, Tolerance):
        rms = float(request.goldens.goldens[case, entry.checkpoint]["rms"])
        return 2 * (row.rtol * float(np.abs(golden).max(initial=0.0)) + row.atol_rms * rms)
    predicted = noise.prediction(request.goldens.scales(case, entry.checkpoint), contract, row.max_sigma)
    return row.max_sigma * math.sqrt(2) * float(np.sqrt(noise.variance(predicted, golden)).max(initial=0.0))


def _within(entry: Property, found: NDArray[Any], wanted: NDArray[Any], allowed: float) -> tuple[str, str]:
    """Compare what was found with what was wanted."""
    found, wanted = np.asarray(found, np.float64), np.broadcast_to(np.asarray(wanted, np.float64), np.shape(found))
    with np.errstate(invalid="ignore"):
        apart = np.abs(found - wanted)
    apart = np.where((found == wanted) | (np.isnan(found) & np.isnan(wanted)), 0.0, apart)
    if not apart.size:
        return "violated", f"{entry.about}: there is nothing to compare"
    worst = tuple(int(i) for i in np.unravel_index(np.nan_to_num(apart, nan=math.inf).argmax(), apart.shape))
    if not apart[worst] <= allowed:
        place = f"{entry.checkpoint}: found {found[worst]:.8g} at {worst} where {wanted[worst]:.8g} must be"
        return "violated", f"{entry.about}: {place}; {apart[worst]:.3g} apart, allowed {allowed:.3g}"
    return "holds", f"{apart[worst]:.3g} apart, allowed {allowed:.3g}"


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return the exit code of `karat check` for these outcomes: 4 where a run failed, else 1 for a violated one."""
    statuses = {outcome.status for outcome in outcomes}
    if statuses - {"holds", "violated", "unsupported"}:
        return 4
    return 1 if "violated" in statuses else 0


def as_json(outcomes: Sequence[Outcome]) -> list[Mapping[str, str]]:
    """Return the outcomes as JSON values."""
    keys = ("place", "name", "status", "text")
    return [{key: getattr(outcome, key) for key in keys} for outcome in outcomes]
