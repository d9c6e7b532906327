"""Every `nas-kd` command of every README: read, checked, and described on images made here; the cheap ones run.

What a command needs that is not in the repository (images, weights, a run folder) is made under the name that the
README uses. Commands that train take minutes and are not run here (tests/e2e and tests/experiments train): their
settings are checked, and `describe` opens their teacher (with random weights) and their space, pairs them and checks
the budget.
"""

from __future__ import annotations

import re
import shlex
import tarfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from test_readme import READMES, TOP
from tiny_texts import bert, reviews

import nas_kd
from nas_kd.cli import main
from nas_kd.config.options import FLAGS
from nas_kd.data.config import DataConfig
from nas_kd.pipeline.command_table import COMMANDS, JOINS
from nas_kd.pipeline.compare_command import read_compare
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.describe import describe
from nas_kd.pipeline.export_command import read_export
from nas_kd.pipeline.fit_time import read_time
from nas_kd.pipeline.given import Given
from nas_kd.pipeline.init_command import read_init
from nas_kd.pipeline.places import check_places
from nas_kd.pipeline.read_config import read_config
from nas_kd.runs.run import Run
from nas_kd.teacher import cifar_resnet56

# a word of a README that stands for something of the reader's -> what it stands for here
NAMES = {
    "CONFIG": "experiments/digits.yaml",
    "CONFIG.yaml": "experiments/digits_space.yaml",
    "COMMAND": "run",
    "RUN": "runs/mine",
    "STUDENT": "student",
    "DIR": "runs/mine",
    "runs/digits": "runs/mine",
    "test/": "images/",
    "my.safetensors": "mine.safetensors",
    "resnet50": "resnet26",  # has the same kind of blocks, and half of them
}
# what a README leaves out, in words around the command, by `...`, or because the command is only named
LEFT_OUT = {
    "blockwise --stage 3": ["experiments/digits.yaml", "--space", "digits"],
    "describe": ["experiments/digits.yaml"],
    "describe --space my_space.py --search.max_macs 60%": ["--data.train", "images"],
    "rank": ["experiments/digits.yaml"],
    "rank experiments/rank/resnet56.yaml": ["--teacher.checkpoint", "cifar10-jpeg/resnet56.safetensors"],
    "run ... --teacher.model resnet50 --teacher.checkpoint my.safetensors": ["--data.train", "images"],
    "run --space ofa_mobilenet_v3 --supernet.checkpoint ofa_mbv3_d234_e346_k357_w1.0 "
    "--supernet.kernel_transform true --supernet.epochs 0 ...": [
        "--teacher.model",
        "resnet18",
        "--teacher.epochs",
        "1",
    ],
    "teacher": ["experiments/digits.yaml"],
}
RUN_HERE = {"--completion", "methods", "status", "report", "--help"}  # they answer in a second
READ_ONLY = {"run ... --teacher.model resnet50 --teacher.checkpoint my.safetensors": "as README.md's own, 5 s more"}
DESCRIBED: dict[str, str] = {}
SPACE = re.search(r"```python\n(# my_space\.py\n.*?)```", (TOP / "search_spaces/README.md").read_text(), re.DOTALL)


def commands_of(text: str) -> list[str]:
    """Return the commands in a README's code, one a line, without comments and what starts them."""
    text = re.sub(r"\\\n\s*", " ", text)
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in fenced for line in block.splitlines()]
    lines += [line for line in text.splitlines() if line.startswith("    ")]
    inline = [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    found = [line.partition(" # ")[0].rpartition("nas-kd ")[2] for line in (*lines, *inline) if "nas-kd " in line]
    return [" ".join(line.rstrip("& ").split()) for line in found]


EVERY = sorted({command for path in READMES for command in commands_of(path.read_text())})


def _picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the READMEs name."""
    assert SPACE is not None
    folder = tmp_path_factory.mktemp("readme")
    (folder / "experiments").symlink_to(TOP / "experiments")
    (folder / "my_space.py").write_text(SPACE.group(1))
    for number in range(120):
        path = folder / "images" / f"class_{number % 10}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _picture(number).save(path)
    tars = folder / "cifar10-jpeg"
    tars.mkdir()
    for name in ("train.tar", "test.tar"):
        with tarfile.open(tars / name, "w") as tar:
            tar.add(folder / "images", "images")
    save_file(cifar_resnet56().state_dict(), tars / "resnet56.safetensors")
    save_file(timm.create_model("resnet26", num_classes=10).state_dict(), folder / "mine.safetensors")
    torch.save({}, folder / "ofa_mbv3_d234_e346_k357_w1.0")
    table = nas_kd.latency_template(nas_kd.load_space("digits"), folder / "phone.csv", in_chans=1, num_classes=10)
    pd.read_csv(table, dtype=str).assign(ms=2.0).to_csv(table, index=False)
    (folder / "student").mkdir()
    if find_spec("transformers") is not None:
        bert(folder / "my-bert")
        reviews().to_csv(folder / "reviews.csv", index=False)
        texts = folder / "runs" / "text_space"  # as experiments/text_space.py leaves it
        bert(texts / "all-minilm-l6-v2")
        for seed, name in enumerate(("train_4000.csv", "test_4000.csv")):
            reviews(4000, seed).to_csv(texts / name, index=False)
    Run(folder / "runs" / "mine").record_config((TOP / "experiments" / "digits_space.yaml").read_text())
    return folder


def test_the_commands_are_found() -> None:
    text = "a `nas-kd rank\nX` b\n\n    x && nas-kd run C \\\n        --run R\n\n```sh\nnas-kd search D &  # e\n```"
    assert sorted(commands_of(text)) == ["rank X", "run C --run R", "search D"]
    assert {command.split()[0] for command in EVERY} >= set(COMMANDS) and len(EVERY) > 25


@pytest.mark.parametrize("command", EVERY)
def test_a_command_does_what_its_readme_says(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("nas_kd.pipeline.describe.DRAWS", 20)
    name, *words = [NAMES.get(word, word) for word in shlex.split(command)]
    assert name in COMMANDS or name in FLAGS or name in RUN_HERE, f"no command {name}"
    if name in RUN_HERE or "--help" in words:
        assert main([name, *words]) == 0 and capsys.readouterr().out
        return
    if name == "export":
        assert read_export([word for word in words if word != "..."]) is not None
        return
    if name == "init":
        _, values, time = read_init(words)
        assert values["search.max_macs"] and read_time(time) > 0
        return
    if name == "compare":
        assert len(read_compare([word for word in words if word != "..."])[0]) > 1
        return
    assert "--worker" not in words or name in JOINS
    given = [word for word in words if word not in ("...", "--worker")]
    config = read_config([*given, *LEFT_OUT.get(command, [])], command=name)
    assert config is not None
    if str(config.data.train).endswith(".csv"):  # of texts
        pytest.importorskip("transformers")
    elif config.data.train != "digits" or config.data.subset or config.space == "ofa_mobilenet_v3":
        config = replace(config, data=DataConfig(train="images", resolution=32))
    if COMMANDS[name].teaches:
        config.teacher.need_weights()
    check_places(config)
    if command in READ_ONLY:
        return
    said = described(replace(config, run=None))
    assert "smallest: " in said and (config.teacher.model is None or f"teacher: {config.teacher.model}" in said)
    assert "student stage 1 (" in said or config.derived or config.engine != "exact"


def described(config: Config) -> str:
    """Describe what settings name, once for each."""
    key = config.to_yaml()
    if key not in DESCRIBED:
        DESCRIBED[key] = "\n".join(describe(Given(config), shipped=True))
    return DESCRIBED[key]
