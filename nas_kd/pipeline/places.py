"""Files and folders that settings name, looked for before anything slow is imported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nas_kd.config.hub import at_home, is_hub_name
from nas_kd.config.names import HUBS
from nas_kd.config.paths import STUDENT, existing, tokenizer_of, transformers_about
from nas_kd.data.config import FILES, IMAGES, TEXT_FILES, TEXTS, DataConfig
from nas_kd.data.shards import PREFIX, is_samples, named_shards
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config

SETS = ("torch", "hfds")  # what timm finds by name


def check_places(config: Config) -> None:
    """Check that what the settings name is there.

    Raises:
        SettingError: naming the first that is not.
    """
    from nas_kd.space.load import find_space  # late: a setting that is wrong is said without it

    if config.space is not None:
        find_space(config.space)
    data = with_tokenizer(config)
    if data.tokenizer is not None:
        existing("data.tokenizer", str(at_home("data.tokenizer", data.tokenizer)), "a folder with a tokenizer")
    else:
        data.refuse_texts()
    look = _check_images if data.tokenizer is None else _check_texts
    look("data.train", data.train, data)
    if data.test is not None:
        look("data.test", data.test, data)
    if config.supernet.checkpoint is not None:
        existing("supernet.checkpoint", config.supernet.checkpoint, "an existing file or folder")
    if config.search.first is not None:
        existing("search.first", config.search.first, "a JSON file of archs")
    if config.search.latency_table is not None:
        existing("search.latency_table", config.search.latency_table, "an existing CSV file")
    teacher = config.teacher
    if teacher.model is None:
        return
    for field, images in (("data.train", config.data.train), ("data.test", config.data.test)):
        if teacher.cache is not None and images is not None and _inside(teacher.cache, images):
            expected = f"a folder outside of {field}, where its folders count as classes and its files as data"
            raise SettingError("teacher.cache", teacher.cache, expected, "leave it out: it is then kept in the run")
    if is_path(teacher.model) and not is_hub_name(teacher.model):
        expected = "a student folder (with arch.json), a timm name or package.module:factory"
        path = existing("teacher.model", teacher.model, expected)
        if not any((path / name).is_file() for name in STUDENT) and transformers_about(path) is None:
            hint = "give the folder that `nas-kd retrain` wrote"
            expected = "a student folder, which holds arch.json, or a folder of transformers, which holds config.json"
            raise SettingError("teacher.model", teacher.model, expected, hint)
    if teacher.checkpoint is not None:
        existing("teacher.checkpoint", teacher.checkpoint, "an existing file")


def _check_images(field: str, given: str, data: DataConfig) -> None:
    """Check that images are there, and that settings of tables are for tables."""
    kind = given.partition("/")[0].lower()
    train = field == "data.train"
    if kind == "hfds":
        return
    if is_samples(given):
        named_shards(field, given[len(PREFIX) :])
        return
    if given == "digits" or kind in SETS:
        if train:
            data.check_columns(given)
        return
    path = existing(field, given, IMAGES)
    folders = path.is_dir() or path.suffix.lower() == ".tar"
    if not folders and path.suffix.lower() not in FILES:
        raise SettingError(field, given, IMAGES, "unpack it, or make an uncompressed .tar of class folders")
    if folders and train:
        data.check_columns(given, folders=True)


def with_tokenizer(config: Config) -> DataConfig:
    """Return the settings of the data, with the tokenizer of a teacher that is a text classifier."""
    model = config.teacher.model
    found = (
        None if config.data.tokenizer is not None or model is None else tokenizer_of(at_home("teacher.model", model))
    )
    return config.data if found is None else replace(config.data, tokenizer=found)


def _check_texts(field: str, given: str, data: DataConfig) -> None:
    """Check that a table of texts is there."""
    if given.partition("/")[0].lower() == "hfds":
        return
    path = existing(field, given, TEXTS)
    if path.suffix.lower() not in TEXT_FILES or not path.is_file():
        raise SettingError(field, given, TEXTS, "save the texts as a table")


def _inside(path: str, folder: str) -> bool:
    """Return whether a path is below a folder, or is it."""
    above = Path(folder).expanduser()
    return above.is_dir() and Path(path).expanduser().resolve().is_relative_to(above.resolve())


def is_path(model: str) -> bool:
    """Tell whether a teacher's name is meant as a path: timm's names have neither slashes nor leading points."""
    return not model.startswith(HUBS) and ("/" in model or model.startswith(".") or not model)
