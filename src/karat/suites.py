"""Suites, their cases and their checkpoints; finds the suites of a repository."""

from __future__ import annotations

import difflib
import fnmatch
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat.errors import UsageError
from karat.inputs import Dyadic, Fine, Recipe

Arrays = Mapping[str, NDArray[Any]]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_SUITE_NAME = re.compile(r"[a-z][a-z0-9_]*(@[a-zA-Z0-9_.-]+)?")
_MOST_KNOWN = 50  # names that a message lists


@dataclass(frozen=True)
class Checkpoint:
    """One named tensor that a case produces.

    Attributes:
        name: such as `h.0.attention_scores`.
        shape: the shape that a candidate returns.
        axes: a label for each axis, such as `("batch", "head", "query", "key")`; labels are what `keep` and a case's
            `padding` speak of.
        dtype: `storage` (the contract's storage format), `accumulation` (its accumulation format, for what is computed
            on the way, such as an interpolation weight), `integer` (any integer dtype) or `bool`; `refusal` is what
            a case that must be refused has.
        keep: label -> (start, stop) of the part that is frozen and compared; the rest is computed but not judged.
        exact_zeros: where the golden is exactly 0, nothing else will do, as for the probability of what is masked.
        tolerance: the class of tolerances.toml that applies; for integers, to the values that judge them.
        judged_by: for integers that index the last axis of another float checkpoint of the case: that checkpoint. An
            index that differs from the golden's passes where the two values tie within tolerance.
        sequential: with `judged_by`: entries along the last axis depend on those before, so that nothing after an
            accepted tie is judged.
        follows: the sequential checkpoint, of this one's leading axes, that chose what is computed here: after the
            candidate's choice was another than the golden's and passed, for a tie, nothing is judged.
        nonfinite: the golden may hold NaN and infinities, which must stand where it has them; else a freeze refuses
            them.
        sign_free: the axis whose vectors are judged up to their sign, as unit quaternions are.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...] = ()
    dtype: str = "storage"
    keep: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    exact_zeros: bool = False
    tolerance: str = "default"
    judged_by: str | None = None
    sequential: bool = False
    follows: str | None = None
    nonfinite: bool = False
    sign_free: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` where the declaration contradicts itself."""
        object.__setattr__(self, "shape", tuple(int(length) for length in self.shape))  # NumPy's are no JSON
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"checkpoint {self.name!r}: a name is of a-z, 0-9, '.', '_' and '-'")
        if self.axes and len(self.axes) != len(self.shape):
            raise ValueError(f"{self.name}: {len(self.axes)} axes for the shape {self.shape}")
        if self.dtype not in ("storage", "accumulation", "integer", "bool", "refusal"):
            raise ValueError(f"{self.name}: dtype {self.dtype!r} is not storage, accumulation, integer or bool")
        if len(set(self.axes)) != len(self.axes) or any(length < 0 for length in self.shape):
            raise ValueError(f"{self.name}: axes {self.axes} of lengths {self.shape}")
        if unknown := set(self.keep) - set(self.axes):
            raise ValueError(f"{self.name}: keep speaks of axes that it has not: {sorted(unknown)}")
        if 0 in self.kept_shape and 0 not in self.shape:
            raise ValueError(f"{self.name}: keep {dict(self.keep)} leaves nothing of the shape {self.shape}")
        if self.judged_by is not None and self.dtype != "integer":
            raise ValueError(f"{self.name}: only an integer checkpoint can be judged by another")
        if self.sequential and self.judged_by is None:
            raise ValueError(f"{self.name}: sequential choices need the checkpoint that judges them")
        if self.sign_free and (self.sign_free not in self.axes or not self.floating or self.sign_free in self.keep):
            raise ValueError(f"{self.name}: sign_free {self.sign_free!r} is no axis of floats that are kept whole")

    @property
    def floating(self) -> bool:
        """Say whether it holds floats, which are judged by a tolerance."""
        return self.dtype in ("storage", "accumulation")

    def aligned(self, array: NDArray[Any], golden: NDArray[Any]) -> NDArray[Any]:
        """Return `array` with the vectors along `sign_free` negated that point away from the golden's."""
        if not self.sign_free or array.shape != golden.shape or array.dtype.kind in "iub":
            return array
        axis = self.axes.index(self.sign_free)
        with np.errstate(all="ignore"):
            along = (array.astype(np.float64) * golden).sum(axis, keepdims=True)
        return np.where(along < 0, -array, array)

    @cached_property
    def kept_index(self) -> tuple[slice, ...]:
        """Return the slices that cut the frozen part out of an array of shape `shape`."""
        if not self.axes:
            return (slice(None),) * len(self.shape)
        return tuple(slice(*self.keep[label]) if label in self.keep else slice(None) for label in self.axes)

    @cached_property
    def kept_shape(self) -> tuple[int, ...]:
        """Return the shape of the golden."""
        return tuple(len(range(*cut.indices(size))) for cut, size in zip(self.kept_index, self.shape, strict=True))


@dataclass(frozen=True)
class Case:
    """One set of inputs and parameters of a suite.

    Attributes:
        name: such as `tiny-prompt`.
        inputs: name -> recipe; a mapping's entries are named `mapping/entry`.
        params: keyword arguments beside the inputs, JSON values.
        checkpoints: in execution order.
        padding: axis label -> the input, of shape (batch, n), that is 0 where a position along that axis is padding:
            what a checkpoint holds there is not judged. Positions from n on are no padding. The first axis of such a
            checkpoint is the batch.
        contracts: those of the suite's contracts under which the case is checked, for inputs that not every format can
            hold; empty: all.
        about: what the case is for, one sentence.
        fixed: input -> the floating dtype in which it is given under every contract; others come in storage.
        refuses: what is wrong with the inputs, so that a candidate must raise, or exit with another code than 0,
            rather than answer; such a case has no checkpoints but `refused`, which is added.
    """

    name: str
    inputs: Mapping[str, Recipe]
    params: Mapping[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    padding: Mapping[str, str] = field(default_factory=dict)
    contracts: tuple[str, ...] = ()
    about: str = ""
    fixed: Mapping[str, str] = field(default_factory=dict)
    refuses: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` where the declaration contradicts itself."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"case {self.name!r}: a name is of a-z, 0-9, '.', '_' and '-'")
        self._add_refusal()
        self._check_params()
        names = [checkpoint.name for checkpoint in self.checkpoints]
        if not names:
            raise ValueError(f"case {self.name}: no checkpoint")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"case {self.name}: checkpoints named twice: {repeated}")
        self._check_dependencies({checkpoint.name: checkpoint for checkpoint in self.checkpoints})
        for name, dtype in self.fixed.items():
            if name not in self.inputs or dtype not in ("float64", "float32"):
                raise ValueError(f"case {self.name}: fixed {name!r}: {dtype!r} is no float format of an input")
        for name in set(self.padding.values()) - set(self.inputs):
            raise ValueError(f"case {self.name}: padding is said by {name!r}, which is no input")
        for name in self.inputs:
            if "/" in name and name.partition("/")[0] in self.inputs:
                raise ValueError(f"case {self.name}: {name!r} and {name.partition('/')[0]!r} are both inputs")

    def _add_refusal(self) -> None:
        if self.refuses:
            if self.checkpoints:
                raise ValueError(f"case {self.name}: what must be refused has no checkpoints")
            object.__setattr__(self, "checkpoints", (Checkpoint("refused", (), dtype="refusal"),))
        elif any(checkpoint.dtype == "refusal" for checkpoint in self.checkpoints):
            raise ValueError(f"case {self.name}: says in `refuses` what must be refused, and has no other checkpoint")

    def _check_params(self) -> None:
        for name, value in self.params.items():
            try:
                json.dumps(value)
            except TypeError as error:
                raise ValueError(f"case {self.name}: parameter {name}: {error}; use Python's own numbers") from None

    def _check_dependencies(self, by_name: Mapping[str, Checkpoint]) -> None:
        for checkpoint in self.checkpoints:
            place = f"{self.name}/{checkpoint.name}"
            for other in (checkpoint.judged_by, checkpoint.follows):
                if other is not None and other not in by_name:
                    raise ValueError(f"{place}: depends on {other}, which is no checkpoint")
            if checkpoint.judged_by is not None and not by_name[checkpoint.judged_by].floating:
                raise ValueError(f"{place}: judged by {checkpoint.judged_by}, which holds no floats")
            if checkpoint.follows is not None and not by_name[checkpoint.follows].sequential:
                raise ValueError(f"{place}: follows {checkpoint.follows}, which is not sequential")

    def fine(self, *contracts: str) -> Case:
        """Return the case with all dyadic inputs of full float32 width, checked under `contracts`, which hold it.

        In no other case can one see that inputs are rounded on the way in: every format holds what `Dyadic` draws.
        Not for a contract whose products round their operands: the noise of products takes inputs to be exact.
        """
        finer = {name: Fine(recipe) if isinstance(recipe, Dyadic) else recipe for name, recipe in self.inputs.items()}
        return replace(self, inputs=finer, contracts=contracts)

    @property
    def computed(self) -> tuple[Checkpoint, ...]:
        """Return the checkpoints that have a golden: none where the inputs must be refused."""
        return () if self.refuses else self.checkpoints

    def checkpoint(self, name: str) -> Checkpoint:
        """Return the checkpoint called `name`; raise `KeyError` if there is none."""
        return next((c for c in self.checkpoints if c.name == name), None) or _missing(name, self.name)

    def judged_elements(self, checkpoint: Checkpoint, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_] | None:
        """Return where `checkpoint`'s golden is judged, boolean, broadcastable to its kept shape; None: everywhere.

        `inputs` must hold the inputs that `padding` names.
        """
        judged: NDArray[np.bool_] | None = None
        for axis, label in enumerate(checkpoint.axes):
            if label not in self.padding:
                continue
            valid = np.asarray(inputs[self.padding[label]]) != 0  # (batch, length)
            valid = valid[checkpoint.kept_index[0]]
            later = checkpoint.shape[axis] - valid.shape[1]  # tokens that came after the prompt are never padding
            valid = np.pad(valid, ((0, 0), (0, later)), constant_values=True)[:, checkpoint.kept_index[axis]]
            shape = [1] * len(checkpoint.shape)
            shape[0], shape[axis] = valid.shape
            valid = valid.reshape(shape)
            judged = valid if judged is None else judged & valid
        return judged


def _missing(name: str, place: str) -> Any:
    raise KeyError(f"{place} has no checkpoint {name!r}")


@dataclass(frozen=True)
class Property:
    """What must hold of a candidate's own outputs, whatever the goldens are; tried by a second run on other inputs.

    Attributes:
        name: such as `causality`.
        about: what holds, such as "what comes later changes nothing before".
        cases: those in which it is tried.
        checkpoint: the one that it speaks of; how far values may be apart follows from the noise of its goldens.
        changed: gives the inputs of the second run from those of the first and, as `outputs/NAME`, the checkpoints that
            it left; floats that every contract must hold exactly. None: the same inputs.
        compared: gets the outputs of both runs and the inputs of the second, and returns what is found and what is
            wanted, broadcastable to it; None: both runs must give the same bits.
        params: parameters that the second run has otherwise; its checkpoints have the shapes of the first.
    """

    name: str
    about: str
    cases: tuple[str, ...]
    checkpoint: str
    changed: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]] | None = None
    compared: Callable[[Arrays, Arrays, Arrays], tuple[Any, Any]] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """One thing to be computed and its contract.

    Attributes:
        name: that of its files and of the function that a candidate provides; `gpt2@…` for goldens of other weights.
        about: what is computed and how a candidate is called, as `karat list` prints it.
        contracts: the contracts that a candidate may promise, the first being the default of none.
        cases: the cases.
        outputs: the checkpoints that a user of the thing sees, and a candidate may have alone: faults are looked for
            there too, not only where they show first.
        packed: its goldens are one HDF5 file instead of files for each case: for a grid of many small cases.
        properties: what must hold of a candidate's own outputs.
    """

    name: str
    about: str
    contracts: tuple[str, ...]
    cases: tuple[Case, ...]
    outputs: tuple[str, ...] = ()
    packed: bool = False
    properties: tuple[Property, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` where the declaration contradicts itself."""
        if not _SUITE_NAME.fullmatch(self.name):
            raise ValueError(f"suite {self.name!r}: a name is an identifier in lower case")
        names = [case.name for case in self.cases]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"suite {self.name}: cases named twice: {repeated}")
        if not self.cases or not self.contracts:
            raise ValueError(f"suite {self.name}: needs at least one case and one contract")
        for entry in self.properties:
            for name in entry.cases:
                self.case(name).checkpoint(entry.checkpoint)  # raises where there is none
        for case in self.cases:
            if unknown := set(case.contracts) - set(self.contracts):
                raise ValueError(
                    f"suite {self.name}: case {case.name} is checked under {sorted(unknown)}, not declared"
                )

    def contracts_of(self, case: Case) -> tuple[str, ...]:
        """Return the contracts under which `case` is checked."""
        return case.contracts or self.contracts

    @property
    def function(self) -> str:
        """Return the name of the function that a `py:` candidate provides."""
        return self.name.partition("@")[0]

    def case(self, name: str) -> Case:
        """Return the case called `name`; raise `UsageError` with the known names if there is none."""
        for case in self.cases:
            if case.name == name:
                return case
        raise UsageError(f"no case {name!r} in {self.name}; its cases: {', '.join(case.name for case in self.cases)}")


def load_by_path(path: Path) -> ModuleType:
    """Import the file `path` under a private name, without putting its folder on the module search path.

    `validators` and `generators` are also packages of the package index, which a candidate may need.
    """
    name = "_karat_" + "_".join(path.resolve().with_suffix("").parts[-3:]).replace("-", "_").replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        # The text, not a cached compilation of it: what runs must be what is hashed.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102
    except BaseException:
        del sys.modules[name]
        raise
    return module


@dataclass(frozen=True)
class Repository:
    """A folder with `tolerances.toml`, `validators/`, `generators/` and `goldens/`."""

    root: Path

    @property
    def goldens(self) -> Path:
        """Return the folder of the goldens."""
        return self.root / "goldens"

    def folder(self, suite: str) -> Path:
        """Return the folder of the goldens of `suite`: in the family folder in which its contract stands."""
        family = self.validator(suite).parent.relative_to(self.root / "validators")
        return self.goldens / family / suite

    def validator(self, suite: str) -> Path:
        """Return the file of the contract of `suite`."""
        return self._one(self.root / "validators", suite)

    def generator(self, suite: str) -> Path:
        """Return the file of the reference of `suite`."""
        return self._one(self.root / "generators", suite)

    def faults(self, suite: str) -> Path:
        """Return the file of the faults of `suite`, beside its reference."""
        path = self.generator(suite)
        return path.with_name(f"{path.stem}_faults.py")

    def formulations(self, suite: str) -> Path:
        """Return the file of the correct formulations of `suite`, beside its reference."""
        path = self.generator(suite)
        return path.with_name(f"{path.stem}_formulations.py")

    def plain(self, suite: str) -> Path:
        """Return the file of the bundled plain candidate of `suite`."""
        return self._one(self.root / "candidates" / "plain", suite)

    def _one(self, folder: Path, suite: str) -> Path:
        base = suite.partition("@")[0]
        return next(iter(sorted(folder.rglob(f"{base}.py"))), folder / f"{base}.py")

    @cached_property
    def suites(self) -> dict[str, Suite]:
        """Return the suites by name: one for each file in `validators/`, one for each `goldens/<suite>@<weights>/`."""
        return self._found[0]

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Return the names of the goldens of outside weights whose `config.json` no contract understands, and why."""
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[dict[str, Suite], dict[str, str]]:
        found: dict[str, Suite] = {}
        unreadable: dict[str, str] = {}
        modules: dict[str, ModuleType] = {}
        for path in sorted((self.root / "validators").rglob("*.py")):
            if path.name.startswith("_"):
                continue
            if path.stem in modules:
                raise UsageError(f"{path}: there is another contract named {path.stem!r}")
            try:
                modules[path.stem] = load_by_path(path)
            except Exception as error:
                raise UsageError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
            suite = getattr(modules[path.stem], "SUITE", None)
            if not isinstance(suite, Suite) or suite.name != path.stem:
                raise UsageError(f"{path} must define SUITE, a karat.Suite named {path.stem!r}")
            found[suite.name] = suite
        for path in sorted(self.goldens.rglob("*@*/config.json")):
            name = path.parent.name
            base = name.partition("@")[0]
            if base in modules:
                try:
                    found[name] = modules[base].suite_of_weights(name, json.loads(path.read_text(encoding="utf-8")))
                except Exception as error:  # noqa: BLE001 - the contract's own code on a file that may be damaged
                    unreadable[name] = f"{type(error).__name__}: {error}"
        return found, unreadable

    def suite(self, name: str) -> Suite:
        """Return the suite called `name`; raise `UsageError` with the known names if there is none."""
        if name not in self.suites:
            raise UsageError(f"no suite {name!r}; the suites of {self.root}: {', '.join(self.suites) or 'none'}")
        return self.suites[name]


def find_repository(start: Path | None = None) -> Repository:
    """Return the repository that `start` (default: the working directory) stands in.

    That is the nearest folder upwards with a `tolerances.toml`; else the one that karat is installed from; else the
    suites shipped with karat. Raise `UsageError` if there is none.
    """
    start = (start or Path.cwd()).resolve()
    package = Path(__file__).resolve().parent
    for folder in (start, *start.parents, package.parents[1], package / "shipped"):
        if (folder / "tolerances.toml").is_file():
            return Repository(folder)
    raise UsageError(f"no tolerances.toml in {start} or above it, and this installation ships no suites")


def _nearest(pattern: tuple[str, str, str], suites: Mapping[str, Suite]) -> str:
    """Say which part of a pattern that selects nothing is of nothing, what is nearest to it, and what there is."""
    chosen = [suite for suite in suites.values() if fnmatch.fnmatchcase(suite.name, pattern[0])]
    cases = [case for suite in chosen for case in suite.cases if fnmatch.fnmatchcase(case.name, pattern[1])]
    if not chosen:
        level, what, known = 0, "suites", list(suites)
    elif not cases:
        level, what, known = 1, f"cases of {pattern[0]}", [case.name for suite in chosen for case in suite.cases]
    else:
        level, what = 2, f"checkpoints of {pattern[0]}/{pattern[1]}"
        known = [checkpoint.name for case in cases for checkpoint in case.checkpoints]
    known = list(dict.fromkeys(known))
    close = difflib.get_close_matches(pattern[level], known, n=1)
    meant = f"did you mean {'/'.join((*pattern[:level], close[0]))}? " if close else ""
    more = f", … ({len(known)}; `karat list` names them)" if len(known) > _MOST_KNOWN else ""
    return f"{meant}{what}: {', '.join(known[:_MOST_KNOWN]) or 'none'}{more}"


@dataclass(frozen=True)
class Selection:
    """What `suite[/case[/checkpoint]]` patterns with shell wildcards select; no pattern selects everything."""

    patterns: tuple[tuple[str, str, str], ...] = ()

    @staticmethod
    def parse(texts: Iterable[str]) -> Selection:
        """Return the selection of the given patterns; raise `UsageError` for an empty one."""
        patterns = []
        for text in texts:
            parts = (*text.split("/", 2), "*", "*")[:3]
            if not all(parts):
                raise UsageError(f"{text!r} is not suite[/case[/checkpoint]]")
            patterns.append((parts[0], parts[1], parts[2]))
        return Selection(tuple(patterns))

    def has(self, suite: str, case: str = "*", checkpoint: str = "*") -> bool:
        """Say whether the named suite, case or checkpoint is selected, or holds something that may be."""
        if not self.patterns:
            return True
        given = (suite, case, checkpoint)
        return any(
            all(name == "*" or fnmatch.fnmatchcase(name, part) for name, part in zip(given, pattern, strict=True))
            for pattern in self.patterns
        )

    def require_matches(self, suites: Mapping[str, Suite]) -> None:
        """Raise `UsageError` for the first pattern that selects nothing."""
        for pattern in self.patterns:
            if not any(True for _ in Selection((pattern,)).walk(suites.values())):
                typed = "/".join(pattern).removesuffix("/*").removesuffix("/*")
                raise UsageError(f"{typed} selects nothing; {_nearest(pattern, suites)}")

    def walk(self, suites: Iterable[Suite]) -> Iterable[tuple[Suite, Case, Checkpoint]]:
        """Yield what is selected, in the order of the contracts."""
        for suite in suites:
            for case in suite.cases:
                for checkpoint in case.checkpoints:
                    if self.has(suite.name, case.name, checkpoint.name):
                        yield suite, case, checkpoint
