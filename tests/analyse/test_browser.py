"""The page in a real browser: it fits a screen and a phone, light and dark, and says nothing to the console."""

from __future__ import annotations

import re
import shutil
from html import escape
from pathlib import Path

import pytest
from browsers import opened

from nas_kd.analyse import report

# a frame has a width of its own, which a headless window may not take; the page in it is of the same origin
PAGE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe width="{width}" height="2000" style="border:0" srcdoc="{inside}"></iframe><script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  document.body.dataset.wide = page.documentElement.scrollWidth;
  document.body.dataset.tall = page.querySelector(".answers").getBoundingClientRect().bottom;
  document.body.dataset.paper = getComputedStyle(page.body).backgroundColor;
}};
</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits(width: int, dark: bool, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(width=width, inside=escape(report(run).read_text())))
    dark_mode = ["--blink-settings=preferredColorScheme=0"] if dark else []
    elements, console = opened(page.as_uri(), tmp_path, "--window-size=1600,2000", *dark_mode)
    said = dict(re.findall(r'data-(wide|tall|paper)="([^"]+)"', elements))
    assert int(said["wide"]) <= width
    assert not console
    assert said["paper"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    if width == 1280:
        assert float(said["tall"]) <= 1000  # the four answers are in the first screen
