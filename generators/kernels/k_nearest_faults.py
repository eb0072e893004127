"""Mistakes that people make when they look for nearest points, planted in the plain candidate. NumPy only.

Those of what is known of covertreex are marked by their numbers, R5 to R21.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
ALL, INDICES, DISTANCES, REFUSED = ("all_distances",), ("indices",), ("distances",), ("refused",)

accepts = beside(__file__, "_refusals").accepts


def distance(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the distances: `formula(points, queries)`, (q, n)."""
    return wrap(
        all_distances=lambda _: lambda points, queries: np.asarray(formula(points, queries)).astype(points.dtype)
    )


def norm(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the distances: `formula` of differences of coordinates, (q, n, d)."""
    return distance(lambda points, queries: formula(queries[:, None] - points))


def nearest(formula: Callable[[Array, int], Array]) -> Callable[[Any], None]:
    """Return a change to the choice: `formula(distances, k)`, (q, k)."""
    return wrap(nearest=lambda _: formula)


def hidden(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to which distances the choice sees: `formula(distances)`, infinite where a point is not seen."""
    return wrap(nearest=lambda right: lambda distances, k: right(formula(distances), k))


def chosen(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the indices found, whose distances stay: `formula(indices)`."""

    def change(plain: Any) -> None:
        whole = plain.k_nearest

        def k_nearest(points: Array, queries: Array, *, k: int) -> dict[str, Array]:
            right = whole(points, queries, k=k)
            return right | {"indices": formula(right["indices"])}

        plain.k_nearest = k_nearest

    return change


def numbered(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the indices found: `formula(indices, points)`."""

    def change(plain: Any) -> None:
        whole = plain.k_nearest

        def k_nearest(points: Array, queries: Array, *, k: int) -> dict[str, Array]:
            right = whole(points, queries, k=k)
            return right | {"indices": formula(right["indices"], points)}

        plain.k_nearest = k_nearest

    return change


def euclidean(points: Array, queries: Array) -> Array:
    """Return the right distances, (q, n)."""
    return np.sqrt(np.square(queries[:, None] - points).sum(-1))


def expanded(points: Array, queries: Array, *, floor: float | None = 0.0) -> Array:
    """Return distances by |x|^2 + |y|^2 - 2 x.y in float32, squares not below `floor`; the root is the contract's."""
    x, y = points.astype(np.float32), queries.astype(np.float32)
    squares = np.square(y).sum(-1)[:, None] + np.square(x).sum(-1) - 2 * (y @ x.T)
    return np.sqrt((squares if floor is None else np.maximum(squares, np.float32(floor))).astype(points.dtype))


def within(slack: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to ties: insertion, in which the smaller index wins where distances are within `slack(distance)`."""

    def choose(distances: Array, k: int) -> Array:
        found = np.zeros((len(distances), k), np.int64)
        for row, values in enumerate(distances.astype(float)):
            order: list[int] = []
            for i, value in enumerate(values):
                place = len(order)
                while place and value < values[order[place - 1]] - slack(values[order[place - 1]]):
                    place -= 1
                order.insert(place, i)
            found[row] = order[:k]
        return found

    return nearest(choose)


def heap(distances: Array, k: int) -> Array:
    """Keep the k best on a heap by distance alone: a tie with the worst is not let in, the last out is the first."""
    order = np.argsort(distances[:, ::-1], axis=1, kind="stable")[:, :k]
    return distances.shape[1] - 1 - order


def partitioned(distances: Array, k: int) -> Array:
    """Leave the k nearest in the order of their indices, as a partition may."""
    return np.sort(np.argsort(distances, axis=1, kind="stable")[:, :k], axis=1)


def pruned(distances: Array, k: int) -> Array:
    """Skip a block of 16 points whose first point is farther than the k-th best: its radius is forgotten."""
    right = []
    for values in distances:
        seen = np.array(values)
        for start in range(0, len(values), 16):
            before = np.sort(seen[:start])
            if start >= k and values[start] > before[k - 1]:
                seen[start : start + 16] = np.inf
        right.append(np.argsort(seen, kind="stable")[:k])
    return np.array(right, np.int64).reshape(len(distances), k)


def first_seen(count: int) -> Callable[[Array], Array]:
    """See the first `count` points only."""
    return lambda distances: np.where(np.arange(distances.shape[1]) < max(count, 1), distances, np.inf)


def first_of_place(indices: Array, points: Array) -> Array:
    """Return for each point found the first one in its place, as a table of coordinates does."""
    first = [int(np.flatnonzero((points == point).all(1))[0]) for point in points]
    return np.array(first)[indices]


def tree_order(indices: Array, points: Array) -> Array:
    """Return the places of the points in a tree that is built by the first coordinate, not their indices."""
    return np.argsort(np.argsort(points[:, 0], kind="stable"))[indices]


def own_left_out(distances: Array) -> Array:
    """Do not see points at distance 0."""
    return np.where(distances == 0, np.inf, distances)


def accepting(part: str) -> Callable[[Any], None]:
    """Return a change that answers what the right candidate refuses with a text that has `part` in it."""

    def change(plain: Any) -> None:
        accepts(part, check="check")(plain)
        whole = plain.k_nearest

        def lenient(points: Array, queries: Array, *, k: int) -> dict[str, Array]:
            return whole(points, np.atleast_2d(queries), k=k)

        plain.k_nearest = lenient if part == "rank" else whole

    return change


FAULTS = (
    # --- the distance
    Fault("distance_squared", ALL, "squared distances: the root is missing", norm(lambda x: np.square(x).sum(-1))),  # R17
    Fault("distance_l1", ALL, "sums of |differences| instead of Euclidean distances", norm(lambda x: np.abs(x).sum(-1))),
    Fault("distance_largest", ALL, "the largest |difference| instead of Euclidean distances", norm(lambda x: np.abs(x).max(-1))),
    Fault("distance_of_cosine", ALL, "1 - cosine instead of Euclidean distances",
          distance(lambda x, y: 1 - (y @ x.T) / np.maximum(np.linalg.norm(y, axis=1)[:, None] * np.linalg.norm(x, axis=1), 1e-30))),
    Fault("distance_of_indices", ALL, "the distance of the numbers of query and point: Euclid on the index payload",  # R21
          distance(lambda x, y: np.abs(np.arange(len(y))[:, None] - np.arange(len(x))))),
    Fault("distance_expanded", ALL, "|x|^2 + |y|^2 - 2 x.y in float32, which cancels", distance(expanded)),  # R9, R6
    Fault("distance_not_clipped", ALL, "|x|^2 + |y|^2 - 2 x.y in float32, whose negative squares give NaN", distance(lambda x, y: expanded(x, y, floor=None))),  # R18
    Fault("distance_floor", ALL, "squared distances of 1e-12 at least", norm(lambda x: np.sqrt(np.maximum(np.square(x).sum(-1), 1e-12)))),
    Fault("distance_in_float16", ALL, "distances in float16", distance(lambda x, y: euclidean(x, y).astype(np.float16))),
    Fault("first_three_coordinates", ALL, "coordinates beyond the third are left out", norm(lambda x: np.sqrt(np.square(x[..., :3]).sum(-1)))),
    Fault("last_coordinate_left_out", ALL, "the last coordinate is left out", norm(lambda x: np.sqrt(np.square(x[..., :-1]).sum(-1)))),
    Fault("last_query_not_computed", ALL, "the last query of an odd number is not computed",
          distance(lambda x, y: euclidean(x, y) * (np.arange(len(y)) < len(y) // 2 * 2)[:, None])),
    # --- ties
    Fault("ties_to_larger_index", INDICES, "of points at the same distance, larger indices first",
          nearest(lambda distances, k: distances.shape[1] - 1 - np.argsort(distances[:, ::-1], axis=1, kind="stable")[:, :k])),
    Fault("ties_cut_by_visit", INDICES, "across the cut, whichever of equal points was visited last stays",  # R5
          nearest(lambda distances, k: np.array([row[np.lexsort((row, values[row]))] for row, values in zip(heap(distances, k), distances, strict=True)], np.int64).reshape(-1, k))),
    Fault("ties_within_1e-12", INDICES, "distances within 1e-12 of each other are one", within(lambda distance: 1e-12)),
    Fault("ties_within_1e-9", INDICES, "distances within 1e-9 of each other, relative, are one", within(lambda distance: 1e-9 * distance)),
    # --- the choice
    Fault("farthest", INDICES, "the farthest points", nearest(lambda distances, k: np.argsort(-distances, axis=1, kind="stable")[:, :k])),
    Fault("nearest_last", INDICES, "the k nearest, the farthest of them first", nearest(lambda distances, k: np.argsort(distances, axis=1, kind="stable")[:, :k][:, ::-1])),
    Fault("not_sorted", INDICES, "the k nearest in the order of their indices", nearest(partitioned)),
    Fault("second_to_k_plus_1", INDICES, "the nearest point is left out, as if it were the query",
          nearest(lambda distances, k: np.roll(np.argsort(distances, axis=1, kind="stable"), -1, axis=1)[:, :k])),
    Fault("own_point_left_out", INDICES, "points at distance 0 are left out", hidden(own_left_out)),
    Fault("last_point_left_out", INDICES, "the last point is never seen", hidden(lambda distances: first_seen(distances.shape[1] - 1)(distances))),
    Fault("whole_vectors_of_points", INDICES, "points beyond the last whole vector of four are never seen",
          hidden(lambda distances: first_seen(distances.shape[1] // 4 * 4)(distances))),
    Fault("stopped_at_96", INDICES, "the search stops after 96 points", hidden(first_seen(96))),  # R16
    Fault("buffer_of_1024", INDICES, "candidates beyond the 1024th are dropped", hidden(first_seen(1024))),  # R11
    Fault("pruned_without_radius", INDICES, "blocks are pruned by the distance of their centre, without their radius", nearest(pruned)),  # R11
    Fault("first_of_duplicates", INDICES, "of points in one place, always the first", numbered(first_of_place)),  # R13
    Fault("places_in_the_tree", INDICES, "places in the tree instead of indices", numbered(tree_order)),  # R20
    Fault("indices_from_one", INDICES, "points counted from one", chosen(lambda indices: indices + 1)),
    Fault("indices_in_8_bits", INDICES, "indices kept in 8 bits", chosen(lambda indices: indices.astype(np.uint8))),
    Fault("queries_and_ranks_exchanged", INDICES, "ranks first, then queries", chosen(np.transpose)),
    Fault("one_query_squeezed", INDICES, "the axis of one query is dropped", chosen(lambda indices: indices[0] if len(indices) == 1 else indices)),
    # --- distances of those found
    Fault("squares_returned", DISTANCES, "squared distances of the points found", wrap(found=lambda right: lambda *found: np.square(right(*found)))),  # R17
    Fault("distances_of_the_first", DISTANCES, "distances of the first k points, not of those found", wrap(found=lambda _: lambda distances, indices: distances[:, : indices.shape[1]])),
    Fault("distances_not_sorted_along", DISTANCES, "distances in the order of their indices",
          wrap(found=lambda right: lambda distances, indices: right(distances, np.sort(indices, axis=1)))),
    Fault("own_distance_lifted", DISTANCES, "1e-6 instead of distance 0", wrap(found=lambda right: lambda *found: np.maximum(right(*found), right(*found).dtype.type(1e-6)))),  # R6
    # --- what is accepted
    Fault("k_not_positive_accepted", REFUSED, "k of 0 or less gives what a slice gives", accepting("positive")),
    Fault("k_beyond_n_accepted", REFUSED, "k above n gives n points", accepting("exceed")),
    Fault("dimensions_accepted", REFUSED, "a query of one dimension is broadcast", accepting("dimensions")),
    Fault("rank_accepted", REFUSED, "queries of rank 1 are taken as one query", accepting("rank")),
    Fault("not_finite_accepted", REFUSED, "coordinates that are not finite are farthest from all", accepting("finite")),
)  # fmt: skip
