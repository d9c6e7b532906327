"""The Optuna engine: counts, resume, warm points, constraints, exhaustion, journal."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from itertools import product

import numpy as np
import optuna
import pandas as pd
import pytest
from toys import points

from nas_kd.errors import SettingError
from nas_kd.searcher.fill import unseen
from nas_kd.searcher.optuna import refine

SIZES = [9, 12, 15]


def kl(point):
    rng = np.random.default_rng(list(point))  # rough, so that samplers have something to look for
    return sum((i / n - 0.4) ** 2 for i, n in zip(point, SIZES, strict=True)) + 0.02 * rng.random()


class Judge:
    """Counts what was evaluated."""

    def __init__(self):
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, point):
        self.calls.append(point)
        return {"kl": kl(point), "accuracy": 1 - kl(point)}


def size(point):
    return {"macs": sum(point) - 18}


def evaluated(rows):
    return [row for row in rows if row["kind"] in ("warm", "trial", "random")]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_counts_distinct_feasible_evaluations(sampler):
    judge, seen = Judge(), []
    rows = refine(SIZES, judge, constraints=size, trials=50, seed=3, sampler=sampler, record=seen.append)
    assert rows == seen and [row["number"] for row in rows] == list(range(len(rows)))
    assert len(judge.calls) == len(set(judge.calls)) == len(evaluated(rows)) == 50
    assert all(sum(point) <= 18 for point in judge.calls)
    known = {point: row["kl"] for point, row in zip(points(evaluated(rows)), evaluated(rows), strict=True)}
    for point, row in zip(points(rows), rows, strict=True):
        if row["kind"] == "infeasible":
            assert not row["feasible"] and "kl" not in row and sum(point) > 18
        else:
            assert row["feasible"] and row["kl"] == known[point]
            assert row["kind"] == "duplicate" or row["accuracy"] == 1 - row["kl"]


@pytest.mark.parametrize("objective", ["kl", ("kl", "accuracy")])
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", optuna.samplers.NSGAIIISampler])
def test_a_resumed_search_is_the_same_search(tmp_path, sampler, objective):
    make = sampler if isinstance(sampler, str) else lambda seed: sampler(seed=seed, population_size=8)
    trials = 60 if objective == "kl" else 40
    keywords = dict(constraints=size, objective=objective, warm=[(4, 5, 6), (1, 1, 1)], seed=11, sampler=make)
    straight = refine(SIZES, Judge(), trials=trials, **keywords)
    for cut in (1, 25, len(straight) // 2, len(straight) - 1):
        pd.DataFrame(straight[:cut]).to_csv(tmp_path / "trials.csv", index=False)  # only the rows are left
        with (tmp_path / "trials.csv").open() as file:
            done = list(csv.DictReader(file))
        judge = Judge()
        resumed = refine(SIZES, judge, trials=trials, done=done, **keywords)
        assert resumed[cut:] == straight[cut:]
        assert judge.calls == points(evaluated(straight[cut:]))


def test_the_seed_changes_the_search():
    first, again, other = (points(refine(SIZES, Judge(), trials=20, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_another_process_draws_the_same_points():
    code = (
        "from nas_kd.searcher.optuna import refine\n"
        "rows = refine([9, 12, 15], lambda p: {'kl': sum(p) % 7 / 7}, trials=25, seed=5)\n"
        "print([(r['i_1'], r['i_2'], r['i_3']) for r in rows])"
    )
    here = points(refine(SIZES, lambda p: {"kl": sum(p) % 7 / 7}, trials=25, seed=5))
    env = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert there.stdout.strip() == str(here)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_warm_points_come_first_and_become_parents(tmp_path, sampler):
    warm = [(i % 9, (5 * i) % 12, (7 * i) % 15) for i in range(24)]
    journal = tmp_path / "study.journal"
    rows = refine(SIZES, Judge(), warm=[*warm, warm[0]], trials=40, sampler=sampler, journal=journal)
    assert points(rows[:24]) == warm and {row["kind"] for row in rows[:24]} == {"warm"}
    trials = stored(journal).get_trials()
    if sampler == "nsga2":
        key = optuna.samplers.NSGAIISampler._get_generation_key()
        assert [trial.system_attrs[key] for trial in trials[:24]] == [0] * 20 + [1] * 4
        # the first free proposal is a child of warm points: nearly all its values come from them
        child = [trials[24].params[f"i_{i}"] for i in (1, 2, 3)]
        assert sum(value in {p[i] for p in warm[:20]} for i, value in enumerate(child)) >= 2


def test_infeasible_warm_points_are_told_but_not_evaluated():
    judge = Judge()
    rows = refine(SIZES, judge, constraints=size, warm=[(8, 11, 14)], trials=3)
    assert rows[0]["kind"] == "infeasible" and (8, 11, 14) not in judge.calls
    assert len(evaluated(rows)) == 3


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_an_exhausted_space_ends_with_every_feasible_point(sampler):
    judge = Judge()
    rows = refine([3, 1, 4], judge, constraints=lambda p: {"macs": sum(p) - 3}, trials=999, sampler=sampler)
    assert set(judge.calls) == {p for p in product(range(3), range(1), range(4)) if sum(p) <= 3}
    assert len(judge.calls) == len(set(judge.calls)) and len(rows) < 300
    rows = refine([3, 4], judge, constraints=lambda p: {"macs": 1.0}, trials=5, sampler=sampler)
    assert not any(row["feasible"] for row in rows)


def test_a_needle_in_a_large_space_is_reached_from_its_neighbours():
    sizes = [300, 300, 300]

    def narrow(point):  # 5 x 300 of 2.7e7 points
        return abs(point[0] - 7) + abs(point[1] - 9) <= 1

    seen = {(7, 9, 0)}
    for number in range(40):
        point = unseen(sizes, lambda p: p not in seen and narrow(p), sorted(seen), 0, number)
        assert point is not None and point not in seen and narrow(point)
        seen.add(point)
    assert unseen(sizes, lambda p: False, [], 0, 0) is None


def test_search_finds_a_better_point_than_random_draws():
    best = min(kl(p) for p in product(*map(range, SIZES)))

    def found_by(sampler):
        searches = [refine(SIZES, Judge(), trials=60, seed=seed, sampler=sampler) for seed in range(3)]
        return np.mean([min(row["kl"] for row in rows) for rows in searches])

    found = {sampler: found_by(sampler) for sampler in ("tpe", "nsga2", "random")}
    assert best <= found["tpe"] < found["random"] and found["nsga2"] < found["random"]


def test_nan_scores_count_once_and_do_not_stop_the_search():
    calls = []

    def broken(point):
        calls.append(point)
        return {"kl": math.nan if point[0] % 2 else float(sum(point))}

    rows = refine([4, 5], broken, trials=20, sampler="random")
    assert len(calls) == len(set(calls)) == 20 and any(math.isnan(row["kl"]) for row in rows)
    resumed = refine([4, 5], broken, trials=20, sampler="random", done=rows[:9])
    assert points_2(resumed) == points_2(rows)


def points_2(rows):
    return [(row["kind"], row["i_1"], row["i_2"]) for row in rows]


def stored(journal) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    return optuna.load_study(study_name="nas_kd", storage=optuna.storages.JournalStorage(backend))


def test_the_journal_holds_every_trial_once(tmp_path):
    journal = tmp_path / "study.journal"
    rows = refine(SIZES, Judge(), constraints=size, trials=30, journal=journal)
    assert [t.number for t in stored(journal).get_trials()] == list(range(len(rows)))
    rows = refine(SIZES, Judge(), constraints=size, trials=45, journal=journal, done=rows)
    trials = stored(journal).get_trials()
    assert len(trials) == len(rows)
    for trial, row in zip(trials, rows, strict=True):
        assert trial.params == {f"i_{i}": row[f"i_{i}"] for i in (1, 2, 3)}
        assert (trial.constraints["macs"] <= 0) == row["feasible"]
        assert trial.value == row.get("kl", math.inf)
    best = min(evaluated(rows), key=lambda row: row["kl"])
    assert stored(journal).best_trial.value == best["kl"]


NAMED = dict(zip(("stage1.depth", "stage1.width", "stage2.depth"), SIZES, strict=True))


def test_the_journal_has_names_that_people_read(tmp_path):
    """Nothing else changes: samplers go by i_1, i_2 ..., so the same points are proposed."""
    journal = tmp_path / "study.journal"
    plain = refine(SIZES, Judge(), constraints=size, trials=30)
    rows = refine(NAMED, Judge(), constraints=size, trials=20, journal=journal)
    rows = refine(NAMED, Judge(), constraints=size, trials=30, journal=journal, done=rows)
    assert rows == plain
    trials = stored(journal).get_trials()
    assert len(trials) == len(rows)
    for trial, row in zip(trials, rows, strict=True):
        assert trial.params == {name: row[f"i_{place}"] for place, name in enumerate(NAMED, 1)}
        assert {name: kind.high for name, kind in trial.distributions.items()} == {n: s - 1 for n, s in NAMED.items()}


@pytest.mark.parametrize("damage", ["torn", "nonsense", "missing"])
def test_a_damaged_journal_is_written_again(tmp_path, damage):
    journal = tmp_path / "study.journal"
    rows = refine(SIZES, Judge(), trials=20, journal=journal)
    text = journal.read_bytes()
    {
        "torn": lambda: journal.write_bytes(text[:-20]),
        "nonsense": lambda: journal.write_bytes(text[:400] + b"\n" + text[400:]),
        "missing": journal.unlink,
    }[damage]()
    rows = refine(SIZES, Judge(), trials=30, journal=journal, done=rows)
    assert [t.value for t in stored(journal).get_trials()] == [row["kl"] for row in rows]


def test_optuna_stays_quiet_and_keeps_its_verbosity(capfd, recwarn):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    refine([5, 5], lambda p: {"kl": float(sum(p))}, trials=15)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capfd.readouterr() == ("", "") and not recwarn.list


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sizes": [3, 0]}, "sizes"),
        ({"sizes": []}, "sizes"),
        ({"trials": 0}, "trials"),
        ({"sampler": "nsga3"}, "sampler"),
        ({"sampler": None}, "sampler"),
        ({"sampler": object()}, "sampler"),
        ({"warm": [(1, 1, 1)]}, "warm"),
        ({"warm": [(1, 9)]}, "warm"),
        ({"objective": "loss"}, "objective"),
        ({"done": [{"number": 3, "kind": "trial", "i_1": 0, "i_2": 0, "kl": 1.0}]}, "done"),
        ({"done": [{"number": 0, "kind": "trial"}]}, "done"),
    ],
)
def test_bad_settings_are_refused(change, field):
    keywords = {"sizes": [3, 4], "evaluate": lambda p: {"kl": 0.0}, "trials": 3} | change
    with pytest.raises(SettingError) as caught:
        refine(**keywords)
    assert caught.value.field == field


# ---- variables: several points a subnet, two objectives ---------------------------------------------------


def half(point):
    """Points that differ in the last place by one from an even number are the same subnet."""
    return (*point[:-1], point[-1] - point[-1] % 2)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_points_of_the_same_subnet_are_evaluated_once(sampler):
    judge = Judge()
    keywords = dict(canonical=half, warm=[(1, 1, 2), (1, 1, 3)], seed=2, sampler=sampler)
    rows = refine([3, 4, 6], judge, trials=999, **keywords)
    assert sorted(map(half, judge.calls)) == sorted(product(range(3), range(4), range(0, 6, 2)))
    known = {half(point): row["kl"] for point, row in zip(points(evaluated(rows)), evaluated(rows), strict=True)}
    assert all(row["kl"] == known[half(point)] for point, row in zip(points(rows), rows, strict=True))
    again = refine([3, 4, 6], Judge(), trials=999, done=rows[:20], **keywords)
    assert again == rows


def test_warm_points_of_two_objectives_enter_generation_0(tmp_path):
    warm, journal = [(i % 4, i // 4, 2) for i in range(20)], tmp_path / "study.journal"
    objective = dict(objective=("accuracy", "kl"), maximise=("accuracy",))
    refine(SIZES, Judge(), warm=warm, trials=60, sampler="nsga2", canonical=half, journal=journal, **objective)
    trials = stored(journal).get_trials()
    key = optuna.samplers.NSGAIISampler._get_generation_key()
    assert [trial.system_attrs[key] for trial in trials[:20]] == [0] * 20
    children = [[trial.params[f"i_{i}"] for i in (1, 2, 3)] for trial in trials[20:40]]
    inherited = [child[0] < 4 and child[1] < 5 and child[2] == 2 for child in children]
    # a child changes one value in three; of random points one in 80 looks like the warm ones
    assert np.mean(inherited) > 0.25


def test_maximised_and_minimised_objectives_part_ways():
    def judge(point):
        return {"gain": float(sum(point)), "loss": float(point[0])}

    keywords = dict(trials=120, seed=1, sampler="nsga2")
    rows = refine([20, 20, 20], judge, objective=("gain", "loss"), maximise=("gain",), **keywords)
    late = rows[len(rows) // 2 :]
    assert np.mean([sum(p[1:]) for p in points(late)]) > 24 > np.mean([sum(p[1:]) for p in points(rows[:20])])
    assert np.mean([p[0] for p in points(late)]) < 12
    with pytest.raises(SettingError, match="maximise"):
        refine([3, 3], judge, trials=2, objective="gain", maximise=("loss",))
