"""The reference of the suite `llama`: Hugging Face's LlamaForCausalLM, unmodified, in float64 on the CPU.

Source: transformers, models/llama/modeling_llama.py. B batch, T tokens, H heads, G key and value heads, d head size.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from karat import Case, Suite
from karat.freeze import FreezeError, beside, plain_candidate

VERSIONS = ("torch", "transformers")
WITNESS = "the plain NumPy candidate in float64"

models = beside(__file__, "_model")

NOISE_STEP = models.noise.STEP

Arrays = dict[str, NDArray[Any]]
STATIC = ("default", "linear", "llama3")
"""Kinds of frequencies that are the same for every length, and whose tables are not scaled."""


def reference(case: Case, inputs: Mapping[str, NDArray[Any]], dtype: torch.dtype = torch.float64) -> Arrays:
    """Return every checkpoint of `case` as the model computes them in `dtype`: int64, and floats of that dtype."""
    return run(build(case, inputs, dtype), case, inputs)


def perturbed(case: Case, inputs: Mapping[str, NDArray[Any]], kind: str, seed: int) -> Arrays:
    """Return every checkpoint of `case` as the model computes them in float64 under noise of the given kind."""
    if _kept.get("inputs") is not inputs:
        model = build(case, inputs)
        _kept.update(inputs=inputs, model=model, tokens=run(model, case, inputs).get("greedy_tokens"))
    with models.perturbed(kind, seed, upcast(_kept["model"])):
        return run(_kept["model"], case, inputs, _kept["tokens"])


_kept: dict[str, Any] = {}  # the model of the last case that was perturbed, and its greedy tokens


def run(
    model: LlamaForCausalLM,
    case: Case,
    inputs: Mapping[str, NDArray[Any]],
    tokens: NDArray[Any] | None = None,
) -> Arrays:
    """Return every checkpoint of `case` as `model` computes them; `tokens` are its greedy continuation, if known."""
    found: Arrays = models.run(forward, model, case, inputs, tokens)
    return found


def witness(case: Case, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return every checkpoint of `case` as the plain NumPy definition computes them in float64."""
    return plain_candidate(__file__, "llama", case, inputs)


def build(case: Case, inputs: Mapping[str, NDArray[Any]], dtype: torch.dtype = torch.float64) -> LlamaForCausalLM:
    """Return the model with the case's weights and frequencies in evaluation mode."""
    weights = {name.removeprefix("weights/"): value for name, value in inputs.items() if name.startswith("weights/")}
    vocabulary, width = weights["model.embed_tokens.weight"].shape
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=weights["model.layers.0.mlp.gate_proj.weight"].shape[0],
        num_hidden_layers=sum(name.endswith("input_layernorm.weight") for name in weights),
        num_attention_heads=case.params["num_attention_heads"],
        num_key_value_heads=case.params["num_key_value_heads"],
        head_dim=2 * len(inputs["inverse_frequencies"]),
        rms_norm_eps=case.params["rms_norm_eps"],
        rope_parameters=dict(case.params["rope_parameters"]),
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).to(dtype).eval()
    model.load_state_dict({name: torch.from_numpy(value).to(dtype) for name, value in weights.items()}, strict=True)
    # The frequencies are an input. They stay float32 in a model of lower precision, as from_pretrained keeps them.
    wide = dtype if dtype == torch.float64 else torch.float32
    model.model.rotary_emb.inv_freq = torch.from_numpy(inputs["inverse_frequencies"]).to(wide)
    return model


def forward(
    model: LlamaForCausalLM,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    cache: Any,
    prefix: str,
    found: Arrays,
) -> tuple[torch.Tensor, Any]:
    """Run the model once, put its checkpoints into `found` under `prefix`; return logits (B, T, V) and the cache."""
    body = model.model
    outputs: dict[str, torch.nn.Module] = {"embeddings": body.embed_tokens, "norm": body.norm}
    inputs: dict[str, torch.nn.Module] = {}
    for i, layer in enumerate(body.layers):
        inputs |= {f"layers.{i}.residual": layer.post_attention_layernorm, f"layers.{i}.gated": layer.mlp.down_proj}
        outputs |= {
            f"layers.{i}.input_norm": layer.input_layernorm,
            f"layers.{i}.q": layer.self_attn.q_proj,
            f"layers.{i}.k": layer.self_attn.k_proj,
            f"layers.{i}.v": layer.self_attn.v_proj,
            f"layers.{i}.attention_output": layer.self_attn,
            f"layers.{i}.post_attention_norm": layer.post_attention_layernorm,
            f"layers.{i}.gate": layer.mlp.gate_proj,
            f"layers.{i}.up": layer.mlp.up_proj,
            f"layers.{i}.activation": layer.mlp.act_fn,
            f"layers.{i}.ffn_output": layer.mlp,
            f"layers.{i}.block_output": layer,
        }
    tables: list[torch.Tensor] = []
    handle = body.rotary_emb.register_forward_hook(lambda _module, _args, result: tables.extend(result))
    try:
        with models.recorded(model, outputs, inputs) as trace:
            result = model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    finally:
        handle.remove()
    trace |= {name: table.chunk(2, -1)[0] for name, table in zip(("rotary_cos", "rotary_sin"), tables, strict=True)}
    for i, layer in enumerate(body.layers):
        for name in ("q", "k", "v"):
            part = trace[f"layers.{i}.{name}"].unflatten(-1, (-1, layer.self_attn.head_dim))
            trace[f"layers.{i}.{name}"] = part.transpose(1, 2)  # (B, T, heads d) -> (B, heads, T, d)
        keys = trace.pop(f"{i}/keys")  # (B, G, S, d)
        trace |= {f"layers.{i}.q_rotated": trace.pop(f"{i}/q"), f"layers.{i}.k_rotated": keys[:, :, -ids.shape[1] :]}
        trace |= {f"layers.{i}.key_cache": keys, f"layers.{i}.value_cache": trace.pop(f"{i}/values")}
        for name in ("scores", "probabilities", "context"):
            trace[f"layers.{i}.attention_{name}"] = trace.pop(f"{i}/{name}")
    trace["logits"] = result.logits
    found |= {prefix + name: models.to_numpy(tensor) for name, tensor in trace.items()}
    return result.logits, result.past_key_values


def upcast(model: LlamaForCausalLM) -> dict[torch.nn.Module, Callable[[Any], Any]]:
    """Return the modules that compute in float32 whatever they store, each with what is rounded of its result."""
    norms = [module for module in model.modules() if type(module) is type(model.model.norm)]
    found: dict[torch.nn.Module, Callable[[Any], Any]] = dict.fromkeys(norms, twice_rounded)
    return found | {model.model.rotary_emb: tables_rounded}


def twice_rounded(normed: torch.Tensor) -> torch.Tensor:
    """Round normalised values, and their product with the weight."""
    rounded: torch.Tensor = models.rounded(models.rounded(normed))
    return rounded


def tables_rounded(tables: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Round cos and sin (B, T, d), both halves of which are the same numbers."""
    halves = (models.rounded(table.chunk(2, -1)[0]) for table in tables)
    return tuple(torch.cat([half, half], -1) for half in halves)


# --- what must hold of the frozen numbers ----------------------------------------------------------------------------


def checks(suite: Suite, goldens: Mapping[str, Arrays], draw: Callable[[Case], Arrays]) -> list[str]:
    """Return a line for each relation that was found to hold; raise `FreezeError` where one does not."""
    lines = []
    for case in suite.cases:
        inputs, found = draw(case), goldens[case.name]
        model = build(case, inputs)
        lines += [frequencies(model, case, inputs), rotated(case, inputs, found)]
        if "decode_ids" in case.inputs:
            lines.append(models.cached_against_uncached(forward, model, case, inputs, found))
        if not inputs["attention_mask"].all():
            lines.append(models.padded_against_alone(forward, model, case, inputs, found))
        elif inputs["input_ids"].shape[1] > 1:
            lines += [moved(model, case, inputs, found), changed(model, case, inputs, found)]
    return lines


def frequencies(model: LlamaForCausalLM, case: Case, inputs: Mapping[str, NDArray[Any]]) -> str:
    """Check that the frequencies are, to a float32's last bit, what transformers computes of `rope_parameters`."""
    other = model.model.rotary_emb.original_inv_freq.double().numpy()
    given = inputs["inverse_frequencies"].astype(np.float64)
    worst = float(np.abs(given / other - 1).max())
    if not worst <= 2.0**-22:
        raise FreezeError(f"{case.name}: frequencies {given.tolist()}, transformers computes {other.tolist()}")
    return f"{case.name}: frequencies are those that transformers computes, worst difference {worst:.1e}"


def rotated(case: Case, inputs: Mapping[str, NDArray[Any]], found: Arrays) -> str:
    """Compare the rotated queries of the first layer with a product of complex numbers."""
    angles = inputs["position_ids"][..., None] * inputs["inverse_frequencies"].astype(np.float64)  # (B, T, d/2)
    q, turned = (np.split(found[f"layers.0.{name}"], 2, axis=-1) for name in ("q", "q_rotated"))  # (B, H, T, d/2)
    wanted = (q[0] + 1j * q[1]) * np.exp(1j * angles)[:, None]
    line: str = models.same(turned[0] + 1j * turned[1], wanted, f"{case.name}: rotary embedding is a complex product")
    return line


def moved(model: LlamaForCausalLM, case: Case, inputs: Mapping[str, NDArray[Any]], found: Arrays) -> str:
    """Check that logits depend on differences of positions only."""
    ids, mask, positions = (torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask", "position_ids"))
    later: Arrays = {}
    forward(model, ids, mask, positions + 100, None, "", later)
    text = f"{case.name}: logits are the same 100 positions later"
    line: str = models.same(later["logits"], found["logits"], text, limit=1e-11)
    return line


def changed(model: LlamaForCausalLM, case: Case, inputs: Mapping[str, NDArray[Any]], found: Arrays) -> str:
    """Change one token, and look which logits change."""
    ids, mask, positions = (torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask", "position_ids"))
    at = ids.shape[1] // 2
    other, after = ids.clone(), dict[str, Any]()
    other[:, at] = (other[:, at] + model.config.vocab_size // 2) % model.config.vocab_size
    forward(model, other, mask, positions, None, "", after)
    line: str = models.causal(found["logits"], after["logits"], at=at, text=case.name)
    return line


# --- weights from outside --------------------------------------------------------------------------------------------

HELLO = [1, 15043]  # "Hello" in the vocabulary of Llama 2
QUESTION = "What is the answer to life, the universe, and everything?"


def weights_from(source: str) -> tuple[dict[str, Any], Arrays]:
    """Load `source`, a hub name or a folder of `save_pretrained`; return the suite's config and its stored inputs."""
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FreezeError(f"{source}: no weights from this hub name or folder: {reason}") from None
    if not isinstance(model, LlamaForCausalLM):
        raise FreezeError(f"{source} is a {type(model).__name__}, not a LlamaForCausalLM")
    config = model.config
    if config.attention_bias or config.mlp_bias or config.hidden_act != "silu":
        raise FreezeError(f"{source} has biases, or another activation than silu: the contract of llama has neither")
    if config.rope_parameters["rope_type"] not in STATIC:
        raise FreezeError(f"{source}: rope_type {config.rope_parameters['rope_type']!r} is none of {', '.join(STATIC)}")
    ids = {"hello": models.tokenize(source, "Hello"), "question": models.tokenize(source, QUESTION)}
    ids["hello"] = ids["hello"] or [i % config.vocab_size for i in HELLO]
    about = {"hello": '"Hello", or its token ids modulo the vocabulary', "question": QUESTION}
    description = {
        "model": {
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "vocab_size": config.vocab_size,
            "rms_norm_eps": config.rms_norm_eps,
            "rope_parameters": dict(config.rope_parameters),
        },
        "prompts": [
            {"name": name, "about": about[name], "ids": prompt, "new_tokens": 10}
            for name, prompt in ids.items()
            if prompt
        ],
        "source": source,
    }
    stored = {f"weights/{name}": value.numpy() for name, value in model.state_dict().items()}
    return description, stored | {"inverse_frequencies": model.model.rotary_emb.inv_freq.float().numpy()}


def known_values(source: str | None, config: Mapping[str, Any], goldens: Mapping[str, Arrays]) -> list[str]:
    """Return what was checked of the published values of released weights: of Llama's none is known here."""
    del config, goldens
    return [] if source is None else [f"not checked: no value of the weights of {source} is known"]
