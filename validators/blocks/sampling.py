"""The distribution from which the next token is drawn: penalties, temperature, top-k, top-p, min-p; nothing is drawn.

Symbols: B rows, T previous tokens, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Property, Recipe, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    sampling(logits, tokens, lengths, prompt_lengths, temperature, top_k, top_p, min_p,
             repetition_penalty, presence_penalty, frequency_penalty) -> {checkpoint: array}
All arguments are given by name. Every row has parameters of its own, as requests that are served in one batch have.
  logits              (B, V), in storage; -inf bans a token
  tokens              (B, T) int64, the prompt and then what was generated; T may be 0, and B too
  lengths             (B,) int64: the first lengths[b] of tokens[b] count, the rest is padding and may hold anything
  prompt_lengths      (B,) int64, at most lengths: the first so many of those are the prompt
  temperature         (B,) float32; 0 is greedy
  top_k               (B,) int64; 0 keeps all, and so does k >= V
  top_p, min_p        (B,) float32 within 0 … 1; top_p 1 and min_p 0 keep all
  repetition_penalty  (B,) float32 above 0; 1 is none
  presence_penalty, frequency_penalty   (B,) float32 of any sign; 0 is none
and returns, in this order of computation,
  penalised_logits    (B, V) storage. Repetition first: the logit of a token that stands in the prompt or after it, once
                      or more often, is divided by the penalty where it is positive and multiplied where it is negative.
                      Then, of a token that stands n > 0 times after the prompt, n frequency_penalty + presence_penalty
                      is subtracted; what stands in the prompt alone is not
  greedy_token        (B,) integer: the largest penalised logit, of equal ones that of the lowest index
  scaled_logits       (B, V) storage: penalised logits over the temperature, as they are where it is 0
  kept                (B, V) bool: which tokens are left, each rule among those that the rules before it left:
                      1. tokens that are not banned
                      2. top-k: logits that are at least the k-th largest; all that equal it stay, then more than k
                      3. top-p: in the order of falling probability, the probabilities being normalised over what is
                         left, a token stays if the sum of those before it is below p: the smallest set whose sum
                         reaches p, with the token that crosses it; the first token always stays
                      4. min-p: tokens at least min_p times as probable as the most probable one
                      Where the temperature is 0, the greedy token alone is kept, whatever the rules say
  number_kept         (B,) integer: how many they are
  probabilities       (B, V) storage: softmax of the scaled logits over what is kept; exactly 0 elsewhere
  log_probabilities   (B, V) storage: their natural logarithms; -inf elsewhere
Under bfloat16 and float16 every operation may be rounded to storage, 1 / temperature and the logarithm of the sum of
exponentials too. Under the contracts that round once, no checkpoint starts from the rounded one before it.
This is the order of transformers' generate, which has no presence and frequency penalties; these come where vLLM's
apply_penalties has them. Others order the rules otherwise.
A candidate that does not hold all of it lists the rest in UNSUPPORTED, one that has probabilities alone: UNSUPPORTED =
["penalised_logits", "greedy_token", "scaled_logits", "kept", "number_kept", "log_probabilities"]. One that takes a
parameter for all rows is called row by row.

Ties: kept and the two integers are exact. No cut of any case is decided by rounding: between a cut and the logits on
both sides of it lie several roundings of the coarsest format, and sums of probabilities stay 0.03 away from p (in
`flat`, a case of formats that tell it, 1e-5). Equal logits have equal values under every contract; none stand
at the cut of top-p, where implementations differ. In `near-ties` penalised logits tie by rounding, and either is right.

Must be refused: parameters, lengths or tokens of another number of rows than the logits; NaN or +inf among the logits;
a row in which all tokens are banned; prompt_lengths below 0 or above lengths, lengths above T; a token that counts
outside 0 … V - 1; a temperature below 0; top_k below 0; top_p or min_p outside 0 … 1; a repetition_penalty that is not
above 0.
"""

CONTRACTS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
FINE = ("float64", "float32", "bfloat16-once", "float16-once")
INFINITY = float("inf")
Numbers = Sequence[float]

OFF: Mapping[str, float] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Parameters that change nothing."""

# --- inputs


CLEAR: Mapping[str, Sequence[int]] = {
    "greedy": (0, 0, 2, 0, 0, 0),
    "top-k": (0,) * 9,
    "min-p": (0,) * 7,
    "top-p": (0, 2, 18, 0, 2, 3, 1, 0, 0, 6),
    "filters": (0, 0, 0, 0, 5, 47, 6, 1),
    "everything": (6, 2, 0, 1, 3, 1, 5, 0, 0, 0, 5),
}
"""By case the streams of its rows, chosen so that no cut is decided by rounding; the generator makes sure of it."""


def drawn(name: str, B: int, V: int) -> NDArray[Any]:
    """Return random logits (B, V) of the standard deviation 2.3."""
    rows = enumerate(CLEAR.get(name, (0,) * B))
    return np.stack([Dyadic((V,), f"sampling/{name}/logits/{row}/{stream}", -4).draw() for row, stream in rows])


def written(values: NDArray[Any]) -> Literal:
    """Return values, exact in bfloat16 and float16, written out."""
    rows = values.astype(float).tolist()
    return Literal(tuple(tuple(x if np.isfinite(x) else str(x) for x in row) for row in rows), "float32")


def history(name: str, T: int, V: int, lengths: Sequence[int], *, pads: Sequence[int] = ()) -> Recipe:
    """Return random tokens (B, T); with `pads`, padding holds these by turns, else tokens as good as any."""
    tokens = Integers((len(lengths), T), f"sampling/{name}/tokens", 0, V)
    if not pads:
        return tokens
    rows = tokens.draw().tolist()
    return Literal(
        tuple(
            tuple(token if place < length else pads[place % len(pads)] for place, token in enumerate(row))
            for row, length in zip(rows, lengths, strict=True)
        )
    )


def parameters(B: int, given: Mapping[str, float | Numbers]) -> dict[str, Recipe]:
    """Return the recipes of the parameters of B rows: what is given, one for all or one for each, and else none."""
    found: dict[str, Recipe] = {}
    for name, usual in OFF.items():
        value = given.get(name, usual)
        values = tuple(value) if isinstance(value, Sequence) else (value,) * B
        words = tuple(x if np.isfinite(x) else str(x) for x in values)
        found[name] = Literal(words, "int64" if name == "top_k" else "float32")
    return found


def case(  # noqa: PLR0913 - a case is what it is made of
    name: str,
    about: str,
    logits: Recipe,
    T: int,
    *,
    lengths: Sequence[int] | None = None,
    prompts: Sequence[int] | None = None,
    pads: Sequence[int] = (),
    tokens: Recipe | None = None,
    keep: int = 0,
    tie: bool = False,
    contracts: tuple[str, ...] = (),
    **given: float | Numbers,
) -> Case:
    """Return the case of `logits` and T previous tokens, of which all are the prompt where `prompts` says nothing.

    With `keep`, only so many tokens of the vocabulary, the last ones, are compared; with `tie`, greedy tokens tie by
    rounding.
    """
    B, V = logits.shape
    lengths = (T,) * B if lengths is None else lengths
    prompts = lengths if prompts is None else prompts
    inputs = {
        "logits": logits,
        "tokens": tokens or history(name, T, V, lengths, pads=pads),
        "lengths": Literal(tuple(lengths)),
        "prompt_lengths": Literal(tuple(prompts)),
        **parameters(B, given),
    }
    kept = {"token": (V - keep, V)} if keep else {}
    axes, banned = ("row", "token"), name == "banned"
    points = (
        Checkpoint("penalised_logits", (B, V), axes, keep=kept, nonfinite=banned),
        Checkpoint("greedy_token", (B,), axes[:1], dtype="integer", judged_by="penalised_logits" if tie else None),
        Checkpoint("scaled_logits", (B, V), axes, keep=kept, nonfinite=banned),
        Checkpoint("kept", (B, V), axes, dtype="bool", keep=kept),
        Checkpoint("number_kept", (B,), axes[:1], dtype="integer"),
        Checkpoint("probabilities", (B, V), axes, keep=kept, exact_zeros=True),
        Checkpoint("log_probabilities", (B, V), axes, keep=kept, nonfinite=True),
    )
    fixed = {key: "float32" for key in OFF if key != "top_k"}
    return Case(name, inputs, {}, points, contracts=contracts, about=about, fixed=fixed)


# --- cases: no two dimensions of one are equal


def random(name: str, about: str, sizes: tuple[int, int, int], **given: Any) -> Case:
    """Return a case of random logits, `sizes` being B, V and T."""
    B, V, T = sizes
    logits = written(drawn(name, B, V)) if name in CLEAR else Dyadic((B, V), f"sampling/{name}/logits", -4)
    return case(name, about, logits, T, **given)


def tied() -> NDArray[Any]:
    """Return logits (5, 23) of which several equal the k-th largest, the largest among them once; see TIES."""
    steps = Integers((5, 23), "sampling/top-k-ties/logits", -16, 5).draw() / 4.0  # at most 1
    places = np.argsort(Integers((5, 23), "sampling/top-k-ties/places", 0, 1 << 30).draw(), axis=1)
    tops = ((3, 2, 2, 2), (2.5, 2.5, 2.5), (4, 3.5, 3, 3, 3), (2, 2), (3, 2.5, 2.5, 2, 2))
    for row, values in enumerate(tops):
        steps[row, places[row, : len(values)]] = values
    return steps


def leading() -> NDArray[Any]:
    """Return logits (6, 27) of which two or three are the largest in the rows 0, 1, 3 and 4."""
    logits = drawn("greedy", 6, 27)
    for row, places in ((0, (5, 19)), (1, (22, 3, 11)), (3, (26, 25)), (4, (0, 26))):
        logits[row, places] = 8.5
    tokens = history("greedy", 9, 27, (9,) * 6).draw()
    logits[2, tokens[2, 8]] = logits[5, tokens[5, 4]] = 9.0  # the largest, until it is penalised
    return logits


def banned() -> NDArray[Any]:
    """Return logits (7, 26) of which -inf hides a part, all but one in row 3."""
    logits = drawn("banned", 7, 26)
    hidden = Integers((7, 26), "sampling/banned/hidden", 0, 3).draw() == 0
    hidden[3] = np.arange(26) != 14
    hidden[4] = np.arange(26) % 5 != 2
    return np.where(hidden, -INFINITY, logits)


def nearly_tied() -> NDArray[Any]:
    """Return logits (4, 24) whose largest, another in each row, is penalised down to nearly the next: `near-ties`."""
    logits = np.minimum(drawn("near-ties", 4, 24), 2)
    logits[range(4), (7, 3, 12, 20)] = 5.0, 5.0625, 5.125, 5.1875
    logits[range(4), (16, 9, 1, 14)] = 4.21875, 4.25, 4.3125, 4.375
    return logits


def far() -> NDArray[Any]:
    """Return rows about 100, -100, 96 and -110, whose exponentials overflow or vanish in float32, (4, 30)."""
    about = np.array([[100.0], [-100.0], [96.0], [-110.0]])  # (4, 1)
    return about + 0.5 * Integers((4, 30), "sampling/far/steps", -9, 9).draw()


def far_tail() -> NDArray[Any]:
    """Return logits (5, 34) that fall to 66 below the largest."""
    return 3 - 2.0 * np.argsort(Integers((5, 34), "sampling/far-tail/places", 0, 1 << 30).draw(), axis=1)


LONG = Dyadic((2, 40009), "sampling/long/logits/3", -4)
LONG_TOKENS = ((39958, 3, 40008, 39998, 39958), (39971, 40007, 39949, 5, 40007))


def flat() -> NDArray[Any]:
    """Return logits (2, 1021), all different: the numbers of 8 bits from 0.25 to 4 and their negatives, but three."""
    sizes = np.outer(2.0 ** np.arange(-9, -5), np.arange(128, 256)).reshape(-1)  # (512,)
    places = np.argsort(Integers((2, 1024), "sampling/flat/places", 0, 1 << 30).draw(), axis=1, kind="stable")
    return np.concatenate([sizes, -sizes])[places][:, :1021]


CASES = (
    random("repetition", "repetition penalty alone, above 1 and below, of prompt and what follows", (6, 37, 11),
           prompts=(7, 0, 4, 11, 5, 2), lengths=(11, 11, 9, 11, 6, 10),
           repetition_penalty=(1.1875, 1.5, 0.75, 1.0, 2.0, 1.25)),
    random("presence-frequency", "tokens that are generated several times", (5, 13, 21),
           prompts=(5, 3, 9, 0, 12), lengths=(21, 17, 19, 21, 20), presence_penalty=(0.625, 0.0, 1.5, -0.5, 0.25),
           frequency_penalty=(0.0, 0.3125, 0.5, 0.25, -0.1875)),
    random("padding", "padding holds -1, V and a token", (7, 29, 12), pads=(-1, 29, 3),
           prompts=(2, 0, 5, 1, 0, 4, 3), lengths=(5, 0, 9, 1, 12, 4, 7),
           repetition_penalty=(1.25, 1.5, 1.1875, 1.75, 1.25, 2.0, 1.5), presence_penalty=0.375,
           frequency_penalty=(0.25, 0.5, 0.125, 0.75, 0.25, 0.5, 0.25), temperature=1.25),
    random("temperature", "from 0.25 to 3, and 0", (8, 33, 2),
           temperature=(0.6875, 0.5, 3.0, 1.0, 0.0, 1.5, 2.0, 0.25)),
    case("greedy", "temperature 0 beside others; equal largest logits, filters that say nothing",
         written(leading()), 9, prompts=(4, 0, 7, 2, 5, 3),
         temperature=(0.0, 0.0, 0.75, 0.0, 0.0, 0.0), top_k=(3, 0, 4, 1, 2, 0),
         top_p=(1.0, 0.5, 0.875, 0.0, 1.0, 0.75), min_p=(0.0, 1.0, 0.0, 0.25, 0.0, 0.0),
         repetition_penalty=(1.0, 1.0, 2.0, 1.0, 1.0, 2.0), presence_penalty=(0.0, 0.0, 0.5, 0.0, 0.0, 1.0)),
    random("top-k", "1 to V and beyond, and 0", (9, 35, 2), top_k=(1, 2, 3, 5, 8, 13, 35, 99, 0), temperature=0.75),
    case("top-k-ties", "several equal the k-th largest: all stay", written(tied()), 3, top_k=(2, 1, 4, 2, 3),
         temperature=(1.0, 0.75, 1.0, 1.5, 1.25)),
    random("top-p", "from 0 to 1", (10, 39, 2),
           top_p=(0.25, 0.5, 0.625, 0.75, 0.875, 0.9375, 0.40625, 1.0, 0.0, 0.8125),
           temperature=(1.0, 0.75, 1.25, 0.75, 0.625, 0.5, 2.0, 1.5, 1.0, 0.75)),
    random("min-p", "from 0 to 1", (7, 32, 2), min_p=(0.0625, 0.125, 0.25, 0.5, 0.03125, 1.0, 0.0),
           temperature=(1.5, 1.0, 0.75, 2.0, 1.25, 1.0, 1.5)),
    random("filters", "top-k, then top-p, then min-p", (8, 41, 2),
           temperature=(1.5, 2.0, 1.25, 1.75, 1.5, 2.0, 1.0, 2.5),
           top_k=(5, 6, 4, 3, 7, 8, 10, 6), top_p=(0.75, 0.8125, 0.6875, 0.75, 0.875, 0.9375, 0.8125, 0.625),
           min_p=(0.0, 0.25, 0.125, 0.0, 0.3125, 0.1875, 0.125, 0.375)),
    random("everything", "all rules at once, each row its own", (11, 43, 17),
           lengths=(17, 12, 9, 17, 3, 15, 8, 17, 11, 6, 14), prompts=(5, 0, 9, 2, 1, 7, 3, 12, 0, 4, 6),
           temperature=(0.75, 1.25, 0.0, 1.5, 2.0, 1.0, 0.75, 0.6875, 1.75, 0.0, 1.5),
           top_k=(0, 6, 4, 9, 7, 0, 12, 5, 0, 0, 8),
           top_p=(0.875, 0.75, 0.5, 1.0, 0.8125, 0.6875, 0.8125, 0.75, 1.0, 1.0, 0.875),
           min_p=(0.0, 0.125, 0.0, 0.25, 0.0, 0.1875, 0.0625, 0.0, 0.3125, 0.0, 0.125),
           repetition_penalty=(1.1875, 1.25, 1.5, 1.0, 0.8125, 1.25, 1.5, 1.1875, 1.0, 2.0, 1.375),
           presence_penalty=(0.5, 0.0, 0.25, 1.0, 0.625, -0.25, 0.0, 0.375, 0.5, 0.0, 0.75),
           frequency_penalty=(0.25, 0.375, 0.0, 0.5, 0.0, 0.125, 0.3125, 0.0, 0.25, 0.625, -0.125)),
    case("banned", "tokens banned by -inf, all but one in a row, more places than tokens", written(banned()), 8,
         prompts=(3, 0, 8, 5, 2, 4, 1), top_k=(0, 22, 5, 3, 12, 0, 4), top_p=(1.0, 1.0, 1.0, 0.75, 1.0, 0.75, 1.0),
         min_p=(0.0, 0.0, 0.125, 0.0, 0.0, 0.0, 0.0), temperature=(1.0, 1.5, 1.25, 1.0, 2.0, 1.25, 0.0),
         repetition_penalty=(1.25, 1.5, 1.0, 2.0, 1.25, 1.0, 1.5),
         frequency_penalty=(0.25, 0.0, 0.5, 0.25, 0.375, 0.25, 0.0)),
    random("no-history", "no previous token", (3, 25, 0), temperature=1.25, repetition_penalty=1.5,
           presence_penalty=1.0, frequency_penalty=0.5),
    case("far", "about 100 and -100: no exponential without subtracting the maximum", written(far()), 2,
         top_k=(0, 5, 0, 3)),
    case("far-tail", "66 between the largest and the smallest, and top_p 1: all stay", written(far_tail()), 2,
         temperature=(1.0, 1.25, 0.75, 1.0, 1.0)),
    case("long", "40,009 tokens, of which the last 61 are compared", LONG, 5, prompts=(2, 0), top_k=(1, 3), keep=61,
         tokens=Literal(LONG_TOKENS), temperature=(1.5, 1.25), repetition_penalty=1.25, presence_penalty=0.5,
         frequency_penalty=(0.25, 0.125)),
    case("flat", "1,021 tokens about as likely, of which the last 61 are compared: sums of p need float32",
         written(flat()), 3, top_p=(0.8125, 0.6875), temperature=(1.25, 1.75), keep=61, contracts=FINE),
    case("near-ties", "penalised logits that tie by rounding", written(nearly_tied()), 3, tie=True,
         tokens=Literal(((7, 7, 1), (3, 2, 3), (0, 12, 5), (20, 9, 20))), repetition_penalty=1.1875),
    case("one-token", "a vocabulary of one", written(drawn("one-token", 5, 1)), 3, temperature=1.5, top_p=0.5,
         repetition_penalty=1.25),
    case("no-rows", "nothing to do", Dyadic((0, 7), "sampling/no-rows/logits", -4), 5),
)  # fmt: skip


def refused(name: str, refuses: str, **changes: Recipe) -> Case:
    """Return a case of three rows that is right but for the inputs `changes`."""
    right = case("refused", "", Dyadic((3, 5), "sampling/refused/logits", -4), 4)
    inputs = {**right.inputs, **changes}
    return Case(f"refuse-{name}", inputs, {}, (), refuses=refuses, about=refuses, fixed=right.fixed)


def numbers(*values: float | str, dtype: str = "float32") -> Literal:
    """Return one value for each row."""
    return Literal(values, dtype)


def integers(*values: int) -> Literal:
    """Return one integer for each row."""
    return Literal(values)


SPOILED = tuple(tuple(float(x) for x in row) for row in Dyadic((3, 5), "sampling/refused/logits", -4).draw())
REFUSALS = (
    refused("temperature", "a temperature below 0", temperature=numbers(1.0, -0.5, 1.0)),
    refused("top-k", "top_k of -1", top_k=integers(0, 2, -1)),
    refused("top-p", "top_p above 1", top_p=numbers(0.5, 1.5, 1.0)),
    refused("top-p-negative", "top_p below 0", top_p=numbers(0.5, 1.0, -0.25)),
    refused("min-p", "min_p above 1", min_p=numbers(0.0, 0.0, 2.0)),
    refused("repetition", "a repetition penalty of 0", repetition_penalty=numbers(0.0, 1.0, 1.5)),
    refused("token", "a token of -1", tokens=Literal(((1, 2, 0, 4), (3, -1, 2, 2), (0, 0, 1, 3)))),
    refused("token-beyond", "a token of V", tokens=Literal(((1, 2, 0, 4), (3, 1, 2, 2), (0, 5, 1, 3)))),
    refused("lengths", "a length above T", lengths=integers(4, 5, 4)),
    refused("prompts", "a prompt longer than all", lengths=integers(4, 3, 4)),
    refused("rows", "parameters of two rows for three", top_p=numbers(0.5, 1.0)),
    refused("tokens-rows", "tokens of one row for three", tokens=Literal(((1, 2, 0, 4),))),
    refused("nan", "NaN among the logits", logits=Literal((*SPOILED[:2], ("nan", *SPOILED[2][1:])), "float32")),
    refused("all-banned", "a row in which all tokens are banned",
            logits=Literal((SPOILED[0], ("-inf",) * 5, SPOILED[2]), "float32")),
)  # fmt: skip


# --- what must hold of a candidate's own outputs

Arrays = Mapping[str, Any]


def vocabulary_reversed(inputs: Arrays) -> dict[str, Any]:
    """Return the inputs with the vocabulary in reverse order."""
    V = inputs["logits"].shape[1]
    return {**inputs, "logits": inputs["logits"][:, ::-1].copy(), "tokens": V - 1 - inputs["tokens"]}


PROPERTIES = (
    rows_apart(
        ("padding", "filters", "everything", "banned"),
        "probabilities",
        ("logits", "tokens", "lengths", "prompt_lengths", *OFF),
    ),
    Property(
        "order-of-tokens",
        "the order of the vocabulary does not matter",
        ("repetition", "top-p", "min-p", "filters"),
        "probabilities",
        vocabulary_reversed,
        lambda first, second, _: (second["probabilities"], first["probabilities"][:, ::-1]),
    ),
    Property(
        "adds-up",
        "the probabilities of a row add up to 1",
        ("top-k", "top-p", "min-p", "everything"),
        "probabilities",
        compared=lambda first, _, __: (first["probabilities"].astype(np.float64).sum(1) / 6, 1 / 6),
    ),
    repeatable(("everything", "banned", "long"), "probabilities"),
)

SUITE = Suite(
    "sampling",
    ABOUT,
    CONTRACTS,
    (*CASES, *REFUSALS),
    outputs=("probabilities",),
    packed=True,
    properties=PROPERTIES,
)
