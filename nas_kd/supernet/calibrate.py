"""Batch-norm statistics of chosen archs, pooled exactly over batches and returned as values."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial, singledispatch
from typing import Any, overload

import torch
from torch import Tensor, nn

from nas_kd.config.kinds import checked
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.space.arch import Arch
from nas_kd.supernet.elastic_stage import ElasticStage
from nas_kd.supernet.supernet import Supernet


@overload
def calibrate(net: Supernet, batches: Iterable[Any], archs: Sequence[Arch]) -> list[NormValues]: ...
@overload
def calibrate(net: nn.Module, batches: Iterable[Any], archs: None = None) -> None: ...


@torch.no_grad()
@checked
def calibrate(net: nn.Module, batches: Iterable[Any], archs: Sequence[Arch] | None = None) -> list[NormValues] | None:
    """Measure the statistics a network's batch norms need in evaluation mode.

    Training leaves no usable running statistics behind in shared weights, so they are measured on training
    images (never on test images) without labels. Each norm's input is pooled over all batches by the law of
    total variance, while the layers before it normalise by their batch. With several processes, all of
    them call this with the same archs, each with its share of the images; the statistics are those of all images.

    Args:
        net: a supernet, or any plain module.
        batches: image tensors (B, C, H, W) or texts, or tuples that begin with them. Images are not resized: archs that
            choose different input sizes need one call per size.
        archs: the archs of a supernet to measure, all in one pass over the batches; layers up to the first
            difference between archs run once for all of them.

    Returns:
        For a supernet one value per arch, to be passed as ``norm``: bitwise equal to measuring that arch alone, in the
        dtype of the parameters, empty for an arch without batch norms; the supernet is not changed. For a plain module
        None: its running statistics are set in place.

    Raises:
        SettingError: there are no batches, the images have the wrong number of channels, an arch is not in the
            supernet's space, or archs are missing (or given for a plain module).
    """
    if isinstance(net, Supernet):
        if not archs:
            raise SettingError("archs", archs, "at least one arch of the supernet's space", "pass archs=[arch, ...]")
        return statistics(net, batches, archs)
    if archs is not None:
        raise SettingError("archs", archs, "None for a plain module", "omit it")
    _calibrate_module(net, batches)
    return None


Step = tuple[
    Callable[..., Any], tuple[Any, ...]
]  # module or method, and its arguments between the input and the recorder


@dataclass
class _Node:
    """A step shared by archs that are equal up to it."""

    norms: list[str] = field(default_factory=list)
    children: dict[Step, _Node] = field(default_factory=dict)


class _TreeRecorder(Recorder):
    """Separates the statistics of one norm after different steps: its keys include the node."""

    node: _Node  # the current one

    def add(self, path: str, mean: Tensor, variance: Tensor, count: int) -> None:
        if path not in self.node.norms:
            self.node.norms.append(path)
        super().add((id(self.node), path), mean, variance, count)


def _layers(stage: nn.Module) -> nn.ModuleList:
    assert isinstance(stage, ElasticStage)
    return stage.layers


def _steps(net: Supernet, arch: Arch, normed: Container[nn.Module]) -> list[Step]:
    """Return the steps of an arch up to its last norm; later layers need not run."""
    steps: list[tuple[nn.Module, Step]] = [(net.stem, (net.stem, (arch.stem,)))]
    for stage, candidate in zip(net.stages, arch.stages, strict=True):
        blocks = zip(_layers(stage), candidate.layers, strict=False)  # the first `depth` blocks
        steps += [(block, (block, (layer, candidate.width))) for block, layer in blocks]
    if net.head in normed:
        head: Any = net.head
        steps.append((head, (head.widen, (arch.head,))))
    while steps and steps[-1][0] not in normed:
        steps.pop()
    return [step for _, step in steps]


@singledispatch
def statistics(net: Supernet, batches: Iterable[Any], archs: Sequence[Arch]) -> list[NormValues]:
    """Measure archs of a supernet as `calibrate` describes; other classes of supernets register their own method.

    For each batch the prefix tree of the archs is traversed depth first: a step runs once for all archs that
    share it. One feature map per fork of the current path is in memory.
    """
    parts = (net.stem, *(layer for stage in net.stages for layer in _layers(stage)), net.head)
    normed = {part for part in parts if any(isinstance(m, ElasticBatchNorm2d) for m in part.modules())}
    root = _Node()
    routes = []
    for arch in archs:
        net.space.validate(arch)
        node = root
        route = []
        for step in _steps(net, arch, normed):
            node = node.children.setdefault(step, _Node())
            route.append(node)
        routes.append(route)

    recorder = _TreeRecorder()
    seen = 0
    for batch in batches:
        images = inputs.inputs_of(batch)
        net.check_images(images)
        seen += inputs.count(images)
        stack = [(images, *child) for child in root.children.items()]
        while stack:
            x, (run, settings), recorder.node = stack.pop()
            out = run(x, *settings, recorder)
            x = out if isinstance(out, Tensor) else out[0]
            stack += [(x, *child) for child in recorder.node.children.items()]
    _check_any(seen)
    recorder.reduce()
    values = recorder.values()
    return [{path: values[id(node), path] for node in route for path in node.norms} for route in routes]


def _calibrate_module(net: nn.Module, batches: Iterable[Any]) -> None:
    norms = {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    }
    recorder = Recorder()
    modes = {module: module.training for module in net.modules()}  # frozen parts may be in another mode
    momenta = {module: module.momentum for module in norms.values()}
    buffers = [(buffer, buffer.clone()) for module in norms.values() for buffer in module.buffers()]

    # Training mode with momentum 1 leaves each batch's own statistics in the buffers, to be pooled here.
    def record(name: str, module: nn.modules.batchnorm._BatchNorm, args: tuple[Tensor], _: Tensor) -> None:
        assert module.running_mean is not None and module.running_var is not None
        count = args[0].numel() // args[0].shape[1]
        recorder.add(name, module.running_mean.clone(), module.running_var.clone(), count)

    handles = [module.register_forward_hook(partial(record, name)) for name, module in norms.items()]
    net.eval()
    for module in norms.values():
        module.train()
        module.momentum = 1.0
    seen = 0
    try:
        for batch in batches:
            images = inputs.inputs_of(batch)
            seen += inputs.count(images)
            if norms:
                net(images)
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes.items():
            part.training = training
        for module, momentum in momenta.items():
            module.momentum = momentum
        for buffer, value in buffers:  # also after an error in the batches
            buffer.copy_(value)
    _check_any(seen)
    recorder.reduce()
    for name, (mean, variance) in recorder.values().items():
        module = norms[name]
        assert module.running_mean is not None and module.running_var is not None
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)


def _check_any(seen: int) -> None:
    if not seen:
        raise SettingError("batches", seen, "at least one image", "pass data.train.clean(256, limit=2048)")
