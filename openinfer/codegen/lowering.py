"""Graph + concrete input types → a flat list of kernel steps. Shape arithmetic and other known values are computed here, not at run
time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from openinfer.errors import MemoryBudgetError
from openinfer.ir.graph import ITEM_BYTES, Array, Graph, Node, TensorType
from openinfer.machine import memory_bytes
from openinfer.ops import registry
from openinfer.ops._base import Alias, NotCompiled, Scratch, Step, Target, Value
from openinfer.passes.fold_constants import GROWING, RANDOM, Evaluate, predicted_elements

FOLD_ELEMENTS = 4096
COPY_BLOCK = 16384
MALFORMED = (ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError)
FOLDED = frozenset({"Shape", "Size"})  # always known from the input's shape: no kernel


class Refused(Exception):
    """One node cannot be compiled for these types; the node runs on the fallback instead."""

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.node, self.reason = node, reason


@dataclasses.dataclass(frozen=True)
class Lowered:
    """Steps in order. `buffers` maps a graph output to the value whose memory it is; `data` holds contents known before the call."""

    steps: tuple[Step, ...]
    labels: tuple[str, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    buffers: Mapping[str, str]
    roots: Mapping[str, str]
    data: Mapping[str, Array]

    def root(self, name: str) -> str:
        """The value whose memory `name` shares."""
        return self.roots.get(name, name)

    @property
    def cost_ns(self) -> float:
        """Predicted time on one thread."""
        return sum(step.cost_ns for step in self.steps)


def lower(graph: Graph, inputs: Mapping[str, TensorType], target: Target, evaluate: Evaluate) -> Lowered:
    """Lower every node in order; `Refused` names the first one that has no native form for these types."""
    values = {name: Value(name, TensorType(array.dtype.name, array.shape), array, True) for name, array in graph.constants.items()}
    given = tuple(Value(signature.name, inputs[signature.name]) for signature in graph.inputs)
    values.update({value.name: value for value in given})
    steps: list[Step] = []
    labels: list[str] = []
    roots: dict[str, str] = {}
    mark = _mark(graph)
    for node in graph.nodes:
        arguments = [values[name] if name else None for name in node.inputs]
        folded = _fold(node, arguments, evaluate)
        if folded is not None:
            values.update({value.name: value for value in folded})
            continue
        outputs, actions = _lower_node(node, arguments, target)
        values.update({value.name: value for value in outputs})
        for action in actions:
            if isinstance(action, Alias):
                source = action.source.name
                roots[action.output.name] = roots.get(source, source)
            else:
                steps.append(_scoped(action, node, mark))
                labels.append(f"{node.op} {node.key}")
    written = {operand.name for step in steps for i in step.writes if isinstance(operand := step.operands[i], Value)}
    buffers: dict[str, str] = {}
    for signature in graph.outputs:
        value = values[signature.name]
        root = roots.get(value.name, value.name)
        if root in written and root not in buffers.values():
            buffers[value.name] = root
            continue
        copied = Value(f"{mark}output {value.name}", value.type)
        size = value.type.size_bytes
        steps.append(Step("copy", {"block_bytes": COPY_BLOCK}, (value, copied), (size,), -(-size // COPY_BLOCK), size / 16 + 2, (1,)))
        labels.append(f"copy {value.name}")
        buffers[value.name] = copied.name
    data = {name: value.data for name, value in values.items() if value.data is not None}
    final = tuple(values[signature.name] for signature in graph.outputs)
    return Lowered(tuple(steps), tuple(labels), given, final, buffers, roots, data)


def values(graph: Graph, inputs: Mapping[str, TensorType], evaluate: Evaluate) -> dict[str, Value]:
    """Every value of the graph with its type, and its content where that is known before the call. `Refused` as by `lower`."""
    found = {name: Value(name, TensorType(array.dtype.name, array.shape), array, True) for name, array in graph.constants.items()}
    found.update({signature.name: Value(signature.name, inputs[signature.name]) for signature in graph.inputs})
    for node in graph.nodes:
        arguments = [found[name] if name else None for name in node.inputs]
        known = _fold(node, arguments, evaluate) or [value for value in _infer_node(node, arguments) if value is not None]
        found.update({value.name: value for value in known})
    return found


def _infer_node(node: Node, arguments: Sequence[Value | None]) -> list[Value | None]:
    operator = registry.find(node.domain, node.op)
    if operator is None:
        raise Refused(node, "no compiled operator of this name")
    try:
        types = operator.infer(node, arguments)
    except NotCompiled as reason:
        raise Refused(node, str(reason)) from None
    return [Value(name, kind) if name else None for name, kind in zip(node.outputs, types, strict=False)]


def _lower_node(node: Node, arguments: Sequence[Value | None], target: Target) -> tuple[list[Value], list[Step | Alias]]:
    operator = registry.find(node.domain, node.op)
    if operator is None:
        raise Refused(node, "no compiled operator of this name")
    for value in arguments:
        if value is not None and value.dtype not in ITEM_BYTES:
            raise Refused(node, f"dtype {value.dtype} of {value.name!r}")
    try:
        types = operator.infer(node, arguments)
        outputs = [Value(name, kind) if name else None for name, kind in zip(node.outputs, types, strict=False)]
        if len(outputs) < len(node.outputs):
            raise NotCompiled(f"{len(node.outputs)} outputs asked for, {len(types)} compiled")
        _check_size(node, outputs)
        actions = operator.lower(node, arguments, outputs, target)
    except NotCompiled as reason:
        raise Refused(node, str(reason)) from None
    except MALFORMED as error:
        # Attributes or shapes that contradict each other: the fallback says so when the node runs.
        raise Refused(node, f"attributes or shapes that do not fit: {' '.join(str(error).split())[:100]}") from None
    return [value for value in outputs if value is not None], actions


def _check_size(node: Node, outputs: Sequence[Value | None]) -> None:
    for value in outputs:
        if value is not None and value.type.size_bytes > memory_bytes():
            raise MemoryBudgetError(
                f"operator {node.op}: {value.name!r} of {value.dtype} {list(value.shape)} needs {value.type.size_bytes:.3g} bytes, "
                f"the machine has {memory_bytes():.3g}; use a smaller input or model"
            )


def _fold(node: Node, arguments: Sequence[Value | None], evaluate: Evaluate) -> list[Value] | None:
    """The outputs' contents where they follow from shapes and known values; `None` where the node must run."""
    if node.op == "Shape" and not node.domain and arguments[0] is not None:
        start, end = node.attribute("start", 0), node.attribute("end", None)
        shape = np.asarray(arguments[0].shape[slice(start, end)], np.int64)
        return [Value(node.outputs[0], TensorType("int64", shape.shape), shape)]
    if node.op == "Size" and not node.domain and arguments[0] is not None:
        size = np.asarray(arguments[0].type.count, np.int64)
        return [Value(node.outputs[0], TensorType("int64", ()), size)]
    present = [value for value in arguments if value is not None]
    if (
        not present
        or node.captures
        or node.op in RANDOM
        or any(value.data is None or value.type.count > FOLD_ELEMENTS for value in present)
    ):
        return None
    if predicted_elements(node, [np.asarray(value.data) for value in present]) > FOLD_ELEMENTS:
        return None
    if node.op in GROWING and not _stays_small(node, present):
        return None
    results = evaluate(node, [None if value is None else value.data for value in arguments])
    if not all(isinstance(result, np.ndarray) and result.dtype.name in ITEM_BYTES for result in results):
        return None
    constant = all(value.constant for value in present)
    return [
        Value(name, TensorType(result.dtype.name, result.shape), result, constant)
        for name, result in zip(node.outputs, results, strict=False)
        if name
    ]


def _stays_small(node: Node, present: Sequence[Value]) -> bool:
    """Whether a node that can grow its input keeps to the folding limit."""
    if node.op in ("ConstantOfShape", "Expand"):
        shape = np.asarray(present[-1].data, object)
        return int(np.prod(shape, initial=1)) <= FOLD_ELEMENTS
    if node.op == "Range" and len(present) == 3:
        start, limit, delta = (float(np.asarray(value.data).reshape(())) for value in present)
        return delta != 0 and abs((limit - start) / delta) <= FOLD_ELEMENTS
    return False


def _scoped(step: Step, node: Node, mark: str) -> Step:
    """Scratch names made unique to the node, and unlike any of the model's."""
    operands = tuple(
        dataclasses.replace(operand, name=f"{mark}scratch {node.key}/{operand.name}") if isinstance(operand, Scratch) else operand
        for operand in step.operands
    )
    return dataclasses.replace(step, operands=operands)


def _mark(graph: Graph) -> str:
    """What no name of the graph begins with."""
    names = [*graph.constants, *(signature.name for signature in graph.inputs), *(name for node in graph.nodes for name in node.outputs)]
    mark = "%"
    while any(name.startswith(mark) for name in names):
        mark += "%"
    return mark
