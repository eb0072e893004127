"""What karat says of one checkpoint: a verdict, its status, its statistics, what was allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from karat.candidates import Request
from karat.compare import Statistics
from karat.questions import Diagnosis
from karat.suites import Checkpoint
from karat.tolerances import Limits, Tolerance

STATUSES = (
    "pass",
    "mismatch",
    "fault",
    "shape",
    "dtype",
    "nonfinite",
    "missing-output",
    "raised",
    "crashed",
    "timeout",
    "unsupported",
    "golden-missing",
    "golden-damaged",
    "golden-stale",
)
STATUS_OF_KIND = {"missing": "golden-missing", "damaged": "golden-damaged"}
"""The status that a kind of finding leads to; all other kinds: golden-stale."""
DIVERGED = ("mismatch", "fault", "shape", "dtype", "nonfinite")
"""The statuses of an output that is there and wrong; `missing-output` is wrong too, but nothing diverges."""


@dataclass(frozen=True)
class Test:
    """One test of a checkpoint's errors: passed if `value` is at most `limit`.

    Attributes:
        name: `max`, `rms`, `row`, `gain` or `bias`, in sigma; `signature`, the strength of the nearest fault.
        value: what was found.
        limit: what is allowed.
    """

    __test__ = False  # nothing for pytest to collect

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Say whether the test passed; NaN does not."""
        return self.value <= self.limit

    @property
    def used(self) -> float:
        """Return how much of the limit is used, infinite where nothing is allowed."""
        if math.isnan(self.value) or (self.limit == 0 and self.value > 0):
            return math.inf
        return self.value / self.limit if self.limit > 0 else 0.0


@dataclass(frozen=True)
class Verdict:
    """What karat says of one checkpoint.

    Attributes:
        status: one of `STATUSES`.
        shape: that of the golden.
        statistics: None unless values were compared.
        tolerance: the row of tolerances.toml that was applied, None if none was.
        tests: the tests of `tolerance`, where the golden has noise scales.
        rms: RMS of the golden's judged elements, the unit of `atol_rms`.
        text: what was found and what was wanted, for the statuses without statistics; of a pass, what else to know.
        first_divergence: the first checkpoint of its case, in execution order, whose values are wrong.
        diagnosis: what the wrong values turned out to be; of the first divergence only.
    """

    suite: str
    case: str
    contract: str
    checkpoint: str
    status: str
    shape: tuple[int, ...]
    statistics: Statistics | None = None
    tolerance: Tolerance | Limits | None = None
    tests: tuple[Test, ...] = ()
    rms: float = 0.0
    text: str = ""
    first_divergence: bool = False
    diagnosis: tuple[Diagnosis, ...] = ()

    @property
    def name(self) -> str:
        """Return `suite/case/contract/checkpoint`."""
        return f"{self.suite}/{self.case}/{self.contract}/{self.checkpoint}"

    @property
    def used(self) -> float:
        """Return how much of what is allowed was used: more than 1 fails."""
        own = self.statistics.used if self.statistics is not None else 0.0
        return max([own, *(test.used for test in self.tests)])


def blank(request: Request, checkpoint: Checkpoint, status: str, text: str = "") -> Verdict:
    """Return a verdict without statistics."""
    return Verdict(
        suite=request.suite.name,
        case=request.case.name,
        contract=request.contract.name,
        checkpoint=checkpoint.name,
        status=status,
        shape=checkpoint.kept_shape,
        text=text,
    )
