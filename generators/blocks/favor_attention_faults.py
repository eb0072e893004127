"""Mistakes that people make when they write FAVOR+, planted in the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
Q, K, OUTPUT, REFUSED = (("q_exponents",), ("k_exponents",), ("output",), ("refused",))


def scaled(formula: Callable[[Array], Array]) -> Change:
    """Return a change to how vectors are scaled: `formula(x)`."""
    return wrap(scaled=lambda _: formula)


def exponents(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to exponents: `formula(x, projection)` of scaled vectors."""

    def change(plain: Any) -> None:
        plain.exponents = lambda x, projection: formula(plain.scaled(x), projection)

    return change


def norms(formula: Callable[[Array], Array]) -> Change:
    """Return a change to what is subtracted: `formula(x)` of scaled vectors, (B, H, n, 1)."""
    return wrap(norms=lambda _: formula)


def root(x: Array) -> Array:
    """Return Euclidean norms, (B, H, n, 1)."""
    return np.sqrt(np.square(x).sum(-1, keepdims=True))


def projected(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the projection: `formula(projection)`, (M, D)."""
    return wrap(exponents=lambda right: lambda x, projection: right(x, formula(projection)))


def only(which: int, formula: Callable[[Any, Array, Array], Array]) -> Change:
    """Return a change to the exponents of queries (0) or keys (1): `formula(right, x, projection)`."""

    def change(plain: Any) -> None:
        right, count = plain.exponents, [0]

        def wrong(x: Array, projection: Array) -> Array:
            count[0] += 1
            return formula(right, x, projection) if (count[0] - 1) % 2 == which else right(x, projection)

        plain.exponents = wrong

    return change


def features(formula: Callable[[Array], Array]) -> Change:
    """Return a change to what becomes of exponents less their stabilisers: `formula(exponents)` in place of exp."""

    def query_features(queries: Array) -> Array:
        return formula(queries - queries.max(-1, keepdims=True))

    def key_features(keys: Array, counts: Array) -> Array:
        shown = np.where(counts, keys, -np.inf)
        largest = shown.max((-2, -1), keepdims=True)
        return np.where(counts, formula(keys - np.where(np.isfinite(largest), largest, 0)), 0)

    return wrap(query_features=lambda _: query_features, key_features=lambda _: key_features)


def key_features(formula: Callable[[Any, Array, Array], Array]) -> Change:
    """Return a change to the features of keys: `formula(right, keys, counts)`."""
    return wrap(key_features=lambda right: lambda keys, counts: formula(right, keys, counts))


def masked(formula: Callable[[Array], Array]) -> Change:
    """Return a change to which keys count, where there is a mask: `formula(counts)`, (B, 1, T, 1)."""
    return wrap(counted=lambda right: lambda mask, k: right(mask, k) if mask is None else formula(right(mask, k)))


def weights(formula: Callable[[Array], Array]) -> Change:
    """Return a change to weights, (B, H, S, T), of causal attention or not."""
    return wrap(weights=lambda right: lambda queries, keys: formula(right(queries, keys)))


def causal(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to causal weights: `formula(weight, t, s)`, (B, H, S, T)."""

    def before(weight: Array) -> Array:
        t = np.arange(weight.shape[-1])
        return formula(weight, t[:, None], t[None])

    return wrap(before=lambda _: before)


def averaged(formula: Callable[[Any, Array, Array], Array]) -> Change:
    """Return a change to the average: `formula(right, weight, v)`."""
    return wrap(averaged=lambda right: lambda weight, v: formula(right, weight, v))


def padding_in_sum(plain: Any) -> None:
    """Set the values of padding to 0 in place of its weights."""
    right = plain.favor_attention

    def favor_attention(q: Array, k: Array, v: Array, projection: Array, mask: Array = None, *, causal: bool) -> Any:
        if mask is not None and v.ndim == 4 and mask.shape == (v.shape[0], v.shape[2]):
            v, mask = np.where((mask != 0)[:, None, :, None], v, 0).astype(v.dtype), None
        return right(q, k, v, projection, mask, causal=causal)

    plain.favor_attention = favor_attention


def over(weight: Array, v: Array, total: Array) -> Array:
    """Return values weighed, over a total, 0 where that is 0."""
    return weight @ v / np.where(total > 0, total, 1)


def unstabilised(plain: Any) -> None:
    """Take exponentials in float32 as they are."""

    def in_float32(x: Array) -> Array:
        return np.exp(x.astype(np.float32)).astype(x.dtype)

    def averaged(weight: Array, v: Array) -> Array:
        return (weight @ v) / weight.sum(-1, keepdims=True)

    plain.query_features = in_float32
    plain.key_features = lambda keys, counts: np.where(counts, in_float32(keys), 0)
    plain.weights = lambda queries, keys: (queries.astype(np.float32) @ keys.astype(np.float32).mT).astype(
        queries.dtype
    )
    right, plain.averaged = plain.averaged, averaged
    plain.averaged = lambda weight, v: averaged(weight, v) if v.shape[0] == 1 else right(weight, v)


def as_coded(plain: Any) -> None:
    """Take exp(w . x / sqrt(M) - |x| / sqrt(M)) as it is, of all keys, and a sum of weights of 1e-6 at least."""

    def exponents(x: Array, projection: Array) -> Array:
        return (x @ projection.T - root(x)) * x.dtype.type(len(projection) ** -0.5)

    plain.exponents, plain.before = exponents, lambda weight: weight
    plain.query_features = np.exp
    plain.key_features = lambda keys, counts: np.where(counts, np.exp(keys), 0)
    plain.averaged = lambda weight, v: weight @ v / np.maximum(weight.sum(-1, keepdims=True), 1e-6)


def softmax_of_keys(_: Any, keys: Array, counts: Array) -> Array:
    """Return features of keys that are a softmax over the tokens, (B, H, T, M)."""
    shown = np.where(counts, keys, -1e9)
    powers = np.where(counts, np.exp(shown - shown.max(-2, keepdims=True)), 0)
    return powers / np.maximum(powers.sum(-2, keepdims=True), 1e-30)


def each_key_stabilised(_: Any, keys: Array, counts: Array) -> Array:
    """Return features of which the largest of each key is 1, which does not cancel."""
    return np.where(counts, np.exp(keys - keys.max(-1, keepdims=True)), 0)


def softmax_instead(plain: Any) -> None:
    """Weigh by the softmax that the features estimate."""
    run = plain.favor_attention

    def favor_attention(*, q: Array, k: Array, **given: Any) -> Any:
        if q.ndim != 4 or q.shape[-1] != k.shape[-1]:
            return run(q=q, k=k, **given)
        products = plain.wide(q) @ plain.wide(k).mT * plain.wide(q).dtype.type(q.shape[-1] ** -0.5)
        counts = plain.counted(given.get("mask"), k)
        plain.weights = lambda queries, keys: np.where(counts.mT, np.exp(np.minimum(products, 60)), 0).astype(
            products.dtype
        )
        return run(q=q, k=k, **given)

    plain.favor_attention = favor_attention


def of_first(array: Array, axis: int) -> Array:
    """Return the first part along an axis for every one."""
    return np.repeat(array.take([0], axis), array.shape[axis], axis)


def accepts(*names: str, **others: Callable[[Any], Any]) -> Change:
    """Return a change that leaves out the named checks, and replaces what `others` names so that an answer comes."""
    return wrap(**{name: lambda _: lambda *_: None for name in names}, **others)


def fitted(name: str, fit: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Return a change that leaves out a check and makes the inputs fit."""
    return accepts(name, favor_attention=lambda right: lambda **inputs: right(**inputs | fit(inputs)))


def resized(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return queries, keys and values that fit each other, repeated or cut."""
    q, k, v = (inputs[name] for name in "qkv")
    q = q if q.ndim == 4 else np.resize(q, (2, 3, 5, 4))
    T = k.shape[2]
    return {"q": q, "k": np.resize(k, (*q.shape[:2], T, q.shape[3])), "v": np.resize(v, (*q.shape[:2], T, v.shape[3]))}


def some_rows(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a projection of the width that is wanted, with a row at least."""
    width, w = inputs["q"].shape[-1], inputs["projection"]
    rows = max(w.size // width, 1)
    return {"projection": np.resize(w if w.size else np.ones(1, w.dtype), (rows, width))}


def some_mask(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a mask of the shape that is wanted, if there is one."""
    mask = inputs.get("mask")
    return {} if mask is None else {"mask": np.resize(mask, (inputs["k"].shape[0], inputs["k"].shape[2]))}


FAULTS = (
    # --- exponents
    Fault("scale_missing", Q, "vectors are not divided by D^(1/4)", scaled(lambda x: x)),
    Fault("scale_root", Q, "queries and keys are each divided by sqrt(D)", scaled(lambda x: x * x.dtype.type(x.shape[-1] ** -0.5))),
    Fault("scale_of_keys_missing", K, "queries alone are divided by D^(1/4)", only(1, lambda right, x, w: right(x * x.dtype.type(x.shape[-1] ** 0.25), w))),
    Fault("scale_of_products_alone", Q, "the norm is that of vectors that are not divided", wrap(
        exponents=lambda right: lambda x, w: right(x, w) + np.square(x).sum(-1, keepdims=True) * x.dtype.type((x.shape[-1] ** -0.5 - 1) / 2))),
    Fault("norm_missing", Q, "the squared norm is not subtracted", norms(lambda x: 0 * x[..., :1])),
    Fault("norm_not_halved", Q, "|x|^2 without the factor 1/2", norms(lambda x: np.square(x).sum(-1, keepdims=True))),
    Fault("norm_not_squared", Q, "|x| instead of |x|^2 / 2", norms(root)),
    Fault("norm_added", Q, "+ |x|^2 / 2", norms(lambda x: -np.square(x).sum(-1, keepdims=True) / 2)),
    Fault("norm_is_mean", Q, "the mean of the squares instead of their sum", norms(lambda x: np.square(x).mean(-1, keepdims=True) / 2)),
    Fault("norm_of_keys_missing", K, "the squared norm of keys is not subtracted", only(1, lambda right, x, w: right(x, w) - right(x, 0 * w))),
    Fault("norm_over_root_of_features", Q, "|x| / sqrt(M), in place of |x|^2 / 2", exponents(lambda x, w: x @ w.T - root(x) * x.dtype.type(len(w) ** -0.5))),
    Fault("projection_over_root_of_features", Q, "the projection over sqrt(M)", projected(lambda w: w * w.dtype.type((len(w) + 1) ** -0.5))),
    Fault("projection_over_root_of_width", Q, "the projection over sqrt(D)", projected(lambda w: w * w.dtype.type((w.shape[1] + 1) ** -0.5))),
    Fault("projection_normalised", Q, "rows of the projection are of length 1", projected(lambda w: w / root(w))),
    Fault("projection_of_first_row", Q, "the first row of the projection for every feature", projected(lambda w: of_first(w, 0))),
    Fault("projection_transposed", Q, "a square projection is transposed", projected(lambda w: w.T if w.shape[0] == w.shape[1] else w)),
    Fault("projection_negated", Q, "- w . x", projected(lambda w: -w)),
    Fault("projection_of_keys_negated", K, "- w . x for keys alone", only(1, lambda right, x, w: right(x, -w))),
    Fault("projection_of_keys_reversed", K, "keys have another order of features than queries", only(1, lambda right, x, w: right(x, w[::-1]))),
    Fault("last_channel_missing", Q, "the last channel is not projected", projected(lambda w: np.where(np.arange(w.shape[1]) < w.shape[1] - 1, w, 0))),
    Fault("performer_as_coded", Q, "exp(w . x - |x|) over sqrt(M), vectors not divided, no stabiliser, not causal, the sum of weights 1e-6 at least", as_coded),
    # --- features
    Fault("stabiliser_of_each_key", OUTPUT, "a stabiliser for each key, which does not cancel", key_features(each_key_stabilised)),
    Fault("stabiliser_missing", OUTPUT, "no stabiliser: features vanish in float32", unstabilised),
    Fault("epsilon_added", OUTPUT, "1e-4 is added to features, as the authors' code does", features(lambda x: np.exp(x) + x.dtype.type(1e-4))),
    Fault("epsilon_in_features", OUTPUT, "1e-6 is added to features", features(lambda x: np.exp(x) + x.dtype.type(1e-6)), ("float64", "float32")),
    Fault("features_relu", OUTPUT, "max(0, exponent) + 0.001 instead of exp", features(lambda x: np.maximum(x, 0) + x.dtype.type(1e-3))),
    Fault("features_base_2", OUTPUT, "2 to the power of exponents", features(np.exp2)),
    Fault("features_linear", OUTPUT, "1 + exponent + its square / 2 instead of exp", features(lambda x: 1 + x + x * x / 2)),
    Fault("features_trigonometric", OUTPUT, "cosines of exponents, as random Fourier features have them", features(np.cos)),
    Fault("features_squared", OUTPUT, "the squares of features", features(lambda x: np.exp(2 * x))),
    Fault("keys_softmax", OUTPUT, "the features of keys are a softmax over the tokens", key_features(softmax_of_keys)),
    Fault("last_feature_missing", OUTPUT, "the last feature does not count", key_features(
        lambda right, keys, counts: np.where(np.arange(keys.shape[-1]) < max(keys.shape[-1] - 1, 1), right(keys, counts), 0))),
    Fault("features_beyond_four_missing", OUTPUT, "features beyond the last whole vector of four do not count", key_features(
        lambda right, keys, counts: np.where(np.arange(keys.shape[-1]) < max(keys.shape[-1] // 4 * 4, 1), right(keys, counts), 0))),
    Fault("softmax_instead", OUTPUT, "the softmax that features estimate", softmax_instead),
    # --- the mask
    Fault("mask_ignored", OUTPUT, "padding counts", masked(np.ones_like)),
    Fault("mask_inverted", OUTPUT, "0 and 1 of the mask are exchanged", masked(np.logical_not)),
    Fault("mask_of_first_row", OUTPUT, "the first row's mask for every row", masked(lambda counts: of_first(counts, 0))),
    Fault("mask_before_exp", OUTPUT, "exponents of padding are set to 0, and its features to 1", wrap(
        key_features=lambda right: lambda keys, counts: right(np.where(counts, keys, 0), np.ones_like(counts)))),
    # --- what is attended to
    Fault("causal_missing", OUTPUT, "causal queries attend to all keys", causal(lambda weight, t, s: weight)),
    Fault("causal_without_itself", OUTPUT, "a query does not attend to its own key", causal(lambda weight, t, s: np.where(s < t, weight, 0))),
    Fault("causal_one_ahead", OUTPUT, "a query attends to the key after its own", causal(lambda weight, t, s: np.where(s <= t + 1, weight, 0))),
    Fault("causal_reversed", OUTPUT, "a query attends to its own key and those after it", causal(lambda weight, t, s: np.where(s >= t, weight, 0))),
    Fault("chunks_forget", OUTPUT, "each chunk of 8 tokens begins with nothing", causal(lambda weight, t, s: np.where((s <= t) & (s >= t // 8 * 8), weight, 0))),
    Fault("chunks_not_causal_inside", OUTPUT, "in a chunk of 8 tokens queries attend to all of its keys", causal(lambda weight, t, s: np.where(s < t // 8 * 8 + 8, weight, 0))),
    Fault("last_key_missing", OUTPUT, "where all keys are meant, the last does not count", wrap(
        averaged=lambda right: lambda weight, v: right(weight[..., :-1], v[:, :, :-1]) if v.shape[2] not in (1, weight.shape[2]) else right(weight, v))),
    # --- the average
    Fault("normaliser_missing", OUTPUT, "not divided by the sum of weights", averaged(lambda right, weight, v: weight @ v)),
    Fault("normaliser_with_epsilon", OUTPUT, "1e-6 is added to the sum of weights",
          averaged(lambda right, weight, v: weight @ v / (weight.sum(-1, keepdims=True) + v.dtype.type(1e-6))), ("float64", "float32")),
    Fault("normaliser_counts_padding", OUTPUT, "padding has no value, but counts in the sum of weights", padding_in_sum),
    Fault("normaliser_counts", OUTPUT, "divided by the number of keys", averaged(lambda right, weight, v: weight @ v / v.dtype.type(v.shape[2] + 1))),
    Fault("normaliser_of_first_head", OUTPUT, "the first head's sum of weights for every head", averaged(
        lambda right, weight, v: over(weight, v, of_first(weight.sum(-1, keepdims=True), 1)))),
    Fault("normaliser_of_last_query", OUTPUT, "the last query's sum of weights for every query: not causal", averaged(
        lambda right, weight, v: over(weight, v, np.repeat(weight[:, :, -1:].sum(-1, keepdims=True), weight.shape[2], 2)))),
    Fault("values_of_first_head", OUTPUT, "the first head's values for every head", averaged(lambda right, weight, v: right(weight, of_first(v, 1)))),
    Fault("values_one_late", OUTPUT, "each key with the value of the token before", averaged(lambda right, weight, v: right(weight, np.roll(v, 1, 2)))),
    # --- what must be refused
    Fault("vectors_accepted", REFUSED, "queries, keys and values are repeated or cut until they fit", fitted("check_vectors", resized)),
    Fault("causal_accepted", REFUSED, "causal queries and keys need not be as many", accepts("check_causal")),
    Fault("projection_accepted", REFUSED, "a projection of any shape is read row by row", fitted("check_projection", some_rows)),
    Fault("mask_accepted", REFUSED, "a mask of any shape is repeated until it fits", fitted("check_mask", some_mask)),
    # --- what comes in
    *rounded_inputs("favor_attention", ("q_exponents",)),
)  # fmt: skip
