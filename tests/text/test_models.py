"""Kinds of models of transformers that cannot be cut or taught from end in a message, and not in a wrong student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import bert
from torch import Tensor, nn

import nas_kd
from nas_kd.derive.groups import Group, Slot
from nas_kd.derive.verify import sound
from nas_kd.errors import SettingError
from nas_kd.nn.text import TextNet
from nas_kd.teacher.text_checks import check_runs

pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "num_labels": 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "MPNet": ({}, "give nothing else; those of mpnet do otherwise"),
    "RoFormer": ({"embedding_size": 32}, "give nothing else; those of roformer do otherwise"),
    "FNet": ({}, "leaves padding out; fnet answers otherwise"),
    "ConvBert": ({"embedding_size": 32}, "leaves padding out; convbert"),
    "Canine": ({"max_position_embeddings": 64, "num_hash_buckets": 50}, "token embeddings; canine has none"),
    "IBert": ({}, "token embeddings; ibert has none"),
    "Nystromformer": ({"segment_means_seq_len": 8, "num_landmarks": 4}, "mask alone; nystromformer fails"),
    "SqueezeBert": ({"embedding_size": 32}, "run once each, in their order; those of squeezebert do not"),
    "Albert": ({"embedding_size": 16}, "a list of its layers; albert has none"),
    "DebertaV2": ({}, "deberta-v2 does otherwise"),
    "Deberta": ({}, "deberta does otherwise"),
}


def body_of(kind: str, **settings: Any) -> Any:
    """Build a tiny classifier of a kind, with weights that are not its first ones."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**SIZES | settings)
    torch.manual_seed(1)
    body = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return body


@pytest.mark.parametrize("kind", REFUSED)
def test_others_are_refused_when_they_are_loaded(kind: str, tmp_path: Path) -> None:
    settings, said = REFUSED[kind]
    body_of(kind, **settings).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match=rf"teacher\.model.*{said}"):
        nas_kd.load_teacher(str(tmp_path))


@pytest.mark.parametrize(("kind", "most"), [("Bert", 40), ("Roberta", 38), ("Nystromformer", 40), ("RoFormer", 40)])
def test_positions_are_those_that_a_model_takes(kind: str, most: int) -> None:
    net = TextNet.of(body_of(kind, **({"pad_token_id": 1} if kind == "Roberta" else {})))
    assert net.positions == most


class Between(nn.Module):
    """The encoder of a BERT that does something between its layers, or runs them in another order."""

    def __init__(self, layers: nn.ModuleList, scale: float, step: int) -> None:
        super().__init__()
        self.layer = layers
        self.scale = scale
        self.step = step

    def forward(self, hidden: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions as Given

        for layer in [*self.layer][:: self.step]:
            hidden = layer(hidden * self.scale, attention_mask)
        return Given(last_hidden_state=hidden)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scale", "step", "said"), [(1.0, 1, None), (0.5, 1, "something else"), (1.0, -1, "in their order")]
)
def test_the_layers_are_what_the_model_runs(scale: float, step: int, said: str | None, tmp_path: Path) -> None:
    body = bert(tmp_path)
    body.bert.encoder = Between(body.bert.encoder.layer, scale, step)
    if said is None:
        check_runs("bert", TextNet.of(body), "")
    else:
        with pytest.raises(SettingError, match=said):
            check_runs("bert", TextNet.of(body), "")


def test_channels_outside_a_tensor_are_no_group() -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)).eval()
    whole = tuple((place,) for place in range(8))
    true = Group(
        "0", (Slot("0", "weight", 0, whole), Slot("0", "bias", 0, whole), Slot("1", "weight", 1, whole)), ("0",)
    )
    wrong = Group("0", (*true.slots, Slot("1", "bias", 0, whole)), ("0", "1"))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert sound(net, x, [true]) == [true]
    assert sound(net, x, [wrong]) == []
    assert sound(net, x, [true, wrong]) == [true]
