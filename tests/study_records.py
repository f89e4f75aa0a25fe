"""Made-up records of studies, for the tests of what reads them."""

from __future__ import annotations

from openinfer.profiles.study_record import (
    SCHEMA_VERSION,
    Arm,
    Curve,
    Interval,
    KnobStep,
    Series,
    SloCheck,
    StudyRecord,
    Trial,
    Trust,
    Verdict,
)

SEEN = ("resident_bytes", "waiting", "forced_switches", "internal_fragmentation", "external_fragmentation")


def record(kind: str = "ADOPT", text: str = "hft", trials: int = 5) -> StudyRecord:
    """A made-up study; `text` goes into every string that a user could have chosen."""
    level = Interval(1000.0, 900.0, 1100.0)
    arms = [Arm(name, {"engine.threads": 1}, level, level, level, level, 100 << 20, 0.1, 1e-7) for name in ("default", "winner")]
    tried = [
        Trial(
            n,
            "failed" if n % 3 == 2 else "complete",
            {"engine.gc": text},
            None if n % 3 == 2 else 0.9,
            None if n % 3 == 2 else Interval(0.9, 0.8, 1.1),
            float(n),
            1.0,
            text,
        )
        for n in range(trials)
    ]
    return StudyRecord(
        SCHEMA_VERSION,
        text,
        text,
        "0" * 64,
        text,
        0,
        "2026-01-01T00:00:00+00:00",
        60.0,
        Verdict(kind, f"{kind}: {text}", "p99", "ns", Interval(0.9, 0.8, 0.95), 0.99),
        [SloCheck("p99<1ms", "winner", "held-out", 0.99, 10**6, "undecided", 10, 0, 900, None, 10)],
        Trust(0.01, 5, True, text, 0.02, 10, 20, 0.0, 0, 1e-7, 1e-5, True, 1000),
        arms if trials else [],
        [KnobStep("engine.gc", "default", text, None, text)],
        tried,
        [Curve("default", "held-out", [0.5, 0.99], [1000, 2000], [900, 1500], 1000)] if trials else [],
        [Series(name, [0, 0, 1, 1], {key: [0.0, 0.1, 0.2, 1e8] for key in SEEN}) for name in ("default", "winner")] if trials else [],
        {"accuracy": 0.5},
        {"cpu": text},
        text,
    )
