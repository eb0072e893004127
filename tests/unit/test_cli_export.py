"""karat export and karat check dir: the round trip of a port that knows nothing of karat."""

import json

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

FORMATS = ("safetensors", "npy", "h5")


def read(folder, file_format):
    """Read exported inputs without karat."""
    if file_format == "safetensors":
        return load_file(folder / "inputs.safetensors")
    if file_format == "npy":
        root = folder / "inputs"
        return {path.relative_to(root).with_suffix("").as_posix(): np.load(path) for path in root.rglob("*.npy")}
    found = {}
    with h5py.File(folder / "inputs.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def port(given, params):
    """Compute the toy without karat."""
    scaled = np.tanh(given["x"] * given["weights/scale"] + given["weights/bias"])
    scores = np.float32(params["gain"]) * np.einsum("btd,dv->btv", scaled, given["weights/head"])
    return {"scaled": scaled, "scores": scores, "choice": scores.argmax(-1)}


def write(folder, arrays, file_format):
    """Write outputs without karat."""
    folder.mkdir(parents=True, exist_ok=True)
    if file_format == "safetensors":
        save_file(arrays, folder / "outputs.safetensors")
    elif file_format == "npy":
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
    else:
        with h5py.File(folder / "outputs.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array


@pytest.mark.parametrize("beside", [True, False], ids=["beside the inputs", "elsewhere"])
@pytest.mark.parametrize("outputs_format", FORMATS)
@pytest.mark.parametrize("inputs_format", FORMATS)
def test_what_is_exported_computed_and_dumped_elsewhere_passes(toy, inputs_format, outputs_format, beside):
    """export -> any program -> check dir:, in every pair of file formats, outputs beside the inputs or elsewhere."""
    result = toy.karat("export", "toy", "--to", "out", "--format", inputs_format)
    assert result.code == 0
    assert "karat check dir:out" in result.out
    for case in ("small", "padded"):
        folder = toy.root / "out" / "toy" / case
        wanted = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        outputs = port(read(folder, inputs_format), wanted["params"])
        assert {row["name"]: row["shape"] for row in wanted["checkpoints"]} == {
            name: list(a.shape) for name, a in outputs.items()
        }
        write(folder if beside else toy.root / "mine" / "toy" / case, outputs, outputs_format)
    result = toy.karat("check", "dir:out" if beside else "dir:mine")
    assert result.code == 0, result.out
    assert "6 pass" in result.out


@pytest.mark.parametrize("file_format", FORMATS)
def test_goldens_are_never_exported(toy, file_format):
    """karat export writes inputs only: neither a golden's name nor its values."""
    toy.karat("export", "toy", "--to", "out", "--format", file_format)
    files = [path for path in (toy.root / "out").rglob("*") if path.is_file()]
    assert {path.name for path in files if path.suffix == ".json"} == {"case.json"}
    goldens = load_file(toy.goldens / "small.safetensors")
    arrays = read(toy.root / "out" / "toy" / "small", file_format)
    assert set(arrays) == {"x", "mask", "weights/scale", "weights/bias", "weights/head"}
    for path in files:
        for golden in goldens.values():
            for dtype in ("f8", "f4") if golden.dtype.kind == "f" else ("i8", "i4"):
                assert golden.astype(dtype).tobytes()[:48] not in path.read_bytes(), path


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_export_in_another_storage_format_holds_the_same_numbers(toy, file_format):
    """Inputs are on every contract's grid: bfloat16 inputs are the float32 ones, bit for bit."""
    assert toy.karat("export", "toy/small", "--to", "out", "--format", file_format, "--contract", "bfloat16").code == 0
    toy.karat("export", "toy/small", "--to", "wide", "--format", "npy")
    wide = read(toy.root / "wide" / "toy" / "small", "npy")["x"]
    if file_format == "safetensors":
        content = (toy.root / "out" / "toy" / "small" / "inputs.safetensors").read_bytes()
        assert (wide.view("u4") >> 16).astype("<u2").tobytes() in content
    else:
        found = read(toy.root / "out" / "toy" / "small", file_format)["x"].view("u2")
        assert np.array_equal(found.astype("u4") << 16, wide.view("u4"))


def test_only_the_selected_cases_are_exported(toy):
    """export takes SELECT like every command."""
    assert toy.karat("export", "toy/pad*", "--to", "out").code == 0
    assert [path.name for path in (toy.root / "out" / "toy").iterdir()] == ["padded"]


def test_inputs_of_damaged_goldens_are_not_exported(toy):
    """What could not be checked afterwards is not exported: exit code 3 with the finding."""
    (toy.goldens / "small.safetensors").write_bytes(b"")
    result = toy.karat("export", "toy", "--to", "out")
    assert result.code == 3
    assert "small.safetensors has 0 bytes" in result.err
    assert not (toy.root / "out").exists()


def test_a_format_that_would_round_the_inputs_is_refused(toy):
    """Inputs are exported exactly or not at all: exit code 2 with the value that would be rounded."""
    contract = '[contract.eighth]\nstorage = "float8_e5m2"\naccumulation = "float32"\n'
    contract += 'products = "float32"\nrounding = "each operation"\n'
    toy.edit("tolerances.toml", "[contract.bfloat16]", contract + "[contract.bfloat16]")
    result = toy.karat("export", "toy", "--to", "out", "--contract", "eighth")
    assert result.code == 2
    assert "eighth" in result.err
    assert result.err.count("\n") == 1
