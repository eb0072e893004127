"""The candidate of this run against every golden: one test for each suite × case × contract × checkpoint."""

from karat.verdicts import Verdict


def test_checkpoint(karat_verdict: Verdict) -> None:
    """The candidate computes what the golden holds, within the tolerance of its contract."""
    assert karat_verdict.status == "pass"
