"""LayerNorm over the last axis (Ba, Kiros and Hinton 2016). Symbols: B batch, T tokens, D width."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    layer_norm(x, weight, bias, *, epsilon) -> output, or {"output": output}
  x             (..., D), normalised over its last axis
  weight, bias  (D,)
  epsilon       added to the biased variance, under the root
output = (x - mean) / sqrt(variance + epsilon) * weight + bias, in the shape and format of x.
"""

FROM_16_BITS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
FLOAT8 = ("float8_e4m3", "float8_e5m2")
CONTRACTS = (*FROM_16_BITS, *FLOAT8)
AXES = ("batch", "token", "channel")


def case(name: str, about: str, x: Recipe, *, epsilon: float = 1e-5) -> Case:
    """Return the case of `x` with a random weight about 1 and a random bias, exact in bfloat16 and float16."""
    D = x.shape[-1]
    return Case(
        name,
        {
            "x": x,
            "weight": Dyadic((D,), f"layer_norm/{name}/weight", exponent=-7, offset=128, narrow=True),
            "bias": Dyadic((D,), f"layer_norm/{name}/bias", exponent=-7),
        },
        {"epsilon": epsilon},
        (Checkpoint("output", x.shape, AXES[-len(x.shape) :]),),
        contracts=FROM_16_BITS,
        about=about,
    )


def dyadic(name: str, shape: tuple[int, ...], row_exponents: tuple[int, ...], offset: int = 0) -> Dyadic:
    """Return rows, i of the mean offset * 2^row_exponents[i] and the standard deviation 36.9 * 2^row_exponents[i]."""
    return Dyadic(shape, f"layer_norm/{name}/x", exponent=0, offset=offset, row_exponents=row_exponents)


def rows(values: NDArray[Any]) -> Literal:
    """Return the recipe of rows written out."""
    return Literal(tuple(map(tuple, values.tolist())), "float32")


def float8_rows(name: str) -> Literal:
    """Return rows of integers from -3 to 3 times 2^-9, 2^-9 and 2^6, in turn, (24, 13)."""
    integers = Integers((24, 13), f"layer_norm/{name}/x", -3, 4).draw()  # (24, 13)
    return rows(integers * np.tile([[2.0**-9], [2.0**-9], [2.0**6]], (8, 1)))


def float8_case(name: str, about: str, x: Recipe, *, epsilon: float = 1e-5) -> Case:
    """Return the case of `x` with weights about 1 and biases that both float8 formats hold, 3 bits of significand."""
    D = x.shape[-1]
    weight = Integers((D,), f"layer_norm/{name}/weight", 4, 8).draw() / 4  # (D,): 1 … 1.75
    bias = Integers((D,), f"layer_norm/{name}/bias", -7, 8).draw() / 4  # (D,): -1.75 … 1.75
    return Case(
        name,
        {
            "x": x,
            "weight": Literal(tuple(weight.tolist()), "float32"),
            "bias": Literal(tuple(bias.tolist()), "float32"),
        },
        {"epsilon": epsilon},
        (Checkpoint("output", x.shape, AXES[-len(x.shape) :]),),
        contracts=FLOAT8,
        about=about,
    )


# Widths are odd, and no dimension equals another or is a power of two, but for the true width of GPT-2.
CASES = (
    case("decades", "variances from 5e-9 to 5e3: epsilon shows", dyadic("decades", (63, 37), tuple(range(-19, 2)))),
    case("narrow", "five channels: N - 1 shows", dyadic("narrow", (210, 5), (-5, -12, -14))),
    case("wide", "the width of GPT-2", dyadic("wide", (6, 768), (-6, -13, -14))),
    # Larger means would forbid E[x^2] - mean^2 in float32, which is correct where it is well-conditioned.
    case("large-mean", "means of 3 standard deviations", dyadic("large-mean", (21, 45), (-8, -13), offset=111)),
    case("batch", "three axes", dyadic("batch", (3, 7, 29), (-5, -15, -10), offset=111)),
    case("one-row", "leading axes of length 1", dyadic("one-row", (1, 1, 41), (-13,))),
    case("constant-rows", "variance 0: the output is the bias", rows(np.full((4, 11), [[0.0], [1], [-3.5], [96]]))),
    case("other-epsilon", "epsilon as Keras has it", dyadic("other-epsilon", (19, 23), (-10, -8)), epsilon=1e-3),
    float8_case("float8", "integers of 3 bits", Integers((48, 53), "layer_norm/float8/x", -7, 8, dtype="float32")),
    float8_case("float8-decades", "variances of 1e-5, near epsilon, and of 2e4", float8_rows("float8-decades")),
    float8_case("float8-epsilon", "epsilon as Keras has it", float8_rows("float8-epsilon"), epsilon=1e-3),
    case(
        "fine", "inputs of full float32 width: what is rounded on the way in shows", dyadic("fine", (15, 43), (-6, -9))
    ).fine("float64", "float32"),
)

PROPERTIES = (rows_apart(("decades", "batch"), "output", ("x",)), repeatable(("wide",), "output"))
SUITE = Suite("layer_norm", ABOUT, CONTRACTS, CASES, packed=True, properties=PROPERTIES)
