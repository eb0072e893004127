"""RMSNorm over the last axis (Zhang and Sennrich 2019). Symbols: B batch, T tokens, D width."""

from typing import Any

from karat import Case, Checkpoint, Dyadic, Literal, Recipe, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    rms_norm(x, weight, *, epsilon, epsilon_is, weight_is) -> {"inverse_rms": …, "output": …}
  x            (..., D), normalised over its last axis; there may be no rows
  weight       (D,)
  epsilon      not negative
  epsilon_is   where epsilon is added:
               "inside_root"   inverse_rms = 1 / sqrt(mean(x^2) + epsilon), as in Llama, Gemma, T5 and torch
               "outside_root"  inverse_rms = 1 / (sqrt(mean(x^2)) + epsilon), as in the paper's own code
  weight_is    what the weight is:
               "factor"           output = x * inverse_rms * weight, as in Llama
               "factor_less_one"  output = x * inverse_rms * (1 + weight), as in Gemma
  inverse_rms  (...), without the last axis, in the accumulation format
  output       in the shape and format of x
The mean is over all D channels, and nothing is subtracted. A row of zeros gives zeros.

Llama rounds x * inverse_rms to storage before the weight multiplies, Gemma after: under bfloat16 and float16 both are
right, under the contracts that round once only Gemma's order is.

To be refused: a weight that is not (D,), even one that would broadcast; rows of no channels; x without axes; an epsilon
that is negative or NaN; an unknown epsilon_is or weight_is.
"""

CONTRACTS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
AXES = ("batch", "token", "channel")


def rows(name: str, shape: tuple[int, ...], *exponents: int, offset: int = 0) -> Dyadic:
    """Return rows, i of the mean offset * 2^exponents[i] and the standard deviation 36.9 * 2^exponents[i]."""
    return Dyadic(shape, f"rms_norm/{name}/x", exponent=0, offset=offset, row_exponents=exponents)


def weights(name: str, width: int, weight_is: str) -> Dyadic:
    """Return random factors about 1, or what is left of them less 1, (D,)."""
    about_1 = weight_is == "factor"
    return Dyadic((width,), f"rms_norm/{name}/weight", exponent=-7, offset=128 * about_1, narrow=True)


def case(name: str, about: str, x: Recipe, *, keep: int = 0, refuses: str = "", **params: Any) -> Case:
    """Return the case of `x`; with `keep`, of the output only so many channels, the last ones, are compared."""
    params = {"epsilon": 1e-6, "epsilon_is": "inside_root", "weight_is": "factor", **params}
    weight = params.pop("weight", None) or weights(name, x.shape[-1], params["weight_is"])
    kept = {"channel": (x.shape[-1] - keep, x.shape[-1])} if keep else {}
    axes = AXES[-len(x.shape) :]
    return Case(
        name,
        {"x": x, "weight": weight},
        params,
        ()
        if refuses
        else (
            Checkpoint("inverse_rms", x.shape[:-1], axes[:-1], dtype="accumulation"),
            Checkpoint("output", x.shape, axes, keep=kept),
        ),
        about=about,
        refuses=refuses,
    )


def refused(name: str, refuses: str, *, shape: tuple[int, ...] = (4, 5), **params: Any) -> Case:
    """Return a case that is right but for `shape` or `params`."""
    weight = params.pop("weight", None) or weights("refused", 5, "factor")
    return case(f"refuse-{name}", "", rows("refused", shape), refuses=refuses, weight=weight, **params)


ZEROS = Literal(((0.0,) * 9, (1.0, -2.0, 0.5, 3.0, -0.25, 0.75, -1.5, 2.5, -4.0), (0.0,) * 9), "float32")
CASES = (
    case("decades", "RMS from 9e-6 to 9: epsilon shows", rows("decades", (21, 37), *range(-22, -1))),
    case("decades-outside", "RMS from 2e-6 to 1: epsilon outside the root", rows("outside", (20, 31), *range(-24, -4)),
         epsilon=1e-5, epsilon_is="outside_root"),
    case("factor-less-one", "the weight as Gemma stores it", rows("gemma", (2, 9, 33), -5, -14, offset=20),
         weight_is="factor_less_one"),
    case("factor-less-one-outside", "both other conventions", rows("gemma-outside", (12, 27), -6, -19, -16),
         epsilon_is="outside_root", weight_is="factor_less_one"),
    case("larger-epsilon", "epsilon 1e-5, as in Llama 2", rows("larger", (3, 5, 29), -14, -4, -12), epsilon=1e-5),
    case("mean", "means of 2 standard deviations: nothing is subtracted", rows("mean", (9, 43), -7, -12, offset=74)),
    case("narrow", "three channels", rows("narrow", (60, 3), -5, -13, offset=10)),
    case("one-channel", "the sign of x, where epsilon is small", rows("one-channel", (47, 1), -5, -12, -15, offset=5)),
    case("wide", "the width of Llama 3 and 3 more; 61 channels are compared", rows("wide", (5, 4099), -5, -11, -14),
         keep=61),
    case("large", "to 16,000, squares beyond float16, and epsilon 0", rows("large", (7, 45), 7, 3, -15), epsilon=0.0),
    case("zeros", "rows of zeros", ZEROS),
    case("vector", "no leading axis", rows("vector", (53,), -12)),
    case("no-rows", "nothing to normalise", rows("no-rows", (0, 7), -5)),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows",
         rows("fine", (14, 41), -5, -9)).fine("float64", "float32"),
    refused("weight-length", "4 weights for 5 channels", weight=weights("refused-short", 4, "factor")),
    refused("weight-broadcast", "one weight for 5 channels", weight=weights("refused-one", 1, "factor")),
    refused("weight-rank", "a weight for each element", weight=rows("refused-weight", (4, 5))),
    refused("no-channels", "rows of no channels", shape=(4, 0), weight=rows("refused-none", (0,))),
    refused("scalar", "x without axes", shape=(), weight=weights("refused-one", 1, "factor")),
    refused("epsilon-negative", "epsilon -1e-6", epsilon=-1e-6),
    refused("epsilon-is", "epsilon_is is 'outside'", epsilon_is="outside"),
    refused("weight-is", "weight_is is 'gemma'", weight_is="gemma"),
)  # fmt: skip

PROPERTIES = (rows_apart(("decades", "factor-less-one"), "output", ("x",)), repeatable(("wide",), "output"))
SUITE = Suite("rms_norm", ABOUT, CONTRACTS, CASES, outputs=("output",), packed=True, properties=PROPERTIES)
