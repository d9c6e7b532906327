"""Weights of the stages' scores, from the results in a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from nas_kd.analyse.measure import as_accuracy
from nas_kd.config.kinds import checked
from nas_kd.config.measures import measure_named
from nas_kd.config.reading import parsed
from nas_kd.data import Data
from nas_kd.distill import Task, task_of
from nas_kd.errors import SettingError, nearest
from nas_kd.rate.scores import Bench
from nas_kd.rate.weights import learned_weights, sensitivity_weights
from nas_kd.runs.files import atomic_json, atomic_write, read_frame, read_json
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.record import tables_hash
from nas_kd.space import Arch
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train import load_weights, weights_hash
from nas_kd.train.blockwise_config import BlockwiseConfig
from nas_kd.train.stages import Blockwise

METHODS = ("sensitivity", "learned")
IRRELEVANT = ("stage", "cache_gb")  # settings that no score depends on


@checked
def stage_weights(
    how: str,
    tables: Sequence[pd.DataFrame],
    net: Supernet,
    teacher: Teacher,
    data: Data,
    config: BlockwiseConfig | None = None,
    *,
    run: Run | str | Path,
    seed: int = 0,
    runtime: Runtime | None = None,
    task: Task | None = None,
) -> list[float]:
    """Find the weights of the stages' scores for ``search(weights=...)``.

    Args:
        how: ``sensitivity`` (the KL of the teacher's logits when a candidate replaces one of its stages, per unit of
            score) or ``learned`` (a regression of the accuracies that ``nas-kd rank`` has
            trained in this run).
        tables: the ratings of ``rate_blockwise`` in this run.
        config: the settings of the rating.
        seed: the seed of the rating.
        task: label loss and metric; None is that of the data.

    Returns:
        One weight per stage, 1 on average; ``blockwise/weights_HOW.csv`` has their details. They are computed
        once and kept in ``weights_HOW.json``: a different number of threads changes the last digits, and further
        trained archs change what is learned, but a search resumes with the weights that it started with. Delete
        the file to compute them again.

    Raises:
        SettingError: the run lacks the ratings or trained archs.
    """
    if how not in METHODS:
        raise SettingError("search.weights", how, ", ".join(METHODS), nearest(how, METHODS))
    run = run if isinstance(run, Run) else Run(run)
    runtime = runtime or Runtime()
    config = config or BlockwiseConfig()
    task = task or task_of(data)
    settings = config.record(*IRRELEVANT) | {"seed": seed}
    origin = {
        "tables": tables_hash(tables),
        "space": net.space.hash,
        "data": data.fingerprint,
        "teacher": teacher.fingerprint,
        "supernet": weights_hash(net),
    } | (settings if how == "sensitivity" else {})
    path = run.path / "blockwise" / f"weights_{how}.json"
    if path.exists():
        kept = read_json(path, ("origin", "weights"), delete=path)
        if kept["origin"] == origin:
            return [float(weight) for weight in kept["weights"]]
    if how == "sensitivity" and config.source == "average":
        expected = "learned or numbers with blockwise.source=average: such stages do not fit into the teacher"
        raise SettingError("search.weights", how, expected, "leave it out")
    if how == "learned":
        found = learned_weights(tables, net.space, *_trained(run, origin, task.measure))
        measure = measure_named(task.measure)
        error = f"{measure.factor * found.table['leave_one_out_error'].iloc[0]:.{measure.digits}f}{measure.points}"
        source = f"from {found.table['archs'].iloc[0]} trained archs, leave-one-out error {error}"
    else:
        model = Blockwise(net, teacher.bind(data).match(net.space, data.resolution), init=config.init, seed=seed)
        load_weights(model, run.path / "blockwise" / "adapters.safetensors")
        bench = Bench(
            net.space,
            data,
            runtime,
            teacher.to(runtime.device),
            net,
            model.to(runtime.device),
            calibration_images=config.calibration_images,
            seed=seed,
            task=task,
        )
        found = sensitivity_weights(bench, tables)
        source = f"from {found.table['candidates'].sum()} replaced stages"
    atomic_write(path.with_suffix(".csv"), found.table.to_csv(index=False))
    atomic_json(path, {"origin": origin, "weights": found.values})
    run.log_message(f"weights of the stages, {source}: {', '.join(f'{weight:.3g}' for weight in found.values)}")
    return found.values


def _trained(run: Run, origin: Mapping[str, object], metric: str) -> tuple[list[Arch], list[float]]:
    """Return the archs that a ranking in the run has trained with the same teacher, and their mean measures.

    They are of the select images, as a search does not use the test images, and signed so that higher is better.
    """
    archs, accuracies = (read_frame(run.path / "rank" / name) for name in ("archs.csv", "truth.csv"))
    if not len(archs) or not len(accuracies):
        expected = f"learned from archs trained in {run.path / 'rank'} (none are)"
        raise SettingError("search.weights", "learned", expected, "run `nas-kd rank` with the same settings first")
    plan = read_json(run.path / "rank" / "plan.json", ("space", "data", "teacher"))
    different = [name for name in ("space", "data", "teacher") if plan[name] != origin[name]]
    if different:
        expected = f"learned from a ranking with the {' and '.join(different)} of this search"
        raise SettingError(
            "search.weights", "learned", expected, "run `nas-kd rank` with them in this run, or use sensitivity"
        )
    measure = measure_named(metric)
    mean = as_accuracy(accuracies, measure).groupby("key")["select_accuracy"].mean()
    known = archs[archs["key"].isin(mean.index)].drop_duplicates("key")
    return [Arch.from_dict(parsed(text)) for text in known["arch"]], mean.loc[known["key"]].tolist()
