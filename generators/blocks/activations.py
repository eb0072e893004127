"""The reference of the suite `activations`: torch operations in float64 on the CPU.

Source: torch.nn.functional, written out; transformers, activations.py (relu_squared, quick_gelu). The golden comes from
forms that cancel nothing, expm1 and log1p; the noise from exp(x) - 1 and log(1 + exp(x)), which are allowed.
"""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor

from karat.freeze import beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]
Goldens = Mapping[str, Array]

ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # of SELU: Klambauer et al. 2017, equation 2


def activations(x: Tensor, *, kind: str, **params: float) -> Tensor:
    """Return the activation called `kind`, the shape of `x`."""
    return computed(x, kind, torch.expm1, lambda z: z.clamp_min(0) + torch.log1p(torch.exp(-z.abs())), **params)


def cancelling(x: Tensor, *, kind: str, **params: float) -> Tensor:
    """Return it from exp(x) - 1 and log(1 + exp(x))."""
    return computed(x, kind, lambda z: torch.exp(z) - 1, grown, **params)


def grown(z: Tensor) -> Tensor:
    """Return log(1 + exp(z)), z itself where exp(z) is far above 1."""
    return torch.where(z > 20, z, torch.log(1 + torch.exp(z.clamp_max(20))))


def computed(
    x: Tensor, kind: str, expm1: Callable[[Tensor], Tensor], log_of_1_plus_exp: Callable[[Tensor], Tensor],
    alpha: float = 1.0, beta: float = 1.0, threshold: float = 20.0,
) -> Tensor:  # fmt: skip
    """Return the activation called `kind`, with these two functions."""
    below = x.clamp_max(0)
    sigmoid = 1 / (1 + torch.exp(-(1.702 if kind == "quick_gelu" else beta) * x))
    soft = log_of_1_plus_exp(beta * x if kind == "softplus" else x)
    return {
        "relu": lambda: torch.relu(x),
        "relu_squared": lambda: torch.relu(x).square(),
        "relu6": lambda: x.clamp(0, 6),
        "leaky_relu": lambda: torch.where(x > 0, x, alpha * x),
        "elu": lambda: torch.where(x > 0, x, alpha * expm1(below)),
        "celu": lambda: torch.where(x > 0, x, alpha * expm1(below / alpha)),
        "selu": lambda: torch.where(x > 0, SCALE * x, SCALE * (ALPHA * expm1(below))),
        "sigmoid": lambda: sigmoid,
        "logsigmoid": lambda: -log_of_1_plus_exp(-x),
        "silu": lambda: x * sigmoid,
        "swish": lambda: x * sigmoid,
        "quick_gelu": lambda: x * sigmoid,
        "softplus": lambda: torch.where(beta * x > threshold, x, soft / beta),
        "mish": lambda: x * torch.tanh(soft),
        "hardsigmoid": lambda: (x + 3).clamp(0, 6) / 6,
        "hardswish": lambda: x * ((x + 3).clamp(0, 6) / 6),
        "hardtanh": lambda: x.clamp(-1, 1),
        "tanh": lambda: torch.tanh(x),
        "softsign": lambda: x / (1 + x.abs()),
        "softshrink": lambda: torch.where(
            x > threshold, x - threshold, torch.where(x < -threshold, x + threshold, 0.0)
        ),
        "hardshrink": lambda: torch.where(x.abs() > threshold, x, 0.0),
    }[kind]()


FACTOR = 1.702
QUICK = Decimal(FACTOR)  # as float64 has it

# --- what must hold of the goldens -----------------------------------------------------------------------------------


def in_torch(x: Tensor, kind: str, alpha: float = 1.0, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return what torch itself has."""
    F = torch.nn.functional
    return {
        "relu_squared": lambda: F.relu(x) ** 2,
        "leaky_relu": lambda: F.leaky_relu(x, alpha),
        "elu": lambda: F.elu(x, alpha),
        "celu": lambda: F.celu(x, alpha),
        "swish": lambda: x * torch.sigmoid(beta * x),
        "quick_gelu": lambda: x * torch.sigmoid(1.702 * x),
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
    return golden["output"], wanted, 1e-14 * np.abs(wanted) + 1e-300


def in_decimal(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output, and the definition in decimal arithmetic of 400 digits, of kinds that are smooth."""
    formula = SMOOTH.get(given["kind"])
    if not golden or formula is None or not given["x"].size:
        return None
    params = {name: Decimal(given[name]) for name in ("alpha", "beta", "threshold") if name in given}
    with localcontext(prec=720, Emin=-10000, Emax=10000):
        wanted = np.vectorize(lambda value: float(formula(Decimal(value), **params)))(given["x"])
    return golden["output"], wanted, 1e-14 * np.abs(wanted) + 1e-300


def tanh(d: Decimal) -> Decimal:
    """Return the hyperbolic tangent."""
    return ((2 * d).exp() - 1) / ((2 * d).exp() + 1)


SMOOTH: Mapping[str, Callable[..., Decimal]] = {
    "sigmoid": lambda d: 1 / (1 + (-d).exp()),
    "silu": lambda d: d / (1 + (-d).exp()),
    "swish": lambda d, beta: d / (1 + (-beta * d).exp()),
    "quick_gelu": lambda d: d / (1 + (-QUICK * d).exp()),
    "logsigmoid": lambda d: -(1 + (-d).exp()).ln(),
    "mish": lambda d: d * (((1 + d.exp()) ** 2 - 1) / ((1 + d.exp()) ** 2 + 1)),
    "tanh": tanh,
    "softsign": lambda d: d / (1 + abs(d)),
    "elu": lambda d, alpha: d if d > 0 else alpha * (d.exp() - 1),
    "celu": lambda d, alpha: d if d > 0 else alpha * ((d / alpha).exp() - 1),
    "selu": lambda d: Decimal(SCALE) * (d if d > 0 else Decimal(ALPHA) * (d.exp() - 1)),
    "softplus": lambda d, beta, threshold: d if beta * d > threshold else (1 + (beta * d).exp()).ln() / beta,
}


def of_scipy(given: Given, golden: Goldens) -> tuple[Array, Array, Array] | None:
    """Return the output, and SciPy's, of the two kinds that it has."""
    functions = {"sigmoid": scipy.special.expit, "logsigmoid": scipy.special.log_expit}
    if not golden or given["kind"] not in functions:
        return None
    wanted = functions[given["kind"]](given["x"])
    return golden["output"], wanted, 1e-14 * np.abs(wanted) + 1e-300


def fixed_point(given: Given, golden: Goldens) -> tuple[Array, float] | None:
    """Return the outputs of 0, but for three kinds 0 too."""
    if not golden:
        return None
    beta = given.get("beta", 1.0)
    value = {"sigmoid": 0.5, "hardsigmoid": 0.5, "logsigmoid": -math.log(2), "softplus": math.log(2) / beta}
    return golden["output"][given["x"] == 0], value.get(given["kind"], 0.0)


RELATIONS = {
    "is torch's own, to 1e-14": of_torch,
    "is the definition in 720 decimal digits, to 1e-14, where that is smooth": in_decimal,
    "is scipy.special.expit or log_expit, to 1e-14": of_scipy,
    "0 gives 0, 1/2 or a logarithm of 2": fixed_point,
}

VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, activations, RELATIONS, versions=("torch", "scipy")
)
perturbed = operation.generator(__file__, cancelling, RELATIONS).perturbed
