"""The selective scan of Mamba in plain NumPy: the definition, to read and to copy.

Gu and Dao, "Mamba" (2023), algorithm 2 and equation 2, discretised as its implementation does (selective_scan_ref in
mamba_ssm): exp for A, and the step size itself for b. Computed in float32 (float64 where u is); y and output are
rounded once to the format of u. B batch, L tokens, D channels, N states of a channel.
"""

import numpy as np


def selective_scan(u, delta, a_log, b, c, d, delta_bias, z=None, initial_state=None):
    """Scan `u` (B, L, D) and return step sizes, states, y, gated output and the final state."""
    check_shapes(u, delta, a_log, b, c, d, delta_bias, z, initial_state)
    wide_u, wide_d = wide(u), wide(d)  # (B, L, D), (D,)
    step_size = step_sizes(wide(delta), wide(delta_bias))  # (B, L, D)
    decay = decays(step_size, rates(wide(a_log)))  # (B, L, D, N)
    added = additions(step_size, wide(b), wide_u)  # (B, L, D, N)
    first = initial(initial_state, wide_u, a_log.shape[1])  # (B, D, N)
    states = scanned(decay, added, first)  # (B, L, D, N)
    y = skipped(read(states, wide(c)), wide_u, wide_d)  # (B, L, D)
    output = y if z is None else gated(y, wide(z))  # (B, L, D)
    return {
        "step_size": step_size,
        "states": states,
        "y": y.astype(u.dtype),
        "output": output.astype(u.dtype),
        "final_state": last(states, first),
    }


def step_sizes(delta, bias):
    """Return how far each token moves each channel, (B, L, D)."""
    return softplus(delta + bias)


def softplus(x):
    """Return ln(1 + e^x) without overflow, and to all digits where x is far below 0."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def rates(a_log):
    """Return A, (D, N), below 0."""
    return -np.exp(a_log)


def decays(step_size, a):
    """Return what is left of each state after each token, (B, L, D, N)."""
    return np.exp(step_size[..., None] * a)


def additions(step_size, b, u):
    """Return what each token adds to each state, (B, L, D, N)."""
    return (step_size * u)[..., None] * b[:, :, None, :]


def initial(state, u, states):
    """Return the state before the first token, (B, D, N)."""
    if state is None:
        return np.zeros((u.shape[0], u.shape[2], states), u.dtype)
    return wide(state)


def scanned(decay, added, first):
    """Return the state after each token, (B, L, D, N)."""
    states, state = np.empty_like(added), first
    for t in range(added.shape[1]):
        state = decay[:, t] * state + added[:, t]  # (B, D, N)
        states[:, t] = state
    return states


def read(states, c):
    """Return the sum over the states that `c` (B, L, N) weighs, (B, L, D)."""
    return (states * c[:, :, None, :]).sum(-1)


def skipped(y, u, d):
    """Return y and what goes past the states, (B, L, D)."""
    return y + d * u


def gated(y, z):
    """Return y times SiLU of the gate, (B, L, D)."""
    return y * silu(z)


def silu(z):
    """Return z / (1 + e^-z)."""
    return z / (1 + np.exp(-z))


def last(states, first):
    """Return the state after the last token, (B, D, N)."""
    return states[:, -1] if states.shape[1] else first


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


# --- what is refused -------------------------------------------------------------------------------------------------


def check_shapes(u, delta, a_log, b, c, d, delta_bias, z, initial_state):
    """Refuse inputs that do not fit each other."""
    check("axes of u", (u.ndim,), (3,))
    check("axes of a_log", (a_log.ndim,), (2,))
    (B, L, D), N = u.shape, a_log.shape[1]
    check("a_log", a_log.shape, (D, N))
    check("delta", delta.shape, (B, L, D))
    check("b", b.shape, (B, L, N))
    check("c", c.shape, (B, L, N))
    check("d", d.shape, (D,))
    check("delta_bias", delta_bias.shape, (D,))
    if z is not None:
        check("z", z.shape, (B, L, D))
    if initial_state is not None:
        check("initial_state", initial_state.shape, (B, D, N))


def check(name, found, wanted):
    """Raise `ValueError` unless the shape of an input is the one that is wanted."""
    if found != wanted:
        raise ValueError(f"{name} {found}, wanted {wanted}")
