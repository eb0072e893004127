"""Llama: from token ids to logits, through the key and value cache, to a greedy continuation.

Reference: `LlamaForCausalLM` of Hugging Face transformers. Symbols: B batch, T tokens, S tokens seen so far, D width,
H heads, G key and value heads, d head size, F FFN width, L layers, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from karat import (
    Case,
    Checkpoint,
    Dyadic,
    Integers,
    Literal,
    Recipe,
    Stored,
    Suite,
    causality,
    padding,
    repeatable,
    rows_apart,
)

ABOUT = """\
Llama with the weights of a Hugging Face state dict: [out, in], no biases, a head of its own; rotary embedding, RMSNorm,
grouped heads, SwiGLU.

A py: candidate is a function
    llama(input_ids, attention_mask, position_ids, inverse_frequencies, weights, decode_ids=None, *,
          num_attention_heads, num_key_value_heads, rms_norm_eps, rope_parameters, temperatures, max_new_tokens)
        -> {checkpoint: array}
  input_ids, attention_mask, position_ids  (B, T) integers; padding, on the left, has mask 0. What stands in rows of
                 padding is not judged, but nobody may look at it: its attention_probabilities are 0
  inverse_frequencies  (d/2,) float32 under every contract. They define the model: the released code computes them in
                 float32, and the golden takes them as they are
  weights        state-dict name -> array: model.embed_tokens.weight (V, D), model.layers.0.self_attn.q_proj.weight
                 (H d, D), model.layers.0.self_attn.k_proj.weight (G d, D), …, model.norm.weight (D,), lm_head.weight
  decode_ids     (B, steps): after the prefill, feed these one at a time through the cache, at the positions that follow
  num_attention_heads, num_key_value_heads  H and G. d is twice the number of frequencies; H d is not D
  rope_parameters  what the frequencies come from, as the model's config says: rope_theta^(-2i/d), and the scaling of
                 rope_type. Nothing needs it. Frequencies computed anew differ in a float32's last places, which far
                 positions magnify: at 16 bits that makes no difference, in float32 and float64 it may be too much
  temperatures   probabilities.t<T> is the softmax of last_logits / T
  max_new_tokens how many tokens greedy_tokens holds. They continue the prompt: from the cache as the prefill left it,
                 not from decode_ids. greedy_logits are what each of them was chosen from

Inputs and outputs are in the contract's storage format. Two things are computed in the accumulation format whatever
the storage, and rounded to storage at their end: rotary tables, the angles too, and RMSNorm, whose normalised values
may also be rounded before they are multiplied by the weight.

Checkpoints, with rms(x) = weight * x / sqrt(mean(x^2) + rms_norm_eps) over channels:
  rotary_cos, rotary_sin   of the angles position * inverse_frequencies[i], one for each pair i of channels
  input_norm               rms of the block's input (input_layernorm)
  q, k, v                  its projections: head h is the h-th run of d rows of the weight
  q_rotated, k_rotated     channels i and i + d/2 of a head are a pair (half-split, not interleaved): (a, b) becomes
                           (a cos - b sin, b cos + a sin)
  key_cache, value_cache   what attention reads, rotated keys and values of all tokens seen so far, G heads
  attention_scores         q k^T / sqrt(d) before the mask; query head h looks at key and value head h // (H / G)
  attention_probabilities  the softmax after the mask, exactly 0 where a token may not look
  attention_context        probabilities times values, by head; attention_output is o_proj of it
  residual                 the block's input + attention_output; post_attention_norm is its rms
  activation, gated        silu(gate) = gate / (1 + exp(-gate)), and activation * up; ffn_output is down_proj of it
  block_output             residual + ffn_output
  norm, logits             rms of the last block_output, and lm_head of it
Those of decode step n are those of the prefill under step.n: step.1.logits.
"""

CONTRACTS = ("float64", "float32", "tfloat32", "bfloat16", "float16")
OUTPUTS = ("logits", "last_logits")
TEMPERATURES = (0.5, 0.8, 1.0, 2.0)

# As transformers computes them on the CPU. The second are those of Llama 3.1's scaling: the first two frequencies stay,
# the third is between the bands, the others are an eighth.
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
DEFAULT_FREQUENCIES = (1.0, 0.26826957, 0.071968555, 0.019306976, 0.005179473, 0.0013894952, 0.00037275933)
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
LLAMA_3_FREQUENCIES = (1.0, 0.15341273, 0.009242469, 0.00045133007, 6.923976e-05, 1.0622263e-05, 1.6295908e-06)


@dataclass(frozen=True)
class Model:
    """The dimensions of a Llama."""

    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    rms_norm_eps: float = 1e-5
    rope_parameters: Mapping[str, Any] = field(default_factory=lambda: DEFAULT)


# No dimension equals another, H d is not D, and D / H is not d, so that nothing fits where it does not belong.
TINY = Model(
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=14,
    hidden_size=48,
    intermediate_size=66,
    vocab_size=97,
)


def weight_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the state dict's names and shapes."""
    D, F, d = model.hidden_size, model.intermediate_size, model.head_dim
    H, G = model.num_attention_heads, model.num_key_value_heads
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (model.vocab_size, D)}
    for i in range(model.num_hidden_layers):
        layer = f"model.layers.{i}."
        shapes |= {
            layer + "input_layernorm.weight": (D,),
            layer + "self_attn.q_proj.weight": (H * d, D),
            layer + "self_attn.k_proj.weight": (G * d, D),
            layer + "self_attn.v_proj.weight": (G * d, D),
            layer + "self_attn.o_proj.weight": (D, H * d),
            layer + "post_attention_layernorm.weight": (D,),
            layer + "mlp.gate_proj.weight": (F, D),
            layer + "mlp.up_proj.weight": (F, D),
            layer + "mlp.down_proj.weight": (D, F),
        }
    return shapes | {"model.norm.weight": (D,), "lm_head.weight": (model.vocab_size, D)}


def seeded_weights(model: Model, key: str) -> dict[str, Recipe]:
    """Return recipes of weights in which every parameter matters, exact in bfloat16 and float16.

    Projections have a gain of about 1, norms a random weight about 1. Every seventh token is quiet: its embedding is
    2^-6 of the others', so that the mean square of such a row is near rms_norm_eps, which shows even in 16 bits.
    """
    recipes: dict[str, Recipe] = {}
    for name, shape in weight_shapes(model).items():
        path = f"{key}/{name}"
        if name.endswith("embed_tokens.weight"):
            recipe = Dyadic(shape, path, exponent=-8, quiet_period=7, quiet_shift=6)
        elif "norm" in name:
            recipe = Dyadic(shape, path, exponent=-7, offset=128, narrow=True)
        else:
            recipe = Dyadic(shape, path, exponent=projection_exponent(shape[1]))
        recipes[f"weights/{name}"] = recipe
    return recipes


def projection_exponent(fan_in: int) -> int:
    """Return the exponent that brings a projection's gain, 36.9 * 2^exponent * sqrt(fan_in), into [0.7, 1.4)."""
    exponent = 0
    while 36.9 * 2.0**exponent * fan_in**0.5 >= 2**0.5:
        exponent -= 1
    return exponent


def layer_checkpoints(
    model: Model, prefix: str, B: int, T: int, S: int, keep: Mapping[str, tuple[int, int]], *, cache: bool
) -> list[Checkpoint]:
    """Return the checkpoints of one block that runs T tokens with S in sight."""
    H, G, d = model.num_attention_heads, model.num_key_value_heads, model.head_dim
    D, F = model.hidden_size, model.intermediate_size
    query = "query" if T == S else "step"  # a decode step has one query, which is no padding
    heads, scores = ("batch", "head", query, "channel"), ("batch", "head", query, "key")
    stored, hidden = ("batch", "head", "key", "channel"), ("batch", query, "channel")
    table: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = [
        ("input_norm", (B, T, D), hidden),
        ("q", (B, H, T, d), heads),
        ("k", (B, G, T, d), heads),
        ("v", (B, G, T, d), heads),
        ("q_rotated", (B, H, T, d), heads),
        ("k_rotated", (B, G, T, d), heads),
        *([("key_cache", (B, G, S, d), stored), ("value_cache", (B, G, S, d), stored)] if cache else []),
        ("attention_scores", (B, H, T, S), scores),
        ("attention_probabilities", (B, H, T, S), (*scores[:3], "looked_at")),
        ("attention_context", (B, H, T, d), heads),
        ("attention_output", (B, T, D), hidden),
        ("residual", (B, T, D), hidden),
        ("post_attention_norm", (B, T, D), hidden),
        ("gate", (B, T, F), hidden),
        ("up", (B, T, F), hidden),
        ("activation", (B, T, F), hidden),
        ("gated", (B, T, F), hidden),
        ("ffn_output", (B, T, D), hidden),
        ("block_output", (B, T, D), hidden),
    ]
    return [
        Checkpoint(
            prefix + name,
            shape,
            axes,
            keep={k: v for k, v in keep.items() if k in axes},
            exact_zeros=name == "attention_probabilities",
        )
        for name, shape, axes in table
        # One key gets all the attention whatever its score: a golden of ones that proves nothing.
        if not (name == "attention_probabilities" and S == 1)
    ]


def forward_checkpoints(
    model: Model,
    prefix: str,
    B: int,
    T: int,
    S: int,
    keep: Mapping[str, tuple[int, int]],
    layers: tuple[int, ...],
    *,
    cache: bool,
) -> list[Checkpoint]:
    """Return the checkpoints of one run of T tokens, from the embeddings to the logits."""
    hidden = ("batch", "query" if T == S else "step", "channel")
    kept = {k: v for k, v in keep.items() if k in hidden}
    inner = [
        checkpoint
        for i in layers
        for checkpoint in layer_checkpoints(model, f"{prefix}layers.{i}.", B, T, S, keep, cache=cache)
    ]
    return [
        Checkpoint(prefix + "embeddings", (B, T, model.hidden_size), hidden, keep=kept),
        Checkpoint(prefix + "rotary_cos", (B, T, model.head_dim // 2), (*hidden[:2], "pair"), keep=kept),
        Checkpoint(prefix + "rotary_sin", (B, T, model.head_dim // 2), (*hidden[:2], "pair"), keep=kept),
        *inner,
        Checkpoint(prefix + "norm", (B, T, model.hidden_size), hidden, keep=kept),
        Checkpoint(prefix + "logits", (B, T, model.vocab_size), hidden, keep=kept),
    ]


def case(  # noqa: PLR0913 - a case is what it is made of
    name: str,
    about: str,
    model: Model,
    weights: Mapping[str, Recipe],
    frequencies: Recipe,
    ids: Recipe,
    *,
    padding: tuple[int, ...] = (),
    start: int = 0,
    decode_ids: Recipe | None = None,
    new_tokens: int = 0,
    last_queries: int = 0,
    layers: tuple[int, ...] = (),
) -> Case:
    """Return one case.

    `padding`: tokens of padding on the left of each row. `start`: the position of the first token that is none.
    `last_queries`: freeze only these last positions (0: all). `layers`: the layers to freeze (none: all).
    """
    B, T = ids.shape
    pads = padding or (0,) * B
    inputs: dict[str, Recipe] = {
        "input_ids": ids,
        "attention_mask": Literal(tuple(tuple(int(t >= pad) for t in range(T)) for pad in pads)),
        "position_ids": Literal(tuple(tuple(start + max(t - pad, 0) for t in range(T)) for pad in pads)),
        "inverse_frequencies": frequencies,
    }
    keep = {"query": (T - last_queries, T)} if last_queries else {}
    layers = layers or tuple(range(model.num_hidden_layers))
    checkpoints = forward_checkpoints(model, "", B, T, T, keep, layers, cache=decode_ids is not None)
    vocabulary = ("batch", "vocabulary")
    checkpoints += [
        Checkpoint("last_logits", (B, model.vocab_size), vocabulary),
        Checkpoint("greedy_token", (B,), ("batch",), dtype="integer", judged_by="last_logits"),
        *(Checkpoint(f"probabilities.t{t}", (B, model.vocab_size), vocabulary) for t in TEMPERATURES),
        Checkpoint("top5_indices", (B, 5), ("batch", "rank"), dtype="integer", judged_by="last_logits"),
    ]
    if decode_ids is not None:
        inputs["decode_ids"] = decode_ids
        for step in range(1, decode_ids.shape[1] + 1):
            checkpoints += forward_checkpoints(model, f"step.{step}.", B, 1, T + step, {}, layers, cache=True)
    if new_tokens:
        ranks = ("batch", "rank", "vocabulary")
        checkpoints += [
            Checkpoint("greedy_logits", (B, new_tokens, model.vocab_size), ranks, follows="greedy_tokens"),
            Checkpoint(
                "greedy_tokens", (B, new_tokens), ranks[:2], dtype="integer", judged_by="greedy_logits", sequential=True
            ),
        ]
    return Case(
        name=name,
        about=about,
        inputs={**inputs, **weights},
        params={
            "num_attention_heads": model.num_attention_heads,
            "num_key_value_heads": model.num_key_value_heads,
            "rms_norm_eps": model.rms_norm_eps,
            "rope_parameters": dict(model.rope_parameters),
            "temperatures": list(TEMPERATURES),
            "max_new_tokens": new_tokens,
        },
        checkpoints=tuple(checkpoints),
        # looked_at stays judged: the probability of looking at padding must be 0.
        padding={"query": "attention_mask", "key": "attention_mask"} if any(pads) else {},
        fixed={"inverse_frequencies": "float32"},
    )


def tiny_cases() -> tuple[Case, ...]:
    """Return the cases of the tiny model."""
    weights = seeded_weights(TINY, "llama/tiny")
    scaled = Model(**{**vars(TINY), "rope_parameters": LLAMA_3})

    def ids(key: str, *shape: int) -> Recipe:
        return Integers(shape, f"llama/tiny/{key}", 0, TINY.vocab_size)

    def tiny(name: str, about: str, ids: Recipe, model: Model = TINY, **options: Any) -> Case:
        frequencies = DEFAULT_FREQUENCIES if model is TINY else LLAMA_3_FREQUENCIES
        recipe = Literal(frequencies, dtype="float32")
        return case(f"tiny-{name}", about, model, weights, recipe, ids, **options)

    # The number in a key was chosen for quiet tokens among the ids, and a continuation of several different tokens.
    return (
        tiny("prompt", "9 tokens", ids("prompt/29", 1, 9), new_tokens=6),
        tiny("1-token", "a single token, at position 200", ids("1-token", 1, 1), start=200),
        tiny(
            "270-tokens",
            "positions past 256, which bfloat16 does not know; frozen for the last 2 queries",
            ids("270-tokens", 1, 270),
            last_queries=2,
        ),
        tiny(
            "llama3",
            "60 tokens, the frequencies scaled as those of Llama 3.1; frozen for the last 5 queries",
            ids("llama3", 1, 60),
            scaled,
            last_queries=5,
        ),
        tiny("batch", "7, 5 and 3 tokens, padded on the left", ids("batch/157", 3, 7), padding=(0, 2, 4), new_tokens=5),
        tiny(
            "decode",
            "a padded batch, then 2 more tokens for each row through the cache",
            ids("decode", 3, 4),
            padding=(1, 0, 2),
            decode_ids=ids("decode-steps", 3, 2),
        ),
    )


PROPERTIES = (
    causality(("tiny-prompt",), "logits", ("input_ids",), axis=1, at=5),
    rows_apart(("tiny-batch",), "last_logits", ("input_ids", "attention_mask", "position_ids")),
    padding(("tiny-batch",), "last_logits", "input_ids", "attention_mask", other=7),
    repeatable(("tiny-prompt", "tiny-batch"), "logits"),
)
SUITE = Suite("llama", ABOUT, CONTRACTS, tiny_cases(), OUTPUTS, packed=True, properties=PROPERTIES)


def suite_of_weights(name: str, config: Mapping[str, Any]) -> Suite:
    """Return the suite of a model with weights from outside, as `config`, written by the freeze, describes it.

    Such weights are float32 numbers, which the 16-bit contracts would round beforehand: float64 and float32 only.
    """
    model = Model(**config["model"])
    weights: dict[str, Recipe] = {f"weights/{key}": Stored(shape) for key, shape in weight_shapes(model).items()}
    cases = tuple(
        case(
            prompt["name"],
            prompt["about"],
            model,
            weights,
            Stored((model.head_dim // 2,)),
            Literal((tuple(prompt["ids"]),)),
            new_tokens=prompt["new_tokens"],
            layers=tuple(sorted({0, model.num_hidden_layers // 2, model.num_hidden_layers - 1})),
        )
        for prompt in config["prompts"]
    )
    return Suite(name, ABOUT, ("float64", "float32"), cases, OUTPUTS)
