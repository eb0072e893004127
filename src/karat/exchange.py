"""The folders that karat and a candidate exchange: `case.json` and inputs one way, outputs the other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import formats, tensors
from karat.errors import CandidateError, UsageError
from karat.suites import Case, Checkpoint, Suite
from karat.tensors import Tensor
from karat.tolerances import Contract

FILE_FORMATS = ("safetensors", "npy", "h5")


@dataclass(frozen=True)
class Outputs:
    """What a candidate left: tensors by checkpoint, and patterns of the checkpoints that it does not support."""

    tensors: Mapping[str, Tensor]
    unsupported: tuple[str, ...] = ()


def in_storage(case: Case, arrays: Mapping[str, NDArray[Any]], contract: Contract) -> dict[str, NDArray[Any]]:
    """Return the inputs of a case as a candidate is given them: floats in storage, unless the case fixes their format.

    Raise `UsageError` rather than round.
    """
    stored = {}
    for name, array in arrays.items():
        wanted = case.fixed.get(name, contract.storage)
        try:
            floating = array.dtype.name in formats.FORMATS
            stored[name] = formats.convert_exactly(array, wanted) if floating else array
        except ValueError as error:
            raise UsageError(f"input {name!r} cannot be given under the contract {contract.name}: {error}") from None
    return stored


def case_description(suite: Suite, case: Case, contract: Contract) -> dict[str, Any]:
    """Return what `case.json` says: suite, case, params, contract, inputs, and the wanted checkpoints.

    A checkpoint's `judged` gives, by axis, the part [start, stop) that is compared, and `padding` the inputs that are 0
    where a position along an axis is not; whole arrays are wanted all the same. Integers of any width are accepted.
    `refuses` says what is wrong with inputs that must be refused.
    """
    return {
        "suite": suite.name,
        "case": case.name,
        "params": dict(case.params),
        "contract": {"name": contract.name, "storage": contract.storage, "accumulation": contract.accumulation},
        "inputs": [
            {
                "name": name,
                "shape": list(recipe.shape),
                "dtype": case.fixed.get(name, contract.storage) if recipe.dtype in formats.FORMATS else recipe.dtype,
            }
            for name, recipe in case.inputs.items()
        ],
        "padding": dict(case.padding),
        "refuses": case.refuses,
        "checkpoints": [
            {
                "name": checkpoint.name,
                "shape": list(checkpoint.shape),
                "axes": list(checkpoint.axes),
                "dtype": wanted_dtype(checkpoint, contract),
                "judged": {axis: list(part) for axis, part in checkpoint.keep.items()},
            }
            for checkpoint in case.checkpoints
            if checkpoint.dtype != "refusal"
        ],
    }


def wanted_dtype(checkpoint: Checkpoint, contract: Contract) -> str:
    """Return the name of the dtype in which a candidate returns a checkpoint."""
    formats_of = {"storage": contract.storage, "accumulation": contract.accumulation, "integer": "int64"}
    return formats_of.get(checkpoint.dtype, "bool")


def write_case(
    folder: Path,
    suite: Suite,
    case: Case,
    contract: Contract,
    arrays: Mapping[str, NDArray[Any]],
    *,
    file_format: str = "safetensors",
) -> None:
    """Write `case.json` and the inputs of a case, in the contract's storage format, into the folder `folder`.

    A mapping's entries stand under `mapping/entry`, in safetensors and HDF5 as names, in npy as folders. Raise
    `UsageError` where the file format cannot hold the contract's format.
    """
    if file_format not in FILE_FORMATS:
        raise UsageError(f"no file format {file_format!r}; known: {', '.join(FILE_FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    description = json.dumps(case_description(suite, case, contract), indent=1) + "\n"
    (folder / "case.json").write_text(description, encoding="utf-8")
    stored = in_storage(case, arrays, contract)
    if file_format == "safetensors":
        tensors.write_safetensors(folder / "inputs.safetensors", stored)
    elif file_format == "h5":
        tensors.write_h5(folder / "inputs.h5", stored)
    else:
        for name, array in stored.items():
            path = folder / "inputs" / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                tensors.write_npy(path, array)
            except TypeError as error:
                raise UsageError(f"{error} (--format safetensors)") from None


def read_outputs(folder: Path) -> Outputs:
    """Read the outputs in `folder`: `outputs.safetensors`, `outputs.h5`, or `<checkpoint>.npy` files.

    `unsupported.json`, a list of checkpoint patterns, says what the candidate does not provide. Raise `CandidateError`
    where a file is damaged, or two of the three kinds are there.
    """
    readers = {"outputs.safetensors": tensors.read_safetensors, "outputs.h5": tensors.read_h5}
    present = [name for name in readers if (folder / name).is_file()]
    arrays = sorted(path for path in folder.rglob("*.npy") if path.relative_to(folder).parts[0] != "inputs")
    for path in (*arrays, *(folder / name for name in readers if (folder / name).exists())):
        if not path.is_file():
            raise CandidateError(f"{path} is not a regular file")
    if len(present) + bool(arrays) > 1:
        raise CandidateError(
            f"{folder} holds outputs of several kinds: {', '.join([*present, *['*.npy'][: len(arrays)]])}"
        )
    found: dict[str, Tensor] = {}
    if present:
        found = readers[present[0]](folder / present[0])
    for path in arrays:
        found[path.relative_to(folder).with_suffix("").as_posix()] = tensors.read_npy(path)
    return Outputs(found, _read_unsupported(folder / "unsupported.json"))


def _read_unsupported(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    try:
        patterns = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        patterns = None
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise CandidateError(f"{path}: not a JSON list of checkpoint patterns")
    return tuple(patterns)


def storage_formats(outputs: Outputs, checkpoints: Iterable[Checkpoint]) -> set[str]:
    """Return the names of the formats in which the outputs hold those of `checkpoints` that are floats."""
    wanted = {checkpoint.name for checkpoint in checkpoints if checkpoint.dtype == "storage"}
    return {
        tensor.dtype.name
        for name, tensor in outputs.tensors.items()
        if name in wanted and (tensor.dtype.name in formats.FORMATS or np.issubdtype(tensor.dtype, np.floating))
    }
