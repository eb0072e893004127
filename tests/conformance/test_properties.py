"""The properties of every suite: the plain candidate has them, and one that looks where it must not has not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karat.faults import FaultyCandidate, Formulation, wrap
from karat.properties import check_properties
from karat.suites import Repository, Selection

REPOSITORY = Repository(Path(__file__).parents[2])
PROPERTIES = [
    pytest.param(suite, entry, id=f"{suite.name}-{entry.name}")
    for suite in REPOSITORY.suites.values()
    for entry in suite.properties
]


def tried(suite, entry, change=None):
    """Try one property in all its cases; return the outcomes."""
    repository = Repository(REPOSITORY.root)
    repository.suites[suite.name] = replace(suite, properties=(entry,))
    planted = Formulation("changed", "", change) if change else None
    candidate = FaultyCandidate(REPOSITORY.plain(suite.name), suite.function, planted)
    return check_properties(repository, candidate, Selection.parse([suite.name]))


def peeking(suite, checkpoint):
    """Return a change after which the outputs at a checkpoint hold a little of every input, by its place, and more."""
    runs: list[None] = []

    def wrong(right):
        def run(**given):
            found = right(**given)
            runs.append(None)
            seen = len(runs) * 2.0**-5
            for value in given.values():
                if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
                    flat = np.nan_to_num(value.astype(np.float64).reshape(-1), posinf=1, neginf=1)
                    seen += float(flat @ np.sqrt(1 + np.arange(flat.size)))
                elif isinstance(value, list):
                    seen += len(value)
            units = 1 if found[checkpoint].dtype.kind == "f" else 1 << 20  # integers see it too
            found[checkpoint] = found[checkpoint] + found[checkpoint].dtype.type(units * (0.25 + seen % 1))
            return found

        return run

    return wrap(**{suite.function: wrong})


def names_of(suite):
    """Return the names of a suite's properties."""
    return {entry.name for entry in REPOSITORY.suites[suite].properties}


BLOCKS = sorted(path.stem for path in (REPOSITORY.root / "validators" / "blocks").glob("[!_]*.py"))


@pytest.mark.parametrize("suite", [*BLOCKS, "gpt2", "llama"])
def test_every_block_and_model_is_run_twice_and_has_rows_that_are_tried_apart(suite):
    """Two runs bit-equal, and batch permutation, which every suite of rows has."""
    assert {"repeatable", "rows-apart"} <= names_of(suite)


@pytest.mark.parametrize(
    ("suite", "wanted"),
    [
        ("attention", {"causality", "rows-sum-to-1", "constant-values", "order-of-keys"}),
        ("attention_mask", {"causality", "padding", "rows-sum-to-1", "constant-values", "order-of-keys"}),
        ("kv_cache", {"causality", "padding", "constant-values", "chunks", "memory-forgotten"}),
        ("linear_attention", {"causality", "padding", "constant-values", "chunks", "order-of-keys"}),
        ("favor_attention", {"causality", "padding", "constant-values", "order-of-keys"}),
        ("selective_scan", {"causality", "chunks"}),
        ("softmax", {"sums-to-1", "order-of-entries"}),
        ("log_softmax", {"sums-to-1", "order-of-entries"}),
        ("sampling", {"adds-up", "order-of-tokens"}),
        ("gpt2", {"causality"}),
        ("llama", {"causality"}),
    ],
)
def test_suites_of_sequences_have_the_properties_of_sequences(suite, wanted):
    """What later tokens, padding, equal values, chunks and another order must not change is tried."""
    assert wanted <= names_of(suite)


@pytest.mark.parametrize(("suite", "entry"), PROPERTIES)
def test_the_plain_candidate_has_every_property(suite, entry):
    """What is right holds, in every case."""
    assert [outcome.status for outcome in tried(suite, entry)] == ["holds"] * len(entry.cases)


@pytest.mark.parametrize(("suite", "entry"), PROPERTIES)
def test_a_candidate_that_looks_where_it_must_not_is_told(suite, entry):
    """An output that holds a little of every input, and of how often it was run, has none of the properties."""
    outcomes = tried(suite, entry, peeking(suite, entry.checkpoint))
    assert [outcome.status for outcome in outcomes] == ["violated"] * len(entry.cases)


def falling_back_to_random_numbers(suite, checkpoint):
    """Return a change after which a checkpoint holds random numbers that nobody seeded, about as large as the right."""

    def wrong(right):
        def run(**given):
            found = right(**given)
            shape = found[checkpoint].shape
            drawn = np.random.default_rng().standard_normal(shape) * max(np.std(found[checkpoint]), 1)
            found[checkpoint] = drawn.astype(found[checkpoint].dtype)
            return found

        return run

    return wrap(**{suite.function: wrong})


@pytest.mark.parametrize("name", ["attention", "linear", "linear_attention", "rotary_embedding"])
def test_a_fallback_to_random_numbers_without_a_seed_is_told(name):
    """Numbers that differ from run to run are not repeatable: defect A-13, no golden needed."""
    suite = REPOSITORY.suites[name]
    (entry,) = (entry for entry in suite.properties if entry.name == "repeatable")
    outcomes = tried(suite, entry, falling_back_to_random_numbers(suite, entry.checkpoint))
    assert [outcome.status for outcome in outcomes] == ["violated"] * len(entry.cases)
    assert all(outcome.text.startswith("two runs on the same inputs give the same bits: ") for outcome in outcomes)


def stepwise(change):
    """Return a change to what carries a state: `change(inputs)` of every run that is given one."""

    def wrong(right):
        return lambda **given: right(**(change(given) if given.get("initial_state") is not None else given))

    return wrong


@pytest.mark.parametrize("name", ["linear_attention", "selective_scan"])
def test_a_state_that_is_carried_over_must_be_read_as_it_was_left(name):
    """A candidate that begins anew, or scales what it is given, is not the whole in two halves."""
    suite = REPOSITORY.suites[name]
    (entry,) = (entry for entry in suite.properties if entry.name == "chunks")
    for factor in (0, 0.5):
        wrong = stepwise(lambda given, factor=factor: {**given, "initial_state": given["initial_state"] * factor})
        outcomes = tried(suite, replace(entry, cases=entry.cases[:1]), wrap(**{name: wrong}))
        # The first run of `typical` has a state too: what it left is carried over, and scaled again.
        assert [outcome.status for outcome in outcomes] == ["violated"]
