"""The gate: are the goldens that the contracts declare there, intact and fresh, and is every tolerance used?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from karat import goldens as golden_files
from karat import inputs as recipes
from karat.errors import GoldenError, KaratError, UsageError
from karat.goldens import MANIFEST, VISIBILITY, GoldenSet, freeze_command, sha256_of_array, sha256_of_file
from karat.suites import Case, Repository, Suite
from karat.tolerances import Tolerances, read_tolerances


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the goldens.

    Attributes:
        kind: `missing`, `damaged`, `stale`, `unlisted` or `tolerance`.
        suite: the suite it is about; None: the repository.
        case: the case it is about; None: all of the suite.
        checkpoint: the checkpoint it is about; None: all of the case.
        file: the file to look at, relative to the repository.
        message: what was found, and the command that mends it.
    """

    kind: str
    suite: str | None
    case: str | None
    checkpoint: str | None
    file: str
    message: str

    def concerns(self, suite: str, case: str, checkpoint: str) -> bool:
        """Say whether the finding touches the given checkpoint."""
        given = ((self.suite, suite), (self.case, case), (self.checkpoint, checkpoint))
        return self.suite is not None and all(own is None or own == other for own, other in given)

    def __str__(self) -> str:
        """Return the finding as a line of the report."""
        place = "/".join(part for part in (self.suite, self.case, self.checkpoint) if part)
        return f"{self.kind}: {place + ': ' if place else ''}{self.message}"


def inspect(repository: Repository, suites: Iterable[Suite] | None = None) -> list[Finding]:
    """Return everything that is wrong with the repository and with `suites` (default: all of them)."""
    findings = []
    try:
        tolerances = read_tolerances(repository.root / "tolerances.toml")
    except UsageError as error:
        return [Finding("tolerance", None, None, None, "tolerances.toml", str(error))]
    findings += _repository_findings(repository)
    findings += _tolerance_findings(repository, tolerances)
    for suite in repository.suites.values() if suites is None else suites:
        findings += _suite_findings(repository, suite)
    return findings


def _repository_findings(repository: Repository) -> list[Finding]:
    findings = []
    for path in sorted(repository.goldens.glob("*")):
        if path.name.startswith(".") and path.name.endswith(".new"):
            continue  # a freeze that runs, or was killed: nothing reads it
        if path.name not in repository.suites:
            findings.append(
                Finding(
                    "unlisted",
                    None,
                    None,
                    None,
                    f"goldens/{path.name}",
                    f"goldens/{path.name} belongs to no contract in validators/; remove it: git rm -r goldens/{path.name}",
                )
            )
    return findings


def _tolerance_findings(repository: Repository, tolerances: Tolerances) -> list[Finding]:
    """Every (contract, class) that a suite declares needs a row; every row must be used."""
    findings, used = [], set()
    for suite in repository.suites.values():
        missing = set()
        for contract in suite.contracts:
            if contract not in tolerances.contracts:
                missing.add(f"[contract.{contract}]")
                continue
            for case in suite.cases:
                for checkpoint in case.checkpoints:
                    if checkpoint.dtype != "storage":
                        continue
                    try:
                        row = tolerances.find(contract, suite.name, case.name, checkpoint.name, kind=checkpoint.tolerance)
                    except KeyError:
                        missing.add(f"[class.{checkpoint.tolerance}.{contract}]")
                    else:
                        used.add(row.source)
        for row_name in sorted(missing):
            message = f"tolerances.toml has no {row_name}, which {suite.name} needs; add it with its reason"
            findings.append(Finding("tolerance", suite.name, None, None, "tolerances.toml", message))
    for source in tolerances.sources():
        if source not in used:
            message = f"{source} applies to no checkpoint of any suite; remove it"
            findings.append(Finding("tolerance", None, None, None, "tolerances.toml", message))
    return findings


def _suite_findings(repository: Repository, suite: Suite) -> list[Finding]:
    folder = f"goldens/{suite.name}"
    try:
        frozen = GoldenSet.open(repository, suite.name)
        return [
            *_chain_findings(repository, suite, frozen),
            *_file_findings(suite, frozen, folder),
            *_case_findings(suite, frozen, folder),
        ]
    except GoldenError as error:
        return [Finding(error.kind, suite.name, None, None, f"{folder}/{MANIFEST}", str(error))]
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{folder}/{MANIFEST} lacks {error}; run: {freeze_command(suite.name)}"
        return [Finding("damaged", suite.name, None, None, f"{folder}/{MANIFEST}", message)]


def _chain_findings(repository: Repository, suite: Suite, frozen: GoldenSet) -> list[Finding]:
    """The sources that the goldens were computed from must be the ones that stand here."""
    paths = [repository.validator(suite.name), *golden_files.generator_files(repository, suite)]
    current = {row["file"]: row["sha256"] for row in golden_files.source_rows(repository, (p for p in paths if p.is_file()))}
    recorded = {row["file"]: row["sha256"] for row in (frozen.manifest["contract"], *frozen.manifest["generator"])}
    findings = []
    for file in sorted(current.keys() | recorded.keys()):
        if current.get(file) != recorded.get(file):
            change = "is gone" if file not in current else "is new" if file not in recorded else "was edited"
            message = f"{file} {change} since the goldens were frozen; run: {freeze_command(suite.name)}"
            findings.append(Finding("stale", suite.name, None, None, file, message))
    table = frozen.folder / VISIBILITY
    if table.is_file() and sha256_of_file(frozen.folder / MANIFEST) not in table.read_text(encoding="utf-8"):
        message = f"{VISIBILITY} was computed from other goldens; run: {freeze_command(suite.name)}"
        findings.append(Finding("stale", suite.name, None, None, f"goldens/{suite.name}/{VISIBILITY}", message))
    return findings


def _file_findings(suite: Suite, frozen: GoldenSet, folder: str) -> list[Finding]:
    """Every listed file must be there and intact; every file must be listed."""
    findings = []
    cases = {case.name for case in suite.cases}
    for name in frozen.files:
        case = name.removesuffix(".safetensors") if name.removesuffix(".safetensors") in cases else None
        try:
            frozen.verify_file(name)
        except GoldenError as error:
            findings.append(Finding(error.kind, suite.name, case, None, f"{folder}/{name}", str(error)))
    for path in sorted(frozen.folder.rglob("*")):
        name = path.relative_to(frozen.folder).as_posix()
        if path.is_file() and name not in frozen.files and name not in (MANIFEST, VISIBILITY):
            message = f"{folder}/{name} is listed in no manifest; remove it, or run: {freeze_command(suite.name)}"
            findings.append(Finding("unlisted", suite.name, None, None, f"{folder}/{name}", message))
    return findings


def _case_findings(suite: Suite, frozen: GoldenSet, folder: str) -> list[Finding]:
    """What the contract declares must be what the manifest lists, and what the files hold."""
    findings: list[Finding] = []
    manifest = f"{folder}/{MANIFEST}"
    mend = f"run: {freeze_command(suite.name)}"

    def add(kind: str, case: str, checkpoint: str | None, file: str, text: str) -> None:
        findings.append(Finding(kind, suite.name, case, checkpoint, file, f"{text}; {mend}"))

    rows = {row["case"]: row for row in frozen.manifest["cases"]}
    for name in sorted(rows.keys() - {case.name for case in suite.cases}):
        add("stale", name, None, manifest, f"{manifest} lists the case {name}, which the contract does not declare")
    for case in suite.cases:
        if case.name not in rows:
            add("missing", case.name, None, manifest, f"{manifest} does not list the case {case.name}")
            continue
        if rows[case.name]["params"] != dict(case.params):
            add("stale", case.name, None, manifest, "the contract's parameters are not those that were frozen")
        for text in _input_differences(case, frozen):
            add("stale", case.name, None, manifest, text)
        listed = {checkpoint for name, checkpoint in frozen.goldens if name == case.name}
        for checkpoint_name in sorted(listed - {checkpoint.name for checkpoint in case.checkpoints}):
            add("stale", case.name, checkpoint_name, manifest, "the contract does not declare this checkpoint")
        for checkpoint in case.checkpoints:
            row = frozen.goldens.get((case.name, checkpoint.name))
            if row is None:
                add("missing", case.name, checkpoint.name, manifest, "the contract declares it, the manifest does not list it")
            elif text := _tensor_difference(frozen, row, checkpoint.kept_shape):
                add("damaged", case.name, checkpoint.name, f"{folder}/{row['file']}", text)
    return findings


def _input_differences(case: Case, frozen: GoldenSet) -> list[str]:
    listed = {name for case_name, name in frozen.inputs if case_name == case.name}
    texts = [f"input {name!r} is declared or frozen, not both" for name in sorted(listed ^ set(case.inputs))]
    for name in sorted(listed & set(case.inputs)):
        if _as_json(recipes.describe(case.inputs[name])) != frozen.inputs[case.name, name]["recipe"]:
            texts.append(f"the recipe of input {name!r} is not the one that was frozen")
    return texts


def _as_json(value: Any) -> Any:
    """Turn tuples into lists, as reading JSON does."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tensor_difference(frozen: GoldenSet, row: dict[str, Any], shape: tuple[int, ...]) -> str:
    try:
        tensor = frozen.tensors(row["file"]).get(row["checkpoint"])
    except KaratError:
        return ""  # the file itself is a finding already
    if tensor is None:
        return f"{row['file']} does not hold it"
    if tensor.shape != shape or list(shape) != row["shape"]:
        return f"{row['file']} holds the shape {tensor.shape}, the contract declares {shape}"
    if sha256_of_array(tensor.load()) != row["sha256"]:
        return f"its bytes in {row['file']} are not those that the manifest hashes"
    return ""
