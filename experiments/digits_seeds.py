"""What of the quick start is the same with another seed, and what is chance?

The quick start (`nas-kd run experiments/digits.yaml`) with run seeds 0 to 4: each has its own teacher, supernet, search
and three trainings of every retrained arch. Another processor or version of torch rounds otherwise, which moves a run
about as far as another seed does. ``rows.csv`` holds every training that the runs made, ``seeds.csv`` one row a run and
role: which arch, its costs, its mean test accuracy and whether it was handed over.

Command: python experiments/digits_seeds.py; writes experiments/results/digits; two to three minutes a seed on two free
CPU cores. ``--quick`` runs one seed with short trainings.

Torch 2.14.1 on two busy cores of an AMD EPYC with AVX-512, means of three trainings an arch, 344 test images (one image
is 0.29 points):

| | archs | accuracy %, mean ± sd of runs | lowest to highest run | found minus it | handed over |
|---|---|---|---|---|---|
| teacher | 1 | 98.84 ± 0.54 | 97.97 to 99.42 | -1.72 ± 0.89 | 0 |
| found | 5 | 97.11 ± 0.60 | 96.12 to 97.67 | 0.00 ± 0.00 | 5 |
| random | 15 | 96.71 ± 0.42 | 96.29 to 97.19 | 0.40 ± 0.86 | 0 |
| largest macs | 1 | 96.20 ± 0.36 | 95.74 to 96.61 | 0.91 ± 0.76 | 0 |
| largest params | 1 | 96.61 ± 0.41 | 96.12 to 97.19 | 0.50 ± 0.54 | 0 |

Stable: the costs, the archs of the size controls, students one to three points below the teacher, the found one handed
over. Chance: which arch is found (another in every run), every digit behind the point, and the order of the students
within a run: the found one is best of its table in three runs of five, and in one it is the largest by MACs itself.
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
