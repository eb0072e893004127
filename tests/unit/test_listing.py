"""karat.listing: a porter reads in two minutes what a suite wants; a case in full has every shape."""

from dataclasses import replace
from pathlib import Path

import pytest

from karat import listing
from karat.inputs import Integers, Stored
from karat.suites import Case, Checkpoint, Property, Repository, Selection, Suite
from karat.tolerances import Contract, Tolerances

EACH = "each operation"
CONTRACTS = {
    "float32": Contract("float32", "float32", "float32", "float32", EACH),
    "bfloat16-once": Contract("bfloat16-once", "bfloat16", "float32", "float32", "once"),
}
TOLERANCES = Tolerances(Path("tolerances.toml"), CONTRACTS, {}, ())


def layers(*numbers, length=5):
    """Return the checkpoints of some layers."""
    return [
        Checkpoint(f"h.{n}.{name}", (length, 3), ("token", "channel"), exact_zeros=name == "p")
        for n in numbers
        for name in ("q", "p")
    ]


def weights(*numbers):
    """Return the recipes of some layers' weights."""
    return {f"weights/h.{n}.bias": Stored((3,)) for n in numbers}


LOGITS = Checkpoint("logits", (5, 7))
TOKEN = Checkpoint("token", (5,), dtype="integer", judged_by="logits")
IDS = {"ids": Integers((5,), "k", 0, 7)}
SHORT = Case(
    "short", {**IDS, **weights(0, 1)}, {"scale": 2, "mode": "a"}, (*layers(0, 1), LOGITS, TOKEN), about="a short one"
)
LONG = Case(
    "long",
    {**IDS, "x": Stored((9, 3)), **weights(0, 2, 5)},
    {"scale": 2, "mode": "b"},
    (
        Checkpoint("embedding", (9, 3), ("token", "channel"), keep={"token": (6, 9)}),
        *layers(0, 2, 5, length=9),
        *(Checkpoint(f"step.{n}.h.0.q", (1, n), ("token", "key")) for n in (10, 11)),
        LOGITS,
    ),
    contracts=("float32",),
    about="a long one",
)
SUITE = Suite("demo", "What it computes.\n\n  demo(ids, weights) -> y\n", ("float32", "bfloat16-once"), (SHORT, LONG))


def overview(suite=SUITE, root=Path("nowhere")):
    """Return the lines of an overview."""
    return listing.overview(Repository(root), suite, TOLERANCES).splitlines()


def details(case, *select):
    """Return the lines about a case."""
    return listing.details(SUITE, case, Selection.parse(select)).splitlines()


def part(title):
    """Return the lines under a title of the overview."""
    lines = overview()
    start = next(n for n, line in enumerate(lines) if line.startswith(title)) + 1
    return [" ".join(line.split()) for line in lines[start : lines.index("", start)]]


def test_a_suite_in_a_line_has_its_size_and_contracts():
    """karat list: a line for each suite."""
    assert listing.line(SUITE) == "demo: 2 cases of 6 to 10 checkpoints; contracts float32, bfloat16-once"


def test_the_overview_begins_with_the_contract_of_the_suite():
    """Signature and definition, as the suite has written them, stand first, without trailing blanks."""
    assert overview()[:4] == ["demo", "  What it computes.", "", "    demo(ids, weights) -> y"]


def test_properties_are_told_where_there_are_some():
    """What must hold of a candidate's own outputs is part of what a candidate must provide."""
    entry = Property("causality", "what comes later changes nothing before", ("long",), "embedding")
    lines = overview(replace(SUITE, properties=(entry,)))
    row = "  causality  what comes later changes nothing before  [long]"
    assert lines[lines.index("properties, which karat check --properties tries:") + 1] == row
    assert "properties" not in "\n".join(overview())


def test_names_that_differ_in_a_number_are_one_line():
    """Layers and steps are told once, with their numbers; what only some cases have says so."""
    assert part("inputs") == [
        "ids (5,) int64",
        "x (9, 3) only long",
        "weights/h.{0..1}.bias (3,)",
    ]


def test_checkpoints_stand_in_the_order_of_execution():
    """What a later case has beside stands where it is computed; lengths that differ from step to step are a range."""
    assert part("checkpoints") == [
        "embedding (9, 3) token, channel; only long",
        "h.{0..1}.q (5, 3) token, channel",
        "h.{0..1}.p (5, 3) token, channel; exactly 0 where the golden is",
        "step.{10..11}.h.0.q (1, 10..11) token, key; only long",
        "logits (5, 7)",
        "token (5,) integers; another index may stand where logits ties; only short",
    ]


def test_numbers_that_are_no_range_are_listed():
    """Layers 0, 2 and 5 are not 0..5, and a number at the end of a name is no layer."""
    (*_, row) = [line for line in overview(Suite("demo", "", ("float32",), (LONG,))) if "h.{" in line]
    assert row.split()[0] == "h.{0,2,5}.p"
    points = tuple(Checkpoint(f"probabilities.t0.{n}", (2,)) for n in (5, 8))
    lines = overview(Suite("demo", "", ("float32",), (Case("one", {}, {}, points),)))
    assert "  probabilities.t0.5  (2,)" in lines


def test_contracts_say_what_is_rounded():
    """What a candidate promises is told in words, not only by a name."""
    text = "stored in bfloat16, sums in float32, factors of matrix products in float32, rounded at the end"
    assert part("contracts")[1] == f"bfloat16-once {text}"
    assert part("contracts")[0].endswith("rounded after each operation")


def test_a_case_in_a_line_has_what_differs():
    """Parameters that are the same everywhere are told once, and not with each case."""
    assert part("params") == ["scale: 2", "mode: 'a' or 'b'"]
    assert part("cases") == [
        "short a short one [ids (5,); mode='a']",
        "long a long one [ids (5,); mode='b'; only float32]",
    ]


def test_a_parameter_that_only_some_cases_have_is_told_with_them():
    """Its one value is that of the cases that have it, not of all."""
    points = (Checkpoint("out", (2,)),)
    cases = (Case("with", {}, {"scale": 2, "cap": 3.0}, points), Case("without", {}, {"scale": 2}, points))
    lines = overview(Suite("demo", "", ("float32",), cases))
    assert [line.split()[-1] for line in lines if line.split()[:1] in (["with"], ["without"])] == ["[cap=3.0]", "[]"]


def test_the_plain_candidate_is_named_where_there_is_one(tmp_path):
    """The definition in NumPy is the quickest answer to most questions."""
    assert not any("plain NumPy" in line for line in overview())
    file = tmp_path / "candidates" / "plain" / "demo.py"
    file.parent.mkdir(parents=True)
    file.touch()
    assert "candidates/plain/demo.py computes all this in plain NumPy." in overview(root=tmp_path)


def test_a_case_in_full_has_every_shape():
    """karat list SUITE/CASE: nothing collapsed, what is compared of it, and only the selected checkpoints."""
    lines = details(LONG)
    assert lines[:3] == [
        "demo/long: a long one",
        "  contracts: float32; floats come and go in their storage format",
        "  params: scale=2, mode='b'",
    ]
    for line in (
        "  compared of embedding: token 6 to 8",
        "  input ids (5,); int64",
        "  input weights/h.5.bias (3,)",
        "  h.2.p (9, 3) token, channel; exactly 0 where the golden is",
    ):
        assert line in lines
    assert len([line for line in lines if "(9, 3)" in line]) == 1 + 1 + 6
    assert [line for line in details(LONG, "demo/long/h.2.*") if line.startswith("  h.")] == [
        "  h.2.q (9, 3) token, channel",
        "  h.2.p (9, 3) token, channel; exactly 0 where the golden is",
    ]


@pytest.mark.parametrize("dtype", ["storage", "integer", "bool", "accumulation"])
def test_every_dtype_of_a_checkpoint_has_words(dtype):
    """No kind of checkpoint is left out of the listing, or ends it in a traceback."""
    words = {"storage": "", "integer": "; integers", "bool": "; booleans"}
    case = Case("one", {}, {}, (Checkpoint("out", (2,), dtype=dtype),))
    line = listing.details(SUITE, case, Selection()).splitlines()[-1]
    assert line == f"  out (2,){words.get(dtype, '; in the contract' + chr(39) + 's accumulation format')}"
