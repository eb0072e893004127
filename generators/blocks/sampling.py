"""The reference of the suite `sampling`: torch operations in float64 on the CPU.

Source: transformers, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper and
MinPLogitsWarper in the order in which `generate` calls them; presence and frequency penalties of vLLM's apply_penalties
(vllm/model_executor/layers/utils.py). B rows, T previous tokens, V vocabulary.

Which tokens are kept is decided in NumPy, by sums over all that is more probable, where no noise reaches it.
"""

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.generation import logits_process

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]

CLEAR_LOGITS, CLEAR_SUMS = 2.0**-6, 0.03
"""How far a cut is from logits, as a part of the largest of the row, and sums of probabilities from p."""
CLEAR_OF_FLOAT32 = 1e-5
"""Both where the vocabulary is of more than 1000 tokens and the logits are no numbers of 8 bits."""


def sampling(logits: torch.Tensor, tokens: torch.Tensor, **of_row: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the checkpoints of a case."""
    given = {"logits": logits, "tokens": tokens, **of_row}
    seen, made = (torch.from_numpy(counts).double() for counts in histories(arrays_of(given)))  # (B, V), (B, V)
    penalty, presence, frequency, temperature = (
        of_row[name][:, None]  # (B, 1)
        for name in ("repetition_penalty", "presence_penalty", "frequency_penalty", "temperature")
    )
    repeated = torch.where(logits < 0, logits * penalty, logits / penalty)  # (B, V)
    penalised = torch.where(seen > 0, repeated, logits)  # (B, V)
    penalised = torch.where(made > 0, penalised - frequency * made - presence, penalised)  # (B, V)
    inverse = 1 / torch.where(temperature == 0, 1.0, temperature)  # (B, 1), one rounding for a row, as it may be
    scaled = torch.where(temperature == 0, penalised, penalised * inverse)  # (B, V)
    greedy, kept = (torch.from_numpy(array) for array in decided(arrays_of(given)))  # (B,), (B, V)
    hidden = scaled.masked_fill(~kept, -torch.inf)  # (B, V)
    top = hidden.amax(1, keepdim=True)  # (B, 1)
    shifted = hidden - top  # (B, V)
    logarithm = torch.log(torch.exp(shifted).sum(1, keepdim=True))  # (B, 1)
    # Some subtract top + logarithm from the logits, others the logarithm from what is shifted: any order will do.
    terms = torch.stack([shifted, top.expand_as(shifted), -top.expand_as(shifted), -logarithm.expand_as(shifted)])
    return {
        "penalised_logits": penalised,
        "greedy_token": greedy,
        "scaled_logits": scaled,
        "kept": kept,
        "number_kept": kept.sum(1),
        "probabilities": torch.softmax(hidden, 1),
        "log_probabilities": terms.sum(0),  # torch's own rounds the logarithm of the sum to bfloat16 too
    }


def arrays_of(given: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    """Return tensors as arrays."""
    return {name: tensor.numpy() for name, tensor in given.items()}


# --- decisions, in float64 without noise


def histories(given: Given) -> tuple[Array, Array]:
    """Return how often each token stands in a row, and how often after the prompt, (B, V) each."""
    (B, V), T = given["logits"].shape, given["tokens"].shape[1]
    seen, made = np.zeros((B, V), np.int64), np.zeros((B, V), np.int64)
    for row in range(B):
        for place in range(min(T, int(given["lengths"][row]))):
            token = int(given["tokens"][row, place])
            seen[row, token] += 1
            made[row, token] += place >= given["prompt_lengths"][row]
    return seen, made


def row_of(given: Given, row: int, seen: Array, made: Array) -> tuple[Array, Array, dict[str, float]]:
    """Return penalised and scaled logits (V,) of a row, and its parameters."""
    of = {name: float(given[name][row]) for name in given if np.shape(given[name]) == (len(seen),)}
    x = np.array(given["logits"][row], np.float64)
    x[seen[row] > 0] *= np.where(x < 0, of["repetition_penalty"], 1 / of["repetition_penalty"])[seen[row] > 0]
    x -= np.where(made[row] > 0, made[row] * of["frequency_penalty"] + of["presence_penalty"], 0)
    return x, x / (of["temperature"] or 1.0), of


def decided(given: Given) -> tuple[Array, Array]:
    """Return the greedy token of each row (B,), and which tokens are kept, (B, V)."""
    seen, made = histories(given)
    greedy, kept = np.zeros(len(seen), np.int64), np.zeros(seen.shape, bool)
    for row in range(len(seen)):
        penalised, scaled, of = row_of(given, row, seen, made)
        greedy[row] = np.flatnonzero(penalised == penalised.max())[0]
        if of["temperature"] == 0:
            kept[row, greedy[row]] = True
            continue
        kept[row] = left_by_top_k(scaled, of["top_k"])
        kept[row] &= sums_before(scaled, kept[row]) < of["top_p"] if of["top_p"] < 1 else True
        kept[row] |= scaled == scaled.max()
        if of["min_p"]:
            kept[row] &= scaled - scaled.max() >= np.log(of["min_p"])
    return greedy, kept


def left_by_top_k(scaled: Array, top_k: float) -> Array:
    """Return where a logit (V,) is at least the k-th largest, and not banned."""
    cut = np.sort(scaled)[::-1][int(top_k) - 1 if 0 < top_k <= len(scaled) else -1]
    return np.asarray((scaled >= cut) & (scaled > -np.inf))


def sums_before(scaled: Array, left: Array) -> Array:
    """Return the sum of the probabilities of all that is more probable than a token (V,), among those left."""
    ranked = np.sort(scaled[left])  # ascending
    powers = np.exp(ranked - ranked[-1])
    above = np.concatenate([np.cumsum(powers[::-1])[::-1], [0.0]]) / powers.sum()
    return np.asarray(above[np.searchsorted(ranked, scaled, side="right")])


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def of_transformers(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the probabilities of rows without presence and frequency penalty, and what transformers makes of them."""
    found, wanted = [], []
    for row in range(len(golden["kept"]) if golden else 0):
        if given["presence_penalty"][row] or given["frequency_penalty"][row]:
            continue
        found.append(golden["probabilities"][row])
        wanted.append(torch.softmax(processed(given, row), 1)[0].numpy())
    return (np.array(found), np.array(wanted), 1e-13 * np.array(wanted)) if found else None


def processed(given: Given, row: int) -> torch.Tensor:
    """Return the logits (1, V) of a row behind transformers' processors, as `generate` sets them up."""
    of = {name: float(given[name][row]) for name in ("temperature", "top_p", "min_p", "repetition_penalty")}
    scores = torch.from_numpy(given["logits"][row : row + 1].copy())  # (1, V)
    ids = torch.from_numpy(given["tokens"][row : row + 1, : given["lengths"][row]].copy())  # (1, n)
    steps: list[Any] = []
    if of["repetition_penalty"] != 1:
        steps.append(logits_process.RepetitionPenaltyLogitsProcessor(of["repetition_penalty"]))
    if of["temperature"]:
        steps.append(logits_process.TemperatureLogitsWarper(of["temperature"]))
        if given["top_k"][row]:
            steps.append(logits_process.TopKLogitsWarper(int(given["top_k"][row])))
        if of["top_p"] < 1:
            steps.append(logits_process.TopPLogitsWarper(of["top_p"]))
        if of["min_p"]:
            steps.append(logits_process.MinPLogitsWarper(of["min_p"]))
    for step in steps:
        scores = step(ids, scores)
    if of["temperature"]:
        return scores
    return torch.full_like(scores, -torch.inf).index_fill(1, scores.argmax(1), 0.0)


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the probabilities, and those computed in decimal arithmetic of 40 digits, in small cases."""
    if not golden or not golden["kept"].size or golden["kept"].shape[1] > 100:
        return None
    wanted = np.array([decimal_row(given, row) for row in range(len(golden["kept"]))])
    return golden["probabilities"], wanted, 1e-13 * wanted


def decimal_row(given: Given, row: int) -> list[float]:
    """Return the probabilities of a row, token by token as the contract says it."""
    tokens = given["tokens"][row, : given["lengths"][row]].tolist()
    made = tokens[given["prompt_lengths"][row] :]
    of = {name: Decimal(float(given[name][row])) for name in given if np.ndim(given[name]) == 1}
    with localcontext(prec=40, Emin=-10000, Emax=10000):
        logits = [Decimal(value) for value in given["logits"][row].tolist()]
        for token in set(tokens):
            logits[token] *= of["repetition_penalty"] if logits[token] < 0 else 1 / of["repetition_penalty"]
        for token in set(made):
            logits[token] -= of["presence_penalty"] + made.count(token) * of["frequency_penalty"]
        order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
        if of["temperature"] == 0:
            return [float(i == order[0]) for i in range(len(logits))]
        powers = [(x / of["temperature"]).exp() if x.is_finite() else Decimal(0) for x in logits]
        left = [i for i in order if logits[i].is_finite()]
        if of["top_k"]:
            cut = logits[order[min(int(of["top_k"]), len(order)) - 1]]
            left = [i for i in left if logits[i] >= cut or abs(logits[i] - cut) < Decimal("1e-30")]
        if of["top_p"] < 1:
            whole, before, nucleus = sum(powers[i] for i in left), Decimal(0), left[:1]
            for i in left[:-1]:
                before += powers[i] / whole
                if before >= of["top_p"]:
                    break
                nucleus.append(left[len(nucleus)])
            left = nucleus
        left = [i for i in left if powers[i] >= of["min_p"] * powers[left[0]]]
        whole = sum((powers[i] for i in left), Decimal(0))
        return [float(power / whole) if i in left else 0.0 for i, power in enumerate(powers)]


def in_range(given: Given, golden: Goldens) -> tuple[Array, Array] | None:
    """Return how far cuts are from what they cut, as a part of what is asked, where less than 1, and 1."""
    if not golden or given["logits"].shape[1] < 2 or not len(given["logits"]):
        return None
    seen, made = histories(given)
    parts = [clearance(*row_of(given, row, seen, made)) for row in range(len(seen))]
    return np.minimum(parts, 1), np.ones(len(parts))


def clearance(penalised: Array, scaled: Array, of: Mapping[str, float]) -> float:
    """Return the least distance of a cut of a row from what it cuts, as a part of what is asked."""
    flat = len(scaled) > 1000 and len(np.unique(scaled)) > 1000
    if of["temperature"] == 0:
        return gap(penalised, penalised == penalised.max(), flat)
    parts, left = [np.inf], left_by_top_k(scaled, of["top_k"])
    usual = {"temperature": 1, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
    untouched = all(of[name] == value for name, value in usual.items())  # and so exact
    if of["top_k"] and not untouched:
        parts.append(gap(scaled, left, flat))
    if of["top_p"] < 1:
        before = sums_before(scaled, left)
        inside = left & ((before < of["top_p"]) | (scaled == scaled.max()))
        far = np.abs(before[left & (before > 0)] - of["top_p"]).min(initial=np.inf)
        parts += [gap(scaled, inside, flat), far / (CLEAR_OF_FLOAT32 if flat else CLEAR_SUMS)]
        parts += [0.0] * tied_at_cut(scaled, inside)
        left = inside
    if 0 < of["min_p"] < 1:
        far = np.abs(scaled[left] - scaled.max() - np.log(of["min_p"])).min()
        parts.append(far / (CLEAR_LOGITS * np.abs(scaled[left]).max()))
    elif of["min_p"]:
        parts.append(gap(scaled, scaled == scaled.max(), flat))
    return float(min(parts))


def gap(scaled: Array, inside: Array, flat: bool) -> float:
    """Return the distance of the logits on both sides of a cut, as a part of what is asked."""
    outside = scaled[~inside & (scaled > -np.inf)]
    if not outside.size:
        return np.inf
    lowest, highest = scaled[inside].min(), outside.max()
    return float((lowest - highest) / (CLEAR_OF_FLOAT32 if flat else CLEAR_LOGITS * max(abs(lowest), abs(highest))))


def tied_at_cut(scaled: Array, inside: Array) -> bool:
    """Say whether the last that is kept has an equal."""
    return int((scaled == scaled[inside].min()).sum()) > 1


RELATIONS = {
    "probabilities are those behind transformers' logits processors, to 1e-13": of_transformers,
    "probabilities are the definition in 40 decimal digits, to 1e-13": in_decimal,
    "what is kept is what has probability": lambda given, golden: (  # noqa: ARG005
        (golden["kept"], golden["probabilities"] > 0) if golden else None
    ),
    "no cut is decided by rounding": in_range,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, sampling, RELATIONS, versions=("torch", "transformers")
)
