"""Correct ways to decide how attention is computed that differ from the plain candidate's: they must pass."""

import heapq
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers.modeling_flash_attention_utils import _get_unpad_data

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]


def replaced(**formulas: Callable[..., Any]) -> Change:
    """Return a change that replaces functions of the plain candidate."""
    return wrap(**{name: (lambda _, formula=formula: formula) for name, formula in formulas.items()})


# --- packing ---------------------------------------------------------------------------------------------------------


def positions_row_by_row(mask: Array, past: Array) -> Array:
    """Return positions by counting, row by row."""
    rows = zip(past.tolist(), mask.sum(1).tolist(), strict=True)
    return np.array([first + place for first, S in rows for place in range(S)], np.int64)


def positions_of_transformers(mask: Array, past: Array) -> Array:
    """Return positions as left-padded rows are generated: a running sum less 1, padding being given 1."""
    found = torch.from_numpy(mask).cumsum(-1) - 1
    found = found.masked_fill(torch.from_numpy(mask) == 0, 1) + torch.from_numpy(past)[:, None]
    return found[torch.from_numpy(mask) == 1].numpy()


def positions_of_boundaries(mask: Array, past: Array) -> Array:
    """Return positions as what is left of a token's number, its row's begin being taken away."""
    lengths = mask.sum(1)
    begins = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(begins - past, lengths)


def unpadded(plain: Any) -> None:
    """Take indices and boundaries of queries from transformers, in 32 bits."""
    run = plain.attention_router

    def attention_router(**given: Any) -> dict[str, Array]:
        found: dict[str, Array] = run(**given)
        indices, boundaries, most = _get_unpad_data(torch.from_numpy(given["mask"]))
        longest = np.array([most, found["longest"][1]], np.int32)
        return found | {"indices": indices.numpy(), "cu_queries": boundaries.numpy(), "longest": longest}

    plain.attention_router = attention_router


# --- kernels ---------------------------------------------------------------------------------------------------------


def memory_of_floor(S: int, T: int, heads: int, width: int, memory: int) -> bool:
    """Say whether more bytes are needed than 80 %, rounded down."""
    return 4 * heads * S * T + 4 * heads * S * width + 8 * heads * T * width > memory * 4 // 5


def memory_in_float64(S: int, T: int, heads: int, width: int, memory: int) -> bool:
    """Say the same in float64, which holds these bytes: no quotient, no 0.8."""
    scores, others = float(heads) * S * T, float(heads) * width * (S + 2.0 * T)
    return 20.0 * (scores + others) > 4.0 * memory


def hidden_by_counts(S: int, T: int, causal: bool, window: int | None) -> int:
    """Return what hides keys by the keys that the first and the last query see."""
    if window is not None and (T - window if causal else T - 1 - window // 2) > 0:
        return 2
    return int(causal and T - S + 1 < T)


def all_rules(
    S: int, T: int, rules: Array, heads: int, width: int, memory: int, causal: bool, window: int | None
) -> int:
    """Look at all rules at once."""
    if S == 0:
        return -1
    kind, short = hidden_by_counts(S, T, causal, window), int(memory_of_floor(S, T, heads, width, memory))
    fits = (rules[:, 1] < T) & (width % rules[:, 2] == 0) & (rules[:, 3] >= width) & ((rules[:, 4] & 1 << kind) != 0)
    fits &= (rules[:, 5] < 0) | (rules[:, 5] == short)
    if not fits.any():
        raise ValueError("no rule applies")
    return int(rules[np.flatnonzero(fits)[0], 0])


# --- blocks and splits -----------------------------------------------------------------------------------------------


def by_pairs(S: int, T: int, blocks: list[int], causal: bool, window: int | None) -> Array:
    """Return the kinds of blocks by counts of the pairs that are seen, one query after the other."""
    bq, bk = blocks
    counts = np.zeros((-(-S // bq), -(-T // bk)), np.int64)
    starts = np.arange(counts.shape[1]) * bk
    for i in range(S):
        p = T - S + i
        if causal:
            low, high = 0 if window is None else max(0, p - window + 1), p + 1
        else:
            low, high = (0, T) if window is None else (max(0, p - window // 2), min(T, p + window // 2 + 1))
        counts[i // bq] += np.maximum(np.minimum(high, starts + bk) - np.maximum(low, starts), 0)
    pairs = np.array([min(bq, S - i) * bk for i in range(0, S, bq)], np.int64).reshape(-1, 1)
    return np.where(counts == pairs, 2, np.minimum(counts, 1))


def by_ranges(S: int, T: int, blocks: list[int], causal: bool, window: int | None) -> Array:
    """Return the kinds of blocks as kernels loop: from and to which block is visited, and which of them is whole."""
    bq, bk = blocks
    found = np.zeros((-(-S // bq), -(-T // bk)), np.int64)
    for row in range(len(found)):
        first, last = T - S + row * bq, T - S + min((row + 1) * bq, S) - 1  # positions
        left = T if window is None else window - 1 if causal else window // 2
        right = 0 if causal else left
        visited = range(max(first - left, 0) // bk, min(last + right, T - 1) // bk + 1)
        whole = range(-(-max(last - left, 0) // bk), min(first + right + 1, T) // bk)
        found[row, visited.start : visited.stop] = 1
        if whole:
            found[row, whole.start : whole.stop] = 2
    return found


def in_torch(S: int, T: int, blocks: list[int], causal: bool, window: int | None) -> Array:
    """Return the kinds of blocks of rows of few keys from the mask of all pairs, in torch; else by ranges."""
    if S * T > 1 << 14 or S == 0:
        return by_ranges(S, T, blocks, causal, window)
    bq, bk = blocks
    ahead = torch.arange(T) - torch.arange(T - S, T)[:, None]
    seen = torch.ones(S, T, dtype=torch.bool).tril(T - S) if causal else torch.ones(S, T, dtype=torch.bool)
    if window is not None:
        seen &= ahead > -window if causal else ahead.abs() * 2 <= window
    none = torch.nn.functional.pad(seen, (0, -T % bk, 0, -S % bq), value=False)
    tail = torch.nn.functional.pad(seen, (0, -T % bk), value=False)
    tail = torch.nn.functional.pad(tail, (0, 0, 0, -S % bq), value=True)
    some, every = (x.unflatten(0, (-1, bq)).unflatten(2, (-1, bk)) for x in (none, tail))
    return (some.any(3).any(1).long() + every.all(3).all(1).long()).numpy()


def split_by_search(kinds: Array, heads: int, processors: int) -> tuple[int, int]:
    """Return splits by looking for the least blocks a part with which there are not too many."""
    visited = int((kinds > 0).any(0).sum())
    for size in range(1, visited + 1):
        parts = math.ceil(visited / size)
        if parts == 1 or parts * heads * len(kinds) <= processors:
            return parts, size
    return 0, 0


# --- experts ---------------------------------------------------------------------------------------------------------


def by_lexsort(logits: Array, choices: int) -> Array:
    """Sort by logit and index."""
    wide = logits.astype(np.float32)
    rows = [np.lexsort((np.arange(len(row)), -row))[:choices] for row in wide]
    return np.array(rows, np.int64).reshape(len(wide), choices)


def on_heap(logits: Array, choices: int) -> Array:
    """Take the least of the pairs (-logit, index) from a heap."""
    rows = [heapq.nsmallest(choices, [(-x, i) for i, x in enumerate(row)]) for row in logits.astype(float).tolist()]
    return np.array([[i for _, i in row] for row in rows], np.int64).reshape(len(rows), choices)


def one_maximum_after_the_other(logits: Array, choices: int) -> Array:
    """Take the first maximum, hide it, and so on."""
    left, found = logits.astype(np.float64), []
    for _ in range(choices):
        best = left.argmax(1) if left.size else np.zeros(len(left), np.int64)
        found.append(best)
        left[np.arange(len(left)), best] = -np.inf
    return np.stack(found, 1)


def sorted_in_torch(logits: Array, choices: int) -> Array:
    """Sort in torch, stably, in storage where torch has it."""
    tensor = torch.from_numpy(np.array(logits, np.float64)).to(getattr(torch, logits.dtype.name))
    return torch.sort(tensor, dim=1, descending=True, stable=True).indices[:, :choices].numpy()


def by_keys(logits: Array, choices: int) -> Array:
    """Sort one integer a logit, of its bits in the order of numbers, -0 made 0, and its index."""
    bits = (logits.astype(np.float32) + np.float32(0)).view(np.int32).astype(np.int64)
    ordered = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    X = logits.shape[1]
    return np.argsort(-(ordered * X) + np.arange(X), axis=1)[:, :choices]


def queued(experts: Array, places: int) -> Array:
    """Return places from a queue of free ones at each expert."""
    free = {expert: deque(range(places)) for expert in set(experts.ravel().tolist())}
    found = np.full(experts.shape, -1)
    for choice in range(experts.shape[1]):
        for token, expert in enumerate(experts[:, choice].tolist()):
            if free[expert]:
                found[token, choice] = free[expert].popleft()
    return found


def one_hot_sums(experts: Array, places: int) -> Array:
    """Return places from running sums of one-hot rows, choice by choice, as GShard has them."""
    X = int(experts.max(initial=0)) + 1
    before, found = np.zeros(X, np.int64), []
    for choice in experts.T:
        asking = np.eye(X, dtype=np.int64)[choice]  # (N, X)
        place = (((np.cumsum(asking, 0) - 1) + before) * asking).sum(1)
        before = before + asking.sum(0)
        found.append(np.where(place < places, place, -1))
    return np.stack(found, 1)


def sorted_by_expert(experts: Array, places: int) -> Array:
    """Return places from a stable sort by expert, as grouped products of matrices want it."""
    order = experts.T.ravel()
    by_expert = np.argsort(order, kind="stable")
    counts = np.bincount(order, minlength=1)
    place = np.empty(len(order), np.int64)
    place[by_expert] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.where(place < places, place, -1).reshape(experts.T.shape).T


def in_32_bits(plain: Any) -> None:
    """Return integers of 32 bits."""
    run = plain.attention_router
    plain.attention_router = lambda **given: {name: x.astype(np.int32) for name, x in run(**given).items()}


FORMULATIONS = (
    Formulation("positions_row_by_row", "positions counted row by row", replaced(positions=positions_row_by_row)),
    Formulation("positions_transformers", "positions as left-padded rows are generated",
                replaced(positions=positions_of_transformers)),
    Formulation("positions_of_boundaries", "positions from boundaries", replaced(positions=positions_of_boundaries)),
    Formulation("unpad_transformers", "indices and boundaries of transformers", unpadded),
    Formulation("memory_of_floor", "80 % rounded down", replaced(is_short=memory_of_floor)),
    Formulation("memory_in_float64", "bytes in float64", replaced(is_short=memory_in_float64)),
    Formulation("hidden_by_counts", "what hides keys by counts", replaced(hidden_by=hidden_by_counts)),
    Formulation("all_rules", "all rules at once", replaced(kernel=all_rules)),
    Formulation("by_pairs", "blocks by counts of pairs", replaced(block_map=by_pairs)),
    Formulation("by_ranges", "blocks by the ranges over which kernels loop", replaced(block_map=by_ranges)),
    Formulation("mask_in_torch", "blocks from the mask of all pairs", replaced(block_map=in_torch)),
    Formulation("split_by_search", "the least blocks a split, by search", replaced(split=split_by_search)),
    Formulation("lexsort", "sorted by logit and index", replaced(chosen=by_lexsort)),
    Formulation("heap", "a heap of logit and index", replaced(chosen=on_heap)),
    Formulation("maxima", "one maximum after the other", replaced(chosen=one_maximum_after_the_other)),
    Formulation("torch_sort", "torch.sort, stable, in storage", replaced(chosen=sorted_in_torch)),
    Formulation("keys_of_bits", "one integer of bits and index", replaced(chosen=by_keys)),
    Formulation("queues", "queues of free places", replaced(slots=queued)),
    Formulation("one_hot_sums", "running sums of one-hot rows", replaced(slots=one_hot_sums)),
    Formulation("sorted_by_expert", "a stable sort by expert", replaced(slots=sorted_by_expert)),
    Formulation("in_32_bits", "integers of 32 bits", in_32_bits),
)  # fmt: skip
