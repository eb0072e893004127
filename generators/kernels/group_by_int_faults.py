"""Mistakes that people make when they group by an integer key, planted in the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap

Array = Any
KEYS, INDPTR, GROUPS, REFUSED = ("keys",), ("indptr",), ("groups",), ("refused",)


def order(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the sort: `formula(keys)` gives the positions, (N,)."""
    return wrap(stable_order=lambda _: formula)


def boundaries(formula: Callable[[Array, int], Array]) -> Callable[[Any], None]:
    """Return a change to the boundaries: `formula(starts, N)`."""
    return wrap(boundaries=lambda _: formula)


def values(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to what is gathered: `formula(values, order)`."""
    return wrap(gathered=lambda _: formula)


def as_keys(convert: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the keys, before anything is done with them."""

    def change(plain: Any) -> None:
        right = plain.checked

        def checked(keys: Array, values: Array) -> Any:
            keys, values = right(keys, values)
            return convert(keys), values

        plain.checked = checked

    return change


def by_float(dtype: str) -> Callable[[Any], None]:
    """Return a change that keeps the keys in a floating format."""
    return as_keys(lambda keys: np.clip(keys.astype(dtype), -(2.0**62), 2.0**62).astype(np.int64))


def accepting(part: str) -> Callable[[Any], None]:
    """Return a change that answers what the right candidate refuses with a text that has `part` in it."""

    def change(plain: Any) -> None:
        right = plain.checked

        def checked(keys: Array, values: Array) -> Any:
            try:
                return right(keys, values)
            except ValueError as error:
                if part not in str(error):
                    raise
                N = min(np.size(keys), np.size(values))
                return np.ravel(keys)[:N].astype(np.int64), np.ravel(values)[:N]

        plain.checked = checked

    return change


def bitonic(keys: Array) -> Array:
    """Sort by the network that fits a GPU, which is not stable."""
    N = len(keys)
    size = 1 << max(N - 1, 0).bit_length()
    ranks = np.append(np.unique(keys, return_inverse=True)[1], np.full(size - N, N))
    at, lanes = np.arange(size), np.arange(size)
    block = 2
    while block <= size:
        step = block // 2
        while step:
            low = lanes[(lanes & step) == 0]
            high = low | step
            up = (low & block) == 0
            swap = np.where(up, ranks[at[low]] > ranks[at[high]], ranks[at[low]] < ranks[at[high]])
            low, high = low[swap], high[swap]
            at[low], at[high] = at[high], at[low]
            step //= 2
        block *= 2
    return at[at < N]


def first_met(keys: Array) -> Array:
    """Order the groups as their keys are met, as a hash table that keeps the order of insertion does."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return np.argsort(first[group], kind="stable")


def hashed(keys: Array) -> Array:
    """Order the groups by the slots of their keys in a hash table, of Knuth's multiplicative hash."""
    return np.argsort(keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15), kind="stable")


def by_difference(keys: Array) -> Array:
    """Insert each by the sign of its difference from those before, which overflows."""
    at: list[int] = []
    for i in range(len(keys)):
        place = len(at)
        while place and (keys[at[place - 1 : place]] - keys[i : i + 1])[0] > 0:
            place -= 1
        at.insert(place, i)
    return np.array(at, np.int64)


FAULTS = (
    # --- the order of the keys
    Fault("keys_as_met", KEYS, "groups in the order in which their keys are met, not ascending", order(first_met)),
    Fault("keys_hashed", KEYS, "groups in the order of a hash table", order(hashed)),
    Fault("keys_descending", KEYS, "keys descending", order(lambda keys: np.argsort(~keys, kind="stable"))),
    Fault("keys_unsigned", KEYS, "keys compared as unsigned: negative ones last", order(lambda keys: np.argsort(keys.view(np.uint64), kind="stable"))),
    Fault("keys_by_magnitude", KEYS, "keys in the order of |key|", order(lambda keys: np.lexsort((keys, np.abs(keys.astype(float)))))),
    Fault("keys_subtracted", KEYS, "keys compared by the sign of a difference that overflows", order(by_difference)),
    Fault("runs_only", KEYS, "only neighbours of one key are grouped: nothing is sorted", order(lambda keys: np.arange(len(keys)))),
    # --- keys that are not 64 bits
    Fault("keys_in_32_bits", KEYS, "keys kept in 32 bits", as_keys(lambda keys: keys.astype(np.int32).astype(np.int64))),
    Fault("keys_in_float32", KEYS, "keys kept in float32", by_float("float32")),
    Fault("keys_in_float64", KEYS, "keys kept in float64", by_float("float64")),
    Fault("keys_absolute", KEYS, "the sign of keys dropped", as_keys(np.abs)),
    # --- which groups there are
    Fault("last_group_lost", KEYS, "the last group is never closed", wrap(group_starts=lambda right: lambda keys: right(keys)[:-1])),
    Fault("first_group_lost", KEYS, "a group begins where a key differs from the one before: not the first",
          wrap(group_starts=lambda right: lambda keys: right(keys)[1:])),
    # --- boundaries
    Fault("boundaries_without_end", INDPTR, "N at the end of the boundaries is missing", boundaries(lambda starts, N: starts)),
    Fault("boundaries_without_zero", INDPTR, "0 at the beginning of the boundaries is missing", boundaries(lambda starts, N: np.append(starts, N)[1:])),
    Fault("boundaries_empty", INDPTR, "no boundary where there is no group", boundaries(lambda starts, N: np.append(starts, N) if N else starts)),
    Fault("boundaries_inclusive", INDPTR, "boundaries name the last value of a group",
          boundaries(lambda starts, N: np.append(starts, N) - (np.arange(len(starts) + 1) > 0))),
    Fault("boundaries_from_one", INDPTR, "boundaries count from one", boundaries(lambda starts, N: np.append(starts, N) + 1)),
    Fault("boundaries_are_counts", INDPTR, "counts, not summed up, after the 0", boundaries(lambda starts, N: np.diff(np.append(starts, N), prepend=0))),
    Fault("boundaries_in_8_bits", INDPTR, "boundaries kept in 8 bits", boundaries(lambda starts, N: np.append(starts, N).astype(np.uint8))),
    Fault("tail_not_counted", INDPTR, "values beyond the last whole vector of four are not counted", boundaries(lambda starts, N: np.append(starts, N // 4 * 4))),
    # --- values
    Fault("unstable_bitonic", GROUPS, "values of a group in the order of a bitonic sort, which is not stable", order(bitonic)),
    Fault("groups_reversed", GROUPS, "values of a group last first, as linked lists give them",
          order(lambda keys: np.lexsort((-np.arange(len(keys)), keys)))),
    Fault("values_not_moved", GROUPS, "keys are sorted, values are not", values(lambda values, order: values)),
    Fault("groups_are_positions", GROUPS, "positions instead of values", values(lambda values, order: order)),
    Fault("values_scattered", GROUPS, "values scattered to the order instead of gathered by it", values(lambda values, order: values[np.argsort(order)])),
    Fault("values_in_float32", GROUPS, "values kept in float32", values(lambda values, order: values[order].astype(np.float32).astype(np.int64))),
    # --- what is accepted
    Fault("lengths_accepted", REFUSED, "keys and values of different lengths are grouped", accepting("but")),
    Fault("rank_accepted", REFUSED, "keys of rank 2 are flattened", accepting("rank")),
    Fault("floats_accepted", REFUSED, "keys that are not integers are truncated", accepting("integers")),
)  # fmt: skip
