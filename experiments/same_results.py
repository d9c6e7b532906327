"""Do two versions of the code give the same results to the bit?

    python experiments/same_results.py make OLD      # with the one version
    python experiments/same_results.py make NEW      # with the other, on the same machine
    python experiments/same_results.py compare OLD NEW

``make`` runs the quick start, a ranking of eight archs and one retraining by each of five methods: about four minutes
on one CPU core. ``compare`` reads every table, every found arch and every file of weights; times, latencies and
records of settings may differ, for names of settings may. It prints what differs and exits with 1 if anything does.

Hardware: both sides on one machine, with one version of torch. Seeds: 0. Result: printed; none is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
METHODS = ("kd", "dkd", "review", "byot", "dml")
RANKING = {
    "rank.bands": "[50%]",
    "rank.band": "0.2",
    "rank.in_band": "8",
    "rank.overall": "0",
    "rank.seeds": "1",
    "rank.epochs": "1",
    "rank.warmup_epochs": "0.5",
    "rank.scores": "[nsr,supernet_kl,tuned,macs,params,minus_depth]",
    "rank.resamples": "200",
}
MEASURED = ("timing.csv", "latency.csv")  # by the clock
UNTIMED = "^(?!.*(seconds|minutes|cpu))"  # columns of tables that are not
SEARCHED = ("key", "arch", "budget", "at_least", "macs", "params", "engine")


def nas_kd(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "nas_kd", *arguments], check=True)


def make(folder: Path) -> None:
    """Run everything once and keep it below a folder; what is there already is not done again."""
    run = folder / "digits"
    nas_kd("run", str(HERE / "digits_space.yaml"), "--run", str(run))
    nas_kd("rank", str(run), *(f"--{name}={value}" for name, value in RANKING.items()))
    retrain_by_methods(run, folder / "methods")


def retrain_by_methods(run: Path, folder: Path) -> None:
    """Retrain one arch of the digits space by each method, with the teacher of the quick start."""
    import nas_kd as library

    data = library.load_data("digits", rate=0.15, select=0.15)
    space = library.load_space("digits")
    arch = space.sample(seed=3)
    weights = run / "teacher" / "weights.safetensors"
    for method in METHODS:
        teacher = library.load_teacher(
            "cifar_resnet14",
            checkpoint=str(weights),
            num_classes=data.num_classes,
            in_chans=data.in_chans,
            resolution=data.resolution,
        )
        teacher.bind(data).match(space, data.resolution)
        library.retrain(
            arch, teacher, data, space=space, run=folder / method, method=method, epochs=2, batch_size=64, lr=0.05
        )


def compared(folder: Path) -> Iterator[Path]:
    """Yield what two versions must have alike: tables, found archs and weights, by their paths below a folder."""
    for path in sorted(folder.rglob("*")):
        table = path.suffix == ".csv" and path.name not in MEASURED
        if table or path.name == "best.json" or path.suffix == ".safetensors":
            yield path.relative_to(folder)


def same(one: Path, other: Path) -> bool:
    """Tell whether two files say the same: found archs by what was found, weights by tensors, tables by bytes."""
    if one.name == "best.json":
        found = [json.loads(path.read_text()) for path in (one, other)]
        return all(found[0].get(name) == found[1].get(name) for name in SEARCHED)
    if one.suffix == ".safetensors":
        return same_tensors(one, other)
    return one.read_bytes() == other.read_bytes() or same_but_for_times(one, other)


def same_but_for_times(one: Path, other: Path) -> bool:
    """Compare the cells of two tables as they are written, without the columns of times."""
    import pandas as pd

    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in (one, other)]
    return tables[0].filter(regex=UNTIMED).equals(tables[1].filter(regex=UNTIMED))


def same_tensors(one: Path, other: Path) -> bool:
    import torch
    from safetensors.torch import load_file

    left = load_file(one)
    right = load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def compare(old: Path, new: Path) -> int:
    """Print what differs and return how much does; nothing in common is a difference too."""
    before = list(compared(old))
    after = set(compared(new))
    missing = [path for path in before if path not in after]
    added = sorted(after - set(before))
    changed = [path for path in before if path in after and not same(old / path, new / path)]
    for word, paths in (("missing", missing), ("added", added), ("changed", changed)):
        for path in paths:
            print(f"{word}: {path}")
    print(f"{len(before)} files compared, {len(missing) + len(added) + len(changed)} differ")
    return len(missing) + len(added) + len(changed) + (not before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("make").add_argument("folder", type=Path)
    both = commands.add_parser("compare")
    both.add_argument("old", type=Path)
    both.add_argument("new", type=Path)
    parser.add_argument("--quick", action="store_true", help="two tiny runs of this code: they must be the same")
    options = parser.parse_args()
    if options.quick:
        runs = [Path("runs/quick/same_results") / name for name in ("one", "other")]
        for run in runs:
            nas_kd("run", str(HERE / "tiny.yaml"), "--run", str(run))
        return 1 if compare(*runs) else 0
    if options.command is None:
        parser.error("give make or compare")
    if options.command == "make":
        make(options.folder)
        return 0
    return 1 if compare(options.old, options.new) else 0


if __name__ == "__main__":
    sys.exit(main())
