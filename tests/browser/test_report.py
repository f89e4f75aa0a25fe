"""The report in Chromium: quiet, offline, readable on a telephone, in the dark and without JavaScript."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
from openinfer.profiles.study_record import Arm, Interval
from openinfer.reports.html import write
from study_records import record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[test]'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; apt-get install chromium")

# Contrast of every piece of text with what lies behind it (WCAG 2.2, 1.4.3), as [ratio, least, text].
CONTRAST = """() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const part = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = c => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const behind = e => { const c = parse(getComputedStyle(e).backgroundColor); return c[3] > 0 ? c : behind(e.parentElement); };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = walk.nextNode();) {
    const e = n.parentElement, style = getComputedStyle(e);
    if (!n.textContent.trim() || !e.checkVisibility() || e.closest("script, title")) continue;
    const svg = e.closest("svg") !== null, ink = parse(svg ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push([(a + 0.05) / (b + 0.05), large ? 3 : 4.5, n.textContent.trim().slice(0, 60)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    arguments = (
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
    )
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=[*arguments, "--disable-sync"])
        yield opened
        opened.close()


@pytest.fixture(scope="module", params=["ADOPT", "nothing measured", "long names"])
def page_url(request, tmp_path_factory):
    kind = {"ADOPT": "ADOPT", "nothing measured": "KEEP DEFAULT", "long names": "INCONCLUSIVE"}[request.param]
    text = "a_name_that_goes_on_and_on/" * 12 if request.param == "long names" else "hft"
    one = record(kind, text, trials=0 if request.param == "nothing measured" else 30)
    wide = Interval(50_000.0, 10.0, 9e9)
    runner_up = Arm("runner-up", {"engine.threads": 2}, wide, wide, wide, wide, 1 << 31, 12.0, 1e-6)
    path = tmp_path_factory.mktemp("report") / "r.html"
    write(dataclasses.replace(one, arms=[*one.arms, runner_up] if one.arms else []), path)
    return path.as_uri()


def opened(browser, url, *, width=1280, scheme="light", script=True):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script, offline=True)
    context.set_default_timeout(10_000)
    page = context.new_page()
    noise, requests = [], []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(url)
    return page, noise, requests


@pytest.mark.parametrize("script", [True, False])
def test_it_is_quiet_and_asks_for_nothing(browser, page_url, script):
    page, noise, requests = opened(browser, page_url, script=script)
    assert noise == []
    assert [url for url in requests if not url.startswith("data:")] == [page_url]
    assert page.locator("h1").inner_text().strip()
    for chart in page.locator(".chart").all():
        assert chart.locator("svg:visible").count() == 1
    page.context.close()


@pytest.mark.parametrize("width", [320, 420, 768, 1280])
def test_nothing_runs_over_the_edge(browser, page_url, width):
    page, _, _ = opened(browser, page_url, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    over = page.evaluate(
        """w => [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, pre, svg"))
        .filter(e => e.getBoundingClientRect().right > w + 1).map(e => e.outerHTML.slice(0, 80))""",
        width,
    )
    assert over == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1280])
def test_every_text_can_be_read(browser, page_url, scheme, width):
    page, _, _ = opened(browser, page_url, width=width, scheme=scheme)
    found = page.evaluate(CONTRAST)
    assert len(found) > 30
    assert [item for item in found if item[0] < item[1]] == []
    assert (
        min(
            page.evaluate(
                "[...document.querySelectorAll('svg text')].filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().height)"
            )
        )
        >= 9
    )
    page.context.close()


def test_a_table_stands_behind_every_chart(browser, page_url):
    page, _, _ = opened(browser, page_url, script=False)
    for chart in page.locator(".chart").all():
        details = chart.locator("xpath=following::details[1]")
        if details.get_attribute("open") is None:
            details.locator("summary").click()
        assert details.locator("td:visible").count() >= 3
        assert chart.locator("svg:visible title").text_content()
    page.context.close()


def test_it_prints_with_its_tables_on_white(browser, page_url, tmp_path):
    page, _, _ = opened(browser, page_url, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert [item for item in page.evaluate(CONTRAST) if item[0] < item[1]] == []
    assert all(table.bounding_box()["height"] > 0 for table in page.locator("table").all())
    page.set_viewport_size({"width": 760, "height": 1000})  # A4 between usual margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 760
    page.pdf(path=tmp_path / "r.pdf")
    assert (tmp_path / "r.pdf").stat().st_size > 10_000
    page.context.close()
