"""karat.precisions: errors of a lower precision, and errors that follow the golden."""

import math

import ml_dtypes
import numpy as np
import pytest

from karat.precisions import Errors, lost_precision, lower_precisions, other_formula
from karat.tolerances import Contract, Limits

RANDOM = np.random.Generator(np.random.Philox(key=72))
FLOAT32 = Contract("float32", "float32", "float32", "float32", "each operation")
LIMITS = Limits(3, 10, 6, 7, 7, "the test", "")


def test_lower_precisions_are_sorted_and_lower():
    """Every one allows more than what is promised; once before each operation; nothing is promised in float8."""
    each = "each operation"
    contracts = {
        name: Contract(name, storage, "float32", products, rounding)
        for name, storage, products, rounding in (
            ("bfloat16", "bfloat16", "bfloat16", each),
            ("float16-once", "float16", "float32", "once"),
            ("tfloat32", "float32", "tfloat32", each),
            ("float32", "float32", "float32", each),
        )
    }
    names = {name: [lower.text for lower in lower_precisions(contract)] for name, contract in contracts.items()}
    sums = ["sums accumulated in float16", "sums accumulated in bfloat16"]
    assert [name for name in names["float32"] if name.startswith("sums")] == sums
    assert names["float32"][0] == "matrix products in tfloat32 or float16"
    assert "matrix products in tfloat32 or float16" not in names["tfloat32"]
    assert "rounding to float16 after each operation" not in names["bfloat16"]
    assert not any("bfloat16" in name and "products" in name for name in names["bfloat16"])
    once = "rounding to float16 after each operation, where one rounding at the end is promised"
    assert once in names["float16-once"]
    assert not any("float32" in name.replace("tfloat32", "") for found in names.values() for name in found)


def gelu(x):
    """Return the tanh GELU."""
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def errors(candidate, golden):
    """Return errors of values that are promised in float32, with noise as of one rounding."""
    size = np.sqrt(golden**2 + 1e-3)
    return Errors(candidate - golden, (2.0**-24 * size) ** 2, golden, {"rounding": size})


def names(given):
    """Return which of the two is said."""
    found = other_formula(given) + lost_precision(given, FLOAT32, LIMITS, "")
    return [diagnosis.fault for diagnosis in found]


X = RANDOM.standard_normal((40, 100))
FORMULAS = {
    "quick GELU": (X / (1 + np.exp(-1.702 * X)), gelu(X)),
    "half of quick GELU": ((X / (1 + np.exp(-1.702 * X)) + gelu(X)) / 2, gelu(X)),
    "another eps": (X / np.sqrt(X.var(1, keepdims=True) + 1e-2), X / np.sqrt(X.var(1, keepdims=True) + 1e-5)),
    "a factor a row": (X * RANDOM.uniform(0.995, 0.999, (40, 1)), X),
}


@pytest.mark.parametrize(("candidate", "golden"), FORMULAS.values(), ids=FORMULAS)
def test_errors_that_follow_the_golden_are_of_another_formula(candidate, golden):
    """They are not called imprecise, whatever their size, nor in whatever order the elements stand."""
    assert names(errors(candidate.reshape(-1), golden.reshape(-1))) == ["formula"]
    order = RANDOM.permutation(golden.size)
    assert names(errors(candidate.reshape(-1)[order], golden.reshape(-1)[order])) == ["formula"]


@pytest.mark.parametrize("size", [100, 3000, 1_000_000])
@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_a_rounding_before_a_smooth_function_is_of_no_other_formula(size, storage):
    """Then errors are a function of the golden too, a saw: where goldens are dense, neighbours have the same."""
    x = RANDOM.standard_normal(size)
    assert names(errors(gelu(x.astype(getattr(ml_dtypes, storage, storage)).astype(np.float64)), gelu(x))) == [
        "precision"
    ]


@pytest.mark.parametrize("size", [60, 3000])  # of the first all are looked at, so that equal ones are neighbours
def test_goldens_that_are_equal_have_equal_errors(size):
    """What stands in an array twice or more, rounded before, follows nothing: of equal goldens one counts."""
    x = np.random.Generator(np.random.Philox(key=size)).standard_normal(size)
    rounded = x.astype(ml_dtypes.bfloat16).astype(np.float64)
    for times in (2, 8):
        given = errors(np.tile(gelu(rounded), times), np.tile(gelu(x), times))
        assert names(given) == ["precision"]


def test_where_rounding_is_shared_both_are_told():
    """Logits near -35 have few numbers in bfloat16, and a soft cap makes them neighbours in value."""
    x = np.random.Generator(np.random.Philox(key=1)).normal(-35, 3, (8, 200))
    candidate, golden = (50 * np.tanh(y / 50) for y in (x.astype(ml_dtypes.bfloat16).astype(np.float64), x))
    assert names(errors(candidate.reshape(-1), golden.reshape(-1))) == ["formula", "precision"]


@pytest.mark.parametrize("size", [16, 40, 150, 600])
def test_random_errors_follow_nothing(size):
    """Of 2000 draws none is called a formula, whatever the golden."""
    random = np.random.Generator(np.random.Philox(key=size))
    for _ in range(2000):
        golden = random.standard_normal(size)
        assert other_formula(errors(golden + 1e-3 * random.standard_normal(size), golden)) == []


def test_what_has_nothing_to_do_with_the_golden_is_no_formula():
    """The error of other numbers, or of the same in another order, follows the golden: it holds its negative."""
    random = np.random.Generator(np.random.Philox(key=3))
    for _ in range(100):
        golden = random.standard_normal(1000)
        for candidate in (random.standard_normal(1000), random.permutation(golden), np.ones(1000)):
            assert other_formula(errors(candidate, golden)) == []


def test_a_formula_is_everywhere():
    """What is wrong at a few elements that are neighbours in value is told by its place, not as a formula."""
    golden = np.sort(RANDOM.standard_normal(1000))
    assert other_formula(errors(golden + 0.1 * (golden > 1.5), golden)) == []
    assert other_formula(errors(golden[:8] * 1.01, golden[:8])) == []
    assert other_formula(errors(golden[:0], golden[:0])) == []
