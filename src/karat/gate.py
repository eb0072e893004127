"""The gate: goldens that the contracts declare must be there, intact and fresh, and every tolerance used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from karat import goldens as golden_files
from karat import inputs as recipes
from karat import sources
from karat.errors import GoldenError, KaratError, UsageError
from karat.evidence import EVIDENCE, PLOT, digest, evidence_command, read_evidence, required, shortcomings
from karat.goldens import MANIFEST, VISIBILITY, GoldenSet, freeze_command, sha256_of_array
from karat.suites import Case, Checkpoint, Repository, Suite
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
    """Return everything that is wrong with the repository as a whole and with `suites` (default: all of them)."""
    findings = []
    try:
        tolerances = read_tolerances(repository.root / "tolerances.toml")
    except UsageError as error:
        return [Finding("tolerance", None, None, None, "tolerances.toml", str(error))]
    findings += _repository_findings(repository)
    findings += _tolerance_findings(repository, tolerances)
    inspected = list(repository.suites.values() if suites is None else suites)
    for suite in inspected:
        findings += _suite_findings(repository, suite, tolerances)
    if suites is None:
        return findings
    names = {suite.name for suite in inspected}
    return [finding for finding in findings if finding.suite is None or finding.suite in names]


def _repository_findings(repository: Repository) -> list[Finding]:
    findings = []
    own = {repository.folder(name) for name in (*repository.suites, *repository.unreadable)}
    families = {parent for folder in own for parent in folder.parents}
    families = {family for family in families if family.is_relative_to(repository.goldens)} | {repository.goldens}
    for path in sorted(path for family in families for path in family.glob("*")):
        if path.name.startswith(".") and path.name.endswith(".new"):
            continue  # a freeze that runs, or was killed: nothing reads it
        if path in families:
            continue
        file = path.relative_to(repository.root).as_posix()
        if path in own and path.name in repository.unreadable:
            why = repository.unreadable[path.name]
            message = f"its config.json is not what its contract wrote ({why}); run: {freeze_command(path.name)}"
            findings.append(Finding("damaged", path.name, None, None, f"{file}/config.json", message))
        elif path not in own:
            findings.append(
                Finding(
                    "unlisted",
                    None,
                    None,
                    None,
                    file,
                    f"it belongs to no contract in validators/; remove it: git rm -r {file}",
                )
            )
    return findings


def _tolerance_findings(repository: Repository, tolerances: Tolerances) -> list[Finding]:
    """Find contracts and classes without a row, and rows that nobody uses."""
    findings, used = [], set()
    for suite in repository.suites.values():
        missing = set()
        for contract in suite.contracts:
            found, lacking = _rows_of(suite, contract, tolerances)
            used |= found
            missing |= lacking
        for row_name in sorted(missing):
            message = f"tolerances.toml has no {row_name}, which {suite.name} needs; add it with its reason"
            findings.append(Finding("tolerance", suite.name, None, None, "tolerances.toml", message))
    for source in tolerances.sources():
        if source not in used:
            message = f"{source} applies to no checkpoint of any suite; remove it"
            findings.append(Finding("tolerance", None, None, None, "tolerances.toml", message))
    return findings


def _rows_of(suite: Suite, contract: str, tolerances: Tolerances) -> tuple[set[str], set[str]]:
    """Return the rows that a suite uses under a contract, and the tables that it would need and that are not there."""
    if contract not in tolerances.contracts:
        return set(), {f"[contract.{contract}]"}
    used, missing = set(), set()
    for case in suite.cases:
        if contract not in suite.contracts_of(case):
            continue
        for checkpoint in case.checkpoints:
            if checkpoint.floating or checkpoint.judged_by is not None:
                kind = checkpoint.tolerance
                try:
                    used.add(tolerances.find(contract, suite.name, case.name, checkpoint.name, kind=kind).source)
                except KeyError:
                    missing.add(f"[class.{kind}.{contract}]")
    return used, missing


def _suite_findings(repository: Repository, suite: Suite, tolerances: Tolerances) -> list[Finding]:
    folder = repository.folder(suite.name).relative_to(repository.root).as_posix()
    try:
        frozen = GoldenSet.open(repository, suite.name)
        return [
            *_chain_findings(repository, suite, frozen, tolerances),
            *_file_findings(suite, frozen, folder),
            *_case_findings(suite, frozen, folder),
        ]
    except GoldenError as error:
        return [Finding(error.kind, suite.name, None, None, f"{folder}/{MANIFEST}", str(error))]
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{folder}/{MANIFEST} lacks {error}; run: {freeze_command(suite.name)}"
        return [Finding("damaged", suite.name, None, None, f"{folder}/{MANIFEST}", message)]


def _chain_findings(repository: Repository, suite: Suite, frozen: GoldenSet, tolerances: Tolerances) -> list[Finding]:
    """Find sources that are not those from which the goldens were computed."""
    paths = [repository.validator(suite.name), *golden_files.generator_files(repository, suite)]
    current = {
        row["file"]: row["sha256"] for row in golden_files.source_rows(repository, (p for p in paths if p.is_file()))
    }
    recorded = {row["file"]: row["sha256"] for row in (frozen.manifest["contract"], *frozen.manifest["generator"])}
    findings = []
    for file in sorted(current.keys() | recorded.keys()):
        if current.get(file) != recorded.get(file):
            change = "is gone" if file not in current else "is new" if file not in recorded else "was edited"
            message = f"{file} {change} since the goldens were frozen; run: {freeze_command(suite.name)}"
            findings.append(Finding("stale", suite.name, None, None, file, message))
    measured = (
        frozen.manifest["signatures"]
        or frozen.manifest["certain"]
        or any("noise" in row for row in frozen.goldens.values())
    )
    if measured and frozen.manifest["method"] != sources.method(suite, tolerances):
        message = (
            "a contract in tolerances.toml, what counts as visible there, or karat's way of measuring noise changed"
            f" since the goldens were frozen; run: {freeze_command(suite.name)}"
        )
        findings.append(Finding("stale", suite.name, None, None, "tolerances.toml", message))
    return findings + (_evidence_findings(repository, suite, frozen.folder) if required(repository, suite) else [])


def _evidence_findings(repository: Repository, suite: Suite, frozen: Path) -> list[Finding]:
    """Find evidence and a visibility matrix that are missing, damaged, stale, or show too little."""
    folder, mend = frozen.relative_to(repository.root).as_posix(), f"run: {evidence_command(suite.name)}"
    findings = []
    kind, text = _table_state(frozen / VISIBILITY, digest(repository, suite.name))
    if kind:
        message = f"{VISIBILITY} {text}; {mend}"
        findings.append(Finding(kind, suite.name, None, None, f"{folder}/{VISIBILITY}", message))
    try:
        shorts = shortcomings(read_evidence(repository, suite.name))
    except GoldenError as error:
        return [*findings, Finding(error.kind, suite.name, None, None, f"{folder}/{EVIDENCE}", str(error))]
    return findings + [
        Finding("tolerance", suite.name, None, None, f"{folder}/{EVIDENCE}", f"the evidence shows that {short}")
        for short in shorts
    ]


def _table_state(table: Path, made_with: str) -> tuple[str, str]:
    """Return kind and text of what is wrong with a visibility matrix, empty if nothing is."""
    if not table.is_file():
        return "missing", "does not exist"
    text = table.read_text(encoding="utf-8", errors="replace")
    if not golden_files.is_sealed(text):
        return "damaged", "is not what was written: its own hash does not fit"
    return ("", "") if made_with in text else ("stale", "was made with other sources")


def _file_findings(suite: Suite, frozen: GoldenSet, folder: str) -> list[Finding]:
    """Find listed files that are missing or damaged, and files that nobody lists."""
    findings = []
    cases = {case.name for case in suite.cases}
    for name in frozen.files:
        stem = name.removesuffix(".safetensors").removesuffix(golden_files.NOISE).removesuffix(golden_files.SIGNATURES)
        case = stem if stem in cases else None
        try:
            frozen.verify_file(name)
        except GoldenError as error:
            findings.append(Finding(error.kind, suite.name, case, None, f"{folder}/{name}", str(error)))
    for path in sorted(frozen.folder.rglob("*")):
        name = path.relative_to(frozen.folder).as_posix()
        if path.is_file() and name not in frozen.files and name not in (MANIFEST, VISIBILITY, EVIDENCE, PLOT):
            message = f"{folder}/{name} is listed in no manifest; remove it, or run: {freeze_command(suite.name)}"
            findings.append(Finding("unlisted", suite.name, None, None, f"{folder}/{name}", message))
    return findings


def _case_findings(suite: Suite, frozen: GoldenSet, folder: str) -> list[Finding]:
    """Find what the contract declares and the manifest or a file does not hold, or the other way round."""
    rows = {row["case"]: row for row in frozen.manifest["cases"]}
    manifest = f"{folder}/{MANIFEST}"
    mend = f"run: {freeze_command(suite.name)}"
    findings = [
        Finding("stale", suite.name, name, None, manifest, f"the contract declares no case {name}; {mend}")
        for name in sorted(rows.keys() - {case.name for case in suite.cases})
    ]
    for case in suite.cases:
        if case.name not in rows:
            message = f"{manifest} does not list the case {case.name}; {mend}"
            findings.append(Finding("missing", suite.name, case.name, None, manifest, message))
            continue
        findings += [
            Finding("stale", suite.name, case.name, None, manifest, f"{text}; {mend}")
            for text in _case_differences(case, rows[case.name], frozen)
        ]
        findings += [
            Finding(kind, suite.name, case.name, checkpoint, f"{folder}/{file}", f"{text}; {mend}")
            for kind, checkpoint, file, text in _golden_differences(case, frozen)
        ]
    return findings


def _golden_differences(case: Case, frozen: GoldenSet) -> Iterator[tuple[str, str, str, str]]:
    """Yield kind, checkpoint, file and text of each golden that is not what the contract and the manifest say."""
    declared = {checkpoint.name for checkpoint in case.computed}
    for name in sorted(checkpoint for owner, checkpoint in frozen.goldens if owner == case.name):
        if name not in declared:
            yield "stale", name, MANIFEST, "the contract does not declare this checkpoint"
    for checkpoint in case.computed:
        row = frozen.goldens.get((case.name, checkpoint.name))
        if row is None:
            yield "missing", checkpoint.name, MANIFEST, "the contract declares it, the manifest does not list it"
        elif text := _tensor_difference(frozen, row, case, checkpoint):
            yield "damaged", checkpoint.name, row["file"], text


def _case_differences(case: Case, row: dict[str, Any], frozen: GoldenSet) -> list[str]:
    """Return what the contract says otherwise than the manifest of the case's parameters and inputs."""
    texts = [] if row["params"] == dict(case.params) else ["the contract's parameters are not those that were frozen"]
    listed = {name for owner, name in frozen.inputs if owner == case.name}
    texts += [f"input {name!r} is declared or frozen, not both" for name in sorted(listed ^ set(case.inputs))]
    texts += [
        f"the recipe of input {name!r} is not the one that was frozen"
        for name in sorted(listed & set(case.inputs))
        if _as_json(recipes.describe(case.inputs[name])) != frozen.inputs[case.name, name]["recipe"]
    ]
    return texts


def _as_json(value: Any) -> Any:
    """Turn tuples into lists, as reading JSON does."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tensor_difference(frozen: GoldenSet, row: dict[str, Any], case: Case, checkpoint: Checkpoint) -> str:
    shape = checkpoint.kept_shape
    try:
        tensor = frozen.part(row["case"]).get(row["checkpoint"])
    except KaratError:
        return ""  # the file itself is a finding already
    if tensor is None:
        return f"{row['file']} does not hold it"
    if tensor.shape != shape or list(shape) != row["shape"]:
        return f"{row['file']} holds the shape {tensor.shape}, the contract declares {shape}"
    if sha256_of_array(tensor.load()) != row["sha256"]:
        return f"its bytes in {row['file']} are not those that the manifest hashes"
    padding = frozen.padding(case)
    fresh = golden_files.golden_row(case, checkpoint, row["file"], tensor.load(), padding)
    measured = {key: row[key] for key in golden_files.MEASURED if key in row}
    if fresh | measured != row:
        return "the manifest's row is not what its tensor gives"
    return _noise_difference(frozen, row, shape)


def _noise_difference(frozen: GoldenSet, row: dict[str, Any], shape: tuple[int, ...]) -> str:
    """Return what is wrong with the noise scales of a golden, empty if nothing is."""
    try:
        scales = frozen.scales(row["case"], row["checkpoint"])
    except (KaratError, KeyError):
        return "its noise scales are not there"
    wrong = [kind for kind, scale in scales.items() if scale.codes.shape != shape or scale.codes.dtype.name != "uint8"]
    return f"its noise scale {wrong[0]} is not of its shape" if wrong else ""
