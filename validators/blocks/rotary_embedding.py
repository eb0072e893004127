"""Rotary position embedding of queries and keys (Su et al. 2021), with the scalings of long-context models.

Symbols: B batch, H query heads, G key heads, T tokens, D head width, r rotated dimensions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function that is called in two ways, all inputs by name
    rotary_embedding(q, k, positions, *, pairing, rotary_dim, base, scaling)
        -> {"inv_freq": …, "attention_factor": …, "cos": …, "sin": …, "q_rotated": …, "k_rotated": …}
    rotary_embedding(q, k, cos, sin, *, pairing, rotary_dim) -> {"q_rotated": …, "k_rotated": …}
  q           (B, H, T, D) in storage
  k           (B, G, T, D) in storage
  positions   (B, T) integers from 0, in any order; each row has its own
  rotary_dim  r, even, at most D: the first r dimensions are rotated, the others are returned as they are
  pairing     which two dimensions are one pair, i = 0 … r/2 - 1:
              "half_split"   i and i + r/2 (GPT-NeoX, Llama, Hugging Face's weights)
              "interleaved"  2i and 2i + 1 (GPT-J, Meta's weights)
  cos, sin    (B, T, r/2) in storage, where they are given: numbers that are no cosines, to show the rotation alone

  inv_freq         (r/2,) in the accumulation format: f_i = base^(-2i/r), scaled as below
  attention_factor  () in the accumulation format; only yarn has this checkpoint, otherwise it is 1
  cos, sin         (B, T, r/2) in the accumulation format: cos(position * inv_freq_i) * attention_factor, and the sine
  q_rotated        (B, H, T, D) in storage: the pair (a, b) becomes (a cos - b sin, b cos + a sin)
  k_rotated        (B, G, T, D) in storage, the same
Positions, angles, cosines and sines are computed in the accumulation format (float32 where storage has 16 bits), in
which an angle of 131072 is known to 0.004. Under bfloat16 and float16 cos and sin may be rounded to storage before they
multiply; under the contracts that round once they may not.

scaling, a mapping as transformers' rope_parameters has it, "rope_type" being
  "default"  nothing
  "linear"   factor: f_i / factor
  "dynamic"  factor, max_position_embeddings = M: with L = the largest of M and of all positions of the batch + 1, base
             is replaced by base * (factor L / M - (factor - 1))^(r / (r - 2))
  "yarn"     factor, original_max_position_embeddings = M, beta_fast, beta_slow, attention_factor (a number, or None for
             0.1 ln(factor) + 1): with d(n) = r ln(M / (2 pi n)) / (2 ln base), low = max(floor(d(beta_fast)), 0) and
             high = min(ceil(d(beta_slow)), r - 1), and ramp_i = (i - low) / (high - low) clipped to 0 and 1 (high +
             0.001 for high where both are equal): (1 - ramp_i) f_i + ramp_i f_i / factor
  "llama3"   factor, low_freq_factor, high_freq_factor, original_max_position_embeddings = M: with the wavelength
             w_i = 2 pi / f_i: f_i where w_i < M / high_freq_factor; f_i / factor where w_i > M / low_freq_factor; else
             (1 - s) f_i / factor + s f_i with s = (M / w_i - low_freq_factor) / (high_freq_factor - low_freq_factor)

Must be refused (raise, or exit with another code than 0): q or k that has not four axes; k of another batch, number of
tokens or head width than q; positions other than (B, T); tables other than (B, T, r/2); a negative position; an r that
is odd, below 2 or above D; a base that is not above 0; a factor below 1; an unknown pairing or rope_type.
"""

CONTRACTS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
TABLE = ("batch", "token", "pair")
QUERIES = ("batch", "head", "token", "channel")
KEYS = ("batch", "key_head", "token", "channel")
DEFAULT = {"rope_type": "default"}
YARN = {
    "rope_type": "yarn",
    "factor": 16.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "attention_factor": None,
}
LLAMA = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def vectors(name: str, heads: int, tokens: tuple[int, int], width: int) -> Dyadic:
    """Return random queries or keys of standard deviation 1.15, (B, heads, T, D); `tokens` is (B, T)."""
    return Dyadic((tokens[0], heads, tokens[1], width), f"rotary_embedding/{name}", exponent=-5)


def rows(values: Sequence[Sequence[int]]) -> Literal:
    """Return the recipe of positions written out, (B, T)."""
    return Literal(tuple(tuple(row) for row in values), "int64")


def integers(name: str, count: int, low: int, high: int) -> list[int]:
    """Return random integers in [low, high)."""
    drawn: list[int] = Integers((count,), f"rotary_embedding/{name}", low, high).draw().tolist()
    return drawn


def rotated(tokens: tuple[int, int], heads: tuple[int, int], width: int) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of what is rotated."""
    B, T = tokens
    return (
        Checkpoint("q_rotated", (B, heads[0], T, width), QUERIES),
        Checkpoint("k_rotated", (B, heads[1], T, width), KEYS),
    )


def case(
    name: str,
    about: str,
    positions: Sequence[Sequence[int]],
    width: int,
    *,
    heads: tuple[int, int] = (3, 1),
    **changes: Any,
) -> Case:
    """Return the case of these positions, (B, T), and `heads`, (H, G), of `width` dimensions; `changes` are params."""
    B, T = tokens = len(positions), len(positions[0])
    params: dict[str, Any] = {
        "pairing": "half_split",
        "rotary_dim": width,
        "base": 10000.0,
        "scaling": dict(DEFAULT),
    } | changes
    r, yarn = params["rotary_dim"], params["scaling"]["rope_type"] == "yarn"
    factor = (Checkpoint("attention_factor", (), dtype="accumulation"),) if yarn else ()
    return Case(
        name,
        {
            "q": vectors(f"{name}/q", heads[0], tokens, width),
            "k": vectors(f"{name}/k", heads[1], tokens, width),
            "positions": rows(positions),
        },
        params,
        (
            Checkpoint("inv_freq", (r // 2,), ("pair",), dtype="accumulation"),
            *factor,
            Checkpoint("cos", (B, T, r // 2), TABLE, dtype="accumulation"),
            Checkpoint("sin", (B, T, r // 2), TABLE, dtype="accumulation"),
            *rotated(tokens, heads, width),
        ),
        about=about,
    )


def table_case(name: str, about: str, tokens: tuple[int, int], width: int, pairing: str, r: int) -> Case:
    """Return a case whose tables are given: multiples of 1/128 in [-1, 1], in no relation to each other."""
    B, T = tokens
    tables: dict[str, Recipe] = {
        table: Dyadic((B, T, r // 2), f"rotary_embedding/{name}/{table}", exponent=-7) for table in ("cos", "sin")
    }
    vectors_of = {key: vectors(f"{name}/{key}", heads, tokens, width) for key, heads in (("q", 4), ("k", 3))}
    return Case(
        name,
        vectors_of | tables,
        {"pairing": pairing, "rotary_dim": r},
        rotated(tokens, (4, 3), width),
        about=about,
    )


def refused(name: str, refuses: str, *, given: Mapping[str, Recipe] | None = None, **params: Any) -> Case:
    """Return a case with something wrong in otherwise right inputs."""
    right: dict[str, Recipe] = {
        "q": vectors("refused/q", 3, (2, 4), 8),
        "k": vectors("refused/k", 2, (2, 4), 8),
        "positions": rows(((0, 1, 2, 3), (4, 5, 6, 7))),
    }
    said = {"pairing": "half_split", "rotary_dim": 8, "base": 10000.0, "scaling": dict(DEFAULT)}
    return Case(f"refused-{name}", right | dict(given or {}), said | params, (), refuses=refuses)


def table_refused() -> Case:
    """Return a case whose tables have the length r, as some keep them, not r/2."""
    given: dict[str, Recipe] = {
        "q": vectors("refused-tables/q", 3, (2, 4), 8),
        "k": vectors("refused-tables/k", 2, (2, 4), 8),
    }
    tables: dict[str, Recipe] = {
        table: Dyadic((2, 4, 8), f"rotary_embedding/refused-tables/{table}", exponent=-7) for table in ("cos", "sin")
    }
    params = {"pairing": "half_split", "rotary_dim": 8}
    return Case("refused-tables", given | tables, params, (), refuses="tables of r columns for r/2 pairs")


FAR = (255, 257, 511, 2047, 2049, 3071, 4095, 4097, 8191, 8193, 32767, 65535, 65537, 99991, 131071)
PADDED = ([0, 0, 0, 0, 1, 2, 3, 4, 5], list(range(9)), [0, 0, 1, 2, 3, 4, 5, 6, 7])
LINEAR = {"rope_type": "linear", "factor": 2.5}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "max_position_embeddings": 64}
WIDE_BAND = LLAMA | {"factor": 4.0, "high_freq_factor": 32.0}
GIVEN_FACTOR = YARN | {"factor": 4.0, "attention_factor": 1.375, "beta_fast": 16.0, "beta_slow": 2.0}

CASES = (
    case("half-split", "rows that begin at 0 and at 61", (range(5), range(61, 66)), 16),
    case("interleaved", "the pairs of GPT-J", (integers("interleaved", 9, 0, 1024),), 14, pairing="interleaved"),
    case("partial", "a quarter of the dimensions, as GPT-NeoX rotates", (range(3, 8), range(290, 295)), 22,
         rotary_dim=6),
    case("partial-interleaved", "as GPT-J rotates", (integers("partial-interleaved", 11, 0, 512),), 18,
         pairing="interleaved", rotary_dim=8),
    case("far", "beside powers of two, up to 131071", (FAR, [p - 4 for p in FAR[::-1]]), 6, heads=(2, 3)),
    case("far-base", "base 500000, up to 131071", (FAR[::-1],), 10, base=5e5, pairing="interleaved"),
    case("left-padded", "rows of 6, 9 and 8 tokens, padded on the left", PADDED, 8, heads=(2, 1)),
    case("decode-one", "one token, another position in each row", ((130,), (77,), (4100,), (1023,)), 12, heads=(5, 2)),
    case("linear", "scaled by 2.5", (integers("linear/0", 5, 0, 9000), integers("linear/1", 5, 0, 9000)), 12,
         scaling=LINEAR),
    case("dynamic", "beyond a length of 64, farthest in the second row", ((3, 40, 70, 71, 99), (5, 63, 64, 65, 230)),
         16, scaling=DYNAMIC),
    case("dynamic-within", "within a length of 64: no scaling", ((3, 17, 30, 31, 49, 51),), 10, scaling=DYNAMIC),
    case("yarn", "scaled by 16", (integers("yarn", 5, 0, 65536),), 32, scaling=YARN, heads=(3, 1)),
    case("yarn-factor", "an attention factor that is given", (integers("yarn-factor", 4, 0, 16384),), 28,
         scaling=GIVEN_FACTOR, base=5e4, pairing="interleaved"),
    case("llama3", "the parameters of Llama 3.1", (integers("llama3", 3, 0, 65536),), 64, scaling=LLAMA, base=5e5,
         heads=(2, 1)),
    case("llama3-wide", "a wide band between the factors", (integers("llama3-wide", 5, 0, 32768),), 40, rotary_dim=26,
         scaling=WIDE_BAND, base=5e5, heads=(2, 1)),
    case("one-pair", "two dimensions", (integers("one-pair", 19, 0, 300),), 2),
    case("no-tokens", "nothing to rotate; frequencies all the same", ((), ()), 8),
    table_case("tables-half-split", "tables are given", (2, 5), 12, "half_split", 12),
    table_case("tables-interleaved", "tables are given, four dimensions stay", (1, 9), 14, "interleaved", 10),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows",
         (range(7), range(93, 100)), 16).fine("float64", "float32"),
    refused("rank", "q of three axes", given={"q": Dyadic((3, 4, 8), "rotary_embedding/refused/rank", exponent=-5)}),
    refused("tokens", "k of five tokens, q of four", given={"k": vectors("refused/tokens", 2, (2, 5), 8)}),
    refused("width", "k of width 6, q of width 8", given={"k": vectors("refused/width", 2, (2, 4), 6)}),
    refused("positions-shape", "positions of one row for two", given={"positions": rows(((0, 1, 2, 3),))}),
    refused("position-negative", "a position of -1", given={"positions": rows(((0, 1, 2, 3), (-1, 5, 6, 7)))}),
    refused("odd", "an odd number of rotated dimensions", rotary_dim=7),
    refused("too-many", "more rotated dimensions than there are", rotary_dim=10),
    refused("none", "no rotated dimension", rotary_dim=0),
    refused("base", "base 0", base=0.0),
    refused("pairing", "a pairing that does not exist", pairing="neox"),
    refused("type", "a rope_type that does not exist", scaling={"rope_type": "ntk", "factor": 2.0}),
    refused("factor", "a factor of 1/4, for 4", scaling={"rope_type": "linear", "factor": 0.25}),
    table_refused(),
)  # fmt: skip

PROPERTIES = (
    rows_apart(("half-split", "left-padded", "dynamic"), "q_rotated", ("q", "k", "positions")),
    rows_apart(("tables-half-split",), "q_rotated", ("q", "k", "cos", "sin")),
    repeatable(("far", "llama3"), "q_rotated"),
)
SUITE = Suite("rotary_embedding", ABOUT, CONTRACTS, CASES, outputs=("q_rotated",), packed=True, properties=PROPERTIES)
