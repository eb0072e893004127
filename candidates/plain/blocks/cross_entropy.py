"""Cross-entropy and its gradient in plain NumPy: the definition, to read and to copy.

As `torch.nn.functional.cross_entropy` documents it; label smoothing of Szegedy et al., "Rethinking the Inception
Architecture" (2016), section 7. Computed in float32 (float64 where the logits are), and rounded once to the format of
the logits. N rows, V classes.
"""

import numpy as np


def cross_entropy(logits, target, weight=None, *, reduction, ignore_index, label_smoothing):
    """Return the loss of `logits` (N, V) for `target` (N,), and the gradient of its sum in the logits."""
    refuse(logits, target, weight, reduction, ignore_index, label_smoothing)
    scores = wide(logits)  # (N, V)
    kept = counted(target, ignore_index)  # (N,)
    label = np.where(kept, target, 0)  # (N,)
    factors = class_factors(weight, scores)  # (V,)
    top, total = sums(scores)  # (N, 1) each
    log_p = log_probabilities(scores, top, total)  # (N, V)
    losses = masked(row_losses(log_p, label, factors, label_smoothing), kept)  # (N,)
    divisor = denominator(kept, factors[label], reduction)
    gradient = row_gradients(np.exp(log_p), label, factors, label_smoothing)  # (N, V)
    return {
        "logsumexp": (top + np.log(total))[:, 0],
        "loss": reduced(losses, divisor, reduction).astype(logits.dtype),
        "grad_logits": scaled(gradient, kept, divisor).astype(logits.dtype),
    }


def counted(target, ignore_index):
    """Say which rows are not ignored, (N,)."""
    return target != ignore_index


def class_factors(weight, scores):
    """Return the factors of the classes, 1 where none are given, (V,)."""
    return np.ones(scores.shape[1], scores.dtype) if weight is None else wide(weight)


def sums(scores):
    """Return the largest of each row, (N, 1), and the sum of the exponentials of what is left without it, (N, 1)."""
    top = scores.max(-1, keepdims=True)
    return top, np.exp(scores - top).sum(-1, keepdims=True)


def log_probabilities(scores, top, total):
    """Return the logarithm of the softmax, (N, V)."""
    return (scores - top) - np.log(total)


def row_losses(log_p, label, factors, smoothing):
    """Return the loss of each row as if none were ignored, (N,)."""
    losses = -(1 - smoothing) * factors[label] * log_p[np.arange(len(label)), label]  # (N,)
    if smoothing:  # 0 times -inf, of a class that is ruled out, is no number
        losses = losses - smoothing / log_p.shape[1] * (factors * log_p).sum(-1)
    return losses


def masked(losses, kept):
    """Return the losses, 0 for rows that are ignored, (N,)."""
    return np.where(kept, losses, 0)


def row_gradients(p, label, factors, smoothing):
    """Return the gradient of each row's loss in its logits, (N, V)."""
    share = np.broadcast_to(smoothing / p.shape[1] * factors, p.shape).copy()  # (N, V)
    share[np.arange(len(label)), label] += (1 - smoothing) * factors[label]
    return share.sum(-1, keepdims=True) * p - share


def denominator(kept, row_factors, reduction):
    """Return what the sum of the losses is divided by."""
    return row_factors[kept].sum() if reduction == "mean" else row_factors.dtype.type(1)


def reduced(losses, divisor, reduction):
    """Return the losses (N,), or their sum over the divisor, ()."""
    if reduction == "none":
        return losses
    with np.errstate(invalid="ignore"):
        return losses.sum() / divisor


def scaled(gradient, kept, divisor):
    """Return the gradient over the divisor, 0 in ignored rows, (N, V)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(kept[:, None], gradient / divisor, 0)


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def refuse(logits, target, weight, reduction, ignore_index, label_smoothing):
    """Raise `ValueError` where the arguments contradict the contract."""
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape} and target {target.shape} must be (N, V) and (N,)")
    if weight is not None and weight.shape != logits.shape[1:]:
        raise ValueError(f"weight {weight.shape} must be {logits.shape[1:]}, one for each class")
    wrong = (target != ignore_index) & ((target < 0) | (target >= logits.shape[1]))
    if wrong.any():
        raise ValueError(f"target {target[wrong][0]} is no class of {logits.shape[1]}, nor ignore_index {ignore_index}")
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction is {reduction!r}, not 'none', 'sum' or 'mean'")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing {label_smoothing} is not from 0 to 1")
