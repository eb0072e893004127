"""karat.compare: what is predicted decides also for NaN, leaks, magnitudes of all kinds, and values rounded once."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from karat import compare as module
from karat import formats, parts
from karat.compare import Flat, Predicted, Scale, compare

approx: Any = pytest.approx
NAN, INF = math.nan, math.inf
RANDOM = np.random.Generator(np.random.Philox(key=31))
STATISTICS = ("rms_sigma", "max_sigma", "row_sigma", "gain", "bias", "bias_error", "used", "cosine", "nmse")


def even(shape, sigma, **fields):
    """Return a prediction of the same sigma everywhere, 4 of which are allowed."""
    return Predicted((Scale(np.full(shape, 255, np.uint8), sigma),), 4.0, **fields)


def compared(candidate, golden, sigma=1.0, **given):
    """Compare two things that become float64 arrays, with the same sigma everywhere."""
    golden = np.asarray(golden, np.float64)
    return compare(np.asarray(candidate, np.float64), golden, even(golden.shape, sigma), **given)


def test_the_limit_is_part_of_what_is_allowed():
    """An error of exactly max_sigma passes; more does not; the worst is the largest in sigma, not in value."""
    found = compared([4.0, -4.0, 1.0], [0, 0, 0])
    assert (found.mismatched, found.max_sigma, found.used, found.worst) == (0, 4.0, 1.0, (0,))
    predicted = Predicted((Scale(np.array([255, 191], np.uint8), 256.0),), 4.0)  # sigma 256 and 1
    found = compare(np.array([1000.0, 4.001]), np.zeros(2), predicted)
    assert (found.mismatched, found.worst, found.max_abs) == (1, (1,), 1000.0)


@pytest.mark.parametrize("first", [NAN, INF, -INF])
@pytest.mark.parametrize("second", [NAN, INF, -INF, 1.0])
def test_nonfinite_values_match_only_themselves(first, second):
    """Same places, same signs, on either side; the others' statistics are as if they were not there."""
    for candidate, golden in ((first, second), (second, first)):
        found = compared([2.0, candidate, 1.5, 0.0], [1.0, golden, 1.0, 1.0])
        same = candidate == golden or (candidate != candidate and golden != golden)  # noqa: PLR0124 - NaN
        assert (found.nonfinite, found.mismatched, found.elements) == (not same, not same, 4)
        assert found.worst == ((0,) if same else (1,))
        assert found.rms_sigma == found.row_sigma == approx(math.sqrt(2.25 / 3), rel=1e-6)
        assert (found.max_sigma, found.bias) == (1.0, approx(0.5 / 3, rel=1e-6))


@pytest.mark.parametrize(("name", "bits"), [("float32", 0x7F800001), ("float16", 0x7C01), ("bfloat16", 0x7F81)])
def test_a_signalling_nan_fails_without_a_warning(name, bits):
    """Uninitialised memory may hold any bits; a warning here is an error."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    candidate = np.array([bits, 0], f"u{dtype.itemsize}").view(dtype)
    interval = None if name == "float32" else formats.rounding_intervals(name)
    found = compare(candidate, np.zeros(2), even((2,), 1.0, interval=interval))
    assert (found.nonfinite, found.mismatched, found.worst, found.rms_sigma) == (1, 1, (0,), 0.0)


@pytest.mark.parametrize("value", [1e30, -1e30, 1e38, 1e300, -1.7e308])
@pytest.mark.parametrize("sigma", [1.0, 1e-20, 1e20])
def test_a_huge_candidate_is_a_mismatch(value, sigma):
    """However far a candidate is off, that element fails, and no other does."""
    found = compared([1.0, value, 1.0], [1.0, 1.0, 1.0], sigma)
    assert (found.mismatched, found.worst, found.nonfinite, found.max_abs) == (1, (1,), 0, abs(value - 1))
    assert not found.rms_sigma <= 1e3
    assert not abs(found.gain) <= 1e3 * found.gain_error  # NaN and infinity fail as well


@pytest.mark.parametrize("exponent", [-400, -200, -120, -80, -60, 0, 60, 120, 400])
def test_units_make_no_difference(exponent):
    """The error in sigma is a pure number: candidate, golden and sigma times a power of two change no statistic."""
    scale, (golden, noise) = 2.0**exponent, RANDOM.standard_normal((2, 5, 40))
    predicted = Predicted((Scale(RANDOM.integers(100, 256, (5, 40), np.uint8), 0.01 * scale),), 4.0)
    reference = Predicted((Scale(predicted.scales[0].codes, 0.01),), 4.0)
    candidate = golden + 0.02 * noise
    found, wanted = (compare(s * candidate, s * golden, p) for s, p in ((scale, predicted), (1.0, reference)))
    assert found.mismatched == wanted.mismatched
    for name in STATISTICS:
        assert getattr(found, name) == approx(getattr(wanted, name), rel=1e-4), name


def test_sigma_may_be_of_any_magnitude_in_one_array():
    """Code 255 beside code 1, a factor of 3e19, and code 0, where only the floor allows anything."""
    predicted = Predicted((Scale(np.array([255, 1, 0, 0], np.uint8), 1.0),), 4.0, floor=2.0**-61)
    least = math.hypot(1 / (7 * 2.0**62), 2.0**-61)
    found = compare(np.array([3.0, 3 * least, 3 * 2.0**-61, 5 * 2.0**-61]), np.zeros(4), predicted)
    assert (found.mismatched, found.worst) == (1, (3,))
    assert found.max_sigma == approx(5, rel=1e-5)
    assert found.rms_sigma == approx(math.sqrt((9 + 9 + 9 + 25) / 4), rel=1e-5)


def test_where_nothing_is_predicted_nothing_is_allowed():
    """Code 0 and no floor: equal or wrong."""
    predicted = Predicted((Scale(np.array([0, 255], np.uint8), 1.0),), 4.0)
    assert compare(np.array([1 + 2**-52, 1.0]), np.ones(2), predicted).mismatched == 1
    assert compare(np.array([1.0, 1.0]), np.ones(2), predicted).mismatched == 0
    assert compare(np.array([1 + 2**-52]), np.ones(1), Predicted((), 4.0)).mismatched == 1


@pytest.mark.parametrize("size", [1e-10, 1e-20, 1e-24, 1e-32, 1e-100])
def test_a_floor_far_above_the_noise_hides_no_mistake(size):
    """Goldens far below the subnormals are judged by the floor: what is 1000 floors off fails."""
    golden, floor = size * np.ones(20), 2.0**-24 / math.sqrt(3)  # of float16
    predicted = Predicted((Scale(np.full(20, 255, np.uint8), size / 2**12),), 4.0, floor=floor)
    wrong, right = compare(golden + 1000 * floor, golden, predicted), compare(golden + floor, golden, predicted)
    assert (wrong.mismatched, right.mismatched) == (20, 0)
    assert (wrong.rms_sigma, right.rms_sigma) == (approx(1000, rel=1e-4), approx(1, rel=1e-4))


@pytest.mark.parametrize("floor", [3e-8, 8e-46, 1e-150], ids=["float16", "float32", "float64"])
def test_zeros_are_judged_by_the_floor(floor):
    """Where the golden is 0 and nothing else is predicted, the floor allows what subnormals make of it; 0 passes."""
    for predicted in (Predicted((), 4.0, floor=floor), even((3,), 0.0, floor=floor)):
        found = compare(np.array([floor, 10 * floor, 0.0]), np.zeros(3), predicted)
        assert (found.mismatched, found.worst, found.max_rel) == (1, (1,), 0.0)
        assert found.max_sigma == approx(10, rel=1e-5)
        assert (found.gain, found.gain_error) == (0.0, INF)
        right = compare(np.zeros(3), np.zeros(3), predicted)
        assert (right.mismatched, right.max_sigma, right.rms_sigma, right.row_sigma, right.bias) == (0, 0, 0, 0, 0)


def test_a_leak_is_a_mismatch_and_no_part_of_the_noise():
    """Where the golden must be exactly 0 nothing is allowed; the other elements' statistics do not change."""
    golden, candidate = np.array([0.0, 1.0, 0.0, 0.0]), np.array([1e-30, 1.5, 0.0, -1e-10])
    found = compare(candidate, golden, even((4,), 1.0), exact_zeros=True)
    assert (found.mismatched, found.worst, found.candidate, found.used) == (2, (3,), -1e-10, INF)
    assert (found.max_abs, found.max_sigma) == (0.5, INF)
    assert (found.rms_sigma, found.bias) == (approx(0.25), approx(0.125))
    masked = compare(candidate, golden, even((4,), 1.0), exact_zeros=True, judged=np.array([False, True, True, False]))
    assert (masked.mismatched, masked.max_sigma) == (0, approx(0.5))
    unmasked = compare(candidate, golden, even((4,), 1.0))
    assert (unmasked.mismatched, unmasked.worst) == (0, (1,))


@pytest.mark.parametrize("magnitude", [1e-130, 1e-60, 1e-42, 1e-30, 1e-22, 1.0, 1e22, 1e30, 1e60, 1e130])
@pytest.mark.parametrize("predicted", [False, True])
def test_sums_are_right_whatever_the_magnitude(magnitude, predicted):
    """Squares are beyond float32 long before the values are; those beyond float64 are not tried."""
    random = np.random.Generator(np.random.Philox(key=32))
    golden = random.standard_normal((50, 23)) * magnitude
    candidate = golden + random.standard_normal(golden.shape) * (magnitude / 8)
    found = compare(candidate, golden, even(golden.shape, magnitude / 8) if predicted else Flat(1, 1))
    error = (candidate - golden) / magnitude  # so that squares are not below float64
    assert found.rms_abs / magnitude == approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert found.nmse == approx(np.sum(error**2) / np.sum((golden / magnitude) ** 2), rel=1e-5)
    x, y = candidate / magnitude, golden / magnitude
    assert found.cosine == approx(np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y)), rel=1e-6)
    if predicted:
        assert found.rms_sigma == approx(8 * np.sqrt(np.mean(error**2)), rel=0.01)


def test_sums_that_are_infinite_to_either_side_are_no_warning(monkeypatch):
    """A warning here is an error; two parts may be wrong by more than float32 holds in sigma."""
    monkeypatch.setattr(module, "_BLOCK", 32)
    monkeypatch.setattr(module, "_PART", 32)
    golden = np.ones((4, 32), np.float32)
    candidate = golden.copy()
    candidate[0, 0], candidate[3, 31] = 1e30, -1e30
    found = compare(candidate, golden, even(golden.shape, 1e-15))
    assert (found.mismatched, found.max_sigma, found.worst) == (2, INF, (0, 0))


def wild(size):
    """Return goldens of all magnitudes: zeros, powers of two and the numbers next to them, and candidates near them."""
    powers = 2.0 ** RANDOM.integers(-300, 120, size)
    kinds = [RANDOM.standard_normal(size), np.zeros(size), np.ones(size), np.full(size, 1 - 2.0**-53), np.ones(size)]
    kinds[4] += 2.0**-52
    golden = np.choose(RANDOM.integers(0, 5, size), kinds) * np.where(RANDOM.random(size) < 0.7, powers % 8, powers)
    error = np.where(golden == 0, powers, golden) * 2.0 ** RANDOM.integers(-30, -3, size) * RANDOM.standard_normal(size)
    return golden + np.where(RANDOM.random(size) < np.where(golden == 0, 0.003, 0.3), error, 0), golden


@pytest.mark.parametrize("name", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("sigma", [None, 1e-7, 1e-30])
def test_the_largest_errors_are_exact_whatever_the_magnitudes(name, sigma, monkeypatch):
    """What float32 does not hold, and what it rounds to a power of two, changes no largest error, in any block."""
    monkeypatch.setattr(module, "_BLOCK", 32)
    monkeypatch.setattr(module, "_PART", 256)
    entry = formats.lookup(name)
    for size in (1, 2, 7, 64, 300, 1000):
        candidate, golden = wild(size)
        allowance = Flat(1, 1) if sigma is None else even((size,), sigma)
        found = compare(candidate, golden, allowance, significand_bits=entry.significand_bits, smallest=entry.smallest)
        error, there = np.abs(candidate - golden), golden != 0
        unit = np.maximum(np.ldexp(1.0, np.frexp(golden)[1] - entry.significand_bits), entry.smallest)
        assert found.max_abs == error.max()
        assert found.max_rel == (error[there] / np.abs(golden[there])).max(initial=0)
        with np.errstate(over="ignore"):
            units = (error / np.where(there, unit, entry.smallest)).max()
        assert found.max_ulp == approx(units, rel=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "ulp", "relative"),
    [
        ((1.5, 3 * 2.0**-23), (1 - 2.0**-53, 3.5 * 2.0**-24), 3.5, 2.0**-22),
        ((1 + 2.0**-20, 2.0**-10), (1 + 2.0**-20, 2.0**-10 + 2.0**-40), 8192.0, 2.0**-10 / (1 + 2.0**-20)),
        ((1.5, 3 * 2.0**-23), (0.0, 2.0**-148), 3.0, 2.0**-22),
        ((1.5, 3 * 2.0**-23), (0.0, 2.0**-145), 16.0, 2.0**-22),
        ((1.5, 3 * 2.0**-23), (2.0**-160, 2.0**-158), 3.0, 4.0),
    ],
    ids=["just below a power of two", "larger by less than float32 tells", "0", "far from 0", "below float32"],
)
def test_a_later_block_may_hold_a_larger_error(first, second, ulp, relative, monkeypatch):
    """An error in a later block counts if it is larger, by however little, in units at its golden or relative to it."""
    monkeypatch.setattr(module, "_BLOCK", 32)
    golden, error = np.ones(64), np.zeros(64)
    (golden[3], error[3]), (golden[40], error[40]) = first, second
    found = compare(golden + error, golden, Flat(1, 1), significand_bits=24, smallest=2.0**-149)
    assert found.max_abs == max(abs((y + e) - y) for y, e in (first, second))
    largest = [abs((y + e) - y) / abs(y) for y, e in (first, second) if y]
    assert found.max_rel == max(largest) == approx(relative, rel=1e-8)
    assert found.max_ulp == approx(ulp, rel=1e-8)


def test_a_golden_too_small_for_float32_hides_no_error_in_units(monkeypatch):
    """The golden of the second block has no exponent in float32; in float64's units its error is the largest."""
    monkeypatch.setattr(module, "_BLOCK", 32)
    golden, error = np.ones(64), np.zeros(64)
    golden[3], error[3], golden[40], error[40] = 1.875, 1.5, 2.0**-149, 2.0**-148
    assert compare(golden + error, golden, Flat(1, 1)).max_ulp == 2.0**53


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_golden_too_small_for_float32_hides_no_relative_error(threads, monkeypatch):
    """A golden of 2^-149 has no exponent in float32; the largest relative error may be there, whoever looks."""
    monkeypatch.setattr(parts, "available", lambda: threads)
    golden = np.ones((2, 1 << 21))
    candidate = golden.copy()
    candidate[0, 0] = 101
    golden[1, 0], candidate[1, 0] = 2.0**-149, 2.0**-140 + 2.0**-149
    assert compare(candidate, golden, Flat(0, 1)).max_rel == 512


@pytest.mark.parametrize("size", [1000, 1 << 19])
@pytest.mark.parametrize("factor", [1e-2, -1e-4, 1e-9, 0])
def test_the_cosine_of_a_candidate_that_is_far_too_small_is_right(size, factor):
    """What is left of large terms that cancel is no cosine: a forgotten factor does not look like noise."""
    golden = RANDOM.standard_normal(size)
    assert compare(factor * golden, golden, Flat(0, 1)).cosine == approx(np.sign(factor), abs=1e-9)


# --- units in the last place -----------------------------------------------------------------------------------------


def test_a_golden_of_zero_hides_no_ulps():
    """In float64 the last place of 0 is 2^-1074, so that 2^-130 is further off than 3 is from 1."""
    assert compare(np.array([4.0, 2.0**-130]), np.array([1.0, 0.0]), Flat(0, 1)).max_ulp == 2.0**944


@pytest.mark.parametrize("name", ["float64", "float32", "float16"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ulps_are_counted_as_nextafter_counts(name, steps):
    """Away from 0 within a binade, so many steps of nextafter are so many units in the last place."""
    entry = formats.lookup(name)
    golden = (RANDOM.uniform(1, 1.9, 50) * 2.0 ** RANDOM.integers(-12, 12, 50)).astype(entry.dtype)
    golden *= np.where(RANDOM.random(50) < 0.5, -1, 1).astype(entry.dtype)
    for moved in np.flatnonzero(RANDOM.random(50) < 0.2):
        candidate = golden.copy()
        for _ in range(steps):
            candidate[moved] = np.nextafter(candidate[moved], np.copysign(entry.dtype.type(np.inf), golden[moved]))
        found = compare(
            candidate,
            golden.astype(np.float64),
            Flat(1, 0),
            significand_bits=entry.significand_bits,
            smallest=entry.smallest,
        )
        assert found.max_ulp == approx(steps, rel=1e-12)


def ulps(candidate, golden, name="float16"):
    """Return max_ulp in units of a format."""
    entry, arrays = formats.lookup(name), (np.asarray(candidate, np.float64), np.asarray(golden, np.float64))
    return compare(*arrays, Flat(1, 1), significand_bits=entry.significand_bits, smallest=entry.smallest).max_ulp


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_ulps_of_any_value_are_those_of_the_format_at_the_golden(name):
    """The unit is 2^(e - p + 1) for a golden in [2^e, 2^(e+1)), at least the smallest subnormal."""
    entry = formats.lookup(name)
    golden = RANDOM.standard_normal(200) * 2.0 ** RANDOM.integers(-20, 8, 200)
    unit = np.maximum(2.0 ** (np.floor(np.log2(np.abs(golden))) + 1 - entry.significand_bits), entry.smallest)
    candidate = golden + RANDOM.standard_normal(200) * unit
    for number in (1, 10, 200):
        wanted = np.max(np.abs(candidate - golden)[:number] / unit[:number])
        assert ulps(candidate[:number], golden[:number], name) == approx(wanted, rel=1e-9)


@pytest.mark.parametrize("other", [0.0, 2.0**-11])
def test_ulps_at_zero_do_not_depend_on_other_elements(other):
    """The unit at 0 is the smallest subnormal, whatever the error of its neighbours."""
    assert ulps([3 * 2.0**-24, 1 + other], [0, 1]) == 3


# --- rounded once ----------------------------------------------------------------------------------------------------


def once(golden, name, sigma):
    """Return what a contract predicts that rounds once: sigma inside, intervals of the format."""
    return even(golden.shape, sigma, interval=formats.rounding_intervals(name), last_relative=2.0**-11)


def test_what_is_rounded_from_the_golden_has_no_error_in_sigma():
    """The distance from the golden to what rounds to the candidate's value is 0, however coarse the format."""
    golden = np.concatenate([RANDOM.standard_normal(5000) * 2.0 ** RANDOM.integers(-30, 14, 5000), [65519.9, 0, 1e-9]])
    candidate = golden.astype(np.float16)
    found = compare(candidate, golden, once(golden, "float16", 1e-12))
    assert (found.max_sigma, found.rms_sigma, found.row_sigma, found.mismatched) == (0, 0, 0, 0)
    assert found.max_abs > 1
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        exact = RANDOM.standard_normal(5000).astype(np.float32)  # ml_dtypes rounds float32 in one step
        candidate, wide = exact.astype(formats.lookup(name).dtype), exact.astype(np.float64)
        assert compare(candidate, wide, once(wide, name, 1e-12)).max_sigma == 0


@pytest.mark.parametrize("shift", [3.0, 8.0, -8.0])
def test_a_golden_beyond_the_end_of_an_interval_is_off_by_its_distance(shift):
    """A golden that lies 8 sigma outside of what rounds to the candidate's value has an error of 8 sigma."""
    end, sigma = 1 + 2.0**-11, 2.0**-24  # between 1 and the next number above
    golden = np.array([end - shift * sigma, 1.0])
    candidate = np.array([1 + 2.0**-10 if shift > 0 else 1.0, 1.0], np.float16)
    found = compare(candidate, golden, once(golden, "float16", sigma))
    assert found.max_sigma == approx(abs(shift), rel=1e-6)
    assert (found.mismatched, found.worst) == (int(abs(shift) > 4), (0,))


def test_a_shift_of_eight_sigma_shows_in_many_elements():
    """Rounded to 8 or 11 bits, a shift that is 2000 times finer is seen where it crosses the end of an interval."""
    golden, sigma = RANDOM.uniform(1, 2, 400_000), 2.0**-22
    right, wrong = (
        compare(values.astype(np.float16), golden, once(golden, "float16", sigma))
        for values in (golden + sigma * RANDOM.standard_normal(golden.size), golden + 8 * sigma)
    )
    assert (right.mismatched, wrong.mismatched > 100) == (0, True)
    assert wrong.max_sigma == approx(8, abs=0.5)


def test_infinity_is_what_it_rounds_from():
    """An infinite candidate where the golden is finite is not finite, though all beyond the largest rounds to it."""
    golden = np.array([65530.0, 1.0])
    found = compare(np.array([INF, 1], np.float16), golden, once(golden, "float16", 1.0))
    assert (found.nonfinite, found.mismatched, found.worst) == (1, 1, (0,))
