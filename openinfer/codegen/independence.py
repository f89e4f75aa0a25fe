"""Whether a model keeps the rows of a batch apart, proved from its graph: requests of such a model may share a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openinfer.codegen.lowering import MALFORMED, Refused, values
from openinfer.errors import OpenInferError
from openinfer.ir.graph import Graph, Node, TensorType
from openinfer.ops._base import NotCompiled, Value
from openinfer.ops.rows import PRODUCTS, RULES, Counted, Mixed, Place, Rows, Use, varying
from openinfer.passes.fold_constants import RANDOM, Evaluate

COUNTS = (3, 5)  # primes, so that a size which is a multiple of both is one of the rows'


def keeps_rows_apart(graph: Graph, inputs: Mapping[str, TensorType], evaluate: Evaluate) -> bool:
    """Whether each row of every output depends on the same row of every input alone. The rows lie along the first axis of all of them;
    `inputs` gives the other sizes. `False` where that is not proved.
    """
    try:
        seen = [
            values(graph, {name: TensorType(kind.dtype, (count, *kind.shape[1:])) for name, kind in inputs.items()}, evaluate)
            for count in COUNTS
        ]
        places: dict[str, Place] = dict.fromkeys(graph.constants)
        places.update((signature.name, Rows(0)) for signature in graph.inputs)
        for node in graph.nodes:
            for name, place in zip(node.outputs, _carry(node, seen, places), strict=False):
                if name:
                    _check(name, place, seen)
                    places[name] = place
        return all(places[signature.name] == Rows(0) for signature in graph.outputs)
    except (Mixed, Refused, NotCompiled, OpenInferError, *MALFORMED):
        return False


def _carry(node: Node, seen: Sequence[Mapping[str, Value]], places: Mapping[str, Place]) -> Sequence[Place]:
    """Where each output of the node has its rows."""
    if node.captures or node.op in RANDOM:
        raise Mixed
    given = tuple(places[name] if name else None for name in node.inputs)
    if not any(place is not None for place in given):
        return [None] * len(node.outputs)
    sizes = node.op in ("Shape", "Size") or _multiplies(node, given)
    if sizes and not node.domain:
        return [varying(*(value[name] for value in seen)) if name else None for name in node.outputs]
    rule = RULES.get((node.domain, node.op))
    if rule is None:
        raise Mixed
    answers = set()
    for value, count in zip(seen, COUNTS, strict=True):
        shapes = tuple(value[name].shape if name else () for name in node.outputs)
        answer = rule(Use(node, tuple(value[name] if name else None for name in node.inputs), given, shapes, count))
        answers.add((answer,) * len(node.outputs) if isinstance(answer, Rows) else tuple(answer))
    if len(answers) != 1:
        raise Mixed
    return answers.pop()


def _multiplies(node: Node, given: Sequence[Place]) -> bool:
    """Whether the node moves or multiplies what depends on the number of rows, as all of it or, first, as what is moved."""
    counted = [isinstance(place, Counted) for place in given]
    if node.op in ("Concat", "Mul"):
        return any(counted)
    return node.op in PRODUCTS and counted[0] and not any(place is not None for place in given[1:])


def _check(name: str, place: Place, seen: Sequence[Mapping[str, Value]]) -> None:
    """The shapes that follow from a value's place are those that it has."""
    shapes = [list(value[name].shape) for value in seen]
    if isinstance(place, Rows):
        for shape, count in zip(shapes, COUNTS, strict=True):
            if shape[place.axis] != count * place.each:
                raise Mixed
            shape[place.axis] = 0
    if shapes[0] != shapes[1]:
        raise Mixed
