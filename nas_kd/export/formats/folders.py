"""Folders that timm opens, ``local-dir:``; with a card and a preprocessor's settings for the Hugging Face hub."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from nas_kd.export.card import card, hub_header
from nas_kd.export.deployed import Deployed
from nas_kd.export.formats.base import Format, Read
from nas_kd.export.student_net import config_of, timm_model
from nas_kd.runs.files import plain


def write(network: Deployed, example: Tensor, path: Path) -> None:
    """Write config.json and model.safetensors."""
    student = deepcopy(network.student)
    model = timm_model(student, network.info)
    path.mkdir()
    save_file({k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}, path / "model.safetensors")
    _json(path / "config.json", config_of(model, network.student, network.info))


def write_hub(network: Deployed, example: Tensor, path: Path) -> None:
    """Write the same with README.md and preprocessor_config.json."""
    write(network, example, path)
    (path / "README.md").write_text(hub_header(network.info) + card(network.info, hub=True), encoding="utf-8")
    channels, size, _ = network.image_shape()
    shape = {"height": size, "width": size}
    _json(
        path / "preprocessor_config.json",
        {
            "do_resize": True,
            "size": shape,
            "resample": 3,  # bicubic
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": network.info.get("mean"),
            "image_std": network.info.get("std"),
        },
    )


def read(path: Path) -> Read:
    """Open the folder by timm."""
    import timm

    import nas_kd.export.timm  # noqa: F401  # registers the model

    return timm.create_model(f"local-dir:{path}", pretrained=True).eval()


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(plain(value), indent=1) + "\n", encoding="utf-8")


TIMM = Format("timm", "", "timm", write, read, whole=False)
HUB = Format("hf", "", "timm", write_hub, read, whole=False)
