"""Computes the parts of one job at the same time: in threads, or, where they are long, in forked processes."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Part = TypeVar("Part")
Found = TypeVar("Found")

_MOST = 4  # threads or processes: each has working arrays of a few megabytes
_PATIENCE = 10.0
"""Times as long as its own share took that a process waits for another, and seconds that it waits at least."""


def available() -> int:
    """Return how many threads or processes to use."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, _MOST)


def can_fork() -> bool:
    """Say whether processes that share this one's memory can be had, and are of use.

    Elsewhere than on Linux the system's libraries may not be used after a fork; a daemon may have no children.
    """
    return sys.platform == "linux" and available() > 1 and not multiprocessing.current_process().daemon


def shared_zeros(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return zeros, shape (size,), that a process and those forked from it all read and write."""
    nbytes = size * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, nbytes), dtype) if nbytes else np.zeros(0, dtype)


def in_threads(compute: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
    """Return what `compute` finds of each part, in order."""
    if len(parts) < 2:
        return [compute(part) for part in parts]
    with ThreadPoolExecutor(available()) as pool:
        return list(pool.map(compute, parts))


def in_processes(compute: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found] | None:
    """Return what `compute` finds of each part, in order, None if a process was lost.

    Threads wait for the interpreter between any two calls of NumPy, processes do not. They are forks of this one: what
    `compute` refers to is not copied, what it writes is seen here only in `shared_zeros`. What it finds is pickled. A
    process that fails, is killed or does not end is lost; nothing of it remains.
    """
    number = max(min(available(), len(parts)), 1)
    found: list[list[Found]] = []
    with contextlib.ExitStack() as stack:
        try:
            shares = [stack.enter_context(_share(compute, parts[start::number])) for start in range(1, number)]
        except OSError:  # there are no more processes, or files, to be had
            return None
        begin = time.monotonic()
        found.append([compute(part) for part in parts[::number]])
        end = time.monotonic()
        until = end + _PATIENCE * max(end - begin, 1.0)
        for share in shares:
            received = _received(share, until - time.monotonic())
            if received is None:
                return None
            found.append(received)
    return [found[part % number][part // number] for part in range(len(parts))]


@contextlib.contextmanager
def _share(compute: Callable[[Part], Found], parts: Sequence[Part]) -> Iterator[Connection]:
    """Compute parts in a process of their own; yield where to receive what it finds."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with receiver:
        process: BaseProcess = context.Process(target=_send, args=(sender, compute, parts), daemon=True)
        with sender, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of other threads: what they hold is not needed there
            process.start()
        try:
            yield receiver
        finally:
            process.kill()
            process.join()


def _send(sender: Connection, compute: Callable[[Part], Found], parts: Sequence[Part]) -> None:
    """Send what is found of parts, or nothing: a process that shares this one's arrays will meet the same error."""
    with contextlib.suppress(BaseException):
        sender.send([compute(part) for part in parts])
    os._exit(0)  # nothing of the parent's is to be written or closed twice


def _received(share: Connection, seconds: float) -> Any:
    """Return what a process sent, None if it sends nothing for so many seconds, or nothing at all."""
    try:
        return share.recv() if share.poll(max(seconds, 0.0)) else None
    except (EOFError, OSError):  # it ended before, or in the middle of it
        return None
