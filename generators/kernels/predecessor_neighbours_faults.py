"""Mistakes that people make with nearest predecessors, planted in the plain candidate. NumPy only.

R19 and others of what is known of covertreex are marked by their numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
INDICES, DISTANCES, REFUSED = ("indices",), ("distances",), ("refused",)

accepts = beside(__file__, "_refusals").accepts


def allowed(formula: Callable[[int, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the points among which neighbours are: `formula(i, node_to_dataset)`, dataset indices."""
    return wrap(predecessors=lambda _: formula)


def ranked(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to what neighbours are chosen by: `formula(points)`, (n, n), instead of distances."""

    def change(plain: Any) -> None:
        known: dict[str, Any] = {}
        all_distances, predecessors, nearest = plain.all_distances, plain.predecessors, plain.nearest

        def noted(points: Array) -> Array:
            known["ranks"] = formula(points)
            return all_distances(points)

        def numbered(i: int, node_to_dataset: Array) -> Array:
            known["i"] = i
            return predecessors(i, node_to_dataset)

        plain.all_distances, plain.predecessors = noted, numbered
        plain.nearest = lambda distances, allowed, k: nearest(known["ranks"][known["i"]], allowed, k)

    return change


def chosen(formula: Callable[[Array, Array, int], Array]) -> Callable[[Any], None]:
    """Return a change to the choice: `formula(distances, allowed, k)`."""
    return wrap(nearest=lambda _: formula)


def returned(formula: Callable[[Array, Array], tuple[Array, ...]]) -> Callable[[Any], None]:
    """Return a change to what is returned: `formula(indices, distances)`."""
    return wrap(padded=lambda _: lambda *found: dict(zip(("indices", "distances"), formula(*found), strict=True)))


def with_nodes(formula: Callable[[dict[str, Array], Array], dict[str, Array]]) -> Callable[[Any], None]:
    """Return a change to what is returned: `formula(outputs, node_to_dataset)`."""

    def wrong(right: Any) -> Any:
        def predecessor_neighbours(points: Array, node_to_dataset: Array, *, k: int) -> dict[str, Array]:
            return formula(right(points, node_to_dataset, k=k), node_to_dataset)

        return predecessor_neighbours

    return wrap(predecessor_neighbours=wrong)


def fill(indices: Array, distances: Array, index: Any, distance: Any) -> tuple[Array, Array]:
    """Pad with other numbers; None leaves the right ones."""
    missing = indices < 0
    return (
        indices if index is None else np.where(missing, index, indices),
        distances if distance is None else np.where(missing, distances.dtype.type(distance), distances),
    )


def differences(points: Array) -> Array:
    """Return differences of coordinates, (n, n, d)."""
    return points[:, None] - points


def expanded(points: Array) -> Array:
    """Return distances by |x|^2 + |y|^2 - 2 x.y in float32."""
    x = points.astype(np.float32)
    squares = np.square(x).sum(-1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * (x @ x.T), 0))


def searched_before_filtered(right: Any) -> Any:
    """Look for the k nearest of all points, then leave out those that are not before."""

    def nearest(distances: Array, before: Array, k: int) -> Array:
        order = np.argsort(distances, kind="stable")[:k]
        return order[np.isin(order, before)]

    return lambda distances, before, k: nearest(distances, before, k) if len(before) else right(distances, before, k)


def accepting(part: str) -> Callable[[Any], None]:
    """Return a change that answers what the right candidate refuses with a text that has `part` in it."""

    def change(plain: Any) -> None:
        accepts(part, check="check")(plain)
        whole = plain.predecessor_neighbours

        def lenient(points: Array, node_to_dataset: Array, *, k: int) -> dict[str, Array]:
            plain.check(points, node_to_dataset, k)
            n = min(len(points), len(node_to_dataset))
            nodes = np.argsort(np.argsort(node_to_dataset[:n], kind="stable"))
            return whole(np.atleast_2d(points.T).T[:n], nodes, k=max(k, 0))

        plain.predecessor_neighbours = lenient

    return change


FAULTS = (
    # --- among which points
    Fault("constraint_ignored", INDICES, "all points but itself are searched, later ones too",  # R19, 0.4.3
          allowed(lambda i, nodes: np.delete(np.arange(len(nodes)), i))),
    Fault("constraint_ignored_with_itself", INDICES, "all points are searched, itself too", allowed(lambda i, nodes: np.arange(len(nodes)))),
    Fault("itself_allowed", INDICES, "j <= i instead of j < i: each point finds itself", allowed(lambda i, nodes: np.arange(i + 1))),
    Fault("last_before_left_out", INDICES, "j < i - 1 instead of j < i", allowed(lambda i, nodes: np.arange(max(i - 1, 0)))),
    Fault("first_left_out", INDICES, "0 < j < i: the first point is no neighbour", allowed(lambda i, nodes: np.arange(1, max(i, 1)))),
    Fault("later_points", INDICES, "j > i instead of j < i", allowed(lambda i, nodes: np.arange(i + 1, len(nodes)))),
    Fault("constraint_on_nodes", INDICES, "nodes before the point's node instead of indices before its index",  # R19, R20
          allowed(lambda i, nodes: np.sort(nodes[: int(np.argsort(nodes)[i])]))),
    Fault("filtered_after_search", INDICES, "the k nearest of all points, less the later ones: too few",  # R19, 0.4.2
          wrap(nearest=searched_before_filtered)),
    Fault("first_root_only", INDICES, "of trees with several roots, only the points below the first are found",  # R19, 0.4.3
          allowed(lambda i, nodes: np.arange(0, i, 4))),
    Fault("window_of_16", INDICES, "only the 16 points before are searched", allowed(lambda i, nodes: np.arange(max(i - 16, 0), i))),
    Fault("whole_blocks_of_32", INDICES, "only blocks of 32 points that are whole before the point's are searched", allowed(lambda i, nodes: np.arange(i // 32 * 32))),
    # --- numbers
    Fault("nodes_returned", INDICES, "nodes instead of dataset indices",  # R20
          with_nodes(lambda rows, nodes: rows | {"indices": np.where(rows["indices"] < 0, -1, np.argsort(nodes)[rows["indices"]])})),
    Fault("mapping_inverted", INDICES, "node_to_dataset taken as dataset_to_node", wrap(in_dataset_order=lambda _: lambda points, nodes: points[nodes])),
    Fault("mapping_ignored", INDICES, "points taken in the order of nodes", wrap(in_dataset_order=lambda _: lambda points, nodes: points)),
    Fault("rows_by_node", INDICES, "row a is of node a, not of dataset index a", with_nodes(lambda rows, nodes: {name: array[nodes] for name, array in rows.items()})),
    Fault("indices_from_one", INDICES, "points counted from one", returned(lambda indices, distances: (indices + (indices >= 0), distances))),
    # --- the choice
    Fault("ties_to_larger_index", INDICES, "of points at the same distance, larger indices first",
          chosen(lambda distances, before, k: before[np.lexsort((-before, distances[before]))][:k])),
    Fault("ties_by_node", INDICES, "of points at the same distance, smaller nodes first",
          wrap(predecessors=lambda right: lambda i, nodes: nodes[nodes < i])),
    Fault("ties_within_1e-12", INDICES, "distances within 1e-12 of each other are one", chosen(lambda distances, before, k: before[np.argsort(np.round(distances[before].astype(float) * 1e12), kind="stable")][:k])),
    Fault("farthest", INDICES, "the farthest points before", chosen(lambda distances, before, k: before[np.argsort(-distances[before], kind="stable")][:k])),
    Fault("last_k", INDICES, "the last k points before, near or not", chosen(lambda distances, before, k: before[::-1][:k])),
    Fault("not_sorted", INDICES, "the k nearest in the order of their indices", wrap(nearest=lambda right: lambda *row: np.sort(right(*row)))),
    Fault("k_minus_1", INDICES, "one neighbour too few", wrap(nearest=lambda right: lambda distances, before, k: right(distances, before, k - 1))),
    Fault("four_neighbours", INDICES, "rows of four, whatever k says", returned(lambda indices, distances: (indices[:, :4], distances[:, :4]))),  # R19, 0.4.0
    Fault("distance_of_indices", INDICES, "chosen by the distance of the indices: Euclid on the index payload",  # R21
          ranked(lambda x: np.abs(np.arange(len(x))[:, None] - np.arange(len(x))))),
    Fault("distance_l1", INDICES, "chosen by sums of |differences|", ranked(lambda x: np.abs(differences(x)).sum(-1))),
    Fault("distance_expanded", INDICES, "chosen by |x|^2 + |y|^2 - 2 x.y in float32, which cancels", ranked(expanded)),  # R9
    Fault("first_three_coordinates", INDICES, "chosen without the coordinates beyond the third", ranked(lambda x: np.square(differences(x)[..., :3]).sum(-1))),
    # --- padding
    Fault("padded_with_0", INDICES, "0 instead of -1 where there is no neighbour", returned(lambda indices, distances: fill(indices, distances, 0, None))),
    Fault("padded_with_n", INDICES, "n instead of -1 where there is no neighbour", returned(lambda indices, distances: fill(indices, distances, len(indices), None))),
    Fault("padded_with_itself", INDICES, "the point itself instead of -1", returned(lambda indices, distances: fill(indices, distances, np.arange(len(indices))[:, None], None))),
    Fault("padded_with_the_nearest", INDICES, "the nearest point again instead of -1", returned(lambda indices, distances: fill(indices, distances, indices[:, :1], None))),
    Fault("padded_in_front", INDICES, "-1 in front of the neighbours", returned(lambda indices, distances: tuple(np.take_along_axis(x, np.argsort(indices >= 0, axis=1, kind="stable"), 1) for x in (indices, distances)))),
    Fault("first_row_left_out", INDICES, "no row for the first point", returned(lambda indices, distances: (indices[1:], distances[1:]))),
    Fault("distance_padded_with_0", DISTANCES, "distance 0 instead of +inf", returned(lambda indices, distances: fill(indices, distances, None, 0))),
    Fault("distance_padded_with_nan", DISTANCES, "NaN instead of +inf", returned(lambda indices, distances: fill(indices, distances, None, np.nan))),
    Fault("distance_padded_with_-1", DISTANCES, "distance -1 instead of +inf", returned(lambda indices, distances: fill(indices, distances, None, -1))),
    Fault("distance_padded_with_the_largest", DISTANCES, "the largest number instead of +inf", returned(lambda indices, distances: fill(indices, distances, None, np.finfo(distances.dtype).max))),
    # --- distances
    Fault("squares_returned", DISTANCES, "squared distances", returned(lambda indices, distances: (indices, np.square(distances)))),  # R17
    Fault("distance_in_float16", DISTANCES, "distances in float16", returned(lambda indices, distances: (indices, distances.astype(np.float16).astype(distances.dtype)))),
    # --- what is accepted
    Fault("k_not_positive_accepted", REFUSED, "k of 0 gives rows of nothing", accepting("positive")),
    Fault("k_beyond_n_accepted", REFUSED, "k above n is padded", accepting("exceed")),
    Fault("lengths_accepted", REFUSED, "as many points as both have are taken", accepting("numbers")),
    Fault("mapping_accepted", REFUSED, "what is no permutation is ranked", accepting("permutation")),
    Fault("rank_accepted", REFUSED, "points of rank 1 are taken as one coordinate", accepting("rank")),
    Fault("not_finite_accepted", REFUSED, "coordinates that are not finite are farthest from all", accepting("finite")),
)  # fmt: skip
