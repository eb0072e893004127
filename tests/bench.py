"""Measures speed and memory, each as a ratio against something named in the same run: `nox -s bench`."""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from karat import cli
from karat.compare import compare
from karat.suites import find_repository

REPEATS = 5
ELEMENTS = 1 << 24


def cpu_seconds(words: list[str]) -> float:
    """Return the processor time of a command, the median of several runs."""
    times = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times)


def seconds(function: Callable[[], object]) -> float:
    """Return the wall time of a call, the median of several."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


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
    """Compare `compare` with the comparisons of torch and NumPy on the same arrays."""
    import torch

    random = np.random.Generator(np.random.Philox(key=0))
    golden = random.standard_normal(ELEMENTS)
    candidate = golden.astype(np.float32)
    judged = torch.from_numpy(candidate.astype(np.float64)), torch.from_numpy(golden)
    own = seconds(lambda: compare(candidate, golden, rtol=1e-5, atol=1e-5))
    rivals = {
        "torch.testing.assert_close": lambda: torch.testing.assert_close(*judged, rtol=1e-5, atol=1e-5),
        "numpy.testing.assert_allclose": lambda: np.testing.assert_allclose(candidate, golden, rtol=1e-5, atol=1e-5),
        "numpy.allclose": lambda: np.allclose(candidate, golden, rtol=1e-5, atol=1e-5),
    }
    print(f"{'karat.compare, all statistics':40} {own:6.3f} s for {ELEMENTS >> 20} Mi elements")
    for name, call in rivals.items():
        taken = seconds(call)
        print(f"{name:40} {taken:6.3f} s  karat takes {own / taken:.2f} times that")
    most = peak(lambda: compare(candidate, golden, rtol=1e-5, atol=1e-5))
    print(f"{'extra memory of karat.compare':40} {most:6.1f} MiB")
    print(f"{'extra memory of numpy.allclose':40} {peak(rivals['numpy.allclose']):6.1f} MiB")


def peak(function: Callable[[], object]) -> float:
    """Return the most memory that a call allocates, in MiB."""
    tracemalloc.start()
    function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20


if __name__ == "__main__":
    os.chdir(find_repository(Path(__file__).parent).root)
    bench_commands()
    bench_compare()
