"""karat.noise: scales survive their encoding, and a contract predicts what its number formats and the replays say."""

import math

import numpy as np
import pytest

from karat import noise
from karat.compare import Scale
from karat.tolerances import Contract

RANDOM = np.random.Generator(np.random.Philox(key=41))
EACH, ONCE = "each operation", "once"
CONTRACTS = {
    "float64": Contract("float64", "float64", "float64", "float64", EACH),
    "float32": Contract("float32", "float32", "float32", "float32", EACH),
    "tfloat32": Contract("tfloat32", "float32", "float32", "tfloat32", EACH),
    "bfloat16": Contract("bfloat16", "bfloat16", "float32", "bfloat16", EACH),
    "float16": Contract("float16", "float16", "float32", "float16", EACH),
    "float16 in float16": Contract("float16 in float16", "float16", "float16", "float16", EACH),
    "bfloat16-once": Contract("bfloat16-once", "bfloat16", "float32", "float32", ONCE),
    "float16-once": Contract("float16-once", "float16", "float32", "float32", ONCE),
    "float8_e4m3": Contract("float8_e4m3", "float8_e4m3fn", "float32", "float32", ONCE),
    "float8_e5m2": Contract("float8_e5m2", "float8_e5m2", "float32", "float32", ONCE),
    "products only": Contract("products only", "float16", "float32", "bfloat16", ONCE),
}
UNITS = {  # rounding, accumulation, products: exponents of 2; None: no noise of its own
    "float64": (-53, -53, None),
    "float32": (-24, -24, None),
    "tfloat32": (-24, -24, -11),
    "bfloat16": (-8, -24, None),
    "float16": (-11, -24, None),
    "float16 in float16": (-11, -11, None),
    "bfloat16-once": (-24, -24, None),
    "float16-once": (-24, -24, None),
    "float8_e4m3": (-24, -24, None),
    "float8_e5m2": (-24, -24, None),
    "products only": (-24, -24, -8),
}
SUBNORMAL = {"float64": 0, "float32": 2**-149, "bfloat16": 2**-133, "float16": 2**-24}
SUBNORMAL |= {"float8_e4m3fn": 2**-9, "float8_e5m2": 2**-16}
UNIT_OF = {"bfloat16": 2**-8, "float16": 2**-11, "float8_e4m3fn": 2**-4, "float8_e5m2": 2**-3}


def step(code):
    """Return what a code stands for, in integers as any language has them."""
    return code if code < 4 else (4 + code % 4) << (code // 4 - 1)


def signed_step(code):
    """Return what a magnitude of seven bits stands for: four of exponent, three of fraction."""
    return code if code < 8 else (8 + code % 8) << (code // 8 - 1)


@pytest.mark.parametrize("top", [1.0, 3e-5, 1e-200, 1e200])
def test_a_code_stands_for_what_is_documented(top):
    """Six exponent and two fraction bits without sign: s(c) / s(255) * top, s in integers."""
    found = Scale(np.arange(256, dtype=np.uint8), top).values()
    assert (found.dtype.name, found.shape) == ("float64", (256,))
    assert found == pytest.approx([step(code) / step(255) * top for code in range(256)], rel=1e-15, abs=0)
    assert found[0] == 0
    assert step(255) == 7 << 62


@pytest.mark.parametrize("top", [1.0, 7.3e-12, 1e-200, 1e200])
def test_a_scale_is_within_twelve_percent_over_eighteen_decades(top):
    """What is frozen in a byte is near enough for a tolerance, for the largest eighteen decades of an array."""
    values = top * 10 ** np.concatenate([[0.0], RANDOM.uniform(-18.5, 0, 20_000)])
    scale = noise.encode(values)
    assert (scale.codes.dtype.name, scale.codes.shape, scale.top) == ("uint8", values.shape, top)
    apart = np.abs(scale.values() / values - 1)
    assert apart.max() < 0.12
    assert np.sqrt(np.mean(np.square(apart))) < 0.06


def test_nothing_stays_nothing_and_something_never_becomes_it():
    """Where the noise is 0 nothing is allowed; where it is not, something is, however little."""
    scale = noise.encode(np.array([0.0, 5e-324, 1e-300, 1e-20, 1.0, 0.0]))
    assert scale.codes.tolist() == [0, 1, 1, 1, 255, 0]
    assert (scale.values() > 0).tolist() == [False, True, True, True, True, False]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3, 2)], ids=str)
def test_scales_of_any_shape_are_encoded(shape):
    """A scalar, an empty array, and one that is 0 everywhere."""
    for values in (np.zeros(shape), np.full(shape, 0.25)):
        scale, (codes, top) = noise.encode(values), noise.encode_signed(values)
        assert scale.codes.shape == scale.values().shape == codes.shape == shape
        assert scale.top == top == values.max(initial=0)
        np.testing.assert_allclose(scale.values(), values, rtol=1e-15)
        np.testing.assert_allclose(noise.decode_signed(codes, top), values, rtol=1e-15)


def test_signed_codes_stand_for_what_is_documented():
    """Codes -127 to 127 have four bits of exponent, three of fraction and a sign; 127 is the largest magnitude."""
    codes = np.arange(-127, 128, dtype=np.int8)
    wanted = [math.copysign(signed_step(abs(code)) / signed_step(127) * 2.5, code) for code in range(-127, 128)]
    assert noise.decode_signed(codes, 2.5) == pytest.approx(wanted, rel=1e-15, abs=0)
    again, top = noise.encode_signed(noise.decode_signed(codes, 2.5))
    assert (again.tolist(), again.dtype.name, top) == (codes.tolist(), "int8", 2.5)


def test_a_direction_is_within_six_percent_over_four_decades():
    """Both signs are kept; what is far below the largest becomes 0, never another sign."""
    values = np.concatenate([10 ** RANDOM.uniform(-4.48, 0, 20_000), [1.0]]) * 3e-7
    values *= np.where(RANDOM.random(values.size) < 0.5, -1, 1)
    found = noise.decode_signed(*noise.encode_signed(values))
    assert np.abs(found / values - 1).max() < 0.06
    small = noise.decode_signed(*noise.encode_signed(np.array([-1.0, 1e-9, -1e-9, 0.0, -0.0])))
    assert small.tolist() == [-1, 0, 0, 0, 0]


@pytest.mark.parametrize("name", UNITS)
def test_a_contract_scales_each_kind_of_noise_by_its_format(name):
    """Results in storage or, where it rounds once, in accumulation; sums in accumulation; coarser operands beside."""
    wanted = {kind: 0.0 if e is None else 2.0**e for kind, e in zip(noise.KINDS, UNITS[name], strict=True)}
    assert noise.unit_roundoffs(CONTRACTS[name]) == wanted
    needed = [kind for kind in noise.KINDS if wanted[kind]]
    assert noise.kinds_needed([CONTRACTS[name]]) == needed


def test_the_kinds_that_are_needed_are_those_of_any_contract():
    """A freeze replays a kind if one of the contracts needs it."""
    assert noise.kinds_needed([CONTRACTS["float32"], CONTRACTS["tfloat32"]]) == list(noise.KINDS)
    assert noise.kinds_needed([]) == []


def scales(shape=(500,)):
    """Return noise scales of all kinds, of about 1 per unit roundoff, and their values."""
    found = {kind: noise.encode(RANDOM.uniform(0.2, 3, shape)) for kind in noise.KINDS}
    return found, {kind: scale.values() for kind, scale in found.items()}


@pytest.mark.parametrize("name", CONTRACTS)
def test_sigma_is_what_the_design_says(name):
    """sigma^2 = (u R)^2 + (a A)^2 + (p P)^2 + subnormals^2 / 3, and once more a rounding where there is but one."""
    contract, (encoded, values) = CONTRACTS[name], scales()
    golden = RANDOM.standard_normal(500) * 10.0 ** RANDOM.integers(-12, 3, 500)
    predicted = noise.prediction(encoded, contract, 7.0)
    wanted = sum(
        (2.0**e * values[kind]) ** 2 for kind, e in zip(noise.KINDS, UNITS[name], strict=True) if e is not None
    )
    inside = contract.accumulation if contract.once else contract.storage
    assert predicted.max_sigma == 7.0
    assert predicted.floor == pytest.approx(SUBNORMAL[inside] / math.sqrt(3), rel=1e-12, abs=1e-150)
    assert (predicted.interval is not None) == contract.once
    wanted = wanted + SUBNORMAL[inside] ** 2 / 3
    if contract.once:
        wanted = wanted + (UNIT_OF[contract.storage] * golden) ** 2 / 3 + SUBNORMAL[contract.storage] ** 2 / 3
    np.testing.assert_allclose(noise.variance(predicted, golden), wanted, rtol=1e-12)


def test_a_prediction_needs_every_kind_of_its_contract():
    """A scale that was not frozen is missing by name, not taken for 0."""
    encoded, _ = scales((3,))
    del encoded["products"]
    noise.prediction(encoded, CONTRACTS["float32"], 1.0)
    with pytest.raises(KeyError, match="products"):
        noise.prediction(encoded, CONTRACTS["tfloat32"], 1.0)


@pytest.mark.parametrize("name", ["float32", "tfloat32", "bfloat16", "float16-once"])
def test_the_noise_along_a_direction_is_what_monte_carlo_gives(name):
    """The standard deviation of the matched filter's strength, for noise that is correlated between elements."""
    contract, n, draws = CONTRACTS[name], 40, 2000
    mixing = {kind: RANDOM.standard_normal((6, n)) for kind in noise.KINDS}
    golden, direction = 3 * RANDOM.standard_normal(n), RANDOM.standard_normal(n)
    replays = {kind: RANDOM.standard_normal((draws, 6)) @ mix for kind, mix in mixing.items()}
    units, (relative, floor) = noise.unit_roundoffs(contract), noise.last_rounding(contract)
    variances = sum(units[kind] ** 2 * (mix**2).sum(0) for kind, mix in mixing.items()) + (relative * golden) ** 2
    found = noise.error_along(direction, variances, golden, replays, contract)
    errors = sum(units[kind] * RANDOM.standard_normal((20_000, 6)) @ mix for kind, mix in mixing.items())
    errors = errors + np.hypot(relative * golden, floor) * RANDOM.uniform(-1, 1, (20_000, n)) * math.sqrt(3)
    strengths = errors @ (direction / variances) / (direction @ (direction / variances))
    assert found == pytest.approx(strengths.std(), rel=0.06)
    assert noise.error_along(3 * direction, variances, golden, replays, contract) == pytest.approx(found / 3)


def test_no_direction_has_no_precision():
    """A fault that changes nothing is drowned by any noise."""
    assert noise.error_along(np.zeros(3), np.ones(3), np.ones(3), {}, CONTRACTS["float64"]) == math.inf


@pytest.mark.parametrize("draws", [noise.DRAWS, 50, 200])
def test_a_scale_from_n_draws_is_known_to_one_over_the_root_of_2n(draws):
    """Two halves of normal draws say how well the whole is known, whatever the elements' own scales."""
    values = RANDOM.standard_normal((draws, 20_000)) * 10.0 ** RANDOM.uniform(-5, 5, 20_000)
    assert noise.precision(values) == pytest.approx(1 / math.sqrt(2 * draws), rel=0.07)


def test_where_there_is_no_noise_its_scale_is_known():
    """Elements that never change tell nothing of the precision; they do not spoil it either."""
    values = np.concatenate([np.zeros((24, 5000)), RANDOM.standard_normal((24, 5000))], axis=1)
    assert noise.precision(values) == pytest.approx(noise.precision(values[:, 5000:]), rel=1e-12)
    assert noise.precision(np.zeros((24, 7))) == noise.precision(np.zeros((24, 0))) == 0
