"""Generated source → an ELF object, through Numba. The only module of the engine, besides the kernels, that imports Numba."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

from numba import types
from numba.core.compiler import Flags, compile_extra
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
    flags = Flags()
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.nrt = False
    flags.error_model = "numpy"
    typing_context, target_context = cpu_target.typing_context, cpu_target.target_context
    typing_context.refresh()
    target_context.refresh()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = compile_extra(typing_context, target_context, namespace["program"], (types.intp,) * 3, types.void, flags, {})
    _, _, (elf, _) = result.library.serialize_using_object_code()
    return result.fndesc.llvm_func_name, elf
