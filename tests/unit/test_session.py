"""karat.session: verdicts of all that was asked for, the worst exit code, and candidates that are worth nothing."""

import numpy as np
import pytest

from karat import freeze
from karat.candidates import NULL_KINDS, Failure, Request, open_candidate
from karat.errors import UsageError
from karat.exchange import Outputs
from karat.gate import Finding
from karat.session import Report, Session, check
from karat.suites import Selection
from karat.tensors import of_array
from karat.verdicts import STATUSES, Verdict

CODES = {
    **dict.fromkeys(("mismatch", "fault", "shape", "dtype", "nonfinite", "missing-output"), 1),
    **dict.fromkeys(("raised", "crashed", "timeout"), 4),
    **dict.fromkeys(("golden-missing", "golden-damaged", "golden-stale"), 3),
    "pass": 0,
    "unsupported": 5,
}
RANK = (3, 2, 4, 1, 5, 0)
FINDING = Finding("unlisted", None, None, None, "goldens/more", "remove it")


def verdict(status):
    """Return a verdict of the given status."""
    return Verdict("toy", "small", "float32", status, status, ())


def test_every_status_has_an_exit_code():
    """The statuses of section 5, no more and no fewer."""
    assert set(CODES) == set(STATUSES)
    for status, code in CODES.items():
        assert Report("null:zeros", [verdict(status)]).exit_code == code, status


@pytest.mark.parametrize("first", STATUSES)
def test_the_worst_exit_code_wins(first):
    """3, 2, 4, 1, 5: and 5 only where nothing at all was compared."""
    for second in STATUSES:
        worst = min(CODES[first], CODES[second], key=RANK.index)
        if worst == 5 and "pass" in (first, second):
            worst = 0
        report = Report("null:zeros", [verdict(first), verdict(second)])
        assert report.exit_code == worst, second
        assert Report("null:zeros", report.verdicts, [FINDING]).exit_code == 3, second


def test_no_verdict_at_all_is_nothing_compared():
    """A run that compared nothing never passes."""
    assert Report("null:zeros", []).exit_code == 5


@pytest.mark.parametrize("contract", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", NULL_KINDS)
def test_every_golden_rejects_every_worthless_candidate(toy, kind, contract):
    """null: candidates are deliberately worthless; a golden that one of them passes proves nothing."""
    report = toy.check(f"null:{kind}", contracts=[contract])
    assert len(report.verdicts) == 6
    assert report.exit_code == 1
    assert set(report.counts) == ({"missing-output"} if kind == "missing" else {"mismatch"})


@pytest.mark.parametrize("kind", ["zeros", "constant", "permuted"])
def test_a_worthless_candidate_declares_what_it_cannot_help_matching(toy, kind):
    """A golden of zeros is matched by zeros: unsupported, so that it is counted and never passed."""
    toy.regolden("small", lambda arrays: arrays | {"choice": np.zeros_like(arrays["choice"])})
    statuses = {f"{v.case}/{v.checkpoint}": v.status for v in toy.check(f"null:{kind}").verdicts}
    assert statuses.pop("small/choice") == "unsupported"
    assert set(statuses.values()) == {"mismatch"}


def test_a_stale_candidate_finds_something_stale_in_a_suite_of_one_case(toy):
    """Where no other case has the checkpoint, another checkpoint's golden is given: nothing passes or is skipped."""
    toy.edit("validators/toy.py", 'case("padded"', '# case("padded"')
    assert freeze.main(["toy"]) == 0
    assert toy.check("null:stale").counts == {"mismatch": 3}


class InProcess:
    """A candidate of this process: outputs made by `change` from right ones, and a count of the runs."""

    def __init__(self, toy, change=lambda _, arrays: arrays):
        """Keep the change, count the runs."""
        self.spec, self.toy, self.change, self.runs = "test", toy, change, []

    def run(self, request: Request) -> Outputs | Failure:
        """Return right outputs, changed."""
        self.runs.append((request.case.name, request.contract.name))
        arrays = self.toy.outputs(request.case.name, request.contract.name)
        return Outputs({name: of_array(array) for name, array in self.change(request.case.name, arrays).items()})

    def close(self) -> None:
        """Do nothing."""


def checked(toy, candidate, *select, contracts=()):
    """Check a candidate of this process."""
    return check(toy.repository, candidate, Selection.parse(select), contracts=contracts)


@pytest.mark.parametrize("name", ["scaled", "scores", "choice"])
@pytest.mark.parametrize("value", [7, -1, 10_000])
def test_what_stands_in_padding_is_not_judged(toy, name, value):
    """A candidate may leave whatever it likes where a position is padding, floats and integers alike."""

    def change(case, arrays):
        if case == "padded":
            arrays[name][0, :2] = value
        return arrays

    report = checked(toy, InProcess(toy, change))
    assert report.counts == {"pass": 6}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_in_padding_are_not_judged(toy, value):
    """A softmax over nothing is NaN in padding, where nobody looks."""

    def change(case, arrays):
        if case == "padded":
            arrays["scaled"][0, :2] = value
        return arrays

    assert checked(toy, InProcess(toy, change)).counts == {"pass": 6}


def test_the_first_divergence_is_the_first_in_execution_order(toy):
    """An error travels downstream; the report names where it began."""

    def change(case, arrays):
        arrays["scores"], arrays["choice"] = -arrays["scores"], 10 - arrays["choice"]
        return arrays

    report = checked(toy, InProcess(toy, change))
    assert [(v.checkpoint, v.status) for v in report.verdicts[:3]] == [
        ("scaled", "pass"),
        ("scores", "mismatch"),
        ("choice", "mismatch"),
    ]
    assert [v.first_divergence for v in report.verdicts] == [False, True, False] * 2


def test_a_candidate_runs_once_for_each_case_and_contract(toy):
    """Each case is run once a contract, however many checkpoints are asked for and however often."""
    candidate = InProcess(toy)
    report = checked(toy, candidate, contracts=["float32", "bfloat16"])
    assert candidate.runs == [(case, contract) for case in ("small", "padded") for contract in ("float32", "bfloat16")]
    assert report.counts == {"pass": 12}
    session = Session(toy.repository, candidate, [toy.suite])
    first = session.verdicts(toy.suite, toy.suite.case("small"), "float32")
    assert session.verdicts(toy.suite, toy.suite.case("small"), "float32") is first


def test_only_what_is_selected_is_run_and_reported(toy):
    """SELECT is suite[/case[/checkpoint]] with shell wildcards."""
    candidate = InProcess(toy)
    report = checked(toy, candidate, "toy/pad*/sc*")
    assert [v.name for v in report.verdicts] == ["toy/padded/float32/scaled", "toy/padded/float32/scores"]
    assert candidate.runs == [("padded", "float32")]


def test_what_a_candidate_says_it_lacks_is_kept(toy):
    """The patterns of UNSUPPORTED are in the report, each once, so that one that matches nothing can be noted."""
    assert toy.check(toy.candidate("toy = right\nUNSUPPORTED = ['score', 'ch*']\n")).unsupported == ("score", "ch*")
    assert toy.check("py:candidates/plain").unsupported == ()


@pytest.mark.parametrize(
    ("select", "contracts", "text"),
    [
        ("tot", (), "tot"),
        ("toy/smal", (), "toy/smal"),
        ("toy/small/score", (), "toy/small/score"),
        ("toy", ["float99"], "'float99'"),
    ],
)
def test_what_does_not_exist_is_a_usage_error(toy, select, contracts, text):
    """No such suite, case, checkpoint or contract: exit code 2, before anything is run."""
    candidate = InProcess(toy)
    with pytest.raises(UsageError, match=text):
        checked(toy, candidate, select, contracts=contracts)
    assert candidate.runs == []


def test_a_contract_that_no_selected_suite_declares_is_a_usage_error(toy):
    """A contract of tolerances.toml that a suite does not declare would compare nothing."""
    contract = '[contract.float16]\nstorage = "float16"\naccumulation = "float32"\n'
    contract += 'products = "float16"\nrounding = "each operation"\n'
    toy.edit("tolerances.toml", "[contract.bfloat16]", contract + "[contract.bfloat16]")
    with pytest.raises(
        UsageError, match="no selected suite declares the contract float16; declared: bfloat16, float32"
    ):
        checked(toy, InProcess(toy), contracts=["float16"])


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), float("inf"), 1e30])
def test_a_time_limit_that_is_none_is_a_usage_error(toy, timeout):
    """A limit of no time, or of no number, is said to be none before anything is run."""
    with pytest.raises(UsageError, match="timeout"):
        toy.check("py:candidates/plain", timeout=timeout)
    assert vars(open_candidate("py:candidates/plain", timeout=1.0))["timeout"] == 1.0
