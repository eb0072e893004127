"""Parts of a job in threads and in processes, and processes that are lost."""

import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import pytest

from karat import parts

PARTS = range(7)

forks = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@pytest.fixture(autouse=True)
def nothing_remains():
    """Whatever happens to a process, none is left when the call is over."""
    yield
    assert multiprocessing.active_children() == []
    with pytest.raises(ChildProcessError):  # not even as an exit status that nobody has read
        os.waitpid(-1, os.WNOHANG)


def _square(part):
    return part * part, os.getpid()


@pytest.mark.parametrize("number", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("run", [parts.in_threads, pytest.param(parts.in_processes, marks=forks)])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_what_is_found_comes_in_the_order_of_the_parts(run, number, size, monkeypatch):
    """However many there are to compute, the first result is that of the first part."""
    monkeypatch.setattr(parts, "available", lambda: number)
    found = run(_square, PARTS[:size])
    assert [value for value, _ in found] == [part * part for part in PARTS[:size]]
    processes = min(number, size) if run is parts.in_processes else 1
    assert len({process for _, process in found}) == processes


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


def _is_killed_while_sending(part):
    if os.getpid() != HERE:
        return _Deadly()
    return part


class _Deadly:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


@forks
@pytest.mark.parametrize("compute", [_fails, _exits, _is_killed, _hangs, _is_killed_while_sending])
def test_a_process_that_is_lost_is_told(compute, monkeypatch, capfd):
    """One that _fails, is killed or never ends gives no result, prints nothing and is not waited for."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    monkeypatch.setattr(parts, "_PATIENCE", 0.1)
    monkeypatch.setattr(sys.modules[__name__], "HERE", os.getpid())
    assert parts.in_processes(compute, PARTS) is None
    assert capfd.readouterr() == ("", "")


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
    assert receiver.recv() is not daemon
    process.join()


def test_one_processor_is_enough_for_one(monkeypatch):
    """Where there is one processor only, there is nothing to share."""
    monkeypatch.setattr(parts, "available", lambda: 1)
    assert not parts.can_fork()
