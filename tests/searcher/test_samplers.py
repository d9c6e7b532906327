"""Samplers that users bring: Optuna's own objects, seeded anew for every proposal."""

from __future__ import annotations

import optuna
import pytest
from toys import points

from nas_kd.searcher.optuna import refine

SIZES = [9, 12, 15]


def judge(point):
    return {"kl": sum((at - size / 3) ** 2 for at, size in zip(point, SIZES, strict=True))}


OBJECTS = {
    "tpe": lambda: optuna.samplers.TPESampler(multivariate=True, n_startup_trials=5),
    "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=6),
    "nsga3": lambda: optuna.samplers.NSGAIIISampler(population_size=6),
    "random": lambda: optuna.samplers.RandomSampler(seed=3),
    "partial": lambda: optuna.samplers.PartialFixedSampler({"i_1": 2}, optuna.samplers.RandomSampler()),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_any_sampler_object_gives_the_same_search_again_and_after_a_resume(name):
    rows = refine(SIZES, judge, trials=30, seed=4, sampler=OBJECTS[name]())
    given = OBJECTS[name]()
    again = refine(SIZES, judge, trials=30, seed=4, sampler=given)
    assert again == rows  # whatever the object's own seed and state
    assert refine(SIZES, judge, trials=30, seed=4, sampler=given) == rows  # and it is not used up
    assert refine(SIZES, judge, trials=30, seed=4, sampler=OBJECTS[name](), done=rows[:17]) == rows
    assert points(refine(SIZES, judge, trials=30, seed=5, sampler=OBJECTS[name]())) != points(rows)
    if name == "partial":
        assert all(row["i_1"] == 2 for row in rows if row["kind"] == "trial")


def test_a_sampler_object_does_as_the_same_sampler_by_name():
    named = refine(SIZES, judge, trials=30, seed=4, sampler="tpe")
    assert refine(SIZES, judge, trials=30, seed=4, sampler=optuna.samplers.TPESampler(multivariate=True)) == named
    named = refine(SIZES, judge, trials=30, seed=4, sampler="nsga2")
    assert refine(SIZES, judge, trials=30, seed=4, sampler=optuna.samplers.NSGAIISampler(population_size=20)) == named
