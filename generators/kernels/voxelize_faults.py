"""Mistakes that people make when they sort points into voxels, planted in the plain candidate. NumPy only.

M.. are the numbers of the catalogue of mistakes that robot data kernels were found with.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
VOXEL, COUNT, OCCUPANCY, MEAN, MAX = ("voxel",), ("count",), ("occupancy",), ("mean",), ("max",)
WEIGHT, TSDF, BOUNDS, REFUSED = ("weight",), ("tsdf",), ("bounds",), ("refused",)
FEATURES, COUNTED = ("mean", "max"), ("count", "occupancy")

rounding = beside(__file__, "_rounding")

# --- which voxel -----------------------------------------------------------------------------------------------------


def index(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the indices: `formula(points, origin, voxel_size)` in float32, (B, N, 3) as floats."""
    return wrap(indices=lambda _: formula)


def kept(formula: Callable[[Array, Any], Array]) -> Change:
    """Return a change to what is inside: `formula(index, grid)`, (B, N)."""
    return wrap(inside=lambda _: formula)


def number(formula: Callable[[Array, Any], Array]) -> Change:
    """Return a change to the number of a voxel: `formula(index, grid)`, (B, N)."""
    return wrap(numbered=lambda _: formula)


def by_voxel(formula: Callable[[Array, Any], Array]) -> Change:
    """Return a change to the voxels once they are found: `formula(voxel, grid)`, (B, N)."""
    return wrap(
        voxels=lambda right: lambda points, origin, size, grid: formula(right(points, origin, size, grid), grid)
    )


def clamped(plain: Any) -> None:
    """Move points outside the grid into the voxels at its border."""
    right = plain.numbered
    plain.inside = lambda index, grid: np.ones(index.shape[:-1], bool)
    plain.numbered = lambda index, grid: right(np.clip(index, 0, np.array(grid) - 1), grid)


def checked_as_number(plain: Any) -> None:
    """Look only whether the number of the voxel is one of the grid: what is outside comes in on another side."""
    right = plain.numbered

    def inside(index: Array, grid: Any) -> Array:
        known = np.where(np.abs(index) < 1e6, index, -1e6)
        numbers = right(known, grid)
        return (numbers >= 0) & (numbers < np.prod(grid))

    plain.inside = inside


def as_integers(points: Array) -> Array:
    """Return points as a conversion to integers takes them: 0 for NaN, the largest for infinity."""
    return np.where(np.isnan(points), 0, np.clip(points, -1e9, 1e9)).astype(points.dtype)


def nan_in_first_plane(plain: Any) -> None:
    """Convert indices to integers as a GPU does: NaN becomes 0."""
    right = plain.indices
    plain.finite = lambda points: np.ones(points.shape[:-1], bool)
    plain.indices = lambda points, origin, size: as_integers(right(points, origin, size))


def scattered_hash(voxel: Array, grid: Any) -> Array:
    """Return the slots of a hash table in place of voxels."""
    volume = int(np.prod(grid))
    return np.where(voxel >= 0, (np.maximum(voxel, 0) * 2654435761 & 0xFFFFFFFF) % 2048 % volume, -1)


def first_of_warp(voxel: Array, _: Any) -> Array:
    """Return the voxels of points that share that of the first of their 32; the others are lost."""
    lead = voxel[:, np.arange(voxel.shape[1]) // 32 * 32]
    return np.where(voxel == lead, voxel, -1)


def coarse(values: Array, dtype: str) -> Array:
    """Return values rounded to `dtype`, in their own format."""
    return values.astype(dtype).astype(values.dtype)


# --- what is in it ---------------------------------------------------------------------------------------------------


def count(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the counts, (B, V)."""
    return wrap(counted=lambda right: lambda voxel, grid: formula(right(voxel, grid)))


def counted_from(formula: Callable[[Array, Any], Array]) -> Change:
    """Return a change to the voxels that are counted, not to those that are returned: `formula(voxel, grid)`."""
    return wrap(counted=lambda right: lambda voxel, grid: right(formula(voxel, grid), grid))


def pooled(voxel: Array, _: Any) -> Array:
    """Return every cloud's points as those of the first."""
    rows = np.full((voxel.shape[0], voxel.size), -1)
    rows[0] = voxel.reshape(-1)
    return rows


def sums(formula: Callable[[Array, Array, int], Array]) -> Change:
    """Return a change to the sums: `formula(features, voxel, V)` of one cloud, (V, F)."""

    def summed(features: Array, voxel: Array, volume: int) -> Array:
        rows = [formula(f[v >= 0], v[v >= 0], volume) for f, v in zip(features, voxel, strict=True)]
        return np.array(rows).astype(features.dtype)

    return wrap(summed=lambda _: summed)


def sums_in(dtype: str) -> Callable[[Array, Array, int], Array]:
    """Return the sums added one after the other in the format `dtype`."""

    def formula(features: Array, voxel: Array, volume: int) -> Array:
        total = np.zeros((volume, features.shape[1]), dtype)
        for v, values in zip(voxel, features, strict=True):
            total[v] = (total[v] + values).astype(dtype)
        return total

    return formula


def last_written(features: Array, voxel: Array, volume: int) -> Array:
    """Return `sums[voxel] += features`, which writes once where a voxel stands twice."""
    total = np.zeros((volume, features.shape[1]), features.dtype)
    total[voxel] += features
    return total


def mean(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the mean: `formula(sums, count)`, (B, V, F) and (B, V, 1)."""

    def change(plain: Any) -> None:
        plain.averaged = lambda features, voxel, count: formula(
            plain.summed(features, voxel, count.shape[1]), count[..., None].astype(features.dtype)
        )

    return change


def halved(plain: Any) -> None:
    """Average each feature with the mean so far, which weighs the last most."""

    def averaged(features: Array, voxel: Array, count: Array) -> Array:
        found = np.zeros((*count.shape, features.shape[2]), features.dtype)
        seen = np.zeros(count.shape, bool)
        for b, n in zip(*np.nonzero(voxel >= 0), strict=True):
            v = voxel[b, n]
            found[b, v] = (found[b, v] + features[b, n]) / 2 if seen[b, v] else features[b, n]
            seen[b, v] = True
        return found

    plain.averaged = averaged


def each_max(formula: Callable[[Array], Array], *, empty: float = 0.0) -> Change:
    """Return a change to the maximum: `formula(features)` of the n points of one voxel, (n, F) to (F,)."""

    def maxima(features: Array, voxel: Array, count: Array) -> Array:
        found = np.full((*count.shape, features.shape[2]), empty, features.dtype)
        for b, v in zip(*np.nonzero(count), strict=True):
            found[b, v] = formula(features[b, voxel[b] == v])
        return found

    return wrap(maxima=lambda _: maxima)


def as_bits(values: Array) -> Array:
    """Return the maximum by comparing the bits of float32 as integers, from the lowest of them: the least negative loses."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32)
    return bits.max(0).view(np.float32).astype(values.dtype)


def features_only(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the features, (B, N, F), where they are read."""
    return wrap(
        averaged=lambda right: lambda features, voxel, count: right(formula(features), voxel, count),
        maxima=lambda right: lambda features, voxel, count: right(formula(features), voxel, count),
    )


def misread(x: Array) -> Array:
    """Return what the bits of the float16 numbers `x` mean as bfloat16, in the format of `x`."""
    bits = np.nan_to_num(x.astype(np.float16)).view(np.uint16).astype(np.uint32) << np.uint32(16)
    return np.where(np.isfinite(x), bits.view(np.float32), x).astype(x.dtype)


def truncated(x: Array) -> Array:
    """Return values cut to the 8 bits of bfloat16, in their own format, but NaN and infinities as they are."""
    return np.where(np.isfinite(x), rounding.truncated(x), x)


# --- how far from it -------------------------------------------------------------------------------------------------


def centre(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the centres: `formula(index, origin, voxel_size)`, (V, 3)."""

    def centres(origin: Any, voxel_size: float, grid: Any, dtype: Any) -> Array:
        numbers = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 3).astype(dtype)
        return formula(numbers, np.array(origin, dtype), dtype.type(voxel_size)).astype(dtype)

    return wrap(centres=lambda _: centres)


def fused(formula: Callable[[Array, Array, Array, Any], Array]) -> Change:
    """Return a change to how points are fused: `formula(distance, near, behind, truncation)`, (B, V)."""
    return wrap(signed=lambda _: formula)


def one_after_the_other(rule: Callable[[Array, Array], Array]) -> Change:
    """Return a change to fusing: `rule(stored, value)` is what a voxel holds after `value`; (B, V) each."""

    def signed(distance: Array, near: Array, behind: Array, truncation: Any) -> Array:
        values = np.where(behind, -distance, distance) / truncation  # (B, V, N)
        stored, seen = np.ones(near.shape[:2], distance.dtype), np.zeros(near.shape[:2], bool)
        for n in range(near.shape[2]):
            stored = np.where(near[..., n], np.where(seen, rule(stored, values[..., n]), values[..., n]), stored)
            seen = seen | near[..., n]
        return stored.astype(distance.dtype)

    return fused(signed)


def behind_first(distance: Array, near: Array, behind: Array, truncation: Any) -> Array:
    """Return the right distance, negative where points on both sides are as near."""
    front, back = (np.where(side, distance, np.inf).min(-1, initial=np.inf) for side in (near & ~behind, near & behind))
    return np.where(near.any(-1), np.where(front < back, front, -back) / truncation, 1)


def after(**formulas: Callable[[Array], Array]) -> Change:
    """Return a change to the named checkpoints of the mode `tsdf`."""

    def replacement(right: Any) -> Any:
        def tsdf(*given: Any) -> dict[str, Array]:
            return {name: formulas.get(name, lambda v: v)(values) for name, values in right(*given).items()}

        return tsdf

    return wrap(tsdf=replacement)


def first_sign(stored: Array, value: Array) -> Array:
    """Keep the sign of what came first, and the smaller distance."""
    return np.where(stored < 0, -1, 1) * np.minimum(np.abs(stored), np.abs(value))


def projected(plain: Any) -> None:
    """Measure along the normal instead of to the point."""
    right = plain.tsdf

    def tsdf(points: Array, normals: Array, centre: Array, truncation: float, grid: Any) -> Any:
        found = right(points, normals, centre, truncation, grid)
        if normals is None:
            return found
        good = plain.finite(points)[..., None]
        wide, facing = plain.wide(np.where(good, points, 0)), plain.wide(normals)
        apart = centre[:, None, :] - wide[:, None]  # (B, V, N, 3)
        distance = np.where(good[:, None, :, 0], np.sqrt(np.square(apart).sum(-1)), np.inf)
        which = distance.argmin(-1)[..., None]  # (B, V, 1)
        unit = facing / np.sqrt(np.square(facing).sum(-1, keepdims=True))
        along = np.take_along_axis((apart * unit[:, None]).sum(-1), which, 2)[..., 0] / truncation
        values = np.where(found["weight"].reshape(along.shape) > 0, along, 1)
        return found | {"tsdf": plain.on_grid(plain.to_storage(values, points), grid)}

    plain.tsdf = tsdf


def in_band(half: int, size: float = 0.5) -> Change:
    """Return a change to nearness: only centres of voxels up to `half` away from a point along each axis are reached."""

    def change(plain: Any) -> None:
        right = plain.tsdf

        def tsdf(points: Array, normals: Array, centre: Array, truncation: float, grid: Any) -> Any:
            edge = float(np.abs(np.diff(centre, axis=0)).max(-1).min()) if len(centre) > 1 else size
            good = plain.finite(points)[..., None]
            apart = np.abs(centre[:, None, :] - np.where(good, plain.wide(points), 0)[:, None]).max(-1)  # (B, V, N)
            plain.nearer = lambda distance, cut: (distance < cut) & (apart <= (half + 0.5) * edge * (1 + 1e-6))
            return right(points, normals, centre, truncation, grid)

        plain.tsdf = tsdf

    return change


def only_inside(plain: Any) -> None:
    """Leave out points outside the grid."""
    right = plain.tsdf

    def tsdf(points: Array, normals: Array, centre: Array, truncation: float, grid: Any) -> Any:
        edge = float(np.abs(np.diff(centre, axis=0)).max(-1).min())
        outside = ((points < centre.min(0) - edge / 2) | (points >= centre.max(0) + edge / 2)).any(-1)
        return right(
            np.where(outside[..., None], np.nan, points).astype(points.dtype), normals, centre, truncation, grid
        )

    plain.tsdf = tsdf


def turned(plain: Any) -> None:
    """Read the normals as x, z, y."""
    right = plain.is_behind
    plain.is_behind = lambda apart, normals: right(apart, normals[..., [0, 2, 1]])


def grid_reversed(values: Array, grid: Any) -> Array:
    """Return values of voxels with x running fastest, in the shape of the grid."""
    rest = tuple(range(4, values.ndim + 2))
    return values.reshape(values.shape[0], *grid[::-1], *values.shape[2:]).transpose(0, 3, 2, 1, *rest)


# --- bounds ----------------------------------------------------------------------------------------------------------


def ends(formula: Callable[[Array, Array], tuple[Array, ...]]) -> Change:
    """Return a change to the bounds: `formula(points, finite)` gives both ends, (B, 3)."""

    def change(plain: Any) -> None:
        plain.bounds = lambda points: plain.to_storage(
            np.stack(formula(plain.wide(points), plain.finite(points)[..., None]), 1), points
        )

    return change


def both(points: Array, among: Array, start: float = np.inf) -> tuple[Array, Array]:
    """Return the right ends, none beyond `start`."""
    low = np.where(among, points, start).min(1, initial=start)
    return low, np.where(among, points, -start).max(1, initial=-start)


def accepts(*names: str, **others: Callable[[Any], Any]) -> Change:
    """Return a change that leaves out the named checks, and replaces what `others` names so that an answer comes."""
    return wrap(**{name: lambda _: lambda *_: None for name in names}, **others)


def call(formula: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> Change:
    """Return a change to the arguments: `formula(points, others)` gives those with which the right function is called."""
    return wrap(voxelize=lambda right: lambda points, **given: right(**formula(points, given)))


def resized(points: Array, given: dict[str, Any]) -> dict[str, Any]:
    """Return features and normals as a kernel reads them that trusts them to be as many as the points."""
    beside = {key: given[key] for key in ("features", "normals") if given.get(key) is not None}
    fitted = {key: np.resize(value, (*points.shape[:2], value.shape[-1])) for key, value in beside.items()}
    return {"points": points, **given, **(fitted if points.ndim == 3 else {})}


FAULTS = (
    # --- the index along an axis
    Fault("index_truncated", VOXEL, "truncated towards 0 instead of floor: (-1, 0) counts as 0",  # M17
          index(lambda p, o, s: np.trunc((p - o) / s) + 0.0)),
    Fault("index_rounded", VOXEL, "rounded to the nearest instead of floor", index(lambda p, o, s: np.rint((p - o) / s))),
    Fault("index_ceiling", VOXEL, "the voxel above: ceiling minus 1 puts lower faces outside", index(lambda p, o, s: np.ceil((p - o) / s) - 1)),
    Fault("index_reciprocal", VOXEL, "multiplied by 1 / voxel_size in float32 instead of divided",  # M18
          index(lambda p, o, s: np.floor((p - o) * (np.float32(1) / s)))),
    Fault("index_in_float64", VOXEL, "divided in float64, which rounds elsewhere",
          index(lambda p, o, s: np.floor((p.astype(np.float64) - o.astype(np.float64)) / np.float64(s)))),
    Fault("index_divided_first", VOXEL, "points and origin divided each, then subtracted", index(lambda p, o, s: np.floor(p / s - o / s))),
    Fault("origin_ignored", VOXEL, "without the origin", index(lambda p, o, s: np.floor(p / s))),
    Fault("origin_added", VOXEL, "the origin is added", index(lambda p, o, s: np.floor((p + o) / s))),
    Fault("origin_is_centre", VOXEL, "the origin taken for the centre of the first voxel", index(lambda p, o, s: np.floor((p - o) / s + np.float32(0.5)))),
    Fault("origin_of_first_axis", VOXEL, "the first origin for all axes", index(lambda p, o, s: np.floor((p - o[0]) / s))),
    Fault("points_in_bfloat16", VOXEL, "differences rounded to bfloat16", index(lambda p, o, s: np.floor(coarse(p - o, "bfloat16") / s))),
    Fault("points_in_float16", VOXEL, "quotients rounded to float16",
          index(lambda p, o, s: np.floor(coarse(np.clip((p - o) / s, -65504, 65504), "float16")))),
    # --- inside or not
    Fault("border_clamped", VOXEL, "points outside are put into the voxels at the border", clamped),  # M16
    Fault("upper_face_inside", VOXEL, "an index equal to the size is moved into the last voxel", wrap(
        inside=lambda _: lambda index, grid: ((index >= 0) & (index <= np.array(grid))).all(-1),
        numbered=lambda right: lambda index, grid: right(np.minimum(index, np.array(grid) - 1), grid))),
    Fault("lower_border_lost", VOXEL, "index 0 counts as outside", kept(lambda index, grid: ((index > 0) & (index < np.array(grid))).all(-1))),
    Fault("checked_as_number", VOXEL, "only the number of the voxel is checked: points come in on the other side", checked_as_number),
    Fault("sizes_reversed", VOXEL, "x is checked against Z, z against X", kept(
        lambda index, grid: ((index >= 0) & (index < np.minimum(grid, grid[::-1]))).all(-1))),
    Fault("nan_in_plane_0", VOXEL, "NaN becomes index 0", nan_in_first_plane),  # M23
    # --- the number of a voxel
    Fault("axes_reversed", VOXEL, "x runs fastest: z * Y * X + y * X + x", number(  # M15
        lambda i, grid: (i[..., 2] * grid[1] + i[..., 1]) * grid[0] + i[..., 0])),
    Fault("axes_x_y_exchanged", VOXEL, "rows and columns exchanged: (y * X + x) * Z + z", number(
        lambda i, grid: (i[..., 1] * grid[0] + i[..., 0]) * grid[2] + i[..., 2])),
    Fault("stride_of_wrong_axis", VOXEL, "(x * X + y) * Y + z: the sizes of the wrong axes", number(
        lambda i, grid: ((i[..., 0] * grid[0] + i[..., 1]) * grid[1] + i[..., 2]) % np.prod(grid))),
    Fault("hash_slots", VOXEL, "slots of a hash table written as if they were voxels", by_voxel(scattered_hash)),  # M21
    Fault("voxels_of_first_cloud", VOXEL, "the first cloud's points for every cloud", by_voxel(  # M14
        lambda voxel, grid: np.broadcast_to(voxel[:1], voxel.shape).copy())),
    Fault("last_point_lost", VOXEL, "the last point is not read", by_voxel(
        lambda voxel, grid: np.where(np.arange(voxel.shape[1]) < voxel.shape[1] - 1, voxel, -1))),
    Fault("tail_not_read", VOXEL, "points beyond the last whole block of 32 are not read", by_voxel(
        lambda voxel, grid: np.where(np.arange(voxel.shape[1]) < voxel.shape[1] // 32 * 32, voxel, -1))),
    # --- counts
    Fault("collisions_dropped", COUNTED, "of 32 points only those in the voxel of the first are counted", counted_from(first_of_warp)),  # M22
    Fault("duplicates_once", COUNT, "count[voxel] += 1, which counts once where a voxel stands twice", count(lambda c: np.minimum(c, 1))),
    Fault("count_in_uint8", COUNT, "counts wrap at 256", count(lambda c: c % 256)),
    Fault("count_in_bfloat16", COUNT, "counts in bfloat16 stop at 256", count(lambda c: np.minimum(c, 256))),
    Fault("outside_in_last", COUNTED, "voxel -1 taken for the last", counted_from(
        lambda voxel, grid: np.where(voxel < 0, np.prod(grid) - 1, voxel))),
    Fault("clouds_pooled", COUNTED, "all clouds are counted in the first grid", counted_from(pooled)),
    Fault("count_transposed", ("count", "occupancy", "mean", "max", "weight"), "right numbers written with x running fastest",  # M15
          wrap(on_grid=lambda _: grid_reversed)),
    Fault("occupancy_counts", OCCUPANCY, "counts instead of 0 and 1", wrap(occupied=lambda _: lambda c: c)),
    Fault("occupancy_of_two", OCCUPANCY, "more than one point makes a voxel occupied", wrap(occupied=lambda _: lambda c: (c > 1).astype(np.int64))),
    Fault("occupancy_inverted", OCCUPANCY, "1 where there is no point", wrap(occupied=lambda _: lambda c: (c == 0).astype(np.int64))),
    # --- means
    Fault("mean_epsilon", MEAN, "divided by the count + 1e-8", mean(lambda s, c: s / (np.maximum(c, 1) + 1e-8).astype(s.dtype))),  # M20
    Fault("mean_not_divided", MEAN, "the sum instead of the mean", mean(lambda s, c: s)),  # M20
    Fault("mean_count_plus_1", MEAN, "divided by the count + 1", mean(lambda s, c: s / (c + 1))),
    Fault("mean_over_all", MEAN, "divided by the number of all points that are inside", mean(lambda s, c: s / np.maximum(c.sum(1, keepdims=True), 1))),
    Fault("mean_empty_nan", MEAN, "0 / 0 where there is no point", mean(lambda s, c: s / c)),
    Fault("mean_running", MEAN, "each feature averaged with the mean so far", halved),
    Fault("sums_written_once", MEAN, "sums[voxel] += features, which adds once where a voxel stands twice", sums(last_written)),
    Fault("sums_in_float16", MEAN, "sums accumulated in float16", sums(sums_in("float16"))),
    Fault("sums_in_bfloat16", MEAN, "sums accumulated in bfloat16", sums(sums_in("bfloat16"))),  # M28
    Fault("mean_truncated", MEAN, "cut to bfloat16 instead of rounded", wrap(  # M29
        averaged=lambda right: lambda features, voxel, count: truncated(right(features, voxel, count)))),
    # --- maxima
    Fault("max_from_0", MAX, "the maximum of 0 and the features: negative ones are lost", each_max(lambda f: np.maximum(f.max(0), 0))),  # M19
    Fault("max_of_bits", MAX, "bits compared as integers: of negative features the smallest wins", each_max(as_bits)),  # M19
    Fault("max_of_magnitude", MAX, "the feature of the largest magnitude", each_max(
        lambda f: np.take_along_axis(f, np.abs(f).argmax(0)[None], 0)[0])),
    Fault("max_absolute", MAX, "the largest magnitude", each_max(lambda f: np.abs(f).max(0))),
    Fault("max_is_min", MAX, "the smallest feature", each_max(lambda f: f.min(0))),
    Fault("max_last_written", MAX, "the last point's features", each_max(lambda f: f[-1])),
    Fault("max_first_written", MAX, "the first point's features", each_max(lambda f: f[0])),
    Fault("max_of_first_channel", MAX, "all features of the point whose first is largest", each_max(lambda f: f[f[:, 0].argmax()])),
    Fault("max_ignores_nan", MAX, "NaN loses against any number", each_max(lambda f: np.fmax.reduce(f, 0))),
    Fault("max_empty_infinite", MAX, "-infinity where there is no point", each_max(lambda f: f.max(0), empty=-np.inf)),
    Fault("max_empty_lowest", MAX, "the lowest number of float16 where there is no point", each_max(lambda f: f.max(0), empty=-65504)),
    # --- features of both
    Fault("read_as_bfloat16", FEATURES, "the bits of float16 numbers read as bfloat16", features_only(misread)),  # M27
    Fault("features_of_first_cloud", FEATURES, "the first cloud's features for every cloud", features_only(  # M14
        lambda f: np.broadcast_to(f[:1], f.shape))),
    Fault("features_rotated", FEATURES, "features one channel further", features_only(lambda f: np.roll(f, 1, -1))),
    Fault("features_shifted", FEATURES, "the features of the point before", features_only(lambda f: np.roll(f, 1, 1))),
    Fault("features_channels_first", FEATURES, "(B, F, N) read as (B, N, F)", features_only(lambda f: f.swapaxes(1, 2).reshape(f.shape))),
    # --- which points are near
    Fault("centre_without_half", WEIGHT, "the lowest corner instead of the centre", centre(lambda i, o, s: o + i * s)),
    Fault("centre_above", WEIGHT, "the corner above instead of the centre", centre(lambda i, o, s: o + (i + 1) * s)),
    Fault("centre_origin_scaled", WEIGHT, "the origin counted in voxels", centre(lambda i, o, s: (o + i + 0.5) * s)),
    Fault("near_or_equal", WEIGHT, "a distance equal to the truncation is near", wrap(nearer=lambda _: lambda d, t: d <= d.dtype.type(t))),
    Fault("distance_squared", WEIGHT, "the square of the distance", wrap(distances=lambda _: lambda apart: np.square(apart).sum(-1))),
    Fault("distance_manhattan", WEIGHT, "the sum along the axes instead of the distance", wrap(distances=lambda _: lambda apart: np.abs(apart).sum(-1))),
    Fault("distance_largest_axis", WEIGHT, "the largest difference along an axis instead of the distance", wrap(distances=lambda _: lambda apart: np.abs(apart).max(-1))),
    Fault("band_too_narrow", WEIGHT, "only the voxel of a point is reached", in_band(0)),
    Fault("outside_left_out", WEIGHT, "points outside the grid are left out", only_inside),
    Fault("weight_1", WEIGHT, "1 wherever a point is near", after(weight=lambda w: np.minimum(w, 1))),
    # --- the signed distance
    Fault("sign_reversed", TSDF, "negative in front of the surface", wrap(signed=lambda right: lambda d, near, behind, t: (  # M24
        np.where(near.any(-1), -right(d, near, behind, t), 1)))),
    Fault("sign_of_first", TSDF, "the sign of the first point that came, the distance of the nearest", one_after_the_other(first_sign)),  # M24
    Fault("last_wins", TSDF, "the last point that came", one_after_the_other(lambda stored, value: value)),  # M24
    Fault("smallest_value_wins", TSDF, "the smallest signed value: behind wins", one_after_the_other(lambda stored, value: np.minimum(stored, value))),
    Fault("distance_averaged", TSDF, "the mean over all points that are near", fused(lambda d, near, behind, t: np.where(
        near.any(-1), np.where(near, np.where(behind, -d, d), 0).sum(-1) / np.maximum(near.sum(-1), 1) / t, 1).astype(d.dtype))),
    Fault("tie_behind", TSDF, "negative where a point is as near on either side", fused(behind_first)),
    Fault("normals_ignored", TSDF, "without sign", wrap(is_behind=lambda right: lambda apart, normals: np.zeros_like(right(apart, normals)))),
    Fault("normals_turned", TSDF, "y and z of the normals exchanged", turned),
    Fault("not_divided", TSDF, "in metres instead of parts of the truncation", wrap(signed=lambda right: lambda d, near, behind, t: (
        np.where(near.any(-1), right(d, near, behind, t) * t, 1)))),
    Fault("empty_0", TSDF, "0 where no point is near", wrap(signed=lambda right: lambda d, near, behind, t: np.where(near.any(-1), right(d, near, behind, t), 0))),
    Fault("empty_behind", TSDF, "-1 where no point is near", wrap(signed=lambda right: lambda d, near, behind, t: np.where(near.any(-1), right(d, near, behind, t), -1))),
    Fault("distance_along_normal", TSDF, "the distance to the plane through the nearest point", projected),
    Fault("tsdf_truncated", TSDF, "cut to bfloat16 instead of rounded", wrap(signed=lambda right: lambda *given: truncated(right(*given)))),  # M29
    Fault("tsdf_in_int8", TSDF, "in steps of 1/127", after(tsdf=lambda v: (np.rint(v.astype(np.float64) * 127) / 127).astype(v.dtype))),
    # --- bounds
    Fault("bounds_from_finite", BOUNDS, "smallest and largest start at a finite number, 60000", ends(lambda p, among: both(p, among, 6e4))),
    Fault("bounds_from_0", BOUNDS, "smallest and largest start at 0", ends(lambda p, among: both(p, among, 0.0))),
    Fault("bounds_of_coordinates", BOUNDS, "NaN and infinity leave out a coordinate, not the point", ends(lambda p, among: both(p, np.isfinite(p)))),
    Fault("bounds_ignore_nan_only", BOUNDS, "infinite coordinates count", ends(lambda p, among: both(p, ~np.isnan(p).any(-1, keepdims=True)))),
    Fault("bounds_of_nan", BOUNDS, "NaN wins", ends(lambda p, among: (p.min(1, initial=np.inf), p.max(1, initial=-np.inf)))),
    Fault("bounds_of_all_clouds", BOUNDS, "the bounds of all clouds together", ends(lambda p, among: tuple(
        np.broadcast_to(end, (p.shape[0], 3)) for end in (both(p, among)[0].min(0), both(p, among)[1].max(0))))),
    Fault("bounds_exchanged", BOUNDS, "the largest first", ends(lambda p, among: both(p, among)[::-1])),
    Fault("bounds_empty_0", BOUNDS, "0 where there is no point", ends(lambda p, among: tuple(
        np.where(np.isinf(end), 0, end) for end in both(p, among)))),
    # --- what must be refused
    Fault("mode_accepted", REFUSED, "an unknown mode counts", accepts(
        "check_mode", voxelize=lambda right: lambda points, **given: right(points, **given | {
            "mode": given["mode"] if given["mode"] in ("count", "occupancy", "mean", "max", "tsdf", "bounds") else "count"}))),
    Fault("rank_accepted", REFUSED, "one cloud without a batch is taken for a batch of one", call(
        lambda points, given: {"points": points[None] if points.ndim == 2 else points, **given})),
    Fault("coordinates_accepted", REFUSED, "coordinates that are missing are 0, others are not read", call(
        lambda points, given: {"points": np.pad(points, [(0, 0)] * (points.ndim - 1) + [(0, 1)])[..., :3], **given})),
    Fault("features_invented", REFUSED, "features of 1 where there are none", call(lambda points, given: {"points": points, **given} | (
        {"features": np.ones((*points.shape[:2], 1), points.dtype)} if given["mode"] in ("mean", "max") and "features" not in given else {}))),
    Fault("lengths_accepted", REFUSED, "features and normals of other points are read as if they were of these", call(resized)),
    Fault("voxel_size_accepted", REFUSED, "a voxel size that is not above 0 is used", accepts(
        check_voxels=lambda right: lambda size, grid: right(1.0, grid))),
    Fault("grid_accepted", REFUSED, "a grid without voxels gives nothing", call(lambda points, given: {"points": points, **given} | (
        {"grid": [max(n, 1) for n in (*given["grid"], 1)[:3]]} if "grid" in given else {}))),
    Fault("truncation_accepted", REFUSED, "a truncation that is missing or 0 is that of four voxels", call(lambda points, given: {"points": points, **given} | (
        {"truncation": given.get("truncation") or 4 * given["voxel_size"]} if given["mode"] == "tsdf" else {}))),
)  # fmt: skip
