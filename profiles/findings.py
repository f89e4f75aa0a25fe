"""Rules that name a cause, worst first, each with its evidence in figures. They read the record alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from openinfer.profiles.profile_record import Finding, ProfileRecord, Row
from scipy import stats

LOCK_SHARE = 0.01  # of the run's time that threads spent waiting for one lock
LEAK_BYTES, LEAK_SHARE = 1 << 20, 0.005  # growth over the run, absolute and of the memory there was
LEAK_POINTS = 16
WARM_UP = 0.25  # of the run, before memory is judged
NEIGHBOUR_SHARE = 0.25  # of one processor
WAITED_SHARE = 0.02  # of the time without a processor that makes a busy neighbour a noisy one
STOLEN_SHARE = 0.01
LAYOUT_SHARE = 0.2  # of a call's time in one layer that walks memory badly
LAYOUT_REACHED = 0.5  # of the machine's ceiling: a layer that reaches more is not hostile
HOT_SHARE = 0.3
REFUSED_SHARE = 0.001
CONFIDENCE = 0.99


@dataclasses.dataclass(frozen=True)
class Slope:
    """Bytes per second with its 99% interval."""

    estimate: float
    low: float
    high: float


def find(record: ProfileRecord) -> list[Finding]:
    """All findings, worst first. Defects come before the hot layer, which every model has."""
    defects = [*_refusals(record), *_locks(record), *_leaks(record), *_layouts(record), *_neighbours(record), *_unsteady(record)]
    return [*sorted(defects, key=lambda finding: -finding.severity), *_hot(record)]


def slope(rows: Sequence[Row]) -> Slope | None:
    """Growth of a series after its warm-up; `None` where it is too short. The interval counts stretches of the run, since neighbouring
    samples depend on each other.
    """
    if len(rows) < LEAK_POINTS:
        return None
    kept = rows[int(WARM_UP * len(rows)) :]
    at = np.array([row.at_ns for row in kept], float) / 1e9
    size = np.array([row.value for row in kept], float)
    parts = np.array_split(np.arange(len(kept)), min(8, len(kept) // 2))
    x, y = np.array([at[p].mean() for p in parts]), np.array([size[p].mean() for p in parts])
    fit = stats.linregress(x, y)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 2)) * float(fit.stderr)
    return Slope(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)


def _locks(record: ProfileRecord) -> list[Finding]:
    found = []
    for row in record.series("contention", "lock wait"):
        share = row.value / 1e9 / max(1e-9, record.duration_s)
        if share >= LOCK_SHARE:
            count = record.figure("contention", "lock contended", row.key) or 0
            longest = record.figure("contention", "lock longest", row.key) or 0
            evidence = (
                f"waited for {row.value / 1e6:.1f} ms in {record.duration_s:.1f} s, {count:.0f} times, {longest / 1e6:.2f} ms at most"
            )
            found.append(Finding("lock", f"Threads wait for the lock {row.key}", evidence, min(1.0, share)))
    return found


def _refusals(record: ProfileRecord) -> list[Finding]:
    refused, sent = record.figure("requests", "refused") or 0.0, record.figure("requests", "sent") or 0.0
    if refused < REFUSED_SHARE * sent or not refused:
        return []
    evidence = f"{refused:.0f} of {sent:.0f} were refused and have no latency here"
    return [Finding("overload", "More requests come than the engine can answer", evidence, refused / sent)]


def _leaks(record: ProfileRecord) -> list[Finding]:
    rows = record.series("memory", "resident")
    growth = slope(rows)
    if growth is None or growth.low <= 0:
        return []
    kept = rows[int(WARM_UP * len(rows)) :]
    half = slope(rows[len(rows) // 2 :]) if len(rows) >= 2 * LEAK_POINTS else growth
    grown = growth.low * (kept[-1].at_ns - kept[0].at_ns) / 1e9
    if grown < max(LEAK_BYTES, LEAK_SHARE * kept[0].value) or half is None or half.estimate <= growth.estimate / 4:
        return []  # growth that ends is not a leak
    evidence = (
        f"resident memory grows by {growth.estimate / 1e6:.2f} MB/s (99%: {growth.low / 1e6:.2f} to {growth.high / 1e6:.2f}), "
        f"from {kept[0].value / 1e6:.0f} to {kept[-1].value / 1e6:.0f} MB"
    )
    return [Finding("leak", "Memory grows as long as requests come", evidence, min(1.0, grown / kept[0].value + 0.1))]


def _layouts(record: ProfileRecord) -> list[Finding]:
    found = []
    for row in record.series("layers", "strided"):
        share, reached = record.figure("layers", "share", row.key) or 0.0, record.figure("layers", "reached", row.key) or 0.0
        if share >= LAYOUT_SHARE and reached < LAYOUT_REACHED:
            evidence = f"stride of {row.value:.0f} bytes; {share:.0%} of the call, at {reached:.0%} of what this machine's memory gives"
            found.append(Finding("layout", f"Layer {row.key} walks memory across cache lines", evidence, share * (1 - reached)))
    return found


def _neighbours(record: ProfileRecord) -> list[Finding]:
    waited = [row.value for row in record.series("contention", "run queue")]
    waiting, stolen = float(np.mean(waited)) if waited else 0.0, record.figure("noise", "stolen") or 0.0
    found = []
    busy = sorted((row for row in record.series("noise", "other process")), key=lambda row: -row.value)
    busy = [row for row in busy if row.value >= NEIGHBOUR_SHARE]
    if busy and waiting >= WAITED_SHARE:
        more = f", {len(busy) - 1} more above {NEIGHBOUR_SHARE:.0%}" if len(busy) > 1 else ""
        used = f"it used {busy[0].value:.0%} of a processor{more}"
        evidence = f"{used}; the threads of this process, together, waited {waiting:.0%} of the time for one"
        found.append(Finding("neighbour", f"A neighbour takes processor time: {busy[0].key}", evidence, min(1.0, waiting)))
    if stolen >= STOLEN_SHARE:
        evidence = f"{stolen:.1%} of the machine's time was stolen"
        found.append(Finding("neighbour", "The hypervisor gives processors to other machines", evidence, min(1.0, stolen)))
    return found


def _unsteady(record: ProfileRecord) -> list[Finding]:
    if record.figure("steady", "steady") != 0:
        return []
    changes = record.series("steady", "change")
    if not changes:
        return []
    last = changes[-1]
    ratio = math.exp(last.value) - 1
    return [
        Finding("unsteady", "The latency did not settle", f"its level last changed by {ratio:+.0%} {last.key}", min(1.0, abs(ratio) / 10))
    ]


def _hot(record: ProfileRecord) -> list[Finding]:
    rows = record.series("layers", "share")
    if not rows:
        return []
    hot = max(rows, key=lambda row: row.value)
    if hot.value < HOT_SHARE:
        return []
    reached, nanoseconds = record.figure("layers", "reached", hot.key) or 0.0, record.figure("layers", "time", hot.key) or 0.0
    evidence = f"{hot.value:.0%} of the layers' time, {nanoseconds / 1e3:.2f} µs a call; it reaches {reached:.0%} of this machine's ceiling"
    return [Finding("hot layer", f"Most time goes into {hot.key}", evidence, hot.value * max(0.0, 1 - reached))]
