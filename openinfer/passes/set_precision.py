"""Runs a model's floating-point tensors in another dtype; inputs and outputs keep theirs, with one conversion at each edge.

Layers in `keep` stay in the model's own type, with a Cast only where a value crosses, made once for all that read it:

    x ── Cast ── Gemm ── Cast ── Sub (kept) ── Cast ── Relu ── Cast ── y
       float32         float64            float32         float64
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx

from openinfer.errors import ConfigError, suggest
from openinfer.frontend.dtypes import ATTRIBUTES, accepts, output_types, value_types
from openinfer.ir.graph import Array, Graph, Node, free_name

ONNX_CODES = {"float32": 1, "float64": 11}


def set_precision(graph: Graph, dtype: str, keep: Collection[str] = frozenset()) -> Graph:
    """The graph in `dtype`, but for the nodes whose `key` is in `keep`.

    Raises `ConfigError` where an operator outside `keep` fixes its own arithmetic, and for a key that no node has.
    """
    keys = [node.key for node in graph.nodes]
    for key in keep:
        if key not in keys:
            raise ConfigError(f"engine.float64_layers: found {key!r}, which names no layer of the model; {suggest(key, keys)}")
    for node in graph.nodes:
        if node.key not in keep and fixes_arithmetic(node):
            raise ConfigError(
                f"engine.precision = {dtype!r}: operator {node.domain}:{node.op} ({node.key!r}) fixes its own arithmetic; allowed here: "
                "'model', or a configuration of openinfer.calibrate"
            )
    return _Rewrite(graph, dtype).run(frozenset(keep))


def fixes_arithmetic(node: Node) -> bool:
    """Whether the node has no other precision: it is of another domain than ONNX's own, or runs graphs of its own."""
    return bool(node.domain or node.captures) or any(isinstance(value, onnx.GraphProto) for value in node.attributes.values())


class _Rewrite:
    """One run of the pass: `_versions` holds, for each value and type, the name under which it can be read; `_made` the name
    and type of each value's writer.
    """

    def __init__(self, graph: Graph, dtype: str) -> None:
        self._graph, self._dtype = graph, dtype
        self._other = {"float32": "float64", "float64": "float32"}[dtype]
        self._types = value_types(graph)
        self._taken = graph.names()
        # Outputs, and what subgraphs read, keep their name in the model's type.
        self._edges = {signature.name for signature in graph.outputs} | {name for node in graph.nodes for name in node.captures}
        written = {name for node in graph.nodes for name in node.outputs}
        self._made = {name: (name, kind) for name, kind in self._types.items() if name not in written}
        self._versions = {(name, kind): name for name, (_, kind) in self._made.items()}
        self._nodes: list[Node] = []
        self._constants: dict[str, Array] = dict(graph.constants)

    def run(self, keep: frozenset[str]) -> Graph:
        for node in self._graph.nodes:
            kinds = [self._types.get(name, "") if name else "" for name in node.inputs]
            # A sequence holds what it was made of: no Cast reaches into it.
            held = any("(" in self._types.get(name, "") for name in (*node.inputs, *node.outputs))
            if node.key in keep or held:
                self._emit(node, kinds)
            else:
                wanted = [self._dtype if self._changes(node, index, kind) else kind for index, kind in enumerate(kinds)]
                self._emit(self._converted(node), wanted)
        for signature in self._graph.outputs:
            self._read(signature.name, self._types[signature.name])
        return self._graph.with_nodes(self._nodes, self._constants)

    def _changes(self, node: Node, index: int, kind: str) -> bool:
        if not kind and node.inputs[index] and accepts(node, index, self._dtype):
            raise ConfigError(
                f"engine.precision = {self._dtype!r}: the model does not say the type of {node.inputs[index]!r}, which {node.op} "
                f"({node.key!r}) reads; allowed here: 'model'"
            )
        return kind == self._other and node.op != "BitCast" and accepts(node, index, self._dtype)

    def _converted(self, node: Node) -> Node:
        named = ATTRIBUTES.get(node.op, ("", ""))[0] if node.op != "BitCast" and not node.domain else ""
        codes: Mapping[str, Any] = {
            key: ONNX_CODES[self._dtype] if key == named and value == ONNX_CODES[self._other] else value
            for key, value in node.attributes.items()
        }
        arrays = {
            key: value.astype(self._dtype) if isinstance(value, np.ndarray) and value.dtype.name == self._other else value
            for key, value in codes.items()
        }
        return dataclasses.replace(node, attributes=arrays)

    def _emit(self, node: Node, kinds: list[str]) -> None:
        """The node reading values of these types. What it writes keeps its name, but for outputs of the model, whose name is the edge's."""
        written = output_types(node, kinds)
        names = {
            name: free_name(f"{name}.{kind}", self._taken) if name in self._edges and kind != self._types[name] else name
            for name, kind in zip(node.outputs, written, strict=True)
            if name
        }
        inputs = tuple(self._read(name, kind) if name else "" for name, kind in zip(node.inputs, kinds, strict=True))
        for name in node.captures:
            self._read(name, self._types.get(name, ""))
        self._nodes.append(dataclasses.replace(node, inputs=inputs, outputs=tuple(names.get(name, "") for name in node.outputs)))
        for name, kind in zip(node.outputs, written, strict=True):
            if name:
                self._made[name] = (names[name], kind)
                self._versions[name, kind] = names[name]

    def _read(self, name: str, kind: str) -> str:
        """The name of this value in this type, cast now where nothing has needed it so far."""
        found = self._versions.get((name, kind))
        if found is not None:
            return found
        constant = self._graph.constants.get(name)
        if constant is not None:
            made = free_name(f"{name}.{kind}", self._taken)
            self._constants[made] = constant.astype(kind)
        else:
            made = name if name in self._edges and kind == self._types[name] else free_name(f"{name}.{kind}", self._taken)
            self._nodes.append(Node("Cast", (self._made[name][0],), (made,), {"to": ONNX_CODES[kind]}, "", 13))
        self._versions[name, kind] = made
        return made
