"""Writes ONNX models node by node, for the build scripts: every value gets a name, every constant is an initializer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Port = tuple[Any, Sequence[int | str]]  # dtype and shape


class Writer:
    """Collects nodes and constants; `model` gives the checked result."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, op: str, *operands: Any, outputs: int = 1, name: str | None = None, domain: str = "", **attributes: Any) -> Any:
        """Append a node. Operands are names, arrays (which become constants) or `None` (left out). The name of its output; a list of them
        where there are several.
        """
        index = len(self._nodes)
        names = [self._operand(operand, f"{op.lower()}{index}_{position}") for position, operand in enumerate(operands)]
        first = name or f"{op.lower()}{index}"
        results = [first] if outputs == 1 else [f"{first}.{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op, names, results, name=first, domain=domain, **attributes))
        return first if outputs == 1 else results

    def model(
        self,
        name: str,
        inputs: Mapping[str, Port],
        outputs: Mapping[str, Port],
        opset: int = 17,
        ml_opset: int | None = None,
        ir_version: int = 9,
    ) -> onnx.ModelProto:
        """The model, checked. Ports are dtype and shape by name; a string in a shape is a symbolic dimension."""
        ports = [_port(*item) for item in inputs.items()]
        if ir_version < 4:  # such files list their constants among the inputs
            ports += [helper.make_tensor_value_info(one.name, one.data_type, list(one.dims)) for one in self._constants]
        graph = helper.make_graph(self._nodes, name, ports, [_port(*item) for item in outputs.items()])
        graph.initializer.extend(self._constants)
        opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("ai.onnx.ml", ml_opset)] if ml_opset is not None else [])
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="openinfer")
        onnx.checker.check_model(proto, full_check=True)
        return proto

    def _operand(self, operand: Any, name: str) -> str:
        if operand is None or isinstance(operand, str):
            return operand or ""
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(operand), name))
        return name


def _port(name: str, port: Port) -> Any:
    dtype, shape = port
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
