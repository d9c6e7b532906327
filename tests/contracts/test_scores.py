"""What every score of archs promises; a new one is held to it here, and ranks by being passed in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_ratings import SPACE

from nas_kd import rank
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.rate.scores import SCORES, Bench, Score, measure_scores
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher


def surest(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Return the mean entropy of a new network's answers: a score of this file alone."""
    found = []
    for arch in archs:
        torch.manual_seed(bench.seed)
        network = bench.space.build(arch, bench.data.num_classes, bench.data.in_chans).eval()
        with torch.no_grad():
            p = network(bench.rating_images).softmax(1)
        bench.used.student += len(bench.rating_images)
        found.append(float(-(p * p.log()).sum(1).mean()))
    return found


SUREST = Score("entropy of new networks", surest, higher=False)
ALL = SCORES | {"surest": SUREST}


@pytest.mark.parametrize("score", ALL.values(), ids=list(ALL))
def test_every_score_keeps_the_contract(
    score: Score, bench: Bench, archs: list[Arch], derived: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finite, reproducible, independent of order and company, without trace, and with its cost."""
    monkeypatch.setattr("nas_kd.rate.scores.predicted.MEASURED", 60)  # instead of 200
    if "units" in score.needs:
        bench = derived
        archs = [bench.space.sample(seed) for seed in range(len(archs))]
    assert bench.net is not None
    weights = [bench.net, *([bench.model] if bench.model is not None else [])]
    before = {name: value.clone() for part in weights for name, value in part.state_dict().items()}
    table = measure_scores([score], archs, bench)
    assert list(table["key"]) == [arch.key for arch in archs] and set(table["score"]) == {score.name}
    assert np.isfinite(table["value"]).all() and set(table["better"]) == {"higher" if score.higher else "lower"}
    assert np.array_equal(table["value"], measure_scores([score], archs, bench)["value"])
    assert (table[["teacher_forwards", "student_forwards"]] >= 0).all(axis=None) and (table["seconds"] > 0).all()
    asks = {"teacher", "blockwise"} & score.needs
    assert ((table["teacher_forwards"] > 0) == bool(asks)).all()
    company = score.name in ("normalised MSE after size", "supernet KL after size", "ranks of supernet KL and MSE")
    if "truth" not in score.needs and not company:  # residuals, ranks and folds depend on the other archs
        turned = measure_scores([score], archs[::-1], bench)["value"].to_numpy()[::-1]
        assert np.allclose(table["value"], turned, rtol=1e-5)
        alone = measure_scores([score], archs[:1], bench)["value"].iloc[0]
        assert alone == pytest.approx(table["value"].iloc[0], rel=1e-5)
    after = [item for part in weights for item in part.state_dict().items()]
    assert all(torch.equal(before[name], value) for name, value in after)
    signed = score.signed(table["value"].tolist())
    best = table["value"].idxmax() if score.higher else table["value"].idxmin()
    assert int(np.argmax(signed)) == best


@pytest.mark.parametrize("score", [score for score in SCORES.values() if score.needs], ids=lambda score: score.name)
def test_a_score_says_what_it_lacks(score: Score, data: Data, net: Supernet, runtime: Runtime) -> None:
    with pytest.raises(SettingError, match="teacher|supernet|blockwise|trained archs"):
        score.measure(Bench(net.space, data, runtime), [net.space.largest()])


def test_names_are_unique_and_controls_among_them() -> None:
    assert len({score.name for score in SCORES.values()}) == len(SCORES)
    sizes = {name for name, score in SCORES.items() if score.kind == "size"}
    assert sizes == {"macs", "params", "log_widths", "depth", "minus_depth", "minus_last_depth"}
    controls = {name for name, score in SCORES.items() if score.kind == "control"}
    assert controls == {"random", "gradient_norm", "size_alone", "code_alone"}
    assert {score.kind for score in SCORES.values()} == {"size", "control", "score"}


def test_every_forward_pass_is_counted(bench: Bench, archs: list[Arch]) -> None:
    table = measure_scores([SUREST], archs, bench)
    assert (table["student_forwards"] == len(bench.rating_images)).all() and (table["teacher_forwards"] == 0).all()


def test_replacing_a_unit_runs_all_that_comes_after_it(derived: Bench) -> None:
    arch = derived.space.largest()
    spent = {}
    for name in ("units_kl", "units_local"):
        table = measure_scores([SCORES[name]], [arch], derived)
        spent[name] = table["student_forwards"].iloc[0] / len(derived.rating_images)
    choices = [sum(1 for _ in stage.candidates()) for stage in derived.space.stages]
    count = len(choices)
    assert spent["units_local"] == pytest.approx(sum(choices) / count)
    assert spent["units_kl"] == pytest.approx(sum((count - i) * n for i, n in enumerate(choices)) / count)


def test_a_new_score_ranks_by_being_passed_in(net: Supernet, teacher: Teacher, data: Data, tmp_path: Path) -> None:
    found = rank(
        SPACE,
        teacher,
        data,
        run=tmp_path,
        scores=[SUREST, "macs", "minus_depth"],
        primary=SUREST.name,
        control="minus_depth",
        net=net,
        bands=[80_000],
        band=0.3,
        in_band=8,
        overall=0,
        epochs=1,
        batch_size=16,
        warmup_epochs=0.25,
        seeds=1,
        images=24,
        resamples=20,
    )
    row = found.summary.set_index("score").loc[SUREST.name]
    assert row["role"] == "primary" and -1 <= row["band_tau"] <= 1
    kept = found.scores[found.scores["score"] == SUREST.name]
    assert len(kept) == 8 and (kept["better"] == "lower").all()
