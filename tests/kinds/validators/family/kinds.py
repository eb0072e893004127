"""A toy with a checkpoint of every kind, in a family folder and one file. Symbols: N rows, three components."""

from karat import Case, Checkpoint, Dyadic, Literal, Recipe, Suite


def case(name: str, stamps: tuple[float, ...], refuses: str = "") -> Case:
    """Return the case of N stamps."""
    N = len(stamps)
    points = (
        Checkpoint("rebased", (N,), ("row",), dtype="accumulation"),
        Checkpoint("late", (N,), ("row",), dtype="bool"),
        Checkpoint("product", (N, 3), ("row", "component")),
        Checkpoint("quotient", (N, 3), ("row", "component"), nonfinite=True),
        Checkpoint("unit", (N, 3), ("row", "component"), sign_free="component"),
    )
    drawn: dict[str, Recipe] = {
        "stamps": Literal(stamps, "float64"),
        "x": Dyadic((N, 3), f"kinds/{name}/x", exponent=-6),
    }
    return Case(name, drawn, {}, () if refuses else points, fixed={"stamps": "float64"}, refuses=refuses)


EPOCH = 1.5 * 2.0**30
SUITE = Suite(
    name="kinds",
    about="kinds(stamps, x) -> {checkpoint: array}",
    contracts=("float32", "bfloat16-once"),
    packed=True,
    cases=(
        case("four", (EPOCH, EPOCH, EPOCH + 0.3125, EPOCH + 7.00390625)),
        case("empty", ()),
        case("unsorted", (EPOCH + 1, EPOCH), refuses="stamps that are not sorted"),
    ),
)
