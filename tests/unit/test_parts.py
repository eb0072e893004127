"""karat.parts: parts of a job in threads and in processes, and processes that are lost."""

import contextlib
import errno
import os
import pickle
import select
import signal
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


class Shared:
    """Computes squares of parts, in processes of which none has a second part before each has its first.

    `act` is what all but this one do then.
    """

    def __init__(self, processes, act=lambda: None):
        """Have so many processes meet."""
        self.processes, self.act, self.here = processes, act, os.getpid()
        self.begun = parts.shared_zeros(1 << 16, np.int8)

    def __call__(self, part):
        """Return the square of a part, and which process it is."""
        self.begun[os.getpid() % self.begun.size] = 1
        until = time.monotonic() + 60
        while np.count_nonzero(self.begun) < self.processes and time.monotonic() < until:
            time.sleep(0.001)
        if os.getpid() != self.here:
            self.act()
        return part * part, os.getpid()


def found_of(compute, wanted):
    """Return what processes find, of which none is lost."""
    found = parts.in_processes(compute, wanted)
    assert found is not None
    return found


@pytest.mark.parametrize("number", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_what_threads_find_comes_in_the_order_of_the_parts(number, size, monkeypatch):
    """However many there are to compute, the first result is that of the first part."""
    monkeypatch.setattr(parts, "available", lambda: number)
    assert parts.in_threads(lambda part: part * part, PARTS[:size]) == [part * part for part in PARTS[:size]]


@forks
@pytest.mark.parametrize("number", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_what_processes_find_comes_in_the_order_of_the_parts(number, size, monkeypatch):
    """Whoever has taken which; there are no more processes than parts."""
    monkeypatch.setattr(parts, "available", lambda: number)
    processes = min(number, size)
    found = found_of(Shared(processes), PARTS[:size])
    assert [value for value, _ in found] == [part * part for part in PARTS[:size]]
    assert len({process for _, process in found}) == processes


@forks
@pytest.mark.parametrize("size", [1023, 1024, 1025, 5000])
def test_each_of_many_parts_is_computed_once(size, monkeypatch):
    """More than their numbers fit into the smallest pipe: then several are taken at a time."""
    monkeypatch.setattr(parts, "available", lambda: 3)
    times, write, written = parts.shared_zeros(size, np.int64), os.write, []

    def writing(file, data):
        written.append(len(data))
        return write(file, data)

    monkeypatch.setattr(os, "write", writing)

    def compute(part):
        times[part] += 1
        return part

    assert parts.in_processes(compute, range(size)) == list(range(size))
    assert (times == 1).all()
    assert len(written) == 1
    assert 2048 <= written[0] <= 4096


@forks
def test_whoever_is_free_takes_the_next_part(monkeypatch):
    """A process that is slow has fewer of them."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    found = found_of(Shared(2, lambda: time.sleep(0.5)), range(100))
    assert 1 <= sum(process != os.getpid() for _, process in found) < 40


@forks
def test_no_file_remains_open(monkeypatch):
    """Neither where processes end as they should, nor where one is lost."""
    monkeypatch.setattr(parts, "available", lambda: 3)
    before = sorted(Path("/proc/self/fd").iterdir())
    for act, found in ((lambda: None, True), (_fail, False)):
        assert (parts.in_processes(Shared(3, act), PARTS) is not None) == found
        assert sorted(Path("/proc/self/fd").iterdir()) == before


@forks
def test_processes_write_into_shared_zeros(monkeypatch):
    """What a forked process writes there is seen here; what it writes elsewhere is not."""
    monkeypatch.setattr(parts, "available", lambda: 3)
    shared, own, meet = parts.shared_zeros(7, np.float64), np.zeros(7), Shared(3)

    def write(part):
        shared[part] = own[part] = part + 1
        return meet(part)[1]

    here = [process == os.getpid() for process in found_of(write, PARTS)]
    assert shared.tolist() == [part + 1 for part in PARTS]
    assert own.tolist() == [(part + 1) * mine for part, mine in zip(PARTS, here, strict=True)]
    assert parts.shared_zeros(0, np.float64).shape == (0,)


def _square(part):
    return part * part


def _fail():
    raise ValueError("there is no such part")


def _is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def _hang():
    time.sleep(600)


@forks
@pytest.mark.parametrize("act", [_fail, sys.exit, _is_killed, _hang])
def test_a_process_that_is_lost_is_told(act, monkeypatch, capfd):
    """One that fails, is killed or never ends gives no result, prints nothing and is not waited for."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    monkeypatch.setattr(parts, "_PATIENCE", 0.1)
    assert parts.in_processes(Shared(2, act), PARTS) is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("hangs", [False, True])
def test_half_of_what_was_found_is_nothing(hangs):
    """A process may be killed while it sends, after any byte, or hang there."""
    found = {3: ("found", 1.5, np.float64(2.5))}
    sent = pickle.dumps(found)
    for size in range(len(sent) + 1):
        receiver, sender = os.pipe()
        os.write(sender, sent[:size])
        if not hangs:
            os.close(sender)
        assert parts._received(receiver, 0) == (found if size == len(sent) and not hangs else None)
        if hangs:
            os.close(sender)
        os.close(receiver)


@forks
def test_much_is_received_whole(monkeypatch):
    """More than a pipe holds at a time."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    meet = Shared(2)
    found = found_of(lambda part: (bytes([part]) * 1_000_000, meet(part)[1]), PARTS)
    assert [value for value, _ in found] == [bytes([part]) * 1_000_000 for part in PARTS]
    assert len({process for _, process in found}) == 2


@forks
@pytest.mark.parametrize("forked", [0, 1])
def test_where_no_process_is_to_be_had_all_are_lost(forked, monkeypatch):
    """Those that were started before are ended."""
    monkeypatch.setattr(parts, "available", lambda: 3)
    fork, asked, files = os.fork, [], sorted(Path("/proc/self/fd").iterdir())

    def refusing():
        asked.append(1)
        if len(asked) > forked:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", refusing)
    assert parts.in_processes(Shared(1, _hang), PARTS) is None
    assert len(asked) == forked + 1
    assert sorted(Path("/proc/self/fd").iterdir()) == files


@forks
def test_an_error_of_ones_own_share_ends_the_others(monkeypatch):
    """It is raised at once, and the other processes are ended, not waited for."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    meet, begin = Shared(2, _hang), time.monotonic()

    def compute(part):
        meet(part)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.in_processes(compute, PARTS)
    assert time.monotonic() - begin < 300


@forks
@pytest.mark.parametrize("here", [True, False])
def test_an_interrupt_during_a_fork_leaves_nothing_behind(here, monkeypatch):
    """Not in this process, where it is raised, nor in the one that is forked, which must not run on as this one."""
    monkeypatch.setattr(parts, "available", lambda: 3)
    fork, interrupted = os.fork, parts.shared_zeros(1, np.int64)
    files, first = sorted(Path("/proc/self/fd").iterdir()), os.getpid()

    def forking():
        process = fork()
        if bool(process) == here and not interrupted[0]:
            interrupted[0] = 1
            signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(os, "fork", forking)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell puts aside ignores interrupts
    try:
        found = parts.in_processes(lambda part: part * part, PARTS)
    except KeyboardInterrupt:
        found = None
    finally:
        if os.getpid() != first:
            os._exit(1)
        signal.signal(signal.SIGINT, before)
    assert interrupted[0] == 1
    assert found == (None if here else [part * part for part in PARTS])
    assert sorted(Path("/proc/self/fd").iterdir()) == files


@forks
def test_an_error_that_a_signal_raises_is_no_lost_process(monkeypatch):
    """A program's time limit may be an OSError: TimeoutError."""
    monkeypatch.setattr(parts, "available", lambda: 2)

    def limit(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, limit)
    meet, fork = Shared(2, _hang), os.fork

    def forking():
        process = fork()
        if process:
            signal.raise_signal(signal.SIGALRM)
        return process

    def compute(part):
        meet(part)
        signal.raise_signal(signal.SIGALRM)

    try:
        with pytest.raises(TimeoutError):
            parts.in_processes(compute, PARTS)
        monkeypatch.setattr(os, "fork", forking)
        with pytest.raises(TimeoutError):
            parts.in_processes(_square, PARTS)
    finally:
        signal.signal(signal.SIGALRM, before)


@forks
def test_a_process_ends_that_has_nobody_to_send_to(monkeypatch):
    """Its parent may be killed; what it sends may be more than a pipe holds."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    told, ended = os.pipe()
    parent = os.fork()
    if not parent:
        os.close(told)
        meet = Shared(2, lambda: time.sleep(0.3))

        def compute(part):
            _, process = meet(part)
            if process == meet.here:
                os.kill(process, signal.SIGKILL)
            return bytes(1 << 20)

        with contextlib.suppress(BaseException):
            parts.in_processes(compute, PARTS)
        os._exit(0)
    os.close(ended)
    os.waitpid(parent, 0)
    waiting = select.poll()
    waiting.register(told)
    assert waiting.poll(60_000)  # when nobody has the other end open, the orphan has ended too
    os.close(told)


@forks
def test_a_process_whose_ends_nobody_waits_for_is_no_error(monkeypatch):
    """A program may have the system forget its children as they end."""
    monkeypatch.setattr(parts, "available", lambda: 2)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        found = found_of(Shared(2), PARTS)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert [value for value, _ in found] == [part * part for part in PARTS]


def test_one_processor_is_enough_for_one(monkeypatch):
    """Where there is one processor only, there is nothing to share."""
    monkeypatch.setattr(parts, "available", lambda: 1)
    assert not parts.can_fork()
