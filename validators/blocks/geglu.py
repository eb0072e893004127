"""The feed-forward block with GEGLU (Shazeer 2020), from one matrix for gate and up projection.

Symbols: B batch, T tokens, D width of x, F hidden width, O of the output.
"""

from collections.abc import Mapping
from typing import Any

from karat import Case, Checkpoint, Dyadic, Suite, repeatable, rows_apart

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
           "none"  z (1 + erf(z / sqrt 2)) / 2, as diffusers has it
           "tanh"  z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2, as Gemma and T5 have it
  gate     (..., F): x @ gate rows.T
  up       (..., F): x @ up rows.T
  hidden   (..., F): gelu(gate) * up
  output   (..., O): hidden @ down.T
There are no biases. All checkpoints are in the format of x; there may be no tokens. A fused kernel that never holds the
others lists them: UNSUPPORTED = ["gate", "up", "hidden"].

1 + erf and 1 + tanh may cancel: the tolerance is theirs. Under the contracts that round once, each checkpoint is
computed from numbers that were not rounded before.

To be refused: x whose last axis is not D, or without axes; gate_up that has not two axes, or an odd number of rows;
down that is not (O, F); an unknown layout or approximate.
"""

CONTRACTS = ("float64", "float32", "tfloat32", "bfloat16", "float16", "bfloat16-once", "float16-once")
AXES = ("batch", "token", "channel")

Draws = Mapping[str, Mapping[str, Any]]
"""Input -> the options of its `Dyadic`."""


def case(
    name: str,
    about: str,
    lead: tuple[int, ...],
    widths: tuple[int, int, int],
    *,
    draws: Draws | None = None,
    keep: int = 0,
    contracts: tuple[str, ...] = (),
    refuses: str = "",
    **params: Any,
) -> Case:
    """Return the case of x (*lead, D) and the widths D, F and O.

    With `keep`, only so many hidden channels, the last ones, are compared.
    """
    D, F, O = widths  # noqa: E741 - the contract's symbol
    drawn: dict[str, dict[str, Any]] = {
        "x": {"shape": (*lead, D), "exponent": -5},
        "gate_up": {"shape": (2 * F, D), "exponent": -7},
        "down": {"shape": (O, F), "exponent": -7},
    }
    axes = AXES[-1 - len(lead) :]
    kept = {"channel": (F - keep, F)} if keep else {}
    hidden = tuple(Checkpoint(point, (*lead, F), axes, keep=kept) for point in ("gate", "up", "hidden"))
    return Case(
        name,
        {
            key: Dyadic(key=f"geglu/{name}/{key}", **(usual | dict((draws or {}).get(key, {}))))
            for key, usual in drawn.items()
        },
        {"layout": "gate_up", "approximate": "none", **params},
        () if refuses else (*hidden, Checkpoint("output", (*lead, O), axes)),
        contracts=contracts,
        about=about,
        refuses=refuses,
    )


def refused(name: str, refuses: str, *, draws: Draws | None = None, **params: Any) -> Case:
    """Return a case that is right but for `draws` or `params`."""
    return case(f"refuse-{name}", "", (3,), (6, 4, 5), draws=draws, refuses=refuses, **params)


def of_shape(name: str, *shape: int) -> Draws:
    """Return what draws one input in another shape."""
    return {name: {"shape": shape}}


STEEP: Draws = {"gate_up": {"exponent": -4}}
HALF: Draws = {"gate_up": {"exponent": -6}}
FLAT: Draws = {"gate_up": {"exponent": -9}}
CASES = (
    case("gate-up-none", "gate first", (41,), (22, 17, 29), draws=HALF),
    case("gate-up-tanh", "gate first, as Gemma's fused weights", (43,), (21, 16, 28), approximate="tanh",
         draws=HALF),
    case("up-gate-none", "gate last, as diffusers keeps them", (2, 7), (18, 15, 21), layout="up_gate"),
    case("interleaved-tanh", "gate and up in turn", (3, 5), (14, 19, 23), layout="interleaved", approximate="tanh"),
    case("square-tanh", "2 F is D, and O is F: transposed weights fit", (11,), (26, 13, 13), approximate="tanh"),
    case("large-none", "gates from -33 to 27", (9,), (16, 20, 31), layout="interleaved", draws=STEEP),
    case("large-tanh", "gates from -29 to 24", (8,), (15, 19, 30), layout="up_gate", draws=STEEP, approximate="tanh"),
    case("wide-none", "sums of 515 terms", (7,), (515, 9, 12), draws=FLAT),
    case("wide-hidden-tanh", "519 hidden channels, of which 11 are compared", (6,), (8, 519, 15), keep=11, draws=HALF,
         approximate="tanh"),
    case("vector-none", "no leading axis", (), (10, 24, 27)),
    case("no-tokens-tanh", "nothing to project", (0,), (6, 4, 5), approximate="tanh"),
    case("fine-tanh", "inputs of full float32 width: what is rounded on the way in shows",
         (13,), (21, 16, 24), approximate="tanh").fine("float64", "float32"),
    refused("odd", "gate_up of 7 rows", draws=of_shape("gate_up", 7, 6)),
    refused("gate-up-columns", "gate_up of 5 columns where x has 6 channels", draws=of_shape("gate_up", 8, 5)),
    refused("gate-up-rank", "gate and up as two matrices in one array", draws=of_shape("gate_up", 2, 4, 6)),
    refused("down", "down of 8 columns, gate and up together", draws=of_shape("down", 5, 8)),
    refused("down-transposed", "down as (F, O)", draws=of_shape("down", 4, 5)),
    refused("scalar", "x without axes", draws=of_shape("x")),
    refused("layout", "layout is 'gate'", layout="gate"),
    refused("approximate", "approximate is 'erf'", approximate="erf"),
)  # fmt: skip

PROPERTIES = (
    rows_apart(("up-gate-none", "interleaved-tanh"), "output", ("x",)),
    repeatable(("wide-none", "wide-hidden-tanh"), "output"),
)
SUITE = Suite("geglu", ABOUT, CONTRACTS, CASES, outputs=("output",), packed=True, properties=PROPERTIES)
