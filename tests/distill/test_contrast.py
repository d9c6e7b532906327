"""CRD beside a slow oracle of its authors' module: losses, gradients and memories over several steps, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from toy import bound, images, student, teacher

from nas_kd.data import Batch
from nas_kd.distill.contrast import Contrast
from nas_kd.distill.pair import Pair, Shapes
from nas_kd.errors import SettingError

IMAGES, NEGATIVES, WIDTH, BATCH = 40, 9, 5, 7
T, MOMENTUM, EPS = 0.07, 0.5, 1e-7
LABELS = torch.arange(IMAGES) % 4


def contrast(classes: Tensor | None = LABELS, **settings: object) -> Contrast:
    shapes = [Shapes(4, (), (), pooled) for pooled in (6, 10)]
    pair = Pair(shapes[0], shapes[1], nn.Identity(), lambda x: x, images=IMAGES, classes=classes)  # type: ignore[arg-type,return-value]
    torch.manual_seed(0)
    return Contrast(pair, **{"width": WIDTH, "negatives": NEGATIVES} | settings).double()  # type: ignore[arg-type]


def batch(index: Tensor) -> Batch:
    return Batch(torch.zeros(len(index), 1), LABELS[index], index, index)


class ByHand:
    """What the authors' module does, one sample and one negative at a time.

    The image's own row of the other network's memory is the positive, rows of other classes are the noise; scores are
    exp(anchor . row / T) / Z, each side's Z being N times the mean score of the first batch.
    """

    def __init__(self, ours: Contrast) -> None:
        self.layers = {"s": ours.embed_student, "t": ours.embed_teacher}
        self.memory = {"s": ours.memory_student.clone(), "t": ours.memory_teacher.clone()}
        self.z: dict[str, float] = {}

    def loss(self, s: Tensor, t: Tensor, index: Tensor, positives: Tensor, noise: Tensor) -> Tensor:
        embedded = {}
        for side, x in (("s", s), ("t", t)):
            raw = x @ self.layers[side].weight.T + self.layers[side].bias
            embedded[side] = raw / raw.pow(2).sum(1, keepdim=True).sqrt()
        total = torch.zeros((), dtype=torch.float64)
        for anchor, other in (("s", "t"), ("t", "s")):
            scores = [
                [torch.exp(v @ self.memory[other][i] / T) for i in [int(positives[b]), *noise[b].tolist()]]
                for b, v in enumerate(embedded[anchor])
            ]
            if anchor not in self.z:
                self.z[anchor] = IMAGES * sum(x.item() for row in scores for x in row) / (BATCH * (NEGATIVES + 1))
            c = NEGATIVES / IMAGES  # K times the noise's probability of an image
            for row in scores:
                true, *rest = (x / self.z[anchor] for x in row)
                total = total - torch.log(true / (true + c + EPS)) / BATCH
                for x in rest:
                    total = total - torch.log(c / (x + c + EPS)) / BATCH
        for side in ("s", "t"):
            rows = self.memory[side] = self.memory[side].clone()  # the loss keeps those that it was made of
            for b, image in enumerate(index.tolist()):
                mixed = MOMENTUM * rows[image] + (1 - MOMENTUM) * embedded[side][b].detach()
                rows[image] = mixed / mixed.norm()
        return total


@pytest.mark.parametrize("variant", ["exact", "relax"])
def test_losses_gradients_and_memories_are_the_authors_over_several_steps(variant: str) -> None:
    ours = contrast(variant=variant)
    oracle = ByHand(ours)
    draws = torch.Generator().manual_seed(1)
    weights = [*ours.embed_student.parameters(), *ours.embed_teacher.parameters()]
    for step in range(4):
        index = torch.randperm(IMAGES, generator=draws)[:BATCH]
        s = torch.randn(BATCH, 6, generator=draws, dtype=torch.float64, requires_grad=True)
        t = torch.randn(BATCH, 10, generator=draws, dtype=torch.float64, requires_grad=True)
        torch.manual_seed(step)  # the module draws the same again
        positives, noise = ours.positives(index), ours.others(index)
        torch.manual_seed(step)
        value = ours(s, t, batch(index))
        expected = oracle.loss(s, t.detach(), index, positives, noise)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
        gradients = torch.autograd.grad(value, [s, *weights])
        for found, hand in zip(gradients, torch.autograd.grad(expected, [s, *weights]), strict=True):
            torch.testing.assert_close(found, hand, rtol=1e-7, atol=1e-9)
        assert t.grad is None
        torch.testing.assert_close(ours.memory_student, oracle.memory["s"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ours.memory_teacher, oracle.memory["t"], rtol=1e-9, atol=1e-12)
        with torch.no_grad():  # so that the embeddings differ from step to step
            for weight, gradient in zip(weights, gradients[1:], strict=True):
                weight -= 0.01 * gradient
    assert ours.scales.tolist() == pytest.approx([math.log(oracle.z[side]) for side in "st"], rel=1e-9)


@pytest.mark.parametrize("negatives", [NEGATIVES, 100])
def test_negatives_are_of_other_classes_and_none_twice_where_there_are_as_many(negatives: int) -> None:
    module = contrast(negatives=negatives)
    index = torch.arange(IMAGES)
    seen = torch.zeros(IMAGES, IMAGES, dtype=torch.int64)
    for _ in range(60):
        drawn = module.others(index)
        assert drawn.shape == (IMAGES, negatives)
        assert (LABELS[drawn] != LABELS[:, None]).all()
        assert negatives > IMAGES or all(len(set(row)) == negatives for row in drawn.tolist())
        seen.scatter_add_(1, drawn, torch.ones_like(drawn))
    others = seen[LABELS[:, None] != LABELS[None]].double()
    expected = 60 * negatives / 30  # each of the 30 others equally often
    assert others.mean() == expected and others.std() < 2 * expected**0.5 and others.min() > 0


def test_positives_of_the_relaxed_form_are_any_of_the_class() -> None:
    module = contrast(variant="relax")
    drawn = torch.stack([module.positives(torch.arange(IMAGES)) for _ in range(200)])
    assert (LABELS[drawn] == LABELS).all()
    assert all(len(set(drawn[:, i].tolist())) == 10 for i in range(IMAGES))
    assert torch.equal(contrast().positives(torch.arange(5)), torch.arange(5))


def test_an_image_whose_class_is_not_known_is_of_its_own() -> None:
    unknown = LABELS.clone()
    unknown[:20] = -1
    for classes, others in ((unknown, IMAGES - 1), (None, IMAGES - 1)):
        module = contrast(classes)
        seen = {int(i) for _ in range(300) for i in module.others(torch.tensor([3]))[0]}
        assert len(seen) == others and 3 not in seen


def test_one_class_has_no_negatives() -> None:
    with pytest.raises(SettingError, match=r"two classes or more.*variant shared"):
        contrast(torch.zeros(IMAGES, dtype=torch.int64))
    assert contrast(torch.zeros(IMAGES, dtype=torch.int64), variant="shared")
    with pytest.raises(SettingError, match=r"crd\.variant"):
        bound("crd", student(), teacher(), variant="exactly")


def test_the_shared_form_learns_from_the_batch_itself() -> None:
    """The teacher's embedding moves with what the student says in this step; in the authors' with the memory alone."""
    for variant, moves in (("exact", False), ("shared", True)):
        module = contrast(variant=variant)
        index = torch.arange(BATCH)
        s, t = torch.randn(BATCH, 6).double(), torch.randn(BATCH, 10).double()
        memory = module.memory_student.clone()
        module(s, t, batch(index))  # Z
        gradients = []
        for says in (s, s.flip(0)):
            module.memory_student.copy_(memory)
            torch.manual_seed(0)
            loss = module(says, t, batch(index))
            gradients.append(torch.autograd.grad(loss, module.embed_teacher.weight)[0])
        assert gradients[0].abs().sum() > 0 and torch.equal(*gradients) != moves


def test_the_method_learns_in_the_toy() -> None:
    model = student()
    distiller = bound("crd", model, teacher(), 64, negatives=16)
    parts = distiller.step(images(), 0.0)
    assert torch.isfinite(parts["loss"]) and model.fc.weight.grad is not None
