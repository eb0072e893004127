"""karat.candidates, py: whatever a hostile function does is a verdict with a reason, never karat's own failure."""

import pytest

from karat.candidates import open_candidate
from karat.errors import UsageError

BAD_RUNS = {
    "raises": ("raise ValueError('seven is not eight')", "raised", "ValueError: seven is not eight"),
    "SystemExit": ("raise SystemExit(3)", "raised", "SystemExit: 3"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "crashed", "its process ended"),
    "_exit": ("import os; os._exit(3)", "crashed", "its process ended: exit code 3"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", "crashed", "its process ended: killed by SIGKILL"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "crashed", "its process ended: killed by SIG"),
    "None": (
        "return None",
        "raised",
        "toy returned a NoneType; karat wants a mapping {checkpoint: array} of 3 checkpoints",
    ),
    "bare array": ("return right(**given)['scaled']", "raised", "toy returned a ndarray; karat wants a mapping"),
    "list": ("return ['scaled', 'scores']", "raised", "toy returned a list; karat wants a mapping"),
    "strings": ("return {'scaled': ['a', 'b']}", "raised", "scaled: a list is not an array"),
    "text array": (
        "return {'scaled': np.array(['a', 'b'])}",
        "raised",
        "scaled: an array of dtype <U1 holds no numbers",
    ),
    "object array": (
        "return {'scaled': np.array([{}, 1], object)}",
        "raised",
        "scaled: an array of dtype object holds no numbers",
    ),
    "complex array": (
        "return {'scaled': np.ones(3, complex)}",
        "raised",
        "scaled: safetensors cannot hold the dtype complex128",
    ),
    "dates": ("return {'scaled': np.zeros(3, 'M8[s]')}", "raised", "holds no numbers"),
    "forged answers": (
        "import os\n    for fd in range(3, 30):\n        try: os.write(fd, b'?')\n        except OSError: pass",
        "crashed",
        "protocol",
    ),
    "closes all": ("import os; os.closerange(3, 30); return right(**given)", "crashed", "its process ended"),
    "empty": ("return {}", "missing-output", "the candidate did not produce it; it produced 0 other tensors"),
}
BAD_ARRAYS = {
    "shape": ("scaled", "found['scaled'] = found['scaled'][..., :1]", "shape", "shape (3, 4, 1), wanted (3, 4, 7)"),
    "transposed": (
        "scaled",
        "found['scaled'] = found['scaled'].swapaxes(0, 1)",
        "shape",
        "shape (4, 3, 7), wanted (3, 4, 7)",
    ),
    "dtype": (
        "scores",
        "found['scores'] = found['scores'].astype('f8')",
        "dtype",
        "dtype float64; the contract float32 stores in float32",
    ),
    "float index": (
        "choice",
        "found['choice'] = found['choice'].astype('f4')",
        "dtype",
        "dtype float32, wanted integers",
    ),
    "bool index": ("choice", "found['choice'] = found['choice'] > 0", "dtype", "dtype bool, wanted integers"),
    "NaN": ("scores", "found['scores'][2, 1, 0] = np.nan", "nonfinite", ""),
    "infinity": ("scores", "found['scores'][2, 1, 0] = -np.inf", "nonfinite", ""),
    "index beyond": ("choice", "found['choice'][0, 3] = 11", "mismatch", ""),
    "negative index": ("choice", "found['choice'][0, 3] -= 11", "mismatch", ""),
    "misspelled": (
        "scores",
        "found['score'] = found.pop('scores')",
        "missing-output",
        "did not produce it; it produced 'score', which is no",
    ),
}
GOOD = {
    "prints": "import os; print('x' * (1 << 20)); os.write(1, b'{\"ok\": true}\\n' * 100_000)",
    "prints to stderr": "import os; os.write(2, b'y' * (1 << 20))",
    "closes its stdout": "import os, sys; sys.stdout.closed or (sys.stdout.close(), os.close(1))",
    "leaves its folder": "import os; os.chdir('/')",
    "other names": "found |= {'more': np.ones(3), 'even/more': np.ones(())}",
    "small integers": "found['choice'] = found['choice'].astype('u1')",
    "transposed memory": "found['scaled'] = np.asfortranarray(found['scaled'])",
    "mutates its inputs": "given['x'][...] = 7; given['mask'][...] = 0; given['weights']['head'][...] = 7",
    "__array__": "a = found['scaled']; found['scaled'] = type('A', (), {'__array__':"
    " lambda self, dtype=None, copy=None: a})()",
    "__dlpack__": "a = found['scaled']; found['scaled'] = a if a.dtype != 'f4' else type('A', (), {'__dlpack__':"
    " lambda self, **how: a.__dlpack__(**how), '__dlpack_device__': lambda self: a.__dlpack_device__()})()",
}


def function(line):
    """Return the source of a function of one line."""
    return f"def toy(**given):\n    {line}\n"


def changed(line):
    """Return the source of a function that changes right outputs."""
    return f"def toy(**given):\n    found = right(**given)\n    {line}\n    return found\n"


@pytest.mark.parametrize("bad", BAD_RUNS)
def test_a_function_that_cannot_be_run_gives_each_checkpoint_the_reason(toy, bad):
    """A crash, an exception, a broken protocol: a verdict for every checkpoint of the case, and exit code 4."""
    line, status, text = BAD_RUNS[bad]
    report = toy.check(toy.candidate(function(line)), "toy/small")
    assert report.counts == {status: 3}
    assert all(text in verdict.text for verdict in report.verdicts)
    assert report.exit_code == (1 if status == "missing-output" else 4)


@pytest.mark.parametrize("bad", BAD_ARRAYS)
def test_a_wrong_array_is_a_verdict_of_its_own_checkpoint(toy, bad):
    """shape, dtype, nonfinite, missing-output: each says what was found and what was wanted."""
    name, line, status, text = BAD_ARRAYS[bad]
    report = toy.check(toy.candidate(changed(line)), f"toy/small/{name}")
    [verdict] = report.verdicts
    assert (verdict.status, report.exit_code) == (status, 1)
    assert text in verdict.text
    assert "toy/small/float32" in verdict.name


@pytest.mark.parametrize("good", GOOD)
def test_what_does_not_change_the_outputs_is_no_fault(toy, good):
    """A candidate may print, leave its folder and spoil its own copies: the next case and contract do not suffer."""
    report = toy.check(toy.candidate(changed(GOOD[good])), contracts=["float32", "bfloat16"])
    assert report.counts == {"pass": 12}
    assert report.extra == (
        {f"toy/{case}": ["even/more", "more"] for case in ("small", "padded")} if good == "other names" else {}
    )


def test_after_a_hang_the_next_case_is_checked_by_a_fresh_process(toy):
    """A case that hangs is killed at the time limit; it costs no other case its verdict."""
    line = (
        "import time, os; open('pids', 'a').write(f'{os.getpid()} ')\n"
        "    if given['x'].shape[0] == 3: print('asleep', flush=True); time.sleep(600)\n"
        "    return right(**given)"
    )
    report = toy.check(toy.candidate(function(line)), timeout=2)
    assert [verdict.status for verdict in report.verdicts] == ["timeout"] * 3 + ["pass"] * 3
    assert "killed after 2 s; --timeout sets the limit" in report.verdicts[0].text
    assert "| asleep" in report.verdicts[0].text
    assert report.exit_code == 4
    first, second = (toy.root / "pids").read_text(encoding="utf-8").split()
    assert first != second
    assert toy.gone(int(first))
    assert toy.gone(int(second))


def test_after_a_crash_the_next_case_is_checked_by_a_fresh_process(toy):
    """A crash ends its process, not the run; what it printed last is in the verdict."""
    line = (
        "import os\n"
        "    if given['x'].shape[0] == 3: os.write(2, b'out of paper'); os._exit(7)\n"
        "    return right(**given)"
    )
    report = toy.check(toy.candidate(function(line)))
    assert [verdict.status for verdict in report.verdicts] == ["crashed"] * 3 + ["pass"] * 3
    assert "exit code 7\n| out of paper" in report.verdicts[0].text


def test_a_child_that_a_candidate_leaves_behind_is_ended(toy):
    """A candidate's processes do not outlive the check."""
    fork = "import os, time\n    if not (child := os.fork()): time.sleep(600)\n    open('child', 'w').write(str(child))"
    report = toy.check(toy.candidate(changed(fork)), "toy/small")
    assert report.counts == {"pass": 3}
    assert toy.gone(int((toy.root / "child").read_text(encoding="utf-8")))


def test_a_crash_is_seen_although_a_child_holds_the_pipes(toy):
    """A crash is a crash, not a timeout, whoever else has its standard output open."""
    line = "import os, time\n    if not os.fork(): time.sleep(600)\n    os._exit(3)"
    report = toy.check(toy.candidate(function(line)), "toy/small", timeout=4)
    assert report.counts == {"crashed": 3}
    assert "exit code 3" in report.verdicts[0].text


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("plain", "a spec is py:TARGET, dir:PATH, cmd:COMMAND or null:KIND"),
        ("rust:mine", "a spec is py:TARGET, dir:PATH, cmd:COMMAND or null:KIND"),
        ("py:", "a spec is"),
        ("py:no/such.py", "there is no no/such.py"),
        ("py:such.py", "there is no such.py"),
        ("dir:nowhere", "no folder nowhere with <suite>/<case>"),
        ("null:ones", "kinds: zeros, constant, noise, permuted, stale, missing"),
        ("cmd:true", "says nowhere {outputs}"),
        ("cmd: ", "says nowhere {outputs}"),
        ("cmd:no-such-program {outputs}", "there is no program 'no-such-program'"),
        ("cmd:true '{outputs}", "No closing quotation"),
    ],
)
def test_a_spec_that_describes_no_candidate_is_a_usage_error(spec, text):
    """No such candidate: exit code 2 and one line that repeats the spec and says what would be one."""
    with pytest.raises(UsageError) as caught:
        open_candidate(spec)
    assert text in str(caught.value)
    assert repr(spec) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
