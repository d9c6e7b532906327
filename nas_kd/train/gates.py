"""Gates on a teacher's channels and units learn with its weights: its own answers, and a price on the gates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nas_kd.derive.gates import GatedNet, Gates
from nas_kd.distill import Task, task_of
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import alone
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.optim import Schedule, adamw
from nas_kd.train.plan import Plan

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data
    from nas_kd.derive.supernet import TeacherSupernet
    from nas_kd.runs.stage import Stage
    from nas_kd.teacher.targets import LiveSource

WARMUP = 0.1  # of an epoch
BATCH = 64
WEIGHT_DECAY = 1e-4  # without it weights would make up for small gates
MOVES = 4.0  # how far a gate could go in the whole training: to be closed it needs 1, and may open again
FIRST_PRICE = 0.01  # nats for all of the teacher's cost: a gate that the answers do not need closes at any price
DESCENT = 0.75  # of the training: until then the bound comes down from all of the teacher's cost to the budget
# by how many powers of e the price would rise in a training that stays above its budget by all of the teacher's cost:
# 1,000 times in a half of it where half of the cost is too much
RISE = 4.0 * math.log(1000.0)


@alone
def learn_gates(
    net: TeacherSupernet,
    gates: Gates,
    teacher: LiveSource,
    data: Data,
    *,
    share: float,
    epochs: int,
    lr: float,
    temperature: float,
    task: Task | None = None,
    stage: Stage | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> Tensor:
    """Learn gates and weights of the teacher within a budget.

    Minimises the divergence from the teacher's answers plus the price: the L1 norm of the gates, each weighted by what
    its part costs. The price is charged while the gates leave more of the teacher's cost than a bound, which comes down
    to the budget in three quarters of the training; it rises there and falls below it. Gates stay from 0 to 1.

    Args:
        net: `nas_kd.Supernet` of the teacher's space, left as it is.
        gates: which gates there are.
        teacher: the teacher, bound to the data.
        data: its ``train`` images are used, without labels.
        share: the budget as a share of the teacher's cost.
        epochs: passes over train.
        lr: peak learning rate of the weights.
        temperature: softening of both answers.
        task: whose divergence it is; None is that of the data.
        stage: keeps checkpoints; the same call again goes on where it stopped.
        seed: seed of order and augmentation.
        runtime: device and precision.

    Returns:
        (N,) the gates, 0 to 1.

    Source: Gu and Tresp, Search for Better Students to Learn Distilled Knowledge, 2020. There the weight of the price
    is a constant; charging it until a budget is met is ours.
    """
    batch_size = min(BATCH, len(data.train))
    runtime = runtime or Runtime()
    task = task or task_of(data)
    steps = epochs * data.train.steps(batch_size)
    # a cosine's mean is half of its peak
    space: Any = net.space
    gated = GatedNet(space.derived.network, net.cuts.units, gates, speed=2 * MOVES / (lr * steps))
    gated.price.fill_(FIRST_PRICE)
    gated.to(runtime.device)
    teacher.to(runtime.device)

    def step(batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
        gated.keep_within()
        x = teacher.normalised(batch.x)
        with runtime.autocast():
            apart = task.divergence(gated(x), teacher(batch.x), temperature)
        now = gated.gates
        left = gates.share(now.detach())
        over = left - (1.0 - (1.0 - share) * min(1.0, info.progress / DESCENT))
        charged = gated.price * (over > 0)
        (apart + charged * gates.price(now)).backward()
        gated.price.mul_((over * RISE / steps).exp())
        return {"loss": apart.detach(), "left": left, "price": gated.price.clone()}

    fit(
        step,
        Plan(Schedule(lr, WARMUP), epochs, batch_size, lr="search.gate_lr"),
        name="search.gates",
        modules={"gated": gated},
        optimizer=adamw([gated], weight_decay=WEIGHT_DECAY),
        split=data.train,
        seed=seed,
        runtime=runtime,
        stage=stage,
    )
    gated.keep_within()
    return gated.gates.detach().cpu()
