"""Order along a Hilbert curve: quantised coordinates, keys, and the stable order. Symbols: N points, D axes, b bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    hilbert_order(points) -> {"cells": cells, "keys": keys, "order": order}
  points  (N, D) floats, finite, 1 <= D <= 64, N >= 0
b = min(16, 64 // D) bits an axis: 16 up to D = 4, then 12, 10, 9, 8, 7, 6 …, 1 from D = 33 on.
cells (N, D) integers: for each axis, low is the smallest and span the largest less the smallest coordinate, at least
  1e-9; cell = (x - low) / span * (2^b - 1), rounded to the nearest integer, halves to the even one. On an axis of one
  value every cell is 0. Points are such that float32 and float64 arithmetic, in any order of operations, round to the
  same cells; under float64 some points need float64.
keys (N, 2) integers: the position on the curve, a number of D b bits (64 at most), as its quotient and its remainder by
  2^32. The curve is that of Skilling (2004), axis 0 the most significant. With axes = (0, 1, …, D - 1) and flips =
  (0, …, 0), for each bit of the cells from the highest to the lowest:
      g_i = that bit of cells[axes_i], exclusive-or flips_i, for i = 0 … D - 1: the next D digits
      then for i = 0 … D - 1: if g_i is 1, invert flips_0; else exchange (axes_0, flips_0) and (axes_i, flips_i)
  All D b digits are the reflected Gray code of the key, the highest first: a bit of the key is the exclusive-or of all
  digits up to its own. Other Hilbert curves, such as Hamilton's, differ from three axes on; one had to be chosen.
order (N,) integers: the indices of the points (not their ranks) by ascending key; equal keys in ascending index.
N = 0 and N = 1 are answered like any other N. To be refused: points that are NaN or infinite, points of another rank
than 2, and D of 0 or beyond 64, whose keys have no 64 bits.
"""

CONTRACTS = ("float64", "float32")


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


def written(values: Any, dtype: str = "float32") -> Literal:
    """Return the recipe of points written out."""
    return Literal(nested(np.asarray(values).tolist()), dtype)


def case(name: str, about: str, points: Recipe, contracts: tuple[str, ...] = ()) -> Case:
    """Return the case of `points`."""
    N, D = points.shape
    checkpoints = (
        Checkpoint("cells", (N, D), ("point", "axis"), dtype="integer"),
        Checkpoint("keys", (N, 2), ("point", "word"), dtype="integer"),
        Checkpoint("order", (N,), ("place",), dtype="integer"),
    )
    return Case(name, {"points": points}, {}, checkpoints, contracts=contracts, about=about)


def refused(name: str, reason: str, points: Recipe) -> Case:
    """Return the case of points that must be refused."""
    return Case(f"refuse-{name}", {"points": points}, {}, (), about=reason, refuses=reason)


def scattered(name: str, N: int, exponents: tuple[int, ...], offsets: tuple[int, ...] = (0,)) -> NDArray[Any]:
    """Return points (N, D), on axis d (offset_d + k) 2^exponent_d with k of standard deviation 36.9; offsets repeat."""
    D = len(exponents)
    drawn = Dyadic((N, D), f"hilbert_order/{name}", exponent=0).draw().astype(np.int64)  # (N, D)
    shifted = clear_of_halves(drawn, min(16, 64 // D)) + np.resize(np.array(offsets), D)  # (N, D)
    points: NDArray[Any] = np.ldexp(shifted.astype(np.float64), np.array(exponents))  # (N, D)
    return points


def clear_of_halves(k: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return the integers `k` (N, D), those lowered that lie within 1/64 of the middle of two cells."""
    low, span = k.min(0), np.ptp(k, axis=0)  # (D,), (D,)
    while True:
        beyond = (k - low) * (2**bits - 1) % span  # (N, D): the fraction of a cell, times the span
        unclear = 32 * np.abs(2 * beyond - span) <= span  # (N, D)
        if not unclear.any():
            return k
        k = k - unclear  # the lowest is clear, so that this ends


def clusters() -> NDArray[Any]:
    """Return the corners of a cube of 4 axes and two clusters in it, whose keys differ in their last bits, (40, 4)."""
    near = Integers((36, 4), "hilbert_order/clusters", 0, 4).draw()  # (36, 4)
    near[:18] += np.array([40001, 52013, 61007, 33343])
    near[18:] += np.array([1201, 2403, 52111, 3301])
    corners = np.array([[0, 0, 0, 0], [65535, 65535, 65535, 65535], [65535, 0, 0, 0], [0, 0, 0, 65535]])
    return np.concatenate([near, corners]) / 64


def halves(D: int, top: int) -> NDArray[Any]:
    """Return points of D axes whose coordinates are halves from 0 to `top`, with both ends on every axis, (17, D)."""
    drawn = Integers((15, D), f"hilbert_order/halves-{D}", 0, 2 * top + 1).draw()  # (15, D)
    return np.concatenate([drawn, np.zeros((1, D)), np.full((1, D), 2 * top)]) / 2


def repeated() -> NDArray[Any]:
    """Return 48 points in 7 places, (48, 3)."""
    places = scattered("repeated", 7, (-3, -5, -2))  # (7, 3)
    return places[Integers((48,), "hilbert_order/repeated/place", 0, 7).draw()]


def tiny_spans() -> NDArray[Any]:
    """Return points with one value on axis 0, a span of 4e-10 on axis 1 and one of 1e-6 on axis 2, (41, 3)."""
    points = scattered("tiny-spans", 41, (0, -39, -28))  # (41, 3)
    points[:, 0] = 3.25
    return points


def bad(value: float) -> Literal:
    """Return points one of which holds `value`."""
    points = scattered("bad", 9, (-2, -3))
    points[4, 1] = value
    return written(points)


def dimensions(D: int, N: int, about: str) -> Case:
    """Return the case of N points of D axes, of extents that differ by factors up to 16."""
    name = f"axes-{D}"
    return case(name, about, written(scattered(name, N, tuple(-3 + i * 3 % 5 for i in range(D)), (0, 11, -40))))


CASES = (
    dimensions(1, 67, "16 bits; points that share a cell keep their order"),
    dimensions(2, 101, "16 bits an axis, keys of 32 bits"),
    dimensions(3, 83, "16 bits an axis, keys of 48 bits"),
    dimensions(4, 71, "16 bits an axis, keys of 64 bits: more than a signed integer or a double holds"),
    dimensions(5, 53, "12 bits an axis"),
    dimensions(8, 37, "8 bits an axis, keys of 64 bits"),
    dimensions(13, 23, "4 bits an axis"),
    dimensions(21, 17, "3 bits an axis"),
    dimensions(64, 13, "1 bit an axis, keys of 64 bits"),
    case("clusters", "keys of 64 bits that differ in the last eight", written(clusters())),
    case("repeated", "48 points in 7 places: ties in ascending index", written(repeated())),
    case("halves-1-bit", "coordinates in the middle of two cells, 1 bit: to 0, the even one", written(halves(33, 1))),
    case("halves-2-bits", "coordinates in the middle of two cells, 2 bits: to 0 or 2", written(halves(22, 3))),
    case("tiny-spans", "an axis of one value, one of a span under 1e-9, one of 1e-6", written(tiny_spans())),
    case(
        "far",
        "offsets of 4000 times the spread",
        written(scattered("far", 41, (-4, -6, -3), (150_000, -130_000, 90_000))),
    ),
    case(
        "far-float64",
        "offsets that leave nothing of the points in float32",
        written(scattered("far-float64", 41, (-10, -12, -9), (2**36, -(2**37), 3 * 2**35)), "float64"),
        contracts=("float64",),
    ),
    case("two", "two points, in descending order", written([[1.5, 2.0, -1.0], [0.5, 1.0, -3.0]])),
    case("one", "one point: cell 0, key 0", written([[1.5, -2.0]])),
    case("none", "no point", Dyadic((0, 3), "hilbert_order/none", exponent=0)),
    refused("nan", "a coordinate is NaN", bad(float("nan"))),
    refused("infinity", "a coordinate is infinite", bad(float("-inf"))),
    refused("one-axis-array", "points of rank 1", Dyadic((12,), "hilbert_order/rank-1", exponent=-3)),
    refused("rank-3", "points of rank 3", Dyadic((2, 6, 3), "hilbert_order/rank-3", exponent=-3)),
    refused("no-axis", "points without axes", Dyadic((5, 0), "hilbert_order/no-axis", exponent=0)),
    refused("65-axes", "65 axes: the key has more than 64 bits", Dyadic((7, 65), "hilbert_order/65", exponent=-3)),
)

SUITE = Suite("hilbert_order", ABOUT, CONTRACTS, CASES, outputs=("order",), packed=True)
