"""Mistakes that people make when they write attention, each a small change to the plain candidate. NumPy only.

B batch, H query heads, G key and value heads, S queries, T keys.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
State = dict[str, Any]
# The second says where a mistake shows in cases that want neither scores nor probabilities.
RAW, SCORES, PROBABILITIES = ("scores", "output"), ("masked_scores", "output"), ("probabilities", "output")
SUM, OUTPUT, REFUSED = ("log_sum_exp",), ("output",), ("refused",)
DQ, DK, DV = ("dq",), ("dk",), ("dv",)
DEFAULTS = {
    "causal": False,
    "align": "bottom_right",
    "window": None,
    "global_tokens": 0,
    "soft_cap": None,
    "scale": None,
}


def knowing(change: Callable[[Any, State], None]) -> Change:
    """Return a change that knows the arguments of the call: `change(plain, state)`, filled when it is called."""

    def planted(plain: Any) -> None:
        state: State = {}
        whole = plain.attention

        def attention(q: Array, k: Array, v: Array, *rest: Array, **given: Any) -> Any:
            state.clear()
            state.update(DEFAULTS, q=q, k=k, v=v, **given)
            return whole(q, k, v, *rest, **given)

        plain.attention = attention
        change(plain, state)

    return planted


# --- scores ----------------------------------------------------------------------------------------------------------


def scale(formula: Callable[[float, State], float]) -> Change:
    """Return a change to the scale: `formula(right scale, arguments)`."""

    def change(plain: Any, state: State) -> None:
        right = plain.attention_scores

        def attention_scores(q: Array, keys: Array, factor: Any) -> Array:
            return right(q, keys, q.dtype.type(formula(float(factor), state)))

        plain.attention_scores = attention_scores

    return knowing(change)


def heads(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to which key head a query head has: `formula(x, heads)` of (B, G, T, .)."""
    return wrap(repeat_heads=lambda _: lambda x, number: np.ascontiguousarray(formula(x, number)))


def of_values(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to the value heads alone, the second that are repeated: `formula(v, heads)`."""

    def change(plain: Any, state: State) -> None:
        right = plain.repeat_heads

        def repeat_heads(x: Array, number: int) -> Array:
            state["calls"] = state.get("calls", 0) + 1
            return np.ascontiguousarray(formula(x, number)) if state["calls"] % 2 == 0 else right(x, number)

        plain.repeat_heads = repeat_heads

    return knowing(change)


def tiled(x: Array, number: int) -> Array:
    """Repeat the key heads one after the other: query head h has h % G."""
    return np.tile(x, (1, number // x.shape[1], 1, 1))


def read_otherwise(x: Array) -> Array:
    """Read the memory of (B, H, S, D) as (B, S, H, D), and take it for (B, H, S, D)."""
    B, H, S, D = x.shape
    return np.ascontiguousarray(x).reshape(B, S, H, D).swapaxes(1, 2)


def second_half_twice(x: Array, number: int) -> Array:
    """Repeat the key heads as is right, with the second half of the keys in the place of the first too."""
    found = np.repeat(x, number // x.shape[1], 1)
    half = found.shape[2] // 2
    return np.concatenate([found[:, :, found.shape[2] - half :], found[:, :, half:]], 2)


def queries(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the queries: `formula(q)`."""
    return wrap(attention_scores=lambda right: lambda q, keys, factor: right(formula(q), keys, factor))


def drawn(*shape: int) -> Array:
    """Return normal numbers, the same in every run."""
    return np.random.Generator(np.random.Philox(key=13)).standard_normal(shape)


def channels_projected(x: Array, number: int) -> Array:
    """Repeat the key heads as is right, with their channels mixed by a random matrix that nobody trained."""
    width = x.shape[3]
    return np.repeat(x @ (drawn(width, width) / math.sqrt(width)).astype(x.dtype), number // x.shape[1], 1)


def products_added_in(dtype: str) -> Change:
    """Return a change that adds the products of channels in the format `dtype`."""

    def attention_scores(q: Array, keys: Array, factor: Any) -> Array:
        terms = (q[..., :, None, d] * keys[..., None, :, d] for d in range(q.shape[-1]))
        return added_in(dtype, terms).astype(q.dtype) * factor

    return wrap(attention_scores=lambda _: attention_scores)


def added_in(dtype: str, terms: Iterable[Array]) -> Array:
    """Add terms one after the other in the format `dtype`."""
    total: Any = np.zeros((), dtype)
    for term in terms:
        total = (total + term).astype(dtype)
    return total


def coarse(values: Array, dtype: str) -> Array:
    """Return values rounded to `dtype`, in their own format."""
    return values.astype(dtype).astype(values.dtype)


# --- cap, slopes, mask -----------------------------------------------------------------------------------------------


def cap(formula: Callable[[Array, float], Array]) -> Change:
    """Return a change to the soft cap: `formula(scores, c)`."""
    return wrap(
        cap_scores=lambda right: lambda scores, c: scores if c is None else np.asarray(formula(scores, c), scores.dtype)
    )


def cap_before_scale(plain: Any, state: State) -> None:
    """Cap q k^T, then scale."""

    def cap_scores(scores: Array, c: float | None) -> Array:
        if c is None:
            return scores
        factor = state["scale"] or 1 / math.sqrt(state["q"].shape[-1])
        return np.asarray(factor * c * np.tanh(scores / factor / c), scores.dtype)

    plain.cap_scores = cap_scores


def cap_last(*, masked: bool) -> Change:
    """Return a change that caps after the slopes or, if `masked`, after the mask."""

    def change(plain: Any) -> None:
        right, mask = plain.cap_scores, plain.apply_mask
        state: State = {}

        def cap_scores(scores: Array, c: float | None) -> Array:
            state["cap"] = c
            return scores

        def apply_mask(scores: Array, allowed: Array) -> Array:
            if masked:
                return right(mask(scores, allowed), state["cap"])
            return mask(right(scores, state["cap"]), allowed)

        plain.cap_scores, plain.apply_mask = cap_scores, apply_mask

    return change


def slopes(formula: Callable[[Array, Array, int, Any], Array]) -> Change:
    """Return a change to ALiBi: `formula(slopes, position, keys, the right function)`, (H, S, T)."""
    return wrap(alibi=lambda right: lambda m, position, keys: np.asarray(formula(m, position, keys, right), m.dtype))


def geometric(m: Array) -> Array:
    """Return 2^(-8 i / H), the slopes of H heads."""
    return 2.0 ** (-8 * np.arange(1, len(m) + 1) / len(m))


def alibi_scaled(plain: Any, state: State) -> None:
    """Add ALiBi before the scores are scaled."""
    right = plain.alibi
    plain.alibi = lambda m, position, keys: (
        right(m, position, keys) * m.dtype.type(state["scale"] or 1 / math.sqrt(state["q"].shape[-1]))
    )


def seen(formula: Callable[[Array, Array, State, Array], Array], *, where: Callable[[State], Any] = bool) -> Change:
    """Return a change to what is visible: `formula(p, j, arguments, right)`, where `where(arguments)` holds."""

    def change(plain: Any, state: State) -> None:
        right = plain.visible

        def visible(position: Array, keys: int, *rest: Any) -> Array:
            allowed = right(position, keys, *rest)
            if not where(state):
                return allowed
            found = formula(position[:, None], np.arange(keys)[None, :], state, allowed)
            return np.broadcast_to(found, allowed.shape)

        plain.visible = visible

    return knowing(change)


def given(**replacements: Callable[[State], Any]) -> Change:
    """Return a change to what `visible` is told: each value makes a parameter from the arguments."""

    def change(plain: Any, state: State) -> None:
        right = plain.visible

        def visible(position: Array, keys: int, causal: Any, window: Any, global_tokens: Any) -> Array:
            told = {"causal": causal, "window": window, "global_tokens": global_tokens}
            told |= {name: replacement(state) for name, replacement in replacements.items()}
            return right(position, keys, *told.values())

        plain.visible = visible

    return knowing(change)


def aligned(wrong: str, *, where: str) -> Change:
    """Return a change that aligns the mask as `wrong` where `where` is wanted; slopes stay."""

    def change(plain: Any, state: State) -> None:
        right, positions = plain.visible, plain.query_positions

        def visible(position: Array, keys: int, *rest: Any) -> Array:
            if state["align"] == where:
                position = positions(len(position), keys, wrong)
            return right(position, keys, *rest)

        plain.visible = visible

    return knowing(change)


def windowed(state: State) -> bool:
    """Say whether a case has a window."""
    return state["window"] is not None


def both_sides(state: State) -> bool:
    """Say whether a case has a window on both sides."""
    return windowed(state) and not state["causal"]


def in_blocks(p: Array, j: Array, state: State, _: Array) -> Array:
    """Return the keys that a query's block of half a window sees: half a window before it, one from its start."""
    step = max(state["window"] // 2, 1)
    start = p // step * step
    return (j >= start - step) & (j < start + state["window"])


# --- softmax ---------------------------------------------------------------------------------------------------------


def softmax(formula: Callable[[Any, Array, Array | None], tuple[Array, Array]]) -> Change:
    """Return a change to the softmax: `formula(right, masked scores, sinks)` gives probabilities and log_sum_exp."""

    def replacement(right: Any) -> Any:
        def changed(scores: Array, sinks: Array | None) -> tuple[Array, Array]:
            with np.errstate(all="ignore"):
                probabilities, total = formula(right, scores, sinks)
            return np.asarray(probabilities, scores.dtype), np.asarray(total, scores.dtype)

        return changed

    return wrap(softmax=replacement)


def probabilities(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the probabilities: `formula(right probabilities, masked scores, log_sum_exp)`."""

    def changed(right: Any, scores: Array, sinks: Array | None) -> tuple[Array, Array]:
        found, total = right(scores, sinks)
        return formula(found, scores, total), total

    return softmax(changed)


def log_sum_exp(formula: Callable[[Array, Array, Array | None], Array]) -> Change:
    """Return a change to log_sum_exp: `formula(right one, masked scores, sinks)`."""

    def changed(right: Any, scores: Array, sinks: Array | None) -> tuple[Array, Array]:
        found, total = right(scores, sinks)
        return found, formula(total, scores, sinks)

    return softmax(changed)


def maximum(formula: Callable[[Array], Array]) -> Change:
    """Return a change to what is subtracted before the exponential: `formula(scores and sinks)`."""

    def changed(_: Any, scores: Array, sinks: Array | None) -> tuple[Array, Array]:
        logits = with_sinks(scores, sinks)
        largest = formula(logits)
        weights = np.exp(logits - largest)
        total = weights.sum(-1, keepdims=True)
        found = weights / np.where(total > 0, total, 1)
        return found[..., : scores.shape[-1]], (np.log(total) + largest)[..., 0]

    return softmax(changed)


def with_sinks(scores: Array, sinks: Array | None) -> Array:
    """Return the masked scores and the sinks as one more key, -inf where there are none."""
    column = np.array(-np.inf) if sinks is None else sinks[:, None, None]
    return np.concatenate([scores, np.broadcast_to(column, (*scores.shape[:3], 1)).astype(scores.dtype)], -1)


def sinks(formula: Callable[[Any, Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to the softmax where there are sinks: `formula(right, masked scores, sinks)`."""
    return softmax(lambda right, scores, s: right(scores, s) if s is None else formula(right, scores, s))


def largest_of(scores: Array) -> Array:
    """Return the largest score of each query, 0 where nothing is seen, (B, H, S, 1)."""
    largest = scores.max(-1, keepdims=True, initial=-np.inf)
    return np.where(np.isfinite(largest), largest, 0)


def denominator(extra: Callable[[Array, Array], Array]) -> Callable[[Any, Array, Array | None], tuple[Array, Array]]:
    """Return a softmax whose denominator holds `extra(largest, sinks)` more than the keys; log_sum_exp as it is."""

    def changed(right: Any, scores: Array, s: Array | None) -> tuple[Array, Array]:
        largest = largest_of(scores)
        weights = np.exp(scores - largest)
        total = weights.sum(-1, keepdims=True) + extra(largest, np.zeros(1) if s is None else s[:, None, None])
        return weights / np.where(total > 0, total, 1), right(scores, s)[1]

    return changed


def total_in(dtype: str) -> Change:
    """Return a change to the softmax that adds exponentials in the format `dtype`, the sink's last."""

    def changed(_: Any, scores: Array, s: Array | None) -> tuple[Array, Array]:
        logits = with_sinks(scores, s)
        largest = largest_of(logits)
        weights = np.exp(logits - largest)
        total = added_in(dtype, (weights[..., t] for t in range(weights.shape[-1]))).astype(scores.dtype)
        some = np.where(total > 0, total, 1)
        return weights[..., :-1] / some[..., None], np.where(total > 0, np.log(some) + largest[..., 0], -np.inf)

    return softmax(changed)


def of_differences(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the softmax: `formula(differences)` of scores, and the sink, from the largest."""

    def changed(right: Any, scores: Array, s: Array | None) -> tuple[Array, Array]:
        logits = with_sinks(scores, s)
        weights = np.exp(formula(logits - largest_of(logits)))
        total = weights.sum(-1, keepdims=True)
        return weights[..., :-1] / np.where(total > 0, total, 1), right(scores, s)[1]

    return softmax(changed)


def counted_twice(plain: Any, state: State) -> None:
    """Append global keys to the window, in which some of them are already."""
    visible, right = plain.visible, plain.softmax

    def noted(position: Array, keys: int, causal: Any, window: Any, global_tokens: Any) -> Array:
        allowed = visible(position, keys, causal, window, global_tokens)
        near = visible(position, keys, causal, window, 0) & (position[:, None] >= global_tokens)
        state["twice"] = allowed & near & (np.arange(keys) < global_tokens) if window is not None else allowed & False
        return allowed

    def softmax(scores: Array, s: Array | None) -> Any:
        return right(scores + math.log(2) * state["twice"].astype(scores.dtype), s)

    plain.visible, plain.softmax = noted, softmax


# --- output ----------------------------------------------------------------------------------------------------------


def output(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the output: `formula(probabilities, values, masked scores)`, (B, H, S, E)."""

    def change(plain: Any) -> None:
        right = plain.softmax
        state: State = {}

        def noting(scores: Array, s: Array | None) -> Any:
            state["scores"] = scores
            return right(scores, s)

        def context(found: Array, values: Array) -> Array:
            with np.errstate(all="ignore"):
                return np.asarray(formula(found, values, state["scores"]), values.dtype)

        plain.softmax, plain.context = noting, context

    return change


def partial(found: Array, values: Array, size: int) -> list[tuple[Array, Array]]:
    """Return for each block of `size` keys its output, normalised alone, and the part of the whole that it is."""
    parts = []
    for start in range(0, found.shape[-1], size):
        block = found[..., start : start + size]
        part = block.sum(-1, keepdims=True)
        parts.append((block @ values[..., start : start + size, :] / np.where(part > 0, part, 1), part))
    return parts or [(found @ values, found.sum(-1, keepdims=True))]


def not_rescaled(*, sums: bool) -> Callable[[Array, Array, Array], Array]:
    """Return an online softmax over blocks of four keys that forgets to rescale its output or, with `sums`, its sum."""

    def formula(found: Array, values: Array, scores: Array) -> Array:
        largest = np.full((*scores.shape[:3], 1), -np.inf, scores.dtype)
        total, whole = np.zeros_like(largest), np.zeros((*scores.shape[:3], values.shape[-1]), scores.dtype)
        for start in range(0, scores.shape[-1], 4):
            block = scores[..., start : start + 4]
            grown = np.maximum(largest, block.max(-1, keepdims=True))
            known = np.where(np.isfinite(grown), grown, 0)
            weights, shrunk = np.exp(block - known), np.exp(largest - known)
            total = total * (1 if sums else shrunk) + weights.sum(-1, keepdims=True)
            whole = whole * (shrunk if sums else 1) + weights @ values[..., start : start + 4, :]
            largest = grown
        kept = found.sum(-1, keepdims=True)  # less than 1 beside a sink
        return whole / np.where(total > 0, total, 1) * kept

    return formula


def unguarded_blocks(found: Array, values: Array, scores: Array) -> Array:
    """Return an online softmax over blocks of four keys in which exp(-inf - -inf) is NaN; 0 where nothing is seen."""
    largest = np.full((*scores.shape[:3], 1), -np.inf, scores.dtype)
    total, whole = np.zeros_like(largest), np.zeros((*scores.shape[:3], values.shape[-1]), scores.dtype)
    for start in range(0, scores.shape[-1], 4):
        block = scores[..., start : start + 4]
        grown = np.maximum(largest, block.max(-1, keepdims=True))
        weights, shrunk = np.exp(block - grown), np.exp(largest - grown)
        total = total * shrunk + weights.sum(-1, keepdims=True)
        whole, largest = whole * shrunk + weights @ values[..., start : start + 4, :], grown
    seen = np.isfinite(scores).any(-1, keepdims=True)
    return np.where(seen, whole / total * found.sum(-1, keepdims=True), 0)


def values_added_in(dtype: str) -> Change:
    """Return a change that adds weighted values key by key in the format `dtype`."""

    def formula(found: Array, values: Array, _: Array) -> Array:
        terms = (found[..., t, None] * values[..., None, t, :] for t in range(found.shape[-1]))
        return np.broadcast_to(added_in(dtype, terms), (*found.shape[:3], values.shape[-1]))

    return output(formula)


def linformer(plain: Any, state: State) -> None:
    """Attend to at most 32 random mixtures of the keys, half as many as there are, and so to what is hidden too."""

    def context(found: Array, values: Array) -> Array:
        T = values.shape[2]
        if T == 0:
            return found @ values
        number = min(max(T // 2, 1), 32)
        mixed = (drawn(number, T) / math.sqrt(number)).astype(values.dtype)  # (number, T)
        q, keys = plain.wide(state["q"]), plain.repeat_heads(plain.wide(state["k"]), found.shape[1])
        factor = q.dtype.type(state["scale"] or q.shape[-1] ** -0.5)
        scores = q @ (mixed @ keys).swapaxes(-1, -2) * factor
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True) @ (mixed @ values)

    plain.context = context


def with_sink_added(plain: Any) -> None:
    """Add each head's sink to its output."""
    right, context = plain.softmax, plain.context
    state: State = {}

    def noting(scores: Array, s: Array | None) -> Any:
        state["sinks"] = 0 if s is None else s[:, None, None]
        return right(scores, s)

    plain.softmax = noting
    plain.context = lambda found, values: context(found, values) + state["sinks"]


# --- gradients -------------------------------------------------------------------------------------------------------


def gradient(formula: Callable[[Array, Array, Array, Array], Array]) -> Change:
    """Return a change to the gradient of the scores: `formula(probabilities, their gradient, output, cotangent)`."""
    return wrap(
        score_gradient=lambda _: (
            lambda p, values, out, cotangent: formula(p, cotangent @ values.swapaxes(-1, -2), out, cotangent)
        )
    )


def unscaled(name: str) -> Change:
    """Return a change that leaves the scale out of one gradient."""

    def replacement(right: Any) -> Any:
        def gradients(*arguments: Any) -> Any:
            found = right(*arguments)
            return found | {name: found[name] / arguments[6]}

        return gradients

    return wrap(gradients=replacement)


def summed(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the sum over query heads: `formula(x)` of (B, G, H / G, T, .)."""

    def sum_heads(x: Array, key_heads: int) -> Array:
        batch, number, keys, width = x.shape
        return formula(x.reshape(batch, key_heads, number // key_heads, keys, width))

    return wrap(sum_heads=lambda _: sum_heads)


def unmasked_backward(plain: Any) -> None:
    """Compute probabilities again for the gradients, from scores without the mask."""
    mask, right, gradients = plain.apply_mask, plain.softmax, plain.gradients
    state: State = {}

    def apply_mask(scores: Array, allowed: Array) -> Array:
        state["scores"] = scores
        return mask(scores, allowed)

    def noting(scores: Array, s: Array | None) -> Any:
        found, state["sum"] = right(scores, s)
        return found, state["sum"]

    def of_all(q: Array, keys: Array, values: Array, _: Array, *rest: Any) -> Any:
        total = state["sum"][..., None]
        again = np.where(
            np.isfinite(total), np.exp(np.minimum(state["scores"] - np.where(np.isfinite(total), total, 0), 40)), 0
        )
        return gradients(q, keys, values, again, *rest)

    plain.apply_mask, plain.softmax, plain.gradients = apply_mask, noting, of_all


def dq_added_in(dtype: str) -> Change:
    """Return a change that adds dq key by key in the format `dtype`."""

    def change(plain: Any) -> None:
        right = plain.gradients

        def gradients(q: Array, keys: Array, values: Array, p: Array, out: Array, cotangent: Array, *rest: Any) -> Any:
            factor, slope, _ = rest
            of_scores = plain.score_gradient(p, values, out, cotangent) * slope
            terms = (of_scores[..., t, None] * keys[..., None, t, :] for t in range(keys.shape[2]))
            dq = added_in(dtype, terms).astype(q.dtype) * factor
            return right(q, keys, values, p, out, cotangent, *rest) | {"dq": dq}

        plain.gradients = gradients

    return change


def again_from(dtype: str) -> Change:
    """Return a change whose gradients compute probabilities again from log_sum_exp in the format `dtype`."""

    def change(plain: Any) -> None:
        right, gradients = plain.softmax, plain.gradients
        state: State = {}

        def noting(scores: Array, s: Array | None) -> Any:
            found, total = right(scores, s)
            known = np.where(np.isfinite(total), coarse(total, dtype), 0)[..., None]
            state["again"] = np.exp(scores - known)
            return found, total

        plain.softmax = noting
        plain.gradients = lambda q, keys, values, _, *rest: gradients(q, keys, values, state["again"], *rest)

    return change


# --- what is accepted, or not ----------------------------------------------------------------------------------------


def accepting(part: str, mend: Callable[[State], State]) -> Change:
    """Return a change that answers what the right candidate refuses with a text that has `part` in it.

    `mend` gives what to compute then, the arguments by name.
    """

    def change(plain: Any) -> None:
        whole = plain.attention

        def attention(**arguments: Any) -> Any:
            try:
                return whole(**arguments)
            except ValueError as error:
                if part not in str(error):
                    raise
            return whole(**mend(arguments))

        plain.attention = lambda q, k, v, **rest: attention(q=q, k=k, v=v, **rest)

    return change


def without(*names: str) -> Callable[[State], State]:
    """Return what leaves out arguments."""
    return lambda arguments: {name: value for name, value in arguments.items() if name not in names}


def fitted(arguments: State) -> State:
    """Return arguments whose keys and values are cut or repeated until they fit the queries, as broadcasting may."""
    q, k, v = (arguments[name] for name in "qkv")
    if q.ndim == 3:
        q = np.broadcast_to(q[None], (len(k), *q.shape))
    groups = next(n for n in range(min(k.shape[1], v.shape[1]), 0, -1) if q.shape[1] % n == 0)
    keys, width = min(k.shape[2], v.shape[2]), min(q.shape[3], k.shape[3])
    k, v = (np.broadcast_to(x[:, :groups, :keys], (len(q), groups, keys, x.shape[3])) for x in (k, v))
    return {**arguments, "q": q[..., :width], "k": k[..., :width], "v": v}


def raising(where: Callable[[State], Any], text: str) -> Change:
    """Return a change that refuses a case where `where(arguments)` holds."""

    def change(plain: Any, state: State) -> None:
        right = plain.query_positions

        def query_positions(*arguments: Any) -> Array:
            if where(state):
                raise ValueError(text)
            return right(*arguments)

        plain.query_positions = query_positions

    return knowing(change)


FAULTS = (
    # --- scores
    Fault("scale_missing", RAW, "the scores are not scaled", scale(lambda right, _: 1.0)),
    Fault("scale_twice", RAW, "the scores are scaled twice", scale(lambda right, _: right * right)),
    Fault("scale_by_width", RAW, "1 / D instead of 1 / sqrt(D)", scale(lambda right, of: right if of["scale"] else 1 / of["q"].shape[-1])),
    Fault("scale_by_hidden_width", RAW, "1 / sqrt(H D), of all heads together, instead of 1 / sqrt(D)",
          scale(lambda right, of: right if of["scale"] else right / math.sqrt(of["q"].shape[1]))),
    Fault("scale_argument_ignored", RAW, "1 / sqrt(D) whatever the argument says", scale(lambda right, of: of["q"].shape[-1] ** -0.5)),
    Fault("kv_heads_tiled", RAW, "query head h has key head h % G instead of h // (H / G)", heads(tiled)),
    Fault("first_kv_head_for_all", RAW, "the first key head for all query heads", heads(lambda x, number: np.repeat(x[:, :1], number, 1))),
    Fault("kv_heads_as_if_pairs", RAW, "two query heads to each key head, whatever their number",
          heads(lambda x, number: x[:, np.minimum(np.arange(number) // min(2, number // x.shape[1]), x.shape[1] - 1)])),
    Fault("q_layout_scrambled", RAW, "q (B, H, S, D) is read as (B, S, H, D)", queries(read_otherwise)),
    Fault("key_layout_scrambled", RAW, "keys and values (B, H, T, D) are read as (B, T, H, D)",
          heads(lambda x, number: np.repeat(read_otherwise(x), number // x.shape[1], 1))),
    Fault("ring_block_overwritten", RAW, "in a ring of two the keys and values that arrive overwrite those that were not used yet: the second half counts twice",
          heads(second_half_twice)),
    Fault("linformer_of_channels", RAW, "channels of keys and values are mixed by a random matrix, as if that were Linformer", heads(channels_projected)),
    Fault("products_in_float16", RAW, "products of queries and keys added in float16", products_added_in("float16")),
    # --- cap and slopes
    Fault("cap_missing", SCORES, "the soft cap is missing", cap(lambda scores, c: scores)),
    Fault("cap_after_mask", SCORES, "capped after the mask: -inf becomes -c, and what is masked leaks", cap_last(masked=True)),
    Fault("cap_after_slopes", SCORES, "capped after the slopes", cap_last(masked=False)),
    Fault("cap_before_scale", SCORES, "capped before the scores are scaled", knowing(cap_before_scale)),
    Fault("cap_not_multiplied", SCORES, "tanh(scores / c), not multiplied by c", cap(lambda scores, c: np.tanh(scores / c))),
    Fault("cap_not_divided", SCORES, "c tanh(scores), not divided by c", cap(lambda scores, c: c * np.tanh(scores))),
    Fault("cap_clips", SCORES, "scores are clipped to c instead of c tanh(scores / c)", cap(lambda scores, c: np.clip(scores, -c, c))),
    Fault("alibi_missing", SCORES, "the slopes are ignored", slopes(lambda m, p, keys, right: right(m * 0, p, keys))),
    Fault("alibi_added", SCORES, "slopes times distance are added", slopes(lambda m, p, keys, right: -right(m, p, keys))),
    Fault("alibi_slopes_by_formula", SCORES, "2^(-8 i / H) instead of the slopes that are given", slopes(lambda m, p, keys, right: right(geometric(m), p, keys))),
    Fault("alibi_heads_reversed", SCORES, "the slopes belong to the heads from the last to the first", slopes(lambda m, p, keys, right: right(m[::-1], p, keys))),
    Fault("alibi_from_other_end", SCORES, "distances are those of the other alignment",
          slopes(lambda m, p, keys, right: right(m, np.arange(len(p)) + (keys - len(p) if p[0] == 0 else 0), keys))),
    Fault("alibi_signed", SCORES, "slopes times p - j: keys ahead are raised", slopes(lambda m, p, keys, right: m[:, None, None] * (p[:, None] - np.arange(keys)))),
    Fault("alibi_before_scale", SCORES, "slopes are applied before the scores are scaled", knowing(alibi_scaled)),
    # --- what is visible
    Fault("causal_missing", SCORES, "keys ahead are visible", given(causal=lambda of: False)),
    Fault("causal_always", SCORES, "keys ahead are hidden where nothing is causal", given(causal=lambda of: True)),
    Fault("own_key_hidden", SCORES, "a query does not see its own key", seen(lambda p, j, of, right: right & (j != p), where=lambda of: of["causal"])),
    Fault("next_key_seen", SCORES, "a query sees one key ahead", seen(lambda p, j, of, right: right | (j == p + 1), where=lambda of: of["causal"])),
    Fault("causal_transposed", SCORES, "a query sees its own key and those ahead", seen(lambda p, j, of, right: j >= p, where=lambda of: of["causal"] and not windowed(of))),
    Fault("top_left_for_bottom_right", SCORES, "query i stands at key i, not at i + T - S", aligned("top_left", where="bottom_right")),
    Fault("bottom_right_for_top_left", SCORES, "query i stands at key i + T - S, not at i", aligned("bottom_right", where="top_left")),
    Fault("window_missing", SCORES, "the window is ignored", given(window=lambda of: None)),
    Fault("window_one_more", SCORES, "the window is one key too wide: p - W <= j",
          seen(lambda p, j, of, right: right | (j == p - of["window"]), where=lambda of: windowed(of) and of["causal"])),
    Fault("window_one_less", SCORES, "the window is one key too narrow",
          seen(lambda p, j, of, right: right & ((j != p - of["window"] + 1) | (of["window"] == 1)), where=lambda of: windowed(of) and of["causal"])),
    Fault("window_without_causal", SCORES, "a causal window reaches ahead too: |p - j| < W",
          seen(lambda p, j, of, right: right | ((j > p) & (j - p < of["window"])), where=lambda of: windowed(of) and of["causal"])),
    Fault("window_of_all_not_causal", SCORES, "keys ahead are visible where the window holds all keys",
          given(causal=lambda of: of["causal"] and not (windowed(of) and of["window"] >= of["k"].shape[2]))),
    Fault("window_in_blocks", SCORES, "all queries of a block of W / 2 see the same keys, those around the block", seen(in_blocks, where=lambda of: windowed(of) and of["global_tokens"] == 0)),
    Fault("window_strict", SCORES, "|p - j| < W / 2 instead of <=", seen(lambda p, j, of, right: right & ((2 * abs(p - j) != of["window"]) | (j < of["global_tokens"]) | (p < of["global_tokens"])), where=both_sides)),
    Fault("window_on_each_side", SCORES, "W keys on each side instead of W / 2", seen(lambda p, j, of, right: right | (abs(p - j) <= of["window"]), where=both_sides)),
    Fault("window_behind_only", SCORES, "a window on both sides is taken for a causal one", seen(lambda p, j, of, right: right & (j <= p), where=both_sides)),
    Fault("global_tokens_missing", SCORES, "global tokens are ignored", given(global_tokens=lambda of: 0)),
    Fault("global_keys_only", SCORES, "global tokens are seen, and do not see all",
          seen(lambda p, j, of, right: right & ((2 * abs(p - j) <= of["window"]) | (j < of["global_tokens"])), where=both_sides)),
    Fault("one_global_token_more", SCORES, "one global token too many", given(global_tokens=lambda of: of["global_tokens"] + 1)),
    Fault("ring_blocks_alone", SCORES, "each half of a ring attends to its own keys alone",
          seen(lambda p, j, of, right: right & (p // -(-right.shape[1] // 2) == j // -(-right.shape[1] // 2)), where=lambda of: of["k"].shape[2] > 1)),
    Fault("last_keys_left_out", SCORES, "keys beyond the last whole block of four are left out", seen(lambda p, j, of, right: right & (j < right.shape[1] // 4 * 4))),
    # --- softmax
    Fault("softmax_over_queries", PROBABILITIES, "the softmax is over the queries",
          probabilities(lambda found, scores, total: np.nan_to_num(np.exp(scores - scores.max(-2, keepdims=True)) / np.exp(scores - scores.max(-2, keepdims=True)).sum(-2, keepdims=True)))),
    Fault("maximum_not_subtracted", PROBABILITIES, "the largest score is not subtracted before exp, which overflows", maximum(lambda logits: np.zeros_like(logits[..., :1]))),
    Fault("maximum_of_all", PROBABILITIES, "the largest score of the whole batch is subtracted: exp underflows elsewhere", maximum(lambda logits: np.nan_to_num(logits.max(), neginf=0))),
    Fault("not_normalised", PROBABILITIES, "exponentials are not divided by their sum", probabilities(lambda found, scores, total: np.exp(scores - largest_of(scores)))),
    Fault("one_in_denominator", PROBABILITIES, "1 + the sum in the denominator: a sink of 0 that nobody asked for",
          softmax(lambda right, scores, s: denominator(lambda largest, _: np.exp(-largest))(right, scores, s) if s is None else right(scores, s))),
    Fault("padding_in_denominator", PROBABILITIES, "keys are padded to a multiple of eight, and padding counts with the score 0",
          softmax(lambda right, scores, s: denominator(lambda largest, _: -scores.shape[-1] % 8 * np.exp(-largest))(right, scores, s) if s is None else right(scores, s))),
    Fault("nan_where_nothing_seen", PROBABILITIES, "a query that sees nothing gets NaN", probabilities(lambda found, scores, total: np.where(np.isfinite(total)[..., None], found, np.nan))),
    Fault("mean_where_nothing_seen", PROBABILITIES, "a query that sees nothing gets the mean of the values", probabilities(lambda found, scores, total: np.where(np.isfinite(total)[..., None], found, 1 / max(found.shape[-1], 1)))),
    Fault("global_tokens_twice", PROBABILITIES, "global keys that are in the window count twice", knowing(counted_twice)),
    Fault("sinks_missing", PROBABILITIES, "the sinks are ignored", sinks(lambda right, scores, s: right(scores, None))),
    Fault("sinks_in_maximum_only", PROBABILITIES, "the sinks count in the largest score, not in the sum", sinks(lambda right, scores, s: (right(scores, None)[0], right(scores, s)[1]))),
    Fault("sinks_not_shifted", PROBABILITIES, "exp(sink) in the denominator, without the largest score subtracted", sinks(denominator(lambda largest, s: np.exp(s)))),
    Fault("sinks_as_numbers", PROBABILITIES, "the sink itself in the denominator, not its exponential", sinks(denominator(lambda largest, s: s + largest * 0))),
    Fault("sinks_of_other_heads", PROBABILITIES, "the sinks belong to the heads from the last to the first", sinks(lambda right, scores, s: right(scores, s[::-1]))),
    Fault("sinks_as_biases", PROBABILITIES, "the sinks are added to all scores of their heads", sinks(lambda right, scores, s: right(scores + s[:, None, None], None))),
    Fault("sinks_scaled", PROBABILITIES, "the sinks are scaled as scores are", knowing(lambda plain, of: sinks(
        lambda right, scores, s: right(scores, s * s.dtype.type(of["scale"] or of["q"].shape[-1] ** -0.5)))(plain))),
    Fault("sums_in_float16", PROBABILITIES, "exponentials added in float16", total_in("float16")),
    Fault("sums_in_bfloat16", PROBABILITIES, "exponentials added in bfloat16", total_in("bfloat16")),
    Fault("differences_in_bfloat16", PROBABILITIES, "scores less the largest rounded to bfloat16", of_differences(lambda differences: coarse(differences, "bfloat16"))),
    # --- log_sum_exp
    Fault("sum_in_log2", SUM, "log_sum_exp to the base 2", log_sum_exp(lambda total, scores, s: total / math.log(2))),
    Fault("sum_without_maximum", SUM, "the largest score is not added back to log_sum_exp", log_sum_exp(lambda total, scores, s: total - largest_of(with_sinks(scores, s))[..., 0])),
    Fault("sum_without_sink", SUM, "the sink is missing in log_sum_exp", softmax(lambda right, scores, s: (right(scores, s)[0], right(scores, None)[1]))),
    Fault("sum_0_where_nothing_seen", SUM, "log_sum_exp 0 instead of -inf where nothing is seen", log_sum_exp(lambda total, scores, s: np.where(np.isfinite(total), total, 0))),
    Fault("sum_infinite_where_nothing_seen", SUM, "log_sum_exp +inf instead of -inf where nothing is seen", log_sum_exp(lambda total, scores, s: np.where(np.isfinite(total), total, np.inf))),
    # --- output
    Fault("output_layout_scrambled", OUTPUT, "the output, (B, S, H, E) in memory, is taken for (B, H, S, E)",
          output(lambda found, values, scores: np.ascontiguousarray((found @ values).swapaxes(1, 2)).reshape(*found.shape[:3], -1) if found.size else found @ values)),
    Fault("value_heads_tiled", OUTPUT, "query head h has value head h % G, and its own key head", of_values(tiled)),
    Fault("ring_outputs_added", OUTPUT, "outputs of blocks of five keys, each normalised alone, are added", output(lambda found, values, scores: sum(part for part, _ in partial(found, values, 5)))),
    Fault("ring_outputs_averaged", OUTPUT, "outputs of blocks of five keys, each normalised alone, are averaged",
          output(lambda found, values, scores: np.mean([part for part, _ in partial(found, values, 5)], axis=0))),
    Fault("output_not_rescaled", OUTPUT, "an online softmax does not rescale its output when the largest score grows", output(not_rescaled(sums=False))),
    Fault("sum_not_rescaled", OUTPUT, "an online softmax does not rescale its sum when the largest score grows", output(not_rescaled(sums=True))),
    Fault("block_unseen_is_nan", OUTPUT, "an online softmax over blocks of four keys gives NaN where nothing of the first block is seen", output(unguarded_blocks)),
    Fault("dropout_scale", OUTPUT, "the output is divided by 1 - 0.1, as dropout does in training", output(lambda found, values, scores: found @ values / 0.9)),
    Fault("sinks_added_to_output", OUTPUT, "the sinks are added to the output", with_sink_added),
    Fault("fallback_random", OUTPUT, "a fallback, for what cannot be imported, returns random numbers", output(lambda found, values, scores: drawn(*found.shape[:3], values.shape[-1]))),
    Fault("linformer", OUTPUT, "random mixtures of keys and values along the sequence, no more than 32, in place of all", knowing(linformer)),
    Fault("values_in_float16", OUTPUT, "weighted values added in float16", values_added_in("float16")),
    Fault("values_in_bfloat16", OUTPUT, "weighted values added in bfloat16", values_added_in("bfloat16")),
    Fault("probabilities_in_float8", OUTPUT, "probabilities rounded to float8_e4m3 for the product with the values",
          output(lambda found, values, scores: found.astype(np.float32).astype(ml_dtypes.float8_e4m3fn).astype(values.dtype) @ values)),
    # --- gradients
    Fault("dq_scale_missing", DQ, "dq is not scaled", unscaled("dq")),
    Fault("dk_scale_missing", DK, "dk is not scaled", unscaled("dk")),
    Fault("row_term_missing", DQ, "the term of the row, sum(output * cotangent), is missing in the gradient of the scores", gradient(lambda p, dp, out, cotangent: p * dp)),
    Fault("row_term_added", DQ, "the term of the row is added", gradient(lambda p, dp, out, cotangent: p * (dp + (cotangent * out).sum(-1, keepdims=True)))),
    Fault("row_term_of_cotangent", DQ, "the term of the row is sum(cotangent)", gradient(lambda p, dp, out, cotangent: p * (dp - cotangent.sum(-1, keepdims=True)))),
    Fault("nan_gradient_where_nothing_seen", DQ, "the gradient of a query that sees nothing is NaN",
          gradient(lambda p, dp, out, c: np.where(p.any(-1, keepdims=True), p * (dp - (c * out).sum(-1, keepdims=True)), np.nan))),
    Fault("mask_missing_backward", DQ, "the gradients compute probabilities again, without the mask", unmasked_backward),
    Fault("cap_slope_missing", DQ, "the derivative of the soft cap is missing", wrap(cap_slope=lambda _: lambda scores, c: np.ones_like(scores))),
    Fault("dq_in_bfloat16", DQ, "dq added key by key in bfloat16", dq_added_in("bfloat16")),
    Fault("backward_from_bfloat16", DQ, "gradients compute probabilities again from log_sum_exp in bfloat16", again_from("bfloat16")),
    Fault("last_head_of_group", DK, "dk and dv of the last query head of a group instead of the sum", summed(lambda x: x[:, :, -1])),
    Fault("mean_of_group", DK, "dk and dv are averaged over a group instead of summed", summed(lambda x: x.mean(2))),
    Fault("dv_not_summed", DV, "dv of the first query head of a group instead of the sum",
          wrap(gradients=lambda right: lambda *a: right(*a) | {"dv": (a[3].swapaxes(-1, -2) @ a[5])[:, :: a[1].shape[1] // a[8]]})),
    # --- what is accepted, or not
    Fault("shapes_made_to_fit", REFUSED, "queries, keys and values that do not fit are cut or repeated", accepting("", fitted)),
    Fault("sinks_broadcast", REFUSED, "sinks or slopes of another length are left out", accepting("for each query head", without("sinks", "slopes"))),
    Fault("cotangent_ignored", REFUSED, "a cotangent that does not fit is ignored", accepting("cotangent", without("cotangent"))),
    Fault("align_guessed", REFUSED, "an unknown align is taken for the default", accepting("no align", without("align"))),
    Fault("window_0_is_none", REFUSED, "a window of 0 is none", accepting("a window of", without("window"))),
    Fault("negative_global_tokens", REFUSED, "negative global tokens are none", accepting("global tokens", without("global_tokens"))),
    Fault("cap_0_is_none", REFUSED, "a soft cap of 0 is none", accepting("soft cap", without("soft_cap"))),
    Fault("grouped_heads_refused", (), "fewer key heads than query heads are refused", raising(lambda of: of["q"].shape[1] != of["k"].shape[1], "mat1 and mat2 shapes cannot be multiplied")),
    Fault("lengths_must_agree", (), "other numbers of queries than of keys are refused", raising(lambda of: of["q"].shape[2] != of["k"].shape[2], "query and key must have the same length")),
    Fault("window_1_refused", (), "a window of one key is refused, as a step of window // 2 is 0",
          raising(lambda of: of["window"] == 1, "range() arg 3 must not be zero")),
    Fault("sizes_of_16_only", (), "widths that are no multiple of 8 are refused", raising(lambda of: of["q"].shape[3] % 8, "head_dim must be a multiple of 8")),
    # --- what comes in
    *rounded_inputs("attention", RAW),
)  # fmt: skip
