"""Repair of cut units: each learns the teacher's output of its unit from the teacher's input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call

from nas_kd.config.keywords import takes
from nas_kd.config.kinds import checked
from nas_kd.data import Batch, Data
from nas_kd.derive.calling import arguments, batch_norms, unit_features
from nas_kd.derive.cut import Kept
from nas_kd.derive.network import CutNet
from nas_kd.derive.supernet import TeacherSupernet, of_teacher
from nas_kd.nn import inputs
from nas_kd.nn.cutting import first_of
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime, place
from nas_kd.runtime.seeds import alone, seed_for
from nas_kd.supernet import Supernet
from nas_kd.teacher.teacher import Teacher
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.optim import Schedule, adamw
from nas_kd.train.plan import Plan, check_epochs
from nas_kd.train.repair_config import RepairConfig, RepairSettings
from nas_kd.train.weights import load_weights, save_weights, weights_hash

if TYPE_CHECKING:
    from typing_extensions import Unpack

WARMUP = 0.1  # of an epoch


@takes(RepairConfig)
@checked
@alone
def repair_units(
    net: Supernet,
    teacher: Teacher,
    data: Data,
    config: RepairConfig | None = None,
    *,
    run: Run | str | Path | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    **settings: Unpack[RepairSettings],
) -> TeacherSupernet:
    """Teach every cut of every unit the unit's own output, all units in one pass of the teacher, without labels.

    The cuts of a unit share weights of their own from here on; whole units stay the teacher's, and so does the largest.

    Args:
        net: `nas_kd.Supernet` of the teacher's space, repaired in place.
        teacher: the teacher, bound to the data.
        data: its ``train`` images are used.
        config: the settings; keywords replace some of them.
        run: run folder; the same call again goes on where it stopped.
        seed: seed of order, augmentation and cuts.
        runtime: device and precision.

    Returns:
        ``net``.

    Raises:
        SettingError: a setting is out of range, or the run was made with others.

    Source: DNA (Li et al. 2020), Puzzle's library (Bercovich et al. 2024).
    """
    net = of_teacher(net)
    config = RepairConfig.of(config, settings).fitted(len(data.train))
    cuts = offered(net)
    if not config.epochs or not any(cuts):  # units that are left out or stay whole have nothing to learn
        return net
    runtime = runtime or Runtime()
    check_epochs("repair", config.epochs, config.batch_size, data.train)
    net.check_data(data.in_chans, data.num_classes)
    run = Run.of(run)
    stage = None
    start = weights_hash(net)
    net.cuts.separate()
    own = net.cuts.separated
    if run is not None:
        facts: dict[str, Any] = {
            "space": net.space.hash,
            "data": data.fingerprint,
            "teacher": teacher.fingerprint,
            "start": start,
            "seed": seed,
            "precision": runtime.precision,
        }
        stage = run.stage("repair", facts | config.record("student_epochs") | data.augmentation)
        if stage.done:
            load_weights(own, stage.folder / "weights.safetensors", stage.facts.get("fingerprint"))
            return net
    teacher.to(runtime.device)
    place(net, runtime)

    def step(batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
        with runtime.autocast():
            pairs, _ = unit_features(teacher.network, net.cuts.units, teacher.normalised(batch.x))
        generator = torch.Generator().manual_seed(seed_for(seed, "repair", info.epoch, info.step) % 2**63)
        losses = []
        real = inputs.real_tokens(batch.x)
        for index, (x, out) in enumerate(pairs):
            drawn = torch.randperm(len(cuts[index]), generator=generator).tolist()[: config.choices]
            for number in drawn:
                with runtime.autocast():
                    loss = error(net.cuts, index, cuts[index][number], x, out, real)
                (loss / len(drawn)).backward()  # right away, so that only one graph is in memory
                losses.append(loss.detach())
        return {"loss": torch.stack(losses).mean()}

    fit(
        step,
        Plan(Schedule(config.lr, WARMUP), config.epochs, config.batch_size),
        name="repair",
        modules={"cuts": own},
        optimizer=adamw([own], weight_decay=config.weight_decay),
        split=data.train,
        seed=seed,
        runtime=runtime,
        stage=stage,
    )
    if stage is not None:
        save_weights(own, stage.folder / "weights.safetensors")
        stage.finish({"fingerprint": weights_hash(own)})
        stage.forget()
    return net


def offered(net: TeacherSupernet) -> list[list[Kept]]:
    """Return the cuts of every unit that its space offers, without the whole unit and without leaving it out."""
    found: list[dict[Kept, None]] = [{} for _ in net.cuts.units]
    for link, stage in zip(net.links, net.space.stages, strict=True):
        for candidate in stage.candidates() if link.unit is not None else ():
            for part, choice in net.choices_at(link, candidate):
                if part == link.unit and choice is not None and choice != net.cuts.whole(part):
                    found[part][choice] = None
    return [list(cuts) for cuts in found]


def error(net: CutNet, index: int, kept: Kept, x: Any, out: Tensor, real: Tensor | None = None) -> Tensor:
    """Return the `noise_to_signal` of a cut unit's output against the whole unit's.

    Args:
        net: the network of all cuts.
        index: the unit.
        kept: how many parts of each of its groups stay.
        x: the unit's input in the teacher.
        out: its output there.
        real: which tokens of texts are no padding, (B, L) bool.
    """
    module = net.twin(index, kept).module.eval()  # no dropout: the whole unit has none either
    for norm in batch_norms(module).values():
        norm.train()
    got = functional_call(module, net.cut_tensors(index, kept), *arguments(x))
    return noise_to_signal(first_of(got), out, real)


def noise_to_signal(got: Tensor, wanted: Tensor, real: Tensor | None = None) -> Tensor:
    """Return the mean squared error of an output of any shape over the variance of the wanted one: a scalar.

    Args:
        got: the output.
        wanted: what it should be.
        real: which tokens of texts are no padding, (B, L) bool: the others do not count.
    """
    got = inputs.of_real(got, real)
    wanted = inputs.of_real(wanted, real)
    return (got.float() - wanted.float()).square().mean() / wanted.float().var().clamp_min(1e-12)
