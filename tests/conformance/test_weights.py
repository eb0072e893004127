"""Goldens of weights from outside: `nox -s goldens -- gpt2 --weights SOURCE`, tried on a locally saved model."""

import shutil
from pathlib import Path

import pytest

from karat import cli, freeze, gate
from karat.suites import Repository, find_repository, load_by_path

torch = pytest.importorskip("torch", reason="torch is not installed: nox -s tests installs it")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: nox -s tests installs it")
ROOT = find_repository(Path(__file__).parent).root


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Return a copy of this repository, which a freeze may change; the working directory is its root."""
    root = tmp_path / "copy"
    for name in ("validators", "generators", "candidates", "goldens"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*@*", ".*"))
    shutil.copy(ROOT / "tolerances.toml", root)
    monkeypatch.chdir(root)
    return Repository(root)


def saved(folder: Path, seed: int = 1) -> Path:
    """Save a small GPT-2 with random weights, as `save_pretrained` does, and return its folder."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=101, n_positions=40, n_embd=24, n_layer=3, n_head=2, bos_token_id=None, eos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def frozen(repository, tmp_path, capsys):
    """Freeze the goldens of a locally saved model; return the repository and what was printed."""
    assert freeze.main(["gpt2", "--weights", str(saved(tmp_path / "my-gpt2"))]) == 0
    return Repository(repository.root), capsys.readouterr().out


def test_saved_weights_are_frozen_and_checked(frozen, capsys):
    """A model saved with save_pretrained becomes a suite of its own, which the plain candidate passes."""
    repository, _ = frozen
    (name,) = [name for name in repository.suites if "@" in name]
    assert gate.inspect(repository) == []
    assert (
        cli.main(["check", "py:candidates/plain", f"{name}/*", "--contract", "float32", "--contract", "float64"]) == 0
    )
    assert f"{name}/hello/float64: " in capsys.readouterr().out


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
    assert [finding.kind for finding in gate.inspect(Repository(repository.root))] == ["damaged"]


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
