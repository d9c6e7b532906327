"""Files of ill will: what would run when it is unpickled or built is refused, and does not run."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bad_images import TARS, bomb, good, sound, tar_of
from bad_saved import Evil, evil_pickles, students, torch_file
from safetensors.torch import save_file
from small_run import Made, Said

from nas_kd.analyse import report
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.data import load_data
from nas_kd.errors import SettingError
from nas_kd.export import load_student, save_student
from nas_kd.runs.run import Run
from nas_kd.space import ElasticSpace
from nas_kd.teacher import load_teacher
from nas_kd.teacher.weights import read_weights

NAMES = tuple(evil_pickles(Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_the_files_would_do_harm(name: str, tmp_path: Path) -> None:
    """Else nothing here could fail."""
    path = tmp_path / "PWNED"
    content = evil_pickles(path)[name]
    if name in ("a pickle by getattr", "a pickle behind weights", "a pickle in a zip"):
        return  # broken ones, which a reader must survive
    (tmp_path / "x.pt").write_bytes(content)
    try:
        torch.load(tmp_path / "x.pt", weights_only=False)
    except (RuntimeError, AttributeError, pickle.UnpicklingError):
        pickle.loads(content)
    assert path.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", [".pt", ".pkl", ".safetensors"])
def test_a_pickle_is_no_checkpoint(name: str, end: str, tmp_path: Path) -> None:
    file = tmp_path / f"x{end}"
    file.write_bytes(evil_pickles(tmp_path / "PWNED")[name])
    if name == "a pickle behind weights" and end != ".safetensors":
        assert set(read_weights(file)[0]) == {"w"}  # what is behind them is not looked at
    else:
        for read in (lambda: read_weights(file), lambda: load_teacher("cifar_resnet8", checkpoint=file)):
            with pytest.raises(SettingError) as caught:
                read()
            assert caught.value.field == "teacher.checkpoint" and caught.value.hint
    assert not (tmp_path / "PWNED").exists()


def test_a_pickle_is_no_state_of_a_run(made: Made, tmp_path: Path) -> None:
    run, evil = Path(shutil.copytree(made.run, tmp_path / "run")), tmp_path / "PWNED"
    states = sorted(run.rglob("*.pt"))
    assert {file.name for file in states} >= {"last.pt"} and len({file.parent for file in states}) >= 3
    for name, content in evil_pickles(evil).items():
        if name == "a pickle behind weights":
            continue
        for file in states:
            file.write_bytes(content)
        for folder in sorted({file.parent for file in states}):
            inputs = json.loads((folder / "stage.json").read_text())["inputs"]
            with pytest.raises(SettingError, match=r"\.pt"):
                Run(run).stage(folder.relative_to(run).as_posix(), inputs).load()
        assert not evil.exists(), name


def test_a_run_that_was_given_pickles_ends_with_a_message(
    made: Made, tmp_path: Path, nas_kd_main: Callable[..., Said]
) -> None:
    run = Path(shutil.copytree(made.run, tmp_path / "run"))
    for file in run.rglob("*.pt"):
        file.write_bytes(torch_file(Evil(tmp_path / "PWNED")))
    stage = run / "supernet/stage.json"
    stage.write_text(stage.read_text().replace('"done": true', '"done": false'))
    said = nas_kd_main("supernet", made.config, "--run", run)
    assert said.code == 2 and "last.pt" in said.err and "Traceback" not in said.err
    assert not (tmp_path / "PWNED").exists()


def tiny(folder: Path) -> Path:
    """Write a sound student folder."""
    stage = BasicStage(widths=(4,), depths=(1,), mids=(4,), stride=2)
    space = ElasticSpace("tiny", ConvStem(4), (stage,), LinearHead(), resolution=8)
    info = {"mean": [0.5], "std": [0.2], "classes": ["a", "b"], "resolution": 8}
    return save_student(space.build(space.largest(), 2, 1), folder, info=info)


def test_no_student_folder_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample, evil = tiny(tmp_path / "sound"), tmp_path / "PWNED"
    assert load_student(sample).info["classes"] == ["a", "b"]
    (tmp_path / "evil.pt").write_bytes(torch_file(Evil(evil)))
    (tmp_path / "evil.py").write_text(f"open({str(evil)!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path.parent))  # as `python -m` does with the working folder
    for number, (name, spoil) in enumerate(students(sample, evil).items()):
        folder = Path(shutil.copytree(sample, tmp_path / f"x{number}"))
        spoil(folder)
        with pytest.raises(SettingError) as caught:
            load_student(folder)
        assert caught.value.hint, name
        assert not evil.exists(), name


@pytest.mark.parametrize("place", ["evilnet.py", "evilnet/__init__.py", "src/evilnet.py", "site-packages/evilnet.py"])
def test_no_code_beside_a_student_folder_runs(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"factory": "torch.nn:Linear", "factory_kwargs": {"in_features": 2, "out_features": 3}}
    folder = save_student(torch.nn.Linear(2, 3), tmp_path / "a/student", info=info)
    about, code, evil = folder / "student.json", tmp_path / "a" / place, tmp_path / "PWNED"
    code.parent.mkdir(exist_ok=True)
    code.write_text(f"open({str(evil)!r}, 'w')\nfrom torch.nn import Linear\n")
    (code.parent / "deep.py").write_text("from torch.nn import Linear\n")
    root = code.parent.parent if code.name == "__init__.py" else code.parent
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.delitem(sys.modules, "evilnet", raising=False)
    for factory in ("evilnet:Linear", "evilnet.deep:Linear"):
        about.write_text(json.dumps(json.loads(about.read_text()) | {"factory": factory}))
        with pytest.raises(SettingError, match="next to the folder") as caught:
            load_student(folder)
        assert f"factory='{factory}'" in caught.value.hint and not evil.exists()
    about.write_text(json.dumps(json.loads(about.read_text()) | {"factory": "evilnet:Linear"}))
    load_student(folder, factory="evilnet:Linear")
    assert evil.exists()  # else nothing here could fail
    monkeypatch.delitem(sys.modules, "evilnet")


def test_an_installed_network_is_not_beside_a_student_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in a project whose environment lies in the project too."""
    site = tmp_path / "project/.venv/lib/site-packages"
    site.mkdir(parents=True)
    (site / "goodnet.py").write_text("from torch.nn import Linear\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("nas_kd.export.factory.getsitepackages", lambda: [str(site)])
    info = {"factory": "goodnet:Linear", "factory_kwargs": {"in_features": 2, "out_features": 3}}
    student = torch.nn.Linear(2, 3)
    folder = save_student(student, tmp_path / "project/student", info=info)
    assert torch.equal(load_student(folder).weight, student.weight)
    monkeypatch.delitem(sys.modules, "goodnet")


def test_what_a_reader_names_is_called(tmp_path: Path) -> None:
    student = torch.nn.Linear(2, 3)
    info = {"factory": "torch.nn:Linear", "factory_kwargs": {"in_features": 2, "out_features": 3}}
    folder = save_student(student, tmp_path / "linear", info=info)
    assert torch.equal(load_student(folder).weight, student.weight)  # a network class of an installed package
    about = folder / "student.json"
    function = {"factory": "nas_kd.teacher:build_model", "factory_kwargs": {"model": "resnet18"}}
    about.write_text(json.dumps(json.loads(about.read_text()) | function))
    with pytest.raises(SettingError, match="functions are only called when you name them"):
        load_student(folder)
    with pytest.raises(SettingError, match="tensor"):  # called, and not what the weights are of
        load_student(folder, factory="nas_kd.teacher:build_model")
    with pytest.raises(SettingError, match="saved with"):
        load_student(folder, factory="torch.nn:Linear")


@pytest.mark.parametrize("name", TARS)
def test_no_tar_writes_or_reads_outside(name: str, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "er"
    place.mkdir(parents=True)
    (place / "x.tar").write_bytes(TARS[name])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingError):
        load_data(str(place / "x.tar"), rate=0.2, select=0.2)
    assert sorted(tmp_path.rglob("*")) == before and not Path("/tmp/PWNED").exists()


def test_the_index_beside_a_huge_tar_is_neither_read_nor_written(tmp_path: Path) -> None:
    """timm unpickles and writes one beside tars of more than 10 GB; the zeros behind this one take no place."""
    content = tar_of(sound())
    with open(tmp_path / "x.tar", "wb") as file:
        file.write(content)
        file.truncate(11 * 2**30)
    index = tmp_path / "_x_tarinfos.pickle"
    assert len(load_data(str(tmp_path / "x.tar"), rate=0.2, select=0.2).classes) == 2 and not index.exists()
    index.write_bytes(pickle.dumps(Evil(tmp_path / "PWNED")))
    assert len(load_data(str(tmp_path / "x.tar"), rate=0.2, select=0.2).classes) == 2
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("memory_gib", [4.0, 1e-9])
def test_a_small_file_of_many_pixels(memory_gib: float, tmp_path: Path) -> None:
    (good(tmp_path / "x") / "yew/3.png").write_bytes(bomb(50_000))
    for resolution in (None, 8):
        with pytest.raises(SettingError, match=r"3\.png"):
            load_data(str(tmp_path / "x"), rate=0.2, select=0.2, resolution=resolution, memory_gib=memory_gib)


def test_notes_of_a_checkpoint_are_data(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors", {"nas_kd": json.dumps({"mean": [0.5], "std": [0.2]})})
    assert read_weights(tmp_path / "x.safetensors")[1] == {"mean": [0.5], "std": [0.2]}


MARK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_the_report_shows_markup_as_text(made: Made, tmp_path: Path) -> None:
    """Every text that a run took from data, settings or machine, in every JSON and CSV file it can be in."""
    from test_odd import tags

    run = Path(shutil.copytree(made.run, tmp_path / "a <b>bold<b> run"))
    for name, field in (("space.json", "name"), ("env.json", "cpu"), ("retrain/teacher.json", "name")):
        path = run / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: MARK}))
    timing = run / "timing.csv"
    timing.write_text(timing.read_text() + '"' + MARK.replace('"', '""').replace("/", "|") + '",epoch,1.0\n')
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("train: digits", f"train: {json.dumps(MARK)}"))
    page = tags(report(run))
    assert not page.tags & {"script", "img", "b"} and "onerror" not in page.names
    assert page.text.count("<script>alert(1)</script>") >= 3
    for svg in (run / "report").glob("*.svg"):
        assert "<script" not in svg.read_text() and "<img" not in svg.read_text()
