"""A space as an `nni.mutable` space, and samples in both directions; NNI is imported only when needed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError, nearest
from nas_kd.space.arch import Arch, Candidate, Setting

if TYPE_CHECKING:
    from nas_kd.space.elastic import ElasticSpace
    from nas_kd.space.ends import End
    from nas_kd.space.stages import Stage

Choices = dict[str, tuple[Setting, ...]]


def to_nni(space: ElasticSpace) -> Any:
    """Describe a space to NNI.

    Returns:
        An ``nni.mutable.MutableDict`` of Categoricals without constraints, so that its ``random()`` and every NNI
        strategy work. Labels are ``stage_1.width``, ``stage_1.depth``, ``stage_1.layer_1.kernel`` and so on; a setting
        that all layers of a stage share belongs to the stage (``stage_1.se``). The other elastic choices have labels
        too (``stem.width``, ``head.features``, ``resolution``). A stage that keeps the width of its input has no
        width label.

    Raises:
        SettingError: NNI is not installed, or the layer choices of a stage are not a plain product.
    """
    try:
        with warnings.catch_warnings():  # NNI 3.0 warns about names that newer versions of torch added
            warnings.simplefilter("ignore")
            from nni.mutable import Categorical, MutableDict
    except ImportError as error:
        hint = "pip install 'nas_kd[nni]' on an x86-64 machine; everything else works without it"
        raise SettingError("nni", "not installed", "the package nni, 3.0 or later", hint) from error

    tree: dict[str, Any] = {}
    for label, values in choices(space).items():
        *path, leaf = label.split(".")
        at = tree
        for part in path:
            at = at.setdefault(part, {})
        at[leaf] = Categorical(list(values), label=label)

    def wrap(value: Any) -> Any:
        return MutableDict({k: wrap(v) for k, v in value.items()}) if isinstance(value, dict) else value

    return wrap(tree)


def choices(space: ElasticSpace) -> Choices:
    """List the values of every label: stem, stage by stage, head, resolution.

    Raises:
        SettingError: the layer choices of a stage are not a plain product.
    """
    table = _elastic("stem", space.stem)
    for number, stage in enumerate(space.stages, 1):
        shared, own = _settings(stage, number)
        if not stage.keeps_width:
            table[f"stage_{number}.width"] = stage.widths
        table[f"stage_{number}.depth"] = stage.depths
        table |= {f"stage_{number}.{field}": values for field, values in shared.items()}
        for layer in range(1, stage.depths[-1] + 1):
            table |= {f"stage_{number}.layer_{layer}.{field}": values for field, values in own.items()}
    table |= _elastic("head", space.head)
    return table | ({"resolution": space.resolutions} if space.resolutions else {})


def _elastic(name: str, end: End) -> Choices:
    """List the values of the elastic fields of a stem or a head, in the order of an arch's setting."""
    options = zip(end.fields, end.options(), strict=True)
    return {f"{name}.{field}": values for field, values in options if len(values) > 1}


def from_sample(space: ElasticSpace, sample: Mapping[str, Any]) -> Arch:
    """Convert an NNI sample to an arch.

    Args:
        sample: value by label. Labels of layers beyond the depth are ignored and may be missing, so samples that differ
            only in them are the same arch.

    Raises:
        SettingError: a label is unknown or missing, or its value is not offered.
    """
    table = choices(space)
    for label in sample:
        if label not in table:
            raise SettingError("sample", label, f"a label of the space {space.name}", nearest(label, table))

    def value(label: str) -> Any:
        if label not in sample:
            raise SettingError("sample", f"{label} is missing", "a value for every label", f"add {label}")
        if sample[label] not in table[label]:
            raise SettingError(f"sample[{label!r}]", sample[label], f"one of {list(table[label])}")
        # the space's own type, which JSON may have changed
        return table[label][table[label].index(sample[label])]

    stem, head = (tuple(map(value, _elastic(name, end))) for name, end in _ends(space))
    width = space.stem.width_of(stem)
    stages = []
    for number, stage in enumerate(space.stages, 1):
        at = f"stage_{number}"
        shared = _settings(stage, number)[0]
        layers = tuple(
            tuple(value(f"{at}.{f}" if f in shared else f"{at}.layer_{layer}.{f}") for f in stage.fields)
            for layer in range(1, value(f"{at}.depth") + 1)
        )
        width = width if stage.keeps_width else value(f"{at}.width")
        stages.append(Candidate(width, layers))
    resolution = value("resolution") if space.resolutions else None
    return space.arch(stages, stem=stem, head=head, resolution=resolution)


def _ends(space: ElasticSpace) -> tuple[tuple[str, End], tuple[str, End]]:
    return ("stem", space.stem), ("head", space.head)


def to_sample(space: ElasticSpace, arch: Arch) -> dict[str, Setting]:
    """Convert an arch to an NNI sample; layers beyond the depth get the first value offered.

    Raises:
        SettingError: the arch is not in the space.
    """
    space.validate(arch)
    sample = {label: values[0] for label, values in choices(space).items()}
    for name, end in _ends(space):
        sample |= zip(_elastic(name, end), getattr(arch, name), strict=True)
    if arch.resolution is not None:
        sample["resolution"] = arch.resolution
    for number, (stage, candidate) in enumerate(zip(space.stages, arch.stages, strict=True), 1):
        if not stage.keeps_width:
            sample[f"stage_{number}.width"] = candidate.width
        sample[f"stage_{number}.depth"] = candidate.depth
        for index, layer in enumerate(candidate.layers, 1):
            for field, setting in zip(stage.fields, layer, strict=True):
                at_stage = f"stage_{number}.{field}"
                sample[at_stage if at_stage in sample else f"stage_{number}.layer_{index}.{field}"] = setting
    return sample


def _settings(stage: Stage, number: int) -> tuple[Choices, Choices]:
    """Return the settings that all layers of a stage share, and those that each layer has for itself."""
    groups = stage.groups()
    columns = [[tuple(dict.fromkeys(values)) for values in zip(*group, strict=True)] for group in groups]
    shared: Choices = {}
    own: Choices = {}
    for index, field in enumerate(stage.fields):
        offered = tuple(dict.fromkeys(value for group in columns for value in group[index]))
        alone = len(groups) > 1 and len(offered) > 1 and all(len(group[index]) == 1 for group in columns)
        (shared if alone else own)[field] = offered
    made = set()
    for values in product(*shared.values()):
        fixed = dict(zip(shared, values, strict=True))
        made.add(frozenset(product(*((fixed[f],) if f in fixed else own[f] for f in stage.fields))))
    if made != {frozenset(group) for group in groups}:
        expected = "layer choices that are a product of the values of their fields"
        hint = "search this space without NNI"
        raise SettingError(f"stages[{number - 1}]", type(stage).__name__, expected, hint)
    return shared, own
