"""Freezes goldens: contract -> inputs -> reference twice -> witness -> files and manifest, moved in whole.

`python -m karat.freeze SUITE…` is what `nox -s goldens` runs. The only module that runs a reference.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import goldens, inputs, sources
from karat.errors import FreezeError, KaratError, UsageError
from karat.evidence import EVIDENCE, PLOT
from karat.faults import load_faults
from karat.freeze_case import (
    WITNESS_LIMIT,
    Arrays,
    FrozenCase,
    apart,
    draw_inputs,
    freeze_case,
    generator_at,
    judged_elements,
)
from karat.noise import DRAWS
from karat.suites import Case, Repository, Suite, find_repository, load_by_path
from karat.tolerances import read_tolerances

__all__ = ["FreezeError", "beside", "drift", "freeze", "main", "plain_candidate"]


def beside(file: str, name: str) -> ModuleType:
    """Return the module `name` in the folder of `file` or above it; for generators, which are not a package."""
    return load_by_path(sources.beside(Path(file), name))


def plain_candidate(file: str, suite: str, case: Case, given: Mapping[str, NDArray[Any]]) -> Arrays:
    """Run the bundled plain candidate of `suite` on `given` in float64; `file` is the generator that asks."""
    path = find_repository(Path(file).parent).plain(suite)
    arrays = inputs.nest({name: _double(array) for name, array in given.items()})
    found: Arrays = getattr(load_by_path(path), suite)(**arrays, **case.params)
    return found


def _double(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def freeze(repository: Repository, name: str, *, weights: str | None = None) -> Path:
    """Freeze the goldens of the suite `name` into a new folder beside the old ones and return its path.

    `weights` is a hub name or a folder of weights that replace the seeded ones: the suite is then `name@weights`.
    Raise `FreezeError` where reference, witness or contract disagree.
    """
    suite, stored, config = repository.suite(name), dict[str, NDArray[Any]](), dict[str, Any]()
    try:
        generator_path = repository.generator(name)
        generator = generator_at(generator_path)
    except ImportError as error:
        raise FreezeError(f"{error}: the reference of {name} needs it; run: {goldens.freeze_command(name)}") from None
    if weights is not None:
        config, stored = generator.weights_from(weights)
        name_of_source = Path(weights).resolve().name if Path(weights).is_dir() else weights.strip("/")
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "--", name_of_source)
        validator = load_by_path(repository.validator(name))
        suite = validator.suite_of_weights(f"{name}@{slug}", config)
    family = repository.folder(suite.name).parent
    family.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{suite.name}.", suffix=".new", dir=family))
    folder.chmod(0o755)
    try:
        _freeze_into(folder, repository, suite, generator_path, weights, config, stored)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def _freeze_into(
    folder: Path,
    repository: Repository,
    suite: Suite,
    generator_path: Path,
    weights: str | None,
    config: Mapping[str, Any],
    stored: Arrays,
) -> None:
    generator = generator_at(generator_path)
    # Functions of contracts do not go to other processes: nor do suites that were found already.
    elsewhere, bare = Repository(repository.root), replace(suite, properties=())
    jobs = [(elsewhere, bare, case, generator_path, stored) for case in suite.cases]
    frozen = (
        _run_all(jobs) if hasattr(generator, "perturbed") and len(jobs) > 1 else [freeze_case(*job) for job in jobs]
    )
    found = {case.name: entry.found for case, entry in zip(suite.cases, frozen, strict=True)}
    files: list[tuple[str, Arrays]] = [("inputs.safetensors", stored)] if stored else []
    files += [file for entry in frozen for file in entry.files]
    worst = max((entry.disagreement for entry in frozen), key=lambda disagreement: disagreement[0])
    precision = max(entry.precision for entry in frozen)
    if config:
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    computed = replace(suite, cases=tuple(case for case in suite.cases if not case.refuses))
    checks = generator.checks(computed, found, lambda case: draw_inputs(repository, suite, case, stored))
    checks += generator.known_values(weights, config, found)
    content = {
        "suite": suite.name,
        "contract": goldens.source_rows(repository, [repository.validator(suite.name)])[0],
        "generator": goldens.source_rows(repository, goldens.generator_files(repository, suite)),
        "weights": weights,
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in ("numpy", *generator.VERSIONS)},
        "platform": f"{platform.system()} {platform.machine()}",
        "witness": {"name": generator.WITNESS, "limit": WITNESS_LIMIT, "worst": worst[0], "at": worst[1]},
        "noise": {"draws": DRAWS, "precision": round(precision, 3)} if precision else None,
        "method": sources.method(suite, read_tolerances(repository.root / "tolerances.toml")),
        "packed": goldens.part_file(suite, "") if suite.packed else None,
        "faults": [{"fault": fault.name, "text": fault.text} for fault in load_faults(repository, suite)],
        "signatures": _where_mistakes(repository, suite, frozen),
        "certain": [row for entry in frozen for row in entry.certain],
        "checks": checks,
        "cases": [{"case": case.name, "params": dict(case.params)} for case in suite.cases],
        "inputs": [row for entry in frozen for row in entry.inputs],
        "goldens": [row for entry in frozen for row in entry.goldens],
    }
    goldens.write_set(folder, content, files)


def _where_mistakes(repository: Repository, suite: Suite, frozen: Sequence[FrozenCase]) -> list[dict[str, Any]]:
    """Return the rows of all signatures, with their noise under those contracts alone under which each is a mistake.

    What a contract allows, such as operands of 11 bits, is nobody's fault there, though its direction is the same.
    """
    wrong_under = {fault.name: fault.contracts for fault in load_faults(repository, suite)}
    rows = []
    for row in (row for entry in frozen for row in entry.signatures):
        contracts = wrong_under[row["fault"]] or tuple(row["errors"])
        rows.append({**row, "errors": {name: error for name, error in row["errors"].items() if name in contracts}})
    return rows


def _run_all(jobs: Sequence[tuple[Repository, Suite, Case, Path, Arrays]]) -> list[FrozenCase]:
    """Freeze cases in processes of their own, each with one thread: last bits depend on the number of threads."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)  # read by a process when it starts
    try:
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            largest_first = sorted(range(len(jobs)), key=lambda index: -_size(jobs[index][2]))
            futures = {index: pool.submit(freeze_case, *jobs[index]) for index in largest_first}
            return [futures[index].result() for index in range(len(jobs))]
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _size(case: Case) -> int:
    return sum(math.prod(checkpoint.shape) for checkpoint in case.checkpoints)


def drift(repository: Repository, suite: Suite, fresh: Path) -> tuple[float, str]:
    """Compare a fresh freeze with the frozen set, judged elements only; return the largest difference and its place.

    The difference is in units of the checkpoint's largest value. Raise `GoldenError` if the frozen set is missing or
    damaged.
    """
    frozen = goldens.GoldenSet.open(repository, suite.name)
    new = goldens.GoldenSet(suite.name, fresh, goldens.read_manifest(fresh / goldens.MANIFEST, suite.name))
    worst = (0.0, "")
    for case in suite.cases:
        arrays = new.padding(case)
        for checkpoint in case.computed:
            old, now = frozen.golden(case.name, checkpoint.name), new.golden(case.name, checkpoint.name)
            place = f"{suite.name}/{case.name}/{checkpoint.name}"
            if old.shape != now.shape:
                return math.inf, place
            worst = max(worst, (apart(now, old, judged_elements(case, checkpoint, arrays)), place))
    return worst


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m karat.freeze`; return its exit code."""
    parser = argparse.ArgumentParser(prog="nox -s goldens --", description="Freeze goldens from their references.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="default: every suite")
    parser.add_argument("--weights", metavar="SOURCE", help="a hub name or local folder; goldens of these weights")
    parser.add_argument(
        "--verify", action="store_true", help="compare a fresh freeze with the frozen set; change nothing"
    )
    options = parser.parse_args(arguments)
    try:
        repository = find_repository()
        if not Path.cwd().resolve().is_relative_to(repository.root):
            raise UsageError(f"{Path.cwd()} stands in no repository; a freeze writes, so go to the one that you mean")
        names = options.suites or [name for name in repository.suites if "@" not in name]
        if options.weights and len(names) != 1:
            parser.error("--weights needs exactly one SUITE")
        return max(_one(repository, name, options.weights, verify=options.verify) for name in names)
    except KaratError as error:
        print(f"karat: {error}", file=sys.stderr)
        return error.exit_code


def _one(repository: Repository, name: str, weights: str | None, *, verify: bool) -> int:
    fresh = freeze(repository, name, weights=weights)
    suite_name = json.loads((fresh / goldens.MANIFEST).read_text(encoding="utf-8"))["suite"]
    target = repository.folder(suite_name)
    if verify:
        try:
            worst, place = drift(repository, repository.suite(suite_name), fresh)
        finally:
            shutil.rmtree(fresh)
        agrees = worst <= WITNESS_LIMIT
        print(
            f"{suite_name}: {'agrees' if agrees else 'DRIFTED'}: {worst:.2e} of the scale at {place or 'no checkpoint'}"
        )
        return 0 if agrees else 3
    for kept in (EVIDENCE, PLOT, goldens.VISIBILITY):  # it knows itself what it was gathered from
        if (target / kept).is_file():
            shutil.copyfile(target / kept, fresh / kept)
    goldens.move_in(fresh, target)
    print(f"frozen: {target.relative_to(repository.root)}")
    manifest = goldens.read_manifest(target / goldens.MANIFEST, suite_name)
    for line in manifest["checks"]:
        print(f"  {line}")
    witness = manifest["witness"]
    print(f"  witness: {witness['name']}: apart by {witness['worst']:.1e} of the scale at most ({witness['at']})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
