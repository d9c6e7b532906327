"""Where a teacher's cache may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_kd.config.settings import build
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.places import check_places


@pytest.mark.parametrize("inside", ["images", "images/cache", "images/a/../cache", "link/cache"])
def test_a_cache_among_images_would_be_a_class(inside: str, tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    values = {"data.train": str(tmp_path / "images"), "space": "digits", "teacher.model": "cifar_resnet8"}
    check_places(build(Config, values | {"teacher.cache": str(tmp_path / "images_cache")}))
    with pytest.raises(SettingError, match="teacher.cache=.*expected a folder outside of data.train"):
        check_places(build(Config, values | {"teacher.cache": str(tmp_path / inside)}))
