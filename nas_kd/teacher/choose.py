"""The rule that pairs the stages of a space with layers of a teacher."""

from __future__ import annotations

from collections.abc import Sequence

from nas_kd.errors import SettingError, nearest
from nas_kd.teacher.taps import Layer, Tap


def choose_taps(layers: Sequence[Layer], student_sizes: Sequence[int], stem: Sequence[Layer] = ()) -> list[Tap]:
    """Assign a teacher layer to every student stage (output heights in pixels), both ordered from input to output.

    These are the ends of the teacher's own stages if there are as many as the student has, else the last layers of its
    resolutions, else layers at equal shares of its depth. A layer whose map is smaller than the student's is replaced
    by the last one before it that is large enough, the stem's modules among them; where none is, the largest maps do.
    Where two stages would share a layer, the earlier one gets the end of a stage of the teacher between its neighbours,
    else the layer half way; where none is left before it, the later one keeps its own layer, however small its map.
    No layer is used twice if there are enough of them.

    Args:
        layers: the ends of the teacher's blocks.
        stem: what comes before the first of them, for stages whose maps are larger than the blocks'.
    """
    every = [*stem, *layers]
    natural = [len(stem) + i for i in _natural(layers, len(student_sizes))]
    ends = [len(stem) + i for i in sorted({*_stage_ends(layers), *_resolution_ends(layers)})]
    largest = max(layer.size for layer in every)
    chosen = [_last_of_size(every, i, min(size, largest)) for i, size in zip(natural, student_sizes, strict=True)]
    parted = _parted(chosen, ends, len(stem))
    enough = len(every) >= len(parted)
    chosen = _deepened(chosen, natural) if enough and len(set(parted)) < len(parted) else parted
    return [_tap(every[i], size) for i, size in zip(chosen, student_sizes, strict=True)]


def _last_of_size(every: Sequence[Layer], limit: int, size: int) -> int:
    """Return the last layer up to a limit that has a map of a size; without one, the first that has."""
    large = [i for i, layer in enumerate(every) if layer.size >= size]
    return max((i for i in large if i <= limit), default=large[0])


def _parted(chosen: Sequence[int], ends: Sequence[int], first: int) -> list[int]:
    """Move layers that later stages have, too, to earlier ones of maps as large; the first stages may still agree.

    Args:
        ends: the last layers of the teacher's stages.
        first: the first layer behind the stem.
    """
    found = list(chosen)
    for stage in range(len(found) - 2, -1, -1):
        limit = found[stage + 1]
        if found[stage] < limit:
            continue
        after = found[stage - 1] if stage else -1
        between = [i for i in ends if after < i < limit]
        if between:
            found[stage] = between[-1]
        elif stage and after + 1 < limit:
            start = max(after, first - 1) if limit > first else after
            found[stage] = max((start + limit) // 2, after + 1)
        else:
            found[stage] = max(limit - 1, 0)
    return found


def _deepened(chosen: Sequence[int], natural: Sequence[int]) -> list[int]:
    """Let stages that would share a layer have those that end their part of the teacher, whose maps are smaller."""
    found: list[int] = []
    for position, own in zip(chosen, natural, strict=True):
        found.append(own if found and position <= found[-1] else position)
    return found


def named_taps(modules: Sequence[Layer], student_sizes: Sequence[int], paths: Sequence[str]) -> list[Tap]:
    """Assign the modules that the user named, one per student stage.

    Raises:
        SettingError: a name is unknown, or the number or order of names is wrong.
    """
    if len(paths) != len(student_sizes):
        expected = f"{len(student_sizes)} layers, one per stage of the space"
        raise SettingError("teacher.stages", list(paths), expected, "name one teacher layer per stage")
    order = {layer.path: i for i, layer in enumerate(modules)}
    for path in paths:
        if path not in order:
            expected = "a layer of the teacher with a feature map as output"
            raise SettingError("teacher.stages", path, expected, nearest(path, order))
    positions = [order[path] for path in paths]
    if positions != sorted(positions):
        raise SettingError("teacher.stages", list(paths), "layers from input to output", "reorder them")
    return [_tap(modules[position], size) for position, size in zip(positions, student_sizes, strict=True)]


def _natural(layers: Sequence[Layer], count: int) -> list[int]:
    """Return the layers that end ``count`` parts of the teacher, whatever the sizes of their maps."""
    for ends in (_stage_ends(layers), _resolution_ends(layers)):
        if len(ends) == count:
            return ends
    # integers only: equal shares rounded half up
    return [max((2 * (s + 1) * len(layers) + count) // (2 * count), 1) - 1 for s in range(count)]


def _stage_ends(layers: Sequence[Layer]) -> list[int]:
    """Return the last layers of the teacher's own stages: of the modules that hold its blocks."""
    homes = [layer.path.rpartition(".")[0] for layer in layers]
    return [i for i, home in enumerate(homes) if i + 1 == len(homes) or homes[i + 1] != home]


def _resolution_ends(layers: Sequence[Layer]) -> list[int]:
    return [i for i, layer in enumerate(layers) if i + 1 == len(layers) or layers[i + 1].size != layer.size]


def _tap(layer: Layer, student_size: int) -> Tap:
    return Tap(layer.path, layer.channels, layer.size, student_size, layer.pre)
