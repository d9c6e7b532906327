"""Finding spaces by name and by path, and the example of search_spaces/README.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nas_kd
import search_spaces
from nas_kd.errors import SettingError
from nas_kd.space import space_names

README = Path(search_spaces.__path__[0]) / "README.md"


def test_names_are_the_modules() -> None:
    published = {"attentive_nas", "dna", "ofa_mobilenet_v3", "ofa_proxyless", "ofa_resnet50d", "vit", "vit_cifar"}
    assert {"digits", "mobilenet_cifar", "resnet_cifar"} | published <= set(space_names())
    assert all(nas_kd.load_space(name).name == name for name in space_names())


def test_looking_for_every_space_needs_no_torch() -> None:
    """Blocks are networks, so a space that is loaded has loaded torch; a configuration that is checked has not."""
    code = (
        "import sys; from nas_kd.space.load import find_space; [find_space(n) for n in sys.argv[1:]]\n"
        "sys.exit('torch' in sys.modules or any(m.startswith('search_spaces.') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code, *space_names()], check=True)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(SettingError, match="did you mean 'resnet_cifar'"):
        nas_kd.load_space("resnet_cifa")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="nowhere.py"):
        nas_kd.load_space(str(tmp_path / "nowhere.py"))


def test_a_file_without_space_is_refused(tmp_path: Path) -> None:
    for text in ("x = 1\n", "SPACE = 'digits'\n"):
        (tmp_path / "mine.py").write_text(text)
        with pytest.raises(SettingError, match="SPACE"):
            nas_kd.load_space(str(tmp_path / "mine.py"))


def examples() -> list[str]:
    return re.findall(r"```python\n(# my_space\.py\n.*?)```", README.read_text(), re.DOTALL)


def test_the_readme_has_one_example_of_under_60_lines() -> None:
    (text,) = examples()
    assert len(text.splitlines()) < 60


def test_the_readme_example_is_a_working_space(tmp_path: Path) -> None:
    (text,) = examples()
    path = tmp_path / "my_space.py"
    path.write_text(text)
    space = nas_kd.load_space(str(path))
    net = nas_kd.Supernet(space, num_classes=5, in_chans=1)
    x = torch.randn(4, 1, space.resolution, space.resolution)
    for arch in (space.largest(), space.smallest(), space.sample(seed=0)):
        assert nas_kd.Arch.from_dict(arch.to_dict()) == arch
        student = net.extract(arch)
        assert torch.equal(student(x), net(x, arch))
        cost = space.cost(arch, in_chans=1, num_classes=5)
        assert cost.params == sum(p.numel() for p in student.parameters())
    # its hash is of the choices: the same file elsewhere is the same space
    (tmp_path / "copy.py").write_text(text)
    assert nas_kd.load_space(str(tmp_path / "copy.py")).hash == space.hash
