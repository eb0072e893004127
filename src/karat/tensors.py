"""Files of named tensors, safetensors, npy and HDF5: read lazily and suspiciously, written byte for byte the same.

The readers know the formats that NumPy lacks. A file says what it holds before any of its data is read, so that a
tensor of the wrong shape costs nothing, however large it claims to be.
"""

from __future__ import annotations

import functools
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from karat.errors import CandidateError

_SAFETENSORS_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
_SAFETENSORS_NAMES = {dtype: name for name, dtype in _SAFETENSORS_DTYPES.items()}
_NAMED_DTYPES = {dtype.name: dtype for dtype in _SAFETENSORS_NAMES}
_WORTHWHILE = 1 << 11  # bytes from which compressing an array pays
_HEADER_LIMIT = 100 << 20  # the limit of the safetensors library


@dataclass(frozen=True)
class Tensor:
    """What a file says of one tensor, and how to get at it.

    Attributes:
        shape: its shape.
        dtype: its NumPy dtype (ml_dtypes' for bfloat16 and float8).
        load: returns the array, memory-mapped where the file allows it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], NDArray[Any]]


def of_array(array: NDArray[Any]) -> Tensor:
    """Return a Tensor that is already in memory."""
    return Tensor(array.shape, array.dtype, lambda: array)


# --- safetensors ----------------------------------------------------------------------------------------------------


def write_safetensors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write `arrays` to `path`; the same arrays give the same bytes, in every process.

    No metadata is written: with two or more keys the safetensors library orders them at random.
    """
    header: dict[str, Any] = {}
    if "__metadata__" in arrays:
        raise TypeError("safetensors keeps the name __metadata__ for itself")
    offset = 0
    for name in sorted(arrays):
        array = arrays[name]
        if array.dtype not in _SAFETENSORS_NAMES:
            raise TypeError(f"{name}: safetensors cannot hold the dtype {array.dtype}")
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in sorted(arrays):
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; raise `CandidateError` if the file is damaged.

    Own code because the library's NumPy reader knows neither float8 nor, without help, bfloat16, and reads whole files.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _HEADER_LIMIT):
                raise CandidateError(f"{path}: damaged: a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise CandidateError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CandidateError(f"{path}: damaged: the header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise CandidateError(f"{path}: damaged: the header is not a mapping")
    start = 8 + length
    entries = {name: _Entry.parse(path, name, entry) for name, entry in header.items() if name != "__metadata__"}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            raise CandidateError(f"{path}: damaged: the bytes of {name!r} begin at {entry.begin}, not at {end}")
        end = entry.end
    if start + end != size:
        raise CandidateError(f"{path}: damaged: {size - start} bytes of data where its header promises {end}")
    data = functools.cache(lambda: np.asarray(np.memmap(path, dtype=np.uint8, mode="c")))  # one mapping for all
    return {name: Tensor(entry.shape, entry.dtype, entry.loader(data, start)) for name, entry in entries.items()}


@dataclass(frozen=True)
class _Entry:
    """What the header of a safetensors file says of one tensor."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int

    @staticmethod
    def parse(path: Path, name: str, entry: Any) -> _Entry:
        """Return the entry; raise `CandidateError` where it contradicts itself."""
        match entry:
            case {"dtype": str(dtype_name), "shape": [*shape], "data_offsets": [begin, end]}:
                whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            case _:
                whole = False
        if not whole:
            raise CandidateError(f"{path}: damaged: the entry of {name!r} is not dtype, shape and data_offsets")
        if dtype_name not in _SAFETENSORS_DTYPES:
            raise CandidateError(f"{path}: {name!r} has the dtype {dtype_name!r}, which karat does not read")
        dtype = _SAFETENSORS_DTYPES[dtype_name]
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise CandidateError(f"{path}: damaged: {end - begin} bytes for {name!r} of shape {tuple(shape)}")
        return _Entry(dtype, tuple(shape), begin, end)

    def loader(self, data: Callable[[], NDArray[np.uint8]], start: int) -> Callable[[], NDArray[Any]]:
        """Return a function that cuts the tensor out of the bytes of its file, mapped into memory, copy on write."""

        def load() -> NDArray[Any]:
            if self.begin == self.end:
                return np.zeros(self.shape, self.dtype)
            raw = data()[start + self.begin : start + self.end]
            if (start + self.begin) % self.dtype.itemsize:  # a writer that does not pad its header: copy to align
                raw = np.array(raw)
            array: NDArray[Any] = raw.view(self.dtype).reshape(self.shape)
            return array

        return load


# --- npy ------------------------------------------------------------------------------------------------------------


def read_npy(path: Path) -> Tensor:
    """Return the tensor of a `.npy` file; raise `CandidateError` if it is damaged, pickled, or its dtype was lost.

    NumPy writes bfloat16 as `|V2`: two bytes of no type, which can be nothing else and are read as bfloat16. float8
    becomes `|V1`, which could be either kind, and is refused.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(6)
    except OSError as error:
        raise CandidateError(f"{path}: {error.strerror}") from None
    if magic[:2] == b"PK":
        raise CandidateError(f"{path}: an .npz archive; write one .npy for each checkpoint")
    if magic != b"\x93NUMPY":
        raise CandidateError(f"{path}: not a readable .npy file")
    try:
        with warnings.catch_warnings(action="ignore"):
            array: NDArray[Any] = np.lib.format.open_memmap(path, mode="c")
    except Exception as error:  # noqa: BLE001 - whatever NumPy's parser raises on a damaged header
        lost = "; write float8 as safetensors" if "f1" in str(error) else ""
        raise CandidateError(f"{path}: not a readable .npy file: {error}{lost}") from None
    dtype = _typed(array.dtype, str(path))
    return Tensor(array.shape, dtype, lambda: _as_native(array, dtype))


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Write `array` to `path`; bfloat16 becomes `|V2`, which `read_npy` takes back. Raise `TypeError` for float8."""
    if array.dtype.itemsize == 1 and array.dtype.name.startswith("float8"):
        raise TypeError(f"{path}: .npy loses the dtype {array.dtype.name}; use safetensors")
    np.save(path, array, allow_pickle=False)


def _typed(dtype: np.dtype[Any], place: str) -> np.dtype[Any]:
    """Return the dtype that the bytes stand for, native byte order; refuse what cannot be known."""
    if dtype == np.dtype("V2"):
        bfloat16: np.dtype[Any] = _NAMED_DTYPES["bfloat16"]
        return bfloat16
    if dtype.kind == "V" and dtype.names is None and dtype.name not in _NAMED_DTYPES:
        raise CandidateError(
            f"{place}: {dtype.itemsize} byte(s) of no type ({dtype.str}): this file format lost the dtype;"
            " write float8 as safetensors"
        )
    native: np.dtype[Any] = dtype.newbyteorder("=")
    if native not in _SAFETENSORS_NAMES:
        raise CandidateError(f"{place}: karat does not read the dtype {dtype.name}")
    return native


def _as_native(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if array.dtype.kind == "V" and array.dtype != dtype:
        return np.asarray(array, order="C").view(dtype)
    return array.astype(dtype, copy=False)


# --- HDF5 -----------------------------------------------------------------------------------------------------------


def write_h5(path: Path, arrays: Mapping[str, NDArray[Any]], *, compress: bool = False) -> None:
    """Write `arrays` to `path` in sorted order without timestamps; `compress` those of some size, by gzip.

    bfloat16 and float8 become unsigned integers of the same width with the attribute `dtype`, since HDF5 lacks them.
    """
    import h5py  # slow to import, and not needed by most runs

    with h5py.File(path, "w", libver="latest", track_order=False) as file:
        for name in sorted(arrays):
            array = np.asarray(arrays[name])
            extended = array.dtype.name if array.dtype.isbuiltin == 2 else None
            stored = array.view(f"u{array.dtype.itemsize}") if extended else array
            how = {"compression": "gzip", "shuffle": True} if compress and stored.nbytes >= _WORTHWHILE else {}
            dataset = file.create_dataset(name, data=stored, track_times=False, **how)
            if extended:
                dataset.attrs["dtype"] = np.bytes_(extended)


def read_h5_group(path: Path, group: str) -> dict[str, Tensor]:
    """Return the tensors of one group of an HDF5 file, in memory; none if there is no such group.

    Raise `CandidateError` if it cannot be read.
    """
    import h5py

    found: dict[str, Tensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = of_array(np.asarray(item[()]))

    try:
        with h5py.File(path, "r", locking=False) as file:
            if group in file:
                file[group].visititems(visit)
    except Exception as error:  # noqa: BLE001 - whatever HDF5 raises on a damaged file
        raise CandidateError(f"{path}: not a readable HDF5 file: {error}") from None
    return found


def read_h5(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an HDF5 file, groups joined with `/`; raise `CandidateError` if it cannot be read.

    A dataset's dtype is its attribute `dtype` where it has one (`bfloat16` over unsigned integers); two bytes of no
    type are bfloat16; one byte of no type is refused.
    """
    import h5py

    found: dict[str, Tensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            try:
                found[name] = _h5_entry(path, name, item)
            except TypeError as error:  # a type that NumPy lacks
                raise CandidateError(f"{path}: {name!r}: {error}") from None

    try:
        with h5py.File(path, "r", locking=False) as file:
            file.visititems(visit)
    except CandidateError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever HDF5 raises on a damaged file or a type without a dtype
        raise CandidateError(f"{path}: not a readable HDF5 file: {error}") from None
    return found


def _h5_entry(path: Path, name: str, dataset: Any) -> Tensor:
    place = f"{path}: {name!r}"
    if dataset.shape is None:
        raise CandidateError(f"{place}: a dataset without a shape")
    named = dataset.attrs.get("dtype")
    if named is None:
        dtype = _typed(dataset.dtype, place)
    else:
        name_text = named.decode() if isinstance(named, bytes) else str(named)
        if name_text not in _NAMED_DTYPES:
            raise CandidateError(f"{place}: its attribute dtype is {name_text!r}, which karat does not read")
        dtype = _NAMED_DTYPES[name_text]
        if dataset.dtype.kind != "u" or dtype.itemsize != dataset.dtype.itemsize:
            raise CandidateError(f"{place}: its attribute says {name_text}, its elements are {dataset.dtype.name}")

    def load() -> NDArray[Any]:
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            array = np.asarray(file[name][()])
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return np.asarray(native, order="C").view(dtype) if named is not None else _as_native(native, dtype)

    return Tensor(tuple(dataset.shape), dtype, load)
