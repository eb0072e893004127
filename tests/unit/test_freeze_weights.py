"""karat.freeze --weights: goldens of weights that no recipe can make, whose bytes are frozen beside them."""

import pytest

from karat import freeze, gate

CONTRACT = '''
def suite_of_weights(name, config):
    """Return the suite with the weights of `config` in the place of the seeded ones."""
    from karat import Stored

    small = SUITE.cases[0]
    stored = {
        key: Stored(recipe.shape) if key.startswith("weights/") else recipe for key, recipe in small.inputs.items()
    }
    return Suite(name, ABOUT, CONTRACTS, (Case(config["case"], stored, small.params, small.checkpoints),))


CONTRACTS = ("float32", "bfloat16")
'''
GENERATOR = '''
def weights_from(source):
    """Return the suite's config and its stored inputs."""
    shapes = {"scale": (7,), "bias": (7,), "head": (7, 11)}
    draw = np.random.default_rng(3)
    return {"case": "mine"}, {
        f"weights/{name}": (draw.integers(-99, 99, shape) / 64).astype("f4") for name, shape in shapes.items()
    }
'''


@pytest.fixture
def weighted(toy):
    """Return a toy repository with goldens of other weights."""
    for file, text in (("validators/toy.py", CONTRACT), ("generators/toy.py", GENERATOR)):
        path = toy.root / file
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    assert freeze.main(["toy"]) == 0
    assert freeze.main(["toy", "--weights", "my/model"]) == 0
    return toy


def test_goldens_of_weights_are_a_suite_of_their_own(weighted):
    """Goldens of other weights stand beside the seeded ones and are checked with the same function."""
    assert list(weighted.repository.suites) == ["toy", "toy@my--model"]
    assert gate.inspect(weighted.repository) == []
    report = weighted.check("py:candidates/plain", contracts=["float32", "bfloat16"])
    assert report.counts == {"pass": 18}
    assert {v.case for v in report.verdicts} == {"small", "padded", "mine"}


def test_a_flipped_bit_of_stored_weights_is_damage_of_the_suite(weighted):
    """Stored inputs are hashed like goldens."""
    path = weighted.root / "goldens" / "toy@my--model" / "inputs.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    [finding] = gate.inspect(weighted.repository)
    assert (finding.kind, finding.suite, finding.case) == ("damaged", "toy@my--model", None)
    assert "run: python -m nox -s goldens -- toy --weights " in finding.message
    report = weighted.check("py:candidates/plain")
    assert {v.status for v in report.verdicts if v.suite == "toy@my--model"} == {"golden-damaged"}
    assert {v.status for v in report.verdicts if v.suite == "toy"} == {"pass"}


def test_goldens_of_weights_are_frozen_and_verified_by_the_command_that_findings_name(weighted, capsys):
    """`nox -s goldens -- toy --weights my/model --verify` compares with the set of these weights."""
    assert freeze.main(["toy", "--weights", "my/model", "--verify"]) == 0
    assert "toy@my--model: agrees" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["suite_of_weights", "inputs"])
def test_goldens_of_weights_without_their_files_close_the_gate(weighted, damage):
    """A stored input that is gone, or a contract that no longer takes weights, is a finding."""
    if damage == "inputs":
        (weighted.root / "goldens" / "toy@my--model" / "inputs.safetensors").unlink()
    else:
        weighted.edit("validators/toy.py", "def suite_of_weights", "def suite_of_other_weights")
    result = weighted.karat("gate")
    assert result.code == 3
    assert "toy@my--model" in result.out
