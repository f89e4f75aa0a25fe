"""Evaluates nodes whose inputs are all constants, once, at load."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from openinfer.ir.graph import Array, Graph, Node
from openinfer.machine import memory_bytes

Evaluate = Callable[[Node, Sequence[Array | None]], list[Array]]

LIMIT_BYTES = 64 << 20
GENERATED_BYTES = 1 << 30  # of all tensors that the model describes by their shape and one value
RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"})
GROWING = frozenset({"Expand", "Tile", "ConstantOfShape", "Range", "Resize", "Upsample", "Pad", "OneHot", "Scan", "Loop", "If", "EyeLike"})


def fold_constants(graph: Graph, evaluate: Evaluate) -> Graph:
    """The graph with constant nodes replaced by their values. Nodes that could grow beyond reason, or draw random numbers, stay."""
    constants = dict(graph.constants)
    kept: list[Node] = []
    room = min(GENERATED_BYTES, memory_bytes() // 4)
    for node in graph.nodes:
        if node.op == "ConstantOfShape" and not node.domain and node.inputs[0] in constants:
            filled = _filled(node, constants[node.inputs[0]], room)
            if filled is not None:
                constants[node.outputs[0]] = filled
                room -= filled.nbytes
                continue
        foldable = node.op not in RANDOM and node.op not in GROWING and all(name in constants for name in node.reads) and bool(node.reads)
        if not foldable or sum(constants[name].nbytes for name in node.reads) > LIMIT_BYTES:
            kept.append(node)
            continue
        results = evaluate(node, [constants[name] if name else None for name in node.inputs])
        if all(isinstance(result, np.ndarray) for result in results):
            constants.update({name: result for name, result in zip(node.outputs, results, strict=False) if name})
        else:
            kept.append(node)
    return graph.with_nodes(kept, constants)


def _filled(node: Node, shape: Array, room: int) -> Array | None:
    """ConstantOfShape's output, where it is well-formed and takes at most `room` bytes."""
    value = np.asarray(node.attribute("value", np.zeros(1, np.float32)))
    if value.size != 1 or shape.ndim != 1 or (shape < 0).any() or math.prod(shape.tolist()) * value.itemsize > room:
        return None
    return np.full(shape, value.reshape(()), value.dtype)
