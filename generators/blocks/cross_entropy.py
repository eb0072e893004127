"""The reference of the suite `cross_entropy`: torch operations in float64 on the CPU.

Source: `torch.nn.functional.cross_entropy`, written out, its log_softmax too; and its gradient from the logarithms of
the probabilities, as torch's backward has it. N rows, V classes.
"""

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]


def cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
) -> dict[str, torch.Tensor]:
    """Return the logarithm of the sum of exponentials (N,), the loss, and the gradient of its sum (N, V)."""
    N, V = logits.shape
    kept = target != ignore_index  # (N,)
    label = torch.where(kept, target, 0)[:, None]  # (N, 1)
    factors = torch.ones(V) if weight is None else weight  # (V,)
    chosen = factors[label[:, 0]]  # (N,)
    top = logits.amax(-1, keepdim=True)  # (N, 1)
    logarithm = torch.log(torch.exp(logits - top).sum(-1, keepdim=True))  # (N, 1)
    terms = torch.stack([logits, (-top).expand(N, V), (-logarithm).expand(N, V)])  # (3, N, V)
    log_p = terms.sum(0)  # (N, V), added in any order in the format of sums: kernels keep top + logarithm
    alone, each = shares(label_smoothing, V)  # () each
    losses = alone * -(chosen * log_p.gather(1, label)[:, 0])  # (N,)
    if label_smoothing:
        losses = losses - each * (factors * log_p).sum(-1)
    losses = torch.where(kept, losses, 0.0)
    divisor = divided_by(kept, chosen, weight) if reduction == "mean" else torch.ones(())
    spread = each * factors  # (V,)
    share = spread.expand(N, V).scatter(1, label, (spread[label[:, 0]] + alone * chosen)[:, None])  # (N, V)
    mass = spread.sum() + alone * chosen  # (N,)
    gradient = mass[:, None] * log_p.exp() - share  # (N, V)
    return {
        "logsumexp": torch.logsumexp(logits, -1),
        "loss": losses if reduction == "none" else losses.sum() / divisor,
        "grad_logits": torch.where(kept[:, None], gradient / divisor, 0.0),
    }


def shares(label_smoothing: float, V: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the part of the target alone and that of each class: tensors, since either is rounded once for all."""
    smoothing = torch.tensor(label_smoothing)
    return (1 - smoothing, smoothing / V) if label_smoothing else (torch.ones(()), smoothing)


def divided_by(kept: torch.Tensor, chosen: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Return the sum of the factors of the rows that count, which is their number without class weights."""
    return kept.sum().double() if weight is None else torch.where(kept, chosen, 0.0).sum()


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def by_autograd(given: Given, golden: Goldens) -> tuple[torch.Tensor, Array, Array] | None:
    """Return torch's own loss, and its gradient by autograd."""
    if not golden:
        return None
    params = {name: torch.from_numpy(given[name]) for name in ("logits", "target", "weight") if name in given}
    logits = params.pop("logits").requires_grad_()
    options = {name: given[name] for name in ("reduction", "ignore_index", "label_smoothing")}
    target = params.pop("target")
    loss = torch.nn.functional.cross_entropy(logits, target, params.get("weight"), **options)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient.numpy(), golden["loss"]


def loss_of_torch(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the loss, and torch's."""
    found = by_autograd(given, golden)
    if found is None:
        return None
    scale = np.maximum(np.abs(np.where(np.isfinite(given["logits"]), given["logits"], 0)).max(initial=1), 1)
    size = max(1, golden["logsumexp"].size)
    return golden["loss"], np.asarray(found[0]), np.asarray(1e-15 * size * scale)


def gradient_of_torch(given: Given, golden: Goldens) -> tuple[Array, Array, float] | None:
    """Return the gradient, and torch's by autograd."""
    found = by_autograd(given, golden)
    return None if found is None else (golden["grad_logits"], found[1], 1e-13)


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the losses of rows, and the definition computed in decimal arithmetic of 40 digits."""
    x, target = given["logits"], given["target"]
    if not golden or given["reduction"] != "none":
        return None
    N, V = x.shape
    wanted = np.zeros(N)
    with localcontext(prec=40):
        e = Decimal(given["label_smoothing"])
        w = [Decimal(float(value)) for value in given.get("weight", np.ones(V))]
        for n in np.flatnonzero(target != given["ignore_index"]):
            row = [Decimal(value) for value in x[n].tolist()]
            total = sum((value.exp() for value in row), Decimal(0)).ln()
            spread = sum((w[c] * (row[c] - total) for c in range(V)), Decimal(0))
            wanted[n] = -(1 - e) * w[target[n]] * (row[target[n]] - total) - e / V * spread
    return golden["loss"], wanted, 1e-15 * np.abs(x).max(-1) + 1e-14


def sums_of_gradient(_: Given, golden: Goldens) -> tuple[Array, int, float] | None:
    """Return what the gradient of each row adds up to."""
    return (golden["grad_logits"].sum(-1), 0, 1e-12) if golden else None


RELATIONS = {
    "the loss is torch.nn.functional.cross_entropy, to 1e-15 of the largest logit": loss_of_torch,
    "the gradient is autograd's, to 1e-13": gradient_of_torch,
    "a row's loss is the definition in 40 decimal digits, to 1e-15 of the largest logit": in_decimal,
    "the gradient of a row adds up to 0, to 1e-12": sums_of_gradient,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, cross_entropy, RELATIONS
)
