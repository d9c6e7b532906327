"""A mistake ends with exit code 2 and one line that helps, before any epoch, and leaves finished work alone."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_run import Made, Said, changes, digests

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.space import ElasticSpace
from nas_kd.teacher import build_model

Main = Callable[..., Said]
SPACE = """\
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.space import ElasticSpace

SPACE = ElasticSpace(
    "mine",
    ConvStem(width=8),
    (
        BasicStage(widths=(4, 8), depths=(1,), mids=(2, 4)),
        BasicStage(widths=(8,), depths=(1, 2), mids=(4,), stride=2),
    ),
    LinearHead(),
)
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Image folders, checkpoints and a space, good and bad, under the names that the tests use."""
    rng = np.random.default_rng(0)
    for name, sizes in {"three": (8, 8, 8), "one": (8, 8, 1)}.items():
        for label, size in enumerate(sizes):
            folder = tmp_path / name / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(size):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    shutil.copytree(tmp_path / "three", tmp_path / "broken")
    (tmp_path / "broken/class1/3.png").write_bytes(b"\x89PNG not an image")
    for name, model, classes in (("five", "cifar_resnet8", 5), ("deep", "cifar_resnet14", 10)):
        save_file(build_model(model, num_classes=classes, in_chans=1).state_dict(), tmp_path / f"{name}.safetensors")
    torch.save({"model": Path("code")}, tmp_path / "code.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "text.safetensors").write_text("no weights at all")
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "empty.py").write_text("A = 1\n")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("years of work")
    return tmp_path


# options on a finished run, with FILES for the folder above -> what the message must hold
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    # paths and images
    "missing folder": (["--data.train", "FILES/nowhere"], ["data.train", "nowhere", "does not exist", "path"]),
    "missing test": (["--data.test", "FILES/nowhere.tar"], ["data.test", "nowhere.tar", "check the path"]),
    "one image": (["--data.train", "FILES/one", "--data.subset", "null"], ["class2", "at least 4 images"]),
    "unreadable": (["--data.train", "FILES/broken", "--data.subset", "null"], ["class1/3.png"]),
    "not a tar": (["--data.train", "FILES/file"], ["data.train", ".tar of class folders"]),
    "subset": (["--data.subset", "5"], ["data.subset=5", "30", "1453"]),
    # teacher
    "classes": (
        ["--teacher.epochs", "0", "--teacher.checkpoint", "FILES/five.safetensors"],
        ["10", "5", "number of classes"],
    ),
    "architecture": (
        ["--teacher.epochs", "0", "--teacher.checkpoint", "FILES/deep.safetensors"],
        ["teacher.checkpoint", "it has layer1.1.", "(16,", "which cifar_resnet8 lacks"],
    ),
    "code": (
        ["--teacher.epochs", "0", "--teacher.checkpoint", "FILES/code.pt"],
        ["teacher.checkpoint", "code.pt", "weights only", "torch.save(model.state_dict(), path)"],
    ),
    "plain pickle": (["--teacher.checkpoint", "FILES/plain.pkl"], ["teacher.checkpoint", "weights only"]),
    "not safetensors": (
        ["--teacher.checkpoint", "FILES/text.safetensors"],
        ["text.safetensors", "undamaged"],
    ),
    "missing checkpoint": (["--teacher.checkpoint", "FILES/no.pt"], ["teacher.checkpoint", "existing file"]),
    "unknown teacher": (["--teacher.model", "resnet5O"], ["teacher.model='resnet5O'", "resnet50"]),
    "no weights": (["--teacher.epochs", "0"], ["teacher.checkpoint", "cifar_resnet8", "teacher.epochs"]),
    "unknown tap": (["--teacher.stages", "[layer1, layer2, layre3]"], ["teacher.stages", "layre3", "layer3"]),
    # budget
    "below the smallest": (["--search.max_macs", "30k"], ["search.max_macs='30k'", "35,488"]),
    "params below the smallest": (["--search.max_params", "2000"], ["search.max_params", "2,966"]),
    "unparseable": (["--search.max_macs", "60 percent"], ["search.max_macs='60 percent'", "60%", "6.5M"]),
    "a share without its sign": (["--search.max_macs", "0.6"], ["search.max_macs=0.6", "use search.max_macs=60%"]),
    "above all": (["--search.max_macs", "160%"], ["160%", "up to 100%"]),
    "latency": (["--search.max_latency_ms", "-1"], ["search.max_latency_ms=-1", "above 0"]),
    # names
    "unknown space": (["--space", "digit"], ["space='digit'", "did you mean 'digits'"]),
    "missing space": (["--space", "FILES/no.py"], ["no.py", "existing .py file"]),
    "space without SPACE": (["--space", "FILES/empty.py"], ["empty.py", "SPACE"]),
    "unknown method": (["--retrain.method", "kdls"], ["retrain.method='kdls'", "kd_ls"]),
    "unknown setting": (["--retrain.epoch", "3"], ["retrain.epoch", "retrain.epochs"]),
    "unknown word": (["--blockwise.sampling", "fare"], ["blockwise.sampling='fare'", "fair"]),
    # ranges
    "no epochs": (["--supernet.epochs", "0"], ["supernet.epochs=0", "at least 1"]),
    "negative epochs": (["--retrain.epochs", "-3"], ["retrain.epochs=-3", "at least 1"]),
    "negative teacher epochs": (["--teacher.epochs", "-1"], ["teacher.epochs=-1", "at least 0"]),
    "half an epoch": (["--blockwise.epochs", "0.5"], ["blockwise.epochs=0.5", "integer"]),
    "batch": (["--retrain.batch_size", "5000"], ["retrain.batch_size=5000", "347"]),
    "warm-up": (["--retrain.warmup_epochs", "9"], ["retrain.warmup_epochs=9", "retrain.epochs=2"]),
    "workers": (["--workers", "0"], ["workers=0", "at least 1"]),
    "device": (["--device", "cuda:99"], ["device='cuda:99'", "cpu"]),
    # what a finished run was made with
    "changed seed": (["--seed", "1"], ["seed=1", "seed=0", "another --run"]),
    "changed teacher setting": (["--teacher.lr", "0.2"], ["teacher.lr=0.2", "teacher.lr=0.1"]),
    "changed teacher": (["--teacher.model", "cifar_resnet14"], ["teacher", "cifar_resnet14", "cifar_resnet8"]),
    "changed supernet setting": (["--supernet.epochs", "3"], ["supernet.epochs=3", "supernet.epochs=2", "delete"]),
    "changed blockwise setting": (["--blockwise.init", "scratch"], ["blockwise.init='scratch'", "another --run"]),
    "changed search setting": (["--search.calibration_images", "65"], ["images=65", "images=64", "another --run"]),
    "fewer trials": (["--search.trials", "29"], ["search.trials=29", "at least 30", "another --run"]),
    "changed retraining": (["--retrain.lr", "0.2"], ["0.2", "0.1", "another --run"]),
    "changed splits": (["--data.seed", "1"], ["data.seed='1'", "data.seed=0", "another --run"]),
    "changed views": (["--data.views", "3"], ["data.views=3", "data.views=2", "another --run"]),
    "changed data": (
        [
            "--data.train",
            "FILES/three",
            "--data.subset",
            "null",
            "--supernet.batch_size",
            "4",
            "--blockwise.batch_size",
            "4",
            "--retrain.batch_size",
            "4",
        ],
        ["data", "another --run", "'digits'"],
    ),
    "changed space": (["--space", "FILES/space.py"], ["space='mine'", "'digits'", "another --run"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_finished_run_refuses_and_stays(name: str, made: Made, copied: Path, files: Path, nas_kd_main: Main) -> None:
    options, parts = REFUSED[name]
    before, config = digests(copied), (copied / "config.yaml").read_bytes()
    timing = (copied / "timing.csv").read_bytes()
    said = nas_kd_main("run", made.config, "--run", copied, *(o.replace("FILES", str(files)) for o in options))
    assert said.code == 2, said.err
    _helps(said.err, parts)
    assert changes(before, digests(copied)) == []
    assert (copied / "config.yaml").read_bytes() == config
    assert (copied / "timing.csv").read_bytes() == timing


def _helps(err: str, parts: list[str]) -> None:
    lines = [line for line in err.splitlines() if line.startswith("nas-kd: ")]
    assert len(lines) == 1 and "Traceback" not in err
    for part in [*parts, ": expected "]:
        assert part in lines[0], lines[0]


# options of a new run -> what the message must hold; nothing may be trained before it
EARLY: dict[str, tuple[list[str], list[str]]] = {
    "no images to choose on": (["--data.select", "0"], ["data.select"]),
    "no images to rate on": (["--data.rate", "0"], ["data.rate"]),
    "calibration": (["--blockwise.calibration_images", "1"], ["blockwise.calibration_images=1", "2"]),
    "rating": (["--blockwise.rate_images", "1"], ["blockwise.rate_images=1", "2"]),
    "unknown tap": (["--teacher.stages", "[layer1, layer2, layre3]"], ["teacher.stages", "layer3"]),
    "too few taps": (["--teacher.stages", "[layer1, layer2]"], ["teacher.stages", "3"]),
    "batch of a teacher": (["--teacher.batch_size", "5000"], ["teacher.batch_size=5000", "347"]),
}


@pytest.mark.parametrize("name", EARLY)
def test_a_new_run_refuses_before_the_first_epoch(name: str, made: Made, tmp_path: Path, nas_kd_main: Main) -> None:
    options, parts = EARLY[name]
    said = nas_kd_main("run", made.config, "--run", tmp_path / "run", *options)
    assert said.code == 2, said.err
    _helps(said.err, parts)
    assert not list((tmp_path / "run").rglob("metrics.csv")) and "epochs" not in said.err.split("nas-kd: ")[0]


def test_too_few_open_files_are_told_before_the_first_epoch(
    made: Made, tmp_path: Path, nas_kd_main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (32, 32))
    said = nas_kd_main("run", made.config, "--run", tmp_path / "run", "--workers", "2")
    assert said.code == 2, said.err
    _helps(said.err, ["workers=2", "open files; it is 32", "ulimit -n"])
    assert not list((tmp_path / "run").rglob("metrics.csv"))


def test_a_run_folder_that_is_none(made: Made, files: Path, nas_kd_main: Main) -> None:
    for command in ("run", "supernet", "report", "status"):
        for name, parts in (("file", ["run=", "file"]), ("full", ["run=", "full"])):
            if command in ("report", "status"):
                parts = ["run="]
            said = nas_kd_main(command, made.config, "--run", files / name)
            assert said.code == 2, said.err
            _helps(said.err, parts)
    assert (files / "file").read_text() == "a file"
    assert [path.name for path in (files / "full").iterdir()] == ["thesis.tex"]


def test_two_commands_do_not_work_in_one_folder(made: Made, copied: Path, nas_kd_main: Main) -> None:
    from nas_kd.runs.run import Run

    before = digests(copied)
    with Run(copied).locked():
        said = nas_kd_main("run", made.config, "--run", copied)
    assert said.code == 2
    _helps(said.err, ["run=", "a folder that no other command uses", "wait for it"])
    assert changes(before, digests(copied)) == []


def test_pixels_that_changed_under_the_same_names(tmp_path: Path, files: Path, nas_kd_main: Main) -> None:
    options = (
        "--space",
        files / "space.py",
        "--data.train",
        files / "three",
        "--data.rate",
        "0.3",
        "--data.select",
        "0.3",
        "--teacher.model",
        "cifar_resnet8",
        "--teacher.epochs",
        "1",
        "--teacher.warmup_epochs",
        "0",
        "--teacher.batch_size",
        "2",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--run",
        tmp_path / "run",
        "--supernet.batch_size",
        "2",
        "--blockwise.batch_size",
        "2",
        "--retrain.batch_size",
        "2",
    )
    said = nas_kd_main("teacher", *options)
    assert said.code == 0, said.err
    before = digests(tmp_path / "run")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(files / "three/class0/0.png")
    said = nas_kd_main("teacher", *options)
    assert said.code == 2
    _helps(said.err, ["data", "another --run"])
    assert changes(before, digests(tmp_path / "run")) == []


def test_a_space_of_the_same_name_with_other_choices(made: Made, copied: Path, nas_kd_main: Main) -> None:
    path = copied.parent / "digits.py"
    path.write_text(SPACE.replace('"mine"', '"digits"'))
    said = nas_kd_main("run", made.config, "--run", copied, "--space", path)
    assert said.code == 2
    _helps(said.err, ["space", "stages", "hash"])
    space = ElasticSpace(
        "digits", ConvStem(width=8), (BasicStage(widths=(4, 8), depths=(1,), mids=(2, 4)),), LinearHead()
    )
    assert space.hash not in (copied / "space.json").read_text()


def test_a_size_of_the_images_is_never_ignored_silently(nas_kd_main: Callable[..., Said]) -> None:
    given = ("describe", "--space", "attentive_nas", "--teacher.model", "null", "--plan", "false")
    said = nas_kd_main(*given, "--data.resolution", 100)
    assert said.code == 2 and "data.resolution=100: expected one of the resolutions of attentive_nas" in said.err
    for size, more in ((288, ""), (192, "; larger ones are enlarged: data.resolution=288 keeps more of the images")):
        said = nas_kd_main(*given, "--data.resolution", size)
        own = f"takes its own (192, 224, 256, 288 px), made from images kept at {size} px{more}\n"
        assert said.code == 0 and f"  input sizes: each arch of attentive_nas {own}" in said.out
    assert "input sizes" not in nas_kd_main("describe", "--space", "digits", "--plan", "false").out
