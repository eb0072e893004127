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


def test_nothing_is_said_of_another_pattern_nor_without_infinities():
    """No explanation is better than a wrong one."""
    pattern = DROPPED.copy()
    pattern[0, 0, 0] = ~pattern[0, 0, 0]
    assert found(pattern) == []
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


NUMBERS = RANDOM.standard_normal((3, 6, 5))


def of_nan(wrong, golden=NUMBERS, judged=None):
    """Return what is said of a candidate that is NaN where `wrong` is True and right elsewhere."""
    judged = np.ones(golden.shape, bool) if judged is None else judged
    entries = explain_pattern(np.where(wrong, math.nan, golden), golden, judged, AXES)
    assert {entry.fault for entry in entries} <= {"nan"}
    return [entry.text for entry in entries]


def at(*index):
    """Return True at some places of the numbers."""
    wrong = np.zeros(NUMBERS.shape, bool)
    wrong[index] = True
    return wrong


def test_nan_everywhere_is_told():
    """A whole output of NaN has one cause."""
    assert of_nan(at(...)) == ["NaN everywhere"]


def test_nan_where_nothing_is_seen_is_told():
    """0 / 0 stands where the golden is 0, ∞ - ∞ where it is infinite."""
    empty = NUMBERS.copy()
    empty[:, 2] = 0
    assert of_nan(at(slice(None), 2), empty) == [
        "NaN just where the golden is 0: as of 0 / 0, where what is divided by has nothing to sum"
    ]
    ((text),) = of_nan(DROPPED, GOLDEN)
    assert text.startswith("NaN just where the golden is infinite: as of ∞ - ∞")


def test_slices_of_nan_are_told_by_their_place():
    """A row, or all rows of a head, with the number of them and the first."""
    assert of_nan(at(1, 4)) == [
        "NaN along all of key at 1 of 18 places of head and query, first head 1, query 4; no other"
    ]
    assert of_nan(at(1)) == ["NaN along all of query and key at 1 of 3 places of head, first head 1; no other"]
    assert of_nan(at(slice(None), slice(None), 3)) == [
        "NaN along all of head and query at 1 of 5 places of key, first key 3; no other"
    ]


def test_what_is_carried_along_is_told():
    """A state that is NaN once stays so."""
    wrong = at(0, slice(2, None), 1) | at(2, slice(4, None), 3)
    assert of_nan(wrong) == ["once NaN, NaN for all that comes after along query, first at query 2"]


def test_of_nan_here_and_there_nothing_is_said():
    """Nor of what is not judged, nor where the golden is NaN too."""
    assert of_nan(at(0, 1, 1) | at(1, 2, 3) | at(1, 4, 0)) == []
    unjudged = ~at(1, 2)
    assert of_nan(at(1, 2), judged=unjudged) == []
    golden = np.where(at(1, 2), math.nan, NUMBERS)
    assert of_nan(at(1, 2), golden) == []
