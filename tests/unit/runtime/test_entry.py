"""Calls from Python: right results, the slow path for everything odd, no leak, any number of threads."""

from __future__ import annotations

import gc
import pickle
import random
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_programs import table

from openinfer.errors import CompiledCodeError, OverloadError
from openinfer.runtime import entry, entry_layout, entry_native
from openinfer.runtime import entry_run_ir as words
from openinfer.runtime.entry import BATCH, Port, Runner, bound_call, data_address


@pytest.fixture(params=["native", "python"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(entry_layout, "problem", lambda: "switched off by a test")
    return str(request.param)


def doubler(columns: int = 4, **options: Any) -> Runner:
    def new_table() -> np.ndarray:
        return table("double", 0, 0, columns)

    return Runner(new_table, [Port("x", "float32", (1, columns), 3)], [Port("y", "float32", (1, columns), 4)], **options)


def test_the_fast_path_is_in_use_here() -> None:
    assert entry_layout.problem() is None
    assert doubler().native


@pytest.mark.parametrize("release_gil", [False, True])
def test_bound_call_runs_the_program_on_fixed_buffers(release_gil: bool) -> None:
    x, y = np.arange(7, dtype=np.float32), np.full(7, np.nan, np.float32)
    call = bound_call(table("double", x.ctypes.data, y.ctypes.data, 7), (x, y), release_gil=release_gil)
    assert call() is None
    np.testing.assert_array_equal(y, 2 * x)
    x += 1
    call()
    np.testing.assert_array_equal(y, 2 * x)


def test_bound_call_takes_nothing_and_keeps_its_owner() -> None:
    class Owner:
        """Something that a weak reference can watch."""

    owner = Owner()
    watch = weakref.ref(owner)
    call = bound_call(table("double"), owner)
    del owner
    gc.collect()
    assert watch() is not None
    with pytest.raises(TypeError):
        call(1)  # type: ignore[call-arg]  # the point of the test
    del call
    gc.collect()
    assert watch() is None


@pytest.mark.parametrize("release_gil", [False, True])
def test_a_failing_program_raises(release_gil: bool) -> None:
    with pytest.raises(CompiledCodeError, match="failure of its own"):
        bound_call(table("fail"), release_gil=release_gil)()
    with pytest.raises(CompiledCodeError):
        Runner(lambda: table("fail"), [], [], release_gil=release_gil).run({})


@pytest.mark.parametrize("words", [np.zeros(4, np.int32), np.zeros((2, 2), np.int64), np.zeros(8, np.int64)[::2]])
def test_a_table_is_a_flat_int64_array(words: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one-dimensional int64"):
        bound_call(words)


def test_run_answers_with_fresh_arrays(path: str) -> None:
    runner = doubler()
    assert runner.native == (path == "native")
    x = np.arange(4, dtype=np.float32)[None]
    first, second = runner.run({"x": x}), runner({"x": x + 1})
    assert first is not None and second is not None
    assert list(first) == ["y"] and first["y"].dtype == np.float32 and first["y"].shape == (1, 4) and first["y"].flags.owndata
    np.testing.assert_array_equal(first["y"], 2 * x)
    np.testing.assert_array_equal(second["y"], 2 * x + 2)


class Sub(np.ndarray):
    """A subclass may mean anything by its memory."""


class Liar(dict):  # type: ignore[type-arg]  # a subclass may compute its items
    def __getitem__(self, key: object) -> object:
        raise AssertionError("a dict subclass must not be asked by the fast path")


class Colliding:
    """Equal hash with a name, and an `__eq__` that raises."""

    def __hash__(self) -> int:
        return hash("x")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")


X = np.ones((1, 4), np.float32)
UNALIGNED = np.zeros(17, np.uint8)[1:].view(np.float32)[None]
ODD: list[Any] = [
    None,
    1,
    2**70,
    "x",
    [],
    [X],
    (),
    {},
    X,
    Liar(x=X),
    {"x": X, "z": X},
    {"z": X},
    {1: X},
    {None: X},
    {"x": None},
    {"x": 2**70},
    {"x": "x"},
    {"x": [[1.0] * 4]},
    {"x": X.view(Sub)},
    {"x": np.ma.ones((1, 4), np.float32)},
    {"x": np.float32(1)},
    {"x": X.astype(np.float64)},
    {"x": X.astype(">f4")},
    {"x": X[0]},
    {"x": X[None]},
    {"x": X.reshape(4, 1)},
    {"x": X[:, :3]},
    {"x": np.ones((2, 4), np.float32)},
    {"x": np.ones((1, 8), np.float32)[:, ::2]},
    {"x": UNALIGNED},
    {"x": np.array([[None] * 4])},
    {"x": np.zeros((1, 4), "S4")},
    {"x": np.zeros((1, 4), [("a", np.float32)])},
    {"x": np.zeros((1, 4), "M8[s]")},
    {"x": X.astype(np.int32)},
    {"x": np.ndarray},
    {"x": memoryview(X)},
    {Colliding(): X},
    {"x": X.dtype},
    {"x": np.zeros((1, 0), np.float32)},
    {"x": np.float32},
    {"x": {}},
]


def test_everything_odd_takes_the_slow_path(path: str) -> None:
    runner = doubler()
    for inputs in ODD:
        count = sys.getrefcount(inputs)
        if path == "python" and isinstance(inputs, dict) and any(isinstance(key, Colliding) for key in inputs):
            continue  # Python lets the exception out
        assert runner.run(inputs) is None, inputs
        assert not isinstance(inputs, dict | list) or sys.getrefcount(inputs) == count
    assert runner.run({"x": X}) is not None
    with pytest.raises(TypeError):
        runner.run()  # type: ignore[call-arg]  # the point of the test


def test_native_and_python_checks_agree_on_random_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(2**32)
    print(f"{seed=}")
    draw = random.Random(seed)

    def build() -> Runner:
        ports = [Port("a", "float32", (BATCH, 3), 3), Port("b", "int64", (2, BATCH), 6)]
        return Runner(lambda: table("double", 0, 0, 1), ports, [Port("y", "float32", (BATCH, 2), 4)], batch_slot=5, batch_limit=3)

    native = build()
    monkeypatch.setattr(entry_layout, "problem", lambda: "switched off by a test")
    slow = build()
    accepted = 0
    for _ in range(2000):
        rows = draw.randrange(5)
        a = np.zeros((rows, draw.choice([3, 3, 3, 2])), draw.choice(["f4", "f4", "f4", ">f4", "f8"]), order=draw.choice("CF"))
        b = np.zeros((2, draw.choice([rows, rows, rows, 1])), draw.choice(["i8", "i8", "i8", "u8"]))
        if draw.random() < 0.1:
            b = b[:, ::-1]
        fast, careful = native.run({"a": a, "b": b}), slow.run({"b": b, "a": a})
        assert (fast is None) == (careful is None), (a.dtype, a.shape, a.strides, b.dtype, b.shape, b.strides)
        if fast is not None and careful is not None:
            accepted += 1
            assert fast["y"].shape == careful["y"].shape == (rows, 2)
            assert int(native.tables[0][5]) == rows
    assert 100 < accepted < 1900


def test_batch_is_read_from_the_inputs(path: str) -> None:
    ports = [Port("x", "float32", (BATCH,), 3)], [Port("y", "float32", (BATCH,), 4)]
    runner = Runner(lambda: table("double"), *ports, batch_slot=5, batch_limit=9)
    for rows in (1, 5, 9):
        x = np.arange(rows, dtype=np.float32)
        answer = runner.run({"x": x})
        assert answer is not None
        np.testing.assert_array_equal(answer["y"], 2 * x)
    assert runner.run({"x": np.zeros(0, np.float32)}) is None
    assert runner.run({"x": np.zeros(10, np.float32)}) is None


def test_another_dtype_object_of_the_same_meaning_is_accepted(path: str) -> None:
    swapped_twice = np.dtype("f4").newbyteorder("S").newbyteorder("S")
    noted = np.dtype("f4", metadata={"unit": "V"})
    for dtype in (swapped_twice, noted, pickle.loads(pickle.dumps(np.dtype("f4")))):
        assert doubler().run({"x": np.ones((1, 4), dtype)}) is not None


def test_no_reference_is_lost_or_kept() -> None:
    runner, x = doubler(), np.ones((1, 4), np.float32)
    inputs, wrong = {"x": x}, {"x": x, "z": x}
    misfit = {"x": x[0]}
    watched = [x, inputs, None, np.dtype("float32"), dict, np.ndarray, "y", misfit["x"], runner]
    runner.run(inputs)
    gc.collect()
    before = [sys.getrefcount(item) for item in watched]
    for _ in range(100_000):
        runner.run(inputs)
        runner.run(wrong)
        runner.run(misfit)
    after = [sys.getrefcount(item) for item in watched]
    assert all(abs(a - b) < 100 for a, b in zip(after, before, strict=True)), (before, after)
    assert after[0] == before[0] and after[1] == before[1]


def test_memory_does_not_grow() -> None:
    columns = 1 << 18
    runner, x = doubler(columns), np.ones((1, columns), np.float32)

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    for _ in range(20):
        runner.run({"x": x})
    before = resident()
    for _ in range(400):  # 400 MiB of outputs in all
        runner.run({"x": x})
    assert resident() - before < 32 << 20


def test_a_dropped_runner_frees_its_tables_without_the_collector(path: str) -> None:
    class Scratch:
        """What a table's memory hangs on."""

    scratch = Scratch()
    watch = weakref.ref(scratch)

    def new_table(scratch: Scratch = scratch) -> np.ndarray:
        return table("double", 0, 0, 4)

    runner = Runner(new_table, [], [])
    run = runner.run
    del new_table, scratch, runner
    assert (watch() is not None) == (path == "native")
    del run
    assert watch() is None


def test_calls_that_release_the_gil_use_a_table_each() -> None:
    flag, count = np.zeros(1, np.int64), np.zeros(1, np.int64)
    runner = Runner(lambda: table("wait", flag.ctypes.data, count.ctypes.data), [], [], release_gil=True)
    threads = [threading.Thread(target=runner.run, args=({},)) for _ in range(3)]
    for thread in threads:
        thread.start()
    while count[0] < 3:  # reached only if the GIL is free and all three are inside
        threading.Event().wait(0.001)
    assert len(runner.tables) == 3
    flag[0] = 1
    for thread in threads:
        thread.join()
    runner.run({})
    assert len(runner.tables) == 3


def test_too_many_calls_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "MAX_TABLES", 1)
    flag, count = np.zeros(1, np.int64), np.zeros(1, np.int64)
    runner = Runner(lambda: table("wait", flag.ctypes.data, count.ctypes.data), [], [], release_gil=True)
    thread = threading.Thread(target=runner.run, args=({},))
    thread.start()
    while count[0] < 1:
        threading.Event().wait(0.001)
    with pytest.raises(OverloadError, match="running at once"):
        runner.run({})
    flag[0] = 1
    thread.join()
    assert runner.run({}) == {}


def test_threads_that_grow_at_once_keep_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "MAX_TABLES", 2)
    flag, count, meeting = np.zeros(1, np.int64), np.zeros(1, np.int64), threading.Barrier(2)
    errors: list[BaseException] = []

    def new_table() -> np.ndarray:
        if runner is not None:
            meeting.wait(5)  # both threads have passed the check that there is room
        return table("wait", flag.ctypes.data, count.ctypes.data)

    def call() -> None:
        try:
            runner.run({})
        except OverloadError as error:
            meeting.abort()
            errors.append(error)
        except threading.BrokenBarrierError:
            errors.append(OverloadError("alone at the barrier, for the other one was refused"))

    runner: Any = None
    runner = Runner(new_table, [], [], release_gil=True)
    threads = [threading.Thread(target=call) for _ in range(3)]
    threads[0].start()
    while count[0] < 1:
        threading.Event().wait(0.001)
    for thread in threads[1:]:
        thread.start()
    while not errors and count[0] < 3:
        threading.Event().wait(0.001)
    flag[0] = 1
    for thread in threads:
        thread.join()
    assert len(runner.tables) <= 2
    assert errors


def test_the_slow_path_gives_its_tables_back(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"x{k}" for k in range(words.MAX_PORTS + 1)]
    made: list[np.ndarray] = []

    def new_table() -> np.ndarray:
        made.append(table("double", 0, 0, 4))
        return made[-1]

    ports = [Port(name, "float32", (1, 4), 3) for name in names]
    runner = Runner(new_table, ports, [Port("y", "float32", (1, 4), 4)])
    assert not runner.native
    x = np.ones((1, 4), np.float32)
    for _ in range(20):
        answer = runner.run(dict.fromkeys(names, x))
        assert answer is not None
        assert (answer["y"] == 2).all()
    assert len(made) == 1


def test_a_failing_new_table_raises_and_leaves_the_runner_usable() -> None:
    flag, count = np.zeros(1, np.int64), np.zeros(1, np.int64)
    healthy = [True]

    def new_table() -> np.ndarray:
        if not healthy[0]:
            raise MemoryError("no table")
        return table("wait", flag.ctypes.data, count.ctypes.data)

    runner = Runner(new_table, [], [Port("y", "float32", (3,), 8)], release_gil=True)
    healthy[0] = False
    thread = threading.Thread(target=runner.run, args=({},))
    thread.start()
    while count[0] < 1:
        threading.Event().wait(0.001)
    with pytest.raises(MemoryError, match="no table"):
        runner.run({})
    flag[0] = 1
    thread.join()
    assert runner.run({}) is not None


def test_data_address(path: str) -> None:
    address = entry.data_address.__wrapped__()  # the cached one would be the first path's
    for array in (X, X[:, 1:], np.zeros(0), np.zeros((), np.int8)):
        assert address(array) == array.ctypes.data
    for odd in (None, 3, [1.0], X.view(Sub), np.float32(1)):
        with pytest.raises(TypeError, match=r"numpy\.ndarray"):
            address(odd)
    assert data_address()(X) == X.ctypes.data


def test_a_layout_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from openinfer.runtime import entry_ir

    for name, wrong in (
        ("ARRAY_DATA", 24),
        ("ARRAY_NDIM", 16),
        ("ARRAY_DIMS", 40),
        ("ARRAY_DESCR", 48),
        ("ARRAY_FLAGS", 60),
        ("DESCR_NUMBER", 24),
        ("DESCR_BYTEORDER", 25),
        ("OBJECT_TYPE", 0),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(entry_ir, name, wrong)
            assert entry_layout.problem.__wrapped__() is not None, name


def test_scalars_and_many_ports(path: str) -> None:
    scalar = Runner(lambda: table("double", 0, 0, 1), [Port("x", "float32", (), 3)], [Port("y", "float32", (), 4)])
    answer = scalar.run({"x": np.array(21, np.float32)})
    assert answer is not None and answer["y"] == 42 and answer["y"].shape == ()
    for count in (64, 65):  # 64 is the most that the native call takes
        ports = [Port(f"x{k}", "int8", (k + 1, 2), 9) for k in range(count)]
        runner = Runner(lambda: table("double"), ports, [Port(f"y{k}", "bool", (k,), 10) for k in range(count)])
        assert runner.native == (path == "native" and count == 64)
        several = runner.run({port.name: np.zeros(port.shape, port.dtype) for port in ports})
        assert several is not None and [array.shape for array in several.values()] == [(k,) for k in range(count)]


def test_a_huge_output_is_a_memory_error_and_leaks_nothing(path: str) -> None:
    runner = Runner(lambda: table("double"), [Port("x", "float32", (3,), 3)], [Port("y", "float64", (1 << 50,), 4)])
    x = np.zeros(3, np.float32)
    before = sys.getrefcount(x)
    for _ in range(10):
        with pytest.raises(MemoryError):
            runner.run({"x": x})
    assert sys.getrefcount(x) == before and len(runner.tables) == 1


def test_a_second_start_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENINFER_CACHE", str(tmp_path))
    first = entry_native._library.__wrapped__()
    monkeypatch.setattr(entry_native, "compile_ir", None)
    second = entry_native._library.__wrapped__()
    assert first["openinfer_run"] != second["openinfer_run"]
    assert len(list(tmp_path.glob("*.o"))) == 1


def test_a_key_that_changes_the_dict_does_no_harm() -> None:
    class Meddler:
        """Has the hash of an input's name, and removes every input when it is compared."""

        def __hash__(self) -> int:
            return hash("b")

        def __eq__(self, other: object) -> bool:
            inputs.clear()
            gc.collect()
            return False

    ports = [Port("a", "float32", (1000,), 3), Port("b", "float32", (1000,), 6)]
    runner = Runner(lambda: table("double", 0, 0, 1000), ports, [Port("y", "float32", (1000,), 4)])
    inputs: dict[Any, Any] = {}
    for _ in range(50):
        inputs.update({"a": np.ones(1000, np.float32), Meddler(): np.ones(1000, np.float32)})
        assert runner.run(inputs) is None
    inputs.clear()
