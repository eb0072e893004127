"""karat.trials: every formulation and fault of a suite goes through the real check, and a row says what it did."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from karat import evidence, freeze, gate, goldens, trials
from karat.faults import Fault, Formulation, load_formulations
from karat.questions import Diagnosis
from karat.signatures import Signature
from karat.suites import Repository
from karat.verdicts import Test as CheckTest
from karat.verdicts import Verdict
from tests.conftest import SOURCES, Toy, mark_first_divergence

TOLERANCES = """
[class.default]
rms_sigma = 3.0
max_sigma = 12.0
row_sigma = 6.0
gain_sigma = 15.0
bias_sigma = 15.0
reason = "a toy"

[signatures]
strength = 0.5
visible = 12.0
explained = 0.75
reason = "a toy"
"""

PERTURBED = '''
NOISE_STEP = 2.0**-30


def perturbed(case, inputs, kind, seed):
    """Return every checkpoint with plain noise: of each rounding, or of sums and the inside of tanh."""
    random = np.random.Generator(np.random.Philox(key=[len(kind), seed]))
    head = inputs["weights/head"].astype(np.float64)
    found = reference(case, inputs)

    def noisy(array, inside):
        size = np.abs(array) * random.uniform(-1, 1, array.shape) if kind == "rounding" else inside
        return array + NOISE_STEP * size

    scaled = noisy(found["scaled"], random.standard_normal(found["scaled"].shape))
    sums = np.sqrt(np.square(scaled) @ np.square(head)) * random.standard_normal(found["scores"].shape)
    scores = noisy(case.params["gain"] * (scaled @ head), sums)
    return {"scaled": scaled, "scores": scores, "choice": found["choice"]}
'''

FAULTS = '''"""Faults of the toy."""

from karat.faults import Fault, wrap


def raising(x):
    raise ValueError("no squash")


FAULTS = (
    Fault("squash_doubled", ("scaled",), "tanh of twice as much", wrap(squash=lambda right: lambda x: right(2 * x))),
    Fault("squash_of_sum", ("scaled",), "tanh(x + x), the same", wrap(squash=lambda right: lambda x: right(x + x))),
    Fault("grown", ("scaled",), "larger by 1e-9", wrap(squash=lambda right: lambda x: right(x) * (1 + 1e-9))),
    Fault("raises", (), "no function", wrap(squash=lambda right: raising)),
)
'''

FORMULATIONS = '''"""Correct formulations of the toy."""

import numpy as np

from karat.faults import Formulation, wrap


def scores_alone(right):
    def toy(x, mask, weights, *, gain):
        return {"scores": right(x, mask, weights, gain=gain)["scores"]}

    return toy


FORMULATIONS = (
    Formulation("numpy_tanh", "numpy's tanh", wrap(squash=lambda right: np.tanh)),
    Formulation("scores_alone", "one checkpoint", wrap(toy=scores_alone), contracts=("float32",)),
    Formulation("absent", "by a program", wrap(squash=lambda right: None), needs="no-such-program-of-karat"),
)
'''

WRONG = {
    "off": "np.tanh(x) * np.float32(1.01)",
    "infinite": "np.tanh(x) / np.float32(0)",
    "unknown": "np.tanh(x) * np.float32(np.nan)",
    "wrong_shape": "np.tanh(x)[..., :1]",
}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Return a folder with a toy that counts in sigma, its formulations, faults and goldens; nobody may change it."""
    root = tmp_path_factory.mktemp("tried") / "toy"
    shutil.copytree(SOURCES, root, ignore=shutil.ignore_patterns("__pycache__"))
    head, _, _ = (root / "tolerances.toml").read_text(encoding="utf-8").partition("[class.default]")
    (root / "tolerances.toml").write_text(head + TOLERANCES, encoding="utf-8")
    with (root / "generators" / "toy.py").open("a", encoding="utf-8") as generator:
        generator.write(PERTURBED)
    (root / "generators" / "toy_faults.py").write_text(FAULTS, encoding="utf-8")
    (root / "generators" / "toy_formulations.py").write_text(FORMULATIONS, encoding="utf-8")
    goldens.move_in(freeze.freeze(Repository(root), "toy"), root / "goldens" / "toy")
    return root


@pytest.fixture(scope="module")
def gathered(frozen, tmp_path_factory):
    """Return the repository after `python -m karat.trials`, and its exit code."""
    root = tmp_path_factory.mktemp("gathered") / "toy"
    shutil.copytree(frozen, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "dont_write_bytecode", True)
        code = trials.main([])
    return Toy(root), code


@pytest.fixture
def content(gathered):
    """Return the evidence of the toy."""
    return evidence.read_evidence(gathered[0].repository, "toy")


@pytest.fixture
def mine(frozen, tmp_path, monkeypatch):
    """Return a repository of the test's own that was not tried yet; trials run in this process."""
    shutil.copytree(frozen, tmp_path / "toy")
    monkeypatch.chdir(tmp_path / "toy")
    monkeypatch.setattr(trials, "_worker", {})
    return Toy(tmp_path / "toy")


def row_of(rows, name, contract="float32"):
    """Return the row of a formulation or fault under a contract."""
    [row] = [row for row in rows if name in (row.get("formulation"), row.get("fault")) and row["contract"] == contract]
    return row


def run(toy, kind, name, contract="float32"):
    """Try one formulation or fault in this process."""
    trials._open(toy.root, "toy")
    names = ["plain" if entry is None else entry.name for entry in trials._worker[kind]]
    return trials._run((kind, names.index(name), contract))


# --- correct formulations --------------------------------------------------------------------------------------------


def test_a_correct_formulation_counts_its_comparisons_and_is_not_rejected(content):
    """Each case x checkpoint is one correct run; what a formulation does not compute is not compared."""
    rows = content["formulations"]
    assert {(row["formulation"], row["contract"]): row["comparisons"] for row in rows} == {
        ("plain", "float32"): 6,
        ("numpy_tanh", "float32"): 6,
        ("scores_alone", "float32"): 2,
        ("plain", "bfloat16"): 6,
        ("numpy_tanh", "bfloat16"): 6,
    }
    assert [(row["rejected"], row["accused"]) for row in rows] == [(0, 0)] * 5
    assert (content["summary"]["correct_runs"], content["summary"]["rejected"]) == (26, 0)


def test_formulations_run_where_they_can_and_under_what_they_honour(content):
    """A formulation without its program, or under a contract that it does not promise, says nothing of the check."""
    tried = {(row["formulation"], row["contract"]) for row in content["formulations"]}
    assert "absent" not in {name for name, _ in tried}
    assert ("scores_alone", "bfloat16") not in tried


def test_which_trials_run():
    """The plain candidate always; a fault and a formulation by their contracts, a formulation by its program too."""
    entry = Formulation("name", "text", print)
    fault = Fault("name", (), "text", print)
    assert trials._runs(None, "float32")
    assert trials._runs(fault, "float32")
    assert not trials._runs(replace(fault, contracts=("float32",)), "tfloat32")
    assert trials._runs(entry, "float32")
    assert trials._runs(replace(entry, needs="sh"), "float32")
    assert not trials._runs(replace(entry, needs="no-such-program-of-karat"), "float32")
    assert trials._runs(replace(entry, contracts=("float32",)), "float32")
    assert not trials._runs(replace(entry, contracts=("float32",)), "bfloat16")


def test_a_correct_run_has_the_margin_of_its_worst_test(content):
    """By this factor it stays below the limit that is nearest; every test's worst value is kept."""
    for row in content["formulations"]:
        assert row["margin"] > 1
        assert row["at"].startswith("toy/")
        assert f"/{row['contract']}/" in row["at"]
        assert {"max", "rms", "row"} <= row["worst"].keys()
        assert row["worst"]["max"] <= 12 / row["margin"] * 1.001
        assert "checkpoints" not in row


def test_a_third_is_held_out_by_its_name(content):
    """Limits are chosen without them: a hash of the name says which, whatever stands before it in the catalogue."""
    held = [name for name in map(str, range(3000)) if trials.held_out(name)]
    assert 900 < len(held) < 1100
    for rows, key in (("formulations", "formulation"), ("faults", "fault")):
        assert [row["held_out"] for row in content[rows]] == [trials.held_out(row[key]) for row in content[rows]]
    for part, runs in (("open", False), ("held_out", True)):
        chosen = [row for row in content["formulations"] if row["held_out"] == runs]
        assert content[part]["correct_runs"] == sum(row["comparisons"] for row in chosen)
        assert content[part]["faults"] == sum(row["held_out"] == runs for row in content["faults"])
        assert content[part].keys() == content["summary"].keys()


def wrong_formulation(toy, source):
    """Put a wrong formulation in the catalogue."""
    line = f'FORMULATIONS += (Formulation("wrong", "wrong", wrap(squash=lambda right: lambda x: {source})),)\n'
    path = toy.root / "generators" / "toy_formulations.py"
    path.write_text(FORMULATIONS + line, encoding="utf-8")


@pytest.mark.parametrize("contract", ["float32", "bfloat16"])
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_formulation_is_rejected(mine, wrong, contract):
    """A formulation that is not correct cannot pass for one."""
    wrong_formulation(mine, wrong)
    row = run(mine, "formulation", "wrong", contract)
    assert row["comparisons"] == 6
    assert row["rejected"] >= 2
    assert row["margin"] < 1 or wrong == WRONG["wrong_shape"]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_a_wrong_formulation_did_can_be_written(mine, wrong):
    """Infinite errors, too, are numbers of the evidence: hours of trials do not end in a traceback."""
    wrong_formulation(mine, wrong)
    assert goldens.manifest_text({"formulations": [run(mine, "formulation", "wrong")]})


def test_a_rejected_formulation_fails_the_session(mine, capsys):
    """Exit code 3, and what is wrong in words; the evidence shows it all the same, and closes the gate."""
    wrong_formulation(mine, WRONG["off"])
    assert trials.main(["toy"]) == 3
    found = evidence.read_evidence(mine.repository, "toy")
    rejected = sum(row["rejected"] for row in found["formulations"] if row["formulation"] == "wrong")
    assert rejected >= 4
    assert f"toy: {rejected} correct runs are rejected" in capsys.readouterr().err
    assert {finding.kind for finding in gate.inspect(mine.repository)} == {"tolerance"}
    assert mine.karat("evidence").code == 3


def test_a_formulation_is_tried_on_large_cases_only_where_it_is_fast(mine, monkeypatch):
    """Large inputs repeat what small ones show: the plain candidate and what is marked `large` have them too."""
    monkeypatch.setattr("karat.faults._LARGEST_CASE", 180)  # the inputs of `padded` are 171 elements, of `small` 187
    assert run(mine, "formulation", "plain")["comparisons"] == 6
    assert run(mine, "formulation", "numpy_tanh")["comparisons"] == 3
    source = FORMULATIONS.replace("lambda right: np.tanh)", "lambda right: np.tanh), large=True")
    (mine.root / "generators" / "toy_formulations.py").write_text(source, encoding="utf-8")
    assert load_formulations(mine.repository, mine.suite)[0].large
    assert run(mine, "formulation", "numpy_tanh")["comparisons"] == 6
    assert run(mine, "fault", "squash_doubled")["cases"] == 1


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contract", ["float32", "bfloat16"])
def test_a_planted_fault_is_caught_and_named(content, contract):
    """In every case that sees it, above the limit, at the checkpoint where it belongs."""
    row = row_of(content["faults"], "squash_doubled", contract)
    assert (row["caught"], row["visible"], row["named"], row["guesses"]) == (True, True, True, {})
    assert (row["cases"], row["valued"]) == (2, 2)
    assert row["margin"] > 1.5
    assert row["signal"] >= 12
    assert row["at"].partition("/")[2].startswith("scaled: ")


def test_a_name_is_right_that_does_the_same(content):
    """Two faults of one effect cannot be told apart: either name is right."""
    assert row_of(content["faults"], "squash_of_sum")["named"] is True


@pytest.mark.parametrize("contract", ["float32", "bfloat16"])
def test_an_invisible_fault_is_listed_with_its_signal(content, contract):
    """What the goldens cannot see is known beforehand, said, and no failure of the check."""
    row = row_of(content["faults"], "grown", contract)
    assert (row["caught"], row["visible"], row["cases"], row["named"], row["at"]) == (False, False, 0, None, "")
    assert 0 < row["signal"] < 12
    wanted = {"suite": "toy", "fault": "grown", "contract": contract, "signal": row["signal"]}
    assert wanted in evidence.invisible_rows([content])


def test_a_fault_that_raises_is_caught_and_no_name_is_asked_for(content):
    """An exception leaves no values to name it by."""
    row = row_of(content["faults"], "raises")
    assert (row["caught"], row["named"], row["valued"], row["guesses"]) == (True, None, 0, {})
    assert row["margin"] == evidence.ENDLESS
    assert row["at"].endswith(": raised")


def test_the_sums_are_of_the_rows(content):
    """The summary says nothing that the rows do not say."""
    summary = evidence.summarise(content["formulations"], content["faults"])
    assert content["summary"] == vars(summary) | {"smallest_margin": summary.smallest_margin}
    found = content["summary"]
    assert (found["faults"], found["caught"], found["missed"], found["invisible"]) == (8, 6, 0, 2)
    assert (found["named"], found["misnamed"]) == (4, 0)
    assert found["smallest_margin"] == min(
        row["margin"] for row in content["formulations"] + content["faults"] if row.get("caught", True)
    )


def test_the_margins_of_each_checkpoint_are_kept(content):
    """By contract and checkpoint: the worst correct run, and the nearest fault that is caught there."""
    rows = {(row["contract"], row["checkpoint"]): row for row in content["checkpoints"]}
    assert rows.keys() == {(c, p) for c in ("float32", "bfloat16") for p in ("scaled", "scores", "choice")}
    for contract in ("float32", "bfloat16"):
        caught = [row for row in content["faults"] if row["contract"] == contract and row["caught"]]
        nearest = min((row["margin"], row["fault"]) for row in caught)
        assert (rows[contract, "scaled"]["fault_margin"], rows[contract, "scaled"]["fault"]) == nearest
        assert rows[contract, "choice"]["fault"] == ""
        margins = [rows[contract, point]["correct_margin"] for point in ("scaled", "scores", "choice")]
        assert min(margins) == min(row["margin"] for row in content["formulations"] if row["contract"] == contract)


# --- rows of verdicts ------------------------------------------------------------------------------------------------

FAULT = Fault("halved", ("scores",), "half of it", print)


def verdict(checkpoint, status="pass", used=0.5, guess=None):
    """Return a verdict with a test that uses so much of its limit."""
    tests = (CheckTest("max", used, 1.0),) if status in ("pass", "mismatch", "fault") else ()
    diagnosis = (Diagnosis(guess, 1.0, 0.1, "text"),) if guess else ()
    return Verdict("toy", "c", "float32", checkpoint, status, (1,), tests=tests, diagnosis=diagnosis)


def fault_row(**observed):
    """Return the row of a fault from verdicts by case, of the contract float16."""
    marked = {case: mark_first_divergence(verdicts) for case, verdicts in observed.items()}
    return trials._fault_row(FAULT, "float16", marked, held_out=False)


@pytest.fixture
def worker(monkeypatch):
    """Put stand-ins of a suite's goldens into the worker: two signatures that are 2 % apart, two that are 0.5 %."""
    directions = {"halved": [1.0, 0.0], "near": [1.02, 0.0], "same": [1.005, 0.0]}
    signatures = [Signature(name, "", np.array(direction), {}) for name, direction in directions.items()]
    found = SimpleNamespace(
        signatures=lambda _case, point: signatures if point == "scores" else [],
        manifest={"signatures": [{"fault": "halved", "case": "known"}]},
    )
    session = SimpleNamespace(
        goldens=lambda _: found, tolerances=SimpleNamespace(signatures=SimpleNamespace(visible=12.0))
    )
    made = {"session": session, "suite": None, "signals": {("halved", "float16"): 12.0}}
    monkeypatch.setattr(trials, "_worker", made)
    return made


def test_a_fault_is_shown_by_the_case_where_it_is_largest(worker):
    """Its margin is that of the case that shows it best, and so is its name; each case's wrong guess is kept."""
    row = fault_row(
        one=[verdict("scores", "mismatch", 3.0, "other")],
        two=[verdict("scores", "fault", 9.0, "halved"), verdict("logits", "mismatch", 5.0)],
        three=[verdict("scores")],
        four=[verdict("scores", "mismatch", 2.0)],
    )
    assert (row["caught"], row["margin"], row["at"], row["cases"]) == (True, 9.0, "two/scores: fault", 3)
    assert (row["named"], row["valued"], row["guesses"]) == (True, 3, {"one": "other", "four": "nothing"})
    assert row["visibility"] is None


def test_a_name_is_asked_where_the_fault_belongs(worker):
    """A case that shows it only later, however large there, does not decide over its name."""
    row = fault_row(
        one=[verdict("scores", "mismatch", 3.0, "halved")],
        two=[verdict("scores"), verdict("logits", "mismatch", 90.0, "other")],
    )
    assert (row["named"], row["margin"], row["guesses"]) == (True, 90.0, {"two": "other"})


@pytest.mark.parametrize(("guess", "right"), [("halved", True), ("same", True), ("near", False), ("none", False)])
def test_a_guess_is_right_that_does_the_same_to_a_part_in_a_hundred(worker, guess, right):
    """Otherwise it is misnamed, though caught."""
    row = fault_row(one=[verdict("scores", "mismatch", 3.0, guess)])
    assert (row["caught"], row["named"]) == (True, right)


@pytest.mark.parametrize("status", ["shape", "dtype", "nonfinite", "raised"])
def test_what_no_tolerance_lets_pass_has_an_endless_margin(worker, status):
    """Nothing is named that left no values to compare."""
    row = fault_row(one=[verdict("scores", status)])
    assert (row["caught"], row["margin"], row["named"]) == (True, evidence.ENDLESS, None)


@pytest.mark.parametrize(("signal", "visible"), [(11.9, False), (12.0, True), (1e300, True)])
def test_a_fault_that_passes_is_missed_where_it_should_be_visible(worker, signal, visible):
    """Whether the goldens see a fault is known from its signature, not from whether it was caught."""
    worker["signals"] = {("halved", "float16"): signal, ("halved", "float32"): 1e3}
    row = fault_row(one=[verdict("scores")])
    assert (row["caught"], row["visible"], row["margin"]) == (False, visible, 0.0)
    assert row["signal"] <= evidence.ENDLESS
    assert evidence.summarise([], [row]).missed == int(visible)


def test_an_infinite_excess_is_written_as_a_number(worker):
    """Where nothing is allowed any error is infinitely too large: the row stays JSON."""
    row = fault_row(one=[replace(verdict("scores", "mismatch"), tests=(CheckTest("max", 1.0, 0.0),))])
    assert row["margin"] == evidence.ENDLESS
    assert json.dumps(row, allow_nan=False)


def test_a_correct_row_counts_each_status():
    """Rejected is whatever does not pass; accused, what was taken for a fault; left out, what was not produced."""
    observed = {
        "one": [verdict("scores", used=0.25), verdict("logits", "missing-output")],
        "two": [verdict("scores", "fault", 0.5), verdict("logits", "mismatch", 2.0)],
        "three": [verdict("scores", "raised")],
    }
    row = trials._correct_row("other", "float32", observed, held_out=True)
    assert (row["comparisons"], row["rejected"], row["accused"]) == (4, 3, 1)
    assert (row["margin"], row["at"]) == (0.5, "toy/c/float32/logits")
    assert (row["worst"], row["checkpoints"], row["held_out"]) == ({"max": 2.0}, {"scores": 0.5, "logits": 2.0}, True)


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_trials_leave_evidence_table_and_plot(gathered, content):
    """Three files beside the goldens, with which the gate is open and `karat evidence` content."""
    toy, code = gathered
    assert code == 0
    assert evidence.shortcomings(content) == []
    assert gate.inspect(toy.repository) == []
    assert (toy.goldens / evidence.PLOT).read_text(encoding="utf-8").startswith("<?xml")
    table = (toy.goldens / goldens.VISIBILITY).read_text(encoding="utf-8")
    assert goldens.is_sealed(table)
    assert "| `squash_doubled` | tanh of twice as much | scaled | scaled |" in table
    assert "| `grown` | larger by 1e-9 | – | – |" in table
    assert "| `raises` | no function | raised | raised |" in table
    assert "| `squash_doubled` | ● | x |" in table
    assert all("visibility" not in row for row in content["faults"])


def test_a_fresh_run_gives_the_same_bytes(gathered, mine, capsys):
    """Evidence can be checked by anybody: it depends on nothing but its sources, and changes nothing else."""
    before = mine.tree()
    assert trials.main(["toy"]) == 0
    written = {f"goldens/toy/{name}" for name in (evidence.EVIDENCE, evidence.PLOT, goldens.VISIBILITY)}
    after = mine.tree()
    assert {name for name in after if after[name] != before.get(name)} == written
    assert {name: after[name] for name in written} == {name: gathered[0].tree()[name] for name in written}
    assert "| contract |" in capsys.readouterr().out


def test_a_suite_that_is_not_there_is_usage(mine, capsys):
    """Exit code 2, with the suites that there are."""
    assert trials.main(["other"]) == 2
    assert "no suite 'other'" in capsys.readouterr().err


def test_without_goldens_there_is_a_message(mine, capfd):
    """Nothing can be tried against goldens that are missing: exit code 3 and the mending command, no traceback."""
    shutil.rmtree(mine.goldens)
    assert trials.main(["toy"]) == 3
    assert "run: python -m nox -s goldens -- toy" in capfd.readouterr().err


KILLED = """
import multiprocessing, os, signal, threading, time
from karat.trials import _end_with_parent

def work(ready):
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ready.send(True)
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=work, args=(there,)).start()
    here.recv()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_no_worker_behind(tmp_path):
    """A worker ends when its parent is killed: the output that both write to is then closed."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    ended = subprocess.run([sys.executable, "-P", script], stdout=subprocess.PIPE, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
