from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nas_kd.errors import SettingError
from nas_kd.ranking.figure import rank_figure
from nas_kd.ranking.summary import Ranked, joined, noise_table, summarise, verdict

GROUPS = ["band 1"] * 12 + ["band 2"] * 12 + ["all sizes"] * 8


def tables(seeds: int = 2, count: int = 32) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Archs whose accuracy is MACs over the bands and a quality inside them, which one score knows."""
    rng = np.random.default_rng(3)
    macs = np.concatenate([rng.uniform(95, 105, 12), rng.uniform(190, 210, 12), rng.uniform(50, 400, 8)])
    quality = rng.normal(size=32)
    accuracy = 0.5 + 0.05 * np.log(macs) + 0.01 * quality
    keys = [f"k{index}" for index in range(32)]
    archs = pd.DataFrame({"key": keys, "group": GROUPS, "macs": macs, "params": macs + 10 * rng.normal(size=32)})
    truth = pd.DataFrame(
        [
            {"key": keys[i], "seed": seed, "accuracy": accuracy[i] + 0.002 * rng.normal()}
            for seed in range(seeds)
            for i in range(count)
        ]
    )
    values = {
        "knows": (-quality, "lower", "score"),
        "noise": (rng.normal(size=32), "higher", "score"),
        "MACs": (macs, "higher", "size"),
        "parameters": (archs["params"], "higher", "size"),
    }
    scores = pd.DataFrame(
        [
            {
                "score": name,
                "key": key,
                "value": value,
                "better": better,
                "kind": kind,
                "needs": "blockwise" if kind == "score" else "",
                "teacher_forwards": 2.0,
                "student_forwards": 3.0,
                "seconds": 6.0,
                "cpu_seconds": 3.0,
            }
            for name, (column, better, kind) in values.items()
            for key, value in zip(keys, column, strict=True)
        ]
    )
    return archs, truth, scores


def judge(ranked: Ranked, **more: object) -> pd.DataFrame:
    return summarise(ranked, primary="knows", control="MACs", budgets=[105.0, 210.0, 500.0], resamples=800, **more)  # type: ignore[arg-type]


def test_the_summary_says_who_wins_where() -> None:
    ranked = joined(*tables())
    frame = judge(ranked, preparation={"blockwise": 5.0}).set_index("score")
    mean = ranked.accuracies.mean(1)
    for index, name in enumerate(ranked.names):
        row, score = frame.loc[name], ranked.scores[index]
        assert row["tau"] == pytest.approx(stats.kendalltau(score, mean).statistic)
        assert row["rho"] == pytest.approx(stats.spearmanr(score, mean).statistic)
        for band, cut in (("band 1", slice(0, 12)), ("band 2", slice(12, 24))):
            wanted = stats.kendalltau(score[cut], mean[cut]).statistic
            assert row[f"tau {band}"] == pytest.approx(wanted)
        # without ties the bands count by their pairs, which are as many in both
        assert row["band_tau"] == pytest.approx((row["tau band 1"] + row["tau band 2"]) / 2)
        assert row["tau_low"] <= row["tau"] <= row["tau_high"]
    assert frame.loc["MACs", "tau"] > frame.loc["knows", "tau"]  # over all sizes size wins
    assert frame.loc["knows", "band_tau"] > 0.8 > frame.loc["MACs", "band_tau"]
    assert frame.loc["knows", "minus_control_low"] > 0 and frame.loc["knows", "minus_size_low"] > 0
    assert frame.loc["knows", "partial_tau"] > frame.loc["knows", "tau"]
    assert frame.loc["noise", "minus_size_low"] < 0
    assert frame.index[0] == "knows"
    roles = {"knows": "primary", "noise": "exploratory", "MACs": "primary control", "parameters": "control"}
    assert frame["role"].to_dict() == roles
    assert math.isnan(frame.loc["MACs", "minus_control"]) and math.isnan(frame.loc["parameters", "minus_size"])
    gap = frame.loc["knows", "band_tau"] - frame.loc[["MACs", "parameters"], "band_tau"].max()
    assert frame.loc["knows", "minus_size"] == pytest.approx(gap)
    # one exploratory score: nothing to correct for
    assert frame.loc["noise", "minus_control_p_holm"] == frame.loc["noise", "minus_control_p"]
    assert frame.loc["knows", "cpu_minutes"] == pytest.approx(32 * 3.0 / 60)
    assert frame.loc["knows", "preparation_minutes"] == 5.0 and frame.loc["MACs", "preparation_minutes"] == 0.0
    best_in_reach = mean[ranked.archs["macs"] <= 210].max()
    chosen = ranked.archs[ranked.archs["macs"] <= 210]["macs"].idxmax()
    assert frame.loc["MACs", "regret budget 2 top 1"] == pytest.approx(100 * (best_in_reach - mean[chosen]))
    assert (frame["regret budget 3 top 10"] <= frame["regret budget 3 top 1"]).all()


def test_the_same_tables_give_the_same_summary_and_more_exploring_costs_significance() -> None:
    archs, truth, scores = tables()
    one = judge(joined(archs, truth, scores))
    pd.testing.assert_frame_equal(one, judge(joined(archs, truth, scores)))
    more = pd.concat([scores, *(scores[scores["score"] == "noise"].assign(score=f"noise {n}") for n in range(4))])
    two = judge(joined(archs, truth, more)).set_index("score")
    single = one.set_index("score")
    assert two.loc["noise", "minus_control_p"] == single.loc["noise", "minus_control_p"]
    wanted = min(1.0, 5 * single.loc["noise", "minus_control_p"])
    assert two.loc["noise", "minus_control_p_holm"] == pytest.approx(wanted)
    assert two.loc["knows", "minus_control_p_holm"] == two.loc["knows", "minus_control_p"]  # named in advance


def test_what_learns_from_trained_archs_must_beat_what_is_learned_from_sizes() -> None:
    archs, truth, scores = tables()
    mean = truth.groupby("key")["accuracy"].mean()
    own = scores[scores["score"] == "MACs"]
    sized = own.assign(score="on size", kind="control", needs="truth", value=mean[own["key"]].to_numpy())
    learner = own.assign(score="learner", kind="score", needs="blockwise truth", value=mean[own["key"]].to_numpy())
    frame = judge(joined(archs, truth, pd.concat([scores, sized, learner]))).set_index("score")
    alone = judge(joined(archs, truth, pd.concat([scores, learner]))).set_index("score")
    assert frame.loc["learner", "minus_size"] == 0 < alone.loc["learner", "minus_size"]
    assert frame.loc["learner", "minus_size_low"] == 0 < alone.loc["learner", "minus_size_low"]
    assert frame.loc["knows", "minus_size"] == alone.loc["knows", "minus_size"]  # it learns nothing
    paid = judge(joined(archs, truth, pd.concat([scores, learner])), preparation={"truth": 7.0, "blockwise": 1.0})
    assert paid.set_index("score").loc["learner", "preparation_minutes"] == 8.0


def test_a_size_that_does_not_vary_is_not_the_best_wherever_it_stands() -> None:
    archs, truth, scores = tables()
    wanted = judge(joined(archs, truth, scores)).set_index("score").loc["knows", "minus_size"]
    depth = scores[scores["score"] == "MACs"].assign(score="depth", value=3.0)
    for order in ([depth, scores], [scores, depth]):
        frame = judge(joined(archs, truth, pd.concat(order))).set_index("score")
        assert frame.loc["knows", "minus_size"] == wanted and math.isnan(frame.loc["depth", "band_tau"])


def test_a_score_that_is_nan_is_counted_and_never_best() -> None:
    archs, truth, scores = tables()
    best = truth.groupby("key")["accuracy"].mean().idxmax()
    scores.loc[(scores["score"] == "knows") & (scores["key"] == best), "value"] = math.nan
    ranked = joined(archs, truth, scores)
    frame = judge(ranked).set_index("score")
    assert frame.loc["knows", "archs"] == 31 and frame.loc["knows", "without_score"] == 1
    assert frame.loc["knows", "regret budget 3 top 10"] > 0
    noise = noise_table(ranked)
    assert any("knows has no finite value for 1 archs" in line for line in verdict(ranked, judge(ranked), noise))


def test_a_score_is_compared_on_the_archs_that_it_scores() -> None:
    """A score that is MACs, but for archs that it leaves out, is as good as MACs, whichever they are."""
    archs, truth, scores = tables()
    ranked = joined(archs, truth, scores)
    mean, macs = ranked.accuracies.mean(1), ranked.archs["macs"]
    wrong = (mean.argsort().argsort() - macs.rank()).abs().nlargest(10).index
    same = scores[scores["score"] == "MACs"].assign(score="same", kind="score")
    same.loc[same["key"].isin(ranked.archs["key"][wrong]), "value"] = math.nan
    frame = judge(joined(archs, truth, pd.concat([scores, same]))).set_index("score")
    assert frame.loc["same", "band_tau"] != pytest.approx(frame.loc["MACs", "band_tau"], abs=0.05)
    assert (frame.loc["same", ["minus_control", "minus_control_low", "minus_control_high"]] == 0).all()
    assert frame.loc["same", "minus_size"] <= 0


def test_noise_is_told_by_scope() -> None:
    archs, truth, scores = tables(seeds=4)
    noise = noise_table(joined(archs, truth, scores)).set_index("scope")
    assert list(noise.index) == ["all archs", "inside bands", "band 1", "band 2"]
    assert noise.loc["inside bands", "seed_sd"] == pytest.approx(0.2, abs=0.06)
    assert noise.loc["inside bands", "arch_sd"] == pytest.approx(1.0, abs=0.35)
    assert noise.loc["all archs", "arch_sd"] > 2 * noise.loc["inside bands", "arch_sd"]
    assert (noise["split_half"] > 0.6).all() and (noise["seeds"] == 4).all()


def test_a_truth_in_the_making_is_judged_by_what_is_there() -> None:
    archs, truth, scores = tables(seeds=1, count=9)
    ranked = joined(archs, truth, scores)
    assert len(ranked.archs) == 9 and ranked.bands == ["band 1"]
    frame, noise = judge(ranked), noise_table(ranked)
    assert frame["archs"].eq(9).all() and "tau band 2" not in frame
    said = verdict(ranked, frame, noise)
    assert said[0].startswith("Band 2 is left out: it has 0 trained archs")
    assert said[1].startswith("The ground truth has one seed")


def test_the_verdict_admits_defeat() -> None:
    archs, truth, scores = tables()
    ranked = joined(archs, truth, scores)
    frame = summarise(ranked, primary="noise", control="MACs", resamples=300)
    said = verdict(ranked, frame, noise_table(ranked))
    assert any("It does not beat the best size control" in line for line in said)
    won = verdict(ranked, judge(ranked), noise_table(ranked))
    assert any("It beats the best size control" in line for line in won)
    assert "(24 archs have two or more)" in won[0]
    sizes = summarise(ranked, primary="parameters", control="MACs", resamples=50)
    said = verdict(ranked, sizes, noise_table(ranked))
    assert not any("best size control" in line for line in said)  # it is one of them


def test_the_figure_is_whole_and_names_every_score() -> None:
    ranked = joined(*tables())
    frame = judge(ranked)
    picture = rank_figure(frame, noise_table(ranked))
    words = [element.text for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert set(frame["score"]) <= set(words) and "ceiling by seed noise" in words


def test_bad_tables_are_refused() -> None:
    archs, truth, scores = tables()
    with pytest.raises(SettingError, match="at least 8 trained archs"):
        joined(archs, truth[truth["key"].isin([f"k{i}" for i in range(7)])], scores)
    with pytest.raises(SettingError, match="at least 8 trained archs"):
        joined(archs, truth.head(0), scores)
    with pytest.raises(SettingError, match="another space, seed or sample"):
        joined(archs, truth.assign(key="other"), scores)
    with pytest.raises(SettingError, match="choose one of the scores"):
        summarise(joined(archs, truth, scores), primary="nobody", control="MACs")
