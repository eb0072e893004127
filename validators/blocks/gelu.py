"""GELU, the Gaussian error linear unit, by its tanh formula and by erf (Hendrycks and Gimpel 2016)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Literal, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    gelu(x, *, approximate) -> output, or {"output": output}
  x            any shape
  approximate  "tanh": x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, as GPT-2 has it
               "none": x (1 + erf(x / sqrt 2)) / 2
output is in the shape and format of x.
"""

FROM_16_BITS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
FLOAT16 = ("float64", "float32", "float16", "float16-once")
FLOAT8 = ("float8_e4m3", "float8_e5m2")
CONTRACTS = (*FROM_16_BITS, *FLOAT8)


def octaves(low: int, high: int, bits: int) -> NDArray[Any]:
    """Return every number of `bits` significand bits from 2^low up to 2^high, (high - low, 2^(bits - 1)).

    An elementwise function of one number errs in the same way whenever it meets it, so no number stands here twice.
    """
    significands = np.arange(2 ** (bits - 1), 2**bits) / 2 ** (bits - 1)  # in [1, 2)
    numbers: NDArray[Any] = np.ldexp(significands, np.arange(low, high)[:, None])
    return numbers


def case(
    name: str, approximate: str, x: NDArray[Any], axes: tuple[str, ...], contracts: tuple[str, ...], about: str
) -> Case:
    """Return one case."""
    return Case(
        f"{name}-{approximate}",
        {"x": Literal(nested(x.tolist()), "float32")},
        {"approximate": approximate},
        (Checkpoint("output", x.shape, axes),),
        contracts=contracts,
        about=about,
    )


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


def cases(approximate: str) -> tuple[Case, ...]:
    """Return the cases of one of the two formulas.

    Where the formulas agree to 16 bits, the other one has the numbers in the opposite order: what a case leaves behind
    is wrong in the other.
    """
    ordered = np.flip if approximate == "none" else np.asarray
    tail = ordered(-octaves(-2, 3, 8))  # (5, 128)
    both = ordered([octaves(-20, 5, 5), -octaves(-20, 5, 5)])  # (2, 25, 16)
    edges = ordered([[[0.0, -0.0, 2.0**-24, -(2.0**-24), 12, -12, 100, -100]]])  # (1, 1, 8)
    float8 = ordered([octaves(-7, 8, 3), -octaves(-7, 8, 3)])  # (2, 15, 4)
    axes = ("sign", "octave", "significand")
    return (
        case("tail", approximate, tail, axes[1:], FROM_16_BITS, "every bfloat16 number in (-8, -1/4]"),
        case("tail-float16", approximate, -octaves(0, 2, 10), axes[1:], FLOAT16, "10 of float16's 11 bits in (-4, -1]"),
        case("magnitudes", approximate, both, axes, FROM_16_BITS, "both signs, from 2^-20 to 2^5"),
        case(
            "edges", approximate, edges, ("batch", "token", "channel"), FROM_16_BITS, "zeros of both signs, far tails"
        ),
        case("float8", approximate, float8, axes, FLOAT8, "every number of 3 bits from 2^-7 to 2^8"),
    )


BOTH = ("magnitudes-tanh", "magnitudes-none")
PROPERTIES = (rows_apart(BOTH, "output", ("x",)), repeatable(BOTH, "output"))
SUITE = Suite("gelu", ABOUT, CONTRACTS, cases("tanh") + cases("none"), packed=True, properties=PROPERTIES)
