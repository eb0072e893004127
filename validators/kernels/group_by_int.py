"""Grouping of values by an integer key into compressed rows. Symbols: N pairs, G distinct keys."""

import numpy as np

from karat import Case, Checkpoint, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    group_by_int(keys, values) -> {"keys": …, "indptr": …, "groups": …}
  keys    (N,) int64, of any sign and size
  values  (N,) int64; values[i] belongs to the group of keys[i]
keys    (G,) integers: the distinct keys, ascending
indptr  (G + 1,) integers: the group of keys[g] is groups[indptr[g] : indptr[g + 1]]; indptr[0] is 0, indptr[G] is N
groups  (N,) integers: the values, group after group, in each group in the order in which they were given (stable)
N = 0 gives keys of shape (0,), indptr [0] and groups of shape (0,).
Must be refused: keys and values of different lengths, of another rank than 1, and keys that are not integers.
Why stable: an unstable grouping is a permutation that changes with the hardware, and no two builders then agree.
"""

CONTRACTS = ("float32",)


def case(name: str, about: str, keys: Recipe, values: Recipe | None = None) -> Case:
    """Return the case of `keys`, with random values that are no positions unless others are given."""
    (N,) = keys.shape
    G = len(np.unique(keys.draw()))
    return Case(
        name,
        {"keys": keys, "values": values or Integers((N,), f"group_by_int/{name}/values", -(2**31), 2**31)},
        {},
        (
            Checkpoint("keys", (G,), ("group",), dtype="integer"),
            Checkpoint("indptr", (G + 1,), ("boundary",), dtype="integer"),
            Checkpoint("groups", (N,), ("position",), dtype="integer"),
        ),
        about=about,
    )


def random(name: str, about: str, N: int, low: int, high: int) -> Case:
    """Return a case of N keys uniform in [low, high)."""
    return case(name, about, Integers((N,), f"group_by_int/{name}/keys", low, high))


def refusal(name: str, refuses: str, keys: Recipe, values: Recipe) -> Case:
    """Return a case that must be refused."""
    return Case(name, {"keys": keys, "values": values}, {}, (), refuses=refuses, about=refuses)


def at(keys: list[int], offsets: tuple[int, ...]) -> Literal:
    """Return keys that point into `offsets`."""
    return Literal(tuple(offsets[key % len(offsets)] for key in keys))


def cases() -> tuple[Case, ...]:
    """Return the cases; lengths are odd, and no number of groups is one of values."""
    mixed = Integers((97,), "group_by_int/mixed/keys", 0, 1 << 20).draw().tolist()
    ones = Literal((5, 5, 5), dtype="int64")
    return (
        case("example", "three keys, two values each", Literal((2, 0, 2, 1, 1, 0)), Literal((1, 2, 3, 4, 5, 6))),
        random("many-ties", "23 keys of both signs, 13 values each: only a stable order is right", 301, -9, 14),
        random("few-ties", "more keys than values: groups of 0, 1 and 2", 113, -300, 300),
        case("runs", "runs of a key that come again", Literal(tuple(i // 7 % 5 for i in range(149)))),
        case("descending", "distinct keys, the last first", Literal(tuple(range(61, -62, -3)))),
        case("one-group", "one key, more values than a block of threads", Literal((-4,) * 259)),
        case("one-value", "one pair", Literal((-7,))),
        random("empty", "no pair: no group, one boundary", 0, 0, 1),
        case("beyond-2-24", "keys that float32 cannot tell apart", at(mixed, tuple(2**24 + i for i in range(6)))),
        case(
            "beyond-2-32",
            "keys that 32 bits cannot tell apart",
            at(mixed, (3, 2**32 + 3, -(2**32) + 3, -(2**40), 0, 2**31)),
        ),
        case(
            "beyond-2-53",
            "keys that float64 cannot tell apart",
            at(mixed, tuple(s * (2**53 + i) for s in (1, -1) for i in range(3))),
        ),
        case(
            "extremes", "keys whose difference overflows 64 bits", at(mixed, (2**63 - 1, -(2**63), 0, 1, -1, 2**63 - 2))
        ),
        refusal("refuses-lengths", "keys and values of different lengths", ones, Literal((1, 2))),
        refusal("refuses-rank", "keys of rank 2", Literal(((1, 2), (2, 1))), Literal(((1, 2), (3, 4)))),
        refusal("refuses-floats", "keys that are not integers", Literal((1.0, 0.5, 1.0), "float32"), ones),
    )


SUITE = Suite("group_by_int", ABOUT, CONTRACTS, cases(), packed=True)
