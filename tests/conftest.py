"""What all tests share: one thread a test process, and the folder of real test data when there is one."""

from __future__ import annotations

import os

# before torch is imported: two test processes of two threads each would only wait for each other
os.environ["OMP_NUM_THREADS"] = os.environ.get("NAS_KD_TEST_THREADS", "1")  # 2 to see that no verdict depends on it

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a script's background job, where tests could not send it
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parent))  # for what several folders share
pytest_plugins = ["derived_teachers", "forks", "rating_tables", "textures", "tiny_texts"]


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """A folder with train.tar, test.tar (class folders of CIFAR-10 images) and resnet56.safetensors."""
    folder = os.environ.get("NAS_KD_TEST_DATA")
    if not folder:
        pytest.skip("NAS_KD_TEST_DATA names no folder with train.tar, test.tar and resnet56.safetensors")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where commands keep what their user has named for a run: not in the home of who runs the tests."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process one half of the tests, and what is left of the other's when it is done.

    What the tests of a file share is made once that way; handed out by the dozen, they would make it in both processes.
    """
    if config.getoption("dist") != "load":  # somebody asked for another
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread in this process too, where it is compared with workers, which have one, or is forked."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
