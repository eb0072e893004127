"""Every golden rejects the worthless candidates."""

import functools
from pathlib import Path

import numpy as np
import pytest

from karat.candidates import NULL_KINDS, open_candidate
from karat.goldens import GoldenSet
from karat.session import Report, Session
from karat.suites import find_repository
from karat.verdicts import Verdict

REPOSITORY = find_repository(Path(__file__).parent)

# At inducing points the residual variance is the jitter: correct float32 has no digit of a correlation there.
KNOWN = {("zeros", "residual_correlation/inducing-queries/float32/correlation")}


@functools.cache
def opened(suite: str) -> GoldenSet:
    """Open the goldens of a suite once."""
    return GoldenSet.open(REPOSITORY, suite)


def no_wrong_version(kind: str, verdict: Verdict) -> bool:
    """Say whether a golden has no wrong version of this kind: it is empty, or all one value, or all 0 to begin with."""
    golden = opened(verdict.suite).golden(verdict.case, verdict.checkpoint)
    if kind == "zeros":
        return not golden.any()
    return golden.size == 0 or (kind != "noise" and np.unique(golden).size == 1)


@pytest.fixture(scope="module")
def session() -> Session:
    """Inspect the goldens once for all kinds."""
    inspected = Session(REPOSITORY, open_candidate("null:missing"), REPOSITORY.suites.values())
    assert inspected.findings == []
    return inspected


@pytest.mark.parametrize("contract", ["float32", "bfloat16", "float16-once"])
@pytest.mark.parametrize("kind", NULL_KINDS)
def test_every_golden_rejects(session: Session, kind: str, contract: str) -> None:
    """A candidate that is worth nothing passes no checkpoint, in a fine format, a coarse one, and rounded once."""
    worthless = session.with_candidate(open_candidate(f"null:{kind}"))
    verdicts = [
        verdict
        for suite in REPOSITORY.suites.values()
        for case in suite.cases
        if contract in suite.contracts_of(case)
        for verdict in worthless.verdicts(suite, case, contract)
    ]
    declaring = {suite.name for suite in REPOSITORY.suites.values() if contract in suite.contracts}
    assert {verdict.suite for verdict in verdicts} == declaring
    wrong = ("mismatch", "missing-output", "nonfinite", "unsupported")
    assert [v.name for v in verdicts if v.status not in wrong and (kind, v.name) not in KNOWN] == []
    helpless = [verdict for verdict in verdicts if verdict.status == "unsupported"]
    assert [verdict.name for verdict in helpless if not no_wrong_version(kind, verdict)] == []
    assert Report(f"null:{kind}", verdicts, []).exit_code == 1
