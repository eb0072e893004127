"""karat.plot: an SVG file whose bytes depend on the evidence alone."""

import sys

import pytest

from karat import evidence
from karat.errors import KaratError
from karat.inputs import Literal
from karat.plot import draw
from karat.suites import Case, Checkpoint, Suite

NAMES = ("embedding", "h.0.scores", "h.1.scores", "logits")
POINTS = tuple(Checkpoint(name, (1,)) for name in NAMES)
SUITE = Suite("bench", "", ("float32", "bfloat16"), (Case("one", {"x": Literal(((1,),))}, {}, POINTS),))


def row(contract="float32", checkpoint="logits", **changes):
    """Return what the evidence says of a checkpoint under a contract."""
    given = {"correct_margin": 4.0, "fault": "halved", "fault_margin": 8.0}
    return {"contract": contract, "checkpoint": checkpoint, **given, **changes}


def content(*rows):
    """Return the part of an evidence file that is drawn."""
    every = [row(contract, name) for contract in SUITE.contracts for name in NAMES]
    return {"checkpoints": [*every, *rows]}


def drawn(tmp_path, *rows):
    """Return the plot as text."""
    draw(content(*rows), SUITE, tmp_path / "plot.svg")
    return (tmp_path / "plot.svg").read_text(encoding="utf-8")


def test_the_same_evidence_gives_the_same_bytes(tmp_path):
    """A plot that is drawn again differs in nothing: no date, no random names."""
    first = drawn(tmp_path)
    assert first.startswith("<?xml")
    assert drawn(tmp_path) == first
    assert "<dc:date>" not in first
    assert drawn(tmp_path, row(checkpoint="embedding", fault_margin=2.0)) != first


def test_every_contract_and_every_kind_of_checkpoint_is_drawn(tmp_path):
    """A panel for each contract, a place for each kind, and a legend that says what is what."""
    text = drawn(tmp_path)
    for words in (*SUITE.contracts, "embedding", "scores", "logits", "limit", "worst correct run", "part of the limit"):
        assert f">{words}</text>" in text, words
    assert "h.0.scores" not in text
    assert text.count('id="axes_') == len(SUITE.contracts)


def test_layers_are_drawn_as_the_worst_of_them(tmp_path):
    """Of layers and steps together the run nearest to the limit is drawn, and the fault nearest to it."""
    same = row(checkpoint="h.1.scores", correct_margin=100.0, fault_margin=100.0)
    worse = row(checkpoint="h.1.scores", correct_margin=1.5, fault_margin=1.5)
    assert drawn(tmp_path, same) == drawn(tmp_path)
    assert drawn(tmp_path, worse) != drawn(tmp_path)


def test_what_no_fault_is_caught_at_has_no_fault(tmp_path):
    """A checkpoint without faults shows correct runs alone."""
    rows = [row(contract, name, fault="", fault_margin=evidence.ENDLESS) for contract, name in (("float32", "logits"),)]
    draw({"checkpoints": rows}, SUITE, tmp_path / "plot.svg")
    assert ">bfloat16</text>" not in (tmp_path / "plot.svg").read_text(encoding="utf-8")


def test_what_is_beyond_the_panel_is_drawn_at_its_edge(tmp_path):
    """Margins without end stand at the edge, whatever they are."""
    endless = row(contract="float16", fault_margin=evidence.ENDLESS)
    assert drawn(tmp_path, endless) == drawn(tmp_path, {**endless, "fault_margin": 1e7})


def test_a_correct_run_that_is_infinitely_beyond_a_limit_is_drawn(tmp_path):
    """A rejected run whose margin is 0 is drawn at the edge: the plot is wanted just then."""
    assert drawn(tmp_path, row(correct_margin=0.0)) == drawn(tmp_path, row(correct_margin=1e-9))


def test_without_matplotlib_there_is_a_message(tmp_path, monkeypatch):
    """What is installed only where evidence is gathered is missed with the command that has it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(KaratError, match="needs matplotlib; run: python -m nox -s evidence"):
        draw(content(), SUITE, tmp_path / "plot.svg")
    assert not (tmp_path / "plot.svg").exists()
