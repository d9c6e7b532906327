"""What every source of targets promises; `SOURCES` gets a line with every new one."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Sizes

import nas_kd
from nas_kd.data import Batch, Data, load_data
from nas_kd.distill import Distiller, LearnedEnsemble, Privileged, pair_of
from nas_kd.distill.own import MeanTeacher, SelfTargets
from nas_kd.distill.peers import Grafted, Peers
from nas_kd.distill.sampling import PairedBatch
from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.runs.run import Run
from nas_kd.teacher import StoredFeatures, TargetSource, Teacher, TeacherEnsemble, ViewCache, as_targets, cifar_resnet8
from nas_kd.teacher.stored_features import StageFeatureFiles

CLASSES = 3
PACKAGE = Path(nas_kd.__file__).parent


def make_data(classes: int = CLASSES, seed: int = 0, resolution: int | None = None) -> Data:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8, generator=generator)
    y = torch.arange(60) % classes
    return load_data((x, y), rate=9, select=9, views=2, resolution=resolution)


def make_teacher(data: Data, seed: int = 0) -> Teacher:
    torch.manual_seed(seed)
    teacher = nas_kd.load_teacher(cifar_resnet8(num_classes=CLASSES)).bind(data)
    teacher.match(Sizes(8, 4, 4), data.resolution)
    return teacher


class Flat(TargetSource):
    """The least that a source of a user's own defines."""

    def logits(self, batch: Batch) -> Tensor:
        return batch.x.mean((2, 3))


def flat(batch: Batch) -> Tensor:
    return batch.x.mean((2, 3))


def worker_cache(teacher: Teacher, data: Data, folder: Path) -> ViewCache:
    cache = ViewCache.open(folder / "worker", teacher, data)
    cache.split_logits("test")
    return ViewCache.load(cache.folder)


Make = Callable[[Teacher, Data, Path], TargetSource | None]
SOURCES: dict[str, Make] = {
    "teacher": lambda teacher, data, folder: teacher,
    "cache": lambda teacher, data, folder: ViewCache.open(folder / "cache", teacher, data, epochs=0),
    "cache of a worker": worker_cache,
    "stored features": lambda teacher, data, folder: StoredFeatures(teacher, data),
    "features of stages": lambda teacher, data, folder: StageFeatureFiles(
        teacher, data, folder, ([1.0] * 3, [1.0] * 3)
    ),
    "one of a list": lambda teacher, data, folder: as_targets([teacher]),
    "several": lambda teacher, data, folder: TeacherEnsemble(
        [teacher, make_teacher(data, seed=1), ViewCache.open(folder / "several", teacher, data)]
    ),
    "privileged": lambda teacher, data, folder: Privileged(teacher),
    "function": lambda teacher, data, folder: as_targets(flat),
    "own": lambda teacher, data, folder: Flat(),
}
STORING = ("cache", "cache of a worker", "stored features", "features of stages")
OF_TEACHERS = [name for name in SOURCES if name not in ("function", "own")]


def student(model: nn.Module | None = None) -> Any:
    torch.manual_seed(0)
    recipe = Distiller("ddgsd").recipe
    return pair_of(cifar_resnet8(num_classes=CLASSES) if model is None else model, recipe, None, (3, 16, 16), CLASSES)


LEARNING: dict[str, Callable[[Teacher], TargetSource]] = {
    "learned ensemble": lambda teacher: LearnedEnsemble([teacher, teacher]),
    "mean teacher": lambda teacher: MeanTeacher(student()),
    "itself": lambda teacher: SelfTargets.fixed(student()),
    "itself learning": lambda teacher: SelfTargets.learning(student()),
    "peers": lambda teacher: Peers(student(), 3),
    "grafted": lambda teacher: Grafted(student()),
}


@pytest.fixture(scope="module")
def data() -> Data:
    return make_data()


@pytest.fixture(scope="module")
def teacher(data: Data) -> Teacher:
    return make_teacher(data)


@pytest.fixture(params=sorted(SOURCES))
def source(request: pytest.FixtureRequest, teacher: Teacher, data: Data, tmp_path: Path) -> TargetSource:
    teacher.bind(data)
    made = SOURCES[request.param](teacher, data, tmp_path)
    assert made is not None
    return made


def batch_of(data: Data) -> PairedBatch:
    """A training batch whose other images are the same."""
    batch = next(iter(data.train.batches(8, epoch=1, seed=0)))
    return PairedBatch(*batch, batch.x)


def is_the_teacher(source: TargetSource, teacher: Teacher) -> bool:
    return teacher.fingerprint in source.fingerprint and " + " not in source.fingerprint


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=2**-9, atol=2e-3)  # fp16


def test_logits_are_finite_and_without_gradient(source: TargetSource, teacher: Teacher, data: Data) -> None:
    batch: Any = batch_of(data)
    logits = source.logits(batch)
    assert logits.shape == (8, CLASSES) and logits.dtype == torch.float32 and logits.device == batch.x.device
    assert torch.isfinite(logits).all() and not logits.requires_grad
    assert torch.equal(logits, source.logits(batch))
    if is_the_teacher(source, teacher):
        near(logits, teacher(batch.x))


def test_features_are_the_teachers_or_refused(source: TargetSource, teacher: Teacher, data: Data) -> None:
    batch: Any = batch_of(data)
    if not source.gives_features:
        with pytest.raises(SettingError, match=type(source).__name__):
            source.features(batch)
        return
    found = source.features(batch)
    live = teacher.features(batch)
    assert [x.shape[2:] for x in found.pre] == [(8, 8), (4, 4), (4, 4)]
    for one, other in zip(found.pre, live.pre, strict=True):
        near(one, other)
    for one, other in zip(found.stages[:-1], live.stages[:-1], strict=True):
        near(one, other)
    assert not any(x.requires_grad for x in [*found.stages, *found.pre])


def test_any_image_is_taught_live_or_refused(source: TargetSource, teacher: Teacher, data: Data) -> None:
    batch: Any = batch_of(data)
    mixed = 0.5 * batch.x + 0.5 * batch.x.flip(0)
    unseen = batch._replace(x=mixed, other=mixed, view=torch.full_like(batch.view, -1))
    try:
        live = source.live()
    except SettingError:
        assert source.shared and source.teacher is None  # what is stored alone
        with pytest.raises(SettingError):
            source.logits(unseen)
        return
    logits = live.logits(unseen)
    assert logits.shape == (8, CLASSES) and torch.isfinite(logits).all()
    if is_the_teacher(source, teacher):
        near(logits, teacher(mixed))


def test_logits_of_splits(source: TargetSource, teacher: Teacher, data: Data) -> None:
    for name in ("rate", "select", "test"):
        logits = source.split_logits(name, data)
        if logits is None:
            continue
        assert logits.shape == (len(getattr(data, name)), CLASSES) and logits.device.type == "cpu"
        if is_the_teacher(source, teacher):
            near(logits, torch.cat([teacher(batch.x) for batch in getattr(data, name).clean(4)]))


@pytest.mark.parametrize("name", OF_TEACHERS)
def test_other_data_are_refused(name: str, teacher: Teacher, data: Data, tmp_path: Path) -> None:
    source = SOURCES[name](teacher.bind(data), data, tmp_path)  # type: ignore[arg-type]
    assert source is not None and source.bind(data, epochs=2) is source
    for other in (make_data(classes=5), make_data(classes=2)):
        with pytest.raises(SettingError):
            source.bind(other)
    source.bind(data)
    if name in STORING:
        with pytest.raises(SettingError, match="different data"):
            source.bind(make_data(seed=1))


def test_what_is_cached_is_the_same(source: TargetSource, teacher: Teacher, data: Data, tmp_path: Path) -> None:
    batch: Any = batch_of(data)
    cached = source.cached(data, Run(tmp_path / "run"), epochs=2)
    assert cached is source or cached.shared
    assert cached.fingerprint == source.fingerprint
    near(cached.logits(batch), source.logits(batch))
    if cached.shared:  # a worker process reads the same
        cached.prefill(data, 2, None)
        theirs = pickle.loads(pickle.dumps(cached))
        assert theirs.teacher is None and len(pickle.dumps(cached)) < 1000
        assert torch.equal(theirs.bind(data, epochs=2).logits(batch), cached.logits(batch))
    assert source.members and source.trained is None


@pytest.mark.parametrize("name", sorted(LEARNING))
def test_what_learns_beside_the_student(name: str, teacher: Teacher, data: Data) -> None:
    source = LEARNING[name](teacher.bind(data))
    batch: Any = batch_of(data)
    logits = source.logits(batch)
    assert logits.shape[-2:] == (8, CLASSES) and torch.isfinite(logits).all()
    learns = source.trained is not None and any(p.requires_grad for p in source.trained.parameters())
    assert logits.requires_grad == (learns or name == "itself learning")
    assert source.bind(data) is source and source.live() is source and source.split_logits("rate", data) is None
    if source.gives_features:
        found = source.features(batch)
        assert isinstance(found, Output) and found.logits.shape == (8, CLASSES) and found.stages


FINGERPRINTS = """
import json, sys, tempfile
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from test_targets import LEARNING, SOURCES, make_data, make_teacher
data = make_data()
teacher = make_teacher(data)
with tempfile.TemporaryDirectory() as folder:
    found = {name: make(teacher, data, Path(folder)).fingerprint for name, make in SOURCES.items()}
found |= {name: make(teacher).fingerprint for name, make in LEARNING.items()}
print(json.dumps(found))
"""


def test_fingerprints_are_those_of_other_processes(teacher: Teacher, data: Data, tmp_path: Path) -> None:
    teacher.bind(data)
    mine = {name: made.fingerprint for name, make in SOURCES.items() if (made := make(teacher, data, tmp_path))}
    mine |= {name: make(teacher).fingerprint for name, make in LEARNING.items()}
    command = [sys.executable, "-c", FINGERPRINTS, *map(str, Path(__file__).parents[:2])]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(said.splitlines()[-1]) == mine
    assert {mine[name] for name in ("teacher", "one of a list", *STORING)} == {teacher.fingerprint}
    assert len({mine[name] for name in ("teacher", "several", "privileged", "function", "own")}) == 5
    assert SOURCES["teacher"](make_teacher(data, seed=1), data, tmp_path).fingerprint != mine["teacher"]  # type: ignore[union-attr]


# names of what teaches, and of what only it has
KINDS = {
    *("TargetSource", "LiveSource", "Teacher", "ViewCache", "StoredFeatures", "StageFeatureFiles", "TeacherEnsemble"),
    *("Function", "LearnedEnsemble", "MeanTeacher", "SelfTargets", "Privileged", "Peers", "Grafted"),
}
MEMBERS = {"fingerprint", "teacher", "sources", "members", "logits", "split_logits", "taps", "normalised", "live"}
TESTS = {"isinstance": KINDS, "issubclass": KINDS, "hasattr": MEMBERS, "getattr": MEMBERS}


def told_apart(path: Path) -> list[str]:
    """Find where a file tells kinds of sources apart: isinstance, hasattr and the like."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TESTS:
            asked = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
            asked |= {part.value for part in ast.walk(node.args[1]) if isinstance(part, ast.Constant)}
            if asked & TESTS[node.func.id]:
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    return found


def test_only_the_border_tells_sources_apart() -> None:
    border = PACKAGE / "teacher" / "sources.py"
    assert told_apart(border)
    assert [line for path in sorted(PACKAGE.rglob("*.py")) if path != border for line in told_apart(path)] == []
