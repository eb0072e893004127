"""GPT-2: from token ids to logits, through the key and value cache, to a greedy continuation.

Reference: `GPT2LMHeadModel` of Hugging Face transformers. Symbols: B batch, T tokens, S tokens seen so far, D width,
H heads, d = D / H, F FFN width, L layers, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
GPT-2 with the weights of a Hugging Face state dict (Conv1D weights are stored [in, out]; the head is tied to wte).

A py: candidate is a function
    gpt2(input_ids, attention_mask, position_ids, weights, decode_ids=None, *, n_head, layer_norm_epsilon,
         temperatures, max_new_tokens) -> {checkpoint: array}
  input_ids, attention_mask, position_ids  (B, T) integers; padding, on the left, has mask 0. What stands in rows of
                 padding is not judged, but nobody may look at it: its attention_probabilities are 0
  weights        state-dict name -> array: transformer.wte.weight (V, D), transformer.h.0.attn.c_attn.weight (D, 3D), …
  decode_ids     (B, steps): after the prefill, feed these one at a time through the cache, at the positions that follow
  temperatures   probabilities.t<T> is the softmax of last_logits / T
  max_new_tokens how many tokens greedy_tokens holds. They continue the prompt: from the cache as the prefill left it,
                 not from decode_ids. greedy_logits are what each of them was chosen from

Inputs and outputs are in the contract's storage format. attention_scores are q k^T / sqrt(d) before the mask;
attention_probabilities are after it, exactly 0 where a token may not look. key_cache and value_cache are what attention
reads: all tokens seen so far. Checkpoints of decode step n are those of the prefill under step.n: step.1.logits.
"""

CONTRACTS = ("float64", "float32", "tfloat32", "bfloat16", "float16")
OUTPUTS = ("logits", "last_logits")
TEMPERATURES = (0.5, 0.8, 1.0, 2.0)


@dataclass(frozen=True)
class Model:
    """The dimensions of a GPT-2."""

    n_layer: int
    n_head: int
    n_embd: int
    n_inner: int
    n_positions: int
    vocab_size: int
    layer_norm_epsilon: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Return d."""
        return self.n_embd // self.n_head


# No dimension equals another or is a power of two, so that nothing fits where it does not belong.
TINY = Model(n_layer=4, n_head=3, n_embd=42, n_inner=110, n_positions=300, vocab_size=211)
SMALL = Model(n_layer=12, n_head=12, n_embd=768, n_inner=3072, n_positions=1024, vocab_size=50257)


def weight_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the state dict's names and shapes, without the buffers and the tied head."""
    D, F = model.n_embd, model.n_inner
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (model.vocab_size, D),
        "transformer.wpe.weight": (model.n_positions, D),
    }
    for i in range(model.n_layer):
        h = f"transformer.h.{i}."
        shapes |= {h + "ln_1.weight": (D,), h + "ln_1.bias": (D,)}
        shapes |= {h + "attn.c_attn.weight": (D, 3 * D), h + "attn.c_attn.bias": (3 * D,)}
        shapes |= {h + "attn.c_proj.weight": (D, D), h + "attn.c_proj.bias": (D,)}
        shapes |= {h + "ln_2.weight": (D,), h + "ln_2.bias": (D,)}
        shapes |= {h + "mlp.c_fc.weight": (D, F), h + "mlp.c_fc.bias": (F,)}
        shapes |= {h + "mlp.c_proj.weight": (F, D), h + "mlp.c_proj.bias": (D,)}
    return shapes | {"transformer.ln_f.weight": (D,), "transformer.ln_f.bias": (D,)}


def seeded_weights(model: Model, key: str) -> dict[str, Recipe]:
    """Return recipes of weights in which every parameter matters, exact in bfloat16 and float16.

    Projections have a gain of about 1, norms a random weight about 1 and a random bias, so that no parameter can be
    left out unseen. Every seventh token and every fifth position is quiet: its embedding is 2^-7 or 2^-6 of the
    others'; where the two meet, a row's variance is so near layer_norm_epsilon that its value shows even in 16 bits.
    """
    recipes: dict[str, Recipe] = {}
    for name, shape in weight_shapes(model).items():
        path = f"{key}/{name}"
        if name.endswith("wte.weight"):
            recipe = Dyadic(shape, path, exponent=-8, quiet_period=7, quiet_shift=7)
        elif name.endswith("wpe.weight"):
            recipe = Dyadic(shape, path, exponent=-9, quiet_period=5, quiet_shift=6)
        elif name.split(".")[-2] in ("ln_1", "ln_2", "ln_f"):
            weight = name.endswith(".weight")
            recipe = Dyadic(shape, path, exponent=-7, offset=128 if weight else 0, narrow=True)
        elif name.endswith(".bias"):
            recipe = Dyadic(shape, path, exponent=-8)
        else:
            recipe = Dyadic(shape, path, exponent=projection_exponent(shape[0]))
        recipes[f"weights/{name}"] = recipe
    return recipes


def projection_exponent(fan_in: int) -> int:
    """Return the largest exponent that keeps a projection's gain, 36.9 * 2^exponent * sqrt(fan_in), at 1 or below."""
    exponent = 0
    while 36.9 * 2.0**exponent * fan_in**0.5 > 1:
        exponent -= 1
    return exponent


def layer_checkpoints(
    model: Model, prefix: str, B: int, T: int, S: int, keep: Mapping[str, tuple[int, int]], *, cache: bool
) -> list[Checkpoint]:
    """Return the checkpoints of one block that runs T tokens with S in sight."""
    H, d, D, F = model.n_head, model.head_dim, model.n_embd, model.n_inner
    query = "query" if T == S else "step"  # a decode step has one query, which is no padding
    heads, scores = ("batch", "head", query, "channel"), ("batch", "head", query, "key")
    stored, hidden = ("batch", "head", "key", "channel"), ("batch", query, "channel")
    table: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = [
        ("ln_1", (B, T, D), hidden),
        ("q", (B, H, T, d), heads),
        ("k", (B, H, T, d), heads),
        ("v", (B, H, T, d), heads),
        *([("key_cache", (B, H, S, d), stored), ("value_cache", (B, H, S, d), stored)] if cache else []),
        ("attention_scores", (B, H, T, S), scores),
        ("attention_probabilities", (B, H, T, S), (*scores[:3], "looked_at")),
        ("attention_context", (B, H, T, d), heads),
        ("attention_output", (B, T, D), hidden),
        ("residual", (B, T, D), hidden),
        ("ln_2", (B, T, D), hidden),
        ("c_fc", (B, T, F), hidden),
        ("activation", (B, T, F), hidden),
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
        for checkpoint in layer_checkpoints(model, f"{prefix}h.{i}.", B, T, S, keep, cache=cache)
    ]
    return [
        Checkpoint(prefix + "embeddings", (B, T, model.n_embd), hidden, keep=kept),
        *inner,
        Checkpoint(prefix + "ln_f", (B, T, model.n_embd), hidden, keep=kept),
        Checkpoint(prefix + "logits", (B, T, model.vocab_size), hidden, keep=kept),
    ]


def case(  # noqa: PLR0913 - a case is what it is made of
    name: str,
    about: str,
    model: Model,
    weights: Mapping[str, Recipe],
    ids: Recipe,
    *,
    padding: tuple[int, ...] = (),
    decode_ids: Recipe | None = None,
    new_tokens: int = 10,
    last_queries: int = 0,
    layers: tuple[int, ...] = (),
) -> Case:
    """Return one case.

    `padding`: tokens of padding on the left of each row. `last_queries`: freeze only these last positions (0: all).
    `layers`: the layers to freeze (none: all).
    """
    B, T = ids.shape
    pads = padding or (0,) * B
    inputs: dict[str, Recipe] = {
        "input_ids": ids,
        "attention_mask": Literal(tuple(tuple(int(t >= pad) for t in range(T)) for pad in pads)),
        "position_ids": Literal(tuple(tuple(max(t - pad, 0) for t in range(T)) for pad in pads)),
    }
    keep = {"query": (T - last_queries, T)} if last_queries else {}
    layers = layers or tuple(range(model.n_layer))
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
        checkpoints += [
            Checkpoint(
                "greedy_logits",
                (B, new_tokens, model.vocab_size),
                ("batch", "rank", "vocabulary"),
                follows="greedy_tokens",
            ),
            Checkpoint(
                "greedy_tokens",
                (B, new_tokens),
                ("batch", "rank"),
                dtype="integer",
                judged_by="greedy_logits",
                sequential=True,
            ),
        ]
    return Case(
        name=name,
        about=about,
        inputs={**inputs, **weights},
        params={
            "n_head": model.n_head,
            "layer_norm_epsilon": model.layer_norm_epsilon,
            "temperatures": list(TEMPERATURES),
            "max_new_tokens": new_tokens,
        },
        checkpoints=tuple(checkpoints),
        # looked_at stays judged: the probability of looking at padding must be 0.
        padding={"query": "attention_mask", "key": "attention_mask"} if any(pads) else {},
    )


def tiny_cases() -> tuple[Case, ...]:
    """Return the cases of the tiny model, everything frozen but the early queries of the long prompt."""
    weights = seeded_weights(TINY, "gpt2/tiny")

    def ids(key: str, *shape: int) -> Recipe:
        return Integers(shape, f"gpt2/tiny/{key}", 0, TINY.vocab_size)

    def tiny(name: str, about: str, ids: Recipe, **options: Any) -> Case:
        return case(f"tiny-{name}", about, TINY, weights, ids, **options)

    # The number in a key was chosen among 0 … 59 for a greedy continuation of several different tokens.
    prompt = tuple(Integers((13,), "gpt2/tiny/prompt/25", 0, TINY.vocab_size).draw().tolist())
    changed = (*prompt[:5], (prompt[5] + 100) % TINY.vocab_size, *prompt[6:])
    return (
        tiny("prompt", "13 tokens", Literal((prompt,))),
        tiny("prompt-changed", "the same but for its sixth token: other inputs, other outputs", Literal((changed,))),
        tiny("1-token", "a single token: no softmax to speak of, every axis of length 1", ids("1-token/6", 1, 1)),
        tiny("2-tokens", "the shortest prompt that has something to mask", ids("2-tokens/1", 1, 2)),
        tiny("64-tokens", "a longer prompt", ids("64-tokens/44", 1, 64)),
        tiny(
            "270-tokens",
            "positions past 256; frozen for the last 12 queries",
            ids("270-tokens", 1, 270),
            new_tokens=0,
            last_queries=12,
        ),
        tiny("batch", "11, 8 and 5 tokens, padded on the left", ids("batch", 3, 11), padding=(0, 3, 6)),
        tiny(
            "decode",
            "9 tokens, then 3 more one at a time through the cache",
            ids("decode", 1, 9),
            decode_ids=ids("decode-steps", 1, 3),
            new_tokens=0,
        ),
        tiny(
            "decode-batch",
            "a padded batch, then 2 more tokens for each row",
            ids("decode-batch", 3, 6),
            padding=(2, 0, 3),
            decode_ids=ids("decode-batch-steps", 3, 2),
            new_tokens=0,
        ),
    )


SMALL_CASE = case(
    "small-prompt",
    "the true 124M shape; layers 0, 5 and 11, the last two of 7 positions frozen",
    SMALL,
    seeded_weights(SMALL, "gpt2/small"),
    Integers((1, 7), "gpt2/small/prompt", 0, SMALL.vocab_size),
    new_tokens=0,
    last_queries=2,
    layers=(0, 5, 11),
)

PROPERTIES = (
    causality(("tiny-prompt",), "logits", ("input_ids",), axis=1, at=5),
    rows_apart(("tiny-batch",), "last_logits", ("input_ids", "attention_mask", "position_ids")),
    padding(("tiny-batch",), "last_logits", "input_ids", "attention_mask", other=7),
    repeatable(("tiny-prompt", "tiny-batch"), "logits"),
)
SUITE = Suite("gpt2", ABOUT, CONTRACTS, (*tiny_cases(), SMALL_CASE), OUTPUTS, packed=True, properties=PROPERTIES)


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
            Literal((tuple(prompt["ids"]),)),
            new_tokens=prompt["new_tokens"],
            layers=tuple(sorted({0, model.n_layer // 2, model.n_layer - 1})),
        )
        for prompt in config["prompts"]
    )
    return Suite(name, ABOUT, ("float64", "float32"), cases, OUTPUTS)
