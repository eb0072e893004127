"""tests/rivals.py: the published rules of other tools, against examples computed by hand and against the originals."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from karat.formats import lookup
from karat.suites import load_by_path

rivals = load_by_path(Path(__file__).parents[1] / "rivals.py")
RIVALS = {rival.name: rival for rival in rivals.RIVALS}
PAIRS = [(name, storage) for name, rival in RIVALS.items() for storage in rival.formats]
TORCH = "torch.testing.assert_close"
FLASH = "FlashAttention 2x"
HUGGING_FACE = "Hugging Face eager-SDPA"
LARGEST = float(np.finfo(np.float32).max)
NAN, INF = float("nan"), float("inf")
U16, U32 = 2.0**-10, 2.0**-23  # one unit in the last place of 1 in float16, in float32
B = 2.0**-7  # the same in bfloat16


def compared(storage, candidate, golden, eager=None):
    """Return the comparison of arrays written as numbers; eager is the golden in the storage format unless given."""
    golden = np.asarray(golden, np.float64)
    with np.errstate(all="ignore"):
        sides = (np.asarray(side, np.float64) for side in (candidate, golden if eager is None else eager))
        low, baseline = (side.astype(lookup(storage).dtype) for side in sides)
    return rivals.Comparison(low, golden, baseline, storage)


def accepts(name, storage, candidate, golden, eager=None):
    """Return what a rule says of arrays written as numbers."""
    return RIVALS[name].accepts(compared(storage, candidate, golden, eager))


# rule, format, golden, the last candidate that passes, the first that does not
TOLERANCES = [
    (TORCH, "float64", 1, 1 + 1.99e-7, 1 + 2.01e-7),
    (TORCH, "float32", 1, 1 + 1.12e-5, 1 + 1.14e-5),
    (TORCH, "float32", 0, 0.99e-5, 1.01e-5),
    (TORCH, "bfloat16", 1, 1 + 2 * B, 1 + 3 * B),
    (TORCH, "float16", 1, 1 + U16, 1 + 2 * U16),
    ("numpy.allclose", "float64", 1, 1 + 1.0e-5, 1 + 1.002e-5),
    ("numpy.allclose", "float32", 0, 0.99e-8, 1.01e-8),
    ("numpy.allclose", "bfloat16", 1.00001, 1, 1 + B),
    ("KernelBench", "float32", 1, 1 + 1.99e-4, 1 + 2.01e-4),
    ("KernelBench", "bfloat16", 1, 1 + 2 * B, 1 + 3 * B),
    ("KernelBench", "float16", 1, 1 + 20 * U16, 1 + 21 * U16),
    ("JAX", "float64", 1, 1 + 9 * 2**-52, 1 + 10 * 2**-52),
    ("JAX", "float32", 1, 1 + 16 * U32, 1 + 17 * U32),
    ("JAX", "bfloat16", 1, 1 + 2 * B, 1 + 3 * B),
    ("JAX", "float16", 1, 1 + 2 * U16, 1 + 3 * U16),
    ("ONNX Runtime", "float64", 1, 1 + 1.99e-5, 1 + 2.01e-5),
    ("ONNX Runtime", "float32", 1, 1 + 1.09e-4, 1 + 1.11e-4),
    ("ONNX Runtime", "bfloat16", 1, 1 + 3 * B, 1 + 4 * B),
    ("ONNX Runtime", "float16", 1, 1 + 3 * U16, 1 + 4 * U16),
    ("Polygraphy", "float64", 1, 1 + 0.99e-5, 1 + 1.01e-5),  # a sum of both tolerances would allow 2e-5
    ("Polygraphy", "float64", 0.1, 0.1 + 0.99e-5, 0.1 + 1.01e-5),
    ("Polygraphy", "float64", 10, 10 + 0.99e-4, 10 + 1.01e-4),
    ("Polygraphy", "float32", 0, 0.99e-5, 1.01e-5),
]


@pytest.mark.parametrize(("name", "storage", "golden", "last", "first"), TOLERANCES)
def test_elementwise_limits(name, storage, golden, last, first):
    """A rule with a tolerance for each element passes what is just within it, and fails on one element beyond it."""
    assert accepts(name, storage, [golden, last], [golden, golden])
    assert not accepts(name, storage, [golden, first], [golden, golden])


@pytest.mark.parametrize(
    ("name", "storage", "larger", "smaller"),
    [("KernelBench", "float16", 1078 / 1024, 1057 / 1024), ("JAX", "bfloat16", 1.3515625, 1.328125)],
)
def test_tolerance_relative_to_the_candidate(name, storage, larger, smaller):
    """KernelBench and JAX hand over the reference first, so that the tolerance is relative to the candidate."""
    assert accepts(name, storage, [larger], [smaller])
    assert not accepts(name, storage, [smaller], [larger])


def test_hugging_face_compares_with_eager():
    """The candidate is compared with the eager result of the same format, whatever the golden is."""
    assert accepts(HUGGING_FACE, "float32", [[1 + 1.00e-4]], [[2]], [[1]])
    assert not accepts(HUGGING_FACE, "float32", [[1 + 1.02e-4]], [[1 + 1.02e-4]], [[1]])
    assert accepts(HUGGING_FACE, "float16", [[1 + 10 * U16]], [[2]], [[1]])
    assert not accepts(HUGGING_FACE, "float16", [[1 + 11 * U16]], [[2]], [[1]])


def test_hugging_face_forgives_a_fifth_of_the_sequences():
    """At least 80 % of the slices of axis 0 must match: 4 of 5 are enough, 3 of 5 are not; nor is 5 of 7."""
    eager = np.ones((5, 3))
    wrong = eager.copy()
    wrong[1, 2] = 100
    assert accepts(HUGGING_FACE, "float32", wrong, eager)
    wrong[4, 0] = NAN
    assert not accepts(HUGGING_FACE, "float32", wrong, eager)
    assert not accepts(HUGGING_FACE, "float32", [[1]] * 5 + [[2]] * 2, np.ones((7, 1)))
    assert accepts(HUGGING_FACE, "float32", [[1]] * 6 + [[2]], np.ones((7, 1)))


def test_hugging_face_widens_bfloat16_by_magnitude():
    """In bfloat16 the absolute tolerance is 3 % of the largest magnitude on either side, and without end beside inf."""
    assert accepts(HUGGING_FACE, "bfloat16", [[4, 0.119]], [[4, 0]])
    assert not accepts(HUGGING_FACE, "bfloat16", [[4, 0.122]], [[4, 0]])
    assert not accepts(HUGGING_FACE, "bfloat16", [[1, 0.119]], [[1, 0]])
    assert accepts(HUGGING_FACE, "bfloat16", [[INF, 1000]], [[INF, 0]])
    assert not accepts(HUGGING_FACE, "float16", [[INF, 1000]], [[INF, 0]])


def test_flash_attention_allows_twice_the_baseline_and_the_rounding():
    """The largest error may be twice eager's plus twice what adding and subtracting .3 does to the golden.

    By hand: eager is off by one ulp of 1, B. 1 + .30078125 rounds to 1.296875 = 1 + 38 B, so 1 comes back as 1 - B / 2.
    """
    golden, eager = [1, 0.5], [1 + B, 0.5]
    assert accepts(FLASH, "bfloat16", [1 + 3 * B, 0.5], golden, eager)
    assert not accepts(FLASH, "bfloat16", [1 + 4 * B, 0.5], golden, eager)
    assert accepts(FLASH, "bfloat16", [1, 0.5 + 3 * B], golden, eager)  # the norm does not see where
    assert not accepts(FLASH, "float32", [1e-30], [0])  # an exact baseline and .3 - .3 = 0 allow nothing


@pytest.mark.parametrize(("limit", "inside", "outside"), [("1e-7", 4.47e-4, 4.48e-4), ("5e-4", 0.0316, 0.0317)])
def test_ggml_nmse(limit, inside, outside):
    """sum((c - g)^2) / sum(c^2) of the candidate (1, 1) and the golden (1, 1 + e) is e^2 / 2."""
    assert accepts(f"ggml NMSE {limit}", "float32", [1, 1], [1, 1 + inside])
    assert not accepts(f"ggml NMSE {limit}", "float32", [1, 1], [1, 1 + outside])


def test_ggml_normalises_by_the_candidate_and_passes_what_is_no_number():
    """0.0223^2 is within 5e-4 of 1^2 but not of 0.9777^2; 0 / 0, and anything beside an infinity, passes."""
    assert accepts("ggml NMSE 5e-4", "float32", [1], [1 - 0.0223])
    assert not accepts("ggml NMSE 5e-4", "float32", [1 - 0.0223], [1])
    assert accepts("ggml NMSE 1e-7", "float32", [0, 0], [0, 0])
    assert not accepts("ggml NMSE 1e-7", "float32", [0, 0], [0, 1])
    assert accepts("ggml NMSE 1e-7", "float32", [INF, 5], [INF, 1])
    assert accepts("ggml NMSE 1e-7", "float32", [INF, 5], [LARGEST, 1])
    assert not accepts("ggml NMSE 1e-7", "float32", [-INF, 1], [INF, 1])
    assert not accepts("ggml NMSE 1e-7", "float32", [1, INF], [INF, 1])


@pytest.mark.parametrize(("limit", "inside", "outside"), [(".99", 0.1424, 0.1426), (".999", 0.0447, 0.0448)])
def test_cosine(limit, inside, outside):
    """The cosine of (1, t) and (1, 0) is 1 / sqrt(1 + t^2); no scale factor changes it."""
    assert accepts(f"cosine {limit}", "float32", [1, inside], [1, 0])
    assert not accepts(f"cosine {limit}", "float32", [1, outside], [1, 0])
    assert accepts(f"cosine {limit}", "float32", [50, 50 * inside], [1, 0])
    assert not accepts(f"cosine {limit}", "float32", [-1, 0], [1, 0])
    assert not accepts(f"cosine {limit}", "float32", [0, 0], [1, 0])


def test_cosine_of_small_values_and_zeros():
    """Dynamo's rule accepts first what is within 1e-4, even of the wrong sign; vLLM's rejects 0 against 0."""
    assert accepts("cosine .99", "float32", [5e-5], [-4e-5])
    assert not accepts("cosine .99", "float32", [5e-5, 1e-3], [-6e-5, -1e-3])
    assert accepts("cosine .99", "float32", [0, 0], [0, 0])
    assert not accepts("cosine .999", "float32", [0, 0], [0, 0])


@pytest.mark.parametrize("name", ["msprobe L2", "msprobe L2, no floor"])
def test_msprobe_ratios(name):
    """Mean and RMS error may be 1.2 times the baseline's; the largest, and the share of wrong small values, twice."""
    y, one = 2.0**-10, np.ones(4)
    assert accepts(name, "float32", [1 + 1.19 * y], [1], [1 + y])
    assert not accepts(name, "float32", [1 + 1.21 * y], [1], [1 + y])
    assert accepts(name, "float32", [1 + 1.95 * y, 1, 1, 1], one, one + y)
    assert not accepts(name, "float32", [1 + 2.05 * y, 1, 1, 1], one, one + y)
    # of 1 and 1024, the second decides the RMS error, both the mean relative one
    pair, apart = np.array([1, 1024]), np.array([y, 1024 * y])
    for factors, passes in [((1.35, 1), True), ((1.5, 1), False), ((0.5, 1.15), True), ((0.5, 1.25), False)]:
        assert accepts(name, "float32", pair + apart * factors, pair, pair + apart) is passes
    small, off = 2.0**-21, 2.0**-29  # 2^-30 is allowed
    golden, eager = [small] * 4, [small + off, small, small, small]
    assert accepts(name, "float32", [small + off] * 2 + [small + off / 4] * 2, golden, eager)
    assert not accepts(name, "float32", [small + off] * 3 + [small], golden, eager)


def test_msprobe_floors():
    """A denominator is at least 2^-14 in float32; without that, nothing is better than an exact baseline."""
    exact = [1.0]
    for golden, scale in [(2.0**-11, 2.0**-11), (1, 1), (16, 1)]:  # relative errors decide, both, the RMS error
        assert accepts("msprobe L2", "float32", [golden + 1.19 * 2**-14 * scale], [golden])
        assert not accepts("msprobe L2", "float32", [golden + 1.21 * 2**-14 * scale], [golden])
    # 2^-8 is added to the denominator in bfloat16: n 2^-16 / (2^-9 + 2^-8) is .0026 n, allowed 1.2 * 2^-8 = .0047
    assert accepts("msprobe L2", "bfloat16", [2.0**-9 + 2.0**-16], [2.0**-9])
    assert not accepts("msprobe L2", "bfloat16", [2.0**-9 + 2.0**-15], [2.0**-9])
    assert accepts("msprobe L2, no floor", "float32", exact, exact)
    assert not accepts("msprobe L2, no floor", "float32", [1 + U32], exact)
    small = 2.0**-11  # its neighbour in bfloat16, 2^-18 away, is off by more than 1e-16 and less than 2^-16
    assert not accepts("msprobe L2", "bfloat16", [small + 2**-18], [small])
    assert accepts("msprobe L2, no floor", "bfloat16", [small + 2**-18], [small])


# whether a rule passes: NaN for 1, NaN for NaN, inf for 1, inf for inf, -inf for inf; all in float32, beside a right 1
SPECIAL = {
    TORCH: (False, False, False, True, False),
    "numpy.allclose": (False, False, False, True, False),
    HUGGING_FACE: (False, False, False, True, False),
    "KernelBench": (False, False, False, True, False),
    FLASH: (False, False, False, False, False),
    "ggml NMSE 1e-7": (False, False, False, True, False),
    "ggml NMSE 5e-4": (False, False, False, True, False),
    "cosine .99": (False, True, False, True, False),
    "cosine .999": (False, False, False, False, False),
    "Polygraphy": (False, False, False, False, False),
    "msprobe L2": (True, True, True, True, True),
    "msprobe L2, no floor": (True, True, True, True, True),
    "JAX": (False, True, False, True, False),
    "ONNX Runtime": (False, True, False, True, False),
}


@pytest.mark.parametrize("name", RIVALS)
def test_special_values(name):
    """What is not finite is judged as the original judges it; msprobe does not look at it."""
    pairs = [(NAN, 1), (NAN, NAN), (INF, 1), (INF, INF), (-INF, INF)]
    assert tuple(accepts(name, "float32", [[1, c]], [[1, g]], [[1, g]]) for c, g in pairs) == SPECIAL[name]


def test_onnx_runtime_special_cases():
    """Either infinity stands for the largest float32; in bfloat16 a NaN golden asks nothing of the candidate."""
    assert accepts("ONNX Runtime", "float32", [-INF], [LARGEST])
    assert not accepts("ONNX Runtime", "float32", [INF], [-LARGEST])
    assert accepts("ONNX Runtime", "bfloat16", [5], [NAN])
    assert not accepts("ONNX Runtime", "float16", [5], [NAN])


@pytest.mark.parametrize(("name", "storage"), PAIRS)
def test_shapes(name, storage):
    """Every rule takes arrays without elements and without axes in each of its formats, and tells 1.5 from -1.5."""
    for empty in (np.zeros(0), np.zeros((3, 0))):
        assert accepts(name, storage, empty, empty) is True
    for golden in (np.full((), 1.5), np.full(1, 1.5), np.full((2, 3, 4), 1.5)):
        assert accepts(name, storage, golden, golden) is True
        assert accepts(name, storage, -golden, golden) is False
        assert accepts(name, storage, golden * 0, golden * 0) is (name != "cosine .999")


def test_uncovered_formats_are_refused():
    """A rule that has no row for a storage format says so by name instead of judging."""
    refused = [(name, storage) for name in RIVALS for storage in rivals.ALL if (name, storage) not in PAIRS]
    assert len(refused) == 7
    for name, storage in refused:
        with pytest.raises(ValueError, match=f"{name} has no rule for {storage}"):
            accepts(name, storage, [1], [1])


def test_arrays_that_do_not_belong_together_are_refused():
    """A comparison has one shape, the storage format twice and a float64 golden."""
    low, golden = np.zeros(2, np.float32), np.zeros(2)
    for wrong in [(golden, golden, low), (low, low, low), (low, golden, golden), (low[:1], golden, low)]:
        with pytest.raises(ValueError, match="allowed"):
            rivals.Comparison(*wrong, "float32")
    with pytest.raises(ValueError, match="no storage format 'int8'"):
        rivals.Comparison(low, golden, low, "int8")


def near_limits(storage, rtol, atol, shape=(4, 3)):
    """Return comparisons with errors of 0 and about the limit atol + rtol |g|; some hold NaN, infinities and zeros."""
    random = np.random.Generator(np.random.Philox(key=0))
    for trial in range(200):
        golden = random.standard_normal(shape) * 10.0 ** random.integers(-6, 4)
        golden = golden.astype(lookup(storage).dtype).astype(np.float64) if trial % 2 else golden
        size = random.choice([0, 0.99, 1]) * random.uniform(0.97, 1.001, shape)
        candidate = golden + (atol + rtol * np.abs(golden)) * size * random.choice([-1, 1], shape)
        eager = golden * (1 + random.standard_normal(shape) * 2.0 ** -random.integers(5, 20))
        if trial % 5 == 0:
            candidate[0, 0], golden[0, 0] = random.choice([NAN, INF, -INF, 0], 2)
        yield compared(storage, candidate, golden, eager)


def agreement(name, storage, original, tolerances):
    """Hold a rule against its original near the given limits; both answers must occur."""
    answers = set()
    for comparison in itertools.chain.from_iterable(near_limits(storage, *pair) for pair in tolerances):
        with np.errstate(all="ignore"):
            expected = original(comparison)
        assert RIVALS[name].accepts(comparison) == expected, comparison
        answers.add(expected)
    assert answers == {True, False}


def raises_nothing(call, *arguments, **options):
    """Return whether an assertion holds."""
    try:
        call(*arguments, **options)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("storage", rivals.ALL)
def test_agreement_with_numpy(storage):
    """numpy.allclose and JAX's use of numpy.testing.assert_allclose give the same answers on random arrays."""
    agreement("numpy.allclose", storage, lambda c: np.allclose(c.candidate, c.golden), [(1e-5, 1e-8), (1e-6, 1e-9)])
    tolerance = {"float64": 1e-15, "float32": 1e-6, "bfloat16": 1e-2, "float16": 1e-3}[storage]

    def jax(comparison):
        wide = np.float32 if storage == "bfloat16" else comparison.candidate.dtype
        sides = comparison.stored.astype(wide), comparison.candidate.astype(wide)
        return raises_nothing(np.testing.assert_allclose, *sides, rtol=tolerance, atol=tolerance)

    agreement("JAX", storage, jax, [(tolerance, tolerance)])


def torch_originals(torch, storage):
    """Return for each rule that is a line of torch that line, of the tensors candidate, golden (stored) and eager."""
    from torch._dynamo.utils import same

    rtol, atol = {"bfloat16": (1e-2, 1e-2), "float16": (5e-3, 5e-3)}.get(storage, (1e-4, 1e-6))
    tolerance = 1e-4 if storage == "float32" else 1e-2

    def hugging_face(c, _, e):
        magnitude = float(torch.max(c.abs().amax(), e.abs().amax()))
        widened = max(atol, magnitude * 3e-2) if storage == "bfloat16" else atol
        return not np.mean([torch.allclose(x, y, atol=widened, rtol=rtol) for x, y in zip(c, e, strict=True)]) < 0.8

    def flash(c, g, e):
        allowed = 2 * (e - g).abs().max().item() + 2 * (g + 0.3 - 0.3 - g).abs().max().item()
        return (c - g).abs().max().item() <= allowed

    def cosine(c, g, _):
        return bool(torch.nn.functional.cosine_similarity(c.flatten().float(), g.flatten().float(), dim=0) >= 1 - 1e-3)

    return {
        TORCH: (lambda c, g, _: raises_nothing(torch.testing.assert_close, c, g), [rivals._TORCH[storage]]),
        HUGGING_FACE: (hugging_face, [(rtol, atol), (0.03, 0.03)]),
        "KernelBench": (
            lambda c, g, _: torch.allclose(g, c, atol=tolerance, rtol=tolerance),
            [(tolerance, tolerance)],
        ),
        FLASH: (flash, [(2 * 2.0**-k, 0) for k in (5, 8, 11)]),
        "cosine .99": (lambda c, g, _: same(g, c, fp64_ref=g, cos_similarity=True), [(1e-4, 1e-4), (0.15, 0)]),
        "cosine .999": (cosine, [(0.045, 0)]),
    }


@pytest.mark.parametrize(
    ("name", "storage"),
    [pair for pair in PAIRS if pair[0] in (TORCH, HUGGING_FACE, "KernelBench", FLASH, "cosine .99", "cosine .999")],
)
def test_agreement_with_torch(name, storage):
    """The rules that are made of torch's functions give the same answers as these, near the limit too."""
    torch = pytest.importorskip("torch")
    original, tolerances = torch_originals(torch, storage)[name]

    def answer(comparison):
        golden = comparison.golden if name == "cosine .999" else comparison.stored
        sides = (torch.from_numpy(side.astype(np.float64)) for side in (comparison.candidate, golden, comparison.eager))
        return original(*(side if name == "cosine .999" else side.to(getattr(torch, storage)) for side in sides))

    agreement(name, storage, answer, tolerances)
