"""karat.gate: every way in which goldens can be wrong is found, named, and closes both the gate and the check."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from karat import gate, goldens

FREEZE = "run: python -m nox -s goldens -- toy"
MANIFEST = "goldens/toy/manifest.json"
SMALL = "goldens/toy/small.safetensors"


@dataclass(frozen=True)
class Damage:
    """What a test does to the repository, the finding it wants, and the case and checkpoint affected (None: all)."""

    name: str
    do: Callable
    kind: str
    file: str
    mend: str = FREEZE
    case: str | None = None
    checkpoint: str | None = None


def drop_case(toy):
    """Take a case out of the manifest."""
    content = toy.manifest()
    content["cases"] = [row for row in content["cases"] if row["case"] != "small"]
    toy.rewrite(content)


def other_recipe(toy):
    """Change a recorded recipe."""
    content = toy.manifest()
    content["inputs"][0]["recipe"]["key"] = "another"
    toy.rewrite(content)


def other_hash_of_tensor(toy):
    """Change a recorded hash."""
    content = toy.manifest()
    content["goldens"][0]["sha256"] = "0" * 64
    toy.rewrite(content)


def reshape_scaled(toy):
    """Give a golden another shape."""
    toy.regolden("small", lambda arrays: arrays | {"scaled": arrays["scaled"].reshape(4, 3, 7)})


def tensor_in_manifest_only(toy):
    """Take a tensor out of its file and leave it in the manifest."""
    row = next(row for row in toy.manifest()["goldens"] if row["case"] == "small" and row["checkpoint"] == "scores")
    toy.regolden("small", lambda arrays: {name: arrays[name] for name in arrays if name != "scores"})
    toy.rewrite({**toy.manifest(), "goldens": [*toy.manifest()["goldens"], row]})


def drop_key(toy):
    """Take a key out of the manifest."""
    toy.rewrite({key: value for key, value in toy.manifest().items() if key != "generator"})


def append(file, text):
    """Return a damage that appends to a file or makes it."""

    def do(toy):
        path = toy.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + text, encoding="utf-8")

    return do


def cut(size):
    """Return a damage that cuts a golden file."""
    return lambda toy: (toy.root / SMALL).write_bytes((toy.root / SMALL).read_bytes()[:size])


ROW = (
    'float32 = { rtol = 0.0, atol_rms = 1e-5, reason = "80 units in the last place of float32, for sums of 7 terms" }\n'
)
DAMAGES = (
    Damage("missing file", lambda toy: (toy.root / SMALL).unlink(), "missing", SMALL, case="small"),
    Damage("truncated file", cut(-1), "damaged", SMALL, case="small"),
    Damage("empty file", cut(0), "damaged", SMALL, case="small"),
    Damage("missing case", drop_case, "missing", MANIFEST, case="small"),
    Damage("other recipe", other_recipe, "stale", MANIFEST, case="small"),
    Damage("other tensor hash", other_hash_of_tensor, "damaged", SMALL, case="small", checkpoint="scaled"),
    Damage("other shape", reshape_scaled, "damaged", SMALL, case="small", checkpoint="scaled"),
    Damage("tensor not in file", tensor_in_manifest_only, "damaged", SMALL, case="small", checkpoint="scores"),
    Damage(
        "unlisted file",
        append("goldens/toy/more.safetensors", "x"),
        "unlisted",
        "goldens/toy/more.safetensors",
        "remove it, or " + FREEZE,
    ),
    Damage(
        "unlisted file in a folder",
        append("goldens/toy/old/small.safetensors", "x"),
        "unlisted",
        "goldens/toy/old/small.safetensors",
        "remove it, or " + FREEZE,
    ),
    Damage("contract edited", append("validators/toy.py", "# a comment\n"), "stale", "validators/toy.py"),
    Damage(
        "parameters changed",
        lambda toy: toy.edit("validators/toy.py", '"gain": 0.5', '"gain": 0.25'),
        "stale",
        MANIFEST,
    ),
    Damage(
        "input renamed",
        lambda toy: toy.edit("validators/toy.py", '"weights/bias"', '"weights/shift"'),
        "stale",
        MANIFEST,
    ),
    Damage("generator edited", append("generators/toy.py", "# a comment\n"), "stale", "generators/toy.py"),
    Damage("generator gone", lambda toy: (toy.root / "generators/toy.py").unlink(), "stale", "generators/toy.py"),
    Damage(
        "shared generator file new",
        lambda toy: (
            append("generators/_shared.py", "")(toy),
            append("generators/toy.py", '# beside(__file__, "_shared")\n')(toy),
        ),
        "stale",
        "generators/_shared.py",
    ),
    Damage("witness edited", append("candidates/plain/toy.py", "# a comment\n"), "stale", "candidates/plain/toy.py"),
    Damage("manifest lacks a key", drop_key, "damaged", MANIFEST),
    Damage("goldens gone", lambda toy: shutil.rmtree(toy.goldens), "missing", MANIFEST),
    Damage(
        "tolerance missing",
        lambda toy: toy.edit("tolerances.toml", ROW, ""),
        "tolerance",
        "tolerances.toml",
        "add it with its reason",
    ),
    Damage(
        "folder without contract",
        append("goldens/other/manifest.json", "{}"),
        "unlisted",
        "goldens/other",
        "git rm -r goldens/other",
    ),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_a_finding_with_kind_file_and_the_command_that_mends_it(toy, damage):
    """A broken link is stale, a wrong hash damaged, an absent entry missing, a file nobody lists unlisted."""
    assert gate.inspect(toy.repository) == []
    damage.do(toy)
    findings = [
        found for found in gate.inspect(toy.repository) if (found.kind, found.file) == (damage.kind, damage.file)
    ]
    assert findings
    for finding in findings:
        assert damage.mend in finding.message
        assert (finding.case, finding.checkpoint) == (damage.case, damage.checkpoint) or damage.case is None


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_closes_the_gate(toy, damage):
    """Each finding fails the gate with exit code 3 and is in its JSON."""
    damage.do(toy)
    result = toy.karat("gate", "--json", "-")
    assert result.code == 3
    content = json.loads(result.out)
    assert (content["schema"], content["ok"]) == (1, False)
    assert (damage.kind, damage.file) in {(finding["kind"], finding["file"]) for finding in content["findings"]}
    assert "GATE CLOSED" in result.err
    assert damage.mend in result.err


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_fails_the_check_of_what_it_affects_and_of_nothing_else(toy, damage):
    """There is no fallback and no skip: what is affected has a golden-* status, the rest of the suite is checked."""
    damage.do(toy)
    result = toy.karat("check", "py:candidates/plain", "--json", "-")
    assert result.code == 3
    wanted = {"missing": "golden-missing", "damaged": "golden-damaged"}.get(damage.kind, "golden-stale")
    statuses = {(row["case"], row["checkpoint"]): row["status"] for row in json.loads(result.out)["results"]}
    assert len(statuses) == 6
    for (case, checkpoint), status in statuses.items():
        if damage.case not in (None, case):
            assert status == "pass"
        elif damage.checkpoint in (None, checkpoint):
            assert status == wanted
        else:  # another checkpoint of the damaged case, which may need the damaged one to be judged
            assert status.startswith(("pass", "golden-"))


def test_a_declared_checkpoint_that_was_consistently_removed_is_missing(toy):
    """Suites x cases x checkpoints that the contracts declare: a row and its tensor cannot vanish together unseen."""
    toy.regolden("small", lambda arrays: {name: arrays[name] for name in arrays if name != "scores"})
    [finding] = gate.inspect(toy.repository)
    assert (finding.kind, finding.case, finding.checkpoint, finding.file) == ("missing", "small", "scores", MANIFEST)
    assert FREEZE in finding.message
    statuses = {f"{v.case}/{v.checkpoint}": v.status for v in toy.check("py:candidates/plain").verdicts}
    assert statuses.pop("small/scores") == "golden-missing"
    assert statuses.pop("small/choice") in ("pass", "golden-missing")  # judged by the scores that are gone
    assert set(statuses.values()) == {"pass"}


def test_a_tolerance_that_nothing_uses_closes_the_gate_and_the_check(toy):
    """tolerances.toml holds what is used and nothing else."""
    row = '\n[class.loose]\nfloat32 = { rtol = 0.5, atol_rms = 0.5, reason = "none" }\n'
    append("tolerances.toml", row)(toy)
    [finding] = gate.inspect(toy.repository)
    assert (finding.kind, finding.file) == ("tolerance", "tolerances.toml")
    assert "[class.loose.float32]" in finding.message
    assert "remove it" in finding.message
    assert toy.karat("gate").code == 3
    result = toy.karat("check", "py:candidates/plain")
    assert result.code == 3
    assert " pass" not in result.out


def test_a_contract_that_tolerances_lack_is_a_finding_and_exit_code_3(toy):
    """The worst exit code wins: goldens that cannot be judged come before usage."""
    text = (toy.root / "tolerances.toml").read_text(encoding="utf-8")
    head, _, rest = text.partition("[contract.bfloat16]")
    text = head + rest[rest.index("[class.default]") :]
    text = "\n".join(line for line in text.splitlines() if not line.startswith("bfloat16"))
    (toy.root / "tolerances.toml").write_text(text, encoding="utf-8")
    [finding] = gate.inspect(toy.repository)
    assert finding.kind == "tolerance"
    assert "[contract.bfloat16]" in finding.message
    assert toy.karat("check", "py:candidates/plain", "--contract", "bfloat16").code == 3


def test_a_tolerances_file_that_cannot_be_read_is_one_finding(toy):
    """A tolerance is never defaulted: without tolerances.toml's content nothing is judged."""
    (toy.root / "tolerances.toml").write_text("schema = 2\n", encoding="utf-8")
    [finding] = gate.inspect(toy.repository)
    assert (finding.kind, finding.suite) == ("tolerance", None)
    assert "schema 2" in finding.message
    assert toy.karat("check", "null:zeros").code == 3


@pytest.mark.parametrize("config", ["{", "[]", "\xff"])
def test_a_damaged_config_of_weights_is_a_finding_of_its_suite(toy, config):
    """Damage to a file that goldens depend on closes the gate with a finding, never with a traceback."""
    append("validators/toy.py", "def suite_of_weights(name, config):\n    return config['model'] and SUITE\n")(toy)
    append("goldens/toy@mine/config.json", config)(toy)
    result = toy.karat("gate")
    assert result.code == 3
    assert "toy@mine/config.json in goldens/" in result.out


def test_goldens_of_weights_for_a_contract_that_takes_none_are_unlisted(toy):
    """Goldens that belong to no contract are a finding, never a traceback."""
    append("goldens/toy@mine/config.json", "{}")(toy)
    result = toy.karat("gate")
    assert result.code == 3
    assert "damaged: toy@mine: its config.json" in result.out


def test_a_half_written_freeze_is_no_finding(toy):
    """A killed freeze leaves the gate open on the old set."""
    shutil.copytree(toy.goldens, toy.root / "goldens" / ".toy.abc.new")
    assert toy.karat("gate").code == 0


def visibility_findings(toy, text=None):
    """Return the findings about the visibility table of a suite that must have one, with a text or without."""
    (toy.root / "generators" / "toy_formulations.py").write_text("FORMULATIONS = ()\n", encoding="utf-8")
    if text is not None:
        (toy.goldens / "visibility.md").write_text(text, encoding="utf-8")
    found = gate.inspect(toy.repository)
    assert {finding.file for finding in found} <= {"goldens/toy/visibility.md", "goldens/toy/evidence.json"}
    return [finding for finding in found if finding.file == "goldens/toy/visibility.md"]


def test_a_visibility_table_of_other_goldens_is_stale(toy):
    """Hashes form a chain: what was computed from the goldens says from what it was computed."""
    [finding] = visibility_findings(toy, goldens.sealed("of other sources: 0000"))
    assert finding.kind == "stale"
    assert "run: python -m nox -s evidence -- toy" in finding.message


def test_an_edited_visibility_table_is_damaged(toy):
    """Its last line hashes all above it: a row that somebody improves by hand is found."""
    text = goldens.sealed("one row\nanother").replace("another", "a better one")
    assert [finding.kind for finding in visibility_findings(toy, text)] == ["damaged"]


def test_a_missing_visibility_table_is_missing(toy):
    """Where evidence is wanted, the table of what the goldens see is part of it."""
    assert [finding.kind for finding in visibility_findings(toy)] == ["missing"]


def test_a_unit_that_was_widened_is_damaged(toy):
    """The RMS in the manifest is the unit of every tolerance: it must be that of the tensor."""
    content = toy.manifest()
    for row in content["goldens"]:
        row["rms"] *= 1e12
    toy.rewrite(content)
    findings = gate.inspect(toy.repository)
    assert {finding.kind for finding in findings} == {"damaged"}
    assert "the manifest's row is not what its tensor gives" in findings[0].message
    assert "pass" not in toy.check("null:permuted").counts
