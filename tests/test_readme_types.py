"""What READMEs show in Python passes a type checker with its defaults, as a user's editor runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
READMES = sorted(path for path in TOP.glob("**/README.md") if not {".venv", "runs", "build"} & set(path.parts))
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
WHOLE = ("README.md", "nas_kd/README.md")  # the blocks of these make a script of their own
BEFORE = """\
import timm
import nas_kd
from torch import nn

data = nas_kd.load_data("digits")
teacher = nas_kd.load_teacher("cifar_resnet20")
space = nas_kd.teacher_space(teacher, data)
net = nas_kd.Supernet(space)
model: nn.Module = nn.Identity()
my_module: nn.Module = nn.Identity()
result = nas_kd.search(net, teacher, data)
"""
UNTYPED = ('channels(), model.num_features, model.pretrained_cfg["mean"]',)  # what timm adds to its modules


@pytest.mark.slow
def test_examples_are_typed(tmp_path: Path) -> None:
    files = []
    for path in READMES:
        name = path.relative_to(TOP).as_posix()
        blocks = BLOCK.findall(path.read_text(encoding="utf-8"))
        if blocks:
            lines = "\n".join(["" if name in WHOLE else BEFORE, *blocks]).splitlines()
            text = "\n".join(line for line in lines if not any(part in line for part in UNTYPED))
            files.append(tmp_path / f"{name.replace('/', '_').removesuffix('.md')}.py")
            files[-1].write_text(text + "\n", encoding="utf-8")
    assert len(files) >= 6
    command = [sys.executable, "-m", "mypy", "--config-file=", "--check-untyped-defs", *map(str, files)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
