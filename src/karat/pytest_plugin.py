"""The pytest plugin: `--candidate`, one test for each checkpoint, and the fixture `golden`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # pytest loads this plugin wherever karat is installed; the rest is imported where it is used
    from numpy.typing import NDArray

    from karat.session import Session
    from karat.suites import Case, Repository, Suite
    from karat.verdicts import Verdict


_USAGE = pytest.StashKey[str]()
_REPORT = pytest.StashKey["tuple[Verdict, Repository]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and their ini twin."""
    group = parser.getgroup("karat", "karat: compare a candidate with frozen goldens")
    group.addoption("--candidate", metavar="SPEC", help="py:TARGET, dir:PATH, cmd:COMMAND or null:KIND")
    group.addoption(
        "--contract",
        action="append",
        default=[],
        metavar="NAME",
        help="what the candidate promises; repeatable (default: every contract of the suite)",
    )
    group.addoption(
        "--suite", action="append", default=[], metavar="SELECT", help="suite[/case[/checkpoint]]; repeatable"
    )
    group.addoption("--karat-timeout", type=float, default=300.0, metavar="SECONDS", help="for one case (default: 300)")
    parser.addini("karat_candidate", "the candidate, where the command line names none")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker that keeps the checkpoints of a case on one worker."""
    config.addinivalue_line("markers", "xdist_group(name): run on one worker of pytest-xdist, with --dist loadgroup")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which candidate is checked, and who chose it."""
    spec = _spec(config)
    chosen = "--candidate" if config.getoption("--candidate") else "karat_candidate of the ini-file"
    return [f"karat: candidate {spec} ({chosen})"] if spec else ["karat: no candidate (--candidate SPEC)"]


def _spec(config: pytest.Config) -> str:
    return str(config.getoption("--candidate") or config.getini("karat_candidate") or "")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each selected suite × case × contract × checkpoint for a test that takes `karat_verdict`."""
    from karat.errors import KaratError
    from karat.suites import find_repository

    if "karat_verdict" not in metafunc.fixturenames:
        return
    config = metafunc.config
    try:
        rows = _rows(find_repository(config.rootpath), config)
    except KaratError as error:
        config.stash[_USAGE] = str(error)
        metafunc.parametrize("karat_verdict", [pytest.param(None, id="not-run")], indirect=True)
        return
    metafunc.parametrize(
        "karat_verdict",
        [
            pytest.param(
                (suite, case, contract, checkpoint),
                id=f"{suite.name}/{case.name}/{contract}/{checkpoint}",
                marks=pytest.mark.xdist_group(f"{suite.name}/{case.name}"),
            )
            for suite, case, contract, checkpoint in rows
        ],
        indirect=True,
    )


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """End with a usage error where the conformance tests could not be made; a worker's failing test says the same."""
    if _USAGE in config.stash and not hasattr(config, "workerinput"):
        raise pytest.UsageError(config.stash[_USAGE])


def _rows(repository: Repository, config: pytest.Config) -> list[tuple[Suite, Case, str, str]]:
    """Return suite, case, contract and checkpoint of each test."""
    from karat.candidates import FolderCandidate, open_candidate
    from karat.errors import UsageError
    from karat.suites import Selection

    if not _spec(config):
        raise UsageError("no candidate: give --candidate SPEC, or karat_candidate in the ini-file")
    selection = Selection.parse(config.getoption("--suite"))
    selection.require_matches(repository.suites)
    wanted = tuple(config.getoption("--contract"))
    candidate = open_candidate(_spec(config))
    if isinstance(candidate, FolderCandidate):
        candidate.require_known(repository)
        wanted = wanted or (candidate.storage(repository, selection) or "float32",)
    suites = [suite for suite in repository.suites.values() if selection.has(suite.name)]
    declared = {contract for suite in suites for contract in suite.contracts}
    for contract in wanted:
        if contract not in declared:
            raise UsageError(f"no selected suite declares the contract {contract!r}; declared: {sorted(declared)}")
    return [
        (suite, case, contract, checkpoint.name)
        for suite in suites
        for case in suite.cases
        for contract in suite.contracts_of(case)
        if not wanted or contract in wanted
        for checkpoint in case.checkpoints
        if selection.has(suite.name, case.name, checkpoint.name)
    ]


@pytest.fixture(scope="session")
def karat_session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Open the candidate and the goldens once for all tests of this process."""
    from karat.candidates import open_candidate
    from karat.session import Session
    from karat.suites import Selection, find_repository

    repository = find_repository(request.config.rootpath)
    candidate = open_candidate(_spec(request.config), timeout=request.config.getoption("--karat-timeout"))
    selection = Selection.parse(request.config.getoption("--suite"))
    suites = [suite for suite in repository.suites.values() if selection.has(suite.name)]
    session = Session(repository, candidate, suites)
    yield session
    candidate.close()


@pytest.fixture
def karat_verdict(request: pytest.FixtureRequest) -> Verdict:
    """Return the verdict on one checkpoint; the test fails with its report if that is not `pass`."""
    if request.param is None:
        pytest.fail(request.config.stash[_USAGE], pytrace=False)
    suite, case, contract, checkpoint = request.param
    session: Session = request.getfixturevalue("karat_session")
    verdicts = session.verdicts(suite, case, contract)
    verdict = next(verdict for verdict in verdicts if verdict.checkpoint == checkpoint)
    request.node.stash[_REPORT] = (verdict, session.repository)
    return verdict


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test whose verdict is not `pass`, with karat's report for a traceback; skip what is unsupported."""
    from karat import report

    if _REPORT not in item.stash:
        return
    verdict, repository = item.stash[_REPORT]
    if verdict.status == "unsupported":
        pytest.skip(f"unsupported: {verdict.text}")
    if verdict.status != "pass":
        mark = "first divergence" if verdict.first_divergence else ""
        pytest.fail("\n".join(report.explain(verdict, repository, before=mark)), pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run in which every checkpoint was unsupported into exit code 5: nothing was compared."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or exitstatus != pytest.ExitCode.OK or hasattr(session.config, "workerinput"):
        return
    skipped = [entry for entry in reporter.getreports("skipped") if "unsupported: " in str(entry.longrepr)]
    compared = [entry for entry in reporter.getreports("passed") if entry.when == "call"]
    if skipped and not compared:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


class GoldenCase:
    """One case of the goldens, for tests of one's own: its inputs, its parameters, and a check of arrays at hand."""

    def __init__(self, repository: Repository, suite: Suite, case: Case) -> None:
        """Open the goldens of the suite; a test fails if the gate finds anything wrong with them."""
        from karat.candidates import open_candidate
        from karat.goldens import GoldenSet
        from karat.session import Session

        self._session = Session(repository, open_candidate("null:missing"), [suite])
        self._suite, self._case = suite, case
        if self._session.findings:
            pytest.fail("\n".join(str(finding) for finding in self._session.findings), pytrace=False)
        self._goldens = GoldenSet.open(repository, suite.name)
        self._arrays = self._goldens.draw_inputs(case)

    @property
    def params(self) -> Mapping[str, Any]:
        """Return the case's parameters."""
        return self._case.params

    def inputs(self, contract: str = "float32") -> dict[str, NDArray[Any]]:
        """Return the inputs by name (`mapping/entry` for those of a mapping) in the contract's storage format."""
        from karat.exchange import in_storage

        return in_storage(self._case, self._arrays, self._session.tolerances.contract(contract))

    def check(
        self, outputs: Mapping[str, Any] | None = None, *, contract: str = "float32", **named: Any
    ) -> list[Verdict]:
        """Compare the given arrays, `{checkpoint: array}` or by keyword, with their goldens; return the verdicts.

        Raise `AssertionError` with the report of the first that does not pass, `KeyError` for an unknown checkpoint,
        and `ValueError` if no array is given.
        """
        from karat import report, tensors
        from karat.candidates import Request
        from karat.exchange import Outputs
        from karat.judge import judge
        from karat.worker import to_numpy

        given = {**(outputs or {}), **named}
        if not given:
            raise ValueError(f"{self._suite.name}/{self._case.name}: no array to check")
        for name in given:
            self._case.checkpoint(name)
        request = Request(
            self._suite, self._case, self._session.tolerances.contract(contract), self._arrays, self._goldens
        )
        found = Outputs({name: tensors.of_array(to_numpy(value, name)) for name, value in given.items()})
        verdicts = [
            verdict for verdict in judge(request, found, self._session.tolerances) if verdict.checkpoint in given
        ]
        for verdict in verdicts:
            if verdict.status != "pass":
                raise AssertionError("\n".join(report.explain(verdict, self._session.repository)))
        return verdicts


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], GoldenCase]:
    """Return a function that opens `suite/case`: `golden("gpt2/tiny-prompt").check({"h.0.q": array})`."""
    from karat.errors import GoldenError
    from karat.suites import find_repository

    repository = find_repository(request.config.rootpath)

    def open_case(name: str) -> GoldenCase:
        suite_name, _, case_name = name.partition("/")
        suite = repository.suite(suite_name)
        try:
            return GoldenCase(repository, suite, suite.case(case_name))
        except GoldenError as error:
            pytest.fail(str(error), pytrace=False)

    return open_case
