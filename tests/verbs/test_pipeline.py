"""What a configuration asks for is refused before the first epoch, by the name of the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nas_kd.config import Config, DataConfig, RetrainConfig, TeacherConfig
from nas_kd.errors import SettingError
from nas_kd.verbs.pipeline import Pipeline


def pipeline(run: Path, **retrain: Any) -> Pipeline:
    teacher = TeacherConfig(model="cifar_resnet8", epochs=2)
    data = DataConfig(subset=300, rate=0.2, select=0.2)
    return Pipeline(Config(run=str(run), data=data, teacher=teacher, retrain=RetrainConfig(**retrain)))


@pytest.mark.parametrize(
    ("retrain", "field", "part"),
    [
        ({"method": "dkdd"}, "retrain.method", "dkd"),
        ({"method": "dkd", "method_settings": {"heat": 4}}, "retrain.method_settings.heat", "alpha, beta, temperature"),
        ({"method": "dkd", "method_settings": {"beta": "x"}}, "retrain.method_settings.beta", "finite number"),
        ({"method": "kd", "method_settings": {"temperature": 0}}, "retrain.method_settings.temperature", "above 0"),
        ({"method": "ce", "method_settings": {"temperature": 4}}, "retrain.method_settings.temperature", "no settings"),
        ({"method": [("kd", 1.0)], "method_settings": {"temperature": 4}}, "retrain.method", "no settings"),
        ({"method": [("kdd", 1.0)]}, "retrain.method", "name of a term"),
        ({"method": "takd"}, "retrain.method", "assistants"),
    ],
)
def test_methods(retrain: dict[str, Any], field: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=part) as caught:
        pipeline(tmp_path, **retrain).check()
    assert caught.value.field == field
    assert not (tmp_path / "config.yaml").exists()


def test_settings_and_weights_reach_the_recipe(tmp_path: Path) -> None:
    made = pipeline(tmp_path, method="born_again", method_settings={"generations": 2})
    assert made.recipe.generations == 2
    both = pipeline(tmp_path, method=[("ce", 0.5), ("kd", 2.0)]).recipe.terms
    assert [(term.name, term.weight) for term in both] == [("ce", 0.5), ("kd", 2.0)]
