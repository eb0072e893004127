"""karat.suites: declarations that contradict themselves fail by name; repositories and selections are found as written."""

import numpy as np
import pytest

from karat import suites
from karat.errors import UsageError
from karat.inputs import Literal
from karat.suites import Case, Checkpoint, Repository, Selection, Suite, find_repository, load_by_path

OUT = Checkpoint("out", (2, 3))
VALIDATOR = """
from karat import Case, Checkpoint, Suite
SUITE = Suite("NAME", "about NAME", ("float32",), (Case("small", {}, {}, (Checkpoint("out", (2,)),)),))
def suite_of_weights(name, config):
    return Suite(name, "of size %d" % config["size"], SUITE.contracts, SUITE.cases)
"""


def case(name="small", checkpoints=(OUT,), **fields):
    return Case(name, {}, {}, tuple(checkpoints), **fields)


def suite(name="demo", cases=None, contracts=("float32",)):
    return Suite(name, "about", contracts, (case(),) if cases is None else tuple(cases))


def write(root, name, text=VALIDATOR):
    """Write the contract of a suite, `NAME` in the text being its name, into a repository."""
    path = root / "validators" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("NAME", path.stem), encoding="utf-8")
    return path


CONTRADICTIONS = {
    "checkpoint name": (lambda: Checkpoint("h/0", (2,)), "checkpoint 'h/0': a name is of a-z, 0-9"),
    "checkpoint without a name": (lambda: Checkpoint("", (2,)), "checkpoint '': a name"),
    "checkpoint in capitals": (lambda: Checkpoint("Out", (2,)), "checkpoint 'Out': a name"),
    "axes": (lambda: Checkpoint("out", (2, 3), ("batch",)), r"out: 1 axes for the shape \(2, 3\)"),
    "dtype": (lambda: Checkpoint("out", (2,), dtype="float32"), "out: dtype 'float32' is not storage, integer or bool"),
    "keep": (lambda: Checkpoint("out", (2,), ("row",), keep={"key": (0, 1)}), r"out: keep speaks of axes.*\['key'\]"),
    "keep without axes": (lambda: Checkpoint("out", (2,), keep={"row": (0, 1)}), r"out: keep speaks of axes.*\['row'\]"),
    "judged_by": (lambda: Checkpoint("out", (2,), judged_by="logits"), "out: only an integer checkpoint can be judged"),
    "case name": (lambda: case("a b"), "case 'a b': a name is of a-z, 0-9"),
    "case without checkpoints": (lambda: case(checkpoints=()), "case small: no checkpoint"),
    "checkpoint twice": (lambda: case(checkpoints=(OUT, OUT)), r"case small: checkpoints named twice: \['out'\]"),
    "unknown judge": (
        lambda: case(checkpoints=(Checkpoint("ids", (2,), dtype="integer", judged_by="logits"),)),
        "small/ids: depends on logits, which is no checkpoint",
    ),
    "unknown leader": (
        lambda: case(checkpoints=(OUT, Checkpoint("step", (2,), follows="tokens"))),
        "small/step: depends on tokens, which is no checkpoint",
    ),
    "suite name": (lambda: suite("my-suite"), "suite 'my-suite': a name is an identifier"),
    "suite of no weights": (lambda: suite("gpt2@"), "suite 'gpt2@': a name is an identifier"),
    "case twice": (lambda: suite(cases=(case(), case())), r"suite demo: cases named twice: \['small'\]"),
    "suite without cases": (lambda: suite(cases=()), "suite demo: needs at least one case and one contract"),
    "suite without contracts": (lambda: suite(contracts=()), "suite demo: needs at least one case and one contract"),
}


@pytest.mark.parametrize(("declare", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_declaration_that_contradicts_itself_fails_by_name(declare, message):
    """A contract is checked when it is written down: what contradicts itself is a ValueError with its name."""
    with pytest.raises(ValueError, match=message):
        declare()


@pytest.mark.parametrize("name", ["h.0.attention_scores", "0", "a-b_c.d", "tokens.t0.5"])
def test_names_that_the_contracts_use_are_names(name):
    """A name is of a-z, 0-9, '.', '_' and '-'."""
    assert Checkpoint(name, ()).name == case(name).name == name


@pytest.mark.parametrize(("name", "function"), [("gpt2", "gpt2"), ("gpt2@openai--gpt2.Large_1", "gpt2")])
def test_a_suite_of_other_weights_has_the_same_function(name, function):
    """`gpt2@...` stands for goldens of other weights; a candidate provides one function for all."""
    assert suite(name).function == function


@pytest.mark.parametrize(
    ("keep", "index", "shape"),
    [
        ({}, (slice(None), slice(None), slice(None)), (2, 5, 7)),
        ({"key": (1, 4)}, (slice(None), slice(None), slice(1, 4)), (2, 5, 3)),
        ({"batch": (0, 1), "key": (-3, 7)}, (slice(0, 1), slice(None), slice(-3, 7)), (1, 5, 3)),
    ],
    ids=["all", "one axis", "two axes"],
)
def test_keep_cuts_the_frozen_part_out(keep, index, shape):
    """The golden is the part of the checkpoint that `keep` names, axis by axis; the rest is not judged."""
    checkpoint = Checkpoint("out", (2, 5, 7), ("batch", "query", "key"), keep=keep)
    assert (checkpoint.kept_index, checkpoint.kept_shape) == (index, shape)
    assert np.zeros((2, 5, 7))[checkpoint.kept_index].shape == shape


@pytest.mark.parametrize("shape", [(), (4,), (2, 0)], ids=str)
def test_a_checkpoint_without_axes_is_kept_whole(shape):
    """Without labels all is frozen, of whatever shape."""
    checkpoint = Checkpoint("out", shape)
    assert checkpoint.kept_shape == shape == np.zeros(shape)[checkpoint.kept_index].shape


MASK = np.array([[0, 0, 1], [1, 1, 1]])  # the first sentence is padded on the left
JUDGED = {
    "another axis": (("batch", "width"), (2, 4), {}, None),
    "as long as the mask": (("batch", "query"), (2, 3), {}, [[0, 0, 1], [1, 1, 1]]),
    "longer than the mask": (("batch", "query"), (2, 5), {}, [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
    "the kept part": (("batch", "query"), (2, 5), {"query": (1, 4)}, [[0, 1, 1], [1, 1, 1]]),
    "the kept part of the batch": (("batch", "query"), (2, 3), {"batch": (1, 2)}, [[1, 1, 1]]),
    "not the second axis": (("batch", "head", "query"), (2, 1, 3), {}, [[[0, 0, 1]], [[1, 1, 1]]]),
    "followed by another": (("batch", "query", "width"), (2, 3, 1), {}, [[[0], [0], [1]], [[1], [1], [1]]]),
    "two axes": (
        ("batch", "query", "key"),
        (2, 3, 4),
        {"query": (1, 3)},
        [[[0, 0, 0, 0], [0, 0, 1, 1]], [[1, 1, 1, 1], [1, 1, 1, 1]]],
    ),
}


@pytest.mark.parametrize(("axes", "shape", "keep", "expected"), JUDGED.values(), ids=JUDGED)
def test_what_stands_in_padding_is_not_judged(axes, shape, keep, expected):
    """Where the padding input is 0 a checkpoint is not judged, along every axis that is padded; later positions are."""
    checkpoint = Checkpoint("out", shape, axes, keep=keep)
    padded = case(checkpoints=[checkpoint], padding={"query": "mask", "key": "mask"})
    judged = padded.judged_elements(checkpoint, {"mask": MASK})
    if expected is None:
        assert judged is None
    else:
        assert judged.dtype == bool
        assert np.broadcast_to(judged, checkpoint.kept_shape).tolist() == np.array(expected, bool).tolist()


def test_a_case_without_padding_is_judged_everywhere():
    """No padding, no exceptions."""
    assert case().judged_elements(Checkpoint("out", (2, 3), ("batch", "query")), {"mask": MASK}) is None


def test_what_is_not_there_is_named():
    """A checkpoint, a case or a suite that does not exist is an error with its name."""
    assert case().checkpoint("out") is OUT and suite().case("small").name == "small"
    with pytest.raises(KeyError, match="small has no checkpoint 'in'"):
        case().checkpoint("in")
    with pytest.raises(UsageError, match="no case 'large' in demo; its cases: small, tiny"):
        suite(cases=(case(), case("tiny"))).case("large")


def test_the_suites_are_the_files_of_validators(tmp_path):
    """One suite for each file in validators/, in family folders too; what begins with _ is shared by them."""
    for name in ("b", "kernels/a", "_shared"):
        write(tmp_path, name)
    repository = Repository(tmp_path)
    assert set(repository.suites) == {"a", "b"} and repository.suite("a").about == "about a"
    assert repository.validator("a") == tmp_path / "validators" / "kernels" / "a.py"
    assert repository.generator("a@big") == tmp_path / "generators" / "a.py"
    with pytest.raises(UsageError, match="no suite 'c'; the suites of .*: b, a"):
        repository.suite("c")


def test_goldens_of_other_weights_are_a_suite_of_their_own(tmp_path):
    """A folder goldens/<suite>@<weights> with a config.json is a suite, made by the contract of the base."""
    write(tmp_path, "a")
    for folder in ("a@big", "unknown@big", "a"):
        (tmp_path / "goldens" / folder).mkdir(parents=True)
        (tmp_path / "goldens" / folder / "config.json").write_text('{"size": 7}', encoding="utf-8")
    assert {name: found.about for name, found in Repository(tmp_path).suites.items()} == {"a": "about a", "a@big": "of size 7"}


@pytest.mark.parametrize("text", ["", "SUITE = 'a'\n", VALIDATOR.replace("NAME", "b")], ids=["none", "text", "another name"])
def test_a_file_of_validators_that_is_no_contract_is_an_error(tmp_path, text):
    """A file without SUITE, or with one of another name, would be a suite that nobody checks."""
    write(tmp_path, "a", text)
    with pytest.raises(UsageError, match="a.py must define SUITE, a karat.Suite named 'a'"):
        _ = Repository(tmp_path).suites


def test_a_module_that_fails_leaves_nothing_behind(tmp_path):
    """A file is imported by path under a private name; a second try starts anew."""
    path = write(tmp_path, "bad", "raise RuntimeError('no')\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            load_by_path(path)
    assert load_by_path(write(tmp_path, "good", "VALUE = 3\n")).VALUE == 3


def test_the_repository_is_the_nearest_one_upwards(tmp_path):
    """karat works on the repository it stands in: the nearest tolerances.toml upwards."""
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
    with pytest.raises(UsageError, match=r"no tolerances\.toml in .*here or above it, and this installation ships no suites"):
        find_repository(tmp_path / "here")
    for root in (package / "shipped", tmp_path / "elsewhere"):
        root.mkdir(parents=True, exist_ok=True)
        (root / "tolerances.toml").touch()
        assert find_repository(tmp_path / "here").root == root


TREE = {
    name: suite(name, [case(c, [Checkpoint(p, (2,)) for p in ("h.0.out", "h.1.out", "logits")]) for c in ("small", "tiny-1")])
    for name in ("gpt2", "gelu")
}
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
    assert (found or [None])[0] == first


@pytest.mark.parametrize("text", ["", "/", "gpt2/", "gpt2//logits", "/small", "gpt2/small/"])
def test_an_empty_pattern_is_an_error(text):
    """A part left empty would select nothing, or everything: it is neither."""
    with pytest.raises(UsageError, match=r"is not suite\[/case\[/checkpoint\]\]"):
        Selection.parse([text])


def test_has_says_what_may_hold_something_selected():
    """A suite is selected if anything in it may be."""
    selection = Selection.parse(["gpt2/small/logits"])
    assert selection.has("gpt2") and selection.has("gpt2", "small") and selection.has("gpt2", "small", "logits")
    assert not any([selection.has("gelu"), selection.has("gpt2", "tiny-1"), selection.has("gpt2", "small", "h.0.out")])
    assert Selection().has("anything", "at all")


def test_a_pattern_that_selects_nothing_is_an_error_by_name():
    """A misspelled selection is a usage error, not an empty run."""
    Selection.parse(["gpt2", "gelu/tiny-1/logits"]).require_matches(TREE)
    Selection().require_matches({})
    with pytest.raises(UsageError, match=r"gelu/tiny/\* selects nothing; suites: gpt2, gelu; `karat list SUITE`"):
        Selection.parse(["gpt2", "gelu/tiny"]).require_matches(TREE)
    with pytest.raises(UsageError, match="suites: none"):
        Selection.parse(["gpt2"]).require_matches({})
