"""Operators without a native form, run one node at a time by `onnx.reference`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.errors import InputError, UnsupportedOperatorError
from openinfer.ir.graph import Array, Node
from openinfer.runtime.growth import check_growth


class Fallback:
    """Evaluators of nodes, made on first use. Safe to call from several threads."""

    def __init__(self) -> None:
        self._evaluators: dict[tuple[str, ...], Any] = {}

    def evaluate(self, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The node's outputs for positional inputs; an absent one is `None`."""
        feeds = {name: value for name, value in zip(node.inputs, inputs, strict=False) if name and value is not None}
        return self.run(node, feeds)

    def run(self, node: Node, feeds: Mapping[str, Any]) -> list[Any]:
        """The node's outputs for named inputs, captured values of subgraphs included."""
        check_growth(node, feeds)
        key = (node.op, *node.outputs)
        evaluator = self._evaluators.get(key)
        if evaluator is None:
            evaluator = self._evaluators[key] = _evaluator(node)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                results = evaluator.run(None, dict(feeds))
        except Exception as error:
            found = ", ".join(
                f"{name}: {getattr(value, 'dtype', type(value).__name__)}{getattr(value, 'shape', '')}" for name, value in feeds.items()
            )
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"operator {node.op} ({node.key!r}) failed on the fallback for {found}: {reason}") from error
        present = iter(np.asarray(result) if isinstance(result, (np.generic, float, int)) else result for result in results)
        return [next(present) if name else None for name in node.outputs]


def _evaluator(node: Node) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    reason = known_wrong(node)
    if reason:
        raise UnsupportedOperatorError(f"operator {node.op} ({node.key!r}): {reason}; compiled code does not exist for it yet")
    attributes = {key: _proto(key, value, onnx) for key, value in node.attributes.items()}
    try:
        proto = onnx.helper.make_node(node.op, list(node.inputs), list(node.outputs), domain=node.domain)
        proto.attribute.extend(attribute for attribute in attributes.values() if attribute is not None)
        inputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.reads]
        outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.outputs if name]
        graph = onnx.helper.make_graph([proto], "fallback", inputs, outputs)
        imports = [onnx.helper.make_opsetid(node.domain, node.version or 1)]
        if node.domain:
            imports.append(onnx.helper.make_opsetid("", onnx.defs.onnx_opset_version()))
        model = onnx.helper.make_model(graph, opset_imports=imports)
        return ReferenceEvaluator(model)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedOperatorError(
            f"operator {node.domain or 'ai.onnx'}:{node.op} (opset {node.version}) is neither compiled nor known to the fallback: {reason}"
        ) from error


def known_wrong(node: Node) -> str:
    """Why onnx.reference answers this node wrongly; empty where it is trusted. Found by ONNX's own backend cases."""
    if node.op == "Loop" and not node.domain:
        body = node.attribute("body")
        carried = len(node.inputs) - 2
        for output in body.output[1 + carried :]:
            if not output.type.tensor_type.HasField("shape") or not output.type.tensor_type.shape.dim:
                return f"the fallback gives the scan output {output.name!r} of scalars an extra dimension"
    branch = node.attribute("then_branch").output if node.op == "If" and not node.domain else ()
    if any(output.type.HasField("optional_type") for output in branch):
        return "the fallback gives optional outputs of a branch an extra dimension"
    if node.op == "QuantizeLinear" and node.attribute("block_size", 0) and len([name for name in node.inputs if name]) < 3:
        return "the fallback loses the shape of blocked quantization without a zero point"
    if node.op in ("LSTM", "GRU", "RNN") and not node.domain:
        if len(node.inputs) > 4 and node.inputs[4]:
            return "the fallback ignores sequence_lens"
        ignored = [name for name in ("clip", "activation_alpha", "activation_beta", "input_forget") if node.attribute(name, 0)]
        usual = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}[node.op]
        ignored += ["activations"] if tuple(node.attribute("activations", usual)) not in (usual, usual * 2) else []
        if ignored:
            return f"the fallback ignores {', '.join(ignored)}"
    return ""


def _proto(name: str, value: Any, onnx: Any) -> Any:
    if isinstance(value, np.ndarray):
        return onnx.helper.make_attribute(name, onnx.numpy_helper.from_array(value, name))
    if isinstance(value, tuple) and not value:
        return None
    return onnx.helper.make_attribute(name, list(value) if isinstance(value, tuple) else value)
