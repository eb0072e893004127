"""Faults: mistakes that people really make, planted in the plain candidate and put through the real check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from karat import exchange, goldens, inputs, tensors
from karat.candidates import Failure, Request
from karat.errors import UsageError
from karat.exchange import Outputs
from karat.session import Session
from karat.suites import Case, Repository, Suite, load_by_path
from karat.verdicts import Verdict

_LARGEST_CASE = 1_000_000  # input elements; larger cases repeat what the small ones show


@dataclass(frozen=True)
class Fault:
    """One mistake; or, among the formulations, one change that is no mistake.

    Attributes:
        name: such as `mask_missing`.
        at: the checkpoints where it belongs: of these, the first that a case has is its first divergence there, unless
            the case cannot see the fault, or sees it only in its continuation. Empty for a fault that raises.
        text: what the mistake is, in the words a report uses.
        change: plants it in a freshly loaded plain candidate.
    """

    name: str
    at: tuple[str, ...]
    text: str
    change: Callable[[Any], None]


def wrap(**replacements: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a change that replaces functions of the plain candidate; each value makes the wrong from the right."""

    def change(plain: Any) -> None:
        for name, replacement in replacements.items():
            setattr(plain, name, replacement(getattr(plain, name)))

    return change


def load_faults(repository: Repository, suite: Suite) -> tuple[Fault, ...]:
    """Return the faults catalogued in `generators/<suite>_faults.py`, none if there is no such file."""
    path = repository.faults(suite.name)
    return tuple(load_by_path(path).FAULTS) if path.is_file() else ()


def load_formulations(repository: Repository, suite: Suite) -> tuple[Fault, ...]:
    """Return the correct formulations catalogued beside the faults: changes of the same kind that must pass."""
    path = repository.faults(suite.name)
    return tuple(getattr(load_by_path(path), "FORMULATIONS", ())) if path.is_file() else ()


class FaultyCandidate:
    """The plain candidate with one fault planted, or none; runs in this process."""

    def __init__(self, plain: Path, function: str, fault: Fault | None) -> None:
        """Load the plain candidate anew and plant the fault."""
        self.spec = f"{plain.stem} with {fault.name}" if fault else plain.stem
        module: ModuleType = load_by_path(plain)
        if fault is not None:
            fault.change(module)
        self._call: Callable[..., Mapping[str, Any]] = getattr(module, function)

    def run(self, request: Request) -> Outputs | Failure:
        """Return the outputs of one case."""
        given = inputs.nest(exchange.in_storage(request.arrays, request.contract))
        try:
            with np.errstate(all="ignore"):  # a fault may divide by zero; karat says so in its own words
                returned = self._call(**given, **request.case.params)
        except Exception as error:  # noqa: BLE001 - a fault may raise; that is how it is caught
            return Failure("raised", f"{type(error).__name__}: {error}")
        return Outputs({name: tensors.of_array(array) for name, array in returned.items()})

    def close(self) -> None:
        """Do nothing."""


def plain_file(repository: Repository, suite: Suite) -> Path:
    """Return the file of the bundled plain candidate of `suite`; raise `UsageError` if there is none."""
    path = next(iter(sorted((repository.root / "candidates" / "plain").rglob(f"{suite.function}.py"))), None)
    if path is None:
        raise UsageError(f"{suite.name} has no plain candidate: candidates/plain/{suite.function}.py is missing")
    return path


def visible_cases(suite: Suite) -> list[Case]:
    """Return the cases on which faults are tried: those with small inputs."""
    return [
        case for case in suite.cases if sum(math.prod(recipe.shape) for recipe in case.inputs.values()) <= _LARGEST_CASE
    ]


def observe(session: Session, suite: Suite, fault: Fault | None, contract: str) -> dict[str, list[Verdict]]:
    """Check the plain candidate with `fault` planted against the goldens of `session`; return the verdicts by case."""
    candidate = FaultyCandidate(plain_file(session.repository, suite), suite.function, fault)
    planted = session.with_candidate(candidate)
    return {case.name: planted.verdicts(suite, case, contract) for case in visible_cases(suite)}


def first_failure(verdicts: Sequence[Verdict]) -> str | None:
    """Return the checkpoint of the first divergence, the status where there is none (`raised`), None if all pass."""
    for verdict in verdicts:
        if verdict.first_divergence:
            return verdict.checkpoint
    return next((verdict.status for verdict in verdicts if verdict.status != "pass"), None)


def expected_failure(fault: Fault, case: Case) -> str:
    """Return what `first_failure` must be in a case that sees the fault."""
    if not fault.at:
        return "raised"
    names = [checkpoint.name for checkpoint in case.checkpoints]
    return next((name for name in names if name in fault.at), "no checkpoint")


# --- the table -------------------------------------------------------------------------------------------------------


def visibility_rows(session: Session, suite: Suite, fault: Fault, contract: str) -> tuple[str, str]:
    """Return the two table rows of one fault: by case, and by kind of checkpoint."""
    observed = observe(session, suite, fault, contract)
    cells = []
    for verdicts in observed.values():
        first = first_failure(verdicts)
        cells.append("–" if first is None else first)
    kinds = checkpoint_kinds(suite)
    wrong = {
        _kind(verdict.checkpoint) for verdicts in observed.values() for verdict in verdicts if verdict.status != "pass"
    }
    firsts = {_kind(cell) for cell in cells}
    marks = ["●" if kind in firsts else "x" if kind in wrong else "" for kind in kinds]
    by_case = f"| `{fault.name}` | {fault.text} | {' | '.join(cells)} |"
    return by_case, f"| `{fault.name}` | {' | '.join(marks)} |"


def checkpoint_kinds(suite: Suite) -> list[str]:
    """Return the checkpoint names without layer and step numbers, in execution order."""
    return list(dict.fromkeys(_kind(point.name) for case in visible_cases(suite) for point in case.checkpoints))


def _kind(name: str) -> str:
    parts = name.split(".")
    while len(parts) > 2 and parts[1].isdigit():
        parts = parts[2:]
    return ".".join(parts)


def visibility_text(repository: Repository, suite: Suite, folder: Path, contract: str = "float32") -> str:
    """Return the visibility matrix of the goldens in `folder`, which need not be in their place yet, as Markdown."""
    cases, kinds = visible_cases(suite), checkpoint_kinds(suite)
    plain = FaultyCandidate(plain_file(repository, suite), suite.function, None)
    manifest_content = goldens.read_manifest(folder / goldens.MANIFEST, suite.name)
    session = Session(repository, plain, (), findings=())
    session.use_goldens(goldens.GoldenSet(suite.name, folder, manifest_content))
    rows = [visibility_rows(session, suite, fault, contract) for fault in load_faults(repository, suite)]
    manifest = goldens.sha256_of_file(folder / goldens.MANIFEST)
    catalogue = goldens.sha256_of_file(repository.faults(suite.name))
    lines = [
        f"# What the goldens of `{suite.name}` see",
        "",
        (
            f"Each fault planted in the plain candidate and checked under {contract}. Written by"
            f" `{goldens.freeze_command(suite.name)}`; of the manifest {manifest} and the faults {catalogue}."
        ),
        "",
        "## By case: the first divergence, – where the case cannot see the fault",
        "",
        f"| fault | mistake | {' | '.join(case.name for case in cases)} |",
        f"|---|---|{'---|' * len(cases)}",
        *(by_case for by_case, _ in rows),
        "",
        "## By kind of checkpoint, all layers, steps and cases together: ● first divergence in some case, x wrong",
        "",
        f"| fault | {' | '.join(kinds)} |",
        f"|---|{'---|' * len(kinds)}",
        *(by_kind for _, by_kind in rows),
        "",
    ]
    return goldens.sealed("\n".join(lines))


def write_visibility(repository: Repository, suite: Suite, folder: Path) -> list[str]:
    """Write the visibility matrix of the goldens in `folder` beside them; return the faults that no case sees."""
    if not load_faults(repository, suite):
        return []
    text = visibility_text(repository, suite, folder)
    (folder / goldens.VISIBILITY).write_text(text, encoding="utf-8", newline="\n")
    blind = "| – " * len(visible_cases(suite)) + "|"
    return [line.split("`")[1] for line in text.splitlines() if line.startswith("| `") and line.endswith(blind)]
