"""What attention decides before it computes: packing, kernels, blocks, splits and experts, all of them integers.

Symbols: R rows, C columns, N tokens, L rules, X experts. A row has S queries, its tokens, and T keys.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function, all inputs by name
    attention_router(mask, past, rules, logits=None, *, heads, width, memory, causal, window, blocks, processors,
                     choices=None, capacity=None) -> {checkpoint: integers}
  mask        (R, C) integers: 1 where a row has a token, 0 where it is padded, on either side or between
  past        (R,) integers: how many keys a row's cache holds already. A row of S tokens has S queries and
              T = past + S keys, and its queries are the last of them
  rules       (L, 6) integers, see kernels
  logits      (N, X) in storage, of each token for each expert; in most cases there are none
  heads       of queries, and as many of keys; width is that of a head
  memory      in bytes
  causal      the query at the position p sees the keys j <= p, else all
  window      W or None: if causal, p - W < j too, which is W keys with its own; else |p - j| <= W / 2
  blocks      [queries, keys] of a block
  processors  that work at once
  choices     experts of a token
  capacity    [a, b], the factor a / b
and returns
  indices     (N,) where tokens stand in the mask, read row by row
  cu_queries  (R + 1,) queries of the rows before each row, and at last of all
  cu_keys     (R + 1,) the same of keys
  longest     (2,) the most queries and the most keys of a row
  positions   (N,) past and the tokens before it in its row, whatever padding stands between
  kernels     (R,) by the first rule that applies to the row; -1 for a row without tokens. A rule is six numbers,
              kernel, longer_than, multiple, widest, kinds, short, and applies if all of these hold:
                T > longer_than
                width is a multiple of `multiple`, and at most `widest`
                bit m of kinds is set, 1 << m, where m is what hides keys from the row's queries: 2 if the window hides
                a key that would be seen without it, else 1 if causality hides one (it hides nothing from one query),
                else 0
                short is -1, or 1 and the memory is short, or 0 and it is not. It is short if
                4 heads (S T + width (S + 2 T)) bytes, scores, queries, keys and values, are more than 80 % of it
  block_map   (R, query blocks, key blocks) as many as the longest row has, the last ones being cut; 0 where no query of
              the block sees a key of the block, or the row has no such block; 2 where each of its queries sees as many
              keys as a block has; else 1, as where keys end within it. Queries end where they end: they make no block 1
  splits      (R,) into how many parts the keys of a row are split, so that processors have work, and
  blocks_per_split  (R,) how many blocks each has: of the blocks of keys that some query sees, K, at most
              n = processors // (heads * query blocks of the row) parts, at least 1, are made: ceil(K / n) blocks a
              part, and as many parts as then have any. Both are 0 for a row without tokens
and where there are logits
  experts     (N, choices) those of the largest logits, descending; of equal ones the smaller index first, -0 and 0
              being equal. No arithmetic is needed, and none is harmless: unequal logits may have equal probabilities
  slots       (N, choices) the place of the token at that expert, from 0 on. An expert takes
              ceil(a * N * choices / (b * X)) tokens: first those that chose it first, in their order, then those that
              chose it second, and so on; -1 for all others
  load        (X,) how many tokens each expert took
All are integers and exact, at thresholds too: T = longer_than is not longer, 80 % is not more than 80 %. Numbers go
beyond 2^32.

Must be refused (raise, or exit with another code than 0): a mask that has not two axes, has no columns, or other
numbers than 0 and 1; a past that is not (R,), or below 0; rules that are not (L, 6); a row with tokens to which no rule
applies; a window or a block below 1; logits that are not (N, X), or NaN; choices that are not 1 … X.
"""

CONTRACTS = ("float32", "bfloat16", "float16")
ANY = 1 << 40
"""A width that no head has."""

Given = Mapping[str, Any]

# --- rules: kernel, longer_than, multiple, widest, kinds, short ------------------------------------------------------

BY_LENGTH = (
    (6, 131072, 1, ANY, 7, 1),  # state space
    (5, 65536, 1, ANY, 7, 1),  # linear
    (1, -1, 1, ANY, 7, 1),  # one head of keys
    (4, 32768, 1, ANY, 7, 0),  # ring
    (3, 16384, 1, ANY, 7, 0),  # window
    (2, 8192, 1, ANY, 7, 0),  # flash
    (1, -1, 1, ANY, 7, 0),
)
"""Short memory first, then by length, each longer kind of sequence to a cheaper kernel."""

BY_MEMORY = ((8, -1, 1, ANY, 7, 0), (1, -1, 1, ANY, 7, 1))

BY_FEATURES = (
    (7, 0, 8, 256, 4, -1),  # windows
    (5, 2, 8, 256, 1, -1),  # flash, nothing hidden: decoding
    (3, 2, 8, 256, 2, -1),  # flash, causal
    (9, 2, 4, 1024, 7, -1),  # memory-efficient
    (4, 0, 1, ANY, 7, -1),  # mathematics
)
"""By what a kernel can do, as PyTorch chooses among those of scaled_dot_product_attention."""

# --- inputs ----------------------------------------------------------------------------------------------------------


def mask_of(*rows: str) -> Literal:
    """Return a mask written as 0 and 1."""
    return Literal(tuple(tuple(map(int, row)) for row in rows))


def random_mask(name: str, R: int, C: int) -> Literal:
    """Return a mask with a token in two of three places."""
    drawn = Integers((R, C), f"attention_router/{name}/mask", 0, 3).draw() > 0
    return Literal(tuple(map(tuple, drawn.astype(int).tolist())))


def random_logits(name: str, N: int, X: int, values: int) -> Recipe:
    """Return logits of so many values, from -values / 2 on, in steps of 1/4."""
    drawn = Integers((N, X), f"attention_router/{name}/logits", 0, values).draw() - values // 2
    return Literal(tuple(map(tuple, (drawn / 4).tolist())), "float32")


def written(*rows: Sequence[float | str]) -> Recipe:
    """Return logits written out."""
    return Literal(tuple(map(tuple, rows)), "float32")


PLAIN: Given = {
    "heads": 3,
    "width": 64,
    "memory": 1 << 34,
    "causal": True,
    "window": None,
    "blocks": [4, 5],
    "processors": 132,
}


def case(
    name: str,
    about: str,
    mask: Literal,
    past: Sequence[int],
    *,
    rules: tuple[tuple[int, ...], ...] = BY_FEATURES,
    logits: Recipe | None = None,
    **params: Any,
) -> Case:
    """Return a case; `params` are those that are not `PLAIN`."""
    inputs: dict[str, Recipe] = {"mask": mask, "past": Literal(tuple(past)), "rules": Literal(rules)}
    params = {**PLAIN, **params}
    if logits is not None:
        inputs["logits"] = logits
    return Case(name, inputs, params, checkpoints(mask.draw(), np.array(past), params, logits), about=about)


def checkpoints(mask: NDArray[Any], past: NDArray[Any], params: Given, logits: Recipe | None) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of a case."""
    R, N, lengths = len(mask), int(mask.sum()), mask.sum(1)
    query_blocks, key_blocks = (
        int(-(-most // size))
        for most, size in zip((lengths.max(), (past + lengths).max()), params["blocks"], strict=True)
    )
    found = [
        ("indices", (N,), ("token",)),
        ("cu_queries", (R + 1,), ("boundary",)),
        ("cu_keys", (R + 1,), ("boundary",)),
        ("longest", (2,), ()),
        ("positions", (N,), ("token",)),
        ("kernels", (R,), ("row",)),
        ("block_map", (R, query_blocks, key_blocks), ("row", "query_block", "key_block")),
        ("splits", (R,), ("row",)),
        ("blocks_per_split", (R,), ("row",)),
    ]
    if logits is not None:
        X, choices = logits.shape[1], params["choices"]
        found += [
            ("experts", (N, choices), ("token", "choice")),
            ("slots", (N, choices), ("token", "choice")),
            ("load", (X,), ("expert",)),
        ]
    return tuple(Checkpoint(name, shape, axes, dtype="integer") for name, shape, axes in found)


def around(*lengths: int) -> list[int]:
    """Return for each length what is past if two tokens make one key less, just as many, and one more."""
    return [length + more - 2 for length in lengths for more in (-1, 0, 1)]


def refused(name: str, refuses: str, *, given: Mapping[str, Recipe] | None = None, **params: Any) -> Case:
    """Return a case with something wrong in the otherwise right inputs of two rows, with 5 tokens, for 3 experts."""
    inputs = {
        "mask": mask_of("0111", "1100"),
        "past": Literal((2, 0)),
        "rules": Literal(BY_FEATURES),
        "logits": random_logits("refused", 5, 3, 9),
    }
    params = {**PLAIN, "choices": 2, "capacity": [5, 4], **params}
    return Case(f"refused-{name}", inputs | dict(given or {}), params, (), refuses=refuses, about=refuses)


# --- cases -----------------------------------------------------------------------------------------------------------

PADDED = mask_of("0001111", "1111111", "0000000", "1111100", "0110101", "0000001")
TWO = mask_of(*("11",) * 15)
THRESHOLDS = around(8192, 16384, 32768, 65536, 131072)
LONG: Given = {"blocks": [1, 8192], "rules": BY_LENGTH}
DECODING = mask_of(*("1",) * 8)

PACKING = (
    case("packed", "padding on the left, on the right, between; a row of nothing", PADDED, (0, 0, 0, 0, 0, 0)),
    case("resumed", "the same rows with a cache", PADDED, (11, 3, 6, 0, 8, 20), blocks=[3, 4]),
    case("one-row", "one row that is not padded", mask_of("1111111111111"), (0,)),
    case("no-tokens", "nothing but padding", mask_of("000", "000"), (4, 0), logits=Dyadic(
        (0, 5), "attention_router/no-tokens", exponent=-5), choices=2, capacity=[1, 1]),
    case("many-rows", "rows of any length", random_mask("many-rows", 23, 9), range(0, 69, 3), blocks=[2, 6]),
)  # fmt: skip

KERNELS = (
    case("lengths", "lengths about the thresholds, memory enough", TWO, THRESHOLDS, memory=1 << 36, **LONG),
    case("lengths-short", "the same, memory short", TWO, THRESHOLDS, memory=0, **LONG),
    case("memory", "80 % of the memory, and a key less or more", mask_of(*("1011",) * 3), (996, 997, 998),
         memory=5 * 3 * (3 * 1000 + 64 * (3 + 2 * 1000)), rules=BY_MEMORY, blocks=[2, 128]),
    case("memory-large", "80 % of 26 GB, and a key less or more: beyond 32 bits, and what float32 does not tell apart",
         mask_of(*("11111",) * 3), (79999994, 79999995, 79999996), rules=BY_LENGTH, blocks=[3, 1 << 22], heads=1,
         width=30, memory=5 * (5 * 80000000 + 30 * (5 + 2 * 80000000))),
    case("width-256", "the widest that flash takes", DECODING, range(8), width=256),
    case("width-264", "wider than that", DECODING, range(8), width=264),
    case("width-100", "a multiple of 4, none of 8", DECODING, range(8), width=100),
    case("width-30", "no multiple of 4", DECODING, range(8), width=30),
    case("one-query", "lengths about a window of 4: one query from which causality hides nothing", DECODING, range(8),
         window=4),
    case("two-queries", "lengths about a window of 5: causality hides keys", mask_of(*("11",) * 7), range(7), window=5),
    case("both-sides", "a window of 6 on both sides: 2 (T - 1) is 6 for 4 keys", mask_of("111000", "111100", "111110",
         "111111", "010000"), (0, 0, 0, 5, 2), causal=False, window=6),
    case("both-sides-odd", "a window of 7 on both sides", mask_of("11100", "11110", "11111"), (0, 0, 7), causal=False,
         window=7),
)  # fmt: skip

BLOCKS = (
    case("causal-blocks", "causal, blocks that end where rows end, and that do not",
         mask_of("1" * 24, "1" * 23 + "0", "1" * 17 + "0" * 7), (0, 0, 0), blocks=[4, 6]),
    case("causal-past", "queries at the end of their keys", mask_of("1" * 12, "1" * 11 + "0", "0" * 3 + "1" * 9),
         (12, 7, 31), blocks=[3, 4]),
    case("wide-blocks", "more queries than keys in a block", mask_of("1" * 21, "1" * 20 + "0"), (3, 4), blocks=[8, 2]),
    case("all-keys", "not causal: full blocks, but where keys end", mask_of("1" * 10, "1" * 7 + "000"), (5, 1),
         causal=False, blocks=[4, 5]),
    case("window-blocks", "a window of 9", mask_of("1" * 26, "1" * 25 + "0", "0" * 9 + "1" * 17), (0, 6, 40), window=9,
         blocks=[5, 4]),
    case("window-of-blocks", "a window of two blocks", mask_of("1" * 24, "1" * 20 + "0" * 4), (0, 8), window=8,
         blocks=[2, 4]),
    case("both-sides-blocks", "a window of 12 on both sides", mask_of("1" * 27, "1" * 18 + "0" * 9), (0, 13),
         causal=False, window=12, blocks=[2, 3]),
    case("blocks-of-one", "blocks of one: the mask itself", mask_of("11111111", "00111110"), (0, 4), window=5,
         blocks=[1, 1]),
)  # fmt: skip

SPLITS = (
    case("splits", "caches of many lengths, few queries", mask_of(*("1",) * 11),
         (0, 63, 64, 65, 127, 128, 700, 959, 960, 1023, 4095), heads=4, blocks=[2, 64], processors=54),
    case("splits-window", "a window leaves few blocks to split", mask_of(*("11",) * 5), (0, 100, 319, 320, 2000),
         window=320, heads=2, blocks=[1, 32], processors=30),
    case("few-processors", "fewer processors than heads", mask_of("11111", "00011", "00000"), (90, 400, 0), heads=12,
         blocks=[2, 16], processors=7),
)  # fmt: skip

SIGNED = (
    (0.0, -0.0, -1.0, -0.5, 0.0),
    (-0.0, 0.0, 0.0, -0.25, -2.0),
    (-3.0, -1.0, -2.0, -1.0, -4.0),
    (-0.5, -8.0, -0.125, -0.125, -64.0),
    (2.0, -5.0, 2.0, -7.0, 0.5),
    (-1.0, -1.0, -1.0, -1.0, -1.0),
)
CLOSE = (
    (0.0, 0.0078125, -40.0, -41.0, 0.015625, -42.0),
    (-200.0, 40.0, -201.0, -199.0, -198.0, -202.0),
    (-1.0, -1.0078125, -60.0, -1.015625, -61.0, -62.0),
    (5.0, 5.03125, 5.0625, 5.0, 4.96875, -90.0),
)
EXPERTS = (
    case("experts", "more tokens than experts take", random_mask("experts", 6, 11), (0,) * 6,
         logits=random_logits("experts", int(random_mask("experts", 6, 11).draw().sum()), 7, 40), choices=3,
         capacity=[3, 4]),
    case("experts-ties", "logits of three values", random_mask("experts-ties", 5, 9), (2,) * 5,
         logits=random_logits("experts-ties", int(random_mask("experts-ties", 5, 9).draw().sum()), 6, 3), choices=2,
         capacity=[1, 1]),
    case("experts-signed", "negative logits, and both zeros", mask_of("1111", "0110"), (0, 1), logits=written(*SIGNED),
         choices=3, capacity=[5, 6]),
    case("experts-close", "logits so near, or so low, that probabilities are equal", mask_of("1101", "0001"), (0, 0),
         logits=written(*CLOSE), choices=4, capacity=[2, 1]),
    case("all-experts", "every expert is chosen: the whole order", mask_of("11110", "10111"), (0, 3),
         logits=random_logits("all-experts", 8, 5, 12), choices=5, capacity=[3, 5]),
    case("one-choice", "one choice, and one place at each expert", mask_of("111111111"), (0,),
         logits=random_logits("one-choice", 9, 10, 9), choices=1, capacity=[1, 9]),
)  # fmt: skip

REFUSED = (
    refused("no-columns", "rows of no length", given={"mask": Integers((2, 0), "attention_router/refused", 0, 1)}),
    refused("mask-values", "a mask of other numbers than 0 and 1",
            given={"mask": Literal(((0, 1, 1, 3), (2, 1, 0, 0)))}),
    refused("past-shape", "the past of three rows for two", given={"past": Literal((2, 0, 1))}),
    refused("past-negative", "a past below 0", given={"past": Literal((2, -1))}),
    refused("rules", "rules of five numbers", given={"rules": Literal(tuple(rule[:5] for rule in BY_FEATURES))}),
    refused("no-rule", "a row to which no rule applies", given={"rules": Literal(BY_FEATURES[:2])}, width=44),
    refused("window", "a window of 0", window=0),
    refused("blocks", "blocks of no keys", blocks=[4, 0]),
    refused("logits", "logits of the padding too", given={"logits": random_logits("refused-logits", 8, 3, 9)}),
    refused("nan", "a logit that is NaN",
            given={"logits": written((1, 2, 3), (1, 2, 0), ("nan", 1, 2), (2, 1, 0), (0, 1, 1))}),
    refused("choices", "four choices among three experts", choices=4),
    refused("no-choice", "no choice", choices=0),
)  # fmt: skip

PROPERTIES = (
    rows_apart(("resumed", "lengths", "two-queries"), "kernels", ("mask", "past")),
    rows_apart(("resumed", "causal-past", "window-blocks"), "block_map", ("mask", "past")),
    rows_apart(("splits", "splits-window"), "splits", ("mask", "past")),
    repeatable(("many-rows", "experts-ties"), "block_map"),
)
SUITE = Suite(
    "attention_router",
    ABOUT,
    CONTRACTS,
    (*PACKING, *KERNELS, *BLOCKS, *SPLITS, *EXPERTS, *REFUSED),
    outputs=("kernels", "block_map", "experts"),
    packed=True,
    properties=PROPERTIES,
)
