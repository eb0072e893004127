"""karat.suites: a declaration that contradicts itself fails by name; what is kept and judged is what it says."""

import numpy as np
import pytest

from karat.errors import UsageError
from karat.inputs import Literal
from karat.suites import Case, Checkpoint, Suite

OUT = Checkpoint("out", (2, 3))
JUDGED_IDS = Checkpoint("ids", (2,), dtype="integer", judged_by="logits")
FOLLOWER = Checkpoint("step", (2,), follows="tokens")


def case(name="small", checkpoints=(OUT,), inputs=("mask",), **fields):
    """Return a case with these checkpoints and inputs of these names."""
    return Case(name, {name: Literal((0, 1)) for name in inputs}, {}, tuple(checkpoints), **fields)


def suite(name="demo", cases=None, contracts=("float32",)):
    """Return a suite with these cases, by default one."""
    return Suite(name, "about", contracts, (case(),) if cases is None else tuple(cases))


CONTRADICTIONS = {
    "checkpoint name": (lambda: Checkpoint("h/0", (2,)), "checkpoint 'h/0': a name is of a-z, 0-9"),
    "checkpoint without a name": (lambda: Checkpoint("", (2,)), "checkpoint '': a name"),
    "checkpoint in capitals": (lambda: Checkpoint("Out", (2,)), "checkpoint 'Out': a name"),
    "axes": (lambda: Checkpoint("out", (2, 3), ("batch",)), r"out: 1 axes for the shape \(2, 3\)"),
    "dtype": (
        lambda: Checkpoint("out", (2,), dtype="float32"),
        "out: dtype 'float32' is not storage, accumulation, integer or bool",
    ),
    "keep": (lambda: Checkpoint("out", (2,), ("row",), keep={"key": (0, 1)}), r"out: keep speaks of axes.*\['key'\]"),
    "keep without axes": (
        lambda: Checkpoint("out", (2,), keep={"row": (0, 1)}),
        r"out: keep speaks of axes.*\['row'\]",
    ),
    "judged_by": (lambda: Checkpoint("out", (2,), judged_by="logits"), "out: only an integer checkpoint can be judged"),
    "case name": (lambda: case("a b"), "case 'a b': a name is of a-z, 0-9"),
    "case without checkpoints": (lambda: case(checkpoints=()), "case small: no checkpoint"),
    "checkpoint twice": (lambda: case(checkpoints=(OUT, OUT)), r"case small: checkpoints named twice: \['out'\]"),
    "unknown judge": (lambda: case(checkpoints=(JUDGED_IDS,)), "small/ids: depends on logits, which is no checkpoint"),
    "unknown leader": (
        lambda: case(checkpoints=(OUT, FOLLOWER)),
        "small/step: depends on tokens, which is no checkpoint",
    ),
    "an axis twice": (lambda: Checkpoint("out", (2, 3), ("row", "row")), r"out: axes \('row', 'row'\)"),
    "negative length": (lambda: Checkpoint("out", (-2,)), r"out: axes \(\) of lengths \(-2,\)"),
    "nothing kept": (
        lambda: Checkpoint("out", (2,), ("row",), keep={"row": (2, 4)}),
        r"out: keep .* leaves nothing of the shape \(2,\)",
    ),
    "sequential without a judge": (
        lambda: Checkpoint("out", (2,), dtype="integer", sequential=True),
        "out: sequential choices need the checkpoint that judges them",
    ),
    "a judge of integers": (
        lambda: case(checkpoints=(Checkpoint("logits", (2,), dtype="integer"), JUDGED_IDS)),
        "small/ids: judged by logits, which holds no floats",
    ),
    "a leader that is not sequential": (
        lambda: case(checkpoints=(Checkpoint("tokens", (2,)), FOLLOWER)),
        "small/step: follows tokens, which is not sequential",
    ),
    "padding without an input": (
        lambda: case(padding={"query": "absent"}),
        "case small: padding is said by 'absent', which is no input",
    ),
    "an input and a mapping of one name": (
        lambda: case(inputs=("weights/a", "weights")),
        "case small: 'weights/a' and 'weights' are both inputs",
    ),
    "suite name": (lambda: suite("my-suite"), "suite 'my-suite': a name is an identifier"),
    "suite of no weights": (lambda: suite("gpt2@"), "suite 'gpt2@': a name is an identifier"),
    "case twice": (lambda: suite(cases=(case(), case())), r"suite demo: cases named twice: \['small'\]"),
    "suite without cases": (lambda: suite(cases=()), "suite demo: needs at least one case and one contract"),
    "suite without contracts": (lambda: suite(contracts=()), "suite demo: needs at least one case and one contract"),
}


@pytest.mark.parametrize(("declare", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_declaration_that_contradicts_itself_fails_by_name(declare, message):
    """A contract is checked when it is written down: what contradicts itself is a ValueError with its name."""
    with pytest.raises(ValueError, match=message):
        declare()


@pytest.mark.parametrize("name", ["h.0.attention_scores", "0", "a-b_c.d", "tokens.t0.5"])
def test_names_that_the_contracts_use_are_names(name):
    """A name is of a-z, 0-9, '.', '_' and '-'."""
    assert Checkpoint(name, (), dtype="bool").name == case(name).name == name


@pytest.mark.parametrize(("name", "function"), [("gpt2", "gpt2"), ("gpt2@openai--gpt2.Large_1", "gpt2")])
def test_a_suite_of_other_weights_has_the_same_function(name, function):
    """`gpt2@...` stands for goldens of other weights; a candidate provides one function for all."""
    assert suite(name).function == function


@pytest.mark.parametrize(
    ("keep", "index", "shape"),
    [
        ({}, (slice(None), slice(None), slice(None)), (2, 5, 7)),
        ({"key": (1, 4)}, (slice(None), slice(None), slice(1, 4)), (2, 5, 3)),
        ({"batch": (0, 1), "key": (-3, 7)}, (slice(0, 1), slice(None), slice(-3, 7)), (1, 5, 3)),
    ],
    ids=["all", "one axis", "two axes"],
)
def test_keep_cuts_the_frozen_part_out(keep, index, shape):
    """The golden is the part of the checkpoint that `keep` names, axis by axis; the rest is not judged."""
    checkpoint = Checkpoint("out", (2, 5, 7), ("batch", "query", "key"), keep=keep)
    assert (checkpoint.kept_index, checkpoint.kept_shape) == (index, shape)
    assert np.zeros((2, 5, 7))[checkpoint.kept_index].shape == shape


@pytest.mark.parametrize("shape", [(), (4,), (2, 0)], ids=str)
def test_a_checkpoint_without_axes_is_kept_whole(shape):
    """Without labels all is frozen, of whatever shape."""
    checkpoint = Checkpoint("out", shape)
    assert checkpoint.kept_shape == shape == np.zeros(shape)[checkpoint.kept_index].shape


MASK = np.array([[0, 0, 1], [1, 1, 1]])  # the first sentence is padded on the left
JUDGED = {
    "another axis": (("batch", "width"), (2, 4), {}, None),
    "as long as the mask": (("batch", "query"), (2, 3), {}, [[0, 0, 1], [1, 1, 1]]),
    "longer than the mask": (("batch", "query"), (2, 5), {}, [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
    "the kept part": (("batch", "query"), (2, 5), {"query": (1, 4)}, [[0, 1, 1], [1, 1, 1]]),
    "the kept part of the batch": (("batch", "query"), (2, 3), {"batch": (1, 2)}, [[1, 1, 1]]),
    "not the second axis": (("batch", "head", "query"), (2, 1, 3), {}, [[[0, 0, 1]], [[1, 1, 1]]]),
    "followed by another": (("batch", "query", "width"), (2, 3, 1), {}, [[[0], [0], [1]], [[1], [1], [1]]]),
    "two axes": (
        ("batch", "query", "key"),
        (2, 3, 4),
        {"query": (1, 3)},
        [[[0, 0, 0, 0], [0, 0, 1, 1]], [[1, 1, 1, 1], [1, 1, 1, 1]]],
    ),
}


@pytest.mark.parametrize(("axes", "shape", "keep", "expected"), JUDGED.values(), ids=JUDGED)
def test_what_stands_in_padding_is_not_judged(axes, shape, keep, expected):
    """Where the padding input is 0 a checkpoint is not judged, along every axis that is padded; later positions are."""
    checkpoint = Checkpoint("out", shape, axes, keep=keep)
    padded = case(checkpoints=[checkpoint], padding={"query": "mask", "key": "mask"})
    judged = padded.judged_elements(checkpoint, {"mask": MASK})
    if expected is None:
        assert judged is None
    else:
        assert judged.dtype == bool
        assert np.broadcast_to(judged, checkpoint.kept_shape).tolist() == np.array(expected, bool).tolist()


def test_what_is_not_there_is_named():
    """A checkpoint, a case or a suite that does not exist is an error with its name."""
    assert case().checkpoint("out") is OUT
    assert suite().case("small").name == "small"
    with pytest.raises(KeyError, match="small has no checkpoint 'in'"):
        case().checkpoint("in")
    with pytest.raises(UsageError, match="no case 'large' in demo; its cases: small, tiny"):
        suite(cases=(case(), case("tiny"))).case("large")
