"""Aggregated features: which of the features inside a teacher's stage a student imitates is learned (DFA)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.distill.adapters import regressor
from nas_kd.distill.game import Player
from nas_kd.distill.pair import Pair
from nas_kd.distill.pairing import Sizes
from nas_kd.distill.task import Task
from nas_kd.errors import SettingError
from nas_kd.losses._common import wide
from nas_kd.nn.output import Output
from nas_kd.nn.static import StaticNet
from nas_kd.teacher.probe import Site, probe
from nas_kd.teacher.targets import LiveSource

if TYPE_CHECKING:
    from nas_kd.data import Batch

HELD_OUT = 5  # one image of so many is held out of the search, for the weights alone


class Aggregation(nn.Module):
    """Softmax weights over the features inside each of the teacher's stages, and connectors in both directions.

    A stage's features are those of its residual blocks that have the shape of its last one. While weights are searched,
    two paths play against each other. From student to teacher: a 1x1 connector of the student's feature is compared
    with the aggregated one, which makes weights prefer what can be learned. From teacher to student: another 1x1
    connector puts the aggregated feature into the student in the place of its own, and the label loss of what the rest
    of the student makes of it makes weights prefer what says most. Student and connectors learn both from four of five
    images, then the weights take a step on the others (first order: the student is held fixed in it).

    Args:
        pair: the student, and one live teacher; of another source of features each stage has one.
        task: label loss.
        lr: learning rate of the weights' Adam.

    Raises:
        SettingError: the maps of a stage differ in size, or no module ends one of the student's stages.

    Source: Guan et al., Differentiable Feature Aggregation Search, arXiv 2008.00506: a bilevel search with a bridge
    loss of two paths, then distillation with the weights found.
    """

    def __init__(self, pair: Pair, task: Task, lr: float = 0.01) -> None:
        super().__init__()
        both = pair.shapes("dfa", "stages")
        teacher = None if pair.source is None else pair.source.teacher
        sizes = [shape[-1] for shape, _ in both]
        self.groups = [1] * len(both) if teacher is None else tap_groups(teacher, sizes, pair.image[1])
        self.task = task
        self.scores = Player(nn.ParameterList(torch.zeros(count) for count in self.groups), lr)
        self.to_teacher = nn.ModuleList(regressor(s, t, "dfa") for s, t in both)
        self.to_student = nn.ModuleList(regressor(t, s, "dfa") for s, t in both)
        self._student = (pair.model,)  # a tuple keeps it out of this module's parameters
        self._ends = stage_ends(pair)

    @property
    def shares(self) -> list[Tensor]:
        """The (n,) weights of each stage, which sum to 1."""
        return [score.detach().softmax(0) for score in self._scores]

    @property
    def _scores(self) -> list[Tensor]:
        return list(self.scores.net.parameters())

    def aggregated(self, teacher: Output, rows: Tensor | None = None) -> list[Tensor]:
        """Return each stage's weighted sum of the teacher's features, (B, C, H, W)."""
        found: list[Tensor] = []
        start = 0
        for count, score in zip(self.groups, self._scores, strict=True):
            features = torch.stack(list(teacher.stages[start : start + count]))  # (n, B, C, H, W)
            features = features if rows is None else features[:, rows]
            found.append(torch.tensordot(score.softmax(0).to(features.dtype), features, dims=1))
            start += count
        return found

    def forward(self, student: Output, teacher: Output) -> Tensor:
        """Return the mean squared distance of the student's features, connected, from the aggregated ones."""
        pairs = zip(self.to_teacher, student.stages, self.aggregated(teacher), strict=True)
        return torch.stack([F.mse_loss(wide(connect(s)), wide(t.detach())) for connect, s, t in pairs]).sum()

    def search(self, student: Output, teacher: Output, y: Tensor, batch: Batch) -> Tensor:
        """Let the weights take a step on the held-out images, and return the loss of the others.

        It is the student's label loss plus the bridge loss.
        """
        numbers = batch.index.tolist()  # on the CPU, so that no device is waited for
        held = [row for row, number in enumerate(numbers) if number % HELD_OUT == 0]
        rest = [row for row, number in enumerate(numbers) if number % HELD_OUT]
        if held and rest:
            chosen = torch.tensor(held, device=y.device)
            self.scores.step(lambda: self.bridge(student, teacher, y, batch.x, chosen, learns=False))
        else:  # a batch without both
            rest = list(range(len(numbers)))
        rows = torch.tensor(rest, device=y.device)
        labels = self.task.loss(student.logits[rows], y[rows])
        return labels + self.bridge(student, teacher, y, batch.x, rows, learns=True)

    def bridge(self, student: Output, teacher: Output, y: Tensor, x: Tensor, rows: Tensor, *, learns: bool) -> Tensor:
        """Return the bridge loss of some images.

        Args:
            rows: (K,) their places in the batch.
            learns: whether student and connectors get gradients, or the weights.
        """
        parts: list[Tensor] = []
        features = self.aggregated(teacher, rows)
        for index, feature in enumerate(features):
            target = feature.detach() if learns else feature
            own = student.stages[index][rows]
            connected = self.to_teacher[index](own if learns else own.detach())
            parts.append(F.mse_loss(wide(connected), wide(target)))
            logits = self._continued(x[rows], index, self.to_student[index](target))
            parts.append(self.task.loss(logits, y[rows]))
        return torch.stack(parts).sum()

    def _continued(self, x: Tensor, index: int, feature: Tensor) -> Tensor:
        """Run the student with the feature of one stage replaced; its running statistics stay."""
        model = self._student[0]
        path, site = self._ends[index]

        def replace(module: nn.Module, args: Any, out: Any) -> Any:
            if site is None:
                whole = _of_size(feature, out[0].shape[-1])
                return whole, whole
            return site.replaced(out, _of_size(feature, site.layer.size))

        handle = model.get_submodule(path).register_forward_hook(replace)
        try:
            with still_statistics(model):
                logits: Tensor = model(x)
        finally:
            handle.remove()
        return logits


def tap_groups(teacher: LiveSource, sizes: Sequence[int], resolution: int) -> list[int]:
    """Tap all blocks of a teacher's stages that have the shape of their last one; return how many each stage has.

    Args:
        teacher: the teacher.
        sizes: height of the student's map in each stage, in pixels.
        resolution: height and width of the images in pixels.
    """
    taps = teacher.match(Sizes(list(sizes)), resolution)
    if not taps:  # its features are fixed
        return [1] * len(sizes)
    layers = teacher.blocks(resolution)
    order = [layer.path for layer in layers]
    paths: list[str] = []
    each: list[int] = []
    counts: list[int] = []
    begin = 0
    for tap in taps:
        end = order.index(tap.path) if tap.path in order else -1
        shape = tap.channels, tap.size
        same = [layer.path for layer in layers[begin : end + 1] if (layer.channels, layer.size) == shape] or [tap.path]
        begin = max(begin, end + 1)
        paths += same
        each += [tap.student_size] * len(same)
        counts.append(len(same))
    teacher.match(Sizes(each), resolution, paths)
    return counts


def stage_ends(pair: Pair) -> list[tuple[str, Site | None]]:
    """Return the module at the end of each of a student's stages, and how its output holds the feature.

    Raises:
        SettingError: none is found for some stage.
    """
    model = pair.model
    if isinstance(model, StaticNet):
        return [(f"stages.{number}", None) for number in range(len(model.stages))]
    training = model.training
    like = next(model.parameters())
    found = probe(model.eval(), torch.zeros(2, *pair.image, device=like.device, dtype=like.dtype))
    model.train(training)
    ends: list[tuple[str, Site | None]] = []
    for shape in pair.student.stages:
        # what a smaller map of the teacher is compared with is the student's pooled to its size
        alike = [layer for layer in found.layers if layer.channels == shape[0] and layer.size >= shape[-1]]
        fitting = [layer for layer in alike if layer.size == shape[-1]] or alike
        if not fitting:
            expected = f"a student with a module that ends each of its stages; none gives {shape}"
            raise SettingError("method", "dfa", expected, "use fitnet or review")
        ends.append((fitting[-1].path, found.sites[fitting[-1].path]))
    return ends


def _of_size(feature: Tensor, size: int) -> Tensor:
    """Return a map (B, C, H, W) at the height and width of the one that it stands for."""
    return feature if feature.ndim != 4 or feature.shape[-1] == size else F.interpolate(feature, size=size)


@contextmanager
def still_statistics(model: nn.Module) -> Iterator[None]:
    """Keep running statistics as they are in training mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
