"""The engine from model to answer, against onnx.reference in float64."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import onnx
import pytest
from models import STUMP, mlp, model, tree_regressor
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import openinfer
from openinfer.errors import ConfigError, InputError, ModelError, OpenInferError, ProvenanceError


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def engine(cache):
    return openinfer.load(mlp())


def rows(count: int, width: int = 40) -> np.ndarray:
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


@pytest.mark.parametrize("batch", [0, 1, 2, 6, 7, 13, 64])
def test_run_matches_float64_reference(engine, batch):
    x = rows(batch)
    constants = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in mlp().graph.initializer}
    h = np.maximum(x @ constants["w0"] + constants["b0"], 0)
    h = np.maximum(h @ constants["w1"] + constants["b1"], 0) @ constants["w2"] + constants["b2"]
    exact = np.exp(h - h.max(axis=1, keepdims=True, initial=-np.inf))
    exact /= exact.sum(axis=1, keepdims=True)
    y = engine.run({"x": x})["probabilities"]
    assert y.shape == (batch, 3)
    assert np.abs(y - exact).max(initial=0) <= 1e-5


def test_rows_have_the_same_bits_in_every_batch(engine):
    x = rows(64)
    whole = engine.run({"x": x})["probabilities"]
    for i in range(64):
        assert (engine.run({"x": x[i : i + 1]})["probabilities"][0] == whole[i]).all()


def test_one_program_serves_every_batch(engine):
    for batch in (1, 3, 50):
        engine.run({"x": rows(batch)})
    statistics = engine.statistics()
    assert statistics.compiled + statistics.loaded_from_cache == 1


def test_second_load_compiles_nothing():
    openinfer.load(mlp(seed=5)).close()
    statistics = openinfer.load(mlp(seed=5)).statistics()
    assert (statistics.compiled, statistics.loaded_from_cache) == (0, 1)


def test_a_damaged_object_is_compiled_again():
    from openinfer.codegen import object_cache

    openinfer.load(mlp())
    for path in object_cache.folder().glob("*.o"):
        path.write_bytes(path.read_bytes()[:-1])
    assert openinfer.load(mlp()).statistics().compiled == 1


def test_bind_reads_and_writes_the_given_arrays(engine):
    x, y = np.empty((1, 40), np.float32), np.empty((1, 3), np.float32)
    call = engine.bind({"x": x}, {"probabilities": y})
    for row in rows(20):
        x[0] = row
        y[:] = np.nan
        call()
        assert (y == engine.run({"x": row[None]})["probabilities"]).all()
    assert call.outputs["probabilities"] is y


def test_bound_calls_allocate_nothing(engine):
    call = engine.bind({"x": rows(1)})
    call()
    gc.collect()  # bound calls that were dropped give their contexts back
    contexts = engine.statistics().contexts
    before = sys.getallocatedblocks()
    tracemalloc.start()
    for _ in range(2000):
        call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500
    assert sys.getallocatedblocks() - before < 50
    assert engine.statistics().contexts == contexts


def test_shapes_that_take_turns_keep_no_memory():
    engine = openinfer.load(mlp(seed=8))
    held = []
    for _ in range(3):
        for batch in range(1, 41):  # more shapes than the engine keeps runners
            engine.run({"x": rows(batch)})
        held.append(engine.statistics().arena_bytes)
    assert held[1] == held[2]


def test_run_from_many_threads(engine):
    x = rows(8)
    expected = engine.run({"x": x})["probabilities"]
    wrong = []

    def work() -> None:
        for _ in range(200):
            if not (engine.run({"x": x})["probabilities"] == expected).all():
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nodes_without_a_native_form_run_on_the_fallback():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Det", ["h3"], ["d"]),
        helper.make_node("Reshape", ["h", "shape"], ["h3"]),
        helper.make_node("NonZero", ["h"], ["n"]),
    ]
    proto = model(
        [nodes[0], nodes[2], nodes[1], nodes[3]],
        {"x": (TensorProto.FLOAT, ["batch", 4])},
        {"d": (TensorProto.FLOAT, ["batch"]), "n": (TensorProto.INT64, ["rank", "found"])},
        {"w": np.random.default_rng(1).standard_normal((4, 9)).astype(np.float32), "shape": np.array([-1, 3, 3])},
    )
    engine = openinfer.load(proto)
    x = rows(5, 4)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})
    found = engine.run({"x": x})
    np.testing.assert_allclose(found["d"], expected[0], rtol=1e-4, atol=1e-5)
    assert (found["n"] == expected[1]).all()
    assert "d" in engine.statistics().fallback
    with pytest.raises(InputError, match="use run"):
        engine.bind({"x": x})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing"),
        ({"x": rows(1), "y": rows(1)}, "unknown input 'y'"),
        ({"x": np.full((1, 40), 2**24 + 1)}, "found int64, allowed: float32; a value is beyond"),
        ({"x": rows(1).astype(np.complex64)}, "found complex64"),
        ({"x": rows(1, 41)}, r"found shape \(1, 41\), allowed float32 \[batch, 40\]"),
        ({"x": rows(1)[0]}, "found shape"),
        ({"x": None}, "NoneType"),
        ({"x": np.array([[None] * 40])}, "found object"),
        ([1], "found list as inputs"),
    ],
)
def test_bad_requests_are_named(engine, inputs, message):
    with pytest.raises(InputError, match=message):
        engine.run(inputs)


def test_bind_refuses_what_it_cannot_use_in_place(engine):
    x = rows(2)
    with pytest.raises(InputError, match="strides"):
        engine.bind({"x": np.asfortranarray(x)})
    with pytest.raises(InputError, match="unknown output"):
        engine.bind({"x": x}, {"y": np.empty((2, 3), np.float32)})
    with pytest.raises(InputError, match="writable"):
        engine.bind({"x": x}, {"probabilities": np.empty((2, 4), np.float32)})
    with pytest.raises(InputError, match="shares memory"):
        engine.bind({"x": x}, {"probabilities": x.reshape(-1)[:6].reshape(2, 3)})


def test_views_are_accepted_by_run(engine):
    x = rows(8)
    assert (engine.run({"x": x[::2]})["probabilities"] == engine.run({"x": x})["probabilities"][::2]).all()


def test_lists_pass_through_a_graph_that_copies_them():
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    ports = [helper.make_value_info(name, kind) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "copy", ports[:1], ports[1:])
    engine = openinfer.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    given = [rows(2), rows(3)]
    for _ in range(2):
        found = engine.run({"x": given})["y"]
        assert isinstance(found, list) and all((a == b).all() for a, b in zip(found, given, strict=True))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a"])
def test_corrupt_models_are_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        openinfer.load(path)


def test_truncated_models_are_refused():
    data = mlp().SerializeToString()
    for length in range(0, len(data) - 1, 997):
        with pytest.raises(ModelError):
            openinfer.load(data[:length])


def test_missing_model_and_wrong_type():
    with pytest.raises(ModelError, match="cannot read the model"):
        openinfer.load("/nonexistent.onnx")
    with pytest.raises(ModelError, match="allowed: a path"):
        openinfer.load(3)


def test_configuration_of_another_model_is_refused():
    with pytest.raises(ProvenanceError, match="tuned for the model"):
        openinfer.load(mlp(), {"provenance": {"model_sha256": "0" * 64}})


def test_configuration_from_the_environment(monkeypatch, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[engine]\ntile_rows = 2\n")
    monkeypatch.setenv("OPENINFER_CONFIG", str(path))
    assert openinfer.load(mlp()).config.engine.tile_rows == 2
    monkeypatch.setenv("OPENINFER_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="cannot read"):
        openinfer.load(mlp())


@pytest.mark.parametrize("knobs", [{"tile_rows": 1}, {"tile_rows": 3, "tile_vectors": 1}, {"tile_vectors": 2}])
def test_tiles_do_not_change_bits(engine, knobs):
    x = rows(17)
    assert (openinfer.load(mlp(), {"engine": knobs}).run({"x": x})["probabilities"] == engine.run({"x": x})["probabilities"]).all()


def test_a_closed_engine_says_so():
    with openinfer.load(mlp()) as engine:
        engine.run({"x": rows(1)})
    with pytest.raises(OpenInferError, match="closed"):
        engine.run({"x": rows(1)})


def test_a_call_that_is_under_way_does_not_open_a_closed_engine():
    class Closing(dict):
        def get(self, key):
            found = super().get(key)
            engine.close()
            return found

    engine = openinfer.load(mlp())
    one, two = {"x": rows(1)}, {"x": rows(2)}
    for inputs in (one, two):
        engine.run(inputs)
    engine._backend._runners = Closing(engine._backend._runners)
    engine.run(one)
    with pytest.raises(OpenInferError, match="closed"):
        engine.run(one)


def test_load_imports_none_of_the_tuner_s_libraries(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(mlp(), path)
    code = (
        "import sys, openinfer; openinfer.load(sys.argv[1]); "
        "print([m for m in ('optuna', 'pandas', 'matplotlib', 'typer', 'py_spy', 'scipy', 'rich', 'pyarrow') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert out.stdout.strip() == "[]"


def test_a_warm_start_does_not_import_numba(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(mlp(seed=9), path)
    code = "import sys, openinfer; openinfer.load(sys.argv[1]); print('numba' in sys.modules)"
    command = [sys.executable, "-c", code, str(path)]
    subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.strip() == "False"


def test_two_threads_give_the_same_bits():
    proto = mlp((256, 512, 256, 10))
    x = np.random.default_rng(4).standard_normal((96, 256)).astype(np.float32)
    expected = openinfer.load(proto).run({"x": x})["probabilities"]
    with openinfer.load(proto, {"engine": {"threads": 2}}) as engine:
        for _ in range(50):
            assert (engine.run({"x": x})["probabilities"] == expected).all()
        assert engine.statistics().pool["sections"] > 0


def test_sizes_named_apart_that_must_be_equal_are_compiled():
    nodes = [helper.make_node("Concat", ["a", "b"], ["y"], axis=1)]
    proto = model(nodes, {"a": (TensorProto.FLOAT, ["n", 2]), "b": (TensorProto.FLOAT, ["m", 3])}, {"y": (TensorProto.FLOAT, ["n", 5])})
    with openinfer.load(proto) as engine:
        for rows in (1, 7):
            a, b = np.random.default_rng().standard_normal((rows, 5)).astype(np.float32)[:, :2].copy(), np.ones((rows, 3), np.float32)
            assert (engine.run({"a": a, "b": b})["y"] == np.concatenate([a, b], 1)).all()
        assert not engine.statistics().fallback and engine.statistics().compiled + engine.statistics().loaded_from_cache == 1


def test_a_row_too_short_for_a_tree_is_the_request_s_mistake():
    engine = openinfer.load(tree_regressor({**STUMP, "nodes_featureids": [30, 0, 0]}, "features"))
    assert engine.run({"x": np.full((2, 31), 0.7, np.float32)})["y"].tolist() == [[2.0], [2.0]]
    with pytest.raises(InputError):
        engine.run({"x": np.ones((2, 4), np.float32)})


@pytest.mark.parametrize("sandbox", ["off", "process"])
def test_empty_names_what_it_cannot_make(sandbox):
    with openinfer.load(mlp(), {"sandbox": {"mode": sandbox}}) as engine:
        with pytest.raises(InputError, match="found dtype 'flot32'; did you mean 'float32'"):
            engine.empty((1,), "flot32")
        with pytest.raises(InputError, match=r"found shape \(-1, 2\); allowed: sizes of 0 and more"):
            engine.empty((-1, 2), "float32")
        assert engine.empty((0, 2), "float32").shape == (0, 2)


def test_a_configuration_that_is_none_is_named():
    with pytest.raises(ConfigError, match="found int as the configuration; allowed: a Config, a mapping, or the path"):
        openinfer.load(mlp(), 5)
