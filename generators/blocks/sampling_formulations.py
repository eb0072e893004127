"""Correct ways from logits to the next token's probabilities that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers.generation import logits_process

from karat.faults import Formulation, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

softmax_formulations = beside(__file__, "blocks/softmax_formulations")

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")
PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


def tensor(x: Array) -> Any:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    if x.dtype.kind in "iub":
        return torch.from_numpy(np.array(x))
    return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))


def array(x: Any, dtype: Any) -> Array:
    """Return a tensor as an array of the format of the logits; integers and booleans stay."""
    return x.double().numpy().astype(dtype) if x.dtype.is_floating_point else x.numpy()


def in_torch(formula: Callable[..., dict[str, Any]], *, upcast: bool) -> Change:
    """Return a change to the whole: `formula` of tensors, in storage or in the format of sums, gives checkpoints."""

    def change(plain: Any) -> None:
        def sampling(logits: Array, **inputs: Array) -> dict[str, Array]:
            start = tensor(plain.wide(logits) if upcast else logits)
            found = formula(start, **{name: tensor(values) for name, values in inputs.items()})
            return {name: array(values, logits.dtype) for name, values in found.items()}

        plain.sampling = sampling

    return change


# --- transformers, row by row


def transformers_rows(logits: Any, **inputs: Any) -> dict[str, Any]:
    """Run transformers' processors on each row; presence and frequency penalties between them."""
    rows = [transformers_row(logits[i : i + 1], {k: v[i] for k, v in inputs.items()}) for i in range(len(logits))]
    if rows:
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    V, none = logits.shape[1], torch.zeros(0, dtype=torch.int64)
    floats = torch.zeros((0, V), dtype=logits.dtype)
    whole = dict.fromkeys(("penalised_logits", "scaled_logits", "probabilities", "log_probabilities"), floats)
    return {**whole, "greedy_token": none, "kept": floats > 0, "number_kept": none}


def transformers_row(scores: Any, of: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoints of one row, (1, V) or (1,)."""
    ids = of["tokens"][None, : of["lengths"]]  # (1, n)
    value = {name: of[name].item() for name in of if of[name].ndim == 0}
    if value["repetition_penalty"] != 1:
        scores = logits_process.RepetitionPenaltyLogitsProcessor(value["repetition_penalty"])(ids, scores)
    made = torch.bincount(ids[0, of["prompt_lengths"] :], minlength=scores.shape[1])[None]  # (1, V)
    scores = scores - value["frequency_penalty"] * made.to(scores.dtype)
    penalised = scores - value["presence_penalty"] * (made > 0).to(scores.dtype)
    greedy = penalised.argmax(1)
    scaled = scores = penalised / (value["temperature"] or 1.0)
    if value["temperature"] == 0:
        scores = torch.full_like(scaled, -torch.inf).scatter(1, greedy[:, None], 0.0)
    else:
        if value["top_k"]:
            scores = logits_process.TopKLogitsWarper(value["top_k"])(ids, scores)
        if value["top_p"] < 1:
            scores = logits_process.TopPLogitsWarper(value["top_p"])(ids, scores)
        if value["min_p"]:
            scores = logits_process.MinPLogitsWarper(value["min_p"])(ids, scores)
    kept = scores > -torch.inf
    return {
        "penalised_logits": penalised,
        "greedy_token": greedy,
        "scaled_logits": scaled,
        "kept": kept,
        "number_kept": kept.sum(1),
        "probabilities": torch.softmax(scores, 1),
        "log_probabilities": torch.log_softmax(scores, 1),
    }


# --- vLLM, all rows at once


def vllm(logits: Any, tokens: Any, lengths: Any, prompt_lengths: Any, **of: Any) -> dict[str, Any]:
    """Run what vLLM does: counts by scatter_add, one sort for top-k and top-p, penalties by where; min-p last."""
    B, V = logits.shape
    column = {name: values[:, None] for name, values in of.items()}
    place = torch.arange(tokens.shape[1])

    def counts(where: Any) -> Any:
        padded = torch.where(where, tokens, V)
        return torch.zeros((B, V + 1), dtype=torch.int64).scatter_add_(1, padded, torch.ones_like(padded))[:, :V]

    given = place < lengths[:, None]
    seen, made = counts(given), counts(given & (place >= prompt_lengths[:, None]))
    repeats = torch.where(seen > 0, column["repetition_penalty"], 1.0).to(logits.dtype)
    x = torch.where(logits > 0, logits / repeats, logits * repeats)
    x = x - (column["frequency_penalty"] * made).to(logits.dtype)
    penalised = x - (column["presence_penalty"] * (made > 0)).to(logits.dtype)
    greedy, cold = penalised.argmax(1), column["temperature"] == 0
    scaled = penalised / torch.where(cold, 1.0, column["temperature"]).to(logits.dtype)
    ranked, order = scaled.sort(dim=1)  # ascending
    if B:
        cut = ranked.gather(1, V - torch.where((column["top_k"] == 0) | (column["top_k"] > V), V, column["top_k"]))
        ranked = ranked.masked_fill(ranked < cut, -torch.inf)
    lost = torch.softmax(ranked, 1).cumsum(1) <= 1 - column["top_p"]
    lost = lost & (column["top_p"] < 1)
    lost[:, -1:] = False
    x = torch.empty_like(ranked).scatter_(1, order, ranked.masked_fill(lost, -torch.inf))
    p = torch.softmax(x, 1)
    x = x.masked_fill(p < column["min_p"].to(p.dtype) * p.amax(1, keepdim=True), -torch.inf)
    alone = torch.full_like(x, -torch.inf).scatter_(1, greedy[:, None], 0.0)
    x = torch.where(cold, alone, x)
    kept = x > -torch.inf
    return {
        "penalised_logits": penalised,
        "greedy_token": greedy,
        "scaled_logits": scaled,
        "kept": kept,
        "number_kept": kept.sum(1),
        "probabilities": torch.softmax(x, 1),
        "log_probabilities": torch.log_softmax(x, 1),
    }


# --- penalties


def by_unique_tokens(plain: Any) -> None:
    """Penalise in place, token by token of the set of those that were seen."""

    def repeated(x: Array, seen: Array, penalty: Array) -> Array:
        found = x.copy()
        for row in range(len(x)):
            for token in np.flatnonzero(seen[row]):
                value = found[row, token]
                found[row, token] = value * penalty[row, 0] if value < 0 else value / penalty[row, 0]
        return found

    plain.repeated = repeated


def by_products(plain: Any) -> None:
    """Count tokens by a product of one-hot rows, in small cases."""
    right = plain.occurrences

    def occurrences(tokens: Array, where: Array, V: int) -> Array:
        if V > 1000:
            return right(tokens, where, V)
        hot = (tokens[:, :, None] == np.arange(V)) & where[:, :, None]  # (B, T, V)
        return np.einsum("btv->bv", hot.astype(np.float32)).astype(np.int64)

    plain.occurrences = occurrences


def inverse_penalty(x: Array, seen: Array, penalty: Array) -> Array:
    """Multiply with the penalty or its inverse."""
    inverse = 1 / penalty.astype(x.dtype)
    return np.where(seen > 0, x * np.where(x < 0, penalty, inverse), x).astype(x.dtype)


def charged_at_once(x: Array, made: Array, presence: Array, frequency: Array) -> Array:
    """Subtract the sum of both charges."""
    count = made.astype(x.dtype)
    return x - (frequency * count + presence * (count > 0))


def inverse_temperature(x: Array, temperature: Array) -> Array:
    """Multiply with the inverse of the temperature."""
    inverse = 1 / np.where(temperature == 0, 1, temperature).astype(x.dtype)
    return np.asarray(x * inverse, x.dtype)


# --- top-k


def partitioned(scaled: Array, kept: Array, top_k: Array) -> Array:
    """Find the k-th largest by a partition, row by row."""
    found = kept.copy()
    for row, k in enumerate(top_k[:, 0]):
        if 0 < k < scaled.shape[1]:
            found[row] &= scaled[row] >= np.partition(scaled[row], -k)[-k]
    return found


def by_rank(scaled: Array, kept: Array, top_k: Array) -> Array:
    """Keep what has fewer than k logits above it, in small cases by comparing all with all."""
    if scaled.shape[1] > 1000:
        return partitioned(scaled, kept, top_k)
    above = (scaled[:, None, :] > scaled[:, :, None]).sum(2)  # (B, V)
    return kept & ((above < top_k) | (top_k == 0))


# --- top-p


def summed_from_below(ranked: Array, top_p: Array) -> Array:
    """Drop from the least probable on what adds up to 1 - p at most, as transformers does."""
    inside = np.cumsum(ranked[:, ::-1], axis=1)[:, ::-1] > 1 - top_p
    inside[:, :1] = True
    return inside


def sums_shifted(ranked: Array, top_p: Array) -> Array:
    """Shift the sums by one token."""
    before = np.concatenate([np.zeros_like(ranked[:, :1]) - 1, np.cumsum(ranked, axis=1)[:, :-1]], axis=1)
    return before < top_p


def counted_sums(ranked: Array, top_p: Array) -> Array:
    """Count how many sums are below p, and keep one more."""
    number = (np.cumsum(ranked, axis=1) < top_p).sum(1, keepdims=True)
    return np.arange(ranked.shape[1]) <= number


def by_bisection(plain: Any) -> None:
    """Bisect the probability above which the sum is below p, as sorting-free kernels do; equal ones stay together."""

    def of_top_p(scaled: Array, kept: Array, top_p: Array) -> Array:
        p = plain.softmax(scaled, kept).astype(np.float64)
        found = kept.copy()
        for row, limit in enumerate(top_p[:, 0]):
            if limit == 1:
                continue
            low, high = 0.0, float(p[row].max())  # the sum of what is above low reaches p, above high it does not
            while (p[row] > low).sum() > 1 and len(np.unique(p[row][(p[row] > low) & (p[row] <= high)])) > 1:
                middle = (low + high) / 2
                if p[row][p[row] > middle].sum() >= limit:
                    low = middle
                else:
                    high = middle
            found[row] &= (p[row] > low) | (p[row] == p[row].max())
            if limit == 0:
                found[row] &= p[row] == p[row].max()
        return found

    plain.of_top_p = of_top_p


def in_torch_cumsum(ranked: Array, top_p: Array) -> Array:
    """Sum in torch."""
    sums = torch.cumsum(torch.from_numpy(ranked), 1).numpy()
    inside = sums - ranked < top_p
    inside[:, :1] = True
    return inside


def from_largest_k(plain: Any) -> None:
    """Sort once, for all rules, and put back at the end, as a sampler of candidates does."""

    def filtered(scaled: Array, top_k: Array, top_p: Array, min_p: Array) -> Array:
        V = scaled.shape[1]
        order = np.argsort(-scaled, axis=1, kind="stable")  # (B, V)
        s = np.take_along_axis(scaled, order, 1)
        k = np.clip(np.where(top_k == 0, V, top_k), 1, V)
        left = (s >= np.take_along_axis(s, k - 1, 1)) & (s > -np.inf)
        powers = np.where(left, np.exp(s - s[:, :1]), 0)
        sums = np.cumsum(powers, axis=1)
        left &= (np.arange(V) == 0) | (sums - powers < top_p * sums[:, -1:]) | (top_p == 1)
        with np.errstate(divide="ignore"):
            left &= s - s[:, :1] >= np.log(min_p)
        found = np.zeros_like(left)
        np.put_along_axis(found, order, left, 1)
        return found

    plain.filtered = filtered


# --- min-p


def of_min_p_in_logits(scaled: Array, kept: Array, min_p: Array) -> Array:
    """Compare logits with the largest plus log(min_p)."""
    with np.errstate(divide="ignore"):
        return kept & (scaled >= scaled.max(1, keepdims=True) + np.log(min_p).astype(scaled.dtype))


# --- probabilities


def normalised(formula: Callable[[Array], tuple[Array, Array]]) -> Change:
    """Return a change to probabilities and their logarithms: `formula(hidden)`, hidden being (B, V) with -inf."""
    return wrap(normalised=lambda _: lambda s, kept: formula(np.where(kept, s, s.dtype.type(-np.inf))))


def through_logarithm(hidden: Array) -> tuple[Array, Array]:
    """Exponentiate what is left without the maximum and the logarithm of the sum."""
    shifted = hidden - hidden.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return np.exp(logs), logs


def of_logsumexp(hidden: Array) -> tuple[Array, Array]:
    """Subtract the logsumexp, which loses the digits that the logits have beyond it."""
    top = hidden.max(1, keepdims=True)
    logs = hidden - (top + np.log(np.exp(hidden - top).sum(1, keepdims=True)))
    return np.exp(logs), logs


def by_torch(hidden: Array) -> tuple[Array, Array]:
    """Take both from torch."""
    x = torch.from_numpy(hidden)
    return torch.softmax(x, 1).numpy(), torch.log_softmax(x, 1).numpy()


def by_powers_of_two(hidden: Array) -> tuple[Array, Array]:
    """Take exponentials as powers of two, and add them as a binary tree."""
    shifted = hidden - hidden.max(1, keepdims=True)
    powers = softmax_formulations.of_base_two(shifted)
    total = softmax_formulations.pairwise(powers, 1)
    return powers / total, shifted - np.log(total)


def in_order(hidden: Array) -> tuple[Array, Array]:
    """Add exponentials from the first to the last, and multiply by the inverse of the sum."""
    shifted = hidden - hidden.max(1, keepdims=True)
    powers = np.exp(shifted)
    total = softmax_formulations.in_order(powers, 1)
    return powers * (1 / total), shifted - np.log(total)


def renormalised(plain: Any) -> None:
    """Take the softmax of all tokens, set to 0 what is not kept, and divide by what is left."""
    right = plain.normalised

    def normalised_again(scaled: Array, kept: Array) -> tuple[Array, Array]:
        whole, logs = right(scaled, scaled > -np.inf)
        left = np.where(kept, whole, 0).astype(scaled.dtype)
        total = left.sum(1, keepdims=True)
        return left / total, np.where(kept, logs - np.log(total), -np.inf)

    plain.normalised = normalised_again


def wide_inside(plain: Any) -> None:
    """Compute all in float64 and round at the end."""
    right = plain.sampling

    def sampling(logits: Array, **inputs: Array) -> dict[str, Array]:
        found = right(logits.astype(np.float64), **inputs)
        return {n: a.astype(logits.dtype) if a.dtype.kind == "f" else a for n, a in found.items()}

    plain.sampling = sampling


def row_by_row(plain: Any) -> None:
    """Compute each row alone, the last first."""
    right = plain.sampling

    def sampling(**inputs: Array) -> dict[str, Array]:
        B = len(inputs["logits"])
        if not B:
            return right(**inputs)
        rows = [right(**{name: values[i : i + 1] for name, values in inputs.items()}) for i in reversed(range(B))]
        return {name: np.concatenate([row[name] for row in reversed(rows)]) for name in rows[0]}

    plain.sampling = sampling


def probabilities_alone(plain: Any) -> None:
    """Return the probabilities alone, from weights that are no logarithms."""
    right = plain.sampling

    def sampling(**inputs: Array) -> dict[str, Array]:
        return {"probabilities": right(**inputs)["probabilities"]}

    plain.sampling = sampling
    plain.normalised = renormalised_weights


def renormalised_weights(scaled: Array, kept: Array) -> tuple[Array, Array]:
    """Return weights about the largest over their sum, by a product with the mask."""
    finite = np.where(scaled > -np.inf, scaled, scaled.dtype.type(0))
    top = np.where(kept, finite, scaled.dtype.type(-1e30)).max(1, keepdims=True)
    weights = np.exp(np.minimum(finite - top, 0)) * kept
    return weights / weights.sum(1, keepdims=True), weights


FORMULATIONS = (
    Formulation("transformers", "transformers' logits processors in storage, row by row",
                in_torch(transformers_rows, upcast=False), EACH_OPERATION),
    Formulation("transformers_upcast", "the same in float32, rounded at the end",
                in_torch(transformers_rows, upcast=True)),
    Formulation("vllm", "all rows at once in torch, one ascending sort, in storage",
                in_torch(vllm, upcast=False), EACH_OPERATION),
    Formulation("vllm_upcast", "the same in float32, rounded at the end", in_torch(vllm, upcast=True)),
    Formulation("row_by_row", "each row alone", row_by_row),
    Formulation("in_float64", "all in float64, rounded at the end", wide_inside),
    Formulation("unique_tokens", "penalised in place, token by token", by_unique_tokens),
    Formulation("counts_by_products", "tokens counted by one-hot rows", by_products),
    Formulation("inverse_penalty", "times the repetition penalty or its inverse",
                wrap(repeated=lambda _: inverse_penalty)),
    Formulation("charged_at_once", "presence and frequency in one subtraction",
                wrap(charged=lambda _: charged_at_once)),
    Formulation("inverse_temperature", "times 1 / temperature", wrap(divided=lambda _: inverse_temperature)),
    Formulation("top_k_partition", "the k-th largest by a partition", wrap(of_top_k=lambda _: partitioned)),
    Formulation("top_k_by_rank", "the number of larger logits below k", wrap(of_top_k=lambda _: by_rank)),
    Formulation("top_p_from_below", "what adds up to 1 - p from below is dropped",
                wrap(within=lambda _: summed_from_below)),
    Formulation("top_p_shifted", "sums shifted by one token", wrap(within=lambda _: sums_shifted)),
    Formulation("top_p_counted", "the number of sums below p, and one more", wrap(within=lambda _: counted_sums)),
    Formulation("top_p_bisection", "a threshold found by bisection, without sorting", by_bisection),
    Formulation("top_p_torch", "torch.cumsum", wrap(within=lambda _: in_torch_cumsum)),
    Formulation("sorted_once", "all rules on one sorted row", from_largest_k),
    Formulation("min_p_of_logits", "logits compared with the largest plus log(min_p)",
                wrap(of_min_p=lambda _: of_min_p_in_logits)),
    Formulation("through_logarithm", "exp(s - max - log(sum))", normalised(through_logarithm)),
    Formulation("of_logsumexp", "exp(s - logsumexp(s))", normalised(of_logsumexp)),
    Formulation("torch_softmax", "torch.softmax and log_softmax", normalised(by_torch)),
    Formulation("exp2_pairwise", "powers of two, added as a tree", normalised(by_powers_of_two)),
    Formulation("sums_in_order", "added from the first to the last", normalised(in_order)),
    Formulation("renormalised", "softmax of all tokens, cut, divided by its sum", renormalised),
    Formulation("probabilities_alone", "nothing but probabilities", probabilities_alone),
)  # fmt: skip
