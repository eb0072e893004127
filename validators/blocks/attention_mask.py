"""What a mask means to attention: its kind, its axes, and a query that may look at nothing.

Symbols: B batch, H heads, S queries, T keys, D width of a head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Property, Suite, causality, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    attention_mask(q, k, v, mask=None, *, mask_kind, mask_axes=None) -> {checkpoint: array}
  q     (B, H, S, D), in storage
  k, v  (B, H, T, D), in storage
  mask  of the axes that mask_axes names, its entries as mask_kind says; not given where mask_kind is "none"
mask_axes  one letter for each axis of the mask: "ST", "BT", "BST" or "BHST". Axes that it has not, and those of length
           1, are broadcast. The letters decide, not the lengths: in some cases B is S or H
mask_kind  which keys a query keeps, which it drops
  none        no mask: all are kept
  bool_keep   booleans, True keeps (as in torch's scaled_dot_product_attention)
  bool_drop   booleans, True drops (as in torch.nn.MultiheadAttention)
  int_keep    integers, uint8 or int64: 0 drops, any other number keeps (as tokenizers mark padding, or segments)
  float_keep  floats, 1.0 keeps and 0.0 drops; they are not to be added
  additive    floats, added to the scaled scores. An entry of -1000 or less drops the key, whatever its value: -inf,
              -1e9, -1e4, -9984 (-1e4 in bfloat16), the least number of a format. Entries above -1000 are biases. The
              mask is in storage; one that drops by -1e4, by -1e9 or by the least number of float32 is in float32
              under every contract
and returns
  masked_scores  (B, H, S, T) q k^T / sqrt(D), plus the bias where the mask is additive; -inf where a key is dropped
  probabilities  (B, H, S, T) their softmax over the keys, exactly 0 where a key is dropped
  output         (B, H, S, D) probabilities v
Of a query whose keys are all dropped, probabilities and output are 0, for every kind. That is no convention among
others: adding -1e4 to all scores leaves the softmax of the unmasked ones in float64 and the mean of v in bfloat16, the
least number gives the mean of v or NaN, -inf NaN. Only 0 depends neither on the format nor on the number that was
chosen to drop, and a padded row leaves nothing in sums over rows. The limit is -1000 because exp(-1000) is 0 in float64
already: of a query that keeps a key, adding such a number and dropping are the same.
Under bfloat16 and float16 scores and probabilities may be rounded to storage before they go on, or not; under the
contracts that round once they may not. A candidate that fills with a finite number, or never holds the scores, says so:
UNSUPPORTED = ["masked_scores"].

Must be refused (raise, or exit with another code than 0): a kind or axes that do not exist; no mask where the kind
needs one, a mask where the kind is "none"; a mask of another rank than its axes, or of a length that is neither that of
its axis nor 1 (of the keys only T will do: one entry is not meant for all of them); entries of another type than the
kind's (bfloat16 is a type of floats, though NumPy calls its dtype.kind "V"); entries of float_keep other than 0 and 1;
NaN or +inf in an additive mask.
"""

CONTRACTS = ("float64", "float32", "tfloat32", "bfloat16", "float16", "bfloat16-once", "float16-once")
SCORES = ("batch", "head", "query", "key")
INFINITE = float("inf")
LEAST = {
    "float64": (-1.7976931348623157e308, ("float64",)),
    "float32": (-3.4028234663852886e38, ("float32", "tfloat32")),
    "bfloat16": (-3.3895313892515355e38, ("bfloat16", "bfloat16-once")),
    "float16": (-65504.0, ("float16", "float16-once")),
}
"""The least number of each format, and the contracts that store in it."""

Mask = NDArray[Any]


# --- which keys are kept: booleans, True keeps -----------------------------------------------------------------------


def patterns(name: str, T: int) -> Mask:
    """Return rows of keys: all kept, padding on the right, on the left, a hole, one key, none; (6, T)."""
    rows = np.ones((6, T), bool)
    rows[1, T - T // 3 :] = False
    rows[2, : T // 2] = False
    rows[3, Integers((2,), f"attention_mask/{name}/hole", 1, T - 1).draw()] = False
    rows[4] = np.arange(T) == T - 3
    rows[5] = False
    return rows


def chosen(name: str, rows: Sequence[int], shape: tuple[int, ...]) -> Mask:
    """Return a mask of `shape`, the rows before its last axis being the patterns `rows`, one after the other."""
    return np.resize(patterns(name, shape[-1])[list(rows)], shape)


def scattered(name: str, shape: tuple[int, ...], empty: tuple[int, ...] = ()) -> Mask:
    """Return a random mask of `shape` that keeps two keys of three; of the query at `empty` it keeps none."""
    kept = Integers(shape, f"attention_mask/{name}/kept", 0, 3).draw() > 0
    if empty:
        kept[empty] = False
    return kept


# --- what a mask of a kind holds -------------------------------------------------------------------------------------


def literal(values: Mask, dtype: str) -> Literal:
    """Return the recipe of a mask written out."""

    def nested(part: Any) -> Any:
        return tuple(map(nested, part)) if isinstance(part, list) else part

    return Literal(nested(values.tolist()), dtype)


def biases(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return random biases between -3 and 3, exact in every format."""
    return Integers(shape, f"attention_mask/{name}/bias", -24, 25).draw() / 8


def written(name: str, kept: Mask, kind: str, fill: float) -> Literal:
    """Return the recipe of the mask of a kind that keeps `kept`; `biased` is `additive` with biases."""
    if kind == "bool_keep":
        return literal(kept, "bool")
    if kind == "bool_drop":
        return literal(~kept, "bool")
    if kind == "uint8_keep":
        return literal(kept.astype(int), "uint8")
    if kind == "int_keep":
        return literal(kept * Integers(kept.shape, f"attention_mask/{name}/ids", 1, 4).draw(), "int64")
    if kind == "float_keep":
        return literal(kept.astype(float), "float32")
    bias = biases(name, kept.shape) if kind == "biased" else np.zeros(kept.shape)
    return literal(np.where(kept, bias, fill), "float64" if fill == LEAST["float64"][0] else "float32")


def case(  # noqa: PLR0913 - a case is what it is made of
    name: str,
    about: str,
    kept: Mask | None,
    axes: str = "",
    kind: str = "bool_keep",
    *,
    sizes: tuple[int, int, int, int, int],
    fill: float = -INFINITE,
    contracts: tuple[str, ...] = (),
    fixed: bool = False,
    exponents: tuple[int, int] = (-4, -5),
) -> Case:
    """Return the case of a mask that keeps `kept`; `sizes` are B, H, S, T and D.

    With `fixed` the mask is in float32 under every contract, as it is where it drops by -1e4 or -1e9. The standard
    deviations of q and k are 36.9 times 2 to the power of `exponents`.
    """
    B, H, S, T, D = sizes
    inputs: dict[str, Any] = {
        "q": Dyadic((B, H, S, D), f"attention_mask/{name}/q", exponent=exponents[0]),
        "k": Dyadic((B, H, T, D), f"attention_mask/{name}/k", exponent=exponents[1]),
        "v": Dyadic((B, H, T, D), f"attention_mask/{name}/v", exponent=-5, offset=17),
    }
    params: dict[str, Any] = {"mask_kind": "none"}
    if kept is not None:
        inputs["mask"] = written(name, kept, kind, fill)
        params = {"mask_kind": {"uint8_keep": "int_keep", "biased": "additive"}.get(kind, kind), "mask_axes": axes}
    return Case(
        name,
        inputs,
        params,
        (
            Checkpoint("masked_scores", (B, H, S, T), SCORES, nonfinite=True),
            Checkpoint("probabilities", (B, H, S, T), SCORES, exact_zeros=True),
            Checkpoint("output", (B, H, S, D), (*SCORES[:3], "channel")),
        ),
        contracts=contracts,
        about=about,
        fixed={"mask": "float32"} if fixed or fill in (-1e4, -1e9) else {},
    )


# --- every kind with every padding -----------------------------------------------------------------------------------

PADDED: tuple[tuple[str, str, float, str, str], ...] = (
    ("bool-keep", "bool_keep", 0, "BT", "BHST"),
    ("bool-drop", "bool_drop", 0, "", "ST"),
    ("integers", "int_keep", 0, "", "BST"),
    ("bytes", "uint8_keep", 0, "B11T", ""),
    ("float-keep", "float_keep", 0, "BST", "1HST"),
    ("minus-infinity", "additive", -INFINITE, "B1ST", "BST"),
    ("minus-1e4", "additive", -1e4, "BT", "BHST"),
    ("minus-9984", "additive", -9984.0, "", "1HST"),
    ("minus-1e9", "additive", -1e9, "B11T", ""),
)
"""Name, kind, with what an additive mask drops, and the axes of a mask that pads rows, and of one that pads queries."""

PADDINGS = "no padding, right, left, a hole, one key, no key"
ORDER = (3, 0, 5, 1, 4, 2, 1, 3, 2, 4, 0)
"""Patterns of queries, one after the other: 11, so that no head and no row of the batch has those of another."""


def padded() -> tuple[Case, ...]:
    """Return cases of each kind: the rows of the batch padded each otherwise, or the queries."""
    return tuple(
        made for entry in PADDED for made in (padded_rows(*entry[:4]), padded_queries(*entry[:3], entry[4])) if made
    )


def padded_rows(name: str, kind: str, fill: float, axes: str) -> Case | None:
    """Return the case of a mask of these axes, 1 for one of length 1, that pads each row of the batch otherwise."""
    if not axes:
        return None
    sizes = dict(zip("BHSTD", (6, 2, 3, 7, 5), strict=True))
    kept = patterns(name, sizes["T"]).reshape(6, *(1,) * (len(axes) - 2), 7)
    kept = np.broadcast_to(kept, [sizes.get(axis, 1) for axis in axes])
    about = f"rows of the batch with {PADDINGS}"
    return case(f"{name}-rows", about, kept, named(axes), kind, sizes=(6, 2, 3, 7, 5), fill=fill)


def padded_queries(name: str, kind: str, fill: float, axes: str) -> Case | None:
    """Return the case of a mask of these axes, 1 for one of length 1, that pads each query otherwise; with biases."""
    if not axes:
        return None
    sizes = dict(zip("BHSTD", (2, 3, 6, 8, 5), strict=True))
    kept = chosen(f"{name}-queries", ORDER, tuple(sizes.get(axis, 1) for axis in axes))
    about, kind = f"queries with {PADDINGS}", kind.replace("additive", "biased")
    about += "; biases" if kind == "biased" else ""
    return case(f"{name}-queries", about, kept, named(axes), kind, sizes=(2, 3, 6, 8, 5), fill=fill)


def named(axes: str) -> str:
    """Return the axes of a mask with those of length 1 by their letters."""
    return "BHST" if len(axes) == 4 else axes


def least() -> tuple[Case, ...]:
    """Return a case for the least number of each format."""
    sizes = (3, 2, 5, 7, 6)
    return tuple(
        case(
            f"least-{name}",
            f"the least number of {name} drops; biases",
            chosen(f"least-{name}", (3, 0, 5, 1, 4, 2, 1), (3, 1, 5, 7)),
            "BHST",
            "biased",
            sizes=sizes,
            fill=fill,
            contracts=contracts,
        )
        for name, (fill, contracts) in LEAST.items()
    )


# --- kinds that drop, in other shapes: few keys, small ----------------------------------------------------------------

FILLS: tuple[tuple[str, float, bool], ...] = (
    ("minus-infinity", -INFINITE, False),
    ("least", LEAST["float32"][0], True),
    ("minus-1e9", -1e9, False),
)
"""Name, with what an additive mask drops, and whether it is in float32 under every contract for another reason."""


def shared() -> tuple[Case, ...]:
    """Return cases of one mask for all rows and heads, (S, T), with biases; a query keeps no key."""
    return tuple(
        case(
            f"{name}-shared",
            "one mask of queries and keys for all, with biases; the third query keeps no key",
            scattered(f"{name}-shared", (4, 5), (2,)),
            "ST",
            "biased",
            sizes=(2, 3, 4, 5, 6),
            fill=fill,
            fixed=fixed,
        )
        for name, fill, fixed in FILLS
    )


def of_keys() -> tuple[Case, ...]:
    """Return cases of a mask (B, 1, 1, T), whose second row keeps no key."""
    kinds = (*(("additive", *entry) for entry in FILLS[:2]), ("float_keep", "float-keep", 0.0, False))
    return tuple(
        case(
            f"{name}-keys",
            "a mask of (B, 1, 1, T): rows with padding on the left, no key, a hole",
            patterns(f"{name}-keys", 5)[[2, 5, 3]].reshape(3, 1, 1, 5),
            "BHST",
            kind,
            sizes=(3, 2, 4, 5, 6),
            fill=fill,
            fixed=fixed,
        )
        for kind, name, fill, fixed in kinds
    )


def other_shapes() -> tuple[Case, ...]:
    """Return cases of kinds in the shapes that the others leave out, of each the smallest that shows it."""
    return (
        *shared(),
        *of_keys(),
        case(
            "minus-1e9-heads",
            "a mask of (B, H, S, T), with biases; one query of one head keeps no key",
            scattered("minus-1e9-heads", (2, 3, 4, 5), (1, 2, 0)),
            "BHST",
            "biased",
            sizes=(2, 3, 4, 5, 6),
            fill=-1e9,
        ),
        case(
            "float-keep-tokens",
            "a mask of (B, T): rows with one key, padding on the right, no key",
            patterns("float-keep-tokens", 5)[[4, 1, 5]],
            "BT",
            "float_keep",
            sizes=(3, 2, 4, 5, 6),
        ),
        case(
            "all-dropped-infinity",
            "nothing is kept anywhere, by -inf",
            np.zeros((2, 3, 4, 5), bool),
            "BHST",
            "additive",
            sizes=(2, 3, 4, 5, 6),
        ),
    )


# --- what is left of every kind in every shape -----------------------------------------------------------------------

CROSSED: tuple[tuple[str, str, float, tuple[str, ...]], ...] = (
    ("bool-keep", "bool_keep", 0, ("B11T", "B1ST")),
    ("bool-drop", "bool_drop", 0, ("BST", "B11T", "B1ST", "BHST")),
    ("integers", "int_keep", 0, ("ST", "B1ST", "BHST")),
    ("float-keep", "float_keep", 0, ("ST", "B1ST", "BHST")),
    ("minus-infinity", "additive", -INFINITE, ("BHST",)),
    ("least", "additive", LEAST["float32"][0], ("BT", "BST", "BHST")),
    ("minus-1e9", "additive", -1e9, ("BT", "BST", "B1ST")),
    ("minus-1e4", "additive", -1e4, ("ST", "BST", "B11T", "B1ST")),
)
"""Name, kind, with what an additive mask drops, and the axes, 1 for one of length 1, that the other cases lack."""


def crossed() -> tuple[Case, ...]:
    """Return the small cases with which every kind comes in every shape, with every padding."""
    return tuple(crossed_case(name, kind, fill, axes) for name, kind, fill, several in CROSSED for axes in several)


def crossed_case(name: str, kind: str, fill: float, axes: str) -> Case:
    """Return the case of a mask of these axes, whose rows or queries are padded each otherwise; queries with biases."""
    of_rows, label = "S" not in axes, f"{name}-{axes.lower()}"
    sizes = (6, 1, 2, 5, 3) if of_rows else (2, 2, 6, 5, 3)
    lengths = dict(zip("BHSTD", sizes, strict=True))
    kept = chosen(label, range(6) if of_rows else ORDER, tuple(lengths.get(axis, 1) for axis in axes))
    return case(
        label,
        f"a mask of ({', '.join(axes)}): {'rows' if of_rows else 'queries'} with {PADDINGS}",
        kept,
        named(axes),
        kind if of_rows else kind.replace("additive", "biased"),
        sizes=sizes,
        fill=fill,
        fixed=name == "least",
    )


# --- lengths that coincide, and extremes -----------------------------------------------------------------------------


def coinciding() -> tuple[Case, ...]:
    """Return cases in which lengths are equal, so that a mask fits where it does not belong."""
    later = np.tril(np.ones((7, 7), bool))
    rows = patterns("square", 7)[[1, 2, 4, 0, 3]]
    return (
        case("rows-as-queries", "B is S: a (B, T) mask fits as (S, T)", rows, "BT", sizes=(5, 2, 5, 7, 4)),
        case("rows-as-queries-integers", "the same in integers", rows, "BT", "int_keep", sizes=(5, 2, 5, 7, 4)),
        case(
            "rows-as-queries-additive",
            "the same, additive with biases",
            scattered("rows-additive", (5, 7)),
            "BT",
            "biased",
            sizes=(5, 2, 5, 7, 4),
        ),
        case(
            "queries-as-rows",
            "B is S: an (S, T) mask fits as (B, T)",
            scattered("queries-as-rows", (5, 7), (3,)),
            "ST",
            "bool_drop",
            sizes=(5, 2, 5, 7, 4),
        ),
        case(
            "rows-as-heads",
            "B is H: a (B, S, T) mask fits as (H, S, T)",
            scattered("rows-as-heads", (4, 3, 7), (1, 2)),
            "BST",
            sizes=(4, 4, 3, 7, 5),
        ),
        case(
            "rows-as-heads-additive",
            "the same, additive with biases",
            scattered("rows-heads-additive", (4, 3, 7), (2, 0)),
            "BST",
            "biased",
            sizes=(4, 4, 3, 7, 5),
        ),
        case("causal", "S is T: each query keeps the keys up to its own", later, "ST", sizes=(2, 3, 7, 7, 4)),
        case(
            "keys-as-queries",
            "S is T: padding of keys fits the queries",
            patterns("keys-as-queries", 7)[[1, 2, 5]],
            "BT",
            "int_keep",
            sizes=(3, 2, 7, 7, 4),
        ),
        case(
            "square-additive",
            "S is T: a mask that is not symmetric, with biases",
            scattered("square-additive", (3, 7, 7), (1, 4)),
            "BST",
            "biased",
            sizes=(3, 2, 7, 7, 4),
        ),
    )


def extremes() -> tuple[Case, ...]:
    """Return cases of no mask, of nothing but biases, of nothing kept, of one mask for all, and of one key."""
    nothing = np.zeros((2, 5), bool)
    return (
        case("no-mask", "no mask is given", None, sizes=(2, 3, 5, 8, 7)),
        case(
            "biases",
            "an additive mask that drops nothing",
            np.ones((2, 3, 5, 8), bool),
            "BHST",
            "biased",
            sizes=(2, 3, 5, 8, 7),
        ),
        case(
            "one-for-all",
            "a mask of (1, 1, S, T)",
            scattered("one-for-all", (1, 1, 6, 8), (0, 0, 2)),
            "BHST",
            "bool_drop",
            sizes=(3, 2, 6, 8, 5),
        ),
        case("all-dropped", "nothing is kept anywhere", nothing, "BT", "bool_drop", sizes=(2, 3, 4, 5, 6)),
        case(
            "all-dropped-1e4",
            "nothing is kept anywhere, by -1e4",
            nothing,
            "BT",
            "additive",
            sizes=(2, 3, 4, 5, 6),
            fill=-1e4,
        ),
        limit(),
        case(
            "large-scores",
            "each query keeps one key, with scores beyond 1000, whose exponentials overflow",
            np.eye(7, dtype=bool)[[3, 0, 6, 1, 5, 2]],
            "ST",
            sizes=(2, 3, 6, 7, 6),
            exponents=(0, -1),
        ),
        case(
            "one-key",
            "T of 1: kept, or nothing is",
            np.array([[True], [False], [True]]),
            "BT",
            "int_keep",
            sizes=(3, 2, 4, 1, 5),
        ),
        case(
            "long",
            "left padding of up to 300 of 400 keys",
            np.arange(400) >= np.array([[300], [0], [37]]),
            "BT",
            "uint8_keep",
            sizes=(3, 1, 2, 400, 16),
        ),
    )


def limit() -> Case:
    """Return the case of entries on both sides of the limit: -1000 drops, -200 is a bias of the only key that is kept.

    Where several keys are kept biases are small: a score of -200 has an error of 1 in bfloat16.
    """
    entries = np.full((6, 5), -1000.0)
    entries[[0, 1, 2], [1, 3, 0]] = -200, -48, -104
    entries[3, 1:4] = -3, 0, 2.5
    entries[4] = 0, -1000, -2.5, -1000, 1
    made = case(
        "limit",
        "entries of exactly -1000 drop, those of -200 and -48 are biases",
        np.ones((6, 5), bool),
        "ST",
        "additive",
        sizes=(2, 2, 6, 5, 4),
    )
    return replace(made, inputs={**made.inputs, "mask": literal(entries, "float32")})


# --- what must be refused --------------------------------------------------------------------------------------------


def refusal(name: str, refuses: str, kind: str, axes: str | None, mask: Literal | None) -> Case:
    """Return a case of two rows, three heads, four queries and five keys that must be refused."""
    inputs: dict[str, Any] = {
        entry: Dyadic((2, 3, length, 6), f"attention_mask/refused/{entry}", exponent=-5)
        for entry, length in (("q", 4), ("k", 5), ("v", 5))
    }
    params = {"mask_kind": kind} | ({} if axes is None else {"mask_axes": axes})
    return Case(
        f"refused-{name}", inputs | ({} if mask is None else {"mask": mask}), params, (), refuses=refuses, about=refuses
    )


def refusals() -> tuple[Case, ...]:
    """Return what must be refused."""

    def ones(*shape: int, dtype: str = "bool") -> Literal:
        return literal(np.ones(shape, dtype), dtype)

    def floats(entry: float) -> Literal:
        rows = np.zeros((2, 5))
        rows[1, 2] = entry
        return literal(rows, "float32")

    return (
        refusal("kind", "a kind that does not exist", "keep", "BT", ones(2, 5)),
        refusal("axes", "axes that do not exist", "bool_keep", "TB", ones(5, 2)),
        refusal("no-mask", "no mask, and a kind that needs one", "bool_keep", "BT", None),
        refusal("mask-of-none", "a mask, and the kind none", "none", "BT", ones(2, 5)),
        refusal("rank", "a mask of two axes called BHST", "bool_keep", "BHST", ones(4, 5)),
        refusal("rows", "a mask of three rows for a batch of two", "bool_drop", "BT", ones(3, 5)),
        refusal("queries", "a mask of five queries for four", "bool_keep", "BST", ones(2, 5, 5)),
        refusal("keys", "a mask of four keys for five", "int_keep", "BT", ones(2, 4, dtype="int64")),
        refusal("one-key", "a mask of one key for five", "int_keep", "BT", ones(2, 1, dtype="int64")),
        refusal("booleans", "floats where booleans are said to be", "bool_keep", "BT", ones(2, 5, dtype="float32")),
        refusal("half", "0.5 among what keeps or drops", "float_keep", "BT", floats(0.5)),
        refusal("nan", "NaN in an additive mask", "additive", "BT", floats(float("nan"))),
        refusal("infinite", "+inf in an additive mask", "additive", "BT", floats(INFINITE)),
    )


def dropped_changed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a (B, T) mask with other keys and values where it drops them."""
    mask = given["mask"]  # (B, T)
    kept = mask if mask.dtype.kind == "b" else mask > -1000 if mask.dtype.kind == "f" else mask != 0
    seen = kept[:, None, :, None]  # (B, 1, T, 1)
    return {**given, "k": np.where(seen, given["k"], -3.0), "v": np.where(seen, given["v"], 40.0)}


def values_constant(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with values of 0.75."""
    return {**given, "v": np.full_like(given["v"], 0.75)}


def keys_reversed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with keys, values and what the mask says of them in reverse order."""
    axes = {"k": 2, "v": 2, "mask": -1}
    return {name: np.flip(array, axes[name]).copy() if name in axes else array for name, array in given.items()}


def sums(first: Mapping[str, Any], _: Mapping[str, Any], __: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the sums of the rows, and 1, both divided by the root of the number of keys, whose errors add up."""
    probabilities = first["probabilities"].astype(np.float64)  # (B, H, S, T)
    return probabilities.sum(-1) / probabilities.shape[-1] ** 0.5, probabilities.shape[-1] ** -0.5


SOME_KEPT = ("no-mask", "biases", "rows-as-queries", "rows-as-queries-integers", "causal", "long")
"""Cases in which every query keeps a key."""

PROPERTIES = (
    causality(("causal",), "output", ("q", "k", "v"), axis=2, at=4),
    Property(
        "rows-sum-to-1",
        "the probabilities of a query that keeps a key sum to 1",
        SOME_KEPT,
        "probabilities",
        compared=sums,
    ),
    Property(
        "constant-values",
        "the average of equal values is that value",
        SOME_KEPT,
        "output",
        values_constant,
        lambda _, second, inputs: (second["output"], inputs["v"].flat[0]),
    ),
    Property(
        "order-of-keys",
        "if the mask goes with them, the order of the keys does not matter",
        ("no-mask", "bool-keep-rows", "minus-infinity-shared", "float-keep-tokens", "long"),
        "output",
        keys_reversed,
        lambda first, second, _: (second["output"], first["output"]),
    ),
    Property(
        "padding",
        "what stands in a key that is dropped changes nothing",
        ("bool-keep-rows", "minus-1e4-rows", "rows-as-queries", "keys-as-queries", "long"),
        "output",
        dropped_changed,
        lambda first, second, _: (second["output"], first["output"]),
    ),
    rows_apart(("bool-keep-rows", "rows-as-queries", "rows-as-heads"), "output", ("q", "k", "v", "mask")),
    repeatable(("long",), "output"),
)
SUITE = Suite(
    "attention_mask",
    ABOUT,
    CONTRACTS,
    (*extremes(), *padded(), *least(), *other_shapes(), *crossed(), *coinciding(), *refusals()),
    outputs=("output",),
    packed=True,
    properties=PROPERTIES,
)
