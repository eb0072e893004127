"""Cross-entropy of logits and integer targets, and its gradient. Symbols: N rows, V classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from karat import Case, Checkpoint, Dyadic, Integers, Literal, Recipe, Suite, repeatable, rows_apart

ABOUT = """\
A py: candidate is a function
    cross_entropy(logits, target, weight=None, *, reduction, ignore_index, label_smoothing)
        -> {"logsumexp": …, "loss": …, "grad_logits": …}
  logits           (N, V); -inf rules a class out, never the target, and never with label smoothing
  target           (N,) integers from 0 to V - 1, or ignore_index for a row that does not count
  weight           (V,), a factor for each class; given in some cases only, 1 in the others
  reduction        "none", "sum" or "mean"
  ignore_index     any integer, one of the classes too
  label_smoothing  from 0 to 1, here e: the target's share is 1 - e + e/V, that of every other class e/V
It is torch.nn.functional.cross_entropy. With p = softmax(logits[n]), y = target[n] and w = weight
  logsumexp    (N,): log(sum_c exp(logits[n, c])), of every row, the ignored ones too; in the accumulation format,
               and not rounded before it goes into log p
  row loss     -(1 - e) w[y] log p[y] - e/V sum_c w[c] log p[c], and 0 for an ignored row
  loss         "none": the row losses, (N,); "sum": their sum, (); "mean": the sum over sum_n w[target[n]] of the rows
               that are not ignored, ().
               The mean of no rows, or of ignored ones alone, is NaN, as in torch (where others give 0)
  grad_logits  (N, V): gradient of the sum of `loss` in logits; exactly 0 in an ignored row, also where the mean is NaN
loss and grad_logits are in the format of logits. A candidate that lacks the gradient, or does not keep
logsumexp, says so: UNSUPPORTED = ["grad_logits"].

To be refused: targets out of range that are not ignore_index, -1 among them; another number of targets than rows, of
weights than classes; logits that are not (N, V); an unknown reduction; a label_smoothing below 0 or above 1.
"""

CONTRACTS = ("float64", "float32", "bfloat16", "float16", "bfloat16-once", "float16-once")
IGNORED = -100


def logits(name: str, shape: tuple[int, int], *exponents: int) -> Dyadic:
    """Return random logits, of the standard deviation 36.9 * 2^exponents[i] in row i."""
    return Dyadic(shape, f"cross_entropy/{name}/logits", exponent=0, row_exponents=exponents)


def targets(name: str, rows: int, classes: int, ignored: Sequence[int] = (), index: int = IGNORED) -> Literal:
    """Return random targets, with `index` in the rows `ignored`."""
    drawn = Integers((rows,), f"cross_entropy/{name}/target", 0, classes).draw()
    drawn[list(ignored)] = index
    return Literal(tuple(drawn.tolist()))


def case(
    name: str, about: str, x: Recipe, target: Recipe, *, weighted: bool = False, keep: int = 0, refuses: str = "",
    nonfinite: bool = False, **params: Any,
) -> Case:  # fmt: skip
    """Return the case of logits x; with `keep`, the gradient in the last so many classes is compared."""
    inputs: dict[str, Recipe] = {"logits": x, "target": target}
    if "weight" in params:
        inputs["weight"] = params.pop("weight")
    if weighted:
        inputs["weight"] = Dyadic((x.shape[-1],), f"cross_entropy/{name}/weight", exponent=-6, offset=72, narrow=True)
    params = {"reduction": "mean", "ignore_index": IGNORED, "label_smoothing": 0.0} | params
    points: tuple[Checkpoint, ...] = ()
    if not refuses:
        N, V = x.shape
        each = params["reduction"] == "none"
        points = (
            Checkpoint("logsumexp", (N,), ("row",), dtype="accumulation"),
            Checkpoint("loss", (N,) if each else (), ("row",) if each else (), nonfinite=nonfinite),
            Checkpoint("grad_logits", (N, V), ("row", "class"), keep={"class": (V - keep, V)} if keep else {}),
        )
    return Case(name, inputs, params, points, about=about, refuses=refuses)


def refused(name: str, refuses: str, **changes: Any) -> Case:
    """Return a case that is right but for `changes`."""
    right: dict[str, Any] = {"x": logits("refused", (4, 3), -5), "target": targets("refused", 4, 3)}
    return case(f"refuse-{name}", "", refuses=refuses, **(right | changes))


def far() -> Literal:
    """Return logits about numbers from -1000 to 1000, which no exponential holds, (7, 11)."""
    about = np.array([1000.0, -1000, 96, -110, 720, -760, 12])  # (7,)
    steps = np.array([4.0, 4, 0.5, 0.5, 4, 4, 0.0625])  # (7,), exact there in bfloat16
    drawn = Integers((7, 11), "cross_entropy/far/logits", -3, 4).draw()  # (7, 11)
    return Literal(tuple(map(tuple, (about[:, None] + steps[:, None] * drawn).tolist())), "float32")


def apart() -> Literal:
    """Return logits up to 1900 apart, whose probabilities no format holds, (7, 19)."""
    drawn = Integers((7, 19), "cross_entropy/apart/logits", -120, 121).draw()  # (7, 19)
    factors = np.array([8.0, 0.5, 2, 0.0625, 8, 1, 4])  # (7,), exact in bfloat16
    return Literal(tuple(map(tuple, (drawn * factors[:, None]).tolist())), "float32")


def ruled_out() -> Literal:
    """Return logits of which -inf rules out every third class but class 7, (5, 13)."""
    x = Integers((5, 13), "cross_entropy/ruled-out/logits", -60, 61).draw() / 16  # (5, 13)
    out = (np.arange(13) + np.arange(5)[:, None]) % 3 == 0  # (5, 13)
    out[:, 7] = False
    return Literal(tuple(map(tuple, np.where(out, -np.inf, x).tolist())), "float32")


def confident() -> Dyadic:
    """Return logits far apart, (9, 15)."""
    return logits("confident", (9, 15), -2, -3)


LARGEST = Literal(tuple(confident().draw().argmax(-1).tolist()))
CASES = (
    case("mean", "four rows ignored", logits("mean", (19, 23), -4, -5), targets("mean", 19, 23, (1, 7, 12, 16))),
    case("sum", "two rows ignored", logits("sum", (11, 14), -4, -5), targets("sum", 11, 14, (2, 9)), reduction="sum"),
    case("none", "a loss for each row", logits("none", (37, 6), -4, -5), targets("none", 37, 6, (5, 20)),
         reduction="none"),
    case("smoothed", "label smoothing, which no format holds exactly", logits("smoothed", (13, 9), -4),
         targets("smoothed", 13, 9, (4, 6)), label_smoothing=0.1),
    case("smoothed-none", "a smoothed loss for each row", logits("smoothed-none", (29, 5), -4, -5),
         targets("smoothed-none", 29, 5, (0, 13)), reduction="none", label_smoothing=0.3125),
    case("weighted", "class weights", logits("weighted", (17, 12), -4, -5), targets("weighted", 17, 12, (3, 8, 9)),
         weighted=True),
    case("weighted-none", "class weights, a loss for each row", logits("weighted-none", (31, 7), -4),
         targets("weighted-none", 31, 7, (11,)), weighted=True, reduction="none"),
    case("weighted-smoothed", "class weights and label smoothing", logits("weighted-smoothed", (15, 10), -4, -5),
         targets("weighted-smoothed", 15, 10, (0, 14)), weighted=True, label_smoothing=0.125),
    case("weighted-smoothed-none", "both, a loss for each row", logits("weighted-smoothed-none", (33, 8), -5),
         targets("weighted-smoothed-none", 33, 8, (17, 18)), weighted=True, label_smoothing=0.25, reduction="none"),
    case("ignored-class", "class 4 is ignore_index", logits("ignored-class", (21, 5), -4, -5),
         targets("ignored-class", 21, 5), ignore_index=4, label_smoothing=0.125),
    case("first-class", "ignore_index -1; class 0 counts", logits("first-class", (14, 4), -4),
         targets("first-class", 14, 4, (6, 7), -1), ignore_index=-1, reduction="sum"),
    case("vocabulary", "the vocabulary of GPT-2; the gradient in 7 classes is compared",
         logits("vocabulary", (2, 50257), -4, -5), Literal((50252, 17)), keep=7),
    case("many-smoothed", "2051 classes, smoothed; the gradient in 23 of them is compared",
         logits("many-smoothed", (13, 2051), -4, -5),
         Literal((2041, 123, 77, 2039, IGNORED, 1500, 2047, 5, 2031, 1717, IGNORED, 0, 2049)), keep=23,
         weighted=True, reduction="none", label_smoothing=0.125),
    case("far", "logits about 1000 and -1000: no exponential without subtracting the maximum", far(),
         targets("far", 7, 11), reduction="none"),
    case("apart", "logits up to 1900 apart: probabilities underflow, their logarithms do not", apart(),
         targets("apart", 7, 19, (5,)), reduction="none"),
    case("confident", "targets of almost all the probability", confident(), LARGEST, reduction="none"),
    case("ruled-out", "classes ruled out by -inf", ruled_out(), Literal((7, 7, IGNORED, 7, 7))),
    case("one-class", "one class: loss 0", logits("one-class", (17, 1), -4), targets("one-class", 17, 1, (3,))),
    case("one-row", "one row", logits("one-row", (1, 43), -4), targets("one-row", 1, 43)),
    case("all-ignored", "no row counts: the mean is NaN, the gradient 0", logits("all-ignored", (3, 4), -4),
         Literal((IGNORED,) * 3), nonfinite=True),
    case("all-ignored-sum", "no row counts: the sum is 0", logits("all-ignored-sum", (4, 3), -4),
         Literal((IGNORED,) * 4), reduction="sum"),
    case("no-rows", "no rows: the mean is NaN", logits("no-rows", (0, 5), -4), Literal(()), nonfinite=True),
    case("fine", "inputs of full float32 width: what is rounded on the way in shows",
         logits("fine", (18, 13), -4, -5), targets("fine", 18, 13)).fine("float64", "float32"),
    refused("target-high", "target 3 of 3 classes", target=Literal((0, 3, 1, 2))),
    refused("target-negative", "target -1, which ignore_index is not", target=Literal((0, -1, 1, 2))),
    refused("target-count", "three targets for four rows", target=Literal((0, 1, 2))),
    refused("weight-count", "two weights for three classes", weight=Literal((1.0, 2.0), "float32")),
    refused("rank", "logits of three axes", x=Dyadic((2, 4, 3), "cross_entropy/refused-rank", exponent=-5)),
    refused("reduction", "reduction is 'average'", reduction="average"),
    refused("smoothing-high", "label_smoothing 1.5", label_smoothing=1.5),
    refused("smoothing-negative", "label_smoothing -0.1", label_smoothing=-0.1),
)  # fmt: skip

PROPERTIES = (
    rows_apart(("none", "smoothed-none", "weighted-none"), "loss", ("logits", "target")),
    rows_apart(("sum", "weighted-smoothed"), "grad_logits", ("logits", "target")),
    repeatable(("mean", "vocabulary"), "grad_logits"),
)
SUITE = Suite(
    "cross_entropy", ABOUT, CONTRACTS, CASES, outputs=("loss", "grad_logits"), packed=True, properties=PROPERTIES
)
