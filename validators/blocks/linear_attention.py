"""Linear attention with elu(x) + 1 (Katharopoulos et al. 2020), causal or over all keys, with a state that goes on.

Symbols: B batch, H heads, S queries, T keys, D head width, E value width.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from karat import Case, Checkpoint, Dyadic, Literal, Property, Recipe, Suite, causality, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function, all inputs by name
    linear_attention(q, k, v, mask=None, initial_state=None, initial_sum=None, *, causal, floor)
        -> {"q_features": …, "k_features": …, "normaliser": …, "output": …, "state": …, "key_sum": …}
  q              (B, H, S, D)
  k, v           (B, H, T, D) and (B, H, T, E); S = T where causal
  mask           (B, T) integers, 0 where a key is padding and counts for nothing; in most cases there is none
  initial_state  (B, H, D, E) and
  initial_sum    (B, H, D): what earlier tokens left; in most cases there is none, and they are 0
  causal         query t attends to keys 0 … t; otherwise every query attends to all keys
  floor          the smallest number by which anything is divided
All inputs but the mask are in storage. There is no scale 1/sqrt(D).

  q_features  (B, H, S, D): elu(q) + 1, which is q + 1 above 0, and e^q below
  k_features  (B, H, T, D): elu(k) + 1, and 0 where the mask is 0
  normaliser  (B, H, S): q_features . (initial_sum + the sum of k_features over the keys attended to), before the floor
  output      (B, H, S, E): q_features (initial_state + the sum of k_features v^T over the same keys) / max(normaliser,
              floor)
  state       (B, H, D, E): initial_state + the sum of k_features v^T over all keys
  key_sum     (B, H, D): initial_sum + the sum of k_features over all keys
All of them are in storage, and all sums are made in the accumulation format: states too, token after token. The forms
are the same to rounding: recurrent with a state, in chunks, or as a matrix of S x T products. elu(x) + 1 may be
computed as written: it is known to one unit roundoff of 1, also where it is small.

Must be refused (raise, or exit with another code than 0): q, k or v that has not four axes; k of another batch, heads
or width than q; v of another batch, heads or number of keys than k; S other than T where causal; a mask that is not (B,
T); an initial state or sum of another shape, or one without the other; a floor that is not above 0.
"""

CONTRACTS = ("float64", "float32", "tfloat32", "bfloat16", "float16", "bfloat16-once", "float16-once")
QUERIES = ("batch", "head", "query", "channel")
Sizes = tuple[int, int, int, int, int, int]


def drawn(name: str, sizes: Sizes, **how: int) -> dict[str, Recipe]:
    """Return q, k, v and what earlier tokens left, of the sizes (B, H, S, T, D, E).

    `how` has the exponent of q and k, their mean in units of 2^exponent, and whether there is a state.
    """
    B, H, S, T, D, E = sizes
    exponent, offset = how.get("exponent", -5), how.get("offset", 0)
    inputs: dict[str, Recipe] = {
        "q": Dyadic((B, H, S, D), f"linear_attention/{name}/q", exponent=exponent, offset=offset),
        "k": Dyadic((B, H, T, D), f"linear_attention/{name}/k", exponent=exponent, offset=offset),
        "v": Dyadic((B, H, T, E), f"linear_attention/{name}/v", exponent=-5),
    }
    if how.get("state"):
        inputs["initial_state"] = Dyadic((B, H, D, E), f"linear_attention/{name}/initial_state", exponent=-4)
        inputs["initial_sum"] = Dyadic(
            (B, H, D), f"linear_attention/{name}/initial_sum", exponent=-6, offset=128, narrow=True
        )
    return inputs


def case(
    name: str,
    about: str,
    sizes: Sizes,
    *,
    causal: bool = True,
    floor: float = 1e-6,
    mask: tuple[tuple[int, ...], ...] = (),
    **how: int,
) -> Case:
    """Return the case of the sizes (B, H, S, T, D, E); `how` is as `drawn` has it."""
    B, H, S, T, D, E = sizes
    inputs = drawn(name, sizes, **how)
    if mask:
        inputs["mask"] = Literal(mask, "int64")
    last = {"query": (S - 24, S)} if S > 64 else {}
    keys = {"key": (T - 24, T)} if T > 64 else {}
    return Case(
        name,
        inputs,
        {"causal": causal, "floor": floor},
        (
            Checkpoint("q_features", (B, H, S, D), QUERIES, keep=last),
            Checkpoint("k_features", (B, H, T, D), ("batch", "head", "key", "channel"), keep=keys),
            Checkpoint("normaliser", (B, H, S), QUERIES[:3], keep=last),
            Checkpoint("output", (B, H, S, E), QUERIES, keep=last),
            Checkpoint("state", (B, H, D, E), ("batch", "head", "feature", "channel")),
            Checkpoint("key_sum", (B, H, D), ("batch", "head", "feature")),
        ),
        about=about,
    )


def refused(name: str, refuses: str, *, given: Mapping[str, Recipe] | None = None, **params: Any) -> Case:
    """Return a case with something wrong in otherwise right inputs of 5 causal tokens."""
    right = drawn("refused", (2, 3, 5, 5, 4, 6), state=1)
    return Case(
        f"refused-{name}", right | dict(given or {}), {"causal": True, "floor": 1e-6} | params, (), refuses=refuses
    )


def one(name: str, *shape: int) -> dict[str, Recipe]:
    """Return the input `name` in another shape."""
    return {name: Dyadic(shape, f"linear_attention/refused/{name}/{math.prod(shape)}", exponent=-5)}


def half_a_state() -> Case:
    """Return a case with an initial state and no initial sum."""
    inputs = drawn("refused-half", (2, 3, 5, 5, 4, 6), state=1)
    del inputs["initial_sum"]
    params = {"causal": True, "floor": 1e-6}
    return Case("refused-half-a-state", inputs, params, (), refuses="an initial state without an initial sum")


PADDED = ((0, 0, 0, 1, 1, 1, 1, 1, 1), (1,) * 9, (0, 1, 1, 1, 1, 1, 1, 1, 1))
SOME = ((1, 1, 0, 1, 0, 1, 1, 1), (0,) * 8, (1, 1, 1, 1, 1, 1, 0, 0))

CASES = (
    case("causal", "a short sequence", (2, 3, 19, 19, 6, 5)),
    case("causal-long", "261 tokens: chunks, and sums that must not be coarse", (1, 2, 261, 261, 7, 4)),
    case("all-keys", "every query attends to all keys", (2, 3, 7, 11, 5, 8), causal=False),
    case("all-keys-masked", "padding among the keys; a row without keys, whose outputs are 0", (3, 2, 5, 8, 4, 7),
         causal=False, mask=SOME),
    case("left-padded", "padded on the left: the first queries of a row see nothing", (3, 2, 9, 9, 4, 6),
         mask=PADDED),
    case("one-token", "one token after others, as decoding has it", (4, 3, 1, 1, 6, 5), state=1),
    case("resumed", "a sequence after another one", (2, 3, 10, 10, 5, 4), state=1),
    case("resumed-all-keys", "all keys, and what others left", (1, 4, 9, 6, 5, 7), causal=False, state=1),
    case("floor", "normalisers on both sides of a floor of 1/2", (2, 3, 8, 8, 4, 5), offset=-64, floor=0.5),
    case("large", "queries and keys up to 15", (1, 3, 17, 17, 5, 6), exponent=-3),
    case("one-feature", "a head width of 1", (2, 4, 11, 11, 1, 5)),
    case("no-queries", "no queries: the state all the same", (1, 2, 0, 6, 4, 5), causal=False),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows",
         (2, 3, 13, 13, 6, 5)).fine("float64", "float32"),
    refused("rank", "q of three axes", given=one("q", 2, 5, 4)),
    refused("width", "k of another width than q", given=one("k", 2, 3, 5, 6)),
    refused("heads", "one key head for three heads", given=one("k", 2, 1, 5, 4)),
    refused("values", "values of 4 tokens for 5 keys", given=one("v", 2, 3, 4, 6)),
    refused("causal", "5 queries and 7 keys, causal", given=one("k", 2, 3, 7, 4) | one("v", 2, 3, 7, 6)),
    refused("mask", "a mask of 4 keys for 5", given={"mask": Literal(((1, 1, 1, 1), (0, 1, 1, 1)), "int64")}),
    refused("state", "a state laid out (E, D)", given=one("initial_state", 2, 3, 6, 4)),
    refused("floor", "a floor of 0", floor=0.0),
    half_a_state(),
)  # fmt: skip

# --- what must hold of a candidate's own outputs ---------------------------------------------------------------------

Arrays = Mapping[str, Any]


def values_constant(inputs: Arrays) -> dict[str, Any]:
    """Return the inputs with values of 0.75."""
    return {**inputs, "v": np.full_like(inputs["v"], 0.75)}


def padding_changed(inputs: Arrays) -> dict[str, Any]:
    """Return the inputs with other keys and values where the mask, (B, T), is 0."""
    counts = (inputs["mask"] != 0)[:, None, :, None]  # (B, 1, T, 1)
    return {**inputs, "k": np.where(counts, inputs["k"], 3.0), "v": np.where(counts, inputs["v"], 40.0)}


def keys_reversed(inputs: Arrays) -> dict[str, Any]:
    """Return the inputs with keys, values and their mask in reverse order."""
    axes = {"k": 2, "v": 2, "mask": 1}
    return {name: np.flip(array, axes[name]).copy() if name in axes else array for name, array in inputs.items()}


def halves(given: Arrays) -> dict[str, Any]:
    """Return inputs whose second row goes on after the first run's first row, and whose first row has both in one.

    The first row of `left-padded` has three tokens of padding, whose places are last in the new one: six tokens, which
    left `state` and `key_sum`, and then three others. The second row begins with these two and the same three tokens.
    """
    changed = {name: given[name].copy() for name in ("q", "k", "v")}  # (B, H, T, D or E)
    for array in changed.values():
        array[0] = np.roll(array[0], -3, 1)
        array[1, :, :3] = array[0, :, 6:]
    mask = np.ones_like(given["mask"])  # (B, T)
    mask[1, 3:] = 0
    state, key_sum = (np.zeros_like(given[name]) for name in ("outputs/state", "outputs/key_sum"))
    state[1], key_sum[1] = given["outputs/state"][0], given["outputs/key_sum"][0]
    return {**given, **changed, "mask": mask, "initial_state": state, "initial_sum": key_sum}


PROPERTIES = (
    causality(("causal", "causal-long"), "output", ("q", "k", "v"), axis=2, at=11),
    rows_apart(("causal", "all-keys"), "output", ("q", "k", "v")),
    Property(
        "chunks",
        "two halves, the state carried over, equal the whole",
        ("left-padded",),
        "output",
        halves,
        lambda first, second, _: (
            np.concatenate([first["output"][0, :, 3:], second["output"][1, :, :3]], 1),
            second["output"][0],
        ),
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
        "constant-values",
        "the average of equal values is that value",
        ("causal", "causal-long", "all-keys", "large"),
        "output",
        values_constant,
        lambda _, second, inputs: (second["output"], inputs["v"].flat[0]),
    ),
    Property(
        "order-of-keys",
        "where every query attends to all keys, their order does not matter",
        ("all-keys", "all-keys-masked", "resumed-all-keys"),
        "output",
        keys_reversed,
        lambda first, second, _: (second["output"], first["output"]),
    ),
    repeatable(("causal-long",), "output"),
)
SUITE = Suite("linear_attention", ABOUT, CONTRACTS, CASES, outputs=("output",), packed=True, properties=PROPERTIES)
