"""Correct ways to compute linear attention that differ from the plain candidate's: they must pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def causal(formula: Callable[[Array, Array, Array, Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to causal attention: `formula(queries, keys, v, state, key_sum)`, numerator and normaliser."""

    def wrong(*arrays: Array) -> tuple[Array, ...]:
        _, keys, v, state, key_sum = arrays
        return *formula(*arrays), state + keys.mT @ v, key_sum + keys.sum(2)

    return wrap(recurrent=lambda _: wrong)


def by_matrix(queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, Array]:
    """Return both from the matrix of all products, without those of later keys."""
    products = np.tril(queries @ keys.mT)  # (B, H, S, T)
    return products @ v + queries @ state, products.sum(-1) + (queries @ key_sum[..., None])[..., 0]


def by_running_sums(queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, Array]:
    """Return both from running sums of outer products, all states at once."""
    states = np.cumsum(keys[..., None] * v[..., None, :], 2) + state[:, :, None]  # (B, H, T, D, E)
    sums = np.cumsum(keys, 2) + key_sum[:, :, None]  # (B, H, T, D)
    return (queries[..., None, :] @ states)[..., 0, :], np.einsum("bhtd,bhtd->bht", queries, sums)


def chunks(size: int) -> Callable[..., tuple[Array, Array]]:
    """Return both from chunks: a matrix inside, a state between them."""

    def formula(queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, Array]:
        numerators, normalisers = [], []
        for start in range(0, keys.shape[2], size):
            part = slice(start, start + size)
            found = by_matrix(queries[:, :, part], keys[:, :, part], v[:, :, part], state, key_sum)
            numerators.append(found[0])
            normalisers.append(found[1])
            state = state + keys[:, :, part].mT @ v[:, :, part]
            key_sum = key_sum + keys[:, :, part].sum(2)
        return np.concatenate(numerators, 2), np.concatenate(normalisers, 2)

    return formula


def with_ones(queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, Array]:
    """Return both at once: a column of ones beside the values gives the normaliser."""
    values = np.concatenate([v, np.ones_like(v[..., :1])], -1)  # (B, H, T, E + 1)
    whole = np.concatenate([state, key_sum[..., None]], -1)  # (B, H, D, E + 1)
    found = []
    for t in range(keys.shape[2]):
        whole = whole + keys[:, :, t, :, None] * values[:, :, t, None]
        found.append(np.einsum("bhd,bhde->bhe", queries[:, :, t], whole))
    both = np.stack(found, 2)
    return both[..., :-1], both[..., -1]


def tf32(x: Array) -> Array:
    """Return float32 numbers rounded to the 11 bits that a tensor core multiplies."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)).view(
        np.float32
    )


def in_tf32(queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, Array]:
    """Return both from the matrix of all products, of operands of 11 bits."""
    products = np.tril(tf32(queries) @ tf32(keys).mT)
    numerator = tf32(products) @ tf32(v) + tf32(queries) @ tf32(state)
    return numerator, products.sum(-1) + (tf32(queries) @ tf32(key_sum)[..., None])[..., 0]


def in_float64(queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, Array]:
    """Return both from states in float64."""
    wide = [x.astype(np.float64) for x in (queries, keys, v, state, key_sum)]
    return tuple(x.astype(queries.dtype) for x in by_running_sums(*wide))


def keys_first(plain: Any) -> None:
    """Where all keys are meant, compute the matrix of products instead of a state."""

    def over_all(queries: Array, keys: Array, v: Array, state: Array, key_sum: Array) -> tuple[Array, ...]:
        products = queries @ keys.mT  # (B, H, S, T)
        numerator = products @ v + queries @ state
        normaliser = products.sum(-1) + (queries @ key_sum[..., None])[..., 0]
        return numerator, normaliser, state + keys.mT @ v, key_sum + keys.sum(2)

    plain.over_all = over_all


def reversed_sums(plain: Any) -> None:
    """Where all keys are meant, add them from the last to the first."""
    right = plain.over_all
    plain.over_all = lambda queries, keys, v, *state: right(queries, keys[:, :, ::-1], v[:, :, ::-1], *state)


def tensor(x: Array) -> Any:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))


def in_storage(recurrent: bool) -> Change:
    """Return a change to the whole: torch operations in storage, as a matrix, or with wide states."""

    def change(plain: Any) -> None:
        def linear_attention(
            *, q: Array, k: Array, v: Array, mask: Array | None = None, causal: bool, floor: float, **state: Array
        ) -> dict[str, Array]:
            queries, keys, values = functional.elu(tensor(q)) + 1, functional.elu(tensor(k)) + 1, tensor(v)
            if mask is not None:
                keys = keys.masked_fill(torch.from_numpy(mask == 0)[:, None, :, None], 0)
            wide = torch.float64 if queries.dtype == torch.float64 else torch.float32
            if state:
                first, whole = tensor(state["initial_state"]), tensor(state["initial_sum"])
            else:
                first, whole = (
                    values.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]),
                    values.new_zeros(*k.shape[:2], k.shape[3]),
                )
            if recurrent and causal:
                first, whole, rows = first.to(wide), whole.to(wide), []
                for t in range(k.shape[2]):
                    first = first + (keys[:, :, t, :, None].to(wide) * values[:, :, t, None])
                    whole = whole + keys[:, :, t]
                    query = queries[:, :, t, None].to(wide)
                    rows.append((query @ first, (query[:, :, 0] * whole).sum(-1)[..., None]))
                numerator, normaliser = (torch.cat(parts, 2).to(queries.dtype) for parts in zip(*rows, strict=True))
            else:
                products = queries @ keys.mT
                products = products.tril() if causal else products
                numerator = products @ values + queries @ first
                normaliser = products.sum(-1) + (queries * whole[:, :, None]).sum(-1)
                first, whole = first + keys.mT @ values, whole + keys.sum(2)
            output = numerator / normaliser.clamp(min=floor)[..., None]
            names = ("q_features", "k_features", "normaliser", "output", "state", "key_sum")
            found = (queries, keys, normaliser, output, first, whole)
            return {name: x.double().numpy().astype(q.dtype) for name, x in zip(names, found, strict=True)}

        plain.linear_attention = linear_attention

    return change


def elu_plus_1(x: Array) -> Array:
    """Return elu(x) + 1 as it is written."""
    return functional.elu(torch.from_numpy(np.ascontiguousarray(x))).numpy() + x.dtype.type(1)


def sum_of_parts(x: Array) -> Array:
    """Return max(x, 0) + e^min(x, 0)."""
    return np.maximum(x, 0) + np.exp(np.minimum(x, 0))


def normalised_first(plain: Any) -> None:
    """Divide queries by their normaliser before they meet the state."""
    right, divided = plain.recurrent, plain.divided

    def linear_attention(run: Any) -> Any:
        def wrapped(*, floor: float, **given: Any) -> Any:
            def recurrent(queries: Array, *rest: Array) -> tuple[Array, ...]:
                _, normaliser, _, _ = right(queries, *rest)
                below = np.maximum(normaliser, normaliser.dtype.type(floor))[..., None]
                return right(queries / below, *rest)[0], normaliser, *right(queries, *rest)[2:]

            plain.recurrent = recurrent if given["causal"] else right
            plain.divided = (lambda numerator, *_: numerator) if given["causal"] else divided
            return run(floor=floor, **given)

        return wrapped

    plain.linear_attention = linear_attention(plain.linear_attention)


FORMULATIONS = (
    Formulation("matrix", "the matrix of all products, S x T", causal(by_matrix)),
    Formulation("running_sums", "running sums of outer products", causal(by_running_sums)),
    Formulation("chunks_8", "chunks of 8 tokens: a matrix inside, a state between", causal(chunks(8))),
    Formulation("chunks_5", "chunks of 5 tokens", causal(chunks(5))),
    Formulation("column_of_ones", "the normaliser from a column of ones beside the values", causal(with_ones)),
    Formulation("state_in_float64", "states in float64", causal(in_float64)),
    Formulation("tf32", "products of operands of 11 bits", causal(in_tf32), ("tfloat32",)),
    Formulation("all_by_matrix", "the matrix of all products where all keys are meant", keys_first),
    Formulation("keys_reversed", "sums from the last key to the first", reversed_sums),
    Formulation("storage", "torch, a matrix, every operation in storage", in_storage(recurrent=False), EACH_OPERATION),
    Formulation("storage_recurrent", "torch, features in storage", in_storage(recurrent=True), EACH_OPERATION),
    Formulation("elu_plus_1", "torch's elu, plus 1", wrap(features=lambda _: elu_plus_1)),
    Formulation("sum_of_parts", "max(x, 0) + e^min(x, 0)", wrap(features=lambda _: sum_of_parts)),
    Formulation("normalised_first", "queries divided before they meet the state", normalised_first),
    Formulation("inverse", "multiplied by 1 / normaliser", wrap(divided=lambda _: lambda numerator, normaliser, floor: (
        numerator * (1 / np.maximum(normaliser, normaliser.dtype.type(floor)))[..., None]))),
)  # fmt: skip
