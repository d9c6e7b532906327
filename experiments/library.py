"""Another kind of unit beside a teacher's own, cut: is it nearer to the unit than a cut of as many MACs?

    python experiments/library.py --data FOLDER [--run DIR] [--out FOLDER]

FOLDER as for teacher_space.py, whose repaired cuts and ratings are read from --run where they are. For each block of a
ResNet-56 a depthwise separable one (3x3 on each channel, norm, ReLU, 1x1, norm; the block's own shortcut and last ReLU)
is trained from new weights on the teacher's input of the block to the teacher's output, all blocks in one pass: for as
many epochs as the cuts were repaired, at five times the rate. Its error there, noise to signal on images of `rate`
under the batch's statistics, stands beside that of the block's cuts at as many MACs (interpolated). Then the exact
front of these scores is asked for budgets without and with it.

Two AMD EPYC cores that other work shared, torch 2.14.1, one thread, seed 0; numbers in results/library/.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from cut_teacher import WIDTHS, opened, parser_of
from torch import Tensor, nn

import nas_kd
from nas_kd.data import Batch
from nas_kd.derive.calling import unit_features
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.rate.unit_scores import batch_statistics, features
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import seeded
from nas_kd.solve import best
from nas_kd.teacher.cifar_resnet import BasicBlock
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.optim import Schedule, adamw
from nas_kd.train.plan import Plan
from nas_kd.train.repair import repair_units
from nas_kd.train.repair_config import RepairConfig

OUT = Path(__file__).parent / "results" / "library"
KIND = "separable"
BUDGETS = (0.135, 0.2, 0.33)
IMAGES = 512
RATE = 5  # times that of repair: new weights have further to go


class Separable(nn.Module):
    """A depthwise separable block in the place of a basic one.

    Args:
        block: whose shapes, stride and shortcut it has.
    """

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        inputs = block.conv1.in_channels
        width = block.conv1.out_channels
        self.depthwise = nn.Conv2d(inputs, inputs, 3, block.stride, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.widen = block.widen
        self.stride = block.stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, H', W')."""
        out = self.bn2(self.pointwise(F.relu(self.bn1(self.depthwise(x)))))
        shortcut = F.avg_pool2d(x, 1, self.stride) if self.stride > 1 else x
        return F.relu(out + self.widen(shortcut))

    def macs(self, size: int) -> int:
        """Count multiply-adds for outputs of this height and width."""
        return size**2 * (self.depthwise.weight.numel() + self.pointwise.weight.numel())


def error(block: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    """Return the noise to signal of a block's output."""
    found: Tensor = (block(x) - out).square().mean() / out.var().clamp_min(1e-12)
    return found


def main() -> None:
    """Train the blocks, rate them beside the cuts, and ask for the fronts."""
    parser = parser_of(__doc__, OUT)
    parser.add_argument("--epochs", type=int, default=RepairConfig().epochs)
    parser.add_argument("--quick", action="store_true", help="digits and a small teacher, to see that it works")
    options, data, teacher, out = opened(parser, OUT)
    space = nas_kd.teacher_space(teacher, data, WIDTHS)
    net = repair_units(cast(TeacherSupernet, nas_kd.Supernet(space)), teacher, data, run=options.run)
    tables = nas_kd.rate_units(net, teacher, data, score="local", run=options.run)
    units = net.cuts.units
    seeded(0, "library")
    blocks = [cast(BasicBlock, teacher.network.get_submodule(unit.path)) for unit in units]
    made = nn.ModuleList(Separable(block) for block in blocks).to(memory_format=torch.channels_last)
    how = RepairConfig()

    def step(batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
        pairs, _ = unit_features(teacher.network, units, teacher.normalised(batch.x))
        losses = []
        for block, (given, target) in zip(made, pairs, strict=True):
            loss = error(block, given, target)
            loss.backward()  # right away, so that only one graph is in memory
            losses.append(loss.detach())
        return {"loss": torch.stack(losses).mean()}

    begun = time.process_time()
    fit(
        step,
        Plan(Schedule(RATE * how.lr, 0.1), options.epochs, min(how.batch_size, len(data.train))),
        name="library",
        modules={"blocks": made.train()},
        optimizer=adamw([made], weight_decay=how.weight_decay),
        split=data.train,
        seed=0,
        runtime=Runtime(),
    )
    spent = time.process_time() - begun
    x = teacher.normalised(torch.cat([batch.x for batch in data.rate.clean(IMAGES, limit=IMAGES)]))
    rows: list[dict[str, Any]] = []
    wider = []
    with torch.no_grad():
        pairs, _ = features(net.cuts, x)
        for number, (block, (given, target)) in enumerate(zip(made, pairs, strict=True)):
            table = tables[number]
            # stem and head are charged to the first and the last unit
            fixed = int(table["macs"].min()) if number in (0, len(units) - 1) and units[number].removable else 0
            with batch_statistics(block):
                score = float(error(block, given, target))
            macs = cast(Separable, block).macs(target.shape[-1]) + fixed
            cut = float(np.interp(macs, table["macs"], table["score"]))
            rows.append({"unit": units[number].path, "kind": KIND, "macs": macs, "score": score, "cut_score": cut})
            row = table.iloc[-1].to_dict() | {"macs": macs, "score": score, "candidate": len(table), "label": KIND}
            wider.append(pd.concat([table, pd.DataFrame([row])], ignore_index=True))
    frame = pd.DataFrame(rows).assign(better=lambda f: f["score"] < f["cut_score"])
    whole = sum(int(table["macs"].iloc[-1]) for table in tables)
    fronts = []
    for budget in BUDGETS:
        without, with_them = (best(each, bounds={"macs": budget * whole}) for each in (tables, wider))
        labels = [table.loc[with_them[f"row_{number}"], "label"] for number, table in enumerate(wider, 1)]
        front = {"budget": budget, "score": without["score"], "score_with_library": with_them["score"]}
        front |= {"chosen": labels.count(KIND), "units": len(units), "epochs": options.epochs}
        fronts.append(front | {"training_cpu_seconds": spent})
    out.mkdir(parents=True, exist_ok=True)
    frame.round(5).to_csv(out / "units.csv", index=False)
    pd.DataFrame(fronts).round(5).to_csv(out / "fronts.csv", index=False)
    print(frame.groupby("kind").agg(units=("unit", "size"), better=("better", "sum")).to_string())
    print(pd.DataFrame(fronts).to_string())


if __name__ == "__main__":
    main()
