"""What an attack is, and the means it has: raw system calls, and what the suite has laid out for it to reach."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

from openinfer.sandbox.attacks.numbers import NUMBERS

REFUSED = (errno.EPERM, errno.EACCES)
X86 = platform.machine() in ("x86_64", "AMD64")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclasses.dataclass(frozen=True)
class Stage:
    """What an attacker would like to reach: a folder, a private file in it, another process, the parent, a listening TCP port and UNIX
    socket, by number and name. `native` are calls compiled before the lock-down.
    """

    folder: str
    secret: str
    victim: int
    parent: int
    port: int
    address: str
    native: Mapping[str, Callable[[], int]]

    def path(self, name: str) -> bytes:
        """A path in the folder."""
        return os.path.join(self.folder, name).encode()


class AbsentError(Exception):
    """The attack does not exist on this architecture."""


@dataclasses.dataclass(frozen=True)
class Attack:
    """`run` returns where it got through, and raises `OSError` where it was refused. An error number outside `refusals` means that the
    kernel's own code was reached: that counts as through. `ends` of the worker count as stopped: signals, "hung", "memory".
    `judge`: "answer" where the parent must refuse the answer, "bind" where it must refuse the next binding, "contained" where any named
    error or answer will do; after each, the next worker must answer right.
    """

    name: str
    group: str
    run: Callable[[Stage], object]
    refusals: tuple[int, ...] = REFUSED
    ends: tuple[str, ...] = ("SIGSYS",)
    judge: str = ""


def call(name: str, *arguments: Any) -> int:
    """One raw system call by name. `OSError` where it fails, `AbsentError` where this architecture has no such call."""
    number = NUMBERS[name][0 if X86 else 1]
    if number < 0:
        raise AbsentError(name)
    return call_number(number, *arguments)


def call_number(number: int, *arguments: Any) -> int:
    """One raw system call by number."""
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *values))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def system_calls(group: str, entries: Mapping[str, Callable[[Stage], tuple[Any, ...]]]) -> list[Attack]:
    """Attacks of one system call each: name → its arguments, the call's name first."""

    def made(build: Callable[[Stage], tuple[Any, ...]]) -> Callable[[Stage], object]:
        return lambda stage: call(*build(stage))

    return [Attack(name, group, made(build)) for name, build in entries.items()]
