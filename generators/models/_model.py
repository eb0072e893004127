"""Runs a Hugging Face causal model through prefill, decode steps and a greedy continuation, also under noise.

A model's generator says how it is built, and gives `forward`, which runs it once and names its checkpoints; the rest
does not depend on the model. B batch, T tokens, S tokens seen, H heads, G key and value heads, d head size,
V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AttentionInterface, AutoTokenizer, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from karat import Case
from karat.freeze import FreezeError, beside

capture = beside(__file__, "_capture")
noise = beside(__file__, "_noise")
precision = beside(__file__, "_precision")

Arrays = dict[str, NDArray[Any]]
Forward = Callable[[PreTrainedModel, Tensor, Tensor, Tensor, Any, str, Arrays], tuple[Tensor, Any]]
"""forward(model, ids, mask, positions, cache, prefix, found): run once, put checkpoints into `found` under `prefix`;
return logits (B, T, V) and the cache."""

_GROUPED = "karat_grouped"

# --- running ---------------------------------------------------------------------------------------------------------


def run(
    forward: Forward,
    model: PreTrainedModel,
    case: Case,
    inputs: Mapping[str, NDArray[Any]],
    tokens: NDArray[Any] | None = None,
) -> Arrays:
    """Return every checkpoint of `case` as `model` computes them.

    With `tokens` (B, new), known to be the greedy continuation, their logits come from one run of the whole sequence.
    """
    ids, mask, positions = (torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask", "position_ids"))
    wanted = {checkpoint.name for checkpoint in case.checkpoints}
    found: Arrays = {}
    logits, cache = forward(model, ids, mask, positions, None, "", found)
    last = logits[:, -1]  # (B, V)
    found["last_logits"] = to_numpy(last)
    found["greedy_token"] = last.argmax(-1).numpy()
    for temperature in case.params["temperatures"]:
        found[f"probabilities.t{temperature}"] = to_numpy(torch.softmax(last / temperature, -1))
    found["top5_indices"] = last.topk(5).indices.numpy()
    if "decode_ids" in inputs:
        decode(forward, model, torch.from_numpy(inputs["decode_ids"]), mask, positions, cache, found)
    if tokens is not None:
        found["greedy_logits"] = continued(forward, model, ids, mask, positions, tokens)
        found["greedy_tokens"] = tokens
    elif case.params["max_new_tokens"]:
        found["greedy_logits"], found["greedy_tokens"] = generate(model, ids, mask, case.params["max_new_tokens"])
    return {name: array for name, array in found.items() if name in wanted}


def decode(
    forward: Forward, model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, found: Arrays
) -> None:
    """Feed `ids` (B, steps) one at a time through the cache; put the checkpoints into `found` under `step.<n>.`."""
    for step in range(1, ids.shape[1] + 1):
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)  # (B, S)
        forward(model, ids[:, step - 1 : step], mask, positions[:, -1:] + step, cache, f"step.{step}.", found)


def generate(model: PreTrainedModel, ids: Tensor, mask: Tensor, new_tokens: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Continue `ids` greedily with the model's own `generate`; return logits (B, new, V) and tokens (B, new)."""
    with float64_if(model):  # generate casts logits to float32
        result = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
    return to_numpy(torch.stack(result.logits, dim=1).to(model.dtype)), result.sequences[:, ids.shape[1] :].numpy()


def continued(
    forward: Forward, model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, tokens: NDArray[Any]
) -> NDArray[Any]:
    """Return the logits (B, new, V) from which each of `tokens` (B, new) was chosen, without a cache."""
    return whole(forward, model, ids, mask, positions, tokens[:, :-1])["logits"][:, ids.shape[1] - 1 :]


def whole(
    forward: Forward, model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, more: NDArray[Any]
) -> Arrays:
    """Return the checkpoints of one run, without a cache, of `ids` (B, T) and the tokens `more` (B, n) after them."""
    fed = torch.from_numpy(more)
    after = positions[:, -1:] + torch.arange(1, more.shape[1] + 1)  # (B, n)
    found: Arrays = {}
    forward(
        model,
        torch.cat([ids, fed], dim=1),
        torch.cat([mask, torch.ones_like(fed)], dim=1),
        torch.cat([positions, after], dim=1),
        None,
        "",
        found,
    )
    return found


def float64_if(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Return the context in which a float64 model stays float64; a model of lower precision runs as it is."""
    return precision.float64_throughout() if model.dtype == torch.float64 else nullcontext()


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array; bfloat16, which NumPy lacks, as float32, which holds it."""
    tensor = tensor.detach().contiguous()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


# --- attention -------------------------------------------------------------------------------------------------------


def _grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Compute attention as the eager function of Llama-like models does, in the same order; record its parts."""
    groups = module.num_key_value_groups
    keys, values = (x.repeat_interleave(groups, dim=1) for x in (key, value))  # (B, H, S, d)
    scores = torch.matmul(query, keys.transpose(2, 3)) * scaling  # (B, H, T, S)
    masked = scores if attention_mask is None else scores + attention_mask  # (B, H, T, S)
    probabilities = torch.nn.functional.softmax(masked, dim=-1, dtype=torch.float32).to(query.dtype)  # (B, H, T, S)
    context = torch.matmul(probabilities, values)  # (B, H, T, d)
    parts = {"q": query, "keys": key, "values": value}  # heads of the cache, not yet repeated
    parts |= {"scores": scores, "probabilities": probabilities, "context": context}
    capture.record_parts(module.layer_idx, parts)
    return context.transpose(1, 2).contiguous(), probabilities


@contextmanager
def recorded(
    model: PreTrainedModel, outputs: dict[str, torch.nn.Module], inputs: dict[str, torch.nn.Module]
) -> Iterator[dict[str, Tensor]]:
    """Record as `_capture.recorded` does, in a model whose heads are grouped, kept in float64 if it is."""
    eager = model.config._attn_implementation == "eager"  # noqa: SLF001 - transformers has no other name for it
    if eager:
        # Registered anew: another loading of this file may have taken the name.
        AttentionInterface.register(_GROUPED, _grouped_attention)
        AttentionMaskInterface.register(_GROUPED, eager_mask)
        model.set_attn_implementation(_GROUPED)
    try:
        with torch.no_grad(), float64_if(model), capture.recorded(model, outputs, inputs) as found:
            yield found
    finally:
        if eager:
            model.set_attn_implementation("eager")


# --- noise -----------------------------------------------------------------------------------------------------------


class _Upcasting(noise._Perturbing):  # type: ignore[misc, name-defined]  # noqa: SLF001 - it has no public name
    """Perturbs operations, those of modules that compute in float32 whatever they store as what is inside one."""

    inside = False

    def stored(self, x: Tensor) -> Tensor:
        """Round the result of an operation to storage, inside such a module to the accumulation format."""
        rounded: Tensor = self.inner(x) if self.inside else super().stored(x)
        return rounded


@contextmanager
def perturbed(kind: str, seed: int, upcast: Mapping[torch.nn.Module, Callable[[Any], Any]]) -> Iterator[None]:
    """Run the torch code inside under noise, as `_noise.perturbed` does.

    `upcast` are the modules that compute in float32, each with a function that rounds its result to storage, by
    operations of `rounded`.
    """
    mode = _Upcasting(kind, seed)

    def enter(*_: Any) -> None:
        mode.inside = True

    def leave(module: torch.nn.Module, _: Any, result: Any) -> Any:
        mode.inside = False
        return upcast[module](result)

    handles = [module.register_forward_pre_hook(enter) for module in upcast]
    handles += [module.register_forward_hook(leave) for module in upcast]
    try:
        with mode:
            yield
    finally:
        for handle in handles:
            handle.remove()


def rounded(x: Tensor) -> Tensor:
    """Return `x` as a result of an operation, which noise rounds."""
    return x * 1.0


# --- what must hold --------------------------------------------------------------------------------------------------


def cached_against_uncached(
    forward: Forward, model: PreTrainedModel, case: Case, inputs: Mapping[str, NDArray[Any]], found: Arrays
) -> str:
    """Compare the logits of every decode step with a run of the whole sequence without a cache."""
    ids, mask, positions = (torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask", "position_ids"))
    steps = inputs["decode_ids"].shape[1]
    wanted = whole(forward, model, ids, mask, positions, inputs["decode_ids"])["logits"][:, -steps:]  # (B, steps, V)
    cached = np.concatenate([found[f"step.{step}.logits"] for step in range(1, steps + 1)], axis=1)  # (B, steps, V)
    return same(cached, wanted, f"{case.name}: cached equals uncached")


def padded_against_alone(
    forward: Forward, model: PreTrainedModel, case: Case, inputs: Mapping[str, NDArray[Any]], found: Arrays
) -> str:
    """Compare the logits of each row of a padded batch with a run of that row alone, without its padding."""
    pairs = []
    for row, mask in enumerate(inputs["attention_mask"]):
        first = int(mask.argmax())
        ids, valid = (torch.from_numpy(inputs[name][row : row + 1, first:]) for name in ("input_ids", "attention_mask"))
        alone: Arrays = {}
        forward(model, ids, valid, torch.arange(len(mask) - first)[None], None, "", alone)
        pairs.append((found["logits"][row, first:], alone["logits"][0]))
    together, apart = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return same(together, apart, f"{case.name}: padded rows equal rows alone")


def same(found: NDArray[Any], wanted: NDArray[Any], text: str, limit: float = 1e-12) -> str:
    """Return a line that says how near two arrays are; raise `FreezeError` if that is not near enough."""
    worst = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not worst <= limit:
        raise FreezeError(f"{text}: no, they differ by {worst:.1e} of the scale, allowed {limit}")
    return f"{text}, worst difference {worst:.1e} of the scale"


def causal(before: NDArray[Any], after: NDArray[Any], *, at: int, text: str) -> str:
    """Check that logits (1, T, V) of prompts that differ in the token `at` are the same before it, and others after."""
    if not np.array_equal(before[:, :at], after[:, :at]):
        raise FreezeError(f"{text}: a changed token {at} changes logits before it: the model is not causal")
    for token in range(at, before.shape[1]):
        if not np.abs(before[:, token] - after[:, token]).max() > 1e-3:
            raise FreezeError(f"{text}: a changed token {at} does not change the logits of token {token}")
    return f"{text}: a changed token {at} changes no logits before it, and all from it on"


def tokenize(source: str, text: str) -> list[int] | None:
    """Return the token ids of `text`, or None where `source` comes without a tokenizer."""
    names = ("tokenizer.json", "tokenizer.model", "vocab.json")
    if Path(source).is_dir() and not any((Path(source) / name).exists() for name in names):
        return None
    return [int(i) for i in AutoTokenizer.from_pretrained(source)(text)["input_ids"]]
