"""The part of a report that says how far the scores of its search can be trusted."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nas_kd.analyse import frames, html
from nas_kd.analyse.figures import ranking_figure, trust_figure
from nas_kd.analyse.measure import scored_subnets
from nas_kd.analyse.trust import seed_ceiling, trust_table, verdicts
from nas_kd.analyse.writer import Writer

HEADS = {
    "truth": "ranking",
    "among": "of",
    "archs": "archs",
    "score": "score",
    "tau": "tau-b",
    "minus_macs": "tau-b minus that of MACs",
    "minus_params": "tau-b minus that of parameters",
}


def trust_part(root: Path, search: str, suffix: str, writer: Writer) -> list[str]:
    """Show the rank correlation of each score with each accuracy that was measured later.

    Args:
        root: run folder.
        search: the search's folder in the run.
        suffix: of the names of its files.
        writer: where table and figures go.
    """
    trust = trust_table(root, search)
    if not len(trust):
        return []
    writer.frame(f"trust{suffix}.csv", trust)
    body = ["<h2>How far the ranking can be trusted</h2>", *html.paragraphs(verdicts(trust))]
    body += writer.figure(
        f"score_accuracy{suffix}",
        ranking_figure(root, search),
        "With a good score, points fall from upper left to lower right. Brackets: 95 % bootstrap interval "
        "over archs, 2,000 resamples.",
    )
    body += writer.figure(
        f"trust{suffix}",
        trust_figure(trust),
        "Circles: scores of this run; squares: size alone. All taus are signed so that positive is better; "
        f"those of a group use the same resamples. {_chosen(root, search)}Intervals from "
        "fewer than ten archs are too narrow to rely on.",
    )
    ceiling = seed_ceiling(root, search)
    if ceiling == ceiling:
        body.append(
            f'<p class="soft">Tau between two retraining seeds of the same archs: {ceiling:.2f}; '
            "no score can be expected to rank single retrainings better than that.</p>"
        )
    numbers = dict.fromkeys(("tau", "minus_macs", "minus_params"), str)
    return [*body, html.table(_formatted(trust), HEADS, numbers)]


def _chosen(root: Path, search: str) -> str:
    """Describe which share of the scored subnets the search chose itself."""
    scored = scored_subnets(root, search)
    if not len(scored):
        return ""
    drawn = frames.engine(root, search) == "random" or scored["kind"].isin(("random", "control"))
    share = 1.0 - float(pd.Series(drawn, scored.index).mean())
    if share == 0.0:
        return "The scored subnets were drawn by lot within the budget. "
    return (
        f"The search itself chose {100 * share:.0f} % of the scored subnets: they do not stand for all; "
        "those drawn by lot within the budget are listed separately if there are enough. "
    )


def _formatted(trust: pd.DataFrame) -> pd.DataFrame:
    """Format each tau and each paired difference with its interval; sizes are only in the differences."""
    own = trust[trust["minus_macs"].notna()].copy()
    for name, low, high in (
        ("tau", "low", "high"),
        ("minus_macs", "minus_macs_low", "minus_macs_high"),
        ("minus_params", "minus_params_low", "minus_params_high"),
    ):
        own[name] = [f"{a:.2f} [{b:.2f}, {c:.2f}]" for a, b, c in zip(own[name], own[low], own[high], strict=True)]
    return own
