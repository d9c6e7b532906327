"""Scripts without `if __name__ == "__main__":` may use workers, unless jobs need what they define."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nas_kd
from nas_kd.runtime.main_module import main_unseen, needs_main

FREE = """
from nas_kd.runtime.jobs import run_jobs
print("starts")
print(list(run_jobs(dict, [{"a": 1}, {"a": 2}], workers=2)))
"""
OWN = """
from nas_kd.runtime.jobs import run_jobs
def double(a):
    return 2 * a
print(list(run_jobs(double, [{"a": 1}, {"a": 2}], workers=2)))
"""


def script(how: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(code)
    arguments = {"file": [str(folder / "script.py")], "stdin": ["-"], "text": ["-c", code]}[how]
    env = os.environ | {"PYTHONPATH": str(Path(nas_kd.__file__).parents[1])}
    return subprocess.run([sys.executable, *arguments], input=code, capture_output=True, text=True, env=env)


@pytest.mark.parametrize("how", ["file", *(pytest.param(how, marks=pytest.mark.slow) for how in ("stdin", "text"))])
def test_a_script_without_a_guard_runs_once(how: str, tmp_path: Path) -> None:
    done = script(how, FREE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["starts", "[{'a': 1}, {'a': 2}]"]


@pytest.mark.slow
def test_a_job_that_the_script_defines_needs_the_guard(tmp_path: Path) -> None:
    done = script("file", OWN, tmp_path)
    assert (
        "workers=2: expected 1, or memory for each worker, and a script with its calls under `if __name__"
        in done.stderr
    )
    guarded = OWN.replace("print(", "if __name__ == '__main__':\n    print(")
    done = script("file", guarded, tmp_path)
    assert done.returncode == 0 and done.stdout == "[2, 4]\n", done.stderr


class Mine:
    """Stands for a class of a script."""


def mine() -> None:
    """Stands for a function of a script."""


def test_what_a_script_defines_is_found_at_any_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    module = torch.nn.Linear(2, 2)
    values = [{"loss": mine}, [(Mine(),)], {Mine}, {"net": [module, Mine]}]
    assert not any(needs_main(value) for value in values)
    main = sys.modules["__main__"]
    for name, one in (("Mine", Mine), ("mine", mine)):
        monkeypatch.setattr(one, "__module__", "__main__")
        monkeypatch.setattr(main, name, one, raising=False)
    assert all(needs_main(value) for value in values)
    assert not needs_main({"net": module, "x": torch.zeros(3)})
    assert needs_main(lambda: None)  # which cannot be sent


def test_the_script_is_back_after_an_error() -> None:
    main = sys.modules["__main__"]
    with pytest.raises(KeyError), main_unseen(needed=False):
        assert sys.modules["__main__"] is not main
        raise KeyError
    assert sys.modules["__main__"] is main
    with main_unseen(needed=True):
        assert sys.modules["__main__"] is main
