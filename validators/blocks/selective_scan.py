"""The selective scan of Mamba (Gu and Dao 2023). Symbols: B batch, L tokens, D channels, N states of a channel."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from karat import Case, Checkpoint, Dyadic, Literal, Property, Recipe, Suite, causality, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function, all inputs by name
    selective_scan(u, delta, a_log, b, c, d, delta_bias, z=None, initial_state=None)
        -> {"step_size": …, "states": …, "y": …, "output": …, "final_state": …}
  u              (B, L, D), what is scanned
  delta          (B, L, D), before bias and softplus
  a_log          (D, N): A = -exp(a_log)
  b, c           (B, L, N), shared by the channels
  d, delta_bias  (D,)
  z              (B, L, D), the gate; in some cases there is none
  initial_state  (B, D, N), the state before the first token; in some cases there is none, and it is 0
All inputs are in storage.

  step_size    (B, L, D) in the accumulation format: softplus(delta + delta_bias), with softplus(x) = ln(1 + e^x)
  states       (B, L, D, N) in the accumulation format; some tokens are judged. h before the first token is the initial
               state, then h_t = exp(step_size_t A) h_{t-1} + step_size_t b_t u_t, element by element: channels take the
               b of their token, and states the u of their channel
  y            (B, L, D) in storage: the sum over n of c_t,n h_t,n, plus d u_t
  output       (B, L, D) in storage: y z / (1 + e^-z), or y where there is no gate
  final_state  (B, D, N) in the accumulation format: h after the last token
Step sizes, A, states and their sums are computed in the accumulation format (float32 where storage has 16 bits), as
Mamba's own kernels do. Under bfloat16 and float16 y and the gate may be rounded to storage before they are multiplied;
under the contracts that round once they may not. Any order of the scan will do: token by token, in chunks, as a tree.
Without tokens the final state is the initial one.

Must be refused (raise, or exit with another code than 0): u that has not three axes; delta or z of another shape than
u; a_log that is not (D, N); b or c that is not (B, L, N); d or delta_bias that is not (D,); an initial state that is
not (B, D, N).
"""

CONTRACTS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
TOKENS = ("batch", "token", "channel")


def drawn(name: str, sizes: tuple[int, int, int, int], **offsets: int) -> dict[str, Recipe]:
    """Return the inputs of the sizes (B, L, D, N), all random; `offsets` are means of delta and a_log in 2^-6."""
    B, L, D, N = sizes
    shapes: dict[str, tuple[tuple[int, ...], int]] = {
        "u": ((B, L, D), -5),
        "delta": ((B, L, D), -6),
        "a_log": ((D, N), -6),
        "b": ((B, L, N), -5),
        "c": ((B, L, N), -5),
        "d": ((D,), -5),
        "delta_bias": ((D,), -6),
        "z": ((B, L, D), -5),
        "initial_state": ((B, D, N), -5),
    }
    means = {"delta": -40, "delta_bias": -30} | offsets
    return {
        key: Dyadic(shape, f"selective_scan/{name}/{key}", exponent=exponent, offset=means.get(key, 0))
        for key, (shape, exponent) in shapes.items()
    }


def case(
    name: str,
    about: str,
    sizes: tuple[int, int, int, int],
    *,
    without: tuple[str, ...] = (),
    given: Mapping[str, Recipe] | None = None,
    **offsets: int,
) -> Case:
    """Return the case of the sizes (B, L, D, N) `without` some inputs, with others `given`."""
    B, L, D, N = sizes
    inputs = {key: recipe for key, recipe in drawn(name, sizes, **offsets).items() if key not in without}
    some = {"token": (L - L // 2 - 1, L - L // 2 + 1)} if L > 3 else {}
    return Case(
        name,
        inputs | dict(given or {}),
        {},
        (
            Checkpoint("step_size", (B, L, D), TOKENS, dtype="accumulation"),
            Checkpoint("states", (B, L, D, N), (*TOKENS, "state"), dtype="accumulation", keep=some),
            Checkpoint("y", (B, L, D), TOKENS),
            Checkpoint("output", (B, L, D), TOKENS),
            Checkpoint("final_state", (B, D, N), ("batch", "channel", "state"), dtype="accumulation"),
        ),
        about=about,
    )


def refused(name: str, refuses: str, shape: tuple[int, ...]) -> Case:
    """Return a case in which the input `name` has the wrong shape."""
    wrong = Dyadic(shape, f"selective_scan/refused/{name}/{math.prod(shape)}", exponent=-6)
    right = drawn("refused", (2, 5, 4, 3))
    return Case(f"refused-{name.replace('_', '-')}", right | {name: wrong}, {}, (), refuses=refuses)


def steps(name: str, shape: tuple[int, int, int], exponents: tuple[int, ...], offset: int) -> Dyadic:
    """Return deltas of one sign; those of row i are about offset * 2^exponents[i]."""
    return Dyadic(
        shape, f"selective_scan/{name}/delta", exponent=0, offset=offset, narrow=True, row_exponents=exponents
    )


REAL_A = Literal(tuple(tuple(round(64 * math.log(n)) / 64 for n in range(1, 17)) for _ in range(3)), "float32")

CASES = (
    case("typical", "step sizes of about 0.3", (2, 37, 6, 4)),
    case("long", "states that last", (1, 150, 3, 5), a_log=-160),
    case("one-token", "one token after others, as decoding has it", (3, 1, 5, 4)),
    case("two-tokens", "two tokens after others", (4, 2, 7, 3)),
    case("small-steps", "step sizes of 1e-10 to 0.1: the initial state stays", (3, 11, 5, 4),
         given={"delta": steps("small-steps", (3, 11, 5), (-3, -4, -6), -128)}),
    case("large-steps", "step sizes about 50 and 100, which forget", (2, 13, 5, 6),
         given={"delta": steps("large-steps", (2, 13, 5), (-1, -2), 192)}),
    case("huge-steps", "step sizes about 1000, whose exponentials overflow", (1, 9, 7, 3),
         given={"delta": steps("huge-steps", (1, 9, 7), (3,), 128),
                "u": Dyadic((1, 9, 7), "selective_scan/huge-steps/u", exponent=-12)}),
    case("middle-steps", "step sizes from 1 to 17, where softplus is nearly the identity", (2, 13, 5, 4),
         given={"delta": Dyadic((2, 13, 5), "selective_scan/middle-steps/delta", exponent=-3, offset=80)}),
    case("no-gate", "no gate", (2, 17, 5, 3), without=("z",)),
    case("no-initial-state", "the state begins at 0", (2, 23, 4, 5), without=("initial_state",)),
    case("real", "A = -1 … -16, as Mamba begins", (1, 29, 3, 16), given={"a_log": REAL_A}),
    case("one-state", "one state", (2, 19, 5, 1)),
    case("no-tokens", "nothing to scan", (2, 0, 5, 4)),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows",
         (2, 14, 5, 4)).fine("float64", "float32"),
    refused("u", "u of two axes", (5, 4)),
    refused("delta", "a step size for each token, not for each channel", (2, 5, 1)),
    refused("a_log", "A of three channels for four", (3, 3)),
    refused("b", "b of four states for three", (2, 5, 4)),
    refused("c", "c of four tokens for five", (2, 4, 3)),
    refused("d", "d of one channel for four", (1,)),
    refused("delta_bias", "a bias of five channels for four", (5,)),
    refused("z", "a gate of four tokens for five", (2, 4, 4)),
    refused("initial_state", "an initial state of one row for two", (1, 4, 3)),
)  # fmt: skip

SCANNED = ("u", "delta", "b", "c", "z")


def second_half(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with the second half of the tokens first, after the state that the first half left."""
    half = given["u"].shape[1] // 2
    rolled = {name: np.roll(given[name], -half, 1) for name in SCANNED}  # (B, L, …)
    return {**given, **rolled, "initial_state": given["outputs/states"][:, half - 1]}


def second_outputs(first: Mapping[str, Any], second: Mapping[str, Any], _: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the outputs of the second half after the state that was carried over, and those of the whole."""
    half = first["output"].shape[1] // 2
    return second["output"][:, : first["output"].shape[1] - half], first["output"][:, half:]


PROPERTIES = (
    causality(("typical", "long"), "output", SCANNED, axis=1, at=20),
    rows_apart(("typical",), "output", (*SCANNED, "initial_state")),
    Property(
        "chunks",
        "two halves, the state carried over, equal the whole",
        ("typical", "long", "one-state"),
        "output",
        second_half,
        second_outputs,
    ),
    repeatable(("long",), "output"),
)
SUITE = Suite("selective_scan", ABOUT, CONTRACTS, CASES, outputs=("output",), packed=True, properties=PROPERTIES)
