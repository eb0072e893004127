"""Correct ways to sort points into voxels that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import ndimage, sparse
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]


def counts(formula: Callable[[Array, int], Array]) -> Change:
    """Return a change to the counts: `formula(voxel, V)` of one cloud's points that are inside, (V,)."""

    def counted(voxel: Array, grid: Any) -> Array:
        volume = int(np.prod(grid))
        rows = [np.asarray(formula(row[row >= 0], volume)) for row in voxel]
        return np.array(rows).reshape(len(voxel), volume).astype(np.int64)

    return wrap(counted=lambda _: counted)


def sums(formula: Callable[[Array, Array, int], Array]) -> Change:
    """Return a change to the sums: `formula(features, voxel, V)` of one cloud's points that are inside, (V, F)."""

    def summed(features: Array, voxel: Array, volume: int) -> Array:
        rows = [formula(f[v >= 0], v[v >= 0], volume) for f, v in zip(features, voxel, strict=True)]
        return np.array(rows).astype(features.dtype)

    return wrap(summed=lambda _: summed)


def largest(formula: Callable[[Array, Array, int], Array]) -> Change:
    """Return a change to the maxima: `formula(features, voxel, V)` of one cloud, whatever it says of empty voxels."""

    def maxima(features: Array, voxel: Array, count: Array) -> Array:
        rows = [formula(f[v >= 0], v[v >= 0], count.shape[1]) for f, v in zip(features, voxel, strict=True)]
        return np.where(count[..., None] > 0, np.array(rows), 0).astype(features.dtype)

    return wrap(maxima=lambda _: maxima)


def together(*changes: Change) -> Change:
    """Return all of the changes as one."""

    def change(plain: Any) -> None:
        for one in changes:
            one(plain)

    return change


# --- in order of the voxels ------------------------------------------------------------------------------------------


def runs(voxel: Array) -> tuple[Array, Array, Array]:
    """Return the order that sorts the points by voxel, where each voxel's run begins, and which voxel that is."""
    order = np.argsort(voxel, kind="stable")
    which, first = np.unique(voxel[order], return_index=True)
    return order, first, which


def reduced(by: Any) -> Callable[[Array, Array, int], Array]:
    """Return what `by.reduceat` makes of the sorted points."""

    def formula(features: Array, voxel: Array, volume: int) -> Array:
        found = np.zeros((volume, features.shape[1]), features.dtype)
        order, first, which = runs(voxel)
        if which.size:
            found[which] = by.reduceat(features[order], first, axis=0)
        return found

    return formula


def sorted_counts(voxel: Array, volume: int) -> Array:
    """Return the lengths of the runs."""
    found = np.zeros(volume, np.int64)
    _, first, which = runs(voxel)
    found[which] = np.diff(np.append(first, voxel.size))
    return found


# --- by hash ---------------------------------------------------------------------------------------------------------


def hashed_counts(voxel: Array, volume: int) -> Array:
    """Return the counts of a dictionary."""
    table: dict[int, int] = {}
    for v in voxel.tolist():
        table[v] = table.get(v, 0) + 1
    return [table.get(v, 0) for v in range(volume)]


def hashed(reduce: Callable[[Array], Array]) -> Callable[[Array, Array, int], Array]:
    """Return what `reduce` makes of the points that a dictionary holds for each voxel, the last first."""

    def formula(features: Array, voxel: Array, volume: int) -> Array:
        table: dict[int, list[Array]] = {}
        for v, values in zip(voxel.tolist(), features, strict=True):
            table.setdefault(v, []).insert(0, values)
        found = np.zeros((volume, features.shape[1]), features.dtype)
        for v, members in table.items():
            found[v] = reduce(np.array(members))
        return found

    return formula


# --- by libraries ----------------------------------------------------------------------------------------------------


def torch_scatter(reduce: str) -> Callable[[Array, Array, int], Array]:
    """Return what torch's scatter_reduce makes of the points."""

    def formula(features: Array, voxel: Array, volume: int) -> Array:
        found = torch.zeros((volume, features.shape[1]), dtype=torch.from_numpy(features).dtype)
        where = torch.from_numpy(voxel)[:, None].expand(*features.shape)
        return found.scatter_reduce(0, where, torch.from_numpy(features), reduce, include_self=False).numpy()

    return formula


def torch_scatter_add(features: Array, voxel: Array, volume: int) -> Array:
    """Return torch's scatter_add."""
    where = torch.from_numpy(voxel)[:, None].expand(*features.shape)
    return torch.zeros((volume, features.shape[1]), dtype=torch.from_numpy(features).dtype).scatter_add(
        0, where, torch.from_numpy(features)
    ).numpy()  # fmt: skip


def weighed(features: Array, voxel: Array, volume: int) -> Array:
    """Return numpy.bincount with each channel as weights, which adds in float64."""
    columns = [np.bincount(voxel, column.astype(np.float64), volume) for column in features.T]
    return np.stack(columns, -1)


def by_product(features: Array, voxel: Array, volume: int) -> Array:
    """Return the product of a sparse matrix of ones with the features."""
    ones = np.ones(voxel.size, features.dtype)
    if not np.isfinite(features).all():
        return weighed(features, voxel, volume)
    return sparse.csr_array((ones, (voxel, np.arange(voxel.size))), shape=(volume, voxel.size)) @ features


def by_histogram(voxel: Array, volume: int) -> Array:
    """Return a histogram with an edge between any two voxels."""
    return np.histogram(voxel, np.arange(volume + 1) - 0.5)[0]


def by_labels(features: Array, voxel: Array, volume: int) -> Array:
    """Return the maxima of scipy.ndimage's labels, whose weakness are NaN and infinities."""
    if not np.isfinite(features).all():
        return reduced(np.maximum)(features, voxel, volume)
    return np.stack([ndimage.maximum(column, voxel, np.arange(volume)) for column in features.T], -1)


def times_reciprocal(plain: Any) -> None:
    """Multiply the sums by 1 / count."""

    def averaged(features: Array, voxel: Array, count: Array) -> Array:
        total = plain.summed(features, voxel, count.shape[1])
        return total * (total.dtype.type(1) / np.maximum(count, 1)[..., None].astype(total.dtype))

    plain.averaged = averaged


def running(plain: Any) -> None:
    """Update the mean point by point: mean += (feature - mean) / n."""

    def averaged(features: Array, voxel: Array, count: Array) -> Array:
        found = np.zeros((*count.shape, features.shape[2]), np.float64)
        seen = np.zeros(count.shape, np.int64)
        total = plain.summed(features, voxel, count.shape[1])
        for b, n in zip(*np.nonzero(voxel >= 0), strict=True):
            v = voxel[b, n]
            seen[b, v] += 1
            found[b, v] += (features[b, n] - found[b, v]) / seen[b, v]
        return np.where(np.isfinite(total), found, total).astype(features.dtype)

    plain.averaged = averaged


# --- the index -------------------------------------------------------------------------------------------------------


def floor_divided(points: Array, origin: Array, voxel_size: Array) -> Array:
    """Return the floor of torch's division, rounding_mode floor left aside, for that takes the remainder."""
    return torch.floor(torch.from_numpy(points - origin) / float(voxel_size)).numpy()


def by_strides(index: Array, grid: Any) -> Array:
    """Return the number of a voxel as the product of indices and strides."""
    return index @ np.array([grid[1] * grid[2], grid[2], 1])


# --- distances -------------------------------------------------------------------------------------------------------


def distance_fields(formula: Callable[[Array, Array, Array | None, float], tuple[Array, Array]]) -> Change:
    """Return a change to the mode `tsdf`: `formula(points, centres, normals, truncation)` of a cloud's finite points.

    It gives weight and value in float64, (V,) each.
    """

    def change(plain: Any) -> None:
        def tsdf(points: Array, normals: Array, centre: Array, truncation: float, grid: Any) -> dict[str, Array]:
            weights, values = [], []
            for b, cloud in enumerate(points.astype(np.float64)):
                kept = np.isfinite(cloud).all(-1)
                facing = None if normals is None else normals[b][kept].astype(np.float64)
                weight, value = formula(cloud[kept], centre.astype(np.float64), facing, truncation)
                weights.append(weight)
                values.append(value)
            fields = plain.to_storage(np.array(values).astype(plain.wide(points).dtype), points)
            return {"weight": plain.on_grid(np.array(weights), grid), "tsdf": plain.on_grid(fields, grid)}

        plain.tsdf = tsdf

    return change


def sides(centre: Array, points: Array, normals: Array | None) -> Array:
    """Return -1 behind the surface of a point, else 1, (V, N)."""
    if normals is None:
        return np.ones((len(centre), len(points)))
    return np.where(np.einsum("vni,ni->vn", centre[:, None] - points, normals) < 0, -1.0, 1.0)


def by_cdist(points: Array, centre: Array, normals: Array | None, truncation: float) -> tuple[Array, Array]:
    """Measure with scipy.spatial.distance.cdist; the nearest by sorting, in front before behind."""
    apart, side = cdist(centre, points), sides(centre, points, normals)
    nearest = np.lexsort((-side, apart))[:, :1]  # (V, 1)
    near = apart < truncation
    value = (np.take_along_axis(side, nearest, 1) * np.take_along_axis(apart, nearest, 1))[:, 0] / truncation
    return near.sum(-1), np.where(near.any(-1), value, 1)


def by_tree(points: Array, centre: Array, normals: Array | None, truncation: float) -> tuple[Array, Array]:
    """Look for the points near each centre in scipy.spatial.KDTree."""
    tree, side = KDTree(points), sides(centre, points, normals)
    weight, value = np.zeros(len(centre), np.int64), np.ones(len(centre))
    for v, members in enumerate(tree.query_ball_point(centre, truncation)):
        found = [(float(np.linalg.norm(centre[v] - points[n])), -side[v, n]) for n in members]
        inner = [pair for pair in found if pair[0] < truncation]
        weight[v] = len(inner)
        if inner:
            apart, sign = min(inner)
            value[v] = -sign * apart / truncation
    return weight, value


def point_by_point(points: Array, centre: Array, normals: Array | None, truncation: float) -> tuple[Array, Array]:
    """Fuse one point after the other, the last first: the smaller magnitude wins, and the positive of equal ones."""
    weight, value = np.zeros(len(centre), np.int64), np.full(len(centre), np.inf)
    for n in range(len(points))[::-1]:
        apart = np.sqrt(np.square(centre - points[n]).sum(-1))
        new = sides(centre, points[n : n + 1], None if normals is None else normals[n : n + 1])[:, 0] * apart
        near = apart < truncation
        wins = near & ((apart < np.abs(value)) | ((apart == np.abs(value)) & (new > value)))
        weight, value = weight + near, np.where(wins, new, value)
    return weight, np.where(weight > 0, value / truncation, 1)


def reversed_order(plain: Any) -> None:
    """Read the points from the last to the first."""
    right = plain.voxelize

    def voxelize(points: Array, features: Any = None, normals: Any = None, **params: Any) -> Any:
        backwards = [None if a is None else a[:, ::-1] if a.ndim == 3 else a for a in (points, features, normals)]
        found = right(*backwards, **params)
        return found | ({"voxel": found["voxel"][:, ::-1]} if "voxel" in found else {})

    plain.voxelize = voxelize


def by_torch_ends(plain: Any) -> None:
    """Take the bounds with torch.aminmax of the finite points of each cloud."""

    def bounds(points: Array) -> Array:
        found = np.empty((len(points), 2, 3), points.dtype)
        found[:, 0], found[:, 1] = np.inf, -np.inf
        for row, cloud in zip(found, plain.wide(points), strict=True):
            kept = torch.from_numpy(cloud[np.isfinite(cloud).all(-1)])
            if len(kept):
                row[:] = np.stack([end.numpy() for end in torch.aminmax(kept, dim=0)])
        return found

    plain.bounds = bounds


FORMULATIONS = (
    Formulation("bincount", "numpy.bincount, for the sums with weights", together(
        counts(lambda v, volume: np.bincount(v, minlength=volume)), sums(weighed))),
    Formulation("torch_bincount_scatter", "torch.bincount, scatter_add and scatter_reduce", together(
        counts(lambda v, volume: torch.bincount(torch.from_numpy(v), minlength=volume).numpy()),
        sums(torch_scatter_add), largest(torch_scatter("amax")))),
    Formulation("torch_scatter_reduce", "torch's scatter_reduce, sum", sums(torch_scatter("sum"))),
    Formulation("sorted", "points sorted by voxel, runs reduced with reduceat", together(
        counts(sorted_counts), sums(reduced(np.add)), largest(reduced(np.maximum)))),
    Formulation("hashed", "a dictionary of voxels, points in another order", together(
        counts(hashed_counts), sums(hashed(lambda m: m.sum(0))), largest(hashed(lambda m: m.max(0))))),
    Formulation("sparse_product", "a sparse matrix times the features; a histogram", together(
        counts(by_histogram), sums(by_product))),
    Formulation("labels", "scipy.ndimage.maximum by label", largest(by_labels)),
    Formulation("reciprocal_of_count", "sums times 1 / count", times_reciprocal),
    Formulation("running_mean", "the mean updated point by point in float64", running),
    Formulation("torch_division", "torch's division and floor; voxels by strides",
                wrap(indices=lambda _: floor_divided, numbered=lambda _: by_strides)),
    Formulation("reversed", "points from the last to the first", reversed_order),
    Formulation("cdist", "scipy.spatial.distance.cdist in float64", distance_fields(by_cdist)),
    Formulation("tree", "scipy.spatial.KDTree in float64", distance_fields(by_tree)),
    Formulation("point_by_point", "points fused one after the other, the last first", distance_fields(point_by_point)),
    Formulation("torch_bounds", "torch.aminmax of the finite points", by_torch_ends),
)  # fmt: skip
