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

_CONTRACT_KEYS = {"storage", "accumulation", "products", "rounding"}
_ROUNDINGS = ("each operation", "once")
_FLAT_KEYS = {"rtol", "atol_rms", "reason"}
_LIMIT_KEYS = {"rms_sigma", "max_sigma", "row_sigma", "gain_sigma", "bias_sigma", "reason"}
_SIGNATURE_KEYS = {"strength", "visible", "explained", "reason"}
_OVERRIDE_KEYS = {"suite", "case", "checkpoint", "contract"}


@dataclass(frozen=True)
class Contract:
    """The number format that a candidate promises.

    Attributes:
        name: such as `bfloat16`.
        storage: the format of inputs and outputs.
        accumulation: the format in which sums are accumulated, and in which the inside of an operation is computed.
        products: the format to which the operands of matrix products are rounded: storage, or tfloat32.
        rounding: how often results are rounded to storage: `each operation`, or `once`, at the end, all before it being
            computed in the accumulation format.
    """

    name: str
    storage: str
    accumulation: str
    products: str
    rounding: str

    @property
    def once(self) -> bool:
        """Say whether results are rounded to storage only at the end."""
        return self.rounding == "once"

    @property
    def inner(self) -> Contract:
        """Return the contract of what is computed, and returned, in the accumulation format."""
        return Contract(self.accumulation, self.accumulation, self.accumulation, self.accumulation, "each operation")


@dataclass(frozen=True)
class Limits:
    """How far a candidate may be from a golden with noise scales, in units of the predicted standard deviation sigma.

    Attributes:
        rms_sigma: largest root mean square of error / sigma.
        max_sigma: largest |error| / sigma.
        row_sigma: largest root mean square of a row.
        gain_sigma: largest |gain| in units of the standard deviation that the noise gives it.
        bias_sigma: largest |bias| in units of the standard deviation that the noise gives it.
        source: where it is written.
        reason: why it is these numbers.
    """

    rms_sigma: float
    max_sigma: float
    row_sigma: float
    gain_sigma: float
    bias_sigma: float
    source: str
    reason: str


@dataclass(frozen=True)
class SignatureRule:
    """When the signature of a fault decides.

    Attributes:
        strength: the part of a fault's direction that a candidate must have for the fault to be found in it.
        visible: the least ratio of a fault's direction to the noise along it at which the fault is visible.
        explained: the least part of a mismatch that a fault must explain to be named as its cause.
        reason: why it is these numbers.
    """

    strength: float
    visible: float
    explained: float
    reason: str


@dataclass(frozen=True)
class Tolerance:
    """How far a candidate may be from a golden without noise scales: rtol * |golden| + atol_rms * RMS of the golden.

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
    """The content of one tolerances.toml; `rows` by class and contract, "" for all contracts that have no row."""

    path: Path
    contracts: dict[str, Contract]
    rows: dict[tuple[str, str], Tolerance | Limits]
    overrides: tuple[tuple[dict[str, str], Tolerance | Limits], ...]
    signatures: SignatureRule | None = None

    def contract(self, name: str) -> Contract:
        """Return the contract called `name`; raise `UsageError` with the known names if there is none."""
        if name not in self.contracts:
            raise UsageError(f"no contract {name!r} in {self.path}; contracts: {', '.join(self.contracts)}")
        return self.contracts[name]

    def find(self, contract: str, suite: str, case: str, checkpoint: str, *, kind: str) -> Tolerance | Limits:
        """Return the tolerance that applies: the first override that matches, else the row of the class `kind`.

        Raise `KeyError` if there is neither; there is no default.
        """
        given = {"suite": suite, "case": case, "checkpoint": checkpoint, "contract": contract}
        for patterns, tolerance in self.overrides:
            if all(fnmatch.fnmatchcase(given[key], pattern) for key, pattern in patterns.items()):
                return tolerance
        row = self.rows.get((kind, contract)) or self.rows.get((kind, ""))
        if row is None:
            raise KeyError(f"{self.path} has no row [class.{kind}.{contract}], which {suite}/{case}/{checkpoint} needs")
        return row

    def sources(self) -> list[str]:
        """Return the place of every row and override, so that the gate can say which none uses."""
        return [row.source for row in self.rows.values()] + [row.source for _, row in self.overrides]


def read_tolerances(path: Path) -> Tolerances:
    """Read a tolerances.toml; raise `UsageError` naming the key that is unknown, missing or of the wrong type."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    _only(path, "the file", data, {"schema", "contract", "class", "override", "signatures"})
    if type(data.get("schema")) is not int or data["schema"] != 1:
        raise UsageError(f"{path}: schema {data.get('schema')!r}; this karat reads schema 1")
    contracts = {name: _contract(path, name, table) for name, table in _table(path, data, "contract").items()}
    rows = {}
    for kind, tables in _table(path, data, "class").items():
        _require_table(path, f"[class.{kind}]", tables)
        own = {key: value for key, value in tables.items() if not isinstance(value, dict)}
        if own:
            rows[kind, ""] = _row(path, f"class.{kind}", own)
        for contract, table in tables.items():
            if contract in own:
                continue
            if contract not in contracts:
                raise UsageError(f"{path}: [class.{kind}.{contract}] is of a contract that is not declared")
            rows[kind, contract] = _row(path, f"class.{kind}.{contract}", table)
    overrides = data.get("override", [])
    if not isinstance(overrides, list):
        raise UsageError(f"{path}: override must be an array of tables, [[override]]")
    numbered = enumerate(overrides, 1)
    return Tolerances(
        path,
        contracts,
        rows,
        tuple(_override(path, number, table, contracts) for number, table in numbered),
        _signature_rule(path, data["signatures"]) if "signatures" in data else None,
    )


def _signature_rule(path: Path, table: Any) -> SignatureRule:
    _only(path, "[signatures]", table, _SIGNATURE_KEYS)
    _require_all(path, "[signatures]", table, _SIGNATURE_KEYS)
    for key in ("strength", "visible", "explained"):
        _require_number(path, "[signatures]", table, key, 1e3)
        if not table[key] > 0 or (key != "visible" and table[key] > 1):
            raise UsageError(f"{path}: [signatures] {key} = {table[key]!r} is no part of a fault, or nothing at all")
    return SignatureRule(
        float(table["strength"]), float(table["visible"]), float(table["explained"]), _reason(path, "signatures", table)
    )


def _override(
    path: Path, number: int, table: Any, contracts: Iterable[str]
) -> tuple[dict[str, str], Tolerance | Limits]:
    place = f"override {number}"
    _only(path, f"[{place}]", table, _OVERRIDE_KEYS | _FLAT_KEYS | _LIMIT_KEYS)
    patterns = {key: table[key] for key in sorted(_OVERRIDE_KEYS) if key in table}
    for key, pattern in patterns.items():
        if not isinstance(pattern, str):
            raise UsageError(f"{path}: {place}: {key} = {pattern!r} is not a pattern")
    if "contract" in patterns and not fnmatch.filter(contracts, patterns["contract"]):
        raise UsageError(f"{path}: {place}: contract = {patterns['contract']!r} matches none that is declared")
    if not patterns:
        raise UsageError(f"{path}: {place} names no suite, case, checkpoint or contract")
    return patterns, _row(path, place, {key: value for key, value in table.items() if key not in _OVERRIDE_KEYS})


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
    if table["rounding"] not in _ROUNDINGS:
        raise UsageError(
            f"{path}: [contract.{name}] rounding = {table['rounding']!r} is not one of {', '.join(_ROUNDINGS)}"
        )
    known: dict[str, Iterable[str]] = {
        "storage": formats.FORMATS,
        "accumulation": formats.FORMATS,
        "products": formats.PRODUCT_FORMATS,
    }
    for key, names in known.items():
        if table[key] not in list(names):
            raise UsageError(f"{path}: [contract.{name}] {key} {table[key]!r} is not one of {', '.join(names)}")
    return Contract(name, table["storage"], table["accumulation"], table["products"], table["rounding"])


def _row(path: Path, place: str, table: Any) -> Tolerance | Limits:
    _require_table(path, f"[{place}]", table)
    predicted = bool(set(table) & (_LIMIT_KEYS - _FLAT_KEYS))
    keys = _LIMIT_KEYS if predicted else _FLAT_KEYS
    _only(path, f"[{place}]", table, keys)
    _require_all(path, f"[{place}]", table, keys)
    for key in sorted(keys - {"reason"}):
        _require_number(path, f"[{place}]", table, key, 1e3 if predicted else 1)
    source, reason = f"{path.name}, [{place}]", _reason(path, place, table)
    numbers = {key: float(table[key]) for key in keys - {"reason"}}
    return (
        Limits(**numbers, source=source, reason=reason)
        if predicted
        else Tolerance(**numbers, source=source, reason=reason)
    )


def _require_all(path: Path, place: str, table: Any, keys: set[str]) -> None:
    if missing := keys - set(table):
        raise UsageError(f"{path}: {place} lacks {sorted(missing)}; 0 means 0 and must be written")


def _require_number(path: Path, place: str, table: Any, key: str, bound: float) -> None:
    if type(table[key]) not in (int, float) or not 0 <= table[key] < bound:
        raise UsageError(f"{path}: {place} {key} = {table[key]!r} is not a number of [0, {bound:g})")


def _reason(path: Path, place: str, table: Any) -> str:
    reason = table["reason"]
    if not isinstance(reason, str) or not reason.strip():
        raise UsageError(f"{path}: [{place}] needs a reason")
    return reason
