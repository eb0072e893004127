"""What attention decides before it computes, in plain NumPy: the definition, to read and to copy.

Packing as FlashAttention's bert_padding.py has it; queries stand at the end of their keys, as in FlashAttention 2.1;
blocks of keys as in PyTorch's FlexAttention; splits as in Flash-Decoding (Dao et al. 2023); experts and their places as
in GShard (Lepikhin et al. 2020), first choices first. R rows, C columns, N tokens, L rules, X experts. A row has S
queries and T keys.
"""

import numpy as np

NOTHING, CAUSALITY, WINDOW = 0, 1, 2  # what hides keys
SKIPPED, PARTIAL, FULL = 0, 1, 2


def attention_router(
    mask,
    past,
    rules,
    logits=None,
    *,
    heads,
    width,
    memory,
    causal,
    window,
    blocks,
    processors,
    choices=None,
    capacity=None,
):
    """Return all decisions for a batch of rows; mask (R, C), past (R,), rules (L, 6), logits (N, X)."""
    check_rows(mask, past)
    check_rules(rules)
    check_sizes(window, blocks)
    queries = lengths(mask)  # (R,)
    keys = past + queries  # (R,)
    rows = list(zip(queries.tolist(), keys.tolist(), strict=True))
    found = {
        "indices": tokens(mask),  # (N,)
        "cu_queries": boundaries(queries),  # (R + 1,)
        "cu_keys": boundaries(keys),  # (R + 1,)
        "longest": longest(queries, keys),  # (2,)
        "positions": positions(mask, past),  # (N,)
        "kernels": np.array([kernel(S, T, rules, heads, width, memory, causal, window) for S, T in rows]),  # (R,)
    }
    maps = [block_map(S, T, blocks, causal, window) for S, T in rows]
    parts = [split(kinds, heads, processors) for kinds in maps]
    found["block_map"] = side_by_side(maps)  # (R, query blocks, key blocks)
    found["splits"] = np.array([splits for splits, _ in parts])  # (R,)
    found["blocks_per_split"] = np.array([size for _, size in parts])  # (R,)
    if logits is not None:
        check_logits(logits, len(found["indices"]), choices)
        experts = chosen(logits, choices)  # (N, choices)
        found["experts"] = experts
        found["slots"] = slots(experts, places(*experts.shape, logits.shape[1], capacity))  # (N, choices)
        found["load"] = load(experts, found["slots"], logits.shape[1])  # (X,)
    return found


# --- packing ---------------------------------------------------------------------------------------------------------


def lengths(mask):
    """Return how many tokens each row has, (R,)."""
    return mask.sum(1)


def tokens(mask):
    """Return where tokens stand in the rows, written one after the other, (N,)."""
    return np.flatnonzero(mask)


def boundaries(lengths):
    """Return where each row begins, and the end of the last, (R + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)])


def longest(queries, keys):
    """Return the most queries and the most keys of a row, (2,)."""
    return np.array([queries.max(), keys.max()])


def positions(mask, past):
    """Return the position of each token in its row, after those that are past, (N,)."""
    return (past[:, None] + np.cumsum(mask, 1) - 1)[mask == 1]


# --- kernels ---------------------------------------------------------------------------------------------------------


def kernel(S, T, rules, heads, width, memory, causal, window):
    """Return the kernel of the first rule that applies to a row, -1 if there is nothing to compute."""
    if S == 0:
        return -1
    kind = hidden_by(S, T, causal, window)
    short = is_short(S, T, heads, width, memory)
    for rule in rules.tolist():
        if applies(rule, T, kind, width, short):
            return rule[0]
    raise ValueError(f"no rule for {S} queries and {T} keys of width {width}, mask {kind}")


def applies(rule, T, kind, width, short):
    """Say whether a rule applies to a row."""
    _, longer_than, multiple, widest, kinds, wants_short = rule
    return (
        longer_than < T
        and width % multiple == 0
        and width <= widest
        and bool(kinds >> kind & 1)
        and wants_short in (-1, int(short))
    )


def hidden_by(S, T, causal, window):
    """Return what hides a key from a query."""
    if window is not None and (window < T if causal else window < 2 * (T - 1)):
        return WINDOW
    return CAUSALITY if causal and S > 1 else NOTHING


def is_short(S, T, heads, width, memory):
    """Say whether scores, queries, keys and values, of 4 bytes a number, take more than 80 % of the memory."""
    needed = 4 * heads * (S * T + width * (S + 2 * T))
    return 5 * needed > 4 * memory


# --- blocks and splits -----------------------------------------------------------------------------------------------


def block_map(S, T, blocks, causal, window):
    """Return which blocks are skipped, partial and full, (query blocks, key blocks)."""
    query_block, key_block = blocks
    starts = np.arange(0, T, key_block)  # (key blocks,)
    rows = [
        block_row(*seen(np.arange(start, min(start + query_block, S)), S, T, causal, window), starts, key_block)
        for start in range(0, S, query_block)
    ]
    return np.array(rows, np.int64).reshape(len(rows), len(starts))


def seen(query, S, T, causal, window):
    """Return the first key that each query sees, and the one after the last."""
    position = query + T - S
    if causal:
        return np.maximum(position - (T if window is None else window) + 1, 0), position + 1
    reach = T if window is None else window // 2
    return np.maximum(position - reach, 0), np.minimum(position + reach + 1, T)


def block_row(first, end, starts, key_block):
    """Return the kind of each key block for the queries of one block, which see the keys first … end - 1."""
    seen_by_any = (first.min() < starts + key_block) & (end.max() > starts)
    seen_by_all = (first.max() <= starts) & (end.min() >= starts + key_block)
    return np.where(seen_by_all, FULL, np.where(seen_by_any, PARTIAL, SKIPPED))


def side_by_side(maps):
    """Return the blocks of all rows, (R, query blocks, key blocks), those that a row has not being skipped."""
    sizes = np.array([kinds.shape for kinds in maps])
    whole = np.zeros((len(maps), *sizes.max(0)), np.int64)
    for row, kinds in enumerate(maps):
        whole[row, : kinds.shape[0], : kinds.shape[1]] = kinds
    return whole


def split(kinds, heads, processors):
    """Return into how many parts the keys of a row are split, and how many blocks of keys each has."""
    visited = visits(kinds)
    if visited == 0:
        return 0, 0
    most = max(1, processors // (heads * len(kinds)))
    size = ceil_div(visited, most)
    return ceil_div(visited, size), size


def visits(kinds):
    """Return how many blocks of keys some query block does not skip."""
    return int((kinds != SKIPPED).any(0).sum())


def ceil_div(a, b):
    """Return a / b, rounded up."""
    return -(-a // b)


# --- experts ---------------------------------------------------------------------------------------------------------


def chosen(logits, choices):
    """Return the experts of the largest logits, descending, smaller indices first among equals, (N, choices)."""
    return np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :choices]


def places(N, choices, X, capacity):
    """Return how many tokens each expert takes."""
    numerator, denominator = capacity
    return ceil_div(numerator * N * choices, denominator * X)


def slots(experts, places):
    """Return the place of each choice at its expert, -1 where all are taken, (N, choices)."""
    order = experts.T.reshape(-1)  # all first choices, then all second ones
    found = np.full(order.shape, -1)
    for expert in np.unique(order):
        asking = np.flatnonzero(order == expert)[:places]
        found[asking] = np.arange(len(asking))
    return found.reshape(experts.T.shape).T


def load(experts, slots, X):
    """Return how many choices each expert took, (X,)."""
    return np.bincount(experts[slots >= 0], minlength=X)


# --- what is refused -------------------------------------------------------------------------------------------------


def require(condition, text):
    """Raise `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(text)


def check_rows(mask, past):
    """Refuse rows of no length, masks of other numbers than 0 and 1, and a past that does not fit."""
    require(mask.ndim == 2 and mask.size > 0, f"mask {mask.shape} has no columns, or is not (R, C)")
    require(np.isin(mask, (0, 1)).all(), "a mask of other numbers than 0 and 1")
    require(past.shape == mask.shape[:1] and (past >= 0).all(), f"past {past.shape} for {len(mask)} rows, or below 0")


def check_rules(rules):
    """Refuse rules that are not rows of six."""
    require(rules.ndim == 2 and rules.shape[1] == 6, f"rules {rules.shape}, wanted (L, 6)")


def check_sizes(window, blocks):
    """Refuse windows and blocks of nothing."""
    require(window is None or window >= 1, f"a window of {window}")
    require(min(blocks) >= 1, f"blocks of {blocks}")


def check_logits(logits, N, choices):
    """Refuse logits of other tokens, logits that are NaN, and more choices than experts."""
    require(logits.ndim == 2 and len(logits) == N, f"logits {logits.shape} for {N} tokens")
    require(1 <= choices <= logits.shape[1], f"{choices} choices among {logits.shape[1]} experts")
    require(not np.isnan(logits.astype(np.float64)).any(), "a logit is NaN")
