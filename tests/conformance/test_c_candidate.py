"""The bundled C candidate: it passes, its mistakes are found where they are made, and it refuses damaged inputs."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from karat import exchange
from karat.candidates import open_candidate
from karat.goldens import GoldenSet
from karat.session import Report, check
from karat.suites import Selection, find_repository
from karat.tolerances import read_tolerances

REPOSITORY = find_repository(Path(__file__).parent)
SOURCE = REPOSITORY.root / "candidates" / "c" / "gpt2.c"
STRICT = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def compiled(source: Path, program: Path) -> Path:
    """Compile `source` into `program`; a warning fails the test."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler: no `cc` on the PATH")
    command = [compiler, *STRICT, str(source), "-o", str(program), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def checked(program: Path, *select: str, contracts: tuple[str, ...] = ()) -> Report:
    """Check the program as `karat check` does."""
    candidate = open_candidate(f"cmd:{shlex.quote(str(program))} {{inputs}} {{outputs}}")
    try:
        return check(REPOSITORY, candidate, Selection.parse(select), contracts=contracts)
    finally:
        candidate.close()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return the compiled candidate."""
    return compiled(SOURCE, tmp_path / "gpt2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the inputs of a small case."""
    suite = REPOSITORY.suite("gpt2")
    case = suite.case("tiny-2-tokens")
    contract = read_tolerances(REPOSITORY.root / "tolerances.toml").contract("float32")
    drawn = GoldenSet.open(REPOSITORY, "gpt2").draw_inputs(case)
    exchange.write_case(tmp_path / "inputs", suite, case, contract, drawn)
    return tmp_path / "inputs"


def run(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program on the inputs in `folder`, its outputs going beside them."""
    outputs = folder.parent / "outputs"
    outputs.mkdir()
    return subprocess.run([program, folder, outputs], capture_output=True, text=True, check=False, timeout=60)


def test_every_checkpoint_of_every_case_passes(program: Path) -> None:
    """A program in any language is checked by `cmd:`: it reads two files, writes one, and nothing is left out."""
    report = checked(program, "gpt2")
    assert report.exit_code == 0, [verdict.name for verdict in report.verdicts if report.fails(verdict)]
    assert set(report.counts) == {"pass"}
    assert not report.extra
    assert len(report.verdicts) == sum(len(case.checkpoints) for case in REPOSITORY.suite("gpt2").cases)


@pytest.mark.parametrize(
    ("right", "wrong", "case", "divergence"),
    [
        (" / sqrtf((float)d)", "", "tiny-prompt", "h.0.attention_scores"),
        ("0.044715f", "0.04715f", "tiny-prompt", "h.0.activation"),
        ("[b * T + key] != 0", "[b * T + key] >= 0", "tiny-batch", "h.0.attention_probabilities"),
        ("pass->start = T + step - 1", "pass->start = T + step - 2", "tiny-decode", "step.1.h.0.key_cache"),
    ],
)
def test_a_mistake_diverges_first_where_it_is_made(
    tmp_path: Path, right: str, wrong: str, case: str, divergence: str
) -> None:
    """The report names the first divergence: the checkpoint at which the mistake was made, and none before it."""
    text = SOURCE.read_text(encoding="utf-8")
    assert text.count(right) == 1
    (tmp_path / "wrong.c").write_text(text.replace(right, wrong), encoding="utf-8")
    report = checked(compiled(tmp_path / "wrong.c", tmp_path / "wrong"), f"gpt2/{case}")
    assert report.exit_code == 1
    assert [verdict.checkpoint for verdict in report.verdicts if verdict.first_divergence] == [divergence]
    before = report.verdicts[: [verdict.checkpoint for verdict in report.verdicts].index(divergence)]
    assert {verdict.status for verdict in before} == {"pass"}


def test_another_contract_is_refused(program: Path) -> None:
    """A candidate that cannot keep a contract says so: its words stand in the verdict, and the exit code is 4."""
    report = checked(program, "gpt2/tiny-2-tokens", contracts=("bfloat16",))
    assert report.exit_code == 4
    assert set(report.counts) == {"crashed"}
    assert "is BF16, wanted F32: the contract is float32 only" in report.verdicts[0].text


@pytest.mark.parametrize("kept", [0, 4, 500, -1], ids=["empty", "in the length", "in the header", "all but a byte"])
def test_truncated_inputs_are_refused(program: Path, folder: Path, kept: int) -> None:
    """Inputs that are cut short end in a message with the file's name, not in a signal or in outputs."""
    file = folder / "inputs.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    done = run(program, folder)
    assert done.returncode == 1  # a signal would be negative
    assert done.stderr.startswith("gpt2: inputs.safetensors: cut short: ")
    assert not list((folder.parent / "outputs").iterdir())


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (b'"input_ids"', b'"input_idx"', "there is no input_ids"),
        (b'{"dtype"', b'["dtype"', "damaged: there is no { at byte "),
        (b'"shape":[1,2]', b'"shape":[1,9]', "the length 9 of axis 1 of attention_mask does not fit"),
    ],
)
def test_damaged_headers_are_refused(program: Path, folder: Path, right: bytes, wrong: bytes, message: str) -> None:
    """Inputs whose header is damaged end in a message that says what is wrong with them."""
    file = folder / "inputs.safetensors"
    content = file.read_bytes()
    assert right in content
    file.write_bytes(content.replace(right, wrong, 1))
    done = run(program, folder)
    assert done.returncode == 1
    assert message in done.stderr
