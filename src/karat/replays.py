"""What a freeze learns from replaying the reference under noise: scales, the noise of gain and bias, signatures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import noise
from karat.compare import Floats, Scale
from karat.errors import FreezeError
from karat.signatures import clear_of_zero
from karat.suites import Case, Checkpoint
from karat.tolerances import Contract

_LARGEST_OUTPUT = 1 << 12
"""Elements up to which a fault that shows before is frozen at an output too: a case of few tokens is enough."""
_SHOWS = 1e-12
"""A fault shows where it changes a value by more than this part of the checkpoint's largest value."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Replays:
    """The draws of one case: by checkpoint and kind, float32 of shape (draws, kept elements)."""

    draws: Mapping[str, Mapping[str, NDArray[np.float32]]]

    @staticmethod
    def of(case: Case, inputs: Arrays, golden: Arrays, generator: ModuleType, contracts: Sequence[Contract]) -> Replays:
        """Replay the reference of `case`, `karat.noise.DRAWS` times for each kind of noise that its contracts have."""
        points = [point for point in case.computed if point.floating]
        kinds = noise.kinds_needed(contracts) if points else []
        found: dict[str, dict[str, NDArray[np.float32]]] = {
            point.name: {kind: np.empty((noise.DRAWS, math.prod(point.kept_shape)), np.float32) for kind in kinds}
            for point in points
        }
        for kind in kinds:
            for number in range(noise.DRAWS):
                replay = generator.perturbed(case, inputs, kind, number)
                for point in points:
                    wanted = golden[point.name][point.kept_index]
                    perturbed = point.aligned(replay[point.name][point.kept_index], wanted)
                    with np.errstate(invalid="ignore"):
                        error = np.where(np.isfinite(wanted), perturbed - wanted, 0.0) / generator.NOISE_STEP
                    if not np.isfinite(error).all():
                        raise FreezeError(f"{case.name}/{point.name}: not finite any more under noise")
                    found[point.name][kind][number] = error.reshape(-1)
        return Replays(found)

    def scales(self, checkpoint: str, golden: Floats, judged: NDArray[np.bool_]) -> dict[str, Scale]:
        """Return the noise scales of a checkpoint by kind, of the shape of `golden`, its kept part.

        They are 0 where nothing is judged, as `judged`, of the same shape, says.
        """
        scales = {}
        for kind, draws in self.draws[checkpoint].items():
            square = np.mean(np.square(draws, dtype=np.float64), axis=0).reshape(golden.shape)
            if kind == "rounding":
                square += np.square(np.where(judged, golden, 0)) / 3
            scales[kind] = noise.encode(np.where(judged, np.sqrt(square), 0))
        return scales

    def precision(self) -> float:
        """Return how well a scale is known, relative: the median over the checkpoints and kinds."""
        known = [noise.precision(draws) for kinds in self.draws.values() for draws in kinds.values()]
        return float(np.median([value for value in known if value > 0] or [0.0]))


@dataclass(frozen=True)
class Frame:
    """The judged elements of one checkpoint's golden, and the noise on them under each contract.

    Attributes:
        golden: shape (n,).
        judged: where they are in the kept part, boolean, of its shape; what is not finite is judged by its place.
        contracts: the case's contracts, for a checkpoint in the accumulation format what they are inside.
        draws: by kind, shape (draws, n).
        scales: the noise scales.
        variances: by contract, sigma^2, shape (n,).
        holding: by name of the case's contracts, that of the one which holds here.
    """

    golden: Floats
    judged: NDArray[np.bool_]
    contracts: Sequence[Contract]
    draws: Mapping[str, Floats]
    scales: Mapping[str, Scale]
    variances: dict[str, Floats] = field(default_factory=dict)
    holding: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(
        case: Case, point: Checkpoint, inputs: Arrays, golden: Floats, replays: Replays, contracts: Sequence[Contract]
    ) -> Frame:
        """Return the frame of a checkpoint; `golden` is its kept part."""
        judged = case.judged_elements(point, inputs)
        everywhere = np.broadcast_to(True if judged is None else judged, golden.shape) & np.isfinite(golden)
        inside = point.dtype == "accumulation"
        holding = {contract.name: contract.inner if inside else contract for contract in contracts}
        contracts = list({contract.name: contract for contract in holding.values()}.values())
        flat = everywhere.reshape(-1)
        draws = {kind: values[:, flat].astype(np.float64) for kind, values in replays.draws[point.name].items()}
        scales = replays.scales(point.name, golden, everywhere)
        names = {outer: contract.name for outer, contract in holding.items()}
        frame = Frame(golden[everywhere], everywhere, contracts, draws, scales, holding=names)
        for contract in contracts:
            predicted = noise.prediction(scales, contract, 1.0)
            variances = noise.variance(predicted, np.where(everywhere, golden, 0))
            frame.variances[contract.name] = clear_of_zero(variances[everywhere])
        return frame

    def errors_along(self, direction: Floats | None) -> dict[str, float]:
        """Return by contract the standard deviation that noise gives to the strength of `direction`, shape (n,).

        None is the direction of a bias: sigma itself.
        """
        found = {}
        for contract in self.contracts:
            variances = self.variances[contract.name]
            along = np.sqrt(variances) if direction is None else direction
            error = noise.error_along(along, variances, self.golden, self.draws, contract)
            if math.isfinite(error):
                found[contract.name] = float(f"{error:.3g}")
        return found


@dataclass(frozen=True)
class Signatures:
    """The signatures of one case.

    Attributes:
        rows: manifest rows of the signatures.
        codes: by checkpoint, the directions at it, each of shape (n,), in the order of their `index`.
        certain: manifest rows of faults that show without one, under every contract: they raise or answer where they
            must not, change an integer, a shape, or what is finite.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    codes: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    certain: list[dict[str, str]] = field(default_factory=list)

    def add(self, case: Case, checkpoint: str, fault: str, codes: NDArray[Any], top: float, errors: Any) -> None:
        """Add the signature of a fault at a checkpoint."""
        place = self.codes.setdefault(checkpoint, [])
        row = {"case": case.name, "checkpoint": checkpoint, "fault": fault, "index": len(place)}
        self.rows.append(row | {"errors": errors, "top": top})
        place.append(codes)

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the directions by checkpoint, (faults, n) each: a dataset for each would be more header than data."""
        return {checkpoint: np.stack(codes) for checkpoint, codes in self.codes.items()}


def signatures_of(
    case: Case,
    inputs: Arrays,
    golden: Arrays,
    faulty: Iterable[tuple[str, Arrays | None]],
    frames: Mapping[str, Frame],
    *,
    outputs: Sequence[str],
    visible: float,
) -> Signatures:
    """Return the signatures of the faults of one case.

    `faulty` gives each fault and what the candidate with it produces in float64, None if it raises. It is frozen where
    it shows first;
    where it first stands out of the noise of a contract by `visible`; and at the checkpoints `outputs`, which a
    candidate may have alone. Of integers the difference is frozen as it is.
    """
    found = Signatures()
    for fault, arrays in faulty:
        certain = (arrays is None) != bool(case.refuses)
        if arrays is not None and not case.refuses:
            certain = _Search(case, inputs, golden, frames, outputs, visible).add(found, fault, arrays)
        if certain:
            found.certain.append({"case": case.name, "fault": fault})
    return found


@dataclass(frozen=True)
class _Search:
    """Where the faults of one case show; see `signatures_of`."""

    case: Case
    inputs: Arrays
    golden: Arrays
    frames: Mapping[str, Frame]
    outputs: Sequence[str]
    visible: float

    def add(self, found: Signatures, fault: str, arrays: Arrays) -> bool:
        """Add the signatures of one fault; say whether it also shows without one."""
        hidden, shown, certain = {name for frame in self.frames.values() for name in frame.holding}, False, False
        for point in self.case.computed:
            frame = self.frames.get(point.name)
            if frame is None:
                difference = _integer_difference(self.case, point, arrays, self.inputs, self.golden)
                if shown or (difference is not None and not difference.any()):
                    continue
                if difference is not None:
                    found.add(self.case, point.name, fault, difference, 0.0, {})
                hidden, shown, certain = set(), True, True  # integers are exact under every contract
            elif point.follows is None:
                output = point.name in self.outputs and frame.golden.size <= _LARGEST_OUTPUT
                if not (hidden or output):
                    continue
                direction = _direction(point, arrays, self.golden, frame)
                if direction is None:  # another shape, or finite elsewhere
                    hidden, shown, certain = set(), True, True
                elif direction.any():
                    codes, top = noise.encode_signed(direction)
                    errors = frame.errors_along(noise.decode_signed(codes, top))
                    seen = {
                        name for name, here in frame.holding.items() if errors.get(here, math.inf) * self.visible <= 1
                    }
                    if not shown or output or seen & hidden:
                        found.add(self.case, point.name, fault, codes, top, errors)
                    hidden, shown = hidden - seen, True
        return certain


def _integer_difference(
    case: Case, point: Checkpoint, arrays: Arrays, inputs: Arrays, golden: Arrays
) -> NDArray[Any] | None:
    """Return faulty - golden at the judged elements, None where the faulty array is of another kind or shape."""
    array = arrays.get(point.name)
    if array is None or array.shape != point.shape or array.dtype.kind not in ("b" if point.dtype == "bool" else "iu"):
        return None
    judged = case.judged_elements(point, inputs)
    everywhere = np.broadcast_to(True if judged is None else judged, point.kept_shape)
    difference = array[point.kept_index].astype(np.int64) - golden[point.name][point.kept_index]
    found = difference[everywhere]
    for narrow in (np.int16, np.int32):  # one byte is what codes of floats have
        if np.array_equal(found.astype(narrow), found):
            return np.asarray(found.astype(narrow))
    return np.asarray(found)


def _direction(point: Checkpoint, arrays: Arrays, golden: Arrays, frame: Frame) -> Floats | None:
    """Return faulty - golden at the judged elements, 0 where it does not show; None where there is no difference."""
    array, wanted = arrays.get(point.name), golden[point.name][point.kept_index]
    if array is None or array.shape != point.shape or array.dtype.kind != "f":
        return None
    whole = point.aligned(array[point.kept_index].astype(np.float64), wanted)
    elsewhere = ~np.isfinite(wanted)
    found = whole[frame.judged]
    if not np.isfinite(found).all() or not np.array_equal(whole[elsewhere], wanted[elsewhere], equal_nan=True):
        return None
    direction = found - frame.golden
    scale = float(np.abs(frame.golden).max(initial=0.0))
    if float(np.abs(direction).max(initial=0.0)) > _SHOWS * scale:
        return direction
    return np.where((frame.golden == 0) & point.exact_zeros, direction, 0)  # there anything shows
