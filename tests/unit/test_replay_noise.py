"""generators/_noise.py: what is known rounds as it does in low precision, what is not known is refused."""

import functools
from pathlib import Path

import numpy as np
import pytest

from karat.suites import find_repository, load_by_path

torch = pytest.importorskip("torch")
noise = load_by_path(find_repository(Path(__file__).parent).root / "generators" / "_noise.py")
functional = torch.nn.functional

DRAWS = 16
SINGLE = np.float32
UNIT = 2.0**-24


def random(*shape, offset=0.0):
    """Return float64 numbers that float32 holds."""
    drawn = np.random.Generator(np.random.Philox(key=43)).standard_normal(shape) + offset
    return torch.from_numpy(drawn.astype(SINGLE).astype(np.float64))


def size(program, kind, *inputs):
    """Return the root mean square of the error of `program` per unit roundoff, as the replay predicts it."""
    exact, errors = program(*inputs), []
    for seed in range(DRAWS):
        with noise.perturbed(kind, seed):
            errors.append((program(*inputs) - exact) / noise.STEP)
    return float(torch.stack(errors).square().mean().sqrt())


# --- what is rounded inside: each against a plain float32 computation, one term after the other


def running_sum(x):
    """Return the partial sums over the last axis, each rounded to float32."""
    return np.stack(list(np.cumsum(x.astype(SINGLE), axis=-1, dtype=SINGLE).T)).T


def added_up(x):
    """Return the sum over the last axis in float32, one term after the other."""
    return running_sum(x)[..., -1]


def spread(x, correction):
    """Return the variance over the last axis in float32, in two passes."""
    deviations = x - (added_up(x) / SINGLE(x.shape[-1]))[..., None]
    return added_up(deviations * deviations) / SINGLE(x.shape[-1] - correction)


def exponentials(x):
    """Return in float32 x less its largest, and the sum of the exponentials of that."""
    shifted = x - x.max(-1, keepdims=True)
    return shifted, added_up(np.exp(shifted))


def scattered(x, places):
    """Return the sums in float32 of the elements of each row that have the same place."""
    found = np.zeros((len(x), 5), SINGLE)
    for column, place in enumerate(places):
        found[:, place] += x[:, column]
    return found


PLACES = [0] * 60 + [1] * 30 + [2] * 9 + [3]
INDEX = torch.tensor(PLACES)
ROWS = torch.arange(100)[:, None]
FACTORS = (1 + random(100, 100) / 64).float().double()
STAGES = {
    "sum": (lambda x: x.sum(-1), added_up),
    "mean": (lambda x: x.mean(-1), lambda x: added_up(x) / SINGLE(x.shape[-1])),
    "var": (lambda x: x.var(-1), lambda x: spread(x, 1)),
    "var_mean": (lambda x: torch.var_mean(x, -1, correction=0)[0], lambda x: spread(x, 0)),
    "std": (lambda x: x.std(-1, keepdim=True)[:, 0], lambda x: np.sqrt(spread(x, 1))),
    "logsumexp": (
        lambda x: x.logsumexp(-1),
        lambda x: x.max(-1) + np.log(exponentials(x)[1]),
    ),
    "log_softmax": (
        lambda x: x.log_softmax(-1),
        lambda x: exponentials(x)[0] - np.log(exponentials(x)[1])[:, None],
    ),
    "softmax": (lambda x: x.softmax(-1), lambda x: np.exp(exponentials(x)[0]) / exponentials(x)[1][:, None]),
    "cumsum": (lambda x: x.cumsum(-1), running_sum),
    "cumprod": (
        lambda _: FACTORS.cumprod(-1),
        lambda _: np.cumprod(FACTORS.numpy().astype(SINGLE), axis=-1, dtype=SINGLE),
    ),
    "prod": (
        lambda _: FACTORS.prod(-1),
        lambda _: np.cumprod(FACTORS.numpy().astype(SINGLE), axis=-1, dtype=SINGLE)[:, -1],
    ),
    "norm": (lambda x: x.norm(dim=-1), lambda x: np.sqrt(added_up(x * x))),
    "einsum": (lambda x: torch.einsum("ij,ij->i", x, x), lambda x: added_up(x * x)),
    "matmul": (lambda x: (x[:, None] @ x[..., None])[:, 0, 0], lambda x: added_up(x * x)),
    "scatter_add": (
        lambda x: torch.zeros(len(x), 5, dtype=x.dtype).scatter_add_(1, INDEX.expand(len(x), -1), x),
        lambda x: scattered(x, PLACES),
    ),
    "index_add": (
        lambda x: torch.zeros(len(x), 5, dtype=x.dtype).index_add(1, INDEX, x),
        lambda x: scattered(x, PLACES),
    ),
    "index_put": (
        lambda x: torch.zeros(len(x), 5, dtype=x.dtype).index_put((ROWS, INDEX), x, accumulate=True),
        lambda x: scattered(x, PLACES),
    ),
    "addcmul": (lambda x: x.addcmul(x, x, value=0.75), lambda x: x + SINGLE(0.75) * x * x),
    "addcdiv": (lambda x: x.addcdiv(x, x * x + 1, value=0.75), lambda x: x + SINGLE(0.75) * x / (x * x + SINGLE(1))),
    "lerp": (lambda x: x.lerp(x * x, 0.25), lambda x: x + SINGLE(0.25) * (x * x - x)),
    "add with alpha": (lambda x: x.add(x.flip(0), alpha=0.7), lambda x: x + SINGLE(0.7) * x[::-1]),
}


@pytest.mark.parametrize("offset", [0.0, 2.0])
@pytest.mark.parametrize("operation", STAGES)
def test_an_operation_errs_as_much_as_in_float32(operation, offset):
    """Rounding and accumulation together are between half and twice the error of a float32 computation."""
    program, plain = STAGES[operation]
    x = random(100, 100, offset=offset)
    predicted = np.hypot(size(program, "rounding", x), size(program, "accumulation", x))
    error = (plain(x.numpy().astype(SINGLE)) - program(x).numpy()) / UNIT
    found = float(np.sqrt(np.square(error).mean()))
    assert 0.5 < predicted / found < 2


@pytest.mark.parametrize("operation", STAGES)
def test_every_result_is_rounded_to_storage(operation):
    """Of operations with stages too, what is returned is rounded, uniformly by a unit roundoff at most."""
    program, _ = STAGES[operation]
    x = random(100, 100)
    assert size(program, "rounding", x) > 0.9 * float((program(x).square().mean() / 3).sqrt())


def test_a_layer_norm_errs_as_much_as_in_float32():
    """A fused LayerNorm is rounded in its stages, weight and bias included."""
    x, weight, bias = random(100, 100, offset=2.0), random(100), random(100)
    program = functools.partial(functional.layer_norm, x, (100,), weight, bias)
    predicted = np.hypot(size(program, "rounding"), size(program, "accumulation"))
    single = x.numpy().astype(SINGLE)
    deviations = single - (added_up(single) / SINGLE(100))[:, None]
    normed = deviations / np.sqrt(spread(single, 0) + SINGLE(1e-5))[:, None]
    error = normed * weight.numpy().astype(SINGLE) + bias.numpy().astype(SINGLE) - program().numpy()
    assert 0.5 < predicted / (float(np.sqrt(np.square(error).mean())) / UNIT) < 2


# --- what is exact


EXACT = {
    "a maximum": lambda x: x.max(-1).values,
    "a choice": lambda x: torch.where(x > 0, x, -x).clamp(max=1),
    "steps": lambda x: torch.stack([x.floor(), x.ceil(), x.trunc(), x.round()]),
    "a quotient rounded to integers": lambda x: torch.div(x, 0.25, rounding_mode="floor"),
    "the sum of one term": lambda x: x[:, None].sum(1),
    "sums of integers": lambda x: (x > 0).sum(-1).double(),
    "what is only moved, in place": lambda x: torch.zeros(9, 4, dtype=x.dtype).copy_(x).index_put_((INDEX[:9],), x),
}


@pytest.mark.parametrize("operation", EXACT)
@pytest.mark.parametrize("kind", ["accumulation", "products"])
def test_what_moves_or_chooses_is_exact(operation, kind):
    """Operations that move numbers or choose among them get no noise."""
    assert size(EXACT[operation], kind, random(9, 4)) == 0


# --- what is not known

COMPLEX = torch.complex(random(3), random(3))

REFUSED = {
    "convolution": lambda x: functional.conv1d(x[None], random(2, 9, 3)),
    "_scaled_dot_product_flash_attention_for_cpu": lambda x: functional.scaled_dot_product_attention(
        x[None, None], x[None, None], x[None, None]
    ),
    "linalg_vector_norm of order 3": lambda x: x.norm(3),
    "linalg_cholesky_ex": lambda x: torch.linalg.cholesky(x[:4] @ x[:4].T),
    "linalg_solve_triangular": lambda x: torch.linalg.solve_triangular(x[:4], x[:4], upper=True),
    "nll_loss_forward": lambda x: functional.cross_entropy(x, INDEX[:9] % 4),
    "native_group_norm": lambda x: functional.group_norm(x[:, :, None], 2),
    "scatter": lambda x: x.scatter(0, INDEX[None, :4], x, reduce="add"),
    "scatter_reduce": lambda x: x.scatter_reduce(0, INDEX[None, :4], x, reduce="mean"),
    "rand": lambda x: x + torch.rand(4, dtype=x.dtype),
    "uniform": lambda x: x.clone().uniform_(),
    "add with out=": lambda x: torch.add(x, x, out=torch.empty_like(x)),
    "addmm with alpha or beta": lambda x: torch.addmm(x[:, :1], x, x[:4].T, beta=0.5),
    "complex numbers": lambda _: COMPLEX * 2,
}


@pytest.mark.parametrize("operation", REFUSED)
@pytest.mark.parametrize("kind", ["rounding", "accumulation", "products"])
def test_what_is_not_known_is_refused(operation, kind):
    """An operation that stands in no table is named, with what to do: its noise would be too small."""
    x = random(9, 4)
    with noise.perturbed(kind, 0), pytest.raises(NotImplementedError, match=rf"^{operation}: .*write it out"):
        REFUSED[operation](x)


def test_fused_attention_is_told_of_the_eager_one():
    """What a refusal of fused attention says helps."""
    x = random(1, 1, 3, 4)
    with noise.perturbed("rounding", 0), pytest.raises(NotImplementedError, match="eager implementation of attention"):
        functional.scaled_dot_product_attention(x, x, x)


# --- in place


IN_PLACE = {
    "elementwise": (lambda x: x.mul_(x.flip(0)), lambda x: x.mul(x.flip(0))),
    "inaccurate": (lambda x: x.exp_(), torch.exp),
    "stages": (lambda x: x.cumsum_(-1), lambda x: x.cumsum(-1)),
    "a product": (lambda x: x.addmm_(x, x), lambda x: x.addmm(x, x)),
    "a view of it": (lambda x: x.t().sub_(1) + 0, lambda x: x.t().sub(1) + 0),
}


@pytest.mark.parametrize("operation", IN_PLACE)
@pytest.mark.parametrize("kind", ["rounding", "accumulation"])
def test_in_place_errs_as_out_of_place(operation, kind):
    """An operation in place gets the very noise of its twin, and leaves it in its argument."""
    inside, outside = IN_PLACE[operation]
    x = random(5, 5)
    with noise.perturbed(kind, 3):
        wanted = outside(x)
    with noise.perturbed(kind, 3):
        given = x.clone()
        found = inside(given)
    assert torch.equal(found, wanted)
    assert operation == "a view of it" or torch.equal(given, wanted)
    assert torch.equal(wanted, outside(x)) == (kind == "accumulation" and operation in {"elementwise", "a view of it"})


# --- operands of products


def moved(weight):
    """Return a weight after all that only moves its numbers."""
    return torch.cat([weight.t()[:3], weight.t()[3:]]).contiguous().view(4, 9).abs()


OPERANDS = {
    "inputs": (lambda x, w: x @ w, False),
    "a tied weight, transposed": (lambda x, w: x @ moved(w), False),
    "an embedding of inputs": (lambda _, w: functional.embedding(INDEX[90:95] % 9, w) @ w.t(), False),
    "what is computed": (lambda x, w: (x * 2) @ w, True),
    "a view of what is computed": (lambda x, w: (x * 2).t().contiguous()[:5].t() @ w[:5, :1], True),
    "what is computed, stored in zeros": (lambda x, w: torch.zeros_like(x).copy_(x * 2) @ w, True),
    "what is computed in place": (lambda x, w: x.clone().mul_(2) @ w, True),
}


@pytest.mark.parametrize("operands", OPERANDS)
def test_only_computed_operands_of_products_are_rounded(operands):
    """Inputs are exact in every format, and so is what only moves them."""
    program, rounded = OPERANDS[operands]
    weight = random(9, 4)
    x = random(7, 4) if operands == "a tied weight, transposed" else random(7, 9)
    assert (size(program, "products", x, weight) > 0) == rounded


def test_rounded_operands_err_as_their_format_says():
    """A product of n pairs, one side computed, errs by sqrt(n / 3) times the size of its terms."""
    x, weight = random(50, 60), random(60, 50)
    expected = float((x.square() @ weight.square() / 3).mean().sqrt()) * 2
    assert size(lambda x, w: (x * 2) @ w, "products", x, weight) == pytest.approx(expected, rel=0.1)


def test_memory_that_is_used_again_is_not_taken_for_what_was_there():
    """A storage in the place of one that was computed and freed counts as what it is."""
    weight = random(40, 40)
    with noise.perturbed("products", 0):
        for _ in range(50):
            place = (weight + 1).data_ptr()  # freed at once
            loaded = torch.from_numpy(weight.numpy().copy())  # comes in from outside, often at the same place
            exact = torch.equal(weight @ loaded, weight @ weight)
            assert exact, loaded.data_ptr() == place
