"""Text teachers as spaces: layers, heads and widths of MLPs; the largest is the teacher to the bit."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import bert
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import nas_kd
from nas_kd.data import Data
from nas_kd.derive.calling import unit_features
from nas_kd.derive.importance import importance_order
from nas_kd.derive.space import TeacherSpace
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.nn import inputs
from nas_kd.nn.text import TextNet
from nas_kd.rate.unit_scores import local_errors
from nas_kd.space import Arch
from nas_kd.space.arch import Candidate
from nas_kd.teacher import Teacher
from nas_kd.teacher.text import TextTeacher
from nas_kd.train.repair import error, noise_to_signal, repair_units

pytest.importorskip("transformers")

LENGTH = 12
MACS = {"aten.addmm", "aten.mm"}
KINDS = ("bert", "roberta", "distilbert", "electra")


def make(kind: str, layers: int = 4) -> TextTeacher:
    """Build a tiny teacher of a kind, with weights that are not its first ones."""
    import transformers

    sizes: dict[str, Any] = {"vocab_size": 90, "num_labels": 3}
    if kind == "distilbert":
        sizes |= {"dim": 32, "n_layers": layers, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}
        body: Any = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**sizes))
    else:
        sizes |= {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 48}
        sizes |= {"max_position_embeddings": 40}
        if kind == "electra":
            sizes |= {"embedding_size": 16}
        if kind == "roberta":
            sizes |= {"pad_token_id": 1}
        name = {"bert": "Bert", "roberta": "Roberta", "electra": "Electra"}[kind]
        config = getattr(transformers, f"{name}Config")(**sizes)
        body = getattr(transformers, f"{name}ForSequenceClassification")(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return TextTeacher(TextNet.of(body.eval()), kind, num_classes=3, in_chans=1)


@dataclass(frozen=True)
class Case:
    """A teacher, its space, all its cuts, and texts of several lengths."""

    teacher: TextTeacher
    space: TeacherSpace
    net: TeacherSupernet
    x: dict[str, Tensor]

    @property
    def archs(self) -> list[Arch]:
        """Some archs, the ends among them."""
        return [self.space.largest(), self.space.smallest(), *(self.space.sample(seed) for seed in range(6))]


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    teacher = make(request.param)
    space = nas_kd.teacher_space(teacher, resolution=LENGTH)
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    generator = torch.Generator().manual_seed(5)
    return Case(teacher, space, net.eval(), inputs.example(teacher.network, 1, LENGTH, 6, generator))


def test_layers_heads_and_mlps_are_found(case: Case) -> None:
    units = case.space.derived.units
    assert len(units) == 4 and all(unit.removable for unit in units)
    assert [[group.channels for group in unit.groups] for unit in units] == [[4, 48]] * 4
    assert case.space.size == (len(case.space.stages[0].kept[0]) * len(case.space.stages[0].kept[1]) + 1) ** 4


def test_the_largest_is_the_teacher_to_the_bit(case: Case) -> None:
    assert torch.equal(case.net(case.x, case.space.largest(), norm=case.space.norm), case.teacher(case.x))


def test_a_student_is_its_subnet_to_the_bit(case: Case) -> None:
    for arch in case.archs:
        assert torch.equal(case.net.extract(arch, {})(case.x), case.net(case.x, arch, norm={}))


def test_any_layers_may_stay(case: Case) -> None:
    whole = case.space.largest().stages
    stages = [stage if at % 2 == 0 else Candidate(stage.width, ()) for at, stage in enumerate(whole)]
    found = case.net(case.x, case.space.arch(stages), norm={})
    other = deepcopy(case.teacher.network)
    lists = [module for module in other.modules() if isinstance(module, nn.ModuleList) and len(module) == 4]
    kept = [lists[0][0], lists[0][2]]
    del lists[0][:]
    lists[0].extend(kept)
    assert torch.equal(found, other(case.x))


def test_what_is_cut_counts_nothing(case: Case) -> None:
    """A cut network is the whole one where what reads the cut channels is zero, in float64."""
    network = deepcopy(case.teacher.network).double()
    net = deepcopy(case.net).double()
    index = 1
    unit = case.space.derived.units[index]
    choice = tuple(stage[0] for stage in case.space.stages[index].kept)
    choices = [net.cuts.whole(at) for at in range(4)]
    choices[index] = choice
    for group, kept, order in zip(unit.groups, choice, net.cuts.order[index], strict=True):
        gone = [
            place
            for part in order[kept:].tolist()
            for slot in group.slots
            if slot.dim == 1
            for place in slot.index[part]
        ]
        (reader,) = (slot for slot in group.slots if slot.dim == 1)
        network.get_submodule(reader.layer).weight.data[:, gone] = 0  # type: ignore[union-attr,index]
    with torch.no_grad():
        apart = (net.cuts.eval()(case.x, choices, {}) - network(case.x)).abs().max()
    assert apart < 1e-12


def test_nan_in_what_is_left_out_changes_nothing(case: Case) -> None:
    arch = case.space.sample(3)
    want = case.net(case.x, arch, norm={})
    net = deepcopy(case.net)
    for index, choice in enumerate(net.choices(arch)):
        unit = net.cuts.units[index]
        module = net.cuts.body.get_submodule(unit.path)
        if choice is None:
            for parameter in module.parameters():
                parameter.data.fill_(float("nan"))
            continue
        for group, kept, order in zip(unit.groups, choice, net.cuts.order[index], strict=True):
            for part in order[kept:].tolist():
                for slot in group.slots:
                    tensor = getattr(net.cuts.body.get_submodule(slot.layer), slot.tensor)
                    tensor.data.index_fill_(slot.dim, torch.tensor(slot.index[part]), float("nan"))
    assert torch.equal(net(case.x, arch, norm={}), want)


def test_costs_are_those_of_the_students(case: Case) -> None:
    one = inputs.example(case.teacher.network, 1, LENGTH)
    for arch in case.archs:
        student = case.net.extract(arch, {})
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            student(one)
        flops = sum(count for op, count in counter.get_flop_counts()["Global"].items() if str(op) in MACS)
        cost = case.space.cost(arch, resolution=LENGTH, in_chans=1, num_classes=3)
        assert cost.macs == flops // 2
        assert cost.params == sum(parameter.numel() for parameter in student.parameters())


def test_new_weights_are_drawn_as_the_library_draws_them(case: Case) -> None:
    arch = case.space.sample(2)
    network: Any = case.space.build(arch, 3, 1)
    shared = dict(case.net.extract(arch, {}).named_parameters())
    for name, parameter in network.named_parameters():
        if name.endswith("embeddings.weight"):
            assert abs(float(parameter.std()) - 0.02) < 0.005, name
        if parameter.ndim > 1:
            assert not torch.equal(parameter, shared[name]), name


def test_padding_counts_nothing_in_ratings(case: Case) -> None:
    """Texts padded further have the same errors."""
    longer = {name: nn.functional.pad(part, (0, 7)) for name, part in case.x.items()}
    choices: Any = [[(1, 8), None] for _ in range(4)]
    close = pytest.approx
    for one, other in zip(
        local_errors(case.net.cuts, case.x, choices), local_errors(case.net.cuts, longer, choices), strict=True
    ):
        assert one == close(other, rel=1e-4)


def test_padding_counts_nothing_where_channels_are_weighed(case: Case) -> None:
    longer = {name: nn.functional.pad(part, (0, 7)) for name, part in case.x.items()}
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    for criterion in ("activation", "taylor"):
        one, other = (
            importance_order(case.teacher.network, case.space.derived.units, [(x, y)], criterion)
            for x in (case.x, longer)
        )
        assert [[rank[:2].tolist() for rank in ranks] for ranks in one] == [
            [rank[:2].tolist() for rank in ranks] for ranks in other
        ]


def test_noise_is_over_real_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    got, wanted = torch.randn(2, 3, 5, 4, generator=generator).double()
    real = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]).bool()
    rows = [(got[b, t], wanted[b, t]) for b in range(3) for t in range(5) if real[b, t]]
    squares = sum(float((g - w).square().sum()) for g, w in rows) / (4 * len(rows))
    spread = torch.cat([w for _, w in rows]).var()
    assert float(noise_to_signal(got, wanted, real)) == pytest.approx(squares / float(spread), rel=1e-5)


def test_the_hidden_width_is_an_option(case: Case) -> None:
    space = nas_kd.teacher_space(case.teacher, resolution=LENGTH, residual=True)
    net: Any = nas_kd.Supernet(space).eval()
    assert space.derived.links.streams[0].channels == 32
    assert torch.equal(net(case.x, space.largest(), norm={}), case.teacher(case.x))
    widths = set()
    for seed in range(6):
        arch = space.sample(seed)
        widths.add(arch.stages[0].width)
        student = net.extract(arch, {})
        assert torch.equal(student(case.x), net(case.x, arch, norm={}))
        cost = space.cost(arch, resolution=LENGTH, in_chans=1, num_classes=3)
        assert cost.params == sum(parameter.numel() for parameter in student.parameters())
        tables = [part for part in student.modules() if isinstance(part, nn.Embedding)]
        assert all(part.embedding_dim == part.weight.shape[1] for part in tables)
    assert len(widths) > 1


@pytest.mark.parametrize("criterion", ["activation", "taylor"])
def test_the_hidden_width_is_ranked_by_the_layers_that_read_it(
    criterion: str, text_teacher: Teacher, review_data: Data
) -> None:
    network: Any = deepcopy(text_teacher.network)
    gone = [3, 17]  # no layer reads what these hold: all that norms hand on is 0
    with torch.no_grad():
        for norm in (part for part in network.modules() if isinstance(part, nn.LayerNorm)):
            norm.weight[gone] = 0.0
            norm.bias[gone] = 0.0
    teacher = nas_kd.load_teacher(network, name="gone").bind(review_data)
    space = nas_kd.teacher_space(teacher, review_data, residual=True, importance=criterion)
    hidden = space.derived.links.streams[0]
    assert any("embeddings" in layer for layer in hidden.layers)
    assert sorted(space.derived.order[len(space.derived.units)][0].tolist()[-2:]) == gone
    net = nas_kd.Supernet(space)
    tables = nas_kd.rate_units(net, teacher, review_data, score="local", images=32)
    assert all((table["score"] >= 0).all() for table in tables)


def test_repair_brings_cuts_nearer(text_teacher: Teacher, review_data: Data) -> None:
    space = nas_kd.teacher_space(text_teacher, review_data)
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    x = next(iter(review_data.rate.clean(32))).x
    choices: Any = [[(2, 24)] for _ in range(4)]
    before = sum(map(sum, local_errors(net.cuts, x, choices)))
    repair_units(net, text_teacher, review_data, epochs=4, batch_size=16, lr=3e-3)
    assert sum(map(sum, local_errors(net.cuts, x, choices))) < 0.9 * before
    assert torch.equal(net.eval()(x, space.largest(), norm=space.norm), text_teacher(x))


def test_repair_drops_nothing_at_random(text_teacher: Teacher, review_data: Data) -> None:
    space = nas_kd.teacher_space(text_teacher, review_data)
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    x = next(iter(review_data.train.clean(8))).x
    pairs, _ = unit_features(text_teacher.network, net.cuts.units, x)
    one, other = (error(net.cuts, 1, (2, 24), *pairs[1], inputs.real_tokens(x)) for _ in range(2))
    assert torch.equal(one, other)


def test_texts_are_not_resized(text_teacher: Teacher, review_data: Data) -> None:
    with pytest.raises(nas_kd.errors.SettingError, match=r"derive\.resolutions"):
        nas_kd.teacher_space(text_teacher, review_data, resolutions=(8,))


def test_ratings_in_parts_are_those_of_all(text_teacher: Teacher, review_data: Data, monkeypatch: Any) -> None:
    import nas_kd.rate.unit_scores as units

    space = nas_kd.teacher_space(text_teacher, review_data)
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    x = inputs.picked(next(iter(review_data.rate.clean(32))).x, slice(32))
    choices: Any = [[(2, 24), None] for _ in range(4)]
    whole = local_errors(net.cuts, x, choices)
    monkeypatch.setattr(units, "PART", 8)
    parts = units.local_errors(net.cuts, x, choices)
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, rel=0.15)  # each part over its own variance


@pytest.mark.parametrize("layers", [1, 2])
def test_few_layers_are_units_too(layers: int, tmp_path: Path) -> None:
    body = bert(tmp_path, layers=layers)
    teacher = TextTeacher(TextNet.of(body), "short", num_classes=2, in_chans=1)
    assert len(nas_kd.teacher_space(teacher, resolution=8).derived.units) == layers
