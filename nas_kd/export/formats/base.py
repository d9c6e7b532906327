"""What a format is: how a student is written in it and read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.export.deployed import Deployed

Read = Callable[[Tensor], Tensor]  # images (B, C, H, W) to logits (B, classes)


@dataclass(frozen=True)
class Quantiser:
    """What turns a file of a format into one of 8 bits: weights by channel, activations by tensor, from images.

    Args:
        run: writes the second path from the first; batches of images as the file takes them come with it.
        packages: modules that it needs.
        extra: extra of nas_kd that installs them.
        read: reads such a file back; None reads it as any of the format.
    """

    run: Callable[[Path, Path, Iterator[Tensor]], None]
    packages: tuple[str, ...]
    extra: str
    read: Callable[[Path], Read] | None = None

    def need_packages(self) -> None:
        """Refuse to start without the packages.

        Raises:
            SettingError: one is not installed.
        """
        need_packages("int8", True, self.packages, self.extra)


@dataclass(frozen=True)
class Format:
    """One form in which a student is handed over.

    Args:
        name: what ``to=`` takes.
        suffix: of its file; empty for a folder.
        runtime: what runs it, in tables of latencies.
        write: writes a network to a path; (2, C, H, W) images come with it.
        read: reads it back.
        trace: traces one module on its arguments as `write` does, so that the module at fault is found.
        packages: modules that it needs besides torch and timm.
        extra: extra of nas_kd that installs them.
        whole: whether normalisation and probabilities can be inside.
        int8: makes 8 bits of its file; None where nothing does.
    """

    name: str
    suffix: str
    runtime: str
    write: Callable[[Deployed, Tensor, Path], None]
    read: Callable[[Path], Read]
    trace: Callable[[nn.Module, tuple[object, ...]], object] | None = None
    packages: tuple[str, ...] = ()
    extra: str = ""
    whole: bool = True
    int8: Quantiser | None = None

    def need_packages(self) -> None:
        """Refuse to start without the packages.

        Raises:
            SettingError: one is not installed.
        """
        need_packages("to", self.name, self.packages, self.extra)


def need_packages(setting: str, value: object, packages: tuple[str, ...], extra: str) -> None:
    """Refuse a setting whose packages are not installed.

    Raises:
        SettingError: naming the first of them and the extra that brings it.
    """
    for package in packages:
        if find_spec(package) is None:
            expected = f"a value whose packages are installed; {package} is not"
            raise SettingError(setting, value, expected, f"pip install 'nas_kd[{extra}]'")
