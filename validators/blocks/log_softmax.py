"""The logarithm of the softmax along an axis."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Property, Recipe, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    log_softmax(x, *, axis, temperature) -> {"logsumexp": …, "output": …}
  x            any shape with at least one axis; -inf hides an entry
  axis         along which exp(output) adds up to 1; negative ones count from the last
  temperature  above 0; x is divided by it first
  logsumexp    log(sum(exp(x / temperature))) along the axis, which is left out, in the accumulation format; -inf for a
               slice of which all entries are hidden
  output       x / temperature - logsumexp, in the shape and format of x. A hidden entry is -inf; it stays finite where
               the softmax itself underflows to 0
A slice that is hidden altogether is NaN, as in torch and JAX (where others give -inf), and so is one with NaN in it.
Under bfloat16 and float16 every operation may be rounded to storage, x less its maximum and the logarithm of the sum
among them, as torch does; under the contracts that round once, only the output is.

To be refused: an axis that x has not; x without axes; a temperature that is not above 0.
"""

CONTRACTS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
INFINITY = float("inf")


def rows(name: str, shape: tuple[int, ...], *exponents: int) -> Dyadic:
    """Return random x, of the standard deviation 36.9 * 2^exponents[i] in slice i of the first axis."""
    return Dyadic(shape, f"log_softmax/{name}/x", exponent=0, row_exponents=exponents)


def written(values: NDArray[Any]) -> Literal:
    """Return values, exact in bfloat16 and float16, written out."""
    return Literal(nested(values.tolist()), "float32")


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


def integers(name: str, shape: tuple[int, ...], low: int, high: int) -> NDArray[Any]:
    """Return random integers in [low, high) as floats."""
    return Integers(shape, f"log_softmax/{name}/x", low, high, dtype="float64").draw()


def far(name: str) -> NDArray[Any]:
    """Return rows about numbers from -1000 to 1000, which no exponential holds, (24, 5).

    A row's outputs have one rounding error where its numbers differ by whole units of the last place: short rows.
    """
    about = np.tile([1000.0, -1000, 96, -110, 720, -760, 12, -24], 3)  # (24,)
    steps = np.tile([4.0, 4, 0.5, 0.5, 4, 4, 0.0625, 0.125], 3)  # (24,), exact there in bfloat16
    return about[:, None] + steps[:, None] * integers(name, (24, 5), -2, 4)  # (24, 5)


def masked(name: str) -> NDArray[Any]:
    """Return rows of which -inf hides all but the first entries, every second entry, all but one, and all, (9, 26)."""
    x = integers(name, (9, 26), -100, 100) / 32  # (9, 26)
    x += 20.0 * (np.arange(9) - 4)[:, None] / 4  # rows about -20 to 20, exact in bfloat16
    x = np.round(x * 8) / 8
    hidden = np.arange(26) > 3 * np.arange(9)[:, None]  # (9, 26), row i shows 3 i + 1
    hidden[5] = np.arange(26) % 2 == 0
    hidden[6, :] = np.arange(26) != 17
    hidden[[2, 7]] = True
    return np.where(hidden, -INFINITY, x)


def case(name: str, about: str, x: Recipe, *, axis: int = -1, keep: int = 0, refuses: str = "", **params: Any) -> Case:
    """Return the case of `x`; with `keep`, only so many entries of each row, the last ones, are compared."""
    params = {"axis": axis, "temperature": 1.0} | params
    points: tuple[Checkpoint, ...] = ()
    if not refuses:
        axes = ("batch", "head", "query", "key")[-len(x.shape) :]
        left, places = list(x.shape), list(axes)
        del left[axis], places[axis]
        kept = {axes[axis]: (x.shape[axis] - keep, x.shape[axis])} if keep else {}
        hidden = name in ("masked", "nan")
        points = (
            Checkpoint("logsumexp", tuple(left), tuple(places), dtype="accumulation", nonfinite=hidden),
            Checkpoint("output", x.shape, axes, keep=kept, nonfinite=hidden),
        )
    return Case(name, {"x": x}, params, points, about=about, refuses=refuses)


def refused(name: str, refuses: str, **changes: Any) -> Case:
    """Return a case that is right but for `changes`."""
    return case(f"refuse-{name}", "", refuses=refuses, **({"x": rows("refused", (4, 3), -5)} | changes))


NAN = np.where(np.eye(3, 5) > 0, np.nan, integers("nan", (3, 5), -60, 60) / 16)
NAN[1] = [0.5, -1.25, 2, 0.75, -0.375]
APART = integers("apart", (7, 19), -120, 121) * np.array([[8.0], [0.5], [2], [0.0625], [8], [1], [4]])  # (7, 19)
CASES = (
    case("rows", "two axes", rows("rows", (19, 37), -4, -5, -2), axis=1),
    case("first-axis", "along the first axis", rows("first-axis", (23, 17), -4), axis=0),
    case("middle-axis", "along the axis before the last, counted from the last", rows("middle-axis", (3, 14, 9), -4),
         axis=-2),
    case("attention", "four axes", rows("attention", (2, 3, 5, 11), -4, -3)),
    case("sharp", "temperature 0.6875", rows("sharp", (9, 31), -4, -2), temperature=0.6875),
    case("flat", "temperature 5, along the second axis of three", rows("flat", (2, 13, 10), -3, -4), axis=1,
         temperature=5.0),
    case("far", "about 1000 and -1000: no exponential without subtracting the maximum", written(far("far"))),
    case("apart", "entries up to 1900 apart: the softmax underflows, its logarithm does not", written(APART)),
    case("masked", "entries hidden by -inf, two rows of them altogether", written(masked("masked"))),
    case("nan", "a NaN spoils its row", written(NAN)),
    case("long", "4099 entries, of which 61 are compared", rows("long", (4099, 5), *range(-11, -3)), axis=0, keep=61,
         temperature=0.6875),
    case("one-entry", "rows of one entry: 0", rows("one-entry", (31, 1), -3)),
    case("vector", "one axis", rows("vector", (53,), -4), axis=0),
    case("no-rows", "nothing to add up", rows("no-rows", (0, 7), -4)),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows",
         rows("fine", (17, 29), -4, -5), axis=1).fine("float64", "float32"),
    refused("axis", "axis 2 of two", axis=2),
    refused("axis-negative", "axis -3 of two", axis=-3),
    refused("scalar", "x without axes", x=rows("refused-scalar", ())),
    refused("temperature-zero", "temperature 0", temperature=0.0),
    refused("temperature-negative", "temperature -1", temperature=-1.0),
)  # fmt: skip


def sums(first: Mapping[str, Any], _: Mapping[str, Any], __: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the logarithms of the sums of exp(output) along the last axis, and 0: no error is larger than a term's."""
    return np.log(np.exp(first["output"].astype(np.float64)).sum(-1)), 0.0


PROPERTIES = (
    rows_apart(("attention",), "output", ("x",)),
    Property("sums-to-1", "the softmax adds up to 1", ("attention", "sharp"), "output", compared=sums),
    Property(
        "order-of-entries",
        "the order of the entries does not matter",
        ("attention", "sharp"),
        "output",
        lambda given: {"x": given["x"][..., ::-1].copy()},
        lambda first, second, _: (second["output"], first["output"][..., ::-1]),
    ),
    repeatable(("attention", "long"), "output"),
)
SUITE = Suite("log_softmax", ABOUT, CONTRACTS, CASES, outputs=("output",), packed=True, properties=PROPERTIES)
