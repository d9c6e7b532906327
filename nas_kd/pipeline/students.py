"""The final comparison: the found student, random ones of its size and the largest ones, each over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_kd.analyse.choice import FILE, decision, few_images, verdict
from nas_kd.analyse.measure import as_measure
from nas_kd.analyse.table import budget_words, final_table, runs_of
from nas_kd.config.measures import measure_named
from nas_kd.export.student import note_budget
from nas_kd.pipeline.candidates import ArchStudent, Student
from nas_kd.pipeline.ready_made import is_tree
from nas_kd.pipeline.results_table import results_table
from nas_kd.pipeline.rivals import repaired, rivals
from nas_kd.runs.files import atomic_json, atomic_write, read_frame
from nas_kd.runs.progress import Progress
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.finalists import controls
from nas_kd.space import Arch
from nas_kd.space.rows import stage_scores
from nas_kd.train.many import TrainingSetup, train_many

if TYPE_CHECKING:
    from nas_kd.pipeline.pipeline import Pipeline

DRAWS = 20_000
UNREPAIRED = ("even_width", "even_depth", "even_both", "taylor")


def choose_students(pipeline: Pipeline) -> list[ArchStudent]:
    """Choose whom the found student is compared with in its space, from costs and seeds alone.

    Args:
        pipeline: the run, searched.

    Returns:
        The found one, random ones and the largest. The random students have the found one's MACs up to
        ``retrain.band``, keep the budget and differ from each other and from the found one; there are fewer where
        hardly any arch is that size.
    """
    settings = pipeline.config.retrain
    space = pipeline.space
    found = pipeline.result.best
    macs = space.cost(found, **pipeline.cost).macs
    archs: dict[str, Arch] = {"found": found}
    for draw in range(DRAWS):
        if len(archs) == settings.random_students + 1:
            break
        arch = space.sample(seed_for(pipeline.config.seed, "random student", draw))
        close = abs(space.cost(arch, **pipeline.cost).macs - macs) <= settings.band * macs
        if close and arch not in archs.values() and pipeline.budget.fits(arch):
            archs[f"random_{len(archs)}"] = arch
    else:
        near = f"within {100 * settings.band:g} % of the found student's {macs:,} MACs"
        pipeline.run.log_message(
            f"only {len(archs) - 1} of {settings.random_students} random students: few archs are {near}"
        )
    largest = controls(pipeline.budget, pipeline.config.seed)
    archs |= {role: largest[role] for role in ("largest_macs", "largest_params")}
    net = None if pipeline.config.init == "scratch" else pipeline.supernet
    return [ArchStudent(role, arch, space, space.cost(arch, **pipeline.cost), net) for role, arch in archs.items()]


def students_table(pipeline: Pipeline, students: Sequence[Student]) -> pd.DataFrame:
    """Describe students before they are retrained.

    Args:
        pipeline: the run, searched.
        students: those of its space have scores.

    Returns:
        One row a student: role, key, label, macs, params and the scores from before retraining.
    """
    guided = pipeline.config.guided
    stages = stage_scores(pipeline.space, pipeline.tables) if guided else lambda arch: [float("nan")]
    scorer = pipeline.scorer
    rows = []
    for student in students:
        row: dict[str, Any] = {
            "role": student.role,
            "key": student.key,
            "label": student.label,
        } | student.cost._asdict()
        if isinstance(student, ArchStudent) and student.space == pipeline.space and not student.suffix:
            row |= {"score": sum(stages(student.arch))} | scorer(student.arch)  # did they foretell it?
        rows.append(row)
    return pd.DataFrame(rows)


def retrain_students(pipeline: Pipeline) -> pd.DataFrame:
    """Retrain every student from every seed and measure each once on the test images.

    Args:
        pipeline: the run, searched.

    Returns:
        ``retrain/results.csv``: one row a role and seed.
    """
    settings = pipeline.config.retrain
    run = pipeline.run
    folder = pipeline.search_folder
    setup = TrainingSetup(pipeline.teaching, pipeline.data, pipeline.space, run, pipeline.runtime, task=pipeline.task)
    asked = pipeline.recipe.needs_teacher or any(map(is_tree, settings.rivals or ()))
    setup.prefill_teacher(settings.epochs if asked else 0, test=True)
    chosen: list[Student] = [repaired(pipeline, student) for student in choose_students(pipeline)]
    chosen += rivals(pipeline, setup)
    students = students_table(pipeline, chosen)
    below = f"/{pipeline.other_method}" if pipeline.other_method else ""
    students["trained_in"] = "retrain/" + students["key"] + below
    atomic_write(run.path / folder / "students.csv", students.to_csv(index=False))
    kept = dict(zip(students["key"], students["trained_in"], strict=True))
    folders = {(key, seed): f"{kept[key]}/seed_{seed}" for key in kept for seed in range(settings.seeds)}
    by_key = {student.key: student for student in reversed(chosen)}
    pairs = [(key, seed) for seed in range(settings.seeds) for key in dict.fromkeys(students["key"])]
    how: dict[str, Any] = {
        "method": pipeline.method,
        "method_settings": settings.method_settings,
        "epochs": settings.epochs,
    }
    how |= pipeline.training
    trainings = [by_key[key].training(setup, seed, folders[key, seed], how) for key, seed in pairs]
    with Progress("retrain", len(trainings), unit="students", run=run) as progress:
        found = train_many(trainings, progress, workers=setup.processes(pipeline.config.workers))
        metrics = dict(zip(pairs, found, strict=True))
    for trained in folders.values():
        note_budget(run.path / trained / "student", _bounds(pipeline))
    rows = [
        {"search": folder, "role": role, "key": key, "seed": seed, "macs": macs, "params": params}
        | metrics[key, seed]
        | {"folder": f"{folders[key, seed]}/student"}
        for role, key, macs, params in zip(*(students[c] for c in ("role", "key", "macs", "params")), strict=True)
        for seed in range(settings.seeds)
    ]
    results = pd.DataFrame(rows)
    earlier = read_frame(run.path / "retrain" / "results.csv")
    if len(earlier):  # of other budgets, engines and methods
        parts = [earlier[earlier["search"] == name] for name in dict.fromkeys(earlier["search"]) if name != folder]
        place = list(dict.fromkeys([*earlier["search"], folder])).index(folder)
        results = pd.concat([*parts[:place], results, *parts[place:]], ignore_index=True)
    atomic_write(run.path / "retrain" / "results.csv", results.to_csv(index=False))
    decided = decision(run.path, runs_of(run, folder))
    measure = measure_named(pipeline.task.measure)
    atomic_write(run.path / folder / FILE, as_measure(decided, measure).to_csv(index=False))
    run.log_message(pipeline.data.spoken(verdict(decided, measure)))
    _measure_teacher(pipeline)
    return results


def _bounds(pipeline: Pipeline) -> str:
    """Word the budget, for the students' cards."""
    sought = pipeline.config.search
    bounds: dict[str, Any] = {"budget": pipeline.upper, "at_least": pipeline.lower}
    bounds |= {"max_latency_ms": sought.max_latency_ms, "latency_runtime": sought.latency_runtime}
    return budget_words(bounds)


def _measure_teacher(pipeline: Pipeline) -> None:
    path = pipeline.run.path / "retrain" / "teacher.json"
    if path.exists() or not pipeline.taught:
        return
    logits = pipeline.cache.split_logits("test", pipeline.data)
    assert logits is not None  # a Teacher and a ViewCache always give them
    measures = pipeline.task.measures(logits, pipeline.data.test.labels)
    teacher = pipeline.teacher
    row = {"name": teacher.name, "macs": teacher.macs, "params": teacher.params}
    measures |= {"collapsed": float(pipeline.task.collapsed(logits, pipeline.data.test.labels))}
    atomic_json(path, row | {f"test_{name}": value for name, value in measures.items()})


def print_table(pipeline: Pipeline) -> None:
    """Print the table of results, and where the students and the report lie."""
    from rich.console import Console

    frame = final_table(pipeline.run.path, pipeline.search_folder)
    measure = measure_named(pipeline.task.measure)
    gone = frame.set_index("role")["collapsed"].dropna().loc[lambda counts: counts > 0].to_dict()
    console = Console(markup=False, highlight=False)  # names may hold brackets
    data = pipeline.data
    console.print(f"{pipeline.config.data.train}: {data.spoken('test images')}, mean and spread over retraining seeds")
    for line in results_table(frame, measure, console.width):
        console.print(line, soft_wrap=True)
    given = "= cannot be told apart from it on these test images (95 % interval over images and seeds holds 0)"
    console.print(data.spoken(f"< handed over; {given}"))
    if pipeline.config.init == "inherited" and pipeline.config.repair.any and {*UNREPAIRED} & {*frame["role"]}:
        console.print(
            "found, random and largest were repaired; new_weights, even cuts, taylor and small_images were not"
            " (--retrain.rivals '[even_both_repaired]' adds an even cut that was)",
        )
    if gone:
        meaning = "the same answer for all test images, or none better than chance"
        seeds = frame.set_index("role")["seeds"]
        each = ", ".join(f"{role} ({count} of {seeds[role]})" for role, count in gone.items())
        console.print(f"! collapsed, {data.spoken(meaning)}: {each}")
    if few := few_images(len(data.select), measure):
        console.print(data.spoken(few))
    student = frame.loc[frame["handed_over"], "folder"].iloc[0]
    console.print(f"run:     {pipeline.run.path}", soft_wrap=True)
    console.print(f"student: {pipeline.run.path / student}", soft_wrap=True)
    page = pipeline.run.path / "report" / "report.html"
    console.print(f"report:  {page if page.exists() else f'nas-kd report {pipeline.run.path}'}", soft_wrap=True)
