"""One candidate against the goldens: runs it case by case under each contract and collects the verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from karat import gate
from karat.candidates import Candidate, Failure, FolderCandidate, Request
from karat.errors import GoldenError, UsageError
from karat.gate import Finding
from karat.goldens import GoldenSet
from karat.judge import judge
from karat.suites import Case, Repository, Selection, Suite
from karat.tolerances import Contract, Tolerances, read_tolerances
from karat.verdicts import STATUS_OF_KIND, STATUSES, Verdict, blank

_EXIT_ORDER = (3, 2, 4, 1, 5)  # the worst first
_EXIT_OF_STATUS = {
    "mismatch": 1,
    "fault": 1,
    "shape": 1,
    "dtype": 1,
    "nonfinite": 1,
    "missing-output": 1,
    "raised": 4,
    "crashed": 4,
    "timeout": 4,
    "golden-missing": 3,
    "golden-damaged": 3,
    "golden-stale": 3,
}


@dataclass(frozen=True)
class Report:
    """All verdicts of one run.

    Attributes:
        candidate: its spec.
        verdicts: in the order of suites, cases, contracts and checkpoints.
        findings: what the gate found, for the suites that were asked for.
        extra: names that the candidate produced and nobody wants, by `suite/case`.
        required: patterns of checkpoints that may not be unsupported.
        unsupported: the patterns of checkpoints that the candidate says it does not provide.
    """

    candidate: str
    verdicts: Sequence[Verdict]
    findings: Sequence[Finding] = ()
    extra: dict[str, list[str]] = field(default_factory=dict)
    required: Selection | None = None
    unsupported: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Return how many verdicts have each status that occurs, in the order of the statuses."""
        counted = Counter(verdict.status for verdict in self.verdicts)
        return {status: counted[status] for status in STATUSES if counted[status]}

    def demanded(self, verdict: Verdict) -> bool:
        """Say whether the owner demands this checkpoint (`--require`)."""
        return self.required is not None and self.required.has(verdict.suite, verdict.case, verdict.checkpoint)

    def fails(self, verdict: Verdict) -> bool:
        """Say whether the verdict keeps the run from passing."""
        return verdict.status in _EXIT_OF_STATUS or (verdict.status == "unsupported" and self.demanded(verdict))

    @property
    def exit_code(self) -> int:
        """Return 0 if all pass, else the worst of 3, 2, 4, 1, 5."""
        codes = {_EXIT_OF_STATUS[verdict.status] for verdict in self.verdicts if verdict.status in _EXIT_OF_STATUS}
        codes |= {1 for verdict in self.verdicts if verdict.status == "unsupported" and self.demanded(verdict)}
        codes |= {3 for _ in self.findings}
        if not any(verdict.status == "pass" or verdict.status in _EXIT_OF_STATUS for verdict in self.verdicts):
            codes.add(5)
        return next((code for code in _EXIT_ORDER if code in codes), 0)


class Session:
    """Runs a candidate on cases, each once for each contract, and remembers the verdicts."""

    def __init__(
        self,
        repository: Repository,
        candidate: Candidate,
        suites: Iterable[Suite],
        findings: Sequence[Finding] | None = None,
    ) -> None:
        """Inspect the goldens of `suites`, unless `findings` says what was found; what is wrong is in `findings`."""
        self.repository, self.candidate = repository, candidate
        self.findings = gate.inspect(repository, suites) if findings is None else findings
        self.extra: dict[str, list[str]] = {}
        self.unsupported: dict[str, None] = {}
        self.to_first_divergence = False
        self._tolerances: Tolerances | None = None
        self._goldens: dict[str, GoldenSet] = {}
        self._inputs: tuple[str, dict[str, NDArray[Any]]] = ("", {})
        self._verdicts: dict[tuple[str, str, str], list[Verdict]] = {}

    def with_candidate(self, candidate: Candidate) -> Session:
        """Return a session of another candidate against the same goldens, which are not inspected again."""
        other = Session(self.repository, candidate, (), self.findings)
        other._tolerances, other._goldens = self._tolerances, self._goldens
        return other

    @property
    def tolerances(self) -> Tolerances:
        """Return the repository's tolerances."""
        if self._tolerances is None:
            self._tolerances = read_tolerances(self.repository.root / "tolerances.toml")
        return self._tolerances

    def verdicts(self, suite: Suite, case: Case, contract: str) -> list[Verdict]:
        """Return the verdicts of one case, running the candidate the first time."""
        key = (suite.name, case.name, contract)
        if key not in self._verdicts:
            self._verdicts[key] = self._judge(suite, case, contract)
        return self._verdicts[key]

    def _judge(self, suite: Suite, case: Case, contract: str) -> list[Verdict]:
        # A contract without a row is a finding of the gate, which blocks the whole suite.
        row = self.tolerances.contracts.get(contract) or Contract(contract, contract, contract, contract, "unknown")
        request = Request(suite, case, row, {}, GoldenSet("", Path(), {}))
        blocked = self._blocked(request)
        if len(blocked) == len(case.checkpoints):
            return [blocked[checkpoint.name] for checkpoint in case.checkpoints]
        try:
            request = replace(request, goldens=self.goldens(suite), arrays=self.inputs(suite, case))
        except GoldenError as error:
            status = STATUS_OF_KIND.get(error.kind, "golden-stale")
            return [blank(request, checkpoint, status, str(error)) for checkpoint in case.checkpoints]
        outcome = self.candidate.run(request)
        if not isinstance(outcome, Failure):
            self._note_extra(suite, case, set(outcome.tensors))
            self.unsupported |= dict.fromkeys(outcome.unsupported)
        return judge(request, outcome, self.tolerances, blocked, to_first_divergence=self.to_first_divergence)

    def _blocked(self, request: Request) -> dict[str, Verdict]:
        """Return the verdicts of the checkpoints that a finding of the gate touches, the first finding deciding."""
        found: dict[str, Verdict] = {}
        for checkpoint in request.case.checkpoints:
            for finding in self.findings:
                if finding.suite is None or finding.concerns(request.suite.name, request.case.name, checkpoint.name):
                    status = STATUS_OF_KIND.get(finding.kind, "golden-stale")
                    found[checkpoint.name] = blank(request, checkpoint, status, finding.message)
                    break
        for checkpoint in request.case.checkpoints:  # what is judged by a golden needs that golden too
            judge_name = checkpoint.judged_by
            if judge_name in found and checkpoint.name not in found:
                block = found[judge_name]
                found[checkpoint.name] = blank(request, checkpoint, block.status, block.text)
        return found

    def goldens(self, suite: Suite) -> GoldenSet:
        """Return the goldens of a suite; raise `GoldenError` if the manifest is missing or damaged."""
        if suite.name not in self._goldens:
            self._goldens[suite.name] = GoldenSet.open(self.repository, suite.name)
        return self._goldens[suite.name]

    def inputs(self, suite: Suite, case: Case) -> dict[str, NDArray[Any]]:
        """Return the inputs of a case, drawn and checked; raise `GoldenError` if they are not what was frozen."""
        place = f"{suite.name}/{case.name}"
        if self._inputs[0] != place:  # the last case only: weights can be large
            self._inputs = ("", {})
            self._inputs = (place, self.goldens(suite).draw_inputs(case))
        return self._inputs[1]

    def _note_extra(self, suite: Suite, case: Case, names: set[str]) -> None:
        extra = names - {checkpoint.name for checkpoint in case.checkpoints}
        if extra:
            self.extra[f"{suite.name}/{case.name}"] = sorted(extra)


def check(
    repository: Repository,
    candidate: Candidate,
    selection: Selection,
    *,
    contracts: Sequence[str] = (),
    required: Selection | None = None,
) -> Report:
    """Check a candidate against the selected goldens.

    `contracts`: by default float32, for a `dir:` candidate the storage format of the dump. Raise `UsageError` for a
    selection or contract that does not exist.
    """
    selection.require_matches(repository.suites)
    if isinstance(candidate, FolderCandidate):
        candidate.require_known(repository)
        contracts = contracts or (candidate.storage(repository, selection) or "float32",)
    contracts = list(dict.fromkeys(contracts or ("float32",)))
    suites = [suite for suite in repository.suites.values() if selection.has(suite.name)]
    session = Session(repository, candidate, suites)
    try:
        known = session.tolerances.contracts
    except UsageError:  # tolerances.toml cannot be read, which is a finding
        return Report(candidate.spec, (), session.findings, required=required)
    for contract in contracts:
        declared = any(contract in suite.contracts for suite in repository.suites.values())
        if contract not in known and not declared:
            session.tolerances.contract(contract)
        if not any(contract in suite.contracts for suite in suites):
            raise UsageError(f"no selected suite declares the contract {contract}; declared: {_declared(suites)}")
    verdicts = [
        verdict
        for suite in suites
        for case in suite.cases
        if selection.has(suite.name, case.name)
        for contract in contracts
        if contract in suite.contracts_of(case)
        for verdict in session.verdicts(suite, case, contract)
        if selection.has(suite.name, case.name, verdict.checkpoint)
    ]
    return Report(candidate.spec, verdicts, session.findings, session.extra, required, tuple(session.unsupported))


def _declared(suites: Iterable[Suite]) -> str:
    return ", ".join(sorted({contract for suite in suites for contract in suite.contracts}))
