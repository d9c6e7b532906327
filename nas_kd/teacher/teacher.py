"""A sealed teacher network."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError, nearest
from nas_kd.nn.output import Output
from nas_kd.nn.static import StaticNet
from nas_kd.space.arch import Cost
from nas_kd.teacher.answers import logits_of
from nas_kd.teacher.choose import choose_taps, named_taps
from nas_kd.teacher.cifar_resnet import CifarResNet, own_class
from nas_kd.teacher.digest import digest_of
from nas_kd.teacher.dry_run import Seen, check_classes, dry_run
from nas_kd.teacher.foreign import ModuleReader
from nas_kd.teacher.normalisation import per_channel, renormalisation
from nas_kd.teacher.probe import Site, probe
from nas_kd.teacher.stored import stored_answers
from nas_kd.teacher.taps import Layer, Staged, Tap, pool_to
from nas_kd.teacher.targets import LiveSource, TargetSource

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data
    from nas_kd.runs.run import Run

# Pixels of a batch (32 images of 32 x 32) whose features fit into a CPU's cache: in such parts ResNet-56 runs
# batches of 64 to 256 images 1.4 to 1.5 times as fast.
CACHED_PIXELS = 2**15
OWN = (CifarResNet, StaticNet)  # networks that are known not to change their input


class Teacher(LiveSource):
    """A network in eval mode, without gradients, that nothing can train.

    It is not an ``nn.Module``: as an attribute of a student it is in neither parameters nor state dict.

    Args:
        module: maps (B, C, H, W) to logits (B, classes); it is set to eval mode and frozen.
        name: for messages.
        num_classes: number of logits; None if only a forward pass can tell.
        mean: mean of each input channel, in 0..1 units, that the network expects; None: that of the data.
        std: standard deviation of each input channel; given with `mean`.
        stages: names of the modules that teach the stages of the student; None chooses them.
        resolution: size in pixels that it sees every image at; None: that of the data.

    Raises:
        SettingError: a stage is not a module of the network, or mean and std do not fit the channels.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        *,
        num_classes: int | None = None,
        in_chans: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        stages: Sequence[str] | None = None,
        resolution: int | None = None,
    ) -> None:
        self._module = module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.name = name
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.resolution = resolution
        self.noted = False  # whether its normalisation was written down with its weights
        self.mean = per_channel("mean", mean, in_chans)
        self.std = per_channel("std", std, in_chans)
        if (self.mean is None) != (self.std is None) or (self.std and min(self.std) <= 0):
            raise SettingError("teacher.std", std, "mean and std together, std above 0", "set both or neither")
        names = [path for path, _ in module.named_modules() if path]
        for path in stages or ():
            if path not in names:
                expected = "a module of the teacher"
                raise SettingError("teacher.stages", path, expected, nearest(path, names))
        self.stages = None if stages is None else tuple(stages)
        self.taps: tuple[Tap, ...] | None = None
        self.macs: int | None = None
        self._affine: tuple[Tensor, Tensor] | None = None
        self._size: int | None = None  # what images are resized to
        self._foreign = type(module) not in OWN
        self._reader: ModuleReader | None = None

    def __repr__(self) -> str:
        return f"Teacher({self.name!r}, num_classes={self.num_classes}, params={self.params})"

    @property
    def params(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self._module.parameters())

    @property
    def cost(self) -> Cost | None:
        """Its MACs at the size of the data that it was bound to, and its parameters; None before `bind`.

        As everywhere, MACs are those of convolutions and linear layers.
        """
        return None if self.macs is None else Cost(self.macs, self.params)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what determines the outputs: name, weights, expected normalisation and, if another, image size."""
        if self._size is None:
            return self._digest
        return hashlib.sha256(f"{self._digest} at {self._size} px".encode()).hexdigest()

    @cached_property
    def _digest(self) -> str:
        # a student folder may be moved, so it is identified by its layers and not by its path
        name = str(self._module.layers_spec) if isinstance(self._module, StaticNet) else self.name
        return digest_of(repr((name, self.mean, self.std)), self._module.state_dict())

    def train(self, mode: bool = True) -> Teacher:
        """Do nothing: a teacher stays in eval mode."""
        return self

    def eval(self) -> Teacher:
        """Do nothing: a teacher is in eval mode."""
        return self

    def to(self, device: torch.device | str) -> Teacher:
        """Move to a device."""
        self._module.to(device)
        if self._affine is not None:
            self._affine = (self._affine[0].to(device), self._affine[1].to(device))
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W), normalised like the bound data, to logits (B, classes)."""
        x = self.normalised(x)
        size = max(8, CACHED_PIXELS // (x.shape[2] * x.shape[3]))
        if x.device.type != "cpu" or len(x) <= size:
            return logits_of(self._module(x))
        return torch.cat([logits_of(self._module(part)) for part in x.split(size)])

    @torch.no_grad()
    def forward_stages(self, x: Tensor) -> Output:
        """Run the network and return the features at the taps.

        Args:
            x: (B, C, H, W), normalised like the bound data.

        Returns:
            Logits, one feature (B, C, H, W) per tap, not pooled, and the classifier's input.

        Raises:
            SettingError: no taps were chosen.
        """
        if self.taps is None:
            hint = "call teacher.match(space, resolution) first"
            raise SettingError("teacher.taps", None, "one per stage of the space", hint)
        x = self.normalised(x)
        if own_class(self._module):
            return self._module.forward_stages(x, [tap.path for tap in self.taps])
        assert self._reader is not None
        return self._reader.read(x)

    def site(self, path: str) -> Site:
        """Return how a tapped module of a network of another class gives its feature map.

        Args:
            path: of one of the `taps`.
        """
        assert self._reader is not None  # the taps are chosen
        return self._reader.sites[path]

    def features(self, batch: Batch) -> Output:
        """Run `forward_stages`, and average features that are larger than the students' to their size."""
        out = self.forward_stages(batch.x)
        sizes = [tap.student_size for tap in self.taps or ()]
        stages, pre = ([pool_to(x, n) for x, n in zip(xs, sizes, strict=True)] for xs in (out.stages, out.pre))
        return out._replace(stages=stages, pre=pre)

    @property
    def network(self) -> nn.Module:
        """The sealed network itself, for methods that need its input gradient."""
        return self._module

    def normalised(self, x: Tensor) -> Tensor:
        """Convert images, normalised like the bound data, to the network's channels, size, normalisation, device."""
        given = x
        x = x.to(self.device)  # data may be on another device than the teacher
        if x.shape[1] == 1 and self.in_chans == 3:
            x = x.expand(-1, 3, -1, -1)
        x = x if self._affine is None else torch.addcmul(self._affine[1], x, self._affine[0])
        if self._size is not None and tuple(x.shape[2:]) != (self._size, self._size):
            x = F.interpolate(x, (self._size, self._size), mode="bicubic", antialias=True)
        # a foreign network may change its input, perhaps only with some images
        return x.clone() if self._foreign and x.data_ptr() == given.data_ptr() else x

    def bind(self, data: Data, epochs: int = 0) -> Teacher:
        """Check that the teacher fits a data set, and convert from its normalisation.

        Raises:
            SettingError: channels or classes differ, or the network cannot run at the data's resolution.
        """
        if data.tokens is not None:
            hint = "set teacher.model to a folder that transformers saved"
            raise SettingError("teacher.model", self.name, "a text classifier, for data of texts", hint)
        if self.in_chans != data.in_chans and (self.in_chans, data.in_chans) != (3, 1):  # grey images are repeated
            hint = f"load it with in_chans={data.in_chans}, or choose another teacher"
            raise SettingError("teacher.in_chans", self.in_chans, f"{data.in_chans}, as in the data", hint)
        self._size = None if self.resolution in (None, data.resolution) else self.resolution
        check_classes(self._dry_run(data.resolution), data)
        self._affine = self._to_own(data)
        return self

    def renormalised(self, data: Data, mean: Sequence[float], std: Sequence[float]) -> Teacher:
        """Return the same network with another normalisation, bound to the data that this one is bound to."""
        other = copy.copy(self)
        other.__dict__.pop("_digest", None)
        other.mean = per_channel("mean", mean, self.in_chans)
        other.std = per_channel("std", std, self.in_chans)
        other._affine = other._to_own(data)
        return other

    def classifier(self, resolution: int) -> str | None:
        """Return the name of the layer whose input is the pooled feature; None if it cannot be told."""
        size = self._size or resolution
        images = torch.zeros(2, self.in_chans, size, size, device=self.device)
        return probe(self._module, images).classifier

    def _to_own(self, data: Data) -> tuple[Tensor, Tensor] | None:
        if self.mean is None or self.std is None:
            return None
        repeat = self.in_chans // data.in_chans
        theirs = tuple(data.mean) * repeat, tuple(data.std) * repeat
        return renormalisation(theirs, (self.mean, self.std), self.device)

    def cached(self, data: Data, run: Run | None, *, folder: str | Path | None = None, epochs: int = 0) -> TargetSource:
        """Return a cache of its logits of every numbered view, for all trainings; else the teacher itself.

        Args:
            run: the logits are stored in its ``teacher/cache``; None stores nothing, so the teacher runs live.
            folder: store them here instead, for several runs.
            epochs: epochs whose logits are computed now, for processes without the teacher; the others on first
                use.

        Returns:
            The cache, or the teacher if the augmentation has no numbered views.
        """
        return stored_answers(self.bind(data), data, run, folder, epochs)

    def blocks(self, resolution: int) -> list[Layer]:
        """Return the ends of its residual blocks in order, or of its layers where it has no blocks.

        Args:
            resolution: height and width of the images in pixels.
        """
        return self._dry_run(resolution).layers

    def match(self, space: Staged, resolution: int, names: Sequence[str] | None = None) -> list[Tap]:
        """Choose the layers that teach the stages of a space, and tap them from now on.

        Args:
            resolution: height and width of the images in pixels.
            names: the modules to tap, one a stage; None takes `stages`, or chooses.

        Raises:
            SettingError: the network has no feature maps, or a name in `stages` does not fit.
        """
        seen = self._dry_run(resolution)
        layers, probed = seen.layers, seen.probed
        sizes = space.stage_sizes(resolution)
        if not layers:
            hint = "name one module per stage in teacher.stages"
            raise SettingError("teacher.model", self.name, "a network with feature maps", hint)
        if probed is not None and len(layers) < len(sizes):
            layers = probed.finer
        stem = [] if probed is None else probed.stem
        names = self.stages if names is None else names
        taps = choose_taps(layers, sizes, stem) if names is None else named_taps(seen.sites, sizes, names)
        if self._reader is not None:
            self._reader.remove()
        if probed is not None:
            self._reader = ModuleReader(self._module, probed, [tap.path for tap in taps])
        self.taps = tuple(taps)
        return taps

    def _dry_run(self, resolution: int) -> Seen:
        """Run the network once, and note its MACs and classes."""
        seen = self._seen(resolution)
        self.macs, self.num_classes = seen.macs, seen.classes
        return seen

    def _seen(self, resolution: int) -> Seen:
        return dry_run(self._module, self.name, self.in_chans, self._size or resolution, self.device)
