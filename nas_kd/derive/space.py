"""The teacher as a space, with its weights beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nas_kd.config.kinds import checked
from nas_kd.derive.calling import batch_norms
from nas_kd.derive.derived import Derived
from nas_kd.derive.even import EvenCuts
from nas_kd.derive.importance import importance_order
from nas_kd.derive.network import CutNet
from nas_kd.derive.parts import parts_of
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.derive.units import Unit, find_parts, walk
from nas_kd.derive.whole import whole_of
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.norm import NormValues
from nas_kd.runs.log import log_message
from nas_kd.space.arch import Arch, Cost
from nas_kd.space.elastic import ElasticSpace

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.teacher.teacher import Teacher

SHARES = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
IMAGES = 1024  # that channels are weighed on


@dataclass(frozen=True)
class TeacherSpace(ElasticSpace):
    """A space whose stages are the units of a teacher; make it by `nas_kd.teacher_space`.

    Args:
        derived: the teacher that it was derived from.
    """

    derived: Derived = field(kw_only=True, compare=False, repr=False)

    @property
    def norm(self) -> NormValues:
        """The teacher's own batch-norm statistics: those of the largest arch."""
        return self.derived.norm

    @property
    def pretrained(self) -> bool:
        return True

    @property
    def parts(self) -> str:
        streams = len(self.derived.links.streams)
        return f"{len(self.derived.units)} units" + (f", {streams} streams" if streams else "")

    @property
    def details(self) -> list[str]:
        return list(walk(self.derived.units, self.derived.links))

    @property
    def supernet_class(self) -> type[Any] | None:
        return TeacherSupernet

    @property
    def smaller_hint(self) -> str:
        cut = "" if self.derived.links.streams else ", or also cut the residual stream (derive.residual=true)"
        return cut + ("" if self.resolutions else ", or let images be smaller (derive.resolutions)")

    @property
    def _units(self) -> list[Unit]:
        """The units, one a stage; a layer that begins a stream is one that stays."""
        found = []
        for link, stage in zip(self.derived.links.links, self.stages, strict=True):
            unit = Unit(link.path, (), False, (), ()) if link.unit is None else self.derived.units[link.unit]
            found.append(replace(unit, removable=stage.depths[0] == 0))
        return found

    def offering(
        self, widths: Sequence[float], depth: bool = True, *, multiple: int = 8, resolutions: Sequence[int] = ()
    ) -> TeacherSpace:
        """Return a space of the same teacher with other choices.

        Args:
            widths: shares above 0 and up to 1; all channels are always among the choices.
            depth: whether units that keep their input's shape may be left out.
            multiple: what numbers of channels are multiples of where there are at least 32.
            resolutions: further heights of the images in pixels; none leaves all at that of the data.
        """
        chosen = tuple(sorted({*resolutions, self.resolution})) if resolutions else ()
        shares = tuple(sorted({*widths, 1.0}))
        stem, stages, head = parts_of(self.derived, shares, depth, chosen or (self.resolution,), multiple)
        return replace(self, stem=stem, stages=stages, head=head, resolutions=chosen)

    def even_cuts(self, fits: Callable[[Cost], bool], cost: Mapping[str, int]) -> EvenCuts:
        """Return the cuts that one makes by hand, with any number of channels; see `EvenCuts`."""
        return EvenCuts(self.offering(()), self._units, fits, cost, lambda share: self.offering((share,), multiple=1))

    def simple_archs(self, fits: Callable[[Cost], bool], cost: Mapping[str, int]) -> dict[str, Arch]:
        """Return the even cuts of the teacher within a budget, with the numbers of channels that the space offers."""
        cuts = EvenCuts(self, self._units, fits, cost)
        found = {"even_width": cuts.width(), "even_depth": cuts.depth()}
        found |= {f"even_both_{number}": cut for number, cut in enumerate(cuts.both(), 1)}
        return {role: cut.arch for role, cut in found.items() if cut is not None}

    def build(self, arch: Arch, num_classes: int, in_chans: int = 3) -> nn.Module:  # type: ignore[override]
        """Build an arch with new weights.

        Args:
            arch: an arch of this space.
            num_classes: classes of the teacher.
            in_chans: channels of the teacher's images.

        Returns:
            The teacher's own class, cut, its layers as torch (of a text encoder, its library) begins them; fresh
            statistics go with them.
        """
        derived = self.derived
        for name, given, own in (
            ("num_classes", num_classes, derived.num_classes),
            ("in_chans", in_chans, derived.in_chans),
        ):
            if given != own:
                raise SettingError(
                    name, given, f"{own}, as of the teacher", "derive the space from a teacher of these data"
                )
        net = TeacherSupernet(self)
        network = net.cuts.extract(net.choices(arch))
        rules: Any = getattr(network, "reset_weights", None)
        if rules is not None:
            rules()
            return network.train()
        for module in network.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        return network.train()


@checked
def teacher_space(
    teacher: Teacher,
    data: Data | None = None,
    widths: Sequence[float] = SHARES,
    depth: bool = True,
    residual: bool = False,
    *,
    resolutions: Sequence[int] = (),
    importance: str | None = None,
    resolution: int | None = None,
    seed: int = 0,
) -> TeacherSpace:
    """Derive a space from a teacher: each of its residual blocks stays, becomes narrower inside, or is left out.

    Args:
        teacher: of `nas_kd.load_teacher`.
        data: images that say which channels matter, needed by ``activation`` and ``taylor``.
        widths: shares of a unit's inner channels to choose from.
        depth: whether units that keep their input's shape may be left out.
        residual: whether the widths of the residual streams can be cut too, by the same shares: for strong cuts. Those
            between the layers of a network that has no channels inside blocks always can.
        resolutions: further heights of the images in pixels to choose from; that of the data is one of them.
        importance: ``activation``, ``taylor``, ``l1`` or ``random``; None is ``activation``, without data ``l1``.
        resolution: height and width of the images in pixels; None is that of the data, else 224.
        seed: seed of the images that the network is traced with.

    Returns:
        The space; `nas_kd.Supernet` of it has the teacher's weights.

    Raises:
        SettingError: the teacher cannot be traced, has nothing to cut, draws at random, or expects another
            normalisation of images.
    """
    shares = tuple(sorted({float(share) for share in widths} | {1.0}))
    if not all(0 < share <= 1 for share in shares):
        raise SettingError("widths", tuple(widths), "shares above 0 and up to 1", f"use widths={SHARES}")
    if data is not None and teacher.mean is not None and (teacher.mean, teacher.std) != (data.mean, data.std):
        expected = f"data normalised as the teacher's, by mean {teacher.mean} and std {teacher.std}"
        raise SettingError("data.mean", data.mean, expected, "pass data.normalised(teacher.mean, teacher.std)")
    if importance is None:
        importance = "activation" if data is not None else "l1"
        if data is None:
            log_message(
                None, "channels are ordered by the norms of their weights (l1): there are no images to weigh them"
            )
    elif importance in ("activation", "taylor") and data is None:
        hint = "pass data=nas_kd.load_data(...), or importance='l1'"
        raise SettingError("importance", importance, "images to weigh channels on, or l1 or random", hint)
    network = whole_of(teacher.network)
    if resolutions and not inputs.takes_images(network):
        expected = "() for a text teacher: texts are not resized"
        raise SettingError("derive.resolutions", tuple(resolutions), expected, "set data.length")
    size = resolution or (data.resolution if data is not None else 224)
    drawn = inputs.example(network, teacher.in_chans, size, 5, torch.Generator().manual_seed(seed))
    images = inputs.picked(drawn, slice(2))
    units, links = find_parts(network, images, residual)
    if links.stays:
        log_message(None, f"these layers of the teacher cannot be cut and stay as they are: {', '.join(links.stays)}")
    batches = []
    if data is not None and importance in ("activation", "taylor"):
        batches = [(teacher.normalised(batch.x), batch.y) for batch in data.train.clean(256, limit=IMAGES)]
    whole = [*units, *(Unit(stream.root, (stream,), False, (), ()) for stream in links.streams)]
    kind = "classes" if data is None else data.kind
    order = importance_order(network, whole, batches, importance, seed, kind)
    norms = {path: (m.running_mean.clone(), m.running_var.clone()) for path, m in batch_norms(network).items()}
    classes = _check_largest(
        CutNet(network, units, order, links.streams), network, norms, inputs.picked(drawn, slice(2, None))
    )
    derived = Derived(network, tuple(units), links, order, norms, classes, teacher.in_chans, teacher.mean, teacher.std)
    chosen = tuple(sorted({int(each) for each in resolutions} | {size})) if resolutions else ()
    stem, stages, head = parts_of(derived, shares, depth, chosen or (size,))
    return TeacherSpace(f"teacher:{teacher.name}", stem, stages, head, size, chosen, derived=derived)


@torch.no_grad()
def _check_largest(net: CutNet, network: nn.Module, norm: NormValues, fresh: Any) -> int:
    """Check that the uncut network gives the teacher's logits, and return their number."""
    whole = [net.whole(index) for index in range(len(net.units))]
    try:
        want = network(fresh)
        found = net.eval()(fresh, whole, norm)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:200]
        expected = f"a network that takes batches of any size, of {inputs.count(fresh)} too: {text}"
        raise SettingError("teacher", type(network).__name__, expected, "use x.shape[0] for the batch") from error
    if not torch.equal(want, found):
        apart = f"two passes over the same images differ by {float((want - found).abs().max()):.3g}"
        hint = "call .eval() in it, and draw nothing at random in its forward pass"
        raise SettingError("teacher", type(network).__name__, f"a network that repeats its logits; {apart}", hint)
    return want.shape[1]
