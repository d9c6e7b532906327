"""Features of networks that do not return them, read from the outputs of modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nas_kd.nn.output import Output
from nas_kd.teacher.probe import Probe, Site


class _Reader:
    """Keeps the output of one module during a forward pass."""

    def __init__(self, site: Site | None) -> None:
        self.site = site
        self.active = False
        self.post: Tensor | None = None
        self.pre: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if not self.active:
            return
        if self.site is None:  # the classifier: its input is the pooled feature
            self.post = args[0].flatten(1)
        else:
            self.post = self.site.feature(out)
            self.pre = out[1] if self.site.layer.pre else self.post


class ModuleReader:
    """Reads the outputs of chosen modules and the classifier's input in one forward pass."""

    def __init__(self, module: nn.Module, probed: Probe, paths: Sequence[str]) -> None:
        self.module = module
        self.paths = list(paths)
        self.sites = {path: probed.sites[path] for path in paths}
        self.readers = {path: _Reader(probed.sites[path]) for path in paths}
        self.pooled = _Reader(None)
        self.handles = [module.get_submodule(p).register_forward_hook(r) for p, r in self.readers.items()]
        if probed.classifier is not None:
            self.handles.append(module.get_submodule(probed.classifier).register_forward_hook(self.pooled))

    def remove(self) -> None:
        """Remove the hooks from the network."""
        for handle in self.handles:
            handle.remove()

    def read(self, x: Tensor) -> Output:
        """Map (B, C, H, W) to logits and the features of the chosen modules."""
        readers = [*self.readers.values(), self.pooled]
        for reader in readers:
            reader.active = True
        try:
            logits = self.module(x)
            stages = [_present(self.readers[path].post) for path in self.paths]
            pre = [_present(self.readers[path].pre) for path in self.paths]
            # an unknown head: the input of most is the mean of the last feature
            pooled = self.pooled.post if self.pooled.post is not None else stages[-1].mean((2, 3))
            return Output(logits, stages, pre, pooled)
        finally:
            for reader in readers:
                reader.active = False
                reader.post = None
                reader.pre = None


def _present(x: Tensor | None) -> Tensor:
    assert x is not None  # this module ran once in the dry run
    return x
