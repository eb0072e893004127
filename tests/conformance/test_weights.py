"""Goldens of weights from outside: `nox -s goldens -- gpt2 --weights SOURCE`, tried on a locally saved model."""

import contextlib
import io
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from karat import cli, freeze, gate
from karat.suites import Repository, load_by_path

torch = pytest.importorskip("torch", reason="torch is not installed: nox -s tests installs it")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: nox -s tests installs it")


pytestmark = pytest.mark.xdist_group("weights of gpt2")  # so that they are frozen once


@pytest.fixture
def repository(copy_of, tmp_path, monkeypatch):
    """Return a copy of this repository, which a freeze may change; the working directory is its root."""
    found = copy_of("gpt2", tmp_path / "copy")
    monkeypatch.chdir(found.root)
    return found


def saved(folder: Path, seed: int = 1) -> Path:
    """Save a small GPT-2 with random weights, as `save_pretrained` does, and return its folder."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=101, n_positions=40, n_embd=24, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def once(copy_of, tmp_path_factory):
    """Freeze the goldens of a locally saved model once; return the repository's root and what was printed."""
    folder = tmp_path_factory.mktemp("frozen")
    root = copy_of("gpt2", folder / "copy").root
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(root)
        assert freeze.main(["gpt2", "--weights", str(saved(folder / "my-gpt2"))]) == 0
    return root, printed.getvalue()


@pytest.fixture
def frozen(once, tmp_path, monkeypatch):
    """Return a copy of the repository with those goldens, which a test may damage, and what was printed."""
    root, printed = once
    shutil.copytree(root, tmp_path / "frozen")
    monkeypatch.chdir(tmp_path / "frozen")
    return Repository(tmp_path / "frozen"), printed


def test_saved_weights_are_frozen_and_checked(frozen, capsys):
    """A model saved with save_pretrained becomes a suite of its own, which the plain candidate passes."""
    repository, _ = frozen
    (name,) = [name for name in repository.suites if "@" in name]
    assert gate.inspect(repository, [repository.suite("gpt2"), repository.suite(name)]) == []
    assert (
        cli.main(["check", "py:candidates/plain", f"{name}/*", "--contract", "float32", "--contract", "float64"]) == 0
    )
    assert f"{name}/hello/float64: " in capsys.readouterr().out


@pytest.mark.parametrize(("layers", "kept"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (12, [0, 6, 11])])
def test_first_middle_and_last_layer_are_frozen(repository, layers, kept):
    """Of a model with weights from outside three layers are frozen, or as many as it has."""
    validator = load_by_path(repository.validator("gpt2"))
    model = asdict(validator.TINY) | {"n_layer": layers}
    prompt = {"name": "hello", "about": "hello", "ids": [1, 2], "new_tokens": 0}
    (case,) = validator.suite_of_weights("gpt2@mine", {"model": model, "prompts": [prompt]}).cases
    found = [int(point.name.split(".")[1]) for point in case.checkpoints if point.name.startswith("h.")]
    assert list(dict.fromkeys(found)) == kept


def test_known_values_that_cannot_be_checked_are_named(frozen):
    """The published values of the released weights are reported as not checked, each with the reason."""
    _, printed = frozen
    lines = [line for line in printed.splitlines() if "not checked:" in line]
    assert len(lines) == 4
    assert all("the weights are not those of gpt2 or gpt2-medium" in line for line in lines)


def test_a_damaged_weight_is_found(frozen):
    """Weights that are stored are guarded like goldens: one flipped bit closes the gate."""
    repository, _ = frozen
    (name,) = [name for name in repository.suites if "@" in name]
    path = repository.folder(name) / "inputs.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    fresh = Repository(repository.root)
    findings = gate.inspect(fresh, [fresh.suite("gpt2"), fresh.suite(name)])
    assert [finding.kind for finding in findings] == ["damaged"]


def test_weights_that_claim_to_be_the_released_ones_are_checked(repository, tmp_path, capsys):
    """A model named gpt2 must have the published attention scores; else nothing is frozen."""
    before = sorted(path.name for path in repository.goldens.rglob("*"))
    assert freeze.main(["gpt2", "--weights", str(saved(tmp_path / "gpt2"))]) == 3
    assert "attention scores of 'Hello.'" in capsys.readouterr().err
    assert sorted(path.name for path in repository.goldens.rglob("*")) == before


def test_the_published_scores_are_recognised(repository, tmp_path):
    """Known values that are right are reported as checked."""
    (tmp_path / "gpt2").mkdir()
    generator = load_by_path(repository.generator("gpt2"))
    scores = torch.tensor(generator.HELLO_SCORES).reshape(1, 1, 2, 2).numpy()
    lines = generator.known_values(str(tmp_path / "gpt2"), {"prompts": []}, {"hello": {"h.0.attention_scores": scores}})
    assert [line for line in lines if line.startswith("checked:")] == [
        'checked: h.0.attention_scores of head 0 for "Hello." in the 124M model'
    ]
    assert len(lines) == 4


def test_a_source_that_is_not_there_is_named(repository, capsys):
    """A hub name or folder that cannot be loaded is a message, not a traceback, and nothing is frozen."""
    assert freeze.main(["gpt2", "--weights", "no-such/model"]) == 3
    assert "no-such/model: no weights from this hub name or folder" in capsys.readouterr().err


def test_another_architecture_is_refused(repository, tmp_path, capsys):
    """Weights of a model that is not a GPT-2 are refused by name."""
    config = transformers.OPTConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2, word_embed_proj_dim=16
    )
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    assert freeze.main(["gpt2", "--weights", str(tmp_path / "opt")]) == 3
    assert "is a OPTForCausalLM, not a GPT2LMHeadModel" in capsys.readouterr().err
