"""karat.patterns: a mask that is misread is told by where it left infinities."""

import math

import numpy as np
import pytest

from karat.patterns import explain_pattern, kinds_text

AXES = ("head", "query", "key")
RANDOM = np.random.Generator(np.random.Philox(key=91))
DROPPED = RANDOM.random((3, 6, 6)) < 0.4
GOLDEN = np.where(DROPPED, -math.inf, RANDOM.standard_normal(DROPPED.shape))
EVERYWHERE = np.ones(GOLDEN.shape, bool)


def found(pattern, judged=EVERYWHERE):
    """Return what is said of finite numbers with -inf where `pattern` is True."""
    candidate = np.where(pattern, -math.inf, 0.25)
    return [(entry.fault, entry.text) for entry in explain_pattern(candidate, GOLDEN, judged, AXES)]


def test_what_drops_taken_for_what_keeps_is_told():
    """A mask of the other polarity."""
    ((name, text),) = found(~DROPPED)
    assert name == "polarity"
    assert "what drops is taken for what keeps" in text


@pytest.mark.parametrize(
    ("name", "text", "pattern"),
    [
        ("axes", "query and key exchanged", DROPPED.swapaxes(1, 2)),
        ("order", "head in reverse order", DROPPED[::-1]),
        ("order", "key in reverse order", DROPPED[..., ::-1]),
        ("shift", "key shifted by 1", DROPPED[..., [0, 0, 1, 2, 3, 4]]),
        ("shift", "query shifted by -1", DROPPED[:, [1, 2, 3, 4, 5, 5]]),
    ],
)
def test_the_same_places_elsewhere_are_told(name, text, pattern):
    """A mask of the wrong axes, in the wrong order, off by one."""
    assert found(pattern) == [(name, f"infinite where the golden would be with {text}")]


def explained(candidate):
    """Return what is said of a candidate."""
    return [(entry.fault, entry.text) for entry in explain_pattern(candidate, GOLDEN, EVERYWHERE, AXES)]


def test_the_number_that_fills_is_told():
    """A number far below all others stands for an infinity, one of their size does not: it is told as it is."""
    assert explained(np.where(DROPPED, -1e9, GOLDEN)) == [
        ("fill", "the right places, filled with -1e+09 instead of -inf")
    ]
    added = np.where(DROPPED, -1e4 + RANDOM.standard_normal(DROPPED.shape), GOLDEN)
    ((name, text),) = explained(added)
    assert name == "fill"
    assert text.startswith("the right places, filled with numbers from -1000")
    assert explained(np.where(DROPPED, -10.0, GOLDEN)) == [("fill", "filled with -10 instead of -inf")]


def test_a_mask_that_was_left_out_is_told():
    """Where scores stand in the places of the golden's infinities."""
    ((name, text),) = explained(np.where(DROPPED, RANDOM.standard_normal(DROPPED.shape), GOLDEN))
    assert name == "unmasked"
    assert text.startswith("nothing is -inf: in its places stand numbers from -")


def test_the_wrong_places_filled_with_a_number_are_told_both():
    """A mask of the other polarity that is filled with -1e9."""
    ((name, text),) = explained(np.where(DROPPED, GOLDEN.max(), -1e9))
    assert name == "polarity"
    assert text.endswith("what drops is taken for what keeps, filled with -1e+09 instead of -inf")


def test_only_what_is_judged_counts():
    """Padding may hold anything."""
    judged = EVERYWHERE.copy()
    judged[1] = False
    pattern = DROPPED.swapaxes(1, 2).copy()
    pattern[1] = RANDOM.random((6, 6)) < 0.5
    assert [name for name, _ in found(pattern, judged)] == ["axes"]
    assert found(pattern) == []


def test_nothing_is_said_of_another_pattern_nor_of_nan_nor_without_infinities():
    """No explanation is better than a wrong one."""
    pattern = DROPPED.copy()
    pattern[0, 0, 0] = ~pattern[0, 0, 0]
    assert found(pattern) == []
    nan = np.where(DROPPED, math.nan, GOLDEN)
    assert explain_pattern(nan, GOLDEN, EVERYWHERE, AXES) == []
    assert explain_pattern(GOLDEN, np.zeros(GOLDEN.shape), EVERYWHERE, AXES) == []
    assert explain_pattern(GOLDEN, GOLDEN, np.zeros(GOLDEN.shape, bool), AXES) == []


def test_kinds_are_counted_the_most_frequent_first():
    """What stands where the golden has something else."""
    golden = np.array([0.0, -math.inf, -math.inf, 1.0, math.inf, 2.0])
    candidate = np.array([math.nan, 0.5, 0.25, -math.inf, math.inf, math.nan])
    judged = np.array([True] * 5 + [False])
    text = "2 finite where the golden is -inf; 1 NaN where the golden is finite; 1 -inf where the golden is finite"
    assert kinds_text(candidate, golden, judged) == text
    assert kinds_text(golden, golden, judged) == ""
