"""Correct ways to compute a cross-entropy that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
import torch

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

faults = beside(__file__, "cross_entropy_faults")

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def in_torch(*, upcast: bool, function: Callable[..., Any] = torch.nn.functional.cross_entropy) -> Change:
    """Return a change to the whole: torch's function and autograd, in storage or in the format of sums."""

    def change(plain: Any) -> None:
        def cross_entropy(logits: Array, target: Array, weight: Array = None, **params: Any) -> dict[str, Array]:
            def tensor(x: Array) -> Any:
                x = plain.wide(x) if upcast else x
                return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))

            given = tensor(logits).requires_grad_()
            factors = None if weight is None else tensor(weight)
            loss = function(given, torch.from_numpy(target.astype(np.int64)), factors, **params)
            (gradient,) = torch.autograd.grad(loss.sum(), given)
            found = {"loss": loss.detach(), "grad_logits": gradient}
            lse = torch.logsumexp(torch.from_numpy(np.array(plain.wide(logits))), -1).numpy()
            return {"logsumexp": lse} | {name: x.double().numpy().astype(logits.dtype) for name, x in found.items()}

        plain.cross_entropy = cross_entropy

    return change


def from_log_softmax(
    logits: Any, target: Any, weight: Any, *, reduction: str, ignore_index: int, label_smoothing: float
) -> Any:
    """Return it as training code writes it out: log_softmax, gather, mask."""
    return reduced(torch.log_softmax(logits, -1), target, weight, reduction, ignore_index, label_smoothing)


def reduced(log_p: Any, target: Any, weight: Any, reduction: str, ignore_index: int, label_smoothing: float) -> Any:
    """Return the loss of logarithms of probabilities."""
    kept = target != ignore_index
    label = target.masked_fill(~kept, 0)
    factors = torch.ones_like(log_p[0] if len(log_p) else log_p.sum(0)) if weight is None else weight
    losses = -(1 - label_smoothing) * log_p.gather(1, label[:, None])[:, 0] * factors[label]
    if label_smoothing:
        losses = losses - label_smoothing * (log_p * factors).sum(-1) / log_p.shape[1]
    losses = losses.masked_fill(~kept, 0)
    if reduction == "none":
        return losses
    return losses.sum() / (factors[label] * kept).sum() if reduction == "mean" else losses.sum()


def all_in_storage(
    logits: Any, target: Any, weight: Any, *, reduction: str, ignore_index: int, label_smoothing: float
) -> Any:
    """Return it with every operation rounded to storage, those within log_softmax too."""
    shifted = logits - logits.amax(-1, keepdim=True).detach() if len(logits) else logits
    log_p = shifted - shifted.exp().sum(-1, keepdim=True).log()
    return reduced(log_p, target, weight, reduction, ignore_index, label_smoothing)


def total(formula: Callable[[Array], Array]) -> Change:
    """Return a change to how exponentials are added: `formula(powers)` of (N, V), (N, 1)."""
    change: Change = faults.total(formula)
    return change


def in_blocks(powers: Array) -> Array:
    """Add blocks of 256 classes, then the blocks in order, as kernels for a large vocabulary do."""
    starts = range(0, powers.shape[1], 256)
    sums = np.stack([powers[:, i : i + 256].sum(-1) for i in starts], -1)
    return np.add.accumulate(sums, axis=-1)[:, -1:]


def reversed_in_lanes(powers: Array) -> Array:
    """Add in 512 lanes from the last class to the first, then the lanes as a binary tree."""
    lanes = np.zeros((len(powers), 512), powers.dtype)
    for start in reversed(range(0, powers.shape[1], 512)):
        part = powers[:, start : start + 512]
        lanes[:, : part.shape[1]] += part
    while lanes.shape[1] > 1:
        lanes = lanes[:, 0::2] + lanes[:, 1::2]
    return lanes


def online(scores: Array) -> tuple[Array, Array]:
    """Keep a running maximum and a running sum over blocks of 1024 classes."""
    top, sums = np.full((len(scores), 1), -np.inf, scores.dtype), np.zeros((len(scores), 1), scores.dtype)
    for start in range(0, scores.shape[1], 1024):
        block = scores[:, start : start + 1024]
        higher = np.maximum(top, block.max(-1, keepdims=True))
        shift = np.where(np.isinf(higher), 0, higher).astype(scores.dtype)
        sums = sums * np.exp(top - shift) + np.exp(block - shift).sum(-1, keepdims=True)
        top = higher
    return top, sums


def exp2(z: Array) -> Array:
    """Return exp by a multiplication with log2(e)."""
    return np.exp2(z * z.dtype.type(np.log2(np.e)))


def dense_targets(plain: Any) -> None:
    """Make targets a matrix of shares and compute losses and gradients from that."""

    def share(like: Array, y: Array, w: Array, e: float) -> Array:
        return w * ((1 - e) * faults.one_hot(like, y) + e / like.shape[1])

    faults.shares(share)(plain)


def by_quotient(right: Any) -> Any:
    """Take probabilities as exponentials over their sum instead of exponentials of log p."""

    def row_gradients(p: Array, label: Array, factors: Array, smoothing: float) -> Array:
        powers = p / p.max(-1, keepdims=True)
        return right(powers * (1 / powers.sum(-1, keepdims=True)), label, factors, smoothing)

    return row_gradients


def less_logsumexp(scores: Array, top: Array, total: Array) -> Array:
    """Return x - (max + log(sum)), as kernels have it that keep the logarithm of the sum for the backward pass."""
    return scores - (top + np.log(total))


def logarithm_first(scores: Array, top: Array, total: Array) -> Array:
    """Return (x - log(sum)) - max."""
    return (scores - np.log(total)) - top


def one_row_at_a_time(plain: Any) -> None:
    """Compute each row by itself, add the losses, and divide at the end, as kernels with a program for each row do."""
    right = plain.cross_entropy

    def cross_entropy(logits: Array, target: Array, weight: Array = None, *, reduction: str, **given: Any) -> Any:
        if len(target) in (0, 1) or (target == given["ignore_index"]).all():
            return right(logits, target, weight, reduction=reduction, **given)
        wide = plain.wide(logits)  # (N, V)
        factors = None if weight is None else plain.wide(weight)
        rows = [
            right(wide[n : n + 1], target[n : n + 1], factors, reduction="sum", **given) for n in range(len(target))
        ]
        kept = plain.counted(target, given["ignore_index"])
        label = np.where(kept, target, 0)
        divisor = plain.denominator(kept, plain.class_factors(factors, wide)[label], reduction)
        losses = np.array([row["loss"] for row in rows])
        gradient = np.concatenate([row["grad_logits"] for row in rows]) / divisor
        return {
            "logsumexp": np.concatenate([row["logsumexp"] for row in rows]),
            "loss": plain.reduced(losses, divisor, reduction).astype(logits.dtype),
            "grad_logits": gradient.astype(logits.dtype),
        }

    plain.cross_entropy = cross_entropy


def weights_over_divisor(plain: Any) -> None:
    """Divide the factors of the rows, before losses and gradients are multiplied by them."""
    counted, right = plain.counted, plain.cross_entropy

    def cross_entropy(logits: Array, target: Array, weight: Array = None, *, reduction: str, **given: Any) -> Any:
        kept = counted(target, given["ignore_index"])
        if reduction != "mean" or not kept.any() or kept.shape != logits.shape[:1]:
            return right(logits, target, weight, reduction=reduction, **given)
        plain.refuse(logits, target, weight, reduction, *given.values())
        wide = plain.wide(logits)
        factors = plain.class_factors(weight, wide)
        divisor = plain.denominator(kept, factors[np.where(kept, target, 0)], reduction)
        found = right(wide, target, factors / divisor, reduction="sum", **given)
        return {
            "logsumexp": found["logsumexp"],
            "loss": found["loss"].astype(logits.dtype),
            "grad_logits": found["grad_logits"].astype(logits.dtype),
        }

    plain.cross_entropy = cross_entropy


def scaled_first(right: Any) -> Any:
    """Multiply the gradient by the inverse of the divisor."""
    return lambda gradient, kept, divisor: right(gradient * (1 / divisor), kept, divisor.dtype.type(1))


def divided_first(right: Any) -> Any:
    """Divide each row's loss before they are added."""
    return lambda losses, divisor, how: right(
        losses if how == "none" else losses / divisor,
        divisor if not len(losses) or not divisor else divisor * 0 + 1,
        how,
    )


def in_order(right: Any) -> Any:
    """Add the rows' losses one after the other."""

    def reduced(losses: Array, divisor: Any, reduction: str) -> Array:
        if reduction == "none" or not len(losses):
            return right(losses, divisor, reduction)
        return np.add.accumulate(losses[::-1])[-1] / divisor

    return reduced


def compacted(plain: Any) -> None:
    """Leave ignored rows out before anything is computed, and put their zeros back."""
    right = plain.cross_entropy

    def cross_entropy(logits: Array, target: Array, weight: Array = None, **params: Any) -> dict[str, Array]:
        rows = np.flatnonzero(target != params["ignore_index"])
        found = right(logits[rows], target[rows], weight, **params)
        gradient = np.zeros_like(logits)
        gradient[rows] = found["grad_logits"]
        loss = found["loss"]
        if params["reduction"] == "none":
            loss = np.zeros(len(logits), logits.dtype)
            loss[rows] = found["loss"]
        return {"loss": loss, "grad_logits": gradient}

    plain.cross_entropy = cross_entropy


def by_scipy(plain: Any) -> None:
    """Take the logarithm of the sum of exponentials from SciPy, in float64."""
    right = plain.cross_entropy

    def cross_entropy(logits: Array, target: Array, weight: Array = None, **params: Any) -> dict[str, Array]:
        found = right(logits, target, weight, **params)
        lse = scipy.special.logsumexp(logits.astype(np.float64), axis=-1)
        return found | {"logsumexp": lse.astype(plain.wide(logits).dtype)}

    plain.cross_entropy = cross_entropy


def in_float64(plain: Any) -> None:
    """Compute all in float64 and round at the end."""
    right = plain.cross_entropy

    def cross_entropy(logits: Array, target: Array, weight: Array = None, **params: Any) -> dict[str, Array]:
        factors = None if weight is None else weight.astype(np.float64)
        found = right(logits.astype(np.float64), target, factors, **params)
        return {
            name: array.astype(plain.wide(logits).dtype if name == "logsumexp" else logits.dtype)
            for name, array in found.items()
        }

    plain.cross_entropy = cross_entropy


FORMULATIONS = (
    Formulation("torch", "torch.nn.functional.cross_entropy and autograd in storage", in_torch(upcast=False),
                EACH_OPERATION),
    Formulation("torch_upcast", "likewise in float32, rounded at the end", in_torch(upcast=True)),
    Formulation("torch_written_out", "log_softmax, gather and mask, and autograd, in storage",
                in_torch(upcast=False, function=from_log_softmax), EACH_OPERATION),
    Formulation("all_in_storage", "every operation in storage, those of log_softmax too, and autograd",
                in_torch(upcast=False, function=all_in_storage), EACH_OPERATION),
    Formulation("less_logsumexp", "x - logsumexp, as fused kernels have it",
                wrap(log_probabilities=lambda _: less_logsumexp)),
    Formulation("logarithm_first", "(x - log(sum)) - max", wrap(log_probabilities=lambda _: logarithm_first)),
    Formulation("one_row_at_a_time", "each row by itself, the divisor at the end", one_row_at_a_time),
    Formulation("weights_over_divisor", "weights divided before they multiply", weights_over_divisor),
    Formulation("sums_in_blocks", "exponentials added in blocks of 256 classes", total(in_blocks)),
    Formulation("sums_in_lanes", "exponentials added in 512 lanes, the last classes first", total(reversed_in_lanes)),
    Formulation("online", "running maximum and sum, in blocks of 1024 classes", wrap(sums=lambda _: online)),
    Formulation("exp2", "2 to the power of a multiple of log2(e)", faults.exponentials(exp2)),
    Formulation("dense_targets", "targets as a matrix of shares", dense_targets),
    Formulation("probabilities_by_quotient", "the gradient from exponentials times 1 / sum",
                wrap(row_gradients=by_quotient)),
    Formulation("gradient_times_inverse", "the gradient times the inverse of the divisor", wrap(scaled=scaled_first)),
    Formulation("losses_in_order", "losses added from the last to the first", wrap(reduced=in_order)),
    Formulation("divided_first", "losses divided before they are added", wrap(reduced=divided_first)),
    Formulation("compacted", "ignored rows left out beforehand", compacted),
    Formulation("scipy", "scipy.special.logsumexp", by_scipy),
    Formulation("in_float64", "all in float64, rounded at the end", in_float64),
)  # fmt: skip
