"""The transformer layer (ViT), elastic and static, with equal parameter names.

Tokens travel as maps (B, C, H, W), so that a stage's feature has the shape of any other network's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.act import drop_path
from nas_kd.nn.elastic import ElasticLinear
from nas_kd.nn.norm import ElasticLayerNorm, NormValues, Recorder
from nas_kd.space.arch import Layer
from nas_kd.space.stages import ViTStage


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention.

    Args:
        qkv: (B, N, 3 D), head by head: query, key and value of the first head, then of the second. So the
            first heads are the first rows of a shared weight.
        heads: number of heads.

    Returns:
        (B, N, D).

    Source: Vaswani et al. 2017, eq. 1.
    """
    batch, tokens, width = qkv.shape
    query, key, value = qkv.view(batch, tokens, heads, 3, width // (3 * heads)).permute(3, 0, 2, 1, 4)
    out = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, D / heads)
    return out.transpose(1, 2).reshape(batch, tokens, width // 3)


class ElasticViTLayer(nn.Module):
    """Self-attention and MLP, each behind a layer norm and with a shortcut.

    Args:
        stage: the stage description; it resolves a layer's settings to channel counts.
        width: largest number of channels.
    """

    def __init__(self, stage: ViTStage, width: int) -> None:
        super().__init__()
        self.stage = stage
        plan = stage.resolve_layer(stage.groups()[-1][-1], width, width, 1)
        inner = plan["heads"] * plan["head_dim"]
        self.norm1, self.qkv = ElasticLayerNorm(width), ElasticLinear(width, 3 * inner)
        self.proj = ElasticLinear(inner, width)
        self.norm2, self.fc1 = ElasticLayerNorm(width), ElasticLinear(width, plan["hidden"])
        self.fc2 = ElasticLinear(plan["hidden"], width)
        _initialise(self)

    def forward(
        self, x: Tensor, layer: Layer, width: int, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Run the layer.

        Args:
            x: (B, width, H, W).
            layer: (heads, mlp_ratio).
            width: channels.
            norm: not used: layer norms need no statistics.
            drop: stochastic depth rate.

        Returns:
            (B, width, H, W) twice: nothing comes after the last sum.
        """
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


class ViTLayer(nn.Module):
    """The static twin of ``ElasticViTLayer``.

    Args:
        width: channels.
        heads: attention heads.
        head_dim: channels of a head.
        hidden: channels inside the MLP.
    """

    def __init__(self, width: int, heads: int, head_dim: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.norm1, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * inner)
        self.proj = nn.Linear(inner, width)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)
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
