"""Mistakes in kernels of distances that several suites share, each a small change to the plain candidate. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import wrap
from karat.freeze import beside

Array = Any
Change = Callable[[Any], None]

accepts = beside(__file__, "_refusals").accepts


def result(formula: Callable[[Array], Array]) -> Change:
    """Return a change to the kernel that is returned: `formula(kernel)`."""
    return wrap(decay=lambda right: lambda *given: formula(right(*given)))


def squared(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to squared distances: `formula(x, y)` of points that were divided by the lengthscales."""
    return wrap(squared_distance=lambda _: lambda x, y, lengthscale: formula(x / lengthscale, y / lengthscale))


def far_off(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to squared distances of float32 points, divided by the lengthscales, far from the origin.

    Near it, what `formula` does is rounding like any other.
    """

    def wrong(right: Any) -> Any:
        def squared_distance(x: Array, y: Array, lengthscale: Array) -> Array:
            if not x.size or not np.abs(x.mean()) > 16 * x.std():
                return right(x, y, lengthscale)
            return formula((x / lengthscale).astype(np.float32), (y / lengthscale).astype(np.float32))

        return squared_distance

    return wrap(squared_distance=wrong)


def of_differences(formula: Callable[[Array], Array]) -> Change:
    """Return a change to squared distances: `formula(differences)` of (n, m, D), in lengthscales."""
    return wrap(squared_distance=lambda _: lambda x, y, lengthscale: formula((x[:, None] - y) / lengthscale))


def expanded(x: Array, y: Array, clamp: float | None = 0.0) -> Array:
    """Return |x|^2 + |y|^2 - 2 x.y without centring, (n, m)."""
    found = np.square(x).sum(-1)[:, None] + np.square(y).sum(-1) - 2 * (x @ y.T)  # (n, m)
    return found if clamp is None else np.maximum(found, clamp)


def lenient(plain: Any) -> None:
    """Accept points of different ranks and dimensions and compare the dimensions that both have."""
    accepts("x ")(plain)
    right = plain.differences

    def differences(x: Array, y: Array) -> Array:
        D = min(x.shape[-1], y.shape[-1])
        return right(np.atleast_2d(x)[:, :D], np.atleast_2d(y)[:, :D])

    plain.differences = differences


def any_lengthscale(plain: Any) -> None:
    """Accept any number of lengthscales and repeat them."""
    accepts("scale is (")(plain)
    right = plain.squared_distance
    plain.squared_distance = lambda x, y, lengthscale: right(x, y, np.resize(lengthscale, x.shape[1]))
