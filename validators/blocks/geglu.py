"""The feed-forward block with GEGLU (Shazeer 2020), from one matrix for gate and up projection.

Symbols: B batch, T tokens, D width of x, F hidden width, O of the output.
"""

from collections.abc import Mapping
from typing import Any

from karat import Case, Checkpoint, Dyadic, Suite

ABOUT = """\
A py: candidate is a function
    geglu(x, gate_up, down, *, layout, approximate) -> {"gate": …, "up": …, "hidden": …, "output": …}
  x        (..., D)
  gate_up  (2F, D), both first weights in one, as torch.nn.Linear keeps them: (out, in)
  down     (O, F), the second weight, (out, in)
  layout   which rows of gate_up are which:
           "gate_up"      the first F rows make the gate, the others the up projection
           "up_gate"      the first F rows make the up projection, the others the gate
           "interleaved"  rows 0, 2, 4, … make the gate, rows 1, 3, 5, … the up projection
  approximate  the form of GELU:
           "none"  z (1 + erf(z / sqrt 2)) / 2, as diffusers and T5's GEGLU have it
           "tanh"  z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2, as Gemma has it
  gate     (..., F): x @ gate rows.T
  up       (..., F): x @ up rows.T
  hidden   (..., F): gelu(gate) * up
  output   (..., O): hidden @ down.T

All are in the format of x; there are no biases. A fused kernel may leave out all but the output. Under the contracts
that round once, each is computed from numbers that were not rounded before.

To be refused: x whose last axis is not D, or without axes; gate_up that has not two axes, or an odd number of rows;
down that is not (O, F); an unknown layout or approximate.
"""

CONTRACTS = (
    "float64", "float32", "tfloat32", "bfloat16", "float16", "bfloat16-once", "float16-once",
)  # fmt: skip
AXES = ("batch", "token", "channel")


def case(
    name: str, about: str, lead: tuple[int, ...], widths: tuple[int, int, int], *, layout: str = "gate_up",
    keep: int = 0, refuses: str = "", shapes: Mapping[str, tuple[int, ...]] | None = None, **params: Any,
) -> Case:  # fmt: skip
    """Return the case of x (*lead, D) and the widths D, F and O; with `keep`, so many hidden channels are compared.

    `exponent`, of gate_up, is -7 if it is not among `params`; `shapes` are those of inputs that are to be refused.
    """
    D, F, O = widths  # noqa: E741 - the contract's symbol
    sizes = {"x": (*lead, D), "gate_up": (2 * F, D), "down": (O, F)} | dict(shapes or {})
    exponents = {"x": -5, "gate_up": params.pop("exponent", -7), "down": -7}
    axes = AXES[-1 - len(lead) :]
    kept = {"channel": (F - keep, F)} if keep else {}
    hidden = tuple(Checkpoint(point, (*lead, F), axes, keep=kept) for point in ("gate", "up", "hidden"))
    return Case(
        name,
        {key: Dyadic(shape, f"geglu/{name}/{key}", exponent=exponents[key]) for key, shape in sizes.items()},
        {"layout": layout, "approximate": "none", **params},
        () if refuses else (*hidden, Checkpoint("output", (*lead, O), axes)),
        about=about,
        refuses=refuses,
    )


def refused(name: str, refuses: str, *, lead: tuple[int, ...] = (3,), **changes: Any) -> Case:
    """Return a case that is right but for `changes`: shapes of inputs, or parameters."""
    shapes: dict[str, Any] = {key: changes.pop(key) for key in ("x", "gate_up", "down") if key in changes}
    return case(f"refuse-{name}", "", lead, (6, 4, 5), refuses=refuses, shapes=shapes, **changes)


CASES = (
    case("gate-up-none", "gate first", (19,), (22, 17, 29)),
    case("gate-up-tanh", "gate first, as Gemma's fused weights", (18,), (21, 16, 28), approximate="tanh"),
    case("up-gate-none", "gate last, as diffusers keeps them", (2, 7), (18, 15, 21), layout="up_gate"),
    case("interleaved-tanh", "gate and up in turn", (3, 5), (14, 19, 23), layout="interleaved", approximate="tanh"),
    case("square-tanh", "2 F is D, and O is F: transposed weights fit", (11,), (26, 13, 13), approximate="tanh"),
    case("large-none", "gates to 40 and -40", (9,), (16, 20, 31), layout="interleaved", exponent=-4),
    case("large-tanh", "gates to 40 and -40", (8,), (15, 19, 30), layout="up_gate", exponent=-4, approximate="tanh"),
    case("wide-none", "sums of 515 terms", (7,), (515, 9, 12), exponent=-9),
    case(
        "wide-hidden-tanh",
        "519 hidden channels, of which 11 are compared",
        (6,),
        (8, 519, 15),
        exponent=-6,
        keep=11,
        approximate="tanh",
    ),
    case("vector-none", "no leading axis", (), (10, 24, 27)),
    case("no-tokens-tanh", "nothing to project", (0,), (6, 4, 5), approximate="tanh"),
    refused("odd", "gate_up of 7 rows", gate_up=(7, 6)),
    refused("gate-up-columns", "gate_up of 5 columns where x has 6 channels", gate_up=(8, 5)),
    refused("gate-up-rank", "gate and up as two matrices in one array", gate_up=(2, 4, 6)),
    refused("down", "down of 8 columns, gate and up together", down=(5, 8)),
    refused("down-transposed", "down as (F, O)", down=(4, 5)),
    refused("scalar", "x without axes", x=()),
    refused("layout", "layout is 'gate'", layout="gate"),
    refused("approximate", "approximate is 'erf'", approximate="erf"),
)

SUITE = Suite("geglu", ABOUT, CONTRACTS, CASES, outputs=("output",), packed=True)
