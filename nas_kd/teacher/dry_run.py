"""A teacher's first run, on two random inputs: whether it takes them, its layers, MACs and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.own_input import keep_input
from nas_kd.teacher.answers import answer_logits, logits_of
from nas_kd.teacher.cifar_resnet import own_class
from nas_kd.teacher.probe import Probe, probe
from nas_kd.teacher.taps import Layer

if TYPE_CHECKING:
    from nas_kd.data import Data

# what convolutions and linear layers run as; the products of attention, which have no weights, are no MACs here
WEIGHTED = ("aten.convolution", "aten._convolution", "aten.addmm", "aten.mm")


class Seen(NamedTuple):
    """What a dry run shows.

    Args:
        layers: to choose taps from.
        sites: that can be named as taps.
        probed: how the modules of a network that needs hooks are read; None for other networks.
        macs: multiply-adds of convolutions and linear layers, of one input.
        classes: number of logits.
    """

    layers: list[Layer]
    sites: list[Layer]
    probed: Probe | None
    macs: int
    classes: int


@torch.no_grad()
def counted_macs(network: nn.Module, x: Any) -> tuple[Any, int]:
    """Run a network, and count the multiply-adds of its convolutions and linear layers.

    Args:
        network: in eval mode.
        x: one image (1, C, H, W), or one text.

    Returns:
        The output, and the MACs.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        out = network(x)
    counted = counter.get_flop_counts()["Global"]
    return out, sum(count for op, count in counted.items() if str(op) in WEIGHTED) // 2


@torch.no_grad()
def dry_run(network: nn.Module, name: str, in_chans: int, resolution: int, device: torch.device) -> Seen:
    """Run a network of images on random ones; from then on it answers logits alone and leaves its input as it is.

    Args:
        network: in eval mode.
        name: for messages.
        in_chans: channels of the images.
        resolution: height and width in pixels.
        device: of the network.

    Raises:
        SettingError: it does not take such images.
    """
    shape = (2, in_chans, resolution, resolution)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    before, version = images.clone(), images._version
    probed = None
    try:
        out, macs = counted_macs(network, images[:1])
        if not isinstance(out, Tensor):
            answer_logits(network)
        logits = logits_of(out)
        if images._version != version or not torch.equal(images, before):
            keep_input(network)  # for its cuts too, which are copies of it
            images.copy_(before)
        if own_class(network):
            stages = network.forward_stages(images[:1], names := network.block_names).stages
            layers = [Layer(n, f.shape[1], f.shape[2], True) for n, f in zip(names, stages, strict=True)]
            sites = layers
        else:
            probed = probe(network, images)
            layers = probed.layers
            sites = [site.layer for site in probed.sites.values()]
    except SettingError:
        raise
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        expected = f"inputs of {in_chans} x {resolution} x {resolution} ({str(error).splitlines()[0]})"
        hint = "use the resolution it was trained at, or load_teacher(resolution=...) for ViT and Swin"
        raise SettingError("teacher.model", name, f"a network that takes {expected}", hint) from error
    return Seen(layers, sites, probed, macs, logits.shape[1])


def check_classes(seen: Seen, data: Data) -> None:
    """Refuse a teacher of other classes than the data's.

    Raises:
        SettingError: the numbers of classes differ.
    """
    if seen.classes != data.num_classes:
        expected = f"{data.num_classes}, the number of classes of the data"
        hint = "use a teacher trained on these classes: `nas-kd teacher` fine-tunes one"
        raise SettingError("teacher.num_classes", seen.classes, expected, hint)
