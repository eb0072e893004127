"""Correct ways to compute attention that differ from the plain candidate's: they must pass under what they honour.

B batch, H query heads, G key and value heads, S queries, T keys, D width of queries and keys, E of values.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from karat.faults import Formulation, wrap

Array = Any
Tensor = Any
Change = Callable[[Any], None]
Found = dict[str, Array]

EACH_OPERATION = ("float64", "float32", "bfloat16", "float16")
"""Those that round each operation; what is within float32 is within tfloat32."""
LONGEST = 600
"""Keys above which what goes key by key goes by 64 at a time."""


# --- the whole, from its masked scores -------------------------------------------------------------------------------


class Call:
    """The arguments of a call, in storage and wide, and what the plain candidate makes of them."""

    def __init__(self, plain: Any, q: Array, k: Array, v: Array, given: dict[str, Any]) -> None:
        """Keep the arguments."""
        self.plain, self.given, self.storage = plain, given, q.dtype
        self.q, self.k, self.v = (plain.wide(x) for x in (q, k, v))
        self.sinks, self.slopes, self.cotangent = (plain.wide(given.get(n)) for n in ("sinks", "slopes", "cotangent"))
        self.scale = self.q.dtype.type(given.get("scale") or plain.default_scale(q.shape[-1]))
        self.position = plain.query_positions(q.shape[2], k.shape[2], given.get("align", "bottom_right"))
        options = (given["causal"], given.get("window"), given.get("global_tokens", 0))
        self.allowed = plain.visible(self.position, k.shape[2], *options)  # (S, T)
        self.keys, self.values = (plain.repeat_heads(x, q.shape[1]) for x in (self.k, self.v))  # (B, H, T, .)

    def stored(self, x: Array) -> Array:
        """Return wide numbers rounded to storage, wide again."""
        return self.plain.wide(x.astype(self.storage))

    def biased(self, scores: Array) -> Array:
        """Return scores capped and less the slopes, (B, H, S, T)."""
        capped = self.plain.cap_scores(scores, self.given.get("soft_cap"))
        keys = self.k.shape[2]
        return capped if self.slopes is None else capped - self.plain.alibi(self.slopes, self.position, keys)

    def masked(self) -> Array:
        """Return the masked scores, (B, H, S, T)."""
        scores = self.plain.attention_scores(self.q, self.keys, self.scale)
        return self.plain.apply_mask(self.biased(scores), self.allowed)


def whole(formula: Callable[[Call], Found]) -> Change:
    """Return a change to the whole: `formula(call)` gives wide arrays, which are rounded to storage."""

    def change(plain: Any) -> None:
        def attention(q: Array, k: Array, v: Array, **given: Any) -> Found:
            found = formula(Call(plain, q, k, v, given))
            return {name: value.astype(q.dtype) for name, value in found.items()}

        plain.attention = attention

    return change


# --- partial results, merged -----------------------------------------------------------------------------------------

Part = tuple[Array, Array, Array]
"""The largest score, the sum of exponentials less it, and the weighted sum of values, (B, H, S, .) each."""


def part_of(call: Call, scores: Array, block: slice, *, rounded: bool = False) -> Part:
    """Return what the keys of a block give alone; with `rounded`, weights are rounded to storage for the product."""
    largest = scores[..., block].max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores[..., block] - np.where(np.isfinite(largest), largest, 0))
    factors = call.stored(weights) if rounded else weights
    return largest, weights.sum(-1, keepdims=True), factors @ call.values[..., block, :]


def merged(first: Part, second: Part) -> Part:
    """Merge two partial results by their largest scores."""
    largest = np.maximum(first[0], second[0])
    known = np.where(np.isfinite(largest), largest, 0)
    one, two = np.exp(first[0] - known), np.exp(second[0] - known)
    return largest, first[1] * one + second[1] * two, first[2] * one + second[2] * two


def ended(call: Call, part: Part) -> Found:
    """Return log_sum_exp and output of all keys, after the sink."""
    if call.sinks is not None:
        sink = np.broadcast_to(call.sinks[:, None, None], part[0].shape)
        part = merged(part, (sink, np.ones_like(sink), np.zeros_like(part[2])))
    largest, total, output = part
    some = np.where(total > 0, total, 1)
    known = np.where(total > 0, np.where(np.isfinite(largest), largest, 0) + np.log(some), -np.inf)
    return {"log_sum_exp": known[..., 0], "output": output / some}


def blocks(call: Call, size: int) -> list[slice]:
    """Return the blocks of `size` keys, of 64 at least where there are many, one of all for 0."""
    T = call.k.shape[2]
    size = max(size or T, 64 if T > LONGEST else 1)
    return [slice(start, start + size) for start in range(0, T, size)] or [slice(0, 0)]


def online(size: int, *, order: int = 1, rounded: bool = False) -> Change:
    """Return the output over blocks of `size` keys, the last first with `order` -1 (Milakov and Gimelshein 2018)."""

    def formula(call: Call) -> Found:
        scores = call.masked()
        first, *rest = blocks(call, size)[::order]
        part = part_of(call, scores, first, rounded=rounded)
        for block in rest:
            part = merged(part, part_of(call, scores, block, rounded=rounded))
        return ended(call, part)

    return whole(formula)


def ring(call: Call) -> Found:
    """Attend from three parts of the queries to three of the keys that pass around, each beginning with its own."""
    return around(call, [(device,) for device in range(3)], -1)


def ring_zigzag(call: Call) -> Found:
    """Attend from three devices, each of two blocks, one from either end, to keys that pass the other way around."""
    return around(call, [(device, 5 - device) for device in range(3)], 1)


def around(call: Call, held: Sequence[tuple[int, ...]], step: int) -> Found:
    """Attend from blocks of queries on each device to the blocks of keys that it `held`, then to those of others.

    With `step` -1 keys come from the device before, with 1 from the one after.
    """
    scores, count, devices = call.masked(), sum(map(len, held)), len(held)
    queries, keys = (shares(length, count) for length in (call.q.shape[2], call.k.shape[2]))
    found: dict[int, Found] = {}
    for device, own in enumerate(held):
        first, *rest = [block for i in range(devices) for block in held[(device + step * i) % devices]]
        for mine in own:
            part = part_of(call, scores[:, :, queries[mine]], keys[first])
            for block in rest:
                part = merged(part, part_of(call, scores[:, :, queries[mine]], keys[block]))
            found[mine] = ended(call, part)
    return {name: np.concatenate([found[i][name] for i in range(count)], 2) for name in found[0]}


def shares(length: int, count: int) -> list[slice]:
    """Return as many parts of a length, as equal as may be, some empty."""
    return [slice(part[0], part[-1] + 1) if len(part) else slice(0, 0) for part in np.array_split(range(length), count)]


def split_k(call: Call) -> Found:
    """Attend to four parts of the keys, each normalised alone, and merge outputs by log_sum_exp."""
    scores, T = call.masked(), call.k.shape[2]
    sums, outputs = [], []
    for keys in np.array_split(np.arange(T), min(4, max(T, 1))):
        block = slice(keys[0], keys[-1] + 1) if len(keys) else slice(0, 0)
        largest, total, output = part_of(call, scores, block)
        some = np.where(total > 0, total, 1)
        sums.append(np.where(total > 0, np.log(some) + np.where(np.isfinite(largest), largest, 0), -np.inf))
        outputs.append(output / some)
    if call.sinks is not None:
        sums.append(np.broadcast_to(call.sinks[:, None, None], sums[0].shape))
        outputs.append(np.zeros_like(outputs[0]))
    largest = np.maximum.reduce(sums)
    known = np.where(np.isfinite(largest), largest, 0)
    parts = [np.exp(each - known) for each in sums]
    total = sum(parts)
    some = np.where(total > 0, total, 1)
    output = sum(part / some * each for part, each in zip(parts, outputs, strict=True))
    return {"log_sum_exp": np.where(total > 0, np.log(some) + known, -np.inf)[..., 0], "output": output}


# --- other forms of its stages ---------------------------------------------------------------------------------------


def scores(formula: Callable[[Array, Array, Any], Array]) -> Change:
    """Return a change to the scores: `formula(q, keys, scale)`, (B, H, S, T)."""
    return wrap(attention_scores=lambda _: formula)


def einsum(plain: Any) -> None:
    """Multiply with einsum, key heads broadcast over their query heads instead of repeated."""

    def attention_scores(q: Array, keys: Array, scale: Any) -> Array:
        return np.einsum("bhsd,bhtd->bhst", q, keys) * scale

    plain.attention_scores = attention_scores
    plain.context = lambda found, values: np.einsum("bhst,bhte->bhse", found, values)


def broadcast_heads(call: Call) -> Found:
    """Keep a group's query heads on an axis of their own, over which key heads are broadcast."""
    B, H, S, D = call.q.shape
    G, T = call.k.shape[1:3]
    q = call.q.reshape(B, G, H // G, S, D)
    products = (q @ call.k[:, :, None].swapaxes(-1, -2) * call.scale).reshape(B, H, S, T)
    masked = call.plain.apply_mask(call.biased(products), call.allowed)
    found, total = call.plain.softmax(masked, call.sinks)
    output = (found.reshape(B, G, H // G, S, T) @ call.v[:, :, None]).reshape(B, H, S, -1)
    return {"scores": products, "masked_scores": masked, "probabilities": found, "log_sum_exp": total, "output": output}


def by_exp2(scores: Array, sinks: Array | None) -> tuple[Array, Array]:
    """Return the softmax with log2(e) folded into the scores, and log_sum_exp from log2."""
    fold = scores.dtype.type(math.log2(math.e))
    folded = scores * fold
    largest = folded.max(-1, keepdims=True, initial=-np.inf)
    if sinks is not None:
        largest = np.maximum(largest, sinks[:, None, None] * fold)
    largest = np.where(np.isfinite(largest), largest, 0)
    weights = np.exp2(folded - largest)
    total = weights.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp2(sinks[:, None, None] * fold - largest)
    some = np.where(total > 0, total, 1)
    known = np.where(total > 0, (np.log2(some) + largest) * scores.dtype.type(math.log(2)), -np.inf)
    return weights * (1 / some), known[..., 0]


def by_logarithm(right: Any) -> Any:
    """Return probabilities as exp(score - log_sum_exp), as backward passes compute them again."""

    def softmax(scores: Array, sinks: Array | None) -> tuple[Array, Array]:
        _, total = right(scores, sinks)
        known = np.where(np.isfinite(total), total, 0)[..., None]
        return np.exp(scores - known), total

    return softmax


def sink_as_key(call: Call) -> Found:
    """Append a key of the sink's score and a value of 0 to every head, as libraries without sinks are made to."""
    masked = call.masked()
    sink = np.full(masked.shape[:3], -np.inf, masked.dtype) if call.sinks is None else call.sinks[:, None]
    column = np.broadcast_to(sink, masked.shape[:3])[..., None].astype(masked.dtype)
    found, total = call.plain.softmax(np.concatenate([masked, column], -1), None)
    values = np.concatenate([call.values, np.zeros_like(call.values[:, :, :1])], 2) if call.values.shape[2] else None
    output = found[..., :-1] @ call.values if values is None else found @ values
    return {"probabilities": found[..., :-1], "log_sum_exp": total, "output": output}


def in_order(step: int) -> Callable[[Array, Array], Array]:
    """Return the output with values added one after the other, from the last with `step` -1."""

    def context(found: Array, values: Array) -> Array:
        products = (found[..., t, None] * values[..., None, t, :] for t in range(found.shape[-1])[::step])
        return sum(products, np.zeros((*found.shape[:3], values.shape[-1]), values.dtype))

    return context


def pairwise(x: Array, y: Array) -> Array:
    """Add the products of (..., S, K) and (..., K, E) as a binary tree."""
    if x.shape[-1] <= 1:
        return x @ y
    half = x.shape[-1] // 2
    return pairwise(x[..., :half], y[..., :half, :]) + pairwise(x[..., half:], y[..., half:, :])


def finite_fill(call: Call) -> Found:
    """Fill with -1e30 and set queries that see nothing to 0 afterwards."""
    products = call.plain.attention_scores(call.q, call.keys, call.scale)
    masked = np.where(call.allowed, call.biased(products), products.dtype.type(-1e30))
    found, total = call.plain.softmax(masked, call.sinks)
    some = call.allowed.any(-1)[:, None]  # (S, 1)
    lowest = -np.inf if call.sinks is None else np.broadcast_to(call.sinks[:, None], total.shape)
    total = np.where(some[:, 0], total, lowest)
    found = np.where(call.allowed, found, 0) * some
    return {"scores": products, "probabilities": found, "log_sum_exp": total, "output": found @ call.values}


def rounded_each(call: Call) -> Found:
    """Round to storage after each operation, the scale on q, the softmax wide inside."""
    products = call.stored(call.stored(call.q * call.scale) @ call.keys.swapaxes(-1, -2))
    cap = call.given.get("soft_cap")
    capped = products if cap is None else call.stored(call.stored(np.tanh(call.stored(products / cap))) * cap)
    if call.slopes is not None:
        slopes = call.stored(call.plain.alibi(call.slopes, call.position, call.k.shape[2]))
        capped = call.stored(capped - slopes)
    masked = call.plain.apply_mask(capped, call.allowed)
    found, total = call.plain.softmax(masked, call.sinks)
    found = call.stored(found)
    output = {"scores": products, "masked_scores": masked, "probabilities": found, "log_sum_exp": total}
    output["output"] = call.stored(found @ call.values)
    if call.cotangent is not None:
        output |= rounded_gradients(call, products, found, output["output"])
    return output


def rounded_gradients(call: Call, products: Array, found: Array, output: Array) -> Found:
    """Return the gradients, rounded to storage after each operation."""
    store, groups = call.stored, call.k.shape[1]
    of_weights = store(call.cotangent @ call.values.swapaxes(-1, -2))
    of_row = store(store(call.cotangent * output).sum(-1, keepdims=True))
    of_scores = store(store(of_weights - of_row) * found)
    if call.given.get("soft_cap"):
        tangent = store(np.tanh(products / call.given["soft_cap"]))
        of_scores = store(of_scores * store(1 - store(np.square(tangent))))
    return {
        "dq": store(store(of_scores @ call.keys) * call.scale),
        "dk": call.plain.sum_heads(store(store(of_scores.swapaxes(-1, -2) @ call.q) * call.scale), groups),
        "dv": call.plain.sum_heads(store(found.swapaxes(-1, -2) @ call.cotangent), groups),
    }


def wider(right: Any) -> Any:
    """Compute in float64 throughout."""

    def attention(q: Array, k: Array, v: Array, **given: Any) -> Found:
        arrays = {"q": q, "k": k, "v": v, **{n: x for n, x in given.items() if isinstance(x, np.ndarray)}}
        given |= {name: value.astype(np.float64) for name, value in arrays.items()}
        return {name: value.astype(q.dtype) for name, value in right(**given).items()}

    return attention


def one_by_one(right: Any) -> Any:
    """Compute each row of the batch, and of it each key head with its query heads, by itself."""

    def attention(q: Array, k: Array, v: Array, **given: Any) -> Found:
        B, G = k.shape[:2]
        size = q.shape[1] // G
        rows = []
        for b in range(B):
            parts = []
            for g in range(G):
                mine = slice(g * size, (g + 1) * size)
                own: dict[str, Array] = {name: given[name][mine] for name in ("sinks", "slopes") if name in given}
                if "cotangent" in given:
                    own["cotangent"] = given["cotangent"][b : b + 1, mine]
                one = (slice(b, b + 1), slice(g, g + 1))
                parts.append(right(q[b : b + 1, mine], k[one], v[one], **(given | own)))
            rows.append({name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]})
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return attention


def packed(call: Call) -> Found:
    """Gather for each query the keys that it sees, all rows of the batch one after the other, as varlen kernels do."""
    rows = call.q.shape[:3]  # (B, H, S)
    total = np.full(rows, -np.inf, call.q.dtype)
    output = np.zeros((*rows, call.v.shape[3]), call.q.dtype)
    products = call.biased(call.plain.attention_scores(call.q, call.keys, call.scale))
    for i in range(rows[2]):
        keys = np.flatnonzero(call.allowed[i])
        found, sums = call.plain.softmax(products[:, :, i : i + 1, keys], call.sinks)
        total[:, :, i], output[:, :, i] = sums[:, :, 0], (found @ call.values[:, :, keys])[:, :, 0]
    return {"log_sum_exp": total, "output": output}


def padded_keys(plain: Any) -> None:
    """Pad keys and values with zeros to a multiple of 16, and mask the padding."""
    right, visible, positions = plain.attention, plain.visible, plain.query_positions
    state: dict[str, int] = {}

    def seen(position: Array, keys: int, *rest: Any) -> Array:
        own = visible(position, state["keys"], *rest)
        return np.pad(own, [(0, 0), (0, keys - state["keys"])])

    def attention(q: Array, k: Array, v: Array, **given: Any) -> Found:
        T = state["keys"] = k.shape[2]
        zeros = [(0, 0), (0, 0), (0, -T % 16), (0, 0)]
        found = right(q, np.pad(k, zeros), np.pad(v, zeros), **given)
        cut = {name: found[name][..., :T] for name in ("scores", "masked_scores", "probabilities")}
        return found | cut | {name: found[name][:, :, :T] for name in ("dk", "dv") if name in found}

    plain.visible, plain.attention = seen, attention
    plain.query_positions = lambda queries, _, align: positions(queries, state["keys"], align)


def eleven_bits(x: Array) -> Array:
    """Round float32 numbers to the 11 bits of TF32, ties to even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def in_tfloat32(plain: Any) -> None:
    """Round the operands of every product to 11 bits, as tensor cores do."""
    of_scores = plain.score_gradient
    plain.attention_scores = lambda q, keys, scale: eleven_bits(q * scale) @ eleven_bits(keys).swapaxes(-1, -2)
    plain.context = lambda found, values: eleven_bits(found) @ eleven_bits(values)
    plain.score_gradient = lambda *arguments: eleven_bits(of_scores(*arguments))


def row_term(plain: Any) -> None:
    """Take the term of the row from probabilities and their gradient, as autograd does."""

    def score_gradient(found: Array, values: Array, _: Array, cotangent: Array) -> Array:
        of_found = cotangent @ values.swapaxes(-1, -2)
        return found * of_found - found * (found * of_found).sum(-1, keepdims=True)

    plain.score_gradient = score_gradient


# --- in torch --------------------------------------------------------------------------------------------------------


def tensor(x: Array) -> Tensor:
    """Return an array as a tensor of the same format; torch does not know NumPy's bfloat16."""
    if x.dtype == bool:
        return torch.from_numpy(x.copy())
    return torch.from_numpy(x.astype(np.float64)).to(getattr(torch, x.dtype.name))


def arrays(found: dict[str, Tensor], like: Array) -> Found:
    """Return tensors as arrays of the format of `like`."""
    return {name: x.detach().double().numpy().astype(like.dtype) for name, x in found.items()}


def eager(*, upcast: bool) -> Change:
    """Return all checkpoints by torch in storage, gradients by its autograd; with `upcast` the softmax in float32."""

    def change(plain: Any) -> None:
        def attention(q: Array, k: Array, v: Array, **given: Any) -> Found:
            call = Call(plain, q, k, v, given)
            tensors = {name: tensor(x).requires_grad_() for name, x in zip("qkv", (q, k, v), strict=True)}
            size = q.shape[1] // k.shape[1]
            keys, values = (tensors[name].repeat_interleave(size, 1) for name in "kv")
            scores = tensors["q"] @ keys.mT * float(call.scale)  # (B, H, S, T)
            logits = scores
            if given.get("soft_cap"):
                logits = torch.tanh(logits / given["soft_cap"]) * given["soft_cap"]
            if "slopes" in given:
                distance = np.abs(call.position[:, None] - np.arange(k.shape[2]))
                logits = logits - tensor(given["slopes"])[:, None, None] * torch.from_numpy(distance).to(logits.dtype)
            masked = logits.masked_fill(~tensor(call.allowed), -torch.inf)
            logits = masked
            if "sinks" in given:
                sink = tensor(given["sinks"])[:, None, None].expand(*masked.shape[:3], 1)
                logits = torch.cat([masked, sink], -1)
            wide = torch.float32 if upcast and logits.dtype != torch.float64 else None
            some = tensor(call.allowed).any(-1, keepdim=True)
            found = torch.softmax(torch.where(some | ("sinks" in given), logits, 0), -1, dtype=wide).to(logits.dtype)
            found = found[..., : k.shape[2]] * tensor(call.allowed)
            output = found @ values
            total = torch.logsumexp(logits, -1) if logits.shape[-1] else torch.full(logits.shape[:3], -torch.inf)
            named = {"scores": scores, "masked_scores": masked, "probabilities": found}
            named |= {"log_sum_exp": total, "output": output}
            if "cotangent" in given:
                output.backward(tensor(given["cotangent"]))
                named |= {f"d{name}": x.grad for name, x in tensors.items()}
            return arrays(named, q)

        plain.attention = attention

    return change


def fused(backend: Any, *, grouped: bool = False) -> Change:
    """Return output and gradients of torch's scaled_dot_product_attention in storage, by the one backend that is named.

    A sink is one more key, of zeros, whose bias is the sink. Key heads are repeated or, with `grouped`, torch does it.
    It knows no soft cap: of such cases, nothing.
    """

    def formula(call: Call, **tensors: Tensor) -> Tensor | None:
        if call.given.get("soft_cap"):
            return None
        bias = np.where(call.allowed, 0, -np.inf)  # (S, T)
        if call.slopes is not None:
            bias = bias - call.plain.alibi(call.slopes, call.position, call.k.shape[2])  # (H, S, T)
        bias = np.broadcast_to(bias, (*call.q.shape[:3], call.k.shape[2]))
        query, key, value = tensors.values()
        if call.sinks is not None:
            sink = np.broadcast_to(call.sinks[:, None, None], (*call.q.shape[:3], 1))
            bias = np.concatenate([bias, sink], -1)
            key, value = (pad(x, (0, 0, 0, 1)) for x in (key, value))
        mask = torch.from_numpy(bias.astype(np.float64)).to(query.dtype)
        return by_backend(call, backend, query, key, value, grouped=grouped, attn_mask=mask)

    return of_output(formula)


def causal_alone(*, grouped: bool) -> Change:
    """Return output and gradients of torch's flash backend with `is_causal` and no mask.

    To torch, query i stands at key i: of cases that are not so, or have more than that to say, it gives nothing.
    """

    def formula(call: Call, **tensors: Tensor) -> Tensor | None:
        more = [name for name in ("window", "soft_cap", "sinks", "slopes") if call.given.get(name) is not None]
        if not call.given["causal"] or more or (call.position != np.arange(len(call.position))).any():
            return None
        return by_backend(call, FLASH, *tensors.values(), grouped=grouped, is_causal=True)

    return of_output(formula)


def by_backend(
    call: Call, backend: Any, query: Tensor, key: Tensor, value: Tensor, *, grouped: bool, **given: Any
) -> Tensor:
    """Return the output, (B, H, S, E), by one backend of torch, which raises where it cannot.

    Flash wants q, k and v of one width: zeros are appended up to the larger of D and E, which changes no product.
    """
    width = call.v.shape[3]
    if backend == FLASH:
        both = max(call.q.shape[3], width)
        query, key, value = (pad(x, (0, both - x.shape[3])) for x in (query, key, value))
    if not grouped:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    with sdpa_kernel([backend]):
        scale = float(call.given.get("scale") or call.plain.default_scale(call.q.shape[3]))
        return scaled_dot_product_attention(query, key, value, scale=scale, enable_gqa=grouped, **given)[..., :width]


def of_output(formula: Callable[..., Tensor | None]) -> Change:
    """Return output, and gradients by autograd, of `formula(call, q=..., k=..., v=...)`; nothing where that is None."""

    def change(plain: Any) -> None:
        def attention(q: Array, k: Array, v: Array, **given: Any) -> Found:
            tensors = {name: tensor(x).requires_grad_() for name, x in zip("qkv", (q, k, v), strict=True)}
            output = formula(Call(plain, q, k, v, given), **tensors)
            if output is None:
                return {}
            found = {"output": output}
            if "cotangent" in given:
                output.backward(tensor(given["cotangent"]))
                found |= {f"d{name}": x.grad for name, x in tensors.items()}
            return arrays(found, q)

        plain.attention = attention

    return change


MATH, FLASH = SDPBackend.MATH, SDPBackend.FLASH_ATTENTION

FORMULATIONS = (
    # --- in torch
    Formulation("eager", "torch in storage, gradients by autograd", eager(upcast=False), EACH_OPERATION),
    Formulation("eager_upcast", "the same with the softmax in float32", eager(upcast=True), EACH_OPERATION),
    Formulation("sdpa_math", "scaled_dot_product_attention, math", fused(MATH), EACH_OPERATION),
    Formulation("sdpa_math_grouped", "the same with enable_gqa", fused(MATH, grouped=True), EACH_OPERATION),
    Formulation("sdpa_flash", "its flash, widths padded to one", fused(FLASH), EACH_OPERATION),
    Formulation("sdpa_flash_grouped", "the same with enable_gqa", fused(FLASH, grouped=True), EACH_OPERATION),
    Formulation("sdpa_causal", "flash with is_causal, no mask", causal_alone(grouped=False), EACH_OPERATION),
    Formulation("sdpa_causal_grouped", "the same with enable_gqa", causal_alone(grouped=True), EACH_OPERATION),
    # --- blocks of keys
    Formulation("online_1", "online softmax, key by key", online(1)),
    Formulation("online_7", "online softmax over seven keys", online(7)),
    Formulation("online_64", "online softmax over 64 keys", online(64)),
    Formulation("online_all", "online softmax over one block", online(0)),
    Formulation("online_reversed", "online softmax over five keys, the last first", online(5, order=-1)),
    Formulation("flash_rounded", "weights rounded before they are divided", online(7, rounded=True), EACH_OPERATION),
    Formulation("ring", "three devices, keys passed around", whole(ring)),
    Formulation("ring_zigzag", "two blocks on each of three devices, passed the other way", whole(ring_zigzag)),
    Formulation("split_k", "four parts merged by log_sum_exp", whole(split_k)),
    # --- scores
    Formulation("scale_on_q", "the scale on q", scores(lambda q, keys, scale: (q * scale) @ keys.swapaxes(-1, -2))),
    Formulation("scale_on_k", "the scale on k", scores(lambda q, keys, scale: q @ (keys * scale).swapaxes(-1, -2))),
    Formulation("scale_split", "its root on both",
                scores(lambda q, keys, scale: (q * np.sqrt(scale)) @ (keys * np.sqrt(scale)).swapaxes(-1, -2))),
    Formulation("scale_divided", "divided by 1 / scale",
                scores(lambda q, keys, scale: q @ keys.swapaxes(-1, -2) / (1 / scale))),
    Formulation("products_in_tfloat32", "operands of products rounded to 11 bits", in_tfloat32, ("tfloat32",)),
    Formulation("einsum", "einsum", einsum),
    Formulation("broadcast_heads", "key heads broadcast, not repeated", whole(broadcast_heads)),
    # --- softmax
    Formulation("exp2", "log2(e) folded into the scores", wrap(softmax=lambda _: by_exp2)),
    Formulation("by_logarithm", "exp(score - log_sum_exp)", wrap(softmax=by_logarithm)),
    Formulation("sink_as_key", "the sink as one more key", whole(sink_as_key)),
    Formulation("finite_fill", "-1e30 instead of -inf", whole(finite_fill)),
    # --- sums and the whole
    Formulation("values_in_order", "values added key by key", wrap(context=lambda _: in_order(1))),
    Formulation("values_reversed", "values added from the last key", wrap(context=lambda _: in_order(-1))),
    Formulation("values_pairwise", "values added as a binary tree", wrap(context=lambda _: pairwise)),
    Formulation("rounded_each", "each operation rounded", whole(rounded_each), EACH_OPERATION),
    Formulation("one_by_one", "each key head of each row by itself", wrap(attention=one_by_one)),
    Formulation("packed", "the keys that a query sees gathered", whole(packed)),
    Formulation("padded_keys", "keys padded to a multiple of 16", padded_keys),
    Formulation("row_term", "the gradient's row term from probabilities", row_term),
    Formulation("wider", "computed in float64 throughout", wrap(attention=wider)),
)  # fmt: skip
