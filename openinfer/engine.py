"""`Engine`: a loaded model. `run` for convenience, `bind` for the hot path."""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openinfer.codegen import object_cache
from openinfer.config import Config
from openinfer.errors import ConfigError, InputError, OpenInferError, suggest
from openinfer.fork_lock import ForkLock
from openinfer.frontend.onnx_model import read
from openinfer.ir.graph import ITEM_BYTES, Graph, Signature
from openinfer.runtime.backend import Backend, Statistics
from openinfer.runtime.bound_call import BoundCall
from openinfer.runtime.conversion import Conversion, Conversions
from openinfer.runtime.executor import Price
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.native_backend import NativeBackend
from openinfer.runtime.provenance import verify_precision, verify_provenance
from openinfer.runtime.signature import check

if TYPE_CHECKING:
    from openinfer.runtime.layer_timer import LayerTimer
    from openinfer.sandbox.host import Source
    from openinfer.scheduler.scheduler import Scheduler


class Engine:
    """A compiled model. `run` may be called from any number of threads."""

    def __init__(self, backend: Backend, config: Config, load_s: float = 0.0) -> None:
        """`load` and `compile_graph` make engines. `load_s` is what making the backend took, for `statistics`."""
        self.config = config
        self.inputs: tuple[Signature, ...] = backend.inputs
        self.outputs: tuple[Signature, ...] = backend.outputs
        self._backend = backend
        self._conversions = Conversions(config.engine.conversion_tolerance)
        self._bound = 0
        self._closed = False
        self._lock = ForkLock()
        self._schedulers: dict[Any, Scheduler] = {}  # by event loop
        self._scheduler: Scheduler | None = None  # the one used last
        self._running_loop: Callable[[], Any] = _no_loop
        self._load_s = load_s
        _collect(config.engine.gc)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name, freshly allocated. `inputs` maps every input to an array of the signature's shape; `InputError` otherwise.

        Another dtype, byte order or layout is converted and listed in `conversions`; `PrecisionError` where that would lose more than
        `engine.conversion_tolerance`. `IndexRangeError` for an index outside the axis that it counts along.
        """
        results = self._backend.fast(inputs)
        return results if results is not None else self._run_other(inputs)

    def submit(
        self,
        inputs: Any,
        *,
        deadline: float | None = None,
        priority: int = 0,
        prepare: Callable[[Any], Any] | None = None,
        finish: Callable[[Any], Any] | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """`await` it on an event loop: the outputs of `run`, scheduled as `config.scheduler` says. Leave the arrays alone until it returns.

        `deadline` in seconds from now on; a higher `priority`, an integer, goes first. `prepare(inputs)` may block, as a look-up does: its
        value is what the model gets; `finish(outputs)` likewise: its value is the answer. Raises as `run`, and `OverloadError` where too
        much waits, `DeadlineError` where the deadline cannot be met or has passed, `BlockingTimeoutError`, and what the callables raise.
        Cancelling the task takes the request out of the queue.
        """
        scheduler = self._scheduler
        try:
            if scheduler is None or scheduler.loop is not self._running_loop():
                scheduler = self._scheduler_here()
        except RuntimeError:  # no loop runs yet: the one that it is awaited on
            return self._submit_here(inputs, deadline, priority, prepare, finish)
        return scheduler.submit(inputs, deadline, priority, prepare, finish)

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> BoundCall:
        """Fix the arrays that a call reads and writes; the call itself then checks, copies and allocates nothing.

        The arrays are used in place: C-contiguous, of the model's dtypes, outputs writable. `InputError` otherwise, and where a node of the
        model runs on the fallback. In a sandbox only arrays that `empty` made, and outputs that are not given, are not copied.
        """
        self._open()
        call = self._backend.bind(check(inputs, self.inputs), outputs)
        with self._lock.held():
            self._bound += 1
        return call

    def bind_stamped(self, inputs: Mapping[str, Any], rows: Any) -> BoundCall:
        """As `bind`, for profiles: each call notes when its compiled code began and ended in the next row of `rows`, an int64 array of
        shape [n, 2], on the clock of `time.perf_counter_ns`; after the last row comes the first. `InputError` as `bind`, and where the
        model is not compiled as a whole in this process.
        """
        self._open()
        from openinfer.runtime.layer_timer import bound_stamped  # here, so that programs that time nothing do not load it

        return bound_stamped(self._backend.program, check(inputs, self.inputs), rows)

    def run_many(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """`run` for several requests that need not have one shape. In a sandbox they cross together. The first that fails raises."""
        self._open()
        return self._backend.run_many([check(inputs, self.inputs, self._conversions) for inputs in requests])

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """An uninitialised array where calls read and write fastest: on a cache line, in a sandbox in the memory shared with it."""
        if dtype not in ITEM_BYTES:
            raise InputError(f"found dtype {dtype!r}; {suggest(str(dtype), ITEM_BYTES)}")
        if any(size < 0 for size in shape):
            raise InputError(f"found shape {tuple(shape)}; allowed: sizes of 0 and more")
        return self._backend.empty(tuple(shape), dtype)

    def code_ranges(self) -> list[tuple[int, int]]:
        """Addresses from … up to … that hold the code of the model as it serves now; empty where it runs elsewhere."""
        program = self._backend.program
        libraries = [library for variant in program.variants for library in variant.built.libraries] if program is not None else []
        return [(low, low + library.size_bytes) for library in libraries for low in library.addresses.values()]

    def start_threads(self) -> None:
        """Start the threads of the pool now; otherwise the first call that uses them does."""
        self._backend.start_threads()

    def price(self, inputs: Mapping[str, Any]) -> list[Price]:
        """Measured time of every segment, compiled or on the fallback, for these inputs. `SandboxError` in a sandbox, which shows none."""
        self._open()
        return self._backend.price(check(inputs, self.inputs, self._conversions))

    def layer_timer(self, inputs: Mapping[str, Any]) -> LayerTimer:
        """A build of the model of its own that times each layer for inputs of these shapes; the one that serves stays as it is.

        `InputError` where the model is not compiled as a whole in this process: see `price` and `statistics().fallback`.
        """
        self._open()
        from openinfer.runtime.layer_timer import LayerTimer  # here, so that programs that time nothing do not load it

        return LayerTimer(self._backend.program, check(inputs, self.inputs, self._conversions))

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        """What `run` had to convert so far, by input and form, with the largest error."""
        return self._conversions.all()

    def sources(self) -> list[str]:
        """The generated source of every compiled variant, for reading; kernels are named, not shown."""
        return self._backend.sources()

    def statistics(self) -> Statistics:
        """Counters since load."""
        return dataclasses.replace(
            self._backend.statistics(),
            bound_calls=self._bound,
            load_s=self._load_s,
            scheduler=[scheduler.statistics() for scheduler in self._schedulers.values()],
        )

    async def aclose(self) -> None:
        """Refuse new requests, wait until those that were accepted on this loop are answered, then `close`."""
        import asyncio

        scheduler = self._schedulers.get(asyncio.get_running_loop())
        if scheduler is not None:
            await scheduler.drain()
        self.close()

    def close(self) -> None:
        """Refuse further calls; bound calls made before keep their own memory. Requests that wait in a queue are answered first, those in a
        blocking call are not waited for: see `aclose`.
        """
        self._scheduler = None
        while self._schedulers:
            self._schedulers.popitem()[1].close_from_any_thread()
        with self._lock.held():
            self._closed = True
        self._backend.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _scheduler_here(self) -> Scheduler:
        """The scheduler of the running loop, made at its first request."""
        import asyncio  # here, so that programs without an event loop do not load it

        from openinfer.scheduler.scheduler import Scheduler

        self._running_loop, loop = asyncio.get_running_loop, asyncio.get_running_loop()
        with self._lock.held():
            self._open()
            found = self._schedulers.get(loop)
            if found is not None:
                self._scheduler = found
                return found
            ended = [self._schedulers.pop(other) for other in [*self._schedulers] if other.is_closed()]
            checks = os.environ.get("OPENINFER_CHECKS", "") not in ("", "0")
            made = Scheduler(
                self.run,
                lambda inputs: check(inputs, self.inputs, self._conversions),
                lambda: self._backend.program,
                self.inputs,
                self.config.scheduler,
                self.config.engine.threads,
                checks,
            )
            self._scheduler = self._schedulers[loop] = made
        for other in ended:  # without the lock: their threads may be in `run`, and ask for it
            other.close_from_any_thread()
        return made

    async def _submit_here(self, *request: Any) -> Any:
        return await self._scheduler_here().submit(*request)

    def _run_other(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Requests that the last shape's fast path does not take: another shape, an array to convert, a mistake."""
        self._open()
        return self._backend.run(check(inputs, self.inputs, self._conversions))

    def _open(self) -> None:
        if self._closed:
            raise OpenInferError("the engine is closed; load the model again")


def _collect(policy: str) -> None:
    """Apply `engine.gc` to this process: `freeze` keeps what exists now out of later collections, `off` ends automatic ones."""
    if policy != "default":
        gc.collect()
        gc.freeze()
    if policy == "off":
        gc.disable()


def _no_loop() -> None:
    """Before the first request of a scheduler."""


def load(
    model: str | os.PathLike[str] | bytes | Any,
    config: Config | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    watch: Callable[[str, Graph], None] | None = None,
) -> Engine:
    """Compile a model (a path, bytes, or an `onnx.ModelProto`).

    `config` is a `Config`, the path of a TOML file, a nested mapping, or nothing: then `$OPENINFER_CONFIG`, if set, names a file.
    Raises `ModelError`, `ConfigError`, `ProvenanceError` where the configuration was tuned for another model, and `PrecisionError` where it
    runs a float64 model in float32 without a calibration of this very model.
    """
    settings = _config(config)
    if settings.sandbox.mode != "off":
        if watch is not None:
            raise ConfigError("a model in a sandbox cannot be watched while it is compiled; load it with sandbox.mode = 'off'")
        if settings.engine.backend == "gpu":
            raise ConfigError(
                f"found sandbox.mode = {settings.sandbox.mode!r} with engine.backend = 'gpu'; a locked-down process may not talk to a "
                "driver: set sandbox.mode = 'off', or engine.backend = 'cpu'"
            )
        from openinfer.sandbox.backend import SandboxBackend  # here, so that programs without a sandbox do not load it

        begin = time.perf_counter()
        return Engine(SandboxBackend(_source(model, settings), settings), settings, time.perf_counter() - begin)
    graph = read(model)
    verify_provenance(settings, model)
    verify_precision(settings, graph, model)
    return compile_graph(graph, settings, watch)


def compile_graph(graph: Graph, config: Config, watch: Callable[[str, Graph], None] | None = None) -> Engine:
    """An engine, outside any sandbox, of a graph that was read already; `load` verifies where the model and the configuration come from."""
    begin = time.perf_counter()
    backend = _backend(graph, config, watch)
    return Engine(backend, config, time.perf_counter() - begin)


def _backend(graph: Graph, config: Config, watch: Callable[[str, Graph], None] | None) -> Backend:
    fallback = Fallback()
    name = "cpu"
    if config.engine.backend != "cpu":
        from openinfer.runtime.gpu_backend import GpuBackend, device_for  # here, so that programs on the CPU do not load it

        device, name = device_for(config)
        if device is not None:
            return GpuBackend(graph, config, fallback, device, watch)
    return NativeBackend(graph, config, fallback, name, watch)


def _source(model: str | os.PathLike[str] | bytes | Any, settings: Config) -> Source:
    """What the sandbox loads. This process does not read the model: a file is named, bytes are handed on unread."""
    from openinfer.sandbox.host import Source

    config = settings.with_knobs({"sandbox.mode": "off", "engine.backend": "cpu"}).model_dump(mode="json")
    if isinstance(model, (str, os.PathLike)):
        path = os.path.abspath(model)
        cache = object_cache.sandbox_folder(path.encode())
        return Source("openinfer.engine:load_for_sandbox", {"config": config, "path": path}, cache)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return Source("openinfer.engine:load_for_sandbox", {"config": config}, object_cache.sandbox_folder(data), data)


def load_for_sandbox(config: Mapping[str, Any], path: str | None = None, model: bytes = b"") -> Engine:
    """What runs in the sandbox's process in the place of `load`."""
    return load(path if path is not None else model, Config.parse(config))


def _config(config: Config | str | os.PathLike[str] | Mapping[str, Any] | None) -> Config:
    if config is None:
        named = os.environ.get("OPENINFER_CONFIG")
        return Config.load(named) if named else Config()
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return Config.parse(config)
    if not isinstance(config, (str, os.PathLike)):
        raise ConfigError(f"found {type(config).__name__} as the configuration; allowed: a Config, a mapping, or the path of a TOML file")
    return Config.load(config)
