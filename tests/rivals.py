"""What other tools accept: their published rules, as functions of the arrays that karat judges.

Each rule is followed where it is silly, too. A tool that wants both sides in one format gets the golden, which is
float64, rounded to the storage format: the best reference that fits into it. What the original compares in that format
is compared in it. The originals' checks of shape and format are those of `Comparison`. Where there is no element, no
rule finds anything wrong, though some originals would stop at a maximum of nothing; a number without axes is an array
of one element. In `source`, c is the candidate and g the golden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat.formats import lookup

Array = NDArray[Any]
Floats = NDArray[np.float64]

ALL = ("float64", "float32", "bfloat16", "float16")
LOW = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class Comparison:
    """One checkpoint under judgement; all arrays have one shape.

    Attributes:
        candidate: in the storage format.
        golden: float64.
        eager: the reference's own result in the storage format, for rules that compare with a measured baseline.
        storage: name of the format, one of `ALL`.
    """

    candidate: Array
    golden: Floats
    eager: Array
    storage: str

    def __post_init__(self) -> None:
        """Raise `ValueError` if the arrays do not belong together."""
        if self.storage not in ALL:
            raise ValueError(f"no storage format {self.storage!r}; known: {', '.join(ALL)}")
        found = [(array.shape, array.dtype.name) for array in (self.candidate, self.golden, self.eager)]
        allowed = [(self.golden.shape, name) for name in (self.storage, "float64", self.storage)]
        if found != allowed:
            raise ValueError(f"candidate, golden, eager: found {found}, allowed {allowed}")

    @property
    def stored(self) -> Array:
        """Return the golden rounded to the storage format."""
        return self.golden.astype(lookup(self.storage).dtype)


@dataclass(frozen=True)
class Rival:
    """A published acceptance rule.

    Attributes:
        name: short, for a table.
        source: which tool and version or file, and the exact rule in one line.
        accepts: says whether the rule lets a candidate pass; raises `ValueError` where it does not cover the format.
        formats: the storage formats that it covers.
    """

    name: str
    source: str
    accepts: Callable[[Comparison], bool]
    formats: tuple[str, ...]


def _rival(name: str, judge: Callable[[Comparison], Any], source: str, formats: tuple[str, ...] = ALL) -> Rival:
    """Return the rule `judge`, which is asked only about arrays with axes and elements, in its formats."""

    def accepts(comparison: Comparison) -> bool:
        if comparison.storage not in formats:
            raise ValueError(f"{name} has no rule for {comparison.storage}, only for {', '.join(formats)}")
        if comparison.golden.size == 0:
            return True
        candidate, golden, eager = np.atleast_1d(comparison.candidate, comparison.golden, comparison.eager)
        with np.errstate(all="ignore"):
            return bool(judge(Comparison(candidate, golden, eager, comparison.storage)))

    return Rival(name, source, accepts, formats)


# --- a tolerance for each element


def _close(x: Array, y: Array, rtol: float, atol: float) -> NDArray[np.bool_]:
    """Return torch.isclose(x, y) of two arrays of one format: |x - y| <= atol + |rtol * y|, each step rounded to it.

    NaN is close to nothing, an infinity to itself.
    """
    wide: Any = np.float64 if x.dtype == np.float64 else np.float32  # in which torch multiplies by rtol
    allowed = np.abs((y.astype(wide) * wide(rtol)).astype(x.dtype)) + np.asarray(atol).astype(x.dtype)
    error = np.abs(x - y)
    close: NDArray[np.bool_] = (x == y) | (np.isfinite(error) & (error <= allowed))
    return close


_TORCH = {"float64": (1e-7, 1e-7), "float32": (1.3e-6, 1e-5), "bfloat16": (0.016, 1e-5), "float16": (1e-3, 1e-5)}


def _torch(comparison: Comparison) -> Any:
    return _close(comparison.candidate, comparison.stored, *_TORCH[comparison.storage]).all()


def _numpy(comparison: Comparison) -> bool:
    return np.allclose(comparison.candidate.astype(np.float64), comparison.golden)


_HUGGING_FACE = {"float32": (1e-4, 1e-6), "bfloat16": (1e-2, 1e-2), "float16": (5e-3, 5e-3)}


def _hugging_face(comparison: Comparison) -> Any:
    rtol, atol = _HUGGING_FACE[comparison.storage]
    candidate, eager = comparison.candidate, comparison.eager
    if comparison.storage == "bfloat16":
        magnitude = np.abs(np.stack([candidate, eager]).astype(np.float64)).max()
        atol = max(atol, float(magnitude) * 3e-2)  # a NaN magnitude changes nothing, an infinite one allows everything
    matched = [_close(mine, theirs, rtol, atol).all() for mine, theirs in zip(candidate, eager, strict=True)]
    return not np.mean(matched) < 0.8


_KERNELBENCH = {"float32": 1e-4, "bfloat16": 1e-2, "float16": 1e-2}


def _kernelbench(comparison: Comparison) -> Any:
    tolerance = _KERNELBENCH[comparison.storage]
    return _close(comparison.stored, comparison.candidate, tolerance, tolerance).all()


_JAX = {"float64": 1e-15, "float32": 1e-6, "bfloat16": 1e-2, "float16": 1e-3}


def _jax(comparison: Comparison) -> Any:
    golden, candidate = comparison.stored, comparison.candidate
    if comparison.storage == "bfloat16":
        golden, candidate = golden.astype(np.float32), candidate.astype(np.float32)
    tolerance = _JAX[comparison.storage]
    return np.isclose(golden, candidate, rtol=tolerance, atol=tolerance, equal_nan=True).all()


_ONNX_RUNTIME = {"float64": (1e-5, 1e-5), "float32": (1e-4, 1e-5), "bfloat16": (0.01, 0.02), "float16": (1e-3, 2.5e-3)}


def _onnx_runtime(comparison: Comparison) -> Any:
    wide: Any = np.float64 if comparison.storage == "float64" else np.float32
    rtol, atol = (wide(np.float32(number)) for number in _ONNX_RUNTIME[comparison.storage])
    golden, candidate = comparison.stored.astype(wide), comparison.candidate.astype(wide)
    near = np.abs(np.subtract(golden, candidate, dtype=np.float64)) <= atol + rtol * np.abs(golden)
    if comparison.storage == "float32":
        near |= np.isinf(candidate) & (golden == np.finfo(np.float32).max)
    near = np.where(np.isinf(golden), golden == candidate, near)
    blind = comparison.storage == "bfloat16"  # the original asks again whether the expected value is NaN
    return np.where(np.isnan(golden), blind | np.isnan(candidate), near).all()


def _polygraphy(comparison: Comparison) -> Any:
    golden = comparison.golden
    absolute = np.abs(comparison.candidate.astype(np.float64) - golden)
    relative = absolute / np.abs(np.where(golden == 0, 2.220446049250313e-16, golden))
    return ((absolute <= 1e-5) | (relative <= 1e-5)).all()


# --- one number for the whole array


def _largest(error: Array) -> float:
    return float(np.abs(error).astype(np.float64).max())


def _flash_attention(comparison: Comparison) -> bool:
    golden = comparison.stored
    shift = np.asarray(0.3).astype(golden.dtype)
    allowed = 2 * _largest(comparison.eager - golden) + 2 * _largest(golden + shift - shift - golden)
    return _largest(comparison.candidate - golden) <= allowed


def _ggml(comparison: Comparison, limit: float) -> bool:
    candidate, golden = comparison.candidate.astype(np.float32), comparison.stored.astype(np.float32)
    # 1 or -1 for what counts as infinite, else 0; NaN for NaN, which not even NaN equals
    infinite = [np.sign(side) * (np.abs(side) >= np.finfo(np.float32).max) for side in (candidate, golden)]
    if not (infinite[0] == infinite[1]).all():
        return False
    error, scale = (np.square(side).sum(dtype=np.float64) for side in (candidate - golden, candidate))
    return not error / scale > limit


def _cosine(first: Array, second: Array, least_norm: float) -> float:
    """Return torch.nn.functional.cosine_similarity of two float32 arrays laid flat: 0 where one is 0 or overflows."""
    directions = [side.ravel() / np.maximum(np.sqrt(np.square(side).sum()), least_norm) for side in (first, second)]
    return float((directions[0] * directions[1]).sum())


def _cosine_dynamo(comparison: Comparison) -> Any:
    golden, candidate = comparison.stored.astype(np.float32), comparison.candidate.astype(np.float32)
    close = _close(golden, candidate, 1e-4, 1e-4) | (np.isnan(golden) & np.isnan(candidate))
    return close.all() or _cosine(golden, candidate, 1e-6) >= 0.99


def _cosine_vllm(comparison: Comparison) -> bool:
    golden, candidate = comparison.golden.astype(np.float32), comparison.candidate.astype(np.float32)
    return _cosine(golden, candidate, 1e-8) >= 1 - 1e-3


# --- msprobe: four statistics, each as a ratio to the baseline's


@dataclass(frozen=True)
class _Msprobe:
    """What msprobe's benchmark comparison knows of a format.

    Attributes:
        small: the largest small value.
        atol: how far a small value may be off.
        epsilon: what is added to the denominator of a relative error: eps of the format in which it has the golden.
        least: the least denominator of a ratio; 0 in its earlier version.
    """

    small: float
    atol: float
    epsilon: float
    least: float


_MSPROBE = {
    "float32": _Msprobe(small=2**-20, atol=2**-30, epsilon=2**-52, least=2**-14),
    "bfloat16": _Msprobe(small=2**-10, atol=1e-16, epsilon=2**-8, least=2**-8),  # 1e-16: so in its code
    "float16": _Msprobe(small=2**-10, atol=1e-16, epsilon=2**-23, least=2**-11),
}
_MSPROBE_NO_FLOOR = {
    name: replace(row, atol=2**-30 if name == "float32" else 2**-16, least=0) for name, row in _MSPROBE.items()
}


def _msprobe_statistics(found: Array, golden: Floats, row: _Msprobe) -> tuple[float, ...]:
    """Return the largest and mean relative error, the RMS error, and the share of small values that are off.

    The first three are of values that are not small. What is not finite on either side is in none of them.
    """
    finite = np.isfinite(found) & np.isfinite(golden.astype(np.float16 if found.dtype == np.float16 else np.float32))
    error = np.abs(found.astype(np.float64) - golden)
    small = finite & (np.abs(golden) <= row.small)
    normal = finite & ~small
    relative = error[normal] / (np.abs(golden[normal]) + row.epsilon)
    mean_square = float(np.square(error[normal]).sum()) / error.size
    mean_square *= error.size / (relative.size + 0.0001) + 0.0001
    return (
        float(relative.max(initial=0)),
        float(relative.mean()) if relative.size else 0.0,
        float(np.sqrt(mean_square)),
        float(np.mean(error[small] > row.atol)) if small.any() else 0.0,
    )


def _ratio(mine: float, theirs: float, least: float) -> float:
    if least > 0:
        return mine / max(theirs, least)
    if theirs > 1e-9:
        return mine / theirs
    return 1.0 if mine <= 1e-9 else 10000.0


def _msprobe(comparison: Comparison, rows: dict[str, _Msprobe]) -> bool:
    row, golden = rows[comparison.storage], comparison.golden
    if comparison.storage != "float32":
        golden = golden.astype(np.float32).astype(np.float64)  # it computes the golden one format higher
    mine = _msprobe_statistics(comparison.candidate, golden, row)
    theirs = _msprobe_statistics(comparison.eager, golden, row)
    limits = (2.0, 1.2, 1.2, 2.0)
    return all(_ratio(x, y, row.least) <= limit for x, y, limit in zip(mine, theirs, limits, strict=True))


RIVALS: tuple[Rival, ...] = (
    _rival(
        "torch.testing.assert_close",
        _torch,
        "torch 2.13, torch/testing/_comparison.py: |c - g| <= atol + rtol |g| with rtol, atol = 1e-7, 1e-7 (float64), "
        "1.3e-6, 1e-5 (float32), .016, 1e-5 (bfloat16), 1e-3, 1e-5 (float16); g in the storage format; NaN fails",
    ),
    _rival(
        "numpy.allclose",
        _numpy,
        "NumPy: |c - g| <= 1e-8 + 1e-5 |g| in every format, g in float64; NaN fails",
    ),
    _rival(
        "Hugging Face eager-SDPA",
        _hugging_face,
        "transformers 5, tests/test_modeling_common.py, CPU rows: |c - eager| <= atol + rtol |eager| with rtol, atol = "
        "1e-4, 1e-6 (float32), 5e-3, 5e-3 (float16), 1e-2, max(1e-2, .03 max(|c|, |eager|)) (bfloat16), in each of at "
        "least 80 % of the slices of axis 0, the sequences of the batch; the golden is not looked at; NaN fails its "
        "sequence only; an infinity in bfloat16 lets every finite value pass",
        LOW,
    ),
    _rival(
        "KernelBench",
        _kernelbench,
        "KernelBench, src/kernelbench/eval.py: torch.allclose(g, c), so |g - c| <= t + t |c| with t = 1e-4 (float32), "
        "1e-2 (16 bits); NaN fails",
        LOW,
    ),
    _rival(
        "FlashAttention 2x",
        _flash_attention,
        "FlashAttention 3, hopper/test_flash_attn.py, forward, no softcap: max|c - g| <= 2 max|eager - g| + "
        "2 max|(g + .3 - .3) - g|, all rounded to the storage format (.3, too, as torch has it on the CPU); NaN "
        "fails. Its tests run in 16 bits; no number in the rule depends on that, so float32 is judged as well",
        LOW,
    ),
    _rival(
        "ggml NMSE 1e-7",
        partial(_ggml, limit=1e-7),
        "llama.cpp, tests/test-backend-ops.cpp, default: sum((c - g)^2) / sum(c^2) <= 1e-7 in float32; NaN fails; "
        "infinities (and the largest float32) must be in the same places, and then anything else passes, as does 0/0",
        LOW,
    ),
    _rival(
        "ggml NMSE 5e-4",
        partial(_ggml, limit=5e-4),
        "llama.cpp, tests/test-backend-ops.cpp, of matrix products, convolutions and attention: the same with 5e-4",
        LOW,
    ),
    _rival(
        "cosine .99",
        _cosine_dynamo,
        "torch 2.13, torch._dynamo.utils.same(cos_similarity=True): |g - c| <= 1e-4 + 1e-4 |c|, NaN equal to NaN, "
        "everywhere, or else cosine(g, c) >= .99 of the array laid flat",
    ),
    _rival(
        "cosine .999",
        _cosine_vllm,
        "vLLM, tests/models/utils.py, check_embeddings_close: cosine(g, c) >= 1 - 1e-3, here of the array laid flat; "
        "NaN fails, and so does 0 against 0, whose cosine is 0",
    ),
    _rival(
        "Polygraphy",
        _polygraphy,
        "TensorRT, tools/Polygraphy, CompareFunc.simple(), elementwise: |c - g| <= 1e-5 or |c - g| / |g| <= 1e-5, with "
        "2.2e-16 for a g of 0; NaN fails, and so does an infinity against itself",
    ),
    _rival(
        "msprobe L2",
        partial(_msprobe, rows=_MSPROBE),
        "Ascend/msprobe e05ee44, benchmark comparison of its L2 operations: of the errors of c and of eager against g, "
        "the ratios of largest relative <= 2, mean relative <= 1.2, RMS <= 1.2, share of small values that are off <= "
        "2, each denominator at least 2^-14 (float32), 2^-8 (bfloat16), 2^-11 (float16); blind to what is not finite",
        LOW,
    ),
    _rival(
        "msprobe L2, no floor",
        partial(_msprobe, rows=_MSPROBE_NO_FLOOR),
        "the same without least denominators, with the earlier ratio (Ascend/mstt: below 1e-9, 1 or 10000), and with "
        "2^-16 for 1e-16 as the tolerance of small values in 16 bits; sharper, and published in no one version",
        LOW,
    ),
    _rival(
        "JAX",
        _jax,
        "JAX, jax/_src/public_test_util.py and test_util.py: assert_allclose(g, c), so |g - c| <= t + t |c| with t = "
        "1e-15 (float64), 1e-6 (float32), 1e-2 (bfloat16), 1e-3 (float16); NaN equals NaN",
    ),
    _rival(
        "ONNX Runtime",
        _onnx_runtime,
        "ONNX Runtime, onnxruntime/test/unittest_util/checkers.cc, inference: |c - g| <= atol + rtol |g| with rtol, "
        "atol = 1e-5, 1e-5 (float64), 1e-4, 1e-5 (float32), .01, .02 (bfloat16), 1e-3, 2.5e-3 (float16); NaN equals "
        "NaN; in bfloat16 anything passes where g is NaN",
    ),
)
