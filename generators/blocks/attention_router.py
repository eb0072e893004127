"""The reference of the suite `attention_router`: torch, on the CPU. R rows, N tokens, X experts; S queries, T keys.

Blocks are counted: how many pairs of a query and a key of each block are seen. Places at experts come from running
counts of one-hot rows, as GShard has them (Lepikhin et al. 2020, algorithm 1).
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from transformers.modeling_flash_attention_utils import _get_unpad_data

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]


def attention_router(
    mask: Tensor,
    past: Tensor,
    rules: Tensor,
    logits: Tensor | None = None,
    *,
    causal: bool,
    window: int | None,
    blocks: list[int],
    **sizes: Any,
) -> dict[str, Tensor]:
    """Return the checkpoints of a case."""
    S = mask.sum(1)  # (R,)
    T = past + S  # (R,)
    zero = torch.zeros(1, dtype=torch.int64)
    row, column = mask.nonzero(as_tuple=True)  # (N,) each
    before = torch.cat([zero, S.cumsum(0)])  # (R + 1,)
    block_map = blocks_of(S, T, blocks, causal, window)  # (R, query blocks, key blocks)
    visited = (block_map > 0).any(1).sum(1)  # (R,)
    work = (sizes["heads"] * ceil_div(S, blocks[0])).clamp(min=1)  # (R,)
    parts = (sizes["processors"] // work).clamp(min=1)  # (R,)
    size = ceil_div(visited, parts)  # (R,)
    found = {
        "indices": row * mask.shape[1] + column,
        "cu_queries": before,
        "cu_keys": torch.cat([zero, T.cumsum(0)]),
        "longest": torch.stack([S.max(), T.max()]),
        "positions": past[row] + torch.arange(len(row)) - before[row],
        "kernels": kernels_of(S, T, rules, hidden_by(S, T, causal, window), **sizes),
        "block_map": block_map,
        "splits": ceil_div(visited, size.clamp(min=1)),
        "blocks_per_split": size,
    }
    return found if logits is None else found | experts_of(logits, sizes["choices"], sizes["capacity"])


def experts_of(logits: Tensor, choices: int, capacity: list[int]) -> dict[str, Tensor]:
    """Return experts, their slots and their load."""
    N, X = logits.shape
    order = torch.sort(logits, dim=1, descending=True, stable=True).indices[:, :choices]  # (N, choices)
    asking = torch.nn.functional.one_hot(order.T.reshape(-1), X)  # (choices * N, X)
    place = ((asking.cumsum(0) - 1) * asking).sum(1)  # (choices * N,)
    most = -(-capacity[0] * N * choices // (capacity[1] * X))
    slots = torch.where(place < most, place, -1)
    return {
        "experts": order.contiguous(),
        "slots": slots.reshape(choices, N).T.contiguous(),
        "load": asking.sum(0).clamp(max=most),
    }


def hidden_by(S: Tensor, T: Tensor, causal: bool, window: int | None) -> Tensor:
    """Return what hides a key from a query of each row, (R,)."""
    kind = ((S > 1) & causal).to(torch.int64)
    if window is None:
        return kind
    return torch.where((window < T) if causal else (window < 2 * (T - 1)), 2, kind)


def kernels_of(
    S: Tensor, T: Tensor, rules: Tensor, kind: Tensor, *, heads: int, width: int, memory: int, **_: Any
) -> Tensor:
    """Return the kernel of each row, (R,)."""
    needed = 4 * heads * (S * T + width * (S + 2 * T))  # (R,)
    short = (5 * needed > 4 * memory).to(torch.int64)
    kernel, longer_than, multiple, widest, kinds, wants_short = rules.T  # (L,) each
    fits = (
        (T[:, None] > longer_than)
        & (width % multiple == 0)
        & (width <= widest)
        & (kinds >> kind[:, None] & 1 == 1)
        & ((wants_short == -1) | (wants_short == short[:, None]))
    )  # (R, L)
    return torch.where(S > 0, kernel[fits.to(torch.int64).argmax(1)], -1)


def blocks_of(S: Tensor, T: Tensor, blocks: list[int], causal: bool, window: int | None) -> Tensor:
    """Return the kinds of blocks, (R, query blocks, key blocks), by how many pairs of each are seen."""
    query = torch.arange(int(S.max()))  # (most queries,)
    position = query + (T - S)[:, None]  # (R, most queries)
    end = position + 1 if causal else T[:, None].expand(position.shape)
    first = torch.zeros_like(position)
    if window is not None:
        first = (position - window + 1 if causal else position - window // 2).clamp(min=0)
        end = torch.minimum(end, position + 1 if causal else position + window // 2 + 1)
    there = query < S[:, None]  # (R, most queries)
    start = torch.arange(0, int(T.max()), blocks[1])  # (key blocks,)
    within = torch.minimum(end[..., None], start + blocks[1]) - torch.maximum(first[..., None], start)
    within = within.clamp(min=0) * there[..., None]  # (R, most queries, key blocks)
    home = (query // blocks[0])[None].expand(len(S), -1)  # (R, most queries)
    number = int(-(-int(S.max()) // blocks[0]))
    shape = (len(S), number, len(start))
    counts = torch.zeros(shape, dtype=torch.int64).scatter_add(1, home[..., None].expand_as(within), within)
    pairs = torch.zeros(shape[:2], dtype=torch.int64).scatter_add(1, home, there.to(torch.int64)) * blocks[1]
    full = (counts == pairs[..., None]) & (counts > 0)
    return (counts > 0).to(torch.int64) + full.to(torch.int64)


def ceil_div(a: Tensor, b: Tensor | int) -> Tensor:
    """Return a / b, rounded up."""
    return -(-a // b)


# --- what must hold of the goldens -----------------------------------------------------------------------------------

WORKED_OUT = {
    (16, 1): 1, (4096, 1): 1, (8192, 1): 1, (65537, 1): 5, (131073, 1): 6,
    (8192, 0): 1, (8193, 0): 2, (16384, 0): 2, (16385, 0): 3, (32768, 0): 3, (32769, 0): 4,
}  # fmt: skip
"""What the rules by length choose, and whether the memory is short, by a table worked out beforehand."""


def by_length(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return kernels by length, and those of the table where its lengths occur."""
    if len(given["rules"]) != 7 or given["memory"] not in (0, 1 << 36):
        return None
    known = [WORKED_OUT.get((T, int(given["memory"] == 0))) for T in np.diff(golden["cu_keys"]).tolist()]
    found = [kernel for kernel, wanted in zip(golden["kernels"].tolist(), known, strict=True) if wanted is not None]
    return np.array(found), [wanted for wanted in known if wanted is not None]


def unpadded(given: Given, golden: Given) -> tuple[Any, ...]:
    """Return indices, boundaries and the most queries, and those of transformers."""
    indices, boundaries, most = _get_unpad_data(torch.from_numpy(given["mask"]))
    return (
        np.concatenate([golden["indices"], golden["cu_queries"], golden["longest"][:1]]),
        np.concatenate([indices.numpy(), boundaries.numpy(), [most]]),
    )


def numbered(given: Given, golden: Given) -> tuple[Any, ...]:
    """Return positions, and those of the mask with the cache before it, as transformers numbers left-padded rows."""
    rows = zip(given["past"].tolist(), given["mask"].tolist(), strict=True)
    wanted = [past + sum(row[:place]) for past, row in rows for place, is_token in enumerate(row) if is_token]
    return golden["positions"], np.array(wanted, np.int64)


def sees(given: Given, S: int, T: int) -> Array:
    """Return which keys each query sees, by the words of the contract, (S, T)."""
    p, j = np.arange(T - S, T)[:, None], np.arange(T)[None]
    W = given["window"]
    if given["causal"]:
        return (j <= p) & ((p - W < j) if W is not None else True)
    return np.abs(p - j) * 2 <= W if W is not None else np.ones((S, T), bool)


def rows_of(golden: Given) -> list[tuple[int, int]]:
    """Return queries and keys of each row."""
    return list(zip(np.diff(golden["cu_queries"]).tolist(), np.diff(golden["cu_keys"]).tolist(), strict=True))


def by_pairs(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return the blocks of small cases, and those of the mask of all pairs."""
    if golden["longest"][1] > 5000:
        return None
    bq, bk = given["blocks"]
    wanted = np.zeros_like(golden["block_map"])
    for row, (S, T) in enumerate(rows_of(golden)):
        seen = np.pad(sees(given, S, T), ((0, 0), (0, -T % bk)))
        for i in range(0, S, bq):
            for j in range(0, T, bk):
                part = seen[i : i + bq, j : j + bk]
                wanted[row, i // bq, j // bk] = int(part.any()) + int(part.all())
    return golden["block_map"], wanted


def by_flex_attention(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return the blocks of rows whose queries fill theirs, and those of torch's FlexAttention."""
    bq, bk = given["blocks"]
    found, wanted = [], []
    for row, (S, T) in enumerate(rows_of(golden)):
        if S == 0 or S % bq or T > 200 or min(bq, bk) < 2:
            continue
        table = torch.from_numpy(sees(given, S, T))
        mask = create_block_mask(
            lambda _b, _h, i, j, table=table: table[i, j], None, None, S, T, device="cpu", BLOCK_SIZE=(bq, bk)
        )
        kinds = np.zeros((S // bq, -(-T // bk)), np.int64)
        for number, indices, kind in (
            (mask.kv_num_blocks, mask.kv_indices, 1),
            (mask.full_kv_num_blocks, mask.full_kv_indices, 2),
        ):
            for i, (count, places) in enumerate(zip(number[0, 0].tolist(), indices[0, 0].tolist(), strict=True)):
                kinds[i, places[:count]] = kind
        wanted.append(kinds.ravel())
        found.append(golden["block_map"][row, : kinds.shape[0], : kinds.shape[1]].ravel())
    return (np.concatenate(found), np.concatenate(wanted)) if found else None


def by_rules(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return kernels of cases of few keys, and those by fractions, what hides keys being looked up in the mask."""
    if golden["longest"][1] > 5000:
        return None
    return golden["kernels"], [kernel_of(given, S, T) if S else -1 for S, T in rows_of(golden)]


def kernel_of(given: Given, S: int, T: int) -> int:
    """Return the kernel of a row that has tokens."""
    causal = sees({**given, "window": None}, S, T)
    kind = 2 if (causal & ~sees(given, S, T)).any() else int(not causal.all())
    numbers = given["heads"] * S * T + given["heads"] * given["width"] * (S + T + T)
    short = Fraction(4 * numbers) > Fraction(4, 5) * given["memory"]
    for kernel, longer_than, multiple, widest, kinds, wanted in given["rules"].tolist():
        fits = longer_than < T and given["width"] in range(0, widest + 1, multiple)
        if fits and kind in [m for m in range(3) if kinds // 2**m % 2] and wanted in (-1, int(short)):
            return int(kernel)
    raise AssertionError("no rule")


def shared(given: Given, golden: Given) -> tuple[Any, ...]:
    """Return how many blocks lie beyond, or parts are empty, or are too many, or larger than they need be: none."""
    wrong = 0
    for row, (S, _) in enumerate(rows_of(golden)):
        K = int((golden["block_map"][row] > 0).any(0).sum())
        parts, size = int(golden["splits"][row]), int(golden["blocks_per_split"][row])
        most = max(1, int(given["processors"] / (given["heads"] * max(1, np.ceil(S / given["blocks"][0])))))
        wrong += parts * size < K or (parts > 0 and (parts - 1) * size >= K) or parts > most
        wrong += size > 1 and (size - 1) * most >= K
    return np.array(wrong), 0


def best(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return experts, and those of Python's sort by logit and index."""
    if "logits" not in given:
        return None
    X = given["logits"].shape[1]
    wanted = [[x for _, x in sorted((-logit, x) for x, logit in enumerate(row))] for row in given["logits"].tolist()]
    return golden["experts"], np.array(wanted, np.int64).reshape(-1, X)[:, : given["choices"]]


def queued(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return places and loads, and those of queues."""
    if "logits" not in given:
        return None
    N, X = given["logits"].shape
    most = Fraction(*given["capacity"]) * N * given["choices"] / X
    taken, wanted = [0] * X, np.full(golden["slots"].shape, -1)
    for choice in range(given["choices"]):
        for token in range(N):
            expert = int(golden["experts"][token, choice])
            if taken[expert] < most:
                wanted[token, choice] = taken[expert]
                taken[expert] += 1
    return np.concatenate([golden["slots"].ravel(), golden["load"]]), np.concatenate([wanted.ravel(), taken])


RELATIONS = {
    "indices, boundaries and the most queries are those of transformers": unpadded,
    "positions count the tokens before": numbered,
    "kernels at lengths about thresholds are those of a table worked out beforehand": by_length,
    "kernels are those of fractions and of the mask of all pairs": by_rules,
    "blocks are those of the mask of all pairs": by_pairs,
    "blocks are those of FlexAttention where queries fill theirs": by_flex_attention,
    "splits cover the blocks, none is empty, no more than may be, no larger than need be": shared,
    "experts are those of a sort by logit and index": best,
    "places are those of queues": queued,
}

VERSIONS, WITNESS, NOISE_STEP, reference, _, witness, checks, known_values = operation.generator(
    __file__, attention_router, RELATIONS, versions=("torch", "transformers")
)


def perturbed(*_: Any) -> dict[str, Array]:
    """Return nothing: integers have no noise, and what computes them is not replayed."""
    return {}
