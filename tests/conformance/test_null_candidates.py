"""Every golden rejects the worthless candidates."""

from pathlib import Path

import pytest

from karat.candidates import NULL_KINDS, open_candidate
from karat.session import check
from karat.suites import Selection, find_repository

REPOSITORY = find_repository(Path(__file__).parent)
# What a null candidate may declare unsupported: goldens of which there is no wrong version of its kind.
HELPLESS = {
    "permuted": {"greedy_token"},  # one integer in one row has no other order
    "constant": {"greedy_token"},  # the mean of one integer is that integer
}


@pytest.mark.parametrize("contract", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", NULL_KINDS)
def test_every_golden_rejects(kind: str, contract: str) -> None:
    """A candidate that is worth nothing passes no checkpoint of any case, under any contract."""
    report = check(REPOSITORY, open_candidate(f"null:{kind}"), Selection(), contracts=[contract])
    assert report.verdicts
    accepted = [v.name for v in report.verdicts if v.status not in ("mismatch", "missing-output", "unsupported")]
    assert accepted == []
    helpless = {v.checkpoint for v in report.verdicts if v.status == "unsupported"}
    assert helpless <= HELPLESS.get(kind, set())
    assert report.exit_code == 1
