"""The reference of the suite `attention`: torch operations in float64 on the CPU.

Source: Vaswani et al. 2017, equation 1; gradients as in Dao et al. 2022, appendix B. B batch, H query heads, G key and
value heads, S queries, T keys, D width of queries and keys, E of values.
"""

import math
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]
INFINITE = float("inf")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None = None,
    slopes: Tensor | None = None,
    cotangent: Tensor | None = None,
    *,
    scale: float | None = None,
    soft_cap: float | None = None,
    **band: Any,
) -> dict[str, Tensor]:
    """Return the checkpoints of a case; the scale multiplies q, as it may, so that its rounding is expected."""
    B, H, S, D = q.shape
    G, T = k.shape[1:3]
    factor = torch.tensor(D, dtype=torch.float64).sqrt().reciprocal() if scale is None else scale  # one for all scores
    keys, values = (x.repeat_interleave(H // G, 1) for x in (k, v))  # (B, H, T, D), (B, H, T, E)
    scores = (q * factor) @ keys.mT  # (B, H, S, T)
    tangent = torch.tanh(scores / soft_cap) if soft_cap else None  # (B, H, S, T)
    masked = scores if tangent is None else tangent * soft_cap
    allowed, distance = seen(S, T, **band)  # (S, T) each
    if slopes is not None:
        masked = masked - slopes[:, None, None] * distance
    masked = masked.where(allowed, -torch.inf)  # (B, H, S, T)
    logits = masked
    if sinks is not None or T == 0:
        sink = torch.tensor(-torch.inf) if sinks is None else sinks[:, None, None]
        logits = torch.cat([masked, sink.expand(B, H, S, 1)], -1)  # (B, H, S, T + 1)
    probabilities = torch.softmax(logits, -1)[..., :T].where(allowed, 0.0)  # (B, H, S, T): NaN where nothing is seen
    output = probabilities @ values  # (B, H, S, E)
    found = {
        "scores": scores,
        "masked_scores": masked,
        "probabilities": probabilities,
        "log_sum_exp": torch.logsumexp(logits, -1),
        "output": output,
    }
    if cotangent is None:
        return found
    of_row = (cotangent * output).sum(-1, keepdim=True)  # (B, H, S, 1)
    of_scores = probabilities * (cotangent @ values.mT - of_row)  # (B, H, S, T)
    if tangent is not None:
        of_scores = of_scores * (1 - tangent.square())
    return found | {
        "dq": of_scores @ keys * factor,
        "dk": (of_scores.mT @ (q * factor)).unflatten(1, (G, H // G)).sum(2),
        "dv": (probabilities.mT @ cotangent).unflatten(1, (G, H // G)).sum(2),
    }


def seen(
    S: int,
    T: int,
    *,
    causal: bool,
    align: str = "bottom_right",
    window: int | None = None,
    global_tokens: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return which keys each query sees, and how far it is from them, (S, T) each."""
    position = torch.arange(S)[:, None] + (T - S if align == "bottom_right" else 0)  # (S, 1)
    ahead = torch.arange(T) - position  # (S, T)
    band = torch.ones(S, T, dtype=torch.bool)
    if window is not None:
        band = (ahead > -window) if causal else (2 * ahead.abs() <= window)
        band = band | (torch.arange(T) < global_tokens) | (position < global_tokens)
    return band & (ahead <= 0) if causal else band, ahead.abs()


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def sees(i: int, j: int, S: int, T: int, given: Given) -> bool:
    """Say whether query i sees key j, from the words of the contract."""
    p = i if given.get("align") == "top_left" else i + T - S
    if given["causal"] and j > p:
        return False
    if given.get("window") is None or j < given.get("global_tokens", 0) or p < given.get("global_tokens", 0):
        return True
    return p - j < given["window"] if given["causal"] else abs(p - j) <= given["window"] / 2


def sight(given: Given) -> Array:
    """Return which keys each query sees, by the words of the contract, (S, T)."""
    S, T = given["q"].shape[2], given["k"].shape[2]
    return np.array([[sees(i, j, S, T, given) for j in range(T)] for i in range(S)], bool).reshape(S, T)


def scale_of(given: Given) -> float:
    """Return the scale of a case."""
    return float(given.get("scale") or 1 / math.sqrt(given["q"].shape[3]))


def by_torch(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return the outputs, and those of torch's fused attention with grouped heads, of what it knows."""
    if "soft_cap" in given or "sinks" in given or given["k"].shape[2] == 0:
        return None
    q, k, v = (torch.from_numpy(given[name]) for name in "qkv")
    S, T = q.shape[2], k.shape[2]
    start = 0 if given.get("align") == "top_left" else T - S
    bias = np.where(sight(given), 0.0, -np.inf)[None]  # (1, S, T)
    if "slopes" in given:
        distance = np.array([[abs(i + start - j) for j in range(T)] for i in range(S)])
        bias = bias - given["slopes"][:, None, None] * distance
    wanted = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=torch.from_numpy(bias)[None], scale=given.get("scale"), enable_gqa=True
    )
    return golden["output"], wanted.numpy(), 1e-13 * np.abs(given["v"]).max() * conditioning(given)


def conditioning(given: Given) -> float:
    """Return how much larger than 10 scores may be: the exponential of a score errs as much as the score."""
    largest = np.abs(given["q"]).max(initial=0) * np.abs(given["k"]).max(initial=0) * given["q"].shape[3]
    return max(1.0, float(largest * scale_of(given) / 10))


def in_decimal(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return log_sum_exp and output of the last head of small cases, and those of 40 decimal digits."""
    B, H, S = given["q"].shape[:3]
    T = given["k"].shape[2]
    if S * T > 130 or T == 0:
        return None
    sight_of, found, wanted = sight(given), [], []
    with localcontext(prec=40):
        for b in range(B):
            for i in range(S):
                keys = np.flatnonzero(sight_of[i])
                logits = [decimal_score(given, b, H - 1, i, int(j)) for j in keys]
                weights = [logit.exp() for logit in logits]
                total = sum(weights, Decimal(0))
                if "sinks" in given:
                    total += Decimal(given["sinks"][-1].item()).exp()
                columns = given["v"][b, -1, keys].T.tolist()  # (E, seen keys)
                sums = [
                    sum((w * Decimal(x) for w, x in zip(weights, column, strict=True)), Decimal(0))
                    for column in columns
                ]
                wanted.append([float(total.ln()) if total else -np.inf, *(float(x / (total or 1)) for x in sums)])
                found.append([golden["log_sum_exp"][b, -1, i], *golden["output"][b, -1, i]])
    return np.array(found), np.array(wanted), 1e-13 * np.abs(given["v"]).max() * conditioning(given)


def decimal_score(given: Given, b: int, h: int, i: int, j: int) -> Decimal:
    """Return a masked score of the last key head in decimal arithmetic."""
    S, T, D = given["q"].shape[2], given["k"].shape[2], given["q"].shape[3]
    pairs = zip(given["q"][b, h, i].tolist(), given["k"][b, -1, j].tolist(), strict=True)
    scale = Decimal(given["scale"]) if "scale" in given else 1 / Decimal(D).sqrt()
    score = sum((Decimal(x) * Decimal(y) for x, y in pairs), Decimal(0)) * scale
    if "soft_cap" in given:
        cap = Decimal(given["soft_cap"])
        power = (2 * score / cap).exp()
        score = cap * (power - 1) / (power + 1)
    if "slopes" in given:
        start = 0 if given.get("align") == "top_left" else T - S
        score -= Decimal(given["slopes"][h].item()) * abs(i + start - j)
    return score


def by_scipy(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return log_sum_exp, and SciPy's of the masked scores and the sinks."""
    if "masked_scores" not in golden:
        return None
    logits = golden["masked_scores"]
    sinks = given.get("sinks", np.full(logits.shape[1], -np.inf))
    logits = np.concatenate([logits, np.broadcast_to(sinks[:, None, None], (*logits.shape[:3], 1))], -1)
    with np.errstate(divide="ignore"):
        return golden["log_sum_exp"], logsumexp(logits, -1), 1e-14 * conditioning(given)


def totals(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return the sums of probabilities, and 1 less the part of the sink, or 0 where nothing is seen."""
    if "probabilities" not in golden:
        return None
    alone = ~sight(given).any(-1)  # (S,)
    wanted = np.where(alone, 0.0, np.ones_like(golden["log_sum_exp"]))
    if "sinks" in given:
        wanted = np.where(alone, 0.0, 1 - np.exp(given["sinks"][:, None] - golden["log_sum_exp"]))
    return golden["probabilities"].sum(-1), wanted, 1e-13


def by_autograd(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Return the gradients, and those of torch's autograd through logarithms of probabilities, head by head."""
    if "cotangent" not in given:
        return None
    q, k, v = (torch.tensor(given[name], requires_grad=True) for name in "qkv")
    H, S, T = q.shape[1], q.shape[2], k.shape[2]
    start = 0 if given.get("align") == "top_left" else T - S
    distance = torch.tensor([[abs(i + start - j) for j in range(T)] for i in range(S)], dtype=torch.float64)
    rows = torch.from_numpy(sight(given))
    total = torch.zeros((), dtype=torch.float64)
    for h in range(H):
        g = h // (H // k.shape[1])
        logits = torch.einsum("bsd,btd->bst", q[:, h], k[:, g]) * scale_of(given)
        if "soft_cap" in given:
            logits = given["soft_cap"] * torch.tanh(logits / given["soft_cap"])
        if "slopes" in given:
            logits = logits - given["slopes"][h] * distance
        logits = torch.where(rows, logits, -1e4)
        if "sinks" in given:
            sink = torch.full((*logits.shape[:2], 1), float(given["sinks"][h]), dtype=torch.float64)
            logits = torch.cat([logits, sink], -1)
        weights = torch.log_softmax(logits, -1).exp()[..., :T] * rows
        total = (
            total + (torch.einsum("bst,bte->bse", weights, v[:, g]) * torch.from_numpy(given["cotangent"][:, h])).sum()
        )
    total.backward()
    found = np.concatenate([golden[f"d{name}"].reshape(-1) for name in "qkv"])
    return found, np.concatenate([x.grad.reshape(-1).numpy() for x in (q, k, v)]), 1e-12


RELATIONS = {
    "outputs are those of torch's scaled_dot_product_attention with enable_gqa, to 1e-13": by_torch,
    "log_sum_exp and outputs agree with 40 decimal digits to 1e-13": in_decimal,
    "log_sum_exp is SciPy's of the masked scores and the sinks": by_scipy,
    "probabilities and the sink's part add up to 1, probabilities to 0 where nothing is seen": totals,
    "gradients are torch's autograd's to 1e-12": by_autograd,
    "scores are -inf where a key is not seen, by the words of the contract, and nowhere else": lambda given, golden: (
        (np.isneginf(golden["masked_scores"]), ~sight(given)) if "masked_scores" in golden else None
    ),
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, attention, RELATIONS, versions=("torch", "scipy")
)
