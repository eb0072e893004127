"""The bundled PyTorch candidate, fused attention and all, passes; so does Hugging Face's own model."""

import fnmatch
from pathlib import Path

import pytest

from karat import formats
from karat.candidates import Failure, Request, open_candidate
from karat.exchange import Outputs
from karat.session import Session, check
from karat.suites import Repository, Selection, find_repository, load_by_path
from karat.tensors import of_array

torch = pytest.importorskip("torch", reason="torch is not installed: nox -s tests installs it")
REPOSITORY = find_repository(Path(__file__).parent)
CASES = {"float64": "tiny-*", "float32": "*", "bfloat16": "tiny-*", "float16": "tiny-*"}
"""Contract -> the cases that are tried: those of 124 million weights once; the evidence tries all."""


@pytest.mark.parametrize("contract", CASES)
def test_scaled_dot_product_attention_passes(contract: str) -> None:
    """A candidate that fuses attention passes what it provides and lists what it does not."""
    candidate = open_candidate(f"py:{REPOSITORY.root}/candidates/torch_sdpa")
    try:
        report = check(REPOSITORY, candidate, Selection.parse([f"gpt2/{CASES[contract]}"]), contracts=[contract])
    finally:
        candidate.close()
    assert set(report.counts) == {"pass", "unsupported"}
    unsupported = {v.checkpoint.split(".")[-1] for v in report.verdicts if v.status == "unsupported"}
    assert unsupported == {"attention_scores", "attention_probabilities"}
    assert report.exit_code == 0


class HuggingFace:
    """Hugging Face's model with eager attention, run in the contract's own format."""

    spec = "huggingface"

    def __init__(self, repository: Repository) -> None:
        """Load the generator, which knows how to run the model."""
        self._generator = load_by_path(repository.generator("gpt2"))

    def run(self, request: Request) -> Outputs | Failure:
        """Return the outputs of one case."""
        dtype = getattr(torch, request.contract.storage)
        found = self._generator.reference(request.case, request.arrays, dtype)
        storage = formats.lookup(request.contract.storage).dtype
        return Outputs({k: of_array(v.astype(storage) if v.dtype.kind == "f" else v) for k, v in found.items()})

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("contract", CASES)
def test_hugging_face_in_lower_precision_passes(contract: str) -> None:
    """The model whose float64 run is the golden passes in every format that the suite declares."""
    suite = REPOSITORY.suite("gpt2")
    session = Session(REPOSITORY, HuggingFace(REPOSITORY), [suite])
    cases = [case for case in suite.cases if fnmatch.fnmatchcase(case.name, CASES[contract])]
    verdicts = [verdict for case in cases for verdict in session.verdicts(suite, case, contract)]
    assert [verdict.name for verdict in verdicts if verdict.status != "pass"] == []
    used = max(verdict.statistics.used for verdict in verdicts if verdict.statistics)
    assert used > 0 or contract == "float64"  # which is the golden itself
