"""karat.exchange: the folders that karat and a candidate exchange hold what DESIGN.md says, and nothing is rounded."""

import json

import ml_dtypes
import numpy as np
import pytest

from karat import exchange, tensors
from karat.errors import CandidateError, UsageError
from karat.exchange import Outputs, read_outputs, storage_formats, write_case
from karat.inputs import Dyadic, Integers, Recipe, Stored
from karat.suites import Case, Checkpoint, Suite
from karat.tolerances import Contract

CHECKPOINTS = (
    Checkpoint("h.0.scores", (2, 3), ("query", "key"), keep={"key": (1, 3)}),
    Checkpoint("tokens", (2,), dtype="integer"),
    Checkpoint("mask", (), dtype="bool"),
)
RECIPES: dict[str, Recipe] = {
    "x": Dyadic((1, 2), "x", -6),
    "ids": Integers((2,), "ids", 0, 9),
    "weights/h.0.bias": Stored((3,)),
}
CASE = Case("small", RECIPES, {"n_head": 4, "temperatures": [0.5, 1.0]}, CHECKPOINTS, {"query": "ids"})
SUITE = Suite("demo", "about", ("float32",), (CASE,))
INPUTS = {
    "x": np.array([[0.5, -2.0]], np.float32),
    "ids": np.array([3, 1]),
    "weights/h.0.bias": np.array([0.25, 4.0, -0.0], np.float32),
}
VALUES = np.array([1.0, 2.0], np.float32)


def contract(storage):
    """Return a contract of a storage format."""
    return Contract(f"{storage}-mine", storage, "float32", "float32", "each operation")


def dump(folder, kind, arrays):
    """Write a candidate's outputs as one of the three kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "npy":
        for name, array in arrays.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            tensors.write_npy(folder / f"{name}.npy", array)
    else:
        {"safetensors": tensors.write_safetensors, "h5": tensors.write_h5}[kind](folder / f"outputs.{kind}", arrays)


def load_inputs(folder, kind):
    """Read the inputs of an exported case back, by the names that they have in the suite."""
    if kind == "npy":
        paths = (folder / "inputs").rglob("*.npy")
        found = {path.relative_to(folder / "inputs").as_posix()[:-4]: tensors.read_npy(path) for path in paths}
    else:
        found = {"safetensors": tensors.read_safetensors, "h5": tensors.read_h5}[kind](folder / f"inputs.{kind}")
    return {name: tensor.load() for name, tensor in found.items()}


DESCRIPTION = {
    "suite": "demo",
    "case": "small",
    "params": {"n_head": 4, "temperatures": [0.5, 1.0]},
    "contract": {"name": "bfloat16-mine", "storage": "bfloat16", "accumulation": "float32"},
    "inputs": [
        {"name": "x", "shape": [1, 2], "dtype": "bfloat16"},
        {"name": "ids", "shape": [2], "dtype": "int64"},
        {"name": "weights/h.0.bias", "shape": [3], "dtype": "bfloat16"},
    ],
    "padding": {"query": "ids"},
    "refuses": "",
    "checkpoints": [
        {
            "name": "h.0.scores",
            "shape": [2, 3],
            "axes": ["query", "key"],
            "dtype": "bfloat16",
            "judged": {"key": [1, 3]},
        },
        {"name": "tokens", "shape": [2], "axes": [], "dtype": "int64", "judged": {}},
        {"name": "mask", "shape": [], "axes": [], "dtype": "bool", "judged": {}},
    ],
}


def test_the_case_says_what_is_wanted(tmp_path):
    """case.json holds suite, case, params, contract, inputs, and the wanted checkpoints with their whole shapes."""
    for _ in range(2):  # a folder that is there is written anew
        write_case(tmp_path / "new" / "folder", SUITE, CASE, contract("bfloat16"), INPUTS)
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {"case.json", "inputs.safetensors"}
    assert json.loads((tmp_path / "new" / "folder" / "case.json").read_text(encoding="utf-8")) == DESCRIPTION


@pytest.mark.parametrize("kind", exchange.FILE_FORMATS)
@pytest.mark.parametrize("storage", ["float64", "float32", "float16", "bfloat16"])
def test_inputs_are_written_in_the_contract_s_storage(tmp_path, kind, storage):
    """Floats come in the contract's storage format, integers as they are, a mapping's entries as `name/key`."""
    write_case(tmp_path, SUITE, CASE, contract(storage), INPUTS, file_format=kind)
    found = load_inputs(tmp_path, kind)
    assert set(found) == set(INPUTS)
    for name, array in INPUTS.items():
        wanted = array if name == "ids" else array.astype(getattr(ml_dtypes, storage, storage))
        assert found[name].dtype == wanted.dtype
        assert found[name].shape == wanted.shape
        assert found[name].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("kind", ["safetensors", "h5"])
@pytest.mark.parametrize("storage", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_inputs_need_a_file_format_that_has_them(tmp_path, kind, storage):
    """float8 is exported as safetensors or HDF5; npy, which loses it, is a usage error that says so."""
    write_case(tmp_path, SUITE, CASE, contract(storage), INPUTS, file_format=kind)
    assert load_inputs(tmp_path, kind)["x"].astype(np.float64).tolist() == [[0.5, -2.0]]
    with pytest.raises(UsageError, match=rf"x\.npy: \.npy loses the dtype {storage}; .*--format safetensors"):
        write_case(tmp_path, SUITE, CASE, contract(storage), INPUTS, file_format="npy")


def test_inputs_are_never_rounded():
    """Every contract starts from the same numbers: an input that its storage format cannot hold is an error by name."""
    message = (
        r"input 'x' cannot be given under the contract bfloat16-mine: .*257.0.* at \(1,\) is not a bfloat16 number"
    )
    with pytest.raises(UsageError, match=message):
        exchange.in_storage(CASE, {"x": np.array([1.0, 257.0], np.float32)}, contract("bfloat16"))


def test_integers_and_booleans_are_no_floats():
    """The storage format is of floats only."""
    arrays = {"ids": np.array([257]), "mask": np.array([True]), "byte": np.array([1], np.uint8)}
    found = exchange.in_storage(CASE, arrays, contract("float8_e5m2"))
    assert all(found[name] is array for name, array in arrays.items())


@pytest.mark.parametrize("kind", exchange.FILE_FORMATS)
def test_outputs_stand_under_their_checkpoint_s_name(tmp_path, kind):
    """outputs.safetensors, one <checkpoint>.npy each, or outputs.h5: the same tensors by name."""
    arrays = {"h.0.scores": VALUES.astype(ml_dtypes.bfloat16), "probabilities.t0.5": VALUES, "step.1/cache": VALUES[:1]}
    dump(tmp_path, kind, arrays)
    (tmp_path / "case.json").write_text("{}", encoding="utf-8")
    found = read_outputs(tmp_path)
    assert found.unsupported == ()
    assert {name: (t.dtype, t.load().tolist()) for name, t in found.tensors.items()} == {
        name: (array.dtype, array.tolist()) for name, array in arrays.items()
    }


@pytest.mark.parametrize("kinds", [("safetensors", "h5"), ("safetensors", "npy"), ("h5", "npy")], ids="+".join)
def test_outputs_of_two_kinds_are_an_error(tmp_path, kinds):
    """Which of two dumps was meant cannot be known: that is an error which names both."""
    for kind in kinds:
        dump(tmp_path, kind, {"a": VALUES, "b": VALUES})
    named = [r"\*\.npy" if kind == "npy" else rf"outputs\.{kind}" for kind in kinds]
    with pytest.raises(CandidateError, match=rf"holds outputs of several kinds: {', '.join(named)}$"):
        read_outputs(tmp_path)


def test_outputs_may_stand_beside_exported_inputs(tmp_path):
    """Each case's outputs are put beside its inputs, which are not mistaken for them."""
    write_case(tmp_path, SUITE, CASE, contract("float32"), INPUTS, file_format="npy")
    dump(tmp_path, "npy", {"h.0.scores": VALUES, "more/inputs": VALUES})
    assert set(read_outputs(tmp_path).tensors) == {"h.0.scores", "more/inputs"}


def test_a_folder_without_outputs_holds_none(tmp_path):
    """Nothing dumped is nothing found; each checkpoint is then missing by name."""
    (tmp_path / "inputs.safetensors").write_bytes(b"not an output")
    assert read_outputs(tmp_path) == Outputs({})


@pytest.mark.parametrize("name", ["outputs.safetensors", "outputs.h5", "h.0.scores.npy"])
def test_a_damaged_dump_is_an_error_that_names_its_file(tmp_path, name):
    """A dump that cannot be read is a CandidateError with its path, not a missing output."""
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(CandidateError, match=name):
        read_outputs(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "link to nothing"])
def test_what_is_named_like_an_output_and_is_no_file_is_an_error(tmp_path, kind):
    """A folder or a broken link where an array should be is a CandidateError with its path."""
    path = tmp_path / "h.0.scores.npy"
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nothing")
    with pytest.raises(CandidateError, match=r"h\.0\.scores\.npy"):
        read_outputs(tmp_path)


def test_what_a_candidate_does_not_support_it_says(tmp_path):
    """unsupported.json is a list of checkpoint patterns, beside outputs or alone."""
    (tmp_path / "unsupported.json").write_text('["h.*", "tokens"]', encoding="utf-8")
    assert read_outputs(tmp_path) == Outputs({}, ("h.*", "tokens"))


BAD_LISTS = {
    "not JSON": b"['h.*']",
    "not UTF-8": b'["\xff"]',
    "empty": b"",
    "text": b'"h.*"',
    "a mapping": b'{"h.*": true}',
    "numbers": b'["h.*", 1]',
    "nested too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", BAD_LISTS.values(), ids=BAD_LISTS)
def test_an_unreadable_list_of_the_unsupported_is_an_error(tmp_path, content):
    """What is not supported is never guessed."""
    (tmp_path / "unsupported.json").write_bytes(content)
    with pytest.raises(CandidateError, match=r"unsupported\.json: not a JSON list of checkpoint patterns"):
        read_outputs(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({}, set()),
        ({"h.0.scores": VALUES}, {"float32"}),
        ({"h.0.scores": VALUES.astype(ml_dtypes.bfloat16), "tokens": VALUES}, {"bfloat16"}),
        ({"h.0.scores": VALUES.astype(ml_dtypes.float8_e4m3fn)}, {"float8_e4m3fn"}),
        ({"h.0.scores": VALUES, "h.1.scores": VALUES.astype(np.float16)}, {"float32", "float16"}),
        ({"h.0.scores": VALUES, "notes": VALUES.astype(np.float64)}, {"float32"}),
        ({"h.0.scores": VALUES.astype(np.int32)}, set()),
    ],
    ids=["nothing", "one", "floats only", "float8", "two", "wanted only", "integers"],
)
def test_the_storage_format_of_a_dump_is_that_of_its_float_checkpoints(arrays, expected):
    """For `dir:` the contract is the storage format of the dump: of what is wanted of it and is a float."""
    outputs = Outputs({name: tensors.of_array(array) for name, array in arrays.items()})
    assert storage_formats(outputs, (*CHECKPOINTS, Checkpoint("h.1.scores", (2,)))) == expected
