"""`karat evidence`: shows the evidence, and exits 0, 2 or 3."""

import json

import pytest

from karat import evidence, goldens

RUN = "run: python -m nox -s evidence -- toy"
CORRECT = {"formulation": "plain", "contract": "float32", "held_out": False, "comparisons": 6, "rejected": 0}
CORRECT |= {"accused": 0, "margin": 4.0, "at": "", "worst": {}}
FAULT = {"fault": "tiny", "contract": "float32", "held_out": False, "caught": False, "at": "", "cases": 0}
FAULT |= {"margin": 0.0, "signal": 3.0, "visible": False, "valued": 0, "named": None, "guesses": {}}
SUMMARY = {"correct_runs": 6, "rejected": 0, "faults": 1, "missed": 0, "misnamed": 0, "smallest_margin": 4.0}


def write(toy, **summary):
    """Write fresh evidence of the toy, with sums as given."""
    content = {
        "schema": evidence.SCHEMA,
        "suite": "toy",
        "sources": evidence.sources(toy.repository, "toy"),
        "summary": SUMMARY | summary,
        "open": SUMMARY | summary,
        "formulations": [CORRECT],
        "faults": [FAULT],
    }
    (toy.goldens / evidence.EVIDENCE).write_text(goldens.manifest_text(content), encoding="utf-8")


@pytest.fixture
def tried(toy):
    """Return the toy with formulations and fresh evidence."""
    (toy.root / "generators" / "toy_formulations.py").write_text("FORMULATIONS = ()\n", encoding="utf-8")
    write(toy)
    return toy


def test_good_evidence_is_shown_with_exit_code_0(tried):
    """The table and what is invisible, on standard output."""
    result = tried.karat("evidence")
    assert (result.code, result.err) == (0, "")
    assert evidence.table([evidence.read_evidence(tried.repository, "toy")]) in result.out
    assert "invisible: toy/tiny under float32: 3 σ" in result.out
    assert tried.karat("evidence", "t*").out == result.out


def test_json_on_standard_output_stands_alone(tried):
    """With `--json -` standard output is JSON and nothing else; the table goes to standard error."""
    result = tried.karat("evidence", "--json", "-")
    assert result.code == 0
    assert json.loads(result.out) == evidence.as_json([evidence.read_evidence(tried.repository, "toy")])
    assert "| contract |" in result.err


def test_json_goes_to_a_file(tried):
    """With `--json FILE` the JSON is in the file and the table on standard output."""
    result = tried.karat("evidence", "--json", tried.root / "out.json")
    assert (result.code, result.err) == (0, "")
    written = json.loads((tried.root / "out.json").read_text(encoding="utf-8"))
    assert written["invisible"] == [{"suite": "toy", "fault": "tiny", "contract": "float32", "signal": 3.0}]
    assert "| contract |" in result.out


def test_a_file_that_cannot_be_written_is_usage(tried):
    """Exit code 2, with the name of the file."""
    result = tried.karat("evidence", "--json", tried.root / "nowhere" / "out.json")
    assert result.code == 2
    assert "cannot write" in result.err


@pytest.mark.parametrize("select", ["other", "toy/", "gelu*"])
def test_a_selection_of_nothing_is_usage(tried, select):
    """Exit code 2: nothing passes because nothing was selected."""
    result = tried.karat("evidence", select)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("karat: ")


def test_a_suite_that_has_nothing_to_try_is_usage(toy):
    """Where no suite catalogues formulations there is no evidence to show: exit code 2, not an empty table."""
    result = toy.karat("evidence")
    assert (result.code, result.out) == (2, "")
    assert "no selected suite has formulations" in result.err


@pytest.mark.parametrize("kind", ["missing", "damaged", "stale"])
def test_evidence_that_cannot_be_relied_on_is_exit_code_3(tried, kind):
    """Missing, damaged or stale: the kind and the mending command are said, and the JSON claims nothing."""
    path = tried.goldens / evidence.EVIDENCE
    if kind == "missing":
        path.unlink()
    elif kind == "damaged":
        path.write_text("{}", encoding="utf-8")
    else:
        tried.edit("tolerances.toml", "1e-5", "2e-5")
    result = tried.karat("evidence", "--json", "-")
    assert result.code == 3
    assert f"{kind}: " in result.err
    assert RUN in result.err
    written = json.loads(result.out)
    assert (written["correct_runs"], written["smallest_margin"], written["suites"]) == (0, None, [])


@pytest.mark.parametrize(
    ("summary", "words"),
    [({"rejected": 1}, "rejected"), ({"missed": 1}, "missed"), ({"smallest_margin": 1.4}, "the smallest margin")],
    ids=["rejected", "missed", "margin"],
)
def test_evidence_that_shows_too_little_is_exit_code_3(tried, summary, words):
    """A shortcoming is shown with its suite and fails the command."""
    write(tried, **summary)
    result = tried.karat("evidence")
    assert result.code == 3
    [line] = [line for line in result.out.splitlines() if line.startswith("toy: ")]
    assert words in line


def test_goldens_that_are_damaged_are_exit_code_3(tried):
    """Evidence of goldens that cannot be read holds of nothing."""
    (tried.goldens / "manifest.json").write_text("{}", encoding="utf-8")
    result = tried.karat("evidence")
    assert result.code == 3
    assert "nox -s goldens -- toy" in result.err + result.out


def test_a_tolerances_file_that_cannot_be_read_is_no_traceback(tried):
    """Every error of the files is a message and an exit code."""
    (tried.root / "tolerances.toml").write_text("schema = \n", encoding="utf-8")
    result = tried.karat("evidence")
    assert result.code in (2, 3)
    assert "tolerances.toml" in result.err + result.out


def test_a_manifest_that_lacks_a_key_is_no_traceback(tried):
    """Every error of the files is a message and an exit code."""
    tried.rewrite({key: value for key, value in tried.manifest().items() if key != "generator"})
    assert tried.karat("evidence").code == 3
