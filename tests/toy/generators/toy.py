"""The reference of the suite `toy`: NumPy in float64."""

import numpy as np

from karat.freeze import plain_candidate

VERSIONS = ()
WITNESS = "the plain NumPy candidate in float64"


def reference(case, inputs):
    """Return every checkpoint of `case`, float64 and int64."""
    x, scale, bias, head = (
        inputs[name].astype(np.float64) for name in ("x", "weights/scale", "weights/bias", "weights/head")
    )
    scaled = np.tanh(x * scale + bias)  # (B, T, D)
    scores = case.params["gain"] * np.einsum("btd,dv->btv", scaled, head)  # (B, T, V)
    return {"scaled": scaled, "scores": scores, "choice": scores.argmax(-1)}


def witness(case, inputs):
    """Return every checkpoint of `case` as the plain candidate computes them in float64."""
    return plain_candidate(__file__, "toy", case, inputs)


def checks(suite, goldens, draw):
    """Return a line for each relation that was found to hold."""
    bounded = all(np.abs(found["scaled"]).max() < 1 for found in goldens.values())
    return [f"scaled is inside (-1, 1): {bounded}; drawn: {sorted(draw(suite.cases[0]))}"]


def known_values(source, config, goldens):
    """Return a line for each published value, of which there are none."""
    return ["not checked: nobody publishes values of a toy"]
