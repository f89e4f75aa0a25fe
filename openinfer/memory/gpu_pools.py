"""CuPy: the one module that imports it. A `CupyDevice` owns the pools of one engine, and moves arrays to the GPU and back."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from openinfer.errors import GpuUnavailableError, MemoryBudgetError
from openinfer.ir.graph import Array
from openinfer.memory.gpu_driver import Device, Policy, choose, driver_branch, probe

ADVICE = 'or set engine.backend = "auto" to take the CPU'


class CupyDriver:
    """`Driver` by CuPy's binding of the CUDA runtime."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def branch(self) -> int:
        """See `Driver`."""
        return driver_branch(int(self._cupy.cuda.runtime.driverGetVersion()))

    def attribute(self, name: str) -> int:
        """See `Driver`."""
        return int(self._cupy.cuda.Device().attributes.get(name, 0))

    def memory(self) -> tuple[int, int]:
        """See `Driver`."""
        free, total = self._cupy.cuda.runtime.memGetInfo()
        return int(free), int(total)

    def name(self) -> str:
        """See `Driver`."""
        properties = self._cupy.cuda.runtime.getDeviceProperties(self._cupy.cuda.Device().id)
        text = properties["name"]
        return text.decode() if isinstance(text, bytes) else str(text)


def connect(pool: str, budget_bytes: int, find: Callable[[str], Any] = importlib.import_module) -> CupyDevice:
    """The GPU, with pools as `memory.gpu_pool` and the budget say; `GpuUnavailableError` where there is none to be had."""
    try:
        cupy = find("cupy")
    except ImportError as error:
        reason = "no CuPy" if getattr(error, "name", None) == "cupy" else f"a CuPy that cannot be imported: {_one_line(error)}"
        raise GpuUnavailableError(f"no usable GPU: found {reason}; run pip install 'openinfer[gpu]', {ADVICE}") from None
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
        found = probe(CupyDriver(cupy)) if count else None
    except Exception as error:  # CuPy raises classes of its own, which a module without CuPy cannot name
        raise GpuUnavailableError(f"no usable GPU: found no working CUDA driver: {_one_line(error)}; install NVIDIA's, {ADVICE}") from None
    if found is None:
        raise GpuUnavailableError(f"no usable GPU: found {count} CUDA devices; check nvidia-smi, {ADVICE}")
    device = CupyDevice(cupy, found, choose(found, pool, budget_bytes))
    try:
        device.try_out()
    except Exception as error:
        raise GpuUnavailableError(f"no usable GPU: found {found.name}, which cannot compute: {_one_line(error)}; {ADVICE}") from None
    return device


class CupyDevice:
    """Arrays on the GPU. Its pools are its own: other users of CuPy in the process keep theirs. Safe to use from several threads."""

    def __init__(self, cupy: Any, device: Device, policy: Policy) -> None:
        self.xp, self.device, self.policy = cupy, device, policy
        allocate = cupy.cuda.malloc_managed if policy.kind == "unified" else None
        self._pool = cupy.cuda.MemoryPool(allocate) if allocate is not None else cupy.cuda.MemoryPool()
        self._pool.set_limit(size=policy.limit_bytes)
        self._pinned = cupy.cuda.PinnedMemoryPool() if policy.kind == "pinned" else None
        self._kernels: dict[str, Any] = {}
        self.uploads = self.downloads = 0

    def try_out(self) -> None:
        """Compute something: a driver without a working compiler or library shows here, not in the first request."""
        with self.active():
            values = self.xp.arange(16, dtype="float32").reshape(4, 4)
            self.xp.matmul(values + 1, values)
            self.xp.cuda.get_current_stream().synchronize()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Allocations of this thread come from the device's pool. Running out of it is a `MemoryBudgetError`; a driver that fails, a
        `GpuUnavailableError`.
        """
        try:
            with self.xp.cuda.using_allocator(self._pool.malloc):
                yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            raise MemoryBudgetError(
                f"{self.device.name}: {_one_line(error)}; the pool may take {self.policy.limit_bytes} bytes: use a smaller batch, or raise "
                "memory.gpu_budget_mb"
            ) from None
        except self.xp.cuda.runtime.CUDARuntimeError as error:
            raise GpuUnavailableError(f"{self.device.name} failed: {_one_line(error)}; check nvidia-smi and load the model again") from None

    def upload(self, array: Array) -> Any:
        """A copy on the device."""
        self.uploads += 1
        if self._pinned is None or not array.nbytes:
            return self.xp.asarray(array)
        staging = _staged(self._pinned, array.shape, array.dtype)
        staging[...] = array
        result = self.xp.empty(array.shape, array.dtype)
        result.set(staging)
        # The staging buffer goes back to its pool at once: nobody may fill it while the copy reads.
        self.xp.cuda.get_current_stream().synchronize()
        return result

    def download(self, array: Any) -> Array:
        """A copy on the host; waits for what computes it."""
        self.downloads += 1
        if self._pinned is None or not array.nbytes:
            found: Array = self.xp.asnumpy(array)
            return found
        staging = _staged(self._pinned, array.shape, array.dtype)
        self.xp.ascontiguousarray(array).get(out=staging)
        return staging.copy()

    def launch(self, source: str, name: str, elements: int, arguments: Sequence[Any]) -> None:
        """Run a generated kernel over `elements`; it is compiled when first met, without contraction: a product and a sum keep their two
        roundings, as where each is a kernel of its own.
        """
        kernel = self._kernels.get(source)
        if kernel is None:
            kernel = self._kernels[source] = self.xp.RawKernel(source, name, options=("--fmad=false",))
        kernel((max(1, min(-(-elements // 256), 1 << 16)),), (256,), tuple(arguments))

    def statistics(self) -> dict[str, Any]:
        """The device, its pool and its copies. Bytes."""
        return {
            "device": self.device.name,
            "driver": self.device.driver,
            "pool": self.policy.kind,
            "reason": self.policy.reason,
            "limit_bytes": self.policy.limit_bytes,
            "used_bytes": int(self._pool.used_bytes()),
            "held_bytes": int(self._pool.total_bytes()),
            "uploads": self.uploads,
            "downloads": self.downloads,
            "kernels": len(self._kernels),
        }

    def close(self) -> None:
        """Give free memory back to the driver."""
        self._pool.free_all_blocks()
        if self._pinned is not None:
            self._pinned.free_all_blocks()


def _staged(pool: Any, shape: Sequence[int], dtype: Any) -> Array:
    """A host array in pinned memory, which the device copies without a detour."""
    kind, count = np.dtype(dtype), math.prod(shape)
    array: Array = np.frombuffer(pool.malloc(count * kind.itemsize), kind, count).reshape(tuple(shape))
    return array


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
