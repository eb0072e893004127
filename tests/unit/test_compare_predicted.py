"""karat.compare: statistics in sigma are those of slow float64 one-liners, whatever the shape, blocks and masks."""

import errno
import math
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from karat import compare as module
from karat import formats, parts
from karat.compare import Flat, Predicted, Scale, compare

approx: Any = pytest.approx
NEAR = 3e-5  # relative: sigma statistics are summed in float32
SHAPES = [(), (0,), (1,), (3, 0), (3, 5), (2, 3, 4), (40, 3), (17,), (5, 16), (3, 2, 17), (2, 1000), (1, 1, 1)]
EDGES = [31, 32, 33, 64, 65, 127, 128, 129, 255, 256, 257, 1000]  # around blocks of 32 and parts of 128


def draw(shape, key=1, dtype=np.float64, kinds=2, spread=3):
    """Return a candidate of a format, a golden and what is predicted, with sigma over 10^spread."""
    random = np.random.Generator(np.random.Philox(key=key))
    golden = random.standard_normal(shape) * 10.0 ** random.uniform(-2, 2, shape)
    scales = tuple(Scale(random.integers(255 - 27 * spread, 256, shape, np.uint8), 0.01) for _ in range(kinds))
    predicted = Predicted(scales, 2.5, floor=1e-9)
    candidate = np.asarray(golden + sigma_of(predicted, golden) * random.standard_normal(shape))
    return candidate.astype(dtype), golden, predicted


def sigma_of(predicted, golden):
    """Return sigma of each element, from the definition."""
    return np.sqrt(sum((s.values() ** 2 for s in predicted.scales), np.full(golden.shape, predicted.floor**2)))


def row_axes(shape):
    """Return how many of the last axes make a row: one, or as many as have 16 elements."""
    return next((n for n in range(1, len(shape) + 1) if math.prod(shape[-n:]) >= 16), len(shape))


def root_mean(squares, counted):
    """Return the root of the mean of squares over the last axis, 0 where none is counted."""
    return np.sqrt(squares.sum(-1) / np.maximum(counted.sum(-1), 1))


def expected(candidate, golden, predicted, judged=None):
    """Return the statistics in float64, by their definitions; everything is finite."""
    x, y, sigma = candidate.astype(np.float64), golden, sigma_of(predicted, golden)
    counted = np.broadcast_to(True if judged is None else judged, y.shape)
    e, z, n = np.where(counted, x - y, 0), np.where(counted, (x - y) / sigma, 0), max(int(counted.sum()), 1)
    y, w = np.where(counted, y, 0), np.where(counted, 1 / sigma**2, 0)
    axes = row_axes(y.shape)
    leading = y.shape[: y.ndim - axes]
    size = (math.prod(y.shape[y.ndim - axes :]),)
    rows = root_mean((z * z).reshape(leading + size), counted.reshape(leading + size)) if z.size else np.zeros(0)
    slices = []
    for axis, length in enumerate(leading if z.size else ()):
        part = (length, z.size // length)
        each = root_mean(np.moveaxis(z * z, axis, 0).reshape(part), np.moveaxis(counted, axis, 0).reshape(part))
        slices.append((axis, int(each.argmax()), float(each.max())))
    g = float((w * e * y).sum() / (w * y * y).sum()) if (w * y * y).any() else 0.0
    x = y + e
    return {
        "elements": int(counted.sum()),
        "mismatched": int((np.abs(z) > predicted.max_sigma).sum()),
        "max_abs": float(np.abs(e).max(initial=0)),
        "rms_abs": math.sqrt((e**2).sum() / n),
        "cosine": float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum())) if counted.any() else 1.0,
        "nmse": float((e * e).sum() / (y * y).sum()) if counted.any() else 0.0,
        "rms_sigma": math.sqrt((z**2).sum() / n),
        "max_sigma": float(np.abs(z).max(initial=0)),
        "used": float(np.abs(z).max(initial=0)) / predicted.max_sigma,
        "row_sigma": float(rows.max(initial=0)),
        "row": tuple(int(i) for i in np.unravel_index(rows.argmax(), leading)) if rows.size else None,
        "worst": tuple(int(i) for i in np.unravel_index(np.abs(z).argmax(), y.shape)) if z.any() else None,
        "slices": slices,
        "gain": g,
        "gain_error": (w * y * y).sum() ** -0.5 if (w * y * y).any() else math.inf,
        "bias": float(z.sum() / n),
        "bias_error": float(counted.sum()) ** -0.5 if counted.any() else math.inf,
    }


def agree(found, wanted):
    """Assert that statistics are the expected ones: counts and places exactly, numbers to what float32 sums give."""
    for name, value in wanted.items():
        got = getattr(found, name)
        if name == "slices":
            assert [(axis, index) for axis, index, _ in got] == [(axis, index) for axis, index, _ in value]
            assert [rms for *_, rms in got] == approx([rms for *_, rms in value], rel=NEAR)
        elif name in ("gain", "bias"):
            noise = wanted[f"{name}_error"]
            assert got == approx(value, rel=NEAR, abs=NEAR * noise if math.isfinite(noise) else 0), name
        elif isinstance(value, float):
            assert got == approx(value, rel=NEAR), name
        else:
            assert got == value, name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_statistics_are_those_of_the_definitions(shape):
    """Max, RMS, rows, slices, gain, bias, cosine and NMSE of arrays of any shape: rows are the last 16 or more."""
    candidate, golden, predicted = draw(shape)
    agree(compare(candidate, golden, predicted), expected(candidate, golden, predicted))


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("width", [None, 7, 100])
def test_blocks_and_threads_do_not_show(size, width, monkeypatch):
    """Where a block or a part ends, within a row or between two, changes no statistic."""
    monkeypatch.setattr(module, "_BLOCK", 32)
    monkeypatch.setattr(module, "_PART", 128)
    monkeypatch.setattr(module, "_DOT", 8)
    shape = (size,) if width is None else (size // 3, width)
    candidate, golden, predicted = draw(shape, key=size)
    agree(compare(candidate, golden, predicted), expected(candidate, golden, predicted))
    judged = np.random.Generator(np.random.Philox(key=2)).random(shape) < 0.5
    agree(compare(candidate, golden, predicted, judged=judged), expected(candidate, golden, predicted, judged))


@pytest.mark.parametrize("kinds", [0, 1, 2, 3])
@pytest.mark.parametrize("joint", [1, 1 << 40], ids=["joint", "single"])
def test_however_many_scales_there_are_sigma_is_their_root_sum_of_squares(kinds, joint, monkeypatch):
    """Two scales are looked up in one table where the array is large; more, and those of small arrays, one by one."""
    monkeypatch.setattr(module, "_JOINT", joint)
    monkeypatch.setattr(module, "_BLOCK", 32)
    for spread in (1, 9):
        candidate, golden, predicted = draw((5, 50), key=kinds, kinds=kinds, spread=spread)
        uneven = tuple(Scale(s.codes, s.top * 3.0**-n) for n, s in enumerate(predicted.scales))
        predicted = Predicted(uneven, predicted.max_sigma, floor=predicted.floor)
        agree(compare(candidate, golden, predicted), expected(candidate, golden, predicted))


@pytest.mark.parametrize("kinds", [1, 2, 3])
@pytest.mark.parametrize("joint", [1, 1 << 40], ids=["joint", "single"])
@pytest.mark.parametrize("top", [1e-120, 1e-17, 1e-7, 1.0, 1e17, 1e120])
def test_an_element_of_a_quintillionth_is_judged_by_its_own_sigma(kinds, joint, top, monkeypatch):
    """A golden that is 1e-18 of the largest, with a sigma that is small accordingly: right passes, 0 is a mismatch."""
    monkeypatch.setattr(module, "_JOINT", joint)
    golden = top * np.array([1.0, 1e-18, 1e-18])
    codes = np.searchsorted(Scale(np.arange(256, dtype=np.uint8), 1.0).values(), [1.0, 1e-18, 1e-18]).astype(np.uint8)
    predicted = Predicted(tuple(Scale(codes, 1e-4 * top) for _ in range(kinds)), 4.0)
    assert sigma_of(predicted, golden)[2] / golden[2] == approx(1e-4 * math.sqrt(kinds), rel=0.3)
    right = compare(golden * (1 + 1e-4), golden, predicted)
    assert (right.mismatched, right.rms_sigma) == (0, approx(1 / math.sqrt(kinds), rel=0.3))
    wrong = compare(np.array([golden[0], golden[1], 0.0]), golden, predicted)
    assert (wrong.mismatched, wrong.worst) == (1, (2,))
    assert wrong.max_sigma == approx(1e4 / math.sqrt(kinds), rel=0.3)


def test_rows_that_are_too_many_are_joined(monkeypatch):
    """At most so many rows are kept: of very many short ones several are one."""
    monkeypatch.setattr(module, "_MOST_ROWS", 4)
    candidate, golden, predicted = draw((3, 5, 20))
    found = compare(candidate, golden, predicted)
    z = (candidate - golden) / sigma_of(predicted, golden)
    means = np.sqrt(np.mean(z**2, axis=(1, 2)))
    assert (found.row, found.row_sigma) == ((means.argmax(),), approx(means.max(), rel=NEAR))


@pytest.mark.parametrize("blocks", [0, 1, 2, 16, 17])
def test_large_arrays_are_compared_as_small_ones(blocks):
    """The real sizes of blocks and parts: one element more than a part, rows longer than a block."""
    size = blocks * module._BLOCK + 1
    candidate, golden, predicted = draw((size,), key=blocks, kinds=1)
    agree(compare(candidate, golden, predicted), expected(candidate, golden, predicted))


@pytest.mark.parametrize("shape", [(500, 3000), (3, 1 << 19), (1 << 11, 1 << 10)], ids=str)
def test_the_number_of_threads_or_processes_changes_no_bit(shape, monkeypatch):
    """The same statistics, to the last bit, whoever computes which part and when, and whoever is lost."""
    monkeypatch.setattr(module, "_PART", 1 << 18)
    candidate, golden, predicted = draw(shape, dtype=np.float32, spread=1)
    in_processes, received = parts.in_processes, []

    def watched(compute, starts):
        totals = in_processes(compute, starts)
        received.append(0 if totals is None else len(totals))
        return totals

    def found(number, *, forked):
        monkeypatch.setattr(parts, "available", lambda: number)
        monkeypatch.setattr(module, "_FORKED", 1 if forked else math.inf)
        return compare(candidate, golden, predicted, significand_bits=24)

    first = found(1, forked=False)
    assert [found(number, forked=False) for number in (2, 3, 2)] == [first] * 3
    monkeypatch.setattr(parts, "in_processes", watched)
    assert [found(number, forked=True) for number in (2, 3, 4)] == [first] * 3
    if parts.can_fork():
        assert received == [received[0]] * 3
        assert received[0] > 2
    monkeypatch.setattr(parts, "in_processes", lambda compute, starts: watched(compute, starts) and None)
    assert found(3, forked=True) == first


def test_large_arrays_are_shared_among_processes(monkeypatch):
    """Threads wait for the interpreter, processes do not: from so many elements on there are processes."""
    asked = []
    monkeypatch.setattr(parts, "can_fork", lambda: True)
    monkeypatch.setattr(parts, "in_processes", lambda _, starts: asked.append(len(starts)))
    monkeypatch.setattr(module, "_FORKED", 1 << 10)
    for size in ((1 << 10) - 1, 1 << 10):
        candidate, golden, predicted = draw((size,))
        agree(compare(candidate, golden, predicted), expected(candidate, golden, predicted))
    assert asked == [1]


def test_an_error_of_ones_own_is_not_taken_for_refused_memory(monkeypatch):
    """A program's time limit may be raised here: it is not swallowed, and nothing is done again."""
    candidate, golden, predicted = draw((100, 30))

    def limited(*_):
        raise TimeoutError

    monkeypatch.setattr(parts, "can_fork", lambda: True)
    monkeypatch.setattr(module, "_FORKED", 1)
    monkeypatch.setattr(parts, "in_processes", limited)
    with pytest.raises(TimeoutError):
        compare(candidate, golden, predicted)


def test_where_no_memory_can_be_shared_there_are_threads(monkeypatch):
    """The system may refuse it; the statistics are the same."""
    candidate, golden, predicted = draw((100, 30))

    def refusing(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    found = compare(candidate, golden, predicted)
    monkeypatch.setattr(parts, "can_fork", lambda: True)
    monkeypatch.setattr(module, "_FORKED", 1)
    monkeypatch.setattr(parts, "shared_zeros", refusing)
    assert compare(candidate, golden, predicted) == found


@pytest.mark.parametrize("shape", [(1 << 22,), (1 << 10, 1 << 12), (1 << 17, 32)], ids=str)
def test_memory_does_not_grow_with_the_arrays(shape):
    """Beside the arrays there are working arrays of a few blocks, and what is kept of each row."""
    random = np.random.Generator(np.random.Philox(key=4))
    golden = random.standard_normal(shape)
    candidate, codes = golden.astype(np.float32), random.integers(100, 256, shape, np.uint8)
    predicted = Predicted((Scale(codes, 1e-5), Scale(codes, 1e-6)), 10)
    tracemalloc.start()
    compare(candidate, golden, predicted, significand_bits=24)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 30e6


def test_memory_does_not_grow_with_what_is_in_another_order():
    """An array in another order than C is not copied whole; the statistics are those of the copy."""
    golden = np.random.Generator(np.random.Philox(key=5)).standard_normal((1 << 11, 1 << 11))
    candidate = np.asfortranarray(golden.astype(np.float32))
    tracemalloc.start()
    found = compare(candidate, golden, Flat(1e-9, 0), significand_bits=24)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == compare(np.ascontiguousarray(candidate), golden, Flat(1e-9, 0), significand_bits=24)
    assert candidate.nbytes == 1 << 24
    assert most < 40e6  # the working arrays, as of one in the order of C


def test_memory_is_bounded_where_values_are_rounded_once(monkeypatch):
    """The distance to intervals needs more arrays, so blocks are shorter: four threads stay below 64 MB too."""
    monkeypatch.setattr(parts, "available", lambda: 4)
    golden = np.random.Generator(np.random.Philox(key=6)).standard_normal((1 << 19, 16)).astype(np.float32)
    candidate = golden.astype(ml_dtypes.bfloat16)
    codes = np.full(golden.shape, 255, np.uint8)
    predicted = Predicted((Scale(codes, 1e-5),), 10, interval=formats.rounding_intervals("bfloat16"))
    tracemalloc.start()
    compare(candidate, golden, predicted, significand_bits=8)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 64e6


MASKS = {
    "all": True,
    "none": False,
    "rows": [[True], [False], [True]],
    "columns": np.arange(20) % 3 == 0,
    "some": np.arange(60).reshape(3, 20) % 7 != 0,
    "one": np.arange(60).reshape(3, 20) == 33,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("garbage", [None, np.nan, np.inf, 1e300])
def test_only_what_is_judged_counts(mask, garbage):
    """A mask broadcasts; what a candidate leaves elsewhere changes no statistic, be it finite or not."""
    candidate, golden, predicted = draw((3, 20))
    judged = np.asarray(mask)
    if garbage is not None:
        candidate[~np.broadcast_to(judged, candidate.shape)] = garbage
    with np.errstate(all="ignore"):
        wanted = expected(candidate, golden, predicted, judged)
    agree(compare(candidate, golden, predicted, judged=judged), wanted)


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_candidates_of_every_format_are_compared_in_float64(name):
    """The error is that of the candidate's exact value, whatever its format."""
    candidate, golden, predicted = draw((8, 33), dtype=np.dtype(getattr(ml_dtypes, name, name)))
    agree(compare(candidate, golden, predicted), expected(candidate, golden, predicted))


def test_other_layouts_are_the_same_arrays():
    """Transposed, strided, read-only and memory-mapped arrays are what they hold."""
    candidate, golden, predicted = draw((6, 40))
    scales = tuple(Scale(np.asfortranarray(scale.codes), scale.top) for scale in predicted.scales)
    wide = np.zeros((6, 80))
    wide[:, ::2] = candidate
    found = compare(wide[:, ::2], np.asfortranarray(golden), Predicted(scales, 2.5, floor=1e-9))
    assert found == compare(candidate, golden, predicted)


def test_memory_mapped_arrays_are_compared_where_they_are(tmp_path, monkeypatch):
    """Candidate, golden and codes may be memory-mapped; no byte of them is changed."""
    monkeypatch.setattr(module, "_PART", 256)
    candidate, golden, predicted = draw((30, 40), dtype=np.float32)
    mapped = []
    for number, array in enumerate((candidate, golden, predicted.scales[0].codes, predicted.scales[1].codes)):
        np.save(tmp_path / f"{number}.npy", array)
        mapped.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    scales = tuple(Scale(codes, 0.01) for codes in mapped[2:])
    found = compare(mapped[0], mapped[1], Predicted(scales, 2.5, floor=1e-9), judged=np.arange(40) > 3)
    assert found == compare(candidate, golden, predicted, judged=np.arange(40) > 3)


def test_a_flat_allowance_has_no_statistics_in_sigma():
    """Where nothing is predicted nothing is said in sigma; ULP, cosine and NMSE are reported all the same."""
    found = compare(np.array([3.0, 4.5]), np.array([3.0, 4.0]), module.Flat(1, 0))
    assert (found.rms_sigma, found.max_sigma, found.row_sigma, found.row, found.slices) == (None, None, None, None, ())
    assert (found.gain, found.gain_error, found.bias, found.bias_error) == (None,) * 4
    assert (found.nmse, found.cosine) == (0.01, approx(27 / math.sqrt(25 * 29.25), rel=1e-15))
    assert found.max_ulp == 0.5 * 2**50


@pytest.mark.parametrize(("error", "used"), [(0.0, 0.0), (1e-12, np.inf)])
def test_nothing_may_be_allowed(error, used):
    """A limit of no sigma is used up by any error, and by none if there is none."""
    golden = np.ones(20)
    allowance = Predicted((Scale(np.full(20, 255, np.uint8), 1e-8),), max_sigma=0.0)
    assert compare(golden + error, golden, allowance).used == used
