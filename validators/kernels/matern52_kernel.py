"""The Matérn kernel of smoothness 5/2 between two sets of points."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    matern52_kernel(x, y, lengthscale, *, variance) -> kernel, or {"kernel": kernel}
  x            (n, D), points; n may be 0
  y            (m, D), points
  lengthscale  (1,), or (D,): one for each dimension
  variance     factor of the kernel, the value at distance 0
With r = sqrt(sum_d ((x_d - y_d) / lengthscale_d)^2) and a = sqrt(5) r,
kernel = variance (1 + a + a^2 / 3) exp(-a), (n, m), in the format of x.

Distances may be expanded, |x|^2 + |y|^2 - 2 x.y, if the mean of x or y is subtracted from all points first and what
falls below 0 is set to 0: the tolerance is that of this form. Where points are far from the origin, and there are such
cases, it is wrong without the subtraction, and so is a division by lengthscales before any subtraction. A kernel that
underflows is 0.

To be refused: x and y of different D or not of rank 2; a lengthscale that is neither (1,) nor (D,); a lengthscale or a
variance that is not above 0 (implementations that put a floor under it chose different floors).
"""

CONTRACTS = ("float64", "float32")


def points(name: str, shape: tuple[int, ...], *, exponent: int = -6, offset: float = 0) -> Dyadic:
    """Return random points of the standard deviation 36.9 * 2^exponent about `offset`."""
    return Dyadic(shape, f"matern52_kernel/{name}", exponent=exponent, offset=round(offset / 2.0**exponent))


def literal(values: NDArray[Any] | list[Any]) -> Literal:
    """Return values, exact in float32, written out."""
    array = np.asarray(values, np.float64)
    return Literal(tuple(map(tuple, array.tolist())) if array.ndim == 2 else tuple(array.tolist()), "float32")


def case(
    name: str,
    about: str,
    x: Recipe,
    y: Recipe,
    lengthscale: list[float],
    *,
    variance: float = 1.25,
    refuses: str = "",
) -> Case:
    """Return the case of the kernel between `x` and `y`."""
    return Case(
        name,
        {"x": x, "y": y, "lengthscale": literal(lengthscale)},
        {"variance": variance},
        () if refuses else (Checkpoint("kernel", (x.shape[0], y.shape[0]), ("x", "y")),),
        about=about,
        refuses=refuses,
    )


def near_duplicates() -> tuple[Literal, Literal]:
    """Return points, and the same in another order, each moved by 2^-4 to 2^-11 in one dimension: (19, 3), (19, 3)."""
    x = points("near-duplicates/x", (19, 3)).draw()  # (19, 3)
    y = x[::-1].copy()
    y[np.arange(19), np.arange(19) % 3] += 2.0 ** -(4 + np.arange(19) % 8)
    return literal(x), literal(y)


def far_points() -> Literal:
    """Return points at distances from 0 to 150 of the origin: kernels of 1, 1e-32, 1e-61 and 1e-141, (17, 2)."""
    radii = np.repeat([0.0, 3, 9, 22, 36, 67, 150], [3, 3, 3, 2, 2, 2, 2])  # (17,)
    directions = np.array([[0.6015625, 0.798828125], [-0.798828125, 0.6015625]])[np.arange(17) % 2]  # of length 1.00
    return literal(np.round(radii[:, None] * directions * 64) / 64 + np.eye(17, 2) / 8)


def refused(name: str, refuses: str, **changes: Any) -> Case:
    """Return a case that is right but for `changes`."""
    right: dict[str, Any] = {
        "x": points("refused/x", (5, 3)),
        "y": points("refused/y", (4, 3)),
        "lengthscale": [0.6875],
        "variance": 1.25,
    }
    return case(f"refuse-{name}", "", refuses=refuses, **(right | changes))


SAME = points("same", (23, 3))
CASES = (
    case("unit", "both parameters 1, which hides them", points("unit/x", (21, 3)), points("unit/y", (18, 3)), [1],
         variance=1),
    case("short", "a lengthscale below 1", points("short/x", (22, 3)), points("short/y", (19, 3)), [0.34375]),
    case("long", "a lengthscale of 3 in 8 dimensions", points("long/x", (24, 8)), points("long/y", (17, 8)), [3],
         variance=100),
    case("one-dimension", "D = 1", points("line/x", (31, 1)), points("line/y", (16, 1)), [0.6875], variance=0.1875),
    case("per-dimension", "a lengthscale for each dimension, from 3/8 to 3", points("ard/x", (23, 5)),
         points("ard/y", (20, 5)), [0.375, 0.6875, 1.25, 3, 0.8125]),
    case("same-points", "x is y: symmetric, the variance on the diagonal", SAME, SAME, [0.6875]),
    case("offset-100", "100 from the origin", points("offset-100/x", (20, 3), offset=100),
         points("offset-100/y", (17, 3), offset=100), [0.6875]),
    case("offset-1000", "1000 from the origin", points("offset-1000/x", (19, 3), offset=1000),
         points("offset-1000/y", (18, 3), offset=1000), [0.6875]),
    case("offset-per-dimension", "-300 from the origin, a lengthscale for each dimension",
         points("offset-ard/x", (18, 4), offset=-300), points("offset-ard/y", (21, 4), offset=-300),
         [0.375, 3, 0.6875, 1.25]),
    case("near-duplicates", "distances down to 2^-11", *near_duplicates(), [0.6875]),
    case("underflow", "distances up to 150 lengthscales: 1e-32 is kept, 1e-61 is 0 in float32",
         points("underflow/x", (19, 2), exponent=-9), far_points(), [1], variance=1),
    case("one-pair", "one point each", points("one/x", (1, 3)), points("one/y", (1, 3)), [0.6875]),
    case("empty", "no point in x", points("empty/x", (0, 3)), points("empty/y", (5, 3)), [0.6875]),
    refused("dimensions", "y has 4 dimensions, x has 3", y=points("refused/y", (4, 4))),
    refused("rank", "x is of rank 1", x=points("refused/x", (3,))),
    refused("lengthscales", "2 lengthscales for 3 dimensions", lengthscale=[0.6875, 1]),
    refused("lengthscale-zero", "a lengthscale of 0", lengthscale=[0.5, 0, 2]),
    refused("lengthscale-negative", "a negative lengthscale", lengthscale=[-0.5]),
    refused("variance-zero", "a variance of 0", variance=0),
)  # fmt: skip

SUITE = Suite("matern52_kernel", ABOUT, CONTRACTS, CASES, packed=True)
