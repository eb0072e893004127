"""The conflict graph of a batch in plain NumPy: the definition, to read and to copy.

Points of one batch of a cover tree that may not all be inserted at once (covertreex, build_conflict_graph). m points,
d dimensions, S scope nodes, E edges.
"""

import itertools

import numpy as np


def conflict_graph(points, levels, separations, scope_indptr, scope_nodes):
    """Connect points (m, d) that share a scope node and are no farther apart than the smaller of their radii."""
    check(points, levels, separations, scope_indptr, scope_nodes)
    radii = radii_of(levels, separations)  # (m,)
    near = within(distances(points), reach(radii))  # (m, m)
    conflicts = without_self(near & sharing(scopes(scope_indptr, scope_nodes)))  # (m, m)
    indptr, indices = compressed(conflicts)
    return {"radii": radii, "indptr": indptr, "indices": indices}  # (m,), (m + 1,), (E,)


def radii_of(levels, separations):
    """Return max(2^(level + 1), separation), (m,)."""
    return np.maximum(np.ldexp(separations.dtype.type(1), levels + 1), separations)


def distances(points):
    """Return the distances of all pairs, (m, m)."""
    return np.sqrt(np.square(points[:, None, :] - points[None, :, :]).sum(-1))


def reach(radii):
    """Return how far apart two points may be to conflict, (m, m)."""
    return np.minimum(radii[:, None], radii[None, :])


def within(distance, allowed):
    """Return which pairs are near enough, (m, m)."""
    return distance <= allowed


def scopes(scope_indptr, scope_nodes):
    """Return the scope of each point."""
    return [scope_nodes[start:stop] for start, stop in itertools.pairwise(scope_indptr)]


def sharing(found):
    """Return which pairs share a node, (m, m)."""
    sets = [set(scope.tolist()) for scope in found]
    shared = np.array([[not first.isdisjoint(second) for second in sets] for first in sets], bool)
    return shared.reshape(len(sets), len(sets))


def without_self(conflicts):
    """Return the pairs without those of a point and itself, (m, m)."""
    return conflicts & ~np.eye(len(conflicts), dtype=bool)


def compressed(conflicts):
    """Return the rows of a matrix as boundaries and columns, (m + 1,), (E,)."""
    return np.cumsum([0, *conflicts.sum(1)]).astype(np.int64), np.nonzero(conflicts)[1]


def check(points, levels, separations, scope_indptr, scope_nodes):
    """Raise `ValueError` for a batch that is none."""
    m = len(points)
    if len(levels) != m or len(separations) != m or len(scope_indptr) != m + 1:
        raise ValueError(f"different numbers: {m} points, {len(levels)} levels, {len(separations)} separations")
    if scope_indptr[0] != 0 or (np.diff(scope_indptr) < 0).any() or scope_indptr[-1] != len(scope_nodes):
        raise ValueError(f"boundaries of scopes must begin at 0, not decrease, and end at {len(scope_nodes)}")
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is not finite")
    if not (separations >= 0).all():
        raise ValueError("a separation is negative")
