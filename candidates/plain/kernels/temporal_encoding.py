"""Sinusoidal encoding and the delayed sample in plain NumPy: the definition, to read and to copy.

Vaswani et al., "Attention Is All You Need" (2017), section 3.5; the sample is the nearest, the first of a tie. Encoding
and sum are computed in float32 (float64 where x is), times in float64, and the output is rounded once to the format of
x. B batch, T tokens or queries, S samples, D width.
"""

import numpy as np


def temporal_encoding(
    x,
    positions=None,
    stamps=None,
    now=None,
    jitter=None,
    *,
    mode,
    base=None,
    latency=None,
):
    """Add to `x` the encoding of `positions`, or take from it the samples seen at `now`, as `mode` says."""
    check_mode(mode)
    check_rank(x)
    if mode == "sinusoidal":
        return sinusoidal(x, positions, base)
    return delayed(x, stamps, now, jitter, latency)


def sinusoidal(x, positions, base):
    """Add to `x` (B, T, D) the encoding of `positions` (B, T), or refuse."""
    check_tokens(x, positions)
    check_positions(positions)
    check_base(base)
    return with_encoding(x, positions, base)


def with_encoding(x, positions, base):
    """Return frequencies (ceil(D/2),), the encoding of `positions` (B, T, D), and its sum with `x`."""
    frequency = frequencies(x.shape[-1], base, wide(x).dtype)  # (ceil(D/2),)
    encoding = encoded(angles(positions, frequency), x.shape[-1])  # (B, T, D)
    return {"frequency": frequency, "encoding": encoding, "output": added(x, encoding)}


def frequencies(width, base, dtype):
    """Return base^(-2i/D), (ceil(D/2),)."""
    exponent = np.arange(0, width, 2, dtype=dtype) / dtype.type(width)  # (ceil(D/2),)
    return dtype.type(base) ** -exponent


def angles(positions, frequency):
    """Return each position times each frequency, (B, T, ceil(D/2))."""
    return positions[..., None].astype(frequency.dtype) * frequency


def encoded(angle, width):
    """Return sines and cosines of the angles in turn, (B, T, D)."""
    pairs = np.stack([np.sin(angle), np.cos(angle)], -1)  # (B, T, ceil(D/2), 2)
    return pairs.reshape(*angle.shape[:-1], 2 * angle.shape[-1])[..., :width]


def added(x, encoding):
    """Return x + encoding in the format of `x`, (B, T, D)."""
    return to_storage(wide(x) + encoding, x)


def delayed(x, stamps, now, jitter, latency):
    """Take from `x` (B, S, D) what is seen at `now` (B, T), late by `latency` and `jitter` (B, T)."""
    check_samples(x, stamps)
    check_queries(x, now, jitter)
    check_stamps(stamps)
    check_times(now, jitter)
    check_delay(latency + jitter)
    sample = nearest(stamps, seen(now, latency, jitter))  # (B, T)
    return {"sample": sample, "output": taken(x, sample)}


def seen(now, latency, jitter):
    """Return the time that is seen at `now`, (B, T)."""
    return now - (latency + jitter)


def nearest(stamps, wanted):
    """Return the index of the stamp nearest to each time, the first of a tie, (B, T)."""
    return np.abs(stamps[:, None, :] - wanted[:, :, None]).argmin(-1)


def taken(x, sample):
    """Return the samples of each row, (B, T, D)."""
    return np.take_along_axis(x, sample[..., None], 1)


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


def to_storage(values, x):
    """Return `values` rounded to the format of `x`."""
    return values.astype(x.dtype)


# --- what is refused -------------------------------------------------------------------------------------------------


def require(condition, text):
    """Raise `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(text)


def check_mode(mode):
    """Refuse modes that do not exist."""
    require(
        mode in ("sinusoidal", "delayed"),
        f"mode {mode!r} is not 'sinusoidal' or 'delayed'",
    )


def check_rank(x):
    """Refuse x that is not (B, T, D)."""
    require(x.ndim == 3, f"x must have three axes, found shape {x.shape}")


def check_tokens(x, positions):
    """Refuse positions of other rows or tokens than x has."""
    require(
        positions.shape == x.shape[:2],
        f"positions {positions.shape}, wanted {x.shape[:2]}, one for each token",
    )


def check_positions(positions):
    """Refuse positions before the first."""
    require((positions >= 0).all(), "positions must not be negative")


def check_base(base):
    """Refuse a base that has no power."""
    require(base > 0, f"base must be above 0, found {base}")


def check_samples(x, stamps):
    """Refuse stamps of other rows or samples than x has, and rows without samples."""
    require(
        stamps.shape == x.shape[:2],
        f"stamps {stamps.shape}, wanted {x.shape[:2]}, one for each sample",
    )
    require(stamps.shape[1] > 0, "there must be at least one sample")


def check_queries(x, now, jitter):
    """Refuse queries of other rows than x has, and another number of jitters than of queries."""
    require(
        now.ndim == 2 and now.shape[0] == x.shape[0],
        f"now {now.shape}, wanted {x.shape[0]} rows as x has",
    )
    require(
        jitter.shape == now.shape,
        f"jitter {jitter.shape}, wanted {now.shape} as now has",
    )


def check_stamps(stamps):
    """Refuse stamps that decrease or are not finite."""
    require(np.isfinite(stamps).all(), "stamps must be finite")
    require((np.diff(stamps, axis=-1) >= 0).all(), "stamps must not decrease")


def check_times(now, jitter):
    """Refuse queries that are not finite."""
    require(
        np.isfinite(now).all() and np.isfinite(jitter).all(),
        "now and jitter must be finite",
    )


def check_delay(delay):
    """Refuse to see the future."""
    require((delay >= 0).all(), "latency + jitter must not be negative")
