"""Activation functions, each kind a case; the suite `gelu` looks at the two forms of GELU more closely."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Literal, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    activations(x, *, kind, alpha, beta, threshold) -> output, or {"output": output}
that is given of alpha, beta and threshold what its kind has: let them default to None. One that has some kinds alone is
checked on these: karat check py:FILE 'activations/silu*'.
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
            gelu           x (1 + erf(x / sqrt 2)) / 2
            gelu_tanh      x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
            gelu_10        gelu, at most 10
            quick_gelu     x sigmoid(1.702 x)
            laplace        (1 + erf((x - 0.707107) / (0.282095 sqrt 2))) / 2, as transformers has it
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
No x overflows, though exp(x) may. Forms that cancel, exp(x) - 1, log(1 + exp(x)), 1 + erf(x), 1 + tanh(x), x / 6 + 1/2,
pass: the tolerance is theirs. Sigmoids keep their digits, which (1 + tanh(x / 2)) / 2 does not; so does tanh near 0.
Under float16, where 16 bits could not keep them, silu, swish and quick_gelu get no x whose sigmoid is below the normal
numbers.

To be refused: an unknown kind; a parameter that the kind has and that is not given; alpha 0 in celu, beta 0 in
softplus; a negative threshold in softshrink or hardshrink.
"""

CONTRACTS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
PARAMS: Mapping[str, Mapping[str, Any]] = {
    "leaky_relu": {"alpha": 0.1875},
    "elu": {"alpha": 0.625},
    "celu": {"alpha": 1.5},
    "swish": {"beta": 1.25},
    "softplus": {"beta": 2.0, "threshold": 2.0},
    "softshrink": {"threshold": 1.25},
    "hardshrink": {"threshold": 1.25},
}
KINDS = (
    "relu", "relu_squared", "relu6", "leaky_relu", "elu", "celu", "selu", "sigmoid", "logsigmoid", "silu", "swish",
    "gelu", "gelu_tanh", "gelu_10", "quick_gelu", "laplace", "softplus", "mish", "hardsigmoid", "hardswish", "hardtanh",
    "tanh", "softsign", "softshrink", "hardshrink",
)  # fmt: skip

FAR = (0.0, 17, 18.5, 20, 24, 30, 40, 64, 80, 88, 90, 100, 104, 112, 128)


def magnitudes(largest: float, shift: int = 0) -> NDArray[Any]:
    """Return numbers of 8 bits of significand from 2^-5 to 16, and far ones, (10, 16).

    An elementwise function of one number errs in the same way whenever it meets it, and some err in the same way at
    twice the number: no number stands here twice, and no two octaves but the first and the last have a significand in
    common. `shift` chooses other significands.
    """
    octaves = np.arange(-5, 4)[:, None]  # (9, 1)
    significands = 128 + 8 * np.arange(16) + (octaves + shift) % 8  # (9, 16)
    return np.vstack([np.ldexp(significands / 128, octaves), [*FAR, largest]])


def numbers(largest: float) -> Literal:
    """Return numbers of both signs, (2, 10, 16)."""
    return written(np.stack([magnitudes(largest), -magnitudes(largest, 4)]))


def of_normal_sigmoids(octaves: int) -> Literal:
    """Return the positive ones, and the negative ones of so many octaves, (10 + octaves, 16)."""
    return written(np.vstack([magnitudes(800), -magnitudes(800, 4)[:octaves]]))


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


def case(
    name: str,
    kind: str,
    x: Literal,
    about: str = "",
    *,
    contracts: tuple[str, ...] = (),
    refuses: str = "",
    **params: Any,
) -> Case:
    """Return the case of one kind."""
    axes = ("sign", "octave", "significand")[-len(x.shape) :]
    points = () if refuses else (Checkpoint("output", x.shape, axes),)
    return Case(name, {"x": x}, {"kind": kind, **params}, points, contracts=contracts, about=about, refuses=refuses)


def refused(name: str, refuses: str, kind: str, **params: Any) -> Case:
    """Return a case that must be refused."""
    return case(f"refuse-{name}", kind, written(np.array([0.5, -0.5])), refuses=refuses, **params)


def written(x: NDArray[Any]) -> Literal:
    """Return numbers written out."""
    return Literal(nested(x.tolist()), "float32")


SMALL_SIGMOIDS = tuple(name for name in CONTRACTS if name != "float16")
"""Those that hold the sigmoid of -16 among their normal numbers, or round no sigmoid to storage."""
OCTAVES = {"silu": 8, "swish": 8, "quick_gelu": 7}
"""Kinds that multiply by a sigmoid -> how many octaves of negative numbers have a sigmoid that is normal in float16."""

CASES = (
    *(
        case(
            kind.replace("_", "-"),
            kind,
            numbers(192 if kind == "relu_squared" else 800),
            contracts=SMALL_SIGMOIDS if kind in OCTAVES else (),
            **PARAMS.get(kind, {}),
        )
        for kind in KINDS
    ),
    *(
        case(
            f"{kind.replace('_', '-')}-float16",
            kind,
            of_normal_sigmoids(count),
            "no sigmoid below float16's normal numbers",
            contracts=("float16",),
            **PARAMS.get(kind, {}),
        )
        for kind, count in OCTAVES.items()
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

EVERY = tuple(kind.replace("_", "-") for kind in KINDS)
PROPERTIES = (rows_apart(EVERY, "output", ("x",)), repeatable(EVERY, "output"))
SUITE = Suite("activations", ABOUT, CONTRACTS, CASES, packed=True, properties=PROPERTIES)
