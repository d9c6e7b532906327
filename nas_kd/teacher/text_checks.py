"""Whether a text classifier is an encoder that can be cut and taught from: its layers, its embeddings, its mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.text import TextNet

TRIED = 256  # tokens of texts that the mask is tried on: more than the windows of local attention
CLOSE = 1e-3  # of the largest logit, in float32


def check_encoder(name: str, body: Any, hint: str) -> None:
    """Check that a model of transformers is an encoder of tokens.

    Args:
        name: the setting's value, for messages.
        body: the model.
        hint: for messages.

    Raises:
        SettingError: it is a decoder, or its tokens have no table of embeddings.
    """
    kind = body.config.model_type
    causal = any(getattr(module, "is_causal", False) is True for module in body.modules())
    if causal or getattr(body.config, "is_encoder_decoder", False):
        what = "a decoder, each of whose tokens sees only those before it" if causal else "an encoder with a decoder"
        raise SettingError("teacher.model", name, f"an encoder; {kind} is {what}", hint)
    try:
        table = body.get_input_embeddings()
    except NotImplementedError:
        table = None
    if not isinstance(table, nn.Embedding):
        expected = f"an encoder with a plain table of token embeddings; {kind} has none"
        raise SettingError("teacher.model", name, expected, hint)


def check_runs(name: str, network: TextNet, hint: str) -> None:
    """Check that a model's layers are what it runs, and that it leaves padding out.

    Args:
        name: the setting's value, for messages.
        network: the model.
        hint: for messages.

    Raises:
        SettingError: the model cannot be run, its layers do not follow each other, or its mask does not hold.
    """
    kind = network.body.config.model_type
    checks: tuple[Callable[[TextNet], str | None], ...] = (_mask, _layers)
    for check in checks:
        try:
            wrong = check(network)
        except Exception as error:  # whatever a foreign forward pass raises
            text = " ".join(str(error).split())[:200]
            expected = f"an encoder that runs on token numbers and a mask alone; {kind} fails ({text})"
            raise SettingError("teacher.model", name, expected, hint) from error
        if wrong is not None:
            raise SettingError("teacher.model", name, wrong.format(kind=kind), hint)


@torch.no_grad()
def _mask(network: TextNet) -> str | None:
    """Say what is wrong where padding is told otherwise than by the model itself, or changes what a text gives."""
    length = min(TRIED, network.positions or TRIED)
    x = inputs.example(network, 1, length, 2)
    x[inputs.MASK][1, length // 2 :] = 0
    own = network(x)
    given = {key: x[key] for key in network.takes if key in x}
    if _apart(own, network.body(**given, attention_mask=x[inputs.MASK]).logits):
        return "an encoder whose attention adds its mask; {kind} does otherwise"
    alone = {key: part[1:, : length // 2] for key, part in x.items()}
    if _apart(own[1:], network(alone)):
        return "an encoder that leaves padding out; {kind} answers otherwise where a text is padded"
    return None


def _apart(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one, other, atol=CLOSE * float(other.abs().max().clamp_min(1.0)))


@torch.no_grad()
def _layers(network: TextNet) -> str | None:
    """Say what is wrong where the layers are not what the model runs: each once, on what the one before it gives."""
    layers = network.encoder_layers
    if layers is None:
        return "an encoder with a list of its layers; {kind} has none"
    calls: list[tuple[nn.Module, Any, Any]] = []
    handles = [
        layer.register_forward_hook(lambda module, args, out: calls.append((module, args[0] if args else None, out)))
        for layer in layers
    ]
    x = inputs.example(network, 1, min(8, network.positions or 8), 2)
    try:
        network(x)
    finally:
        for handle in handles:
            handle.remove()
    if [module for module, _, _ in calls] != [*layers]:
        return "an encoder whose layers run once each, in their order; those of {kind} do not"
    if not all(isinstance(part, Tensor) for _, *parts in calls for part in parts):
        return "an encoder whose layers take hidden states first and give nothing else; those of {kind} do otherwise"
    if any(not torch.equal(out, given) for (_, _, out), (_, given, _) in zip(calls, calls[1:], strict=False)):
        return "an encoder whose layers follow each other; between those of {kind} is something else"
    if any(part is None for layer in layers for part in network.attention_parts(layer)):
        return "an encoder whose layers have attention by queries, keys and values; those of {kind} have none"
    network.forward_stages(x)
    return None
