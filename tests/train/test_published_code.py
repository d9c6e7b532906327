"""Published supernets beside the released code: random weights, written to a file, give equal logits for random archs.

The code is not here. ``NAS_KD_PUBLISHED_CODE`` names a folder with once-for-all (MIT) and AttentiveNAS (CC-BY-NC),
whose networks AlphaNet uses too; without it these tests skip.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import FILES, KERNEL_TRANSFORMS
from torch import nn

import nas_kd
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet

CLASSES = 10
ARCHS = 12
EXACT = 1e-12  # of the largest logit, in float64: some activations are written in another order

ATTENTIVE: dict[str, dict[str, Any]] = {  # as in the released settings
    "first_conv": {"c": [16, 24], "s": 2},
    "mb1": {"c": [16, 24], "d": [1, 2], "t": [1], "s": 1, "se": False},
    "mb2": {"c": [24, 32], "d": [3, 4, 5], "t": [4, 5, 6], "s": 2, "se": False},
    "mb3": {"c": [32, 40], "d": [3, 4, 5, 6], "t": [4, 5, 6], "s": 2, "se": True},
    "mb4": {"c": [64, 72], "d": [3, 4, 5, 6], "t": [4, 5, 6], "s": 2, "se": False},
    "mb5": {"c": [112, 120, 128], "d": [3, 4, 5, 6, 7, 8], "t": [4, 5, 6], "s": 1, "se": True},
    "mb6": {"c": [192, 200, 208, 216], "d": [3, 4, 5, 6, 7, 8], "t": [6], "s": 2, "se": True},
    "mb7": {"c": [216, 224], "d": [1, 2], "t": [6], "s": 1, "se": True},
    "last_conv": {"c": [1792, 1984]},
}


class Plain:
    """Settings as attributes, as AttentiveNAS reads them."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def theirs(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Build the released network of a space."""
    folder = os.environ.get("NAS_KD_PUBLISHED_CODE")
    if not folder:
        pytest.skip("NAS_KD_PUBLISHED_CODE names no folder with once-for-all and AttentiveNAS")
    monkeypatch.syspath_prepend(Path(folder) / ("AttentiveNAS" if name == "attentive_nas" else "once-for-all"))
    if name == "attentive_nas":
        module = import_module("models.attentive_nas_dynamic_model")
        parts = {key: Plain(**{"act_func": "swish", "k": [3, 5]} | values) for key, values in ATTENTIVE.items()}
        config = Plain(use_v3_head=True, resolutions=[192, 224, 256, 288], **parts)
        return module.AttentiveNasDynamicModel(config, n_classes=CLASSES)
    module = import_module("ofa.imagenet_classification.elastic_nn.networks")
    if name == "ofa_resnet50d":
        lists = {"expand_ratio_list": [0.2, 0.25, 0.35], "width_mult_list": [0.65, 0.8, 1.0]}
        return module.OFAResNets(CLASSES, depth_list=[0, 1, 2], **lists)
    kind = module.OFAProxylessNASNets if name == "ofa_proxyless" else module.OFAMobileNetV3
    width = {"ofa_proxyless": 1.3, "ofa_mobilenet_v3_w12": 1.2}.get(name, 1.0)
    lists = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
    return kind(CLASSES, dropout_rate=0, width_mult=width, **lists)


def choose(net: Any, name: str, space: ElasticSpace, arch: Arch, size: int) -> None:
    """Set the released network to an arch, in its own words."""
    chosen = arch.stages
    depths = [candidate.depth for candidate in chosen]
    if name == "attentive_nas":
        (stem,), (head,) = arch.stem, arch.head
        firsts = [candidate.layers[0] for candidate in chosen]
        widths = [stem, *(candidate.width for candidate in chosen), head]
        kernels, expands = [layer[0] for layer in firsts], [layer[1] for layer in firsts]
        net.set_active_subnet(size, widths, depths, kernels, expands)
        return
    if name == "ofa_resnet50d":
        residual, mid, width = arch.stem
        stem_mids, stem_widths = space.stem.mid, space.stem.widths
        given = [stem_mids.index(mid), stem_widths.index(width)]
        given += [stage.widths.index(one.width) for stage, one in zip(space.stages, chosen, strict=True)]
        skipped = [2 if residual else 0]
        more = [depth - stage.depths[0] for stage, depth in zip(space.stages, depths, strict=True)]
        expands = [layer[0] for layer in padded(space.stages, chosen)]
        net.set_active_subnet(d=skipped + more, e=expands, w=given)
        return
    layers = padded(space.stages[1:], chosen[1:])
    net.set_active_subnet([layer[0] for layer in layers], [layer[1] for layer in layers], depths[1:])


def padded(stages: Any, chosen: Any) -> list[Any]:
    """List the settings of all layers of the supernet; those beyond an arch's depth repeat its last one."""
    every = []
    for stage, one in zip(stages, chosen, strict=True):
        every += [*one.layers, *[one.layers[-1]] * (stage.depths[-1] - len(one.layers))]
    return every


@pytest.fixture(params=FILES)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, Any, Supernet]:
    """The released network with random weights, and ours with the same weights through a file."""
    name: str = request.param
    released: nn.Module = theirs(name, monkeypatch).double().train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in released.parameters():  # fan-in keeps values near 1; scales of norms and matrices are far from it
            spread = max(1, tensor[0].numel()) ** -0.5 if tensor.ndim > 1 else 1.0
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * spread)
    torch.save({"state_dict": released.state_dict()}, tmp_path / "released")
    space = nas_kd.load_space(name)
    ours = Supernet(space, CLASSES, kernel_transform=name in KERNEL_TRANSFORMS).double()
    return name, released, nas_kd.load_supernet(ours, tmp_path / "released").train()


def test_the_list_of_tensors_is_theirs(pair: tuple[str, Any, Supernet]) -> None:
    name, released, _ = pair
    listed = {entry.name: entry.shape for entry in FILES[name](classes=CLASSES)}
    assert listed == {key: tuple(value.shape) for key, value in released.state_dict().items()}


def test_equal_logits(pair: tuple[str, Any, Supernet]) -> None:
    name, released, ours = pair
    space = ours.space
    worst = 0.0
    archs = [space.largest(), space.smallest(), *(space.sample(seed) for seed in range(ARCHS))]
    # AttentiveNAS pads odd maps with zeros where it halves them, which no size of its space meets
    sizes = (64, 96) if name == "attentive_nas" else (64, 72)
    for number, arch in enumerate(archs):
        size = sizes[number % 2]
        x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        choose(released, name, space, arch, size)
        with torch.no_grad():
            expected = released(x)
            found = ours(x, arch)
        scale = float(expected.abs().max())
        assert expected.std() > 1e-3 * scale > 0  # the weights say something
        worst = max(worst, float((found - expected).abs().max()) / scale)
    print(f"{name}: {len(archs)} archs, largest difference {worst:.1e} of the largest logit")
    assert worst < EXACT
