"""Voxelization in plain NumPy: the definition, to read and to copy.

The voxel of a point is found in float32, by a division rounded to nearest; the signed distance is that of Curless and
Levoy, "A Volumetric Method for Building Complex Models from Range Images" (1996), of the nearest point. Values are
computed in float32 (float64 where the points are), and rounded once to the format of the features or the points.
B batch, N points, F features, X × Y × Z the grid, V = X Y Z.
"""

import numpy as np

MODES = ("count", "occupancy", "mean", "max", "tsdf", "bounds")


def voxelize(points, features=None, normals=None, *, mode, origin=None, voxel_size=None, grid=None, truncation=None):
    """Return the checkpoints of `mode`; the contract says what the arguments are."""
    check_mode(mode)
    check_points(points)
    if mode == "bounds":
        return {"bounds": bounds(points)}
    check_voxels(voxel_size, grid)
    if mode == "tsdf":
        check_truncation(truncation)
        check_beside(points, normals, "normals")
        return tsdf(points, normals, centres(origin, voxel_size, grid, wide(points).dtype), truncation, grid)
    voxel = voxels(points, origin, voxel_size, grid)  # (B, N)
    count = counted(voxel, grid)  # (B, V)
    if mode == "count":
        return {"voxel": voxel, "count": on_grid(count, grid)}
    if mode == "occupancy":
        return {"voxel": voxel, "occupancy": on_grid(occupied(count), grid)}
    check_features(features)
    check_beside(points, features, "features")
    if mode == "mean":
        mean = to_storage(averaged(wide(features), voxel, count), features)  # (B, V, F)
        return {"voxel": voxel, "count": on_grid(count, grid), "mean": on_grid(mean, grid)}
    largest = to_storage(maxima(wide(features), voxel, count), features)  # (B, V, F)
    return {"voxel": voxel, "max": on_grid(largest, grid)}


# --- which voxel -----------------------------------------------------------------------------------------------------


def voxels(points, origin, voxel_size, grid):
    """Return the number of each point's voxel, -1 outside, (B, N)."""
    index = indices(points.astype(np.float32), np.float32(origin), np.float32(voxel_size))  # (B, N, 3)
    kept = inside(index, grid) & finite(points)  # (B, N)
    return np.where(kept, numbered(np.where(kept[..., None], index, 0).astype(np.int64), grid), -1)


def indices(points, origin, voxel_size):
    """Return the index of each point along each axis, as floats: it may be any number, (B, N, 3)."""
    return np.floor((points - origin) / voxel_size)


def finite(points):
    """Return where a point is one, (B, N)."""
    return np.isfinite(points.astype(np.float32)).all(-1)


def inside(index, grid):
    """Return where an index is one of the grid, (B, N)."""
    return ((index >= 0) & (index < np.array(grid))).all(-1)


def numbered(index, grid):
    """Return the number of a voxel from its indices, (B, N)."""
    return (index[..., 0] * grid[1] + index[..., 1]) * grid[2] + index[..., 2]


def on_grid(values, grid):
    """Return values of voxels, (B, V, …), in the shape of the grid, (B, X, Y, Z, …)."""
    return values.reshape(values.shape[0], *grid, *values.shape[2:])


# --- what is in it ---------------------------------------------------------------------------------------------------


def counted(voxel, grid):
    """Return how many points each voxel has, (B, V)."""
    count = np.zeros((voxel.shape[0], np.prod(grid)), np.int64)  # (B, V)
    for row, numbers in zip(count, voxel, strict=True):
        np.add.at(row, numbers[numbers >= 0], 1)
    return count


def occupied(count):
    """Return 1 where there is a point, (B, V)."""
    return (count > 0).astype(np.int64)


def averaged(features, voxel, count):
    """Return the mean feature of each voxel, 0 of none, (B, V, F)."""
    sums = summed(features, voxel, count.shape[1])  # (B, V, F)
    return sums / np.maximum(count, 1)[..., None].astype(sums.dtype)


def summed(features, voxel, volume):
    """Return the sum of the features of each voxel, (B, V, F)."""
    sums = np.zeros((voxel.shape[0], volume, features.shape[2]), features.dtype)  # (B, V, F)
    for row, numbers, values in zip(sums, voxel, features, strict=True):
        with np.errstate(invalid="ignore"):  # infinities of both signs make a NaN
            np.add.at(row, numbers[numbers >= 0], values[numbers >= 0])
    return sums


def maxima(features, voxel, count):
    """Return the largest feature of each voxel, 0 of none, (B, V, F)."""
    largest = np.full((*count.shape, features.shape[2]), -np.inf, features.dtype)  # (B, V, F)
    for row, numbers, values in zip(largest, voxel, features, strict=True):
        np.maximum.at(row, numbers[numbers >= 0], values[numbers >= 0])
    return np.where(count[..., None] > 0, largest, 0)


# --- how far from it -------------------------------------------------------------------------------------------------


def centres(origin, voxel_size, grid, dtype):
    """Return the centre of each voxel, (V, 3)."""
    index = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 3).astype(dtype)  # (V, 3)
    return np.array(origin, dtype) + (index + dtype.type(0.5)) * dtype.type(voxel_size)


def tsdf(points, normals, centre, truncation, grid):
    """Return how many points are near each centre (V, 3), and how far the nearest is, as a part of `truncation`."""
    kept = finite(points)  # (B, N)
    apart = centre[:, None, :] - wide(np.where(kept[..., None], points, 0))[:, None]  # (B, V, N, 3)
    distance = np.where(kept[:, None], distances(apart), np.inf)  # (B, V, N)
    near = nearer(distance, truncation)  # (B, V, N)
    behind = np.zeros(near.shape, bool) if normals is None else is_behind(apart, wide(normals))  # (B, V, N)
    values = to_storage(signed(distance, near, behind, wide(points).dtype.type(truncation)), points)  # (B, V)
    return {"weight": on_grid(near.sum(-1), grid), "tsdf": on_grid(values, grid)}


def distances(apart):
    """Return the length of the last axis, (B, V, N)."""
    return np.sqrt(np.square(apart).sum(-1))


def nearer(distance, truncation):
    """Return which points are near, (B, V, N)."""
    return distance < distance.dtype.type(truncation)


def is_behind(apart, normals):
    """Return whether the centre is behind the surface of each point, (B, V, N)."""
    return (apart * normals[:, None]).sum(-1) < 0


def signed(distance, near, behind, truncation):
    """Return the distance to the nearest point over the truncation, negative behind it, (B, V)."""
    front = nearest(distance, near & ~behind)  # (B, V)
    back = nearest(distance, near & behind)  # (B, V)
    found = np.where(front <= back, front, -back) / truncation
    return np.where(near.any(-1), found, 1)


def nearest(distance, among):
    """Return the smallest distance among the points given, infinity of none, (B, V)."""
    return np.where(among, distance, np.inf).min(-1, initial=np.inf)


def bounds(points):
    """Return the smallest and the largest coordinates of each cloud, (B, 2, 3)."""
    kept = finite(points)[..., None]  # (B, N, 1)
    lowest = np.where(kept, wide(points), np.inf).min(1, initial=np.inf)  # (B, 3)
    highest = np.where(kept, wide(points), -np.inf).max(1, initial=-np.inf)  # (B, 3)
    return to_storage(np.stack([lowest, highest], 1), points)


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def to_storage(values, x):
    """Return `values` rounded to the format of `x`."""
    return values.astype(x.dtype)


# --- what is refused -------------------------------------------------------------------------------------------------


def require(condition, text):
    """Raise `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(text)


def check_mode(mode):
    """Refuse modes that do not exist."""
    require(mode in MODES, f"mode {mode!r} is none of {', '.join(MODES)}")


def check_points(points):
    """Refuse points that are not (B, N, 3)."""
    require(points.ndim == 3 and points.shape[2] == 3, f"points must be (B, N, 3), found {points.shape}")


def check_voxels(voxel_size, grid):
    """Refuse voxels without size and grids without voxels."""
    require(voxel_size > 0, f"voxel_size must be above 0, found {voxel_size}")
    require(len(grid) == 3 and min(grid) > 0, f"grid must be three sizes above 0, found {grid}")


def check_truncation(truncation):
    """Refuse to cut nowhere."""
    require(truncation is not None and truncation > 0, f"truncation must be above 0, found {truncation}")


def check_features(features):
    """Refuse to average or compare nothing."""
    require(features is not None, "the modes 'mean' and 'max' need features")


def check_beside(points, values, name):
    """Refuse features or normals of other clouds or points."""
    fits = values is None or values.shape[:2] == points.shape[:2]
    require(fits, f"{name} must be of the points {points.shape[:2]}, found {np.shape(values)[:2]}")
