"""karat.tolerances: what tolerances.toml says is what is applied; what it does not say is an error by name."""

import json
import re

import pytest

from karat.errors import UsageError
from karat.tolerances import Contract, Tolerance, read_tolerances

CONTRACTS = """
[contract.float32]
storage = "float32"
accumulation = "float32"
products = "float32"
rounding = "each operation"

[contract.bfloat16]
storage = "bfloat16"
accumulation = "float32"
products = "bfloat16"
rounding = "each operation"
"""
CLASSES = """
[class.default]
float32 = { rtol = 0.0, atol_rms = 1e-5, reason = "measured" }
bfloat16 = { rtol = 0.02, atol_rms = 0, reason = "measured too" }
"""
OVERRIDES = """
[[override]]
suite = "gpt2"
checkpoint = "h.*.attention_*"
contract = "bfloat16"
rtol = 0.25
atol_rms = 0.5
reason = "first"

[[override]]
suite = "gpt2*"
rtol = 0.125
atol_rms = 0
reason = "second"
"""


def read(folder, text):
    """Read a tolerances.toml with `text` below the line that names its schema."""
    path = folder / "tolerances.toml"
    path.write_text("schema = 1\n" + text, encoding="utf-8")
    return read_tolerances(path)


def refuse(folder, text, message):
    """Assert that a tolerances.toml is refused with its path and a message."""
    with pytest.raises(UsageError, match=rf"tolerances\.toml: .*{message}"):
        read(folder, text)


def one_class(row):
    """Return a file with one row."""
    return CONTRACTS + f"[class.default]\nfloat32 = {row}\n"


def one_override(keys):
    """Return a file with one override, its lines separated by semicolons."""
    return CONTRACTS + "[[override]]\n" + keys.replace(";", "\n")


def test_a_contract_is_what_its_table_says(tmp_path):
    """A contract is a row of tolerances.toml: storage, accumulation, how often it rounds."""
    found = read(tmp_path, CONTRACTS + CLASSES)
    assert found.contract("bfloat16") == Contract("bfloat16", "bfloat16", "float32", "bfloat16", "each operation")
    assert list(found.contracts) == ["float32", "bfloat16"]


def test_an_unknown_contract_is_an_error_that_names_the_known_ones(tmp_path):
    """No such contract is a usage error."""
    with pytest.raises(UsageError, match=r"no contract 'float23' in .*tolerances\.toml; contracts: float32, bfloat16"):
        read(tmp_path, CONTRACTS).contract("float23")


def test_a_row_says_where_it_is_written(tmp_path):
    """A tolerance has a reason and a place, which a report prints; 0 means 0."""
    found = read(tmp_path, CONTRACTS + CLASSES).find("bfloat16", "s", "c", "p", kind="default")
    assert found == Tolerance(0.02, 0.0, "tolerances.toml, [class.default.bfloat16]", "measured too")
    assert type(found.atol_rms) is float


@pytest.mark.parametrize(
    ("contract", "suite", "checkpoint", "reason"),
    [
        ("bfloat16", "gpt2", "h.0.attention_scores", "first"),
        ("float32", "gpt2", "h.0.attention_scores", "second"),
        ("bfloat16", "gpt2@tiny", "h.0.attention_scores", "second"),
        ("bfloat16", "gpt2", "h.0.mlp", "second"),
        ("bfloat16", "my_gpt2", "h.0.attention_scores", "measured too"),
        ("float32", "GPT2", "h.0.attention_scores", "measured"),
    ],
)
def test_the_first_override_that_matches_applies(tmp_path, contract, suite, checkpoint, reason):
    """An override is shell wildcards, all of which must match; the first that does goes before the class."""
    found = read(tmp_path, CONTRACTS + CLASSES + OVERRIDES)
    assert found.find(contract, suite, "case", checkpoint, kind="default").reason == reason


def test_an_override_may_name_a_case(tmp_path):
    """Suite, case, checkpoint and contract can be overridden, each with a reason."""
    found = read(
        tmp_path, CONTRACTS + CLASSES + '[[override]]\ncase = "long-*"\nrtol = 0.5\natol_rms = 0\nreason = "x"\n'
    )
    assert [found.find("float32", "s", case, "p", kind="default").rtol for case in ("long-1", "short")] == [0.5, 0.0]
    assert found.find("float32", "s", "long-1", "p", kind="default").source == "tolerances.toml, [override 1]"


@pytest.mark.parametrize(("contract", "kind"), [("float32", "probabilities"), ("float16", "default")])
def test_there_is_no_default_tolerance(tmp_path, contract, kind):
    """A checkpoint whose class has no row under a contract is a KeyError that names row and checkpoint."""
    message = f"has no row [class.{kind}.{contract}], which gpt2x/case/point needs"
    with pytest.raises(KeyError, match=re.escape(message)):
        read(tmp_path, CONTRACTS + CLASSES).find(contract, "gpt2x", "case", "point", kind=kind)


def test_every_row_and_override_can_be_named(tmp_path):
    """The gate says which tolerance none uses: it knows the place of each."""
    places = ["class.default.float32", "class.default.bfloat16", "override 1", "override 2"]
    found = read(tmp_path, CONTRACTS + CLASSES + OVERRIDES)
    assert found.sources() == [f"tolerances.toml, [{place}]" for place in places]


BAD_ROWS = {
    "unknown key": (
        '{ rtol = 0, atol_rms = 0, reason = "x", atol = 1 }',
        "unknown key 'atol'; known: atol_rms, reason, rtol",
    ),
    "no rtol": ('{ atol_rms = 0, reason = "x" }', r"lacks \['rtol'\]; 0 means 0 and must be written"),
    "no atol_rms": ('{ rtol = 0, reason = "x" }', r"lacks \['atol_rms'\]"),
    "no reason": ("{ rtol = 0, atol_rms = 0 }", r"lacks \['reason'\]"),
    "empty reason": ('{ rtol = 0, atol_rms = 0, reason = " " }', "needs a reason"),
    "a number for a reason": ("{ rtol = 0, atol_rms = 0, reason = 1 }", "needs a reason"),
    "negative": ('{ rtol = -1e-9, atol_rms = 0, reason = "x" }', r"rtol = -1e-09 is not a number of \[0, 1\)"),
    "everything": ('{ rtol = 0, atol_rms = 1, reason = "x" }', "atol_rms = 1 is not a number"),
    "bool": ('{ rtol = true, atol_rms = 0, reason = "x" }', "rtol = True is not a number"),
    "NaN": ('{ rtol = nan, atol_rms = 0, reason = "x" }', "rtol = nan is not a number"),
    "infinity": ('{ rtol = 0, atol_rms = inf, reason = "x" }', "atol_rms = inf is not a number"),
    "text": ('{ rtol = "0.1", atol_rms = 0, reason = "x" }', "rtol = '0.1' is not a number"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_an_error_by_name(tmp_path, row, message):
    """Each tolerance is a number of [0, 1) with a reason: none is defaulted, none is misread."""
    refuse(tmp_path, one_class(row), rf"\[class\.default\.float32\].*{message}")


GOOD_CONTRACT = {"storage": "float32", "accumulation": "float32", "products": "float32", "rounding": "each operation"}
BAD_CONTRACTS = {
    "unknown key": ({"u": 1}, "unknown key 'u'; known: accumulation, products, rounding, storage"),
    "no accumulation": ({"accumulation": None}, r"lacks \['accumulation'\]"),
    "no products": ({"products": None}, r"lacks \['products'\]"),
    "no rounding": ({"rounding": None}, r"lacks \['rounding'\]"),
    "unknown storage": ({"storage": "float23"}, "storage 'float23' is not one of float64, "),
    "stored in a format of products": ({"storage": "tfloat32"}, "storage 'tfloat32' is not one of"),
    "unknown accumulation": ({"accumulation": "f4"}, "accumulation 'f4' is not one of"),
    "accumulated in a format of products": ({"accumulation": "tfloat32"}, "accumulation 'tfloat32' is not one of"),
    "unknown products": ({"products": "tf32"}, "products 'tf32' is not one of float64, .*tfloat32"),
    "unknown rounding": ({"rounding": "twice"}, "rounding = 'twice' is not one of each operation, once"),
    "rounding in capitals": ({"rounding": "Once"}, "rounding = 'Once' is not one of"),
    "a list for a format": ({"storage": ["float32"]}, "storage"),
    "a list for products": ({"products": ["float32"]}, "products"),
    "a number for text": ({"rounding": 1}, "rounding"),
    "a list for text": ({"rounding": ["once"]}, "rounding"),
}


@pytest.mark.parametrize(("keys", "message"), BAD_CONTRACTS.values(), ids=BAD_CONTRACTS)
def test_a_bad_contract_is_an_error_by_name(tmp_path, keys, message):
    """An unknown key, a missing one and a value that is no number format each fail by name."""
    given = {key: value for key, value in (GOOD_CONTRACT | keys).items() if value is not None}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in given.items())
    refuse(tmp_path, f"[contract.mine]\n{lines}\n", rf"\[contract\.mine\].*{message}")


BAD_OVERRIDES = {
    "unknown key": ('suite="x";rtol=0;atol_rms=0;reason="x";sweet="y"', r"\[override 1\] has the unknown key 'sweet'"),
    "no pattern": ('rtol=0;atol_rms=0;reason="x"', "override 1 names no suite, case, checkpoint or contract"),
    "no reason": ('suite="x";rtol=0;atol_rms=0', r"\[override 1\] lacks \['reason'\]"),
    "negative": ('suite="x";rtol=0;atol_rms=-1;reason="x"', r"\[override 1\] atol_rms = -1 is not a number"),
    "a number for a pattern": ('suite=3;rtol=0;atol_rms=0;reason="x"', "override 1.*suite"),
}


@pytest.mark.parametrize(("keys", "message"), BAD_OVERRIDES.values(), ids=BAD_OVERRIDES)
def test_a_bad_override_is_an_error_by_name(tmp_path, keys, message):
    """An override names what it overrides and why, and nothing else."""
    refuse(tmp_path, one_override(keys), message)


BAD_FILES = {
    "unknown table": (
        "[klass.default]\n",
        "the file has the unknown key 'klass'; known: class, contract, override, schema, signatures",
    ),
    "undeclared contract": (
        '[class.default]\nfloat16 = { rtol = 0, atol_rms = 0, reason = "x" }',
        "contract that is not declared",
    ),
    "contract is a number": ("contract = 1\n", "contract must be a table"),
    "one contract is a number": ("[contract]\nfloat32 = 1\n", r"\[contract\.float32\] must be a table"),
    "class is a list": ("class = []\n", "class must be a table"),
    "one class is a number": ("[class]\ndefault = 1\n", "class.default"),
    "one row is a number": ("[class.default]\nfloat32 = 0.1\n", r"\[class\.default\] has the unknown key 'float32'"),
    "override is a number": ("override = 1\n", "override"),
    "override is one table": ('[override]\nsuite="x"\nrtol=0\natol_rms=0\nreason="x"\n', "override"),
    "override is a list of numbers": ("override = [1]\n", "override"),
    "no TOML": ("[contract\n", ""),
    "a table twice": ("[class.default]\n[class.default]\n", ""),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_an_error_by_name(tmp_path, text, message):
    """An unknown key, a missing row or a value of the wrong type is a usage error that names it, never a traceback."""
    refuse(tmp_path, text, message)


@pytest.mark.parametrize("schema", ["2", '"1"', "0"])
def test_another_schema_is_not_read(tmp_path, schema):
    """A file of a later karat is refused rather than misread."""
    (tmp_path / "tolerances.toml").write_text(f"schema = {schema}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="this karat reads schema 1"):
        read_tolerances(tmp_path / "tolerances.toml")


@pytest.mark.parametrize("content", [b"", b"reason = '\xff'\n", None], ids=["empty", "not UTF-8", "absent"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    """An empty, undecodable or absent tolerances.toml is a usage error with its path."""
    if content is not None:
        (tmp_path / "tolerances.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"tolerances\.toml: "):
        read_tolerances(tmp_path / "tolerances.toml")
