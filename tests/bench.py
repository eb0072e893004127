"""Measures speed and memory, each as a ratio against something named in the same run: `nox -s bench -- [PART…]`."""

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from karat import cli, formats, noise
from karat.compare import Predicted, compare
from karat.suites import find_repository

REPEATS = 5
ELEMENTS = 1 << 26


def cpu_seconds(words: list[str]) -> float:
    """Return the processor time of a command, the median of several runs."""
    times = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times)


def seconds(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the wall time of each call, the median of several, taken in turns: what else runs slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def bench_commands() -> None:
    """Compare the commands with starting Python and importing NumPy."""
    python, karat = sys.executable, [sys.executable, "-m", "karat.cli"]
    base = cpu_seconds([python, "-c", "import numpy"])
    print(f"{'python -c import numpy':40} {base:6.2f} s CPU")
    dumps = Path(tempfile.mkdtemp())
    try:
        cli.main(["export", "gpt2/tiny-*", "--to", str(dumps)])
        dump_plain(dumps)
        for name, words in (
            ("karat --help", [*karat, "--help"]),
            ("karat list gpt2", [*karat, "list", "gpt2"]),
            ("karat gate", [*karat, "gate"]),
            ("karat check dir: (all tiny cases)", [*karat, "check", f"dir:{dumps}"]),
            ("karat check py:candidates/plain tiny-*", [*karat, "check", "py:candidates/plain", "gpt2/tiny-*"]),
        ):
            taken = cpu_seconds(words)
            print(f"{name:40} {taken:6.2f} s CPU  {taken / base:5.1f} times python -c import numpy")
    finally:
        shutil.rmtree(dumps)


def dump_plain(dumps: Path) -> None:
    """Compute the exported cases with the plain candidate, through the worker that runs `py:` candidates."""
    for case in (dumps / "gpt2").iterdir():
        request = f'{{"function": "gpt2", "inputs": "{case}", "outputs": "{case}"}}\n'
        words = [sys.executable, "-m", "karat.worker", "candidates/plain"]
        subprocess.run(words, input=request.encode(), check=True, stdout=subprocess.DEVNULL)


def bench_compare() -> None:
    """Compare `compare`, with noise scales, with the comparisons of torch and NumPy: a correct float32 candidate."""
    import torch

    random = np.random.Generator(np.random.Philox(key=0))
    golden = random.standard_normal((ELEMENTS >> 12, 1 << 12))
    candidate = golden.astype(np.float32)
    unit = formats.lookup("float32").unit_roundoff
    rounding = noise.encode(np.abs(golden) * (unit / np.sqrt(3)))
    accumulation = noise.encode(random.uniform(0.3, 0.6, golden.shape) * unit)
    allowance = Predicted((rounding, accumulation), max_sigma=10)
    judged = torch.from_numpy(candidate), torch.from_numpy(golden)

    def own() -> object:
        return compare(candidate, golden, allowance, significand_bits=24)

    rivals = {
        "torch.testing.assert_close": lambda: torch.testing.assert_close(
            *judged, rtol=1e-5, atol=1e-5, check_dtype=False
        ),
        "numpy.testing.assert_allclose": lambda: np.testing.assert_allclose(candidate, golden, rtol=1e-5, atol=1e-5),
        "numpy.allclose": lambda: np.allclose(candidate, golden, rtol=1e-5, atol=1e-5),
    }
    memory = {}
    if Path("/proc/self/smaps_rollup").exists():  # on Linux; measured before what is freed is kept for later
        memory = {"karat.compare": peak(own), "numpy.allclose": peak(rivals["numpy.allclose"])}
    taken = seconds({"karat.compare, all statistics": own} | rivals)
    first = next(iter(taken.values()))
    for name, value in taken.items():
        print(f"{name:40} {value:6.3f} s for {ELEMENTS >> 20} Mi elements; karat is {value / first:.1f} times as fast")
    for name, value in memory.items():
        print(f"{'extra memory of ' + name:40} {value:6.1f} MiB")


def peak(function: Callable[[], object]) -> float:
    """Return the most memory that a call and its processes take, in MiB; of a page that n share, each has 1 / n."""
    base, most, running = resident(), 0, True

    def watch() -> None:
        nonlocal most
        while running:
            most = max(most, resident() - base)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(REPEATS):
            function()
    finally:
        running = False
        watcher.join()
    return most / 2**10


def resident() -> int:
    """Return the proportional set size of this process and of its children, in KiB."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = 0
    for process in ("self", *children):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def bench_script(name: str) -> None:
    """Run another script of this folder."""
    subprocess.run([sys.executable, "-P", f"tests/{name}"], check=True)


PARTS: dict[str, Callable[[], None]] = {
    "commands": bench_commands,
    "compare": bench_compare,
    "claims": lambda: bench_script("bench_claims.py"),
    "rivals": lambda: bench_script("bench_rivals.py"),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all, about 20 minutes")
    wanted = parser.parse_args().parts
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    os.chdir(find_repository(Path(__file__).parent).root)
    for part in wanted or PARTS:
        PARTS[part]()
