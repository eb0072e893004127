"""The reference of the suite `rotary_embedding`: torch operations in float64 on the CPU.

Source: transformers, modeling_rope_utils.py (scalings), models/llama/modeling_llama.py (half_split) and
models/gptj/modeling_gptj.py (interleaved). Frequencies, angles, cosines and sines are rounded as the accumulation
format rounds, whatever the storage. B batch, T tokens, r rotated dimensions.
"""

import math
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gptj.modeling_gptj import rotate_every_two
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, rotate_half

from karat.freeze import beside

operation = beside(__file__, "_operation")
inner = beside(__file__, "_inner")

Array = NDArray[Any]
Given = Mapping[str, Any]


def rotary_embedding(q: Tensor, k: Tensor, *, pairing: str, rotary_dim: int, **given: Any) -> dict[str, Tensor]:
    """Return the checkpoints, by positions or by tables."""
    if "cos" in given:
        return turned(q, k, given["cos"], given["sin"], pairing)
    with inner.in_accumulation():
        found = tables(rotary_dim, **given)
    cos, sin = (found[name] * 1 for name in ("cos", "sin"))  # (B, T, r/2), which may be rounded to storage
    return found | turned(q, k, cos, sin, pairing)


def tables(r: int, positions: Tensor, base: float, scaling: Given) -> dict[str, Tensor]:
    """Return frequencies, attention factor, cosines and sines."""
    inv_freq = frequencies(r, torch.tensor(base), scaling, positions)  # (r/2,)
    factor = attention_factor(scaling)  # ()
    angle = positions[..., None] * inv_freq  # (B, T, r/2)
    return {
        "inv_freq": inv_freq,
        "attention_factor": factor,
        "cos": torch.cos(angle) * factor,
        "sin": torch.sin(angle) * factor,
    }


def frequencies(r: int, base: Tensor, scaling: Given, positions: Tensor) -> Tensor:
    """Return the scaled frequencies, (r/2,)."""
    kind, factor = scaling["rope_type"], scaling.get("factor", 1.0)
    if kind == "dynamic":
        trained = scaling["max_position_embeddings"]
        length = max(int(positions.max()) + 1, trained)
        base = base * torch.tensor(factor * length / trained - (factor - 1)) ** (r / (r - 2))  # ()
    exponent = torch.arange(0, r, 2, dtype=base.dtype) / r  # (r/2,)
    inv_freq = torch.exp(-exponent * torch.log(base))  # (r/2,)
    inv_freq = torch.where(exponent > 0, inv_freq, 1.0)  # base^0 is exact, whoever computes it
    if kind == "linear":
        return inv_freq / factor
    if kind == "yarn":
        ramp = ramp_of(r, float(base), scaling)  # (r/2,)
        return (1 - ramp) * inv_freq + ramp * (inv_freq / factor)
    return llama3(inv_freq, **scaling) if kind == "llama3" else inv_freq


def ramp_of(r: int, base: float, scaling: Given) -> Tensor:
    """Return how much of each frequency YaRN interpolates, (r/2,)."""
    trained = scaling["original_max_position_embeddings"]
    fast, slow = (
        r * math.log(trained / (scaling[beta] * 2 * math.pi)) / (2 * math.log(base))
        for beta in ("beta_fast", "beta_slow")
    )
    low, high = max(math.floor(fast), 0), min(math.ceil(slow), r - 1)
    return torch.clamp((torch.arange(r // 2, dtype=torch.float64) - low) / (high - low), 0, 1)


def attention_factor(scaling: Given) -> Tensor:
    """Return the factor of cosines and sines, ()."""
    if scaling["rope_type"] != "yarn":
        return torch.tensor(1.0)
    if scaling["attention_factor"] is not None:
        return torch.tensor(scaling["attention_factor"])
    return 0.1 * torch.log(torch.tensor(scaling["factor"])) + 1


def llama3(
    inv_freq: Tensor,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: int,
    rope_type: str,  # noqa: ARG001 - a mapping that says what it is
) -> Tensor:
    """Return the frequencies of Llama 3.1, (r/2,)."""
    wavelength = 2 * math.pi / inv_freq  # (r/2,)
    smooth = (original_max_position_embeddings / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor)
    mixed = (1 - smooth) * (inv_freq / factor) + smooth * inv_freq  # (r/2,)
    long = wavelength > original_max_position_embeddings / low_freq_factor
    short = wavelength < original_max_position_embeddings / high_freq_factor
    return torch.where(long, inv_freq / factor, torch.where(short, inv_freq, mixed))


def turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, pairing: str) -> dict[str, Tensor]:
    """Return the checkpoints of the rotation; cos and sin (B, T, r/2)."""
    return {"q_rotated": rotated(q, cos, sin, pairing), "k_rotated": rotated(k, cos, sin, pairing)}


def rotated(x: Tensor, cos: Tensor, sin: Tensor, pairing: str) -> Tensor:
    """Return x * cos + (x turned by a quarter) * sin of the first r dimensions of x (B, heads, T, D)."""
    r = 2 * cos.shape[-1]
    if pairing == "half_split":
        cos, sin = (torch.cat([table, table], -1)[:, None] for table in (cos, sin))  # (B, 1, T, r)
        quarter = rotate_half(x[..., :r])  # (B, heads, T, r)
    else:
        cos, sin = (torch.repeat_interleave(table, 2, -1)[:, None] for table in (cos, sin))  # (B, 1, T, r)
        quarter = rotate_every_two(x[..., :r])  # (B, heads, T, r)
    return torch.cat([x[..., :r] * cos + quarter * sin, x[..., r:]], -1)


# --- what must hold of the goldens -----------------------------------------------------------------------------------

TURN = Decimal("6.28318530717958647692528676655900576839433879875021164194989")


def in_transformers(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare frequencies and attention factor with what transformers computes."""
    if "cos" in given:
        return None
    scaling = {name: value for name, value in given["scaling"].items() if value is not None}
    parameters = scaling | {"rope_theta": given["base"]}
    lengths = {"max_position_embeddings": parameters.pop("max_position_embeddings", 65536)}
    config = LlamaConfig(head_dim=given["rotary_dim"], rope_parameters=parameters, **lengths)
    functions = ROPE_INIT_FUNCTIONS | {"default": LlamaRotaryEmbedding.compute_default_rope_parameters}
    length = int(given["positions"].max(initial=-1)) + 1
    with operation.float64_throughout():
        inv_freq, factor = functions[scaling["rope_type"]](config, device="cpu", seq_len=length)
    found = np.append(golden["inv_freq"], golden.get("attention_factor", 1.0))
    wanted = np.append(inv_freq.numpy(), factor)
    return found, wanted, 1e-14 * wanted


def in_decimal(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare cosines and sines with those of angles whose whole turns are taken off in 60 digits."""
    if "cos" in given or given["scaling"]["rope_type"] != "default":
        return None
    r, base = given["rotary_dim"], given["base"]
    with localcontext(prec=60):
        columns = [Decimal(base) ** (-Decimal(2 * i) / r) for i in range(r // 2)]
        angles = [[float(int(p) * f % TURN) for f in columns] for p in given["positions"].flat]
    angle = np.array(angles).reshape(golden["cos"].shape)
    scale = 1e-15 * (given["positions"][..., None] + 1)
    return np.stack([golden["cos"], golden["sin"]]), np.stack([np.cos(angle), np.sin(angle)]), scale


def complex_product(given: Given, golden: Given) -> tuple[Any, ...]:
    """Compare with products of complex numbers."""
    r = given["rotary_dim"]
    cos, sin = (given.get(name, golden.get(name)) for name in ("cos", "sin"))
    turn = (cos + 1j * sin)[:, None]  # (B, 1, T, r/2)
    found, wanted = [], []
    for name in ("q", "k"):
        x = given[name]
        halves = (x[..., : r // 2], x[..., r // 2 : r])
        a, b = halves if given["pairing"] == "half_split" else (x[..., 0:r:2], x[..., 1:r:2])
        z = (a + 1j * b) * turn  # (B, heads, T, r/2)
        whole = x.copy()
        if given["pairing"] == "half_split":
            whole[..., :r] = np.concatenate([z.real, z.imag], -1)
        else:
            whole[..., 0:r:2], whole[..., 1:r:2] = z.real, z.imag
        found.append(golden[f"{name}_rotated"].ravel())
        wanted.append(whole.ravel())
    return np.concatenate(found), np.concatenate(wanted), 1e-13


def relative(given: Given, golden: Given) -> tuple[Any, ...] | None:
    """Compare scores of rotated vectors with those of a query rotated by the difference of positions alone."""
    if "cos" in given or "attention_factor" in golden or not given["positions"].size:
        return None
    q, k = golden["q_rotated"][:, 0], golden["k_rotated"][:, 0]  # (B, T, D)
    apart = (given["positions"] - given["positions"][:, :1])[..., None] * golden["inv_freq"]  # (B, T, r/2)
    cos, sin = (torch.from_numpy(table) for table in (np.cos(apart), np.sin(apart)))
    x = torch.from_numpy(given["q"])[:, :1]
    alone = rotated(x, cos, sin, given["pairing"]).numpy()[:, 0]  # (B, T, D)
    scores = np.einsum("btd,bd->bt", alone, given["k"][:, 0, 0])
    return np.einsum("btd,bd->bt", q, k[:, 0]), scores, 1e-8


RELATIONS = {
    "frequencies and attention factor are those of transformers, to 1e-14": in_transformers,
    "cosines and sines agree with 60 decimal digits to 1e-15 of the position": in_decimal,
    "rotated vectors are products of complex numbers, to 1e-13": complex_product,
    "scores depend on differences of positions alone, to 1e-8": relative,
}
VERSIONS, WITNESS, NOISE_STEP, reference, perturbed, witness, checks, known_values = operation.generator(
    __file__, rotary_embedding, RELATIONS, versions=("torch", "transformers")
)
