"""The transformer layer against its formula, against timm's network, and its heads on their own."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.blocks import ViTStage
from nas_kd.blocks.patch_stem import PatchStemNet
from nas_kd.blocks.vit import ElasticViTLayer, ViTLayer, attend
from nas_kd.space import Candidate
from search_spaces import vit


def shake(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.3, generator)
    return module


def attended(qkv: Tensor, heads: int) -> Tensor:
    """Attention head by head, from its definition."""
    out = []
    for head in qkv.split(qkv.shape[2] // heads, dim=2):
        query, key, value = head.chunk(3, dim=2)
        weights = (query @ key.transpose(1, 2) / query.shape[2] ** 0.5).softmax(2)
        out.append(weights @ value)
    return torch.cat(out, 2)


def test_attention_is_its_definition() -> None:
    qkv = torch.randn(2, 5, 3 * 12, dtype=torch.float64)
    for heads in (1, 2, 3):
        torch.testing.assert_close(attend(qkv, heads), attended(qkv, heads))


def test_layer() -> None:
    layer, x = shake(ViTLayer(12, 2, 4, 20)).double(), torch.randn(2, 12, 3, 5, dtype=torch.float64)
    tokens = x.permute(0, 2, 3, 1).reshape(2, 15, 12)
    qkv = F.linear(F.layer_norm(tokens, (12,), layer.norm1.weight, layer.norm1.bias), layer.qkv.weight, layer.qkv.bias)
    tokens = tokens + F.linear(attended(qkv, 2), layer.proj.weight, layer.proj.bias)
    hidden = F.layer_norm(tokens, (12,), layer.norm2.weight, layer.norm2.bias)
    hidden = F.linear(hidden, layer.fc1.weight, layer.fc1.bias)
    tokens = tokens + F.linear(F.gelu(hidden), layer.fc2.weight, layer.fc2.bias)
    post, pre = layer(x)
    assert post is pre  # nothing comes after the last sum
    torch.testing.assert_close(post, tokens.reshape(2, 3, 5, 12).permute(0, 3, 1, 2))


def test_fewer_heads_are_the_first_heads() -> None:
    """A head left out is a head whose output is not projected: the weights are laid out head by head."""
    stage = ViTStage(widths=(12,), depths=(1,), heads=(1, 2, 3), mlp_ratios=(2,), head_dim=4)
    layer, x = shake(ElasticViTLayer(stage, 12)), torch.randn(2, 12, 3, 3)
    for heads in (1, 2, 3):
        muted = ElasticViTLayer(stage, 12)
        muted.load_state_dict(layer.state_dict())
        with torch.no_grad():
            muted.proj.weight[:, 4 * heads :] = 0
            torch.testing.assert_close(layer(x, (heads, 2), 12)[0], muted(x, (3, 2), 12)[0])


def test_fewer_hidden_channels_are_the_first_ones() -> None:
    stage = ViTStage(widths=(12,), depths=(1,), heads=(2,), mlp_ratios=(1.5, 2), head_dim=4)
    layer, x = shake(ElasticViTLayer(stage, 12)), torch.randn(2, 12, 3, 3)
    with torch.no_grad():
        small = layer(x, (2, 1.5), 12)[0]
        layer.fc2.weight[:, 18:] = 0
        torch.testing.assert_close(small, layer(x, (2, 2), 12)[0])


def test_patches_and_their_positions() -> None:
    stem, x = shake(PatchStemNet(3, 5, 4, 2)), torch.randn(2, 3, 8, 8)
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4)  # (B, C, 2, 2, 4, 4)
    tokens = torch.einsum("bcijkl,ockl->boij", patches, stem.conv.weight) + stem.conv.bias[:, None, None]
    torch.testing.assert_close(stem(x), tokens + stem.position)
    wide = torch.randn(1, 3, 12, 20)  # other sizes resize the positions
    positions = stem(wide) - stem.conv(wide)
    wanted = F.interpolate(stem.position, (3, 5), mode="bicubic", align_corners=False)
    torch.testing.assert_close(positions, wanted)
    constant = nn.init.ones_(stem.position)
    torch.testing.assert_close(stem(wide), stem.conv(wide) + constant.mean())


def test_the_tiny_transformer_is_that_of_timm() -> None:
    """DeiT-tiny's size in this space, with timm's weights, gives timm's logits."""
    settings = {"class_token": False, "global_pool": "avg", "num_classes": 10, "img_size": 64}
    theirs = shake(timm.create_model("vit_tiny_patch16_224", **settings)).eval()
    # timm normalises after the mean here; with fc_norm and norm exchanged it normalises every token, as we do
    theirs.norm, theirs.fc_norm = theirs.fc_norm, theirs.norm
    space = vit.space("small", resolution=64)
    stages = [Candidate(192, ((3, 4),) * 3)] * 4
    mine = space.build(space.arch(stages, stem=(192,)), num_classes=10).eval()
    state = {}
    for key, value in theirs.state_dict().items():
        part, _, rest = key.partition(".")
        if key == "pos_embed":
            state["stem.position"] = value.transpose(1, 2).reshape(1, 192, 4, 4)
        elif part == "blocks":
            number, _, name = rest.partition(".")
            if "qkv" in name:  # query, key, value of all heads, to head by head
                value = value.unflatten(0, (3, 3, 64)).transpose(0, 1).flatten(0, 2)
            name = name.removeprefix("attn.").removeprefix("mlp.")
            state[f"stages.{int(number) // 3}.layers.{int(number) % 3}.{name}"] = value
        else:
            known = {"patch_embed.proj": "stem.conv", "norm": "head.norm", "head": "head.fc"}
            module, _, kind = key.rpartition(".")
            state[f"{known[module]}.{kind}"] = value
    mine.load_state_dict(state)
    for block in mine.modules():
        if isinstance(block, nn.LayerNorm):
            block.eps = 1e-6  # timm's
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(mine(x), theirs(x), rtol=1e-3, atol=1e-3)
