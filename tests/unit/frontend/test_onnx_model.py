"""What the reader makes of a model."""

from __future__ import annotations

from onnx import TensorProto, helper

from openinfer.frontend.onnx_model import read


def test_functions_are_written_out():
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    twice = helper.make_function("own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], imports)
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["h"], domain="own"), helper.make_node("Twice", ["h"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=imports, functions=[twice], ir_version=9)
    for form in (model, model.SerializeToString()):
        read_nodes = read(form).nodes
        assert [(node.op, node.domain) for node in read_nodes] == [("Add", ""), ("Add", "")]
        assert read_nodes[1].inputs == (read_nodes[0].outputs[0],) * 2
