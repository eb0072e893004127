"""generators/models/_capture.py: what a model computes is recorded, and nothing else changes."""

from pathlib import Path

import pytest

from karat.suites import find_repository, load_by_path

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
CAPTURE = find_repository(Path(__file__).parent).root / "generators" / "models" / "_capture.py"
IDS = torch.tensor([[3, 1, 4, 1, 5]])


@pytest.fixture(scope="module")
def model():
    """Return a GPT-2 of two layers, in float64."""
    config = transformers.GPT2Config(
        n_layer=2, n_head=3, n_embd=12, vocab_size=11, n_positions=8, bos_token_id=None, eos_token_id=None
    )
    torch.manual_seed(7)
    return transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager").double().eval()


@torch.no_grad()
def recorded(capture, model):
    """Return what `capture` records of a run, and the logits of that run."""
    with capture.recorded(model, {"block": model.transformer.h[0]}, {"residual": model.transformer.h[1].ln_2}) as found:
        logits = model(IDS).logits
    return found, logits


def test_a_recorded_run_is_bit_identical(model):
    """Recording changes no bit of what the eager model computes, and is over when it is over."""
    with torch.no_grad():
        before = model(IDS).logits
    found, during = recorded(load_by_path(CAPTURE), model)
    size = len(found)
    with torch.no_grad():
        after = model(IDS).logits
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert len(found) == size == 2 + 2 * 6
    assert found["0/scores"].shape == (1, 3, 5, 5)
    assert (found["1/probabilities"].triu(1) == 0).all()


def test_the_file_may_be_loaded_twice(model):
    """A second loading of the file takes nothing away from the first."""
    first, second = load_by_path(CAPTURE), load_by_path(CAPTURE)
    for capture in (first, second, first):
        found, _ = recorded(capture, model)
        assert {"0/q", "1/context", "block", "residual"} <= set(found)


def test_an_attention_function_of_ones_own_is_left_alone(model):
    """A model whose attention is not the eager one keeps it, and records what it hands over."""
    capture = load_by_path(CAPTURE)

    def attention(module, query, key, value, attention_mask, **_):
        capture.record_parts(module.layer_idx, {"mine": query})
        return torch.zeros_like(query).transpose(1, 2), None

    transformers.AttentionInterface.register("karat_test", attention)
    model.set_attn_implementation("karat_test")
    try:
        found, _ = recorded(capture, model)
    finally:
        model.set_attn_implementation("eager")
    assert set(found) == {"block", "residual", "0/mine", "1/mine"}
