"""The shipped filters: the bytes that libseccomp makes today, and the decisions that they are meant to take."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from openinfer.sandbox import filters
from openinfer.sandbox.attacks.numbers import NUMBERS
from openinfer.sandbox.filters import make

FOLDER = Path(filters.__file__).parent
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
FUTEX, MMAP, MPROTECT, CLONE = ((202, 98), (9, 222), (10, 226), (56, 220))
ALLOWED_TO_WORKERS = {"mmap", "munmap", "mremap", "mprotect", "brk"}


def _decide(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Run a classic BPF program over `struct seccomp_data`, as the kernel does."""
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = instructions[at]
        at += 1
        if code == 0x20:  # load a word
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:  # and
            accumulator &= value
        elif code == 0x05:  # jump
            at += value
        elif code == 0x15:
            at += yes if accumulator == value else no
        elif code == 0x25:
            at += yes if accumulator > value else no
        elif code == 0x35:
            at += yes if accumulator >= value else no
        elif code == 0x06:  # return
            return value
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


def _program(role: str, architecture: str) -> bytes:
    return (FOLDER / f"{role}-{architecture}.bpf").read_bytes()


@pytest.mark.parametrize("architecture", make.ARCHITECTURES)
@pytest.mark.parametrize("role", make.ROLES)
def test_the_shipped_bytes_are_what_the_script_makes(role: str, architecture: str) -> None:
    made_by = (FOLDER / "libseccomp.txt").read_text().strip()
    if not make.available() or make.version() != made_by:
        pytest.skip(f"needs libseccomp {made_by}, which wrote the shipped filters")
    assert make.program(role, architecture) == _program(role, architecture)


@pytest.mark.parametrize("architecture", make.ARCHITECTURES)
def test_the_worker_may_compute_and_nothing_else(architecture: str) -> None:
    program, token = _program("worker", architecture), make.ARCHITECTURES[architecture]
    column = list(make.ARCHITECTURES).index(architecture)
    for name, numbers in NUMBERS.items():
        if numbers[column] >= 0 and name not in ALLOWED_TO_WORKERS:
            assert _decide(program, token, numbers[column]) in (KILL, ERRNO | errno.EPERM), name
    assert _decide(program, token, FUTEX[column], 0, 128) == ALLOW
    assert _decide(program, token, FUTEX[column], 0, 6) == KILL  # priority inheritance
    assert _decide(program, token, MMAP[column], 0, 4096, 3, 0x22) == ALLOW
    assert _decide(program, token, MMAP[column], 0, 4096, 7, 0x22) == ERRNO | errno.EPERM
    assert _decide(program, token, MMAP[column], 0, 4096, 1, 0x02) == ERRNO | errno.EPERM  # a file
    assert _decide(program, token, MPROTECT[column], 0, 4096, 3) == ALLOW
    assert _decide(program, token, MPROTECT[column], 0, 4096, 5) == ERRNO | errno.EPERM
    allowed = [number for number in range(600) if _decide(program, token, number, 0, 0, 0, 0x20) == ALLOW]
    assert len(allowed) <= 16


@pytest.mark.parametrize("role", make.ROLES)
@pytest.mark.parametrize("architecture", make.ARCHITECTURES)
def test_another_architecture_kills(role: str, architecture: str) -> None:
    program = _program(role, architecture)
    assert _decide(program, 0x40000003, 20) == KILL  # 32-bit x86
    if architecture == "x86_64":
        assert _decide(program, make.ARCHITECTURES[architecture], 0x40000000 | 39) == KILL  # x32


@pytest.mark.parametrize("architecture", make.ARCHITECTURES)
def test_the_loader_may_not_speak_or_start(architecture: str) -> None:
    program, token = _program("loader", architecture), make.ARCHITECTURES[architecture]
    column = list(make.ARCHITECTURES).index(architecture)
    for name in ("socket", "connect", "execve", "ptrace", "bpf", "mount", "io_uring_setup", "kill", "fchmodat", "keyctl"):
        assert _decide(program, token, NUMBERS[name][column]) == ERRNO | errno.EPERM, name
    for name in ("openat", "mmap", "clone", "unshare", "setresuid", "seccomp", "landlock_create_ruleset"):
        assert _decide(program, token, NUMBERS[name][column]) == ALLOW, name


@pytest.mark.parametrize("architecture", make.ARCHITECTURES)
def test_the_template_may_fork_but_not_leave(architecture: str) -> None:
    program, token = _program("template", architecture), make.ARCHITECTURES[architecture]
    column = list(make.ARCHITECTURES).index(architecture)
    assert _decide(program, token, CLONE[column], 0x01200011) == ALLOW
    for name in ("NEWUSER", "NEWNS", "NEWNET"):
        flag = {"NEWUSER": 0x10000000, "NEWNS": 0x20000, "NEWNET": 0x40000000}[name]
        assert _decide(program, token, CLONE[column], flag | 17) == ERRNO | errno.EPERM
    for name in ("openat", "socket", "connect", "execve", "ptrace", "bpf", "mount", "io_uring_setup", "kill", "memfd_create", "setuid"):
        assert _decide(program, token, NUMBERS[name][column]) == ERRNO | errno.EPERM, name
