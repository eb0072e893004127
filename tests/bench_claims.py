"""Checks three accuracy claims of the projects that the kernels come from, on the goldens; part of `nox -s bench`.

Each is asked of correct code: the bundled candidate, or a formulation that passes under its contract.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from karat.candidates import Request
from karat.exchange import Outputs
from karat.faults import FaultyCandidate, Formulation, load_formulations
from karat.goldens import GoldenSet
from karat.session import Session
from karat.suites import Case, find_repository

REPOSITORY = find_repository(Path(__file__).parent)
Array = NDArray[np.float64]


def outputs(name: str, contract: str, formulation: str = "") -> Iterator[tuple[Case, GoldenSet, dict[str, Array]]]:
    """Yield each case that is answered, its goldens, and what the plain candidate or a formulation gives, float64."""
    suite = REPOSITORY.suite(name)
    chosen: list[Formulation | None] = [f for f in load_formulations(REPOSITORY, suite) if f.name == formulation]
    candidate = FaultyCandidate(REPOSITORY.plain(name), suite.function, (chosen or [None])[0])
    session = Session(REPOSITORY, candidate, [suite], findings=())
    goldens = session.goldens(suite)
    for case in suite.cases:
        if case.refuses or contract not in suite.contracts_of(case):
            continue
        row = session.tolerances.contract(contract)
        found = candidate.run(Request(suite, case, row, session.inputs(suite, case), goldens))
        assert isinstance(found, Outputs), f"{name}/{case.name}"
        yield case, goldens, {key: tensor.load().astype(np.float64) for key, tensor in found.tensors.items()}


def share(wrong: list[NDArray[np.bool_]]) -> str:
    """Return how many of some elements are beyond a limit, in words."""
    beyond, number = sum(int(part.sum()) for part in wrong), sum(part.size for part in wrong)
    return f"{beyond / max(number, 1):.1%} of {number:,}"


def half_of_bfloat16() -> str:
    """Check "bfloat16: rtol 1e-3, atol 1e-4" of resampled trajectories."""
    wrong, rounded = [], []
    for case, goldens, found in outputs("resample_trajectories", "bfloat16-once"):
        golden = goldens.golden(case.name, "output")
        finite = np.isfinite(golden)
        golden, output = golden[finite], found["output"][case.checkpoint("output").kept_index][finite]
        beyond = np.abs(output - golden) > 1e-4 + 1e-3 * np.abs(golden)
        wrong.append(beyond)
        rounded.append(beyond[output != golden])
    return (
        f"bfloat16 within rtol 1e-3, atol 1e-4: correct outputs beyond it: {share(wrong)};"
        f" of those that are no bfloat16 numbers to begin with: {share(rounded)}"
    )


def residual_distances() -> str:
    """Check "float32: distances within 1e-4", everywhere, and where sqrt(p_i p_j) is above 1e-2 of the variance."""
    everywhere, conditioned, largest = [], [], 0.0
    for case, goldens, found in outputs("residual_correlation", "float32"):
        if not {"residual_variance", "distance"} <= {point.name for point in case.checkpoints}:
            continue
        golden, p = goldens.golden(case.name, "distance"), goldens.golden(case.name, "residual_variance")
        rows, columns = (case.inputs[name].draw() for name in ("rows", "columns"))
        wide = np.sqrt(np.outer(p[rows], p[columns])) > 1e-2 * case.params["variance"]
        off = np.abs(found["distance"] - golden)
        everywhere.append((off > 1e-4).ravel())
        conditioned.append((off > 1e-4)[wide])
        largest = max(largest, float(off[wide].max(initial=0.0)))
    return (
        f"float32 distances within 1e-4: beyond it: {share(everywhere)};"
        f" where sqrt(p_i p_j) > 1e-2 variance: {share(conditioned)}, at most {largest:.1e}"
    )


def provider() -> str:
    """Check "float32 kernels within 1e-6, relative", of kernels above 1e-3 of the variance."""

    def beyond(formulation: str, kept: Callable[[Case], bool]) -> tuple[str, float]:
        wrong, worst = [], 0.0
        for case, goldens, found in outputs("rbf_kernel", "float32", formulation):
            golden = goldens.golden(case.name, "kernel")
            wide = golden > 1e-3 * case.params["variance"]
            if kept(case) and wide.any():
                off = np.abs(found["kernel"] - golden)[wide] / golden[wide]
                wrong.append(off > 1e-6)
                worst = max(worst, float(off.max()))
        return share(wrong), worst

    words = []
    for formulation, how in (("", "from differences"), ("expanded_centred", "expanded about the mean")):
        found, worst = beyond(formulation, lambda _: True)
        words.append(f"{how} {found}, at most {worst:.1e}")
    return "float32 RBF kernels within 1e-6 relative, where above 1e-3 of the variance: beyond it: " + "; ".join(words)


if __name__ == "__main__":
    for claim in (half_of_bfloat16, residual_distances, provider):
        print(claim())
