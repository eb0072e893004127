"""karat.hypotheses: a simple change of the right array is named; what is no simple change is not."""

import numpy as np
import pytest

from karat import formats
from karat.hypotheses import diagnose
from karat.questions import Question

AXES = ("batch", "head", "query", "channel")
SHAPE = (2, 3, 5, 4)
RANDOM = np.random.Generator(np.random.Philox(key=7))
GOLDEN = RANDOM.standard_normal(SHAPE)
OTHER = RANDOM.standard_normal(SHAPE)
BIAS = RANDOM.standard_normal((1, 3, 1, 4))


def found(candidate, *, judged=None, storage="float64", golden=GOLDEN, axes=AXES, atol=1e-9, **noise):
    """Return the diagnoses of a candidate."""
    mask = np.ones(golden.shape, bool) if judged is None else judged
    others = {"h.0.other": OTHER, "row": OTHER[0]}
    return diagnose(Question(candidate, golden, mask, 1e-9, atol, axes, others, storage, **noise))


CHANGES = {
    "factor": (GOLDEN * 0.7, "scale", "equals the golden × 0.7 ± "),
    "root": (GOLDEN / np.sqrt(14), "scale", "(= 1/√14)"),
    "half": (GOLDEN / 2, "scale", "(= 1/2)"),
    "a square root that is whole": (GOLDEN * 8, "scale", "(= 8)"),
    "sign": (-GOLDEN, "scale", "(= -1: the sign)"),
    "offset": (GOLDEN + 0.25, "offset", "equals the golden + 0.25 ± "),
    "another checkpoint": (OTHER, "stale", "equals the golden of h.0.other"),
    "another layout": (
        GOLDEN.transpose(0, 2, 1, 3).reshape(SHAPE),
        "axes",
        "has the golden's elements laid out as (batch, query, head, channel)",
    ),
    "interleaved": (
        GOLDEN.transpose(0, 2, 1, 3).reshape(2, 5, 4, 3).transpose(0, 3, 1, 2),
        "axes",
        "are interleaved",
    ),
    "another order": (GOLDEN[:, [2, 0, 1]], "order", "along head it holds the golden's 2, 0, 1"),
    "one slice for all": (GOLDEN[:, [0, 0, 0]], "order", "along head it holds the golden's 0, 0, 0"),
    "one late": (
        np.concatenate([OTHER[:, :, :1], GOLDEN[:, :, :-1]], axis=2),
        "shift",
        "is the golden one query too late",
    ),
    "one early": (
        np.concatenate([GOLDEN[:, :, 1:], OTHER[:, :, :1]], axis=2),
        "shift",
        "is the golden one query too early",
    ),
    "bias": (GOLDEN - BIAS, "bias", "is the same at every batch, query: as of a bias"),
}


@pytest.mark.parametrize(("candidate", "fault", "text"), CHANGES.values(), ids=CHANGES)
def test_a_simple_change_is_named(candidate, fault, text):
    """What a hypothesis predicts within tolerance at every element is named, and nothing else is."""
    diagnoses = found(candidate)
    assert [diagnosis.fault for diagnosis in diagnoses] == [fault]
    assert text in diagnoses[0].text


def test_the_strength_of_a_scale_has_a_standard_error():
    """The factor is a least-squares fit; its standard error comes from what it leaves over."""
    noise = 1e-10 * RANDOM.standard_normal(SHAPE)
    (scale,) = found(GOLDEN * 3 + noise)
    assert scale.strength == pytest.approx(3, abs=1e-9)
    assert scale.uncertainty == pytest.approx(1e-10 / np.sqrt(np.square(GOLDEN).sum()), rel=0.3)


def with_part(index, value):
    """Return the golden with a part replaced."""
    candidate = GOLDEN.copy()
    candidate[index] = value
    return candidate


def test_what_is_no_simple_change_is_not_named():
    """Random values are no change of the golden."""
    assert found(RANDOM.standard_normal(SHAPE)) == []


def test_unwritten_elements_are_counted():
    """Zeros where the golden has none, more than one in twenty, are told."""
    zeros = found(with_part((slice(None), 2), 0.0))[0]
    assert (zeros.fault, zeros.strength) == ("zeros", 40 / 120)
    assert zeros.text == "40 of 120 elements are 0 where the golden is not"


def test_a_coarser_grid_than_promised_is_named():
    """A candidate that rounds to fewer bits than its contract promises is told so, with the bits."""
    coarse = (GOLDEN + OTHER / 8).astype(np.float16).astype(np.float64)
    texts = [diagnosis.text for diagnosis in found(coarse, storage="float32")]
    assert texts == ["every value is a float16 number: 11 bits where 24 are promised"]


def test_padding_has_no_part_in_a_hypothesis():
    """Elements that are not judged may hold anything, and are evidence of nothing."""
    judged = np.ones(SHAPE, bool)
    judged[0, :, :2] = False
    candidate = 2 * GOLDEN
    candidate[~judged] = 99.0
    assert [diagnosis.text.split(" ±")[0] for diagnosis in found(candidate, judged=judged)] == ["equals the golden × 2"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_diagnosed(value):
    """Non-finite values have a status of their own."""
    assert found(with_part((0, 0, 0, 0), value)) == []


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1), (0, 3)], ids=str)
def test_small_arrays_are_no_failure_of_karat(shape):
    """An array of one element, or of none, is diagnosed as little as need be."""
    golden = np.ones(shape)
    assert all(np.isfinite(diagnosis.strength) for diagnosis in found(golden + 1, golden=golden, axes=()))


def test_axes_without_labels_have_numbers():
    """Where a checkpoint names no axes, they are counted."""
    assert found(GOLDEN[:, [2, 0, 1]], axes=())[0].text == "along axis 1 it holds the golden's 2, 0, 1"


def test_exact_zeros_are_part_of_what_a_hypothesis_must_explain():
    """Where only the zeros are wrong, the array is not called the golden times one; the zeros' places are told."""
    golden = np.tril(np.ones((8, 8)))
    candidate = golden + 1e-12 * (golden == 0)
    question = Question(
        candidate, golden, np.ones((8, 8), bool), 1e-9, 1e-9, ("query", "key"), {}, "float64", exact_zeros=True
    )
    texts = [diagnosis.text for diagnosis in diagnose(question)]
    leak = "right but for 28 elements that must be exactly 0 and are up to 1e-12"
    assert texts == [leak, "right at query 7 (of 0–7)", "right at key 0 (of 0–7)"]


# --- what is not so is not said --------------------------------------------------------------------------------------


def test_what_varies_is_not_called_the_same():
    """A difference that varies by 13 % over an axis is no bias and no offset there, however wide the tolerance."""
    golden = RANDOM.standard_normal((40, 37))
    varying = 0.01 * (1 + 0.13 * np.sin(np.arange(37)))
    texts = [d.text for d in found(golden + varying, golden=golden, axes=("token", "channel"), atol=0.009)]
    assert texts == ["its difference from the golden (RMS 0.0101) is the same at every token: as of a bias"]
    scattering = 0.01 * (1 + 0.13 * RANDOM.standard_normal(golden.shape))
    assert found(golden + scattering, golden=golden, axes=("token", "channel"), atol=0.012) == []
    assert found(golden * (1 + scattering), golden=golden, axes=("token", "channel"), atol=0.02) == []


def test_what_varies_as_noise_does_is_the_same():
    """Where each element's noise is known, an offset may vary by as much, and by no more."""
    noise = 0.02 * RANDOM.standard_normal(SHAPE)
    known = {"sigma": np.full(SHAPE, 0.02), "rms_sigma": 1.8, "max_sigma": 7.0}
    assert [d.fault for d in found(GOLDEN + 0.2 + noise, atol=0.15, **known)] == ["offset"]
    known["sigma"] = np.full(SHAPE, 0.005)
    assert [d.fault for d in found(GOLDEN + 0.2 + noise, atol=0.15, **known)] == []


def test_random_errors_are_no_bias_of_a_short_axis():
    """The mean over three positions leaves 0.8 of random errors, which the noise would allow: it explains nothing."""
    golden = RANDOM.standard_normal((3, 400))
    noise = 1.9 * RANDOM.standard_normal(golden.shape)
    noise[:, 0] = 8.0
    known = {"sigma": np.ones(golden.shape), "rms_sigma": 1.8, "max_sigma": 7.0}
    assert "bias" not in [d.fault for d in found(golden + noise, golden=golden, axes=(), atol=6.9, **known)]


def test_what_is_the_same_at_two_places_is_no_bias():
    """A wrong coefficient of an odd function is wrong by as much at x and at -x, which is no bias."""
    golden = RANDOM.standard_normal((2, 20))
    assert found(golden + RANDOM.standard_normal(20), golden=golden, axes=("sign", "octave")) == []


HEADS = np.array([0.5, 1.5, 3.0])[:, None, None]
QUERIES = RANDOM.uniform(0.2, 0.8, (3, 8, 1))


@pytest.mark.parametrize(
    ("factors", "where"),
    [(HEADS, "head (0.5 to 3)"), (QUERIES, f"head, query ({QUERIES.min():.6g} to {QUERIES.max():.6g})")],
    ids=["heads", "queries"],
)
def test_factors_of_their_own_are_told_with_their_range(factors, where):
    """Another scale of each head, or another norm of each row: along the other axes the factor is the same."""
    golden = RANDOM.standard_normal((3, 8, 16))
    (diagnosis,) = found(golden * factors, golden=golden, axes=("head", "query", "key"))
    assert (diagnosis.fault, diagnosis.strength) == ("factors", pytest.approx(np.median(factors)))
    assert (
        diagnosis.text == f"equals the golden × a factor of its own at every {where}: as of another sum, norm or weight"
    )


def test_what_is_not_judged_has_no_part_in_a_factor():
    """A row that is padding has whatever it has, and is in no range of factors."""
    golden = RANDOM.standard_normal((8, 16))
    judged = np.ones(golden.shape, bool)
    judged[5], judged[2, 3] = False, False
    candidate = golden * np.linspace(0.5, 0.9, 8)[:, None]
    candidate[~judged] = 1e6
    (diagnosis,) = found(candidate, golden=golden, judged=judged, axes=("query", "key"))
    assert diagnosis.text.startswith("equals the golden × a factor of its own at every query (0.5 to 0.9): ")


def test_a_factor_of_most_slices_is_told():
    """Where few slices are wrong it is told which, and what they are."""
    golden, factors = RANDOM.standard_normal((40, 30)), np.ones((40, 1))
    factors[:2] = 0.7
    assert [d.text.split(" ±")[0] for d in found(golden * factors, golden=golden, axes=("row", "channel"))] == [
        "wrong only at row 0–1 (of 0–39), where it equals the golden × 0.7"
    ]


def test_heads_that_were_never_written_have_no_factor():
    """Zeros are told as zeros, and the head that is right by its place."""
    golden = RANDOM.standard_normal((4, 8, 16))
    candidate = golden * np.array([1, 0, 0, 0])[:, None, None]
    assert [d.text for d in found(candidate, golden=golden, axes=("head", "query", "key"))] == [
        "384 of 512 elements are 0 where the golden is not",
        "right at head 0 (of 0–3)",
    ]


def test_one_element_that_is_all_of_a_row_has_no_factor():
    """Where one element is far larger than the others of its row, or is the only one, its error is that of the row."""
    golden = RANDOM.standard_normal((20, 64))
    golden[:, 0] = 1e6
    lone = np.where(np.arange(8) == np.arange(40)[:, None] % 8, RANDOM.uniform(1, 2, (40, 8)), 0)
    known = {"rms_sigma": 3.0, "max_sigma": 10.0}
    for array in (golden, lone):
        sigma = np.full(array.shape, 2.0**-9 * 1e6 if array is golden else 1e-6)
        candidate = array * (1 + 2.0**-4 * RANDOM.standard_normal(array.shape))
        assert "factors" not in [d.fault for d in found(candidate, golden=array, axes=(), sigma=sigma, **known)]


def test_factors_near_one_may_be_of_a_norm_that_was_rounded():
    """A root mean square in bfloat16 scales its row by 1 to 2^-8: the factor is sure, what made it is not."""
    golden = RANDOM.standard_normal((8, 16))
    (diagnosis,) = found(
        golden * (1 + 2.0**-8 * np.linspace(-1, 1, 8)[:, None]), golden=golden, axes=("row", "channel")
    )
    assert diagnosis.text.endswith(": as of another sum, norm or weight, or of one in a lower precision")


def test_a_bias_needs_elements_that_are_judged():
    """One judged element a row, of whatever error, is the same as itself."""
    golden = RANDOM.standard_normal((20, 8))
    judged = np.arange(8) == np.arange(20)[:, None] % 8
    assert found(golden + RANDOM.standard_normal((20, 8)), golden=golden, judged=judged, axes=("query", "key")) == []


def test_what_was_never_written_is_no_other_golden():
    """Another golden that is 0 in the place of zeros, as where it is masked out, tells nothing of them."""
    golden, other = RANDOM.standard_normal((2, 6, 30))
    rows = np.arange(6)[:, None] < 2
    candidate, others = np.where(rows, 0, golden), {"masked": np.where(rows, 0, other)}
    judged = np.ones(golden.shape, bool)
    texts = [
        d.text for d in diagnose(Question(candidate, golden, judged, 1e-9, 1e-9, ("row", "column"), others, "float64"))
    ]
    assert texts == ["60 of 180 elements are 0 where the golden is not", "wrong only at row 0–1 (of 0–5)"]


def test_noise_is_no_factor():
    """Random errors, whatever their size, leave too much when each row has its own factor."""
    golden = RANDOM.standard_normal((50, 4))
    known = {"sigma": np.full(golden.shape, 0.01), "rms_sigma": 3.0, "max_sigma": 10.0}
    candidate = golden + 0.05 * RANDOM.standard_normal(golden.shape)
    assert "factors" not in [d.fault for d in found(candidate, golden=golden, axes=(), atol=0.1, **known)]


def test_a_permutation_must_explain_the_error():
    """Slices that are alike up to a wide tolerance are in no other order."""
    golden = np.arange(12.0)[:, None] * 1e-3 + RANDOM.standard_normal(8)
    candidate = golden + 1e-3 * RANDOM.standard_normal(golden.shape)
    candidate[0] = golden[1]
    assert "order" not in [d.fault for d in found(candidate, golden=golden, axes=("token", "channel"), atol=2e-3)]


def test_slow_changes_are_no_shift():
    """Where neighbours are alike up to a wide tolerance, nothing is one position late."""
    golden = np.arange(40) * 1e-3
    candidate = golden + 5e-4 * RANDOM.standard_normal(40)
    candidate[0] = 9.0
    assert "shift" not in [d.fault for d in found(candidate, golden=golden, axes=("token",), atol=3e-3)]


def test_an_offset_may_not_fail_anywhere():
    """One element that is 0.3 of the offset away from it is within a wide tolerance, and is not the same."""
    away = np.zeros(SHAPE)
    away[1, 1, 1, 1] = 0.3
    assert [d.fault for d in found(GOLDEN + 1, atol=0.5)] == ["offset"]
    assert found(GOLDEN + 1 + away, atol=0.5) == []


def test_zeros_everywhere_are_told_as_zeros():
    """Though they equal another golden that is 0, or a row of this one in the place of all."""
    golden = np.random.Generator(np.random.Philox(key=8)).standard_normal((4, 8))
    golden[2] = 0
    others = {"nothing": np.zeros((4, 8))}
    told = diagnose(
        Question(np.zeros((4, 8)), golden, np.ones((4, 8), bool), 1e-5, 1e-6, ("row", "k"), others, "float32")
    )
    assert [entry.text for entry in told] == ["all 32 elements are 0: perhaps nothing was written"]


def test_zeros_that_are_within_tolerance_are_right():
    """A tail that underflows to 0 is no unwritten element."""
    golden = GOLDEN * np.where(np.arange(4) == 1, 1e-12, 1.0)
    candidate = golden.copy()
    candidate[..., 1] = 0
    candidate[..., 2] = 7.0 + np.arange(30).reshape(2, 3, 5)
    assert [d.fault for d in found(candidate, golden=golden)] == ["part"]


@pytest.mark.parametrize(("name", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_a_golden_that_was_rounded_is_called_so(name, bits):
    """The golden's own values in a coarser format are told as that; that some are exact in it is no news."""
    golden = GOLDEN.copy()
    golden[0] = np.round(golden[0] * 8) / 8  # exact in any format
    rounded = golden.astype(formats.lookup(name).dtype).astype(np.float64)
    assert [(d.fault, d.text) for d in found(rounded, golden=golden, storage="float32")] == [
        ("rounded", f"is the golden rounded to {name}: {bits} bits where 24 are promised")
    ]


def test_few_different_values_have_no_format():
    """Zeros and ones are numbers of every format."""
    candidate = (GOLDEN > 0).astype(np.float64)
    assert "grid" not in [d.fault for d in found(candidate, storage="float32")]
