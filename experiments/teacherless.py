"""Claim to test: does a teacher's guidance find better students than the supernet's own accuracy?

Digits, half of the largest's MACs, 60 whole subnets scored by every engine, five search seeds, no short
training. `exact` chooses by KL to the teacher; `exact, by accuracy` is the same search, its best by accuracy.
Each found arch is retrained from two seeds, by labels (ce) and by the teacher (kd_ls). Teacher, supernet and
ratings are made once.

Command: OMP_NUM_THREADS=1 nice python experiments/teacherless.py; writes experiments/results/teacherless.
Hardware: 2 cores of an AMD EPYC, busy with other work (load 7 to 13): seconds are no speeds.
Numbers (means over five search seeds; test accuracy after retraining minus that of random search, paired by
search seed, with its standard error; one test image is 0.29 points):

| engine | mean MACs | rate accuracy % | ce: test % (minus random) | kd_ls: test % (minus random) |
|---|---|---|---|---|
| exact | 173,837 | 90.09 | 97.56 (-0.29 +- 0.37) | 97.30 (+0.26 +- 0.57) |
| exact, by accuracy | 168,172 | 91.59 | 97.97 (+0.12 +- 0.41) | 96.63 (-0.41 +- 0.47) |
| nsga2 | 136,326 | 91.50 | 98.14 (+0.29 +- 0.43) | 97.03 (0.00 +- 0.66) |
| coarse | 147,770 | 91.24 | 97.94 (+0.09 +- 0.20) | 97.03 (0.00 +- 0.54) |
| random | 178,899 | 91.50 | 97.85 | 97.03 |

So on digits no engine, with a teacher or without, beats random search after retraining: all differences are within
a standard error of zero, where candidates differ by less than the noise. Guidance costs the rating (94 s here)
besides. This shows that the engines work, not which to prefer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import pandas as pd
from stand_in import HELP, QUICK

import nas_kd
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.finalists import ranked
from nas_kd.space import Arch, ElasticSpace

RUN = Path("runs/teacherless")
RESULTS = Path(__file__).parent / "results" / "teacherless"
ENGINES = ("exact", "nsga2", "coarse", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=HELP)
    quick = parser.parse_args().quick
    run, results = (QUICK / "teacherless", QUICK / "teacherless") if quick else (RUN, RESULTS)
    seeds, retrainings, trials, epochs = (2, 1, 6, 2) if quick else (5, 2, 60, 12)
    runtime = Runtime("cpu", threads=1)
    data = nas_kd.load_data("digits", rate=0.15, select=0.15, subset=300 if quick else None)
    space = nas_kd.load_space("digits")
    teacher = nas_kd.train_teacher("cifar_resnet14", data, run=run, epochs=epochs, lr=0.1, runtime=runtime)
    net = nas_kd.Supernet(space, num_classes=data.num_classes, in_chans=data.in_chans)
    nas_kd.train_supernet(net, data, run=run, epochs=epochs, lr=0.05, runtime=runtime)
    begun = perf_counter()
    tables = nas_kd.rate_blockwise(
        net, teacher, data, run=run, epochs=min(5, epochs), lr=0.03, error="nmse", runtime=runtime
    )
    rating = perf_counter() - begun
    rows = []
    archs = {}
    for engine in ENGINES:
        for seed in range(seeds):
            begun = perf_counter()
            guided = engine == "exact"
            result = nas_kd.search(
                net,
                teacher if guided else None,
                data,
                tables if guided else None,
                engine=engine,
                seed=seed,
                max_macs="50%",
                trials=trials,
                epochs=0,
                variables="candidates",
                runtime=runtime,
            )
            seconds = perf_counter() - begun
            frame = result.frame()
            fits = frame[frame["feasible"] & frame["accuracy"].notna()]
            chosen = {engine: result.best.key}
            if guided:
                chosen["exact, by accuracy"] = str(ranked(fits, "loss")["key"].iloc[0])
            for name, key in chosen.items():
                row = fits[fits["key"] == key].iloc[0]
                rows.append(
                    {
                        "engine": name,
                        "seed": seed,
                        "key": key,
                        "label": row["label"],
                        "macs": row["macs"],
                        "rate_accuracy": row["accuracy"],
                        "search_seconds": seconds,
                    }
                )
            codes = {arch.key: arch for arch in _archs(space, fits)}
            archs |= {key: codes[key] for key in chosen.values()}
    found = pd.DataFrame(rows)
    for method in ("ce", "kd_ls"):
        means = {}
        for key, arch in archs.items():
            tests = []
            for seed in range(retrainings):
                student = nas_kd.retrain(
                    arch,
                    None if method == "ce" else teacher,
                    data,
                    space=space,
                    run=run,
                    method=method,
                    seed=seed,
                    epochs=epochs,
                    batch_size=64,
                    folder=f"retrain/{method}/{key}/seed_{seed}",
                    runtime=runtime,
                )
                tests.append(student.info["metrics"]["test_accuracy"])  # type: ignore[index,union-attr]
            means[key] = sum(tests) / len(tests)
        found[f"test_{method}"] = found["key"].map(means)
    results.mkdir(parents=True, exist_ok=True)
    found.to_csv(results / "found.csv", index=False)
    summary = summarise(found)
    summary.to_csv(results / "summary.csv", index=False)
    print(f"rating the stages took {rating:.0f} s (0 when it was done before); accuracies in percent")
    print(summary.round(2).to_string(index=False))


def _archs(space: ElasticSpace, rows: pd.DataFrame) -> list[Arch]:
    """Return the archs of labels; the digits space chooses its stages only."""
    known = [{candidate.label: candidate for candidate in stage.candidates()} for stage in space.stages]
    parts = (str(label).split(" | ") for label in rows["label"])
    return [space.arch([table[name] for table, name in zip(known, names, strict=True)]) for names in parts]


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Average over search seeds, with standard errors and the paired difference to random search."""
    rows = []
    random = found[found["engine"] == "random"].set_index("seed")
    for name, mine in found.groupby("engine", sort=False):
        row: dict[str, object] = {"engine": name, "archs": mine["key"].nunique(), "macs": mine["macs"].mean()}
        for column in ("rate_accuracy", "test_ce", "test_kd_ls"):
            gaps = 100 * (mine.set_index("seed")[column] - random[column])
            row[column] = 100 * mine[column].mean()
            row |= {f"{column}_minus_random": gaps.mean(), f"{column}_se": gaps.sem()}
        rows.append(row | {"search_seconds": mine["search_seconds"].mean()})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
