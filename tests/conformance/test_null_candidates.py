"""Every golden rejects the worthless candidates."""

from pathlib import Path

import numpy as np
import pytest

from karat.candidates import NULL_KINDS, open_candidate
from karat.goldens import GoldenSet
from karat.session import check
from karat.suites import Selection, find_repository
from karat.verdicts import Verdict

REPOSITORY = find_repository(Path(__file__).parent)

# At inducing points the residual variance is the jitter: correct float32 has no digit of a correlation there.
KNOWN = {("zeros", "residual_correlation/inducing-queries/float32/correlation")}


def no_wrong_version(kind: str, verdict: Verdict) -> bool:
    """Say whether a golden has no wrong version of this kind: it is empty, or all one value, or all 0 to begin with."""
    golden = GoldenSet.open(REPOSITORY, verdict.suite).golden(verdict.case, verdict.checkpoint)
    if kind == "zeros":
        return not golden.any()
    return golden.size == 0 or (kind != "noise" and np.unique(golden).size == 1)


@pytest.mark.parametrize("contract", ["float32", "bfloat16", "float16-once"])
@pytest.mark.parametrize("kind", NULL_KINDS)
def test_every_golden_rejects(kind: str, contract: str) -> None:
    """A candidate that is worth nothing passes no checkpoint, in a fine format, a coarse one, and rounded once."""
    report = check(REPOSITORY, open_candidate(f"null:{kind}"), Selection(), contracts=[contract])
    assert report.verdicts
    wrong = ("mismatch", "missing-output", "nonfinite", "unsupported")
    assert [v.name for v in report.verdicts if v.status not in wrong and (kind, v.name) not in KNOWN] == []
    helpless = [verdict for verdict in report.verdicts if verdict.status == "unsupported"]
    assert [verdict.name for verdict in helpless if not no_wrong_version(kind, verdict)] == []
    assert report.exit_code == 1
