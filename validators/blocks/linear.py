"""The linear layer, x times a weight and a bias, in both layouts of the weight.

Symbols: I channels in, O channels out.
"""

from typing import Any

from karat import Case, Checkpoint, Dyadic, Recipe, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    linear(x, weight, bias=None, *, layout) -> {"product": …, "output": …}
  x        (..., I); there may be no rows
  weight   of the shape that `layout` says:
           "out_in"  (O, I), as torch.nn.Linear and safetensors of most models keep it
           "in_out"  (I, O), as GPT-2's Conv1D, JAX and Keras keep it
           Some weights are square, so that no shape tells one from the other
  bias     (O,), given in some cases only
  product  (..., O): sum_i x[..., i] weight[o, i], without the bias
  output   (..., O): product + bias
Both are in the format of x. A fused kernel, which never holds product, says so: UNSUPPORTED = ["product"]. Under
bfloat16 and float16, output may be computed from products that were rounded, or not; under the contracts that round
once it may not.

To be refused: x whose last axis is not I, or without axes; a weight that has not two axes; a bias that is not (O,),
even one that would broadcast; an unknown layout.
"""

CONTRACTS = (
    "float64", "float32", "tfloat32", "bfloat16", "float16", "bfloat16-once", "float16-once",
)  # fmt: skip
AXES = ("batch", "token", "channel")


def case(  # noqa: PLR0913 - a case is what it is made of
    name: str,
    about: str,
    shape: tuple[int, ...],
    outs: int,
    *,
    layout: str = "out_in",
    bias: bool = True,
    positive: bool = False,
    exponent: int = -7,
    channels: tuple[int, ...] = (),
) -> Case:
    """Return the case of x of a shape (..., I) and `outs` channels out.

    With `positive`, x and weights are above 0. `channels` are exponents of the rows of a weight (I, O): sums over them
    need more digits than any format but float64 has.
    """
    I = shape[-1] if shape else 1  # noqa: E741 - the contract's symbol
    inputs: dict[str, Recipe] = {
        "x": Dyadic(shape, f"linear/{name}/x", exponent=-5, offset=128 if positive else 0, narrow=positive),
        "weight": Dyadic(
            (outs, I) if layout == "out_in" else (I, outs),
            f"linear/{name}/weight",
            exponent=exponent,
            offset=128 if positive else 0,
            narrow=positive,
            row_exponents=channels,
        ),
    }
    if bias:
        inputs["bias"] = Dyadic((outs,), f"linear/{name}/bias", exponent=-5)
    axes, out = AXES[3 - max(len(shape), 1) :], (*shape[:-1], outs)
    return Case(
        name,
        inputs,
        {"layout": layout},
        (Checkpoint("product", out, axes), Checkpoint("output", out, axes)),
        about=about,
    )


def refused(
    name: str, refuses: str, *, shape: tuple[int, ...] = (4, 6), layout: str = "out_in", **changes: Any
) -> Case:
    """Return a case that is right but for `shape`, `layout`, or the shapes of inputs in `changes`."""
    found = case(f"refuse-{name}", "", shape, 5)
    other = {key: Dyadic(to, f"linear/refused-{name}/{key}", exponent=-5) for key, to in changes.items()}
    return Case(found.name, {**found.inputs, **other}, {"layout": layout}, (), refuses=refuses)


CASES = (
    case("out-in", "weight (O, I)", (19, 22), 31),
    case("in-out", "weight (I, O)", (18, 23), 29, layout="in_out", channels=(0, -4, -9)),
    case("out-in-square", "I is O: a transposed weight fits", (13, 17), 17),
    case("in-out-square", "I is O: a transposed weight fits", (11, 14), 14, layout="in_out",
         channels=(0, -3, -8)),
    case("rows-as-channels", "as many rows as channels: a bias along the wrong axis fits", (15, 15), 15),
    case("no-bias", "no bias", (9, 21), 26, bias=False),
    case("batch", "three axes", (2, 5, 12), 33),
    case("vector", "no leading axis", (27,), 38),
    case("long", "sums of 4099 terms that cancel", (3, 4099), 22, exponent=-10, layout="in_out", channels=(0, -4, -8)),
    case("long-out-in", "sums of 1031 terms, weight (O, I)", (4, 1031), 20, exponent=-9),
    case("long-positive", "sums of 1109 terms above 0, about 456", (5, 1109), 18, layout="in_out", positive=True,
         exponent=-9, channels=(0, -1, -3, -6)),
    case("one-in", "one channel in: an outer product", (16, 1), 7),
    case("one-out", "one channel out", (25, 10), 1, layout="in_out"),
    case("no-rows", "nothing to multiply", (0, 6), 5),
    case("no-channels", "no channel in: the bias alone", (3, 0), 8),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows",
         (17, 36), 28).fine("float64", "float32"),
    refused("channels", "7 channels where the weight has 6", shape=(4, 7), weight=(5, 6)),
    refused("transposed", "weight (I, O) under layout 'out_in'", weight=(6, 5)),
    refused("weight-rank", "a weight of three axes", weight=(1, 5, 6)),
    refused("bias-length", "6 biases for 5 channels out", bias=(6,)),
    refused("bias-broadcast", "one bias for 5 channels out", bias=(1,)),
    refused("scalar", "x without axes", shape=(), weight=(5, 1)),
    refused("layout", "layout is 'transposed'", layout="transposed"),
)  # fmt: skip

PROPERTIES = (
    rows_apart(("out-in", "in-out", "rows-as-channels", "batch"), "output", ("x",)),
    repeatable(("batch", "long"), "output"),
)
SUITE = Suite("linear", ABOUT, CONTRACTS, CASES, outputs=("output",), packed=True, properties=PROPERTIES)
