"""karat.parts: parts of a job in threads and in processes, and processes that are lost."""

import errno
import multiprocessing
import os
import signal
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from karat import parts

PARTS = range(7)

forks = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


def children():
    """Return the processes that this one started, ended ones of which nobody read so included."""
    if sys.platform != "linux":
        return []
    return sorted(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture(autouse=True)
def nothing_remains():
    """Whatever happens to a process, none is left when the call is over."""
    before = children()
    yield
    assert children() == before


def _square(part):
    return part * part, os.getpid()


@pytest.mark.parametrize("number", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("run", [parts.in_threads, pytest.param(parts.in_processes, marks=forks)])
@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_what_is_found_comes_in_the_order_of_the_parts(run, number, size, monkeypatch):
    """However many there are to compute, the first result is that of the first part."""
    monkeypatch.setattr(parts, "available", lambda: number)
    found = run(_square, PARTS[:size])
    assert [value for value, _ in found] == [part * part for part in PARTS[:size]]
    processes = min(number, size) if run is parts.in_processes else 1
    assert len({process for _, process in found}) == min(processes, size)


@forks
def test_no_file_remains_open(monkeypatch):
    """Neither where processes end as they should, nor where one is lost."""
    monkeypatch.setattr(parts, "available", lambda: 3)
    monkeypatch.setattr(sys.modules[__name__], "HERE", os.getpid())
    before = sorted(Path("/proc/self/fd").iterdir())
    for compute in (_square, _fails):
        parts.in_processes(compute, PARTS)
        assert sorted(Path("/proc/self/fd").iterdir()) == before


@forks
def test_processes_write_into_shared_zeros(monkeypatch):
    """What a forked process writes there is seen here; what it writes elsewhere is not."""
    monkeypatch.setattr(parts, "available", lambda: 3)
    shared, own = parts.shared_zeros(7, np.float64), np.zeros(7)

    def write(part):
        shared[part] = own[part] = part

    parts.in_processes(write, PARTS)
    assert shared.tolist() == list(PARTS)
    assert own.tolist() == [0, 0, 0, 3, 0, 0, 6]
    assert parts.shared_zeros(0, np.float64).shape == (0,)


HERE = os.getpid()


def _fails(part):
    if os.getpid() != HERE:
        raise ValueError("there is no such part")
    return part


def _exits(part):
    if os.getpid() != HERE:
        sys.exit("there is no such part")
    return part


def _is_killed(part):
    if os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def _hangs(part):
    if os.getpid() != HERE:
        time.sleep(600)
    return part


@forks
@pytest.mark.parametrize("compute", [_fails, _exits, _is_killed, _hangs])
def test_a_process_that_is_lost_is_told(compute, monkeypatch, capfd):
    """One that fails, is killed or never ends gives no result, prints nothing and is not waited for."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    monkeypatch.setattr(parts, "_PATIENCE", 0.1)
    monkeypatch.setattr(sys.modules[__name__], "HERE", os.getpid())
    assert parts.in_processes(compute, PARTS) is None
    assert capfd.readouterr() == ("", "")


def test_half_of_what_was_found_is_nothing():
    """A process that is killed while it sends has announced more than comes."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver:
        with sender:
            os.write(sender.fileno(), struct.pack("!i", 1000) + b"begun")
        assert parts._received(receiver, 10) is None


@forks
@pytest.mark.parametrize("forked", [0, 1])
def test_where_no_process_is_to_be_had_all_are_lost(forked, monkeypatch):
    """Those that were started before are ended."""
    monkeypatch.setattr(parts, "available", lambda: 3)
    fork, asked = os.fork, []

    def refusing():
        asked.append(1)
        if len(asked) > forked:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", refusing)
    assert parts.in_processes(_hangs, PARTS) is None
    assert len(asked) == forked + 1


@forks
def test_an_error_of_ones_own_share_ends_the_others(monkeypatch):
    """It is raised at once, and the other processes are ended, not waited for."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    here, begin = os.getpid(), time.monotonic()

    def compute(_):
        if os.getpid() == here:
            raise KeyboardInterrupt
        time.sleep(600)

    with pytest.raises(KeyboardInterrupt):
        parts.in_processes(compute, PARTS)
    assert time.monotonic() - begin < 300


def _tell(pipe):
    pipe.send(parts.can_fork())


@forks
@pytest.mark.parametrize("daemon", [False, True])
def test_a_daemon_does_not_fork(daemon, monkeypatch):
    """multiprocessing lets a daemon have no children: there it is threads."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_tell, args=(sender,), daemon=daemon)
    process.start()
    with receiver, sender:
        assert receiver.recv() is not daemon
    process.join()
    process.close()


def test_one_processor_is_enough_for_one(monkeypatch):
    """Where there is one processor only, there is nothing to share."""
    monkeypatch.setattr(parts, "available", lambda: 1)
    assert not parts.can_fork()
