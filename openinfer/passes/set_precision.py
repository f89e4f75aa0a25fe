"""Runs a model's floating-point tensors in another dtype; inputs and outputs keep theirs, with one conversion at each edge."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from openinfer.errors import ConfigError
from openinfer.ir.graph import Graph, Node, free_name

ONNX_CODES = {"float32": 1, "float64": 11}


def set_precision(graph: Graph, dtype: str) -> Graph:
    """The graph in `dtype`, or `ConfigError` where an operator fixes its own arithmetic."""
    other = {"float32": "float64", "float64": "float32"}[dtype]
    for node in graph.nodes:
        if node.domain or node.captures:
            raise ConfigError(
                f"engine.precision = {dtype!r}: operator {node.domain}:{node.op} fixes its own arithmetic; allowed here: 'model'"
            )
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    taken = graph.names()
    for signature in graph.inputs:
        if signature.dtype == other:
            renamed[signature.name] = free_name(f"{signature.name}.{dtype}", taken)
            nodes.append(Node("Cast", (signature.name,), (renamed[signature.name],), {"to": ONNX_CODES[dtype]}, "", 13))
    produced = {name for node in graph.nodes for name in node.outputs}
    last = {s.name: free_name(f"{s.name}.{dtype}", taken) for s in graph.outputs if s.dtype == other and s.name in produced}
    for node in graph.nodes:
        names = {**renamed, **last}
        nodes.append(
            dataclasses.replace(
                node,
                inputs=tuple(names.get(n, n) for n in node.inputs),
                outputs=tuple(last.get(n, n) for n in node.outputs),
                attributes={key: _attribute(node, key, value, dtype, other) for key, value in node.attributes.items()},
            )
        )
    nodes += [Node("Cast", (inner,), (name,), {"to": ONNX_CODES[other]}, "", 13) for name, inner in last.items()]
    constants = {name: value.astype(dtype) if value.dtype.name == other else value for name, value in graph.constants.items()}
    return graph.with_nodes(nodes, constants)


def _attribute(node: Node, key: str, value: Any, dtype: str, other: str) -> Any:
    if node.op == "Cast" and key == "to" and value == ONNX_CODES[other]:
        return ONNX_CODES[dtype]
    if isinstance(value, np.ndarray) and value.dtype.name == other:
        return value.astype(dtype)
    return value
