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
        if predicted_elements(node, [constants[name] for name in node.reads]) * 8 > LIMIT_BYTES:
            kept.append(node)
            continue
        results = evaluate(node, [constants[name] if name else None for name in node.inputs])
        if all(isinstance(result, np.ndarray) for result in results):
            constants.update({name: result for name, result in zip(node.outputs, results, strict=False) if name})
        else:
            kept.append(node)
    return graph.with_nodes(kept, constants)


def predicted_elements(node: Node, arrays: Sequence[Array]) -> int:
    """Elements that the outputs of a node have at most where operands of few elements combine into many: products, broadcasting, and rows
    gathered again and again. 0 where the shapes do not fit.
    """
    shapes = [array.shape for array in arrays]
    try:
        if node.op in ("MatMul", "MatMulInteger", "Gemm") and len(shapes) > 1 and shapes[0] and shapes[1]:
            batch = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
            left, right = shapes[0][-2:], shapes[1][-2:]
            rows, columns = (max(left), max(right)) if node.op == "Gemm" else (math.prod(left[:-1]), math.prod(right[1:]))
            return math.prod(batch) * rows * columns
        if node.op == "Gather" and len(arrays) == 2:
            return int(arrays[0].size // max(1, shapes[0][int(node.attribute("axis", 0))]) * arrays[1].size)
        return math.prod(np.broadcast_shapes(*shapes))
    except (ValueError, IndexError):
        return 0


def _filled(node: Node, shape: Array, room: int) -> Array | None:
    """ConstantOfShape's output, where it is well-formed and takes at most `room` bytes."""
    value = np.asarray(node.attribute("value", np.zeros(1, np.float32)))
    if value.size != 1 or shape.ndim != 1 or (shape < 0).any() or math.prod(shape.tolist()) * value.itemsize > room:
        return None
    return np.full(shape, value.reshape(()), value.dtype)
