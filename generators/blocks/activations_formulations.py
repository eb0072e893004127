"""Correct ways to compute activation functions that differ from the plain candidate's: they must pass."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
import torch

from karat.faults import Formulation
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

reference = beside(__file__, "activations")
faults = beside(__file__, "activations_faults")

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")


def in_torch(formula: Callable[..., Any]) -> Change:
    """Return a change to the whole: `formula(x, kind, **params)` of a tensor in storage."""

    def change(plain: Any) -> None:
        right = plain.activations

        def activations(x: Array, *, kind: str, **params: Any) -> dict[str, Array]:
            if not x.size:
                return right(x, kind=kind, **params)
            tensor = torch.from_numpy(np.array(x, np.float64)).to(getattr(torch, x.dtype.name))
            output = formula(tensor, kind, **params)
            return {"output": output.double().numpy().astype(x.dtype)}  # exact, there and back

        plain.activations = activations

    return change


def composed(x: Any, kind: str, **params: Any) -> Any:
    """Return it from forms that cancel, every operation rounded to storage; exponentials go to exp(40) and beyond."""
    return reference.cancelling(x, kind=kind, **params)


def without_large(x: Any, kind: str, **params: Any) -> Any:
    """Return it from forms that cancel and whose exponentials do not overflow, every operation rounded to storage."""
    forms = reference.CANCELLING._replace(softplus=reference.EXACT.softplus, sigmoid=of_magnitude)
    return reference.computed(x, kind, forms, **params)


def of_magnitude(z: Any) -> Any:
    """Return the sigmoid from exp(-|z|), a tensor."""
    power = torch.exp(-z.abs())
    return torch.where(z >= 0, 1 / (1 + power), power / (1 + power))


def exact_forms(x: Any, kind: str, **params: Any) -> Any:
    """Return it from forms that cancel nothing, every operation rounded to storage."""
    return reference.activations(x, kind=kind, **params)


def kinds(**formulas: Callable[..., Array]) -> Change:
    """Return a change to some kinds: `formula(x, **params)` of each."""

    def change(plain: Any) -> None:
        plain.KINDS = plain.KINDS | formulas

    return change


def without_overflow(x: Array) -> Array:
    """Return the sigmoid from exp(-|x|)."""
    power = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + power), power / (1 + power))


def less_1(x: Array) -> Array:
    """Return exp(x) - 1."""
    return np.exp(np.minimum(x, 0)) - 1


def logarithm(x: Array) -> Array:
    """Return log(1 + exp(x)), x itself where exp(x) is far above 1."""
    return np.where(x > 40, x, np.log(1 + np.exp(np.minimum(x, 40))))


def mish_of_quotient(x: Array) -> Array:
    """Return mish as x n / (n + 2), n = exp(x) (exp(x) + 2), as kernels without tanh do."""
    power = np.exp(np.minimum(x, 20))
    n = power * (power + 2)
    return np.where(x > 20, x, x * (n / (n + 2)))


def of_logaddexp(x: Array) -> Array:
    """Return log(exp(0) + exp(x)) by numpy.logaddexp."""
    return np.logaddexp(0, x, dtype=x.dtype)


def tanh_by_expm1(x: Array) -> Array:
    """Return tanh from expm1(2 |x|)."""
    less_one = np.expm1(2 * np.minimum(np.abs(x), 20))
    return np.sign(x) * (less_one / (less_one + 2))


def in_float64(plain: Any) -> None:
    """Compute all in float64 and round at the end."""
    right = plain.activations
    plain.activations = lambda x, **params: {"output": right(x.astype(np.float64), **params)["output"].astype(x.dtype)}


def sigmoid_by(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the sigmoid in every kind that has it."""
    return kinds(
        sigmoid=formula,
        silu=lambda x: x * formula(x),
        swish=lambda x, beta: x * formula(beta * x),
        quick_gelu=lambda x: x * formula(x.dtype.type(1.702) * x),
    )


def by_exp2(x: Array) -> Array:
    """Return the sigmoid from a power of two, as fast exponentials do."""
    return 1 / (1 + np.exp2(x * x.dtype.type(-math.log2(math.e))))


def normal_by(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the distribution function of the normal distribution in every kind that has it."""
    return kinds(
        gelu=lambda x: x * formula(x),
        gelu_10=lambda x: np.minimum(x * formula(x), 10),
        laplace=lambda x: formula((x - x.dtype.type(0.707107)) / x.dtype.type(0.282095)),
    )


def half_erfc(x: Array) -> Array:
    """Return erfc(-x / sqrt 2) / 2, which does not cancel."""
    return np.vectorize(lambda value: 0.5 * math.erfc(-value / math.sqrt(2)), otypes=[x.dtype])(x)


def by_torch(x: Array) -> Array:
    """Return torch.special.ndtr."""
    return torch.special.ndtr(torch.from_numpy(x)).numpy()


def inner(x: Array) -> Array:
    """Return what the tanh formula of gelu takes tanh of."""
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


FORMULATIONS = (
    Formulation("torch", "torch.nn.functional in storage", in_torch(reference.in_torch), EACH_OPERATION),
    Formulation("composed", "forms that cancel, every operation rounded to storage", in_torch(composed),
                ("float64", "float32", "bfloat16")),
    Formulation("without_large", "the same from exp(-|x|), which float16 holds", in_torch(without_large),
                EACH_OPERATION),
    Formulation("exact_forms", "forms that do not cancel, every operation rounded to storage", in_torch(exact_forms),
                EACH_OPERATION),
    Formulation("sigmoid_without_overflow", "sigmoid from exp(-|x|)", sigmoid_by(without_overflow)),
    Formulation("sigmoid_by_scipy", "scipy.special.expit", sigmoid_by(scipy.special.expit)),
    Formulation("sigmoid_by_exp2", "sigmoid by 2 to the power of -x log2(e)", sigmoid_by(by_exp2),
                ("bfloat16", "float16")),
    Formulation("sigmoid_divides", "x / (1 + exp(-x))", kinds(
        silu=lambda x: x / (1 + np.exp(-x)),
        swish=lambda x, beta: x / (1 + np.exp(-beta * x)),
        quick_gelu=lambda x: x / (1 + np.exp(x.dtype.type(-1.702) * x)),
        gelu_tanh=lambda x: x / (1 + np.exp(-2 * inner(x))))),
    Formulation("normal_by_erfc", "erfc(-x / sqrt 2) / 2 instead of (1 + erf(x / sqrt 2)) / 2", normal_by(half_erfc)),
    Formulation("normal_by_torch", "torch's ndtr", normal_by(by_torch)),
    Formulation("halves_inside", "x (1/2 + tanh / 2) and (x / 2 + x erf / 2)", kinds(
        gelu=lambda x: 0.5 * x + 0.5 * x * (2 * half_erfc(x) - 1),
        gelu_tanh=lambda x: x * (0.5 + 0.5 * np.tanh(inner(x))))),
    Formulation("selu_of_products", "selu's alpha and scale multiplied beforehand", kinds(
        selu=lambda x: np.where(x > 0, reference.SCALE * x,
                                reference.SCALE * reference.ALPHA * np.expm1(np.minimum(x, 0))))),
    Formulation("exponential_less_1", "exp(x) - 1 instead of expm1", kinds(
        elu=lambda x, alpha: np.where(x > 0, x, alpha * less_1(x)),
        celu=lambda x, alpha: np.maximum(x, 0) + np.minimum(0, alpha * less_1(x / alpha)),
        selu=lambda x: np.where(x > 0, reference.SCALE * x, reference.SCALE * reference.ALPHA * less_1(x)))),
    Formulation("logarithm_of_1_plus", "log(1 + exp(x)) instead of log1p", kinds(
        softplus=lambda x, beta, threshold: np.where(beta * x > threshold, x, logarithm(beta * x) / beta),
        logsigmoid=lambda x: -logarithm(-x),
        mish=lambda x: x * np.tanh(logarithm(x)))),
    Formulation("logaddexp", "numpy.logaddexp", kinds(
        softplus=lambda x, beta, threshold: np.where(beta * x > threshold, x, of_logaddexp(beta * x) / beta),
        logsigmoid=lambda x: -of_logaddexp(-x),
        mish=lambda x: x * np.tanh(of_logaddexp(x)))),
    Formulation("mish_of_quotient", "mish as x n / (n + 2), n = exp(x) (exp(x) + 2)", kinds(mish=mish_of_quotient)),
    Formulation("straight_lines", "times 1/6, maxima and minima", kinds(
        hardsigmoid=lambda x: np.maximum(0, np.minimum(1, x * x.dtype.type(1 / 6) + x.dtype.type(0.5))),
        hardswish=lambda x: x * np.clip(x + 3, 0, 6) * x.dtype.type(1 / 6),
        leaky_relu=lambda x, alpha: np.maximum(x, 0) + alpha * np.minimum(x, 0),
        relu=lambda x: x * (x > 0),
        relu6=lambda x: np.minimum(np.maximum(x, 0), 6),
        relu_squared=lambda x: np.maximum(x, 0) * x,
        hardtanh=lambda x: np.maximum(-1, np.minimum(1, x)),
        softshrink=lambda x, threshold: np.sign(x) * np.maximum(np.abs(x) - threshold, 0),
        hardshrink=lambda x, threshold: x * (np.abs(x) > threshold),
        softsign=lambda x: x * (1 / (1 + np.abs(x))))),
    Formulation("tanh_by_expm1", "tanh as expm1(2 x) / (expm1(2 x) + 2)", kinds(tanh=tanh_by_expm1)),
    Formulation("in_float64", "all in float64, rounded at the end", in_float64),
)  # fmt: skip
