"""karat.gate and karat.session: no single flipped bit of a golden file passes unseen."""

import shutil

import pytest

from karat import gate, goldens

POSITIONS = 40


def flipped(path, count):
    """Yield (position, bytes) with one bit flipped at `count` positions, first and last among them."""
    content = path.read_bytes()
    for number in range(count):
        position = number * (len(content) - 1) // (count - 1)
        changed = bytearray(content)
        changed[position] ^= 1 << number % 8
        yield position, bytes(changed)


def test_every_flipped_bit_of_a_tensor_file_is_damage_of_its_case(toy):
    """Every file is hashed before its first use: a case with a flipped bit fails, the other one is checked."""
    path, spec = toy.goldens / "small.safetensors", f"dir:{toy.dump()}"
    for position, content in flipped(path, POSITIONS):
        path.write_bytes(content)
        found = [(finding.kind, finding.case, finding.file) for finding in gate.inspect(toy.repository)]
        assert found == [("damaged", "small", "goldens/toy/small.safetensors")], position
        report = toy.check(spec)
        assert report.exit_code == 3
        assert {v.status for v in report.verdicts if v.case == "small"} == {"golden-damaged"}, position
        assert {v.status for v in report.verdicts if v.case == "padded"} == {"pass"}, position


def test_every_flipped_bit_of_the_manifest_is_damage_of_the_suite(toy):
    """The manifest hashes itself: whatever bit is flipped, nothing of the suite is judged by it."""
    path, spec = toy.goldens / "manifest.json", f"dir:{toy.dump()}"
    for position, content in flipped(path, POSITIONS):
        path.write_bytes(content)
        found = [(finding.kind, finding.case, finding.file) for finding in gate.inspect(toy.repository)]
        assert found == [("damaged", None, "goldens/toy/manifest.json")], position
        report = toy.check(spec)
        assert report.exit_code == 3
        assert {verdict.status for verdict in report.verdicts} == {"golden-damaged"}, position


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"sha256":1}', b"\xff", b"[" * 100_000], ids=repr)
def test_whatever_stands_in_place_of_the_manifest_is_damage(toy, content):
    """A manifest that is not one is damaged, never a traceback."""
    (toy.goldens / "manifest.json").write_bytes(content)
    [finding] = gate.inspect(toy.repository)
    assert finding.kind == "damaged"
    assert "run: python -m nox -s goldens -- toy" in finding.message


@pytest.mark.parametrize("key", ["cases", "contract", "files", "generator", "goldens", "inputs"])
@pytest.mark.parametrize("value", [None, 1, [1], [{}], {}], ids=repr)
def test_a_manifest_of_wrong_types_closes_the_gate(toy, key, value):
    """A manifest whose own hash fits but whose rows are none is damaged or incomplete, never a traceback."""
    toy.rewrite({**toy.manifest(), key: value})
    assert gate.inspect(toy.repository)
    assert toy.karat("check", "null:zeros").code == 3


def test_goldens_that_change_between_gate_and_use_are_not_used(toy, monkeypatch):
    """Every file is hashed before its first use, whatever the gate found."""
    monkeypatch.setattr(gate, "inspect", lambda *_: [])
    (toy.goldens / "small.safetensors").write_bytes(b"x")
    shutil.copy(toy.goldens / "manifest.json", toy.root)
    report = toy.check(f"dir:{toy.dump()}")
    assert {(v.case, v.status) for v in report.verdicts} == {("small", "golden-damaged"), ("padded", "pass")}


def test_inputs_that_a_recipe_no_longer_gives_are_stale(toy, monkeypatch):
    """Inputs are checked against their frozen hashes when they are drawn."""
    monkeypatch.setattr(goldens, "sha256_of_array", lambda _: "0")
    monkeypatch.setattr(gate, "inspect", lambda *_: [])
    report = toy.check(f"dir:{toy.dump()}")
    assert {verdict.status for verdict in report.verdicts} == {"golden-stale"}
    assert report.exit_code == 3
    assert "input 'x' is not what the goldens were computed from" in report.verdicts[0].text
