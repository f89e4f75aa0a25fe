"""Evaluates nodes whose inputs are all constants, once, at load."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from openinfer.ir.graph import Array, Graph, Node

Evaluate = Callable[[Node, Sequence[Array | None]], list[Array]]

LIMIT_BYTES = 64 << 20
RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"})
GROWING = frozenset({"Expand", "Tile", "ConstantOfShape", "Range", "Resize", "Upsample", "Pad", "OneHot", "Scan", "Loop", "If", "EyeLike"})


def fold_constants(graph: Graph, evaluate: Evaluate) -> Graph:
    """The graph with constant nodes replaced by their values. Nodes that could grow beyond reason, or draw random numbers, stay."""
    constants = dict(graph.constants)
    kept: list[Node] = []
    for node in graph.nodes:
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
