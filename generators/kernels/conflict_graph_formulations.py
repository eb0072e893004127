"""Correct ways to build a conflict graph that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist, squareform

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]


def distance(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the distances: `formula(points)`, (m, m)."""
    return wrap(distances=lambda _: formula)


def sharing(formula: Callable[[list[Array]], Array]) -> Change:
    """Return a change to which scopes share a node: `formula(scopes)`, (m, m)."""
    return wrap(sharing=lambda _: formula)


def squared(plain: Any) -> None:
    """Compare squared distances with squared radii: no root."""
    plain.distances = lambda points: np.square(points[:, None] - points).sum(-1)
    plain.within = lambda distance, allowed: distance <= np.square(allowed)


def expanded(points: Array) -> Array:
    """Return distances by |x|^2 + |y|^2 - 2 x.y about the first point, whose differences are exact."""
    x = points - points[:1]
    squares = np.square(x).sum(-1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * (x @ x.T), 0))


def one_half(points: Array) -> Array:
    """Return the distances of each pair once, mirrored by SciPy, which asks for two points at least."""
    few = np.zeros((len(points), len(points)), points.dtype)
    return few if len(points) < 2 else squareform(pdist(points)).astype(points.dtype)


def in_torch(points: Array) -> Array:
    """Return torch's distances, by differences."""
    x = torch.from_numpy(points.copy())
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def by_coordinate(points: Array) -> Array:
    """Add up squares coordinate by coordinate, the last first, and scale by the largest difference before the root."""
    m, d = points.shape
    largest = max(float(np.ptp(points)), 2.0**-60) if m else 1.0
    unit = points.dtype.type(2.0 ** np.ceil(np.log2(largest)))
    total = np.zeros((m, m), points.dtype)
    for axis in range(d - 1, -1, -1):
        total += np.square((points[:, None, axis] - points[None, :, axis]) / unit)
    return np.sqrt(total) * unit


def by_tiles(points: Array) -> Array:
    """Compute the upper triangle in tiles of 32 by 32 and mirror it."""
    m = len(points)
    found = np.zeros((m, m), points.dtype)
    for i in range(0, m, 32):
        for j in range(i, m, 32):
            tile = np.sqrt(np.square(points[i : i + 32, None] - points[None, j : j + 32]).sum(-1))
            found[i : i + 32, j : j + 32] = tile
            found[j : j + 32, i : i + 32] = tile.T
    return found


def by_incidence(scopes: list[Array]) -> Array:
    """Multiply the sparse incidence of points and nodes by its transpose."""
    nodes, column = np.unique(np.concatenate([np.zeros(0, np.int64), *scopes]), return_inverse=True)
    indptr = np.cumsum([0, *map(len, scopes)])
    incidence = csr_matrix((np.ones(len(column)), column, indptr), shape=(len(scopes), max(len(nodes), 1)))
    return (incidence @ incidence.T).toarray() > 0


def by_inverted_index(scopes: list[Array]) -> Array:
    """Collect the points of each node and mark all pairs of them."""
    points: dict[int, list[int]] = {}
    for i, scope in enumerate(scopes):
        for node in scope.tolist():
            points.setdefault(node, []).append(i)
    found = np.zeros((len(scopes), len(scopes)), bool)
    for members in points.values():
        found[np.ix_(members, members)] = True
    return found


def by_merging(scopes: list[Array]) -> Array:
    """Merge sorted scopes pair by pair."""
    ordered = [np.sort(scope) for scope in scopes]
    pairs = [[len(np.intersect1d(first, second)) > 0 for second in ordered] for first in ordered]
    return np.array(pairs, bool).reshape(len(scopes), len(scopes))


def streamed(plain: Any) -> None:
    """Add each point to a k-d tree's neighbours within the larger radius, then filter edge by edge; add both ends."""

    def conflict_graph(
        points: Array, levels: Array, separations: Array, scope_indptr: Array, scope_nodes: Array
    ) -> Any:
        plain.check(points, levels, separations, scope_indptr, scope_nodes)
        radii = plain.radii_of(levels, separations)
        m = len(points)
        scopes = [set(scope.tolist()) for scope in plain.scopes(scope_indptr, scope_nodes)]
        found: list[list[int]] = [[] for _ in range(m)]
        wide = points.astype(np.float64)
        for i, j in sorted(cKDTree(wide).query_pairs(float(radii.max(initial=0)))) if m else ():
            if np.sqrt(np.square(wide[i] - wide[j]).sum()) <= min(radii[i], radii[j]) and scopes[i] & scopes[j]:
                found[i].append(j)
                found[j].append(i)
        indices = [j for row in found for j in sorted(row)]
        indptr = np.cumsum([0, *map(len, found)])
        return {"radii": radii, "indptr": indptr.astype(np.int64), "indices": np.array(indices, np.int32)}

    plain.conflict_graph = conflict_graph


def compressed_by_scipy(conflicts: Array) -> tuple[Array, Array]:
    """Compress rows with SciPy, whose integers are of 32 bits."""
    if not len(conflicts):
        return np.zeros(1, np.int32), np.zeros(0, np.int32)
    rows = csr_matrix(conflicts)
    rows.sort_indices()
    return rows.indptr, rows.indices


FORMULATIONS = (
    Formulation("squares", "squared distances and squared radii", squared),
    Formulation("cdist", "scipy.spatial.distance.cdist", distance(lambda x: cdist(x, x).astype(x.dtype))),
    Formulation("pdist", "scipy.spatial.distance.pdist, one half", distance(one_half)),
    Formulation("expanded", "|x|^2 + |y|^2 - 2 x.y about the first point", distance(expanded)),
    Formulation("torch_cdist", "torch.cdist by differences", distance(in_torch)),
    Formulation("by_coordinate", "coordinate by coordinate, scaled", distance(by_coordinate)),
    Formulation("tiles", "tiles of 32 by 32, mirrored", distance(by_tiles)),
    Formulation("incidence", "a sparse product of incidences", sharing(by_incidence)),
    Formulation("inverted_index", "the points of each node", sharing(by_inverted_index)),
    Formulation("merged", "sorted scopes merged", sharing(by_merging)),
    Formulation("streamed", "SciPy's k-d tree, edges one by one", streamed),
    Formulation("scipy_rows", "rows compressed by SciPy", wrap(compressed=lambda _: compressed_by_scipy)),
)  # fmt: skip
