"""What a freeze learns from replaying the reference under noise: scales, the noise of gain and bias, signatures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import noise
from karat.compare import Floats, Scale
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
        points = [point for point in case.checkpoints if point.dtype == "storage"]
        kinds = noise.kinds_needed(contracts)
        found: dict[str, dict[str, NDArray[np.float32]]] = {
            point.name: {kind: np.empty((noise.DRAWS, math.prod(point.kept_shape)), np.float32) for kind in kinds}
            for point in points
        }
        for kind in kinds:
            for number in range(noise.DRAWS):
                replay = generator.perturbed(case, inputs, kind, number)
                for point in points:
                    error = replay[point.name][point.kept_index] - golden[point.name][point.kept_index]
                    found[point.name][kind][number] = error.reshape(-1) / generator.NOISE_STEP
        return Replays(found)

    def scales(self, checkpoint: str, golden: NDArray[Any]) -> dict[str, Scale]:
        """Return the noise scales of a checkpoint by kind, of the shape of `golden`, its kept part."""
        scales = {}
        for kind, draws in self.draws[checkpoint].items():
            square = np.mean(np.square(draws, dtype=np.float64), axis=0).reshape(golden.shape)
            if kind == "rounding":
                square += np.square(golden) / 3
            scales[kind] = noise.encode(np.sqrt(square))
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
        judged: where they are in the kept part, boolean, of its shape.
        contracts: the case's contracts.
        draws: by kind, shape (draws, n).
        scales: the noise scales.
        variances: by contract, sigma^2, shape (n,).
    """

    golden: Floats
    judged: NDArray[np.bool_]
    contracts: Sequence[Contract]
    draws: Mapping[str, Floats]
    scales: Mapping[str, Scale]
    variances: dict[str, Floats] = field(default_factory=dict)

    @staticmethod
    def of(
        case: Case, point: Checkpoint, inputs: Arrays, golden: Floats, replays: Replays, contracts: Sequence[Contract]
    ) -> Frame:
        """Return the frame of a checkpoint; `golden` is its kept part."""
        judged = case.judged_elements(point, inputs)
        everywhere = np.broadcast_to(True if judged is None else judged, golden.shape)
        flat = everywhere.reshape(-1)
        draws = {kind: values[:, flat].astype(np.float64) for kind, values in replays.draws[point.name].items()}
        scales = replays.scales(point.name, golden)
        frame = Frame(golden[everywhere], everywhere, contracts, draws, scales)
        for contract in contracts:
            predicted = noise.prediction(scales, contract, 1.0)
            frame.variances[contract.name] = clear_of_zero(noise.variance(predicted, golden)[everywhere])
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


def signature_rows(
    case: Case,
    inputs: Arrays,
    golden: Arrays,
    faulty: Mapping[str, Arrays],
    frames: Mapping[str, Frame],
    outputs: Sequence[str],
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Return the manifest rows and the tensors of the signatures of one case.

    `faulty` holds, by fault, what the candidate with it produces in float64. A fault is frozen where it shows first,
    and at the checkpoints `outputs`, which a candidate may have alone. Of integers the difference is frozen as it is.
    """
    rows: list[dict[str, Any]] = []
    tensors: dict[str, NDArray[Any]] = {}
    for fault, arrays in faulty.items():
        first = True
        for point in case.checkpoints:
            if first and point.dtype == "integer":
                difference = _integer_difference(case, point, arrays, inputs, golden)
                if difference is None or difference.any():
                    first = False
                if difference is not None and difference.any():
                    rows.append({"case": case.name, "checkpoint": point.name, "errors": {}, "fault": fault, "top": 0.0})
                    tensors[f"{point.name}/{fault}"] = difference
            if point.name not in frames or point.follows is not None:
                continue
            repeated = not first
            if repeated and (point.name not in outputs or frames[point.name].golden.size > _LARGEST_OUTPUT):
                continue
            direction = _direction(point, arrays, frames[point.name], golden)
            if direction is None:
                first = False  # another shape, or not finite: seen without a signature
                continue
            if not direction.any():
                continue
            first = False
            codes, top = noise.encode_signed(direction)
            frozen = noise.decode_signed(codes, top)
            rows.append(
                {
                    "case": case.name,
                    "checkpoint": point.name,
                    "errors": frames[point.name].errors_along(frozen),
                    "fault": fault,
                    "top": top,
                }
            )
            tensors[f"{point.name}/{fault}"] = codes
    return rows, tensors


def _integer_difference(
    case: Case, point: Checkpoint, arrays: Arrays, inputs: Arrays, golden: Arrays
) -> NDArray[np.int64] | None:
    """Return faulty - golden at the judged elements, None where the faulty array is of another kind or shape."""
    array = arrays.get(point.name)
    if array is None or array.shape != point.shape or array.dtype.kind not in "iu":
        return None
    judged = case.judged_elements(point, inputs)
    everywhere = np.broadcast_to(True if judged is None else judged, point.kept_shape)
    difference = array[point.kept_index].astype(np.int64) - golden[point.name][point.kept_index]
    return np.asarray(difference[everywhere])


def _direction(point: Checkpoint, arrays: Arrays, frame: Frame, golden: Arrays) -> Floats | None:
    """Return faulty - golden at the judged elements, 0 where it does not show; None where there is no difference."""
    array = arrays.get(point.name)
    if array is None or array.shape != point.shape or array.dtype.kind != "f":
        return None
    found = array[point.kept_index].astype(np.float64)[frame.judged]
    if not np.isfinite(found).all():
        return None
    direction = found - frame.golden
    scale = float(np.abs(golden[point.name][point.kept_index][frame.judged]).max(initial=0.0))
    return direction if float(np.abs(direction).max(initial=0.0)) > _SHOWS * scale else np.zeros_like(direction)
