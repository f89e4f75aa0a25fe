"""Compiled objects on disk, under a key of everything that shaped them. Shared by processes; readable by its owner alone."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
import os
from collections.abc import Hashable, Sequence
from pathlib import Path

import llvmlite

from openinfer.config import write_atomically
from openinfer.machine import host
from openinfer.version import __version__

log = logging.getLogger("openinfer")

MAGIC = b"openinfer object 2\n"
LIMIT_BYTES = 256 << 20


def folder() -> Path:
    """`$OPENINFER_CACHE`, or the user's cache folder."""
    named = os.environ.get("OPENINFER_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openinfer"


def sandbox_folder(model: bytes) -> Path:
    """The cache of one model in a sandbox, by its path or bytes: what its process writes, no other model's loads."""
    return folder() / f"sandbox-{hashlib.sha256(model).hexdigest()[:16]}"


def key(source: str, kernels: Sequence[tuple[str, dict[str, Hashable]]]) -> str:
    """Hash of the program, its kernels, the package's source and version, the compiler's versions and the machine."""
    machine = host()
    parts = (
        source,
        repr(kernels),
        package_hash(Path(__file__).parent.parent),
        __version__,
        llvmlite.__version__,
        _numba_version(),
        machine.cpu,
        machine.features,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def _numba_version() -> str:
    """Read from its files once a process: importing Numba costs more than a start, and a program has a key per kernel."""
    return importlib.metadata.version("numba")


@functools.cache
def package_hash(root: Path) -> str:
    """Hash of every source file below `root`, by its path there. Kernels take constants from all over the package; read once a process."""
    digest = hashlib.sha256()
    # Text paths and unbuffered files: half the time of pathlib's, in every process's start.
    start = len(str(root)) + 1
    paths = sorted(os.path.join(place, name) for place, _, names in os.walk(root) for name in names if name.endswith(".py"))
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            content = file.read()
        digest.update(f"{path[start:]}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def load(name: str) -> tuple[str, bytes] | None:
    """Symbol and object stored under `name`; `None` where there is none, it is damaged, or others could have written it."""
    place = folder()
    path = place / f"{name}.o"
    try:
        if not _private(place):
            return None
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if state.st_uid != os.getuid() or state.st_mode & 0o022:
                log.warning("%s can be written by others; it is not used", path)
                return None
            content = file.read()
    except OSError:
        return None
    head, _, elf = content.removeprefix(MAGIC).partition(b"\n")
    digest, _, symbol = head.partition(b" ")
    if not content.startswith(MAGIC) or _digest(name, symbol, elf).encode() != digest:
        log.warning("%s is damaged; it is compiled again", path)
        return None
    return symbol.decode(), elf


def store(name: str, symbol: str, elf: bytes) -> None:
    """Keep an object; a cache that cannot be written costs a compilation at the next start, nothing else."""
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _private(place):
            return
        digest = _digest(name, symbol.encode(), elf)
        write_atomically(place / f"{name}.o", MAGIC + f"{digest} {symbol}\n".encode() + elf, 0o600)
        _prune(place)
    except OSError as error:
        log.warning("the object cache %s cannot be written (%s); set OPENINFER_CACHE to a folder that can", place, error.strerror)


def _digest(name: str, symbol: bytes, elf: bytes) -> str:
    """An object's hash, with the name that it is stored under: another program's object does not pass."""
    return hashlib.sha256(b"\0".join((name.encode(), symbol, elf))).hexdigest()


def _private(place: Path) -> bool:
    """Whether only the user can put files into the folder. Raises `OSError` where there is none."""
    state = place.stat()
    if state.st_uid == os.getuid() and not state.st_mode & 0o022:
        return True
    _warn_shared(place)
    return False


@functools.cache
def _warn_shared(place: Path) -> None:
    log.warning("the object cache %s can be written by others; it is not used: give it to this user alone, or set OPENINFER_CACHE", place)


def clear() -> int:
    """Remove every cached object; the number removed."""
    paths = [*folder().glob("*.o"), *folder().glob("sandbox-*/*.o")]
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)


def _prune(place: Path) -> None:
    files = sorted(((path.stat().st_mtime, path.stat().st_size, path) for path in place.glob("*.o")), reverse=True)
    total = 0
    for _, size, path in files:
        total += size
        if total > LIMIT_BYTES:
            path.unlink(missing_ok=True)
