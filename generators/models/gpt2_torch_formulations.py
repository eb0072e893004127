"""Correct ways to compute GPT-2 in torch: the Hugging Face model itself, and blocks of torch's own operators.

B batch, T tokens, S tokens seen so far, D width, H heads, d = D / H.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
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
Tensors = dict[str, torch.Tensor]

gelus = beside(__file__, "blocks/gelu_formulations")

SIXTEEN_BITS = ("bfloat16", "float16")

# --- arrays and tensors share their memory


def tensor(x: Array) -> torch.Tensor:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    x = np.require(x, requirements=("C", "W"))
    bits = x.view(np.int16) if x.dtype.name == "bfloat16" else x
    return torch.from_numpy(bits).view(getattr(torch, x.dtype.name))


def array(x: torch.Tensor, dtype: Any) -> Array:
    """Return a tensor as an array of the format `dtype`, which is the tensor's."""
    x = x.contiguous()
    return (x.view(torch.int16).numpy() if x.dtype == torch.bfloat16 else x.numpy()).view(dtype)


def in_torch(formula: Callable[..., torch.Tensor]) -> Callable[[Any], Any]:
    """Replace a function of arrays by `formula` of tensors in the storage format; other arguments stay."""

    def formulation(x: Array, *rest: Any) -> Array:
        given = [tensor(value) if isinstance(value, np.ndarray) else value for value in rest]
        return array(formula(tensor(x), *given), x.dtype)

    return lambda _: formulation


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run the torch code inside on `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- the Hugging Face model


@cache
def reference() -> Any:
    """Return the generator."""
    return beside(__file__, "gpt2")


def hugging_face(attend: Callable[..., Tensors], mask: str, prepare: Change = lambda _: None) -> Change:
    """Return a change to the whole: the unmodified model in the storage format, with an attention function of ours.

    `attend` returns the parts that it exposes, `context` among them; `mask` names the mask function of transformers;
    `prepare` changes the model's modules.
    """

    def change(plain: Any) -> None:
        right = plain.gpt2

        def gpt2(*, weights: State, **given: Any) -> State:
            storage = weights["transformer.wte.weight"].dtype
            arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
            known = np.promote_types(storage, np.float32)  # not NumPy's bfloat16
            arrays |= {f"weights/{name}": value.astype(known) for name, value in weights.items()}
            # What the plain candidate returns, the model returns too.
            checkpoints = [SimpleNamespace(name=name) for name in right(weights=weights, **given)]
            case = SimpleNamespace(params=given, checkpoints=checkpoints)
            model = reference().build(case, arrays, getattr(torch, storage.name))
            model.set_attn_implementation(registered(attend, mask))
            prepare(model)
            found = reference().run(model, case, arrays)
            exposed = {name: value for name, value in found.items() if value.size}
            return {name: x.astype(storage) if x.dtype.kind == "f" else x for name, x in exposed.items()}

        plain.gpt2 = gpt2

    return change


def registered(attend: Callable[..., Tensors], mask: str) -> str:
    """Register an attention function that records what `attend` exposes; return its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    record_parts = reference().models.capture.record_parts

    def attention(
        module: Any, query: Array, key: Array, value: Array, attention_mask: Array, scaling: float, **_: Any
    ) -> tuple[torch.Tensor, None]:
        parts = {"q": query, "keys": key, "values": value}
        parts |= {"scores": query.new_empty(0), "probabilities": query.new_empty(0)}
        parts |= attend(module, query, key, value, attention_mask, scaling)
        record_parts(module.layer_idx, parts)
        return parts["context"].transpose(1, 2), None

    name = f"karat_{attend.__name__}"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[mask])
    return name


def eager(
    _: Any, q: Array, k: Array, v: Array, mask: Array, scaling: float, softmax: Any = functional.softmax
) -> Tensors:
    """Return all parts, each rounded to storage, as transformers' eager attention computes them."""
    scores = q @ k.transpose(-1, -2) * scaling  # (B, H, T, S)
    probabilities = softmax(scores if mask is None else scores + mask, -1)  # (B, H, T, S)
    return {"scores": scores, "probabilities": probabilities, "context": probabilities @ v}


def upcast(module: Any, q: Array, k: Array, v: Array, mask: Array, scaling: float) -> Tensors:
    """Return all parts, the softmax in float32, as Llama-like models of transformers do."""

    def softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.softmax(x, axis, dtype=torch.float32).to(x.dtype)

    return eager(module, q, k, v, mask, scaling, softmax)


def sdpa(module: Any, q: Array, k: Array, v: Array, mask: Array, scaling: float) -> Tensors:
    """Return the context of transformers' fused attention."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    context, _ = sdpa_attention_forward(module, q, k, v, mask, scaling=scaling)  # (B, T, H, d)
    return {"context": context.transpose(1, 2)}


def upcast_norms(model: Any) -> None:
    """Compute every LayerNorm in float32, and round once."""

    def forward(norm: Any, x: torch.Tensor) -> torch.Tensor:
        weight, bias = norm.weight.float(), norm.bias.float()
        return functional.layer_norm(x.float(), weight.shape, weight, bias, norm.eps).to(x.dtype)

    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.forward = partial(forward, module)


# --- a block in torch

WEIGHTS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def attention_part(
    hidden: torch.Tensor,
    w: list[torch.Tensor],
    past: tuple[torch.Tensor, torch.Tensor],
    allowed: torch.Tensor,
    epsilon: float,
) -> Tensors:
    """Return the checkpoints of a block on `hidden` (B, T, D) up to attention's output; `w` in the order of WEIGHTS."""
    normed = functional.layer_norm(hidden, hidden.shape[2:], w[0], w[1], epsilon)  # (B, T, D)
    qkv = (normed @ w[2] + w[3]).chunk(3, -1)  # (B, T, D) each
    q, k, v = (part.unflatten(-1, (past[0].shape[1], -1)).transpose(1, 2) for part in qkv)  # (B, H, T, d) each
    keys, values = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)  # (B, H, S, d)
    scores = q @ keys.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, H, T, S)
    probabilities = torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1)  # (B, H, T, S)
    context = probabilities @ values  # (B, H, T, d)
    attended = context.transpose(1, 2).flatten(2) @ w[4] + w[5]  # (B, T, D)
    found = {"ln_1": normed, "q": q, "k": k, "v": v, "key_cache": keys, "value_cache": values}
    found |= {"attention_scores": scores, "attention_probabilities": probabilities}
    return found | {"attention_context": context, "attention_output": attended}


def ffn_part(hidden: torch.Tensor, attended: torch.Tensor, w: list[torch.Tensor], epsilon: float) -> Tensors:
    """Return the checkpoints of a block that follow attention's output; `w` in the order of WEIGHTS, from ln_2 on."""
    residual = hidden + attended  # (..., D)
    normed = functional.layer_norm(residual, residual.shape[-1:], w[0], w[1], epsilon)  # (..., D)
    inner = normed @ w[2] + w[3]  # (..., F)
    activation = functional.gelu(inner, approximate="tanh")  # (..., F)
    output = activation @ w[4] + w[5]  # (..., D)
    found = {"residual": residual, "ln_2": normed, "c_fc": inner, "activation": activation}
    return found | {"ffn_output": output, "block_output": residual + output}


@cache
def compiler() -> Any:
    """Return the FFN's part as inductor fuses it: what it fuses is not rounded in between."""
    return torch.compile(ffn_part, dynamic=True, fullgraph=True)


def compiled(hidden: torch.Tensor, attended: torch.Tensor, w: list[torch.Tensor], epsilon: float) -> Tensors:
    """Return what `ffn_part` returns of (B, T, D) tensors, compiled once for each format."""
    shape = hidden.shape[:2]
    rows = [x.flatten(0, 1) for x in (hidden, attended)]  # (B T, D)
    if rows[0].shape[0] == 1:  # a single row would be compiled for itself: run it twice
        rows = [x.repeat(2, 1) for x in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the compiler uses what torch itself deprecates
        found = compiler()(*rows, w, epsilon)
    return {name: x[: shape.numel()].unflatten(0, shape) for name, x in found.items()}


def blocks(ffn: Callable[..., Tensors] = ffn_part, *, count: int = 1) -> Change:
    """Return a change to the blocks, which run in torch on `count` threads, their second part as `ffn` says."""

    def change(plain: Any) -> None:
        def block(
            hidden: Array, layer: State, store: Any, mask: Array, start: int, _: int, epsilon: float, record: Any
        ) -> Array:
            end = start + hidden.shape[1]  # S
            x, w = tensor(hidden), [tensor(layer[f"{name}.{part}"]) for name in WEIGHTS for part in ("weight", "bias")]
            past = tuple(tensor(part) for part in plain.read_cache(store, start))  # (B, H, start, d) each
            with torch.no_grad(), threads(count):
                found = attention_part(x, w, past, tensor(plain.attention_allowed(mask, start, end)), epsilon)
                found |= ffn(x, found["attention_output"], w[6:], epsilon)
            arrays = {name: array(value, hidden.dtype) for name, value in found.items()}
            plain.write_cache(store, arrays["k"], arrays["v"], start, end)
            for name, value in arrays.items():
                record(name, value)
            return arrays["block_output"]

        plain.block = block

    return change


FORMULATIONS = (
    Formulation("hugging_face_eager", "the Hugging Face model", hugging_face(eager, "eager")),
    Formulation("hugging_face_sdpa", "the Hugging Face model with fused attention", hugging_face(sdpa, "sdpa")),
    Formulation("hugging_face_upcast", "the Hugging Face model, softmax and norms in float32",
                hugging_face(upcast, "eager", upcast_norms), SIXTEEN_BITS),
    Formulation("torch_one_thread", "blocks of torch's operators, one thread", blocks()),
    Formulation("torch_two_threads", "blocks of torch's operators, two threads", blocks(count=2)),
    Formulation("torch_compiled", "blocks of torch's operators, norm and FFN fused by torch.compile",
                blocks(compiled), needs="g++"),
    Formulation("linear_addmm", "torch's addmm, the bias in its accumulator",
                wrap(linear=in_torch(lambda x, w, b: torch.addmm(b, x.flatten(0, -2), w).unflatten(0, x.shape[:-1])))),
    Formulation("norm_in_torch", "torch's layer_norm in storage", wrap(layer_norm=in_torch(
        lambda x, weight, bias, epsilon: functional.layer_norm(x, weight.shape, weight, bias, epsilon)))),
    Formulation("gelu_in_torch", "torch's gelu in storage",
                wrap(gelu=in_torch(partial(functional.gelu, approximate="tanh")))),
    Formulation("gelu_composed", "tanh GELU, every operation rounded",
                wrap(gelu=in_torch(lambda x: gelus.composed(x, "tanh")))),
)  # fmt: skip
