"""Correct ways to compute FAVOR+ that differ from the plain candidate's: they must pass under what they honour."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def by_state(size: int) -> Change:
    """Return a change to causal attention: chunks with a state between them, and one sum over all keys elsewhere."""

    def change(plain: Any) -> None:
        run = plain.favor_attention

        def favor_attention(*, causal: bool, **given: Any) -> Any:
            seen: dict[str, Array] = {}

            def weights(queries: Array, keys: Array) -> Array:
                seen.update(queries=queries, keys=keys)
                return queries @ keys.mT

            plain.weights = weights
            plain.averaged = lambda _, v: attended(seen["queries"], seen["keys"], v, size if causal else 0)
            return run(causal=causal, **given)

        plain.favor_attention = favor_attention

    return change


def attended(queries: Array, keys: Array, v: Array, size: int) -> Array:
    """Return outputs by states of keys and values, in chunks of `size` tokens, or over all keys where it is 0."""
    state, total = np.zeros((*v.shape[:2], keys.shape[-1], v.shape[-1]), v.dtype), np.zeros_like(keys[:, :, 0])
    if not size:
        return over(queries @ (state + keys.mT @ v), (queries @ keys.sum(2)[..., None]))
    found = []
    for start in range(0, keys.shape[2], size):
        part = slice(start, start + size)
        inside = np.tril(queries[:, :, part] @ keys[:, :, part].mT)
        sums = inside.sum(-1, keepdims=True) + queries[:, :, part] @ total[..., None]
        found.append(over(inside @ v[:, :, part] + queries[:, :, part] @ state, sums))
        state = state + keys[:, :, part].mT @ v[:, :, part]
        total = total + keys[:, :, part].sum(2)
    return np.concatenate(found, 2)


def over(numerator: Array, total: Array) -> Array:
    """Return a quotient, 0 where the total is."""
    return numerator / np.where(total > 0, total, 1)


def keys_stabilised_by_feature(plain: Any) -> None:
    """Stabilise each feature by its largest key, and give queries what that took away."""
    run = plain.favor_attention

    def favor_attention(**given: Any) -> Any:
        seen: dict[str, Array] = {}

        def key_features(keys: Array, counts: Array) -> Array:
            shown = np.where(counts, keys, -np.inf)
            largest = shown.max(-2, keepdims=True)  # (B, H, 1, M)
            seen["largest"] = np.where(np.isfinite(largest), largest, 0)
            return np.exp(shown - seen["largest"])

        def weights(_: Array, keys: Array) -> Array:
            moved = seen["queries"] + seen["largest"]
            return np.exp(moved - moved.max(-1, keepdims=True)) @ keys.mT

        def query_features(queries: Array) -> Array:
            seen["queries"] = queries
            return queries

        plain.query_features, plain.key_features, plain.weights = query_features, key_features, weights
        return run(**given)

    plain.favor_attention = favor_attention


def whole_stabiliser(queries: Array) -> Array:
    """Return features of queries whose stabilisers are whole numbers."""
    largest = queries.max(-1, keepdims=True)
    return np.exp(queries - np.rint(largest))


def with_factor(queries: Array) -> Array:
    """Return features times M^(-1/2)."""
    return np.exp(queries - queries.max(-1, keepdims=True)) * queries.dtype.type(queries.shape[-1] ** -0.5)


def of_base_two(queries: Array) -> Array:
    """Return powers of 2 of exponents times log2(e)."""
    moved = (queries - queries.max(-1, keepdims=True)) * queries.dtype.type(math.log2(math.e))
    return np.exp2(moved)


def scaled_projection(x: Array, projection: Array) -> Array:
    """Return exponents of vectors that are not scaled, by a projection that is."""
    scale = x.dtype.type(x.shape[-1] ** -0.25)
    return x @ (projection * scale).T - np.square(x).sum(-1, keepdims=True) * (scale * scale / 2)


def by_einsum(x: Array, projection: Array) -> Array:
    """Return exponents by einsum, the norm as a product of the vector with itself."""
    x = x / x.dtype.type(math.sqrt(math.sqrt(x.shape[-1])))
    return np.einsum("bhnd,md->bhnm", x, projection) - np.einsum("bhnd,bhnd->bhn", x, x)[..., None] * x.dtype.type(0.5)


def tf32(x: Array) -> Array:
    """Return float32 numbers rounded to the 11 bits that a tensor core multiplies."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)).view(
        np.float32
    )


def in_tf32(plain: Any) -> None:
    """Multiply matrices of operands of 11 bits."""
    plain.exponents = lambda x, projection: tf32(plain.scaled(x)) @ tf32(projection).T - plain.norms(plain.scaled(x))
    plain.weights = lambda queries, keys: tf32(queries) @ tf32(keys).mT
    plain.averaged = lambda weight, v: over(tf32(weight) @ tf32(v), weight.sum(-1, keepdims=True))


def tensor(x: Array) -> Any:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))


def in_storage(plain: Any) -> None:
    """Compute with torch as the authors' code does, every operation in storage."""
    right = plain.favor_attention

    def favor_attention(
        *, q: Array, k: Array, v: Array, projection: Array, mask: Array | None = None, causal: bool
    ) -> dict[str, Array]:
        if not q.size:
            return right(q=q, k=k, v=v, projection=projection, mask=mask, causal=causal)
        w = tensor(projection)
        scaled = [tensor(x) * x.shape[-1] ** -0.25 for x in (q, k)]
        queries, keys = (x @ w.T - x.square().sum(-1, keepdim=True) / 2 for x in scaled)
        shown = keys if mask is None else keys.masked_fill(torch.from_numpy(mask == 0)[:, None, :, None], -torch.inf)
        largest = shown.amax((-2, -1), keepdim=True)
        features = torch.exp(shown - torch.where(largest.isfinite(), largest, 0).to(shown.dtype))
        weights = torch.exp(queries - queries.amax(-1, keepdim=True)) @ features.mT
        weights = weights.tril() if causal else weights
        total = weights.sum(-1, keepdim=True)
        output = (weights @ tensor(v)) / torch.where(total > 0, total, 1).to(total.dtype)
        found = {"q_exponents": queries, "k_exponents": keys, "output": output}
        return {name: x.double().numpy().astype(q.dtype) for name, x in found.items()}

    plain.favor_attention = favor_attention


def in_float64(queries: Array, keys: Array) -> Array:
    """Return products of features in float64."""
    return (queries.astype(np.float64) @ keys.astype(np.float64).mT).astype(queries.dtype)


def features_reversed(queries: Array, keys: Array) -> Array:
    """Return products of features, summed from the last feature."""
    return queries[..., ::-1] @ keys[..., ::-1].mT


def by_logarithms(plain: Any) -> None:
    """Add stabilised exponents, and take the logarithm of each weight before the softmax over keys."""
    plain.query_features = lambda queries: queries - queries.max(-1, keepdims=True)
    plain.key_features = shown
    plain.weights = logarithms
    plain.before = lambda weight: np.where(np.tril(np.ones(weight.shape, bool)), weight, -np.inf)
    averaged = plain.averaged
    plain.averaged = lambda weight, v: averaged(softened(weight), v)


def shown(keys: Array, counts: Array) -> Array:
    """Return exponents less the largest of their head, -inf where keys do not count, (B, H, T, M)."""
    found = np.where(counts, keys, -np.inf)
    largest = found.max((-2, -1), keepdims=True)
    return found - np.where(np.isfinite(largest), largest, 0)


def logarithms(queries: Array, keys: Array) -> Array:
    """Return logarithms of weights, (B, H, S, T)."""
    sums = queries[:, :, :, None] + keys[:, :, None]  # (B, H, S, T, M)
    return np.logaddexp.reduce(sums, -1)


def softened(weight: Array) -> Array:
    """Return exponentials of logarithms, the largest of each query being 1, (B, H, S, T)."""
    largest = weight.max(-1, keepdims=True, initial=-np.inf)
    return np.exp(weight - np.where(np.isfinite(largest), largest, 0))


FORMULATIONS = (
    Formulation("state_token_by_token", "a state after each token", by_state(1)),
    Formulation("state_in_chunks_of_8", "chunks of 8 tokens, a state between", by_state(8)),
    Formulation("state_in_chunks_of_5", "chunks of 5 tokens, a state between", by_state(5)),
    Formulation("stabilised_by_feature", "a stabiliser for each feature, given back", keys_stabilised_by_feature),
    Formulation("logarithms", "weights as logarithms, and a softmax over keys", by_logarithms),
    Formulation("stabiliser_rounded", "stabilisers are whole numbers", wrap(query_features=lambda _: whole_stabiliser)),
    Formulation("with_factor", "features times M^(-1/2)", wrap(query_features=lambda _: with_factor)),
    Formulation("exp2", "powers of 2 for queries", wrap(query_features=lambda _: of_base_two)),
    Formulation("scaled_projection", "the projection scaled", wrap(exponents=lambda _: scaled_projection)),
    Formulation("einsum", "exponents by einsum", wrap(exponents=lambda _: by_einsum)),
    Formulation("products_in_float64", "products of features in float64", wrap(weights=lambda _: in_float64)),
    Formulation("features_reversed", "features summed from the last", wrap(weights=lambda _: features_reversed)),
    Formulation("tf32", "products of operands of 11 bits", in_tf32, ("tfloat32",)),
    Formulation("storage", "torch, every operation in storage", in_storage, EACH_OPERATION),
)  # fmt: skip
