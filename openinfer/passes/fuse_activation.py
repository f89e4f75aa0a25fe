"""Moves an activation into the epilogue of the dense or convolution kernel that feeds it: attribute `activation` on the producer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from openinfer.ir.graph import Graph, Node


def fuse_activation(graph: Graph, fusible: Mapping[str, tuple[str, ...]]) -> Graph:
    """`fusible` maps a producer's operator to the activations that its kernels apply themselves."""
    consumers, producers, outputs = graph.consumers(), graph.producers(), {signature.name for signature in graph.outputs}
    fused: dict[str, Node] = {}
    dropped: set[str] = set()
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else ""
        producer = fused.get(source) or producers.get(source)
        if producer is None or node.domain or producer.domain or node.op not in fusible.get(producer.op, ()):
            continue
        if source in outputs or len(consumers[source]) != 1 or "activation" in producer.attributes:
            continue
        parameters = _parameters(node, graph)
        if parameters is not None:
            fused[node.key] = dataclasses.replace(
                producer,
                outputs=node.outputs,
                attributes={**producer.attributes, "activation": node.op, **parameters},
                parts=(*(producer.parts or (producer,)), node),
            )
            dropped.add(source)
    return graph.with_nodes(fused.get(node.key, node) for node in graph.nodes if node.key not in dropped)


def _parameters(node: Node, graph: Graph) -> dict[str, Any] | None:
    """The activation's numbers as attributes, or `None` where they are not constants."""
    if node.op == "LeakyRelu":
        return {"leak": float(node.attribute("alpha", 0.01))}
    if node.op != "Clip":
        return {}
    if node.version < 11:
        return {"min": node.attribute("min", float("-inf")), "max": node.attribute("max", float("inf"))}
    bounds: dict[str, Any] = {}
    for key, position, default in (("min", 1, float("-inf")), ("max", 2, float("inf"))):
        name = node.inputs[position] if len(node.inputs) > position else ""
        if name and name not in graph.constants:
            return None
        bounds[key] = float(graph.constants[name]) if name else default
    return bounds
