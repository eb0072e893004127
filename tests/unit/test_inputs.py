"""karat.inputs: recipes that any language can follow; checked here against a second, pure-Python implementation."""

import hashlib
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from karat import formats, inputs
from karat.inputs import Dyadic, Fine, Integers, Literal, Stored

WORD = 2**64 - 1
KEYS = ("", "a", "gpt2/weights/transformer.h.0.ln_1.weight", "ключ", "x" * 1000)


def philox_block(counter, key):
    """Return the four words of Philox 4x64-10 (Salmon et al., SC'11) for a counter and a key, as integers."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * x0, 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * x2, 2**64)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & WORD, (k1 + 0xBB67AE8584CAA73B) & WORD
    return x0, x1, x2, x3


def words_of(key, count):
    """Return the first `count` 32-bit words of the stream of a text key, as the module's docstring defines it."""
    digest = hashlib.sha256(key.encode("utf-8")).digest()
    numeric = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    blocks = (philox_block((counter, 0, 0, 0), numeric) for counter in range(1, count // 8 + 2))
    return [half for block in blocks for word in block for half in (word & 0xFFFFFFFF, word >> 32)][:count]


def dyadic_values(recipe):
    """Return the values of a Dyadic recipe as exact fractions, in row-major order."""
    row_size = math.prod(recipe.shape[1:])
    values = []
    for position, word in enumerate(words_of(recipe.key, math.prod(recipe.shape))):
        k = sum((word >> shift) % 64 for shift in (0, 8, 16, 24)) - 126
        value = (recipe.offset + (math.floor(Fraction(k, 2)) if recipe.narrow else k)) * Fraction(2) ** recipe.exponent
        quiet = recipe.quiet_period and (position // row_size) % recipe.quiet_period == recipe.quiet_period - 1
        values.append(value / 2**recipe.quiet_shift if quiet else value)
    return values


DYADICS = {
    "plain": Dyadic((7, 5), "plain", -6),
    "three axes": Dyadic((3, 4, 5), "three", -8),
    "scalar": Dyadic((), "scalar", -6),
    "empty": Dyadic((0, 4), "empty", -6),
    "offset": Dyadic((33,), "offset", -7, offset=128),
    "negative offset": Dyadic((33,), "offset", -7, offset=-130),
    "narrow": Dyadic((64,), "narrow", -7, offset=128, narrow=True),
    "quiet rows": Dyadic((7, 5), "quiet", -6, quiet_period=3, quiet_shift=10),
    "every row quiet": Dyadic((4, 3), "all", -6, quiet_period=1, quiet_shift=2),
    "large": Dyadic((9,), "large", 3),
}


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        ((WORD,) * 4, (WORD,) * 2, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
    ],
    ids=["zeros", "ones"],
)
def test_the_second_implementation_is_philox(counter, key, expected):
    """The yardstick of this file gives the known answers of Random123 (kat_vectors, philox4x64 10)."""
    assert " ".join(f"{word:016x}" for word in philox_block(counter, key)) == expected


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 101])
@pytest.mark.parametrize("key", KEYS, ids=["empty", "short", "path", "not ASCII", "long"])
def test_random_words_are_the_philox_stream_of_the_key(key, count):
    """Philox 4x64-10 under the first 16 bytes of SHA-256 of the key, counter from 1, cut into 32-bit words."""
    found = inputs.random_words(key, count)
    assert found.dtype == np.uint32
    assert found.shape == (count,)
    assert found.tolist() == words_of(key, count)


@pytest.mark.parametrize("recipe", DYADICS.values(), ids=DYADICS)
def test_dyadic_values_are_the_integers_of_the_definition(recipe):
    """A value is (offset + k) * 2^exponent, k being the sum of the low six bits of the word's bytes less 126."""
    array = recipe.draw()
    assert array.shape == recipe.shape
    assert array.dtype.name == recipe.dtype == "float32"
    assert [Fraction(float(value)) for value in array.ravel()] == dyadic_values(recipe)


def test_the_block_size_does_not_show(monkeypatch):
    """Values are drawn in blocks that stay in the cache; where a block ends makes no difference."""
    whole = DYADICS["narrow"].draw()
    monkeypatch.setattr(inputs, "_BLOCK", 5)
    assert np.array_equal(DYADICS["narrow"].draw(), whole)


def test_dyadic_values_are_bell_shaped():
    """Of k the mean is 0, the standard deviation sqrt(4 * (64^2 - 1) / 12) = 36.9, the range -126...126."""
    k = Dyadic((1 << 16,), "bell", 0).draw().astype(np.float64)
    assert abs(k.mean()) < 4 * 36.95 / 256
    assert k.std() == pytest.approx(math.sqrt(1365), rel=0.01)
    assert np.abs(k).max() <= 126


def test_narrow_values_around_128_stay_within_a_factor():
    """With `narrow`, an offset of 128 leaves the values inside (0.5, 1.5) * 128 * 2^exponent."""
    values = Dyadic((1 << 16,), "narrow", -7, offset=128, narrow=True).draw()
    assert 65 / 128 <= values.min() < 0.75
    assert 1.25 < values.max() <= 191 / 128


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_dyadic_values_lie_on_every_grid(name):
    """Inputs are exact in bfloat16, float16 and float32 while |offset + k| <= 256 and exponent - shift >= -24."""
    extremes = np.arange(-256, 257) * 2.0**-24
    assert formats.off_grid(extremes, name) is None
    drawn = Dyadic((512,), "grid", -14, offset=130, quiet_period=2, quiet_shift=10).draw()
    assert np.abs(drawn).max() == pytest.approx(256 * 2.0**-14, rel=0.2)
    assert formats.off_grid(drawn, name) is None


def test_the_key_decides_and_nothing_else():
    """The same recipe gives the same values whenever it is drawn; another key gives others."""
    assert np.array_equal(DYADICS["plain"].draw(), DYADICS["plain"].draw())
    assert not np.array_equal(Dyadic((7, 5), "plain", -6).draw(), Dyadic((7, 5), "plaim", -6).draw())


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 10), (-7, 6), (3, 4), (0, 2**32), (-(2**31), 2**31), (10**12, 10**12 + 97)],
    ids=["digits", "negative", "one value", "all words", "all int32", "far from 0"],
)
def test_integers_are_the_floor_of_the_definition(low, high):
    """An integer is low + floor(word * (high - low) / 2^32), in exact integer arithmetic."""
    array = Integers((5, 7), "tokens", low, high).draw()
    assert array.shape == (5, 7)
    assert array.dtype.name == Integers((1,), "", 0, 1).dtype == "int64"
    assert array.ravel().tolist() == [low + word * (high - low) // 2**32 for word in words_of("tokens", 35)]
    assert low <= array.min()
    assert array.max() < high


@pytest.mark.parametrize("shape", [(), (0, 2)], ids=str)
def test_integers_of_any_shape(shape):
    """A scalar and an empty array are shapes like any other."""
    assert Integers(shape, "s", 0, 5).draw().shape == shape


@pytest.mark.parametrize(
    ("literal", "shape", "dtype"),
    [
        (Literal(((1, 2), (3, 4), (5, 6))), (3, 2), "int64"),
        (Literal((0.5, 0.25), "float32"), (2,), "float32"),
        (Literal(values=True, dtype="bool"), (), "bool"),
        (Literal((), "float32"), (0,), "float32"),
    ],
    ids=["matrix", "float32", "scalar", "empty"],
)
def test_a_literal_is_what_is_written(literal, shape, dtype):
    """Values written out in the contract come out as they stand, in the dtype that is named."""
    array = literal.draw()
    assert literal.shape == array.shape == shape
    assert array.dtype.name == dtype
    assert array.tolist() == (
        list(map(list, literal.values)) if len(shape) == 2 else np.asarray(literal.values).tolist()
    )


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            Integers((2, 3), "k", -1, 9),
            {"recipe": "integers", "shape": [2, 3], "key": "k", "low": -1, "high": 9, "dtype": "int64"},
        ),
        (Literal(((1, 2),)), {"recipe": "literal", "values": [[1, 2]], "dtype": "int64"}),
        (Stored((4,)), {"recipe": "stored", "shape": [4], "dtype": "float32"}),
    ],
    ids=["integers", "literal", "stored"],
)
def test_a_recipe_is_described_as_json_its_kind_first(recipe, expected):
    """The manifest records of an input its recipe, as JSON values, its kind first."""
    found = inputs.describe(recipe)
    assert json.loads(json.dumps(found, allow_nan=False)) == expected
    assert next(iter(found)) == "recipe"


def test_the_description_tells_recipes_apart():
    """Every field of a recipe stands in its description, so that a change to any of them is seen."""
    described = inputs.describe(
        Dyadic((2,), "k", -3, offset=5, narrow=True, quiet_period=7, quiet_shift=4, row_exponents=(1, -2))
    )
    fields = {
        "exponent": -3,
        "offset": 5,
        "narrow": True,
        "quiet_period": 7,
        "quiet_shift": 4,
        "row_exponents": (1, -2),
    }
    assert described == {"recipe": "dyadic", "shape": (2,), "key": "k", "dtype": "float32", **fields}


def test_names_with_a_slash_become_mappings_one_level_deep():
    """A mapping's entries stand as `name/key` in exchanged files; only the first slash counts."""
    flat = {"x": 1, "weights/h.0.bias": 2, "weights/a/b": 3, "other/y": 4}
    assert inputs.nest(flat) == {"x": 1, "weights": {"h.0.bias": 2, "a/b": 3}, "other": {"y": 4}}
    assert inputs.nest({}) == {}


@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 3), (0, (1 << 32) + 1)])
def test_a_range_that_the_arithmetic_does_not_cover_is_refused(low, high):
    """Integers come from 32-bit words: a range holds between 1 and 2^32 of them."""
    with pytest.raises(ValueError, match="does not hold 1 to 2\\^32 integers"):
        Integers((2,), "key", low, high)


def test_integers_have_the_dtype_that_is_declared():
    """What case.json announces is what is drawn."""
    assert Integers((5,), "key", 0, 9, dtype="int32").draw().dtype == np.int32


def test_numbers_that_json_lacks_are_written_by_name():
    """NaN and infinities of a literal are text in a manifest, at any depth."""
    found = inputs.describe(inputs.Literal(((1.0, float("nan")), (float("-inf"), 2.0)), "float64"))
    assert found["values"] == ((1.0, "nan"), ("-inf", 2.0))
    json.dumps(found, allow_nan=False)


FINES = {name: recipe for name, recipe in DYADICS.items() if abs(recipe.offset) <= 130}


@pytest.mark.parametrize("recipe", FINES.values(), ids=FINES)
def test_fine_numbers_are_dyadic_ones_and_a_fraction_of_a_step(recipe):
    """Exactly offset + k + f / 2^15 steps, f from the stream of the key with /fraction, in float32."""
    row_size = math.prod(recipe.shape[1:])
    steps = dyadic_values(Dyadic(recipe.shape, recipe.key, 0, recipe.offset, recipe.narrow))
    expected = []
    words = words_of(f"{recipe.key}/fraction", math.prod(recipe.shape))
    for position, (step, word) in enumerate(zip(steps, words, strict=True)):
        value = (step + Fraction((word >> 17) - 2**14, 2**15)) * Fraction(2) ** recipe.exponent
        quiet = recipe.quiet_period and (position // row_size) % recipe.quiet_period == recipe.quiet_period - 1
        expected.append(value / 2**recipe.quiet_shift if quiet else value)
    drawn = Fine(recipe).draw()
    assert drawn.dtype == np.float32
    assert drawn.shape == recipe.shape
    assert [Fraction(float(value)) for value in drawn.reshape(-1)] == expected


def test_fine_numbers_need_float32():
    """Nearly none is a number of TF32's 11 bits."""
    drawn = Fine(Dyadic((400,), "fine", -6)).draw()
    significand, _ = np.frexp(drawn.astype(np.float64))
    assert np.count_nonzero(significand * 2**11 % 1 != 0) >= 390


def test_a_fine_recipe_is_described_by_the_coarse_one():
    """A manifest records all that is needed to draw it."""
    described = inputs.describe(Fine(Dyadic((2, 3), "x", -4)))
    assert described["recipe"] == "fine"
    assert described["coarse"]["key"] == "x"
    assert json.loads(json.dumps(described))["coarse"]["shape"] == [2, 3]
