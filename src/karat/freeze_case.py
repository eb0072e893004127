"""Computes all that is frozen of one case: reference twice, witness, noise scales, signatures."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import formats, goldens, noise, tolerances
from karat.candidates import Failure, Request
from karat.errors import FreezeError
from karat.exchange import Outputs
from karat.faults import FaultyCandidate, load_faults, visible_cases
from karat.inputs import Stored
from karat.replays import Frame, Replays, signatures_of
from karat.suites import Case, Checkpoint, Repository, Suite, load_by_path

WITNESS_LIMIT = 1e-12
"""How far witness and golden may be apart, in units of the largest |golden| of the checkpoint."""

WORST_PRECISION = 0.2
"""How well a noise scale must be known, relative; 24 normal draws give 0.14."""

WITNESS_SIGMA = 12.0
"""Where conditioning makes that larger, how far they may be apart in sigma of a computation in float64."""

_DOUBLE = tolerances.Contract("float64", "float64", "float64", "float64", "each operation")

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class FrozenCase:
    """One case: its arrays, its manifest rows, its files, and how exact they are."""

    found: Arrays
    inputs: list[dict[str, Any]]
    goldens: list[dict[str, Any]]
    signatures: list[dict[str, Any]]
    certain: list[dict[str, str]]
    files: list[tuple[str, Arrays]]
    disagreement: tuple[float, str]
    precision: float


def freeze_case(repository: Repository, suite: Suite, case: Case, generator_path: Path, stored: Arrays) -> FrozenCase:
    """Compute all that is frozen of one case."""
    print(f"freezing {suite.name}/{case.name}", flush=True)
    generator = generator_at(generator_path)
    arrays = draw_inputs(repository, suite, case, stored)
    found: Arrays = {}
    disagreement = (0.0, "")
    if case.refuses:
        _refused(repository, suite, case, arrays)
    else:
        found = _reference(suite, case, arrays, generator)
    measured = _measured(repository, suite, case, arrays, found, generator)
    if not case.refuses:
        _held(repository, suite, case, found)
        disagreement = _witnessed(suite, case, arrays, found, generator, measured.frames)
    file = goldens.part_file(suite, case.name)
    kept = {point.name: np.asarray(found[point.name][point.kept_index], order="C") for point in case.computed}
    return FrozenCase(
        found=found,
        inputs=[
            goldens.input_row(
                case.name, name, recipe, arrays[name], "inputs.safetensors" if isinstance(recipe, Stored) else None
            )
            for name, recipe in case.inputs.items()
        ],
        goldens=[
            goldens.golden_row(case, point, file, kept[point.name], arrays) | measured.rows.get(point.name, {})
            for point in case.computed
        ],
        signatures=measured.signatures,
        certain=measured.certain,
        files=[*([(f"{case.name}.safetensors", kept)] if kept else []), *measured.files],
        disagreement=disagreement,
        precision=measured.precision,
    )


def generator_at(path: Path) -> ModuleType:
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
    certain: list[dict[str, str]] = field(default_factory=list)
    precision: float = 0.0
    frames: dict[str, Frame] = field(default_factory=dict)


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
    for point in case.computed:
        if point.floating:
            frame = Frame.of(case, point, arrays, golden[point.name][point.kept_index], replays, contracts)
            frames[point.name] = frame
            rows[point.name] = {
                "noise": {kind: scale.top for kind, scale in frame.scales.items()},
                "gain": frame.errors_along(frame.golden),
                "bias": frame.errors_along(None),
            }
            codes |= {f"{point.name}/{kind}": scale.codes for kind, scale in frame.scales.items()}
    files = [(f"{case.name}{goldens.NOISE}.safetensors", codes)] if codes else []
    faulty = _faulty_outputs(repository, suite, case, arrays, golden)
    visible = known.signatures.visible if known.signatures is not None else math.inf
    signatures = signatures_of(case, arrays, golden, faulty, frames, outputs=suite.outputs, visible=visible)
    if signatures.tensors:
        files.append((f"{case.name}{goldens.SIGNATURES}.safetensors", signatures.tensors))
    return _Measured(rows, files, signatures.rows, signatures.certain, precision, frames)


def _faulty_outputs(
    repository: Repository, suite: Suite, case: Case, arrays: Arrays, golden: Arrays
) -> Iterator[tuple[str, Arrays | None]]:
    """Yield each fault with what the plain candidate that has it produces in float64, None where it raises.

    What a fault leaves as the plain candidate has it, to the last bit, is given as the golden has it: that candidate's
    own rounding is no sign of a mistake.
    """
    if case not in visible_cases(suite) or "@" in suite.name:
        return
    request = Request(suite, case, _DOUBLE, arrays, goldens.GoldenSet(suite.name, Path(), {}))
    plain = _arrays_of(FaultyCandidate(repository.plain(suite.name), suite.function, None).run(request)) or {}
    for fault in load_faults(repository, suite):
        found = _arrays_of(FaultyCandidate(repository.plain(suite.name), suite.function, fault).run(request))
        yield (
            fault.name,
            None if found is None else {n: _without_rounding(n, a, plain, golden) for n, a in found.items()},
        )


def _arrays_of(outcome: Outputs | Failure) -> Arrays | None:
    if isinstance(outcome, Failure):
        return None
    return {name: tensor.load() for name, tensor in outcome.tensors.items()}


def _without_rounding(name: str, array: NDArray[Any], plain: Arrays, golden: Arrays) -> NDArray[Any]:
    """Return a faulty array with the golden's values where it has the plain candidate's."""
    if name not in golden or name not in plain or not array.shape == plain[name].shape == golden[name].shape:
        return array
    return np.where(_same(array, plain[name]), golden[name], array)


def _same(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
    if first.dtype.kind != "f" or second.dtype.kind != "f":
        return np.asarray(first == second)
    return np.asarray((first == second) | (np.isnan(first) & np.isnan(second)))


def draw_inputs(repository: Repository, suite: Suite, case: Case, stored: Arrays) -> Arrays:
    """Return the inputs of `case` by name; raise `FreezeError` where a contract's storage would round one."""
    contracts = tolerances.read_tolerances(repository.root / "tolerances.toml")
    arrays = {
        name: stored[name] if isinstance(recipe, Stored) else recipe.draw() for name, recipe in case.inputs.items()
    }
    for contract in suite.contracts_of(case):
        storage = contracts.contract(contract).storage
        for name, array in arrays.items():
            wanted = case.fixed.get(name, storage)
            if array.dtype.kind == "f" and (index := formats.off_grid(array, wanted)) is not None:
                raise FreezeError(
                    f"{suite.name}/{case.name}: input {name!r} is {array[index]!r} at {index}, which {wanted} would"
                    f" round: under the contract {contract} a candidate would start from other numbers"
                )
    return arrays


def _reference(suite: Suite, case: Case, arrays: Arrays, generator: ModuleType) -> Arrays:
    """Run the reference twice; check that both agree to the last bit and that the contract is fulfilled."""
    first, second = generator.reference(case, arrays), generator.reference(case, arrays)
    for checkpoint in case.computed:
        place = f"{suite.name}/{case.name}/{checkpoint.name}"
        array = first.get(checkpoint.name)
        if not isinstance(array, np.ndarray):
            raise FreezeError(f"{place}: the reference does not produce it, or not as an array")
        wanted = "float64" if checkpoint.floating else {"integer": "int64", "bool": "bool"}[checkpoint.dtype]
        if array.shape != checkpoint.shape or array.dtype.name != wanted:
            raise FreezeError(
                f"{place}: the reference gives {array.dtype.name} {array.shape}, contract: {wanted} {checkpoint.shape}"
            )
        if array.tobytes() != second[checkpoint.name].tobytes():
            raise FreezeError(f"{place}: the reference gives other bits when it runs again")
        if array.dtype.kind == "f" and not checkpoint.nonfinite and not np.isfinite(array).all():
            raise FreezeError(
                f"{place}: the reference gives values that are not finite, and no `nonfinite` allows them"
            )
    return {checkpoint.name: first[checkpoint.name] for checkpoint in case.computed}


def _refused(repository: Repository, suite: Suite, case: Case, arrays: Arrays) -> None:
    """Raise `FreezeError` unless the plain candidate refuses what the contract says must be refused."""
    request = Request(suite, case, _DOUBLE, arrays, goldens.GoldenSet(suite.name, Path(), {}))
    if isinstance(FaultyCandidate(repository.plain(suite.name), suite.function, None).run(request), Outputs):
        raise FreezeError(f"{suite.name}/{case.name}: the plain candidate answers, and must refuse: {case.refuses}")


def _held(repository: Repository, suite: Suite, case: Case, found: Arrays) -> None:
    """Raise `FreezeError` where a contract's format has no number as large as a golden's."""
    known = tolerances.read_tolerances(repository.root / "tolerances.toml")
    for contract in suite.contracts_of(case):
        for point in case.computed:
            if point.floating:
                promised = known.contract(contract)
                name = promised.accumulation if point.dtype == "accumulation" else promised.storage
                values = found[point.name][point.kept_index]
                largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
                if largest > formats.lookup(name).largest:
                    raise FreezeError(
                        f"{suite.name}/{case.name}/{point.name}: {largest:.4g} is beyond what {name} holds"
                        f" ({formats.lookup(name).largest:.4g}); leave the contract {contract} out of Case.contracts"
                    )


def _witnessed(
    suite: Suite, case: Case, arrays: Arrays, found: Arrays, generator: ModuleType, frames: Mapping[str, Frame]
) -> tuple[float, str]:
    """Compare with the witness; return the worst disagreement, in units of a checkpoint's scale, and its place."""
    second = generator.witness(case, arrays)
    worst = (0.0, "")
    for checkpoint in case.computed:
        place = f"{suite.name}/{case.name}/{checkpoint.name}"
        other = np.asarray(second.get(checkpoint.name, ()))
        if other.shape != checkpoint.shape:
            raise FreezeError(f"{place}: the witness ({generator.WITNESS}) gives {other.shape}, not {checkpoint.shape}")
        judged = np.broadcast_to(judged_elements(case, checkpoint, arrays), checkpoint.kept_shape)
        if judged.size and not judged.any():
            raise FreezeError(f"{place}: nothing of it is judged: all that is kept is padding")
        golden = found[checkpoint.name][checkpoint.kept_index]
        other = checkpoint.aligned(other[checkpoint.kept_index], golden)
        difference = apart(other, golden, judged, frames.get(checkpoint.name))
        if not difference <= (WITNESS_LIMIT if checkpoint.floating else 0):
            raise FreezeError(
                f"{place}: the witness ({generator.WITNESS}) differs by {difference:.2e} of the checkpoint's scale,"
                f" allowed {WITNESS_LIMIT}, and by more than its noise: one of the two is wrong"
            )
        worst = max(worst, (difference, place))
    return worst


def apart(
    candidate: NDArray[Any], golden: NDArray[Any], judged: NDArray[np.bool_], frame: Frame | None = None
) -> float:
    """Return the largest difference over the judged elements in units of the largest |golden|, infinite for NaN.

    With `frame`, what lies within the noise of float64 counts as no more than `WITNESS_LIMIT`.
    """
    counted = np.broadcast_to(judged, golden.shape)
    first, second = candidate[counted].astype(np.float64), golden[counted].astype(np.float64)
    if np.array_equal(first, second, equal_nan=True):
        return 0.0
    finite = np.isfinite(second)
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True) or not np.isfinite(first[finite]).all():
        return math.inf
    difference = np.abs(np.where(finite, first, 0) - np.where(finite, second, 0))
    scale = float(np.abs(second[finite]).max())
    if frame is not None:
        predicted = noise.prediction(frame.scales, _DOUBLE, WITNESS_SIGMA)
        sigma = np.sqrt(noise.variance(predicted, np.where(np.isfinite(golden), golden, 0)))[counted]
        within = difference <= WITNESS_SIGMA * sigma
        difference[within] = np.minimum(difference[within], WITNESS_LIMIT * scale)
    return float(difference.max()) / scale if scale else math.inf


def judged_elements(case: Case, checkpoint: Checkpoint, arrays: Arrays) -> NDArray[np.bool_]:
    """Return where `checkpoint` is judged, broadcastable to its kept shape."""
    judged = case.judged_elements(checkpoint, arrays)
    return np.ones((), bool) if judged is None else judged
