"""Every catalogued fault, planted in the plain candidate, is rejected where it belongs."""

from pathlib import Path

import pytest

from karat.faults import (
    Fault,
    FaultyCandidate,
    Formulation,
    checkpoint_kinds,
    expected_failure,
    first_failure,
    load_faults,
    load_formulations,
    observe,
    visibility_rows,
    visible_cases,
)
from karat.goldens import VISIBILITY
from karat.session import Session
from karat.suites import Suite, find_repository

REPOSITORY = find_repository(Path(__file__).parent)
PAIRS = [(suite, fault) for suite in REPOSITORY.suites.values() for fault in load_faults(REPOSITORY, suite)]
LAST_RESORT = "greedy_logits"  # a case whose prefill cannot see a fault may see it in its continuation


@pytest.fixture(scope="module")
def session() -> Session:
    """Inspect the goldens once for all faults."""
    suites = list(REPOSITORY.suites.values())
    opened = Session(REPOSITORY, FaultyCandidate(REPOSITORY.plain(suites[0].name), suites[0].function, None), suites)
    assert opened.findings == []
    return opened


def test_the_catalogue_is_not_empty() -> None:
    """A suite's faults are found where the library looks for them."""
    assert {suite.name for suite, _ in PAIRS} == set(REPOSITORY.suites)


@pytest.mark.parametrize(("suite", "fault"), PAIRS, ids=[f"{suite.name}/{fault.name}" for suite, fault in PAIRS])
def test_a_fault_is_rejected_where_it_belongs(session: Session, suite: Suite, fault: Fault) -> None:
    """Each fault's first divergence in float32 is the checkpoint where it belongs, in every case that sees it."""
    observed = observe(session, suite, fault, "float32")
    seen = {case.name: first_failure(observed[case.name]) for case in visible_cases(suite)}
    expected = {case.name: expected_failure(fault, case) for case in visible_cases(suite)}
    wrong = {name: first for name, first in seen.items() if first not in (None, expected[name], LAST_RESORT)}
    assert wrong == {}
    assert any(first == expected[name] for name, first in seen.items()), f"no case sees {fault.name}"


CORRECT = [
    (suite, formulation, contract)
    for suite in REPOSITORY.suites.values()
    for formulation in load_formulations(REPOSITORY, suite)
    for contract in formulation.contracts or suite.contracts
]
CORRECT_NAMES = [f"{suite.name}/{formulation.name}/{contract}" for suite, formulation, contract in CORRECT]


@pytest.mark.parametrize(("suite", "formulation", "contract"), CORRECT, ids=CORRECT_NAMES)
def test_a_correct_formulation_passes(session: Session, suite: Suite, formulation: Formulation, contract: str) -> None:
    """Another correct way to compute the same passes every case under every contract: no false alarm."""
    candidate = FaultyCandidate(REPOSITORY.plain(suite.name), suite.function, formulation)
    planted = session.with_candidate(candidate)
    verdicts = [verdict for case in suite.cases for verdict in planted.verdicts(suite, case, contract)]
    assert [verdict.name for verdict in verdicts if verdict.status != "pass"] == []


@pytest.mark.parametrize("suite", REPOSITORY.suites.values(), ids=list(REPOSITORY.suites))
def test_no_fault_is_seen_where_there_is_none(session: Session, suite: Suite) -> None:
    """The plain candidate without a fault passes every case on which the faults are tried."""
    for case, verdicts in observe(session, suite, None, "float32").items():
        assert first_failure(verdicts) is None, case


@pytest.mark.parametrize(("suite", "fault"), PAIRS, ids=[f"{suite.name}/{fault.name}" for suite, fault in PAIRS])
def test_the_visibility_matrix_is_what_is_observed(session: Session, suite: Suite, fault: Fault) -> None:
    """goldens/<suite>/visibility.md holds, for every fault, the two rows that a fresh run gives."""
    text = (REPOSITORY.goldens / suite.name / VISIBILITY).read_text(encoding="utf-8")
    for row in visibility_rows(session, suite, fault, "float32"):
        assert row in text.splitlines()


@pytest.mark.parametrize("suite", REPOSITORY.suites.values(), ids=list(REPOSITORY.suites))
def test_the_visibility_matrix_has_no_other_rows(suite: Suite) -> None:
    """The matrix lists the catalogued faults, each twice, and nothing else."""
    text = (REPOSITORY.goldens / suite.name / VISIBILITY).read_text(encoding="utf-8")
    listed = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert listed == [fault.name for fault in load_faults(REPOSITORY, suite)] * 2
    assert all(kind in text for kind in checkpoint_kinds(suite))
