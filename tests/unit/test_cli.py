"""karat.cli: the commands, their files and exit codes; a usage error is one line, a traceback is always a bug."""

import json
import os
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

WRONG = "def toy(**given):\n    found = right(**given)\n    found['scores'] = -found['scores']\n    return found\n"


def test_list_has_a_line_for_each_suite(toy):
    """karat list: each suite with the size of its cases and its contracts, and which command says more."""
    result = toy.karat("list")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "toy: 2 cases of 3 checkpoints; contracts float32, bfloat16",
        "",
        "karat list SUITE says what a candidate gets and must produce, karat list SUITE/CASE every shape.",
    ]


def test_list_of_a_suite_and_of_a_case_are_told_apart(toy):
    """karat list SUITE is the overview, karat list SUITE/CASE the case in full; both may be asked for at once."""
    overview, case = toy.karat("list", "toy").out, toy.karat("list", "toy/padded").out
    assert overview.startswith("toy\n")
    assert "cases:" in overview
    assert case.startswith("toy/padded: two tokens of padding on the left\n")
    assert toy.karat("list", "toy", "toy/padded").out == overview
    assert toy.karat("list", "t*y").out == overview
    both = toy.karat("list", "toy/*").out
    assert both.startswith("toy/small: ")
    assert both.endswith(f"\n\n{case}")


def test_list_json_has_a_row_for_each_checkpoint(toy):
    """list --json: suite, case, checkpoint, shape, contracts."""
    rows = json.loads(toy.karat("list", "toy/*/s*", "--json").out)
    assert [(row["case"], row["checkpoint"]) for row in rows] == [
        (c, p) for c in ("small", "padded") for p in ("scaled", "scores")
    ]
    assert rows[3] == {
        "suite": "toy",
        "case": "padded",
        "checkpoint": "scores",
        "shape": [2, 5, 11],
        "contracts": ["float32", "bfloat16"],
    }


def test_check_passes_with_exit_code_0_and_says_so(toy):
    """All pass: a line for each case and contract, then the sum."""
    result = toy.karat("check", "py:candidates/plain", "--contract", "float32", "--contract", "bfloat16")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == [
        f"toy/{c}/{f}" for c in ("small", "padded") for f in ("float32", "bfloat16")
    ]
    assert lines[-1] == "PASS: py:candidates/plain: 12 pass"


def test_check_writes_json_to_standard_output_and_the_report_beside_it(toy):
    """--json -: standard output is the JSON of section 5 and nothing else."""
    result = toy.karat("check", toy.candidate(WRONG), "toy/small", "--json", "-")
    content = json.loads(result.out)
    assert result.code == content["exit_code"] == 1
    assert (content["schema"], content["verdict"], content["counts"]) == (1, "fail", {"pass": 2, "mismatch": 1})
    wrong = content["results"][1]
    assert (wrong["checkpoint"], wrong["status"], wrong["first_divergence"]) == ("scores", "mismatch", True)
    assert set(wrong) >= {"suite", "case", "contract", "shape", "statistics", "allowed", "worst", "diagnosis"}
    assert set(wrong["worst"]) == {"index", "candidate", "golden"}
    assert wrong["worst"]["candidate"] == pytest.approx(-wrong["worst"]["golden"])
    assert "FAIL" in result.err
    assert "hint: karat check" in result.err


def test_check_writes_files_and_keeps_the_report_on_standard_output(toy):
    """--json FILE and --junit FILE in one run; the report for people stays where it is."""
    result = toy.karat("check", toy.candidate(WRONG), "--json", "report.json", "--junit", "report.xml")
    assert result.code == 1
    assert "FAIL" in result.out
    assert result.err == ""
    assert json.loads((toy.root / "report.json").read_text(encoding="utf-8"))["counts"] == {"pass": 4, "mismatch": 2}
    root = ET.fromstring((toy.root / "report.xml").read_text(encoding="utf-8"))
    assert [suite.get("name") for suite in root] == ["toy/small/float32", "toy/padded/float32"]
    assert [(suite.get("tests"), suite.get("failures"), suite.get("errors")) for suite in root] == [("3", "1", "0")] * 2


def test_check_may_demand_what_is_unsupported(toy):
    """--require SELECT may not be unsupported: exit code 1 instead of 5."""
    spec = toy.candidate("other = right\n")
    assert toy.karat("check", spec).code == 5
    assert toy.karat("check", spec, "--require", "toy/small").code == 1


def test_gate_says_that_it_is_open(toy):
    """gate --json: schema, ok, findings."""
    result = toy.karat("gate", "--json", "gate.json")
    assert (result.code, result.out) == (0, "gate open: goldens complete, intact and fresh\n")
    assert json.loads((toy.root / "gate.json").read_text(encoding="utf-8")) == {"schema": 1, "ok": True, "findings": []}


USAGE = {
    "kind": (("check", "rust:mine"), "'rust:mine'"),
    "null kind": (("check", "null:ones"), "'null:ones'"),
    "file": (("check", "py:no/such.py"), "no/such.py"),
    "folder": (("check", "dir:nowhere"), "nowhere"),
    "suite": (("check", "null:zeros", "tot"), "tot"),
    "case": (("check", "null:zeros", "toy/smal"), "toy/smal"),
    "checkpoint": (("check", "null:zeros", "toy/small/score"), "toy/small/score"),
    "empty part": (("check", "null:zeros", "toy//scores"), "'toy//scores'"),
    "contract": (("check", "null:zeros", "--contract", "float99"), "'float99'"),
    "require": (("check", "null:zeros", "--require", "tot"), "tot"),
    "negative timeout": (("check", "py:candidates/plain", "--timeout", "-1"), "-1"),
    "json": (("check", "null:zeros", "--json", "no/such/file"), "no/such/file"),
    "junit": (("check", "null:zeros", "--junit", "/proc/none"), "/proc/none"),
    "json a folder": (("gate", "--json", "goldens"), "goldens"),
    "list": (("list", "tot"), "tot"),
    "export suite": (("export", "tot", "--to", "out"), "tot"),
    "export contract": (("export", "toy", "--to", "out", "--contract", "float99"), "'float99'"),
    "export to a file": (("export", "toy", "--to", "tolerances.toml"), "tolerances.toml"),
    "export to nowhere": (("export", "toy", "--to", "/proc/none"), "/proc/none"),
}


@pytest.mark.parametrize("usage", USAGE)
def test_a_usage_error_is_one_line_that_names_the_value(toy, usage):
    """Exit code 2: no such candidate, suite, case or contract, or a file that cannot be written."""
    words, value = USAGE[usage]
    result = toy.karat(*words)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("karat: ")
    assert value in result.err.splitlines()[-1]
    assert result.err.count("karat: ") == 1
    assert "Traceback" not in result.err


NEAREST = {
    "tyo": "tyo selects nothing; did you mean toy? suites: toy",
    "gelu": "gelu selects nothing; suites: toy",
    "toy/smal": "toy/smal selects nothing; did you mean toy/small? cases of toy: small, padded",
    "toy/x/scores": "toy/x/scores selects nothing; cases of toy: small, padded",
    "t*/small/score": "t*/small/score selects nothing; did you mean t*/small/scores? checkpoints of t*/small: scaled,"
    " scores, choice",
}


@pytest.mark.parametrize("typed", NEAREST)
def test_a_selection_of_nothing_names_what_is_nearest(toy, typed):
    """What was typed, which part of it is of nothing, and what there is in its place."""
    for words in (("check", "null:zeros", typed), ("list", typed)):
        result = toy.karat(*words)
        assert (result.code, result.err) == (2, f"karat: {NEAREST[typed]}\n")


def test_a_candidate_without_the_function_is_a_line_a_suite(toy):
    """A file of one suite is checked against all: what it has not is one line a suite, and the JSON has it all."""
    result = toy.karat("check", toy.candidate("other = right\n"), "--json", "report.json")
    first, *others = result.out.splitlines()
    assert first.startswith("toy: 6 checkpoints of 2 cases unsupported: ")
    assert first.endswith("mine.py has no function toy")
    assert len(others) == 2
    assert len(json.loads((toy.root / "report.json").read_text(encoding="utf-8"))["results"]) == 6


def test_a_candidate_that_cannot_be_imported_is_told_once(toy):
    """A SyntaxError does not depend on the case."""
    result = toy.karat("check", toy.candidate("def toy(:\n"))
    assert result.code == 4
    assert result.out.startswith("toy: 6 checkpoints of 2 cases raised:\n")
    assert result.out.count("SyntaxError") == 1


@pytest.mark.parametrize(
    "words", [(), ("chekc",), ("check",), ("export", "toy"), ("export", "toy", "--to", "x", "--format", "csv")]
)
def test_words_that_are_no_command_are_a_usage_error(toy, words):
    """The parser's own errors have exit code 2 too."""
    result = toy.karat(*words)
    assert result.code == 2
    assert "karat" in result.err
    assert result.out == ""


def test_the_report_is_not_lost_where_a_file_cannot_be_written(toy):
    """A run may have taken an hour: what it found is told although --json names a file that cannot be written."""
    result = toy.karat("check", "null:zeros", "--json", "no/such/file")
    assert "mismatch" in result.out + result.err


def test_outside_of_any_repository_the_one_of_this_installation_is_found(toy, monkeypatch):
    """karat works on the nearest tolerances.toml upwards, else on the suites that it was installed with."""
    (toy.root / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(toy.root / "deep" / "er")
    assert "toy: 2 cases" in toy.karat("list").out
    monkeypatch.chdir("/")
    assert "toy: 2 cases" not in toy.karat("list").out


def run(toy, *words, stdout=subprocess.PIPE):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-c", "from karat.cli import main; raise SystemExit(main())", *words]
    return subprocess.run(
        command, cwd=toy.root, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "words", [("list",), ("list", "toy", "--json"), ("gate",), ("check", "null:zeros")], ids=" ".join
)
def test_a_reader_that_stops_reading_is_no_traceback(toy, words):
    """karat list | head prints what is read and no traceback, however little it prints."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run(toy, *words, stdout=writer)
    finally:
        os.close(writer)
    assert result.stderr == ""


def test_a_name_that_no_terminal_can_show_is_no_traceback(toy):
    """Names in a dump are what its writer likes; karat prints them or something in their place."""
    header = rb'{"scored\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    folder = toy.root / "dump" / "toy" / "small"
    folder.mkdir(parents=True)
    (folder / "outputs.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    result = run(toy, "check", "dir:dump", "toy/small", "--junit", "report.xml", "--json", "report.json")
    assert result.returncode == 1
    assert result.stderr == ""
    ET.fromstring((toy.root / "report.xml").read_text(encoding="utf-8"))
    assert json.loads((toy.root / "report.json").read_text(encoding="utf-8"))["extra"]


def test_a_failure_after_the_first_divergence_is_told_too(toy):
    """A selection that leaves out the first divergence still gets numbers, and is told that there is one."""
    result = toy.karat("check", "null:noise", "toy/small/scores")
    assert result.code == 1
    assert "mismatch (the case diverged before it, at a checkpoint not selected)" in result.out
    assert "candidate " in result.out
    assert "allowed " in result.out
