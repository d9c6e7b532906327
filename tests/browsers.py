"""A headless browser, where one is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def opened(address: str, folder: Path, *flags: str) -> tuple[str, str]:
    """Open a page, let it run for a while, and return its elements and what it said to the console.

    Args:
        address: of the page.
        folder: where the browser may keep its files.
        flags: further ones of Chromium.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    usual = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    usual += ["--enable-logging=stderr", "--virtual-time-budget=15000"]
    command = [found, *usual, *flags, "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console
