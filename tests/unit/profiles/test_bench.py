"""What the benchmark draws, how long it goes on, and which peers it does without."""

from __future__ import annotations

import types

import numpy as np
import onnx
import pytest
from models import mlp
from onnx import TensorProto, helper
from openinfer.profiles import bench as benchmark
from openinfer.profiles.contenders import lightgbm, onnxruntime
from openinfer.profiles.contenders._base import Contender
from openinfer.workloads import registry

from openinfer.errors import InputError, MissingExtraError
from openinfer.ir.graph import Signature


@pytest.mark.parametrize(("size", "count"), [(160, 1024), (1 << 17, 1024), (1 << 20, 128), (100 << 20, 4), (0, 1024)])
def test_examples_fit_into_memory(size, count):
    assert benchmark._example_count(size) == count


def test_examples_have_the_bytes_that_were_counted():
    signatures = [Signature("x", "float32", ("n", 1 << 15)), Signature("i", "int64", (3,))]
    drawn = benchmark._examples(signatures, np.random.default_rng(), 16)
    assert sum(array.nbytes for array in drawn[0].values()) == benchmark._batch_bytes(signatures, 16) == (1 << 21) + 24
    assert len(drawn) == 63 and not (drawn[0]["x"] == drawn[1]["x"]).all()


@pytest.mark.parametrize(("length", "batch"), [(5000, 1), (100, 1), (1000, 7), (10, 25)])
def test_batches_take_every_request_before_any_comes_again(length, batch):
    groups = benchmark._batches({"x": np.arange(length), "y": np.arange(length) * 2}, np.random.default_rng(), batch)
    drawn = np.concatenate([group["x"] for group in groups])
    assert len(groups) == 1024 and all(len(group["x"]) == batch and (group["y"] == group["x"] * 2).all() for group in groups)
    times = np.bincount(drawn, minlength=length)
    assert times.max() - times.min() <= 1
    assert (np.diff(drawn[:length]) != 1).any()


def test_slow_sides_are_called_three_times_and_no_more(monkeypatch):
    now, called = [0.0], {"one": 0, "two": 0}
    clock = types.SimpleNamespace(perf_counter=lambda: now[0], perf_counter_ns=lambda: int(now[0] * 1e9))
    monkeypatch.setattr(benchmark, "time", clock)

    def slow(name):
        def call():
            now[0] += 10.0
            called[name] += 1

        return Contender(name, "run", lambda inputs: None, call)

    samples = benchmark._interleave([slow("one"), slow("two")], [{}], np.random.default_rng(), 5.0)
    assert called == {"one": 3, "two": 3} and samples == {"one": [10**10] * 3, "two": [10**10] * 3}


def test_peers_that_cannot_be_raced_are_absent(tmp_path, monkeypatch):
    def missing(model, first):
        raise MissingExtraError("fast is not installed")

    def refusing(model, first):
        raise InputError("slow refuses the model")

    onnx.save(mlp(), tmp_path / "m.onnx")
    monkeypatch.setattr(benchmark, "PEERS", {"fast": missing, "slow": refusing})
    result = benchmark.bench(str(tmp_path / "m.onnx"), None, ["fast", "slow"], 2, 0.01)
    assert result.absent == {"fast": "fast is not installed", "slow": "slow refuses the model"}
    assert len(result.sides) == 3 and all(side.ratio is None for side in result.sides)


def test_a_batch_beyond_memory_is_refused(tmp_path):
    onnx.save(mlp((4096, 8)), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="batch 65536: found inputs of 1024 MiB a call; allowed: 256 MiB"):
        benchmark.bench(str(tmp_path / "m.onnx"), None, [], 65536, 0.01)


def test_onnxruntime_refuses_in_one_line(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; pip install 'openinfer[bench]'")
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="ONNX Runtime refuses the model: ") as raised:
        onnxruntime.contenders(str(tmp_path / "m.onnx"), {"x": np.zeros(1, np.float32)})
    assert "\n" not in str(raised.value)
    parts = [helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)]
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])]
    graph = helper.make_graph([helper.make_node("SplitToSequence", ["x"], ["parts"])], "split", ports, parts)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), tmp_path / "s.onnx")
    with pytest.raises(InputError, match="cannot bind the output 'parts', a list"):
        onnxruntime.contenders(str(tmp_path / "s.onnx"), {"x": np.zeros((2, 3), np.float32)})


@pytest.mark.parametrize(
    "changed",
    [{"n_targets": 2}, {"aggregate_function": "AVERAGE"}, {"post_transform": "LOGISTIC"}, {"base_values": [0.5]}, {"modes": b"BRANCH_LT"}],
)
def test_trees_that_lightgbm_reads_otherwise_are_refused(tmp_path, changed):
    proto = onnx.load(registry.get("hft").model_path("gbdt"))
    (node,) = proto.graph.node
    for name, value in changed.items():
        if name == "modes":
            modes = next(attribute for attribute in node.attribute if attribute.name == "nodes_modes")
            modes.strings[:] = [value if mode == b"BRANCH_LEQ" else mode for mode in modes.strings]
        else:
            for attribute in [attribute for attribute in node.attribute if attribute.name == name]:
                node.attribute.remove(attribute)
            node.attribute.append(helper.make_attribute(name, value))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="takes one float32 row for one TreeEnsembleRegressor of one target"):
        lightgbm.contenders(str(tmp_path / "m.onnx"), {"x": np.zeros((1, 40), np.float32)})


@pytest.mark.parametrize("row", [np.zeros((1, 40)), np.zeros((2, 40), np.float32), np.zeros(40, np.float32)])
def test_rows_that_lightgbm_does_not_take_are_refused(row):
    with pytest.raises(InputError, match="takes one float32 row"):
        lightgbm.contenders(str(registry.get("hft").model_path("gbdt")), {"x": row})


def test_lightgbm_takes_the_trees_of_hft():
    pytest.importorskip("lightgbm", reason="lightgbm is not installed; pip install 'openinfer[bench]'")
    row = np.random.default_rng().standard_normal((1, 40)).astype(np.float32)
    (side,) = lightgbm.contenders(str(registry.get("hft").model_path("gbdt")), {"x": row})
    side.prepare({"x": row})
    assert side.kind == "bound" and side.call() == 0
