"""Trainings in threads of one process: each has the weights that it has alone."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from nas_kd.data import load_data
from nas_kd.train.retrain import retrain


def test_three_trainings_at_once_are_as_each_alone() -> None:
    """Dropout draws from the generators that all threads share; many short steps let threads take turns."""
    data = load_data("digits", subset=200, rate=0.2, select=0.2)

    def trained(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
        with torch.no_grad():
            net[2].weight.copy_(torch.randn(10, 64, generator=generator) / 8)
            net[2].bias.zero_()
        retrain(net, None, data, method="ce", epochs=3, batch_size=4, seed=seed)
        return net[2].weight.detach().clone()

    alone = [trained(seed) for seed in (0, 0, 1)]
    assert torch.equal(alone[0], alone[1]) and not torch.equal(alone[0], alone[2])
    found: dict[int, Tensor] = {}
    threads = [threading.Thread(target=lambda n=n, s=s: found.update({n: trained(s)})) for n, s in enumerate((0, 0, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[number], alone[number]) for number in range(3))
