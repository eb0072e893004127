"""Linear attention in plain NumPy: the definition, to read and to copy.

Katharopoulos et al., "Transformers are RNNs" (2020), equations 5, 7 and 16 to 20, with a floor under the divisor.
Computed in float32 (float64 where q is), and rounded once to the format of q. B batch, H heads, S queries, T keys, D
head width, E value width.
"""

import numpy as np


def linear_attention(
    q,
    k,
    v,
    mask=None,
    initial_state=None,
    initial_sum=None,
    *,
    causal,
    floor,
):
    """Return features, normaliser, output and what is left for later tokens; q (B, H, S, D), v (B, H, T, E)."""
    check_vectors(q, k, v)
    check_causal(q, k, causal)
    check_mask(mask, k)
    check_state(initial_state, initial_sum, k, v)
    check_floor(floor)
    queries = features(wide(q))  # (B, H, S, D)
    keys = masked(features(wide(k)), mask)  # (B, H, T, D)
    state, key_sum = initial(initial_state, initial_sum, keys, v)  # (B, H, D, E), (B, H, D)
    attend = recurrent if causal else over_all
    numerator, normaliser, state, key_sum = attend(queries, keys, wide(v), state, key_sum)
    output = divided(numerator, normaliser, floor)  # (B, H, S, E)
    found = {
        "q_features": queries,
        "k_features": keys,
        "normaliser": normaliser,
        "output": output,
        "state": state,
        "key_sum": key_sum,
    }
    return {name: array.astype(q.dtype) for name, array in found.items()}


def features(x):
    """Return elu(x) + 1, above 0, the shape of `x`."""
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def masked(keys, mask):
    """Return features of keys (B, H, T, D), 0 where the mask (B, T) is."""
    return keys if mask is None else np.where((mask != 0)[:, None, :, None], keys, 0)


def initial(state, key_sum, keys, v):
    """Return what earlier tokens left, (B, H, D, E) and (B, H, D)."""
    if state is None:
        B, H, _, D = keys.shape
        return np.zeros((B, H, D, v.shape[-1]), keys.dtype), np.zeros((B, H, D), keys.dtype)
    return wide(state), wide(key_sum)


def recurrent(queries, keys, v, state, key_sum):
    """Return numerators (B, H, S, E), normalisers (B, H, S), and the last state and sum, token by token."""
    numerators, normalisers = [], []
    for t in range(keys.shape[2]):
        state = updated(state, keys[:, :, t], v[:, :, t])  # (B, H, D, E)
        key_sum = added(key_sum, keys[:, :, t])  # (B, H, D)
        numerators.append(read(queries[:, :, t], state))  # (B, H, E)
        normalisers.append((queries[:, :, t] * key_sum).sum(-1))  # (B, H)
    return np.stack(numerators, 2), np.stack(normalisers, 2), state, key_sum


def over_all(queries, keys, v, state, key_sum):
    """Return the same where every query attends to all keys."""
    state = state + keys.mT @ v  # (B, H, D, E)
    key_sum = key_sum + keys.sum(2)  # (B, H, D)
    return queries @ state, (queries * key_sum[:, :, None]).sum(-1), state, key_sum


def updated(state, key, value):
    """Return the state after a token, (B, H, D, E)."""
    return state + key[..., None] * value[..., None, :]


def added(key_sum, key):
    """Return the sum of keys after a token, (B, H, D)."""
    return key_sum + key


def read(query, state):
    """Return a query's numerator, (B, H, E)."""
    return (query[..., None] * state).sum(-2)


def divided(numerator, normaliser, floor):
    """Return numerators over normalisers, which are no less than `floor`, (B, H, S, E)."""
    return numerator / np.maximum(normaliser, normaliser.dtype.type(floor))[..., None]


def wide(x):
    """Return `x` in the format in which it is computed: float64 for float64, float32 for all narrower formats."""
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)


# --- what is refused -------------------------------------------------------------------------------------------------


def require(condition, text):
    """Raise `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(text)


def check_vectors(q, k, v):
    """Refuse queries, keys and values that do not fit each other."""
    shapes = f"q {q.shape}, k {k.shape}, v {v.shape}"
    require(q.ndim == k.ndim == v.ndim == 4, f"q, k and v must have four axes: {shapes}")
    require(q.shape[:2] == k.shape[:2] and q.shape[3] == k.shape[3], f"keys do not fit queries: {shapes}")
    require(k.shape[:3] == v.shape[:3], f"values do not fit keys: {shapes}")


def check_causal(q, k, causal):
    """Refuse a causal order of queries and keys that are not as many."""
    require(not causal or q.shape[2] == k.shape[2], f"{q.shape[2]} queries and {k.shape[2]} keys, causal")


def check_mask(mask, k):
    """Refuse masks of other rows or keys."""
    wanted = (k.shape[0], k.shape[2])
    require(mask is None or mask.shape == wanted, "mask is not (B, T)")


def check_state(state, key_sum, k, v):
    """Refuse an initial state that does not fit, and half of one."""
    require((state is None) == (key_sum is None), "initial_state and initial_sum belong together")
    wanted = (*k.shape[:2], k.shape[3], v.shape[3])
    require(state is None or state.shape == wanted, f"initial_state, wanted {wanted}")
    require(key_sum is None or key_sum.shape == wanted[:3], f"initial_sum, wanted {wanted[:3]}")


def check_floor(floor):
    """Refuse a floor that is none."""
    require(floor > 0, f"floor must be above 0, found {floor}")
