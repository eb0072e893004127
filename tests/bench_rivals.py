"""Tries the acceptance rules of other tools on what karat judges: correct runs rejected, faults missed, by contract.

The same outputs of the same formulations and faults, checkpoint by checkpoint, against the same goldens. A rule rejects
a correct run if it rejects one checkpoint of it (formulation x case x checkpoint are counted); it misses a fault if it
accepts every checkpoint of every case. Part of `nox -s bench`.
"""

import inspect
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from karat import formats
from karat.candidates import Failure, Request
from karat.faults import Fault, FaultyCandidate, Formulation, load_faults, load_formulations, visible_cases
from karat.session import Session
from karat.suites import Case, Suite, find_repository, load_by_path

rivals = load_by_path(Path(__file__).with_name("rivals.py"))

SUITES = ("gpt2", "layer_norm", "gelu")
CONTRACTS = ("float32", "bfloat16", "float16")
OWN = "karat"
RULES = (OWN, *(rival.name for rival in rivals.RIVALS))


def trials(suite: Suite) -> list[tuple[str, Formulation | Fault]]:
    """Return the formulations and faults to try: those that need nothing but Python."""
    correct = [("correct", entry) for entry in load_formulations(REPOSITORY, suite) if not entry.needs]
    return [*correct, *(("fault", entry) for entry in load_faults(REPOSITORY, suite))]


def eager_outputs(suite: Suite, case: Case, contract: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what the reference itself computes in the contract's format: the baseline that some rules measure."""
    generator = load_by_path(REPOSITORY.generator(suite.name))
    storage, dtype = getattr(torch, contract), formats.lookup(contract).dtype
    with np.errstate(all="ignore"):
        if "dtype" in inspect.signature(generator.reference).parameters:
            found = generator.reference(case, arrays, storage)
        else:  # an operation: the function of tensors that bears its name
            given = {name: torch.from_numpy(array).to(storage) for name, array in arrays.items()}
            found = {case.checkpoints[0].name: getattr(generator, suite.name)(**given, **case.params).double().numpy()}
        return {name: array.astype(dtype) for name, array in found.items() if array.dtype.kind in "fV"}


def comparisons(
    session: Session, suite: Suite, case: Case, contract: str, outcome: Any, eager: dict[str, Any]
) -> Iterator[Any]:
    """Yield each float checkpoint as a comparison, None where there is nothing of the golden's shape to compare."""
    for point in case.checkpoints:
        if point.dtype != "storage" or point.follows or point.name not in eager:
            continue
        tensor = None if isinstance(outcome, Failure) else outcome.tensors.get(point.name)
        if tensor is None:
            continue
        if tensor.shape != point.shape or tensor.dtype != formats.lookup(contract).dtype:
            yield None
            continue
        judged = case.judged_elements(point, session.inputs(suite, case))
        where = np.broadcast_to(True if judged is None else judged, point.kept_shape)
        golden = session.goldens(suite).golden(case.name, point.name)
        cut = point.kept_index
        if judged is not None:  # rows of padding are nobody's business
            yield rivals.Comparison(tensor.load()[cut][where], golden[where], eager[point.name][cut][where], contract)
        else:
            yield rivals.Comparison(tensor.load()[cut], golden, eager[point.name][cut], contract)


@dataclass
class Count:
    """What a trial, or all of them, came to: by rule and contract."""

    compared: Counter[str] = field(default_factory=Counter)
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)


def refusals(
    session: Session, suite: Suite, case: Case, contract: str, eager: dict[str, Any]
) -> tuple[int, dict[str, int]]:
    """Return how many checkpoints of a case were compared, and how many each rule refuses."""
    row = session.tolerances.contract(contract)
    outcome = session.candidate.run(Request(suite, case, row, session.inputs(suite, case), session.goldens(suite)))
    if isinstance(outcome, Failure):
        return 1, dict.fromkeys(RULES, 1)
    found = list(comparisons(session, suite, case, contract, outcome, eager))
    verdicts = session.verdicts(suite, case, contract)
    refused = {OWN: sum(verdict.status not in ("pass", "missing-output") for verdict in verdicts)}
    for rival in rivals.RIVALS:
        if contract in rival.formats:
            refused[rival.name] = sum(comparison is None or not rival.accepts(comparison) for comparison in found)
    return len(found), refused


def tried(session: Session, suite: Suite, contract: str, count: Count) -> None:
    """Try all formulations and faults of a suite under a contract, and count what each rule makes of them."""
    cases = [case for case in visible_cases(suite) if contract in suite.contracts_of(case)]
    eager = {case.name: eager_outputs(suite, case, contract, session.inputs(suite, case)) for case in cases}
    for kind, entry in trials(suite):
        if contract not in (getattr(entry, "contracts", ()) or CONTRACTS):
            continue
        planted = session.with_candidate(FaultyCandidate(REPOSITORY.plain(suite.name), suite.function, entry))
        total = Counter[str]()
        for case in cases:
            compared, refused = refusals(planted, suite, case, contract, eager[case.name])
            total.update(refused)
            if kind == "correct":
                count.compared[contract] += compared
        if kind == "correct":
            for name in RULES:
                count.rejected[name, contract] += total[name]
        else:
            count.faults[contract] += 1
            for name in RULES:
                count.missed[name, contract] += total[name] == 0


def one(name: str, contract: str) -> Count:
    """Try all formulations and faults of a suite under a contract."""
    suite, count = REPOSITORY.suite(name), Count()
    plain = FaultyCandidate(REPOSITORY.plain(name), suite.function, None)
    tried(Session(REPOSITORY, plain, [suite], findings=()), suite, contract, count)
    return count


def main() -> None:
    """Print the table."""
    jobs = [(name, contract) for name in SUITES for contract in CONTRACTS]
    count = Count()
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(one, *zip(*jobs, strict=True)):
            for whole, piece in zip(vars(count).values(), vars(part).values(), strict=True):
                whole.update(piece)
    tried_on = ", ".join(f"{count.compared[c]:,} and {count.faults[c]} under {c}" for c in CONTRACTS)
    print(f"correct runs rejected / faults missed, of {tried_on}")
    print(f"| rule | {' | '.join(CONTRACTS)} |\n|---|{'---|' * len(CONTRACTS)}")
    formats_of = {rival.name: rival.formats for rival in rivals.RIVALS}
    for name in RULES:
        cells = [
            f"{count.rejected[name, c] / count.compared[c]:.1%} / {count.missed[name, c] / count.faults[c]:.1%}"
            if c in formats_of.get(name, CONTRACTS)
            else "–"
            for c in CONTRACTS
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


REPOSITORY = find_repository(Path(__file__).parent)

if __name__ == "__main__":
    main()
