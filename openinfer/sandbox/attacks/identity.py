"""Identity and limits: another user, more rights, weaker walls."""

from __future__ import annotations

import ctypes
import struct

from openinfer.sandbox.attacks._base import system_calls

ATTACKS = system_calls(
    "identity",
    {
        "become root": lambda s: ("setuid", 0),
        "become root by all three names": lambda s: ("setresuid", 0, 0, 0),
        "join root's group": lambda s: ("setgid", 0),
        "join groups": lambda s: ("setgroups", 0, None),
        "regain capabilities": lambda s: ("capset", struct.pack("=II", 0x20080522, 0), struct.pack("=6I", *[0] * 6)),
        "become dumpable": lambda s: ("prctl", 4, 1, 0, 0, 0),
        "outlive the parent": lambda s: ("prctl", 1, 0, 0, 0, 0),
        "permit new privileges": lambda s: ("prctl", 38, 1, 0, 0, 0),
        "keep capabilities": lambda s: ("prctl", 8, 1, 0, 0, 0),
        "read the processor's clock by signal": lambda s: ("prctl", 26, 1, 0, 0, 0),
        "rename the process": lambda s: ("prctl", 15, b"kworker/0:1", 0, 0, 0),
        "take another filter": lambda s: ("seccomp", 2, 0, struct.pack("=I", 0x7FFF0000)),
        "raise a limit": lambda s: ("setrlimit", 7, struct.pack("=QQ", 4096, 4096)),
        "raise a limit by prlimit": lambda s: ("prlimit64", 0, 7, struct.pack("=QQ", 4096, 4096), None),
        "run in real time": lambda s: ("sched_setscheduler", 0, 1, struct.pack("=I", 1)),
        "raise the disk's priority": lambda s: ("ioprio_set", 1, 0, 4 << 13),
        "start a session": lambda s: ("setpgid", 0, 0),
        "change the mode of new files": lambda s: ("umask", 0),
        "set the thread's registers": lambda s: ("arch_prctl", 0x1003, ctypes.create_string_buffer(8)),
    },
)
