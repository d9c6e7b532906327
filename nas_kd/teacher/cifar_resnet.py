"""The CIFAR residual networks of He et al., with the output of every block available without hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError, nearest
from nas_kd.nn.output import Output
from nas_kd.nn.widen import Widen

DEPTHS = (8, 14, 20, 32, 44, 56, 110)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A)."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.widen = Widen(in_width, width) if width != in_width else nn.Identity()

    def before_relu(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to the input of the block's last ReLU, (B, O, H', W')."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        if self.stride > 1:
            x = F.avg_pool2d(x, 1, self.stride)  # the gradient of a slice would be laid out channels first
        return out + self.widen(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, H', W')."""
        return F.relu(self.before_relu(x), inplace=True)


class CifarResNet(nn.Module):
    """Three stages of basic blocks with 16, 32 and 64 channels, for images of 8 to 64 pixels.

    Args:
        depth: 6 n + 2 for n blocks per stage; one of `DEPTHS`.

    Raises:
        SettingError: another depth.

    Source: He et al., Deep Residual Learning for Image Recognition, 2015, section 4.2. Parameter names follow Y.
    Idelbayev's pytorch_resnet_cifar10, so that its weights can be loaded.
    """

    def __init__(self, depth: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise SettingError("depth", depth, f"one of {DEPTHS}")
        blocks = (depth - 2) // 6
        # rebuilds it from a student folder
        own = {"depth": depth, "num_classes": num_classes, "in_chans": in_chans}
        self.factory = (f"{__name__}:{type(self).__name__}", own)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = 64
        self.conv1 = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1)
        self.layer2 = _stage(16, 32, blocks, 2)
        self.layer3 = _stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @property
    def block_names(self) -> list[str]:
        """Names of the residual blocks in order, such as ``layer2.0``; none of those that a cut left out."""
        stages = ("layer1", "layer2", "layer3")
        blocks = ((f"{stage}.{i}", block) for stage in stages for i, block in enumerate(getattr(self, stage)))
        return [name for name, block in blocks if isinstance(block, BasicBlock)]

    def get_classifier(self) -> nn.Module:
        """Return the linear classifier, as timm's models do."""
        return self.linear

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))

    def forward_after(self, x: Tensor, block: str) -> Tensor:
        """Map the output (B, C, H, W) of a block, after its last ReLU, to logits (B, num_classes).

        Args:
            block: a name in `block_names`.
        """
        names = self.block_names
        for name in names[names.index(block) + 1 :]:
            x = self.get_submodule(name)(x)
        return self.linear(x.mean((2, 3)))

    def forward_stages(self, x: Tensor, blocks: Sequence[str] | None = None) -> Output:
        """Run the network and return the features of some blocks.

        Args:
            x: (B, in_chans, H, W).
            blocks: names in `block_names`, in any order; None gives the last block of each stage.

        Returns:
            Logits, features after and before the blocks' last ReLU, and the pooled features (B, 64).

        Raises:
            SettingError: a name is unknown.
        """
        names = self.block_names
        last = {name.partition(".")[0]: name for name in names}  # of each stage
        chosen = list(last.values() if blocks is None else blocks)
        for name in chosen:
            if name not in names:
                raise SettingError("blocks", name, f"{names[0]} .. {names[-1]}", nearest(name, names))
        post: dict[str, Tensor] = {}
        pre: dict[str, Tensor] = {}
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        for name in names:
            block = self.get_submodule(name)
            assert isinstance(block, BasicBlock)
            if name in chosen:
                pre[name] = block.before_relu(x)
                x = post[name] = F.relu(pre[name])
            else:
                x = block(x)
        pooled = x.mean((2, 3))
        return Output(self.linear(pooled), [post[n] for n in chosen], [pre[n] for n in chosen], pooled)


def own_class(module: nn.Module) -> TypeGuard[CifarResNet]:
    """Return whether a network is exactly a `CifarResNet`: a subclass may have a forward of its own."""
    return type(module) is CifarResNet


def _stage(in_width: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_width, width, stride)
    return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(blocks - 1)))


def cifar_resnet8(num_classes: int = 10, in_chans: int = 3) -> CifarResNet:
    """Build ResNet-8 (75 k parameters), for images of few pixels."""
    return CifarResNet(8, num_classes, in_chans)


def cifar_resnet14(num_classes: int = 10, in_chans: int = 3) -> CifarResNet:
    """Build ResNet-14 (0.17 M parameters)."""
    return CifarResNet(14, num_classes, in_chans)


def cifar_resnet20(num_classes: int = 10, in_chans: int = 3) -> CifarResNet:
    """Build ResNet-20 (0.27 M parameters)."""
    return CifarResNet(20, num_classes, in_chans)


def cifar_resnet32(num_classes: int = 10, in_chans: int = 3) -> CifarResNet:
    """Build ResNet-32 (0.46 M parameters)."""
    return CifarResNet(32, num_classes, in_chans)


def cifar_resnet44(num_classes: int = 10, in_chans: int = 3) -> CifarResNet:
    """Build ResNet-44 (0.66 M parameters)."""
    return CifarResNet(44, num_classes, in_chans)


def cifar_resnet56(num_classes: int = 10, in_chans: int = 3) -> CifarResNet:
    """Build ResNet-56 (0.85 M parameters)."""
    return CifarResNet(56, num_classes, in_chans)


def cifar_resnet110(num_classes: int = 10, in_chans: int = 3) -> CifarResNet:
    """Build ResNet-110 (1.7 M parameters)."""
    return CifarResNet(110, num_classes, in_chans)
