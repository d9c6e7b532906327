"""The numbers of search_spaces/README.md are those of the spaces."""

from __future__ import annotations

import re
from pathlib import Path

import nas_kd
import search_spaces
from nas_kd.space import space_names

README = (Path(search_spaces.__path__[0]) / "README.md").read_text()


def table_row(name: str, networks: str, source: str) -> str:
    """Return the row of a space; all but its two descriptions is computed."""
    space = nas_kd.load_space(name)
    classes = 1000 if space.resolution >= 64 else 10
    macs = [space.cost(arch, num_classes=classes).macs / 1e6 for arch in (space.smallest(), space.largest())]
    low, high = (f"{m:.3g}" if m < 1000 else f"{m:,.0f}" for m in macs)
    size = f"{space.size:,}" if space.size < 1e6 else f"{space.size:.1e}".replace("e+0", "e").replace("e+", "e")
    images = " to ".join(
        str(r) for r in sorted({*space.resolutions[:1], *space.resolutions[-1:]} or {space.resolution})
    )
    stages = f"{max(stage.size for stage in space.stages):,}"
    return f"| `{name}` | {networks} | {source} | {images} px | {size} | up to {stages} | {low} to {high} |"


def test_the_table_has_every_space_and_its_numbers() -> None:
    found = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| .*$", README, re.MULTILINE)
    assert sorted(name for name, *_ in found) == space_names()
    for name, networks, source in found:
        assert table_row(name, networks, source) in README.splitlines(), table_row(name, networks, source)


def test_the_named_arch_costs_what_the_example_says() -> None:
    (code, wanted) = re.search(r"```python\n(from search_spaces.*?)\s+# (Cost\(.*?\))\n```", README, re.DOTALL).groups()
    assert wanted == "Cost(macs=356518400, params=12784928)"
    setup, _, last = code.strip().rpartition("\n")
    scope: dict[str, object] = {}
    exec(setup, scope)
    assert repr(eval(last, scope)) == wanted
