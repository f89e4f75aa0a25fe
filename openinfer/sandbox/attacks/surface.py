"""The kernel's surface: calls whose code is large, rarely used, or for administrators."""

from __future__ import annotations

import ctypes

from openinfer.sandbox.attacks._base import X86, AbsentError, Attack, Stage, call_number, system_calls

_NAMESPACES = 0x10000000 | 0x20000  # user, mount
_X32 = 0x40000000


def _by_32_bit_entry(stage: Stage) -> None:
    entry = stage.native.get("int80")
    if entry is None:
        raise AbsentError("there is no 32-bit entry")
    number = entry()
    if number <= 0:
        raise OSError(-number, "refused")


def _by_x32(stage: Stage) -> None:
    if not X86:
        raise AbsentError("there is no x32")
    call_number(_X32 | 39)


ATTACKS = [
    Attack("enter by the 32-bit gate (int 0x80)", "kernel", _by_32_bit_entry, ends=("SIGSYS", "SIGSEGV")),
    Attack("use x32's numbers", "kernel", _by_x32),
    *system_calls(
        "kernel",
        {
            "set up io_uring": lambda s: ("io_uring_setup", 1, ctypes.create_string_buffer(120)),
            "handle page faults (userfaultfd)": lambda s: ("userfaultfd", 1),
            "load a BPF program": lambda s: ("bpf", 5, bytes(128), 128),
            "measure with perf events": lambda s: ("perf_event_open", None, 0, -1, -1, 0),
            "read the kernel's keys": lambda s: ("keyctl", 0, -3, 1, 0, 0),
            "add a key": lambda s: ("add_key", b"user", b"x", b"x", 1, -3),
            "request a key": lambda s: ("request_key", b"user", b"x", None, 0),
            "load another kernel": lambda s: ("kexec_load", 0, 0, None, 0),
            "load another kernel from a file": lambda s: ("kexec_file_load", -1, -1, 0, None, 0),
            "mount a file system": lambda s: ("mount", b"none", s.folder.encode(), b"no such kind", 0, None),
            "unmount a file system": lambda s: ("umount2", s.folder.encode(), 0),
            "open a mount": lambda s: ("open_tree", -100, b"/", 0),
            "configure a mount": lambda s: ("fsopen", b"tmpfs", 0),
            "change the root": lambda s: ("chroot", s.folder.encode()),
            "swap the root": lambda s: ("pivot_root", s.folder.encode(), s.folder.encode()),
            "enter a namespace": lambda s: ("setns", 3, 0),
            "make namespaces": lambda s: ("unshare", _NAMESPACES),
            "make readable memory executable (personality)": lambda s: ("personality", 0x0400000),
            "read the kernel's log": lambda s: ("syslog", 10, None, 0),
            "ask for quotas": lambda s: ("quotactl", 0x800001 << 8, b"/dev/none", 0, None),
            "change the segment table": lambda s: ("modify_ldt", 0, ctypes.create_string_buffer(16), 16),
            "load a module": lambda s: ("init_module", bytes(4), 4, b""),
            "load a module from a file": lambda s: ("finit_module", -1, b"", 0),
            "remove a module": lambda s: ("delete_module", b"no such module", 0x800),
            "restart the machine": lambda s: ("reboot", 0, 0, 0, None),
            "add swap": lambda s: ("swapon", s.path("no swap"), 0),
            "remove swap": lambda s: ("swapoff", s.path("no swap")),
            "account processes": lambda s: ("acct", s.path("no file")),
            "get the ports of devices": lambda s: ("iopl", 3),
            "get one port of a device": lambda s: ("ioperm", 0x80, 1, 1),
            "rename the machine": lambda s: ("sethostname", None, 1),
            "make another Landlock domain": lambda s: ("landlock_create_ruleset", None, 0, 1),
            "stop every core for a barrier": lambda s: ("membarrier", 0, 0, 0),
            "set the clock": lambda s: ("clock_settime", 0, None),
            "set the time zone": lambda s: ("settimeofday", None, None),
            "tune the clock": lambda s: ("adjtimex", None),
        },
    ),
]
