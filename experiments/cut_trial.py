"""One budget of a teacher that is cut: what is found, what it is compared with, and the table of all trainings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from paired_table import packed, summarised
from torch import Tensor, nn

import nas_kd
from nas_kd.data import Data
from nas_kd.derive.even import EvenCut
from nas_kd.derive.space import TeacherSpace
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.runs.files import CsvLog, atomic_json, read_frame, read_json
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.around import archs_around
from nas_kd.solve import best
from nas_kd.space.arch import Arch, Cost
from nas_kd.space.rows import arch_of_rows, rows_of
from nas_kd.teacher import Teacher
from nas_kd.train.measured import measure
from nas_kd.train.repair import repair_units

BAND = 0.05  # of the found arch's MACs, in which random ones are drawn


class Rival(NamedTuple):
    """A network to train.

    Args:
        make: gives it from a seed.
        cost: what it costs, from the same seed.
        resolution: height of its images where they are smaller than the data's.
    """

    make: Callable[[int], nn.Module]
    cost: Callable[[int], Cost]
    resolution: int | None = None


class CutTrial:
    """One budget: the found network and its rivals.

    Args:
        data: images or texts.
        teacher: bound to them.
        budget: share of the teacher's MACs.
        run: keeps repaired weights, ratings, what was found, and the trainings.
        widths: shares of channels that units may keep.
        residual: whether the widths of the residual streams are choices too.
        epochs: of the trainings, whose answers are stored first.
        repair: further settings of `repair_units`.
        around: further settings of `archs_around`.
    """

    searches: tuple[str, ...] = ("found",)  # networks that the search's time stands beside

    def __init__(
        self,
        data: Data,
        teacher: Teacher,
        budget: float,
        run: Path,
        *,
        widths: Sequence[float],
        residual: bool = False,
        epochs: int,
        repair: Mapping[str, Any] | None = None,
        around: Mapping[str, Any] | None = None,
    ) -> None:
        self.data = data
        self.teacher = teacher
        self.run = run
        self.logits = teacher.cached(data, Run(run), epochs=epochs)
        self.budget = budget
        self.derive: dict[str, Any] = {"widths": widths, "residual": residual}
        self.space = nas_kd.teacher_space(teacher, data, **self.derive)
        self.net = supernet_of(self.space)
        self.shape = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
        self.whole = self.space.cost(self.space.largest(), **self.shape).macs
        self.cap = int(budget * self.whole)
        self.cuts = self.space.even_cuts(self.fits, self.shape)
        file = run / f"found_{self.space.hash}_{budget:g}.json"
        begun = time.process_time()
        self.repair = dict(repair or {})
        repair_units(self.net, teacher, data, run=run, **self.repair)
        if not file.exists():
            tables = nas_kd.rate_units(self.net, teacher, data, score="local", run=run)
            archs = archs_around(self.net, teacher, data, tables, {"macs": self.cap}, **(around or {}))
            lowest = min(archs, key=lambda pair: pair[1])[0]
            found = {"arch": lowest.to_dict(), "label": lowest.label, "kl": [kl for _, kl in archs]}
            atomic_json(file, found | {"cpu_seconds": time.process_time() - begun})
        found = read_json(file, ("arch", "cpu_seconds"))
        self.arch = Arch.from_dict(found["arch"])
        # CPU seconds that the repair of the network made last took; None counts them as its training's
        self.repairing: float | None = None
        self.searched = dict.fromkeys(self.searches, float(found["cpu_seconds"]))

    def fits(self, cost: Cost) -> bool:
        """Tell whether a cost is within the budget."""
        return cost.macs <= self.cap

    def rival(self, name: str) -> Rival | None:
        """Return the found network or one that it is compared with; None where there is none within the budget."""
        raise NotImplementedError

    def inherited(self, space: TeacherSpace, arch: Arch) -> Rival:
        """Return an arch that begins with the teacher's weights."""
        raise NotImplementedError

    def trained(self, name: str, network: nn.Module, seed: int, resolution: int | None = None) -> nn.Module:
        """Train a network of the table as all are."""
        raise NotImplementedError

    def new(self, seed: int) -> nn.Module:
        """Return the found arch with weights as torch, or its library, begins them."""
        torch.manual_seed(seed)
        return self.space.build(self.arch, self.data.num_classes, self.data.in_chans)

    def random(self, seed: int) -> Arch:
        """Return an arch of the space with about the found one's MACs: the best by scores that mean nothing."""
        macs = self.space.cost(self.arch, **self.shape).macs
        rng = np.random.default_rng(seed)
        tables = [rows_of(self.space, index, **self.shape) for index in range(len(self.space.stages))]
        tables = [table.assign(score=rng.random(len(table))) for table in tables]
        row = best(tables, bounds={"macs": ((1 - BAND) * macs, macs)})
        labels = [row[f"row_{number}"] for number in range(1, len(tables) + 1)]
        return arch_of_rows(self.space, tables, labels, self.data.resolution if self.space.resolutions else None)

    @cached_property
    def best_even(self) -> EvenCut | None:
        """Return the best of a few even cuts of depth and width, by one training each, on ``select``."""
        tried = self.cuts.both()
        scores = []
        for cut in tried:
            student: Any = self.trained("even both", self.inherited(cut.space, cut.arch).make(0), 0)
            scores.append(student.info["metrics"]["select_accuracy"])
        return tried[scores.index(max(scores))] if tried else None

    def even_repaired(self, cut: EvenCut) -> TeacherSupernet:
        """Return the weights of an even cut that was repaired as the found network is, with no other cuts beside it."""
        net = supernet_of(cut.space)
        folder = self.run / "even_repaired" / str(self.cap)
        repair_units(net, self.teacher, self.data, run=folder, **self.repair)
        return net


def supernet_of(space: TeacherSpace) -> TeacherSupernet:
    """Return the supernet of a teacher's space."""
    return cast(TeacherSupernet, nas_kd.Supernet(space))


def fill_table(
    trials: Sequence[CutTrial], order: Sequence[tuple[int, str]], out: Path, teacher: Tensor | None = None
) -> None:
    """Train what is not trained yet, write a row of each beside the test inputs that are right, and print the table.

    Args:
        trials: one a budget.
        order: seeds and names of networks.
        out: folder of students.csv, hits.csv and summary.csv.
        teacher: (N, classes) its logits of the test split, for the agreement with it; None leaves that out.
    """
    file = out / "students.csv"
    log, hits = CsvLog(file), CsvLog(out / "hits.csv")
    task = nas_kd.Classification()
    known: dict[tuple[float, str], Rival | None] = {}
    for (seed, name), trial in product(order, trials):
        done = read_frame(file) if file.exists() else pd.DataFrame()
        if len(done) and ((done.network == name) & (done.budget == trial.budget) & (done.seed == seed)).any():
            continue
        if (trial.budget, name) not in known:
            known[trial.budget, name] = trial.rival(name)
        if (rival := known[trial.budget, name]) is None:
            print(f"{name}: none within {trial.budget:g}")
            continue
        begun = time.process_time()
        apart: dict[str, float] = {}
        trial.repairing = None if trial.repairing is None else 0.0
        network = rival.make(seed)
        if trial.repairing is not None:
            apart, begun = {"repair_cpu_seconds": trial.repairing}, time.process_time()
        student: Any = trial.trained(name, network, seed, rival.resolution)
        spent = time.process_time() - begun
        data = trial.data.test
        metrics, logits = measure(student, data, task, Runtime(), teacher)
        right = packed(task.scores(logits, data.labels))
        hits.append({"network": name, "budget": trial.budget, "seed": seed, "hits": right})  # before its row
        cost = rival.cost(seed)
        log.append(
            {
                "network": name,
                "budget": trial.budget,
                "seed": seed,
                "macs": cost.macs,
                "share": cost.macs / trial.whole,
                "params": cost.params,
                **{f"test_{what}": metrics[what] for what in ("accuracy", "agreement") if what in metrics},
                "select_accuracy": student.info["metrics"]["select_accuracy"],
                **apart,
                "training_cpu_seconds": spent,
                "search_cpu_seconds": trial.searched.get(name, 0.0),
            }
        )
        summarised(read_frame(file), read_frame(hits.path)).round(4).to_csv(out / "summary.csv", index=False)
    print(pd.read_csv(out / "summary.csv").to_string())
