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
            found[checkpoint] = found[checkpoint] + found[checkpoint].dtype.type(0.25 + seen % 1)
            return found

        return run

    return wrap(**{suite.function: wrong})


def test_most_suites_of_sequences_have_properties():
    """There is something to try."""
    assert {
        "attention",
        "attention_mask",
        "kv_cache",
        "softmax",
        "linear_attention",
        "selective_scan",
        "gpt2",
        "llama",
    } <= {suite.name for suite in REPOSITORY.suites.values() if suite.properties}


@pytest.mark.parametrize(("suite", "entry"), PROPERTIES)
def test_the_plain_candidate_has_every_property(suite, entry):
    """What is right holds, in every case."""
    assert [outcome.status for outcome in tried(suite, entry)] == ["holds"] * len(entry.cases)


@pytest.mark.parametrize(("suite", "entry"), PROPERTIES)
def test_a_candidate_that_looks_where_it_must_not_is_told(suite, entry):
    """An output that holds a little of every input, and of how often it was run, has none of the properties."""
    outcomes = tried(suite, entry, peeking(suite, entry.checkpoint))
    assert [outcome.status for outcome in outcomes] == ["violated"] * len(entry.cases)
