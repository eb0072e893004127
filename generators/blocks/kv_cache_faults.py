"""Mistakes that people make when they write a key and value cache, planted in the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
POSITIONS, PREFILL, DECODE, TOKENS, REFUSED = (
    ("positions",), ("prefill_output", "decode_output"), ("decode_output",), ("decode_output", "cached_tokens"),
    ("refused",),
)  # fmt: skip
KEYS = ("prefill_output", "decode_output", "cached_keys")
CACHED_KEYS, CACHED_VALUES = ("decode_output", "cached_keys"), ("decode_output", "cached_values")


def positions(formula: Callable[[Array], Array]) -> Change:
    """Return a change to positions: `formula(real)`, (B, S)."""
    return wrap(positions_of=lambda _: formula)


def seen(formula: Callable[[Array, Array, Array, Array], Array]) -> Change:
    """Return a change to what is seen: `formula(right, tokens, held, real)`, (B, n, K); `right` is (B, n, K) too."""

    def wrong(right: Any) -> Any:
        return lambda tokens, held, real, window: formula(right(tokens, held, real, window), tokens, held, real)

    return wrap(visible=wrong)


def when_decoding(formula: Callable[[Array, Array, Array, Array], Array]) -> Change:
    """Return a change to what is seen after the first step."""
    return seen(lambda right, tokens, held, real: formula(right, tokens, held, real) if tokens[0] else right)


def own(tokens: Array, held: Array) -> Array:
    """Return which keys are of the step itself, (K,)."""
    return np.arange(held.size) >= held.size - tokens.size


def window(formula: Callable[[int], Any]) -> Change:
    """Return a change to the window, where there is one."""
    return wrap(in_window=lambda right: lambda tokens, held, window: right(tokens, held, window and formula(window)))


def window_of_step(right: Any) -> Any:
    """Return the window of the first token of a step for all of them."""
    return lambda tokens, held, window: np.broadcast_to(
        right(tokens[:1], held, window) | (held > tokens[0]), (tokens.size, held.size))  # fmt: skip


def padding(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to what counts as no padding where keys are seen: `formula(real, tokens)`, (B, S)."""
    return wrap(
        visible=lambda right: lambda tokens, held, real, window: right(tokens, held, formula(real, tokens), window)
    )


def attended(formula: Callable[[Any, Array, Array, Array, Array], Array]) -> Change:
    """Return a change to attention: `formula(right, q, k, v, seen)`."""
    return wrap(attention=lambda right: lambda *given: formula(right, *given))


def written(formula: Callable[[Any, dict[str, Array], Array, Array, Array], None]) -> Change:
    """Return a change to writing: `formula(right, cache, tokens, keys, values)`."""
    return wrap(write=lambda right: lambda *given: formula(right, *given))


def kept_in(formula: Callable[[Array], Array]) -> Change:
    """Return a change to what the cache keeps of keys and values."""
    return written(lambda right, cache, tokens, keys, values: right(cache, tokens, formula(keys), formula(values)))


def as_int8(x: Array) -> Array:
    """Return what is left of vectors of 8-bit integers with a scale each."""
    wide = x.astype(np.float64)
    scale = np.maximum(np.abs(wide).max(-1, keepdims=True), 1e-30) / 127
    return (np.rint(wide / scale) * scale).astype(x.dtype)


def as_float8(x: Array) -> Array:
    """Return what is left in float8_e4m3."""
    return x.astype(np.float32).astype(ml_dtypes.float8_e4m3fn).astype(np.float32).astype(x.dtype)


def slot(formula: Callable[[int, int], int]) -> Change:
    """Return a change to the slot: `formula(token, slots)`."""
    return wrap(slot_of=lambda _: formula)


def around(change: Callable[[Any, dict[str, Array], dict[str, Array], Callable[[], Array]], Array]) -> Change:
    """Return a change to a step: `change(plain, cache, given, run)`, where `run()` does it."""

    def plant(plain: Any) -> None:
        right = plain.step
        names = ("q", "k", "v", "cos", "sin", "tokens", "positions", "real", "window")

        def step(cache: dict[str, Array], *given: Any) -> Array:
            by_name = dict(zip(names, given, strict=True))
            return change(plain, cache, by_name, lambda: right(cache, **by_name))

        plain.step = step

    return plant


def unrotated_stored(_: Any, cache: dict[str, Array], given: dict[str, Array], run: Any) -> Array:
    """Store keys as the projection gave them."""
    output = run()
    fresh = np.isin(cache["tokens"], given["tokens"])
    cache["keys"][:, :, fresh] = given["k"][:, :, cache["tokens"][fresh]]
    return output


def rotated_again(plain: Any, cache: dict[str, Array], given: dict[str, Array], run: Any) -> Array:
    """Rotate the keys that come out of the cache, which are rotated."""
    before = cache["keys"].copy()
    held = cache["tokens"].copy()
    again = plain.rotated(plain.wide(before), given["cos"], given["sin"], given["positions"][:, np.maximum(held, 0)])
    cache["keys"][...] = np.where((held >= 0)[:, None], again, before).astype(before.dtype)
    output = run()
    stays = ~np.isin(cache["tokens"], given["tokens"])
    cache["keys"][:, :, stays] = before[:, :, stays]
    return output


def write_first(plain: Any, cache: dict[str, Array], _: dict[str, Array], run: Any) -> Array:
    """Write a step's keys before its queries read, in slots that these need."""
    before = {name: array.copy() for name, array in cache.items()}
    run()
    after = {name: array.copy() for name, array in cache.items()}
    lost = ~np.isin(before["tokens"], after["tokens"])
    gone = before["tokens"][lost]
    right = plain.visible

    def visible(tokens: Array, held: Array, real: Array, window: Any) -> Array:
        mine = own(tokens, held)
        missing = np.isin(held, gone) | (mine & ~np.isin(held, after["tokens"]))
        return right(tokens, held, real, window) & ~missing

    plain.visible = visible
    for name, array in before.items():
        cache[name][...] = array
    output = run()
    plain.visible = right
    return output


def first_rows_cache(_: Any, cache: dict[str, Array], given: dict[str, Array], run: Any) -> Array:
    """Read the first row's cache for every row."""
    before = {name: cache[name].copy() for name in ("keys", "values")}
    for name in before:
        cache[name][...] = before[name][:1]
    output = run()
    stays = ~np.isin(cache["tokens"], given["tokens"])
    for name, array in before.items():
        cache[name][:, :, stays] = array[:, :, stays]
    return output


def rows_exchanged(_: Any, cache: dict[str, Array], given: dict[str, Array], run: Any) -> Array:
    """Write each row's keys and values into the next row, as a beam that is not reordered."""
    output = run()
    fresh = np.isin(cache["tokens"], given["tokens"])
    for name in ("keys", "values"):
        cache[name][:, :, fresh] = np.roll(cache[name][:, :, fresh], 1, 0)
    return output


def in_decoding(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to positions after the prompt: `formula(positions, prompt)`, positions (B, S)."""

    def plant(plain: Any) -> None:
        right, run = plain.positions_of, plain.kv_cache

        def kv_cache(*, steps: list[int], **given: Any) -> Any:
            plain.positions_of = lambda real: formula(right(real).copy(), steps[0])
            return run(steps=steps, **given)

        plain.kv_cache = kv_cache

    return plant


def by_steps(formula: Callable[[Array, int, int], Array]) -> Change:
    """Return a change to the positions of each later step: `formula(positions, start, count)`, (B, count)."""

    def plant(plain: Any) -> None:
        right, run = plain.positions_of, plain.kv_cache

        def kv_cache(*, steps: list[int], **given: Any) -> Any:
            def positions_of(real: Array) -> Array:
                found, start = right(real).copy(), steps[0]
                for count in steps[1:]:
                    found[:, start : start + count] = formula(right(real), start, count)
                    start += count
                return found

            plain.positions_of = positions_of
            return run(steps=steps, **given)

        plain.kv_cache = kv_cache

    return plant


def query_at(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the positions by which queries are rotated, limited to those that there are."""
    return wrap(
        query_rotated=lambda right: lambda x, cos, sin, at: right(x, cos, sin, np.clip(formula(at), 0, len(cos) - 1))
    )


def key_at(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the positions by which keys are rotated, limited to those that there are."""
    return wrap(
        key_rotated=lambda right: lambda x, cos, sin, at: right(x, cos, sin, np.clip(formula(at), 0, len(cos) - 1))
    )


def interleaved(right: Any) -> Any:
    """Return a rotation of the pairs 2i and 2i + 1."""

    def rotated(x: Array, *given: Array) -> Array:
        order = np.arange(x.shape[-1]).reshape(-1, 2).T.ravel()
        return right(x[..., order], *given)[..., np.argsort(order)]

    return rotated


def softmax(formula: Callable[[Any, Array, Array], Array]) -> Change:
    """Return a change to the softmax: `formula(right, scores, seen)`."""
    return wrap(softmax=lambda right: lambda scores, seen: formula(right, scores, seen))


def stale(right: Array, _: Array, held: Array, __: Array) -> Array:
    """See slots that nothing was written to."""
    return right | (held < 0)


def zeros_seen(plain: Any) -> None:
    """Clear the memory, and see slots that nothing was written to."""
    cleared(plain)
    seen(stale)(plain)


def cleared(plain: Any) -> None:
    """Clear the memory."""
    right = plain.new_cache
    plain.new_cache = lambda keys, values: right(np.zeros_like(keys), np.zeros_like(values))


def by_slot(right: Any) -> Any:
    """Return a visibility that takes the number of a slot for its token."""

    def visible(tokens: Array, held: Array, real: Array, window: Any) -> Array:
        slots = held.size - tokens.size
        numbers = np.concatenate([np.where(held[:slots] < 0, -1, np.arange(slots)), tokens])
        return right(tokens, numbers, real, window)

    return visible


def one_slot(right: Any, cache: dict[str, Array], tokens: Array, keys: Array, values: Array) -> None:
    """Write every later token where the first one after the prompt was written."""
    if tokens[0] == 0:
        cache["next"] = tokens.size % cache["tokens"].size
        right(cache, tokens, keys, values)
        return
    at = cache["next"]
    cache["keys"][:, :, at], cache["values"][:, :, at] = keys[:, :, -1], values[:, :, -1]
    cache["tokens"][at] = tokens[-1]


def only(which: slice) -> Change:
    """Return a change that writes a part of a later step's tokens."""
    return written(lambda right, cache, tokens, keys, values: right(
        cache, tokens[which], keys[:, :, which], values[:, :, which]) if tokens[0] else right(cache, tokens, keys, values))  # fmt: skip


def halves_kept(name: str) -> Change:
    """Return a change that writes keys alone, or values alone, after the prompt."""

    def formula(right: Any, cache: dict[str, Array], tokens: Array, keys: Array, values: Array) -> None:
        before = cache[name].copy()
        right(cache, tokens, keys, values)
        if tokens[0]:
            cache[name][...] = before

    return written(formula)


def values_late(right: Any, cache: dict[str, Array], tokens: Array, keys: Array, values: Array) -> None:
    """Write the values of a step one token late."""
    right(cache, tokens, keys, np.roll(values, 1, 2))


def accepts(*names: str, **others: Callable[[Any], Any]) -> Change:
    """Return a change that leaves out the named checks, and replaces what `others` names so that an answer comes."""
    return wrap(**{name: lambda _: lambda *_: None for name in names}, **others)


def fitted(name: str, fit: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Return a change that leaves out a check and makes the inputs fit."""
    return accepts(name, kv_cache=lambda right: lambda **given: right(**given | fit(given)))


def enough_steps(given: dict[str, Any]) -> dict[str, Any]:
    """Return the tokens that steps with tokens have."""
    steps = [count for count in given["steps"] if count > 0]
    total = sum(steps)
    return {"steps": steps} | {name: given[name][:, :, :total] for name in ("q", "k", "v")}


def resized(given: dict[str, Any]) -> dict[str, Any]:
    """Return a mask of the shape that is wanted, with tokens where there is too little of it."""
    return {
        "mask": np.resize(
            np.maximum(given["mask"], given["mask"].sum(1, keepdims=True) == 0), (len(given["q"]), given["steps"][0])
        )
    }


def whole_heads(given: dict[str, Any]) -> dict[str, Any]:
    """Return key heads and widths that fit."""
    heads, width = given["k"].shape[1], given["q"].shape[-1] // 2 * 2
    heads = max(n for n in range(1, heads + 1) if given["q"].shape[1] % n == 0)
    cut = {name: given[name][:, :heads, :, :width] for name in ("k", "key_memory")}
    return cut | {name: given[name][:, :heads] for name in ("v", "value_memory")} | {
        "q": given["q"][..., :width], "cos": given["cos"][:, : width // 2], "sin": given["sin"][:, : width // 2]}  # fmt: skip


def made(given: dict[str, Any]) -> dict[str, Any]:
    """Return memories that fit, repeated from what there is."""
    slots = max(given["key_memory"].shape[2], 1)
    return {f"{name}_memory": np.resize(np.append(given[f"{name}_memory"].ravel(), [0]).astype(x.dtype), (*x.shape[:2], slots, x.shape[3]))
            for name, x in (("key", given["k"]), ("value", given["v"]))}  # fmt: skip


FAULTS = (
    # --- positions
    Fault("positions_restart", POSITIONS, "positions begin at 0 in each step", by_steps(lambda p, start, count: np.arange(count) + 0 * p[:, :count])),
    Fault("positions_stay", POSITIONS, "every later token has the position of the first one", in_decoding(
        lambda p, prompt: np.minimum(p, p[:, prompt - 1 : prompt] + 1))),
    Fault("positions_one_a_step", POSITIONS, "all tokens of a later step have the position of its first", by_steps(lambda p, start, count: p[:, [start] * count])),
    Fault("positions_from_1", POSITIONS, "positions count from 1", positions(lambda real: np.minimum(np.cumsum(real, 1), real.shape[1] - 1))),
    Fault("positions_count_padding", POSITIONS, "padding is counted: positions are those of arange", positions(lambda real: np.arange(real.shape[1]) + 0 * real)),
    Fault("positions_count_padding_later", POSITIONS, "after the prompt positions are those of arange: padding is counted", in_decoding(
        lambda p, prompt: np.where(np.arange(p.shape[1]) < prompt, p, np.arange(p.shape[1])))),
    Fault("positions_of_first_row", POSITIONS, "the first row's positions for every row", positions(lambda real: np.repeat((np.cumsum(real, 1) - real)[:1], len(real), 0))),
    Fault("positions_skip_one", POSITIONS, "the first token after the prompt is one too far", in_decoding(
        lambda p, prompt: np.minimum(p + (np.arange(p.shape[1]) >= prompt), p.shape[1] - 1))),
    # --- rotary embedding
    Fault("query_one_ahead", PREFILL, "queries are rotated by the position after theirs", query_at(lambda at: at + 1)),
    Fault("query_not_rotated", PREFILL, "queries are not rotated", wrap(query_rotated=lambda _: lambda x, *given: x)),
    Fault("key_not_rotated", KEYS, "keys are not rotated", wrap(key_rotated=lambda _: lambda x, *given: x)),
    Fault("keys_stored_unrotated", CACHED_KEYS, "keys are stored before they are rotated, and never rotated", around(unrotated_stored)),
    Fault("keys_rotated_twice", CACHED_KEYS, "keys that come out of the cache are rotated again", around(rotated_again)),
    Fault("key_position_in_step", CACHED_KEYS, "keys are rotated by their place in the step, queries by their position",
          key_at(lambda at: at - at[:, :1] if at.shape[1] <= 2 else at)),
    Fault("pairs_interleaved", KEYS, "interleaved pairs are rotated", wrap(rotated=interleaved)),
    Fault("rotated_backwards", KEYS, "the sign of the sine", wrap(rotated=lambda right: lambda x, cos, sin, at: right(x, cos, -sin, at))),
    # --- what is seen
    Fault("causal_missing", PREFILL, "tokens see those of their step that come after them", wrap(causal=lambda right: lambda tokens, held: np.ones((tokens.size, held.size), bool))),
    Fault("causal_missing_later", DECODE, "two tokens of a later step see each other",
          wrap(causal=lambda right: lambda tokens, held: right(tokens, held) | bool(tokens[0]))),
    Fault("causal_top_left", DECODE, "the causal mask is aligned at the top left: the first query of a step sees the first key alone", when_decoding(
        lambda right, tokens, held, real: right & (held <= tokens[:, None] - tokens[0]))),
    Fault("causal_without_itself", PREFILL, "a token does not see itself", seen(lambda right, tokens, held, real: right & (held != tokens[:, None]))),
    Fault("own_step_not_seen", DECODE, "a later step sees the cache alone, not its own tokens", when_decoding(lambda right, tokens, held, real: right & ~own(tokens, held))),
    Fault("own_step_alone", DECODE, "a later step sees its own tokens alone", when_decoding(lambda right, tokens, held, real: right & own(tokens, held))),
    Fault("newest_cached_not_seen", DECODE, "a length that is one too short: the newest key in the cache is not seen", when_decoding(
        lambda right, tokens, held, real: right & (held != tokens[0] - 1))),
    Fault("first_token_not_seen", DECODE, "a later step does not see token 0", when_decoding(lambda right, tokens, held, real: right & (held != 0))),
    Fault("stale_seen", PREFILL, "slots that nothing was written to are seen, with what the memory held", seen(stale)),
    Fault("zeros_seen", PREFILL, "slots that nothing was written to are seen, as zeros", zeros_seen),
    Fault("padding_seen", PREFILL, "padding is seen", padding(lambda real, tokens: np.ones_like(real))),
    Fault("padding_seen_later", DECODE, "padding is seen after the prompt", padding(lambda real, tokens: real | bool(tokens[0]))),
    Fault("padding_of_first_row", PREFILL, "the first row's padding for every row", padding(lambda real, tokens: np.repeat(real[:1], len(real), 0))),
    Fault("padding_on_the_right", PREFILL, "as many tokens are left out at the end of the prompt as are padded at its beginning",
          padding(lambda real, tokens: np.where(real.all(1, keepdims=True), real, np.roll(real, -1, 1)))),
    Fault("mask_inverted", PREFILL, "0 and 1 of the mask are exchanged where it says anything",
          padding(lambda real, tokens: np.where(real.all(1, keepdims=True), real, ~real | (np.arange(real.shape[1]) >= real.shape[1] - 1)))),
    Fault("window_ignored", PREFILL, "no window", window(lambda w: None)),
    Fault("window_ignored_later", DECODE, "no window after the prompt", wrap(in_window=lambda right: lambda tokens, held, window: right(tokens, held, None if tokens[0] else window))),
    Fault("window_one_more", PREFILL, "W tokens beside the token itself", window(lambda w: w + 1)),
    Fault("window_one_less", PREFILL, "W - 1 tokens with the token itself", window(lambda w: w - 1)),
    Fault("window_of_step", PREFILL, "the window of a step's first token for all of it", wrap(in_window=window_of_step)),
    Fault("window_half", PREFILL, "half a window, as one that reaches to both sides has", window(lambda w: w // 2 + 1)),
    # --- the cache
    Fault("read_after_write", PREFILL, "a step writes before it reads, and so overwrites what its first queries need", around(write_first)),
    Fault("slot_is_token", PREFILL, "once the cache begins again, the number of a slot is taken for its token", wrap(visible=by_slot)),
    Fault("slot_stuck_at_end", TOKENS, "tokens beyond the last slot are all written there", slot(lambda token, slots: min(token, slots - 1))),
    Fault("slot_one_later", TOKENS, "the slot after the right one", slot(lambda token, slots: (token + 1) % slots)),
    Fault("slot_reversed", TOKENS, "slots are filled from the last to the first", slot(lambda token, slots: slots - 1 - token % slots)),
    Fault("slot_modulo_one_less", TOKENS, "t mod (C - 1): the last slot is never used", slot(lambda token, slots: token % (slots - 1))),
    Fault("slot_does_not_advance", TOKENS, "every later step overwrites the slot after the prompt", written(one_slot)),
    Fault("not_appended", TOKENS, "later tokens are not written", only(slice(0, 0))),
    Fault("first_of_step_appended", TOKENS, "of a later step the first token alone is written", only(slice(0, 1))),
    Fault("last_of_step_appended", TOKENS, "of a later step the last token alone is written", only(slice(-1, None))),
    Fault("keys_not_appended", CACHED_KEYS, "later values are written, keys are not", halves_kept("keys")),
    Fault("values_not_appended", CACHED_VALUES, "later keys are written, values are not", halves_kept("values")),
    Fault("values_one_late", CACHED_VALUES, "the values of a step are written one token late", written(values_late)),
    Fault("first_rows_cache", DECODE, "the first row's cache is read for every row", around(first_rows_cache)),
    Fault("rows_exchanged", CACHED_KEYS, "keys and values are written into the next row", around(rows_exchanged)),
    Fault("memory_cleared", ("cached_keys",), "the memory is set to 0 where nothing is written", cleared),
    Fault("cache_in_int8", CACHED_KEYS, "the cache is kept in 8-bit integers with a scale for each vector", kept_in(as_int8)),
    Fault("cache_in_float8", CACHED_KEYS, "the cache is kept in float8", kept_in(as_float8)),
    # --- attention
    Fault("heads_tiled", PREFILL, "head h attends to key head h mod G", wrap(repeated=lambda right: lambda x, heads: np.tile(x, (1, heads // x.shape[1], 1, 1)))),
    Fault("first_key_head", PREFILL, "every head attends to the first key head", wrap(repeated=lambda right: lambda x, heads: np.repeat(x[:, :1], heads, 1))),
    Fault("scale_missing", PREFILL, "the 1/sqrt(D) scale is missing", wrap(scaled=lambda right: lambda products, width: products)),
    Fault("scale_by_width", PREFILL, "divided by D instead of sqrt(D)", wrap(scaled=lambda right: lambda products, width: products / products.dtype.type(width))),
    Fault("scale_of_values", PREFILL, "the scale of the value width", attended(lambda right, q, k, v, seen: right(q * q.dtype.type((q.shape[-1] / v.shape[-1]) ** 0.5), k, v, seen))),
    Fault("masked_is_zero", PREFILL, "the score of what is not seen is 0, not minus infinity", softmax(lambda right, scores, seen: right(np.where(seen, scores, 0), np.ones_like(seen)))),
    Fault("masked_after_softmax", PREFILL, "what is not seen is dropped after the softmax, which is not normalised again",
          softmax(lambda right, scores, seen: np.where(seen, right(scores, np.ones_like(seen)), 0))),
    Fault("last_query_for_step", DECODE, "the output of a later step's last token for all of it", attended(
        lambda right, q, k, v, seen: right(q, k, v, seen)[:, :, [-1] * q.shape[2]] if q.shape[2] == 2 else right(q, k, v, seen))),
    # --- what must be refused
    Fault("steps_accepted", REFUSED, "steps that are not all tokens are run", fitted("check_steps", enough_steps)),
    Fault("heads_accepted", REFUSED, "heads or dimensions that are left over are dropped", fitted("check_heads", whole_heads)),
    Fault("mask_accepted", REFUSED, "a mask of any shape is read as if it were of the prompt's", fitted("check_mask", resized)),
    Fault("window_accepted", REFUSED, "a window of 0 shows the token itself", fitted("check_window", lambda given: {"window": max(given["window"] or 0, 1)})),
    Fault("tables_accepted", REFUSED, "positions beyond the tables take their last row", accepts(
        "check_tables", rotated=lambda right: lambda x, cos, sin, at: right(x, cos, sin, np.minimum(at, len(cos) - 1)))),
    Fault("memory_accepted", REFUSED, "a memory of any shape is used", fitted("check_memory", made)),
    # --- what comes in
    *rounded_inputs("kv_cache", ("prefill_output", "decode_output")),
)  # fmt: skip
