"""Removes nodes whose outputs nobody reads."""

from __future__ import annotations

from openinfer.ir.graph import Graph, Node


def eliminate_dead(graph: Graph) -> Graph:
    """The graph without dead nodes."""
    needed = {signature.name for signature in graph.outputs}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.reads)
    return graph.with_nodes(reversed(kept))
