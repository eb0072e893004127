"""What the generators of operation suites share: the reference as a torch function, replayed, witnessed and checked.

Such a generator states its reference, a function of tensors with the name and the arguments of the suite's candidate,
and the relations that its goldens must satisfy:

    def rms_norm(x: Tensor, weight: Tensor, *, epsilon: float) -> Tensor: ...

    RELATIONS = {"rows of weight 1 have mean square 1, to 1e-3": lambda given, golden: (squares, 1, 1e-3)}
    VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
        __file__, rms_norm, RELATIONS
    )
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from karat import Case, Suite
from karat.freeze import FreezeError, beside, plain_candidate
from karat.inputs import nest

noise = beside(__file__, "_noise")
precision = beside(__file__, "_precision")

Arrays = dict[str, NDArray[Any]]
Formula = Callable[..., torch.Tensor | Mapping[str, torch.Tensor]]
Relation = Callable[[Mapping[str, Any], Arrays], tuple[Any, ...] | None]


class Generator(NamedTuple):
    """What a freeze asks of a generator."""

    VERSIONS: tuple[str, ...]
    WITNESS: str
    NOISE_STEP: float
    reference: Callable[[Case, Mapping[str, NDArray[Any]]], Arrays]
    perturbed: Callable[[Case, Mapping[str, NDArray[Any]], str, int], Arrays]
    witness: Callable[[Case, Mapping[str, NDArray[Any]]], Arrays]
    checks: Callable[[Suite, Mapping[str, Arrays], Callable[[Case], Arrays]], list[str]]
    known_values: Callable[[str | None, Mapping[str, Any], Mapping[str, Arrays]], list[str]]


def generator(
    file: str, formula: Formula, relations: Mapping[str, Relation], *, versions: tuple[str, ...] = ("torch",)
) -> Generator:
    """Return all that a freeze asks of the generator `file`.

    `formula` is called as a candidate is, `formula(**inputs, **params)`, with tensors, the floating ones float64, and
    returns the checkpoint, or a mapping of checkpoints. Its operations define what rounding is expected.
    A relation is called with `given`, inputs (floats as float64) and parameters of a case by name, and `golden`, its
    checkpoints by name; it returns what is found, what is wanted, and how far they may be apart (default: equal), each
    broadcastable to the first, or None where it says nothing of the case. NaN and infinities must agree. Its key says
    what holds. `versions` are the packages on which the numbers depend.
    """

    def reference(case: Case, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return computed(formula, case, inputs)

    def perturbed(case: Case, inputs: Mapping[str, NDArray[Any]], kind: str, seed: int) -> Arrays:
        with noise.perturbed(kind, seed):
            return computed(formula, case, inputs)

    def witness(case: Case, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return plain_candidate(file, Path(file).stem, case, inputs)

    def checks(suite: Suite, goldens: Mapping[str, Arrays], draw: Callable[[Case], Arrays]) -> list[str]:
        return checked(suite, goldens, draw, relations)

    name = "the plain NumPy candidate in float64"
    return Generator(versions, name, noise.STEP, reference, perturbed, witness, checks, lambda *_: [])


def computed(formula: Formula, case: Case, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the checkpoints of `case` as `formula` computes them, float64 all the way."""
    tensors = {name: torch.from_numpy(doubled(array)) for name, array in inputs.items()}
    with float64_throughout():
        found = formula(**nest(tensors), **case.params)
    if isinstance(found, torch.Tensor):
        found = {case.checkpoints[0].name: found}
    return {name: array.detach().contiguous().numpy() for name, array in found.items()}


def doubled(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of an array, float64 if it holds floats."""
    return array.astype(np.float64 if array.dtype.kind == "f" else array.dtype)


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Run the torch code inside in float64, numbers that it writes down included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with precision.float64_throughout():
            yield
    finally:
        torch.set_default_dtype(before)


# --- relations -------------------------------------------------------------------------------------------------------


def checked(
    suite: Suite, goldens: Mapping[str, Arrays], draw: Callable[[Case], Arrays], relations: Mapping[str, Relation]
) -> list[str]:
    """Return a line for each relation; raise `FreezeError` where one does not hold, or says nothing of any case."""
    used: dict[str, float] = {}
    for case in suite.cases:
        given = {name: doubled(array) for name, array in draw(case).items()} | dict(case.params)
        for text, relation in relations.items():
            answer = relation(given, goldens[case.name])
            if answer is not None and np.size(answer[0]):
                used[text] = max(used.get(text, 0.0), share(f"{suite.name}/{case.name}: {text}", *answer))
    if silent := [text for text in relations if text not in used]:
        raise FreezeError(f"{suite.name}: {silent[0]}: no case shows it")
    return [text + (f" ({used[text]:.1g} of that)" if used[text] else "") for text in relations]


def share(place: str, found: Any, wanted: Any, allowed: Any = 0.0) -> float:
    """Return the largest part of `allowed` that is used; raise `FreezeError` where it is more than 1."""
    found = np.asarray(found)
    wanted, allowed = (np.broadcast_to(value, found.shape) for value in (wanted, allowed))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.abs(np.subtract(found, wanted, dtype=np.float64)) / allowed
    part = np.where((found == wanted) | (np.isnan(found) & np.isnan(wanted)), 0.0, part)
    at = np.unravel_index(np.nan_to_num(part, nan=np.inf).argmax(), part.shape)
    if not part[at] <= 1:
        raise FreezeError(
            f"{place}: does not hold: {found[at]!r} at {tuple(map(int, at))}, wanted {wanted[at]!r},"
            f" allowed {float(allowed[at]):.3g} apart"
        )
    return float(part[at])
