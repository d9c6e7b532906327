"""Several runs side by side: what differs, what each reached, and never two test sets in one table."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from nas_kd.analyse.compare import compare, write_comparison
from nas_kd.analyse.table import final_table
from nas_kd.cli import main
from nas_kd.errors import SettingError
from nas_kd.pipeline.compare_command import comparison_lines


@pytest.fixture
def other(finished: Path, tmp_path: Path) -> Path:
    """The run again with another temperature, half of the accuracy, and its own name."""
    run = Path(shutil.copytree(finished, tmp_path / "other"))
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["retrain"] = (settings.get("retrain") or {}) | {"method_settings": {"temperature": 2}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"run": "other", "plan": False}))
    rows = pd.read_csv(run / "retrain" / "results.csv", dtype={"key": str})
    rows.assign(test_accuracy=rows["test_accuracy"] / 2).to_csv(run / "retrain" / "results.csv", index=False)
    return run


def test_the_values_are_those_of_each_run(finished: Path, other: Path) -> None:
    found = compare([finished, other])
    assert found.table["run"].tolist() == [finished.name, "other"]
    for root, row in zip((finished, other), found.table.to_dict("records"), strict=True):
        (given,) = final_table(root).query("handed_over").to_dict("records")
        assert row["mean"] == given["accuracy_mean_percent"] and row["sd"] == given["accuracy_sd_percent"]
        assert (row["macs"], row["params"], row["arch"]) == (given["macs"], given["params"], given["arch"])
        assert row["minutes"] == pytest.approx(pd.read_csv(root / "timing.csv")["seconds"].sum() / 60)
    assert found.table["mean"].iloc[1] == pytest.approx(found.table["mean"].iloc[0] / 2)
    assert found.settings.to_dict("records") == [
        {"setting": "retrain.method_settings.temperature", finished.name: "–", "other": "2"}
    ]
    assert len(found.by_test_set()) == 1
    text = "\n".join(comparison_lines(found))
    assert "not the same test images" not in text and f"{found.table['mean'].iloc[1]:.2f}" in text


def test_another_test_set_is_said_and_has_a_table_of_its_own(finished: Path, other: Path, tmp_path: Path) -> None:
    third = Path(shutil.copytree(other, tmp_path / "third"))
    rows = pd.read_csv(third / "data.csv")
    rows.loc[rows["split"] == "train", "label"] = 3  # other training labels are no other test set
    rows.to_csv(third / "data.csv", index=False)
    assert len(compare([finished, third]).by_test_set()) == 1
    rows.loc[rows[rows["split"] == "test"].index[0], "label"] = 1
    rows.to_csv(third / "data.csv", index=False)
    found = compare([finished, third, other])
    assert [rows["run"].tolist() for rows in found.by_test_set()] == [[finished.name, "other"], ["third"]]
    lines = comparison_lines(found)
    assert f"not the same test images or measure: {finished.name}; other | third" in lines
    assert sum(line.startswith("run ") and "accuracy" in line for line in lines) == 2


def test_files_and_figure_are_written(finished: Path, other: Path, tmp_path: Path) -> None:
    written = write_comparison(compare([finished, other]), tmp_path / "deep" / "out")
    assert [path.name for path in written] == ["compare.csv", "settings.csv", "compare.svg"]
    assert pd.read_csv(written[0])["run"].tolist() == [finished.name, "other"]
    svg = written[2].read_text()
    assert svg.startswith("<svg") and ">other<" in svg


def test_mistakes_are_named(finished: Path, other: Path, tmp_path: Path) -> None:
    for runs, part in (([finished], "at least two"), ([other, finished, other], "once"), ([other, tmp_path], "run")):
        with pytest.raises(SettingError, match=part):
            compare(runs)


def test_the_command_needs_no_torch(finished: Path, other: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom nas_kd.cli import main\n"
        f"code = main(['compare', {str(finished)!r}, {str(other)!r}, '--out', {str(tmp_path / 'out')!r}])\n"
        "assert not {'torch', 'timm', 'optuna'} & set(sys.modules)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "retrain.method_settings.temperature" in done.stdout and (tmp_path / "out" / "compare.csv").exists()


def test_unknown_options_are_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, part in ((["--fast"], "setting='--fast'"), (["--out"], "out=None"), ([], "runs=")):
        assert main(["compare", str(finished), *arguments]) == 2
        assert part in capsys.readouterr().err
