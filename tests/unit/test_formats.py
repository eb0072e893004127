"""karat.formats: the constants of each number format, and which values lie on its grid."""

import re
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from karat import formats

# name: bits of the significand, smallest subnormal, largest finite number; from the definitions, not from a library
DEFINITIONS = {
    "float64": (53, Fraction(1, 2**1074), (2 - Fraction(1, 2**52)) * 2**1023),
    "float32": (24, Fraction(1, 2**149), (2 - Fraction(1, 2**23)) * 2**127),
    "float16": (11, Fraction(1, 2**24), Fraction(65504)),
    "bfloat16": (8, Fraction(1, 2**133), (2 - Fraction(1, 2**7)) * 2**127),
    "float8_e4m3fn": (4, Fraction(1, 2**9), Fraction(448)),
    "float8_e5m2": (3, Fraction(1, 2**16), Fraction(57344)),
}
NARROW = [name for name in DEFINITIONS if name not in ("float64", "float32")]
SPECIALS = {"NaN": np.nan, "infinity": np.inf, "-infinity": -np.inf, "-0": -0.0}


def lies_on_grid(value, name):
    """Say in exact arithmetic whether the format `name` holds `value`: at most p significant bits, within its range."""
    significand_bits, smallest, largest = DEFINITIONS[name]
    multiple = abs(Fraction(value)) / smallest
    if multiple.denominator != 1 or abs(Fraction(value)) > largest:
        return False
    integer = multiple.numerator
    trailing_zeros = (integer & -integer).bit_length() - 1
    return integer == 0 or integer.bit_length() - trailing_zeros <= significand_bits


def probes(name):
    """Return float64 values around all that limits a format: precision, the smallest and the largest numbers."""
    significand_bits, smallest, largest = DEFINITIONS[name]
    least, most = float(smallest), float(largest)
    near_one = [1 + 2.0**-n for n in range(1, 53)] + [1 - 2.0**-n for n in range(1, 54)]
    normal = least * 2.0 ** (significand_bits - 1)
    tiny = [least, 1.5 * least, 3 * least, normal - least, normal, normal + least, least / 2]
    huge = [most, most / 2, most - most * 2.0**-significand_bits, np.nextafter(most, 0), min(most * 2, 1e308)]
    return [sign * value for value in [0.0, *near_one, *tiny, *huge, 1 / 3, 0.1, 256.0, 257.0] for sign in (1, -1)]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_format_has_the_constants_of_its_definition(name):
    """A format is its significand bits, its smallest subnormal and its largest finite number."""
    found = formats.lookup(name)
    assert found.name == name == found.dtype.name
    assert (found.significand_bits, Fraction(found.smallest), Fraction(found.largest)) == DEFINITIONS[name]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_unit_roundoff_is_two_to_the_minus_p(name):
    """The largest relative error of rounding is u = 2^-p: 1 + u is a tie and rounds to even, 1 + 2u is kept."""
    unit_roundoff = formats.lookup(name).unit_roundoff
    assert Fraction(unit_roundoff) == Fraction(1, 2 ** DEFINITIONS[name][0])
    kept = np.array([1 + unit_roundoff, 1 + 2 * unit_roundoff]).astype(formats.lookup(name).dtype).astype(np.float64)
    assert kept.tolist() == [1.0, 1 + 2 * unit_roundoff]


def test_every_format_is_listed_under_its_name():
    """There are float64, float32, float16, bfloat16 and the two float8 formats, and no others."""
    assert list(formats.FORMATS) == list(DEFINITIONS)


def test_an_unknown_format_is_an_error_that_names_the_known_ones():
    """A name that is no format is a KeyError that lists the formats there are."""
    with pytest.raises(KeyError, match="no number format 'float23'; known: float64, float32, float16, bfloat16"):
        formats.lookup("float23")


@pytest.mark.parametrize("name", DEFINITIONS)
def test_off_grid_agrees_with_exact_arithmetic(name):
    """A value lies on the grid of a format if the format holds it exactly, and only then."""
    for value in probes(name):
        found = formats.off_grid(np.array([value]), name)
        assert (found is None) == lies_on_grid(value, name), value


def test_off_grid_names_the_first_value_in_row_major_order():
    """The index is that of the first value that the format cannot hold."""
    array = np.ones((2, 3), np.float32)
    array[1, 2] = array[1, 0] = 1.001
    assert formats.off_grid(array, "bfloat16") == (1, 0)
    assert formats.off_grid(np.asfortranarray(array), "bfloat16") == (1, 0)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1)], ids=str)
def test_off_grid_takes_arrays_of_any_shape(shape):
    """A scalar and an empty array are arrays like any other."""
    assert formats.off_grid(np.full(shape, 0.5), "float16") is None
    expected = None if 0 in shape else (0,) * len(shape)
    assert formats.off_grid(np.full(shape, 0.1), "float16") == expected


@pytest.mark.parametrize("name", NARROW)
def test_every_bit_pattern_survives_the_way_to_float64_and_back(name):
    """Conversion is exact: what a format holds is the same number, bit for bit, after a stay in float64."""
    dtype = formats.lookup(name).dtype
    bits = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
    bits = bits[~np.isnan(bits.view(dtype).astype(np.float32))]
    wide = bits.view(dtype).astype(np.float64)
    back = formats.convert_exactly(wide, name)
    assert back.dtype == dtype
    assert np.array_equal(back.view(bits.dtype), bits)


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("value", SPECIALS.values(), ids=SPECIALS)
def test_special_values_are_kept_where_the_format_has_them(name, value):
    """NaN, infinities and the sign of zero are values like others; float8_e4m3fn has no infinity."""
    array = np.array([1.0, value])
    if name == "float8_e4m3fn" and np.isinf(value):
        assert formats.off_grid(array, name) == (1,)
        return
    found = formats.convert_exactly(array, name).astype(np.float64)
    assert np.array_equal(found, array, equal_nan=True)
    assert np.signbit(found[1]) == np.signbit(value) or np.isnan(value)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0.1, "float32"),
        (257.0, "bfloat16"),
        (65520.0, "float16"),
        (464.0, "float8_e4m3fn"),
        (1e300, "bfloat16"),
        (1e-50, "float32"),
    ],
    ids=["precision", "bfloat16", "beyond the largest", "beyond the largest float8", "overflow", "underflow"],
)
def test_conversion_names_the_value_that_it_would_round(value, name):
    """Nothing is rounded: the first value that would be is an error with value, index and format."""
    with pytest.raises(ValueError, match=rf"{re.escape(str(value))}.* at \(1, 0\) is not a {name} number"):
        formats.convert_exactly(np.array([[1.0], [value]]), name)


def test_an_array_that_is_in_the_format_is_returned_as_it_is():
    """Conversion to the format that an array has copies nothing."""
    array = np.ones(3, ml_dtypes.bfloat16)
    assert formats.convert_exactly(array, "bfloat16") is array


def test_conversion_leaves_its_argument_alone():
    """A conversion returns a new array and changes none."""
    array = np.array([0.5, -2.0])
    array.setflags(write=False)
    assert formats.convert_exactly(array, "float16").dtype == np.float16
    assert array.tolist() == [0.5, -2.0]
    assert array.dtype == np.float64
