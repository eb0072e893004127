"""generators/_operation.py: a generator that states its reference and its relations has all that a freeze asks."""

from pathlib import Path

import numpy as np
import pytest

from karat import Case, Checkpoint, Literal, Suite
from karat.errors import FreezeError
from karat.suites import find_repository, load_by_path

torch = pytest.importorskip("torch")
operation = load_by_path(find_repository(Path(__file__).parent).root / "generators" / "_operation.py")

TABLE = np.array([[3, 1], [2, 5]], np.float32)
INPUTS = {"weights/table": TABLE, "mask": np.array([True, False]), "counts": np.array([1, 2], np.int64)}
POINTS = (Checkpoint("scaled", (2, 2)), Checkpoint("largest", (2,), dtype="integer"), Checkpoint("is_kept", (2,)))
CASE = Case("small", {name: Literal((1.0,), "float32") for name in INPUTS}, {"gain": 0.1}, POINTS)
SUITE = Suite("mine", "about", ("float32",), (CASE,))


def mine(weights, mask, counts, *, gain):
    """Return three checkpoints; `torch.tensor(gain)` and `.float()` would be float32 where nobody took care."""
    scaled = weights["table"].float() * torch.tensor(gain) * counts.to(torch.float32)
    return {"scaled": scaled, "largest": scaled.argmax(-1), "is_kept": mask}


def generator(relations, formula=mine):
    """Return the generator of `formula` with `relations`."""
    return operation.generator(__file__, formula, relations)


def checks(**relations):
    """Return the lines of a freeze of the case."""
    made = generator({name.replace("_", " "): relation for name, relation in relations.items()})
    return made.checks(SUITE, {"small": made.reference(CASE, INPUTS)}, lambda _: INPUTS)


def test_a_reference_is_float64_all_the_way():
    """Inputs come as tensors, mappings nested, and neither casts nor numbers in the formula lose digits."""
    found = generator({}).reference(CASE, INPUTS)
    assert {name: array.dtype.name for name, array in found.items()} == {
        "scaled": "float64",
        "largest": "int64",
        "is_kept": "bool",
    }
    assert np.array_equal(found["scaled"], TABLE.astype(np.float64) * 0.1 * [1, 2])
    assert torch.get_default_dtype() == torch.float32


def test_one_checkpoint_may_come_as_it_is():
    """A formula that returns a tensor computes the case's first checkpoint."""
    found = generator({}, lambda **given: given["weights"]["table"] * 2).reference(CASE, INPUTS)
    assert np.array_equal(found["scaled"], 2 * TABLE)


def test_inputs_are_not_written():
    """A formula that works in place leaves the inputs as they are."""
    before = TABLE.copy()
    generator({}, lambda **given: given["weights"]["table"].zero_()).reference(CASE, INPUTS)
    assert np.array_equal(before, TABLE)


def test_a_replay_perturbs_what_is_rounded():
    """Floats get noise of the size of NOISE_STEP, the same for the same seed; integers and masks none."""
    made = generator({})
    exact, first, again, other = (
        made.reference(CASE, INPUTS),
        *(made.perturbed(CASE, INPUTS, "rounding", seed) for seed in (1, 1, 2)),
    )
    relative = np.abs(first["scaled"] / exact["scaled"] - 1) / made.NOISE_STEP
    assert 0 < relative.max() < 2
    assert np.array_equal(first["scaled"], again["scaled"])
    assert not np.array_equal(first["scaled"], other["scaled"])
    assert np.array_equal(first["largest"], exact["largest"])


def test_relations_that_hold_are_listed():
    """Each relation has a line, with how much of what is allowed is used; None says nothing of a case."""
    lines = checks(
        to_a_tenth=lambda given, golden: (golden["scaled"], given["gain"] * given["weights/table"] * [1, 2.05], 0.1),
        exactly=lambda _, golden: (golden["largest"], [0, 1]),
        masks=lambda given, golden: (golden["is_kept"], given["mask"]),
        not_a_number=lambda *_: (np.array([np.nan, np.inf]), [np.nan, np.inf]),
    )
    assert lines == ["to a tenth (0.2 of that)", "exactly", "masks", "not a number"]


WRONG = {
    "an integer": (lambda _, g: (g["largest"], [0, 0]), r"1\) at \(1,\), wanted .*0\), allowed 0 apart"),
    "large integers": (lambda *_: (np.array([2**60 + 1]), np.array([2**60])), "allowed 0 apart"),
    "a mask": (lambda _, g: (g["is_kept"], True), r"at \(1,\), wanted"),
    "too far": (lambda *_: (np.array([[1.0, 2.0]]), [1, 2.5], 0.4), r"2.0\) at \(0, 1\), wanted .*2.5\), allowed 0.4"),
    "NaN": (lambda *_: (np.array([1.0, np.nan]), 1, 9), r"nan\) at \(1,\)"),
    "an infinity": (lambda *_: (np.array([np.inf, 1.0]), [-np.inf, 1], 9), r"inf\) at \(0,\)"),
    "NaN wanted": (lambda *_: (np.array([1.0]), np.nan, 9), r"wanted .*nan"),
    "no element": (lambda *_: (np.zeros(0), 0), "no case shows it"),
    "no case": (lambda *_: None, "no case shows it"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_relation_that_does_not_hold_is_named(wrong):
    """A relation that fails, or that no case shows, stops the freeze, with what it says and where."""
    relation, message = WRONG[wrong]
    with pytest.raises(FreezeError, match=rf"mine(/small)?: it is so: .*{message}"):
        checks(it_is_so=relation)
