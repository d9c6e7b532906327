"""The scores that a ranking compares: by name, of those that its space can have."""

from __future__ import annotations

from collections.abc import Sequence

from nas_kd.config.names import imported
from nas_kd.errors import SettingError, nearest
from nas_kd.ranking.config import RankConfig
from nas_kd.rate.scores import SCORES, Score
from nas_kd.rate.scores.guidance import P_TG, TG
from nas_kd.rate.scores.predicted import PREDICTED, learned_from
from nas_kd.space import ElasticSpace
from nas_kd.supernet.predictor import MIN_ARCHS


def chosen_scores(
    config: RankConfig, space: ElasticSpace, *, texts: bool = False, seed: int = 0
) -> tuple[list[Score], Score, Score]:
    """Return the scores of a ranking, the one that is evaluated, and the size that it has to beat.

    Args:
        config: names them; where it names none, all are taken that the space can have.
        space: of the archs.
        texts: whether the data are texts.
        seed: of the scores.

    Raises:
        SettingError: there is no such score, or it cannot be had or compared.
    """
    applicable = [name for name, score in SCORES.items() if not _lacks(score, space, texts, seed)]
    chosen = _scores(applicable if config.scores is None else config.scores)
    main = _named("primary", config.primary, chosen)
    base = _named("control", config.control, chosen)
    if main == base:
        hint = "choose the score to evaluate"
        raise SettingError("rank.primary", config.primary, "a score other than rank.control", hint)
    if base.kind != "size":
        sizes = ", ".join(name for name, score in SCORES.items() if score.kind == "size")
        raise SettingError("rank.control", config.control, sizes, "choose a size control")
    for score in chosen:
        if lacks := _lacks(score, space, texts, seed):
            expected = f"scores that {space.name} can have: {', '.join(applicable)}; {lacks}"
            raise SettingError("rank.scores", score.name, expected, "leave it out")
    return chosen, main, base


def _scores(scores: Sequence[str | Score]) -> list[Score]:
    found: list[Score] = []
    for item in scores:
        if isinstance(item, str) and item not in SCORES and ":" not in item:
            raise SettingError("rank.scores", item, ", ".join(SCORES), nearest(item, SCORES, "choose some of them"))
        score = item if isinstance(item, Score) else SCORES[item] if item in SCORES else imported("rank.scores", item)
        if not isinstance(score, Score):
            raise SettingError("rank.scores", item, "a nas_kd.rate.scores.Score")
        if score not in found:
            found.append(score)
    return found


def _named(field: str, name: str, scores: Sequence[Score]) -> Score:
    """Return a score by its short or its full name."""
    short = {key: score for key, score in SCORES.items() if score in scores}
    known = short | {score.name: score for score in scores}
    name = imported(f"rank.{field}", name).name if ":" in name else name
    if name not in known:
        expected = f"one of rank.scores: {', '.join(short or known)}"
        hint = nearest(name, known, f"choose one of them, or add {name} to rank.scores" if name in SCORES else "")
        raise SettingError(f"rank.{field}", name, expected, hint)
    return known[name]


def _lacks(score: Score, space: ElasticSpace, texts: bool, seed: int) -> str:
    """Return what a score lacks in a space; nothing where it can be had."""
    if score.needs & frozenset({"blockwise", "features"} if space.pretrained else {"units"}):
        return "it is of stages" if space.pretrained else "it is of a teacher's units"
    if texts and score in (TG, P_TG):
        return "it compares layers on images"
    if score == PREDICTED and (few := len(learned_from(space, seed))) < MIN_ARCHS:
        return f"its predictor learns from {MIN_ARCHS} archs, of {few} here"
    return ""
