"""karat.report: a message says what, found, allowed, where and what next, and all counts agree."""

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from karat import report as reports
from karat import report_files
from karat.compare import Statistics
from karat.gate import Finding
from karat.properties import Outcome
from karat.questions import Diagnosis
from karat.session import Report
from karat.suites import Case, Checkpoint, Property, Repository, Selection, Suite
from karat.tolerances import Tolerance
from karat.verdicts import Test, Verdict

CHECKPOINTS = (
    Checkpoint("h.0.scores", (2, 3, 4), ("batch", "query", "key"), keep={"key": (1, 3)}),
    Checkpoint("h.0.out", (2, 3)),
    Checkpoint("tokens", (2,), dtype="integer"),
    Checkpoint("loss", ()),
)
SUITE = Suite("demo", "about", ("float32",), tuple(Case(f"case-{n}", {}, {}, CHECKPOINTS) for n in range(6)))
REPOSITORY = Repository(Path("nowhere"))
vars(REPOSITORY)["suites"] = {"demo": SUITE}  # what it would find in validators/

TOLERANCE = Tolerance(0.0, 0.005, "tolerances.toml, [class.default.float32]", "measured")
OFF = Statistics(12, 3, 0.5, 0.25, 0.125, 50.0, 0, (1, 2, 1), 1.5, 1.0)  # of an RMS of 2: 0.5 where 0.01 is allowed
FINE = Statistics(6, 0, 0.005, 0.005, 0.001, 0.5, 0, (0, 1), 1.005, 1.0)
NAN = replace(OFF, nonfinite=2, worst=(0, 0, 2), candidate=math.nan, used=0.25)
NO_PLACE = replace(OFF, worst=None)
WRONG_INDEX = Statistics(2, 1, 0.0, 0.0, 0.0, math.inf, 0, (1,), 7, 3)
STALE = Finding("stale", "demo", None, None, "validators/demo.py", "validators/demo.py changed; run: freeze")


def verdict(checkpoint="h.0.scores", status="pass", text="", statistics=None, case="case-0", *, first=False):
    """Return a verdict on a checkpoint of the suite above, with the tolerance above where values were compared."""
    tolerance = TOLERANCE if statistics is not None and statistics is not WRONG_INDEX else None
    shape = SUITE.case(case).checkpoint(checkpoint).kept_shape
    return Verdict(
        "demo",
        case,
        "float32",
        checkpoint,
        status,
        shape,
        statistics,
        tolerance,
        rms=2.0,
        text=text,
        first_divergence=first,
    )


PASSED = verdict("h.0.out", statistics=FINE)
MISMATCH = verdict("h.0.scores", "mismatch", statistics=OFF, first=True)
RAISED = [verdict(c.name, "raised", "ValueError: no\n| line 3") for c in CHECKPOINTS]
UNSUPPORTED = verdict("tokens", "unsupported", "the candidate says that it does not provide it")
MISSING = verdict("tokens", "missing-output", "the candidate did not produce it")
GOLDEN_MISSING = verdict("tokens", "golden-missing", "tokens is not among the goldens; run: freeze")


def lines_of(*verdicts, candidate="py:mine.py", **fields):
    """Return the lines of the report on these verdicts."""
    return reports.text(Report(candidate, verdicts, **fields), REPOSITORY).splitlines()


def test_a_mismatch_says_what_found_allowed_where_and_by_which_tolerance():
    """One shape: name and status, error and allowed and where, candidate and golden, tolerance, and what would pass."""
    written = "tolerances.toml, [class.default.float32]: rtol 0, atol 0.005 of the golden's RMS 2"
    assert lines_of(MISMATCH) == [
        "demo/case-0/float32: 1 mismatch",
        "  demo/case-0/float32/h.0.scores: mismatch (first divergence; it is the first checkpoint)",
        "    error 0.5 at (1, 2, 1) (batch 1, query 2, key 1), allowed 0.01; rms 0.125; 3 of 12 elements beyond",
        "    candidate 1.5 where the golden is 1",
        f"    tolerance: {written}; it would pass at 50 times that",
        "hint: karat check py:mine.py 'demo/case-0/h.0.*' --contract float32 checks only this part",
        "FAIL: py:mine.py: 1 mismatch; first divergence at h.0.scores in 1 of 1 diverging cases",
    ]


AT = "(0, 0, 2) (batch 0, query 0, key 2)"
FIRST = f"of 12 elements, first at {AT}"
EXPLAINED = {
    "nonfinite": (
        verdict("h.0.scores", "nonfinite", statistics=NAN, text="2 NaN where the golden is finite"),
        [f"2 NaN where the golden is finite, {FIRST}; 1 of the others are beyond their tolerance"],
        ["candidate nan where the golden is 1"],
    ),
    "integers": (
        verdict("tokens", "mismatch", statistics=WRONG_INDEX),
        ["1 of 2 elements beyond, the first at (1,)", "candidate 7 where the golden is 3"],
        [],
    ),
    "scalar": (
        verdict("loss", "mismatch", statistics=replace(OFF, elements=1, mismatched=1, worst=())),
        ["error 0.5 at (), allowed 0.01; rms 0.125; 1 of 1 elements beyond", "candidate 1.5 where the golden is 1"],
        [],
    ),
    "shape": (verdict("tokens", "shape", "shape (3,), wanted (2,)"), ["shape (3,), wanted (2,)"], []),
    "two lines": (RAISED[0], ["ValueError: no", "| line 3"], []),
}


@pytest.mark.parametrize(("given", "lines", "more"), EXPLAINED.values(), ids=EXPLAINED)
def test_every_other_failure_says_what_was_found_and_where(given, lines, more):
    """What was found stands under the name and the status, each on a line; a tolerance only where one was applied."""
    head, *found = reports.explain(given, REPOSITORY)
    assert head == f"{given.name}: {given.status}"
    expected = [f"  {line}" for line in (*lines, *more)]
    assert found[: len(expected)] == expected
    assert all(line.startswith("  tolerance: ") for line in found[len(expected) :])
    assert len(found) == len(expected) + (given.tolerance is not None and given.status != "nonfinite")


@pytest.mark.parametrize(
    ("earlier", "said"),
    [
        ([], "first divergence; it is the first checkpoint"),
        ([PASSED], "first divergence; all that was compared before it passed"),
        ([PASSED, UNSUPPORTED, MISSING], "first divergence; before it, not known: tokens, tokens"),
    ],
    ids=["the first", "all right", "not known"],
)
def test_the_first_divergence_says_what_is_known_before_it(earlier, said):
    """An error travels downstream: the report names the first divergence, and whether its inputs are right."""
    assert f"  demo/case-0/float32/h.0.scores: mismatch ({said})" in lines_of(*earlier, MISMATCH)


def test_consequences_are_counted_not_told():
    """What diverges after the first divergence is a line, not a report of its own."""
    after = [verdict("h.0.out", "mismatch", statistics=OFF), verdict("loss", "nonfinite", statistics=NAN)]
    lines = lines_of(MISMATCH, *after)
    assert "  after it, 2 more: h.0.out (mismatch), loss (nonfinite)" in lines
    assert sum("error 0.5" in line for line in lines) == 1
    assert f"  after it, 7 more: {', '.join(['loss (nonfinite)'] * 6)}, …" in lines_of(MISMATCH, *after[1:] * 7)


def test_a_run_that_failed_is_told_once():
    """A candidate that raises does so once a case, not once a checkpoint."""
    lines = lines_of(*RAISED, *(replace(given, case="case-1") for given in RAISED), replace(PASSED, case="case-2"))
    assert lines[:4] == [
        "demo/case-0/float32: 4 raised",
        "  demo/case-0/float32: raised",
        "    ValueError: no",
        "    | line 3",
    ]
    assert lines[4:6] == ["demo/case-1/float32: 4 raised", "  raised: | line 3"]


def every_case(status, text, suite="demo"):
    """Return verdicts of one status on all of a suite, with a text that may speak of the {case}."""
    return [
        replace(verdict(c.name, status, text.format(case=case.name), case=case.name), suite=suite)
        for case in SUITE.cases
        for c in CHECKPOINTS
    ]


def test_what_is_the_same_in_every_case_is_told_once():
    """A suite that a candidate has not, or a file that cannot be imported, is a line a suite and not one a case."""
    lacking = every_case("unsupported", "mine.py has no function demo")
    assert lines_of(*lacking)[0] == "demo: 24 checkpoints of 6 cases unsupported: mine.py has no function demo"
    assert len(lines_of(*lacking)) == 3
    twice = [given for v in lacking for given in (v, replace(v, contract="bfloat16"))]
    twice.sort(key=lambda given: (given.case, given.contract))
    assert lines_of(*twice)[0].startswith("demo: 24 checkpoints of 6 cases under bfloat16, float32 unsupported: ")
    raised = (
        every_case("raised", "  line 3\nSyntaxError: no"),
        every_case("raised", "  line 3\nSyntaxError: no", "more"),
    )
    assert lines_of(*raised[0], *raised[1]) == [
        "demo: 24 checkpoints of 6 cases raised:",
        "    line 3",
        "  SyntaxError: no",
        "more: 24 checkpoints of 6 cases raised: SyntaxError: no",
        "FAIL: py:mine.py: 48 raised",
    ]


def test_what_is_not_the_same_in_every_case_is_told_case_by_case():
    """Reasons of their own, and a few cases among others, keep their lines."""
    lines = lines_of(*every_case("crashed", "in {case}"))
    assert sum(line.endswith("/float32: 4 crashed") for line in lines) == 6
    lines = lines_of(*every_case("unsupported", "no")[:8], replace(PASSED, case="case-5"))
    assert lines[:2] == [f"demo/case-{n}/float32: 4 unsupported: no" for n in (0, 1)]


def test_an_empty_dump_is_told_once_with_how_to_begin_one():
    """A folder of each case is missing: one line, and the command that writes the inputs."""
    absent = every_case("unsupported", "there is no folder out/demo/{case}")
    first = "demo: 24 checkpoints of 6 cases unsupported{}: there is no folder out/demo/<case>"
    command = "karat export demo --to out --contract float32"
    hint = f"hint: {command} writes the inputs; put the outputs of each case beside them"
    lines = lines_of(*absent, candidate="dir:out", required=Selection())
    assert lines[:2] == [first.format(", and required"), hint]
    assert lines[2].startswith("FAIL: dir:out: 24 unsupported")
    lines = lines_of(*absent, candidate="dir:out")
    assert lines[0] == first.format("")
    assert lines[1:3] == ["hint: nothing was compared: there is no folder out/<suite>/<case>", hint]
    assert len(lines) == 4
    assert not [line for line in lines_of(*absent[:4], PASSED, candidate="dir:out") if line.startswith("hint: ")]


def test_what_is_unsupported_among_others_is_named():
    """What a candidate lacks is listed: up to four checkpoints of a case stand in its line."""
    assert lines_of(PASSED, UNSUPPORTED)[0] == "demo/case-0/float32: 1 pass, 1 unsupported; unsupported: tokens"
    names = lines_of(PASSED, *[UNSUPPORTED] * 5)[0].partition("; unsupported: ")[2]
    assert names == "tokens, tokens, tokens, tokens, …"


def test_a_pattern_of_unsupported_that_is_of_no_checkpoint_is_noted():
    """A misspelled pattern promises nothing: it is named, with what is nearest; one that matches is not."""
    given = ["h.*", "token", "zzz"]
    notes = [line for line in lines_of(PASSED, unsupported=given) if line.startswith("note: ")]
    text = "note: UNSUPPORTED names what is no checkpoint of any suite: 'token' (did you mean 'tokens'?), 'zzz'"
    assert notes == [text]
    assert not [line for line in lines_of(PASSED, unsupported=["loss"]) if line.startswith("note: ")]


def test_where_an_output_is_missing_the_report_says_where_one_says_so():
    """What a candidate does not provide it lists; said once, and not to a worthless candidate."""
    hints = {spec: [x for x in lines_of(MISSING, MISSING, candidate=spec) if "hint: " in x] for spec in SPECS}
    assert hints == {spec: [f"hint: what a candidate does not provide it lists, as {SPECS[spec]}"] for spec in SPECS}
    assert not [line for line in lines_of(MISSING, candidate="null:missing") if "hint: " in line]


SPECS = {
    "py:mine.py": 'UNSUPPORTED = ["tokens"] in the module',
    "dir:out": '["tokens"] in unsupported.json with its outputs',
    "cmd:run {outputs}": '["tokens"] in unsupported.json with its outputs',
}


def test_a_missing_golden_a_missing_output_and_a_mismatch_are_three_messages():
    """They are three different things, and read so."""
    found = [lines_of(given)[1:3] for given in (GOLDEN_MISSING, MISSING, MISMATCH)]
    assert [lines[0].partition("float32/")[2].split(" (")[0] for lines in found] == [
        "tokens: golden-missing",
        "tokens: missing-output",
        "h.0.scores: mismatch",
    ]
    assert "run: freeze" in found[0][1]
    assert "did not produce it" in found[1][1]
    assert "error" in found[2][1]


def test_only_a_few_cases_are_told_in_full():
    """Of many failing cases three are told in full and the others in a line, and none is left out."""
    names = ["h.0.scores", "h.0.out", "loss", "tokens", "h.0.scores", "h.0.out"]
    failures = [verdict(c, "mismatch", statistics=NO_PLACE, case=f"case-{n}", first=True) for n, c in enumerate(names)]
    lines = lines_of(*failures)
    assert sum("  tolerance: " in line for line in lines) == 3
    assert sum(line.endswith("/float32: 1 mismatch") for line in lines) == 6
    assert "  mismatch, first at tokens" in lines


def test_a_case_in_a_line_says_what_it_likely_is():
    """Where the checkpoint has been told for another case, the line still names the mistake of this one."""
    named = [Diagnosis("mask_missing", 1.0, 0.0, "nothing is masked"), Diagnosis("scale", 2.0, 0.0, "twice")]
    first, again = (replace(MISMATCH, case=f"case-{n}", diagnosis=named) for n in range(2))
    lines = lines_of(first, again)
    assert "  mismatch, first at h.0.scores, likely mask_missing" in lines
    assert sum("    error" in line for line in lines) == 1


def likely(fault, strength=1.0, uncertainty=0.005, explained=1.0):
    """Return a diagnosis, by default that all of a catalogued fault is there."""
    return Diagnosis(fault, strength, uncertainty, "why", explained)


GUESSES = {
    "all of it": ([likely("a")], ["likely a: why"], "likely a"),
    "too much of it": ([likely("a", 1.55)], ["perhaps a: why"], "perhaps a"),
    "too little of it": ([likely("a", 0.7)], ["perhaps a: why"], "perhaps a"),
    "a little less, which is known well": ([likely("a", 0.87, 0.02)], ["perhaps a: why"], "perhaps a"),
    "a little less, as far as is known": ([likely("a", 0.87, 0.05)], ["likely a: why"], "likely a"),
    "what it changes too passed": ([replace(likely("a"), spared="out")], ["perhaps a: why"], "perhaps a"),
    "all of it as far as is known": ([likely("a", 1.2, 0.08)], ["likely a: why"], "likely a"),
    "a poor fit": ([likely("a", 1.55, 0.5)], ["perhaps a: why"], "perhaps a"),
    "errors of a sign": ([likely("formula", 0.9, 0.0, 0.0)], ["perhaps formula: why"], "perhaps formula"),
    "errors of a size": ([likely("precision", 11.2, 0.0, 0.0)], ["perhaps precision: why"], "perhaps precision"),
    "values of a format": (
        [likely("grid", 1.0, 0.0, 0.0), likely("precision", 8.1, 0.0, 0.0)],
        ["likely grid: why", "precision: why"],
        "likely grid",
    ),
    "no catalogued one": ([likely("scale", 8.0, 0.0, 0.0)], ["likely scale: why"], "likely scale"),
    "as good": (
        [likely("a"), likely("b"), likely("scale", 1.0, 0.0, 0.0)],
        ["likely one of: a: why", "or b: why", "scale: why"],
        "likely a or b",
    ),
    "as poor": (
        [likely("a", 1.55), likely("b", 1.55)],
        ["perhaps one of: a: why", "or b: why"],
        "perhaps a or b",
    ),
    "less good": ([likely("a"), likely("b", explained=0.98)], ["likely a: why", "less likely b: why"], "likely a"),
    "of another strength": ([likely("a"), likely("b", 0.95)], ["likely a: why", "less likely b: why"], "likely a"),
}


@pytest.mark.parametrize(("found", "lines", "short"), GUESSES.values(), ids=GUESSES)
def test_a_name_is_as_certain_as_the_fit(found, lines, short):
    """All of a mistake makes it likely, another part of it perhaps; of two that fit equally well neither is certain."""
    first, again = (replace(MISMATCH, case=f"case-{n}", diagnosis=found) for n in range(2))
    told = reports.explain(first, REPOSITORY)
    assert told[3:-1] == [f"  {line}" for line in lines]
    assert f"  mismatch, first at h.0.scores, {short}" in lines_of(first, again)


FULL = {
    "a name rather than none": ([(), [likely("a", 1.5)]], 1),
    "a likely name": ([[likely("a", 1.5)], [likely("b")], [likely("c")]], 1),
    "that of most cases": ([[likely("a")], [likely("b")], [likely("b")]], 1),
    "the first of equals": ([[likely("a")], [likely("a")]], 0),
    "what is wrong rather than where": ([[likely("part", explained=0.0)], [likely("a", 1.5)]], 1),
    "a place rather than nothing": ([(), [likely("part", explained=0.0)]], 1),
    "no name of one case in twenty": ([[likely("a")], *[[likely("b", 1.5)]] * 19], 1),
    "the name of one case in ten": ([[likely("b", 1.5)], [likely("a")], *[[likely("b", 1.5)]] * 8], 1),
}


@pytest.mark.parametrize(("found", "full"), FULL.values(), ids=FULL)
def test_of_the_cases_that_diverge_alike_the_one_with_the_surest_name_is_told_in_full(found, full):
    """The others are told in a line, which is where they stand."""
    lines = lines_of(*failing(*found))
    heads = [number for number, line in enumerate(lines) if line.startswith("demo/")]
    blocks = [lines[start:end] for start, end in zip(heads, [*heads[1:], None], strict=True)]
    assert [any("    error" in line for line in block) for block in blocks] == [n == full for n in range(len(found))]


def failing(*names):
    """Return a verdict for each case, of which each fails with these diagnoses, or passes where there is None."""
    return [
        replace(MISMATCH, case=f"case-{n}", diagnosis=found) if found is not None else replace(PASSED, case=f"case-{n}")
        for n, found in enumerate(names)
    ]


SUMS = {
    "outvoted": (
        [[likely("b")], [likely("a")], [likely("a")], [likely("a")], None],
        ["demo: 4 of 5 cases fail; likely a in 3, b in 1"],
    ),
    "told apart by a case": (
        [[likely("a"), likely("b")], [likely("b")]],
        ["demo: 2 of 2 cases fail; likely b in 2, a in 1"],
    ),
    "never told apart": ([[likely("a"), likely("b")]] * 3, ["demo: 3 of 3 cases fail; likely a or b in 3"]),
    "never certain": ([[likely("a", 1.5)]] * 2, ["demo: 2 of 2 cases fail; perhaps a in 2"]),
    "many": ([[likely(x)] for x in "abcd"], ["demo: 4 of 4 cases fail; likely a in 1, b in 1, c in 1, …"]),
    "one": ([[likely("a")], None], []),
    "no name": ([(), ()], []),
}


@pytest.mark.parametrize(("names", "expected"), SUMS.values(), ids=SUMS)
def test_a_suite_of_which_several_cases_fail_is_summed_up(names, expected):
    """The name that most cases give stands at the end, before the sum, where people look."""
    lines = lines_of(*failing(*names))
    assert (
        [line for line in lines if " cases fail" in line] == expected == lines[-1 - len(expected) : -1][: len(expected)]
    )


def test_the_checkpoint_at_which_most_cases_diverge_first_is_named():
    """Which layer went wrong: the sum names the checkpoint where most cases diverge first."""
    firsts = ["h.0.out", "loss", "loss"]
    failures = [
        verdict(c, "nonfinite", statistics=NO_PLACE, case=f"case-{n}", first=True) for n, c in enumerate(firsts)
    ]
    last = lines_of(*failures, verdict("tokens", "shape", "why", case="case-3"))[-1]
    assert last == "FAIL: py:mine.py: 1 shape, 3 nonfinite; first divergence at loss in 2 of 3 diverging cases"


def test_a_passing_run_says_how_much_of_the_tolerance_was_used():
    """A passing report prints how much was used."""
    lines = lines_of(PASSED, verdict("loss", statistics=replace(FINE, used=0.125)))
    assert lines == ["demo/case-0/float32: 2 pass; at most 50% of the tolerance used", "PASS: py:mine.py: 2 pass"]


def test_what_was_not_asked_for_is_noted_where_something_is_missing():
    """A misspelled checkpoint is missing under its name and extra under another: both are named."""
    for names, shown in (
        (["token"], "token"),
        (list("abcde"), "a, b, c, d, e"),
        (list("abcdef"), "a, b, c, d, e and 1 more"),
    ):
        extra = {"demo/case-0": names, "demo/case-1": ["unrelated"]}
        notes = [line for line in lines_of(MISSING, extra=extra) if line.startswith("note: ")]
        assert notes == [f"note: demo/case-0: not asked for and not compared: {shown}"]


RUNS = {
    "pass": (Report("py:x", [PASSED]), 0, "pass", "PASS: py:x: 1 pass"),
    "wrong": (Report("py:x", [PASSED, MISMATCH]), 1, "fail", "FAIL: py:x: 1 pass, 1 mismatch"),
    "raised": (Report("py:x", RAISED), 4, "fail", "FAIL: py:x: 4 raised"),
    "golden": (Report("py:x", [GOLDEN_MISSING]), 3, "fail", "GOLDENS NOT USABLE: py:x: 1 golden-missing"),
    "stale": (Report("py:x", [PASSED], [STALE]), 3, "fail", "GOLDENS NOT USABLE: py:x: 1 pass"),
    "nothing": (Report("py:x", []), 5, "nothing-compared", "NOTHING COMPARED: py:x: nothing compared"),
    "unsupported": (
        Report("py:x", [UNSUPPORTED]),
        5,
        "nothing-compared",
        "NOTHING COMPARED: py:x: 1 unsupported (unsup",
    ),
    "some": (Report("py:x", [PASSED, UNSUPPORTED]), 0, "pass", "PASS: py:x: 1 pass, 1 unsupported (unsupported is not"),
    "demanded": (
        Report("py:x", [PASSED, UNSUPPORTED], required=Selection()),
        1,
        "fail",
        "FAIL: py:x: 1 pass, 1 unsupported",
    ),
}


@pytest.mark.parametrize(("report", "code", "word", "last"), RUNS.values(), ids=RUNS)
def test_text_json_and_exit_code_agree(report, code, word, last):
    """The last line, the word in the JSON, the counts and the exit code say the same."""
    content = json.loads(report_files.as_json(report))
    assert (report.exit_code, content["exit_code"], content["verdict"]) == (code, code, word)
    assert reports.text(report, REPOSITORY).splitlines()[-1].startswith(last)
    assert sum(content["counts"].values()) == len(content["results"]) == len(report.verdicts)
    assert all(f"{number} {status}" in last for status, number in content["counts"].items())


def test_what_is_wrong_with_the_goldens_is_told_with_the_verdicts():
    """A stale golden is a finding of the check too, with the command that mends it."""
    assert "golden stale: demo: validators/demo.py changed; run: freeze" in lines_of(PASSED, findings=[STALE])


OUTCOMES = [
    Outcome("demo/case-0/float32", "repeatable", "violated", "two runs give the same bits: loss at () is 1, then 2"),
    Outcome("demo/case-0/float32", "causal", "holds", "0 apart, allowed 1"),
    Outcome("demo/case-1/float32", "causal", "holds", ""),
]


def test_a_violated_property_fails_and_says_what_must_hold():
    """The sum counts the properties and agrees with the exit code; a violation reads as what it is."""
    report, repository = Report("py:x", [PASSED]), Repository(Path("nowhere"))
    about = Property("repeatable", "two runs give the same bits", ("case-0",), "loss")
    vars(repository)["suites"] = {"demo": replace(SUITE, properties=(about,))}
    lines = reports.text(report, repository, OUTCOMES).splitlines()
    must = "it must hold that two runs give the same bits, and does not: loss at () is 1, then 2"
    assert lines[0] == f"property demo/case-0/float32: repeatable: violated: {must}"
    assert lines[1] == "property demo/case-0/float32: causal: holds: 0 apart, allowed 1"
    assert lines[-1] == "FAIL: py:x: 1 pass; properties: 1 violated, 2 held"
    assert reports.exit_code(report, OUTCOMES) == 1
    content = json.loads(report_files.as_json(report, OUTCOMES))
    assert (content["verdict"], content["exit_code"], len(content["properties"])) == ("fail", 1, 3)
    assert reports.text(report, repository, OUTCOMES[1:]).endswith("PASS: py:x: 1 pass; properties: 2 held")
    raised = [replace(OUTCOMES[1], status="raised")]
    assert reports.text(report, repository, raised).endswith("FAIL: py:x: 1 pass; properties: 1 raised")


def test_a_case_that_fails_is_told_with_what_it_is_there_to_show():
    """What a case is about stands once, with the first failure in full."""
    repository = Repository(Path("nowhere"))
    cases = tuple(replace(case, about=f"what {case.name} shows") for case in SUITE.cases)
    vars(repository)["suites"] = {"demo": replace(SUITE, cases=cases)}
    report = Report("py:x", [MISMATCH, replace(MISMATCH, case="case-1"), replace(PASSED, case="case-2")])
    lines = reports.text(report, repository).splitlines()
    assert lines[1] == f"  case: what {MISMATCH.case} shows"
    assert sum(" shows" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("shape", "row", "said"),
    [
        ((2, 3, 2), (1, 2), "the worst row, (1, 2)"),
        ((12,), (), "the only row"),
        ((1, 12), (0,), "the only row"),
        ((3, 4), (), "the only row"),  # of twelve elements: rows are no shorter than 16
    ],
)
def test_the_only_row_is_not_called_the_worst(shape, row, said):
    """An array of one row has no worst one."""
    tests = (Test("max", 50.0, 10.0), Test("rms", 5.0, 3.0), Test("row", 7.0, 6.0))
    wrong = replace(MISMATCH, shape=shape, tests=tests, statistics=replace(OFF, row=row))
    assert f"    rms 5 σ (allowed 3); {said}, 7 σ (allowed 6)" in lines_of(wrong)


def test_an_override_is_told_with_what_it_is_for(tmp_path):
    """The number of an override says little: the patterns of the row stand with it."""
    rows = "".join(
        f'[[override]]\n{key} = "{pattern}"\nrtol = 0.0\natol_rms = 0.005\nreason = "measured"\n'
        for key, pattern in (("contract", "*"), ('suite = "demo"\ncheckpoint', "h.*"))
    )
    contract = 'storage = "float32"\naccumulation = "float32"\nproducts = "float32"\nrounding = "each operation"\n'
    path = tmp_path / "tolerances.toml"
    path.write_text(f"schema = 1\n[contract.float32]\n{contract}{rows}", encoding="utf-8")
    repository = Repository(tmp_path)
    vars(repository)["suites"] = {"demo": SUITE}
    told = [
        reports.explain(
            replace(MISMATCH, tolerance=replace(TOLERANCE, source=f"tolerances.toml, [{place}]")), repository
        )
        for place in ("override 1", "override 2", "class.default")
    ]
    assert [lines[-1].partition(": ")[2].partition("]")[0] for lines in told] == [
        "tolerances.toml, [override 1: contract *",
        "tolerances.toml, [override 2: suite demo, checkpoint h.*",
        "tolerances.toml, [class.default",
    ]


def test_where_nothing_was_compared_the_reason_is_told():
    """What a candidate lacks is never silently passed."""
    assert "hint: nothing was compared: the candidate says that it does not provide it" in lines_of(UNSUPPORTED)


def test_a_candidate_cannot_write_to_the_terminal_as_it_likes():
    """Control characters that a candidate printed are shown, not obeyed; lines, tabs and other languages are kept."""
    lines = lines_of(verdict("loss", "raised", "\x1b[31mno\x07\udc80 \u202e\tnaïve 模型 😀"))
    assert lines[2] == r"    \x1b[31mno\x07\udc80 \u202e" + "\tnaïve 模型 😀"


@pytest.mark.parametrize("spec", ["py:mine.py", "dir:my dumps", "cmd:sh -c 'run \"$1\"' {inputs} {outputs}"])
def test_the_hint_is_a_command_that_can_be_pasted(spec):
    """What next: a command, which a shell takes apart as it was meant."""
    hint = next(line for line in lines_of(MISMATCH, candidate=spec) if line.startswith("hint: "))
    words = ["karat", "check", spec, "demo/case-0/h.0.*", "--contract", "float32"]
    assert shlex.split(hint.removeprefix("hint: ").removesuffix(" checks only this part")) == words
