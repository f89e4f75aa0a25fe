"""Programs that call their kernels, against the same programs with the kernels inlined."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from models import model
from onnx import TensorProto, helper

import openinfer
from openinfer.codegen import build, linked, object_cache

OPS = ("Relu", "Neg", "Abs", "Exp", "Sigmoid", "Tanh", "Softplus", "Erf", "Softmax", "Floor")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENINFER_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_kernels", weakref.WeakValueDictionary())
    monkeypatch.setattr(linked, "INLINED_KERNELS", 8)


def draw(*shape: int) -> np.ndarray:
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(weights: dict[str, np.ndarray], *ops: str):
    """A convolution, a matrix product, and one branch per operator; the batch is symbolic, so some numbers come from the table."""
    nodes = [
        helper.make_node("Conv", ["x", "filters"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("MatMul", ["c", "matrix"], ["m"]),
        *(helper.make_node(op, ["m"], [op]) for op in ops),
    ]
    outputs = {op: (TensorProto.FLOAT, ["n", 5, 9, 17]) for op in ops}
    return model(nodes, {"x": (TensorProto.FLOAT, ["n", 2, 9, 30])}, outputs, weights)


def weights() -> dict[str, np.ndarray]:
    return {"filters": draw(5, 2, 3, 3), "matrix": draw(30, 17) / 6}


def linked_programs(engine) -> int:
    return sum("define i32 @program" in text for text in engine.sources())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_linked_program_gives_the_bits_of_the_inlined_one(threads, monkeypatch):
    made, x = network(weights(), *OPS), draw(24, 2, 9, 30)
    config = {"engine": {"threads": threads}}
    with openinfer.load(made, config=config) as engine:
        assert linked_programs(engine) == 1
        found = engine.run({"x": x})
        single = [engine.run({"x": x[i : i + 1]}) for i in (0, 23)]
    monkeypatch.setattr(linked, "INLINED_KERNELS", 1000)
    with openinfer.load(made, config=config) as engine:
        assert linked_programs(engine) == 0
        expected = engine.run({"x": x})
    for op in OPS:
        assert found[op].tobytes() == expected[op].tobytes()
        assert single[0][op].tobytes() == expected[op][:1].tobytes()
        assert single[1][op].tobytes() == expected[op][23:].tobytes()


def test_many_sets_of_sizes_share_one_kernel(monkeypatch):
    made, x = network(weights(), *OPS), draw(24, 2, 9, 30)
    with openinfer.load(made) as engine:
        expected = engine.run({"x": x})
    monkeypatch.setattr(linked, "MOST_FORMS", 0)
    before = set(object_cache.folder().glob("*.o"))
    with openinfer.load(made) as engine:
        found = engine.run({"x": x})
    # The program, and the kernels that had sizes compiled in.
    assert len(set(object_cache.folder().glob("*.o")) - before) > 1
    assert all(found[op].tobytes() == expected[op].tobytes() for op in OPS)


def test_a_second_start_compiles_nothing():
    made, x = network(weights(), *OPS), draw(3, 2, 9, 30)
    with openinfer.load(made) as engine:
        first = engine.run({"x": x})
        assert (engine.statistics().compiled, engine.statistics().loaded_from_cache) == (1, 0)
    build._kernels.clear()
    with openinfer.load(made) as engine:
        assert (engine.statistics().compiled, engine.statistics().loaded_from_cache) == (0, 1)
        again = engine.run({"x": x})
    assert all(first[op].tobytes() == again[op].tobytes() for op in OPS)


def test_models_share_kernels():
    given = weights()
    with openinfer.load(network(given, *OPS)):
        before = set(object_cache.folder().glob("*.o"))
        # The same kernels without one of them: only the program that calls them is new.
        with openinfer.load(network(given, *OPS[:-1])) as engine:
            assert linked_programs(engine) == 1
            assert len(set(object_cache.folder().glob("*.o")) - before) == 1


def test_a_damaged_kernel_is_compiled_again():
    made, x = network(weights(), *OPS), draw(2, 2, 9, 30)
    with openinfer.load(made) as engine:
        first = engine.run({"x": x})
    build._kernels.clear()
    damaged = max(object_cache.folder().glob("*.o"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with openinfer.load(made) as engine:
        assert engine.statistics().compiled == 1
        again = engine.run({"x": x})
    assert all(first[op].tobytes() == again[op].tobytes() for op in OPS)


def test_convolutions_of_different_depths_share_one_kernel(monkeypatch):
    """Depths of one chain; a depth of several chains has code of its own."""
    shapes = {"first": (48, 40, 1, 1), "second": (48, 48, 1, 1), "wide": (600, 48, 1, 1), "deep": (48, 600, 1, 1)}
    nodes, value = [], "x"
    for name in shapes:
        nodes.append(helper.make_node("Conv", [value, name], [f"after {name}"]))
        value = f"after {name}"
    filters = {name: draw(*shape) / 8 for name, shape in shapes.items()}
    made = model(nodes, {"x": (TensorProto.FLOAT, ["n", 40, 16, 16])}, {value: (TensorProto.FLOAT, ["n", 48, 16, 16])}, filters)
    x = draw(2, 40, 16, 16)
    monkeypatch.setattr(linked, "INLINED_KERNELS", 1000)
    with openinfer.load(made) as engine:
        assert linked_programs(engine) == 0
        expected = engine.run({"x": x})[value]
    monkeypatch.setattr(linked, "INLINED_KERNELS", 2)
    monkeypatch.setattr(linked, "MOST_FORMS", 1)
    with openinfer.load(made) as engine:
        (text,) = engine.sources()
        found = engine.run({"x": x})[value]
    kernels = [line for line in text.splitlines() if line.startswith("; k") and ": conv(" in line]
    assert {"chains=1", "chains=2"} == {part.strip("(),") for line in kernels for part in line.split() if "chains=" in part}
    assert sum("chains=2" in line for line in kernels) == 1
    assert len(kernels) < len(shapes)
    assert found.tobytes() == expected.tobytes()
