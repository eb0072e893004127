"""karat.places: a mistake that is confined to a part of an axis is placed there, and what it is there is told."""

import numpy as np

from karat.hypotheses import diagnose
from karat.questions import Question

AXES = ("batch", "head", "query", "channel")
SHAPE = (2, 3, 5, 4)
RANDOM = np.random.Generator(np.random.Philox(key=9))
GOLDEN = RANDOM.standard_normal(SHAPE)
OTHER = RANDOM.standard_normal(SHAPE)


def told(candidate, golden=GOLDEN, axes=AXES, other=OTHER):
    """Return what is told of a candidate, beside whose golden the case has another one."""
    question = Question(
        candidate, golden, np.ones(golden.shape, bool), 1e-9, 1e-9, axes, {"h.0.other": other}, "float64"
    )
    return [diagnosis.text for diagnosis in diagnose(question)]


def with_part(index, value):
    """Return the golden with a part replaced."""
    candidate = GOLDEN.copy()
    candidate[index] = value
    return candidate


def test_a_mistake_in_a_part_is_placed():
    """A mistake that is confined to a part of an axis is placed there, along every axis that confines it."""
    assert told(with_part((1, slice(None), slice(1, 3)), 9.0)) == [
        "wrong only at batch 1 (of 0–1)",
        "wrong only at query 1–2 (of 0–4)",
    ]


def test_what_a_part_is_is_told_with_its_place():
    """One head with another scale, one query that was never written anew: the place, and what it is there."""
    for key, change, text in (
        ((slice(None), 1), GOLDEN[:, 1] * 1.1, "wrong only at head 1 (of 0–2), where it equals the golden × 1.1 ± "),
        (
            (..., 4, slice(None)),
            OTHER[:, :, 4],
            "wrong only at query 4 (of 0–4), where it equals the golden of h",
        ),
    ):
        (said,) = told(with_part(key, change))
        assert said.startswith(text)


def test_what_is_right_is_placed_where_it_is_less():
    """Where most is wrong, the part that is right is named."""
    assert told(with_part((slice(None), slice(None), slice(1, None)), 9.0)) == ["right at query 0 (of 0–4)"]


def test_a_part_of_a_few_elements_is_only_placed():
    """Some other golden may be the same at one element by chance."""
    golden, other = RANDOM.standard_normal((2, 30))
    candidate = np.where(np.arange(30) == 7, other, golden)
    assert told(candidate, golden, ("channel",), other) == ["wrong only at channel 7 (of 0–29)"]


def test_scattered_errors_are_in_no_part():
    """Single wrong elements here and there leave slices without any by chance, and are placed nowhere."""
    golden = RANDOM.standard_normal((7, 29))
    candidate = golden.copy()
    candidate[[1, 3, 5], [4, 20, 9]] = 9.0
    assert told(candidate, golden, ("token", "channel")) == []
    candidate = golden.copy()
    candidate[:, :3] = 9.0
    assert told(candidate, golden, ("token", "channel")) == ["wrong only at channel 0–2 (of 0–28)"]


def test_some_slices_that_are_right_by_chance_are_not_told():
    """Of errors that are everywhere, two right rows in the middle say nothing; one right row at an end does."""
    golden = RANDOM.standard_normal((20, 30))
    for right, said in (([7, 12], []), ([0], ["right at token 0 (of 0–19)"])):
        candidate = golden + RANDOM.standard_normal(golden.shape)
        candidate[right] = golden[right]
        assert told(candidate, golden, ("token", "channel")) == said
