"""A stand-in for CuPy on a machine without a GPU: NumPy behind walls.

Only functions and arguments that CuPy 14 has exist here. An array of this "device" never turns into one of NumPy by itself, nor
into a number, a truth value or an iterator: each would be a hidden copy that waits for the device. Copies that are asked for are counted.
Pools, driver and kernels are simulated; generated kernels run through the host's C compiler.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
import types
from typing import Any

import numpy as np
import scipy.special
from host_device import call_c

# Parameters in CuPy's order.
FUNCTIONS = {
    "any": "a axis out keepdims",
    "arange": "start stop step dtype",
    "argmax": "a axis dtype out keepdims",
    "argmin": "a axis dtype out keepdims",
    "argsort": "a axis kind",
    "ascontiguousarray": "a dtype",
    "broadcast_to": "array shape",
    "clip": "a a_min a_max out",
    "concatenate": "tup axis out dtype casting",
    "cumprod": "a axis dtype out",
    "cumsum": "a axis dtype out",
    "empty": "shape dtype order",
    "expand_dims": "a axis",
    "eye": "N M k dtype order",
    "flip": "a axis",
    "max": "a axis out keepdims",
    "min": "a axis out keepdims",
    "ones": "shape dtype order",
    "ones_like": "a dtype order subok shape",
    "prod": "a axis dtype out keepdims",
    "repeat": "a repeats axis",
    "stack": "tup axis out dtype casting",
    "sum": "a axis dtype out keepdims",
    "take": "a indices axis out",
    "take_along_axis": "a indices axis",
    "tile": "A reps",
    "where": "condition x y",
    "zeros": "shape dtype order",
    "zeros_like": "a dtype order subok shape",
}
UFUNCS = {"abs", "ceil", "exp", "expm1", "floor", "fmod", "isfinite", "left_shift", "log", "log1p", "maximum", "minimum", "power"}
UFUNCS |= {"right_shift", "rint", "sqrt", "square"}
UFUNCS |= {f"{arc}{name}" for arc in ("", "arc") for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")}
# Of any number of arrays.
UFUNCS |= {"einsum", "matmul"}
CREATORS = ("arange", "empty", "eye", "ones", "zeros")
POISON = 0xFB


class OutOfMemoryError(MemoryError):
    """What CuPy raises where a pool is at its limit."""


class CUDARuntimeError(RuntimeError):
    """What CuPy raises where the driver fails."""


class Array:
    """An array of the device. Everything that is not here needs the host."""

    __array_ufunc__ = None  # NumPy must not take it for a number

    def __init__(self, module: StrictCupy, held: Any) -> None:
        self._module, self._held = module, np.asarray(held)
        module.note(self._held.nbytes)

    shape = property(lambda self: self._held.shape)
    dtype = property(lambda self: self._held.dtype)
    ndim = property(lambda self: self._held.ndim)
    size = property(lambda self: self._held.size)
    nbytes = property(lambda self: self._held.nbytes)
    T = property(lambda self: Array(self._module, self._held.T))

    def reshape(self, *shape: Any) -> Array:
        return Array(self._module, self._held.reshape(*shape))

    def transpose(self, *axes: Any) -> Array:
        return Array(self._module, self._held.transpose(*axes))

    def astype(self, dtype: Any) -> Array:
        return Array(self._module, self._held.astype(dtype))

    def get(self, out: Any = None) -> Any:
        self._module.downloads += 1
        if out is None:
            return self._held.copy()
        assert out.flags.c_contiguous and self._held.flags.c_contiguous
        out[...] = self._held
        return out

    def set(self, array: np.ndarray) -> None:
        assert type(array) is np.ndarray and array.dtype == self.dtype and array.shape == self.shape
        self._module.uploads += 1
        self._held[...] = array

    def __getitem__(self, key: Any) -> Array:
        return Array(self._module, self._held[self._key(key, reading=True)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._held[self._key(key, reading=False)] = self._module.plain(value)

    def _key(self, key: Any, reading: bool) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        for part in parts:
            if isinstance(part, (np.ndarray, list)):
                raise TypeError("a host array as an index of a device array")
            if reading and isinstance(part, Array) and part.dtype == bool:
                raise TypeError("a mask as an index: the shape of the result waits for the device")
        return tuple(self._module.plain(part) for part in parts)

    def _forbidden(self, *_: Any) -> Any:
        raise TypeError("the content of a device array is asked for on the host")

    __bool__ = __int__ = __float__ = __index__ = __iter__ = __array__ = __len__ = item = tolist = _forbidden


def _operation(function: Any, reflected: bool = False) -> Any:
    def apply(self: Array, *others: Any) -> Any:
        module = self._module
        operands = [self._held, *(module.plain(other) for other in others)]
        return Array(module, function(*(reversed(operands) if reflected else operands)))

    return apply


for _name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lt", "le", "gt", "ge", "eq", "ne"]:
    _function = getattr(operator, f"__{_name}__")
    setattr(Array, f"__{_name}__", _operation(_function))
    if _name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Array, f"__r{_name}__", _operation(_function, reflected=True))
for _name in ("neg", "invert"):
    setattr(Array, f"__{_name}__", _operation(getattr(operator, f"__{_name}__")))


def _in_place(self: Array, other: Any) -> Array:
    self._held += self._module.plain(other)
    return self


Array.__iadd__ = _in_place


class StrictCupy:
    """The module `cupy`, of a simulated driver and device."""

    __name__ = "cupy"

    def __init__(self, *, driver: int = 12040, managed: int = 1, free: int = 1 << 34, devices: int = 1) -> None:
        self.uploads = self.downloads = self.launches = self.staged = 0
        self.limit: int | None = None
        self.allocator: str | None = None
        self.inside = 0
        self._driver, self._managed, self._free, self._devices = driver, managed, free, devices
        self.cuda = self._cuda()

    def __getattr__(self, name: str) -> Any:
        if name in UFUNCS:
            return self._strict(name, None)
        if name in FUNCTIONS:
            return self._strict(name, FUNCTIONS[name].split())
        raise AttributeError(f"the strict CuPy has no {name!r}: is it in CuPy's documented API, and worth a line here?")

    def note(self, size: int) -> None:
        """An array was made: it must lie inside the pool's limit, and be made while the device is active."""
        if self.inside and self.limit is not None and size > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes")

    def plain(self, value: Any) -> Any:
        """What NumPy computes with; arrays of the host are refused."""
        if isinstance(value, Array):
            return value._held
        if isinstance(value, np.ndarray):
            raise TypeError("a host array among device arrays: CuPy refuses it")
        return [self.plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    def _strict(self, name: str, parameters: list[str] | None) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if parameters is not None:
                kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD
                inspect.Signature([inspect.Parameter(p, kinds, default=None) for p in parameters]).bind(*arguments, **named)
            elif named:
                raise TypeError(f"{name} with {', '.join(named)}: keep to what both namespaces take")
            if name not in CREATORS and not any(isinstance(item, Array) for item in _flat(arguments)):
                raise TypeError(f"{name} of no device array")
            if name == "argsort" and named.get("kind") not in (None, "stable"):
                raise ValueError("CuPy sorts stably alone")
            given = [tuple(a) if name in ("empty", "zeros", "ones") and isinstance(a, list) else self.plain(a) for a in arguments]
            if name in ("reshape", "tile", "broadcast_to", "sum", "max", "min", "prod"):
                given = [tuple(g) if isinstance(g, list) else g for g in given]
            found = getattr(np, name)(*given, **named)
            if name == "empty":
                found.reshape(-1).view(np.uint8)[...] = POISON if found.dtype != bool else 1
            return Array(self, found)

        return call

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        if isinstance(a, Array):
            return a if dtype is None else a.astype(dtype)
        if isinstance(a, np.ndarray):
            assert dtype is None
            self.uploads += 1
            return Array(self, a.copy())
        return Array(self, np.asarray(a, dtype))

    def asnumpy(self, a: Array) -> np.ndarray:
        return a.get()

    def RawKernel(self, source: str, name: str, options: tuple[str, ...] = ()) -> Any:
        assert options == ("--fmad=false",)

        def launch(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            assert 1 <= grid[0] <= 1 << 16 and block == (256,)
            self.launches += 1
            held = [a._held if isinstance(a, Array) else a for a in arguments]
            assert all(a.flags.c_contiguous for a in held if isinstance(a, np.ndarray))
            call_c(source, name, held)

        return launch

    def _cuda(self) -> Any:
        module = self

        class MemoryPool:
            def __init__(self, allocator: Any = None) -> None:
                module.allocator = "managed" if allocator is module.cuda.malloc_managed else "device"

            def set_limit(self, size: int) -> None:
                self.limit = module.limit = size

            def malloc(self, size: int) -> None:
                raise AssertionError("the arrays of the stand-in are NumPy's")

            used_bytes = total_bytes = staticmethod(lambda: 0)
            free_all_blocks = staticmethod(lambda: None)

        class PinnedMemoryPool:
            def malloc(self, size: int) -> bytearray:
                module.staged += 1
                return bytearray(b"\xfb" * size)

            free_all_blocks = staticmethod(lambda: None)

        @contextlib.contextmanager
        def using_allocator(malloc: Any) -> Any:
            assert malloc.__self__.__class__ is MemoryPool
            self.inside += 1
            self.limit = malloc.__self__.limit
            try:
                yield
            finally:
                self.inside -= 1

        attributes = {"ManagedMemory": self._managed, "ConcurrentManagedAccess": self._managed}
        runtime = types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=lambda: self._devices,
            driverGetVersion=lambda: self._driver,
            memGetInfo=lambda: (self._free, 1 << 34),
            getDeviceProperties=lambda number: {"name": b"Simulated"},
        )
        return types.SimpleNamespace(
            MemoryPool=MemoryPool,
            PinnedMemoryPool=PinnedMemoryPool,
            malloc_managed=lambda size: None,
            using_allocator=using_allocator,
            memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            get_current_stream=lambda: types.SimpleNamespace(synchronize=lambda: None),
            Event=lambda: types.SimpleNamespace(record=lambda: None, synchronize=lambda: None),
            get_elapsed_time=lambda begin, end: 1.0,
            Device=lambda: types.SimpleNamespace(attributes=attributes, id=0),
            runtime=runtime,
        )


def _flat(values: Any) -> Any:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def special(module: StrictCupy) -> Any:
    """The module `cupyx.scipy.special`."""
    return types.SimpleNamespace(erf=lambda x: Array(module, scipy.special.erf(x._held)))
