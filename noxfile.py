# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""All that one does with this repository: `nox -l` lists it, `nox -s NAME` does it."""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["gate", "lint", "types", "bare", "tests"]
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml("pyproject.toml")
OFFLINE = {"HF_HUB_OFFLINE": "1"}
WORKERS = ("-n", "auto", "--maxprocesses=4")  # a worker that holds the 124M case needs about 1 GB


def install(session: nox.Session, *groups: str) -> None:
    """Install karat, editable, with the dependency groups of pyproject.toml."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session(default=False)
def goldens(session: nox.Session) -> None:
    """Freeze the goldens from their references: nox -s goldens -- [SUITE…] [--weights SOURCE] [--verify]."""
    install(session, "reference")
    session.run("python", "-P", "-m", "karat.freeze", *session.posargs)


@nox.session(default=False)
def evidence(session: nox.Session) -> None:
    """Run every formulation and every fault through the real check, and write what they did: -- [SUITE…]."""
    install(session, "reference", "evidence")
    session.run("python", "-P", "-m", "karat.trials", *session.posargs, env=OFFLINE)


@nox.session
def gate(session: nox.Session) -> None:
    """Say whether the goldens are complete, intact and fresh."""
    install(session)
    session.run("karat", "gate", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, "types")
    session.install("nox")
    session.run("mypy")


@nox.session
def bare(session: nox.Session) -> None:
    """Check the bundled candidate where torch and transformers are not installed."""
    install(session, "tests")
    absent = "import importlib.util as u; assert not any(map(u.find_spec, ('torch', 'transformers'))), 'not bare'"
    session.run("python", "-c", absent)
    session.run("karat", "check", "py:candidates/plain", "--contract", "float32")
    # The session `tests` tries all suites and contracts; here it is enough that pytest needs no torch either.
    some = ("--contract", "bfloat16", "--suite", "layer_norm", "--suite", "gpt2/tiny-*")
    session.run("pytest", "-q", *WORKERS, "tests/conformance/test_conformance.py", *some, env=OFFLINE)


@nox.session
def tests(session: nox.Session) -> None:
    """Run every test against the bundled candidate: nox -s tests -- [pytest options, such as --candidate SPEC]."""
    install(session, "tests", "reference", "evidence", "libraries")
    session.run("pytest", *(session.posargs or ["-q", *WORKERS]), env=OFFLINE)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Run the tests of the library and measure the branches of src/karat that they take."""
    install(session, "tests", "reference", "evidence")
    session.run("coverage", "erase")
    # Not by a plugin of pytest, which would begin after karat's own is imported.
    library = ("tests/unit", "tests/test_repository.py", "tests/conformance/test_plugin.py")
    session.run("coverage", "run", "-m", "pytest", "-q", *WORKERS, *library, env=OFFLINE)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure speed and memory as ratios against something named in the same run: nox -s bench -- [PART…]."""
    install(session, "tests", "reference", "evidence")
    session.run("python", "-P", "tests/bench.py", *session.posargs, env=OFFLINE)
