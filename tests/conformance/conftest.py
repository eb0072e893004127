"""What several of these tests need."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from karat.suites import Repository, find_repository

SOURCE = find_repository(Path(__file__).parent)


@pytest.fixture(scope="session")
def copy_of() -> Callable[[str, Path], Repository]:
    """Return what copies this repository, with the goldens of one suite alone, to a folder that is not there."""

    def copied(suite: str, root: Path) -> Repository:
        for name in ("validators", "generators", "candidates", SOURCE.folder(suite).relative_to(SOURCE.root)):
            shutil.copytree(SOURCE.root / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        shutil.copy(SOURCE.root / "tolerances.toml", root)
        return Repository(root)

    return copied
