"""MatMul → Add of a constant vector becomes a MatMul with a third input, the bias, added in the kernel's epilogue."""

from __future__ import annotations

import dataclasses

from openinfer.ir.graph import Graph, Node

FLOATS = ("float32", "float64")  # what the kernels' epilogues add


def fuse_bias(graph: Graph) -> Graph:
    """The graph with biases fused."""
    consumers, producers, outputs = graph.consumers(), graph.producers(), {signature.name for signature in graph.outputs}
    fused: dict[str, Node] = {}
    dropped: set[str] = set()
    for add in graph.nodes:
        if add.op != "Add" or add.domain or add.version < 7:
            continue
        for product, other in (add.inputs, add.inputs[::-1]):
            node, bias = producers.get(product), graph.constants.get(other)
            if node is None or bias is None or node.op != "MatMul" or node.domain or len(node.inputs) != 2:
                continue
            weight = graph.constants.get(node.inputs[1])
            if weight is None or weight.dtype.name not in FLOATS or weight.ndim != 2:
                continue
            if bias.ndim != 1 or bias.shape[0] != weight.shape[1] or bias.dtype != weight.dtype:
                continue
            if product not in outputs and len(consumers[product]) == 1:
                fused[add.outputs[0]] = dataclasses.replace(node, inputs=(*node.inputs, other), outputs=add.outputs, parts=(node, add))
                dropped.add(product)
                break
    return graph.with_nodes(fused.get(node.key, node) for node in graph.nodes if node.key not in dropped)
