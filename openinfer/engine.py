"""`Engine`: a loaded model. `run` for convenience, `bind` for the hot path."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from openinfer.codegen import object_cache
from openinfer.codegen.lowering import Refused
from openinfer.config import Config
from openinfer.errors import ConfigError, InputError, MemoryBudgetError, OpenInferError
from openinfer.fork_lock import ForkLock
from openinfer.frontend.onnx_model import read
from openinfer.ir.graph import Graph, Signature, TensorType
from openinfer.machine import host
from openinfer.memory.arena import allocate
from openinfer.memory.pool import PoolStatistics
from openinfer.ops import fusible
from openinfer.ops._base import Target
from openinfer.passes.pipeline import optimize
from openinfer.runtime.conversion import Conversion, Conversions
from openinfer.runtime.entry import Runner
from openinfer.runtime.executor import Executor, Price, address
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.pool import Pool
from openinfer.runtime.program import Context
from openinfer.runtime.provenance import verify_precision, verify_provenance
from openinfer.runtime.signature import check, probes

if TYPE_CHECKING:
    from openinfer.runtime.gpu_executor import ArrayDevice, GpuCall, GpuExecutor
    from openinfer.sandbox.executor import Remote, RemoteContext
    from openinfer.sandbox.host import Source
    from openinfer.scheduler.scheduler import Scheduler

KEPT_RUNNERS = 32


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What an engine holds and has done. Bytes and seconds."""

    bound_calls: int
    contexts: int
    shapes: int
    arena_bytes: int
    plan_gap: float
    plan_s: float
    compiled: int
    loaded_from_cache: int
    compile_s: float
    load_s: float
    fallback: dict[str, str]
    pool: dict[str, Any]
    scheduler: list[dict[str, Any]]
    sandbox: dict[str, Any]
    backend: str
    device: dict[str, Any]
    memory: PoolStatistics | None


class BoundCall:
    """A call whose addresses are fixed: refill the arrays in `inputs`, call it with nothing, read `outputs`. One thread at a time."""

    __slots__ = ("_context", "inputs", "outputs")

    inputs: dict[str, Any]
    outputs: dict[str, Any]

    def __init__(self, context: Context | RemoteContext | GpuCall, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        self._context, self.inputs, self.outputs = context, inputs, outputs

    def __call__(self) -> None:
        self._context.call()


def _bound(context: Context | GpuCall, inputs: dict[str, Any], outputs: dict[str, Any]) -> BoundCall:
    """A `BoundCall` whose type calls the native entry itself: a builtin in the type's `__call__` takes no `self` and costs no Python
    frame.
    """
    kind = type("BoundCall", (BoundCall,), {"__slots__": (), "__call__": context.call, "__doc__": BoundCall.__doc__})
    call: BoundCall = kind(context, inputs, outputs)
    return call


class Engine:
    """A compiled model. `run` may be called from any number of threads."""

    def __init__(self, graph: Graph | Remote, config: Config, watch: Callable[[str, Graph], None] | None = None) -> None:
        begin = time.perf_counter()
        self.config = config
        self.inputs: tuple[Signature, ...] = graph.inputs
        self.outputs: tuple[Signature, ...] = graph.outputs
        knobs = config.engine
        self._remote: Remote | None = None
        self._pool: Pool | None = None
        self._backend = "cpu"
        self._gpu: GpuExecutor | None = None
        self._executor: Executor | Remote | GpuExecutor
        if isinstance(graph, Graph):
            fallback = Fallback()
            device: ArrayDevice | None = None
            if knobs.backend != "cpu":
                from openinfer.runtime.gpu_backend import device_for  # here, so that programs on the CPU do not load it

                device, self._backend = device_for(config)
            activations = fusible.ACTIVATIONS if device is None else {}
            keep = knobs.float64_layers if knobs.precision == "float32" else ()
            optimized = optimize(graph, knobs.precision, fallback.evaluate, activations, watch, keep)
            if device is None:
                self._pool = Pool(knobs.threads, wait=knobs.wait, spin_us=knobs.spin_us, pin=knobs.pin) if knobs.threads > 1 else None
                self._executor = Executor(optimized, Target(host(), config.engine), config, fallback, self._pool)
            else:
                from openinfer.runtime.gpu_executor import GpuExecutor

                self._executor = self._gpu = GpuExecutor(optimized, device, fallback, knobs.gpu_fusion)
        else:
            self._executor = self._remote = graph
            if knobs.backend == "auto":
                self._backend = "cpu: a locked-down process may not talk to a driver"
        self._conversions = Conversions(knobs.conversion_tolerance)
        self._bound = 0
        self._closed = False
        self._lock = ForkLock()
        self._runners: dict[tuple[tuple[int, ...], ...], Runner] = {}
        self._fast: Callable[[Any], dict[str, Any] | None] = _no_fast_path
        self._schedulers: dict[Any, Scheduler] = {}  # by event loop
        self._scheduler: Scheduler | None = None  # the one used last
        self._running_loop: Callable[[], Any] = _no_loop
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        _collect(knobs.gc)
        self._load_s = time.perf_counter() - begin

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name, freshly allocated. `inputs` maps every input to an array of the signature's shape; `InputError` otherwise.

        Another dtype, byte order or layout is converted and listed in `conversions`; `PrecisionError` where that would lose more than
        `engine.conversion_tolerance`. Indices are data, and not checked: compiled Gather operators read zeros for one outside its axis,
        and Scatter operators leave out its update.
        """
        results = self._fast(inputs)
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

        `deadline` in seconds from the call on; a higher `priority` goes first. `prepare(inputs)` may block, as a look-up does: its value is
        what the model gets; `finish(outputs)` likewise: its value is the answer. Raises as `run`, and `OverloadError` where too much waits,
        `DeadlineError` where the deadline cannot be met or has passed, `BlockingTimeoutError`, and what the callables raise. Cancelling the
        task takes the request out of the queue.
        """
        scheduler = self._scheduler
        if scheduler is None or scheduler.loop is not self._running_loop():
            scheduler = self._scheduler_here()
        return scheduler.submit(inputs, deadline, priority, prepare, finish)

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> BoundCall:
        """Fix the arrays that a call reads and writes; the call itself then checks, copies and allocates nothing.

        The arrays are used in place: C-contiguous, of the model's dtypes, outputs writable. `InputError` otherwise, and where a node of the
        model runs on the fallback. In a sandbox only arrays that `empty` made, and outputs that are not given, are not copied.
        """
        self._open()
        arrays = check(inputs, self.inputs)
        if self._remote is not None:
            call = self._remote.bind(arrays)
            made = _placed(call.outputs or {}, outputs, arrays)
            return BoundCall(self._remote.context(call, arrays, made), arrays, made)
        if self._gpu is not None:
            made = _placed(self._gpu.run(arrays), outputs, arrays)  # once, for the shapes of the outputs
            with self._lock.held():
                self._bound += 1
            return _bound(self._gpu.call(arrays, made), arrays, made)
        program = self._executor.program
        if program is None:
            raise InputError(
                f"bind needs a model that is compiled as a whole; on the fallback: {', '.join(self._executor.refused)}; use run"
            )
        try:
            instance = program.instance(tuple(TensorType(array.dtype.name, array.shape) for array in arrays.values()))
        except Refused as refusal:
            raise InputError(
                f"bind: {refusal.node.op} {refusal.node.key!r} is not compiled for these shapes: {refusal.reason}; use run"
            ) from None
        made = _placed({name: np.empty(kind.shape, kind.dtype) for name, kind in instance.outputs}, outputs, arrays)
        context = instance.context()
        address(context.table, instance, arrays, made)
        with self._lock.held():
            self._bound += 1
        return _bound(context, arrays, made)

    def run_many(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """`run` for several requests that need not have one shape. In a sandbox they cross together. The first that fails raises."""
        if self._remote is None:
            return [self.run(inputs) for inputs in requests]
        self._open()
        return self._remote.run_many([check(inputs, self.inputs, self._conversions) for inputs in requests])

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """An uninitialised array where calls read and write fastest: on a cache line, in a sandbox in the memory shared with it."""
        if self._remote is not None:
            return self._remote.empty(tuple(shape), dtype)
        kind = TensorType(dtype, tuple(shape))
        return allocate(max(kind.size_bytes, 1))[: kind.size_bytes].view(dtype).reshape(kind.shape)

    def start_threads(self) -> None:
        """Start the threads of the pool now; otherwise the first call that uses them does."""
        if self._pool is not None:
            self._pool.start()

    def price(self, inputs: Mapping[str, Any]) -> list[Price]:
        """Measured time of every segment, compiled or on the fallback, for these inputs. `SandboxError` in a sandbox, which shows none."""
        self._open()
        return self._executor.price(check(inputs, self.inputs, self._conversions))

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        """What `run` had to convert so far, by input and form, with the largest error."""
        return self._conversions.all()

    def sources(self) -> list[str]:
        """The generated source of every compiled variant, for reading; kernels are named, not shown."""
        programs = [segment.program for segment in self._executor.segments if segment.program is not None]
        return [variant.built.text for program in programs for variant in program.variants]

    def statistics(self) -> Statistics:
        """Counters since load."""
        programs = [segment.program for segment in self._executor.segments if segment.program is not None]
        instances = [instance for program in programs for instance in program.instances.values()]
        variants = [variant for program in programs for variant in program.variants]
        return Statistics(
            bound_calls=self._bound,
            contexts=sum(instance.contexts for instance in instances),
            shapes=len(instances),
            arena_bytes=sum(instance.layout.peak_bytes * instance.contexts for instance in instances),
            plan_gap=max((instance.layout.gap for instance in instances), default=1.0),
            plan_s=sum(program.plan_s for program in programs),
            compiled=sum(not variant.built.cached for variant in variants),
            loaded_from_cache=sum(variant.built.cached for variant in variants),
            compile_s=sum(variant.seconds for variant in variants),
            load_s=self._load_s,
            fallback=dict(self._executor.refused),
            pool=self._pool.statistics() if self._pool is not None else {},
            scheduler=[scheduler.statistics() for scheduler in self._schedulers.values()],
            sandbox=self._remote.statistics() if self._remote is not None else {},
            backend=self._backend,
            device=self._gpu.statistics() if self._gpu is not None else {},
            memory=self._executor.memory.statistics() if isinstance(self._executor, Executor) else None,
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
            self._fast = _no_fast_path
            self._runners.clear()
        if self._pool is not None:
            self._pool.close()
        if self._remote is not None:
            self._remote.close()
        if self._gpu is not None:
            self._gpu.close()

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
            for other in [*self._schedulers]:
                if other.is_closed():
                    self._schedulers.pop(other).close()
            checks = os.environ.get("OPENINFER_CHECKS", "") not in ("", "0")
            made = Scheduler(
                self.run,
                lambda inputs: check(inputs, self.inputs, self._conversions),
                lambda: self._executor.program,
                self.inputs,
                self.config.scheduler,
                self.config.engine.threads,
                checks,
            )
            self._scheduler = self._schedulers[loop] = made
        return made

    def _run_other(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Requests that the last shape's fast path does not take: another shape, an array to convert, a mistake."""
        self._open()
        arrays = check(inputs, self.inputs, self._conversions)
        key = tuple(array.shape if isinstance(array, np.ndarray) else () for array in arrays.values())
        runner = self._runners.get(key)
        if runner is None:
            results = self._executor.run(arrays)
            program = self._executor.program
            if program is not None and all(isinstance(array, np.ndarray) for array in arrays.values()):
                types = tuple(TensorType(array.dtype.name, array.shape) for array in arrays.values())
                instance = program.instances.get(types)
                if instance is not None:  # these types may have run on the fallback
                    instance.let_go()  # the runner has an arena of its own
                    with contextlib.suppress(MemoryBudgetError):
                        self._keep(key, instance.runner())
            return results
        self._keep(key, runner)
        again = runner.run(arrays)
        return again if again is not None else self._executor.run(arrays)

    def _keep(self, key: tuple[tuple[int, ...], ...], runner: Runner) -> None:
        """Make this the runner of the fast path, unless the engine was closed meanwhile."""
        with self._lock.held():
            if self._closed:
                return
            self._runners.pop(key, None)
            while len(self._runners) >= KEPT_RUNNERS:
                self._runners.pop(next(iter(self._runners)))
            self._runners[key] = runner
            self._fast = runner.run

    def _let_go(self) -> bool:
        """For the budget: drop what calls that are not running keep ready, the last shape's fast path last; whether there was anything."""
        with self._lock.held():
            others = [key for key, runner in self._runners.items() if runner.run is not self._fast]
            for key in others:
                del self._runners[key]
            if isinstance(self._executor, Executor) and (self._executor.let_go() or others):
                return True
            found = bool(self._runners)
            self._runners.clear()
            self._fast = _no_fast_path
            return found

    def _open(self) -> None:
        if self._closed:
            raise OpenInferError("the engine is closed; load the model again")

    def _prepare(self) -> None:
        """Compile now what can be compiled without seeing a request."""
        executor = self._executor
        if not isinstance(executor, Executor):
            return
        reference = weakref.ref(self)
        executor.charge_constants()
        executor.memory.reclaim = lambda: (engine := reference()) is not None and engine._let_go()
        examples = probes(self.inputs)
        while examples and (program := executor.program) is not None:
            try:
                if self.config.memory.budget_bytes:
                    program.preflight(min(examples, key=lambda types: sum(kind.size_bytes for kind in types)))
                program.prepare(examples)
                return
            except Refused as refusal:
                # Sizes that the model names apart may have to be the same, as the batches of a recurrent layer's input and state.
                with contextlib.suppress(Refused):
                    program.prepare(probes(self.inputs, equal=True))
                    return
                executor.refuse(refusal)


def _collect(policy: str) -> None:
    """Apply `engine.gc` to this process: `freeze` keeps what exists now out of later collections, `off` ends automatic ones."""
    if policy != "default":
        gc.collect()
        gc.freeze()
    if policy == "off":
        gc.disable()


def _placed(made: Mapping[str, Any], given: Mapping[str, Any] | None, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a bound call: those that the caller gives, checked, in the place of those that were made."""
    placed = dict(made)
    for name, array in (given or {}).items():
        if name not in placed:
            raise InputError(f"unknown output {name!r}; allowed: {', '.join(placed)}")
        wanted = placed[name]
        usable = isinstance(array, np.ndarray) and array.dtype == wanted.dtype and array.shape == wanted.shape
        if not usable or not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
            found = f"{array.dtype}{array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InputError(f"output {name!r}: found {found}; allowed: a writable, C-contiguous {wanted.dtype}{wanted.shape}")
        if any(np.may_share_memory(array, other) for other in (*inputs.values(), *(a for n, a in placed.items() if n != name))):
            raise InputError(f"output {name!r} shares memory with another array of the call; give it memory of its own")
        placed[name] = array
    return placed


def _no_loop() -> None:
    """Before the first request of a scheduler."""


def _no_fast_path(inputs: Any) -> None:
    """Before the first request, and after the last."""
    return None


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
        from openinfer.sandbox.executor import Remote  # here, so that programs without a sandbox do not load it

        return Engine(Remote(_source(model, settings), settings.sandbox), settings)
    graph = read(model)
    verify_provenance(settings, model)
    verify_precision(settings, graph, model)
    return Engine(graph, settings, watch)


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
    return Config.parse(config) if isinstance(config, Mapping) else Config.load(config)
