"""The reference of the suite `k_nearest`: distances in torch, chosen by exact squares. n points, q queries.

Squared distances are exact in float64 for all inputs of the suite: differences of 25 bits, squares of 50, sums of 53.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]


def k_nearest(points: torch.Tensor, queries: torch.Tensor, *, k: int) -> dict[str, torch.Tensor]:
    """Return the checkpoints of a case."""
    all_distances = (queries[:, None] - points).square().sum(-1).sqrt()  # (q, n)
    squares = np.square(queries.numpy()[:, None] - points.numpy()).sum(-1)  # (q, n), which no noise reaches
    indices = torch.from_numpy(np.argsort(squares, axis=1, kind="stable")[:, :k].copy())  # (q, k)
    return {"all_distances": all_distances, "indices": indices, "distances": all_distances.gather(1, indices)}


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def by_fractions(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """Return the indices, and those of rational arithmetic, for the first queries of small cases."""
    if given["points"].size > 500 or not len(given["queries"]):
        return None
    points = [[Fraction(x) for x in point] for point in given["points"].tolist()]
    wanted = []
    for query in given["queries"].tolist()[:4]:
        keys = [
            (sum((Fraction(x) - y) ** 2 for x, y in zip(query, point, strict=True)), i)
            for i, point in enumerate(points)
        ]
        wanted.append([i for _, i in sorted(keys)[: given["k"]]])
    return golden["indices"][: len(wanted)], np.array(wanted)


def by_tree(given: Mapping[str, Any], golden: Mapping[str, Array]) -> tuple[Array, ...] | None:
    """Return the distances, those of SciPy's k-d tree, and how far they may be apart."""
    if not len(given["queries"]):
        return None
    distances, _ = cKDTree(given["points"]).query(given["queries"], k=range(1, given["k"] + 1))
    return golden["distances"], distances, 4e-16 * distances


RELATIONS = {
    "indices are those of rational arithmetic, ties by index": by_fractions,
    "distances are those of SciPy's k-d tree, to 4e-16": by_tree,
    "all distances are SciPy's cdist, to 4e-16": lambda given, golden: (
        golden["all_distances"],
        cdist(given["queries"], given["points"]),
        4e-16 * golden["all_distances"],
    ),
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, k_nearest, RELATIONS, versions=("torch", "scipy")
)
