"""Activation functions, each a case of one suite; GELU has a suite of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Literal, Suite

ABOUT = """\
A py: candidate is a function
    activations(x, *, kind, alpha, beta, threshold) -> output, or {"output": output}
that is given of alpha, beta and threshold what its kind has: let them default to None.
  x         any shape
  kind      relu           max(x, 0)
            relu_squared   max(x, 0)^2
            relu6          min(max(x, 0), 6)
            leaky_relu     x above 0, else alpha x; alpha may be above 1
            elu            x above 0, else alpha (exp(x) - 1)
            celu           max(x, 0) + min(0, alpha (exp(x / alpha) - 1))
            selu           1.0507009873554805 x above 0, else 1.0507009873554805 * 1.6732632423543772 (exp(x) - 1)
            sigmoid        1 / (1 + exp(-x))
            logsigmoid     -log(1 + exp(-x))
            silu           x sigmoid(x)
            swish          x sigmoid(beta x)
            quick_gelu     x sigmoid(1.702 x)
            softplus       x where beta x is above threshold, else log(1 + exp(beta x)) / beta
            mish           x tanh(log(1 + exp(x)))
            hardsigmoid    min(max(x + 3, 0), 6) / 6, as torch has it
            hardswish      x hardsigmoid(x)
            hardtanh       min(max(x, -1), 1)
            tanh           (exp(2 x) - 1) / (exp(2 x) + 1)
            softsign       x / (1 + |x|)
            softshrink     x - threshold above it, x + threshold below -threshold, else 0
            hardshrink     x where |x| is above threshold, else 0
  output    in the shape and format of x
No x overflows, though exp(x) may. Forms that cancel, exp(x) - 1 for expm1 and log(1 + exp(x)) for log1p, pass: the
tolerance is theirs. tanh must keep its digits near 0.

To be refused: an unknown kind; a parameter that the kind has and that is not given; alpha 0 in celu, beta 0 in
softplus; a negative threshold in softshrink or hardshrink.
"""

CONTRACTS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
PARAMS: Mapping[str, Mapping[str, Any]] = {
    "leaky_relu": {"alpha": 0.1875},
    "elu": {"alpha": 0.625},
    "celu": {"alpha": 1.5},
    "swish": {"beta": 1.25},
    "softplus": {"beta": 2.0, "threshold": 3.0},
    "softshrink": {"threshold": 0.75},
    "hardshrink": {"threshold": 0.75},
}
KINDS = (
    "relu", "relu_squared", "relu6", "leaky_relu", "elu", "celu", "selu", "sigmoid", "logsigmoid", "silu", "swish",
    "quick_gelu", "softplus", "mish", "hardsigmoid", "hardswish", "hardtanh", "tanh", "softsign", "softshrink",
    "hardshrink",
)  # fmt: skip


def numbers(largest: float) -> Literal:
    """Return numbers of both signs from 2^-5 to 16, 5 bits of significand, and far ones, (2, 10, 16); none twice.

    An elementwise function of one number errs in the same way whenever it meets it.
    """
    octaves = np.ldexp(np.arange(16, 32) / 16, np.arange(-5, 4)[:, None])  # (9, 16)
    far = [0.0, 17, 18.5, 20, 24, 30, 40, 64, 80, 88, 90, 100, 104, 112, 128, largest]
    both = np.stack([np.vstack([octaves, far]), -np.vstack([octaves, far])])  # (2, 10, 16)
    return Literal(nested(both.tolist()), "float32")


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


def case(name: str, kind: str, x: Literal, about: str = "", refuses: str = "", **params: Any) -> Case:
    """Return the case of one kind."""
    axes = ("sign", "octave", "significand")[-len(x.shape) :]
    points = () if refuses else (Checkpoint("output", x.shape, axes),)
    return Case(name, {"x": x}, {"kind": kind, **params}, points, about=about, refuses=refuses)


def refused(name: str, refuses: str, kind: str, **params: Any) -> Case:
    """Return a case that must be refused."""
    return case(f"refuse-{name}", kind, written(np.array([0.5, -0.5])), refuses=refuses, **params)


def written(x: NDArray[Any]) -> Literal:
    """Return numbers written out."""
    return Literal(nested(x.tolist()), "float32")


CASES = (
    *(
        case(kind.replace("_", "-"), kind, numbers(192 if kind == "relu_squared" else 800), **PARAMS.get(kind, {}))
        for kind in KINDS
    ),
    case("leaky-relu-steep", "leaky_relu", numbers(800), "alpha above 1: no maximum of x and alpha x", alpha=1.25),
    case("softplus-default", "softplus", numbers(800), "torch's default", beta=1.0, threshold=20.0),
    case("no-numbers", "mish", Literal(((), ()), "float32"), "an empty array"),
    refused("kind", "kind is 'gelu_new'", "gelu_new"),
    refused("alpha-missing", "elu without alpha", "elu"),
    refused("threshold-missing", "softplus without threshold", "softplus", beta=1.0),
    refused("celu-alpha-0", "celu with alpha 0", "celu", alpha=0.0),
    refused("softplus-beta-0", "softplus with beta 0", "softplus", beta=0.0, threshold=20.0),
    refused("threshold-negative", "softshrink with a threshold of -1/2", "softshrink", threshold=-0.5),
)

SUITE = Suite("activations", ABOUT, CONTRACTS, CASES, packed=True)
