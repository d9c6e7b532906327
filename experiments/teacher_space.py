"""The teacher as the space: a ResNet-56 cut to a share of its MACs and distilled, beside the cuts one makes by hand.

    python experiments/teacher_space.py --data FOLDER [--budgets 0.33 0.135] [--seeds 1] [--out FILE]

FOLDER holds train.tar, test.tar (CIFAR-10 as JPEG) and resnet56.safetensors. All networks are trained alike: 10,000
images, 2 epochs of `kd`, batch 64, peak rate 0.02, all 10,000 test images. ``found`` is the exact front of replace-one
scores, nothing trained; ``new weights`` the same arch as torch begins it; ``even width`` every block with one share of
its inner channels; ``even both`` every other block of a stage and the share that keeps the budget. A row is written
when it is known; the same command goes on.

Two AMD EPYC cores that other work shared, torch 2.14.1, one thread; numbers in results/teacher_space/.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import nas_kd
from nas_kd.data import Data
from nas_kd.derive.space import TeacherSpace
from nas_kd.runs.files import CsvLog, read_frame
from nas_kd.space.arch import Arch, Candidate
from nas_kd.teacher import Teacher

OUT = Path(__file__).parent / "results" / "teacher_space" / "students.csv"
EPOCHS = 2
LR = 0.02


def load(folder: Path | None, images: int) -> tuple[Data, Teacher, int]:
    """Return data normalised as the teacher's, and the teacher; digits where there is no folder."""
    if folder is None:
        data = nas_kd.load_data("digits", subset=500, rate=0.15, select=0.15)
        return data, nas_kd.train_teacher("cifar_resnet14", data, epochs=2, batch_size=32, lr=0.1), 1
    data = nas_kd.load_data(
        str(folder / "train.tar"), test=str(folder / "test.tar"), subset=images, rate=0.05, select=0.05
    )
    teacher = nas_kd.load_teacher("cifar_resnet56", checkpoint=folder / "resnet56.safetensors", num_classes=10)
    if teacher.mean is not None and teacher.std is not None:
        data = data.normalised(teacher.mean, teacher.std)
    teacher.bind(data)
    return data, teacher, EPOCHS


def found(space: TeacherSpace, tables: list[pd.DataFrame], cap: int) -> Arch:
    """Return the arch of the exact front's best chain within a budget."""
    front = nas_kd.exact_front(tables, budget="macs")
    best = front[front["macs"] <= cap].iloc[-1]
    stages = [
        space.stages[index].candidates()[int(table.loc[best[f"row_{index + 1}"], "candidate"])]
        for index, table in enumerate(tables)
    ]
    return space.arch(stages)


def even(teacher: Teacher, data: Data, cap: int, *, every: int) -> tuple[TeacherSpace, Arch] | None:
    """Keep every n-th of the blocks that may be left out, all with the largest share of channels within the budget."""
    shares = [share / 50 for share in range(2, 51)]
    space = nas_kd.teacher_space(teacher, data, widths=shares)
    best = None
    for share in shares:
        stages = []
        for number, stage in enumerate(space.stages):
            layer = tuple(min(counts, key=lambda count: abs(count - share * counts[-1])) for counts in stage.kept)
            leave = stage.removable and number % every
            stages.append(Candidate(stage.widths[0], () if leave else (layer,)))
        arch = space.arch(stages)
        if space.cost(arch, in_chans=data.in_chans, num_classes=data.num_classes).macs <= cap:
            best = arch
    return None if best is None else (space, best)


def student_of(space: TeacherSpace, arch: Arch, data: Data, *, new: bool, seed: int) -> nn.Module:
    """Return a network to train: the teacher's weights with norms measured anew, or new weights."""
    if new:
        torch.manual_seed(seed)
        return space.build(arch, data.num_classes, data.in_chans)
    net = nas_kd.Supernet(space)
    (norm,) = nas_kd.calibrate(net, data.train.clean(256, limit=1024), archs=[arch])
    return net.extract(arch, norm)


def main() -> None:
    """Train what is not trained yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.33, 0.135])
    parser.add_argument("--images", type=int, default=11_000, help="of train; nine tenths of them are trained on")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="digits and a small teacher, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.data = None
    elif options.data is None:
        parser.error("--data FOLDER, or --quick")
    torch.set_num_threads(1)
    data, teacher, epochs = load(options.data, options.images)
    began = time.process_time()
    space = nas_kd.teacher_space(teacher, data)
    tables = nas_kd.rate_units(nas_kd.Supernet(space), teacher, data)
    searched = time.process_time() - began
    whole = space.cost(space.largest(), in_chans=data.in_chans, num_classes=data.num_classes).macs
    options.out.parent.mkdir(parents=True, exist_ok=True)
    log = CsvLog(options.out)
    for budget in options.budgets:
        cap = int(budget * whole)
        arch = found(space, tables, cap)
        rows = {"found": (space, arch, False)}
        for name, every in (("even width", 1), ("even both", 2)):
            if (cut := even(teacher, data, cap, every=every)) is not None:
                rows[name] = (*cut, False)
        rows["found, new weights"] = (space, arch, True)
        for seed in range(options.seeds):
            for name, (home, chosen, new) in rows.items():
                done = read_frame(options.out) if options.out.exists() else pd.DataFrame()
                if len(done) and ((done.network == name) & (done.budget == budget) & (done.seed == seed)).any():
                    continue
                begun = time.process_time()
                student = student_of(home, chosen, data, new=new, seed=seed)
                student = nas_kd.retrain(
                    student,
                    teacher,
                    data,
                    method="kd",
                    epochs=epochs,
                    batch_size=64,
                    lr=LR,
                    warmup_epochs=0.1,
                    seed=seed,
                )
                cost = home.cost(chosen, in_chans=data.in_chans, num_classes=data.num_classes)
                log.append(
                    {
                        "network": name,
                        "budget": budget,
                        "seed": seed,
                        "macs": cost.macs,
                        "share": cost.macs / whole,
                        "params": cost.params,
                        "test_accuracy": student.info["metrics"]["test_accuracy"],
                        "select_accuracy": student.info["metrics"]["select_accuracy"],
                        "training_cpu_seconds": time.process_time() - begun,
                        "search_cpu_seconds": searched if name == "found" else 0.0,
                    }
                )
    table = read_frame(options.out)
    print(table.groupby(["budget", "network"], sort=False)[["share", "test_accuracy"]].mean().round(4).to_string())


if __name__ == "__main__":
    main()
