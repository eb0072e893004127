"""Grouping by an integer key in plain NumPy: the definition, to read and to copy.

Compressed sparse rows as in Tinney and Walker (1967), by one stable sort. N pairs, G distinct keys.
"""

import numpy as np


def group_by_int(keys, values):
    """Group `values` (N,) by `keys` (N,): distinct keys ascending, boundaries, values in the order they came in."""
    keys, values = checked(keys, values)
    order = stable_order(keys)  # (N,)
    sorted_keys = keys[order]  # (N,)
    starts = group_starts(sorted_keys)  # (G,)
    return {
        "keys": sorted_keys[starts],  # (G,)
        "indptr": boundaries(starts, len(keys)),  # (G + 1,)
        "groups": gathered(values, order),  # (N,)
    }


def stable_order(keys):
    """Return the positions of the keys in ascending order, equal ones as they came, (N,)."""
    return np.argsort(keys, kind="stable")


def group_starts(sorted_keys):
    """Return where in ascending keys (N,) another one begins, (G,)."""
    N = len(sorted_keys)
    begins = np.ones(N, bool)  # (N,)
    begins[1:] = sorted_keys[1:] != sorted_keys[:-1]
    return np.flatnonzero(begins)


def boundaries(starts, N):
    """Return the starts of the groups (G,) and the end of the last, (G + 1,)."""
    return np.append(starts, N)


def gathered(values, order):
    """Return the values at the positions `order`, (N,)."""
    return values[order]


def checked(keys, values):
    """Return both as arrays; raise `ValueError` for what cannot be grouped."""
    keys, values = np.asarray(keys), np.asarray(values)
    if keys.ndim != 1 or values.ndim != 1:
        raise ValueError(f"keys and values must be of rank 1, got shapes {keys.shape} and {values.shape}")
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} keys, but {len(values)} values")
    if keys.dtype.kind not in "iu":
        raise ValueError(f"keys must be integers, got {keys.dtype}")
    return keys, values
