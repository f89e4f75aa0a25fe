"""Model files that must be refused: a named error, one line, quickly, whatever the bytes."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from models import STUMP
from onnx import TensorProto, helper, numpy_helper

import openinfer
from openinfer.codegen.lowering import Refused, lower
from openinfer.config import Config
from openinfer.errors import HostileModelError, InputError, MemoryBudgetError, ModelError, OpenInferError
from openinfer.frontend.onnx_model import read
from openinfer.machine import host
from openinfer.ops import fusible
from openinfer.ops._base import Target
from openinfer.passes.pipeline import optimize
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.signature import probes

node = helper.make_node
RELU = node("Relu", ["x"], ["y"])
ADD = node("Add", ["x", "w"], ["y"])


def value(name, shape=("n", 2), element=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element, shape)


def model(*nodes, stored=(), inputs=None, outputs=None, opset=17, ir=9, functions=()):
    graph = helper.make_graph(list(nodes), "g", inputs or [value("x")], outputs or [value("y")], list(stored))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, functions=list(functions))


def tensor(dims, element=TensorProto.FLOAT, raw=None, floats=(), name="w"):
    made = TensorProto(name=name, data_type=element, dims=dims, float_data=floats)
    if raw is not None:
        made.raw_data = raw
    return made


def external(location, **entries):
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **entries}.items():
        made.external_data.add(key=key, value=str(text))
    return made


def shape(*numbers):
    return numpy_helper.from_array(np.array(numbers, np.int64), "s")


def changed(made, change):
    change(made)
    return made


def constant(**attribute):
    made = node("Constant", [], ["w"])
    made.attribute.append(onnx.AttributeProto(**attribute))
    return made


def sparse():
    made = onnx.SparseTensorProto(dims=[2])
    made.values.CopyFrom(external("w.bin"))
    made.indices.CopyFrom(numpy_helper.from_array(np.array([0, 1]), "indices"))
    return made


def function(name, *nodes):
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["x"], ["y"], list(nodes), imports)


def own(name, source="x", target="y"):
    return node(name, [source], [target], domain="own")


def bomb(levels):
    doubled = [function(f"F{i}", own(f"F{i - 1}", "x", "t"), own(f"F{i - 1}", "t", "y")) for i in range(1, levels)]
    return [function("F0", RELU), *doubled]


def branches(levels):
    """If within If."""
    inner = helper.make_graph([node("Identity", ["x"], ["o"])], "b", [], [value("o", None)])
    for _ in range(levels):
        other = helper.make_graph([node("Identity", ["x"], ["o"])], "b", [], [value("o", None)])
        inner = helper.make_graph([node("If", ["c"], ["o"], then_branch=inner, else_branch=other)], "b", [], [value("o", None)])
    return inner.node[0]


def nested(levels):
    made = branches(levels)
    made.output[0] = "y"
    return model(made, inputs=[value("x"), value("c", [], TensorProto.BOOL)])


def trees(inside_if=False, **change):
    made = node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, **{**STUMP, **change})
    if inside_if:
        made.output[0] = "o"
        body = helper.make_graph([made], "b", [], [value("o", None)])
        made = node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    built = model(made, inputs=[value("x"), value("c", [], TensorProto.BOOL)] if inside_if else None, outputs=[value("y", ("n", 1))])
    built.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return built


HOSTILE, WRONG = HostileModelError, ModelError
WRAPPING = [4194305, 4194305, 211106198978564]  # the product wraps to 4 in 64 bits

CASES = {
    # name: (model, error, part of its message)
    "external file above": (model(ADD, stored=[external("../x")]), HOSTILE, "external file"),
    "external file above, hidden": (model(ADD, stored=[external("a/../../x")]), HOSTILE, "external file"),
    "external file, absolute": (model(ADD, stored=[external("/etc/passwd")]), HOSTILE, "external file"),
    "external file, beside": (model(ADD, stored=[external("w.bin")]), HOSTILE, "external file"),
    "external file, odd keys": (model(ADD, stored=[external("w", offset=-5, length=2**63, other=1)]), HOSTILE, "external file"),
    "external file, no location": (
        model(ADD, stored=[changed(external("w"), lambda t: t.ClearField("external_data"))]),
        HOSTILE,
        "external",
    ),
    "external file of an attribute": (model(constant(name="value", type=4, t=external("/etc/passwd")), ADD), HOSTILE, "external file"),
    "external file of a sparse attribute": (
        model(constant(name="sparse_value", type=11, sparse_tensor=sparse()), ADD),
        HOSTILE,
        "external",
    ),
    "external file of a sparse weight": (changed(model(ADD), lambda m: m.graph.sparse_initializer.append(sparse())), HOSTILE, "external"),
    "external file in a function": (
        model(own("F"), functions=[function("F", constant(name="value", type=4, t=external("w")), ADD)]),
        HOSTILE,
        "external file",
    ),
    "bytes fewer than the shape": (model(ADD, stored=[tensor([4], raw=b"1234")]), WRONG, "too small"),
    "bytes more than the shape": (model(ADD, stored=[tensor([1], raw=b"12345678")]), WRONG, "cannot be read"),
    "numbers fewer than the shape": (model(ADD, stored=[tensor([4], floats=[1.0])]), WRONG, "too small"),
    "no numbers": (model(ADD, stored=[tensor([2])]), WRONG, "value field"),
    "dimensions that wrap": (model(ADD, stored=[tensor(WRAPPING, floats=[1, 2, 3, 4])]), WRONG, "overflow"),
    "dimensions that wrap, raw": (model(ADD, stored=[tensor(WRAPPING, raw=bytes(16))]), WRONG, "overflow"),
    "input dimensions that wrap": (model(RELU, inputs=[value("x", WRAPPING)], outputs=[value("y", WRAPPING)]), HOSTILE, "no machine"),
    "a negative dimension": (model(ADD, stored=[tensor([-2], floats=[1, 2])]), WRONG, "Negative"),
    "two negative dimensions": (model(ADD, stored=[tensor([-1, -2], floats=[1, 2])]), WRONG, "Negative"),
    "a negative input dimension": (model(RELU, inputs=[value("x", (-3, 2))]), HOSTILE, "dimension -3"),
    "a segment that ends before it starts": (
        model(ADD, stored=[changed(tensor([2], floats=[1, 2]), lambda t: t.segment.CopyFrom(TensorProto.Segment(begin=5, end=1)))]),
        WRONG,
        "segments",
    ),
    "text as raw bytes": (model(ADD, stored=[tensor([2], TensorProto.STRING, raw=b"abcdefgh")]), WRONG, "raw_data"),
    "an unknown element type": (model(ADD, stored=[tensor([2], 99, floats=[1, 2])]), WRONG, "data_type"),
    "an input without a type": (changed(model(RELU), lambda m: m.graph.input[0].ClearField("type")), WRONG, "type"),
    "an output without a type": (changed(model(RELU), lambda m: m.graph.output[0].ClearField("type")), WRONG, "type"),
    "an input of type 77": (
        changed(model(RELU), lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 77)),
        WRONG,
        "element type 77",
    ),
    "more inputs than the operator takes": (model(node("Relu", ["x", "x"], ["y"])), WRONG, "input size 2"),
    "fewer inputs than the operator takes": (model(node("Add", ["x"], ["y"])), WRONG, "input size 1"),
    "an attribute that the operator has not": (model(node("Relu", ["x"], ["y"], alpha=1.0)), WRONG, "alpha"),
    "an attribute of another type": (model(node("Transpose", ["x"], ["y"], perm=1.5)), WRONG, "perm"),
    "more parts than outputs": (model(node("Split", ["x"], ["y", "z"], axis=1, num_outputs=2**30), opset=18), WRONG, "1073741824"),
    "an unknown operator": (model(node("Frobnicate", ["x"], ["y"])), WRONG, "Frobnicate"),
    "a cycle": (model(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])), WRONG, "sorted"),
    "a node that reads itself": (model(node("Relu", ["y"], ["y"])), WRONG, "sorted"),
    "a value that nobody writes": (model(node("Add", ["x", "nowhere"], ["y"])), WRONG, "nowhere"),
    "two writers": (model(RELU, node("Neg", ["x"], ["y"])), WRONG, "single static"),
    "two inputs of one name": (model(RELU, inputs=[value("x"), value("x")]), WRONG, "single static"),
    "two outputs of one name": (model(RELU, outputs=[value("y"), value("y")]), WRONG, "twice"),
    "two weights of one name": (model(ADD, stored=[tensor([2], floats=[1, 2])] * 2), WRONG, "not unique"),
    "two opsets of one domain": (changed(model(RELU), lambda m: m.opset_import.add(domain="ai.onnx", version=7)), WRONG, "two opsets"),
    "a function that calls itself": (model(own("A"), functions=[function("A", own("A"))]), HOSTILE, "calls itself"),
    "functions that call each other": (
        model(own("A"), functions=[function("A", own("B")), function("B", own("A"))]),
        HOSTILE,
        "calls itself",
    ),
    "functions that write out to 2^29 nodes": (model(own("F29"), functions=bomb(30)), HOSTILE, "536870912 nodes"),
    "an opset of the future": (model(RELU, opset=99), WRONG, "opset 99"),
    "opset 0": (model(RELU, opset=0), WRONG, "opset 0"),
    "no opset": (changed(model(RELU), lambda m: m.ClearField("opset_import")), WRONG, "opset_import"),
    "a format of the future": (model(RELU, ir=99), WRONG, "ir_version 99"),
    "no format": (changed(model(RELU), lambda m: m.ClearField("ir_version")), WRONG, "ir_version"),
    "a tile of terabytes": (model(node("Tile", ["x", "s"], ["y"]), stored=[shape(2**30, 2**20)]), MemoryBudgetError, "Tile"),
    "a pad of 2^31": (model(node("Pad", ["x", "s"], ["y"]), stored=[shape(0, 0, 2**31, 2**31)]), MemoryBudgetError, "Pad"),
    "a tree with a cycle": (trees(nodes_truenodeids=[0, 0, 0]), HOSTILE, "reached twice"),
    "a tree with a cycle, in a branch": (trees(True, nodes_truenodeids=[0, 0, 0]), HOSTILE, "reached twice"),
    "a tree without a child": (trees(nodes_truenodeids=[7, 0, 0]), HOSTILE, "does not exist"),
    "a tree of a feature out of range": (trees(nodes_featureids=[9, 0, 0]), HOSTILE, "feature 9"),
    "a tree with two nodes of one id": (trees(nodes_nodeids=[0, 1, 1]), HOSTILE, "defined twice"),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused(name):
    proto, error, message = CASES[name]
    data = proto.SerializeToString()
    begin = time.perf_counter()
    with pytest.raises(error, match=message) as caught:
        openinfer.load(data)
    assert time.perf_counter() - begin < 1
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (model(node("ConstantOfShape", ["s"], ["y"]), stored=[shape(2**20, 2**20, 4)]), MemoryBudgetError),
        (model(node("Expand", ["x", "s"], ["y"]), stored=[shape(2**20, 2**20, 2)]), MemoryBudgetError),
        (model(node("Resize", ["x", "", "", "s"], ["y"]), stored=[shape(2**31, 2**31)]), MemoryBudgetError),
        (model(node("Reshape", ["x", "s"], ["y"]), stored=[shape(2**40, -1)]), InputError),
        (model(node("Transpose", ["x"], ["y"], perm=[5, 9])), OpenInferError),
        (model(node("Pad", ["x", "s"], ["y"]), stored=[shape(-9, -9, 0, 0)]), OpenInferError),
        (
            model(
                node("Range", ["a", "b", "c"], ["y"]),
                stored=[numpy_helper.from_array(np.array(number), name) for name, number in (("a", 0), ("b", 2**50), ("c", 1))],
                outputs=[value("y", ("k",), TensorProto.INT64)],
            ),
            MemoryBudgetError,
        ),
    ],
)
def test_growth_is_refused_before_it_happens(made, error):
    begin = time.perf_counter()
    with pytest.raises(error) as caught:
        openinfer.load(made.SerializeToString()).run({"x": np.zeros((1, 2), np.float32)})
    assert time.perf_counter() - begin < 2
    assert "\n" not in str(caught.value)


CHILD = """
import resource, sys
from openinfer.errors import ModelError
from openinfer.frontend.onnx_model import read
peaks = []
for path in sys.argv[1:]:
    try:
        read(path)
    except ModelError as error:
        assert "nowhere" in str(error), error
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_a_refusal_takes_less_than_twice_the_file(tmp_path):
    for name, count in (("small", 1), ("large", 64 << 20)):
        weights = numpy_helper.from_array(np.ones(count, np.uint8), "z")
        onnx.save(model(node("Add", ["x", "nowhere"], ["y"]), stored=[weights]), tmp_path / f"{name}.onnx")
    paths = [str(tmp_path / f"{name}.onnx") for name in ("small", "large")]
    done = subprocess.run([sys.executable, "-c", CHILD, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 * (64 << 20) + (4 << 20)


def test_nesting_is_read_to_the_depth_that_the_format_allows():
    data = nested(20).SerializeToString()
    assert read(data).outputs[0].name == "y"
    # One more message around the bytes of a graph, again and again: no Python object could be built so deep.
    deep = nested(2).graph.SerializeToString()
    for _ in range(2000):
        deep = b"\x0a" + _varint(len(deep)) + deep
    with pytest.raises(ModelError):
        read(b"\x08\x09\x3a" + _varint(len(deep)) + deep)


def _varint(number):
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def test_weights_that_are_not_numbers_are_reported(caplog):
    with caplog.at_level(logging.WARNING, "openinfer"):
        read(model(ADD, stored=[tensor([2], floats=[float("nan"), 1.0])]))
    assert "'w' holds NaN or infinity" in caplog.text


def mutable() -> bytes:
    """A small model with weights, a branch, shapes as data, padding."""
    rng = np.random.default_rng(0)
    then = helper.make_graph([node("Identity", ["h"], ["t"])], "then", [], [value("t", None)])
    other = helper.make_graph([node("Neg", ["h"], ["e"])], "else", [], [value("e", None)])
    stored = [
        numpy_helper.from_array(rng.standard_normal((2, 4)).astype(np.float32), "w"),
        shape(-1, 2, 2),
        numpy_helper.from_array(np.array([0, 0, 0, 0, 1, 1]), "p"),
    ]
    return model(
        node("MatMul", ["x", "w"], ["h"]),
        node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        node("If", ["c"], ["i"], then_branch=then, else_branch=other),
        node("Reshape", ["i", "s"], ["r"]),
        node("Pad", ["r", "p"], ["q"]),
        node("ReduceSum", ["q"], ["y"], keepdims=0),
        stored=stored,
        outputs=[value("y", [])],
    ).SerializeToString()


def prepare(data: bytes) -> None:
    """Everything that loading does before it compiles."""
    graph, fallback, target = read(data), Fallback(), Target(host(), Config().engine)
    graph = optimize(graph, "model", fallback.evaluate, fusible.ACTIVATIONS)
    for types in probes(graph.inputs):
        try:
            lower(graph, {signature.name: kind for signature, kind in zip(graph.inputs, types, strict=True)}, target, fallback.evaluate)
        except Refused:
            continue


def attempt(data: bytes) -> bool:
    """Whether the bytes are a model; a refusal must have a name and one line."""
    try:
        prepare(data)
    except OpenInferError as error:
        assert "\n" not in str(error)
        return False
    return True


def test_truncation_at_every_byte():
    data = mutable()
    assert attempt(data)
    for length in range(len(data)):
        attempt(data[:length])


@pytest.mark.parametrize("source", ["small", "trees"])
def test_random_mutations(source):
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    rng = np.random.default_rng(seed)
    original = mutable() if source == "small" else trees().SerializeToString()
    survivors = 0
    for number in range(2000):
        data = bytearray(original)
        for _ in range(rng.integers(1, 4)):
            at, length = int(rng.integers(len(data))), int(rng.integers(1, 9))
            change = rng.integers(4)
            if change == 0:
                data[at] = int(rng.integers(256))
            elif change == 1:
                data[at] ^= 1 << int(rng.integers(8))
            elif change == 2 and len(data) > 16:
                del data[at : at + length]
            else:
                data[at:at] = rng.bytes(length)
        try:
            survivors += attempt(bytes(data))
        except OpenInferError:
            raise
        except Exception as error:
            raise AssertionError(f"mutation {number} of {seed=}: {bytes(data).hex()}") from error
    assert survivors < 2000
