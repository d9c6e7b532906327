"""What a search engine is: an object that proposes points, or one with a search loop of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from nas_kd.config.measures import measure_named
from nas_kd.searcher.variables import Point, SearchVariables

if TYPE_CHECKING:
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog

Row = dict[str, Any]
NNI_PREFIX = "nni:"  # of the names of NNI's tuners


@dataclass(frozen=True)
class Problem:
    """What an engine searches.

    Args:
        variables: the search variables; a point is one index per variable, and ``variables.decode(point)`` its arch.
        affordable: whether a point is within the bounds on MACs and parameters; needs no images and no timing.
        cost: returns the multiply-adds of a point.
        objectives: what to optimise, all in the rows: the run's metric, such as ``accuracy``, and costs (low).
        trials: number of distinct archs.
        metric: the name of the run's metric.
    """

    variables: SearchVariables
    affordable: Callable[[Point], bool]
    cost: Callable[[Point], int]
    objectives: Sequence[str]
    trials: int
    seed: int
    metric: str = "accuracy"

    def better(self, row: Mapping[str, Any]) -> float:
        """Return a row's metric, signed so that higher is better."""
        return measure_named(self.metric).sign * float(row[self.metric])


class Proposal(NamedTuple):
    """A point, and the ``kind`` of its row in trials.csv."""

    point: Point
    kind: str = "trial"


class Engine(Protocol):
    """Proposes archs; pass one as ``search(engine=...)``."""

    @property
    def name(self) -> str:
        """Its name in the run's record and folders."""

    def propose(self, problem: Problem, rows: Sequence[Row]) -> Point | Proposal | None:
        """Return the next point; None when it has no more.

        Must depend only on its arguments, so that a search can resume: seed a generator
        from ``problem.seed`` and ``len(rows)``.

        Args:
            rows: what was proposed before, in order: number, kind (``infeasible`` were not evaluated), feasible,
                i_1 ... i_D, and where evaluated the scores and costs.
        """


class SearchEngine(Protocol):
    """A built-in engine: searches until there are enough archs; see `nas_kd.searcher.engines`."""

    guided: ClassVar[bool]
    """It uses a teacher: rating tables, and the KL of whole subnets."""
    shared: ClassVar[bool]
    """Several processes may share its trials."""
    fixed_objectives: ClassVar[bool]
    """It optimises the run's metric and MACs only."""

    @property
    def name(self) -> str:
        """Its name in ``search.engine``."""

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Evaluate archs within the budget until there are enough."""


def point_of(row: Mapping[str, Any], dimensions: int) -> Point:
    """Return the point of a row."""
    return tuple(int(row[f"i_{i}"]) for i in range(1, dimensions + 1))
