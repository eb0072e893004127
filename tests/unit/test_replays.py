"""karat.replays: draws of the noise become scales, its effect on gain, bias and faults, and frozen signatures."""

import math
from types import ModuleType

import numpy as np
import pytest

from karat import noise
from karat.inputs import Literal
from karat.replays import Frame, Replays, signatures_of
from karat.suites import Case, Checkpoint
from karat.tolerances import Contract

STEP = 2.0**-30
FLOAT32 = Contract("float32", "float32", "float32", "float32", "each operation")
TFLOAT32 = Contract("tfloat32", "float32", "float32", "tfloat32", "each operation")
ONCE = Contract("float16-once", "float16", "float32", "float32", "once")
MASK = np.array([[0, 1, 1], [1, 1, 1]])
RANDOM = np.random.Generator(np.random.Philox(key=81))
GOLDEN = {
    "hidden": RANDOM.standard_normal((2, 3, 8)),
    "choice": RANDOM.integers(0, 8, (2, 3)),
    "output": 10 * RANDOM.standard_normal((2, 3, 40)),
}
SIZES = {"rounding": 2.0, "accumulation": 5.0, "products": 0.5}
CASE = Case(
    "case",
    {"mask": Literal(tuple(map(tuple, MASK.tolist())))},
    {},
    (
        Checkpoint("hidden", (2, 3, 8), ("batch", "token", "channel")),
        Checkpoint("choice", (2, 3), ("batch", "token"), dtype="integer"),
        Checkpoint("output", (2, 3, 40), ("batch", "token", "word"), keep={"word": (10, 30)}),
    ),
    padding={"token": "mask"},
)
INPUTS = {"mask": MASK}
JUDGED = np.broadcast_to(MASK[..., None] != 0, (2, 3, 20))


class Generator(ModuleType):
    """A generator whose replays have known noise, and which remembers how often it ran."""

    def __init__(self):
        """Start with no runs."""
        super().__init__("generator")
        self.NOISE_STEP = STEP
        self.runs: list[tuple[str, int]] = []

    def perturbed(self, _case, _inputs, kind, seed):
        """Return the golden with noise of a kind."""
        self.runs.append((kind, seed))
        random = np.random.Generator(np.random.Philox(key=[noise.KINDS.index(kind), seed]))
        return {
            name: array
            if array.dtype.kind == "i"
            else array + STEP * SIZES[kind] * np.abs(array) * random.standard_normal(array.shape)
            for name, array in GOLDEN.items()
        }


def replays(*contracts):
    """Return replays of the case above for some contracts."""
    return Replays.of(CASE, INPUTS, GOLDEN, Generator(), contracts or (FLOAT32,))


def kept(name):
    """Return the frozen part of a golden."""
    return GOLDEN[name][CASE.checkpoint(name).kept_index]


def frame(*contracts, name="output"):
    """Return the frame of a checkpoint."""
    chosen = contracts or (FLOAT32,)
    return Frame.of(CASE, CASE.checkpoint(name), INPUTS, kept(name), replays(*chosen), chosen)


def test_each_kind_that_a_contract_needs_is_drawn():
    """So many draws of each kind, per unit roundoff, of the kept part of each checkpoint of floats."""
    generator = Generator()
    found = Replays.of(CASE, INPUTS, GOLDEN, generator, [FLOAT32, ONCE])
    assert generator.runs == [(kind, n) for kind in ("rounding", "accumulation") for n in range(noise.DRAWS)]
    assert found.draws.keys() == {"hidden", "output"}
    assert {kind: draws.shape for kind, draws in found.draws["output"].items()} == dict.fromkeys(
        ("rounding", "accumulation"), (noise.DRAWS, 2 * 3 * 20)
    )
    size = np.sqrt(np.mean(np.square(found.draws["output"]["accumulation"] / kept("output").reshape(-1))))
    assert size == pytest.approx(5, rel=0.1)
    assert replays(FLOAT32, TFLOAT32).draws["hidden"].keys() == set(noise.KINDS)


def test_a_scale_is_the_rms_of_its_draws_and_holds_the_last_rounding():
    """R^2 = mean of the squared draws + golden^2 / 3; A and P are the RMS of theirs; each in a byte an element."""
    found = replays(TFLOAT32)
    scales = found.scales("output", kept("output"), np.ones((2, 3, 20), bool))
    assert list(scales) == list(noise.KINDS)
    for kind, scale in scales.items():
        square = np.mean(np.square(found.draws["output"][kind].astype(np.float64)), axis=0).reshape(2, 3, 20)
        wanted = np.sqrt(square + (kept("output") ** 2 / 3 if kind == "rounding" else 0))
        assert scale.codes.shape == (2, 3, 20)
        np.testing.assert_allclose(scale.values(), wanted, rtol=0.12)


def test_how_well_the_scales_are_known_is_measured():
    """From 24 draws to about one part in seven."""
    assert replays().precision() == pytest.approx(1 / math.sqrt(2 * noise.DRAWS), rel=0.2)
    assert Replays({}).precision() == 0


def test_a_frame_is_of_the_judged_elements():
    """Padding has no part in what the noise does to gain, bias and faults."""
    found = frame(FLOAT32, ONCE)
    np.testing.assert_array_equal(found.golden, kept("output")[JUDGED])
    np.testing.assert_array_equal(found.judged, JUDGED)
    assert found.draws["rounding"].shape == (noise.DRAWS, 100)
    for contract in (FLOAT32, ONCE):
        predicted = noise.prediction(found.scales, contract, 1.0)
        wanted = noise.variance(predicted, kept("output"))[JUDGED]
        np.testing.assert_allclose(found.variances[contract.name], wanted, rtol=1e-12)


def test_the_noise_of_gain_and_bias_is_that_along_the_golden_and_along_sigma():
    """By contract; independent noise of n elements moves the bias by about 1 / sqrt(n) sigma."""
    found = frame(FLOAT32, TFLOAT32)
    gain, bias = found.errors_along(found.golden), found.errors_along(None)
    assert gain.keys() == bias.keys() == {"float32", "tfloat32"}
    assert bias["float32"] == pytest.approx(0.1, rel=0.3)
    draws = {kind: found.draws[kind] for kind in ("rounding", "accumulation")}
    sigma = np.sqrt(found.variances["float32"])
    assert bias["float32"] == pytest.approx(noise.error_along(sigma, sigma**2, found.golden, draws, FLOAT32), rel=6e-3)
    assert gain["tfloat32"] > 100 * gain["float32"]
    assert frame().errors_along(np.zeros(100)) == {}


# --- signatures ------------------------------------------------------------------------------------------------------


def rows(faulty, outputs=("output",), case=CASE, golden=GOLDEN, visible=12.0):
    """Return the frozen signatures: rows by checkpoint and fault, and tensors."""
    frames = {
        name: Frame.of(case, case.checkpoint(name), INPUTS, kept(name), replays(), (FLOAT32,))
        for name in ("hidden", "output")
    }
    found = signatures_of(case, INPUTS, golden, faulty.items(), frames, outputs=outputs, visible=visible)
    return {(row["checkpoint"], row["fault"]): row for row in found.rows}, found.tensors


def changed(**changes):
    """Return what a candidate with a fault produces: the golden plus changes."""
    return {name: array + changes.get(name, 0) for name, array in GOLDEN.items()}


def test_a_fault_is_frozen_where_it_shows_first():
    """Its direction there, in a byte an element of what is judged, with the noise along it by contract."""
    change = RANDOM.standard_normal((2, 3, 8))
    found, tensors = rows({"fault": changed(hidden=change, output=1.0)}, outputs=())
    assert found.keys() == {("hidden", "fault")}
    assert {name: array.shape[0] for name, array in tensors.items()} == {"hidden": 1}
    assert found["hidden", "fault"]["index"] == 0
    row, direction = found["hidden", "fault"], change[np.broadcast_to(MASK[..., None] != 0, change.shape)]
    decoded = noise.decode_signed(tensors["hidden"][0], row["top"])
    assert np.abs(decoded - direction).max() <= 0.06 * np.abs(direction).max()
    assert np.abs(decoded / direction - 1)[np.abs(direction) > 1e-3 * np.abs(direction).max()].max() < 0.06
    assert row["errors"] == frame(name="hidden").errors_along(decoded)


def test_a_fault_is_frozen_where_it_first_stands_out():
    """Where noise hides it at first, it is frozen again at the first checkpoint at which it does not."""
    faulty = {"small": changed(hidden=1e-9, output=1.0), "large": changed(hidden=1.0, output=1.0)}
    assert rows(faulty, outputs=())[0].keys() == {("hidden", "small"), ("output", "small"), ("hidden", "large")}
    assert rows(faulty, outputs=(), visible=1e-6)[0].keys() == {("hidden", "small"), ("hidden", "large")}


def test_a_fault_is_frozen_at_the_outputs_too():
    """A candidate may have the outputs alone: there a fault is frozen though it shows before."""
    faulty = {"early": changed(hidden=1.0, output=2.0), "late": changed(output=1.0), "none": changed()}
    assert rows(faulty)[0].keys() == {("hidden", "early"), ("output", "early"), ("output", "late")}
    assert rows(faulty, outputs=())[0].keys() == {("hidden", "early"), ("output", "late")}


def test_faults_at_one_checkpoint_share_an_array():
    """Each row says which of its directions is that fault's, integers in the width that the largest needs."""
    found, tensors = rows({"one": changed(choice=1), "none": changed(), "many": changed(choice=1 << 20)}, outputs=())
    assert {fault: row["index"] for (_, fault), row in found.items()} == {"one": 0, "many": 1}
    assert tensors["choice"].tolist() == [[1] * 5, [1 << 20] * 5]


def test_a_fault_in_padding_or_in_what_is_not_kept_does_not_show():
    """Only what is judged counts."""
    padding = np.where(MASK[..., None] == 0, 7.0, 0) * np.ones((2, 3, 8))
    cut = np.zeros((2, 3, 40))
    cut[..., :10] = cut[..., 30:] = 7
    assert rows({"fault": changed(hidden=padding, output=cut)}) == ({}, {})


def test_rounding_of_the_reference_is_no_fault():
    """A change of less than 1e-12 of the largest value does not show."""
    assert rows({"fault": changed(hidden=1e-13, output=1e-13)}) == ({}, {})
    assert rows({"fault": changed(hidden=1e-10)})[0].keys() == {("hidden", "fault")}


@pytest.mark.parametrize(
    "wrong", [np.full((2, 3, 8), np.nan), np.zeros((2, 3, 9)), np.zeros((2, 3, 8), int), None], ids=str
)
def test_what_fails_without_a_signature_has_none(wrong):
    """Another shape or kind, NaN, and what is missing are seen as such; later only the outputs are frozen."""
    faulty = changed(output=1.0) | {"hidden": wrong}
    if wrong is None:
        del faulty["hidden"]
    assert rows({"fault": faulty})[0].keys() == {("output", "fault")}
    assert rows({"fault": faulty}, outputs=()) == ({}, {})


def test_wrong_integers_are_frozen_as_they_are():
    """Where integers differ first, their differences at the judged places are the signature."""
    shift = np.arange(6).reshape(2, 3)
    found, tensors = rows({"fault": changed(choice=shift, output=1.0)}, outputs=())
    assert found.keys() == {("choice", "fault")}
    assert tensors["choice"].tolist() == [shift[MASK != 0].tolist()]
    assert rows({"fault": changed(choice=np.where(MASK == 0, 5, 0))}) == ({}, {})


def test_what_follows_a_choice_has_no_signature():
    """What depends on a choice that a candidate may make otherwise says nothing of a fault."""
    points = (
        CASE.checkpoints[0],
        Checkpoint("choice", (2, 3), ("batch", "token"), dtype="integer", judged_by="hidden", sequential=True),
        Checkpoint("output", (2, 3, 40), ("batch", "token", "word"), keep={"word": (10, 30)}, follows="choice"),
    )
    case = Case("case", CASE.inputs, {}, points, padding={"token": "mask"})
    assert rows({"fault": changed(output=1.0)}, case=case) == ({}, {})
