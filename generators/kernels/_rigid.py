"""What the references of arms share: standard Denavit-Hartenberg frames, multiplied. B poses, n joints."""

import torch


def frames(q: torch.Tensor, dh: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each joint's origin (B, n, 3) and rotation (B, n, 3, 3) in the base frame."""
    a, alpha, d, offset = dh.unbind(1)  # (n,) each
    theta = q + offset  # (B, n)
    ct, st = torch.cos(theta), torch.sin(theta)  # (B, n)
    ca, sa = torch.cos(alpha).expand_as(ct), torch.sin(alpha).expand_as(ct)  # (B, n)
    zero = torch.zeros_like(ct)  # (B, n)
    rows = [[ct, -st * ca, st * sa], [st, ct * ca, -ct * sa], [zero, sa, ca]]
    local = torch.stack([torch.stack(row, -1) for row in rows], -2)  # (B, n, 3, 3)
    shift = torch.stack([a * ct, a * st, d.expand_as(ct)], -1)  # (B, n, 3)
    positions, rotations = [shift[:, 0]], [local[:, 0]]
    for j in range(1, q.shape[1]):
        positions.append(positions[-1] + (rotations[-1] @ shift[:, j, :, None])[:, :, 0])  # (B, 3)
        rotations.append(rotations[-1] @ local[:, j])  # (B, 3, 3)
    return torch.stack(positions, 1), torch.stack(rotations, 1)
