"""`Engine.submit`: answers, batches, order, refusals, cancellation, drain. Kernels are real; nothing here waits for a clock."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
from models import mlp, model
from onnx import TensorProto, helper

import openinfer
from openinfer.errors import BlockingTimeoutError, DeadlineError, InputError, OpenInferError, OverloadError, SchedulerError
from openinfer.scheduler import doubt, lane


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def rows(count: int, width: int = 40) -> np.ndarray:
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def engine(proto=None, **knobs) -> openinfer.Engine:
    return openinfer.load(proto or mlp(), {"scheduler": {"stall_ms": 0, **knobs}})


def statistics(loaded: openinfer.Engine) -> dict:
    (only,) = loaded.statistics().scheduler
    return only


@pytest.mark.parametrize("mode", ["inline", "async", "hybrid", "auto"])
@pytest.mark.parametrize("max_batch", [1, 7])
@pytest.mark.parametrize("offload_us", [0, 1_000_000])
def test_every_answer_has_the_bits_of_its_row_alone(mode, max_batch, offload_us):
    x = rows(50)
    with engine(mode=mode, max_batch=max_batch, offload_us=offload_us) as loaded:
        alone = [loaded.run({"x": x[i : i + 1]})["probabilities"] for i in range(50)]

        async def main():
            return await asyncio.gather(*[loaded.submit({"x": x[i : i + 1]}) for i in range(50)])

        answers = asyncio.run(main())
        assert all(set(answer) == {"probabilities"} for answer in answers)
        assert all(answer["probabilities"].tobytes() == one.tobytes() for answer, one in zip(answers, alone, strict=True))


def test_requests_of_several_rows_are_joined_and_taken_apart():
    sizes = [1, 3, 2, 11, 1, 40, 5, 2, 1, 1]
    x = [rows(size) for size in sizes]
    with engine(max_batch=4, max_delay_us=1) as loaded:
        alone = [loaded.run({"x": part})["probabilities"] for part in x]

        async def main():
            return await asyncio.gather(*[loaded.submit({"x": part}) for part in x])

        answers = asyncio.run(main())
        assert all(answer["probabilities"].tobytes() == one.tobytes() for answer, one in zip(answers, alone, strict=True))
        assert statistics(loaded)["batches"] == 3


def test_answers_do_not_share_memory_with_later_ones():
    x = rows(8)
    with engine(max_batch=4, max_delay_us=1) as loaded:

        async def main():
            first = await asyncio.gather(*[loaded.submit({"x": x[i : i + 1]}) for i in range(4)])
            kept = [answer["probabilities"].copy() for answer in first]
            await asyncio.gather(*[loaded.submit({"x": x[i : i + 1]}) for i in range(4, 8)])
            return first, kept

        first, kept = asyncio.run(main())
        assert all((answer["probabilities"] == copy).all() for answer, copy in zip(first, kept, strict=True))


def test_a_model_that_mixes_rows_is_never_joined():
    floats = TensorProto.FLOAT
    mixes = model([helper.make_node("Softmax", ["x"], ["y"], axis=0)], {"x": (floats, ["n", 4])}, {"y": (floats, ["n", 4])})
    with engine(mixes, max_batch=8, max_delay_us=1) as loaded:

        async def main():
            return await asyncio.gather(*[loaded.submit({"x": rows(1, 4)}) for _ in range(8)])

        assert all((answer["y"] == 1).all() for answer in asyncio.run(main()))
        assert statistics(loaded)["waits"]["batch"]["max"] == 1


def test_a_model_that_mixes_rows_of_some_values_alone_is_never_joined():
    floats = TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Clip", ["m", "low"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    mixes = model(nodes, {"x": (floats, ["n", 4])}, {"y": (floats, ["n", 4])}, {"low": np.float32(100)})
    x = [np.full((1, 4), value, np.float32) for value in (1, 2, 500, 3, 4, 5)]
    with engine(mixes, max_batch=8, max_delay_us=2000) as loaded:
        alone = [loaded.run({"x": one})["y"] for one in x]

        async def main():
            return await asyncio.gather(*[loaded.submit({"x": one}) for one in x])

        answers = asyncio.run(main())
        assert all(answer["y"].tobytes() == one.tobytes() for answer, one in zip(answers, alone, strict=True))


def test_earlier_deadlines_and_higher_priorities_go_first():
    x = rows(6)
    order = []
    with engine(max_batch=1, offload_us=0, workers=1) as loaded:

        async def one(i, **how):
            await loaded.submit({"x": x[i : i + 1]}, **how)
            order.append(i)

        async def main():
            await one(0)
            order.clear()
            # All are queued in one turn of the loop, before any of them starts.
            await asyncio.gather(one(1), one(2, deadline=900), one(3, deadline=500), one(4, priority=1), one(5, priority=1, deadline=800))

        asyncio.run(main())
    assert order == [5, 4, 3, 2, 1]


def test_a_full_queue_refuses_with_the_reason():
    x = rows(5)
    with engine(max_batch=1, offload_us=0, queue_limit=3) as loaded:

        async def main():
            return await asyncio.gather(*[loaded.submit({"x": x[i : i + 1]}) for i in range(5)], return_exceptions=True)

        answers = asyncio.run(main())
        assert [type(answer) for answer in answers] == [dict, dict, dict, OverloadError, OverloadError]
        assert "scheduler.queue_limit = 3" in str(answers[3])
        assert statistics(loaded)["refused_overload"] == 2


def test_a_deadline_that_cannot_be_met_is_refused_before_anything_runs():
    x = rows(1)
    with engine() as loaded:

        async def main():
            await loaded.submit({"x": x})
            with pytest.raises(DeadlineError, match=r"expected in .* ms, the deadline"):
                await loaded.submit({"x": x}, deadline=0.0)

        asyncio.run(main())
        assert statistics(loaded)["refused_deadline"] == 1 and statistics(loaded)["accepted"] == 1


def test_what_was_never_run_is_not_taken_to_be_slow():
    floats = TensorProto.FLOAT
    fallback = model([helper.make_node("Unique", ["x"], ["y"], sorted=1)], {"x": (floats, ["n"])}, {"y": (floats, ["k"])})
    x = rows(1, 5)[0]
    with engine(fallback) as loaded:

        async def main():
            return await loaded.submit({"x": x}, deadline=1.9)

        assert (asyncio.run(main())["y"] == np.unique(x)).all()


@pytest.mark.parametrize("crowded", [False, True])
def test_predictions_that_refuse_everything_are_tried_again(monkeypatch, crowded):
    """After one slow call; the deadline is one that only such a prediction misses."""
    monkeypatch.setattr(doubt, "TRY_AFTER_NS", 0)
    x, slow = {"x": rows(1)}, 100_000_000_000
    with engine(mode="async", max_delay_us=1 if crowded else 0) as loaded:

        async def answered(**options):
            try:
                await loaded.submit(x, deadline=60, **options)
            except DeadlineError:
                return False
            return True

        def look_up(inputs):
            return inputs

        async def main():
            await loaded.submit(x, prepare=look_up)
            scheduler = loaded._scheduler
            shape = scheduler._lanes.find(x)
            scheduler._callables.of(look_up).took_ns = slow
            calls = [await answered(prepare=look_up) for _ in range(4)]
            shape.alone_ns, shape.lane.durations._ns = slow, {1: slow}
            return calls, [await answered() for _ in range(6)]

        for answers in asyncio.run(main()):
            assert not answers[0] and all(answers[-2:])


def test_a_cancelled_request_leaves_the_queue_and_the_others_are_answered():
    x = rows(3)
    with engine(max_batch=3, max_delay_us=1_000_000) as loaded:

        async def main():
            tasks = [asyncio.ensure_future(loaded.submit({"x": x[i : i + 1]})) for i in range(2)]
            await asyncio.sleep(0)
            assert statistics(loaded)["waiting"] == 2
            tasks[0].cancel()
            await asyncio.wait(tasks[:1])
            assert statistics(loaded)["waiting"] == 1 and statistics(loaded)["cancelled"] == 1
            await loaded.aclose()
            return tasks

        first, second = asyncio.run(main())
        assert first.cancelled() and set(second.result()) == {"probabilities"}


def test_closing_answers_what_was_accepted_and_refuses_the_rest():
    x = rows(4)
    loaded = engine(max_batch=2, offload_us=0, workers=1)

    async def main():
        tasks = [asyncio.ensure_future(loaded.submit({"x": x[i : i + 1]})) for i in range(4)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(loaded.aclose())
        await asyncio.sleep(0)
        with pytest.raises(SchedulerError, match="closing"):
            await loaded.submit({"x": x[:1]})
        await closing
        answers = await asyncio.gather(*tasks)
        assert len(answers) == 4
        with pytest.raises(OpenInferError, match="closed"):
            await loaded.submit({"x": x[:1]})

    asyncio.run(main())


def test_a_plain_close_answers_the_queue_too():
    x = rows(4)
    loaded = engine(max_batch=2, max_delay_us=1_000_000)

    async def main():
        tasks = [asyncio.ensure_future(loaded.submit({"x": x[i : i + 1]})) for i in range(1)]
        await asyncio.sleep(0)
        loaded.close()
        return await asyncio.gather(*tasks)

    assert len(asyncio.run(main())) == 1


@pytest.mark.parametrize("blocking_threads", [1, 3])
def test_requests_in_a_blocking_call_fail_when_the_engine_is_closed(blocking_threads):
    """Those whose call runs once it has ended, those whose call waits for a thread at once; none waits for ever."""
    x, go = rows(3), threading.Event()
    loaded = engine(mode="hybrid", offload_us=0, workers=2, blocking_threads=blocking_threads)

    async def main():
        begun, loop = asyncio.Semaphore(0), asyncio.get_running_loop()

        def look_up(inputs):
            loop.call_soon_threadsafe(begun.release)
            go.wait(60)
            return inputs

        await asyncio.gather(*[loaded.submit({"x": x[:1]}) for _ in range(8)])  # the workers have begun
        tasks = [asyncio.ensure_future(loaded.submit({"x": x[i : i + 1]}, prepare=look_up)) for i in range(3)]
        for _ in range(blocking_threads):
            await begun.acquire()
        loaded.close()
        waited = 3 - blocking_threads
        if waited:
            done, _ = await asyncio.wait(tasks, timeout=0.9, return_when=asyncio.FIRST_COMPLETED)  # the calls' own limit is 1 s
            assert done
        go.set()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    answers = asyncio.run(main())
    assert all(type(answer) is SchedulerError and "closed" in str(answer) for answer in answers)


@pytest.mark.parametrize("offload_us", [0, 1_000_000])
def test_outputs_that_cannot_be_made_are_an_error_of_every_request_joined(monkeypatch, offload_us):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(lane.JointCall, "scatter", no_memory)
    x = rows(4)
    with engine(max_batch=4, max_delay_us=1_000_000, offload_us=offload_us) as loaded:

        async def main():
            calls = [loaded.submit({"x": x[i : i + 1]}) for i in range(4)]
            return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)

        assert [type(answer) for answer in asyncio.run(main())] == [MemoryError] * 4


def test_mistakes_are_the_request_s_own():
    with engine(max_batch=4, max_delay_us=1) as loaded:

        async def main():
            good = rows(1)
            wrong = [{"y": good}, {"x": rows(1, 39)}, [], {"x": good, "z": good}, {"x": good.astype(str)}]
            calls = [loaded.submit(inputs) for inputs in [{"x": good}, *wrong, {"x": good}]]
            return await asyncio.gather(*calls, return_exceptions=True)

        first, *wrong, last = asyncio.run(main())
        assert isinstance(first, dict) and isinstance(last, dict)
        assert [type(answer) for answer in wrong] == [InputError] * 5


@pytest.mark.parametrize("known", [False, True])
def test_deadlines_and_priorities_that_are_none_are_refused(known):
    x = {"x": rows(1)}
    with engine(max_batch=4) as loaded:

        async def refused(what, **options):
            with pytest.raises(InputError, match=what):
                await loaded.submit(x, **options)

        async def main():
            for _ in range(3 * known):
                await loaded.submit(x)
            for deadline in (float("nan"), float("-inf"), -1e300, "1", 1j):
                await refused("deadline", deadline=deadline)
            for priority in ("high", None, float("nan"), 1.5):
                await refused("priority", priority=priority)
            far = [float("inf"), 1e300, 10**400, np.float32(60), 60]
            return await asyncio.gather(*[loaded.submit(x, deadline=one, priority=np.int64(i)) for i, one in enumerate(far)])

        assert len(asyncio.run(main())) == 5


def test_a_request_that_is_made_before_the_loop_runs_is_sent_when_it_is_awaited():
    x = {"x": rows(1)}
    with engine() as loaded:
        for _ in range(2):
            answer = asyncio.run(loaded.submit(x))
            assert answer["probabilities"].tobytes() == loaded.run(x)["probabilities"].tobytes()


def test_the_scheduler_of_a_loop_that_ended_is_closed_without_the_engine_s_lock(monkeypatch):
    """A thread of it may ask for the lock, as `run` of a new shape does, and so does `bind`."""
    x = {"x": rows(1)}
    with engine() as loaded:
        asyncio.run(loaded.submit(x))
        (ended,) = loaded._schedulers.values()
        seen, in_time = [], []

        def close():
            asked = threading.Thread(target=lambda: seen.append(loaded.bind(x)))
            asked.start()
            asked.join(10)
            in_time.append(not asked.is_alive())

        monkeypatch.setattr(ended, "close_from_any_thread", close)
        monkeypatch.setattr(ended, "close", close)
        asyncio.run(loaded.submit(x))
        assert in_time == [True] and len(seen) == 1
        monkeypatch.undo()
        ended.close()


FORKS = """
import asyncio, os, sys, warnings
import numpy as np, openinfer
warnings.simplefilter("ignore")  # of Python, about threads and forks
loaded = openinfer.load(sys.argv[1], {"scheduler": {"offload_us": 0, "mode": "hybrid"}})
x = {"x": np.ones((1, 40), np.float32)}

def fork():
    child = os.fork()
    if not child:
        loaded.close()
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def main():
    await asyncio.gather(*[loaded.submit(x, prepare=lambda inputs: inputs) for _ in range(8)])
    print(fork(), await asyncio.to_thread(fork), flush=True)
    await loaded.submit(x)

asyncio.run(main())
loaded.close()
"""


def test_a_forked_child_closes_an_engine_whose_loop_is_its_parent_s(tmp_path):
    onnx.save(mlp(), tmp_path / "model.onnx")
    command = [sys.executable, "-c", FORKS, str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["7", "7"], done.stderr


@pytest.mark.parametrize("max_batch", [1, 4])
@pytest.mark.parametrize("convert", [lambda x: x.astype(">f4"), lambda x: x.astype(np.float64), np.asfortranarray, lambda x: x.tolist()])
def test_other_forms_of_arrays_are_converted_as_by_run(max_batch, convert):
    x = rows(8)
    with engine(max_batch=max_batch, max_delay_us=1) as loaded:
        alone = [loaded.run({"x": x[i : i + 2]})["probabilities"] for i in range(6)]

        async def main():
            return await asyncio.gather(*[loaded.submit({"x": convert(x[i : i + 2])}) for i in range(6)])

        answers = asyncio.run(main())
        assert all(answer["probabilities"].tobytes() == one.tobytes() for answer, one in zip(answers, alone, strict=True))


@pytest.mark.parametrize("mode", ["async", "hybrid"])
def test_blocking_calls_stand_before_and_after_the_model(mode):
    x = rows(3)
    threads = set()

    def prepare(key):
        threads.add(threading.get_ident())
        return {"x": x[key : key + 1]}

    with engine(mode=mode) as loaded:
        alone = [int(loaded.run({"x": x[i : i + 1]})["probabilities"].argmax()) for i in range(3)]

        async def main():
            calls = [loaded.submit(i, prepare=prepare, finish=lambda out: int(out["probabilities"].argmax())) for i in range(3)]
            return await asyncio.gather(*calls)

        assert asyncio.run(main()) == alone
    assert (threading.get_ident() in threads) == (mode == "async")


def test_what_a_blocking_call_raises_reaches_its_request_alone():
    def fails(key):
        raise LookupError(f"no such key: {key}")

    with engine(mode="hybrid") as loaded:

        async def main():
            calls = [loaded.submit(7, prepare=fails), loaded.submit({"x": rows(1)})]
            return await asyncio.gather(*calls, return_exceptions=True)

        failed, answered = asyncio.run(main())
        assert isinstance(failed, LookupError) and isinstance(answered, dict)


def test_a_blocking_call_that_hangs_times_out_and_its_thread_is_replaced():
    release = threading.Event()

    def hangs(key):
        assert release.wait(60)
        return {"x": key}

    with engine(mode="hybrid", blocking_threads=1, blocking_timeout_ms=200) as loaded:

        async def main():
            with pytest.raises(BlockingTimeoutError, match="hangs still runs after 200 ms"):
                await loaded.submit(0, prepare=hangs)
            assert statistics(loaded)["blocking_pool"]["running"] == 1
            # One thread is allowed, and it hangs: another has to stand in for it.
            return await loaded.submit(rows(1), prepare=lambda x: {"x": x})

        try:
            assert isinstance(asyncio.run(main()), dict)
        finally:
            release.set()


def test_steady_state_binds_nothing_new():
    x = rows(64)
    # On the loop one batch runs at a time; beside it, how many buffers are in use at once depends on the machine's load.
    with engine(max_batch=8, max_delay_us=1, offload_us=1_000_000) as loaded:

        async def main():
            for _ in range(3):
                await asyncio.gather(*[loaded.submit({"x": x[i : i + 1]}) for i in range(64)])
            before = loaded.statistics().contexts
            for _ in range(20):
                await asyncio.gather(*[loaded.submit({"x": x[i : i + 1]}) for i in range(64)])
            gc.collect()
            assert loaded.statistics().contexts == before

        asyncio.run(main())


def test_preferred_batches_are_formed_while_the_delay_lasts():
    x = rows(8)
    with engine(max_batch=8, preferred_batches=[4], max_delay_us=1_000_000) as loaded:

        async def main():
            waiting = [asyncio.ensure_future(loaded.submit({"x": x[i : i + 1]})) for i in range(7)]
            await asyncio.gather(*waiting[:4])
            assert statistics(loaded)["waiting"] == 3 and not any(task.done() for task in waiting[4:])
            await loaded.aclose()
            await asyncio.gather(*waiting[4:])

        asyncio.run(main())


def test_recording_can_be_switched_off():
    with engine(record=False) as loaded:

        async def main():
            await loaded.submit({"x": rows(1)})
            assert statistics(loaded)["waits"] == {} and statistics(loaded)["accepted"] == 1

        asyncio.run(main())


def test_one_engine_serves_one_loop_after_the_other():
    with engine() as loaded:
        for _ in range(3):
            assert len(asyncio.run(_one(loaded))) == 1
            assert len(loaded.statistics().scheduler) == 1


async def _one(loaded: openinfer.Engine) -> dict:
    return await loaded.submit({"x": rows(1)})
