"""Versions by name: a wrong opset is refused with the opsets that have the operator or the attribute."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from openinfer.errors import ModelError
from openinfer.frontend.onnx_model import read
from openinfer.frontend.versions import versions


def one(op: str, opset: int, inputs: tuple[str, ...] = ("x",), ir: int = 8, **attributes: object) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, list(inputs), ["y"], **attributes)],
        "test",
        [value(name, TensorProto.FLOAT, [2, 3]) for name in inputs],
        [value("y", TensorProto.FLOAT, [2, 3])],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, producer_name="drill\n", producer_version="2"
    )


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (one("LayerNormalization", 13, ("x", "s")), r"LayerNormalization \('y'\) in opset 13 of ai.onnx; it exists from opset 17 on"),
        (one("ReduceSum", 13, axes=[1]), r"'axes' of operator ReduceSum \('y'\) in opset 13 of ai.onnx; .* has it in opsets 1 to 12;"),
        (one("Reshape", 13, ("x", "s"), allowzero=1), r"'allowzero' of operator Reshape .* in opset 13 .* has it from opset 14 on"),
        (one("Upsample", 11, ("x", "s")), r"Upsample \('y'\) in opset 11 of ai.onnx; it was withdrawn in opset 10; .* up to 9"),
        (one("Relu", 13, ir=onnx.IR_VERSION + 1), f"found ir_version {onnx.IR_VERSION + 1}; allowed: up to {onnx.IR_VERSION}"),
    ],
)
def test_wrong_versions_are_refused_by_name(proto, message):
    for given in (proto, proto.SerializeToString()):
        with pytest.raises(ModelError, match=message) as caught:
            read(given)
        assert "\n" not in str(caught.value)


def test_subgraphs_and_functions_are_looked_into():
    node = helper.make_node("LayerNormalization", ["x", "x"], ["z"])
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3])])
    proto = one("Relu", 13)
    proto.graph.node[0].CopyFrom(helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch))
    proto.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    with pytest.raises(ModelError, match=r"LayerNormalization \('z'\) in opset 13"):
        read(proto)


def test_what_the_file_claims_is_shown_on_one_line():
    assert str(versions(one("Relu", 13))) == "IR 8; opset ai.onnx 13; made by drill 2"
    assert str(versions(onnx.ModelProto())) == "IR 0; opset none; made by a program that does not say"
