"""Mistakes that people make with masks of attention, each a small change to the plain candidate. NumPy only.

B batch, H heads, S queries, T keys.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from karat.faults import Fault, wrap

Array = Any
Change = Callable[[Any], None]
SCORES, PROBABILITIES, REFUSED = ("masked_scores",), ("probabilities",), ("refused",)


# --- what a mask means -----------------------------------------------------------------------------------------------


def read_as(
    kept: Callable[[Array], Array] | None, *kinds: str, added: Callable[[Array], Array] | None = None
) -> Change:
    """Return a change to what masks of some kinds mean: `kept(mask)` says which keys are kept, `added(mask)` a bias.

    Without `kept` all are kept.
    """

    def change(plain: Any) -> None:
        right_kept, right_bias = plain.kept_keys, plain.bias

        def kept_keys(mask: Array, kind: str) -> Array:
            if kind not in kinds:
                return right_kept(mask, kind)
            return np.ones(mask.shape, bool) if kept is None else np.asarray(kept(mask))

        def bias(mask: Array, kind: str) -> Array:
            if kind not in kinds:
                return right_bias(mask, kind)
            return np.zeros(mask.shape) if added is None else np.asarray(added(plain.wide(mask)))

        plain.kept_keys, plain.bias = kept_keys, bias

    return change


def integers_read_as(kept: Callable[[Array], Array], *dtypes: str) -> Change:
    """Return a change to what integers of some types mean: `kept(mask)`."""
    return wrap(
        kept_keys=lambda right: lambda mask, kind: kept(mask) if mask.dtype.name in dtypes else right(mask, kind)
    )


def biases(formula: Callable[[Array], Array]) -> Change:
    """Return a change to what is added to the scores: `formula` of the right biases."""
    return wrap(bias=lambda right: lambda mask, kind: formula(right(mask, kind)))


def wrapped_bytes(mask: Array) -> Array:
    """Return (mask - 1) * 1e4 of a mask, where it is of bytes, in which 0 - 1 is 255."""
    return (mask - mask.dtype.type(1)).astype(np.float64) * 1e4


# --- where it stands -------------------------------------------------------------------------------------------------


def placed(axes: Sequence[str], formula: Callable[[Array], Array]) -> Change:
    """Return a change to masks of some axes: `formula(mask)` of four axes, as it should stand."""
    return wrap(
        four_axes=lambda right: lambda mask, given: formula(right(mask, given)) if given in axes else right(mask, given)
    )


def called(wrong: Callable[[tuple[int, ...], tuple[int, ...], str], str]) -> Change:
    """Return a change to the axes of a mask: `wrong(mask shape, scores shape, axes)` says what they are taken for."""

    def change(plain: Any) -> None:
        right = plain.attention_mask

        def attention_mask(q: Array, k: Array, v: Array, mask: Array = None, **given: Any) -> Any:
            if mask is not None and given.get("mask_axes"):
                given["mask_axes"] = wrong(mask.shape, (*q.shape[:3], k.shape[2]), given["mask_axes"])
            return right(q, k, v, mask, **given)

        plain.attention_mask = attention_mask

    return change


def heads_first(plain: Any) -> None:
    """Take the first axis of a (B, S, T) mask for the heads, where B is H."""
    right, apply = plain.four_axes, plain.apply_mask
    state: dict[str, bool] = {}

    def four_axes(mask: Array, axes: str) -> Array:
        state["BST"] = axes == "BST"
        return right(mask, axes)

    def apply_mask(scores: Array, kept: Array, added: Array) -> Array:
        B, H = scores.shape[:2]
        if state["BST"] and kept.shape[0] == B == H:
            kept, added = kept.swapaxes(0, 1), added.swapaxes(0, 1)
        return apply(scores, kept, added)

    plain.four_axes, plain.apply_mask = four_axes, apply_mask


def square(formula: Callable[[Array], Array]) -> Change:
    """Return a change to which keys are kept where S is T: `formula(kept)` of (B or 1, H or 1, S, T)."""

    def replacement(right: Any) -> Any:
        def apply_mask(scores: Array, kept: Array, added: Array) -> Array:
            S, T = scores.shape[2:]
            if S != T:
                return right(scores, kept, added)
            return right(scores, formula(np.broadcast_to(kept, (*kept.shape[:2], S, T))), added)

        return apply_mask

    return wrap(apply_mask=replacement)


def kept_as(formula: Callable[[Array], Array]) -> Change:
    """Return a change to which keys are kept: `formula(kept)`, (B or 1, H or 1, S or 1, T)."""
    return wrap(apply_mask=lambda right: lambda scores, kept, added: right(scores, formula(kept), added))


def by_length(kept: Array) -> Array:
    """Keep as many keys as the mask keeps, the first ones: padding is taken to be on the right."""
    return np.arange(kept.shape[-1]) < kept.sum(-1, keepdims=True)


# --- how it is applied -----------------------------------------------------------------------------------------------


def applied(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to how a mask is applied: `formula(scores, kept, added)`, (B, H, S, T)."""

    def apply_mask(scores: Array, kept: Array, added: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(formula(scores, kept, added.astype(scores.dtype))).astype(scores.dtype)

    return wrap(apply_mask=lambda _: apply_mask)


def before_scaling(plain: Any) -> None:
    """Add an additive mask to q k^T, then divide both by sqrt(D)."""
    scores = plain.attention_scores
    state: dict[str, float] = {}

    def attention_scores(q: Array, k: Array) -> Array:
        state["root"] = math.sqrt(q.shape[-1])
        return scores(q, k)

    plain.attention_scores = attention_scores
    wrap(bias=lambda right: lambda mask, kind: right(mask, kind) / state["root"])(plain)


def filled(fill: float) -> Change:
    """Return a change that puts a finite number where the score of a dropped key was."""
    return applied(lambda scores, kept, added: np.where(kept, scores + added, fill))


def added_fill(fill: float) -> Change:
    """Return a change that adds a finite number to the score of a dropped key."""
    return applied(lambda scores, kept, added: scores + added + np.where(kept, 0, fill))


def ahead(scores: Array) -> Array:
    """Say which keys are ahead of a query, the queries being the last S of T tokens, (S, T)."""
    S, T = scores.shape[-2:]
    return np.arange(T) > np.arange(S)[:, None] + T - S


def causal_without_mask(plain: Any) -> None:
    """Hide the keys ahead where no mask is given."""
    scores, apply, right = plain.attention_scores, plain.apply_mask, plain.softmax
    state: dict[str, bool] = {}

    def attention_scores(q: Array, k: Array) -> Array:
        state["masked"] = False
        return scores(q, k)

    def apply_mask(found: Array, kept: Array, added: Array) -> Array:
        state["masked"] = True
        return apply(found, kept, added)

    def softmax(found: Array) -> Array:
        return right(found if state["masked"] else np.where(ahead(found), -np.inf, found).astype(found.dtype))

    plain.attention_scores, plain.apply_mask, plain.softmax = attention_scores, apply_mask, softmax


# --- the softmax and after -------------------------------------------------------------------------------------------


def softmax(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the softmax: `formula(masked scores)`, (B, H, S, T)."""

    def replacement(scores: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(formula(scores)).astype(scores.dtype)

    return wrap(softmax=lambda _: replacement)


def exponentials(scores: Array) -> Array:
    """Return exp(scores - largest), NaN where all are -inf."""
    return np.exp(scores - scores.max(-1, keepdims=True))


def unguarded(scores: Array, axis: int = -1) -> Array:
    """Return the softmax, NaN where all scores are -inf."""
    weights = np.exp(scores - scores.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def of_unmasked(formula: Callable[[Array, Array, Any], Array]) -> Change:
    """Return a change to probabilities: `formula(unmasked scores, kept, the right softmax)`."""

    def change(plain: Any) -> None:
        apply, right = plain.apply_mask, plain.softmax
        state: dict[str, Any] = {}

        def apply_mask(scores: Array, kept: Array, added: Array) -> Array:
            state.update(scores=scores + added.astype(scores.dtype), kept=np.broadcast_to(kept, scores.shape))
            return apply(scores, kept, added)

        def replacement(scores: Array) -> Array:
            if not state:  # no mask
                return right(scores)
            with np.errstate(all="ignore"):
                return np.asarray(formula(state.pop("scores"), state.pop("kept"), right)).astype(scores.dtype)

        plain.apply_mask, plain.softmax = apply_mask, replacement

    return change


def dropped_rows(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to probabilities of queries that keep no key: `formula(unmasked scores, which keys)`."""

    def of_all(scores: Array, kept: Array, right: Any) -> Array:
        rest = right(np.where(kept, scores, -np.inf))
        return np.where(kept.any(-1, keepdims=True), rest, formula(scores, np.arange(scores.shape[-1])))

    return of_unmasked(of_all)


def finite_kept(plain: Any) -> None:
    """Drop a key of an additive mask by -inf alone: what is finite is added, and a query of nothing else sees all."""
    kept, right, apply, softmax = plain.kept_keys, plain.bias, plain.apply_mask, plain.softmax
    state: dict[str, Any] = {}

    def bias(mask: Array, kind: str) -> Array:
        finite = (kind == "additive") & np.isfinite(plain.wide(mask)) & ~kept(mask, kind)
        state["fill"] = np.where(finite, mask.astype(np.float64), -np.inf)
        return right(mask, kind)

    def apply_mask(scores: Array, kept: Array, added: Array) -> Array:
        found = apply(scores, kept, added)
        alone = np.isneginf(found).all(-1, keepdims=True)
        state["added"] = np.where(alone, scores + state["fill"], found).astype(scores.dtype)
        return found

    def replacement(scores: Array) -> Array:
        with np.errstate(all="ignore"):
            return softmax(state.pop("added", scores))

    plain.bias, plain.apply_mask, plain.softmax = bias, apply_mask, replacement


# --- what is accepted ------------------------------------------------------------------------------------------------


def accepting(part: str, *, computed: bool = False) -> Change:
    """Return a change that answers what the right candidate refuses with a text that has `part` in it.

    It answers as without a mask or, with `computed`, what comes out.
    """

    def change(plain: Any) -> None:
        whole, right = plain.attention_mask, plain.check

        def lenient(*arguments: Any) -> None:
            try:
                right(*arguments)
            except ValueError as error:
                if part not in str(error):
                    raise

        def attention_mask(q: Array, k: Array, v: Array, mask: Array = None, **given: Any) -> Any:
            try:
                return whole(q, k, v, mask, **given)
            except ValueError as error:
                if part not in str(error):
                    raise
            return whole(q, k, v, mask_kind="none")

        if computed:
            plain.check = lenient
        else:
            plain.attention_mask = attention_mask

    return change


def raising(kind: str) -> Change:
    """Return a change that raises for masks of one kind."""

    def replacement(right: Any) -> Any:
        def kept_keys(mask: Array, given: str) -> Array:
            if given == kind:
                raise TypeError(f"attention masks must be booleans, got {mask.dtype}")
            return right(mask, given)

        return kept_keys

    return wrap(kept_keys=replacement)


def more_axes_refused(plain: Any) -> None:
    """Raise for masks of three and four axes."""
    right = plain.four_axes

    def four_axes(mask: Array, axes: str) -> Array:
        if mask.ndim > 2:
            raise ValueError("The expanded size of the tensor must match the existing size")
        return right(mask, axes)

    plain.four_axes = four_axes


def input_returned(right: Any) -> Any:
    """Return the queries as the output."""
    return lambda q, k, v, mask=None, **given: right(q, k, v, mask, **given) | {"output": q.copy()}


FAULTS = (
    # --- what a mask means
    Fault("mask_ignored", SCORES, "the mask is ignored", applied(lambda scores, kept, added: scores)),
    Fault("keep_read_as_drop", SCORES, "booleans that keep are taken to drop", read_as(lambda mask: ~mask, "bool_keep")),
    Fault("drop_read_as_keep", SCORES, "booleans that drop are taken to keep", read_as(lambda mask: mask, "bool_drop")),
    Fault("booleans_added", SCORES, "booleans are added to the scores: 1 for what is kept, and nothing is dropped",
          read_as(None, "bool_keep", added=lambda mask: mask)),
    Fault("integers_read_as_drop", SCORES, "integers other than 0 are taken to drop", read_as(lambda mask: mask == 0, "int_keep")),
    Fault("integers_added", SCORES, "integers are added to the scores, and nothing is dropped", read_as(None, "int_keep", added=lambda mask: mask)),
    Fault("integers_inverted_bitwise", SCORES, "~mask of integers is -1 and -2, both true: everything is dropped",
          integers_read_as(lambda mask: ~(~mask).astype(bool), "int64", "uint8")),
    Fault("only_ones_kept", SCORES, "only integers that are 1 keep", integers_read_as(lambda mask: mask == 1, "int64", "uint8")),
    Fault("segments_weighted", SCORES, "(1 - mask) * -1e4 of integers: those above 1 are raised by 1e4",
          read_as(lambda mask: mask != 0, "int_keep", added=lambda mask: np.maximum(mask - 1, 0) * 1e4)),
    Fault("bytes_wrapped", SCORES, "(mask - 1) * 1e4 of bytes, in which 0 - 1 is 255: what is dropped gets all the weight",
          wrap(kept_keys=lambda right: lambda mask, kind: np.ones(mask.shape, bool) if mask.dtype == np.uint8 else right(mask, kind),
               bias=lambda right: lambda mask, kind: wrapped_bytes(mask) if mask.dtype == np.uint8 else right(mask, kind))),
    Fault("float_keep_added", SCORES, "a mask of 1.0 and 0.0 is added to the scores, and nothing is dropped", read_as(None, "float_keep", added=lambda mask: mask)),
    Fault("float_keep_read_as_drop", SCORES, "1.0 is taken to drop", read_as(lambda mask: mask == 0, "float_keep")),
    Fault("additive_read_as_bool", SCORES, "an additive mask is turned into booleans that keep: 0 drops, -inf keeps", read_as(lambda mask: mask != 0, "additive")),
    Fault("additive_nonzero_dropped", SCORES, "every key with another entry than 0 is dropped, biases included", read_as(lambda mask: mask == 0, "additive")),
    Fault("additive_read_as_keep", SCORES, "(1 - mask) * -1e4 of an additive mask: 0 drops", read_as(np.isfinite, "additive", added=lambda mask: np.where(np.isfinite(mask), (1 - mask) * -1e4, 0))),
    Fault("dropped_from_minus_50", SCORES, "an additive mask drops with entries of -50 or less", read_as(lambda mask: mask > -50, "additive", added=lambda mask: np.where(mask > -50, mask, 0))),
    Fault("dropped_from_minus_9000", SCORES, "an additive mask drops with entries of -9000 or less alone", read_as(lambda mask: mask > -9000, "additive", added=lambda mask: np.where(mask > -9000, mask, 0))),
    Fault("limit_kept", SCORES, "an entry of exactly -1000 is a bias", read_as(lambda mask: mask >= -1000, "additive", added=lambda mask: np.where(mask >= -1000, mask, 0))),
    Fault("biases_left_out", SCORES, "an additive mask drops, and its biases are left out", biases(lambda bias: bias * 0)),
    Fault("biases_subtracted", SCORES, "the additive mask is subtracted", biases(lambda bias: -bias)),
    Fault("mask_added_twice", SCORES, "the additive mask is added twice", biases(lambda bias: 2 * bias)),
    Fault("mask_added_before_scaling", SCORES, "the additive mask is added before the scores are divided by sqrt(D)", before_scaling),
    Fault("positive_biases_clipped", SCORES, "the additive mask is clipped to 0 from above", biases(lambda bias: np.minimum(bias, 0))),
    # --- where it stands
    Fault("rows_taken_for_queries", SCORES, "where B is S, the first axis of a (B, T) mask is taken for the queries",
          called(lambda mask, scores, axes: "ST" if axes == "BT" and mask[0] == scores[2] else axes)),
    Fault("queries_taken_for_rows", SCORES, "where B is S, the first axis of an (S, T) mask is taken for the batch",
          called(lambda mask, scores, axes: "BT" if axes == "ST" and mask[0] == scores[0] else axes)),
    Fault("rows_taken_for_heads", SCORES, "where B is H, the first axis of a (B, S, T) mask is taken for the heads", heads_first),
    Fault("first_row_for_all", SCORES, "the mask of the first row of the batch is used for all",
          placed(("BT", "BST", "BHST"), lambda mask: mask[:1])),
    Fault("first_head_for_all", SCORES, "the mask of the first head is used for all", placed(("BHST",), lambda mask: mask[:, :1])),
    Fault("first_query_for_all", SCORES, "the mask of the first query is used for all", placed(("ST", "BST", "BHST"), lambda mask: mask[:, :, :1])),
    Fault("any_row_keeps", SCORES, "a key is kept where any row of the batch keeps it", kept_as(lambda kept: kept.any(0, keepdims=True))),
    Fault("mask_transposed", SCORES, "where S is T, queries and keys of the mask are exchanged", square(lambda kept: kept.swapaxes(-1, -2))),
    Fault("padding_of_queries_too", SCORES, "where S is T, what is padding among the keys is dropped among the queries too",
          square(lambda kept: kept & kept.swapaxes(-1, -2))),
    Fault("padding_on_the_right", SCORES, "the kept keys are counted, and so many kept from the first on: padding on the left is taken for padding on the right", kept_as(by_length)),
    Fault("one_key_too_far", SCORES, "the mask is off by one key", kept_as(lambda kept: np.roll(kept, 1, -1))),
    Fault("own_key_always_kept", SCORES, "where S is T, each query keeps its own key, whatever the mask says", square(lambda kept: kept | np.eye(kept.shape[-1], dtype=bool))),
    # --- how it is applied
    Fault("scale_by_head_dim", SCORES, "divided by D instead of sqrt(D)", wrap(
        attention_scores=lambda right: lambda q, k: right(q, k) / q.dtype.type(np.sqrt(q.shape[-1])))),
    Fault("filled_with_0", SCORES, "scores of dropped keys are set to 0: scores times mask, or finfo.tiny where finfo.min was meant", filled(0.0)),
    Fault("filled_with_minus_10", SCORES, "scores of dropped keys are set to -10, which leaks", filled(-10.0)),
    Fault("minus_10_added", SCORES, "-10 is added to the scores of dropped keys, which leaks", added_fill(-10.0)),
    Fault("minus_infinity_times_0", SCORES, "(1 - mask) * -inf is NaN where a key is kept", applied(lambda scores, kept, added: scores + added + (1 - kept.astype(scores.dtype)) * -np.inf)),
    Fault("causal_instead_of_mask", SCORES, "where a mask is given attention is causal instead, whatever the mask holds",
          applied(lambda scores, kept, added: np.where(ahead(scores), -np.inf, scores))),
    Fault("causal_beside_mask", SCORES, "keys ahead are hidden too where a mask is given",
          applied(lambda scores, kept, added: np.where(kept & ~ahead(scores), scores + added, -np.inf))),
    Fault("causal_without_mask", PROBABILITIES, "attention is causal where no mask is given", causal_without_mask),
    Fault("mask_of_first_block", SCORES, "keys come in two blocks, and the first half of the mask is used for both",
          kept_as(lambda kept: kept[..., np.arange(kept.shape[-1]) % -(-kept.shape[-1] // 2)])),
    # --- the softmax and after
    Fault("masked_after_softmax", PROBABILITIES, "the softmax is of all keys, dropped ones are set to 0 after it, and the rest is not divided by its sum",
          of_unmasked(lambda scores, kept, right: right(scores) * kept)),
    Fault("dropped_keys_in_denominator", PROBABILITIES, "dropped keys count in the softmax's denominator with the score 0",
          softmax(lambda scores: np.nan_to_num(exponentials(scores) / (exponentials(scores).sum(-1, keepdims=True) + np.isneginf(scores).sum(-1, keepdims=True) * np.exp(-scores.max(-1, keepdims=True)))))),
    Fault("maximum_not_subtracted", PROBABILITIES, "exponentials of scores of which the largest was not subtracted",
          softmax(lambda scores: np.exp(scores) / np.where((total := np.exp(scores).sum(-1, keepdims=True)) > 0, total, 1))),
    Fault("softmax_over_queries", PROBABILITIES, "the softmax is over the queries", softmax(lambda scores: np.nan_to_num(unguarded(scores, -2)))),
    Fault("input_returned", ("output",), "the queries are returned where attention failed and the error was caught", wrap(attention_mask=input_returned)),
    # --- a query that keeps no key
    Fault("nan_where_all_dropped", PROBABILITIES, "a query that keeps no key gets NaN", softmax(unguarded)),
    Fault("mean_where_all_dropped", PROBABILITIES, "a query that keeps no key gets the mean of the values, as the least number gives", dropped_rows(lambda scores, keys: np.full(scores.shape, 1 / len(keys)))),
    Fault("unmasked_where_all_dropped", PROBABILITIES, "a query that keeps no key attends to all, as -1e4 added to each score gives", dropped_rows(lambda scores, keys: unguarded(scores))),
    Fault("finite_fill_where_all_dropped", PROBABILITIES, "an additive mask of finite numbers is added only: a query that keeps no key attends to all", finite_kept),
    # --- what is accepted, or not
    Fault("kind_guessed", REFUSED, "an unknown kind is taken for none", accepting("no mask kind")),
    Fault("missing_mask_accepted", REFUSED, "a missing mask keeps all", accepting("is missing")),
    Fault("mask_of_none_ignored", REFUSED, "a mask of the kind none is ignored", accepting("given")),
    Fault("axes_guessed", REFUSED, "unknown axes: the mask is ignored", accepting("no mask axes")),
    Fault("rank_guessed", REFUSED, "a mask of another rank than its axes is ignored", accepting("rank")),
    Fault("lengths_accepted", REFUSED, "a mask that does not fit is ignored", accepting("of length")),
    Fault("entries_accepted", REFUSED, "entries of another type are taken as they are", accepting("entries", computed=True)),
    Fault("nan_accepted", REFUSED, "NaN and +inf in an additive mask are computed with", accepting("hold", computed=True)),
    Fault("additive_refused", (), "additive masks are refused", raising("additive")),
    Fault("more_axes_refused", (), "masks of three or four axes are refused", more_axes_refused),
    Fault("integers_refused", (), "integer masks are refused", raising("int_keep")),
)  # fmt: skip
