"""Correct ways to compute a feed-forward block with SwiGLU that differ from the plain candidate's: they must pass.

Those of the suite `geglu` are made by the same changes.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def in_torch(act: Callable[..., Any]) -> Change:
    """Return a change to the whole, in storage: one product for both halves, then `act(gate, **params)`."""

    def change(plain: Any) -> None:
        (name,) = (name for name in ("swiglu", "geglu") if hasattr(plain, name))

        def run(x: Array, gate_up: Array, down: Array, *, layout: str, **params: Any) -> dict[str, Array]:
            both = torch.nn.functional.linear(tensor(x), tensor(gate_up))  # (..., 2F)
            if layout == "interleaved":
                gate, up = both[..., 0::2], both[..., 1::2]
            else:
                gate, up = both.chunk(2, -1)[:: 1 if layout == "gate_up" else -1]
            hidden = act(gate, **params) * up
            found = {"gate": gate, "up": up, "hidden": hidden}
            found["output"] = torch.nn.functional.linear(hidden, tensor(down))
            return {key: array.double().numpy().astype(x.dtype) for key, array in found.items()}

        setattr(plain, name, run)

    return change


def tensor(x: Array) -> Any:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))


def each_rounded(plain: Any) -> None:
    """Round every product, and the hidden channels, to storage before they go on."""
    (name,) = (name for name in ("swiglu", "geglu") if hasattr(plain, name))
    right = getattr(plain, name)
    product, combined = plain.product, plain.combined

    def run(x: Array, gate_up: Array, down: Array, **params: Any) -> dict[str, Array]:
        def stored(array: Array) -> Array:
            return array.astype(x.dtype).astype(array.dtype)

        plain.product = lambda a, weight: stored(product(a, weight))
        plain.combined = lambda gate, up, *form: stored(combined(gate, up, *form))
        return right(x, gate_up, down, **params)

    setattr(plain, name, run)


def with_product(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the products: `formula(x, weight)` of (..., in) and (out, in), (..., out)."""
    return wrap(product=lambda _: formula)


def in_order(x: Array, weight: Array) -> Array:
    """Add the terms one after the other, as a loop does."""
    total = np.zeros((*x.shape[:-1], len(weight)), x.dtype)
    for k in range(x.shape[-1]):
        total += x[..., k : k + 1] * weight[:, k]
    return total


def in_blocks(x: Array, weight: Array) -> Array:
    """Add blocks of eight terms, the last block first, as split-K kernels may."""
    total = np.zeros((*x.shape[:-1], len(weight)), x.dtype)
    for start in reversed(range(0, x.shape[-1], 8)):
        total += x[..., start : start + 8] @ weight[:, start : start + 8].T
    return total


def transposed(x: Array, weight: Array) -> Array:
    """Multiply the weight with the transposed rows, column by column in memory."""
    rows = np.asfortranarray(x.reshape(-1, x.shape[-1]))
    return np.ascontiguousarray((np.ascontiguousarray(weight) @ rows.T).T).reshape(*x.shape[:-1], len(weight))


def row_by_row(x: Array, weight: Array) -> Array:
    """Multiply each token by itself, as in decoding."""
    rows = [weight @ row for row in x.reshape(-1, x.shape[-1])]
    return np.array(rows, x.dtype).reshape(*x.shape[:-1], len(weight))


def in_float64(x: Array, weight: Array) -> Array:
    """Add in float64."""
    return (x.astype(np.float64) @ weight.astype(np.float64).T).astype(x.dtype)


def up_first(plain: Any) -> None:
    """Multiply gate by up before the activation's factor, where that holds."""
    right = plain.combined

    def combined(gate: Array, up: Array, *form: str) -> Array:
        factor = np.where(gate == 0, 0.5, right(gate, np.ones_like(up), *form) / np.where(gate == 0, 1, gate))
        return (gate * up) * factor.astype(gate.dtype)

    plain.combined = combined


def halves_of_hidden(plain: Any) -> None:
    """Project the two halves of the hidden channels apart and add, as two devices do."""
    (name,) = (name for name in ("swiglu", "geglu") if hasattr(plain, name))
    right = getattr(plain, name)

    def run(x: Array, gate_up: Array, down: Array, **params: Any) -> dict[str, Array]:
        F = down.shape[1]
        found = right(x, gate_up, down, **params)
        rows = plain.split(np.arange(2 * F), params["layout"])
        wide, parts = plain.wide, []
        for part in (slice(0, F // 2), slice(F // 2, F)):
            chosen = wide(gate_up)[np.concatenate([rows[0][part], rows[1][part]])]
            shard = right(wide(x), chosen, wide(down)[:, part], **(params | {"layout": "gate_up"}))
            parts.append(shard["output"])
        return found | {"output": (parts[0] + parts[1]).astype(x.dtype)}

    setattr(plain, name, run)


def output_alone(plain: Any) -> None:
    """Give the output alone, as a fused kernel does."""
    (name,) = (name for name in ("swiglu", "geglu") if hasattr(plain, name))
    right = getattr(plain, name)
    setattr(plain, name, lambda *given, **params: {"output": right(*given, **params)["output"]})


def in_tfloat32(x: Array, weight: Array) -> Array:
    """Multiply numbers rounded to the 11 bits of TF32."""
    return eleven_bits(x) @ eleven_bits(weight).T


def eleven_bits(x: Array) -> Array:
    """Round float32 numbers to 11 bits of significand, ties to even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x0FFF + (bits >> 13 & 1)) & 0xFFFFE000).astype(np.uint32).view(np.float32)


def einsum(x: Array, weight: Array) -> Array:
    """Multiply by einsum, unoptimised."""
    return np.einsum("...k,nk->...n", x, weight)


def shared() -> tuple[Formulation, ...]:
    """Return the formulations that both suites have."""
    return (
        Formulation("each_rounded", "products and hidden rounded to storage", each_rounded, EACH_OPERATION),
        Formulation("sums_in_order", "terms added from the first to the last", with_product(in_order)),
        Formulation("sums_in_blocks", "blocks of eight terms, the last first", with_product(in_blocks)),
        Formulation("transposed", "the weight times the transposed rows", with_product(transposed)),
        Formulation("row_by_row", "a product for each token", with_product(row_by_row)),
        Formulation("einsum", "numpy.einsum", with_product(einsum)),
        Formulation("sums_in_float64", "products added in float64", with_product(in_float64)),
        Formulation("products_in_tfloat32", "operands of products rounded to 11 bits", with_product(in_tfloat32),
                    ("tfloat32",)),
        Formulation("up_first", "gate times up before the activation's factor", up_first),
        Formulation("two_shards", "the halves of the hidden channels apart, their outputs added", halves_of_hidden),
        Formulation("output_alone", "the output alone", output_alone),
    )  # fmt: skip


def activation(formula: Callable[[Array], Array]) -> Change:
    """Return a change to silu: `formula(z)`."""
    return wrap(silu=lambda _: formula)


def without_overflow(z: Array) -> Array:
    """Return silu from exp(-|z|)."""
    power = np.exp(-np.abs(z))
    return z * np.where(z >= 0, 1 / (1 + power), power / (1 + power))


def by_exp2(z: Array) -> Array:
    """Return silu from a power of two, as fast exponentials do."""
    return z / (1 + np.exp2(z * z.dtype.type(-math.log2(math.e))))


FORMULATIONS = (
    Formulation("torch", "torch's linear and silu, in storage", in_torch(torch.nn.functional.silu), EACH_OPERATION),
    Formulation("torch_sigmoid", "gate torch.sigmoid(gate), in storage",
                in_torch(lambda gate: gate * torch.sigmoid(gate)), EACH_OPERATION),
    *shared(),
    Formulation("exp2", "the sigmoid by 2 to the power of -z log2(e)", activation(by_exp2)),
    Formulation("without_overflow", "the sigmoid from exp(-|z|)", activation(without_overflow)),
    Formulation("times_sigmoid", "gate times 1 / (1 + exp(-gate))", activation(lambda z: z * (1 / (1 + np.exp(-z))))),
)  # fmt: skip
