"""Modules that compare a text student with its teacher layer by layer: maps of layers, projections, attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.distill.pair import Pair, Shapes
from nas_kd.errors import SettingError
from nas_kd.losses._common import one_of
from nas_kd.losses.texts import products
from nas_kd.nn.inputs import real_tokens, takes_images

MAPS = ("uniform", "last", "nearest")


def check_texts(pair: Pair) -> None:
    """Refuse networks of images."""
    if takes_images(pair.model):
        expected = "a method for images: this one compares the layers of text encoders"
        raise SettingError("method", type(pair.model).__name__, expected, "use kd, or fitnet and the like")


def mapped(name: str, students: int, teachers: int) -> list[int]:
    """Return the teacher's layer, from 1, of each layer of the student.

    Args:
        name: ``uniform``, every so many; ``last``, the last ones.
        students: layers of the student.
        teachers: layers of the teacher.

    Source: TinyBERT (arXiv 1909.10351), g(m) = m T / S; PKD (arXiv 1908.09355), skip and last.
    """
    if name == "last":
        return [max(1, teachers - students + number) for number in range(1, students + 1)]
    return [max(1, round(number * teachers / students)) for number in range(1, students + 1)]


class Layered(nn.Module):
    """A loss of a student's layers, each against one of the teacher's.

    Args:
        pair: its stages are the embeddings and the layers of both.
        map: see `mapped`; ``nearest`` takes, batch by batch, the teacher's layer of the smallest loss.
        first: the embeddings are compared too.
        project: student states go through a linear layer each, which begins as the identity where widths are equal.
    """

    equal = False  # whether hidden widths have to be
    last = True  # whether last layers, which the logits see, are compared

    def __init__(self, pair: Pair, map: str = "uniform", first: bool = False, project: bool = True) -> None:
        super().__init__()
        theirs = _teacher(pair)
        one_of("map", map, MAPS)
        self.map = map
        self.first = first
        widths = [shape[-1] for shape in pair.student.stages]
        if self.equal and {*widths} != {theirs.stages[0][-1]}:
            expected = f"a student of the teacher's hidden width, {theirs.stages[0][-1]}; it has {widths[0]}"
            raise SettingError("method", type(self).__name__, expected, "use minilm, tinybert or cofi")
        self.teachers = len(theirs.stages) - 1
        self.projections = nn.ModuleList()
        for width in widths if project else ():
            layer = nn.Linear(width, theirs.stages[0][-1], bias=False)
            if width == theirs.stages[0][-1]:
                nn.init.eye_(layer.weight)
            self.projections.append(layer)

    def state(self, number: int, hidden: Tensor) -> Tensor:
        """Return a hidden state of the student, projected where it is."""
        return self.projections[number](hidden) if len(self.projections) else hidden

    def over(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], loss: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Return the mean loss over the student's layers, and its embeddings if these are compared.

        Args:
            student: embeddings, then layers.
            teacher: likewise.
            loss: of one state of each.
        """
        own = [self.state(number, hidden) for number, hidden in enumerate(student)]
        found = [loss(own[0], teacher[0])] if self.first or len(own) == 1 else []
        layers, theirs = own[1:], teacher[1:]
        places = mapped(self.map, len(layers), self.teachers) if layers else []
        if not self.last and len(layers) > 1:  # a student of one layer compares that
            layers, places, theirs = layers[:-1], places[:-1], theirs[:-1] or theirs
        if self.map == "nearest":
            found += [torch.stack([loss(one, other) for other in theirs]).min() for one in layers]
        else:
            found += [loss(one, teacher[place]) for one, place in zip(layers, places, strict=True)]
        return torch.stack(found).mean()


class Masked(Layered):
    """A loss of the hidden states of tokens that are real."""

    @staticmethod
    def loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """Compare states (B, L, D) where the mask (B, L) is true."""
        raise NotImplementedError

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Any) -> Tensor:
        """Return the mean over layers."""
        mask = _mask(batch)
        return self.over(student, teacher, lambda s, t: self.loss(s, t, mask))


class HiddenStates(Masked):
    """Mean squared differences of hidden states, layer by layer: TinyBERT's, MobileBERT's, CoFi's."""

    loss = staticmethod(losses.hidden_mse)


class HiddenCosine(Masked):
    """Cosine distances of hidden states: DistilBERT's."""

    equal = True
    loss = staticmethod(losses.hidden_cosine)


class Moments(Masked):
    """Mean and variance of hidden states: MobileBERT's."""

    loss = staticmethod(losses.feature_moments)


class FirstStates(Layered):
    """States of the first token, divided by their lengths; last layers, which the logits see, are left out: PKD's."""

    equal = True
    last = False

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Any) -> Tensor:
        """Return the mean over layers."""
        return self.over(student, teacher, lambda s, t: losses.normalised_states(s[:, 0], t[:, 0]))


class Attention(nn.Module):
    """Attention of a student's layers against that of the teacher's.

    Args:
        pair: its ``pre`` are queries, keys and values of each layer, (3, heads, L, width) a text.
        map: see `mapped`.
        kind: ``mse`` of scores before the softmax (TinyBERT), or ``kl`` of attention (MobileBERT).
    """

    def __init__(self, pair: Pair, map: str = "uniform", kind: str = "mse") -> None:
        super().__init__()
        theirs = _teacher(pair)
        one_of("map", map, MAPS[:2])
        self.kind = one_of("kind", kind, ("mse", "kl"))
        self.places = mapped(map, len(pair.student.pre), len(theirs.pre)) if pair.student.pre else []

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Any) -> Tensor:
        """Return the mean over layers; of a student without layers 0."""
        mask = _mask(batch)
        found = [
            _attention(s, teacher[place - 1], mask, self.kind) for s, place in zip(student, self.places, strict=True)
        ]
        return torch.stack(found).mean() if found else mask.new_zeros((), dtype=torch.float32)


class LastRelations(nn.Module):
    """Attention and relations of values of the last layers: MiniLM's.

    Where the numbers of heads differ, heads are put together to as many as both can be divided into, as in MiniLM v2.
    """

    def __init__(self, pair: Pair) -> None:
        super().__init__()

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Any) -> Tensor:
        """Return the sum of both divergences; of a student without layers 0."""
        mask = _mask(batch)
        if not student:
            return mask.new_zeros((), dtype=torch.float32)
        s, t = (regrouped(part[-1], gcd(student[-1].shape[2], teacher[-1].shape[2])) for part in (student, teacher))
        scores = [products(part[:, 0], part[:, 1]) for part in (s, t)]
        values = [products(part[:, 2], part[:, 2]) for part in (s, t)]
        return losses.attention_kl(scores[0], scores[1], mask) + losses.attention_kl(values[0], values[1], mask)


def regrouped(parts: Tensor, heads: int) -> Tensor:
    """Divide queries, keys and values into another number of heads.

    Args:
        parts: (B, 3, H, L, W).
        heads: a divisor of H W.

    Returns:
        (B, 3, heads, L, H W / heads).
    """
    if parts.shape[2] == heads:
        return parts
    whole = parts.transpose(2, 3).flatten(3)  # (B, 3, L, H W)
    return whole.unflatten(3, (heads, -1)).transpose(2, 3)


def _attention(student: Tensor, teacher: Tensor, mask: Tensor, kind: str) -> Tensor:
    if kind == "kl":
        heads = gcd(student.shape[2], teacher.shape[2])
        student, teacher = regrouped(student, heads), regrouped(teacher, heads)
        return losses.attention_kl(products(student[:, 0], student[:, 1]), products(teacher[:, 0], teacher[:, 1]), mask)
    return losses.attention_mse(products(student[:, 0], student[:, 1]), products(teacher[:, 0], teacher[:, 1]), mask)


def _teacher(pair: Pair) -> Shapes:
    theirs = pair.teacher
    assert theirs is not None  # a term on features has a teacher
    return theirs


def _mask(batch: Any) -> Tensor:
    found = real_tokens(batch.x)
    assert found is not None  # `check_texts` has looked
    return found
