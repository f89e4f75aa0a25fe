"""The report of every kind of record: complete, escaped, self-contained, the same bytes each time."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
from openinfer.profiles.study_record import Interval, SandboxPrice
from openinfer.reports.html import render
from study_records import record

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


@pytest.mark.parametrize("kind", ["ADOPT", "KEEP DEFAULT", "INCONCLUSIVE"])
@pytest.mark.parametrize("trials", [0, 1, 200])
def test_every_verdict_renders(kind, trials):
    page = render(record(kind, trials=trials))
    assert page.count("<html") == 1 and kind in page and "undecided" in page
    assert ("No candidate was measured" in page) == (trials == 0)
    assert page.count("<svg") == page.count("<title>") - 1 == 2 * (5 if trials else 1)  # each chart for wide and for narrow pages


def test_the_price_of_a_sandbox_is_shown_where_there_is_one():
    one = record()
    price = SandboxPrice("process", "winner", one.arms[0], Interval(1.25, 1.2, 1.3), Interval(1.5, 1.4, 1.6))
    page = render(dataclasses.replace(one, sandbox=price))
    assert "What the sandbox costs" in page and "+25%" in page and "+50%" in page
    assert "What the sandbox costs" not in render(one)


def test_strings_are_escaped_everywhere():
    page = render(record(text=HOSTILE))
    assert "<img" not in page.lower() and 'alert("x")</script>' not in page
    assert page.count("<script") == 1


def test_the_record_is_embedded_whole():
    one = record(text=HOSTILE)
    (embedded,) = re.findall(r'<script type="application/json" id="record">(.*?)</script>', render(one), re.S)
    assert json.loads(embedded) == json.loads(json.dumps(dataclasses.asdict(one)))


def test_nothing_is_loaded_from_elsewhere_and_the_bytes_are_stable():
    page = render(record())
    assert not re.search(r'(?:src|href)="(?!#|data:,")', page) and "@import" not in page and "url(http" not in page
    assert page == render(record())


def test_identifiers_are_unique():
    found = re.findall(r'\bid="([^"]+)"', render(record()))
    assert len(found) == len(set(found))


def test_what_is_not_finite_still_renders_and_embeds_as_json():
    one = record()
    unbounded = Interval(math.nan, 0.0, math.inf)
    one = dataclasses.replace(
        one,
        verdict=dataclasses.replace(one.verdict, kind="INCONCLUSIVE", ratio=dataclasses.replace(unbounded, estimate=1.0)),
        trust=dataclasses.replace(one.trust, noise_floor=math.inf),
        steps=[dataclasses.replace(one.steps[0], ratio=unbounded)],
    )
    page = render(one)
    (embedded,) = re.findall(r'<script type="application/json" id="record">(.*?)</script>', page, re.S)
    assert json.loads(embedded, parse_constant=pytest.fail)["trust"]["noise_floor"] is None
    assert "nan" not in re.sub(r"<script.*?</script>|<svg.*?</svg>", "", page, flags=re.S)


def test_the_shares_of_the_knobs_add_up_only_where_a_gain_is_shown():
    one = record()
    steps = [dataclasses.replace(one.steps[0], name=f"engine.k{n}", ratio=Interval(r, r, r)) for n, r in enumerate((0.9, 0.8, 1.05))]
    shared = render(dataclasses.replace(one, steps=steps))
    assert "share of the gain" in shared
    row = re.findall(r"<code>engine\.k\d</code>.*?</tr>", shared)
    shares = [float(re.findall(r'<td class="n">([^<]*)%</td>', line.replace("\u2212", "-"))[-1]) for line in row]
    assert sum(shares) == pytest.approx(100, abs=2) and shares[2] < 0 < shares[0] < shares[1]
    undecided = dataclasses.replace(one.verdict, ratio=Interval(0.9, 0.8, 1.1))
    assert "share of the gain" not in render(dataclasses.replace(one, steps=steps, verdict=undecided))


@pytest.mark.parametrize("kind", ["ADOPT", "KEEP DEFAULT", "INCONCLUSIVE"])
def test_only_adopt_speaks_of_a_winner(kind):
    page = render(dataclasses.replace(record(kind), steps=[]))
    text = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.S)
    assert ("winner" in text) == (kind == "ADOPT")
