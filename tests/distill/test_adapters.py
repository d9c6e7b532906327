"""What is trained beside the student: closed forms, what rests in which stage, refused pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import IMAGE, Frozen, bound, fit, images, noise, source_for, student, teacher

from nas_kd.distill import METHODS, Classification, Distiller, Pair, Shapes, pair_of
from nas_kd.distill.adapters import Variational, middle, regressor
from nas_kd.distill.contrast import Contrast
from nas_kd.distill.review import Fusion
from nas_kd.errors import SettingError
from nas_kd.nn.output import Output


def shapes(*stages: tuple[int, ...], pooled: int = 6) -> Shapes:
    return Shapes(4, stages, stages, pooled)


def pair(s: Shapes, t: Shapes | None, images: int = 32) -> Pair:
    return Pair(s, t, nn.Identity(), lambda x: x, images=images)  # type: ignore[arg-type,return-value]


def test_the_linear_regressor_reaches_the_least_squares_solution():
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 2, 2).double(), torch.randn(8, 5, 2, 2).double()
    adapter = regressor((3, 2, 2), (5, 2, 2)).double()
    settings = {"max_iter": 100, "tolerance_grad": 1e-12, "tolerance_change": 1e-18}
    optimizer = torch.optim.LBFGS(adapter.parameters(), **settings)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (adapter(x) - y).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    rows = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, 3), torch.ones(32, 1).double()], 1)
    target = y.permute(0, 2, 3, 1).reshape(-1, 5)
    best = torch.linalg.solve(rows.T @ rows, rows.T @ target)  # normal equations
    torch.testing.assert_close(adapter.weight[:, :, 0, 0].detach(), best[:3].T, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(adapter.bias.detach(), best[3], rtol=1e-4, atol=1e-6)


class Coarse(Frozen):
    """A teacher whose maps have half the size of the student's."""

    def forward_stages(self, x: torch.Tensor) -> Output:
        return super().forward_stages(F.avg_pool2d(x, 2))


RECIPES = {name: Distiller(name, Classification(0.0)).recipe for name, entry in METHODS.items() if not entry.texts}
FEATURES = [name for name, recipe in RECIPES.items() if recipe.needs_target_features and not recipe.own_targets]


@pytest.mark.parametrize("method", FEATURES)
def test_maps_are_compared_at_the_size_of_a_teacher_with_smaller_ones(method: str) -> None:
    model = student()
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    distiller = bound(method, model, Coarse(1, (4, 6)))  # some methods need equal channels
    pair = distiller._pair
    assert pair is not None and pair.student.stages == ((4, 4, 4), (6, 2, 2))
    out = model.eval().forward_stages(images().x)
    seen = pair.forward(images().x)
    torch.testing.assert_close(seen.stages, [F.avg_pool2d(x, 2) for x in out.stages])
    torch.testing.assert_close(seen.pre, [F.avg_pool2d(x, 2) for x in out.pre])
    assert torch.equal(seen.logits, out.logits)
    rows = fit(distiller, model.train(), noise() if method == "zskt" else images(), steps=2)
    assert all(row["loss"] == row["loss"] for row in rows)
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in model.state_dict().items())


def test_the_hint_stage_leaves_the_layers_above_bit_identical():
    model = student()
    distiller = bound("fitnet", model, teacher(), first=0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = fit(distiller, model, images(), steps=20)
    assert set(rows[0]) == {"loss", "fitnet"} and set(rows[-1]) == {"loss", "ce", "kd"}
    model = student()
    distiller = bound("fitnet", model, teacher(), first=0.9999)
    fit(distiller, model, images(), steps=20)
    below = ("conv1", "bn1")  # the guided layer is the first of two stages
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith(below), name
    assert distiller.trained["fitnet"].stage == middle(2) == 0


def test_the_paraphraser_learns_first_and_then_rests():
    model = student()
    distiller = bound("ft", model, teacher(), first=0.5)
    parts = distiller.trained["ft"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = [p for m in (model, distiller.trained) for p in m.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    model.train()
    seen = []
    for progress in (0.0, 0.25, 0.5, 0.75):
        optimizer.zero_grad(set_to_none=True)
        distiller.step(images(), progress)
        optimizer.step()
        seen.append([p.clone() for net in (parts.encoder, parts.decoder) for p in net.parameters()])
        if progress == 0.25:
            for name, tensor in model.state_dict().items():
                assert torch.equal(tensor, before[name]), name  # the student has not even been run
    assert not any(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    for later in seen[2:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[1], later, strict=True))


def test_vid_starts_at_a_variance_of_5_and_the_variant_stays_there():
    both = pair(shapes((4, 8, 8)), shapes((6, 8, 8)))
    made = {variant: Variational(both, variant) for variant in ("paper", "mdistiller")}
    for variant, module in made.items():
        assert module.variance(0).tolist() == pytest.approx([5.0] * 6, abs=1e-5)
        assert module.spreads[0].requires_grad == (variant == "paper")
    with pytest.raises(SettingError, match="paper or mdistiller"):
        bound("vid", student(), teacher(), variant="rep")


def test_vid_of_tokens_is_that_of_their_map():
    torch.manual_seed(0)
    maps, tokens = (
        Variational(pair(shapes((4, 3, 2)), shapes((6, 3, 2)))),
        Variational(pair(shapes((6, 4)), shapes((6, 6)))),
    )
    convs, linear = maps.means[0], tokens.means[0]
    with torch.no_grad():
        for conv in (convs[0], convs[2], convs[4]):
            torch.nn.init.dirac_(conv.weight)  # the channels as they are, 0 for the last two
        linear.weight.copy_(torch.eye(6, 4))
        linear.bias.zero_()
        for module in (maps, tokens):
            module.spreads[0].copy_(torch.arange(6.0))
    s, t = torch.rand(5, 4, 3, 2), torch.randn(5, 6, 3, 2)
    one, other = (x.flatten(2).transpose(1, 2) for x in (s, t))
    torch.testing.assert_close(tokens([one], [other]), maps([s], [t]))


def test_fusion_is_attention_over_both_side_by_side():
    torch.manual_seed(0)
    fusion = Fusion(3, 4, 5, deeper=True)
    x, deeper = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4)
    own, large = fusion.reduce(x), deeper.repeat_interleave(2, 2).repeat_interleave(2, 3)
    share = fusion.attend(torch.cat([own, large], 1)).sigmoid()
    expected = own * share[:, :1] + large * share[:, 1:]
    fused, handed_on = fusion(x, deeper)
    torch.testing.assert_close(handed_on, expected)
    torch.testing.assert_close(fused, fusion.expand(expected), rtol=1e-4, atol=1e-5)


def test_the_memory_of_crd():
    torch.manual_seed(0)
    module = Contrast(pair(shapes(), shapes(pooled=10)), width=8)
    batch = images(16)._replace(index=torch.arange(16) * 2)
    before = module.memory_student.clone()
    value = module(torch.randn(16, 6, requires_grad=True), torch.randn(16, 10), batch)
    scales = module.scales.clone()
    assert torch.isfinite(value) and torch.isfinite(scales).all()
    for memory in (module.memory_student, module.memory_teacher):
        torch.testing.assert_close(memory[batch.index].norm(dim=1), torch.ones(16))
    moved = (module.memory_student != before).any(1)
    assert moved[batch.index].all() and moved.sum() == 16  # the batch's images and no others
    module(torch.randn(16, 6), torch.randn(16, 10), batch)
    assert torch.equal(module.scales, scales)  # of the first batch
    assert set(module.state_dict()) >= {"memory_student", "memory_teacher", "scales"}  # so a restart goes on


@pytest.mark.parametrize("name", ["at", "nst", "fitnet", "vid", "ft", "review"])
def test_unequal_maps_are_refused_by_their_shapes(name):
    distiller = Distiller(name)
    with pytest.raises(SettingError, match=r"\(4, 8, 8\).*\(6, 4, 4\)"):
        distiller.bind(pair(shapes((4, 8, 8)), shapes((6, 4, 4))))


def test_ab_and_fsp_name_what_they_need():
    with pytest.raises(SettingError, match=r"ab.*\(4, 8, 8\).*\(6, 4, 4\)"):
        Distiller("ab").bind(pair(shapes((4, 8, 8)), shapes((6, 4, 4))))
    with pytest.raises(SettingError, match=r"fsp.*equal channels.*\(4, 8, 8\).*\(6, 8, 8\)"):
        bound("fsp", student(), teacher())
    with pytest.raises(SettingError, match="2 teacher stages, as many as the student has; the teacher has 1"):
        Distiller("at").bind(pair(shapes((4, 8, 8), (6, 4, 4)), shapes((4, 8, 8))))
    with pytest.raises(SettingError, match=r"fsp.*maps of equal channels.*\(9, 4\)"):
        Distiller("fsp").bind(pair(shapes((9, 4), (9, 4)), shapes((9, 4), (9, 4))))  # tokens
    with pytest.raises(SettingError, match="has no stages"):
        Distiller("at").bind(pair(shapes(), shapes()))
    with pytest.raises(SettingError, match="pass teacher="):
        Distiller("at").bind(pair(shapes((4, 8, 8)), None))


def test_unknown_variants_and_shares_are_refused_before_training():
    for name, settings in {"fitnet": {"variant": "two"}, "ft": {"first": 0.0}, "ab": {"first": 1.0}}.items():
        with pytest.raises(SettingError, match=f"{name}."):
            Distiller(name, **settings)


def test_any_module_is_read_at_the_ends_of_its_resolutions():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU(inplace=True)),
            )
            self.fc = nn.Linear(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.body(x).mean((2, 3)))

    model = Plain()
    distiller = Distiller("vid")
    found = pair_of(model, distiller.recipe, source_for("vid"), IMAGE, 4)
    assert found.student.stages == ((4, 8, 8), (5, 4, 4)) and found.student.pooled == 5
    out = found.forward(images().x)
    assert isinstance(out, Output) and all(x.requires_grad for x in (*out.stages, out.pooled))
    rows = fit(distiller.bind(found), model, images(), steps=40, lr=0.05)
    assert rows[-1]["vid"] < rows[0]["vid"] and not any("vid" in name for name in model.state_dict())
