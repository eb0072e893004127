"""Mistakes that people make when they write a cross-entropy, each a small change to the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
SUM, LOSS, GRADIENT, REFUSED = ("logsumexp",), ("loss",), ("grad_logits",), ("refused",)


def exponentials(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the exponential function."""

    def sums(scores: Array) -> tuple[Array, Array]:
        top = scores.max(-1, keepdims=True)
        return top, formula(scores - top).sum(-1, keepdims=True)

    return wrap(sums=lambda _: sums)


def total(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the sum of exponentials: `formula(powers)` of (N, V), (N, 1)."""

    def sums(scores: Array) -> tuple[Array, Array]:
        top = scores.max(-1, keepdims=True)
        return top, formula(np.exp(scores - top))

    return wrap(sums=lambda _: sums)


def added_in(dtype: str) -> Callable[[Array], Array]:
    """Return a sum whose partial sums, of blocks of 128, are added one after the other in the format `dtype`."""
    number = np.dtype(dtype)

    def add(powers: Array) -> Array:
        result = np.zeros((len(powers), 1), number)
        step = 1 if powers.shape[1] < 1000 else 128
        for start in range(0, powers.shape[1], step):
            result = (result + powers[:, start : start + step].sum(-1, keepdims=True)).astype(number)
        return result.astype(powers.dtype)

    return add


def shifted(formula: Callable[[Array], Array]) -> Change:
    """Return a change to what is subtracted: `formula(scores)`, (N, 1)."""

    def sums(scores: Array) -> tuple[Array, Array]:
        top = formula(scores)
        return top, np.exp(scores - top).sum(-1, keepdims=True)

    return wrap(sums=lambda _: sums)


def scores(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the logits, once they are checked: `formula(scores)`, wide."""

    def change(plain: Any) -> None:
        right = plain.cross_entropy

        def cross_entropy(logits: Array, target: Array, weight: Array = None, **params: Any) -> dict[str, Array]:
            plain.refuse(
                logits, target, weight, *(params[name] for name in ("reduction", "ignore_index", "label_smoothing"))
            )
            found = right(formula(plain.wide(logits)) if logits.size else logits, target, weight, **params)
            return {
                name: array.astype(logits.dtype if name != "logsumexp" else array.dtype)
                for name, array in found.items()
            }

        plain.cross_entropy = cross_entropy

    return change


def params(**changes: Callable[[Any], Any]) -> Change:
    """Return a change to parameters, once they are checked."""

    def change(plain: Any) -> None:
        right = plain.cross_entropy

        def cross_entropy(logits: Array, target: Array, weight: Array = None, **given: Any) -> dict[str, Array]:
            plain.refuse(
                logits, target, weight, *(given[name] for name in ("reduction", "ignore_index", "label_smoothing"))
            )
            return right(logits, target, weight, **(given | {name: of(given[name]) for name, of in changes.items()}))

        plain.cross_entropy = cross_entropy

    return change


def losses(formula: Callable[..., Array]) -> Change:
    """Return a change to the rows' losses, not their gradients: `formula(log_p, y, factors, smoothing)`; y (N,) labels."""
    return wrap(row_losses=lambda _: formula)


def gradients(formula: Callable[..., Array]) -> Change:
    """Return a change to the rows' gradients: `formula(p, share, y)` of (N, V), (N, V) and (N,) gives (N, V)."""

    def wrong(right: Any) -> Any:
        def row_gradients(p: Array, label: Array, factors: Array, smoothing: float) -> Array:
            share = -right(np.zeros_like(p), label, factors, smoothing)
            return formula(p, share, label)

        return row_gradients

    return wrap(row_gradients=wrong)


def shares(formula: Callable[[Array, Array, Array, float], Array]) -> Change:
    """Return a change to both losses and gradients: `formula(shape, y, factors, smoothing)` is each class's share, (N, V)."""

    def change(plain: Any) -> None:
        def row_losses(log_p: Array, label: Array, factors: Array, smoothing: float) -> Array:
            share = formula(log_p, label, factors, smoothing).astype(log_p.dtype)
            return -np.where(share == 0, 0, share * log_p).sum(-1)

        def row_gradients(p: Array, label: Array, factors: Array, smoothing: float) -> Array:
            share = formula(p, label, factors, smoothing).astype(p.dtype)
            return share.sum(-1, keepdims=True) * p - share

        plain.row_losses, plain.row_gradients = row_losses, row_gradients

    return change


def one_hot(like: Array, label: Array) -> Array:
    """Return 1 for each row's label, (N, V)."""
    return (np.arange(like.shape[1]) == label[:, None]).astype(like.dtype)


def chosen(log_p: Array, label: Array) -> Array:
    """Return each row's entry of its label, (N,)."""
    return log_p[np.arange(len(label)), label]


def divisor(formula: Callable[[Array, Array], Any]) -> Change:
    """Return a change to the divisor of the mean: `formula(kept, row_factors)`."""

    def wrong(right: Any) -> Any:
        def denominator(kept: Array, row_factors: Array, reduction: str) -> Any:
            if reduction != "mean":
                return right(kept, row_factors, reduction)
            return row_factors.dtype.type(formula(kept, row_factors))

        return denominator

    return wrap(denominator=wrong)


def divided_gradient(formula: Callable[[Array, Any], Any]) -> Change:
    """Return a change to the divisor of the gradient alone: `formula(kept, divisor)`."""
    return wrap(
        scaled=lambda right: (
            lambda gradient, kept, divisor: right(gradient, kept, divisor.dtype.type(formula(kept, divisor)))
        )
    )


def factors(formula: Callable[[Array], Array]) -> Change:
    """Return a change to class weights, where they are given."""
    return wrap(
        class_factors=lambda right: (
            lambda weight, scores: right(weight, scores) if weight is None else formula(right(weight, scores))
        )
    )


def labels(formula: Callable[[Array, int, int], Array]) -> Change:
    """Return a change to the targets that are not ignored: `formula(target, V, ignore_index)`."""

    def change(plain: Any) -> None:
        right = plain.cross_entropy

        def cross_entropy(logits: Array, target: Array, weight: Array = None, **given: Any) -> dict[str, Array]:
            plain.refuse(
                logits, target, weight, *(given[name] for name in ("reduction", "ignore_index", "label_smoothing"))
            )
            index = given["ignore_index"]
            moved = np.where(target == index, -1, formula(target, logits.shape[1], index))
            return right(logits, moved, weight, **(given | {"ignore_index": -1}))

        plain.cross_entropy = cross_entropy

    return change


def ignored_rows_counted(plain: Any) -> None:
    """Take the rows that are ignored for rows of class 0, in the mean as well."""
    plain.counted = lambda target, ignore_index: np.ones(target.shape, bool)
    right = plain.cross_entropy

    def cross_entropy(
        logits: Array, target: Array, weight: Array = None, *, ignore_index: int, **given: Any
    ) -> dict[str, Array]:
        plain.refuse(logits, target, weight, given["reduction"], ignore_index, given["label_smoothing"])
        return right(logits, np.where(target == ignore_index, 0, target), weight, ignore_index=ignore_index, **given)

    plain.cross_entropy = cross_entropy


def always_minus_100(plain: Any) -> None:
    """Ignore rows of the target -100 alone; other negative ones count from the last class."""
    right = plain.cross_entropy

    def cross_entropy(
        logits: Array, target: Array, weight: Array = None, *, ignore_index: int, **given: Any
    ) -> dict[str, Array]:
        plain.refuse(logits, target, weight, given["reduction"], ignore_index, given["label_smoothing"])
        wrapped = np.where(target == -100, -100, target % max(logits.shape[1], 1))
        return right(logits, wrapped, weight, ignore_index=-100, **given)

    plain.cross_entropy = cross_entropy


def over_classes(plain: Any) -> None:
    """Divide the mean by the number of classes too."""
    right = plain.cross_entropy

    def cross_entropy(logits: Array, target: Array, weight: Array = None, **given: Any) -> dict[str, Array]:
        found = right(logits, target, weight, **given)
        if given["reduction"] != "mean":
            return found
        wide = right(plain.wide(logits), target, None if weight is None else plain.wide(weight), **given)
        return found | {"loss": (wide["loss"] / logits.shape[1]).astype(logits.dtype)}

    plain.cross_entropy = cross_entropy


def accepts(word: str, then: Callable[..., dict[str, Any]]) -> Change:
    """Return a change that answers what is refused with a text that begins with `word`: with the inputs `then(**given)`."""

    def change(plain: Any) -> None:
        right = plain.cross_entropy

        def cross_entropy(**given: Any) -> dict[str, Array]:
            try:
                return right(**given)
            except ValueError as error:
                if not str(error).startswith(word):
                    raise
                return right(**(given | then(**given)))

        plain.cross_entropy = cross_entropy

    return change


def smoothing_of_ignored(plain: Any) -> None:
    """Leave the smoothed part of the loss in rows that are ignored."""
    right, spread = plain.row_losses, list[Array]()

    def row_losses(log_p: Array, label: Array, factors: Array, smoothing: float) -> Array:
        each = log_p.dtype.type(smoothing / log_p.shape[1])
        spread[:] = [-each * (factors * log_p).sum(-1) if smoothing else np.zeros_like(log_p[:, 0])]
        return right(log_p, label, factors, smoothing)

    plain.row_losses = row_losses
    plain.masked = lambda losses, kept: np.where(kept, losses, spread[0])


def smoothed_in(dtype: str) -> Change:
    """Return a change to the smoothed part of the loss: log p are added one after the other in the format `dtype`."""
    number = np.dtype(dtype)

    def row_losses(log_p: Array, label: Array, factors: Array, smoothing: float) -> Array:
        found = -(1 - smoothing) * factors[label] * chosen(log_p, label)
        if smoothing:
            total = np.add.accumulate((factors * log_p).astype(number), axis=-1)[:, -1]
            found = found - smoothing / log_p.shape[1] * total.astype(log_p.dtype)
        return found

    return losses(row_losses)


def coarse(values: Array, dtype: str) -> Array:
    """Return values rounded to `dtype`, in their own format."""
    return values.astype(dtype).astype(values.dtype)


FAULTS = (
    # --- the sum of exponentials
    Fault("maximum_missing", SUM, "exponentials overflow: the maximum is not subtracted", shifted(lambda s: np.zeros_like(s[:, :1]))),
    Fault("maximum_of_all", SUM, "the maximum over all rows is subtracted", shifted(lambda s: np.broadcast_to(s.max(initial=-np.inf), (len(s), 1)))),
    Fault("maximum_begins_at_0", SUM, "the maximum begins at 0 instead of -inf", shifted(lambda s: np.maximum(s.max(-1, keepdims=True), 0))),
    Fault("base_2", SUM, "2^x instead of e^x in the sum", exponentials(np.exp2)),
    Fault("last_class_missing", SUM, "the last class is not in the sum, where there are more", total(lambda p: p[:, : max(p.shape[1] - 1, 1)].sum(-1, keepdims=True))),
    Fault("tail_not_summed", SUM, "classes beyond the last whole vector of four are not in the sum", total(lambda p: p[:, : p.shape[1] // 4 * 4 or 1].sum(-1, keepdims=True))),
    Fault("padding_summed", SUM, "logits 0 that pad the classes to a multiple of 64 are in the sum",
          wrap(sums=lambda right: lambda s: right(np.pad(s, ((0, 0), (0, -s.shape[1] % 64)))))),
    Fault("sums_in_float16", SUM, "exponentials added in float16", total(added_in("float16"))),
    Fault("sums_in_bfloat16", SUM, "exponentials added in bfloat16", total(added_in("bfloat16"))),
    Fault("exponentials_in_bfloat16", SUM, "exponentials rounded to bfloat16 before they are added", exponentials(lambda z: coarse(np.exp(z), "bfloat16"))),
    Fault("softmax_twice", SUM, "given the softmax as logits: applied twice",
          scores(lambda s: np.exp(s - s.max(-1, keepdims=True)) / np.exp(s - s.max(-1, keepdims=True)).sum(-1, keepdims=True))),
    # --- the logarithm of the probability
    Fault("logarithm_of_softmax", LOSS, "log(softmax): the logarithm of probabilities that underflow", wrap(log_probabilities=lambda _: lambda s, top, total: np.log(np.exp(s - top) / total))),
    Fault("logarithm_of_softmax_in_float16", LOSS, "log(softmax), of probabilities rounded to float16",
          wrap(row_losses=lambda right: lambda log_p, *given: right(np.log(coarse(np.exp(log_p), "float16")), *given))),
    Fault("probability_plus_epsilon", LOSS, "log(p + 1e-7), as Keras clips", wrap(row_losses=lambda right: lambda log_p, *given: right(np.log(np.exp(log_p) + log_p.dtype.type(1e-7)), *given))),
    Fault("logarithm_not_subtracted", LOSS, "x - max without the logarithm of the sum", wrap(log_probabilities=lambda _: lambda s, top, total: s - top)),
    Fault("maximum_not_put_back", LOSS, "x - log(sum), where the sum is of exp(x - max)", wrap(log_probabilities=lambda _: lambda s, top, total: s - np.log(total))),
    # --- the loss of a row
    Fault("log_p_taken_for_loss", LOSS, "log p without the minus sign", losses(lambda log_p, y, w, e: -(-(1 - e) * w[y] * chosen(log_p, y) - (e / log_p.shape[1] * (w * log_p).sum(-1) if e else 0)))),
    Fault("loss_in_bits", LOSS, "the logarithm to base 2 in the loss",
          wrap(row_losses=lambda right: lambda *given: right(*given) / given[0].dtype.type(np.log(2)))),
    Fault("probability_instead", LOSS, "1 - p instead of -log p", losses(lambda log_p, y, w, e: (1 - e) * w[y] * (1 - np.exp(chosen(log_p, y))) + (e / log_p.shape[1] * (w * (1 - np.exp(log_p))).sum(-1) if e else 0))),
    Fault("binary_terms_added", LOSS, "-log(1 - p) of the other classes is added, as in a binary cross-entropy",
          wrap(row_losses=lambda right: lambda log_p, y, w, e: right(log_p, y, w, e) - ((1 - one_hot(log_p, y)) * np.log1p(-np.minimum(np.exp(log_p), log_p.dtype.type(0.9999)))).sum(-1))),
    Fault("one_hot_times_log_p", LOSS, "the sum of one-hot times log p: 0 times -inf, of a class ruled out, is NaN", losses(lambda log_p, y, w, e: -(w * ((1 - e) * one_hot(log_p, y) + e / log_p.shape[1]) * log_p).sum(-1))),
    # --- targets and rows that are ignored
    Fault("targets_shifted", LOSS, "the target of the row before", wrap(counted=lambda right: right, cross_entropy=lambda right: lambda logits, target, weight=None, **given:
          right(logits, np.where((target != given["ignore_index"]) & (np.roll(target, 1) != given["ignore_index"]), np.roll(target, 1), target) if target.shape == logits.shape[:1] else target, weight, **given))),
    Fault("targets_from_1", LOSS, "targets counted from 1: the class before, the last one before the first", labels(lambda t, V, index: (t - 1) % V)),
    Fault("ignored_rows_in_mean", LOSS, "divided by all rows, those that are ignored too", divisor(lambda kept, w: w[kept].sum() if not kept.any() else w[kept].mean() * len(kept))),
    Fault("ignored_rows_counted", LOSS, "ignored rows count as rows of class 0", ignored_rows_counted),
    Fault("ignore_index_minus_100", LOSS, "rows of the target -100 are ignored, whatever ignore_index says", always_minus_100),
    Fault("negative_targets_ignored", LOSS, "negative targets are ignored, a class that is ignore_index is not",
          params(ignore_index=lambda index: index if index < 0 else -100)),
    Fault("class_0_ignored", LOSS, "rows of class 0 are ignored too", labels(lambda t, V, index: np.where(t == 0, -1, t))),
    Fault("mean_of_nothing_is_0", LOSS, "0 for the mean of no rows", divisor(lambda kept, w: w[kept].sum() if kept.any() else 1)),
    # --- the reduction
    Fault("sum_instead_of_mean", LOSS, "the sum instead of the mean", divisor(lambda kept, w: 1 if kept.any() else 0)),
    Fault("mean_instead_of_sum", LOSS, "the mean instead of the sum", params(reduction=lambda how: "none" if how == "none" else "mean")),
    Fault("mean_over_classes", LOSS, "the loss divided by rows times classes", over_classes),
    Fault("divided_by_n_minus_1", LOSS, "divided by one less than the rows that count", divisor(lambda kept, w: w[kept].sum() - w[kept].mean() if kept.sum() > 1 else w[kept].sum())),
    # --- label smoothing
    Fault("smoothing_ignored", LOSS, "labels are not smoothed", params(label_smoothing=lambda e: 0.0)),
    Fault("smoothing_over_others", LOSS, "e / (V - 1) for the classes that are not the target, 1 - e for it",
          shares(lambda like, y, w, e: w * ((1 - e) * one_hot(like, y) + e / max(like.shape[1] - 1, 1) * (1 - one_hot(like, y))))),
    Fault("smoothing_others_only", LOSS, "e / V for the classes that are not the target, 1 - e for it",
          shares(lambda like, y, w, e: w * ((1 - e) * one_hot(like, y) + e / like.shape[1] * (1 - one_hot(like, y))))),
    Fault("smoothing_added", LOSS, "the target keeps 1 instead of 1 - e", shares(lambda like, y, w, e: w * (one_hot(like, y) + e / like.shape[1]))),
    Fault("smoothing_not_divided", LOSS, "e for every class instead of e / V", shares(lambda like, y, w, e: w * ((1 - e) * one_hot(like, y) + e))),
    Fault("smoothing_half", LOSS, "e / 2 instead of e", params(label_smoothing=lambda e: e / 2)),
    Fault("smoothing_without_weights", LOSS, "class weights only on the target's term", shares(lambda like, y, w, e: (1 - e) * w * one_hot(like, y) + e / like.shape[1])),
    Fault("smoothing_of_ignored_rows", LOSS, "ignored rows keep the smoothed part of their loss", smoothing_of_ignored),
    Fault("smoothed_part_in_bfloat16", LOSS, "log p of the classes added in bfloat16", smoothed_in("bfloat16")),
    Fault("smoothing_weighted_by_target", LOSS, "the whole smoothed loss times the target's weight", shares(lambda like, y, w, e: w[y][:, None] * ((1 - e) * one_hot(like, y) + e / like.shape[1]))),
    # --- class weights
    Fault("weights_ignored", LOSS, "class weights are ignored", factors(np.ones_like)),
    Fault("weights_not_in_divisor", LOSS, "the weighted sum divided by the number of rows", divisor(lambda kept, w: kept.sum())),
    Fault("weights_of_all_in_divisor", LOSS, "divided by the sum of the weights of all rows, ignored ones as class 0", divisor(lambda kept, w: w.sum() if kept.any() else 0)),
    Fault("weights_twice", LOSS, "class weights squared", factors(np.square)),
    Fault("weights_reversed", LOSS, "class weights in the reverse order", factors(lambda w: w[::-1])),
    Fault("weights_inverted", LOSS, "divided by class weights", factors(lambda w: 1 / w)),
    # --- the gradient
    Fault("gradient_without_target", GRADIENT, "the gradient is p, without less the target's share", gradients(lambda p, share, y: share.sum(-1, keepdims=True) * p)),
    Fault("gradient_negated", GRADIENT, "the gradient has the wrong sign", gradients(lambda p, share, y: share - share.sum(-1, keepdims=True) * p)),
    Fault("gradient_not_divided", GRADIENT, "the gradient is that of the sum", divided_gradient(lambda kept, d: 1)),
    Fault("gradient_divided_by_rows", GRADIENT, "the gradient is divided by all rows, whatever the reduction", divided_gradient(lambda kept, d: len(kept))),
    Fault("gradient_of_ignored_rows", GRADIENT, "ignored rows have a gradient, that of class 0",
          wrap(scaled=lambda right: lambda g, kept, d: right(g, np.ones_like(kept), d) if kept.any() else right(g, kept, d))),
    Fault("gradient_nan_without_rows", GRADIENT, "the gradient of ignored rows is multiplied by 0 and divided by the count, 0 / 0 where none counts",
          wrap(scaled=lambda _: lambda g, kept, d: g * kept[:, None] / d)),
    Fault("gradient_not_smoothed", GRADIENT, "the gradient of labels that are not smoothed",
          wrap(row_gradients=lambda right: lambda p, y, w, e: right(p, y, w, 0))),
    Fault("gradient_not_weighted", GRADIENT, "class weights are missing in the gradient", wrap(row_gradients=lambda right: lambda p, y, w, e: right(p, y, np.ones_like(w), e))),
    Fault("gradient_mass_1", GRADIENT, "p less the target's share: p is not multiplied by the row's weight", gradients(lambda p, share, y: p - share)),
    Fault("gradient_of_target_alone", GRADIENT, "the gradient at the target alone", gradients(lambda p, share, y: one_hot(p, y) * (share.sum(-1, keepdims=True) * p - share))),
    Fault("gradient_through_probability", GRADIENT, "the gradient in the probabilities instead of the logits",
          gradients(lambda p, share, y: -share / np.maximum(p, p.dtype.type(1e-3)))),
    # --- what must be refused
    Fault("accepts_targets", REFUSED, "targets out of range are clipped, or count from the last class",
          accepts("target", lambda logits, target, **given: {"target": target % logits.shape[1]})),
    Fault("accepts_shapes", REFUSED, "as many rows as both have are used, of logits of any rank",
          accepts("logits", lambda logits, target, **given: {"logits": logits.reshape(-1, logits.shape[-1])[: len(target)], "target": target[: logits.reshape(-1, logits.shape[-1]).shape[0]]})),
    Fault("accepts_weights", REFUSED, "class weights that are missing are 1", accepts("weight", lambda logits, weight, **given: {"weight": None})),
    Fault("accepts_reduction", REFUSED, "an unknown reduction is taken for the mean", accepts("reduction", lambda **given: {"reduction": "mean"})),
    Fault("accepts_smoothing", REFUSED, "a label_smoothing out of range is clipped", accepts("label_smoothing", lambda label_smoothing, **given: {"label_smoothing": min(max(label_smoothing, 0.0), 1.0)})),
    # --- what comes in
    *rounded_inputs("cross_entropy", SUM),
)  # fmt: skip
