"""What of the quick start is the same with another seed, and what is chance?

The quick start (`nas-kd run experiments/digits.yaml`) with run seeds 0 to 4: each has its own teacher, space, search
and three trainings of every retrained network. Another processor or version of torch rounds otherwise, which moves a
run about as far as another seed does. ``rows.csv`` holds every training that the runs made,
``seeds.csv`` one row a run and role: which arch, its costs, its mean test accuracy and whether it was handed over.

Command: python experiments/digits_seeds.py; writes experiments/results/digits; two to three minutes a seed on two free
CPU cores. ``--quick`` runs one seed with short trainings.

Torch 2.14.1 on two busy cores of an AMD EPYC with AVX-512, means of three trainings an arch, 344 test images (one image
is 0.29 points); run twice, by two versions of the code, with the same numbers:

| | archs | accuracy %, mean ± sd of runs | lowest to highest run | found minus it | handed over |
|---|---|---|---|---|---|
| teacher | 1 | 98.37 ± 0.60 | 97.67 to 99.13 | -2.19 ± 0.82 | 0 |
| found | 5 | 96.18 ± 0.68 | 95.54 to 97.29 | 0.00 ± 0.00 | 3 |
| random | 10 | 94.67 ± 1.89 | 91.62 to 96.61 | 1.51 ± 2.02 | 0 |
| largest macs | 5 | 95.74 ± 1.77 | 93.22 to 97.77 | 0.45 ± 1.62 | 2 |
| largest params | 5 | 95.76 ± 0.67 | 94.77 to 96.41 | 0.43 ± 1.05 | 0 |
| new weights | 5 | 93.59 ± 1.55 | 91.76 to 95.64 | 2.60 ± 1.30 | 0 |
| even width | 5 | 93.91 ± 0.95 | 93.31 to 95.54 | 2.27 ± 0.61 | 0 |
| even both | 5 | 94.26 ± 0.88 | 93.22 to 95.45 | 1.92 ± 0.73 | 0 |
| taylor | 5 | 90.83 ± 3.15 | 85.47 to 93.60 | 5.35 ± 3.68 | 0 |

Stable: the found one is ahead of the even cuts and of its own architecture from new weights in the mean of five runs by
more than three standard errors (the spread over the root of five), and of random archs of its size by more than one.
Chance: which arch is found, every digit behind the point, and whether it or the largest by MACs is handed over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "digits"
RUNS = Path("runs/digits_seeds")
SEEDS = range(5)
SHORT = {
    "teacher.epochs": 2,
    "search.trials": 20,
    "search.epochs": 1,
    "retrain.epochs": 2,
    "retrain.seeds": 1,
}


def run(seed: int, folder: Path, quick: bool) -> None:
    """Run the quick start with one seed; what is there already is not done again."""
    short = [f"--{name}={value}" for name, value in SHORT.items()] if quick else []
    command = ["run", str(HERE / "digits.yaml"), "--run", str(folder), "--seed", str(seed), *short]
    subprocess.run([sys.executable, "-m", "nas_kd", *command], check=True)


def rows_of(seed: int, folder: Path) -> pd.DataFrame:
    """Return every training of a run's students."""
    return pd.read_csv(folder / "retrain" / "results.csv").drop(columns=["search", "folder"]).assign(run_seed=seed)


def roles_of(seed: int, folder: Path) -> pd.DataFrame:
    """Return a run's table, the teacher's row too, with who of it was handed over."""
    table = pd.read_csv(folder / "report" / "results.csv")
    columns = ["role", "arch", "macs", "params", "accuracy_mean_percent", "accuracy_sd_percent", "seeds"]
    decided = pd.read_csv(folder / "search" / "handed_over.csv")
    chosen = decided.loc[decided["handed_over"], "role"]
    return table[columns].assign(handed_over=table["role"].isin(chosen), run_seed=seed)


def summary(roles: pd.DataFrame) -> pd.DataFrame:
    """Return each role's mean accuracy over the runs, how far behind the found arch it is, and who was handed over."""
    roles = roles.assign(role=roles["role"].str.replace(r"_\d+$", "", regex=True))  # the random archs together
    accuracy = roles.groupby(["run_seed", "role"], sort=False)["accuracy_mean_percent"].mean().unstack(sort=False)
    behind = accuracy.rsub(accuracy["found"], axis=0)
    frame = pd.DataFrame({"mean": accuracy.mean(), "sd": accuracy.std(), "low": accuracy.min(), "high": accuracy.max()})
    return frame.assign(
        behind=behind.mean(),
        behind_sd=behind.std(),
        archs=roles.groupby("role")["arch"].nunique(),
        handed_over=roles.groupby("role")["handed_over"].sum(),
    )


def main(quick: bool) -> None:
    """Run all seeds, keep their rows and print the table."""
    runs, results = (RUNS / "quick", RUNS / "quick") if quick else (RUNS, RESULTS)
    folders = {seed: runs / f"seed_{seed}" for seed in SEEDS[: 1 if quick else None]}
    for seed, folder in folders.items():
        run(seed, folder, quick)
    trained = pd.concat([rows_of(*each) for each in folders.items()], ignore_index=True)
    trained.to_csv(results / "rows.csv", index=False)
    roles = pd.concat([roles_of(*each) for each in folders.items()], ignore_index=True)
    roles.to_csv(results / "seeds.csv", index=False)
    print("| | archs | accuracy %, mean ± sd of runs | lowest to highest run | found minus it | handed over |")
    print("|---|---|---|---|---|---|")
    for row in summary(roles).reset_index().to_dict("records"):
        print(
            f"| {row['role'].replace('_', ' ')} | {row['archs']} | {row['mean']:.2f} ± {row['sd']:.2f} |"
            f" {row['low']:.2f} to {row['high']:.2f} | {row['behind']:.2f} ± {row['behind_sd']:.2f} |"
            f" {row['handed_over']} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed with short trainings: a minute")
    main(parser.parse_args().quick)
