"""Generated source → an ELF object, through Numba. The only module of the engine, besides the kernels, that imports Numba."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from numba import _dynfunc, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from openinfer.kernels.cpu import frame, registry
from openinfer.kernels.cpu.barrier import barrier
from openinfer.kernels.cpu.pointers import i64


def compile_program(source: str, kernels: Sequence[tuple[str, dict[str, Hashable]]]) -> tuple[str, bytes]:
    """The symbol of the program and the object that holds it. The object allocates nothing and calls nothing but libm."""
    namespace: dict[str, Any] = {"__name__": "openinfer.generated", "i64": i64, "barrier": barrier}
    namespace.update({f"k{index}": _inlined(registry.make(kernel, dict(statics))) for index, (kernel, statics) in enumerate(kernels)})
    exec(compile(source, "<openinfer program>", "exec"), namespace)
    return _compile(namespace["program"], (types.intp,) * 3)


def compile_kernel(kernel: str, statics: dict[str, Hashable], sizes: Sequence[int | None]) -> tuple[str, bytes]:
    """The symbol of one kernel, `int32 f(i8* result, i8** error, int64 ...)`, and the object that holds it.

    `sizes` are its numbers between the addresses and the last two: an integer is compiled in, in the place of `None` is an argument.
    """
    function = registry.make(kernel, statics).py_func
    count = function.__code__.co_argcount
    given = [None] * (count - len(sizes) - 2) + [*sizes, None, None]
    if kernel in registry.INDEXED:
        passed = [f"a{index}" if size is None else str(size) for index, size in enumerate(given)]
        taken = [name for name, size in zip(passed, given, strict=True) if size is None]
        lines = [f"def form({', '.join(taken)}):", f"    if kernel({', '.join(passed)}):", "        raise IndexError", ""]
        namespace: dict[str, Any] = {"__name__": "openinfer.generated", "kernel": _inlined(registry.make(kernel, statics))}
        exec(compile("\n".join(lines), "<openinfer kernel>", "exec"), namespace)
        return _compile(namespace["form"], (types.intp,) * len(taken))
    # Numba makes a constant of an argument that was left to its default value: no other function is needed around the kernel.
    return _compile(function, tuple(types.intp if size is None else types.Omitted(size) for size in given))


def _inlined(kernel: Any) -> Any:
    """The same kernel under a dispatcher of its own: what is compiled to be inlined cannot be called from Python."""
    return type(kernel)(kernel.py_func, targetoptions=kernel.targetoptions)


class _Inlined(JITCodeLibrary):  # type: ignore[misc]  # Numba ships no types
    """A function whose callers link its module as the optimiser left it, and of which no machine code is made.

    Making machine code changes a module in place, and Numba links the changed one: addresses are split there so that the offset becomes the
    pointer and the pointer the index, which only the code generator may read. Where the caller's sizes make the offset zero, the optimiser
    sees a load through null, drops it and all that follows as unreachable, and the call never returns
    (docs/decisions/0011-linked-as-optimised.md).
    """

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage.name == "external":
                function.linkage = "linkonce_odr"  # as Numba has it: dropped where every call is inlined
        self._shared_module = self._final_module
        self._finalized = True


class _Outermost(JITCodeLibrary):  # type: ignore[misc]
    """The function that becomes an object. Its frame is aligned: what is inlined into it brings its spills, but not its alignment."""

    def add_ir_module(self, ir_module: Any) -> None:
        for function in ir_module.functions:
            if not function.is_declaration:
                frame.align(function)
        super().add_ir_module(ir_module)


@contextlib.contextmanager
def _only_inlined(target_context: Any) -> Iterator[None]:
    """Functions that are compiled inside because others call them are made to be inlined, and Python cannot call them; other users of Numba
    see no change.
    """
    codegen = target_context.codegen()
    with global_compiler_lock:
        codegen._library_class = _Inlined
        target_context.create_cpython_wrapper = lambda *_, **__: None
        target_context.get_executable = _without_address
        try:
            yield
        finally:
            del codegen._library_class, target_context.create_cpython_wrapper, target_context.get_executable


def _without_address(library: Any, description: Any, environment: Any) -> Any:
    """What Numba keeps of a function for callers in Python, which these functions have not."""
    name, module = description.qualname, description.lookup_module()
    return _dynfunc.make_function(module, name.split(".")[-1], f"inlined {name}", 0, environment, (library,))


def _compile(function: Any, parameters: tuple[Any, ...]) -> tuple[str, bytes]:
    flags = Flags()
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.nrt = False
    flags.error_model = "numpy"
    typing_context, target_context = cpu_target.typing_context, cpu_target.target_context
    typing_context.refresh()
    target_context.refresh()
    codegen = target_context.codegen()
    with _only_inlined(target_context), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = _Outermost(codegen, function.__qualname__)
        library.enable_object_caching()
        result = compile_extra(typing_context, target_context, function, parameters, types.void, flags, {}, library)
        _, _, (elf, _) = library.serialize_using_object_code()
    return result.fndesc.llvm_func_name, elf
