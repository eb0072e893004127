"""The k highest nodes of each row by level, the ties by index, in plain NumPy: the definition, to read and to copy.

The canonical order of covertreex (Chiark-Collective, queries by level and dataset index), with the parent kept.
M pairs, P rows, n nodes, K selected.
"""

import numpy as np


def select_topk_by_level(owners, members, parents, levels=None, *, limit):
    """Keep of each row the `limit` nodes of the highest levels, smaller indices first among equals, and its parent."""
    check(owners, members, parents, levels)
    rows = []
    for p, parent in enumerate(parents.tolist()):
        nodes = with_parent(members_of(owners, members, p), parent)
        rows.append(kept(in_order(nodes, levels_of(nodes, levels)), parent, limit))
    return {"indptr": boundaries(rows), "indices": np.concatenate([np.zeros(0, np.int64), *rows])}  # (P + 1,), (K,)


def members_of(owners, members, p):
    """Return the nodes of the row `p` as they came, each once."""
    return np.array(list(dict.fromkeys(members[owners == p].tolist())), np.int64)


def with_parent(nodes, parent):
    """Return the nodes and, if it is not among them, the parent; -1 is none."""
    return nodes if parent == -1 or parent in nodes else np.append(nodes, parent)


def levels_of(nodes, levels):
    """Return the level of each node, 0 for all where there are no levels."""
    return np.zeros(len(nodes), np.int64) if levels is None else levels[nodes]


def in_order(nodes, node_levels):
    """Return the nodes by level descending, then by index ascending."""
    return nodes[np.lexsort((nodes, -node_levels))]  # the last key is the first


def kept(nodes, parent, limit):
    """Return the first `limit` of the ordered nodes; the parent takes the last place if it is beyond."""
    if limit <= 0 or len(nodes) <= limit:
        return nodes
    first = nodes[:limit]
    if parent in nodes and parent not in first:
        first = np.append(first[:-1], parent)
    return first


def boundaries(rows):
    """Return where each row begins, and the end of the last, (P + 1,)."""
    return np.cumsum([0, *map(len, rows)])


def check(owners, members, parents, levels):
    """Raise `ValueError` for rows and nodes that are not there."""
    if owners.shape != members.shape or owners.ndim != 1:
        raise ValueError(f"owners {owners.shape} and members {members.shape} must be of one length")
    if ((owners < 0) | (owners >= len(parents))).any():
        raise ValueError(f"an owner is outside 0 … {len(parents) - 1}")
    if (members < 0).any() or (parents < -1).any():
        raise ValueError("a node is negative")
    if levels is not None and (np.concatenate([members, parents]) >= len(levels)).any():
        raise ValueError(f"a node has no level: there are {len(levels)} levels")
