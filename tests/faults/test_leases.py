"""The lock of a folder: what goes wrong under it is not taken for a fault of the lock."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from nas_kd.errors import SettingError
from nas_kd.leases import held


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EAGAIN])
@pytest.mark.parametrize("wait", [True, False])
def test_an_error_of_the_work_stays_what_it_was(tmp_path: Path, wait: bool, code: int) -> None:
    error = OSError(code, "of the work", "elsewhere")
    with pytest.raises(OSError) as caught, held(tmp_path / "lock", wait):  # noqa: PT011, the very object is compared
        raise error
    assert caught.value is error
    with held(tmp_path / "lock", wait=False) as ours:
        assert ours  # the lock went with the error


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").touch()

    def denied(*given: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(SettingError, match=r"lock.*permission is denied"), held(tmp_path / "lock", wait=True):
        pass


def test_a_second_holder_waits_or_is_told(tmp_path: Path) -> None:
    with held(tmp_path / "lock", wait=False) as first, held(tmp_path / "lock", wait=False) as second:
        assert first and not second
