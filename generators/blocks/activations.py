"""The reference of the suite `activations`: torch operations in float64 on the CPU.

Source: torch.nn.functional, written out; transformers, activations.py (relu_squared, laplace, the kinds of gelu). The
golden comes from forms that cancel nothing, such as expm1; the noise from those that cancel and are allowed, such as
exp(x) - 1.
"""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]
Function = Callable[[Any], Any]

ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # of SELU: Klambauer et al. 2017, equation 2
CANCEL_IN_TORCH = ("gelu", "gelu_tanh", "gelu_10", "laplace")


class Forms(NamedTuple):
    """What may be computed in more than one way."""

    expm1: Function
    """exp(x) - 1."""
    softplus: Function
    """log(1 + exp(x))."""
    sigmoid: Function
    normal: Function
    """The distribution function of the normal distribution."""
    tanh: Function
    """(1 + tanh(x)) / 2."""
    hardsigmoid: Function


EXACT = Forms(
    torch.expm1,
    lambda z: z.clamp_min(0) + torch.log1p(torch.exp(-z.abs())),
    torch.sigmoid,
    lambda z: 0.5 * torch.erfc(-z / math.sqrt(2)),
    lambda z: torch.sigmoid(2 * z),
    lambda z: (z + 3).clamp(0, 6) / 6,
)
CANCELLING = Forms(
    lambda z: torch.exp(z) - 1,
    lambda z: torch.where(z > 40, z, torch.log(1 + torch.exp(z.clamp_max(40)))),
    lambda z: 1 / (1 + torch.exp(-z)),
    lambda z: 0.5 * (1 + torch.erf(z / math.sqrt(2))),
    lambda z: 0.5 * (1 + torch.tanh(z)),
    lambda z: (z * torch.tensor(6.0, dtype=z.dtype).reciprocal() + 0.5).clamp(0, 1),
)


def activations(x: torch.Tensor, *, kind: str, **params: float) -> torch.Tensor:
    """Return the activation called `kind`, the shape of `x`."""
    return computed(x, kind, EXACT, **params)


def cancelling(x: torch.Tensor, *, kind: str, **params: float) -> torch.Tensor:
    """Return it from forms that cancel."""
    return computed(x, kind, CANCELLING, **params)


def computed(
    x: torch.Tensor, kind: str, forms: Forms, alpha: float = 1.0, beta: float = 1.0, threshold: float = 20.0
) -> torch.Tensor:
    """Return the activation called `kind`, from these forms."""
    below = x.clamp_max(0)
    return {
        "relu": lambda: torch.relu(x),
        "relu_squared": lambda: torch.relu(x).square(),
        "relu6": lambda: x.clamp(0, 6),
        "leaky_relu": lambda: torch.where(x > 0, x, alpha * x),
        "elu": lambda: torch.where(x > 0, x, alpha * forms.expm1(below)),
        "celu": lambda: torch.where(x > 0, x, alpha * forms.expm1(below / alpha)),
        "selu": lambda: torch.where(x > 0, SCALE * x, SCALE * (ALPHA * forms.expm1(below))),
        "sigmoid": lambda: forms.sigmoid(x),
        "logsigmoid": lambda: -forms.softplus(-x),
        "silu": lambda: x * forms.sigmoid(x),
        "swish": lambda: x * forms.sigmoid(beta * x),
        "gelu": lambda: x * forms.normal(x),
        "gelu_tanh": lambda: x * forms.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))),
        "gelu_10": lambda: (x * forms.normal(x)).clamp(-10, 10),
        "quick_gelu": lambda: x * forms.sigmoid(1.702 * x),
        "laplace": lambda: forms.normal((x - 0.707107) / 0.282095),
        "softplus": lambda: torch.where(x > threshold / beta, x, forms.softplus(beta * x) / beta),
        "mish": lambda: x * torch.tanh(forms.softplus(x)),
        "hardsigmoid": lambda: forms.hardsigmoid(x),
        "hardswish": lambda: x * forms.hardsigmoid(x),
        "hardtanh": lambda: x.clamp(-1, 1),
        "tanh": lambda: torch.tanh(x),
        "softsign": lambda: x / (1 + x.abs()),
        "softshrink": lambda: torch.where(
            x > threshold, x - threshold, torch.where(x < -threshold, x + threshold, 0.0)
        ),
        "hardshrink": lambda: torch.where(x.abs() > threshold, x, 0.0),
    }[kind]()


# --- what must hold of the goldens -----------------------------------------------------------------------------------


def in_torch(
    x: torch.Tensor, kind: str, alpha: float = 1.0, beta: float = 1.0, threshold: float = 20.0
) -> torch.Tensor:
    """Return what torch itself has."""
    F = torch.nn.functional
    return {
        "relu_squared": lambda: F.relu(x) ** 2,
        "leaky_relu": lambda: F.leaky_relu(x, alpha),
        "elu": lambda: F.elu(x, alpha),
        "celu": lambda: F.celu(x, alpha),
        "swish": lambda: x * torch.sigmoid(beta * x),
        "gelu_tanh": lambda: F.gelu(x, approximate="tanh"),
        "gelu_10": lambda: F.gelu(x).clamp(-10, 10),
        "quick_gelu": lambda: x * torch.sigmoid(1.702 * x),
        "laplace": lambda: 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2)))),
        "softplus": lambda: F.softplus(x, beta, threshold),
        "softshrink": lambda: F.softshrink(x, threshold),
        "hardshrink": lambda: F.hardshrink(x, threshold),
    }.get(kind, lambda: getattr(F, kind)(x))()


def of_torch(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output, and torch's."""
    if not golden:
        return None
    params = {name: given[name] for name in ("alpha", "beta", "threshold") if name in given}
    wanted = in_torch(torch.from_numpy(given["x"]), given["kind"], **params).numpy()
    size = np.maximum(np.abs(given["x"]), 1) if given["kind"] in CANCEL_IN_TORCH else np.abs(wanted)
    return golden["output"], wanted, 1e-14 * size + 1e-300


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output, and the definition in decimal arithmetic of 150 digits, of kinds that are smooth."""
    formula = SMOOTH.get(given["kind"])
    if not golden or formula is None or not given["x"].size:
        return None
    params = {name: Decimal(given[name]) for name in ("alpha", "beta", "threshold") if name in given}
    chosen = np.abs(given["x"]) <= 130
    with localcontext(prec=150):
        wanted = np.vectorize(lambda value: float(formula(Decimal(value), **params)))(given["x"][chosen])
    return golden["output"][chosen], wanted, near(wanted)


def near(wanted: Array) -> Array:
    """Return 1e-14 of it for each e by which it is smaller or larger than 1: exp(x) errs by |x| times what x does."""
    size = np.maximum(np.abs(wanted), 1e-300)
    return 1e-14 * size * (1 + np.abs(np.log(size))) + 1e-300


def tanh(d: Decimal) -> Decimal:
    """Return the hyperbolic tangent."""
    return ((2 * d).exp() - 1) / ((2 * d).exp() + 1)


PI = Decimal("3.14159265358979323846264338327950288419716939937511")
SMOOTH: Mapping[str, Callable[..., Decimal]] = {
    "sigmoid": lambda d: 1 / (1 + (-d).exp()),
    "silu": lambda d: d / (1 + (-d).exp()),
    "swish": lambda d, beta: d / (1 + (-beta * d).exp()),
    "quick_gelu": lambda d: d / (1 + (-Decimal(1702) / 1000 * d).exp()),
    "logsigmoid": lambda d: -(1 + (-d).exp()).ln(),
    "mish": lambda d: d * (((1 + d.exp()) ** 2 - 1) / ((1 + d.exp()) ** 2 + 1)),
    "tanh": tanh,
    "softsign": lambda d: d / (1 + abs(d)),
    "gelu_tanh": lambda d: d / (1 + (-2 * (2 / PI).sqrt() * (d + Decimal("0.044715") * d**3)).exp()),
    "elu": lambda d, alpha: d if d > 0 else alpha * (d.exp() - 1),
    "celu": lambda d, alpha: d if d > 0 else alpha * ((d / alpha).exp() - 1),
    "selu": lambda d: Decimal(SCALE) * (d if d > 0 else Decimal(ALPHA) * (d.exp() - 1)),
    "softplus": lambda d, beta, threshold: d if beta * d > threshold else (1 + (beta * d).exp()).ln() / beta,
}


def of_scipy(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output, and SciPy's, of the kinds that it has."""
    ndtr = scipy.special.ndtr
    functions = {
        "sigmoid": scipy.special.expit,
        "logsigmoid": scipy.special.log_expit,
        "gelu": lambda x: x * ndtr(x),
        "gelu_10": lambda x: np.minimum(x * ndtr(x), 10),
        "laplace": lambda x: ndtr((x - 0.707107) / 0.282095),
    }
    if not golden or given["kind"] not in functions:
        return None
    wanted = functions[given["kind"]](given["x"])
    return golden["output"], wanted, near(wanted)


def fixed_point(given: Given, golden: Goldens) -> tuple[Array, float, float] | None:
    """Return the outputs of 0, of most kinds 0 too."""
    if not golden:
        return None
    beta = given.get("beta", 1.0)
    value = {"sigmoid": 0.5, "hardsigmoid": 0.5, "logsigmoid": -math.log(2), "softplus": math.log(2) / beta}
    value["laplace"] = math.erfc(0.707107 / 0.282095 / math.sqrt(2)) / 2
    return golden["output"][given["x"] == 0], value.get(given["kind"], 0.0), 1e-16


RELATIONS = {
    "is torch's own, to 1e-14 of itself, or of x where torch's form cancels": of_torch,
    "is the definition in 150 decimal digits, to 1e-14 for each power of e, of x to 130 where it is smooth": in_decimal,
    "is of scipy.special.expit, log_expit or ndtr, to 1e-14 for each power of e": of_scipy,
    "0 gives 0, 1/2, a logarithm of 2 or what erfc says, to 1e-16": fixed_point,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, activations, RELATIONS, versions=("torch", "scipy")
)
perturbed = operation.generator(__file__, cancelling, RELATIONS).perturbed
