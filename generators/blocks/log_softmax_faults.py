"""Mistakes that people make when they write the logarithm of a softmax, planted in the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

softmax = beside(__file__, "softmax_faults")
OUTPUT = softmax.OUTPUT


def difference(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the output: `formula(scores, top, total)`."""
    return wrap(log_probabilities=lambda _: formula)


def probabilities(scores: Array, top: Array, total: Array) -> Array:
    """Return the softmax."""
    return np.exp(scores - top) / total


def hidden_slice(value: Callable[[int], float]) -> Change:
    """Return a change to slices that are hidden altogether: `value(length of the axis)`."""

    def run(plain: Any, right: Any, x: Array, *, axis: int, **params: Any) -> dict[str, Array]:  # noqa: ARG001
        found = right(x, axis=axis, **params)
        hidden = (x == -np.inf).all(axis, keepdims=True)
        return found | {"output": np.where(hidden, value(x.shape[axis]), found["output"]).astype(x.dtype)}

    return softmax.function(run)


FAULTS = (
    *softmax.shared(),
    # --- the logarithm
    Fault("log_of_softmax", OUTPUT, "the logarithm of a softmax that underflows: -inf where it is finite",
          difference(lambda s, top, total: np.log(probabilities(s, top, total)))),
    Fault("log_of_softmax_and_epsilon", OUTPUT, "log(softmax + 1e-8)", difference(lambda s, top, total: np.log(probabilities(s, top, total) + s.dtype.type(1e-8)))),
    Fault("log_of_softmax_clipped", OUTPUT, "log(max(softmax, 1e-7)), as Keras clips it", difference(lambda s, top, total: np.log(np.maximum(probabilities(s, top, total), s.dtype.type(1e-7))))),
    Fault("logarithm_to_base_2", OUTPUT, "the sum's logarithm to base 2", difference(lambda s, top, total: s - top - np.log2(total))),
    Fault("logarithm_to_base_10", OUTPUT, "the sum's logarithm to base 10", difference(lambda s, top, total: s - top - np.log10(total))),
    Fault("output_to_base_2", OUTPUT, "the whole to base 2", difference(lambda s, top, total: (s - top - np.log(total)) * s.dtype.type(1.4426950408889634))),
    Fault("logarithm_missing", OUTPUT, "the sum subtracted instead of its logarithm", difference(lambda s, top, total: s - top - total)),
    Fault("logarithm_added", OUTPUT, "the sum's logarithm added instead of subtracted", difference(lambda s, top, total: s - top + np.log(total))),
    Fault("logarithm_of_1_plus", OUTPUT, "log(1 + sum), log1p instead of log", difference(lambda s, top, total: s - top - np.log1p(total))),
    Fault("maximum_kept", OUTPUT, "x less the sum's logarithm: the maximum is subtracted in the sum only", difference(lambda s, top, total: s - np.log(total))),
    Fault("maximum_twice", OUTPUT, "the maximum is subtracted twice", difference(lambda s, top, total: s - 2 * top - np.log(total))),
    Fault("sum_missing", OUTPUT, "x less its maximum, and no sum", difference(lambda s, top, total: s - top)),
    Fault("negated", OUTPUT, "the negative logarithm", difference(lambda s, top, total: np.log(total) - (s - top))),
    Fault("softmax", OUTPUT, "the softmax instead of its logarithm", difference(probabilities)),
    Fault("logsumexp_in_float16", OUTPUT, "the logarithm of the sum of exponentials, maximum included, rounded to float16",
          difference(lambda s, top, total: s - softmax.coarse(top + np.log(total), "float16"))),
    Fault("clipped_at_minus_100", OUTPUT, "clipped at -100", difference(lambda s, top, total: np.maximum(s - top - np.log(total), -100))),
    Fault("hidden_entry_is_lowest", OUTPUT, "a hidden entry is -10000 instead of -inf", difference(lambda s, top, total: np.maximum(s - top - np.log(total), -10000))),
    # --- slices that are hidden altogether
    Fault("hidden_slice_minus_infinity", OUTPUT, "-inf for a slice that is hidden altogether", hidden_slice(lambda length: -np.inf)),
    Fault("hidden_slice_zero", OUTPUT, "0 for a slice that is hidden altogether", hidden_slice(lambda length: 0)),
    Fault("hidden_slice_uniform", OUTPUT, "-log n for a slice that is hidden altogether", hidden_slice(lambda length: -np.log(max(length, 1)))),
    # --- what comes in
    *rounded_inputs("log_softmax", ("logsumexp", "output")),
)  # fmt: skip
