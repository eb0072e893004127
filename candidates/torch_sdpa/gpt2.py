"""GPT-2 in PyTorch with fused attention, as a port would write it: scores and probabilities never exist.

B batch, T tokens, S tokens seen so far, D width, H heads, d = D / H, V vocabulary.
"""

import torch
from torch.nn.functional import embedding, gelu, layer_norm, scaled_dot_product_attention

ARRAYS = "torch"
UNSUPPORTED = ("*h.*.attention_scores", "*h.*.attention_probabilities")


@torch.no_grad()
def gpt2(
    input_ids,
    attention_mask,
    position_ids,
    weights,
    decode_ids=None,
    *,
    n_head,
    layer_norm_epsilon,
    temperatures,
    max_new_tokens,
):
    """Return every checkpoint but the scores and probabilities of attention."""
    model = Model(weights, n_head, layer_norm_epsilon)
    outputs = {}
    last = model.forward(input_ids, position_ids, attention_mask, "", outputs)[:, -1]  # (B, V)
    outputs |= {"last_logits": last, "greedy_token": last.argmax(-1), "top5_indices": last.topk(5).indices}
    wide = last if last.dtype == torch.float64 else last.float()
    for temperature in temperatures:
        outputs[f"probabilities.t{temperature}"] = torch.softmax(wide / temperature, -1).to(last.dtype)  # (B, V)
    prompt_cache = list(model.cache)

    def steps(ids_of, count, last, prefix, record):
        """Run `count` single tokens through the cache; `ids_of(step, last)` says which."""
        model.cache, mask, seen = list(prompt_cache), attention_mask, []
        for step in range(1, count + 1):
            ids = ids_of(step, last)  # (B, 1)
            seen.append((last, ids))
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)  # (B, S)
            last = model.forward(ids, position_ids[:, -1:] + step, mask, prefix.format(step), record)[:, -1]
        return seen

    if decode_ids is not None:
        steps(lambda step, _: decode_ids[:, step - 1 : step], decode_ids.shape[1], last, "step.{}.", outputs)
    if max_new_tokens:
        seen = steps(lambda _, last: last.argmax(-1, keepdim=True), max_new_tokens, last, "", {})
        outputs["greedy_logits"] = torch.stack([logits for logits, _ in seen], dim=1)  # (B, max_new_tokens, V)
        outputs["greedy_tokens"] = torch.cat([ids for _, ids in seen], dim=1)  # (B, max_new_tokens)
    return outputs


class Model:
    """The weights and a cache that grows by concatenation."""

    def __init__(self, weights, n_head, epsilon):
        self.w = {name.removeprefix("transformer."): value for name, value in weights.items()}
        self.n_head, self.epsilon = n_head, epsilon
        self.cache = [None] * sum(name.endswith(".ln_1.weight") for name in weights)

    def norm(self, x, name):
        """LayerNorm over the channels, (B, T, D)."""
        return layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], self.epsilon)

    def linear(self, x, name):
        """X @ W + b with W stored [in, out]."""
        return x @ self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def heads(self, x):
        """(B, T, D) -> (B, H, T, d)."""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def forward(self, ids, positions, mask, prefix, record):
        """Run T tokens, (B, T) ids; put the checkpoints into `record`; return the logits (B, T, V)."""
        x = embedding(ids, self.w["wte.weight"]) + embedding(positions, self.w["wpe.weight"])  # (B, T, D)
        record[prefix + "embeddings"] = x
        for i in range(len(self.cache)):
            x = self.block(x, i, mask, prefix, record)
        record[prefix + "ln_f"] = x = self.norm(x, "ln_f")
        record[prefix + "logits"] = logits = x @ self.w["wte.weight"].T  # (B, T, V)
        return logits

    def block(self, x, i, mask, prefix, record):
        """Run one block on x (B, T, D)."""
        name = f"h.{i}"
        normed = self.norm(x, f"{name}.ln_1")  # (B, T, D)
        q, k, v = (self.heads(part) for part in self.linear(normed, f"{name}.attn.c_attn").chunk(3, -1))  # (B, H, T, d)
        past = self.cache[i]
        keys, values = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))
        self.cache[i] = (keys, values)  # (B, H, S, d) each
        allowed = self.allowed(mask, k.shape[2])
        context = scaled_dot_product_attention(q, keys, values, attn_mask=allowed)  # (B, H, T, d)
        attended = self.linear(context.transpose(1, 2).flatten(2), f"{name}.attn.c_proj")  # (B, T, D)
        residual = x + attended
        normed_2 = self.norm(residual, f"{name}.ln_2")  # (B, T, D)
        inner = self.linear(normed_2, f"{name}.mlp.c_fc")  # (B, T, F)
        activation = gelu(inner, approximate="tanh")
        output = self.linear(activation, f"{name}.mlp.c_proj")  # (B, T, D)
        found = {"ln_1": normed, "q": q, "k": k, "v": v, "key_cache": keys, "value_cache": values}
        found |= {"attention_context": context, "attention_output": attended, "residual": residual, "ln_2": normed_2}
        found |= {"c_fc": inner, "activation": activation, "ffn_output": output, "block_output": residual + output}
        record |= {f"{prefix}{name}.{key}": value for key, value in found.items()}
        return residual + output

    @staticmethod
    def allowed(mask, tokens):
        """Say which of the S tokens the last T may see, (B, 1, T, S): no later ones, no padding, always oneself."""
        seen = mask.shape[1]
        key = torch.arange(seen)
        query = key[-tokens:, None]
        return (key <= query) & (mask[:, None, None, :].bool() | (key == query))
