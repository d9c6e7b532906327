"""What works on the supernet of a teacher says so where it is given that of another space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nas_kd
from nas_kd.errors import SettingError

CALLS: dict[str, Callable[..., Any]] = {
    "repair_units": lambda *given: nas_kd.repair_units(*given),
    "rate_units": lambda *given: nas_kd.rate_units(*given),
    "repair_student": lambda net, *given: nas_kd.repair_student(net, net.space.smallest(), *given),
    "cut_in_steps": lambda *given: nas_kd.cut_in_steps(*given, upper={"macs": 1000}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_supernet_of_another_space_is_refused(name: str) -> None:
    data = nas_kd.load_data("digits", subset=100)
    teacher = nas_kd.load_teacher("cifar_resnet8", num_classes=10, in_chans=1).bind(data)
    net = nas_kd.Supernet(nas_kd.load_space("digits"), in_chans=1)
    with pytest.raises(SettingError, match=r"net='a supernet of digits'.*a teacher's space.*teacher_space"):
        CALLS[name](net, teacher, data)
