"""Scaled dot-product attention in its usual kinds: grouped heads, causal, windows, ALiBi, soft cap, sinks, gradients.

Symbols: B batch, H query heads, G key and value heads, S queries, T keys, D width of queries and keys, E of values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from karat import Case, Checkpoint, Dyadic, Property, Suite, causality, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    attention(q, k, v, sinks=None, slopes=None, cotangent=None, *, causal, scale=None, align="bottom_right",
              window=None, global_tokens=0, soft_cap=None) -> {checkpoint: array}
A case gives only those arguments that are not the default. Inputs are in storage, and given by name.
  q              (B, H, S, D)
  k, v           (B, G, T, D) and (B, G, T, E); query head h attends to head h // (H / G)
  sinks          (H,) one more logit for each head, in the denominator of the softmax; neither scaled nor capped
  slopes         (H,) of ALiBi
  cotangent      (B, H, S, E) of the output: where it is given, gradients are wanted
  causal         a query at p sees key j where j <= p, else all
  align          where query i stands among the keys: at p = i + T - S for "bottom_right", as the last S of T tokens (a
                 cache, a chunk of a prefill; below 0 if S > T), at p = i for "top_left"
  scale          of the scores; default 1 / sqrt(D)
  window         W: if causal, p - W < j too, which is W keys with its own; else |p - j| <= W / 2
  global_tokens  g: the first g keys are visible beyond the window, and queries at p < g see beyond it; what causal
                 hides stays hidden. Without a window it says nothing. Each key counts once
  soft_cap       c: scores become c tanh(scores / c), before slopes and mask
and returns
  scores         (B, H, S, T) scale q k^T, before all that follows
  masked_scores  (B, H, S, T) capped, less slopes |p - j|; -inf where a key is not visible
  probabilities  (B, H, S, T) exp(masked_scores) over the sum of these along the keys and, if there are sinks, exp(sink)
  output         (B, H, S, E) probabilities v
  log_sum_exp    (B, H, S) the natural logarithm of the sum by which exp(masked_scores) is divided
  dq, dk, dv     the derivatives of sum(output * cotangent), the shapes of q, k and v: dk and dv are summed over the
                 H / G query heads of a key head
A query that sees no key has output and probabilities 0, and the log_sum_exp -inf, or the sink where there is one: it
adds nothing to what partial results are merged by log_sum_exp, which is how flash kernels, split-K and rings agree.
Most cases of many keys want output and log_sum_exp alone, of the last queries, so that nobody computes T x T scores;
self-512 and gradients-111 want all, and judge of it some heads, queries and keys. A candidate that never holds the
scores says so: UNSUPPORTED = ["scores", "masked_scores", "probabilities"]; one that adds finite numbers instead of
-inf leaves out masked_scores alone.

Must be refused (raise, or exit with another code than 0): q, k or v of another rank than 4; other batches, T or D in
one than in another; H that is no multiple of G; sinks or slopes that are not (H,); a cotangent of another shape than
the output's; an unknown align; a window below 1; negative global_tokens; a soft_cap that is not above 0.
"""

CONTRACTS = ("float64", "float32", "tfloat32", "bfloat16", "float16", "bfloat16-once", "float16-once")
SCORES = ("batch", "head", "query", "key")

Sizes = tuple[int, int, int, int, int, int, int]
"""B, H, G, S, T, D and E."""

Draws = Mapping[str, Mapping[str, Any]]
"""Input -> the options of its `Dyadic`."""


def case(
    name: str,
    about: str,
    sizes: Sizes,
    *,
    given: Sequence[str] = (),
    draws: Draws | None = None,
    last: int = 0,
    kept: Mapping[str, tuple[int, int]] | None = None,
    contracts: tuple[str, ...] = (),
    **params: Any,
) -> Case:
    """Return a case of random inputs.

    `given` names the optional ones that there are, `draws` says what is drawn otherwise. With `last`, only output and
    log_sum_exp of the last so many queries are judged. With `kept`, only the parts (start, stop): of heads and
    queries in what has queries, whose rows of keys stay whole, and of keys in the gradients of keys and values.
    """
    B, H, G, S, T, D, E = sizes
    rows = {"query": (S - last, S)} if last else kept or {}
    queries = {axis: part for axis, part in rows.items() if axis in SCORES[:3]}
    keys = {axis: part for axis, part in rows.items() if axis == "key"}
    points = [
        Checkpoint("scores", (B, H, S, T), SCORES, keep=queries),
        Checkpoint("masked_scores", (B, H, S, T), SCORES, nonfinite=True, keep=queries),
        Checkpoint("probabilities", (B, H, S, T), SCORES, exact_zeros=True, keep=queries),
        Checkpoint("output", (B, H, S, E), (*SCORES[:3], "channel"), keep=queries),
        Checkpoint("log_sum_exp", (B, H, S), SCORES[:3], nonfinite=True, keep=queries),
    ]
    if "cotangent" in given:
        points += [
            Checkpoint("dq", (B, H, S, D), (*SCORES[:3], "channel"), keep=queries),
            Checkpoint("dk", (B, G, T, D), ("batch", "head", "key", "channel"), keep=keys),
            Checkpoint("dv", (B, G, T, E), ("batch", "head", "key", "channel"), keep=keys),
        ]
    inputs = inputs_of(name, sizes, given, draws)
    return Case(
        name,
        inputs,
        {"causal": False, **params},
        tuple(points[3:] if last else points),
        contracts=contracts,
        about=about,
    )


def inputs_of(name: str, sizes: Sizes, given: Sequence[str], draws: Draws | None = None) -> dict[str, Any]:
    """Return recipes of scores of about 2.7 and values about 0.5, and of the optional inputs that are `given`."""
    B, H, G, S, T, D, E = sizes
    shapes = {"q": (B, H, S, D), "k": (B, G, T, D), "v": (B, G, T, E), "sinks": (H,), "slopes": (H,)}
    shapes["cotangent"] = (B, H, S, E)
    usual: Draws = {
        "q": {"exponent": -4},
        "k": {"exponent": -5},
        "v": {"exponent": -5, "offset": 17},
        "sinks": {"exponent": -5, "offset": 80},
        "slopes": {"exponent": -9, "offset": 128, "narrow": True},
        "cotangent": {"exponent": -5},
    }
    drawn = {**usual, **(draws or {})}
    return {key: Dyadic(shapes[key], f"attention/{name}/{key}", **drawn[key]) for key in ("q", "k", "v", *given)}


# No two dimensions of a case are equal, but S and T of self-attention.
HEADS = (
    case("multi-head", "every query head has its own keys, cross attention", (2, 3, 3, 5, 7, 8, 6)),
    case("multi-query", "one key head for all", (2, 5, 1, 4, 7, 9, 6)),
    case("grouped-3", "three query heads for each key head", (1, 6, 2, 5, 7, 8, 9)),
    case("grouped-7", "seven query heads for each of two key heads", (1, 14, 2, 3, 6, 5, 4), causal=True),
    case("explicit-scale", "a scale that is not 1 / sqrt(D)", (2, 3, 3, 5, 6, 9, 8), scale=0.109375),
)
CAUSAL = (
    case("length-1", "one query, one key", (2, 6, 3, 1, 1, 9, 5), causal=True),
    case("length-16", "causal self-attention of 16 tokens", (1, 3, 3, 16, 16, 7, 8), causal=True),
    case("bottom-right", "the last of more keys", (2, 3, 1, 4, 9, 8, 5), causal=True),
    case("top-left", "the first of more keys", (2, 3, 1, 4, 9, 8, 5), causal=True, align="top_left"),
    case("more-queries", "the first four queries see nothing", (2, 3, 3, 9, 5, 8, 7), causal=True),
    case("decode", "one query at the end of 59 keys", (2, 4, 2, 1, 59, 8, 7), causal=True),
    case("no-keys", "an empty cache", (2, 3, 1, 4, 0, 8, 5), causal=True),
)
WINDOWS = (
    case("window-1", "a query sees its own key alone", (1, 3, 3, 7, 7, 8, 5), causal=True, window=1),
    case("window-3", "three keys, behind more", (2, 3, 1, 6, 10, 8, 5), causal=True, window=3),
    case("window-top-left", "from the first key on", (2, 3, 1, 8, 10, 7, 5), causal=True, window=3, align="top_left"),
    case("window-of-all", "as many keys as there are", (1, 3, 3, 8, 8, 9, 5), causal=True, window=8),
    case("window-global", "three keys, the first two", (2, 3, 1, 6, 11, 8, 5), causal=True, window=3, global_tokens=2),
    case("both-sides-4", "two keys on each side", (2, 3, 1, 11, 11, 8, 5), window=4),
    case("both-sides-5", "an odd window: two on each side too", (1, 3, 3, 11, 11, 8, 5), window=5),
    case("both-sides-global", "and three global tokens", (2, 2, 1, 11, 11, 8, 5), window=4, global_tokens=3),
    case("both-sides-cross", "queries that stand at the last keys", (1, 3, 3, 5, 12, 8, 7), window=4, global_tokens=2),
)  # fmt: skip
BIASES = (
    case("alibi", "slopes, causal", (2, 5, 1, 6, 9, 8, 7), given=["slopes"], causal=True),
    case("alibi-both-sides", "slopes on both sides", (2, 3, 3, 8, 8, 7, 5), given=["slopes"]),
    case("alibi-top-left", "slopes from the first key on", (2, 3, 1, 5, 9, 8, 7), given=["slopes"], align="top_left"),
    case("soft-cap", "scores capped at 2", (2, 3, 1, 5, 7, 8, 6), soft_cap=2.0),
    case("soft-cap-causal", "capped, then masked", (2, 4, 2, 6, 8, 7, 5), soft_cap=3.0, causal=True),
    case("sinks", "one more logit for each head", (2, 6, 3, 4, 7, 8, 5), given=["sinks"]),
    case("sinks-window", "sinks beside a window", (2, 4, 1, 7, 9, 8, 5), given=["sinks"], causal=True, window=3),
    case("sinks-more-queries", "queries that see the sink alone", (2, 3, 3, 9, 5, 8, 7), given=["sinks"], causal=True),
    case(
        "everything",
        "all at once",
        (2, 6, 2, 7, 10, 9, 5),
        given=["sinks", "slopes"],
        causal=True,
        window=4,
        global_tokens=2,
        soft_cap=3.0,
        scale=0.25,
    ),
)
GRADIENTS = (
    case("gradients", "of every input", (2, 3, 3, 5, 7, 8, 6), given=["cotangent"]),
    case("gradients-grouped", "summed over three query heads", (2, 6, 2, 5, 7, 9, 4), given=["cotangent"], causal=True),
    case(
        "gradients-everything",
        "through cap, slopes, window and sinks",
        (2, 4, 2, 6, 9, 8, 5),
        given=["sinks", "slopes", "cotangent"],
        causal=True,
        window=4,
        soft_cap=3.0,
        scale=0.25,
    ),
    case(
        "gradients-111",
        "the last of more keys, summed over two query heads and 97 queries",
        (1, 4, 2, 97, 111, 9, 6),
        given=["cotangent"],
        kept={"head": (1, 3), "query": (47, 50), "key": (12, 16)},
        causal=True,
    ),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows", (2, 4, 2, 6, 9, 8, 7),
         given=["cotangent"], causal=True).fine("float64", "float32"),
    case("gradients-nothing", "of queries that see nothing", (1, 3, 1, 8, 5, 7, 6), given=["cotangent"], causal=True),
)  # fmt: skip
LARGE = (
    case(
        "scores-of-100",
        "about 100 in one row of the batch, 1 in the other: exp overflows or underflows without the right maximum",
        (2, 3, 1, 6, 9, 8, 7),
        draws={
            "q": {"exponent": -4, "offset": 128, "narrow": True, "row_exponents": (0, -7)},
            "k": {"exponent": -5, "offset": 128, "narrow": True},
        },
        contracts=CONTRACTS[1:],
        scale=0.40625,
    ),
    case(
        "scores-of-1000",
        "scores up to 3000: exp overflows float64",
        (1, 3, 1, 6, 9, 8, 7),
        draws={"q": {"exponent": 5}},
        contracts=("float64", "float32", "bfloat16-once", "float16-once"),
    ),
)
LONG = (
    case("length-59", "an odd length, grouped heads", (1, 6, 2, 8, 59, 9, 5), last=8, causal=True),
    case("length-97", "an odd length, window of 16", (1, 3, 1, 9, 97, 8, 7), last=9, causal=True, window=16),
    case("length-111", "an odd length, slopes", (1, 5, 5, 7, 111, 8, 6), last=7, given=["slopes"], causal=True),
    case("length-128", "capped", (1, 4, 2, 9, 128, 8, 7), last=9, causal=True, soft_cap=3.0),
    case("length-256", "causal self-attention of 256 tokens", (1, 2, 1, 256, 256, 16, 12), last=16, causal=True),
    case(
        "self-512",
        "causal self-attention of 512 tokens, two query heads for each key head: whole rows in the middle",
        (1, 4, 2, 512, 512, 9, 7),
        kept={"head": (1, 3), "query": (256, 258)},
        causal=True,
    ),
    case("length-512", "not causal", (1, 3, 1, 6, 512, 8, 7), last=6),
    case("length-1025", "sinks", (1, 4, 2, 6, 1025, 8, 7), last=6, given=["sinks"], causal=True),
    case("length-2048", "window of 300", (1, 3, 1, 6, 2048, 8, 7), last=6, causal=True, window=300, global_tokens=4),
    case("length-4096", "the last queries of causal self-attention", (1, 4, 2, 9, 4096, 16, 12), last=9, causal=True),
    case("length-8192", "the last queries of causal self-attention", (1, 2, 1, 5, 8192, 8, 7), last=5, causal=True),
)  # fmt: skip


# --- what must be refused --------------------------------------------------------------------------------------------


def refusal(
    name: str,
    refuses: str,
    *,
    given: Sequence[str] = (),
    shapes: dict[str, tuple[int, ...]] | None = None,
    **params: Any,
) -> Case:
    """Return a case with something wrong in the otherwise right inputs of two rows, four heads, two of them of keys."""
    inputs = inputs_of("refused", (2, 4, 2, 5, 7, 6, 3), given)
    for key, shape in (shapes or {}).items():
        inputs[key] = Dyadic(shape, f"attention/refused/{key}", exponent=-5)
    return Case(f"refused-{name}", inputs, {"causal": False, **params}, (), refuses=refuses, about=refuses)


REFUSALS = (
    refusal("rank", "q of three axes", shapes={"q": (4, 5, 6)}),
    refusal("batch", "keys of one row for two", shapes={"k": (1, 2, 7, 6), "v": (1, 2, 7, 3)}),
    refusal("width", "keys of another width than the queries'", shapes={"k": (2, 2, 7, 5)}),
    refusal("keys", "eight values for seven keys", shapes={"v": (2, 2, 8, 3)}),
    refusal("heads", "four query heads for three of keys", shapes={"k": (2, 3, 7, 6), "v": (2, 3, 7, 3)}),
    refusal("sinks", "sinks of the key heads", shapes={"sinks": (2,)}),
    refusal("slopes", "one slope for all", shapes={"slopes": (1,)}),
    refusal("cotangent", "a cotangent of the shape of q", shapes={"cotangent": (2, 4, 5, 6)}),
    refusal("align", "an align that does not exist", causal=True, align="right"),
    refusal("window", "a window of 0", causal=True, window=0),
    refusal("global-tokens", "-1 global tokens", window=2, global_tokens=-1),
    refusal("soft-cap", "a soft cap of 0", soft_cap=0.0),
)


# --- what must hold of a candidate's own outputs ---------------------------------------------------------------------

Arrays = Mapping[str, Any]


def keys_reversed(inputs: Arrays) -> dict[str, Any]:
    """Return the inputs with keys and values in reverse order."""
    return {name: array[:, :, ::-1].copy() if name in ("k", "v") else array for name, array in inputs.items()}


def values_constant(inputs: Arrays) -> dict[str, Any]:
    """Return the inputs with values of 0.75."""
    return {**inputs, "v": np.full_like(inputs["v"], 0.75)}


def sums(first: Arrays, second: Arrays, inputs: Arrays) -> tuple[Any, Any]:  # noqa: ARG001
    """Return the sums of the rows, and 1, both divided by the root of the number of keys, whose errors add up."""
    probabilities = first["probabilities"].astype(np.float64)  # (B, H, S, T)
    return probabilities.sum(-1) / probabilities.shape[-1] ** 0.5, probabilities.shape[-1] ** -0.5


PROPERTIES = (
    causality(("length-16",), "output", ("q", "k", "v"), axis=2, at=9),
    rows_apart(("multi-head", "grouped-3", "alibi"), "output", ("q", "k", "v")),
    Property(
        "order-of-keys",
        "without a mask, the order of the keys does not matter",
        ("multi-head", "grouped-3", "soft-cap", "sinks", "length-512"),
        "output",
        keys_reversed,
        lambda first, second, _: (second["output"], first["output"]),
    ),
    Property(
        "constant-values",
        "the average of equal values is that value",
        ("multi-query", "length-16", "soft-cap-causal", "length-4096"),
        "output",
        values_constant,
        lambda _, second, inputs: (second["output"], inputs["v"].flat[0]),
    ),
    Property(
        "rows-sum-to-1",
        "the probabilities of a query sum to 1",
        ("multi-head", "length-16", "both-sides-global"),
        "probabilities",
        compared=sums,
    ),
    repeatable(("length-16", "length-256", "length-4096"), "output"),
)

SUITE = Suite(
    "attention",
    ABOUT,
    CONTRACTS,
    (*HEADS, *CAUSAL, *WINDOWS, *BIASES, *GRADIENTS, *LARGE, *LONG, *REFUSALS),
    outputs=("output",),
    packed=True,
    properties=PROPERTIES,
)
