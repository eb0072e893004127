"""karat.signatures: a planted fault is found in the noise and named; noise alone is no fault, over many draws."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from karat.signatures import Signature, clear_of_zero, found_in_mismatch, found_in_noise, strength
from karat.tolerances import SignatureRule

approx: Any = pytest.approx
RULE = SignatureRule(strength=0.5, visible=12.0, explained=0.75, reason="tried")
RANDOM = np.random.Generator(np.random.Philox(key=51))
N = 400
SIGMA = 10.0 ** RANDOM.uniform(-6, 0, N)
VARIANCES = SIGMA**2
START = RANDOM.bit_generator.state


@pytest.fixture(autouse=True)
def same_draws():
    """Draw the same in each test, whichever ran before it in this process."""
    RANDOM.bit_generator.state = START


def noise():
    """Return the error of a correct candidate."""
    return SIGMA * RANDOM.standard_normal(N)


def signature(name, signal, direction=None, *, claimed=None):
    """Return a fault whose direction is `signal` standard deviations of the noise along it."""
    shape = SIGMA * RANDOM.standard_normal(N) if direction is None else direction
    unit = math.sqrt(float(shape**2 @ (1 / VARIANCES)))
    return Signature(name, f"{name} is wrong", shape * signal / unit, {"mine": 1 / (claimed or signal)})


def orthogonal(direction):
    """Return an error of which nothing lies along a direction."""
    other = noise()
    return other - strength(other, direction, VARIANCES) * direction


def names(diagnoses):
    """Return the faults that were found."""
    return [diagnosis.fault for diagnosis in diagnoses]


def in_noise(error, signatures, rule=RULE):
    """Look for faults in an error within tolerance."""
    return found_in_noise(error, VARIANCES, signatures, "mine", rule)


def in_mismatch(error, signatures, rule=RULE):
    """Return the names of faults that explain an error beyond tolerance."""
    return names(found_in_mismatch(error, VARIANCES, signatures, "mine", rule))


def test_the_strength_is_the_weighted_least_squares_fit():
    """alpha = sum(e d / sigma^2) / sum(d^2 / sigma^2): the strength of what was planted, 0 without a direction."""
    direction = RANDOM.standard_normal(N)
    error = 0.7 * direction + noise()
    weights = 1 / SIGMA
    fit = np.linalg.lstsq((direction * weights)[:, None], error * weights, rcond=None)[0].item()
    assert strength(error, direction, VARIANCES) == approx(fit, rel=1e-12)
    assert strength(-2 * direction, direction, VARIANCES) == approx(-2)
    assert strength(error, np.zeros(N), VARIANCES) == strength(np.zeros(0), np.zeros(0), np.zeros(0)) == 0


@pytest.mark.parametrize("signal", [12, 20, 100])
def test_a_planted_fault_is_found_and_named(signal):
    """A fault that stands 12 standard deviations out of the noise is found at every draw, with its strength."""
    fault = signature("fault", signal)
    for _ in range(500):
        largest, (found,) = in_noise(noise() + fault.direction, [fault])
        assert largest == approx(1, abs=5 / signal)
        assert abs(found.strength - 1) < max(5 / signal, 0.1)
        assert found.fault == "fault"
        assert 1 / signal <= found.uncertainty == approx(1 / signal, rel=0.3)
        assert found.text.startswith(f"fault is wrong (strength {found.strength:.2f} ± ")


@pytest.mark.parametrize("signal", [12, 20, 100])
def test_noise_alone_is_no_fault(signal):
    """A correct candidate is never called faulty: 20 faults, 500 draws of noise."""
    faults = [signature(f"fault-{n}", signal) for n in range(20)]
    largest = [in_noise(noise(), faults) for _ in range(500)]
    assert all(found == [] for _, found in largest)
    assert max(value for value, _ in largest) < 0.5
    assert max(value for value, _ in largest) > 2 / signal  # the test is one: noise does have some strength


def test_a_fault_is_found_by_more_than_half_of_it():
    """It fires above the strength that the rule says, and not at it; the other sign is no such fault."""
    fault = signature("fault", 30)
    for part, fires in ((0.499, False), (0.501, True), (1.9, True), (40.0, True), (-1.0, False)):
        largest, found = in_noise(part * fault.direction, [fault])
        assert (names(found) == ["fault"]) == fires, part
        assert largest == approx(part)


def test_similar_faults_are_told_apart():
    """Of two faults that are 95 % alike the one that was planted is named first, though both have a strength."""
    first = signature("first", 60)
    aside = signature("aside", 60, orthogonal(first.direction))
    second = signature("second", 60, 0.95 * first.direction + math.sqrt(1 - 0.95**2) * aside.direction)
    for planted, order in ((first, [first, second]), (second, [second, first]), (first, [second, first])):
        for _ in range(100):
            error = noise() + planted.direction
            assert names(in_noise(error, order)[1])[0] == planted.fault
            assert in_mismatch(error, order)[0] == planted.fault


def test_what_is_invisible_never_fires():
    """A fault that does not stand out of the noise decides nothing, though it were there or the noise like it."""
    hidden = signature("hidden", 11.9)
    assert not hidden.visible("mine", RULE)
    assert in_noise(noise() + hidden.direction, [hidden]) == (0.0, [])
    faint = [signature(f"faint-{n}", 0.5) for n in range(20)]
    assert all(in_noise(noise(), faint) == (0.0, []) for _ in range(200))
    assert in_noise(noise(), []) == (0.0, [])


def test_visibility_is_that_of_the_contract():
    """A fault is visible where the noise along its direction is known and small enough: its ratio decides."""
    fault = Signature("fault", "", SIGMA, {"mine": 1 / 12, "loose": 1 / 11, "none": math.inf})
    assert fault.visible("mine", RULE)
    assert not fault.visible("loose", RULE)
    assert not fault.visible("none", RULE)
    assert not fault.visible("another", RULE)
    assert not fault.visible("mine", replace(RULE, visible=13.0))


# --- in a mismatch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [50, 1e3, 1e6])
def test_a_fault_explains_the_mismatch_that_it_made(signal):
    """What is left without its direction is little: it is named, and unrelated faults are not."""
    faults = [signature(f"fault-{n}", signal) for n in range(5)]
    for _ in range(50):
        assert in_mismatch(noise() + faults[3].direction, faults) == ["fault-3"]


def test_a_mismatch_that_no_fault_explains_is_not_named():
    """An unrelated error, the other sign, a small part and a large multiple of a fault are not that fault."""
    fault = signature("fault", 1e3)
    others = [1e3 * orthogonal(fault.direction), -fault.direction, 0.4 * fault.direction, 3 * fault.direction]
    for error in others:
        assert in_mismatch(noise() + error, [fault]) == []


def test_a_fault_must_explain_the_part_that_the_rule_says():
    """Where half of what is wrong is something else, half is explained: enough where less is asked for, else not."""
    first = np.arange(N) < N // 2
    fault = signature("fault", 1e4, SIGMA * first, claimed=1.0)  # not visible: only what it explains counts
    error = fault.direction + 1e3 * SIGMA * ~first
    assert in_mismatch(error, [fault]) == in_mismatch(error, [fault], replace(RULE, explained=0.55)) == []
    assert in_mismatch(error, [fault], replace(RULE, explained=0.45)) == ["fault"]
    assert in_mismatch(fault.direction, [fault], replace(RULE, explained=1.0)) == ["fault"]


def test_a_visible_fault_is_named_beside_a_larger_error():
    """A fault that stands out with just the strength that it has is named, though half is wrong by something else."""
    fault = signature("fault", 1e3, RANDOM.standard_normal(N) * SIGMA)
    beside = 40 * noise() * (np.arange(N) < N // 2)
    beside -= strength(beside, fault.direction, VARIANCES) * fault.direction
    assert in_mismatch(beside + fault.direction, [fault]) == ["fault"]
    assert in_mismatch(beside + fault.direction, [replace(fault, errors={})]) == []
    assert in_mismatch(beside + 1.3 * fault.direction, [fault]) == []


def test_a_frozen_direction_names_its_fault_though_it_is_coarse():
    """A direction in codes of one byte is off by up to 6 %, which is many sigma of a large fault."""
    fault = signature("fault", 1e6)
    coarse = replace(fault, direction=fault.direction * RANDOM.uniform(0.94, 1.06, N))
    assert in_mismatch(noise() + fault.direction, [signature("other", 1e6), coarse]) == ["fault"]


def test_what_does_not_fit_is_not_named_beside_what_does():
    """Where one fault is there in its full strength, another of 1.74 times its own strength is not."""
    fault = signature("fault", 1e6)
    half = replace(signature("half", 1e6), direction=fault.direction / 1.74)
    assert in_mismatch(fault.direction, [half]) == ["half"]  # nothing better is known
    assert in_mismatch(fault.direction, [half, fault]) == ["fault"]


def test_names_that_fit_as_well_are_all_told_and_no_more_than_three():
    """Faults that do the same in this case cannot be told apart; a list of many is no name."""
    fault = signature("fault", 1e3)
    same = [replace(fault, fault=f"same-{n}") for n in range(5)]
    assert in_mismatch(fault.direction + noise(), [fault, same[0]]) == ["fault", "same-0"]
    assert in_mismatch(fault.direction, [fault, *same]) == ["fault", "same-0", "same-1"]
    near = replace(fault, fault="near", direction=fault.direction + 0.1 * signature("aside", 1e3).direction)
    assert in_mismatch(fault.direction, [near]) == ["near"]
    assert in_mismatch(fault.direction, [near, fault]) == ["fault"]


def test_a_strength_is_as_certain_as_what_else_is_wrong_lets_it_be():
    """The standard error of a strength counts all that the fault leaves over, not only noise."""
    fault = signature("fault", 1e6)
    (alone,) = found_in_mismatch(fault.direction + noise(), VARIANCES, [fault], "mine", RULE)
    assert alone.uncertainty < 1e-3
    assert "± 0.005," in alone.text  # no more digits than a direction in codes of one byte can give
    beside = fault.direction * (1 + 0.2 * RANDOM.standard_normal(N))
    (found,) = found_in_mismatch(beside, VARIANCES, [fault], "mine", RULE)
    assert 0.2 / math.sqrt(N) / 2 < found.uncertainty < 0.2
    assert alone.explained > 0.999
    assert 0.75 <= found.explained < 0.99


def test_a_few_elements_that_decide_all_are_no_certainty():
    """A direction that is one element almost alone fits any error there, and is not named for that."""
    lone = np.where(np.arange(N) == 7, 1e6, 1e-3) * SIGMA
    fault = Signature("lone", "", lone, {"mine": 1e-6})
    error = 1e6 * noise()
    error[7] = lone[7]
    assert in_mismatch(error, [fault]) == []


# --- zeros -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [1.0, 1e-30, 6e-91, 1e90])
def test_exact_zeros_decide_without_overflow(largest):
    """Where nothing may be (no variance) anything decides, and no weight overflows; a warning here is an error."""
    variances = largest * VARIANCES.copy()
    variances[::3] = 0
    direction = np.where(variances == 0, 1e-3, 0) * math.sqrt(largest)
    leak = Signature("leak", "the mask is missing", direction, {"mine": 0.0})
    other = Signature("other", "", direction * np.where(np.arange(N) % 6, 1, -0.9), {"mine": 0.0})
    error = math.sqrt(largest) * noise() * (variances > 0)
    assert found_in_noise(error, variances, [leak], "mine", RULE) == (approx(0, abs=1e-9), [])
    value, found = found_in_noise(error + direction, variances, [other, leak], "mine", RULE)
    assert value == approx(1, rel=1e-9)
    assert names(found)[0] == "leak"
    assert names(found_in_mismatch(error + direction, variances, [leak], "mine", RULE)) == ["leak"]


def test_variances_are_cleared_of_zero_and_no_others():
    """The smallest variance is 60 decades below the largest; where all are 0 each counts the same."""
    assert clear_of_zero(np.array([4.0, 0.0, 1e-59, 1e-70])).tolist() == [4.0, 4e-60, 1e-59, 4e-60]
    assert clear_of_zero(np.zeros(3)).tolist() == [1.0, 1.0, 1.0]
    assert clear_of_zero(np.zeros(0)).shape == (0,)


def test_an_empty_checkpoint_has_no_faults():
    """Where nothing is judged nothing is found."""
    empty = Signature("empty", "", np.zeros(0), {"mine": 0.0})
    assert found_in_noise(np.zeros(0), np.zeros(0), [empty], "mine", RULE) == (0.0, [])
    assert found_in_mismatch(np.zeros(0), np.zeros(0), [empty], "mine", RULE) == []


@pytest.mark.parametrize("size", [1e-200, 1e200, 1e300])
def test_a_fault_beyond_the_squares_of_float64_is_named(size):
    """A direction whose squares overflow or vanish is fitted as any other; a warning here is an error."""
    direction = size * RANDOM.uniform(0.5, 1, N)
    known = [Signature("huge", "huge is wrong", direction, {"mine": 1e-9 if size > 1 else 1e9}), signature("small", 40)]
    assert in_mismatch(direction * 1.001, known) == (["huge"] if size > 1 else [])
    assert strength(direction, direction, VARIANCES) == approx(1.0)
    assert in_noise(noise() + known[1].direction, known)[0] == approx(1.0, abs=0.2)
