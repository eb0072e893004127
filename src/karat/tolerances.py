"""Reads tolerances.toml, the only place where a tolerance is written; unknown keys and missing rows are errors."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from karat import formats
from karat.errors import UsageError

_CONTRACT_KEYS = {"storage", "accumulation", "rounding"}
_ROW_KEYS = {"rtol", "atol_rms", "reason"}
_OVERRIDE_KEYS = {"suite", "case", "checkpoint", "contract"}


@dataclass(frozen=True)
class Contract:
    """The number format that a candidate promises.

    Attributes:
        name: such as `bfloat16`.
        storage: the format of inputs and outputs.
        accumulation: the format in which sums are accumulated.
        rounding: how often results are rounded to storage: `each operation`.
    """

    name: str
    storage: str
    accumulation: str
    rounding: str


@dataclass(frozen=True)
class Tolerance:
    """How far a candidate may be from a golden: rtol * |golden| + atol_rms * RMS of the golden.

    Attributes:
        rtol: relative part.
        atol_rms: absolute part, in units of the golden's RMS.
        source: where it is written, such as `tolerances.toml, class.probabilities.float32`.
        reason: why it is this number.
    """

    rtol: float
    atol_rms: float
    source: str
    reason: str


@dataclass(frozen=True)
class Tolerances:
    """The content of one tolerances.toml; `rows` by (class or override number, contract)."""

    path: Path
    contracts: dict[str, Contract]
    rows: dict[tuple[str, str], Tolerance]
    overrides: tuple[tuple[dict[str, str], Tolerance], ...]

    def contract(self, name: str) -> Contract:
        """Return the contract called `name`; raise `UsageError` with the known names if there is none."""
        if name not in self.contracts:
            raise UsageError(f"no contract {name!r} in {self.path}; contracts: {', '.join(self.contracts)}")
        return self.contracts[name]

    def find(self, contract: str, suite: str, case: str, checkpoint: str, *, kind: str) -> Tolerance:
        """Return the tolerance that applies: the first override that matches, else the row of the class `kind`.

        Raise `KeyError` if there is neither; there is no default.
        """
        given = {"suite": suite, "case": case, "checkpoint": checkpoint, "contract": contract}
        for patterns, tolerance in self.overrides:
            if all(fnmatch.fnmatchcase(given[key], pattern) for key, pattern in patterns.items()):
                return tolerance
        if (kind, contract) not in self.rows:
            raise KeyError(f"{self.path} has no row [class.{kind}.{contract}], which {suite}/{case}/{checkpoint} needs")
        return self.rows[kind, contract]

    def sources(self) -> list[str]:
        """Return the place of every row and override, so that the gate can say which none uses."""
        return [row.source for row in self.rows.values()] + [row.source for _, row in self.overrides]


def read_tolerances(path: Path) -> Tolerances:
    """Read a tolerances.toml; raise `UsageError` naming the key that is unknown, missing or of the wrong type."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    _only(path, "the file", data, {"schema", "contract", "class", "override"})
    if type(data.get("schema")) is not int or data["schema"] != 1:
        raise UsageError(f"{path}: schema {data.get('schema')!r}; this karat reads schema 1")
    contracts = {name: _contract(path, name, table) for name, table in _table(path, data, "contract").items()}
    rows = {}
    for kind, tables in _table(path, data, "class").items():
        _require_table(path, f"[class.{kind}]", tables)
        for contract, table in tables.items():
            if contract not in contracts:
                raise UsageError(f"{path}: [class.{kind}.{contract}] is of a contract that is not declared")
            rows[kind, contract] = _row(path, f"class.{kind}.{contract}", table)
    overrides = data.get("override", [])
    if not isinstance(overrides, list):
        raise UsageError(f"{path}: override must be an array of tables, [[override]]")
    numbered = enumerate(overrides, 1)
    return Tolerances(
        path, contracts, rows, tuple(_override(path, number, table, contracts) for number, table in numbered)
    )


def _override(path: Path, number: int, table: Any, contracts: Iterable[str]) -> tuple[dict[str, str], Tolerance]:
    place = f"override {number}"
    _only(path, f"[{place}]", table, _OVERRIDE_KEYS | _ROW_KEYS)
    patterns = {key: table[key] for key in sorted(_OVERRIDE_KEYS) if key in table}
    for key, pattern in patterns.items():
        if not isinstance(pattern, str):
            raise UsageError(f"{path}: {place}: {key} = {pattern!r} is not a pattern")
    if "contract" in patterns and not fnmatch.filter(contracts, patterns["contract"]):
        raise UsageError(f"{path}: {place}: contract = {patterns['contract']!r} matches none that is declared")
    if not patterns:
        raise UsageError(f"{path}: {place} names no suite, case, checkpoint or contract")
    return patterns, _row(path, place, {key: value for key, value in table.items() if key in _ROW_KEYS})


def _table(path: Path, data: dict[str, Any], key: str) -> dict[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {key} must be a table")
    return table


def _require_table(path: Path, place: str, table: Any) -> None:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {place} must be a table")


def _only(path: Path, place: str, table: Any, known: Iterable[str]) -> None:
    _require_table(path, place, table)
    for key in table:
        if key not in known:
            raise UsageError(f"{path}: {place} has the unknown key {key!r}; known: {', '.join(sorted(known))}")


def _contract(path: Path, name: str, table: Any) -> Contract:
    _only(path, f"[contract.{name}]", table, _CONTRACT_KEYS)
    if missing := _CONTRACT_KEYS - set(table):
        raise UsageError(f"{path}: [contract.{name}] lacks {sorted(missing)}")
    if not isinstance(table["rounding"], str):
        raise UsageError(f"{path}: [contract.{name}] rounding = {table['rounding']!r} is not text")
    for key in ("storage", "accumulation"):
        if not isinstance(table[key], str) or table[key] not in formats.FORMATS:
            raise UsageError(
                f"{path}: [contract.{name}] {key} {table[key]!r} is not one of {', '.join(formats.FORMATS)}"
            )
    return Contract(name, table["storage"], table["accumulation"], table["rounding"])


def _row(path: Path, place: str, table: Any) -> Tolerance:
    _only(path, f"[{place}]", table, _ROW_KEYS)
    if missing := _ROW_KEYS - set(table):
        raise UsageError(f"{path}: [{place}] lacks {sorted(missing)}; 0 means 0 and must be written")
    for key in ("rtol", "atol_rms"):
        if type(table[key]) not in (int, float) or not 0 <= table[key] < 1:
            raise UsageError(f"{path}: [{place}] {key} = {table[key]!r} is not a number of [0, 1)")
    if not isinstance(table["reason"], str) or not table["reason"].strip():
        raise UsageError(f"{path}: [{place}] needs a reason")
    return Tolerance(float(table["rtol"]), float(table["atol_rms"]), f"{path.name}, [{place}]", table["reason"])
