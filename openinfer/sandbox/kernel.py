"""The system calls that Python has no name for: prctl, Landlock, seccomp, unshare. Each raises `OSError` where the kernel refuses."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
NAMESPACES = {"ipc": 0x08000000, "uts": 0x04000000, "net": 0x40000000, "cgroup": 0x02000000}
_NEW_USER = 0x10000000
_X86 = platform.machine() in ("x86_64", "AMD64")
_SECCOMP, _CAPSET = (317, 126) if _X86 else (277, 91)
_CLOSE_RANGE = 436
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_SET_MODE_FILTER, _TSYNC = 1, 1
_CAPABILITIES_3 = 0x20080522
_LAST_CAPABILITY = 63

# Landlock's access rights by the ABI that brought them (linux/landlock.h).
_FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 5: 0xFFFF}
_WRITING = 0xFFFF & ~0b1101  # all but execute, read a file, read a folder
_TCP_RIGHTS, _TCP_ABI = 0x3, 4
_SCOPES, _SCOPE_ABI = 0x3, 6  # abstract UNIX sockets and signals stay inside the domain

_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("program", ctypes.c_void_p))


def system_call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """One system call: integers as longs, bytes and buffers by address. `OSError` where it fails."""
    result = _libc.syscall(ctypes.c_long(number), *[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments])
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def prctl(option: int, value: int = 0) -> None:
    """`prctl(option, value, 0, 0, 0)`."""
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` names for fresh ones."""
    if _libc.unshare(flags) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def leave_namespaces() -> list[str]:
    """Move into fresh namespaces, in a user namespace of their own where this user may not otherwise; the names of those it got."""
    if os.geteuid() != 0:
        try:
            unshare(_NEW_USER)
        except OSError:
            return []
    left = [] if os.geteuid() == 0 else ["user"]
    for name, flag in NAMESPACES.items():
        try:
            unshare(flag)
        except OSError:
            continue
        left.append(name)
    return left


def drop_bounding() -> None:
    """Empty the bounding set: no program that this process starts can gain a capability. Needs CAP_SETPCAP; nothing without it."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # the kernel knows no more of them, or the process may not
            break


def drop_capabilities() -> None:
    """Give up every capability that this process holds."""
    drop_bounding()
    system_call(_CAPSET, struct.pack("=II", _CAPABILITIES_3, 0), bytes(24))


def landlock_abi() -> int:
    """The version of the kernel's Landlock, 0 where it has none."""
    if sys.platform != "linux":
        return 0
    try:
        return system_call(_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def restrict_files(writable: Sequence[Path] | None) -> None:
    """Landlock: with None no file can be opened at all; with paths, files may be read and nothing written but below those. No TCP, no
    signal or abstract socket across the domain, where the kernel knows these rights. Needs no-new-privileges. `OSError` without Landlock.
    """
    abi = landlock_abi()
    rights = max((bits for since, bits in _FILE_RIGHTS.items() if since <= abi), default=0)
    if writable is not None:
        rights &= _WRITING
    attributes = struct.pack("=Q", rights)
    if abi >= _TCP_ABI:
        attributes += struct.pack("=Q", _TCP_RIGHTS)
    if abi >= _SCOPE_ABI:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = system_call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in writable or ():
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:  # nothing can be written there then, with or without a rule
                continue
            try:
                system_call(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, place), 0)
            finally:
                os.close(place)
        system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def close_all() -> None:
    """Close every descriptor of this process."""
    try:
        system_call(_CLOSE_RANGE, 0, 0xFFFFFFFF, 0)
    except OSError:  # before Linux 5.9
        os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def install_filter(program: bytes) -> None:
    """Seccomp: every thread of this process under a BPF program from now on. Needs no-new-privileges. `OSError` for an empty one."""
    if not program:
        raise OSError(errno.ENOTSUP, f"there is no filter for {platform.machine()}")
    code = ctypes.create_string_buffer(program, len(program))
    head = _Filter(len(program) // 8, ctypes.addressof(code))
    thread = system_call(_SECCOMP, _SET_MODE_FILTER, _TSYNC, ctypes.string_at(ctypes.addressof(head), ctypes.sizeof(head)))
    if thread:
        raise OSError(f"thread {thread} could not take the filter")
