"""karat.candidates, cmd: a program that fails in whatever way is a verdict, and all that it started is ended."""

import json
import struct
import subprocess
import sys

import pytest

PORT = """
import json, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file, save_file

source, target = map(Path, sys.argv[1:])
case = json.loads((source / "case.json").read_text())
given = load_file(source / "inputs.safetensors")
scaled = np.tanh(given["x"] * given["weights/scale"] + given["weights/bias"])
scores = np.float32(case["params"]["gain"]) * (scaled @ given["weights/head"])
save_file({"scaled": scaled, "scores": scores, "choice": scores.argmax(-1)}, target / "outputs.safetensors")
"""
BAD = {
    "exit code": ("echo out of paper; exit 3", "crashed", "exit code 3\n| out of paper"),
    "killed": ("kill -9 $$", "crashed", "killed by SIGKILL"),
    "no such command inside": ("no-such-program", "crashed", "exit code 127"),
    "no outputs": (":", "missing-output", "it produced 0 other tensors"),
    "outputs removed": ("rm -r $0", "missing-output", "it produced 0 other tensors"),
    "outputs a file": ("rm -r $0; touch $0", "missing-output", "it produced 0 other tensors"),
    "damaged outputs": ("echo not a tensor file > $0/outputs.safetensors", "crashed", "outputs.safetensors: damaged"),
    "empty outputs": ("touch $0/outputs.safetensors", "crashed", "outputs.safetensors: damaged"),
    "damaged HDF5": ("echo no > $0/outputs.h5", "crashed", "outputs.h5: not a readable HDF5 file"),
    "damaged npy": ("echo no > $0/scaled.npy", "crashed", "scaled.npy: not a readable .npy file"),
    "two kinds": ("echo > $0/outputs.h5; echo > $0/scaled.npy", "crashed", "holds outputs of several kinds"),
    "damaged patterns": ("echo no > $0/unsupported.json", "crashed", "not a JSON list of checkpoint patterns"),
    "a folder in place": ("mkdir $0/outputs.safetensors", "crashed", "is not a regular file"),
    "a link to itself": ("ln -s outputs.safetensors $0/outputs.safetensors", "missing-output", ""),
    "a link to nowhere": ("ln -s /no/such/file $0/outputs.safetensors", "missing-output", ""),
    "unreadable": ("ln -s /proc/self/mem $0/outputs.safetensors", "crashed", "outputs.safetensors"),
    "all unsupported": ("echo '[\"*\"]' > $0/unsupported.json", "unsupported", "it does not provide it"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_program_that_fails_is_a_verdict(toy, bad):
    """Crash, no output, damaged output: a verdict that says what was found."""
    script, status, text = BAD[bad]
    (toy.root / "bad.sh").write_text(script, encoding="utf-8")
    report = toy.check("cmd:sh -c '. ./bad.sh' {outputs}", "toy/small")
    assert report.counts == {status: 3}
    assert text in report.verdicts[0].text
    assert report.exit_code == {"crashed": 4, "missing-output": 1, "unsupported": 5}[status]


def test_a_program_in_another_library_passes(toy):
    """A program reads case.json and inputs.safetensors and writes outputs.safetensors; it needs nothing of karat."""
    (toy.root / "port.py").write_text(PORT, encoding="utf-8")
    report = toy.check(f"cmd:{sys.executable} port.py {{inputs}} {{outputs}}")
    assert report.counts == {"pass": 6}


def test_the_inputs_folder_says_what_is_wanted(toy):
    """case.json: suite, case, params, contract, and the wanted checkpoints with their shapes."""
    toy.check("cmd:sh -c 'cp $0/case.json seen.json' {inputs} {outputs}", "toy/padded", contracts=["bfloat16"])
    case = json.loads((toy.root / "seen.json").read_text(encoding="utf-8"))
    assert (case["suite"], case["case"], case["params"]) == ("toy", "padded", {"gain": 0.5})
    assert case["contract"] == {"name": "bfloat16", "storage": "bfloat16", "accumulation": "float32"}
    wanted = [(row["name"], row["shape"], row["dtype"]) for row in case["checkpoints"]]
    assert wanted[1:] == [("scores", [2, 5, 11], "bfloat16"), ("choice", [2, 5], "int64")]


@pytest.mark.parametrize(
    "script", ["sleep 600", "sleep 600 & echo $! >> pids; sleep 600", "yes"], ids=["one", "child", "endless"]
)
def test_a_program_that_does_not_end_is_killed_with_all_that_it_started(toy, script):
    """Time limit: a verdict, never a hang, for each case."""
    (toy.root / "bad.sh").write_text(f"echo $$ >> pids\n{script}\n", encoding="utf-8")
    report = toy.check("cmd:sh -c '. ./bad.sh' {outputs}", timeout=0.5)
    assert report.counts == {"timeout": 6}
    assert report.exit_code == 4
    assert "killed after 0.5 s; --timeout sets the limit" in report.verdicts[0].text
    assert len(report.verdicts[0].text) < 20_000
    pids = (toy.root / "pids").read_text(encoding="utf-8").split()
    assert pids
    assert all(toy.gone(pid) for pid in pids)


def safetensors_bytes(header):
    """Return a safetensors file that is all header."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text


HEADERS = {
    "terabytes": {"scaled": {"dtype": "F32", "shape": [3, 4, 7], "data_offsets": [0, 1 << 42]}},
    "terabytes of shape": {"scaled": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}},
    "negative": {"scaled": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}},
    "dtype a list": {"scaled": {"dtype": [], "shape": [0], "data_offsets": [0, 0]}},
    "dtype unknown": {"scaled": {"dtype": "F4", "shape": [0], "data_offsets": [0, 0]}},
    "entry a list": {"scaled": []},
    "a list": [],
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_lies_costs_nothing_but_a_verdict(toy, header):
    """A file says what it holds before any of it is read; a header that cannot be true is damage."""
    (toy.root / "lies").write_bytes(safetensors_bytes(HEADERS[header]))
    report = toy.check("cmd:cp lies {outputs}/outputs.safetensors", "toy/small")
    assert report.counts == {"crashed": 3}
    assert "outputs.safetensors" in report.verdicts[0].text


def test_a_pipe_in_place_of_outputs_is_a_verdict(toy):
    """A verdict, never a hang: what is no regular file is not opened."""
    (toy.root / "bad.sh").write_text("mkfifo $0/scaled.npy $0/outputs.h5 $0/unsupported.json\n", encoding="utf-8")
    words = ["check", "cmd:sh -c '. ./bad.sh' {outputs}", "toy/small"]
    command = [sys.executable, "-c", "from karat.cli import main; raise SystemExit(main())", *words]
    result = subprocess.run(command, cwd=toy.root, capture_output=True, text=True, check=False, timeout=15)
    assert result.returncode in (1, 4)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("content", ["\x7fELF", ""], ids=["bad format", "empty"])
def test_a_program_that_the_system_cannot_start_is_a_crash(toy, content):
    """A file that is executable and no program could not be run, exit code 4."""
    program = toy.root / "program"
    program.write_text(content, encoding="utf-8")
    program.chmod(0o755)
    report = toy.check(f"cmd:{program} {{outputs}}", "toy/small")
    assert report.counts == {"crashed": 3}
    assert report.exit_code == 4
    assert f"{program} could not be started" in report.verdicts[0].text
