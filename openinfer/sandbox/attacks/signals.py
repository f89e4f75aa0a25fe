"""Time and signals: timers that fire without end, handlers that refuse to die."""

from __future__ import annotations

import ctypes
import struct

from openinfer.sandbox.attacks._base import system_calls

ATTACKS = system_calls(
    "signals",
    {
        "make a timer": lambda s: ("timer_create", 1, None, ctypes.create_string_buffer(8)),
        "start a storm of signals": lambda s: ("setitimer", 0, struct.pack("=4q", 0, 0, 0, 0), None),
        "set an alarm": lambda s: ("alarm", 0),
        "make a timer's descriptor": lambda s: ("timerfd_create", 1, 0),
        "handle a signal": lambda s: ("rt_sigaction", 10, None, ctypes.create_string_buffer(152), 8),
        "block signals": lambda s: ("rt_sigprocmask", 0, bytes(8), None, 8),
        "change the signal stack": lambda s: ("sigaltstack", None, ctypes.create_string_buffer(24)),
        "drain the machine's randomness": lambda s: ("getrandom", ctypes.create_string_buffer(16), 16, 0),
    },
)
