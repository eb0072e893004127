"""Correct ways to group by an integer key that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import torch

from karat.faults import Formulation, wrap

Array = Any


def whole(formula: Callable[[Array, Array], tuple[Array, Array, Array]]) -> Callable[[Any], None]:
    """Return a change to the whole: `formula(keys, values)` gives keys, boundaries and groups."""

    def change(plain: Any) -> None:
        checked = plain.checked

        def group_by_int(keys: Array, values: Array) -> dict[str, Array]:
            found = formula(*checked(keys, values))
            return dict(zip(("keys", "indptr", "groups"), found, strict=True))

        plain.group_by_int = group_by_int

    return change


def counted(counts: Array) -> Array:
    """Return the boundaries of groups of so many values."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def by_dictionary(keys: Array, values: Array) -> tuple[Array, Array, Array]:
    """Collect lists in a dictionary and sort its keys."""
    groups: dict[int, list[int]] = {}
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        groups.setdefault(key, []).append(value)
    distinct = sorted(groups)
    flat = [value for key in distinct for value in groups[key]]
    return np.array(distinct, np.int64), counted([len(groups[key]) for key in distinct]), np.array(flat, np.int64)


def by_bincount(keys: Array, values: Array) -> tuple[Array, Array, Array]:
    """Count numpy.unique's numbers of the keys, and let each value take the next place of its group."""
    distinct, number = np.unique(keys, return_inverse=True)  # (G,), (N,)
    indptr = counted(np.bincount(number, minlength=len(distinct)))
    groups, following = np.empty_like(values), indptr[:-1].copy()
    for group, value in zip(number, values, strict=True):
        groups[following[group]] = value
        following[group] += 1
    return distinct, indptr, groups


def by_add_at(keys: Array, values: Array) -> tuple[Array, Array, Array]:
    """Count with numpy.add.at; sort pairs of key and position, which makes any sort stable."""
    distinct, number = np.unique(keys, return_inverse=True)
    counts = np.zeros(len(distinct), np.int64)
    np.add.at(counts, number, 1)
    pairs = sorted(zip(number.tolist(), range(len(keys)), strict=True))
    return distinct, counted(counts), values[np.array([position for _, position in pairs], np.int64)]


def by_torch(keys: Array, values: Array) -> tuple[Array, Array, Array]:
    """Sort in torch and take runs of equal keys; counts by torch.bincount."""
    found, order = torch.sort(torch.from_numpy(keys.copy()), stable=True)
    distinct, number = torch.unique_consecutive(found, return_inverse=True)
    counts = torch.bincount(number, minlength=len(distinct))
    return distinct.numpy(), counted(counts.numpy()), torch.from_numpy(values.copy())[order].numpy()


def by_scatter_add(keys: Array, values: Array) -> tuple[Array, Array, Array]:
    """Count with torch.scatter_add; boundaries from searchsorted."""
    distinct, number = torch.unique(torch.from_numpy(keys.copy()), return_inverse=True)
    counts = torch.zeros(len(distinct), dtype=torch.int64).scatter_add(0, number, torch.ones_like(number))
    order = np.lexsort((np.arange(len(keys)), keys))
    indptr = np.append(np.searchsorted(keys[order], distinct.numpy(), side="left"), int(counts.sum()))
    return distinct.numpy(), indptr, values[order]


def by_sparse_matrix(keys: Array, values: Array) -> tuple[Array, Array, Array]:
    """Build SciPy's compressed rows of a matrix whose columns are positions."""
    distinct, number = np.unique(keys, return_inverse=True)
    shape = (len(distinct), len(keys))
    rows = scipy.sparse.coo_matrix((np.ones(len(keys)), (number, np.arange(len(keys)))), shape=shape).tocsr()
    rows.sort_indices()
    return distinct, rows.indptr, values[rows.indices]


def radix(keys: Array) -> Array:
    """Sort digit by digit, the last first, each by counting; the sign bit is flipped."""
    bits = keys.view(np.uint64) ^ np.uint64(1 << 63)
    order = np.arange(len(keys))
    for shift in range(0, 64, 8):
        digits = (bits[order] >> np.uint64(shift)).astype(np.uint8)
        order = order[np.concatenate([np.flatnonzero(digits == digit) for digit in range(256)])]
    return order


FORMULATIONS = (
    Formulation("dictionary", "lists in a dictionary", whole(by_dictionary)),
    Formulation("bincount", "numpy.bincount, then the next free place of a group", whole(by_bincount)),
    Formulation("add_at", "numpy.add.at, pairs of key and position sorted", whole(by_add_at)),
    Formulation("torch_sort", "torch.sort, unique_consecutive and bincount", whole(by_torch)),
    Formulation("scatter_add", "torch.scatter_add, boundaries by searchsorted", whole(by_scatter_add)),
    Formulation("sparse_matrix", "scipy.sparse: compressed rows of positions", whole(by_sparse_matrix)),
    Formulation("radix_sort", "a radix sort of bytes", wrap(stable_order=lambda _: radix)),
)  # fmt: skip
