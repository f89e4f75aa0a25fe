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

log = logging.getLogger("openinfer")

MAGIC = b"openinfer object 1\n"
LIMIT_BYTES = 256 << 20


def folder() -> Path:
    """`$OPENINFER_CACHE`, or the user's cache folder."""
    named = os.environ.get("OPENINFER_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openinfer"


def key(source: str, kernels: Sequence[tuple[str, dict[str, Hashable]]]) -> str:
    """Hash of the program, its kernels, the package's source, the compiler's versions and the machine."""
    machine = host()
    parts = (
        source,
        repr(kernels),
        _package_hash(),
        llvmlite.__version__,
        importlib.metadata.version("numba"),
        machine.cpu,
        machine.features,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def _package_hash() -> str:
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted([*(root / "kernels").rglob("*.py"), *(root / "codegen").glob("*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def load(name: str) -> tuple[str, bytes] | None:
    """Symbol and object stored under `name`; `None` where there is none, it is damaged, or others could have written it."""
    path = folder() / f"{name}.o"
    try:
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
    if not content.startswith(MAGIC) or hashlib.sha256(symbol + elf).hexdigest().encode() != digest:
        log.warning("%s is damaged; it is compiled again", path)
        return None
    return symbol.decode(), elf


def store(name: str, symbol: str, elf: bytes) -> None:
    """Keep an object; a cache that cannot be written costs a compilation at the next start, nothing else."""
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = hashlib.sha256(symbol.encode() + elf).hexdigest()
        write_atomically(place / f"{name}.o", MAGIC + f"{digest} {symbol}\n".encode() + elf, 0o600)
        _prune(place)
    except OSError as error:
        log.warning("the object cache %s cannot be written (%s); set OPENINFER_CACHE to a folder that can", place, error.strerror)


def clear() -> int:
    """Remove every cached object; the number removed."""
    paths = list(folder().glob("*.o"))
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
