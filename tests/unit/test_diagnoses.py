"""karat.diagnoses: a wrong output is a catalogued fault, a simple change, or less precise than was promised."""

import math
import re

import ml_dtypes
import numpy as np
import pytest

from karat import noise
from karat.diagnoses import doubted
from karat.questions import Diagnosis
from karat.signatures import Signature

RANDOM = np.random.Generator(np.random.Philox(key=71))
GOLDEN = RANDOM.standard_normal((20, 50)).astype(np.float32).astype(np.float64)
NORMAL = RANDOM.standard_normal(GOLDEN.shape)
AXES = {"out": {"axes": ("token", "channel")}}


def frozen(bench, golden=GOLDEN, *, sizes=(1.0, 1.0, 1.0), faults=(), **given):
    """Return a bench of one checkpoint whose noise is so many units of rounding, accumulation, products."""
    size = np.sqrt(np.abs(golden) ** 2 + 0.1)
    scales = {kind: noise.encode(factor * size) for kind, factor in zip(noise.KINDS, sizes, strict=True)}
    return bench({"out": golden}, {"out": scales}, {"out": list(faults)}, points=AXES, **given)


def told(bench, candidate, contract="float32", **given):
    """Return the diagnoses of an output that must be a mismatch."""
    (verdict,) = frozen(bench, **given).judge({"out": candidate}, contract)
    assert verdict.status == "mismatch"
    return list(verdict.diagnosis)


def noisy(unit, size=1.0):
    """Return the golden with errors as of a format with a unit roundoff."""
    return GOLDEN + unit * size * np.sqrt(GOLDEN**2 + 0.1) * NORMAL


def bits_of(text):
    """Return the effective bits that a diagnosis tells."""
    found = re.search(r"about (\d+\.\d) effective bits where (\d+) are promised", text)
    assert found is not None, text
    return float(found[1]), int(found[2])


# --- less than was promised ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit", "sizes"),
    [
        ("rounding to bfloat16 after each operation", 2.0**-8, (1, 0.01, 0.01)),
        ("rounding to float16 after each operation", 2.0**-11, (1, 0.01, 0.01)),
        ("matrix products in tfloat32 or float16", 2.0**-11, (0.01, 0.01, 1)),
        ("matrix products in bfloat16", 2.0**-8, (0.01, 0.01, 1)),
        ("sums accumulated in float16", 2.0**-11, (0.01, 1, 0.01)),
        ("sums accumulated in bfloat16", 2.0**-8, (0.01, 1, 0.01)),
    ],
)
def test_a_lower_precision_is_named_with_its_effective_bits(bench, name, unit, sizes):
    """Errors of the size of another format, where float32 is promised, are told as what they are of."""
    (found,) = told(bench, noisy(unit), sizes=sizes)
    assert (found.fault, found.text.split(":")[0]) == ("precision", f"errors as of {name}")
    bits, promised = bits_of(found.text)
    sigma = 2.0**-24 * math.sqrt(sizes[0] ** 2 + sizes[1] ** 2)
    assert promised == 24
    assert bits == pytest.approx(24 - math.log2(unit / sigma), abs=0.15)
    assert found.strength == pytest.approx(bits, abs=0.051)


def test_the_nearest_lower_precision_is_named(bench):
    """Errors of 11 bits are not called errors of 8, which would allow them too."""
    for size, name in ((1, "float16"), (4, "bfloat16")):
        (found,) = told(bench, noisy(2.0**-11, size=size), sizes=(1, 0.01, 0.01))
        assert f"errors as of rounding to {name} after each operation:" in found.text


def test_a_candidate_that_rounds_to_fewer_bits_is_told_its_grid_too(bench):
    """Where the values themselves are bfloat16 numbers both are said: the grid, and that the errors are of it."""
    coarse = noisy(2.0**-8).astype(ml_dtypes.bfloat16).astype(np.float32)
    faults = {found.fault: found.text for found in told(bench, coarse, sizes=(1, 1, 1))}
    assert faults.keys() == {"grid", "precision"}
    assert "bfloat16" in faults["grid"]
    assert faults["precision"].startswith("errors as of rounding to bfloat16 after each operation: ")


def test_a_golden_that_was_rounded_is_not_called_imprecise(bench):
    """Where nothing but the last rounding is wrong, that is said, and neither sums nor operations are accused."""
    (found,) = told(bench, GOLDEN.astype(ml_dtypes.bfloat16).astype(np.float32), sizes=(1, 1, 1))
    assert (found.fault, found.text) == (
        "rounded",
        "is the golden rounded to bfloat16: 8 bits where 24 are promised",
    )


def test_products_and_sums_are_told_apart_by_their_pattern(bench):
    """Errors of one size are of bfloat16 products or of float16 sums: their sizes from element to element decide."""
    products, sums = 10 ** RANDOM.uniform(-0.3, 0.3, (2, *GOLDEN.shape))
    scales = {"rounding": 1e-3 * products, "accumulation": 8 * sums, "products": products}
    for unit, pattern, name in (
        (2.0**-8, products, "matrix products in bfloat16"),
        (2.0**-8, sums, "sums accumulated"),
    ):
        given = bench({"out": GOLDEN}, {"out": {k: noise.encode(v) for k, v in scales.items()}}, points=AXES)
        (verdict,) = given.judge({"out": GOLDEN + 0.7 * unit * pattern * NORMAL})
        (found,) = verdict.diagnosis
        assert found.text.startswith(f"errors as of {name}")
        assert ", or of" not in found.text


def test_precisions_that_cannot_be_told_apart_are_both_named(bench):
    """Where products and sums have the same pattern and size, the report does not choose."""
    (found,) = told(bench, noisy(2.0**-8, size=0.7), sizes=(1e-3, 1, 1))
    assert found.text.startswith("errors as of matrix products in bfloat16, or of sums accumulated in bfloat16: ")


NOT_IMPRECISE = {
    "a channel": lambda: np.where(np.arange(50) == 7, 0, GOLDEN),
    "a row": lambda: np.where(np.arange(20)[:, None] == 7, 1.003, 1) * GOLDEN,
    "some elements": lambda: GOLDEN + 1e-3 * (np.arange(1000).reshape(20, 50) % 97 == 0),
    "a tenth of the elements": lambda: GOLDEN + 2.0**-8 * NORMAL * (RANDOM.uniform(size=GOLDEN.shape) < 0.1),
    "most rows": lambda: GOLDEN + 2.0**-8 * NORMAL * (np.arange(20)[:, None] < 15),
    "one sign": lambda: GOLDEN + 2.0**-9 * np.abs(NORMAL),
}


@pytest.mark.parametrize("change", NOT_IMPRECISE.values(), ids=NOT_IMPRECISE)
def test_a_loss_of_precision_is_everywhere_and_of_both_signs(bench, change):
    """What is wrong in a part, at single elements, or by another formula is no lower precision, whatever its size."""
    for sizes in ((1, 1, 1), (0.01, 1, 0.01), (0.01, 0.01, 1)):
        faults = [found.fault for found in told(bench, change(), sizes=sizes)]
        assert "precision" not in faults


def test_another_formula_is_no_lower_precision(bench):
    """Errors that follow the golden's values are told as that, though bfloat16 would make errors of their size."""
    (found,) = told(bench, GOLDEN + 2.0**-8 * np.sin(2 * GOLDEN), sizes=(1, 0.01, 0.01))
    assert (found.fault, found.strength) == ("formula", pytest.approx(0.99, abs=0.005))
    assert found.text == (
        "errors follow the golden's values: 99% of neighbours in value err to the same side, of random ones half;"
        " as of another formula or constant, or of rounding what many share"
    )


def test_what_is_wrong_nearly_everywhere_is_called_by_its_errors(bench):
    """Where a row of five is right, as in a softmax of one term, what the others are is told before that."""
    rows = np.arange(20)[:, None] > 3
    for candidate, fault in ((noisy(2.0**-8), "precision"), (GOLDEN + 2.0**-8 * np.sin(2 * GOLDEN), "formula")):
        found = told(bench, np.where(rows, candidate, GOLDEN), sizes=(1, 0.01, 0.01))
        assert [diagnosis.fault for diagnosis in found] == [fault, "part"]
        assert found[1].text == "right at token 0–3 (of 0–19)"


def test_a_right_zero_tells_nothing_of_precision(bench):
    """Where most of an array is masked out, the rest tells of the precision."""
    kept = np.random.Generator(np.random.Philox(key=6)).uniform(size=GOLDEN.shape) < 0.3
    golden, candidate = (np.where(kept, array, 0) for array in (GOLDEN, noisy(2.0**-8)))
    (found,) = told(bench, candidate, golden=golden, sizes=(1, 0.01, 0.01))
    assert found.text.startswith("errors as of rounding to bfloat16 after each operation: ")


@pytest.mark.parametrize("contract", ["bfloat16-once", "float16-once"])
def test_one_more_rounding_than_promised_is_named(bench, contract):
    """Under a contract that rounds once, errors as of rounding each operation are told so."""
    unit = 2.0**-8 if contract.startswith("b") else 2.0**-11
    found = [d for d in told(bench, noisy(unit), contract, sizes=(1, 0.01, 0.01)) if d.fault == "precision"]
    storage = contract.removesuffix("-once")
    assert len(found) == 1
    assert found[0].text.startswith(f"errors as of rounding to {storage} after each operation, where one")


def test_errors_that_no_precision_has_are_not_called_one(bench):
    """One wrong element, or errors as large as the values, are no lower precision."""
    candidate = GOLDEN.copy()
    candidate[3, 7] += 100
    assert [found.fault for found in told(bench, candidate)] == ["part", "part"]
    assert "precision" not in [found.fault for found in told(bench, RANDOM.standard_normal(GOLDEN.shape))]


@pytest.mark.parametrize("sizes", [(1, 0.01, 0.01), (0.01, 0.01, 1)], ids=["rounding", "products"])
@pytest.mark.parametrize("unit", [2.0**-4, 2.0**-3])
def test_nobody_computes_in_float8_unawares(bench, unit, sizes):
    """Errors of four or three bits, where 24 are promised, are a mistake: float8 would show in the values."""
    assert "precision" not in [found.fault for found in told(bench, noisy(unit), sizes=sizes)]


def test_products_in_float8_may_hide_where_16_bits_are_promised(bench):
    """Operands of 4 bits leave values of 8, and so may be what is wrong; rounding results to 4 would show."""
    few = noisy(2.0**-4).astype(ml_dtypes.bfloat16)
    (found,) = [found for found in told(bench, few, "bfloat16", sizes=(0.1, 0.1, 1)) if found.fault == "precision"]
    assert found.text.startswith("errors as of matrix products in float8_e4m3fn")
    rounded = told(bench, few, "bfloat16", sizes=(1, 0.01, 0.01))
    assert "precision" not in [found.fault for found in rounded]


def test_what_is_explained_is_not_called_imprecise(bench):
    """A factor within the errors of bfloat16 is a factor, not a lower precision."""
    assert [found.fault for found in told(bench, GOLDEN * (1 + 2.0**-9))] == ["scale"]


# --- faults and simple changes ---------------------------------------------------------------------------------------


def fault(name, direction, error=1e-3):
    """Return a signature under float32."""
    return Signature(name, f"{name} is missing", direction.reshape(-1), {"float32": error})


def test_a_mismatch_is_called_by_the_fault_that_made_it(bench):
    """Of the catalogue the one that explains the error is named, though all are tried; it is not called imprecise."""
    faults = [fault("bias", np.broadcast_to(RANDOM.standard_normal(50), GOLDEN.shape)), fault("mask", NORMAL)]
    (found,) = told(bench, noisy(2.0**-25) + faults[1].direction.reshape(GOLDEN.shape), faults=faults)
    assert (found.fault, found.strength) == ("mask", pytest.approx(1, abs=0.05))
    assert found.text.startswith("mask is missing (strength 1.0")


def test_a_fault_and_a_simple_change_are_both_told(bench):
    """Where a catalogued fault is a factor too, the name comes first."""
    found = told(bench, 8 * GOLDEN, faults=[fault("scale_missing", 7 * GOLDEN)])
    assert [diagnosis.fault for diagnosis in found] == ["scale_missing", "scale"]
    assert "golden × 8" in found[1].text


def test_padding_has_no_part_in_a_fault(bench):
    """Directions are of the judged elements; what stands in padding changes nothing."""
    mask = np.ones((20, 50), int)
    mask[:, :30] = 0
    judged = mask.astype(bool)
    candidate = GOLDEN + np.where(judged, NORMAL, 1e6)
    given = bench(
        {"out": GOLDEN},
        {"out": {kind: noise.encode(np.ones(GOLDEN.shape)) for kind in noise.KINDS}},
        {"out": [fault("mask", NORMAL[judged])]},
        points=AXES,
        padding={"channel": mask},
    )
    (verdict,) = given.judge({"out": candidate})
    assert [found.fault for found in verdict.diagnosis] == ["mask"]


def test_wrong_integers_are_named_if_they_are_just_those_of_a_fault(bench):
    """A direction of integers is exact: another difference, however near, is another mistake."""
    golden = np.arange(12).reshape(3, 4)
    shift = Signature("shift", "the index is one off", np.ones(12), {})
    given = bench({"index": golden}, faults={"index": [shift]})
    (verdict,) = given.judge({"index": golden + 1})
    assert [found.fault for found in verdict.diagnosis] == ["shift"]
    assert verdict.diagnosis[0].text == "the index is one off (the integers are just those)"
    other = golden + 1
    other[2, 3] += 1
    assert given.judge({"index": other})[0].diagnosis == ()


def test_only_the_first_divergence_is_diagnosed(bench):
    """An error travels downstream: what follows the first divergence has no diagnosis of its own."""
    scales = {kind: noise.encode(np.ones(GOLDEN.shape)) for kind in noise.KINDS}
    given = bench({"first": GOLDEN, "second": GOLDEN}, dict.fromkeys(("first", "second"), scales))
    first, second = given.judge({"first": 2 * GOLDEN, "second": 3 * GOLDEN})
    assert [found.fault for found in first.diagnosis] == ["scale"]
    assert second.diagnosis == ()


@pytest.mark.parametrize("shape", [(), (1,), (0, 3)], ids=str)
def test_small_outputs_are_no_failure_of_karat(bench, shape):
    """A checkpoint of one element, or of none, is diagnosed as little as need be."""
    golden = np.ones(shape)
    scales = {kind: noise.encode(golden) for kind in noise.KINDS}
    (verdict,) = bench({"out": golden}, {"out": scales}, {"out": [fault("f", golden)]}).judge({"out": golden + 1})
    assert verdict.status == ("pass" if 0 in shape else "mismatch")


def test_a_zero_golden_is_no_failure_of_karat(bench):
    """A checkpoint that is 0 everywhere, without any noise, is exact: what is not 0 is a mismatch, named if known."""
    golden = np.zeros((4, 20))
    scales = {kind: noise.encode(golden) for kind in noise.KINDS}
    given = bench({"out": golden}, {"out": scales}, {"out": [fault("leak", np.ones((4, 20)), 1e-9)]})
    (right,), (wrong,) = given.judge({}), given.judge({"out": golden + 1})
    assert right.status == "pass"
    assert wrong.status == "mismatch"
    assert wrong.diagnosis[0].fault == "leak"


def test_where_a_sure_fault_shows_is_no_news(bench):
    """A name that explains all but a hundredth of the error stands alone; a poorer one is told with the places."""
    direction = np.where(np.arange(50) < 9, NORMAL, 0)
    assert [found.fault for found in told(bench, GOLDEN + direction, faults=[fault("lanes", direction)])] == ["lanes"]
    poorer = direction * (1 + 0.25 * np.random.Generator(np.random.Philox(key=5)).standard_normal(GOLDEN.shape))
    found = told(bench, GOLDEN + poorer, faults=[fault("lanes", direction)])
    assert [diagnosis.fault for diagnosis in found] == ["lanes", "part"]


def test_a_simple_change_that_explains_all_leaves_no_room_for_a_guess(bench):
    """A fault that only stands out beside something larger is not named where the larger thing is all there is."""
    constant = np.ones(GOLDEN.shape) * 0.05
    guess = fault("guess", np.where(np.arange(50) < 25, 0.05, 1e-4 * NORMAL), 1e-4)
    assert [d.fault for d in told(bench, GOLDEN + constant, faults=[guess])] == ["offset"]
    beside = np.where(np.arange(50) < 30, constant, 0.05 * NORMAL)
    assert [d.fault for d in told(bench, GOLDEN + beside, faults=[guess])] == ["guess"]


def test_factors_take_no_name_away(bench):
    """A fault that is there in part is told before the factors that rows have, which many mistakes bring about."""
    factors = np.linspace(0.5, 1.5, 20)[:, None]
    more = fault("more", 1.25 * GOLDEN * (factors - 1) * np.linspace(0.7, 1.3, 50))
    found = told(bench, GOLDEN * factors, faults=[more])
    assert [diagnosis.fault for diagnosis in found] == ["more", "factors"]
    assert found[0].strength == pytest.approx(0.78, abs=0.02)


def test_a_gain_within_noise_takes_no_name_away(bench, monkeypatch):
    """A factor so near to 1 that each element allows it explains nothing: a fault that stands out keeps its name."""
    monkeypatch.setattr("karat.diagnoses._gain", lambda _: [Diagnosis("scale", 1.001, 1e-4, "× 1.001")])
    direction = np.where(np.arange(50) < 25, 0.05, 1e-4 * NORMAL)
    beside = np.where(np.arange(50) < 30, 0.05, 0.05 * NORMAL)
    found = told(bench, GOLDEN + beside, faults=[fault("guess", direction, 1e-4)])
    assert found[0].explained < 0.75
    assert [diagnosis.fault for diagnosis in found] == ["guess", "scale"]


def test_values_of_no_coarse_format_were_not_rounded_to_it(bench):
    """Errors as of sums and as of results are told as of sums where the results are numbers of no coarse format."""
    (found,) = told(bench, noisy(2.0**-8), sizes=(1, 1, 0.01))
    assert found.text.startswith("errors as of sums accumulated in bfloat16: ")


def test_a_few_errors_are_of_no_precision(bench):
    """Eight errors are of the size of some format by chance."""
    golden = np.ones((1, 8))
    scales = {kind: noise.encode(golden) for kind in noise.KINDS}
    given = bench({"out": golden}, {"out": scales}, points=AXES)
    (verdict,) = given.judge({"out": golden + 2.0**-8 * np.array([1, -0.8, 1.1, -0.7, 0.9, -1, 0.6, -1.2])})
    assert (verdict.status, verdict.diagnosis) == ("mismatch", ())


def test_what_was_never_written_is_not_called_by_a_fault_that_points_the_same_way(bench):
    """Zeros are more than all of a fault that makes a part of every value: what they are comes first."""
    found = told(bench, np.zeros(GOLDEN.shape), faults=[fault("scale_twice", -0.65 * GOLDEN)])
    assert [diagnosis.fault for diagnosis in found] == ["zeros"]
    assert found[0].text == "all 1000 elements are 0: perhaps nothing was written"
    named = told(bench, np.zeros(GOLDEN.shape), faults=[fault("never_written", -GOLDEN)])
    assert named[0].fault == "never_written"


def test_a_factor_is_not_called_by_a_fault_of_another_size(bench):
    """Half of the golden is half of it, not three quarters of what takes a third."""
    found = told(bench, 0.5 * GOLDEN, faults=[fault("a_third_left", -2 / 3 * GOLDEN)])
    assert [diagnosis.fault for diagnosis in found] == ["scale"]


def test_what_is_in_doubt_comes_last():
    """A fault that spares what it changes comes after all that nothing speaks against, in the order there was."""
    names = ("misread", "scale", "late", "leak")
    found = [Diagnosis(name, 1.0, 0.0, name) for name in names]
    told = doubted(found, {"misread": "out", "late": "loss"})
    assert [entry.fault for entry in told] == ["scale", "leak", "misread", "late"]
    assert [entry.spared for entry in told] == ["", "", "out", "loss"]
    assert told[3].text == "late, though loss, which it changes too, passed"
