"""Mistakes that people make when they write the selective scan, planted in the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import Fault, rounded_inputs, wrap

Array = Any
Change = Callable[[Any], None]
STEP, STATES, Y, OUTPUT, FINAL, REFUSED = (
    (name,) for name in ("step_size", "states", "y", "output", "final_state", "refused")
)


def step(formula: Callable[[Any, Array, Array], Array]) -> Change:
    """Return a change to step sizes: `formula(softplus, delta, bias)`, (B, L, D)."""

    def change(plain: Any) -> None:
        plain.step_sizes = lambda delta, bias: formula(plain.softplus, delta, bias)

    return change


def softplus(formula: Callable[[Any, Array], Array]) -> Change:
    """Return a change to softplus: `formula(right, x)`."""
    return wrap(softplus=lambda right: lambda x: formula(right, x))


def rates(formula: Callable[[Array], Array]) -> Change:
    """Return a change to A: `formula(a_log)`, (D, N)."""
    return wrap(rates=lambda _: formula)


def decays(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to what is left of states: `formula(step_size, a)`, (B, L, D, 1) and (D, N)."""
    return wrap(decays=lambda _: lambda step_size, a: formula(step_size[..., None], a))


def tamed(change: Change) -> Change:
    """Return the change with states that grow by less than a half with each token, and so stay finite."""

    def plant(plain: Any) -> None:
        change(plain)
        right = plain.decays
        plain.decays = lambda step_size, a: np.minimum(right(step_size, a), step_size.dtype.type(1.4375))

    return plant


def additions(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to what is added: `formula(step_size, b, u)`, (B, L, D, 1), (B, L, 1, N) and (B, L, D, 1)."""
    return wrap(additions=lambda _: lambda step_size, b, u: formula(step_size[..., None], b[:, :, None], u[..., None]))


def scan(formula: Callable[[Any, Array, Array, Array], Array]) -> Change:
    """Return a change to the scan: `formula(right, decay, added, first)`, (B, L, D, N)."""
    return wrap(scanned=lambda right: lambda *given: formula(right, *given))


def loop(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to a step of the scan: `formula(state, decay, added)`, (B, D, N)."""

    def scanned(right: Any, decay: Array, added: Array, state: Array) -> Array:  # noqa: ARG001 - replaced
        states = np.empty_like(added)
        for t in range(added.shape[1]):
            state = formula(state, decay[:, t], added[:, t]).astype(added.dtype)
            states[:, t] = state
        return states

    return scan(scanned)


def in_chunks(carry: Callable[[Array, Array], Array], size: int = 8) -> Change:
    """Return a change to the state that a chunk of `size` tokens begins with: `carry(last, first)`."""

    def scanned(right: Any, decay: Array, added: Array, first: Array) -> Array:
        states, state = [added[:, :0]], first
        for start in range(0, added.shape[1], size):
            part = slice(start, start + size)
            states.append(right(decay[:, part], added[:, part], state))
            state = carry(states[-1][:, -1], first)
        return np.concatenate(states, 1)

    return scan(scanned)


def carried_late(right: Any, decay: Array, added: Array, first: Array) -> Array:
    """Add what chunks of 8 begin with to all of their states, as it was, without its decay."""
    states, state = [added[:, :0]], first
    for start in range(0, added.shape[1], 8):
        part = slice(start, start + 8)
        states.append(right(decay[:, part], added[:, part], np.zeros_like(first)) + state[:, None])
        state = states[-1][:, -1]
    return np.concatenate(states, 1)


def tail_missing(right: Any, decay: Array, added: Array, first: Array) -> Array:
    """Leave the state as it is after the last whole chunk of 8 tokens."""
    whole = added.shape[1] // 8 * 8
    decay, added = decay.copy(), added.copy()
    decay[:, whole:], added[:, whole:] = 1, 0
    return right(decay, added, first)


def by_products(right: Any, decay: Array, added: Array, first: Array) -> Array:
    """Divide by products of the decays from the first token on, which vanish."""
    if added.shape[1] < 2:
        return right(decay, added, first)
    product = np.cumprod(np.maximum(decay, np.finfo(np.float16).tiny), axis=1)
    return product * (first[:, None] + np.cumsum(added / np.maximum(product, np.finfo(np.float16).tiny), axis=1))


def shifted(values: Array) -> Array:
    """Return values of the token before, and the first token's own."""
    return np.concatenate([values[:, :1], values[:, :-1]], 1)


def coarse(values: Array, dtype: str) -> Array:
    """Return values rounded to `dtype`, in their own format."""
    wide = values.astype(np.float64)
    return (np.clip(wide, -65504, 65504) if dtype == "float16" else wide).astype(dtype).astype(values.dtype)


def before_token(plain: Any) -> None:
    """Read the state before each token instead of after it."""
    scanned, read, seen = plain.scanned, plain.read, {}

    def remembered(decay: Array, added: Array, first: Array) -> Array:
        seen["first"] = first
        return scanned(decay, added, first)

    plain.scanned = remembered
    plain.read = lambda states, c: read(np.concatenate([seen["first"][:, None], states], 1)[:, :-1], c)


def initial(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the initial state, (B, D, N)."""
    return wrap(initial=lambda right: lambda *given: formula(right(*given)))


def read(formula: Callable[[Any, Array, Array], Array]) -> Change:
    """Return a change to how states are read: `formula(right, states, c)`."""
    return wrap(read=lambda right: lambda states, c: formula(right, states, c))


def skip(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to what goes past the states: `formula(y, u, d)`."""
    return wrap(skipped=lambda _: formula)


def gate(formula: Callable[[Any, Array, Array], Array]) -> Change:
    """Return a change to the gate: `formula(silu, y, z)`."""

    def change(plain: Any) -> None:
        plain.gated = lambda y, z: formula(plain.silu, y, z)

    return change


def skip_after_gate(plain: Any) -> None:
    """Add what goes past the states after the gate."""
    right, seen = plain.skipped, {}

    def skipped(y: Array, u: Array, d: Array) -> Array:
        seen["skip"] = d * u
        return right(y, u, d)

    def gated(y: Array, z: Array) -> Array:
        return (y - seen["skip"]) * plain.silu(z) + seen["skip"]

    plain.skipped, plain.gated = skipped, gated


def b_and_c_swapped(plain: Any) -> None:
    """Read with b and write with c."""
    right = plain.selective_scan
    plain.selective_scan = lambda *, b, c, **given: right(b=c, c=b, **given)


def u_gated(plain: Any) -> None:
    """Gate u before the scan, not y after it."""
    right, wide = plain.selective_scan, plain.wide

    def selective_scan(*, u: Array, z: Array | None = None, **given: Array) -> Any:
        if z is None:
            return right(u=u, **given)
        return right(u=(wide(u) * plain.silu(wide(z))).astype(u.dtype), **given)

    plain.selective_scan = selective_scan


def zero_order_hold(plain: Any) -> None:
    """Discretise b exactly, (exp(step A) - 1) / A, which Mamba's code does not."""
    right, seen = plain.rates, {}

    def rates(a_log: Array) -> Array:
        seen["a"] = right(a_log)
        return seen["a"]

    plain.rates = rates
    plain.additions = lambda step_size, b, u: (
        np.expm1(step_size[..., None] * seen["a"]) / seen["a"] * b[:, :, None] * u[..., None]
    )


def made_to_fit(plain: Any) -> None:
    """Accept any shapes: cut or repeat inputs until they fit."""
    plain.check_shapes = lambda *_: None
    right = plain.selective_scan

    def selective_scan(*, u: Array, a_log: Array, **given: Any) -> Any:
        u = np.resize(u, (2, 5, 4)) if u.ndim != 3 else u
        (B, L, D), N = u.shape, a_log.shape[1]
        wanted = {"delta": (B, L, D), "b": (B, L, N), "c": (B, L, N), "d": (D,), "delta_bias": (D,), "z": (B, L, D),
                  "initial_state": (B, D, N)}  # fmt: skip
        fitting = {name: np.resize(x, wanted[name]) for name, x in given.items()}
        return right(u=u, a_log=np.resize(a_log, (D, N)), **fitting)

    plain.selective_scan = selective_scan


FAULTS = (
    # --- step sizes
    Fault("softplus_missing", STEP, "step sizes without softplus", tamed(step(lambda softplus, delta, bias: delta + bias))),
    Fault("softplus_twice", STEP, "softplus of softplus", softplus(lambda right, x: right(right(x)))),
    Fault("softplus_is_exp", STEP, "exp instead of softplus", softplus(lambda right, x: np.exp(np.minimum(x, 80)))),
    Fault("softplus_is_relu", STEP, "max(x, 0) instead of softplus", softplus(lambda right, x: np.maximum(x, 0))),
    Fault("softplus_linear_from_1", STEP, "softplus(x) = x from x = 1 on", softplus(lambda right, x: np.where(x > 1, x, right(x)))),
    Fault("softplus_linear_from_5", STEP, "softplus(x) = x from x = 5 on", softplus(lambda right, x: np.where(x > 5, x, right(x)))),
    Fault("softplus_cancels", STEP, "ln of the rounded 1 + e^x: 0 where x is far below 0",
          softplus(lambda right, x: np.where(x < 0, np.log((1 + np.exp(np.minimum(x, 0)).astype(np.float32)).astype(x.dtype)), right(x)))),
    Fault("softplus_overflows", STEP, "e^x overflows in float32 before the logarithm is taken",
          softplus(lambda right, x: np.where(x > 88.8, np.inf, right(x)).astype(x.dtype))),
    Fault("step_clamped", STEP, "step sizes clipped to 0.001 and 0.1", softplus(lambda right, x: np.clip(right(x), 0.001, 0.1))),
    Fault("bias_missing", STEP, "the bias of the step sizes is missing", step(lambda softplus, delta, bias: softplus(delta))),
    Fault("bias_twice", STEP, "the bias of the step sizes is added twice, by the projection too", step(lambda softplus, delta, bias: softplus(delta + 2 * bias))),
    Fault("bias_after_softplus", STEP, "the bias is added after softplus", tamed(step(lambda softplus, delta, bias: softplus(delta) + bias))),
    Fault("bias_of_first_channel", STEP, "the first channel's bias for every channel", step(lambda softplus, delta, bias: softplus(delta + bias[0]))),
    Fault("step_of_first_channel", STEP, "the first channel's step size for every channel",
          step(lambda softplus, delta, bias: np.repeat(softplus(delta + bias)[..., :1], delta.shape[-1], -1))),
    Fault("step_in_bfloat16", STEP, "step sizes rounded to bfloat16", softplus(lambda right, x: coarse(right(x), "bfloat16"))),
    Fault("step_in_float16", STEP, "step sizes rounded to float16", softplus(lambda right, x: coarse(right(x), "float16"))),
    # --- A and what is left of states
    Fault("a_log_is_a", STATES, "A = -a_log without exp", tamed(rates(lambda a_log: -a_log))),
    Fault("a_positive", STATES, "A = +exp(a_log): states grow", tamed(rates(np.exp))),
    Fault("a_softplus", STATES, "A = -softplus(a_log)", rates(lambda a_log: -np.log1p(np.exp(a_log)))),
    Fault("a_of_first_state", STATES, "the first A of a channel for all its states, as Mamba 2 has it", rates(lambda a_log: -np.exp(np.repeat(a_log[:, :1], a_log.shape[1], 1)))),
    Fault("a_of_first_channel", STATES, "the first channel's A for every channel", rates(lambda a_log: -np.exp(np.repeat(a_log[:1], len(a_log), 0)))),
    Fault("a_in_bfloat16", STATES, "A rounded to bfloat16", rates(lambda a_log: coarse(-np.exp(a_log), "bfloat16"))),
    Fault("decay_linear", STATES, "1 + step A instead of its exponential", decays(lambda step_size, a: 1 + step_size * a)),
    Fault("decay_bilinear", STATES, "the bilinear transform instead of the exponential", decays(lambda step_size, a: (1 + step_size * a / 2) / (1 - step_size * a / 2))),
    Fault("decay_without_step", STATES, "exp(A) whatever the step size", decays(lambda step_size, a: np.exp(a + 0 * step_size))),
    Fault("decay_base_2", STATES, "2 to the power of step A, the factor log2(e) is missing", decays(lambda step_size, a: np.exp2(step_size * a))),
    Fault("decay_of_token_before", STATES, "what is left after the token before", wrap(decays=lambda right: lambda step_size, a: shifted(right(step_size, a)))),
    Fault("decay_missing", STATES, "states only add up", decays(lambda step_size, a: np.ones_like(step_size * a))),
    Fault("decay_in_bfloat16", STATES, "what is left of states rounded to bfloat16", wrap(decays=lambda right: lambda *given: coarse(right(*given), "bfloat16"))),
    # --- what is added
    Fault("b_without_step", STATES, "b u is added without the step size", additions(lambda step_size, b, u: b * u)),
    Fault("b_step_squared", STATES, "the step size twice", additions(lambda step_size, b, u: step_size**2 * b * u)),
    Fault("b_missing", STATES, "the step size times u, without b", additions(lambda step_size, b, u: step_size * u + 0 * b)),
    Fault("b_zero_order_hold", STATES, "(exp(step A) - 1) / A times b, which is exact, where the step size times b is meant", zero_order_hold),
    Fault("b_of_first_token", STATES, "the first token's b for every token: not selective", additions(lambda step_size, b, u: step_size * b[:, :1] * u)),
    Fault("b_of_token_before", STATES, "the b of the token before", additions(lambda step_size, b, u: step_size * shifted(b) * u)),
    Fault("b_of_first_row", STATES, "the first row's b for every row", additions(lambda step_size, b, u: step_size * b[:1] * u)),
    Fault("b_and_c_swapped", STATES, "b and c are exchanged", b_and_c_swapped),
    Fault("u_gated_before_scan", STATES, "the gate multiplies u before the scan, not y after it", u_gated),
    # --- the scan
    Fault("added_before_decay", STATES, "a token is added before the state decays", loop(lambda state, decay, added: decay * (state + added))),
    Fault("state_not_kept", STATES, "each token begins at 0", loop(lambda state, decay, added: added)),
    Fault("chunks_begin_at_zero", STATES, "each chunk of 8 tokens begins at 0", in_chunks(lambda last, first: np.zeros_like(last))),
    Fault("chunks_begin_at_first", STATES, "each chunk of 8 tokens begins at the initial state", in_chunks(lambda last, first: first)),
    Fault("chunks_begin_at_first_row", STATES, "each chunk of 8 tokens begins with the first row's state", in_chunks(lambda last, first: np.repeat(last[:1], len(last), 0))),
    Fault("carry_without_decay", STATES, "what a chunk of 8 tokens begins with does not decay in it", scan(carried_late)),
    Fault("tail_missing", STATES, "tokens beyond the last whole chunk of 8 are not scanned", scan(tail_missing)),
    Fault("divided_by_products", STATES, "divided by products of decays from the first token on, which vanish", scan(by_products)),
    Fault("scan_reversed", STATES, "scanned from the last token to the first", scan(lambda right, decay, added, first: right(decay[:, ::-1], added[:, ::-1], first)[:, ::-1])),
    Fault("state_in_bfloat16", STATES, "the state is rounded to bfloat16 after each token", loop(lambda state, decay, added: coarse(decay * state + added, "bfloat16"))),
    Fault("state_in_float16", STATES, "the state is rounded to float16 after each token", loop(lambda state, decay, added: coarse(decay * state + added, "float16"))),
    # --- initial and final state
    Fault("initial_ignored", STATES, "the initial state is ignored", initial(np.zeros_like)),
    Fault("initial_of_first_row", STATES, "the first row's initial state for every row", initial(lambda state: np.repeat(state[:1], len(state), 0))),
    Fault("initial_not_decayed", STATES, "the initial state does not decay at the first token",
          wrap(scanned=lambda right: lambda decay, added, first: right(np.concatenate([np.ones_like(decay[:, :1]), decay[:, 1:]], 1), added, first))),
    Fault("final_of_token_before", FINAL, "the state before the last token is returned", wrap(last=lambda right: lambda states, first: right(states[:, :-1], first))),
    Fault("final_is_initial", FINAL, "the initial state is returned, it is not updated", wrap(last=lambda right: lambda states, first: first)),
    Fault("final_of_first_row", FINAL, "the first row's final state for every row", wrap(last=lambda right: lambda states, first: np.repeat(right(states, first)[:1], len(first), 0))),
    # --- y
    Fault("read_before_token", Y, "y of the state before the token", before_token),
    Fault("c_missing", Y, "the sum of states without c", read(lambda right, states, c: states.sum(-1))),
    Fault("c_of_first_token", Y, "the first token's c for every token", read(lambda right, states, c: right(states, np.repeat(c[:, :1], c.shape[1], 1)))),
    Fault("read_is_mean", Y, "the mean over states instead of the sum", read(lambda right, states, c: right(states, c) / c.dtype.type(c.shape[-1]))),
    Fault("last_state_not_read", Y, "the last state of a channel is not read", read(lambda right, states, c: right(states[..., :-1], c[..., :-1]))),
    Fault("skip_missing", Y, "d u is missing", skip(lambda y, u, d: y)),
    Fault("skip_without_d", Y, "u is added without d", skip(lambda y, u, d: y + u)),
    Fault("skip_of_first_channel", Y, "the first channel's d for every channel", skip(lambda y, u, d: y + d[0] * u)),
    Fault("skip_subtracted", Y, "d u is subtracted", skip(lambda y, u, d: y - d * u)),
    Fault("skip_after_gate", OUTPUT, "d u is added after the gate", skip_after_gate),
    # --- the gate
    Fault("gate_missing", OUTPUT, "no gate", gate(lambda silu, y, z: y)),
    Fault("gate_sigmoid", OUTPUT, "y sigmoid(z): the gate is not SiLU", gate(lambda silu, y, z: y / (1 + np.exp(-z)))),
    Fault("gate_linear", OUTPUT, "y z without a sigmoid", gate(lambda silu, y, z: y * z)),
    Fault("gate_exchanged", OUTPUT, "z SiLU(y)", gate(lambda silu, y, z: z * silu(y))),
    Fault("gate_quick_gelu", OUTPUT, "y z sigmoid(1.702 z)", gate(lambda silu, y, z: y * z / (1 + np.exp(z.dtype.type(-1.702) * z)))),
    # --- what must be refused
    Fault("shapes_accepted", REFUSED, "inputs of other shapes are repeated or cut until they fit", made_to_fit),
    # --- what comes in
    *rounded_inputs("selective_scan", ("step_size",)),
)  # fmt: skip
