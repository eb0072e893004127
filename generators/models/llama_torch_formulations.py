"""Correct ways to compute Llama in torch: the Hugging Face model itself, and blocks of torch's own operators.

B batch, T tokens, S tokens seen so far, D width, H heads, G key and value heads, d head size.
"""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
State = dict[str, Array]

gpt2 = beside(__file__, "gpt2_torch_formulations")

SIXTEEN_BITS = gpt2.SIXTEEN_BITS
tensor, array, in_torch = gpt2.tensor, gpt2.array, gpt2.in_torch


# --- the Hugging Face model


@cache
def reference() -> Any:
    """Return the generator."""
    return beside(__file__, "llama")


def hugging_face(attention: str = "eager") -> Change:
    """Return a change to the whole: the unmodified model in the storage format, with an implementation of attention."""

    def change(plain: Any) -> None:
        right = plain.llama

        def llama(*, weights: State, **given: Any) -> State:
            storage = weights["lm_head.weight"].dtype
            arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
            known = np.promote_types(storage, np.float32)  # not NumPy's bfloat16
            arrays |= {f"weights/{name}": value.astype(known) for name, value in weights.items()}
            # What the plain candidate returns, the model returns too.
            checkpoints = [SimpleNamespace(name=name) for name in right(weights=weights, **given)]
            case = SimpleNamespace(params=given, checkpoints=checkpoints)
            model = reference().build(case, arrays, getattr(torch, storage.name))
            model.set_attn_implementation("eager" if attention == "eager" else registered(attention))
            found = reference().run(model, case, arrays)
            exposed = {name: value for name, value in found.items() if value.size}
            return {name: x.astype(storage) if x.dtype.kind == "f" else x for name, x in exposed.items()}

        plain.llama = llama

    return change


def registered(attention: str) -> str:
    """Register an implementation of transformers with one that records its context; return the name of that."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    record_parts = reference().models.capture.record_parts
    right = AttentionInterface()[attention]

    def recording(
        module: Any, query: Array, key: Array, value: Array, attention_mask: Array, **rest: Any
    ) -> tuple[torch.Tensor, None]:
        context, _ = right(module, query, key, value, attention_mask, **rest)  # (B, T, H, d)
        nothing = query.new_empty(0)
        parts = {"q": query, "keys": key, "values": value, "scores": nothing, "probabilities": nothing}
        record_parts(module.layer_idx, parts | {"context": context.transpose(1, 2)})
        return context, None

    name = f"karat_recording_{attention}"
    AttentionInterface.register(name, recording)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[attention])
    return name


# --- a block in torch


def blocks(count: int) -> Change:
    """Return a change to the blocks, which run in torch on `count` threads, attention fused."""

    def change(plain: Any) -> None:
        def block(
            hidden: Array, cos: Array, sin: Array, layer: State, store: Any, mask: Array, start: int, *rest: Any
        ) -> Array:
            model, record = rest
            end = start + hidden.shape[1]  # S
            w = {name.rpartition(".")[0]: tensor(weight) for name, weight in layer.items()}
            past = tuple(tensor(part) for part in plain.read_cache(store, start))  # (B, G, start, d) each
            allowed = tensor(plain.attention_allowed(mask, start, end))
            with torch.no_grad(), gpt2.threads(count):
                found = in_block(tensor(hidden), tensor(cos), tensor(sin), w, past, allowed, model)
            arrays = {name: array(value, hidden.dtype) for name, value in found.items()}
            plain.write_cache(store, arrays["k_rotated"], arrays["v"], start, end)
            for name, value in arrays.items():
                record(name, value)
            return arrays["block_output"]

        plain.block = block

    return change


def in_block(
    hidden: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    w: dict[str, torch.Tensor],
    past: tuple[torch.Tensor, ...],
    allowed: torch.Tensor,
    model: Any,
) -> dict[str, torch.Tensor]:
    """Return the checkpoints of a block on `hidden` (B, T, D), but scores and probabilities."""

    def projected(x: torch.Tensor, name: str, heads: int) -> torch.Tensor:
        return functional.linear(x, w[f"self_attn.{name}_proj"]).unflatten(-1, (heads, -1)).transpose(1, 2)

    def turned(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        return torch.cat(
            [first * cos[:, None] - second * sin[:, None], second * cos[:, None] + first * sin[:, None]], -1
        )

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        weight = w[f"{name}_layernorm"]
        return functional.rms_norm(x, weight.shape, weight, model.epsilon)

    first = normed(hidden, "input")  # (B, T, D)
    q, k, v = (projected(first, name, model.heads if name == "q" else model.key_value_heads) for name in "qkv")
    found = {"input_norm": first, "q": q, "k": k, "v": v, "q_rotated": turned(q), "k_rotated": turned(k)}
    keys, values = torch.cat([past[0], found["k_rotated"]], 2), torch.cat([past[1], v], 2)  # (B, G, S, d)
    context = functional.scaled_dot_product_attention(
        found["q_rotated"], keys, values, attn_mask=allowed, enable_gqa=True
    )  # (B, H, T, d)
    attended = functional.linear(context.transpose(1, 2).flatten(2), w["self_attn.o_proj"])  # (B, T, D)
    residual = hidden + attended
    second = normed(residual, "post_attention")
    gate, up = (functional.linear(second, w[f"mlp.{name}_proj"]) for name in ("gate", "up"))  # (B, T, F)
    activation = functional.silu(gate)
    output = functional.linear(activation * up, w["mlp.down_proj"])  # (B, T, D)
    found |= {"key_cache": keys, "value_cache": values, "attention_context": context, "attention_output": attended}
    found |= {"residual": residual, "post_attention_norm": second, "gate": gate, "up": up, "activation": activation}
    return found | {"gated": activation * up, "ffn_output": output, "block_output": residual + output}


FORMULATIONS = (
    Formulation("hugging_face_eager", "the Hugging Face model", hugging_face()),
    Formulation("hugging_face_sdpa", "the Hugging Face model with fused attention", hugging_face("sdpa")),
    Formulation("torch_one_thread", "blocks of torch's operators, attention fused, one thread", blocks(1)),
    Formulation("torch_two_threads", "blocks of torch's operators, attention fused, two threads", blocks(2)),
    Formulation("norm_in_torch", "torch's rms_norm in storage", wrap(rms_norm=in_torch(
        lambda x, weight, epsilon: functional.rms_norm(x, weight.shape, weight, epsilon)))),
    Formulation("silu_in_torch", "torch's silu in storage", wrap(silu=in_torch(functional.silu))),
)  # fmt: skip
