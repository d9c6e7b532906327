"""Search spaces as plain values; nothing here imports torch. Stems, blocks and heads are in `nas_kd.blocks`."""

from nas_kd.lazy import lazy
from nas_kd.space.arch import Arch, Candidate, Cost
from nas_kd.space.base import Space
from nas_kd.space.count import count_layers, make_divisible
from nas_kd.space.elastic import ElasticSpace
from nas_kd.space.ends import Head, Stem
from nas_kd.space.load import load_space, space_names
from nas_kd.space.part import Part
from nas_kd.space.stages import Stage

__all__ = [
    "Arch",
    "Candidate",
    "Cost",
    "ElasticSpace",
    "Head",
    "Part",
    "Space",
    "Stage",
    "Stem",
    "count_layers",
    "load_space",
    "make_divisible",
    "space_names",
]
__getattr__, _ = lazy(__name__, {})  # its other modules, such as `nas_kd.space.nni_codec`
