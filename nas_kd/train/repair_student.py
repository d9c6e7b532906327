"""Repair of one cut network: its units learn the teacher's outputs one by one, from what the network feeds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_kd.config.keywords import takes
from nas_kd.config.kinds import checked
from nas_kd.data import Batch, Data
from nas_kd.derive.calling import unit_features
from nas_kd.derive.supernet import of_teacher
from nas_kd.derive.units import Unit
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.cutting import first_of, with_first
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import alone
from nas_kd.space import Arch
from nas_kd.supernet import Supernet, calibrate
from nas_kd.teacher.teacher import Teacher
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.optim import Schedule, adamw
from nas_kd.train.plan import Plan, check_epochs
from nas_kd.train.repair import WARMUP, noise_to_signal
from nas_kd.train.repair_config import RepairConfig, RepairSettings
from nas_kd.train.start import CALIBRATED, starting_network
from nas_kd.train.weights import load_weights, save_weights, weights_hash

if TYPE_CHECKING:
    from typing_extensions import Unpack

WEIGHTS = "weights.safetensors"


@takes(RepairConfig)
@alone
@checked
def repair_student(
    net: Supernet,
    arch: Arch,
    teacher: Teacher,
    data: Data,
    config: RepairConfig | None = None,
    *,
    run: Run | str | Path | None = None,
    folder: str | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    **settings: Unpack[RepairSettings],
) -> nn.Module:
    """Copy an arch out of the teacher's supernet, and teach each of its units the teacher's output of that unit.

    Unlike in `repair_units`, a unit's input is what the student's own units before it give, without a gradient through
    them: it learns to make up for units that are cut or left out there. No labels are used.

    Args:
        net: `nas_kd.Supernet` of the teacher's space, left as it is.
        arch: an arch of that space.
        teacher: the teacher, bound to the data.
        data: its ``train`` images are used.
        config: the settings, of which ``student_epochs`` says how long, and ``choices`` does not matter; keywords
            replace some of them.
        run: run folder; the same call again goes on where it stopped.
        folder: stage folder in the run; default ``retrain/KEY/repaired``.
        seed: seed of order and augmentation.
        runtime: device and precision.

    Returns:
        The network with weights of its own and measured norms, in evaluation mode. An arch at another size of images
        than the data's learns nothing, and neither does a unit whose output has another shape than the teacher's.

    Raises:
        SettingError: a setting is out of range, or the run was made with others.

    Source: DNA (Li et al. 2020); inputs with the errors of the layers before, as in channel pruning (He et al. 2017,
    section 3.2).
    """
    net = of_teacher(net)
    config = RepairConfig.of(config, settings).fitted(len(data.train))
    if not config.student_epochs:
        hint = "pass student_epochs=2, or begin with the supernet's weights as they are"
        raise SettingError("repair.student_epochs", 0, "at least 1 pass to repair a student", hint)
    network = starting_network(arch, net.space, data, seed, net)
    learns = taught_units(network, net.cuts.units, teacher, data) if arch.resolution in (None, data.resolution) else []
    if not learns:
        return network
    runtime = runtime or Runtime()
    check_epochs("repair", config.student_epochs, config.batch_size, data.train)
    run = Run.of(run)
    stage = None
    if run is not None:
        facts: dict[str, Any] = {
            "arch": arch.key,
            "space": net.space.hash,
            "data": data.fingerprint,
            "teacher": teacher.fingerprint,
            "start": weights_hash(network, measured=False),
            "seed": seed,
            "precision": runtime.precision,
        }
        stage = run.stage(
            folder or f"retrain/{arch.key}/repaired", facts | config.record("choices") | data.augmentation
        )
        if stage.done:
            load_weights(network, stage.folder / WEIGHTS, stage.facts.get("fingerprint"))
            return network.eval()
    teacher.to(runtime.device)
    network.to(runtime.device)
    units = [net.cuts.units[index] for index in learns]

    def step(batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
        with runtime.autocast():
            pairs, _ = unit_features(teacher.network, units, teacher.normalised(batch.x))
            real = inputs.real_tokens(batch.x)
            with learning(network, units, [out for _, out in pairs], real) as losses:
                network(batch.x)
        return {"loss": torch.stack(losses).mean()}

    with only_units(network, units) as modules:
        fit(
            step,
            Plan(Schedule(config.lr, WARMUP), config.student_epochs, config.batch_size, lr="repair.lr"),
            name="repair of a student",
            modules={"student": network},
            optimizer=adamw(modules, weight_decay=config.weight_decay),
            split=data.train,
            seed=seed,
            runtime=runtime,
            stage=stage,
        )
    calibrate(network, [batch.x for batch in data.train.clean(256, limit=CALIBRATED)])
    if stage is not None:
        save_weights(network, stage.folder / WEIGHTS)
        stage.finish({"fingerprint": weights_hash(network)})
        stage.forget()
    return network.eval()


@torch.no_grad()
def taught_units(network: nn.Module, units: Sequence[Unit], teacher: Teacher, data: Data) -> list[int]:
    """Return the numbers of the units that have weights, and outputs of the teacher's shape.

    Args:
        network: cut from the teacher.
        units: the teacher's.
        teacher: bound to the data.
        data: two of its images are looked at.
    """
    images = next(iter(data.train.clean(2, limit=2))).x
    network.eval()
    own, _ = unit_features(network, units, images)
    theirs, _ = unit_features(teacher.network, units, teacher.normalised(images))
    return [
        index
        for index, unit in enumerate(units)
        if own[index][1].shape == theirs[index][1].shape
        and any(p.requires_grad for p in network.get_submodule(unit.path).parameters())
    ]


@contextmanager
def only_units(network: nn.Module, units: Sequence[Unit]) -> Iterator[list[nn.Module]]:
    """Keep all other weights of a network from learning: a layer outside may feed several units, each with a loss.

    Yields:
        The units' modules.
    """
    modules = [network.get_submodule(unit.path) for unit in units]
    learn = {id(parameter) for module in modules for parameter in module.parameters()}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in learn]
    try:
        for parameter in others:
            parameter.requires_grad_(False)
        yield modules
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


@contextmanager
def learning(
    network: nn.Module, units: Sequence[Unit], targets: Sequence[Tensor], real: Tensor | None = None
) -> Iterator[list[Tensor]]:
    """Run units with a loss each: its gradient is taken where the unit ends, and goes no further.

    Args:
        network: with the units.
        units: those that learn.
        targets: the teacher's output of each.
        real: which tokens of texts are no padding, (B, L) bool.

    Yields:
        The losses, filled as the network is run.
    """
    losses: list[Tensor] = []

    def learn(index: int, module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        got = first_of(out)
        loss = noise_to_signal(got, targets[index], real)
        loss.backward()  # right away, so that only one unit's graph is in memory
        losses.append(loss.detach())
        return with_first(out, got.detach().clone())  # a later layer may change it in place

    handles = [network.get_submodule(u.path).register_forward_hook(partial(learn, i)) for i, u in enumerate(units)]
    try:
        yield losses
    finally:
        for handle in handles:
            handle.remove()
