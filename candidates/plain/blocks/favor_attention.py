"""FAVOR+ in plain NumPy: the definition, to read and to copy.

Choromanski et al., "Rethinking Attention with Performers" (2021), lemma 1 and equation 5, with stabilisers that cancel.
Computed in float32 (float64 where q is), and rounded once to the format of q. B batch, H heads, S queries, T keys, D
head width, E value width, M features.
"""

import numpy as np


def favor_attention(q, k, v, projection, mask=None, *, causal):
    """Return exponents and output; q (B, H, S, D), k (B, H, T, D), v (B, H, T, E), projection (M, D)."""
    check_vectors(q, k, v)
    check_causal(q, k, causal)
    check_projection(projection, q)
    check_mask(mask, k)
    counts = counted(mask, k)  # (B, 1, T, 1)
    queries = exponents(wide(q), wide(projection))  # (B, H, S, M)
    keys = exponents(wide(k), wide(projection))  # (B, H, T, M)
    weight = weights(query_features(queries), key_features(keys, counts))  # (B, H, S, T)
    if causal:
        weight = before(weight)
    output = averaged(weight, wide(v))  # (B, H, S, E)
    found = {"q_exponents": queries, "k_exponents": keys, "output": output}
    return {name: array.astype(q.dtype) for name, array in found.items()}


def counted(mask, k):
    """Return which keys count, (B, 1, T, 1)."""
    if mask is None:
        return np.ones((k.shape[0], 1, k.shape[2], 1), bool)
    return (mask != 0)[:, None, :, None]


def exponents(x, projection):
    """Return w . x - |x|^2 / 2 of scaled vectors, (B, H, n, M)."""
    x = scaled(x)
    return x @ projection.T - norms(x)


def scaled(x):
    """Return vectors over D^(1/4), so that products of two are over sqrt(D)."""
    return x * x.dtype.type(x.shape[-1] ** -0.25)


def norms(x):
    """Return half of the squared norm of each vector, (B, H, n, 1)."""
    return np.square(x).sum(-1, keepdims=True) / 2


def query_features(queries):
    """Return exponentials, the largest of each query being 1, (B, H, S, M)."""
    return np.exp(queries - queries.max(-1, keepdims=True))


def key_features(keys, counts):
    """Return exponentials, the largest of each head being 1, and 0 where keys do not count, (B, H, T, M)."""
    shown = np.where(counts, keys, -np.inf)
    largest = shown.max((-2, -1), keepdims=True)  # (B, H, 1, 1)
    return np.exp(shown - np.where(np.isfinite(largest), largest, 0))


def weights(queries, keys):
    """Return the products of features, (B, H, S, T)."""
    return queries @ keys.mT


def before(weight):
    """Return the weights of keys that do not come after their query, (B, H, S, T)."""
    return np.tril(weight)


def averaged(weight, v):
    """Return the average of values, (B, H, S, E), 0 where nothing has a weight."""
    total = weight.sum(-1, keepdims=True)  # (B, H, S, 1)
    return weight @ v / np.where(total > 0, total, 1)


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
    require(
        q.shape[:2] == k.shape[:2] and q.shape[3] == k.shape[3],
        f"keys do not fit queries: {shapes}",
    )
    require(k.shape[:3] == v.shape[:3], f"values do not fit keys: {shapes}")


def check_causal(q, k, causal):
    """Refuse a causal order of queries and keys that are not as many."""
    require(
        not causal or q.shape[2] == k.shape[2],
        f"{q.shape[2]} queries and {k.shape[2]} keys, causal",
    )


def check_projection(projection, q):
    """Refuse projections of another width, and those without rows."""
    found, width = projection.shape, q.shape[-1]
    require(
        len(found) == 2 and found[0] > 0 and found[1] == width,
        f"projection {found}, wanted (M, {width})",
    )


def check_mask(mask, k):
    """Refuse masks of other rows or keys."""
    wanted = (k.shape[0], k.shape[2])
    require(mask is None or mask.shape == wanted, f"mask, wanted {wanted}")
