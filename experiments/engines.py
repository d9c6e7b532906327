"""Claim to test: which engine finds the better student in the space of a teacher, at the same number of scored subnets?

Digits, `cifar_resnet14`, repaired cuts, 25 % and 13.5 % of its MACs. Every engine scores 60 whole subnets and hands
over the best by what it searches for: the lowest KL to the teacher, or the highest accuracy with shared weights (nsga2,
coarse, random), without tuned subnets and short trainings. It is trained for 3 epochs of `kd` from three training
seeds. The first arch alone of `exact` (the best of the exact front) and of `gates` (what learned gates leave) are
trained as well: these two are what the engines themselves say. Search seeds vary proposals and gates; the teacher, its
repaired cuts and ratings are made once.

Command: OMP_NUM_THREADS=1 nice python experiments/engines.py; writes experiments/results/engines.
Rows that are there stay; to measure anew give another --run and --out.
With --data FOLDER (train.tar and test.tar of CIFAR-10 as JPEG, resnet56.safetensors) the same in the space of that
ResNet-56, 2,200 images, at 33 % and 13.5 % of its MACs, one training seed of 2 epochs:
    python experiments/engines.py --data FOLDER --run runs/engines_cifar10 --out experiments/results/engines_cifar10
Hardware: two AMD EPYC cores that other work shared, torch 2.14.1; one thread.
Numbers: KL to the teacher (nats) and accuracy on the 216 images of `select` in percent, means over five search seeds;
accuracy minus random search's, seed by seed, with its standard error; CPU seconds of a search.

| engine | KL 25 % | accuracy | minus random | KL 13.5 % | accuracy | seconds |
|---|---|---|---|---|---|---|
| exact | 0.32 | 97.69 | +0.5 (0.5) | 1.12 | 92.13 | 4.7, 17.7 |
| exact, first arch | 0.46 | 98.15 | +1.0 (0.5) | 1.49 | 92.44 | |
| gates | 0.42 | 97.13 | -0.0 (0.7) | 1.12 | 92.13 | 6.3, 21.1 |
| gates, first arch | 0.48 | 97.87 | +0.7 (0.5) | 1.56 | 96.76 | |
| reinforce | 0.50 | 97.31 | +0.2 (0.6) | 1.12 | 92.13 | 2.0, 7.0 |
| predictor | 0.34 | 97.56 | +0.4 (0.5) | 1.12 | 92.13 | 3.2, 3.5 |
| nni:tpe | 0.52 | 97.19 | +0.0 (0.5) | 1.12 | 92.13 | 1.7, 4.1 |
| nsga2 | 0.58 | 97.31 | +0.2 (0.6) | 1.12 | 92.13 | 1.4, 8.3 |
| coarse | 0.46 | 97.90 | +0.7 (0.6) | 1.12 | 92.13 | 1.3, 3.3 |
| random | 0.56 | 97.16 | | 1.12 | 92.13 | 1.5, 5.4 |

`exact` and `predictor` find the lowest KL, by 0.24 and 0.22 (standard errors 0.03 and 0.04); after training no engine's
student is told apart from random search's. At 13.5 % all engines hand over one arch, that of the lowest KL, and it is
not the best one after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import pandas as pd
from cut_teacher import load, parser_of
from stand_in import HELP, QUICK

import nas_kd
from nas_kd.data import Data
from nas_kd.runs.files import CsvLog
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.finalists import ranked
from nas_kd.searcher.trials import evaluated
from nas_kd.searcher.variables import SearchVariables
from nas_kd.space import Arch
from nas_kd.teacher import Teacher
from nas_kd.train.network import predict

RUN = Path("runs/engines")
RESULTS = Path(__file__).parent / "results" / "engines"
ENGINES = ("exact", "gates", "reinforce", "predictor", "nni:tpe", "nsga2", "coarse", "random")
GUIDED = ("exact", "gates", "reinforce", "predictor", "nni:tpe")
COLUMNS = ("kl", "percent")


@dataclass(frozen=True)
class Plan:
    """What is searched and trained, and how long.

    Args:
        data: images.
        teacher: bound to them.
        runtime: where all is computed.
        budgets: shares of the teacher's MACs.
        seeds: searches of each engine.
        trainings: of each arch that is found.
        epochs: of a training.
        split: whose images are asked for the accuracy.
        trials: subnets that an engine scores.
    """

    data: Data
    teacher: Teacher
    runtime: Runtime
    budgets: Sequence[str] = ("25%", "13.5%")
    seeds: int = 5
    trainings: int = 3
    epochs: int = 3
    split: str = "select"
    trials: int = 60


def digits(run: Path, runtime: Runtime, quick: bool) -> Plan:
    """Return the digits and a ResNet-14 that is trained on them."""
    data = nas_kd.load_data("digits", rate=0.15, select=0.15, subset=400 if quick else None)
    epochs = 2 if quick else 12
    teacher = nas_kd.train_teacher(
        "cifar_resnet14", data, run=run, epochs=epochs, lr=0.1, batch_size=32, runtime=runtime
    )
    if quick:
        return Plan(data, teacher, runtime, budgets=("25%",), seeds=1, trainings=1, epochs=1, trials=12)
    return Plan(data, teacher, runtime)


def main() -> None:
    """Search, train, compare, write."""
    parser = parser_of(__doc__, RESULTS)
    parser.add_argument("--quick", action="store_true", help=HELP)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES, metavar="ENGINE")
    parser.set_defaults(images=2200, run=RUN)
    options = parser.parse_args()
    runtime = Runtime("cpu", threads=1)
    run, results = options.run, options.out or RESULTS
    if options.quick:
        run = results = QUICK / "engines"
        (results / "found.csv").unlink(missing_ok=True)
    if options.data is None or str(options.data) == "digits":
        plan = digits(run, runtime, options.quick)
    else:
        if run == RUN or results == RESULTS:
            parser.error("--run and --out of their own with --data: these folders hold the digits' rows")
        plan = Plan(*load(options), runtime, budgets=("33%", "13.5%"), trainings=1, epochs=2, split="test")
    results.mkdir(parents=True, exist_ok=True)
    log = CsvLog(results / "found.csv")
    known = {(row["budget"], int(row["seed"]), row["engine"]) for row in log.rows()}
    net: Any = nas_kd.Supernet(nas_kd.teacher_space(plan.teacher, plan.data))
    net = nas_kd.repair_units(net, plan.teacher, plan.data, run=run, runtime=plan.runtime)
    tables = nas_kd.rate_units(net, plan.teacher, plan.data, run=run)
    trained: dict[str, float] = {}
    for budget, seed, engine in product(plan.budgets, range(plan.seeds), options.engines):
        if (budget, seed, engine) in known:
            continue
        begun = process_time()
        guided = engine in GUIDED
        result = nas_kd.search(
            net,
            plan.teacher,
            plan.data,
            tables if guided else None,
            engine=engine,
            seed=seed,
            max_macs=budget,
            trials=plan.trials,
            tuned=0,
            epochs=0,
            runtime=plan.runtime,
        )
        seconds = process_time() - begun
        scored = evaluated(result.frame())
        best = scored.sort_values("kl", kind="stable") if guided else ranked(scored, "loss")
        chosen = {engine: best.iloc[0]}
        if engine in ("exact", "gates"):
            chosen = {f"{engine}, first arch": scored.iloc[0]} | chosen  # last, for it says that the search is known
        for name, row in chosen.items():
            arch = arch_of(result, row)
            if arch.key not in trained:
                trained[arch.key] = accuracy(arch, net, plan, run)
            found = {"budget": budget, "engine": name, "seed": seed, "key": arch.key, "macs": row["macs"]}
            log.append(found | {"kl": row["kl"], "percent": 100 * trained[arch.key], "cpu_seconds": seconds})
            print(log.rows()[-1], flush=True)
    summary = summarise(log.frame().drop_duplicates(["budget", "engine", "seed"]))
    summary.to_csv(results / "summary.csv", index=False)
    print(summary.round(2).to_string(index=False))


def arch_of(result: nas_kd.SearchResult, row: pd.Series) -> Arch:
    """Return the arch of a row's point."""
    variables = SearchVariables(result.space)
    return variables.decode([int(row[f"i_{number}"]) for number in range(1, len(variables.sizes) + 1)])


def accuracy(arch: Arch, net: Any, plan: Plan, run: Path) -> float:
    """Return the mean accuracy of trainings from the supernet's weights."""
    found = []
    for seed in range(plan.trainings):
        student: Any = nas_kd.retrain(
            arch,
            plan.teacher,
            plan.data,
            space=net.space,
            supernet=net,
            run=run,
            method="kd",
            seed=seed,
            epochs=plan.epochs,
            batch_size=64,
            test=False,
            folder=f"retrain/{arch.key}/seed_{seed}",
            runtime=plan.runtime,
        )
        split = getattr(plan.data, plan.split)
        found.append(nas_kd.Classification().metric(predict(student, split, plan.runtime), split.labels))
    return sum(found) / len(found)


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Average over search seeds, with the paired difference to random search and its standard error."""
    rows = []
    for (budget, name), mine in found.groupby(["budget", "engine"], sort=False):
        random = found[(found["budget"] == budget) & (found["engine"] == "random")].set_index("seed")
        row: dict[str, object] = {"budget": budget, "engine": name, "archs": mine["key"].nunique()}
        row["macs"] = mine["macs"].mean()
        for column in COLUMNS:
            gaps = mine.set_index("seed")[column] - random[column]
            row |= {column: mine[column].mean(), f"{column}_minus_random": gaps.mean(), f"{column}_se": gaps.sem()}
        rows.append(row | {"cpu_seconds": mine["cpu_seconds"].mean()})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
