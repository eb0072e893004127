"""What frozen things were made with: digests of code, catalogues and tolerances, so that a change makes them stale."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from karat.suites import Suite
from karat.tolerances import Tolerances

_FREEZING = ("formats", "freeze_case", "noise", "replays")


def method(suite: Suite, tolerances: Tolerances) -> str:
    """Return one SHA-256 of what noise scales and signatures follow from beside reference and faults.

    That is the suite's contracts, when a fault counts as visible, and the code that measures.
    """
    contracts = [asdict(tolerances.contract(name)) for name in suite.contracts]
    visible = tolerances.signatures.visible if tolerances.signatures is not None else None
    return _digest(json.dumps([contracts, visible, code(_FREEZING)], sort_keys=True))


def code(modules: Iterable[str]) -> str:
    """Return one SHA-256 of modules of karat, comments and docstrings left out: they decide nothing."""
    package = Path(__file__).parent
    return _digest("".join(_without_words((package / f"{name}.py").read_text(encoding="utf-8")) for name in modules))


def limits(path: Path) -> str:
    """Return one SHA-256 of a tolerances.toml without its reasons and comments, which quote the evidence."""

    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: stripped(item) for key, item in value.items() if key != "reason"}
        return [stripped(item) for item in value] if isinstance(value, list) else value

    return _digest(json.dumps(stripped(tomllib.loads(path.read_text(encoding="utf-8"))), sort_keys=True))


def beside(file: Path, name: str) -> Path:
    """Return the file `name`.py in the folder of `file`, or in the nearest one above that has it."""
    for folder in file.resolve().parents:
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
        if folder.name == "generators" or (folder / "tolerances.toml").is_file():
            break
    return file.with_name(f"{name}.py")


def with_neighbours(path: Path) -> list[Path]:
    """Return a file of a generator, if it is there, and those beside it that it loads, and so on."""
    found: list[Path] = []
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current.is_file() and current not in found:
            found.append(current)
            names = re.findall(r'beside\(__file__, "([\w/]+)"\)', current.read_text(encoding="utf-8"))
            waiting += [beside(current, name) for name in names]
    return found


@functools.cache  # the same modules are asked for again for each suite
def _without_words(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value.value = ""
    return ast.dump(tree)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
