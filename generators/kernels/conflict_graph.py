"""The reference of the suite `conflict_graph`: squared distances and incidence in torch, on the CPU. m points."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]


def conflict_graph(
    points: torch.Tensor,
    levels: torch.Tensor,
    separations: torch.Tensor,
    scope_indptr: torch.Tensor,
    scope_nodes: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Return the checkpoints of a case; squares and their sums are exact, so no root is needed to compare."""
    m = len(points)
    radii = torch.maximum(torch.pow(2.0, levels + 1), separations)  # (m,)
    reach = torch.minimum(radii[:, None], radii)  # (m, m)
    near = (points[:, None] - points).square().sum(-1) <= reach.square()  # (m, m)
    shared = torch.zeros(m, m, dtype=torch.bool)
    owner = torch.repeat_interleave(torch.arange(m), scope_indptr[1:] - scope_indptr[:-1])  # (S,)
    first, second = torch.nonzero(scope_nodes[:, None] == scope_nodes).T  # places of one node in two scopes
    shared[owner[first], owner[second]] = True
    row, column = torch.nonzero(near & shared & ~torch.eye(m, dtype=torch.bool)).T  # (E,), (E,)
    indptr = torch.searchsorted(row.contiguous(), torch.arange(m + 1))
    return {"radii": radii, "indptr": indptr, "indices": column}


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def adjacency(golden: Mapping[str, Array]) -> Array:
    """Return the graph as a matrix, (m, m)."""
    m = len(golden["radii"])
    matrix = np.zeros((m, m), np.int64)
    np.add.at(matrix, (np.repeat(np.arange(m), np.diff(golden["indptr"])), golden["indices"]), 1)
    return matrix


def by_tree(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """Return the graph, and the one of SciPy's k-d tree, with rows of radii, and sets of scopes."""
    points, radii, bounds = given["points"], golden["radii"], given["scope_indptr"]
    m = len(points)
    if not m:
        return None
    scopes = [set(given["scope_nodes"][bounds[i] : bounds[i + 1]].tolist()) for i in range(m)]
    matrix = np.zeros((m, m), np.int64)
    for i, found in enumerate(cKDTree(points).query_ball_point(points, radii)):
        matrix[i, [j for j in found if j != i and scopes[i] & scopes[j]]] = 1
    return adjacency(golden), matrix * matrix.T  # within both radii


def unsorted(golden: Mapping[str, Array]) -> int:
    """Return how many neighbours do not follow the one before in their row."""
    rows = np.split(golden["indices"], golden["indptr"][1:-1])
    return sum(int((np.diff(row) <= 0).sum()) for row in rows)


RELATIONS = {
    "the graph is that of SciPy's k-d tree and of Python sets": by_tree,
    "the graph is symmetric": lambda _, golden: (adjacency(golden), adjacency(golden).T),
    "each row ascends": lambda _, golden: (unsorted(golden), 0),
    "each radius is 2^(level + 1) or the separation, whichever is more": lambda given, golden: (
        golden["radii"],
        [max(2.0 ** (level + 1), s) for level, s in zip(given["levels"].tolist(), given["separations"], strict=True)],
    ),
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, conflict_graph, RELATIONS, versions=("torch", "scipy")
)
