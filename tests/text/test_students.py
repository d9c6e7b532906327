"""Text students: folders that load anywhere, folders of the library where it can describe them, and whole runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_texts import bert, reviews

import nas_kd
from nas_kd.cli import main
from nas_kd.data import Data
from nas_kd.derive.space import TeacherSpace
from nas_kd.errors import SettingError
from nas_kd.export.text import save_text_student, stock_model
from nas_kd.space.arch import Candidate
from nas_kd.teacher import Teacher

pytest.importorskip("transformers")

SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 16, "warmup_epochs": 0.1}


@pytest.fixture(scope="module")
def space(text_teacher: Teacher, review_data: Data) -> TeacherSpace:
    return nas_kd.teacher_space(text_teacher, review_data)


def arch_of(space: TeacherSpace, layers: list[tuple[int, int] | None]) -> Any:
    width = space.stages[0].widths[0]
    return space.arch([Candidate(width, () if layer is None else (layer,)) for layer in layers])


def test_a_student_folder_needs_nothing_else(
    space: TeacherSpace, text_teacher: Teacher, review_data: Data, tmp_path: Path
) -> None:
    arch = arch_of(space, [(2, 24), None, (4, 48), (1, 8)])
    net = nas_kd.Supernet(space)
    student = nas_kd.retrain(
        arch, text_teacher, review_data, space=space, supernet=net, run=tmp_path, folder="s", **SHORT
    )
    again: Any = nas_kd.load_student(tmp_path / "s" / "student")
    batch = next(iter(review_data.test.clean(16)))
    assert torch.equal(again(batch.x), student(batch.x))
    assert again.info["classes"] == ["neg", "pos"] and again.info["tokens"]["length"] == review_data.resolution
    assert not (tmp_path / "s" / "transformers").exists()
    card = (tmp_path / "s" / "student" / "README.md").read_text()
    assert "images" not in card and "training texts" in card
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0].replace("FOLDER", str(tmp_path / "s" / "student"))
    exec(compile(code, "card", "exec"), {})
    assert "no folder for transformers" in (tmp_path / "log.txt").read_text()
    teacher = nas_kd.load_teacher(str(tmp_path / "s" / "student")).bind(review_data)
    assert torch.equal(teacher(batch.x), student(batch.x))
    data = nas_kd.load_data(
        str(_table(tmp_path)),
        tokenizer=str(tmp_path / "s" / "student" / "tokenizer"),
        rate=0.2,
        select=0.2,
    )
    assert data.tokens is not None and data.tokens.vocabulary == review_data.tokens.vocabulary  # type: ignore[union-attr]


def _table(folder: Path) -> Path:
    reviews().to_csv(folder / "again.csv", index=False)
    return folder / "again.csv"


def test_uniform_students_open_in_the_library(
    space: TeacherSpace, text_teacher: Teacher, review_data: Data, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    arch = arch_of(space, [(4, 24), None, (4, 24), None])
    net = nas_kd.Supernet(space)
    student = nas_kd.retrain(
        arch, text_teacher, review_data, space=space, supernet=net, run=tmp_path, folder="s", **SHORT
    )
    place = tmp_path / "s" / "transformers"
    stock = AutoModelForSequenceClassification.from_pretrained(place).eval()
    assert stock.config.num_hidden_layers == 2 and stock.config.intermediate_size == 24
    assert stock.config.id2label == {0: "neg", 1: "pos"}
    batch = next(iter(review_data.test.clean(16)))
    with torch.no_grad():
        torch.testing.assert_close(stock(**batch.x).logits, student(batch.x), atol=1e-5, rtol=1e-5)
    assert len(AutoTokenizer.from_pretrained(place)) == len(AutoTokenizer.from_pretrained(text_teacher.name))
    teacher = nas_kd.load_teacher(str(place)).bind(review_data)
    torch.testing.assert_close(teacher(batch.x), student(batch.x), atol=1e-5, rtol=1e-5)


def test_a_folder_of_the_same_name_stays(space: TeacherSpace, bert_folder: Path, tmp_path: Path) -> None:
    student = nas_kd.Supernet(space).extract(arch_of(space, [(4, 24), None, (4, 24), None]), {})
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "own.txt").write_text("mine")
    given = (student, tmp_path / "student", str(bert_folder), ["neg", "pos"])
    said = save_text_student(*given)
    assert said is not None and "nas_kd did not write it" in said
    assert [path.name for path in (tmp_path / "transformers").iterdir()] == ["own.txt"]
    assert (tmp_path / "student" / "tokenizer" / "tokenizer.json").is_file()
    shutil.rmtree(tmp_path / "transformers")
    for _ in range(2):  # its own is written anew
        assert save_text_student(*given) is None
        assert (tmp_path / "transformers" / "model.safetensors").is_file()
    other = nas_kd.Supernet(space).extract(arch_of(space, [(2, 48)] * 4), {})
    assert "heads" in str(save_text_student(other, *given[1:]))  # and goes where another student has none
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"]


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([(4, 24), (4, 48), None, None], "MLP widths differ between layers: 24, 48"),
        ([(2, 48), (2, 48), (2, 48), (2, 48)], "fewer attention heads"),
    ],
)
def test_others_say_why_not(layers: Any, why: str, space: TeacherSpace) -> None:
    student: Any = nas_kd.Supernet(space).extract(arch_of(space, layers), {})
    assert why in stock_model(student)


def test_the_whole_teacher_is_a_model_of_the_library(space: TeacherSpace, text_teacher: Teacher) -> None:
    student: Any = nas_kd.Supernet(space).extract(space.largest(), {})
    assert stock_model(student).config.num_hidden_layers == 4


@pytest.mark.parametrize("method", ["fitnet", "sp", "crd", "cs_kd"])
def test_methods_of_images_are_refused(
    method: str, space: TeacherSpace, text_teacher: Teacher, review_data: Data
) -> None:
    with pytest.raises(SettingError, match=r"retrain\.method"):
        nas_kd.retrain(space.largest(), text_teacher, review_data, space=space, method=method, **SHORT)


def test_unlabelled_texts_teach_too(
    space: TeacherSpace, text_teacher: Teacher, review_data: Data, bert_folder: Path, tmp_path: Path
) -> None:
    reviews(160, seed=4).to_csv(tmp_path / "more.csv", index=False)
    how: dict[str, Any] = {"tokenizer": str(bert_folder), "rate": 0.2, "select": 0.2}
    more = nas_kd.load_data(str(tmp_path / "more.csv"), length=review_data.resolution, **how)
    net = nas_kd.Supernet(space)
    given: dict[str, Any] = {"space": space, "supernet": net, "method": "kd", **SHORT}
    nas_kd.retrain(space.largest(), text_teacher, review_data, unlabelled=more, **given)
    other = nas_kd.load_data(str(tmp_path / "more.csv"), length=8, **how)
    with pytest.raises(SettingError, match=r"data\.length"):
        nas_kd.retrain(space.largest(), text_teacher, review_data, unlabelled=other, **given)


def test_mixed_texts_are_refused(space: TeacherSpace, text_teacher: Teacher, review_data: Data) -> None:
    with pytest.raises(SettingError, match="texts are not mixed"):
        nas_kd.retrain(space.largest(), text_teacher, review_data, space=space, mixup=0.2, **SHORT)


def test_formats_of_images_are_refused(space: TeacherSpace) -> None:
    student = nas_kd.Supernet(space).extract(space.largest(), {})
    with pytest.raises(SettingError, match="a student of images"):
        nas_kd.export(student, to="onnx")


def options(folder: Path, table: Path, run: Path) -> list[str]:
    """The command of the README, as short as it can be."""
    named = {
        "run": run,
        "teacher.model": f"{folder}/",
        "teacher.check": "warn",
        "data.train": table,
        "data.rate": 0.2,
        "data.select": 0.2,
        "search.max_macs": "50%",
        "search.trials": 3,
        "search.top": 1,
        "search.epochs": 1,
        "retrain.epochs": 1,
        "retrain.seeds": 1,
        "retrain.random_students": 1,
        "retrain.batch_size": 16,
        "derive.widths": "[0.5, 1]",
        "retrain.rivals": "[new_weights, bag, bilstm=8]",
        "workers": 1,
        "plan": "false",
    }
    return [text for name, value in named.items() for text in (f"--{name}", str(value))]


def test_a_run_from_the_command_line(
    bert_folder: Path, review_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bert(tmp_path / "small", layers=1, seed=3)
    rivals = f"[new_weights, even_width, even_depth, bag, bilstm=8, shallow=1x16, pretrained={tmp_path / 'small'}]"
    command = ["run", *options(bert_folder, review_table, tmp_path / "run"), "--retrain.rivals", rivals]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "found" in said.out and "texts of" in said.err
    rows = pd.read_csv(tmp_path / "run" / "retrain" / "results.csv")
    assert {
        "found",
        "random_1",
        "new_weights",
        "even_width",
        "even_depth",
        "bag",
        "bilstm",
        "shallow",
        "pretrained",
    } <= set(rows["role"])
    lstm = rows.set_index("role").loc["bilstm"]
    assert lstm["macs"] == student_macs(tmp_path / "run" / lstm["folder"])
    student: Any = nas_kd.load_student(tmp_path / "run" / rows["folder"][0])
    assert student.info["tokens"]["length"] > 4
    log = (tmp_path / "run" / "log.txt").read_text()
    page = (tmp_path / "run" / "report" / "report.html").read_text()
    shown = re.sub(r"<(style|script|pre|code)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).replace(
        "small_images", ""
    )
    for spoken in (said.out, said.err, log, shown.partition("Environment")[0]):
        assert not re.search(r"(?<![\w.])[Ii]mages?\b", spoken), re.findall(r".{40}[Ii]mages?.{20}", spoken)[:9]
    before = rows.to_csv()
    assert main(command) == 0  # all is done: it is read back
    assert pd.read_csv(tmp_path / "run" / "retrain" / "results.csv").to_csv() == before


def student_macs(folder: Path) -> int:
    """Count the linear maps of a BiLSTM of width 8 from its weights' shapes, times the tokens that each sees."""
    student: Any = nas_kd.load_student(folder)
    length = student.info["tokens"]["length"]
    shapes = {name: p.numel() for name, p in student.named_parameters() if p.ndim > 1 and "embeddings" not in name}
    return sum(count * (length if name.startswith("lstm") else 1) for name, count in shapes.items())


def test_an_encoder_without_a_classifier_is_fine_tuned_first(review_table: Path, tmp_path: Path) -> None:
    from transformers import BertForMaskedLM

    body = bert(tmp_path / "classes", labels=5)
    shutil.copytree(tmp_path / "classes", tmp_path / "bare")
    BertForMaskedLM(body.config).save_pretrained(tmp_path / "bare")
    for name in ("classes", "bare"):
        run = tmp_path / f"run_{name}"
        named = options(tmp_path / name, review_table, run)
        assert main(["teacher", *named[:10], "--teacher.epochs", "1", "--teacher.batch_size", "16"]) == 0
        assert json.loads((run / "teacher" / "check.json").read_text())["seen"]["images"] > 0


BAD = {
    "a named space": (["--space", "resnet_cifar"], "space"),
    "rivals of images": (["--retrain.rivals", "[taylor]"], "retrain.rivals"),
    "ready-made models": (["--retrain.rivals", "[resnet18]"], "retrain.rivals"),
    "sizes that are none": (["--retrain.rivals", "[shallow=2]"], "retrain.rivals"),
    "a folder that is none": (["--retrain.rivals", "[pretrained=nowhere]"], "retrain.rivals"),
    "a width of another": (["--retrain.rivals", "[shallow=1x16]", "--retrain.method", "pkd"], "retrain.rivals"),
    "beyond the budget": (["--retrain.rivals", "[shallow=9x64]"], "retrain.rivals"),
    "widths that are none": (["--retrain.rivals", "[bilstm=wide]"], "retrain.rivals"),
    "rivals without layers": (["--retrain.method", "tinybert"], "retrain.rivals"),
    "methods of images": (["--retrain.method", "fitnet"], "retrain.method"),
    "sizes": (["--derive.resolutions", "[16]"], "derive.resolutions"),
    "a folder of images": (["--data.train", "."], "data.train"),
    "an unknown column": (["--data.text", "words"], "data.text"),
    "too long": (["--data.length", "100"], "data.length"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_end_a_run_before_it_begins(
    name: str, bert_folder: Path, review_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, field = BAD[name]
    assert main(["run", *options(bert_folder, review_table, tmp_path / "run"), *given]) == 2
    assert f"{field}=" in capsys.readouterr().err
    assert not (tmp_path / "run" / "repair").exists()
