"""The second teacher's family: a plain convolutional network (VGG), with no shortcut anywhere.

``teacher.model: experiments.rank.teachers:vgg`` builds it untrained. Two 3 x 3 convolutions a resolution, as
Simonyan and Zisserman (2015) with batch norm; narrow, and with global average pooling in the place of the wide
linear layers, so that a CPU can train it.
"""

from __future__ import annotations

from torch import nn

WIDTHS = (48, 96, 192)  # at 32, 16 and 8 pixels


def vgg(num_classes: int = 10, in_chans: int = 3) -> nn.Module:
    """Build the network.

    Args:
        num_classes: classes.
        in_chans: channels of the images.

    Returns:
        ``layer1``, ``layer2``, ``layer3`` (one a resolution), pooling and a linear classifier.
    """
    layers: dict[str, nn.Module] = {}
    for index, width in enumerate(WIDTHS, 1):
        shrink = [] if index == 1 else [nn.MaxPool2d(2)]
        layers[f"layer{index}"] = nn.Sequential(*shrink, *_conv(in_chans, width), *_conv(width, width))
        in_chans = width
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(in_chans, num_classes)}
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def _conv(in_chans: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(in_chans, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
