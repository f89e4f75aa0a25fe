"""Memory: code that is made at run time, mappings of files and devices, more than the limits allow."""

from __future__ import annotations

import ctypes
import errno
import mmap

from openinfer.sandbox.attacks._base import REFUSED, Attack, Stage, call, system_calls

_READ, _WRITE, _EXECUTE = 1, 2, 4
_SHARED, _PRIVATE, _ANONYMOUS, _GROWS_DOWN = 1, 2, 0x20, 0x100
_PAGE = mmap.PAGESIZE
_FULL = (*REFUSED, errno.ENOMEM, errno.EAGAIN)


def _map(protection: int, size: int = _PAGE, flags: int = _PRIVATE | _ANONYMOUS, descriptor: int = -1) -> int:
    return call("mmap", 0, size, protection, flags, descriptor, 0)


def _write_then_execute(stage: Stage) -> None:
    place = _map(_READ | _WRITE)
    ctypes.memset(place, 0xC3, 16)
    call("mprotect", place, _PAGE, _READ | _EXECUTE)


def _by_key(stage: Stage) -> None:
    call("pkey_mprotect", _map(_READ | _WRITE), _PAGE, _READ | _EXECUTE, -1)


def _patch_code(stage: Stage) -> None:
    """Make a page of running code writable, and executable again."""
    address = ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p).value or 0
    page = address - address % _PAGE
    call("mprotect", page, _PAGE, _READ | _WRITE | _EXECUTE)
    call("mprotect", page, _PAGE, _READ | _EXECUTE)


def _remap(stage: Stage) -> None:
    call("remap_file_pages", _map(_READ | _WRITE, flags=_SHARED | _ANONYMOUS), _PAGE, 0, 0, 0)


def _map_much(stage: Stage) -> None:
    _map(_READ | _WRITE, 64 << 30)


def _fill_memory(stage: Stage) -> None:
    """Touch twice what the limit allows."""
    for _ in range(64):
        place = _map(_READ | _WRITE, 16 << 20)
        ctypes.memset(place, 1, 16 << 20)


def _grow_heap(stage: Stage) -> None:
    now = call("brk", 0)
    if call("brk", now + (64 << 30)) == now:
        raise MemoryError("brk")


def _stack_overflow(stage: Stage) -> None:
    here = ctypes.c_char()
    ctypes.memset(ctypes.addressof(here) - (64 << 20), 0, 1)
    nested: list[object] = []
    for _ in range(200_000):
        nested = [nested]
    nested_text = repr(nested)
    del nested_text


def _map_file(stage: Stage) -> None:
    for descriptor in range(3, 64):
        try:
            _map(_READ, flags=_SHARED, descriptor=descriptor)
        except OSError as error:
            refused = error
            if error.errno in REFUSED:
                continue
        else:
            return
    raise refused


ATTACKS = [
    Attack("map writable code", "memory", lambda stage: _map(_READ | _WRITE | _EXECUTE)),
    Attack("map code", "memory", lambda stage: _map(_READ | _EXECUTE)),
    Attack("write code, then make it executable", "memory", _write_then_execute),
    Attack("write code, then make it executable by key", "memory", _by_key),
    Attack("patch code that runs", "memory", _patch_code),
    Attack("map a descriptor", "memory", _map_file),
    Attack("map a descriptor as code", "memory", lambda stage: _map(_READ | _EXECUTE, flags=_PRIVATE, descriptor=3)),
    Attack("remap pages", "memory", _remap),
    Attack("map 64 GiB", "memory", _map_much, _FULL),
    Attack("fill the memory", "memory", _fill_memory, _FULL, ("SIGSYS", "memory")),
    Attack("grow the heap by 64 GiB", "memory", _grow_heap, _FULL, ("SIGSYS", "memory")),
    *system_calls(
        "memory",
        {
            "make a protection key": lambda s: ("pkey_alloc", 0, 0),
            "share memory (System V)": lambda s: ("shmget", 0, _PAGE, 0o1600),
            "share a semaphore (System V)": lambda s: ("semget", 0, 1, 0o1600),
            "open a message queue (System V)": lambda s: ("msgget", 0, 0o1600),
            "open a message queue (POSIX)": lambda s: ("mq_open", b"x", 0o100, 0o600, None),
            "lock all memory": lambda s: ("mlockall", 1),
            "place memory on a node": lambda s: ("set_mempolicy", 0, None, 0),
        },
    ),
    Attack("overflow the stack", "memory", _stack_overflow, ends=("SIGSEGV", "SIGBUS"), judge="contained"),
]
