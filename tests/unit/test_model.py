"""generators/models/_model.py: what a model of grouped heads computes is recorded; noise is where it belongs."""

from pathlib import Path

import pytest

from karat.suites import find_repository, load_by_path

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
MODEL = find_repository(Path(__file__).parent).root / "generators" / "models" / "_model.py"
IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


@pytest.fixture(scope="module")
def model():
    """Return a Llama of two layers, in float64."""
    config = transformers.LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        hidden_size=12,
        intermediate_size=10,
        vocab_size=11,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(7)
    return transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager").double().eval()


def recorded(models, model, mask=MASK):
    """Return what is recorded of a run, and the logits of that run."""
    with models.recorded(model, {"gate": model.model.layers[0].mlp.gate_proj}, {}) as found:
        logits = model(IDS, attention_mask=mask).logits
    return found, logits


def run(model, mask=MASK):
    """Return the logits of a run that nobody looks at."""
    with torch.no_grad():
        return model(IDS, attention_mask=mask).logits


def test_a_recorded_run_is_bit_identical(model):
    """Recording changes no bit of what the eager model computes, and is over when it is over."""
    models = load_by_path(MODEL)
    with models.float64_if(model):
        before = run(model)
    found, during = recorded(models, model)
    with models.float64_if(model):
        after = run(model)
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert len(found) == 1 + 2 * 6
    assert found["0/keys"].shape == found["0/values"].shape == (2, 2, 5, 6)
    assert found["0/scores"].shape == found["1/probabilities"].shape == (2, 4, 5, 5)
    assert found["1/probabilities"].dtype == torch.float64


def test_a_recorded_run_stays_float64(model):
    """What the model casts to float32, even where it is in float64, is promoted."""
    _, logits = recorded(load_by_path(MODEL), model, mask=None)
    difference = (run(model, mask=None) - logits).abs().max().item()
    assert 1e-10 < difference < 1e-5


def test_the_file_may_be_loaded_twice(model):
    """A second loading of the file takes nothing away from the first."""
    first, second = load_by_path(MODEL), load_by_path(MODEL)
    for models in (first, second, first):
        found, _ = recorded(models, model)
        assert {"0/q", "1/context", "gate"} <= set(found)


class Upcast(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch is not installed where types are checked
    """Computes a square, a sum and a root."""

    def forward(self, x):
        """Return the norm of the last axis."""
        return (x * x).sum(-1, keepdim=True).sqrt()


@pytest.mark.parametrize("upcast", [False, True])
def test_what_a_module_computes_in_float32_is_not_rounded_to_storage(upcast):
    """Inside an upcasting module, only what comes out of it is rounded to storage."""
    models, module = load_by_path(MODEL), Upcast()
    x = torch.linspace(1, 2, 4000, dtype=torch.float64).reshape(1000, 4)
    errors = {}
    for kind in ("rounding", "accumulation"):
        with models.perturbed(kind, 3, {module: models.rounded} if upcast else {}):
            noisy = module(x)
        relative = noisy / (x * x).sum(-1, keepdim=True).sqrt() - 1
        errors[kind] = (relative.square().mean().sqrt() / models.noise.STEP).item()
    once = 3**-0.5  # uniform in (-1, 1)
    if upcast:
        assert errors["rounding"] == pytest.approx(once, rel=0.1)
        assert errors["accumulation"] > once
    else:
        assert errors["rounding"] > 1.1 * once
        assert errors["accumulation"] < once


def test_noise_is_over_when_it_is_over():
    """After a replay a module is as it was."""
    models, module = load_by_path(MODEL), Upcast()
    x = torch.ones(2, 3, dtype=torch.float64)
    before = module(x)
    with models.perturbed("rounding", 1, {module: models.rounded}):
        assert not torch.equal(module(x), before)
    assert torch.equal(module(x), before)


def test_what_does_not_hold_stops_the_freeze():
    """A relation that does not hold is an error that says by how much."""
    models = load_by_path(MODEL)
    one, two = torch.ones(1, 3, 2).numpy(), torch.ones(1, 3, 2).numpy()
    assert "worst difference 0.0e+00" in models.same(one, two, "equal")
    two[0, 1] += 0.5
    with pytest.raises(models.FreezeError, match=r"equal: no, they differ by 3\.3e-01 of the scale"):
        models.same(one, two, "equal")
    with pytest.raises(models.FreezeError, match="does not change the logits of token 2"):
        models.causal(one, two, at=1, text="case")
    with pytest.raises(models.FreezeError, match="changes logits before it"):
        models.causal(one, two, at=2, text="case")
