"""The distribution of the next token in plain NumPy: the definition, to read and to copy.

Repetition penalty: Keskar et al., "CTRL" (2019), section 4.1, with the sign of transformers'
RepetitionPenaltyLogitsProcessor; presence and frequency penalties: OpenAI's, as vLLM's apply_penalties subtracts them;
top-k: Fan et al. (2018); top-p: Holtzman et al. (2020); min-p: Nguyen et al. (2024); in the order of transformers'
generate. Computed in float32 (float64 where the logits are), and rounded once to the format of the logits. B rows,
T previous tokens, V vocabulary.
"""

import numpy as np


def sampling(logits, tokens, lengths, prompt_lengths, temperature, top_k, top_p, min_p,
             repetition_penalty, presence_penalty, frequency_penalty):  # fmt: skip
    """Return what the logits (B, V) become on the way to probabilities; parameters (B,) are those of a row."""
    refuse(logits, tokens, lengths, prompt_lengths, temperature, top_k, top_p, min_p,
           repetition_penalty, presence_penalty, frequency_penalty)  # fmt: skip
    seen, made = counted(tokens, lengths, prompt_lengths, logits.shape[1])  # (B, V), (B, V)
    penalised = repeated(wide(logits), seen, column(repetition_penalty))  # (B, V)
    penalised = charged(penalised, made, column(presence_penalty), column(frequency_penalty))  # (B, V)
    greedy = first_largest(penalised)  # (B,)
    scaled = divided(penalised, column(temperature))  # (B, V)
    kept = filtered(scaled, column(top_k), column(top_p), column(min_p))  # (B, V)
    kept = greedy_alone(kept, greedy, column(temperature))  # (B, V)
    probabilities, logarithms = normalised(scaled, kept)  # (B, V), (B, V)
    return {
        "penalised_logits": penalised.astype(logits.dtype),
        "greedy_token": greedy,
        "scaled_logits": scaled.astype(logits.dtype),
        "kept": kept,
        "number_kept": kept.sum(1),
        "probabilities": probabilities.astype(logits.dtype),
        "log_probabilities": logarithms.astype(logits.dtype),
    }


# --- penalties


def counted(tokens, lengths, prompt_lengths, V):
    """Return how often each token stands in a row (B, V), and how often after its prompt (B, V); padding is none."""
    place = np.arange(tokens.shape[1])  # (T,)
    given = place < column(lengths)  # (B, T)
    made = given & (place >= column(prompt_lengths))  # (B, T)
    return occurrences(tokens, given, V), occurrences(tokens, made, V)


def occurrences(tokens, where, V):
    """Return how often each token stands in a row at the places `where` (B, T), (B, V)."""
    counts = np.zeros((len(tokens), V), np.int64)
    row, place = np.nonzero(where)
    np.add.at(counts, (row, tokens[row, place]), 1)
    return counts


def repeated(x, seen, penalty):
    """Make the tokens less likely that were seen: what is positive is divided, what is negative multiplied."""
    return np.where(seen > 0, np.where(x < 0, x * penalty, x / penalty), x)


def charged(x, made, presence, frequency):
    """Subtract from the tokens that were made one penalty, and one for each time."""
    return x - frequency * made.astype(x.dtype) - presence * (made > 0).astype(x.dtype)


def first_largest(x):
    """Return the token of the largest logit, the first of equal ones, (B,)."""
    return x.argmax(1)


def divided(x, temperature):
    """Return logits over the temperature, as they are where that is 0."""
    return x / np.where(temperature == 0, np.ones_like(temperature), temperature)


# --- which tokens stay


def filtered(scaled, top_k, top_p, min_p):
    """Return which tokens are kept, each rule among those that the rules before it keep, (B, V)."""
    kept = scaled > -np.inf
    kept = of_top_k(scaled, kept, top_k)
    kept = of_top_p(scaled, kept, top_p)
    return of_min_p(scaled, kept, min_p)


def of_top_k(scaled, kept, top_k):
    """Keep what is at least the k-th largest."""
    V = scaled.shape[1]
    ranked = -np.sort(-np.where(kept, scaled, -np.inf), axis=1)  # (B, V)
    place = np.clip(np.where(top_k == 0, V, top_k), 1, V) - 1  # (B, 1)
    return kept & (scaled >= np.take_along_axis(ranked, place, 1))


def of_top_p(scaled, kept, top_p):
    """Keep the most probable tokens, up to the one with which their sum reaches p."""
    order = np.argsort(-np.where(kept, scaled, -np.inf), axis=1, kind="stable")  # (B, V)
    ranked = np.take_along_axis(softmax(scaled, kept), order, 1)  # (B, V)
    inside = within(ranked, top_p) | (top_p == 1)  # (B, V)
    return kept & unsorted(inside, order)


def within(ranked, top_p):
    """Say which of the ranked probabilities have less than p before them; the first has nothing before it."""
    before = np.cumsum(ranked, axis=1) - ranked
    before[:, :1] = -1
    return before < top_p


def unsorted(inside, order):
    """Return what is known by rank by token."""
    found = np.zeros_like(inside)
    np.put_along_axis(found, order, inside, 1)
    return found


def of_min_p(scaled, kept, min_p):
    """Keep what is at least min_p times as probable as the most probable token."""
    probabilities = softmax(scaled, kept)  # (B, V)
    return kept & (probabilities >= min_p * probabilities.max(1, keepdims=True))


def greedy_alone(kept, greedy, temperature):
    """Keep the greedy token alone where the temperature is 0."""
    return np.where(temperature == 0, np.arange(kept.shape[1]) == column(greedy), kept)


# --- probabilities


def softmax(scaled, kept):
    """Return the probabilities among the tokens that are kept, 0 for the others."""
    return normalised(scaled, kept)[0]


def normalised(scaled, kept):
    """Return probabilities and their logarithms among the tokens that are kept, 0 and -inf for the others."""
    hidden = np.where(kept, scaled, scaled.dtype.type(-np.inf))  # (B, V)
    shifted = hidden - hidden.max(1, keepdims=True)  # (B, V)
    powers = np.exp(shifted)  # (B, V)
    total = powers.sum(1, keepdims=True)  # (B, 1)
    return powers / total, shifted - np.log(total)


def column(x):
    """Return (B,) as (B, 1)."""
    return x[:, None]


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def refuse(logits, tokens, lengths, prompt_lengths, temperature, top_k, top_p, min_p,
           repetition_penalty, presence_penalty, frequency_penalty):  # fmt: skip
    """Raise `ValueError` where the arguments contradict the contract."""
    B, V = logits.shape
    rows = {"lengths": lengths, "prompt_lengths": prompt_lengths, "temperature": temperature, "top_k": top_k,
            "top_p": top_p, "min_p": min_p, "repetition_penalty": repetition_penalty,
            "presence_penalty": presence_penalty, "frequency_penalty": frequency_penalty}  # fmt: skip
    for name, values in rows.items():
        if values.shape != (B,):
            raise ValueError(f"shape of {name} {values.shape}, not one for each of {B} rows")
    if len(tokens) != B:
        raise ValueError(f"shape of tokens {tokens.shape}, not {B} rows")
    if (np.isnan(logits) | (logits == np.inf)).any():
        raise ValueError("logits: NaN or infinity")
    if (logits == -np.inf).all(1).any():
        raise ValueError("banned: every token of a row")
    if (prompt_lengths < 0).any() or (prompt_lengths > lengths).any() or (lengths > tokens.shape[1]).any():
        raise ValueError("length: 0 <= prompt_lengths <= lengths <= T does not hold")
    given = tokens[np.arange(tokens.shape[1]) < column(lengths)]  # (n,)
    if ((given < 0) | (given >= V)).any():
        raise ValueError(f"token outside the vocabulary 0 … {V - 1}")
    bounds = {"temperature": temperature >= 0, "top_k": top_k >= 0, "top_p": (top_p >= 0) & (top_p <= 1),
              "min_p": (min_p >= 0) & (min_p <= 1), "repetition_penalty": repetition_penalty > 0}  # fmt: skip
    for name, right in bounds.items():
        if not right.all():
            raise ValueError(f"{name} {rows[name]} is out of bounds")
