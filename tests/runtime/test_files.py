"""Workers need open files, and say so where the system allows too few."""

from __future__ import annotations

import resource

import pytest

from nas_kd.errors import SettingError
from nas_kd.runtime.jobs import FILES, FILES_OF_WORKER, allow_files, run_jobs

NEED = FILES + 2 * FILES_OF_WORKER


def limits(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    """Let the system have these limits; returns those that are set."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: given.append(pair))
    return given


def test_too_few_are_said_before_a_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 32, 32)
    with pytest.raises(
        SettingError, match=f"workers=2: expected 1, or a limit of at least {NEED} open files; it is 32"
    ):
        next(run_jobs(abs, [{}, {}], workers=2))
    assert list(run_jobs(dict, [{"a": 1}], workers=1)) == [{"a": 1}]  # which needs none


@pytest.mark.parametrize("hard", [4096, resource.RLIM_INFINITY])
def test_a_soft_limit_is_raised(hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = limits(monkeypatch, 32, hard)
    allow_files(2)
    assert given == [(NEED, hard)]


def test_enough_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given = limits(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert list(run_jobs(dict, [{"a": 1}, {"a": 2}], workers=2)) == [{"a": 1}, {"a": 2}]
    assert given == []
