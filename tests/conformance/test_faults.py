"""Every catalogued fault, planted in the plain candidate, is rejected where it belongs; every formulation passes.

The evidence (`nox -s evidence`) tries them all under every contract; here some of each suite are tried again, so that
the evidence itself is checked.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from karat import evidence
from karat.faults import (
    Fault,
    FaultyCandidate,
    Formulation,
    expected_failure,
    first_failure,
    load_faults,
    load_formulations,
    observe,
    visible_cases,
)
from karat.goldens import VISIBILITY
from karat.session import Session
from karat.suites import Suite, find_repository
from karat.visibility import checkpoint_kinds, visibility_rows

REPOSITORY = find_repository(Path(__file__).parent)
MODELS = REPOSITORY.goldens / "models"
Entry = TypeVar("Entry")


def spread(entries: Sequence[Entry], most: int) -> Sequence[Entry]:
    """Return at most so many of the entries, from the first to the last."""
    return entries[:: -(-len(entries) // most) or 1]


PAIRS = [(suite, fault) for suite in REPOSITORY.suites.values() for fault in spread(load_faults(REPOSITORY, suite), 8)]
LAST_RESORT = "greedy_logits"  # a case whose prefill cannot see a fault may see it in its continuation


@pytest.fixture(scope="module")
def session() -> Session:
    """Inspect the goldens once for all faults."""
    suites = list(REPOSITORY.suites.values())
    plain = FaultyCandidate(REPOSITORY.plain(suites[0].name), suites[0].function, None)
    opened = Session(REPOSITORY, plain, suites)
    assert opened.findings == []
    return opened


def test_the_catalogue_is_not_empty() -> None:
    """A suite's faults are found where the library looks for them."""
    assert {suite.name for suite, _ in PAIRS} == set(REPOSITORY.suites)


@pytest.mark.parametrize(("suite", "fault"), PAIRS, ids=[f"{suite.name}/{fault.name}" for suite, fault in PAIRS])
def test_a_fault_is_rejected_where_it_belongs(session: Session, suite: Suite, fault: Fault) -> None:
    """Each fault's first divergence in float32 is where it belongs, in every case that sees it; so says the matrix."""
    observed = observe(session, suite, fault, "float32")
    seen = {name: first_failure(verdicts) for name, verdicts in observed.items()}
    expected = {case.name: expected_failure(fault, case) for case in visible_cases(suite)}
    allowed = {name: {None, expected[name], LAST_RESORT} for name in seen}
    places: tuple[str, ...] = ()
    if REPOSITORY.folder(suite.name).parent != MODELS:  # there a case may see a fault only where it does more harm
        places = fault.at
        for case in (case for case in visible_cases(suite) if case.name in seen):
            points = [checkpoint.name for checkpoint in case.checkpoints]
            allowed[case.name] |= set(
                points[points.index(expected[case.name]) :] if expected[case.name] in points else points
            )
    assert {name: first for name, first in seen.items() if first not in allowed[name]} == {}
    rows = evidence.read_evidence(REPOSITORY, suite.name)["faults"]
    (row,) = [row for row in rows if (row["fault"], row["contract"]) == (fault.name, "float32")]
    known = row["caught"] or row["visible"]
    assert known == any(first in {expected[name], *places} for name, first in seen.items()), f"who sees {fault.name}?"
    matrix = (REPOSITORY.folder(suite.name) / VISIBILITY).read_text(encoding="utf-8").splitlines()
    for row in visibility_rows(suite, fault, observed):
        assert row in matrix


NAMED = [
    (suite, fault, contract)
    for suite in REPOSITORY.suites.values()
    for fault in spread(load_faults(REPOSITORY, suite)[1:], 2)  # others than above
    for contract in ("bfloat16", "float16", "bfloat16-once", "float64")
    if contract in suite.contracts and contract in (fault.contracts or suite.contracts)
    if REPOSITORY.folder(suite.name).parent != MODELS or contract != "float64"
]
NAMED_NAMES = [f"{suite.name}/{fault.name}/{contract}" for suite, fault, contract in NAMED]


@pytest.mark.parametrize(("suite", "fault", "contract"), NAMED, ids=NAMED_NAMES)
def test_the_evidence_is_what_happens(session: Session, suite: Suite, fault: Fault, contract: str) -> None:
    """What the evidence says of a fault, caught or invisible, in how many cases, is what a fresh run gives."""
    rows = evidence.read_evidence(REPOSITORY, suite.name)["faults"]
    (row,) = [row for row in rows if (row["fault"], row["contract"]) == (fault.name, contract)]
    observed = observe(session, suite, fault, contract)
    failing = [name for name, verdicts in observed.items() if first_failure(verdicts) is not None]
    assert (row["caught"], row["cases"]) == (bool(failing), len(failing))


CORRECT = [
    (suite, formulation, contract)
    for suite in REPOSITORY.suites.values()
    for formulation in spread(load_formulations(REPOSITORY, suite), 4)
    for contract in spread(formulation.contracts or suite.contracts, 2)
]
CORRECT_NAMES = [f"{suite.name}/{formulation.name}/{contract}" for suite, formulation, contract in CORRECT]


@pytest.mark.parametrize(("suite", "formulation", "contract"), CORRECT, ids=CORRECT_NAMES)
def test_a_correct_formulation_passes(session: Session, suite: Suite, formulation: Formulation, contract: str) -> None:
    """Another correct way to compute the same passes wherever it is compared: no false alarm."""
    if formulation.needs and shutil.which(formulation.needs) is None:
        pytest.skip(f"{formulation.name} needs {formulation.needs}")
    candidate = FaultyCandidate(REPOSITORY.plain(suite.name), suite.function, formulation)
    planted = session.with_candidate(candidate)
    cases = [case for case in visible_cases(suite) if contract in suite.contracts_of(case) and not case.refuses]
    verdicts = [verdict for case in cases for verdict in planted.verdicts(suite, case, contract)]
    assert {verdict.status for verdict in verdicts} <= {"pass", "missing-output"}
    assert any(verdict.status == "pass" for verdict in verdicts)


@pytest.mark.parametrize("suite", REPOSITORY.suites.values(), ids=list(REPOSITORY.suites))
def test_no_fault_is_seen_where_there_is_none(session: Session, suite: Suite) -> None:
    """The plain candidate without a fault passes every case on which the faults are tried."""
    for case, verdicts in observe(session, suite, None, "float32").items():
        assert first_failure(verdicts) is None, case


@pytest.mark.parametrize("suite", REPOSITORY.suites.values(), ids=list(REPOSITORY.suites))
def test_the_visibility_matrix_has_no_other_rows(suite: Suite) -> None:
    """The matrix lists the catalogued faults, each twice, and nothing else."""
    text = (REPOSITORY.folder(suite.name) / VISIBILITY).read_text(encoding="utf-8")
    listed = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert listed == [fault.name for fault in load_faults(REPOSITORY, suite)] * 2
    assert all(kind in text for kind in checkpoint_kinds(suite))
