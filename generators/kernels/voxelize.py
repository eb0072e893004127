"""The reference of the suite `voxelize`: which point belongs where in exact arithmetic, values in torch float64.

Source: Curless and Levoy 1996 for the signed distance. B batch, N points, F features, X × Y × Z the grid, V = X Y Z.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]
Tensors = dict[str, torch.Tensor]


def voxelize(points: torch.Tensor, *, mode: str, **given: Any) -> Tensors:
    """Return the checkpoints of any mode."""
    if mode == "bounds":
        return {"bounds": bounds(points)}
    if mode == "tsdf":
        return tsdf(points, **given)
    voxel = numbers(points.numpy(), given["origin"], given["voxel_size"], given["grid"])  # (B, N)
    volume = int(np.prod(given["grid"]))
    count = np.array([np.bincount(row[row >= 0], minlength=volume) for row in voxel], np.int64)  # (B, V)
    found = {"voxel": torch.from_numpy(voxel)}
    if mode in ("count", "mean"):
        found["count"] = torch.from_numpy(count).reshape(-1, *given["grid"])
    if mode == "occupancy":
        found["occupancy"] = torch.from_numpy((count > 0).astype(np.int64)).reshape(-1, *given["grid"])
    if mode in ("mean", "max"):
        reduce = {"mean": lambda members: members.sum(1) / members.shape[1], "max": lambda members: members.amax(1)}
        rows = [reduced(f, v, volume, reduce[mode]) for f, v in zip(given["features"], voxel, strict=True)]
        found[mode] = torch.stack(rows).reshape(len(rows), *given["grid"], -1)  # (B, X, Y, Z, F)
    return found


def numbers(points: Array, origin: list[float], voxel_size: float, grid: list[int]) -> NDArray[np.int64]:
    """Return the number of each point's voxel, -1 for what is in none, (B, N)."""
    with np.errstate(invalid="ignore"):
        offsets = points.astype(np.float32) - np.array(origin, np.float32)  # (B, N, 3)
        index = np.floor(offsets / np.float32(voxel_size))
        kept = ((index >= 0) & (index < grid)).all(-1) & np.isfinite(points).all(-1)  # (B, N)
    cells = np.where(kept[..., None], index, 0).astype(np.int64)
    return np.where(kept, np.ravel_multi_index(tuple(np.moveaxis(cells, -1, 0)), grid), -1)


def reduced(
    features: torch.Tensor, voxel: Array, volume: int, reduce: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Return what `reduce` makes of the features of each voxel's n points, (voxels, n, F) to (voxels, F); 0 of none."""
    order, count = np.argsort(voxel, kind="stable"), np.bincount(voxel[voxel >= 0], minlength=volume)
    first = np.searchsorted(voxel[order], np.arange(volume))  # (V,)
    result = torch.zeros((volume, features.shape[1]))  # (V, F)
    for n in np.unique(count[count > 0]):
        which = np.flatnonzero(count == n)
        members = order[first[which][:, None] + np.arange(n)]  # (voxels, n)
        result[torch.from_numpy(which)] = reduce(features[torch.from_numpy(members)])
    return result


def tsdf(
    points: torch.Tensor,
    *,
    origin: list[float],
    voxel_size: float,
    grid: list[int],
    truncation: float,
    normals: torch.Tensor | None = None,
) -> Tensors:
    """Return weight and truncated signed distance; which point is nearest, and on which side, is found in NumPy."""
    index = torch.cartesian_prod(*(torch.arange(size, dtype=points.dtype) for size in grid))  # (V, 3)
    centre = (index + 0.5) * voxel_size + torch.tensor(origin)  # (V, 3)
    weights, values = [], []
    for b, cloud in enumerate(points):
        near, closest, sign = choice(cloud.numpy(), normals if normals is None else normals[b].numpy(), *(
            exact_centres(origin, voxel_size, grid), truncation))  # fmt: skip
        apart = centre - cloud[torch.from_numpy(closest)]  # (V, 3)
        distance = torch.sqrt((apart * apart).sum(-1)) / truncation  # (V,)
        weights.append(torch.from_numpy(near))
        values.append(torch.where(torch.from_numpy(near > 0), torch.from_numpy(sign) * distance, 1.0))
    return {"weight": torch.stack(weights).reshape(-1, *grid), "tsdf": torch.stack(values).reshape(-1, *grid)}


def exact_centres(origin: list[float], voxel_size: float, grid: list[int]) -> Array:
    """Return the centre of each voxel in float64, (V, 3)."""
    return np.array(origin) + (np.array(list(np.ndindex(*grid))) + 0.5) * voxel_size


def choice(
    points: Array, normals: Array | None, centres: Array, truncation: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Return for each voxel how many points are near, the nearest, and 1 or -1 for its side, (V,) each."""
    kept = np.asarray(np.isfinite(points).all(-1))  # (N,)
    apart = centres[:, None] - np.where(kept[:, None], points, 0)  # (V, N, 3)
    square = np.where(kept, np.square(apart).sum(-1), np.inf)  # (V, N)
    near = square < truncation**2
    behind = np.zeros(near.shape, bool) if normals is None else (apart * normals).sum(-1) < 0
    order = np.lexsort((behind, square))[:, 0]  # the smallest, in front before behind
    return near.sum(-1), order, np.where(behind[np.arange(len(order)), order], -1.0, 1.0)


def bounds(points: torch.Tensor) -> torch.Tensor:
    """Return the smallest and the largest coordinates of the finite points of each cloud, (B, 2, 3)."""
    lowest = torch.full((points.shape[0], 1, 3), torch.inf)
    kept = torch.isfinite(points).all(-1, keepdim=True)  # (B, N, 1)
    low = torch.cat([lowest, torch.where(kept, points, torch.inf)], 1).amin(1)  # (B, 3)
    high = torch.cat([-lowest, torch.where(kept, points, -torch.inf)], 1).amax(1)  # (B, 3)
    return torch.stack([low, high], 1)


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def rounded(value: Fraction) -> Fraction:
    """Return the float32 number nearest to a fraction, ties to even, in integer arithmetic; subnormals apart."""
    if value == 0:
        return value
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length() - 24
    while abs(value) / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    return round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent


def by_fractions(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the voxels with those found in fractions that are rounded to 24 bits by hand."""
    if "voxel" not in golden:
        return None
    size, (X, Y, Z) = Fraction(given["voxel_size"]), given["grid"]
    origin = [Fraction(value) for value in given["origin"]]
    wanted = []
    for point in given["points"].reshape(-1, 3):
        number = -1
        if np.isfinite(point).all():
            x, y, z = (rounded(rounded(Fraction(p) - o) / size) // 1 for p, o in zip(point, origin, strict=True))
            number = (x * Y + y) * Z + z if 0 <= x < X and 0 <= y < Y and 0 <= z < Z else -1
        wanted.append(number)
    return golden["voxel"], np.array(wanted, np.int64).reshape(golden["voxel"].shape)


def all_points(_: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the sum of the counts with the number of points that are in a voxel."""
    if "count" not in golden:
        return None
    return golden["count"].sum((1, 2, 3)), (golden["voxel"] >= 0).sum(1)


def marked(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the occupancy with a set of voxels."""
    if "occupancy" not in golden:
        return None
    sets = [set(row[row >= 0].tolist()) for row in golden["voxel"]]
    wanted = np.array([[v in known for v in range(np.prod(given["grid"]))] for known in sets], np.int64)
    return golden["occupancy"], wanted.reshape(golden["occupancy"].shape)


def one_by_one(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare mean and maximum of each voxel with those of its points in Python."""
    if given["mode"] not in ("mean", "max"):
        return None
    found = golden[given["mode"]].reshape(len(given["points"]), -1, given["features"].shape[-1])  # (B, V, F)
    wanted = np.zeros(found.shape)
    for b, v, f in np.ndindex(found.shape):
        values = [Fraction(x) if np.isfinite(x) else x for x in given["features"][b, golden["voxel"][b] == v, f]]
        if values and given["mode"] == "mean":
            with np.errstate(invalid="ignore"):
                wanted[b, v, f] = sum(values) / len(values)
        elif values:
            wanted[b, v, f] = np.nan if np.isnan([float(x) for x in values]).any() else max(values)
    return found, wanted, 1e-14 * np.abs(np.nan_to_num(given["features"], posinf=0, neginf=0)).max()


def by_cdist(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the absolute distance with SciPy's, cut at 1."""
    if given["mode"] != "tsdf":
        return None
    centres = exact_centres(given["origin"], given["voxel_size"], given["grid"])
    clouds = [cloud[np.isfinite(cloud).all(-1)] for cloud in given["points"]]
    wanted = np.array([cdist(centres, cloud).min(-1) for cloud in clouds]) / given["truncation"]
    return np.abs(golden["tsdf"]).reshape(wanted.shape), np.minimum(wanted, 1), 1e-14


def by_counting(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the weights with the number of SciPy's distances below the truncation."""
    if given["mode"] != "tsdf":
        return None
    centres = exact_centres(given["origin"], given["voxel_size"], given["grid"])
    clouds = [cloud[np.isfinite(cloud).all(-1)] for cloud in given["points"]]
    wanted = np.array([(cdist(centres, cloud) < given["truncation"]).sum(-1) for cloud in clouds])
    return golden["weight"], wanted.reshape(golden["weight"].shape)


def by_side(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the sign with the side of the plane through the nearest point, where the two sides are not as near."""
    if given["mode"] != "tsdf" or "normals" not in given:
        return None
    centres = exact_centres(given["origin"], given["voxel_size"], given["grid"])
    found, wanted = golden["tsdf"].reshape(len(given["points"]), -1).copy(), []
    for cloud, normals in zip(given["points"], given["normals"], strict=True):
        kept = np.isfinite(cloud).all(-1)
        apart = cdist(centres, cloud[kept])
        nearest = apart.argmin(-1)
        height = centres @ normals[kept].T - (cloud[kept] * normals[kept]).sum(-1)  # (V, N)
        tie = (np.abs(apart - apart.min(-1, keepdims=True)) < 1e-9).sum(-1) > 1
        told = (apart.min(-1) < given["truncation"]) & ~tie  # (V,)
        wanted.append((height[np.arange(len(centres)), nearest] < 0) & told)
        found[len(wanted) - 1] *= told
    return found < 0, np.array(wanted)


def decided(given: Given, _: Given) -> tuple[Any, ...] | None:
    """Count what float32 may decide otherwise: a distance near the truncation, a side or a nearest point near a tie."""
    if given["mode"] != "tsdf":
        return None
    centres = exact_centres(given["origin"], given["voxel_size"], given["grid"])
    dyadic = given["voxel_size"] % 2**-10 == 0 and all(value % 2**-10 == 0 for value in given["origin"])
    near_ties = 0
    for b, cloud in enumerate(given["points"]):
        kept = np.isfinite(cloud).all(-1)
        apart = cdist(centres, cloud[kept])  # (V, N)
        edge = np.abs(apart / given["truncation"] - 1)
        near_ties += int(((edge < 1e-4) & ~(dyadic & (edge == 0))).sum())
        if "normals" in given:
            normals = given["normals"][b][kept]
            height = centres @ normals.T - (cloud[kept] * normals).sum(-1)  # (V, N)
            relative = np.abs(height) / np.linalg.norm(normals, axis=-1) / np.maximum(apart, 1e-9)
            closest = np.where(apart < given["truncation"], apart, np.inf)
            front, back = (np.where(side, closest, np.inf).min(-1) for side in (height >= 0, height < 0))
            with np.errstate(invalid="ignore"):
                tie = np.abs(front - back) < 1e-4 * np.minimum(front, back)
            near_ties += int((tie & ~(dyadic & (front == back))).sum())
            leading = closest <= closest.min(-1, keepdims=True) * (1 + 1e-4)
            near_ties += int(((relative < 1e-4) & leading & np.isfinite(closest) & ~(dyadic & (height == 0))).sum())
    return near_ties, 0


def by_sorting(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the bounds with the ends of the sorted coordinates."""
    if given["mode"] != "bounds":
        return None
    wanted = []
    for cloud in given["points"]:
        ordered = np.sort(cloud[np.isfinite(cloud).all(-1)], axis=0)
        wanted.append([ordered[0], ordered[-1]] if len(ordered) else [[np.inf] * 3, [-np.inf] * 3])
    return golden["bounds"], np.array(wanted)


RELATIONS = {
    "voxels are those of fractions rounded to 24 bits": by_fractions,
    "counts add up to the points inside": all_points,
    "voxels with a point are occupied": marked,
    "means and maxima are those of fractions, to 1e-14 of the largest feature": one_by_one,
    "distances are SciPy's, to 1e-14 of the truncation": by_cdist,
    "weights count SciPy's distances below the truncation": by_counting,
    "the sign is that of the side of the nearest point's plane": by_side,
    "float32 decides nothing otherwise": decided,
    "bounds are the ends of sorted coordinates": by_sorting,
}
VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, voxelize, RELATIONS, versions=("torch", "scipy")
)
