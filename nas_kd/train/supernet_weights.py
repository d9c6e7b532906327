"""The weights that a supernet begins with: a file of its own kind, a student folder, or a published supernet."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.config.paths import existing
from nas_kd.config.reading import check_file, memory
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.export.student_folder import ABOUT, WEIGHTS, student_about
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.supernet.published import RUNNING, published_layout
from nas_kd.teacher.plan import IMAGENET
from nas_kd.teacher.weights import read_weights
from nas_kd.train.supernet_config import SupernetConfig

FIELD = "supernet.checkpoint"
CLASSIFIER = ("head.fc.weight", "head.fc.bias")


@checked
def load_supernet(net: Supernet, checkpoint: str | Path, *, new_classifier: bool = False) -> Supernet:
    """Load weights into a supernet; nothing in the file is executed.

    Args:
        net: the supernet, changed in place. For OFA's MobileNetV3 and ProxylessNAS build it with
            ``kernel_transform=True``.
        checkpoint: a .safetensors file, a torch file of weights only, or a folder with weights.safetensors such as a
            student folder. It has the names of this supernet, or those of a published one of OFA, AttentiveNAS or
            AlphaNet. Running statistics in it are not used: calibrate.
        new_classifier: keep the classifier of ``net`` where the file has another number of classes.

    Returns:
        ``net``.

    Raises:
        SettingError: the file is missing or unsafe, or a tensor is missing, has no place or another shape.
    """
    placed = _placed(net, _file_of(checkpoint), new_classifier)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name in placed:
                tensor.copy_(placed[name])
    return net


def check_checkpoint(space: ElasticSpace, config: SupernetConfig, num_classes: int, in_chans: int) -> None:
    """Check that the checkpoint of the settings fits, before anything trains.

    Raises:
        SettingError: see `load_supernet`.
    """
    if config.checkpoint is None:
        return
    with torch.device("meta"):  # shapes suffice
        net = Supernet(space, num_classes, in_chans, kernel_transform=config.kernel_transform)
    _placed(net, _file_of(config.checkpoint), new_classifier=config.epochs > 0)


def normalisation_of(checkpoint: str | Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std of the images that weights were trained on: a student's own, ImageNet's of published ones.

    None where the file does not say.
    """
    path = _file_of(checkpoint)
    if (Path(checkpoint) / ABOUT).is_file():
        noted = student_about(Path(checkpoint))
    else:
        file, noted = read_weights(path, FIELD)
        if published_layout(file) is not None:
            return IMAGENET
    mean, std = (tuple(noted.get(name) or ()) for name in ("mean", "std"))
    return (mean, std) if mean and std else None


def check_normalisation(checkpoint: str | Path, data: Data) -> None:
    """Check that the images are normalised as those that the weights were trained on.

    Raises:
        SettingError: they are not.
    """
    expected = normalisation_of(checkpoint)
    if expected is not None and expected != (data.mean, data.std):
        mean, std = expected
        hint = f"pass data.normalised({mean}, {std})"
        raise SettingError("data.mean", data.mean, f"data normalised as of {checkpoint}: mean {mean}, std {std}", hint)


def checkpoint_hash(checkpoint: str | Path) -> str:
    """Return twelve hexadecimal digits of the SHA-256 of the file of weights."""
    path = _file_of(checkpoint)
    check_file(path, memory(), field=FIELD)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()[:12]


def _file_of(checkpoint: str | Path) -> Path:
    path = existing(FIELD, checkpoint, "a file of weights, or a folder with weights.safetensors")
    return path / WEIGHTS if path.is_dir() else path


def _placed(net: Supernet, path: Path, new_classifier: bool) -> dict[str, Tensor]:
    """Return the tensors of a file by the names of ours, all checked."""
    file, _ = read_weights(path, FIELD)
    own = net.state_dict()
    layout = published_layout(file)
    names = {name: name for name in own} if layout is None else layout.names(own)
    unused = RUNNING if layout is None else layout.unused
    source = "nas_kd" if layout is None else layout.source
    used = set(names.values())
    missing = [name for name in own if names[name] not in file]
    left = [name for name in file if name not in used and not name.endswith(unused)]
    where = f"weights of {net.space.name} with the names of {source}"
    _check_matrices(net, path, missing, left)
    if missing or left:
        raise SettingError(FIELD, str(path), f"{where}; {_misfit(own, file, names, missing, left)}", _hint(net))
    weight = file.get(names.get(CLASSIFIER[0], ""))
    skipped = () if weight is None else _other_classes(net, path, weight, new_classifier)
    for name, tensor in own.items():
        found = file[names[name]]
        if name not in skipped and found.shape != tensor.shape:
            expected = f"{where}; {names[name]} has shape {_shape(found)} instead of {_shape(tensor)}, as {name}"
            raise SettingError(FIELD, str(path), expected, _hint(net))
    return {name: file[names[name]] for name in own if name not in skipped}


def _check_matrices(net: Supernet, path: Path, missing: Collection[str], left: Collection[str]) -> None:
    """Raise where a file and a supernet differ in nothing but the kernels' matrices, which are a setting."""
    for given, names, expected in ((True, missing, "false: {} holds no"), (False, left, "true: {} holds")):
        if names and all(".matrices." in name or name.endswith("_matrix") for name in names):
            expected = f"{expected.format(path)} matrices that turn large kernels into small ones"
            hint = f"set it to {str(not given).lower()}; in Python Supernet(..., kernel_transform={not given})"
            raise SettingError("supernet.kernel_transform", given, expected, hint)


def _other_classes(net: Supernet, path: Path, weight: Tensor, new_classifier: bool) -> tuple[str, ...]:
    """Return the tensors of the classifier if the file's has other classes and may be replaced, else nothing."""
    classes = weight.shape[0] if weight.ndim == 2 else net.num_classes
    if classes == net.num_classes:
        return ()
    if not new_classifier:
        expected = f"weights for {net.num_classes} classes; it has {classes}"
        hint = "train from it: with supernet.epochs above 0 it gets a new classifier"
        raise SettingError(FIELD, str(path), expected, hint)
    return CLASSIFIER


def _misfit(
    own: Mapping[str, Tensor],
    file: Mapping[str, Tensor],
    names: Mapping[str, str],
    missing: Collection[str],
    left: Collection[str],
) -> str:
    """Name the first tensor that is missing and the first that has no place, each with the nearest names."""
    words = []
    if missing:
        name = next(iter(missing))
        theirs = f" ({names[name]})" if names[name] != name else ""
        near = _nearest(names[name], left or file)
        words.append(f"it lacks {name}{theirs} {_shape(own[name])}{_more(missing)}; nearest in it: {near}")
    if left:
        name = next(iter(left))
        near = _nearest(name, [names[one] for one in missing] or names.values())
        words.append(f"there is no place for its {name} {_shape(file[name])}{_more(left)}; nearest expected: {near}")
    return "; ".join(words)


def _more(names: Collection[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _nearest(name: str, names: Iterable[str]) -> str:
    return ", ".join(get_close_matches(name, names, n=3, cutoff=0.0))


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _hint(net: Supernet) -> str:
    return f"use weights of a supernet of {net.space.name}, or name the space of these with space"
