"""The cut that a pruning library makes by itself: torch-pruning's global one by Taylor importance."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from nas_kd.derive.cost import whole_cost
from nas_kd.errors import SettingError
from nas_kd.losses import label_loss
from nas_kd.nn.cutting import plan_of
from nas_kd.space.arch import Cost

HALVINGS = 7  # of the ratio that is pruned
MOST = 0.95  # of the channels


def taylor_cut(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    fits: Callable[[Cost], bool],
    inside: Sequence[str] = (),
    kind: str = "classes",
) -> nn.Module:
    """Prune a network globally by the first-order Taylor importance of its coupled channels.

    Args:
        network: in evaluation mode; it stays as it is.
        batches: images (B, C, H, W) as the network takes them, and labels, of which the gradient is taken.
        fits: whether a cost is within the budget.
        inside: paths of layers that alone may be pruned; none allows all, those of the residual stream among them.
        kind: what labels are; see `nas_kd.losses.label_loss`.

    Returns:
        The network of the smallest ratio within the budget, in evaluation mode with ``cut_plan``.

    Raises:
        SettingError: the library cannot prune it so that it still runs, or never enough.

    Source: Molchanov et al. 2019, Importance Estimation for Neural Network Pruning; Fang et al. 2023, DepGraph.
    """
    whole = deepcopy(network).eval().requires_grad_(True)
    images = None
    for x, y in batches:
        if not isinstance(x, Tensor):
            raise SettingError("taylor", type(network).__name__, "a network of images", "leave this rival out")
        images = x[:1] if images is None else images
        label_loss(kind, whole(x), y, reduction="sum").backward()
    if images is None:
        raise SettingError("batches", 0, "at least one image", "pass data.train.clean(256, limit=1024)")
    classes = int(whole(images).shape[1])
    found = None
    low = 0.0
    high = MOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        pruned = _pruned(whole, images, middle, classes, inside)
        if fits(whole_cost(pruned, images.shape[1], images.shape[2])):
            found = pruned
            high = middle
        else:
            low = middle
    if found is None:
        raise SettingError("taylor", type(network).__name__, "a network that the budget can be pruned to", "raise it")
    found.cut_plan = plan_of(found, network)  # type: ignore[assignment]
    return found.eval()


def _pruned(whole: nn.Module, images: Tensor, ratio: float, classes: int, inside: Sequence[str]) -> nn.Module:
    """Return a copy with a share of its channels pruned."""
    import torch_pruning

    copy = deepcopy(whole)
    for mine, other in zip(copy.parameters(), whole.parameters(), strict=True):
        mine.grad = None if other.grad is None else other.grad.clone()
    kept = [
        module
        for name, module in copy.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
        and (name not in inside if inside else isinstance(module, nn.Linear) and module.out_features == classes)
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_pruning.pruner.BasePruner(
                copy,
                images,
                importance=torch_pruning.importance.GroupTaylorImportance(),
                global_pruning=True,
                pruning_ratio=ratio,
                max_pruning_ratio=MOST,
                ignored_layers=kept,
            ).step()
        with torch.no_grad():
            copy(images)
    except (RuntimeError, ValueError, IndexError, KeyError, AttributeError, TypeError, AssertionError) as error:
        text = " ".join(str(error).split())[:120]
        expected = f"a network that torch-pruning can prune ({text})"
        raise SettingError("taylor", type(whole).__name__, expected, "leave this rival out") from error
    copy.zero_grad(set_to_none=True)
    return copy
