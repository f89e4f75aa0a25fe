"""A graph as text to be read by people:

input    x: float32 [batch, 40]
constant w0: float32 [64, 40]
h0 = Gemm(x, w0, b0) transB=1
output   probabilities: float32 [batch, 3]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from openinfer.ir.graph import Graph, Node, Signature

SHOWN = 8  # elements of a constant or attribute that are written out


def text(graph: Graph) -> str:
    """The whole graph, a line for each input, constant, node and output, ending in a line break."""
    lines = [f"graph    {graph.name}", *(f"input    {_signature(one)}" for one in graph.inputs)]
    lines += [f"constant {name}: {_array(value)}" for name, value in graph.constants.items()]
    lines += [_node(node) for node in graph.nodes]
    lines += [f"output   {_signature(one)}" for one in graph.outputs]
    return "\n".join(lines) + "\n"


def _signature(one: Signature) -> str:
    shape = "of unknown rank" if one.shape is None else f"[{', '.join(str(size) or '?' for size in one.shape)}]"
    return f"{one.name}: {one.dtype} {shape}"


def _node(node: Node) -> str:
    domain = f"{node.domain}." if node.domain else ""
    attributes = "".join(f" {name}={_attribute(value)}" for name, value in sorted(node.attributes.items()))
    captured = f" reads {', '.join(node.captures)}" if node.captures else ""
    made, taken = (", ".join(name or "_" for name in names) for names in (node.outputs, node.inputs))
    return f"{made} = {domain}{node.op}({taken}){attributes}{captured}"


def _attribute(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, (list, tuple)):
        rest = f", … {len(value)} in all" if len(value) > SHOWN else ""
        return f"[{', '.join(_attribute(item) for item in value[:SHOWN])}{rest}]"
    return repr(value) if isinstance(value, (int, float, str, bytes, bool)) else f"<{type(value).__name__}>"


def _array(value: Any) -> str:
    content = f" = {value.tolist()}" if value.size <= SHOWN else ""
    return f"{value.dtype} {list(value.shape)}{content}"
