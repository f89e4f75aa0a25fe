"""What a process gives up, in order: first the template, once it has loaded the model, then each worker that it forks.

Every step that worked is named in the result; a step that the kernel does not offer is left out, or, in `strict` mode, an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from openinfer.errors import SandboxError
from openinfer.sandbox import kernel

NOBODY = 65534
_STACK_BYTES = 8 << 20
# Without these a sandbox is open; namespaces are only a second wall, and many systems do not permit them.
REQUIRED = ("no-new-privileges", "limits", "landlock", "seccomp")
_FILTERS = Path(__file__).parent / "filters"
_ARCHITECTURES = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def missing() -> list[str]:
    """The required protections that this system cannot give, by name; found without giving anything up."""
    lacks = []
    if sys.platform != "linux":
        return list(REQUIRED)
    if kernel.landlock_abi() < 1:
        lacks.append("landlock")
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    available = actions.read_text().split() if actions.exists() else []
    if "kill_process" not in available or not _filter_path("worker").exists():
        lacks.append("seccomp")
    return lacks


def before_loading(program: bytes, strict: bool, cache: Path) -> None:
    """While it reads the model a process may read files, and write none but compiled objects; it speaks to nobody and starts nothing.
    `SandboxError` as for `lock_template`.
    """
    given_up: list[str] = []
    _try("no-new-privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1), strict, given_up)
    _try("landlock", lambda: kernel.restrict_files([cache]), strict, given_up)
    _try("seccomp", lambda: kernel.install_filter(program), strict, given_up)


def lock_template(program: bytes, strict: bool, identity: str = "drop") -> list[str]:
    """The loaded process that workers are forked from: no files, no network, no capabilities, only the calls that forking and answering
    take. `identity="keep"` leaves a root process root, to test the other walls alone. Returns what it gave up.

    `SandboxError` in `strict` mode where a required protection is refused.
    """
    given_up: list[str] = []
    left = kernel.leave_namespaces()
    if left:
        given_up.append(f"namespaces ({', '.join(left)})")
    if identity == "drop":
        given_up += _become_nobody()
    _try("no-new-privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1), strict, given_up)
    _try("landlock", lambda: kernel.restrict_files(None), strict, given_up)
    _try("seccomp", lambda: kernel.install_filter(program), strict, given_up)
    return given_up


@dataclasses.dataclass(frozen=True)
class Programs:
    """The filters, read while files can still be opened."""

    loader: bytes
    template: bytes
    worker: bytes


def programs() -> Programs:
    """Read the filters of this architecture; empty where there are none."""
    return Programs(_program("loader"), _program("template"), _program("worker"))


def address_space_bytes() -> int:
    """Address space that this process has taken. Read it while files can still be opened."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def lock_worker(program: bytes, strict: bool, address_space_bytes: int) -> list[str]:
    """The forked process that computes: no descriptors, limits, a dozen system calls. Call it last: threads that exist stay, none can be
    started. Returns what it gave up; `SandboxError` as for `lock_template`.
    """
    given_up: list[str] = []
    _try("core-dumps", lambda: kernel.prctl(kernel.PR_SET_DUMPABLE, 0), strict, given_up)
    _try("limits", lambda: limit(address_space_bytes), strict, given_up)
    kernel.close_all()
    _try("seccomp", lambda: kernel.install_filter(program), strict, given_up)
    return given_up


def limit(address_space_bytes: int) -> None:
    """Resource limits of a worker, soft and hard."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    limits = {
        resource.RLIMIT_AS: address_space_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_SIGPENDING: 0,
        resource.RLIMIT_STACK: _STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard),
        resource.RLIMIT_NOFILE: 0,
    }
    for which, value in limits.items():
        resource.setrlimit(which, (value, value))


def _become_nobody() -> list[str]:
    gone = []
    if os.geteuid() == 0 or os.getuid() == 0:
        with contextlib.suppress(OSError):  # a container's root may not be allowed to
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            kernel.drop_bounding()
            os.setresuid(NOBODY, NOBODY, NOBODY)
            gone.append("root")
    kernel.drop_capabilities()
    return [*gone, "capabilities"]


def _try(name: str, step: Callable[[], None], strict: bool, given_up: list[str]) -> None:
    try:
        step()
    except OSError as error:
        if strict:
            raise SandboxError(
                f"this kernel refuses {name} ({error.strerror or error}); sandbox.mode = 'strict' needs it: use a kernel that has it, "
                "or mode = 'process', which takes what there is"
            ) from None
        return
    given_up.append(name)


def _program(role: str) -> bytes:
    path = _filter_path(role)
    return path.read_bytes() if path.exists() else b""


def _filter_path(role: str) -> Path:
    return _FILTERS / f"{role}-{_ARCHITECTURES.get(platform.machine(), platform.machine())}.bpf"
