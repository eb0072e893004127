"""A toy: a squashed affine map, a projection, and the index of its largest score.

Symbols: B batch, T tokens, D width, V vocabulary.
"""

from karat import Case, Checkpoint, Dyadic, Literal, Suite

ABOUT = """\
toy(x, mask, weights, *, gain) -> {checkpoint: array}
  x        (B, T, D)
  mask     (B, T) integers, 0 where a position is padding, which is not judged
  weights  scale (D,), bias (D,), head (D, V)"""

D, V = 7, 11


def case(name: str, mask: tuple[tuple[int, ...], ...], *, padded: bool, about: str) -> Case:
    """Return the case of the inputs whose padding is `mask` (B, T)."""
    B, T = len(mask), len(mask[0])
    return Case(
        name,
        {
            "x": Dyadic((B, T, D), f"toy/{name}/x", exponent=-6),
            "mask": Literal(mask),
            "weights/scale": Dyadic((D,), f"toy/{name}/scale", exponent=-7, offset=128, narrow=True),
            "weights/bias": Dyadic((D,), f"toy/{name}/bias", exponent=-8),
            "weights/head": Dyadic((D, V), f"toy/{name}/head", exponent=-6),
        },
        {"gain": 0.5},
        (
            Checkpoint("scaled", (B, T, D), ("batch", "token", "channel")),
            Checkpoint("scores", (B, T, V), ("batch", "token", "word")),
            Checkpoint("choice", (B, T), ("batch", "token"), dtype="integer", judged_by="scores"),
        ),
        padding={"token": "mask"} if padded else {},
        about=about,
    )


SUITE = Suite(
    name="toy",
    about=ABOUT,
    contracts=("float32", "bfloat16"),
    cases=(
        case("small", ((1, 1, 1, 1),) * 3, padded=False, about="three rows of four tokens"),
        case("padded", ((0, 0, 1, 1, 1), (1, 1, 1, 1, 1)), padded=True, about="two tokens of padding on the left"),
    ),
)
