"""Module injection: one 1x1 convolution per layer, solved in closed form and merged into the layer before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError, nearest


def solve(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the least-squares Q (C', C) from a student's (B, C, H, W) to a teacher's (B, C', H, W) feature.

    Raises:
        ValueError: batch or maps differ.

    Source: Li et al., Few sample knowledge distillation, arXiv 1812.01839, eq. 1 and 2.
    """
    if student.shape[:1] + student.shape[2:] != teacher.shape[:1] + teacher.shape[2:]:
        raise ValueError(f"expected equal batch and map sizes, got {tuple(student.shape)} and {tuple(teacher.shape)}")
    s, t = (x.detach().double().transpose(0, 1).flatten(1).T for x in (student, teacher))  # (B H W, C)
    # gelsd truncates directions at rounding level; it is a CPU routine
    found = torch.linalg.lstsq(s.cpu(), t.cpu(), driver="gelsd").solution.T
    return found.to(student.device, student.dtype if student.dtype.is_floating_point else torch.float32)


@torch.no_grad()
def merge(conv: nn.Conv2d, q: Tensor) -> None:
    """Merge a following 1x1 convolution (C, C) into a convolution of C outputs and one group, in place.

    Raises:
        ValueError: q is not (C, C), or the convolution has groups.
    """
    if conv.groups != 1 or q.shape != (conv.out_channels, conv.out_channels):
        raise ValueError(f"a matrix of {tuple(q.shape)} does not fit a convolution of {conv.out_channels} channels")
    conv.weight.copy_(torch.einsum("oc,cihw->oihw", q.to(conv.weight.dtype), conv.weight))
    if conv.bias is not None:
        conv.bias.copy_(q.to(conv.bias.dtype) @ conv.bias)


def inject(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    layers: Mapping[str, str],
    teacher_images: Tensor | None = None,
) -> dict[str, float]:
    """Align a student's convolutions with a teacher's on a few images without labels; no training.

    Args:
        student: changed in place, layer by layer in the order given, which should be from input to output.
        teacher: not changed.
        images: (B, C, H, W), a few hundred suffice.
        layers: name of the student's convolution to name of the teacher's module with an output of its shape.
        teacher_images: the same images as the teacher expects them, if it has another normalisation.

    Returns:
        The relative error ||Q Y_s - Y_t|| / ||Y_t|| of every layer, by its name.

    Raises:
        SettingError: a name is unknown, not a convolution or one with groups, or the shapes differ.

    Source: Li et al., arXiv 1812.01839, algorithm 1: merging the 1x1 convolutions keeps the student's size.
    """
    for name, other in layers.items():
        for network, path in ((student, name), (teacher, other)):
            known = [path for path, _ in network.named_modules() if path]
            if path not in known:
                raise SettingError("layers", path, "a module of the network", nearest(path, known))
        conv = student.get_submodule(name)
        if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
            raise SettingError("layers", name, "a convolution of the student without groups")
    shown = images if teacher_images is None else teacher_images
    errors = {}
    with _evaluated(student), _evaluated(teacher), torch.no_grad():
        for name, other in layers.items():
            own = _output(student, name, images)
            target = _output(teacher, other, shown)
            if own.shape != target.shape:
                expected = f"features of one shape; student {tuple(own.shape[1:])}, teacher {tuple(target.shape[1:])}"
                raise SettingError("layers", f"{name}: {other}", expected, "inject needs equal channels and maps")
            q = solve(own, target)
            conv = student.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            merge(conv, q)
            residual = torch.einsum("oc,bchw->bohw", q, own) - target
            errors[name] = float(residual.norm() / target.norm().clamp_min(torch.finfo(target.dtype).tiny))
    return errors


def alike(student: nn.Module, teacher: nn.Module, images: Tensor, teacher_images: Tensor) -> dict[str, str]:
    """Return the student's convolutions, from input to output, whose output has the shape of the teacher's module of
    that name."""
    own, other = _shapes(student, images), _shapes(teacher, teacher_images)
    fitting = {name: shape for name, shape in own.items() if other.get(name) == shape}
    return {name: name for name in fitting if getattr(student.get_submodule(name), "groups", 0) == 1}


@torch.no_grad()
def _shapes(network: nn.Module, images: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what a network's convolutions put out, by name, in the order of their first calls."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            found.setdefault(name, tuple(out.shape[1:]))

        return hook

    convs = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_hook(note(name)) for name, module in convs]
    try:
        with _evaluated(network):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _output(network: nn.Module, path: str, images: Tensor) -> Tensor:
    found: list[Tensor] = []
    handle = network.get_submodule(path).register_forward_hook(lambda module, args, out: found.append(out.clone()))
    try:
        network(images)
    finally:
        handle.remove()
    return found[0]


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
