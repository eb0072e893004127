"""karat.properties: what must hold of a candidate's own outputs is tried by running it again, goldens or not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from karat import cli
from karat.candidates import open_candidate
from karat.errors import UsageError
from karat.properties import Outcome, check_properties, exit_code
from karat.suites import Property, Selection


def reversed_rows(inputs):
    """Return the inputs with the batch in reverse order."""
    return {name: array[::-1].copy() if name in ("x", "mask") else array for name, array in inputs.items()}


APART = Property(
    "rows-apart",
    "a row depends on itself alone",
    ("small",),
    "scaled",
    reversed_rows,
    lambda first, second, _: (second["scaled"], first["scaled"][::-1]),
)
ODD = Property(
    "odd",
    "without a bias the map is odd",
    ("small",),
    "scaled",
    lambda inputs: {
        **inputs,
        "x": -inputs["x"],
        "weights/bias": -inputs["weights/bias"],
    },
    lambda first, second, inputs: (second["scaled"] * np.sign(inputs["weights/scale"]), -first["scaled"]),
)
REPEATABLE = Property("repeatable", "two runs give the same bits", ("small", "padded"), "scores")

RIGHT = "candidates/plain/toy.py"
COUNTING = (
    "    squash.runs = getattr(squash, 'runs', 0) + 1\n    scores = scores * np.float32(1 + squash.runs * 2.0**-23)\n"
)


@pytest.fixture
def tried(toy):
    """Return a function that tries properties on the plain candidate of the toy, a line added before it returns."""

    def run(*properties, line="", contracts=(), select=()):
        toy.edit(RIGHT, "    return {", f"{line}    return {{") if line else None
        repository = toy.repository
        repository.suites["toy"] = replace(repository.suites["toy"], properties=properties)
        candidate = open_candidate(f"py:{RIGHT}")
        try:
            return check_properties(repository, candidate, Selection.parse(select), contracts)
        finally:
            candidate.close()

    return run


@pytest.mark.parametrize("contract", ["float32", "bfloat16"])
def test_a_right_candidate_has_the_properties(tried, contract):
    """Each holds, and says how much of what is allowed was used."""
    outcomes = tried(APART, ODD, REPEATABLE, contracts=(contract,))
    assert [outcome.status for outcome in outcomes] == ["holds"] * 4
    assert outcomes[1].place == f"toy/small/{contract}"
    assert " apart, allowed " in outcomes[1].text
    assert exit_code(outcomes) == 0


def test_a_violated_property_says_what_was_found_where_and_what_had_to_be(tried):
    """A candidate that mixes rows is told so, without a golden."""
    outcomes = tried(APART, line="    scaled[1] = scaled[0]\n")
    (outcome,) = outcomes
    assert (outcome.status, outcome.name, exit_code(outcomes)) == ("violated", "rows-apart", 1)
    assert outcome.text.startswith("a row depends on itself alone: scaled: found ")
    assert " at (1, " in outcome.text
    assert " apart, allowed " in outcome.text


def test_a_run_that_gives_other_bits_is_told(tried):
    """A difference far below any tolerance breaks bit equality, and its place and both values are named."""
    (outcome,) = tried(REPEATABLE, line=COUNTING, select=["toy/small"])
    assert outcome.status == "violated"
    assert outcome.text.startswith("two runs give the same bits: scores at (")


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("    raise ValueError('no')\n", "raised", 4),
        ("    return {'scaled': scaled}\n", "unsupported", 0),
        ("    scores = scores[0]\n", "crashed", 4),
    ],
)
def test_what_gives_no_output_to_compare_is_said(tried, line, status, code):
    """A run that fails has its status, an absent checkpoint is unsupported, another shape breaks the protocol."""
    entry = replace(APART, checkpoint="scores", compared=lambda a, b, _: (b["scores"][:3], a["scores"][2::-1, :, 5]))
    outcomes = tried(entry, line=line)
    assert ([outcome.status for outcome in outcomes], exit_code(outcomes)) == ([status], code)


def test_an_empty_comparison_and_nan_do_not_pass(tried):
    """A property that compares nothing is violated, and so is one whose values are NaN on one side."""
    nothing = replace(APART, compared=lambda *_: (np.empty(0), 0))
    missing = replace(APART, compared=lambda *_: (np.array([1.0, np.nan]), 1.0))
    assert [outcome.status for outcome in tried(nothing, missing)] == ["violated", "violated"]


def test_what_cannot_be_tried_is_a_usage_error(tried, toy):
    """A dump cannot be run again; a selection without properties is no success."""
    with pytest.raises(UsageError, match="no property is selected; suites that have some: toy"):
        tried(REPEATABLE, contracts=("float16",))
    with pytest.raises(UsageError, match="suites that have some: none"):
        tried()
    with pytest.raises(UsageError, match="a dump cannot be run again"):
        check_properties(toy.repository, open_candidate(f"dir:{toy.dump()}"), Selection())


def test_a_property_of_a_case_or_checkpoint_that_does_not_exist_is_refused(toy):
    """A suite's declaration is checked when it is made."""
    with pytest.raises(UsageError, match="no case 'large'"):
        replace(toy.suite, properties=(replace(APART, cases=("large",)),))
    with pytest.raises(KeyError, match="no checkpoint 'output'"):
        replace(toy.suite, properties=(replace(APART, checkpoint="output"),))


def test_karat_check_tries_them_where_it_is_asked(toy, capsys, monkeypatch):
    """`--properties` prints a line each, puts them into the JSON, and a violation makes the exit code 1."""
    outcomes = [
        Outcome("toy/small/float32", "odd", "violated", "why"),
        Outcome("toy/small/float32", "even", "holds", ""),
    ]
    monkeypatch.setattr("karat.properties.check_properties", lambda *_: outcomes)
    words = ["check", f"py:{RIGHT}", "toy/small"]
    assert cli.main([*words, "--properties", "--json", "report.json"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith(
        "property toy/small/float32: odd: violated: why\nproperty toy/small/float32: even: holds\n"
    )
    content = json.loads((toy.root / "report.json").read_text(encoding="utf-8"))
    assert content["properties"][0] == {
        "place": "toy/small/float32",
        "name": "odd",
        "status": "violated",
        "text": "why",
    }
    assert cli.main(words) == 0


def test_the_second_run_may_have_other_parameters(tried):
    """What must not depend on a parameter is run with another one."""
    entry = Property(
        "gain-is-a-factor",
        "the gain multiplies",
        ("small",),
        "scores",
        compared=lambda first, second, _: (second["scores"], first["scores"]),
        params={"gain": 3.0},
    )
    (outcome,) = tried(entry)
    assert outcome.status == "violated"
    (same,) = tried(replace(entry, params={}))
    assert (same.status, same.text.partition(" ")[0]) == ("holds", "0")


def carrying(checkpoint="scores"):
    """Return a property whose second run is given what the first left, doubled, and must leave the first's again."""

    def changed(given):
        return {**given, "x": given["x"] + 0 * given[f"outputs/{checkpoint}"].max()}

    return Property(
        "carried", "a state goes on", ("small",), "scaled", changed, lambda a, b, _: (b["scaled"], a["scaled"])
    )


@pytest.mark.parametrize("contract", ["float32", "bfloat16"])
def test_the_second_run_is_given_what_the_first_left(tried, contract):
    """A state can be carried over; it is no input by itself, and what the first run has not left is unsupported."""
    seen = []
    entry = carrying()

    def changed(given):
        seen.append({name: array.dtype.name for name, array in given.items()})
        return entry.changed(given)

    (outcome,) = tried(replace(entry, changed=changed), contracts=(contract,))
    assert outcome.status == "holds"
    assert seen[0]["outputs/scaled"] == seen[0]["outputs/scores"] == contract
    (absent,) = tried(carrying(), line="    return {'scaled': scaled}\n", contracts=(contract,))
    assert (absent.status, absent.text) == ("unsupported", "it does not produce scores")


def test_integers_may_not_be_apart_at_all(tried, toy):
    """What is no float has no tolerance."""
    whole = Property("same", "the same", ("small",), "choice", compared=lambda a, b, _: (b["choice"] + 1, a["choice"]))
    outcomes = tried(whole, replace(whole, compared=lambda a, b, _: (b["choice"], a["choice"])))
    assert [outcome.text.partition("; ")[2] or outcome.text for outcome in outcomes] == [
        "1 apart, allowed 0",
        "0 apart, allowed 0",
    ]
