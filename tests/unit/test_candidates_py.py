"""karat.candidates and karat.worker: how a Python target is found, what it declares, and torch."""

import shutil

import pytest

WITHOUT_SCORES = """
UNSUPPORTED = ("scores",)
def toy(**given):
    found = right(**given)
    del found["scores"]
    return found
"""


def test_a_module_without_the_function_is_unsupported(toy):
    """What a candidate lacks is unsupported: listed, counted, never passed; nothing was compared, exit code 5."""
    report = toy.check(toy.candidate("def other(): ...\n"))
    assert report.counts == {"unsupported": 6}
    assert report.exit_code == 5
    assert "has no function toy" in report.verdicts[0].text


def test_a_folder_without_the_file_of_a_suite_is_unsupported(toy):
    """A folder provides the suites that it has files for."""
    (toy.root / "ports").mkdir()
    assert toy.check("py:ports").counts == {"unsupported": 6}


def test_a_folder_may_be_sorted_into_families(toy):
    """A folder of files is searched for the suite's, however deep."""
    (toy.root / "ports" / "models").mkdir(parents=True)
    shutil.copy(toy.root / "candidates" / "plain" / "toy.py", toy.root / "ports" / "models")
    assert toy.check("py:ports").counts == {"pass": 6}


def test_a_module_name_is_imported_from_the_working_directory(toy):
    """py:TARGET may be a module name, dotted or not."""
    shutil.copytree(toy.root / "candidates" / "plain", toy.root / "my_package")
    assert toy.check("py:my_package.toy").counts == {"pass": 6}


@pytest.mark.parametrize("source", ["import no_such_module", "1 / 0", "def toy(:", "raise SystemExit(0)"])
def test_a_module_that_fails_on_import_says_why(toy, source):
    """A module that cannot be imported raised, for every checkpoint, with the error and its place."""
    report = toy.check(toy.candidate(source))
    assert report.counts == {"raised": 6}
    assert report.exit_code == 4
    error = {"i": "ModuleNotFoundError", "1": "ZeroDivisionError", "d": "SyntaxError", "r": "SystemExit"}[source[0]]
    assert error in report.verdicts[0].text
    assert "mine.py" in report.verdicts[0].text


def test_a_neighbour_of_the_candidate_hides_no_installed_package(toy):
    """A candidate's folder is searched last, so that its helpers cannot replace what karat and NumPy import."""
    spec = toy.candidate(
        "import h5py\ndef toy(**given):\n    assert hasattr(h5py, 'File')\n    return right(**given)\n"
    )
    (toy.root / "ports" / "h5py.py").write_text("raise ImportError('the wrong h5py')\n", encoding="utf-8")
    assert toy.check(spec).counts == {"pass": 6}


def test_only_what_is_declared_unsupported_may_be_missing(toy):
    """UNSUPPORTED holds patterns; what it does not name must be produced, and what is produced is judged."""
    source = "UNSUPPORTED = ['sc*']\ndef toy(**given):\n    return {'scaled': right(**given)['scaled']}\n"
    report = toy.check(toy.candidate(source))
    assert [verdict.status for verdict in report.verdicts] == ["pass", "unsupported", "missing-output"] * 2
    assert report.exit_code == 1


@pytest.mark.parametrize("require", ["toy", "toy/small", "toy/*/scores"])
def test_an_owner_may_demand_what_is_unsupported(toy, require):
    """--require turns unsupported into a failure of the candidate, exit code 1."""
    spec = toy.candidate(WITHOUT_SCORES)
    assert toy.check(spec).exit_code == 0
    report = toy.check(spec, require=[require])
    assert report.counts == {"pass": 4, "unsupported": 2}
    assert report.exit_code == 1


def test_what_is_not_demanded_may_stay_unsupported(toy):
    """--require concerns the checkpoints that it selects and no others."""
    spec = toy.candidate(WITHOUT_SCORES)
    assert toy.check(spec, require=["toy/*/scaled"]).exit_code == 0


@pytest.mark.parametrize("patterns", ["'scores'", "[1]", "5"])
def test_patterns_that_are_none_are_an_error_of_the_candidate(toy, patterns):
    """UNSUPPORTED is a sequence of patterns; anything else supports nothing and hides nothing."""
    spec = toy.candidate(
        f"UNSUPPORTED = {patterns}\ndef toy(**given):\n    return dict(list(right(**given).items())[::2])\n"
    )
    report = toy.check(spec)
    assert "unsupported" not in report.counts
    assert report.exit_code in (1, 4)


def test_inputs_come_in_the_storage_format_and_nested(toy):
    """Inputs are arrays in the contract's storage format, integers stay integers, weights are one mapping."""
    source = """def toy(x, mask, weights, *, gain):
    assert type(x) is np.ndarray or isinstance(x, np.ndarray)
    assert x.dtype.name in ('float32', 'bfloat16') and mask.dtype == np.int64 and gain == 0.5
    assert {name: (value.shape, value.dtype) for name, value in weights.items()} == {
        'scale': ((7,), x.dtype), 'bias': ((7,), x.dtype), 'head': ((7, 11), x.dtype)}
    open('seen', 'a').write(x.dtype.name + ' ')
    return right(x, mask, weights, gain=gain)
"""
    assert toy.check(toy.candidate(source), contracts=["float32", "bfloat16"]).counts == {"pass": 12}
    assert (toy.root / "seen").read_text(encoding="utf-8").split() == ["float32", "bfloat16"] * 2


TORCH = """
import torch
ARRAYS = "torch"

def toy(x, mask, weights, *, gain):
    assert mask.dtype == torch.int64 and weights["head"].dtype == x.dtype
    weights = {name: value.float() for name, value in weights.items()}
    scaled = torch.tanh(x.float() * weights["scale"] + weights["bias"]).to(x.dtype).requires_grad_()
    scores = (gain * (scaled.float() @ weights["head"])).to(x.dtype)
    return {"scaled": scaled, "scores": scores.mT.contiguous().mT, "choice": scores.argmax(-1).int()}
"""


def test_torch_tensors_go_in_and_out_in_every_format(toy):
    """A module that says ARRAYS = "torch" gets tensors, bfloat16 included, and may return any of them."""
    pytest.importorskip("torch")
    report = toy.check(toy.candidate(TORCH), contracts=["float32", "bfloat16"])
    assert report.counts == {"pass": 12}
    assert {verdict.contract for verdict in report.verdicts} == {"float32", "bfloat16"}


def test_a_device_that_is_not_there_is_an_error_of_the_candidate(toy):
    """DEVICE says where the tensors go; one that torch does not know raised."""
    pytest.importorskip("torch")
    report = toy.check(toy.candidate(TORCH.replace("ARRAYS", 'DEVICE = "abacus"\nARRAYS')))
    assert report.counts == {"raised": 6}
    assert "abacus" in report.verdicts[0].text


@pytest.mark.parametrize("patterns", ['"*.scores"', "[1]", "3"])
def test_unsupported_is_a_list_of_patterns(toy, patterns):
    """One text would be taken for its letters, and "*" among them for everything."""
    text = f"from candidates.plain.toy import toy\nUNSUPPORTED = {patterns}\n"
    (toy.root / "mine.py").write_text(text, encoding="utf-8")
    report = toy.check("py:mine")
    assert set(report.counts) == {"raised"}
