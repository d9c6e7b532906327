"""Rate all candidates of a stage by walking the tree of their shared first layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nas_kd.nn import Recorder
from nas_kd.rate.errors import NSR, StageError, channel_sums
from nas_kd.space import Candidate
from nas_kd.space.arch import Layer
from nas_kd.space.paths import Entry
from nas_kd.supernet import ElasticStage
from nas_kd.train.stages import Blockwise, StageFeatures

CHUNK = 256  # images a forward pass on rating images: bounds memory, and the features stay in the cache


@dataclass
class Node:
    """What all candidates that begin with the same layers have in common.

    Args:
        candidate: index of the candidate that ends here, or None.
        children: the nodes one layer deeper, by that layer.
    """

    candidate: int | None = None
    children: dict[Layer, Node] = field(default_factory=dict)

    def __len__(self) -> int:
        """Count the layers below."""
        return sum(1 + len(child) for child in self.children.values())


def prefix_tree(candidates: Sequence[Candidate], only: Collection[int] | None = None) -> dict[int, Node]:
    """Merge candidates of the same width as far as their layers agree.

    Args:
        candidates: all candidates of a stage; a tree holds no layers but theirs, so layers of different
            groups never meet.
        only: indices to include; None for all.

    Returns:
        One root a width; a root stands for the stage's input.
    """
    roots: dict[int, Node] = {}
    for index in range(len(candidates)) if only is None else sorted(only):
        node = roots.setdefault(candidates[index].width, Node())
        for layer in candidates[index].layers:
            node = node.children.setdefault(layer, Node())
        node.candidate = index
    return roots


def tree_size(candidates: Sequence[Candidate], only: Collection[int] | None = None) -> int:
    """Count the layers that ``rate_tree`` evaluates for one input width."""
    return sum(len(root) for root in prefix_tree(candidates, only).values())


@torch.no_grad()
def rate_tree(
    model: Blockwise,
    index: int,
    entry: Entry,
    calibration: StageFeatures,
    rating: StageFeatures,
    *,
    error: StageError = NSR,
    only: Collection[int] | None = None,
    advance: Callable[[], None] | None = None,
) -> dict[int, float]:
    """Score the candidates of a stage behind one setting of the stem, or at one input width.

    Each node of the tree runs its layer once on the calibration images, which gives the statistics of its
    norms, and once with these on the rating images. Path by path, a layer would run once for every candidate
    that contains it.

    Args:
        model: the trained stages and adapters.
        index: which stage.
        entry: setting of the stem for the first stage, channels of the input for the others.
        calibration: features of training images, one batch.
        rating: features of images that were not trained on.
        error: compares a stage's output with the teacher's.
        only: indices of the candidates to score; None is all. In a stage that keeps its input's width they
            are those of that width.
        advance: called after each layer.

    Returns:
        Candidate index -> error over all rating images: 0 for a perfect stage.
    """
    stage = model.stages[index]
    assert isinstance(stage, ElasticStage)
    recorder = Recorder()
    begun = model.enter(index, calibration.inputs, entry, recorder)
    values = recorder.values()
    chunks = [model.enter(index, chunk, entry, values) for chunk in rating.inputs.split(CHUNK)]
    targets = rating.targets.split(CHUNK)
    weights = error.of(targets)
    found: dict[int, Tensor] = {}

    def walk(node: Node, width: int, depth: int, seen: Tensor, features: list[Tensor]) -> None:
        for layer, child in node.children.items():
            recorder = Recorder()
            block = stage.layers[depth]
            deeper, _ = block(seen, layer, width, recorder)
            values = recorder.values()
            posts = []
            errors = []
            for chunk, target in zip(features, targets, strict=True):
                post, pre = block(chunk, layer, width, values)
                if child.children:
                    posts.append(post)
                if child.candidate is not None:
                    errors.append(error.size(model.leave(index, pre), target))
            if child.candidate is not None:
                found[child.candidate] = (channel_sums(errors) * weights).sum()
            if advance is not None:
                advance()
            if child.children:
                walk(child, width, depth + 1, deeper, posts)

    for width, root in prefix_tree(model.space.stages[index].candidates(), only).items():
        walk(root, width, 0, begun, chunks)
    order = sorted(found)
    scores = torch.stack([found[candidate] for candidate in order]).tolist()  # one transfer, not one per candidate
    return dict(zip(order, scores, strict=True))


def evaluations(candidates: Sequence[Candidate], rounds: Iterator[Sequence[Collection[int]]]) -> tuple[int, int]:
    """Count layer evaluations of ratings, as they were made and as they would be path by path.

    Args:
        candidates: all candidates of a stage.
        rounds: for each round and input width, the indices of the candidates that were scored.
    """
    made = 0
    path_by_path = 0
    for scored in rounds:
        for only in scored:
            made += tree_size(candidates, only)
            path_by_path += sum(candidates[index].depth for index in only)
    return made, path_by_path
