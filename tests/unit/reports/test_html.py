"""The report of every kind of record: complete, escaped, self-contained, the same bytes each time."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from openinfer.profiles.study_record import SCHEMA_VERSION, Arm, Curve, Interval, KnobStep, SloCheck, StudyRecord, Trial, Trust, Verdict
from openinfer.reports.charts.figure import microseconds
from openinfer.reports.html import render

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


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
        [SloCheck("p99<1ms", "winner", "held-out", 0.99, 10**6, "undecided", 10, 0, 900, None)],
        Trust(0.01, 5, True, text, 0.02, 10, 20, 0.0, 0, 1e-7, 1e-5, True, 1000),
        arms if trials else [],
        [KnobStep("engine.gc", "default", text, None, text)],
        tried,
        [Curve("default", "held-out", [0.5, 0.99], [1000, 2000], [900, 1500], 1000)] if trials else [],
        {"accuracy": 0.5},
        {"cpu": text},
        text,
    )


@pytest.mark.parametrize("kind", ["ADOPT", "KEEP DEFAULT", "INCONCLUSIVE"])
@pytest.mark.parametrize("trials", [0, 1, 200])
def test_every_verdict_renders(kind, trials):
    page = render(record(kind, trials=trials))
    assert page.count("<html") == 1 and kind in page and "undecided" in page
    assert ("No candidate was measured" in page) == (trials == 0)
    assert page.count("<svg") == (3 if trials else 0)


def test_strings_are_escaped_everywhere():
    page = render(record(text=HOSTILE))
    assert "<img" not in page and 'alert("x")</script>' not in page
    assert page.count("<script") == 1


def test_the_record_is_embedded_whole():
    one = record(text=HOSTILE)
    (embedded,) = re.findall(r'<script type="application/json" id="record">(.*?)</script>', render(one), re.S)
    assert json.loads(embedded) == json.loads(json.dumps(dataclasses.asdict(one)))


def test_nothing_is_loaded_from_elsewhere_and_the_bytes_are_stable():
    page = render(record())
    assert not re.search(r'(?:src|href)="(?!#)', page) and "@import" not in page and "url(http" not in page
    assert page == render(record())


def test_times_carry_their_unit():
    assert [microseconds(v) for v in (12, 1500, 2.5e6, 3e9)] == ["12 ns", "1.5 µs", "2.5 ms", "3 s"]
