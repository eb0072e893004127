"""karat.report_files: JSON is strict and has what others rely on; JUnit parses, whatever a candidate printed."""

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from karat import report as reports
from karat import report_files
from karat.compare import Statistics
from karat.gate import Finding
from karat.session import Report
from karat.suites import Case, Checkpoint, Repository, Selection, Suite
from karat.tolerances import Tolerance
from karat.verdicts import STATUSES, Verdict

NAMES = ("h.0.scores", "h.0.out")
CASES = tuple(Case(name, {}, {}, tuple(Checkpoint(c, (2, 3)) for c in NAMES)) for name in ("small", "tiny"))
REPOSITORY = Repository(Path("nowhere"))
vars(REPOSITORY)["suites"] = {"demo": Suite("demo", "about", ("float32",), CASES)}  # what it would find in validators/

TOLERANCE = Tolerance(0.25, 0.005, "tolerances.toml, [override 1]", "measured")
OFF = Statistics(6, 3, 0.5, 0.25, 0.125, 50.0, 0, (1, 2), 1.5, 1.0)
FINDING = Finding("unlisted", "demo", None, None, "goldens/demo/x", "goldens/demo/x is not listed; run: freeze")
FORBIDDEN = "".join(map(chr, [*range(9), 11, 12, *range(14, 32), 0xD800, 0xDFFF, 0xFFFE, 0xFFFF]))


def verdict(status="mismatch", *, case="small", checkpoint="h.0.out", statistics=OFF, text="", first=False):
    """Return a verdict on a checkpoint of the suite above."""
    tolerance = None if statistics is None else TOLERANCE
    return Verdict(
        "demo",
        case,
        "float32",
        checkpoint,
        status,
        (2, 3),
        statistics,
        tolerance,
        rms=2.0,
        text=text,
        first_divergence=first,
    )


def told(status, case="small", text="why"):
    """Return a verdict without values."""
    return verdict(status, case=case, statistics=None, text=text)


def strict(text):
    """Parse JSON as a strict reader does, which knows no NaN and no Infinity."""

    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


def junit(report):
    """Return the root of the JUnit report, parsed from bytes as programs do."""
    return ET.fromstring(report_files.as_junit(report, REPOSITORY).encode())


def test_the_json_has_the_fields_that_others_rely_on():
    """Fields may be added, never renamed."""
    content = strict(report_files.as_json(Report("py:x", [verdict(first=True)], [FINDING], {"demo/small": ["more"]})))
    assert content["schema"] == 1
    assert content["candidate"] == "py:x"
    assert content["counts"] == {"mismatch": 1}
    assert content["verdict"] == "fail"
    (result,) = content["results"]
    named = {
        key: result[key] for key in ("suite", "case", "contract", "checkpoint", "status", "shape", "first_divergence")
    }
    place = {"suite": "demo", "case": "small", "contract": "float32", "checkpoint": "h.0.out"}
    assert named == {**place, "status": "mismatch", "shape": [2, 3], "first_divergence": True}
    known = {"max_abs": 0.5, "max_rel": 0.25, "rms_sigma": None, "max_sigma": None, "mismatched": 3, "elements": 6}
    assert result["statistics"] == {**result["statistics"], **known, "rms_abs": 0.125, "used": 50.0, "nonfinite": 0}
    assert result["worst"] == {"index": [1, 2], "candidate": 1.5, "golden": 1.0}
    assert result["allowed"] == {"rtol": 0.25, "atol": 0.01, "atol_rms": 0.005, "source": TOLERANCE.source}
    assert result["diagnosis"] == []
    assert content["extra"] == {"demo/small": ["more"]}


def test_a_verdict_without_values_has_no_statistics():
    """Where nothing was compared there is nothing to say of values, and what happened is told."""
    raised = Report("py:x", [told("raised", text="ValueError: \x1b[31m\ud800")])
    (result,) = strict(report_files.as_json(raised))["results"]
    assert result["statistics"] is result["allowed"] is result["worst"] is None
    assert result["text"] == "ValueError: \x1b[31m\ud800"


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_json_is_strict(value, word):
    """NaN and infinities, which JSON has not, are the strings NaN, Infinity and -Infinity."""
    odd = replace(OFF, max_abs=value, used=value, candidate=value, golden=value)
    (result,) = strict(report_files.as_json(Report("py:x", [verdict("nonfinite", statistics=odd)])))["results"]
    assert result["statistics"]["max_abs"] == result["statistics"]["used"] == word
    assert result["worst"] == {"index": [1, 2], "candidate": word, "golden": word}


def test_findings_are_those_of_the_gate():
    """`findings` are kind, suite, case, checkpoint, file and message, in `check` as in `gate`."""
    expected = {"kind": "unlisted", "suite": "demo", "case": None, "checkpoint": None, "file": "goldens/demo/x"}
    assert report_files.findings_json([FINDING]) == [{**expected, "message": FINDING.message}]
    content = strict(report_files.as_json(Report("py:x", [], [FINDING])))
    assert content["findings"] == report_files.findings_json([FINDING])


def test_counts_are_of_every_status_in_its_order():
    """`counts` has each status that occurs, in the order of the statuses, and adds up."""
    every = [told(status) for status in reversed(STATUSES)] + [told("pass")]
    content = strict(report_files.as_json(Report("py:x", every)))
    assert list(content["counts"]) == list(STATUSES)
    assert content["counts"]["pass"] == 2
    assert sum(content["counts"].values()) == len(content["results"]) == 15


KINDS = {
    "pass": None,
    "mismatch": "failure",
    "shape": "failure",
    "nonfinite": "failure",
    "missing-output": "failure",
    "raised": "error",
    "crashed": "error",
    "timeout": "error",
    "golden-missing": "error",
    "golden-stale": "error",
    "unsupported": "skipped",
}


@pytest.mark.parametrize(("status", "kind"), KINDS.items())
def test_junit_knows_failures_errors_and_what_was_skipped(status, kind):
    """A wrong value is a failure, what could not be run or judged an error, what is not supported skipped."""
    root = junit(Report("py:x", [told(status, text="because\nof this")]))
    assert [(suite.tag, suite.get("name")) for suite in root] == [("testsuite", "demo/small/float32")]
    (test,) = root.iter("testcase")
    assert (test.get("classname"), test.get("name")) == ("demo/small/float32", "h.0.out")
    assert [child.tag for child in test] == [kind] * (kind is not None)
    for child in test:
        assert child.get("message") == status
        assert child.text == f"demo/small/float32/h.0.out: {status}\n  because\n  of this"


def test_what_an_owner_demands_is_a_failure():
    """An unsupported checkpoint that is required fails, in JUnit as in the exit code."""
    root = junit(Report("py:x", [told("unsupported")], required=Selection.parse(["demo"])))
    assert len(root.findall(".//failure")) == 1
    assert not root.findall(".//skipped")


@pytest.mark.parametrize("findings", [[], [FINDING, FINDING]], ids=["no findings", "findings"])
def test_the_counts_of_junit_agree_with_its_elements(findings):
    """What a suite says of its tests, failures, errors and skipped is how many there are; all suites add up."""
    statuses = ["pass", "mismatch", "raised", "unsupported", "timeout", "shape"]
    verdicts = [told(status, case) for case in ("small", "tiny") for status in statuses]
    root = junit(Report("py:x", verdicts, findings))
    for suite in root:
        for attribute, tag in (
            ("tests", "testcase"),
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
        ):
            assert int(suite.get(attribute)) == len(list(suite.iter(tag))), (suite.get("name"), attribute)
    assert int(root.get("tests")) == len(list(root.iter("testcase"))) == 12 + len(findings)


@pytest.mark.parametrize("where", ["output of the candidate", "message of a finding", "file of a finding"])
def test_junit_parses_whatever_was_printed(where):
    """Control characters, which XML cannot hold, are replaced; what stands around them is kept."""
    printed = f"before{FORBIDDEN}<after> & 'naïve' 模型"
    finding = replace(FINDING, **({"file": printed} if where.startswith("file") else {"message": printed}))
    by_candidate = where == "output of the candidate"
    root = junit(
        Report("py:x", [told("raised", text=printed)] if by_candidate else [], [] if by_candidate else [finding])
    )
    (test,) = root.iter("testcase")
    found = test.get("name") if where.startswith("file") else test[0].text
    assert found.replace("?", "").replace("\n  ", "").endswith("before<after> & 'naïve' 模型")


def test_junit_tells_a_mismatch_as_the_terminal_does():
    """The text of a failure is what `explain` says of it."""
    (failure,) = junit(Report("py:x", [verdict()])).iter("failure")
    assert failure.text.splitlines() == reports.explain(verdict(), REPOSITORY)
    assert failure.text.splitlines()[1] == "  error 0.5 at (1, 2), allowed 0.26; rms 0.125; 3 of 6 elements beyond"


@pytest.mark.parametrize("findings", [[], [FINDING, replace(FINDING, suite=None)]], ids=["open", "closed"])
def test_the_gate_says_each_finding_and_how_many(findings):
    """Each finding is a line with its kind, its place and the command that mends it."""
    *lines, last = reports.findings_text(findings).splitlines()
    assert last == ("GATE CLOSED: 2 finding(s)" if findings else "gate open: goldens complete, intact and fresh")
    assert lines == [f"unlisted: demo: {FINDING.message}", f"unlisted: {FINDING.message}"][: len(findings)]
