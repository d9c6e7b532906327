"""Find a space by the name of a module in search_spaces or by the path of a Python file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from nas_kd.config.kinds import checked
from nas_kd.errors import SettingError, nearest
from nas_kd.space.elastic import ElasticSpace

NNI = "nni:"  # before names of NNI's hub


def space_names() -> list[str]:
    """Return the names of the spaces that ``search_spaces`` ships."""
    spec = importlib.util.find_spec("search_spaces")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return sorted(p.stem for folder in folders for p in Path(folder).glob("*.py") if not p.stem.startswith("_"))


def find_space(name: str) -> Path | None:
    """Find the file of a space without executing it; None for a module of ``search_spaces``.

    Raises:
        SettingError: there is no such module or file.
    """
    if name.startswith(NNI):
        expected = "a space whose archs share weights; NNI builds each network of its hub by itself"
        hint = f"name another space, and retrain.rivals=[{name}] for a network of that one beside the found student"
        raise SettingError("space", name, expected, hint)
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise SettingError("space", name, "the path of an existing .py file", "check the path")
        return path
    if name not in (names := space_names()):
        expected = "a module of search_spaces or the path of a .py file with a SPACE"
        raise SettingError("space", name, expected, nearest(name, names))
    return None


def _module(name: str) -> ModuleType:
    path = find_space(name)
    if path is not None:
        spec = importlib.util.spec_from_file_location(f"nas_kd_space_{path.stem}", path)
        assert spec is not None and spec.loader is not None  # a .py path always has both
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses in the file look up their module
        try:
            spec.loader.exec_module(module)
        except SettingError:
            raise
        except Exception as error:  # any error of the user's code
            expected = f"a .py file that runs ({type(error).__name__}: {error})"
            raise SettingError("space", name, expected, "fix the file") from error
        return module
    return importlib.import_module(f"search_spaces.{name}")


@checked
def load_space(name: str) -> ElasticSpace:
    """Load a search space.

    Args:
        name: module in search_spaces, such as ``resnet_cifar``, or a path such as ``my/space.py``.

    Raises:
        SettingError: there is no such module or file, or it has no SPACE.
    """
    space = getattr(_module(name), "SPACE", None)
    if not isinstance(space, ElasticSpace):
        raise SettingError("space", name, "a module whose SPACE is an ElasticSpace", "define SPACE in it")
    return space
