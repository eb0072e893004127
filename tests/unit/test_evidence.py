"""karat.evidence: read only as it was written and while it is fresh, summed up without a row lost."""

from dataclasses import asdict

import pytest

from karat import evidence, gate, goldens, sources
from karat.errors import GoldenError

FORMULATIONS = "generators/toy_formulations.py"
RUN = "run: python -m nox -s evidence -- toy"
FIXED_KEYS = {
    "schema",
    "correct_runs",
    "rejected",
    "faults",
    "missed",
    "misnamed",
    "invisible",
    "smallest_margin",
    "suites",
}


def correct(**changes):
    """Return the row of a formulation that passes."""
    row = {"formulation": "other", "contract": "float32", "held_out": False, "comparisons": 6, "rejected": 0}
    return {**row, "accused": 0, "margin": 4.0, "at": "", "worst": {}, **changes}


def planted(**changes):
    """Return the row of a fault that is caught and named right in both cases."""
    row = {"fault": "halved", "contract": "float32", "held_out": False, "caught": True, "at": "small/scaled: mismatch"}
    row |= {"cases": 2, "margin": 8.0, "signal": 100.0, "visible": True, "valued": 2, "named": True, "guesses": {}}
    return {**row, **changes}


def unseen(**changes):
    """Return the row of a fault that is known to be invisible."""
    hidden = {"caught": False, "visible": False, "signal": 3.0, "margin": 0.0, "valued": 0, "named": None}
    return planted(**{"fault": "tiny", **hidden, **changes})


def content(formulations=None, faults=None, suite="toy", **changes):
    """Return what an evidence file holds, its sources apart."""
    formulations = [correct()] if formulations is None else formulations
    faults = [planted()] if faults is None else faults
    summary = evidence.summarise(formulations, faults)
    return {
        "schema": evidence.SCHEMA,
        "suite": suite,
        "sources": {},
        "summary": asdict(summary) | {"smallest_margin": summary.smallest_margin},
        "open": asdict(summary) | {"smallest_margin": summary.smallest_margin},
        "formulations": formulations,
        "faults": faults,
        **changes,
    }


def write(toy, **given):
    """Write fresh evidence of the toy."""
    found = content(**{"sources": evidence.sources(toy.repository, "toy"), **given})
    (toy.goldens / evidence.EVIDENCE).write_text(goldens.manifest_text(found), encoding="utf-8")


def write_table(toy):
    """Write a fresh visibility table of the toy."""
    text = goldens.sealed(f"from the sources {evidence.digest(toy.repository, 'toy')}")
    (toy.goldens / goldens.VISIBILITY).write_text(text, encoding="utf-8")


def append(toy, file, text):
    """Append to a file of the repository."""
    with (toy.root / file).open("a", encoding="utf-8") as opened:
        opened.write(text)


def problem(toy):
    """Return kind and text of what is wrong with the evidence of the toy."""
    with pytest.raises(GoldenError) as raised:
        evidence.read_evidence(toy.repository, "toy")
    return raised.value.kind, str(raised.value)


@pytest.fixture
def tried(toy):
    """Return the toy with formulations, which load a file beside them, and with fresh evidence."""
    (toy.root / "generators" / "toy_words.py").write_text("WORDS = ()\n", encoding="utf-8")
    source = 'from karat.freeze import beside\n\nwords = beside(__file__, "toy_words")\nFORMULATIONS = ()\n'
    (toy.root / FORMULATIONS).write_text(source, encoding="utf-8")
    write(toy)
    write_table(toy)
    return toy


# --- reading ---------------------------------------------------------------------------------------------------------


def test_fresh_evidence_is_read_as_it_was_written(tried):
    """What was gathered is what is shown, and the gate is open."""
    found = evidence.read_evidence(tried.repository, "toy")
    assert found == content(sources=evidence.sources(tried.repository, "toy"))
    assert gate.inspect(tried.repository) == []


def test_evidence_that_is_not_there_is_missing(tried):
    """A missing file is said to be missing, with the command that mends it."""
    (tried.goldens / evidence.EVIDENCE).unlink()
    kind, text = problem(tried)
    assert kind == "missing"
    assert RUN in text


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"rejected":0', '"rejected":1', 1),
        lambda text: text[:-20],
        lambda text: text + "\n",
        lambda text: text.replace('"margin":4.0', '"margin":NaN'),
        lambda _: "",
        lambda _: "[]",
        lambda _: "{}",
        lambda _: "\udcff",
    ],
    ids=["a number", "cut", "longer", "NaN", "empty", "a list", "no keys", "no UTF-8"],
)
def test_evidence_that_somebody_edited_is_damaged(tried, damage):
    """Its own hash does not fit: a result cannot be improved by hand, and no damage is a traceback."""
    path = tried.goldens / evidence.EVIDENCE
    path.write_bytes(damage(path.read_text(encoding="utf-8")).encode(errors="surrogateescape"))
    kind, text = problem(tried)
    assert kind == "damaged"
    assert RUN in text


@pytest.mark.parametrize("changes", [{"schema": 2}, {"suite": "other"}], ids=str)
def test_evidence_of_another_suite_or_schema_is_damaged(tried, changes):
    """Evidence is of the suite beside whose goldens it stands, in the one schema that there is."""
    write(tried, **changes)
    assert problem(tried)[0] == "damaged"


def test_evidence_without_its_sources_is_damaged(tried):
    """Evidence whose hash fits but that does not say from what it was gathered is no evidence, and no traceback."""
    found = content()
    del found["sources"]
    (tried.goldens / evidence.EVIDENCE).write_text(goldens.manifest_text(found), encoding="utf-8")
    assert problem(tried)[0] == "damaged"


def other_row(key):
    """Return a change of a hash in the manifest."""

    def change(toy):
        manifest = toy.manifest()
        row = manifest[key] if key == "contract" else manifest[key][0]
        row["sha256"] = "0" * 64
        toy.rewrite(manifest)

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tolerances", lambda toy: toy.edit("tolerances.toml", "1e-5", "2e-5")),
        ("tolerances", lambda toy: append(toy, "tolerances.toml", '[class.new]\nrtol = 0\natol_rms = 0\nreason = "r"')),
        ("toy_formulations.py", lambda toy: append(toy, FORMULATIONS, "# a comment\n")),
        ("toy_words.py", lambda toy: append(toy, "generators/toy_words.py", "# a comment\n")),
        ("goldens", other_row("contract")),
        ("goldens", other_row("generator")),
    ],
    ids=["a tolerance", "a row", "formulations", "what they load", "contract", "generator"],
)
def test_evidence_from_another_state_is_stale_and_says_of_what(tried, name, change):
    """Evidence holds for the tolerances, goldens, faults and formulations that it was gathered with."""
    change(tried)
    kind, text = problem(tried)
    assert kind == "stale"
    assert f"another state of: {name};" in text
    assert RUN in text


def test_evidence_is_stale_when_its_formulations_are_gone(tried):
    """Formulations that were tried and are there no longer are another state, too."""
    (tried.root / FORMULATIONS).unlink()
    assert problem(tried)[0] == "stale"


def test_evidence_is_stale_when_the_check_changes(tried, monkeypatch):
    """Another check needs evidence of its own."""
    monkeypatch.setattr(evidence, "_DECIDING", evidence._DECIDING[1:])
    kind, text = problem(tried)
    assert (kind, "another state of: check;" in text) == ("stale", True)


@pytest.mark.parametrize(
    "change",
    [
        lambda toy: toy.edit("tolerances.toml", "for sums of 7 terms", "1.5 times the worst"),
        lambda toy: append(toy, "tolerances.toml", "# a comment\n"),
        lambda toy: toy.edit("tolerances.toml", "1e-5", "0.00001"),
        lambda toy: toy.regolden("small", lambda arrays: arrays | {"scaled": arrays["scaled"] * (1 + 2.0**-52)}),
        lambda toy: append(toy, "generators/toy.py", "# the gate finds this\n"),
        lambda toy: append(toy, "generators/toy_other.py", "OTHERS = ()\n"),
    ],
    ids=["a reason", "a comment", "a spelling", "last bits", "the generator, not frozen", "a file that nothing loads"],
)
def test_what_decides_nothing_leaves_evidence_fresh(tried, change):
    """Reasons quote the evidence, and another processor gives other last bits: neither makes it stale."""
    change(tried)
    assert evidence.read_evidence(tried.repository, "toy")["suite"] == "toy"


def test_docstrings_and_comments_are_no_code():
    """The words of the check decide nothing; everything else of it does."""
    source = (
        '"""Words."""\n\nclass A:\n    """Words."""\n\n    def f(self):\n        """Words."""\n        return 1  # so'
    )
    other = source.replace("Words", "Other").replace("  # so", "\n").replace("class", "\n# and\nclass")
    assert source != other
    assert sources._without_words(source) == sources._without_words(other)
    assert sources._without_words(source) != sources._without_words(source.replace("return 1", "return 2"))
    assert sources._without_words("f('a')") != sources._without_words("f('b')")
    assert sources._without_words("if x:\n    y = 'a'") != sources._without_words("if x:\n    y = 'b'")


def test_who_must_have_evidence(toy):
    """A frozen suite that catalogues formulations or faults; neither goldens of outside weights, nor any other."""
    assert not evidence.required(toy.repository, toy.suite)
    for file in ("toy_formulations.py", "toy_faults.py"):
        path = toy.root / "generators" / file
        path.write_text("FORMULATIONS = FAULTS = ()\n", encoding="utf-8")
        assert evidence.required(toy.repository, toy.suite)
        path.unlink()
    (toy.root / FORMULATIONS).write_text("FORMULATIONS = ()\n", encoding="utf-8")
    (toy.goldens / "manifest.json").unlink()
    assert not evidence.required(toy.repository, toy.suite)


# --- the gate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("missing", lambda toy: (toy.goldens / evidence.EVIDENCE).unlink()),
        ("damaged", lambda toy: append(toy, "goldens/toy/evidence.json", "\n")),
        ("stale", lambda toy: write(toy, sources={})),
    ],
    ids=["missing", "damaged", "stale"],
)
def test_the_gate_finds_evidence_that_cannot_be_relied_on(tried, kind, change):
    """Evidence is part of the goldens: missing, damaged or stale, it closes the gate with the mending command."""
    change(tried)
    [finding] = gate.inspect(tried.repository)
    assert (finding.kind, finding.suite, finding.file) == (kind, "toy", "goldens/toy/evidence.json")
    assert RUN in finding.message
    assert tried.karat("gate").code == 3


def test_the_gate_finds_a_table_and_evidence_that_are_both_stale(tried):
    """What depends on the same sources goes stale together."""
    tried.edit("tolerances.toml", "1e-5", "2e-5")
    found = [(finding.kind, finding.file.rpartition("/")[2]) for finding in gate.inspect(tried.repository)]
    assert sorted(found) == [("stale", "evidence.json"), ("stale", "visibility.md")]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"formulations": [correct(rejected=2)]}, "2 correct runs are rejected"),
        ({"faults": [unseen(visible=True)]}, "1 faults are missed that should be visible"),
        ({"formulations": [correct(margin=1.4)]}, "the smallest margin is 1.40, wanted 1.5"),
        ({"faults": [planted(margin=1.2)]}, "the smallest margin is 1.20, wanted 1.5"),
    ],
    ids=["rejected", "missed", "correct margin", "fault margin"],
)
def test_the_gate_finds_evidence_that_shows_too_little(tried, rows, words):
    """A rejected correct run, a missed visible fault, or a margin below 1.5: the tolerances are wrong."""
    write(tried, **rows)
    assert evidence.shortcomings(content(**rows)) == [words]
    [finding] = gate.inspect(tried.repository)
    assert (finding.kind, finding.file) == ("tolerance", "goldens/toy/evidence.json")
    assert finding.message == f"the evidence shows that {words}"


def test_evidence_without_fault_has_no_shortcoming():
    """Faults known to be invisible, and misnamed ones, are shown but close nothing; a margin of just 1.5 is enough."""
    rows = [planted(margin=1.5), unseen(), planted(named=False, guesses={"small": "other"})]
    assert evidence.shortcomings(content([correct(margin=1.5)], rows)) == []


def test_a_margin_that_is_no_number_is_too_small():
    """NaN is never enough."""
    found = content()
    found["open"]["smallest_margin"] = float("nan")
    assert len(evidence.shortcomings(found)) == 1


# --- sums ------------------------------------------------------------------------------------------------------------

ROWS = (
    [correct(comparisons=6), correct(comparisons=4, rejected=1, margin=0.5), correct(comparisons=5, margin=2.0)],
    [
        planted(margin=30.0),
        planted(fault="misnamed", margin=7.0, named=False, valued=3, guesses={"small": "nothing", "padded": "halved"}),
        planted(fault="raises", margin=evidence.ENDLESS, named=None, valued=0),
        planted(fault="missed", caught=False, margin=0.0, named=None, valued=0),
        unseen(),
        unseen(fault="smaller"),
    ],
)


def test_rows_are_summed_up():
    """Every row counts once: caught, missed or invisible; named right, wrong, or not asked for a name."""
    assert asdict(evidence.summarise(*ROWS)) == {
        "correct_runs": 15,
        "rejected": 1,
        "faults": 6,
        "caught": 3,
        "missed": 1,
        "invisible": 2,
        "named": 1,
        "misnamed": 1,
        "named_in_case": 3,
        "misnamed_in_case": 2,
        "correct_margin": 0.5,
        "fault_margin": 7.0,
    }


def test_the_smallest_margin_is_of_correct_runs_and_faults_that_are_caught():
    """The nearest to a limit on either side; a fault that passes has no margin, and without rows nothing is near."""
    assert evidence.summarise(*ROWS).smallest_margin == 0.5
    assert evidence.summarise([correct(margin=9.0)], ROWS[1]).smallest_margin == 7.0
    assert evidence.summarise([], [unseen()]).smallest_margin == evidence.ENDLESS
    assert evidence.summarise(iter(ROWS[0]), iter(ROWS[1])) == evidence.summarise(*ROWS)


def test_a_fault_that_another_suite_sees_is_not_invisible():
    """Invisible is what no suite sees: by name and contract."""
    first = content(faults=[unseen(), unseen(contract="bfloat16")])
    second = content(faults=[planted(fault="tiny")], suite="other")
    wanted = {"suite": "toy", "fault": "tiny", "contract": "bfloat16", "signal": 3.0}
    assert evidence.invisible_rows(iter([first, second])) == [wanted]
    assert evidence.invisible_rows([second, first]) == [wanted]
    assert len(evidence.invisible_rows([first])) == 2
    assert len(evidence.invisible_rows([first, content(faults=[unseen()], suite="other")])) == 3


def test_a_missed_fault_is_not_called_invisible():
    """A fault that passes although the goldens should see it is missed: it is no limit of the goldens."""
    found = content(faults=[planted(caught=False), unseen()])
    assert (found["summary"]["missed"], found["summary"]["invisible"]) == (1, 1)
    assert [row["fault"] for row in evidence.invisible_rows([found])] == ["tiny"]


def test_the_json_has_fixed_keys():
    """The keys of `karat evidence --json` are fixed; `suites` has the sums of each."""
    found = evidence.as_json(iter([content(*ROWS), content(suite="other")]))
    assert found.keys() == FIXED_KEYS
    assert (found["schema"], found["correct_runs"], found["rejected"], found["faults"]) == (1, 21, 1, 7)
    assert (found["missed"], found["misnamed"], found["smallest_margin"]) == (1, 1, 0.5)
    assert {row["fault"] for row in found["invisible"]} >= {"tiny", "smaller"}
    assert [suite["suite"] for suite in found["suites"]] == ["toy", "other"]
    assert found["suites"][0]["correct_runs"] == 15
    assert found["suites"][1]["smallest_margin"] == 4.0


def test_the_json_of_nothing_claims_nothing():
    """Without evidence there is no margin."""
    found = evidence.as_json([])
    assert found.keys() == FIXED_KEYS
    assert (found["correct_runs"], found["smallest_margin"], found["suites"]) == (0, None, [])


def cells(line):
    """Return the cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_a_row_for_each_contract_and_one_for_all():
    """All and held out: what the limits were not chosen by stands beside what they were."""
    held = {"held_out": True, "contract": "bfloat16"}
    formulations = [correct(comparisons=1200), correct(comparisons=30, rejected=2, margin=0.25, **held)]
    faults = [planted(), planted(fault="raises", margin=evidence.ENDLESS, named=None, valued=0)]
    faults += [unseen(), planted(named=False, margin=16.0, guesses={"small": "other"}, **held)]
    faults += [planted(fault="missed", caught=False, named=None, visible=True, **held)]
    lines = evidence.table([content(formulations), content([], faults, suite="other")]).splitlines()
    assert [len(cells(line)) for line in lines] == [11] * 5
    assert lines[0] == (
        "| contract | correct runs | rejected | faults | caught | invisible | missed | named right | margins"
        " | held out: correct, rejected | held out: faults, missed |"
    )
    assert cells(lines[2]) == ["float32", "1,200", "0", "4", "3", "1", "0", "2 of 2", "4, 8", "0, 0", "0, 0"]
    row = cells(lines[3])
    assert [*row[:5], *row[6:]] == ["bfloat16", "30", "2", "2", "1", "1", "0 of 1", "0.25, 16", "30, 2", "2, 1"]
    row = cells(lines[4])
    assert [*row[:5], *row[6:]] == ["all", "1,230", "2", "6", "4", "1", "2 of 3", "0.25, 8", "30, 2", "2, 1"]


def test_a_margin_without_end_is_written_as_such():
    """What no tolerance could let pass has no margin in figures."""
    assert "| 4, ∞ |" in evidence.table([content(faults=[unseen()])])
    assert "| 4, ∞ |" in evidence.table([content(faults=[planted(margin=evidence.ENDLESS)])])


def test_the_text_names_what_is_invisible_and_what_is_wrong():
    """For people: the table, each invisible fault with its signal, each shortcoming with its suite."""
    text = evidence.text(iter([content([correct(rejected=2)], [unseen()])]))
    assert text.startswith("| contract |")
    assert "invisible: toy/tiny under float32: 3 σ, wanted 12" in text
    assert "toy: 2 correct runs are rejected" in text
