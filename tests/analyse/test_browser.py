"""The page in a real browser: it fits a screen and a phone, light and dark, and says nothing to the console."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest

from nas_kd.analyse import report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
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


def browser() -> str:
    """Return a headless browser's command; without one the test is skipped."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits(width: int, dark: bool, finished: Path, tmp_path: Path) -> None:
    command = browser()
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(width=width, inside=escape(report(run).read_text())))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += ["--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1600,2000"]
    flags += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([command, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    said = dict(re.findall(r'data-(wide|tall|paper)="([^"]+)"', done.stdout))
    assert int(said["wide"]) <= width, done.stderr
    assert "CONSOLE" not in done.stderr
    assert said["paper"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    if width == 1280:
        assert float(said["tall"]) <= 1000  # the four answers are in the first screen
