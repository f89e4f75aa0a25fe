"""Files: reading, writing, creating, watching; by path, by handle, by descriptor, through /proc."""

from __future__ import annotations

import ctypes

from openinfer.sandbox.attacks._base import Attack, Stage, call, system_calls

_HERE = -100  # AT_FDCWD
_CREATE = 0o101  # O_CREAT | O_WRONLY


def _inherited(stage: Stage) -> None:
    """Any descriptor that the parent or the loader left open."""
    refused: OSError | None = None
    state = ctypes.create_string_buffer(256)
    for descriptor in range(256):
        try:
            call("fstat", descriptor, state)
        except OSError as error:
            refused = error
        else:
            return
    if refused is not None:
        raise refused


ATTACKS = [
    *system_calls(
        "files",
        {
            "read a private file": lambda s: ("openat", _HERE, s.secret.encode(), 0, 0),
            "read a private file by the old open": lambda s: ("open", s.secret.encode(), 0, 0),
            "read a private file by openat2": lambda s: ("openat2", _HERE, s.secret.encode(), bytes(24), 24),
            "read /etc/passwd": lambda s: ("openat", _HERE, b"/etc/passwd", 0, 0),
            "create a file": lambda s: ("openat", _HERE, s.path("made"), _CREATE, 0o600),
            "create a file by creat": lambda s: ("creat", s.path("made by creat"), 0o600),
            "rename a file": lambda s: ("renameat2", _HERE, s.path("rename"), _HERE, s.path("renamed"), 0),
            "remove a file": lambda s: ("unlinkat", _HERE, s.path("remove"), 0),
            "make a folder": lambda s: ("mkdirat", _HERE, s.path("folder"), 0o700),
            "make a symbolic link": lambda s: ("symlinkat", b"/etc", _HERE, s.path("link")),
            "make a hard link": lambda s: ("linkat", _HERE, s.path("linked"), _HERE, s.path("hard link"), 0),
            "change a file's mode": lambda s: ("fchmodat", _HERE, s.path("mode"), 0o666, 0),
            "change a file's owner": lambda s: ("fchownat", _HERE, s.path("mode"), -1, -1, 0),
            "truncate a file": lambda s: ("truncate", s.path("truncate"), 0),
            "look a file up": lambda s: ("statx", _HERE, s.secret.encode(), 0, 0x7FF, ctypes.create_string_buffer(512)),
            "read a link of /proc": lambda s: ("readlinkat", _HERE, b"/proc/self/exe", ctypes.create_string_buffer(256), 256),
            "make a named pipe": lambda s: ("mknodat", _HERE, s.path("pipe"), 0o010600, 0),
            "change the folder": lambda s: ("chdir", b"/"),
            "change a file's times": lambda s: ("utimensat", _HERE, s.path("mode"), None, 0),
            "set an extended attribute": lambda s: ("setxattr", s.path("mode"), b"user.x", b"x", 1, 0),
            "open /proc/self/mem": lambda s: ("openat", _HERE, b"/proc/self/mem", 2, 0),
            "read another process's environment": lambda s: ("openat", _HERE, f"/proc/{s.victim}/environ".encode(), 0, 0),
            "open a disk": lambda s: ("openat", _HERE, b"/dev/mem", 0, 0),
            "make a memory file": lambda s: ("memfd_create", b"x", 0),
            "make secret memory": lambda s: ("memfd_secret", 0),
            "watch the file system (fanotify)": lambda s: ("fanotify_init", 0, 0),
            "watch files (inotify)": lambda s: ("inotify_init1", 0),
            "name a file by handle": lambda s: (
                "name_to_handle_at",
                _HERE,
                b"/etc",
                ctypes.create_string_buffer(b"\x80\0\0\0", 256),
                ctypes.byref(ctypes.c_int()),
                0,
            ),
            "open a file by handle": lambda s: ("open_by_handle_at", _HERE, ctypes.create_string_buffer(b"\x08\0\0\0", 64), 0),
            "ask for a file system's state": lambda s: ("statfs", b"/", ctypes.create_string_buffer(256)),
            "make a pipe": lambda s: ("pipe2", ctypes.create_string_buffer(8), 0),
            "make an event descriptor": lambda s: ("eventfd2", 0, 0),
            "make an epoll descriptor": lambda s: ("epoll_create1", 0),
            "make a signal descriptor": lambda s: ("signalfd4", -1, bytes(8), 8, 0),
        },
    ),
    Attack("use an inherited descriptor", "files", _inherited),
]
