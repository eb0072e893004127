"""The toy repository, frozen once a session and copied for each test that wants it; a bench of goldens in memory."""

import contextlib
import io
import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from karat import cli, exchange, formats, freeze, goldens, inputs, tensors
from karat.candidates import Request, open_candidate
from karat.compare import Scale, root_mean_square
from karat.exchange import Outputs
from karat.goldens import GoldenSet
from karat.judge import judge
from karat.session import Report, check
from karat.signatures import Signature
from karat.suites import Case, Checkpoint, Repository, Selection, Suite, load_by_path
from karat.tolerances import Contract, Limits, SignatureRule, Tolerance, Tolerances, read_tolerances
from karat.verdicts import DIVERGED, Verdict

SOURCES = Path(__file__).parent / "toy"
IGNORED = shutil.ignore_patterns("__pycache__")


def mark_first_divergence(verdicts):
    """Return the verdicts of one case with the first of the diverged ones marked."""
    first = next((verdict.checkpoint for verdict in verdicts if verdict.status in DIVERGED), None)
    return [replace(verdict, first_divergence=verdict.checkpoint == first) for verdict in verdicts]


@pytest.fixture(scope="session")
def frozen_toy(tmp_path_factory):
    """Return a folder with the toy repository and its goldens, which nobody may change."""
    root = tmp_path_factory.mktemp("frozen") / "toy"
    shutil.copytree(SOURCES, root, ignore=IGNORED)
    goldens.move_in(freeze.freeze(Repository(root), "toy"), root / "goldens" / "toy")
    return root


@pytest.fixture
def toy(frozen_toy, tmp_path, monkeypatch):
    """Return a toy repository of the test's own; the working directory is its root."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # no __pycache__ in the trees that tests compare
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    root = tmp_path / "toy"
    shutil.copytree(frozen_toy, root, ignore=IGNORED)
    monkeypatch.chdir(root)
    return Toy(root)


@dataclass(frozen=True)
class Result:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Toy:
    """A toy repository in `root` and what tests do with it."""

    root: Path

    @property
    def repository(self) -> Repository:
        """Return the repository as it stands now, read anew."""
        return Repository(self.root)

    @property
    def suite(self):
        """Return the contract as it stands now."""
        return self.repository.suite("toy")

    @property
    def goldens(self) -> Path:
        """Return the folder of the frozen set."""
        return self.root / "goldens" / "toy"

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace `old`, which must be there, by `new` in a file of the repository."""
        text = (self.root / file).read_text(encoding="utf-8")
        assert old in text, f"{file} does not hold {old!r}"
        (self.root / file).write_text(text.replace(old, new), encoding="utf-8")

    def manifest(self) -> dict:
        """Return the content of the manifest."""
        content = json.loads((self.goldens / "manifest.json").read_text(encoding="utf-8"))
        del content["sha256"]
        return content

    def rewrite(self, content: dict) -> None:
        """Write a manifest whose own hash fits."""
        (self.goldens / "manifest.json").write_text(goldens.manifest_text(content), encoding="utf-8")

    def regolden(self, case: str, change) -> None:
        """Replace the tensors of a case by `change(tensors)`, file and manifest rewritten so that all hashes fit."""
        path, content = self.goldens / f"{case}.safetensors", self.manifest()
        arrays = {name: np.array(tensor.load()) for name, tensor in tensors.read_safetensors(path).items()}
        changed = change(arrays)
        tensors.write_safetensors(path, changed)
        for row in content["goldens"]:
            if row["case"] == case and row["checkpoint"] in changed:
                row |= self.row(case, row["checkpoint"], changed[row["checkpoint"]])
        content["goldens"] = [r for r in content["goldens"] if r["case"] != case or r["checkpoint"] in changed]
        for row in content["files"]:
            if row["file"] == path.name:
                row |= {"bytes": path.stat().st_size, "sha256": goldens.sha256_of_file(path)}
        self.rewrite(content)

    def row(self, case: str, checkpoint: str, array: np.ndarray) -> dict:
        """Return the manifest row of a golden, whatever its shape."""
        declared = self.repository.suite("toy").case(case)
        if array.shape != declared.checkpoint(checkpoint).kept_shape:
            return {"shape": list(array.shape), "sha256": goldens.sha256_of_array(array)}
        padding = GoldenSet.open(self.repository, "toy").padding(declared)
        return goldens.golden_row(declared, declared.checkpoint(checkpoint), f"{case}.safetensors", array, padding)

    def tree(self) -> dict[str, bytes]:
        """Return every file of the repository with its bytes."""
        files = sorted(path for path in self.root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in files}

    def candidate(self, source: str, name: str = "mine.py") -> str:
        """Write a module beside a copy of the plain candidate (`from right import toy as right`); return its spec."""
        folder = self.root / "ports"
        folder.mkdir(exist_ok=True)
        shutil.copy(self.root / "candidates" / "plain" / "toy.py", folder / "right.py")
        (folder / name).write_text("import numpy as np\nfrom right import toy as right\n" + source, encoding="utf-8")
        return f"py:{folder / name}"

    def outputs(self, case: str, contract: str = "float32") -> dict[str, np.ndarray]:
        """Return right outputs of a case: those of the plain candidate."""
        plain = load_by_path(self.root / "candidates" / "plain" / "toy.py")
        row = read_tolerances(self.root / "tolerances.toml").contract(contract)
        chosen = self.suite.case(case)
        drawn = {name: recipe.draw() for name, recipe in chosen.inputs.items()}
        return plain.toy(**inputs.nest(exchange.in_storage(chosen, drawn, row)), **chosen.params)

    def dump(self, file_format: str = "safetensors", contract: str = "float32", cases=("small", "padded")) -> Path:
        """Write right outputs as a `dir:` candidate; return its folder."""
        for case in cases:
            folder = self.root / "dump" / "toy" / case
            folder.mkdir(parents=True, exist_ok=True)
            arrays = self.outputs(case, contract)
            if file_format == "npy":
                for name, array in arrays.items():
                    tensors.write_npy(folder / f"{name}.npy", array)
            else:
                write = {"safetensors": tensors.write_safetensors, "h5": tensors.write_h5}[file_format]
                write(folder / f"outputs.{file_format}", arrays)
        return self.root / "dump"

    def check(self, spec: str, *select: str, contracts=(), timeout=60.0, require=()) -> Report:
        """Check a candidate and return the report."""
        candidate = open_candidate(spec, timeout=timeout)
        required = Selection.parse(require) if require else None
        try:
            return check(self.repository, candidate, Selection.parse(select), contracts=contracts, required=required)
        finally:
            candidate.close()

    @staticmethod
    def gone(pid: int | str) -> bool:
        """Say whether a process has ended (within seconds), be it reaped or not."""
        for _ in range(100):
            try:
                state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return True
            if state == "Z":
                return True
            time.sleep(0.05)
        return False

    def karat(self, *arguments: object) -> Result:
        """Run the command line in this process; an exception of karat's own fails the test."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main([str(argument) for argument in arguments])
            except SystemExit as usage:  # argparse
                code = int(usage.code or 0)
        return Result(code, out.getvalue(), err.getvalue())


# --- goldens in memory -----------------------------------------------------------------------------------------------

EACH = "each operation"
CONTRACTS = {
    name: Contract(name, storage, accumulation, products, rounding)
    for name, storage, accumulation, products, rounding in (
        ("float64", "float64", "float64", "float64", EACH),
        ("float32", "float32", "float32", "float32", EACH),
        ("tfloat32", "float32", "float32", "tfloat32", EACH),
        ("bfloat16", "bfloat16", "float32", "bfloat16", EACH),
        ("float16", "float16", "float32", "float16", EACH),
        ("bfloat16-once", "bfloat16", "float32", "float32", "once"),
        ("float16-once", "float16", "float32", "float32", "once"),
    )
}
LIMITS = Limits(2.0, 10.0, 4.0, 12.0, 12.0, "tolerances.toml, [class.default]", "measured")
RULE = SignatureRule(0.5, 12.0, 0.75, "tried")


@dataclass
class Bench:
    """The goldens of one case, and what they are judged by: a GoldenSet of arrays, without files.

    `noise` holds the noise scales by checkpoint and kind; `spread` the noise of gain and bias by checkpoint, contract;
    `points` what a checkpoint declares beside its name and shape.
    """

    arrays: dict[str, np.ndarray]
    noise: dict[str, dict[str, Scale]] = field(default_factory=dict)
    faults: dict[str, list[Signature]] = field(default_factory=dict)
    spread: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    padding: dict[str, np.ndarray] = field(default_factory=dict)  # by axis
    row: Limits | Tolerance = LIMITS
    rule: SignatureRule | None = RULE
    suite: str = "bench"
    outputs: tuple[str, ...] = ()

    @property
    def goldens(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the manifest's rows."""
        return {
            ("case", name): {"rms": root_mean_square(array), **self.spread.get(name, {})}
            for name, array in self.arrays.items()
        }

    def golden(self, _: str, checkpoint: str) -> np.ndarray:
        """Return a golden."""
        return self.arrays[checkpoint]

    def scales(self, _: str, checkpoint: str) -> dict[str, Scale]:
        """Return the noise scales of a golden."""
        return self.noise.get(checkpoint, {})

    def signatures(self, _: str, checkpoint: str) -> list[Signature]:
        """Return the faults that are known at a checkpoint."""
        return self.faults.get(checkpoint, [])

    @property
    def case(self) -> Case:
        """Return the contract of the case."""
        kinds = {"f": "storage", "i": "integer", "b": "bool"}
        points = tuple(
            Checkpoint(
                **{"name": name, "shape": array.shape, "dtype": kinds[array.dtype.kind]} | self.points.get(name, {})
            )
            for name, array in self.arrays.items()
        )
        recipes = {f"mask_{axis}": inputs.Literal(tuple(map(tuple, mask))) for axis, mask in self.padding.items()}
        return Case("case", recipes, {}, points, {axis: f"mask_{axis}" for axis in self.padding})

    def judge(self, outputs: Mapping[str, np.ndarray], contract: str = "float32", **given: Any) -> list[Verdict]:
        """Judge outputs; what is not given is the golden, rounded to the contract's storage."""
        chosen = CONTRACTS[contract]
        arrays = {name: outputs.get(name, array) for name, array in self.arrays.items()}
        dtype = formats.lookup(chosen.storage).dtype
        left = {
            name: tensors.of_array(array.astype(dtype) if array.dtype == np.float64 else array)
            for name, array in arrays.items()
        }
        suite = Suite("bench", "", (contract,), (self.case,), self.outputs)
        padding = {f"mask_{axis}": mask for axis, mask in self.padding.items()}
        request = Request(suite, self.case, chosen, padding, cast(GoldenSet, self))
        rows = {("default", ""): self.row}
        return judge(request, Outputs(left), Tolerances(Path("t.toml"), CONTRACTS, rows, (), self.rule), **given)


@pytest.fixture
def bench():
    """Return the class of goldens in memory."""
    return Bench
