"""The thread pool: every thread runs its share, barriers hold, a busy pool is no obstacle, forks and exits are clean."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_programs import table

from openinfer.errors import CompiledCodeError, ConfigError
from openinfer.kernels.cpu import control_block
from openinfer.runtime.entry import Port, Runner, bound_call
from openinfer.runtime.pool import Pool


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("options", [{"wait": "spin"}, {"spin_us": 0}, {"pin": "compact"}])
def test_all_threads_share_the_work(threads: int, options: Any) -> None:
    x = np.arange(23, dtype=np.float32)
    with Pool(threads, **options) as pool:
        y = np.full(23, np.nan, np.float32)
        call = bound_call(table("double", x.ctypes.data, y.ctypes.data, 23, control=pool.address, threads=threads), (pool, x, y))
        for _ in range(20):
            y[:] = np.nan
            call()
            np.testing.assert_array_equal(y, 2 * x)
        statistics = pool.statistics()
        assert statistics["sections"] == (20 if threads > 1 else 0)
        assert statistics["alone"] == 0 and pool.running == (threads > 1)
        if options.get("pin") == "compact" and threads > 1:
            assert len(statistics["pinned"]) == threads - 1
    assert not pool.running


@pytest.mark.parametrize("release_gil", [False, True])
@pytest.mark.parametrize(("threads", "rounds"), [(2, 300), (5, 40)])
def test_no_thread_passes_a_barrier_early(threads: int, rounds: int, release_gil: bool) -> None:
    count = np.zeros(1, np.int64)
    with Pool(threads) as pool:
        call = bound_call(table("rounds", count.ctypes.data, rounds, control=pool.address, threads=threads), count, release_gil=release_gil)
        for k in range(1, 11):
            call()
            assert count[0] == k * threads * rounds


def test_sleeping_workers_lose_no_wake_up() -> None:
    count = np.zeros(1, np.int64)
    with Pool(2, spin_us=0) as pool:
        call = bound_call(table("rounds", count.ctypes.data, 1, control=pool.address, threads=2), count)
        for _ in range(2000):
            call()
        assert count[0] == 4000


def test_a_single_thread_call_leaves_the_pool_alone() -> None:
    with Pool(2) as pool:
        bound_call(table("double", control=pool.address, threads=1))()
        assert not pool.running and pool.statistics()["sections"] == 0


def test_a_busy_pool_means_running_alone() -> None:
    flag, count = np.zeros(1, np.int64), np.zeros(1, np.int64)
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    with Pool(2) as pool:
        long = bound_call(table("wait", flag.ctypes.data, count.ctypes.data, control=pool.address, threads=2), release_gil=True)
        thread = threading.Thread(target=long)
        thread.start()
        while count[0] < 2:
            threading.Event().wait(0.001)
        bound_call(table("double", x.ctypes.data, y.ctypes.data, 5, control=pool.address, threads=2))()
        np.testing.assert_array_equal(y, 2 * x)
        assert pool.statistics()["alone"] == 1
        flag[0] = 1
        thread.join()
        assert pool.statistics()["sections"] == 1


def test_many_python_threads_get_right_answers() -> None:
    with Pool(2) as pool:
        ports = [Port("x", "float32", (64,), 3)], [Port("y", "float32", (64,), 4)]
        runner = Runner(lambda: table("double", 0, 0, 64, control=pool.address, threads=2), *ports, release_gil=True)
        wrong: list[int] = []

        def work(k: int) -> None:
            x = np.full(64, k, np.float32)
            for _ in range(300):
                answer = runner.run({"x": x})
                if answer is None or not (answer["y"] == 2 * k).all():
                    wrong.append(k)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statistics = pool.statistics()
        assert not wrong and statistics["sections"] + statistics["alone"] == 1800


@pytest.mark.parametrize("who", [0, 1])
def test_a_failure_on_any_thread_is_reported_once(who: int) -> None:
    with Pool(2) as pool:
        with pytest.raises(CompiledCodeError):
            bound_call(table("fail", who, control=pool.address, threads=2))()
        bound_call(table("double", control=pool.address, threads=2))()


def test_parked_workers_sleep_and_still_work() -> None:
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    with Pool(2, wait="spin") as pool:
        call = bound_call(table("double", x.ctypes.data, y.ctypes.data, 5, control=pool.address, threads=2))
        call()
        pool.park()
        while pool.statistics()["asleep"] < 1:
            threading.Event().wait(0.001)
        call()
        np.testing.assert_array_equal(y, 2 * x)
        assert pool.statistics()["parked"]
        pool.unpark()
        while pool.statistics()["asleep"] > 0:
            threading.Event().wait(0.001)
        call()
        assert pool.statistics()["sections"] == 3


def test_a_closed_pool_runs_alone() -> None:
    pool = Pool(3)
    y = np.zeros(5, np.float32)
    call = bound_call(table("double", X.ctypes.data, y.ctypes.data, 5, control=pool.address, threads=3), (pool, y))
    call()
    pool.close()
    pool.close()
    y[:] = 0
    call()
    np.testing.assert_array_equal(y, 2 * X)
    pool.start()
    assert not pool.running and pool.statistics()["alone"] == 1


X = np.arange(5, dtype=np.float32)


def test_a_dropped_pool_ends_its_threads() -> None:
    pool = Pool(3)
    pool.start()
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("openinfer-pool-")]
    assert len(mine) == 2
    del pool
    assert not any(thread.is_alive() for thread in mine)


BAD_OPTIONS = [{"threads": 0}, {"threads": 2, "wait": "x"}, {"threads": 2, "pin": "x"}, {"threads": 2, "spin_us": -1}]


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options_are_refused(options: Any) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        Pool(**options)


def test_words_of_different_writers_share_no_line() -> None:
    words = {name: value for name, value in vars(control_block).items() if name.isupper() and not name.startswith("TABLE_")}
    lines = {name: value // 8 for name, value in words.items()}
    caller, worker = {"EPOCH", "PROGRAM", "LOCK", "TARGET"}, {"DONE", "SLEEPERS", "ARRIVED", "GENERATION", "BARRIER_SLEEPERS"}
    assert not {lines[name] for name in caller} & {lines[name] for name in worker}
    assert len({lines[name] for name in worker}) == len(worker)
    assert len(set(words.values())) == len(words)
    assert Pool(2).address % 64 == 0


def script(body: str) -> subprocess.CompletedProcess[str]:
    text = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n" + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", text], capture_output=True, text=True, timeout=60)


HEAD = """
import os, threading
import numpy as np
from tiny_programs import table
from openinfer.runtime.entry import bound_call
from openinfer.runtime.pool import Pool
pool = Pool(2, wait="spin")
count = np.zeros(1, np.int64)
call = bound_call(table("rounds", count.ctypes.data, 3, control=pool.address, threads=2))
call()
"""


def test_the_process_ends_cleanly_while_workers_spin() -> None:
    done = script(HEAD)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_starts_its_own_threads() -> None:
    done = script(
        HEAD
        + """
child = os.fork()
if child == 0:
    before = pool.statistics()
    call()
    after = pool.statistics()
    good = not before["running"] and after["running"] and after["sections"] == before["sections"] + 1 and count[0] == 12
    pool.close()
    os._exit(0 if good else 1)
_, status = os.waitpid(child, 0)
call()
assert status == 0 and count[0] == 12, (status, count)
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_barrier_of_compiled_python() -> None:
    import numba as nb
    from numba.core import types

    from openinfer.kernels.cpu.barrier import barrier
    from openinfer.kernels.cpu.pointers import i64

    @nb.njit(error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
    def program(table: int, thread: int, threads: int) -> None:
        words = i64(table)
        seats = i64(words[3])
        seats[thread] = thread + 1
        barrier(words[1], threads)
        total = 0
        for k in range(threads):
            total += seats[k]
        seats[8 + thread] = total

    program.compile((types.int64,) * 3)
    code = program.overloads[program.signatures[0]]
    library = code.library
    address = library.get_pointer_to_function(code.fndesc.llvm_func_name)
    seats = np.zeros(16, np.int64)
    with Pool(3) as pool:
        words = table("double", seats.ctypes.data, control=pool.address, threads=3)
        words[0] = address
        call = bound_call(words, (library, seats))
        call()
        np.testing.assert_array_equal(seats[8:11], 6)
        words[2] = 1
        seats[:] = 0
        call()
        np.testing.assert_array_equal(seats[8:11], [1, 0, 0])


def test_a_start_that_fails_half_way_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def fail_second(thread: threading.Thread) -> None:
        if len(started) == 1:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with Pool(3) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail_second)
            with pytest.raises(RuntimeError, match="start new thread"):
                pool.start()
        assert not started[0].is_alive()
        assert not pool.running
        pool.start()
        assert pool.running
        assert len(pool._workers) == 2
