"""FAVOR+, attention by positive random features (Choromanski et al. 2021); the random projection is an input.

Symbols: B batch, H heads, S queries, T keys, D head width, E value width, M features.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from karat import Case, Checkpoint, Dyadic, Literal, Property, Recipe, Suite, causality, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function, all inputs by name
    favor_attention(q, k, v, projection, mask=None, *, causal) -> {"q_exponents": …, "k_exponents": …, "output": …}
  q           (B, H, S, D)
  k, v        (B, H, T, D) and (B, H, T, E); S = T where causal
  projection  (M, D), one for all heads: row m is w_m, which is used as it is
  mask        (B, T) integers, 0 where a key is padding and counts for nothing; in most cases there is none
  causal      query t attends to keys 0 … t; otherwise every query attends to all keys
All inputs but the mask are in storage.

  q_exponents  (B, H, S, M): w_m . x - |x|^2 / 2 with x = q / D^(1/4)
  k_exponents  (B, H, T, M): the same of k
  output       (B, H, S, E): the sum over keys of weight times v, over the sum of weights; the weight of query t and key
               s is the sum over m of exp(q_exponents_t,m) exp(k_exponents_s,m). 0 where no key counts
All three are in storage; a candidate that does not hold exponents says so: UNSUPPORTED = ["q_exponents",
"k_exponents"]. Under bfloat16 and float16 what is computed on the way may be rounded to storage, or not; under the
contracts that round once it may not. The features are the exponentials. A factor M^(-1/2) cancels, and so do
stabilisers, numbers that are subtracted from exponents before exp, if there is one for each query, or one for all keys
of a head; they are needed where exponents are far below 0. One for each key does not cancel. No epsilon is added
anywhere.

Must be refused (raise, or exit with another code than 0): q, k or v that has not four axes; k of another batch, heads
or width than q; v of another batch, heads or number of keys than k; S other than T where causal; a projection that is
not (M, D), or has no rows; a mask that is not (B, T).
"""

CONTRACTS = ("float64", "float32", "tfloat32", "bfloat16", "float16", "bfloat16-once", "float16-once")
WIDE_INSIDE = ("float64", "float32", "tfloat32", "bfloat16-once", "float16-once")
QUERIES = ("batch", "head", "query", "channel")
Sizes = tuple[int, int, int, int, int, int, int]


def drawn(name: str, sizes: Sizes, exponent: int = -5) -> dict[str, Recipe]:
    """Return q and k of the standard deviation 36.9 * 2^exponent, v and the projection, (B, H, S, T, D, E, M)."""
    B, H, S, T, D, E, M = sizes
    return {
        "q": Dyadic((B, H, S, D), f"favor_attention/{name}/q", exponent=exponent),
        "k": Dyadic((B, H, T, D), f"favor_attention/{name}/k", exponent=exponent),
        "v": Dyadic((B, H, T, E), f"favor_attention/{name}/v", exponent=-5),
        "projection": Dyadic((M, D), f"favor_attention/{name}/projection", exponent=-5),
    }


def case(
    name: str,
    about: str,
    sizes: Sizes,
    *,
    causal: bool = False,
    mask: tuple[tuple[int, ...], ...] = (),
    exponent: int = -5,
    contracts: tuple[str, ...] = (),
) -> Case:
    """Return the case of the sizes (B, H, S, T, D, E, M)."""
    B, H, S, T, _, E, M = sizes
    inputs = drawn(name, sizes, exponent)
    if mask:
        inputs["mask"] = Literal(mask, "int64")
    last = {"query": (S - 16, S)} if S > 64 else {}
    keys = {"key": (T - 16, T)} if T > 64 else {}
    return Case(
        name,
        inputs,
        {"causal": causal},
        (
            Checkpoint("q_exponents", (B, H, S, M), ("batch", "head", "query", "feature"), keep=last),
            Checkpoint("k_exponents", (B, H, T, M), ("batch", "head", "key", "feature"), keep=keys),
            Checkpoint("output", (B, H, S, E), QUERIES, keep=last),
        ),
        contracts=contracts,
        about=about,
    )


def refused(name: str, refuses: str, *, given: Mapping[str, Recipe] | None = None, **params: Any) -> Case:
    """Return a case with something wrong in otherwise right inputs of 5 causal tokens."""
    right = drawn("refused", (2, 3, 5, 5, 4, 6, 7))
    return Case(f"refused-{name}", right | dict(given or {}), {"causal": True} | params, (), refuses=refuses)


def one(name: str, *shape: int) -> dict[str, Recipe]:
    """Return the input `name` in another shape."""
    return {name: Dyadic(shape, f"favor_attention/refused/{name}/{math.prod(shape)}", exponent=-5)}


PADDED = ((0, 0, 0, 1, 1, 1, 1, 1, 1), (1,) * 9, (0, 1, 1, 1, 1, 1, 1, 1, 1))
SOME = ((1, 1, 0, 1, 0, 1, 1, 1), (0,) * 8, (1, 1, 1, 1, 1, 1, 0, 0))

CASES = (
    case("all-keys", "every query attends to all keys", (2, 3, 7, 11, 6, 5, 9)),
    case("causal", "a short sequence", (2, 2, 19, 19, 5, 6, 8), causal=True),
    case("causal-long", "97 tokens", (1, 2, 97, 97, 6, 4, 10), causal=True),
    case("all-keys-masked", "padding among the keys; a row without keys, whose outputs are 0", (3, 2, 5, 8, 4, 7, 6),
         mask=SOME),
    case("left-padded", "padded on the left: the first queries of a row see nothing", (3, 2, 9, 9, 4, 6, 7),
         causal=True, mask=PADDED),
    case("many-features", "more features than the width: near the softmax", (1, 2, 9, 8, 3, 6, 64)),
    case("square-projection", "as many features as channels: no shape tells (M, D) from (D, M)", (2, 2, 7, 9, 6, 5, 6)),
    case("one-feature", "one feature: queries do not matter", (1, 3, 10, 7, 5, 6, 1)),
    case("one-channel", "a head width of 1", (2, 3, 8, 9, 1, 5, 4)),
    case("large", "exponents about -100: without stabilisers all features vanish", (1, 3, 11, 13, 6, 5, 8), exponent=-2,
         contracts=WIDE_INSIDE),
    case("one-token", "one causal token, whose output is its value", (3, 2, 1, 1, 4, 6, 5), causal=True),
    case("one-token-large", "one token with exponents below -88, whose output is its value", (1, 3, 1, 1, 8, 6, 1),
         causal=True, exponent=-2),
    case("no-queries", "no queries", (1, 2, 0, 6, 4, 5, 7)),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows",
         (2, 3, 8, 12, 6, 5, 9)).fine("float64", "float32"),
    refused("rank", "q of three axes", given=one("q", 2, 5, 4)),
    refused("width", "k of another width than q", given=one("k", 2, 3, 5, 6)),
    refused("heads", "one key head for three heads", given=one("k", 2, 1, 5, 4)),
    refused("values", "values of 4 tokens for 5 keys", given=one("v", 2, 3, 4, 6)),
    refused("causal", "5 queries and 7 keys, causal", given=one("k", 2, 3, 7, 4) | one("v", 2, 3, 7, 6)),
    refused("projection", "a projection laid out (D, M)", given=one("projection", 4, 7)),
    refused("no-features", "a projection without rows", given=one("projection", 0, 4)),
    refused("mask", "a mask of 4 keys for 5", given={"mask": Literal(((1, 1, 1, 1), (0, 1, 1, 1)), "int64")}),
)  # fmt: skip

# --- what must hold of a candidate's own outputs ---------------------------------------------------------------------

Arrays = Mapping[str, Any]


def values_constant(inputs: Arrays) -> dict[str, Any]:
    """Return the inputs with values of 0.75."""
    return {**inputs, "v": np.full_like(inputs["v"], 0.75)}


def padding_changed(inputs: Arrays) -> dict[str, Any]:
    """Return the inputs with other keys and values where the mask, (B, T), is 0."""
    counts = (inputs["mask"] != 0)[:, None, :, None]  # (B, 1, T, 1)
    return {**inputs, "k": np.where(counts, inputs["k"], -1.5), "v": np.where(counts, inputs["v"], 40.0)}


def keys_reversed(inputs: Arrays) -> dict[str, Any]:
    """Return the inputs with keys, values and their mask in reverse order."""
    axes = {"k": 2, "v": 2, "mask": 1}
    return {name: np.flip(array, axes[name]).copy() if name in axes else array for name, array in inputs.items()}


PROPERTIES = (
    causality(("causal", "causal-long"), "output", ("q", "k", "v"), axis=2, at=11),
    rows_apart(("all-keys",), "output", ("q", "k", "v")),
    Property(
        "constant-values",
        "the average of equal values is that value",
        ("all-keys", "causal-long", "many-features"),
        "output",
        values_constant,
        lambda _, second, inputs: (second["output"], inputs["v"].flat[0]),
    ),
    Property(
        "padding",
        "what stands in the padding changes nothing",
        ("all-keys-masked", "left-padded"),
        "output",
        padding_changed,
        lambda first, second, _: (second["output"], first["output"]),
    ),
    Property(
        "order-of-keys",
        "where every query attends to all keys, their order does not matter",
        ("all-keys", "all-keys-masked", "large"),
        "output",
        keys_reversed,
        lambda first, second, _: (second["output"], first["output"]),
    ),
    repeatable(("causal-long", "many-features"), "output"),
)

SUITE = Suite("favor_attention", ABOUT, CONTRACTS, CASES, outputs=("output",), packed=True, properties=PROPERTIES)
