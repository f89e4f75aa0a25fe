"""The kernel's own counters of this process, through perf_event_open: cycles, instructions and cache misses where the processor shows them,
context switches, migrations and page faults where the kernel does. Counting costs nothing on the path.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct

SYSCALL = {"x86_64": 298, "aarch64": 241}
HARDWARE, SOFTWARE = 0, 1
# Name → type and number, from linux/perf_event.h.
EVENTS = {
    "cycles": (HARDWARE, 0),
    "instructions": (HARDWARE, 1),
    "cache references": (HARDWARE, 2),
    "cache misses": (HARDWARE, 3),
    "branch misses": (HARDWARE, 5),
    "page faults": (SOFTWARE, 2),
    "context switches": (SOFTWARE, 3),
    "migrations": (SOFTWARE, 4),
}
ATTRIBUTE_BYTES = 112
INHERIT, EXCLUDE_HV = 1 << 1, 1 << 6


class Counters:
    """Counts of this thread, and of threads that it starts meanwhile, between `start` and `stop`. Events that there are none of are
    absent; `hardware` tells whether the processor shows its counters.
    """

    def __init__(self) -> None:
        self._files: dict[str, int] = {}

    @property
    def hardware(self) -> bool:
        """Whether cycles and cache misses can be counted here."""
        return "cache misses" in self._files

    def start(self) -> None:
        """Begin to count."""
        number = SYSCALL.get(platform.machine())
        if number is None or platform.system() != "Linux":
            return
        call = ctypes.CDLL(None, use_errno=True).syscall
        for name, (kind, event) in EVENTS.items():
            attribute = struct.pack("<IIQQQQQ", kind, ATTRIBUTE_BYTES, event, 0, 0, 0, INHERIT | EXCLUDE_HV).ljust(ATTRIBUTE_BYTES, b"\0")
            file = call(ctypes.c_long(number), attribute, ctypes.c_int(0), ctypes.c_int(-1), ctypes.c_int(-1), ctypes.c_ulong(8))
            if file >= 0:
                self._files[name] = file

    def stop(self) -> dict[str, int]:
        """Event → count; nothing where the kernel shows none."""
        found = {}
        for name, file in self._files.items():
            with contextlib.suppress(OSError):
                found[name] = struct.unpack("<q", os.read(file, 8))[0]
            os.close(file)
        self._files = {}
        return found
