"""karat.tensors: a file that is damaged, lies or holds what karat cannot read is a CandidateError that names it."""

import io
import json
import pickle

import h5py
import ml_dtypes
import numpy as np
import pytest

from karat import tensors
from karat.errors import CandidateError


def safetensors_file(path, header, data=b""):
    """Write what claims to be a safetensors file: a header, text or JSON values, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def npy_file(path, content):
    """Write what claims to be a .npy file: bytes as they are, or the text of a version 1 header before 16 bytes."""
    if isinstance(content, str):
        text = content.encode("latin1")
        content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)
    path.write_bytes(content)
    return path


def saved(save, array):
    """Return the bytes that NumPy's `save` or `savez` writes."""
    stream = io.BytesIO()
    save(stream, array)
    return stream.getvalue()


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    """Return an entry of a safetensors header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DAMAGED_SAFETENSORS = {
    "no header": (b"", b""),
    "not JSON": (b"{'a': 1}", b"0000"),
    "not UTF-8": (b'{"\xff": 1}', b"0000"),
    "nested too deep": (b"[" * 100_000, b""),
    "a list": ([1], b"0000"),
    "a number for an entry": ({"a": 3}, b"0000"),
    "null for an entry": ({"a": None}, b"0000"),
    "text for an entry": ({"a": "F32"}, b"0000"),
    "a list for an entry": ({"a": ["F32", [1], [0, 4]]}, b"0000"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"0000"),
    "unknown dtype": ({"a": entry("F128")}, b"0000"),
    "a number for a dtype": ({"a": entry(32)}, b"0000"),
    "a list for a dtype": ({"a": entry(["F32"])}, b"0000"),
    "negative shape": ({"a": entry(shape=(-1,))}, b"0000"),
    "two negative shapes": ({"a": entry(shape=(-1, -1))}, b"0000"),
    "fractional shape": ({"a": entry(shape=(1.0,))}, b"0000"),
    "bool shape": ({"a": entry(shape=(True,))}, b"0000"),
    "text for a shape": ({"a": {**entry(), "shape": ""}}, b"0000"),
    "shape too large": ({"a": entry(shape=(2,))}, b"0000"),
    "shape too small": ({"a": entry(shape=(0,))}, b"0000"),
    "shape beyond 64 bits": ({"a": entry(shape=(2**62, 4))}, b"0000"),
    "three offsets": ({"a": entry(offsets=(0, 4, 8))}, b"00000000"),
    "negative offset": ({"a": entry(offsets=(-4, 0))}, b"0000"),
    "reversed offsets": ({"a": entry(offsets=(4, 0))}, b"0000"),
    "offsets too long": ({"a": entry(offsets=(0, 8))}, b"00000000"),
    "offsets beyond the file": ({"a": entry(offsets=(4, 8))}, b"0000"),
    "overlapping tensors": ({"a": entry(), "b": entry(offsets=(2, 6))}, b"000000"),
    "the same bytes twice": ({"a": entry(), "b": entry()}, b"0000"),
}


@pytest.mark.parametrize(("header", "data"), DAMAGED_SAFETENSORS.values(), ids=DAMAGED_SAFETENSORS)
def test_a_damaged_safetensors_file_is_an_error_that_names_it(tmp_path, header, data):
    """A file that lies about its tensors is a CandidateError with its path, never another exception, never a guess."""
    with pytest.raises(
        CandidateError, match=r"bad\.safetensors: (damaged: .|'a' has the dtype .* karat does not read)"
    ):
        tensors.read_safetensors(safetensors_file(tmp_path / "bad.safetensors", header, data))


@pytest.mark.parametrize("length", [0, 17, 2**40, 2**64 - 1], ids=["none", "one too many", "a terabyte", "all ones"])
def test_an_absurd_header_length_costs_nothing(tmp_path, length):
    """The header is not read before its length fits the file."""
    (tmp_path / "a").write_bytes(length.to_bytes(8, "little") + b'{"a":1}         ')
    with pytest.raises(CandidateError, match="damaged"):
        tensors.read_safetensors(tmp_path / "a")


@pytest.mark.parametrize("kind", ["safetensors", "npy", "h5"])
def test_a_file_that_is_not_there_is_an_error(tmp_path, kind):
    """A file that cannot be opened is a CandidateError with its path."""
    with pytest.raises(CandidateError, match=r"gone\.file"):
        getattr(tensors, f"read_{kind}")(tmp_path / "gone.file")


@pytest.mark.parametrize("kind", ["safetensors", "npy", "h5"])
def test_a_file_cut_short_anywhere_is_an_error(tmp_path, kind):
    """A truncated file is damaged, wherever it ends."""
    path = tmp_path / f"a.{kind}"
    array = np.arange(6, dtype=np.float32)
    content = array if kind == "npy" else {"a": array}
    getattr(tensors, f"write_{kind}")(path, content)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37 if kind == "h5" else 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CandidateError, match=path.name):
            getattr(tensors, f"read_{kind}")(path)


DAMAGED_NPY = {
    "empty": b"",
    "text": b"1.0 2.0\n",
    "a later version": b"\x93NUMPY\x09\x00" + bytes(100),
    "pickle": pickle.dumps({"a": 1}),
    "object array": saved(np.save, np.array([1, "a"], object)),
    ".npz": saved(np.savez, np.ones(3)),
    "damaged .npz": saved(np.savez, np.ones(3))[:40],
    "structured": saved(np.save, np.zeros(3, "f4,i4")),
    "text array": saved(np.save, np.array(["a", "b"])),
    "dates": saved(np.save, np.zeros(3, "M8[s]")),
    "complex": saved(np.save, np.ones(3, complex)),
    "three bytes of no type": saved(np.save, np.zeros(3, "V3")),
    "header is no literal": "import os\n",
    "header never ends": "{'descr': '<f4', ",
    "header nested too deep": "-" * 9000 + "1",
    "descr is a tuple": "{'descr': ('<f4',), 'fortran_order': False, 'shape': (1,)}\n",
    "descr is None": "{'descr': None, 'fortran_order': False, 'shape': (1,)}\n",
    "shape is negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n",
    "shape beyond the file": "{'descr': '<f4', 'fortran_order': False, 'shape': (5,)}\n",
    "shape beyond 64 bits": "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}\n",
    "shape beyond all bits": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30},)}}\n",
}


@pytest.mark.parametrize("content", DAMAGED_NPY.values(), ids=DAMAGED_NPY)
def test_a_damaged_npy_file_is_an_error_that_names_it(tmp_path, content):
    """What is no .npy file of numbers is a CandidateError with its path; nothing in it is ever unpickled."""
    with pytest.raises(CandidateError, match=r"bad\.npy: "):
        tensors.read_npy(npy_file(tmp_path / "bad.npy", content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (saved(np.save, np.array([1, "a"], object)), "not a readable .npy file: .*pickle|Python objects"),
        (saved(np.savez, np.ones(3)), "an .npz archive; write one .npy for each checkpoint"),
        (saved(np.save, np.ones(3, complex)), "karat does not read the dtype complex128"),
    ],
    ids=["pickled", ".npz", "complex"],
)
def test_a_refused_npy_file_is_told_why(tmp_path, content, reason):
    """A message says what was found and what to do instead."""
    with pytest.raises(CandidateError, match=reason):
        tensors.read_npy(npy_file(tmp_path / "bad.npy", content))


def holding(data):
    """Return a function that writes `data` as the dataset `a`."""
    return lambda file: file.create_dataset("a", data=data)


def of_the_time_class(file):
    """Write a dataset of a type that NumPy has no name for."""
    h5py.h5d.create(file.id, b"a", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((2,)))


def named(dtype, stored):
    """Return a function that writes a dataset with the attribute `dtype`."""

    def write(file):
        file["a"] = np.zeros(3, stored)
        file["a"].attrs["dtype"] = dtype

    return write


REFUSED_H5 = {
    "float8 of no type": (
        holding(np.ones(3, ml_dtypes.float8_e4m3fn).view("V1")),
        "1 byte.s. of no type.*write float8 as safetensors",
    ),
    "unknown attribute": (named("float23", "u2"), "its attribute dtype is 'float23', which karat does not read"),
    "a number as attribute": (named(16, "u2"), "its attribute dtype is '16', which karat does not read"),
    "attribute of another width": (
        named("bfloat16", "u4"),
        "its attribute says bfloat16, its elements are uint32",
    ),
    "text": (holding("text"), "karat does not read the dtype object"),
    "compound": (holding(np.zeros(3, "f4,i4")), "karat does not read the dtype"),
    "complex": (
        lambda file: file.create_dataset("a", data=np.zeros(3, complex)),
        "karat does not read the dtype complex128",
    ),
    "no elements at all": (holding(h5py.Empty("f4")), ""),
    "time": (of_the_time_class, ""),
}


@pytest.mark.parametrize(("write", "reason"), REFUSED_H5.values(), ids=REFUSED_H5)
def test_an_h5_dataset_that_karat_cannot_read_is_refused_by_name(tmp_path, write, reason):
    """A dataset of another kind is a CandidateError with its file and name, never another exception."""
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        write(file)
    with pytest.raises(CandidateError, match=rf"bad\.h5.*'a'.*{reason}"):
        tensors.read_h5(tmp_path / "bad.h5")


@pytest.mark.parametrize(
    "content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(200)], ids=["empty", "text", "magic only"]
)
def test_a_file_that_is_no_hdf5_is_an_error_that_names_it(tmp_path, content):
    """A damaged HDF5 file is a CandidateError with its path."""
    (tmp_path / "bad.h5").write_bytes(content)
    with pytest.raises(CandidateError, match=r"bad\.h5: not a readable HDF5 file"):
        tensors.read_h5(tmp_path / "bad.h5")
