"""Another method on a finished run: found and retrained by it, beside what was there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from small_run import Made, Said, changes, digests

from nas_kd.analyse import final_table

MORE = ("--retrain.seeds", "1", "--retrain.random_students", "0", "--search.trials", "30")


def test_another_method_lies_beside_the_first(made: Made, copied: Path, nas_kd_main: Callable[..., Said]) -> None:
    before, kept = digests(copied), pd.read_csv(copied / "retrain/results.csv")
    said = nas_kd_main("retrain", made.config, "--run", copied, "--method", "dkd", "--method.temperature", "4", *MORE)
    assert said.code == 0, said.err
    folder = json.loads((copied / "search/best.json").read_text())["budget"]["macs"]
    search = f"search/dkd_temperature_4_macs_{folder}"
    found = json.loads((copied / search / "best.json").read_text())["key"]
    changed = changes(before, digests(copied))
    own = (search, "retrain/results.csv", "config.yaml")
    assert [name for name in changed if not name.startswith(own) and "/dkd_temperature_4/" not in name] == []
    results = pd.read_csv(copied / "retrain/results.csv")
    pd.testing.assert_frame_equal(results[results["search"] == "search"], kept)
    mine = results[results["search"] == search]
    assert mine["role"].tolist() == ["found", "largest_macs", "largest_params"]
    facts = json.loads((copied / f"retrain/{found}/dkd_temperature_4/seed_0/stage.json").read_text())["inputs"]
    assert (facts["retrain.method"], facts["retrain.method_settings"]) == ("dkd", {"temperature": 4})
    row = mine[mine["role"] == "found"].iloc[0]
    assert (copied / row["folder"] / "weights.safetensors").exists()
    table = final_table(copied, search).set_index("role")
    for role, own in mine.set_index("role").iterrows():
        assert table.loc[role, "accuracy_mean_percent"] == 100 * own["test_accuracy"]
        assert table.loc[role, "folder"] == own["folder"]
    assert "│ found " in said.out and str(row["folder"]) in said.out
    first = final_table(copied).set_index("role")
    assert first.loc["found", "seeds"] == 2 and "dkd" not in first.loc["found", "folder"]
    rows = pd.read_csv(copied / f"retrain/{found}/dkd_temperature_4/seed_0/metrics.csv")
    named = {"epoch", "lr", "ce", "dkd", "loss", "rate_accuracy", "rate_agreement"}
    assert named <= set(rows.columns) and rows["epoch"].tolist() == [1, 2]
    # the first method's again: nothing is done
    before = digests(copied)
    again = nas_kd_main("retrain", made.config, "--run", copied)
    assert again.code == 0, again.err
    assert changes(before, digests(copied)) == []


def test_several_teachers_and_a_tree_beside(made: Made, copied: Path, nas_kd_main: Callable[..., Said]) -> None:
    """A student of the first method is the second teacher, and a soft tree stands in the table."""
    other = next(copied.glob("retrain/*/seed_0/student"))
    options = ("--method", "multi_teacher", "--teacher.others", f"[{other}]", "--retrain.rivals", "[soft_tree=3]")
    said = nas_kd_main("retrain", made.config, "--run", copied, *options, *MORE)
    assert said.code == 0, said.err
    results = pd.read_csv(copied / "retrain/results.csv").set_index("role")
    tree = results.loc["soft_tree"]
    assert tree["macs"] >= 7 * 64 and (copied / tree["folder"] / "weights.safetensors").exists()
    facts = json.loads((copied / tree["folder"]).with_name("stage.json").read_text())["inputs"]
    assert facts["retrain.method"] == "soft_tree"
    mine = results[results["search"] == tree["search"]].loc["found"]
    folder = (copied / mine["folder"]).parent
    assert json.loads((folder / "stage.json").read_text())["inputs"]["teacher"].count(" + ") == 1
    assert {"ce", "kd", "shares"} <= set(pd.read_csv(folder / "metrics.csv").columns)
