"""Independent libraries as candidates: JAX and ONNX Runtime compute attention as the goldens do, in every format."""

import importlib.util
from pathlib import Path

import pytest

from karat.candidates import open_candidate
from karat.session import check
from karat.suites import Selection, find_repository

REPOSITORY = find_repository(Path(__file__).parent)
LENGTHS = ["attention/length-16", "attention/length-256", "attention/length-4096"]
SELECTIONS = {
    "float32": ["attention/*"],
    "bfloat16": LENGTHS,
    "float16": LENGTHS,
    "float64": ["attention/everything", "attention/gradients-everything", "attention/length-256"],
    "bfloat16-once": ["attention/everything", "attention/length-256"],
    "float16-once": ["attention/everything", "attention/length-256"],
    "tfloat32": ["attention/everything", "attention/length-256"],
}


@pytest.mark.parametrize("contract", SELECTIONS)
@pytest.mark.parametrize("library", ["jax", "onnxruntime"])
def test_a_library_passes(library: str, contract: str) -> None:
    """No formulation is rejected, however it was written: every checkpoint that the library gives passes."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: nox -s tests installs it")
    candidate = open_candidate(f"py:{REPOSITORY.root}/candidates/{library}")
    try:
        report = check(REPOSITORY, candidate, Selection.parse(SELECTIONS[contract]), contracts=[contract])
    finally:
        candidate.close()
    failures = [verdict.name for verdict in report.verdicts if verdict.status not in ("pass", "unsupported")]
    assert failures == []
    assert report.counts["pass"] > 1
