"""Verdicts to terminal text, JSON and JUnit."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any
from xml.etree import ElementTree as ET

from karat.gate import Finding
from karat.session import Report
from karat.suites import Repository
from karat.tolerances import Limits, Tolerance
from karat.verdicts import DIVERGED, Test, Verdict

_FULL_BLOCKS = 3  # failing cases that are told in full, one for each first divergence; the others in a line
_REPORTED = (
    "rms_sigma",
    "max_sigma",
    "row_sigma",
    "gain",
    "gain_error",
    "bias",
    "bias_error",
    "max_ulp",
    "cosine",
    "nmse",
)  # statistics that the JSON report has beside the first ones
_RUN_STATUSES = ("raised", "crashed", "timeout")  # said once a case, not once a checkpoint


def verdict_name(report: Report) -> str:
    """Return the word for the whole run: `pass`, `fail` or `nothing-compared`."""
    return {0: "pass", 5: "nothing-compared"}.get(report.exit_code, "fail")


# --- terminal --------------------------------------------------------------------------------------------------------


def text(report: Report, repository: Repository) -> str:
    """Return the report for people: a line for each case and contract, then the failures, then the sum."""
    lines: list[str] = []
    told: set[str] = set()  # first divergences
    earlier_texts: set[str] = set()
    for _, group in groupby(report.verdicts, key=lambda verdict: (verdict.suite, verdict.case, verdict.contract)):
        verdicts = list(group)
        lines.append(_case_line(report, verdicts))
        failures = [verdict for verdict in verdicts if report.fails(verdict)]
        if failures and len(told) < _FULL_BLOCKS and _short(failures) not in told:
            told.add(_short(failures))
            lines += [f"  {line}" for line in _failure_lines(verdicts, failures, repository, earlier_texts)]
        elif failures:
            lines.append(f"  {_short(failures)}{_likely(failures)}")
    lines += [f"golden {finding}" for finding in report.findings]
    for place, names in report.extra.items():
        if any(v.status == "missing-output" and f"{v.suite}/{v.case}" == place for v in report.verdicts):
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            lines.append(f"note: {place}: not asked for and not compared: {shown}")
    lines += _finer(report)
    lines += _hints(report)
    lines.append(_sum_line(report))
    return printable("\n".join(lines))


def printable(message: str) -> str:
    """Return a text with control characters and lone surrogates, which a candidate may have put there, escaped."""
    return "".join(
        c if c in "\n\t" or (c.isprintable() and not _forbidden(c)) else c.encode("unicode_escape").decode()
        for c in message
    )


def _case_line(report: Report, verdicts: Sequence[Verdict]) -> str:
    first = verdicts[0]
    counts = Report(report.candidate, verdicts).counts
    used = max((v.used for v in verdicts if v.status == "pass"), default=0.0)
    reason = f": {first.text}" if set(counts) == {"unsupported"} else ""
    share = f"; at most {used:.0%} of the tolerance used" if counts.get("pass") and len(counts) == 1 else ""
    if first.status == "pass" and first.statistics is None and first.text:  # what it said to refused inputs
        share = f"; it refused: {first.text.strip().splitlines()[-1]}"
    return f"{first.suite}/{first.case}/{first.contract}: {_count_text(counts)}{share}{reason}"


def _count_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "nothing compared"


def _failure_lines(
    verdicts: Sequence[Verdict],
    failures: Sequence[Verdict],
    repository: Repository,
    earlier_texts: set[str],
) -> list[str]:
    """Tell the first divergence in full, and what is not a consequence of it; count the rest."""
    first = next((verdict for verdict in failures if verdict.first_divergence), None)
    diverged = next((verdict for verdict in failures if verdict.status in DIVERGED), None)
    lines: list[str] = []
    rest: list[Verdict] = []
    for verdict in failures:
        if verdict is first:
            lines += explain(verdict, repository, before=_before(verdicts, verdict))
        elif first is None and verdict is diverged:
            lines += explain(verdict, repository, before="the case diverged before it, at a checkpoint not selected")
        elif verdict.text and verdict.status not in DIVERGED:
            if (verdict.status + verdict.text) not in earlier_texts:
                earlier_texts.add(verdict.status + verdict.text)
                lines += _say_run(verdict) if verdict.status in _RUN_STATUSES else explain(verdict, repository)
        else:
            rest.append(verdict)
    if rest:
        names = ", ".join(f"{verdict.checkpoint} ({verdict.status})" for verdict in rest[:6])
        lines.append(f"after it, {len(rest)} more: {names}{', …' if len(rest) > 6 else ''}")
    return lines


def _say_run(verdict: Verdict) -> list[str]:
    head = f"{verdict.suite}/{verdict.case}/{verdict.contract}: {verdict.status}"
    return [head, *(f"  {line}" for line in verdict.text.splitlines())]


def _before(verdicts: Sequence[Verdict], verdict: Verdict) -> str:
    """Say what is known of the checkpoints before the first divergence."""
    earlier = verdicts[: list(verdicts).index(verdict)]
    unknown = [other.checkpoint for other in earlier if other.status != "pass"]
    if not earlier:
        return "first divergence; it is the first checkpoint"
    if unknown:
        return f"first divergence; before it, not known: {', '.join(unknown[:4])}{', …' if len(unknown) > 4 else ''}"
    return "first divergence; all that was compared before it passed"


def explain(verdict: Verdict, repository: Repository, *, before: str = "") -> list[str]:
    """Return the lines that say what was found, what was allowed, where, and by which tolerance."""
    lines = [f"{verdict.name}: {verdict.status}{f' ({before})' if before else ''}"]
    statistics = verdict.statistics
    if verdict.status != "nonfinite" or statistics is None:  # else the text stands within a line below
        lines += [f"  {line}" for line in verdict.text.splitlines()]
    if statistics is None:
        return lines
    beyond = f"{statistics.mismatched} of {statistics.elements} elements beyond"
    place = _place(verdict, repository, statistics.worst)
    if verdict.status == "nonfinite":
        others = f"{statistics.mismatched - statistics.nonfinite} of the others are beyond their tolerance"
        lines.append(f"  {verdict.text}, of {statistics.elements} elements, first {place}; {others}")
    elif verdict.tests:
        lines += _sigma_lines(verdict, place, beyond)
    elif isinstance(verdict.tolerance, Tolerance) and math.isfinite(statistics.used):
        allowed = abs(statistics.golden or 0) * verdict.tolerance.rtol + verdict.tolerance.atol_rms * verdict.rms
        error = abs((statistics.candidate or 0) - (statistics.golden or 0))
        lines.append(f"  error {error:.3g} {place}, allowed {allowed:.3g}; rms {statistics.rms_abs:.3g}; {beyond}")
    else:
        lines.append(f"  {beyond}, the first {place}")
    lines.append(f"  candidate {_number(statistics.candidate)} where the golden is {_number(statistics.golden)}")
    for number, diagnosis in enumerate(verdict.diagnosis):
        lines.append(f"  {'' if number else 'likely '}{diagnosis.fault}: {diagnosis.text}")
    if verdict.status == "nonfinite":
        return lines  # no tolerance would let it pass
    if isinstance(verdict.tolerance, Limits):
        lines.append(f"  tolerance: {verdict.tolerance.source}{_passing(verdict)}")
    elif verdict.tolerance is not None:
        passing = f"; it would pass at {statistics.used:.3g} times that" if 1 < statistics.used < math.inf else ""
        lines.append(
            f"  tolerance: {verdict.tolerance.source}: rtol {verdict.tolerance.rtol:.3g},"
            f" atol {verdict.tolerance.atol_rms:.3g} of the golden's RMS {verdict.rms:.3g}{passing}"
        )
    return lines


def _sigma_lines(verdict: Verdict, place: str, beyond: str) -> list[str]:
    """Return what was found in sigma, the predicted standard deviation of a correct candidate's error."""
    statistics = verdict.statistics
    if statistics is None:
        return []
    tests = {test.name: test for test in verdict.tests}
    first = f"  error {_sigma(tests['max'])}, {place}; {beyond}"
    if math.isinf(tests["max"].value):
        first = f"  {beyond}, at a place where the golden is exactly 0: {place}"
    lines = [first, f"  rms {_sigma(tests['rms'])}"]
    if not tests["row"].passed and statistics.row is not None:
        lines[1] += f"; the worst row, {statistics.row}, {_sigma(tests['row'])}"
    if "signature" in tests and not tests["signature"].passed:
        share = f"{tests['signature'].value:.2f} (allowed {tests['signature'].limit:.2g})"
        lines.append(f"  each element is within its noise, but together they are {share} of what a mistake does")
    for name in ("gain", "bias"):
        if name in tests and not tests[name].passed and not tests["rms"].value > 10 * tests["rms"].limit:
            value = statistics.gain if name == "gain" else statistics.bias
            lines.append(f"  {name} {value:.3g}, which is {_sigma(tests[name])} of what noise makes of it")
    return lines


def _sigma(test: Test) -> str:
    return f"{test.value:.3g} σ (allowed {test.limit:.3g})"


def _passing(verdict: Verdict) -> str:
    """Say at how many times the limits a failing output would pass."""
    return f"; it would pass at {verdict.used:.3g} times its limits" if 1 < verdict.used < math.inf else ""


def _place(verdict: Verdict, repository: Repository, index: tuple[int, ...] | None) -> str:
    """Return an index with the labels of its axes."""
    if index is None:
        return "nowhere"
    checkpoint = repository.suite(verdict.suite).case(verdict.case).checkpoint(verdict.checkpoint)
    labels = ", ".join(f"{label} {i}" for label, i in zip(checkpoint.axes, index, strict=False))
    return f"at {index}{f' ({labels})' if labels else ''}"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.8g}"


def _short(failures: Sequence[Verdict]) -> str:
    first = next((verdict for verdict in failures if verdict.first_divergence), failures[0])
    if first.status in _RUN_STATUSES or first.status.startswith("golden-"):
        return f"{first.status}: {first.text.splitlines()[-1] if first.text else 'no reason given'}"
    return f"{first.status}, first at {first.checkpoint}"


def _likely(failures: Sequence[Verdict]) -> str:
    """Name the mistake that was told in full of another case, or that is another one here."""
    first = next((verdict for verdict in failures if verdict.first_divergence), failures[0])
    return f", likely {first.diagnosis[0].fault}" if first.diagnosis else ""


def _finer(report: Report) -> list[str]:
    """Tell where a candidate computes more exactly than it promised."""
    notes = [verdict for verdict in report.verdicts if verdict.status == "pass" and verdict.statistics and verdict.text]
    if not notes:
        return []
    others = f" (and {len(notes) - 1} more checkpoints)" if len(notes) > 1 else ""
    return [f"note: {notes[0].name}{others}: {notes[0].text}"]


def _hints(report: Report) -> list[str]:
    first = next((verdict for verdict in report.verdicts if verdict.first_divergence), None)
    if first is not None:
        prefix = ".".join(first.checkpoint.split(".")[:-1])
        pattern = f"{first.suite}/{first.case}/{prefix + '.*' if prefix else first.checkpoint}"
        words = ["karat", "check", report.candidate, pattern, "--contract", first.contract]
        return [f"hint: {shlex.join(words)} checks only this part"]
    if report.exit_code == 5:
        reasons = sorted({verdict.text for verdict in report.verdicts if verdict.text})
        return [f"hint: nothing was compared: {reason}" for reason in reasons[:3]]
    return []


def _sum_line(report: Report) -> str:
    word = {0: "PASS", 5: "NOTHING COMPARED", 3: "GOLDENS NOT USABLE"}.get(report.exit_code, "FAIL")
    unsupported = " (unsupported is not checked; --require demands it)" if "unsupported" in report.counts else ""
    return f"{word}: {report.candidate}: {_count_text(report.counts)}{unsupported}{_first_text(report)}"


def _first_text(report: Report) -> str:
    """Name the checkpoint at which most cases diverge first."""
    firsts = Counter(verdict.checkpoint for verdict in report.verdicts if verdict.first_divergence)
    if not firsts:
        return ""
    checkpoint, number = firsts.most_common(1)[0]
    return f"; first divergence at {checkpoint} in {number} of {firsts.total()} diverging cases"


def findings_text(findings: Iterable[Finding]) -> str:
    """Return the gate's findings for people."""
    lines = [str(finding) for finding in findings]
    return "\n".join(
        [*lines, f"GATE CLOSED: {len(lines)} finding(s)"]
        if lines
        else ["gate open: goldens complete, intact and fresh"]
    )


# --- JSON ------------------------------------------------------------------------------------------------------------


def as_json(report: Report, properties: Sequence[Mapping[str, str]] = ()) -> str:
    """Return the report as JSON, schema 1; NaN and infinities are the strings `NaN`, `Infinity`, `-Infinity`.

    Indices are those of the whole checkpoint.
    """
    content = {
        "schema": 1,
        "candidate": report.candidate,
        "verdict": verdict_name(report),
        "exit_code": report.exit_code,
        "counts": report.counts,
        "results": [_result(verdict) for verdict in report.verdicts],
        "findings": findings_json(report.findings),
        "extra": report.extra,
        **({"properties": list(properties)} if properties else {}),
    }
    return json.dumps(_strict(content), indent=1, allow_nan=False)


def _result(verdict: Verdict) -> dict[str, Any]:
    statistics, tolerance = verdict.statistics, verdict.tolerance
    return {
        "suite": verdict.suite,
        "case": verdict.case,
        "contract": verdict.contract,
        "checkpoint": verdict.checkpoint,
        "status": verdict.status,
        "shape": list(verdict.shape),
        "statistics": None
        if statistics is None
        else {
            "max_abs": statistics.max_abs,
            "max_rel": statistics.max_rel,
            "rms_abs": statistics.rms_abs,
            "mismatched": statistics.mismatched,
            "nonfinite": statistics.nonfinite,
            "elements": statistics.elements,
            "used": verdict.used,
            **{key: getattr(statistics, key) for key in _REPORTED},
            "row": None if statistics.row is None else list(statistics.row),
            "slices": [{"axis": axis, "index": index, "rms_sigma": rms} for axis, index, rms in statistics.slices],
        },
        "allowed": None if tolerance is None else _allowed(verdict, tolerance),
        "worst": None
        if statistics is None or statistics.worst is None
        else {"index": list(statistics.worst), "candidate": statistics.candidate, "golden": statistics.golden},
        "first_divergence": verdict.first_divergence,
        "diagnosis": [
            {"fault": d.fault, "strength": d.strength, "uncertainty": d.uncertainty, "text": d.text}
            for d in verdict.diagnosis
        ],
        "text": verdict.text,
    }


def _allowed(verdict: Verdict, tolerance: Tolerance | Limits) -> dict[str, Any]:
    if isinstance(tolerance, Limits):
        return {f"{test.name}_sigma": test.limit for test in verdict.tests} | {"source": tolerance.source}
    return {
        "rtol": tolerance.rtol,
        "atol": tolerance.atol_rms * verdict.rms,
        "atol_rms": tolerance.atol_rms,
        "source": tolerance.source,
    }


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, (list, tuple)) else value


def findings_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return the gate's findings as JSON values."""
    keys = ("kind", "suite", "case", "checkpoint", "file", "message")
    return [{key: getattr(finding, key) for key in keys} for finding in findings]


# --- JUnit -----------------------------------------------------------------------------------------------------------


def as_junit(report: Report, repository: Repository) -> str:
    """Return the report as JUnit XML: a test suite for each case and contract, a test case for each checkpoint."""
    number = len(report.verdicts) + len(report.findings)
    root = ET.Element("testsuites", name="karat", tests=str(number))
    for key, group in groupby(report.verdicts, key=lambda verdict: (verdict.suite, verdict.case, verdict.contract)):
        verdicts = list(group)
        kinds = [_junit_kind(report, verdict) for verdict in verdicts]
        suite = ET.SubElement(
            root,
            "testsuite",
            name="/".join(key),
            tests=str(len(verdicts)),
            failures=str(kinds.count("failure")),
            errors=str(kinds.count("error")),
            skipped=str(kinds.count("skipped")),
        )
        for verdict, kind in zip(verdicts, kinds, strict=True):
            test = ET.SubElement(suite, "testcase", classname="/".join(key), name=verdict.checkpoint)
            if kind:
                element = ET.SubElement(test, kind, message=verdict.status)
                element.text = _xml_safe("\n".join(explain(verdict, repository)))
    for finding in report.findings:
        suite = ET.SubElement(root, "testsuite", name="goldens", tests="1", failures="0", errors="1", skipped="0")
        test = ET.SubElement(suite, "testcase", classname="goldens", name=_xml_safe(finding.file))
        ET.SubElement(test, "error", message=finding.kind).text = _xml_safe(finding.message)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _junit_kind(report: Report, verdict: Verdict) -> str:
    if not report.fails(verdict):
        return "skipped" if verdict.status == "unsupported" else ""
    return "error" if verdict.status in _RUN_STATUSES or verdict.status.startswith("golden-") else "failure"


def _xml_safe(message: str) -> str:
    """Return a text without what XML 1.0 forbids."""
    return "".join(c if c in "\t\n" or (c >= " " and not _forbidden(c)) else "?" for c in message)


def _forbidden(character: str) -> bool:
    return "\ud800" <= character <= "\udfff" or character in "\ufffe\uffff"
