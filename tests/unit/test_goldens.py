"""karat.goldens: manifests that hash themselves, files that are hashed before use, sets that are moved in whole."""

import json

import numpy as np
import pytest

from karat import goldens
from karat.errors import GoldenError
from karat.goldens import GoldenSet


def opened(toy):
    """Open the frozen set."""
    return GoldenSet.open(toy.repository, "toy")


def test_the_manifest_is_canonical_json_with_a_line_for_each_row(toy):
    """One manifest a suite, canonical JSON, a line per entry, a last key that hashes all above it."""
    text = (toy.goldens / "manifest.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert list(content) == [*sorted(set(content) - {"sha256"}), "sha256"]
    assert sum(line.startswith('{"case":"small","checkpoint"') for line in text.splitlines()) == 3
    del content["sha256"]
    assert goldens.manifest_text(content) == text


def test_the_manifest_records_what_the_goldens_were_computed_from(toy):
    """Per suite sources, versions, platform, witness; per case parameters; per tensor file, shape, dtype and hash."""
    content = toy.manifest()
    assert [row["file"] for row in content["generator"]] == ["generators/toy.py", "candidates/plain/toy.py"]
    assert content["contract"]["file"] == "validators/toy.py"
    assert content["versions"]["numpy"] == np.__version__
    assert content["cases"] == [{"case": name, "params": {"gain": 0.5}} for name in ("small", "padded")]
    assert content["witness"]["worst"] <= content["witness"]["limit"] == 1e-12
    row = next(row for row in content["goldens"] if row["case"] == "padded" and row["checkpoint"] == "scores")
    assert (row["shape"], row["dtype"], row["nonfinite"], row["file"]) == (
        [2, 5, 11],
        "float64",
        0,
        "padded.safetensors",
    )


def test_the_rms_of_a_golden_is_that_of_its_judged_elements(toy):
    """The unit of atol_rms must not depend on what stands in padding."""
    row = opened(toy).goldens["padded", "scaled"]
    array = opened(toy).golden("padded", "scaled")
    judged = np.concatenate([array[0, 2:], array[1]])
    assert row["rms"] == pytest.approx(np.sqrt(np.mean(judged**2)), rel=1e-14)


def test_a_golden_that_is_not_listed_is_missing_by_name(toy):
    """A missing golden is an error with the command that mends it, never a fallback."""
    with pytest.raises(
        GoldenError, match=r"toy/small/scored is not among.*run: python -m nox -s goldens -- toy"
    ) as caught:
        opened(toy).golden("small", "scored")
    assert caught.value.kind == "missing"


def test_a_file_that_the_manifest_does_not_list_is_not_read(toy):
    """Nothing is read whose hash is unknown."""
    (toy.goldens / "more.safetensors").write_bytes((toy.goldens / "small.safetensors").read_bytes())
    with pytest.raises(GoldenError, match=r"more\.safetensors is not listed"):
        opened(toy).tensors("more.safetensors")


def test_a_listed_file_that_is_no_safetensors_is_damaged(toy):
    """A file that fits its hash and is still no tensor file is damaged, never a traceback."""
    (toy.goldens / "small.safetensors").write_bytes(b"not a tensor file")
    content = toy.manifest()
    for row in content["files"]:
        if row["file"] == "small.safetensors":
            row |= {"bytes": 17, "sha256": goldens.sha256_of_file(toy.goldens / "small.safetensors")}
    toy.rewrite(content)
    with pytest.raises(GoldenError, match=r"small\.safetensors") as caught:
        opened(toy).golden("small", "scaled")
    assert caught.value.kind == "damaged"


def test_an_input_that_was_not_frozen_is_stale(toy):
    """Inputs are drawn only where their frozen hash is known."""
    toy.rewrite({**toy.manifest(), "inputs": []})
    with pytest.raises(GoldenError, match="input 'x' was not frozen") as caught:
        opened(toy).draw_inputs(toy.suite.case("small"))
    assert caught.value.kind == "stale"


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool", ">f4"])
def test_the_hash_of_an_array_is_that_of_its_little_endian_rows(dtype):
    """A tensor's hash does not depend on strides or byte order, so that any machine and language finds the same."""
    array = np.array([[0, 1, 2], [0, 4, 0]]).astype(dtype)
    assert goldens.sha256_of_array(array) == goldens.sha256_of_array(array.astype(np.dtype(dtype).newbyteorder("=")))
    assert goldens.sha256_of_array(array) == goldens.sha256_of_array(np.asfortranarray(array))
    assert goldens.sha256_of_array(array) != goldens.sha256_of_array(np.asfortranarray(array).T.reshape(2, 3))


def test_the_command_that_mends_names_suite_and_weights():
    """Each finding carries the command that mends it."""
    assert goldens.freeze_command("gpt2") == "python -m nox -s goldens -- gpt2"
    assert goldens.freeze_command("gpt2@my--model").startswith("python -m nox -s goldens -- gpt2 --weights ")
    assert "gpt2@my--model/config.json in goldens/" in goldens.freeze_command("gpt2@my--model")


@pytest.mark.parametrize("exchange", [True, False])
def test_a_set_is_moved_in_whole_and_nothing_of_the_old_one_stays(tmp_path, monkeypatch, exchange):
    """Freezing is atomic, and it leaves no old file among the new ones."""
    if not exchange:  # as on systems that cannot exchange two folders
        monkeypatch.setattr(goldens, "_exchange", lambda *_: False)
    new, target = tmp_path / ".toy.new", tmp_path / "toy"
    for folder, name in ((target, "old"), (new, "new")):
        folder.mkdir()
        (folder / name).write_text(name, encoding="utf-8")
    goldens.move_in(new, target)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["toy", "toy/new"]


def test_the_first_set_of_a_suite_is_moved_into_a_new_place(tmp_path):
    """A repository needs no goldens folder before its first freeze."""
    (tmp_path / "new").mkdir()
    goldens.move_in(tmp_path / "new", tmp_path / "goldens" / "toy")
    assert (tmp_path / "goldens" / "toy").is_dir()
    assert not (tmp_path / "new").exists()


def test_folders_that_cannot_be_exchanged_are_said_to_be_so(tmp_path, monkeypatch):
    """Where renameat2 is not to be had, move_in takes the way of two renames."""
    (tmp_path / "there").mkdir()
    assert goldens._exchange(tmp_path / "there", tmp_path / "nowhere") is False
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    assert goldens._exchange(tmp_path / "there", tmp_path / "there") is False
