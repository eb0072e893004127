"""Mistakes that people make between logits and the next token's probabilities, planted in the plain candidate.

NumPy only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]
PENALISED, GREEDY, SCALED, KEPT = ("penalised_logits",), ("greedy_token",), ("scaled_logits",), ("kept",)
NUMBER, PROBABILITIES, LOGS, REFUSED = ("number_kept",), ("probabilities",), ("log_probabilities",), ("refused",)

accepts = beside(__file__, "kernels/_refusals").accepts


# --- changes


def repeated(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to what repetition makes of the logits of tokens that were seen: `formula(x, penalty)`."""
    return wrap(repeated=lambda _: lambda x, seen, penalty: np.where(seen > 0, formula(x, penalty), x))


def charged(formula: Callable[[Array, Array, Array, Array], Array]) -> Change:
    """Return a change to presence and frequency: `formula(x, made, presence, frequency)`, made being floats."""
    return wrap(charged=lambda _: lambda x, made, p, f: formula(x, made.astype(x.dtype), p, f))


def histories(formula: Callable[[Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to what was seen and what was made: `formula(seen, made)`, (B, V) each."""
    return wrap(counted=lambda right: lambda *history: formula(*right(*history)))


def given(**formulas: Callable[[dict[str, Array]], Array]) -> Change:
    """Return a change to arguments: each formula makes the one of its name from all of them."""

    def change(plain: Any) -> None:
        right = plain.sampling

        def sampling(**inputs: Array) -> dict[str, Array]:
            plain.refuse(**inputs)
            return right(**(inputs | {name: formula(inputs) for name, formula in formulas.items()}))

        plain.sampling = sampling

    return change


def of_first_row(*names: str) -> Change:
    """Return a change that takes parameters of the first row for all."""

    def formula(name: str) -> Callable[[dict[str, Array]], Array]:
        return lambda inputs: np.broadcast_to(inputs[name][:1], inputs[name].shape)

    return given(**{name: formula(name) for name in names})


def places(formula: Callable[[Array, Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to which places count: `formula(tokens, lengths, prompt_lengths)` gives what is given and made.

    Both are (B, T). Tokens outside the vocabulary wrap around where they are negative, and are dropped beyond it.
    """

    def change(plain: Any) -> None:
        right = plain.occurrences

        def occurrences(tokens: Array, where: Array, V: int) -> Array:
            return right(np.where(tokens < 0, tokens % V, tokens), where & (tokens < V), V)

        def counted(tokens: Array, lengths: Array, prompt_lengths: Array, V: int) -> tuple[Array, Array]:
            seen, made = formula(tokens, lengths[:, None], prompt_lengths[:, None])
            return occurrences(tokens, seen, V), occurrences(tokens, made, V)

        plain.counted = counted

    return change


def place(tokens: Array) -> Array:
    """Return the places, (T,)."""
    return np.arange(tokens.shape[1])


def result(formula: Callable[[Any, dict[str, Array], dict[str, Array]], dict[str, Array]]) -> Change:
    """Return a change to what is returned: `formula(plain, found, inputs)` gives the checkpoints that are otherwise."""

    def change(plain: Any) -> None:
        right = plain.sampling

        def sampling(**inputs: Array) -> dict[str, Array]:
            found = right(**inputs)
            wrong = formula(plain, right(**(inputs | {"logits": plain.wide(inputs["logits"])})), inputs)
            stored = inputs["logits"].dtype
            return found | {n: a.astype(stored) if a.dtype.kind == "f" else a for n, a in wrong.items()}

        plain.sampling = sampling

    return change


def normalised(formula: Callable[[Any, Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to the final probabilities alone: `formula(plain, scaled, kept)` gives them and their logs."""

    def wrong(plain: Any, found: dict[str, Array], _: Any) -> dict[str, Array]:
        probabilities, logs = formula(plain, found["scaled_logits"], found["kept"])
        return {"probabilities": probabilities, "log_probabilities": logs}

    return result(wrong)


def with_logs(probabilities: Array) -> tuple[Array, Array]:
    """Return probabilities and their logarithms."""
    return probabilities, np.log(probabilities)


def all_kept(scaled: Array) -> Array:
    """Return that every token is kept that is not banned."""
    return scaled > -np.inf


def filled(value: float) -> Change:
    """Return a change that hides tokens by the logit `value` instead of -inf."""

    def formula(plain: Any, scaled: Array, kept: Array) -> tuple[Array, Array]:
        hidden = np.where(kept, scaled, scaled.dtype.type(value))
        return plain.normalised(hidden, all_kept(hidden))

    return normalised(formula)


def top_k(formula: Callable[[Any, Array, Array, Array], Array]) -> Change:
    """Return a change to top-k: `formula(right, scaled, kept, k)`."""
    return wrap(of_top_k=lambda right: lambda scaled, kept, k: formula(right, scaled, kept, k))


def top_p(formula: Callable[[Any, Array, Array, Array], Array]) -> Change:
    """Return a change to top-p: `formula(right, scaled, kept, p)`."""
    return wrap(of_top_p=lambda right: lambda scaled, kept, p: formula(right, scaled, kept, p))


def nucleus(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to which of the ranked probabilities stay: `formula(ranked, p)`; the first always does."""

    def within(ranked: Array, p: Array) -> Array:
        inside = np.array(formula(ranked, p))
        inside[:, :1] = True
        return inside

    return wrap(within=lambda _: within)


def min_p(formula: Callable[[Any, Array, Array, Array], Array]) -> Change:
    """Return a change to min-p: `formula(plain, scaled, kept, min_p)`; the largest always stays."""

    def change(plain: Any) -> None:
        plain.of_min_p = lambda scaled, kept, m: (
            kept & (formula(plain, scaled, kept, m) | (scaled == scaled.max(1, keepdims=True)))
        )

    return change


def filtered(formula: Callable[[Any, Array, Array, Array, Array], Array]) -> Change:
    """Return a change to all rules: `formula(plain, scaled, k, p, min_p)`."""

    def change(plain: Any) -> None:
        plain.filtered = lambda scaled, k, p, m: formula(plain, scaled, k, p, m)

    return change


# --- mistakes that take more than a line


def temperature_first(plain: Any) -> None:
    """Divide by the temperature before anything is penalised."""
    repeat, divide, right = plain.repeated, plain.divided, plain.sampling
    current: list[Array] = []

    def sampling(**inputs: Array) -> dict[str, Array]:
        current[:] = [inputs["temperature"][:, None]]
        return right(**inputs)

    plain.repeated = lambda x, seen, penalty: repeat(divide(x, current[0]), seen, penalty)
    plain.divided = lambda x, _: x
    plain.sampling = sampling


def presence_first(plain: Any) -> None:
    """Subtract presence and frequency before the repetition penalty."""
    repeat, charge = plain.repeated, plain.charged
    current: list[Array] = []

    def later(x: Array, seen: Array, penalty: Array) -> Array:
        current[:] = [seen, penalty]
        return x

    plain.repeated = later
    plain.charged = lambda x, made, p, f: repeat(charge(x, made, p, f), *current)


def filters_before_temperature(*rules: str) -> Change:
    """Return a change in which `rules` see logits that are not divided by the temperature."""

    def change(plain: Any) -> None:
        divide, current = plain.divided, list[Array]()

        def divided(x: Array, temperature: Array) -> Array:
            current[:] = [x]
            return divide(x, temperature)

        def unscaled(right: Any) -> Any:
            return lambda _, kept, value: right(current[0], kept, value)

        plain.divided = divided
        for rule in rules:
            setattr(plain, rule, unscaled(getattr(plain, rule)))

    return change


def greedy_before_penalties(plain: Any) -> None:
    """Take the largest logit before any is penalised."""
    repeat, current = plain.repeated, list[Array]()

    def repeated_later(x: Array, seen: Array, penalty: Array) -> Array:
        current[:] = [x]
        return repeat(x, seen, penalty)

    plain.repeated = repeated_later
    plain.first_largest = lambda _: current[0].argmax(1)


def with_banned(plain: Any, found: dict[str, Array], inputs: dict[str, Array]) -> dict[str, Array]:  # noqa: ARG001
    """Count banned tokens among those kept, but for greedy rows."""
    kept = found["kept"] | ((found["scaled_logits"] == -np.inf) & (inputs["temperature"] != 0)[:, None])
    return {"kept": kept, "number_kept": kept.sum(1)}


def kth(scaled: Array, k: Array) -> Array:
    """Return the k-th largest logit of each row, (B, 1)."""
    ranked = -np.sort(-scaled, axis=1)
    return np.take_along_axis(ranked, np.clip(k, 1, scaled.shape[1]) - 1, 1)


def exactly_k(right: Any, scaled: Array, kept: Array, k: Array) -> Array:
    """Keep k tokens, the first of equal ones."""
    V = scaled.shape[1]
    rank = np.argsort(np.argsort(-scaled, axis=1, kind="stable"), axis=1)
    return right(scaled, kept, k) & (rank < np.where(k == 0, V, k))


def ascending_sum(ranked: Array, p: Array) -> Array:
    """Keep the least probable tokens, up to the sum p."""
    return np.cumsum(ranked[:, ::-1], axis=1)[:, ::-1] <= p


def sum_in(dtype: str) -> Change:
    """Return a rule that adds probabilities one after the other in the format `dtype`."""
    number = np.dtype(dtype)

    def inside(ranked: Array, p: Array) -> Array:
        total, before = np.zeros(len(ranked), number), np.zeros(ranked.shape, np.float64)
        for i in range(ranked.shape[1]):
            before[:, i] = total
            total = (total + ranked[:, i].astype(number)).astype(number)
        return before < p

    return nucleus(inside)


def may_keep_none(plain: Any) -> None:
    """Keep tokens whose sum, their own included, is at most p, be they none."""
    plain.within = lambda ranked, p: np.cumsum(ranked, axis=1) <= p


def tail_lost(count: int) -> Change:
    """Return a change that never keeps tokens beyond the last whole vector of `count`, where there is one."""

    def formula(right: Any, scaled: Array, *rules: Array) -> Array:
        V = scaled.shape[1]
        whole = V // count * count or V
        hidden = np.where(np.arange(V) < whole, scaled, -np.inf).astype(scaled.dtype)
        hidden = np.where((hidden == -np.inf).all(1, keepdims=True), scaled, hidden)
        return right(hidden, *rules)

    return wrap(filtered=lambda right: lambda scaled, *rules: formula(right, scaled, *rules))


def tail_not_penalised(x: Array, seen: Array, penalty: Array) -> Array:
    """Penalise no token beyond the last whole vector of four."""
    inside = np.arange(x.shape[1]) < x.shape[1] // 4 * 4
    return np.where((seen > 0) & inside, np.where(x < 0, x * penalty, x / penalty), x)


def by_mask_product(x: Array, seen: Array, penalty: Array) -> Array:
    """Choose by products with 0 and 1, which make NaN of -inf."""
    mask = (seen > 0).astype(x.dtype)
    return mask * np.where(x < 0, x * penalty, x / penalty) + (1 - mask) * x


def each_time(x: Array, seen: Array, penalty: Array) -> Array:
    """Penalise a token once for each time that it was seen."""
    return np.where(x < 0, x * penalty**seen, x / penalty**seen).astype(x.dtype)


def ranked_rows(plain: Any, found: dict[str, Array], _: Any) -> dict[str, Array]:  # noqa: ARG001
    """Leave probabilities in falling order, not where their tokens are."""
    return {"probabilities": -np.sort(-found["probabilities"], 1)}


def softmax_total_in(dtype: str) -> Change:
    """Return a change that adds exponentials one after the other in the format `dtype`."""
    number = np.dtype(dtype)

    def formula(plain: Any, scaled: Array, kept: Array) -> tuple[Array, Array]:  # noqa: ARG001
        hidden = np.where(kept, scaled, -np.inf)
        powers = np.exp(hidden - hidden.max(1, keepdims=True)).astype(scaled.dtype)
        total = np.zeros(len(powers), number)
        for i in range(powers.shape[1]):
            total = (total + powers[:, i].astype(number)).astype(number)
        return with_logs(powers / total[:, None].astype(scaled.dtype))

    return normalised(formula)


def no_maximum(plain: Any, scaled: Array, kept: Array) -> tuple[Array, Array]:  # noqa: ARG001
    """Exponentiate in float32 without subtracting the maximum."""
    powers = np.exp(np.where(kept, scaled, -np.inf).astype(np.float32)).astype(scaled.dtype)
    return with_logs(powers / powers.sum(1, keepdims=True))


def not_renormalised(plain: Any, scaled: Array, kept: Array) -> tuple[Array, Array]:
    """Take the probabilities among all tokens."""
    return with_logs(np.where(kept, plain.softmax(scaled, all_kept(scaled)), 0).astype(scaled.dtype))


def clipped(right: Any) -> Any:
    """Return a count of tokens that takes those outside the vocabulary for its ends."""
    return lambda tokens, where, V: right(np.clip(tokens, 0, V - 1), where, V)


def resized(plain: Any) -> None:
    """Repeat or cut off what has another number of rows."""
    accepts("shape of")(plain)
    right = plain.sampling

    def sampling(**inputs: Array) -> dict[str, Array]:
        B = len(inputs["logits"])
        return right(**{name: np.resize(array, (B, *array.shape[1:])) for name, array in inputs.items()})

    plain.sampling = sampling


def of_15_bits(counts: Array) -> Array:
    """Return counts (B, V) of the tokens whose numbers 16 bits with a sign hold."""
    return np.where(np.arange(counts.shape[1]) < 1 << 15, counts, 0)


FAULTS = (
    # --- the history
    Fault("padding_counted", PENALISED, "tokens beyond lengths are counted too", places(lambda t, n, m: (np.ones(t.shape, bool), place(t) >= m))),
    Fault("padding_on_the_left", PENALISED, "the last lengths[b] tokens are counted, as if padded on the left",
          places(lambda t, n, m: (place(t) >= t.shape[1] - n, place(t) >= t.shape[1] - n + m))),
    Fault("last_token_forgotten", PENALISED, "the last token is not counted yet", places(lambda t, n, m: (place(t) < n - 1, (place(t) < n - 1) & (place(t) >= m)))),
    Fault("history_of_row_before", PENALISED, "the tokens of the row before are penalised", histories(lambda seen, made: (np.roll(seen, 1, 0), np.roll(made, 1, 0)))),
    Fault("prompt_not_repeated", PENALISED, "the repetition penalty leaves the prompt out", histories(lambda seen, made: (made, made))),
    Fault("prompt_charged", PENALISED, "presence and frequency penalties count the prompt too", histories(lambda seen, made: (seen, seen))),
    Fault("token_ids_of_16_bits", PENALISED, "tokens from 32768 on, which 16 bits with a sign do not hold, are not counted", histories(lambda seen, made: (of_15_bits(seen), of_15_bits(made)))),
    # --- repetition
    Fault("repetition_missing", PENALISED, "no repetition penalty", repeated(lambda x, r: x)),
    Fault("repetition_divides_always", PENALISED, "negative logits are divided by the repetition penalty too, and so more likely", repeated(lambda x, r: x / r)),
    Fault("repetition_multiplies_always", PENALISED, "positive logits are multiplied by the repetition penalty too", repeated(lambda x, r: x * r)),
    Fault("repetition_sign_wrong", PENALISED, "positive logits are multiplied, negative ones divided", repeated(lambda x, r: np.where(x < 0, x / r, x * r))),
    Fault("repetition_each_time", PENALISED, "a token seen n times is penalised n times", wrap(repeated=lambda _: each_time)),
    Fault("repetition_subtracted", PENALISED, "the repetition penalty less 1 is subtracted", repeated(lambda x, r: x - (r - 1))),
    Fault("repetition_tail_missing", PENALISED, "tokens beyond the last whole vector of four are not penalised for repetition", wrap(repeated=lambda _: tail_not_penalised)),
    Fault("repetition_by_mask_product", PENALISED, "the mask is multiplied, which makes NaN of banned tokens", wrap(repeated=lambda _: by_mask_product)),
    # --- presence and frequency
    Fault("presence_missing", PENALISED, "no presence penalty", charged(lambda x, n, p, f: x - f * n)),
    Fault("presence_each_time", PENALISED, "the presence penalty for each time", charged(lambda x, n, p, f: x - f * n - p * n)),
    Fault("frequency_missing", PENALISED, "no frequency penalty", charged(lambda x, n, p, f: x - p * (n > 0))),
    Fault("frequency_once", PENALISED, "the frequency penalty once, however often: counts[tokens] += 1", charged(lambda x, n, p, f: x - (f + p) * (n > 0))),
    Fault("frequency_of_length", PENALISED, "the frequency penalty times the part of the tokens made, not their number",
          charged(lambda x, n, p, f: x - f * n / np.maximum(n.sum(1, keepdims=True), 1) - p * (n > 0))),
    Fault("charges_added", PENALISED, "presence and frequency penalties are added", charged(lambda x, n, p, f: x + f * n + p * (n > 0))),
    Fault("charges_before_repetition", PENALISED, "presence and frequency come before the repetition penalty", presence_first),
    Fault("temperature_before_penalties", PENALISED, "logits are divided by the temperature before they are penalised", temperature_first),
    Fault("penalties_of_first_row", PENALISED, "the penalties of the first row for all rows", of_first_row("repetition_penalty", "presence_penalty", "frequency_penalty")),
    # --- the greedy token
    Fault("greedy_last_of_ties", GREEDY, "of equal largest logits the last", wrap(first_largest=lambda _: lambda x: x.shape[1] - 1 - x[:, ::-1].argmax(1))),
    Fault("greedy_before_penalties", GREEDY, "the largest logit before penalties", greedy_before_penalties),
    Fault("greedy_of_16_bits", GREEDY, "the greedy token in 16 bits with a sign", result(lambda plain, found, inputs: {"greedy_token": found["greedy_token"].astype(np.int16)})),
    # --- the temperature
    Fault("temperature_missing", SCALED, "the temperature is left out", wrap(divided=lambda _: lambda x, t: x)),
    Fault("temperature_multiplied", SCALED, "multiplied by the temperature", wrap(divided=lambda _: lambda x, t: np.where(t == 0, x, x * t))),
    Fault("temperature_of_first_row", SCALED, "the temperature of the first row for all rows that have one",
          wrap(divided=lambda right: lambda x, t: right(x, np.where(t == 0, t, t[:1])))),
    Fault("temperature_0_as_1e-5", SCALED, "temperature 0 is taken for 1e-5", wrap(divided=lambda _: lambda x, t: x / np.where(t == 0, np.float32(1e-5), t))),
    Fault("temperature_0_divides", SCALED, "divided by a temperature of 0", wrap(divided=lambda _: lambda x, t: x / t)),
    Fault("temperature_0_samples", KEPT, "rows of temperature 0 are like those of temperature 1", wrap(greedy_alone=lambda _: lambda kept, greedy, t: kept)),
    # --- top-k
    Fault("top_k_missing", KEPT, "no top-k", top_k(lambda right, s, kept, k: kept)),
    Fault("top_k_one_more", KEPT, "k + 1 tokens", top_k(lambda right, s, kept, k: right(s, kept, np.where(k == 0, 0, k + 1)))),
    Fault("top_k_strict", KEPT, "logits above the k-th, without it", top_k(lambda right, s, kept, k: np.where(k == 0, kept, right(s, kept, np.maximum(k, 1)) & (s > kth(s, k))) | (s == s.max(1, keepdims=True)))),
    Fault("top_k_ties_cut", KEPT, "exactly k tokens, the first of equal ones", top_k(exactly_k)),
    Fault("top_k_ascending", KEPT, "at least the k-th of ascending logits", top_k(lambda right, s, kept, k: np.where(k == 0, kept, kept & (s >= kth(s, s.shape[1] + 1 - np.clip(k, 1, s.shape[1])))))),
    Fault("top_k_of_first_row", KEPT, "top_k of the first row for all rows", of_first_row("top_k")),
    Fault("top_k_0_keeps_one", KEPT, "top_k 0 keeps one token", top_k(lambda right, s, kept, k: right(s, kept, np.maximum(k, 1)))),
    # --- top-p
    Fault("top_p_missing", KEPT, "no top-p", top_p(lambda right, s, kept, p: kept)),
    Fault("top_p_without_crossing", KEPT, "the token with which the sum crosses p is left out", nucleus(lambda ranked, p: np.cumsum(ranked, axis=1) <= p)),
    Fault("top_p_keeps_none", KEPT, "no token is kept where the first exceeds p", may_keep_none),
    Fault("top_p_one_more", KEPT, "one token beyond the one that crosses p",
          nucleus(lambda ranked, p: np.cumsum(ranked, axis=1) - ranked - np.concatenate([np.zeros_like(ranked[:, :1]), ranked[:, :-1]], 1) < p)),
    Fault("top_p_ascending", KEPT, "the least probable tokens up to the sum p", nucleus(ascending_sum)),
    Fault("top_p_of_rest", KEPT, "1 - p instead of p", top_p(lambda right, s, kept, p: right(s, kept, np.where(p == 1, p, 1 - p)))),
    Fault("top_p_of_all_tokens", KEPT, "sums of probabilities among all tokens, not those that top-k left", top_p(lambda right, s, kept, p: kept & right(s, all_kept(s), p))),
    Fault("top_p_by_rank", KEPT, "what is kept by rank is not put back to its tokens", wrap(unsorted=lambda _: lambda inside, order: inside)),
    Fault("top_p_of_first_row", KEPT, "top_p of the first row for all rows", of_first_row("top_p")),
    Fault("top_p_1_cuts_tail", KEPT, "top_p 1 is taken for 0.9999", top_p(lambda right, s, kept, p: right(s, kept, np.minimum(p, np.float32(0.9999))))),
    Fault("top_p_sum_in_bfloat16", KEPT, "probabilities are summed in bfloat16", sum_in("bfloat16")),
    Fault("top_p_before_temperature", KEPT, "top-p sees logits before the temperature", filters_before_temperature("of_top_p")),
    Fault("top_p_before_top_k", KEPT, "top-p before top-k: of all tokens, then the k largest",
          filtered(lambda plain, s, k, p, m: plain.of_min_p(s, plain.of_top_k(s, plain.of_top_p(s, all_kept(s), p), k), m))),
    # --- min-p
    Fault("min_p_missing", KEPT, "no min-p", min_p(lambda plain, s, kept, m: kept)),
    Fault("min_p_absolute", KEPT, "tokens of the probability min_p, not min_p times the largest", min_p(lambda plain, s, kept, m: plain.softmax(s, kept) >= m)),
    Fault("min_p_of_logits", KEPT, "logits of min_p times the largest", min_p(lambda plain, s, kept, m: (s >= m * s.max(1, keepdims=True)) | (m == 0))),
    Fault("min_p_before_temperature", KEPT, "min-p sees logits before the temperature", filters_before_temperature("of_min_p")),
    Fault("min_p_first", KEPT, "min-p before top-k and top-p",
          filtered(lambda plain, s, k, p, m: plain.of_top_p(s, plain.of_top_k(s, plain.of_min_p(s, all_kept(s), m), k), p))),
    Fault("vocabulary_tail_lost", KEPT, "tokens beyond the last whole vector of eight are never kept", tail_lost(8)),
    Fault("banned_kept", KEPT, "banned tokens count as kept", result(with_banned)),
    # --- how many
    Fault("number_is_k", NUMBER, "k, or the vocabulary, is told for the number kept",
          result(lambda plain, found, inputs: {"number_kept": np.where(inputs["top_k"] == 0, found["kept"].shape[1], np.minimum(inputs["top_k"], found["kept"].shape[1]))})),
    # --- probabilities
    Fault("not_renormalised", PROBABILITIES, "probabilities among all tokens, set to 0 where not kept", normalised(not_renormalised)),
    Fault("filter_forgotten", PROBABILITIES, "probabilities of all tokens", normalised(lambda plain, s, kept: plain.normalised(s, all_kept(s)))),
    Fault("hidden_by_0", PROBABILITIES, "a logit of 0 instead of -inf for what is not kept", filled(0.0)),
    Fault("hidden_by_-1e4", LOGS, "a logit of -1e4 instead of -inf for what is not kept", filled(-1e4)),
    Fault("softmax_without_maximum", PROBABILITIES, "exponentials without subtracting the maximum, in float32", normalised(no_maximum)),
    Fault("softmax_sum_in_float16", PROBABILITIES, "exponentials summed in float16", softmax_total_in("float16")),
    Fault("softmax_twice", PROBABILITIES, "the softmax of the probabilities that are kept", normalised(lambda plain, s, kept: plain.normalised(plain.softmax(s, kept), kept))),
    Fault("probabilities_by_rank", PROBABILITIES, "probabilities in falling order, not where their tokens are", result(ranked_rows)),
    Fault("probabilities_of_raw", PROBABILITIES, "probabilities without temperature, of what is kept",
          result(lambda plain, found, inputs: dict(zip(("probabilities", "log_probabilities"), plain.normalised(found["penalised_logits"], found["kept"]), strict=True)))),
    # --- logarithms
    Fault("logs_of_all", LOGS, "logarithms of the probabilities before anything is cut",
          result(lambda plain, found, inputs: {"log_probabilities": plain.normalised(found["scaled_logits"], all_kept(found["scaled_logits"]))[1]})),
    Fault("logs_of_base_2", LOGS, "logarithms of base 2", result(lambda plain, found, inputs: {"log_probabilities": found["log_probabilities"] / found["log_probabilities"].dtype.type(np.log(2))})),
    Fault("logs_with_epsilon", LOGS, "log(p + 1e-9)", result(lambda plain, found, inputs: {"log_probabilities": np.log(found["probabilities"] + found["probabilities"].dtype.type(1e-9))})),
    # --- what must be refused
    Fault("accepts_temperature", REFUSED, "a temperature below 0 is taken", accepts("temperature [")),
    Fault("accepts_top_k", REFUSED, "top_k below 0 is taken", accepts("top_k [")),
    Fault("accepts_top_p", REFUSED, "top_p outside 0 … 1 is taken", accepts("top_p [")),
    Fault("accepts_min_p", REFUSED, "min_p outside 0 … 1 is taken", accepts("min_p [")),
    Fault("accepts_repetition", REFUSED, "a repetition penalty of 0 is taken", accepts("repetition_penalty [")),
    Fault("accepts_tokens", REFUSED, "tokens outside the vocabulary are taken for its ends",
          lambda plain: (accepts("token outside")(plain), wrap(occurrences=clipped)(plain), None)[-1]),
    Fault("accepts_lengths", REFUSED, "lengths that do not fit are taken", accepts("length:")),
    Fault("accepts_rows", REFUSED, "another number of rows is repeated or cut off", resized),
    Fault("accepts_nan", REFUSED, "NaN among the logits is taken", accepts("NaN")),
    Fault("accepts_all_banned", REFUSED, "a row in which all is banned is taken", accepts("banned:")),
)  # fmt: skip
