"""Search spaces as plain values; nothing here imports torch."""

from nas_kd.space.arch import Arch, Candidate, Cost
from nas_kd.space.base import Space
from nas_kd.space.count import count_layer, count_layers, make_divisible
from nas_kd.space.elastic import ConvStem, ElasticSpace, LinearHead
from nas_kd.space.load import load_space, space_names
from nas_kd.space.stages import BasicStage, MBStage, Stage

__all__ = [
    "Arch", "BasicStage", "Candidate", "ConvStem", "Cost", "ElasticSpace", "LinearHead", "MBStage", "Space",
    "Stage", "count_layer", "count_layers", "load_space", "make_divisible", "space_names",
]  # fmt: skip
