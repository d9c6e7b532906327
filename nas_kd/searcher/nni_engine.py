"""NNI's tuners as engines: ``nni:tpe`` and others propose, and read the same rows as ours."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from nas_kd.config.measures import COSTS, low_is_better
from nas_kd.errors import SettingError, nearest
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.engine import NNI_PREFIX, Problem, Row, point_of
from nas_kd.searcher.one_by_one import search_one_by_one
from nas_kd.searcher.variables import Point

if TYPE_CHECKING:
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog

# name after "nni:" -> module and class, of those that take a seed: a search goes on where it stopped
TUNERS: dict[str, tuple[str, str]] = {
    "tpe": ("nni.algorithms.hpo.tpe_tuner", "TpeTuner"),
    "random": ("nni.algorithms.hpo.random_tuner", "RandomTuner"),
}


class NniEngine:
    """A tuner of NNI over one choice a search variable.

    Args:
        name: ``nni:`` and a key of `TUNERS`.

    Raises:
        SettingError: there is no such tuner, or NNI is not installed.
    """

    guided: ClassVar = True
    shared: ClassVar = False  # a tuner lives in one process
    fixed_objectives: ClassVar = False

    def __init__(self, name: str) -> None:
        tuner = name.removeprefix(NNI_PREFIX)
        if tuner not in TUNERS:
            expected = ", ".join(NNI_PREFIX + known for known in TUNERS)
            raise SettingError("search.engine", name, expected, nearest(tuner, TUNERS))
        self.name = name

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Let the tuner propose until there are enough archs."""
        from nas_kd.space.rows import stage_scores  # pandas

        quality = next(name for name in evaluation.objectives if name not in COSTS)
        tuner = _tuner(self.name.removeprefix(NNI_PREFIX), evaluation.seed)
        scores = stage_scores(evaluation.budget.space, evaluation.need_guide().tables)
        proposer = _Proposer(self.name, tuner, quality)
        return search_one_by_one(proposer, evaluation, lambda arch: sum(scores(arch)))


def _tuner(name: str, seed: int) -> Any:
    """Make a tuner that maximises."""
    place, kind = TUNERS[name]
    try:
        make: Callable[..., Any] = getattr(import_module(place), kind)
    except ImportError as error:
        hint = "pip install 'nas_kd[nni]' on an x86-64 machine, or use search.engine=exact"
        raise SettingError("search.engine", f"{NNI_PREFIX}{name}", "an engine of what is installed", hint) from error
    logging.getLogger("nni").setLevel(logging.WARNING)  # it says how it removes duplicates
    if name != "random":
        make = partial(make, optimize_mode="maximize")
    return make(seed=seed_for(seed, "nni") % 2**31)


class _Proposer:
    """Asks a tuner, and tells it what came of its proposals; the same after the same rows.

    An arch over the budget is told as a little worse than the worst that was measured. The smallest arch comes first:
    next to it random ones are found where a tuner finds none within the budget.
    """

    def __init__(self, name: str, tuner: Any, quality: str) -> None:
        self.name = name
        self.tuner = tuner
        self.quality = quality
        self.asked = 0  # number of rows that proposals were made after
        self.proposed: Point | None = None
        self.worst = 0.0

    def propose(self, problem: Problem, rows: Sequence[Row]) -> Point | None:
        """Return the tuner's next point."""
        sizes = problem.variables.sizes
        if not self.asked:
            space = {f"i_{i}": {"_type": "choice", "_value": list(range(size))} for i, size in enumerate(sizes, 1)}
            self.tuner.update_search_space(space)
        for number in range(self.asked, len(rows) + 1):
            if number:
                self._tell(number - 1, rows[number - 1], len(sizes))
            given = self._ask(number)
            point = None if given is None else [given[f"i_{i}"] for i in range(1, len(sizes) + 1)]
            self.proposed = None if point is None else problem.variables.canonical(point)
        self.asked = len(rows) + 1
        smallest = problem.variables.encode(problem.variables.space.smallest())
        return smallest if not rows and problem.affordable(smallest) else self.proposed

    def _ask(self, number: int) -> dict[str, int] | None:
        """Return a tuner's proposal; None where it has none left."""
        from nni import NoMoreTrialError

        try:
            found: dict[str, int] = self.tuner.generate_parameters(number)
        except NoMoreTrialError:
            return None
        return {name: int(value) for name, value in found.items()}

    def _tell(self, number: int, row: Row, dimensions: int) -> None:
        if self.proposed is None:
            return
        if point_of(row, dimensions) != self.proposed:  # another was measured in its place
            self.tuner.trial_end(number, False)
            return
        value = math.nan if row["kind"] == "infeasible" else float(row[self.quality])
        value = -value if low_is_better(self.quality) else value
        if math.isnan(value):
            value = self.worst - 0.01 * (1.0 + abs(self.worst))
        else:
            self.worst = min(self.worst, value)
        self.tuner.receive_trial_result(number, row, value)
        self.tuner.trial_end(number, True)
