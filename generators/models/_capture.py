"""Captures what an unmodified Hugging Face model computes: hooks on modules, one attention function for the rest.

While it records, transformers knows an attention function that does what the eager one does, in the same order, so that
its results are bit-identical; it also records scores, probabilities and context, which no module returns.
`output_hidden_states` is not used: its last entry is taken after the final norm.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

_NAME = "karat_recording"
_recorders: list[Callable[[str, torch.Tensor], None]] = []


def record_parts(layer: int, parts: Mapping[str, torch.Tensor]) -> None:
    """Record parts of attention as `<layer>/<part>`; for attention functions that take the place of the eager one."""
    for record in _recorders:
        for part, tensor in parts.items():
            record(f"{layer}/{part}", tensor)


def _recording_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention as transformers' eager function does; record its parts as `<layer>/<part>`."""
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(-1, -2)) * scaling  # (B, H, T, S)
    masked = scores if attention_mask is None else scores + attention_mask  # (B, H, T, S)
    probabilities = torch.nn.functional.softmax(masked, dim=-1)  # (B, H, T, S)
    context = torch.matmul(probabilities, value)  # (B, H, T, d)
    parts = {
        "q": query,
        "keys": key,
        "values": value,
        "scores": scores,
        "probabilities": probabilities,
        "context": context,
    }
    record_parts(module.layer_idx, parts)
    return context.transpose(1, 2), probabilities


@contextmanager
def _recording(model: PreTrainedModel) -> Iterator[None]:
    """Replace the eager attention of `model` as long as this lasts; leave others alone."""
    if model.config._attn_implementation != "eager":  # noqa: SLF001 - transformers has no other name for it
        yield
        return
    # Registered anew: another loading of this file may have taken the name.
    AttentionInterface.register(_NAME, _recording_attention)
    AttentionMaskInterface.register(_NAME, eager_mask)
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("eager")


@contextmanager
def recorded(
    model: PreTrainedModel, outputs: dict[str, torch.nn.Module], inputs: dict[str, torch.nn.Module]
) -> Iterator[dict[str, torch.Tensor]]:
    """Record what modules of `model` return (`outputs`) or are given first (`inputs`), and the parts of attention.

    The mapping that is yielded fills up while the model runs: under the keys of `outputs` and `inputs`, and under
    `<layer>/<part>` for every call of attention. A model whose attention is not the eager one keeps its own, which has
    to call `record_parts`.
    """
    found: dict[str, torch.Tensor] = {}

    def record(name: str, tensor: torch.Tensor) -> None:
        found[name] = tensor.detach().clone()

    def output_hook(name: str) -> Callable[..., None]:
        return lambda _module, _args, result: record(name, result[0] if isinstance(result, tuple) else result)

    def input_hook(name: str) -> Callable[..., None]:
        return lambda _module, args: record(name, args[0])

    handles = [module.register_forward_hook(output_hook(name)) for name, module in outputs.items()]
    handles += [module.register_forward_pre_hook(input_hook(name)) for name, module in inputs.items()]
    _recorders.append(record)
    try:
        with _recording(model):
            yield found
    finally:
        _recorders.remove(record)
        for handle in handles:
            handle.remove()
