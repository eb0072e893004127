"""The reference of the suite `linear_attention`: the matrix of all products, in float64 on the CPU.

Source: Katharopoulos et al. 2020, equations 5 and 7, with torch.nn.functional.elu. States are rounded like anything
else: they are returned in storage. B batch, H heads, S queries, T keys, D head width, E value width.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool, floor: float, **state: Tensor
) -> dict[str, Tensor]:
    """Return the checkpoints."""
    queries = torch.nn.functional.elu(q) + 1  # (B, H, S, D)
    keys = torch.nn.functional.elu(k) + 1  # (B, H, T, D)
    if mask is not None:
        keys = keys.masked_fill((mask == 0)[:, None, :, None], 0)
    products = queries @ keys.mT  # (B, H, S, T)
    if causal:
        products = products.tril()
    numerator, normaliser = products @ v, products.sum(-1)  # (B, H, S, E), (B, H, S)
    left, key_sum = keys.mT @ v, keys.sum(2)  # (B, H, D, E), (B, H, D)
    if state:
        numerator = numerator + queries @ state["initial_state"]
        normaliser = normaliser + (queries * state["initial_sum"][:, :, None]).sum(-1)
        left, key_sum = left + state["initial_state"], key_sum + state["initial_sum"]
    return {
        "q_features": queries,
        "k_features": keys,
        "normaliser": normaliser,
        "output": numerator / normaliser.clamp(min=floor)[..., None],
        "state": left,
        "key_sum": key_sum,
    }


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def features(given: Given, golden: Given) -> tuple[Any, ...]:
    """Compare features with x + 1 and e^x."""
    found = np.concatenate([golden["q_features"].ravel(), golden["k_features"].ravel()])
    x, y = given["q"], given["k"]
    keep = (
        np.ones(y.shape, bool)
        if "mask" not in given
        else np.broadcast_to((given["mask"] != 0)[:, None, :, None], y.shape)
    )
    wanted = [np.where(z > 0, z + 1, np.exp(np.minimum(z, 0))) for z in (x, y)]
    return found, np.concatenate([wanted[0].ravel(), np.where(keep, wanted[1], 0).ravel()]), 3e-16 * (1 + np.abs(found))


def in_fractions(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare outputs of the first head with a recurrence in exact fractions, from the features on."""
    q, k, v = (np.asarray(golden.get(f"{name}_features", given[name]))[0, 0] for name in "qkv")
    if len(k) > 24:
        return None
    exact = [[[Fraction(x) for x in row] for row in array.tolist()] for array in (q, k, v)]
    D, E = k.shape[1], v.shape[1]
    state = [[Fraction(x) for x in row] for row in given.get("initial_state", np.zeros((1, 1, D, E)))[0, 0].tolist()]
    whole = [Fraction(x) for x in given.get("initial_sum", np.zeros((1, 1, D)))[0, 0].tolist()]
    wanted: list[list[float]] | None = [] if given["causal"] else None
    for t, (key, value) in enumerate(zip(exact[1], exact[2], strict=True)):
        state = [[state[i][j] + key[i] * value[j] for j in range(E)] for i in range(D)]
        whole = [whole[i] + key[i] for i in range(D)]
        if wanted is not None:
            wanted.append(quotient(exact[0][t], state, whole, given["floor"]))
    rows = wanted if wanted is not None else [quotient(query, state, whole, given["floor"]) for query in exact[0]]
    return golden["output"][0, 0], np.array(rows, float).reshape(-1, E), 1e-12


def quotient(query: list[Fraction], state: list[list[Fraction]], whole: list[Fraction], floor: float) -> list[float]:
    """Return the output of one query."""
    below = max(sum(a * b for a, b in zip(query, whole, strict=True)), Fraction(floor))
    columns = zip(*state, strict=True)
    return [float(sum(a * b for a, b in zip(query, column, strict=True)) / below) for column in columns]


def first_token(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the first output of a causal sequence with the first value, which alone it sees."""
    if not given["causal"] or "initial_state" in given or "mask" in given or given["floor"] > 1e-3:
        return None
    return golden["output"][:, :, 0], given["v"][:, :, 0], 1e-13


RELATIONS = {
    "features are x + 1 above 0 and e^x below, to 3e-16": features,
    "outputs are those of a recurrence in exact fractions, to 1e-12": in_fractions,
    "the first output of a causal sequence is its value, to 1e-13": first_token,
}
VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, linear_attention, RELATIONS
)
