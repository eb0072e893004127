"""The reference of the suite `residual_correlation`: torch operations in float64 on the CPU.

Source: the residual process given inducing points (Sang and Huang 2012); the distance of its correlations as GPBoost
has it. The factorisation and the triangular solve are written out, so that replaying them under noise shows where
rounding comes in. The golden comes from differences of points; the noise from squared distances expanded about their
mean, which kernels are allowed to use. n points of D dimensions, m inducing points, r rows, c columns.
"""

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")
factors = beside(__file__, "_cholesky")
stationary = beside(__file__, "_stationary")

FLOOR = 1e-9

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]
Tensors = dict[str, torch.Tensor]


def residual_correlation(
    points: torch.Tensor,
    lengthscale: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    inducing: torch.Tensor | None = None,
    projections: torch.Tensor | None = None,
    residual_variance: torch.Tensor | None = None,
    **params: Any,
) -> Tensors:
    """Return the checkpoints of `points` (n, D) at `rows` (r,) and `columns` (c,)."""
    squared = params.get("form", of_differences)(points, lengthscale)  # (n, n)
    covariance = {"rbf": rbf, "matern52": stationary.matern52}[params["kernel"]](squared, params["variance"])  # (n, n)
    found: Tensors = {}
    if inducing is not None:
        m, amount = len(inducing), params["jitter"] * params["variance"]
        found["inducing_kernel"] = covariance[inducing][:, inducing] + amount * torch.eye(m)  # (m, m)
        found["cholesky"] = factors.cholesky(found["inducing_kernel"])  # (m, m)
        projections = factors.solved(found["cholesky"], covariance[:, inducing])  # (n, m)
        residual_variance = (params["variance"] - (projections * projections).sum(-1)).clamp_min(FLOOR)  # (n,)
        found |= {"projections": projections, "residual_variance": residual_variance}
    assert projections is not None  # noqa: S101
    assert residual_variance is not None  # noqa: S101
    block = covariance[rows][:, columns]  # (r, c)
    left = block - projections[rows] @ projections[columns].T  # (r, c)
    product = residual_variance[rows][:, None] * residual_variance[columns]  # (r, c)
    rho = (left / torch.sqrt(product.clamp_min(FLOOR**2))).clamp(-1, 1)  # (r, c)
    rho = torch.where(product == 0, 0.0, rho)
    distance = torch.where(rows[:, None] == columns, 0.0, torch.sqrt(1 - rho.abs()))  # (r, c)
    found |= {"kernel_block": block, "residual_covariance": left, "correlation": rho, "distance": distance}
    return found | {"within_radius": (distance <= params["radius"] + 1e-9).long()}


def expanded(**given: Any) -> Tensors:
    """Return the checkpoints by expanded distances."""
    return residual_correlation(**given, form=of_expansion)


def of_differences(x: torch.Tensor, lengthscale: torch.Tensor) -> torch.Tensor:
    """Return squared distances in lengthscales, (n, n)."""
    return (((x[:, None] - x[None]) / lengthscale) ** 2).sum(-1)


def of_expansion(x: torch.Tensor, lengthscale: torch.Tensor) -> torch.Tensor:
    """Return them from |x|^2 + |y|^2 - 2 x.y about the mean, (n, n)."""
    centre = torch.from_numpy(x.numpy().mean(0))  # (D,), not perturbed: where it stands does not matter
    x = (x - centre) / lengthscale
    norms = (x * x).sum(-1)  # (n,)
    return (norms[:, None] + norms - 2 * (x @ x.T)).clamp_min(0)


def rbf(squared: torch.Tensor, variance: float) -> torch.Tensor:
    """Return variance exp(-squared / 2)."""
    return variance * torch.exp(-0.5 * squared)


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the residual covariance, and the Schur complement in decimal arithmetic of 50 digits, (r, c)."""
    if "inducing" not in given or 0 in golden["correlation"].shape:
        return None
    with localcontext(prec=50):
        x = [[Decimal(v) for v in row] for row in given["points"].tolist()]
        scale = [Decimal(v) for v in given["lengthscale"].tolist()]
        scale = scale * (len(x[0]) // len(scale))

        def k(i: int, j: int) -> Decimal:
            squared = sum((((a - b) / s) ** 2 for a, b, s in zip(x[i], x[j], scale, strict=True)), Decimal(0))
            if given["kernel"] == "rbf":
                return Decimal(given["variance"]) * (-squared / 2).exp()
            a = (5 * squared).sqrt()
            return Decimal(given["variance"]) * (1 + a + a * a / 3) * (-a).exp()

        rows, columns, u = (given[name].tolist() for name in ("rows", "columns", "inducing"))
        added = Decimal(given["jitter"]) * Decimal(given["variance"])
        matrix = [[k(i, j) + (added if i == j else 0) for j in u] for i in u]
        solution = eliminated(matrix, [[k(i, j) for j in columns] for i in u])  # (m, c)
        cross = [[k(i, j) for j in u] for i in rows]  # (r, m)
        wanted = [
            [
                float(k(i, j) - sum(v * s[b] for v, s in zip(cross[a], solution, strict=True)))
                for b, j in enumerate(columns)
            ]
            for a, i in enumerate(rows)
        ]
    return golden["residual_covariance"], np.array(wanted), np.array(1e-13 * given["variance"])


def eliminated(matrix: list[list[Decimal]], right: list[list[Decimal]]) -> list[list[Decimal]]:
    """Return the solution of a positive system by Gauss and Jordan's elimination, the shape of `right`."""
    table = [[*a, *b] for a, b in zip(matrix, right, strict=True)]
    for j in range(len(table)):
        table[j] = [value / table[j][j] for value in table[j]]
        for i in range(len(table)):
            if i != j:
                factor = table[i][j]
                table[i] = [a - factor * b for a, b in zip(table[i], table[j], strict=True)]
    return [row[len(table) :] for row in table]


def of_factor(given: Given, golden: Goldens) -> tuple[Array, Array, float] | None:
    """Return L L^T and the kernel of the inducing points, (m, m)."""
    if "cholesky" not in golden:
        return None
    factor = golden["cholesky"]
    return factor @ factor.T, golden["inducing_kernel"], 1e-14 * given["variance"]


def of_variances(given: Given, golden: Goldens) -> tuple[Array, Array, float] | None:
    """Return the residual variances, and what the projections leave, (n,)."""
    if "projections" not in golden:
        return None
    left = given["variance"] - np.linalg.norm(golden["projections"], axis=1) ** 2
    return golden["residual_variance"], np.maximum(left, 1e-9), 1e-14 * given["variance"]


def of_ranges(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the distances, and those of the correlations, 0 where a point meets itself, (r, c)."""
    if "distance" not in golden:
        return None
    itself = given["rows"][:, None] == given["columns"]
    wanted = np.where(itself, 0, np.sqrt(np.clip(1 - np.abs(golden["correlation"]), 0, 1)))
    return golden["distance"], wanted, np.array(1e-15)


def of_triangles(given: Given, golden: Goldens) -> tuple[Array, int] | None:
    """Return by how much distances of all pairs break the triangle inequality, (n, n, n), and 0."""
    d = golden.get("distance", np.empty(0))
    if d.shape != (len(given["points"]),) * 2 or not np.array_equal(given["rows"], given["columns"]):
        return None
    return np.maximum(d[:, None, :] - d[:, :, None] - d[None, :, :], 0), 0


def of_symmetry(given: Given, golden: Goldens) -> tuple[Array, Array, float] | None:
    """Return the distances and their mirror image, (r, r)."""
    if "distance" not in golden or not np.array_equal(given["rows"], given["columns"]):
        return None
    return golden["distance"], golden["distance"].T, 1e-14


def of_radius(given: Given, golden: Goldens) -> tuple[Array, bool] | None:
    """Return where a distance is the radius exactly, or farther from it than float32 errs, and True, (r, c)."""
    if "within_radius" not in golden:
        return None
    gap = np.abs(golden["distance"] - given["radius"])
    return (gap <= 1e-15) | (gap > 1e-3) | (given["radius"] >= 1), True


def of_near_pairs(given: Given, golden: Goldens) -> tuple[Array, bool] | None:
    """Return where 1 - |rho| is 0 exactly or not small, so that its root is no rounding error, and True, (r, c)."""
    if "distance" not in golden:
        return None
    left = 1 - np.abs(golden["correlation"])
    return (left == 0) | (left > 1e-4) | (given["rows"][:, None] == given["columns"]), True


RELATIONS = {
    "the residual covariance is the Schur complement in 50 decimal digits, to 1e-13 of the variance": in_decimal,
    "L L^T is the kernel of the inducing points, to 1e-14 of the variance": of_factor,
    "p is what V leaves of the variance, to 1e-14 of it": of_variances,
    "the distance is that of the correlation, between 0 and 1": of_ranges,
    "the distance satisfies the triangle inequality": of_triangles,
    "the distance is symmetric, to 1e-14": of_symmetry,
    "a distance is the radius exactly or 1e-3 from it, unless all are within": of_radius,
    "no distance of two points is the root of a rounding error": of_near_pairs,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, residual_correlation, RELATIONS
)
perturbed = operation.generator(__file__, expanded, RELATIONS).perturbed
