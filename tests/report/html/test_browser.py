"""Pages in a real browser, three widths, both themes: nothing fails, sticks out, or is asked for."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from saq_qat.report.collect import Collected
from saq_qat.report.details import Details, details_of
from saq_qat.report.html.compare_page import comparison_page
from saq_qat.report.html.page import report_page
from tests.report.html.browser import CHROMIUM, Browser, Look, chromium

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH")
WIDTHS = (360, 800, 1400)
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


def named_by(hostile: Collected) -> Details:
    """Details of the run whose classes have the names of its labels: wide letters, long words."""
    assert hostile.manifest is not None
    names = tuple(f"{name}{'W' * 80}" for name in hostile.manifest.labels)
    return dataclasses.replace(details_of(hostile, 24), classes=names)


@pytest.fixture(scope="module")
def pages(known: Collected, hostile: Collected, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run's page, one with hostile names, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    written = {
        "report": report_page(known, details_of(known, 24)),
        "hostile": report_page(hostile, named_by(hostile)),
        "compare": comparison_page([known, hostile, known]),
    }
    for name, text in written.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in written}


@pytest.mark.parametrize("name", ["report", "hostile", "compare"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_fits_its_window_in_both_themes(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    looks = {theme: browser.look(pages[name], width, theme) for theme in THEMES}
    for look in looks.values():
        assert (look.errors, look.requests, look.overflowing, look.cut) == ([], [], [], [])
        assert look.width == width
        assert name != "report" or look.scrolling == []
        assert "Commonest wrong answers" not in look.scrolling
    assert looks["light"].ground != looks["dark"].ground


def test_what_is_wrong_with_a_page_is_seen(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><body style="margin:0"><div style="width:2000px">wide</div>'
        '<svg width="100" height="20" aria-label="chart"><text x="80" y="10">cut off here</text></svg>'
        '<div class="wide" aria-label="table" style="overflow-x:auto;width:100px">'
        '<p style="width:300px">x</p></div>'
        '<img src="http://127.0.0.1:9/x.png"><script>undefined_function()</script>'
    )
    look: Look = browser.look(bad, 360, "light")
    assert look.width > 360 and "DIV.: wide" in look.overflowing
    assert look.cut == ["cut off here in chart"] and look.scrolling == ["table"]
    assert look.requests == ["http://127.0.0.1:9/x.png"]
    assert "undefined_function" in "".join(look.errors)
