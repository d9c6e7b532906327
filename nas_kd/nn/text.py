"""A text classifier of the transformers library as a network like others: one input, logits."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.cutting import LeftOut, heads_of
from nas_kd.nn.inputs import IDS, MASK
from nas_kd.nn.output import Output

TYPES = "token_type_ids"
HINT = "pip install 'nas_kd[text]'"


def transformers_library(field: str, value: object) -> Any:
    """Import the transformers library.

    Args:
        field: the setting that needs it, for the message.
        value: of the setting.

    Raises:
        SettingError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise SettingError(field, value, f"the package transformers for texts ({error})", HINT) from error
    return transformers


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Keep the library from writing what it loads and what is new, which is told by an error or not at all."""
    log = library.utils.logging
    level = log.get_verbosity()
    bars = log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


class TextNet(nn.Module):
    """A sequence classifier of transformers that maps a dictionary of tensors to logits.

    Padding is told to it as numbers that are added to the attention's scores, so that the same kernels run whether
    texts are padded or not, and no value of a text decides a branch.

    Args:
        config: of the transformers model, as its ``config.to_dict()``, with ``attention`` (``sdpa`` or ``eager``).
        body: the model; None builds one with new weights.
    """

    def __init__(self, config: Mapping[str, Any], body: nn.Module | None = None) -> None:
        super().__init__()
        self.config = dict(config)
        self.body: Any = _built(self.config) if body is None else body
        accepted = inspect.signature(self.body.forward).parameters
        self.takes = tuple(name for name in (IDS, TYPES) if name in accepted)

    @classmethod
    def of(cls, body: Any) -> TextNet:
        """Wrap a model of transformers."""
        return cls(cls.described(body.config, body.config._attn_implementation), body)

    @staticmethod
    def described(config: Any, attention: str) -> dict[str, Any]:
        """Return what rebuilds a model of transformers, as the class takes it.

        Args:
            config: of the model.
            attention: how it runs, one of `KERNELS`.
        """
        kept = {key: value for key, value in config.to_dict().items() if key not in UNSAVED}
        return kept | {"attention": attention}

    @property
    def factory(self) -> tuple[str, dict[str, Any]]:
        """What rebuilds it from a student folder."""
        return "nas_kd.nn.text:TextNet", {"config": self.config}

    @property
    def num_classes(self) -> int:
        """Number of its logits."""
        return int(self.body.config.num_labels)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of its classes in the order of its logits; None where they have none but numbers."""
        named = {int(number): str(name) for number, name in (self.body.config.id2label or {}).items()}
        names = tuple(named.get(number, "") for number in range(self.num_classes))
        return None if all(re.fullmatch(r"(LABEL_)?\d*", name) for name in names) else names

    def forget_names(self) -> None:
        """Number the classes: the network is trained on other data, whose classes may be in another order."""
        classes = self.num_classes
        self.body.config.num_labels = 0
        self.body.config.num_labels = classes  # the library then names them anew
        self.config |= {name: getattr(self.body.config, name) for name in ("id2label", "label2id")}

    @property
    def vocabulary(self) -> int:
        """Number of tokens that it knows."""
        return int(self.body.get_input_embeddings().num_embeddings)

    @property
    def positions(self) -> int | None:
        """The most tokens that it takes; None where it has no table of positions."""
        for name, module in self.body.named_modules():
            if isinstance(module, nn.Embedding) and name.endswith(TABLES):
                # RoBERTa counts positions from the number behind that of the padding token
                taken = 0 if module.padding_idx is None else module.padding_idx + 1
                return min(module.num_embeddings - taken, self.body.config.max_position_embeddings)
        return None

    @property
    def classifier(self) -> str:
        """Path of the layer that makes the logits."""
        own = [
            name
            for name, module in self.named_modules()
            if isinstance(module, nn.Linear) and module.out_features == self.num_classes
        ]
        return own[-1]

    def example_inputs(self, number: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw texts: the first has all tokens, each further one is shorter by one.

        Args:
            number: of texts.
            length: tokens of the first.
            generator: of the draws.
        """
        ids = torch.randint(self.vocabulary, (number, length), generator=generator)
        lengths = (length - torch.arange(number)).clamp(min=min(2, length))
        mask = (torch.arange(length) < lengths[:, None]).long()
        drawn = {IDS: ids, MASK: mask}
        return drawn | ({TYPES: torch.zeros_like(ids)} if TYPES in self.takes else {})

    def attention_macs(self, length: int) -> int:
        """Count the multiply-adds of attention that no weight takes part in, which MACs leave out.

        Two products a layer, of queries with keys and of their softmax with values: 2 L^2 heads width.

        Args:
            length: tokens of a text, L.
        """
        widths = [self.attention_parts(layer)[0].weight.shape[0] for layer in self._present]
        return 2 * length**2 * sum(widths)

    @torch.no_grad()
    def reset_weights(self) -> None:
        """Draw new weights, as the model begins with before any training."""
        for parameter in self.body.parameters():
            parameter.__dict__.pop("_is_hf_initialized", None)  # else its own rules leave loaded weights alone
        for module in self.body.modules():
            self.body._init_weights(module)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Classify texts.

        Args:
            x: ``input_ids`` and ``attention_mask``, (B, L) int64, and ``token_type_ids`` where there are pairs; what
                the model does not take is left out.

        Returns:
            Logits (B, classes).
        """
        dtype = next(self.body.parameters()).dtype
        padded = 1.0 - x[MASK][:, None, None, :].to(dtype)  # (B, 1, 1, L)
        given = {name: x[name] for name in self.takes if name in x}
        logits: Tensor = self.body(**given, attention_mask=padded * torch.finfo(dtype).min).logits
        return logits

    def forward_stages(self, x: Mapping[str, Tensor]) -> Output:
        """Classify texts and return what their layers give.

        Args:
            x: as of `forward`.

        Returns:
            Logits; as ``stages`` the hidden states (B, L, D) of the embeddings and of each layer that is there; as
            ``pre`` the queries, keys and values (B, 3, heads, L, width) of each; and as ``pooled`` what the classifier
            reads.
        """
        layers = self._present
        seen: dict[nn.Module, Tensor] = {}

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            seen[module] = args[0]

        def after(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            seen[module] = out

        first = self.encoder_layers[0]
        made = [self.attention_parts(layer) for layer in layers]
        read = self.get_submodule(self.classifier)
        handles = [each.register_forward_pre_hook(before) for each in (first, read)]
        handles += [each.register_forward_hook(after) for each in layers if each is not first]
        handles += [part.register_forward_hook(after) for parts in made for part in parts]
        given: list[Tensor] = []
        handles.append(first.register_forward_hook(lambda module, args, out: given.append(out)))
        try:
            logits = self(x)
        finally:
            for handle in handles:
                handle.remove()
        stages = [seen[first], *(given[0] if layer is first else seen[layer] for layer in layers)]
        pre = []
        for layer, parts in zip(layers, made, strict=True):
            heads = next(count for module in layer.modules() if (count := heads_of(module)) is not None)
            split = [seen[part].unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts]  # (B, heads, L, width)
            pre.append(torch.stack(split, 1))
        return Output(logits, stages, pre, seen[read])

    @property
    def encoder_layers(self) -> Any:
        """The list of the encoder's layers, those that are left out among them; None where there is none."""
        count = getattr(self.body.config, "num_hidden_layers", None)
        lists = (each for each in self.body.modules() if isinstance(each, nn.ModuleList) and len(each) == count)
        return next(lists, None)

    @property
    def _present(self) -> list[nn.Module]:
        """The layers that are not left out."""
        return [layer for layer in self.encoder_layers or () if not isinstance(layer, LeftOut)]

    @staticmethod
    def attention_parts(layer: nn.Module) -> list[Any]:
        """Return the modules of a layer that make queries, keys and values; None in the place of one that is not there.

        Args:
            layer: one of `encoder_layers`.
        """
        modules = {path.rpartition(".")[2]: module for path, module in reversed([*layer.named_modules()])}
        return [next((modules[name] for name in names if name in modules), None) for names in MADE]


TABLES = ("position_embeddings", "embed_positions")  # what tables of positions are called
MADE = (
    ("query", "q_lin", "q"),
    ("key", "k_lin", "k"),
    ("value", "v_lin", "v"),
)  # what layers call those that make them
KERNELS = ("sdpa", "eager")  # ways to run attention that torch has; others are code from a hub, or take no such mask
UNSAVED = ("transformers_version", "dtype", "torch_dtype", "_name_or_path", "architectures")


def _built(config: Mapping[str, Any]) -> nn.Module:
    transformers = transformers_library("student", config.get("model_type"))
    if config["attention"] not in KERNELS:
        raise SettingError("student", config["attention"], f"attention by {' or '.join(KERNELS)}", "make it again")
    rest = {key: value for key, value in config.items() if key not in ("model_type", "attention", "auto_map")}
    known = transformers.AutoConfig.for_model(config["model_type"], **rest)
    found: nn.Module = transformers.AutoModelForSequenceClassification.from_config(
        known, attn_implementation=config["attention"]
    )
    return found.eval()
