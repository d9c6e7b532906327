"""Tiny networks and images on which every method must learn within 200 steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.data import Batch
from nas_kd.distill import Classification, Distiller, Task, pair_of
from nas_kd.distill.generator import WIDTH
from nas_kd.distill.sampling import PairedBatch
from nas_kd.nn.output import Output
from nas_kd.teacher import LiveSource, TargetSource, TeacherEnsemble

CLASSES, IMAGE, BATCH = 4, (3, 8, 8), 16


class Toy(nn.Module):
    """Two stages of 8 and 4 pixels and a linear classifier."""

    def __init__(self, widths: tuple[int, int] = (4, 6)) -> None:
        super().__init__()
        one, two = widths
        self.conv1, self.bn1 = nn.Conv2d(3, one, 3, 1, 1, bias=False), nn.BatchNorm2d(one)
        self.conv2, self.bn2 = nn.Conv2d(one, two, 3, 2, 1, bias=False), nn.BatchNorm2d(two)
        self.fc = nn.Linear(two, CLASSES)

    def forward_stages(self, x: Tensor) -> Output:
        first = self.bn1(self.conv1(x))
        second = self.bn2(self.conv2(F.relu(first)))
        post = F.relu(second)
        pooled = post.mean((2, 3))
        return Output(self.fc(pooled), [F.relu(first), post], [first, second], pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_stages(x).logits


class Frozen(LiveSource):
    """A teacher as the library has them: no module, in eval mode, without gradients."""

    network: nn.Module = None  # type: ignore[assignment]
    name = "frozen"

    def __init__(self, seed: int, widths: tuple[int, int]) -> None:
        torch.manual_seed(seed)
        self.network = Toy(widths)
        with torch.no_grad():
            self.network.fc.weight.mul_(40)
            self.network(torch.randn(256, *IMAGE))  # running statistics
        self.network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.network(x)

    @torch.no_grad()
    def forward_stages(self, x: Tensor) -> Output:
        return self.network.forward_stages(x)


def teacher(seed: int = 1, widths: tuple[int, int] = (6, 10)) -> Frozen:
    return Frozen(seed, widths)


def student(widths: tuple[int, int] = (4, 6), seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy(widths)


def beside(batch: Batch, seed: int = 3) -> PairedBatch:
    """Beside each image, one that differs by noise."""
    noise = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(seed))
    return PairedBatch(*batch, batch.x + 0.3 * noise)


def images(n: int = BATCH) -> Batch:
    generator = torch.Generator().manual_seed(7)
    y = torch.arange(n) % CLASSES
    x = torch.randn(n, *IMAGE, generator=generator) + torch.randn(CLASSES, *IMAGE, generator=generator)[y]
    return Batch(x, y, torch.arange(n), torch.full((n,), -1))


def labelled(batch: Batch, task: Task) -> Batch:
    """The same images with labels of a task: those of the class, columns of 0 and 1, or of -1 and 1."""
    columns = F.one_hot(batch.y, CLASSES).float()
    return (
        batch if task.kind == "classes" else batch._replace(y=columns if task.kind == "multilabel" else 2 * columns - 1)
    )


def bound(
    method: Any,
    model: nn.Module,
    source: TargetSource | None = None,
    n: int = BATCH,
    task: Task | None = None,
    **settings: Any,
) -> Distiller:
    distiller = Distiller(method, task or Classification(0.0), **settings)
    return distiller.bind(pair_of(model, distiller.recipe, source, IMAGE, CLASSES, n))


def source_for(name: str, widths: tuple[int, int] = (6, 10)) -> TargetSource | None:
    if name == "multi_teacher":
        return TeacherEnsemble([teacher(seed, widths) for seed in (1, 2)])
    return teacher(widths=widths)


def noise() -> Batch:
    none = torch.zeros(BATCH, dtype=torch.int64)
    z = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(0))
    return Batch(z, none, none, none - 1)


def fit(
    distiller: Distiller,
    model: nn.Module,
    batch: Batch,
    steps: int = 200,
    lr: float = 0.01,
    enough: Callable[[list[dict[str, float]]], bool] = lambda rows: False,
) -> list[dict[str, float]]:
    """Train on one batch, at most until it is enough, and return every step's terms."""
    parameters = [p for m in (model, distiller.trained) for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    rows = []
    model.train()
    distiller.trained.train()
    for step in range(steps):
        optimizer.zero_grad()
        torch.manual_seed(step)
        parts = distiller.step(batch, step / steps)
        optimizer.step()
        rows.append({name: float(value) for name, value in parts.items()})
        if step % 10 == 9 and enough(rows):
            break
    return rows
