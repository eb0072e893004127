"""Evidence: what correct formulations and planted faults did under the real check; read, summed up, kept fresh.

`karat.trials` makes it; `evidence.json` beside the manifest keeps it.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from karat import sources as made_with
from karat.errors import GoldenError
from karat.goldens import MANIFEST, manifest_text, read_manifest, sha256_of_file
from karat.suites import Repository, Suite

EVIDENCE = "evidence.json"
PLOT = "evidence.svg"
SCHEMA = 1
LEAST_MARGIN = 1.5
"""By this factor must correct runs stay below every limit, and each fault that is caught be above one."""
ENDLESS = 1e9
"""Margin of a fault that no tolerance could let pass: a wrong shape, an exception, a value where there may be none."""

_HEADINGS = (
    "| contract | correct runs | rejected | faults | caught | invisible | missed | named right | margins"
    " | held out: correct, rejected | held out: faults, missed |"
)
_DECIDING = (
    "compare",
    "diagnoses",
    "exact",
    "exchange",
    "faults",
    "formats",
    "freeze_case",
    "goldens",
    "hypotheses",
    "judge",
    "noise",
    "parts",
    "patterns",
    "places",
    "precisions",
    "questions",
    "replays",
    "session",
    "signatures",
    "suites",
    "tolerances",
    "trials",
    "verdicts",
)


def evidence_command(suite: str) -> str:
    """Return the command that gathers the evidence of a suite anew."""
    return f"python -m nox -s evidence -- {suite}"


def sources(repository: Repository, suite: str) -> dict[str, str]:
    """Return by name the SHA-256 of all that the evidence of a suite depends on.

    That is the sources of its goldens, not their last bits, which another processor or version gives otherwise.
    """
    manifest = read_manifest(repository.folder(suite) / MANIFEST, suite)
    origin = json.dumps([manifest["contract"], manifest["generator"], manifest["method"]], sort_keys=True)
    files = {path.name: path for path in made_with.with_neighbours(repository.formulations(suite))}
    found = {name: sha256_of_file(path) for name, path in files.items() if path.is_file()}
    return found | {
        "check": made_with.code(_DECIDING),
        "goldens": hashlib.sha256(origin.encode()).hexdigest(),
        "tolerances": made_with.limits(repository.root / "tolerances.toml"),
    }


def digest(repository: Repository, suite: str) -> str:
    """Return one SHA-256 of all `sources`."""
    return hashlib.sha256(json.dumps(sources(repository, suite), sort_keys=True).encode()).hexdigest()


def required(repository: Repository, suite: Suite) -> bool:
    """Say whether a suite must have evidence: where it has goldens, and catalogues formulations or faults."""
    catalogues = (repository.formulations(suite.name), repository.faults(suite.name))
    if "@" in suite.name or not any(path.is_file() for path in catalogues):
        return False
    return (repository.folder(suite.name) / MANIFEST).is_file()


def read_evidence(repository: Repository, suite: str) -> dict[str, Any]:
    """Read the evidence of a suite; raise `GoldenError`: missing, damaged or stale, with the mending command."""
    path = repository.folder(suite) / EVIDENCE
    mend = f"run: {evidence_command(suite)}"
    if not path.is_file():
        raise GoldenError("missing", f"{path} does not exist; {mend}")
    try:
        text = path.read_bytes().decode("utf-8")
        content: dict[str, Any] = json.loads(text)
        content.pop("sha256")
        intact = manifest_text(content) == text and content["schema"] == SCHEMA and content["suite"] == suite
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        intact, content = False, {}
    if not intact:
        raise GoldenError("damaged", f"{path} is not what was written; restore it from version control, or {mend}")
    if not isinstance(content.get("sources"), dict):
        raise GoldenError("damaged", f"{path} does not say what it was gathered with; {mend}")
    try:
        current = sources(repository, suite)
    except (KeyError, TypeError, tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise GoldenError(
            "damaged", f"{path}: tolerances.toml or the manifest cannot be read: {error}; {mend}"
        ) from None
    names = current.keys() | content["sources"].keys()
    changed = sorted(name for name in names if content["sources"].get(name) != current.get(name))
    if changed:
        raise GoldenError("stale", f"{path} was gathered with another state of: {', '.join(changed)}; {mend}")
    return content


def shortcomings(content: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with what the evidence shows, in words; nothing if all is well."""
    summary = content["summary"]
    found = []
    if summary["rejected"]:
        found.append(f"{summary['rejected']} correct runs are rejected")
    if summary["missed"]:
        found.append(f"{summary['missed']} faults are missed that should be visible")
    margin = content["open"]["smallest_margin"]  # what is held out is reported: limits are not chosen by it
    if not margin >= LEAST_MARGIN:
        found.append(f"the smallest margin is {margin:.2f}, wanted {LEAST_MARGIN}")
    return found


# --- sums ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Sums over formulations and faults.

    Attributes:
        correct_runs: comparisons of correct formulations: formulation x case x checkpoint x contract.
        rejected: those that did not pass.
        faults: fault x contract.
        caught: those that fail in some case.
        missed: those that pass everywhere although the goldens should see them.
        invisible: those that pass everywhere, as was known beforehand.
        named: caught in values and named right as first guess in the case that shows them best: where the fault is
            caught where it belongs, by the largest factor.
        misnamed: caught in values and named wrong, or not at all, in that case.
        named_in_case: the same as `named`, of fault x contract x case.
        misnamed_in_case: the same as `misnamed`, of fault x contract x case.
        correct_margin: the least factor by which a correct run stays below a limit.
        fault_margin: the least factor by which a caught fault is above one, in the case that shows it best.
    """

    correct_runs: int
    rejected: int
    faults: int
    caught: int
    missed: int
    invisible: int
    named: int
    misnamed: int
    named_in_case: int
    misnamed_in_case: int
    correct_margin: float
    fault_margin: float

    @property
    def smallest_margin(self) -> float:
        """Return the smaller of the two margins."""
        return min(self.correct_margin, self.fault_margin)


def summarise(formulations: Iterable[Mapping[str, Any]], faults: Iterable[Mapping[str, Any]]) -> Summary:
    """Sum up rows of an evidence file."""
    correct, planted = list(formulations), list(faults)
    caught = [row for row in planted if row["caught"]]
    valued = [row for row in caught if row["named"] is not None]
    return Summary(
        correct_runs=sum(row["comparisons"] for row in correct),
        rejected=sum(row["rejected"] for row in correct),
        faults=len(planted),
        caught=len(caught),
        missed=sum(not row["caught"] and row["visible"] for row in planted),
        invisible=sum(not row["caught"] and not row["visible"] for row in planted),
        named=sum(row["named"] for row in valued),
        misnamed=sum(not row["named"] for row in valued),
        named_in_case=sum(row["valued"] - len(row["guesses"]) for row in caught),
        misnamed_in_case=sum(len(row["guesses"]) for row in caught),
        correct_margin=min((row["margin"] for row in correct), default=ENDLESS),
        fault_margin=min((row["margin"] for row in caught), default=ENDLESS),
    )


def invisible_rows(contents: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return suite, fault, contract and signal of what is invisible, unless a suite sees a fault of the same name."""
    contents = list(contents)
    seen = {(row["fault"], row["contract"]) for content in contents for row in content["faults"] if row["caught"]}
    return [
        {"suite": content["suite"], "fault": row["fault"], "contract": row["contract"], "signal": row["signal"]}
        for content in contents
        for row in content["faults"]
        if not row["caught"] and not row["visible"] and (row["fault"], row["contract"]) not in seen
    ]


def as_json(contents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what `karat evidence --json` writes."""
    contents = list(contents)
    total = _total(contents, lambda _: True)
    return {
        "schema": SCHEMA,
        "correct_runs": total.correct_runs,
        "rejected": total.rejected,
        "faults": total.faults,
        "missed": total.missed,
        "misnamed": total.misnamed,
        "invisible": invisible_rows(contents),
        "smallest_margin": total.smallest_margin if contents else None,
        "suites": [{"suite": content["suite"], **content["summary"]} for content in contents],
    }


def _total(contents: Iterable[Mapping[str, Any]], counts: Any) -> Summary:
    contents = list(contents)
    return summarise(
        (row for content in contents for row in content["formulations"] if counts(row)),
        (row for content in contents for row in content["faults"] if counts(row)),
    )


def table(contents: Iterable[Mapping[str, Any]]) -> str:
    """Return the evidence as a Markdown table: a row for each contract, all and held out."""
    contents = list(contents)
    names = list(dict.fromkeys(row["contract"] for content in contents for row in content["formulations"]))
    invisible = invisible_rows(contents)
    lines = [
        _HEADINGS,
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in [*names, None]:
        all_rows = _total(contents, lambda row, name=name: name in (None, row["contract"]))
        held = _total(contents, lambda row, name=name: name in (None, row["contract"]) and row["held_out"])
        valued = all_rows.named + all_rows.misnamed
        unseen = sum(name in (None, row["contract"]) for row in invisible)
        lines.append(
            f"| {name or 'all'} | {all_rows.correct_runs:,} | {all_rows.rejected} | {all_rows.faults}"
            f" | {all_rows.caught} | {unseen} | {all_rows.missed}"
            f" | {all_rows.named} of {valued} | {_factor(all_rows.correct_margin)}, {_factor(all_rows.fault_margin)}"
            f" | {held.correct_runs:,}, {held.rejected} | {held.faults}, {held.missed} |"
        )
    return "\n".join(lines)


def text(contents: Iterable[Mapping[str, Any]]) -> str:
    """Return the evidence for people: the table, what is invisible, and what is wrong with it."""
    contents = list(contents)
    lines = [table(contents), ""]
    lines += [
        f"invisible: {row['suite']}/{row['fault']} under {row['contract']}: {row['signal']:.2g} σ, wanted 12"
        for row in invisible_rows(contents)
    ]
    for content in contents:
        lines += [f"{content['suite']}: {short}" for short in shortcomings(content)]
    return "\n".join(lines)


def _factor(margin: float) -> str:
    return "∞" if margin >= ENDLESS or math.isinf(margin) else f"{margin:.2g}"
