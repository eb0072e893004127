"""The reference of the suite `selective_scan`: torch operations in float64 on the CPU.

Source: selective_scan_ref of mamba_ssm, and the loop of transformers, models/mamba/modeling_mamba.py. Step sizes, A,
states and their sums are rounded as the accumulation format rounds, whatever the storage. B batch, L tokens, D
channels, N states of a channel.
"""

import math
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from karat.freeze import beside

operation = beside(__file__, "_operation")
inner = beside(__file__, "_inner")

Array = NDArray[Any]
Given = Mapping[str, Any]


def selective_scan(
    u: Tensor, z: Tensor | None = None, initial_state: Tensor | None = None, **given: Tensor
) -> dict[str, Tensor]:
    """Return the checkpoints."""
    with inner.in_accumulation():
        step_size = torch.nn.functional.softplus(given["delta"] + given["delta_bias"], threshold=40)  # (B, L, D)
        a = -torch.exp(given["a_log"])  # (D, N)
        decay = torch.exp(step_size[..., None] * a)  # (B, L, D, N)
        added = (step_size * u)[..., None] * given["b"][:, :, None]  # (B, L, D, N)
        state = torch.zeros(u.shape[0], *a.shape) if initial_state is None else initial_state  # (B, D, N)
        states = []
        for t in range(u.shape[1]):
            state = decay[:, t] * state + added[:, t]
            states.append(state)
        found = torch.stack(states, 1) if states else torch.zeros_like(added)  # (B, L, D, N)
        summed = (found * given["c"][:, :, None]).sum(-1) + given["d"] * u  # (B, L, D)
    y = summed * 1  # (B, L, D), which may be rounded to storage
    output = y if z is None else y * torch.nn.functional.silu(z)  # (B, L, D)
    return {"step_size": step_size, "states": found, "y": y, "output": output, "final_state": state}


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def unrolled(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare y with a sum over all tokens before, each with the exponential of the sum of the steps between."""
    u, step, a = given["u"], golden["step_size"], -np.exp(given["a_log"])
    if not u.size:
        return None
    whole = np.concatenate([np.zeros_like(step[:, :1]), step.cumsum(1)], 1)  # (B, L + 1, D)
    first = given.get("initial_state", np.zeros((len(u), *a.shape)))  # (B, D, N)
    y = np.zeros_like(u)
    for t in range(u.shape[1]):
        reach = np.exp((whole[:, t + 1, None] - whole[:, 1 : t + 2])[..., None] * a)  # (B, t + 1, D, N)
        added = (step * u)[:, : t + 1, :, None] * given["b"][:, : t + 1, None]  # (B, t + 1, D, N)
        state = (reach * added).sum(1) + np.exp(whole[:, t + 1, :, None] * a) * first
        y[:, t] = (state * given["c"][:, t, None]).sum(-1) + given["d"] * u[:, t]
    return golden["y"], y, 1e-12 * np.abs(y).max()


def in_decimal(given: Given, golden: Given) -> tuple[Any, ...]:
    """Compare step sizes with ln(1 + e^x) in 60 decimal digits."""
    x = given["delta"] + given["delta_bias"]
    wanted = [softplus(Decimal(value)) for value in x.ravel().tolist()]
    found = golden["step_size"].ravel()
    return found, np.array(wanted), 1e-14 * np.abs(found)


def softplus(x: Decimal) -> float:
    """Return ln(1 + e^x)."""
    with localcontext(prec=60):
        return float((1 + x.exp()).ln() if x < 100 else x)


def gate(given: Given, golden: Given) -> tuple[Any, ...]:
    """Compare the output with y and its gate as a logistic function of the standard library."""
    y = golden["y"]
    if "z" not in given:
        return golden["output"], y
    wanted = [a * z / (1 + math.exp(-z)) for a, z in zip(y.ravel().tolist(), given["z"].ravel().tolist(), strict=True)]
    return golden["output"].ravel(), np.array(wanted), 1e-14 * np.abs(y).max(initial=1)


def ends(given: Given, golden: Given) -> tuple[Any, ...]:
    """Compare the final state with the state after the last token, or the initial one where there is none."""
    states = golden["states"]
    return golden["final_state"], states[:, -1] if states.shape[1] else given["initial_state"]


RELATIONS = {
    "y is a sum over all tokens before, to 1e-12": unrolled,
    "step sizes are ln(1 + e^x) in decimal arithmetic, to 1e-14": in_decimal,
    "the output is y times z / (1 + e^-z), or y without a gate, to 1e-14": gate,
    "the final state is that after the last token": ends,
}
VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, selective_scan, RELATIONS
)
