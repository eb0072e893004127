"""karat.freeze: a freeze that is killed, wherever, leaves the old set whole or the complete new one."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from karat import freeze, gate, goldens

KILLED = """
import importlib, os, signal, sys
from karat import freeze
module, name, moment, number = sys.argv[1:]
owner = importlib.import_module(module)
if name.startswith("Path."):
    owner, name = owner.Path, name.removeprefix("Path.")
right, calls = getattr(owner, name), 0
def wrapper(*given, **named):
    global calls
    calls += 1
    if (moment, calls) == ("before", int(number)):
        os.kill(os.getpid(), signal.SIGKILL)
    found = right(*given, **named)
    if (moment, calls) == ("after", int(number)):
        os.kill(os.getpid(), signal.SIGKILL)
    return found
setattr(owner, name, wrapper)
freeze.main(["toy"])
"""
OLD = (
    ("karat.freeze", "freeze", "before", 1),
    ("karat.freeze_case", "_reference", "after", 2),
    ("karat.tensors", "write_safetensors", "before", 1),
    ("karat.tensors", "write_safetensors", "before", 2),
    ("karat.tensors", "write_safetensors", "after", 2),
    ("karat.goldens", "manifest_text", "after", 1),
    ("karat.goldens", "write_set", "after", 1),
    ("karat.freeze_case", "_measured", "before", 1),
    ("karat.freeze_case", "_measured", "after", 2),
    ("karat.goldens", "move_in", "before", 1),
    ("os", "fsync", "before", 1),
    ("os", "fsync", "after", 4),
    ("karat.goldens", "_exchange", "before", 1),
)
NEW = (
    ("karat.goldens", "_exchange", "after", 1),
    ("shutil", "rmtree", "before", 1),
    ("os", "unlink", "after", 1),
    ("shutil", "rmtree", "after", 1),
    ("karat.goldens", "move_in", "after", 1),
)


def killed(toy, *point):
    """Freeze in a process that kills itself at `point`."""
    words = [sys.executable, "-c", KILLED, *map(str, point)]
    process = subprocess.run(words, cwd=toy.root, capture_output=True, check=False, timeout=60)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()


@pytest.mark.parametrize("point", OLD, ids=lambda point: "-".join(map(str, point)))
def test_a_freeze_killed_before_the_exchange_leaves_the_old_set(toy, point):
    """Freezing is atomic: the old set is there, whole, and the gate is open on its contract."""
    before = {name: content for name, content in toy.tree().items() if not name.startswith("goldens/.")}
    toy.edit("validators/toy.py", '"gain": 0.5', '"gain": 0.25')
    killed(toy, *point)
    toy.edit("validators/toy.py", '"gain": 0.25', '"gain": 0.5')
    assert {name: content for name, content in toy.tree().items() if not name.startswith("goldens/.")} == before
    assert toy.karat("gate").code == 0
    assert toy.check("py:candidates/plain").counts == {"pass": 6}


@pytest.mark.parametrize("point", NEW, ids=lambda point: "-".join(map(str, point)))
def test_a_freeze_killed_after_the_exchange_leaves_the_complete_new_set(toy, point):
    """Freezing is atomic: the new set is there, whole, and the gate is open on the new contract."""
    toy.edit("validators/toy.py", '"gain": 0.5', '"gain": 0.25')
    killed(toy, *point)
    assert toy.karat("gate").code == 0
    assert toy.check("py:candidates/plain").counts == {"pass": 6}


@pytest.mark.parametrize("point", [OLD[6], NEW[2]], ids=["old", "new"])
def test_the_freeze_after_a_killed_one_succeeds(toy, point):
    """What a killed freeze leaves behind is in nobody's way."""
    killed(toy, *point)
    assert freeze.main(["toy"]) == 0
    assert toy.karat("gate").code == 0


def test_a_freeze_that_is_interrupted_cleans_up(toy, monkeypatch):
    """An exception or Ctrl-C on the way leaves no half-written set and the old one untouched."""
    before = toy.tree()
    monkeypatch.setattr(goldens, "write_set", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        freeze.main(["toy"])
    assert toy.tree() == before
    assert sorted(path.name for path in toy.goldens.parent.iterdir()) == ["toy"]


def test_where_folders_cannot_be_exchanged_the_old_set_survives_beside_its_place(toy, monkeypatch):
    """Killed between the two renames, the old set is whole under another name, and no finding says to remove it."""
    before = {path.name: path.read_bytes() for path in toy.goldens.iterdir()}
    monkeypatch.setattr(goldens, "_exchange", lambda *_: False)
    right, calls = Path.rename, []

    def rename(path, target):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        freeze.main(["toy"])
    [aside] = [path for path in toy.goldens.parent.iterdir() if path.name.endswith(".old.new")]
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    findings = gate.inspect(toy.repository)
    assert [finding.kind for finding in findings] == ["missing"]


def test_the_old_set_is_not_removed_when_the_exchange_fails(toy, monkeypatch):
    """Two renames do what one exchange does, where nobody kills them."""
    monkeypatch.setattr(goldens, "_exchange", lambda *_: False)
    assert freeze.main(["toy"]) == 0
    assert toy.karat("gate").code == 0
    shutil.rmtree(toy.goldens)
    assert toy.karat("gate").code == 3
