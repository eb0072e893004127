"""Llama: the model whose float64 run is the golden passes in every format; weights from outside become a suite."""

from pathlib import Path

import numpy as np
import pytest

from karat import cli, formats, freeze, gate
from karat.candidates import Failure, Request
from karat.exchange import Outputs
from karat.session import Session
from karat.suites import Repository, find_repository, load_by_path
from karat.tensors import of_array

torch = pytest.importorskip("torch", reason="torch is not installed: nox -s tests installs it")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: nox -s tests installs it")
REPOSITORY = find_repository(Path(__file__).parent)
SUITE = REPOSITORY.suite("llama")


class HuggingFace:
    """Hugging Face's model with eager attention, run in the contract's own format."""

    spec = "huggingface"

    def __init__(self) -> None:
        """Load the generator, which knows how to run the model."""
        self._generator = load_by_path(REPOSITORY.generator("llama"))

    def run(self, request: Request) -> Outputs | Failure:
        """Return the outputs of one case."""
        dtype = getattr(torch, request.contract.storage)
        found = self._generator.reference(request.case, request.arrays, dtype)
        storage = formats.lookup(request.contract.storage).dtype
        return Outputs({k: of_array(v.astype(storage) if v.dtype.kind == "f" else v) for k, v in found.items()})

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("contract", ["float64", "float32", "bfloat16", "float16"])
def test_hugging_face_in_lower_precision_passes(contract: str) -> None:
    """The model whose float64 run is the golden passes in every format that the suite declares."""
    session = Session(REPOSITORY, HuggingFace(), [SUITE])
    verdicts = [verdict for case in SUITE.cases for verdict in session.verdicts(SUITE, case, contract)]
    assert [verdict.name for verdict in verdicts if verdict.status != "pass"] == []


def test_the_frequencies_are_the_configuration_s() -> None:
    """The frequencies of the contract are those that transformers computes from the case's rope_parameters."""
    generator = load_by_path(REPOSITORY.generator("llama"))
    for name in ("tiny-prompt", "tiny-llama3"):
        case = SUITE.case(name)
        inputs = {key: recipe.draw() for key, recipe in case.inputs.items()}
        model = generator.build(case, inputs)
        assert "frequencies are those that transformers computes" in generator.frequencies(model, case, inputs)
        inputs["inverse_frequencies"] = np.roll(inputs["inverse_frequencies"], 1)
        with pytest.raises(freeze.FreezeError, match="transformers computes"):
            generator.frequencies(model, case, inputs)


# --- weights from outside ---------------------------------------------------------------------------------------------


@pytest.fixture
def repository(copy_of, tmp_path, monkeypatch):
    """Return a copy of this repository, which a freeze may change; the working directory is its root."""
    found = copy_of("llama", tmp_path / "copy")
    monkeypatch.chdir(found.root)
    return found


def saved(folder: Path, **options) -> Path:
    """Save a small Llama with random weights, as `save_pretrained` does, and return its folder."""
    torch.manual_seed(1)
    config = {
        "vocab_size": 101,
        "hidden_size": 24,
        "intermediate_size": 34,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config | options))
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [False, True])
def test_saved_weights_are_frozen_and_checked(repository, tmp_path, capsys, tied):
    """A model saved with save_pretrained becomes a suite of its own, tied or not, which the plain candidate passes."""
    source = saved(tmp_path / "my-llama", tie_word_embeddings=tied, rms_norm_eps=1e-4)
    assert freeze.main(["llama", "--weights", str(source)]) == 0
    printed = capsys.readouterr().out
    assert "not checked: no value of the weights of" in printed
    fresh = Repository(repository.root)
    (name,) = [name for name in fresh.suites if "@" in name]
    assert fresh.suite(name).cases[0].params["rms_norm_eps"] == 1e-4
    assert gate.inspect(fresh, [fresh.suite("llama"), fresh.suite(name)]) == []
    assert (
        cli.main(["check", "py:candidates/plain", f"{name}/*", "--contract", "float32", "--contract", "float64"]) == 0
    )
    assert f"{name}/hello/float64: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attention_bias": True}, "has biases"),
        ({"hidden_act": "gelu"}, "another activation than silu"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type 'dynamic' is none of default, linear, llama3",
        ),
    ],
)
def test_what_the_contract_does_not_have_is_refused(repository, tmp_path, capsys, options, text):
    """Weights of a model that the contract does not describe are refused by name, and nothing is frozen."""
    assert freeze.main(["llama", "--weights", str(saved(tmp_path / "other", **options))]) == 3
    assert text in capsys.readouterr().err


def test_another_architecture_is_refused(repository, tmp_path, capsys):
    """Weights of a model that is not a Llama are refused by name."""
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    assert freeze.main(["llama", "--weights", str(tmp_path / "gpt2")]) == 3
    assert "is a GPT2LMHeadModel, not a LlamaForCausalLM" in capsys.readouterr().err


def test_a_source_that_is_not_there_is_named(repository, capsys):
    """A hub name or folder that cannot be loaded is a message, not a traceback, and nothing is frozen."""
    assert freeze.main(["llama", "--weights", "no-such/model"]) == 3
    assert "no-such/model: no weights from this hub name or folder" in capsys.readouterr().err
