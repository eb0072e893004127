"""Correct ways to compute rotary embeddings that differ from the plain candidate's: they must pass."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gptj import modeling_gptj
from transformers.models.llama import modeling_llama

from karat.faults import Formulation, wrap

Array = Any
Change = Callable[[Any], None]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def tensor(x: Array) -> Any:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    return torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))


def array(x: Any, like: Array) -> Array:
    """Return a tensor as an array of the format of `like`, rounded where that is coarser."""
    return x.double().numpy().astype(like.dtype)


def rotation(formula: Callable[[Array, Array, Array, str], Array]) -> Change:
    """Return a change to the rotation: `formula(x, cos, sin, pairing)` of the r dimensions in storage, wide tables."""

    def rotated(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
        r = 2 * cos.shape[-1]
        return np.concatenate([formula(x[..., :r], cos, sin, pairing).astype(x.dtype), x[..., r:]], -1)

    return wrap(rotated=lambda _: rotated)


def frequency(formula: Callable[[Array, int, float], Array]) -> Change:
    """Return a change to frequencies: `formula(c, r, base)`, c = 0, 2, … in the format wanted, (r/2,)."""

    def unscaled(r: int, base: float, dtype: Any) -> Array:
        return formula(np.arange(0, r, 2, dtype=dtype), r, base).astype(dtype)

    return wrap(unscaled=lambda _: unscaled)


def of_transformers(plain: Any) -> None:
    """Compute with transformers' functions of Llama and GPT-J, on tensors in storage; frequencies in float32."""

    def frequencies(r: int, base: float, scaling: dict[str, Any], positions: Array, dtype: Any) -> Array:
        parameters = {name: value for name, value in scaling.items() if value is not None} | {"rope_theta": base}
        lengths = {"max_position_embeddings": parameters.pop("max_position_embeddings", 65536)}
        config = LlamaConfig(head_dim=r, rope_parameters=parameters, **lengths)
        functions = ROPE_INIT_FUNCTIONS | {
            "default": modeling_llama.LlamaRotaryEmbedding.compute_default_rope_parameters
        }
        inv_freq, _ = functions[scaling["rope_type"]](config, device="cpu", seq_len=plain.length(positions))
        return inv_freq.double().numpy().astype(dtype)

    def rotated(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
        return torch_rotated(x, tensor(cos.astype(x.dtype)), tensor(sin.astype(x.dtype)), pairing)

    plain.frequencies = frequencies
    rotation(rotated)(plain)


def torch_rotated(x: Array, cos: Any, sin: Any, pairing: str) -> Array:
    """Rotate with the functions of Llama or GPT-J, every operation in the format of the tensors."""
    x_in_storage = tensor(x)
    if pairing == "half_split":
        tables = [torch.cat([table, table], -1) for table in (cos, sin)]
        return array(modeling_llama.apply_rotary_pos_emb(x_in_storage, x_in_storage, *tables)[0], x)
    by_token = x_in_storage.transpose(1, 2)  # (B, T, heads, r), as GPT-J has it
    return array(modeling_gptj.apply_rotary_pos_emb(by_token, sin, cos).transpose(1, 2), x)


def float32_in_torch(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Rotate with the same functions on wide tensors."""
    wide = x.astype(cos.dtype)
    return torch_rotated(wide, tensor(cos), tensor(sin), pairing)


def split(x: Array, pairing: str) -> tuple[Array, Array]:
    """Return the first and the second of each pair, (..., r/2) each."""
    if pairing == "interleaved":
        return x[..., 0::2], x[..., 1::2]
    return x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]


def merged(a: Array, b: Array, pairing: str) -> Array:
    """Return vectors of the pairs, (..., r)."""
    return np.concatenate([a, b], -1) if pairing == "half_split" else np.stack([a, b], -1).reshape(*a.shape[:-1], -1)


def by_complex(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Multiply complex numbers, as Meta's Llama does."""
    a, b = split(x.astype(cos.dtype), pairing)
    turned = (a + 1j * b) * (cos + 1j * sin)[:, None]
    return merged(turned.real, turned.imag, pairing) if x.size else x


def by_matrices(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Multiply each pair by its matrix of rotation, by einsum."""
    pairs = np.stack(split(x.astype(cos.dtype), pairing), -1)  # (B, heads, T, r/2, 2)
    matrices = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)  # (B, T, r/2, 2, 2)
    turned = np.einsum("btpij,bhtpj->bhtpi", matrices, pairs)
    return merged(turned[..., 0], turned[..., 1], pairing) if x.size else x


def fused_multiply_add(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Add the exact product to one that was rounded, as fused kernels do."""
    a, b = split(x.astype(cos.dtype), pairing)
    c, s = cos[:, None], sin[:, None]
    wide = np.longdouble
    first = (a.astype(wide) * c - (b * s).astype(wide)).astype(cos.dtype)
    second = (b.astype(wide) * c + (a * s).astype(wide)).astype(cos.dtype)
    return merged(first, second, pairing) if x.size else x


def permuted(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Bring interleaved pairs into halves, rotate these, and bring them back."""
    r = x.shape[-1]
    order = np.arange(r) if pairing == "half_split" else np.arange(r).reshape(-1, 2).T.ravel()
    a, b = split(x.astype(cos.dtype)[..., order], "half_split")
    c, s = cos[:, None], sin[:, None]
    turned = np.concatenate([a * c - b * s, a * s + b * c], -1)
    return turned[..., np.argsort(order)]


def in_storage(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Round tables, products and sums to storage, each."""
    a, b = split(x, pairing)
    c, s = (table.astype(x.dtype)[:, None] for table in (cos, sin))
    return merged(a * c - b * s, b * c + a * s, pairing) if x.size else x


def tables_in_storage(x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Round the tables to storage and compute wide."""
    a, b = split(x.astype(cos.dtype), pairing)
    c, s = (table.astype(x.dtype).astype(cos.dtype)[:, None] for table in (cos, sin))
    return merged(a * c - b * s, b * c + a * s, pairing) if x.size else x


def tables_from_cache(plain: Any) -> None:
    """Look tables up that were computed in float64 for every position, and rounded once."""
    right = plain.tables

    def tables(angle: Array, factor: Any) -> Any:
        return right(angle, factor)

    def angles(positions: Array, inv_freq: Array) -> Array:
        whole = np.arange(int(positions.max(initial=-1)) + 1, dtype=np.float64)[:, None] * inv_freq.astype(np.float64)
        return np.remainder(whole, 2 * math.pi)[positions].astype(inv_freq.dtype)  # turns taken off in float64

    plain.tables, plain.angles = tables, angles


def sine_as_cosine(plain: Any) -> None:
    """Take both from one complex exponential in float64."""

    def tables(angle: Array, factor: Any) -> Any:
        turned = np.exp(1j * angle.astype(np.float64)) * float(factor)
        return turned.real.astype(angle.dtype), turned.imag.astype(angle.dtype)

    plain.tables = tables


def torch_angles(plain: Any) -> None:
    """Compute angles as a product of matrices, and their tables with torch, as older Llama code does."""

    def angles(positions: Array, inv_freq: Array) -> Array:
        wide = torch.from_numpy(positions.astype(inv_freq.dtype))[:, None, :]  # (B, 1, T)
        column = torch.from_numpy(inv_freq)[None, :, None].expand(positions.shape[0], -1, 1)  # (B, r/2, 1)
        return (column @ wide).transpose(1, 2).contiguous().numpy()  # (B, T, r/2)

    def tables(angle: Array, factor: Any) -> Any:
        found = torch.from_numpy(angle)
        return (found.cos() * float(factor)).numpy(), (found.sin() * float(factor)).numpy()

    plain.angles, plain.tables = angles, tables


def positions_scaled(plain: Any) -> None:
    """Divide positions by the factor of linear scaling, as its inventors did, and return frequencies over it."""
    right, seen = plain.frequencies, {}

    def frequencies(r: int, base: float, scaling: dict[str, Any], positions: Array, dtype: Any) -> Array:
        linear = scaling["rope_type"] == "linear"
        seen["factor"] = dtype.type(scaling["factor"] if linear else 1)
        seen["unscaled"] = right(r, base, {"rope_type": "default"} if linear else scaling, positions, dtype)
        return seen["unscaled"] / seen["factor"]

    plain.frequencies = frequencies
    plain.angles = lambda positions, inv_freq: (
        (positions.astype(inv_freq.dtype) / seen["factor"])[..., None] * seen["unscaled"]
    )


def by_logarithm(columns: Array, r: int, base: float) -> Array:
    """Return exp of a multiple of the logarithm."""
    return np.exp(columns * columns.dtype.type(-math.log(base) / r))


def by_inverse(columns: Array, r: int, base: float) -> Array:
    """Return one over powers, as transformers does."""
    return 1 / columns.dtype.type(base) ** (columns / columns.dtype.type(r))


def by_powers(columns: Array, r: int, base: float) -> Array:
    """Return powers of base^(-2/r), multiplied one after the other in float64."""
    return np.multiply.accumulate(np.where(columns > 0, float(base) ** (-2 / r), 1.0))


def in_float64(columns: Array, r: int, base: float) -> Array:
    """Return powers computed in float64."""
    return float(base) ** (-columns.astype(np.float64) / r)


FORMULATIONS = (
    Formulation(
        "transformers", "functions of transformers, on tensors in storage", of_transformers, EACH_OPERATION[1:]
    ),
    Formulation("transformers_wide", "apply_rotary_pos_emb of Llama and GPT-J, in float32", rotation(float32_in_torch)),
    Formulation("complex", "products of complex numbers, as Meta's Llama", rotation(by_complex)),
    Formulation("matrices", "a 2 × 2 matrix for each pair, by einsum", rotation(by_matrices)),
    Formulation("fused_multiply_add", "one product of two is not rounded", rotation(fused_multiply_add)),
    Formulation("permuted", "interleaved pairs brought into halves and back", rotation(permuted)),
    Formulation("storage", "tables, products and sums rounded to storage", rotation(in_storage), EACH_OPERATION),
    Formulation("tables_in_storage", "tables rounded to storage", rotation(tables_in_storage), EACH_OPERATION),
    Formulation("table_of_all_positions", "turns taken off in float64, looked up", tables_from_cache),
    Formulation("complex_exponential", "real and imaginary part, in float64", sine_as_cosine),
    Formulation("angles_by_matmul", "angles as an outer product, tables with torch", torch_angles),
    Formulation("positions_scaled", "positions over the factor of linear scaling", positions_scaled),
    Formulation("exponential", "exp of a multiple of the logarithm", frequency(by_logarithm)),
    Formulation("one_over_power", "1 / base^(2i/r)", frequency(by_inverse)),
    Formulation("powers", "powers of one factor, multiplied in float64", frequency(by_powers)),
    Formulation("frequencies_in_float64", "frequencies computed in float64", frequency(in_float64)),
)
