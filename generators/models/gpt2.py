"""The reference of the suite `gpt2`: Hugging Face's GPT2LMHeadModel, unmodified, in float64 on the CPU.

Source: transformers, models/gpt2/modeling_gpt2.py. B batch, T tokens, S tokens seen, D width, H heads, d = D / H.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from karat import Case, Suite
from karat.freeze import FreezeError, beside, plain_candidate

VERSIONS = ("torch", "transformers")
WITNESS = "the plain NumPy candidate in float64"

models = beside(__file__, "_model")

NOISE_STEP = models.noise.STEP

Arrays = dict[str, NDArray[Any]]


def reference(case: Case, inputs: Mapping[str, NDArray[Any]], dtype: torch.dtype = torch.float64) -> Arrays:
    """Return every checkpoint of `case` as the model computes them in `dtype`: int64, and floats of that dtype."""
    return run(build(case, inputs, dtype), case, inputs)


def perturbed(case: Case, inputs: Mapping[str, NDArray[Any]], kind: str, seed: int) -> Arrays:
    """Return every checkpoint of `case` as the model computes them in float64 under noise of the given kind."""
    if _kept.get("inputs") is not inputs:
        model = build(case, inputs)
        _kept.update(inputs=inputs, model=model, tokens=run(model, case, inputs).get("greedy_tokens"))
    with models.noise.perturbed(kind, seed):
        return run(_kept["model"], case, inputs, _kept["tokens"])


_kept: dict[str, Any] = {}  # the model of the last case that was perturbed, and its greedy tokens


def run(
    model: GPT2LMHeadModel,
    case: Case,
    inputs: Mapping[str, NDArray[Any]],
    tokens: NDArray[Any] | None = None,
) -> Arrays:
    """Return every checkpoint of `case` as `model` computes them; `tokens` are its greedy continuation, if known."""
    found: Arrays = models.run(forward, model, case, inputs, tokens)
    return found


def witness(case: Case, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return every checkpoint of `case` as the plain NumPy definition computes them in float64."""
    return plain_candidate(__file__, "gpt2", case, inputs)


def build(case: Case, inputs: Mapping[str, NDArray[Any]], dtype: torch.dtype = torch.float64) -> GPT2LMHeadModel:
    """Return the model with the case's weights in evaluation mode."""
    weights = {name.removeprefix("weights/"): value for name, value in inputs.items() if name.startswith("weights/")}
    vocabulary, width = weights["transformer.wte.weight"].shape
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=weights["transformer.wpe.weight"].shape[0],
        n_embd=width,
        n_layer=sum(name.endswith("ln_1.weight") for name in weights),
        n_head=case.params["n_head"],
        n_inner=weights["transformer.h.0.mlp.c_fc.weight"].shape[1],
        layer_norm_epsilon=case.params["layer_norm_epsilon"],
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    model = GPT2LMHeadModel(config).to(dtype).eval()
    state = {name: torch.from_numpy(value).to(dtype) for name, value in weights.items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state, strict=True)
    return model


def forward(
    model: GPT2LMHeadModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    cache: Any,
    prefix: str,
    found: Arrays,
) -> tuple[torch.Tensor, Any]:
    """Run the model once, put its checkpoints into `found` under `prefix`; return logits (B, T, V) and the cache."""
    body = model.transformer
    outputs: dict[str, torch.nn.Module] = {"embeddings": body.drop, "ln_f": body.ln_f}
    inputs: dict[str, torch.nn.Module] = {}
    for i, block in enumerate(body.h):
        inputs[f"h.{i}.residual"] = block.ln_2
        outputs |= {
            f"h.{i}.ln_1": block.ln_1,
            f"h.{i}.qkv": block.attn.c_attn,
            f"h.{i}.attention_output": block.attn,
            f"h.{i}.ln_2": block.ln_2,
            f"h.{i}.c_fc": block.mlp.c_fc,
            f"h.{i}.activation": block.mlp.act,
            f"h.{i}.ffn_output": block.mlp,
            f"h.{i}.block_output": block,
        }
    with torch.no_grad(), models.float64_if(model), models.capture.recorded(model, outputs, inputs) as trace:
        result = model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    for i in range(len(body.h)):
        _, k, v = (
            part.unflatten(-1, (-1, body.h[i].attn.head_dim)).transpose(1, 2)  # (B, T, D) -> (B, H, T, d)
            for part in trace.pop(f"h.{i}.qkv").chunk(3, dim=-1)
        )
        trace |= {f"h.{i}.k": k, f"h.{i}.v": v, f"h.{i}.q": trace.pop(f"{i}/q")}
        trace |= {f"h.{i}.key_cache": trace.pop(f"{i}/keys"), f"h.{i}.value_cache": trace.pop(f"{i}/values")}
        for part in ("scores", "probabilities", "context"):
            trace[f"h.{i}.attention_{part}"] = trace.pop(f"{i}/{part}")
    trace["logits"] = result.logits
    found |= {prefix + name: models.to_numpy(tensor) for name, tensor in trace.items()}
    return result.logits, result.past_key_values


# --- what must hold of the frozen numbers ----------------------------------------------------------------------------


def checks(suite: Suite, goldens: Mapping[str, Arrays], draw: Callable[[Case], Arrays]) -> list[str]:
    """Return a line for each relation between cases that was found to hold; raise `FreezeError` where one does not."""
    lines = []
    for case in suite.cases:
        if "decode_ids" in case.inputs:
            inputs = draw(case)
            model = build(case, inputs)
            lines.append(models.cached_against_uncached(forward, model, case, inputs, goldens[case.name]))
    if {"tiny-prompt", "tiny-prompt-changed"} <= set(goldens):
        before, after = (goldens[name]["logits"] for name in ("tiny-prompt", "tiny-prompt-changed"))
        lines.append(models.causal(before, after, at=5, text="tiny-prompt, tiny-prompt-changed"))
    return lines


# --- weights from outside --------------------------------------------------------------------------------------------

HELLO = [15496, 13]
# Known values of the released models: q k^T / sqrt(d) of block 0, head 0 for "Hello." (124M, from a float32 run), and
# two continuations (355M).
HELLO_SCORES = [[0.15886375, -1.5639379], [-0.11345699, -3.7364058]]
ANSWER = "What is the answer to life, the universe, and everything?"
CONTINUATIONS = {
    "hello": "Hello. I'm a little late to the party, but",
    "answer": ANSWER + "\n\nThe answer is that we are all one",
}


def weights_from(source: str) -> tuple[dict[str, Any], Arrays]:
    """Load `source`, a hub name or a folder of `save_pretrained`; return the suite's config and its stored inputs."""
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FreezeError(f"{source}: no weights from this hub name or folder: {reason}") from None
    if not isinstance(model, GPT2LMHeadModel):
        raise FreezeError(f"{source} is a {type(model).__name__}, not a GPT2LMHeadModel")
    config = model.config
    text_ids = {"hello": models.tokenize(source, "Hello."), "answer": models.tokenize(source, ANSWER)}
    ids = {"hello": text_ids["hello"] or [i % config.vocab_size for i in HELLO], "answer": text_ids["answer"]}
    about = {"hello": '"Hello.", or its token ids modulo the vocabulary', "answer": ANSWER}
    description = {
        "model": {
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_embd": config.n_embd,
            "n_inner": config.n_inner or 4 * config.n_embd,
            "n_positions": config.n_positions,
            "vocab_size": config.vocab_size,
            "layer_norm_epsilon": config.layer_norm_epsilon,
        },
        "prompts": [
            {"name": name, "about": about[name], "ids": ids[name], "new_tokens": 10} for name in ids if ids[name]
        ],
        "source": source,
    }
    state = model.state_dict()
    weights = {f"weights/{name}": value.numpy() for name, value in state.items() if name.startswith("transformer.")}
    return description, weights


def known_values(source: str | None, config: Mapping[str, Any], goldens: Mapping[str, Arrays]) -> list[str]:
    """Check the published values of the released weights; return a line for each: checked, or not checked and why.

    Raise `FreezeError` where one is wrong. The released models are known by name: `gpt2` and `gpt2-medium`.
    """
    name = Path(source).name.lower() if source else ""
    tokens = f'"Hello." is {HELLO}'
    scores = 'h.0.attention_scores of head 0 for "Hello." in the 124M model'
    texts = {case: f"the 355M model continues {case!r} as published" for case in CONTINUATIONS}
    if name not in ("gpt2", "gpt2-medium"):
        reason = "the weights are not those of gpt2 or gpt2-medium"
        return [f"not checked: {what} ({reason})" for what in (tokens, scores, *texts.values())]
    lines = []
    hello = models.tokenize(str(source), "Hello.")
    if hello is not None and hello != HELLO:
        raise FreezeError(f"{source}: its tokenizer turns 'Hello.' into {hello}, known: {HELLO}")
    lines.append(f"checked: {tokens}" if hello else f"not checked: {tokens} (no tokenizer in {source})")
    if name == "gpt2":
        found = goldens["hello"]["h.0.attention_scores"][0, 0]  # (2, 2)
        if not np.allclose(found, HELLO_SCORES, rtol=0, atol=1e-4):
            raise FreezeError(f"{source}: attention scores of 'Hello.' are {found.tolist()}, known: {HELLO_SCORES}")
        lines.append(f"checked: {scores}")
    else:
        lines.append(f"not checked: {scores} (the weights are those of {name})")
    for case, text in CONTINUATIONS.items():
        if name != "gpt2-medium" or hello is None or case not in goldens:
            lines.append(f"not checked: {texts[case]} (the weights are those of {name}, or have no tokenizer)")
            continue
        prompt = next(prompt["ids"] for prompt in config["prompts"] if prompt["name"] == case)
        continued = AutoTokenizer.from_pretrained(str(source)).decode(
            [*prompt, *goldens[case]["greedy_tokens"][0].tolist()]
        )
        if continued != text:
            raise FreezeError(f"{source}: {case} continues as {continued!r}, known: {text!r}")
        lines.append(f"checked: {texts[case]}")
    return lines
