"""What a run says of data that are not those it was made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.pipeline.recorded import record_data


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(256, size=(8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def test_another_limit_of_memory_is_named(images: Path, tmp_path: Path) -> None:
    run = nas_kd.Run(tmp_path / "run")
    configs = [nas_kd.DataConfig(train=str(images), memory_gib=limit) for limit in (4.0, 0.0, 2.0)]
    data = [nas_kd.load_data(config) for config in configs]
    record_data(run, configs[0], data[0])
    run.record_config("data: {memory_gib: 4.0}\n")
    run.stage("supernet", {"data": data[0].fingerprint})
    with pytest.raises(SettingError, match="data.memory_gib=0.0: expected 4.0, as .*hint: use data.memory_gib=4.0"):
        record_data(run, configs[1], data[1])
    record_data(run, configs[2], data[2])  # decoded as before


def test_other_data_name_the_setting(images: Path, tmp_path: Path) -> None:
    run = nas_kd.Run(tmp_path / "run")
    first, other = (nas_kd.DataConfig(train=str(images), subset=count) for count in (None, 20))
    record_data(run, first, nas_kd.load_data(first))
    run.record_config("data: {subset: null}\n")
    with pytest.raises(SettingError, match="data.subset='20': expected data.subset=None, as .* was made with"):
        record_data(run, other, nas_kd.load_data(other))
    run.record_config("data: []\n")  # edited by hand
    with pytest.raises(SettingError, match="data='.* images'"):
        record_data(run, other, nas_kd.load_data(other))
