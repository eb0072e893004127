"""karat.formats: the numbers that round to each bit pattern, against what NumPy and ml_dtypes round them to."""

import numpy as np
import pytest

from karat import formats

# the end of what rounds to the largest number: half a step above it
SHORT = {"float16": 65520.0, "bfloat16": (2 - 2**-8) * 2.0**127, "float8_e4m3fn": 464.0, "float8_e5m2": 61440.0}
RANDOM = np.random.Generator(np.random.Philox(key=21))


def patterns(name):
    """Return every bit pattern of a format, its value, and the two ends of what rounds to it."""
    dtype = formats.lookup(name).dtype
    bits = np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}")
    with np.errstate(invalid="ignore"):
        values = bits.view(dtype).astype(np.float64)
    return bits, values, *formats.rounding_intervals(name)


def rounded(values, name):
    """Return numbers rounded to a format, to the nearest: as float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(formats.lookup(name).dtype).astype(np.float64)


def ends(name):
    """Return the finite values and their ends in a format from which NumPy and ml_dtypes round in one step.

    ml_dtypes rounds float64 to float32 first, and so what is nearer to an end than float32 resolves to its other side.
    """
    _, values, low, high = patterns(name)
    finite, wide = np.isfinite(values), np.float64 if name == "float16" else np.float32
    for end in (low[finite], high[finite]):
        np.testing.assert_array_equal(end.astype(wide).astype(np.float64), end)
    return values[finite], low[finite].astype(wide), high[finite].astype(wide)


def towards(numbers, end):
    """Return the next numbers of the same format."""
    return np.nextafter(numbers, numbers.dtype.type(end))


@pytest.mark.parametrize("name", SHORT)
def test_what_lies_inside_an_interval_rounds_to_its_pattern(name):
    """Any number strictly inside, next to an end too, rounds to the value of the pattern: for all of the patterns."""
    values, low, high = ends(name)
    first, last = towards(low, np.inf), towards(high, -np.inf)
    share = RANDOM.random(low.shape).astype(low.dtype)
    between = np.clip((1 - share) * low + share * high, first, last)
    assert (first <= values).all()
    assert (values <= last).all()
    for number in (first, last, between):
        np.testing.assert_array_equal(rounded(number, name), values)


@pytest.mark.parametrize("name", SHORT)
def test_what_lies_outside_an_interval_rounds_to_another_pattern(name):
    """The interval is the whole of it: the next number beyond either end rounds to something else."""
    values, low, high = ends(name)
    assert (rounded(towards(low, -np.inf), name) != values).all()
    assert (rounded(towards(high, np.inf), name) != values).all()


@pytest.mark.parametrize("name", SHORT)
def test_the_intervals_cover_the_line_without_a_gap(name):
    """Ends belong to both neighbours: where one interval ends the next begins, and the ends are exact."""
    _, values, low, high = patterns(name)
    finite = np.flatnonzero(np.isfinite(values))
    order = finite[np.argsort(values[finite], kind="stable")]
    distinct = order[np.concatenate([[True], np.diff(values[order]) > 0])]  # both zeros are one
    np.testing.assert_array_equal(high[distinct][:-1], low[distinct][1:])
    np.testing.assert_array_equal(high[distinct][:-1], (values[distinct][:-1] + values[distinct][1:]) / 2)


@pytest.mark.parametrize("name", SHORT)
def test_both_zeros_have_the_interval_of_zero(name):
    """Zero and minus zero are one number: half the smallest subnormal to either side."""
    bits, values, low, high = patterns(name)
    zeros = np.flatnonzero(values == 0)
    assert bits[zeros].tolist() == [0, 1 << 8 * bits.dtype.itemsize - 1]
    half = formats.lookup(name).smallest / 2
    assert low[zeros].tolist() == [-half, -half]
    assert high[zeros].tolist() == [half, half]


@pytest.mark.parametrize("name", SHORT)
def test_infinity_takes_all_that_is_beyond(name):
    """Beyond half a step above the largest number all rounds to infinity, where the format has one."""
    _, values, low, high = patterns(name)
    infinite = np.isinf(values)
    assert infinite.sum() == (0 if name == "float8_e4m3fn" else 2)
    end = high[values == formats.lookup(name).largest].item()
    assert end == SHORT[name]
    if infinite.any():
        assert (low[values == np.inf].item(), high[values == np.inf].item()) == (end, np.inf)
        assert (low[values == -np.inf].item(), high[values == -np.inf].item()) == (-np.inf, -end)
        assert rounded(np.array([end, 1.001 * end, 1e308]), name).tolist() == [np.inf] * 3


@pytest.mark.parametrize("name", SHORT)
def test_nan_has_no_interval(name):
    """NaN is no number and has no ends, whatever its bits; all else has."""
    _, values, low, high = patterns(name)
    np.testing.assert_array_equal(np.isnan(low), np.isnan(values))
    np.testing.assert_array_equal(np.isnan(high), np.isnan(values))
    assert np.isnan(values).sum() == {"float16": 2046, "bfloat16": 254, "float8_e4m3fn": 2, "float8_e5m2": 6}[name]


def test_a_table_is_made_once_and_cannot_be_changed():
    """Every comparison under a contract that rounds once needs one, and shares it with all others."""
    first, again = formats.rounding_intervals("bfloat16"), formats.rounding_intervals("bfloat16")
    assert first is again
    with pytest.raises(ValueError, match="read-only"):
        first[0][0] = 0


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_a_long_format_has_no_table(name):
    """A table of 2^32 intervals is refused, with the format's name."""
    with pytest.raises(ValueError, match=f"{name} has more than 16 bits"):
        formats.rounding_intervals(name)


def test_products_may_have_a_format_in_which_nothing_is_stored():
    """Tensor cores round operands to tfloat32, 11 bits: known for products, unknown for storage."""
    assert formats.PRODUCT_FORMATS["tfloat32"] == 2.0**-11
    assert {name: entry.unit_roundoff for name, entry in formats.FORMATS.items()}.items() < (
        formats.PRODUCT_FORMATS.items()
    )
    with pytest.raises(KeyError, match="no number format 'tfloat32'"):
        formats.lookup("tfloat32")
