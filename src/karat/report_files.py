"""Verdicts to files for other programs: JSON and JUnit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any
from xml.etree import ElementTree as ET

from karat import properties
from karat.gate import Finding
from karat.properties import Outcome
from karat.report import RUN_STATUSES, exit_code, explain, forbidden, verdict_name
from karat.session import Report
from karat.suites import Repository
from karat.tolerances import Limits, Tolerance
from karat.verdicts import Verdict

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


# --- JSON ------------------------------------------------------------------------------------------------------------


def as_json(report: Report, outcomes: Sequence[Outcome] = ()) -> str:
    """Return the report, with its properties, as JSON, schema 1.

    NaN and infinities are the strings `NaN`, `Infinity`, `-Infinity`. Indices are those of the whole checkpoint.
    """
    content = {
        "schema": 1,
        "candidate": report.candidate,
        "verdict": verdict_name(report, outcomes),
        "exit_code": exit_code(report, outcomes),
        "counts": report.counts,
        "results": [_result(verdict) for verdict in report.verdicts],
        "findings": findings_json(report.findings),
        "extra": report.extra,
        **({"properties": properties.as_json(outcomes)} if outcomes else {}),
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
            {"fault": d.fault, "strength": d.strength, "uncertainty": d.uncertainty, "text": d.text, "spared": d.spared}
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
    return "error" if verdict.status in RUN_STATUSES or verdict.status.startswith("golden-") else "failure"


def _xml_safe(message: str) -> str:
    """Return a text without what XML 1.0 forbids."""
    return "".join(c if c in "\t\n" or (c >= " " and not forbidden(c)) else "?" for c in message)
