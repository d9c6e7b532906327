"""Built-in search engines, one per file."""

from nas_kd.searcher.engine import NNI_PREFIX, Engine, SearchEngine
from nas_kd.searcher.engines.coarse import Coarse
from nas_kd.searcher.engines.exact import Exact
from nas_kd.searcher.engines.gates import GatesEngine
from nas_kd.searcher.engines.nsga2 import NSGA2
from nas_kd.searcher.engines.predictor import PredictorEngine
from nas_kd.searcher.engines.random import Random
from nas_kd.searcher.engines.reinforce import Reinforce
from nas_kd.searcher.nni_engine import NniEngine
from nas_kd.searcher.one_by_one import OneByOne

# name at the command line -> engine
ENGINES: dict[str, type[SearchEngine]] = {
    "exact": Exact,
    "gates": GatesEngine,
    "reinforce": Reinforce,
    "predictor": PredictorEngine,
    "nsga2": NSGA2,
    "coarse": Coarse,
    "random": Random,
}


def search_engine(given: str | Engine) -> SearchEngine:
    """Return the search of a built-in engine by name, or of a custom engine.

    Args:
        given: a key of `ENGINES`, ``nni:`` and one of NNI's tuners, or an object that proposes.
    """
    if isinstance(given, str):
        return NniEngine(given) if given.startswith(NNI_PREFIX) else ENGINES[given]()
    return OneByOne(given)


__all__ = ["ENGINES", "search_engine"]
