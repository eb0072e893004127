"""What a reference keeps in the accumulation format whatever the storage: angles, step sizes, recurrent states."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


@contextmanager
def in_accumulation() -> Iterator[None]:
    """Take the rounding of the operations inside for that of the accumulation format, in a replay under noise.

    Implementations keep these results in float32 when they store in 16 bits. What leaves the format of the sums is
    rounded where it is used next: multiply it by 1 outside.
    """
    replays = [mode for mode in _get_current_dispatch_mode_stack() if hasattr(mode, "stored")]
    for replay in replays:
        replay.stored = replay.inner
    try:
        yield
    finally:
        for replay in replays:
            del replay.stored


@contextmanager
def exactly() -> Iterator[None]:
    """Take the results of the operations inside for exact, in a replay under noise: every format holds them."""
    replays = [mode for mode in _get_current_dispatch_mode_stack() if hasattr(mode, "stored")]
    kinds = [replay.kind for replay in replays]
    for replay in replays:
        replay.kind = "none"
    try:
        yield
    finally:
        for replay, kind in zip(replays, kinds, strict=True):
            replay.kind = kind
