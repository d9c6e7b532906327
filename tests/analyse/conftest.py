"""A run folder with plausible numbers, written by code: what a finished and an unfinished run leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nas_kd
from nas_kd.solve import exact_front
from nas_kd.space.rows import rows_of

ROLES = ("found", "random_1", "random_2", "random_3", "largest_macs", "largest_params")


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pd.DataFrame):
        content.to_csv(path, index=False)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_text(json.dumps(content))


def _curve(epochs: int, end: float, rng: np.random.Generator, **more: float) -> pd.DataFrame:
    t = np.arange(1, epochs + 1)
    accuracy = end - 0.5 * np.exp(-4 * t / epochs) + rng.normal(0, 0.006, epochs)
    frame = pd.DataFrame(
        {
            "epoch": t,
            "lr": 0.05 * (1 + np.cos(np.pi * t / epochs)),
            "loss": 2.2 * np.exp(-2 * t / epochs) + 0.3,
        }
    )
    for name, shift in more.items():
        frame[name] = (accuracy if "accuracy" in name else frame["loss"]) + shift
    return frame


def fake_run(path: Path, name: str = "resnet_cifar", *, seeds: int = 3, trials: int = 150) -> Path:
    """Write a finished run whose score ranks well, though not as well as a good one would.

    Args:
        path: folder to write.
        name: search space.
        seeds: retraining seeds.
        trials: subnets scored.
    """
    space, rng = nas_kd.load_space(name), np.random.default_rng(0)
    cost: dict[str, Any] = {"resolution": space.resolution, "in_chans": 3, "num_classes": 10}
    _write(
        path / "config.yaml",
        f"space: {name}\nseed: 0\nretrain:\n  seeds: {seeds}\n  band: 0.05\n"
        + "".join(f"option_{i}: {i}\n" for i in range(60)),
    )
    _write(path / "env.json", {"torch": "2.9.0", "pandas": "3.1.1", "threads": 1, "processor": "AMD EPYC 7B13"})
    _write(path / "space.json", space.describe())
    _write(
        path / "timing.csv",
        pd.DataFrame(
            {
                "stage": ["supernet"] * 3 + ["retrain/a/seed_0"],
                "what": "epoch",
                "seconds": [9.0, 8.5, 9.1, 4.0],
            }
        ),
    )
    _write(
        path / "data.csv",
        pd.DataFrame(
            {
                "name": [f"{i}.png" for i in range(60)],
                "label": 0,
                "split": ["train"] * 40 + ["rate"] * 5 + ["select"] * 5 + ["test"] * 10,
            }
        ),
    )
    _write(path / "teacher" / "metrics.csv", _curve(20, 0.94, rng, rate_accuracy=0.0))
    _write(
        path / "supernet" / "metrics.csv",
        _curve(30, 0.88, rng, loss_largest=-0.2, loss_others=-0.25, accuracy_largest=0.0, accuracy_smallest=-0.06),
    )
    _write(path / "supernet" / "weights.safetensors", "")
    sizes = space.stage_sizes()
    taps = [
        {"stage": i + 1, "teacher_path": f"layer{i + 1}.8", "teacher_channels": 16 * 2**i}
        | {"teacher_size": 2 * size, "student_size": size}
        for i, size in enumerate(sizes)
    ]
    _write(path / "teacher" / "stages.json", taps)
    tables, summary = [], []
    for index, stage in enumerate(space.stages):
        rows = rows_of(space, index, **cost).drop(columns=["score", "images"])
        rows = rows.iloc[:: max(1, stage.size // 250)]
        scores = [4.0 / np.log(params) + rng.normal(0, 0.02) for params in rows["params"]]
        rows = rows.assign(score=scores).reset_index(drop=True)
        tables.append(rows)
        _write(path / "blockwise" / f"stage_{index + 1}.csv", tables[-1])
        summary.append({"stage": index + 1, "rows": len(rows), "tau_half_full": 0.9 - 0.02 * index})
    _write(path / "blockwise" / "summary.csv", pd.DataFrame(summary))
    fake_search(path, space, tables, cost, 0.6, "search", rng, seeds=seeds, trials=trials)
    return path


def fake_search(
    path: Path,
    space: Any,
    tables: list[pd.DataFrame],
    cost: dict[str, Any],
    share: float,
    folder: str,
    rng: np.random.Generator,
    *,
    seeds: int,
    trials: int,
) -> None:
    """Write one search and the retrained students of its comparison."""
    front = exact_front(tables, budget="macs")
    _write(path / folder / "front.csv", front)
    cap = int(share * space.cost(space.largest(), **cost).macs)
    keyed = [t.set_index(["in_width", "candidate"]) for t in tables]

    def facts(arch: nas_kd.Arch) -> dict[str, Any]:
        code, width, score = space.encode([arch])[0], space.stem.width, 0.0
        for rows, number, candidate in zip(keyed, code, arch.stages, strict=True):
            score += float(rows.loc[(width, int(number)), "score"]) if (width, int(number)) in rows.index else np.nan
            width = candidate.width
        total = space.cost(arch, **cost)
        return {
            "key": arch.key,
            "label": arch.label,
            "macs": total.macs,
            "params": total.params,
            "score": score,
        }

    def truth(row: dict[str, Any]) -> float:
        return 0.55 + 0.035 * np.log(row["macs"]) - 0.12 * row["score"] + rng.normal(0, 0.004)

    def decode(rows: pd.Series) -> nas_kd.Arch:
        return space.decode([[int(t.loc[rows[f"row_{s + 1}"], "candidate"]) for s, t in enumerate(tables)]])[0]

    archs = [("warm", decode(row)) for _, row in front[front["macs"] <= cap].tail(20).iterrows()]
    seed = 1000 * len(folder)
    while len(archs) < trials:
        stages = [
            s.candidates()[int(t["candidate"].sample(1, random_state=seed + i).iloc[0])]
            for i, (s, t) in enumerate(zip(space.stages, tables, strict=True))
        ]
        arch = space.arch(stages)
        seed += 10
        if space.cost(arch, **cost).macs <= cap:
            archs.append(("trial" if len(archs) < trials - 25 else "random", arch))
    by_size = sorted((arch for _, arch in archs), key=lambda a: space.cost(a, **cost).macs)
    rows = []
    for number, (kind, arch) in enumerate([*archs, ("control", by_size[-1]), ("control", by_size[-2])]):
        row = facts(arch)
        accuracy = truth(row) - 0.06
        role = {trials: "largest_macs", trials + 1: "largest_params"}.get(number)
        rows.append(
            {"number": number, "kind": kind, "role": role}
            | row
            | {"kl": 1.2 - accuracy, "accuracy": accuracy, "agreement": accuracy, "feasible": True}
        )
    frame = pd.DataFrame(rows)
    _write(path / folder / "trials.csv", frame)
    scored = frame.drop_duplicates("key")
    top = pd.concat([scored.nsmallest(4, "kl"), scored.tail(2)]).assign(
        role=["kl", "kl", "score", "accuracy", "largest_macs", "random"]
    )
    top["select_accuracy"] = top["accuracy"] + 0.02 + rng.normal(0, 0.004, len(top))
    _write(path / folder / "top.csv", top)
    found = next(arch for _, arch in archs if arch.key == top.sort_values("select_accuracy")["key"].iloc[-1])
    mine = facts(found)
    _write(
        path / folder / "best.json",
        {
            "key": found.key,
            "label": found.label,
            "arch": found.to_dict(),
            "macs": mine["macs"],
            "params": mine["params"],
            "budget": {"macs": cap},
        },
    )
    near = sorted((a for _, a in archs if a != found), key=lambda a: abs(space.cost(a, **cost).macs - mine["macs"]))[:3]
    students = pd.DataFrame(
        [
            {"role": role} | {k: v for k, v in facts(arch).items() if k != "score"}
            for role, arch in zip(ROLES, [found, *near, by_size[-1], by_size[-2]], strict=True)
        ]
    )
    _write(path / folder / "students.csv", students)
    results = []
    for student in students.to_dict("records"):
        base = truth(student | {"score": facts(found)["score"]}) - (0.01 if "random" in student["role"] else 0)
        for s in range(seeds):
            accuracy = base + rng.normal(0, 0.003)
            home = f"retrain/{student['key']}/seed_{s}"
            _write(path / home / "metrics.csv", _curve(30, accuracy, rng, kd_ls=0.1, rate_accuracy=0.0))
            results.append(
                {
                    "search": folder,
                    "role": student["role"],
                    "key": student["key"],
                    "seed": s,
                    "macs": student["macs"],
                    "params": student["params"],
                    "select_accuracy": accuracy + 0.01,
                    "select_agreement": 0.9,
                    "test_accuracy": accuracy,
                    "test_agreement": accuracy + 0.01,
                    "folder": f"{home}/student",
                }
            )
            _write(
                path / home / "stage.json",
                {
                    "inputs": {},
                    "done": True,
                    "facts": {
                        "select_accuracy": accuracy + 0.01,
                        "test_accuracy": accuracy,
                        "test_agreement": accuracy + 0.01,
                    },
                },
            )
    earlier = pd.read_csv(path / "retrain" / "results.csv") if (path / "retrain" / "results.csv").exists() else None
    _write(path / "retrain" / "results.csv", pd.concat([earlier, pd.DataFrame(results)]))
    _write(
        path / "retrain" / "teacher.json",
        {"name": "cifar_resnet56", "macs": 125_485_706, "params": 855_770, "test_accuracy": 0.9437},
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests read it only."""
    return fake_run(tmp_path_factory.mktemp("runs") / "cifar10")
