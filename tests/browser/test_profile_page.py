"""The profile's page in Chromium: offline, without scripts, readable when narrow and dark."""

from __future__ import annotations

import shutil

import pytest
from openinfer.profiles.profile_record import Finding, Instrument, ProfileRecord, Row
from openinfer.reports.profile import write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[test]'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; apt-get install chromium")

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")


def record(text: str, empty: bool) -> ProfileRecord:
    rows = []
    if not empty:
        for name, scale in (("corrected", 1e6), ("raw", 1e5), ("queue", 9e5), ("kernel", 9e4)):
            rows += [Row("1", "latency", name, key, -1, scale * k, "ns") for k, key in enumerate(("p50", "p90", "p99", "largest"), 1)]
        for k in range(20):
            rows.append(Row("1", "memory", "resident", "", k * 10**8, 3e8 + k, "bytes"))
            rows.append(Row("1", "contention", "run queue", "", k * 10**8, 0.01 * k, "share"))
        for layer, ns in ((f"Gemm {text}", 100.0), ("Softmax y", 30.0)):
            figures = {"time": ns, "share": ns / 130, "flops": 1000.0, "bytes": 500.0, "intensity": 2.0, "floor": 20.0, "reached": 0.5}
            rows += [Row("1", "layers", name, layer, -1, value, "ns") for name, value in figures.items()]
        rows += [Row("1", "ceiling", "bandwidth", str(1 << k), -1, 200.0 - 5 * k, "GB/s") for k in (14, 18, 23, 26)]
        rows.append(Row("1", "ceiling", "arithmetic", "", -1, 110.0, "GFLOP/s"))
        rows.append(Row("1", "contention", "lock wait", f"lock {text}", -1, 1e7, "ns"))
        rows += [Row("1", "noise", name, "", -1, 0.1, "processors") for name in ("others", "own", "stolen", "throttled")]
    return ProfileRecord(
        f"{text}.onnx",
        text,
        f"openinfer profile {text}",
        1,
        "2026-01-02T03:04:05+00:00",
        2.0,
        {"system": text},
        [] if empty else [Finding("lock", f"Threads wait for the lock {text}", "10 ms, -3 <b>", 0.3)],
        [Instrument("memory", True, "note", 0.001), Instrument("stacks", False, "switched off")],
        {} if empty else {"corrected": "x"},
        {} if empty else {f"main;{text} (a.py:3);compiled model;Gemm": 7, "main;memcpy": 2},
        rows,
    )


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "empty"), [("hft", False), ("nothing", True), ("<i>a_name_that_goes_on/" * 12, False)])
def test_the_page_stands_alone_and_fits(browser, tmp_path, text, empty, scheme):
    write(record(text, empty), tmp_path / "p.html")
    context = browser.new_context(java_script_enabled=False, color_scheme=scheme, viewport={"width": 380, "height": 800})
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{tmp_path}/p.html")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    context.close()
    context = browser.new_context(color_scheme=scheme, viewport={"width": 380, "height": 800})
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"file://{tmp_path}/p.html")
    assert not errors
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.evaluate("JSON.parse(document.getElementById('record').textContent).workload") == text
    shown = page.locator(".chart > div:visible svg")
    assert shown.count() == (0 if empty else 4)
    # Every picture has a table after it.
    assert page.locator("table").count() >= (1 if empty else 6)
    context.close()
