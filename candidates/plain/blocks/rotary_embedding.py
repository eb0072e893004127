"""Rotary position embedding in plain NumPy: the definition, to read and to copy.

Su et al., "RoFormer" (2021), section 3.2.2; scalings as in transformers, modeling_rope_utils.py (YaRN: Peng et al.
2023, section 3). Computed in float32 (float64 where q is); the vectors are rounded once to the format of q. B batch, H
query heads, G key heads, T tokens, D head width, r rotated dimensions.
"""

import math

import numpy as np


def rotary_embedding(
    q,
    k,
    positions=None,
    cos=None,
    sin=None,
    *,
    pairing,
    rotary_dim,
    base=None,
    scaling=None,
):
    """Rotate `q` (B, H, T, D) and `k` (B, G, T, D) by `positions` (B, T), or by the tables `cos` and `sin`."""
    check_vectors(q, k)
    check_rotary_dim(rotary_dim, q.shape[-1])
    check_pairing(pairing)
    if positions is None:
        check_tables(cos, sin, q, rotary_dim)
        return both_rotated(q, k, wide(cos), wide(sin), pairing)
    check_positions(positions, q)
    check_base(base)
    check_scaling(scaling)
    inv_freq = frequencies(rotary_dim, base, scaling, positions, wide(q).dtype)  # (r/2,)
    factor = wide(q).dtype.type(attention_factor(scaling))  # ()
    cos, sin = tables(angles(positions, inv_freq), factor)  # (B, T, r/2) each
    found = {"inv_freq": inv_freq, "attention_factor": factor, "cos": cos, "sin": sin}
    return found | both_rotated(q, k, cos, sin, pairing)


# --- frequencies -----------------------------------------------------------------------------------------------------


def frequencies(r, base, scaling, positions, dtype):
    """Return the scaled frequencies, (r/2,), in the format `dtype`."""
    kind = scaling["rope_type"]
    if kind == "dynamic":
        return unscaled(r, dynamic_base(r, base, scaling, length(positions)), dtype)
    inv_freq = unscaled(r, base, dtype)
    if kind == "linear":
        return linear(inv_freq, scaling["factor"])
    if kind == "yarn":
        return yarn(inv_freq, ramp(r, base, scaling).astype(dtype), scaling["factor"])
    return llama3(inv_freq, scaling) if kind == "llama3" else inv_freq


def unscaled(r, base, dtype):
    """Return base^(-2i/r), (r/2,)."""
    exponent = np.arange(0, r, 2, dtype=dtype) / dtype.type(r)  # (r/2,)
    return dtype.type(base) ** -exponent


def linear(inv_freq, factor):
    """Return frequencies over `factor`, (r/2,)."""
    return inv_freq / inv_freq.dtype.type(factor)


def length(positions):
    """Return how many positions there are up to the largest of the batch."""
    return int(positions.max(initial=-1)) + 1


def dynamic_base(r, base, scaling, length):
    """Return the base that stretches the longest wave by as much as the length exceeds what was trained."""
    factor, trained = scaling["factor"], scaling["max_position_embeddings"]
    stretch = factor * max(length, trained) / trained - (factor - 1)
    return base * stretch ** (r / (r - 2))


def ramp(r, base, scaling):
    """Return how much of each frequency is interpolated, from 0 to 1, (r/2,)."""
    low = max(math.floor(pair_of(scaling["beta_fast"], r, base, scaling)), 0)
    high = min(math.ceil(pair_of(scaling["beta_slow"], r, base, scaling)), r - 1)
    return np.clip((np.arange(r // 2) - low) / ((high - low) or 0.001), 0, 1)


def pair_of(rotations, r, base, scaling):
    """Return the pair, a fraction, that makes so many rotations in the length that was trained."""
    trained = scaling["original_max_position_embeddings"]
    return r * math.log(trained / (rotations * 2 * math.pi)) / (2 * math.log(base))


def yarn(inv_freq, ramp, factor):
    """Return frequencies that are interpolated as far as `ramp` says, (r/2,)."""
    return (1 - ramp) * inv_freq + ramp * inv_freq / inv_freq.dtype.type(factor)


def attention_factor(scaling):
    """Return the factor of cosines and sines, which yarn has."""
    if scaling["rope_type"] != "yarn":
        return 1.0
    given = scaling["attention_factor"]
    return 0.1 * math.log(scaling["factor"]) + 1 if given is None else given


def llama3(inv_freq, scaling):
    """Return frequencies over the factor where waves are long, themselves where short, a mixture between, (r/2,)."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = rotations(inv_freq, scaling["original_max_position_embeddings"])  # (r/2,)
    smooth = np.clip((turns - low) / (high - low), 0, 1).astype(inv_freq.dtype)  # (r/2,): 0 for long waves
    return (1 - smooth) * inv_freq / inv_freq.dtype.type(scaling["factor"]) + smooth * inv_freq


def rotations(inv_freq, length):
    """Return how many waves there are in a length, (r/2,)."""
    return length * inv_freq / inv_freq.dtype.type(2 * math.pi)


# --- tables and rotation ---------------------------------------------------------------------------------------------


def angles(positions, inv_freq):
    """Return each position times each frequency, (B, T, r/2)."""
    return positions[..., None].astype(inv_freq.dtype) * inv_freq


def tables(angle, factor):
    """Return cosines and sines, (B, T, r/2) each, times `factor`."""
    return np.cos(angle) * factor, np.sin(angle) * factor


def both_rotated(q, k, cos, sin, pairing):
    """Return the checkpoints of the rotation."""
    return {"q_rotated": rotated(q, cos, sin, pairing), "k_rotated": rotated(k, cos, sin, pairing)}


def rotated(x, cos, sin, pairing):
    """Rotate the first r dimensions of `x` (B, heads, T, D) by tables (B, T, r/2)."""
    r = 2 * cos.shape[-1]
    a, b = pairs(wide(x[..., :r]), pairing)  # (B, heads, T, r/2) each
    cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, r/2) each
    turned = joined(a * cos - b * sin, b * cos + a * sin, pairing)  # (B, heads, T, r)
    return np.concatenate([turned.astype(x.dtype), x[..., r:]], -1)


def pairs(x, pairing):
    """Return the first and the second of each pair, (..., r/2) each."""
    if pairing == "half_split":
        return x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return x[..., 0::2], x[..., 1::2]


def joined(a, b, pairing):
    """Return vectors of the pairs, (..., r)."""
    if pairing == "half_split":
        return np.concatenate([a, b], -1)
    return np.stack([a, b], -1).reshape(*a.shape[:-1], 2 * a.shape[-1])


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


# --- what is refused -------------------------------------------------------------------------------------------------


def require(condition, text):
    """Raise `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(text)


def check_vectors(q, k):
    """Refuse queries and keys that do not fit each other."""
    require(
        q.ndim == 4 and k.ndim == 4,
        f"q and k must have four axes, found {q.shape} and {k.shape}",
    )
    require(
        (k.shape[0], *k.shape[2:]) == (q.shape[0], *q.shape[2:]),
        f"k {k.shape} and q {q.shape} may differ in heads only",
    )


def check_rotary_dim(r, width):
    """Refuse dimensions that are not there or make no pairs."""
    require(
        2 <= r <= width and r % 2 == 0,
        f"rotary_dim must be even, from 2 to {width}, found {r}",
    )


def check_pairing(pairing):
    """Refuse pairings that do not exist."""
    require(
        pairing in ("half_split", "interleaved"),
        f"pairing {pairing!r} is not 'half_split' or 'interleaved'",
    )


def check_tables(cos, sin, q, r):
    """Refuse tables of other rows, tokens or pairs."""
    wanted = (q.shape[0], q.shape[2], r // 2)
    require(
        cos.shape == wanted and sin.shape == wanted,
        f"tables {cos.shape} and {sin.shape}, wanted {wanted}",
    )


def check_positions(positions, q):
    """Refuse positions of other rows or tokens, and those before the first."""
    wanted = (q.shape[0], q.shape[2])
    require(
        positions.shape == wanted,
        f"positions {positions.shape}, wanted {wanted}, one for each token",
    )
    require((positions >= 0).all(), "positions must not be negative")


def check_base(base):
    """Refuse a base that has no power."""
    require(base > 0, f"base must be above 0, found {base}")


def check_scaling(scaling):
    """Refuse scalings that do not exist, and factors that shorten."""
    kind = scaling["rope_type"]
    require(
        kind in ("default", "linear", "dynamic", "yarn", "llama3"),
        f"unknown rope_type {kind!r}",
    )
    require(
        kind == "default" or scaling["factor"] >= 1,
        f"factor must be at least 1: {scaling}",
    )
