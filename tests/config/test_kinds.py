"""Public functions say which argument is of the wrong kind, whatever they are given; none fails deep inside."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import nas_kd
from nas_kd.config.kinds import _arguments, _fits, _plain, checked
from nas_kd.errors import SettingError

OTHERS = ("Stopped", "SettingError")  # exceptions, which callers catch and do not make
# settings whose classes check them; see test_config
FUNCTIONS = sorted(
    name
    for name in nas_kd.__all__
    if inspect.isfunction(getattr(nas_kd, name)) and not name.startswith("_") and name not in OTHERS
)
NETWORK = torch.nn.Linear(2, 2)
WRONG: tuple[Any, ...] = (
    *(None, 3, -1.5, "text", b"bytes", True, [], [None], {"a": 1}, object(), np.zeros(3), np.zeros((2, 2))),
    *(torch.zeros(2), torch.tensor(1.0), pd.DataFrame(), NETWORK, (1, 2, 3), {1}, print, int, Path("x")),
)


def raw(name: str) -> Any:
    return inspect.unwrap(getattr(nas_kd, name))


def named(name: str) -> list[str]:
    """The parameters of a function that are no settings."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [key for key, one in inspect.signature(raw(name)).parameters.items() if one.kind not in kinds]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_annotation_is_read(name: str) -> None:
    function = raw(name)
    hints = _arguments(function)[1]
    assert set(hints) == set(named(name))
    assert getattr(nas_kd, name) is not function, "a public function is decorated by `checked`"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_fits_without_a_look_fits(name: str) -> None:
    some = [*WRONG, 1, 1.5, True, "text", None, b"", [1], (1,), {"a": 1}, NETWORK, torch.zeros(2), Path("x")]
    for hint in _arguments(raw(name))[1].values():
        for value in some:
            assert type(value) not in _plain(hint) or _fits(value, hint), (hint, value)
    assert _plain(int | None) == {int, type(None)} and _plain(list[int]) == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_wrong_kind_is_named(name: str) -> None:
    for key, hint in _arguments(raw(name))[1].items():
        wrong = [value for value in WRONG if not _fits(value, hint)]
        assert wrong or hint is Any, key
        for value in wrong:
            with pytest.raises(SettingError) as caught:
                getattr(nas_kd, name)(**{key: value})
            assert caught.value.field == key
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [3, np.int64(3)], [True, 3.0, "3", None, np.float32(3)]),
        (float, [3, 0.5, np.float32(3)], [True, "3", None, torch.tensor(1.0)]),
        (bool, [True, np.bool_(True)], [1, None, "true"]),
        (str | Path, ["a", Path("a")], [b"a", 3, None]),
        (int | None, [None, 3], ["3", 0.5]),
        (typing.Sequence[float], [[1.0, 2], (1,), np.zeros(3), []], ["ab", 3, {"a": 1}, ["a"], np.float64(1)]),
        (typing.Sequence[pd.DataFrame], [[pd.DataFrame()], ()], [[1], 3, None]),
        (typing.Mapping[str, int], [{}, {"a": 1}], [[], 3, "a"]),
        (typing.Callable[[], int], [print, int], [3, None, "a"]),
        (typing.Literal["a", "b"], ["a"], ["c", 3, None, []]),
        (Any, [None, 3], []),
    ],
)
def test_what_fits_an_annotation(hint: Any, good: list[Any], bad: list[Any]) -> None:
    assert all(_fits(value, hint) for value in good)
    assert not any(_fits(value, hint) for value in bad)


def test_a_decorated_function_is_called_as_it_was() -> None:
    @checked
    def told(a: int, *more: str, b: str = "b", **rest: object) -> object:
        """Say it."""
        return a, more, b, rest

    assert told(1, "x", b="c", d=5) == (1, ("x",), "c", {"d": 5})
    assert told.__doc__ == "Say it." and list(inspect.signature(told).parameters) == ["a", "more", "b", "rest"]
    with pytest.raises(TypeError, match="missing 1 required"):
        told()
    with pytest.raises(SettingError, match="^b=5: expected text; hint: "):
        told(1, b=5)


@pytest.mark.parametrize("value", WRONG)
def test_objects_say_so_too(value: Any) -> None:
    space = nas_kd.load_space("digits")
    arch = space.smallest()
    calls = [
        (lambda: nas_kd.Run(value), str | Path),
        (lambda: nas_kd.Classification(smoothing=value), float),
        (lambda: nas_kd.MultiLabel(weights=value), list | tuple | type(None)),
        (lambda: nas_kd.Regression(measure=value), str),
        (lambda: nas_kd.Supernet(value), nas_kd.Supernet),
        (lambda: nas_kd.Arch.from_dict(value), dict),
        (lambda: space.validate(value), nas_kd.Arch),
        (lambda: space.cost(value, num_classes=10), nas_kd.Arch),
        (lambda: space.build(value, num_classes=10), nas_kd.Arch),
        (lambda: space.sample(value), int),
        (lambda: space.cost(arch, num_classes=value), int),
    ]
    for call, kind in calls:
        if kind is not dict and _fits(value, kind):
            continue
        with pytest.raises(SettingError):
            call()
