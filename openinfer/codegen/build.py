"""A program's code, linked into this process: from the object cache, or compiled, in the form that its number of kernels asks for."""

from __future__ import annotations

import dataclasses
import weakref

from openinfer.codegen import linked, object_cache
from openinfer.codegen.loader import Library, compile_ir, load_object
from openinfer.codegen.program import Literals, Skeleton, source
from openinfer.errors import SealedError


@dataclasses.dataclass(frozen=True)
class Built:
    """A program's address and readable text; `cached` where nothing had to be compiled. The code is mapped while this object lives."""

    entry: int
    text: str
    cached: bool
    libraries: tuple[Library, ...]


# Kernels that are linked now, by their name in the object cache: models that name the same kernel share its code.
_kernels: weakref.WeakValueDictionary[str, Library] = weakref.WeakValueDictionary()


_sealed = False


def seal() -> None:
    """From now on `build` raises `SealedError`: this process and its children make no more code."""
    global _sealed
    _sealed = True


def build(shape: Skeleton, fixed: Literals, threads: int, timed: bool = False) -> Built:
    """The program of a skeleton with these literals; `threads` above 1 adds the parallel body, `timed` stamps between its steps. Raises
    `CompiledCodeError`, and `SealedError` after `seal`.
    """
    if _sealed:
        raise SealedError(
            "these shapes need code that is not compiled, and this process may not make any; compile them when the model loads"
        )
    return _build_linked(shape, fixed, threads, timed) if timed or linked.is_linked(shape, fixed) else _build_inlined(shape, fixed, threads)


def _build_inlined(shape: Skeleton, fixed: Literals, threads: int) -> Built:
    text, kernels = source(shape, fixed, threads)
    name = object_cache.key(text, kernels)
    stored = object_cache.load(name)
    if stored is None:
        from openinfer.codegen.compile import compile_program

        symbol, elf = compile_program(text, kernels)
        object_cache.store(name, symbol, elf)
    else:
        symbol, elf = stored
    library = load_object(elf, (symbol,))
    return Built(library[symbol], text, stored is not None, (library,))


def _build_linked(shape: Skeleton, fixed: Literals, threads: int, timed: bool) -> Built:
    text, kernels = linked.text(shape, fixed, threads, timed)
    name = object_cache.key(text, ())
    stored = object_cache.load(name)
    elf = compile_ir(text) if stored is None else stored[1]
    if stored is None:
        object_cache.store(name, linked.SYMBOL, elf)
    parts = [_kernel(kernel) for kernel in kernels]
    addresses = {f"k{index}": next(iter(library.addresses.values())) for index, (library, _) in enumerate(parts)}
    program = load_object(elf, (linked.SYMBOL,), addresses)
    cached = stored is not None and all(known for _, known in parts)
    return Built(program[linked.SYMBOL], text, cached, (program, *(library for library, _ in parts)))


def _kernel(kernel: linked.Kernel) -> tuple[Library, bool]:
    """The kernel's code and whether it was there without compiling."""
    name = object_cache.key(repr(kernel.sizes), [(kernel.name, dict(kernel.statics))])
    library = _kernels.get(name)
    if library is not None:
        return library, True
    stored = object_cache.load(name)
    if stored is None:
        from openinfer.codegen.compile import compile_kernel

        symbol, elf = compile_kernel(kernel.name, dict(kernel.statics), kernel.sizes)
        object_cache.store(name, symbol, elf)
    else:
        symbol, elf = stored
    library = _kernels[name] = load_object(elf, (symbol,))
    return library, stored is not None
