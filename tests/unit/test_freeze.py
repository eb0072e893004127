"""karat.freeze: only what reference, witness and contract agree on is frozen; --verify tells a drift."""

import os
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from karat import freeze
from karat.faults import Fault
from karat.suites import Repository

REFERENCE = """
_right = reference
def reference(case, inputs):
    found = _right(case, inputs)
    {}
    return found
"""
WITNESS = REFERENCE.replace("reference", "witness")
BAD_REFERENCES = {
    "lacks a checkpoint": ('del found["choice"]', "toy/small/choice: the reference does not produce it"),
    "wrong shape": (
        'found["scores"] = found["scores"][:, 1:]',
        r"toy/small/scores: the reference gives float64 (3, 3, 11)",
    ),
    "wrong dtype": ('found["scores"] = found["scores"].astype("f4")', "toy/small/scores: the reference gives float32"),
    "not deterministic": (
        'found["scores"] += 1e-14 * np.random.default_rng().random()',
        "toy/small/scores: the reference gives other bits",
    ),
    "NaN": ('found["scaled"][0, 3, 0] = np.nan', "toy/small/scaled: the reference gives values that are not finite"),
    "infinity": (
        'found["scaled"][0, 3, 0] = np.inf',
        "toy/small/scaled: the reference gives values that are not finite",
    ),
    "off by 1e-11": (
        'found["scaled"] *= 1 + 1e-11',
        "toy/small/scaled: the witness (the plain NumPy candidate in float64) differs by",
    ),
    "another index": ('found["choice"] = (found["choice"] + 1) % 11', "toy/small/choice: the witness"),
    "zero": ('found["scores"] *= 0', "toy/small/scores: the witness"),
    "a list": (
        'found["scores"] = found["scores"].tolist()',
        "toy/small/scores: the reference does not produce it, or not as an array",
    ),
}
BAD_WITNESSES = {
    "lacks a checkpoint": ('del found["scores"]', "toy/small/scores: the witness"),
    "wrong shape": ('found["scores"] = found["scores"][:1]', "toy/small/scores: the witness"),
    "NaN": ('found["scores"][0, 3, 0] = np.nan', "toy/small/scores: the witness"),
}


def appended(toy, file, text):
    """Append to a file of the repository."""
    with (toy.root / file).open("a", encoding="utf-8") as stream:
        stream.write(text)


def refused(toy, capsys, message):
    """Assert that the freeze is refused with one line and changes nothing."""
    before = toy.tree()
    assert freeze.main(["toy"]) == 3
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert toy.tree() == before
    assert sorted(path.name for path in toy.goldens.parent.iterdir()) == ["toy"]


@pytest.mark.parametrize("bad", BAD_REFERENCES)
def test_a_reference_that_cannot_be_trusted_is_refused_by_name(toy, capsys, bad):
    """The reference must be complete, deterministic, finite and agree with its witness; else the old goldens stay."""
    line, message = BAD_REFERENCES[bad]
    appended(toy, "generators/toy.py", REFERENCE.format(line))
    refused(toy, capsys, message)


@pytest.mark.parametrize("bad", BAD_WITNESSES)
def test_a_witness_that_disagrees_is_named_with_the_checkpoint(toy, capsys, bad):
    """Two witnesses: the second computation must agree to 1e-12 of the checkpoint's scale, at every checkpoint."""
    line, message = BAD_WITNESSES[bad]
    appended(toy, "generators/toy.py", WITNESS.format(line))
    refused(toy, capsys, message)


def test_inputs_that_a_contract_would_round_are_refused(toy, capsys):
    """Inputs are on every contract's grid, so that every candidate starts from the same numbers."""
    toy.edit("validators/toy.py", "exponent=-8)", "exponent=-8, offset=300)")
    refused(toy, capsys, "toy/small: input 'weights/bias' is")


def test_a_relation_that_does_not_hold_is_refused(toy, capsys):
    """What the generator checks of the frozen numbers keeps them from being frozen where it does not hold."""
    toy.edit("generators/toy.py", 'return ["not checked', 'raise FreezeError("7 is not 8") or ["not checked')
    toy.edit("generators/toy.py", "import plain_candidate", "import FreezeError, plain_candidate")
    refused(toy, capsys, "karat: 7 is not 8")


def test_disagreement_in_padding_is_none(toy, capsys):
    """What stands in padding is not judged, by the witness either."""
    appended(toy, "generators/toy.py", REFERENCE.format('found["scaled"] += 9 * (inputs["mask"] == 0)[..., None]'))
    assert freeze.main(["toy"]) == 0
    assert "frozen: goldens/toy" in capsys.readouterr().out


def test_freezing_twice_gives_the_same_bytes_of_every_file(toy):
    """Freezing twice gives the same bytes, and those of the first freeze in another folder."""
    before = toy.tree()
    for _ in range(2):
        assert freeze.main([]) == 0
        assert toy.tree() == before


def test_the_freeze_says_what_it_checked(toy, capsys):
    """A freeze reports each relation that holds and how far apart the witness is."""
    freeze.main(["toy"])
    out = capsys.readouterr().out
    assert (
        "scaled is inside (-1, 1): True; drawn: ['mask', 'weights/bias', 'weights/head', 'weights/scale', 'x']" in out
    )
    assert "not checked: nobody publishes values of a toy" in out
    assert "witness: the plain NumPy candidate in float64: apart by" in out


def test_a_suite_that_does_not_exist_is_a_usage_error(toy, capsys):
    """Exit code 2 and one line that names the value."""
    assert freeze.main(["tot"]) == 2
    error = capsys.readouterr().err
    assert "'tot'" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("suites", [[], ["toy", "toy"]])
def test_weights_are_those_of_exactly_one_suite(toy, capsys, suites):
    """--weights without a suite would freeze the weights of one model for all of them."""
    if suites == []:
        (toy.root / "validators" / "two.py").write_text(
            (toy.root / "validators" / "toy.py").read_text(encoding="utf-8").replace('name="toy"', 'name="two"'),
            encoding="utf-8",
        )
    with pytest.raises(SystemExit) as stopped:
        freeze.main([*suites, "--weights", "mine"])
    assert stopped.value.code == 2
    assert "--weights needs exactly one SUITE" in capsys.readouterr().err


def test_booleans_can_be_frozen_and_checked(toy):
    """A checkpoint's dtype is storage, integer or bool; booleans are exact."""
    toy.edit(
        "validators/toy.py",
        ', judged_by="scores"),',
        ', judged_by="scores"),\n Checkpoint("up", (B, T, V), dtype="bool"),',
    )
    for file in ("generators/toy.py", "candidates/plain/toy.py"):
        toy.edit(file, '"choice":', '"up": scores > 0, "choice":')
    assert freeze.main(["toy"]) == 0
    assert freeze.main(["toy", "--verify"]) == 0
    assert toy.check("py:candidates/plain").counts == {"pass": 8}


def test_what_is_frozen_is_computed_from_the_source_that_is_hashed(toy, monkeypatch):
    """Contract and generator are read anew: bytecode of an edit in the same second is never taken for the source."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = toy.root / "validators" / "toy.py"
    before = path.stat()
    assert Repository(toy.root).suite("toy").cases[0].params == {"gain": 0.5}
    toy.edit("validators/toy.py", '"gain": 0.5', '"gain": 0.7')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Repository(toy.root).suite("toy").cases[0].params == {"gain": 0.7}


# --- verify ----------------------------------------------------------------------------------------------------------


def verified(toy, capsys):
    """Verify, assert that nothing changes, and return exit code and last line."""
    before = toy.tree()
    code = freeze.main(["toy", "--verify"])
    assert toy.tree() == before
    assert sorted(path.name for path in toy.goldens.parent.iterdir()) == ["toy"]
    return code, capsys.readouterr().out.splitlines()[-1]


def test_verify_agrees_on_an_unchanged_set(toy, capsys):
    """--verify compares a fresh freeze with the frozen one and changes nothing."""
    code, line = verified(toy, capsys)
    assert code == 0
    assert line.startswith("toy: agrees: 0.00e+00")


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"scores": arrays["scores"] * (1 + 1e-9)},
        lambda arrays: arrays | {"scores": np.full_like(arrays["scores"], np.nan)},
        lambda arrays: arrays | {"scores": np.full_like(arrays["scores"], np.inf)},
        lambda arrays: arrays | {"choice": (arrays["choice"] + 1) % 11},
        lambda arrays: arrays | {"scores": arrays["scores"][:, :1]},
    ],
    ids=["1e-9", "NaN", "infinity", "index", "shape"],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_verify_tells_a_golden_that_was_changed(toy, capsys, change):
    """A golden that was rewritten with all hashes right is DRIFTED, exit code 3."""
    toy.regolden("padded", change)
    code, line = verified(toy, capsys)
    assert code == 3
    assert line.startswith("toy: DRIFTED")
    assert "toy/padded/" in line


def test_verify_of_a_missing_set_is_exit_code_3(toy, capsys):
    """Nothing to compare with is a missing golden, not an agreement."""
    (toy.goldens / "small.safetensors").unlink()
    before = toy.tree()
    assert freeze.main(["toy", "--verify"]) == 3
    assert "small.safetensors does not exist" in capsys.readouterr().err
    assert toy.tree() == before


def test_nothing_is_frozen_from_outside_a_repository(tmp_path, monkeypatch, capsys):
    """The repository that karat is installed from must not be written from just anywhere."""
    monkeypatch.chdir(tmp_path)
    assert freeze.main(["toy"]) == 2
    assert "stands in no repository" in capsys.readouterr().err


def test_a_signature_holds_where_its_fault_is_a_mistake(monkeypatch):
    """What a contract allows is no fault under it: the noise of the signature is known under the others alone."""
    rows = [
        {"fault": name, "case": "small", "errors": {"float32": 0.1, "tfloat32": 0.2}} for name in ("ever", "narrow")
    ]
    frozen = [SimpleNamespace(signatures=rows[:1]), SimpleNamespace(signatures=rows[1:])]
    faults = (Fault("ever", (), "", print), Fault("narrow", (), "", print, ("float32",)))
    monkeypatch.setattr(freeze, "load_faults", lambda *_: faults)
    where_mistakes: Any = freeze._where_mistakes
    kept = where_mistakes(None, None, frozen)
    assert [row["errors"] for row in kept] == [{"float32": 0.1, "tfloat32": 0.2}, {"float32": 0.1}]
    assert [row["fault"] for row in kept] == ["ever", "narrow"]
