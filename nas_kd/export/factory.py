"""Networks built by a factory of a package, and which factories a student folder may name."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from site import getsitepackages, getusersitepackages
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook as on_buffer
from torch.nn.modules.module import register_module_parameter_registration_hook as on_parameter

from nas_kd.errors import SettingError
from nas_kd.runtime.user_module import import_of_user

# arguments with which timm would read files or download
FETCHES = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


class _TooLarge(RuntimeError):
    """A factory makes many more weights than there are for it."""


@contextmanager
def _bounded(weights: int | None) -> Iterator[None]:
    """Stop a factory before what it makes is initialised, and so takes memory, if that is far more than is needed.

    Args:
        weights: numbers that the network has; parts that are made and replaced count too, hence four times as many.
    """
    if weights is None:
        yield
        return
    most, made, thread = 4 * weights + 2**22, 0, get_ident()

    def count(module: nn.Module, name: str, value: Any) -> None:
        nonlocal made
        if isinstance(value, Tensor) and get_ident() == thread:  # the hook is that of all threads
            made += value.numel()
            if made > most:
                raise _TooLarge(f"it makes {made:,} numbers or more, for weights of {weights:,}")

    hooks = [register(count) for register in (on_parameter, on_buffer)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def build_by(factory: str, kwargs: Mapping[str, Any], weights: int | None = None) -> nn.Module:
    """Call a factory that the user has named.

    Args:
        factory: ``"package.module:callable"`` or ``"timm:MODEL"``.
        weights: about how many numbers its network has; None sets no bound.

    Raises:
        SettingError: the factory does not exist, fails, or does not return a network.
    """
    place, _, name = str(factory).partition(":")
    hint = "use the factory that the student was saved with"
    if not place or not name:
        raise SettingError("factory", factory, "package.module:callable or timm:MODEL", hint)
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        raise SettingError("factory_kwargs", kwargs, "a mapping of keyword arguments", hint)
    build = _timm(factory, name, kwargs) if place == "timm" else _imported(factory, place, name)
    try:
        # initial weights are replaced: they must not advance the generator
        with torch.random.fork_rng(devices=[]), _bounded(weights):
            built = build(**kwargs)
    except _TooLarge as error:
        raise SettingError("factory", factory, f"a network with the folder's tensors; {error}", hint) from error
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, AssertionError) as error:
        expected = f"a factory that takes factory_kwargs ({type(error).__name__}: {error})"
        raise SettingError("factory", factory, expected, hint) from error
    if not isinstance(built, nn.Module):
        expected = f"a callable that returns an nn.Module, not {type(built).__name__}"
        raise SettingError("factory", factory, expected, hint)
    return built


def check_untrusted(factory: object, folder: Path) -> None:
    """Reject a factory named only by a folder, unless it is an installed network class.

    An installed network class runs no code chosen by the author of the folder; a function might, such as one of torch
    that opens a pickle.

    Raises:
        SettingError: it is a function, or a class of a file in the folder or next to it.
    """
    place, _, name = str(factory).partition(":")
    if place == "timm" or not name:
        return
    hint = (
        f"if you trust that code: load_student(folder, factory={str(factory)!r}), on the command line nas-kd export "
        f"FOLDER --factory {factory}, as a teacher teacher.model={factory} with "
        f"teacher.checkpoint={folder / 'weights.safetensors'}"
    )
    if _is_bundled(factory, place, folder, hint):
        expected = "a network of an installed package; this one is next to the folder, or in no package"
        raise SettingError("factory", factory, expected, hint)
    kind = _imported(str(factory), place, name)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise SettingError("factory", factory, "a network class: functions are only called when you name them", hint)


def _is_bundled(factory: object, place: str, folder: Path, hint: str) -> bool:
    """Return whether a module's file is in the folder, next to it, or in a folder that is no package.

    Installed packages do not count as next to it, even where the environment is. Modules are checked from the outermost
    on, because to find one of a package runs that package.
    """
    parts = place.split(".")
    inside = folder.resolve()
    installed = {Path(site).resolve() for site in (*getsitepackages(), getusersitepackages(), *_pure_and_binary())}
    for end in range(1, len(parts) + 1):
        try:
            spec = find_spec(".".join(parts[:end]))
        except (ImportError, ValueError, AttributeError) as error:
            raise _absent(factory, place, error, hint) from error
        if spec is None:
            missing = ModuleNotFoundError(f"No module named {'.'.join(parts[:end])!r}")
            raise _absent(factory, place, missing, hint)
        if spec.origin is None:
            return True
        above = Path(spec.origin).resolve().parents
        if inside in above or (inside.parent in above and installed.isdisjoint(above)):
            return True
    return False


def _pure_and_binary() -> tuple[str, str]:
    return sysconfig.get_path("purelib"), sysconfig.get_path("platlib")


def _absent(factory: object, place: str, error: Exception, trusted: str = "") -> SettingError:
    hint = f"install the package that holds {place}, or put it on the Python path"
    if trusted:  # a file in the working folder is found when its user names it
        hint += f"; {trusted}"
    return SettingError("factory", factory, f"an importable callable ({error})", hint)


def _imported(factory: str, place: str, name: str) -> Any:
    root = place.split(".")[0]
    if root == "__main__" or root in sys.stdlib_module_names:
        # a script cannot be imported elsewhere, and os or subprocess build no networks
        expected = "a callable in an installed package, or in a module on the Python path"
        raise SettingError("factory", factory, expected, "move the function into a module of its own")
    try:
        found = getattr(import_of_user(place), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise _absent(factory, place, error) from error
    if not callable(found):
        raise SettingError("factory", factory, "a callable", "name a class or a function")
    return found


def _timm(factory: str, name: str, kwargs: Mapping[str, Any]) -> Any:
    import timm

    if not timm.is_model(name):
        expected = "timm: followed by the name of a timm model"
        raise SettingError("factory", factory, expected, "install the version of timm it was saved with")
    fetching = [key for key in FETCHES if kwargs.get(key)]
    if fetching:
        expected = "no arguments that load weights, which are in the student folder"
        raise SettingError("factory_kwargs", fetching[0], expected, "omit it")
    return lambda **given: timm.create_model(name, **{"pretrained": False, **given})
