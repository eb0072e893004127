"""Mistakes that people make when they write a feed-forward block with SwiGLU, planted in the plain candidate. NumPy only.

Those of the suite `geglu` are made by the same changes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
GATE, UP, HIDDEN, OUTPUT, REFUSED = (("gate",), ("up",), ("hidden",), ("output",), ("refused",))


def split(formula: Callable[[Any, Array, str], tuple[Array, Array]]) -> Change:
    """Return a change to the layout: `formula(right, gate_up, layout)` gives the rows of gate and up."""
    return wrap(split=lambda right: lambda gate_up, layout: formula(right, gate_up, layout))


def combined(formula: Callable[..., Array]) -> Change:
    """Return a change to the hidden channels: `formula(activation, gate, up)`, given the right activation."""

    def change(plain: Any) -> None:
        right = plain.combined

        def wrong(gate: Array, up: Array, *form: str) -> Array:
            return formula(lambda z: right(z, np.ones_like(z), *form), gate, up)

        plain.combined = wrong

    return change


def activation(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the activation: `formula(gate)`."""
    return combined(lambda act, gate, up: formula(gate) * up)


def first_product(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the products with gate_up: `formula(x, rows)`."""
    return products(formula, of_hidden=False)


def last_product(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the product with down: `formula(hidden, down)`."""
    return products(formula, of_hidden=True)


def products(formula: Callable[[Array, Array], Array], *, of_hidden: bool) -> Change:
    """Return a change to the first two products of each call, or to the third."""

    def change(plain: Any) -> None:
        right, calls = plain.product, [0]

        def product(x: Array, weight: Array) -> Array:
            calls[0] += 1
            last = calls[0] % 3 == 0
            return formula(x, weight) if last == of_hidden else right(x, weight)

        plain.product = product

    return change


def transposed(x: Array, weight: Array) -> Array:
    """Return the product with the weight that is not transposed, where it is square."""
    return x @ (weight if weight.shape[0] == weight.shape[1] else weight.T)


def gate_up_transposed(plain: Any) -> None:
    """Take gate_up for (in, out), where it is square."""
    right = plain.split
    plain.split = lambda gate_up, layout: right(gate_up.T if len(gate_up) == gate_up.shape[1] else gate_up, layout)


def in_two_shards(right: Any, gate_up: Array, layout: str) -> tuple[Array, Array]:
    """Return the rows of gate and up as if the first halves of both stood before the second halves of both."""
    gate, up = right(gate_up, layout)
    if layout != "gate_up":
        return gate, up
    F, first = len(gate), len(gate) // 2
    return np.concatenate([gate[:first], up[: F - first]]), np.concatenate([gate[first:], up[F - first :]])


def accumulated(dtype: str) -> Callable[[Array, Array], Array]:
    """Return a product whose terms are added one after the other in the format `dtype`."""
    number = np.dtype(dtype)

    def product(x: Array, weight: Array) -> Array:
        total = np.zeros((*x.shape[:-1], len(weight)), number)
        for k in range(x.shape[-1]):
            total = (total + x[..., k : k + 1] * weight[:, k]).astype(number)
        return total.astype(x.dtype)

    return product


def without_tail(x: Array, weight: Array) -> Array:
    """Return the product without the terms beyond the last whole block of four."""
    whole = x.shape[-1] // 4 * 4
    return x[..., :whole] @ weight[:, :whole].T


def last_term_twice(x: Array, weight: Array) -> Array:
    """Return the product with its last term counted twice."""
    return x @ weight.T + x[..., -1:] * weight[:, -1]


def coarse(values: Array, dtype: str) -> Array:
    """Return values rounded to `dtype`, in their own format."""
    return values.astype(dtype).astype(values.dtype)


def in_float8(values: Array) -> Array:
    """Return values rounded to 4 bits of significand, as float8_e4m3 has, without a limit."""
    significand, exponent = np.frexp(values)
    return np.ldexp(np.round(significand * 16) / 16, exponent).astype(values.dtype)


def sigmoid(z: Array) -> Array:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-z))


def overflowing(z: Array) -> Array:
    """Return z times exp(z) / (1 + exp(z)), the exponential infinite beyond 65504."""
    power = np.where(z > 11.09, np.inf, np.exp(np.minimum(z, 12))).astype(z.dtype)
    return z * (power / (1 + power))


def accepts(*words: str, then: Callable[[Any], None] = lambda plain: None) -> Change:
    """Return a change that does not refuse what is refused with a text that begins with one of `words`."""

    def change(plain: Any) -> None:
        right = plain.refuse

        def refuse(*arguments: Any) -> None:
            try:
                right(*arguments)
            except ValueError as error:
                if not str(error).startswith(words):
                    raise

        plain.refuse = refuse
        then(plain)

    return change


def cut_to_fit(plain: Any) -> None:
    """Multiply what both have, of one axis as of two."""
    plain.split = lambda gate_up, layout: tuple(
        gate_up.reshape(-1, gate_up.shape[-1])[: 2 * (gate_up.size // gate_up.shape[-1] // 2)].reshape(
            2, -1, gate_up.shape[-1]
        )
    )

    def product(x: Array, weight: Array) -> Array:
        x = np.atleast_1d(x)
        K = min(x.shape[-1], weight.shape[-1])
        return x[..., :K] @ weight[:, :K].T

    plain.product = product


def shared(act: str) -> tuple[Fault, ...]:
    """Return the mistakes that both suites have; `act` is the name of the activation."""
    return (
        # --- which rows are which
        Fault("layout_gate_up", GATE, "the first half is the gate, whatever `layout` says", split(lambda right, w, layout: right(w, "gate_up"))),
        Fault("layout_up_gate", GATE, "the second half is the gate, whatever `layout` says", split(lambda right, w, layout: right(w, "up_gate"))),
        Fault("layout_interleaved", GATE, "even rows are the gate, whatever `layout` says", split(lambda right, w, layout: right(w, "interleaved"))),
        Fault("interleaved_read_as_halves", GATE, "interleaved rows are read as halves", split(lambda right, w, layout: right(w, layout.replace("interleaved", "gate_up")))),
        Fault("halves_read_as_interleaved", GATE, "halves are read as interleaved rows", split(lambda right, w, layout: right(w, "interleaved" if layout == "gate_up" else layout))),
        Fault("gate_and_up_exchanged", GATE, "gate and up projection are exchanged", split(lambda right, w, layout: right(w, layout)[::-1])),
        Fault("halves_in_two_shards", GATE, "halves split in two and interleaved, as shards of tensor parallelism are", split(in_two_shards)),
        Fault("gate_for_both", UP, "the gate's rows for both", split(lambda right, w, layout: (right(w, layout)[0],) * 2)),
        Fault("gate_up_transposed", GATE, "gate_up taken for (in, out), where it is square", gate_up_transposed),
        Fault("gate_rows_reversed", GATE, "the gate's rows in the reverse order", split(lambda right, w, layout: (right(w, layout)[0][::-1], right(w, layout)[1]))),
        Fault("up_rows_shifted", UP, "the up projection's rows are one late", split(lambda right, w, layout: (right(w, layout)[0], np.roll(right(w, layout)[1], 1, 0)))),
        # --- the activation
        Fault("activation_of_up", HIDDEN, f"gate * {act}(up): the activation is of the wrong half", combined(lambda act, gate, up: gate * act(up))),
        Fault("activation_of_both", HIDDEN, f"{act}(gate) * {act}(up)", combined(lambda act, gate, up: act(gate) * act(up))),
        Fault("activation_of_product", HIDDEN, f"{act}(gate * up)", combined(lambda act, gate, up: act(gate * up))),
        Fault("activation_missing", HIDDEN, "gate * up: no activation", activation(lambda z: z)),
        Fault("activation_twice", HIDDEN, f"{act}({act}(gate)) * up", combined(lambda act, gate, up: act(act(gate)) * up)),
        Fault("sigmoid", HIDDEN, "sigmoid(gate) * up: GLU", activation(sigmoid)),
        Fault("relu", HIDDEN, "relu(gate) * up: ReGLU", activation(lambda z: np.maximum(z, 0))),
        Fault("tanh", HIDDEN, "tanh(gate) * up", activation(np.tanh)),
        Fault("quick_gelu", HIDDEN, "gate sigmoid(1.702 gate) * up, as gpt-oss has it", activation(lambda z: z * sigmoid(z.dtype.type(1.702) * z))),
        Fault("hard_swish", HIDDEN, "gate clip(gate + 3, 0, 6) / 6 * up", activation(lambda z: z * np.clip(z + 3, 0, 6) / 6)),
        Fault("gate_negated", HIDDEN, f"{act}(-gate) * up", combined(lambda act, gate, up: act(-gate) * up)),
        Fault("up_plus_one", HIDDEN, f"{act}(gate) * (up + 1), as gpt-oss has it", combined(lambda act, gate, up: act(gate) * (up + 1))),
        Fault("clamped_at_7", HIDDEN, "gate at most 7, up from -7 to 7, as gpt-oss has it", combined(lambda act, gate, up: act(np.minimum(gate, 7)) * np.clip(up, -7, 7))),
        Fault("up_added", HIDDEN, f"{act}(gate) + up", combined(lambda act, gate, up: act(gate) + up)),
        Fault("up_missing", HIDDEN, f"{act}(gate) alone", combined(lambda act, gate, up: act(gate))),
        Fault("residual_in_gate", HIDDEN, f"({act}(gate) + gate) * up", combined(lambda act, gate, up: (act(gate) + gate) * up)),
        Fault("hidden_of_4_bits", HIDDEN, "hidden rounded to 4 bits of significand, as in float8_e4m3", combined(lambda act, gate, up: in_float8(act(gate) * up))),
        # --- products
        Fault("terms_beyond_fours_missing", GATE, "channels of x beyond the last whole vector of four are not summed", first_product(without_tail)),
        Fault("first_sums_in_float16", GATE, "products with gate_up added in float16", first_product(accumulated("float16"))),
        Fault("first_sums_in_bfloat16", GATE, "products with gate_up added in bfloat16", first_product(accumulated("bfloat16"))),
        Fault("down_transposed", OUTPUT, "down taken for (in, out), where it is square", last_product(transposed)),
        Fault("hidden_beyond_fours_missing", OUTPUT, "hidden channels beyond the last whole vector of four are not summed", last_product(without_tail)),
        Fault("hidden_reversed", OUTPUT, "down's columns in the reverse order", last_product(lambda x, w: x @ w[:, ::-1].T)),
        Fault("last_hidden_twice", OUTPUT, "the last hidden channel counts twice", last_product(last_term_twice)),
        Fault("down_rows_shifted", OUTPUT, "down's rows are one late", last_product(lambda x, w: x @ np.roll(w, 1, 0).T)),
        Fault("output_scaled", OUTPUT, "the output over the root of F", last_product(lambda x, w: x @ w.T / x.dtype.type(x.shape[-1] ** 0.5))),
        Fault("last_sums_in_float16", OUTPUT, "products with down added in float16", last_product(accumulated("float16"))),
        Fault("last_sums_in_bfloat16", OUTPUT, "products with down added in bfloat16", last_product(accumulated("bfloat16"))),
        # --- what must be refused
        Fault("accepts_shapes", REFUSED, "what fits of x, gate_up and down is multiplied", accepts("x ", "gate_up ", "down ", then=cut_to_fit)),
        Fault("accepts_unknown_layout", REFUSED, "an unknown layout is taken for 'up_gate'", accepts("layout")),
    )  # fmt: skip


FAULTS = (
    *shared("silu"),
    Fault("gelu", HIDDEN, "gelu(gate) * up, by the tanh formula", activation(lambda z: 0.5 * z * (1 + np.tanh(0.7978845608 * (z + 0.044715 * z**3))))),
    Fault("sigmoid_overflows", HIDDEN, "exp(gate) / (1 + exp(gate)) in numbers up to 65504, as in float16: gates above 11 overflow", activation(overflowing)),
    Fault("sigmoid_by_tanh", HIDDEN, "the sigmoid as (1 + tanh(z / 2)) / 2, which in float32 is a multiple of 2^-24", activation(lambda z: z * np.round(sigmoid(z) * 2.0**24) / 2**24)),
    Fault("beta_2", HIDDEN, "gate sigmoid(2 gate) * up", activation(lambda z: z * sigmoid(2 * z))),
    Fault("sigmoid_by_clipping", HIDDEN, "the sigmoid by clipping 1/2 + gate / 4", activation(lambda z: z * np.clip(0.5 + z / 4, 0, 1))),
    # --- what comes in
    *rounded_inputs("swiglu", ("gate",)),
)  # fmt: skip
