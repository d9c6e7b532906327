"""A run on texts, killed in every stage and started again by the same command, ends as one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import changes, numbers

pytest.importorskip("transformers")

Fork = Callable[..., tuple[int, str]]
CONFIG = """\
device: cpu
threads: 1
workers: 1
plan: false
data: {train: TABLE, rate: 0.2, select: 0.2}
teacher: {model: TEACHER/, epochs: 2, batch_size: 16}
derive: {widths: [0.5, 1]}
repair: {epochs: 1, batch_size: 16}
search: {max_macs: 50%, trials: 3, top: 2, epochs: 1, tuned: 1}
retrain: {epochs: 2, seeds: 1, random_students: 1, batch_size: 16, method: minilm, rivals: [new_weights, shallow=1x16]}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_change_no_number(bert_folder: Path, review_table: Path, tmp_path: Path, fork: Fork) -> None:
    config = tmp_path / "texts.yaml"
    config.write_text(CONFIG.replace("TABLE", str(review_table)).replace("TEACHER", str(bert_folder)))
    whole, run = tmp_path / "whole", tmp_path / "run"
    code, text = fork("run", config, "--run", whole)
    assert code == 0, text
    # where it dies, how, and what proves that it came there
    plan: list[tuple[str, int, str, str]] = [
        (r"run/teacher/\.last\.pt", 2, "half", "teacher/.last.pt*"),
        (r"run/repair/.*last\.pt$", 1, "kill", "repair"),
        (r"run/blockwise/stage_2\.csv$", 1, "kill", "blockwise/stage_1.csv"),
        (r"run/search/trials\.csv$", 3, "half", "search/trials.csv"),
        (r"run/retrain/\w+/seed_\d/\.last\.pt", 2, "half", "retrain/*/seed_*/.last.pt*"),
        (r"run/retrain/[^/]+/seed_\d/\.transformers\..*nas_kd\.json", 1, "kill", "retrain/*/seed_*/student"),
        (r"run/report/report\.html$", 1, "kill", "retrain/results.csv"),
    ]
    for path, nth, what, proof in plan:
        fault: dict[str, Any] = {"path": path, "nth": nth, "what": what}
        code, text = fork("run", config, "--run", run, fault=fault)
        assert code == -9, (path, text)
        assert list(run.glob(proof)), path
    code, text = fork("run", config, "--run", run)
    assert code == 0, text
    ours, theirs = numbers(whole), numbers(run)
    assert {"search/trials.csv", "retrain/results.csv", "tokens.json"} <= {*ours}
    assert changes(ours, theirs) == []
