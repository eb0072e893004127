"""karat.judge: what is predicted is what decides: limits, widened for few elements; faults; goldens without noise."""

import math
from dataclasses import replace

import numpy as np
import pytest

from karat import noise
from karat.signatures import Signature
from karat.tolerances import Tolerance

RANDOM = np.random.Generator(np.random.Philox(key=61))
GOLDEN = RANDOM.uniform(1, 2, (8, 40)) * np.where(RANDOM.random((8, 40)) < 0.5, -1, 1)
KINDS = dict.fromkeys(noise.KINDS, 1.0)
U = 2.0**-24


def scales(golden, sizes=KINDS):
    """Return noise scales by kind: those of one rounding of the golden, times so much."""
    return {kind: noise.encode(np.full(golden.shape, size)) for kind, size in sizes.items()}


def sigma(golden):
    """Return sigma under float32 of scales of 1: results and sums, each rounded with u."""
    return np.full(golden.shape, math.sqrt(2) * U)


def one(bench, golden, sizes=KINDS, **given):
    """Return a bench with one checkpoint, `out`."""
    return bench({"out": golden}, {"out": scales(golden, sizes)}, **given)


def by_name(verdict):
    """Return the tests of a verdict by name."""
    return {test.name: test for test in verdict.tests}


@pytest.mark.parametrize("contract", ["float64", "float32", "tfloat32", "bfloat16", "float16"])
def test_the_golden_itself_passes_under_every_contract(bench, contract):
    """The golden, rounded to storage, is right: every test passes, and says how much of its limit is used."""
    (verdict,) = one(bench, GOLDEN).judge({}, contract)
    assert (verdict.status, verdict.text, verdict.first_divergence) == ("pass", "", False)
    assert list(by_name(verdict)) == ["max", "rms", "row"]
    assert all(test.passed for test in verdict.tests)
    assert verdict.used == max(test.used for test in verdict.tests) < 1


@pytest.mark.parametrize("contract", ["bfloat16-once", "float16-once"])
def test_one_rounding_is_no_error_where_one_is_promised(bench, contract):
    """What is rounded once from the golden has no error in sigma."""
    golden = GOLDEN.astype(np.float32).astype(np.float64)
    (verdict,) = one(bench, golden).judge({"out": golden.astype(np.float32)}, contract)
    assert verdict.status == "dtype"
    (verdict,) = one(bench, golden).judge({}, contract)
    assert (verdict.status, verdict.used) == ("pass", 0.0)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (4, 20), (3, 4, 100)], ids=str)
def test_a_mean_of_few_elements_may_hold_one_that_is_as_large_as_is_allowed(bench, shape):
    """The limit of a mean square over n elements is max_sigma^2 / n wider than the limit of a long one."""
    golden = np.ones(shape)
    candidate = golden.copy()
    candidate[(0,) * len(shape)] += 9.99 * sigma(golden).flat[0]
    (verdict,) = one(bench, golden).judge({"out": candidate.astype(np.float32)})
    row = math.prod(shape) if len(shape) < 3 and math.prod(shape) < 100 and shape != (4, 20) else shape[-1]
    found = by_name(verdict)
    assert found["rms"].limit == pytest.approx(math.sqrt(4 + 100 / golden.size))
    assert found["row"].limit == pytest.approx(math.sqrt(16 + 100 / row))
    assert verdict.status == "pass"
    assert 0.8 < found["max"].used <= 1


def test_a_row_is_as_long_as_what_is_judged_of_it(bench):
    """Where padding leaves one element of a row, that one may be as large as is allowed."""
    mask = np.ones((8, 40), int)
    mask[0, 1:] = 0
    frozen = one(bench, GOLDEN, points={"out": {"axes": ("batch", "key")}}, padding={"key": mask})
    candidate = GOLDEN.copy()
    candidate[0, 0] += 9.9 * sigma(GOLDEN)[0, 0]
    (verdict,) = frozen.judge({"out": candidate})
    assert by_name(verdict)["max"].passed
    assert verdict.status == "pass"


BROKEN = {
    "max": (lambda z: z, 12.0),
    "rms": (lambda z: np.where(RANDOM.random(z.shape) < 0.5, -1, 1), 3.0),
    "row": (lambda z: np.where(np.arange(320).reshape(z.shape) // 40 == 5, -1, 0), 5.0),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_limit_decides_by_itself(bench, name):
    """One element, all of them, one row: each of the tests fails alone, and the status is mismatch."""
    shape, size = BROKEN[name]
    only = np.zeros(GOLDEN.shape)
    only[3, 7] = 1
    candidate = GOLDEN + size * sigma(GOLDEN) * shape(only)
    (verdict,) = one(bench, GOLDEN).judge({"out": candidate.astype(np.float32)})
    assert [test.name for test in verdict.tests if not test.passed] == [name]
    assert (verdict.status, verdict.first_divergence) == ("mismatch", True)
    assert verdict.used == by_name(verdict)[name].used > 1


@pytest.mark.parametrize(("name", "change"), [("gain", GOLDEN), ("bias", np.ones(GOLDEN.shape))])
def test_what_all_elements_share_is_seen_below_their_noise(bench, name, change):
    """A factor or an offset of half a sigma is no noise where the freeze says how far noise moves it."""
    golden = GOLDEN.astype(np.float32).astype(np.float64)
    spread = {"out": {name: {"float16": 0.02 if name == "bias" else 2.0**-11 * 0.02}}}
    frozen = one(bench, golden, {"rounding": 1.0, "accumulation": 1.0}, spread=spread)
    candidate = (golden * (1 + 0.0004 * (name == "gain")) + 0.0004 * (name == "bias")).astype(np.float16)
    (verdict,) = frozen.judge({"out": candidate}, "float16")
    found = by_name(verdict)
    assert [test.name for test in verdict.tests if not test.passed] == [name]
    assert verdict.status == "mismatch"
    value = getattr(verdict.statistics, name)
    assert found[name].value == pytest.approx(abs(value) / spread["out"][name]["float16"])
    assert name not in by_name(frozen.judge({}, "bfloat16")[0])
    assert ("scale" in [diagnosis.fault for diagnosis in verdict.diagnosis]) == (name == "gain")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_fails(bench, value):
    """NaN and infinities where the golden is finite are nonfinite, however many elements are right."""
    candidate = GOLDEN.copy()
    candidate[7, 39] = value
    (verdict,) = one(bench, GOLDEN).judge({"out": candidate})
    assert (verdict.status, verdict.statistics.worst, verdict.first_divergence) == ("nonfinite", (7, 39), True)


@pytest.mark.parametrize("value", [1e30, 1e300])
def test_an_overflow_in_a_statistic_fails(bench, value):
    """Where a statistic is NaN or infinite its test fails."""
    candidate = GOLDEN.copy()
    candidate[0, 0] = value
    spread = {"out": {"gain": {"float64": 1e-17}, "bias": {"float64": 0.1}}}
    (verdict,) = one(bench, GOLDEN, spread=spread).judge({"out": candidate}, "float64")
    assert verdict.status == "mismatch"
    assert not any(test.passed for test in verdict.tests)


# --- without noise scales --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "kind"), [({}, "rounding"), ({"rounding": 1, "accumulation": 1}, "products")])
def test_a_golden_without_noise_is_stale_under_a_row_in_sigma(bench, sizes, kind):
    """What the row counts in was not frozen: a golden problem, with the command, and no verdict on the candidate."""
    (verdict,) = one(bench, GOLDEN, sizes).judge({}, "tfloat32")
    assert verdict.status == "golden-stale"
    assert f"without the noise scale '{kind}', which tolerances.toml, [class.default] counts in" in verdict.text
    assert "run: python -m nox -s goldens -- bench" in verdict.text
    assert "rtol and atol_rms" in verdict.text


def test_a_golden_without_noise_is_judged_by_a_flat_row(bench):
    """Goldens without noise scales use rtol and atol: no tests in sigma, no signatures."""
    row = Tolerance(0.0, 1e-6, "tolerances.toml, [class.default]", "guessed")
    frozen = bench({"out": GOLDEN}, row=row, faults={"out": [Signature("f", "t", GOLDEN[0], {"float32": 0.0})]})
    (right,), (wrong,) = frozen.judge({}), frozen.judge({"out": GOLDEN + 1e-5})
    assert (right.status, wrong.status, right.tests, wrong.tests) == ("pass", "mismatch", (), ())
    assert right.used == right.statistics.used < 1 < wrong.used


# --- faults ----------------------------------------------------------------------------------------------------------


def fault(direction, error=1 / 50):
    """Return a fault that is visible under float32."""
    return Signature("fault", "it is wrong", direction.reshape(-1), {"float32": error})


def planted(bench, error=1 / 50):
    """Return a bench of three checkpoints and outputs with a fault in the second that is within tolerance."""
    direction = 2 * sigma(GOLDEN) * np.where(RANDOM.random(GOLDEN.shape) < 0.5, -1, 1)
    arrays = {"first": GOLDEN, "second": GOLDEN, "third": GOLDEN}
    frozen = bench(arrays, dict.fromkeys(arrays, scales(GOLDEN)), {"second": [fault(direction, error)]})
    return frozen, {"second": GOLDEN + direction * 0.8}


def test_a_fault_within_tolerance_is_a_fault(bench):
    """Within tolerance, but a signature fired: status fault, the first divergence, named, with the test that fired."""
    frozen, outputs = planted(bench)
    first, second, third = frozen.judge(outputs)
    assert [verdict.status for verdict in (first, second, third)] == ["pass", "fault", "pass"]
    assert [verdict.first_divergence for verdict in (first, second, third)] == [False, True, False]
    test = by_name(second)["signature"]
    assert (test.passed, test.limit) == (False, 0.5)
    assert test.value == pytest.approx(0.8, abs=0.1)
    assert second.used == test.used > 1
    assert second.statistics.mismatched == 0
    assert [diagnosis.fault for diagnosis in second.diagnosis] == ["fault"]
    assert second.diagnosis[0].text.startswith("it is wrong (strength 0.")


def test_a_right_output_says_how_near_the_nearest_fault_is(bench):
    """Where no signature fires the strength of the nearest fault is a test that passed."""
    second = planted(bench)[0].judge({})[1]
    assert second.status == "pass"
    assert by_name(second)["signature"].passed
    assert abs(by_name(second)["signature"].value) < 0.2


def test_an_invisible_fault_or_no_rule_decides_nothing(bench):
    """A fault that this contract cannot see does not fire; without [signatures] none does."""
    frozen, outputs = planted(bench, error=1 / 11)
    assert [verdict.status for verdict in frozen.judge(outputs)] == ["pass"] * 3
    frozen, outputs = planted(bench)
    assert [verdict.status for verdict in replace(frozen, rule=None).judge(outputs)] == ["pass"] * 3


def test_after_a_divergence_nobody_looks_for_faults(bench):
    """An error travels downstream: what follows the first divergence may look like any fault."""
    frozen, outputs = planted(bench)
    statuses = [verdict.status for verdict in frozen.judge(outputs | {"first": 2 * GOLDEN})]
    assert statuses == ["mismatch", "pass", "pass"]
    stopped = frozen.judge(outputs | {"third": 2 * GOLDEN}, to_first_divergence=True)
    assert [verdict.status for verdict in stopped] == ["pass", "fault"]


def test_what_cannot_be_trusted_is_not_judged(bench):
    """A golden that is blocked has the verdict that it came with, and diverges nowhere."""
    frozen, outputs = planted(bench)
    given = frozen.judge({})[1]
    stale = replace(given, status="golden-stale", tests=(), statistics=None)
    found = frozen.judge(outputs | {"third": 2 * GOLDEN}, blocked={"second": stale})
    assert [verdict.status for verdict in found] == ["pass", "golden-stale", "mismatch"]
    assert [verdict.first_divergence for verdict in found] == [False, False, True]


def test_indices_tie_within_what_is_allowed_of_their_values(bench):
    """An index that differs passes where the values tie: within the root of the sum of both allowances' squares."""
    values = np.array([[1.0, 1 + 19.9 * sigma(GOLDEN)[0, 0], 0.5], [1.0, 1 + 20.2 * sigma(GOLDEN)[0, 0], 0.5]])
    arrays = {"scores": values, "choice": np.array([1, 1])}
    points = {"choice": {"judged_by": "scores"}}
    frozen = bench(arrays, {"scores": scales(values)}, points=points)
    found = frozen.judge({"choice": np.array([0, 0])})[1]
    assert (found.status, found.statistics.mismatched, found.statistics.worst) == ("mismatch", 1, (1,))
    assert frozen.judge({"choice": np.array([0, 1])})[1].status == "pass"
    assert replace(frozen, noise={}).judge({})[1].status == "golden-stale"


# --- what tells where the first divergence does not ------------------------------------------------------------------

SCORES = np.where(RANDOM.random((8, 40)) < 0.3, -math.inf, GOLDEN)
WRONG = {name: RANDOM.uniform(0.5, 1, GOLDEN.shape) for name in ("misread", "unlike")}


def masked(bench, outputs=("out",)):
    """Return a bench of scores that may be infinite, what is made of them, and two faults that show in both."""
    names = ("scores", "middle", "out")
    return bench(
        {"scores": SCORES, "middle": GOLDEN, "out": 2 * GOLDEN},
        {name: scales(GOLDEN) for name in names},
        {
            "middle": [Signature("unlike", "unlike", WRONG["misread"].ravel() * 1.01, {})],
            "out": [Signature(name, name, direction.ravel(), {}) for name, direction in WRONG.items()],
        },
        points={"scores": {"nonfinite": True}},
        outputs=outputs,
    )


def misread(frozen):
    """Return the verdicts on a candidate with another pattern of infinities and what follows from it."""
    scores = np.where(np.isinf(SCORES), 0.5, SCORES)
    later = {"middle": GOLDEN + WRONG["misread"], "out": 2 * GOLDEN + WRONG["misread"]}
    return frozen.judge({"scores": scores} | later)


def test_a_pattern_of_infinities_is_named_by_what_follows_from_it(bench):
    """The first divergence bears the name of the fault that an output after it is, and where that was seen."""
    first, *rest = misread(masked(bench))
    assert (first.status, first.first_divergence) == ("nonfinite", True)
    assert [entry.fault for entry in first.diagnosis] == ["misread", "unlike", "fill"]
    assert first.diagnosis[0].at == "out"
    assert first.diagnosis[0].text.endswith(", by what it does to out")
    assert " finite where the golden is -inf" in first.text
    assert not any(verdict.diagnosis or verdict.first_divergence for verdict in rest)


def test_nothing_further_on_names_what_its_own_place_tells(bench):
    """A first divergence with values is named by them, though something after it looks like another fault."""
    verdicts = masked(bench).judge({"middle": GOLDEN * 1.5, "out": 2 * GOLDEN + WRONG["misread"]})
    assert [entry.fault for entry in verdicts[1].diagnosis] == ["scale"]
    assert verdicts[1].diagnosis[0].at == ""


def test_values_that_nobody_knows_are_named_by_what_follows_from_them(bench):
    """Without a name at the first divergence, that of an output after it is told there."""
    strange = RANDOM.standard_normal(GOLDEN.shape)
    verdicts = masked(bench).judge({"middle": GOLDEN + strange, "out": 2 * GOLDEN + WRONG["misread"]})
    assert [entry.fault for entry in verdicts[1].diagnosis] == ["misread"]


@pytest.mark.parametrize(
    ("described", "change"),
    [
        ("formula", lambda golden: golden + 1e-3 * np.sin(2 * golden)),
        ("factors", lambda golden: golden * np.linspace(0.5, 1.5, len(golden))[:, None]),
    ],
)
def test_what_is_described_only_is_named_by_what_follows_from_it(bench, described, change):
    """A description of the first divergence leaves open what the mistake is: an output after it may tell."""
    verdicts = masked(bench).judge({"middle": change(GOLDEN), "out": 2 * GOLDEN + WRONG["misread"]})
    assert [entry.fault for entry in verdicts[1].diagnosis][:2] == ["misread", described]


@pytest.mark.parametrize("outputs", [("middle", "out"), ()], ids=["shows in neither", "begins later"])
def test_what_leaves_the_first_divergence_unmoved_lends_it_no_name(bench, outputs):
    """At an output every fault that shows there is known, elsewhere those that begin there: another is not the answer.

    Where infinities are wrong no fault is known by its values, and one that shows later may be it.
    """
    frozen, strange = masked(bench, outputs), RANDOM.standard_normal(GOLDEN.shape)
    later = {"out": 2 * GOLDEN + WRONG["misread"]}
    assert "misread" not in [entry.fault for entry in frozen.judge({"middle": GOLDEN + strange} | later)[1].diagnosis]
    scores = np.where(np.isinf(SCORES), 0.5, SCORES)
    assert "misread" in [entry.fault for entry in frozen.judge({"scores": scores} | later)[0].diagnosis]


def shared(bench):
    """Return a bench of three outputs with one golden, in each of which a fault shows, and what it makes of it."""
    names = ("first", "middle", "last")
    known = [Signature("misread", "misread", WRONG["misread"].ravel(), {"float32": 1e-9})]
    signatures = dict.fromkeys(names, known)
    frozen = bench(dict.fromkeys(names, GOLDEN), dict.fromkeys(names, scales(GOLDEN)), signatures, outputs=names)
    return frozen, GOLDEN + WRONG["misread"]


@pytest.mark.parametrize(("wrong", "passed"), [("first", "middle"), ("last", "first")], ids=["after it", "before it"])
def test_a_name_is_in_doubt_where_what_it_changes_too_passed(bench, wrong, passed):
    """A fault that another output would show, and does not, is told with that, wherever that output stands."""
    frozen, misread = shared(bench)
    (verdict,) = (verdict for verdict in frozen.judge({wrong: misread}) if verdict.first_divergence)
    assert [(entry.fault, entry.spared) for entry in verdict.diagnosis] == [("misread", passed)]
    assert verdict.diagnosis[0].text.endswith(f", though {passed}, which it changes too, passed")


def test_a_name_is_in_no_doubt_where_the_rest_is_wrong_or_does_not_show_it(bench):
    """What is wrong otherwise says nothing against a name, and what cannot see a fault neither."""
    frozen, misread = shared(bench)
    others = {"middle": 3 * GOLDEN, "last": 3 * GOLDEN}
    assert [entry.spared for entry in frozen.judge({"first": misread} | others)[0].diagnosis] == [""]
    blind, outputs = masked(bench), {"middle": GOLDEN + WRONG["misread"]}
    assert [(entry.fault, entry.spared) for entry in blind.judge(outputs)[1].diagnosis] == [("unlike", "")]


def test_up_to_the_first_divergence_the_same_is_said_of_it(bench):
    """What is asked for the first divergence alone gets the same verdict on it."""
    frozen = masked(bench)
    scores = {"scores": np.zeros(GOLDEN.shape), "out": 2 * GOLDEN + WRONG["misread"]}
    whole, short = frozen.judge(scores), frozen.judge(scores, to_first_divergence=True)
    assert len(short) == 1
    assert short[0] == whole[0]
    assert short[0].diagnosis[0].fault == "misread"


def test_nan_is_told_by_its_places_alone(bench):
    """NaN tells where it stands; what follows from it tells nothing."""
    first, *_ = masked(bench).judge({name: np.full(GOLDEN.shape, math.nan) for name in ("scores", "middle", "out")})
    assert first.status == "nonfinite"
    assert [(entry.fault, entry.text) for entry in first.diagnosis] == [("nan", "NaN everywhere")]
    assert "NaN where the golden is finite" in first.text


def test_what_is_finite_on_both_sides_is_told_beside_the_pattern(bench):
    """A mask that is filled with a number, and all that it keeps moved: both are said."""
    scores = np.where(np.isinf(SCORES), -1e8, SCORES - 100)
    first, *_ = masked(bench).judge({"scores": scores})
    assert first.status == "nonfinite"
    assert [entry.fault for entry in first.diagnosis] == ["fill", "offset"]
    assert first.diagnosis[1].text.startswith("what is finite on both sides equals the golden + -100")
    right = np.where(np.isinf(SCORES), -1e8, SCORES)
    assert [entry.fault for entry in masked(bench).judge({"scores": right})[0].diagnosis] == ["fill"]
