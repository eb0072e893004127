"""karat.finer: a candidate that keeps more digits inside than it promised is told so, and nobody else."""

import numpy as np
import pytest

from karat.compare import Predicted, Scale
from karat.finer import finer_text
from karat.suites import find_repository
from karat.tolerances import read_tolerances

TOLERANCES = read_tolerances(find_repository().root / "tolerances.toml")
RANDOM = np.random.Generator(np.random.Philox(key=8))
GOLDEN = RANDOM.standard_normal((7, 40))
ROUNDED = GOLDEN.astype(np.float32).astype(np.float64)


def told(candidate, golden=GOLDEN, contract="float32", sigma=4 * 2.0**-23, judged=None):
    """Return what is said of a candidate where each error is expected to be about `sigma`, by default four units."""
    allowance = Predicted((Scale(np.full(golden.shape, 255, np.uint8), sigma),), 10.0)
    return finer_text(candidate, golden, judged, allowance, TOLERANCES.contract(contract))


def test_a_golden_rounded_once_is_told():
    """Where float32 arithmetic would scatter over several units, nothing but float64 inside gives all digits."""
    assert told(ROUNDED) == (
        "rounded once: 280 of 280 elements that float32 arithmetic would scatter are the numbers nearest to the golden;"
        " it is computed in a finer format than float32 promises"
    )


def test_one_element_that_is_not_the_nearest_is_enough_to_be_believed():
    """Honest arithmetic misses now and then."""
    wrong = ROUNDED.copy()
    wrong[3, 5] = np.nextafter(np.float32(wrong[3, 5]), np.float32(np.inf))
    assert told(wrong) == ""
    assert told(wrong, judged=np.arange(7)[:, None] != 3) != ""


def test_what_rounds_right_by_itself_is_not_told():
    """A copy, a sum of two: where a unit or less is expected, to be nearest is no sign."""
    assert told(ROUNDED, sigma=2.0**-26) == ""


def test_a_golden_that_the_format_holds_is_no_evidence():
    """Sums of numbers of few digits are exact in any order: only what had to be rounded can tell."""
    assert told(ROUNDED, ROUNDED) == ""


def test_a_few_elements_are_no_evidence():
    """Less than 64 elements may all be nearest by chance."""
    assert told(ROUNDED[:1], GOLDEN[:1]) == ""


@pytest.mark.parametrize("contract", ["float64", "tfloat32", "bfloat16", "float16-once"])
def test_contracts_that_promise_finer_insides_have_nothing_to_tell(contract):
    """Where sums or products have another format than the result, more digits inside may be what is promised."""
    assert told(ROUNDED, contract=contract) == ""


def test_what_is_not_finite_does_not_count():
    """NaN and infinities are judged elsewhere."""
    golden, rounded = GOLDEN.copy(), ROUNDED.copy()
    golden[0], rounded[0] = np.nan, np.nan
    golden[1], rounded[1] = np.inf, np.inf
    assert told(rounded, golden).startswith("rounded once: 200 of 200 ")
