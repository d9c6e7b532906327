"""Search spaces as plain values; nothing here imports torch."""

from nas_kd.space.arch import Arch, Candidate, Cost
from nas_kd.space.base import Space
from nas_kd.space.count import count_layer, count_layers, make_divisible
from nas_kd.space.elastic import ElasticSpace
from nas_kd.space.ends import ConvStem, Head, LinearHead, MobileHead, NormHead, PatchStem, ResNetDStem, Stem
from nas_kd.space.load import load_space, space_names
from nas_kd.space.stages import BasicStage, BottleneckStage, MBStage, Stage, ViTStage

__all__ = [
    "Arch",
    "BasicStage",
    "BottleneckStage",
    "Candidate",
    "ConvStem",
    "Cost",
    "ElasticSpace",
    "Head",
    "LinearHead",
    "MBStage",
    "MobileHead",
    "NormHead",
    "PatchStem",
    "ResNetDStem",
    "Space",
    "Stage",
    "Stem",
    "ViTStage",
    "count_layer",
    "count_layers",
    "load_space",
    "make_divisible",
    "space_names",
]
