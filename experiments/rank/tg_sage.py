"""How TG-SAGE's score ranks the trained archs of the first ranking, beside the sum of stages that stands in its table.

    python experiments/rank/tg_sage.py --train cifar10-jpeg/train.tar --teacher cifar10-jpeg/resnet56.safetensors
trains a supernet of resnet_cifar as `resnet56.yaml` does but for five epochs where that has 15, measures `tg` (each
teacher layer with the student layer that is most like it), `p_tg` (with the subnet's accuracy), the old `rdm` (each
stage with the teacher's same stage, added up), supernet accuracy and supernet KL of the 112 archs, and prints Kendall's
tau with their trained accuracies, over all and inside the three bands. The shorter supernet is why the last three
differ from the table; they tell how far it carries.

Hardware: a core of an AMD EPYC, busy with other work (load 5 to 10). Seed 0. Result: tg_sage.csv: inside the bands 0.12
for `p_tg`, -0.16 for `tg`, 0.10 for `rdm`, 0.46 for supernet accuracy, 0.52 for supernet KL.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import nas_kd
from nas_kd.analyse.bootstrap import interval_of, resampled_taus
from nas_kd.analyse.tau import pairs_within, tau_b
from nas_kd.ranking.summary import joined
from nas_kd.rate.scores import SCORES, Bench, measure_scores
from nas_kd.runs.files import read_frame
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch

HERE = Path(__file__).parent
NAMES = ("p_tg", "tg", "rdm", "supernet_accuracy", "supernet_kl")


def main() -> None:
    """Train, measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default="cifar10-jpeg/train.tar", help="class folders of CIFAR-10")
    parser.add_argument("--teacher", default="cifar10-jpeg/resnet56.safetensors", help="weights of ResNet-56")
    parser.add_argument("--run", default="runs/tg_sage", help="keeps the supernet")
    parser.add_argument("--epochs", type=int, default=5, help="of the supernet")
    parser.add_argument("--quick", action="store_true", help="digits, one epoch, few archs; writes to runs/quick")
    options = parser.parse_args()
    torch.set_num_threads(1)
    space = nas_kd.load_space("resnet_cifar")
    archs, truth = (read_frame(HERE / name) for name in ("archs.csv", "truth.csv"))
    out = HERE
    if options.quick:
        data = nas_kd.load_data("digits", subset=300)
        teacher = nas_kd.load_teacher("cifar_resnet8", num_classes=10, in_chans=1)
        archs = pd.concat([part.head(4) for _, part in archs.groupby("group")])
        truth = truth[truth["key"].isin(archs["key"])]
        out = Path("runs/quick")
        out.mkdir(parents=True, exist_ok=True)
        run = None
    else:
        data = nas_kd.load_data(options.train, subset=25_000, rate=0.1, select=0.3, views=8)
        teacher = nas_kd.load_teacher("cifar_resnet56", checkpoint=options.teacher)
        run = options.run
    net = nas_kd.Supernet(space, num_classes=data.num_classes, in_chans=data.in_chans)
    how = {"epochs": 1, "warmup_epochs": 0.5} if options.quick else {"epochs": options.epochs}
    nas_kd.train_supernet(net, data, run=run, batch_size=64, lr=0.05, weight_decay=1e-4, **how)
    teacher.bind(data).match(space, data.resolution)
    bench = Bench(space, data, Runtime("cpu"), teacher, net, images=64 if options.quick else 2048)
    known = [Arch.from_dict(json.loads(text)) for text in archs["arch"]]
    scores = measure_scores([SCORES[name] for name in NAMES], known, bench)
    table = compared(archs, truth, scores, resamples=50 if options.quick else 10_000)
    table.to_csv(out / "tg_sage.csv", index=False)
    print(table.to_string(index=False, float_format="%.3f"))


def compared(archs: pd.DataFrame, truth: pd.DataFrame, scores: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Return tau over all archs and inside the bands, with its interval and the seconds an arch."""
    ranked = joined(archs, truth, scores)
    groups = ranked.archs["group"].tolist()
    inside = pairs_within(groups, ranked.bands)
    mean = np.nanmean(ranked.accuracies, axis=1)
    (drawn,) = resampled_taus(ranked.scores, ranked.accuracies, groups, [inside], resamples=resamples, seed=0)
    rows = []
    for name, score, each in zip(ranked.names, ranked.scores, drawn, strict=True):
        interval = interval_of(each)
        seconds = scores.loc[scores["score"] == name, "cpu_seconds"].sum() / len(archs)
        taus = {"tau_all": tau_b(score, mean), "tau_bands": tau_b(score, mean, inside)}
        rows.append({"score": name} | taus | {"low": interval.low, "high": interval.high, "cpu_seconds": seconds})
    return pd.DataFrame(rows).sort_values("tau_bands", ascending=False, kind="stable")


if __name__ == "__main__":
    main()
