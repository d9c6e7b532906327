"""Between scores and trainings: the best subnets, tuned shortly from the supernet's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from nas_kd.data import Data
from nas_kd.nn import resized
from nas_kd.rate.scores.short import TEMPERATURE, TUNING, softened_kl
from nas_kd.runs.progress import Progress
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.jobs import run_jobs
from nas_kd.searcher.trials import EVALUATED
from nas_kd.space import Arch
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource
from nas_kd.train.network import predict
from nas_kd.train.retrain import retrain


def tuned(
    rows: pd.DataFrame,
    archs: Mapping[str, Arch],
    net: Supernet,
    teacher: TargetSource,
    data: Data,
    *,
    count: int,
    seed: int,
    run: Run | None,
    folder: str,
    workers: int,
    runtime: Runtime,
) -> pd.DataFrame:
    """Tune the subnets of lowest KL from the supernet's weights, and measure them again.

    Shared weights serve every arch a little; what an arch makes of them in one epoch of its own says more.

    Args:
        rows: the trials of a search.
        archs: every arch by key.
        net: the supernet.
        teacher: what teaches; what does not lie in files keeps the trainings in this process.
        data: the data.
        count: subnets to tune.
        seed: seed of the trainings.
        run: the run, or None.
        folder: the search's folder in the run.
        workers: processes.
        runtime: device and precision.

    Returns:
        ``key`` and ``tuned_kl`` (KL to the teacher on the rating split, both softened; nats), best first.
    """
    scored = rows[rows["kind"].isin(EVALUATED)].drop_duplicates("key").sort_values("kl", kind="stable")
    keys = scored["key"].head(count).tolist()
    teacher.prefill(data, TUNING["epochs"], run)
    parallel = workers if teacher.shared and runtime.device.type == "cpu" else 1
    how = TUNING | {"batch_size": min(TUNING["batch_size"], len(data.train))}
    jobs = [
        {
            "model": archs[key],
            "teacher": teacher,
            "data": data,
            "space": net.space,
            "supernet": net,
            "run": run and run.path,
            "method": "kd",
            "method_settings": {"temperature": TEMPERATURE},
            "seed": seed,
            "test": False,
            "runtime": runtime,
            "folder": f"{folder}/tuned/{key}",
        }
        | how
        for key in keys
    ]
    with Progress("tuned subnets", len(keys), unit="subnets", run=run) as progress:
        found = list(run_jobs(tuned_kl, jobs, workers=parallel, advance=progress.advance))
    return pd.DataFrame({"key": keys, "tuned_kl": found}).sort_values("tuned_kl", kind="stable", ignore_index=True)


def tuned_kl(**job: Any) -> float:
    """Tune one subnet, in a worker process, and return the KL that is left to the teacher."""
    network = retrain(**job)
    arch = job["model"]
    data = job["data"]
    runtime = job["runtime"]
    logits = predict(resized(network, arch.resolution), data.rate, runtime)  # type: ignore[arg-type]
    wanted = job["teacher"].split_logits("rate", data)
    assert wanted is not None
    return softened_kl(logits, wanted)
