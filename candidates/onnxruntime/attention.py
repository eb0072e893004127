"""Attention as an ONNX graph, run by ONNX Runtime on the CPU: an independent library as a candidate.

Written from `karat list attention` alone. The graph computes in float32 (float64 for float64), and each checkpoint is
rounded once. It has no gradients.
"""

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper

UNSUPPORTED = ["dq", "dk", "dv"]
NAMES = ("scores", "masked_scores", "probabilities", "log_sum_exp", "output")


def attention(
    q, k, v, sinks=None, slopes=None, cotangent=None, *, scale=None, causal=False, align="bottom_right", window=None,
    global_tokens=0, soft_cap=None,
):  # fmt: skip
    """Return the checkpoints of attention of q (B, H, S, D) over k (B, G, T, D) and v (B, G, T, E)."""
    check(q, k, v, sinks, slopes, cotangent, align, window, global_tokens, soft_cap)
    inside = np.dtype(np.float64 if q.dtype == np.float64 else np.float32)
    (B, H, S, D), (G, T), E = q.shape, k.shape[1:3], v.shape[3]
    groups = H // G
    seen, distance = geometry(S, T, causal, align, window, global_tokens)
    graph = Graph(inside)
    # Query heads that share keys stand together: (B, G, H / G, S, D).
    graph.input("q", q.reshape(B, G, groups, S, D))
    graph.input("k", k.reshape(B, G, 1, T, D))
    graph.input("v", v.reshape(B, G, 1, T, E))
    shape = (B, H, S, T)
    product = graph.add("MatMul", "q", graph.add("Transpose", "k", perm=[0, 1, 2, 4, 3]))
    scores = graph.reshaped(graph.add("Mul", product, graph.number(D**-0.5 if scale is None else scale)), shape)
    biased = scores
    if soft_cap is not None:
        capped = graph.add("Tanh", graph.add("Div", scores, graph.number(soft_cap)))
        biased = graph.add("Mul", capped, graph.number(soft_cap))
    if slopes is not None:
        graph.input("slopes", slopes[:, None, None])
        biased = graph.add("Sub", biased, graph.add("Mul", "slopes", graph.number(distance)))
    masked = graph.add("Where", graph.constant(seen), biased, graph.number(-np.inf))
    logits = masked
    if sinks is not None:
        graph.input("sinks", np.broadcast_to(sinks[:, None, None], (B, H, S, 1)))
        logits = graph.add("Concat", masked, "sinks", axis=3)
    # The largest logit of a query that sees nothing is minus infinity: the smallest number takes its place.
    none = graph.number(np.full((B, H, S, 1), np.finfo(inside).min))
    largest = graph.add("ReduceMax", graph.add("Concat", logits, none, axis=3), graph.constant(np.array([3])))
    total = graph.add("ReduceSum", graph.add("Exp", graph.add("Sub", logits, largest)), graph.constant(np.array([3])))
    sees = graph.add("Greater", total, graph.number(0))
    divisor = graph.add("Where", sees, total, graph.number(1))
    probabilities = graph.add("Div", graph.add("Exp", graph.add("Sub", masked, largest)), divisor)
    logarithm = graph.add("Add", graph.add("Log", divisor), largest)
    graph.output("log_sum_exp", graph.reshaped(graph.add("Where", sees, logarithm, graph.number(-np.inf)), (B, H, S)))
    weighted = graph.add("MatMul", graph.reshaped(probabilities, (B, G, groups, S, T)), "v")
    graph.output("output", graph.reshaped(weighted, (B, H, S, E)))
    graph.output("scores", scores)
    graph.output("masked_scores", masked)
    graph.output("probabilities", probabilities)
    found = graph.run()
    return {name: found[name].astype(q.dtype) for name in NAMES}


def geometry(queries, keys, causal, align, window, global_tokens):
    """Return which keys each query sees, and how far each is away, (S, T)."""
    query = np.arange(queries)[:, None] + (keys - queries if align == "bottom_right" else 0)  # (S, 1)
    key = np.arange(keys)[None]  # (1, T)
    seen = key <= query if causal else np.ones((queries, keys), bool)
    if window is not None:
        near = query - window < key if causal else 2 * abs(query - key) <= window
        seen = seen & (near | (key < global_tokens) | (query < global_tokens))
    return seen, abs(query - key)


class Graph:
    """An ONNX graph that is built operation by operation and run once."""

    def __init__(self, dtype):
        """Compute in `dtype`."""
        self.dtype, self.type = dtype, helper.np_dtype_to_tensor_dtype(dtype)
        self.nodes, self.constants, self.inputs, self.outputs = [], [], {}, {}

    def add(self, operation, *names, **attributes):
        """Append an operation and return the name of its result."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(names), [name], **attributes))
        return name

    def constant(self, array):
        """Return the name of a constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def number(self, values):
        """Return the name of a constant in the format of the graph."""
        return self.constant(np.asarray(values, self.dtype))

    def reshaped(self, name, shape):
        """Return the name of a tensor in another shape."""
        return self.add("Reshape", name, self.constant(np.array(shape, np.int64)), allowzero=1)

    def input(self, name, array):
        """Give the graph an input."""
        self.inputs[name] = np.ascontiguousarray(array.astype(self.dtype))

    def output(self, name, source):
        """Call a tensor `name` and return it from the graph."""
        self.nodes.append(helper.make_node("Identity", [source], [name]))
        self.outputs[name] = helper.make_tensor_value_info(name, self.type, None)

    def run(self):
        """Return the outputs by name."""
        given = [helper.make_tensor_value_info(name, self.type, array.shape) for name, array in self.inputs.items()]
        graph = helper.make_graph(self.nodes, "attention", given, list(self.outputs.values()), self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self.dtype == np.float64:  # the optimiser keeps a scale before a product in float32, whatever the format
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(zip(self.outputs, session.run(list(self.outputs), self.inputs), strict=True))


def check(q, k, v, sinks, slopes, cotangent, align, window, global_tokens, soft_cap):
    """Raise `ValueError` for what must be refused."""
    wrong = {
        "q, k and v need four axes": not q.ndim == k.ndim == v.ndim == 4,
        "align": align not in ("bottom_right", "top_left"),
        "window": window is not None and window < 1,
        "global_tokens": global_tokens < 0,
        "soft_cap": soft_cap is not None and not soft_cap > 0,
    }
    if not any(wrong.values()):
        (B, H, S, D), (G, T) = q.shape, k.shape[1:3]
        wrong = {
            "k": k.shape != (B, G, T, D) or H % G != 0,
            "v": v.shape[:3] != (B, G, T),
            "sinks": sinks is not None and sinks.shape != (H,),
            "slopes": slopes is not None and slopes.shape != (H,),
            "cotangent": cotangent is not None and cotangent.shape != (B, H, S, v.shape[3]),
        }
    if any(wrong.values()):
        raise ValueError(f"not understood: {', '.join(name for name, is_wrong in wrong.items() if is_wrong)}")
