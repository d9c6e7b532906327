"""The scripts beside the rankings: a longer schedule, two teachers, the last word."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nas_kd.analyse.tau import pairs_within, tau_b
from nas_kd.errors import SettingError

FOLDER = Path(__file__).parents[2] / "experiments" / "rank"


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(f"rank_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    script(name).main()


def truth(quality: np.ndarray, seeds: int, noise: float, rng: np.random.Generator) -> pd.DataFrame:
    values = quality[:, None] + noise * rng.normal(size=(len(quality), seeds))
    return pd.DataFrame(
        [
            {"key": key(arch), "seed": seed, "accuracy": value}
            for arch, row in enumerate(values)
            for seed, value in enumerate(row)
        ]
    )


def key(number: int) -> str:
    return f"{number:012x}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two bands of twelve archs, and four of all sizes that are far better than all others."""
    rng = np.random.default_rng(0)
    groups = ["band 1"] * 12 + ["band 2"] * 12 + ["all sizes"] * 4
    quality = rng.normal(size=28) + 100 * (np.array(groups) == "all sizes")
    (tmp_path / "rank").mkdir()
    pd.DataFrame({"key": [key(n) for n in range(28)], "group": groups}).to_csv(tmp_path / "rank/archs.csv", index=False)
    truth(quality, 2, 0.1, rng).to_csv(tmp_path / "rank/truth.csv", index=False)
    knows = pd.DataFrame({"key": [key(n) for n in range(28)], "score": "knows", "value": -quality, "better": "lower"})
    blind = knows.assign(score="blind", value=rng.normal(size=28), better="higher")
    pd.concat([knows, blind]).to_csv(tmp_path / "rank/scores.csv", index=False)
    return tmp_path


def test_a_longer_schedule_is_compared_inside_the_bands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    short = pd.read_csv(folder / "rank/truth.csv", dtype={"key": str})
    mean = short.groupby("key")["accuracy"].mean().reindex([key(n) for n in range(28)]).to_numpy()
    longer = truth(mean, 2, 0.1, rng)
    longer = longer[~((longer["key"] == key(3)) & (longer["seed"] == 1))]  # its second seed is not trained yet
    (folder / "long").mkdir()
    longer.to_csv(folder / "long/truth.csv", index=False)
    out = folder / "longer.csv"
    run("longer", monkeypatch, folder, folder / "long", "--scores", "knows", "blind", "--out", out)
    found = pd.read_csv(out).set_index("what")
    assert (found["archs"] == 23).all()  # of the bands, without the one that lacks a seed
    scores = pd.read_csv(folder / "rank/scores.csv", dtype={"key": str})
    archs = pd.read_csv(folder / "rank/archs.csv", dtype={"key": str})
    both = archs.assign(long=archs["key"].map(longer.groupby("key")["accuracy"].mean()))
    both = both[(both["group"] != "all sizes") & (both["key"] != key(3))]
    for name, sign in (("knows", -1.0), ("blind", 1.0)):
        values = scores[scores["score"] == name].set_index("key")["value"]
        told = sum_of_taus(both, sign * both["key"].map(values))
        assert found.loc[name, "tau_long"] == pytest.approx(told)
        assert found.loc[name, "tau_long_low"] < told < found.loc[name, "tau_long_high"]
    assert found.loc["knows", "tau_long"] > 0.7 > 0.4 > abs(found.loc["blind", "tau_long"])
    own = found.filter(like="accuracy", axis=0)
    assert len(own) == 3 and own["tau_short"].isna().all() and (own["tau_long"] > 0.6).all()
    with pytest.raises(SystemExit):
        run("longer", monkeypatch, folder, folder / "long", "--scores", "nothing", "--out", out)


def sum_of_taus(both: pd.DataFrame, score: pd.Series) -> float:
    """Tau-b over the pairs of one band: without ties the mean of the bands' taus, weighted by pairs."""
    pairs, total = 0.0, 0.0
    for _, rows in both.groupby("group"):
        count = len(rows) * (len(rows) - 1) / 2
        total += count * stats.kendalltau(score[rows.index], rows["long"]).statistic
        pairs += count
    return total / pairs


def test_two_teachers_are_compared_with_the_seeds_that_there_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    quality = rng.normal(size=20)  # another order, of the first twenty archs
    other = folder / "other"
    other.mkdir()
    truth(quality, 1, 0.1, rng).to_csv(other / "truth.csv", index=False)
    knows = pd.DataFrame({"key": [key(n) for n in range(28)], "score": "knows", "better": "higher"})
    knows.assign(value=[*quality, *[np.nan] * 8]).to_csv(other / "scores.csv", index=False)
    names = ["--names", "one", "two", "--scores", "knows", "--out", folder / "out"]
    with pytest.raises(SettingError, match="two or more seeds"):  # an analysis of variance has no noise to go by
        run("specificity", monkeypatch, folder, other, *names)
    found = pd.read_csv(folder / "out/own_and_other.csv").set_index("teacher")
    assert list(found.index) == ["one", "two", "mean"] and (found["archs"] == 20).all()
    assert (found["own"] > 0.7).all() and (found["other"].abs() < 0.5).all() and (found["low"] > 0).all()
    assert not (folder / "out/anova.csv").exists()
    truth(quality, 2, 0.1, rng).to_csv(other / "truth.csv", index=False)
    run("specificity", monkeypatch, folder, other, *names)
    anova = pd.read_csv(folder / "out/anova.csv").set_index("source")
    assert (anova["archs"] == 20).all() and anova.loc["arch x teacher", "p"] < 1e-6
    with pytest.raises(SystemExit, match="blind"):
        run("specificity", monkeypatch, folder, other, "--scores", "blind", "--out", folder / "out")


def test_the_last_word_compares_starts_on_the_same_archs() -> None:
    archs = pd.DataFrame({"key": list("abcdefgh"), "group": "band 1", "depth": [3, 4, 5, 6, 7, 8, 9, 10]})
    told = pd.DataFrame({"key": list("abcdefgh"), "seed": 0, "accuracy": np.linspace(0.8, 0.1, 8)})
    rows = pd.DataFrame(
        [
            {
                "key": arch,
                "start": start,
                "epochs": 3,
                "kl_at_4": kl,
                "accuracy": -kl,
                "agreement": 0.5,
                "cpu_seconds": 1,
            }
            for place, arch in enumerate("abcdefgh")
            for start, kl in (("supernet", place), ("new", -place))
            if (arch, start) != ("h", "new")
        ]
    )
    found = script("last_word").compared(rows, archs, told).set_index("start")
    assert (found["archs"] == 7).all() and (found["minus_depth"] == 1).all()
    assert found.loc["supernet", "kl_at_4"] == 1 and found.loc["new", "kl_at_4"] == -1
    assert found.loc["supernet", "accuracy"] == 1 and np.isnan(found.loc["new", "agreement"])


def test_a_score_that_copies_one_seed_is_judged_by_each_seed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, table = np.random.default_rng(1), folder / "rank" / "truth.csv"
    noisy = pd.read_csv(table)
    noisy["accuracy"] += rng.normal(size=len(noisy)) * (noisy["accuracy"] < 50)
    noisy.to_csv(table, index=False)
    archs = pd.read_csv(folder / "rank/archs.csv").assign(macs=1.0)
    archs.to_csv(folder / "rank/archs.csv", index=False)
    copied = noisy[noisy["seed"] == 0][["key", "accuracy"]].rename(columns={"accuracy": "value"})
    parts = [copied.assign(score="copies", kind="score")]
    sizes = ("MACs", "parameters", "sum of log widths", "depth", "minus depth")
    parts += [copied.assign(score=name, kind="size", value=rng.normal(size=28)) for name in sizes]
    costs = dict.fromkeys(("teacher_forwards", "student_forwards", "seconds", "cpu_seconds"), 0.0)
    pd.concat(parts).assign(better="higher", needs="", **costs).to_csv(folder / "rank/scores.csv", index=False)
    run("by_seed", monkeypatch, folder, "--scores", "copies", "--names", "one", "--out", folder / "by_seed.csv")
    found = pd.read_csv(folder / "by_seed.csv").set_index("seed")
    assert found["archs"].tolist() == [24, 24] and set(found["teacher"]) == {"one"}
    assert found.loc[0, "band_tau"] == 1.0 and found.loc[0, "minus_size_low"] > 0
    other = noisy.pivot(index="key", columns="seed", values="accuracy").reindex(archs["key"])
    pairs = pairs_within(archs["group"].tolist(), ["band 1", "band 2"])
    tau = tau_b(other[0].to_numpy(), other[1].to_numpy(), pairs)
    assert found.loc[1, "band_tau"] == pytest.approx(tau) and tau < 0.9
