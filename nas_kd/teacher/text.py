"""Teachers of texts: sequence classifiers of the transformers library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_kd.config.paths import transformers_about
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.output import Output
from nas_kd.nn.text import KERNELS, TextNet, quiet, transformers_library
from nas_kd.teacher.digest import digest_of
from nas_kd.teacher.dry_run import Seen, check_classes, counted_macs
from nas_kd.teacher.teacher import Teacher
from nas_kd.teacher.text_checks import check_encoder, check_runs

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data
    from nas_kd.data.tokenised import Tokenised

PART = 4096  # tokens of a batch that a CPU runs at once
SPARE = 128  # tokens that a vocabulary may have more than its tokenizer, as padding to a round number
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
FIT = "give the folder that both were saved in"


class TextTeacher(Teacher):
    """A text classifier in eval mode, without gradients."""

    _module: TextNet

    @cached_property
    def _digest(self) -> str:
        module = self._module
        return digest_of(json.dumps(module.config, sort_keys=True, default=str), module.state_dict())

    @torch.no_grad()
    def __call__(self, x: Any) -> Tensor:
        """Map texts to logits (B, classes)."""
        x = self.normalised(x)
        size = max(8, PART // x[inputs.MASK].shape[1])
        if self.device.type != "cpu" or inputs.count(x) <= size:
            return self._module(x)
        return torch.cat([self._module(part) for part in inputs.split(x, size)])

    def normalised(self, x: Any) -> Any:
        """Return texts on the network's device."""
        return inputs.moved(x, self.device)

    def bind(self, data: Data, epochs: int = 0) -> TextTeacher:
        """Check that the teacher fits a data set.

        Raises:
            SettingError: the data are images, of another tokenizer, or longer than the teacher takes, or the classes
                differ.
        """
        what = data.tokens
        if what is None:
            hint = "set data.tokenizer to the folder of its tokenizer, and data.train to a table of texts"
            raise SettingError("data.train", "images", f"texts, for the teacher {self.name}", hint)
        check_tokens(self._module, self.name, what)
        check_classes(self._dry_run(what.length), data)
        if data.kind == "classes":
            self._check_names(data.classes)
        return self

    def _check_names(self, classes: Sequence[str]) -> None:
        """Refuse classes that the teacher knows by the same names in another order."""
        own = self._module.class_names
        names, others = ([name.strip().lower() for name in some] for some in (own or classes, classes))
        if names != others and sorted(names) == sorted(others):
            expected = f"the classes of {self.name} in their order: {', '.join(own or ())}"
            hint = "change id2label in its config.json if its logits are in the data's order, or fine-tune it"
            raise SettingError("data.train", f"the classes {', '.join(classes)}", expected, f"{hint} (teacher.epochs)")

    def classifier(self, resolution: int) -> str | None:
        """Return the name of the layer whose input is the pooled feature."""
        return self._module.classifier

    def _seen(self, resolution: int) -> Seen:
        logits, macs = counted_macs(self._module, inputs.example(self._module, 1, resolution))
        return Seen([], [], None, macs, logits.shape[1])

    def match(self, space: Any, resolution: int, names: Sequence[str] | None = None) -> Any:
        """Do nothing: the layers of a text teacher are all given, and a method says which teaches which."""
        return []

    @torch.no_grad()
    def forward_stages(self, x: Any) -> Output:
        """Return logits, hidden states, and queries, keys and values of all layers; see `TextNet.forward_stages`."""
        return self._module.forward_stages(self.normalised(x))

    def features(self, batch: Batch) -> Output:
        """Run `forward_stages`: states of tokens are of one size."""
        return self.forward_stages(batch.x)


def check_tokens(network: TextNet, name: str, what: Tokenised) -> None:
    """Check that a network takes tokens: that it knows as many, and as many in a text.

    Args:
        network: a text classifier.
        name: of it, for messages.
        what: the tokens.

    Raises:
        SettingError: it does not.
    """
    known = network.vocabulary
    if not what.vocabulary <= known <= what.vocabulary + SPARE:
        expected = f"a tokenizer of {name}, with {known:,} tokens; it has {what.vocabulary:,}"
        raise SettingError("data.tokenizer", what.tokenizer, expected, FIT)
    most = network.positions
    if most is not None and what.length > most:
        hint = f"set data.length={most} or less"
        raise SettingError("data.length", what.length, f"at most {most}, the positions of {name}", hint)


def seal(module: nn.Module, name: str, **settings: Any) -> Teacher:
    """Seal a network as the teacher that it can be: of texts, or of images; arguments as of `Teacher`."""
    return (TextTeacher if isinstance(module, TextNet) else Teacher)(module, name, **settings)


def read_text_model(
    folder: Path, num_classes: int | None, *, new_head: bool = False
) -> tuple[TextNet, tuple[str, ...]]:
    """Open a text classifier that transformers saved; code that a folder brings is never run.

    Args:
        folder: with config.json and weights.
        num_classes: of the data; None takes the model's.
        new_head: a classifier that is missing, or of other classes, is new.

    Returns:
        The network, and the modules with new weights.

    Raises:
        SettingError: it is no encoder, has no weights or no classifier, or needs code of its own.
    """
    name = str(folder)
    library = transformers_library("teacher.model", name)
    about = transformers_about(folder) or {}
    kind = about.get("model_type")
    hint = "give a BERT, RoBERTa, DistilBERT, ELECTRA or the like that transformers knows without code of its own"
    if "auto_map" in about and kind not in library.CONFIG_MAPPING:
        raise SettingError("teacher.model", name, "a model without code of its own, which is never run", hint)
    for key in ("attn_implementation", "_attn_implementation"):
        if about.get(key) not in (None, *KERNELS):
            cure = f"take {key} out of its config.json"
            raise SettingError("teacher.model", name, f"attention by {' or '.join(KERNELS)}, not {about[key]}", cure)
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHTS):
        expected = "a folder with weights (model.safetensors) beside its config.json"
        raise SettingError("teacher.model", name, expected, "call model.save_pretrained(FOLDER)")
    own = int(about.get("num_labels") or len(about.get("id2label") or (0, 1)))
    classes = num_classes or own
    with quiet(library):
        try:
            config = library.AutoConfig.from_pretrained(name, trust_remote_code=False, num_labels=classes)
            body, report = library.AutoModelForSequenceClassification.from_pretrained(
                name,
                config=config,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
            )
        except Exception as error:  # of files, of the library: each has classes of its own
            text = " ".join(str(error).split())[:200]
            expected = f"a text classifier that transformers opens ({text})"
            raise SettingError("teacher.model", name, expected, hint) from error
    check_encoder(name, body, hint)
    for parameter in body.parameters():  # in a mapped file they lie unaligned, and kernels differ in the last bits
        parameter.data = parameter.data.clone()
    wrapped = TextNet.of(body.eval())
    check_runs(name, wrapped, hint)
    new = sorted({f"body.{_layer(key)}" for key in (*report["missing_keys"], *_mismatched(report))})
    inside = [path for path in new if not _is_head(wrapped, path)]
    if inside:
        expected = f"a folder with all weights; {', '.join(inside[:3])} {'are' if len(inside) > 1 else 'is'} missing"
        raise SettingError("teacher.model", name, expected, "save the model again")
    if new and not new_head:
        found = f"its classifier has {own} classes" if num_classes not in (None, own) else "it has no classifier"
        expected = f"a classifier of {classes} classes; {found}"
        raise SettingError("teacher.model", name, expected, "fine-tune it on these data: teacher.epochs=3")
    return wrapped, tuple(path for path in new if wrapped.classifier == path)


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _mismatched(report: Any) -> list[str]:
    return [key if isinstance(key, str) else key[0] for key in report.get("mismatched_keys", ())]


def _is_head(network: TextNet, path: str) -> bool:
    """Tell whether a module is behind the encoder: a pooler or a classifier."""
    inner = path.removeprefix("body.").split(".")
    return inner[0] != network.body.base_model_prefix or inner[1] == "pooler"
