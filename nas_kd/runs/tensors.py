"""Files of tensors: which are in them is read from the header, before any memory is taken for them."""

from __future__ import annotations

from pathlib import Path

from nas_kd.config.reading import check_file, memory
from nas_kd.errors import SettingError

ShapesOf = dict[str, tuple[int, ...]]


def shapes_in(path: Path, field: str, hint: str) -> ShapesOf:
    """Read the names and shapes of the tensors in a .safetensors file.

    Args:
        field: the setting that names it, for the message.
        hint: how to mend it.

    Returns:
        Name to shape, as the header says.

    Raises:
        SettingError: it is damaged, or does not fit into memory.
        FileNotFoundError: there is nothing.
    """
    from safetensors import SafetensorError, safe_open

    check_file(path, memory(), field=field, hint=hint)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise SettingError(field, str(path), "an undamaged .safetensors file", hint) from error
