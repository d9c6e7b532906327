"""8 bits in a graph of torch.export, by torchao; the file needs torchao wherever it is opened."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from nas_kd.export.formats.base import Quantiser, Read
from nas_kd.export.formats.traced import exported


def quantise(source: Path, target: Path, batches: Iterator[Tensor]) -> None:
    """Quantise weights by channel and activations by tensor from some images, as torchao does for x86 processors.

    Args:
        source: a .pt2 file.
        target: the .pt2 file to write.
        batches: images as the file takes them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchao about torch
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        settings = x86.get_default_x86_inductor_quantization_config()
        prepared = prepare_pt2e(torch.export.load(source).module(), x86.X86InductorQuantizer().set_global(settings))
        with torch.no_grad():
            for batch in batches:
                prepared(batch)
                example = batch[:1].repeat(2, 1, 1, 1)  # one row could be taken for any number
        torch.export.save(exported(convert_pt2e(prepared), example), target)


def read(path: Path) -> Read:
    """Read a file back as a function of images."""
    import torchao.quantization.pt2e  # noqa: F401  # defines the operators of its graph

    return torch.export.load(path).module()


INT8 = Quantiser(quantise, ("torchao",), "torchao", read)
