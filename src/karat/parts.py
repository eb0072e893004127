"""Computes the parts of one job at the same time: in threads, or, where they are long, in forked processes."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import select
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Part = TypeVar("Part")
Found = TypeVar("Found")

_WORKERS = 4  # threads or processes at most: each has working arrays of a few megabytes
_PATIENCE = 10.0
"""Times as long as its own share took that a process waits for another, and seconds that it waits at least."""

_NUMBER = struct.Struct("=I")
_RUNS = 1024
"""Runs of parts at most: their numbers fit into any pipe, which holds a page of memory at least."""


def available() -> int:
    """Return how many threads or processes to use."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, _WORKERS)


def can_fork() -> bool:
    """Say whether processes that share this one's memory can be had, and are of use.

    Elsewhere than on Linux the system's libraries may not be used after a fork.
    """
    return sys.platform == "linux" and available() > 1


def shared_zeros(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return zeros, shape (size,), that a process and those forked from it all read and write.

    Raises `OSError` where the system has no memory for them.
    """
    nbytes = size * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, nbytes), dtype) if nbytes else np.zeros(0, dtype)


def in_threads(compute: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
    """Return what `compute` finds of each part, in order."""
    if len(parts) < 2:
        return [compute(part) for part in parts]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(available()) as pool:
        return list(pool.map(compute, parts))


def in_processes(compute: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found] | None:
    """Return what `compute` finds of each part, in order, None if a process was lost.

    Threads wait for the interpreter between any two calls of NumPy, processes do not. They are forks of this one: what
    `compute` refers to is not copied, what it writes is seen here only in `shared_zeros`. What it finds is pickled.
    Whoever is free takes the next part. A process that fails, is killed or does not end is lost; nothing of it remains.
    """

    def share() -> dict[int, Found]:
        return {number: compute(parts[number]) for number in taken()}

    with contextlib.ExitStack() as stack:
        try:
            taken = stack.enter_context(_queue(len(parts)))
            others = [stack.enter_context(_forked(share)) for _ in range(1, min(available(), len(parts)))]
        except _RefusedError:
            return None
        begin = time.monotonic()
        found = share()
        end = time.monotonic()
        until = end + _PATIENCE * max(end - begin, 1.0)
        for other in others:
            received = _received(other, until - time.monotonic())
            if received is None:
                return None
            found |= received
    return [found[number] for number in range(len(parts))]


class _RefusedError(Exception):
    """The system has no more processes, or files."""


def _granted(call: Callable[[], Found]) -> Found:
    """Return what the system grants; raise `_RefusedError` where it does not."""
    try:
        return call()
    except OSError as error:
        raise _RefusedError from error


@contextlib.contextmanager
def _queue(number: int) -> Iterator[Callable[[], Iterator[int]]]:
    """Yield what gives the numbers of parts, each once, to whichever process asks: this one or one forked from it.

    They stand in a pipe, in runs: a read takes its bytes out whole, and a process that is killed then holds no lock.
    """
    run = -(-number // _RUNS) or 1
    receiver, sender = _granted(os.pipe)

    def taken() -> Iterator[int]:
        while first := os.read(receiver, _NUMBER.size):
            (start,) = _NUMBER.unpack(first)
            yield from range(start, min(start + run, number))

    try:
        try:
            os.write(sender, b"".join(_NUMBER.pack(start) for start in range(0, number, run)))
        finally:
            os.close(sender)
        yield taken
    finally:
        os.close(receiver)


@contextlib.contextmanager
def _forked(compute: Callable[[], Any]) -> Iterator[int]:
    """Compute something in a process of its own; yield a file from which to receive it.

    No signal comes between the fork and what must follow it: that process ends here, and is ended from here.
    """
    receiver, sender = _granted(os.pipe)
    process = 0
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads: what they hold is not needed there
                process = _granted(os.fork)
                if not process:
                    _send_and_exit(compute, receiver, sender)
        finally:
            os.close(sender)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield receiver
    finally:
        os.close(receiver)
        if process:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # a program may let them be forgotten
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)


def _send_and_exit(compute: Callable[[], Any], receiver: int, sender: int) -> NoReturn:
    """Send what is computed, or nothing: a process that shares this one's arrays will meet the same error."""
    try:
        os.close(receiver)  # so that there is nobody to send to when that process is no more
        with os.fdopen(sender, "wb") as file:
            pickle.dump(compute(), file)
    finally:
        os._exit(0)  # nothing of the parent's is to be written or closed twice


def _received(receiver: int, seconds: float) -> Any:
    """Return what a process sent, None if it did not end within so many seconds, or ended before it had sent all."""
    until = time.monotonic() + seconds
    sent, waiting = bytearray(), select.poll()
    waiting.register(receiver, select.POLLIN)
    while waiting.poll(max(until - time.monotonic(), 0.0) * 1000):
        piece = os.read(receiver, 1 << 16)
        if not piece:
            with contextlib.suppress(EOFError, pickle.UnpicklingError):
                return pickle.loads(sent)  # noqa: S301 - a fork of this process sent it
            return None
        sent += piece
    return None
