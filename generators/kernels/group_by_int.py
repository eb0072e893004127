"""The reference of the suite `group_by_int`: torch's unique and stable sort, on the CPU. N pairs, G distinct keys."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]


def group_by_int(keys: torch.Tensor, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the checkpoints of a case."""
    distinct, group, counts = torch.unique(keys, return_inverse=True, return_counts=True)  # (G,), (N,), (G,)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])  # (G + 1,)
    groups = values[torch.argsort(group, stable=True)]  # (N,)
    return {"keys": distinct, "indptr": indptr, "groups": groups}


# --- what must hold of the goldens -----------------------------------------------------------------------------------

PUBLISHED = {(2, 0, 2, 1, 1, 0): ((0, 1, 2), (0, 2, 4, 6), (2, 6, 4, 5, 1, 3))}
"""What covertreex documents: keys of the values 1 … 6, and the distinct keys, boundaries and groups."""


def flat(golden: dict[str, Array]) -> Array:
    """Return the three checkpoints one after the other."""
    return np.concatenate([golden["keys"], golden["indptr"], golden["groups"]])


def of_dictionary(keys: Array, values: Array) -> Array:
    """Return the three checkpoints one after the other, from lists in a Python dictionary."""
    collected: dict[int, list[int]] = {}
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        collected.setdefault(key, []).append(value)
    lists = [collected[key] for key in sorted(collected)]
    bounds = [sum(map(len, lists[:g])) for g in range(len(lists) + 1)]
    return np.array([*sorted(collected), *bounds, *(value for group in lists for value in group)])


def published(given: dict[str, Array]) -> Array | None:
    """Return the three checkpoints one after the other, where they were published."""
    found = PUBLISHED.get(tuple(given["keys"].tolist()))
    return None if found is None else np.concatenate(found)


RELATIONS = {
    "the groups are the lists of a Python dictionary": lambda given, golden: (flat(golden), of_dictionary(**given)),
    "the example is what covertreex documents": lambda given, golden: (
        None if published(given) is None else (flat(golden), published(given))
    ),
}

VERSIONS, WITNESS, NOISE_STEP, reference, _, witness, checks, known_values = operation.generator(
    __file__, group_by_int, RELATIONS
)


def perturbed(*_: Any) -> dict[str, Array]:
    """Return nothing: integers have no noise, and what computes them is not replayed."""
    return {}
