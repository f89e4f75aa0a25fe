"""Layers in another type than the model's: where Casts stand, that each value is cast once, and that any choice of layers is right."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import pytest
from models import mlp, model
from onnx import TensorProto, helper

from openinfer.config import Config
from openinfer.engine import compile_graph
from openinfer.errors import ConfigError
from openinfer.frontend.dtypes import value_types
from openinfer.frontend.float64 import discrepancy, reference
from openinfer.frontend.onnx_model import read
from openinfer.ir.verify import verify
from openinfer.passes.set_precision import set_precision

D, F = TensorProto.DOUBLE, TensorProto.FLOAT


def pipeline() -> onnx.ModelProto:
    """Every kind of crossing: a value read by many, a constant shared by layers, a layer read by a subgraph, a float32 value."""
    then = helper.make_graph([helper.make_node("Neg", ["c"], ["t"])], "then", [], [helper.make_tensor_value_info("t", D, None)])
    other = helper.make_graph([helper.make_node("Identity", ["c"], ["u"])], "else", [], [helper.make_tensor_value_info("u", D, None)])
    nodes = [
        helper.make_node("Add", ["x", "w"], ["a"]),
        helper.make_node("Mul", ["a", "w"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["c"]),
        helper.make_node("Greater", ["c", "w"], ["above"]),
        helper.make_node("Where", ["above", "c", "b"], ["d"]),
        helper.make_node("If", ["flag"], ["e"], then_branch=then, else_branch=other),
        helper.make_node("Cast", ["d"], ["single"], to=F),
        helper.make_node("Cast", ["single"], ["f"], to=D),
        helper.make_node("Add", ["e", "f"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["label"], axis=1),
    ]
    return model(
        nodes,
        {"x": (D, ["n", 5]), "flag": (TensorProto.BOOL, [])},
        {"y": (D, ["n", 5]), "c": (D, ["n", 5]), "label": (TensorProto.INT64, ["n", 1])},
        {"w": np.random.default_rng().standard_normal(5)},
    )


def test_any_choice_of_layers_is_right_and_casts_once():
    seed = np.random.SeedSequence().entropy
    print(f"seed = {seed}")
    generator = np.random.default_rng(seed)
    proto = pipeline()
    graph = read(proto)
    keys = [node.key for node in graph.nodes]
    inputs = {"x": generator.standard_normal((7, 5)), "flag": np.asarray(bool(generator.integers(2)))}
    expected = reference(proto, inputs)
    for _ in range(12):
        keep = {"e", *(key for key in keys if generator.random() < 0.5)}
        mixed = verify(set_precision(graph, "float32", keep), "set_precision")
        casts = collections.Counter(
            (node.inputs[0], node.attribute("to")) for node in mixed.nodes if node.op == "Cast" and node.key not in keys
        )
        assert max(casts.values(), default=0) <= 1, (keep, casts)
        types = value_types(mixed)
        assert {s.name: types[s.name] for s in graph.outputs} == {s.name: s.dtype for s in graph.outputs}
        for node in mixed.nodes:
            if node.op in ("Add", "Mul", "Sub"):
                kinds = {types[name] for name in (*node.inputs, *node.outputs)}
                assert kinds == {"float64" if set(node.outputs) & keep else "float32"}, (node, keep)
        with compile_graph(graph, Config.parse({"engine": {"precision": "float32", "float64_layers": sorted(keep)}})) as engine:
            found = engine.run(inputs)
        for name in ("y", "c"):
            assert found[name].dtype == np.float64
            assert discrepancy(found[name], expected[name]) < 1e-5, keep


def test_everything_kept_changes_nothing():
    graph = read(mlp(dtype=np.float64))
    same = set_precision(graph, "float32", {node.key for node in graph.nodes})
    assert same.nodes == graph.nodes


def test_operands_that_the_operator_fixes_keep_their_type():
    proto = model(
        [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")],
        {"x": (F, [1, 1, 2, 2])},
        {"y": (F, [1, 1, 2, 2])},
        {"scales": np.float32([1, 1, 2, 2])},
    )
    wide = set_precision(read(proto), "float64")
    resize = next(node for node in wide.nodes if node.op == "Resize")
    assert wide.constants[resize.inputs[2]].dtype == np.float32
    assert value_types(wide)[resize.outputs[0]] == "float64"


def test_what_cannot_change_is_named():
    graph = read(pipeline())
    with pytest.raises(ConfigError, match=r"If.*'e'.*fixes its own arithmetic"):
        set_precision(graph, "float32")
    with pytest.raises(ConfigError, match="'nowhere', which names no layer"):
        set_precision(graph, "float32", {"nowhere"})


def test_sequences_keep_what_they_were_made_of():
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["squared"]),
        helper.make_node("SplitToSequence", ["squared"], ["parts"], axis=0),
        helper.make_node("SequenceAt", ["parts", "first"], ["part"]),
        helper.make_node("Add", ["part", "part"], ["y"]),
    ]
    proto = model(nodes, {"x": (D, [3, 4])}, {"y": (D, [1, 4])}, {"first": np.array(0)})
    narrow = set_precision(read(proto), "float32")
    types = value_types(verify(narrow, "set_precision"))
    at = {node.op: node for node in narrow.nodes if node.op != "Cast"}
    assert types[at["Mul"].outputs[0]] == types[at["Add"].inputs[0]] == "float32"
    assert types[at["SplitToSequence"].outputs[0]] == "seq(float64)" and types[at["SequenceAt"].outputs[0]] == "float64"
    x = np.random.default_rng().standard_normal((3, 4))
    with compile_graph(read(proto), Config.parse({"engine": {"precision": "float32"}})) as engine:
        assert discrepancy(engine.run({"x": x})["y"], reference(proto, {"x": x})["y"]) < 1e-6
