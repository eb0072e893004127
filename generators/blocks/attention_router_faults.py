"""Mistakes that people make when they decide how attention is computed, planted in the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap

Array = Any
Change = Callable[[Any], None]
INDICES, CU_QUERIES, CU_KEYS, LONGEST, POSITIONS, KERNELS, BLOCK_MAP, SPLITS, SIZE, EXPERTS, SLOTS, LOAD, REFUSED = (
    (name,)
    for name in (
        "indices", "cu_queries", "cu_keys", "longest", "positions", "kernels", "block_map", "splits",
        "blocks_per_split", "experts", "slots", "load", "refused",
    )
)  # fmt: skip
SHARES = (*SPLITS, *SIZE)


def replaced(name: str, formula: Callable[..., Any]) -> Change:
    """Return a change that replaces the function `name` of the plain candidate."""
    return wrap(**{name: lambda _: formula})


def after(name: str, formula: Callable[..., Any]) -> Change:
    """Return a change to what the function `name` returns: `formula(right, *arguments)`."""
    return wrap(**{name: lambda right: lambda *given: formula(right(*given), *given)})


def given_to(name: str, formula: Callable[..., tuple[Any, ...]]) -> Change:
    """Return a change to what the function `name` is given: `formula(*arguments)`."""
    return wrap(**{name: lambda right: lambda *given: right(*formula(*given))})


def whole(formula: Callable[[dict[str, Array], dict[str, Any]], dict[str, Array]]) -> Change:
    """Return a change to all outputs: `formula(found, given)` returns those that are others."""

    def change(plain: Any) -> None:
        run = plain.attention_router

        def attention_router(**given: Any) -> dict[str, Array]:
            found: dict[str, Array] = run(**given)
            return found | formula(found, given)

        plain.attention_router = attention_router

    return change


# --- packing ---------------------------------------------------------------------------------------------------------


def empty_rows_dropped(boundaries: Array, lengths: Array) -> Array:
    """Return boundaries without those of rows of nothing."""
    return np.concatenate([boundaries[:1], boundaries[1:][lengths > 0]])


def right_padded(mask: Array) -> Array:
    """Return indices as if all padding stood on the right."""
    return np.flatnonzero(np.arange(mask.shape[1]) < mask.sum(1, keepdims=True))


def columns(mask: Array, past: Array) -> Array:
    """Return the columns in which tokens stand, after what is past."""
    return (past[:, None] + np.arange(mask.shape[1]))[mask == 1]


# --- kernels ---------------------------------------------------------------------------------------------------------


def rules(formula: Callable[..., list[int] | bool]) -> Change:
    """Return a change to rules: `formula(rule, T, kind, width, short)` returns another, or whether it applies."""

    def wrong(right: Any) -> Any:
        def applies(rule: list[int], *row: Any) -> bool:
            found = formula(rule, *row)
            return found if isinstance(found, bool) else bool(right(found, *row))

        return applies

    return wrap(applies=wrong)


def with_part(rule: list[int], **parts: int) -> list[int]:
    """Return a rule with some of its numbers others."""
    names = ("kernel", "longer_than", "multiple", "widest", "kinds", "short")
    return [parts.get(name, number) for name, number in zip(names, rule, strict=True)]


def last_rule(plain: Any) -> None:
    """Take the last rule that applies."""
    right = plain.kernel
    plain.kernel = lambda S, T, rules, *rest: right(S, T, rules[::-1], *rest)


def of_length(length: Callable[[int, int], int]) -> Change:
    """Return a change to what thresholds are compared with: `length(S, T)`."""

    def change(plain: Any) -> None:
        right, applies = plain.kernel, plain.applies

        def kernel(S: int, T: int, *rest: Any) -> int:
            plain.applies = lambda rule, _, *others: applies(rule, length(S, T), *others)
            return int(right(S, T, *rest))

        plain.kernel = kernel

    return change


def by_longest(plain: Any) -> None:
    """Take the most keys of a row for the length of all."""
    right, known = plain.longest, {}

    def longest(queries: Array, keys: Array) -> Array:
        known["T"] = int(keys.max())
        return right(queries, keys)

    plain.longest = longest
    of_length(lambda S, T: known["T"])(plain)


def needed(S: int, T: int, heads: int, width: int) -> int:
    """Return how many bytes a row needs."""
    return 4 * heads * (S * T + width * (S + 2 * T))


def memory(formula: Callable[[int, int], Any]) -> Change:
    """Return a change to when memory is short: `formula(needed, memory)`."""
    return replaced("is_short", lambda S, T, heads, width, memory: bool(formula(needed(S, T, heads, width), memory)))


def in_32_bits(number: int) -> int:
    """Return what a signed integer of 32 bits holds of a number."""
    return (number + 2**31) % 2**32 - 2**31


def hidden(formula: Callable[[int, int, bool, int | None], int]) -> Change:
    """Return a change to what hides keys: `formula(S, T, causal, window)`."""
    return replaced("hidden_by", formula)


def windowed(T: int, causal: bool, window: int | None) -> int:
    """Return 2 where a window hides a key, else 0."""
    return 2 * int(window is not None and window < (T if causal else 2 * (T - 1)))


def right_kind(S: int, T: int, causal: bool, window: int | None) -> int:
    """Return what hides keys."""
    return windowed(T, causal, window) or int(causal and S > 1)


# --- blocks and splits -----------------------------------------------------------------------------------------------


def seen(formula: Callable[[Array, int, int, bool, int | None], tuple[Array, Array]]) -> Change:
    """Return a change to what queries see: `formula(query, S, T, causal, window)`, the first key, and one after."""
    return replaced("seen", formula)


def band(first: int, end: int) -> Change:
    """Return a change to the bounds of what a causal query sees, by so many keys."""

    def wrong(right: Any) -> Any:
        def moved(query: Array, S: int, T: int, causal: bool, window: int | None) -> tuple[Array, Array]:
            low, high = right(query, S, T, causal, window)
            if not causal:
                return low, high
            position = query + T - S
            if window is not None:
                low = np.maximum(position - window + 1 + first, 0)
            return low, high + end

        return moved

    return wrap(seen=wrong)


def top_left(right: Any) -> Any:
    """Stand queries at the beginning of their keys."""
    return lambda query, S, T, causal, window: right(query, S, S, causal, window) if causal else right(
        query, S, T, causal, window
    )  # fmt: skip


def kinds(formula: Callable[[Array, Array, Array, int], tuple[Array, Array]]) -> Change:
    """Return a change to the kinds of blocks: `formula(first, end, starts, size)` returns seen by any, seen by all."""

    def block_row(first: Array, end: Array, starts: Array, size: int) -> Array:
        partly, wholly = formula(first, end, starts, size)
        return np.where(wholly, 2, np.where(partly, 1, 0))

    return replaced("block_row", block_row)


def by_any(first: Array, end: Array, starts: Array, size: int) -> Array:
    """Return whether any query of a block sees a key of each block of keys."""
    return (first.min() < starts + size) & (end.max() > starts)


def by_all(first: Array, end: Array, starts: Array, size: int) -> Array:
    """Return whether all queries of a block see all of each block of keys."""
    return (first.max() <= starts) & (end.min() >= starts + size)


def tail_full(plain: Any) -> None:
    """Call the last block of keys full where all keys of it that there are are seen."""
    right, known = plain.block_map, {}

    def block_map(S: int, T: int, *rest: Any) -> Array:
        known["T"] = T
        return right(S, T, *rest)

    def block_row(first: Array, end: Array, starts: Array, size: int) -> Array:
        ends = np.minimum(starts + size, known["T"])
        full = (first.max() <= starts) & (end.min() >= ends)
        return np.where(full, 2, np.where(by_any(first, end, starts, size), 1, 0))

    plain.block_map, plain.block_row = block_map, block_row


def padded_queries(plain: Any) -> None:
    """Count the queries beyond the last, to the end of their block, as if they were there."""

    def block_map(S: int, T: int, blocks: list[int], causal: bool, window: int | None) -> Array:
        starts = np.arange(0, T, blocks[1])
        rows = [
            plain.block_row(*plain.seen(np.arange(start, start + blocks[0]), S, T, causal, window), starts, blocks[1])
            for start in range(0, S, blocks[0])
        ]
        return np.array(rows, np.int64).reshape(len(rows), len(starts))

    plain.block_map = block_map


def split(formula: Callable[[int, int, int, int], tuple[int, int]]) -> Change:
    """Return a change to splits: `formula(K, query_blocks, heads, processors)`, of rows with something to split."""

    def wrong(kinds: Array, heads: int, processors: int) -> tuple[int, int]:
        visited = int((kinds != 0).any(0).sum())
        return (0, 0) if visited == 0 else formula(visited, len(kinds), heads, processors)

    return replaced("split", wrong)


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def parts(K: int, most: int) -> tuple[int, int]:
    """Return splits and blocks of each, at most so many."""
    size = ceil_div(K, max(1, most))
    return ceil_div(K, size), size


def empty_parts(K: int, query_blocks: int, heads: int, processors: int) -> tuple[int, int]:
    """Return as many splits as may be, though the last ones have no blocks."""
    most = min(K, max(1, processors // (heads * query_blocks)))
    return most, ceil_div(K, most)


def blocks_cut(K: int, query_blocks: int, heads: int, processors: int) -> tuple[int, int]:
    """Return blocks of each split rounded down."""
    most = min(K, max(1, processors // (heads * query_blocks)))
    return most, K // most


# --- experts ---------------------------------------------------------------------------------------------------------


def chosen(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to the choice: `formula(logits, choices)` of logits in float64."""
    return replaced("chosen", lambda logits, choices: formula(logits.astype(np.float64), choices))


def descending(keys: Array, choices: int) -> Array:
    """Return the experts of the largest keys, ties by index."""
    return np.argsort(-keys, axis=1, kind="stable")[:, :choices]


def ties_to_larger(logits: Array, choices: int) -> Array:
    """Return the experts of the largest logits, larger indices first among equals."""
    return logits.shape[1] - 1 - np.argsort(-logits[:, ::-1], axis=1, kind="stable")[:, :choices]


def across_the_cut(logits: Array, choices: int) -> Array:
    """Return the experts of the largest logits, of equal ones at the cut the last, all in the right order."""
    found = np.sort(ties_to_larger(logits, choices), axis=1)
    order = np.argsort(-np.take_along_axis(logits, found, 1), axis=1, kind="stable")
    return np.take_along_axis(found, order, 1)


def probabilities(logits: Array, digits: int) -> Array:
    """Return the softmax in float32, rounded to so many digits; 24 are all."""
    powers = np.exp((logits - logits.max(1, keepdims=True, initial=-np.inf)).astype(np.float32))
    found = powers / powers.sum(1, keepdims=True)
    mantissa, exponent = np.frexp(found)
    return np.ldexp(np.rint(mantissa * 2**digits), exponent - digits)


def bits(logits: Array, *, signed: bool) -> Array:
    """Return the bits of logits in float32 as integers."""
    return np.ascontiguousarray(logits, np.float32).view(np.int32 if signed else np.uint32).astype(np.int64)


def totally_ordered(logits: Array) -> Array:
    """Return integers in the order of floats, but for -0, which is below 0."""
    found = bits(logits, signed=True)
    return np.where(found < 0, -(found & 0x7FFFFFFF) - 1, found)


def placed(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to places: `formula(experts, places)`."""
    return replaced("slots", formula)


def in_order(choices: Array, most: int) -> Array:
    """Return the places of choices in their order, (n,), -1 from `most` on."""
    taken: dict[int, int] = {}
    found = []
    for expert in choices.tolist():
        place = taken.get(expert, 0)
        taken[expert] = place + 1
        found.append(place if place < most else -1)
    return np.array(found, np.int64)


def token_by_token(experts: Array, most: int) -> Array:
    """Return places where each token makes all of its choices before the next."""
    return in_order(experts.reshape(-1), most).reshape(experts.shape)


def choice_by_choice(experts: Array, most: int) -> Array:
    """Return the right places."""
    return in_order(experts.T.reshape(-1), most).reshape(experts.T.shape).T


def each_choice_anew(experts: Array, most: int) -> Array:
    """Return places where every expert begins with nothing at each choice."""
    rows = [in_order(choices, most) for choices in experts.T]
    return np.array(rows, np.int64).reshape(experts.T.shape).T


def large_logits_first(plain: Any) -> None:
    """Let the tokens of the largest logits choose first."""
    right, known = plain.chosen, {}

    def noted(logits: Array, choices: int) -> Array:
        known["best"] = logits.astype(np.float64).max(1)
        return right(logits, choices)

    def slots(experts: Array, most: int) -> Array:
        order = np.argsort(-known["best"], kind="stable")
        found = np.empty(experts.shape, np.int64)
        found[order] = choice_by_choice(experts[order], most)
        return found

    plain.chosen, plain.slots = noted, slots


# --- what must be refused --------------------------------------------------------------------------------------------


def accepts(check: str, fit: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Return a change that leaves out a check, and makes the inputs fit."""

    def change(plain: Any) -> None:
        setattr(plain, check, lambda *_: None)
        run = plain.attention_router
        plain.attention_router = lambda **given: run(**given | fit(given))

    return change


def fitting_rows(given: dict[str, Any]) -> dict[str, Any]:
    """Return a mask of a column at least, of 0 and 1, and a past that fits it."""
    mask = given["mask"] if given["mask"].size else np.ones((len(given["mask"]), 1), np.int64)
    fitting: dict[str, Any] = {
        "mask": (mask != 0).astype(np.int64),
        "past": np.resize(np.abs(given["past"]), len(mask)),
    }
    if "logits" in given:
        fitting["logits"] = np.resize(given["logits"], (int(fitting["mask"].sum()), given["logits"].shape[1]))
    return fitting


def fitting_logits(given: dict[str, Any]) -> dict[str, Any]:
    """Return logits that are numbers, one row a token, and choices among the experts."""
    if "logits" not in given:
        return {}
    logits = np.where(np.isnan(given["logits"].astype(np.float64)), 0, given["logits"]).astype(given["logits"].dtype)
    fitting = logits[: int(given["mask"].sum())]
    return {"logits": fitting, "choices": min(max(given["choices"], 1), logits.shape[1])}


def fitting_sizes(given: dict[str, Any]) -> dict[str, Any]:
    """Return a window and blocks of one at least."""
    window = given["window"]
    return {"window": window and max(window, 1), "blocks": [max(size, 1) for size in given["blocks"]]}


def falling_back(plain: Any) -> None:
    """Take the last rule where none applies."""
    right = plain.kernel

    def kernel(S: int, T: int, rules: Array, *rest: Any) -> int:
        try:
            return int(right(S, T, rules, *rest))
        except ValueError:
            return int(rules[-1, 0])

    plain.kernel = kernel


FAULTS = (
    # --- packing
    Fault("indices_of_columns", INDICES, "the column of each token, not its place in the whole mask", replaced("tokens", lambda mask: np.nonzero(mask)[1])),
    Fault("indices_by_columns", INDICES, "the mask is read column by column", replaced("tokens", lambda mask: np.flatnonzero(mask.T))),
    Fault("indices_right_padded", INDICES, "all padding is taken to stand on the right", replaced("tokens", right_padded)),
    Fault("indices_of_padding", INDICES, "0 and 1 of the mask are exchanged for the indices", whole(
        lambda found, given: {"indices": np.flatnonzero(given["mask"] == 0)})),
    Fault("boundaries_without_zero", CU_QUERIES, "boundaries do not begin with 0", after("boundaries", lambda found, lengths: found[1:])),
    Fault("boundaries_are_lengths", CU_QUERIES, "lengths, not summed up, after the 0", replaced("boundaries", lambda lengths: np.concatenate([[0], lengths]))),
    Fault("boundaries_of_padded", CU_QUERIES, "rows of queries begin at multiples of the columns", whole(
        lambda found, given: {"cu_queries": np.arange(len(given["mask"]) + 1) * given["mask"].shape[1]})),
    Fault("empty_rows_dropped", CU_QUERIES, "rows of nothing have no boundary", after("boundaries", empty_rows_dropped)),
    Fault("boundaries_in_16_bits", CU_KEYS, "boundaries overflow 16 bits", after("boundaries", lambda found, lengths: found.astype(np.int16))),
    Fault("cu_keys_without_past", CU_KEYS, "boundaries of keys leave out the cache", whole(lambda found, _: {"cu_keys": found["cu_queries"]})),
    Fault("longest_is_columns", LONGEST, "the columns for the most queries", whole(
        lambda found, given: {"longest": np.array([given["mask"].shape[1], found["longest"][1]])})),
    Fault("longest_without_past", LONGEST, "the most queries for the most keys", replaced("longest", lambda queries, keys: np.array([queries.max(), queries.max()]))),
    Fault("longest_of_first", LONGEST, "the lengths of the first row", replaced("longest", lambda queries, keys: np.array([queries[0], keys[0]]))),
    Fault("longest_past_and_queries", LONGEST, "the most queries and the longest cache, of other rows, added for the most keys", whole(
        lambda found, given: {"longest": np.array([found["longest"][0], found["longest"][0] + given["past"].max()])})),
    Fault("positions_without_past", POSITIONS, "positions begin at 0 though there is a cache", given_to("positions", lambda mask, past: (mask, 0 * past))),
    Fault("positions_of_columns", POSITIONS, "positions count padding", replaced("positions", columns)),
    Fault("positions_from_1", POSITIONS, "positions begin at 1", after("positions", lambda found, mask, past: found + 1)),
    Fault("positions_not_reset", POSITIONS, "positions go on from row to row", replaced(
        "positions", lambda mask, past: np.arange(mask.sum()) + np.repeat(past, mask.sum(1)))),
    # --- kernels
    Fault("threshold_reached", KERNELS, "T >= longer_than", rules(lambda rule, *_: with_part(rule, longer_than=rule[1] - 1))),
    Fault("threshold_of_queries", KERNELS, "S > longer_than: the length without the cache", of_length(lambda S, T: S)),
    Fault("threshold_of_past", KERNELS, "past > longer_than: the length without the new tokens, 1 of none", of_length(lambda S, T: max(T - S, 1))),
    Fault("threshold_of_longest", KERNELS, "the longest row decides for all", by_longest),
    Fault("last_rule", KERNELS, "the last rule that applies", last_rule),
    Fault("multiple_ignored", KERNELS, "the width need not be a multiple", rules(lambda rule, *_: with_part(rule, multiple=1))),
    Fault("widest_ignored", KERNELS, "heads may be of any width", rules(lambda rule, *_: with_part(rule, widest=1 << 40))),
    Fault("widest_below", KERNELS, "width < widest", rules(lambda rule, *_: with_part(rule, widest=rule[3] - 1))),
    Fault("kinds_ignored", KERNELS, "what a kernel can mask does not count", rules(lambda rule, *_: with_part(rule, kinds=7))),
    Fault("kinds_compared", KERNELS, "kinds are compared with m, not looked up in bits", rules(lambda rule, T, kind, *_: with_part(rule, kinds=7 if rule[4] >= kind else 0))),
    Fault("short_ignored", KERNELS, "rules apply whether memory is short or not", rules(lambda rule, *_: with_part(rule, short=-1))),
    Fault("empty_row_routed", KERNELS, "a row without tokens gets a kernel too", wrap(
        kernel=lambda right: lambda S, T, *rest: right(max(S, 1), max(T, 1), *rest))),
    Fault("causal_of_one_query", KERNELS, "one query counts as causal", hidden(lambda S, T, causal, window: windowed(T, causal, window) or int(causal))),
    Fault("causal_never", KERNELS, "causality does not count", hidden(lambda S, T, causal, window: windowed(T, causal, window))),
    Fault("window_always", KERNELS, "a window counts though it hides nothing", hidden(lambda S, T, causal, window: 2 if window is not None else int(causal and S > 1))),
    Fault("window_reached", KERNELS, "T >= W: a window as long as the row counts", hidden(
        lambda S, T, causal, window: right_kind(S, T, causal, window and window - 1))),
    Fault("window_by_past", KERNELS, "a window counts once the cache alone is longer", hidden(
        lambda S, T, causal, window: right_kind(S, T - S if causal else T, causal, window))),
    Fault("window_of_one_side", KERNELS, "where both sides count, T > W instead of 2 (T - 1) > W", hidden(
        lambda S, T, causal, window: right_kind(S, T, causal, window) if causal else 2 * int(window is not None and window < T))),
    Fault("memory_reached", KERNELS, "memory is short where 80 % are needed", memory(lambda needed, memory: 5 * needed >= 4 * memory)),
    Fault("memory_whole", KERNELS, "memory is short where more than all of it is needed", memory(lambda needed, memory: needed > memory)),
    Fault("memory_in_32_bits", KERNELS, "bytes overflow 32 bits", memory(lambda needed, memory: 5 * in_32_bits(needed) > 4 * memory)),
    Fault("memory_in_float32", KERNELS, "bytes in float32", memory(
        lambda needed, memory: np.float32(needed) > np.float32(memory) * np.float32(0.8))),
    Fault("memory_in_gigabytes", KERNELS, "whole units of 2^30 bytes", memory(lambda needed, memory: 5 * (needed >> 30) > 4 * (memory >> 30))),
    Fault("memory_of_scores", KERNELS, "scores alone count", replaced(
        "is_short", lambda S, T, heads, width, memory: 20 * heads * S * T > 4 * memory)),
    Fault("memory_of_square", KERNELS, "T^2 scores though there are S queries", replaced(
        "is_short", lambda S, T, heads, width, memory: 20 * heads * (T * T + width * 3 * T) > 4 * memory)),
    Fault("memory_of_two_bytes", KERNELS, "2 bytes a number", memory(lambda needed, memory: 5 * needed > 8 * memory)),
    # --- blocks
    Fault("aligned_top_left", BLOCK_MAP, "causal queries stand at the beginning of their keys", wrap(seen=top_left)),
    Fault("own_key_hidden", BLOCK_MAP, "a query does not see its own key", band(0, -1)),
    Fault("next_key_seen", BLOCK_MAP, "a query sees the key after its own", band(0, 1)),
    Fault("window_one_more", BLOCK_MAP, "a window of W + 1 keys", band(-1, 0)),
    Fault("window_one_less", BLOCK_MAP, "a window of W - 1 keys", band(1, 0)),
    Fault("window_not_halved", BLOCK_MAP, "W on both sides instead of W / 2", wrap(
        seen=lambda right: lambda query, S, T, causal, window: right(query, S, T, causal, window if causal or window is None else 2 * window))),
    Fault("window_not_skipped", BLOCK_MAP, "blocks before a window are visited", kinds(lambda first, end, starts, size: (end.max() > starts, by_all(first, end, starts, size)))),
    Fault("skipped_by_first_query", BLOCK_MAP, "blocks of keys after the first query of a block are skipped", kinds(
        lambda first, end, starts, size: ((first.min() < starts + size) & (end.min() > starts), by_all(first, end, starts, size)))),
    Fault("skipped_by_last_query", BLOCK_MAP, "blocks of keys before the window of the last query of a block are skipped", kinds(
        lambda first, end, starts, size: ((first.max() < starts + size) & (end.max() > starts), by_all(first, end, starts, size)))),
    Fault("full_by_last_query", BLOCK_MAP, "a block is full if the last query sees all up to its end", kinds(
        lambda first, end, starts, size: (by_any(first, end, starts, size), (first.max() <= starts) & (end.max() >= starts + size)))),
    Fault("full_by_first_query", BLOCK_MAP, "a block is full if the first query's window holds its begin", kinds(
        lambda first, end, starts, size: (by_any(first, end, starts, size), (first.min() <= starts) & (end.min() >= starts + size)))),
    Fault("never_full", BLOCK_MAP, "no block is full", kinds(lambda first, end, starts, size: (by_any(first, end, starts, size), starts < 0))),
    Fault("full_below_diagonal", BLOCK_MAP, "the block that ends where the first query stands is not full", kinds(
        lambda first, end, starts, size: (by_any(first, end, starts, size), (first.max() <= starts) & (end.min() > starts + size)))),
    Fault("tail_full", BLOCK_MAP, "a block is full though keys end within it", tail_full),
    Fault("queries_beyond_the_last", BLOCK_MAP, "queries count to the end of their block, though there are less", padded_queries),
    Fault("tail_dropped", BLOCK_MAP, "blocks of keys are rounded down: keys beyond the last whole one are never seen", after(
        "block_map", lambda found, S, T, blocks, *_: np.where((np.arange(found.shape[1]) + 1) * blocks[1] > T, 0, found))),
    # --- splits
    Fault("splits_without_blocks", SHARES, "as many splits as may be, though some have no block", split(empty_parts)),
    Fault("blocks_rounded_down", SHARES, "blocks of a split rounded down: the last ones are left out", split(blocks_cut)),
    Fault("splits_ignore_heads", SHARES, "heads do not count for the work there is", split(lambda K, query_blocks, heads, processors: parts(K, processors // query_blocks))),
    Fault("splits_ignore_query_blocks", SHARES, "query blocks do not count for the work there is", split(lambda K, query_blocks, heads, processors: parts(K, processors // heads))),
    Fault("splits_rounded_up", SHARES, "processors / work rounded up", split(lambda K, query_blocks, heads, processors: parts(K, ceil_div(processors, heads * query_blocks)))),
    Fault("splits_of_all_keys", SHARES, "blocks that are skipped are split too", replaced("visits", lambda kinds: kinds.shape[1] * bool(kinds.size))),
    Fault("splits_one_more", SPLITS, "K // size + 1 splits", split(lambda K, query_blocks, heads, processors: (
        K // parts(K, processors // (heads * query_blocks))[1] + 1, parts(K, processors // (heads * query_blocks))[1]))),
    Fault("split_of_empty_row", SHARES, "a row without tokens is one split", after("split", lambda found, *_: found if found[0] else (1, 0))),
    # --- experts
    Fault("ties_to_larger_index", EXPERTS, "of equal logits, larger indices first", chosen(ties_to_larger)),
    Fault("ties_across_the_cut", EXPERTS, "of equal logits at the cut, the last stay", chosen(across_the_cut)),
    Fault("topk_of_probabilities", EXPERTS, "the largest of probabilities in float32, of which unequal logits have equal ones", chosen(lambda logits, choices: descending(probabilities(logits, 24), choices))),
    Fault("topk_of_bfloat16_probabilities", EXPERTS, "the largest of probabilities in bfloat16", chosen(lambda logits, choices: descending(probabilities(logits, 8), choices))),
    Fault("smallest_logits", EXPERTS, "the experts of the smallest logits", chosen(lambda logits, choices: descending(-logits, choices))),
    Fault("largest_magnitudes", EXPERTS, "the largest |logit|", chosen(lambda logits, choices: descending(np.abs(logits), choices))),
    Fault("bits_unsigned", EXPERTS, "bits compared as unsigned integers: negative logits are the largest", chosen(lambda logits, choices: descending(bits(logits, signed=False), choices))),
    Fault("bits_signed", EXPERTS, "bits compared as integers, as atomicMax has it: of negative logits the smallest wins", chosen(lambda logits, choices: descending(bits(logits, signed=True), choices))),
    Fault("zeros_apart", EXPERTS, "-0 is below 0", chosen(lambda logits, choices: descending(totally_ordered(logits), choices))),
    Fault("experts_sorted", EXPERTS, "the choices in the order of their indices", after("chosen", lambda found, *_: np.sort(found, 1))),
    Fault("experts_ascending", EXPERTS, "the largest last", after("chosen", lambda found, *_: found[:, ::-1])),
    Fault("experts_of_first_token", EXPERTS, "the first token decides for all", after("chosen", lambda found, *_: np.repeat(found[:1], len(found), 0))),
    # --- places
    Fault("capacity_rounded_down", SLOTS, "the capacity is rounded down", replaced("places", lambda N, choices, X, capacity: capacity[0] * N * choices // (capacity[1] * X))),
    Fault("capacity_without_choices", SLOTS, "the capacity counts one choice of each token", given_to("places", lambda N, choices, X, capacity: (N, 1, X, capacity))),
    Fault("capacity_unlimited", SLOTS, "no token is dropped", replaced("places", lambda N, choices, X, capacity: N * choices)),
    Fault("capacity_one_more", SLOTS, "the choice after the last place is taken too", after("places", lambda found, *_: found + 1)),
    Fault("capacity_integer_first", SLOTS, "N choices / X is rounded up before the factor", replaced(
        "places", lambda N, choices, X, capacity: ceil_div(capacity[0] * ceil_div(N * choices, X), capacity[1]))),
    Fault("places_token_by_token", SLOTS, "a token's second choice comes before the next one's first", placed(token_by_token)),
    Fault("places_by_logit", SLOTS, "tokens of large logits choose first", large_logits_first),
    Fault("places_last_first", SLOTS, "the last tokens choose first", placed(lambda experts, most: choice_by_choice(experts[::-1], most)[::-1])),
    Fault("places_of_each_choice", SLOTS, "every choice begins with empty experts", placed(each_choice_anew)),
    Fault("dropped_are_last", SLOTS, "what is dropped has the last place instead of -1", after("slots", lambda found, experts, most: np.where(found < 0, most - 1, found))),
    Fault("places_from_1", SLOTS, "places begin at 1, 0 means dropped", after("slots", lambda found, *_: found + 1)),
    Fault("load_before_dropping", LOAD, "the load counts what is dropped", replaced("load", lambda experts, slots, X: np.bincount(experts.ravel(), minlength=X))),
    Fault("load_of_first_choices", LOAD, "the load counts first choices", replaced("load", lambda experts, slots, X: np.bincount(experts[:, 0], minlength=X))),
    Fault("load_to_last_expert", LOAD, "the load ends with the last expert that took a token", after("load", lambda found, *_: np.trim_zeros(found, "b"))),
    # --- what must be refused
    Fault("rows_accepted", REFUSED, "any mask is taken for 0 and 1, any past is repeated until it fits", accepts("check_rows", fitting_rows)),
    Fault("rules_accepted", REFUSED, "rules of any length are filled with -1", accepts("check_rules", lambda given: {
        "rules": np.pad(given["rules"], ((0, 0), (0, 6 - given["rules"].shape[1])), constant_values=-1)})),
    Fault("no_rule_accepted", REFUSED, "where no rule applies, the last is taken", falling_back),
    Fault("sizes_accepted", REFUSED, "windows and blocks are one at least", accepts("check_sizes", fitting_sizes)),
    Fault("logits_accepted", REFUSED, "logits are cut until they fit, NaN is 0, and choices as many as there may be", accepts("check_logits", fitting_logits)),
)  # fmt: skip
