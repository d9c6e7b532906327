"""Controls that a ranking did not have when it was made, added to its tables without a training.

    python experiments/rank/controls.py [FOLDER ...]
computes from archs.csv and truth.csv the ridge regression on an arch's own choices (``code_alone``: its widths and each
layer's values, learned from 30 trained archs of other folds, no teacher, no supernet) and the number of layers in the
last stage (``minus_last_depth``), adds both to scores.csv, judges all scores again and prints how the scores differ
from the regression on choices inside the bands.

Hardware: any machine. Seeds: of the folds and of the bootstrap, 0. Result: scores.csv, summary.csv and
against_choices.csv of this folder and of vgg/.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

import nas_kd
from nas_kd.analyse.bootstrap import interval_of, resampled_taus
from nas_kd.analyse.tau import pairs_within, tau_b
from nas_kd.ranking.summary import Ranked, joined, summarise
from nas_kd.rate.scores import SCORES, Bench, measure_scores
from nas_kd.runs.files import read_frame
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch

HERE = Path(__file__).parent
ADDED = ("code_alone", "minus_last_depth")
QUICK = Path("runs/quick")


def main() -> None:
    """Add, judge, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[HERE, HERE / "vgg"])
    parser.add_argument("--quick", action="store_true", help="few resamples, written to runs/quick")
    options = parser.parse_args()
    for folder in options.folders:
        out = QUICK / folder.name if options.quick else folder
        out.mkdir(parents=True, exist_ok=True)
        added = with_controls(folder)
        added.to_csv(out / "scores.csv", index=False)
        resamples = 50 if options.quick else 10_000
        ranked = joined(*(read_frame(folder / name) for name in ("archs.csv", "truth.csv")), added)
        old = read_frame(folder / "summary.csv")
        judged = judged_again(ranked, old, resamples)
        judged.to_csv(out / "summary.csv", index=False)
        against = against_choices(ranked, resamples)
        against.to_csv(out / "against_choices.csv", index=False)
        print(folder)
        print(against.to_string(index=False, float_format="%.3f"))


def with_controls(folder: Path) -> pd.DataFrame:
    """Return the scores of a ranking with the controls added."""
    archs, truth, scores = (read_frame(folder / name) for name in ("archs.csv", "truth.csv", "scores.csv"))
    space = nas_kd.load_space("resnet_cifar")
    known = [Arch.from_dict(json.loads(text)) for text in archs["arch"]]
    data = nas_kd.load_data("digits", subset=100)  # no score here looks at images
    accuracies = truth.groupby("key")["accuracy"].mean().to_dict()
    bench = Bench(space, data, Runtime("cpu"), accuracies=accuracies)
    names = [SCORES[name].name for name in ADDED]
    found = measure_scores([SCORES[name] for name in ADDED], known, bench)
    return pd.concat([scores[~scores["score"].isin(names)], found[scores.columns]], ignore_index=True)


def judged_again(ranked: Ranked, old: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Judge all scores as `nas-kd rank` did, with the minutes of preparation that it had measured."""
    by_role = old.set_index("role")["score"]
    archs = ranked.archs
    tops = archs[archs["group"].str.startswith("band ")].groupby("group")["macs"].max()
    judged = summarise(
        ranked,
        primary=by_role["primary"],
        control=by_role["primary control"],
        budgets=[float(macs) for macs in np.sort(tops)],
        resamples=resamples,
    )
    minutes = old.set_index("score")["preparation_minutes"]
    learned = minutes["regression on size"]  # as the regression on choices, it needs the trainings alone
    kept = [minutes.get(name, learned if name == SCORES["code_alone"].name else 0.0) for name in judged["score"]]
    return judged.assign(preparation_minutes=kept)


def against_choices(ranked: Ranked, resamples: int) -> pd.DataFrame:
    """Compare tau inside the bands of every score with that of the regression on choices, on the same resamples."""
    groups = ranked.archs["group"].tolist()
    inside = pairs_within(groups, ranked.bands)
    mean = np.nanmean(ranked.accuracies, axis=1)
    base = ranked.scores[ranked.names.index(SCORES["code_alone"].name)]
    rows = []
    for name, score in zip(ranked.names, ranked.scores, strict=True):
        both = np.where(np.isfinite(score) & np.isfinite(base), np.array([score, base]), np.nan)
        (drawn,) = resampled_taus(both, ranked.accuracies, groups, [inside], resamples=resamples, seed=0)
        taus = [tau_b(each, mean, inside) for each in both]
        gap = interval_of(drawn[0] - drawn[1])
        rows.append(
            {"score": name, "tau": taus[0], "minus_choices": taus[0] - taus[1], "low": gap.low, "high": gap.high}
        )
    return pd.DataFrame(rows).sort_values("tau", ascending=False, kind="stable")


if __name__ == "__main__":
    main()
