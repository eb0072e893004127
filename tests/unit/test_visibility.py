"""karat.visibility: a row by case and a row by kind of checkpoint for each fault."""

import pytest

from karat import evidence, goldens
from karat.faults import Fault
from karat.inputs import Literal
from karat.suites import Case, Checkpoint, Suite
from karat.verdicts import Verdict
from karat.visibility import checkpoint_kinds, kind_of, visibility_rows, visibility_text
from tests.conftest import mark_first_divergence

NAMES = ("embedding", "h.0.scores", "h.0.output", "h.1.scores", "h.1.output", "logits")


def case(name, names=NAMES, rows=1):
    """Return a case with the given checkpoints."""
    return Case(name, {"x": Literal(((1,),) * rows)}, {}, tuple(Checkpoint(point, (1,)) for point in names))


SUITE = Suite("bench", "", ("float32",), (case("one"), case("two", (*NAMES, "step.3.logits", "choice")), case("three")))
FAULT = Fault("halved", ("scores",), "half of it", lambda _: None)


def seen(**statuses):
    """Return the verdicts of a case: passed where nothing else is said, dots in names written as __."""
    wrong = {name.replace("__", "."): status for name, status in statuses.items()}
    verdicts = [Verdict("bench", "c", "float32", name, wrong.get(name, "pass"), (1,)) for name in NAMES]
    return mark_first_divergence(verdicts)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("logits", "logits"),
        ("h.0.scores", "scores"),
        ("h.11.attention.scores", "attention.scores"),
        ("step.3.h.0.scores", "scores"),
        ("final_norm.output", "final_norm.output"),
        ("h.0", "h.0"),
    ],
)
def test_layers_and_steps_are_no_part_of_a_kind(name, kind):
    """The matrix shows layers and steps together."""
    assert kind_of(name) == kind


def test_kinds_stand_in_execution_order():
    """Each kind once, in the order in which a case first computes it."""
    assert checkpoint_kinds(SUITE) == ["embedding", "scores", "output", "logits", "choice"]


def test_a_row_by_case_shows_the_first_divergence():
    """Or a dash where the case cannot see the fault, be it that it was not tried there."""
    observed = {"one": seen(h__1__scores="mismatch", logits="mismatch"), "two": seen()}
    assert visibility_rows(SUITE, FAULT, observed)[0] == "| `halved` | half of it | h.1.scores | – | – |"


def test_a_row_by_kind_marks_the_first_divergence_and_what_is_wrong():
    """Filled where some case diverges first, x where it is wrong, empty where it is right in every case."""
    observed = {"one": seen(h__1__scores="mismatch", logits="shape"), "two": seen(h__0__output="fault")}
    assert visibility_rows(SUITE, FAULT, observed)[1] == "| `halved` |  | ● | ● | x |  |"


def test_a_fault_that_raises_has_its_status_for_a_place():
    """What leaves no values has no first divergence: the case says how it failed."""
    observed = {"one": seen(**dict.fromkeys((name.replace(".", "__") for name in NAMES), "raised"))}
    by_case, by_kind = visibility_rows(SUITE, FAULT, observed)
    assert by_case == "| `halved` | half of it | raised | – | – |"
    assert by_kind == "| `halved` | x | x | x | x |  |"


def test_an_invisible_fault_has_a_row_too():
    """A fault that no case sees is shown, not left out."""
    assert visibility_rows(SUITE, FAULT, {}) == ("| `halved` | half of it | – | – | – |", "| `halved` |  |  |  |  |  |")


def test_cases_with_large_inputs_have_no_column(monkeypatch):
    """They repeat what small ones show: faults are not tried on them."""
    monkeypatch.setattr("karat.faults._LARGEST_CASE", 2)
    suite = Suite("bench", "", ("float32",), (case("one"), case("large", ("extra",), rows=3)))
    assert checkpoint_kinds(suite) == ["embedding", "scores", "output", "logits"]
    assert visibility_rows(suite, FAULT, {"large": seen(logits="fault")})[0] == "| `halved` | half of it | – |"


def test_the_text_is_sealed_and_says_from_what_it_was_made(toy):
    """The table names its sources and the command that makes it, and hashes itself."""
    rows = [visibility_rows(toy.suite, FAULT, {}), visibility_rows(toy.suite, Fault("b", (), "c", FAULT.change), {})]
    text = visibility_text(toy.repository, toy.suite, iter(rows))
    assert goldens.is_sealed(text)
    assert evidence.digest(toy.repository, "toy") in text
    assert "`python -m nox -s evidence -- toy`" in text
    lines = text.splitlines()
    assert "| fault | mistake | small | padded |" in lines
    assert "| fault | scaled | scores | choice |" in lines
    assert [lines.index(row) for pair in zip(*rows, strict=True) for row in pair] == sorted(
        lines.index(row) for pair in rows for row in pair
    )
    assert text == visibility_text(toy.repository, toy.suite, rows)
