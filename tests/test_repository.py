"""What must hold of this repository as a whole: its halves fit, its README is true, its imports point one way."""

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from karat import evidence, faults, gate, report
from karat.session import Report, Session
from karat.suites import find_repository
from karat.tolerances import read_tolerances

REPOSITORY = find_repository(Path(__file__).parent)
ROOT = REPOSITORY.root
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_gate_is_open() -> None:
    """The committed goldens are complete, intact and fresh."""
    assert [str(finding) for finding in gate.inspect(REPOSITORY)] == []


def test_contracts_and_references_come_in_pairs() -> None:
    """Every contract has a generator, a plain candidate and goldens, and the other way round."""
    contracts = set(REPOSITORY.suites)
    generators = {path.stem for path in (ROOT / "generators").rglob("*.py") if not path.stem.startswith("_")}
    assert {name for name in generators if not name.endswith(("_faults", "_formulations"))} == contracts
    assert {name.removesuffix("_faults") for name in generators if name.endswith("_faults")} == contracts
    assert contracts <= {name.removesuffix("_formulations") for name in generators}
    assert {path.stem for path in (ROOT / "candidates" / "plain").rglob("*.py")} == contracts
    frozen = {path.parent for path in (ROOT / "goldens").rglob("manifest.json") if "@" not in path.parent.name}
    assert frozen == {REPOSITORY.folder(name) for name in contracts if "@" not in name}


@pytest.mark.parametrize("suite", list(REPOSITORY.suites))
def test_no_suite_is_named_like_a_module(suite: str) -> None:
    """A suite's file must not hide an installed package from its own generator."""
    assert importlib.util.find_spec(suite) is None


def test_committed_goldens_are_small() -> None:
    """Committed goldens stay under 40 MiB, those of the kernels under 12, of the blocks under 15; evidence apart."""

    def size(folder: Path) -> float:
        parts = [*folder.rglob("manifest.json"), *folder.rglob("*.h5"), *folder.rglob("*.safetensors")]
        return sum(p.stat().st_size for p in parts if "@" not in p.parent.name) / 2**20

    assert size(ROOT / "goldens") < 40
    assert size(ROOT / "goldens" / "kernels") < 12
    assert size(ROOT / "goldens" / "blocks") < 15


# --- imports ---------------------------------------------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


CORE = {"compare": {"karat", "karat.parts"}, "formats": set(), "parts": set()}


@pytest.mark.parametrize(("module", "allowed"), CORE.items(), ids=CORE)
def test_the_core_stands_alone(module: str, allowed: set[str]) -> None:
    """compare imports nothing else of karat but parts, formats and parts nothing."""
    found = {name for name in imported(ROOT / "src/karat" / f"{module}.py") if name.split(".")[0] == "karat"}
    assert found == allowed


@pytest.mark.parametrize("path", sorted((ROOT / "src/karat").glob("*.py")), ids=lambda path: path.stem)
def test_the_library_needs_no_torch(path: Path) -> None:
    """The library imports no torch or transformers, but where a candidate asks for torch tensors."""
    heavy = {name.split(".")[0] for name in imported(path)} & {"torch", "transformers"}
    assert heavy == ({"torch"} if path.stem == "worker" else set())


@pytest.mark.parametrize("path", sorted((ROOT / "src/karat").glob("*.py")), ids=lambda path: path.stem)
def test_only_the_freeze_loads_generators(path: Path) -> None:
    """Nothing but the freeze runs a generator."""
    assert ("repository.generator(" in path.read_text(encoding="utf-8")) == (path.stem in ("freeze", "goldens"))


@pytest.mark.parametrize("path", sorted((ROOT / "src/karat").glob("*.py")), ids=lambda path: path.stem)
def test_the_library_knows_no_suite_by_name(path: Path) -> None:
    """The library is general: outside docstrings (those of attributes too) and comments, no suite is named in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # a string that nothing is done with
    strings = [node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts = [str(node.value) for node in strings if id(node) not in docstrings]
    assert [(suite, text) for text in texts for suite in REPOSITORY.suites if suite in text] == []


# --- README and settings ---------------------------------------------------------------------------------------------


def sessions() -> set[str]:
    """Return the names of the nox sessions, read from the file: nox itself is not needed here."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}


def test_the_readme_names_sessions_that_exist() -> None:
    """Every nox session that the README or a workflow runs is in the noxfile."""
    texts = README + (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"nox -s (\w+)", texts))
    assert {"goldens", "tests", "gate"} <= named <= sessions()


def test_ci_runs_the_readme_s_test_command() -> None:
    """.ci/run and the workflow run every default session of the noxfile, the README's test command last."""
    (defaults,) = re.findall(r"options.sessions = (\[.*\])", (ROOT / "noxfile.py").read_text(encoding="utf-8"))
    (listed,) = re.findall(r"for session in (.*); do", (ROOT / ".ci/run").read_text(encoding="utf-8"))
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert listed.split() == ast.literal_eval(defaults) == re.findall(r"nox -s (\w+)", workflow)
    assert f"python -m nox -s {listed.split()[-1]} " in README


README_FAILURES = [("scale_by_head_dim", "tiny-prompt", "float32"), ("gelu_erf", "tiny-270-tokens", "float16")]


@pytest.mark.parametrize(("name", "case", "contract"), README_FAILURES, ids=["first", "second"])
def test_the_readme_s_failures_are_real_ones(name: str, case: str, contract: str) -> None:
    """The reports in the README are what the mistakes in their captions give."""
    suite = REPOSITORY.suite("gpt2")
    fault = next(fault for fault in faults.load_faults(REPOSITORY, suite) if fault.name == name)
    candidate = faults.FaultyCandidate(REPOSITORY.plain("gpt2"), "gpt2", fault)
    verdicts = Session(REPOSITORY, candidate, [suite]).verdicts(suite, suite.case(case), contract)
    told = report.text(Report("py:my_port.py", verdicts), REPOSITORY)
    shown = README.split("```text\n")[README_FAILURES.index((name, case, contract)) + 1].split("```")[0]
    assert shown.strip().splitlines() == told.splitlines()[: len(shown.strip().splitlines())]


def test_the_readme_counts_the_faults() -> None:
    """The number of planted mistakes in the README is that of the catalogues."""
    number = sum(len(faults.load_faults(REPOSITORY, suite)) for suite in REPOSITORY.suites.values())
    assert f"{number} mistakes" in README


def test_the_readme_shows_the_evidence() -> None:
    """The table of the evidence in the README is what `karat evidence` prints."""
    contents = [evidence.read_evidence(REPOSITORY, name) for name in REPOSITORY.suites]
    assert evidence.table(contents) in README
    for row in evidence.invisible_rows(contents):
        assert f"`{row['fault']}`" in README


def test_the_readme_lists_the_contracts() -> None:
    """Every contract of tolerances.toml is named in the README."""
    for contract in read_tolerances(ROOT / "tolerances.toml").contracts:
        assert f"`{contract}`" in README


def test_the_wheel_ships_every_suite_and_nothing_else() -> None:
    """Goldens go into the wheel by family, those of models by name, so that those of outside weights do not."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    folders = {REPOSITORY.folder(name).relative_to(ROOT) for name in REPOSITORY.suites if "@" not in name}
    wanted = {path if path.parent.name == "models" else path.parent for path in folders}
    assert {path for path in shipped if path.startswith("goldens")} == {path.as_posix() for path in wanted}
    weights = {path.relative_to(ROOT).parts[1] for path in (ROOT / "goldens").rglob("*@*")}
    assert weights <= {"models"}


def test_torch_is_pinned_in_one_place() -> None:
    """The version of torch is written in pyproject.toml, once, and nowhere else."""
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pin = next(p for p in tomllib.loads(pyproject)["dependency-groups"]["reference"] if p.startswith("torch"))
    assert pyproject.count(pin) == 1
    others = [ROOT / "noxfile.py", ROOT / ".ci/run", ROOT / "README.md", *(ROOT / ".github").rglob("*.yml")]
    assert not [path for path in others if pin in path.read_text(encoding="utf-8")]
