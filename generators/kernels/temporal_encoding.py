"""The reference of the suite `temporal_encoding`: torch operations in float64 on the CPU; the sample in integers.

Source: Vaswani et al. 2017, section 3.5. B batch, T tokens or queries, S samples, D width.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat.freeze import FreezeError, beside

operation = beside(__file__, "_operation")

Array = NDArray[Any]
Given = Mapping[str, Any]


def temporal_encoding(x: torch.Tensor, *, mode: str, **given: Any) -> dict[str, torch.Tensor]:
    """Return the checkpoints of either mode."""
    return sinusoidal(x, **given) if mode == "sinusoidal" else delayed(x, **given)


def sinusoidal(x: torch.Tensor, positions: torch.Tensor, base: float) -> dict[str, torch.Tensor]:
    """Return the checkpoints of the mode `sinusoidal`."""
    D = x.shape[-1]
    exponent = torch.arange(0, D, 2, dtype=x.dtype) / D  # (ceil(D/2),)
    frequency = torch.exp(-exponent * torch.log(torch.tensor(base)))  # (ceil(D/2),)
    frequency = torch.where(exponent > 0, frequency, 1.0)  # base^0 is exact, whoever computes it
    angle = positions[..., None] * frequency  # (B, T, ceil(D/2))
    encoding = torch.stack([torch.sin(angle), torch.cos(angle)], -1).flatten(-2)[..., :D]  # (B, T, D)
    return {"frequency": frequency, "encoding": encoding, "output": x + encoding}


def delayed(
    x: torch.Tensor, stamps: torch.Tensor, now: torch.Tensor, jitter: torch.Tensor, latency: float
) -> dict[str, torch.Tensor]:
    """Return the checkpoints of the mode `delayed`; of the nearest stamps argmin gives the first."""
    wanted = ticks(now) - ticks(np.array(latency)) - ticks(jitter)  # (B, T)
    sample = np.abs(ticks(stamps)[:, None, :] - wanted[:, :, None]).argmin(-1)  # (B, T)
    rows = torch.arange(x.shape[0])[:, None]  # (B, 1)
    return {"sample": torch.from_numpy(sample), "output": x[rows, torch.from_numpy(sample)]}


def ticks(times: Any) -> NDArray[np.int64]:
    """Return times as whole multiples of 2^-30 s; raise where one is none, for its ties may not be ties."""
    whole = np.ldexp(np.asarray(times), 30)
    if not (whole == np.rint(whole)).all():
        raise FreezeError("a time is no multiple of 2^-30 s")
    return np.asarray(whole, np.int64)


# --- what must hold of the goldens -----------------------------------------------------------------------------------

TURN = Decimal("6.28318530717958647692528676655900576839433879875021164194989")
PUBLISHED = (
    (0.0, 1.0, 0.0, 1.0),
    (0.84147098, 0.54030231, 0.09983342, 0.99500417),
    (0.90929743, -0.41614684, 0.19866933, 0.98006658),
)
"""Positions 0, 1 and 2 with base 100 and width 4, as tutorials print them."""


def in_decimal(given: Given) -> list[Decimal]:
    """Return the frequency of each column, (D,), in 60 decimal digits."""
    width = given["x"].shape[-1]
    return [Decimal(given["base"]) ** (-Decimal(c // 2 * 2) / width) for c in range(width)]


def frequencies(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the frequencies with those of 60 decimal digits."""
    if given["mode"] != "sinusoidal":
        return None
    with localcontext(prec=60):
        wanted = np.array(in_decimal(given)[::2], np.float64)
    return golden["frequency"], wanted, 1e-14 * wanted


def encoding(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare encoding and output with sines and cosines of angles whose whole turns are taken off in 60 digits."""
    if given["mode"] != "sinusoidal":
        return None
    with localcontext(prec=60):
        columns = list(enumerate(in_decimal(given)))
        angles = [(float(int(p) * f % TURN), c) for p in given["positions"].flat for c, f in columns]
    wanted = np.array([math.cos(a) if c % 2 else math.sin(a) for a, c in angles]).reshape(given["x"].shape)
    return (np.stack([golden["encoding"], golden["output"]]), np.stack([wanted, given["x"] + wanted]), 1e-12)


def published(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare with the published table."""
    return (golden["encoding"][0, :3], PUBLISHED, 5e-9) if given.get("base") == 100 else None


def sample(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the samples with those found by bisection among fractions."""
    if given["mode"] != "delayed":
        return None
    rows = zip(given["stamps"], given["now"], given["jitter"], strict=True)
    found = [bisected(stamps, now, jitter, given["latency"]) for stamps, now, jitter in rows]  # (B, T)
    return golden["sample"], np.array(found).reshape(golden["sample"].shape)


def bisected(stamps: Array, now: Array, jitter: Array, latency: float) -> list[int]:
    """Return the sample that each query of one row sees."""
    exact, found = [Fraction(stamp) for stamp in stamps], []
    for time, late in zip(now, jitter, strict=True):
        wanted = Fraction(time) - Fraction(latency) - Fraction(late)
        after = bisect_left(exact, wanted)  # the first that is not before
        _, stamp = min((abs(stamp - wanted), stamp) for stamp in exact[max(after - 1, 0) : after + 1])
        found.append(exact.index(stamp))
    return found


def untouched(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare the output with the samples themselves."""
    if given["mode"] != "delayed":
        return None
    return golden["output"], np.array([x[i] for x, i in zip(given["x"], golden["sample"], strict=True)])


RELATIONS = {
    "frequencies agree with 60 decimal digits to 1e-14": frequencies,
    "encoding and output agree with 60 decimal digits to 1e-12": encoding,
    "base 100 with four channels gives the published table": published,
    "each sample is the first of the nearest, by bisection among fractions": sample,
    "each output is its sample": untouched,
}
VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, temporal_encoding, RELATIONS
)
