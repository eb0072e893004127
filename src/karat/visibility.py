"""The visibility matrix: which case sees which fault, and where; for people, beside the goldens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from karat import evidence, goldens
from karat.faults import Fault, first_failure, visible_cases
from karat.suites import Repository, Suite
from karat.verdicts import Verdict

CONTRACT = "float32"
"""The contract under which the matrix is made."""


def visibility_rows(suite: Suite, fault: Fault, observed: Mapping[str, Sequence[Verdict]]) -> tuple[str, str]:
    """Return the two table rows of one fault, by case and by kind of checkpoint, from its verdicts by case."""
    cells = []
    for case in visible_cases(suite):
        first = first_failure(observed.get(case.name, ()))
        cells.append("–" if first is None else first)
    kinds = checkpoint_kinds(suite)
    wrong = {
        kind_of(verdict.checkpoint)
        for verdicts in observed.values()
        for verdict in verdicts
        if verdict.status != "pass"
    }
    firsts = {kind_of(cell) for cell in cells}
    marks = ["●" if kind in firsts else "x" if kind in wrong else "" for kind in kinds]
    by_case = f"| `{fault.name}` | {fault.text} | {' | '.join(cells)} |"
    return by_case, f"| `{fault.name}` | {' | '.join(marks)} |"


def checkpoint_kinds(suite: Suite) -> list[str]:
    """Return the checkpoint names without layer and step numbers, in execution order."""
    return list(dict.fromkeys(kind_of(point.name) for case in visible_cases(suite) for point in case.checkpoints))


def kind_of(name: str) -> str:
    """Return the name of a checkpoint without layer and step numbers."""
    parts = name.split(".")
    while len(parts) > 2 and parts[1].isdigit():
        parts = parts[2:]
    return ".".join(parts)


def visibility_text(repository: Repository, suite: Suite, rows: Iterable[tuple[str, str]]) -> str:
    """Return the visibility matrix of `rows`, those of `visibility_rows`, as Markdown."""
    cases, kinds, rows = visible_cases(suite), checkpoint_kinds(suite), list(rows)
    lines = [
        f"# What the goldens of `{suite.name}` see",
        "",
        (
            f"Each fault planted in the plain candidate and checked under {CONTRACT}. Written by"
            f" `{evidence.evidence_command(suite.name)}`; from the sources {evidence.digest(repository, suite.name)}."
        ),
        "",
        "## By case: the first divergence, – where the case cannot see the fault",
        "",
        f"| fault | mistake | {' | '.join(case.name for case in cases)} |",
        f"|---|---|{'---|' * len(cases)}",
        *(by_case for by_case, _ in rows),
        "",
        "## By kind of checkpoint, all layers, steps and cases together: ● first divergence in some case, x wrong",
        "",
        f"| fault | {' | '.join(kinds)} |",
        f"|---|{'---|' * len(kinds)}",
        *(by_kind for _, by_kind in rows),
        "",
    ]
    return goldens.sealed("\n".join(lines))
