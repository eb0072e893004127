"""Correct ways to compute the selective scan that differ from the plain candidate's: they must pass."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")
NARROW = ("float32", "bfloat16", "float16", "bfloat16-once", "float16-once")


def scan(formula: Callable[[Array, Array, Array], Array]) -> Change:
    """Return a change to the scan: `formula(decay, added, first)`, (B, L, D, N)."""
    return wrap(scanned=lambda right: lambda *given: formula(*given) if given[1].shape[1] else right(*given))


def doubling(decay: Array, added: Array, first: Array) -> Array:
    """Combine pairs of spans of twice the length each time (Hillis and Steele 1986)."""
    added = added.copy()
    added[:, 0] += decay[:, 0] * first
    apart = 1
    while apart < added.shape[1]:
        earlier = added[:, :-apart]
        added = np.concatenate([added[:, :apart], decay[:, apart:] * earlier + added[:, apart:]], 1)
        decay = np.concatenate([decay[:, :apart], decay[:, apart:] * decay[:, :-apart]], 1)
        apart *= 2
    return added


def tree(decay: Array, added: Array, first: Array) -> Array:
    """Combine neighbours, scan these, and fill in what is between (Blelloch 1990)."""
    length = added.shape[1]
    if length == 1:
        return decay * first[:, None] + added
    even = length // 2 * 2
    pairs_decay = decay[:, 1:even:2] * decay[:, 0:even:2]
    pairs_added = decay[:, 1:even:2] * added[:, 0:even:2] + added[:, 1:even:2]
    states = np.empty_like(added)
    states[:, 1:even:2] = tree(pairs_decay, pairs_added, first)
    before = np.concatenate([first[:, None], states[:, 1:even:2]], 1)[:, : (length + 1) // 2]
    states[:, 0::2] = decay[:, 0::2] * before + added[:, 0::2]
    return states


def chunks(size: int) -> Callable[[Array, Array, Array], Array]:
    """Return a scan of chunks that each begin at 0, with what came before added after it decayed."""

    def scanned(decay: Array, added: Array, first: Array) -> Array:
        found, state = [], first
        for start in range(0, added.shape[1], size):
            part = slice(start, start + size)
            alone = sequential(decay[:, part], added[:, part], np.zeros_like(first))
            states = alone + np.cumprod(decay[:, part], 1) * state[:, None]
            found.append(states)
            state = states[:, -1]
        return np.concatenate(found, 1)

    return scanned


def sequential(decay: Array, added: Array, state: Array) -> Array:
    """Return the states after each token, one after the other."""
    states = np.empty_like(added)
    for t in range(added.shape[1]):
        state = decay[:, t] * state + added[:, t]
        states[:, t] = state
    return states


def in_float64(decay: Array, added: Array, first: Array) -> Array:
    """Keep the state in float64."""
    return sequential(decay.astype(np.float64), added.astype(np.float64), first.astype(np.float64)).astype(added.dtype)


def fused(decay: Array, added: Array, first: Array) -> Array:
    """Multiply and add with one rounding, as an FMA does."""
    states, state, wide = np.empty_like(added), first, np.longdouble
    for t in range(added.shape[1]):
        state = (decay[:, t].astype(wide) * state + added[:, t]).astype(added.dtype)
        states[:, t] = state
    return states


def token_by_token(plain: Any) -> None:
    """Call the whole for one token at a time, each with the state that the one before left."""
    right, initial = plain.selective_scan, plain.initial

    def selective_scan(*, initial_state: Array | None = None, **given: Array) -> dict[str, Array]:
        found: list[dict[str, Array]] = []
        for t in range(given["u"].shape[1]):
            one = {name: x[:, t : t + 1] if name in ("u", "delta", "b", "c", "z") else x for name, x in given.items()}
            if found:
                kept = found[-1]["final_state"]
                plain.initial = lambda *_, kept=kept: kept
            found.append(right(initial_state=initial_state, **one))
        plain.initial = initial
        if not found:
            return right(initial_state=initial_state, **given)
        by_token = ("step_size", "states", "y", "output")
        whole = {name: np.concatenate([part[name] for part in found], 1) for name in by_token}
        return whole | {"final_state": found[-1]["final_state"]}

    plain.selective_scan = selective_scan


def softplus_of_torch(plain: Any) -> None:
    """Take torch's softplus, which is x from 20 on, and torch's SiLU."""
    plain.softplus = lambda x: functional.softplus(torch.from_numpy(np.ascontiguousarray(x))).numpy()
    plain.silu = lambda z: functional.silu(torch.from_numpy(np.ascontiguousarray(z))).numpy()


def b_with_step(step_size: Array, b: Array, u: Array) -> Array:
    """Multiply step size and b first, as transformers does."""
    return (step_size[..., None] * b[:, :, None, :]) * u[..., None]


def b_with_u(step_size: Array, b: Array, u: Array) -> Array:
    """Multiply b and u first."""
    return (b[:, :, None, :] * u[..., None]) * step_size[..., None]


def of_base_two(step_size: Array, a: Array) -> Array:
    """Return powers of 2, with log2(e) in A, as Mamba's kernels do."""
    return np.exp2(step_size[..., None] * (a * a.dtype.type(math.log2(math.e))))


def reference_of_mamba(plain: Any) -> None:
    """Compute as mamba_ssm's selective_scan_ref does: einsum in torch, the gate in the format of u."""

    def selective_scan(
        *, u: Array, delta: Array, a_log: Array, delta_bias: Array, z: Array | None = None, **given: Array
    ) -> dict[str, Array]:
        wide = {name: torch.from_numpy(plain.wide(x).copy()) for name, x in given.items()}
        x, a = torch.from_numpy(plain.wide(u).copy()), -torch.exp(torch.from_numpy(plain.wide(a_log).copy()))
        step = torch.from_numpy(plain.softplus(plain.wide(delta) + plain.wide(delta_bias)))
        decay = torch.exp(torch.einsum("bld,dn->bldn", step, a))
        added = torch.einsum("bld,bln,bld->bldn", step, wide["b"], x)
        state = wide.get("initial_state", torch.zeros(len(x), *a.shape, dtype=x.dtype))
        states, outputs = [added[:, :0]], [x[:, :0]]
        for t in range(u.shape[1]):
            state = decay[:, t] * state + added[:, t]
            states.append(state[:, None])
            outputs.append(torch.einsum("bdn,bn->bd", state, wide["c"][:, t])[:, None])
        y = torch.cat(outputs, 1) + x * wide["d"]
        dtype = getattr(torch, u.dtype.name)
        output = y.to(dtype)
        if z is not None:
            output = output * functional.silu(torch.from_numpy(z.astype(np.float64)).to(dtype))
        return {
            "step_size": step.numpy(),
            "states": torch.cat(states, 1).numpy(),
            "y": y.numpy().astype(u.dtype),
            "output": output.double().numpy().astype(u.dtype),
            "final_state": state.numpy(),
        }

    plain.selective_scan = selective_scan


def y_in_storage(plain: Any) -> None:
    """Round y and the gate to storage before they are multiplied."""
    right = plain.selective_scan

    def selective_scan(*, u: Array, z: Array | None = None, **given: Array) -> dict[str, Array]:
        found = right(u=u, **given)
        if z is not None:
            found["output"] = found["y"] * plain.silu(plain.wide(z)).astype(u.dtype)
        return found

    plain.selective_scan = selective_scan


def channels_last(plain: Any) -> None:
    """Lay states out as (B, L, N, D), and turn them back in the end."""
    scanned = plain.scanned

    def turned(decay: Array, added: Array, first: Array) -> Array:
        decay, added = (np.ascontiguousarray(x.swapaxes(2, 3)) for x in (decay, added))
        return scanned(decay, added, first.swapaxes(1, 2)).swapaxes(2, 3)

    plain.scanned = turned
    plain.read = lambda states, c: (c[:, :, None, :] @ np.ascontiguousarray(states.swapaxes(2, 3)))[:, :, 0]


def by_matmul(states: Array, c: Array) -> Array:
    """Return the sum over states as a product of matrices."""
    return (states @ c[..., None])[..., 0]


def as_attention(plain: Any) -> None:
    """Read y from all tokens before, with exponentials of the sums of the steps between, as Mamba 2 does in a chunk."""

    def scanned(decay: Array, added: Array, first: Array) -> Array:
        with np.errstate(divide="ignore"):
            exponent = np.log(decay.astype(np.float64))
        whole = np.cumsum(np.maximum(exponent, -1e4), 1)  # (B, L, D, N)
        states = np.empty_like(added)
        for t in range(added.shape[1]):
            reach = np.exp(whole[:, t, None] - whole[:, : t + 1]).astype(added.dtype)
            states[:, t] = (reach * added[:, : t + 1]).sum(1) + np.exp(whole[:, t]).astype(added.dtype) * first
        return states

    plain.scanned = scanned


FORMULATIONS = (
    Formulation("doubling", "spans of twice the length each time", scan(doubling)),
    Formulation("tree", "an associative scan as a tree", scan(tree)),
    Formulation("chunks_8", "chunks of 8 tokens that begin at 0", scan(chunks(8))),
    Formulation("chunks_5", "chunks of 5 tokens that begin at 0", scan(chunks(5))),
    Formulation("state_in_float64", "the state kept in float64", scan(in_float64)),
    Formulation("fused_multiply_add", "one rounding for each token", scan(fused)),
    Formulation("token_by_token", "one call for each token", token_by_token),
    Formulation("softplus_of_torch", "torch's softplus, x from 20 on, and SiLU", softplus_of_torch, NARROW),
    Formulation("logaddexp", "softplus as logaddexp(0, x)", wrap(softplus=lambda _: lambda x: np.logaddexp(x, 0 * x))),
    Formulation("b_with_step", "step size times b first", wrap(additions=lambda _: b_with_step)),
    Formulation("b_with_u", "b times u first", wrap(additions=lambda _: b_with_u)),
    Formulation("exp2", "powers of 2, log2(e) in A", wrap(decays=lambda _: of_base_two)),
    Formulation("mamba_ssm", "selective_scan_ref of mamba_ssm", reference_of_mamba, EACH_OPERATION),
    Formulation("y_in_storage", "y and gate rounded before they are multiplied", y_in_storage, EACH_OPERATION),
    Formulation("channels_last", "states laid out (B, L, N, D)", channels_last),
    Formulation("read_by_matmul", "the sum over states as a product of matrices", wrap(read=lambda _: by_matmul)),
    Formulation("as_attention", "all tokens before at once, from sums in float64", as_attention, NARROW),
    Formulation("silu_tanh", "SiLU by tanh", wrap(silu=lambda _: lambda z: z * (0.5 + 0.5 * np.tanh(0.5 * z)))),
)  # fmt: skip
