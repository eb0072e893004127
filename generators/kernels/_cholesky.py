"""The Cholesky factor and its triangular solve, written out, so that replays under noise show where rounding comes in.

n rows of k entries.
"""

import torch


def cholesky(matrix: torch.Tensor) -> torch.Tensor:
    """Return the lower triangular factor column by column, (k, k)."""
    columns: list[torch.Tensor] = []
    for j in range(len(matrix)):
        rest = matrix[:, j]  # (k,)
        if j:
            left = torch.stack(columns, dim=1)  # (k, j)
            rest = rest - left @ left[j]
        column = rest / torch.sqrt(rest[j])
        columns.append(torch.where(torch.arange(len(matrix)) >= j, column, 0.0))
    return torch.stack(columns, dim=1)


def solved(factor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return L^-1 of each row by forward substitution, (n, k)."""
    found: list[torch.Tensor] = []
    for j in range(len(factor)):
        rest = rows[:, j]  # (n,)
        if j:
            rest = rest - torch.stack(found, dim=1) @ factor[j, :j]
        found.append(rest / factor[j, j])
    return torch.stack(found, dim=1)
