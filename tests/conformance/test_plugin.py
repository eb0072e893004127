"""The pytest plugin, tried in a repository of its own with pytest run as a user runs it."""

import os
import subprocess
import sys

import pytest

CONFORMANCE = '''
def test_checkpoint(karat_verdict):
    """Pass."""
    assert karat_verdict.status == "pass"
'''
ID = "toy/small/float32/scores"


@pytest.fixture
def run(toy):
    """Return a function that runs pytest in the toy repository, which has one test file and no ini-file."""
    (toy.root / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib -rA\n", encoding="utf-8")

    def pytest_run(*options, test=CONFORMANCE):
        (toy.root / "test_it.py").write_text(test, encoding="utf-8")
        words = [sys.executable, "-m", "pytest", "-p", "karat.pytest_plugin", "test_it.py", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        result = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=False, env=environment)
        return result.returncode, result.stdout + result.stderr

    return pytest_run


def test_each_checkpoint_is_a_test(run):
    """One test for each suite × case × contract × checkpoint, under that name."""
    code, text = run("--candidate", "py:candidates/plain")
    assert code == 0
    assert "12 passed" in text
    assert f"PASSED test_it.py::test_checkpoint[{ID}]" in text
    assert "karat: candidate py:candidates/plain (--candidate)" in text


def test_contract_and_suite_select(run):
    """--contract names contracts, --suite selects suite[/case[/checkpoint]]."""
    code, text = run("--candidate", "py:candidates/plain", "--contract", "bfloat16", "--suite", "toy/sm*/sc*")
    assert code == 0
    assert "2 passed" in text


def test_without_a_candidate_it_is_a_usage_error(run):
    """No candidate is a usage error, not a skip."""
    code, text = run()
    assert code == 4
    assert "no candidate: give --candidate SPEC, or karat_candidate in the ini-file" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--candidate", "py:absent.py"), "there is no absent.py"),
        (("--candidate", "py:candidates/plain", "--suite", "tot"), "tot"),
        (("--candidate", "py:candidates/plain", "--contract", "float99"), "'float99'"),
    ],
)
def test_what_does_not_exist_is_a_usage_error(run, options, message):
    """No such candidate, suite or contract: a usage error that names it."""
    code, text = run(*options)
    assert code == 4
    assert message in text


def test_stale_goldens_fail_every_test(run, toy):
    """Where the witness was edited, no candidate passes and none is skipped."""
    toy.edit("candidates/plain/toy.py", '"scores": ', '"scores": 2 * ')
    code, text = run("--candidate", "py:candidates/plain", "--contract", "float32")
    assert code == 1
    assert "6 failed" in text
    assert "golden-stale" in text


def test_without_a_candidate_workers_fail_too(run):
    """With pytest-xdist, the workers' tests say what is missing."""
    code, text = run("-n", "2")
    assert code in (1, 4)
    assert "no candidate: give --candidate SPEC" in text


def test_null_fails_everywhere(run):
    """A worthless candidate fails every test."""
    code, text = run("--candidate", "null:zeros")
    assert code == 1
    assert "12 failed" in text
    assert f"{ID}: mismatch" in text
    assert "toy/small/float32/scaled: mismatch (first divergence)" in text
    assert "Traceback" not in text


def test_unsupported_is_skipped_and_nothing_compared_is_5(run, toy):
    """What a candidate does not provide is skipped by name; a run that compares nothing ends with 5."""
    (toy.root / "other.py").write_text("def tot():\n    pass\n", encoding="utf-8")
    code, text = run("--candidate", "py:other.py")
    assert code == 5
    assert "12 skipped" in text
    assert "unsupported: other.py has no function toy" in text


def test_a_damaged_golden_fails(run, toy):
    """A golden that cannot be trusted fails its tests; it is never skipped."""
    path = toy.goldens / "small.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, text = run("--candidate", "py:candidates/plain")
    assert code == 1
    assert "golden-damaged" in text
    assert "6 failed, 6 passed" in text
    assert "skipped" not in text


@pytest.mark.parametrize("workers", ["0", "2"])
def test_workers_give_the_same_verdicts(run, workers):
    """pytest-xdist works and gives the same verdicts."""
    code, text = run("--candidate", "null:permuted", "--contract", "float32", "-n", workers, "--dist", "loadgroup")
    assert code == 1
    assert "6 failed" in text


COUNTED = """

right = toy


def toy(*arguments, **options):
    with open(r"{path}", "a", encoding="utf-8") as file:
        file.write("run\\n")
    return right(*arguments, **options)
"""


def test_a_case_runs_once_however_many_workers_there_are(run, toy, tmp_path):
    """The checkpoints of a case are tests of one worker, to which its candidate gives them all at once."""
    plain = (toy.root / "candidates/plain/toy.py").read_text(encoding="utf-8")
    runs = []
    for number, options in enumerate([(), ("-n", "3", "--dist=loadgroup")]):
        path = tmp_path / f"{number}.txt"
        (toy.root / "counted.py").write_text(plain + COUNTED.format(path=path), encoding="utf-8")
        code, text = run("--candidate", "py:counted.py", *options)
        assert (code, "12 passed" in text) == (0, True)
        runs.append(path.read_text(encoding="utf-8").count("run"))
    assert runs[0] == runs[1] < 12


FIXTURE = """
import numpy as np
import pytest

def test_right(golden, tmp_path):
    case = golden("toy/small")
    assert case.inputs()["x"].dtype == np.float32
    assert dict(case.params)
    from karat.goldens import GoldenSet
    from karat.suites import find_repository
    scores = GoldenSet.open(find_repository(), "toy").golden("small", "scores").astype(np.float32)
    assert [verdict.status for verdict in case.check(scores=scores)] == ["pass"]
    with pytest.raises(AssertionError, match="toy/small/float32/scores: mismatch"):
        case.check({"scores": scores + 1})

def test_usage(golden):
    with pytest.raises(KeyError, match="score"):
        golden("toy/small").check(score=np.ones(3))
    with pytest.raises(ValueError, match="no array to check"):
        golden("toy/small").check()
"""


def test_the_fixture_golden_checks_arrays_at_hand(run):
    """golden("suite/case").check(out=array) passes or raises AssertionError with the report."""
    code, text = run(test=FIXTURE)
    assert code == 0, text
    assert "2 passed" in text


def test_the_fixture_golden_needs_goldens_that_can_be_trusted(run, toy):
    """With a finding of the gate, the fixture fails the test."""
    (toy.goldens / "stray.txt").write_text("x", encoding="utf-8")
    code, text = run(test=FIXTURE)
    assert code == 1
    assert "goldens/toy/stray.txt is listed in no manifest" in text
