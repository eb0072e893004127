"""Mistakes that people make with conflict graphs, planted in the plain candidate. NumPy only.

R9 and R17 of what is known of covertreex are marked.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
RADII, INDPTR, INDICES, REFUSED = ("radii",), ("indptr",), ("indices",), ("refused",)

accepts = beside(__file__, "_refusals").accepts


def radius(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the radii: `formula(power, separations)`, power being 2^(level + 1)."""
    return wrap(
        radii_of=lambda _: (
            lambda levels, separations: formula(np.ldexp(separations.dtype.type(1), levels + 1), separations).astype(
                separations.dtype
            )
        )
    )


def distance(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the distances: `formula(points)`, (m, m)."""
    return wrap(distances=lambda _: formula)


def reach(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to how far apart two points may be: `formula` of both radii, (m, 1) and (1, m)."""
    return wrap(reach=lambda _: lambda radii: formula(radii[:, None], radii[None, :]))


def near(formula: Callable[[Array, Array], Array]) -> Callable[[Any], None]:
    """Return a change to the comparison: `formula(distance, allowed)`."""
    return wrap(within=lambda _: formula)


def scopes(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to each scope: `formula(nodes)`."""
    return wrap(scopes=lambda right: lambda *compressed: [formula(scope) for scope in right(*compressed)])


def edges(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the matrix of conflicts: `formula(conflicts)`."""
    return wrap(without_self=lambda right: lambda conflicts: formula(right(conflicts)))


def rows(formula: Callable[[Array], Array]) -> Callable[[Any], None]:
    """Return a change to the columns of each row: `formula(columns)`."""

    def wrong(_: Any) -> Any:
        def compressed(conflicts: Array) -> tuple[Array, Array]:
            found = [formula(np.flatnonzero(row)) for row in conflicts]
            return np.cumsum([0, *map(len, found)]).astype(np.int64), np.concatenate([np.zeros(0, np.int64), *found])

        return compressed

    return wrap(compressed=wrong)


def differences(points: Array) -> Array:
    """Return differences of coordinates, (m, m, d)."""
    return points[:, None, :] - points[None, :, :]


def euclidean(points: Array) -> Array:
    """Return distances, (m, m)."""
    return np.sqrt(np.square(differences(points)).sum(-1))


def expanded(points: Array) -> Array:
    """Return distances by |x|^2 + |y|^2 - 2 x.y in float32."""
    x = points.astype(np.float32)
    squares = np.square(x).sum(-1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * (x @ x.T), 0)).astype(points.dtype)


def multiplicity(plain: Any) -> None:
    """Enter an edge once for each node that is shared."""
    counts: dict[str, Array] = {}
    sharing, compressed = plain.sharing, plain.compressed

    def counted(found: list[Array]) -> Array:
        counts["shared"] = np.array(
            [[len(set(a.tolist()) & set(b.tolist())) for b in found] for a in found], int
        ).reshape(len(found), len(found))
        return sharing(found)

    def repeated(conflicts: Array) -> tuple[Array, Array]:
        _, columns = compressed(conflicts)
        times = (counts["shared"] * conflicts)[np.nonzero(conflicts)]
        return np.cumsum([0, *(counts["shared"] * conflicts).sum(1)]).astype(np.int64), np.repeat(columns, times)

    plain.sharing, plain.compressed = counted, repeated


def blocks(conflicts: Array) -> Array:
    """Keep edges of points of one block of 64."""
    block = np.arange(len(conflicts)) // 64
    return conflicts & (block[:, None] == block)


def accepting(part: str) -> Callable[[Any], None]:
    """Return a change that answers what the right candidate refuses with a text that has `part` in it."""

    def change(plain: Any) -> None:
        accepts(part, check="check")(plain)
        whole = plain.conflict_graph

        def lenient(points: Array, levels: Array, separations: Array, scope_indptr: Array, scope_nodes: Array) -> Any:
            m = min(len(points), len(levels), len(separations), len(scope_indptr) - 1)
            return whole(points[:m], levels[:m], separations[:m], scope_indptr[: m + 1], scope_nodes)

        plain.conflict_graph = lenient if part == "numbers" else whole

    return change


FAULTS = (
    # --- radii
    Fault("radius_2_to_level", RADII, "2^level instead of 2^(level + 1)", radius(lambda power, s: np.maximum(power / 2, s))),
    Fault("radius_without_separation", RADII, "2^(level + 1), whatever the separation", radius(lambda power, s: power)),
    Fault("radius_is_separation", RADII, "the separation, whatever the level", radius(lambda power, s: s)),
    Fault("radius_is_minimum", RADII, "the smaller of 2^(level + 1) and the separation", radius(np.minimum)),
    Fault("radius_is_sum", RADII, "2^(level + 1) plus the separation", radius(np.add)),
    Fault("radius_floor_1e-3", RADII, "radii of 1e-3 at least, as for residual distances", radius(lambda power, s: np.maximum(np.maximum(power, s), 1e-3))),
    Fault("level_not_negative", RADII, "negative levels taken as 0", wrap(radii_of=lambda right: lambda levels, s: right(np.maximum(levels, 0), s))),
    Fault("level_shifted_in_32_bits", RADII, "2^(level + 1) as an integer of 32 bits that is shifted",
          wrap(radii_of=lambda right: lambda levels, s: right(np.where(levels >= 0, levels, -1) % 32, s))),
    # --- the comparison
    Fault("strictly_less", INDPTR, "a distance equal to the radius does not count", near(lambda distance, allowed: distance < allowed)),
    Fault("slack_1e-9", INDPTR, "1e-9 added to the radius, as for residual distances", near(lambda distance, allowed: distance.astype(float) <= allowed + 1e-9)),
    Fault("slack_1_percent", INDPTR, "radii 1 % larger", near(lambda distance, allowed: distance <= allowed * 1.01)),
    Fault("larger_radius", INDPTR, "the larger of both radii", reach(np.maximum)),
    Fault("sum_of_radii", INDPTR, "the sum of both radii", reach(np.add)),
    Fault("own_radius", INDPTR, "each row by the radius of its own point: not symmetric", reach(lambda own, other: own + 0 * other)),
    Fault("other_radius", INDPTR, "each row by the radii of the others: not symmetric", reach(lambda own, other: other + 0 * own)),
    # --- distances
    Fault("distance_squared", INDPTR, "squared distances compared with radii", distance(lambda x: np.square(differences(x)).sum(-1))),  # R17
    Fault("distance_l1", INDPTR, "sums of |differences| instead of Euclidean distances", distance(lambda x: np.abs(differences(x)).sum(-1))),
    Fault("distance_largest", INDPTR, "the largest |difference| instead of Euclidean distances", distance(lambda x: np.abs(differences(x)).max(-1, initial=0))),
    Fault("distance_expanded", INDPTR, "|x|^2 + |y|^2 - 2 x.y in float32, which cancels", distance(expanded)),  # R9
    Fault("distance_in_float16", INDPTR, "distances in float16", distance(lambda x: euclidean(x).astype(np.float16).astype(x.dtype))),
    Fault("first_three_coordinates", INDPTR, "coordinates beyond the third are left out", distance(lambda x: euclidean(x[:, :3]))),
    Fault("last_coordinate_left_out", INDPTR, "the last coordinate is left out", distance(lambda x: euclidean(x[:, :-1]))),
    # --- scopes
    Fault("scopes_ignored", INDPTR, "points conflict whether they share a node or not", wrap(sharing=lambda _: lambda found: np.ones((len(found), len(found)), bool))),
    Fault("first_node_of_scope", INDPTR, "only the first node of each scope counts", scopes(lambda nodes: nodes[:1])),
    Fault("last_node_of_scope_lost", INDPTR, "the last node of each scope is left out", scopes(lambda nodes: nodes[:-1])),
    Fault("scopes_of_64_nodes", INDPTR, "nodes beyond the first 64 of a scope are left out", scopes(lambda nodes: nodes[:64])),
    Fault("whole_vectors_of_scope", INDPTR, "nodes beyond the last whole vector of four of a scope are left out", scopes(lambda nodes: nodes[: len(nodes) // 4 * 4])),
    Fault("scope_nodes_in_32_bits", INDPTR, "scope nodes kept in 32 bits", scopes(lambda nodes: nodes.astype(np.int32))),
    Fault("scope_nodes_modulo_8", INDPTR, "scope nodes hashed to 8 slots, collisions not resolved", scopes(lambda nodes: nodes % 8)),
    Fault("scopes_equal", INDPTR, "whole scopes must be equal",
          wrap(sharing=lambda _: lambda found: np.array([[set(a.tolist()) == set(b.tolist()) and len(a) > 0 for b in found] for a in found], bool).reshape(len(found), len(found)))),
    Fault("scopes_at_equal_place", INDPTR, "a shared node is found only where it stands at the same place of both scopes",
          wrap(sharing=lambda _: lambda found: np.array([[any(p == q for p, q in zip(a.tolist(), b.tolist(), strict=False)) for b in found] for a in found], bool).reshape(len(found), len(found)))),
    # --- edges
    Fault("self_edges", INDPTR, "a point conflicts with itself", wrap(without_self=lambda _: lambda conflicts: conflicts)),
    Fault("edges_one_way", INDPTR, "edges stand at the smaller point only", edges(np.triu)),
    Fault("edges_of_blocks", INDPTR, "edges between blocks of 64 points are lost", edges(blocks)),
    Fault("edges_once_a_node", INDPTR, "an edge stands once for each node that is shared", multiplicity),
    Fault("isolated_dropped", INDPTR, "points without neighbour have no row",
          wrap(compressed=lambda right: lambda conflicts: (right(conflicts[conflicts.any(1)])[0], right(conflicts)[1]))),
    Fault("boundaries_are_counts", INDPTR, "counts, not summed up, after the 0", wrap(compressed=lambda right: lambda conflicts: (np.diff(right(conflicts)[0], prepend=0), right(conflicts)[1]))),
    Fault("rows_descending", INDICES, "each row descends", rows(lambda columns: columns[::-1])),
    Fault("rows_as_found", INDICES, "each row in the order in which threads found it: odd points after even ones", rows(lambda columns: columns[np.argsort(columns % 2, kind="stable")])),
    Fault("points_from_one", INDICES, "points counted from one", rows(lambda columns: columns + 1)),
    # --- what is accepted
    Fault("numbers_accepted", REFUSED, "as many points as all have are taken", accepting("numbers")),
    Fault("boundaries_accepted", REFUSED, "boundaries of scopes that are none are taken as they are", accepting("boundaries")),
    Fault("not_finite_accepted", REFUSED, "coordinates that are not finite are near nothing", accepting("finite")),
    Fault("negative_accepted", REFUSED, "negative separations are taken", accepting("negative")),
)  # fmt: skip
