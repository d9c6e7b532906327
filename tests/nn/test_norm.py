"""Batch norm without running statistics, and the pooling of its statistics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.nn.norm import ElasticBatchNorm2d, Recorder


def norm_layer(channels: int = 6) -> ElasticBatchNorm2d:
    torch.manual_seed(0)
    norm = ElasticBatchNorm2d(channels)
    norm.path = "n"
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.normal_()
    return norm


def shifted(batches: int = 3, channels: int = 4, seed: int = 1) -> list[Tensor]:
    """Draw batches of unequal sizes whose means differ, as real batches' do."""
    g = torch.Generator().manual_seed(seed)
    return [
        torch.randn(3 + 2 * i, channels, 3, 2, generator=g) * (1 + i) + torch.randn(1, channels, 1, 1, generator=g)
        for i in range(batches)
    ]


def pooled(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    every = torch.cat([x.double().transpose(0, 1).flatten(1) for x in batches], 1)
    return every.mean(1), every.var(1, unbiased=False)


def test_training_takes_the_batch_and_values_are_applied() -> None:
    norm, x = norm_layer(), torch.randn(5, 4, 3, 3)
    wanted = F.batch_norm(x, None, None, norm.weight[:4], norm.bias[:4], True)
    assert torch.equal(norm(x), wanted)
    recorder = Recorder()
    assert torch.equal(norm(x, recorder), wanted)
    # the recorded values, applied, give the same normalisation back
    torch.testing.assert_close(norm(x, recorder.values()), wanted)
    mean, variance = torch.randn(4), torch.rand(4) + 0.5
    by_hand = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    by_hand = by_hand * norm.weight[:4, None, None] + norm.bias[:4, None, None]
    torch.testing.assert_close(norm(x, {"n": (mean, variance)}), by_hand)


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_recorder_pools_by_the_law_of_total_variance(batches: int) -> None:
    xs, norm, recorder = shifted(batches), norm_layer(), Recorder()
    for x in xs:
        norm(x, recorder)
    mean, variance = recorder.values()["n"]
    m, v = pooled(xs)
    torch.testing.assert_close(mean.double(), m, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance.double(), v, rtol=1e-6, atol=1e-6)


def test_recorder_is_not_the_mean_of_batch_variances() -> None:
    xs, recorder = [x[:3] for x in shifted(4)], Recorder()  # equal sizes
    norm = norm_layer()
    for x in xs:
        norm(x, recorder)
    _, variance = recorder.values()["n"]
    each = [pooled([x]) for x in xs]
    within = torch.stack([v for _, v in each]).mean(0)
    between = torch.stack([m for m, _ in each]).var(0, unbiased=False)
    assert (between / within > 0.02).all()
    torch.testing.assert_close(variance.double() - within, between, rtol=1e-5, atol=1e-6)


def test_recorder_of_a_constant_channel_is_never_negative() -> None:
    recorder, norm = Recorder(), norm_layer(2)
    for _ in range(3):
        norm(torch.full((7, 2, 3, 3), 1234.567), recorder)
    mean, variance = recorder.values()["n"]
    torch.testing.assert_close(mean, torch.full((2,), 1234.567))
    assert (variance >= 0).all() and (variance < 1e-3).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recorder_keeps_the_dtype_and_float64_is_exact(dtype: torch.dtype) -> None:
    xs, norm, recorder = [x.to(dtype) for x in shifted()], norm_layer().to(dtype), Recorder()
    for x in xs:
        norm(x, recorder)
    mean, variance = recorder.values()["n"]
    m, v = pooled(xs)
    bound = {torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(mean, m.to(dtype), rtol=bound, atol=bound)
    torch.testing.assert_close(variance, v.to(dtype), rtol=bound, atol=bound)


def test_recorder_keeps_norms_apart_and_their_values_share_no_memory() -> None:
    recorder, wide, narrow = Recorder(), norm_layer(6), norm_layer(6)
    wide.path, narrow.path = "wide", "narrow"
    xs = shifted(3, channels=6)
    for x in xs:
        wide(x, recorder)
        narrow(x[:, :2, :1], recorder)  # other channels, another count
    values = recorder.values()
    for path, seen in (("wide", xs), ("narrow", [x[:, :2, :1] for x in xs])):
        for found, wanted in zip(values[path], pooled(seen), strict=True):
            torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)
    storages = {part.untyped_storage().data_ptr() for pair in values.values() for part in pair}
    assert len(storages) == 4


def test_recorder_refuses_batches_through_other_norms() -> None:
    recorder, norm = Recorder(), norm_layer()
    x = shifted()[0]
    norm(x, recorder)
    with pytest.raises(ValueError, match="same norms"):
        norm(x[:, :2], recorder)
        recorder.values()


def test_recorder_of_nothing_is_empty() -> None:
    recorder = Recorder()
    recorder.reduce()
    assert recorder.values() == {}
