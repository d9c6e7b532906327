"""The teacher as the space: a ResNet-56 cut to a share of its MACs and distilled, beside the cuts one makes by hand.

    python experiments/teacher_space.py --data FOLDER [--budgets 0.33 0.135] [--seeds 3] [--run DIR] [--out FOLDER]
    python experiments/teacher_space.py --data flowers.tar --resolution 96 --images 2000 --model tf_efficientnet_lite0
        --weights flowers_teacher.safetensors --budgets 0.3 --run DIR --out FOLDER
    python experiments/teacher_space.py ... --budgets 0.15 --residual --run ANOTHER --out FOLDER
    python experiments/teacher_space.py --data FOLDER --images 2200 --views 8 --epochs 60 --budgets 0.33 --seeds 1
        --networks "found, units repaired only" --run DIR --out FOLDER      (and "found, new weights", --lr 0.05)
    python experiments/teacher_space.py --data FOLDER --images 50000 --views 4 --epochs 20 --budgets 0.33 --seeds 1
        --networks "found, units repaired only" --run DIR --out FOLDER

FOLDER holds train.tar, test.tar (CIFAR-10 as JPEG) and resnet56.safetensors; the other teacher is made by
flowers_teacher.py --keep. All networks are trained alike: 10,000 images, 2 epochs of `kd`, the same rate, all 10,000
test images. ``found``: units repaired for one pass, rated by their local errors, the exact front solved again around
its own arch, and the found one repaired for two passes on its own inputs. Its rivals: ``random``, an arch of the space
with MACs of the found one's, another in every seed, repaired likewise; ``new weights``, the found arch as torch begins
it; from the teacher's weights ``even width``, ``even depth``, ``even both`` (the best of three proportions, by one
training each on `select`), ``taylor`` (torch-pruning's global cut, which also cuts the residual stream) and ``small
images`` (the whole teacher at a lower input size); ``even both, repaired``: the best even cut after the same repairs,
so that the search can be told from them; ``found, one pass on its own inputs``: half of the second repair; ``found,
units repaired only``: without it, and as it costs about as much as four epochs also trained for ``6 epochs``; ``found,
two steps``: the found one of the square root of the budget, distilled for an epoch of `kd`, and cut again. With
``--residual`` (its own --run) the widths of the residual streams are choices too, for budgets below the smallest cut
without them. A row is written when it is known, beside the test images that are right (hits.csv); the same command goes
on.

Hardware: two Intel Xeon cores (AVX-512) that other work shared, torch 2.14.1, one thread; seeds 1 and 2 of the rivals
two AMD EPYC cores, shared too: results/repaired_students/. Two AMD EPYC cores with AVX-512, shared:
results/flowers_space/, results/long_training/ and results/whole_cifar10/. results/teacher_space/ is older, of two AMD
EPYC cores: its ``found`` and ``random`` have only their units repaired, as ``found, units repaired only`` here.
"""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

from cut_teacher import WIDTHS, opened, parser_of
from cut_trial import CutTrial, Rival, fill_table, supernet_of
from torch import nn

import nas_kd
from nas_kd.data import Data
from nas_kd.derive.cost import whole_cost
from nas_kd.derive.even import EvenCut
from nas_kd.derive.space import TeacherSpace
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.derive.taylor import taylor_cut
from nas_kd.nn import at_resolution, resized
from nas_kd.runs.files import atomic_json
from nas_kd.searcher.around import archs_around
from nas_kd.searcher.config import SearchConfig
from nas_kd.searcher.steps import cut_in_steps
from nas_kd.space.arch import Arch
from nas_kd.teacher import Teacher
from nas_kd.train.config import RetrainConfig

OUT = Path(__file__).parent / "results" / "repaired_students"
TRAINING: dict[str, Any] = {"method": "kd", "epochs": 2, "batch_size": 64, "lr": 0.01, "warmup_epochs": 0.1}
STEPS = "found, two steps"
ONCE = "found, units repaired only"
ONE_PASS = "found, one pass on its own inputs"
LONGER = "found, units repaired only, 6 epochs"
NETWORKS = (
    "found",
    "even width",
    "even depth",
    "taylor",
    "random",
    "even both",
    "small images",
    "found, new weights",
    "even both, repaired",
    ONCE,
    LONGER,
    ONE_PASS,
    STEPS,
)


class Trial(CutTrial):
    """One budget: the found network and its rivals.

    Args:
        budget: share of the teacher's MACs.
        run: keeps repaired weights, ratings, what was found, and the trainings.
        training: settings of every training.
        residual: whether the widths of the residual streams are choices too.
    """

    searches = ("found", ONCE, LONGER, ONE_PASS)

    def __init__(
        self,
        data: Data,
        teacher: Teacher,
        budget: float,
        run: Path,
        training: dict[str, Any],
        residual: bool = False,
    ) -> None:
        self.training = training
        super().__init__(data, teacher, budget, run, widths=WIDTHS, epochs=training["epochs"], residual=residual)

    def begun(self, net: TeacherSupernet, arch: Arch) -> nn.Module:
        """Return a network with shared weights, its norms measured anew at its own size of images."""
        batches = (at_resolution(batch.x, arch.resolution) for batch in self.data.train.clean(256, limit=1024))
        (norm,) = nas_kd.calibrate(net, batches, archs=[arch])
        return net.extract(arch, norm)

    def repaired(self, net: TeacherSupernet, arch: Arch, passes: int = 2) -> nn.Module:
        """Return a network with shared weights, repaired unit by unit on its own inputs."""
        place = f"student/{passes}/{net.space.hash}/{arch.key}"
        how: dict[str, Any] = {"run": self.run, "folder": place, "student_epochs": passes}
        return nas_kd.repair_student(net, arch, self.teacher, self.data, **how)

    def inherited(self, space: TeacherSpace, arch: Arch) -> Rival:
        """Return an arch that begins with the teacher's weights."""
        net = supernet_of(space)
        cost = space.cost(arch, **({} if arch.resolution else {"resolution": self.data.resolution}), **self.ends)
        return Rival(lambda _: self.begun(net, arch), lambda _: cost, arch.resolution)

    @property
    def ends(self) -> dict[str, int]:
        """What costs need besides the size of images."""
        return {"in_chans": self.data.in_chans, "num_classes": self.data.num_classes}

    def rival(self, name: str) -> Rival | None:
        """Return the found network or one that it is compared with; None where there is none within the budget."""
        cost = self.space.cost(self.arch, **self.shape)
        if name == "found":
            return Rival(lambda _: self.repaired(self.net, self.arch), lambda _: cost)
        if name == ONE_PASS:
            return Rival(lambda _: self.repaired(self.net, self.arch, 1), lambda _: cost)
        if name in (ONCE, LONGER):
            return Rival(lambda _: self.begun(self.net, self.arch), lambda _: cost)
        if name == "found, new weights":
            return Rival(self.new, lambda _: cost)
        if name == "random":
            return Rival(
                lambda seed: self.repaired(self.net, self.random(seed)),
                lambda seed: self.space.cost(self.random(seed), **self.shape),
            )
        if name == STEPS:
            return self.in_steps()
        if name == "taylor":
            return self.taylor()
        if name == "small images":
            return self.small_images()
        if name == "even both, repaired":
            return None if (both := self.best_even) is None else self.both_repaired(both)
        made = {"even width": self.cuts.width, "even depth": self.cuts.depth, "even both": lambda: self.best_even}
        cut = made[name]()
        return None if cut is None else self.inherited(cut.space, cut.arch)

    def both_repaired(self, cut: EvenCut) -> Rival:
        """Return an even cut that was repaired as the found network is, with no other cuts beside it."""
        net = self.even_repaired(cut)
        cost = cut.space.cost(cut.arch, **self.shape)
        return Rival(lambda _: self.repaired(net, cut.arch), lambda _: cost)

    def in_steps(self) -> Rival:
        """Return what is found where the teacher is cut in two steps."""
        begun = time.process_time()
        net = cut_in_steps(
            self.net,
            self.teacher,
            self.data,
            SearchConfig(steps=2),
            upper={"macs": self.cap},
            derive=lambda student, data: nas_kd.teacher_space(student, data, **self.derive),
            training=RetrainConfig(**self.training),
            answers=self.logits,
            run=self.run / f"steps_{self.budget:g}",
        )
        tables = nas_kd.rate_units(net, self.teacher, self.data, score="local")
        archs = archs_around(net, self.teacher, self.data, tables, {"macs": self.cap})
        arch, kl = min(archs, key=lambda pair: pair[1])
        found = {"arch": arch.to_dict(), "label": arch.label, "kl": [kl for _, kl in archs]}
        spent = time.process_time() - begun
        atomic_json(self.run / f"found_steps_{self.budget:g}.json", found | {"cpu_seconds": spent})
        self.searched[STEPS] = spent
        cost = net.space.cost(arch, **self.shape)
        return Rival(lambda _: self.repaired(net, arch), lambda _: cost)

    def taylor(self) -> Rival:
        """Return the teacher as torch-pruning cuts it, the residual stream too."""
        batches = [(self.teacher.normalised(b.x), b.y) for b in self.data.train.clean(256, limit=1024)]
        network = taylor_cut(self.teacher.network, batches, self.fits)
        nas_kd.calibrate(network, [images for images, _ in batches])
        cost = whole_cost(network, self.data.in_chans, self.data.resolution)
        return Rival(lambda _: deepcopy(network), lambda _: cost)

    def small_images(self) -> Rival | None:
        """Return the whole teacher at the largest input size within the budget."""
        for size in range(self.data.resolution - 1, self.data.resolution // 4, -1):
            space = self.space.offering((), depth=False, resolutions=(size,))
            arch = next(arch for arch in space if arch.resolution == size)
            if self.fits(space.cost(arch, **self.ends)):
                return self.inherited(space, arch)
        return None

    def trained(self, name: str, network: nn.Module, seed: int, resolution: int | None = None) -> nn.Module:
        """Train a network as all are, or for some epochs more."""
        how = self.training | {"epochs": self.training["epochs"] + (4 if name == LONGER else 0)}
        return nas_kd.retrain(resized(network, resolution), self.logits, self.data, seed=seed, test=False, **how)


def main() -> None:
    """Train what is not trained yet, and print the table."""
    parser = parser_of(__doc__, OUT)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.33, 0.135])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=TRAINING["epochs"])
    parser.add_argument("--lr", type=float, default=TRAINING["lr"])
    parser.add_argument("--residual", action="store_true", help="offer the widths of the residual streams too")
    parser.add_argument("--networks", nargs="*", help="only these rows")
    parser.add_argument("--quick", action="store_true", help="digits and a small teacher, to see that it works")
    options, data, teacher, out = opened(parser, OUT)
    out.mkdir(parents=True, exist_ok=True)
    training = TRAINING | {"epochs": options.epochs, "lr": options.lr}
    trials = [Trial(data, teacher, budget, options.run, training, options.residual) for budget in options.budgets]
    asked = options.networks or NETWORKS
    every = range(options.seeds)
    order = [(seed, name) for seed in every for name in asked if name == "found"]
    order += [(seed, name) for seed in every for name in asked if name != "found"]
    fill_table(trials, order, out)


if __name__ == "__main__":
    main()
