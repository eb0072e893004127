"""Time for a robot's policy: sinusoidal encoding of positions, and the sample that a delayed observer sees.

Symbols: B batch, T tokens or queries, S samples, D width.
"""

from collections.abc import Sequence
from typing import Any

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite

ABOUT = """\
A py: candidate is a function with two modes
    temporal_encoding(x, positions, *, mode="sinusoidal", base) -> {"frequency": …, "encoding": …, "output": …}
    temporal_encoding(x, stamps, now, jitter, *, mode="delayed", latency) -> {"sample": …, "output": …}
All inputs are given by name.

mode "sinusoidal" (Vaswani et al. 2017, section 3.5)
  x          (B, T, D) in storage
  positions  (B, T) integers from 0; each row has its own
  frequency  base^(-2i/D) for i = 0 … ceil(D/2) - 1, (ceil(D/2),), in the accumulation format
  encoding   (B, T, D) in the accumulation format: sin(positions * frequency[i]) in column 2i, cos of the same in column
             2i + 1. Sine and cosine alternate and share their frequency. Of an odd D the last column is a sine.
  output     x + encoding, added in the accumulation format and rounded once to the format of x
There is no longest position: the formula has none, whatever length a table has.

mode "delayed": what an observer sees whose observations are late
  x          (B, S, D) in storage, the samples
  stamps     (B, S) float64, seconds, never decreasing along a row; may be of the epoch (1.7e9)
  now        (B, T) float64, seconds
  jitter     (B, T) float64, seconds: how much later than `latency` this observation is, or earlier if negative
  latency    seconds
  sample     (B, T): the index of the stamp nearest to now - (latency + jitter), computed in float64; of stamps equally
             far the first. So of equal stamps it is the first, before the first stamp it is 0, and after the last stamp
             it is the first of the stamps equal to the last. It is not limited to stamps before `now`.
  output     (B, T, D): x at these samples, untouched
The draw of the jitter is an input, so that the choice can be judged. Times are float64 because float32 has steps of 128
seconds at the epoch. The first wins a tie, as argmin has it.

Must be refused (raise, or exit with another code than 0): an unknown mode; x that has not three axes; another batch
than that of x; other numbers of positions than tokens, of stamps than samples, of jitter than now; negative positions;
a base that is not above 0; no sample at all; stamps that decrease or are not finite; now or jitter that is not finite;
latency + jitter below 0, which would see the future.
"""

CONTRACTS = ("float32", "bfloat16-once", "float16-once")
TOKENS = ("batch", "token", "channel")
QUERIES = ("batch", "query", "channel")
Rows = Sequence[Sequence[float]]


def samples(name: str, shape: tuple[int, ...]) -> Dyadic:
    """Return random x of standard deviation 1.15, which no two rows share."""
    return Dyadic(shape, f"temporal_encoding/{name}/x", exponent=-5)


def integers(name: str, count: int, low: int, high: int) -> list[int]:
    """Return random integers in [low, high)."""
    drawn: list[int] = Integers((count,), f"temporal_encoding/{name}", low, high).draw().tolist()
    return drawn


def literal(rows: Sequence[Sequence[Any]], dtype: str) -> Literal:
    """Return the recipe of rows written out."""
    return Literal(tuple(tuple(row) for row in rows), dtype)


# --- sinusoidal ------------------------------------------------------------------------------------------------------


def sinusoidal(name: str, about: str, width: int, positions: Sequence[Sequence[int]], base: float = 10000.0) -> Case:
    """Return the case of these positions, (B, T), encoded in `width` channels."""
    B, T = len(positions), len(positions[0])
    return Case(
        name,
        {"x": samples(name, (B, T, width)), "positions": literal(positions, "int64")},
        {"mode": "sinusoidal", "base": base},
        (
            Checkpoint("frequency", ((width + 1) // 2,), ("frequency",), dtype="accumulation"),
            Checkpoint("encoding", (B, T, width), TOKENS, dtype="accumulation"),
            Checkpoint("output", (B, T, width), TOKENS),
        ),
        about=about,
    )


def sinusoidal_refused(name: str, refuses: str, x: Recipe, positions: Rows, **params: Any) -> Case:
    """Return a case whose inputs must be refused."""
    return Case(
        f"refused-{name}",
        {"x": x, "positions": literal(positions, "int64")},
        {"mode": "sinusoidal", "base": 10000.0, **params},
        (),
        refuses=refuses,
    )


FAR = (255, 256, 257, 511, 512, 513, 999, 1000, 1001, 2047, 2049, 3071, 4095, 4097, 4999, 5000, 5001, 8191, 65535)


def sinusoidal_cases() -> tuple[Case, ...]:
    """Return the cases of the mode `sinusoidal`: no row has another's positions, no two dimensions are equal."""
    far = (FAR, [p + 13 for p in FAR[::-1]])
    return (
        sinusoidal("two-rows", "rows that begin at 0 and at 61", 26, (range(19), range(61, 80))),
        sinusoidal("far", "beside powers of two, beyond tables of 512, 1000 and 5000", 4, far),
        sinusoidal("middle", "positions past 512 in no order", 10, (integers("middle", 21, 300, 1024),)),
        sinusoidal("wide", "many frequencies", 250, ((3, 1, 4), (1, 5, 9))),
        sinusoidal("odd-width", "the last column is a sine", 7, (range(2, 15), integers("odd-width", 13, 0, 64))),
        sinusoidal("one-pair", "two channels", 2, (range(23),)),
        sinusoidal("one-channel", "a sine alone", 1, (range(1, 40),)),
        sinusoidal("other-base", "base 100, four channels: published", 4, (range(11), range(5, 16)), base=100.0),
        sinusoidal("no-tokens", "nothing to encode; frequencies all the same", 8, ((), (), ())),
    )  # fmt: skip


def sinusoidal_refusals() -> tuple[Case, ...]:
    """Return what the mode `sinusoidal` must refuse."""
    x, rows = samples("refused", (2, 3, 8)), ((0, 1, 2), (3, 4, 5))
    return (
        sinusoidal_refused("negative-position", "a position of -1", x, ((0, 1, 2), (3, -1, 5))),
        sinusoidal_refused("base-0", "base 0", x, rows, base=0.0),
        sinusoidal_refused("base-negative", "a negative base", x, rows, base=-10000.0),
        sinusoidal_refused("mode", "a mode that does not exist", x, rows, mode="rotary"),
        sinusoidal_refused("rank", "x of two axes", samples("refused-rank", (3, 8)), ((0, 1, 2),)),
        sinusoidal_refused("positions-batch", "positions of one row for two rows of x", x, rows[:1]),
        sinusoidal_refused("positions-length", "two positions for three tokens", x, ((0, 1), (3, 4))),
    )


# --- delayed ---------------------------------------------------------------------------------------------------------


def delayed(
    name: str, about: str, stamps: Rows, now: Rows, jitter: Rows, *, latency: float = 0.0625, width: int = 3
) -> Case:
    """Return the case of these times, (B, S), (B, T) and (B, T)."""
    B, S, T = len(stamps), len(stamps[0]), len(now[0])
    return Case(
        name,
        {
            "x": samples(name, (B, S, width)),
            "stamps": literal(stamps, "float64"),
            "now": literal(now, "float64"),
            "jitter": literal(jitter, "float64"),
        },
        {"mode": "delayed", "latency": latency},
        (Checkpoint("sample", (B, T), QUERIES[:2], dtype="integer"), Checkpoint("output", (B, T, width), QUERIES)),
        about=about,
        fixed=dict.fromkeys(("stamps", "now", "jitter"), "float64"),
    )


def delayed_refused(name: str, refuses: str, *, x: Recipe | None = None, mode: str = "delayed", **times: Rows) -> Case:
    """Return a case with something wrong in the otherwise right inputs of two rows, five samples and three queries."""
    right: dict[str, Rows] = {
        "stamps": ((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.125, 0.5, 0.625, 1.0)),
        "now": ((0.3125, 0.625, 1.0), (0.375, 0.75, 1.125)),
        "jitter": ((0.0, 0.03125, -0.03125), (0.015625, 0.0, -0.015625)),
    }
    return Case(
        f"refused-{name}",
        {"x": x or samples("refused-delayed", (2, 5, 3))}
        | {key: literal(times.get(key, rows), "float64") for key, rows in right.items()},
        {"mode": mode, "latency": 0.0625},
        (),
        fixed=dict.fromkeys(right, "float64"),
        refuses=refuses,
    )


def irregular(
    name: str, count: int, start: float = 0.0, step: float = 2.0**-10, low: int = 3, high: int = 40
) -> list[float]:
    """Return `count` stamps from `start` on, whose gaps are random multiples of `step`."""
    stamps, ticks = [], 0
    for gap in integers(f"{name}/gaps", count, low, high):
        stamps.append(start + ticks * step)
        ticks += gap
    return stamps


def times(name: str, stamps: Sequence[float], count: int, step: float = 2.0**-12) -> list[float]:
    """Return `count` random times in no order, from a little before the second stamp until well after the last."""
    span = round((stamps[-1] - stamps[0]) / step)
    return [stamps[0] + tick * step for tick in integers(f"{name}/now", count, span // 50, span + span // 6)]


def jitters(name: str, count: int) -> list[float]:
    """Return `count` random multiples of 2^-12 s between -1/32 and 1/32 s."""
    return [tick * 2.0**-12 for tick in integers(f"{name}/jitter", count, -128, 129)]


def drawn(name: str, about: str, rows: Sequence[Sequence[float]], count: int, **options: Any) -> Case:
    """Return the case of `count` random queries to each row of stamps."""
    now = [times(f"{name}/{i}", row, count) for i, row in enumerate(rows)]
    return delayed(name, about, rows, now, [jitters(f"{name}/{i}", count) for i in range(len(rows))], **options)


def delayed_cases() -> tuple[Case, ...]:
    """Return the cases of the mode `delayed`; every time is a multiple of a power of two, so that ties are ties."""
    eighths = [i / 8 for i in range(16)]
    middles = [i / 8 + 0.0625 + 0.0625 for i in range(-1, 17)]  # with the latency 1/16, between two stamps each
    same = [0.0, 0.25, 0.25, 0.25, 0.5, 1.0, 1.0, 1.5, 1.5, 1.5]
    about_same = [0.0625 + t for t in (0.25, 0.1875, 0.3125, 0.125, 0.375, 0.75, 1.0, 1.25, 1.5, 2.0)]
    outside = [-3.0, -0.25, 0.0, 0.0625, 0.09375, 2.0, 2.0625, 2.25, 64.0]
    epoch = irregular("epoch", 47, 1.7e9)
    return (
        drawn("irregular", "irregular stamps, two rows", [irregular(f"irregular/{i}", 37) for i in range(2)], 41),
        drawn("late", "late by several samples", [irregular(f"late/{i}", 29) for i in range(3)], 23, latency=0.125),
        delayed("ties", "halfway between two stamps: the first", [eighths], [middles], [[0.0] * len(middles)]),
        delayed("duplicates", "equal stamps: the first", [same], [about_same], [[0.0] * len(about_same)]),
        delayed("outside", "before the first stamp and after the last", [irregular("outside", 13, 0.0, 2.0**-5, 1, 8)],
                [outside], [[0.0, 0.03125, -0.03125] * 3], width=2),
        drawn("epoch", "stamps of the epoch, a few milliseconds apart", [epoch], 31, latency=0.03125, width=5),
        drawn("long", "more than 2048 samples", [irregular("long", 2100)], 33, width=1),
        delayed("one-sample", "one stamp: always that one", [[0.5], [0.25]], [[0.0, 0.5, 4.0]] * 2, [[0.0] * 3] * 2,
                width=4),
        delayed("no-queries", "nothing to look for", [[0.0, 0.5], [0.0, 0.25]], [[], []], [[], []]),
    )  # fmt: skip


def delayed_refusals() -> tuple[Case, ...]:
    """Return what the mode `delayed` must refuse."""
    nan, first, later = (float("nan"), (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.5, 0.125, 0.625, 1.0))
    three = ((0.3125, 0.625, 1.0),) * 3
    return (
        delayed_refused("unsorted", "stamps that decrease in the second row", stamps=(first, later)),
        delayed_refused("stamp-nan", "a stamp that is NaN", stamps=(first, (0.0, 0.125, nan, 0.625, 1.0))),
        delayed_refused("stamp-infinite", "an infinite last stamp", stamps=(first, (*first[:4], float("inf")))),
        delayed_refused("now-nan", "a query at NaN", now=((0.3125, nan, 1.0), (0.375, 0.75, 1.125))),
        delayed_refused("jitter-nan", "a jitter that is NaN", jitter=((0.0, nan, 0.0), (0.0, 0.0, 0.0))),
        delayed_refused("future", "earlier than the latency is late", jitter=((0.0, -0.125, 0.0), (0.0, 0.0, 0.0))),
        delayed_refused("no-samples", "rows without samples", x=samples("refused-none", (2, 0, 3)), stamps=((), ())),
        delayed_refused("stamps-batch", "stamps of one row for two rows of x", stamps=(first,)),
        delayed_refused("now-batch", "queries of three rows for two rows of x", now=three, jitter=((0.0,) * 3,) * 3),
        delayed_refused("stamps-length", "four stamps for five samples", stamps=(first[:4], first[:4])),
        delayed_refused("jitter-length", "one jitter for three queries", jitter=((0.0,), (0.0,))),
        delayed_refused("rank-delayed", "x of two axes", x=samples("refused-rank-delayed", (2, 5))),
        delayed_refused("mode-delayed", "a mode that does not exist", mode="nearest"),
    )  # fmt: skip


SUITE = Suite(
    "temporal_encoding",
    ABOUT,
    CONTRACTS,
    sinusoidal_cases() + delayed_cases() + sinusoidal_refusals() + delayed_refusals(),
    outputs=("output",),
    packed=True,
)
