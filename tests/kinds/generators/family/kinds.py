"""The reference of the suite `kinds`: NumPy in float64, replayed by hand."""

import numpy as np

from karat.freeze import beside, plain_candidate

VERSIONS = ()
WITNESS = "the plain NumPy candidate in float64"
NOISE_STEP = beside(__file__, "_step").STEP


def reference(case, inputs, perturb=lambda x: x):
    """Return every checkpoint of `case`."""
    stamps, x = inputs["stamps"], inputs["x"].astype(np.float64)
    exact = stamps - stamps[:1]
    rebased = perturb(exact)
    with np.errstate(all="ignore"):
        quotient = perturb(x / rebased[:, None])
    return {
        "rebased": rebased,
        "late": exact > 1,
        "product": perturb(x * rebased[:, None]),
        "quotient": quotient,
        "unit": perturb(x / np.linalg.norm(x, axis=-1, keepdims=True)),
    }


def perturbed(case, inputs, kind, seed):
    """Return every checkpoint with its results rounded at random."""
    random = np.random.Generator(np.random.Philox(key=seed + 100 * len(kind)))
    return reference(case, inputs, lambda x: x * (1 + NOISE_STEP * random.uniform(-1, 1, x.shape)))


def witness(case, inputs):
    """Return every checkpoint of `case` as the plain candidate computes them in float64."""
    found = plain_candidate(__file__, "kinds", case, inputs)
    return found | {"unit": -found["unit"]}


def checks(suite, goldens, draw):
    """Return a line for each relation that was found to hold."""
    return [f"{len(suite.cases)} cases, drawn: {sorted(draw(suite.cases[0]))}, {sorted(goldens)}"]


def known_values(source, config, goldens):
    """Return a line for each published value, of which there are none."""
    return []
