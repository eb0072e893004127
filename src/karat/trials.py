"""Gathers evidence: every formulation and every fault of a suite, under every contract, through the real check.

`python -m karat.trials [SUITE…]` is what `nox -s evidence` runs.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from karat import evidence, goldens
from karat.errors import KaratError
from karat.faults import Fault, FaultyCandidate, Formulation, load_faults, load_formulations, visible_cases
from karat.plot import draw
from karat.questions import Diagnosis
from karat.session import Session
from karat.suites import Case, Repository, Suite, find_repository
from karat.verdicts import DIVERGED, Verdict
from karat.visibility import CONTRACT, visibility_rows, visibility_text

_STATUSES_OF_VALUES = ("mismatch", "fault")


def gather(repository: Repository, name: str) -> dict[str, Any]:
    """Run all trials of a suite and return the content of its evidence file."""
    suite = repository.suite(name)
    goldens.GoldenSet.open(repository, name)  # here, where its error is told, not in a worker
    formulations: list[Formulation | Fault | None] = [None, *load_formulations(repository, suite)]
    faults = load_faults(repository, suite)
    correct, planted = _jobs("formulation", formulations, suite), _jobs("fault", faults, suite)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _open, (repository.root, name)) as pool:
        rows = []
        for row in pool.map(_run, [*correct, *planted], chunksize=1):
            rows.append(row)
            if len(rows) % 100 == 0:
                print(f"  {len(rows)} of {len(correct) + len(planted)} trials", flush=True)
    correct_rows, fault_rows = rows[: len(correct)], rows[len(correct) :]
    _write_visibility(repository, suite, fault_rows)
    checkpoints = _by_checkpoint(correct_rows, fault_rows)
    for row in correct_rows:
        del row["checkpoints"]
    return {
        "schema": evidence.SCHEMA,
        "suite": name,
        "sources": evidence.sources(repository, name),
        "summary": _summary(correct_rows, fault_rows),
        "open": _summary(*([row for row in rows if not row["held_out"]] for rows in (correct_rows, fault_rows))),
        "held_out": _summary(*([row for row in rows if row["held_out"]] for rows in (correct_rows, fault_rows))),
        "formulations": correct_rows,
        "faults": fault_rows,
        "checkpoints": checkpoints,
    }


def _write_visibility(repository: Repository, suite: Suite, fault_rows: Iterable[dict[str, Any]]) -> None:
    rows = [row.pop("visibility") for row in fault_rows]
    shown = [row for row in rows if row is not None]
    if shown:
        text = visibility_text(repository, suite, shown)
        path = repository.folder(suite.name) / goldens.VISIBILITY
        path.write_text(text, encoding="utf-8", newline="\n")


def _jobs(kind: str, entries: Sequence[Any], suite: Suite) -> list[tuple[str, int, str]]:
    return [
        (kind, index, contract)
        for contract in suite.contracts
        for index, entry in enumerate(entries)
        if _runs(entry, contract)
    ]


def _runs(entry: Formulation | Fault | None, contract: str) -> bool:
    if entry is None:
        return True
    missing = isinstance(entry, Formulation) and entry.needs and shutil.which(entry.needs) is None
    return contract in (entry.contracts or (contract,)) and not missing


def _summary(correct: Iterable[Mapping[str, Any]], planted: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    summary = evidence.summarise(correct, planted)
    return asdict(summary) | {"smallest_margin": summary.smallest_margin}


# --- in a worker -----------------------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _open(root: Path, name: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    repository = Repository(root)
    suite = repository.suite(name)
    plain = FaultyCandidate(repository.plain(name), suite.function, None)
    session = Session(repository, plain, [suite], findings=())
    signals: dict[tuple[str, str], float] = {}
    manifest = session.goldens(suite).manifest
    rows = [*manifest["signatures"], *({**row, "checkpoint": None} for row in manifest["certain"])]
    for row in rows:
        for contract in suite.contracts_of(suite.case(row["case"])):
            error = _error_along(session, suite.case(row["case"]), row, contract)
            key = (row["fault"], contract)
            signals[key] = max(signals.get(key, 0.0), 1 / error if error else evidence.ENDLESS)
    _worker.update(
        suite=suite,
        session=session,
        signals=signals,
        formulation=[None, *load_formulations(repository, suite)],
        fault=load_faults(repository, suite),
    )


def _end_with_parent() -> None:
    """End this process when the one that started it has been killed: nobody wants what it is about to find."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _error_along(session: Session, case: Case, row: Mapping[str, Any], contract: str) -> float:
    """Return the noise along a fault's signature under a contract, 0 where the fault shows without any."""
    if row["checkpoint"] is None:
        return 0.0
    inside = case.checkpoint(row["checkpoint"]).dtype == "accumulation"
    here = session.tolerances.contract(contract).inner.name if inside else contract
    return float(row["errors"].get(here, math.inf))


def _run(job: tuple[str, int, str]) -> dict[str, Any]:
    kind, index, contract = job
    entry = _worker[kind][index]
    suite, session = _worker["suite"], _worker["session"]
    large = kind == "formulation" and (entry is None or entry.large)
    cases = suite.cases if large else visible_cases(suite)
    candidate = FaultyCandidate(session.repository.plain(suite.name), suite.function, entry)
    trial = session.with_candidate(candidate)
    trial.to_first_divergence = kind == "fault" and contract != CONTRACT  # the matrix shows what is wrong after it
    observed = {
        case.name: trial.verdicts(suite, case, contract)
        for case in cases
        if contract in suite.contracts_of(case) and (kind == "fault" or entry is None or not case.refuses)
    }
    if kind == "formulation":
        name = "plain" if entry is None else entry.name
        return _correct_row(name, contract, observed, held_out=held_out(name))
    return _fault_row(entry, contract, observed, held_out=held_out(entry.name))


def held_out(name: str) -> bool:
    """Say whether a formulation or fault is of the third by which no limit may be chosen: its name's SHA-256 says."""
    return hashlib.sha256(name.encode()).digest()[0] % 3 == 0


def _correct_row(
    name: str, contract: str, observed: Mapping[str, Sequence[Verdict]], *, held_out: bool
) -> dict[str, Any]:
    compared = [verdict for verdicts in observed.values() for verdict in verdicts if verdict.status != "missing-output"]
    worst: dict[str, float] = {}
    checkpoints: dict[str, float] = {}
    for verdict in compared:
        checkpoints[verdict.checkpoint] = max(checkpoints.get(verdict.checkpoint, 0.0), _finite(verdict.used))
        for test in verdict.tests:
            worst[test.name] = max(worst.get(test.name, 0.0), round(_finite(test.value), 4))
    peak = max(compared, key=lambda verdict: verdict.used, default=None)
    used = peak.used if peak is not None else 0.0
    rejected = [verdict for verdict in compared if verdict.status not in ("pass", "unsupported")]
    return {
        "formulation": name,
        "contract": contract,
        "held_out": held_out,
        "comparisons": len(compared),
        "rejected": len(rejected),
        "accused": sum(verdict.status == "fault" for verdict in rejected),
        "margin": _margin(1 / used if used else evidence.ENDLESS),
        "at": peak.name if peak is not None else "",
        "worst": worst,
        "checkpoints": checkpoints,
    }


def _fault_row(
    fault: Fault, contract: str, observed: Mapping[str, Sequence[Verdict]], *, held_out: bool
) -> dict[str, Any]:
    best, place, guesses = 0.0, "", dict[str, str]()
    shown_best, named, valued = (False, -1.0), None, 0
    for case, verdicts in observed.items():
        failing = [verdict for verdict in verdicts if verdict.status != "pass"]
        if not failing:
            continue
        first = next((verdict for verdict in failing if verdict.first_divergence), failing[0])
        margin = max(_margin_of(verdict) for verdict in failing)
        if margin > best or not place:
            best, place = max(margin, best), f"{case}/{first.checkpoint}: {first.status}"
        right: bool | None = None  # no name is asked of what fails without values
        if _of_values(first) or (first.status == "nonfinite" and _is_known(fault, case)):
            valued += 1
            guess = first.diagnosis[0] if first.diagnosis else None
            right = guess is not None and _is_right(fault, guess, case, first)
            if not right:
                guesses[case] = guess.fault if guess is not None else "nothing"
        shown = (first.checkpoint in fault.at, margin)
        if shown > shown_best:
            shown_best, named = shown, right
    signal = _worker["signals"].get((fault.name, contract), 0.0)
    return {
        "fault": fault.name,
        "contract": contract,
        "held_out": held_out,
        "caught": bool(place),
        "at": place,
        "cases": sum(any(verdict.status != "pass" for verdict in verdicts) for verdicts in observed.values()),
        "margin": _margin(best),
        "signal": float(f"{min(signal, evidence.ENDLESS):.3g}"),
        "visible": signal >= _visible(),
        "valued": valued,
        "named": named,
        "guesses": guesses,
        "visibility": visibility_rows(_worker["suite"], fault, observed) if contract == CONTRACT else None,
    }


def _visible() -> float:
    rule = _worker["session"].tolerances.signatures
    return rule.visible if rule is not None else evidence.ENDLESS


def _is_known(fault: Fault, case: str) -> bool:
    """Say whether a case has a signature of a fault, so that it can be named though infinities show first."""
    rows = _worker["session"].goldens(_worker["suite"]).manifest["signatures"]
    return any(row["fault"] == fault.name and row["case"] == case for row in rows)


def _is_right(fault: Fault, guess: Diagnosis, case: str, verdict: Verdict) -> bool:
    """Say whether a guess is the fault, or one that does the same in this case, to 1 %."""
    if guess.fault == fault.name:
        return True
    rows = _worker["session"].goldens(_worker["suite"])
    signatures = rows.signatures(case, guess.at or verdict.checkpoint)
    directions = {signature.fault: signature.direction for signature in signatures}
    own, other = directions.get(fault.name), directions.get(guess.fault)
    if own is None or other is None:
        return False
    return float(np.linalg.norm(own - other)) <= 0.01 * float(np.linalg.norm(own))


def _of_values(verdict: Verdict) -> bool:
    """Say whether values failed; what answers where it must refuse is told by a text."""
    return verdict.status in _STATUSES_OF_VALUES and not verdict.text


def _margin_of(verdict: Verdict) -> float:
    if _of_values(verdict):
        return verdict.used
    return evidence.ENDLESS if verdict.status in DIVERGED or verdict.status == "raised" else 0.0


def _finite(value: float) -> float:
    """Return a value as JSON can hold it; NaN is as bad as infinity."""
    return min(evidence.ENDLESS, value)


def _margin(value: float) -> float:
    return float(f"{min(value, evidence.ENDLESS):.4g}")


def _by_checkpoint(correct: Iterable[Mapping[str, Any]], planted: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each checkpoint and contract both margins: of correct runs, and of the fault nearest to a limit."""
    used: dict[tuple[str, str], float] = {}
    for row in correct:
        for checkpoint, value in row["checkpoints"].items():
            key = (row["contract"], checkpoint)
            used[key] = max(used.get(key, 0.0), value)
    nearest: dict[tuple[str, str], tuple[float, str]] = {}
    for row in planted:
        if row["caught"]:
            checkpoint = row["at"].partition("/")[2].partition(":")[0]
            key = (row["contract"], checkpoint)
            nearest[key] = min(nearest.get(key, (math.inf, "")), (row["margin"], row["fault"]))
    return [
        {
            "contract": contract,
            "checkpoint": checkpoint,
            "correct_margin": _margin(1 / value if value else evidence.ENDLESS),
            "fault": nearest.get((contract, checkpoint), (0.0, ""))[1],
            "fault_margin": nearest.get((contract, checkpoint), (evidence.ENDLESS, ""))[0],
        }
        for (contract, checkpoint), value in used.items()
    ]


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m karat.trials`; return its exit code."""
    parser = argparse.ArgumentParser(prog="nox -s evidence --", description="Gather the evidence of suites.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="default: every suite")
    options = parser.parse_args(arguments)
    try:
        repository = find_repository()
        names = options.suites or [
            name for name, suite in repository.suites.items() if evidence.required(repository, suite)
        ]
        failed = False
        for name in names:
            print(f"trying the formulations and faults of {name}", flush=True)
            content = gather(repository, name)
            folder = repository.folder(name)
            path = folder / evidence.EVIDENCE
            path.write_text(goldens.manifest_text(content), encoding="utf-8", newline="\n")
            draw(content, repository.suite(name), folder / evidence.PLOT)
            print(evidence.text([content]))
            for short in evidence.shortcomings(content):
                failed = True
                print(f"{name}: {short}", file=sys.stderr)
    except KaratError as error:
        print(f"karat: {error}", file=sys.stderr)
        return error.exit_code
    return 3 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
