"""Mistakes that people make when they write linear attention, planted in the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
Q, K, NORMALISER, OUTPUT, STATE, KEY_SUM, REFUSED = (
    (name,) for name in ("q_features", "k_features", "normaliser", "output", "state", "key_sum", "refused")
)


def features(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the features of queries and keys: `formula(x)`."""
    return wrap(features=lambda _: formula)


def attend(formula: Callable[..., tuple[Array, ...]]) -> Change:
    """Return a change to attention, causal or not: `formula(right, causal, queries, keys, v, state, key_sum)`."""

    def change(plain: Any) -> None:
        for name in ("recurrent", "over_all"):
            right = getattr(plain, name)
            setattr(plain, name, lambda *given, right=right, name=name: formula(right, name == "recurrent", *given))

    return change


def result(formula: Callable[[dict[str, Array], dict[str, Array], bool], dict[str, Array]]) -> Change:
    """Return a change to what attention returns: `formula(found, given, causal)` gives what replaces some of it."""
    names, results = ("queries", "keys", "v", "state", "key_sum"), ("numerator", "normaliser", "state", "key_sum")

    def wrong(right: Any, causal: bool, *given: Array) -> tuple[Array, ...]:
        found = dict(zip(results, right(*given), strict=True))
        return tuple((found | formula(found, dict(zip(names, given, strict=True)), causal)).values())

    return attend(wrong)


def given(formula: Callable[[dict[str, Array], bool], dict[str, Array]]) -> Change:
    """Return a change to what attention is given: `formula(given, causal)` gives what replaces some of it."""
    names = ("queries", "keys", "v", "state", "key_sum")

    def wrong(right: Any, causal: bool, *arrays: Array) -> tuple[Array, ...]:
        by_name = dict(zip(names, arrays, strict=True))
        return right(*(by_name | formula(by_name, causal)).values())

    return attend(wrong)


def causal_only(formula: Callable[..., tuple[Array, ...]]) -> Change:
    """Return a change to causal attention: `formula(right, queries, keys, v, state, key_sum)`."""
    return wrap(recurrent=lambda right: lambda *arrays: formula(right, *arrays))


def divided(formula: Callable[[Array, Array, float], Array]) -> Change:
    """Return a change to the division: `formula(numerator, normaliser, floor)`, the normaliser (B, H, S, 1)."""
    return wrap(divided=lambda _: lambda numerator, normaliser, floor: formula(numerator, normaliser[..., None], floor))


def masked(formula: Callable[[Any, Array, Array], Array]) -> Change:
    """Return a change to masking: `formula(right, keys, mask)`, where there is a mask."""
    return wrap(masked=lambda right: lambda keys, mask: keys if mask is None else formula(right, keys, mask))


def kernel(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to causal attention as a matrix: `formula(products, t, s)`, (S, T), the initial state as it is."""

    def wrong(right: Any, queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, ...]:
        t = np.arange(keys.shape[2])
        products = formula(queries @ keys.mT, t[:, None], t[None])
        _, _, last, total = right(queries, keys, v, state, key_sum)
        normaliser = products.sum(-1) + (queries * key_sum[:, :, None]).sum(-1)
        return products @ v + queries @ state, normaliser, last, total

    return causal_only(wrong)


def in_chunks(
    formula: Callable[[Any, tuple[Array, ...], tuple[Array, Array], tuple[Array, Array]], tuple[Array, ...]],
) -> Change:
    """Return a change to chunks of 8 tokens: `formula(right, tokens, carried, first)` gives what `right` gives.

    `tokens` are queries, keys and values of the chunk, `carried` what the chunk before left, `first` the initial state.
    """

    def wrong(right: Any, queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, ...]:
        first, carried, parts = (state, key_sum), (state, key_sum), []
        for start in range(0, keys.shape[2], 8):
            tokens = tuple(x[:, :, start : start + 8] for x in (queries, keys, v))
            found = formula(right, tokens, carried, first)
            parts.append(found[:2])
            carried = found[2:]
        numerators, normalisers = zip(*parts, strict=True)
        return np.concatenate(numerators, 2), np.concatenate(normalisers, 2), *carried

    return causal_only(wrong)


def coarse(values: Array, dtype: str) -> Array:
    """Return values rounded to `dtype`, in their own format."""
    return values.astype(np.float64).astype(dtype).astype(values.dtype)


def of_first(array: Array, axis: int) -> Array:
    """Return the first part along an axis for every one."""
    return np.repeat(array.take([0], axis), array.shape[axis], axis)


def softmax(x: Array, axis: int) -> Array:
    """Return the softmax along an axis."""
    powers = np.exp(x - x.max(axis, keepdims=True, initial=-100))
    return powers / powers.sum(axis, keepdims=True)


def softmax_features(plain: Any) -> None:
    """Take the softmax of queries over their width, and of keys over the tokens, as efficient attention does."""
    count = [0]

    def features(x: Array) -> Array:
        count[0] += 1
        return softmax(x, -1) if count[0] % 2 else softmax(x, -2)

    plain.features = features


def only(which: int, formula: Callable[[Array], Array]) -> Change:
    """Return a change to the features of queries (0) or keys (1) alone: `formula(x)`."""

    def change(plain: Any) -> None:
        right, count = plain.features, [0]

        def wrong(x: Array) -> Array:
            count[0] += 1
            return formula(x) if (count[0] - 1) % 2 == which else right(x)

        plain.features = wrong

    return change


def masked_before_features(plain: Any) -> None:
    """Multiply keys by the mask before their features are taken, which are then 1."""
    plain.masked = lambda keys, mask: keys if mask is None else np.where((mask != 0)[:, None, :, None], keys, 1)


def values_masked(plain: Any) -> None:
    """Mask values alone: padding still counts in the normaliser."""
    masked, right = plain.masked, plain.linear_attention

    def linear_attention(*, v: Array, mask: Array | None = None, **others: Any) -> Any:
        v = v if mask is None else np.where((mask != 0)[:, None, :, None], v, 0).astype(v.dtype)
        plain.masked = lambda keys, _: keys
        found = right(v=v, mask=mask, **others)
        plain.masked = masked
        return found

    plain.linear_attention = linear_attention


def scaled(plain: Any) -> None:
    """Multiply queries by 1/sqrt(D) before their features are taken."""
    right, count = plain.features, [0]

    def features(x: Array) -> Array:
        count[0] += 1
        return right(x * x.dtype.type(x.shape[-1] ** -0.5)) if count[0] % 2 else right(x)

    plain.features = features


def softmax_attention(
    right: Any, causal: bool, queries: Array, keys: Array, v: Array, *state: Array
) -> tuple[Array, ...]:
    """Weigh by exponentials of the products instead of the products."""
    found = right(queries, keys, v, *state)
    products = np.exp(np.minimum(queries @ keys.mT, 60))
    products = np.tril(products) if causal else products
    return products @ v, products.sum(-1), *found[2:]


def over_all_keys(plain: Any) -> None:
    """Attend to all keys where it should be causal."""
    plain.recurrent = plain.over_all


def up_to_own_place(plain: Any) -> None:
    """Attend to keys up to a query's own place, to the last one from there on, where all should be attended to."""
    right = plain.over_all

    def over_all(queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, ...]:
        _, _, last, total = right(queries, keys, v, state, key_sum)
        products = np.tril(queries @ keys.mT)
        normaliser = products.sum(-1) + (queries * key_sum[:, :, None]).sum(-1)
        return products @ v + queries @ state, normaliser, last, total

    plain.over_all = over_all


def accepts(*names: str, **others: Callable[[Any], Any]) -> Change:
    """Return a change that leaves out the named checks, and replaces what `others` names so that an answer comes."""
    return wrap(**{name: lambda _: lambda *_: None for name in names}, **others)


def resized(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs that fit each other, repeated or cut."""
    q, k, v = (inputs[name] for name in "qkv")
    q = q if q.ndim == 4 else np.resize(q, (2, 3, 5, 4))
    T = k.shape[2]
    return inputs | {
        "q": q,
        "k": np.resize(k, (*q.shape[:2], T, q.shape[3])),
        "v": np.resize(v, (*q.shape[:2], T, v.shape[3])),
    }


def fitted(name: str, fit: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Return a change that leaves out a check and makes the inputs fit."""
    return accepts(name, linear_attention=lambda right: lambda **inputs: right(**fit(inputs)))


def with_state(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs with a whole initial state of the shape that is wanted."""
    B, H, _, D = inputs["k"].shape
    E = inputs["v"].shape[3]
    state, whole = inputs["initial_state"], inputs.get("initial_sum", np.zeros((B, H, D), inputs["k"].dtype))
    return inputs | {"initial_state": np.resize(state, (B, H, D, E)), "initial_sum": np.resize(whole, (B, H, D))}


FAULTS = (
    # --- features
    Fault("features_without_1", Q, "elu(x) without + 1", features(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))))),
    Fault("features_relu", Q, "max(x, 0) instead of elu(x) + 1", features(lambda x: np.maximum(x, 0))),
    Fault("features_relu_plus_1", Q, "max(x, 0) + 1 instead of elu(x) + 1", features(lambda x: np.maximum(x, 0) + 1)),
    Fault("features_exp", Q, "e^x instead of elu(x) + 1", features(lambda x: np.exp(np.minimum(x, 20)))),
    Fault("features_softplus", Q, "ln(1 + e^x) instead of elu(x) + 1", features(lambda x: np.logaddexp(x, 0 * x))),
    Fault("features_squared", Q, "(elu(x) + 1)^2", wrap(features=lambda right: lambda x: right(x) ** 2)),
    Fault("features_selu", Q, "SELU + 1, with its constants", features(lambda x: x.dtype.type(1.0507) * np.where(
        x > 0, x, x.dtype.type(1.67326) * np.expm1(np.minimum(x, 0))) + 1)),
    Fault("features_softmax", Q, "the softmax of q over its width, and of k over the tokens", softmax_features),
    Fault("features_of_query_missing", Q, "queries without features", only(0, lambda x: x)),
    Fault("features_of_key_missing", K, "keys without features", only(1, lambda x: x)),
    Fault("scale_of_query", Q, "a scale of 1/sqrt(D), which linear attention has not", scaled),
    # --- the mask
    Fault("mask_ignored", K, "padding counts", masked(lambda right, keys, mask: keys)),
    Fault("mask_inverted", K, "0 and 1 of the mask are exchanged", masked(lambda right, keys, mask: right(keys, mask == 0))),
    Fault("mask_of_first_row", K, "the first row's mask for every row", masked(lambda right, keys, mask: right(keys, np.repeat(mask[:1], len(mask), 0)))),
    Fault("mask_before_features", K, "keys are masked before their features are taken, which are then 1", masked_before_features),
    Fault("mask_of_values", K, "values are masked, keys are not: padding counts in the normaliser", values_masked),
    # --- the normaliser
    Fault("normaliser_missing", NORMALISER, "divided by 1: no normaliser", result(lambda found, given, causal: {"normaliser": np.ones_like(found["normaliser"])})),
    Fault("normaliser_of_all_keys", NORMALISER, "the normaliser of causal queries sums over all keys",
          result(lambda found, given, causal: {"normaliser": (given["queries"] * found["key_sum"][:, :, None]).sum(-1)})),
    Fault("normaliser_without_query", NORMALISER, "the sum of the keys' features, not multiplied by the query's",
          result(lambda found, given, causal: {"normaliser": (np.cumsum(given["keys"], 2).sum(-1) if causal else found["normaliser"] * 0 + given["keys"].sum((2, 3))[..., None])})),
    Fault("normaliser_counts", NORMALISER, "divided by the number of keys", result(lambda found, given, causal: {
        "normaliser": found["normaliser"] * 0 + (np.arange(1, 1 + found["normaliser"].shape[2]) if causal else given["keys"].shape[2])})),
    Fault("normaliser_mean", NORMALISER, "the mean over the head width instead of the sum", result(lambda found, given, causal: {
        "normaliser": found["normaliser"] / given["keys"].dtype.type(given["keys"].shape[-1])})),
    Fault("normaliser_of_first_head", NORMALISER, "the first head's normaliser for every head", result(lambda found, given, causal: {"normaliser": of_first(found["normaliser"], 1)})),
    Fault("normaliser_without_initial", NORMALISER, "the initial sum is missing in the normaliser", result(lambda found, given, causal: {
        "normaliser": found["normaliser"] - (given["queries"] * given["key_sum"][:, :, None]).sum(-1)})),
    Fault("normaliser_root", OUTPUT, "divided by the root of the normaliser", divided(lambda num, den, floor: num / np.sqrt(np.maximum(den, floor)))),
    Fault("normaliser_not_used", OUTPUT, "not divided by the normaliser", divided(lambda num, den, floor: num)),
    Fault("floor_added", OUTPUT, "the floor is added instead of a smallest value", divided(lambda num, den, floor: num / (den + floor))),
    Fault("floor_ignored", OUTPUT, "no floor: 0 / 0 where there is no key", divided(lambda num, den, floor: num / den)),
    Fault("floor_1e-6_always", OUTPUT, "a floor of 1e-6 whatever the parameter says", divided(lambda num, den, floor: num / np.maximum(den, num.dtype.type(1e-6)))),
    Fault("floor_squared", OUTPUT, "the floor on the squared normaliser", divided(lambda num, den, floor: num / np.sqrt(np.maximum(den * den, floor)))),
    Fault("below_floor_is_zero", OUTPUT, "0 where the normaliser is below the floor", divided(lambda num, den, floor: np.where(den < floor, 0, num / np.maximum(den, floor)))),
    # --- what is attended to
    Fault("causal_missing", NORMALISER, "causal queries attend to all keys", over_all_keys),
    Fault("causal_always", NORMALISER, "queries attend to the keys up to their own place where all are meant", up_to_own_place),
    Fault("causal_without_itself", NORMALISER, "a query does not attend to its own key", kernel(lambda products, t, s: np.where(s < t, products, 0))),
    Fault("causal_one_ahead", NORMALISER, "a query attends to the key after its own", kernel(lambda products, t, s: np.where(s <= t + 1, products, 0))),
    Fault("causal_reversed", NORMALISER, "a query attends to its own key and those after it", kernel(lambda products, t, s: np.where(s >= t, products, 0))),
    Fault("window_of_16", NORMALISER, "a query attends to the last 16 keys", kernel(lambda products, t, s: np.where((s <= t) & (s > t - 16), products, 0))),
    Fault("state_decays", NORMALISER, "what is remembered decays by 1 % with each token", kernel(
        lambda products, t, s: np.where(s <= t, products * products.dtype.type(0.99) ** np.maximum(t - s, 0).astype(products.dtype), 0))),
    Fault("exponential_of_products", NORMALISER, "the exponential of the products, as softmax attention has it", attend(softmax_attention)),
    # --- chunks
    Fault("chunks_forget", NORMALISER, "each chunk of 8 tokens begins with nothing", in_chunks(lambda right, tokens, carried, first: right(*tokens, *(x * 0 for x in carried)))),
    Fault("chunks_begin_at_first", NORMALISER, "each chunk of 8 tokens begins at the initial state", in_chunks(lambda right, tokens, carried, first: right(*tokens, *first))),
    Fault("chunks_not_causal_inside", NORMALISER, "in a chunk of 8 tokens queries attend to all of its keys", kernel(lambda products, t, s: np.where(s < t // 8 * 8 + 8, products, 0))),
    Fault("chunks_only_before", NORMALISER, "a query attends to the chunks of 8 tokens before its own, not to its own",
          kernel(lambda products, t, s: np.where(s < t // 8 * 8, products, 0))),
    Fault("chunk_sum_not_carried", NORMALISER, "chunks of 8 tokens carry the state, not the sum of keys", in_chunks(
        lambda right, tokens, carried, first: right(*tokens, carried[0], first[1]))),
    Fault("chunk_state_not_carried", OUTPUT, "chunks of 8 tokens carry the sum of keys, not the state", in_chunks(
        lambda right, tokens, carried, first: right(*tokens, first[0], carried[1]))),
    Fault("tail_missing", NORMALISER, "keys beyond the last whole chunk of 8 are not counted", given(lambda arrays, causal: {
        "keys": np.where((np.arange(arrays["keys"].shape[2]) < max(arrays["keys"].shape[2] // 8 * 8, 1))[:, None], arrays["keys"], 0)})),
    # --- sums
    Fault("state_in_bfloat16", OUTPUT, "the state is kept in bfloat16 between tokens", wrap(updated=lambda right: lambda kept, *token: right(coarse(kept, "bfloat16"), *token))),
    Fault("carried_state_in_float16", OUTPUT, "the state is kept in float16 between tokens", wrap(updated=lambda right: lambda kept, *token: right(coarse(kept, "float16"), *token))),
    Fault("sum_in_bfloat16", NORMALISER, "the sum of keys is kept in bfloat16 between tokens", wrap(added=lambda right: lambda kept, *token: right(coarse(kept, "bfloat16"), *token))),
    # --- values and states
    Fault("values_of_first_head", OUTPUT, "the first head's values for every head", given(lambda arrays, causal: {"v": of_first(arrays["v"], 1)})),
    Fault("values_one_late", OUTPUT, "each key with the value of the token before", given(lambda arrays, causal: {"v": np.roll(arrays["v"], 1, 2)})),
    Fault("initial_ignored", NORMALISER, "the initial state and sum are ignored", given(lambda arrays, causal: {name: arrays[name] * 0 for name in ("state", "key_sum")})),
    Fault("initial_state_ignored", OUTPUT, "the initial state is ignored, its sum is not", given(lambda arrays, causal: {"state": arrays["state"] * 0})),
    Fault("initial_of_first_row", NORMALISER, "the first row's initial state for every row", given(lambda arrays, causal: {name: of_first(arrays[name], 0) for name in ("state", "key_sum")})),
    Fault("initial_twice", NORMALISER, "the initial state counts twice", given(lambda arrays, causal: {name: arrays[name] * 2 for name in ("state", "key_sum")})),
    Fault("final_is_initial", STATE, "the initial state is returned, it is not updated", result(lambda found, given, causal: {name: given[name] for name in ("state", "key_sum")})),
    Fault("final_without_initial", STATE, "the state of these tokens alone is returned", result(lambda found, given, causal: {name: found[name] - given[name] for name in ("state", "key_sum")})),
    Fault("final_without_last", STATE, "the state before the last token is returned", result(lambda found, given, causal: {
        "state": found["state"] - given["keys"][:, :, -1, :, None] * given["v"][:, :, -1, None], "key_sum": found["key_sum"] - given["keys"][:, :, -1]})),
    Fault("final_normalised", STATE, "the state is returned over the sum of keys", result(lambda found, given, causal: {
        "state": found["state"] / np.maximum(found["key_sum"], 1e-3)[..., None]})),
    Fault("final_sum_not_updated", KEY_SUM, "the initial sum is returned, it is not updated", result(lambda found, given, causal: {"key_sum": given["key_sum"]})),
    # --- what must be refused
    Fault("vectors_accepted", REFUSED, "queries, keys and values are repeated or cut until they fit", fitted("check_vectors", resized)),
    Fault("causal_accepted", REFUSED, "causal queries and keys need not be as many", accepts(
        "check_causal", recurrent=lambda right: lambda queries, keys, v, *state: right(queries, *(x[:, :, : queries.shape[2]] for x in (keys, v)), *state))),
    Fault("mask_accepted", REFUSED, "a mask of any shape is repeated until it fits", fitted(
        "check_mask", lambda inputs: inputs | {"mask": np.resize(inputs["mask"], (inputs["k"].shape[0], inputs["k"].shape[2]))} if inputs.get("mask") is not None else inputs)),
    Fault("state_accepted", REFUSED, "an initial state of any shape, or without its sum, is used", fitted("check_state", lambda inputs: with_state(inputs) if "initial_state" in inputs else inputs)),
    Fault("floor_accepted", REFUSED, "a floor that is not above 0 is used", accepts("check_floor")),
    # --- what comes in
    *rounded_inputs("linear_attention", ("q_features",)),
)  # fmt: skip
