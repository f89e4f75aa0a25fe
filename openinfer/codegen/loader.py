"""Machine code → callable addresses, without Numba: links ELF objects and LLVM IR text into this process.

One LLJIT serves the process and lives as long as it. Code stays mapped while its `Library` is referenced.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import dataclasses
import functools
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm

from openinfer.errors import CompiledCodeError
from openinfer.fork_lock import ForkLock
from openinfer.machine import host

_lock = ForkLock()
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True, eq=False)
class Library:
    """Linked code. `addresses` maps each requested symbol to its address; they are valid while this object lives. The code behind a symbol
    takes no more than `size_bytes`, the object's size.
    """

    addresses: Mapping[str, int]
    _tracker: Any = dataclasses.field(repr=False)
    size_bytes: int = 0

    def __getitem__(self, symbol: str) -> int:
        return self.addresses[symbol]


def load_object(elf: bytes, symbols: Sequence[str], imports: Mapping[str, int] | None = None) -> Library:
    """Link a relocatable object (as `emit_object` or Numba's `serialize_using_object_code` give it) and look `symbols` up.

    Undefined symbols resolve to `imports` (name → address) first, then to the process, which always has libc's and libm's.
    Safe from any thread. Raises `CompiledCodeError` where the object is not one, or a symbol is missing. An object is trusted once its
    tables are in order: check where it comes from (and its hash) before.
    """
    with _lock.held():
        lljit = _lljit()
        builder = llvm.JITLibraryBuilder().add_object_img(elf).add_current_process()
        for name, address in (imports or {}).items():
            builder.import_symbol(name, address)
        for symbol in symbols:
            builder.export_symbol(symbol)
        try:
            tracker = builder.link(lljit, f"openinfer{next(_numbers)}")
        except RuntimeError as error:
            wanted = ", ".join(symbols) if len(symbols) < 5 else f"{len(symbols)} symbols"
            raise CompiledCodeError(f"cannot link compiled code for {wanted}: {error}; clear the object cache and compile again") from None
    return Library({symbol: tracker[symbol] for symbol in symbols}, tracker, len(elf))


def load_ir(text: str, symbols: Sequence[str], imports: Mapping[str, int] | None = None) -> Library:
    """Compile LLVM IR text for this machine and link it; otherwise as `load_object`."""
    return load_object(compile_ir(text), symbols, imports)


def compile_ir(text: str) -> bytes:
    """LLVM IR text → a relocatable object for this machine (`machine.host()`: CPU and features), optimised at level 2.

    Raises `CompiledCodeError` where the text does not parse or verify.
    """
    with _lock.held():
        target = _target_machine()
        try:
            module = llvm.parse_assembly(text)
            module.verify()
        except RuntimeError as error:
            raise CompiledCodeError(f"cannot compile LLVM IR: {error}") from None
        module.triple = target.triple
        module.data_layout = str(target.target_data)
        builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
        builder.getModulePassManager().run(module, builder)
        elf: bytes = target.emit_object(module)
        return elf


@functools.cache
def _target_machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = host()
    # Position-independent: an imported address may be more than 2 GiB away from the code.
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="jitdefault", jit=True
    )


@functools.cache
def _lljit() -> Any:
    if sys.platform == "linux":
        # A Python that does not itself link libm has to offer it to the code.
        ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6", mode=ctypes.RTLD_GLOBAL)
    lljit = llvm.create_lljit_compiler(_target_machine())
    # Never freed: at interpreter exit a daemon thread may still be inside the code.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(lljit))
    return lljit
