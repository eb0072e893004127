"""karat.tolerances: rows in sigma, rows of a class for all contracts, and the rule of the signatures."""

import pytest

from karat.errors import UsageError
from karat.tolerances import Limits, SignatureRule, Tolerance, read_tolerances

CONTRACTS = "".join(
    f'[contract.{name}]\naccumulation="float32"\nstorage="{storage}"\nproducts="{products}"\nrounding="{often}"\n'
    for name, storage, products, often in (
        ("float32", "float32", "float32", "each operation"),
        ("tfloat32", "float32", "tfloat32", "each operation"),
        ("bfloat16-once", "bfloat16", "float32", "once"),
    )
)
SIGMA = 'rms_sigma = 2\nmax_sigma = 10.5\nrow_sigma = 4.0\ngain_sigma = 12\nbias_sigma = 0\nreason = "measured"\n'
FLAT = 'rtol = 0.25\natol_rms = 0\nreason = "guessed"\n'
SIGNATURES = '[signatures]\nstrength = 0.5\nvisible = 12\nexplained = 0.75\nreason = "tried"\n'


def read(folder, text):
    """Read a tolerances.toml with the contracts above and `text`."""
    path = folder / "tolerances.toml"
    path.write_text(f"schema = 1\n{CONTRACTS}{text}", encoding="utf-8")
    return read_tolerances(path)


def refuse(folder, text, message):
    """Assert that a tolerances.toml is refused with its path and a message."""
    with pytest.raises(UsageError, match=rf"tolerances\.toml: .*{message}"):
        read(folder, text)


def limits(source, *, max_sigma=10.5):
    """Return what `SIGMA` says."""
    return Limits(2.0, max_sigma, 4.0, 12.0, 0.0, f"tolerances.toml, [{source}]", "measured")


def test_a_contract_says_its_products_and_how_often_it_rounds(tmp_path):
    """Products may be rounded to tfloat32, in which nothing is stored; results at each operation or once."""
    found = read(tmp_path, "").contracts
    assert {name: (c.products, c.once) for name, c in found.items()} == {
        "float32": ("float32", False),
        "tfloat32": ("tfloat32", False),
        "bfloat16-once": ("float32", True),
    }


def test_one_row_of_limits_serves_every_contract(tmp_path):
    """The error in units of sigma is a pure number: one row of a class serves all contracts that have none."""
    found = read(tmp_path, f"[class.default]\n{SIGMA}")
    rows = [found.find(contract, "s", "c", "p", kind="default") for contract in found.contracts]
    assert rows == [limits("class.default")] * 3
    assert all(type(value) is float for value in (rows[0].rms_sigma, rows[0].gain_sigma, rows[0].bias_sigma))


def test_the_row_of_a_contract_goes_before_that_of_its_class(tmp_path):
    """A class has a row for all contracts, and rows of some, in either order and of either kind."""
    own = f"[class.default.float32]\n{SIGMA.replace('10.5', '99.0')}[class.default.tfloat32]\n{FLAT}"
    found = read(tmp_path, f"[class.default]\n{SIGMA}{own}")
    assert found.find("float32", "s", "c", "p", kind="default") == limits("class.default.float32", max_sigma=99.0)
    flat = Tolerance(0.25, 0.0, "tolerances.toml, [class.default.tfloat32]", "guessed")
    assert found.find("tfloat32", "s", "c", "p", kind="default") == flat
    assert found.find("bfloat16-once", "s", "c", "p", kind="default") == limits("class.default")
    places = ["class.default", "class.default.float32", "class.default.tfloat32"]
    assert found.sources() == [f"tolerances.toml, [{place}]" for place in places]


def test_a_class_without_a_row_of_its_own_has_none_for_other_contracts(tmp_path):
    """There is no default: rows of some contracts say nothing of the others."""
    with pytest.raises(KeyError, match=r"has no row \[class.default.float32\]"):
        read(tmp_path, f"[class.default.tfloat32]\n{SIGMA}").find("float32", "s", "c", "p", kind="default")


def test_a_row_of_another_class_is_no_row(tmp_path):
    """A row for all contracts is one for its own class only."""
    with pytest.raises(KeyError, match=r"has no row \[class.loose.float32\]"):
        read(tmp_path, f"[class.default]\n{SIGMA}").find("float32", "s", "c", "p", kind="loose")


@pytest.mark.parametrize("row", [SIGMA, FLAT], ids=["sigma", "flat"])
def test_an_override_may_be_of_either_kind(tmp_path, row):
    """An override gives a checkpoint limits in sigma, or the guessed row that a golden without noise needs."""
    found = read(tmp_path, f'[class.default]\n{SIGMA}[[override]]\nsuite = "mine"\n{row}')
    override = found.find("float32", "mine", "c", "p", kind="default")
    assert isinstance(override, Limits if row is SIGMA else Tolerance)
    assert override.source == "tolerances.toml, [override 1]"


BAD_ROWS = {
    "both kinds": (SIGMA + "rtol = 0\n", "unknown key 'rtol'; known: bias_sigma, gain_sigma, max_sigma"),
    "sigma in a flat row": (FLAT + "max_sigma = 1\n", "unknown key '(rtol|atol_rms)'"),
    "nothing but a reason": ('reason = "x"\n', r"lacks \['atol_rms', 'rtol'\]; 0 means 0 and must be written"),
    "one key": ('max_sigma = 1\nreason = "x"\n', r"lacks \['bias_sigma', 'gain_sigma', 'rms_sigma', 'row_sigma'\]"),
    "no reason": (SIGMA.replace('reason = "measured"\n', ""), r"lacks \['reason'\]"),
    "empty reason": (SIGMA.replace("measured", "  "), "needs a reason"),
    "negative": (SIGMA.replace("10.5", "-1e-9"), r"max_sigma = -1e-09 is not a number of \[0, 1000\)"),
    "endless": (SIGMA.replace("10.5", "inf"), "max_sigma = inf is not a number"),
    "NaN": (SIGMA.replace("10.5", "nan"), "max_sigma = nan is not a number"),
    "no limit at all": (SIGMA.replace("10.5", "1000"), "max_sigma = 1000 is not a number"),
    "bool": (SIGMA.replace("10.5", "true"), "max_sigma = True is not a number"),
    "text": (SIGMA.replace("10.5", '"10"'), "max_sigma = '10' is not a number"),
    "misspelt": (SIGMA.replace("row_sigma", "rows_sigma"), "unknown key 'rows_sigma'"),
    "undeclared contract": (f"[class.default.float16]\n{SIGMA}", "contract that is not declared"),
    "a number for a contract": (SIGMA + "float32 = 1\n", "float32"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_of_limits_is_an_error_by_name(tmp_path, row, message):
    """A row counts in sigma or in rtol and atol_rms, never in both; each number is written and is one."""
    refuse(tmp_path, f"[class.default]\n{row}", message)


@pytest.mark.parametrize("row", [SIGMA + FLAT.replace("reason", "#"), SIGMA + "rtol = 0\n"], ids=["whole", "one key"])
def test_an_override_of_both_kinds_is_an_error(tmp_path, row):
    """Mixing the two kinds of row is refused in an override as in a class."""
    refuse(tmp_path, f'[[override]]\nsuite = "x"\n{row}', "override 1.* has the unknown key '(rtol|atol_rms)'")


def test_the_rule_of_the_signatures_is_what_is_written(tmp_path):
    """Strength, visibility and explained part stand in tolerances.toml with their reason, and nowhere else."""
    assert read(tmp_path, SIGNATURES).signatures == SignatureRule(0.5, 12.0, 0.75, "tried")
    assert read(tmp_path, "").signatures is None


BAD_RULES = {
    "unknown key": (SIGNATURES + "sure = 1\n", "unknown key 'sure'; known: explained, reason, strength, visible"),
    "no strength": (SIGNATURES.replace("strength", "#"), r"lacks \['strength'\]; 0 means 0 and must be written"),
    "no visible": (SIGNATURES.replace("visible", "#"), r"lacks \['visible'\]"),
    "no explained": (SIGNATURES.replace("explained", "#"), r"lacks \['explained'\]"),
    "no reason": (SIGNATURES.replace("reason", "#"), r"lacks \['reason'\]"),
    "empty reason": (SIGNATURES.replace("tried", ""), "needs a reason"),
    "negative": (SIGNATURES.replace("12", "-12"), "visible = -12 is not a number"),
    "NaN": (SIGNATURES.replace("0.5", "nan"), "strength = nan is not a number"),
    "bool": (SIGNATURES.replace("0.75", "true"), "explained = True is not a number"),
    "a list": ("signatures = []\n", "signatures"),
    "a number": ("signatures = 1\n", "signatures"),
}


@pytest.mark.parametrize(("text", "message"), BAD_RULES.values(), ids=BAD_RULES)
def test_a_bad_rule_is_an_error_by_name(tmp_path, text, message):
    """An unknown key, a missing one and a value that is no number each fail by name."""
    (tmp_path / "tolerances.toml").write_text(f"schema = 1\n{text}", encoding="utf-8")
    with pytest.raises(UsageError, match=rf"tolerances\.toml: .*{message}"):
        read_tolerances(tmp_path / "tolerances.toml")


def test_a_strength_of_nothing_is_an_error(tmp_path):
    """A fault is named in a mismatch at up to 1 / strength of itself: 0 cannot be meant, and is no traceback later."""
    refuse(tmp_path, SIGNATURES.replace("0.5", "0"), "strength = 0 ")
