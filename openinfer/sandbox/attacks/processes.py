"""Processes: starting them, ending them, reading them, steering them."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct

from openinfer.sandbox.attacks._base import REFUSED, Attack, Stage, call, system_calls

_CLONE_VFORK = 0x4000
_SEIZE = 0x4206  # ptrace: attach without stopping


def _clone(flags: int) -> int:
    child = call("clone", flags | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    return child


def _fork(stage: Stage) -> None:
    child = call("fork")
    if child == 0:
        os._exit(0)


def _bomb(stage: Stage) -> None:
    for _ in range(3):
        _clone(0)


def _vectors(address: int) -> bytes:
    return struct.pack("=QQ", address, 8)


def _steal_descriptor(stage: Stage) -> None:
    call("pidfd_getfd", call("pidfd_open", stage.victim, 0), 1, 0)


def _read_memory(stage: Stage) -> None:
    place = ctypes.create_string_buffer(8)
    call("process_vm_readv", stage.victim, _vectors(ctypes.addressof(place)), 1, _vectors(0x1000), 1, 0)


def _write_memory(stage: Stage) -> None:
    place = ctypes.create_string_buffer(8)
    call("process_vm_writev", stage.victim, _vectors(ctypes.addressof(place)), 1, _vectors(0x1000), 1, 0)


ATTACKS = [
    Attack("fork", "processes", _fork),
    Attack("clone a process", "processes", lambda stage: _clone(0)),
    Attack("clone as vfork does", "processes", lambda stage: _clone(_CLONE_VFORK)),
    Attack("bring the machine down by forking", "processes", _bomb, (*REFUSED, errno.EAGAIN)),
    Attack("take a descriptor out of another process", "processes", _steal_descriptor),
    Attack("read another process's memory", "processes", _read_memory),
    Attack("write another process's memory", "processes", _write_memory),
    *system_calls(
        "processes",
        {
            "execute a program": lambda s: ("execve", s.path("no program"), None, None),
            "execute a descriptor": lambda s: ("execveat", -1, s.path("no program"), None, None, 0),
            "start a thread by clone3": lambda s: ("clone3", bytes(88), 1),
            "signal another process": lambda s: ("kill", s.victim, 0),
            "signal a group of processes": lambda s: ("kill", 0, 0),
            "signal the parent": lambda s: ("kill", s.parent, 0),
            "signal a thread": lambda s: ("tgkill", s.victim, s.victim, 0),
            "signal a thread by tkill": lambda s: ("tkill", s.victim, 0),
            "queue a signal": lambda s: ("rt_sigqueueinfo", s.victim, 0, bytes(128)),
            "open another process": lambda s: ("pidfd_open", s.victim, 0),
            "signal through a descriptor": lambda s: ("pidfd_send_signal", 3, 0, None, 0),
            "trace another process": lambda s: ("ptrace", _SEIZE, s.victim, 0, 0),
            "ask to be traced": lambda s: ("ptrace", 0, 0, 0, 0),
            "compare two processes": lambda s: ("kcmp", s.victim, s.victim, 0, 0, 0),
            "limit another process": lambda s: ("prlimit64", s.victim, 7, None, ctypes.create_string_buffer(16)),
            "read another thread's locks": lambda s: (
                "get_robust_list",
                s.victim,
                ctypes.create_string_buffer(8),
                ctypes.create_string_buffer(8),
            ),
            "move another process to a core": lambda s: ("sched_setaffinity", s.victim, 8, b"\xff" * 8),
            "slow another process down": lambda s: ("setpriority", 0, s.victim, 1),
            "move another process's pages": lambda s: ("move_pages", s.victim, 0, None, None, None, 0),
            "advise another process's memory": lambda s: ("process_madvise", 3, bytes(16), 1, 20, 0),
            "wait for another process": lambda s: ("wait4", -1, None, 1, None),
        },
    ),
]
