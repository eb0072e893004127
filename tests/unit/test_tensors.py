"""karat.tensors: files of named tensors survive bit for bit, and a damaged or lying file is an error by name."""

import json
import os
import subprocess
import sys
import time

import h5py
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from karat import tensors
from karat.errors import CandidateError

NATIVE = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
]
EXTENDED = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]
SHAPES = {"scalar": (), "row": (5,), "matrix": (2, 3), "empty": (0, 3)}
LIBRARY_NAMES = {
    "float16": "F16",
    "float32": "F32",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}


def made(name, shape=(2, 3)):
    """Return an array of the dtype `name` with bits that mean nothing in particular."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    count = int(np.prod(shape)) * dtype.itemsize
    raw = np.random.Philox(key=5).random_raw(count // 8 + 1).view(np.uint8)[:count]
    return (raw % 2 if name == "bool" else raw).view(dtype).reshape(shape)


def assert_same(tensor, array):
    """Assert that a file's tensor is `array`, in what it says before it is loaded and bit for bit after."""
    loaded = tensor.load()
    assert tensor.shape == loaded.shape == array.shape
    assert tensor.dtype == loaded.dtype == array.dtype.newbyteorder("=")
    assert loaded.dtype.isnative
    assert loaded.tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


def write_header(path, header, data):
    """Write a safetensors file by hand: a header, bytes or JSON values, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", NATIVE + EXTENDED)
def test_every_dtype_survives_safetensors_and_h5_bit_for_bit(tmp_path, name, shape):
    """The readers know the formats that NumPy lacks; what was written is read, bit for bit, in every shape."""
    array = made(name, shape)
    tensors.write_safetensors(tmp_path / "a.safetensors", {"a": array})
    assert_same(tensors.read_safetensors(tmp_path / "a.safetensors")["a"], array)
    tensors.write_h5(tmp_path / "a.h5", {"a": array})
    assert_same(tensors.read_h5(tmp_path / "a.h5")["a"], array)


@pytest.mark.parametrize("name", LIBRARY_NAMES)
def test_the_safetensors_library_reads_what_karat_writes(tmp_path, name):
    """A safetensors file of karat's is one to any program."""
    arrays = {"h.0/b": made(name), "a": made(name, ()), "z": made("int64", (3,)), "e": made(name, (0,))}
    tensors.write_safetensors(tmp_path / "a.safetensors", arrays)
    found = dict(safetensors.deserialize((tmp_path / "a.safetensors").read_bytes()))
    assert {key: bytes(value["data"]) for key, value in found.items()} == {
        key: a.tobytes() for key, a in arrays.items()
    }
    assert (found["h.0/b"]["dtype"], found["h.0/b"]["shape"], found["a"]["shape"]) == (LIBRARY_NAMES[name], [2, 3], [])


def test_karat_reads_what_the_safetensors_library_writes(tmp_path):
    """A candidate's outputs come from any safetensors writer, with metadata and in any order."""
    arrays = {name: made(name, (3, 2)) for name in reversed(NATIVE + EXTENDED)}
    (tmp_path / "a.safetensors").write_bytes(safetensors.numpy.save(arrays, {"format": "np", "by": "hand"}))
    found = tensors.read_safetensors(tmp_path / "a.safetensors")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert_same(found[name], array)


@pytest.mark.parametrize("write", ["write_safetensors", "write_h5"])
def test_two_processes_write_the_same_bytes(tmp_path, write):
    """The same arrays give the same bytes, in every process and in whatever order they are given."""
    program = f"""if True:
        import pathlib, sys, numpy as np, ml_dtypes
        from karat import tensors
        arrays = {{name: np.arange(6, dtype=ml_dtypes.bfloat16) for name in sys.argv[2:]}}
        tensors.{write}(pathlib.Path(sys.argv[1]), arrays)"""
    names = ["weights/b", "weights/a", "x", "h.10.out", "h.9.out"]
    for seed, order in (("1", names), ("2", names[::-1])):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / seed), *order], check=True, env=environment)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_nothing_is_read_before_it_is_loaded_and_the_file_is_never_changed(tmp_path):
    """A file says what it holds before any of its data is read; a loaded array can be changed, its file cannot."""
    header = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    write_header(tmp_path / "a", header, np.float32(1).tobytes())
    tensor = tensors.read_safetensors(tmp_path / "a")["a"]
    write_header(tmp_path / "a", header, np.float32(2).tobytes())
    array = tensor.load()
    assert array.tolist() == [2.0]
    array[...] = 7
    assert tensor.load().tolist() == [2.0]


@pytest.mark.parametrize("spaces", range(8))
def test_a_header_that_is_not_padded_is_read_right(tmp_path, spaces):
    """A writer need not align its data."""
    header = b'{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}}' + b" " * spaces
    write_header(tmp_path / "a", header, np.array([1.5, -2.0]).tobytes())
    tensor = tensors.read_safetensors(tmp_path / "a")["a"]
    assert_same(tensor, np.array([1.5, -2.0]))
    assert tensor.load().flags.aligned


@pytest.mark.parametrize("name", ["a", "bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg", "hhhhhhhh"])
def test_the_header_that_karat_writes_is_padded(tmp_path, name):
    """Data begin at a multiple of eight bytes, so that a memory map is aligned."""
    tensors.write_safetensors(tmp_path / "a", {name: made("float64")})
    assert int.from_bytes((tmp_path / "a").read_bytes()[:8], "little") % 8 == 0


def test_a_dtype_that_safetensors_lacks_is_refused_by_name(tmp_path):
    """Nothing is converted on the way into a file."""
    with pytest.raises(TypeError, match=r"h\.0\.out: safetensors cannot hold the dtype complex128"):
        tensors.write_safetensors(tmp_path / "a", {"h.0.out": np.ones(2, complex)})


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", [*NATIVE, "bfloat16", ">f4", ">i8", ">f2"])
def test_npy_arrays_are_read_right(tmp_path, name, shape):
    """An .npy file of any byte order, and of bfloat16, which NumPy writes as |V2, is read bit for bit."""
    array = made(name, shape)
    tensors.write_npy(tmp_path / "a.npy", array)
    assert_same(tensors.read_npy(tmp_path / "a.npy"), array)
    np.save(tmp_path / "fortran.npy", array.copy(order="F"))
    assert_same(tensors.read_npy(tmp_path / "fortran.npy"), array)


@pytest.mark.parametrize("name", EXTENDED[1:])
def test_float8_in_npy_is_refused_with_the_reason(tmp_path, name):
    """An .npy file loses what kind of float8 it holds: karat neither writes one nor guesses, and says what to do."""
    with pytest.raises(TypeError, match=rf"a\.npy: \.npy loses the dtype {name}; use safetensors"):
        tensors.write_npy(tmp_path / "a.npy", made(name))
    np.save(tmp_path / "a.npy", made(name))
    with pytest.raises(CandidateError, match=r"a\.npy: .*float8.*safetensors"):
        tensors.read_npy(tmp_path / "a.npy")


def test_bfloat16_that_lost_its_dtype_is_read_as_bfloat16(tmp_path):
    """Two bytes of no type can be nothing else than bfloat16, in .npy and in HDF5."""
    array = made("bfloat16")
    np.save(tmp_path / "a.npy", array.view("V2"))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = array.view("V2")
    assert_same(tensors.read_npy(tmp_path / "a.npy"), array)
    assert_same(tensors.read_h5(tmp_path / "a.h5")["a"], array)


def test_h5_groups_are_joined_with_a_slash(tmp_path):
    """A mapping's entries stand under `name/key`, whether a writer makes groups or karat does."""
    arrays = {"weights/h.0.bias": made("float32"), "weights/a/b": made("int64"), "x": made("float16")}
    tensors.write_h5(tmp_path / "a.h5", arrays)
    found = tensors.read_h5(tmp_path / "a.h5")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert_same(found[name], array)


def test_h5_is_written_without_timestamps(tmp_path):
    """Freezing twice gives the same bytes, whatever the time is."""
    before = int(time.time())
    tensors.write_h5(tmp_path / "a.h5", {"a/b": made("float32"), "c": made("bfloat16")})
    content = (tmp_path / "a.h5").read_bytes()
    assert not any(second.to_bytes(4, "little") in content for second in range(before, int(time.time()) + 1))


@pytest.mark.parametrize(("stored", "named"), [(">f4", None), (">i8", None), (">u2", "bfloat16"), ("<u2", "bfloat16")])
@pytest.mark.parametrize("as_bytes", [False, True], ids=["text", "bytes"])
def test_h5_data_of_any_byte_order_are_read_right(tmp_path, stored, named, as_bytes):
    """A dataset's dtype is its attribute where it has one, over unsigned integers of any byte order."""
    array = made(named or stored)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = array.view("u2").astype(stored) if named else array
        if named:
            file["a"].attrs["dtype"] = np.bytes_(named) if as_bytes else named
    assert_same(tensors.read_h5(tmp_path / "a.h5")["a"], array)


def test_a_tensor_in_memory_is_its_own_tensor():
    """An array that a program holds can stand where a file's tensor does."""
    array = made("bfloat16")
    tensor = tensors.of_array(array)
    assert (tensor.shape, tensor.dtype) == ((2, 3), array.dtype)
    assert tensor.load() is array
