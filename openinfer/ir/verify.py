"""Checks what every graph must be: one writer per value, written before it is read. Runs after the frontend and after each pass."""

from __future__ import annotations

from openinfer.errors import ModelError
from openinfer.ir.graph import Graph


def verify(graph: Graph, after: str) -> Graph:
    """The graph itself, or `ModelError` that names the step `after` which it was malformed."""
    written = {signature.name for signature in graph.inputs} | set(graph.constants)
    for node in graph.nodes:
        for name in node.reads:
            if name not in written:
                raise ModelError(
                    f"after {after}: node {node.name or node.op!r} reads {name!r} before anything writes it; the graph must be sorted"
                )
        for name in node.outputs:
            if name in written:
                raise ModelError(f"after {after}: {name!r} is written twice; every value has one writer")
            if name:
                written.add(name)
    for signature in graph.outputs:
        if signature.name not in written:
            raise ModelError(f"after {after}: nothing writes the output {signature.name!r}; found outputs of {len(graph.nodes)} nodes")
    return graph
