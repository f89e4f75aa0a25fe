"""Folds an inference BatchNormalization into the weights and bias of the convolution before it.

The arithmetic runs in float64 and is rounded once to the weights' dtype.
"""

from __future__ import annotations

import numpy as np

from openinfer.ir.graph import Graph, Node, free_name


def fold_batch_norm(graph: Graph) -> Graph:
    """Conv → BatchNormalization, both with constant parameters, becomes one Conv."""
    consumers, outputs = graph.consumers(), {signature.name for signature in graph.outputs}
    constants, taken = dict(graph.constants), graph.names()
    replaced: dict[str, Node] = {}
    dropped: set[int] = set()
    for node in graph.nodes:
        if node.op != "Conv" or node.domain or node.outputs[0] in outputs:
            continue
        readers = consumers.get(node.outputs[0], [])
        if (
            len(readers) != 1
            or readers[0].op != "BatchNormalization"
            or readers[0].attribute("training_mode", 0)
            or len(readers[0].outputs) != 1
        ):
            continue
        norm = readers[0]
        names = (*node.inputs[1:3], *norm.inputs[1:5])
        if norm.inputs[0] != node.outputs[0] or norm.version < 7 or not all(name in constants for name in names if name):
            continue
        weight = constants[node.inputs[1]]
        bias = constants[node.inputs[2]].astype(np.float64) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(weight.shape[0])
        scale, shift, mean, variance = (constants[name].astype(np.float64) for name in norm.inputs[1:5])
        factor = scale / np.sqrt(variance + norm.attribute("epsilon", 1e-5))
        folded = free_name(f"{norm.outputs[0]}.weight", taken), free_name(f"{norm.outputs[0]}.bias", taken)
        constants[folded[0]] = (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(weight.dtype)
        constants[folded[1]] = ((bias - mean) * factor + shift).astype(weight.dtype)
        replaced[norm.outputs[0]] = Node("Conv", (node.inputs[0], *folded), norm.outputs, node.attributes, "", node.version, node.name)
        dropped.add(id(node))
    nodes = [replaced.get(node.outputs[0], node) for node in graph.nodes if id(node) not in dropped]
    return graph.with_nodes(nodes, constants)
