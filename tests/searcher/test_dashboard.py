"""A search in Optuna's own dashboard, in a browser: variables have names that a person reads."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from browsers import opened
from small_run import Made


@pytest.mark.slow
def test_the_dashboard_names_variables(made: Made, tmp_path: Path) -> None:
    command = shutil.which("optuna-dashboard")
    if command is None:
        pytest.skip("optuna-dashboard is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"http://127.0.0.1:{port}"
    served = subprocess.Popen([command, str(made.run / "search/study.journal"), "--port", str(port)])
    try:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{place}/api/studies", timeout=5).close()
                break
            except (urllib.error.URLError, TimeoutError):
                assert time.monotonic() < end and served.poll() is None
                time.sleep(0.2)
        elements, console = opened(f"{place}/dashboard/studies/0/trials", tmp_path)
    finally:
        served.terminate()
        served.wait(30)
    words = " ".join(re.sub(r"<[^>]+>", " ", elements).split())
    assert not console and "Best Trial" in words
    assert {"stage1.width", "stage2.depth", "stage3.layer2.mid"} <= set(words.split())
