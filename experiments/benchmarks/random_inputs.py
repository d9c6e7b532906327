"""Random images and weights of CIFAR-10's shape, of which time does not depend."""

from __future__ import annotations

import torch
from torch import nn

import nas_kd
from nas_kd.data import Data
from nas_kd.runtime.device import Runtime, place
from nas_kd.teacher import cifar_resnet56

FOUND = 5_300_000  # MACs of the student that the CIFAR-10 example finds


def random_data(images: int, runtime: Runtime) -> Data:
    """Make images of CIFAR-10's shape, kept where they are used, whose every view may be cached."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (images + 200, 3, 32, 32), dtype=torch.uint8, generator=generator)
    y = torch.arange(len(x)) % 10
    kept = images + 100  # with rate and select
    parts = (x[:kept], y[:kept]), (x[kept:], y[kept:])
    return nas_kd.load_data(parts[0], test=parts[1], rate=50, select=50, views="all", flip=True).to(runtime.device)


def found_student(data: Data, runtime: Runtime) -> nn.Module:
    """Build an arch of resnet_cifar of the size that a search finds."""
    space = nas_kd.load_space("resnet_cifar")
    archs = [space.sample(seed) for seed in range(300)]
    arch = min(archs, key=lambda a: abs(space.cost(a, resolution=32, num_classes=10, in_chans=3).macs - FOUND))
    return place(space.build(arch, data.num_classes, data.in_chans), runtime).train()


@torch.no_grad()
def random_resnet56(data: Data) -> nn.Module:
    """Build a ResNet-56 whose norms have measured the images: otherwise its logits leave the range of fp16."""
    net = cifar_resnet56(num_classes=data.num_classes)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    net.train()(next(data.train.clean(256)).x.cpu())
    return net.eval()
