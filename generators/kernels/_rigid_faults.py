"""Mistakes with the links of arms that several suites share, planted in the plain candidate. NumPy only."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from karat.faults import wrap

Array = Any
Change = Callable[[Any], None]


def given(function: str, formula: Callable[[Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to what comes into the `function` of the suite: `formula(q, dh)` gives the same two."""
    return wrap(**{function: lambda right: lambda q, dh: right(*formula(q, dh))})


def given_angles(function: str, formula: Callable[[Array], Array]) -> Change:
    """Return a change to the angles that come into the `function` of the suite, (B, n)."""
    return given(function, lambda q, dh: (formula(q), dh))


def zipped(q: Array, dh: Array) -> tuple[Array, Array]:
    """Return as many joints as both have, as `zip` does."""
    count = min(q.shape[-1], len(dh))
    return q[..., :count], dh[:count]


def with_offsets(q: Array, dh: Array) -> tuple[Array, Array]:
    """Return offsets of 0 for a missing column."""
    return q, np.pad(dh, ((0, 0), (0, 1))) if dh.shape[1] == 3 else dh


def columns(*order: int) -> Change:
    """Return a change that reads the columns of dh in another order."""
    return wrap(columns=lambda _: lambda dh: tuple(dh[:, i] for i in order))


def parameters(formula: Callable[..., tuple[Array, ...]]) -> Change:
    """Return a change to what the links are made of: `formula(theta, a, alpha, d)` gives the same four."""
    return wrap(links=lambda right: lambda *given: right(*formula(*given)))


def linked(formula: Callable[[Array, Array, Array, Array, Array, Array], tuple[Array, Array]]) -> Change:
    """Return a change to the links: `formula(rotations, shifts, theta, a, alpha, d)` of what is right."""
    return wrap(links=lambda right: lambda *given: formula(*right(*given), *given))


def angles(formula: Callable[[Array, Array], Array]) -> Change:
    """Return a change to the joint angles: `formula(q, offset)`."""
    return wrap(angles=lambda _: formula)


def functions(sine: Callable[[Array], Array], cosine: Callable[[Array], Array]) -> Change:
    """Return a change to sine and cosine."""

    class Replaced:
        sin, cos = staticmethod(sine), staticmethod(cosine)

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

    def change(plain: Any) -> None:
        plain.np = Replaced()

    return change


def series(x: Array, first: int) -> Array:
    """Return the power series of sine (`first` 1) or cosine (0) up to the ninth power, without reducing the angle."""
    return sum((-1) ** (k // 2) * x**k / math.factorial(k) for k in range(first, 10, 2))


def modified(theta: Array, a: Array, alpha: Array, d: Array) -> tuple[Array, Array]:
    """Return the links by Craig's modified convention, twist first."""
    twist = np.tile(alpha, (len(theta), 1))  # (B, n)
    c, s, one, zero = np.cos(twist), np.sin(twist), np.ones_like(theta), np.zeros_like(theta)  # (B, n)
    about_x = np.stack([np.stack(row, -1) for row in ([one, zero, zero], [zero, c, -s], [zero, s, c])], -2)
    ct, st = np.cos(theta), np.sin(theta)  # (B, n)
    about_z = np.stack([np.stack(row, -1) for row in ([ct, -st, zero], [st, ct, zero], [zero, zero, one])], -2)
    return about_x @ about_z, np.stack([a + zero, -s * d, c * d], -1)
