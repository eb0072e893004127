"""Refusals, accumulation checkpoints, signs, NaN, fixed inputs, packed sets, family folders: end to end."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from karat import cli, evidence, exchange, freeze, gate, goldens, trials
from karat.candidates import FolderCandidate, open_candidate
from karat.errors import FreezeError, GoldenError
from karat.faults import FaultyCandidate
from karat.session import Session, check
from karat.suites import Case, Checkpoint, Repository, Selection
from tests.conftest import IGNORED

SOURCES = Path(__file__).parents[1] / "kinds"


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Return a folder with the repository of all kinds and its goldens, which nobody may change."""
    root = tmp_path_factory.mktemp("kinds") / "kinds"
    shutil.copytree(SOURCES, root, ignore=IGNORED)
    repository = Repository(root)
    goldens.move_in(freeze.freeze(repository, "kinds"), repository.folder("kinds"))
    text = goldens.manifest_text(trials.gather(repository, "kinds"))
    (repository.folder("kinds") / evidence.EVIDENCE).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def repository(frozen, tmp_path):
    """Return a repository of the test's own."""
    shutil.copytree(frozen, tmp_path / "kinds", ignore=IGNORED)
    return Repository(tmp_path / "kinds")


def verdicts(repository, case, change=None, contract="float32"):
    """Judge the plain candidate, changed or not, on one case; return its verdicts by checkpoint."""
    suite = repository.suite("kinds")
    candidate = FaultyCandidate(repository.plain("kinds"), "kinds", None)
    right = candidate._call
    candidate._call = (lambda **given: change(right(**given))) if change is not None else right
    session = Session(repository, candidate, [suite], findings=())
    return {verdict.checkpoint: verdict for verdict in session.verdicts(suite, suite.case(case), contract)}


def candidate_file(repository, source):
    """Write a `py:` candidate beside the repository and return its spec."""
    path = repository.root / "port.py"
    path.write_text(source, encoding="utf-8")
    return f"py:{path}"


def run(repository, spec, *select, contracts=()):
    """Check a candidate and return the report."""
    candidate = open_candidate(spec)
    try:
        return check(repository, candidate, Selection.parse(select), contracts=contracts)
    finally:
        candidate.close()


def test_the_goldens_stand_in_their_family_in_one_file_and_the_gate_is_open(repository):
    """goldens/family/kinds holds a manifest and kinds.h5, and nothing is wrong with them."""
    folder = repository.root / "goldens" / "family" / "kinds"
    assert repository.folder("kinds") == folder
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["evidence.json", "kinds.h5", "manifest.json", "visibility.md"]
    assert [str(finding) for finding in gate.inspect(repository)] == []
    manifest = goldens.read_manifest(folder / "manifest.json", "kinds")
    assert (manifest["packed"], len(manifest["files"])) == ("kinds.h5", 1)
    assert {row["case"] for row in manifest["goldens"]} == {"four", "empty"}


def test_a_packed_set_is_frozen_to_the_same_bytes(repository, tmp_path):
    """HDF5 without timestamps, in sorted order: a second freeze gives the same file."""
    again = freeze.freeze(repository, "kinds")
    for name in ("kinds.h5", "manifest.json"):
        assert (again / name).read_bytes() == (repository.folder("kinds") / name).read_bytes()


def test_a_bit_of_a_packed_set_that_is_not_what_was_frozen_is_found(repository):
    """The gate and the reader find it by the file's hash."""
    path = repository.folder("kinds") / "kinds.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in {finding.kind for finding in gate.inspect(repository)}
    with pytest.raises(GoldenError, match=r"kinds\.h5 is not what was frozen"):
        goldens.GoldenSet.open(repository, "kinds").golden("four", "unit")


@pytest.mark.parametrize("contract", ["float32", "bfloat16-once"])
@pytest.mark.parametrize("case", ["four", "empty", "unsorted"])
def test_the_plain_candidate_passes_everything(repository, case, contract):
    """Empty arrays, NaN and infinities where the golden has them, a refusal."""
    assert {verdict.status for verdict in verdicts(repository, case, contract=contract).values()} == {"pass"}


def test_the_noise_of_an_accumulation_checkpoint_is_that_of_its_format(repository):
    """Under bfloat16-once float32 is wanted inside, of float32's accuracy: bfloat16's passes neither."""

    def narrow(found):
        return found | {"rebased": found["rebased"].astype(ml_dtypes.bfloat16)}

    def coarse(found):
        return found | {"rebased": found["rebased"].astype(ml_dtypes.bfloat16).astype(np.float32)}

    assert verdicts(repository, "four", narrow, "bfloat16-once")["rebased"].status == "dtype"
    assert "computed inside" in verdicts(repository, "four", narrow, "bfloat16-once")["rebased"].text
    found = verdicts(repository, "four", coarse, "bfloat16-once")["rebased"]
    assert (found.status, found.contract) == ("mismatch", "bfloat16-once")
    assert found.statistics.max_sigma > 1000


def test_vectors_are_judged_up_to_their_sign(repository):
    """Each vector has a sign of its own; one component of another sign is wrong."""
    flips = np.array([1, -1, 1, -1], np.float32)[:, None]
    assert verdicts(repository, "four", lambda found: found | {"unit": found["unit"] * flips})["unit"].status == "pass"
    one = np.array([[1, -1, 1]], np.float32)
    assert (
        verdicts(repository, "four", lambda found: found | {"unit": found["unit"] * one})["unit"].status == "mismatch"
    )
    wrong = verdicts(repository, "four", lambda found: found | {"product": -found["product"]})
    assert wrong["product"].status == "mismatch"


@pytest.mark.parametrize("value", [0.0, np.nan, -np.inf])
def test_what_is_not_finite_must_stand_where_the_golden_has_it(repository, value):
    """Rows 0 and 1 are divided by 0; a finite number there is wrong, and so is NaN elsewhere."""

    def at(row):
        def change(found):
            quotient = found["quotient"].copy()
            quotient[row] = value
            return found | {"quotient": quotient}

        return change

    golden = goldens.GoldenSet.open(repository, "kinds").golden("four", "quotient")
    assert not np.isfinite(golden[:2]).any()
    assert np.isfinite(golden[2:]).all()
    assert verdicts(repository, "four", at(0))["quotient"].status == "nonfinite"
    assert verdicts(repository, "four", at(3))["quotient"].status == ("mismatch" if value == 0 else "nonfinite")


def test_fixed_inputs_keep_their_format(repository):
    """Stamps come in float64 whatever the contract, other floats in its storage; case.json says so."""
    suite = repository.suite("kinds")
    case = suite.case("four")
    contract = Session(repository, open_candidate("null:missing"), [suite], ()).tolerances.contract("bfloat16-once")
    drawn = {name: recipe.draw() for name, recipe in case.inputs.items()}
    given = exchange.in_storage(case, drawn, contract)
    assert (given["stamps"].dtype.name, given["x"].dtype.name) == ("float64", "bfloat16")
    described = exchange.case_description(suite, case, contract)
    assert [row["dtype"] for row in described["inputs"]] == ["float64", "bfloat16"]
    wanted = {row["name"]: row["dtype"] for row in described["checkpoints"]}
    assert (wanted["rebased"], wanted["late"], wanted["product"]) == ("float32", "bool", "bfloat16")
    assert exchange.case_description(suite, suite.case("unsorted"), contract)["checkpoints"] == []
    assert exchange.case_description(suite, suite.case("unsorted"), contract)["refuses"] == "stamps that are not sorted"


@pytest.mark.parametrize("answer", ["{'unit': x}", "x", "None", "{}"])
def test_who_answers_what_must_be_refused_is_wrong_and_what_a_refusal_says_is_told(repository, answer):
    """An answer is a mismatch; an exception is a pass, and its text is in the verdict."""
    answering = candidate_file(repository, f"def kinds(stamps, x):\n    return {answer}\n")
    report = run(repository, answering, "kinds/unsorted")
    assert [verdict.status for verdict in report.verdicts] == ["mismatch"]
    assert "must refuse: stamps that are not sorted" in report.verdicts[0].text
    refusing = candidate_file(repository, "def kinds(stamps, x):\n    raise ValueError('not these')\n")
    report = run(repository, refusing, "kinds/unsorted")
    assert [verdict.status for verdict in report.verdicts] == ["pass"]
    assert "not these" in report.verdicts[0].text


def test_a_crash_is_no_refusal(repository):
    """A candidate that dies has not said no."""
    dying = candidate_file(repository, "import os\ndef kinds(stamps, x):\n    os._exit(3)\n")
    assert [verdict.status for verdict in run(repository, dying, "kinds/unsorted").verdicts] == ["crashed"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nowhere_to_be_found\ndef kinds(stamps, x):\n    return x\n", "No module named"),
        ("def kinds(stamps, x):\n    return x +\n", "SyntaxError"),
        ("def kinds(stamps):\n    raise ValueError\n", "got an unexpected keyword argument 'x': it takes (stamps)"),
        ("def kinds(stamps, x, weights):\n    raise ValueError('no')\n", "missing a required argument: 'weights'"),
        ("def kinds(stamps, x):\n    return undefined_name\n", "NameError"),
    ],
)
def test_broken_code_is_no_refusal(repository, source, said):
    """What cannot be loaded or called with any inputs, or names what is not there, has said nothing of these."""
    (verdict,) = run(repository, candidate_file(repository, source), "kinds/unsorted").verdicts
    assert verdict.status == "raised"
    assert said in verdict.text


def test_who_wants_tensors_is_told_how_to_get_them(repository):
    """NumPy arrays are what a module gets that does not say otherwise."""
    said = "linear(): argument 'input' (position 1) must be Tensor, not numpy.ndarray"
    source = f"def kinds(stamps, x):\n    raise TypeError({said!r})\n"
    verdicts = run(repository, candidate_file(repository, source), "kinds/four").verdicts
    assert {verdict.status for verdict in verdicts} == {"raised"}
    assert 'ARRAYS = "torch"' in verdicts[0].text


@pytest.mark.parametrize(("ending", "status"), [("exit 3", "pass"), ("kill -9 $$", "crashed"), ("exit 0", "mismatch")])
def test_a_program_refuses_by_its_exit_code(repository, ending, status):
    """Another code than 0 is a no; a signal is a crash; 0 is an answer."""
    report = run(repository, f"cmd:sh -c '{ending}' {{outputs}}", "kinds/unsorted")
    assert [verdict.status for verdict in report.verdicts] == [status]


def test_a_dump_refuses_by_a_file(repository, tmp_path):
    """refused.txt says that, and why; without it the dump has answered."""
    folder = tmp_path / "dump" / "kinds" / "unsorted"
    folder.mkdir(parents=True)
    suite = repository.suite("kinds")
    session = Session(repository, FolderCandidate("dir:", tmp_path / "dump"), [suite], findings=())
    assert [v.status for v in session.verdicts(suite, suite.case("unsorted"), "float32")] == ["mismatch"]
    (folder / "refused.txt").write_text("unsorted", encoding="utf-8")
    verdict = session.with_candidate(session.candidate).verdicts(suite, suite.case("unsorted"), "float32")[0]
    assert (verdict.status, verdict.text) == ("pass", "unsorted")


@pytest.mark.parametrize("kind", ["zeros", "constant", "noise", "permuted", "stale", "missing"])
def test_worthless_candidates_fail_everywhere(repository, kind):
    """Or say that they cannot help being right."""
    report = run(repository, f"null:{kind}", contracts=("float32", "bfloat16-once"))
    passed = [verdict.name for verdict in report.verdicts if verdict.status == "pass"]
    assert passed == []


def test_a_plain_candidate_that_answers_what_it_must_refuse_is_not_frozen(repository):
    """A contract that nobody keeps is no contract."""
    path = repository.plain("kinds")
    path.write_text(path.read_text(encoding="utf-8").replace("    require_sorted(stamps)\n", ""), encoding="utf-8")
    with pytest.raises(FreezeError, match="kinds/unsorted: the plain candidate answers, and must refuse"):
        freeze.freeze(repository, "kinds")


def test_infinities_without_leave_and_numbers_beyond_a_format_are_not_frozen(repository):
    """A contract's format must hold every golden."""
    path = repository.validator("kinds")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(", nonfinite=True", ""), encoding="utf-8")
    with pytest.raises(FreezeError, match="four/quotient: the reference gives values that are not finite"):
        freeze.freeze(Repository(repository.root), "kinds")
    path.write_text(text.replace("EPOCH + 7.00390625", "EPOCH + 2.0**1000"), encoding="utf-8")
    with pytest.raises(FreezeError, match=r"four/rebased: 1\.072e\+301 is beyond what float32 holds"):
        freeze.freeze(Repository(repository.root), "kinds")


def test_the_evidence_knows_what_shows_without_a_signature(repository):
    """Who answers, raises or is finite elsewhere is caught under every contract, and would be missed if it were not."""
    content = evidence.read_evidence(repository, "kinds")
    rows = {(row["fault"], row["contract"]): row for row in content["faults"]}
    assert len(rows) == 8
    assert all(row["caught"] and row["visible"] for row in rows.values())
    assert rows["anything_goes", "float32"]["at"] == "unsorted/refused: mismatch"
    assert rows["anything_goes", "float32"]["margin"] == evidence.ENDLESS  # no tolerance lets it pass
    assert rows["anything_goes", "float32"]["named"] is None
    assert rows["stamps_in_float32", "bfloat16-once"]["at"].startswith("four/rebased")
    assert rows["stamps_in_float32", "bfloat16-once"]["named"] is True
    assert content["summary"]["rejected"] == 0


def test_goldens_are_stale_when_their_contract_or_the_way_of_measuring_changed(repository, monkeypatch):
    """The manifest's digest covers contracts, what is visible, and karat's measuring code; limits it does not."""
    path = repository.root / "tolerances.toml"
    text = path.read_text(encoding="utf-8")

    def stale():
        return [finding.message for finding in gate.inspect(repository) if "way of measuring" in finding.message]

    assert stale() == []
    path.write_text(text.replace("max_sigma = 10.0", "max_sigma = 11.0"), encoding="utf-8")
    assert stale() == []
    path.write_text(text.replace("visible = 12.0", "visible = 11.0"), encoding="utf-8")
    assert len(stale()) == 1
    path.write_text(text.replace('products = "float32"', 'products = "bfloat16"'), encoding="utf-8")
    assert len(stale()) == 1
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr("karat.sources._FREEZING", ("formats", "noise", "replays"))
    assert len(stale()) == 1


def test_stray_files_in_a_family_are_found(repository):
    """A folder that belongs to no contract, wherever it stands among the goldens."""
    (repository.root / "goldens" / "family" / "gone").mkdir()
    (repository.root / "goldens" / "other").mkdir()
    files = {finding.file for finding in gate.inspect(repository) if finding.kind == "unlisted"}
    assert files == {"goldens/family/gone", "goldens/other"}


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda case: replace(case, refuses="it all"), "what must be refused has no checkpoints"),
        (lambda case: replace(case, fixed={"y": "float64"}), "fixed 'y'"),
        (lambda case: replace(case, fixed={"x": "bfloat16"}), "no float format"),
        (lambda _: Checkpoint("q", (4,), ("component",), dtype="integer", sign_free="component"), "sign_free"),
        (lambda _: Checkpoint("q", (4,), ("component",), sign_free="row"), "sign_free"),
        (lambda case: Case("c", case.inputs, {}, (Checkpoint("refused", (), dtype="refusal"),)), "`refuses`"),
    ],
)  # fmt: skip
def test_declarations_that_contradict_themselves(repository, declare, message):
    """Are told by name."""
    with pytest.raises(ValueError, match=message):
        declare(repository.suite("kinds").case("four"))


def test_the_report_shows_what_a_refusal_says(repository, monkeypatch, capsys):
    """The text names the last line of it, the JSON has the checkpoint."""
    monkeypatch.chdir(repository.root)
    spec = candidate_file(repository, "def kinds(stamps, x):\n    raise ValueError('not these')\n")
    assert cli.main(["check", spec, "kinds/unsorted"]) == 0
    assert "kinds/unsorted/float32: 1 pass; it refused: ValueError: not these" in capsys.readouterr().out
    assert cli.main(["check", spec, "kinds/unsorted", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["checkpoint"] == "refused"


def test_goldens_depend_on_what_their_generator_loads_and_on_nothing_else_beside_it(repository):
    """An edit of a shared file makes the suites stale that load it, however far above it stands, and no others."""
    shared = repository.root / "generators" / "_step.py"
    shared.with_name("_unrelated.py").write_text("X = 1\n", encoding="utf-8")
    assert gate.inspect(repository) == []
    shared.write_text(shared.read_text(encoding="utf-8") + "# later\n", encoding="utf-8")
    (finding,) = gate.inspect(repository)
    assert (finding.kind, finding.file) == ("stale", "generators/_step.py")


def test_freezing_again_keeps_the_evidence_and_leaves_the_gate_open(repository, monkeypatch):
    """What was gathered from these goldens still holds of the same ones; the evidence knows when it does not."""
    monkeypatch.chdir(repository.root)
    before = (repository.folder("kinds") / evidence.EVIDENCE).read_bytes()
    assert freeze.main(["kinds"]) == 0
    assert (repository.folder("kinds") / evidence.EVIDENCE).read_bytes() == before
    assert gate.inspect(Repository(repository.root)) == []
