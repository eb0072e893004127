"""karat.verdicts: a test passes up to its limit, NaN never, and a verdict says how much of its limits was used."""

import math
from dataclasses import replace

import pytest

from karat import verdicts
from karat.compare import Statistics
from karat.verdicts import DIVERGED, STATUSES, Verdict

FINE = Statistics(6, 0, 0.1, 0.1, 0.1, 0.25, 0, (0,), 1.0, 1.0)


def verdict(status="pass", checkpoint="out", tests=(), statistics=None):
    """Return a verdict."""
    return Verdict("suite", "case", "float32", checkpoint, status, (), statistics, tests=tuple(tests))


@pytest.mark.parametrize(
    ("value", "limit", "passed", "used"),
    [
        (0.0, 2.0, True, 0.0),
        (2.0, 2.0, True, 1.0),
        (math.nextafter(2, 3), 2.0, False, math.nextafter(1, 2)),
        (math.inf, 2.0, False, math.inf),
        (0.0, 0.0, True, 0.0),
        (5e-324, 0.0, False, math.inf),
        (-3.0, 2.0, True, -1.5),
    ],
)
def test_a_test_passes_up_to_its_limit(value, limit, passed, used):
    """Equality passes; 0 means 0; what is used of a limit of nothing is nothing, or infinitely much."""
    test = verdicts.Test("max", value, limit)
    assert (test.passed, test.used) == (passed, used)


@pytest.mark.parametrize("limit", [0.0, 1.0, math.inf])
def test_nan_never_passes(limit):
    """Every test is not (value <= limit), so that NaN fails, and uses more than everything."""
    test = verdicts.Test("gain", math.nan, limit)
    assert not test.passed
    assert not test.used <= 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_verdict_uses_what_the_nearest_of_its_tests_does(place):
    """Used is the largest share of any limit, wherever it stands; the statistics' own is one of them."""
    tests = [verdicts.Test("max", 0.5, 1.0)] * 3
    tests[place] = verdicts.Test("row", 3.0, 4.0)
    assert verdict(tests=tests, statistics=FINE).used == 0.75
    assert verdict(statistics=replace(FINE, used=0.875), tests=tests).used == 0.875
    assert verdict(statistics=FINE).used == 0.25
    assert verdict().used == 0.0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_verdict_with_a_test_of_nan_uses_more_than_is_allowed(place):
    """More than 1 fails, and what fails uses more than 1: NaN too, wherever it stands."""
    tests = [verdicts.Test("max", 0.5, 1.0)] * 3
    tests[place] = verdicts.Test("gain", math.nan, 4.0)
    assert not verdict("mismatch", tests=tests, statistics=FINE).used <= 1


@pytest.mark.parametrize("status", STATUSES)
def test_the_first_divergence_is_the_first_output_that_is_there_and_wrong(status):
    """A fault within tolerance diverges as a mismatch does; what is missing or could not be judged does not."""
    assert (status in DIVERGED) == (status in {"mismatch", "fault", "shape", "dtype", "nonfinite"})
