"""karat.candidates, dir: dumps in every file format and number format, and every way in which they can be wrong."""

import io
import zipfile

import h5py
import numpy as np
import pytest

from karat import tensors

FORMATS = ("safetensors", "npy", "h5")


@pytest.mark.parametrize("contract", ["float32", "bfloat16"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_dump_is_checked_under_the_contract_of_its_storage_format(toy, file_format, contract):
    """dir: needs no --contract: the storage format of the dump says it, in each of the three file formats."""
    report = toy.check(f"dir:{toy.dump(file_format, contract)}")
    assert report.counts == {"pass": 6}
    assert {verdict.contract for verdict in report.verdicts} == {contract}


def test_a_contract_that_is_named_is_the_one_that_is_checked(toy):
    """A float32 dump does not keep the promise of bfloat16, however right its values are."""
    report = toy.check(f"dir:{toy.dump()}", contracts=["bfloat16"])
    assert report.counts == {"pass": 2, "dtype": 4}
    assert report.exit_code == 1
    assert report.verdicts[0].text == "dtype float32; the contract bfloat16 stores in bfloat16"


@pytest.mark.parametrize("file_format", FORMATS)
def test_one_element_off_by_a_hundredth_is_found_by_name_and_index(toy, file_format):
    """A mismatch names the checkpoint and the element: exit code 1, in the report too."""
    folder = toy.dump(file_format)
    arrays = toy.outputs("padded")
    arrays["scores"][1, 3, 8] *= 1.01
    if file_format == "npy":
        np.save(folder / "toy" / "padded" / "scores.npy", arrays["scores"])
    else:
        write = tensors.write_h5 if file_format == "h5" else tensors.write_safetensors
        write(folder / "toy" / "padded" / f"outputs.{file_format}", arrays)
    result = toy.karat("check", f"dir:{folder}")
    assert result.code == 1
    assert (
        "toy/padded/float32/scores: mismatch (first divergence; all that was compared before it passed)" in result.out
    )
    assert "at (1, 3, 8) (batch 1, token 3, word 8)" in result.out
    assert "1 of 88 elements beyond" in result.out


def test_several_number_formats_in_one_dump_are_refused(toy):
    """The contract of a dump is inferred only where there is one: else the places are named, exit code 2."""
    toy.dump(contract="bfloat16", cases=["small"])
    folder = toy.dump(cases=["padded"])
    result = toy.karat("check", f"dir:{folder}")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert f"bfloat16 in {folder}/toy/small, float32 in {folder}/toy/padded; name one with --contract" in result.err
    assert toy.karat("check", f"dir:{folder}", "--contract", "float32").code == 1


@pytest.mark.parametrize("name", ["tot/small", "toy/smal"])
def test_a_folder_that_names_no_suite_or_case_is_a_usage_error(toy, name):
    """A dump under a misspelled name would be ignored: it is refused, with the names that are known."""
    folder = toy.dump(cases=["small"])
    (folder / name).mkdir(parents=True)
    result = toy.karat("check", f"dir:{folder}")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert repr(name.split("/")[0 if name.startswith("tot") else 1]) in result.err
    assert "toy" in result.err


def test_a_case_without_a_folder_is_unsupported(toy):
    """A dump may hold any subset of the cases; the rest is listed and never passes."""
    report = toy.check(f"dir:{toy.dump(cases=['small'])}")
    assert report.counts == {"pass": 3, "unsupported": 3}
    assert report.exit_code == 0
    assert "there is no folder" in report.verdicts[-1].text


def test_an_empty_dump_compares_nothing(toy):
    """Nothing was compared: exit code 5."""
    (toy.root / "dump").mkdir()
    result = toy.karat("check", "dir:dump")
    assert result.code == 5
    assert "NOTHING COMPARED" in result.out


def test_a_dump_declares_what_it_does_not_hold(toy):
    """unsupported.json holds patterns of checkpoints."""
    folder = toy.dump("npy", cases=["small"])
    (folder / "toy" / "small" / "scores.npy").unlink()
    (folder / "toy" / "small" / "unsupported.json").write_text('["sco*"]', encoding="utf-8")
    assert toy.check(f"dir:{folder}", "toy/small").counts == {"pass": 2, "unsupported": 1}


@pytest.mark.parametrize("second", ["scaled.npy", "outputs.h5"])
def test_two_kinds_of_outputs_in_one_folder_are_refused(toy, second):
    """Which of two dumps is meant cannot be known."""
    folder = toy.dump() / "toy" / "small"
    (folder / second).write_bytes(b"")
    report = toy.check("dir:dump", "toy/small", contracts=["float32"])
    assert report.counts == {"crashed": 3}
    assert "holds outputs of several kinds" in report.verdicts[0].text


def npz():
    """Return an archive of arrays."""
    stream = io.BytesIO()
    np.savez(stream, scaled=np.ones(3))
    return stream.getvalue()


def zipped():
    """Return an empty archive."""
    stream = io.BytesIO()
    zipfile.ZipFile(stream, "w").close()
    return stream.getvalue()


def npy(header, version=1):
    """Return a .npy file that is all header."""
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2, "little") + header


def pickled():
    """Return a .npy file of Python objects."""
    stream = io.BytesIO()
    np.save(stream, np.array([{}], object), allow_pickle=True)
    return stream.getvalue()


NPY = {
    "empty": b"",
    "npz": npz(),
    "zip": zipped(),
    "zip begun": b"PK\x03\x04 and no more",
    "pickle": pickled(),
    "no header": b"\x93NUMPY\x01\x00",
    "unclosed": npy(b"{'descr': ('<f4'"),
    "not a mapping": npy(b"[]\n"),
    "nested": npy(b"(" * 60_000),
    "cut short": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4, 7)}\n"),
    "terabytes": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}\n"),
    "overflow": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4, 7" + b"0" * 40 + b")}\n"),
    "negative": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4, 7)}\n"),
    "version": npy(b"{}", version=9),
    "python 2": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L, 7L)}\n"),
}


@pytest.mark.parametrize("content", NPY)
def test_a_damaged_npy_file_is_a_verdict(toy, content):
    """Whatever stands in a .npy file is a verdict of its case; the other case is checked."""
    folder = toy.dump("npy")
    (folder / "toy" / "small" / "scaled.npy").write_bytes(NPY[content])
    report = toy.check(f"dir:{folder}", contracts=["float32"])
    assert [verdict.status for verdict in report.verdicts] == ["crashed"] * 3 + ["pass"] * 3
    assert "scaled.npy" in report.verdicts[0].text
    assert report.exit_code == 4


def h5_empty(file, _):
    """Write a dataset without elements or shape."""
    file["scaled"] = h5py.Empty("f4")


def h5_text(file, _):
    """Write a string."""
    file["scaled"] = "three"


def h5_outside(file, folder):
    """Write a dataset whose bytes are in a file that does not exist."""
    (folder / "raw").write_bytes(b"x")
    file.create_dataset("scaled", (3, 4, 7), "f4", external=[(str(folder / "nowhere"), 0, 336)])


def h5_attribute(file, _):
    """Write a dataset whose dtype attribute is an array."""
    file["scaled"] = np.zeros((3, 4, 7), "u2")
    file["scaled"].attrs["dtype"] = np.arange(3)


@pytest.mark.parametrize("write", [h5_empty, h5_text, h5_outside, h5_attribute], ids=lambda write: write.__name__)
def test_an_odd_dataset_is_a_verdict(toy, write):
    """Whatever an HDF5 file holds under a checkpoint's name is a verdict, never a traceback."""
    folder = toy.root / "dump" / "toy" / "small"
    folder.mkdir(parents=True)
    with h5py.File(folder / "outputs.h5", "w") as file:
        write(file, folder)
    report = toy.check("dir:dump", "toy/small/scaled", contracts=["float32"])
    assert set(report.counts) <= {"crashed", "shape", "dtype", "mismatch"}
    assert report.exit_code in (1, 4)


@pytest.mark.parametrize("source", ["dir:dump", "cmd:cp dump/toy/small/outputs.h5 {outputs}"])
def test_a_damaged_chunk_is_a_verdict(toy, source):
    """A dataset whose bytes cannot be unpacked is a verdict, from a dump and from a program."""
    folder = toy.root / "dump" / "toy" / "small"
    folder.mkdir(parents=True)
    with h5py.File(folder / "outputs.h5", "w") as file:
        file.create_dataset("scaled", data=toy.outputs("small")["scaled"], chunks=(3, 4, 7), fletcher32=True)
        place = file["scaled"].id.get_chunk_info(0).byte_offset
    content = bytearray((folder / "outputs.h5").read_bytes())
    content[place] ^= 1
    (folder / "outputs.h5").write_bytes(content)
    report = toy.check(source, "toy/small/scaled", contracts=["float32"])
    assert report.counts == {"crashed": 1}
    assert report.exit_code == 4


@pytest.mark.parametrize("kind", ["loop", "folder", "folder.npy"])
def test_what_is_no_file_holds_no_outputs(toy, kind):
    """A link to itself or a folder under the name of outputs is a verdict, never a traceback."""
    folder = toy.root / "dump" / "toy" / "small"
    folder.mkdir(parents=True)
    if kind == "loop":
        (folder / "outputs.safetensors").symlink_to("outputs.safetensors")
    else:
        (folder / ("scaled.npy" if kind == "folder.npy" else "outputs.safetensors")).mkdir()
    report = toy.check("dir:dump", "toy/small")
    assert set(report.counts) <= {"crashed", "missing-output"}
    assert report.exit_code in (1, 4)
