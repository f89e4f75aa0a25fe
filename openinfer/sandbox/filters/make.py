"""Writes the precompiled filters `ROLE-ARCHITECTURE.bpf`, with libseccomp's own compiler: `python -m openinfer.sandbox.filters.make`.

Needs `libseccomp.so.2` (Debian: libseccomp2), which nothing else of OpenInfer does. The sets of calls, and why each is there:

- `worker`: a process that has only memory. It computes, waits on futexes, and ends. What an interpreter may try in good faith (open a file
  for a traceback, start a thread, import late) fails with EPERM; everything else kills the process: the first attempt is the last.
- `loader`: a process that reads and compiles a model. It needs most calls; those of which no loader has use fail with EPERM.
- `template`: what the worker needs, and what it takes to fork one, to lock it and to answer on an open socket. The rest fails with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_BAD_ARCHITECTURE, _OPTIMIZE = 2, 8  # attributes of a filter
_EQUAL, _MASKED = 4, 7  # comparisons

_OTHERWISE = {"loader": _ALLOW, "template": _ERRNO | errno.EPERM, "worker": _KILL}
ROLES = tuple(_OTHERWISE)

PROT_EXEC, MAP_ANONYMOUS = 4, 0x20
_FUTEX_FLAGS = 128 | 256  # private, real-time clock
_FUTEX_OPERATIONS = (0, 1, 9, 10)  # wait, wake, and both with a bit set
_NEW_NAMESPACES = 0x7E020080

Condition = tuple[int, int, int, int]  # argument, comparison, value (the mask where masked), value where masked


def _clear(argument: int, mask: int) -> Condition:
    return (argument, _MASKED, mask, 0)


def _set(argument: int, mask: int) -> Condition:
    return (argument, _MASKED, mask, mask)


# In the order of use: the first is found first.
_COMPUTE: list[tuple[str, Sequence[Condition]]] = [
    *(("futex", [(1, _MASKED, 0xFFFFFFFF ^ _FUTEX_FLAGS, operation)]) for operation in _FUTEX_OPERATIONS),
    ("clock_gettime", ()),
    ("sched_yield", ()),
    ("mmap", (_clear(2, PROT_EXEC), _set(3, MAP_ANONYMOUS))),
    ("munmap", ()),
    ("mprotect", (_clear(2, PROT_EXEC),)),
    ("mremap", ()),
    ("brk", ()),
    *(("madvise", [(2, _EQUAL, advice, 0)]) for advice in (4, 8, 14, 15, 16)),  # don't need, free, (no) huge pages, don't dump
    ("clock_nanosleep", ()),
    ("restart_syscall", ()),
    ("rt_sigreturn", ()),
    ("exit", ()),
    ("exit_group", ()),
]
_HARMLESS_ATTEMPTS: list[tuple[str, Sequence[Condition]]] = [
    ("mmap", (_set(2, PROT_EXEC),)),
    ("mmap", (_clear(2, PROT_EXEC), _clear(3, MAP_ANONYMOUS))),
    ("mprotect", (_set(2, PROT_EXEC),)),
    *(
        (name, ())
        for name in (
            "open", "openat", "stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink",
            "getcwd", "readlinkat", "getdents64", "read", "write", "writev", "lseek", "close", "ioctl", "fcntl", "getrandom", "uname",
            "sysinfo", "getpid", "gettid", "getuid", "sched_getaffinity", "prlimit64", "getrusage",
        )
    ),
]  # fmt: skip
_FORKING: list[tuple[str, Sequence[Condition]]] = [
    ("recvfrom", ()),
    ("sendto", ()),
    ("read", ()),
    ("write", ()),
    ("poll", ()),
    ("ppoll", ()),
    ("close", ()),
    ("close_range", ()),
    ("fork", ()),
    # A fork, or a thread of the same process; never with a namespace of its own.
    ("clone", (_clear(0, _NEW_NAMESPACES),)),
    ("wait4", ()),
    *((name, ()) for name in ("getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid")),
    *((name, ()) for name in ("set_robust_list", "set_tid_address", "rseq", "sigaltstack", "rt_sigprocmask", "rt_sigaction")),
    *(("prctl", [(0, _EQUAL, option, 0)]) for option in (1, 3, 4, 22, 38, 39)),  # death signal, dumpable, seccomp, no new privileges
    ("seccomp", ()),
    ("prlimit64", [(0, _EQUAL, 0, 0)]),
    ("getrandom", ()),
    ("sched_getaffinity", ()),
    ("sched_setaffinity", ()),
    ("fstat", ()),
    ("lseek", ()),
]


# Of no use to whoever reads a model and compiles it. Namespaces and identity stay, for the template gives them up later.
_USELESS_TO_LOADERS = (
    "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "execve", "execveat", "fork", "vfork", "ptrace",
    "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp", "kill", "tkill", "rt_sigqueueinfo",
    "rt_tgsigqueueinfo", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "io_uring_setup", "io_uring_enter", "io_uring_register",
    "userfaultfd", "bpf", "perf_event_open", "keyctl", "add_key", "request_key", "kexec_load", "kexec_file_load", "init_module",
    "finit_module", "delete_module", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount",
    "fspick", "mount_setattr", "setns", "swapon", "swapoff", "reboot", "acct", "quotactl", "syslog", "iopl", "ioperm", "modify_ldt",
    "personality", "sethostname", "setdomainname", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "fanotify_init",
    "open_by_handle_at", "name_to_handle_at", "shmget", "semget", "msgget", "mq_open", "chmod", "fchmod", "fchmodat", "chown", "fchown",
    "lchown", "fchownat", "utimensat", "utime", "utimes", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr",
    "fremovexattr", "mknod", "mknodat", "vhangup", "remap_file_pages",
)  # fmt: skip


class _Comparison(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("operation", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def available() -> bool:
    """Whether libseccomp can be loaded here."""
    try:
        _library()
    except OSError:
        return False
    return True


def version() -> str:
    """libseccomp's version, "2.5.4"; another one may order a program differently."""

    class Version(ctypes.Structure):
        _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))

    library = _library()
    library.seccomp_version.restype = ctypes.POINTER(Version)
    found = library.seccomp_version().contents
    return f"{found.major}.{found.minor}.{found.micro}"


def program(role: str, architecture: str) -> bytes:
    """The BPF program of one of `ROLES` for one architecture. `OSError` where libseccomp refuses a rule."""
    library = _library()
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_OTHERWISE[role])))
    try:
        _check(library.seccomp_attr_set(context, _BAD_ARCHITECTURE, ctypes.c_uint32(_KILL)), "bad architecture")
        token = ctypes.c_uint32(ARCHITECTURES[architecture])
        if library.seccomp_arch_exist(context, token):
            _check(library.seccomp_arch_add(context, token), architecture)
            _check(library.seccomp_arch_remove(context, ctypes.c_uint32(library.seccomp_arch_native())), "native architecture")
        for name, conditions in {"loader": [], "worker": _COMPUTE, "template": [*_COMPUTE, *_FORKING]}[role]:
            _rule(library, context, token, _ALLOW, name, conditions)
        for name in _USELESS_TO_LOADERS if role == "loader" else ():
            _rule(library, context, token, _ERRNO | errno.EPERM, name, ())
        if role == "worker":
            for name, conditions in _HARMLESS_ATTEMPTS:
                _rule(library, context, token, _ERRNO | errno.EPERM, name, conditions)
        if role == "template":
            # glibc then uses clone, whose flags a filter can see.
            _rule(library, context, token, _ERRNO | errno.ENOSYS, "clone3", ())
        with tempfile.TemporaryFile() as file:
            _check(library.seccomp_export_bpf(context, file.fileno()), "export")
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def _rule(library: Any, context: Any, token: Any, action: int, name: str, conditions: Sequence[Condition]) -> None:
    if library.seccomp_syscall_resolve_name_arch(token, name.encode()) < 0:
        return  # this architecture has no such call: nothing to allow
    number = library.seccomp_syscall_resolve_name(name.encode())
    array = (_Comparison * len(conditions))(*[_Comparison(*condition) for condition in conditions])
    _check(library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(conditions), array), name)


def _check(code: int, what: str) -> None:
    if code < 0:
        raise OSError(-code, f"libseccomp refuses {what}: {os.strerror(-code)}")


def _library() -> Any:
    return ctypes.CDLL("libseccomp.so.2", use_errno=True)


def main() -> None:
    """Write every filter beside this file."""
    for role in ROLES:
        for architecture in ARCHITECTURES:
            path = Path(__file__).parent / f"{role}-{architecture}.bpf"
            path.write_bytes(program(role, architecture))
            print(f"{path.name}: {path.stat().st_size // 8} instructions")
    (Path(__file__).parent / "libseccomp.txt").write_text(version() + "\n")


if __name__ == "__main__":
    main()
