"""karat.suites: repositories, their suites and what a selection selects are found as written, or not at all."""

import pytest

from karat import suites
from karat.errors import UsageError
from karat.suites import Case, Checkpoint, Repository, Selection, Suite, find_repository, load_by_path

VALIDATOR = """
from karat import Case, Checkpoint, Suite
SUITE = Suite("NAME", "about NAME", ("float32",), (Case("small", {}, {}, (Checkpoint("out", (2,)),)),))
def suite_of_weights(name, config):
    return Suite(name, "of size %d" % config["size"], SUITE.contracts, SUITE.cases)
"""


def write(root, name, text=VALIDATOR):
    """Write the contract of a suite, `NAME` in the text being its name, into a repository."""
    path = root / "validators" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("NAME", path.stem), encoding="utf-8")
    return path


def test_the_suites_are_the_files_of_validators(tmp_path):
    """One suite for each file in validators/, in family folders too; what begins with _ is shared by them."""
    for name in ("b", "kernels/a", "_shared"):
        write(tmp_path, name)
    repository = Repository(tmp_path)
    assert set(repository.suites) == {"a", "b"}
    assert repository.suite("a").about == "about a"
    assert repository.validator("a") == tmp_path / "validators" / "kernels" / "a.py"
    assert repository.generator("a@big") == tmp_path / "generators" / "a.py"
    assert repository.faults("a@big") == tmp_path / "generators" / "a_faults.py"
    with pytest.raises(UsageError, match=r"no suite 'c'; the suites of .*: b, a"):
        repository.suite("c")


def test_a_repository_without_contracts_has_no_suites(tmp_path):
    """An empty repository says that it has none."""
    with pytest.raises(UsageError, match=r"no suite 'a'; the suites of .*: none"):
        Repository(tmp_path).suite("a")


def test_goldens_of_other_weights_are_a_suite_of_their_own(tmp_path):
    """A folder goldens/<suite>@<weights> with a config.json is a suite, made by the contract of the base."""
    write(tmp_path, "a")
    for folder in ("a@big", "unknown@big", "a"):
        (tmp_path / "goldens" / folder).mkdir(parents=True)
        (tmp_path / "goldens" / folder / "config.json").write_text('{"size": 7}', encoding="utf-8")
    assert {name: found.about for name, found in Repository(tmp_path).suites.items()} == {
        "a": "about a",
        "a@big": "of size 7",
    }


@pytest.mark.parametrize("content", ["{", "[]", '{"length": 7}'], ids=["not JSON", "a list", "another key"])
def test_a_config_that_no_contract_understands_is_told(tmp_path, content):
    """Goldens of other weights whose config.json is damaged are no suite; why not is known by name."""
    write(tmp_path, "a")
    (tmp_path / "goldens" / "a@big").mkdir(parents=True)
    (tmp_path / "goldens" / "a@big" / "config.json").write_text(content, encoding="utf-8")
    repository = Repository(tmp_path)
    assert set(repository.suites) == {"a"}
    assert list(repository.unreadable) == ["a@big"]
    assert "Error: " in repository.unreadable["a@big"]


def test_what_runs_is_the_text_that_is_hashed(tmp_path):
    """A contract that is changed is read anew, also within the second and at the same length."""
    for value in ("3", "4"):
        loaded = load_by_path(write(tmp_path, "a", f"number = {value}\n"))
        assert loaded.number == int(value)


@pytest.mark.parametrize(
    "text", ["", "SUITE = 'a'\n", VALIDATOR.replace("NAME", "b")], ids=["none", "text", "another name"]
)
def test_a_file_of_validators_that_is_no_contract_is_an_error(tmp_path, text):
    """A file without SUITE, or with one of another name, would be a suite that nobody checks."""
    write(tmp_path, "a", text)
    with pytest.raises(UsageError, match=r"a\.py must define SUITE, a karat.Suite named 'a'"):
        _ = Repository(tmp_path).suites


def test_a_module_that_fails_leaves_nothing_behind(tmp_path):
    """A file is imported by path under a private name; a second try starts anew."""
    path = write(tmp_path, "bad", "raise RuntimeError('no')\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            load_by_path(path)
    assert load_by_path(write(tmp_path, "good", "VALUE = 3\n")).VALUE == 3


def test_a_file_that_is_no_python_is_not_imported(tmp_path):
    """A contract is a Python file; anything else is a usage error that names it."""
    with pytest.raises(UsageError, match=r"notes\.txt cannot be imported"):
        load_by_path(tmp_path / "notes.txt")


def test_the_repository_is_the_nearest_one_upwards(tmp_path):
    """The repository is the one that karat stands in: the nearest tolerances.toml upwards."""
    inner = tmp_path / "outer" / "inner"
    (inner / "src").mkdir(parents=True)
    (tmp_path / "outer" / "tolerances.toml").touch()
    assert find_repository(inner / "src").root == tmp_path / "outer"
    (inner / "tolerances.toml").touch()
    assert find_repository(inner / "src").root == inner


def test_away_from_any_repository_it_is_the_one_karat_came_with(tmp_path, monkeypatch):
    """Else the repository that karat is installed from, else the suites shipped with it, else a usage error."""
    package = tmp_path / "elsewhere" / "src" / "karat"
    monkeypatch.setattr(suites, "__file__", str(package / "suites.py"))
    (tmp_path / "here").mkdir()
    with pytest.raises(
        UsageError, match=r"no tolerances\.toml in .*here or above it, and this installation ships no suites"
    ):
        find_repository(tmp_path / "here")
    for root in (package / "shipped", tmp_path / "elsewhere"):
        root.mkdir(parents=True, exist_ok=True)
        (root / "tolerances.toml").touch()
        assert find_repository(tmp_path / "here").root == root


POINTS = tuple(Checkpoint(name, (2,)) for name in ("h.0.out", "h.1.out", "logits"))
CASES = tuple(Case(name, {}, {}, POINTS) for name in ("small", "tiny-1"))
TREE = {name: Suite(name, "about", ("float32",), CASES) for name in ("gpt2", "gelu")}
SELECTED = {
    "everything": ([], 12, "gpt2/small/h.0.out"),
    "a suite": (["gelu"], 6, "gelu/small/h.0.out"),
    "a case": (["gpt2/tiny-1"], 3, "gpt2/tiny-1/h.0.out"),
    "a checkpoint": (["gpt2/small/logits"], 1, "gpt2/small/logits"),
    "wildcards": (["g*/tiny*/h.?.out"], 4, "gpt2/tiny-1/h.0.out"),
    "a set": (["gpt2/*/h.[1-9].*"], 2, "gpt2/small/h.1.out"),
    "two that overlap": (["gpt2/small", "*/small/logits"], 4, "gpt2/small/h.0.out"),
    "another order": (["gelu/*/logits", "gpt2/*/logits"], 4, "gpt2/small/logits"),
    "other letters": (["GPT2"], 0, None),
    "a part of a name": (["gpt"], 0, None),
}


@pytest.mark.parametrize(("texts", "count", "first"), SELECTED.values(), ids=SELECTED)
def test_a_selection_is_patterns_with_shell_wildcards(texts, count, first):
    """SELECT is suite[/case[/checkpoint]] with shell wildcards, several may be given; the order is the contracts'."""
    found = ["/".join(part.name for part in parts) for parts in Selection.parse(texts).walk(TREE.values())]
    assert len(found) == len(set(found)) == count
    assert (found[0] if found else None) == first


def test_a_slash_in_a_checkpoint_s_name_is_its_own():
    """A selection has three parts; what stands after the second slash is the checkpoint."""
    assert Selection.parse(["a/b/c/d", "a"]).patterns == (("a", "b", "c/d"), ("a", "*", "*"))


@pytest.mark.parametrize("text", ["", "/", "gpt2/", "gpt2//logits", "/small", "gpt2/small/"])
def test_an_empty_pattern_is_an_error(text):
    """A part left empty would select nothing, or everything: it is neither."""
    with pytest.raises(UsageError, match=r"is not suite\[/case\[/checkpoint\]\]"):
        Selection.parse([text])


def test_has_says_what_may_hold_something_selected():
    """A suite is selected if anything in it may be."""
    selection = Selection.parse(["gpt2/small/logits"])
    assert selection.has("gpt2")
    assert selection.has("gpt2", "small")
    assert selection.has("gpt2", "small", "logits")
    assert not any([selection.has("gelu"), selection.has("gpt2", "tiny-1"), selection.has("gpt2", "small", "h.0.out")])
    assert Selection().has("anything", "at all")


def test_a_pattern_that_selects_nothing_is_an_error_by_name():
    """A misspelled selection is a usage error, not an empty run."""
    Selection.parse(["gpt2", "gelu/tiny-1/logits"]).require_matches(TREE)
    Selection().require_matches({})
    meant = r"gelu/tiny selects nothing; did you mean gelu/tiny-1\? cases of gelu: small, tiny-1"
    with pytest.raises(UsageError, match=meant):
        Selection.parse(["gpt2", "gelu/tiny"]).require_matches(TREE)
    with pytest.raises(UsageError, match="suites: none"):
        Selection.parse(["gpt2"]).require_matches({})


def test_a_contract_that_cannot_be_loaded_is_named(tmp_path):
    """A contract with a mistake in it is a usage error with its file, not a traceback."""
    (tmp_path / "validators").mkdir()
    (tmp_path / "validators" / "bad.py").write_text("SUITE = (\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"bad\.py cannot be loaded: SyntaxError"):
        _ = Repository(tmp_path).suites


def test_two_contracts_of_one_name_are_refused(tmp_path):
    """A suite has one contract, in whatever family folder it stands."""
    for family in ("blocks", "models"):
        (tmp_path / "validators" / family).mkdir(parents=True)
        text = 'from karat import Case, Checkpoint, Suite\nSUITE = Suite("one", "", ("float32",), (Case("c", {}, {}, '
        (tmp_path / "validators" / family / "one.py").write_text(
            text + '(Checkpoint("o", ()),)),))\n', encoding="utf-8"
        )
    with pytest.raises(UsageError, match="there is another contract named 'one'"):
        _ = Repository(tmp_path).suites
