"""The transformer layer (ViT).

Tokens are kept as maps (B, C, H, W), so that the features of a stage have the shape of a convolutional network's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.act import drop_path
from nas_kd.nn.elastic import ElasticLinear
from nas_kd.nn.norm import ElasticLayerNorm, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticPart, Plans, consumer, producers, sizes
from nas_kd.space.arch import Cost, Layer
from nas_kd.space.count import conv_cost, norm_cost
from nas_kd.space.part import ascending
from nas_kd.space.stages import Stage


@dataclass(frozen=True, kw_only=True)
class ViTStage(Stage):
    """Pre-norm transformer layers: self-attention and MLP, both residual, all of one width.

    Args:
        heads: numbers of attention heads to choose from, ascending, for each layer on its own.
        mlp_ratios: hidden channels of the MLP as a multiple of the width, ascending, for each layer on its own.
        head_dim: channels of a head.

    Source: ViT (Dosovitskiy et al. 2020); elastic: AutoFormer (Chen et al. 2021), section 3.
    """

    heads: tuple[int, ...]
    mlp_ratios: tuple[float, ...] = (4,)
    head_dim: int = 64
    op: ClassVar[str] = "vit"
    fields: ClassVar[tuple[str, ...]] = ("heads", "mlp_ratio")
    keeps_width: ClassVar[bool] = True
    legend: ClassVar[str] = "attention heads (bar: share of the most), hidden channels of the MLP by the width"

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending("heads", self.heads)
        ascending("mlp_ratios", self.mlp_ratios, float)
        if self.stride != 1:
            raise SettingError("stride", self.stride, "1: the number of tokens stays the same")
        if self.head_dim < 1:
            raise SettingError("head_dim", self.head_dim, "an integer of at least 1")
        if self.widths[0] * self.mlp_ratios[0] < 1:
            raise SettingError("mlp_ratios", self.mlp_ratios, f"at least one channel at width {self.widths[0]}")

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return (tuple((heads, ratio) for heads in self.heads for ratio in self.mlp_ratios),)

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        named = {"in": in_width, "out": width, "heads": int(layer[0]), "head_dim": self.head_dim}
        return {"op": "vit"} | named | {"hidden": int(width * layer[1]), "stride": stride}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        width = layer["out"]
        inner = layer["heads"] * layer["head_dim"]
        hidden = layer["hidden"]
        total = norm_cost(width) + norm_cost(width)
        for inputs, outputs in ((width, 3 * inner), (inner, width), (width, hidden), (hidden, width)):
            total = total + conv_cost(inputs, outputs, 1, size * size, bias=True)
        return total, size

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return ViTLayer(*(layer[name] for name in ("out", "heads", "head_dim", "hidden")))

    def elastic(self, inputs: int, stride: int, projects: bool, kernel_transform: bool) -> ElasticPart:
        return ElasticViTLayer(self, self.widths[-1])

    def label(self, layer: Layer) -> str:
        return f"{layer[0]} heads, MLP x{layer[1]:g}"

    def share(self, layer: Layer) -> float:
        return layer[0] / self.heads[-1]


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention.

    Args:
        qkv: (B, N, 3 D), head by head: query, key and value of the first head, then of the second, so that the first
            heads are the first rows of a shared weight.

    Source: Vaswani et al. 2017, eq. 1.
    """
    batch, tokens, width = qkv.shape
    query, key, value = qkv.view(batch, tokens, heads, 3, width // (3 * heads)).permute(3, 0, 2, 1, 4)
    out = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, D / heads)
    return out.transpose(1, 2).reshape(batch, tokens, width // 3)


class ElasticViTLayer(ElasticPart):
    """Self-attention and MLP, each after a layer norm and with a shortcut."""

    def __init__(self, stage: ViTStage, width: int) -> None:
        super().__init__()
        self.stage = stage
        plan = stage.resolve_layer(stage.groups()[-1][-1], width, width, 1)
        inner = plan["heads"] * plan["head_dim"]
        self.norm1 = ElasticLayerNorm(width)
        self.qkv = ElasticLinear(width, 3 * inner)
        self.proj = ElasticLinear(inner, width)
        self.norm2 = ElasticLayerNorm(width)
        self.fc1 = ElasticLinear(width, plan["hidden"])
        self.fc2 = ElasticLinear(plan["hidden"], width)
        _initialise(self)

    def forward(
        self, x: Tensor, layer: Layer, width: int, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, width, H, W) to the same shape twice; ``layer`` is (heads, mlp_ratio), ``norm`` is not used."""
        plan = self.stage.resolve_layer(layer, x.shape[1], width, 1)
        heads = plan["heads"]
        inner = plan["heads"] * plan["head_dim"]
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, C), a view when x is channels_last
        attended = self.proj(attend(self.qkv(self.norm1(tokens), 3 * inner), heads), width)
        tokens = tokens + drop_path(attended, drop)
        hidden = F.gelu(self.fc1(self.norm2(tokens), plan["hidden"]))
        tokens = tokens + drop_path(self.fc2(hidden, width), drop)
        out = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        return out, out

    def channels(self, plans: Plans) -> Iterator[Channels]:
        unit = self.stage.head_dim
        yield Channels(consumer(self.proj, unit), producers(self.qkv, unit=3 * unit), sizes(plans, "heads"))
        yield Channels(consumer(self.fc2), producers(self.fc1), sizes(plans, "hidden"))


class ViTLayer(nn.Module):
    """The static twin of ``ElasticViTLayer``.

    Args:
        hidden: channels inside the MLP.
    """

    def __init__(self, width: int, heads: int, head_dim: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner)
        self.proj = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        _initialise(self)

    def forward(self, x: Tensor, drop: float = 0.0) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to (B, C, H, W), twice."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + drop_path(self.proj(attend(self.qkv(self.norm1(tokens)), self.heads)), drop)
        tokens = tokens + drop_path(self.fc2(F.gelu(self.fc1(self.norm2(tokens)))), drop)
        out = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        return out, out


def _initialise(layer: nn.Module) -> None:
    """Start as timm's vision transformers do."""
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
