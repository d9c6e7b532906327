"""One forward pass of a network, watched: what its modules are called with, and whether it can be traced at all."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.cutting import MOST_OUTPUTS, with_first

HINT = "name a space instead (--space), or give a network whose forward pass is the same for every image"
aten: Any = torch.ops.aten
# operations that turn an image's values into a branch of the code, or into a shape
DECIDING = {
    aten._local_scalar_dense.default: "a number that the code goes on with",
    aten.equal.default: "a branch of the code",
    aten.is_nonzero.default: "a branch of the code",
    aten.nonzero.default: "a shape",
    aten.masked_select.default: "a shape",
    aten._unique2.default: "a shape",
}


@dataclass
class Call:
    """How often a module was called, and the last call.

    Args:
        count: number of calls.
        x: its input, None where that is not one tensor; what else it was given are no features, but masks and the like.
        out: its output, likewise.
        args: all that it was given.
        first: the first of several outputs, which goes on if `only_firsts_are_needed`.
        more: how many there are behind it.
    """

    count: int = 0
    x: Tensor | None = None
    out: Tensor | None = None
    args: tuple[Any, ...] = ()
    first: Tensor | None = None
    more: int = 0


class _DecidedByValueError(RuntimeError):
    pass


class _Watch(TorchDispatchMode):
    """Follows what is computed from the images, and raises where the code or a shape depends on it."""

    def __init__(self, images: Any) -> None:
        super().__init__()
        self.from_images = WeakTensorKeyDictionary()
        for leaf in tree_leaves(images):
            self.from_images[leaf] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor in self.from_images for tensor in tensors):
            what = DECIDING.get(func)
            if func is aten.index.Tensor and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:]):
                what = "a shape"
            if what is not None:
                raise _DecidedByValueError(f"an image's values decide {what}")
            out = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self.from_images[leaf] = True
            return out
        return func(*args, **(kwargs or {}))


def check_network(network: nn.Module, images: Any) -> None:
    """Check that a network can be traced and cut, by one forward pass.

    Args:
        network: in evaluation mode.
        images: (B, C, H, W) random images of the size that it takes, or texts.

    Raises:
        SettingError: it cannot run, decides by values of the images, gives no logits, shares weights between layers,
            or runs a layer twice an image; the module and the line are named.
    """
    names: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        key = (parameter.data_ptr(), tuple(parameter.shape))
        if parameter.numel() and parameter.device.type != "meta" and key in names:
            legal = f"weights of their own for every layer ({names[key]} and {name} are tied)"
            raise _refused(network, legal, "untie them (a copy each), or name a space instead (--space)")
        names[key] = name
    images = inputs.copied(images)
    counts: dict[str, int] = {}
    open_modules: list[str] = []

    def before(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        counts[name] = counts.get(name, 0) + 1
        open_modules.append(name)

    def after(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        open_modules.pop()

    handles = _hooked(network, before, after)
    try:
        with torch.no_grad(), _Watch(images):
            logits = network(images)
    except Exception as error:  # whatever a foreign forward pass raises
        text = " ".join(str(error).split())[:200]
        place = open_modules[-1] if open_modules else "the forward pass"
        line = _line(error)
        legal = f"a network that can be traced; {place}{f' ({line})' if line else ''}: {text}"
        raise _refused(network, legal, HINT) from error
    finally:
        for handle in handles:
            handle.remove()
    number = inputs.count(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != number:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        given = ", ".join(str(tuple(leaf.shape)) for leaf in tree_leaves(images))
        legal = f"a network that maps inputs {given} to logits ({number}, classes), not {found}"
        raise _refused(network, legal, "wrap it in a module that returns the logits")
    for name, count in counts.items():
        if count > 1 and next(network.get_submodule(name).parameters(), None) is not None:
            legal = f"a network whose layers run once an image ({name} runs {count} times)"
            raise _refused(network, legal, "give each use a copy of its own, or name a space instead (--space)")


def calls_of(network: nn.Module, images: Any) -> dict[str, Call]:
    """Run a network once with gradients and note the calls of its modules, in order.

    Args:
        network: in evaluation mode.
        images: (B, C, H, W), or texts.

    Returns:
        The call of each module by its path.
    """
    calls: dict[str, Call] = {}

    def before(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = calls.setdefault(name, Call())
        call.count += 1
        call.args = args
        call.x = args[0] if args and isinstance(args[0], Tensor) else None
        others = tree_leaves((args[1:], kwargs))
        if any(isinstance(other, Tensor) and other.requires_grad for other in others):
            call.x = None

    def after(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        call = calls[name]
        call.out = out if isinstance(out, Tensor) else None
        several = isinstance(out, tuple | list) and 1 < len(out) <= MOST_OUTPUTS and isinstance(out[0], Tensor)
        call.first, call.more = (out[0], len(out) - 1) if several else (None, 0)

    handles = _hooked(network, before, after)
    x = inputs.copied(images)
    try:
        with torch.enable_grad(), learnable(network):
            network(x.requires_grad_(True) if isinstance(x, Tensor) else x)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@torch.no_grad()
def only_firsts_are_needed(network: nn.Module, images: Any, paths: Sequence[str]) -> bool:
    """Tell whether a network runs where modules give None for all outputs but their first, in training too.

    Args:
        network: in evaluation mode, in which it has to give the same.
        images: (B, C, H, W), or texts.
        paths: of the modules.
    """
    want = network(inputs.copied(images))
    trained = deepcopy(network).train()  # a copy: norms take statistics

    def without(module: nn.Module, args: Any, out: Any) -> Any:
        return with_first(out, out[0])

    handles = [own.get_submodule(path).register_forward_hook(without) for own in (network, trained) for path in paths]
    try:
        with torch.random.fork_rng(devices=[]):
            trained(inputs.copied(images))
        return torch.equal(network(inputs.copied(images)), want)
    except Exception:  # whatever a foreign forward pass makes of None
        return False
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def learnable(network: nn.Module) -> Iterator[None]:
    """Let gradients reach all weights of a network, so that autograd knows every operation."""
    frozen = [p for p in network.parameters() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _refused(network: nn.Module, legal: str, hint: str) -> SettingError:
    return SettingError("teacher", type(network).__name__, legal, hint)


def _hooked(network: nn.Module, before: Any, after: Any) -> Sequence[Any]:
    handles = []
    for name, module in network.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(partial(before, name), with_kwargs=True))
            handles.append(module.register_forward_hook(partial(after, name), with_kwargs=True))
    return handles


def _line(error: BaseException) -> str:
    """Return file, line and code of the innermost frame that is neither torch's nor this file's."""
    own = (str(Path(torch.__file__).parent), __file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(own)]
    if not frames:
        return ""
    last = frames[-1]
    return f"{Path(last.filename).name}:{last.lineno}: {last.line}" if last.line else ""
