"""Tells where a candidate computes more exactly than its contract: no mistake, but not what it promised either."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from karat import formats, noise
from karat.compare import Floats, Predicted
from karat.tolerances import Contract

_ENOUGH = 64  # elements: by chance, a quarter of them or so lie within half a unit
_NOISY = 1.5  # units in the last place: no sigma of less tells one rounding from many
_HALF = 0.5 + 2.0**-20


def finer_text(
    candidate: Floats, golden: Floats, judged: NDArray[np.bool_] | None, allowance: Predicted, contract: Contract
) -> str:
    """Return what to say where the contract rounds each operation and the candidate rounded the golden once, else "".

    `candidate` and `golden` have one shape, to which `judged` is broadcastable. Looked at are the elements that the
    format cannot hold and in which rounding each operation is expected to be off by more than a unit in the last place:
    where all of them are the number that is nearest to the golden, operations were not rounded as the contract says.
    """
    storage = formats.lookup(contract.storage)
    inside = {contract.storage, contract.accumulation, contract.products}
    if contract.once or len(inside) > 1 or storage.significand_bits == 53:
        return ""
    counted = np.isfinite(golden) & np.isfinite(candidate)
    if judged is not None:
        counted &= judged
    with np.errstate(invalid="ignore"):
        unit = np.maximum(np.ldexp(1.0, np.frexp(golden)[1] - storage.significand_bits), storage.smallest)
        noisy = counted & (golden.astype(storage.dtype) != golden)  # sums of numbers of few digits may be exact
        noisy &= np.sqrt(noise.variance(allowance, golden)) > _NOISY * unit
        nearest = np.abs(candidate - golden) <= _HALF * unit
    number = int(np.count_nonzero(noisy))
    if number < _ENOUGH or not nearest[noisy].all():
        return ""
    return (
        f"rounded once: {number} of {number} elements that {storage.name} arithmetic would scatter are the numbers"
        f" nearest to the golden; it is computed in a finer format than {contract.name} promises"
    )
