"""The reference of the suite `predecessor_neighbours`: torch, chosen by exact squares. n points, d dimensions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]


def predecessor_neighbours(points: torch.Tensor, node_to_dataset: torch.Tensor, *, k: int) -> dict[str, torch.Tensor]:
    """Return the checkpoints of a case."""
    n = len(points)
    ordered = points[torch.argsort(node_to_dataset)]  # (n, d), by dataset index
    distances = (ordered[:, None] - ordered).square().sum(-1).sqrt()  # (n, n)
    numbers = ordered.numpy()
    squares = np.square(numbers[:, None] - numbers).sum(-1)  # (n, n), exact, and no noise reaches them
    squares[np.triu_indices(n)] = np.inf  # not before
    order = np.argsort(squares, axis=1, kind="stable")[:, :k].copy()  # (n, k)
    missing = torch.from_numpy(np.isinf(np.take_along_axis(squares, order, 1)))  # (n, k)
    indices = torch.from_numpy(order)
    return {
        "indices": torch.where(missing, -1, indices),
        "distances": torch.where(missing, torch.inf, distances.gather(1, indices)),
    }


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def by_definition(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return the indices, and those of sorted Python tuples of exact integers."""
    unit = 2.0**50 if np.abs(given["points"]).max() < 1e-6 else 1.0
    points = {
        index: [int(x * unit) for x in point]
        for index, point in zip(given["node_to_dataset"].tolist(), given["points"].tolist(), strict=True)
    }
    wanted = np.full(golden["indices"].shape, -1)
    for i in range(len(points)):
        keys = [(sum((a - b) ** 2 for a, b in zip(points[i], points[j], strict=True)), j) for j in range(i)]
        row = [j for _, j in sorted(keys)[: given["k"]]]
        wanted[i, : len(row)] = row
    return golden["indices"], wanted


def by_tree(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, ...]:
    """Return the distances, those of SciPy's k-d tree of the points before each, and how far they may be apart."""
    points = given["points"][np.argsort(given["node_to_dataset"])]
    wanted = np.full(golden["distances"].shape, np.inf)
    for i in range(1, len(points)):
        wanted[i] = cKDTree(points[:i]).query(points[i], k=range(1, given["k"] + 1))[0]
    return golden["distances"], wanted, 4e-16 * np.where(np.isinf(wanted), 0, wanted)


def later(golden: Mapping[str, Array]) -> Array:
    """Return how many neighbours of each point are not before it."""
    return (golden["indices"] >= np.arange(len(golden["indices"]))[:, None]).sum(1)


RELATIONS = {
    "indices are those of sorted Python integers, ties by index": by_definition,
    "distances are those of SciPy's k-d trees of the points before, to 4e-16": by_tree,
    "point i has min(k, i) neighbours": lambda given, golden: (
        (golden["indices"] >= 0).sum(1),
        np.minimum(given["k"], np.arange(len(given["points"]))),
    ),
    "no neighbour is a later point": lambda _, golden: (later(golden), 0),
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, predecessor_neighbours, RELATIONS, versions=("torch", "scipy")
)
