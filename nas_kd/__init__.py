"""Find, retrain and explain the student network that a fixed teacher teaches best within a budget."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas_kd.errors import SettingError as SettingError
    from nas_kd.run import Run as Run

__version__ = "0.1.0"

# public name -> module; torch and timm load with the first name that needs them, not with `import nas_kd`
_HOME = {
    "SettingError": "errors",
    "Run": "run",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nas_kd' has no attribute {name!r}")
    return getattr(import_module(f"nas_kd.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
