"""An ensemble of subnets, grown one by one: each generation is taught by the ensemble before it (AdaNAS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from nas_kd.config.kinds import checked
from nas_kd.data import Data
from nas_kd.distill import Task, task_of
from nas_kd.errors import SettingError
from nas_kd.export import save_student
from nas_kd.export.about import Student, as_student
from nas_kd.export.ensemble import Ensemble, check_member
from nas_kd.export.handover import student_info
from nas_kd.runs.files import atomic_write
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.teacher.sources import TeacherLike
from nas_kd.train.config import RetrainConfig
from nas_kd.train.measured import measure
from nas_kd.train.network import predict
from nas_kd.train.retrain import retrain

FOLDER = "ensemble"
STEPS = 500  # of the weights' iteration, which never makes them worse
TRIED = 3  # candidates of a generation, as in the paper


def mixture_weights(likely: Tensor) -> Tensor:
    """Return the weights of a mixture under which labels are most likely.

    The mean log-likelihood is concave in the weights, and each step of this iteration (expectation maximisation) raises
    it, so that it ends at the best ones.

    Args:
        likely: (K, N) log-probability that each member gives to each label.

    Returns:
        (K,) weights, which sum to 1.
    """
    found = likely.double()
    weights = torch.full((len(found),), 1.0 / len(found), dtype=torch.float64)
    for _ in range(STEPS):
        weights = (weights.log()[:, None] + found).softmax(0).mean(1)
    return weights


@checked
def grow_ensemble(
    candidates: Sequence[Arch],
    teacher: TeacherLike,
    data: Data,
    config: RetrainConfig | None = None,
    *,
    space: ElasticSpace,
    supernet: Supernet | None = None,
    size: int = 3,
    run: Run | str | Path | None = None,
    task: Task | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> Ensemble:
    """Grow an ensemble of subnets greedily.

    In each generation the first three candidates that are not members yet are trained, by the teacher in the first and
    by the ensemble so far in later ones. The weights of the mixture of frozen members and each of them are learned, and
    the one with which the labels of ``rate`` are most likely becomes a member. It ends where none makes them likelier.

    Args:
        candidates: archs, the best first, such as a search's finalists.
        teacher: of the first generation.
        data: trained on ``train``, weighted on ``rate``, measured on ``select``.
        config: how each is trained.
        space: of the archs.
        supernet: shared weights that they begin with; None draws new ones.
        size: members at most.
        run: run folder, whose ``ensemble/`` keeps every training, ensemble.csv and the student folder; calling again
            goes on where it stopped.
        task: label loss and metric; None is that of the data.
        seed: seed of the trainings.
        runtime: device and precision.

    Returns:
        The ensemble, with ``info`` as students have it.

    Raises:
        SettingError: there are too few candidates, labels are no classes, an arch has an input size of its own, or
            no folder could rebuild the members.

    Source: AdaNAS (Macko et al., arXiv 1903.06236): ensembles that grow by one of three subnets, mixture weights on
    frozen members, and distillation from the ensemble before (adaptive) in the manner of born-again networks.
    """
    pool = list(dict.fromkeys(candidates))
    if size < 1 or len(pool) < size:
        raise SettingError("size", size, f"1 to {len(pool)}, the number of candidates", "pass more archs")
    if data.kind != "classes":
        raise SettingError("data.kind", data.kind, "classes, whose probabilities an ensemble averages", "omit it")
    if data.tokens is not None:
        raise SettingError(
            "data", "texts", "images: ensembles of text encoders are not built", "use the students alone"
        )
    if sized := [arch for arch in pool if arch.resolution not in (None, data.resolution)]:
        expected = "archs at the images' own size"
        raise SettingError("candidates", sized[0].label, expected, "pass archs of one input size")
    check_member(space.build(pool[0], data.num_classes, data.in_chans), data)
    config = replace(config or RetrainConfig(), test=False)
    runtime = runtime or Runtime()
    task = task or task_of(data)
    run = Run.of(run)
    source: TeacherLike = teacher
    members: list[nn.Module] = []
    kept: list[Tensor] = []  # (N,) log-probability of each label by each member
    loss = float("inf")
    rows: list[dict[str, Any]] = []
    ensemble: Ensemble | None = None
    for generation in range(1, size + 1):
        found: list[tuple[float, Arch, Student, Tensor, Tensor]] = []
        for arch in pool[:TRIED]:
            student = retrain(
                arch,
                source,
                data,
                config,
                space=space,
                supernet=supernet,
                run=run,
                folder=f"{FOLDER}/generation_{generation}/{arch.key}",
                task=task,
                seed=seed,
                runtime=runtime,
            )
            logits = predict(student, data.rate, runtime).log_softmax(1)
            likely = logits.gather(1, data.rate.labels[:, None])[:, 0]
            weights = mixture_weights(torch.stack([*kept, likely]))
            mixed = _loss(torch.stack([*kept, likely]), weights)
            found.append((mixed, arch, student, likely, weights))
        mixed, arch, student, likely, weights = min(found, key=lambda one: one[0])
        if mixed >= loss:
            break
        loss = mixed
        pool.remove(arch)
        members.append(student)
        kept.append(likely)
        ensemble = Ensemble.of(members, weights)
        measured, _ = measure(ensemble, data.select, task, runtime, None)
        cost = space.cost(arch, resolution=data.resolution, in_chans=data.in_chans, num_classes=data.num_classes)
        rows.append(
            {"generation": generation, "key": arch.key, "label": arch.label, "rate_loss": loss} | cost._asdict()
        )
        rows[-1] |= {f"select_{task.measure}": measured[task.measure]}
        named = f"ensemble-{generation}"
        source = Teacher(
            ensemble, named, num_classes=data.num_classes, in_chans=data.in_chans, mean=data.mean, std=data.std
        ).bind(data)
    assert ensemble is not None  # the first member is likelier than nothing
    table = pd.DataFrame(rows).assign(weight=ensemble.shares.tolist())
    factory, arguments = ensemble.factory
    metrics, _ = measure(ensemble, data.select, task, runtime, None)
    info = student_info(
        ensemble,
        data,
        arch=None,
        metrics={f"select_{name}": value for name, value in metrics.items()},
        factory=factory,
        factory_kwargs=arguments,
    )
    as_student(ensemble, info | {"macs": int(table["macs"].sum())})
    if run is not None:
        folder = run.path / FOLDER
        atomic_write(folder / "ensemble.csv", table.to_csv(index=False))
        save_student(ensemble, folder / "student")
    return ensemble


def _loss(likely: Tensor, weights: Tensor) -> float:
    """Return minus the mean log-likelihood of labels under a mixture."""
    return -float((weights.log()[:, None] + likely.double()).logsumexp(0).mean())
