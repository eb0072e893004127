"""Faults: mistakes that people really make, planted in the plain candidate and put through the real check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from karat import exchange, inputs, tensors
from karat.candidates import Failure, Request
from karat.exchange import Outputs
from karat.session import Session
from karat.suites import Case, Repository, Suite, load_by_path
from karat.verdicts import Verdict

_LARGEST_CASE = 1_000_000  # input elements; larger cases repeat what the small ones show


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes:
        name: such as `mask_missing`.
        at: the checkpoints where it belongs: of these, the first that a case has is its first divergence there, unless
            the case cannot see the fault, or sees it only in its continuation. Empty for a fault that raises.
        text: what the mistake is, in the words a report uses.
        change: plants it in a freshly loaded plain candidate.
        contracts: the contracts under which it is a mistake, such as those whose inputs it rounds; empty: all.
    """

    name: str
    at: tuple[str, ...]
    text: str
    change: Callable[[Any], None]
    contracts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Formulation:
    """A correct other way to compute the same, which must pass; it is not asked to refuse anything.

    Attributes:
        name: such as `softmax_chunked`.
        text: what is done otherwise.
        change: turns a freshly loaded plain candidate into it; may replace the suite's whole function.
        contracts: the contracts that it honours; empty: all.
        large: fast enough to be tried on the large cases too.
        needs: a program without which it cannot run, such as `c++`; empty: none.
    """

    name: str
    text: str
    change: Callable[[Any], None]
    contracts: tuple[str, ...] = ()
    large: bool = False
    needs: str = ""


def wrap(**replacements: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a change that replaces functions of the plain candidate; each value makes the wrong from the right."""

    def change(plain: Any) -> None:
        for name, replacement in replacements.items():
            setattr(plain, name, replacement(getattr(plain, name)))

    return change


def rounded_inputs(function: str, at: tuple[str, ...]) -> tuple[Fault, ...]:
    """Return the faults of a suite's `function` that rounds its inputs on the way in, which shows first `at`.

    GPU libraries multiply so unless they are told not to, and automatic casting does it. Cases of `Fine` inputs see it.
    """
    return tuple(
        Fault(
            f"inputs_in_{name}",
            at,
            f"the inputs are rounded to the {bits} bits of {name} on the way in",
            wrap(**{function: lambda right, bits=bits: lambda **given: right(**_rounded(given, bits))}),
            ("float64", "float32"),
        )
        for name, bits in (("tfloat32", 11), ("bfloat16", 8))
    )


def _rounded(value: Any, bits: int) -> Any:
    """Return floats, and mappings of them, rounded to so many bits of significand; all else as it is."""
    if isinstance(value, Mapping):
        return {name: _rounded(entry, bits) for name, entry in value.items()}
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    significand, exponent = np.frexp(value)
    return np.ldexp(np.rint(significand * 2.0**bits) / 2.0**bits, exponent).astype(value.dtype)


def load_faults(repository: Repository, suite: Suite) -> tuple[Fault, ...]:
    """Return the faults catalogued in `generators/<suite>_faults.py`, none if there is no such file."""
    path = repository.faults(suite.name)
    return tuple(load_by_path(path).FAULTS) if path.is_file() else ()


def load_formulations(repository: Repository, suite: Suite) -> tuple[Formulation, ...]:
    """Return the formulations catalogued in `generators/<suite>_formulations.py`, none if there is no such file."""
    path = repository.formulations(suite.name)
    return tuple(load_by_path(path).FORMULATIONS) if path.is_file() else ()


class FaultyCandidate:
    """The plain candidate with one fault planted, or none; runs in this process."""

    def __init__(self, plain: Path, function: str, fault: Fault | Formulation | None) -> None:
        """Load the plain candidate anew and plant the fault, or turn it into the formulation."""
        self.spec = f"{plain.stem} with {fault.name}" if fault else plain.stem
        module: ModuleType = load_by_path(plain)
        if fault is not None:
            fault.change(module)
        self._call: Callable[..., Any] = getattr(module, function)

    def run(self, request: Request) -> Outputs | Failure:
        """Return the outputs of one case."""
        stored = exchange.in_storage(request.case, request.arrays, request.contract)
        # The next candidate gets the same arrays: what one writes into its inputs must not reach it.
        given = inputs.nest({n: array.copy() if array.size <= _LARGEST_CASE else array for n, array in stored.items()})
        try:
            with np.errstate(all="ignore"):  # a fault may divide by zero; karat says so in its own words
                returned = self._call(**given, **request.case.params)
        except Exception as error:  # noqa: BLE001 - a fault may raise; that is how it is caught
            return Failure("raised", f"{type(error).__name__}: {error}", refuses=True)
        if not isinstance(returned, Mapping):
            returned = {request.case.checkpoints[0].name: returned}
        return Outputs({name: tensors.of_array(array) for name, array in returned.items()})

    def close(self) -> None:
        """Do nothing."""


def visible_cases(suite: Suite) -> list[Case]:
    """Return the cases on which faults are tried: those with small inputs."""
    return [
        case for case in suite.cases if sum(math.prod(recipe.shape) for recipe in case.inputs.values()) <= _LARGEST_CASE
    ]


def observe(session: Session, suite: Suite, fault: Fault | None, contract: str) -> dict[str, list[Verdict]]:
    """Check the plain candidate with `fault` planted against the goldens of `session`; return the verdicts by case."""
    candidate = FaultyCandidate(session.repository.plain(suite.name), suite.function, fault)
    planted = session.with_candidate(candidate)
    return {
        case.name: planted.verdicts(suite, case, contract)
        for case in visible_cases(suite)
        if contract in suite.contracts_of(case)
    }


def first_failure(verdicts: Sequence[Verdict]) -> str | None:
    """Return the checkpoint of the first divergence, the status where there is none (`raised`), None if all pass."""
    for verdict in verdicts:
        if verdict.first_divergence:
            return verdict.checkpoint
    return next((verdict.status for verdict in verdicts if verdict.status != "pass"), None)


def expected_failure(fault: Fault, case: Case) -> str:
    """Return what `first_failure` must be in a case that sees the fault."""
    if not fault.at:
        return "raised"
    names = [checkpoint.name for checkpoint in case.checkpoints]
    return next((name for name in names if name in fault.at), "no checkpoint")
