"""The student folder, and what is made of it for others: ``nas_kd.export(student, to="onnx")``."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nas_kd.lazy import lazy

if TYPE_CHECKING:
    from nas_kd.export.deploy import Exported as Exported
    from nas_kd.export.deploy import export as export
    from nas_kd.export.student import load_student as load_student
    from nas_kd.export.student import save_student as save_student

_HOME = {
    "Exported": "deploy",
    "export": "deploy",
    "load_student": "student",
    "save_student": "student",
}
__all__ = [*_HOME]
__getattr__, __dir__ = lazy(__name__, _HOME)


class _Room(ModuleType):
    """This package: Python binds it to ``nas_kd.export``, which is the name of the function too."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module(f"{__name__}.deploy").export(*args, **kwargs)


# calling looks at the class; Python's data model, "Customizing module attribute access", has this way to give one
sys.modules[__name__].__class__ = _Room
