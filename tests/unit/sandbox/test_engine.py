"""An engine in a sandbox answers as one without, bit for bit, through every way of calling."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import threading
from typing import Any

import models
import numpy as np
import pytest
from onnx import TensorProto, helper

from openinfer.engine import Engine, load
from openinfer.errors import ConfigError, InputError, MemoryBudgetError, ModelError, SandboxError

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")


def _rows(count: int) -> Any:
    seed = secrets.randbits(32)
    print(f"{seed=}")
    return np.random.default_rng(seed).standard_normal((count, 40), np.float32)


@pytest.mark.parametrize("count", [1, 3, 64])
def test_run_gives_the_same_bits(plain: Engine, boxed: Engine, count: int) -> None:
    x = _rows(count)
    np.testing.assert_array_equal(boxed.run({"x": x})["probabilities"], plain.run({"x": x})["probabilities"])


def test_many_cross_together(plain: Engine, boxed: Engine) -> None:
    requests = [{"x": _rows(count % 5 + 1)} for count in range(70)]
    for answer, inputs in zip(boxed.run_many(requests), requests, strict=True):
        np.testing.assert_array_equal(answer["probabilities"], plain.run(inputs)["probabilities"])


def test_a_bound_call_reads_the_callers_array_and_writes_the_callers_array(plain: Engine, boxed: Engine) -> None:
    x, y = _rows(4), np.full((4, 3), np.nan, np.float32)
    call = boxed.bind({"x": x}, {"probabilities": y})
    for _ in range(3):
        x[...] = _rows(4)
        y.fill(np.nan)
        call()
        np.testing.assert_array_equal(y, plain.run({"x": x})["probabilities"])
    assert call.inputs["x"] is x and call.outputs["probabilities"] is y


def test_arrays_of_empty_are_shared_and_outlive_their_call(plain: Engine, boxed: Engine) -> None:
    x = boxed.empty((5, 40), "float32")
    x[...] = _rows(5)
    call = boxed.bind({"x": x})
    call()
    kept = call.outputs["probabilities"]
    expected = plain.run({"x": x})["probabilities"]
    del call
    gc.collect()
    for _ in range(20):  # other calls take memory meanwhile
        boxed.bind({"x": _rows(5)})()
    np.testing.assert_array_equal(kept, expected)


def test_memory_of_dropped_calls_is_used_again(boxed: Engine) -> None:
    for _ in range(40):  # 40 × 3.2 MB in 16 MiB
        boxed.bind({"x": np.zeros((20_000, 40), np.float32)})


def test_a_request_that_does_not_fit_the_shared_memory_is_refused_and_the_next_succeeds(boxed: Engine) -> None:
    with pytest.raises(MemoryBudgetError, match=r"raise sandbox.shared_mb"):
        boxed.run({"x": np.zeros((200_000, 40), np.float32)})
    assert boxed.run({"x": _rows(1)})["probabilities"].shape == (1, 3)


def test_threads_share_the_worker(plain: Engine, boxed: Engine) -> None:
    wrong: list[int] = []

    def ask(count: int) -> None:
        for _ in range(50):
            x = _rows(count)
            if not np.array_equal(boxed.run({"x": x})["probabilities"], plain.run({"x": x})["probabilities"]):
                wrong.append(count)

    threads = [threading.Thread(target=ask, args=(count,)) for count in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_mistakes_are_the_same_errors(boxed: Engine) -> None:
    with pytest.raises(InputError, match="unknown input 'z'"):
        boxed.run({"z": _rows(1)})
    with pytest.raises(SandboxError, match="shows no segments"):
        boxed.price({"x": _rows(1)})
    with pytest.raises(ModelError):
        load(b"not a model", {"sandbox": {"mode": "process"}})
    with pytest.raises(ConfigError, match="cannot be watched"):
        load(models.mlp(), {"sandbox": {"mode": "process"}}, watch=lambda name, graph: None)


def test_statistics_name_the_walls(boxed: Engine) -> None:
    given_up = boxed.statistics().sandbox["given_up"]
    assert {"no-new-privileges", "landlock", "seccomp", "limits", "core-dumps"} <= set(given_up)


def test_submit_goes_through_the_scheduler(plain: Engine, boxed: Engine) -> None:
    x = _rows(3)

    async def ask() -> Any:
        return await asyncio.gather(*(boxed.submit({"x": x}) for _ in range(5)))

    expected = plain.run({"x": x})["probabilities"]
    for answer in asyncio.run(ask()):
        np.testing.assert_array_equal(answer["probabilities"], expected)


def test_shapes_that_loading_could_not_know_are_compiled_by_another_load() -> None:
    """Which of two arrays is repeated along the other is code, and a locked worker makes none."""
    ports = {"x": (TensorProto.FLOAT, ["a", 20]), "z": (TensorProto.FLOAT, ["b", 20])}
    model = models.model([helper.make_node("Add", ["x", "z"], ["y"])], ports, {"y": (TensorProto.FLOAT, ["c", 20])})
    x, z = _rows(4)[:, :20].copy(), _rows(4)[:, 20:].copy()
    with load(model) as plain, load(model, {"sandbox": {"mode": "strict", "shared_mb": 16}}) as boxed:
        for left, right in ((x, z), (x, z[:1]), (x[:1], z)):
            given = {"x": left, "z": right}
            np.testing.assert_array_equal(boxed.run(given)["y"], plain.run(given)["y"])
        for answer in boxed.run_many([{"x": x, "z": z}, {"x": x[:1], "z": z[:1]}]):
            np.testing.assert_array_equal(answer["y"][:1], plain.run({"x": x, "z": z})["y"][:1])
        assert boxed.statistics().sandbox["replaced"] >= 1


def test_a_closed_engine_refuses() -> None:
    engine = load(models.mlp(), {"sandbox": {"mode": "process"}})
    call = engine.bind({"x": _rows(1)})
    engine.close()
    with pytest.raises(SandboxError, match="closed"):
        call()


def test_a_worker_that_sleeps_is_woken_before_the_copy_and_answers_the_same(plain: Engine) -> None:
    with load(models.mlp(), {"sandbox": {"mode": "strict", "spin_us": 0, "shared_mb": 16}}) as boxed:
        own = np.empty((8, 40), np.float32)
        call = boxed.bind({"x": own})
        for _ in range(50):
            own[...] = _rows(8)
            call()
            np.testing.assert_array_equal(call.outputs["probabilities"], plain.run({"x": own})["probabilities"])
