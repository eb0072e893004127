"""Golden files: the manifest, the hashes and the tensors. No other module opens them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import inputs as recipes
from karat import noise, sources, tensors
from karat.compare import Scale, root_mean_square
from karat.errors import CandidateError, GoldenError
from karat.signatures import Signature
from karat.suites import Case, Checkpoint, Repository, Suite
from karat.tensors import Tensor

MANIFEST = "manifest.json"
VISIBILITY = "visibility.md"
SCHEMA = 1
MEASURED = ("noise", "gain", "bias")
"""The keys of a golden's row that replays gave: tops of its noise scales, noise of gain and bias by contract."""


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_array(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's bytes, row-major and little-endian, in hexadecimal."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()


NOISE, SIGNATURES = ".noise", ".signatures"
"""Endings of the parts of a case: what stands beside its goldens."""


def part_file(suite: Suite, case: str, part: str = "") -> str:
    """Return the name of the file that holds a part of a case: its own, or that of all cases of a packed suite."""
    return f"{suite.name}.h5" if suite.packed else f"{case}{part}.safetensors"


def freeze_command(suite: str) -> str:
    """Return the command that freezes the goldens of `suite` anew."""
    base, _, weights = suite.partition("@")
    source = f" --weights SOURCE  # the source that {suite}/config.json in goldens/ names" if weights else ""
    return f"python -m nox -s goldens -- {base}{source}"


# --- the manifest ---------------------------------------------------------------------------------------------------


def manifest_text(content: Mapping[str, Any]) -> str:
    """Return the manifest as canonical JSON: keys sorted, a line per row, and a last key that hashes all above it."""
    lines = ["{"]
    for key in sorted(content):
        value = content[key]
        if isinstance(value, list) and value:
            rows = ",\n".join(_canonical(row) for row in value)
            lines.append(f'"{key}":[\n{rows}\n],')
        else:
            lines.append(f'"{key}":{_canonical(value)},')
    body = "\n".join(lines) + "\n"
    return body + f'"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def sealed(text: str) -> str:
    """Return a text with a last line that hashes all above it."""
    return f"{text}\n<!-- sha256 {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_sealed(text: str) -> bool:
    """Say whether a text is what `sealed` made it."""
    body, _, _ = text.rstrip("\n").rpartition("\n")
    return sealed(body) == text


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def read_manifest(path: Path, suite: str) -> dict[str, Any]:
    """Read and check a manifest; raise `GoldenError`, missing or damaged, with the file and the mending command."""
    mend = f"run: {freeze_command(suite)}"
    if not path.is_file():
        raise GoldenError("missing", f"{path} does not exist; {mend}")
    try:
        text = path.read_bytes().decode("utf-8")
        content: dict[str, Any] = json.loads(text)
        recorded = content.pop("sha256")
        intact = manifest_text(content) == text and content["schema"] == SCHEMA and content["suite"] == suite
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise GoldenError("damaged", f"{path} is not a manifest; restore it from version control, or {mend}") from None
    if not intact:
        raise GoldenError(
            "damaged",
            f"{path} is not what was frozen (its own hash, {str(recorded)[:12]}…, does not fit);"
            f" restore it from version control, or {mend}",
        )
    return content


@dataclass(frozen=True)
class GoldenSet:
    """The frozen goldens of one suite: opened once, every file hashed before its first use."""

    suite: str
    folder: Path
    manifest: dict[str, Any]
    _arrays: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    @staticmethod
    def open(repository: Repository, suite: str) -> GoldenSet:
        """Open the goldens of `suite`; raise `GoldenError` if the manifest is missing or damaged."""
        folder = repository.folder(suite)
        return GoldenSet(suite, folder, read_manifest(folder / MANIFEST, suite))

    @cached_property
    def goldens(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the manifest's golden rows by (case, checkpoint)."""
        return {(row["case"], row["checkpoint"]): row for row in self.manifest["goldens"]}

    @cached_property
    def inputs(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the manifest's input rows by (case, input)."""
        return {(row["case"], row["input"]): row for row in self.manifest["inputs"]}

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Return the manifest's file rows by name."""
        return {row["file"]: row for row in self.manifest["files"]}

    def verify_file(self, name: str) -> None:
        """Raise `GoldenError` unless the file `name` is there, whole, and hashes to what the manifest says."""
        path, row = self.folder / name, self.files.get(name)
        mend = f"restore it from version control, or run: {freeze_command(self.suite)}"
        if row is None:
            raise GoldenError("damaged", f"{path} is not listed in {self.folder / MANIFEST}; {mend}")
        if not path.is_file():
            raise GoldenError("missing", f"{path} does not exist; {mend}")
        size = path.stat().st_size
        if size != row["bytes"]:
            raise GoldenError("damaged", f"{path} has {size} bytes where {row['bytes']} were frozen; {mend}")
        if sha256_of_file(path) != row["sha256"]:
            raise GoldenError("damaged", f"{path} is not what was frozen: its SHA-256 differs; {mend}")

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of the file `name`, verified on first use; raise `GoldenError` if it is not intact."""
        if name not in self._arrays:
            self.verify_file(name)
            try:
                self._arrays[name] = tensors.read_safetensors(self.folder / name)
            except CandidateError as error:
                raise GoldenError("damaged", f"{error}; run: {freeze_command(self.suite)}") from None
        return self._arrays[name]

    def part(self, case: str, part: str = "") -> dict[str, Tensor]:
        """Return the tensors of a part of a case, verified on first use; raise `GoldenError` if it is not intact."""
        packed: str | None = self.manifest.get("packed")
        if packed is None:
            return self.tensors(f"{case}{part}.safetensors")
        name = f"{case}{part}"
        if name not in self._arrays:
            if not self._arrays:
                self.verify_file(packed)
            try:
                self._arrays[name] = tensors.read_h5_group(self.folder / packed, name)
            except CandidateError as error:
                raise GoldenError("damaged", f"{error}; run: {freeze_command(self.suite)}") from None
        return self._arrays[name]

    def golden(self, case: str, checkpoint: str) -> NDArray[Any]:
        """Return the golden, float64, int64 or bool, in its kept shape; raise `GoldenError` if missing or damaged."""
        row = self.goldens.get((case, checkpoint))
        if row is None or checkpoint not in self.part(case):
            raise GoldenError(
                "missing",
                f"{self.suite}/{case}/{checkpoint} is not among the goldens of {self.folder};"
                f" run: {freeze_command(self.suite)}",
            )
        return self.part(case)[checkpoint].load()

    def scales(self, case: str, checkpoint: str) -> dict[str, Scale]:
        """Return the noise scales of a golden by kind; none where it was frozen without."""
        tops = self.goldens[case, checkpoint].get("noise", {})
        if not tops:
            return {}
        codes = self.part(case, NOISE)
        return {kind: Scale(codes[f"{checkpoint}/{kind}"].load(), top) for kind, top in tops.items()}

    def signatures(self, case: str, checkpoint: str) -> list[Signature]:
        """Return the signatures of the faults that are known at a checkpoint of a case."""
        rows = self._signature_rows.get((case, checkpoint), [])
        if not rows:
            return []
        codes = self.part(case, SIGNATURES)[checkpoint].load()  # (faults, n)
        return [
            Signature(
                fault=row["fault"],
                text=self.fault_texts[row["fault"]],
                direction=_direction(codes[row["index"]], row["top"]),
                errors=row["errors"],
            )
            for row in rows
        ]

    @cached_property
    def fault_texts(self) -> dict[str, str]:
        """Return what each catalogued mistake is, by its name."""
        return {row["fault"]: row["text"] for row in self.manifest.get("faults", ())}

    @cached_property
    def _signature_rows(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in self.manifest.get("signatures", ()):
            found.setdefault((row["case"], row["checkpoint"]), []).append(row)
        return found

    def draw_inputs(self, case: Case) -> dict[str, NDArray[Any]]:
        """Return the inputs of `case` by name, made by their recipes and checked against their frozen hashes.

        Raise `GoldenError` (stale) where a recipe gives other values than when the goldens were frozen.
        """
        return {name: self._input(case, name, recipe) for name, recipe in case.inputs.items()}

    def padding(self, case: Case) -> dict[str, NDArray[Any]]:
        """Return the inputs of `case` that say what is padding."""
        return {name: self._input(case, name, case.inputs[name]) for name in set(case.padding.values())}

    def _input(self, case: Case, name: str, recipe: recipes.Recipe) -> NDArray[Any]:
        row = self.inputs.get((case.name, name))
        place = f"{self.suite}/{case.name}: input {name!r}"
        if row is None:
            raise GoldenError("stale", f"{place} was not frozen; run: {freeze_command(self.suite)}")
        if isinstance(recipe, recipes.Stored):
            return self.tensors(row["file"])[name].load()
        array = recipe.draw()
        if sha256_of_array(array) != row["sha256"]:
            raise GoldenError(
                "stale", f"{place} is not what the goldens were computed from; run: {freeze_command(self.suite)}"
            )
        return array


def _direction(codes: NDArray[Any], top: float) -> NDArray[np.float64]:
    """Return a frozen direction: codes of one byte, or the differences of integers as they are."""
    return noise.decode_signed(codes, top) if codes.dtype == np.int8 else codes.astype(np.float64)


# --- freezing -------------------------------------------------------------------------------------------------------


def golden_row(
    case: Case, checkpoint: Checkpoint, file: str, array: NDArray[Any], padding: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Return the manifest row of a golden, `array`; `padding` holds the inputs that say what is padding.

    Its `rms` is that of the judged elements, the unit of `atol_rms`.
    """
    floating = array.dtype.kind == "f"
    judged = case.judged_elements(checkpoint, padding)
    return {
        "case": case.name,
        "checkpoint": checkpoint.name,
        "dtype": array.dtype.name,
        "file": file,
        "nonfinite": int(np.count_nonzero(~np.isfinite(array))) if floating else 0,
        "rms": root_mean_square(array, judged) if floating else 0.0,
        "sha256": sha256_of_array(array),
        "shape": list(array.shape),
    }


def input_row(case: str, name: str, recipe: recipes.Recipe, array: NDArray[Any], file: str | None) -> dict[str, Any]:
    """Return the manifest row of an input; `file` is None unless its bytes are stored."""
    return {
        "case": case,
        "dtype": array.dtype.name,
        "input": name,
        "recipe": recipes.describe(recipe),
        "sha256": sha256_of_array(array),
        "shape": list(array.shape),
        **({} if file is None else {"file": file}),
    }


def write_set(folder: Path, content: dict[str, Any], files: Iterable[tuple[str, Mapping[str, NDArray[Any]]]]) -> None:
    """Write tensor files and the manifest that lists them into the new folder `folder`.

    `files` are names with their tensors. Where the content names a `packed` file, all of a case go into it, each file
    of the others a group in it.
    """
    rows = []
    packed: dict[str, NDArray[Any]] = {}
    for name, arrays in files:
        if content.get("packed") is not None:
            group = name.removesuffix(".safetensors")
            packed |= {f"{group}/{key}": array for key, array in arrays.items()}
            continue
        tensors.write_safetensors(folder / name, arrays)
        rows.append({"bytes": (folder / name).stat().st_size, "file": name, "sha256": sha256_of_file(folder / name)})
    if packed:
        path = folder / content["packed"]
        tensors.write_h5(path, packed, compress=True)
        rows.append({"bytes": path.stat().st_size, "file": path.name, "sha256": sha256_of_file(path)})
    extra = [
        {"bytes": path.stat().st_size, "file": path.name, "sha256": sha256_of_file(path)}
        for path in sorted(folder.glob("*.json"))
    ]
    (folder / MANIFEST).write_text(
        manifest_text({**content, "schema": SCHEMA, "files": sorted(rows + extra, key=lambda row: str(row["file"]))}),
        encoding="utf-8",
        newline="\n",
    )


def move_in(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target` in one step, then remove what was there.

    Killed before the step, the old set is whole; killed after it, the new one is. Where the system cannot exchange
    two folders (anything but Linux), there is an instant between two renames with the old set beside its place, under
    the name of `new`.
    """
    for path in (*new.iterdir(), new):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        new.rename(target)
        return
    if not _exchange(new, target):
        aside = new.with_name(new.name.removesuffix(".new") + ".old.new")  # a name that the gate passes over
        target.rename(aside)
        new.rename(target)
        aside.rename(new)
    shutil.rmtree(new)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders atomically (Linux: renameat2 with RENAME_EXCHANGE); return False where that is refused."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    current_folder, exchange = -100, 2
    return bool(rename(current_folder, os.fsencode(first), current_folder, os.fsencode(second), exchange) == 0)


def generator_files(repository: Repository, suite: Suite) -> list[Path]:
    """Return the sources that the goldens of `suite` depend on beside its contract.

    The generator, the faults, what either loads with `beside`, and the bundled plain candidate, the witness, in which
    faults are planted.
    """
    loaded = sources.with_neighbours(repository.generator(suite.name))
    if "@" not in suite.name:
        loaded += sources.with_neighbours(repository.faults(suite.name))
    return [*dict.fromkeys(loaded), repository.plain(suite.name)]


def source_rows(repository: Repository, paths: Iterable[Path]) -> list[dict[str, str]]:
    """Return file and hash of each source, the file relative to the repository."""
    return [{"file": path.relative_to(repository.root).as_posix(), "sha256": sha256_of_file(path)} for path in paths]
