"""Generated source → an ELF object, through Numba. The only module of the engine, besides the kernels, that imports Numba."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from numba import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from openinfer.kernels.cpu import registry
from openinfer.kernels.cpu.barrier import barrier
from openinfer.kernels.cpu.frame import aligned_frame
from openinfer.kernels.cpu.pointers import i64


def compile_program(source: str, kernels: Sequence[tuple[str, dict[str, Hashable]]]) -> tuple[str, bytes]:
    """The symbol of the program and the object that holds it. The object allocates nothing and calls nothing but libm."""
    namespace: dict[str, Any] = {"__name__": "openinfer.generated", "i64": i64, "aligned_frame": aligned_frame, "barrier": barrier}
    namespace.update({f"k{index}": registry.make(kernel, dict(statics)) for index, (kernel, statics) in enumerate(kernels)})
    exec(compile(source, "<openinfer program>", "exec"), namespace)
    return _compile(namespace["program"], 3)


def compile_kernel(kernel: str, statics: dict[str, Hashable], sizes: Sequence[int | None]) -> tuple[str, bytes]:
    """The symbol of one kernel, `int32 f(i8* result, i8** error, int64 ...)`, and the object that holds it.

    `sizes` are its numbers between the addresses and the last two: an integer is compiled in, in the place of `None` is an argument.
    """
    made = registry.make(kernel, statics)
    count = made.py_func.__code__.co_argcount
    given = [None] * (count - len(sizes) - 2) + [*sizes, None, None]
    passed = [f"a{index}" if size is None else str(size) for index, size in enumerate(given)]
    taken = [name for name, size in zip(passed, given, strict=True) if size is None]
    call = f"kernel({', '.join(passed)})"
    body = [f"    if {call}:", "        raise IndexError"] if kernel in registry.INDEXED else [f"    {call}"]
    lines = [f"def form({', '.join(taken)}):", "    aligned_frame()", *body, ""]
    namespace: dict[str, Any] = {"__name__": "openinfer.generated", "kernel": made, "aligned_frame": aligned_frame}
    exec(compile("\n".join(lines), "<openinfer kernel>", "exec"), namespace)
    return _compile(namespace["form"], len(taken))


class _AsOptimized(JITCodeLibrary):  # type: ignore[misc]  # Numba ships no types
    """A compiled function whose callers link its module as the optimiser left it.

    Making machine code changes a module in place, and Numba links the changed one: addresses are split there so that the offset becomes the
    pointer and the pointer the index, which only the code generator may read. Where the caller's sizes make the offset zero, the optimiser
    sees a load through null, drops it and all that follows as unreachable, and the call never returns
    (docs/decisions/0011-linked-as-optimised.md).
    """

    def _finalize_final_module(self) -> None:
        optimised = self._final_module.clone()
        for function in optimised.functions:
            if not function.is_declaration and function.linkage.name == "external":
                function.linkage = "linkonce_odr"  # as Numba has it: dropped where every call is inlined
        self._shared_module = optimised
        super()._finalize_final_module()


@contextlib.contextmanager
def _linked_as_optimised(codegen: Any) -> Iterator[None]:
    """Functions compiled inside are linked into their callers as the optimiser left them; other users of Numba see no change."""
    with global_compiler_lock:
        codegen._library_class = _AsOptimized
        try:
            yield
        finally:
            del codegen._library_class


def _compile(function: Any, parameters: int) -> tuple[str, bytes]:
    flags = Flags()
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.nrt = False
    flags.error_model = "numpy"
    typing_context, target_context = cpu_target.typing_context, cpu_target.target_context
    typing_context.refresh()
    target_context.refresh()
    with _linked_as_optimised(target_context.codegen()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = compile_extra(typing_context, target_context, function, (types.intp,) * parameters, types.void, flags, {})
    _, _, (elf, _) = result.library.serialize_using_object_code()
    return result.fndesc.llvm_func_name, elf
