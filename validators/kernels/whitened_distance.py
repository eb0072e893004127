"""The Euclidean distance of whitened vectors, in its form as matrix products."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function
    whitened_distance(vectors, rows, columns, *, jitter) -> the checkpoints by name
  vectors  (n, k), one a row; n is at least 2
  rows     (r,) integers, indices of vectors; r may be 0
  columns  (c,) integers, indices of vectors; c may be 0
  jitter   what is added to the diagonal of the covariance; it is as given, and is not raised where a factorisation
           fails: implementations that try again with ten times as much choose by their own rounding errors
In order, with m the mean of all vectors:
  covariance        (k, k), (vectors - m)^T (vectors - m) / (n - 1) + jitter I
  cholesky          (k, k), L, lower triangular with a positive diagonal: covariance = L L^T
  whitened          (n, k), (vectors - m) L^-T: row i is L^-1 (vectors_i - m)
  squared_distance  (r, c), of w = whitened: |w_i|^2 + |w_j|^2 - 2 w_i.w_j, i of rows and j of columns, 0 where that
                    falls below 0 or where i = j: a vector is at no distance from itself, whatever the rounding
  distance          (r, c), its root
in the format of `vectors`, all computed in the accumulation format. The tolerance is that of the expanded form; squares
of differences are closer. Distances far smaller than the norms of whitened vectors are lost in the expanded form under
float32; there such pairs have no checkpoint `distance`.

To be refused: vectors not of rank 2 or fewer than 2; an index below 0 or of n and more (no counting from the end); a
jitter below 0.
"""

CONTRACTS = ("float64", "float32")


def vectors(name: str, shape: tuple[int, int], *, offset: int = 0) -> NDArray[Any]:
    """Return correlated vectors about `offset`: each entry is a random one plus half of the one before, (n, k)."""
    random = np.float64(Dyadic(shape, f"whitened_distance/{name}", exponent=-6).draw())  # (n, k)
    mixed = random + 0.5 * np.roll(random, 1, axis=1) * (np.arange(shape[1]) > 0)  # (n, k)
    return np.asarray(mixed * 2.0 ** -(np.arange(shape[1]) // 2) + offset)


def case(
    name: str,
    about: str,
    given: NDArray[Any],
    pairs: tuple[Recipe, Recipe],
    *,
    jitter: float = 1e-6,
    distance: bool = True,
    **of_case: Any,
) -> Case:
    """Return the case of the distances of some of the vectors `given`, (n, k); `distance` says if they are judged."""
    rows, columns = pairs
    block = (*rows.shape, *columns.shape)
    points = () if of_case.get("refuses") else checkpoints(len(given), given.shape[1], block, distance=distance)
    return Case(
        name,
        {"vectors": literal(given), "rows": rows, "columns": columns},
        {"jitter": jitter},
        points,
        about=about,
        **of_case,
    )


def checkpoints(n: int, k: int, block: tuple[int, ...], *, distance: bool) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of `n` vectors of `k` entries."""
    found = (
        Checkpoint("covariance", (k, k), ("channel", "other channel")),
        Checkpoint("cholesky", (k, k), ("channel", "factor")),
        Checkpoint("whitened", (n, k), ("vector", "factor")),
        Checkpoint("squared_distance", block, ("row", "column")),
        Checkpoint("distance", block, ("row", "column")),
    )
    return found if distance else found[:-1]


def literal(values: NDArray[Any]) -> Literal:
    """Return vectors written out."""
    return Literal(nested(values.tolist()), "float32")


def nested(values: Any) -> Any:
    """Turn nested lists into nested tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


def some(name: str, rows: int, columns: int, n: int) -> tuple[Recipe, Recipe]:
    """Return random indices below `n`, some of them twice."""
    key = f"whitened_distance/{name}"
    return Integers((rows,), f"{key}/rows", 0, n), Integers((columns,), f"{key}/columns", 0, n)


def first(count: int, start: int = 0) -> Literal:
    """Return the indices from `start` on."""
    return Literal(tuple(range(start, start + count)))


def with_duplicates() -> NDArray[Any]:
    """Return vectors of which the last eight repeat the first eight, four of them moved a little, (29, 5)."""
    found = vectors("duplicates", (29, 5))
    found[21:] = found[:8]
    found[25:, 0] += 2.0**-9
    return found


def dependent() -> NDArray[Any]:
    """Return vectors whose last entry is the sum of the first two: only the jitter keeps the factor, (24, 5)."""
    found = vectors("dependent", (24, 5))
    found[:, 4] = found[:, 0] + found[:, 1]
    return found


def refused(name: str, refuses: str, **changes: Any) -> Case:
    """Return a case that is right but for `changes`."""
    right: dict[str, Any] = {"given": vectors("refused", (11, 3)), "pairs": (first(4), first(3, 4)), "jitter": 1e-6}
    return case(f"refuse-{name}", "", refuses=refuses, **(right | changes))


ONE = vectors("refused", (1, 3))
CASES = (
    case("random", "rows and columns at random, pairs of a vector with itself among them", vectors("random", (41, 7)),
         some("random", 19, 23, 41)),
    case("offset", "means of 40: covariances are of deviations", vectors("offset", (37, 6), offset=40),
         some("offset", 17, 21, 37)),
    case("few", "twice as many vectors as entries: n - 1 shows", vectors("few", (13, 6)), (first(13), first(13))),
    case("one-channel", "k = 1", vectors("one-channel", (18, 1)), (first(9), first(9, 9))),
    case("large-jitter", "a jitter of 1/4", vectors("jitter", (31, 5)), (first(20), first(16, 15)), jitter=0.25),
    case("duplicates", "equal and nearly equal vectors", with_duplicates(), (first(29), first(29)), distance=False),
    case("dependent", "a covariance of rank 4 and the jitter", dependent(), (first(16), first(17, 7)),
         contracts=("float64",)),
    case("one-pair", "one pair", vectors("one-pair", (8, 3)), (first(1, 2), first(1, 5))),
    case("empty", "no rows", vectors("empty", (9, 3)), (first(0), first(4))),
    refused("index", "an index of n", pairs=(Literal((0, 11, 3)), first(3))),
    refused("negative-index", "an index of -1", pairs=(first(3), Literal((0, -1, 3)))),
    refused("one-vector", "one vector, which has no covariance", given=ONE, pairs=(first(1), first(1))),
    refused("rank", "vectors of rank 1", given=ONE[0], pairs=(first(1), first(1))),
    refused("jitter", "a jitter below 0", jitter=-1e-6),
)  # fmt: skip

SUITE = Suite("whitened_distance", ABOUT, CONTRACTS, CASES, outputs=("distance",), packed=True)
