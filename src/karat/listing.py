"""Says what there is to check and what a candidate must provide: every suite, one suite, or one case in full."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from karat import formats
from karat.inputs import Recipe
from karat.suites import Case, Checkpoint, Repository, Selection, Suite
from karat.tolerances import Tolerances

_INDEX = re.compile(r"(?:(?<=\.)|(?<=^))\d+(?=\.)")
"""A number that counts layers or steps: a whole part of a name, and not its last."""
_MOST_VALUES = 6  # of a parameter, that are told where it differs from case to case
_MOST_CASES = 2  # that are told by name where not all have a checkpoint
_DTYPES = {
    "integer": "integers",
    "bool": "booleans",
    "accumulation": "in the contract's accumulation format",
    "refusal": "the candidate must raise",
}


def line(suite: Suite) -> str:
    """Return one line on a suite."""
    numbers = sorted({len(case.checkpoints) for case in suite.cases})
    each = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    size = f"{len(suite.cases)} cases of {each} checkpoint{'s' * (numbers[-1] > 1)}"
    return f"{suite.name}: {size}; contracts {', '.join(suite.contracts)}"


def overview(repository: Repository, suite: Suite, tolerances: Tolerances) -> str:
    """Return what a candidate of a suite gets and must produce: each name once, each case in a line."""
    tables = {
        "inputs (shapes of the first case that has each; floats in the contract's storage format)": _table(
            _grouped(suite, _inputs_of)
        ),
        "checkpoints, in the order of execution (likewise)": _table(_grouped(suite, _checkpoints_of)),
        "params": [f"  {name}: {values}" for name, values in _params(suite).items()] or ["  none"],
        "contracts": _contracts(suite, tolerances),
        "cases": _cases(suite),
    }
    if suite.properties:
        told = [(entry.name, entry.about, f"[{', '.join(entry.cases)}]") for entry in suite.properties]
        tables["properties, which karat check --properties tries"] = _table(told)
    lines = [suite.name, *(f"  {text}".rstrip() for text in suite.about.splitlines())]
    for title, rows in tables.items():
        lines += ["", f"{title}:", *rows]
    plain = repository.plain(suite.name)
    lines.append("")
    if plain.is_file():
        lines.append(f"{plain.relative_to(repository.root).as_posix()} computes all this in plain NumPy.")
    lines.append(
        f"karat list {suite.name}/{suite.cases[0].name} has every shape of a case; karat export writes its inputs."
    )
    return "\n".join(lines)


def details(suite: Suite, case: Case, selection: Selection) -> str:
    """Return everything about a case, with the shape of each input and of each selected checkpoint."""
    points = [point for point in case.checkpoints if selection.has(suite.name, case.name, point.name)]
    lines = [
        f"{suite.name}/{case.name}: {case.about}",
        f"  contracts: {', '.join(suite.contracts_of(case))}; floats come and go in their storage format",
        f"  params: {', '.join(f'{key}={value!r}' for key, value in case.params.items()) or 'none'}",
    ]
    if case.refuses:
        lines.append(f"  must be refused: {case.refuses}")
    lines += [f"  not compared: {label} where {name} is 0" for label, name in case.padding.items()]
    lines += [
        f"  compared of {point.name}: {label} {start} to {stop - 1}"
        for point in points
        for label, (start, stop) in point.keep.items()
    ]
    lines += [f"  input {entry.name} {entry.shape}{entry.words}" for entry in _inputs_of(case)]
    lines += [f"  {entry.name} {entry.shape}{entry.words}" for entry in map(_entry, points)]
    return "\n".join(lines)


# --- names that differ in a number ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """An input or a checkpoint of one case."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    what: str

    @property
    def words(self) -> str:
        """Return the axes' labels and what the values are, each after a space."""
        labels = f" {', '.join(self.axes)}" if self.axes else ""
        return labels + (f"; {self.what}" if self.what else "")


def _entry(point: Checkpoint) -> _Entry:
    return _Entry(point.name, point.shape, point.axes, "; ".join(_what(point)))


def _what(point: Checkpoint) -> Iterable[str]:
    """Yield what is special about the values of a checkpoint."""
    if point.dtype != "storage":
        yield _DTYPES[point.dtype]
    if point.exact_zeros:
        yield "exactly 0 where the golden is"
    if point.nonfinite:
        yield "NaN and infinities where the golden has them"
    if point.sign_free:
        yield f"up to the sign of each vector along {point.sign_free}"
    if point.judged_by:
        yield f"another index may stand where {point.judged_by} ties"
    if point.follows:
        yield f"compared as far as {point.follows} are the golden's"


def _inputs_of(case: Case) -> list[_Entry]:
    return [_Entry(name, recipe.shape, (), _dtype(case, name, recipe)) for name, recipe in case.inputs.items()]


def _dtype(case: Case, name: str, recipe: Recipe) -> str:
    """Return the dtype of an input, empty where that is the contract's storage format."""
    dtype = np.dtype(recipe.dtype).name
    return case.fixed.get(name, "" if dtype in formats.FORMATS else dtype)


def _checkpoints_of(case: Case) -> list[_Entry]:
    return [_entry(point) for point in case.checkpoints]


def _grouped(suite: Suite, entries_of: Callable[[Case], list[_Entry]]) -> list[tuple[str, str, str]]:
    """Return name, shape and words of each group of entries that differ in numbers, as the first case has them."""
    groups: dict[tuple[str, str], dict[str, list[_Entry]]] = {}  # by case
    order: list[tuple[str, str]] = []
    for case in suite.cases:
        place = 0
        for entry in entries_of(case):
            key = (_INDEX.sub("#", entry.name), entry.what)
            if key not in groups:
                order.insert(place, key)
            groups.setdefault(key, {}).setdefault(case.name, []).append(entry)
            place = max(place, order.index(key) + 1)
    return [_row(groups[key], len(suite.cases)) for key in order]


def _row(by_case: Mapping[str, Sequence[_Entry]], cases: int) -> tuple[str, str, str]:
    entries = next(iter(by_case.values()))
    one = len({entry.axes for group in by_case.values() for entry in group}) == 1
    words = [", ".join(entries[0].axes) if one else "", entries[0].what]
    if len(by_case) < cases:
        some = ", ".join(by_case) if len(by_case) <= _MOST_CASES else f"in {len(by_case)} of {cases} cases"
        words.append(f"only {some}")
    name, shape = _collapsed([entry.name for entry in entries]), _shape([entry.shape for entry in entries])
    return name, shape, "; ".join(word for word in words if word)


def _collapsed(names: Sequence[str]) -> str:
    """Write names that differ in numbers as one: `h.{0..3}.q`."""
    columns = zip(*(_INDEX.findall(name) for name in names), strict=True)
    texts = iter([_range(sorted({int(number) for number in column})) for column in columns])
    return _INDEX.sub(lambda _: next(texts), names[0])


def _range(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    whole = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{{{numbers[0]}..{numbers[-1]}}}" if whole else f"{{{','.join(map(str, numbers))}}}"


def _shape(shapes: Sequence[tuple[int, ...]]) -> str:
    lengths = [sorted(set(column)) for column in zip(*shapes, strict=True)]
    texts = [str(values[0]) if len(values) == 1 else f"{values[0]}..{values[-1]}" for values in lengths]
    return f"({', '.join(texts)}{',' * (len(texts) == 1)})"


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    name_width = max((len(name) for name, _, _ in rows), default=0)
    shape_width = max((len(shape) for _, shape, _ in rows), default=0)
    return [f"  {name:{name_width}}  {shape:{shape_width}}  {words}".rstrip() for name, shape, words in rows]


# --- params, contracts, cases -----------------------------------------------------------------------------------------


def _values(suite: Suite, name: str) -> list[Any]:
    """Return the values of a parameter in the order in which they occur."""
    found: list[Any] = []
    for case in suite.cases:
        if name in case.params and case.params[name] not in found:
            found.append(case.params[name])
    return found


def _params(suite: Suite) -> dict[str, str]:
    names = dict.fromkeys(name for case in suite.cases for name in case.params)
    texts = {}
    for name in names:
        values = _values(suite, name)
        more = f" or {len(values) - _MOST_VALUES} others" if len(values) > _MOST_VALUES else ""
        texts[name] = " or ".join(repr(value) for value in values[:_MOST_VALUES]) + more
    return texts


def _contracts(suite: Suite, tolerances: Tolerances) -> list[str]:
    rows = []
    for name in suite.contracts:
        text = "not in tolerances.toml"
        if contract := tolerances.contracts.get(name):
            rounded = "at the end" if contract.once else "after each operation"
            text = (
                f"stored in {contract.storage}, sums in {contract.accumulation}, factors of matrix products in"
                f" {contract.products}, rounded {rounded}"
            )
        rows.append((name, text, ""))
    return _table(rows)


def _cases(suite: Suite) -> list[str]:
    everywhere = set.intersection(*(set(case.params) for case in suite.cases))
    differing = [name for name in _params(suite) if len(_values(suite, name)) > 1 or name not in everywhere]
    rows = []
    for case in suite.cases:
        name, recipe = next(iter(case.inputs.items()), ("", None))
        words = [f"{name} {recipe.shape}"] if recipe is not None else []
        words += [f"{key}={case.params[key]!r}" for key in differing if key in case.params]
        left_out = [contract for contract in suite.contracts if contract not in suite.contracts_of(case)]
        if case.refuses:
            words.append("must be refused")
        if left_out:
            told = case.contracts if len(case.contracts) <= len(left_out) else left_out
            words.append(f"{'only' if told is case.contracts else 'not'} {', '.join(told)}")
        rows.append((case.name, case.about, f"[{'; '.join(words)}]"))
    return _table(rows)
