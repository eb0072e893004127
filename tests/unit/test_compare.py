"""karat.compare: statistics worked out by hand; NaN fails, padding does not count, nothing overflows."""

import math

import ml_dtypes
import numpy as np
import pytest

from karat.compare import _BLOCK as BLOCK
from karat.compare import Flat, compare, root_mean_square

NAN, INF = math.nan, math.inf


def compared(candidate, golden, *, rtol=0.0, atol=0.0, judged=None):
    """Compare two things that become float64 arrays."""
    golden = np.asarray(golden, np.float64)
    return compare(np.asarray(candidate, np.float64), golden, Flat(rtol, atol), judged=judged)


def test_the_statistics_are_those_of_the_definitions():
    """|candidate - golden| <= atol + rtol * |golden|, with the worst share of that, all worked out by hand."""
    found = compared(
        [1, 2, 5, 0.25], [1, 4, 4, 0], rtol=0.25, atol=0.5
    )  # errors 0, 2, 1, 0.25; allowed 0.75, 1.5, 1.5, 0.5
    assert (found.elements, found.mismatched, found.nonfinite) == (4, 1, 0)
    assert (found.max_abs, found.max_rel) == (2.0, 0.5)
    assert found.rms_abs == math.sqrt((4 + 1 + 0.0625) / 4)
    assert found.used == 2 / 1.5
    assert (found.worst, found.candidate, found.golden) == ((1,), 2.0, 4.0)


def test_the_worst_element_has_the_largest_share_not_the_largest_error():
    """The worst index is that of the largest share of its tolerance, and of the first of equals."""
    found = compared([105, 1.5, 1.5], [100, 1, 1], rtol=0.25)
    assert (found.worst, found.used, found.max_abs, found.mismatched) == ((1,), 2.0, 5.0, 2)


def test_an_element_that_equals_where_nothing_is_allowed_is_not_the_worst():
    """A share of 0 / 0 is none: under a relative tolerance alone zeros are equal or not."""
    found = compared([0, 3, 0], [0, 1, 0], rtol=0.5)
    assert (found.worst, found.used, found.mismatched) == ((1,), 4.0, 1)


def test_a_passing_comparison_says_how_much_was_used():
    """A passing report says how much of the tolerance was used, and where."""
    found = compared([[1, 1], [1, 1.25]], np.ones((2, 2)), atol=0.5)
    assert (found.mismatched, found.used, found.worst, found.candidate) == (0, 0.5, (1, 1), 1.25)


def test_equal_arrays_have_no_worst_element():
    """Where nothing differs nothing is worst."""
    found = compared([1, -INF, NAN, -0.0], [1, -INF, NAN, 0.0])
    assert (found.mismatched, found.used, found.max_abs, found.rms_abs) == (0, 0, 0, 0)
    assert found.worst is found.candidate is found.golden is None


@pytest.mark.parametrize(
    ("candidate", "golden", "matches"),
    [
        (NAN, 1.0, False),
        (1.0, NAN, False),
        (NAN, INF, False),
        (NAN, NAN, True),
        (INF, INF, True),
        (-INF, -INF, True),
        (INF, -INF, False),
        (INF, 1e308, False),
        (1e308, INF, False),
    ],
)
def test_nonfinite_values_match_only_themselves(candidate, golden, matches):
    """Same places, same signs, before any arithmetic: no tolerance, however wide, lets NaN or an infinity pass."""
    found = compared([1, candidate, 1.5], [1, golden, 1], rtol=0.5, atol=1e308)
    assert (found.mismatched, found.nonfinite) == ((0, 0) if matches else (1, 1))
    assert (found.max_abs, found.elements) == (0.5, 3)
    assert found.rms_abs == math.sqrt(0.25 / (3 if math.isfinite(candidate) and math.isfinite(golden) else 2))
    assert found.worst == ((2,) if matches else (1,))


@pytest.mark.parametrize("atol", [0.0, 1e-3, 100.0])
def test_the_first_nonfinite_element_is_the_worst(atol):
    """The worst is the first element that is not finite, else that of the largest share."""
    found = compared([1, 0, NAN, INF], [0, 0, 0, 0], atol=atol)
    assert found.worst == (2,)
    assert math.isnan(found.candidate)
    assert found.golden == 0


@pytest.mark.parametrize("places", [(0, 1), (0, BLOCK), (BLOCK - 1, BLOCK), (BLOCK + 1, 2 * BLOCK)], ids=str)
def test_the_first_of_several_nonfinite_elements_is_the_worst(places):
    """Whatever block they are in."""
    candidate = np.zeros(3 * BLOCK)
    candidate[list(places)] = [INF, NAN]
    assert compared(candidate, np.zeros(3 * BLOCK), atol=1).worst == places[:1]


@pytest.mark.parametrize(
    ("candidate", "golden", "mismatched"),
    [(1.0, 1.0, 0), (1 + 2**-52, 1.0, 1), (1 - 2**-53, 1.0, 1), (5e-324, 0.0, 1), (-0.0, 0.0, 0)],
)
def test_no_tolerance_means_equal(candidate, golden, mismatched):
    """0 means 0: one unit in the last place is a mismatch that uses infinitely much."""
    found = compared([candidate], [golden])
    assert (found.mismatched, found.used) == (mismatched, INF if mismatched else 0)


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_an_error_of_exactly_the_tolerance_passes_and_the_next_number_fails(name):
    """Equality passes, one unit in the last place of the candidate's format more does not."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    exact = np.array([0.15625, -0.15625]).astype(dtype)
    beyond = (exact.view(f"u{dtype.itemsize}") + 1).view(dtype)
    golden = np.zeros(2)
    assert compare(exact, golden, Flat(0, 0.15625)).mismatched == 0
    assert compare(exact, golden, Flat(0, 0.15625)).used == 1
    assert compare(beyond, golden, Flat(0, 0.15625)).mismatched == 2
    assert compare(beyond, golden, Flat(0, 0.15625)).used > 1


@pytest.mark.parametrize("golden", [8.0, -8.0])
def test_the_relative_tolerance_is_of_the_golden(golden):
    """The tolerance is rtol * |golden|: 10 is within a quarter of 8, though 8 is not within a fifth of 10."""
    assert compared([golden * 1.25], [golden], rtol=0.25).mismatched == 0
    assert compared([golden * 1.25], [golden], rtol=0.2).mismatched == 1
    assert compared([golden], [golden * 1.25], rtol=0.2).mismatched == 0


def test_candidates_of_low_precision_are_compared_in_float64():
    """The error of bfloat16's 1/3 is 171/512 - 1/3, not what is left of it in bfloat16."""
    found = compare(np.array([1 / 3]).astype(ml_dtypes.bfloat16), np.array([1 / 3]), Flat(0, 1))
    assert found.max_abs == 171 / 512 - 1 / 3
    assert found.candidate == 171 / 512


@pytest.mark.parametrize("position", [0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 2])
def test_the_worst_index_is_right_across_block_borders(position):
    """Arrays are compared in blocks; where a block ends does not show in the index."""
    golden = np.zeros((2, BLOCK + 2))
    candidate = golden.copy()
    candidate.flat[[5, BLOCK + 5]] = 0.25
    candidate.flat[position] = 0.5
    found = compared(candidate, golden, atol=0.25)
    assert found.worst == divmod(position, BLOCK + 2)
    assert (found.used, found.mismatched, found.elements) == (2.0, 1, 2 * BLOCK + 4)


def test_of_equal_shares_in_two_blocks_the_first_is_the_worst():
    """The first of equals is reported, whatever block it is in."""
    candidate = np.zeros(3 * BLOCK)
    candidate[[BLOCK + 7, 2 * BLOCK + 1]] = 1.0
    assert compared(candidate, np.zeros(3 * BLOCK), atol=0.5).worst == (BLOCK + 7,)


def test_statistics_of_large_arrays_are_those_of_one_pass():
    """Streaming over blocks changes no maximum and no count, and sums by less than a millionth."""
    random = np.random.Generator(np.random.Philox(key=3))
    golden, noise = random.standard_normal((2, 3, 50_001))
    judged = random.random((3, 50_001)) < 0.5
    candidate = golden + 0.01 * noise
    found = compared(candidate, golden, rtol=0.01, atol=0.02, judged=judged)
    error, size = np.abs(candidate - golden)[judged], np.abs(golden)[judged]
    assert (found.elements, found.mismatched) == (error.size, int((error > 0.02 + 0.01 * size).sum()))
    assert (found.max_abs, found.max_rel) == (error.max(), (error / size).max())
    assert found.used == (error / (0.02 + 0.01 * size)).max() > 1
    assert found.rms_abs == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-8)


@pytest.mark.parametrize(
    ("judged", "elements", "mismatched", "max_abs", "worst"),
    [
        ([[True], [False]], 3, 1, 1, (0, 2)),
        ([True, True, False], 4, 1, 7, (1, 0)),
        ([[False, True, True], [False, True, True]], 4, 1, 1, (0, 2)),
        ([[False], [False]], 0, 0, 0, None),
        (True, 6, 2, 7, (1, 0)),
    ],
    ids=["rows", "columns", "elements", "nothing", "everything"],
)
def test_what_is_not_judged_does_not_count(judged, elements, mismatched, max_abs, worst):
    """`judged` broadcasts to the shape; elsewhere a candidate may hold anything."""
    found = compared([[1, 2, 3], [9, 2, 2]], [[1, 2, 2], [2, 2, 2]], atol=0.5, judged=np.array(judged))
    assert (found.elements, found.mismatched, found.max_abs, found.worst) == (elements, mismatched, max_abs, worst)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e300])
def test_padding_may_hold_anything(value):
    """What a candidate leaves where nothing is judged changes no statistic."""
    masked = compared([1.5, value], [1, 1], atol=1, judged=np.array([True, False]))
    assert masked == compared([1.5, 1.0], [1, 1], atol=1, judged=np.array([True, False]))
    assert (masked.mismatched, masked.elements, masked.max_abs) == (0, 1, 0.5)


OVERFLOWS = {
    "difference": (1e308, -1e308, 1.0, (1, 0)),
    "share": (1e300, 0.0, 1e-13, (1, 0)),
    "square": (1e200, 1.0, 1.0, (1, 0)),
    "relative error": (1e-10, 1e-320, 1.0, (0, 0)),
}


@pytest.mark.parametrize(("candidate", "golden", "atol", "expected"), OVERFLOWS.values(), ids=OVERFLOWS)
def test_an_overflow_in_a_statistic_is_no_failure_of_karat(candidate, golden, atol, expected):
    """A candidate may be wrong by more than float64 holds: a verdict, not a warning, which here is an error."""
    found = compared([0.0, candidate], [0.0, golden], atol=atol)
    assert (found.mismatched, found.nonfinite) == expected


@pytest.mark.parametrize(
    ("name", "bits"), [("float32", 0x7F800001), ("bfloat16", 0x7F81), ("float64", 0x7FF0000000000001)]
)
def test_a_signalling_nan_is_a_nan(name, bits):
    """Uninitialised memory may hold any bits: a signalling NaN is a nonfinite element, not a warning."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    candidate = np.array([bits], f"u{dtype.itemsize}").view(dtype)
    assert compare(candidate, np.ones(1), Flat(0, 1)).nonfinite == 1


@pytest.mark.parametrize(
    ("array", "judged", "expected"),
    [
        ([3.0, 4.0], None, math.sqrt(12.5)),
        ([3.0, NAN, INF, -4.0], None, math.sqrt(12.5)),
        ([[3.0, 9.0], [-4.0, 9.0]], [True, False], math.sqrt(12.5)),
        ([3.0, 4.0], [False, False], 0.0),
        ([NAN], None, 0.0),
        ([], None, 0.0),
        (-2.0, None, 2.0),
    ],
    ids=["all", "nonfinite", "judged", "none judged", "none finite", "empty", "scalar"],
)
def test_the_root_mean_square_is_of_the_finite_judged_elements(array, judged, expected):
    """The unit of `atol_rms` is the RMS of the finite elements that are judged, 0 if there are none."""
    assert root_mean_square(np.asarray(array, np.float64), None if judged is None else np.array(judged)) == expected


@pytest.mark.parametrize("judged", [None, np.array([True, True])], ids=["all", "judged"])
@pytest.mark.parametrize("name", ["float16", "int64"])
def test_the_root_mean_square_is_computed_in_float64(name, judged):
    """What is judged makes no difference to how it is summed: squares are taken in float64."""
    array = np.array([30000, 40000]).astype(name) * (10**5 if name == "int64" else 1)
    assert root_mean_square(array, judged) == math.sqrt(12.5) * float(array[0]) / 3


def test_exact_zeros_allow_nothing_where_the_golden_is_zero():
    """A masked probability is 0, not small: no tolerance applies there, and only there."""
    golden, candidate = np.array([0.0, 0.5, 0.0]), np.array([0.0, 0.5 + 1e-9, 1e-30])
    assert compare(candidate, golden, Flat(0, 1e-6)).mismatched == 0
    found = compare(candidate, golden, Flat(0, 1e-6), exact_zeros=True)
    assert (found.mismatched, found.worst) == (1, (2,))
    assert compare(np.array([-0.0]), np.zeros(1), Flat(0, 0), exact_zeros=True).mismatched == 0
