"""Freezes goldens: contract -> inputs -> reference twice -> witness -> files and manifest, moved in whole.

`python -m karat.freeze SUITE…` is what `nox -s goldens` runs. The only module that runs a reference.
"""

from __future__ import annotations

import argparse
import functools
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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import formats, goldens, inputs, tolerances
from karat.candidates import Request
from karat.errors import KaratError
from karat.exchange import Outputs
from karat.faults import FaultyCandidate, load_faults, visible_cases
from karat.inputs import Stored
from karat.noise import DRAWS
from karat.replays import Frame, Replays, signatures_of
from karat.suites import Case, Checkpoint, Repository, Suite, find_repository, load_by_path

WITNESS_LIMIT = 1e-12
"""How far witness and golden may be apart, in units of the largest |golden| of the checkpoint."""

WORST_PRECISION = 0.2
"""How well a noise scale must be known, relative; 24 normal draws give 0.14."""

Arrays = dict[str, NDArray[Any]]


class FreezeError(KaratError):
    """The reference cannot be trusted with this case; nothing was frozen and the old goldens are untouched."""

    exit_code = 3


def beside(file: str, name: str) -> ModuleType:
    """Return the module `name` that stands in the folder of `file`; for generators, which are not a package."""
    return load_by_path(Path(file).with_name(f"{name}.py"))


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
        generator = _generator_at(generator_path)
    except ImportError as error:
        raise FreezeError(f"{error}: the reference of {name} needs it; run: {goldens.freeze_command(name)}") from None
    if weights is not None:
        config, stored = generator.weights_from(weights)
        name_of_source = Path(weights).resolve().name if Path(weights).is_dir() else weights.strip("/")
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "--", name_of_source)
        validator = load_by_path(repository.validator(name))
        suite = validator.suite_of_weights(f"{name}@{slug}", config)
    repository.goldens.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{suite.name}.", suffix=".new", dir=repository.goldens))
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
    generator = _generator_at(generator_path)
    jobs = [(repository, suite, case, generator_path, stored) for case in suite.cases]
    frozen = (
        _run_all(jobs) if hasattr(generator, "perturbed") and len(jobs) > 1 else [_freeze_case(*job) for job in jobs]
    )
    found = {case.name: entry.found for case, entry in zip(suite.cases, frozen, strict=True)}
    files: list[tuple[str, Arrays]] = [("inputs.safetensors", stored)] if stored else []
    files += [file for entry in frozen for file in entry.files]
    worst = max((entry.disagreement for entry in frozen), key=lambda disagreement: disagreement[0])
    precision = max(entry.precision for entry in frozen)
    if config:
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    checks = generator.checks(suite, found, lambda case: _inputs(repository, suite, case, stored))
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
        "faults": [{"fault": fault.name, "text": fault.text} for fault in load_faults(repository, suite)],
        "signatures": [row for entry in frozen for row in entry.signatures],
        "checks": checks,
        "cases": [{"case": case.name, "params": dict(case.params)} for case in suite.cases],
        "inputs": [row for entry in frozen for row in entry.inputs],
        "goldens": [row for entry in frozen for row in entry.goldens],
    }
    goldens.write_set(folder, content, files)


@dataclass(frozen=True)
class _FrozenCase:
    """One case: its arrays, its manifest rows, its files, and how exact they are."""

    found: Arrays
    inputs: list[dict[str, Any]]
    goldens: list[dict[str, Any]]
    signatures: list[dict[str, Any]]
    files: list[tuple[str, Arrays]]
    disagreement: tuple[float, str]
    precision: float


def _run_all(jobs: Sequence[tuple[Repository, Suite, Case, Path, Arrays]]) -> list[_FrozenCase]:
    """Freeze cases in processes of their own, each with one thread: last bits depend on the number of threads."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)  # read by a process when it starts
    try:
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            largest_first = sorted(range(len(jobs)), key=lambda index: -_size(jobs[index][2]))
            futures = {index: pool.submit(_freeze_case, *jobs[index]) for index in largest_first}
            return [futures[index].result() for index in range(len(jobs))]
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _size(case: Case) -> int:
    return sum(math.prod(checkpoint.shape) for checkpoint in case.checkpoints)


def _freeze_case(repository: Repository, suite: Suite, case: Case, generator_path: Path, stored: Arrays) -> _FrozenCase:
    """Compute all that is frozen of one case."""
    print(f"freezing {suite.name}/{case.name}", flush=True)
    generator = _generator_at(generator_path)
    arrays = _inputs(repository, suite, case, stored)
    found = _reference(suite, case, arrays, generator)
    disagreement = _witnessed(suite, case, arrays, found, generator)
    measured = _measured(repository, suite, case, arrays, found, generator)
    file = f"{case.name}.safetensors"
    kept = {point.name: np.ascontiguousarray(found[point.name][point.kept_index]) for point in case.checkpoints}
    return _FrozenCase(
        found=found,
        inputs=[
            goldens.input_row(
                case.name, name, recipe, arrays[name], "inputs.safetensors" if isinstance(recipe, Stored) else None
            )
            for name, recipe in case.inputs.items()
        ],
        goldens=[
            goldens.golden_row(case, point, file, kept[point.name], arrays) | measured.rows.get(point.name, {})
            for point in case.checkpoints
        ],
        signatures=measured.signatures,
        files=[(file, kept), *measured.files],
        disagreement=disagreement,
        precision=measured.precision,
    )


def _generator_at(path: Path) -> ModuleType:
    """Return the generator in the file `path`, loaded once a process unless it is edited."""
    return _load_once(path, goldens.sha256_of_file(path))


@functools.lru_cache(maxsize=1)
def _load_once(path: Path, _: str) -> ModuleType:
    return load_by_path(path)


@dataclass(frozen=True)
class _Measured:
    """What replays and planted faults gave for one case: manifest rows, files, and how well the scales are known."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: list[tuple[str, Arrays]] = field(default_factory=list)
    signatures: list[dict[str, Any]] = field(default_factory=list)
    precision: float = 0.0


def _measured(
    repository: Repository, suite: Suite, case: Case, arrays: Arrays, golden: Arrays, generator: ModuleType
) -> _Measured:
    """Measure a case's noise, where its generator can replay the reference, and the faults that its goldens see."""
    if not hasattr(generator, "perturbed"):
        return _Measured()
    known = tolerances.read_tolerances(repository.root / "tolerances.toml")
    contracts = [known.contract(name) for name in suite.contracts_of(case)]
    replays = Replays.of(case, arrays, golden, generator, contracts)
    precision = replays.precision()
    if precision > WORST_PRECISION:
        raise FreezeError(
            f"{suite.name}/{case.name}: noise scales are known to {precision:.0%} only, allowed {WORST_PRECISION:.0%}:"
            " draw more often (karat.noise.DRAWS)"
        )
    frames: dict[str, Frame] = {}
    rows: dict[str, dict[str, Any]] = {}
    codes: Arrays = {}
    for point in case.checkpoints:
        if point.dtype == "storage":
            frame = Frame.of(case, point, arrays, golden[point.name][point.kept_index], replays, contracts)
            frames[point.name] = frame
            rows[point.name] = {
                "noise": {kind: scale.top for kind, scale in frame.scales.items()},
                "gain": frame.errors_along(frame.golden),
                "bias": frame.errors_along(None),
            }
            codes |= {f"{point.name}/{kind}": scale.codes for kind, scale in frame.scales.items()}
    files = [(goldens.noise_file(case.name), codes)]
    faulty = _faulty_outputs(repository, suite, case, arrays)
    visible = known.signatures.visible if known.signatures is not None else math.inf
    signatures = signatures_of(case, arrays, golden, faulty, frames, outputs=suite.outputs, visible=visible)
    if signatures.tensors:
        files.append((goldens.signature_file(case.name), signatures.tensors))
    return _Measured(rows, files, signatures.rows, precision)


def _faulty_outputs(repository: Repository, suite: Suite, case: Case, arrays: Arrays) -> Iterator[tuple[str, Arrays]]:
    """Yield each fault with what the plain candidate that has it produces in float64, unless it raises."""
    if case not in visible_cases(suite) or "@" in suite.name:
        return
    double = tolerances.Contract("float64", "float64", "float64", "float64", "each operation")
    request = Request(suite, case, double, arrays, goldens.GoldenSet(suite.name, Path(), {}))
    for fault in load_faults(repository, suite):
        outcome = FaultyCandidate(repository.plain(suite.name), suite.function, fault).run(request)
        if isinstance(outcome, Outputs):
            yield fault.name, {name: tensor.load() for name, tensor in outcome.tensors.items()}


def _inputs(repository: Repository, suite: Suite, case: Case, stored: Arrays) -> Arrays:
    contracts = tolerances.read_tolerances(repository.root / "tolerances.toml")
    arrays = {
        name: stored[name] if isinstance(recipe, Stored) else recipe.draw() for name, recipe in case.inputs.items()
    }
    for contract in suite.contracts_of(case):
        storage = contracts.contract(contract).storage
        for name, array in arrays.items():
            if array.dtype.kind == "f" and (index := formats.off_grid(array, storage)) is not None:
                raise FreezeError(
                    f"{suite.name}/{case.name}: input {name!r} is {array[index]!r} at {index}, which {storage} would"
                    f" round: under the contract {contract} a candidate would start from other numbers"
                )
    return arrays


def _reference(suite: Suite, case: Case, arrays: Arrays, generator: ModuleType) -> Arrays:
    """Run the reference twice; check that both agree to the last bit and that the contract is fulfilled."""
    first, second = generator.reference(case, arrays), generator.reference(case, arrays)
    for checkpoint in case.checkpoints:
        place = f"{suite.name}/{case.name}/{checkpoint.name}"
        array = first.get(checkpoint.name)
        if not isinstance(array, np.ndarray):
            raise FreezeError(f"{place}: the reference does not produce it, or not as an array")
        wanted = {"storage": "float64", "integer": "int64", "bool": "bool"}[checkpoint.dtype]
        if array.shape != checkpoint.shape or array.dtype.name != wanted:
            raise FreezeError(
                f"{place}: the reference gives {array.dtype.name} {array.shape}, contract: {wanted} {checkpoint.shape}"
            )
        if array.tobytes() != second[checkpoint.name].tobytes():
            raise FreezeError(f"{place}: the reference gives other bits when it runs again")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FreezeError(f"{place}: the reference gives values that are not finite")
    return {checkpoint.name: first[checkpoint.name] for checkpoint in case.checkpoints}


def _witnessed(suite: Suite, case: Case, arrays: Arrays, found: Arrays, generator: ModuleType) -> tuple[float, str]:
    """Compare with the witness; return the worst disagreement, in units of a checkpoint's scale, and its place."""
    second = generator.witness(case, arrays)
    worst = (0.0, "")
    for checkpoint in case.checkpoints:
        place = f"{suite.name}/{case.name}/{checkpoint.name}"
        other = np.asarray(second.get(checkpoint.name, ()))
        if other.shape != checkpoint.shape:
            raise FreezeError(f"{place}: the witness ({generator.WITNESS}) gives {other.shape}, not {checkpoint.shape}")
        cut = checkpoint.kept_index
        judged = np.broadcast_to(_judged(case, checkpoint, arrays), checkpoint.kept_shape)
        if judged.size and not judged.any():
            raise FreezeError(f"{place}: nothing of it is judged: all that is kept is padding")
        apart = _apart(other[cut], found[checkpoint.name][cut], judged)
        if not apart <= (WITNESS_LIMIT if checkpoint.dtype == "storage" else 0):
            raise FreezeError(
                f"{place}: the witness ({generator.WITNESS}) differs by {apart:.2e} of the checkpoint's scale, allowed"
                f" {WITNESS_LIMIT}: one of the two is wrong"
            )
        worst = max(worst, (apart, place))
    return worst


def _apart(candidate: NDArray[Any], golden: NDArray[Any], judged: NDArray[np.bool_]) -> float:
    """Return the largest difference over the judged elements in units of the largest |golden|, infinite for NaN."""
    counted = np.broadcast_to(judged, golden.shape)
    first, second = candidate[counted].astype(np.float64), golden[counted].astype(np.float64)
    if np.array_equal(first, second):
        return 0.0
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return math.inf
    scale = float(np.abs(second).max())
    return float(np.abs(first - second).max()) / scale if scale else math.inf


def _judged(case: Case, checkpoint: Checkpoint, arrays: Arrays) -> NDArray[np.bool_]:
    judged = case.judged_elements(checkpoint, arrays)
    return np.ones((), bool) if judged is None else judged


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
        for checkpoint in case.checkpoints:
            old, now = frozen.golden(case.name, checkpoint.name), new.golden(case.name, checkpoint.name)
            place = f"{suite.name}/{case.name}/{checkpoint.name}"
            if old.shape != now.shape:
                return math.inf, place
            worst = max(worst, (_apart(now, old, _judged(case, checkpoint, arrays)), place))
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
    target = repository.goldens / suite_name
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
