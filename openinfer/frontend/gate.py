"""What an ONNX model may not ask for, checked on the protobuf before anything of it is converted, inlined or run.

Graphs are walked with a stack of their own, so that nesting cannot exhaust Python's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx

from openinfer.errors import HostileModelError, ModelError

DEEPEST = 32  # graphs within graphs
MOST_NODES = 1_000_000  # once functions are written out

Place = tuple[Any, int]  # a graph or function, and how deep it lies


def inspect(proto: onnx.ModelProto, source: str) -> None:
    """Raises `HostileModelError` for data outside the file, nesting, or functions that grow beyond reason; `ModelError` for ambiguity."""
    domains = ["" if entry.domain == "ai.onnx" else entry.domain for entry in proto.opset_import]
    for domain in domains:
        if domains.count(domain) > 1:
            raise ModelError(f"{source}: found two opsets of {domain or 'ai.onnx'!r}; allowed: one for each domain")
    for graph in graphs(proto, source):
        for tensor in _tensors(graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise HostileModelError(
                    f"{source}: tensor {tensor.name!r} lies in an external file; save the model with its weights inside"
                )
        for node in graph.node:
            _inspect_node(node, source)
    outputs = [value.name for value in proto.graph.output]
    twice = next((name for name in outputs if outputs.count(name) > 1), None) if len(outputs) < 1000 else None
    if twice is not None or len(set(outputs)) < len(outputs):
        raise ModelError(f"{source}: found the output {twice!r} twice; every output has a name of its own")
    _inspect_functions(proto, source)


def graphs(proto: onnx.ModelProto, source: str) -> Iterator[Any]:
    """The model's graph, its functions, and every graph inside a node of theirs."""
    todo: list[Place] = [(graph, 0) for graph in (proto.graph, *proto.functions)]
    while todo:
        graph, depth = todo.pop()
        if depth > DEEPEST:
            raise HostileModelError(f"{source}: found graphs nested more than {DEEPEST} deep; no model needs that")
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    todo.append((attribute.g, depth + 1))
                todo += [(inner, depth + 1) for inner in attribute.graphs]


def _tensors(graph: Any) -> Iterator[Any]:
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
        yield from _parts(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from _parts([attribute.sparse_tensor])
            yield from _parts(attribute.sparse_tensors)


def _parts(tensors: Iterable[Any]) -> Iterator[Any]:
    for sparse in tensors:
        yield sparse.values
        yield sparse.indices


def _inspect_node(node: Any, source: str) -> None:
    if node.op_type == "Split" and node.domain in ("", "ai.onnx"):
        for attribute in node.attribute:
            if attribute.name == "num_outputs" and attribute.i != len(node.output):
                raise ModelError(f"{source}: Split into {attribute.i} has {len(node.output)} outputs; the two must be equal")


def _inspect_functions(proto: onnx.ModelProto, source: str) -> None:
    """Functions may call each other, not themselves, and must stay within `MOST_NODES` once they are written out."""
    bodies: dict[tuple[str, str], Any] = {(function.domain, function.name): function for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def calls(body: Any) -> list[tuple[str, str]]:
        found, todo = [], [body]
        while todo:
            for node in todo.pop().node:
                found.append((node.domain, node.op_type))
                for attribute in node.attribute:
                    todo += [attribute.g] if attribute.HasField("g") else []
                    todo += attribute.graphs
        return found

    # A function is sized after those that it calls: depth first, with a stack of (name, calls, already entered).
    for start in bodies:
        todo = [start]
        entered: set[tuple[str, str]] = set()
        while todo:
            name = todo[-1]
            if name in sizes:
                todo.pop()
                continue
            inner = calls(bodies[name])
            waiting = [call for call in dict.fromkeys(inner) if call in bodies and call not in sizes]
            if name in entered and any(call in entered for call in waiting):
                raise HostileModelError(f"{source}: function {name[0]}:{name[1]} calls itself; a function must not")
            entered.add(name)
            if waiting:
                todo += waiting
            else:
                sizes[name] = sum(sizes.get(call, 1) for call in inner)
                todo.pop()
    total = sum(sizes.get(call, 1) for call in calls(proto.graph))
    if total > MOST_NODES:
        raise HostileModelError(f"{source}: its functions write out to {total} nodes; allowed: {MOST_NODES}")
