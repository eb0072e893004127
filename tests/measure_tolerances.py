"""Prints, for each row of tolerances.toml, the worst correct formulation and the faults nearest to it.

The unit is that of a row whose rtol and atol_rms are the same number t: an error e needs t = e / (|golden| + RMS). Run
by `nox -s measure`; its lines are what the reasons in tolerances.toml quote.
"""

import contextlib
import inspect
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat import faults, formats
from karat.candidates import Candidate, Failure, Request, open_candidate
from karat.exchange import Outputs
from karat.session import Session
from karat.suites import Case, Repository, Suite, find_repository, load_by_path
from karat.tensors import of_array

CONTRACTS = ("float64", "float32", "bfloat16", "float16")
Row = tuple[str, str]  # contract, class


class Reference:
    """The reference itself, run in the contract's own format."""

    spec = "the reference"

    def __init__(self, repository: Repository, suite: Suite) -> None:
        """Load the generator of the suite."""
        self._generator = load_by_path(repository.generator(suite.name))

    def run(self, request: Request) -> Outputs | Failure:
        """Return the outputs of one case."""
        found = self._generator.reference(request.case, request.arrays, getattr(torch, request.contract.storage))
        dtype = formats.lookup(request.contract.storage).dtype
        return Outputs({k: of_array(v.astype(dtype) if v.dtype.kind == "f" else v) for k, v in found.items()})

    def close(self) -> None:
        """Do nothing."""


def needed(
    session: Session, suite: Suite, case: Case, contract: str, outcome: Outputs | Failure
) -> Iterator[tuple[Row, str, float]]:
    """Yield row, checkpoint and the t that it needs, for every float checkpoint that was produced in its shape."""
    goldens, arrays = session.goldens(suite), session.inputs(suite, case)
    tensors = {} if isinstance(outcome, Failure) else outcome.tensors
    for point in case.checkpoints:
        tensor = tensors.get(point.name)
        # What follows a greedy choice is another computation after another choice.
        if point.dtype != "storage" or point.follows or tensor is None:
            continue
        if tensor.shape != point.shape:
            yield (contract, point.tolerance), point.name, np.inf
            continue
        golden = goldens.golden(case.name, point.name)
        unit = np.abs(golden) + goldens.goldens[case.name, point.name]["rms"]
        with np.errstate(invalid="ignore"):
            error: NDArray[Any] = np.abs(tensor.load()[point.kept_index].astype(np.float64) - golden) / unit
        judged = case.judged_elements(point, arrays)
        counted = error if judged is None else error[np.broadcast_to(judged, error.shape)]
        yield (contract, point.tolerance), point.name, float(np.nan_to_num(counted, nan=np.inf).max())


def outcome_of(session: Session, candidate: Candidate, suite: Suite, case: Case, contract: str) -> Outputs | Failure:
    """Run a candidate on one case."""
    contract_row = session.tolerances.contract(contract)
    return candidate.run(Request(suite, case, contract_row, session.inputs(suite, case), session.goldens(suite)))


def worst_correct(session: Session, suite: Suite, formulations: list[Candidate]) -> dict[Row, tuple[float, str]]:
    """Return by row the largest t that a correct formulation needs, and where."""
    worst: dict[Row, tuple[float, str]] = {}
    for case in suite.cases:
        for contract in suite.contracts:
            for candidate in formulations:
                outcome = outcome_of(session, candidate, suite, case, contract)
                for row, name, t in needed(session, suite, case, contract, outcome):
                    place = f"{suite.name}/{case.name}/{name}, {candidate.spec}"
                    worst[row] = max(worst.get(row, (0.0, "")), (t, place))
    return worst


def where_faults_belong(session: Session, suite: Suite, contract: str) -> dict[str, float]:
    """Return by fault the largest t that it needs at the checkpoint where it belongs, over the cases."""
    found: dict[str, float] = defaultdict(float)
    for fault in faults.load_faults(session.repository, suite):
        planted = faults.FaultyCandidate(session.repository.plain(suite.name), suite.function, fault)
        for case in faults.visible_cases(suite):
            outcome = outcome_of(session, planted, suite, case, contract)
            own = faults.expected_failure(fault, case)
            for _, name, t in needed(session, suite, case, contract, outcome):
                if name == own:
                    found[fault.name] = max(found[fault.name], t)
    return dict(found)


def takes_dtype(repository: Repository, suite: Suite) -> bool:
    """Say whether the suite's reference can run in the contract's own format."""
    reference = load_by_path(repository.generator(suite.name)).reference
    return "dtype" in inspect.signature(reference).parameters


def main() -> None:
    """Print the measurement of every suite."""
    repository = find_repository(Path(__file__).parent)
    names = sys.argv[1:] or list(repository.suites)
    for suite in map(repository.suite, names):
        with contextlib.ExitStack() as stack:
            formulations: list[Candidate] = [Reference(repository, suite)] if takes_dtype(repository, suite) else []
            formulations += [
                faults.FaultyCandidate(repository.plain(suite.name), suite.function, formulation)
                for formulation in faults.load_formulations(repository, suite)
            ]
            for folder in ("plain", "torch_sdpa"):
                if list((repository.root / "candidates" / folder).rglob(f"{suite.function}.py")):
                    candidate = open_candidate(f"py:{repository.root}/candidates/{folder}")
                    stack.callback(candidate.close)
                    formulations.append(candidate)
            session = Session(repository, formulations[0], [suite])
            worst = worst_correct(session, suite, formulations)
            for contract in suite.contracts:
                nearest = sorted(where_faults_belong(session, suite, contract).items(), key=lambda item: item[1])[:8]
                for row, (t, place) in sorted(worst.items()):
                    if row[0] == contract:
                        limit = session.tolerances.rows[row[1], contract].rtol
                        name = f"{suite.name} class.{row[1]}.{contract}"
                        print(f"{name}: limit {limit:.2g}, worst correct {t:.2g} ({place})")
                print("  nearest faults, where they belong:", ", ".join(f"{name} {t:.2g}" for name, t in nearest))


if __name__ == "__main__":
    main()
