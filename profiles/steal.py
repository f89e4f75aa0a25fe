"""Time that the hypervisor gave to others, from /proc/stat."""

from __future__ import annotations

from pathlib import Path


def stolen_ticks() -> tuple[int, int]:
    """Ticks that the hypervisor has taken, and all ticks, since the machine started; (0, 0) where the kernel does not say."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return fields[7], sum(fields)
    except (OSError, ValueError, IndexError):
        return 0, 0


def stolen_share(before: tuple[int, int]) -> float:
    """Share of processor time that was stolen since `before`, a result of `stolen_ticks`."""
    stolen, total = stolen_ticks()
    return (stolen - before[0]) / max(1, total - before[1])
