"""`search`: from a supernet, with or without a teacher's ratings, to one architecture within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_kd.config.keywords import takes
from nas_kd.config.kinds import checked
from nas_kd.data import Data
from nas_kd.distill import Task, task_of
from nas_kd.errors import SettingError
from nas_kd.rate.subnet import SubnetScorer
from nas_kd.runs.log import timed
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import alone
from nas_kd.searcher.begin import first_archs, passed_over, read_archs
from nas_kd.searcher.budget import Budget, cost_settings, lower_bounds, upper_bounds
from nas_kd.searcher.config import GROWS, SearchConfig, SearchSettings
from nas_kd.searcher.engines import ENGINES
from nas_kd.searcher.evaluation import Evaluation, Guide
from nas_kd.searcher.finalists import choose_finalists, controls, short_training
from nas_kd.searcher.further import further_scores, need_images, need_network
from nas_kd.searcher.gated import check_gates
from nas_kd.searcher.group import worker_group
from nas_kd.searcher.infeasible import no_feasible_arch
from nas_kd.searcher.latencies import by_ratings, with_latency
from nas_kd.searcher.latency_table import read_latency_table
from nas_kd.searcher.objectives import checked_objectives, named_objectives
from nas_kd.searcher.ratings import usable_ratings
from nas_kd.searcher.record import checked_engine, keep_result, search_facts, short_settings, winner_of
from nas_kd.searcher.result import SearchResult, load_search
from nas_kd.searcher.trials import evaluated, with_further
from nas_kd.searcher.tuned import measured
from nas_kd.searcher.tuned import tuned as tuned_subnets
from nas_kd.solve import best, exact_front
from nas_kd.supernet import Supernet
from nas_kd.teacher.sources import TeacherLike, as_targets
from nas_kd.train.config import RetrainConfig, RetrainSettings
from nas_kd.train.many import TrainingSetup, check_rebuilt
from nas_kd.train.retrain import checked_method

if TYPE_CHECKING:
    from typing_extensions import Unpack

LEARNED = ("space", "data", "seed", "precision", "teacher", "search.caps", "search.floors")  # what gates depend on


@takes(SearchConfig)
@checked
@alone
def search(
    net: Supernet,
    teacher: TeacherLike = None,
    data: Data | None = None,
    tables: Sequence[pd.DataFrame] | None = None,
    config: SearchConfig | None = None,
    *,
    run: Run | str | Path | None = None,
    folder: str = "search",
    task: Task | None = None,
    training: RetrainConfig | RetrainSettings | None = None,
    workers: int = 1,
    worker: bool = False,
    seed: int = 0,
    runtime: Runtime | None = None,
    inputs: Mapping[str, Any] | None = None,
    **settings: Unpack[SearchSettings],
) -> SearchResult:
    """Find the architecture within a budget that is best when distilled from the teacher, or best without one.

    ``exact``: the stage scores are searched exactly for every budget at once; Optuna then refines with scores
    of whole subnets (KL to the teacher on the rating split, after calibration), and the best of them are tuned
    for an epoch from the supernet's weights and measured again. ``gates`` does so from the arch that L1-gated channels
    and units of the teacher come to, where it is the space; ``reinforce`` lets a recurrent controller write archs,
    ``predictor`` learns from those that were measured. With ``tuned_kl`` or ``tuned_accuracy`` among the objectives
    every arch is tuned; ``p_tg`` is TG-SAGE's. ``nsga2``, ``coarse`` and ``random`` need neither teacher nor tables:
    they vary archs dimension by dimension and use the accuracy of whole subnets on the rating split and MACs. Finally,
    the best few and controls (the largest by MACs, the largest by params and a random arch) are trained briefly from
    the supernet's weights, the better half again for longer, and compared on the select split. Without a teacher they
    learn from labels.

    Args:
        net: the in-place distilled supernet.
        teacher: one teacher, or None.
        data: the data; ``test`` is not read.
        tables: one rating table per stage, of ``rate_blockwise``; for ``exact``.
        config: the settings; keywords replace in it. ``engine`` may be a custom `Engine`, ``sampler`` any
            Optuna sampler; `nas_kd.stage_weights` finds stage weights.
        folder: stage folder in the run.
        task: label loss, metric and agreement; None is that of the data.
        training: method and further settings of the short trainings, as for ``retrain`` from new weights but for
            their length; their learning rate is lowered. The default method is that of ``retrain``.
        workers: processes for the short trainings.
        worker: join a running search of this run, or of the database, and share its trials. The best-scored
            arch is returned when these are done; the process that started the search trains and decides.
        seed: seed of proposals and of the short training.
        inputs: more facts that determine the result, for the run's record.

    Returns:
        The best arch, its space and all results as frames.

    Raises:
        SettingError: the budget cannot be parsed or is infeasible, the engine lacks its teacher or tables, or the
            run was made with other settings.
    """
    if data is None:
        raise SettingError("data", None, "a Data", "pass data=nas_kd.load_data(...)")
    source = as_targets(teacher)
    config = SearchConfig.of(config, settings)
    engine = checked_engine(config.engine, source, tables)
    weights = config.weights
    if isinstance(weights, str):
        expected = "one number per stage, or null"
        raise SettingError("search.weights", weights, expected, f"pass weights=nas_kd.stage_weights({weights!r}, ...)")
    if config.steps > 1:
        hint = "search in nas_kd.cut_in_steps(net, teacher, data, ...), with the budget in numbers"
        raise SettingError("search.steps", config.steps, "1: what comes before the last step is no search", hint)
    retraining = training if isinstance(training, RetrainConfig) else RetrainConfig(**(training or {}))
    inherited = net.space.pretrained
    retraining = retraining.settled(
        taught=source is not None,
        inherited=inherited,
        texts=data.tokens is not None,
    )
    method = retraining.method
    assert method is not None  # `settled` sets it
    own_task = {} if task is None else {f"search.{name}": value for name, value in task.facts.items()}
    task = task or task_of(data)
    goals = checked_objectives(config.objectives, config.engine or engine.name, task.measure)
    objectives = named_objectives(goals, task.measure)
    need_images(goals, data)
    need_network(goals, source)
    recipe = checked_method(method, task, data.num_classes, retraining.method_settings).recipe
    if source is None and recipe.needs_teacher:
        raise SettingError("training.method", method, "ce, as there is no teacher", "pass teacher=, or omit it")
    space = net.space
    runtime = runtime or Runtime()
    run = Run.of(run)
    stored = None if source is None else source.cached(data, run)
    whole = None if source is None or net.space.pretrained else source.cost  # a teacher's space has it as its largest
    upper = upper_bounds(space, data, config.max_macs, config.max_params, whole, config.larger)
    lower = lower_bounds(space, data, upper, config.min_macs, config.min_params, whole)
    latency = config.max_latency_ms
    first = [] if config.first is None else read_archs(config.first, space)
    timing = None if config.latency_table is None else read_latency_table(config.latency_table)
    own_cost = cost_settings(space, data)
    timed_by = config.latency_runtime
    budget = Budget(space, own_cost, upper, latency, runtime.device, run, lower, timing, timed_by)
    if engine.name == "gates":
        check_gates(net, source, budget)
    if budget.listed and (not engine.shared or config.variables == "candidates"):
        alone = ", ".join(name for name, kind in ENGINES.items() if not kind.shared)
        expected = f"a table of units, which {alone}, engines of your own and search.variables=candidates need"
        raise SettingError("search.latency_table", config.latency_table, expected, "use search.engine=exact or nsga2")
    if engine.guided and source is not None:
        tables = usable_ratings(tables or (), space, data, source.fingerprint, weights, run)
    else:
        tables = []
    if config.tuned or config.epochs:
        check_rebuilt(space, data, run)
    within = bool(budget.sums and engine.guided)
    if within:
        try:
            best(
                budget.timed(tables, data.resolution), bounds=budget.sums
            )  # raises now when no rated chain is within the budget
        except SettingError:
            if not space.resolutions:  # smaller images, which were not rated, may be within it
                raise
            within = False
    stage = None
    group = None
    facts: dict[str, Any] = {}
    if run is not None:
        facts = search_facts(
            config,
            engine.name,
            goals,
            budget,
            net=net,
            source=source,
            data=data,
            tables=tables,
            training=retraining,
            seed=seed,
            precision=runtime.precision,
        )
        facts |= own_task | dict(inputs or {})
        if first:
            facts["search.first"] = [arch.key for arch in first]
        group = worker_group(run, run.path / folder, facts, engine, config.storage, worker)
        stage = None if worker else run.stage(folder, facts, [f"search.{name}" for name in GROWS])
        if stage is not None and stage.done:
            return load_search(stage, space)
    scorer = SubnetScorer(
        net,
        data,
        None if stored is None else stored.split_logits("rate", data),
        task=task,
        calibration_images=config.calibration_images,
        rate_images=config.rate_images,
        runtime=runtime,
    )
    exact = pd.DataFrame()
    guide = None
    trials = config.trials
    extra = {} if worker else controls(budget, seed)
    if engine.guided:
        exact = exact_front(tables, budget="macs")
        if stage is not None:
            stage.write_frame("front.csv", exact)
        if timing is not None:
            tables = budget.timed(tables, data.resolution)
        elif latency is not None and not space.pretrained:  # units of a teacher do not run by themselves
            tables = with_latency(tables, budget, data.resolution, seed)
        begin = first_archs(
            engine.name,
            net,
            source,
            data,
            tables,
            budget,
            config,
            within=within,
            task=task,
            run=run,
            folder=folder,
            facts={name: facts[name] for name in LEARNED if name in facts},
            seed=seed,
            runtime=runtime,
        )
        if begin and stage is not None and config.variables == "dimensions":
            trials = with_further(stage, begin, trials)
        if budget.listed:
            begin = by_ratings(budget.listed, space, tables)
        guide = Guide(tables, exact, data.resolution, config.sampler, config.variables, begin)
    setup = TrainingSetup(stored, data, space, run, runtime, net, task)
    measured_too = further_scores(
        goals, scorer, setup, source, calibration_images=config.calibration_images, seed=seed, folder=folder
    )
    evaluation = Evaluation(
        budget,
        measured_too.scorer,
        objectives,
        trials,
        seed,
        controls=extra,
        guide=guide,
        stage=stage,
        group=group,
        metric=task.measure,
        further=measured_too.columns,
        begin=first,
    )
    with timed(None if worker else run, folder, "scoring"):
        log = engine.search(evaluation)
    rows = log.frame()
    archs = log.archs
    scored = evaluated(rows)
    if scored.empty:
        raise no_feasible_arch(budget)
    if run is not None and not worker and (said := passed_over(first, {*scored["key"]}, budget, engine.name)):
        run.log_message(said)
    better = measured(rows)
    if config.tuned and better is None and stored is not None and engine.guided and not worker:
        better = tuned_subnets(rows, archs, setup, count=config.tuned, seed=seed, folder=folder, workers=workers)
        if stage is not None:
            stage.write_frame("tuned.csv", better)
    finalists = choose_finalists(
        rows.drop(columns="tuned_kl", errors="ignore"), config.top, engine.guided, better, task.measure
    )
    if config.epochs and not worker:
        finalists = short_training(
            finalists,
            archs,
            replace(setup, teacher=source) if recipe.runs_teacher else setup,
            epochs=config.epochs,
            rounds=config.rounds,
            method=method,
            seed=seed,
            folder=folder,
            workers=workers,
            training=short_settings(retraining),
        )
    winner = archs[winner_of(finalists, engine.guided, task.measure)]
    result = SearchResult(winner, space, upper, rows, finalists, exact, engine.name, objectives)
    if stage is not None:
        keep_result(stage, result, budget, taught=source is not None)
        return load_search(stage, space)
    return result
